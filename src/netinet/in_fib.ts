/**
 * IPv4's routing table, after sys/netinet/in_fib.c and in_rmx.c: wraps the functions of
 * net/route.ts for IPv4 addresses. What net/route.ts leaves out is left out here too.
 */

import type { Errno } from '../sys/errno.ts';
import type { InAddr } from '../sys/types.ts';
import { AF_INET } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import {
  type Nhop,
  rib_add_route,
  rib_del_route,
  ribLookup,
  type Route,
  routeLookup,
  rtAddGateway,
  rt_tables_get_rnh,
  type RtEntry,
} from '../net/route.ts';
import { inNetAddr } from './in.ts';

/**
 * The next hop for `dst` by longest prefix match. Null: no route, or its interface is down.
 * @see fib(4), sys/netinet/in_fib.c
 */
export function fib4_lookup(vnet: Vnet, dst: InAddr): Nhop | null {
  return ribLookup(rt_tables_get_rnh(vnet, AF_INET), dst, 0, 0, 0);
}

/** Like `fib4_lookup`, but reuses the next hop cached in `ro` if it is still valid. */
export function inRouteLookup(vnet: Vnet, ro: Route, dst: InAddr): Nhop | null {
  return routeLookup(rt_tables_get_rnh(vnet, AF_INET), ro, dst, 0, 0, 0);
}

/** Adds a route. Takes ownership of `nh`. EEXIST: a route to this prefix exists. */
export function inRouteAdd(vnet: Vnet, dst: InAddr, prefixlen: number, nh: Nhop): Errno {
  return rib_add_route(rt_tables_get_rnh(vnet, AF_INET), inNetAddr(dst), prefixlen, nh);
}

/**
 * Adds a static route by a gateway. `mtu` 0: use the MTU of the interface. ENETUNREACH: the gateway
 * is not on a connected network. EEXIST: a route to this prefix exists. @see route(8)
 */
export function inRouteAddGateway(
  vnet: Vnet,
  dst: InAddr,
  prefixlen: number,
  gateway: InAddr,
  mtu = 0,
): Errno {
  const rh = rt_tables_get_rnh(vnet, AF_INET);
  return rtAddGateway(rh, inNetAddr(dst), prefixlen, inNetAddr(gateway), mtu, prefixlen === 32);
}

/** Removes the route to exactly this prefix. ESRCH: no such route. @see route(8) */
export function inRouteDel(vnet: Vnet, dst: InAddr, prefixlen: number): Errno {
  return rib_del_route(rt_tables_get_rnh(vnet, AF_INET), inNetAddr(dst), prefixlen);
}

/** The entries, longest prefix first. */
export function inRoutes(vnet: Vnet): readonly RtEntry[] {
  return rt_tables_get_rnh(vnet, AF_INET).entries;
}
