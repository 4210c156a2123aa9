/**
 * The mbuf structure, after sys/sys/mbuf.h as of r349529: sizes, flags and field names are
 * FreeBSD's, the objects are ours. An Mbuf object represents 256 bytes of arena memory; `m_dat` is
 * the address of its data area. The packet header and the external-storage header are preallocated
 * JavaScript objects in every Mbuf, so that all mbufs have one shape.
 *
 *   arena, MSIZE bytes:  | 32: header, unused | 56: pkthdr, unused | MHLEN 168: m_pktdat |
 *                        |                    | MLEN 224: m_dat                          |
 *
 * Left out: mbuf tags, NUMA domains, send tags (rate limits, NIC TLS), kTLS sessions.
 */

import { KASSERT, panic } from '../sys/kassert.ts';
import { kva, type Kva } from '../sys/types.ts';
import type { IfnetRef } from './ifnet_ref.ts';

export const MSIZE = 256;
export const MHSIZE = 32;
const PKTHDR_SIZE = 56;
export const MLEN = MSIZE - MHSIZE; // 224
export const MHLEN = MLEN - PKTHDR_SIZE; // 168
export const MINCLSIZE = MHLEN + 1;
export const MCLBYTES = 2048;
export const MJUMPAGESIZE = 4096;
export const MJUM16BYTES = 16384;
export const M_COPYALL = 1000000000;

/** Bytes reserved in front of a packet for the link header, for protocol headers, and for both. */
export const max_linkhdr = 16;
export const max_protohdr = 60;
export const max_hdr = max_linkhdr + max_protohdr;

export const MBUF_PEXT_HDR_LEN = 23;
export const MBUF_PEXT_TRAIL_LEN = 64;
export const MBUF_PEXT_MAX_PGS = 19;
export const MBUF_PEXT_FLAG_ANON = 1;

// m_flags
export const M_EXT = 0x1;
export const M_PKTHDR = 0x2;
export const M_EOR = 0x4;
export const M_RDONLY = 0x8;
export const M_BCAST = 0x10;
export const M_MCAST = 0x20;
export const M_PROMISC = 0x40;
export const M_VLANTAG = 0x80;
export const M_NOMAP = 0x100;
export const M_NOFREE = 0x200;
export const M_TSTMP = 0x400;
export const M_TSTMP_HPREC = 0x800;
export const M_PROTO1 = 0x1000;
export const M_PROTO2 = 0x2000;
export const M_PROTO3 = 0x4000;
export const M_PROTO4 = 0x8000;
/** M_PROTO1 to M_PROTO12. */
export const M_PROTOFLAGS = 0xfff000;
export const M_COPYFLAGS =
  M_PKTHDR |
  M_EOR |
  M_RDONLY |
  M_BCAST |
  M_MCAST |
  M_PROMISC |
  M_VLANTAG |
  M_TSTMP |
  M_TSTMP_HPREC |
  M_PROTOFLAGS;
/** IPv6: the packet was looped back by this host. @see sys/netinet6/in6.h */
export const M_LOOP = 0x20000;
/** IPv6: the packet has a router alert of MLD. @see sys/netinet6/in6.h */
export const M_RTALERT_MLD = 0x40000;
/** Socket buffers: the data is still being read. */
export const M_NOTREADY = M_PROTO1;
/** Socket buffers: the data is ready, but an mbuf in front of it is not. */
export const M_BLOCKED = M_PROTO2;
export const M_NOTAVAIL = M_NOTREADY | M_BLOCKED;

// m_type
export const MT_NOTMBUF = 0;
export const MT_DATA = 1;
export const MT_HEADER = MT_DATA;
export const MT_SONAME = 8;
export const MT_CONTROL = 14;
export const MT_OOBDATA = 15;

// `how` of allocators. No allocator here sleeps: with both values it fails at once when the zone is
// full.
export const M_NOWAIT = 0x1;
export const M_WAITOK = 0x2;

// m_ext.ext_type
export const EXT_CLUSTER = 1;
export const EXT_SFBUF = 2;
export const EXT_JUMBOP = 3;
export const EXT_JUMBO9 = 4;
export const EXT_JUMBO16 = 5;
export const EXT_PACKET = 6;
export const EXT_MBUF = 7;
export const EXT_RXRING = 8;
export const EXT_PGS = 9;
export const EXT_NET_DRV = 252;
export const EXT_MOD_TYPE = 253;
export const EXT_DISPOSABLE = 254;
export const EXT_EXTREF = 255;

// m_ext.ext_flags
export const EXT_FLAG_EMBREF = 0x1;
export const EXT_FLAG_EXTREF = 0x2;
export const EXT_FLAG_NOFREE = 0x10;
export const EXT_FLAG_VENDOR1 = 0x10000;
export const EXT_FLAG_VENDOR2 = 0x20000;
export const EXT_FLAG_VENDOR3 = 0x40000;
// The meaning sendfile gives to the vendor flags.
export const EXT_FLAG_SYNC = EXT_FLAG_VENDOR1;
export const EXT_FLAG_NOCACHE = EXT_FLAG_VENDOR2;
export const EXT_FLAG_CACHE_LAST = EXT_FLAG_VENDOR3;

// m_pkthdr.csum_flags of a packet to send: offloads that the NIC must perform.
export const CSUM_IP = 0x1;
export const CSUM_IP_UDP = 0x2;
export const CSUM_IP_TCP = 0x4;
export const CSUM_IP_SCTP = 0x8;
export const CSUM_IP_TSO = 0x10;
export const CSUM_IP_ISCSI = 0x20;
export const CSUM_IP6_UDP = 0x200;
export const CSUM_IP6_TCP = 0x400;
export const CSUM_IP6_SCTP = 0x800;
export const CSUM_IP6_TSO = 0x1000;
export const CSUM_IP6_ISCSI = 0x2000;
export const CSUM_UDP = CSUM_IP_UDP;
export const CSUM_TCP = CSUM_IP_TCP;
export const CSUM_UDP_IPV6 = CSUM_IP6_UDP;
export const CSUM_TCP_IPV6 = CSUM_IP6_TCP;
export const CSUM_TSO = CSUM_IP_TSO | CSUM_IP6_TSO;
export const CSUM_DELAY_DATA = CSUM_IP_TCP | CSUM_IP_UDP;
export const CSUM_DELAY_IP = CSUM_IP;
export const CSUM_DELAY_DATA_IPV6 = CSUM_IP6_TCP | CSUM_IP6_UDP;
// m_pkthdr.csum_flags of a received packet: checksums that the NIC verified.
export const CSUM_L3_CALC = 0x01000000;
export const CSUM_L3_VALID = 0x02000000;
export const CSUM_L4_CALC = 0x04000000;
export const CSUM_L4_VALID = 0x08000000;
export const CSUM_L5_CALC = 0x10000000;
export const CSUM_L5_VALID = 0x20000000;
export const CSUM_COALESCED = 0x40000000;
/**
 * snd_tag is valid; this is no offload. A signed number (0x80000000 | 0), as bit operations produce
 * it.
 */
export const CSUM_SND_TAG = 0x80000000 | 0;
export const CSUM_IP_CHECKED = CSUM_L3_CALC;
export const CSUM_IP_VALID = CSUM_L3_VALID;
export const CSUM_PSEUDO_HDR = CSUM_L4_CALC;
export const CSUM_DATA_VALID = CSUM_L4_VALID;
export const CSUM_DATA_VALID_IPV6 = CSUM_DATA_VALID;

/** Packet header. @see mbuf(9) */
export class Pkthdr {
  /** Receive interface; null for a packet that this stack created. */
  rcvif: IfnetRef | null = null;
  /** Length of the whole packet in bytes. */
  len = 0;
  flowid = 0;
  csum_flags = 0;
  fibnum = 0;
  rsstype = 0;
  /** Transmit: offset of the checksum field in the L4 header. Receive: the sum, with CSUM_L4_*. */
  csum_data = 0;
  /** Transmit: MSS of a TSO packet. */
  tso_segsz = 0;
  /**
   * Receive: number of segments coalesced into this packet. FreeBSD stores it in the field of
   * tso_segsz.
   */
  lro_nsegs = 0;
  ether_vtag = 0;
  l2hlen = 0;
  l3hlen = 0;
  l4hlen = 0;
  /** Ours: packet id for captures, assigned in TCP and UDP output; 0 if unassigned. */
  pktId = 0;
}

/**
 * The page list of an unmapped mbuf, with the fields of `struct mbuf_ext_pgs`. The page addresses
 * are a slice of one preallocated Float64Array; header and trailer bytes are in arena memory.
 * @see sys/sys/mbuf.h
 */
export class MbufExtPgs {
  npgs = 0;
  nrdy = 0;
  hdr_len = 0;
  trail_len = 0;
  first_pg_off = 0;
  last_pg_len = 0;
  flags = 0;
  /** All page lists; this one is pa[pa0 .. pa0 + npgs). */
  readonly pa: Float64Array;
  readonly pa0: number;
  /** Arena addresses of the header and the trailer (in FreeBSD those of a TLS record). */
  readonly hdr: Kva;
  readonly trail: Kva;

  constructor(pa: Float64Array, pa0: number, hdr: Kva, trail: Kva) {
    this.pa = pa;
    this.pa0 = pa0;
    this.hdr = hdr;
    this.trail = trail;
  }
}

/** Frees external storage. `m` is the mbuf that holds the reference count. */
export type ExtFree = (m: Mbuf) => void;

/**
 * External storage. `ext_free`, `ext_arg1` and `ext_arg2` are valid only in the mbuf that holds the
 * count.
 */
export class MExt {
  /** The reference count, if this mbuf holds it (EXT_FLAG_EMBREF). */
  ext_count = 0;
  /** The mbuf that holds the count; FreeBSD's ext_cnt points at the count itself. */
  ext_cnt: Mbuf | null = null;
  /** Address of mapped storage; 0 for EXT_PGS. */
  ext_buf: Kva = kva(0);
  ext_pgs: MbufExtPgs | null = null;
  ext_size = 0;
  ext_type = 0;
  ext_flags = 0;
  ext_free: ExtFree | null = null;
  ext_arg1: object | null = null;
  ext_arg2: object | null = null;
}

/** @see mbuf(9) */
export class Mbuf {
  m_next: Mbuf | null = null;
  m_nextpkt: Mbuf | null = null;
  /** A Kva. With M_NOMAP a byte offset into the storage; `mtod` panics then. */
  m_data = 0;
  m_len = 0;
  m_type = MT_NOTMBUF;
  m_flags = 0;
  readonly m_pkthdr = new Pkthdr();
  readonly m_ext = new MExt();
  /** Address of the MLEN bytes of internal data; m_pktdat is 56 bytes further. */
  readonly m_dat: Kva;

  constructor(m_dat: Kva) {
    this.m_dat = m_dat;
  }
}

/** Start of the data area of an mbuf with packet header. @see mbuf(9) */
export function m_pktdat(m: Mbuf): Kva {
  return kva(m.m_dat + PKTHDR_SIZE);
}

/** The address of the data. Panics on an unmapped mbuf, which has no address. @see mbuf(9) */
export function mtod(m: Mbuf): Kva {
  if ((m.m_flags & M_NOMAP) !== 0) panic('mtod: unmapped mbuf');
  return kva(m.m_data);
}

/** @see sys/sys/mbuf.h */
export function mbuf_ext_pg_len(ext_pgs: MbufExtPgs, pidx: number, pgoff: number): number {
  KASSERT(pgoff === 0 || pidx === 0, 'mbuf_ext_pg_len: page offset beyond the first page');
  return pidx === ext_pgs.npgs - 1 ? ext_pgs.last_pg_len : 4096 - pgoff;
}

/** The mbuf that holds the reference count of m's storage. */
export function extHolder(m: Mbuf): Mbuf {
  return (m.m_ext.ext_flags & EXT_FLAG_EMBREF) !== 0 ? m : m.m_ext.ext_cnt!;
}

/** Number of references to m's external storage. @see mbuf(9) */
export function m_extrefcnt(m: Mbuf): number {
  KASSERT((m.m_flags & M_EXT) !== 0, 'm_extrefcnt: no external storage');
  return extHolder(m).m_ext.ext_count;
}

/** Whether the data may be changed. @see mbuf(9) */
export function M_WRITABLE(m: Mbuf): boolean {
  return (
    (m.m_flags & (M_RDONLY | M_NOMAP)) === 0 && ((m.m_flags & M_EXT) === 0 || m_extrefcnt(m) === 1)
  );
}

/** Start of the storage; 0 for an unmapped mbuf. @see mbuf(9) */
export function M_START(m: Mbuf): number {
  if ((m.m_flags & M_NOMAP) !== 0) return 0;
  if ((m.m_flags & M_EXT) !== 0) return m.m_ext.ext_buf;
  return (m.m_flags & M_PKTHDR) !== 0 ? m_pktdat(m) : m.m_dat;
}

/** Size of the storage. @see mbuf(9) */
export function M_SIZE(m: Mbuf): number {
  if ((m.m_flags & M_EXT) !== 0) return m.m_ext.ext_size;
  return (m.m_flags & M_PKTHDR) !== 0 ? MHLEN : MLEN;
}

/** Writable bytes in front of the data. @see mbuf(9) */
export function M_LEADINGSPACE(m: Mbuf): number {
  return M_WRITABLE(m) ? m.m_data - M_START(m) : 0;
}

/** Writable bytes behind the data. @see mbuf(9) */
export function M_TRAILINGSPACE(m: Mbuf): number {
  return M_WRITABLE(m) ? M_START(m) + M_SIZE(m) - (m.m_data + m.m_len) : 0;
}

/** Places `len` bytes at the end of an empty mbuf, aligned to 8. @see mbuf(9) */
export function M_ALIGN(m: Mbuf, len: number): void {
  KASSERT(m.m_data === M_START(m), 'M_ALIGN: not a virgin mbuf');
  m.m_data += (M_SIZE(m) - len) & ~7;
}
