/** What a lease configures on its interface: address, routes, MTU. After sbin/dhclient-script. */

import { type Errno, ENETUNREACH, errnoName, ESRCH } from '../../sys/errno.ts';
import type { InAddr } from '../../sys/types.ts';
import { AF_INET } from '../../kern/protosw.ts';
import { ifhwioctl } from '../../net/if.ts';
import { type Ifnet, SIOCSIFMTU } from '../../net/if_var.ts';
import { Nhop, RTF_HOST, RTF_STATIC, RTF_UP } from '../../net/route.ts';
import { INADDR_ANY, inet_ntoa, inNetAddr } from '../../netinet/in.ts';
import { inRouteAdd, inRouteAddGateway } from '../../netinet/in_fib.ts';
import { in_aifaddr, in_difaddr } from '../../netinet/in_ifaddr.ts';
import { inIfaddrOn } from '../../netinet/in_var.ts';
import { tcpDropLaddr } from '../../netinet/tcp_pcblist.ts';
import type { Lease, LeaseRoute } from './dhcp_lease.ts';

/** The default route: an address, none (null), or the one that the server names (`auto`). */
export type DhcpGateway = InAddr | null | 'auto';

export class LeaseConfig {
  readonly #ifp: Ifnet;
  readonly #gateway: DhcpGateway;
  readonly #problem: (text: string) => void;
  #lease: Lease | null = null;
  /** The MTU before the lease changed it; null: it did not. */
  #mtu: number | null = null;

  /** @param problem called with a line about a part of a lease that could not be applied */
  constructor(ifp: Ifnet, gateway: DhcpGateway, problem: (text: string) => void) {
    this.#ifp = ifp;
    this.#gateway = gateway;
    this.#problem = problem;
  }

  /**
   * Configures the interface. Returns the errno of adding the address; then nothing was changed.
   */
  apply(lease: Lease): Errno {
    const error = in_aifaddr(this.#ifp, lease.addr, lease.prefixlen);
    if (error !== 0) return error;
    this.#lease = lease;
    this.#setMtu(lease.mtu);
    for (const route of this.#routes(lease)) this.#addRoute(route);
    return 0;
  }

  /** Replaces the configuration by that of a renewed lease of the same address. */
  update(lease: Lease): void {
    const { addr } = lease;
    if (same(this.#lease, lease) && inIfaddrOn(this.#ifp, addr) !== null) return;
    in_difaddr(this.#ifp, addr);
    const error = this.apply(lease);
    if (error !== 0) this.#problem(`${inet_ntoa(addr)}: ${errnoName(error)}`);
  }

  /**
   * Removes the address, its routes and its connections, whose programs get ECONNABORTED. Returns
   * the number of connections.
   */
  remove(): number {
    const lease = this.#lease;
    this.#lease = null;
    if (lease === null) return 0;
    const { addr } = lease;
    // A connection of another interface may have the address if the user moved it.
    const mine = inIfaddrOn(this.#ifp, addr) !== null;
    const dropped = mine ? tcpDropLaddr(this.#ifp.if_vnet, AF_INET, inNetAddr(addr)) : 0;
    // EADDRNOTAVAIL: the user has removed the address.
    in_difaddr(this.#ifp, addr);
    this.#setMtu(null);
    return dropped;
  }

  /** Lowers the MTU; null: restores it. A server cannot raise it. */
  #setMtu(mtu: number | null): void {
    const ifp = this.#ifp;
    const own = this.#mtu ?? ifp.if_mtu;
    const wanted = mtu === null ? own : Math.min(mtu, own);
    this.#mtu = wanted === own ? null : own;
    if (wanted !== ifp.if_mtu) ifhwioctl(ifp, SIOCSIFMTU, wanted);
  }

  /** The routes of a lease. RFC 3442: with classless routes the routers do not count. */
  #routes({ routes, routers }: Lease): LeaseRoute[] {
    const byDefault = (gateway: InAddr): LeaseRoute => ({ dst: INADDR_ANY, prefixlen: 0, gateway });
    const all = routes ?? routers.slice(0, 1).map(byDefault);
    if (this.#gateway === 'auto') return [...all];
    const own = this.#gateway === null ? [] : [byDefault(this.#gateway)];
    return [...all.filter(({ prefixlen }) => prefixlen > 0), ...own];
  }

  #addRoute(route: LeaseRoute): void {
    const { dst, prefixlen, gateway } = route;
    const lease = this.#lease!;
    let error = gateway === INADDR_ANY ? this.#addOnLink(dst, prefixlen) : this.#addVia(route);
    // A network of one address contains no router: then the router is on the link.
    if (error === ENETUNREACH && lease.prefixlen === 32) {
      this.#addOnLink(gateway, 32);
      error = this.#addVia(route);
    }
    if (error === 0) return;
    const to = prefixlen === 0 ? 'default' : `${inet_ntoa(dst)}/${prefixlen}`;
    const why =
      error === ENETUNREACH
        ? `not on the network of ${inet_ntoa(lease.addr)}/${lease.prefixlen}`
        : errnoName(error);
    this.#problem(`route ${to} by ${inet_ntoa(gateway)} left out: ${why}`);
  }

  #addVia({ dst, prefixlen, gateway }: LeaseRoute): Errno {
    return inRouteAddGateway(this.#ifp.if_vnet, dst, prefixlen, gateway);
  }

  #addOnLink(dst: InAddr, prefixlen: number): Errno {
    const ia = inIfaddrOn(this.#ifp, this.#lease!.addr);
    if (ia === null) return ESRCH;
    const flags = RTF_UP | RTF_STATIC | (prefixlen === 32 ? RTF_HOST : 0);
    return inRouteAdd(this.#ifp.if_vnet, dst, prefixlen, new Nhop(this.#ifp, ia, null, flags, 0));
  }
}

/** Whether two leases configure the same. */
function same(a: Lease | null, b: Lease): boolean {
  const part = ({ addr, prefixlen, routers, routes, mtu }: Lease): string =>
    JSON.stringify([addr, prefixlen, routers[0], routes, mtu]);
  return a !== null && part(a) === part(b);
}
