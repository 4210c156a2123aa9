/**
 * Interface addresses coming and going, after sys/netinet/in.c (in_control): the address list, the
 * route to its network, the route to itself, the all-hosts group, ARP. Left out: point-to-point
 * addresses, aliases' preference, carp.
 */

import { EADDRNOTAVAIL, EEXIST, EINVAL, type Errno } from '../sys/errno.ts';
import { inAddr, type InAddr } from '../sys/types.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { if_addmulti, if_delmulti, ifhwioctl, type IfEvents } from '../net/if.ts';
import {
  ETHER_ADDR_LEN,
  IFF_BROADCAST,
  IFF_DRV_RUNNING,
  IFF_LOOPBACK,
  IFF_UP,
  type Ifnet,
  IFT_ETHER,
  type InIfaddr,
  SIOCSIFFLAGS,
} from '../net/if_var.ts';
import {
  Nhop,
  rib_add_route,
  RTF_HOST,
  RTF_PINNED,
  RTF_STATIC,
  rtFlush,
  RTF_UP,
} from '../net/route.ts';
import {
  IN_EXPERIMENTAL,
  IN_MULTICAST,
  INADDR_ALLHOSTS_GROUP,
  in_nullhost,
  prefixMask,
} from './in.ts';
import {
  arp_announce,
  arp_ifinit,
  ArpTable,
  arpTable,
  ETHER_MAP_IP_MULTICAST,
} from './if_ether.ts';
import { V_ip } from './ip_var.ts';

/** Each stack's loopback interface, which the routes to its own addresses lead to. */
export const V_loif = VNET_DEFINE((): { ifp: Ifnet | null } => ({ ifp: null }));

const allHosts = new Uint8Array(ETHER_ADDR_LEN);
ETHER_MAP_IP_MULTICAST(INADDR_ALLHOSTS_GROUP, allHosts);

/** Brings an interface up as setting its first address does. */
function bringUp(ifp: Ifnet): Errno {
  if ((ifp.if_flags & IFF_UP) === 0) {
    const error = ifhwioctl(ifp, SIOCSIFFLAGS, ifp.if_flags | IFF_UP);
    if (error !== 0) return error;
  }
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) ifp.if_driver?.if_init(ifp);
  return 0;
}

/**
 * Puts address `addr` of a network of `prefixlen` bits (0 to 32) on `ifp`, brings it up, makes the routes to the network
 * and to the address itself, and announces it. EADDRNOTAVAIL: no host address; EINVAL: no prefix length;
 * EEXIST: the stack has the address already; else the driver's errno for coming up.
 * @see ifconfig(8), sys/netinet/in.c
 */
export function in_aifaddr(ifp: Ifnet, addr: InAddr, prefixlen: number): Errno {
  const vnet = ifp.if_vnet;
  const v = V_ip(vnet);
  if (!(prefixlen >= 0 && prefixlen <= 32) || !Number.isInteger(prefixlen)) return EINVAL;
  if (in_nullhost(addr) || IN_MULTICAST(addr) || IN_EXPERIMENTAL(addr)) return EADDRNOTAVAIL;
  if (v.addrs.has(addr | 0)) return EEXIST;
  const error = bringUp(ifp);
  if (error !== 0) return error;
  const loopback = (ifp.if_flags & IFF_LOOPBACK) !== 0;
  const mask = prefixMask(prefixlen);
  // RFC 3021: a network of two has no broadcast address.
  const broadcast = (ifp.if_flags & IFF_BROADCAST) !== 0 && prefixlen < 31;
  const ia: InIfaddr = {
    ia_ifp: ifp,
    ia_addr: addr,
    ia_subnetmask: mask,
    ia_broadaddr: inAddr(broadcast ? (addr | ~mask) >>> 0 : 0),
  };
  ifp.if_addrhead.push(ia);
  v.addrs.set(addr | 0, ia);
  const lo = V_loif(vnet).ifp;
  if (lo !== null) {
    const flags = RTF_UP | RTF_HOST | RTF_STATIC | RTF_PINNED;
    rib_add_route(vnet, addr, 32, new Nhop(lo, ia, inAddr(0), flags, 0));
  }
  // EEXIST: another interface is on the same network and keeps the route, as on FreeBSD.
  if (prefixlen < 32 && !loopback)
    rib_add_route(vnet, addr, prefixlen, new Nhop(ifp, ia, inAddr(0), RTF_UP | RTF_PINNED, 0));
  if (arpTable(ifp) !== null && ifp.if_addrhead.length === 1) if_addmulti(ifp, allHosts);
  arp_ifinit(ifp, addr);
  return 0;
}

/** Takes an address off; EADDRNOTAVAIL if `ifp` does not have it. @see ifconfig(8) */
export function in_difaddr(ifp: Ifnet, addr: InAddr): Errno {
  const at = ifp.if_addrhead.findIndex((ia) => ia.ia_addr === addr);
  if (at < 0) return EADDRNOTAVAIL;
  const ia = ifp.if_addrhead[at]!;
  const arp = arpTable(ifp);
  const lle = arp?.table.find(addr) ?? null;
  if (arp !== null && lle !== null) arp.table.remove(lle);
  ifp.if_addrhead.splice(at, 1);
  V_ip(ifp.if_vnet).addrs.delete(addr | 0);
  rtFlush(ifp.if_vnet, ifp, ia);
  if (arp !== null && ifp.if_addrhead.length === 0) if_delmulti(ifp, allHosts);
  return 0;
}

/** IPv4's ear for interfaces. */
export const inetIfEvents: IfEvents = {
  ifAttached(ifp: Ifnet): void {
    if (ifp.if_type === IFT_ETHER) ifp.if_inet = new ArpTable(ifp);
  },
  ifDetaching(ifp: Ifnet): void {
    while (ifp.if_addrhead.length > 0) in_difaddr(ifp, ifp.if_addrhead[0]!.ia_addr);
    arpTable(ifp)?.flush(false);
    ifp.if_inet = null;
  },
  ifChanged(ifp: Ifnet): void {
    const arp = arpTable(ifp);
    if (arp === null) return;
    if ((ifp.if_flags & IFF_UP) === 0) {
      arp.flush(true);
      return;
    }
    for (const ia of ifp.if_addrhead) {
      arp.table.find(ia.ia_addr)?.setAddr(ifp.if_lladdr);
      arp_announce(ifp, ia.ia_addr);
    }
  },
};

/** The addresses of a stack in the order they came. */
export function inIfaddrs(vnet: Vnet): InIfaddr[] {
  return [...V_ip(vnet).addrs.values()];
}
