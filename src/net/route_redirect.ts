/**
 * Routes that redirects install, after rib_add_redirect of sys/net/route/route_ctl.c: host routes with
 * a time-out. Unlike FreeBSD, the number of these routes has a limit, and a redirect replaces the route
 * of an earlier one.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import type { Task } from '../sys/clock.ts';
import {
  Callout,
  callout_pending,
  callout_reset,
  callout_stop,
  nowNs,
} from '../kern/kern_timeout.ts';
import { AF_MAX } from '../kern/protosw.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import type { Ifaddr, Ifnet } from './if_var.ts';
import {
  Nhop,
  rib_add_route,
  rib_del_route,
  rib_lookup_prefix,
  RTF_DYNAMIC,
  RTF_GATEWAY,
  RTF_HOST,
  RTF_UP,
  rt_tables_get_rnh,
} from './route.ts';

/** The most routes from redirects per family; a new one takes the place of the oldest. */
const MAX_ROUTES = 128;
const SEC = 1e9;

interface Redirected {
  readonly dst: AddrWords;
  readonly expiresNs: number;
}

/** The routes of one family that redirects installed, oldest first. */
class Redirects implements Task {
  readonly #vnet: Vnet;
  readonly #family: number;
  /** Bits of an address. */
  readonly #bits: number;
  readonly #routes: Redirected[] = [];
  readonly #callout = new Callout(this);

  constructor(vnet: Vnet, family: number, bits: number) {
    this.#vnet = vnet;
    this.#family = family;
    this.#bits = bits;
  }

  /**
   * Installs the route to `dst` by `gateway`, null: on the link of `ifp`, for `seconds`. A route of an
   * earlier redirect is replaced; another host route stays.
   */
  add(dst: AddrWords, gateway: AddrWords | null, ifp: Ifnet, ifa: Ifaddr, seconds: number): void {
    const old = this.#routes.findIndex(({ dst: { w0, w1, w2, w3 } }) => {
      return w0 === dst.w0 && w1 === dst.w1 && w2 === dst.w2 && w3 === dst.w3;
    });
    if (old >= 0) this.#remove(old);
    else if (this.#routes.length >= MAX_ROUTES) this.#remove(0);
    const flags = RTF_UP | RTF_HOST | RTF_DYNAMIC;
    const expiresNs = nowNs() + seconds * SEC;
    const nh = new Nhop(ifp, ifa, gateway, flags, 0, expiresNs);
    const to = new NetAddr();
    to.setFrom(dst);
    const rh = rt_tables_get_rnh(this.#vnet, this.#family);
    if (rib_add_route(rh, to, this.#bits, nh) !== 0) return;
    this.#routes.push({ dst: to, expiresNs });
    if (!callout_pending(this.#callout)) callout_reset(this.#callout, seconds * SEC);
  }

  /** The next hop of the route to `dst` if a redirect installed it, else null. */
  #nhop(dst: AddrWords): Nhop | null {
    const rh = rt_tables_get_rnh(this.#vnet, this.#family);
    const nh = rib_lookup_prefix(rh, dst, this.#bits)?.rt_nhop;
    return nh !== undefined && (nh.nh_flags & RTF_DYNAMIC) !== 0 ? nh : null;
  }

  /** Removes the route of entry `i`, unless the program has replaced it. */
  #remove(i: number): void {
    const { dst } = this.#routes.splice(i, 1)[0]!;
    if (this.#nhop(dst) !== null)
      rib_del_route(rt_tables_get_rnh(this.#vnet, this.#family), dst, this.#bits);
  }

  /** Removes the routes by the neighbour `addr` of `ifp`, and the route to it. */
  flush(ifp: Ifnet, addr: AddrWords): void {
    for (let i = this.#routes.length - 1; i >= 0; i--) {
      const { dst } = this.#routes[i]!;
      const nh = this.#nhop(dst);
      if (nh === null || nh.nh_ifp !== ifp) continue;
      const hop = (nh.nh_flags & RTF_GATEWAY) !== 0 ? nh.nh_gateway : dst;
      if (hop.w0 === addr.w0 && hop.w1 === addr.w1 && hop.w2 === addr.w2 && hop.w3 === addr.w3)
        this.#remove(i);
    }
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

const V_redirects = VNET_DEFINE(() => ({
  families: Array.from({ length: AF_MAX }, (): Redirects | null => null),
}));

/** The routes of redirects of a family whose addresses have `bits` bits. */
export function redirectRoutes(vnet: Vnet, family: number, bits: number): Redirects {
  const { families } = V_redirects(vnet);
  return (families[family] ??= new Redirects(vnet, family, bits));
}
