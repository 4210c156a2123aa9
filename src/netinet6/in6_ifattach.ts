/**
 * IPv6 on an interface, after sys/netinet6/in6_ifattach.c: the state of a new interface, its
 * link-local address, and the addresses of lo0. Identifiers are in in6_ifid.ts. An Ethernet interface
 * has IPv6 disabled (ND6_IFF_IFDISABLED) until it gets an address, as with FreeBSD's rc.conf(5) without
 * an ipv6 line.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { EADDRNOTAVAIL, EINVAL, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import { ifConsole, type IfEvents } from '../net/if.ts';
import { V_loif } from '../net/if_loop.ts';
import { IFF_LOOPBACK, IFF_UP, type Ifnet, IFT_ETHER, LINK_STATE_UP } from '../net/if_var.ts';
import { forwardingLro } from '../netinet/ip_forward.ts';
import { in6addr_loopback, IN6_IS_ADDR_LINKLOCAL } from './in6.ts';
import { in6RouteToSelf } from './in6_fib.ts';
import { linklocalOf } from './in6_ifid.ts';
import { in6PurgeGroups } from './in6_mcast.ts';
import {
  in6CheckIfa,
  IN6_IFAUPDATE_DADDELAY,
  in6_purgeaddr,
  in6_update_ifa,
} from './in6_ifaddr.ts';
import {
  IN6_IFF_DUPLICATED,
  type In6Addrlifetime,
  In6Ifextra,
  in6Ifextra,
  type In6Ifaddr,
  in6ifa_ifpforlinklocal,
  in6ifa_ifpwithaddr,
  in6Ifaddrs,
  isIn6Ifaddr,
  NdIfinfo,
  ND6_IFF_ACCEPT_RTADV,
  ND6_IFF_AUTO_LINKLOCAL,
  ND6_IFF_IFDISABLED,
  ND6_IFF_NO_RADR,
  ND6_IFF_PERFORMNUD,
  ND6_IFF_STABLEADDR,
  V_in6,
} from './in6_var.ts';
import { V_ip6 } from './ip6_var.ts';
import { mld_domifattach, mld_domifdetach } from './mld6.ts';
import { Nd6Table, nd6Table, sameLladdr } from './nd6.ts';
import { nd6DadAll, nd6TentativeAll } from './nd6_dad.ts';
import { nd6_purge } from './nd6_list.ts';
import { nd6Announce } from './nd6_nbr.ts';
import { nd6_prefix_del } from './nd6_prefix.ts';
import { nd6RsStart, nd6RsStop } from './nd6_rs.ts';
import { nd6Reachable } from './nd6_var.ts';
import { in6_setscope } from './scope6.ts';

/**
 * Gives `ifp` its link-local address if it has none, is enabled, and the flag AUTO_LINKLOCAL is set.
 * @see sys/netinet6/in6_ifattach.c
 */
export function in6_ifattach(ifp: Ifnet): Errno {
  const flags = in6Ifextra(ifp)?.nd_ifinfo.flags ?? ND6_IFF_IFDISABLED;
  if ((flags & ND6_IFF_IFDISABLED) !== 0 || (flags & ND6_IFF_AUTO_LINKLOCAL) === 0) return 0;
  if (in6ifa_ifpforlinklocal(ifp, 0) !== null) return 0;
  return in6_update_ifa(ifp, linklocalOf(ifp), 64, 0, undefined, IN6_IFAUPDATE_DADDELAY);
}

/** Enables IPv6 on `ifp` and gives it its link-local address. */
function enable(ifp: Ifnet): Errno {
  const error = enableOnly(ifp);
  return error !== 0 ? error : in6_ifattach(ifp);
}

/**
 * Adds an address as `ifconfig ifp inet6 addr/plen` does: enables IPv6 on the interface, which also
 * gets a link-local address, and adds `addr`. Errnos: see in6_update_ifa.
 * @see ifconfig(8), sys/netinet6/in6.c (there in6_control)
 */
export function in6_aifaddr(
  ifp: Ifnet,
  addr: AddrWords,
  plen: number,
  flags = 0,
  lifetime?: In6Addrlifetime,
): Errno {
  // A wrong address does not enable IPv6.
  let error = in6CheckIfa(ifp, addr, plen, lifetime);
  if (error !== 0) return error;
  // A link-local address that the user chose replaces the automatic one.
  error = IN6_IS_ADDR_LINKLOCAL(addr) ? enableOnly(ifp) : enable(ifp);
  return error !== 0 ? error : in6_update_ifa(ifp, addr, plen, flags, lifetime);
}

/** Whether a link-local address of `ifp` is a duplicate. */
function linklocalDuplicated(ifp: Ifnet): boolean {
  return ifp.if_addrhead.some((ia) => {
    if (!isIn6Ifaddr(ia) || !IN6_IS_ADDR_LINKLOCAL(ia.ifa_addr)) return false;
    return (ia.ia6_flags & IN6_IFF_DUPLICATED) !== 0;
  });
}

function enableOnly(ifp: Ifnet): Errno {
  const ext = in6Ifextra(ifp);
  if (ext === null) return EINVAL;
  if ((ext.nd_ifinfo.flags & ND6_IFF_IFDISABLED) === 0) return 0;
  if (linklocalDuplicated(ifp)) {
    // RFC 4862, 5.4.5.
    ifConsole.log?.('Cannot enable an interface with a link-local address marked duplicate.');
    return 0;
  }
  ext.nd_ifinfo.flags &= ~ND6_IFF_IFDISABLED;
  nd6DadAll(ifp);
  return 0;
}

/** Removes an address. EADDRNOTAVAIL: `ifp` does not have it. @see ifconfig(8) */
export function in6_difaddr(ifp: Ifnet, addr: AddrWords): Errno {
  const a = new NetAddr();
  a.setFrom(addr);
  in6_setscope(a, ifp);
  const ia = in6ifa_ifpwithaddr(ifp, a);
  if (ia === null) return EADDRNOTAVAIL;
  const { ia6_ndpr: pr } = ia;
  in6_purgeaddr(ia);
  // As on FreeBSD: the prefix goes with its last address, even if a router advertises it.
  if (pr !== null && pr.ndpr_addrcnt === 0) nd6_prefix_del(pr);
  return 0;
}

/** Creates the state of IPv6 on a new interface. @see sys/netinet6/in6.c */
function in6_domifattach(ifp: Ifnet): void {
  const { params } = V_ip6(ifp.if_vnet);
  const loopback = (ifp.if_flags & IFF_LOOPBACK) !== 0;
  const auto = params.auto_linklocal || loopback ? ND6_IFF_AUTO_LINKLOCAL : 0;
  const accept = params.accept_rtadv && !loopback;
  // As on FreeBSD: an interface that accepts advertisements has IPv6.
  const off = loopback || accept ? 0 : ND6_IFF_IFDISABLED;
  const rtadv = accept ? ND6_IFF_ACCEPT_RTADV : 0;
  const radr = params.no_radr && !loopback ? ND6_IFF_NO_RADR : 0;
  const stable = params.use_stableaddr ? ND6_IFF_STABLEADDR : 0;
  const nd = new NdIfinfo(ND6_IFF_PERFORMNUD | auto | off | rtadv | radr | stable, params.hlim);
  const mld = mld_domifattach(ifp);
  nd.reachable = nd6Reachable(ifp.if_vnet, nd.basereachable);
  V_in6(ifp.if_vnet).ifextra[ifp.if_index] = new In6Ifextra(nd, mld);
  if (ifp.if_type === IFT_ETHER) ifp.if_afdata[AF_INET6] = new Nd6Table(ifp);
}

/** Removes IPv6 from an interface. @see sys/netinet6/in6_ifattach.c */
export function in6_ifdetach(ifp: Ifnet): void {
  nd6RsStop(ifp);
  nd6_purge(ifp);
  const own = ifp.if_addrhead.filter((ifa): ifa is In6Ifaddr => isIn6Ifaddr(ifa));
  for (const ia of own) in6_purgeaddr(ia);
  in6PurgeGroups(ifp);
  mld_domifdetach(ifp);
  nd6Table(ifp)?.flush(false);
  ifp.if_afdata[AF_INET6] = null;
  V_in6(ifp.if_vnet).ifextra[ifp.if_index] = null;
}

/** Sets the link-level address of `ifp` in the entries of its addresses. Returns whether it changed. */
function updateLladdr(ifp: Ifnet, { table }: Nd6Table): boolean {
  let changed = false;
  for (const ia of ifp.if_addrhead) {
    const lle = isIn6Ifaddr(ia) ? table.find(ia.ifa_addr) : null;
    if (lle === null || sameLladdr(lle.ll_addr, ifp.if_lladdr)) continue;
    lle.setAddr(ifp.if_lladdr);
    changed = true;
  }
  return changed;
}

/** IPv6's handlers for interface events. */
export const inet6IfEvents: IfEvents = {
  ifAttached(ifp: Ifnet): void {
    in6_domifattach(ifp);
    const vnet = ifp.if_vnet;
    if (V_ip6(vnet).params.forwarding) forwardingLro(ifp);
    if (ifp !== V_loif(vnet).ifp) return;
    for (const ia of in6Ifaddrs(vnet)) in6RouteToSelf(vnet, ia);
    const error = in6_update_ifa(ifp, in6addr_loopback, 128, 0) || in6_ifattach(ifp);
    KASSERT(error === 0, 'inet6IfEvents: lo0 has no address');
  },
  ifDetaching: in6_ifdetach,
  ifChanged(ifp: Ifnet): void {
    const table = nd6Table(ifp);
    if (table === null) return;
    if ((ifp.if_flags & IFF_UP) === 0) {
      table.flush(true);
      nd6TentativeAll(ifp);
      nd6RsStop(ifp);
      return;
    }
    in6_ifattach(ifp);
    nd6DadAll(ifp);
    nd6RsStart(ifp);
    if (updateLladdr(ifp, table)) nd6Announce(ifp);
  },
  linkChanged(ifp: Ifnet): void {
    // The host may be on another link now: ask its routers. As on FreeBSD, addresses and neighbours stay.
    if (ifp.if_link_state !== LINK_STATE_UP) return;
    nd6RsStop(ifp);
    nd6RsStart(ifp);
  },
};
