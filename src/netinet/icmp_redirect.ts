/**
 * ICMP redirects on input, after icmp_input and icmp_verify_redirect_gateway of
 * sys/netinet/ip_icmp.c: a valid one installs a host route, which ends after redirtimeout.
 */

import type { InAddr } from '../sys/types.ts';
import { AF_INET } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { RTF_GATEWAY, RTF_HOST } from '../net/route.ts';
import { redirectRoutes } from '../net/route_redirect.ts';
import { inAddrOf, inNetAddr } from './in.ts';
import { fib4_lookup } from './in_fib.ts';
import { ifaOnLink, type InIfaddr } from './in_var.ts';
import { in_localip } from './ip_var.ts';

const BITS = 32;

/** The address by which `gateway` is reached, if `src` may redirect packets for `dst` to it. */
function valid(vnet: Vnet, src: InAddr, dst: InAddr, gateway: InAddr): InIfaddr | null {
  const ia = ifaOnLink(vnet, gateway);
  if (ia === null || in_localip(vnet, gateway)) return null;
  // Only the current router may redirect, and only to a router on the same network.
  const nh = fib4_lookup(vnet, dst);
  if (nh === null || (nh.nh_flags & RTF_GATEWAY) === 0 || (nh.nh_flags & RTF_HOST) !== 0)
    return null;
  return inAddrOf(nh.nh_gateway) === src && nh.nh_ifa === ia ? ia : null;
}

/**
 * Router `src` redirects packets for `dst` to `gateway`: installs the host route for `seconds` if the
 * redirect is valid (RFC 1122, 3.2.2.2). Returns whether it is. @see sys/netinet/ip_icmp.c
 */
export function icmpRedirect(
  vnet: Vnet,
  src: InAddr,
  dst: InAddr,
  gateway: InAddr,
  seconds: number,
): boolean {
  const ia = valid(vnet, src, dst, gateway);
  if (ia === null) return false;
  redirectRoutes(vnet, AF_INET, BITS).add(
    inNetAddr(dst),
    inNetAddr(gateway),
    ia.ifa_ifp,
    ia,
    seconds,
  );
  return true;
}

/** Stops the timer. Called when the stack is destroyed. */
export function icmpRedirectStop(vnet: Vnet): void {
  redirectRoutes(vnet, AF_INET, BITS).stop();
}
