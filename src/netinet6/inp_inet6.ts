/** IPv6's table for TCP, UDP and raw sockets: InpAf for AF_INET6. */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import {
  EADDRNOTAVAIL,
  EAFNOSUPPORT,
  EHOSTUNREACH,
  EINVAL,
  EMSGSIZE,
  type Errno,
} from '../sys/errno.ts';
import type { Kva } from '../sys/types.ts';
import {
  CSUM_IP6_TSO,
  CSUM_TCP_IPV6,
  CSUM_UDP_IPV6,
  type Mbuf,
  M_BCAST,
  M_MCAST,
  mtod,
} from '../kern/mbuf.ts';
import type { Cmsg } from '../kern/cmsg.ts';
import { AF_INET, AF_INET6 } from '../kern/protosw.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { type Sockaddr, SOCKADDR_IN6_SIZE } from '../kern/sockaddr.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IFCAP_TSO6, type Ifnet } from '../net/if_var.ts';
import { RTF_GATEWAY } from '../net/route.ts';
import {
  IN6P_IPV6_V6ONLY,
  InConninfo,
  INP_BINDANY,
  INP_IPV4,
  INP_IPV6,
  INP_IPV6PROTO,
  type InpAf,
  inpafOrNull,
  type Inpcb,
} from '../netinet/in_pcb.ts';
import { mem, memView } from '../vm/arena.ts';
import { ICMP6_CKSUM_OFF, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOPORT } from './icmp6.ts';
import { icmp6_error } from './icmp6_error.ts';
import { icmp6Count } from './icmp6_var.ts';
import { in6Get, IN6_IS_ADDR_MULTICAST, IN6_IS_ADDR_UNSPECIFIED, in6Put } from './in6.ts';
import { in6_cksum, in6Pseudo } from './in6_cksum.ts';
import { fib6_lookup } from './in6_fib.ts';
import { im6oOf, in6McastIf } from './in6_mcast.ts';
import { in6MaySendFrom, in6_selectif, in6_selectsrc } from './in6_src.ts';
import {
  IN6_IFF_ANYCAST,
  IN6_IFF_DETACHED,
  IN6_IFF_NOTREADY,
  in6Ifextra,
  in6ifa_ifwithaddr,
} from './in6_var.ts';
import {
  in6Inherit,
  in6OutputOpts,
  IN6P_AUTOFLOWLABEL,
  in6pcbOf,
  in6_selecthlim,
} from './in6_pcb.ts';
import {
  ip6NotifyPmtu,
  ip6_savecontrol,
  ip6SendControl,
  ip6Sending,
  ip6_setpktopts,
} from './ip6_control.ts';
import { ip6_ctloutput } from './ip6_ctloutput.ts';
import { exthdrsLength } from './ip6_exthdrs.ts';
import {
  Ip6,
  IP6_DST_OFF,
  IP6_SRC_OFF,
  IPPROTO_ICMPV6,
  IPV6_DEFHLIM,
  IPV6_FLOWLABEL_MASK,
  IPV6_MAXPACKET,
  IPV6_MMTU,
  IPV6_VERSION,
} from './ip6.ts';
import { ip6_output } from './ip6_output.ts';
import { type Ip6Pktopts, IPV6_DONTFRAG, V_ip6 } from './ip6_var.ts';
import {
  in6_getscope,
  in6HasZone,
  in6_setscope,
  ip6_sprintf,
  sa6_embedscope,
  sa6_recoverscope,
} from './scope6.ts';

/** Addresses that no socket may be bound to. */
const UNBINDABLE = IN6_IFF_ANYCAST | IN6_IFF_NOTREADY | IN6_IFF_DETACHED;

const $ip6 = new Ip6();
const $a = new NetAddr();
const $b = new NetAddr();
const $sent = new InConninfo();

/** Sets `$a` to inc's foreign address and returns it. */
function foreign(inc: InConninfo): NetAddr {
  return inc.faddrTo($a);
}

/** The link MTU that router advertisements gave, if it is smaller than `mtu`. */
function linkMtu(ifp: Ifnet, mtu: number): number {
  const linkmtu = in6Ifextra(ifp)?.nd_ifinfo.linkmtu ?? 0;
  return linkmtu !== 0 && linkmtu < mtu ? linkmtu : mtu;
}

/**
 * The flow label of a connection: a keyed hash of its addresses and ports, as RFC 6437, 3, recommends,
 * so that all its packets have the same one, the SYN-ACK included. Unlike FreeBSD, which stores a random
 * label in the PCB. IPV6_AUTOFLOWLABEL and net.inet6.ip6.auto_flowlabel turn it off.
 */
function flowLabel(vnet: Vnet, p: Kva): number {
  const { flowSeed } = V_ip6(vnet);
  let h = 0;
  let k = 0x9e3779b1;
  // The addresses, then the ports. The products do not depend on each other.
  for (let off = IP6_SRC_OFF; off < Ip6.SIZE + 4; off += 4) {
    h += Math.imul(memView.getInt32(p + off) ^ flowSeed, k);
    h |= 0;
    k = (k + 0x3c6ef362) | 0;
  }
  h = Math.imul(h ^ (h >>> 15), 0x85ebca6b);
  return Math.imul(h ^ (h >>> 13), 0xc2b2ae35) >>> 12;
}

/** Sets the flow label of the packet at `p`. */
function label(vnet: Vnet, p: Kva): void {
  const flow = memView.getInt32(p) & ~IPV6_FLOWLABEL_MASK;
  memView.setInt32(p, flow | flowLabel(vnet, p));
}

/** Computes the checksum of an ICMPv6 message that a raw socket sends, and chooses its source. */
function rawMessage(m: Mbuf, inp: Inpcb, opt: Ip6Pktopts | null): Errno {
  const { inp_vnet: vnet } = inp;
  const p = mtod(m);
  in6Get(p + IP6_SRC_OFF, $a);
  in6Get(p + IP6_DST_OFF, $b);
  const ifp = opt?.ip6po_ifp ?? in6McastIf(vnet, inp.inp_moptions, $b);
  if (ifp === null) return EHOSTUNREACH;
  if (in6HasZone($b.w0) && in6_getscope($b) === 0) {
    in6_setscope($b, ifp);
    in6Put(p + IP6_DST_OFF, $b);
  }
  if (opt !== null && opt.ip6po_src !== null) {
    if (!in6MaySendFrom(inp, opt.ip6po_src)) return EADDRNOTAVAIL;
    in6Put(p + IP6_SRC_OFF, opt.ip6po_src);
  } else if (IN6_IS_ADDR_UNSPECIFIED($a)) {
    const ia = in6_selectsrc(vnet, $b, ifp, opt);
    if (ia === null) return EADDRNOTAVAIL;
    in6Put(p + IP6_SRC_OFF, ia.ifa_addr);
  }
  const len = m.m_pkthdr.len - Ip6.SIZE;
  if (len < ICMP6_CKSUM_OFF + 2) return EINVAL;
  putSum(m, 0);
  putSum(m, in6_cksum(m, IPPROTO_ICMPV6, Ip6.SIZE, len));
  icmp6Count(vnet, mem[mtod(at(m, Ip6.SIZE)) + where.off]!);
  return 0;
}

// Result of `at`: the offset in the mbuf.
const where = { off: 0 };

/** The mbuf of byte `off` of the chain; sets `where`. */
function at(m: Mbuf, off: number): Mbuf {
  while (off >= m.m_len) {
    off -= m.m_len;
    m = m.m_next!;
  }
  where.off = off;
  return m;
}

/** Stores the checksum of the ICMPv6 message that follows the IPv6 header. */
function putSum(m: Mbuf, sum: number): void {
  const hi = at(m, Ip6.SIZE + ICMP6_CKSUM_OFF);
  mem[mtod(hi) + where.off] = sum >>> 8;
  const lo = at(m, Ip6.SIZE + ICMP6_CKSUM_OFF + 1);
  mem[mtod(lo) + where.off] = sum & 0xff;
}

/** IPv6's table, for inpafRegister. */
export const inet6Af: InpAf = {
  family: AF_INET6,
  vflag: INP_IPV6,
  suffix: '6',
  addrWords: 4,
  hdrlen: Ip6.SIZE,
  maxpacket: Ip6.SIZE + IPV6_MAXPACKET,
  csumUdp: CSUM_UDP_IPV6,
  csumTcp: CSUM_TCP_IPV6,
  csumTso: CSUM_IP6_TSO,
  ifcapTso: IFCAP_TSO6,
  udpSumRequired: true,
  pmtudBlackholeOff: 2,
  rawHeader: false,

  tcpMss: (vnet) => V_ip6(vnet).tcpMss,
  defaultTtl(vnet: Vnet): number {
    return V_ip6(vnet).params.hlim;
  },
  pcbInit(inp: Inpcb): void {
    const { v6only, auto_flowlabel } = V_ip6(inp.inp_vnet).params;
    inp.inp_vflag = INP_IPV6PROTO | INP_IPV6 | (v6only ? 0 : INP_IPV4);
    if (v6only) inp.inp_flags |= IN6P_IPV6_V6ONLY;
    if (auto_flowlabel) inp.inp_flags |= IN6P_AUTOFLOWLABEL;
    // For packets of IPv4.
    inp.inp_ip_ttl = inpafOrNull(inp.inp_vnet, AF_INET)?.defaultTtl(inp.inp_vnet) ?? IPV6_DEFHLIM;
  },
  ttlOf: in6_selecthlim,
  tosOf: (inp) => Math.max(in6OutputOpts(inp)?.ip6po_tclass ?? 0, 0),
  optlenOf(inp: Inpcb): number {
    const opt = in6OutputOpts(inp);
    return opt === null ? 0 : exthdrsLength(opt);
  },
  inherit: in6Inherit,
  isLocal(vnet: Vnet, addr: AddrWords): boolean {
    const ia = in6ifa_ifwithaddr(vnet, addr.w0, addr.w1, addr.w2, addr.w3);
    return ia !== null && (ia.ia6_flags & IN6_IFF_NOTREADY) === 0;
  },
  hash(inc: InConninfo): number {
    const f = inc.inc_f3 ^ inc.inc_f2 ^ Math.imul(inc.inc_f1 ^ inc.inc_f0, 0xc2b2ae35);
    return Math.imul(f, 0x85ebca6b) ^ inc.inc_l3 ^ inc.inc_l1;
  },

  embedScope: sa6_embedscope,
  connectable(_vnet: Vnet, nam: AddrWords): Errno {
    if (IN6_IS_ADDR_MULTICAST(nam)) return EAFNOSUPPORT;
    return IN6_IS_ADDR_UNSPECIFIED(nam) ? EADDRNOTAVAIL : 0;
  },
  bindable(inp: Inpcb, addr: AddrWords): Errno {
    const ia = in6ifa_ifwithaddr(inp.inp_vnet, addr.w0, addr.w1, addr.w2, addr.w3);
    if (ia === null) return (inp.inp_flags & INP_BINDANY) !== 0 ? 0 : EADDRNOTAVAIL;
    return (ia.ia6_flags & UNBINDABLE) !== 0 ? EADDRNOTAVAIL : 0;
  },
  selectLaddr(inp: Inpcb, inc: InConninfo, sending: boolean): Errno {
    const { inp_vnet: vnet } = inp;
    const opt = sending ? ip6Sending.opt : in6OutputOpts(inp);
    const dst = foreign(inc);
    const ifp = opt?.ip6po_ifp ?? in6McastIf(vnet, inp.inp_moptions, dst);
    if (ifp === null) return EHOSTUNREACH;
    // A destination without a zone gets that of the interface.
    if (in6HasZone(dst.w0) && in6_getscope(dst) === 0) {
      in6_setscope(dst, ifp);
      inc.faddrFrom(dst);
    }
    if (opt !== null && opt.ip6po_src !== null) {
      if (!in6MaySendFrom(inp, opt.ip6po_src)) return EADDRNOTAVAIL;
      inc.laddrFrom(opt.ip6po_src);
      return 0;
    }
    const ia = in6_selectsrc(vnet, dst, ifp, opt);
    if (ia === null) return EADDRNOTAVAIL;
    inc.laddrFrom(ia.ifa_addr);
    return 0;
  },
  outgoing(vnet: Vnet, inc: InConninfo): Ifnet | null {
    return in6_selectif(vnet, foreign(inc));
  },
  pathMtu(vnet: Vnet, inc: InConninfo, routed = Infinity): number {
    const nh = fib6_lookup(vnet, foreign(inc));
    if (nh === null) return 0;
    const link = linkMtu(nh.nh_ifp, nh.nh_mtu);
    const mtu = inc.inc_minmtu ? Math.min(link, IPV6_MMTU) : link;
    return (nh.nh_flags & RTF_GATEWAY) !== 0 ? Math.min(mtu, routed) : mtu;
  },
  sockaddr(inc: InConninfo, isForeign: boolean, to: Sockaddr): Sockaddr {
    to.len = SOCKADDR_IN6_SIZE;
    to.family = AF_INET6;
    to.port = isForeign ? inc.inc_fport : inc.inc_lport;
    to.flowinfo = 0;
    if (isForeign) inc.faddrTo(to);
    else inc.laddrTo(to);
    sa6_recoverscope(to);
    return to;
  },
  print(vnet: Vnet, inc: InConninfo, isForeign: boolean): string {
    return ip6_sprintf(vnet, isForeign ? inc.faddrTo($a) : inc.laddrTo($a));
  },

  parse(m: Mbuf, inc: InConninfo): void {
    const l = mtod(m) + IP6_DST_OFF;
    const f = mtod(m) + IP6_SRC_OFF;
    inc.inc_family = AF_INET6;
    inc.setLaddr(
      memView.getInt32(l),
      memView.getInt32(l + 4),
      memView.getInt32(l + 8),
      memView.getInt32(l + 12),
    );
    inc.setFaddr(
      memView.getInt32(f),
      memView.getInt32(f + 4),
      memView.getInt32(f + 8),
      memView.getInt32(f + 12),
    );
  },
  ecn(m: Mbuf): number {
    return $ip6.at(mtod(m)).ip6_tclass & 3;
  },
  ttl(m: Mbuf): number {
    return $ip6.at(mtod(m)).ip6_hlim;
  },
  unicast(_vnet: Vnet, m: Mbuf, inc: InConninfo): boolean {
    return (
      (m.m_flags & (M_BCAST | M_MCAST)) === 0 &&
      inc.inc_l0 >>> 24 !== 0xff &&
      inc.inc_f0 >>> 24 !== 0xff &&
      !inc.faddrAny()
    );
  },
  isGroup(addr: AddrWords): boolean {
    return IN6_IS_ADDR_MULTICAST(addr);
  },
  notGroupMember(vnet: Vnet): void {
    V_ip6(vnet).stat.ip6s_notmember++;
  },
  castOf(_m: Mbuf, inc: InConninfo): number {
    return inc.inc_l0 >>> 24 === 0xff ? M_MCAST : 0;
  },
  ulpLength(m: Mbuf, hlen: number): number {
    return $ip6.at(mtod(m)).ip6_plen + Ip6.SIZE - hlen;
  },
  pseudo(i: InConninfo, c: number): number {
    const { inc_l0, inc_l1, inc_l2, inc_l3 } = i;
    return in6Pseudo(inc_l0, inc_l1, inc_l2, inc_l3, i.inc_f0, i.inc_f1, i.inc_f2, i.inc_f3, c);
  },
  fill(ip: Kva, inc, len, proto, ttl, tos): void {
    $ip6.at(ip).ip6_flow = (IPV6_VERSION << 24) | (tos << 20);
    $ip6.ip6_plen = len - Ip6.SIZE;
    $ip6.ip6_nxt = proto;
    $ip6.ip6_hlim = ttl;
    const src = ip + IP6_SRC_OFF;
    memView.setInt32(src, inc.inc_l0);
    memView.setInt32(src + 4, inc.inc_l1);
    memView.setInt32(src + 8, inc.inc_l2);
    memView.setInt32(src + 12, inc.inc_l3);
    const dst = ip + IP6_DST_OFF;
    memView.setInt32(dst, inc.inc_f0);
    memView.setInt32(dst + 4, inc.inc_f1);
    memView.setInt32(dst + 8, inc.inc_f2);
    memView.setInt32(dst + 12, inc.inc_f3);
  },
  output(m: Mbuf, inp: Inpcb | null, vnet: Vnet): Errno {
    if (inp === null) {
      if (V_ip6(vnet).params.auto_flowlabel) label(vnet, mtod(m));
      return ip6_output(m, null, null, 0, null, vnet);
    }
    if ((inp.inp_flags & IN6P_AUTOFLOWLABEL) !== 0) label(vnet, mtod(m));
    return ip6_output(m, in6OutputOpts(inp), inp.inp_route, 0, null, vnet);
  },
  outputDgram(m: Mbuf, inp: Inpcb): Errno {
    const vnet = inp.inp_vnet;
    const { opt } = ip6Sending;
    ip6Sending.opt = null;
    if ($ip6.at(mtod(m)).ip6_nxt === IPPROTO_ICMPV6) {
      const error = rawMessage(m, inp, opt);
      if (error !== 0) {
        m_freem(m);
        return error;
      }
    } else if (!inp.inp_inc.faddrAny() && (inp.inp_flags & IN6P_AUTOFLOWLABEL) !== 0) {
      label(vnet, mtod(m));
    }
    // RFC 3542, 11.3: a datagram that may not be fragmented reports the MTU too.
    const whole = opt !== null && (opt.ip6po_flags & IPV6_DONTFRAG) !== 0;
    if (whole) $sent.faddrFrom(in6Get(mtod(m) + IP6_DST_OFF, $b));
    const error = ip6_output(m, opt, inp.inp_route, 0, im6oOf(inp), vnet);
    if (whole && error === EMSGSIZE)
      ip6NotifyPmtu(inp.inp_pcbinfo, $sent, inet6Af.pathMtu(vnet, $sent));
    return error;
  },
  sourceRoute: () => null,
  portUnreachable(m: Mbuf, vnet: Vnet): void {
    icmp6_error(m, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOPORT, 0, vnet);
  },
  savecontrol: ip6_savecontrol,
  sendcontrol: ip6SendControl,
  rawControl(inp: Inpcb, control: readonly Cmsg[] | null): number {
    const error = ip6_setpktopts(inp, control);
    return error !== 0 ? -error : Math.max(ip6Sending.opt?.ip6po_tclass ?? 0, 0);
  },
  rawAccepts(inp: Inpcb, m: Mbuf, hlen: number): boolean {
    const filt = in6pcbOf(inp)?.in6p_icmp6filt ?? null;
    if (filt === null) return true;
    const type = mem[mtod(m) + hlen]!;
    return (filt[type >>> 5]! & (1 << (type & 31))) !== 0;
  },
  ctloutput: ip6_ctloutput,
};
