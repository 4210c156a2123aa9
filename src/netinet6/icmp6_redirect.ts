/**
 * Redirects, after icmp6_redirect_input and icmp6_redirect_output of sys/netinet6/icmp6.c: RFC 4861, 8.
 * A valid one installs a host route, which ends after redirtimeout.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { NetAddr } from '../sys/addr.ts';
import {
  R_ICMP6_IGNORED,
  R_ICMP6_RATE,
  R_IP6_NOBUFS,
  R_ND6_BAD,
  R_ND6_FRAGMENT,
  type Reason,
} from '../sys/reason.ts';
import { kva } from '../sys/types.ts';
import { m_freem, m_getcl } from '../kern/kern_mbuf.ts';
import { type Mbuf, max_linkhdr, M_NOWAIT, M_PKTHDR, MT_DATA, mtod } from '../kern/mbuf.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import { ifConsole } from '../net/if.ts';
import { LLE_VALID } from '../net/if_llatbl.ts';
import type { Ifnet } from '../net/if_var.ts';
import { type Nhop, RTF_GATEWAY } from '../net/route.ts';
import { redirectRoutes } from '../net/route_redirect.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_CKSUM_OFF,
  ND_HLIM,
  ND_OPT_REDIRECTED_HEADER,
  ND_OPT_TARGET_LINKADDR,
  ND_RD_DST_OFF,
  ND_REDIRECT,
  ND_REDIRECT_LEN,
  ND_TARGET_OFF,
} from './icmp6.ts';
import { icmp6_errcount } from './icmp6_error.ts';
import { icmp6Count, V_icmp6 } from './icmp6_var.ts';
import {
  IN6_ADDR_BITS,
  in6Get,
  IN6_IS_ADDR_LINKLOCAL,
  IN6_IS_ADDR_MULTICAST,
  in6Put,
} from './in6.ts';
import { in6_cksum } from './in6_cksum.ts';
import { fib6_lookup } from './in6_fib.ts';
import {
  IN6_IFF_ANYCAST,
  IN6_IFF_NOTREADY,
  in6ifa_ifpforlinklocal,
  in6_localip,
} from './in6_var.ts';
import { Ip6, IP6_DST_OFF, IP6_SRC_OFF, IPPROTO_ICMPV6, IPV6_MMTU, IPV6_VERSION } from './ip6.ts';
import { ip6_output } from './ip6_output.ts';
import { M_FRAGMENTED, V_ip6 } from './ip6_var.ts';
import { nd6_cache_lladdr, nd6_is_addr_neighbor, nd6Table } from './nd6.ts';
import { ndLladdr, ndOpts, nd6_options, ND_OPT_LLADDR_LEN } from './nd6_options.ts';
import { ndPutLladdr } from './nd6_output.ts';
import { nd6Logs } from './nd6_var.ts';
import { in6ClearscopeAt, in6_setscope, ip6_sprintf } from './scope6.ts';

/** Bytes of the redirected header option before the packet. */
const ND_OPT_RD_HDR_LEN = 8;

const $ip6 = new Ip6();
const $src = new NetAddr();
const $dst = new NetAddr();
const $target = new NetAddr();

function drop(m: Mbuf, why: Reason): void {
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/**
 * The reason why the redirect from `$src` about packets for `$dst` to `$target` is invalid, or ''.
 * `hlim`: its hop limit.
 */
function invalid(ifp: Ifnet, hlim: number): string {
  const vnet = ifp.if_vnet;
  if (!IN6_IS_ADDR_LINKLOCAL($src)) return 'must be from linklocal';
  if (hlim !== ND_HLIM) {
    V_icmp6(vnet).stat.icp6s_invlhlim++;
    return `hlim=${hlim} (must be 255)`;
  }
  if (IN6_IS_ADDR_MULTICAST($dst)) return 'redirect dst must be unicast';
  const nh = fib6_lookup(vnet, $dst);
  if (nh === null) return 'no route found for redirect dst';
  if ((nh.nh_flags & RTF_GATEWAY) === 0)
    return 'no route with inet6 gateway found for redirect dst';
  // Only the current router may redirect.
  if (nh.nh_ifp !== ifp || !$src.equals(nh.nh_gateway)) return 'not equal to gw-for-src';
  if (!IN6_IS_ADDR_LINKLOCAL($target) && !$target.equals($dst))
    return 'neither router case nor onlink case';
  // Ours: FreeBSD would install a route to itself.
  return in6_localip(vnet, $target) ? 'target is an own address' : '';
}

/**
 * Input of a redirect of `len` contiguous bytes at offset `off` of `m`. Takes `m`.
 * @see sys/netinet6/icmp6.c
 */
export function icmp6_redirect_input(m: Mbuf, off: number, len: number): void {
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  const vnet = ifp.if_vnet;
  const { params, stat } = V_icmp6(vnet);
  if (V_ip6(vnet).params.forwarding || params.rediraccept === 0) return drop(m, R_ICMP6_IGNORED);
  if ((m.m_flags & M_FRAGMENTED) !== 0) return drop(m, R_ND6_FRAGMENT);
  const p = mtod(m);
  const rd = p + off;
  in6Get(p + IP6_SRC_OFF, $src);
  in6Get(rd + ND_TARGET_OFF, $target);
  in6Get(rd + ND_RD_DST_OFF, $dst);
  in6_setscope($target, ifp);
  in6_setscope($dst, ifp);
  let bad = invalid(ifp, $ip6.at(p).ip6_hlim);
  if (bad === '' && !nd6_options(vnet, rd + ND_REDIRECT_LEN, rd + len)) return drop(m, R_ND6_BAD);
  const found = bad === '' ? ndLladdr(ND_OPT_TARGET_LINKADDR) : 0;
  if (found < 0) bad = 'lladdrlen mismatch';
  if (bad !== '') {
    if (nd6Logs(vnet)) {
      const [src, dst, tgt] = [$src, $dst, $target].map((a) => ip6_sprintf(vnet, a));
      ifConsole.log?.(`ICMP6 redirect rejected; ${bad}: (src=${src} dst=${dst} tgt=${tgt})`);
    }
    stat.icp6s_badredirect++;
    return drop(m, R_ND6_BAD);
  }
  install(ifp, found > 0 ? ndOpts.lladdr : null, params.redirtimeout);
  m_freem(m);
}

/** Records the target's link-level address and installs the route: RFC 4861, 8.3. */
function install(ifp: Ifnet, lladdr: Uint8Array | null, seconds: number): void {
  const toRouter = !$target.equals($dst);
  nd6_cache_lladdr(ifp, $target, lladdr, ND_REDIRECT, toRouter);
  const ia = in6ifa_ifpforlinklocal(ifp, 0);
  if (ia === null) return;
  redirectRoutes(ifp.if_vnet, AF_INET6, IN6_ADDR_BITS).add(
    $dst,
    toRouter ? $target : null,
    ifp,
    ia,
    seconds,
  );
}

/** Whether a redirect may be sent about the packet from `$src` to `$dst` by `nh`: RFC 4861, 8.2. */
function mayRedirect(nh: Nhop): boolean {
  const ifp = nh.nh_ifp;
  if (!V_ip6(ifp.if_vnet).params.forwarding || IN6_IS_ADDR_MULTICAST($dst)) return false;
  // A router is redirected to by its link-local address only.
  if ((nh.nh_flags & RTF_GATEWAY) !== 0 && !IN6_IS_ADDR_LINKLOCAL(nh.nh_gateway)) return false;
  return nd6_is_addr_neighbor(ifp, $src);
}

/**
 * Sends the source of `m0`, the beginning of a packet that was forwarded by `nh` to the link from which
 * it came, a redirect to its next hop. The IPv6 header of `m0` contains the zones. Takes `m0`.
 * @see sys/netinet6/icmp6.c
 */
export function icmp6_redirect_output(m0: Mbuf, nh: Nhop): void {
  const ifp = nh.nh_ifp;
  const vnet = ifp.if_vnet;
  const v = V_icmp6(vnet);
  icmp6_errcount(vnet, ND_REDIRECT, 0);
  in6Get(mtod(m0) + IP6_SRC_OFF, $src);
  in6Get(mtod(m0) + IP6_DST_OFF, $dst);
  if (!mayRedirect(nh)) return drop(m0, R_ICMP6_IGNORED);
  if (!v.allow()) {
    v.stat.icp6s_toofreq++;
    return drop(m0, R_ICMP6_RATE);
  }
  const ia = in6ifa_ifpforlinklocal(ifp, IN6_IFF_NOTREADY | IN6_IFF_ANYCAST);
  if (ia === null) return drop(m0, R_ICMP6_IGNORED);
  const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
  if (m === null) return drop(m0, R_IP6_NOBUFS);
  m.m_data += max_linkhdr;
  const p = mtod(m);
  const rd = kva(p + Ip6.SIZE);
  mem.fill(0, p, p + IPV6_MMTU);
  $ip6.at(p);
  $ip6.ip6_flow = IPV6_VERSION << 24;
  $ip6.ip6_nxt = IPPROTO_ICMPV6;
  $ip6.ip6_hlim = ND_HLIM;
  in6Put(p + IP6_SRC_OFF, ia.ifa_addr);
  in6Put(p + IP6_DST_OFF, $src);
  mem[rd] = ND_REDIRECT;
  $target.setFrom((nh.nh_flags & RTF_GATEWAY) !== 0 ? nh.nh_gateway : $dst);
  in6Put(rd + ND_TARGET_OFF, $target);
  in6Put(rd + ND_RD_DST_OFF, $dst);
  in6ClearscopeAt(rd + ND_TARGET_OFF);
  in6ClearscopeAt(rd + ND_RD_DST_OFF);
  let end = rd + ND_REDIRECT_LEN;
  const lle = nd6Table(ifp)?.find($target) ?? null;
  if (lle !== null && (lle.la_flags & LLE_VALID) !== 0) {
    ndPutLladdr(end, ND_OPT_TARGET_LINKADDR, lle.ll_addr);
    end += ND_OPT_LLADDR_LEN;
  }
  end = putPacket(end, p + IPV6_MMTU, m0);
  m_freem(m0);
  const len = end - rd;
  m.m_len = m.m_pkthdr.len = Ip6.SIZE + len;
  $ip6.at(p).ip6_plen = len;
  memView.setUint16(rd + ICMP6_CKSUM_OFF, in6_cksum(m, IPPROTO_ICMPV6, Ip6.SIZE, len));
  icmp6Count(vnet, ND_REDIRECT);
  ip6_output(m, null, null, 0, null, vnet);
}

/**
 * Writes the option with as much of the packet `m0` as fits to `p`, at most up to `limit`, padded to a
 * multiple of 8 bytes. Returns its end.
 */
function putPacket(p: number, limit: number, m0: Mbuf): number {
  const room = (limit - p - ND_OPT_RD_HDR_LEN) & ~7;
  const from = mtod(m0);
  in6ClearscopeAt(from + IP6_SRC_OFF);
  in6ClearscopeAt(from + IP6_DST_OFF);
  const n = Math.min(m0.m_len, room);
  const len = ND_OPT_RD_HDR_LEN + ((n + 7) & ~7);
  mem[p] = ND_OPT_REDIRECTED_HEADER;
  mem[p + 1] = len >>> 3;
  mem.copyWithin(p + ND_OPT_RD_HDR_LEN, from, from + n);
  return p + len;
}
