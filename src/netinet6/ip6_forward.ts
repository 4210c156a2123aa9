/**
 * Forwarding of IPv6 packets between interfaces, after sys/netinet6/ip6_forward.c (RFC 4443, RFC 4007,
 * 9). The payload is not touched: it may be shared or unmapped, and ip6ForwardOutput converts it only if
 * the outgoing interface requires it. A router does not fragment. Left out: packet filters, IPsec,
 * multicast routing, the log of packets that cannot be forwarded.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { NetAddr } from '../sys/addr.ts';
import { EMSGSIZE, ENOBUFS } from '../sys/errno.ts';
import { R_IP6_BADSCOPE, R_IP6_NOROUTE, R_IP6_NOTUS, type Reason } from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import {
  CSUM_IP6_TSO,
  CSUM_TCP_IPV6,
  CSUM_UDP_IPV6,
  M_BCAST,
  type Mbuf,
  M_MCAST,
  mtod,
} from '../kern/mbuf.ts';
import { IPPROTO_TCP, IPPROTO_UDP } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifnetList } from '../net/if.ts';
import type { Ifnet } from '../net/if_var.ts';
import { type Nhop, RTF_DYNAMIC } from '../net/route.ts';
import {
  forwardingLro,
  forwardTransport,
  packetBeginning,
  type TransportFlags,
} from '../netinet/ip_forward.ts';
import {
  ICMP6_DST_UNREACH,
  ICMP6_DST_UNREACH_ADDR,
  ICMP6_DST_UNREACH_BEYONDSCOPE,
  ICMP6_DST_UNREACH_NOROUTE,
  ICMP6_PACKET_TOO_BIG,
  ICMP6_TIME_EXCEEDED,
  ICMP6_TIME_EXCEED_TRANSIT,
} from './icmp6.ts';
import { icmp6_error } from './icmp6_error.ts';
import { icmp6_redirect_output } from './icmp6_redirect.ts';
import { in6Get, IN6_IS_ADDR_MULTICAST, IN6_IS_ADDR_UNSPECIFIED } from './in6.ts';
import { in6Pseudo } from './in6_cksum.ts';
import { in6RouteLookup } from './in6_fib.ts';
import { Ip6, IP6_DST_OFF, IP6_HLIM_OFF, IP6_SRC_OFF, IPV6_MMTU } from './ip6.ts';
import { ip6ForwardOutput, IN6_LINKMTU } from './ip6_output.ts';
import { V_ip6 } from './ip6_var.ts';
import { in6HasZone } from './scope6.ts';
import { mem } from '../vm/arena.ts';

const $ip6 = new Ip6();
const $src = new NetAddr();
const $dst = new NetAddr();
/** The most bytes of a packet that a redirect may quote: less than IPV6_MMTU with its own headers. */
const QUOTED = IPV6_MMTU - 2 * Ip6.SIZE;
const FLAGS: TransportFlags = { tcp: CSUM_TCP_IPV6, udp: CSUM_UDP_IPV6, tso: CSUM_IP6_TSO };

function cantForward(m: Mbuf, why: Reason, vnet: Vnet): void {
  V_ip6(vnet).stat.ip6s_cantforward++;
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/** Prepares the transport checksum of the packet between `$src` and `$dst`. */
function transport(m: Mbuf, rxFlags: number): void {
  const { ip6_nxt: proto, ip6_plen: len } = $ip6;
  if (proto !== IPPROTO_TCP && proto !== IPPROTO_UDP) return;
  const { w0, w1, w2, w3 } = $dst;
  const pseudo = in6Pseudo($src.w0, $src.w1, $src.w2, $src.w3, w0, w1, w2, w3, len + proto);
  forwardTransport(m, rxFlags, Ip6.SIZE, proto, len, pseudo, FLAGS);
}

/** Whether the zone of an address that came in by one interface ends at the other one. */
function leavesZone(a: NetAddr, from: Ifnet, to: Ifnet): boolean {
  return from !== to && in6HasZone(a.w0);
}

/**
 * Whether the packet between `$src` and `$dst` may go from `rcvif` to the interface of `nh`; else takes
 * `m`: RFC 4007, 9.
 */
function inScope(m: Mbuf, rcvif: Ifnet, nh: Nhop, vnet: Vnet): boolean {
  const { stat } = V_ip6(vnet);
  const source = leavesZone($src, rcvif, nh.nh_ifp);
  if (!source && !leavesZone($dst, rcvif, nh.nh_ifp)) return true;
  stat.ip6s_badscope++;
  if (!source) {
    cantForward(m, R_IP6_BADSCOPE, vnet);
    return false;
  }
  stat.ip6s_cantforward++;
  countDrop(m, R_IP6_BADSCOPE, CAPTURE_IP, CAPTURE_IN);
  icmp6_error(m, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_BEYONDSCOPE, 0, vnet);
  return false;
}

/**
 * Whether the sender should send packets like this one to the next hop directly: it is on the link from
 * which the packet came. icmp6_redirect_output checks that the sender is, too.
 */
function betterHop(rcvif: Ifnet, nh: Nhop, vnet: Vnet): boolean {
  return V_ip6(vnet).params.redirect && nh.nh_ifp === rcvif && (nh.nh_flags & RTF_DYNAMIC) === 0;
}

/** Bytes of the largest packet that `m` causes on the link: that of a segment. */
function largest(m: Mbuf): number {
  const ph = m.m_pkthdr;
  if ((ph.csum_flags & CSUM_IP6_TSO) === 0) return ph.len;
  const tcp = Ip6.SIZE + ((mem[mtod(m) + Ip6.SIZE + 12]! >>> 4) << 2);
  return Math.min(ph.len, tcp + ph.tso_segsz);
}

/**
 * Forwards `m`, a packet for another host whose header was checked and contains the zones. An error is
 * reported to its sender by ICMPv6. Takes `m`. @see sys/netinet6/ip6_forward.c
 */
export function ip6_forward(m: Mbuf, vnet: Vnet): void {
  const v = V_ip6(vnet);
  const ph = m.m_pkthdr;
  const p = mtod(m);
  $ip6.at(p);
  in6Get(p + IP6_SRC_OFF, $src);
  in6Get(p + IP6_DST_OFF, $dst);
  const cast = (m.m_flags & (M_BCAST | M_MCAST)) !== 0 || IN6_IS_ADDR_MULTICAST($dst);
  if (cast || IN6_IS_ADDR_UNSPECIFIED($src)) return cantForward(m, R_IP6_NOTUS, vnet);
  if ($ip6.ip6_hlim <= 1)
    return icmp6_error(m, ICMP6_TIME_EXCEEDED, ICMP6_TIME_EXCEED_TRANSIT, 0, vnet);
  const rcvif = ph.rcvif as Ifnet;
  const nh = in6RouteLookup(vnet, v.forwardRoute, $dst);
  if (nh === null) {
    v.stat.ip6s_noroute++;
    countDrop(m, R_IP6_NOROUTE, CAPTURE_IP, CAPTURE_IN);
    return icmp6_error(m, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOROUTE, 0, vnet);
  }
  if (!inScope(m, rcvif, nh, vnet)) return;
  const rxFlags = ph.csum_flags;
  ph.csum_flags = 0;
  ph.csum_data = 0;
  transport(m, rxFlags);
  ph.lro_nsegs = 0;
  const mtu = Math.min(IN6_LINKMTU(nh.nh_ifp), nh.nh_mtu);
  if (largest(m) > mtu) return icmp6_error(m, ICMP6_PACKET_TOO_BIG, 0, mtu, vnet);
  const redirect = betterHop(rcvif, nh, vnet);
  const copy = packetBeginning(m, redirect ? QUOTED : 0);
  mem[p + IP6_HLIM_OFF] = $ip6.ip6_hlim - 1;
  ph.rcvif = null;
  const error = ip6ForwardOutput(m, nh, vnet);
  if (error === 0) {
    v.stat.ip6s_forward++;
    if (!redirect) return m_freem(copy);
    v.stat.ip6s_redirectsent++;
    if (copy !== null) icmp6_redirect_output(copy, nh);
    return;
  }
  v.stat.ip6s_cantforward++;
  if (copy === null) return;
  if (error === EMSGSIZE || error === ENOBUFS) return m_freem(copy);
  icmp6_error(copy, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADDR, 0, vnet);
}

/** Sets net.inet6.ip6.forwarding. */
export function setForwarding6(vnet: Vnet, on: boolean): void {
  V_ip6(vnet).params.forwarding = on;
  if (on) for (const ifp of ifnetList(vnet)) forwardingLro(ifp);
}
