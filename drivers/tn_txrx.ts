/**
 * Transmit and receive of the driver for `tn`. Transmit loads an mbuf chain, mapped or not, with
 * bus_dma and never reads payload; receive passes the clusters that the device filled to the stack.
 * Register and descriptor rules: docs/tn-datasheet.md.
 */

import { captureNotes } from '../src/sys/capture_notes.ts';
import { EINVAL, ENOMEM, type Errno } from '../src/sys/errno.ts';
import { IPPROTO_TCP, IPPROTO_UDP } from '../src/sys/protocols.ts';
import { memView } from '../src/vm/arena.ts';
import {
  CSUM_IP,
  CSUM_IP6_TCP,
  CSUM_IP6_UDP,
  CSUM_IP_TCP,
  CSUM_IP_UDP,
  CSUM_TSO,
  type Mbuf,
  M_VLANTAG,
} from '../src/kern/mbuf.ts';
import {
  bus_dmamap_sync,
  bus_dmamap_unload,
  BUS_DMASYNC_POSTREAD,
  BUS_DMASYNC_PREWRITE,
} from '../src/bus/bus_dma.ts';
import { bus_space_write_4 } from '../src/bus/bus_space.ts';
import { IFF_DRV_RUNNING } from '../src/net/if_var.ts';
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
  TN_RXS_ID,
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
import { dmaRxAfter, dmaRxBad, dmaRxTake, rxInput, rxVerdict } from './dma_rx.ts';
import { RING_TO_DEVICE, RING_TO_US } from './dma_setup.ts';
import { dmaLoadTx, dmaTxDone, dmaTxMap, dmaTxPut } from './dma_tx.ts';
import { TN_RX_NDESC, type TnSoftc } from './if_tnvar.ts';
import { headerBytes, TxHeaders, txHeaders } from './tx_headers.ts';

const L4_REQUESTS = CSUM_IP_TCP | CSUM_IP_UDP | CSUM_IP6_TCP | CSUM_IP6_UDP | CSUM_TSO;
const TCP_REQUESTS = CSUM_IP_TCP | CSUM_IP6_TCP | CSUM_TSO;
const REQUESTS = L4_REQUESTS | CSUM_IP;

const $headers = new TxHeaders();

/** Computes the context descriptor of the packet. EINVAL: the headers are bad. */
function tn_offload_setup(sc: TnSoftc, m: Mbuf): Errno {
  const { csum_flags, len, tso_segsz } = m.m_pkthdr;
  const error = txHeaders(m, sc.scratch, $headers);
  if (error !== 0) return error;
  const { l2, l3, v6, proto } = $headers;
  let cmd = TN_TXD_CTX;
  let l4 = 0;
  if ((csum_flags & L4_REQUESTS) !== 0) {
    const tcp = (csum_flags & TCP_REQUESTS) !== 0;
    // The stack computes the checksum of a packet with IPv6 extension headers itself, so the next
    // header is TCP or UDP.
    if (proto !== (tcp ? IPPROTO_TCP : IPPROTO_UDP)) return EINVAL;
    l4 = tcp ? 20 : 8;
    if (len < l2 + l3 + l4) return EINVAL;
    if (tcp) {
      const hdr = headerBytes(m, l2 + l3 + l4, sc.scratch);
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

function fillContext(sc: TnSoftc, m: Mbuf): void {
  const at = sc.txDesc + sc.txr.slot(sc.txr.prod) * TN_DESC_SIZE;
  memView.setUint32(at, sc.ctxLens, true);
  memView.setUint32(at + TN_C_MSS, sc.ctxMss, true);
  memView.setUint32(at + TN_C_TAG, m.m_pkthdr.pktId, true);
  memView.setUint32(at + TN_D_STAT, sc.ctxCmd, true);
}

/** Fills the data descriptors of the loaded packet, starting `n` slots after the producer. */
function fillData(sc: TnSoftc, m: Mbuf, n: number): void {
  const { txr, segs } = sc;
  const last = segs.nsegs - 1;
  const vlan = (m.m_flags & M_VLANTAG) !== 0;
  for (let i = 0; i <= last; i++) {
    const at = sc.txDesc + txr.slot(txr.prod + n + i) * TN_DESC_SIZE;
    let lenTag = segs.ds_len[i]!;
    let cmd = i === last ? TN_TXD_EOP | TN_TXD_RS : 0;
    if (vlan && i === 0) {
      lenTag |= m.m_pkthdr.ether_vtag << 16;
      cmd |= TN_TXD_VLE;
    }
    memView.setInt32(at + TN_D_ADDRL, segs.addrLo[i]!, true);
    memView.setInt32(at + TN_D_ADDRH, segs.addrHi[i]!, true);
    memView.setInt32(at + TN_D_LEN, lenTag, true);
    memView.setUint32(at + TN_D_STAT, cmd, true);
  }
}

/**
 * Queues `m` for transmission. On 0 the ring owns the packet. On any error the caller owns
 * `sc.txHead`, which is `m` or its copy. ENOMEM: no room on the ring or no bounce pages now.
 * EINVAL: the headers are bad. EFBIG and ENOBUFS: the packet cannot be sent.
 * @see bus_dma(9)
 */
export function tn_encap(sc: TnSoftc, m: Mbuf): Errno {
  const { txr, segs } = sc;
  sc.txHead = m;
  const { csum_flags, pktId } = m.m_pkthdr;
  const offload = (csum_flags & REQUESTS) !== 0;
  // A context descriptor without requests carries the packet's id to captures.
  const nctx = offload || (captureNotes.on && pktId !== 0) ? 1 : 0;
  if (txr.free < nctx + 1) return ENOMEM;
  let error = 0;
  if (offload) {
    error = tn_offload_setup(sc, m);
    if (error !== 0) return error;
  } else {
    sc.ctxCmd = TN_TXD_CTX;
    sc.ctxLens = sc.ctxMss = 0;
  }
  const first = txr.slot(txr.prod);
  const map = dmaTxMap(sc);
  error = dmaLoadTx(sc, map, m);
  if (error !== 0) return error;
  if (segs.nsegs + nctx > txr.free) {
    bus_dmamap_unload(sc.txTag, map);
    return ENOMEM;
  }
  const head = sc.txHead;
  if (nctx === 1) fillContext(sc, head);
  fillData(sc, head, nctx);
  dmaTxPut(sc, first, segs.nsegs + nctx);
  txr.produce(segs.nsegs + nctx);
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_PREWRITE);
  // dma_tx.ts rings the doorbell, at the latest at the end of the pass.
  return 0;
}

/** Rings the doorbell. @see bus_space(9) */
export function tn_doorbell(sc: TnSoftc): void {
  bus_space_write_4(sc.regs, TN_TDT, sc.txr.slot(sc.txr.prod));
}

/** Completes the packets that the device has finished; returns how many. @see bus_dma(9) */
export function tn_txreap(sc: TnSoftc): number {
  const { txr } = sc;
  let n = 0;
  bus_dmamap_sync(sc.txRing.tag, sc.txRing.map, RING_TO_US);
  for (; txr.used > 0 && txr.cons !== sc.txRung; n++) {
    const last = txr.slot(txr.cons + sc.txNdesc[txr.slot(txr.cons)]! - 1);
    // Read it as signed, here and below: an unsigned word with DD set would be allocated on V8's
    // heap.
    const status = memView.getInt32(sc.txDesc + last * TN_DESC_SIZE + TN_D_STAT, true);
    if ((status & TN_TXS_DD) === 0) break;
    dmaTxDone(sc, (status & TN_TXS_ERR) !== 0);
  }
  return n;
}

/** Writes the loaded buffer's address into a slot. @see bus_dma(9) */
export function tn_rxaim(sc: TnSoftc, slot: number): void {
  sc.rxAddrLo[slot] = sc.segs.addrLo[0]!;
  const at = sc.rxDesc + slot * TN_DESC_SIZE;
  memView.setInt32(at + TN_D_ADDRH, sc.segs.addrHi[0]!, true);
}

/** Hands a slot back to the device with its current buffer. @see bus_dma(9) */
export function tn_rxpost(sc: TnSoftc, slot: number): void {
  const at = sc.rxDesc + slot * TN_DESC_SIZE;
  // The device may have replaced it with a frame's id.
  memView.setInt32(at + TN_D_ADDRL, sc.rxAddrLo[slot]!, true);
  memView.setUint32(at + TN_D_LEN, 0, true);
  memView.setUint32(at + TN_D_STAT, 0, true);
}

/** Passes a complete frame to the stack. `status` is that of its last descriptor. */
function deliver(sc: TnSoftc, m: Mbuf, status: number, vtag: number, id: number): void {
  const { ifp } = sc;
  m.m_pkthdr.pktId = id;
  // A coalesced or unsegmented frame may exceed the MTU; lro_nsegs marks it as valid.
  m.m_pkthdr.lro_nsegs = (status >>> TN_RXS_SEGS_SHIFT) & TN_RXS_SEGS_MASK;
  const v4 = (status & TN_RXS_IPCS) !== 0;
  const l4Good = (status & (TN_RXS_L4CS | TN_RXS_L4E)) === TN_RXS_L4CS;
  rxVerdict(ifp, m, v4, (status & TN_RXS_IPE) === 0, l4Good);
  if ((status & TN_RXS_VP) !== 0) {
    m.m_pkthdr.ether_vtag = vtag;
    m.m_flags |= M_VLANTAG;
  }
  rxInput(ifp, m);
}

/** Handles one descriptor that the device has written back. */
function tn_rxdesc(sc: TnSoftc, slot: number, status: number, lenTag: number): void {
  const eop = (status & TN_RXS_EOP) !== 0;
  const len = lenTag & 0xffff;
  // Taking the frame posts the slot again, with its address in place of the id.
  const at = sc.rxDesc + slot * TN_DESC_SIZE;
  const id = (status & TN_RXS_ID) !== 0 ? memView.getUint32(at + TN_D_ADDRL, true) : 0;
  sc.rxId = id;
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
  if ((status & TN_RXS_ERR) !== 0 || len > sc.rxBufSize || (len === 0 && !eop)) {
    dmaRxBad(sc, slot);
    return;
  }
  const m = dmaRxTake(sc, slot, len, eop);
  if (m !== null) deliver(sc, m, status, lenTag >>> 16, id);
}

/**
 * Passes received frames to the stack, at most `limit` descriptors, and posts their slots again.
 * Returns whether there may be more.
 * @see ifnet(9)
 */
export function tn_rxeof(sc: TnSoftc, limit: number): boolean {
  const { ifp } = sc;
  bus_dmamap_sync(sc.rxRing.tag, sc.rxRing.map, RING_TO_US);
  let n = 0;
  for (; n < limit; n++) {
    const slot = sc.rxNext;
    const at = sc.rxDesc + slot * TN_DESC_SIZE;
    const status = memView.getInt32(at + TN_D_STAT, true);
    if ((status & TN_RXS_DD) === 0) break;
    const lenTag = memView.getInt32(at + TN_D_LEN, true);
    sc.rxNext = dmaRxAfter(sc, slot);
    tn_rxdesc(sc, slot, status, lenTag);
    // The stack may have stopped the interface during input.
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return false;
  }
  if (n === 0) return false;
  bus_dmamap_sync(sc.rxRing.tag, sc.rxRing.map, RING_TO_DEVICE);
  // Keep one slot back, so that a full ring does not look empty.
  bus_space_write_4(sc.regs, TN_RDT, (sc.rxNext + TN_RX_NDESC - 1) % TN_RX_NDESC);
  return n === limit;
}
