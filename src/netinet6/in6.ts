/**
 * IPv6 addresses as four signed 32-bit words in host byte order, after sys/netinet6/in6.h and
 * inet_ntop(3). The words of an address with a zone contain the zone: see scope6.ts. Left out:
 * v4-compatible addresses, site-local addresses as a scope of their own. A library: not every predicate
 * has a user.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import type { Kva, Port } from '../sys/types.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import { Sockaddr, SOCKADDR_IN6_SIZE } from '../kern/sockaddr.ts';
import { memView } from '../vm/arena.ts';

/** Bits and bytes of an address. */
export const IN6_ADDR_BITS = 128;
export const IN6_ADDR_BYTES = 16;

// Scopes of RFC 4291, 2.7, and of RFC 6724, 3.1, for unicast addresses.
export const IPV6_ADDR_SCOPE_INTFACELOCAL = 0x1;
export const IPV6_ADDR_SCOPE_LINKLOCAL = 0x2;
const IPV6_ADDR_SCOPE_SITELOCAL = 0x5;
export const IPV6_ADDR_SCOPE_GLOBAL = 0xe;

/** Allocates an address; for configuration, not per packet. */
export function in6Addr(w0: number, w1: number, w2: number, w3: number): NetAddr {
  const a = new NetAddr();
  a.set(w0 | 0, w1 | 0, w2 | 0, w3 | 0);
  return a;
}

/** `::` */
export const in6addr_any: AddrWords = in6Addr(0, 0, 0, 0);
/** `::1` */
export const in6addr_loopback: AddrWords = in6Addr(0, 0, 0, 1);
/** `ff02::1`, without a zone. */
export const in6addr_linklocal_allnodes: AddrWords = in6Addr(0xff020000, 0, 0, 1);
/** `ff02::2`, without a zone. */
export const in6addr_linklocal_allrouters: AddrWords = in6Addr(0xff020000, 0, 0, 2);
/** `ff02::16`, without a zone: the routers that understand MLDv2. */
export const in6addr_linklocal_allv2routers: AddrWords = in6Addr(0xff020000, 0, 0, 0x16);
/** `ff01::1`, without a zone. */
export const in6addr_nodelocal_allnodes: AddrWords = in6Addr(0xff010000, 0, 0, 1);

/** `::` @see sys/netinet6/in6.h */
export function IN6_IS_ADDR_UNSPECIFIED(a: AddrWords): boolean {
  return (a.w0 | a.w1 | a.w2 | a.w3) === 0;
}

/** `::1` @see sys/netinet6/in6.h */
export function IN6_IS_ADDR_LOOPBACK(a: AddrWords): boolean {
  return (a.w0 | a.w1 | a.w2) === 0 && a.w3 === 1;
}

/** ff00::/8 @see sys/netinet6/in6.h */
export function IN6_IS_ADDR_MULTICAST(a: AddrWords): boolean {
  return a.w0 >>> 24 === 0xff;
}

/** fe80::/10 @see sys/netinet6/in6.h */
export function IN6_IS_ADDR_LINKLOCAL(a: AddrWords): boolean {
  return a.w0 >>> 22 === 0x3fa;
}

/** ::ffff:0:0/96: an IPv4 address. @see sys/netinet6/in6.h */
export function IN6_IS_ADDR_V4MAPPED(a: AddrWords): boolean {
  return (a.w0 | a.w1) === 0 && a.w2 === 0xffff;
}

/** The scope of a group: IPV6_ADDR_SCOPE_*. @see sys/netinet6/in6.h */
export function IPV6_ADDR_MC_SCOPE(a: AddrWords): number {
  return (a.w0 >>> 16) & 0xf;
}

/** ff01::/16 and other interface-local groups. @see sys/netinet6/in6.h */
export function IN6_IS_ADDR_MC_INTFACELOCAL(a: AddrWords): boolean {
  return IN6_IS_ADDR_MULTICAST(a) && IPV6_ADDR_MC_SCOPE(a) === IPV6_ADDR_SCOPE_INTFACELOCAL;
}

/** ff02::/16 and other link-local groups. @see sys/netinet6/in6.h */
export function IN6_IS_ADDR_MC_LINKLOCAL(a: AddrWords): boolean {
  return IN6_IS_ADDR_MULTICAST(a) && IPV6_ADDR_MC_SCOPE(a) === IPV6_ADDR_SCOPE_LINKLOCAL;
}

/** The scope of any address: IPV6_ADDR_SCOPE_*. @see sys/netinet6/scope6.c */
export function in6_addrscope(a: AddrWords): number {
  if (IN6_IS_ADDR_MULTICAST(a)) return IPV6_ADDR_MC_SCOPE(a);
  // RFC 6724, 3.1: the loopback address has link-local scope.
  if (IN6_IS_ADDR_LINKLOCAL(a) || IN6_IS_ADDR_LOOPBACK(a)) return IPV6_ADDR_SCOPE_LINKLOCAL;
  return a.w0 >>> 22 === 0x3fb ? IPV6_ADDR_SCOPE_SITELOCAL : IPV6_ADDR_SCOPE_GLOBAL;
}

/** Sets `a` to the solicited-node group of `addr`: RFC 4291, 2.7.1. The zone is not set. */
export function in6SolicitedNode(addr: AddrWords, a: NetAddr): void {
  a.set(0xff020000 | 0, 0, 1, 0xff000000 | (addr.w3 & 0xffffff));
}

/** The number of leading bits that `a` and `b` have in common. @see sys/netinet6/in6.c */
export function in6_matchlen(a: AddrWords, b: AddrWords): number {
  if (a.w0 !== b.w0) return Math.clz32(a.w0 ^ b.w0);
  if (a.w1 !== b.w1) return 32 + Math.clz32(a.w1 ^ b.w1);
  if (a.w2 !== b.w2) return 64 + Math.clz32(a.w2 ^ b.w2);
  return 96 + Math.clz32(a.w3 ^ b.w3);
}

/** Reads the 16 bytes at `p` into `a`, and returns it. */
export function in6Get<T extends NetAddr>(p: number, a: T): T {
  a.set(
    memView.getInt32(p),
    memView.getInt32(p + 4),
    memView.getInt32(p + 8),
    memView.getInt32(p + 12),
  );
  return a;
}

/** Writes `a` to the 16 bytes at `p`. */
export function in6Put(p: number, a: AddrWords): void {
  memView.setInt32(p, a.w0);
  memView.setInt32(p + 4, a.w1);
  memView.setInt32(p + 8, a.w2);
  memView.setInt32(p + 12, a.w3);
}

/** Whether the 16 bytes at `p` are the address `a`. */
export function in6At(p: Kva, a: AddrWords): boolean {
  return (
    memView.getInt32(p) === a.w0 &&
    memView.getInt32(p + 4) === a.w1 &&
    memView.getInt32(p + 8) === a.w2 &&
    memView.getInt32(p + 12) === a.w3
  );
}

/** Allocates a socket address of AF_INET6. `a` contains no zone: that is `scope_id`. */
export function in6Sockaddr(a: AddrWords, port: Port, scope_id = 0): Sockaddr {
  const sa = new Sockaddr();
  sa.len = SOCKADDR_IN6_SIZE;
  sa.family = AF_INET6;
  sa.port = port;
  sa.setFrom(a);
  sa.scope_id = scope_id;
  return sa;
}

/**
 * Formats an address without a zone: RFC 5952, as inet_ntop(3) does. For output and logs, not per
 * packet.
 */
export function in6Ntop(a: AddrWords): string {
  const words = [a.w0, a.w1, a.w2, a.w3];
  const groups = words.flatMap((w) => [w >>> 16, w & 0xffff]);
  let at = -1;
  let best = 1;
  for (let i = 0; i < 8; i++) {
    let n = 0;
    while (i + n < 8 && groups[i + n] === 0) n++;
    if (n > best) [at, best] = [i, n];
    i += n;
  }
  if (at === 0 && (best === 6 || (best === 5 && groups[5] === 0xffff))) {
    const v4 = `${a.w3 >>> 24}.${(a.w3 >>> 16) & 0xff}.${(a.w3 >>> 8) & 0xff}.${a.w3 & 0xff}`;
    return best === 6 ? `::${v4}` : `::ffff:${v4}`;
  }
  const hex = (part: number[]): string => part.map((g) => g.toString(16)).join(':');
  return at < 0 ? hex(groups) : `${hex(groups.slice(0, at))}::${hex(groups.slice(at + best))}`;
}

/** The bytes 12 to 15 of an address that ends with a dotted quad, as two groups; null: bad text. */
function quadGroups(text: string): string | null {
  const at = text.lastIndexOf(':') + 1;
  const found = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text.slice(at));
  if (found === null) return text.includes('.') ? null : text;
  const [b0, b1, b2, b3] = found.slice(1).map(Number) as [number, number, number, number];
  const bad = found.slice(1).some((d) => Number(d) > 255 || (d.length > 1 && d.startsWith('0')));
  if (bad) return null;
  const group = (hi: number, lo: number): string => ((hi << 8) | lo).toString(16);
  return `${text.slice(0, at)}${group(b0, b1)}:${group(b2, b3)}`;
}

/** Parses an address without a zone, as inet_pton(3) does; null for all other text. */
export function parseIn6(text: string): NetAddr | null {
  const whole = quadGroups(text);
  if (whole === null) return null;
  const halves = whole.split('::');
  if (halves.length > 2) return null;
  const [head, tail] = halves.map((half) => (half === '' ? [] : half.split(':'))) as [
    string[],
    string[] | undefined,
  ];
  const given = head.length + (tail?.length ?? 0);
  if (tail === undefined ? given !== 8 : given > 7) return null;
  const all = [...head, ...Array.from({ length: 8 - given }, () => '0'), ...(tail ?? [])];
  if (!all.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return null;
  const g = all.map((group) => Number.parseInt(group, 16));
  return in6Addr(
    (g[0]! << 16) | g[1]!,
    (g[2]! << 16) | g[3]!,
    (g[4]! << 16) | g[5]!,
    (g[6]! << 16) | g[7]!,
  );
}
