/**
 * UDP, after sys/netinet/udp_usrreq.c (RFC 768, RFC 1122 4.1): input, output, the protocol switch
 * of SOCK_DGRAM sockets, ICMP errors. All access to addresses and IP goes through the family's
 * table (InpAf). Left out: UDP-Lite, tunnels, options at level IPPROTO_UDP. Unlike FreeBSD:
 * 0.0.0.0 as destination does not mean this host, and 255.255.255.255 is routed by the routing
 * table.
 */

import { CAPTURE_IN, CAPTURE_SOCKBUF } from '../sys/capture.ts';
import { countDrop, pullupInput } from '../net/capture_drop.ts';
import { captureOn, captureRing } from '../net/capture.ts';
import { captureSockbufIn } from '../net/capture_layers.ts';
import { nextPktId } from '../sys/packet_id.ts';
import { NetAddr } from '../sys/addr.ts';
import {
  EADDRNOTAVAIL,
  EBUSY,
  EDESTADDRREQ,
  EISCONN,
  EMSGSIZE,
  ENOBUFS,
  ENOTCONN,
  type Errno,
  ENOPROTOOPT,
} from '../sys/errno.ts';
import {
  count,
  type Reason,
  R_IP_NOBUFS,
  R_UDP_FILTER,
  R_UDP_FULL,
  R_UDP_LEN,
  R_UDP_MINTTL,
  R_UDP_NOPCB,
  R_UDP_PORT0,
  R_UDP_SHORT,
  R_UDP_SUM,
} from '../sys/reason.ts';
import { type Kva, kva } from '../sys/types.ts';
import type { Control } from '../kern/cmsg.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_PSEUDO_HDR,
  type Mbuf,
  M_BCAST,
  M_COPYALL,
  M_MCAST,
  M_NOWAIT,
  mtod,
} from '../kern/mbuf.ts';
import { IPPROTO_UDP, type Protosw, SOCK_DGRAM } from '../kern/protosw.ts';
import { Sockaddr } from '../kern/sockaddr.ts';
import { sbappendaddr, soroverflow } from '../kern/uipc_dgram.ts';
import {
  SO_BROADCAST,
  SO_REUSEADDR,
  SO_REUSEPORT,
  soisconnected,
  soisdisconnected,
  type Socket,
  sorwakeup,
  sowwakeup,
  SS_ISCONNECTED,
} from '../kern/uipc_socket.ts';
import { m_adj, m_copym, M_PREPEND } from '../kern/uipc_mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifConsole } from '../net/if.ts';
import type { Ifnet } from '../net/if_var.ts';
import { LOG_UDP_VAIN, logAllowed } from '../net/log_limit.ts';
import { in_cksum_skip } from './in_cksum.ts';
import { imo_multi_filter, MCAST_NOTGMEMBER, MCAST_PASS } from './in_multi.ts';
import { captureDgramOut } from './dgram_capture.ts';
import {
  InConninfo,
  INP_DONTFRAG,
  in_pcbdisconnect,
  in_pcblookup,
  in_pcblookupConn,
  type InpAf,
  type Inpcb,
  inpaf,
  sotoinpcb,
  peerIsLocal,
} from './in_pcb.ts';
import { in6_mapped_sockaddr, peer, peerFamily, socketAf } from './in_mapped.ts';
import { in_pcbbind, in_pcbconnect } from './in_pcbbind.ts';
import { inetctlerrmap } from './ip_var.ts';
import { inDgramAttach, inDgramDetach, inDgramSwitch } from './in_dgram.ts';
import { UH_SUM_OFF, Udphdr } from './udp.ts';
import { type UdpVnet, V_udp } from './udp_var.ts';

const $uh = new Udphdr();
/** Addresses and ports of the received datagram, and of the one to send: a tunnel answers inside input. */
const $inc = new InConninfo();
const $out = new InConninfo();
/** The sender's address, for the receiving socket. */
const $from = new Sockaddr();

/** Drops a datagram: counts the reason and frees the mbuf. */
function drop(m: Mbuf, why: Reason): void {
  countDrop(m, why, CAPTURE_SOCKBUF, CAPTURE_IN);
  m_freem(m);
}

/**
 * Whether the checksum of a datagram of `ulen` bytes is correct; it starts at offset `hlen` of `m`.
 */
function sumOk(af: InpAf, m: Mbuf, hlen: number, ulen: number): boolean {
  const ph = m.m_pkthdr;
  let sum: number;
  if ((ph.csum_flags & CSUM_DATA_VALID) !== 0) {
    sum =
      (ph.csum_flags & CSUM_PSEUDO_HDR) !== 0
        ? ph.csum_data
        : af.pseudo($inc, ph.csum_data + ulen + IPPROTO_UDP);
  } else {
    const data = (in_cksum_skip(m, hlen + ulen, hlen) ^ 0xffff) & 0xffff;
    sum = af.pseudo($inc, data + ulen + IPPROTO_UDP);
  }
  return sum === 0xffff;
}

/**
 * Checks the headers of `m0` and sets `$inc`. Takes `m0`. Returns the packet, trimmed to the end of
 * the datagram, or null if it was dropped.
 */
function parse(udp: UdpVnet, af: InpAf, m0: Mbuf, hlen: number): Mbuf | null {
  const { stat } = udp;
  const ipLen = af.ulpLength(m0, hlen);
  let m: Mbuf | null = m0;
  if (ipLen < Udphdr.SIZE) {
    stat.udps_hdrops++;
    drop(m, R_UDP_SHORT);
    return null;
  }
  if (m.m_len < hlen + Udphdr.SIZE) m = pullupInput(m, hlen + Udphdr.SIZE, R_IP_NOBUFS);
  if (m === null) {
    stat.udps_hdrops++;
    return null;
  }
  $uh.at(kva(mtod(m) + hlen));
  if ($uh.uh_dport === 0) {
    // RFC 768 has no such port. As in FreeBSD, no ICMP error.
    drop(m, R_UDP_PORT0);
    return null;
  }
  const ulen = $uh.uh_ulen;
  if (ulen > ipLen || ulen < Udphdr.SIZE) {
    stat.udps_badlen++;
    drop(m, R_UDP_LEN);
    return null;
  }
  af.parse(m, $inc);
  $inc.inc_lport = $uh.uh_dport;
  $inc.inc_fport = $uh.uh_sport;
  if (ulen < ipLen) {
    // The NIC's sum includes bytes beyond the datagram: ignore it.
    m.m_pkthdr.csum_flags &= ~CSUM_DATA_VALID;
    m_adj(m, ulen - ipLen);
  }
  if ($uh.uh_sum === 0 && !af.udpSumRequired) {
    stat.udps_nosum++;
  } else if (!sumOk(af, m, hlen, ulen)) {
    stat.udps_badsum++;
    drop(m, R_UDP_SUM);
    return null;
  }
  return m;
}

/** Receives the datagrams of a socket in the place of its receive buffer. */
export interface UdpTunnel {
  /**
   * @param m the packet, which the callee owns; it starts at the IP header
   * @param hlen the length of the IP header; the UDP header follows
   * @param from the sender, valid during the call
   */
  udpTunneled(m: Mbuf, hlen: number, from: Sockaddr): void;
}

/**
 * Passes the datagrams of `so` to \`tunnel\` from now on, in the pass that receives them. Unlike FreeBSD:
 * no separate function for ICMP errors. EBUSY: the socket has one.
 * @see sys/netinet/udp_usrreq.c
 */
export function udp_set_kernel_tunneling(so: Socket, tunnel: UdpTunnel): Errno {
  const inp = sotoinpcb(so);
  if (inp.inp_ppcb !== null) return EBUSY;
  inp.inp_ppcb = tunnel;
  return 0;
}

/**
 * Passes the datagram to the tunnel of `inp`, or appends it to its receive buffer, or drops it if the
 * buffer is full. `hlen` is
 * the length of the IP header. Takes `m`.
 */
function udp_append(udp: UdpVnet, inp: Inpcb, m: Mbuf, hlen: number): void {
  const so = inp.inp_socket!;
  const tunnel = inp.inp_ppcb as UdpTunnel | null;
  if (tunnel !== null) {
    tunnel.udpTunneled(m, hlen, in6_mapped_sockaddr(inp, $inc, true, $from));
    return;
  }
  const control = inp.inp_af.savecontrol(inp, m, hlen);
  const ifp = m.m_pkthdr.rcvif as Ifnet | null;
  if (captureOn.sockbuf && ifp !== null)
    captureSockbufIn(captureRing(), ifp, m, hlen + Udphdr.SIZE, so.so_id, 0);
  m_adj(m, hlen + Udphdr.SIZE);
  if (sbappendaddr(so.so_rcv, in6_mapped_sockaddr(inp, $inc, true, $from), m, control)) {
    sorwakeup(so);
    return;
  }
  soroverflow(so);
  m_freem(control);
  udp.stat.udps_fullsock++;
  drop(m, R_UDP_FULL);
}

/** Whether addresses and ports of `inp` match the broadcast or multicast datagram in `$inc`. */
function wants(inp: Inpcb, af: InpAf): boolean {
  const { inp_inc: inc } = inp;
  if (inp.inp_socket === null || (inp.inp_vflag & af.vflag) === 0) return false;
  if (inc.inc_lport !== $inc.inc_lport) return false;
  if (!inc.laddrAny() && !inc.laddrEquals($inc)) return false;
  return inc.faddrAny() || (inc.faddrEquals($inc) && inc.inc_fport === $inc.inc_fport);
}

/** The addresses of the multicast datagram in `$inc`, for the socket's filter. Borrowed. */
const $group = new NetAddr();
const $source = new NetAddr();

/** Whether the source filter of `inp` accepts the multicast in `$inc`, which came in by `m`'s NIC. */
function passes(udp: UdpVnet, inp: Inpcb, m: Mbuf): boolean {
  const { inp_moptions: imo } = inp;
  const ifp = m.m_pkthdr.rcvif as Ifnet | null;
  if (imo === null || ifp === null) return true;
  const result = imo_multi_filter(imo, ifp, $inc.laddrTo($group), $inc.faddrTo($source));
  if (result === MCAST_PASS) return true;
  if (result === MCAST_NOTGMEMBER) inp.inp_af.notGroupMember(inp.inp_vnet);
  else udp.stat.udps_filtermcast++;
  countDrop(m, R_UDP_FILTER, CAPTURE_SOCKBUF, CAPTURE_IN);
  return false;
}

/** Input of a broadcast or multicast datagram: each matching socket gets a copy. Takes `m`. */
function udp_multi_input(udp: UdpVnet, af: InpAf, m: Mbuf, hlen: number, multicast: boolean): void {
  const { stat } = udp;
  let last: Inpcb | null = null;
  for (let inp = udp.udbinfo.ipi_listhead; inp !== null; inp = inp.listNext) {
    if (!wants(inp, af) || (multicast && !passes(udp, inp, m))) continue;
    if (last !== null) {
      const n = m_copym(m, 0, M_COPYALL, M_NOWAIT);
      if (n === null) countDrop(m, R_IP_NOBUFS, CAPTURE_SOCKBUF, CAPTURE_IN);
      else udp_append(udp, last, n, hlen);
    }
    last = inp;
    // Without SO_REUSEPORT and SO_REUSEADDR no other socket can have the port.
    if ((inp.inp_socket!.so_options & (SO_REUSEPORT | SO_REUSEADDR)) === 0) break;
  }
  if (last !== null) {
    udp_append(udp, last, m, hlen);
    return;
  }
  stat.udps_noport++;
  if (multicast) stat.udps_noportmcast++;
  else stat.udps_noportbcast++;
  drop(m, R_UDP_NOPCB);
}

/** No socket has the port: sends port unreachable unless blackhole(4) forbids it. Takes `m`. */
function unreachable(udp: UdpVnet, af: InpAf, m: Mbuf, vnet: Vnet): void {
  const { params, stat } = udp;
  stat.udps_noport++;
  if ((m.m_flags & (M_BCAST | M_MCAST)) !== 0) {
    stat.udps_noportbcast++;
    return drop(m, R_UDP_NOPCB);
  }
  if (params.log_in_vain && logAllowed(vnet, LOG_UDP_VAIN)) {
    const to = `${af.print(vnet, $inc, false)}:${$inc.inc_lport}`;
    const from = `${af.print(vnet, $inc, true)}:${$inc.inc_fport}`;
    ifConsole.log?.(`Connection attempt to UDP ${to} from ${from}`);
  }
  if (params.blackhole && (params.blackhole_local || !peerIsLocal(vnet, af, $inc)))
    return drop(m, R_UDP_NOPCB);
  countDrop(m, R_UDP_NOPCB, CAPTURE_SOCKBUF, CAPTURE_IN);
  af.portUnreachable(m, vnet);
}

/**
 * Input of a datagram of `family`. `m0` starts at a contiguous IP header of `hlen` bytes. Takes
 * `m0`.
 * @see sys/netinet/udp_usrreq.c
 */
export function udp_input(m0: Mbuf, hlen: number, vnet: Vnet, family: number): void {
  const udp = V_udp(vnet);
  const af = inpaf(vnet, family);
  udp.stat.udps_ipackets++;
  const m = parse(udp, af, m0, hlen);
  if (m === null) return;
  const cast = af.castOf(m, $inc);
  if (cast !== 0) return udp_multi_input(udp, af, m, hlen, cast === M_MCAST);
  const inp = in_pcblookup(udp.udbinfo, af, $inc, true);
  if (inp === null || inp.inp_socket === null) return unreachable(udp, af, m, vnet);
  if (inp.inp_ip_minttl > af.ttl(m)) return drop(m, R_UDP_MINTTL);
  udp_append(udp, inp, m, hlen);
}

/**
 * Processes an ICMP error about a datagram that was sent from `inc`'s local to its foreign address;
 * `l4` points to the quoted UDP header. Sets so_error of the connected socket.
 * @see sys/netinet/udp_usrreq.c
 */
export function udp_ctlinput(cmd: number, af: InpAf, inc: InConninfo, l4: Kva, vnet: Vnet): void {
  const error = inetctlerrmap(cmd);
  if (error === 0) return;
  $uh.at(l4);
  inc.inc_lport = $uh.uh_sport;
  inc.inc_fport = $uh.uh_dport;
  const inp = in_pcblookupConn(V_udp(vnet).udbinfo, af, inc);
  const so = inp?.inp_socket;
  if (so === undefined || so === null) return;
  so.so_error = error;
  sorwakeup(so);
  sowwakeup(so);
}

/**
 * Chooses the family of a datagram from `inp` to `nam` (null: to the connected peer) and sets
 * `peer.nam`. Returns its number, or an errno negated.
 */
function familyOf(inp: Inpcb, nam: Sockaddr | null): number {
  const connected = !inp.inp_inc.faddrAny();
  if (nam === null) return connected ? inp.inp_af.family : -EDESTADDRREQ;
  if (connected) return -EISCONN;
  const error = peerFamily(inp, nam);
  if (error !== 0) return -error;
  return peer.nam.port === 0 || peer.nam.isAny() ? -EADDRNOTAVAIL : peer.af!.family;
}

/**
 * Sets `$out` to the addresses of a datagram of the family `af` from `inp` to `nam`; null: to the
 * connected peer. Binds `inp` to a local port if it has none.
 */
function destination(inp: Inpcb, af: InpAf, nam: Sockaddr | null): Errno {
  const { inp_inc: inc } = inp;
  if (nam === null) {
    $out.copyFrom(inc);
    if (!$src.laddrAny()) $out.copyLaddr($src);
    return 0;
  }
  const zone = af.embedScope(inp.inp_vnet, nam);
  if (zone !== 0) return zone;
  $to.copyFrom(inc);
  $to.inc_family = af.family;
  // A control message named the source.
  if (!$src.laddrAny()) $to.copyLaddr($src);
  $to.faddrFrom(nam);
  $to.inc_fport = nam.port;
  if ($to.laddrAny()) {
    const error = af.selectLaddr(inp, $to, true);
    if (error !== 0) return error;
  }
  if (inc.inc_lport === 0) {
    // Bind the socket to a port only; its local address stays unspecified.
    const error = in_pcbbind(inp, null);
    if (error !== 0) return error;
    $to.inc_lport = inc.inc_lport;
  }
  $out.copyFrom($to);
  return 0;
}
const $to = new InConninfo();
/** The source address that a control message of the datagram names; 0: none. */
const $src = new InConninfo();

/** Whether a datagram of `ulen` bytes is larger than a packet. */
function tooLong(af: InpAf, ulen: number): boolean {
  return ulen + af.hdrlen > af.maxpacket;
}

/**
 * Sends `m`, the data of one datagram, to `nam` (null: to the connected peer) with the control messages
 * `control`. Takes `m`, which may contain unmapped mbufs. EMSGSIZE: larger than an IP packet.
 * EDESTADDRREQ: no destination. EISCONN: `nam` on a connected socket. EAFNOSUPPORT: other family. EADDRNOTAVAIL: address or port
 * 0, or no local port is free. EHOSTUNREACH: no route. ENOBUFS: no mbuf. Else the errno of
 * ip_output.
 * @see sys/netinet/udp_usrreq.c
 */
function udp_output(inp: Inpcb, m: Mbuf, nam: Sockaddr | null, control: Control): Errno {
  const udp = V_udp(inp.inp_vnet);
  const ulen = m.m_pkthdr.len + Udphdr.SIZE;
  const family = tooLong(inp.inp_af, ulen) ? -EMSGSIZE : familyOf(inp, nam);
  const af = family <= 0 ? inp.inp_af : inpaf(inp.inp_vnet, family);
  $src.setLaddr(0);
  $src.inc_family = af.family;
  const tos = family < 0 ? family : inp.inp_af.sendcontrol(inp, control, $src);
  let error: Errno = tos < 0 ? -tos : tooLong(af, ulen) ? EMSGSIZE : 0;
  if (error === 0) error = destination(inp, af, nam === null ? null : peer.nam);
  if (error !== 0) {
    m_freem(m);
    return error;
  }
  const top = M_PREPEND(m, af.hdrlen + Udphdr.SIZE, M_NOWAIT);
  if (top === null) {
    count(R_IP_NOBUFS);
    return ENOBUFS;
  }
  const p = mtod(top);
  const ph = top.m_pkthdr;
  const dontfrag = (inp.inp_flags & INP_DONTFRAG) !== 0;
  af.fill(p, $out, ph.len, IPPROTO_UDP, af.ttlOf(inp), tos, dontfrag);
  $uh.at(kva(p + af.hdrlen));
  $uh.uh_sport = $out.inc_lport;
  $uh.uh_dport = $out.inc_fport;
  $uh.uh_ulen = ulen;
  $uh.uh_sum = 0;
  ph.csum_flags = 0;
  if (udp.params.checksum || af.udpSumRequired) {
    $uh.uh_sum = af.pseudo($out, ulen + IPPROTO_UDP);
    ph.csum_flags = af.csumUdp;
    ph.csum_data = UH_SUM_OFF;
  }
  ph.rcvif = null;
  ph.pktId = nextPktId();
  if (captureOn.sockbuf) captureDgramOut(inp, af, $out, top, ulen - Udphdr.SIZE);
  udp.stat.udps_opackets++;
  return af.outputDgram(top, inp, (inp.inp_socket!.so_options & SO_BROADCAST) !== 0);
}

function attach(so: Socket): Errno {
  const { params, udbinfo } = V_udp(so.so_vnet);
  return inDgramAttach(so, udbinfo, params.maxdgram, params.recvspace);
}

function bind(so: Socket, nam: Sockaddr): Errno {
  return in_pcbbind(sotoinpcb(so), nam);
}

function connect(so: Socket, nam: Sockaddr): Errno {
  const inp = sotoinpcb(so);
  if (!inp.inp_inc.faddrAny()) return EISCONN;
  let error = peerFamily(inp, nam);
  if (error === 0) error = peer.nam.isAny() ? EADDRNOTAVAIL : in_pcbconnect(inp, nam);
  if (error === 0) soisconnected(so);
  return error;
}

/** Removes the association with the peer; the socket keeps its local port. */
function disconnect(so: Socket): Errno {
  const inp = sotoinpcb(so);
  if (inp.inp_inc.faddrAny()) return ENOTCONN;
  in_pcbdisconnect(inp);
  inp.inp_inc.setLaddr(0);
  so.so_state &= ~SS_ISCONNECTED;
  return 0;
}

/** The protocol switch of a family's UDP sockets. @see sys/netinet/udp_usrreq.c */
const udpProtosw = (family: number): Protosw => ({
  ...inDgramSwitch,
  pr_domain: family,
  pr_type: SOCK_DGRAM,
  pr_protocol: IPPROTO_UDP,
  pr_attach: attach,
  pr_detach: inDgramDetach,
  pr_bind: bind,
  pr_connect: connect,
  pr_send: (so, _flags, m, nam, control = null) => udp_output(sotoinpcb(so), m, nam, control),
  pr_disconnect: disconnect,
  pr_abort(so: Socket): void {
    disconnect(so);
    soisdisconnected(so);
  },
  pr_ctloutput: (so, sopt) =>
    sopt.sopt_level === IPPROTO_UDP ? ENOPROTOOPT : socketAf(sotoinpcb(so)).ctloutput(so, sopt),
});

function sysctls(vnet: Vnet, { params, udbinfo }: UdpVnet): void {
  const t = vnet.sysctl;
  const bools = [
    ['checksum', 'Compute UDP checksums'],
    ['log_in_vain', 'Log all incoming UDP packets to closed ports'],
    ['blackhole', 'Do not send port unreachables for refused connects'],
    ['blackhole_local', 'Enforce net.inet.udp.blackhole for locally originated packets'],
  ] as const;
  for (const [leaf, descr] of bools) t.boolField(`net.inet.udp.${leaf}`, descr, params, leaf);
  const ints = [
    ['maxdgram', 'Maximum outgoing UDP datagram size'],
    ['recvspace', 'Maximum space for incoming UDP datagrams'],
  ] as const;
  for (const [leaf, descr] of ints) t.intField(`net.inet.udp.${leaf}`, descr, params, leaf, 1);
  t.int('net.inet.udp.pcbcount', 'Number of active PCBs', () => udbinfo.ipi_count, null);
}

/**
 * Registers UDP sockets of a family; the first call in a stack also adds UDP's sysctls. The
 * family's domain calls it while it attaches. The domain itself registers udp_input with its IP
 * layer.
 * @see sys/netinet/udp_usrreq.c
 */
export function udpAttach(vnet: Vnet, family: number): void {
  const udp = V_udp(vnet);
  if (!udp.attached) sysctls(vnet, udp);
  udp.attached = true;
  vnet.protosw.push(udpProtosw(family));
}
