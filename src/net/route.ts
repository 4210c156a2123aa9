/**
 * Routing tables, after sys/net/route.c and route/nhop.c: one table per address family and stack,
 * searched by longest prefix match. A table has one hash table per prefix length in use, so a
 * look-up takes as many steps as there are different lengths, whatever the number of routes. Each
 * family wraps these functions: in_fib.ts, in6_fib.ts. Left out: the routing socket, multiple tables of
 * one family (fibs), multipath, metrics other than the MTU.
 */

import { addrMasked, type AddrWords, NetAddr } from '../sys/addr.ts';
import { EADDRINUSE, EEXIST, ENETUNREACH, ENOBUFS, type Errno, ESRCH } from '../sys/errno.ts';
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

/**
 * The most routes of a table. Unlike FreeBSD, which has no limit: what a peer or a program adds
 * must not use up the memory.
 */
export const RIB_ROUTES_MAX = 65536;

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
  /**
   * When the route expires, ns of the machine's clock, for output; 0: never. Its owner removes it.
   */
  readonly nh_expire: number;

  /** `gateway` is copied; null: the destination is on the link. RTF_GATEWAY is set accordingly. */
  constructor(
    ifp: Ifnet,
    ifa: Ifaddr,
    gateway: AddrWords | null,
    flags: number,
    mtu: number,
    expireNs = 0,
  ) {
    this.nh_ifp = ifp;
    this.nh_ifa = ifa;
    this.nh_gateway = gateway === null ? new NetAddr() : copied(gateway);
    this.nh_flags = gateway === null ? flags & ~RTF_GATEWAY : flags | RTF_GATEWAY;
    this.mtu = mtu;
    this.nh_expire = expireNs;
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

/** A route and the next one in its hash chain. */
class Rtentry implements RtEntry {
  readonly rt_dst: NetAddr;
  readonly rt_mask: AddrWords;
  readonly rt_prefixlen: number;
  rt_nhop: Nhop;
  next: Rtentry | null = null;

  constructor(dst: NetAddr, mask: AddrWords, prefixlen: number, nh: Nhop) {
    this.rt_dst = dst;
    this.rt_mask = mask;
    this.rt_prefixlen = prefixlen;
    this.rt_nhop = nh;
  }
}

/** Mixes the words of a network address. */
function hashOf(w0: number, w1: number, w2: number, w3: number): number {
  const h = Math.imul(Math.imul(w0 ^ (w0 >>> 15), 0x85ebca6b) ^ w1, 0xc2b2ae35);
  const g = Math.imul(Math.imul(h ^ (h >>> 13) ^ w2, 0x27d4eb2f) ^ w3, 0x165667b1);
  return g ^ (g >>> 16);
}

const BUCKETS_MIN = 8;

/** The routes of one prefix length. */
class RibLevel {
  readonly prefixlen: number;
  readonly mask: NetAddr;
  /** In the order of insertion. */
  readonly routes = new Set<Rtentry>();
  /** Heads of the hash chains; the number is a power of two. */
  #buckets: (Rtentry | null)[] = Array.from({ length: BUCKETS_MIN }, () => null);

  constructor(prefixlen: number) {
    this.prefixlen = prefixlen;
    this.mask = addrMasked(ALL_ONES, prefixlen);
  }

  /** The route to the network of exactly these words, already masked; null: there is no such route. */
  find(w0: number, w1: number, w2: number, w3: number): Rtentry | null {
    const buckets = this.#buckets;
    let rt: Rtentry | null = buckets[hashOf(w0, w1, w2, w3) & (buckets.length - 1)]!;
    for (; rt !== null; rt = rt.next) {
      const { rt_dst: dst } = rt;
      if (dst.w0 === w0 && dst.w1 === w1 && dst.w2 === w2 && dst.w3 === w3) return rt;
    }
    return null;
  }

  insert(rt: Rtentry): void {
    this.routes.add(rt);
    if (this.routes.size > this.#buckets.length) this.#grow();
    else this.#link(rt);
  }

  remove(rt: Rtentry): void {
    this.routes.delete(rt);
    const buckets = this.#buckets;
    const at = this.#bucket(rt);
    let prev: Rtentry = buckets[at]!;
    if (prev === rt) {
      buckets[at] = rt.next;
      return;
    }
    while (prev.next !== rt) prev = prev.next!;
    prev.next = rt.next;
  }

  #bucket({ rt_dst: { w0, w1, w2, w3 } }: Rtentry): number {
    return hashOf(w0, w1, w2, w3) & (this.#buckets.length - 1);
  }

  #link(rt: Rtentry): void {
    const at = this.#bucket(rt);
    rt.next = this.#buckets[at]!;
    this.#buckets[at] = rt;
  }

  #grow(): void {
    this.#buckets = Array.from({ length: this.#buckets.length * 4 }, () => null);
    for (const rt of this.routes) this.#link(rt);
  }
}

/** The table of one family. @see sys/net/route/route_var.h */
class RibHead {
  /** One level per prefix length in use, longest first. */
  readonly levels: RibLevel[] = [];
  /** Number of routes. */
  size = 0;
  /**
   * The generation: changes with every change of the table, so that caches are invalidated. Never
   * 0.
   */
  rnh_gen = 1;

  /** All routes, longest prefix first, then in the order of insertion. Allocates: not per packet. */
  get entries(): RtEntry[] {
    return this.levels.flatMap((level) => [...level.routes]);
  }

  /** The level of a prefix length; null: no route has it. */
  level(prefixlen: number): RibLevel | null {
    return this.levels.find((one) => one.prefixlen === prefixlen) ?? null;
  }

  remove(level: RibLevel, rt: Rtentry): void {
    level.remove(rt);
    this.size--;
    if (level.routes.size === 0) this.levels.splice(this.levels.indexOf(level), 1);
  }
}

const V_rt_tables = VNET_DEFINE(() => ({
  heads: Array.from({ length: AF_MAX }, (): RibHead | null => null),
}));

/** The table of a family, created at its first use. @see sys/net/route.c */
export function rt_tables_get_rnh(vnet: Vnet, family: number): RibHead {
  const { heads } = V_rt_tables(vnet);
  return heads[family] ?? (heads[family] = new RibHead());
}

const ALL_ONES: AddrWords = { w0: -1, w1: -1, w2: -1, w3: -1 };

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
  const { levels } = rh;
  for (let i = 0; i < levels.length; i++) {
    const level = levels[i]!;
    const { mask } = level;
    const rt = level.find(w0 & mask.w0, w1 & mask.w1, w2 & mask.w2, w3 & mask.w3);
    // Unlike FreeBSD, which removes the routes of an interface that goes down: skip them.
    if (rt !== null && (rt.rt_nhop.nh_ifp.if_flags & IFF_UP) !== 0) return rt.rt_nhop;
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

function rtFind(rh: RibHead, dst: AddrWords, prefixlen: number): Rtentry | null {
  const level = rh.level(prefixlen);
  if (level === null) return null;
  const { mask: m } = level;
  return level.find(dst.w0 & m.w0, dst.w1 & m.w1, dst.w2 & m.w2, dst.w3 & m.w3);
}

/** The route to exactly this prefix, or null. @see sys/net/route/route_rtentry.c */
export function rib_lookup_prefix(rh: RibHead, dst: AddrWords, prefixlen: number): RtEntry | null {
  return rtFind(rh, dst, prefixlen);
}

/**
 * The route that a packet to `dst` takes, for output; null: no route whose interface is up.
 * `ribLookup` is the same for packets.
 */
export function ribMatch(rh: RibHead, dst: AddrWords): RtEntry | null {
  for (const { prefixlen } of rh.levels) {
    const rt = rtFind(rh, dst, prefixlen);
    if (rt !== null && (rt.rt_nhop.nh_ifp.if_flags & IFF_UP) !== 0) return rt;
  }
  return null;
}

/**
 * Adds a route. Takes ownership of `nh` and copies `dst`. EEXIST: a route to this prefix exists.
 * ENOBUFS: the table has RIB_ROUTES_MAX routes.
 * @see sys/net/route/route_ctl.c
 */
export function rib_add_route(rh: RibHead, dst: AddrWords, prefixlen: number, nh: Nhop): Errno {
  if (rtFind(rh, dst, prefixlen) !== null) return EEXIST;
  if (rh.size >= RIB_ROUTES_MAX) return ENOBUFS;
  let level = rh.level(prefixlen);
  if (level === null) {
    level = new RibLevel(prefixlen);
    const at = rh.levels.findIndex((one) => one.prefixlen < prefixlen);
    rh.levels.splice(at < 0 ? rh.levels.length : at, 0, level);
  }
  level.insert(new Rtentry(addrMasked(dst, prefixlen), level.mask, prefixlen, nh));
  rh.size++;
  rh.rnh_gen++;
  return 0;
}

/**
 * Replaces the next hop of the route to exactly this prefix. ESRCH: no such route. EADDRINUSE: the
 * route belongs to an interface address.
 * @see sys/net/route/route_ctl.c
 */
export function rib_change_route(rh: RibHead, dst: AddrWords, prefixlen: number, nh: Nhop): Errno {
  const rt = rtFind(rh, dst, prefixlen);
  if (rt === null) return ESRCH;
  if ((rt.rt_nhop.nh_flags & RTF_PINNED) !== 0) return EADDRINUSE;
  rt.rt_nhop = nh;
  rh.rnh_gen++;
  return 0;
}

/**
 * The next hop of a static route by `gateway`. `on`: only by this interface; null: by any. Null: the
 * gateway is not on a connected network.
 */
export function nhopVia(
  rh: RibHead,
  gateway: AddrWords,
  flags: number,
  mtu: number,
  on: Ifnet | null = null,
): Nhop | null {
  const via = ribLookup(rh, gateway.w0, gateway.w1, gateway.w2, gateway.w3);
  if (via === null || (via.nh_flags & RTF_GATEWAY) !== 0) return null;
  if ((via.nh_ifp.if_flags & IFF_LOOPBACK) !== 0) return null;
  if (on !== null && via.nh_ifp !== on) return null;
  return new Nhop(via.nh_ifp, via.nh_ifa, gateway, RTF_UP | RTF_STATIC | flags, mtu);
}

/**
 * Adds a static route by a gateway. `mtu` 0: use the MTU of the interface. `host`: the prefix is a
 * whole address. ENETUNREACH: the gateway is not on a connected network. EEXIST: a route to this
 * prefix exists. ENOBUFS: the table is full. @see route(8)
 */
export function rtAddGateway(
  rh: RibHead,
  dst: AddrWords,
  prefixlen: number,
  gateway: AddrWords,
  mtu: number,
  host: boolean,
): Errno {
  const nh = nhopVia(rh, gateway, host ? RTF_HOST : 0, mtu);
  return nh === null ? ENETUNREACH : rib_add_route(rh, dst, prefixlen, nh);
}

/** Removes the route to exactly this prefix. ESRCH: no such route. @see route(8) */
export function rib_del_route(rh: RibHead, dst: AddrWords, prefixlen: number): Errno {
  const rt = rtFind(rh, dst, prefixlen);
  if (rt === null) return ESRCH;
  rh.remove(rh.level(prefixlen)!, rt);
  rh.rnh_gen++;
  return 0;
}

/** Removes all routes of a table for which `which` is true. Returns them, longest prefix first. */
export function ribRemoveWhere(rh: RibHead, which: (rt: RtEntry) => boolean): RtEntry[] {
  const removed: RtEntry[] = [];
  for (const level of rh.levels.slice())
    for (const rt of level.routes) {
      if (!which(rt)) continue;
      rh.remove(level, rt);
      removed.push(rt);
    }
  if (removed.length > 0) rh.rnh_gen++;
  return removed;
}

/** Removes all routes of all families with the address `ifa`; null: with the interface `ifp`. */
export function rtFlush(vnet: Vnet, ifp: Ifnet, ifa: Ifaddr | null): void {
  for (const rh of V_rt_tables(vnet).heads) {
    if (rh === null) continue;
    ribRemoveWhere(rh, ({ rt_nhop: nh }) => (ifa === null ? nh.nh_ifp === ifp : nh.nh_ifa === ifa));
  }
}
