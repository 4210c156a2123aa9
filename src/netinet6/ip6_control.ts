/**
 * Control messages of AF_INET6 datagram and raw sockets, after ip6_savecontrol and ip6_notify_pmtu of
 * sys/netinet6/ip6_input.c, ip6_setpktopts of ip6_output.c and udp_v4mapped_pktinfo of
 * sys/netinet/udp_usrreq.c. Left out: SO_TIMESTAMP, flow ids.
 */

import { NetAddr } from '../sys/addr.ts';
import { EADDRNOTAVAIL, EINVAL, ENXIO, type Errno } from '../sys/errno.ts';
import { type Kva, port } from '../sys/types.ts';
import { type Cmsg, type Control, cmsgData, sbcreatecontrol } from '../kern/cmsg.ts';
import { m_freem, m_gethdr } from '../kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, MT_DATA, mtod } from '../kern/mbuf.ts';
import { AF_INET, AF_INET6, IPPROTO_UDP } from '../kern/protosw.ts';
import { Sockaddr, sockaddrPut, SOCKADDR_IN6_SIZE } from '../kern/sockaddr.ts';
import { view } from '../kern/sockopt.ts';
import { sbappendaddr } from '../kern/uipc_dgram.ts';
import { sorwakeup } from '../kern/uipc_socket.ts';
import type { Ifnet } from '../net/if_var.ts';
import { type InConninfo, type Inpcb, inpaf, type Inpcbinfo } from '../netinet/in_pcb.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  in6Get,
  in6Put,
  in6Sockaddr,
  IN6_IS_ADDR_UNSPECIFIED,
  IN6_IS_ADDR_V4MAPPED,
} from './in6.ts';
import {
  IN6P_CONTROLOPTS,
  IN6P_DSTOPTS,
  in6OutputOpts,
  IN6P_HOPLIMIT,
  IN6P_HOPOPTS,
  IN6P_MTU,
  IN6P_ORIGDSTADDR,
  IN6P_PKTINFO,
  IN6P_RTHDR,
  IN6P_RTHDRDSTOPTS,
  IN6P_TCLASS,
} from './in6_pcb.ts';
import { in6MaySendFrom } from './in6_src.ts';
import {
  Ip6,
  IP6_DST_OFF,
  IP6_HLIM_OFF,
  IP6_NXT_OFF,
  IPPROTO_DSTOPTS,
  IPPROTO_HOPOPTS,
  IPPROTO_IPV6,
  IPPROTO_ROUTING,
} from './ip6.ts';
import {
  in6AddrOf,
  ip6_setpktopt,
  IPV6_DSTOPTS,
  IPV6_HOPLIMIT,
  IPV6_HOPOPTS,
  IPV6_PKTINFO,
  IPV6_RTHDR,
  IPV6_TCLASS,
  PKTINFO_SIZE,
} from './ip6_pktopts.ts';
import { Ip6Pktopts } from './ip6_var.ts';
import { in6_clearscope, in6_getlinkifnet, sa6_recoverscope } from './scope6.ts';

const IPV6_PATHMTU = 44;
const IPV6_ORIGDSTADDR = 72;
/** struct ip6_mtuinfo: struct sockaddr_in6 and the MTU. */
export const MTUINFO_SIZE = SOCKADDR_IN6_SIZE + 4;

// Fields of the IPv4 header.
const IP_TOS_OFF = 1;
const IP_TTL_OFF = 8;
const IP_DST_OFF = 16;
const UDP_DPORT_OFF = 2;

const $ip6 = new Ip6();
const $a = new NetAddr();
const $sa = new Sockaddr();

// The list of messages under construction.
const list: { head: Mbuf | null; tail: Mbuf | null } = { head: null, tail: null };

/** Appends `m`, which may be null for lack of memory, to the list. Returns the address of its data. */
function append(m: Mbuf | null): Kva | null {
  if (m === null) return null;
  if (list.tail === null) list.head = m;
  else list.tail.m_next = m;
  list.tail = m;
  return cmsgData(m);
}

function message(type: number, size: number): Kva | null {
  return append(sbcreatecontrol(size, type, IPPROTO_IPV6));
}

function intMessage(type: number, v: number): void {
  const p = message(type, 4);
  if (p !== null) memView.setInt32(p, v, true);
}

/** Sets `$a` to the destination of the packet at `p`; that of IPv4 as a mapped address. */
function destination(p: Kva, v4: boolean): NetAddr {
  if (v4) $a.set(0, 0, 0xffff, memView.getInt32(p + IP_DST_OFF));
  else in6Get(p + IP6_DST_OFF, $a);
  return $a;
}

function pktinfo(p: Kva, v4: boolean, ifp: Ifnet | null): void {
  const to = message(IPV6_PKTINFO, PKTINFO_SIZE);
  if (to === null) return;
  destination(p, v4);
  in6_clearscope($a);
  in6Put(to, $a);
  memView.setUint32(to + 16, ifp?.if_index ?? 0, true);
}

/** IPV6_ORIGDSTADDR: struct sockaddr_in6 of the datagram's destination. */
function origdst(p: Kva, v4: boolean, off: number): void {
  const to = message(IPV6_ORIGDSTADDR, SOCKADDR_IN6_SIZE);
  if (to === null) return;
  $sa.len = SOCKADDR_IN6_SIZE;
  $sa.family = AF_INET6;
  $sa.port = port(memView.getUint16(p + off + UDP_DPORT_OFF));
  $sa.flowinfo = 0;
  $sa.setFrom(destination(p, v4));
  sa6_recoverscope($sa);
  sockaddrPut(to, $sa);
  // A program reads the zone in the byte order of the machine.
  memView.setInt32(to + 24, $sa.scope_id, true);
}

/** A message with the extension header at `p`, if the option with the bit requests it. */
function extMessage(type: number, p: Kva): void {
  const size = (mem[p + 1]! + 1) << 3;
  const to = message(type, size);
  if (to !== null) mem.copyWithin(to, p, p + size);
}

/** The extension headers of the packet at `p`, whose headers end at `end`. */
function headers(flags: number, p: number, end: number): void {
  let nxt = mem[p + IP6_NXT_OFF]!;
  let routed = false;
  for (let at = p + Ip6.SIZE; at + 8 <= end;) {
    const size = (mem[at + 1]! + 1) << 3;
    if (at + size > end) return;
    // Destination options in front of a routing header are those of IPV6_RECVRTHDRDSTOPTS.
    if (nxt === IPPROTO_HOPOPTS) {
      if ((flags & IN6P_HOPOPTS) !== 0) extMessage(IPV6_HOPOPTS, at as Kva);
    } else if (nxt === IPPROTO_DSTOPTS) {
      const early = !routed && mem[at] === IPPROTO_ROUTING;
      if ((flags & (early ? IN6P_RTHDRDSTOPTS | IN6P_DSTOPTS : IN6P_DSTOPTS)) !== 0)
        extMessage(IPV6_DSTOPTS, at as Kva);
    } else if (nxt === IPPROTO_ROUTING) {
      routed = true;
      if ((flags & IN6P_RTHDR) !== 0) extMessage(IPV6_RTHDR, at as Kva);
    }
    nxt = mem[at]!;
    at += size;
  }
}

/**
 * The messages about the received packet `m`, of IPv6 or IPv4, that the options of `inp` request; null:
 * none. `m` starts at the contiguous headers of `hlen` bytes. Without memory a message is missing.
 * @see sys/netinet6/ip6_input.c
 */
export function ip6_savecontrol(inp: Inpcb, m: Mbuf, hlen: number): Mbuf | null {
  const flags = inp.inp_flags;
  if ((flags & IN6P_CONTROLOPTS) === 0) return null;
  const p = mtod(m);
  const v4 = mem[p]! >>> 4 === 4;
  list.head = null;
  list.tail = null;
  const udp = inp.inp_socket!.so_proto.pr_protocol === IPPROTO_UDP;
  if ((flags & IN6P_ORIGDSTADDR) !== 0 && udp) origdst(p, v4, hlen);
  if ((flags & IN6P_PKTINFO) !== 0) pktinfo(p, v4, m.m_pkthdr.rcvif as Ifnet | null);
  if ((flags & IN6P_HOPLIMIT) !== 0)
    intMessage(IPV6_HOPLIMIT, mem[p + (v4 ? IP_TTL_OFF : IP6_HLIM_OFF)]!);
  if ((flags & IN6P_TCLASS) !== 0)
    intMessage(IPV6_TCLASS, v4 ? mem[p + IP_TOS_OFF]! : $ip6.at(p).ip6_tclass);
  if (!v4 && hlen > Ip6.SIZE) headers(flags, p, p + hlen);
  const { head } = list;
  list.head = null;
  list.tail = null;
  return head;
}

/**
 * The options of the datagram that `ip6SetControl` was called for last: those of the socket with those of
 * the control messages; null: none.
 */
export const ip6Sending: { opt: Ip6Pktopts | null } = { opt: null };

const $opt = new Ip6Pktopts();
const defaults = new Ip6Pktopts();

/**
 * Reads the control messages of a packet to send over IPv6, and sets `ip6Sending`. Messages of other
 * levels are ignored. The errno of ip6_setpktopt. @see sys/netinet6/ip6_output.c
 */
export function ip6_setpktopts(inp: Inpcb, control: Control): Errno {
  const sticky = in6OutputOpts(inp);
  ip6Sending.opt = sticky;
  if (control === null) return 0;
  $opt.copyFrom(sticky ?? defaults);
  const { pr_protocol } = inp.inp_socket!.so_proto;
  for (const { level, type, data } of control) {
    if (level !== IPPROTO_IPV6) continue;
    const error = ip6_setpktopt(inp.inp_vnet, $opt, type, data, false, pr_protocol);
    if (error !== 0) return error;
  }
  ip6Sending.opt = $opt;
  return 0;
}

/** IPV6_PKTINFO of a datagram to a mapped address: sets the source of `inc`. */
function v4mappedPktinfo(inp: Inpcb, data: Uint8Array, inc: InConninfo): Errno {
  if (data.length !== PKTINFO_SIZE) return EINVAL;
  const a = in6AddrOf(view(data), 0);
  if (IN6_IS_ADDR_UNSPECIFIED(a)) return 0;
  if (!IN6_IS_ADDR_V4MAPPED(a)) return EINVAL;
  const index = view(data).getUint32(16, true);
  if (index !== 0 && in6_getlinkifnet(inp.inp_vnet, index) === null) return ENXIO;
  $a.set(a.w3);
  if (!inpaf(inp.inp_vnet, AF_INET).isLocal(inp.inp_vnet, $a)) return EADDRNOTAVAIL;
  inc.setLaddr(a.w3);
  return 0;
}

/**
 * Reads the control messages of a datagram of an AF_INET6 socket, in the family of `inc`; sets its local
 * address. Returns the traffic class or TOS, or an errno negated.
 */
export function ip6SendControl(
  inp: Inpcb,
  control: readonly Cmsg[] | null,
  inc: InConninfo,
): number {
  if (inc.inc_family === AF_INET) {
    if (control === null) return inp.inp_ip_tos;
    for (const { level, type, data } of control) {
      if (level !== IPPROTO_IPV6 || type !== IPV6_PKTINFO) continue;
      const error = v4mappedPktinfo(inp, data, inc);
      if (error !== 0) return -error;
    }
    return inp.inp_ip_tos;
  }
  const error = ip6_setpktopts(inp, control);
  if (error !== 0) return -error;
  const { opt } = ip6Sending;
  if (opt?.ip6po_src) {
    if (!in6MaySendFrom(inp, opt.ip6po_src)) return -EADDRNOTAVAIL;
    inc.laddrFrom(opt.ip6po_src);
  }
  return Math.max(opt?.ip6po_tclass ?? 0, 0);
}

/** Appends a message about the path MTU to `dst` to the socket of `inp`, without data. */
function ip6_notify_pmtu(inp: Inpcb, dst: Sockaddr, mtu: number): void {
  const so = inp.inp_socket!;
  const control = sbcreatecontrol(MTUINFO_SIZE, IPV6_PATHMTU, IPPROTO_IPV6);
  const m = control === null ? null : m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return m_freem(control);
  m.m_len = 0;
  m.m_pkthdr.len = 0;
  const p = cmsgData(control!);
  sockaddrPut(p, dst);
  memView.setInt32(p + 24, dst.scope_id, true);
  memView.setUint32(p + SOCKADDR_IN6_SIZE, mtu, true);
  if (sbappendaddr(so.so_rcv, dst, m, control)) {
    sorwakeup(so);
    return;
  }
  m_freem(control);
  m_freem(m);
}

/**
 * A router reported the path MTU `mtu` to inc's foreign address. Reports it to the sockets of
 * `info` with IPV6_RECVPATHMTU that are unconnected or connected to that address. @see ip6(4)
 */
export function ip6NotifyPmtu(info: Inpcbinfo, inc: InConninfo, mtu: number): void {
  for (let inp = info.ipi_listhead; inp !== null; inp = inp.listNext) {
    if ((inp.inp_flags & IN6P_MTU) === 0 || inp.inp_socket === null) continue;
    if (inp.inp_inc.inc_family !== AF_INET6) continue;
    if (!inp.inp_inc.faddrAny() && !inp.inp_inc.faddrEquals(inc)) continue;
    const dst = in6Sockaddr(inc.faddrTo($a), port(0));
    sa6_recoverscope(dst);
    ip6_notify_pmtu(inp, dst, mtu);
  }
}
