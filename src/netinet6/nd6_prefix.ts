/**
 * The prefix list, after sys/netinet6/nd6_rtr.c: the routes to prefixes on the link, and which prefixes
 * are detached because no reachable router advertises them. Each address of an interface has a prefix
 * here, except those with a prefix length of 128.
 *
 * Unlike FreeBSD: a router that advertises the prefix of a configured address can neither detach nor
 * expire it, because the address needs its route.
 */

import { addrMasked, type AddrWords } from '../sys/addr.ts';
import { EEXIST, type Errno } from '../sys/errno.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { LLE_STATIC } from '../net/if_llatbl.ts';
import type { Ifnet } from '../net/if_var.ts';
import { Nhop, rib_lookup_prefix, RTF_PINNED, rt_tables_get_rnh, RTF_UP } from '../net/route.ts';
import { IN6_IS_ADDR_LINKLOCAL, in6_matchlen } from './in6.ts';
import { in6RouteAdd, in6RouteDel } from './in6_fib.ts';
import {
  IN6_IFF_ANYCAST,
  IN6_IFF_AUTOCONF,
  IN6_IFF_DETACHED,
  IN6_IFF_NOTREADY,
  IN6_IFF_TENTATIVE,
  type In6Addrlifetime,
  type In6Ifaddr,
  in6ifa_ifpforlinklocal,
  in6IfaForPeer,
  in6Ifaddrs,
  in6Ifextra,
  isIn6Ifaddr,
  ND6_IFF_NO_DAD,
} from './in6_var.ts';
import { nd6Table } from './nd6.ts';
import { nd6_dad_start } from './nd6_dad.ts';
import {
  NDPRF_DETACHED,
  NDPRF_ONLINK,
  NdPrefix,
  nd6TimerAt,
  routerReachable,
  V_nd6rtr,
} from './nd6_rtr_var.ts';

function samePrefix(pr: NdPrefix, addr: AddrWords, plen: number): boolean {
  return pr.ndpr_plen === plen && in6_matchlen(pr.ndpr_prefix, addr) >= plen;
}

/** The prefix of `ifp` with exactly this length that contains `addr`, or null. @see sys/netinet6/nd6_rtr.c */
export function nd6_prefix_lookup(ifp: Ifnet, addr: AddrWords, plen: number): NdPrefix | null {
  const { nd_prefix } = V_nd6rtr(ifp.if_vnet);
  return nd_prefix.find((pr) => pr.ndpr_ifp === ifp && samePrefix(pr, addr, plen)) ?? null;
}

/**
 * Adds a prefix, which must not be in the list, and its route if `onlink`.
 * @see sys/netinet6/nd6_rtr.c
 */
export function nd6_prelist_add(
  ifp: Ifnet,
  addr: AddrWords,
  plen: number,
  lifetime: In6Addrlifetime,
  onlink: boolean,
): NdPrefix {
  const pr = new NdPrefix(ifp, addrMasked(addr, plen), plen);
  pr.setLifetime(lifetime);
  pr.ndpr_raf_onlink = onlink;
  V_nd6rtr(ifp.if_vnet).nd_prefix.push(pr);
  if (onlink) nd6_prefix_onlink(pr);
  nd6TimerAt(ifp.if_vnet, pr.expireNs);
  return pr;
}

/** Removes a prefix and its route. Its addresses remain. @see sys/netinet6/nd6_rtr.c */
export function nd6_prefix_del(pr: NdPrefix): void {
  const { if_vnet } = pr.ndpr_ifp;
  const { nd_prefix } = V_nd6rtr(if_vnet);
  const at = nd_prefix.indexOf(pr);
  if (at < 0) return;
  nd_prefix.splice(at, 1);
  if ((pr.ndpr_stateflags & NDPRF_ONLINK) !== 0) nd6_prefix_offlink(pr);
  pr.ndpr_advrtrs.length = 0;
  pfxlist_onlink_check(if_vnet);
}

/** The route to the prefix, if it is by the interface of the prefix. */
function hasRoute(pr: NdPrefix): boolean {
  const rh = rt_tables_get_rnh(pr.ndpr_ifp.if_vnet, AF_INET6);
  const rt = rib_lookup_prefix(rh, pr.ndpr_prefix, pr.ndpr_plen);
  if (rt === null) return false;
  const { nh_ifp, nh_flags } = rt.rt_nhop;
  return nh_ifp === pr.ndpr_ifp && (nh_flags & RTF_PINNED) !== 0;
}

/** The address of the route to a prefix: one with the prefix, else the link-local one, else any. */
function routeAddr(pr: NdPrefix): In6Ifaddr | null {
  const ifp = pr.ndpr_ifp;
  return (
    in6IfaForPeer(ifp, pr.ndpr_prefix) ??
    in6ifa_ifpforlinklocal(ifp, IN6_IFF_NOTREADY | IN6_IFF_ANYCAST) ??
    ifp.if_addrhead.find(isIn6Ifaddr) ??
    null
  );
}

/**
 * Installs the route to a prefix. If another interface has one, the prefix gets its route when that one is
 * removed. EEXIST: the prefix has its route. Else the errno of the table.
 * @see sys/netinet6/nd6_rtr.c
 */
export function nd6_prefix_onlink(pr: NdPrefix): Errno {
  if ((pr.ndpr_stateflags & NDPRF_ONLINK) !== 0) return EEXIST;
  const { if_vnet: vnet } = pr.ndpr_ifp;
  const ifa = routeAddr(pr);
  if (ifa === null) return 0;
  const nh = new Nhop(pr.ndpr_ifp, ifa, null, RTF_UP | RTF_PINNED, 0);
  const error = in6RouteAdd(vnet, pr.ndpr_prefix, pr.ndpr_plen, nh);
  if (error === 0) pr.ndpr_stateflags |= NDPRF_ONLINK;
  return error === EEXIST ? 0 : error;
}

/** Removes the neighbours of a prefix that no longer is on the link. */
function forgetNeighbours(pr: NdPrefix): void {
  const nd = nd6Table(pr.ndpr_ifp);
  if (nd === null) return;
  for (const lle of nd.table.list())
    if ((lle.la_flags & LLE_STATIC) === 0 && samePrefix(pr, lle.r_l3addr, pr.ndpr_plen))
      nd.remove(lle);
}

/**
 * Removes the route to a prefix. Another interface with the same prefix then gets it.
 * @see sys/netinet6/nd6_rtr.c
 */
export function nd6_prefix_offlink(pr: NdPrefix): void {
  const { if_vnet: vnet } = pr.ndpr_ifp;
  if (hasRoute(pr)) in6RouteDel(vnet, pr.ndpr_prefix, pr.ndpr_plen);
  pr.ndpr_stateflags &= ~NDPRF_ONLINK;
  forgetNeighbours(pr);
  for (const other of V_nd6rtr(vnet).nd_prefix) {
    if (other === pr || (other.ndpr_stateflags & (NDPRF_ONLINK | NDPRF_DETACHED)) !== 0) continue;
    if (!other.ndpr_raf_onlink || !samePrefix(other, pr.ndpr_prefix, pr.ndpr_plen)) continue;
    nd6_prefix_onlink(other);
  }
}

/** Whether a configured address, not an advertised one, has the prefix. */
export function prefixConfigured(pr: NdPrefix): boolean {
  const { if_addrhead } = pr.ndpr_ifp;
  for (let i = 0; i < if_addrhead.length; i++) {
    const ia = if_addrhead[i]!;
    if (isIn6Ifaddr(ia) && ia.ia6_ndpr === pr && (ia.ia6_flags & IN6_IFF_AUTOCONF) === 0)
      return true;
  }
  return false;
}

/** Links a new address with its prefix, which is added if it is not in the list. */
export function in6PrefixAttach(ia: In6Ifaddr, lifetime: In6Addrlifetime): void {
  const { ifa_ifp: ifp, ifa_addr: addr, ia6_plen: plen } = ia;
  const configured = (ia.ia6_flags & IN6_IFF_AUTOCONF) === 0;
  let pr = nd6_prefix_lookup(ifp, addr, plen);
  if (pr === null) {
    pr = nd6_prelist_add(ifp, addr, plen, lifetime, true);
  } else if (configured) {
    // The prefix may have been advertised as not on the link.
    pr.ndpr_raf_onlink = true;
    pr.ndpr_stateflags &= ~NDPRF_DETACHED;
    if ((pr.ndpr_stateflags & NDPRF_ONLINK) === 0) nd6_prefix_onlink(pr);
  }
  pr.ndpr_addrcnt++;
  ia.ia6_ndpr = pr;
}

/**
 * Unlinks an address that was removed from its interface, together with the routes of the address:
 * installs those of the prefixes again, with another address. A prefix that no router advertises is
 * removed with its last address.
 */
export function in6PrefixRelease(ia: In6Ifaddr): void {
  const { ifa_ifp: ifp, ia6_ndpr: pr } = ia;
  const { nd_prefix } = V_nd6rtr(ifp.if_vnet);
  ia.ia6_ndpr = null;
  if (pr !== null && --pr.ndpr_addrcnt === 0 && !pr.learned) nd6_prefix_del(pr);
  // A configured address has kept the prefix from expiring.
  else if (pr !== null && pr.learned) nd6TimerAt(ifp.if_vnet, pr.expireNs);
  for (const one of nd_prefix.slice()) {
    if (one.ndpr_ifp !== ifp || (one.ndpr_stateflags & NDPRF_ONLINK) === 0 || hasRoute(one))
      continue;
    one.ndpr_stateflags &= ~NDPRF_ONLINK;
    nd6_prefix_onlink(one);
  }
  if ((ia.ia6_flags & IN6_IFF_AUTOCONF) !== 0) pfxlist_onlink_check(ifp.if_vnet);
}

const reachable = (pr: NdPrefix): boolean => pr.ndpr_advrtrs.some(routerReachable);

/** The prefixes that can be detached. */
const detachable = (pr: NdPrefix): boolean =>
  pr.ndpr_raf_onlink &&
  pr.ndpr_raf_auto &&
  !IN6_IS_ADDR_LINKLOCAL(pr.ndpr_prefix) &&
  !prefixConfigured(pr);

/** Whether prefixes without a reachable router must be detached: other routers are there. */
function othersReachable(vnet: Vnet): boolean {
  const { nd_prefix, nd_defrouter } = V_nd6rtr(vnet);
  if (nd_prefix.some((pr) => pr.ndpr_raf_onlink && reachable(pr))) return true;
  // A router that advertises no prefix: we have probably moved to its link.
  return (
    nd_defrouter.length > 0 &&
    !nd_defrouter.some((dr) => nd_prefix.some((pr) => pr.ndpr_advrtrs.includes(dr)))
  );
}

/** Attaches or detaches an address; an attached one starts duplicate address detection. */
function attachAddress(ia: In6Ifaddr, attach: boolean): void {
  if (!attach) {
    ia.ia6_flags |= IN6_IFF_DETACHED;
    return;
  }
  if ((ia.ia6_flags & IN6_IFF_DETACHED) === 0) return;
  ia.ia6_flags &= ~IN6_IFF_DETACHED;
  const flags = in6Ifextra(ia.ifa_ifp)?.nd_ifinfo.flags ?? ND6_IFF_NO_DAD;
  if ((flags & ND6_IFF_NO_DAD) !== 0) return;
  ia.ia6_flags |= IN6_IFF_TENTATIVE;
  nd6_dad_start(ia);
}

/**
 * Detaches the advertised prefixes and addresses without a reachable router, if others have one: the host
 * has probably moved to another link. Without any reachable router all are attached, because the
 * routers may just be down. @see sys/netinet6/nd6_rtr.c
 */
export function pfxlist_onlink_check(vnet: Vnet): void {
  const { nd_prefix } = V_nd6rtr(vnet);
  if (!nd_prefix.some((pr) => pr.learned)) return;
  const detach = othersReachable(vnet);
  for (const pr of nd_prefix) {
    if (!detachable(pr)) continue;
    if (detach && !reachable(pr)) pr.ndpr_stateflags |= NDPRF_DETACHED;
    else pr.ndpr_stateflags &= ~NDPRF_DETACHED;
  }
  for (const pr of nd_prefix.slice()) {
    if (!detachable(pr)) continue;
    const state = pr.ndpr_stateflags & (NDPRF_DETACHED | NDPRF_ONLINK);
    if (state === 0 && !prefixExpired(pr)) nd6_prefix_onlink(pr);
    else if (state === (NDPRF_DETACHED | NDPRF_ONLINK)) nd6_prefix_offlink(pr);
  }
  const list = in6Ifaddrs(vnet).filter(
    (ia) => (ia.ia6_flags & IN6_IFF_AUTOCONF) !== 0 && ia.ia6_ndpr !== null,
  );
  const some = list.some((ia) => reachable(ia.ia6_ndpr!));
  for (const ia of list) attachAddress(ia, !some || reachable(ia.ia6_ndpr!));
}

/** Whether the valid lifetime of an advertised prefix is over. */
export function prefixExpired(pr: NdPrefix): boolean {
  return pr.expireNs <= nowNs();
}
