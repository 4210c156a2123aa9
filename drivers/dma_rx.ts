/**
 * Receive buffers of drivers with bus_dma: refilling a ring, putting together frames of several
 * buffers, copying small ones, and handing frames up. The driver reads the descriptors and knows
 * what they mean. A slot never loses its buffer: without memory for a new one the frame is lost.
 */

import { ENOBUFS, type Errno } from '../src/sys/errno.ts';
import { count, R_DRV_RX_ERROR, R_DRV_RX_NOBUF } from '../src/sys/reason.ts';
import { mem } from '../src/vm/arena.ts';
import { m_freem, m_gethdr, m_getjcl } from '../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP_CHECKED,
  CSUM_IP_VALID,
  CSUM_PSEUDO_HDR,
  type Mbuf,
  MHLEN,
  M_NOWAIT,
  M_PKTHDR,
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
import type { DmaSoftc } from './dma_softc.ts';

/** Hands a slot back to the device with the buffer it has. */
function repost(sc: DmaSoftc, slot: number): void {
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_PREREAD);
  sc.ops.rxpost(sc, slot);
}

/** Gives a slot a new buffer; ENOBUFS, and the slot as it was, if there is none. */
export function dmaNewbuf(sc: DmaSoftc, slot: number): Errno {
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
  sc.ops.rxaim(sc, slot);
  repost(sc, slot);
  return 0;
}

/** Fills the ring with buffers of `bufSize` bytes; ENOBUFS, and nothing kept, if memory is short. */
export function dmaRxfill(sc: DmaSoftc, bufSize: number): Errno {
  sc.rxBufSize = bufSize;
  sc.rxNext = 0;
  sc.rxDiscard = false;
  for (let slot = 0; slot < sc.rxNdesc; slot++) {
    if (dmaNewbuf(sc, slot) === 0) continue;
    dmaRxdrain(sc);
    return ENOBUFS;
  }
  return 0;
}

/** Frees every receive buffer and what has come of a frame; the device has been stopped. */
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

/** The slot behind `slot`. */
export function dmaRxAfter(sc: DmaSoftc, slot: number): number {
  return slot + 1 === sc.rxNdesc ? 0 : slot + 1;
}

/** A small frame leaves its buffer in place: copying it is cheaper than a new cluster. */
function copySmall(sc: DmaSoftc, slot: number, len: number): Mbuf | null {
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return null;
  const from = sc.rxMbuf[slot]!.m_data;
  mem.copyWithin(m.m_data, from, from + len);
  m.m_len = len;
  repost(sc, slot);
  return m;
}

/** Takes the filled buffer out of a slot that gets a new one; null if there is none to be had. */
function takeBuffer(sc: DmaSoftc, slot: number, len: number): Mbuf | null {
  const m = sc.rxMbuf[slot]!;
  if (dmaNewbuf(sc, slot) !== 0) return null;
  m.m_len = len;
  return m;
}

/** Throws away what has come of a frame; the rest of it follows. */
function discard(sc: DmaSoftc, eop: boolean): void {
  m_freem(sc.rxHead);
  sc.rxHead = null;
  sc.rxTail = null;
  sc.rxDiscard = !eop;
}

/** A slot came back without a frame, or with one that cannot be. */
export function dmaRxBad(sc: DmaSoftc, slot: number): void {
  count(R_DRV_RX_ERROR);
  if_inc_counter(sc.ifp, IFCOUNTER_IERRORS, 1);
  discard(sc, true);
  repost(sc, slot);
}

/**
 * Adds the `len` bytes that a slot has got to the frame under way; the slot is posted again. The
 * frame, which is the caller's, if this was the last of it; else null, be it lost or not complete.
 */
export function dmaRxTake(sc: DmaSoftc, slot: number, len: number, eop: boolean): Mbuf | null {
  if (sc.rxDiscard) {
    discard(sc, eop);
    repost(sc, slot);
    return null;
  }
  const first = sc.rxHead === null;
  const m = first && eop && len <= MHLEN ? copySmall(sc, slot, len) : takeBuffer(sc, slot, len);
  if (m === null) {
    // The buffer stays: without one the slot would be lost to the ring for good.
    count(R_DRV_RX_NOBUF);
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
  sc.rxTail = m;
  if (!eop) return null;
  const frame = sc.rxHead!;
  sc.rxHead = null;
  sc.rxTail = null;
  return frame;
}

/**
 * What the device found out about the checksums of `m`, in the words of the stack, if the stack
 * wants to hear: `v4` an IPv4 header was verified, `ipGood` and is right; `l4Good` TCP or UDP is.
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
    flags |= CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
    m.m_pkthdr.csum_data = 0xffff;
  }
  m.m_pkthdr.csum_flags = flags;
}

/** Hands a whole frame to the stack. */
export function rxInput(ifp: Ifnet, m: Mbuf): void {
  m.m_pkthdr.rcvif = ifp;
  if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
  ifp.if_input!(ifp, m);
}
