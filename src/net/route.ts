/**
 * Routing tables, after sys/net/route.c and route/nhop.c: one table per address family and stack,
 * searched by longest prefix match. A host has few routes, so a table is an array sorted by prefix
 * length. Each family wraps these functions, IPv4 in in_fib.ts. Left out: the routing socket,
 * multiple tables of one family (fibs), multipath, redirects, metrics.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { EEXIST, ENETUNREACH, type Errno, ESRCH } from '../sys/errno.ts';
import { AF_MAX } from '../kern/protosw.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { IFF_LOOPBACK, IFF_UP, type Ifaddr, type Ifnet } from './if_var.ts';

// rt_flags, as `netstat -r` prints them: U G H D S
export const RTF_UP = 0x1;
export const RTF_GATEWAY = 0x2;
export const RTF_HOST = 0x4;
/** Installed by a redirect. */
export const RTF_DYNAMIC = 0x10;
export const RTF_STATIC = 0x800;
/** Pinned: the route belongs to an interface address and is removed with it. */
export const RTF_PINNED = 0x100000;

function copied(a: AddrWords): NetAddr {
  const copy = new NetAddr();
  copy.setFrom(a);
  return copy;
}

/** A next hop: the data of a route that the output function of a family uses. Immutable. */
export class Nhop {
  readonly nh_ifp: Ifnet;
  /** The interface address that is the source of packets, of the table's family. */
  readonly nh_ifa: Ifaddr;
  /** The gateway; valid only with RTF_GATEWAY. */
  readonly nh_gateway: AddrWords;
  /** RTF_*. */
  readonly nh_flags: number;
  /** MTU of this route in bytes; 0: use the MTU of the interface. */
  readonly mtu: number;

  /** `gateway` is copied; null: the destination is on the link. RTF_GATEWAY is set accordingly. */
  constructor(ifp: Ifnet, ifa: Ifaddr, gateway: AddrWords | null, flags: number, mtu: number) {
    this.nh_ifp = ifp;
    this.nh_ifa = ifa;
    this.nh_gateway = gateway === null ? new NetAddr() : copied(gateway);
    this.nh_flags = gateway === null ? flags & ~RTF_GATEWAY : flags | RTF_GATEWAY;
    this.mtu = mtu;
  }

  /** The effective MTU in bytes: the smaller of the MTUs of the interface and the route. */
  get nh_mtu(): number {
    const ifMtu = this.nh_ifp.if_mtu;
    return this.mtu !== 0 && this.mtu < ifMtu ? this.mtu : ifMtu;
  }
}

/**
 * A cached look-up of one family, for example of a connection; empty at first. Another destination
 * or a change of the table invalidates it.
 */
export class Route {
  ro_nh: Nhop | null = null;
  /** The words of the destination address. */
  ro_dst0 = 0;
  ro_dst1 = 0;
  ro_dst2 = 0;
  ro_dst3 = 0;
  /** The generation of the table when `ro_nh` was looked up. */
  ro_gen = 0;
}

/** One route: destination prefix and next hop. */
export interface RtEntry {
  readonly rt_dst: AddrWords;
  readonly rt_mask: AddrWords;
  readonly rt_prefixlen: number;
  readonly rt_nhop: Nhop;
}

/** The table of one family. @see sys/net/route/route_var.h */
class RibHead {
  /** Sorted by prefix length, longest first, then by order of insertion. */
  readonly entries: RtEntry[] = [];
  /**
   * The generation: changes with every change of the table, so that caches are invalidated. Never
   * 0.
   */
  rnh_gen = 1;
}

const V_rt_tables = VNET_DEFINE(() => ({
  heads: Array.from({ length: AF_MAX }, (): RibHead | null => null),
}));

/** The table of a family, created at its first use. @see sys/net/route.c */
export function rt_tables_get_rnh(vnet: Vnet, family: number): RibHead {
  const { heads } = V_rt_tables(vnet);
  return heads[family] ?? (heads[family] = new RibHead());
}

/** A word of a prefix mask, with `left` mask bits remaining from this word on. */
function maskWord(left: number): number {
  return left <= 0 ? 0 : left >= 32 ? -1 : -1 << (32 - left);
}

function maskOf(prefixlen: number): NetAddr {
  const mask = new NetAddr();
  mask.set(
    maskWord(prefixlen),
    maskWord(prefixlen - 32),
    maskWord(prefixlen - 64),
    maskWord(prefixlen - 96),
  );
  return mask;
}

function masked(a: AddrWords, m: AddrWords): NetAddr {
  const net = new NetAddr();
  net.set(a.w0 & m.w0, a.w1 & m.w1, a.w2 & m.w2, a.w3 & m.w3);
  return net;
}

/** Invalidates all cached look-ups, after a change of something that look-ups depend on. */
export function ribTouch(vnet: Vnet): void {
  for (const rh of V_rt_tables(vnet).heads) if (rh !== null) rh.rnh_gen++;
}

/**
 * The next hop for the address of four words by longest prefix match. Null: no route whose
 * interface is up. @see fib(4)
 */
export function ribLookup(
  rh: RibHead,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): Nhop | null {
  const { entries } = rh;
  for (let i = 0; i < entries.length; i++) {
    const { rt_dst: dst, rt_mask: mask, rt_nhop } = entries[i]!;
    if ((w0 & mask.w0) !== dst.w0 || (w1 & mask.w1) !== dst.w1) continue;
    if ((w2 & mask.w2) !== dst.w2 || (w3 & mask.w3) !== dst.w3) continue;
    // Unlike FreeBSD, which removes the routes of an interface that goes down: skip them.
    if ((rt_nhop.nh_ifp.if_flags & IFF_UP) !== 0) return rt_nhop;
  }
  return null;
}

/** Like `ribLookup`, but reuses the next hop cached in `ro` if it is still valid. */
export function routeLookup(
  rh: RibHead,
  ro: Route,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): Nhop | null {
  if (
    ro.ro_nh !== null &&
    ro.ro_gen === rh.rnh_gen &&
    ro.ro_dst0 === w0 &&
    ro.ro_dst1 === w1 &&
    ro.ro_dst2 === w2 &&
    ro.ro_dst3 === w3
  )
    return ro.ro_nh;
  ro.ro_nh = ribLookup(rh, w0, w1, w2, w3);
  ro.ro_dst0 = w0;
  ro.ro_dst1 = w1;
  ro.ro_dst2 = w2;
  ro.ro_dst3 = w3;
  ro.ro_gen = rh.rnh_gen;
  return ro.ro_nh;
}

/**
 * Adds a route. Takes ownership of `nh` and copies `dst`. EEXIST: a route to this prefix exists.
 * @see sys/net/route/route_ctl.c
 */
export function rib_add_route(rh: RibHead, dst: AddrWords, prefixlen: number, nh: Nhop): Errno {
  const mask = maskOf(prefixlen);
  const net = masked(dst, mask);
  let at = 0;
  for (; at < rh.entries.length; at++) {
    const rt = rh.entries[at]!;
    if (rt.rt_prefixlen < prefixlen) break;
    if (rt.rt_prefixlen === prefixlen && net.equals(rt.rt_dst)) return EEXIST;
  }
  rh.entries.splice(at, 0, {
    rt_dst: net,
    rt_mask: mask,
    rt_prefixlen: prefixlen,
    rt_nhop: nh,
  });
  rh.rnh_gen++;
  return 0;
}

/**
 * Adds a static route by a gateway. `mtu` 0: use the MTU of the interface. `host`: the prefix is a
 * whole address. ENETUNREACH: the gateway is not on a connected network. EEXIST: a route to this
 * prefix exists. @see route(8)
 */
export function rtAddGateway(
  rh: RibHead,
  dst: AddrWords,
  prefixlen: number,
  gateway: AddrWords,
  mtu: number,
  host: boolean,
): Errno {
  const via = ribLookup(rh, gateway.w0, gateway.w1, gateway.w2, gateway.w3);
  if (via === null || (via.nh_flags & RTF_GATEWAY) !== 0) return ENETUNREACH;
  if ((via.nh_ifp.if_flags & IFF_LOOPBACK) !== 0) return ENETUNREACH;
  const flags = RTF_UP | RTF_GATEWAY | RTF_STATIC | (host ? RTF_HOST : 0);
  return rib_add_route(rh, dst, prefixlen, new Nhop(via.nh_ifp, via.nh_ifa, gateway, flags, mtu));
}

/** Removes the route to exactly this prefix. ESRCH: no such route. @see route(8) */
export function rib_del_route(rh: RibHead, dst: AddrWords, prefixlen: number): Errno {
  const net = masked(dst, maskOf(prefixlen));
  const at = rh.entries.findIndex((rt) => rt.rt_prefixlen === prefixlen && net.equals(rt.rt_dst));
  if (at < 0) return ESRCH;
  rh.entries.splice(at, 1);
  rh.rnh_gen++;
  return 0;
}

/** Removes all routes of all families with the address `ifa`; null: with the interface `ifp`. */
export function rtFlush(vnet: Vnet, ifp: Ifnet, ifa: Ifaddr | null): void {
  for (const rh of V_rt_tables(vnet).heads) {
    if (rh === null) continue;
    for (let i = rh.entries.length - 1; i >= 0; i--) {
      const nh = rh.entries[i]!.rt_nhop;
      if (ifa === null ? nh.nh_ifp === ifp : nh.nh_ifa === ifa) rh.entries.splice(i, 1);
    }
    rh.rnh_gen++;
  }
}
