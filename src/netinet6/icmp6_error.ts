/**
 * Sends ICMPv6 errors and replies: icmp6_error and icmp6_reflect of sys/netinet6/icmp6.c (RFC 4443,
 * 2.2 and 2.4).
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { NetAddr } from '../sys/addr.ts';
import { R_ICMP6_IGNORED, R_ICMP6_RATE, R_IP6_NOBUFS, type Reason } from '../sys/reason.ts';
import { type Kva, kva } from '../sys/types.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import { m_freem, m_getcl } from '../kern/kern_mbuf.ts';
import {
  M_BCAST,
  type Mbuf,
  max_linkhdr,
  M_MCAST,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
  mtod,
} from '../kern/mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_CKSUM_OFF,
  ICMP6_DST_UNREACH,
  ICMP6_INFOMSG_MASK,
  ICMP6_MINLEN,
  ICMP6_PACKET_TOO_BIG,
  ICMP6_PARAM_PROB,
  ICMP6_PARAMPROB_OPTION,
  ICMP6_TIME_EXCEEDED,
  ND_REDIRECT,
} from './icmp6.ts';
import { icmp6Count, V_icmp6 } from './icmp6_var.ts';
import { in6Get, IN6_IS_ADDR_MULTICAST, IN6_IS_ADDR_UNSPECIFIED, in6Put } from './in6.ts';
import { in6_cksum } from './in6_cksum.ts';
import { in6_selectif, in6_selectsrc } from './in6_src.ts';
import { IN6_IFF_ANYCAST, IN6_IFF_NOTREADY, in6Ifextra, in6ifa_ifwithaddr } from './in6_var.ts';
import {
  Ip6,
  IP6F_OFF_MASK,
  IP6_DST_OFF,
  IP6_NXT_OFF,
  IP6_SRC_OFF,
  IPPROTO_DSTOPTS,
  IPPROTO_FRAGMENT,
  IPPROTO_HOPOPTS,
  IPPROTO_ICMPV6,
  IPPROTO_ROUTING,
  IPV6_MMTU,
  IPV6_VERSION,
} from './ip6.ts';
import { ip6_output } from './ip6_output.ts';
import { V_ip6 } from './ip6_var.ts';
import { in6ClearscopeAt } from './scope6.ts';

/** The most bytes of a packet that an error quotes: the error has at most IPV6_MMTU bytes. */
const ICMPV6_PLD_MAXLEN = IPV6_MMTU - Ip6.SIZE - ICMP6_MINLEN;

const $ip6 = new Ip6();
const $src = new NetAddr();
const $dst = new NetAddr();

function drop(m: Mbuf, why: Reason): void {
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/** Result of `ip6_lasthdr`. */
export const lasthdr = { off: 0, nxt: 0 };

/**
 * Walks the headers of the packet of `len` contiguous bytes at `p` up to the first one that is no
 * extension header, and sets `lasthdr`. False: the packet ends before it, or is a fragment other than
 * the first. @see sys/netinet6/ip6_input.c
 */
export function ip6_lasthdr(p: Kva, len: number): boolean {
  let off = Ip6.SIZE;
  let nxt = mem[p + IP6_NXT_OFF]!;
  for (;;) {
    lasthdr.off = off;
    lasthdr.nxt = nxt;
    const fragment = nxt === IPPROTO_FRAGMENT;
    const options = nxt === IPPROTO_HOPOPTS || nxt === IPPROTO_DSTOPTS || nxt === IPPROTO_ROUTING;
    if (!fragment && !options) return off <= len;
    if (off + 8 > len) return false;
    if (fragment && (memView.getUint16(p + off + 2) & IP6F_OFF_MASK) !== 0) return false;
    nxt = mem[p + off]!;
    off += fragment ? 8 : (mem[p + off + 1]! + 1) << 3;
  }
}

/** Counts an error by type and code. @see sys/netinet6/icmp6.c */
export function icmp6_errcount(vnet: Vnet, type: number, code: number): void {
  const { stat } = V_icmp6(vnet);
  const kinds: Record<number, readonly (keyof typeof stat)[]> = {
    [ICMP6_DST_UNREACH]: [
      'icp6s_odst_unreach_noroute',
      'icp6s_odst_unreach_admin',
      'icp6s_odst_unreach_beyondscope',
      'icp6s_odst_unreach_addr',
      'icp6s_odst_unreach_noport',
    ],
    [ICMP6_PACKET_TOO_BIG]: ['icp6s_opacket_too_big'],
    [ICMP6_TIME_EXCEEDED]: ['icp6s_otime_exceed_transit', 'icp6s_otime_exceed_reassembly'],
    [ICMP6_PARAM_PROB]: [
      'icp6s_oparamprob_header',
      'icp6s_oparamprob_nextheader',
      'icp6s_oparamprob_option',
    ],
    [ND_REDIRECT]: ['icp6s_oredirect'],
  };
  const kind = kinds[type]?.[code] ?? 'icp6s_ounknown';
  (stat as unknown as Record<string, number>)[kind]!++;
}

/** Number of bytes at the start of the chain that are mapped. */
function mappedPrefix(m: Mbuf | null): number {
  let n = 0;
  for (; m !== null && (m.m_flags & M_NOMAP) === 0; m = m.m_next) n += m.m_len;
  return n;
}

/** Whether RFC 4443, 2.4 (e), lets an error about the packet at `p` out. */
function mayReport(m: Mbuf, p: Kva, type: number, code: number, vnet: Vnet): boolean {
  in6Get(p + IP6_SRC_OFF, $src);
  in6Get(p + IP6_DST_OFF, $dst);
  const toAll = (m.m_flags & (M_BCAST | M_MCAST)) !== 0 || IN6_IS_ADDR_MULTICAST($dst);
  const exception =
    type === ICMP6_PACKET_TOO_BIG || (type === ICMP6_PARAM_PROB && code === ICMP6_PARAMPROB_OPTION);
  if (toAll && !exception) return false;
  if (IN6_IS_ADDR_UNSPECIFIED($src) || IN6_IS_ADDR_MULTICAST($src)) return false;
  if (!ip6_lasthdr(p, m.m_len) || lasthdr.nxt !== IPPROTO_ICMPV6) return true;
  if (lasthdr.off >= m.m_len) return false;
  const about = mem[p + lasthdr.off]!;
  if ((about & ICMP6_INFOMSG_MASK) !== 0 && about !== ND_REDIRECT) return true;
  V_icmp6(vnet).stat.icp6s_canterror++;
  return false;
}

/**
 * Sends an ICMPv6 error to the sender of `n`, a received packet that starts at its contiguous IPv6
 * header, with the zones in its addresses. `param` is stored in bytes 4 to 7 of the error: the MTU or
 * the pointer. Takes `n`. Quotes only mapped bytes.
 * @see sys/netinet6/icmp6.c
 */
export function icmp6_error(n: Mbuf, type: number, code: number, param: number, vnet: Vnet): void {
  const v = V_icmp6(vnet);
  v.stat.icp6s_error++;
  icmp6_errcount(vnet, type, code);
  const np = mtod(n);
  if (!mayReport(n, np, type, code, vnet)) return drop(n, R_ICMP6_IGNORED);
  if (!v.allow()) {
    v.stat.icp6s_toofreq++;
    return drop(n, R_ICMP6_RATE);
  }
  const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
  if (m === null) return drop(n, R_IP6_NOBUFS);
  const len = Math.min(n.m_pkthdr.len, mappedPrefix(n), ICMPV6_PLD_MAXLEN);
  m.m_data += max_linkhdr;
  const p = mtod(m);
  m.m_len = m.m_pkthdr.len = Ip6.SIZE + ICMP6_MINLEN + len;
  m.m_pkthdr.rcvif = n.m_pkthdr.rcvif;
  mem.copyWithin(p, np, np + Ip6.SIZE);
  const icp = kva(p + Ip6.SIZE);
  const quoted = kva(icp + ICMP6_MINLEN);
  m_copydata(n, 0, len, quoted);
  in6ClearscopeAt(quoted + IP6_SRC_OFF);
  in6ClearscopeAt(quoted + IP6_DST_OFF);
  mem[icp] = type;
  mem[icp + 1] = code;
  memView.setUint32(icp + 4, param);
  $ip6.at(p).ip6_nxt = IPPROTO_ICMPV6;
  m_freem(n);
  icmp6_reflect(m, vnet);
}

/**
 * Sends the ICMPv6 message `m` back to its source address. The message follows the IPv6 header, whose
 * addresses contain their zone. Takes `m`. @see sys/netinet6/icmp6.c
 */
export function icmp6_reflect(m: Mbuf, vnet: Vnet): void {
  const p = mtod(m);
  in6Get(p + IP6_SRC_OFF, $src);
  in6Get(p + IP6_DST_OFF, $dst);
  const { w0, w1, w2, w3 } = $dst;
  let ia = in6ifa_ifwithaddr(vnet, w0, w1, w2, w3);
  // Groups, anycast and other hosts' addresses cannot be a source.
  if (ia === null || (ia.ia6_flags & (IN6_IFF_ANYCAST | IN6_IFF_NOTREADY)) !== 0) {
    const ifp = in6_selectif(vnet, $src);
    ia = ifp === null ? null : in6_selectsrc(vnet, $src, ifp);
  }
  if (ia === null) return drop(m, R_ICMP6_IGNORED);
  in6Put(p + IP6_SRC_OFF, ia.ifa_addr);
  in6Put(p + IP6_DST_OFF, $src);
  const ifp = m.m_pkthdr.rcvif as Ifnet | null;
  const nd = ifp === null ? null : in6Ifextra(ifp);
  $ip6.at(p).ip6_flow = IPV6_VERSION << 24;
  $ip6.ip6_nxt = IPPROTO_ICMPV6;
  $ip6.ip6_hlim = nd === null ? V_ip6(vnet).params.hlim : nd.nd_ifinfo.chlim;
  const plen = m.m_pkthdr.len - Ip6.SIZE;
  $ip6.ip6_plen = plen;
  const icp = p + Ip6.SIZE;
  memView.setUint16(icp + ICMP6_CKSUM_OFF, 0);
  m.m_flags &= ~(M_BCAST | M_MCAST);
  m.m_pkthdr.rcvif = null;
  m.m_pkthdr.csum_flags = 0;
  memView.setUint16(icp + ICMP6_CKSUM_OFF, in6_cksum(m, IPPROTO_ICMPV6, Ip6.SIZE, plen));
  V_icmp6(vnet).stat.icp6s_reflect++;
  icmp6Count(vnet, mem[icp]!);
  ip6_output(m, null, null, 0, null, vnet);
}
