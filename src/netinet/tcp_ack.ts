/**
 * ACK processing of the sender: RFC 9293, 3.10.7.4, fifth step, with RFC 6298 (round-trip times),
 * the idea of RFC 3522 (detection of spurious time-outs) and RFC 5961, 5 (unacceptable ACKs). Loss
 * detection is in tcp_recovery.ts. In FreeBSD this is part of tcp_do_segment.
 */

import { countSegment } from './tcp_capture.ts';
import { R_TCP_BADACK, R_TCP_NOACK } from '../sys/reason.ts';
import type { TcpSeq } from '../sys/types.ts';
import { sbavail, SBS_CANTRCVMORE, sbdrop, sbspace } from '../kern/uipc_sockbuf.ts';
import { soisconnected, soisdisconnected, sowwakeup, type Socket } from '../kern/uipc_socket.ts';
import { CC_RTO_ERR, cc_ack_received, cc_cong_signal, cc_conn_init } from './cc.ts';
import { TH_ACK } from './tcp.ts';
import {
  tcp_state_change,
  TCPS_CLOSED,
  TCPS_CLOSE_WAIT,
  TCPS_CLOSING,
  TCPS_ESTABLISHED,
  TCPS_FIN_WAIT_1,
  TCPS_FIN_WAIT_2,
  TCPS_LAST_ACK,
  TCPS_LISTEN,
  TCPS_SYN_RECEIVED,
  TCPS_SYN_SENT,
  TCPS_TIME_WAIT,
} from './tcp_fsm.ts';
import { tfoSettled } from './tcp_fastopen.ts';
import { duplicateAck, lossAfterAck, recoveryAck } from './tcp_recovery.ts';
import { tcp_sack_doack } from './tcp_sack.ts';
import { SEQ_GEQ, SEQ_GT, SEQ_LEQ, SEQ_LT, seqAdd, seqDiff, TSTMP_LT } from './tcp_seq.ts';
import { tcp_close, tcp_twstart } from './tcp_subr.ts';
import { setRxtcur, tcp_timer_activate, tcp_timer_active } from './tcp_timer.ts';
import {
  finwait2Ms,
  TCP_DELTA_SHIFT,
  TCP_RTT_SHIFT,
  TCP_RTTVAR_SHIFT,
  type Tcpcb,
  type TcpSegment,
  tcpTicks,
  TF_CONGRECOVERY,
  TF_FASTOPEN,
  TF_FASTRECOVERY,
  TF_NEEDFIN,
  TF_PREVVALID,
  TF_RCVD_SCALE,
  TF_REQ_SCALE,
  TF_SACK_PERMIT,
  TOF_TS,
  TP_KEEPIDLE,
  TT_2MSL,
  TT_KEEP,
  TT_PERSIST,
  TT_REXMT,
} from './tcp_var.ts';
import { KASSERT } from '../sys/kassert.ts';

// Results of a step of segment processing.
/** Continue with the next step. */
export const CONT = 0;
/** Processing is complete: free the segment. Output may be due. */
export const DROP = 1;
/** Answer with an ACK and free it. */
export const DROPAFTERACK = 2;
/** Answer with a RST and free it. */
export const DROPWITHRESET = 3;
/** The connection is closed or in TIME_WAIT: free the segment and do not use the tcpcb. */
export const DEAD = 4;
export type Verdict =
  typeof CONT | typeof DROP | typeof DROPAFTERACK | typeof DROPWITHRESET | typeof DEAD;

/** Longest accepted round-trip time, ms. */
const RTT_MAX = 0x1000000;

/**
 * Updates the estimate with a round-trip time of `rtt` ms, at least 1: RFC 6298 (2), with gains of
 * 1/8 and 1/4.
 * @see sys/netinet/tcp_input.c
 */
export function tcp_xmit_timer(tp: Tcpcb, rtt: number): void {
  tp.t_tcp.stat.tcps_rttupdated++;
  tp.t_rttupdated++;
  tp.t_cc.rttsample(tp, rtt * 1000);
  // A round-trip time of hours means that a clock jumped. It would also overflow when shifted.
  rtt = Math.min(rtt, RTT_MAX);
  if (tp.t_srtt !== 0 && !tp.rttStale) {
    // Measured less expected round-trip time, in units of 1/4 ms.
    let delta = ((rtt - 1) << TCP_DELTA_SHIFT) - (tp.t_srtt >> (TCP_RTT_SHIFT - TCP_DELTA_SHIFT));
    tp.t_srtt = Math.max(tp.t_srtt + delta, 1);
    if (delta < 0) delta = -delta;
    delta -= tp.t_rttvar >> (TCP_RTTVAR_SHIFT - TCP_DELTA_SHIFT);
    tp.t_rttvar = Math.max(tp.t_rttvar + delta, 1);
  } else {
    tp.t_srtt = rtt << TCP_RTT_SHIFT;
    tp.t_rttvar = rtt << (TCP_RTTVAR_SHIFT - 1);
  }
  tp.rttStale = false;
  tp.t_rtttime = 0;
  tp.t_rxtshift = 0;
  setRxtcur(tp);
  tp.t_softerror = 0;
}

/**
 * Takes a round-trip sample from the segment's timestamp echo, or from the timed segment if it is
 * acknowledged.
 */
export function measureRtt(tp: Tcpcb, seg: TcpSegment): void {
  const now = tp.t_rcvtime; // just set
  if ((seg.to_flags & TOF_TS) !== 0 && seg.to_tsecr !== 0) {
    const rtt = (now + tp.ts_offset - seg.to_tsecr) | 0;
    // Ignore an echo that is in the future or older than RTT_MAX: we did not send it.
    if (rtt >= 0 && rtt < RTT_MAX) {
      tcp_xmit_timer(tp, rtt + 1);
      return;
    }
  }
  if (tp.t_rtttime !== 0 && SEQ_GT(seg.ack, tp.t_rtseq))
    tcp_xmit_timer(tp, Math.max((now - tp.t_rtttime) | 0, 0) + 1);
}

/**
 * Restarts the retransmission timer, or stops it if all data is acknowledged: RFC 6298 (5.2),
 * (5.3).
 */
export function rearmRexmt(tp: Tcpcb, ack: TcpSeq): void {
  if (ack === tp.snd_max) tcp_timer_activate(tp, TT_REXMT, 0);
  else if (!tcp_timer_active(tp, TT_PERSIST)) tcp_timer_activate(tp, TT_REXMT, tp.t_rxtcur);
}

/** Processes the ACK of our SYN in SYN_RECEIVED: RFC 9293, 3.10.7.4, fifth step. */
function ackOfSyn(tp: Tcpcb, seg: TcpSegment): void {
  const so = tp.t_inpcb.inp_socket!;
  tp.t_tcp.stat.tcps_connects++;
  soisconnected(so);
  if ((tp.t_flags & (TF_RCVD_SCALE | TF_REQ_SCALE)) === (TF_RCVD_SCALE | TF_REQ_SCALE)) {
    tp.rcv_scale = tp.request_r_scale;
  }
  tp.snd_wnd = seg.wnd;
  tp.t_starttime = tcpTicks();
  if ((tp.t_flags & TF_NEEDFIN) !== 0) {
    tp.t_flags &= ~TF_NEEDFIN;
    tcp_state_change(tp, TCPS_FIN_WAIT_1);
  } else {
    tcp_state_change(tp, TCPS_ESTABLISHED);
  }
  // Fast Open began with the SYN; keep what losses changed since.
  if ((tp.t_flags & TF_FASTOPEN) === 0) cc_conn_init(tp);
  tfoSettled(tp);
  tcp_timer_activate(tp, TT_KEEP, TP_KEEPIDLE(tp));
  synAcked(tp, seg);
  // Lets the window update below accept the window of this segment.
  tp.snd_wl1 = seqAdd(seg.seq, -1);
}

/** Drops the data that a Fast Open SYN carried and the SYN-ACK acknowledged; the rest goes again. */
export function synDataAcked(tp: Tcpcb, seg: TcpSegment): void {
  const acked = seqDiff(seg.ack, tp.snd_una);
  if (acked > 0) {
    tp.t_tcp.stat.tcps_rcvackpack++;
    tp.t_tcp.stat.tcps_rcvackbyte += acked;
    sbdrop(tp.t_inpcb.inp_socket!.so_snd, acked);
    tp.snd_una = seg.ack;
    wakeWriter(tp.t_inpcb.inp_socket!);
  }
  tp.snd_nxt = seg.ack;
  rearmRexmt(tp, seg.ack);
}

/** Advances snd_una past our SYN, which is acknowledged. The SYN is not in the send buffer. */
export function synAcked(tp: Tcpcb, seg: TcpSegment): void {
  // A retransmitted SYN is not timed (Karn's algorithm); a timestamp echo is still used.
  measureRtt(tp, seg);
  tp.t_rxtshift = 0;
  tp.t_acktime = tp.t_rcvtime;
  tp.t_tcp.nudHint?.(tp.t_inpcb.inp_inc);
  tp.snd_una = seqAdd(tp.iss, 1);
  if (SEQ_LT(tp.snd_nxt, tp.snd_una)) tp.snd_nxt = tp.snd_una;
  rearmRexmt(tp, tp.snd_una);
}

/**
 * Wakes writers when the free space in the send buffer reaches sb_lowat. With kqueue notes, which
 * may have their own low-water marks, wakes them on every call.
 */
export function wakeWriter(so: Socket): void {
  const sb = so.so_snd;
  if (sbspace(sb) >= sb.sb_lowat || sb.sb_notes.length > 0) sowwakeup(so);
}

/**
 * Drops `acked` bytes from the send buffer and reduces snd_wnd. Returns whether our FIN is
 * acknowledged.
 */
function dropAcked(tp: Tcpcb, acked: number): boolean {
  const so = tp.t_inpcb.inp_socket!;
  const avail = sbavail(so.so_snd);
  const finAcked = acked > avail;
  const bytes = finAcked ? avail : acked;
  tp.snd_wnd = Math.max(tp.snd_wnd - bytes, 0);
  sbdrop(so.so_snd, bytes);
  return finAcked;
}

/** The state transitions after close that the ACK of our FIN (`finAcked`) causes. */
function afterAck(tp: Tcpcb, finAcked: boolean): Verdict {
  const so = tp.t_inpcb.inp_socket!;
  switch (tp.t_state) {
    case TCPS_FIN_WAIT_1:
      if (!finAcked) return CONT;
      // The program can read no more data, so limit the time that the peer has to send its FIN.
      if ((so.so_rcv.sb_state & SBS_CANTRCVMORE) !== 0) {
        soisdisconnected(so);
        tcp_timer_activate(tp, TT_2MSL, finwait2Ms(tp));
      }
      tcp_state_change(tp, TCPS_FIN_WAIT_2);
      return CONT;
    case TCPS_CLOSING:
      if (!finAcked) return CONT;
      tcp_twstart(tp);
      return DEAD;
    case TCPS_LAST_ACK:
      if (!finAcked) return CONT;
      tcp_close(tp);
      return DEAD;
    case TCPS_ESTABLISHED:
    case TCPS_CLOSE_WAIT:
    case TCPS_FIN_WAIT_2:
      return CONT;
    case TCPS_CLOSED:
    case TCPS_LISTEN:
    case TCPS_SYN_SENT:
    case TCPS_SYN_RECEIVED:
    case TCPS_TIME_WAIT:
      KASSERT(false, 'afterAck: a state without data');
      return DEAD;
  }
}

/**
 * Whether the first time-out of some data was spurious, because this ACK answers the original
 * transmission. With timestamps, the echo is older than the retransmission. Without timestamps, the
 * ACK arrived too early to answer the retransmission.
 */
function spurious(tp: Tcpcb, seg: TcpSegment): boolean {
  if (tp.t_rxtshift !== 1 || (tp.t_flags & TF_PREVVALID) === 0 || tp.t_badrxtwin === 0)
    return false;
  if ((seg.to_flags & TOF_TS) === 0) return TSTMP_LT(tp.t_rcvtime, tp.t_badrxtwin);
  return seg.to_tsecr !== 0 && TSTMP_LT(seg.to_tsecr - tp.ts_offset, tp.t_badrxtwin);
}

/** Processes an ACK of new data: RFC 9293, 3.10.7.4, fifth step, and RFC 5681. */
function processAck(tp: Tcpcb, seg: TcpSegment): Verdict {
  const { stat } = tp.t_tcp;
  const acked = seqDiff(seg.ack, tp.snd_una);
  if (spurious(tp, seg)) cc_cong_signal(tp, CC_RTO_ERR, seg.ack);
  stat.tcps_rcvackpack++;
  stat.tcps_rcvackbyte += acked;
  measureRtt(tp, seg);
  // RFC 1122, 4.2.3.5: only time-outs without progress count towards giving up, so reset
  // t_rxtshift. t_rxtcur keeps its back-off until a round trip is measured (RFC 6298, 5). Unlike
  // FreeBSD, which uses one counter for both: there, loss on a path without timestamps may end a
  // connection that makes progress.
  tp.t_rxtshift = 0;
  rearmRexmt(tp, seg.ack);
  if ((tp.t_flags & (TF_FASTRECOVERY | TF_CONGRECOVERY)) === 0)
    cc_ack_received(tp, acked, seg.nsegs);
  const finAcked = dropAcked(tp, acked);
  if ((tp.t_flags & TF_FASTRECOVERY) === 0 && SEQ_GT(seg.ack, tp.snd_recover))
    tp.snd_recover = seqAdd(seg.ack, -1);
  tp.snd_una = seg.ack;
  tp.t_acktime = tp.t_rcvtime;
  if (SEQ_LT(tp.snd_nxt, tp.snd_una)) tp.snd_nxt = tp.snd_una;
  wakeWriter(tp.t_inpcb.inp_socket!);
  return afterAck(tp, finAcked);
}

/** The fifth step: the ACK field. RFC 9293, 3.10.7.4. */
export function stepAck(tp: Tcpcb, seg: TcpSegment): Verdict {
  if ((seg.flags & TH_ACK) === 0) {
    if (tp.t_state === TCPS_SYN_RECEIVED) {
      // Queue text and FIN, as in FreeBSD: the ACK of our SYN releases them.
      if ((tp.t_flags & TF_FASTOPEN) === 0) return CONT;
      // The SYN with a valid cookie: data may be sent with the SYN-ACK.
      tp.snd_wnd = seg.wnd;
      tp.max_sndwnd = seg.wnd;
      cc_conn_init(tp);
      return CONT;
    }
    countSegment(seg, R_TCP_NOACK);
    return DROP;
  }
  if (tp.t_state === TCPS_SYN_RECEIVED) {
    ackOfSyn(tp, seg);
    if (seg.ack === tp.snd_una) return CONT;
  }
  // RFC 5961, 5.2: reject an ACK that is older than the largest window the peer has advertised.
  const old = !tp.t_tcp.params.insecure_ack && SEQ_LT(seg.ack, seqAdd(tp.snd_una, -tp.max_sndwnd));
  if (old || SEQ_GT(seg.ack, tp.snd_max)) {
    if (SEQ_GT(seg.ack, tp.snd_max)) tp.t_tcp.stat.tcps_rcvacktoomuch++;
    countSegment(seg, R_TCP_BADACK);
    return DROPAFTERACK;
  }
  const sack = (tp.t_flags & TF_SACK_PERMIT) !== 0 && SEQ_GEQ(seg.ack, tp.snd_una);
  const news = sack && tcp_sack_doack(tp, seg, seg.ack);
  if (SEQ_LEQ(seg.ack, tp.snd_una)) return duplicateAck(tp, seg, news) ? DROP : CONT;
  recoveryAck(tp, seg.ack);
  tp.t_dupacks = 0;
  const verdict = processAck(tp, seg);
  if (verdict === CONT && news) lossAfterAck(tp);
  return verdict;
}
