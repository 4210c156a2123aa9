/**
 * TCP input from IP to the connection, after tcp_input of sys/netinet/tcp_input.c: checks, PCB
 * look-up, TIME_WAIT, CLOSED and LISTEN (RFC 9293, 3.10.7.1 and 3.10.7.2), and ICMP errors. The
 * other states are processed in tcp_do_segment.ts. Left out: IP options, forwarding to a local
 * proxy.
 */

import { countSegment } from './tcp_capture.ts';
import { pullupInput } from '../net/capture_drop.ts';
import { recordEnter, recordLeave } from '../sys/pass.ts';
import { ECONNREFUSED, type Errno } from '../sys/errno.ts';
import {
  count,
  type Reason,
  R_TCP_BADSYN,
  R_TCP_CLOSED,
  R_TCP_DEPRECATED,
  R_TCP_MINTTL,
  R_TCP_OTHER_WORKER,
  R_TCP_MTU_REXMT,
  R_TCP_NOPCB,
  R_TCP_OFF,
  R_TCP_SHORT,
  R_TCP_STALE_ICMP,
  R_TCP_SUM,
} from '../sys/reason.ts';
import { kva, type Kva, port, type TcpSeq, tcpSeq } from '../sys/types.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { CSUM_DATA_VALID, CSUM_PSEUDO_HDR, type Mbuf, mtod } from '../kern/mbuf.ts';
import { IPPROTO_TCP } from '../kern/protosw.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import type { AddressShare, Vnet } from '../kern/vnet.ts';
import { IFF_LOOPBACK, type Ifnet } from '../net/if_var.ts';
import { ifConsole } from '../net/if.ts';
import { LOG_TCP, logAllowed } from '../net/log_limit.ts';
import { memView } from '../vm/arena.ts';
import { in_cksum_skip } from './in_cksum.ts';
import {
  InConninfo,
  in_pcblookup,
  in_pcblookupConn,
  type InpAf,
  type Inpcb,
  inpaf,
  peerIsLocal,
} from './in_pcb.ts';
import { badport_bandlim, BANDLIM_RST_CLOSEDPORT, BANDLIM_RST_OPENPORT } from './ip_icmp.ts';
import { inetctlerrmap, PRC_MSGSIZE, PRC_TIMXCEED_INTRANS } from './ip_var.ts';
import { Tcphdr, TH_ACK, TH_FIN, TH_RST, TH_SYN } from './tcp.ts';
import { tcp_fastopen_disable_path } from './tcp_fastopen.ts';
import { TCPS_CLOSED, TCPS_LISTEN, TCPS_SYN_SENT, TCPS_TIME_WAIT } from './tcp_fsm.ts';
import { tcp_hc_updatemtu } from './tcp_hostcache.ts';
import { tcp_dooptions } from './tcp_options.ts';
import { tcp_free_sackholes } from './tcp_sack.ts';
import { SEQ_GEQ, SEQ_LT } from './tcp_seq.ts';
import { intotcpcb, tcp_drop, tcp_dropwithreset, tcp_mss_update, tcp_notify } from './tcp_subr.ts';
import {
  expanded,
  syncache_add,
  syncache_badack,
  syncache_chkrst,
  syncache_expand,
  SYNCACHE_NONE,
  SYNCACHE_OK,
  syncache_unreach,
} from './tcp_syncache.ts';
import { tcp_twcheck } from './tcp_timewait.ts';
import {
  $seg,
  type Tcpcb,
  type TcpSegment,
  type TcpVnet,
  TF_CONGRECOVERY,
  TF_FASTOPEN,
  TF_FASTRECOVERY,
  V_tcp,
} from './tcp_var.ts';

const $th = new Tcphdr();
const $inc = new InConninfo();

/**
 * Whether the TCP checksum is correct, as the NIC verified it or as computed here. `m` starts at
 * the IP header.
 */
function sumOk(af: InpAf, m: Mbuf, hlen: number, tlen: number): boolean {
  const ph = m.m_pkthdr;
  if ((ph.csum_flags & CSUM_DATA_VALID) !== 0) {
    const sum =
      (ph.csum_flags & CSUM_PSEUDO_HDR) !== 0
        ? ph.csum_data
        : af.pseudo($inc, ph.csum_data + tlen + IPPROTO_TCP);
    return (sum ^ 0xffff) === 0;
  }
  const sum = (in_cksum_skip(m, hlen + tlen, hlen) ^ 0xffff) & 0xffff;
  return af.pseudo($inc, sum + tlen + IPPROTO_TCP) === 0xffff;
}

/** Drops a segment: counts the reason and frees the mbuf. */
function drop(seg: TcpSegment, why: Reason): void {
  countSegment(seg, why);
  m_freem(seg.m);
  seg.m = null;
}

/**
 * Whether blackhole(4) suppresses the RST: the sysctl is at least `level`, and the peer is remote
 * or net.inet.tcp.blackhole_local is set.
 */
function silent(tcp: TcpVnet, af: InpAf, level: number): boolean {
  const { blackhole, blackhole_local } = tcp.params;
  if (blackhole < level) return false;
  return blackhole_local || !peerIsLocal(tcp.vnet, af, $inc);
}

/** Drops a segment and answers with RST, unless blackhole(4) or the rate limit forbids it. */
function reset(
  tcp: TcpVnet,
  tp: Tcpcb | null,
  af: InpAf,
  seg: TcpSegment,
  why: Reason,
  limit: number,
): void {
  if (limit === BANDLIM_RST_OPENPORT && silent(tcp, af, 3)) {
    drop(seg, why);
    return;
  }
  const unicast = af.unicast(tcp.vnet, seg.m!, $inc);
  drop(seg, why);
  if ((seg.flags & TH_RST) !== 0 || !unicast || badport_bandlim(limit, tcp.vnet) < 0) return;
  tcp_dropwithreset(tcp, tp, $inc, seg, true);
}

/**
 * Checks the headers of `m` and reads them into `seg` and `$inc`. Returns false if a check failed;
 * `m` is freed and the reason counted then.
 */
function parse(tcp: TcpVnet, af: InpAf, m0: Mbuf, hlen: number, seg: TcpSegment): boolean {
  const { stat } = tcp;
  let m: Mbuf | null = m0;
  seg.m = m;
  const tlen = af.ulpLength(m, hlen);
  if (tlen < Tcphdr.SIZE) {
    stat.tcps_rcvshort++;
    drop(seg, R_TCP_SHORT);
    return false;
  }
  if (m.m_len < hlen + Tcphdr.SIZE) {
    m = pullupInput(m, hlen + Tcphdr.SIZE, R_TCP_SHORT);
    seg.m = m;
    if (m === null) {
      stat.tcps_rcvshort++;
      return false;
    }
  }
  af.parse(m, $inc);
  seg.ecn = af.ecn(m);
  if (!sumOk(af, m, hlen, tlen)) {
    stat.tcps_rcvbadsum++;
    drop(seg, R_TCP_SUM);
    return false;
  }
  const off = $th.at(kva(mtod(m) + hlen)).th_off << 2;
  if (off < Tcphdr.SIZE || off > tlen) {
    stat.tcps_rcvbadoff++;
    drop(seg, R_TCP_OFF);
    return false;
  }
  if (m.m_len < hlen + off) {
    m = pullupInput(m, hlen + off, R_TCP_SHORT);
    seg.m = m;
    if (m === null) {
      stat.tcps_rcvshort++;
      return false;
    }
  }
  const th = $th.at(kva(mtod(m) + hlen));
  $inc.inc_lport = th.th_dport;
  $inc.inc_fport = th.th_sport;
  seg.seq = th.th_seq;
  seg.ack = th.th_ack;
  seg.flags = th.th_flags;
  seg.wnd = th.th_win;
  seg.urp = th.th_urp;
  seg.tlen = tlen - off;
  seg.nsegs = Math.max(m.m_pkthdr.lro_nsegs, 1);
  seg.hdrlen = hlen + off;
  if (off > Tcphdr.SIZE) {
    const at = kva(mtod(m) + hlen + Tcphdr.SIZE);
    tcp_dooptions(seg, at, off - Tcphdr.SIZE, (seg.flags & TH_SYN) !== 0);
  } else {
    seg.to_flags = 0;
    seg.to_nsacks = 0;
  }
  return true;
}

/** Processes a segment for a listening socket: RFC 9293, 3.10.7.2. */
function listenInput(ltp: Tcpcb, af: InpAf, seg: TcpSegment, lso: Socket): void {
  const tcp = ltp.t_tcp;
  if ((seg.flags & TH_RST) !== 0) {
    syncache_chkrst(tcp, $inc, seg);
    m_freem(seg.m);
    seg.m = null;
    return;
  }
  if ((seg.flags & (TH_SYN | TH_ACK)) === TH_ACK) {
    const found = syncache_expand(tcp, $inc, seg, lso);
    if (found === SYNCACHE_OK) {
      const tp = intotcpcb(expanded.so!.so_pcb as Inpcb);
      expanded.so = null;
      tp.t_fb.tfb_tcp_do_segment(tp, seg);
    } else if (found === SYNCACHE_NONE) {
      debug(tcp, af, seg, 'ACK without an entry or a valid cookie');
      // syncache_expand has counted its own reason; this counts the RST.
      reset(tcp, ltp, af, seg, R_TCP_NOPCB, BANDLIM_RST_OPENPORT);
    } else {
      m_freem(seg.m);
      seg.m = null;
    }
    return;
  }
  if ((seg.flags & TH_SYN) === 0) {
    tcp.stat.tcps_badsyn++;
    debug(tcp, af, seg, 'neither SYN nor ACK for a listener');
    drop(seg, R_TCP_BADSYN);
    return;
  }
  if ((seg.flags & TH_ACK) !== 0) {
    syncache_badack(tcp, $inc);
    tcp.stat.tcps_badsyn++;
    debug(tcp, af, seg, 'SYN and ACK for a listener');
    reset(tcp, ltp, af, seg, R_TCP_BADSYN, BANDLIM_RST_OPENPORT);
    return;
  }
  // net.inet6.ip6.use_deprecated=0: connections that exist continue.
  if (tcp.deprecated !== null && tcp.deprecated($inc)) {
    debug(tcp, af, seg, 'Connection attempt to deprecated IPv6 address rejected');
    reset(tcp, ltp, af, seg, R_TCP_DEPRECATED, BANDLIM_RST_OPENPORT);
    return;
  }
  const self = $inc.inc_fport === $inc.inc_lport && $inc.selfTalk();
  if (
    self ||
    !af.unicast(tcp.vnet, seg.m!, $inc) ||
    (tcp.params.drop_synfin && (seg.flags & TH_FIN) !== 0)
  ) {
    tcp.stat.tcps_badsyn++;
    debug(tcp, af, seg, 'SYN from an address or with flags that are not accepted');
    drop(seg, R_TCP_BADSYN);
    return;
  }
  if (syncache_add(tcp, $inc, seg, lso) && expanded.so !== null) {
    const tp = intotcpcb(expanded.so.so_pcb as Inpcb);
    expanded.so = null;
    tp.t_fb.tfb_tcp_do_segment(tp, seg);
    return;
  }
  m_freem(seg.m);
  seg.m = null;
}

/** Logs a refused segment if net.inet.tcp.log_debug is set. */
function debug(tcp: TcpVnet, af: InpAf, seg: TcpSegment, what: string): void {
  if (tcp.params.log_debug) logSegment(tcp.vnet, af, seg, what);
}

/** Logs the segment; `what` says why. */
function logSegment(vnet: Vnet, af: InpAf, seg: TcpSegment, what: string): void {
  if (!logAllowed(vnet, LOG_TCP)) return;
  const from = `[${af.print(vnet, $inc, true)}]:${$inc.inc_fport}`;
  const to = `[${af.print(vnet, $inc, false)}]:${$inc.inc_lport}`;
  const flags = `0x${seg.flags.toString(16)}`;
  ifConsole.log?.(`TCP: ${from} to ${to} tcpflags ${flags}; tcp_input: ${what}`);
}

/** Processes a segment without a PCB: RFC 9293, 3.10.7.1, and blackhole(4). */
function noConnection(tcp: TcpVnet, af: InpAf, seg: TcpSegment): void {
  const { log_in_vain } = tcp.params;
  if (log_in_vain === 2 || (log_in_vain === 1 && (seg.flags & TH_SYN) !== 0))
    logSegment(tcp.vnet, af, seg, 'Connection attempt to closed port');
  if (silent(tcp, af, (seg.flags & TH_SYN) !== 0 ? 1 : 2)) {
    drop(seg, R_TCP_NOPCB);
    return;
  }
  reset(tcp, null, af, seg, R_TCP_NOPCB, BANDLIM_RST_CLOSEDPORT);
}

/**
 * Input of a TCP packet of `family`: `m` starts at the IP header of `hlen` bytes. Takes `m`. Panics
 * on recursion.
 * @see sys/netinet/tcp_input.c
 */
export function tcp_input(m: Mbuf, hlen: number, vnet: Vnet, family: number): void {
  recordEnter($seg);
  try {
    input(m, hlen, vnet, family);
  } finally {
    recordLeave($seg);
  }
}

const connected = (inp: Inpcb | null): boolean =>
  inp !== null && intotcpcb(inp).t_state !== TCPS_LISTEN;

/**
 * Whether a segment without a connection is for this stack. Every worker reassembles the fragments of
 * a segment, and only one may answer it. What the stack sends to itself stays here.
 */
function ours(share: AddressShare, seg: TcpSegment): boolean {
  const ifp = seg.m!.m_pkthdr.rcvif as Ifnet | null;
  if (ifp !== null && (ifp.if_flags & IFF_LOOPBACK) !== 0) return true;
  return share.ownsTcp($inc);
}

function input(m: Mbuf, hlen: number, vnet: Vnet, family: number): void {
  const tcp = V_tcp(vnet);
  const af = inpaf(vnet, family);
  const seg = $seg;
  tcp.stat.tcps_rcvtotal++;
  if (!parse(tcp, af, m, hlen, seg)) return;
  let inp = in_pcblookup(tcp.tcbinfo, af, $inc, true);
  // RFC 5082 (GTSM): a TTL below IP_MINTTL proves that the sender is too many hops away.
  if (inp !== null && inp.inp_ip_minttl > 0 && af.ttl(seg.m!) < inp.inp_ip_minttl) {
    drop(seg, R_TCP_MINTTL);
    return;
  }
  if (inp !== null && intotcpcb(inp).t_state === TCPS_TIME_WAIT) {
    if (!tcp_twcheck(intotcpcb(inp), seg)) return;
    // tcp_twcheck closed the old connection for a new SYN: look up the listener.
    inp = in_pcblookup(tcp.tcbinfo, af, $inc, true);
  }
  const { share } = vnet;
  if (share !== null && !connected(inp) && !ours(share, seg)) {
    drop(seg, R_TCP_OTHER_WORKER);
    return;
  }
  if (inp === null) {
    noConnection(tcp, af, seg);
    return;
  }
  const tp = intotcpcb(inp);
  if (tp.t_state === TCPS_CLOSED) reset(tcp, tp, af, seg, R_TCP_CLOSED, BANDLIM_RST_CLOSEDPORT);
  else if (tp.t_state === TCPS_LISTEN) listenInput(tp, af, seg, inp.inp_socket!);
  else tp.t_fb.tfb_tcp_do_segment(tp, seg);
}

/** Whether the quoted `seq` is of unacknowledged data: snd_una <= seq < snd_max (RFC 5927). */
function inFlight(inp: Inpcb, seq: TcpSeq): boolean {
  const tp = intotcpcb(inp);
  return SEQ_GEQ(seq, tp.snd_una) && SEQ_LT(seq, tp.snd_max);
}

/**
 * Processes an ICMP error about a segment that was sent from `inc`'s local to its foreign address;
 * sets the ports of `inc`. `l4` points to at least 8 bytes of the quoted TCP header. `mtu` is valid
 * with PRC_MSGSIZE. Errors whose quoted sequence number is not in flight are ignored: RFC 5927.
 * @see sys/netinet/tcp_subr.c
 */
export function tcp_ctlinput(
  cmd: number,
  af: InpAf,
  inc: InConninfo,
  l4: Kva,
  mtu: number,
  vnet: Vnet,
): void {
  const tcp = V_tcp(vnet);
  const error: Errno = inetctlerrmap(cmd);
  inc.inc_lport = port(memView.getUint16(l4));
  inc.inc_fport = port(memView.getUint16(l4 + 2));
  const seq = tcpSeq(memView.getInt32(l4 + 4));
  const inp = in_pcblookupConn(tcp.tcbinfo, af, inc);
  if (inp === null) {
    if (error !== 0) syncache_unreach(tcp, af, inc, seq);
    return;
  }
  if (error === 0) return;
  if (intotcpcb(inp).t_state === TCPS_TIME_WAIT || !inFlight(inp, seq)) {
    count(R_TCP_STALE_ICMP);
    return;
  }
  const tp = intotcpcb(inp);
  if (cmd === PRC_MSGSIZE) {
    if (mtu <= 0) return;
    // ICMP may not force segments below minmss on us; such segments go without DF.
    mtu = Math.max(mtu, tcp.params.minmss + af.hdrlen + Tcphdr.SIZE);
    const before = tp.t_maxseg;
    tcp_mss_update(tp, -1, mtu);
    if (tp.t_maxseg >= before) return;
    tcp_hc_updatemtu(tcp, tp.t_inpcb.inp_inc, mtu);
    tcp.stat.tcps_mturesent++;
    count(R_TCP_MTU_REXMT);
    // Retransmit from snd_una in smaller segments: RFC 1191, 6.4.
    tp.snd_nxt = tp.snd_una;
    tp.t_rtttime = 0;
    // The scoreboard describes segments of the old size: discard it and leave recovery, as after an
    // RTO.
    tcp_free_sackholes(tp);
    tp.snd_recover = tp.snd_max;
    tp.t_flags &= ~(TF_FASTRECOVERY | TF_CONGRECOVERY);
    tp.t_fb.tfb_tcp_output(tp);
    return;
  }
  // RFC 5461 and net.inet.tcp.icmp_may_rst: these errors are fatal in SYN_SENT and change nothing in
  // the other states.
  const hard = error === ECONNREFUSED || cmd === PRC_TIMXCEED_INTRANS;
  if (!hard || !tcp.params.icmp_may_rst) {
    tcp_notify(tp, error);
  } else if (tp.t_state === TCPS_SYN_SENT) {
    if ((tp.t_flags & TF_FASTOPEN) !== 0) tcp_fastopen_disable_path(tp);
    tcp_drop(tp, error);
  }
}
