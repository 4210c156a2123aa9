/**
 * Selection of the source address of a packet, after sys/netinet6/in6_src.c: RFC 6724, 5, with the
 * default policy table of 2.1. Left out: home addresses, a policy table that programs change
 * (ip6addrctl), per-socket preferences.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IFF_LOOPBACK, type Ifnet } from '../net/if_var.ts';
import { type InConninfo, INP_BINDANY, type Inpcb } from '../netinet/in_pcb.ts';
import {
  IN6_IS_ADDR_LOOPBACK,
  IN6_IS_ADDR_MULTICAST,
  in6_addrscope,
  in6_matchlen,
  parseIn6,
} from './in6.ts';
import { fib6_lookup } from './in6_fib.ts';
import {
  IFA6_IS_DEPRECATED,
  in6Enabled,
  IN6_IFF_ANYCAST,
  IN6_IFF_DEPRECATED,
  IN6_IFF_DETACHED,
  IN6_IFF_NOTREADY,
  IN6_IFF_TEMPORARY,
  type In6Ifaddr,
  in6Ifextra,
  in6ifa_ifwithaddr,
  ND6_IFF_NO_PREFER_IFACE,
  V_in6,
} from './in6_var.ts';
import { IP6PO_TEMPADDR_PREFER, IP6PO_TEMPADDR_SYSTEM, type Ip6Pktopts, V_ip6 } from './ip6_var.ts';
import { in6_getlinkifnet, in6_getscope, in6HasZone } from './scope6.ts';

const UNUSABLE = IN6_IFF_NOTREADY | IN6_IFF_ANYCAST | IN6_IFF_DETACHED;

interface Policy {
  readonly prefix: AddrWords;
  readonly plen: number;
  readonly label: number;
}

const policy = (text: string, plen: number, label: number): Policy => ({
  prefix: parseIn6(text)!,
  plen,
  label,
});

// RFC 6724, 2.1, longest prefix first. Source selection uses the labels only.
const policies: readonly Policy[] = [
  policy('::1', 128, 0),
  policy('::ffff:0:0', 96, 4),
  policy('::', 96, 3),
  policy('2001::', 32, 5),
  policy('2002::', 16, 2),
  policy('3ffe::', 16, 12),
  policy('fec0::', 10, 11),
  policy('fc00::', 7, 13),
  policy('::', 0, 1),
];

function labelOf(a: AddrWords): number {
  for (let i = 0; i < policies.length; i++) {
    const p = policies[i]!;
    if (in6_matchlen(a, p.prefix) >= p.plen) return p.label;
  }
  return 1;
}

/**
 * The interface of packets to `dst` that no route decides: that of the zone of a link-local address
 * or group; null: the route decides. @see sys/netinet6/in6_src.c (there in in6_selectroute)
 */
export function in6ZoneIf(vnet: Vnet, dst: AddrWords): Ifnet | null {
  const zone = in6_getscope(dst);
  return zone === 0 ? null : in6_getlinkifnet(vnet, zone);
}

/** The outgoing interface of packets to `dst`; null: no route. @see sys/netinet6/in6_src.c */
export function in6_selectif(vnet: Vnet, dst: AddrWords): Ifnet | null {
  if (IN6_IS_ADDR_MULTICAST(dst)) {
    const ifp = in6ZoneIf(vnet, dst);
    if (ifp !== null) return ifp;
  }
  const nh = fib6_lookup(vnet, dst);
  return nh === null ? null : nh.nh_ifp;
}

/** Whether `ia` may be the source of a packet to `dst` by `ifp`. */
function candidate(ia: In6Ifaddr, dst: AddrWords, ifp: Ifnet): boolean {
  if ((ia.ia6_flags & UNUSABLE) !== 0 || !in6Enabled(ia.ifa_ifp)) return false;
  const looped = (ifp.if_flags & IFF_LOOPBACK) !== 0;
  if (IN6_IS_ADDR_LOOPBACK(ia.ifa_addr) && !looped) return false;
  // The zone of the destination contains the source.
  const zone = in6_getscope(dst);
  if (zone !== 0) return ia.ifa_ifp.if_index === zone;
  const own = in6_getscope(ia.ifa_addr);
  return own === 0 || own === ifp.if_index;
}

function deprecated(ia: In6Ifaddr): boolean {
  return (ia.ia6_flags & IN6_IFF_DEPRECATED) !== 0 || IFA6_IS_DEPRECATED(ia);
}

/**
 * Whether TCP refuses new connections to the address of `inc`: it is deprecated, and
 * net.inet6.ip6.use_deprecated is 0. @see sys/netinet/tcp_input.c
 */
export function in6RefusesDeprecated(vnet: Vnet, inc: InConninfo): boolean {
  if (V_ip6(vnet).params.use_deprecated || inc.inc_family !== AF_INET6) return false;
  const ia = in6ifa_ifwithaddr(vnet, inc.inc_l0, inc.inc_l1, inc.inc_l2, inc.inc_l3);
  return ia !== null && deprecated(ia);
}

/**
 * Whether a program may send from `src`, which it named by IPV6_PKTINFO: an address of the stack whose
 * detection has ended. @see sys/netinet6/in6_src.c
 */
export function in6MaySendFrom(inp: Inpcb, src: AddrWords): boolean {
  // The zone of the interface that is chosen later is missing.
  if (in6HasZone(src.w0) && in6_getscope(src) === 0) return true;
  const ia = in6ifa_ifwithaddr(inp.inp_vnet, src.w0, src.w1, src.w2, src.w3);
  if (ia !== null && (ia.ia6_flags & (IN6_IFF_ANYCAST | IN6_IFF_NOTREADY)) === 0) return true;
  return (inp.inp_flags & INP_BINDANY) !== 0;
}

/** Whether rule 5 applies: prefer the addresses of the outgoing interface. */
function prefersIf(ifp: Ifnet): boolean {
  return ((in6Ifextra(ifp)?.nd_ifinfo.flags ?? 0) & ND6_IFF_NO_PREFER_IFACE) === 0;
}

/** RFC 6724, rule 2: whether scope `a` of a candidate is better than scope `b`; 0: equal. */
function compareScope(a: number, b: number, dst: number): number {
  if (a === b) return 0;
  return a < b ? (a < dst ? -1 : 1) : b < dst ? 1 : -1;
}

/** Rules 1 to 8: positive if `a` is a better source than `b` of packets to `dst` by `ifp`. */
function compare(a: In6Ifaddr, b: In6Ifaddr, dst: AddrWords, ifp: Ifnet, temp: boolean): number {
  const [x, y] = [a.ifa_addr, b.ifa_addr];
  if ($dst.equals(x) || $dst.equals(y)) return $dst.equals(x) ? 1 : -1;
  let d = compareScope(in6_addrscope(x), in6_addrscope(y), in6_addrscope(dst));
  if (d !== 0) return d;
  d = Number(deprecated(b)) - Number(deprecated(a));
  if (d !== 0) return d;
  d = prefersIf(ifp) ? Number(a.ifa_ifp === ifp) - Number(b.ifa_ifp === ifp) : 0;
  if (d !== 0) return d;
  const label = labelOf(dst);
  d = Number(labelOf(x) === label) - Number(labelOf(y) === label);
  if (d !== 0) return d;
  d = (a.ia6_flags & IN6_IFF_TEMPORARY) - (b.ia6_flags & IN6_IFF_TEMPORARY);
  if (d !== 0) return temp ? d : -d;
  return Math.min(in6_matchlen(x, dst), a.ia6_plen) - Math.min(in6_matchlen(y, dst), b.ia6_plen);
}
const $dst = new NetAddr();

/**
 * The source address of packets to `dst` that leave by `ifp`; null: no address fits. `opt` are the
 * sender's options, of which IPV6_PREFER_TEMPADDR counts.
 * @see sys/netinet6/in6_src.c
 */
export function in6_selectsrc(
  vnet: Vnet,
  dst: AddrWords,
  ifp: Ifnet,
  opt: Ip6Pktopts | null = null,
): In6Ifaddr | null {
  const { in6_ifaddrhead } = V_in6(vnet);
  const { params } = V_ip6(vnet);
  const { use_deprecated } = params;
  const asked = opt === null ? IP6PO_TEMPADDR_SYSTEM : opt.ip6po_prefer_tempaddr;
  const prefer_tempaddr =
    asked === IP6PO_TEMPADDR_SYSTEM ? params.prefer_tempaddr : asked === IP6PO_TEMPADDR_PREFER;
  $dst.setFrom(dst);
  let best: In6Ifaddr | null = null;
  for (let i = 0; i < in6_ifaddrhead.length; i++) {
    const ia = in6_ifaddrhead[i]!;
    if (!candidate(ia, dst, ifp) || (!use_deprecated && deprecated(ia))) continue;
    if (best === null || compare(ia, best, dst, ifp, prefer_tempaddr) > 0) best = ia;
  }
  return best;
}
