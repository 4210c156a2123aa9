/**
 * IPv4 output, after sys/netinet/ip_output.c as of r349529: header completion, options, routing,
 * software fallbacks for what the interface cannot do (ip_fallback.ts), fragmentation
 * (ip_fragment.ts). Left out: IPsec, packet filter hooks, multicast routing, SCTP.
 */

import { CAPTURE_IP, CAPTURE_OUT } from '../sys/capture.ts';
import { countDrop, noteLost } from '../net/capture_drop.ts';
import { sentPktId } from '../sys/packet_id.ts';
import {
  EACCES,
  EADDRNOTAVAIL,
  EHOSTUNREACH,
  EMSGSIZE,
  ENETUNREACH,
  ENOBUFS,
  type Errno,
} from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { recordEnter, recordLeave } from '../sys/pass.ts';
import {
  count,
  R_CONVERT_NOMAP,
  R_IP_BADADDR,
  R_IP_CANTFRAG,
  R_IP_NOBUFS,
  R_IP_NOROUTE,
  type Reason,
} from '../sys/reason.ts';
import type { InAddr, Kva } from '../sys/types.ts';
import { m_freem, m_gethdr } from '../kern/kern_mbuf.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import {
  CSUM_DELAY_DATA,
  CSUM_IP,
  CSUM_TSO,
  M_BCAST,
  type Mbuf,
  M_COPYALL,
  M_MCAST,
  M_NOWAIT,
  M_PKTHDR,
  M_PROTOFLAGS,
  MT_DATA,
  mtod,
} from '../kern/mbuf.ts';
import { AF_INET } from '../kern/protosw.ts';
import { m_copym } from '../kern/uipc_mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import { loopCopy } from '../net/if_loop.ts';
import {
  IFF_BROADCAST,
  IFF_LOOPBACK,
  IFF_MULTICAST,
  type Ifaddr,
  type Ifnet,
  OutputDst,
} from '../net/if_var.ts';
import { type Route, RTF_GATEWAY, RTF_HOST } from '../net/route.ts';
import { mem, memView } from '../vm/arena.ts';
import type { InMoptions } from './in_multi.ts';
import { ifaOnLink, in_broadcast, inPrimary } from './in_var.ts';
import { IN_LOOPBACKNET, IN_MULTICAST, INADDR_BROADCAST, inAddrOf } from './in.ts';
import { in_delayed_cksum } from './in_cksum.ts';
import { inRouteLookup } from './in_fib.ts';
import { Ip, IP_DF, IP_DST_OFF, IP_SRC_OFF } from './ip.ts';
import { convertMbufs, mbufFallback } from './ip_fallback.ts';
import { ip_fragment, ipFragments, sumHeader } from './ip_fragment.ts';
import { ip_insertoptions, type IpOptions } from './ip_options.ts';
import {
  IP_ALLOWBROADCAST,
  IP_FORWARDING,
  IP_RAWOUTPUT,
  IP_ROUTETOIF,
  IP_SENDONES,
  type IpVnet,
  V_ip,
} from './ip_var.ts';

const $ip = new Ip();
const IP_DEFAULT_MULTICAST_TTL = 1;

/**
 * Sets the identification of a packet. It is 0 for packets with DF if net.inet.ip.rfc6864 is set:
 * RFC 6864 allows any value, and a constant one lets the peer's GRO merge packets. Else it is
 * random with net.inet.ip.random_id, or a counter that starts at a random value.
 * @see sys/netinet/ip_id.c
 */
function ip_fillid(ip: Ip, vnet: Vnet): void {
  const v = V_ip(vnet);
  if (v.params.rfc6864 && (ip.ip_off & IP_DF) !== 0) ip.ip_id = 0;
  else if (v.params.random_id) ip.ip_id = vnet.prng.next32() & 0xffff;
  else ip.ip_id = v.ip_id = (v.ip_id + 1) & 0xffff;
}

/** Drops a packet: counts the reason, frees the mbuf and returns `error`. */
function drop(m: Mbuf, why: Reason, error: Errno): Errno {
  countDrop(m, why, CAPTURE_IP, CAPTURE_OUT);
  m_freem(m);
  return error;
}

/** Clears the protocol-specific flags on every mbuf of the chain. @see mbuf(9) */
function m_clrprotoflags(m: Mbuf | null): void {
  for (; m !== null; m = m.m_next) m.m_flags &= ~M_PROTOFLAGS;
}

/** Passes one complete packet to the interface, addressed to `nexthop`. Takes `m`. */
function transmit(ifp: Ifnet, m: Mbuf): Errno {
  m_clrprotoflags(m);
  return ifp.if_output!(ifp, m, nexthop);
}

// Next hop and interface of the current packet, set by `route`. recordEnter(out) forbids recursion.
const nexthop = new OutputDst(AF_INET);
const out: { entered: boolean; ifp: Ifnet | null; ia: Ifaddr | null; mtu: number } = {
  entered: false,
  ifp: null,
  ia: null,
  mtu: 0,
};

/**
 * Finds the route of the packet whose header is at `p`; sets `out` and `nexthop`. `imo` may name
 * the interface of multicasts. EHOSTUNREACH: no route. ENETUNREACH: IP_SENDONES or IP_ROUTETOIF is set and the destination is on no local
 * network.
 */
function route(p: Kva, ro: Route | null, flags: number, vnet: Vnet, imo: InMoptions | null): Errno {
  const dst = memView.getInt32(p + IP_DST_OFF) as InAddr;
  const mifp = imo?.imo_multicast_ifp ?? null;
  if (mifp !== null && IN_MULTICAST(dst)) {
    out.ifp = mifp;
    out.ia = inPrimary(mifp);
    out.mtu = mifp.if_mtu;
    return 0;
  }
  if ((flags & (IP_SENDONES | IP_ROUTETOIF)) !== 0) {
    const ia = ifaOnLink(vnet, dst);
    if (ia === null) return ENETUNREACH;
    out.ifp = ia.ifa_ifp;
    out.ia = ia;
    nexthop.set(dst);
    out.mtu = ia.ifa_ifp.if_mtu;
    return 0;
  }
  const nh = inRouteLookup(vnet, ro ?? V_ip(vnet).scratchRoute, dst);
  if (nh === null) return EHOSTUNREACH;
  out.ifp = nh.nh_ifp;
  out.ia = nh.nh_ifa;
  nexthop.set((nh.nh_flags & RTF_GATEWAY) === 0 ? dst : nh.nh_gateway.w0);
  out.mtu = (nh.nh_flags & RTF_HOST) !== 0 ? nh.nh_mtu : nh.nh_ifp.if_mtu;
  return 0;
}

/**
 * Marks multicast and broadcast packets and checks whether they may be sent. Returns an errno; the
 * caller keeps `m` in any case.
 */
function checkCast(m: Mbuf, p: Kva, flags: number, ifp: Ifnet): Errno {
  const dst = memView.getInt32(p + IP_DST_OFF) as InAddr;
  if (IN_MULTICAST(dst)) {
    m.m_flags |= M_MCAST;
    // A group is reached directly on every link: do not send to a gateway.
    nexthop.set(dst);
    return (ifp.if_flags & IFF_MULTICAST) === 0 ? ENETUNREACH : 0;
  }
  m.m_flags &= ~M_BCAST;
  if (nexthop.w0 !== dst || !in_broadcast(dst, ifp)) return 0;
  if ((ifp.if_flags & IFF_BROADCAST) === 0) return EADDRNOTAVAIL;
  if ((flags & IP_ALLOWBROADCAST) === 0) return EACCES;
  if ($ip.ip_len > out.mtu) return EMSGSIZE;
  if ((flags & IP_SENDONES) !== 0) $ip.ip_dst = INADDR_BROADCAST;
  m.m_flags |= M_BCAST;
  return 0;
}

/**
 * Sets the TTL of a multicast and loops a copy back to the members on this host. Returns whether to
 * send it; else it was freed. @see sys/netinet/ip_output.c
 */
function multicast(
  m: Mbuf,
  flags: number,
  ifp: Ifnet,
  { mcast }: IpVnet,
  imo: InMoptions | null,
): boolean {
  if ((flags & (IP_FORWARDING | IP_RAWOUTPUT)) === 0)
    $ip.ip_ttl = imo === null ? IP_DEFAULT_MULTICAST_TTL : imo.imo_multicast_ttl;
  if (imo === null ? mcast.loop : imo.imo_multicast_loop) ip_mloopback(ifp, m);
  if ($ip.ip_ttl !== 0 && (ifp.if_flags & IFF_LOOPBACK) === 0) return true;
  m_freem(m);
  return false;
}

/**
 * Queues a copy of the multicast `m` as input of `ifp`; ip_input drops it if this host is not a
 * member. The copy has a header of its own and shares the payload, which is mapped if necessary. Does
 * not take `m`.
 * @see sys/netinet/ip_output.c
 */
function ip_mloopback(ifp: Ifnet, m: Mbuf): void {
  const hlen = $ip.ip_hl << 2;
  const copy = m_gethdr(M_NOWAIT, MT_DATA);
  if (copy === null) return count(R_IP_NOBUFS);
  m_copydata(m, 0, hlen, mtod(copy));
  copy.m_len = hlen;
  copy.m_flags |= M_MCAST;
  const ph = copy.m_pkthdr;
  ph.len = m.m_pkthdr.len;
  ph.csum_flags = m.m_pkthdr.csum_flags | CSUM_IP;
  if (ph.len > hlen) {
    const shared = m_copym(m, hlen, M_COPYALL, M_NOWAIT);
    copy.m_next = shared === null ? null : convertMbufs(shared, R_CONVERT_NOMAP);
    if (copy.m_next === null) {
      m_freem(copy);
      return count(R_IP_NOBUFS);
    }
  }
  loopCopy(ifp, copy, AF_INET);
}

/**
 * Sends an IP packet. `m` starts at the IP header and has max_linkhdr bytes of room before it. The
 * caller has set ip_tos, ip_len, ip_off (IP_DF), ip_ttl, ip_p, ip_src (0.0.0.0: use the address of
 * the outgoing interface) and ip_dst, and m_pkthdr.len, csum_flags, csum_data and tso_segsz. `ro`
 * caches the route for the caller; null: no cache. Inserts the options `opt`. `imo` has the multicast
 * options; null: the defaults. Takes `m` on every outcome. Panics on recursion.
 *
 * EHOSTUNREACH, ENETUNREACH: no route. EMSGSIZE: larger than the MTU, and DF, TSO or broadcast
 * forbids fragmentation. EACCES: broadcast without IP_ALLOWBROADCAST. EADDRNOTAVAIL: the interface
 * has no broadcast, or a loopback address would leave by another interface. ENOBUFS: no memory, for
 * example to convert unmapped mbufs for an interface without IFCAP_NOMAP. Else the errno of the
 * interface.
 * @see sys/netinet/ip_output.c
 */
export function ip_output(
  m: Mbuf,
  ro: Route | null,
  flags: number,
  vnet: Vnet,
  opt: IpOptions | null = null,
  imo: InMoptions | null = null,
): Errno {
  recordEnter(out);
  try {
    return output(m, ro, flags, vnet, opt, imo);
  } finally {
    recordLeave(out);
  }
}

function output(
  m0: Mbuf,
  ro: Route | null,
  flags: number,
  vnet: Vnet,
  opt: IpOptions | null,
  imo: InMoptions | null,
): Errno {
  let m = m0;
  KASSERT((m.m_flags & M_PKTHDR) !== 0, 'ip_output: no packet header');
  KASSERT(m.m_len >= Ip.SIZE, 'ip_output: header not contiguous');
  const v = V_ip(vnet);
  const made = (flags & (IP_FORWARDING | IP_RAWOUTPUT)) === 0;
  if (made) {
    $ip.at(mtod(m)).ip_vhl = 0x45;
    m.m_pkthdr.pktId = sentPktId(m.m_pkthdr.pktId);
  }
  if (opt !== null) {
    const { pktId, len } = m.m_pkthdr;
    const withOpt = ip_insertoptions(m, opt);
    if (withOpt === null) {
      count(R_IP_NOBUFS);
      noteLost(pktId, len, R_IP_NOBUFS, CAPTURE_IP, CAPTURE_OUT, null);
      v.stat.ips_odropped++;
      return ENOBUFS;
    }
    m = withOpt;
  }
  const p = mtod(m);
  const ip = $ip.at(p);
  if (made) {
    ip_fillid(ip, vnet);
    v.stat.ips_localout++;
  }
  let error = route(p, ro, flags, vnet, imo);
  if (error !== 0) {
    v.stat.ips_noroute++;
    return drop(m, R_IP_NOROUTE, error);
  }
  const ifp = out.ifp!;
  error = checkCast(m, p, flags, ifp);
  if (error !== 0) return drop(m, R_IP_BADADDR, error);
  if (memView.getInt32(p + IP_SRC_OFF) === 0 && out.ia !== null)
    ip.ip_src = inAddrOf(out.ia.ifa_addr);
  const loopback = mem[p + IP_DST_OFF] === IN_LOOPBACKNET || mem[p + IP_SRC_OFF] === IN_LOOPBACKNET;
  if (loopback && (ifp.if_flags & IFF_LOOPBACK) === 0) {
    v.stat.ips_badaddr++;
    return drop(m, R_IP_BADADDR, EADDRNOTAVAIL);
  }
  if ((m.m_flags & M_MCAST) !== 0 && !multicast(m, flags, ifp, v, imo)) return 0;
  return sendOrFragment(m, ifp, out.mtu, v);
}

/**
 * The second half of ip_output: does in software what the interface cannot do, and transmits. First
 * mbufFallback converts unmapped data if necessary (a software checksum needs mapped data). Then
 * follow the transport checksum, the header checksum and fragmentation. Takes `m`.
 */
function sendOrFragment(m: Mbuf, ifp: Ifnet, mtu: number, v: IpVnet): Errno {
  const ph = m.m_pkthdr;
  const hwassist = ifp.if_hwassist;
  ph.csum_flags |= CSUM_IP;
  const swSum = (ph.csum_flags & CSUM_DELAY_DATA & ~hwassist) !== 0;
  if (mbufFallback(m, ifp, swSum) === null) {
    v.stat.ips_odropped++;
    return ENOBUFS;
  }
  if (swSum) {
    in_delayed_cksum(m);
    ph.csum_flags &= ~CSUM_DELAY_DATA;
  }
  const ip = $ip.at(mtod(m));
  const tso = (ph.csum_flags & CSUM_TSO) !== 0;
  if (ip.ip_len <= mtu || (tso && (ph.csum_flags & CSUM_TSO & hwassist) !== 0)) {
    sumHeader(m, ip, hwassist);
    return transmit(ifp, m);
  }
  if ((ip.ip_off & IP_DF) !== 0 || tso) {
    v.stat.ips_cantfrag++;
    return drop(m, R_IP_CANTFRAG, EMSGSIZE);
  }
  let error = ip_fragment(m, mtu, hwassist, v);
  let next = ipFragments.m0;
  ipFragments.m0 = null;
  while (next !== null) {
    const frag = next;
    next = frag.m_nextpkt;
    frag.m_nextpkt = null;
    if (error === 0) error = transmit(ifp, frag);
    else m_freem(frag);
  }
  if (error === 0) v.stat.ips_fragmented++;
  return error;
}
