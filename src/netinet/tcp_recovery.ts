/**
 * Finding out that data was lost, and sending it again before the timer does: duplicate ACKs and fast
 * retransmit (RFC 5681, 3.2), limited transmit (3042), recovery by SACK (6675) paced by proportional
 * rate reduction (6937), recovery without SACK (6582). Part of tcp_do_segment in FreeBSD.
 */

import { count, R_TCP_FASTREXMT } from '../sys/reason.ts';
import type { TcpSeq } from '../sys/types.ts';
import { sbavail } from '../kern/uipc_sockbuf.ts';
import { CC_NDUPACK, cc_cong_signal, cc_post_recovery } from './cc.ts';
import { TH_FIN } from './tcp.ts';
import { sackLost, tcp_compute_pipe } from './tcp_sack.ts';
import { SEQ_GT, SEQ_LEQ, SEQ_LT, seqAdd, seqDiff } from './tcp_seq.ts';
import { tcp_timer_activate, tcp_timer_active } from './tcp_timer.ts';
import {
  tcp_maxseg,
  type Tcpcb,
  tcprexmtthresh,
  type TcpSegment,
  TF_CONGRECOVERY,
  TF_FASTRECOVERY,
  TF_SACK_PERMIT,
  TOF_SACK,
  TT_REXMT,
} from './tcp_var.ts';

/**
 * Whether `seg`'s connection goes by its scoreboard. A peer that agreed to SACK and reports nothing
 * while nothing is missing is heard as one without.
 */
const bySack = (tp: Tcpcb, seg: TcpSegment): boolean =>
  (tp.t_flags & TF_SACK_PERMIT) !== 0 && ((seg.to_flags & TOF_SACK) !== 0 || tp.snd_holes !== null);

/** Whether the recovery under way began by the scoreboard. */
const recoversBySack = (tp: Tcpcb): boolean => tp.recover_fs > 0;

/** Sends one segment from `ack` on with a window of `cwnd`, whatever else was under way. */
function resendFrom(tp: Tcpcb, ack: TcpSeq, cwnd: number): void {
  const onxt = tp.snd_nxt;
  tcp_timer_activate(tp, TT_REXMT, 0);
  tp.t_rtttime = 0;
  tp.snd_nxt = ack;
  tp.snd_cwnd = cwnd;
  tp.t_fb.tfb_tcp_output(tp);
  if (SEQ_GT(onxt, tp.snd_nxt)) tp.snd_nxt = onxt;
}

/**
 * Limited transmit, RFC 3042: the first two duplicate ACKs let a new segment out each. With a scoreboard
 * as many as the ACK says to have left the network: RFC 6675, 5 (3).
 */
function limitedTransmit(tp: Tcpcb, sack: boolean): void {
  const onxt = tp.snd_nxt;
  const ocwnd = tp.snd_cwnd;
  const maxseg = tcp_maxseg(tp);
  const flight = seqDiff(tp.snd_nxt, tp.snd_una);
  if (tp.snd_nxt !== tp.snd_max || flight < 0) return;
  // The window may have shrunk since; no more than two segments go beyond it.
  if (flight >= ocwnd + (tcprexmtthresh - 1) * maxseg) return;
  const avail = sbavail(tp.t_inpcb.inp_socket!.so_snd) - flight;
  if (avail <= 0) return;
  const segs = sack ? Math.floor((ocwnd - tcp_compute_pipe(tp)) / maxseg) : 1;
  if (segs <= 0) return;
  tp.snd_cwnd = flight + segs * maxseg;
  tp.t_fb.tfb_tcp_output(tp);
  tp.snd_cwnd = ocwnd;
  if (tp.snd_nxt !== onxt) tp.t_tcp.stat.tcps_limitedtransmit++;
}

/**
 * Proportional rate reduction: sets the window so that for what arrived (`delivered_data`) the right
 * share leaves. `ack` is what is acknowledged. RFC 6937, 3.1.
 * @see sys/netinet/tcp_input.c
 */
function tcp_do_prr_ack(tp: Tcpcb, ack: TcpSeq): void {
  const maxseg = tcp_maxseg(tp);
  const pipe = tcp_compute_pipe(tp, ack);
  tp.prr_delivered += tp.delivered_data;
  let sndcnt: number;
  if (pipe > tp.snd_ssthresh) {
    sndcnt = Math.ceil((tp.prr_delivered * tp.snd_ssthresh) / tp.recover_fs) - tp.prr_out;
  } else {
    // Below the target: what arrived may be made up for, and a segment more while nothing gets worse.
    let limit = tp.prr_delivered - tp.prr_out;
    if (!tp.sack_newloss && !tp.sack_again) limit = Math.max(limit, tp.delivered_data) + maxseg;
    sndcnt = Math.min(limit, tp.snd_ssthresh - pipe);
  }
  tp.snd_cwnd = Math.max(pipe, 0) + Math.max(sndcnt, 0);
}

/** The window while recovering without PRR: grows by a segment per ACK up to the threshold. */
function plainSackAck(tp: Tcpcb, ack: TcpSeq): void {
  const maxseg = tcp_maxseg(tp);
  if (tcp_compute_pipe(tp, ack) < tp.snd_ssthresh)
    tp.snd_cwnd = Math.min(tp.snd_cwnd + maxseg, tp.snd_ssthresh);
}

/** An ACK came in recovery by SACK: how much may leave for it. */
function sackRecoveryAck(tp: Tcpcb, ack: TcpSeq): void {
  if (tp.t_tcp.params.do_prr) tcp_do_prr_ack(tp, ack);
  else plainSackAck(tp, ack);
}

/**
 * A recovery by the scoreboard begins with what follows `ack`: starts to count what arrives and leaves,
 * with `flight` bytes under way, and notes which segment goes first (RFC 6675, 5, step 4.3).
 */
function startSackRecovery(tp: Tcpcb, ack: TcpSeq, flight: number): void {
  const maxseg = tcp_maxseg(tp);
  tp.recover_fs = Math.max(flight, maxseg);
  tp.prr_delivered = 0;
  tp.prr_out = 0;
  tp.rescueRxt = seqAdd(ack, maxseg);
  if (tp.snd_holes !== null && SEQ_LT(tp.snd_holes.end, tp.rescueRxt))
    tp.rescueRxt = tp.snd_holes.end;
}

/**
 * A retransmission of this recovery was lost: the window is lowered a second time (RFC 5681, 4.3),
 * and recovery lasts until what is under way now is acknowledged.
 */
function lostAgain(tp: Tcpcb, ack: TcpSeq): void {
  tp.t_flags &= ~(TF_FASTRECOVERY | TF_CONGRECOVERY);
  cc_cong_signal(tp, CC_NDUPACK, ack);
  startSackRecovery(tp, ack, tcp_compute_pipe(tp, ack));
}

/** Enters recovery with the loss of what follows `ack`, and sends it again. */
function enterRecovery(tp: Tcpcb, ack: TcpSeq, sack: boolean): void {
  const maxseg = tcp_maxseg(tp);
  const { stat } = tp.t_tcp;
  count(R_TCP_FASTREXMT);
  stat.tcps_sndrexmitfast++;
  const flight = seqDiff(tp.snd_max, ack);
  cc_cong_signal(tp, CC_NDUPACK, ack);
  if (!sack) {
    tp.recover_fs = 0;
    resendFrom(tp, ack, maxseg);
    tp.snd_cwnd = tp.snd_ssthresh + tcprexmtthresh * maxseg;
    return;
  }
  stat.tcps_sack_recovery_episode++;
  startSackRecovery(tp, ack, flight);
  tcp_timer_activate(tp, TT_REXMT, 0);
  tp.t_rtttime = 0;
  tp.sack_newloss = false;
  sackRecoveryAck(tp, ack);
  // RFC 6937, 3.1: the first segment always goes again.
  tp.snd_cwnd = Math.max(tp.snd_cwnd, tcp_compute_pipe(tp, ack) + maxseg);
}

/**
 * An ACK that acknowledges nothing new: RFC 5681, 2 and 3.2. `news`: it says of more that arrived.
 * Returns whether it was a duplicate that is dealt with: nothing else is in it.
 */
export function duplicateAck(tp: Tcpcb, seg: TcpSegment, news: boolean): boolean {
  // RFC 6675, 2: what brings news counts even with data or another window.
  const isDuplicate =
    (news || (seg.tlen === 0 && seg.wnd === tp.snd_wnd)) &&
    (seg.flags & TH_FIN) === 0 &&
    seg.ack === tp.snd_una &&
    tcp_timer_active(tp, TT_REXMT);
  if (!isDuplicate) {
    // Data or a window update that repeats the last ACK says nothing about loss.
    if (seg.ack !== tp.snd_una || (seg.tlen === 0 && seg.wnd === tp.snd_wnd)) tp.t_dupacks = 0;
    return false;
  }
  const sack = bySack(tp, seg);
  // With SACK an ACK that says nothing new is no sign of anything: RFC 6675, 2.
  if (sack && !news) return false;
  const { stat, params } = tp.t_tcp;
  stat.tcps_rcvdupack++;
  tp.t_dupacks++;
  if ((tp.t_flags & TF_FASTRECOVERY) !== 0) {
    // Another segment has left the network: RFC 5681, 3.2 (4).
    if (recoversBySack(tp)) {
      if (tp.sack_again) lostAgain(tp, seg.ack);
      sackRecoveryAck(tp, seg.ack);
    } else {
      tp.snd_cwnd += tcp_maxseg(tp);
    }
    tp.t_fb.tfb_tcp_output(tp);
    return seg.tlen === 0;
  }
  const lost = tp.t_dupacks === tcprexmtthresh || (sack && sackLost(tp));
  if (lost) {
    // RFC 6582, 3.2 (1): not again for a window that was dealt with. A scoreboard knows better.
    // After a time-out everything goes again anyway: RFC 6675, 5.1.
    const known = sack && tp.snd_holes !== null && tp.snd_nxt === tp.snd_max;
    // ECN keeps its own window in snd_recover, for which nothing was sent again.
    const ecn = (tp.t_flags & TF_CONGRECOVERY) !== 0;
    if (!known && !ecn && SEQ_LEQ(seg.ack, tp.snd_recover)) {
      tp.t_dupacks = 0;
      return false;
    }
    enterRecovery(tp, seg.ack, sack);
    if (sack) tp.t_fb.tfb_tcp_output(tp);
    return seg.tlen === 0;
  }
  if (tp.t_dupacks < tcprexmtthresh && params.rfc3042) {
    limitedTransmit(tp, sack);
    return seg.tlen === 0;
  }
  return false;
}

/** In recovery, an ACK of some but not all of it: the next hole is lost too. RFC 6582, 3.2 (5). */
function partialAck(tp: Tcpcb, ack: TcpSeq): void {
  if (recoversBySack(tp)) {
    tp.t_rtttime = 0;
    if (tp.sack_again) lostAgain(tp, ack);
    sackRecoveryAck(tp, ack);
    return;
  }
  const ocwnd = tp.snd_cwnd;
  const acked = seqDiff(ack, tp.snd_una);
  const maxseg = tcp_maxseg(tp);
  // Room for one segment behind what this ACK acknowledges, which still counts as sent.
  resendFrom(tp, ack, maxseg + acked);
  tp.snd_cwnd = Math.max(ocwnd - acked, 0) + maxseg;
}

/** An ACK of new data: what it means for a recovery under way, or for one to begin. */
export function recoveryAck(tp: Tcpcb, ack: TcpSeq): void {
  if ((tp.t_flags & (TF_FASTRECOVERY | TF_CONGRECOVERY)) === 0) return;
  if (!SEQ_LT(ack, tp.snd_recover)) cc_post_recovery(tp, ack);
  else if ((tp.t_flags & TF_FASTRECOVERY) !== 0) partialAck(tp, ack);
}

/** After an ACK of new data: whether the scoreboard says that the next byte is lost (RFC 6675, 5). */
export function lossAfterAck(tp: Tcpcb): void {
  if ((tp.t_flags & TF_FASTRECOVERY) !== 0 || !sackLost(tp)) return;
  if (tp.snd_holes!.start !== tp.snd_una || tp.snd_nxt !== tp.snd_max) return;
  enterRecovery(tp, tp.snd_una, true);
}
