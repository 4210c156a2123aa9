/**
 * The neighbour cache, after sys/netinet6/nd6.c (RFC 4861, 7.2): resolution with held packets. Left
 * out so far: the states after REACHABLE (neighbour unreachability detection), routers and prefixes.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { EINVAL, ENOBUFS, type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import { count, R_ND6_EVICTED, R_ND6_HOLD_FULL, R_ND6_TIMEOUT } from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import { type Mbuf, M_MCAST, mtod } from '../kern/mbuf.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import { VNET_DEFINE } from '../kern/vnet.ts';
import { ETHERTYPE_IPV6 } from '../net/ethernet.ts';
import { Llentry, LLE_IFADDR, LLE_STATIC, LLE_VALID } from '../net/if_llatbl.ts';
import {
  ETHER_ADDR_LEN,
  type Ifnet,
  type LinkAddr,
  type LinkResolver,
  type OutputDst,
} from '../net/if_var.ts';
import { NeighborCache } from '../net/neighbor_cache.ts';
import { ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADDR } from './icmp6.ts';
import { icmp6_error } from './icmp6_error.ts';
import { in6Get } from './in6.ts';
import { ETHER_MAP_IPV6_MULTICAST } from './in6_mcast.ts';
import { in6Enabled, in6Ifextra, type In6Ifaddr, in6_localip } from './in6_var.ts';
import { IP6_DST_OFF, IP6_SRC_OFF } from './ip6.ts';
import { nd6_ns_output } from './nd6_output.ts';
import { in6_setscope, in6SetscopeAt } from './scope6.ts';

// Llentry.ln_state
const ND6_LLINFO_INCOMPLETE = 0;
export const ND6_LLINFO_REACHABLE = 1;
export const ND6_LLINFO_STALE = 2;

const MS = 1e6;
/** Settings of neighbour discovery under net.inet6.icmp6, with FreeBSD's defaults. */
class Nd6Params {
  /** Solicitations without a reply before an entry is removed. */
  nd6_mmaxtries = 3;
  nd6_umaxtries = 3;
  /** Packets held per entry. */
  nd6_maxqueuelen = 16;
}

export const V_nd6 = VNET_DEFINE(() => ({ params: new Nd6Params() }));

const group: LinkAddr = { ll_addr: new Uint8Array(ETHER_ADDR_LEN) };
const $src = new NetAddr();

/** Sets `$src` to the source of the held packet `m`, with its zone. */
function sourceOf(m: Mbuf, ifp: Ifnet): void {
  in6Get(mtod(m) + IP6_SRC_OFF, $src);
  in6_setscope($src, ifp);
}

const REASONS = { timeout: R_ND6_TIMEOUT, evicted: R_ND6_EVICTED, holdFull: R_ND6_HOLD_FULL };

/** The neighbours of one interface. */
export class Nd6Table extends NeighborCache implements LinkResolver {
  readonly ethertype = ETHERTYPE_IPV6;
  resolved: LinkAddr = group;

  constructor(ifp: Ifnet) {
    super(ifp, REASONS);
  }

  /** The entry of `addr`, or null. */
  find(addr: AddrWords): Llentry | null {
    return this.table.find(addr);
  }

  /** Creates an entry; null if the table is full of static entries. */
  create(addr: AddrWords): Llentry | null {
    const lle = this.add(addr);
    if (lle !== null) lle.ln_state = ND6_LLINFO_INCOMPLETE;
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
      lle.used = true;
      lle.recent = true;
      this.resolved = lle;
      return 0;
    }
    return this.#ask(ifp, m, dst, lle);
  }

  /** Holds `m` and solicits its next hop, unless a solicitation is under way. Takes `m`. */
  #ask(ifp: Ifnet, m: Mbuf, dst: OutputDst, found: Llentry | null): Errno {
    const lle = found ?? (in6Enabled(ifp) ? this.create(dst) : null);
    if (lle === null) {
      m_freem(m);
      count(R_ND6_TIMEOUT);
      return this.full ? ENOBUFS : EINVAL;
    }
    // The first packet's source is also that of the solicitation: RFC 4861, 7.2.2.
    sourceOf(m, ifp);
    const { nd6_maxqueuelen } = V_nd6(ifp.if_vnet).params;
    if (!this.hold(lle, m, nd6_maxqueuelen)) count(R_ND6_HOLD_FULL);
    if (lle.la_asked === 0) this.#solicit(lle);
    return EWOULDBLOCK;
  }

  /** Sends a solicitation for `lle`, whose first packet's source is `$src`. */
  #solicit(lle: Llentry): void {
    const ifp = lle.lle_ifp;
    lle.la_asked++;
    callout_reset(lle.lle_timer, in6Ifextra(ifp)!.nd_ifinfo.retrans * MS);
    const own = in6_localip(ifp.if_vnet, $src) ? $src : null;
    nd6_ns_output(ifp, own, null, lle.r_l3addr);
  }

  /** Sets the address of an entry to `lladdr` (6 bytes) and sends the held packets. */
  learned(lle: Llentry, lladdr: Uint8Array, state: number): void {
    this.resolveEntry(lle, lladdr);
    lle.ln_state = state;
    callout_stop(lle.lle_timer);
    this.sendHeld(lle);
  }

  /** The entry's timer: solicits again, or removes the entry and reports the held packets. */
  lleTimeout(lle: Llentry): void {
    if ((lle.la_flags & (LLE_STATIC | LLE_VALID)) !== 0) return;
    const ifp = lle.lle_ifp;
    const vnet = ifp.if_vnet;
    if (lle.la_asked < V_nd6(vnet).params.nd6_mmaxtries && lle.la_hold !== null) {
      sourceOf(lle.la_hold, ifp);
      this.#solicit(lle);
      return;
    }
    if (lle.la_numheld > 0) count(R_ND6_TIMEOUT, lle.la_numheld);
    // FreeBSD reports only the first packet that waited.
    const m = lle.unhold();
    if (m !== null) this.held--;
    this.remove(lle);
    if (m !== null) {
      m.m_pkthdr.rcvif = ifp;
      // ip6_output has removed the zones.
      in6SetscopeAt(mtod(m) + IP6_SRC_OFF, ifp);
      in6SetscopeAt(mtod(m) + IP6_DST_OFF, ifp);
      icmp6_error(m, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADDR, 0, vnet);
    }
  }
}

/** The neighbours of an interface; null if it has no neighbour discovery. */
export function nd6Table(ifp: Ifnet): Nd6Table | null {
  const resolver = ifp.if_afdata[AF_INET6]!;
  return resolver instanceof Nd6Table ? resolver : null;
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

/**
 * Records the link-level address (6 bytes) of the neighbour `from`, learned from a solicitation: a new
 * or changed entry becomes STALE. @see sys/netinet6/nd6.c
 */
export function nd6_cache_lladdr(ifp: Ifnet, from: AddrWords, lladdr: Uint8Array): void {
  const nd = nd6Table(ifp);
  const lle = nd === null ? null : (nd.find(from) ?? nd.create(from));
  if (nd === null || lle === null || (lle.la_flags & LLE_STATIC) !== 0) return;
  if ((lle.la_flags & LLE_VALID) !== 0 && sameLladdr(lle.ll_addr, lladdr)) return;
  nd.learned(lle, lladdr, ND6_LLINFO_STALE);
}

/** Whether two link-level addresses are equal. */
export function sameLladdr(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < ETHER_ADDR_LEN; i++) if (a[i] !== b[i]) return false;
  return true;
}
