/**
 * IPv4's forwarding table, after sys/netinet/in_fib.c and in_rmx.c: the table of AF_INET in
 * net/route.ts, by IPv4 addresses. Left out: as there.
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
 * The next hop for `dst` by longest prefix, or null: no route, or its interface is down.
 * @see fib(4), sys/netinet/in_fib.c
 */
export function fib4_lookup(vnet: Vnet, dst: InAddr): Nhop | null {
  return ribLookup(rt_tables_get_rnh(vnet, AF_INET), dst, 0, 0, 0);
}

/** `fib4_lookup` unless `ro` still holds the result. */
export function inRouteLookup(vnet: Vnet, ro: Route, dst: InAddr): Nhop | null {
  return routeLookup(rt_tables_get_rnh(vnet, AF_INET), ro, dst, 0, 0, 0);
}

/** Adds a route; EEXIST if there is one to exactly this prefix. Takes over `nh`. */
export function inRouteAdd(vnet: Vnet, dst: InAddr, prefixlen: number, nh: Nhop): Errno {
  return rib_add_route(rt_tables_get_rnh(vnet, AF_INET), inNetAddr(dst), prefixlen, nh);
}

/**
 * Adds a static route by a gateway, which must be on a connected network: else ENETUNREACH. EEXIST
 * as above. `mtu` 0 takes the interface's. @see route(8)
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

/** Removes the route to exactly this prefix; ESRCH if there is none. @see route(8) */
export function inRouteDel(vnet: Vnet, dst: InAddr, prefixlen: number): Errno {
  return rib_del_route(rt_tables_get_rnh(vnet, AF_INET), inNetAddr(dst), prefixlen);
}

/** The table, longest prefix first, for `netstat -r`. */
export function inRoutes(vnet: Vnet): readonly RtEntry[] {
  return rt_tables_get_rnh(vnet, AF_INET).entries;
}
