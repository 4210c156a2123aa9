/**
 * Adds and removes IPv4 addresses of interfaces, after sys/netinet/in.c (in_control): the address
 * list, the routes to the network and to the address itself, the all-hosts group, ARP. Left out:
 * point-to-point addresses, preference among aliases, carp.
 */

import { EADDRNOTAVAIL, EEXIST, EINVAL, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inAddr, type InAddr } from '../sys/types.ts';
import { AF_INET } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifBringUp, type IfEvents } from '../net/if.ts';
import { V_loif } from '../net/if_loop.ts';
import {
  IFF_BROADCAST,
  IFF_LOOPBACK,
  IFF_MULTICAST,
  IFF_UP,
  type Ifnet,
  IFT_ETHER,
} from '../net/if_var.ts';
import { Nhop, RTF_HOST, RTF_PINNED, RTF_STATIC, rtFlush, RTF_UP } from '../net/route.ts';
import {
  IN_EXPERIMENTAL,
  IN_MULTICAST,
  INADDR_ALLHOSTS_GROUP,
  INADDR_LOOPBACK,
  in_nullhost,
  inNetAddr,
  prefixMask,
} from './in.ts';
import { arp_announce, arp_ifinit, arp_ifscrub, ArpTable, arpTable } from './if_ether.ts';
import { igmp_domifattach, igmp_domifdetach, igmpLink } from './igmp.ts';
import { inRouteAdd } from './in_fib.ts';
import { inPurgeGroups } from './in_mcast.ts';
import { in_joingroup, in_leavegroup, MCAST_EXCLUDE } from './in_multi.ts';
import { InIfaddr, inIfaddrOn, inPrimary, isInIfaddr } from './in_var.ts';
import { forwardingLro } from './ip_forward.ts';
import { V_ip } from './ip_var.ts';

const allHosts = inNetAddr(INADDR_ALLHOSTS_GROUP);

/** Joins the all-hosts group on an interface that got its first address, if it has multicast. */
function joinAllHosts(ifp: Ifnet): void {
  const link = igmpLink(ifp);
  if (link !== null && (ifp.if_flags & IFF_MULTICAST) !== 0)
    in_joingroup(link, allHosts, MCAST_EXCLUDE, null);
}

/** The interface lost its last address. */
function leaveAllHosts(ifp: Ifnet): void {
  const members = igmpLink(ifp)?.groups.find(allHosts)?.members ?? [];
  // Sockets may be members too. The stack's own membership is the first.
  if (members.length > 0) in_leavegroup(members[0]!);
}

/** Adds the host route to a local address by lo0. Does nothing before lo0 is attached. */
function routeToSelf(vnet: Vnet, ia: InIfaddr): void {
  const lo = V_loif(vnet).ifp;
  if (lo === null) return;
  const flags = RTF_UP | RTF_HOST | RTF_STATIC | RTF_PINNED;
  inRouteAdd(vnet, ia.ia_addr, 32, new Nhop(lo, ia, null, flags, 0));
}

/**
 * Adds address `addr` with prefix length `prefixlen` (0 to 32) to `ifp`, brings the interface up,
 * adds the routes to the network and to the address, and announces the address. EADDRNOTAVAIL: not
 * a host address. EINVAL: bad prefix length. EEXIST: the stack already has the address. Else the
 * driver's errno from bringing the interface up.
 * @see ifconfig(8), sys/netinet/in.c
 */
export function in_aifaddr(ifp: Ifnet, addr: InAddr, prefixlen: number): Errno {
  const vnet = ifp.if_vnet;
  const v = V_ip(vnet);
  if (!(prefixlen >= 0 && prefixlen <= 32) || !Number.isInteger(prefixlen)) return EINVAL;
  if (in_nullhost(addr) || IN_MULTICAST(addr) || IN_EXPERIMENTAL(addr)) return EADDRNOTAVAIL;
  if (v.addrs.has(addr) || arpTable(ifp)?.pending.has(addr) === true) return EEXIST;
  const error = ifBringUp(ifp);
  if (error !== 0) return error;
  const loopback = (ifp.if_flags & IFF_LOOPBACK) !== 0;
  const mask = prefixMask(prefixlen);
  // RFC 3021: a /31 network has no broadcast address.
  const broadcast = (ifp.if_flags & IFF_BROADCAST) !== 0 && prefixlen < 31;
  const ia = new InIfaddr(ifp, addr, mask, inAddr(broadcast ? addr | ~mask : 0));
  const first = inPrimary(ifp) === null;
  ifp.if_addrhead.push(ia);
  v.addrs.set(addr, ia);
  routeToSelf(vnet, ia);
  // Ignore EEXIST: another interface on the same network keeps the route, as on FreeBSD.
  if (prefixlen < 32 && !loopback)
    inRouteAdd(vnet, addr, prefixlen, new Nhop(ifp, ia, null, RTF_UP | RTF_PINNED, 0));
  if (first) joinAllHosts(ifp);
  arp_ifinit(ifp, addr);
  return 0;
}

/** Removes an address. EADDRNOTAVAIL: `ifp` does not have it. @see ifconfig(8) */
export function in_difaddr(ifp: Ifnet, addr: InAddr): Errno {
  const arp = arpTable(ifp);
  const pending = arp?.pending.get(addr);
  if (pending !== undefined) {
    pending.stop();
    return 0;
  }
  const ia = inIfaddrOn(ifp, addr);
  if (ia === null) return EADDRNOTAVAIL;
  arp_ifscrub(ifp, addr);
  const lle = arp?.find(addr) ?? null;
  if (arp !== null && lle !== null) arp.table.remove(lle);
  ifp.if_addrhead.splice(ifp.if_addrhead.indexOf(ia), 1);
  V_ip(ifp.if_vnet).addrs.delete(addr);
  rtFlush(ifp.if_vnet, ifp, ia);
  if (inPrimary(ifp) === null) leaveAllHosts(ifp);
  return 0;
}

/** IPv4's handlers for interface events. */
export const inetIfEvents: IfEvents = {
  ifAttached(ifp: Ifnet): void {
    if (ifp.if_type === IFT_ETHER) ifp.if_afdata[AF_INET] = new ArpTable(ifp);
    igmp_domifattach(ifp);
    const vnet = ifp.if_vnet;
    if (V_ip(vnet).params.forwarding) forwardingLro(ifp);
    if (ifp !== V_loif(vnet).ifp) return;
    for (const ia of V_ip(vnet).addrs.values()) routeToSelf(vnet, ia);
    const error = in_aifaddr(ifp, INADDR_LOOPBACK, 8);
    KASSERT(error === 0, 'inetIfEvents: lo0 has no address');
  },
  ifDetaching(ifp: Ifnet): void {
    for (const pending of arpTable(ifp)?.pending.values() ?? []) pending.stop();
    for (let ia = inPrimary(ifp); ia !== null; ia = inPrimary(ifp)) in_difaddr(ifp, ia.ia_addr);
    inPurgeGroups(ifp);
    igmp_domifdetach(ifp);
    arpTable(ifp)?.flush(false);
    ifp.if_afdata[AF_INET] = null;
  },
  ifChanged(ifp: Ifnet): void {
    const arp = arpTable(ifp);
    if (arp === null) return;
    for (const pending of arp.pending.values()) pending.restart();
    if ((ifp.if_flags & IFF_UP) === 0) {
      arp.flush(true);
      return;
    }
    for (const ia of ifp.if_addrhead) {
      if (!isInIfaddr(ia)) continue;
      arp.find(ia.ia_addr)?.setAddr(ifp.if_lladdr);
      arp_announce(ifp, ia.ia_addr);
    }
  },
};

/** The addresses of a stack, in the order in which they were added. */
export function inIfaddrs(vnet: Vnet): InIfaddr[] {
  return [...V_ip(vnet).addrs.values()];
}
