/**
 * IPv4 output, after sys/netinet/ip_output.c as of r349529: header completion, routing, what is done
 * here because the interface cannot (ip_fallback.ts), size (ip_fragment.ts). Left out: options insertion,
 * IPsec, packet filter hooks, multicast routing and loopback, SCTP.
 */

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
import { count, R_IP_BADADDR, R_IP_CANTFRAG, R_IP_NOROUTE, type Reason } from '../sys/reason.ts';
import type { InAddr, Kva } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import {
  CSUM_DELAY_DATA,
  CSUM_IP,
  CSUM_TSO,
  M_BCAST,
  type Mbuf,
  M_MCAST,
  M_PKTHDR,
  M_PROTOFLAGS,
  mtod,
} from '../kern/mbuf.ts';
import { AF_INET } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
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
import { ifaOnLink, in_broadcast } from './in_var.ts';
import { IN_LOOPBACKNET, IN_MULTICAST, INADDR_BROADCAST, inAddrOf } from './in.ts';
import { in_delayed_cksum } from './in_cksum.ts';
import { inRouteLookup } from './in_fib.ts';
import { Ip, IP_DF, IP_DST_OFF, IP_SRC_OFF } from './ip.ts';
import { mbufFallback } from './ip_fallback.ts';
import { ip_fragment, ipFragments, sumHeader } from './ip_fragment.ts';
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

/**
 * Gives a packet its identification. With DF it is 0 (net.inet.ip.rfc6864: RFC 6864 allows any
 * value, and a constant one lets the peer's GRO merge), else it counts up from a random start, or
 * is random with net.inet.ip.random_id.
 * @see sys/netinet/ip_id.c
 */
export function ip_fillid(ip: Ip, vnet: Vnet): void {
  const v = V_ip(vnet);
  if (v.params.rfc6864 && (ip.ip_off & IP_DF) !== 0) ip.ip_id = 0;
  else if (v.params.random_id) ip.ip_id = vnet.prng.next32() & 0xffff;
  else ip.ip_id = v.ip_id = (v.ip_id + 1) & 0xffff;
}

/** Counts why a packet goes no further and frees it; returns `error`. */
function drop(m: Mbuf, why: Reason, error: Errno): Errno {
  count(why);
  m_freem(m);
  return error;
}

/** Clears the flags that belong to protocols, on every mbuf of the chain. @see mbuf(9) */
function m_clrprotoflags(m: Mbuf | null): void {
  for (; m !== null; m = m.m_next) m.m_flags &= ~M_PROTOFLAGS;
}

/** Hands one finished packet to the interface, for `nexthop`. Takes `m`. */
function transmit(ifp: Ifnet, m: Mbuf): Errno {
  m_clrprotoflags(m);
  return ifp.if_output!(ifp, m, nexthop);
}

// The next hop of the current packet, set by `route`. One ip_output uses the two records at a time.
const nexthop = new OutputDst(AF_INET);
const out: { entered: boolean; ifp: Ifnet | null; ia: Ifaddr | null; mtu: number } = {
  entered: false,
  ifp: null,
  ia: null,
  mtu: 0,
};

/**
 * Finds the way for the packet whose header is at `p`; EHOSTUNREACH without a route, ENETUNREACH if it must be on
 * a link.
 */
function route(p: Kva, ro: Route | null, flags: number, vnet: Vnet): Errno {
  const dst = memView.getInt32(p + IP_DST_OFF) as InAddr;
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
 * Marks multicast and broadcast packets and checks whether they may leave. Returns an errno, with
 * `m` still the caller's.
 */
function checkCast(m: Mbuf, p: Kva, flags: number, ifp: Ifnet): Errno {
  const dst = memView.getInt32(p + IP_DST_OFF) as InAddr;
  if (IN_MULTICAST(dst)) {
    m.m_flags |= M_MCAST;
    // A group is on every link: no router is asked.
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
 * Sends an IP packet. The protocol has filled ip_tos, ip_len, ip_off (IP_DF), ip_ttl, ip_p, ip_src
 * (0.0.0.0: the outgoing interface's) and ip_dst in the header at the start of `m`, which has
 * max_linkhdr bytes of room in front, and m_pkthdr.len, csum_flags, csum_data, tso_segsz. `ro`
 * caches the lookup for its owner; null for none. Takes `m` on every outcome.
 *
 * EHOSTUNREACH, ENETUNREACH: no route. EMSGSIZE: larger than the MTU and not to be cut. EACCES,
 * EADDRNOTAVAIL: broadcast without leave, loopback address on a wire. ENOBUFS: no memory, among
 * others to convert unmapped mbufs for an interface that cannot take them. Else the interface's. Panics
 * if it is entered from itself.
 * @see sys/netinet/ip_output.c
 */
export function ip_output(m: Mbuf, ro: Route | null, flags: number, vnet: Vnet): Errno {
  recordEnter(out);
  try {
    return output(m, ro, flags, vnet);
  } finally {
    recordLeave(out);
  }
}

function output(m: Mbuf, ro: Route | null, flags: number, vnet: Vnet): Errno {
  KASSERT((m.m_flags & M_PKTHDR) !== 0, 'ip_output: no packet header');
  KASSERT(m.m_len >= Ip.SIZE, 'ip_output: header not contiguous');
  const v = V_ip(vnet);
  const p = mtod(m);
  const ip = $ip.at(p);
  if ((flags & (IP_FORWARDING | IP_RAWOUTPUT)) === 0) {
    ip.ip_vhl = 0x45;
    ip_fillid(ip, vnet);
    v.stat.ips_localout++;
  }
  let error = route(p, ro, flags, vnet);
  if (error !== 0) {
    v.stat.ips_noroute++;
    return drop(m, R_IP_NOROUTE, error);
  }
  const ifp = out.ifp!;
  error = checkCast(m, p, flags, ifp);
  if (error !== 0) return drop(m, R_IP_BADADDR, error);
  if (memView.getInt32(p + IP_SRC_OFF) === 0) ip.ip_src = inAddrOf(out.ia!.ifa_addr);
  const loopback = mem[p + IP_DST_OFF] === IN_LOOPBACKNET || mem[p + IP_SRC_OFF] === IN_LOOPBACKNET;
  if (loopback && (ifp.if_flags & IFF_LOOPBACK) === 0) {
    v.stat.ips_badaddr++;
    return drop(m, R_IP_BADADDR, EADDRNOTAVAIL);
  }
  return sendOrFragment(m, ifp, out.mtu, v);
}

/**
 * The second half of ip_output: what the interface cannot do is done here, in this order: checksum
 * (which needs mapped data), unmapped data, header checksum, size. Takes `m`.
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
