/**
 * The Internet checksum over mbuf chains, after sys/netinet/in_cksum.c (RFC 1071), and the software
 * form of the NIC's checksum offload (in_delayed_cksum, sys/netinet/ip_output.c). The inner loop is
 * the machine's CksumKernel. Left out: SCTP's CRC32c.
 */

import type { CksumKernel } from '../sys/cksum.ts';
import { KASSERT } from '../sys/kassert.ts';
import type { InAddr } from '../sys/types.ts';
import { countMappedRead } from '../kern/m_copydata.ts';
import { CSUM_UDP, type Mbuf, M_NOMAP, mtod } from '../kern/mbuf.ts';
import { mem, memView } from '../vm/arena.ts';
import { payloadReason, READ_CHECKSUM } from '../vm/payload.ts';
import { Ip } from './ip.ts';

let kernel: CksumKernel | null = null;
const $ip = new Ip();

/** Sets the machine's checksum loop. Called at boot. */
export function in_cksumInit(k: CksumKernel): void {
  kernel = k;
}

/** Folds `n`, below 2^53, to 16 bits by adding the carries. */
function fold(n: number): number {
  while (n > 0xffff) n = (n % 0x10000) + Math.floor(n / 0x10000);
  return n;
}

/**
 * The one's complement sum, folded but not complemented, of bytes [skip, len) of the chain. Panics
 * if the chain is too short or the data is unmapped (it has no address).
 */
function sumChain(m: Mbuf | null, len: number, skip: number): number {
  KASSERT(kernel !== null, 'in_cksum: no checksum kernel: in_cksumInit comes first');
  KASSERT(skip >= 0 && skip <= len, 'in_cksum: skip');
  len -= skip;
  while (m !== null && skip >= m.m_len) {
    skip -= m.m_len;
    m = m.m_next;
  }
  const before = payloadReason(READ_CHECKSUM);
  let sum = 0;
  let odd = false;
  for (; len > 0; m = m.m_next, skip = 0) {
    KASSERT(m !== null, 'in_cksum: chain too short');
    KASSERT((m.m_flags & M_NOMAP) === 0, 'in_cksum: unmapped mbuf');
    const n = Math.min(m.m_len - skip, len);
    if (n === 0) continue;
    countMappedRead(m, n);
    const part = kernel.sum(mtod(m) + skip, n, 0);
    // After an odd number of bytes, swap the bytes of the partial sum: RFC 1071, 2 (B).
    sum += odd ? ((part & 0xff) << 8) | (part >>> 8) : part;
    if ((n & 1) === 1) odd = !odd;
    len -= n;
  }
  payloadReason(before);
  return fold(sum);
}

/**
 * The checksum field (complemented sum) of bytes [skip, len) of the chain.
 * @see sys/netinet/in_cksum.c
 */
export function in_cksum_skip(m: Mbuf, len: number, skip: number): number {
  return ~sumChain(m, len, skip) & 0xffff;
}

/**
 * The checksum field of the first `len` bytes of the chain; 0 if they contain a correct checksum.
 * Panics on unmapped mbufs.
 * @see sys/netinet/in_cksum.c
 */
export function in_cksum(m: Mbuf, len: number): number {
  return ~sumChain(m, len, 0) & 0xffff;
}

/**
 * The checksum field of the IP header of `hlen` bytes at the start of `m`; 0 if it contains a
 * correct checksum. Panics if the header is not contiguous or unmapped.
 * @see sys/netinet/in_cksum.c
 */
export function in_cksum_hdr(m: Mbuf, hlen: number): number {
  KASSERT((m.m_flags & M_NOMAP) === 0, 'in_cksum_hdr: unmapped mbuf');
  KASSERT(m.m_len >= hlen, 'in_cksum_hdr: header not contiguous');
  const p = mtod(m);
  let sum = 0;
  for (let i = 0; i < hlen; i += 2) sum += memView.getUint16(p + i);
  return ~fold(sum) & 0xffff;
}

/**
 * The pseudo-header sum: folded one's complement sum of two addresses and `c`, a number up to 2^32.
 * TCP and UDP pass length + protocol and store the result as the NIC's starting value.
 * @see sys/netinet/in_cksum.c
 */
export function in_pseudo(a: InAddr, b: InAddr, c: number): number {
  return fold((a >>> 16) + (a & 0xffff) + (b >>> 16) + (b & 0xffff) + c);
}

/** Writes a 16-bit field at offset `off` of the chain. The field must be mapped and writable. */
export function storeSum(m: Mbuf, off: number, sum: number): void {
  let at: Mbuf | null = m;
  for (let i = 0; i < 2; i++) {
    while (at !== null && off >= at.m_len) {
      off -= at.m_len;
      at = at.m_next;
    }
    KASSERT(at !== null, 'in_delayed_cksum: field beyond the chain');
    mem[mtod(at) + off] = i === 0 ? sum >>> 8 : sum & 0xff;
    off++;
  }
}

/** Reads a 16-bit field at offset `off` of the chain. Panics if it is unmapped. */
export function loadField(m: Mbuf, off: number): number {
  let at: Mbuf | null = m;
  let v = 0;
  for (let i = 0; i < 2; i++) {
    while (at !== null && off >= at.m_len) {
      off -= at.m_len;
      at = at.m_next;
    }
    KASSERT(at !== null, 'in_delayed_cksum: header beyond the chain');
    KASSERT((at.m_flags & M_NOMAP) === 0, 'in_delayed_cksum: unmapped mbuf');
    v = (v << 8) | mem[mtod(at) + off]!;
    off++;
  }
  return v;
}

/**
 * Computes in software a TCP or UDP checksum that was delayed for the NIC (CSUM_DELAY_DATA), and
 * stores it. Before the call the field contains the pseudo-header sum. `m` starts with its IP
 * header; the caller keeps it. Panics on unmapped payload: the caller must convert it first.
 * @see sys/netinet/ip_output.c
 */
export function in_delayed_cksum(m: Mbuf): void {
  KASSERT((m.m_flags & M_NOMAP) === 0, 'in_delayed_cksum: unmapped mbuf');
  $ip.at(mtod(m));
  const offset = $ip.ip_hl << 2;
  const udp = (m.m_pkthdr.csum_flags & CSUM_UDP) !== 0;
  const end = udp ? offset + loadField(m, offset + 4) : $ip.ip_len;
  let csum = in_cksum_skip(m, end, offset);
  // RFC 768: 0 means no checksum, so a computed 0 is sent as all ones.
  if (udp && csum === 0) csum = 0xffff;
  storeSum(m, offset + m.m_pkthdr.csum_data, csum);
}
