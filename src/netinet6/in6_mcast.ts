/**
 * Groups that an interface has joined, after sys/netinet6/in6_mcast.c: references, and the receive
 * filter of the NIC. Left out: source filters, reports to routers (mld6.c).
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { ENXIO, type Errno } from '../sys/errno.ts';
import { if_addmulti, if_delmulti } from '../net/if.ts';
import { ETHER_ADDR_LEN, type Ifnet, IFT_ETHER } from '../net/if_var.ts';
import { in6Ifextra, in6m_lookup } from './in6_var.ts';
import { in6_setscope } from './scope6.ts';

const mac = new Uint8Array(ETHER_ADDR_LEN);

/** Writes the Ethernet address of group `a` to `ll_addr`: RFC 2464, 7. @see sys/net/ethernet.h */
export function ETHER_MAP_IPV6_MULTICAST(a: AddrWords, ll_addr: Uint8Array): void {
  ll_addr[0] = 0x33;
  ll_addr[1] = 0x33;
  ll_addr[2] = a.w3 >>> 24;
  ll_addr[3] = (a.w3 >>> 16) & 0xff;
  ll_addr[4] = (a.w3 >>> 8) & 0xff;
  ll_addr[5] = a.w3 & 0xff;
}

/**
 * Joins `group` on `ifp`, or adds a reference. ENXIO: IPv6 is not attached to the interface. Else the
 * errno of the receive filter. @see sys/netinet6/in6_mcast.c
 */
export function in6_joingroup(ifp: Ifnet, group: AddrWords): Errno {
  const ext = in6Ifextra(ifp);
  if (ext === null) return ENXIO;
  const a = new NetAddr();
  a.setFrom(group);
  in6_setscope(a, ifp);
  const found = in6m_lookup(ifp, a);
  if (found !== null) {
    found.in6m_refcount++;
    return 0;
  }
  ext.in6_multi.push({ in6m_addr: a, in6m_refcount: 1 });
  if (ifp.if_type !== IFT_ETHER) return 0;
  ETHER_MAP_IPV6_MULTICAST(a, mac);
  return if_addmulti(ifp, mac);
}

/** Removes a reference; the last one leaves the group. @see sys/netinet6/in6_mcast.c */
export function in6_leavegroup(ifp: Ifnet, group: AddrWords): void {
  const ext = in6Ifextra(ifp);
  if (ext === null) return;
  const a = new NetAddr();
  a.setFrom(group);
  in6_setscope(a, ifp);
  const found = in6m_lookup(ifp, a);
  if (found === null || --found.in6m_refcount > 0) return;
  ext.in6_multi.splice(ext.in6_multi.indexOf(found), 1);
  if (ifp.if_type !== IFT_ETHER) return;
  ETHER_MAP_IPV6_MULTICAST(a, mac);
  if_delmulti(ifp, mac);
}
