/**
 * The lists of router discovery, after nd_defrouter and nd_prefix of sys/netinet6/nd6.h: default
 * routers, prefixes, and the timer of their lifetimes. nd6_rtr.ts, nd6_prefix.ts and nd6_timer.ts
 * change them. This file imports no code of neighbour discovery, so that the neighbour cache can
 * report changes of routers without a cycle of imports. A library: the neighbour cache uses it.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import type { Task } from '../sys/clock.ts';
import { Callout, callout_pending, callout_reset, nowNs } from '../kern/kern_timeout.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { NeighborCache } from '../net/neighbor_cache.ts';
import { type In6Addrlifetime, ND6_INFINITE_LIFETIME } from './in6_var.ts';
import { V_nd6 } from './nd6_var.ts';

// NdDefrouter.raflags: RFC 4861, 4.2, and RFC 4191, 2.2.
export const ND_RA_FLAG_MANAGED = 0x80;
export const ND_RA_FLAG_OTHER = 0x40;
export const ND_RA_FLAG_RTPREF_MASK = 0x18;
export const ND_RA_FLAG_RTPREF_HIGH = 0x08;
export const ND_RA_FLAG_RTPREF_LOW = 0x18;

// NdPrefix.ndpr_stateflags
/** The route to the prefix is installed. */
export const NDPRF_ONLINK = 0x1;
/** No router that is reachable advertises the prefix, but others are reachable. */
export const NDPRF_DETACHED = 0x2;

const SEC = 1e9;

/** A default router. @see sys/netinet6/nd6.h */
export class NdDefrouter {
  /** Its link-local address, with the zone. */
  readonly rtaddr: NetAddr;
  readonly ifp: Ifnet;
  /** ND_RA_FLAG_*. */
  raflags = 0;
  /** Seconds, as advertised. */
  rtlifetime = 0;
  /** When the router expires, ns since boot. */
  expire = 0;
  /** Whether the default route leads to it. */
  installed = false;

  constructor(ifp: Ifnet, rtaddr: AddrWords) {
    const own = new NetAddr();
    own.setFrom(rtaddr);
    this.rtaddr = own;
    this.ifp = ifp;
  }
}

/** A prefix of an interface: that of an address, or advertised by routers. @see sys/netinet6/nd6.h */
export class NdPrefix {
  readonly ndpr_ifp: Ifnet;
  /** The bits after the prefix are 0. */
  readonly ndpr_prefix: AddrWords;
  readonly ndpr_plen: number;
  /** Lifetimes in seconds from `ndpr_lastupdate` (ns since boot) on. */
  ndpr_vltime = ND6_INFINITE_LIFETIME;
  ndpr_pltime = ND6_INFINITE_LIFETIME;
  ndpr_lastupdate = 0;
  /** The flags L and A of the option. Once set, they stay set. */
  ndpr_raf_onlink = false;
  ndpr_raf_auto = false;
  /** NDPRF_*. */
  ndpr_stateflags = 0;
  /** Addresses of the interface with this prefix. */
  ndpr_addrcnt = 0;
  /** Ours: whether a router advertised it; false: it belongs to a configured address only. */
  learned = false;
  /** The default routers that advertise it. */
  readonly ndpr_advrtrs: NdDefrouter[] = [];

  constructor(ifp: Ifnet, prefix: AddrWords, plen: number) {
    this.ndpr_ifp = ifp;
    this.ndpr_prefix = prefix;
    this.ndpr_plen = plen;
  }

  /** Sets the lifetimes, which start now. */
  setLifetime({ vltime, pltime }: In6Addrlifetime): void {
    this.ndpr_vltime = vltime;
    this.ndpr_pltime = pltime;
    this.ndpr_lastupdate = nowNs();
  }

  /** When the prefix expires, ns since boot; Infinity: never. */
  get expireNs(): number {
    if (this.ndpr_vltime === ND6_INFINITE_LIFETIME) return Infinity;
    return this.ndpr_lastupdate + this.ndpr_vltime * SEC;
  }
}

/** What router discovery does when something below it changes. nd6_rtr.ts sets it. */
interface Nd6RtrEvents {
  /** The state of the neighbour entry of a router on `ifp` changed, or the entry was removed. */
  reachability(ifp: Ifnet): void;
  /** The neighbour `addr` is no longer a router. */
  lost(ifp: Ifnet, addr: AddrWords): boolean;
  /** An address of `ifp`, and the routes with it, were removed. */
  addressGone(ifp: Ifnet): void;
  /** The time of `nd6TimerAt` has come. */
  timer(): void;
}

/** Router discovery of one stack. */
class Nd6RtrVnet implements Task {
  /** In descending order of preference, then in the order of arrival. @see sys/netinet6/nd6_rtr.c */
  readonly nd_defrouter: NdDefrouter[] = [];
  readonly nd_prefix: NdPrefix[] = [];
  /** The default interface of `ndp -I`, or null. */
  nd6_defifp: Ifnet | null = null;
  /** Null before IPv6 is attached. */
  events: Nd6RtrEvents | null = null;
  /** The timer of the next change of a router, prefix, address or server. */
  readonly timer = new Callout(this);

  run(): void {
    this.events?.timer();
  }
}

export const V_nd6rtr = VNET_DEFINE(() => new Nd6RtrVnet());

/**
 * Makes the timer run at `ns` or before. With net.inet6.icmp6.nd6_prune above 1 a time to come is the next
 * multiple of so many seconds.
 */
export function nd6TimerAt(vnet: Vnet, ns: number): void {
  const { timer } = V_nd6rtr(vnet);
  const period = V_nd6(vnet).params.nd6_prune * SEC;
  const at = period <= SEC || ns <= nowNs() ? ns : Math.ceil(ns / period) * period;
  if (at === Infinity || (callout_pending(timer) && timer.c_time <= at)) return;
  callout_reset(timer, Math.max(0, at - nowNs()));
}

/** Reports that a neighbour that is a router has become reachable or unreachable, or was removed. */
export function nd6RouterChanged(ifp: Ifnet): void {
  V_nd6rtr(ifp.if_vnet).events?.reachability(ifp);
}

/** Reports that the neighbour `addr` is no longer a router. Returns whether it was a default router. */
export function nd6RouterLost(ifp: Ifnet, addr: AddrWords): boolean {
  return V_nd6rtr(ifp.if_vnet).events?.lost(ifp, addr) ?? false;
}

/**
 * When the default router `addr` of `ifp` expires, ns since boot; 0: it is not a default router. Its
 * neighbour entry is kept until then.
 */
export function nd6RouterExpiry(ifp: Ifnet, addr: AddrWords): number {
  const { nd_defrouter } = V_nd6rtr(ifp.if_vnet);
  for (let i = 0; i < nd_defrouter.length; i++) {
    const dr = nd_defrouter[i]!;
    if (dr.ifp === ifp && dr.rtaddr.equals(addr)) return dr.expire;
  }
  return 0;
}

/**
 * Whether a router is reachable, or probably: its neighbour entry has an address.
 * @see sys/netinet6/nd6.h, ND6_IS_LLINFO_PROBREACH
 */
export function routerReachable(dr: NdDefrouter): boolean {
  const cache = dr.ifp.if_afdata[AF_INET6] ?? null;
  if (!(cache instanceof NeighborCache)) return false;
  const lle = cache.table.find(dr.rtaddr);
  return lle !== null && lle.ln_state > 0;
}
