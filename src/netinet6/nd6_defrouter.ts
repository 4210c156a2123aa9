/**
 * The default router list, after sys/netinet6/nd6_rtr.c: RFC 4861, 6.3.4 and 6.3.6, with the preferences of
 * RFC 4191. One router at a time has the default route. Left out: several default routes, Route
 * Information options (RFC 4191, 2.3), as on FreeBSD.
 */

import type { AddrWords } from '../sys/addr.ts';
import { count, R_ND6_ROUTERS_FULL } from '../sys/reason.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import {
  Nhop,
  ribRemoveWhere,
  rib_lookup_prefix,
  RTF_HOST,
  RTF_STATIC,
  rt_tables_get_rnh,
  RTF_UP,
} from '../net/route.ts';
import { in6addr_any } from './in6.ts';
import { in6RouteAdd, in6RouteDel } from './in6_fib.ts';
import { in6ifa_ifpforlinklocal } from './in6_var.ts';
import { pfxlist_onlink_check } from './nd6_prefix.ts';
import {
  ND_RA_FLAG_RTPREF_HIGH,
  ND_RA_FLAG_RTPREF_LOW,
  ND_RA_FLAG_RTPREF_MASK,
  NdDefrouter,
  nd6TimerAt,
  routerReachable,
  V_nd6rtr,
} from './nd6_rtr_var.ts';

const SEC = 1e9;
/**
 * Routers per interface. Unlike FreeBSD, which has no limit; NetBSD has this one
 * (net.inet6.ip6.maxifdefrouters).
 */
const IF_DEFROUTERS_MAX = 16;

const same = (a: AddrWords, b: AddrWords): boolean =>
  a.w3 === b.w3 && a.w2 === b.w2 && a.w1 === b.w1 && a.w0 === b.w0;

/** The default router `addr` of `ifp`, or null. @see sys/netinet6/nd6_rtr.c */
function defrouter_lookup(ifp: Ifnet, addr: AddrWords): NdDefrouter | null {
  const { nd_defrouter } = V_nd6rtr(ifp.if_vnet);
  return nd_defrouter.find((dr) => dr.ifp === ifp && same(dr.rtaddr, addr)) ?? null;
}

/** The preference: 1, 0 or -1. RFC 4191, 2.2: a reserved value is medium. */
function rtpref(raflags: number): number {
  switch (raflags & ND_RA_FLAG_RTPREF_MASK) {
    case ND_RA_FLAG_RTPREF_HIGH:
      return 1;
    case ND_RA_FLAG_RTPREF_LOW:
      return -1;
    default:
      return 0;
  }
}

/** Whether the default route leads to `dr`, and is not one that the user has set. */
function hasRoute({ ifp, rtaddr }: NdDefrouter): boolean {
  const rt = rib_lookup_prefix(rt_tables_get_rnh(ifp.if_vnet, AF_INET6), in6addr_any, 0);
  if (rt === null || (rt.rt_nhop.nh_flags & RTF_STATIC) !== 0) return false;
  return rt.rt_nhop.nh_ifp === ifp && same(rt.rt_nhop.nh_gateway, rtaddr);
}

/** Adds the default route, unless there is another one. */
function defrouter_addreq(dr: NdDefrouter): void {
  const { ifp, rtaddr } = dr;
  const ifa = in6ifa_ifpforlinklocal(ifp, 0);
  if (ifa === null) return;
  const nh = new Nhop(ifp, ifa, rtaddr, RTF_UP, 0);
  dr.installed = in6RouteAdd(ifp.if_vnet, in6addr_any, 0, nh) === 0;
}

function defrouter_delreq(dr: NdDefrouter): void {
  if (hasRoute(dr)) in6RouteDel(dr.ifp.if_vnet, in6addr_any, 0);
  dr.installed = false;
}

/** Removes the host routes by a gateway that redirects have added. @see sys/netinet6/nd6_rtr.c */
function rt6_flush(gateway: AddrWords, ifp: Ifnet): void {
  ribRemoveWhere(rt_tables_get_rnh(ifp.if_vnet, AF_INET6), ({ rt_nhop: nh }) => {
    if ((nh.nh_flags & (RTF_HOST | RTF_STATIC)) !== RTF_HOST) return false;
    return nh.nh_ifp === ifp && same(nh.nh_gateway, gateway);
  });
}

/** Removes a router from the list, and with it its route and its claims to prefixes. */
export function defrouterDel(dr: NdDefrouter): void {
  const { if_vnet: vnet } = dr.ifp;
  const { nd_defrouter, nd_prefix } = V_nd6rtr(vnet);
  const at = nd_defrouter.indexOf(dr);
  if (at < 0) return;
  nd_defrouter.splice(at, 1);
  rt6_flush(dr.rtaddr, dr.ifp);
  const wasInstalled = dr.installed;
  if (wasInstalled) defrouter_delreq(dr);
  for (const pr of nd_prefix) {
    const claim = pr.ndpr_advrtrs.indexOf(dr);
    if (claim >= 0) pr.ndpr_advrtrs.splice(claim, 1);
  }
  pfxlist_onlink_check(vnet);
  if (wasInstalled) defrouter_select(vnet);
}

/** Removes the router `addr` of `ifp`. Returns whether it was in the list. @see sys/netinet6/nd6_rtr.c */
export function defrouter_remove(ifp: Ifnet, addr: AddrWords): boolean {
  const dr = defrouter_lookup(ifp, addr);
  if (dr !== null) defrouterDel(dr);
  return dr !== null;
}

/** The router that the default route should lead to; null: the list is empty. */
function choose(list: readonly NdDefrouter[], installed: NdDefrouter | null): NdDefrouter | null {
  const first = list.find(routerReachable) ?? null;
  if (first === null) {
    // None is reachable: try one after the other. RFC 4861, 6.3.6.
    const next = installed === null ? 0 : list.indexOf(installed) + 1;
    return list[next] ?? list[0] ?? null;
  }
  // Change to another router only if that is better.
  if (installed === null || !routerReachable(installed)) return first;
  return rtpref(first.raflags) > rtpref(installed.raflags) ? first : installed;
}

/**
 * Selects the default router by reachability and preference, and changes the default route.
 * @see sys/netinet6/nd6_rtr.c (there defrouter_select_fib)
 */
export function defrouter_select(vnet: Vnet): void {
  const { nd_defrouter } = V_nd6rtr(vnet);
  const installed = nd_defrouter.find((dr) => dr.installed) ?? null;
  const selected = choose(nd_defrouter, installed);
  if (selected === null || (selected === installed && hasRoute(selected))) return;
  if (installed !== null) defrouter_delreq(installed);
  defrouter_addreq(selected);
}

/**
 * Adds or updates a router of an advertisement; lifetime 0 removes it. Null: it is not in the list.
 * @see sys/netinet6/nd6_rtr.c
 */
export function defrtrlist_update(
  ifp: Ifnet,
  rtaddr: AddrWords,
  raflags: number,
  rtlifetime: number,
): NdDefrouter | null {
  if (rtlifetime === 0) {
    defrouter_remove(ifp, rtaddr);
    return null;
  }
  const { nd_defrouter: list } = V_nd6rtr(ifp.if_vnet);
  let dr = defrouter_lookup(ifp, rtaddr);
  const known = dr !== null;
  if (dr === null) {
    if (list.filter((one) => one.ifp === ifp).length >= IF_DEFROUTERS_MAX) {
      count(R_ND6_ROUTERS_FULL);
      return null;
    }
    dr = new NdDefrouter(ifp, rtaddr);
  }
  const sorted = known && rtpref(dr.raflags) === rtpref(raflags);
  dr.raflags = raflags;
  dr.rtlifetime = rtlifetime;
  dr.expire = nowNs() + rtlifetime * SEC;
  nd6TimerAt(ifp.if_vnet, dr.expire);
  if (sorted && dr.installed && hasRoute(dr)) return dr;
  if (known) list.splice(list.indexOf(dr), 1);
  const at = list.findIndex((one) => rtpref(one.raflags) < rtpref(raflags));
  list.splice(at < 0 ? list.length : at, 0, dr);
  defrouter_select(ifp.if_vnet);
  return dr;
}

/** Removes the routers of `ifp`, the one with the default route last. @see sys/netinet6/nd6_rtr.c */
export function nd6_defrouter_purge(ifp: Ifnet): void {
  const own = V_nd6rtr(ifp.if_vnet).nd_defrouter.filter((dr) => dr.ifp === ifp);
  for (const dr of own.filter(({ installed }) => !installed)) defrouterDel(dr);
  for (const dr of own.filter(({ installed }) => installed)) defrouterDel(dr);
}

/** An address of `ifp`, and the routes with it, were removed: restores the default route. */
export function defrouterRestore(ifp: Ifnet): void {
  const { nd_defrouter } = V_nd6rtr(ifp.if_vnet);
  const lost = nd_defrouter.find((dr) => dr.installed && dr.ifp === ifp && !hasRoute(dr));
  if (lost === undefined) return;
  lost.installed = false;
  defrouter_select(ifp.if_vnet);
}
