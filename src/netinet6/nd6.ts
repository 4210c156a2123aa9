/**
 * The neighbour cache, after sys/netinet6/nd6.c (RFC 4861, 7.2 and 7.3): resolution with held packets
 * and neighbour unreachability detection.
 *
 * States of an entry: INCOMPLETE (solicitations to the group) -> REACHABLE -> STALE -> PROBE
 * (solicitations to the neighbour, nd6_delay seconds after the first packet in STALE) -> removed. An
 * entry that is resolved by an unsolicited message while packets wait enters DELAY instead of STALE.
 * As on FreeBSD a packet in STALE does not change the state; the timer does.
 */

import { CAPTURE_IF, CAPTURE_OUT } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { ENOBUFS, type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import {
  count,
  R_ND6_EVICTED,
  R_ND6_HOLD_FULL,
  R_ND6_NOT_NEIGHBOR,
  R_ND6_TABLE_FULL,
  R_ND6_TIMEOUT,
} from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import { type Mbuf, M_MCAST, mtod } from '../kern/mbuf.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ETHERTYPE_IPV6 } from '../net/ethernet.ts';
import { loopCopy } from '../net/if_loop.ts';
import { type Llentry, LLE_IFADDR, LLE_PUB, LLE_STATIC, LLE_VALID } from '../net/if_llatbl.ts';
import {
  ETHER_ADDR_LEN,
  type Ifnet,
  type LinkAddr,
  type LinkResolver,
  type OutputDst,
} from '../net/if_var.ts';
import { NeighborCache } from '../net/neighbor_cache.ts';
import { RTF_GATEWAY } from '../net/route.ts';
import { redirectRoutes } from '../net/route_redirect.ts';
import type { InConninfo } from '../netinet/in_pcb.ts';
import { V_tcp } from '../netinet/tcp_var.ts';
import {
  ICMP6_DST_UNREACH,
  ICMP6_DST_UNREACH_ADDR,
  ND_NEIGHBOR_SOLICIT,
  ND_REDIRECT,
  ND_ROUTER_ADVERT,
  ND_ROUTER_SOLICIT,
} from './icmp6.ts';
import { icmp6_error } from './icmp6_error.ts';
import {
  IN6_ADDR_BITS,
  in6Get,
  IN6_IS_ADDR_LINKLOCAL,
  IN6_IS_ADDR_UNSPECIFIED,
  in6SolicitedNode,
} from './in6.ts';
import { fib6_lookup } from './in6_fib.ts';
import { ETHER_MAP_IPV6_MULTICAST, in6_joingroup, in6_leavegroup } from './in6_mcast.ts';
import {
  in6Enabled,
  IN6_IFF_AUTOCONF,
  in6Ifextra,
  type In6Ifaddr,
  in6IfaForPeer,
  in6ifa_ifpwithaddr,
  ND6_IFF_PERFORMNUD,
} from './in6_var.ts';
import { IP6_DST_OFF, IP6_SRC_OFF } from './ip6.ts';
import { nd6_ns_output } from './nd6_output.ts';
import { nd6RouterChanged, nd6RouterExpiry, nd6RouterLost } from './nd6_rtr_var.ts';
import {
  ND6_LLINFO_DELAY,
  ND6_LLINFO_INCOMPLETE,
  ND6_LLINFO_NOSTATE,
  ND6_LLINFO_PROBE,
  ND6_LLINFO_REACHABLE,
  ND6_LLINFO_STALE,
  nd6CurrentReachable,
  V_nd6,
} from './nd6_var.ts';
import { in6_getscope, in6_setscope, in6SetscopeAt } from './scope6.ts';

const MS = 1e6;
const SEC = 1e9;

const group: LinkAddr = { ll_addr: new Uint8Array(ETHER_ADDR_LEN) };
const $src = new NetAddr();
const $group = new NetAddr();

/** Sets `$src` to the source of the held packet `m`, with its zone. */
function sourceOf(m: Mbuf, ifp: Ifnet): void {
  in6Get(mtod(m) + IP6_SRC_OFF, $src);
  in6_setscope($src, ifp);
}

/** Whether the prefix of an address of `ifp`, or a route, says that `a` is on its link. */
function onLink(ifp: Ifnet, a: AddrWords): boolean {
  const ia = in6IfaForPeer(ifp, a);
  // The prefix of a router advertisement is on the link only if its flag L says so: then it has a route.
  if (ia !== null && (ia.ia6_flags & IN6_IFF_AUTOCONF) === 0) return true;
  const nh = fib6_lookup(ifp.if_vnet, a);
  return nh !== null && nh.nh_ifp === ifp && (nh.nh_flags & RTF_GATEWAY) === 0;
}

/**
 * Whether `a`, which contains its zone, is a neighbour on `ifp`: by prefix, route or cache.
 * @see sys/netinet6/nd6.c
 */
export function nd6_is_addr_neighbor(ifp: Ifnet, a: AddrWords): boolean {
  if (IN6_IS_ADDR_LINKLOCAL(a)) return in6_getscope(a) === ifp.if_index;
  return onLink(ifp, a) || (nd6Table(ifp)?.find(a) ?? null) !== null;
}

const REASONS = { timeout: R_ND6_TIMEOUT, evicted: R_ND6_EVICTED, holdFull: R_ND6_HOLD_FULL };

/** The neighbours of one interface. */
export class Nd6Table extends NeighborCache implements LinkResolver {
  readonly ethertype = ETHERTYPE_IPV6;
  resolved: LinkAddr = group;

  constructor(ifp: Ifnet) {
    super(ifp, REASONS);
  }

  /** Protects default routers: without its entry a router counts as unreachable. */
  protected override mayEvict(lle: Llentry): boolean {
    return !lle.ln_router || nd6RouterExpiry(lle.lle_ifp, lle.r_l3addr) === 0;
  }

  /** The entry of `addr`, or null. */
  find(addr: AddrWords): Llentry | null {
    return this.table.find(addr);
  }

  /** Answers solicitations for `lle` from now on; until it is removed. */
  publish(lle: Llentry): void {
    lle.la_flags |= LLE_PUB;
    in6SolicitedNode(lle.r_l3addr, $group);
    in6_joingroup(lle.lle_ifp, $group);
  }

  override remove(lle: Llentry): number {
    if ((lle.la_flags & LLE_PUB) !== 0) {
      in6SolicitedNode(lle.r_l3addr, $group);
      in6_leavegroup(lle.lle_ifp, $group);
    }
    return super.remove(lle);
  }

  /** Creates an entry; null if the table is full of static entries. */
  create(addr: AddrWords): Llentry | null {
    const lle = this.add(addr);
    if (lle !== null) lle.ln_state = ND6_LLINFO_NOSTATE;
    return lle;
  }

  /** Resolves a next hop for ether_output; errnos: see LinkResolver. @see sys/netinet6/nd6.c */
  resolve(ifp: Ifnet, m: Mbuf, dst: OutputDst): Errno {
    if ((m.m_flags & M_MCAST) !== 0) {
      ETHER_MAP_IPV6_MULTICAST(dst, group.ll_addr);
      this.resolved = group;
      return 0;
    }
    const lle = this.table.find(dst);
    if (lle !== null && (lle.la_flags & LLE_VALID) !== 0) {
      if (!lle.used && this.#hit(ifp, m, lle)) return EWOULDBLOCK;
      lle.recent = true;
      this.resolved = lle;
      return 0;
    }
    return this.#ask(ifp, m, dst, lle);
  }

  /**
   * The first packet to a neighbour in its state: a stale one is probed after nd6_delay seconds. A packet
   * to our own address, for which there is no route by lo0, is looped: then takes `m` and returns true.
   */
  #hit(ifp: Ifnet, m: Mbuf, lle: Llentry): boolean {
    if ((lle.la_flags & LLE_IFADDR) !== 0) {
      loopCopy(ifp, m, AF_INET6);
      return true;
    }
    lle.used = true;
    if (lle.ln_state === ND6_LLINFO_STALE)
      callout_reset(lle.lle_timer, V_nd6(ifp.if_vnet).params.nd6_delay * SEC);
    return false;
  }

  /**
   * Holds `m` and solicits its next hop, unless a solicitation is under way. Takes `m`. ENOBUFS: `dst`
   * is not a neighbour, or there is no place for its entry.
   */
  #ask(ifp: Ifnet, m: Mbuf, dst: OutputDst, found: Llentry | null): Errno {
    const neighbor = found !== null || (in6Enabled(ifp) && nd6_is_addr_neighbor(ifp, dst));
    const lle = found ?? (neighbor ? this.create(dst) : null);
    if (lle === null) {
      const why = neighbor ? R_ND6_TABLE_FULL : R_ND6_NOT_NEIGHBOR;
      countDrop(m, why, CAPTURE_IF, CAPTURE_OUT, ifp);
      m_freem(m);
      return ENOBUFS;
    }
    // The first packet's source is also that of the solicitation: RFC 4861, 7.2.2.
    sourceOf(m, ifp);
    const { nd6_maxqueuelen } = V_nd6(ifp.if_vnet).params;
    if (!this.hold(lle, m, nd6_maxqueuelen)) count(R_ND6_HOLD_FULL);
    if (lle.la_asked === 0) {
      this.setState(lle, ND6_LLINFO_INCOMPLETE);
      this.#solicit(lle, $src, null);
    }
    return EWOULDBLOCK;
  }

  /**
   * Sends a solicitation for `lle`. `saddr`: the source of the packet that caused it. `lladdr`: to the
   * neighbour itself; null: to its group.
   */
  #solicit(lle: Llentry, saddr: AddrWords | null, lladdr: Uint8Array | null): void {
    const ifp = lle.lle_ifp;
    lle.la_asked++;
    const delay = in6Ifextra(ifp)!.nd_ifinfo.retrans * MS;
    lle.la_expire = nowNs() + delay;
    callout_reset(lle.lle_timer, delay);
    const own = saddr !== null && in6ifa_ifpwithaddr(ifp, saddr) !== null ? saddr : null;
    nd6_ns_output(ifp, own, lladdr, lle.r_l3addr);
  }

  /** Moves an entry to `state` and starts the timer of that state. @see sys/netinet6/nd6.c */
  setState(lle: Llentry, state: number): void {
    const ifp = lle.lle_ifp;
    const nd = in6Ifextra(ifp)!.nd_ifinfo;
    const { nd6_delay, nd6_gctimer } = V_nd6(ifp.if_vnet).params;
    /** ns; negative: no timer. */
    let delay = -1;
    lle.ln_state = state;
    switch (state) {
      case ND6_LLINFO_INCOMPLETE:
        delay = nd.retrans * MS;
        break;
      case ND6_LLINFO_REACHABLE:
        delay = nd6CurrentReachable(ifp.if_vnet, nd) * MS;
        break;
      case ND6_LLINFO_STALE:
        lle.used = false;
        if (nd6_gctimer > 0) delay = nd6_gctimer * SEC;
        break;
      case ND6_LLINFO_DELAY:
        lle.la_asked = 0;
        delay = nd6_delay * SEC;
        break;
      default:
    }
    lle.la_expire = delay < 0 ? 0 : nowNs() + delay;
    if (delay < 0) callout_stop(lle.lle_timer);
    else callout_reset(lle.lle_timer, delay);
  }

  /** Sets the address of an entry to `lladdr` (6 bytes) and its state, and sends the held packets. */
  learned(lle: Llentry, lladdr: Uint8Array, state: number): void {
    this.resolveEntry(lle, lladdr);
    this.setState(lle, state);
    this.flushHeld(lle);
  }

  /** Sends the packets that a valid entry holds: they count as the first packets in STALE. */
  flushHeld(lle: Llentry): void {
    if (lle.la_numheld === 0) return;
    if (lle.ln_state === ND6_LLINFO_STALE) this.setState(lle, ND6_LLINFO_DELAY);
    this.sendHeld(lle);
  }

  /** The entry's timer. @see sys/netinet6/nd6.c (there nd6_llinfo_timer) */
  lleTimeout(lle: Llentry): void {
    if ((lle.la_flags & LLE_STATIC) !== 0) return;
    const { nd6_umaxtries, nd6_mmaxtries } = V_nd6(lle.lle_ifp.if_vnet).params;
    switch (lle.ln_state) {
      case ND6_LLINFO_INCOMPLETE:
        if (lle.la_asked >= nd6_mmaxtries) return this.#unresolved(lle);
        if (lle.la_hold !== null) sourceOf(lle.la_hold, lle.lle_ifp);
        return this.#solicit(lle, lle.la_hold === null ? null : $src, null);
      case ND6_LLINFO_REACHABLE:
        return this.setState(lle, ND6_LLINFO_STALE);
      case ND6_LLINFO_STALE:
        return lle.used ? this.#startProbe(lle) : this.#collect(lle);
      case ND6_LLINFO_DELAY:
        return this.#startProbe(lle);
      case ND6_LLINFO_PROBE:
        if (lle.la_asked >= nd6_umaxtries) return this.free(lle);
        return this.#solicit(lle, null, lle.ll_addr);
      default:
    }
  }

  /** The delay after the first packet has passed without a sign of the neighbour. */
  #startProbe(lle: Llentry): void {
    const { flags } = in6Ifextra(lle.lle_ifp)!.nd_ifinfo;
    if ((flags & ND6_IFF_PERFORMNUD) === 0) return this.setState(lle, ND6_LLINFO_STALE);
    lle.la_asked = 0;
    lle.ln_state = ND6_LLINFO_PROBE;
    this.#solicit(lle, null, lle.ll_addr);
  }

  /** Removes an unused entry after nd6_gctimer; keeps that of a default router while it is one. */
  #collect(lle: Llentry): void {
    const { params } = V_nd6(lle.lle_ifp.if_vnet);
    const expiry = nd6RouterExpiry(lle.lle_ifp, lle.r_l3addr);
    if (expiry === 0) return this.free(lle);
    const left = expiry - nowNs();
    const delay = left > 0 ? left : Math.max(params.nd6_gctimer, 1) * SEC;
    lle.la_expire = nowNs() + delay;
    callout_reset(lle.lle_timer, delay);
  }

  /** No reply to the solicitations: removes the entry and reports the first held packet. */
  #unresolved(lle: Llentry): void {
    const ifp = lle.lle_ifp;
    this.countHeld(lle, R_ND6_TIMEOUT);
    // FreeBSD reports only the first packet that waited.
    const m = lle.unhold();
    if (m !== null) this.held--;
    this.free(lle);
    if (m === null) return;
    m.m_pkthdr.rcvif = ifp;
    // ip6_output has removed the zones.
    in6SetscopeAt(mtod(m) + IP6_SRC_OFF, ifp);
    in6SetscopeAt(mtod(m) + IP6_DST_OFF, ifp);
    icmp6_error(m, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADDR, 0, ifp.if_vnet);
  }

  /**
   * Removes an entry whose neighbour does not answer, with the routes of redirects by it, so that the
   * next packet takes another way (RFC 4861, 7.3.3). @see sys/netinet6/nd6.c (there nd6_free)
   */
  free(lle: Llentry): void {
    const ifp = lle.lle_ifp;
    const router = lle.ln_router || nd6RouterExpiry(ifp, lle.r_l3addr) !== 0;
    this.remove(lle);
    redirectRoutes(ifp.if_vnet, AF_INET6, IN6_ADDR_BITS).flush(ifp, lle.r_l3addr);
    if (router) nd6RouterChanged(ifp);
  }

  /** The neighbour of an entry is no longer a router: routes by it end. */
  notRouter(lle: Llentry): void {
    const ifp = lle.lle_ifp;
    nd6RouterLost(ifp, lle.r_l3addr);
    redirectRoutes(ifp.if_vnet, AF_INET6, IN6_ADDR_BITS).flush(ifp, lle.r_l3addr);
  }
}

/** The neighbours of an interface; null if it has no neighbour discovery. */
export function nd6Table(ifp: Ifnet): Nd6Table | null {
  const resolver = ifp.if_afdata[AF_INET6]!;
  return resolver instanceof Nd6Table ? resolver : null;
}

/**
 * A protocol above IPv6 made progress with the host `inc.inc_f*`: its neighbour is reachable. An entry
 * accepts nd6_maxnudhint of these hints until the next solicited advertisement. FreeBSD removed the
 * function in version 13, but not the sysctl. @see sys/netinet6/nd6.c of 12
 */
function nd6_nud_hint(vnet: Vnet, inc: InConninfo): void {
  if (inc.inc_family !== AF_INET6) return;
  const nh = fib6_lookup(vnet, inc.faddrTo($src));
  const hop = nh !== null && (nh.nh_flags & RTF_GATEWAY) !== 0 ? nh.nh_gateway : $src;
  const nd = nh === null ? null : nd6Table(nh.nh_ifp);
  const lle = nd?.find(hop) ?? null;
  if (nd === null || lle === null || (lle.la_flags & (LLE_VALID | LLE_STATIC)) !== LLE_VALID)
    return;
  const { reachable } = in6Ifextra(lle.lle_ifp)!.nd_ifinfo;
  // Only the end of the reachable time needs the hint.
  const fresh = lle.la_expire - nowNs() > (reachable * MS) / 2;
  if (lle.ln_state === ND6_LLINFO_REACHABLE && fresh) return;
  if (lle.ln_byhint >= V_nd6(vnet).params.nd6_maxnudhint) return;
  lle.ln_byhint++;
  nd.setState(lle, ND6_LLINFO_REACHABLE);
}

/** Sets net.inet6.icmp6.nd6_maxnudhint. With 0 TCP gives no hints. */
export function nd6SetMaxnudhint(vnet: Vnet, max: number): void {
  V_nd6(vnet).params.nd6_maxnudhint = max;
  V_tcp(vnet).nudHint = max > 0 ? (inc): void => nd6_nud_hint(vnet, inc) : null;
}

/** Adds the permanent entry of our own address `ia`. @see sys/netinet6/nd6.c */
export function nd6_add_ifa_lle(ia: In6Ifaddr): void {
  const nd = nd6Table(ia.ifa_ifp);
  if (nd === null) return;
  const old = nd.find(ia.ifa_addr);
  if (old !== null) nd.remove(old);
  const lle = nd.create(ia.ifa_addr);
  if (lle === null) return;
  lle.setAddr(ia.ifa_ifp.if_lladdr);
  lle.ln_state = ND6_LLINFO_REACHABLE;
  nd.keep(lle, LLE_VALID | LLE_STATIC | LLE_IFADDR);
}

/** Removes the entry of our own address `ia`. @see sys/netinet6/nd6.c */
export function nd6_rem_ifa_lle(ia: In6Ifaddr): void {
  const nd = nd6Table(ia.ifa_ifp);
  const lle = nd?.find(ia.ifa_addr) ?? null;
  if (nd !== null && lle !== null) nd.remove(lle);
}

/** The new value of ln_router after a message: RFC 4861, Appendix D. @see sys/netinet6/nd6.c */
function nd6_is_router(
  type: number,
  toRouter: boolean,
  isNew: boolean,
  hasLladdr: boolean,
  router: boolean,
): boolean {
  switch (type) {
    case ND_NEIGHBOR_SOLICIT:
      return router && !isNew;
    case ND_REDIRECT:
      return toRouter || (router && !isNew);
    case ND_ROUTER_SOLICIT:
      return false;
    case ND_ROUTER_ADVERT:
      return router || hasLladdr;
    default:
      return router;
  }
}

/**
 * Records what a message of `type` (solicitation of a neighbour or router, router advertisement,
 * redirect) says about the neighbour `from`: its link-level address `lladdr` (6 bytes), null: the
 * message has none. A new or changed entry becomes STALE. `toRouter`: the redirect is to a router.
 * @see sys/netinet6/nd6.c
 */
export function nd6_cache_lladdr(
  ifp: Ifnet,
  from: AddrWords,
  lladdr: Uint8Array | null,
  type: number,
  toRouter = false,
): void {
  const nd = nd6Table(ifp);
  if (nd === null || IN6_IS_ADDR_UNSPECIFIED(from)) return;
  const found = nd.find(from);
  // Unlike FreeBSD: without an address no entry is created, because it would contain nothing.
  const lle = found ?? (lladdr === null ? null : nd.create(from));
  if (lle === null || (lle.la_flags & LLE_STATIC) !== 0) return;
  const had = (lle.la_flags & LLE_VALID) !== 0;
  const changed = lladdr !== null && !(had && sameLladdr(lle.ll_addr, lladdr));
  const has = had || lladdr !== null;
  lle.ln_router = nd6_is_router(type, toRouter, found === null, has, lle.ln_router);
  if (!changed) return;
  nd.learned(lle, lladdr, ND6_LLINFO_STALE);
  if (lle.ln_router) nd6RouterChanged(ifp);
}

/** Whether two link-level addresses are equal. */
export function sameLladdr(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < ETHER_ADDR_LEN; i++) if (a[i] !== b[i]) return false;
  return true;
}
