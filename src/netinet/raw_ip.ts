/**
 * Raw sockets for ICMP, after sys/netinet/raw_ip.c. A program sends ICMP messages and receives
 * packets with their IP header. Messages that the stack answers itself, such as echo requests, are
 * not passed to raw sockets, as on FreeBSD. All access to addresses and IP goes through the
 * family's table (InpAf). Left out: protocols other than ICMP, IP_HDRINCL, multicast routing,
 * firewall and dummynet controls.
 */

import { CAPTURE_IN, CAPTURE_SOCKBUF } from '../sys/capture.ts';
import { nextPktId } from '../sys/packet_id.ts';
import { captureOn, captureRing } from '../net/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { captureSockbufIn } from '../net/capture_layers.ts';
import { EAFNOSUPPORT, EISCONN, EMSGSIZE, ENOBUFS, ENOTCONN, type Errno } from '../sys/errno.ts';
import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { R_IP_NOBUFS, R_RIP_FULL, R_RIP_MINTTL } from '../sys/reason.ts';
import type { Control } from '../kern/cmsg.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { type Mbuf, M_COPYALL, M_NOWAIT, M_RTALERT_MLD, mtod } from '../kern/mbuf.ts';
import { type Protosw, SOCK_RAW } from '../kern/protosw.ts';
import { Sockaddr } from '../kern/sockaddr.ts';
import { sbappendaddr, soroverflow } from '../kern/uipc_dgram.ts';
import {
  soisconnected,
  soisdisconnected,
  SO_BROADCAST,
  type Socket,
  sorwakeup,
  SS_ISCONNECTED,
} from '../kern/uipc_socket.ts';
import { m_adj, M_PREPEND, m_copym } from '../kern/uipc_mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { imo_multi_filter, MCAST_PASS } from './in_multi.ts';
import { captureDgramOut } from './dgram_capture.ts';
import {
  InConninfo,
  INP_DONTFRAG,
  type InpAf,
  type Inpcb,
  inpaf,
  Inpcbinfo,
  sotoinpcb,
} from './in_pcb.ts';
import { inDgramAttach, inDgramDetach, inDgramSwitch } from './in_dgram.ts';

/** Buffer sizes of a new socket, bytes: FreeBSD's net.inet.raw.maxdgram and recvspace. */
const RIPSNDQ = 9216;
const RIPRCVQ = 9216;

/** Addresses of the packet being processed; the ports stay 0. */
const $inc = new InConninfo();
/** Those of a packet to send, as captures show them. */
const $shown = new InConninfo();
const $from = new Sockaddr();
const $group = new NetAddr();
const $source = new NetAddr();

/** Starts or stops the delivery of ICMP messages to `rip_input`. Each domain supplies its own. */
type RawListen = (vnet: Vnet, listening: boolean) => void;

/** The raw sockets of one stack. */
class RipVnet {
  readonly ripcbinfo: Inpcbinfo;
  constructor(vnet: Vnet) {
    this.ripcbinfo = new Inpcbinfo(vnet);
  }
}

/** The raw sockets of a stack. */
export const V_rip = VNET_DEFINE((vnet) => new RipVnet(vnet));

/** Whether the addresses of `inp` match the packet in `$inc`. */
function wants(inp: Inpcb, af: InpAf): boolean {
  const { inp_inc: inc } = inp;
  return (
    inp.inp_socket !== null &&
    inp.inp_af === af &&
    (inc.laddrAny() || inc.laddrEquals($inc)) &&
    (inc.faddrAny() || inc.faddrEquals($inc))
  );
}

/**
 * Appends `m` to the receive buffer of `inp`, or drops it if the buffer is full. Its headers up to the
 * message have `hlen` bytes. Takes `m`.
 */
function append(inp: Inpcb, m: Mbuf, hlen: number): void {
  const so = inp.inp_socket!;
  const { inp_af: af } = inp;
  const control = af.savecontrol(inp, m, hlen);
  const ifp = m.m_pkthdr.rcvif as Ifnet | null;
  if (captureOn.sockbuf && ifp !== null) captureSockbufIn(captureRing(), ifp, m, hlen, so.so_id, 0);
  if (!af.rawHeader) m_adj(m, hlen);
  if (sbappendaddr(so.so_rcv, af.sockaddr($inc, true, $from), m, control)) {
    sorwakeup(so);
    return;
  }
  soroverflow(so);
  m_freem(control);
  countDrop(m, R_RIP_FULL, CAPTURE_SOCKBUF, CAPTURE_IN);
  m_freem(m);
}

/**
 * Input of a message of `family`: every raw socket with matching addresses gets a copy, with
 * IPv4 the header of `hlen` bytes included. `m` starts at that header. Takes `m`.
 * @see sys/netinet/raw_ip.c
 */
export function rip_input(m: Mbuf, hlen: number, vnet: Vnet, family: number): void {
  const af = inpaf(vnet, family);
  af.parse(m, $inc);
  const ifp = m.m_pkthdr.rcvif as Ifnet | null;
  let last: Inpcb | null = null;
  for (let inp = V_rip(vnet).ripcbinfo.ipi_listhead; inp !== null; inp = inp.listNext) {
    if (!wants(inp, af) || !af.rawAccepts(inp, m, hlen)) continue;
    if (inp.inp_ip_minttl > af.ttl(m)) {
      countDrop(m, R_RIP_MINTTL, CAPTURE_SOCKBUF, CAPTURE_IN);
      continue;
    }
    // Filters do not apply to MLD: a program may listen to groups of which it is no member.
    const filtered = (m.m_flags & M_RTALERT_MLD) === 0 && inp.inp_moptions !== null;
    if (filtered && ifp !== null && af.isGroup($inc.laddrTo($group))) {
      const imo = inp.inp_moptions!;
      if (imo_multi_filter(imo, ifp, $group, $inc.faddrTo($source)) !== MCAST_PASS) continue;
    }
    if (last !== null) {
      const n = m_copym(m, 0, M_COPYALL, M_NOWAIT);
      if (n === null) countDrop(m, R_IP_NOBUFS, CAPTURE_SOCKBUF, CAPTURE_IN);
      else append(last, n, hlen);
    }
    last = inp;
  }
  if (last === null) m_freem(m);
  else append(last, m, hlen);
}

/**
 * Prepends an IP header to the ICMP message `m` and sends it to `dst`; null: to the connected peer.
 * Takes `m`. EMSGSIZE: larger than an IP packet. ENOBUFS: no mbuf. Else the errno of the family's
 * output.
 * @see sys/netinet/raw_ip.c
 */
function rip_output(m: Mbuf, so: Socket, dst: AddrWords | null, control: Control): Errno {
  const inp = sotoinpcb(so);
  const { inp_af: af } = inp;
  const tos = af.rawControl(inp, control);
  if (tos < 0) {
    m_freem(m);
    return -tos;
  }
  if (m.m_pkthdr.len + af.hdrlen > af.maxpacket) {
    m_freem(m);
    return EMSGSIZE;
  }
  const top = M_PREPEND(m, af.hdrlen, M_NOWAIT);
  if (top === null) return ENOBUFS;
  $inc.copyFrom(inp.inp_inc);
  if (dst !== null) $inc.faddrFrom(dst);
  const dontfrag = (inp.inp_flags & INP_DONTFRAG) !== 0;
  const { pr_protocol } = so.so_proto;
  const { len } = top.m_pkthdr;
  top.m_pkthdr.pktId = nextPktId();
  if (captureOn.sockbuf) {
    // With the source that the output function will choose.
    $shown.copyFrom($inc);
    if ($shown.laddrAny()) af.selectLaddr(inp, $shown, true);
    af.fill(mtod(top), $shown, len, pr_protocol, af.ttlOf(inp), tos, dontfrag);
    captureDgramOut(inp, af, $shown, top, len - af.hdrlen);
  }
  af.fill(mtod(top), $inc, len, pr_protocol, af.ttlOf(inp), tos, dontfrag);
  return af.outputDgram(top, inp, (so.so_options & SO_BROADCAST) !== 0);
}

/** Whether the stack has a raw socket of the family. */
function anyOf(vnet: Vnet, family: number): boolean {
  for (let inp = V_rip(vnet).ripcbinfo.ipi_listhead; inp !== null; inp = inp.listNext)
    if (inp.inp_af.family === family) return true;
  return false;
}

function bind(so: Socket, nam: Sockaddr): Errno {
  const inp = sotoinpcb(so);
  const { inp_af: af, inp_inc: inc } = inp;
  if (nam.family !== af.family) return EAFNOSUPPORT;
  const error = af.embedScope(so.so_vnet, nam);
  if (error !== 0) return error;
  const wrong = nam.isAny() ? 0 : af.bindable(inp, nam);
  if (wrong === 0) inc.laddrFrom(nam);
  return wrong;
}

function connect(so: Socket, nam: Sockaddr): Errno {
  const { inp_af: af, inp_inc: inc } = sotoinpcb(so);
  if (nam.family !== af.family) return EAFNOSUPPORT;
  const error = af.embedScope(so.so_vnet, nam);
  if (error !== 0) return error;
  inc.faddrFrom(nam);
  soisconnected(so);
  return 0;
}

function send(
  so: Socket,
  _flags: number,
  m: Mbuf,
  nam: Sockaddr | null,
  control: Control = null,
): Errno {
  const { inp_af: af } = sotoinpcb(so);
  const connected = (so.so_state & SS_ISCONNECTED) !== 0;
  let error: Errno = 0;
  if (connected === (nam !== null)) error = connected ? EISCONN : ENOTCONN;
  else if (nam !== null && nam.family !== af.family) error = EAFNOSUPPORT;
  else if (nam !== null) error = af.embedScope(so.so_vnet, nam);
  if (error === 0) return rip_output(m, so, nam, control);
  m_freem(m);
  return error;
}

function disconnect(so: Socket): Errno {
  if ((so.so_state & SS_ISCONNECTED) === 0) return ENOTCONN;
  sotoinpcb(so).inp_inc.setFaddr(0);
  so.so_state &= ~SS_ISCONNECTED;
  return 0;
}

/**
 * The protocol switch of a family's raw sockets; `protocol` is its ICMP. Calls `listen` so that
 * ICMP messages are delivered only while such a socket exists. @see sys/netinet/raw_ip.c
 */
export function ripProtosw(family: number, protocol: number, listen: RawListen): Protosw {
  return {
    ...inDgramSwitch,
    pr_type: SOCK_RAW,
    pr_domain: family,
    pr_protocol: protocol,
    pr_attach(so): Errno {
      const error = inDgramAttach(so, V_rip(so.so_vnet).ripcbinfo, RIPSNDQ, RIPRCVQ);
      if (error === 0) listen(so.so_vnet, true);
      return error;
    },
    pr_detach(so): void {
      const { so_vnet: vnet } = so;
      inDgramDetach(so);
      if (!anyOf(vnet, family)) listen(vnet, false);
    },
    pr_bind: bind,
    pr_connect: connect,
    pr_send: send,
    pr_disconnect: disconnect,
    pr_abort: soisdisconnected,
    pr_ctloutput: (so, sopt) => sotoinpcb(so).inp_af.ctloutput(so, sopt),
  };
}
