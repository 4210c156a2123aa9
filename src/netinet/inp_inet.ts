/** IPv4's table for the protocols above: what TCP and UDP ask of a family, answered for AF_INET. */

import { EACCES, EADDRNOTAVAIL, EAFNOSUPPORT, EHOSTUNREACH, type Errno } from '../sys/errno.ts';
import { type InAddr, inAddr, type Kva } from '../sys/types.ts';
import {
  CSUM_IP_TSO,
  CSUM_TCP,
  CSUM_UDP,
  M_BCAST,
  type Mbuf,
  M_MCAST,
  mtod,
} from '../kern/mbuf.ts';
import { AF_INET, type Sockaddr } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IFCAP_TSO4, type Ifnet } from '../net/if_var.ts';
import { fib4_lookup } from '../net/route.ts';
import { memView } from '../vm/arena.ts';
import { IN_EXPERIMENTAL, IN_MULTICAST, inet_ntoa, in_nullhost } from './in.ts';
import { in_pseudo } from './in_cksum.ts';
import type { InConninfo, Inpcb, InpAf } from './in_pcb.ts';
import { in_broadcast } from './in_var.ts';
import { Ip, IP_DF, IP_DST_OFF, IP_SRC_OFF } from './ip.ts';
import { ip_output } from './ip_output.ts';
import { in_localip, IP_ALLOWBROADCAST } from './ip_var.ts';

const $ip = new Ip();
const ANY = inAddr(0);

/** Whether `addr` is everyone's on the way to it. */
function broadcast(vnet: Vnet, addr: InAddr): boolean {
  const nh = fib4_lookup(vnet, addr);
  return nh !== null && in_broadcast(addr, nh.nh_ifp);
}

/** IPv4's answers, for inpafRegister. */
export const inetAf: InpAf = {
  family: AF_INET,
  hdrlen: Ip.SIZE,
  csumUdp: CSUM_UDP,
  csumTcp: CSUM_TCP,
  csumTso: CSUM_IP_TSO,
  ifcapTso: IFCAP_TSO4,

  isAny(nam: Sockaddr): boolean {
    return nam.addr === 0; // passed to a call it would be boxed
  },
  laddrAny(inc: InConninfo): boolean {
    return inc.inc_laddr === 0;
  },
  faddrAny(inc: InConninfo): boolean {
    return inc.inc_faddr === 0;
  },
  isLocal(vnet: Vnet, nam: Sockaddr): boolean {
    return in_localip(vnet, nam.addr);
  },
  setLaddr(inc: InConninfo, nam: Sockaddr | null): void {
    inc.inc_laddr = nam === null ? ANY : nam.addr;
  },
  setFaddr(inc: InConninfo, nam: Sockaddr | null): void {
    inc.inc_faddr = nam === null ? ANY : nam.addr;
  },
  laddrEqual(a: InConninfo, b: InConninfo): boolean {
    return a.inc_laddr === b.inc_laddr;
  },
  faddrEqual(a: InConninfo, b: InConninfo): boolean {
    return a.inc_faddr === b.inc_faddr;
  },
  selfTalk(inc: InConninfo): boolean {
    return inc.inc_laddr === inc.inc_faddr;
  },
  hash(inc: InConninfo): number {
    return Math.imul(inc.inc_faddr | 0, 0x85ebca6b) ^ inc.inc_laddr;
  },

  connectable(vnet: Vnet, nam: Sockaddr): Errno {
    if (IN_MULTICAST(nam.addr)) return EAFNOSUPPORT;
    if (broadcast(vnet, nam.addr)) return EACCES;
    return in_nullhost(nam.addr) || IN_EXPERIMENTAL(nam.addr) ? EADDRNOTAVAIL : 0;
  },
  selectLaddr(vnet: Vnet, inc: InConninfo): Errno {
    // By its bits, a small integer: datagrams come here one by one.
    const dst = (inc.inc_faddr | 0) as InAddr;
    if (in_localip(vnet, dst)) {
      inc.inc_laddr = inc.inc_faddr;
      return 0;
    }
    const nh = fib4_lookup(vnet, dst);
    if (nh === null) return EHOSTUNREACH;
    inc.inc_laddr = nh.nh_ifa.ia_addr;
    return 0;
  },
  outgoing(vnet: Vnet, inc: InConninfo): Ifnet | null {
    return fib4_lookup(vnet, inc.inc_faddr)?.nh_ifp ?? null;
  },
  pathMtu(vnet: Vnet, inc: InConninfo): number {
    return fib4_lookup(vnet, inc.inc_faddr)?.nh_mtu ?? 0;
  },
  sockaddr(inc: InConninfo, foreign: boolean): Sockaddr {
    return {
      family: AF_INET,
      addr: foreign ? inc.inc_faddr : inc.inc_laddr,
      addr6: null,
      port: foreign ? inc.inc_fport : inc.inc_lport,
    };
  },
  print(inc: InConninfo, foreign: boolean): string {
    return inet_ntoa(foreign ? inc.inc_faddr : inc.inc_laddr);
  },

  parse(m: Mbuf, inc: InConninfo): void {
    // Addresses go by their bytes here and in `fill`: passed to a call, one would be boxed.
    const p = mtod(m);
    inc.inc_family = AF_INET;
    inc.inc_laddr = memView.getUint32(p + IP_DST_OFF) as InAddr;
    inc.inc_faddr = memView.getUint32(p + IP_SRC_OFF) as InAddr;
  },
  ecn(m: Mbuf): number {
    return $ip.at(mtod(m)).ip_tos & 3;
  },
  ttl(m: Mbuf): number {
    return $ip.at(mtod(m)).ip_ttl;
  },
  unicast(vnet: Vnet, m: Mbuf, inc: InConninfo): boolean {
    return (
      (m.m_flags & (M_BCAST | M_MCAST)) === 0 &&
      !IN_MULTICAST(inc.inc_laddr) &&
      !IN_MULTICAST(inc.inc_faddr) &&
      !IN_EXPERIMENTAL(inc.inc_faddr) &&
      !in_nullhost(inc.inc_faddr) &&
      !broadcast(vnet, inc.inc_laddr) &&
      !broadcast(vnet, inc.inc_faddr)
    );
  },
  ulpLength(m: Mbuf, hlen: number): number {
    return $ip.at(mtod(m)).ip_len - hlen;
  },
  pseudo(inc: InConninfo, c: number): number {
    // As signed integers, which a call does not box; in_pseudo takes their halves.
    return in_pseudo((inc.inc_laddr | 0) as InAddr, (inc.inc_faddr | 0) as InAddr, c);
  },
  fill(ip: Kva, inc, len, proto, ttl, tos, df): void {
    $ip.at(ip);
    $ip.ip_tos = tos;
    $ip.ip_len = len;
    $ip.ip_off = df ? IP_DF : 0;
    $ip.ip_ttl = ttl;
    $ip.ip_p = proto;
    memView.setInt32(ip + IP_SRC_OFF, inc.inc_laddr | 0);
    memView.setInt32(ip + IP_DST_OFF, inc.inc_faddr | 0);
  },
  output(m: Mbuf, inp: Inpcb | null, vnet: Vnet): Errno {
    return ip_output(m, inp === null ? null : inp.inp_route, 0, vnet);
  },
  outputDgram(m: Mbuf, inp: Inpcb, toAll: boolean): Errno {
    return ip_output(m, inp.inp_route, toAll ? IP_ALLOWBROADCAST : 0, inp.inp_vnet);
  },
};
