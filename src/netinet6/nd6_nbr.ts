/**
 * Neighbour solicitations and advertisements, after sys/netinet6/nd6_nbr.c: RFC 4861, 7.1 and 7.2.
 * Solicitations are sent by nd6_output.ts; duplicate address detection is in nd6_dad.ts. Left out:
 * carp, delayed answers for anycast addresses and proxies.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop, countInputDrop } from '../net/capture_drop.ts';
import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { R_ICMP6_IGNORED, R_ND6_BAD, R_ND6_FRAGMENT } from '../sys/reason.ts';
import { type Kva, kva } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { type Mbuf, mtod } from '../kern/mbuf.ts';
import { answersForAddresses, type Vnet } from '../kern/vnet.ts';
import { ifConsole } from '../net/if.ts';
import { type Llentry, LLE_PUB, LLE_STATIC, LLE_VALID } from '../net/if_llatbl.ts';
import type { Ifnet } from '../net/if_var.ts';
import { LOG_ND6, logAllowed } from '../net/log_limit.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_CKSUM_OFF,
  ND_HLIM,
  ND_NA_FLAG_OVERRIDE,
  ND_NA_FLAG_ROUTER,
  ND_NA_FLAG_SOLICITED,
  ND_NEIGHBOR_ADVERT,
  ND_NEIGHBOR_LEN,
  ND_NEIGHBOR_SOLICIT,
  ND_OPT_NONCE,
  ND_OPT_SOURCE_LINKADDR,
  ND_OPT_TARGET_LINKADDR,
  ND_TARGET_OFF,
} from './icmp6.ts';
import { icmp6Count, V_icmp6 } from './icmp6_var.ts';
import {
  in6addr_linklocal_allnodes,
  in6Get,
  IN6_IS_ADDR_MULTICAST,
  IN6_IS_ADDR_UNSPECIFIED,
  in6Put,
} from './in6.ts';
import { in6_cksum } from './in6_cksum.ts';
import { in6_selectsrc } from './in6_src.ts';
import {
  IN6_IFF_ANYCAST,
  IN6_IFF_DUPLICATED,
  IN6_IFF_NOTREADY,
  IN6_IFF_TENTATIVE,
  in6Ifextra,
  in6ifa_ifpwithaddr,
  isIn6Ifaddr,
  ND6_IFF_ACCEPT_RTADV,
} from './in6_var.ts';
import { Ip6, IP6_DST_OFF, IP6_SRC_OFF, IPPROTO_ICMPV6 } from './ip6.ts';
import { ip6_output } from './ip6_output.ts';
import { Ip6Moptions, M_FRAGMENTED, V_ip6 } from './ip6_var.ts';
import {
  type Nd6Table,
  nd6_cache_lladdr,
  nd6_is_addr_neighbor,
  nd6Table,
  sameLladdr,
} from './nd6.ts';
import { nd6_dad_na_input, nd6_dad_ns_input } from './nd6_dad.ts';
import { ndLladdr, ndOpts, nd6_options, ND_OPT_LLADDR_LEN } from './nd6_options.ts';
import { ndPacket, ndPutLladdr } from './nd6_output.ts';
import { nd6RouterChanged } from './nd6_rtr_var.ts';
import { ND6_LLINFO_REACHABLE, ND6_LLINFO_STALE, nd6Logs, V_nd6 } from './nd6_var.ts';
import { in6ClearscopeAt, in6_setscope, ip6_sprintf } from './scope6.ts';

const $ip6 = new Ip6();
const $src = new NetAddr();
const $dst = new NetAddr();
const $target = new NetAddr();
const $imo = new Ip6Moptions();

/** Writes a line about the message in `$src`, `$dst` and `$target`, if nd6_debug is set. */
function log(ifp: Ifnet, what: string): void {
  const vnet = ifp.if_vnet;
  if (!nd6Logs(vnet)) return;
  const [src, dst, tgt] = [$src, $dst, $target].map((a) => ip6_sprintf(vnet, a));
  ifConsole.log?.(`${what}: src=${src} dst=${dst} tgt=${tgt} on ${ifp.if_xname}`);
}

/**
 * Checks the hop limit of the message whose IPv6 header is at `p`, and sets `$src`, `$dst` and
 * `$target`. `icmp6` points to the contiguous message.
 */
function parse(ifp: Ifnet, p: Kva, icmp6: Kva): boolean {
  in6Get(p + IP6_SRC_OFF, $src);
  in6Get(p + IP6_DST_OFF, $dst);
  in6Get(icmp6 + ND_TARGET_OFF, $target);
  in6_setscope($target, ifp);
  if ($ip6.at(p).ip6_hlim === ND_HLIM) return true;
  V_icmp6(ifp.if_vnet).stat.icp6s_invlhlim++;
  return false;
}

function drop(m: Mbuf, why = R_ND6_BAD): void {
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/** Whether `a` is a solicited-node group. */
function isSolicitedNode(a: AddrWords): boolean {
  const low = a.w3 >>> 24 === 0xff && a.w2 === 1 && a.w1 === 0;
  return low && a.w0 >>> 16 === 0xff02;
}

/** The reason why the solicitation in `$src`, `$dst` and `$target` is invalid, or ''. */
function badSolicit(ifp: Ifnet): string {
  if (IN6_IS_ADDR_UNSPECIFIED($src)) {
    // RFC 4861, 7.1.1.
    if (!isSolicitedNode($dst)) return 'nd6_ns_input: bad DAD packet (wrong ip6 dst)';
  } else if (
    V_nd6(ifp.if_vnet).params.nd6_onlink_ns_rfc4861 === 0 &&
    !nd6_is_addr_neighbor(ifp, $src)
  ) {
    return 'nd6_ns_input: NS packet from non-neighbor';
  }
  return IN6_IS_ADDR_MULTICAST($target) ? 'nd6_ns_input: bad NS target (multicast)' : '';
}

/**
 * Input of a solicitation of `len` contiguous bytes at offset `off` of `m`. Takes `m`.
 * @see sys/netinet6/nd6_nbr.c
 */
export function nd6_ns_input(m: Mbuf, off: number, len: number): void {
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  const vnet = ifp.if_vnet;
  // RFC 6980, 5.
  if ((m.m_flags & M_FRAGMENTED) !== 0) return drop(m, R_ND6_FRAGMENT);
  const p = mtod(m);
  const ns = kva(p + off);
  let bad = parse(ifp, p, ns) ? badSolicit(ifp) : 'nd6_ns_input: invalid hlim';
  // A malformed option is counted by nd6_options and drops the message.
  if (bad === '' && !nd6_options(vnet, ns + ND_NEIGHBOR_LEN, ns + len)) return drop(m);
  if (bad === '' && IN6_IS_ADDR_UNSPECIFIED($src) && ndOpts.at[ND_OPT_SOURCE_LINKADDR] !== 0)
    bad = 'nd6_ns_input: bad DAD packet (link-layer address option)';
  if (bad === '') bad = solicited(ifp);
  if (bad !== '') {
    log(ifp, bad);
    V_icmp6(vnet).stat.icp6s_badns++;
    return drop(m);
  }
  m_freem(m);
}

/** Answers the valid solicitation for `$target`. Returns the reason why it is invalid after all. */
function solicited(ifp: Ifnet): string {
  const ia = in6ifa_ifpwithaddr(ifp, $target);
  const proxied = ia === null ? published(ifp) : null;
  const own = ia !== null && (ia.ia6_flags & IN6_IFF_DUPLICATED) === 0;
  if (!own && proxied === null) {
    countInputDrop(R_ICMP6_IGNORED);
    return '';
  }
  const found = ndLladdr(ND_OPT_SOURCE_LINKADDR);
  if (found < 0) return 'nd6_ns_input: lladdrlen mismatch';
  if ($src.equals($target)) {
    log(ifp, 'nd6_ns_input: duplicate IP6 address');
    countInputDrop(R_ICMP6_IGNORED);
    return '';
  }
  const dad = IN6_IS_ADDR_UNSPECIFIED($src);
  if (own && (ia.ia6_flags & IN6_IFF_TENTATIVE) !== 0) {
    if (dad) nd6_dad_ns_input(ia, ndOpts.at[ND_OPT_NONCE]!);
    else countInputDrop(R_ICMP6_IGNORED);
    return '';
  }
  // RFC 4861, 7.2.4: the option may be missing in the answer to a solicitation that was not sent to
  // a group; FreeBSD omits it.
  const tlladdr = IN6_IS_ADDR_MULTICAST($dst) ? (proxied?.ll_addr ?? ifp.if_lladdr) : null;
  // RFC 4861, 7.2.4 and 7.2.8: the answer of another host takes precedence.
  const override = own && (ia.ia6_flags & IN6_IFF_ANYCAST) === 0 && tlladdr !== null;
  const flags = routerFlag(ifp) | (override ? ND_NA_FLAG_OVERRIDE : 0);
  if (dad) {
    nd6_na_output(ifp, in6addr_linklocal_allnodes, $target, flags, tlladdr);
    return '';
  }
  nd6_cache_lladdr(ifp, $src, found > 0 ? ndOpts.lladdr : null, ND_NEIGHBOR_SOLICIT);
  nd6_na_output(ifp, $src, $target, flags | ND_NA_FLAG_SOLICITED, tlladdr);
  return '';
}

/** The entry of `$target` if this host answers for it: `ndp -s … proxy`; else null. */
function published(ifp: Ifnet): Llentry | null {
  const lle = nd6Table(ifp)?.find($target) ?? null;
  const flags = LLE_PUB | LLE_VALID;
  return lle !== null && (lle.la_flags & flags) === flags ? lle : null;
}

/** ND_NA_FLAG_ROUTER if this host forwards packets. */
function routerFlag(ifp: Ifnet): number {
  const { forwarding, norbit_raif } = V_ip6(ifp.if_vnet).params;
  const host = (in6Ifextra(ifp)!.nd_ifinfo.flags & ND6_IFF_ACCEPT_RTADV) !== 0 && norbit_raif;
  return forwarding && !host ? ND_NA_FLAG_ROUTER : 0;
}

/**
 * Sends an advertisement of `taddr` to `daddr`. `flags`: ND_NA_FLAG_*. `tlladdr`: the link-level address
 * to include; null: none. @see sys/netinet6/nd6_nbr.c
 */
function nd6_na_output(
  ifp: Ifnet,
  daddr: AddrWords,
  taddr: AddrWords,
  flags: number,
  tlladdr: Uint8Array | null,
): void {
  const vnet = ifp.if_vnet;
  if (!answersForAddresses(vnet)) return;
  $dst.setFrom(daddr);
  in6_setscope($dst, ifp);
  const ia = in6_selectsrc(vnet, $dst, ifp);
  if (ia === null) return;
  const len = ND_NEIGHBOR_LEN + (tlladdr === null ? 0 : ND_OPT_LLADDR_LEN);
  const m = ndPacket(len);
  if (m === null) return;
  const p = mtod(m);
  in6Put(p + IP6_SRC_OFF, ia.ifa_addr);
  in6Put(p + IP6_DST_OFF, $dst);
  const na = kva(p + Ip6.SIZE);
  mem[na] = ND_NEIGHBOR_ADVERT;
  memView.setInt32(na + 4, flags);
  in6Put(na + ND_TARGET_OFF, taddr);
  in6ClearscopeAt(na + ND_TARGET_OFF);
  if (tlladdr !== null) ndPutLladdr(na + ND_NEIGHBOR_LEN, ND_OPT_TARGET_LINKADDR, tlladdr);
  memView.setUint16(na + ICMP6_CKSUM_OFF, in6_cksum(m, IPPROTO_ICMPV6, Ip6.SIZE, len));
  icmp6Count(vnet, ND_NEIGHBOR_ADVERT);
  $imo.im6o_multicast_ifp = ifp;
  $imo.im6o_multicast_hlim = ND_HLIM;
  $imo.im6o_multicast_loop = false;
  ip6_output(m, null, null, 0, $imo, vnet);
}

/**
 * Announces the new link-level address of `ifp` to all nodes, once per address. Ours: RFC 4861, 7.2.6;
 * FreeBSD announces IPv4 addresses only.
 */
export function nd6Announce(ifp: Ifnet): void {
  for (const ia of ifp.if_addrhead) {
    if (!isIn6Ifaddr(ia) || (ia.ia6_flags & IN6_IFF_NOTREADY) !== 0) continue;
    const override = (ia.ia6_flags & IN6_IFF_ANYCAST) !== 0 ? 0 : ND_NA_FLAG_OVERRIDE;
    nd6_na_output(
      ifp,
      in6addr_linklocal_allnodes,
      ia.ifa_addr,
      routerFlag(ifp) | override,
      ifp.if_lladdr,
    );
  }
}

/**
 * Input of an advertisement of `len` contiguous bytes at offset `off` of `m`. Takes `m`.
 * @see sys/netinet6/nd6_nbr.c
 */
export function nd6_na_input(m: Mbuf, off: number, len: number): void {
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  const vnet = ifp.if_vnet;
  if ((m.m_flags & M_FRAGMENTED) !== 0) return drop(m, R_ND6_FRAGMENT);
  const p = mtod(m);
  const na = kva(p + off);
  let bad = parse(ifp, p, na) ? '' : 'nd6_na_input: invalid hlim';
  const flags = memView.getInt32(na + 4);
  if (bad === '' && IN6_IS_ADDR_MULTICAST($target)) bad = 'nd6_na_input: invalid target address';
  if (bad === '' && IN6_IS_ADDR_MULTICAST($dst) && (flags & ND_NA_FLAG_SOLICITED) !== 0)
    bad = 'nd6_na_input: a solicited adv is multicasted';
  if (bad === '' && !nd6_options(vnet, na + ND_NEIGHBOR_LEN, na + len)) return drop(m);
  if (bad === '') bad = advertised(ifp, vnet, flags);
  if (bad !== '') {
    log(ifp, bad);
    V_icmp6(vnet).stat.icp6s_badna++;
    return drop(m);
  }
  m_freem(m);
}

/** Processes the valid advertisement of `$target`. Returns the reason why it is invalid after all. */
function advertised(ifp: Ifnet, vnet: Vnet, flags: number): string {
  const ia = in6ifa_ifpwithaddr(ifp, $target);
  if (ia !== null) {
    if ((ia.ia6_flags & IN6_IFF_TENTATIVE) !== 0) {
      nd6_dad_na_input(ia);
      return '';
    }
    countInputDrop(R_ICMP6_IGNORED);
    if (logAllowed(vnet, LOG_ND6))
      ifConsole.log?.(`nd6_na_input: duplicate IP6 address ${ip6_sprintf(vnet, $target)}`);
    return '';
  }
  const found = ndLladdr(ND_OPT_TARGET_LINKADDR);
  if (found < 0) return 'nd6_na_input: lladdrlen mismatch';
  const nd = nd6Table(ifp);
  const lle = nd?.find($target) ?? null;
  if (nd === null || lle === null || (lle.la_flags & LLE_STATIC) !== 0) {
    countInputDrop(R_ICMP6_IGNORED);
    return '';
  }
  const lladdr = found > 0 ? ndOpts.lladdr : null;
  if ((lle.la_flags & LLE_VALID) === 0) resolved(nd, lle, lladdr, flags);
  else updated(nd, lle, lladdr, flags);
  return '';
}

/** RFC 4861, 7.2.5: an advertisement for an entry without a link-level address. */
function resolved(nd: Nd6Table, lle: Llentry, lladdr: Uint8Array | null, flags: number): void {
  if (lladdr === null) return countInputDrop(R_ICMP6_IGNORED);
  const answer = (flags & ND_NA_FLAG_SOLICITED) !== 0;
  lle.ln_router = (flags & ND_NA_FLAG_ROUTER) !== 0;
  nd.learned(lle, lladdr, answer ? ND6_LLINFO_REACHABLE : ND6_LLINFO_STALE);
  const ifp = lle.lle_ifp;
  if (lle.ln_router) nd6RouterChanged(ifp);
}

/** RFC 4861, 7.2.5: an advertisement for an entry with a link-level address. */
function updated(nd: Nd6Table, lle: Llentry, lladdr: Uint8Array | null, flags: number): void {
  const changed = lladdr !== null && !sameLladdr(lle.ll_addr, lladdr);
  if (changed && (flags & ND_NA_FLAG_OVERRIDE) === 0) {
    // The neighbour may have moved, or another host claims its address: check it soon.
    if (lle.ln_state === ND6_LLINFO_REACHABLE) nd.setState(lle, ND6_LLINFO_STALE);
    return;
  }
  if (changed) lle.setAddr(lladdr);
  if ((flags & ND_NA_FLAG_SOLICITED) !== 0) {
    lle.ln_byhint = 0;
    nd.setState(lle, ND6_LLINFO_REACHABLE);
  } else if (changed) nd.setState(lle, ND6_LLINFO_STALE);
  const router = (flags & ND_NA_FLAG_ROUTER) !== 0;
  if (lle.ln_router && !router) nd.notRouter(lle);
  lle.ln_router = router;
  lle.la_asked = 0;
}
