/**
 * The lists of router discovery for ndp(8) and ifconfig(8), and their removal with an interface, after the
 * ioctls and sysctls of sys/netinet6/nd6.c and nd6_rtr.c. Times that are left are in seconds; null: no end.
 * A library: the commands use it.
 */

import type { AddrWords } from '../sys/addr.ts';
import { ENXIO, type Errno } from '../sys/errno.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { NeighborCache } from '../net/neighbor_cache.ts';
import { in6_purgeaddr } from './in6_ifaddr.ts';
import { IN6_IFF_AUTOCONF, in6Ifaddrs, in6Ifextra } from './in6_var.ts';
import { nd6_defrouter_purge } from './nd6_defrouter.ts';
import { nd6Dnslist, nd6DnsPurge } from './nd6_dns.ts';
import { nd6_prefix_del } from './nd6_prefix.ts';
import {
  ND_RA_FLAG_MANAGED,
  ND_RA_FLAG_OTHER,
  ND_RA_FLAG_RTPREF_HIGH,
  ND_RA_FLAG_RTPREF_LOW,
  ND_RA_FLAG_RTPREF_MASK,
  type NdDefrouter,
  NDPRF_DETACHED,
  NDPRF_ONLINK,
  routerReachable,
  V_nd6rtr,
} from './nd6_rtr_var.ts';

const SEC = 1e9;

function secondsLeft(expireNs: number): number | null {
  return expireNs === Infinity ? null : Math.max(0, Math.ceil((expireNs - nowNs()) / SEC));
}

/** A default router, as `ndp -r` prints it. @see ndp(8), struct in6_defrouter */
export interface Nd6Router {
  readonly rtaddr: AddrWords;
  readonly ifp: Ifnet;
  readonly managed: boolean;
  readonly other: boolean;
  readonly pref: 'low' | 'medium' | 'high' | 'rsv';
  /** As advertised, seconds. */
  readonly rtlifetime: number;
  readonly expire: number | null;
  /** Ours: the default route leads to it. */
  readonly installed: boolean;
}

function prefOf({ raflags }: NdDefrouter): Nd6Router['pref'] {
  switch (raflags & ND_RA_FLAG_RTPREF_MASK) {
    case ND_RA_FLAG_RTPREF_HIGH:
      return 'high';
    case ND_RA_FLAG_RTPREF_LOW:
      return 'low';
    default:
      return (raflags & ND_RA_FLAG_RTPREF_MASK) === 0 ? 'medium' : 'rsv';
  }
}

/** The default routers of a stack, for `ndp -r`: those that are preferred first. */
export function nd6Drlist(vnet: Vnet): Nd6Router[] {
  return V_nd6rtr(vnet).nd_defrouter.map((dr) => ({
    rtaddr: dr.rtaddr,
    ifp: dr.ifp,
    managed: (dr.raflags & ND_RA_FLAG_MANAGED) !== 0,
    other: (dr.raflags & ND_RA_FLAG_OTHER) !== 0,
    pref: prefOf(dr),
    rtlifetime: dr.rtlifetime,
    expire: secondsLeft(dr.expire),
    installed: dr.installed,
  }));
}

/** A prefix, as `ndp -p` prints it. @see ndp(8), struct in6_prefix */
export interface Nd6Prefix {
  readonly prefix: AddrWords;
  readonly prefixlen: number;
  readonly ifp: Ifnet;
  /** The flags L, A, O and D. */
  readonly raf_onlink: boolean;
  readonly raf_auto: boolean;
  readonly onlink: boolean;
  readonly detached: boolean;
  readonly vltime: number;
  readonly pltime: number;
  readonly expire: number | null;
  /** Addresses with the prefix. */
  readonly refcnt: number;
  readonly advrtrs: readonly {
    readonly rtaddr: AddrWords;
    readonly state: 'reachable' | 'unreachable' | 'no neighbor state';
  }[];
}

function stateOf(dr: NdDefrouter): Nd6Prefix['advrtrs'][number]['state'] {
  if (routerReachable(dr)) return 'reachable';
  const cache = dr.ifp.if_afdata[AF_INET6] ?? null;
  const known = cache instanceof NeighborCache && cache.table.find(dr.rtaddr) !== null;
  return known ? 'unreachable' : 'no neighbor state';
}

/** The prefixes of a stack, for `ndp -p`. */
export function nd6Prlist(vnet: Vnet): Nd6Prefix[] {
  return V_nd6rtr(vnet).nd_prefix.map((pr) => ({
    prefix: pr.ndpr_prefix,
    prefixlen: pr.ndpr_plen,
    ifp: pr.ndpr_ifp,
    raf_onlink: pr.ndpr_raf_onlink,
    raf_auto: pr.ndpr_raf_auto,
    onlink: (pr.ndpr_stateflags & NDPRF_ONLINK) !== 0,
    detached: (pr.ndpr_stateflags & NDPRF_DETACHED) !== 0,
    vltime: pr.ndpr_vltime,
    pltime: pr.ndpr_pltime,
    expire: secondsLeft(pr.expireNs),
    refcnt: pr.ndpr_addrcnt,
    advrtrs: pr.ndpr_advrtrs.map((dr) => ({ rtaddr: dr.rtaddr, state: stateOf(dr) })),
  }));
}

/** What `ndp -i` prints. Times in milliseconds. @see ndp(8), struct nd_ifinfo */
export interface Nd6IfinfoData {
  readonly linkmtu: number;
  readonly maxmtu: number;
  readonly chlim: number;
  readonly basereachable: number;
  readonly reachable: number;
  readonly retrans: number;
  /** ND6_IFF_*. */
  readonly flags: number;
}

/** The state of neighbour discovery on `ifp`, for `ndp -i`; null: IPv6 is not attached to it. */
export function nd6Ifinfo(ifp: Ifnet): Nd6IfinfoData | null {
  const nd = in6Ifextra(ifp)?.nd_ifinfo;
  if (nd === undefined) return null;
  const { chlim, basereachable, reachable, retrans, flags } = nd;
  const linkmtu = nd.linkmtu !== 0 ? Math.min(nd.linkmtu, ifp.if_mtu) : ifp.if_mtu;
  return { linkmtu, maxmtu: ifp.if_mtu, chlim, basereachable, reachable, retrans, flags };
}

/** A server or search domain of a router, for output; nothing uses it. RFC 8106. */
export interface Nd6DnsData {
  /** The address of a server; null: a domain. */
  readonly addr: AddrWords | null;
  readonly domain: string;
  readonly from: AddrWords;
  readonly expire: number | null;
}

/** The DNS servers and search domains that routers on `ifp` advertise. */
export function nd6Dns(ifp: Ifnet): Nd6DnsData[] {
  return nd6Dnslist(ifp).map(({ addr, domain, from, expire }) => ({
    addr,
    domain,
    from,
    expire: secondsLeft(expire),
  }));
}

/** The default interface of `ndp -I`, or null. */
export function nd6Defaultiface(vnet: Vnet): Ifnet | null {
  return V_nd6rtr(vnet).nd6_defifp;
}

/**
 * Sets the default interface: that of link-local addresses without a zone. Null: removes it. ENXIO: the
 * interface belongs to another stack or has no IPv6. @see ndp(8), sys/netinet6/nd6_rtr.c
 */
export function nd6_setdefaultiface(vnet: Vnet, ifp: Ifnet | null): Errno {
  if (ifp !== null && (ifp.if_vnet !== vnet || in6Ifextra(ifp) === null)) return ENXIO;
  V_nd6rtr(vnet).nd6_defifp = ifp;
  return 0;
}

/**
 * Removes what routers have advertised on `ifp`, and its prefixes. The addresses remain.
 * @see sys/netinet6/nd6.c
 */
export function nd6_purge(ifp: Ifnet): void {
  const v = V_nd6rtr(ifp.if_vnet);
  nd6_defrouter_purge(ifp);
  for (const pr of v.nd_prefix.filter(({ ndpr_ifp }) => ndpr_ifp === ifp)) nd6_prefix_del(pr);
  nd6DnsPurge(ifp);
  if (v.nd6_defifp === ifp) v.nd6_defifp = null;
}

/**
 * Removes the advertised prefixes with their addresses: `ndp -P`. A prefix that configured addresses have too
 * remains.
 */
export function nd6FlushPrefixes(vnet: Vnet): void {
  for (const pr of V_nd6rtr(vnet).nd_prefix.filter(({ learned }) => learned)) {
    for (const ia of in6Ifaddrs(vnet).slice())
      if (ia.ia6_ndpr === pr && (ia.ia6_flags & IN6_IFF_AUTOCONF) !== 0) in6_purgeaddr(ia);
    if (pr.ndpr_addrcnt === 0) nd6_prefix_del(pr);
  }
}

/** Removes all default routers: `ndp -R`. */
export function nd6FlushRouters(vnet: Vnet): void {
  for (const { ifp } of V_nd6rtr(vnet).nd_defrouter.slice()) nd6_defrouter_purge(ifp);
}
