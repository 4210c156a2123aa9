/**
 * ICMP, after sys/netinet/ip_icmp.c, RFC 792 and RFC 1122 3.2.2: sends echo, timestamp and mask
 * replies in the mbuf of the request, sends errors about received packets, passes received errors to
 * the transport protocols, and processes redirects (icmp_redirect.ts). Router discovery and source
 * quench go to raw sockets only.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import {
  countDrop,
  countInputDrop,
  inputSubject,
  noteDrop,
  pullupInput,
} from '../net/capture_drop.ts';
import type { Errno } from '../sys/errno.ts';
import {
  count,
  R_ICMP_IGNORED,
  R_ICMP_RATE,
  R_ICMP_SHORT,
  R_ICMP_SUM,
  R_IP_NOBUFS,
  type Reason,
} from '../sys/reason.ts';
import { type InAddr, type Kva, kva } from '../sys/types.ts';
import { m_freem, m_getcl, m_gethdr } from '../kern/kern_mbuf.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import {
  M_BCAST,
  type Mbuf,
  M_MCAST,
  MHLEN,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  max_linkhdr,
  MT_DATA,
  mtod,
  M_TRAILINGSPACE,
} from '../kern/mbuf.ts';
import { IPPROTO_ICMP, IPPROTO_TCP } from '../kern/protosw.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { ifConsole, ifunit } from '../net/if.ts';
import { IFF_BROADCAST, type Ifnet } from '../net/if_var.ts';
import { LOG_REDIRECT, logAllowed } from '../net/log_limit.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP_ECHO,
  ICMP_ECHOREPLY,
  ICMP_MASKREPLY,
  ICMP_MASKREQ,
  ICMP_MAXTYPE,
  ICMP_PARAMPROB,
  ICMP_REDIRECT,
  ICMP_TIMXCEED,
  ICMP_TSTAMP,
  ICMP_TSTAMPREPLY,
  ICMP_UNREACH,
  ICMP_UNREACH_FILTER_PROHIB,
  ICMP_UNREACH_HOST_PROHIB,
  ICMP_UNREACH_NEEDFRAG,
  ICMP_UNREACH_NET_PROHIB,
  ICMP_UNREACH_PORT,
  ICMP_UNREACH_PRECEDENCE_CUTOFF,
  ICMP_UNREACH_PROTOCOL,
} from './icmp.ts';
import { icmpRedirect } from './icmp_redirect.ts';
import { IN_MULTICAST, inAddrOf, INADDR_BROADCAST, inet_ntoa } from './in.ts';
import { in_cksum_skip } from './in_cksum.ts';
import { fib4_lookup } from './in_fib.ts';
import { inIfaddrFor, inPrimary, isInIfaddr } from './in_var.ts';
import { Ip, IP_DST_OFF, IP_OFFMASK, IP_SRC_OFF } from './ip.ts';
import { IpOptions, ipReplyOptions, ip_srcroute, ip_stripoptions, iptime } from './ip_options.ts';
import { ip_output } from './ip_output.ts';
import {
  in_localip,
  type IpProto,
  PRC_MSGSIZE,
  PRC_NONE,
  PRC_PARAMPROB,
  PRC_TIMXCEED_INTRANS,
  PRC_UNREACH_ADMIN_PROHIB,
  PRC_UNREACH_NET,
  PRC_UNREACH_PORT,
  V_ip,
} from './ip_var.ts';

const ICMP_MINLEN = 8;
const ICMP_TSLEN = 20;
const ICMP_MASKLEN = 12;
/** The last code of a redirect. */
const ICMP_REDIRECT_TOSHOST = 3;
/** Parameter problem codes that exist: the byte at the pointer, a missing option, a bad length. */
const ICMP_PARAMPROB_LENGTH = 2;
/** Bytes of the shortest error: ICMP header, quoted IP header and 8 bytes of its payload. */
const ICMP_ADVLENMIN = ICMP_MINLEN + Ip.SIZE + 8;
const ICMP_CKSUM = 2;

const $ip = new Ip();
const $oip = new Ip();

/** ICMP statistics, with FreeBSD's names. @see sys/netinet/icmp_var.h */
class Icmpstat {
  icps_error = 0;
  icps_oldshort = 0;
  icps_oldicmp = 0;
  readonly icps_outhist = new Float64Array(ICMP_MAXTYPE + 1);
  icps_badcode = 0;
  icps_tooshort = 0;
  icps_checksum = 0;
  icps_badlen = 0;
  icps_reflect = 0;
  readonly icps_inhist = new Float64Array(ICMP_MAXTYPE + 1);
  icps_bmcastecho = 0;
  icps_bmcasttstamp = 0;
  icps_badaddr = 0;
  icps_noroute = 0;
}

/** Settings under net.inet.icmp, with FreeBSD's defaults. */
class IcmpParams {
  /** Limit of each kind of response per second; 0: no limit. */
  icmplim = 200;
  icmplim_output = true;
  bmcastecho = false;
  tstamprepl = true;
  maskrepl = false;
  drop_redirect = false;
  log_redirect = false;
  /** Seconds that a route from a redirect lasts. */
  redirtimeout = 600;
  /** Interface whose address is the source of replies to packets for foreign addresses; '': none. */
  reply_src = '';
  /** Take the source of such replies from the receiving interface; overrides reply_src. */
  reply_from_interface = false;
  /** Maximum bytes of a packet's payload that an error quotes. */
  quotelen = 548;
}

// Kinds of rate-limited responses.
const BANDLIM_ICMP_UNREACH = 0;
export const BANDLIM_ICMP_ECHO = 1;
const BANDLIM_ICMP_TSTAMP = 2;
export const BANDLIM_RST_CLOSEDPORT = 3;
export const BANDLIM_RST_OPENPORT = 4;
const BANDLIM_MAX = 5;
const bandlimNames = [
  'icmp unreach response',
  'icmp ping response',
  'icmp tstamp response',
  'closed port RST response',
  'open port RST response',
] as const;

/** ICMP's state of one stack. */
class IcmpVnet {
  readonly stat = new Icmpstat();
  readonly params = new IcmpParams();
  /** The input of raw sockets; null while none exists. Gets messages that are not answered here. */
  raw: IpProto | null = null;
  readonly #windowNs = new Float64Array(BANDLIM_MAX);
  readonly #inWindow = new Float64Array(BANDLIM_MAX);

  /** Counts one response of kind `which`. Returns whether it may be sent. */
  allow(which: number): boolean {
    const { icmplim, icmplim_output } = this.params;
    if (icmplim === 0) return true;
    const now = nowNs();
    if (now - this.#windowNs[which]! >= 1e9) {
      const had = this.#inWindow[which]!;
      if (had > icmplim && icmplim_output)
        ifConsole.log?.(`Limiting ${bandlimNames[which]} from ${had} to ${icmplim} packets/sec`);
      this.#windowNs[which] = now;
      this.#inWindow[which] = 0;
    }
    return ++this.#inWindow[which]! <= icmplim;
  }
}

export const V_icmp = VNET_DEFINE(() => new IcmpVnet());

/** ICMP statistics of a stack, for `netstat -s`. */
export function icmpstat(vnet: Vnet): Icmpstat {
  return V_icmp(vnet).stat;
}

/**
 * Applies the rate limit of `which`, net.inet.icmp.icmplim responses per second. Returns 0 if one
 * more response may be sent; else counts the reason and returns -1. @see sys/netinet/ip_icmp.c
 */
export function badport_bandlim(which: number, vnet: Vnet): number {
  if (V_icmp(vnet).allow(which)) return 0;
  count(R_ICMP_RATE);
  return -1;
}

function drop(m: Mbuf, why: Reason): void {
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/** The number of bytes before the first unmapped mbuf of the chain. */
function mappedPrefix(m: Mbuf | null): number {
  let n = 0;
  for (; m !== null && (m.m_flags & M_NOMAP) === 0; m = m.m_next) n += m.m_len;
  return n;
}

/** How many bytes of the packet at `$oip` an error quotes: RFC 1812 4.3.2.3, as FreeBSD does. */
function quoteLength(n: Mbuf, quotelen: number): number {
  const hlen = $oip.ip_hl << 2;
  const body = $oip.ip_len - hlen;
  let want = Math.min(quotelen, body);
  if ($oip.ip_p === IPPROTO_TCP && n.m_len >= hlen + Ip.SIZE) {
    // Quote the whole TCP header, so that the sender can find the connection.
    const thlen = (mem[mtod(n) + hlen + 12]! >>> 4) << 2;
    want = Math.max(want, Math.min(thlen, body));
  }
  return Math.min(hlen + Math.max(ICMP_MINLEN, want), mappedPrefix(n), n.m_pkthdr.len);
}

/** Whether RFC 1122 3.2.2 lets an error about the packet at `$oip` out. */
function mayReport(n: Mbuf, vnet: Vnet): boolean {
  if (($oip.ip_off & IP_OFFMASK) !== 0 || (n.m_flags & (M_BCAST | M_MCAST)) !== 0) return false;
  const hlen = $oip.ip_hl << 2;
  if ($oip.ip_p !== IPPROTO_ICMP) return true;
  if (n.m_len <= hlen) return false;
  const type = mem[mtod(n) + hlen]!;
  // Errors may be sent about ICMP requests and replies, never about ICMP errors.
  const info =
    type === ICMP_ECHOREPLY ||
    type === ICMP_ECHO ||
    (type >= ICMP_TSTAMP && type <= ICMP_MASKREPLY);
  if (!info) V_icmp(vnet).stat.icps_oldicmp++;
  return info;
}

/**
 * Sends an ICMP error to the sender of `n`, a received packet that starts at its IP header. `word`
 * is stored in bytes 4 to 7 of the error: the MTU of ICMP_UNREACH_NEEDFRAG, the pointer of
 * ICMP_PARAMPROB in the top byte, else 0. Takes `n`. Quotes only mapped bytes. Unlike FreeBSD: this
 * function applies the rate limit of unreachables, not each caller.
 * @see sys/netinet/ip_icmp.c
 */
export function icmp_error(n: Mbuf, type: number, code: number, word: number, vnet: Vnet): void {
  const v = V_icmp(vnet);
  v.stat.icps_error++;
  $oip.at(mtod(n));
  if (!mayReport(n, vnet)) return drop(n, R_ICMP_IGNORED);
  if (type === ICMP_UNREACH && badport_bandlim(BANDLIM_ICMP_UNREACH, vnet) < 0) return limited(n);
  const quoted = quoteLength(n, v.params.quotelen);
  if (quoted < ($oip.ip_hl << 2) + ICMP_MINLEN) {
    v.stat.icps_oldshort++;
    return drop(n, R_ICMP_IGNORED);
  }
  const need = max_linkhdr + Ip.SIZE + ICMP_MINLEN + quoted;
  const m = need <= MHLEN ? m_gethdr(M_NOWAIT, MT_DATA) : m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
  if (m === null) return drop(n, R_IP_NOBUFS);
  m.m_data += max_linkhdr;
  const len = Math.min(quoted, M_TRAILINGSPACE(m) - Ip.SIZE - ICMP_MINLEN);
  const p = mtod(m);
  m_copydata(n, 0, Ip.SIZE, p);
  const icp = kva(p + Ip.SIZE);
  m_copydata(n, 0, len, kva(icp + ICMP_MINLEN));
  mem[icp] = type;
  mem[icp + 1] = code;
  memView.setUint32(icp + 4, word);
  m.m_len = m.m_pkthdr.len = Ip.SIZE + ICMP_MINLEN + len;
  m.m_pkthdr.rcvif = n.m_pkthdr.rcvif;
  $ip.at(p);
  $ip.ip_vhl = 0x45;
  $ip.ip_p = IPPROTO_ICMP;
  $ip.ip_tos = 0;
  $ip.ip_off = 0;
  $ip.ip_len = m.m_len;
  m_freem(n);
  icmp_reflect(m, vnet);
}

/** The source of the reply to a packet from `peer` to `dst`, which is not a local address; 0: none. */
function replySource(m: Mbuf, dst: InAddr, peer: InAddr, vnet: Vnet): InAddr {
  const ifp = m.m_pkthdr.rcvif as Ifnet | null;
  if (ifp !== null && (ifp.if_flags & IFF_BROADCAST) !== 0)
    for (let i = 0; i < ifp.if_addrhead.length; i++) {
      const ia = ifp.if_addrhead[i]!;
      if (isInIfaddr(ia) && ia.ia_broadaddr === dst) return ia.ia_addr;
    }
  const { reply_from_interface, reply_src } = V_icmp(vnet).params;
  let ia = reply_from_interface && ifp !== null ? inPrimary(ifp) : null;
  if (ia === null && reply_src !== '') {
    const named = ifunit(vnet, reply_src);
    if (named !== null) ia = inPrimary(named);
  }
  if (ia !== null) return ia.ia_addr;
  const nh = fib4_lookup(vnet, peer);
  return nh === null ? (0 as InAddr) : inAddrOf(nh.nh_ifa.ifa_addr);
}

/**
 * Swaps source and destination of the header at `p`. If the destination was not a local address
 * (multicast, broadcast), the source becomes that of replySource. Returns false if none exists.
 */
function turnAround(m: Mbuf, p: Kva, vnet: Vnet): boolean {
  const peer = memView.getInt32(p + IP_SRC_OFF) as InAddr;
  const dst = memView.getInt32(p + IP_DST_OFF) as InAddr;
  const src = in_localip(vnet, dst) ? dst : replySource(m, dst, peer, vnet);
  if (src === 0) return false;
  memView.setInt32(p + IP_SRC_OFF, src);
  memView.setInt32(p + IP_DST_OFF, peer);
  return true;
}

/** Drops a packet whose answer badport_bandlim forbids, which has counted the reason. */
function limited(m: Mbuf): void {
  noteDrop(m, R_ICMP_RATE, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/** Options of the reply under way. */
const $opts = new IpOptions();

/** Sends the ICMP message `m` back to its source address. Takes `m`. */
function icmp_reflect(m: Mbuf, vnet: Vnet): Errno {
  const { stat } = V_icmp(vnet);
  $ip.at(mtod(m));
  const p = mtod(m);
  // Sources in 0/8, multicast and class E cannot be answered.
  const net = mem[p + IP_SRC_OFF]!;
  if (net === 0 || net >= 0xe0) {
    stat.icps_badaddr++;
    drop(m, R_ICMP_IGNORED);
    return 0;
  }
  if (!turnAround(m, p, vnet)) {
    stat.icps_noroute++;
    drop(m, R_ICMP_IGNORED);
    return 0;
  }
  $ip.ip_ttl = V_ip(vnet).params.ttl;
  const hlen = $ip.ip_hl << 2;
  if (hlen > Ip.SIZE) {
    if (!ip_srcroute($opts)) $opts.clear();
    ipReplyOptions(p, hlen, $opts);
    ip_stripoptions(m);
  }
  m.m_flags &= ~(M_BCAST | M_MCAST);
  m.m_pkthdr.rcvif = null;
  m.m_pkthdr.csum_flags = 0;
  stat.icps_reflect++;
  return icmp_send(m, vnet, hlen > Ip.SIZE ? $opts : null);
}

/**
 * Computes the checksum of an ICMP message and sends it. `m` starts at an IP header of 20 bytes
 * whose addresses and length are complete. Inserts the IP options `opts`. Takes `m`. Returns the
 * errno of ip_output.
 * @see sys/netinet/ip_icmp.c
 */
function icmp_send(m: Mbuf, vnet: Vnet, opts: IpOptions | null): Errno {
  const { stat } = V_icmp(vnet);
  $ip.at(mtod(m));
  const icp = mtod(m) + Ip.SIZE;
  memView.setUint16(icp + ICMP_CKSUM, 0);
  memView.setUint16(icp + ICMP_CKSUM, in_cksum_skip(m, $ip.ip_len, Ip.SIZE));
  const type = mem[icp]!;
  if (type <= ICMP_MAXTYPE) stat.icps_outhist[type]!++;
  return ip_output(m, null, 0, vnet, opts);
}

/** The PRC_* command of an error's type and code; -1: unknown code. */
function commandOf(type: number, code: number): number {
  if (type === ICMP_TIMXCEED) return code <= 1 ? PRC_TIMXCEED_INTRANS + code : -1;
  if (type === ICMP_PARAMPROB) {
    if (code === ICMP_PARAMPROB_LENGTH) return PRC_NONE;
    return code < ICMP_PARAMPROB_LENGTH ? PRC_PARAMPROB : -1;
  }
  switch (code) {
    case ICMP_UNREACH_NEEDFRAG:
      return PRC_MSGSIZE;
    // RFC 1122 3.2.2.1: treat "protocol unreachable" like "port unreachable".
    case ICMP_UNREACH_PROTOCOL:
    case ICMP_UNREACH_PORT:
      return PRC_UNREACH_PORT;
    case ICMP_UNREACH_NET_PROHIB:
    case ICMP_UNREACH_HOST_PROHIB:
    case ICMP_UNREACH_FILTER_PROHIB:
      return PRC_UNREACH_ADMIN_PROHIB;
    default:
      return code <= ICMP_UNREACH_PRECEDENCE_CUTOFF ? PRC_UNREACH_NET : -1;
  }
}

// Common MTUs: the table of RFC 1191, 7.1, and 1280, the minimum of IPv6.
const IP_MIN_MTU = 68;
const plateaus = [32000, 17914, 8166, 4352, 2002, 1492, 1280, 1006, 508, 296, IP_MIN_MTU];

/**
 * The largest common MTU below `mtu`; 0 if none is. FreeBSD's function can also search upwards.
 * @see sys/netinet/ip_icmp.c
 */
function ip_next_mtu(mtu: number): number {
  for (const plateau of plateaus) if (plateau < mtu) return plateau;
  return 0;
}

/** Whether the ICMP error of `icmplen` bytes, `have` of them contiguous at `icp`, quotes enough. */
function quotesEnough(icp: Kva, icmplen: number, have: number): boolean {
  const ohlen = $oip.at(kva(icp + ICMP_MINLEN)).ip_hl << 2;
  if (icmplen < ICMP_ADVLENMIN || ohlen < Ip.SIZE) return false;
  return Math.min(icmplen, have) >= ICMP_MINLEN + ohlen + 8;
}

/**
 * Passes an error about one of our packets to its transport protocol. `icp` is the ICMP header,
 * `icmplen` the length of the message, `have` its contiguous bytes. Returns whether to pass the
 * message to raw sockets.
 */
function deliverError(icp: Kva, icmplen: number, have: number, vnet: Vnet): boolean {
  const { stat } = V_icmp(vnet);
  const cmd = commandOf(mem[icp]!, mem[icp + 1]!);
  if (cmd < 0) {
    stat.icps_badcode++;
    return true;
  }
  if (!quotesEnough(icp, icmplen, have)) {
    stat.icps_badlen++;
    countInputDrop(R_ICMP_SHORT);
    return false;
  }
  if (IN_MULTICAST($oip.ip_dst)) {
    stat.icps_badcode++;
    return true;
  }
  if ($oip.ip_dst === 0 || $oip.ip_src === 0) {
    countInputDrop(R_ICMP_IGNORED);
    return false;
  }
  const l4 = ICMP_MINLEN + ($oip.ip_hl << 2);
  const pr = V_ip(vnet).protox[$oip.ip_p]!;
  // Routers older than RFC 1191 leave the MTU field 0.
  const told = memView.getUint16(icp + 6) || ip_next_mtu($oip.ip_len) || IP_MIN_MTU;
  const mtu = cmd === PRC_MSGSIZE ? told : 0;
  pr?.ctlinput(cmd, $oip.ip_src, $oip.ip_dst, kva(icp + l4), have - l4, mtu, vnet);
  return true;
}

/** Processes the redirect at `icp`, whose IP header is at `p`. */
function redirect(p: Kva, icp: Kva, icmplen: number, have: number, vnet: Vnet): void {
  const { stat, params } = V_icmp(vnet);
  const src = memView.getInt32(p + IP_SRC_OFF) as InAddr;
  const gateway = memView.getInt32(icp + 4) as InAddr;
  const enough = quotesEnough(icp, icmplen, have);
  if (params.log_redirect && enough && logAllowed(vnet, LOG_REDIRECT)) {
    const [from, dst, to] = [src, $oip.ip_dst, gateway].map(inet_ntoa);
    ifConsole.log?.(`icmp redirect from ${from}: ${dst} => ${to}`);
  }
  // RFC 1812, 5.2.7.2: a router ignores redirects.
  if (params.drop_redirect || V_ip(vnet).params.forwarding) return countInputDrop(R_ICMP_IGNORED);
  if (mem[icp + 1]! > ICMP_REDIRECT_TOSHOST) {
    stat.icps_badcode++;
  } else if (!enough) {
    stat.icps_badlen++;
  } else if (icmpRedirect(vnet, src, $oip.ip_dst, gateway, params.redirtimeout)) {
    return;
  }
  countInputDrop(R_ICMP_IGNORED);
}

/**
 * Answers an address mask request in the same mbuf. Returns false if it must not be answered; else
 * takes `m`.
 */
function answerMask(m: Mbuf, icp: Kva, icmplen: number, vnet: Vnet): boolean {
  if (!V_icmp(vnet).params.maskrepl || icmplen < ICMP_MASKLEN) return false;
  const p = mtod(m);
  const dst = memView.getInt32(p + IP_DST_OFF) as InAddr;
  const src = memView.getInt32(p + IP_SRC_OFF) as InAddr;
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  const ia = inIfaddrFor(ifp, dst === INADDR_BROADCAST || dst === 0 ? src : dst);
  if (ia === null) return false;
  mem[icp] = ICMP_MASKREPLY;
  memView.setInt32(icp + 8, ia.ia_subnetmask);
  if (src === 0 && (ifp.if_flags & IFF_BROADCAST) !== 0)
    memView.setInt32(p + IP_SRC_OFF, ia.ia_broadaddr);
  icmp_reflect(m, vnet);
  return true;
}

/** Answers an echo or timestamp request in the same mbuf. Takes `m`. */
function answer(m: Mbuf, icp: Kva, type: number, icmplen: number, vnet: Vnet): void {
  const { stat, params } = V_icmp(vnet);
  const many = (m.m_flags & (M_BCAST | M_MCAST)) !== 0;
  const echo = type === ICMP_ECHO;
  if (many && !params.bmcastecho) {
    if (echo) stat.icps_bmcastecho++;
    else stat.icps_bmcasttstamp++;
    return drop(m, R_ICMP_IGNORED);
  }
  if (!echo && icmplen < ICMP_TSLEN) {
    stat.icps_badlen++;
    return drop(m, R_ICMP_SHORT);
  }
  if (badport_bandlim(echo ? BANDLIM_ICMP_ECHO : BANDLIM_ICMP_TSTAMP, vnet) < 0) return limited(m);
  mem[icp] = echo ? ICMP_ECHOREPLY : ICMP_TSTAMPREPLY;
  if (!echo) {
    const now = iptime();
    memView.setUint32(icp + 12, now);
    memView.setUint32(icp + 16, now);
  }
  icmp_reflect(m, vnet);
}

/**
 * Input of an ICMP message. `m` starts at a contiguous IP header of `hlen` bytes. Takes `m`.
 * @see sys/netinet/ip_icmp.c
 */
function icmp_input(m0: Mbuf, hlen: number, vnet: Vnet): void {
  const v = V_icmp(vnet);
  const icmplen = $ip.at(mtod(m0)).ip_len - hlen;
  if (icmplen < ICMP_MINLEN) {
    v.stat.icps_tooshort++;
    return drop(m0, R_ICMP_SHORT);
  }
  // Make the headers contiguous: IP, ICMP and those that an error quotes.
  const want = hlen + Math.min(icmplen, ICMP_ADVLENMIN);
  let m = m0.m_len < want ? pullupInput(m0, want, R_IP_NOBUFS) : m0;
  if (m === null) return;
  inputSubject(m);
  if (in_cksum_skip(m, hlen + icmplen, hlen) !== 0) {
    v.stat.icps_checksum++;
    return drop(m, R_ICMP_SUM);
  }
  let icp = kva(mtod(m) + hlen);
  const type = mem[icp]!;
  if (type <= ICMP_MAXTYPE) v.stat.icps_inhist[type]!++;
  switch (type) {
    case ICMP_ECHO:
      return answer(m, icp, type, icmplen, vnet);
    case ICMP_TSTAMP:
      if (!v.params.tstamprepl) break;
      // The reply writes to all 20 bytes of the message: make them contiguous.
      if (icmplen >= ICMP_TSLEN && m.m_len < hlen + ICMP_TSLEN)
        m = pullupInput(m, hlen + ICMP_TSLEN, R_IP_NOBUFS);
      if (m === null) return;
      return answer(m, kva(mtod(m) + hlen), type, icmplen, vnet);
    case ICMP_MASKREQ:
      if (answerMask(m, icp, icmplen, vnet)) return;
      if (v.raw === null) countInputDrop(R_ICMP_IGNORED);
      break;
    case ICMP_UNREACH:
    case ICMP_TIMXCEED:
    case ICMP_PARAMPROB:
    case ICMP_REDIRECT: {
      // The quoted IP header may have options before the ports.
      if (icmplen >= ICMP_ADVLENMIN) {
        const ohlen = (mem[icp + ICMP_MINLEN]! & 0xf) << 2;
        const all = hlen + Math.min(icmplen, ICMP_MINLEN + Math.max(ohlen, Ip.SIZE) + 8);
        if (m.m_len < all) m = pullupInput(m, all, R_IP_NOBUFS);
        if (m === null) return;
        icp = kva(mtod(m) + hlen);
      }
      const have = Math.min(icmplen, m.m_len - hlen);
      if (type === ICMP_REDIRECT) redirect(mtod(m), icp, icmplen, have, vnet);
      else if (!deliverError(icp, icmplen, have, vnet)) return m_freem(m);
      break;
    }
    default:
      if (v.raw === null && type !== ICMP_ECHOREPLY) countInputDrop(R_ICMP_IGNORED);
  }
  if (v.raw !== null) v.raw.input(m, hlen, vnet);
  else m_freem(m);
}

/** ICMP's entry in IP's protocol table. */
export const icmpProto: IpProto = { input: icmp_input, ctlinput(): void {} };
