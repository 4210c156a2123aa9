/**
 * Raw sockets, after sys/netinet/raw_ip.c: ICMP messages as programs send and receive them, whole
 * packets with their IP header on the way up. What the kernel answers itself, echo requests, it
 * keeps to itself, as FreeBSD does. Left out: protocols other than ICMP, IP_HDRINCL, multicast
 * routing, firewall and dummynet controls.
 */

import {
  EADDRNOTAVAIL,
  EAFNOSUPPORT,
  EISCONN,
  EMSGSIZE,
  ENOBUFS,
  ENOTCONN,
  type Errno,
} from '../sys/errno.ts';
import { count, R_RIP_FULL } from '../sys/reason.ts';
import { inAddr, type InAddr, port } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { type Mbuf, M_COPYALL, M_NOWAIT, mtod } from '../kern/mbuf.ts';
import { AF_INET, IPPROTO_ICMP, type Protosw, type Sockaddr, SOCK_RAW } from '../kern/protosw.ts';
import { sbappendaddr } from '../kern/uipc_dgram.ts';
import {
  soisconnected,
  soisdisconnected,
  SO_BROADCAST,
  type Socket,
  sorwakeup,
  SS_ISCONNECTED,
} from '../kern/uipc_socket.ts';
import { M_PREPEND, m_copym } from '../kern/uipc_mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { INP_DONTFRAG, type Inpcb, Inpcbinfo, sotoinpcb } from './in_pcb.ts';
import { inDgramAttach, inDgramDetach, inDgramSwitch } from './in_dgram.ts';
import { in_nullhost } from './in.ts';
import { Ip, IP_DF, IP_MAXPACKET } from './ip.ts';
import { ip_ctloutput } from './ip_ctloutput.ts';
import { V_icmp } from './ip_icmp.ts';
import { ip_output } from './ip_output.ts';
import { in_localip, IP_ALLOWBROADCAST, type IpProto } from './ip_var.ts';

/** Bytes of both buffers of a new socket: net.inet.raw.maxdgram and recvspace of FreeBSD. */
const RIPSNDQ = 9216;
const RIPRCVQ = 9216;

const NO_PORT = port(0);
const ANY = inAddr(0);
const $ip = new Ip();

/** One stack's raw sockets. */
export class RipVnet {
  readonly ripcbinfo: Inpcbinfo;
  constructor(vnet: Vnet) {
    this.ripcbinfo = new Inpcbinfo(vnet);
  }
}

export const V_rip = VNET_DEFINE((vnet) => new RipVnet(vnet));

/** Whether a packet from `src` to `dst` is for `inp`. */
function wants(inp: Inpcb, src: InAddr, dst: InAddr): boolean {
  const { inc_laddr, inc_faddr } = inp.inp_inc;
  return (
    inp.inp_socket !== null &&
    (in_nullhost(inc_laddr) || inc_laddr === dst) &&
    (in_nullhost(inc_faddr) || inc_faddr === src)
  );
}

/** Gives `m` to the socket of `inp`, or drops it. Takes `m`. */
function append(inp: Inpcb, src: InAddr, m: Mbuf): void {
  const so = inp.inp_socket!;
  if (sbappendaddr(so.so_rcv, src, NO_PORT, m)) {
    sorwakeup(so);
    return;
  }
  count(R_RIP_FULL);
  m_freem(m);
}

/**
 * A message for whoever has a raw socket: every one that its addresses fit gets a copy, its IP
 * header included. `m` starts at that header. Takes `m`.
 * @see sys/netinet/raw_ip.c
 */
export function rip_input(m: Mbuf, _hlen: number, vnet: Vnet): void {
  $ip.at(mtod(m));
  const src = $ip.ip_src;
  const dst = $ip.ip_dst;
  let last: Inpcb | null = null;
  for (let inp = V_rip(vnet).ripcbinfo.ipi_listhead; inp !== null; inp = inp.listNext) {
    if (!wants(inp, src, dst)) continue;
    if (last !== null) {
      const n = m_copym(m, 0, M_COPYALL, M_NOWAIT);
      if (n === null) count(R_RIP_FULL);
      else append(last, src, n);
    }
    last = inp;
  }
  if (last === null) m_freem(m);
  else append(last, src, m);
}

/**
 * Sends `m`, an ICMP message, to `dst` behind an IP header of its own. Takes `m`. EMSGSIZE: longer
 * than an IP packet; else as ip_output.
 * @see sys/netinet/raw_ip.c
 */
function rip_output(m: Mbuf, so: Socket, dst: InAddr): Errno {
  const inp = sotoinpcb(so);
  if (m.m_pkthdr.len + Ip.SIZE > IP_MAXPACKET) {
    m_freem(m);
    return EMSGSIZE;
  }
  const top = M_PREPEND(m, Ip.SIZE, M_NOWAIT);
  if (top === null) return ENOBUFS;
  $ip.at(mtod(top));
  $ip.ip_tos = inp.inp_ip_tos;
  $ip.ip_len = top.m_pkthdr.len;
  $ip.ip_off = (inp.inp_flags & INP_DONTFRAG) !== 0 ? IP_DF : 0;
  $ip.ip_ttl = inp.inp_ip_ttl;
  $ip.ip_p = so.so_proto.pr_protocol;
  $ip.ip_src = inp.inp_inc.inc_laddr;
  $ip.ip_dst = dst;
  const flags = (so.so_options & SO_BROADCAST) === 0 ? 0 : IP_ALLOWBROADCAST;
  return ip_output(top, inp.inp_route, flags, so.so_vnet);
}

/** Where ICMP hands on what it does not keep, as long as there is a raw socket. */
const icmpRaw: IpProto = { input: rip_input, ctlinput(): void {} };

function attach(so: Socket): Errno {
  const { so_vnet: vnet } = so;
  const error = inDgramAttach(so, V_rip(vnet).ripcbinfo, RIPSNDQ, RIPRCVQ);
  if (error === 0) V_icmp(vnet).raw = icmpRaw;
  return error;
}

function detach(so: Socket): void {
  const { so_vnet: vnet } = so;
  inDgramDetach(so);
  if (V_rip(vnet).ripcbinfo.ipi_count === 0) V_icmp(vnet).raw = null;
}

function bind(so: Socket, nam: Sockaddr): Errno {
  if (nam.family !== AF_INET) return EAFNOSUPPORT;
  if (!in_nullhost(nam.addr) && !in_localip(so.so_vnet, nam.addr)) return EADDRNOTAVAIL;
  sotoinpcb(so).inp_inc.inc_laddr = nam.addr;
  return 0;
}

function connect(so: Socket, nam: Sockaddr): Errno {
  if (nam.family !== AF_INET) return EAFNOSUPPORT;
  sotoinpcb(so).inp_inc.inc_faddr = nam.addr;
  soisconnected(so);
  return 0;
}

function send(so: Socket, _flags: number, m: Mbuf, nam: Sockaddr | null): Errno {
  const connected = (so.so_state & SS_ISCONNECTED) !== 0;
  if (connected === (nam !== null)) {
    m_freem(m);
    return connected ? EISCONN : ENOTCONN;
  }
  return rip_output(m, so, nam === null ? sotoinpcb(so).inp_inc.inc_faddr : nam.addr);
}

function disconnect(so: Socket): Errno {
  if ((so.so_state & SS_ISCONNECTED) === 0) return ENOTCONN;
  sotoinpcb(so).inp_inc.inc_faddr = ANY;
  so.so_state &= ~SS_ISCONNECTED;
  return 0;
}

/** The switch of raw ICMP sockets. @see sys/netinet/raw_ip.c */
export const ripProtosw: Protosw = {
  ...inDgramSwitch,
  pr_type: SOCK_RAW,
  pr_protocol: IPPROTO_ICMP,
  pr_attach: attach,
  pr_detach: detach,
  pr_bind: bind,
  pr_connect: connect,
  pr_send: send,
  pr_disconnect: disconnect,
  pr_abort: soisdisconnected,
  pr_ctloutput: ip_ctloutput,
};

/**
 * Gives a stack raw ICMP sockets. Once per Vnet; the inet domain calls it.
 * @see sys/netinet/raw_ip.c
 */
export function rip_init(vnet: Vnet): void {
  vnet.protosw.push(ripProtosw);
}
