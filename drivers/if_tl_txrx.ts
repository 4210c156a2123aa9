/**
 * Transmit and receive of the driver for `tl`. A frame has four fragments of at most 512 bytes in the
 * lowest 4 GiB: bus_dma bounces what lies above, and a chain with more fragments is copied together.
 * Which packets the NIC is done with is what TL_TXGET says. Block and descriptor rules:
 * docs/tl-datasheet.md.
 */

import { EFBIG, EINVAL, ENETDOWN, ENOBUFS, ENOMEM, type Errno } from '../src/sys/errno.ts';
import {
  count,
  R_DRV_DEFRAG,
  R_DRV_DOWN,
  R_DRV_IFQ_FULL,
  R_DRV_RING_FULL,
  R_DRV_RX_ERROR,
  R_DRV_RX_NOBUF,
  R_DRV_TX_ERROR,
} from '../src/sys/reason.ts';
import type { Kva } from '../src/sys/types.ts';
import { mem, memView } from '../src/vm/arena.ts';
import { m_copydata } from '../src/kern/m_copydata.ts';
import { m_freem, m_getcl, m_gethdr } from '../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP6_TCP,
  CSUM_IP6_UDP,
  CSUM_IP_CHECKED,
  CSUM_IP_TCP,
  CSUM_IP_UDP,
  CSUM_IP_VALID,
  CSUM_PSEUDO_HDR,
  MCLBYTES,
  type Mbuf,
  MHLEN,
  M_MCAST,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
  mtod,
} from '../src/kern/mbuf.ts';
import { m_collapse, m_defrag } from '../src/kern/uipc_mbuf.ts';
import {
  bus_dmamap_load_mbuf_sg,
  bus_dmamap_sync,
  bus_dmamap_unload,
  BUS_DMASYNC_POSTREAD,
  BUS_DMASYNC_POSTWRITE,
  BUS_DMASYNC_PREREAD,
  BUS_DMASYNC_PREWRITE,
  type BusDmamap,
  dmaStats,
} from '../src/bus/bus_dma.ts';
import { bus_space_read_4, bus_space_write_4 } from '../src/bus/bus_space.ts';
import {
  IFCAP_RXCSUM,
  IFCAP_RXCSUM_IPV6,
  IFCOUNTER_IERRORS,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_IQDROPS,
  IFCOUNTER_OBYTES,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OMCASTS,
  IFCOUNTER_OPACKETS,
  IFCOUNTER_OQDROPS,
  if_inc_counter,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
} from '../src/net/if_var.ts';
import {
  TL_B_CMD,
  TL_B_FRAG,
  TL_B_SUM,
  TL_B_TAG,
  TL_BLOCK_SIZE,
  TL_CMD_ERR,
  TL_CMD_INT,
  TL_CMD_SUM,
  TL_CMD_UDP,
  TL_R_ADDR,
  TL_R_LEN,
  TL_R_STATUS,
  TL_RXBUF_SIZE,
  TL_RXD_SIZE,
  TL_RXGET,
  TL_RXPUT,
  TL_RXS_ERR,
  TL_RXS_IP4,
  TL_RXS_IPBAD,
  TL_RXS_L4,
  TL_RXS_L4BAD,
  TL_TXGET,
  TL_TXPUT,
} from '../src/dev/tl/tlreg.ts';
import { RING_TO_DEVICE, RING_TO_US } from './dma_setup.ts';
import { TL_NSEGS, TL_RX_NDESC, type TlSoftc } from './if_tlvar.ts';

const ETHER_HDR_LEN = 14;
const ETHERTYPE_VLAN = 0x8100;
const TCP_REQUESTS = CSUM_IP_TCP | CSUM_IP6_TCP;
const V6_REQUESTS = CSUM_IP6_TCP | CSUM_IP6_UDP;
const REQUESTS = TCP_REQUESTS | CSUM_IP_UDP | CSUM_IP6_UDP;
const TCP_CKSUM_OFF = 16;
const UDP_CKSUM_OFF = 6;
/** Headers that are looked at: Ethernet with a VLAN tag, IPv6. */
const LOOK_MAX = ETHER_HDR_LEN + 4 + 40;

/** What the packet asks of the NIC, for its block. EINVAL: the headers are bad. */
function tl_offload_setup(sc: TlSoftc, m: Mbuf): Errno {
  const { csum_flags, len } = m.m_pkthdr;
  sc.sumCmd = 0;
  sc.sumWhere = 0;
  if ((csum_flags & REQUESTS) === 0) return 0;
  const v6 = (csum_flags & V6_REQUESTS) !== 0;
  const tcp = (csum_flags & TCP_REQUESTS) !== 0;
  const look = Math.min(LOOK_MAX, len);
  let hdr: number = sc.scratch.m_data;
  if (m.m_len >= look) hdr = mtod(m);
  else m_copydata(m, 0, look, hdr as Kva);
  if (look < ETHER_HDR_LEN + 20) return EINVAL;
  const l2 = memView.getUint16(hdr + 12) === ETHERTYPE_VLAN ? ETHER_HDR_LEN + 4 : ETHER_HDR_LEN;
  if (look < l2 + (v6 ? 40 : 20)) return EINVAL;
  // With IPv6 extension headers the stack sums in software.
  const start = l2 + (v6 ? 40 : (memView.getUint8(hdr + l2) & 0xf) * 4);
  if (len < start + (tcp ? 20 : 8)) return EINVAL;
  sc.sumCmd = tcp ? TL_CMD_SUM : TL_CMD_SUM | TL_CMD_UDP;
  sc.sumWhere = start | ((start + (tcp ? TCP_CKSUM_OFF : UDP_CKSUM_OFF)) << 16);
  return 0;
}

/** Loads the chain, copying it together if it has too many segments; sc.txHead is what it became. */
function tl_load(sc: TlSoftc, map: BusDmamap, m: Mbuf): Errno {
  let error = bus_dmamap_load_mbuf_sg(sc.txTag, map, m, sc.segs);
  if (error !== EFBIG) return error;
  dmaStats.defrags++;
  count(R_DRV_DEFRAG);
  const collapsed = m_collapse(m, M_NOWAIT, TL_NSEGS);
  if (collapsed !== null) {
    sc.txHead = collapsed;
    error = bus_dmamap_load_mbuf_sg(sc.txTag, map, collapsed, sc.segs);
    if (error !== EFBIG) return error;
  }
  // A cluster holds the longest frame, in three fragments.
  const defragged = m_defrag(sc.txHead!, M_NOWAIT);
  if (defragged === null) return ENOBUFS;
  sc.txHead = defragged;
  return bus_dmamap_load_mbuf_sg(sc.txTag, map, defragged, sc.segs);
}

/**
 * Queues `m` for transmission. On 0 the ring owns the packet. On any error the caller owns
 * `sc.txHead`, which is `m` unless it had to be copied together: ENOMEM means that the ring is full
 * or that there are no bounce pages for now; ENOBUFS, EFBIG and EINVAL that the packet cannot be sent.
 * @see bus_dma(9)
 */
export function tl_encap(sc: TlSoftc, m: Mbuf): Errno {
  const { txr, segs } = sc;
  sc.txHead = m;
  if (txr.free === 0) return ENOMEM;
  const slot = txr.slot(txr.prod);
  const map = sc.txMap[slot]!;
  let error = tl_offload_setup(sc, m);
  if (error === 0) error = tl_load(sc, map, m);
  if (error !== 0) return error;
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_PREWRITE);
  const head = sc.txHead;
  const at = sc.txRing.vaddr + slot * TL_BLOCK_SIZE;
  memView.setUint32(at + TL_B_CMD, segs.nsegs | sc.sumCmd | TL_CMD_INT, true);
  memView.setUint32(at + TL_B_SUM, sc.sumWhere, true);
  memView.setUint32(at + TL_B_TAG, head.m_pkthdr.pktId, true);
  for (let i = 0; i < segs.nsegs; i++) {
    memView.setUint32(at + TL_B_FRAG + 8 * i, segs.ds_addr[i]!, true);
    memView.setUint32(at + TL_B_FRAG + 8 * i + 4, segs.ds_len[i]!, true);
  }
  sc.txMbuf[slot] = head;
  txr.produce(1);
  // The doorbell is not rung here: tl_txflush does it once, when the output pass ends.
  return 0;
}

/** Counts a packet that is on the ring and shows it to listeners. */
function accountTx(sc: TlSoftc, m: Mbuf): void {
  const { ifp } = sc;
  if_inc_counter(ifp, IFCOUNTER_OPACKETS, 1);
  if_inc_counter(ifp, IFCOUNTER_OBYTES, m.m_pkthdr.len);
  if ((m.m_flags & M_MCAST) !== 0) if_inc_counter(ifp, IFCOUNTER_OMCASTS, 1);
  const bpf = ifp.if_bpf;
  if (bpf !== null && bpf.listeners > 0) bpf.mtap(m, true);
}

/** Puts a packet on the ring: true if that took it, or dropped it; false if there is no room. */
function tl_put(sc: TlSoftc, m: Mbuf): boolean {
  let error = tl_encap(sc, m);
  if (error === ENOMEM && sc.txr.prod !== sc.txRung) {
    // A long pass filled the ring or the bounce pages: ring early and take back what is done with.
    tl_txflush(sc);
    tl_txreap(sc);
    error = tl_encap(sc, sc.txHead!);
  }
  if (error === 0) {
    accountTx(sc, sc.txHead!);
    return true;
  }
  // With nothing on the ring no completion would ever try it again.
  if (error === ENOMEM && sc.txr.used > 0) return false;
  count(R_DRV_TX_ERROR);
  if_inc_counter(sc.ifp, IFCOUNTER_OERRORS, 1);
  m_freem(sc.txHead);
  return true;
}

function enqueue(sc: TlSoftc, m: Mbuf): Errno {
  if (sc.br.enqueue(m)) return 0;
  count(R_DRV_IFQ_FULL);
  if_inc_counter(sc.ifp, IFCOUNTER_OQDROPS, 1);
  m_freem(m);
  return ENOBUFS;
}

/** Moves waiting packets to the ring while it has room; without any, OACTIVE stays set. */
function tl_start(sc: TlSoftc): void {
  const { br, ifp } = sc;
  for (let m = br.peek(); m !== null; m = br.peek()) {
    if (!tl_put(sc, m)) {
      // It may have been copied together on the way.
      br.putback(sc.txHead!);
      ifp.if_drv_flags |= IFF_DRV_OACTIVE;
      return;
    }
    br.advance();
    ifp.deferTxflush();
  }
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
}

/**
 * Sends or queues `m`, and takes it on every outcome. ENETDOWN: the interface is not running,
 * ENOBUFS: ring and queue are full.
 * @see ifnet(9)
 */
export function tl_transmit(sc: TlSoftc, m: Mbuf): Errno {
  const { ifp } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) {
    count(R_DRV_DOWN);
    if_inc_counter(ifp, IFCOUNTER_OQDROPS, 1);
    m_freem(m);
    return ENETDOWN;
  }
  if (sc.br.used > 0) return enqueue(sc, m);
  if (!tl_put(sc, m)) {
    count(R_DRV_RING_FULL);
    ifp.if_drv_flags |= IFF_DRV_OACTIVE;
    return enqueue(sc, sc.txHead!);
  }
  ifp.deferTxflush();
  return 0;
}

/** Frees the packets that wait for the ring. @see ifnet(9) */
export function tl_qflush(sc: TlSoftc): void {
  sc.br.flush();
  sc.ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
}

/** Rings the doorbell if there is anything new on the ring. @see ifnet(9) */
export function tl_txflush(sc: TlSoftc): void {
  if (sc.txr.prod === sc.txRung) return;
  sc.txRung = sc.txr.prod;
  bus_dmamap_sync(sc.txRing.tag, sc.txRing.map, RING_TO_DEVICE);
  bus_space_write_4(sc.regs, TL_TXPUT, sc.txr.slot(sc.txr.prod));
}

/** Takes back packets the device is done with; returns how many. */
function tl_txreap(sc: TlSoftc): number {
  const { txr } = sc;
  let n = 0;
  const get = bus_space_read_4(sc.regs, TL_TXGET);
  bus_dmamap_sync(sc.txRing.tag, sc.txRing.map, RING_TO_US);
  while (txr.used > 0 && txr.slot(txr.cons) !== get) {
    const slot = txr.slot(txr.cons);
    const at = sc.txRing.vaddr + slot * TL_BLOCK_SIZE;
    if ((memView.getInt32(at + TL_B_CMD, true) & TL_CMD_ERR) !== 0) {
      count(R_DRV_TX_ERROR);
      if_inc_counter(sc.ifp, IFCOUNTER_OERRORS, 1);
    }
    tl_txfree(sc, slot);
    txr.consume(1);
    n++;
  }
  return n;
}

/** Unloads and frees the packet of a block. */
function tl_txfree(sc: TlSoftc, slot: number): void {
  const map = sc.txMap[slot]!;
  const m = sc.txMbuf[slot]!;
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_POSTWRITE);
  bus_dmamap_unload(sc.txTag, map);
  sc.txMbuf[slot] = null;
  m_freem(m);
}

/** Transmit completions: frees packets and goes on with those that wait. @see ifnet(9) */
export function tl_txeof(sc: TlSoftc): void {
  if (tl_txreap(sc) > 0 && sc.br.used > 0) tl_start(sc);
}

/** Frees everything on the transmit ring; the device has been stopped. @see ifnet(9) */
export function tl_txdrain(sc: TlSoftc): void {
  const { txr } = sc;
  while (txr.used > 0) {
    tl_txfree(sc, txr.slot(txr.cons));
    txr.consume(1);
  }
  txr.reset();
  sc.txRung = 0;
}

/** Hands a slot to the device with the buffer it has; TL_RXPUT tells it so. */
function post(sc: TlSoftc, slot: number): void {
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_PREREAD);
  memView.setUint32(sc.rxRing.vaddr + slot * TL_RXD_SIZE + TL_R_STATUS, 0, true);
}

/** Gives a slot a new buffer; ENOBUFS, and the slot as it was, if there is none. @see bus_dma(9) */
export function tl_newbuf(sc: TlSoftc, slot: number): Errno {
  const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
  if (m === null) return ENOBUFS;
  m.m_len = MCLBYTES;
  m.m_pkthdr.len = MCLBYTES;
  if (bus_dmamap_load_mbuf_sg(sc.rxTag, sc.rxSpareMap, m, sc.segs) !== 0) {
    m_freem(m);
    return ENOBUFS;
  }
  const old = sc.rxMap[slot]!;
  if (sc.rxMbuf[slot] !== null) bus_dmamap_unload(sc.rxTag, old);
  sc.rxMap[slot] = sc.rxSpareMap;
  sc.rxSpareMap = old;
  sc.rxMbuf[slot] = m;
  const at = sc.rxRing.vaddr + slot * TL_RXD_SIZE + TL_R_ADDR;
  memView.setUint32(at, sc.segs.ds_addr[0]!, true);
  post(sc, slot);
  return 0;
}

/**
 * The frame of `len` bytes that a slot has got; the slot is posted again. A small frame is copied,
 * which is cheaper than a new cluster; null, and the frame lost, if there is no mbuf or cluster.
 */
function takeFrame(sc: TlSoftc, slot: number, len: number): Mbuf | null {
  const filled = sc.rxMbuf[slot]!;
  if (len > MHLEN) {
    if (tl_newbuf(sc, slot) === 0) return filled;
  } else {
    const m = m_gethdr(M_NOWAIT, MT_DATA);
    if (m !== null) mem.copyWithin(m.m_data, filled.m_data, filled.m_data + len);
    post(sc, slot);
    if (m !== null) return m;
  }
  // The buffer stays: without one the slot would be lost to the ring for good.
  count(R_DRV_RX_NOBUF);
  if_inc_counter(sc.ifp, IFCOUNTER_IQDROPS, 1);
  if (len > MHLEN) post(sc, slot);
  return null;
}

/** What the device says of the checksums, in the words of the stack, if the stack wants to hear. */
function verdict(sc: TlSoftc, m: Mbuf, status: number): void {
  const v4 = (status & TL_RXS_IP4) !== 0;
  if ((sc.ifp.if_capenable & (v4 ? IFCAP_RXCSUM : IFCAP_RXCSUM_IPV6)) === 0) return;
  let flags = 0;
  if (v4) flags |= CSUM_IP_CHECKED | ((status & TL_RXS_IPBAD) === 0 ? CSUM_IP_VALID : 0);
  if ((status & (TL_RXS_L4 | TL_RXS_L4BAD)) === TL_RXS_L4) {
    flags |= CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
    m.m_pkthdr.csum_data = 0xffff;
  }
  m.m_pkthdr.csum_flags = flags;
}

/** Handles one descriptor that the device is done with. */
function tl_rxdesc(sc: TlSoftc, slot: number): void {
  const { ifp } = sc;
  const at = sc.rxRing.vaddr + slot * TL_RXD_SIZE;
  const status = memView.getInt32(at + TL_R_STATUS, true);
  const len = memView.getInt32(at + TL_R_LEN, true);
  // With bounce pages this is what brings the frame into the cluster.
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
  if ((status & TL_RXS_ERR) !== 0 || len < ETHER_HDR_LEN || len > TL_RXBUF_SIZE) {
    count(R_DRV_RX_ERROR);
    if_inc_counter(ifp, IFCOUNTER_IERRORS, 1);
    post(sc, slot);
    return;
  }
  const m = takeFrame(sc, slot, len);
  if (m === null) return;
  m.m_len = len;
  m.m_pkthdr.len = len;
  m.m_pkthdr.rcvif = ifp;
  verdict(sc, m, status);
  if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
  ifp.if_input!(ifp, m);
}

/**
 * Received frames: hands up what the device has filled, `limit` frames at most, and gives the slots
 * back. Returns whether there may be more.
 * @see ifnet(9)
 */
export function tl_rxeof(sc: TlSoftc, limit: number): boolean {
  const { ifp, rxRing } = sc;
  const get = bus_space_read_4(sc.regs, TL_RXGET);
  bus_dmamap_sync(rxRing.tag, rxRing.map, RING_TO_US);
  let n = 0;
  for (; n < limit && sc.rxNext !== get; n++) {
    const slot = sc.rxNext;
    sc.rxNext = slot + 1 === TL_RX_NDESC ? 0 : slot + 1;
    tl_rxdesc(sc, slot);
    // The stack may have stopped the interface in the middle of this.
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return false;
  }
  if (n > 0) tl_rxput(sc);
  return n === limit;
}

/** Tells the device which buffers it has. @see ifnet(9) */
export function tl_rxput(sc: TlSoftc): void {
  const { rxRing } = sc;
  bus_dmamap_sync(rxRing.tag, rxRing.map, RING_TO_DEVICE);
  // One slot stays with us, so that a full ring does not look empty.
  bus_space_write_4(sc.regs, TL_RXPUT, (sc.rxNext + TL_RX_NDESC - 1) % TL_RX_NDESC);
}

/** Frees every receive buffer; the device has been stopped. @see ifnet(9) */
export function tl_rxdrain(sc: TlSoftc): void {
  for (let slot = 0; slot < TL_RX_NDESC; slot++) {
    const m = sc.rxMbuf[slot]!;
    if (m === null) continue;
    bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
    bus_dmamap_unload(sc.rxTag, sc.rxMap[slot]!);
    sc.rxMbuf[slot] = null;
    m_freem(m);
  }
}
