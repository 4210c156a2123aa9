/**
 * IPv4 output, after sys/netinet/ip_output.c as of r349529: header completion, routing, the decision
 * between passing, converting and summing in software, fragmentation. Left out: options insertion,
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
import {
  count,
  R_CONVERT_CSUM,
  R_CONVERT_NOMAP,
  R_IP_BADADDR,
  R_IP_CANTFRAG,
  R_IP_NOBUFS,
  R_IP_NOROUTE,
  type Reason,
} from '../sys/reason.ts';
import { inAddr, type InAddr, type Kva } from '../sys/types.ts';
import { m_freem, m_gethdr, mb_unmapped_to_ext, mbEmulator } from '../kern/kern_mbuf.ts';
import {
  CSUM_DELAY_DATA,
  CSUM_IP,
  CSUM_TSO,
  M_BCAST,
  type Mbuf,
  max_linkhdr,
  M_MCAST,
  M_NOWAIT,
  M_PKTHDR,
  M_PROTOFLAGS,
  MT_DATA,
  mtod,
} from '../kern/mbuf.ts';
import { AF_INET } from '../kern/protosw.ts';
import { m_adj, m_copym } from '../kern/uipc_mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import {
  IFCAP_NOMAP,
  IFF_BROADCAST,
  IFF_LOOPBACK,
  IFF_MULTICAST,
  type Ifnet,
  type InIfaddr,
  type OutputDst,
} from '../net/if_var.ts';
import { type Route, routeLookup, RTF_HOST } from '../net/route.ts';
import { mem, memView, PAGE_MASK, PAGE_SIZE } from '../vm/arena.ts';
import { ifaOnLink, in_broadcast } from './in_var.ts';
import { IN_LOOPBACKNET, IN_MULTICAST, INADDR_BROADCAST, in_nullhost } from './in.ts';
import { in_cksum_hdr, in_delayed_cksum } from './in_cksum.ts';
import {
  Ip,
  IP_DF,
  IP_DST_OFF,
  IP_SRC_OFF,
  IP_MF,
  IP_OFFMASK,
  IPOPT_EOL,
  IPOPT_NOP,
} from './ip.ts';
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
const $frag = new Ip();

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

/**
 * Converts the unmapped parts of a packet that is about to leave, counting `why` if there were any.
 * Takes `m`; null, with everything freed and counted, if that fails.
 */
function convert(m: Mbuf, why: Reason, v: IpVnet): Mbuf | null {
  const before = mbEmulator.conversions;
  const n = mb_unmapped_to_ext(m);
  if (mbEmulator.conversions !== before) count(why);
  if (n === null) v.stat.ips_odropped++;
  return n;
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

/** Sums the IP header of `m` unless the interface does. */
function sumHeader(m: Mbuf, ip: Ip, hwassist: number): void {
  ip.ip_sum = 0;
  const ph = m.m_pkthdr;
  if ((ph.csum_flags & CSUM_IP & ~hwassist) === 0) return;
  ip.ip_sum = in_cksum_hdr(m, ip.ip_hl << 2);
  ph.csum_flags &= ~CSUM_IP;
}

/** Hands one finished packet to the interface, for `nexthop`. Takes `m`. */
function transmit(ifp: Ifnet, m: Mbuf): Errno {
  m_clrprotoflags(m);
  return ifp.if_output!(ifp, m, nexthop);
}

// Where the packet under way goes, filled by `route`. Not passed as arguments: an address above
// 2^31 is no small integer, and passing it on would allocate a number per packet.
const nexthop: OutputDst = { family: AF_INET, addr: inAddr(0x80000000), addr6: null };
const out: { ifp: Ifnet | null; ia: InIfaddr | null; mtu: number } = {
  ifp: null,
  ia: null,
  mtu: 0,
};

/**
 * Finds the way for the packet whose header is at `p`; EHOSTUNREACH without a route, ENETUNREACH if it must be on
 * a link.
 */
function route(p: Kva, ro: Route | null, flags: number, vnet: Vnet): Errno {
  const dst = memView.getUint32(p + IP_DST_OFF) as InAddr;
  if ((flags & (IP_SENDONES | IP_ROUTETOIF)) !== 0) {
    const ia = ifaOnLink(vnet, dst);
    if (ia === null) return ENETUNREACH;
    out.ifp = ia.ia_ifp;
    out.ia = ia;
    nexthop.addr = dst;
    out.mtu = ia.ia_ifp.if_mtu;
    return 0;
  }
  const nh = routeLookup(vnet, ro ?? V_ip(vnet).scratchRoute, dst);
  if (nh === null) return EHOSTUNREACH;
  out.ifp = nh.nh_ifp;
  out.ia = nh.nh_ifa;
  if (in_nullhost(nh.nh_gateway)) nexthop.addr = dst;
  else nexthop.addr = nh.nh_gateway;
  out.mtu = (nh.nh_flags & RTF_HOST) !== 0 ? nh.nh_mtu : nh.nh_ifp.if_mtu;
  return 0;
}

/**
 * Marks multicast and broadcast packets and checks whether they may leave. Returns an errno, with
 * `m` still the caller's.
 */
function checkCast(m: Mbuf, p: Kva, flags: number, ifp: Ifnet): Errno {
  const dst = memView.getUint32(p + IP_DST_OFF) as InAddr;
  if (IN_MULTICAST(dst)) {
    m.m_flags |= M_MCAST;
    // A group is on every link: no router is asked.
    nexthop.addr = dst;
    return (ifp.if_flags & IFF_MULTICAST) === 0 ? ENETUNREACH : 0;
  }
  m.m_flags &= ~M_BCAST;
  if (nexthop.addr !== dst || !in_broadcast((dst | 0) as InAddr, ifp)) return 0;
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
 * others to convert unmapped mbufs for an interface that cannot take them. Else the interface's.
 * @see sys/netinet/ip_output.c
 */
export function ip_output(m: Mbuf, ro: Route | null, flags: number, vnet: Vnet): Errno {
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
  if (memView.getUint32(p + IP_SRC_OFF) === 0) ip.ip_src = out.ia!.ia_addr;
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
  if ((ph.csum_flags & CSUM_DELAY_DATA & ~hwassist) !== 0) {
    if (convert(m, R_CONVERT_CSUM, v) === null) return ENOBUFS;
    in_delayed_cksum(m);
    ph.csum_flags &= ~CSUM_DELAY_DATA;
  } else if ((ifp.if_capenable & IFCAP_NOMAP) === 0) {
    if (convert(m, R_CONVERT_NOMAP, v) === null) return ENOBUFS;
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

/** What ip_fragment made: packets linked by m_nextpkt; the caller takes them. */
export const ipFragments: { m0: Mbuf | null } = { m0: null };

/**
 * Copies the options that every fragment carries (RFC 791, 3.1: the copied flag) from the header at
 * `src` to behind the header at `dst`; returns the new header's length.
 */
function ip_optcopy(src: number, hlen: number, dst: number): number {
  let from = Ip.SIZE;
  let to = Ip.SIZE;
  while (from < hlen) {
    const opt = mem[src + from]!;
    if (opt === IPOPT_EOL) break;
    // The header was validated when it was built or received; an absurd length ends the options.
    const len = opt === IPOPT_NOP ? 1 : mem[src + from + 1]!;
    if (len < 1 || from + len > hlen) break;
    if ((opt & 0x80) !== 0) {
      mem.copyWithin(dst + to, src + from, src + from + len);
      to += len;
    }
    from += len;
  }
  while ((to & 3) !== 0) mem[dst + to++] = IPOPT_EOL;
  return to;
}

/**
 * How many payload bytes go into the first fragment when the others take page multiples: the whole
 * mbufs that fit, so that the rest starts where a page does; 0 if that leaves nothing.
 */
function firstWholeMbufs(m0: Mbuf, hlen: number, mtu: number): number {
  let off = 0;
  for (let m: Mbuf | null = m0; m !== null && off + m.m_len <= mtu; m = m.m_next) off += m.m_len;
  return off > hlen ? (off - hlen) & ~7 : 0;
}

/** One fragment: `len` payload bytes from byte `off` of the packet `m0`; null without memory. */
function makeFragment(m0: Mbuf, hlen: number, off: number, len: number): Mbuf | null {
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return null;
  const src = mtod(m0);
  m.m_data += max_linkhdr;
  mem.copyWithin(m.m_data, src, src + Ip.SIZE);
  m.m_len = hlen > Ip.SIZE ? ip_optcopy(src, hlen, m.m_data) : Ip.SIZE;
  m.m_flags |= m0.m_flags & (M_MCAST | M_BCAST);
  m.m_next = m_copym(m0, off, len, M_NOWAIT);
  if (m.m_next === null) {
    m_freem(m);
    return null;
  }
  const ph = m.m_pkthdr;
  ph.len = m.m_len + len;
  ph.csum_flags = m0.m_pkthdr.csum_flags;
  ph.flowid = m0.m_pkthdr.flowid;
  ph.rsstype = m0.m_pkthdr.rsstype;
  ph.pktId = m0.m_pkthdr.pktId;
  $frag.at(mtod(m));
  $frag.ip_vhl = 0x40 | (m.m_len >>> 2);
  $frag.ip_len = ph.len;
  return m;
}

/**
 * Cuts the packet `m0` into fragments for `mtu`, which share its payload. On 0 they are
 * `ipFragments.m0`, ready to transmit, `m0` the first of them. EMSGSIZE: DF, or an MTU too small;
 * ENOBUFS: no memory. Takes `m0` on every outcome. Unlike FreeBSD's it frees what it could not
 * finish and takes no header pointer.
 * @see sys/netinet/ip_output.c
 */
export function ip_fragment(m0: Mbuf, mtu: number, hwassist: number, v: IpVnet): Errno {
  ipFragments.m0 = null;
  const ip = $ip.at(mtod(m0));
  const hlen = ip.ip_hl << 2;
  const ipLen = ip.ip_len;
  let len = (mtu - hlen) & ~7;
  if ((ip.ip_off & IP_DF) !== 0 || len < 8) {
    v.stat.ips_cantfrag++;
    return drop(m0, R_IP_CANTFRAG, EMSGSIZE);
  }
  const ph = m0.m_pkthdr;
  if ((ph.csum_flags & CSUM_DELAY_DATA) !== 0) {
    // No NIC sums over fragments.
    if (convert(m0, R_CONVERT_CSUM, v) === null) return ENOBUFS;
    in_delayed_cksum(m0);
    ph.csum_flags &= ~CSUM_DELAY_DATA;
  }
  let firstlen = len;
  const pages = mtu & ~PAGE_MASK;
  if (len > PAGE_SIZE && pages + Ip.SIZE <= mtu) {
    const whole = firstWholeMbufs(m0, hlen, mtu);
    if (whole > 0) {
      firstlen = whole;
      len = pages;
    }
  }
  const ipOff = ip.ip_off;
  let tail: Mbuf = m0;
  let nfrags = 1;
  for (let off = hlen + firstlen; off < ipLen; off += len) {
    const n = Math.min(len, ipLen - off);
    const m = makeFragment(m0, hlen, off, n);
    if (m === null) {
      v.stat.ips_odropped++;
      freePackets(m0);
      count(R_IP_NOBUFS);
      return ENOBUFS;
    }
    // A fragment of a fragment keeps the flag that more follow it.
    const more = off + n < ipLen || (ipOff & IP_MF) !== 0 ? IP_MF : 0;
    $frag.ip_off = ((ipOff & IP_OFFMASK) + ((off - hlen) >>> 3)) | more;
    sumHeader(m, $frag, hwassist);
    tail.m_nextpkt = m;
    tail = m;
    nfrags++;
  }
  v.stat.ips_ofragments += nfrags;
  m_adj(m0, hlen + firstlen - ipLen);
  ip.ip_len = hlen + firstlen;
  ip.ip_off = ipOff | IP_MF;
  sumHeader(m0, ip, hwassist);
  ipFragments.m0 = m0;
  return 0;
}

/** Frees packets linked by m_nextpkt. */
function freePackets(m: Mbuf | null): void {
  while (m !== null) {
    const next = m.m_nextpkt;
    m_freem(m);
    m = next;
  }
}
