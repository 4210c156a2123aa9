/**
 * IPv4 input, after sys/netinet/ip_input.c: checks, options, local delivery; ip_forward.ts has
 * forwarding. Every dropped packet is counted twice: in FreeBSD's ipstat and by drop reason. Left
 * out: packet filter hooks.
 */

import { NetAddr } from '../sys/addr.ts';
import {
  R_IP_BADADDR,
  R_IP_HLEN,
  R_IP_LEN,
  R_IP_NOBUFS,
  R_IP_NOPROTO,
  R_IP_NOTUS,
  R_IP_OPTIONS,
  R_IP_SHORT,
  R_IP_SUM,
  R_IP_VERSION,
  type Reason,
} from '../sys/reason.ts';
import type { InAddr, Kva } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { CSUM_IP_CHECKED, CSUM_IP_VALID, type Mbuf, mtod } from '../kern/mbuf.ts';
import { m_adj } from '../kern/uipc_mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IFF_BROADCAST, IFF_LOOPBACK, type Ifnet } from '../net/if_var.ts';
import { mem, memView } from '../vm/arena.ts';
import { igmpLink } from './igmp.ts';
import { IN_LOOPBACKNET, INADDR_BROADCAST } from './in.ts';
import { in_cksum_hdr } from './in_cksum.ts';
import { inm_lookup } from './in_multi.ts';
import { in_broadcast } from './in_var.ts';
import { ICMP_UNREACH, ICMP_UNREACH_PROTOCOL } from './icmp.ts';
import { Ip, IP_DST_OFF, IP_MF, IP_OFFMASK, IP_SRC_OFF, IPVERSION } from './ip.ts';
import { ip_forward } from './ip_forward.ts';
import { icmp_error } from './ip_icmp.ts';
import { ip_dooptions, IPOPTS_DROP, IPOPTS_OK, ipNoOptions, optionsError } from './ip_options.ts';
import { ip_reass } from './ip_reass.ts';
import { in_localip, type IpVnet, V_ip } from './ip_var.ts';
import { captureOn, captureRing } from '../net/capture.ts';
import { captureIp } from '../net/capture_layers.ts';
import { countDrop, pullupInput } from '../net/capture_drop.ts';
import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';

const $ip = new Ip();

function drop(m: Mbuf, why: Reason): void {
  countDrop(m, why, CAPTURE_IP, CAPTURE_IN);
  m_freem(m);
}

/**
 * Makes the header of `m` contiguous and checks version, lengths and checksum. Trims bytes beyond
 * ip_len. Takes `m`; returns null if it was dropped. Sets `$ip` to the header.
 */
function checkHeader(m0: Mbuf, { stat }: IpVnet): Mbuf | null {
  if (m0.m_pkthdr.len < Ip.SIZE) {
    stat.ips_toosmall++;
    drop(m0, R_IP_SHORT);
    return null;
  }
  let m = m0.m_len < Ip.SIZE ? pullupInput(m0, Ip.SIZE, R_IP_NOBUFS) : m0;
  if (m === null) {
    stat.ips_toosmall++;
    return null;
  }
  $ip.at(mtod(m));
  if ($ip.ip_v !== IPVERSION) {
    stat.ips_badvers++;
    drop(m, R_IP_VERSION);
    return null;
  }
  const hlen = $ip.ip_hl << 2;
  if (hlen < Ip.SIZE || hlen > m.m_pkthdr.len) {
    stat.ips_badhlen++;
    drop(m, R_IP_HLEN);
    return null;
  }
  if (hlen > m.m_len) {
    m = pullupInput(m, hlen, R_IP_NOBUFS);
    if (m === null) {
      stat.ips_badhlen++;
      return null;
    }
    $ip.at(mtod(m));
  }
  const { csum_flags } = m.m_pkthdr;
  const bad =
    (csum_flags & CSUM_IP_CHECKED) !== 0
      ? (csum_flags & CSUM_IP_VALID) === 0
      : in_cksum_hdr(m, hlen) !== 0;
  if (bad) {
    stat.ips_badsum++;
    drop(m, R_IP_SUM);
    return null;
  }
  return trim(m, hlen, stat);
}

/** Checks ip_len and trims the padding after it. Takes `m`; returns null if it was dropped. */
function trim(m: Mbuf, hlen: number, stat: IpVnet['stat']): Mbuf | null {
  const len = $ip.ip_len;
  if (len < hlen) {
    stat.ips_badlen++;
    drop(m, R_IP_LEN);
    return null;
  }
  const have = m.m_pkthdr.len;
  if (have < len) {
    stat.ips_tooshort++;
    drop(m, R_IP_SHORT);
    return null;
  }
  if (have > len) {
    if (m.m_len === have) {
      m.m_len = len;
      m.m_pkthdr.len = len;
    } else {
      m_adj(m, len - have);
    }
  }
  return m;
}

/** Whether the header at `p` has an address that must not arrive by `ifp`. */
function badAddress(ifp: Ifnet, p: Kva, v: IpVnet, vnet: Vnet): boolean {
  if ((ifp.if_flags & IFF_LOOPBACK) !== 0) return false;
  if (mem[p + IP_SRC_OFF] === IN_LOOPBACKNET || mem[p + IP_DST_OFF] === IN_LOOPBACKNET) return true;
  // A remote host must not use one of our addresses as source of a packet to us:
  // net.inet.ip.source_address_validation. Our own multicasts and broadcasts come back.
  return (
    v.params.source_address_validation &&
    in_localip(vnet, memView.getInt32(p + IP_SRC_OFF) as InAddr) &&
    in_localip(vnet, memView.getInt32(p + IP_DST_OFF) as InAddr)
  );
}

/** Whether the packet at `p`, received by `ifp`, is for this host. */
function isOurs(ifp: Ifnet, p: Kva, vnet: Vnet): boolean {
  const dst = memView.getInt32(p + IP_DST_OFF) as InAddr;
  if (in_localip(vnet, dst)) return true;
  if (dst === INADDR_BROADCAST || dst === 0) return true;
  return (ifp.if_flags & IFF_BROADCAST) !== 0 && in_broadcast(dst, ifp);
}

const $group = new NetAddr();

/** Whether this host is a member of `group` on `ifp`. */
function isMember(ifp: Ifnet, group: InAddr): boolean {
  const link = igmpLink(ifp);
  $group.set(group);
  return link !== null && inm_lookup(link, $group) !== null;
}

/** Processes the options, if any. Takes `m`; returns null if it was dropped. */
function options(m: Mbuf, v: IpVnet, vnet: Vnet): Mbuf | null {
  if ($ip.ip_hl === 5) {
    ipNoOptions();
    return m;
  }
  const result = ip_dooptions(m, vnet);
  if (result === IPOPTS_OK) return m;
  if (result === IPOPTS_DROP) {
    v.stat.ips_cantforward++;
    drop(m, R_IP_OPTIONS);
    return null;
  }
  v.stat.ips_badoptions++;
  countDrop(m, R_IP_OPTIONS, CAPTURE_IP, CAPTURE_IN);
  icmp_error(m, optionsError.type, optionsError.code, optionsError.word, vnet);
  return null;
}

/**
 * Input of an IPv4 packet. Takes `m0`, which starts at the IP header.
 * @see sys/netinet/ip_input.c
 */
export function ip_input(m0: Mbuf, vnet: Vnet): void {
  const v = V_ip(vnet);
  const { stat } = v;
  stat.ips_total++;
  let m = checkHeader(m0, v);
  if (m === null) return;
  const ifp = m.m_pkthdr.rcvif as Ifnet;
  if (captureOn.ip) captureIp(captureRing(), ifp, m, CAPTURE_IN);
  if (badAddress(ifp, mtod(m), v, vnet)) {
    stat.ips_badaddr++;
    return drop(m, R_IP_BADADDR);
  }
  const wasTo = memView.getInt32(mtod(m) + IP_DST_OFF);
  m = options(m, v, vnet);
  if (m === null) return;
  const p = mtod(m);
  if (mem[p + IP_DST_OFF]! >>> 4 === 0xe) {
    // Unlike FreeBSD, whose protocols test the membership. RFC 1112, 7.2.
    if (!isMember(ifp, memView.getInt32(p + IP_DST_OFF) as InAddr)) {
      stat.ips_notmember++;
      return drop(m, R_IP_NOTUS);
    }
  } else if (!isOurs(ifp, p, vnet)) {
    if (v.params.forwarding) return ip_forward(m, memView.getInt32(p + IP_DST_OFF) !== wasTo, vnet);
    stat.ips_cantforward++;
    return drop(m, R_IP_NOTUS);
  }
  if (($ip.ip_off & (IP_MF | IP_OFFMASK)) !== 0) {
    m = ip_reass(m, vnet);
    if (m === null) return;
    $ip.at(mtod(m));
  }
  const pr = v.protox[$ip.ip_p]!;
  if (pr === null) {
    stat.ips_noproto++;
    countDrop(m, R_IP_NOPROTO, CAPTURE_IP, CAPTURE_IN);
    return icmp_error(m, ICMP_UNREACH, ICMP_UNREACH_PROTOCOL, 0, vnet);
  }
  stat.ips_delivered++;
  pr.input(m, $ip.ip_hl << 2, vnet);
}
