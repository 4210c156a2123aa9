/**
 * Interface identifiers, the lower 64 bits of an address, after sys/netinet6/in6_ifattach.c: from the
 * Ethernet address (EUI-64: RFC 4291, Appendix A), stable ones that differ per prefix (RFC 7217),
 * and random ones of temporary addresses (RFC 8981). Left out: identifiers of other media.
 *
 * Unlike FreeBSD 14: temporary identifiers are random (RFC 8981, 3.3.1), not hashes of the previous one.
 */

import type { AddrWords, NetAddr } from '../sys/addr.ts';
import { hmacSha256 } from '../sys/sha256.ts';
import { hostuuid } from '../kern/kern_hostuuid.ts';
import { type Ifnet, IFT_ETHER } from '../net/if_var.ts';
import { in6Addr } from './in6.ts';
import { in6Ifextra, ND6_IFF_STABLEADDR } from './in6_var.ts';
import { V_ip6 } from './ip6_var.ts';

/** Universal/local bit of the first byte of an identifier. */
const EUI64_UBIT = 0x02;

// net.inet6.ip6.stableaddr_netifsource
export const STABLEADDR_NETIFSRC_NAME = 0;
const STABLEADDR_NETIFSRC_ID = 1;
export const STABLEADDR_NETIFSRC_MAC = 2;

/** Sets the identifier of `a`. */
function setIfid(a: NetAddr, hi: number, lo: number): void {
  a.w2 = hi | 0;
  a.w3 = lo | 0;
}

/** Whether an identifier is reserved: RFC 5453. `::`, 0:0:0:0 and the anycast addresses. */
function reserved(hi: number, lo: number): boolean {
  if ((hi | lo) === 0) return true;
  if (hi >>> 0 === 0x02005eff && lo >>> 24 === 0xfe) return true;
  return hi >>> 0 === 0xfdffffff && lo >>> 0 >= 0xffffff80;
}

/** Sets the identifier of `a` from the Ethernet address of `ifp`; 1 for an interface without one. */
export function hwIfid(ifp: Ifnet, a: NetAddr): void {
  if (ifp.if_type !== IFT_ETHER) return setIfid(a, 0, 1);
  const [b0, b1, b2, b3, b4, b5] = ifp.if_lladdr as unknown as number[];
  const hi = ((b0! ^ EUI64_UBIT) << 24) | (b1! << 16) | (b2! << 8) | 0xff;
  setIfid(a, hi, (0xfe << 24) | (b3! << 16) | (b4! << 8) | b5!);
}

/** What names the interface in RFC 7217, 5: Net_Iface. */
function netIface(ifp: Ifnet): Uint8Array {
  switch (V_ip6(ifp.if_vnet).params.stableaddr_netifsource) {
    case STABLEADDR_NETIFSRC_ID:
      return Uint8Array.of(ifp.if_index >>> 8, ifp.if_index & 0xff);
    case STABLEADDR_NETIFSRC_MAC:
      return ifp.if_lladdr;
    default:
      return new TextEncoder().encode(ifp.if_xname);
  }
}

/** Bytes of the words of `a` without its zone. */
function prefixBytes(a: AddrWords): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, a.w0 >>> 22 === 0x3fa ? a.w0 & ~0xffff : a.w0);
  view.setInt32(4, a.w1);
  return bytes;
}

/** Sets the identifier of `a` by RFC 7217, 5; `failures` is the counter of duplicates. */
function stableIfid(ifp: Ifnet, a: NetAddr, failures: number): void {
  const key = new TextEncoder().encode(hostuuid.value);
  const iface = netIface(ifp);
  for (let counter = failures; ; counter++) {
    const digest = hmacSha256(key, [iface, prefixBytes(a), Uint8Array.of(counter & 0xff)]);
    const view = new DataView(digest.buffer, digest.byteOffset);
    const [hi, lo] = [view.getUint32(0), view.getUint32(4)];
    if (!reserved(hi, lo)) return setIfid(a, hi, lo);
  }
}

/**
 * Sets the identifier of `a`, whose prefix is set: the one of a new address that is not temporary.
 * @see sys/netinet6/in6_ifattach.c
 */
export function in6_get_ifid(ifp: Ifnet, a: NetAddr): void {
  const ext = in6Ifextra(ifp);
  const stable = ext !== null && (ext.nd_ifinfo.flags & ND6_IFF_STABLEADDR) !== 0;
  if (stable && ifp.if_type === IFT_ETHER) stableIfid(ifp, a, ext.dadFailures);
  else hwIfid(ifp, a);
}

/** Whether the identifier of `addr` is a stable one of `ifp`: of any number of duplicates so far. */
export function in6StableIfid(ifp: Ifnet, addr: AddrWords): boolean {
  const failures = in6Ifextra(ifp)?.dadFailures ?? 0;
  const a = in6Addr(addr.w0, addr.w1, 0, 0);
  for (let n = 0; n <= failures; n++) {
    stableIfid(ifp, a, n);
    if (a.equals(addr)) return true;
  }
  return false;
}

/** Sets a random identifier of a temporary address. @see sys/netinet6/in6_ifattach.c */
export function in6_get_tmpifid(ifp: Ifnet, a: NetAddr): void {
  const { prng } = ifp.if_vnet;
  for (;;) {
    const hi = prng.next32() & ~(EUI64_UBIT << 24);
    const lo = prng.next32();
    if (!reserved(hi, lo)) return setIfid(a, hi, lo);
  }
}

/** The link-local address of `ifp`, without its zone. */
export function linklocalOf(ifp: Ifnet): NetAddr {
  const a = in6Addr(0xfe800000, 0, 0, 0);
  in6_get_ifid(ifp, a);
  return a;
}
