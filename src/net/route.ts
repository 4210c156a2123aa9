/**
 * The forwarding table of a host, after sys/net/route.c, route/nhop.c and netinet/in_fib.c: connected
 * networks, host routes and a default, found by longest prefix. A host has a handful of routes, so
 * the table is an array in order of prefix length. Left out: the routing socket, multiple tables
 * (fibs), multipath, redirects, metrics.
 */

import { EEXIST, ENETUNREACH, type Errno, ESRCH } from '../sys/errno.ts';
import { inAddr, type InAddr } from '../sys/types.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { IFF_LOOPBACK, IFF_UP, type Ifnet, type InIfaddr } from './if_var.ts';

// rt_flags, as `netstat -r` prints them: U G H S
export const RTF_UP = 0x1;
export const RTF_GATEWAY = 0x2;
export const RTF_HOST = 0x4;
export const RTF_STATIC = 0x800;
/** Pinned: belongs to an interface address and goes with it. */
export const RTF_PINNED = 0x100000;

/** A next hop: everything ip_output needs to know of a route. Never changed after it was made. */
export class Nhop {
  readonly nh_ifp: Ifnet;
  /** The interface's address to send from. */
  readonly nh_ifa: InIfaddr;
  /** The router, or 0.0.0.0 if the destination is on the link. */
  readonly nh_gateway: InAddr;
  /** RTF_*. */
  readonly nh_flags: number;
  /** MTU of this route in bytes; 0 is the interface's. */
  readonly mtu: number;

  constructor(ifp: Ifnet, ifa: InIfaddr, gateway: InAddr, flags: number, mtu: number) {
    this.nh_ifp = ifp;
    this.nh_ifa = ifa;
    this.nh_gateway = gateway;
    this.nh_flags = flags;
    this.mtu = mtu;
  }

  /** Bytes of the largest IP packet this hop takes whole: the interface's MTU or the route's if less. */
  get nh_mtu(): number {
    const ifMtu = this.nh_ifp.if_mtu;
    return this.mtu !== 0 && this.mtu < ifMtu ? this.mtu : ifMtu;
  }
}

/**
 * A cached lookup, kept beside a connection: `ip_output` fills it and asks again when the table
 * changed or another destination is sent to. A fresh one is empty.
 */
export class Route {
  ro_nh: Nhop | null = null;
  /** The address looked up, as signed bits. */
  ro_dst = 0;
  /** The table's generation that `ro_nh` is of. */
  ro_gen = 0;
}

/** One entry: destination prefix and next hop. */
export interface RtEntry {
  readonly rt_dst: InAddr;
  readonly rt_mask: InAddr;
  readonly rt_prefixlen: number;
  readonly rt_nhop: Nhop;
}

class RibHead {
  /** By prefix length, longest first; among equals in the order they came. */
  readonly entries: RtEntry[] = [];
  /** Changes with every change of the table; cached lookups compare it. Never 0. */
  rnh_gen = 1;
}

const V_rib = VNET_DEFINE(() => new RibHead());

function masked(addr: InAddr, mask: InAddr): InAddr {
  return inAddr(addr & mask);
}

function maskOf(prefixlen: number): InAddr {
  return inAddr(prefixlen === 0 ? 0 : (-1 << (32 - prefixlen)) >>> 0);
}

/** Makes every cached lookup ask again, after something a next hop depends on changed. */
export function ribTouch(vnet: Vnet): void {
  V_rib(vnet).rnh_gen++;
}

/**
 * The next hop for `dst` by longest prefix, or null: no route, or its interface is down. Takes
 * `dst | 0` as well, the small integer that per-packet code passes because it costs no allocation.
 * @see fib(4), sys/netinet/in_fib.c
 */
export function fib4_lookup(vnet: Vnet, dst: InAddr): Nhop | null {
  const entries = V_rib(vnet).entries;
  for (let i = 0; i < entries.length; i++) {
    const rt = entries[i]!;
    if ((dst & rt.rt_mask) !== (rt.rt_dst | 0)) continue; // as bits: nothing is boxed
    const ifp = rt.rt_nhop.nh_ifp;
    // Unlike FreeBSD, which takes an interface's routes out when it goes down, they are skipped.
    if ((ifp.if_flags & IFF_UP) !== 0) return rt.rt_nhop;
  }
  return null;
}

/**
 * Fills `ro` for the address with the bits `dst` unless it is already; returns its next hop or null.
 * Bits, signed as `|` makes them, because an unsigned address is a number on the heap where V8 does
 * not inline this.
 */
export function routeLookup(vnet: Vnet, ro: Route, dst: number): Nhop | null {
  const gen = V_rib(vnet).rnh_gen;
  if (ro.ro_nh !== null && ro.ro_dst === dst && ro.ro_gen === gen) return ro.ro_nh;
  ro.ro_nh = fib4_lookup(vnet, dst as InAddr);
  ro.ro_dst = dst;
  ro.ro_gen = gen;
  return ro.ro_nh;
}

/**
 * Adds a route; EEXIST if there is one to exactly this prefix. Takes over `nh`.
 * @see sys/net/route/route_ctl.c
 */
export function rib_add_route(vnet: Vnet, dst: InAddr, prefixlen: number, nh: Nhop): Errno {
  const rib = V_rib(vnet);
  const mask = maskOf(prefixlen);
  const net = masked(dst, mask);
  let at = 0;
  for (; at < rib.entries.length; at++) {
    const rt = rib.entries[at]!;
    if (rt.rt_prefixlen < prefixlen) break;
    if (rt.rt_prefixlen === prefixlen && rt.rt_dst === net) return EEXIST;
  }
  rib.entries.splice(at, 0, {
    rt_dst: net,
    rt_mask: mask,
    rt_prefixlen: prefixlen,
    rt_nhop: nh,
  });
  rib.rnh_gen++;
  return 0;
}

/**
 * Adds a static route by a gateway, which must be on a connected network: else ENETUNREACH. EEXIST
 * as above. `mtu` 0 takes the interface's. @see route(8)
 */
export function rtAddGateway(
  vnet: Vnet,
  dst: InAddr,
  prefixlen: number,
  gateway: InAddr,
  mtu = 0,
): Errno {
  const via = fib4_lookup(vnet, gateway);
  if (via === null || (via.nh_flags & RTF_GATEWAY) !== 0) return ENETUNREACH;
  if ((via.nh_ifp.if_flags & IFF_LOOPBACK) !== 0) return ENETUNREACH;
  const flags = RTF_UP | RTF_GATEWAY | RTF_STATIC | (prefixlen === 32 ? RTF_HOST : 0);
  return rib_add_route(vnet, dst, prefixlen, new Nhop(via.nh_ifp, via.nh_ifa, gateway, flags, mtu));
}

/** Removes the route to exactly this prefix; ESRCH if there is none. @see route(8) */
export function rib_del_route(vnet: Vnet, dst: InAddr, prefixlen: number): Errno {
  const rib = V_rib(vnet);
  const net = masked(dst, maskOf(prefixlen));
  const at = rib.entries.findIndex((rt) => rt.rt_prefixlen === prefixlen && rt.rt_dst === net);
  if (at < 0) return ESRCH;
  rib.entries.splice(at, 1);
  rib.rnh_gen++;
  return 0;
}

/** Removes every route that sends from `ifa`, or through `ifp` if `ifa` is null. */
export function rtFlush(vnet: Vnet, ifp: Ifnet, ifa: InIfaddr | null): void {
  const rib = V_rib(vnet);
  for (let i = rib.entries.length - 1; i >= 0; i--) {
    const nh = rib.entries[i]!.rt_nhop;
    if (ifa === null ? nh.nh_ifp === ifp : nh.nh_ifa === ifa) rib.entries.splice(i, 1);
  }
  rib.rnh_gen++;
}

/** The table, longest prefix first, for `netstat -r`. */
export function ribEntries(vnet: Vnet): readonly RtEntry[] {
  return V_rib(vnet).entries;
}
