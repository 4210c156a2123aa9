/**
 * Creation and end of TCP connections, after sys/netinet/tcp_subr.c: control blocks, close and
 * drop, replies without data (RST, ACK), the segment size, ICMP errors, TIME_WAIT. Left out: MD5
 * signatures, UDP encapsulation.
 */

import { nextPktId } from '../sys/packet_id.ts';
import {
  EHOSTDOWN,
  EHOSTUNREACH,
  ENETDOWN,
  ENETUNREACH,
  type Errno,
  ETIMEDOUT,
} from '../sys/errno.ts';
import {
  count,
  R_SO_MAXSOCKETS,
  R_TCP_CHALLENGE,
  R_TCP_CHALLENGE_LIMIT,
  R_TCP_TW_EVICTED,
} from '../sys/reason.ts';
import { kva, tcpSeq, type TcpSeq } from '../sys/types.ts';
import { m_gethdr } from '../kern/kern_mbuf.ts';
import { max_linkhdr, M_NOWAIT, MT_DATA, mtod } from '../kern/mbuf.ts';
import { IPPROTO_TCP } from '../kern/protosw.ts';
import { sbParams, sbreserve, sbspace } from '../kern/uipc_sockbuf.ts';
import {
  soabort,
  soisdisconnected,
  soParams,
  sorele,
  sorwakeup,
  sowwakeup,
} from '../kern/uipc_socket.ts';
import {
  INP_DROPPED,
  type InConninfo,
  in_pcbdrop,
  in_pcbfree,
  INP_SOCKREF,
  type InpAf,
  type Inpcb,
  inpaf,
  peerIsLocal,
} from './in_pcb.ts';
import { IPTOS_ECN_MASK } from './ip.ts';
import { TCP_MAXWIN, Tcphdr, TH_ACK, TH_FIN, TH_RST, TH_SUM_OFF, TH_SYN } from './tcp.ts';
import {
  tcp_state_change,
  TCPS_CLOSED,
  TCPS_ESTABLISHED,
  TCPS_HAVEESTABLISHED,
  TCPS_HAVERCVDSYN,
  TCPS_TIME_WAIT,
} from './tcp_fsm.ts';
import { HcMetrics, tcp_hc_get, tcp_hc_getmtu, tcp_hc_update } from './tcp_hostcache.ts';
import { tcp_ecn_output_established } from './tcp_ecn.ts';
import { tfoSettled } from './tcp_fastopen.ts';
import { putTimestamp } from './tcp_options.ts';
import { tcp_reass_flush } from './tcp_reass.ts';
import { tcp_clean_sackreport, tcp_free_sackholes } from './tcp_sack.ts';
import { SEQ_GT, seqAdd } from './tcp_seq.ts';
import { setRxtcur, tcp_cancel_timers, tcp_timer_activate } from './tcp_timer.ts';
import {
  mssDefaults,
  TCP_RTT_SHIFT,
  TCP_RTTVAR_SHIFT,
  Tcpcb,
  type TcpSegment,
  tcpTicks,
  type TcpVnet,
  TF_ACKNOW,
  TF_FORCEDATA,
  TF_NOOPT,
  TF_RCVD_TSTMP,
  TF_REQ_SCALE,
  TF_REQ_TSTMP,
  TF_SACK_PERMIT,
  TF_TSO,
  type TsoLimits,
  TF2_ACE_PERMIT,
  TT_2MSL,
  V_tcp,
  wantsScale,
  wantsTs,
} from './tcp_var.ts';

const $out = new Tcphdr();
/** Least t_maxseg: leaves room for data beside 40 bytes of options. @see sys/netinet/tcp_input.c */
const MIN_MAXSEG = 64;

/** Creates the control block of `inp`, in state CLOSED. @see sys/netinet/tcp_subr.c */
export function tcp_newtcpcb(inp: Inpcb): Tcpcb {
  const tcp = V_tcp(inp.inp_vnet);
  const p = tcp.params;
  const tp = new Tcpcb(inp, tcp, tcp.functions!);
  tcp.states[TCPS_CLOSED]!++;
  tp.t_maxseg = mssDefaults(tcp, inp.inp_af).mssdflt;
  if (wantsScale(p)) tp.t_flags |= TF_REQ_SCALE;
  if (wantsTs(p)) tp.t_flags |= TF_REQ_TSTMP;
  if (p.sack_enable) tp.t_flags |= TF_SACK_PERMIT;
  // RFC 6298 (2.1): without a measurement the RTO is 1 s (rexmit_initial). Choose rttvar so that
  // srtt + 4 * rttvar yields the same value.
  tp.t_srtt = 0;
  tp.t_rttvar = Math.floor((p.rexmit_initial << TCP_RTTVAR_SHIFT) / 4);
  tp.t_rttmin = p.rexmit_min;
  tp.t_rxtcur = p.rexmit_initial;
  tp.t_rcvtime = tcpTicks();
  tp.t_starttime = tp.t_rcvtime;
  inp.inp_ppcb = tp;
  return tp;
}

/**
 * Releases what a control block holds. `tp` must not be used afterwards.
 * @see sys/netinet/tcp_subr.c
 */
export function tcp_discardcb(tp: Tcpcb): void {
  tcp_cancel_timers(tp);
  tcp_reass_flush(tp);
  tcp_free_sackholes(tp);
  tp.t_tcp.timeWait.delete(tp);
  tp.t_tcp.states[tp.t_state]!--;
}

/**
 * Closes a connection: removes it from the hash tables and marks its socket as disconnected. The
 * socket keeps the PCB until the program closes it. `tp` must not be used afterwards. A second call
 * does nothing.
 * @see sys/netinet/tcp_subr.c
 */
export function tcp_close(tp: Tcpcb): void {
  const inp = tp.t_inpcb;
  if ((inp.inp_flags & INP_DROPPED) !== 0) return;
  tp.t_tcp.stat.tcps_closed++;
  tfoSettled(tp);
  toHostCache(tp);
  tcp_cancel_timers(tp);
  tcp_reass_flush(tp);
  tcp_free_sackholes(tp);
  if (tp.t_state !== TCPS_CLOSED) tcp_state_change(tp, TCPS_CLOSED);
  in_pcbdrop(inp);
  const so = inp.inp_socket;
  if (so === null) {
    tcp_discardcb(tp);
    in_pcbfree(inp);
    return;
  }
  soisdisconnected(so);
  if ((inp.inp_flags & INP_SOCKREF) !== 0) {
    inp.inp_flags &= ~INP_SOCKREF;
    sorele(so);
  } else if (so.so_listen !== null && so.so_listen.sol_incomp.includes(so)) {
    // The socket is still on the listener's incomplete queue, so only this call can free it.
    soabort(so);
  }
}

/**
 * Drops a connection: sends RST if the peer's SYN was received, and sets so_error to `error` (for
 * ETIMEDOUT to t_softerror, if an ICMP error set that). `tp` must not be used afterwards.
 * @see sys/netinet/tcp_subr.c
 */
export function tcp_drop(tp: Tcpcb, error: Errno): void {
  const so = tp.t_inpcb.inp_socket!;
  const stat = tp.t_tcp.stat;
  if (TCPS_HAVERCVDSYN(tp.t_state)) {
    tcp_state_change(tp, TCPS_CLOSED);
    tp.t_fb.tfb_tcp_output(tp);
    stat.tcps_drops++;
  } else {
    stat.tcps_conndrops++;
  }
  so.so_error = error === ETIMEDOUT && tp.t_softerror !== 0 ? tp.t_softerror : error;
  tcp_close(tp);
}

/**
 * Enters TIME_WAIT for 2 MSL: RFC 9293, 3.6.1. Sends the pending ACK first. A socket that its
 * program has closed is released; only the control block stays. With net.inet.tcp.nolocaltimewait
 * a connection to a local address is closed at once; `tp` must not be used afterwards.
 * @see sys/netinet/tcp_timewait.c
 */
export function tcp_twstart(tp: Tcpcb): void {
  const inp = tp.t_inpcb;
  tcp_state_change(tp, TCPS_TIME_WAIT);
  soisdisconnected(inp.inp_socket!);
  if ((tp.t_flags & TF_ACKNOW) !== 0) tp.t_fb.tfb_tcp_output(tp);
  if (tp.t_tcp.params.nolocaltimewait && peerIsLocal(inp.inp_vnet, inp.inp_af, inp.inp_inc)) {
    // A local peer sends no old duplicates.
    tcp_close(tp);
    return;
  }
  tcp_cancel_timers(tp);
  tcp_reass_flush(tp);
  tcp_free_sackholes(tp);
  tcp_clean_sackreport(tp);
  tcp_timer_activate(tp, TT_2MSL, 2 * tp.t_tcp.params.msl);
  if ((inp.inp_flags & INP_SOCKREF) === 0) return;
  inp.inp_flags &= ~INP_SOCKREF;
  const so = inp.inp_socket!;
  tcpTwClosed(inp);
  sorele(so);
}

/**
 * The program closed the socket of a connection in TIME_WAIT: detaches the PCB, which waits on. Keeps
 * the receive window in rcv_wnd for the ACKs of TIME_WAIT.
 */
export function tcpTwClosed(inp: Inpcb): void {
  const so = inp.inp_socket!;
  const tp = intotcpcb(inp);
  tp.rcv_wnd = Math.max(sbspace(so.so_rcv), 0);
  tp.t_tcp.timeWait.add(tp);
  so.so_pcb = null;
  inp.inp_socket = null;
}

/**
 * Whether kern.ipc.maxsockets allows one more control block. FreeBSD limits their zone to it. Unlike
 * FreeBSD: at the limit the connection that is longest in TIME_WAIT without a socket ends, so that a
 * peer that opens many short connections does not keep others out for 2 MSL.
 */
export function tcpRoom(tcp: TcpVnet): boolean {
  while (tcp.tcbinfo.ipi_count >= soParams.maxsockets) {
    const [oldest] = tcp.timeWait;
    if (oldest === undefined) {
      count(R_SO_MAXSOCKETS);
      return false;
    }
    count(R_TCP_TW_EVICTED);
    tcp_close(oldest);
  }
  return true;
}

/**
 * Sends a segment without data: an ACK or RST of connection or listener `tp`, with its IP_TTL and
 * IP_TOS, or with `tp` null a reply to a segment without a connection. In `inc` the local address is
 * ours. Sends nothing if no mbuf is free.
 * @see sys/netinet/tcp_subr.c
 */
export function tcp_respond(
  tcp: TcpVnet,
  tp: Tcpcb | null,
  inc: InConninfo,
  seq: TcpSeq,
  ack: TcpSeq,
  flags: number,
): void {
  const inp = tp === null ? null : tp.t_inpcb;
  // A listener of both families answers in that of the segment.
  const af = inpaf(tcp.vnet, inc.inc_family);
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return;
  m.m_data += max_linkhdr;
  const th = mtod(m) + af.hdrlen;
  let optlen = 0;
  let win = 0;
  // As in FreeBSD, a RST of a live connection has its options too.
  if (tp !== null && (tp.t_inpcb.inp_flags & INP_DROPPED) === 0) {
    const so = tp.t_inpcb.inp_socket;
    const space = so === null ? tp.rcv_wnd : Math.max(sbspace(so.so_rcv), 0);
    if ((flags & TH_RST) === 0) win = Math.min(space, TCP_MAXWIN << tp.rcv_scale) >> tp.rcv_scale;
    if ((tp.t_flags & TF_NOOPT) === 0) {
      flags |= tcp_ecn_output_established(tp, false);
      if ((tp.t_flags & TF_RCVD_TSTMP) !== 0)
        optlen = putTimestamp(kva(th + Tcphdr.SIZE), (tcpTicks() + tp.ts_offset) | 0, tp.ts_recent);
    }
  }
  const len = af.hdrlen + Tcphdr.SIZE + optlen;
  const h = $out.at(kva(th));
  h.th_sport = inc.inc_lport;
  h.th_dport = inc.inc_fport;
  h.th_seq = seq;
  h.th_ack = ack;
  h.th_off = (Tcphdr.SIZE + optlen) >> 2;
  h.th_flags = flags;
  h.th_win = win;
  h.th_urp = 0;
  h.th_sum = af.pseudo(inc, Tcphdr.SIZE + optlen + IPPROTO_TCP);
  af.fill(
    mtod(m),
    inc,
    len,
    IPPROTO_TCP,
    inp === null ? af.defaultTtl(tcp.vnet) : af.ttlOf(inp),
    inp === null ? 0 : af.tosOf(inp) & ~IPTOS_ECN_MASK,
    tcp.params.path_mtu_discovery,
  );
  m.m_len = len;
  const ph = m.m_pkthdr;
  ph.len = len;
  ph.csum_flags = af.csumTcp;
  ph.csum_data = TH_SUM_OFF;
  ph.pktId = nextPktId();
  tcp.stat.tcps_sndtotal++;
  if ((flags & TH_RST) !== 0) tcp.stat.tcps_sndctrl++;
  else tcp.stat.tcps_sndacks++;
  // Ignore the errno: IP counts the drop, and the peer's retransmission triggers another reply.
  // A listener has no route to this peer, and a closed connection keeps none.
  const routed = inp !== null && inp.inp_inc === inc && (inp.inp_flags & INP_DROPPED) === 0;
  af.output(m, routed ? inp : null, tcp.vnet);
}

/**
 * Answers `seg` with RST: RFC 9293, 3.5.2 (groups 1 and 2). Sends nothing if `seg` is a RST itself
 * or was not sent to a unicast address (`unicast` false).
 * @see sys/netinet/tcp_input.c
 */
export function tcp_dropwithreset(
  tcp: TcpVnet,
  tp: Tcpcb | null,
  inc: InConninfo,
  seg: TcpSegment,
  unicast: boolean,
): void {
  if ((seg.flags & TH_RST) !== 0 || !unicast) return;
  if ((seg.flags & TH_ACK) !== 0) {
    tcp_respond(tcp, tp, inc, seg.ack, tcpSeq(0), TH_RST);
    return;
  }
  const len =
    seg.tlen + ((seg.flags & TH_SYN) !== 0 ? 1 : 0) + ((seg.flags & TH_FIN) !== 0 ? 1 : 0);
  tcp_respond(tcp, tp, inc, tcpSeq(0), seqAdd(seg.seq, len), TH_RST | TH_ACK);
}

/**
 * The largest segment for a path: its MTU less the headers, behind a router at most `routed`; mssdflt if
 * there is no route.
 */
function tcpMaxMss(tcp: TcpVnet, af: InpAf, inc: InConninfo, routed = Infinity): number {
  const headers = af.hdrlen + Tcphdr.SIZE;
  const mtu = af.pathMtu(tcp.vnet, inc, routed + headers);
  return mtu === 0 ? mssDefaults(tcp, af).mssdflt : mtu - headers;
}

/**
 * The MSS we announce: what the interface and the known path MTU allow. net.inet.tcp.minmss does not
 * apply to it.
 * @see sys/netinet/tcp_input.c
 */
export function tcp_mssopt(tcp: TcpVnet, inc: InConninfo): number {
  const af = inpaf(tcp.vnet, inc.inc_family);
  const mss = tcpMaxMss(tcp, af, inc);
  const known = tcp_hc_getmtu(tcp, inc);
  return known > 0 ? Math.min(mss, known - af.hdrlen - Tcphdr.SIZE) : mss;
}

/** Copies the TSO capability and limits of the outgoing interface to `tp`. */
function tcpTsoUpdate(tp: Tcpcb): void {
  const inp = tp.t_inpcb;
  const af = inp.inp_af;
  const ifp = af.outgoing(inp.inp_vnet, inp.inp_inc);
  const able =
    tp.t_tcp.params.tso &&
    ifp !== null &&
    (ifp.if_capenable & af.ifcapTso) !== 0 &&
    (ifp.if_hwassist & af.csumTso) !== 0;
  if (!able) {
    tp.t_flags &= ~TF_TSO;
    return;
  }
  tp.t_flags |= TF_TSO;
  // sys/net/if.c: without limits from the driver, 32 segments of 2 KB and an Ethernet header.
  tp.t_tso = tsoLimits(
    ifp.if_hw_tsomax === 0 ? Math.min(65535, 32 * 2048 - 18) : ifp.if_hw_tsomax,
    ifp.if_hw_tsomaxsegcount === 0 ? 35 : ifp.if_hw_tsomaxsegcount,
    ifp.if_hw_tsomaxsegsize === 0 ? 2048 : ifp.if_hw_tsomaxsegsize,
  );
}

let lastTso: TsoLimits = { max: 0, maxsegcount: 0, maxsegsize: 0 };

/** The record of these limits: the last one if they are equal, so that connections share it. */
function tsoLimits(max: number, maxsegcount: number, maxsegsize: number): TsoLimits {
  const last = lastTso;
  const same =
    last.max === max && last.maxsegcount === maxsegcount && last.maxsegsize === maxsegsize;
  if (!same) lastTso = { max, maxsegcount, maxsegsize };
  return lastTso;
}

/**
 * Whether the NIC may segment the data. Not with SACK blocks: the NIC would copy them to each
 * segment. Nor with an urgent pointer: its value differs in each segment. Nor with accurate ECN: the
 * NIC clears CWR, a bit of its counter. Nor with IP options, as in FreeBSD.
 */
export function tcpMayUseTso(tp: Tcpcb): boolean {
  return (
    (tp.t_flags & (TF_TSO | TF_FORCEDATA)) === TF_TSO &&
    (tp.t_flags2 & TF2_ACE_PERMIT) === 0 &&
    tp.rcv_numsacks === 0 &&
    !SEQ_GT(tp.snd_up, tp.snd_una) &&
    tp.t_inpcb.inp_af.optlenOf(tp.t_inpcb) === 0
  );
}

/**
 * Sets the segment size from the peer's MSS option and the path's MTU, and updates the TSO limits.
 * `offer` is the option's value; 0: the SYN had no MSS option, use mssdflt; -1: keep t_maxseg as
 * the upper bound. `mtu` above 0 is a path MTU that ICMP reported.
 * @see sys/netinet/tcp_input.c
 */
export function tcp_mss_update(tp: Tcpcb, offer: number, mtu: number): void {
  const { params } = tp.t_tcp;
  const af = tp.t_inpcb.inp_af;
  const { mssdflt } = mssDefaults(tp.t_tcp, af);
  if (offer === 0) offer = mssdflt;
  // A tiny offer would cause one packet per few bytes: enforce net.inet.tcp.minmss.
  if (offer > 0) offer = Math.max(offer, params.minmss);
  const { inp_inc } = tp.t_inpcb;
  const known = tcp_hc_getmtu(tp.t_tcp, inp_inc);
  // Without path MTU discovery routers fragment: keep segments small on a path of unknown MTU.
  const guess = known === 0 && !params.path_mtu_discovery;
  let mss = tcpMaxMss(tp.t_tcp, af, inp_inc, guess ? mssdflt : Infinity);
  if (known > 0) mss = Math.min(mss, known - af.hdrlen - Tcphdr.SIZE);
  if (mtu > 0) mss = Math.min(mss, mtu - af.hdrlen - Tcphdr.SIZE);
  if (offer > 0) mss = Math.min(mss, offer);
  else mss = Math.min(mss, tp.t_maxseg);
  tp.t_maxseg = Math.max(mss, MIN_MAXSEG);
  tcpTsoUpdate(tp);
}

/** Rounds a buffer limit up to whole segments. */
function roundBuf(hiwat: number, mss: number): number {
  return Math.min(Math.ceil(hiwat / mss) * mss, sbParams.sb_max);
}

/**
 * Runs `tcp_mss_update` and rounds the socket's buffer limits up to whole segments.
 * @see sys/netinet/tcp_input.c
 */
export function tcp_mss(tp: Tcpcb, offer: number): void {
  tcp_mss_update(tp, offer, 0);
  const so = tp.t_inpcb.inp_socket!;
  const snd = roundBuf(so.so_snd.sb_hiwat, tp.t_maxseg);
  if (so.so_snd.sb_hiwat < tp.t_maxseg) tp.t_maxseg = Math.max(so.so_snd.sb_hiwat, 1);
  else if (snd > so.so_snd.sb_hiwat) sbreserve(so.so_snd, snd);
  const rcv = roundBuf(so.so_rcv.sb_hiwat, tp.t_maxseg);
  if (rcv > so.so_rcv.sb_hiwat) sbreserve(so.so_rcv, rcv);
  fromHostCache(tp);
}

/** Initializes RTT and ssthresh from the host cache: RFC 9040, temporal sharing. */
function fromHostCache(tp: Tcpcb): void {
  const m = tcp_hc_get(tp.t_tcp, tp.t_inpcb.inp_inc);
  if (tp.t_srtt === 0 && m.rmx_rtt !== 0) {
    tp.t_tcp.stat.tcps_usedrtt++;
    tp.t_srtt = m.rmx_rtt;
    if (m.rmx_rttvar !== 0) tp.t_tcp.stat.tcps_usedrttvar++;
    // Without a cached variance use rttvar = srtt.
    tp.t_rttvar =
      m.rmx_rttvar !== 0 ? m.rmx_rttvar : (m.rmx_rtt >> TCP_RTT_SHIFT) << TCP_RTTVAR_SHIFT;
    setRxtcur(tp);
  }
  if (m.rmx_ssthresh !== 0) {
    tp.snd_ssthresh = Math.max(2 * tp.t_maxseg, m.rmx_ssthresh);
    tp.t_tcp.stat.tcps_usedssthresh++;
  }
}

const $metrics = new HcMetrics();

/**
 * Stores the metrics of a closing connection in the host cache, if it took at least 4 RTT samples.
 */
function toHostCache(tp: Tcpcb): void {
  if (tp.t_rttupdated < 4) return;
  const { inp_inc, inp_socket: so } = tp.t_inpcb;
  $metrics.clear();
  // Store ssthresh only if the send buffer allowed more than twice as much.
  if (so !== null && tp.snd_ssthresh !== 0 && tp.snd_ssthresh < so.so_snd.sb_hiwat / 2) {
    const segs = Math.max(Math.round(tp.snd_ssthresh / tp.t_maxseg), 2);
    $metrics.rmx_ssthresh = segs * (tp.t_maxseg + tp.t_inpcb.inp_af.hdrlen + Tcphdr.SIZE);
  }
  $metrics.rmx_rtt = tp.t_srtt;
  $metrics.rmx_rttvar = tp.t_rttvar;
  $metrics.rmx_cwnd = tp.snd_cwnd;
  tcp_hc_update(tp.t_tcp, inp_inc, $metrics);
}

/**
 * Processes an ICMP error for a connection. ESTABLISHED and unreachable: discards the cached route.
 * Before ESTABLISHED, with more than 3 retransmissions and a second error: drops the connection.
 * Else records a soft error and wakes the socket. @see sys/netinet/tcp_subr.c
 */
export function tcp_notify(tp: Tcpcb, error: Errno): void {
  const unreach =
    error === EHOSTUNREACH || error === ENETUNREACH || error === EHOSTDOWN || error === ENETDOWN;
  if (tp.t_state === TCPS_ESTABLISHED && unreach) {
    tp.t_inpcb.dropRoute();
    return;
  }
  if (!TCPS_HAVEESTABLISHED(tp.t_state) && tp.t_rxtshift > 3 && tp.t_softerror !== 0) {
    tcp_drop(tp, error);
    return;
  }
  tp.t_softerror = error;
  const so = tp.t_inpcb.inp_socket;
  if (so === null) return;
  sorwakeup(so);
  sowwakeup(so);
}

/** The window scale to announce: the smallest that covers sb_max, at most 14. */
export function tcpWscale(): number {
  let scale = 0;
  while (scale < 14 && TCP_MAXWIN << scale < sbParams.sb_max) scale++;
  return scale;
}

/** The control block of a PCB. */
export function intotcpcb(inp: Inpcb): Tcpcb {
  return inp.inp_ppcb as Tcpcb;
}

/**
 * Whether the limit of ack_war_cnt challenge ACKs per ack_war_timewindow ms allows one more: RFC
 * 5961, 7 and 10. Counts it; the caller sends it.
 */
export function challengeAllowed(tp: Tcpcb): boolean {
  const { params, stat } = tp.t_tcp;
  const now = tcpTicks();
  if (tp.t_challenge_ack_cnt === 0 || ((now - tp.t_challenge_ack_end) | 0) >= 0) {
    tp.t_challenge_ack_end = (now + params.ack_war_timewindow) | 0;
    tp.t_challenge_ack_cnt = 0;
  }
  if (params.ack_war_cnt > 0 && tp.t_challenge_ack_cnt >= params.ack_war_cnt) {
    count(R_TCP_CHALLENGE_LIMIT);
    return false;
  }
  count(R_TCP_CHALLENGE);
  tp.t_challenge_ack_cnt++;
  stat.tcps_challengeack++;
  return true;
}

/** Sends a challenge ACK if the limit allows it: RFC 5961, 7. @see sys/netinet/tcp_subr.c */
export function tcp_send_challenge_ack(tp: Tcpcb): void {
  if (!challengeAllowed(tp)) return;
  tcp_respond(tp.t_tcp, tp, tp.t_inpcb.inp_inc, tp.snd_max, tp.rcv_nxt, TH_ACK);
  tp.last_ack_sent = tp.rcv_nxt;
}
