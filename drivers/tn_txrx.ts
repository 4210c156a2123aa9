/**
 * Transmit and receive of the driver for `tn`. Transmit loads an mbuf chain, mapped or not, with
 * bus_dma and never looks at payload; receive hands up clusters the device filled. Register and
 * descriptor rules: docs/tn-datasheet.md.
 */

import { EFBIG, EINVAL, ENETDOWN, ENOBUFS, ENOMEM, type Errno } from '../src/sys/errno.ts';
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
import type { Kva } from '../src/sys/types.ts';
import { mem, memView } from '../src/vm/arena.ts';
import { m_copydata } from '../src/kern/m_copydata.ts';
import { m_freem, m_gethdr, m_getjcl } from '../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP,
  CSUM_IP6_TCP,
  CSUM_IP6_UDP,
  CSUM_IP_CHECKED,
  CSUM_IP_TCP,
  CSUM_IP_UDP,
  CSUM_IP_VALID,
  CSUM_PSEUDO_HDR,
  CSUM_TSO,
  type Mbuf,
  MHLEN,
  M_MCAST,
  M_NOWAIT,
  M_PKTHDR,
  M_VLANTAG,
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
import { bus_space_write_4 } from '../src/bus/bus_space.ts';
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
  TN_C_L3_SHIFT,
  TN_C_L4_SHIFT,
  TN_C_MSS,
  TN_C_TAG,
  TN_D_ADDRH,
  TN_D_ADDRL,
  TN_D_LEN,
  TN_D_STAT,
  TN_DESC_SIZE,
  TN_RDT,
  TN_RXS_DD,
  TN_RXS_EOP,
  TN_RXS_ERR,
  TN_RXS_IPCS,
  TN_RXS_IPE,
  TN_RXS_L4CS,
  TN_RXS_L4E,
  TN_RXS_SEGS_MASK,
  TN_RXS_SEGS_SHIFT,
  TN_RXS_VP,
  TN_TDT,
  TN_TXD_CTX,
  TN_TXD_EOP,
  TN_TXD_IXSM,
  TN_TXD_RS,
  TN_TXD_TCP,
  TN_TXD_TSE,
  TN_TXD_TXSM,
  TN_TXD_V6,
  TN_TXD_VLE,
  TN_TXS_DD,
  TN_TXS_ERR,
} from '../src/dev/tn/tnreg.ts';
import { TN_NSEGS, TN_RX_NDESC, type TnSoftc } from './if_tnvar.ts';

const ETHER_HDR_LEN = 14;
const ETHERTYPE_VLAN = 0x8100;
const ETHERTYPE_IPV6 = 0x86dd;
const L4_REQUESTS = CSUM_IP_TCP | CSUM_IP_UDP | CSUM_IP6_TCP | CSUM_IP6_UDP | CSUM_TSO;
const TCP_REQUESTS = CSUM_IP_TCP | CSUM_IP6_TCP | CSUM_TSO;
const REQUESTS = L4_REQUESTS | CSUM_IP;
const IPPROTO_TCP = 6;
const IPPROTO_UDP = 17;
/** The device reads descriptors and writes them back. */
export const RING_TO_DEVICE = BUS_DMASYNC_PREREAD | BUS_DMASYNC_PREWRITE;
const RING_TO_US = BUS_DMASYNC_POSTREAD | BUS_DMASYNC_POSTWRITE;

/**
 * The first `need` bytes of the packet in one piece: in place if the first mbuf has them, else
 * copied. Asks for headers only, never for a payload byte.
 */
function headers(sc: TnSoftc, m: Mbuf, need: number): Kva {
  if (m.m_len >= need) return mtod(m);
  m_copydata(m, 0, need, sc.scratch.m_data as Kva);
  return sc.scratch.m_data as Kva;
}

/** Computes the context descriptor for what the packet asks of the NIC. EINVAL: headers are bad. */
function tn_offload_setup(sc: TnSoftc, m: Mbuf): Errno {
  const { csum_flags, len, tso_segsz } = m.m_pkthdr;
  let l2 = ETHER_HDR_LEN;
  if (len < l2 + 4) return EINVAL;
  let hdr = headers(sc, m, l2 + 4);
  if (memView.getUint16(hdr + 12) === ETHERTYPE_VLAN) l2 += 4;
  // Not from csum_flags: CSUM_TSO has a bit for each version, and FreeBSD's TCP sets both.
  const v6 = memView.getUint16(hdr + l2 - 2) === ETHERTYPE_IPV6;
  let l3 = 40;
  if (len < l2 + (v6 ? 40 : 20)) return EINVAL;
  hdr = headers(sc, m, l2 + (v6 ? 40 : 20));
  if (!v6) l3 = (memView.getUint8(hdr + l2) & 0xf) * 4;
  let cmd = TN_TXD_CTX;
  let l4 = 0;
  if ((csum_flags & L4_REQUESTS) !== 0) {
    const tcp = (csum_flags & TCP_REQUESTS) !== 0;
    // With IPv6 extension headers the stack sums in software: the next header is TCP or UDP.
    const proto = memView.getUint8(hdr + l2 + (v6 ? 6 : 9));
    if (proto !== (tcp ? IPPROTO_TCP : IPPROTO_UDP)) return EINVAL;
    l4 = tcp ? 20 : 8;
    if (len < l2 + l3 + l4) return EINVAL;
    if (tcp) {
      hdr = headers(sc, m, l2 + l3 + l4);
      l4 = (memView.getUint8(hdr + l2 + l3 + 12) >>> 4) * 4;
    }
    cmd |= TN_TXD_TXSM | (tcp ? TN_TXD_TCP : 0);
  }
  if (v6) cmd |= TN_TXD_V6;
  else if ((csum_flags & (CSUM_IP | CSUM_TSO)) !== 0) cmd |= TN_TXD_IXSM;
  if ((csum_flags & CSUM_TSO) !== 0) cmd |= TN_TXD_TSE;
  sc.ctxCmd = cmd;
  sc.ctxLens = l2 | (l3 << TN_C_L3_SHIFT) | (l4 << TN_C_L4_SHIFT);
  sc.ctxMss = (csum_flags & CSUM_TSO) !== 0 ? tso_segsz : 0;
  return 0;
}

/** Loads the chain, copying it together if it has too many segments; sc.txHead is what it became. */
function tn_load(sc: TnSoftc, map: BusDmamap, m: Mbuf): Errno {
  let error = bus_dmamap_load_mbuf_sg(sc.txTag, map, m, sc.segs);
  if (error !== EFBIG) return error;
  dmaStats.defrags++;
  count(R_DRV_DEFRAG);
  const collapsed = m_collapse(m, M_NOWAIT, TN_NSEGS);
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

function fillContext(sc: TnSoftc, m: Mbuf): void {
  const at = sc.txDesc + sc.txr.slot(sc.txr.prod) * TN_DESC_SIZE;
  memView.setUint32(at, sc.ctxLens, true);
  memView.setUint32(at + TN_C_MSS, sc.ctxMss, true);
  memView.setUint32(at + TN_C_TAG, m.m_pkthdr.pktId, true);
  memView.setUint32(at + TN_D_STAT, sc.ctxCmd, true);
}

/** Fills the data descriptors of the loaded packet, from `n` slots behind the producer on. */
function fillData(sc: TnSoftc, m: Mbuf, n: number): void {
  const { txr, segs } = sc;
  const last = segs.nsegs - 1;
  const vlan = (m.m_flags & M_VLANTAG) !== 0;
  for (let i = 0; i <= last; i++) {
    const at = sc.txDesc + txr.slot(txr.prod + n + i) * TN_DESC_SIZE;
    const addr = segs.ds_addr[i]!;
    let lenTag = segs.ds_len[i]!;
    let cmd = i === last ? TN_TXD_EOP | TN_TXD_RS : 0;
    if (vlan && i === 0) {
      lenTag = (lenTag | (m.m_pkthdr.ether_vtag << 16)) >>> 0;
      cmd |= TN_TXD_VLE;
    }
    memView.setUint32(at + TN_D_ADDRL, addr >>> 0, true);
    memView.setUint32(at + TN_D_ADDRH, Math.floor(addr / 0x100000000), true);
    memView.setUint32(at + TN_D_LEN, lenTag, true);
    memView.setUint32(at + TN_D_STAT, cmd, true);
  }
}

/**
 * Queues `m` for transmission. On 0 the ring owns the packet. On any error the caller owns
 * `sc.txHead`, which is `m` unless it had to be copied together: ENOMEM means that the ring is full
 * or that there are no bounce pages for now; ENOBUFS, EFBIG and EINVAL that the packet cannot be sent.
 * @see bus_dma(9)
 */
export function tn_encap(sc: TnSoftc, m: Mbuf): Errno {
  const { txr, segs } = sc;
  sc.txHead = m;
  const nctx = (m.m_pkthdr.csum_flags & REQUESTS) !== 0 ? 1 : 0;
  if (txr.free < nctx + 1) return ENOMEM;
  let error = nctx === 0 ? 0 : tn_offload_setup(sc, m);
  if (error !== 0) return error;
  const first = txr.slot(txr.prod);
  const map = sc.txMap[first]!;
  error = tn_load(sc, map, m);
  if (error !== 0) return error;
  if (segs.nsegs + nctx > txr.free) {
    bus_dmamap_unload(sc.txTag, map);
    return ENOMEM;
  }
  const head = sc.txHead;
  if (nctx === 1) fillContext(sc, head);
  fillData(sc, head, nctx);
  sc.txMbuf[first] = head;
  sc.txNdesc[first] = segs.nsegs + nctx;
  txr.produce(segs.nsegs + nctx);
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_PREWRITE);
  // The doorbell is not rung here: tn_txflush does it once, when the output pass ends.
  return 0;
}

/** Counts a packet that is on the ring and shows it to listeners. */
function accountTx(sc: TnSoftc, m: Mbuf): void {
  const { ifp } = sc;
  if_inc_counter(ifp, IFCOUNTER_OPACKETS, 1);
  if_inc_counter(ifp, IFCOUNTER_OBYTES, m.m_pkthdr.len);
  if ((m.m_flags & M_MCAST) !== 0) if_inc_counter(ifp, IFCOUNTER_OMCASTS, 1);
  const bpf = ifp.if_bpf;
  if (bpf !== null && bpf.listeners > 0) bpf.mtap(m, true);
}

/** Puts a packet on the ring: true if that took it, or dropped it; false if there is no room. */
function tn_put(sc: TnSoftc, m: Mbuf): boolean {
  let error = tn_encap(sc, m);
  if (error === ENOMEM && sc.txr.prod !== sc.txRung) {
    // A long pass filled the ring or the bounce pages: ring early and take back what is done with.
    tn_txflush(sc);
    tn_txreap(sc);
    error = tn_encap(sc, sc.txHead!);
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

function enqueue(sc: TnSoftc, m: Mbuf): Errno {
  const { brRing } = sc;
  if (brRing.free === 0) {
    count(R_DRV_IFQ_FULL);
    if_inc_counter(sc.ifp, IFCOUNTER_OQDROPS, 1);
    m_freem(m);
    return ENOBUFS;
  }
  sc.br[brRing.slot(brRing.prod)] = m;
  brRing.produce(1);
  return 0;
}

/** Moves waiting packets to the ring while it has room; without any, OACTIVE stays set. */
function tn_start(sc: TnSoftc): void {
  const { brRing, ifp } = sc;
  while (brRing.used > 0) {
    const slot = brRing.slot(brRing.cons);
    if (!tn_put(sc, sc.br[slot]!)) {
      // It may have been copied together on the way.
      sc.br[slot] = sc.txHead;
      ifp.if_drv_flags |= IFF_DRV_OACTIVE;
      return;
    }
    sc.br[slot] = null;
    brRing.consume(1);
    ifp.deferTxflush();
  }
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
}

/**
 * Sends or queues `m`, and takes it on every outcome. ENETDOWN: the interface is not running,
 * ENOBUFS: ring and queue are full.
 * @see ifnet(9)
 */
export function tn_transmit(sc: TnSoftc, m: Mbuf): Errno {
  const { ifp } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) {
    count(R_DRV_DOWN);
    if_inc_counter(ifp, IFCOUNTER_OQDROPS, 1);
    m_freem(m);
    return ENETDOWN;
  }
  if (sc.brRing.used > 0) return enqueue(sc, m);
  if (!tn_put(sc, m)) {
    count(R_DRV_RING_FULL);
    ifp.if_drv_flags |= IFF_DRV_OACTIVE;
    return enqueue(sc, sc.txHead!);
  }
  ifp.deferTxflush();
  return 0;
}

/** Frees the packets that wait for the ring. @see ifnet(9) */
export function tn_qflush(sc: TnSoftc): void {
  const { brRing } = sc;
  while (brRing.used > 0) {
    const slot = brRing.slot(brRing.cons);
    m_freem(sc.br[slot]!);
    sc.br[slot] = null;
    brRing.consume(1);
  }
  sc.ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
}

/** Rings the doorbell if there is anything new on the ring. @see ifnet(9) */
export function tn_txflush(sc: TnSoftc): void {
  if (sc.txr.prod === sc.txRung) return;
  sc.txRung = sc.txr.prod;
  bus_dmamap_sync(sc.txRingTag, sc.txRing.map, RING_TO_DEVICE);
  bus_space_write_4(sc.regs, TN_TDT, sc.txr.slot(sc.txr.prod));
}

/** Takes back packets the device is done with; returns how many. */
function tn_txreap(sc: TnSoftc): number {
  const { txr } = sc;
  let n = 0;
  bus_dmamap_sync(sc.txRingTag, sc.txRing.map, RING_TO_US);
  while (txr.used > 0 && txr.cons !== sc.txRung) {
    const first = txr.slot(txr.cons);
    const ndesc = sc.txNdesc[first]!;
    const last = txr.slot(txr.cons + ndesc - 1);
    // Signed, here and below: with DD set an unsigned word is a number on the heap.
    const status = memView.getInt32(sc.txDesc + last * TN_DESC_SIZE + TN_D_STAT, true);
    if ((status & TN_TXS_DD) === 0) break;
    if ((status & TN_TXS_ERR) !== 0) {
      count(R_DRV_TX_ERROR);
      if_inc_counter(sc.ifp, IFCOUNTER_OERRORS, 1);
    }
    tn_txfree(sc, first);
    txr.consume(ndesc);
    n++;
  }
  return n;
}

/** Unloads and frees the packet whose first descriptor is `first`. */
function tn_txfree(sc: TnSoftc, first: number): void {
  const map = sc.txMap[first]!;
  const m = sc.txMbuf[first]!;
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_POSTWRITE);
  bus_dmamap_unload(sc.txTag, map);
  sc.txMbuf[first] = null;
  m_freem(m);
}

/** Transmit completions: frees packets and goes on with those that wait. @see ifnet(9) */
export function tn_txeof(sc: TnSoftc): void {
  if (tn_txreap(sc) > 0 && sc.brRing.used > 0) tn_start(sc);
}

/** Frees everything on the transmit ring; the device has been stopped. @see ifnet(9) */
export function tn_txdrain(sc: TnSoftc): void {
  const { txr } = sc;
  while (txr.used > 0) {
    const first = txr.slot(txr.cons);
    tn_txfree(sc, first);
    txr.consume(sc.txNdesc[first]!);
  }
  txr.reset();
  sc.txRung = 0;
}

/** Gives a slot the buffer that was loaded last. */
function postBuffer(sc: TnSoftc, slot: number): void {
  const addr = sc.segs.ds_addr[0]!;
  const at = sc.rxDesc + slot * TN_DESC_SIZE;
  memView.setUint32(at + TN_D_ADDRL, addr >>> 0, true);
  memView.setUint32(at + TN_D_ADDRH, Math.floor(addr / 0x100000000), true);
  memView.setUint32(at + TN_D_LEN, 0, true);
  memView.setUint32(at + TN_D_STAT, 0, true);
}

/** Hands a slot back to the device with the buffer it has. */
function recycle(sc: TnSoftc, slot: number): void {
  const at = sc.rxDesc + slot * TN_DESC_SIZE;
  memView.setUint32(at + TN_D_LEN, 0, true);
  memView.setUint32(at + TN_D_STAT, 0, true);
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_PREREAD);
}

/** Gives a slot a new buffer; ENOBUFS, and the slot as it was, if there is none. @see bus_dma(9) */
export function tn_newbuf(sc: TnSoftc, slot: number): Errno {
  const m = m_getjcl(M_NOWAIT, MT_DATA, M_PKTHDR, sc.rxBufSize);
  if (m === null) return ENOBUFS;
  m.m_len = sc.rxBufSize;
  m.m_pkthdr.len = sc.rxBufSize;
  const error = bus_dmamap_load_mbuf_sg(sc.rxTag, sc.rxSpareMap, m, sc.segs);
  if (error !== 0) {
    m_freem(m);
    return ENOBUFS;
  }
  const old = sc.rxMap[slot]!;
  if (sc.rxMbuf[slot] !== null) bus_dmamap_unload(sc.rxTag, old);
  const map = sc.rxSpareMap;
  sc.rxMap[slot] = map;
  sc.rxSpareMap = old;
  sc.rxMbuf[slot] = m;
  postBuffer(sc, slot);
  bus_dmamap_sync(sc.rxTag, map, BUS_DMASYNC_PREREAD);
  return 0;
}

/** A small frame leaves its buffer in place: copying it is cheaper than a new cluster. */
function copySmall(sc: TnSoftc, slot: number, len: number): Mbuf | null {
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return null;
  const from = sc.rxMbuf[slot]!.m_data;
  mem.copyWithin(m.m_data, from, from + len);
  m.m_len = len;
  recycle(sc, slot);
  return m;
}

/** Takes the filled buffer out of a slot that gets a new one; null if there is none to be had. */
function takeBuffer(sc: TnSoftc, slot: number, len: number): Mbuf | null {
  const m = sc.rxMbuf[slot]!;
  if (tn_newbuf(sc, slot) !== 0) return null;
  m.m_len = len;
  return m;
}

/** Throws away what has come of a frame; the rest of it follows. */
function discard(sc: TnSoftc, eop: boolean): void {
  m_freem(sc.rxHead);
  sc.rxHead = null;
  sc.rxTail = null;
  sc.rxDiscard = !eop;
}

/** What the device says of the checksums, in the words of the stack, if the stack wants to hear. */
function verdict(sc: TnSoftc, m: Mbuf, status: number): void {
  const { if_capenable } = sc.ifp;
  const v4 = (status & TN_RXS_IPCS) !== 0;
  if ((if_capenable & (v4 ? IFCAP_RXCSUM : IFCAP_RXCSUM_IPV6)) === 0) return;
  let flags = 0;
  if (v4) flags |= CSUM_IP_CHECKED | ((status & TN_RXS_IPE) === 0 ? CSUM_IP_VALID : 0);
  if ((status & (TN_RXS_L4CS | TN_RXS_L4E)) === TN_RXS_L4CS) {
    flags |= CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
    m.m_pkthdr.csum_data = 0xffff;
  }
  m.m_pkthdr.csum_flags = flags;
}

/** Hands a whole frame to the stack. */
function deliver(sc: TnSoftc, status: number, vtag: number): void {
  const { ifp } = sc;
  const m = sc.rxHead!;
  sc.rxHead = null;
  sc.rxTail = null;
  m.m_pkthdr.rcvif = ifp;
  // What the NIC coalesced or the peer left in one piece may be more than an MTU: not too long.
  m.m_pkthdr.lro_nsegs = (status >>> TN_RXS_SEGS_SHIFT) & TN_RXS_SEGS_MASK;
  verdict(sc, m, status);
  if ((status & TN_RXS_VP) !== 0) {
    m.m_pkthdr.ether_vtag = vtag;
    m.m_flags |= M_VLANTAG;
  }
  if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
  ifp.if_input!(ifp, m);
}

/** Handles one descriptor that was written back. */
function tn_rxdesc(sc: TnSoftc, slot: number, status: number, lenTag: number): void {
  const eop = (status & TN_RXS_EOP) !== 0;
  const len = lenTag & 0xffff;
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
  if ((status & TN_RXS_ERR) !== 0 || len > sc.rxBufSize || (len === 0 && !eop)) {
    count(R_DRV_RX_ERROR);
    if_inc_counter(sc.ifp, IFCOUNTER_IERRORS, 1);
    discard(sc, true);
    recycle(sc, slot);
    return;
  }
  if (sc.rxDiscard) {
    discard(sc, eop);
    recycle(sc, slot);
    return;
  }
  const first = sc.rxHead === null;
  const m = first && eop && len <= MHLEN ? copySmall(sc, slot, len) : takeBuffer(sc, slot, len);
  if (m === null) {
    // The buffer stays: without one the slot would be lost to the ring for good.
    count(R_DRV_RX_NOBUF);
    if_inc_counter(sc.ifp, IFCOUNTER_IQDROPS, 1);
    discard(sc, eop);
    recycle(sc, slot);
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
  if (eop) deliver(sc, status, lenTag >>> 16);
}

/**
 * Received frames: hands up what the device has filled, `limit` descriptors at most, and gives the
 * slots back. Returns whether there may be more.
 * @see ifnet(9)
 */
export function tn_rxeof(sc: TnSoftc, limit: number): boolean {
  const { ifp } = sc;
  bus_dmamap_sync(sc.rxRingTag, sc.rxRing.map, RING_TO_US);
  let n = 0;
  for (; n < limit; n++) {
    const slot = sc.rxNext;
    const at = sc.rxDesc + slot * TN_DESC_SIZE;
    const status = memView.getInt32(at + TN_D_STAT, true);
    if ((status & TN_RXS_DD) === 0) break;
    const lenTag = memView.getInt32(at + TN_D_LEN, true);
    sc.rxNext = slot + 1 === TN_RX_NDESC ? 0 : slot + 1;
    tn_rxdesc(sc, slot, status, lenTag);
    // The stack may have stopped the interface in the middle of this.
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return false;
  }
  if (n === 0) return false;
  bus_dmamap_sync(sc.rxRingTag, sc.rxRing.map, RING_TO_DEVICE);
  // One slot stays with us, so that a full ring does not look empty.
  bus_space_write_4(sc.regs, TN_RDT, (sc.rxNext + TN_RX_NDESC - 1) % TN_RX_NDESC);
  return n === limit;
}

/** Frees every receive buffer; the device has been stopped. @see ifnet(9) */
export function tn_rxdrain(sc: TnSoftc): void {
  discard(sc, true);
  for (let slot = 0; slot < TN_RX_NDESC; slot++) {
    const m = sc.rxMbuf[slot]!;
    if (m === null) continue;
    bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
    bus_dmamap_unload(sc.rxTag, sc.rxMap[slot]!);
    sc.rxMbuf[slot] = null;
    m_freem(m);
  }
  KASSERT(sc.rxHead === null, 'tn_rxdrain: frame under way');
}
