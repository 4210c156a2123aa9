/**
 * Checksums with the IPv6 pseudo-header (RFC 8200, 8.1), after sys/netinet6/in6_cksum.c, and the
 * software form of the NIC's checksum offload (in6_delayed_cksum, sys/netinet6/ip6_output.c). The
 * pseudo-header contains addresses without their zone.
 */

import { KASSERT } from '../sys/kassert.ts';
import { CSUM_UDP_IPV6, type Mbuf, M_NOMAP, mtod } from '../kern/mbuf.ts';
import { memView } from '../vm/arena.ts';
import { in_cksum_skip, loadField, storeSum } from '../netinet/in_cksum.ts';
import { IP6_DST_OFF, IP6_SRC_OFF } from './ip6.ts';
import { in6HasZone } from './scope6.ts';

/** Folds `n`, below 2^53, to 16 bits by adding the carries. */
function fold(n: number): number {
  while (n > 0xffff) n = (n % 0x10000) + Math.floor(n / 0x10000);
  return n;
}

/** The sum of the halves of an address without its zone. */
function halves(w0: number, w1: number, w2: number, w3: number): number {
  const first = (w0 >>> 16) + (in6HasZone(w0) ? 0 : w0 & 0xffff);
  const rest = (w1 >>> 16) + (w1 & 0xffff) + (w2 >>> 16) + (w2 & 0xffff);
  return first + rest + (w3 >>> 16) + (w3 & 0xffff);
}

/** The folded, not complemented sum of two addresses and the number `c`. */
export function in6Pseudo(
  l0: number,
  l1: number,
  l2: number,
  l3: number,
  f0: number,
  f1: number,
  f2: number,
  f3: number,
  c: number,
): number {
  return fold(halves(l0, l1, l2, l3) + halves(f0, f1, f2, f3) + c);
}

function halvesAt(p: number): number {
  return halves(
    memView.getInt32(p),
    memView.getInt32(p + 4),
    memView.getInt32(p + 8),
    memView.getInt32(p + 12),
  );
}

/**
 * The checksum field of the `len` bytes from offset `off` of the packet `m`, which starts at its IPv6
 * header, with the pseudo-header for `nxt`; 0 if they contain a correct checksum. Panics on unmapped
 * mbufs. @see sys/netinet6/in6_cksum.c
 */
export function in6_cksum(m: Mbuf, nxt: number, off: number, len: number): number {
  const p = mtod(m);
  const data = in_cksum_skip(m, off + len, off) ^ 0xffff;
  const pseudo = halvesAt(p + IP6_SRC_OFF) + halvesAt(p + IP6_DST_OFF) + len + nxt;
  return ~fold(data + pseudo) & 0xffff;
}

/**
 * Computes in software a TCP or UDP checksum that was delayed for the NIC (CSUM_DELAY_DATA_IPV6), and
 * stores it. Before the call the field contains the pseudo-header sum. The transport header starts at
 * offset `off` of `m`; it and its data have `plen` bytes. The caller keeps `m`. Panics on unmapped
 * payload: the caller must convert it first. @see sys/netinet6/ip6_output.c
 */
export function in6_delayed_cksum(m: Mbuf, plen: number, off: number): void {
  KASSERT((m.m_flags & M_NOMAP) === 0, 'in6_delayed_cksum: unmapped mbuf');
  const udp = (m.m_pkthdr.csum_flags & CSUM_UDP_IPV6) !== 0;
  const len = udp ? loadField(m, off + 4) : plen;
  let csum = in_cksum_skip(m, off + len, off);
  // RFC 8200, 8.1: UDP sends a computed 0 as all ones.
  if (udp && csum === 0) csum = 0xffff;
  storeSum(m, off + m.m_pkthdr.csum_data, csum);
}
