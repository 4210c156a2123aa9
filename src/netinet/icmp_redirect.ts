/**
 * ICMP redirects on input, after icmp_input and icmp_verify_redirect_gateway of
 * sys/netinet/ip_icmp.c and rib_add_redirect of sys/net/route.c: a valid one installs a host route,
 * which ends after redirtimeout. Unlike FreeBSD, the number of these routes has a limit.
 */

import type { Task } from '../sys/clock.ts';
import type { InAddr } from '../sys/types.ts';
import {
  Callout,
  callout_pending,
  callout_reset,
  callout_stop,
  nowNs,
} from '../kern/kern_timeout.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { Nhop, RTF_DYNAMIC, RTF_GATEWAY, RTF_HOST, RTF_UP } from '../net/route.ts';
import { inAddrOf, inNetAddr } from './in.ts';
import { fib4_lookup, inRouteAdd, inRouteDel, inRouteTo } from './in_fib.ts';
import { ifaOnLink, type InIfaddr } from './in_var.ts';
import { in_localip } from './ip_var.ts';

/** The most routes from redirects; a new one takes the place of the oldest. */
const MAX_ROUTES = 128;
const SEC = 1e9;

/** The routes of a stack that redirects installed, oldest first. */
class Redirects implements Task {
  readonly #vnet: Vnet;
  readonly #routes: { dst: InAddr; expiresNs: number }[] = [];
  readonly #callout = new Callout(this);

  constructor(vnet: Vnet) {
    this.#vnet = vnet;
  }

  add(dst: InAddr, gateway: InAddr, ia: InIfaddr, seconds: number): void {
    if (this.#routes.length >= MAX_ROUTES) this.#remove(0);
    const flags = RTF_UP | RTF_GATEWAY | RTF_HOST | RTF_DYNAMIC;
    const expiresNs = nowNs() + seconds * SEC;
    const nh = new Nhop(ia.ifa_ifp, ia, inNetAddr(gateway), flags, 0, expiresNs);
    if (inRouteAdd(this.#vnet, dst, 32, nh) !== 0) return;
    this.#routes.push({ dst, expiresNs });
    if (!callout_pending(this.#callout)) callout_reset(this.#callout, seconds * SEC);
  }

  /** Removes the route of entry `i`, unless the program has replaced it. */
  #remove(i: number): void {
    const { dst } = this.#routes.splice(i, 1)[0]!;
    const nh = inRouteTo(this.#vnet, dst, 32)?.rt_nhop;
    const ours = nh !== undefined && (nh.nh_flags & RTF_DYNAMIC) !== 0;
    if (ours) inRouteDel(this.#vnet, dst, 32);
  }

  /** Timer: removes the routes whose time has passed. */
  run(): void {
    const now = nowNs();
    let next = Infinity;
    for (let i = this.#routes.length - 1; i >= 0; i--) {
      const { expiresNs } = this.#routes[i]!;
      if (expiresNs <= now) this.#remove(i);
      else next = Math.min(next, expiresNs);
    }
    if (next !== Infinity) callout_reset(this.#callout, next - now);
  }

  stop(): void {
    callout_stop(this.#callout);
    this.#routes.length = 0;
  }
}

const V_redirects = VNET_DEFINE((vnet) => new Redirects(vnet));

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
  V_redirects(vnet).add(dst, gateway, ia, seconds);
  return true;
}

/** Stops the timer. Called when the stack is destroyed. */
export function icmpRedirectStop(vnet: Vnet): void {
  V_redirects(vnet).stop();
}
