/**
 * The capture points inside the stack: `sockbuf` and `ip`, and the mbuf chains of `if`. A record of
 * `sockbuf` or `ip` begins with an Ethernet header without addresses, because libpcap reads only files
 * whose interfaces all have one link type. Callers check `capturePoints.on` first.
 */

import {
  CAPTURE_IN,
  CAPTURE_IP,
  CAPTURE_OUT,
  CAPTURE_SOCKBUF,
  type CaptureRing,
} from '../sys/capture.ts';
import {
  META_CSUM_BAD,
  META_CSUM_NIC,
  META_CSUM_SOFTWARE,
  META_CSUM_UNKNOWN,
  META_CSUM_VERIFIED,
  META_M_EXT,
  META_M_NOMAP,
  META_M_NOTREADY,
  META_M_PKTHDR,
  META_M_RDONLY,
  META_MBUF_CLUSTER,
  META_MBUF_EXTPGS,
  META_MBUF_INTERNAL,
  META_MBUF_OTHER,
  META_MBUF_SFBUF,
  META_WHY_WAIT,
  MetaWriter,
} from '../sys/capture_meta.ts';
import type { Reason } from '../sys/reason.ts';
import { kva } from '../sys/types.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import {
  CSUM_DATA_VALID,
  CSUM_DELAY_DATA,
  CSUM_DELAY_DATA_IPV6,
  CSUM_PSEUDO_HDR,
  EXT_CLUSTER,
  EXT_JUMBO16,
  EXT_JUMBO9,
  EXT_JUMBOP,
  EXT_PACKET,
  EXT_SFBUF,
  type Mbuf,
  M_EXT,
  m_extrefcnt,
  M_NOMAP,
  M_NOTREADY,
  M_PKTHDR,
  M_RDONLY,
  M_START,
  mtod,
} from '../kern/mbuf.ts';
import { m_length } from '../kern/uipc_mbuf.ts';
import { mem, memView, PAGE_SIZE, vtophys } from '../vm/arena.ts';
import { payloadReason, READ_BPF } from '../vm/payload.ts';
import { ETHER_HDR_LEN, ETHERTYPE_IP, ETHERTYPE_IPV6 } from './ethernet.ts';
import type { Ifnet } from './if_var.ts';

/** Version 4, five words; the least length of an IPv4 header. */
const IP_VHL = 0x45;
const IP_HDR_MIN = 20;
/** The IPv6 header and the offsets of its addresses. */
const IP6_HDR = 40;
const IP6_ADDRS = [8, 24] as const;

/** Room for the metadata of a record; what does not fit is left out. */
const META_ROOM = 4096;

let meta: MetaWriter | null = null;

/**
 * The writer of metadata into the arena, which exists when a capture does, at the start of the record under
 * way. @param room bytes that were reserved
 */
export function metaWriter(ring: CaptureRing, room = META_ROOM): MetaWriter {
  meta ??= new MetaWriter(memView);
  meta.begin(ring.metaOff, room);
  return meta;
}

/** Forgets the arena. Called at boot. */
export function captureLayersReset(): void {
  meta = null;
}

function kindOf(m: Mbuf): number {
  if ((m.m_flags & M_EXT) === 0) return META_MBUF_INTERNAL;
  if ((m.m_flags & M_NOMAP) !== 0) return META_MBUF_EXTPGS;
  switch (m.m_ext.ext_type) {
    case EXT_CLUSTER:
    case EXT_PACKET:
    case EXT_JUMBOP:
    case EXT_JUMBO9:
    case EXT_JUMBO16:
      return META_MBUF_CLUSTER;
    case EXT_SFBUF:
      return META_MBUF_SFBUF;
    default:
      return META_MBUF_OTHER;
  }
}

function flagsOf({ m_flags }: Mbuf): number {
  return (
    ((m_flags & M_PKTHDR) !== 0 ? META_M_PKTHDR : 0) |
    ((m_flags & M_EXT) !== 0 ? META_M_EXT : 0) |
    ((m_flags & M_NOMAP) !== 0 ? META_M_NOMAP : 0) |
    ((m_flags & M_RDONLY) !== 0 ? META_M_RDONLY : 0) |
    ((m_flags & M_EXT) !== 0 && (m_flags & M_NOTREADY) !== 0 ? META_M_NOTREADY : 0)
  );
}

/** Adds one mbuf, whose data it does not read. */
function addMbuf(w: MetaWriter, m: Mbuf): void {
  const refs = (m.m_flags & M_EXT) !== 0 ? m_extrefcnt(m) : 1;
  const kind = kindOf(m);
  const flags = flagsOf(m);
  const pgs = m.m_ext.ext_pgs;
  if ((m.m_flags & M_NOMAP) === 0 || pgs === null) {
    const from = m.m_data - (m.m_data % PAGE_SIZE);
    const n = m.m_len === 0 ? 0 : Math.ceil((m.m_data + m.m_len - from) / PAGE_SIZE);
    if (!w.mbuf(kind, flags, refs, m.m_len, m.m_data - M_START(m), 0, 0, n)) return;
    for (let i = 0; i < n; i++) w.page(vtophys(kva(from + i * PAGE_SIZE)));
    return;
  }
  // Only the pages of this mbuf's window, which begins m_data bytes into header and pages.
  const at = Math.max(0, m.m_data - pgs.hdr_len) + pgs.first_pg_off;
  const hdr = Math.min(m.m_len, Math.max(0, pgs.hdr_len - m.m_data));
  const first = Math.floor(at / PAGE_SIZE);
  const end = Math.min(pgs.npgs, Math.ceil((at + m.m_len - hdr) / PAGE_SIZE));
  const n = Math.max(0, end - first);
  if (!w.mbuf(kind, flags, refs, m.m_len, at % PAGE_SIZE, hdr, pgs.trail_len, n)) return;
  for (let i = 0; i < n; i++) w.page(pgs.pa[pgs.pa0 + first + i]!);
}

/** META_PACKET and META_CHAIN of a packet that starts at `head`; the chain is that of `m`. */
export function metaOfChain(
  ring: CaptureRing,
  point: number,
  flags: number,
  head: Mbuf,
  m: Mbuf | null,
): number {
  if (!ring.metaWanted) return 0;
  const w = metaWriter(ring);
  const { pktId, csum_flags } = head.m_pkthdr;
  w.packet(pktId, point, flags, 0, csumOf(csum_flags, flags));
  addChain(w, m);
  return w.length;
}

function addChain(w: MetaWriter, m: Mbuf | null): void {
  w.chain();
  for (let at = m; at !== null; at = at.m_next) addMbuf(w, at);
  w.chainEnd();
}

function csumOf(bits: number, flags: number): number {
  if (flags === CAPTURE_OUT)
    return (bits & (CSUM_DELAY_DATA | CSUM_DELAY_DATA_IPV6)) !== 0
      ? META_CSUM_NIC
      : META_CSUM_SOFTWARE;
  if ((bits & CSUM_PSEUDO_HDR) === 0) return META_CSUM_UNKNOWN;
  return (bits & CSUM_DATA_VALID) !== 0 ? META_CSUM_VERIFIED : META_CSUM_BAD;
}

/** Room that a record's metadata needs at most. */
export function metaRoom(ring: CaptureRing): number {
  return ring.metaWanted ? META_ROOM : 0;
}

/** Writes an Ethernet header without addresses for an IP packet; returns its length. */
function pseudoEther(dst: number, caplen: number, v6: boolean): number {
  const n = Math.min(ETHER_HDR_LEN, caplen);
  for (let i = 0; i < n; i++) mem[dst + i] = 0;
  if (n === ETHER_HDR_LEN) memView.setUint16(dst + 12, v6 ? ETHERTYPE_IPV6 : ETHERTYPE_IP);
  return n;
}

/** Whether the received packet `m` is one of IPv6. */
function isIp6(m: Mbuf): boolean {
  return mem[mtod(m)]! >> 4 === 6;
}

/**
 * Records an IP packet of `ifp` at point `ip`.
 * @param flags CAPTURE_OUT (before the fallback) or CAPTURE_IN (after the link layer)
 */
export function captureIp(ring: CaptureRing, ifp: Ifnet, m: Mbuf, flags: number): void {
  const wirelen = ETHER_HDR_LEN + m_length(m);
  const { pktId } = m.m_pkthdr;
  const dst = ring.reserve(CAPTURE_IP, flags, ifp.if_capunit, pktId, wirelen, metaRoom(ring));
  if (dst < 0) return;
  const n = pseudoEther(dst, ring.caplen, isIp6(m));
  const before = payloadReason(READ_BPF);
  if (ring.caplen > n) m_copydata(m, 0, ring.caplen - n, kva(dst + n));
  payloadReason(before);
  ring.commit(metaOfChain(ring, CAPTURE_IP, flags, m, m));
}

/**
 * Completes `len` bytes of an IP header at `dst` that IP has not filled in: version, id 0 and checksum
 * of IPv4; zones are no part of IPv6 addresses on the wire.
 */
function fillUnsentIp(dst: number, len: number, v6: boolean): void {
  if (v6) {
    clearZones(dst, len);
    return;
  }
  if (len < IP_HDR_MIN) return;
  mem[dst] = IP_VHL;
  memView.setUint16(dst + 4, 0);
  sumIp(dst);
}

/** Computes the checksum of the IPv4 header without options at `dst`. */
function sumIp(dst: number): void {
  memView.setUint16(dst + 10, 0);
  let sum = 0;
  for (let i = 0; i < IP_HDR_MIN; i += 2) sum += memView.getUint16(dst + i);
  sum = (sum & 0xffff) + (sum >>> 16);
  memView.setUint16(dst + 10, ~((sum & 0xffff) + (sum >>> 16)));
}

/** Removes the zones that the stack stores in link-local addresses of the IPv6 header at `dst`. */
function clearZones(dst: number, len: number): void {
  if (len < IP6_HDR) return;
  for (const at of IP6_ADDRS) {
    const high = memView.getUint16(dst + at);
    const group = high >>> 8 === 0xff && ((high & 15) === 1 || (high & 15) === 2);
    if (group || (high & 0xffc0) === 0xfe80) memView.setUint16(dst + at + 2, 0);
  }
}

/**
 * Records a packet at point `sockbuf`: the headers that it gets, and the bytes of the socket buffer.
 * @param unit the number of the interface; 0: not known yet
 * @param m the packet: its first mbuf has the headers, the others share the socket buffer's storage
 * @param first position of its first byte in the stream; @param bytes their number
 */
export function captureSockbufOut(
  ring: CaptureRing,
  unit: number,
  m: Mbuf,
  family: number,
  socket: number,
  first: number,
  bytes: number,
): void {
  const wirelen = ETHER_HDR_LEN + m_length(m);
  const { pktId } = m.m_pkthdr;
  const room = metaRoom(ring);
  const dst = ring.reserve(CAPTURE_SOCKBUF, CAPTURE_OUT, unit, pktId, wirelen, room);
  if (dst < 0) return;
  const v6 = family === AF_INET6;
  const n = pseudoEther(dst, ring.caplen, v6);
  const before = payloadReason(READ_BPF);
  if (ring.caplen > n) m_copydata(m, 0, ring.caplen - n, kva(dst + n));
  payloadReason(before);
  fillUnsentIp(dst + n, ring.caplen - n, v6);
  let length = metaOfChain(ring, CAPTURE_SOCKBUF, CAPTURE_OUT, m, m.m_next);
  if (length > 0) {
    meta!.socket(socket, first, bytes);
    length = meta!.length;
  }
  ring.commit(length);
}

/**
 * Records received data at point `sockbuf`, as the socket buffer gets it: the packet's headers, which
 * lie `hdrlen` bytes before the data of `m`, and the data.
 */
export function captureSockbufIn(
  ring: CaptureRing,
  ifp: Ifnet,
  m: Mbuf,
  hdrlen: number,
  socket: number,
  first: number,
): void {
  const bytes = m_length(m) - hdrlen;
  const wirelen = ETHER_HDR_LEN + hdrlen + bytes;
  const { pktId } = m.m_pkthdr;
  const unit = ifp.if_capunit;
  const room = metaRoom(ring);
  const dst = ring.reserve(CAPTURE_SOCKBUF, CAPTURE_IN, unit, pktId, wirelen, room);
  if (dst < 0) return;
  const v6 = isIp6(m);
  const n = pseudoEther(dst, ring.caplen, v6);
  if (ring.caplen > n) m_copydata(m, 0, ring.caplen - n, kva(dst + n));
  if (v6) clearZones(dst + n, ring.caplen - n);
  let length = metaOfChain(ring, CAPTURE_SOCKBUF, CAPTURE_IN, m, m);
  if (length > 0) {
    meta!.socket(socket, first, bytes);
    length = meta!.length;
  }
  ring.commit(length);
}

/** Data that waited for missing bytes before it. */
export interface WaitedData {
  /** The packet that brought it: id, csum_flags, interface, and its IP and TCP headers. */
  readonly pktId: number;
  readonly csumFlags: number;
  readonly ifp: Ifnet;
  readonly header: Uint8Array;
}

/**
 * Records `bytes` bytes at offset `off` of the chain `m` at point `sockbuf`, as the socket buffer gets
 * them now, behind the headers with which they came.
 * @param why the reason for which they waited; 0: they did not
 */
export function captureSockbufWaited(
  ring: CaptureRing,
  data: WaitedData,
  m: Mbuf,
  off: number,
  bytes: number,
  socket: number,
  first: number,
  why: Reason,
): void {
  const { pktId, csumFlags, ifp, header } = data;
  const wirelen = ETHER_HDR_LEN + header.length + bytes;
  const room = metaRoom(ring);
  const dst = ring.reserve(CAPTURE_SOCKBUF, CAPTURE_IN, ifp.if_capunit, pktId, wirelen, room);
  if (dst < 0) return;
  const { caplen } = ring;
  const n = pseudoEther(dst, caplen, header[0]! >> 4 === 6);
  const hdr = Math.min(header.length, caplen - n);
  for (let i = 0; i < hdr; i++) mem[dst + n + i] = header[i]!;
  if (caplen > n + hdr) m_copydata(m, off, caplen - n - hdr, kva(dst + n + hdr));
  if (!ring.metaWanted) {
    ring.commit(0);
    return;
  }
  const w = metaWriter(ring);
  w.packet(pktId, CAPTURE_SOCKBUF, CAPTURE_IN, 0, csumOf(csumFlags, CAPTURE_IN));
  addChain(w, m);
  w.socket(socket, first, bytes);
  if (why !== 0) w.why(META_WHY_WAIT, why, bytes);
  ring.commit(w.length);
}
