/**
 * Adds and removes IPv6 addresses of interfaces, after sys/netinet6/in6.c: the address lists, the
 * routes to the prefix and to the address itself, the groups, neighbour discovery. Left out:
 * point-to-point addresses, carp.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { EEXIST, EINVAL, type Errno } from '../sys/errno.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { ifBringUp } from '../net/if.ts';
import { IFF_LOOPBACK, type Ifnet } from '../net/if_var.ts';
import { rtFlush } from '../net/route.ts';
import { PR_FASTHZ } from '../netinet/in_report.ts';
import {
  in6addr_linklocal_allnodes,
  in6addr_nodelocal_allnodes,
  IN6_ADDR_BITS,
  IN6_IS_ADDR_MULTICAST,
  IN6_IS_ADDR_UNSPECIFIED,
  in6SolicitedNode,
} from './in6.ts';
import { in6RouteToSelf } from './in6_fib.ts';
import { in6_joingroup, in6_leavegroup } from './in6_mcast.ts';
import {
  IFA6_IS_DEPRECATED,
  IN6_IFF_DEPRECATED,
  IN6_IFF_NODAD,
  IN6_IFF_TENTATIVE,
  type In6Addrlifetime,
  In6Ifaddr,
  in6Ifextra,
  in6ifa_ifwithaddr,
  ND6_IFF_NO_DAD,
  ND6_INFINITE_LIFETIME,
  V_in6,
} from './in6_var.ts';
import { nd6_add_ifa_lle, nd6_rem_ifa_lle } from './nd6.ts';
import { nd6DadDelay, nd6_dad_start, nd6_dad_stop } from './nd6_dad.ts';
import { in6PrefixAttach, in6PrefixRelease } from './nd6_prefix.ts';
import { nd6TimerAt, V_nd6rtr } from './nd6_rtr_var.ts';
import { in6_setscope } from './scope6.ts';

const $group = new NetAddr();
const $addr = new NetAddr();
/** For in6_update_ifa: delay the first solicitation of duplicate address detection. */
export const IN6_IFAUPDATE_DADDELAY = 0x1;

const FOREVER: In6Addrlifetime = { vltime: ND6_INFINITE_LIFETIME, pltime: ND6_INFINITE_LIFETIME };

/**
 * Joins (or leaves) the groups of an address: all-nodes and its solicited-node group. The report of the
 * latter is sent after `delay` ticks of MLD.
 */
function groups(
  ia: In6Ifaddr,
  change: (ifp: Ifnet, group: AddrWords, delay?: number) => unknown,
  delay = 0,
): void {
  const ifp = ia.ifa_ifp;
  in6SolicitedNode(ia.ifa_addr, $group);
  if ((ifp.if_flags & IFF_LOOPBACK) === 0) change(ifp, $group, delay);
  change(ifp, in6addr_linklocal_allnodes);
  change(ifp, in6addr_nodelocal_allnodes);
}

/** Creates the address `addr` of `ifp`, with its routes and groups, and starts its detection. */
function create(
  ifp: Ifnet,
  addr: AddrWords,
  plen: number,
  flags: number,
  lifetime: In6Addrlifetime,
  update: number,
): In6Ifaddr {
  const vnet = ifp.if_vnet;
  const loopback = (ifp.if_flags & IFF_LOOPBACK) !== 0;
  const noDad = (in6Ifextra(ifp)!.nd_ifinfo.flags & ND6_IFF_NO_DAD) !== 0;
  const detect = !loopback && !noDad && (flags & IN6_IFF_NODAD) === 0;
  const own = (flags & ~IN6_IFF_NODAD) | (detect ? IN6_IFF_TENTATIVE : 0);
  const ia = new In6Ifaddr(ifp, addr, plen, own);
  ifp.if_addrhead.push(ia);
  V_in6(vnet).insert(ia);
  in6RouteToSelf(vnet, ia);
  if (plen < IN6_ADDR_BITS && (!loopback || plen === 64)) in6PrefixAttach(ia, lifetime);
  // RFC 4862, 5.4.2: the report of the group is delayed too, and sent before the first solicitation.
  const ticks = (update & IN6_IFAUPDATE_DADDELAY) !== 0 ? 1 + (vnet.prng.next32() % PR_FASTHZ) : 0;
  groups(ia, in6_joingroup, ticks);
  nd6_add_ifa_lle(ia);
  if (detect) nd6_dad_start(ia, ticks === 0 ? 0 : nd6DadDelay(vnet, ticks / PR_FASTHZ));
  return ia;
}

/** The errno with which in6_update_ifa refuses an address; 0: none. Errnos: see there. */
export function in6CheckIfa(
  ifp: Ifnet,
  addr: AddrWords,
  plen: number,
  lifetime: In6Addrlifetime = FOREVER,
): Errno {
  if (!(plen >= 0 && plen <= IN6_ADDR_BITS) || !Number.isInteger(plen)) return EINVAL;
  if (IN6_IS_ADDR_UNSPECIFIED(addr) || IN6_IS_ADDR_MULTICAST(addr)) return EINVAL;
  if (lifetime.pltime > lifetime.vltime || in6Ifextra(ifp) === null) return EINVAL;
  const ia = existing(ifp, addr);
  return ia !== null && ia.ifa_ifp !== ifp ? EEXIST : 0;
}

/** The address of the stack that is `addr` in the zone of `ifp`; null: none. */
function existing(ifp: Ifnet, addr: AddrWords): In6Ifaddr | null {
  $addr.setFrom(addr);
  in6_setscope($addr, ifp);
  return in6ifa_ifwithaddr(ifp.if_vnet, $addr.w0, $addr.w1, $addr.w2, $addr.w3);
}

/**
 * Sets the lifetimes of an address, which start now, and with them IN6_IFF_DEPRECATED.
 * @see sys/netinet6/in6.c (there in in6_update_ifa)
 */
export function in6SetLifetime(ia: In6Ifaddr, lifetime: In6Addrlifetime): void {
  ia.setLifetime(lifetime);
  if (IFA6_IS_DEPRECATED(ia)) ia.ia6_flags |= IN6_IFF_DEPRECATED;
  else ia.ia6_flags &= ~IN6_IFF_DEPRECATED;
  if (lifetime.vltime !== ND6_INFINITE_LIFETIME || lifetime.pltime !== ND6_INFINITE_LIFETIME)
    nd6TimerAt(ia.ifa_ifp.if_vnet, nowNs());
}

/**
 * Adds address `addr` with prefix length `plen` (0 to 128) to `ifp` and brings the interface up; or, if
 * the interface has the address, sets its lifetimes and flags. `flags`: IN6_IFF_NODAD, ANYCAST,
 * AUTOCONF, TEMPORARY. `updateflags`: IN6_IFAUPDATE_DADDELAY. The zone of a link-local address is set
 * here. EINVAL: bad prefix length, lifetime or address. EEXIST: another interface has the address. Else
 * the driver's errno from bringing the interface up. @see sys/netinet6/in6.c
 */
export function in6_update_ifa(
  ifp: Ifnet,
  addr: AddrWords,
  plen: number,
  flags: number,
  lifetime: In6Addrlifetime = FOREVER,
  updateflags = 0,
): Errno {
  const a = new NetAddr();
  a.setFrom(addr);
  in6_setscope(a, ifp);
  let error = in6CheckIfa(ifp, a, plen, lifetime);
  if (error !== 0) return error;
  let ia = existing(ifp, a);
  if (ia === null) {
    error = ifBringUp(ifp);
    if (error !== 0) return error;
    // The interface gets its link-local address when it comes up: it may be this one.
    ia = existing(ifp, a) ?? create(ifp, a, plen, flags, lifetime, updateflags);
  }
  in6SetLifetime(ia, lifetime);
  return 0;
}

/** Removes an address with its routes, groups and neighbour entry. @see sys/netinet6/in6.c */
export function in6_purgeaddr(ia: In6Ifaddr): void {
  const ifp = ia.ifa_ifp;
  nd6_dad_stop(ia);
  nd6_rem_ifa_lle(ia);
  ifp.if_addrhead.splice(ifp.if_addrhead.indexOf(ia), 1);
  V_in6(ifp.if_vnet).remove(ia);
  rtFlush(ifp.if_vnet, ifp, ia);
  groups(ia, in6_leavegroup);
  in6PrefixRelease(ia);
  V_nd6rtr(ifp.if_vnet).events?.addressGone(ifp);
}
