/**
 * Forwarding of IPv4 packets between interfaces, after ip_forward of sys/netinet/ip_input.c and
 * ip_tryforward of ip_fastfwd.c (RFC 1812). The payload is not touched: it may be shared or
 * unmapped, and ip_output converts it only if the outgoing interface requires it.
 *
 * Unlike FreeBSD there is one path, which sends redirects and reports a next hop that does not
 * answer; a packet without options counts as ips_fastforward too. Left out: packet filters, IPsec,
 * stealth mode.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { EACCES, EMSGSIZE, ENOBUFS, type Errno } from '../sys/errno.ts';
import { TCP_CKSUM_OFF, UDP_CKSUM_OFF } from '../sys/protocols.ts';
import { R_IP_NOTUS } from '../sys/reason.ts';
import type { InAddr } from '../sys/types.ts';
import { m_freem, m_getcl, m_gethdr } from '../kern/kern_mbuf.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP_TSO,
  CSUM_TCP,
  CSUM_UDP,
  M_BCAST,
  type Mbuf,
  M_MCAST,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
  mtod,
  M_TRAILINGSPACE,
} from '../kern/mbuf.ts';
import { IPPROTO_TCP, IPPROTO_UDP } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifnetList, ifSwitchCapabilities } from '../net/if.ts';
import { IFCAP_LRO, type Ifnet } from '../net/if_var.ts';
import { type Nhop, RTF_DYNAMIC, RTF_GATEWAY } from '../net/route.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP_REDIRECT,
  ICMP_REDIRECT_HOST,
  ICMP_TIMXCEED,
  ICMP_TIMXCEED_INTRANS,
  ICMP_UNREACH,
  ICMP_UNREACH_HOST,
  ICMP_UNREACH_NEEDFRAG,
} from './icmp.ts';
import {
  IN_EXPERIMENTAL,
  IN_LINKLOCAL,
  IN_LOOPBACK,
  IN_MULTICAST,
  inAddrOf,
  IN_ZERONET,
} from './in.ts';
import { in_pseudo } from './in_cksum.ts';
import { inRouteLookup, inRoutes } from './in_fib.ts';
import type { InIfaddr } from './in_var.ts';
import { Ip, IP_MF, IP_OFFMASK } from './ip.ts';
import { icmp_error } from './ip_icmp.ts';
import { ip_output } from './ip_output.ts';
import { IP_FORWARDING, V_ip } from './ip_var.ts';

const $ip = new Ip();
const TCP_MINLEN = 20;
const TCP_OFF_OFF = 12;
const UDP_MINLEN = 8;

/** Whether packets to `dst` may be forwarded at all. @see sys/netinet/in.c */
function in_canforward(dst: InAddr): boolean {
  return !(IN_EXPERIMENTAL(dst) || IN_MULTICAST(dst) || IN_ZERONET(dst) || IN_LOOPBACK(dst));
}

/** Whether a router forwards packets from `src`: RFC 1812, 5.3.7. */
function validSource(src: InAddr): boolean {
  return !(IN_EXPERIMENTAL(src) || IN_MULTICAST(src) || src === 0);
}

function cantForward(m: Mbuf, vnet: Vnet): void {
  V_ip(vnet).stat.ips_cantforward++;
  countDrop(m, R_IP_NOTUS, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/**
 * A copy of the packet's mapped beginning, for an ICMP error: what fits into one mbuf, or, with `max`,
 * at most `max` bytes in a cluster. Null: no mbuf. Does not take `m`.
 */
export function packetBeginning(m: Mbuf, max = 0): Mbuf | null {
  const copy = max === 0 ? m_gethdr(M_NOWAIT, MT_DATA) : m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
  if (copy === null) return null;
  const room = max === 0 ? M_TRAILINGSPACE(copy) : max;
  let len = 0;
  for (
    let n: Mbuf | null = m;
    n !== null && len < room && (n.m_flags & M_NOMAP) === 0;
    n = n.m_next
  )
    len += n.m_len;
  len = Math.min(len, room);
  m_copydata(m, 0, len, mtod(copy));
  copy.m_len = copy.m_pkthdr.len = len;
  copy.m_pkthdr.rcvif = m.m_pkthdr.rcvif;
  return copy;
}

/** Whether `nh` is the next hop of the default route. */
function isDefault(vnet: Vnet, nh: Nhop): boolean {
  const last = inRoutes(vnet).at(-1);
  return last !== undefined && last.rt_prefixlen === 0 && last.rt_nhop === nh;
}

/**
 * The router, or the destination itself, to which the sender should send packets like the one at
 * `$ip` directly; 0: none.
 */
function betterHop(m: Mbuf, nh: Nhop, vnet: Vnet): InAddr {
  const { ip_src: src, ip_dst: dst } = $ip;
  if (!V_ip(vnet).params.redirect || nh.nh_ifp !== m.m_pkthdr.rcvif) return 0 as InAddr;
  if ((nh.nh_flags & RTF_DYNAMIC) !== 0 || isDefault(vnet, nh)) return 0 as InAddr;
  const ia = nh.nh_ifa as InIfaddr;
  if (((src ^ ia.ia_addr) & ia.ia_subnetmask) !== 0) return 0 as InAddr;
  return (nh.nh_flags & RTF_GATEWAY) !== 0 ? inAddrOf(nh.nh_gateway) : dst;
}

/** What `forwardTransport` sets in csum_flags for a family. */
export interface TransportFlags {
  readonly tcp: number;
  readonly udp: number;
  readonly tso: number;
}
const FLAGS: TransportFlags = { tcp: CSUM_TCP, udp: CSUM_UDP, tso: CSUM_IP_TSO };

/**
 * Prepares the transport checksum of `m`, which is forwarded. Its transport header of the protocol
 * `proto` is behind `hlen` bytes, and has with its data `len` bytes; `pseudo` is the sum of the
 * pseudo-header, and `rxFlags` were the receive flags. A NIC in mode `vnet` may deliver a checksum field
 * with that sum only, and frames that are not segmented: the outgoing NIC or the output function
 * completes them. Segments do not become longer than the original ones. All other packets keep their
 * checksum.
 */
export function forwardTransport(
  m: Mbuf,
  rxFlags: number,
  hlen: number,
  proto: number,
  len: number,
  pseudo: number,
  flags: TransportFlags,
): void {
  const tcp = proto === IPPROTO_TCP;
  if ((rxFlags & CSUM_DATA_VALID) === 0) return;
  if (m.m_len < hlen + (tcp ? TCP_MINLEN : UDP_MINLEN)) return;
  const ph = m.m_pkthdr;
  const l4 = mtod(m) + hlen;
  const off = tcp ? TCP_CKSUM_OFF : UDP_CKSUM_OFF;
  const sum = memView.getUint16(l4 + off);
  const segs = tcp ? ph.lro_nsegs : 0;
  // A complete checksum with this value by chance is computed again, with the same result.
  if (segs <= 1 && (sum !== pseudo || sum === 0)) return;
  memView.setUint16(l4 + off, pseudo);
  ph.csum_data = off;
  ph.csum_flags = tcp ? flags.tcp : flags.udp;
  if (segs <= 1) return;
  ph.csum_flags |= flags.tso;
  ph.tso_segsz = Math.ceil((len - ((mem[l4 + TCP_OFF_OFF]! >>> 4) << 2)) / segs);
}

/** Prepares the transport checksum of the packet at `$ip`. */
function transport(m: Mbuf, rxFlags: number): void {
  const hlen = $ip.ip_hl << 2;
  const { ip_p: proto, ip_src: src, ip_dst: dst } = $ip;
  if (proto !== IPPROTO_TCP && proto !== IPPROTO_UDP) return;
  if (($ip.ip_off & (IP_MF | IP_OFFMASK)) !== 0) return;
  const len = $ip.ip_len - hlen;
  forwardTransport(m, rxFlags, hlen, proto, len, in_pseudo(src, dst, len + proto), FLAGS);
}

/**
 * Forwards `m`, a packet for another host whose header was checked. `srcrt`: it came by a source
 * route. An error is reported to its sender by ICMP. Takes `m`. @see sys/netinet/ip_input.c
 */
export function ip_forward(m: Mbuf, srcrt: boolean, vnet: Vnet): void {
  const v = V_ip(vnet);
  $ip.at(mtod(m));
  const { ip_src: src, ip_dst: dst } = $ip;
  const local = IN_LINKLOCAL(dst) || IN_LINKLOCAL(src);
  const cast = (m.m_flags & (M_BCAST | M_MCAST)) !== 0;
  if (local || cast || !in_canforward(dst) || !validSource(src)) return cantForward(m, vnet);
  if ($ip.ip_ttl <= 1) return icmp_error(m, ICMP_TIMXCEED, ICMP_TIMXCEED_INTRANS, 0, vnet);
  const ro = v.forwardRoute;
  const nh = inRouteLookup(vnet, ro, dst);
  if (nh === null) {
    v.stat.ips_noroute++;
    v.stat.ips_cantforward++;
    return icmp_error(m, ICMP_UNREACH, ICMP_UNREACH_HOST, 0, vnet);
  }
  const hop = srcrt ? (0 as InAddr) : betterHop(m, nh, vnet);
  const copy = packetBeginning(m);
  const fast = $ip.ip_hl === 5;
  const ph = m.m_pkthdr;
  const rxFlags = ph.csum_flags;
  ph.csum_flags = 0;
  ph.csum_data = 0;
  transport(m, rxFlags);
  ph.lro_nsegs = 0;
  ph.rcvif = null;
  $ip.ip_ttl--;
  const error = ip_output(m, ro, IP_FORWARDING, vnet);
  if (error === 0) {
    v.stat.ips_forward++;
    if (fast) v.stat.ips_fastforward++;
    if (hop !== 0 && copy !== null) {
      v.stat.ips_redirectsent++;
      return icmp_error(copy, ICMP_REDIRECT, ICMP_REDIRECT_HOST, hop >>> 0, vnet);
    }
    return m_freem(copy);
  }
  v.stat.ips_cantforward++;
  if (copy !== null) report(copy, error, nh, vnet);
}

/** Reports to the sender of the packet that begins with `copy` why it was dropped. Takes `copy`. */
function report(copy: Mbuf, error: Errno, nh: Nhop, vnet: Vnet): void {
  switch (error) {
    case EMSGSIZE:
      return icmp_error(copy, ICMP_UNREACH, ICMP_UNREACH_NEEDFRAG, nh.nh_mtu, vnet);
    case ENOBUFS:
    case EACCES:
      // No memory, or a directed broadcast.
      return m_freem(copy);
    default:
      return icmp_error(copy, ICMP_UNREACH, ICMP_UNREACH_HOST, 0, vnet);
  }
}

/** Switches LRO off on an interface: coalesced packets are not what a router must send on. */
export function forwardingLro(ifp: Ifnet): void {
  ifSwitchCapabilities(ifp, IFCAP_LRO, false);
}

/** Sets net.inet.ip.forwarding. */
export function setForwarding(vnet: Vnet, on: boolean): void {
  V_ip(vnet).params.forwarding = on;
  if (on) for (const ifp of ifnetList(vnet)) forwardingLro(ifp);
}
