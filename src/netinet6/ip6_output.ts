/**
 * IPv6 output, after sys/netinet6/ip6_output.c as of r349529: extension headers, routing, zones,
 * groups, software fallbacks for what the interface cannot do (ip_fallback.ts), fragmentation
 * (ip6_fragment.ts). Left out: IPsec, packet filter hooks, multicast routing, routing headers with
 * other segments to visit, SCTP.
 */

import { CAPTURE_IP, CAPTURE_OUT } from '../sys/capture.ts';
import { countDrop, noteLost } from '../net/capture_drop.ts';
import { sentPktId } from '../sys/packet_id.ts';
import { NetAddr } from '../sys/addr.ts';
import {
  EHOSTUNREACH,
  EINVAL,
  EMSGSIZE,
  ENETDOWN,
  ENETUNREACH,
  ENOBUFS,
  EOPNOTSUPP,
  type Errno,
} from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { recordEnter, recordLeave } from '../sys/pass.ts';
import {
  count,
  R_IP6_BADSCOPE,
  R_IP6_CANTFRAG,
  R_IP6_DISABLED,
  R_IP6_NOBUFS,
  R_IP6_NOROUTE,
  R_IP6_ROUTING,
  type Reason,
} from '../sys/reason.ts';
import type { Kva } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import {
  CSUM_DELAY_DATA_IPV6,
  CSUM_TSO,
  type Mbuf,
  M_MCAST,
  M_PKTHDR,
  M_PROTOFLAGS,
  mtod,
} from '../kern/mbuf.ts';
import { AF_INET6, IPPROTO_TCP } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { loopMulticast } from '../net/if_loop.ts';
import { IFF_LOOPBACK, IFF_MULTICAST, type Ifnet, OutputDst } from '../net/if_var.ts';
import { type Nhop, type Route, RTF_GATEWAY } from '../net/route.ts';
import { InConninfo } from '../netinet/in_pcb.ts';
import { mbufFallback } from '../netinet/ip_fallback.ts';
import { tcp_hc_getmtu } from '../netinet/tcp_hostcache.ts';
import { V_tcp } from '../netinet/tcp_var.ts';
import { mem } from '../vm/arena.ts';
import {
  in6Get,
  IN6_IS_ADDR_LOOPBACK,
  IN6_IS_ADDR_MC_INTFACELOCAL,
  IN6_IS_ADDR_MULTICAST,
  IN6_IS_ADDR_UNSPECIFIED,
} from './in6.ts';
import { in6_delayed_cksum } from './in6_cksum.ts';
import { fib6_lookup, in6RouteLookup } from './in6_fib.ts';
import { in6ZoneIf } from './in6_src.ts';
import { in6Enabled, in6Ifextra, in6m_lookup } from './in6_var.ts';
import { Ip6, IP6_DST_OFF, IP6_HLIM_OFF, IP6_SRC_OFF, IPV6_MAXPACKET, IPV6_MMTU } from './ip6.ts';
import { exthdrs, ip6InsertExthdrs, noExthdrs } from './ip6_exthdrs.ts';
import { ip6_fragment, ip6Fragments } from './ip6_fragment.ts';
import {
  type Ip6Moptions,
  type Ip6Pktopts,
  IP6PO_MINMTU_ALL,
  IP6PO_MINMTU_DISABLE,
  type Ip6Vnet,
  IPV6_DONTFRAG,
  IPV6_MINMTU,
  IPV6_UNSPECSRC,
  V_ip6,
} from './ip6_var.ts';
import { in6ClearscopeAt, in6HasZone, in6Ordinary, in6_setscope } from './scope6.ts';

const $ip6 = new Ip6();
const $src = new NetAddr();
const $dst = new NetAddr();
const $peer = new InConninfo();
$peer.inc_family = AF_INET6;

/** Drops a packet: counts the reason, frees the mbuf and returns `error`. */
function drop(m: Mbuf, why: Reason, error: Errno): Errno {
  countDrop(m, why, CAPTURE_IP, CAPTURE_OUT);
  m_freem(m);
  return error;
}

// Next hop and interfaces of the current packet, set by `route`. recordEnter(out) forbids recursion.
const nexthop = new OutputDst(AF_INET6);
const out: {
  entered: boolean;
  ifp: Ifnet | null;
  /** The interface whose zone the addresses belong to; differs from `ifp` if that is lo0. */
  origifp: Ifnet | null;
  mtu: number;
  /** Send even a small packet with a fragment header: the path MTU is below IPV6_MMTU. */
  alwaysfrag: boolean;
} = { entered: false, ifp: null, origifp: null, mtu: 0, alwaysfrag: false };

/** Passes one complete packet to the interface, addressed to `nexthop`. Takes `m`. */
function transmit(m: Mbuf): Errno {
  for (let n: Mbuf | null = m; n !== null; n = n.m_next) n.m_flags &= ~M_PROTOFLAGS;
  return out.ifp!.if_output!(out.origifp!, m, nexthop);
}

/** The MTU of a link for IPv6. @see sys/netinet6/nd6.h */
export function IN6_LINKMTU(ifp: Ifnet): number {
  const linkmtu = in6Ifextra(ifp)?.nd_ifinfo.linkmtu ?? 0;
  return linkmtu >= IPV6_MMTU && linkmtu < ifp.if_mtu ? linkmtu : ifp.if_mtu;
}

/**
 * Sets `out.mtu` to the path MTU to `$dst`: the smallest of link, route and, unless the packet is
 * TCP's, host cache. @see sys/netinet6/ip6_output.c
 */
function ip6_getpmtu(ifp: Ifnet, rtMtu: number, proto: number, vnet: Vnet): void {
  const ifmtu = IN6_LINKMTU(ifp);
  out.alwaysfrag = false;
  out.mtu = rtMtu !== 0 && rtMtu < ifmtu ? rtMtu : ifmtu;
  if (proto !== IPPROTO_TCP) {
    $peer.faddrFrom($dst);
    const known = tcp_hc_getmtu(V_tcp(vnet), $peer);
    if (known !== 0 && known < out.mtu) out.mtu = known;
  }
  if (out.mtu < IPV6_MMTU && ifmtu >= IPV6_MMTU) {
    // RFC 2460, 5: a router that translates to IPv4 needs the fragment header.
    out.alwaysfrag = true;
    out.mtu = IPV6_MMTU;
  }
}

/** Finds interface and next hop of a packet to `$dst`. EHOSTUNREACH, ENETUNREACH: no route. */
function route(
  opt: Ip6Pktopts | null,
  ro: Route | null,
  im6o: Ip6Moptions | null,
  proto: number,
  vnet: Vnet,
): Errno {
  nexthop.setFrom($dst);
  if (IN6_IS_ADDR_MULTICAST($dst)) {
    const chosen = opt?.ip6po_ifp ?? im6o?.im6o_multicast_ifp ?? in6ZoneIf(vnet, $dst);
    const ifp = chosen ?? in6RouteLookup(vnet, ro ?? V_ip6(vnet).scratchRoute, $dst)?.nh_ifp;
    if (ifp === undefined) return EHOSTUNREACH;
    if ((ifp.if_flags & IFF_MULTICAST) === 0) return ENETUNREACH;
    out.ifp = out.origifp = ifp;
    out.alwaysfrag = false;
    const mtu = IN6_LINKMTU(ifp);
    out.mtu = opt?.ip6po_minmtu === IP6PO_MINMTU_DISABLE ? mtu : Math.min(mtu, IPV6_MMTU);
    return 0;
  }
  const chosen = opt === null ? null : opt.ip6po_nexthop;
  const nh =
    chosen === null
      ? in6RouteLookup(vnet, ro ?? V_ip6(vnet).scratchRoute, $dst)
      : fib6_lookup(vnet, chosen);
  if (nh === null) return EHOSTUNREACH;
  const ifp = nh.nh_ifp;
  out.ifp = ifp;
  out.origifp = (ifp.if_flags & IFF_LOOPBACK) !== 0 ? nh.nh_ifa.ifa_ifp : ifp;
  const viaGateway = (nh.nh_flags & RTF_GATEWAY) !== 0;
  // IPV6_NEXTHOP must be a neighbour.
  if (chosen !== null && viaGateway) return EHOSTUNREACH;
  if (viaGateway) nexthop.setFrom(nh.nh_gateway);
  else if (chosen !== null) nexthop.setFrom(chosen);
  // IPV6_PKTINFO chooses another interface; packets to this host take lo0 nevertheless.
  const wanted = opt === null ? null : opt.ip6po_ifp;
  if (wanted !== null && (ifp.if_flags & IFF_LOOPBACK) === 0 && ifp !== wanted) return EHOSTUNREACH;
  ip6_getpmtu(ifp, nh.mtu, proto, vnet);
  return 0;
}

/** Whether the addresses may not be used on the interface: another zone, or the loopback address. */
function badScope(): boolean {
  const ifp = out.origifp!;
  const zone = ifp.if_index;
  if (in6HasZone($src.w0) && ($src.w0 & 0xffff) !== zone) return true;
  if (in6HasZone($dst.w0) && ($dst.w0 & 0xffff) !== zone) return true;
  if ((ifp.if_flags & IFF_LOOPBACK) !== 0) return false;
  return IN6_IS_ADDR_LOOPBACK($src) || IN6_IS_ADDR_LOOPBACK($dst);
}

/**
 * Marks a packet to a group, and gives members on this host a copy. Takes `m`; returns false if the
 * packet must not leave this host.
 */
function checkCast(m: Mbuf, im6o: Ip6Moptions | null, v: Ip6Vnet): boolean {
  const ifp = out.ifp!;
  m.m_flags |= M_MCAST;
  const loop = im6o === null ? v.mcast.loop : im6o.im6o_multicast_loop;
  if (loop && in6m_lookup(ifp, $dst) !== null) loopMulticast(ifp, m, AF_INET6);
  // The copy has the packet if it may not leave the host.
  const stays =
    mem[mtod(m) + IP6_HLIM_OFF] === 0 ||
    (ifp.if_flags & IFF_LOOPBACK) !== 0 ||
    IN6_IS_ADDR_MC_INTFACELOCAL($dst);
  if (stays) m_freem(m);
  return !stays;
}

/** Sets the traffic class of the header at `p`. TCP has set the two bits of ECN. */
function setTclass(p: Kva, tclass: number, proto: number): void {
  const mask = proto === IPPROTO_TCP ? 0xfc : 0xff;
  $ip6.at(p).ip6_flow = ($ip6.ip6_flow & ~(mask << 20)) | ((tclass & mask) << 20);
}

/**
 * Sends an IPv6 packet. `m` starts at the IPv6 header and has max_linkhdr bytes of room before it. The
 * caller has set ip6_flow, ip6_nxt, ip6_hlim and the addresses, which contain their zone, and
 * m_pkthdr.len, csum_flags, csum_data and tso_segsz; ip6_plen is set here. Inserts the extension headers
 * of `opt`. `ro` caches the route for the caller; null: no cache. `flags`: IPV6_UNSPECSRC, DONTFRAG,
 * MINMTU. `im6o` is for groups. Takes `m` on every outcome. Panics on recursion.
 *
 * EHOSTUNREACH, ENETUNREACH: no route, or the addresses are of another zone. EOPNOTSUPP: the source is
 * `::` or a group. EMSGSIZE: larger than the MTU and not to be fragmented, or larger than a packet
 * without jumbo payload. ENETDOWN: IPv6 is disabled on the interface. ENOBUFS: no memory, for example
 * to convert unmapped mbufs for an interface without IFCAP_NOMAP. Else the errno of the interface.
 * @see sys/netinet6/ip6_output.c
 */
export function ip6_output(
  m: Mbuf,
  opt: Ip6Pktopts | null,
  ro: Route | null,
  flags: number,
  im6o: Ip6Moptions | null,
  vnet: Vnet,
): Errno {
  recordEnter(out);
  try {
    return output(m, opt, ro, flags, im6o, vnet);
  } finally {
    recordLeave(out);
  }
}

/**
 * Sends a packet of another host on to `nh`. Its addresses contain their zones. Takes `m`. EMSGSIZE:
 * larger than the MTU of the link. Else as ip6_output.
 */
export function ip6ForwardOutput(m: Mbuf, nh: Nhop, vnet: Vnet): Errno {
  recordEnter(out);
  try {
    const ifp = nh.nh_ifp;
    if (!in6Enabled(ifp)) return drop(m, R_IP6_DISABLED, ENETDOWN);
    const p = mtod(m);
    if ((nh.nh_flags & RTF_GATEWAY) !== 0) nexthop.setFrom(nh.nh_gateway);
    else in6Get(p + IP6_DST_OFF, nexthop);
    out.ifp = out.origifp = ifp;
    out.alwaysfrag = false;
    out.mtu = IN6_LINKMTU(ifp);
    in6ClearscopeAt(p + IP6_SRC_OFF);
    in6ClearscopeAt(p + IP6_DST_OFF);
    noExthdrs();
    return sendOrFragment(m, ifp, IPV6_DONTFRAG, V_ip6(vnet));
  } finally {
    recordLeave(out);
  }
}

function output(
  m0: Mbuf,
  opt: Ip6Pktopts | null,
  ro: Route | null,
  flags: number,
  im6o: Ip6Moptions | null,
  vnet: Vnet,
): Errno {
  KASSERT((m0.m_flags & M_PKTHDR) !== 0, 'ip6_output: no packet header');
  KASSERT(m0.m_len >= Ip6.SIZE, 'ip6_output: header not contiguous');
  const v = V_ip6(vnet);
  const { stat } = v;
  const proto = $ip6.at(mtod(m0)).ip6_nxt;
  const pktId = sentPktId(m0.m_pkthdr.pktId);
  m0.m_pkthdr.pktId = pktId;
  let m: Mbuf | null = m0;
  // As on FreeBSD, a packet with a routing header is not sent: RFC 5095 deprecates the only type.
  if (opt !== null && opt.ip6po_rthdr !== null) return drop(m, R_IP6_ROUTING, EINVAL);
  if (opt === null) noExthdrs();
  else m = ip6InsertExthdrs(m0, opt);
  if (m === null) {
    stat.ip6s_odropped++;
    count(R_IP6_NOBUFS);
    noteLost(pktId, 0, R_IP6_NOBUFS, CAPTURE_IP, CAPTURE_OUT, null);
    return ENOBUFS;
  }
  const p = mtod(m);
  stat.ip6s_localout++;
  const plen = m.m_pkthdr.len - Ip6.SIZE;
  if (opt !== null && opt.ip6po_tclass >= 0) setTclass(p, opt.ip6po_tclass, proto);
  // A larger packet needs the jumbo payload option, which is not sent.
  if (plen > IPV6_MAXPACKET) return drop(m, R_IP6_CANTFRAG, EMSGSIZE);
  $ip6.at(p).ip6_plen = plen;
  in6Get(p + IP6_DST_OFF, $dst);
  in6Get(p + IP6_SRC_OFF, $src);
  const anySrc = IN6_IS_ADDR_UNSPECIFIED($src) && (flags & IPV6_UNSPECSRC) === 0;
  if (anySrc || IN6_IS_ADDR_MULTICAST($src)) {
    stat.ip6s_badscope++;
    return drop(m, R_IP6_BADSCOPE, EOPNOTSUPP);
  }
  const error = route(opt, ro, im6o, proto, vnet);
  if (error !== 0) {
    stat.ip6s_noroute++;
    return drop(m, R_IP6_NOROUTE, error);
  }
  const ifp = out.ifp!;
  if (!in6Enabled(ifp)) return drop(m, R_IP6_DISABLED, ENETDOWN);
  const multicast = IN6_IS_ADDR_MULTICAST($dst);
  if (opt !== null && opt.ip6po_hlim >= 0) mem[p + IP6_HLIM_OFF] = opt.ip6po_hlim;
  else if (multicast)
    mem[p + IP6_HLIM_OFF] = im6o === null ? v.params.mcast_hlim : im6o.im6o_multicast_hlim;
  if (multicast) {
    // A group without a zone gets that of the interface.
    in6_setscope($dst, ifp);
    nexthop.setFrom($dst);
  }
  if (!in6Ordinary($src.w0) || !in6Ordinary($dst.w0)) {
    if (badScope()) {
      stat.ip6s_badscope++;
      return drop(m, R_IP6_BADSCOPE, EHOSTUNREACH);
    }
    // Members on this host receive a copy without the zone, as from the wire.
    in6ClearscopeAt(p + IP6_SRC_OFF);
    in6ClearscopeAt(p + IP6_DST_OFF);
  }
  if (multicast && !checkCast(m, im6o, v)) return 0;
  let optFlags = opt === null ? 0 : opt.ip6po_flags;
  if (opt !== null && opt.ip6po_minmtu === IP6PO_MINMTU_ALL) optFlags |= IPV6_MINMTU;
  return sendOrFragment(m, ifp, flags | optFlags, v);
}

/**
 * The second half of ip6_output: does in software what the interface cannot do, and transmits. First
 * mbufFallback converts unmapped data if necessary (a software checksum needs mapped data), then
 * follow the transport checksum and fragmentation. With extension headers, the NIC computes nothing.
 * Takes `m`.
 */
function sendOrFragment(m: Mbuf, ifp: Ifnet, flags: number, v: Ip6Vnet): Errno {
  const { optlen, unfragpartlen, nxtOff } = exthdrs;
  const ph = m.m_pkthdr;
  const hwassist = optlen === 0 ? ifp.if_hwassist : 0;
  const mtu = (flags & IPV6_MINMTU) !== 0 ? Math.min(out.mtu, IPV6_MMTU) : out.mtu;
  const tso = (ph.csum_flags & CSUM_TSO & hwassist) !== 0;
  const dontfrag = (flags & IPV6_DONTFRAG) !== 0;
  const whole = tso || dontfrag || (!out.alwaysfrag && ph.len <= mtu);
  // A NIC cannot compute a transport checksum over fragments.
  const swSum = (ph.csum_flags & CSUM_DELAY_DATA_IPV6 & (whole ? ~hwassist : -1)) !== 0;
  if (mbufFallback(m, ifp, swSum) === null) {
    v.stat.ip6s_odropped++;
    return ENOBUFS;
  }
  if (swSum) in6_delayed_cksum(m, ph.len - Ip6.SIZE - optlen, Ip6.SIZE + optlen);
  ph.csum_flags &= swSum ? hwassist & ~CSUM_DELAY_DATA_IPV6 : hwassist;
  if (dontfrag && !tso && ph.len > IN6_LINKMTU(ifp)) {
    v.stat.ip6s_cantfrag++;
    return drop(m, R_IP6_CANTFRAG, EMSGSIZE);
  }
  if (whole) return transmit(m);
  if (mtu < IPV6_MMTU) {
    v.stat.ip6s_cantfrag++;
    return drop(m, R_IP6_CANTFRAG, EMSGSIZE);
  }
  let error = ip6_fragment(m, Ip6.SIZE + unfragpartlen, nxtOff, mtu, v);
  let next = ip6Fragments.m0;
  ip6Fragments.m0 = null;
  while (next !== null) {
    const frag = next;
    next = frag.m_nextpkt;
    frag.m_nextpkt = null;
    if (error === 0) error = transmit(frag);
    else m_freem(frag);
  }
  if (error === 0) v.stat.ip6s_fragmented++;
  return error;
}
