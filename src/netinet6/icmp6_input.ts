/**
 * Input of ICMPv6, after sys/netinet6/icmp6.c (RFC 4443): answers echo requests, passes received errors
 * to the transport protocols, neighbour discovery to nd6_nbr.ts, MLD to mld6.ts, and everything to raw
 * sockets. Left out: node information queries, router renumbering.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop, countInputDrop, inputSubject, pullupInput } from '../net/capture_drop.ts';
import {
  R_ICMP6_IGNORED,
  R_ICMP6_SHORT,
  R_ICMP6_SUM,
  R_IP6_NOBUFS,
  R_ND6_BAD,
  type Reason,
} from '../sys/reason.ts';
import { type Kva, kva } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { M_COPYALL, type Mbuf, max_linkhdr, MCLBYTES, M_NOWAIT, mtod } from '../kern/mbuf.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import { m_copym, m_defrag, m_dup } from '../kern/uipc_mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { InConninfo } from '../netinet/in_pcb.ts';
import {
  PRC_MSGSIZE,
  PRC_PARAMPROB,
  PRC_TIMXCEED_INTRANS,
  PRC_UNREACH_ADMIN_PROHIB,
  PRC_UNREACH_NET,
  PRC_UNREACH_PORT,
} from '../netinet/ip_var.ts';
import { tcp_hc_getmtu, tcp_hc_updatemtu } from '../netinet/tcp_hostcache.ts';
import { V_tcp } from '../netinet/tcp_var.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_DST_UNREACH,
  ICMP6_DST_UNREACH_ADDR,
  ICMP6_DST_UNREACH_ADMIN,
  ICMP6_DST_UNREACH_BEYONDSCOPE,
  ICMP6_DST_UNREACH_NOPORT,
  ICMP6_DST_UNREACH_NOROUTE,
  ICMP6_ECHO_REPLY,
  ICMP6_ECHO_REQUEST,
  ICMP6_MINLEN,
  ICMP6_PACKET_TOO_BIG,
  ICMP6_PARAM_PROB,
  ICMP6_PARAMPROB_HEADER,
  ICMP6_PARAMPROB_NEXTHEADER,
  ICMP6_PARAMPROB_OPTION,
  ICMP6_TIME_EXCEEDED,
  ICMP6_TIME_EXCEED_REASSEMBLY,
  MLD_LISTENER_DONE,
  MLD_LISTENER_QUERY,
  MLD_LISTENER_REPORT,
  MLDV2_LISTENER_REPORT,
  ND_NEIGHBOR_ADVERT,
  ND_NEIGHBOR_LEN,
  ND_NEIGHBOR_SOLICIT,
  ND_REDIRECT,
  ND_REDIRECT_LEN,
  ND_ROUTER_ADVERT,
  ND_ROUTER_ADVERT_LEN,
  ND_ROUTER_SOLICIT,
} from './icmp6.ts';
import { icmp6_reflect, ip6_lasthdr, lasthdr } from './icmp6_error.ts';
import { icmp6_redirect_input } from './icmp6_redirect.ts';
import { V_icmp6 } from './icmp6_var.ts';
import { in6Get, IN6_IS_ADDR_MULTICAST } from './in6.ts';
import { in6_cksum } from './in6_cksum.ts';
import { fib6_lookup } from './in6_fib.ts';
import { in6_localip } from './in6_var.ts';
import { Ip6, IP6_DST_OFF, IP6_SRC_OFF, IPPROTO_DONE, IPPROTO_ICMPV6, IPV6_MMTU } from './ip6.ts';
import { ip6Input, type Ip6Proto, V_ip6 } from './ip6_var.ts';
import { mld_input } from './mld6.ts';
import { nd6_na_input, nd6_ns_input } from './nd6_nbr.ts';
import { nd6_ra_input, nd6_rs_input } from './nd6_rtr.ts';
import { NetAddr } from '../sys/addr.ts';
import { in6SetscopeAt } from './scope6.ts';

/** Bytes that an error must quote: the IPv6 header and 8 bytes of the payload. */
const QUOTE_MIN = Ip6.SIZE + 8;

const $inc = new InConninfo();
const $src = new NetAddr();
const $dst = new NetAddr();

function drop(m: Mbuf, why: Reason): void {
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/** The PRC_* command of an error's type and code; -1: unknown code. */
function commandOf(type: number, code: number): number {
  switch (type) {
    case ICMP6_DST_UNREACH:
      switch (code) {
        case ICMP6_DST_UNREACH_NOROUTE:
        case ICMP6_DST_UNREACH_ADDR:
        case ICMP6_DST_UNREACH_BEYONDSCOPE:
          return PRC_UNREACH_NET;
        case ICMP6_DST_UNREACH_ADMIN:
          return PRC_UNREACH_ADMIN_PROHIB;
        case ICMP6_DST_UNREACH_NOPORT:
          return PRC_UNREACH_PORT;
        default:
          return -1;
      }
    case ICMP6_PACKET_TOO_BIG:
      return code === 0 ? PRC_MSGSIZE : -1;
    case ICMP6_TIME_EXCEEDED:
      return code <= ICMP6_TIME_EXCEED_REASSEMBLY ? PRC_TIMXCEED_INTRANS + code : -1;
    default:
      // A host that knows no such protocol is as one without the port: RFC 4443, 3.4.
      if (code === ICMP6_PARAMPROB_NEXTHEADER) return PRC_UNREACH_PORT;
      return code === ICMP6_PARAMPROB_HEADER || code === ICMP6_PARAMPROB_OPTION
        ? PRC_PARAMPROB
        : -1;
  }
}

/**
 * Records the path MTU of a "packet too big" about a packet to `$dst`, unless it would increase the known
 * one (RFC 8201, 4); returns the MTU to use. @see sys/netinet6/icmp6.c
 */
function icmp6_mtudisc_update(mtu: number, vnet: Vnet): number {
  // A smaller one means: send with a fragment header (ip6_getpmtu).
  const use = mtu < IPV6_MMTU ? IPV6_MMTU - 8 : mtu;
  $inc.inc_family = AF_INET6;
  $inc.faddrFrom($dst);
  const known = tcp_hc_getmtu(V_tcp(vnet), $inc);
  const limit = known !== 0 ? known : (fib6_lookup(vnet, $dst)?.nh_mtu ?? 0);
  if (use >= limit) return use;
  tcp_hc_updatemtu(V_tcp(vnet), $inc, use);
  V_icmp6(vnet).stat.icp6s_pmtuchg++;
  return use;
}

/**
 * Passes an error about one of our packets to its transport protocol. `icp` points to `len` contiguous
 * bytes of the message. @see sys/netinet6/icmp6.c
 */
function icmp6_notify_error(ifp: Ifnet, icp: Kva, len: number, vnet: Vnet): void {
  const { stat } = V_icmp6(vnet);
  const cmd = commandOf(mem[icp]!, mem[icp + 1]!);
  if (cmd < 0) {
    stat.icp6s_badcode++;
    return;
  }
  if (len < ICMP6_MINLEN + QUOTE_MIN) {
    stat.icp6s_tooshort++;
    return countInputDrop(R_ICMP6_SHORT);
  }
  const oip6 = kva(icp + ICMP6_MINLEN);
  in6SetscopeAt(oip6 + IP6_SRC_OFF, ifp);
  in6SetscopeAt(oip6 + IP6_DST_OFF, ifp);
  in6Get(oip6 + IP6_SRC_OFF, $src);
  in6Get(oip6 + IP6_DST_OFF, $dst);
  const have = len - ICMP6_MINLEN;
  if (!in6_localip(vnet, $src) || !ip6_lasthdr(oip6, have)) return countInputDrop(R_ICMP6_IGNORED);
  const { off, nxt } = lasthdr;
  if (have < off + 8) {
    stat.icp6s_tooshort++;
    return countInputDrop(R_ICMP6_SHORT);
  }
  const mtu = cmd === PRC_MSGSIZE ? icmp6_mtudisc_update(memView.getUint32(icp + 4), vnet) : 0;
  if (IN6_IS_ADDR_MULTICAST($dst)) return;
  $inc.inc_family = AF_INET6;
  $inc.laddrFrom($src);
  $inc.faddrFrom($dst);
  V_ip6(vnet).inet6sw[nxt]?.ctlinput(cmd, $inc, kva(oip6 + off), have - off, mtu, vnet);
}

/** Removes the extension headers between the IPv6 header and offset `off` of `m`. */
function cutExthdrs(m: Mbuf, off: number): void {
  const cut = off - Ip6.SIZE;
  if (cut === 0) return;
  const p = mtod(m);
  mem.copyWithin(p + cut, p, p + Ip6.SIZE);
  m.m_data += cut;
  m.m_len -= cut;
  m.m_pkthdr.len -= cut;
}

/** Answers an echo request. Raw sockets get a copy of the request. Takes `m`. */
function echo(m: Mbuf, off: number, vnet: Vnet): void {
  const { raw } = V_icmp6(vnet);
  // The reply changes the bytes of the request, so the copy must not share them.
  const copy = raw === null ? null : m_dup(m, M_NOWAIT);
  mem[mtod(m) + off] = ICMP6_ECHO_REPLY;
  cutExthdrs(m, off);
  icmp6_reflect(m, vnet);
  if (copy !== null) raw!(copy, off, vnet);
}

/** Bytes of a message of neighbour discovery of `type` without options. */
function ndLength(type: number): number {
  if (type === ND_ROUTER_ADVERT) return ND_ROUTER_ADVERT_LEN;
  if (type === ND_ROUTER_SOLICIT) return ICMP6_MINLEN;
  return type === ND_REDIRECT ? ND_REDIRECT_LEN : ND_NEIGHBOR_LEN;
}

/** Passes a contiguous message to its function. Takes `m`. */
function nd6_input(m: Mbuf, off: number, type: number, len: number): void {
  switch (type) {
    case ND_NEIGHBOR_SOLICIT:
      return nd6_ns_input(m, off, len);
    case ND_NEIGHBOR_ADVERT:
      return nd6_na_input(m, off, len);
    case ND_ROUTER_SOLICIT:
      return nd6_rs_input(m, off, len);
    case ND_ROUTER_ADVERT:
      return nd6_ra_input(m, off, len);
    default:
      return icmp6_redirect_input(m, off, len);
  }
}

/**
 * Passes `m`, a message of `len` bytes, to neighbour discovery, and a copy to raw sockets. Takes `m`.
 * The functions of neighbour discovery get contiguous messages.
 */
function neighbour(m0: Mbuf, off: number, type: number, len: number, vnet: Vnet): void {
  const { raw, stat } = V_icmp6(vnet);
  const badcode = mem[mtod(m0) + off + 1] !== 0;
  if (badcode || len < ndLength(type)) {
    stat[badcode ? 'icp6s_badcode' : 'icp6s_badlen']++;
    countDrop(m0, R_ND6_BAD, CAPTURE_IP, CAPTURE_IN);
    return raw === null ? m_freem(m0) : raw(m0, off, vnet);
  }
  const copy = raw === null ? null : m_copym(m0, 0, M_COPYALL, M_NOWAIT);
  const m = ndContiguous(m0, off + len);
  if (m === null) countInputDrop(R_IP6_NOBUFS);
  else nd6_input(m, off, type, len);
  if (copy !== null) raw!(copy, off, vnet);
}

/**
 * Makes the first `want` bytes of a packet contiguous. Takes `m`; null: no mbuf, or the message is
 * larger than a cluster.
 */
function ndContiguous(m: Mbuf, want: number): Mbuf | null {
  if (m.m_len >= want) return m;
  const top = want <= MCLBYTES - max_linkhdr ? m_defrag(m, M_NOWAIT) : null;
  if (top !== null && top.m_len >= want) return top;
  m_freem(top ?? m);
  return null;
}

/** Input of an ICMPv6 message. @see sys/netinet6/icmp6.c */
function icmp6_input(m0: Mbuf, off: number, vnet: Vnet): number {
  message(m0, off, vnet);
  ip6Input.m = null;
  return IPPROTO_DONE;
}

function message(m0: Mbuf, off: number, vnet: Vnet): void {
  const v = V_icmp6(vnet);
  const len = m0.m_pkthdr.len - off;
  if (len < ICMP6_MINLEN) {
    v.stat.icp6s_tooshort++;
    return drop(m0, R_ICMP6_SHORT);
  }
  // Make contiguous what is read below: a quoted header.
  const want = off + Math.min(len, WANTED);
  const m = m0.m_len < want ? pullupInput(m0, want, R_IP6_NOBUFS) : m0;
  if (m === null) return;
  inputSubject(m);
  if (in6_cksum(m, IPPROTO_ICMPV6, off, len) !== 0) {
    v.stat.icp6s_checksum++;
    return drop(m, R_ICMP6_SUM);
  }
  const icp = kva(mtod(m) + off);
  const type = mem[icp]!;
  const have = Math.min(len, m.m_len - off);
  v.stat.icp6s_inhist[type]!++;
  switch (type) {
    case ICMP6_ECHO_REQUEST:
      if (mem[icp + 1] !== 0) break;
      return echo(m, off, vnet);
    case ND_NEIGHBOR_SOLICIT:
    case ND_NEIGHBOR_ADVERT:
    case ND_REDIRECT:
    case ND_ROUTER_SOLICIT:
    case ND_ROUTER_ADVERT:
      return neighbour(m, off, type, len, vnet);
    case MLD_LISTENER_QUERY:
    case MLD_LISTENER_REPORT:
    case MLD_LISTENER_DONE:
    case MLDV2_LISTENER_REPORT:
      if (mld_input(m, off, len, vnet)) break;
      m_freem(m);
      return;
    case ICMP6_DST_UNREACH:
    case ICMP6_PACKET_TOO_BIG:
    case ICMP6_TIME_EXCEEDED:
    case ICMP6_PARAM_PROB:
      icmp6_notify_error(m.m_pkthdr.rcvif as Ifnet, icp, have, vnet);
      break;
    default:
      if (v.raw === null && type !== ICMP6_ECHO_REPLY) countInputDrop(R_ICMP6_IGNORED);
  }
  if (v.raw !== null) v.raw(m, off, vnet);
  else m_freem(m);
}
/** Bytes of a message that are made contiguous: they fit behind the headers into one mbuf. */
const WANTED = 120;

/** ICMPv6's entry in IPv6's protocol table. */
export const icmp6Proto: Ip6Proto = { input: icmp6_input, ctlinput(): void {} };
