/**
 * Socket options at level IPPROTO_IPV6, after ip6_ctloutput of sys/netinet6/ip6_output.c, and ICMP6_FILTER
 * after icmp6_ctloutput of sys/netinet6/icmp6.c. The options about packets to send are in ip6_pktopts.ts,
 * those of multicast in in6_mcast.ts.
 * Left out: the options of RFC 2292, IPsec, flow ids, IPV6_VLAN_PCP.
 */

import { EINVAL, EMSGSIZE, ENOPROTOOPT, ENOTCONN, type Errno } from '../sys/errno.ts';
import { MCLBYTES } from '../kern/mbuf.ts';
import { IPPROTO_TCP, SOCK_RAW } from '../kern/protosw.ts';
import {
  intBytes,
  sooptcopyout,
  sooptPutInt,
  type Sockopt,
  SOPT_SET,
  view,
} from '../kern/sockopt.ts';
import { type Socket, SS_ISCONNECTED } from '../kern/uipc_socket.ts';
import {
  IN6P_IPV6_V6ONLY,
  INP_BINDANY,
  INP_HIGHPORT,
  INP_IPV4,
  INP_IPV6,
  INP_LOWPORT,
  type Inpcb,
} from '../netinet/in_pcb.ts';
import { TCPS_SYN_SENT } from '../netinet/tcp_fsm.ts';
import { intotcpcb, tcp_mss_update } from '../netinet/tcp_subr.ts';
import { IP6PO_MINMTU_ALL } from './ip6_var.ts';
import { tcp_hc_getmtu } from '../netinet/tcp_hostcache.ts';
import { V_tcp } from '../netinet/tcp_var.ts';
import {
  IN6P_AUTOFLOWLABEL,
  IN6P_DSTOPTS,
  in6OutputOpts,
  in6OutputOptsToSet,
  IN6P_HOPLIMIT,
  IN6P_HOPOPTS,
  IN6P_MTU,
  IN6P_ORIGDSTADDR,
  IN6P_PKTINFO,
  in6pcb,
  in6pcbOf,
  IN6P_RTHDR,
  IN6P_RTHDRDSTOPTS,
  IN6P_TCLASS,
} from './in6_pcb.ts';
import { inp6_mcastopts, isMulticastOption6 } from './in6_mcast.ts';
import { ICMP6_CKSUM_OFF } from './icmp6.ts';
import { IPPROTO_ICMPV6, IPPROTO_IPV6, IPV6_MMTU } from './ip6.ts';
import { ip6_getpcbopt, ip6_setpktopt, IPV6_USE_MIN_MTU, isPktopt } from './ip6_pktopts.ts';
import { MTUINFO_SIZE } from './ip6_control.ts';

// Option names of sys/netinet6/in6.h and sys/netinet/icmp6.h.
export const IPV6_UNICAST_HOPS = 4;
export const IPV6_PORTRANGE = 14;
export const ICMP6_FILTER = 18;
export const IPV6_CHECKSUM = 26;
export const IPV6_V6ONLY = 27;
export const IPV6_RECVPKTINFO = 36;
export const IPV6_RECVHOPLIMIT = 37;
export const IPV6_RECVRTHDR = 38;
export const IPV6_RECVHOPOPTS = 39;
export const IPV6_RECVDSTOPTS = 40;
export const IPV6_RECVRTHDRDSTOPTS = 41;
export const IPV6_RECVPATHMTU = 43;
export const IPV6_PATHMTU = 44;
export const IPV6_RECVTCLASS = 57;
export const IPV6_AUTOFLOWLABEL = 59;
export const IPV6_BINDANY = 64;
export const IPV6_ORIGDSTADDR = 72;
// Values of IPV6_PORTRANGE.
export const IPV6_PORTRANGE_DEFAULT = 0;
export const IPV6_PORTRANGE_HIGH = 1;
export const IPV6_PORTRANGE_LOW = 2;

/** struct icmp6_filter: one bit per type. */
const FILTER_SIZE = 32;

/** The bit of inp_flags of each option that is one. */
const flagOptions: ReadonlyMap<number, number> = new Map([
  [IPV6_RECVPKTINFO, IN6P_PKTINFO],
  [IPV6_RECVHOPLIMIT, IN6P_HOPLIMIT],
  [IPV6_RECVRTHDR, IN6P_RTHDR],
  [IPV6_RECVHOPOPTS, IN6P_HOPOPTS],
  [IPV6_RECVDSTOPTS, IN6P_DSTOPTS],
  [IPV6_RECVRTHDRDSTOPTS, IN6P_RTHDRDSTOPTS],
  [IPV6_RECVPATHMTU, IN6P_MTU],
  [IPV6_RECVTCLASS, IN6P_TCLASS],
  [IPV6_AUTOFLOWLABEL, IN6P_AUTOFLOWLABEL],
  [IPV6_ORIGDSTADDR, IN6P_ORIGDSTADDR],
  [IPV6_BINDANY, INP_BINDANY],
  [IPV6_V6ONLY, IN6P_IPV6_V6ONLY],
]);

function setFlag(inp: Inpcb, bit: number, on: boolean): void {
  if (on) inp.inp_flags |= bit;
  else inp.inp_flags &= ~bit;
}

/** IPV6_V6ONLY: EINVAL after bind. */
function setV6only(inp: Inpcb, bit: number, on: boolean): Errno {
  if (inp.inp_inc.inc_lport !== 0 || !inp.inp_inc.laddrAny()) return EINVAL;
  setFlag(inp, bit, on);
  if (on) inp.inp_vflag &= ~INP_IPV4;
  else inp.inp_vflag |= INP_IPV4;
  return 0;
}

function setRange(inp: Inpcb, range: number): Errno {
  if (range < IPV6_PORTRANGE_DEFAULT || range > IPV6_PORTRANGE_LOW) return EINVAL;
  setFlag(inp, INP_HIGHPORT, range === IPV6_PORTRANGE_HIGH);
  setFlag(inp, INP_LOWPORT, range === IPV6_PORTRANGE_LOW);
  return 0;
}

function setHops(inp: Inpcb, hops: number): Errno {
  if (hops < -1 || hops > 255) return EINVAL;
  in6pcb(inp).in6p_hops = hops;
  // For packets of IPv4.
  if ((inp.inp_vflag & INP_IPV4) !== 0 && hops >= 0) inp.inp_ip_ttl = hops;
  return 0;
}

/** Sets an option whose value is an int. ENOPROTOOPT: unknown. EINVAL: wrong size or value. */
function setInt(inp: Inpcb, sopt: Sockopt, uproto: number): Errno {
  const { sopt_name: name } = sopt;
  const bit = flagOptions.get(name);
  const known = bit !== undefined || name === IPV6_UNICAST_HOPS || name === IPV6_PORTRANGE;
  if (!known) return ENOPROTOOPT;
  if (sopt.sopt_valsize < 4 || (bit !== undefined && sopt.sopt_valsize !== 4)) return EINVAL;
  const v = view(sopt.sopt_val).getInt32(0, true);
  if (name === IPV6_UNICAST_HOPS) return setHops(inp, v);
  if (name === IPV6_PORTRANGE) return setRange(inp, v);
  if (name === IPV6_V6ONLY) return setV6only(inp, bit!, v !== 0);
  // As on FreeBSD, TCP ignores it.
  if (name !== IPV6_RECVPATHMTU || uproto !== IPPROTO_TCP) setFlag(inp, bit!, v !== 0);
  return 0;
}

function set(inp: Inpcb, sopt: Sockopt, uproto: number): Errno {
  const { sopt_name: name, sopt_valsize: size } = sopt;
  if (!isPktopt(name)) return setInt(inp, sopt, uproto);
  if (size > MCLBYTES) return EINVAL;
  const val = sopt.sopt_val.subarray(0, size);
  const error = ip6_setpktopt(inp.inp_vnet, in6OutputOptsToSet(inp), name, val, true, uproto);
  if (error === 0 && name === IPV6_USE_MIN_MTU && uproto === IPPROTO_TCP) tcpMinMtu(inp);
  return error;
}

/** IPV6_USE_MIN_MTU of TCP: smaller segments, instead of fragments. @see sys/netinet/tcp_usrreq.c */
function tcpMinMtu(inp: Inpcb): void {
  const on = in6OutputOpts(inp)?.ip6po_minmtu === IP6PO_MINMTU_ALL;
  inp.inp_inc.inc_minmtu = on;
  const tp = intotcpcb(inp);
  if (on && tp.t_state >= TCPS_SYN_SENT && (inp.inp_vflag & INP_IPV6) !== 0)
    tcp_mss_update(tp, -1, IPV6_MMTU);
}

/** IPV6_PATHMTU: struct ip6_mtuinfo of a connected socket. */
function pathMtu(so: Socket, inp: Inpcb, sopt: Sockopt): Errno {
  if ((so.so_state & SS_ISCONNECTED) === 0) return ENOTCONN;
  const bytes = new Uint8Array(MTUINFO_SIZE);
  const { inp_vnet: vnet, inp_inc: inc } = inp;
  const route = inp.inp_af.pathMtu(vnet, inc);
  const known = tcp_hc_getmtu(V_tcp(vnet), inc);
  const mtu = known !== 0 && known < route ? known : route;
  view(bytes).setUint32(MTUINFO_SIZE - 4, mtu, true);
  return sooptcopyout(sopt, bytes);
}

function get(so: Socket, inp: Inpcb, sopt: Sockopt): Errno {
  const { sopt_name: name } = sopt;
  if (isPktopt(name)) return sooptcopyout(sopt, ip6_getpcbopt(in6OutputOpts(inp), name));
  const bit = flagOptions.get(name);
  if (bit !== undefined) return sooptPutInt(sopt, (inp.inp_flags & bit) !== 0 ? 1 : 0);
  switch (name) {
    case IPV6_UNICAST_HOPS:
      return sooptPutInt(sopt, in6pcbOf(inp)?.in6p_hops ?? -1);
    case IPV6_PORTRANGE: {
      const high = (inp.inp_flags & INP_HIGHPORT) !== 0;
      const low = (inp.inp_flags & INP_LOWPORT) !== 0;
      return sooptPutInt(sopt, high ? IPV6_PORTRANGE_HIGH : low ? IPV6_PORTRANGE_LOW : 0);
    }
    case IPV6_PATHMTU:
      return pathMtu(so, inp, sopt);
    default:
      return ENOPROTOOPT;
  }
}

/**
 * IPV6_CHECKSUM of a raw socket: the offset of the checksum, which is fixed for ICMPv6. EINVAL: another
 * one. @see sys/netinet6/ip6_output.c
 */
function ip6_raw_ctloutput(sopt: Sockopt): Errno {
  if (sopt.sopt_dir !== SOPT_SET) return sooptcopyout(sopt, intBytes(ICMP6_CKSUM_OFF));
  if (sopt.sopt_valsize !== 4) return EINVAL;
  return view(sopt.sopt_val).getInt32(0, true) === ICMP6_CKSUM_OFF ? 0 : EINVAL;
}

/**
 * ICMP6_FILTER: struct icmp6_filter, a bit for each type that the socket receives. EMSGSIZE: wrong size.
 * @see icmp6(4)
 */
function icmp6_ctloutput(inp: Inpcb, sopt: Sockopt): Errno {
  if (sopt.sopt_name !== ICMP6_FILTER) return ENOPROTOOPT;
  if (sopt.sopt_dir !== SOPT_SET) {
    const filt = in6pcbOf(inp)?.in6p_icmp6filt ?? null;
    const bytes = new Uint8Array(FILTER_SIZE).fill(0xff);
    filt?.forEach((word, i) => view(bytes).setUint32(4 * i, word, true));
    return sooptcopyout(sopt, bytes);
  }
  if (sopt.sopt_valsize !== FILTER_SIZE) return EMSGSIZE;
  const v = view(sopt.sopt_val);
  in6pcb(inp).in6p_icmp6filt = Uint32Array.from({ length: 8 }, (_, i) => v.getUint32(4 * i, true));
  return 0;
}

/**
 * Gets or sets an IPv6 option of a socket of AF_INET6. EINVAL: another level, wrong size or value, or
 * IPV6_V6ONLY after bind. ENOPROTOOPT: unknown option. ENOTCONN: IPV6_PATHMTU without a peer. Else the
 * errno of ip6_setpktopt.
 * @see ip6(4)
 */
export function ip6_ctloutput(so: Socket, sopt: Sockopt): Errno {
  const inp = so.so_pcb as Inpcb;
  const { pr_type, pr_protocol } = so.so_proto;
  const raw = pr_type === SOCK_RAW;
  if (raw && sopt.sopt_level === IPPROTO_ICMPV6) return icmp6_ctloutput(inp, sopt);
  if (sopt.sopt_level !== IPPROTO_IPV6) return EINVAL;
  if (raw && sopt.sopt_name === IPV6_CHECKSUM) return ip6_raw_ctloutput(sopt);
  if (isMulticastOption6(sopt.sopt_name)) return inp6_mcastopts(so, inp, sopt);
  return sopt.sopt_dir === SOPT_SET ? set(inp, sopt, pr_protocol) : get(so, inp, sopt);
}
