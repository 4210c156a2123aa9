/**
 * The IPv4 addresses of interfaces, after sys/netinet/in_var.h and in.c. An interface's list
 * contains the addresses of all families; the functions here select those of AF_INET.
 */

import type { InAddr } from '../sys/types.ts';
import { AF_INET } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { Ifaddr, type Ifnet } from '../net/if_var.ts';
import { INADDR_BROADCAST, inNetAddr } from './in.ts';
import { V_ip } from './ip_var.ts';

/** An IPv4 address of an interface. in_aifaddr creates it. @see sys/netinet/in_var.h */
export class InIfaddr extends Ifaddr {
  readonly ia_addr: InAddr;
  readonly ia_subnetmask: InAddr;
  /** 0 if the address has no broadcast address. */
  readonly ia_broadaddr: InAddr;
  /** When the address was last defended against another host, ns: RFC 5227, 2.4. */
  defendedNs = -Infinity;

  constructor(ifp: Ifnet, addr: InAddr, subnetmask: InAddr, broadaddr: InAddr) {
    super(ifp, AF_INET, inNetAddr(addr));
    this.ia_addr = addr;
    this.ia_subnetmask = subnetmask;
    this.ia_broadaddr = broadaddr;
  }
}

/** Whether an interface address is an IPv4 address. */
export function isInIfaddr(ifa: Ifaddr): ifa is InIfaddr {
  return ifa.ifa_family === AF_INET;
}

/** The primary (first) IPv4 address of `ifp`, or null. */
export function inPrimary(ifp: Ifnet): InIfaddr | null {
  for (let i = 0; i < ifp.if_addrhead.length; i++) {
    const ifa = ifp.if_addrhead[i]!;
    if (isInIfaddr(ifa)) return ifa;
  }
  return null;
}

/** The IPv4 address of `ifp` that is exactly `addr`, or null. */
export function inIfaddrOn(ifp: Ifnet, addr: InAddr): InIfaddr | null {
  for (let i = 0; i < ifp.if_addrhead.length; i++) {
    const ifa = ifp.if_addrhead[i]!;
    if (isInIfaddr(ifa) && ifa.ia_addr === addr) return ifa;
  }
  return null;
}

/**
 * Whether `addr` is a broadcast address on the link of `ifp`: 255.255.255.255, 0.0.0.0, the
 * broadcast address of a network or (historical form) the network's own address. A /31 or /32 has
 * neither of the last two. @see sys/netinet/in.c
 */
export function in_broadcast(addr: InAddr, ifp: Ifnet): boolean {
  if (addr === INADDR_BROADCAST || addr === 0) return true;
  for (let i = 0; i < ifp.if_addrhead.length; i++) {
    const ia = ifp.if_addrhead[i]!;
    if (!isInIfaddr(ia) || ia.ia_broadaddr === 0 || ia.ia_addr === addr) continue;
    if (addr === ia.ia_broadaddr || addr === (ia.ia_addr & ia.ia_subnetmask)) return true;
  }
  return false;
}

/** The first interface address whose network contains `dst`, or null. */
export function ifaOnLink(vnet: Vnet, dst: InAddr): InIfaddr | null {
  for (const ia of V_ip(vnet).addrs.values()) {
    if (dst === INADDR_BROADCAST && ia.ia_broadaddr !== 0) return ia;
    if ((dst & ia.ia_subnetmask) === (ia.ia_addr & ia.ia_subnetmask)) return ia;
  }
  return null;
}

/**
 * The address of `ifp` that fits `addr` best: equal, of the same network, or the first; null if `ifp`
 * has none. @see sys/net/if.c (there ifaof_ifpforaddr)
 */
export function inIfaddrFor(ifp: Ifnet, addr: InAddr): InIfaddr | null {
  return inIfaddrOn(ifp, addr) ?? ifaForPeer(ifp, addr) ?? inPrimary(ifp);
}

/** The address of `ifp` whose network contains `addr`, or null. */
export function ifaForPeer(ifp: Ifnet, addr: InAddr): InIfaddr | null {
  for (let i = 0; i < ifp.if_addrhead.length; i++) {
    const ia = ifp.if_addrhead[i]!;
    if (isInIfaddr(ia) && (addr & ia.ia_subnetmask) === (ia.ia_addr & ia.ia_subnetmask)) return ia;
  }
  return null;
}
