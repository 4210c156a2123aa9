/**
 * IPv6's routing table, after sys/netinet6/in6_fib.c and in6_rmx.c: wraps the functions of
 * net/route.ts for IPv6 addresses, which contain their zone. What net/route.ts leaves out is left out
 * here too.
 */

import type { AddrWords } from '../sys/addr.ts';
import type { Errno } from '../sys/errno.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { V_loif } from '../net/if_loop.ts';
import {
  Nhop,
  rib_add_route,
  rib_del_route,
  rib_lookup_prefix,
  ribLookup,
  type Route,
  routeLookup,
  rtAddGateway,
  RTF_HOST,
  RTF_PINNED,
  RTF_STATIC,
  RTF_UP,
  rt_tables_get_rnh,
  type RtEntry,
} from '../net/route.ts';
import { IN6_ADDR_BITS } from './in6.ts';
import type { In6Ifaddr } from './in6_var.ts';
import { V_nd6 } from './nd6_var.ts';

/**
 * The next hop for `dst` by longest prefix match. Null: no route, or its interface is down.
 * @see fib(4), sys/netinet6/in6_fib.c
 */
export function fib6_lookup(vnet: Vnet, dst: AddrWords): Nhop | null {
  return ribLookup(rt_tables_get_rnh(vnet, AF_INET6), dst.w0, dst.w1, dst.w2, dst.w3);
}

/** Like `fib6_lookup`, but reuses the next hop cached in `ro` if it is still valid. */
export function in6RouteLookup(vnet: Vnet, ro: Route, dst: AddrWords): Nhop | null {
  return routeLookup(rt_tables_get_rnh(vnet, AF_INET6), ro, dst.w0, dst.w1, dst.w2, dst.w3);
}

/** Adds a route. Takes ownership of `nh`. EEXIST: a route to this prefix exists. */
export function in6RouteAdd(vnet: Vnet, dst: AddrWords, plen: number, nh: Nhop): Errno {
  return rib_add_route(rt_tables_get_rnh(vnet, AF_INET6), dst, plen, nh);
}

/**
 * Adds a static route by a gateway. `mtu` 0: use the MTU of the interface. ENETUNREACH: the gateway
 * is not on a connected network. EEXIST: a route to this prefix exists. @see route(8)
 */
export function in6RouteAddGateway(
  vnet: Vnet,
  dst: AddrWords,
  plen: number,
  gateway: AddrWords,
  mtu = 0,
): Errno {
  const rh = rt_tables_get_rnh(vnet, AF_INET6);
  return rtAddGateway(rh, dst, plen, gateway, mtu, plen === IN6_ADDR_BITS);
}

/** Removes the route to exactly this prefix. ESRCH: no such route. @see route(8) */
export function in6RouteDel(vnet: Vnet, dst: AddrWords, plen: number): Errno {
  return rib_del_route(rt_tables_get_rnh(vnet, AF_INET6), dst, plen);
}

/**
 * Adds the host route to a local address by lo0. Does nothing before lo0 is attached, and for an address
 * of another interface if net.inet6.icmp6.nd6_useloopback is 0.
 */
export function in6RouteToSelf(vnet: Vnet, ia: In6Ifaddr): void {
  const lo = V_loif(vnet).ifp;
  if (lo === null) return;
  if (ia.ifa_ifp !== lo && V_nd6(vnet).params.nd6_useloopback === 0) return;
  const flags = RTF_UP | RTF_HOST | RTF_STATIC | RTF_PINNED;
  in6RouteAdd(vnet, ia.ifa_addr, IN6_ADDR_BITS, new Nhop(lo, ia, null, flags, 0));
}

/** Removes the host route to the address `ia` by lo0: another host has the address. */
export function in6RouteNotSelf(vnet: Vnet, ia: In6Ifaddr): void {
  const rh = rt_tables_get_rnh(vnet, AF_INET6);
  const rt = rib_lookup_prefix(rh, ia.ifa_addr, IN6_ADDR_BITS);
  if (rt !== null && rt.rt_nhop.nh_ifa === ia) rib_del_route(rh, ia.ifa_addr, IN6_ADDR_BITS);
}

/** The entries, longest prefix first, for `netstat -r`. */
export function in6Routes(vnet: Vnet): readonly RtEntry[] {
  return rt_tables_get_rnh(vnet, AF_INET6).entries;
}
