/**
 * Receive buffers of drivers with bus_dma: refill a ring, assemble frames of several buffers, copy
 * small ones, pass frames to the stack. The driver itself reads the descriptors. A slot always has
 * a buffer: if no new one can be allocated, the frame is copied or dropped and its buffer is posted
 * again.
 */

import { CAPTURE_IN, CAPTURE_RING } from '../src/sys/capture.ts';
import { noteLost } from '../src/net/capture_drop.ts';
import { ENOBUFS, type Errno } from '../src/sys/errno.ts';
import { count, R_DRV_RX_ERROR, R_DRV_RX_NOBUF } from '../src/sys/reason.ts';
import { mem } from '../src/vm/arena.ts';
import { m_freem, m_get, m_getcl, m_gethdr, m_getjcl, m_getm2 } from '../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_DATA_VALID_IPV6,
  CSUM_IP_CHECKED,
  CSUM_IP_VALID,
  CSUM_PSEUDO_HDR,
  type Mbuf,
  MCLBYTES,
  MHLEN,
  MJUM16BYTES,
  MLEN,
  M_NOWAIT,
  M_PKTHDR,
  M_SIZE,
  MT_DATA,
} from '../src/kern/mbuf.ts';
import {
  bus_dmamap_load_mbuf_sg,
  bus_dmamap_sync,
  bus_dmamap_unload,
  BUS_DMASYNC_POSTREAD,
  BUS_DMASYNC_PREREAD,
} from '../src/bus/bus_dma.ts';
import {
  IFCAP_RXCSUM,
  IFCAP_RXCSUM_IPV6,
  IFCOUNTER_IERRORS,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_IQDROPS,
  if_inc_counter,
  type Ifnet,
} from '../src/net/if_var.ts';
import { m_last } from '../src/kern/uipc_mbuf.ts';
import type { DmaSoftc } from './dma_softc.ts';

/** Hands a slot back to the device with its current buffer. */
function repost(sc: DmaSoftc, slot: number): void {
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_PREREAD);
  sc.ops.rxpost(sc, slot);
}

/** Gives a slot a new buffer. ENOBUFS: memory is exhausted; the slot keeps its old buffer. */
function dmaNewbuf(sc: DmaSoftc, slot: number): Errno {
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
  sc.rxData[slot] = m.m_data;
  sc.ops.rxaim(sc, slot);
  repost(sc, slot);
  return 0;
}

/**
 * Fills the ring with buffers of `bufSize` bytes. ENOBUFS: memory is exhausted; the ring is empty.
 */
export function dmaRxfill(sc: DmaSoftc, bufSize: number): Errno {
  sc.rxBufSize = bufSize;
  // A copy is cheaper than a new buffer, and a large buffer with few bytes wastes memory: a socket
  // buffer may have 8 times as much memory as data.
  sc.rxCopyMax = bufSize === MJUM16BYTES ? MCLBYTES : MHLEN;
  sc.rxNext = 0;
  sc.rxDiscard = false;
  for (let slot = 0; slot < sc.rxNdesc; slot++) {
    if (dmaNewbuf(sc, slot) === 0) continue;
    dmaRxdrain(sc);
    return ENOBUFS;
  }
  return 0;
}

/** Frees every receive buffer and a partly received frame. The caller has stopped the device. */
export function dmaRxdrain(sc: DmaSoftc): void {
  discard(sc, true);
  for (let slot = 0; slot < sc.rxNdesc; slot++) {
    const m = sc.rxMbuf[slot]!;
    if (m === null) continue;
    bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
    bus_dmamap_unload(sc.rxTag, sc.rxMap[slot]!);
    sc.rxMbuf[slot] = null;
    m_freem(m);
  }
}

/** The slot that follows `slot`; slot 0 follows the last one. */
export function dmaRxAfter(sc: DmaSoftc, slot: number): number {
  return slot + 1 === sc.rxNdesc ? 0 : slot + 1;
}

/** An mbuf for the `len` bytes of a buffer, at most MCLBYTES; with packet header if `first`. */
function smallMbuf(len: number, first: boolean): Mbuf | null {
  if (len > (first ? MHLEN : MLEN)) return m_getcl(M_NOWAIT, MT_DATA, first ? M_PKTHDR : 0);
  return first ? m_gethdr(M_NOWAIT, MT_DATA) : m_get(M_NOWAIT, MT_DATA);
}

/**
 * Copies the `len` bytes in a slot into `top`, which has room for them and becomes their owner, and
 * posts the slot again with its buffer.
 */
function copyOut(sc: DmaSoftc, slot: number, len: number, top: Mbuf): Mbuf {
  let from = sc.rxData[slot]!;
  for (let m: Mbuf | null = top; m !== null; m = m.m_next) {
    const n = Math.min(len, M_SIZE(m));
    mem.copyWithin(m.m_data, from, from + n);
    m.m_len = n;
    from += n;
    len -= n;
  }
  repost(sc, slot);
  return top;
}

/**
 * Replaces the filled buffer of a slot and returns it. If no new buffer can be allocated, returns
 * null, or a copy in smaller clusters if the buffer is a large one, of which there are few.
 */
function takeBuffer(sc: DmaSoftc, slot: number, len: number, first: boolean): Mbuf | null {
  const m = sc.rxMbuf[slot]!;
  if (dmaNewbuf(sc, slot) !== 0) {
    if (sc.rxBufSize !== MJUM16BYTES) return null;
    const copy = m_getm2(null, len, M_NOWAIT, MT_DATA, first ? M_PKTHDR : 0);
    return copy === null ? null : copyOut(sc, slot, len, copy);
  }
  m.m_len = len;
  return m;
}

/** Takes the `len` bytes in a slot, by copy if they are few, and posts the slot again. */
function takeData(sc: DmaSoftc, slot: number, len: number, first: boolean): Mbuf | null {
  if (len > sc.rxCopyMax) return takeBuffer(sc, slot, len, first);
  const m = smallMbuf(len, first);
  return m === null ? null : copyOut(sc, slot, len, m);
}

/**
 * Frees a partly received frame. If `eop` is false, dmaRxTake drops the frame's remaining buffers.
 */
function discard(sc: DmaSoftc, eop: boolean): void {
  m_freem(sc.rxHead);
  sc.rxHead = null;
  sc.rxTail = null;
  sc.rxDiscard = !eop;
}

/** Counts and reposts a slot that has no valid frame. */
export function dmaRxBad(sc: DmaSoftc, slot: number): void {
  count(R_DRV_RX_ERROR);
  noteLost(sc.rxId, 0, R_DRV_RX_ERROR, CAPTURE_RING, CAPTURE_IN, sc.ifp);
  if_inc_counter(sc.ifp, IFCOUNTER_IERRORS, 1);
  discard(sc, true);
  repost(sc, slot);
}

/**
 * Appends the `len` bytes in a slot to the current frame and posts the slot again. Returns a
 * complete frame, which the caller owns; null if it is incomplete or was dropped.
 */
export function dmaRxTake(sc: DmaSoftc, slot: number, len: number, eop: boolean): Mbuf | null {
  if (sc.rxDiscard) {
    if (eop) noteLost(sc.rxId, len, R_DRV_RX_NOBUF, CAPTURE_RING, CAPTURE_IN, sc.ifp);
    discard(sc, eop);
    repost(sc, slot);
    return null;
  }
  const first = sc.rxHead === null;
  const m = takeData(sc, slot, len, first);
  if (m === null) {
    // Keep the old buffer: a slot without a buffer could never be used again.
    count(R_DRV_RX_NOBUF);
    if (eop) noteLost(sc.rxId, len, R_DRV_RX_NOBUF, CAPTURE_RING, CAPTURE_IN, sc.ifp);
    if_inc_counter(sc.ifp, IFCOUNTER_IQDROPS, 1);
    discard(sc, eop);
    repost(sc, slot);
    return null;
  }
  if (first) {
    sc.rxHead = m;
    m.m_pkthdr.len = len;
  } else {
    m.m_flags &= ~M_PKTHDR;
    sc.rxTail!.m_next = m;
    sc.rxHead!.m_pkthdr.len += len;
  }
  sc.rxTail = m_last(m);
  if (!eop) return null;
  const frame = sc.rxHead!;
  sc.rxHead = null;
  sc.rxTail = null;
  return frame;
}

/**
 * Sets the checksum flags of `m` from the device's verdict, if the capability is enabled. `v4`: an
 * IPv4 header was verified; `ipGood`: it is correct; `l4Good`: the TCP or UDP checksum is correct.
 */
export function rxVerdict(
  ifp: Ifnet,
  m: Mbuf,
  v4: boolean,
  ipGood: boolean,
  l4Good: boolean,
): void {
  if ((ifp.if_capenable & (v4 ? IFCAP_RXCSUM : IFCAP_RXCSUM_IPV6)) === 0) return;
  let flags = 0;
  if (v4) flags |= CSUM_IP_CHECKED | (ipGood ? CSUM_IP_VALID : 0);
  if (l4Good) {
    flags |= (v4 ? CSUM_DATA_VALID : CSUM_DATA_VALID_IPV6) | CSUM_PSEUDO_HDR;
    m.m_pkthdr.csum_data = 0xffff;
  }
  m.m_pkthdr.csum_flags = flags;
}

/** Passes a complete frame to the stack, which then owns it. */
export function rxInput(ifp: Ifnet, m: Mbuf): void {
  m.m_pkthdr.rcvif = ifp;
  if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
  ifp.if_input!(ifp, m);
}
