/**
 * Neighbour solicitations and advertisements, after sys/netinet6/nd6_nbr.c: RFC 4861, 7.1 and 7.2.
 * Solicitations are sent by nd6_output.ts. Left out so far: duplicate address detection (an address is
 * ready at once), the state machine of 7.2.5 beyond the link-level address.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { count, R_ICMP6_IGNORED, R_ND6_BAD } from '../sys/reason.ts';
import { type Kva, kva } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { type Mbuf, mtod } from '../kern/mbuf.ts';
import { LLE_STATIC, LLE_VALID } from '../net/if_llatbl.ts';
import { ETHER_ADDR_LEN, type Ifnet } from '../net/if_var.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_CKSUM_OFF,
  ND_HLIM,
  ND_NA_FLAG_OVERRIDE,
  ND_NA_FLAG_SOLICITED,
  ND_NEIGHBOR_ADVERT,
  ND_NEIGHBOR_LEN,
  ND_OPT_SOURCE_LINKADDR,
  ND_OPT_TARGET_LINKADDR,
  ND_TARGET_OFF,
} from './icmp6.ts';
import { icmp6Count } from './icmp6_var.ts';
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
  IN6_IFF_NOTREADY,
  IN6_IFF_TENTATIVE,
  type In6Ifaddr,
  in6ifa_ifpwithaddr,
} from './in6_var.ts';
import { Ip6, IP6_DST_OFF, IP6_SRC_OFF, IPPROTO_ICMPV6 } from './ip6.ts';
import { ip6_output } from './ip6_output.ts';
import { Ip6Moptions } from './ip6_var.ts';
import {
  ND6_LLINFO_REACHABLE,
  ND6_LLINFO_STALE,
  nd6_cache_lladdr,
  nd6Table,
  sameLladdr,
} from './nd6.ts';
import { ndPacket, ndPutLladdr, ND_OPT_LLADDR_LEN } from './nd6_output.ts';
import { in6_clearscope, in6_setscope } from './scope6.ts';

const $ip6 = new Ip6();
const $src = new NetAddr();
const $dst = new NetAddr();
const $target = new NetAddr();
const $imo = new Ip6Moptions();
// The link-level address of an option, and whether the message had it.
const lladdr = new Uint8Array(ETHER_ADDR_LEN);

/**
 * Looks for the option `type` in the options at `p`, which end at `end`, and copies its address to
 * `lladdr`. 1: found. 0: not there. -1: a malformed option, so the message must be dropped (RFC 4861,
 * 4.6). @see sys/netinet6/nd6.c (there nd6_options)
 */
function findLladdr(p: number, end: number, type: number): number {
  let found = 0;
  while (p < end) {
    const len = p + 1 < end ? mem[p + 1]! << 3 : 0;
    if (len === 0 || p + len > end) return -1;
    if (mem[p] === type && found === 0) {
      for (let i = 0; i < ETHER_ADDR_LEN; i++) lladdr[i] = mem[p + 2 + i]!;
      found = 1;
    }
    p += len;
  }
  return found;
}

function bad(m: Mbuf): void {
  count(R_ND6_BAD);
  m_freem(m);
}

/**
 * Checks what solicitations and advertisements have in common, and sets `$src`, `$dst` and `$target`.
 * `icmp6` points to `len` contiguous bytes. Returns whether the message is valid.
 */
function parse(ifp: Ifnet, p: Kva, icmp6: Kva, len: number): boolean {
  if ($ip6.at(p).ip6_hlim !== ND_HLIM || mem[icmp6 + 1] !== 0 || len < ND_NEIGHBOR_LEN)
    return false;
  in6Get(p + IP6_SRC_OFF, $src);
  in6Get(p + IP6_DST_OFF, $dst);
  in6Get(icmp6 + ND_TARGET_OFF, $target);
  in6_setscope($target, ifp);
  return !IN6_IS_ADDR_MULTICAST($target);
}

/**
 * Input of a solicitation of `len` contiguous bytes at offset `off` of `m`. Takes `m`.
 * @see sys/netinet6/nd6_nbr.c
 */
export function nd6_ns_input(m: Mbuf, off: number, len: number): void {
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  const p = mtod(m);
  const ns = kva(p + off);
  if (!parse(ifp, p, ns, len)) return bad(m);
  const found = findLladdr(ns + ND_NEIGHBOR_LEN, ns + len, ND_OPT_SOURCE_LINKADDR);
  const dad = IN6_IS_ADDR_UNSPECIFIED($src);
  // RFC 4861, 7.1.1: from `::`, to a solicited-node group and without the option.
  if (found < 0 || (dad && (found > 0 || !IN6_IS_ADDR_MULTICAST($dst)))) return bad(m);
  const ia = in6ifa_ifpwithaddr(ifp, $target);
  if (ia === null || (ia.ia6_flags & IN6_IFF_NOTREADY) !== 0) {
    count(R_ICMP6_IGNORED);
    m_freem(m);
    return;
  }
  if (found > 0) nd6_cache_lladdr(ifp, $src, lladdr);
  const to = dad ? in6addr_linklocal_allnodes : $src;
  nd6_na_output(ifp, to, $target, ND_NA_FLAG_OVERRIDE | (dad ? 0 : ND_NA_FLAG_SOLICITED), true);
  m_freem(m);
}

/**
 * Sends an advertisement of our address `taddr` to `daddr`. `flags`: ND_NA_FLAG_*. `tlladdr`: include
 * our link-level address. @see sys/netinet6/nd6_nbr.c
 */
function nd6_na_output(
  ifp: Ifnet,
  daddr: AddrWords,
  taddr: AddrWords,
  flags: number,
  tlladdr: boolean,
): void {
  const vnet = ifp.if_vnet;
  $dst.setFrom(daddr);
  in6_setscope($dst, ifp);
  const ia = in6_selectsrc(vnet, $dst, ifp);
  if (ia === null) return;
  const len = ND_NEIGHBOR_LEN + (tlladdr ? ND_OPT_LLADDR_LEN : 0);
  const m = ndPacket(len);
  if (m === null) return;
  const p = mtod(m);
  in6Put(p + IP6_SRC_OFF, ia.ifa_addr);
  in6Put(p + IP6_DST_OFF, $dst);
  const na = kva(p + Ip6.SIZE);
  mem[na] = ND_NEIGHBOR_ADVERT;
  memView.setInt32(na + 4, flags);
  in6Put(na + ND_TARGET_OFF, taddr);
  // The message has no zone; the header keeps it for ip6_output.
  memView.setInt32(na + ND_TARGET_OFF, wireWord(taddr));
  if (tlladdr) ndPutLladdr(na + ND_NEIGHBOR_LEN, ND_OPT_TARGET_LINKADDR, ifp);
  memView.setUint16(na + ICMP6_CKSUM_OFF, in6_cksum(m, IPPROTO_ICMPV6, Ip6.SIZE, len));
  icmp6Count(vnet, ND_NEIGHBOR_ADVERT);
  $imo.im6o_multicast_ifp = ifp;
  $imo.im6o_multicast_hlim = ND_HLIM;
  $imo.im6o_multicast_loop = false;
  ip6_output(m, null, null, 0, $imo, vnet);
}

/** The first word of `a` without its zone. */
function wireWord(a: AddrWords): number {
  $target.setFrom(a);
  in6_clearscope($target);
  return $target.w0;
}

/**
 * Input of an advertisement of `len` contiguous bytes at offset `off` of `m`. Takes `m`.
 * @see sys/netinet6/nd6_nbr.c
 */
export function nd6_na_input(m: Mbuf, off: number, len: number): void {
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  const p = mtod(m);
  const na = kva(p + off);
  if (!parse(ifp, p, na, len)) return bad(m);
  const flags = memView.getInt32(na + 4);
  const solicited = (flags & ND_NA_FLAG_SOLICITED) !== 0;
  const found = findLladdr(na + ND_NEIGHBOR_LEN, na + len, ND_OPT_TARGET_LINKADDR);
  if (found < 0 || (solicited && IN6_IS_ADDR_MULTICAST($dst))) return bad(m);
  advertised(ifp, flags, solicited, found > 0);
  m_freem(m);
}

/** Updates the entry of `$target` with an advertisement; `lladdr` is valid if `has`. */
function advertised(ifp: Ifnet, flags: number, solicited: boolean, has: boolean): void {
  const nd = nd6Table(ifp);
  const lle = nd?.find($target) ?? null;
  if (nd === null || lle === null || (lle.la_flags & LLE_STATIC) !== 0) return;
  const valid = (lle.la_flags & LLE_VALID) !== 0;
  if (!has) return;
  const changed = !valid || !sameLladdr(lle.ll_addr, lladdr);
  if (valid && changed && (flags & ND_NA_FLAG_OVERRIDE) === 0) return;
  if (changed || solicited)
    nd.learned(lle, lladdr, solicited ? ND6_LLINFO_REACHABLE : ND6_LLINFO_STALE);
}

/**
 * Starts duplicate address detection of a tentative address. A stub: the address is ready.
 * @see sys/netinet6/nd6_nbr.c
 */
export function nd6_dad_start(ia: In6Ifaddr): void {
  ia.ia6_flags &= ~IN6_IFF_TENTATIVE;
}

/**
 * Ends duplicate address detection of an address that is removed. A stub.
 * @see sys/netinet6/nd6_nbr.c
 */
export function nd6_dad_stop(_ia: In6Ifaddr): void {}
