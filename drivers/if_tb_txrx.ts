/**
 * Transmit and receive of the driver for `tb`. A descriptor belongs to whom its OWN bit says: the
 * driver fills a packet's descriptors, gives away the first one last, and looks at the last one to
 * see whether the packet is done. The NIC does nothing to a packet, so neither does the driver: what
 * it is handed has its checksums. Descriptor rules: docs/tb-datasheet.md.
 */

import { EFBIG, ENETDOWN, ENOBUFS, ENOMEM, type Errno } from '../src/sys/errno.ts';
import { KASSERT } from '../src/sys/kassert.ts';
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
import { mem, memView } from '../src/vm/arena.ts';
import { m_freem, m_gethdr, m_getjcl } from '../src/kern/kern_mbuf.ts';
import { type Mbuf, MHLEN, M_MCAST, M_NOWAIT, M_PKTHDR, MT_DATA } from '../src/kern/mbuf.ts';
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
import { bus_space_write_4 } from '../src/bus/bus_space.ts';
import {
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
  TB_CTL_EOP,
  TB_CTL_ERR,
  TB_CTL_INT,
  TB_CTL_OWN,
  TB_D_ADDRH,
  TB_D_ADDRL,
  TB_D_CTL,
  TB_D_LEN,
  TB_DESC_SIZE,
  TB_RXKICK,
  TB_TXKICK,
} from '../src/dev/tb/tbreg.ts';
import { RING_TO_DEVICE, RING_TO_US } from './dma_setup.ts';
import { TB_NSEGS, TB_RX_NDESC, type TbSoftc } from './if_tbvar.ts';

/** Loads the chain, copying it together if it has too many segments; sc.txHead is what it became. */
function tb_load(sc: TbSoftc, map: BusDmamap, m: Mbuf): Errno {
  let error = bus_dmamap_load_mbuf_sg(sc.txTag, map, m, sc.segs);
  if (error !== EFBIG) return error;
  dmaStats.defrags++;
  count(R_DRV_DEFRAG);
  const collapsed = m_collapse(m, M_NOWAIT, TB_NSEGS);
  if (collapsed !== null) {
    sc.txHead = collapsed;
    error = bus_dmamap_load_mbuf_sg(sc.txTag, map, collapsed, sc.segs);
    if (error !== EFBIG) return error;
  }
  const defragged = m_defrag(sc.txHead!, M_NOWAIT);
  if (defragged === null) return ENOBUFS;
  sc.txHead = defragged;
  return bus_dmamap_load_mbuf_sg(sc.txTag, map, defragged, sc.segs);
}

/** Fills the descriptors of the loaded packet; the first is the device's only when all are there. */
function fillTx(sc: TbSoftc): void {
  const { txr, segs } = sc;
  const last = segs.nsegs - 1;
  for (let i = last; i >= 0; i--) {
    const at = sc.txRing.vaddr + txr.slot(txr.prod + i) * TB_DESC_SIZE;
    const addr = segs.ds_addr[i]!;
    memView.setUint32(at + TB_D_ADDRL, addr >>> 0, true);
    memView.setUint32(at + TB_D_ADDRH, Math.floor(addr / 0x100000000), true);
    memView.setUint32(at + TB_D_LEN, segs.ds_len[i]!, true);
    const ctl = i === last ? TB_CTL_OWN | TB_CTL_EOP | TB_CTL_INT : TB_CTL_OWN;
    memView.setInt32(at + TB_D_CTL, ctl | 0, true);
  }
}

/**
 * Queues `m` for transmission. On 0 the ring owns the packet. On any error the caller owns
 * `sc.txHead`, which is `m` unless it had to be copied together: ENOMEM means that ring or bus have no
 * room for now, ENOBUFS, EFBIG and EINVAL that the packet cannot be sent.
 * @see bus_dma(9)
 */
export function tb_encap(sc: TbSoftc, m: Mbuf): Errno {
  const { txr, segs } = sc;
  sc.txHead = m;
  if (txr.free === 0) return ENOMEM;
  const first = txr.slot(txr.prod);
  const map = sc.txMap[first]!;
  const error = tb_load(sc, map, m);
  if (error !== 0) return error;
  if (segs.nsegs > txr.free) {
    bus_dmamap_unload(sc.txTag, map);
    return ENOMEM;
  }
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_PREWRITE);
  fillTx(sc);
  sc.txMbuf[first] = sc.txHead;
  sc.txNdesc[first] = segs.nsegs;
  txr.produce(segs.nsegs);
  sc.txUnrung = true;
  // The doorbell is not rung here: tb_txflush does it once, when the output pass ends.
  return 0;
}

/** Counts a packet that is on the ring and shows it to listeners. */
function accountTx(sc: TbSoftc, m: Mbuf): void {
  const { ifp } = sc;
  if_inc_counter(ifp, IFCOUNTER_OPACKETS, 1);
  if_inc_counter(ifp, IFCOUNTER_OBYTES, m.m_pkthdr.len);
  if ((m.m_flags & M_MCAST) !== 0) if_inc_counter(ifp, IFCOUNTER_OMCASTS, 1);
  const bpf = ifp.if_bpf;
  if (bpf !== null && bpf.listeners > 0) bpf.mtap(m, true);
}

/** Puts a packet on the ring: true if that took it, or dropped it; false if there is no room. */
function tb_put(sc: TbSoftc, m: Mbuf): boolean {
  let error = tb_encap(sc, m);
  if (error === ENOMEM && sc.txUnrung) {
    // A long pass filled the ring: ring early and take back what the device is done with.
    tb_txflush(sc);
    tb_txreap(sc);
    error = tb_encap(sc, sc.txHead!);
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

function enqueue(sc: TbSoftc, m: Mbuf): Errno {
  if (sc.br.enqueue(m)) return 0;
  count(R_DRV_IFQ_FULL);
  if_inc_counter(sc.ifp, IFCOUNTER_OQDROPS, 1);
  m_freem(m);
  return ENOBUFS;
}

/** Moves waiting packets to the ring while it has room; without any, OACTIVE stays set. */
function tb_start(sc: TbSoftc): void {
  const { br, ifp } = sc;
  for (let m = br.peek(); m !== null; m = br.peek()) {
    if (!tb_put(sc, m)) {
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
export function tb_transmit(sc: TbSoftc, m: Mbuf): Errno {
  const { ifp } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) {
    count(R_DRV_DOWN);
    if_inc_counter(ifp, IFCOUNTER_OQDROPS, 1);
    m_freem(m);
    return ENETDOWN;
  }
  if (sc.br.used > 0) return enqueue(sc, m);
  if (!tb_put(sc, m)) {
    count(R_DRV_RING_FULL);
    ifp.if_drv_flags |= IFF_DRV_OACTIVE;
    return enqueue(sc, sc.txHead!);
  }
  ifp.deferTxflush();
  return 0;
}

/** Frees the packets that wait for the ring. @see ifnet(9) */
export function tb_qflush(sc: TbSoftc): void {
  sc.br.flush();
  sc.ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
}

/** Rings the doorbell if there is anything new on the ring. @see ifnet(9) */
export function tb_txflush(sc: TbSoftc): void {
  if (!sc.txUnrung) return;
  sc.txUnrung = false;
  bus_dmamap_sync(sc.txRing.tag, sc.txRing.map, RING_TO_DEVICE);
  bus_space_write_4(sc.regs, TB_TXKICK, 1);
}

/** Takes back packets the device is done with; returns how many. */
function tb_txreap(sc: TbSoftc): number {
  const { txr } = sc;
  let n = 0;
  bus_dmamap_sync(sc.txRing.tag, sc.txRing.map, RING_TO_US);
  while (txr.used > 0) {
    const first = txr.slot(txr.cons);
    const ndesc = sc.txNdesc[first]!;
    const last = txr.slot(txr.cons + ndesc - 1);
    // Signed: an unsigned word with OWN set is a number on the heap.
    const ctl = memView.getInt32(sc.txRing.vaddr + last * TB_DESC_SIZE + TB_D_CTL, true);
    if ((ctl & TB_CTL_OWN) !== 0) break;
    if ((ctl & TB_CTL_ERR) !== 0) {
      count(R_DRV_TX_ERROR);
      if_inc_counter(sc.ifp, IFCOUNTER_OERRORS, 1);
    }
    tb_txfree(sc, first);
    txr.consume(ndesc);
    n++;
  }
  return n;
}

/** Unloads and frees the packet whose first descriptor is `first`. */
function tb_txfree(sc: TbSoftc, first: number): void {
  const map = sc.txMap[first]!;
  const m = sc.txMbuf[first]!;
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_POSTWRITE);
  bus_dmamap_unload(sc.txTag, map);
  sc.txMbuf[first] = null;
  m_freem(m);
}

/** Transmit completions: frees packets and goes on with those that wait. @see ifnet(9) */
export function tb_txeof(sc: TbSoftc): void {
  if (tb_txreap(sc) > 0 && sc.br.used > 0) tb_start(sc);
}

/** Frees everything on the transmit ring; the device has been stopped. @see ifnet(9) */
export function tb_txdrain(sc: TbSoftc): void {
  const { txr } = sc;
  while (txr.used > 0) {
    const first = txr.slot(txr.cons);
    tb_txfree(sc, first);
    txr.consume(sc.txNdesc[first]!);
  }
  txr.reset();
  sc.txUnrung = false;
}

/** Hands a slot to the device with the buffer it has. */
function post(sc: TbSoftc, slot: number): void {
  const at = sc.rxRing.vaddr + slot * TB_DESC_SIZE;
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_PREREAD);
  memView.setUint32(at + TB_D_LEN, sc.rxBufSize, true);
  memView.setInt32(at + TB_D_CTL, TB_CTL_OWN | 0, true);
}

/** Gives a slot a new buffer; ENOBUFS, and the slot as it was, if there is none. @see bus_dma(9) */
export function tb_newbuf(sc: TbSoftc, slot: number): Errno {
  const m = m_getjcl(M_NOWAIT, MT_DATA, M_PKTHDR, sc.rxBufSize);
  if (m === null) return ENOBUFS;
  m.m_len = sc.rxBufSize;
  m.m_pkthdr.len = sc.rxBufSize;
  if (bus_dmamap_load_mbuf_sg(sc.rxTag, sc.rxSpareMap, m, sc.segs) !== 0) {
    m_freem(m);
    return ENOBUFS;
  }
  const old = sc.rxMap[slot]!;
  if (sc.rxMbuf[slot] !== null) bus_dmamap_unload(sc.rxTag, old);
  sc.rxMap[slot] = sc.rxSpareMap;
  sc.rxSpareMap = old;
  sc.rxMbuf[slot] = m;
  const at = sc.rxRing.vaddr + slot * TB_DESC_SIZE;
  const addr = sc.segs.ds_addr[0]!;
  memView.setUint32(at + TB_D_ADDRL, addr >>> 0, true);
  memView.setUint32(at + TB_D_ADDRH, Math.floor(addr / 0x100000000), true);
  post(sc, slot);
  return 0;
}

/** A small frame leaves its buffer in place: copying it is cheaper than a new cluster. */
function copySmall(sc: TbSoftc, slot: number, len: number): Mbuf | null {
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return null;
  const from = sc.rxMbuf[slot]!.m_data;
  mem.copyWithin(m.m_data, from, from + len);
  m.m_len = len;
  post(sc, slot);
  return m;
}

/** Takes the filled buffer out of a slot that gets a new one; null if there is none to be had. */
function takeBuffer(sc: TbSoftc, slot: number, len: number): Mbuf | null {
  const m = sc.rxMbuf[slot]!;
  if (tb_newbuf(sc, slot) !== 0) return null;
  m.m_len = len;
  return m;
}

/** Throws away what has come of a frame; the rest of it follows. */
function discard(sc: TbSoftc, eop: boolean): void {
  m_freem(sc.rxHead);
  sc.rxHead = null;
  sc.rxTail = null;
  sc.rxDiscard = !eop;
}

/** Hands a whole frame to the stack. */
function deliver(sc: TbSoftc): void {
  const { ifp } = sc;
  const m = sc.rxHead!;
  sc.rxHead = null;
  sc.rxTail = null;
  m.m_pkthdr.rcvif = ifp;
  if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
  ifp.if_input!(ifp, m);
}

/** Handles one descriptor that was given back. */
function tb_rxdesc(sc: TbSoftc, slot: number, ctl: number, len: number): void {
  const eop = (ctl & TB_CTL_EOP) !== 0;
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
  if ((ctl & TB_CTL_ERR) !== 0 || len > sc.rxBufSize || len === 0) {
    count(R_DRV_RX_ERROR);
    if_inc_counter(sc.ifp, IFCOUNTER_IERRORS, 1);
    discard(sc, true);
    post(sc, slot);
    return;
  }
  if (sc.rxDiscard) {
    discard(sc, eop);
    post(sc, slot);
    return;
  }
  const first = sc.rxHead === null;
  const m = first && eop && len <= MHLEN ? copySmall(sc, slot, len) : takeBuffer(sc, slot, len);
  if (m === null) {
    // The buffer stays: without one the slot would be lost to the ring for good.
    count(R_DRV_RX_NOBUF);
    if_inc_counter(sc.ifp, IFCOUNTER_IQDROPS, 1);
    discard(sc, eop);
    post(sc, slot);
    return;
  }
  if (first) {
    sc.rxHead = m;
    m.m_pkthdr.len = len;
  } else {
    m.m_flags &= ~M_PKTHDR;
    sc.rxTail!.m_next = m;
    sc.rxHead!.m_pkthdr.len += len;
  }
  sc.rxTail = m;
  if (eop) deliver(sc);
}

/**
 * Received frames: hands up what the device has filled, `limit` descriptors at most, and gives the
 * slots back. Returns whether there may be more.
 * @see ifnet(9)
 */
export function tb_rxeof(sc: TbSoftc, limit: number): boolean {
  const { ifp, rxRing } = sc;
  bus_dmamap_sync(rxRing.tag, rxRing.map, RING_TO_US);
  let n = 0;
  for (; n < limit; n++) {
    const slot = sc.rxNext;
    const at = rxRing.vaddr + slot * TB_DESC_SIZE;
    const ctl = memView.getInt32(at + TB_D_CTL, true);
    if ((ctl & TB_CTL_OWN) !== 0) break;
    const len = memView.getInt32(at + TB_D_LEN, true);
    sc.rxNext = slot + 1 === TB_RX_NDESC ? 0 : slot + 1;
    tb_rxdesc(sc, slot, ctl, len);
    // The stack may have stopped the interface in the middle of this.
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return false;
  }
  if (n === 0) return false;
  tb_rxkick(sc);
  return n === limit;
}

/** Tells the device that there are buffers. @see ifnet(9) */
export function tb_rxkick(sc: TbSoftc): void {
  const { rxRing } = sc;
  bus_dmamap_sync(rxRing.tag, rxRing.map, RING_TO_DEVICE);
  bus_space_write_4(sc.regs, TB_RXKICK, 1);
}

/** Frees every receive buffer; the device has been stopped. @see ifnet(9) */
export function tb_rxdrain(sc: TbSoftc): void {
  discard(sc, true);
  for (let slot = 0; slot < TB_RX_NDESC; slot++) {
    const m = sc.rxMbuf[slot]!;
    if (m === null) continue;
    bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
    bus_dmamap_unload(sc.rxTag, sc.rxMap[slot]!);
    sc.rxMbuf[slot] = null;
    m_freem(m);
  }
  KASSERT(sc.rxHead === null, 'tb_rxdrain: frame under way');
}
