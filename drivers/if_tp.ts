/**
 * Driver for the NIC `tp`, which has no DMA: the CPU copies every byte through a data port. Output
 * uses FreeBSD's default path, if_snd and if_start. The driver reads payload, so it lacks
 * IFCAP_NOMAP, and it has no checksum offload: the stack maps each packet and computes its
 * checksums. Each byte of file pages that the driver reads is counted as `pio`. Left out: a
 * watchdog (a wire may stall for a long time), media selection.
 */

import { CAPTURE_IN, CAPTURE_OUT, CAPTURE_RING } from '../src/sys/capture.ts';
import { captureNotes } from '../src/sys/capture_notes.ts';
import { captureTags } from '../src/sys/capture_tags.ts';
import { countDrop, noteLost } from '../src/net/capture_drop.ts';
import { ENOBUFS, ENXIO, type Errno } from '../src/sys/errno.ts';
import {
  count,
  R_DRV_HW_ERROR,
  R_DRV_RX_ERROR,
  R_DRV_RX_NOBUF,
  R_DRV_TX_ERROR,
} from '../src/sys/reason.ts';
import { type Kva, kva } from '../src/sys/types.ts';
import { mem } from '../src/vm/arena.ts';
import { payloadReason, READ_PIO } from '../src/vm/payload.ts';
import { m_clget, m_freem, m_getcl, m_gethdr } from '../src/kern/kern_mbuf.ts';
import { countMappedRead, m_copydata } from '../src/kern/m_copydata.ts';
import {
  type Mbuf,
  MCLBYTES,
  MHLEN,
  M_NOMAP,
  M_NOWAIT,
  M_WAITOK,
  MT_DATA,
  mtod,
} from '../src/kern/mbuf.ts';
import {
  bus_space_read_4,
  bus_space_read_multi_4,
  bus_space_write_4,
  bus_space_write_multi_4,
} from '../src/bus/bus_space.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import { ether_crc32_be } from '../src/net/ether_crc.ts';
import { ETHERMTU } from '../src/net/ethernet.ts';
import {
  IFCAP_LINKSTATE,
  IFCAP_VLAN_MTU,
  IFCOUNTER_IERRORS,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_IQDROPS,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OPACKETS,
  if_inc_counter,
  IFF_ALLMULTI,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
  IFF_PROMISC,
  type IfIoctl,
  type Ifnet,
} from '../src/net/if_var.ts';
import { IFQ_DRV_DEQUEUE, ifqDefaultMaxlen, IFQ_SET_MAXLEN } from '../src/net/ifq.ts';
import { if_qflush } from '../src/net/ifq_start.ts';
import {
  TP_BNRY,
  TP_CR,
  TP_CR_ABT,
  TP_CR_RRD,
  TP_CR_RST,
  TP_CR_RWR,
  TP_CR_STA,
  TP_CR_STP,
  TP_CR_TXP,
  TP_CURR,
  TP_DATA,
  TP_FRAME_MAX,
  TP_FRAME_RUNT,
  TP_ID,
  TP_ID_REV1,
  TP_IMR,
  TP_INT_LSC,
  TP_INT_MASK,
  TP_INT_OVW,
  TP_INT_PRX,
  TP_INT_PTX,
  TP_INT_RDC,
  TP_INT_TXE,
  TP_ISR,
  TP_LIMITS,
  TP_MACH,
  TP_MACL,
  TP_MTA0,
  TP_MTA1,
  TP_PAGE_SIZE,
  TP_PSTART,
  TP_PSTOP,
  TP_RBCR,
  TP_RCR,
  TP_RCR_AB,
  TP_RCR_ALLMULTI,
  TP_RCR_AM,
  TP_RCR_PRO,
  TP_RSAR,
  TP_RXHDR_LEN_SHIFT,
  TP_RXHDR_NEXT_SHIFT,
  TP_RXHDR_SIZE,
  TP_RXS_OK,
  TP_STATUS,
  TP_STATUS_LU,
  TP_TBCR,
  TP_TPSR,
  TP_TSR,
  TP_TSR_PTX,
} from '../src/dev/tp/tpreg.ts';
import {
  lladdrHigh,
  lladdrLow,
  multicastHash,
  nicAttach,
  nicAttached,
  type NicControl,
  nicDetach,
  nicIoctl,
  nicLink,
} from './nic_ifnet.ts';
import { TP_RING_START, TpSoftc, TP_TXBUF_PAGES, TP_TXBUFS, type TpOps } from './if_tpvar.ts';

/** Capabilities of the model: none that needs the NIC to read payload. */
export const TP_CAPABILITIES = IFCAP_VLAN_MTU | IFCAP_LINKSTATE;

/** Bytes before a received frame: they align the IP header behind the 14-byte Ethernet header. */
const ETHER_ALIGN = 2;
/** Rounds of one interrupt at most. A round sends a frame or empties the receive ring. */
const INTR_LIMIT = 64;
const INTERRUPTS = TP_INT_PRX | TP_INT_PTX | TP_INT_TXE | TP_INT_OVW | TP_INT_LSC;

/**
 * Attaches the driver to the NIC at `regs` as interface `ifp`, which gets the NIC's MAC address.
 * ENXIO: no `tp` is at `regs`; ENOBUFS: no cluster is free.
 * @see ether_ifattach(9)
 */
export function tp_attach(ifp: Ifnet, regs: MmioRegion, intr: IntrVector): Errno {
  if (bus_space_read_4(regs, TP_ID) !== TP_ID_REV1) return ENXIO;
  bus_space_write_4(regs, TP_CR, TP_CR_RST);
  const scratch = m_getcl(M_WAITOK, MT_DATA, 0);
  if (scratch === null) return ENOBUFS;
  const npages = bus_space_read_4(regs, TP_LIMITS) & 0xffff;
  const sc = new TpSoftc(ifp, regs, intr, tpOps, scratch, npages);
  nicAttach(ifp, sc, TP_CAPABILITIES);
  ifp.if_baudrate = 10e6;
  ifp.if_media = '10baseT/UTP <full-duplex>';
  IFQ_SET_MAXLEN(ifp.if_snd, ifqDefaultMaxlen());
  nicAttached(sc, bus_space_read_4(regs, TP_MACL), bus_space_read_4(regs, TP_MACH));
  tp_link(sc);
  return 0;
}

/** Stops the NIC, frees its packets and detaches the driver from `ifp`. @see ether_ifdetach(9) */
export function tp_detach(ifp: Ifnet): Errno {
  const sc = ifp.if_softc;
  if (!(sc instanceof TpSoftc)) return ENXIO;
  tp_stop(sc);
  nicDetach(sc);
  if_qflush(ifp);
  m_freem(sc.scratch);
  return 0;
}

/** Programs the receive filter: promiscuous mode and multicast groups. */
function tp_setrcr(sc: TpSoftc): void {
  const { if_flags } = sc.ifp;
  const [low, high] = multicastHash(sc.ifp, (lladdr) => ether_crc32_be(lladdr) >>> 26);
  bus_space_write_4(sc.regs, TP_MTA0, low!);
  bus_space_write_4(sc.regs, TP_MTA1, high!);
  let rcr = TP_RCR_AB | TP_RCR_AM;
  if ((if_flags & IFF_ALLMULTI) !== 0) rcr |= TP_RCR_ALLMULTI;
  if ((if_flags & IFF_PROMISC) !== 0) rcr |= TP_RCR_PRO;
  bus_space_write_4(sc.regs, TP_RCR, rcr);
}

/**
 * Starts the NIC: ring, filter, interrupts. Does nothing if it runs. ENXIO: the NIC does not start.
 * @see ifnet(9)
 */
function tp_init(sc: TpSoftc): Errno {
  const { ifp, regs } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) return 0;
  bus_space_write_4(regs, TP_CR, TP_CR_RST);
  bus_space_write_4(regs, TP_PSTART, TP_RING_START);
  bus_space_write_4(regs, TP_PSTOP, sc.memEnd);
  bus_space_write_4(regs, TP_BNRY, TP_RING_START);
  bus_space_write_4(regs, TP_CURR, TP_RING_START);
  sc.nextPage = TP_RING_START;
  bus_space_write_4(regs, TP_MACL, lladdrLow(ifp.if_lladdr));
  bus_space_write_4(regs, TP_MACH, lladdrHigh(ifp.if_lladdr));
  tp_setrcr(sc);
  bus_space_write_4(regs, TP_CR, TP_CR_STA);
  if ((bus_space_read_4(regs, TP_CR) & TP_CR_STA) === 0) {
    count(R_DRV_HW_ERROR);
    return ENXIO;
  }
  ifp.if_drv_flags |= IFF_DRV_RUNNING;
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
  tp_link(sc);
  bus_space_write_4(regs, TP_IMR, INTERRUPTS);
  return 0;
}

/** Stops the NIC. Frames in its transmit buffers are lost; if_snd is kept. @see ifnet(9) */
function tp_stop(sc: TpSoftc): void {
  bus_space_write_4(sc.regs, TP_CR, TP_CR_RST);
  sc.ifp.if_drv_flags &= ~(IFF_DRV_RUNNING | IFF_DRV_OACTIVE);
  sc.txInuse = 0;
  sc.txNext = 0;
  sc.txFill = 0;
  sc.txBusy = false;
}

/** Restarts a NIC that did not execute a command. */
function tp_reset(sc: TpSoftc): void {
  count(R_DRV_HW_ERROR);
  tp_stop(sc);
  tp_init(sc);
}

/** Reads the link state and reports it to the stack. */
function tp_link(sc: TpSoftc): void {
  nicLink(sc.ifp, (bus_space_read_4(sc.regs, TP_STATUS) & TP_STATUS_LU) !== 0);
}

/** Sets up the data port for `len` bytes at byte `addr` of packet memory. */
function beginPio(sc: TpSoftc, addr: number, len: number, command: number): void {
  const { regs } = sc;
  bus_space_write_4(regs, TP_ISR, TP_INT_RDC);
  bus_space_write_4(regs, TP_RSAR, addr);
  bus_space_write_4(regs, TP_RBCR, len);
  bus_space_write_4(regs, TP_CR, command);
}

/** Ends a transfer. Returns false if it was incomplete; the transfer is then aborted. */
function endPio(sc: TpSoftc): boolean {
  const { regs } = sc;
  if ((bus_space_read_4(regs, TP_ISR) & TP_INT_RDC) !== 0) {
    bus_space_write_4(regs, TP_ISR, TP_INT_RDC);
    return true;
  }
  bus_space_write_4(regs, TP_CR, TP_CR_ABT);
  return false;
}

// Bytes of a frame that do not fill a word yet: the port accepts only whole words.
let carry = 0;
let ncarry = 0;

/** Writes `len` bytes at `p` to the data port, after the carried bytes. */
function pioWrite(regs: MmioRegion, p: number, len: number): void {
  while (ncarry > 0 && len > 0) {
    carry |= mem[p++]! << (8 * ncarry++);
    len--;
    if (ncarry < 4) continue;
    bus_space_write_4(regs, TP_DATA, carry);
    carry = 0;
    ncarry = 0;
  }
  const words = len >>> 2;
  if (words > 0) bus_space_write_multi_4(regs, TP_DATA, kva(p), words);
  p += 4 * words;
  for (len &= 3; len > 0; len--) carry |= mem[p++]! << (8 * ncarry++);
}

/**
 * Copies the packet into packet memory at byte `addr`; the caller keeps it. m_copydata can read
 * unmapped mbufs, although the stack passes none to this driver. Returns false if the NIC did not
 * accept all bytes.
 */
function tp_pio_write_mbufs(sc: TpSoftc, top: Mbuf, addr: number): boolean {
  const { regs, scratch } = sc;
  const before = payloadReason(READ_PIO);
  carry = 0;
  ncarry = 0;
  beginPio(sc, addr, top.m_pkthdr.len, TP_CR_RWR);
  for (let m: Mbuf | null = top; m !== null; m = m.m_next) {
    if ((m.m_flags & M_NOMAP) === 0) {
      countMappedRead(m, m.m_len);
      pioWrite(regs, mtod(m), m.m_len);
      continue;
    }
    for (let off = 0; off < m.m_len; off += MCLBYTES) {
      const n = Math.min(m.m_len - off, MCLBYTES);
      m_copydata(m, off, n, mtod(scratch));
      pioWrite(regs, mtod(scratch), n);
    }
  }
  if (ncarry > 0) bus_space_write_4(regs, TP_DATA, carry);
  payloadReason(before);
  return endPio(sc);
}

/** Starts transmission of the next buffer. */
function tp_xmit(sc: TpSoftc): void {
  const { regs } = sc;
  sc.txBusy = true;
  const page = sc.txNext * TP_TXBUF_PAGES;
  if (captureNotes.on) captureTags.putSent(sc.ifp.if_capunit, page, sc.txId[sc.txNext]!);
  bus_space_write_4(regs, TP_TPSR, page);
  bus_space_write_4(regs, TP_TBCR, sc.txLen[sc.txNext]!);
  bus_space_write_4(regs, TP_CR, TP_CR_TXP);
}

function txError(sc: TpSoftc, m: Mbuf): void {
  countDrop(m, R_DRV_TX_ERROR, CAPTURE_RING, CAPTURE_OUT, sc.ifp);
  if_inc_counter(sc.ifp, IFCOUNTER_OERRORS, 1);
  m_freem(m);
}

/**
 * Moves frames from if_snd to the transmit buffers until the queue is empty or no buffer is free.
 * Sets OACTIVE if no buffer is free; the transmit interrupt then continues. A frame is passed to
 * BPF and freed as soon as it is in packet memory.
 * @see ifnet(9)
 */
function tp_start(sc: TpSoftc): void {
  const { ifp } = sc;
  if ((ifp.if_drv_flags & (IFF_DRV_RUNNING | IFF_DRV_OACTIVE)) !== IFF_DRV_RUNNING) return;
  for (;;) {
    if (sc.txInuse === TP_TXBUFS) {
      ifp.if_drv_flags |= IFF_DRV_OACTIVE;
      return;
    }
    const m = IFQ_DRV_DEQUEUE(ifp.if_snd);
    if (m === null) return;
    const { len } = m.m_pkthdr;
    if (len > TP_FRAME_MAX) {
      txError(sc, m);
      continue;
    }
    if (!tp_pio_write_mbufs(sc, m, sc.txFill * TP_TXBUF_PAGES * TP_PAGE_SIZE)) {
      txError(sc, m);
      tp_reset(sc);
      return;
    }
    const bpf = ifp.if_bpf;
    if (bpf !== null && bpf.listeners > 0) bpf.mtap(m, true);
    sc.txId[sc.txFill] = m.m_pkthdr.pktId;
    m_freem(m);
    sc.txLen[sc.txFill] = len;
    sc.txFill = (sc.txFill + 1) % TP_TXBUFS;
    sc.txInuse++;
    if (!sc.txBusy) tp_xmit(sc);
  }
}

/** Completes a frame, whether it was sent or not, and starts the next one. */
function tp_txeof(sc: TpSoftc): void {
  const { ifp } = sc;
  if (!sc.txBusy) return;
  const sent = (bus_space_read_4(sc.regs, TP_TSR) & TP_TSR_PTX) !== 0;
  if_inc_counter(ifp, sent ? IFCOUNTER_OPACKETS : IFCOUNTER_OERRORS, 1);
  if (!sent) {
    const at = sc.txNext;
    count(R_DRV_TX_ERROR);
    noteLost(sc.txId[at]!, sc.txLen[at]!, R_DRV_TX_ERROR, CAPTURE_RING, CAPTURE_OUT, ifp);
  }
  sc.txBusy = false;
  sc.txInuse--;
  sc.txNext = (sc.txNext + 1) % TP_TXBUFS;
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
  if (sc.txInuse > 0) tp_xmit(sc);
}

/**
 * Reads `len` bytes of packet memory at byte `addr` to `p`, rounded up to whole words: up to 3 more
 * bytes at `p` are overwritten. Returns false if the NIC did not deliver all bytes.
 */
function tp_pio_read(sc: TpSoftc, addr: number, p: Kva, len: number): boolean {
  beginPio(sc, addr, len, TP_CR_RRD);
  bus_space_read_multi_4(sc.regs, TP_DATA, p, (len + 3) >>> 2);
  return endPio(sc);
}

/**
 * Allocates an mbuf with contiguous space for a frame of `len` bytes. Returns null if memory is
 * exhausted.
 */
function tp_getbuf(len: number): Mbuf | null {
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return null;
  // Whole words are stored: up to three bytes may follow the frame.
  if (ETHER_ALIGN + len + 3 > MHLEN && !m_clget(m, M_NOWAIT)) {
    m_freem(m);
    return null;
  }
  m.m_data += ETHER_ALIGN;
  m.m_len = len;
  m.m_pkthdr.len = len;
  return m;
}

/**
 * Reads the frame of `len` bytes whose header is at page `page` into `m`. Returns false if the NIC
 * did not deliver all bytes.
 */
function tp_ring_copy(sc: TpSoftc, page: number, m: Mbuf, len: number): boolean {
  const addr = page * TP_PAGE_SIZE + TP_RXHDR_SIZE;
  // A transfer cannot cross the end of the ring: a frame that wraps continues at the start.
  const first = Math.min(len, sc.memEnd * TP_PAGE_SIZE - addr);
  if (!tp_pio_read(sc, addr, mtod(m), first)) return false;
  if (first === len) return true;
  return tp_pio_read(sc, TP_RING_START * TP_PAGE_SIZE, kva(mtod(m) + first), len - first);
}

/** The page that follows a frame of `len` bytes at `page`. */
function pageAfter(sc: TpSoftc, page: number, len: number): number {
  const next = page + Math.ceil((len + TP_RXHDR_SIZE) / TP_PAGE_SIZE);
  return next < sc.memEnd ? next : next - (sc.memEnd - TP_RING_START);
}

/** Counts an error of frame `id` and resets the NIC, because its ring is invalid. */
function ringError(sc: TpSoftc, id: number): void {
  count(R_DRV_RX_ERROR);
  noteLost(id, 0, R_DRV_RX_ERROR, CAPTURE_RING, CAPTURE_IN, sc.ifp);
  if_inc_counter(sc.ifp, IFCOUNTER_IERRORS, 1);
  tp_reset(sc);
}

/**
 * Takes the frame at `sc.nextPage` out of the ring and hands it to the stack. Returns false if it
 * had to reset the NIC.
 */
function tp_get_packet(sc: TpSoftc): boolean {
  const { ifp, regs } = sc;
  const page = sc.nextPage;
  const id = captureNotes.on ? captureTags.takeReceived(ifp.if_capunit, page) : 0;
  beginPio(sc, page * TP_PAGE_SIZE, TP_RXHDR_SIZE, TP_CR_RRD);
  const hdr = bus_space_read_4(regs, TP_DATA);
  const len = hdr >>> TP_RXHDR_LEN_SHIFT;
  const next = (hdr >>> TP_RXHDR_NEXT_SHIFT) & 0xff;
  const sane = (hdr & TP_RXS_OK) !== 0 && len >= TP_FRAME_RUNT && len <= TP_FRAME_MAX;
  if (!endPio(sc) || !sane || next !== pageAfter(sc, page, len)) {
    ringError(sc, id);
    return false;
  }
  const m = tp_getbuf(len);
  if (m !== null && !tp_ring_copy(sc, page, m, len)) {
    m_freem(m);
    ringError(sc, id);
    return false;
  }
  // Free the pages before input: the stack may stop and start the NIC.
  sc.nextPage = next;
  bus_space_write_4(regs, TP_BNRY, next);
  if (m === null) {
    count(R_DRV_RX_NOBUF);
    noteLost(id, len, R_DRV_RX_NOBUF, CAPTURE_RING, CAPTURE_IN, ifp);
    if_inc_counter(ifp, IFCOUNTER_IQDROPS, 1);
    return true;
  }
  m.m_pkthdr.rcvif = ifp;
  m.m_pkthdr.pktId = id;
  if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
  ifp.if_input!(ifp, m);
  return true;
}

/**
 * Reads received frames out of the ring and passes them to the stack until the ring is empty. An
 * invalid header means that the ring is corrupt: the NIC is reset.
 * @see ifnet(9)
 */
function tp_rint(sc: TpSoftc): void {
  const { ifp, regs } = sc;
  // The device adds no frames during this loop; the limit ends the loop on broken hardware.
  for (let n = 0; n < sc.memEnd; n++) {
    if (sc.nextPage === bus_space_read_4(regs, TP_CURR)) return;
    if (!tp_get_packet(sc)) return;
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return;
  }
}

/**
 * Recovers an overflowed ring; until then the NIC drops all frames. The order is: stop, read the
 * frames, acknowledge, start. A frame being sent is not affected.
 */
function tp_overrun(sc: TpSoftc): void {
  const { ifp, regs } = sc;
  if_inc_counter(ifp, IFCOUNTER_IERRORS, 1);
  bus_space_write_4(regs, TP_CR, TP_CR_STP);
  tp_rint(sc);
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return;
  bus_space_write_4(regs, TP_ISR, TP_INT_OVW);
  bus_space_write_4(regs, TP_CR, TP_CR_STA);
}

/** The interrupt handler; runs as a pass of the stack. @see bus_setup_intr(9) */
function tp_intr(sc: TpSoftc): void {
  const { ifp, regs } = sc;
  // Mask all causes while handling them: those left at the end raise the line again.
  bus_space_write_4(regs, TP_IMR, 0);
  for (let n = 0; n < INTR_LIMIT; n++) {
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) break;
    const isr = bus_space_read_4(regs, TP_ISR) & INTERRUPTS;
    if (isr === 0) break;
    // An overflow is acknowledged as part of its recovery.
    bus_space_write_4(regs, TP_ISR, isr & ~TP_INT_OVW);
    if ((isr & TP_INT_LSC) !== 0) tp_link(sc);
    if ((isr & (TP_INT_PTX | TP_INT_TXE)) !== 0) tp_txeof(sc);
    if ((isr & TP_INT_OVW) !== 0) tp_overrun(sc);
    else if ((isr & TP_INT_PRX) !== 0) tp_rint(sc);
    tp_start(sc);
  }
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) bus_space_write_4(regs, TP_IMR, INTERRUPTS);
  else bus_space_write_4(regs, TP_ISR, TP_INT_MASK);
}

const tpControl: NicControl<TpSoftc> = {
  mtuMax: ETHERMTU,
  init(sc) {
    const error = tp_init(sc);
    // Send what was in if_snd while the NIC was stopped.
    if (error === 0) tp_start(sc);
    return error;
  },
  stop: tp_stop,
  setmodes: tp_setrcr,
  setmulti: tp_setrcr,
  setmtu: () => 0,
  // No capability needs a register write.
  capsync: () => {},
};

/** @see ifnet(9) */
function tp_ioctl(sc: TpSoftc, command: IfIoctl, data: number): Errno {
  return nicIoctl(sc, tpControl, command, data);
}

const tpOps: TpOps = {
  init: tp_init,
  start: tp_start,
  ioctl: tp_ioctl,
  intr: tp_intr,
};
