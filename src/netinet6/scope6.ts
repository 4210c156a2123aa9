/**
 * Zones of addresses, after sys/netinet6/scope6.c (RFC 4007). A link-local address and a group of
 * interface-local or link-local scope is unique only in its zone, which is an interface here. Inside
 * the stack the index of that interface stands in bytes 2 and 3 of the address, the lower half of the
 * first word, as on FreeBSD: so four words are enough in routes, PCBs and neighbour tables. On the
 * wire the field is 0: ip6_input sets it in the header and ip6_output clears it. Programs see the zone
 * in sin6_scope_id and in the text `fe80::1%tn0`. Left out: zones larger than an interface. A
 * library: not every function has a user.
 */

import type { AddrWords, NetAddr } from '../sys/addr.ts';
import { EADDRNOTAVAIL, ENXIO, type Errno } from '../sys/errno.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifnet_byindex, ifnetList, ifunit } from '../net/if.ts';
import { IFF_LOOPBACK, type Ifnet } from '../net/if_var.ts';
import { memView } from '../vm/arena.ts';
import { in6Ntop, parseIn6 } from './in6.ts';
import { V_ip6 } from './ip6_var.ts';
import { V_nd6rtr } from './nd6_rtr_var.ts';

const ZONE_MASK = 0xffff;

/**
 * Whether `w0` is the first word of an ordinary unicast address: neither of a zone nor of a group, and
 * neither unspecified, loopback nor IPv4-mapped. Most packets have two such addresses, for which one
 * test replaces all tests of scope. False does not mean the contrary.
 */
export function in6Ordinary(w0: number): boolean {
  return w0 !== 0 && w0 >>> 25 !== 0x7f;
}

/** Whether an address with the first word `w0` contains a zone. */
export function in6HasZone(w0: number): boolean {
  if (w0 >>> 25 !== 0x7f) return false;
  if (w0 >>> 22 === 0x3fa) return true;
  if (w0 >>> 24 !== 0xff) return false;
  const scope = (w0 >>> 16) & 0xf;
  return scope === 1 || scope === 2;
}

/** The zone in an address: the index of an interface, or 0. @see sys/netinet6/scope6.c */
export function in6_getscope(a: AddrWords): number {
  return in6HasZone(a.w0) ? a.w0 & ZONE_MASK : 0;
}

/** Sets the zone of `a` to `ifp`, if the address has one. @see sys/netinet6/scope6.c */
export function in6_setscope(a: NetAddr, ifp: Ifnet): void {
  if (in6HasZone(a.w0)) a.w0 = (a.w0 & ~ZONE_MASK) | ifp.if_index;
}

/** Removes the zone of `a`. @see sys/netinet6/scope6.c */
export function in6_clearscope(a: NetAddr): void {
  if (in6HasZone(a.w0)) a.w0 &= ~ZONE_MASK;
}

/** Sets the zone of the address at `p` in a packet. */
export function in6SetscopeAt(p: number, ifp: Ifnet): void {
  if (in6HasZone(memView.getInt32(p))) memView.setUint16(p + 2, ifp.if_index);
}

/** Removes the zone of the address at `p` in a packet. Returns whether it was not 0. */
export function in6ClearscopeAt(p: number): boolean {
  if (!in6HasZone(memView.getInt32(p)) || memView.getUint16(p + 2) === 0) return false;
  memView.setUint16(p + 2, 0);
  return true;
}

/** The interface with the index `zone`, or null. @see sys/netinet6/in6.c */
export function in6_getlinkifnet(vnet: Vnet, zone: number): Ifnet | null {
  return ifnet_byindex(vnet, zone);
}

/** The default interface of `ndp -I`, else the only one that is not a loopback; 0: neither. */
function defaultZone(vnet: Vnet): number {
  const { nd6_defifp } = V_nd6rtr(vnet);
  if (nd6_defifp !== null) return nd6_defifp.if_index;
  const links = ifnetList(vnet).filter((ifp) => (ifp.if_flags & IFF_LOOPBACK) === 0);
  return links.length === 1 ? links[0]!.if_index : 0;
}

/**
 * Moves the zone of a program's address from `scope_id` into the address words. ENXIO: no such
 * interface. EADDRNOTAVAIL: the words contain another zone. The call may be repeated.
 * @see sys/netinet6/scope6.c
 */
export function sa6_embedscope(vnet: Vnet, sa: Sockaddr): Errno {
  if (!in6HasZone(sa.w0)) return 0;
  let zone = sa.scope_id;
  if (zone === 0 && V_ip6(vnet).params.use_defaultzone) zone = defaultZone(vnet);
  if (zone === 0) return 0;
  if (in6_getlinkifnet(vnet, zone) === null) return ENXIO;
  const embedded = sa.w0 & ZONE_MASK;
  if (embedded !== 0 && embedded !== zone) return EADDRNOTAVAIL;
  sa.w0 |= zone;
  return 0;
}

/** Moves the zone from the address words to `scope_id`. @see sys/netinet6/scope6.c */
export function sa6_recoverscope(sa: Sockaddr): void {
  sa.scope_id = in6_getscope(sa);
  in6_clearscope(sa);
}

/**
 * Formats an address with its zone: `fe80::1%tn0`. For output and logs, not per packet.
 * @see sys/netinet6/in6.c
 */
export function ip6_sprintf(vnet: Vnet, a: AddrWords): string {
  const zone = in6_getscope(a);
  if (zone === 0) return in6Ntop(a);
  const ifp = in6_getlinkifnet(vnet, zone);
  const { w1, w2, w3 } = a;
  return `${in6Ntop({ w0: a.w0 & ~ZONE_MASK, w1, w2, w3 })}%${ifp === null ? zone : ifp.if_xname}`;
}

/** The interface of a zone in a text: its name or its index; null: not known. */
export function ifOfZone(vnet: Vnet, zone: string): Ifnet | null {
  return ifunit(vnet, zone) ?? (/^\d+$/.test(zone) ? ifnet_byindex(vnet, +zone) : null);
}

/**
 * Parses an address with an optional zone, an interface's name or index, and stores the zone in the
 * address. Null: bad text, an unknown interface, or a zone on an address that has none.
 */
export function parseIn6Zone(vnet: Vnet, text: string): NetAddr | null {
  const [addr, zone, more] = text.split('%') as [string, string?, string?];
  const a = parseIn6(addr);
  if (a === null || more !== undefined) return null;
  if (zone === undefined) return a;
  const ifp = ifOfZone(vnet, zone);
  if (ifp === null || !in6HasZone(a.w0)) return null;
  in6_setscope(a, ifp);
  return a;
}
