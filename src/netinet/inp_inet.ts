/** IPv4's table for TCP, UDP and raw sockets: InpAf for AF_INET. */

import type { AddrWords } from '../sys/addr.ts';
import { EACCES, EADDRNOTAVAIL, EAFNOSUPPORT, EHOSTUNREACH, type Errno } from '../sys/errno.ts';
import type { InAddr, Kva } from '../sys/types.ts';
import {
  CSUM_IP_TSO,
  CSUM_TCP,
  CSUM_UDP,
  M_BCAST,
  type Mbuf,
  M_MCAST,
  mtod,
} from '../kern/mbuf.ts';
import { AF_INET } from '../kern/protosw.ts';
import { type Sockaddr, SOCKADDR_IN_SIZE } from '../kern/sockaddr.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IFCAP_TSO4, type Ifnet } from '../net/if_var.ts';
import { RTF_GATEWAY } from '../net/route.ts';
import { memView } from '../vm/arena.ts';
import { IN_EXPERIMENTAL, IN_MULTICAST, inAddrOf, inet_ntoa, in_nullhost } from './in.ts';
import { in_pseudo } from './in_cksum.ts';
import { fib4_lookup, inRouteLookup } from './in_fib.ts';
import { type InConninfo, INP_BINDANY, INP_IPV4, type InpAf, type Inpcb } from './in_pcb.ts';
import { in_broadcast, inPrimary } from './in_var.ts';
import { Ip, IP_DF, IP_DST_OFF, IP_MAXPACKET, IP_SRC_OFF } from './ip.ts';
import { ip_savecontrol, ipSendcontrol } from './ip_control.ts';
import { ip_ctloutput } from './ip_ctloutput.ts';
import { ICMP_UNREACH, ICMP_UNREACH_PORT } from './icmp.ts';
import { icmp_error } from './ip_icmp.ts';
import { ip_stripoptions, type IpOptions, ipSourceRoute } from './ip_options.ts';
import { ip_output } from './ip_output.ts';
import { in_localip, IP_ALLOWBROADCAST, V_ip } from './ip_var.ts';

const $ip = new Ip();

/** Whether `addr` is a broadcast address on the interface of its route. */
function broadcast(vnet: Vnet, addr: InAddr): boolean {
  const nh = fib4_lookup(vnet, addr);
  return nh !== null && in_broadcast(addr, nh.nh_ifp);
}

/** IPv4's table, for inpafRegister. */
export const inetAf: InpAf = {
  family: AF_INET,
  vflag: INP_IPV4,
  suffix: '4',
  addrWords: 1,
  hdrlen: Ip.SIZE,
  maxpacket: IP_MAXPACKET,
  csumUdp: CSUM_UDP,
  csumTcp: CSUM_TCP,
  csumTso: CSUM_IP_TSO,
  ifcapTso: IFCAP_TSO4,
  udpSumRequired: false,
  pmtudBlackholeOff: 3,
  rawHeader: true,

  tcpMss: () => null,
  defaultTtl(vnet: Vnet): number {
    return V_ip(vnet).params.ttl;
  },
  pcbInit(inp: Inpcb): void {
    inp.inp_ip_ttl = V_ip(inp.inp_vnet).params.ttl;
  },
  ttlOf: (inp) => inp.inp_ip_ttl,
  tosOf: (inp) => inp.inp_ip_tos,
  optlenOf: (inp) => (inp.inp_options === null ? 0 : inp.inp_options.len),
  inherit(): void {},
  isLocal(vnet: Vnet, addr: AddrWords): boolean {
    return in_localip(vnet, inAddrOf(addr));
  },
  hash(inc: InConninfo): number {
    return Math.imul(inc.inc_f0, 0x85ebca6b) ^ inc.inc_l0;
  },

  embedScope: () => 0,
  connectable(vnet: Vnet, nam: AddrWords): Errno {
    const addr = inAddrOf(nam);
    if (IN_MULTICAST(addr)) return EAFNOSUPPORT;
    if (broadcast(vnet, addr)) return EACCES;
    return in_nullhost(addr) || IN_EXPERIMENTAL(addr) ? EADDRNOTAVAIL : 0;
  },
  isGroup(addr: AddrWords): boolean {
    return IN_MULTICAST(inAddrOf(addr));
  },
  bindable(inp: Inpcb, addr: AddrWords): Errno {
    if ((inp.inp_flags & INP_BINDANY) !== 0) return 0;
    return in_localip(inp.inp_vnet, inAddrOf(addr)) ? 0 : EADDRNOTAVAIL;
  },
  selectLaddr(inp: Inpcb, inc: InConninfo): Errno {
    const { inp_vnet: vnet } = inp;
    const dst = inc.inc_f0 as InAddr;
    const ifp = inp.inp_moptions?.imo_multicast_ifp ?? null;
    if (ifp !== null && IN_MULTICAST(dst)) {
      const ia = inPrimary(ifp);
      if (ia === null) return EADDRNOTAVAIL;
      inc.laddrFrom(ia.ifa_addr);
      return 0;
    }
    if (in_localip(vnet, dst)) {
      inc.setLaddr(dst);
      return 0;
    }
    // ip_output then finds the route in the PCB.
    const nh = inRouteLookup(vnet, inp.inp_route, dst);
    if (nh === null) return EHOSTUNREACH;
    inc.laddrFrom(nh.nh_ifa.ifa_addr);
    return 0;
  },
  outgoing(vnet: Vnet, inc: InConninfo): Ifnet | null {
    return fib4_lookup(vnet, inc.inc_f0 as InAddr)?.nh_ifp ?? null;
  },
  pathMtu(vnet: Vnet, inc: InConninfo, routed = Infinity): number {
    const nh = fib4_lookup(vnet, inc.inc_f0 as InAddr);
    if (nh === null) return 0;
    return (nh.nh_flags & RTF_GATEWAY) !== 0 ? Math.min(nh.nh_mtu, routed) : nh.nh_mtu;
  },
  sockaddr(inc: InConninfo, foreign: boolean, to: Sockaddr): Sockaddr {
    to.len = SOCKADDR_IN_SIZE;
    to.family = AF_INET;
    to.port = foreign ? inc.inc_fport : inc.inc_lport;
    return foreign ? inc.faddrTo(to) : inc.laddrTo(to);
  },
  print(_vnet: Vnet, inc: InConninfo, foreign: boolean): string {
    return inet_ntoa((foreign ? inc.inc_f0 : inc.inc_l0) as InAddr);
  },

  parse(m: Mbuf, inc: InConninfo): void {
    const p = mtod(m);
    inc.inc_family = AF_INET;
    inc.setLaddr(memView.getInt32(p + IP_DST_OFF));
    inc.setFaddr(memView.getInt32(p + IP_SRC_OFF));
  },
  ecn(m: Mbuf): number {
    return $ip.at(mtod(m)).ip_tos & 3;
  },
  ttl(m: Mbuf): number {
    return $ip.at(mtod(m)).ip_ttl;
  },
  unicast(vnet: Vnet, m: Mbuf, inc: InConninfo): boolean {
    const laddr = inc.inc_l0 as InAddr;
    const faddr = inc.inc_f0 as InAddr;
    return (
      (m.m_flags & (M_BCAST | M_MCAST)) === 0 &&
      !IN_MULTICAST(laddr) &&
      !IN_MULTICAST(faddr) &&
      !IN_EXPERIMENTAL(faddr) &&
      !in_nullhost(faddr) &&
      !broadcast(vnet, laddr) &&
      !broadcast(vnet, faddr)
    );
  },
  castOf(m: Mbuf, inc: InConninfo): number {
    const dst = inc.inc_l0 as InAddr;
    if (IN_MULTICAST(dst)) return M_MCAST;
    const ifp = m.m_pkthdr.rcvif as Ifnet | null;
    return ifp !== null && in_broadcast(dst, ifp) ? M_BCAST : 0;
  },
  notGroupMember(vnet: Vnet): void {
    V_ip(vnet).stat.ips_notmember++;
  },
  ulpLength(m: Mbuf, hlen: number): number {
    return $ip.at(mtod(m)).ip_len - hlen;
  },
  pseudo(inc: InConninfo, c: number): number {
    return in_pseudo(inc.inc_l0 as InAddr, inc.inc_f0 as InAddr, c);
  },
  fill(ip: Kva, inc, len, proto, ttl, tos, df): void {
    $ip.at(ip);
    $ip.ip_tos = tos;
    $ip.ip_len = len;
    $ip.ip_off = df ? IP_DF : 0;
    $ip.ip_ttl = ttl;
    $ip.ip_p = proto;
    memView.setInt32(ip + IP_SRC_OFF, inc.inc_l0);
    memView.setInt32(ip + IP_DST_OFF, inc.inc_f0);
  },
  output(m: Mbuf, inp: Inpcb | null, vnet: Vnet, opt: IpOptions | null = null): Errno {
    if (inp === null) return ip_output(m, null, 0, vnet, opt);
    return ip_output(m, inp.inp_route, 0, vnet, inp.inp_options);
  },
  outputDgram(m: Mbuf, inp: Inpcb, toAll: boolean): Errno {
    const flags = toAll ? IP_ALLOWBROADCAST : 0;
    const { inp_route, inp_vnet, inp_options, inp_moptions } = inp;
    return ip_output(m, inp_route, flags, inp_vnet, inp_options, inp_moptions);
  },
  sourceRoute: ipSourceRoute,
  portUnreachable(m: Mbuf, vnet: Vnet): void {
    // As in FreeBSD, whose UDP removes the options before it looks for the port.
    ip_stripoptions(m);
    icmp_error(m, ICMP_UNREACH, ICMP_UNREACH_PORT, 0, vnet);
  },
  savecontrol: ip_savecontrol,
  sendcontrol: ipSendcontrol,
  rawAccepts: () => true,
  // A raw socket ignores control messages.
  rawControl: (inp) => inp.inp_ip_tos,
  ctloutput: ip_ctloutput,
};
