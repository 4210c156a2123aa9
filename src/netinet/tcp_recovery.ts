/**
 * Loss detection and recovery before the retransmission timer expires: duplicate ACKs and fast
 * retransmit (RFC 5681, 3.2), limited transmit (RFC 3042), SACK recovery (RFC 6675) with
 * proportional rate reduction (RFC 6937), and recovery without SACK (RFC 6582). In FreeBSD this is
 * part of tcp_do_segment.
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
 * Whether the SACK scoreboard is used to process `seg`. If SACK was negotiated, but the segment has
 * no SACK blocks and the scoreboard is empty, process the segment as without SACK.
 */
const bySack = (tp: Tcpcb, seg: TcpSegment): boolean =>
  (tp.t_flags & TF_SACK_PERMIT) !== 0 && ((seg.to_flags & TOF_SACK) !== 0 || tp.snd_holes !== null);

/** Whether the current recovery is a SACK recovery. */
const recoversBySack = (tp: Tcpcb): boolean => tp.recover_fs > 0;

/**
 * Retransmits from `ack` on as much as a congestion window of `cwnd` bytes allows. Restores
 * snd_nxt; the caller sets snd_cwnd.
 */
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
 * Limited transmit, RFC 3042: each of the first two duplicate ACKs allows one new segment, however
 * many blocks it SACKs. The second may send two if the first could send none.
 */
function limitedTransmit(tp: Tcpcb): void {
  const onxt = tp.snd_nxt;
  const ocwnd = tp.snd_cwnd;
  const maxseg = tcp_maxseg(tp);
  const flight = seqDiff(tp.snd_nxt, tp.snd_una);
  if (tp.t_dupacks === 1) tp.snd_limited = 0;
  if (tp.snd_nxt !== tp.snd_max || flight < 0) return;
  // RFC 3042, 2: at most two segments beyond the congestion window.
  if (flight >= ocwnd + (tcprexmtthresh - 1) * maxseg) return;
  const avail = sbavail(tp.t_inpcb.inp_socket!.so_snd) - flight;
  const segs = tp.t_dupacks - tp.snd_limited;
  if (avail <= 0 || segs <= 0) return;
  tp.snd_cwnd = flight + segs * maxseg;
  tp.t_fb.tfb_tcp_output(tp);
  tp.snd_cwnd = ocwnd;
  const sent = seqDiff(tp.snd_nxt, onxt);
  if (sent <= 0) return;
  tp.snd_limited += sent > maxseg ? 2 : 1;
  tp.t_tcp.stat.tcps_limitedtransmit++;
}

/**
 * Proportional rate reduction, RFC 6937, 3.1: sets the congestion window so that the bytes sent are
 * in proportion to the bytes that have arrived (`delivered_data`). `ack` is the cumulative
 * acknowledgment.
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
    // Below ssthresh: send at most as many bytes as were delivered, and one segment more if there
    // was no further loss.
    let limit = tp.prr_delivered - tp.prr_out;
    if (!tp.sack_newloss && !tp.sack_again) limit = Math.max(limit, tp.delivered_data) + maxseg;
    sndcnt = Math.min(limit, tp.snd_ssthresh - pipe);
  }
  tp.snd_cwnd = Math.max(pipe, 0) + Math.max(sndcnt, 0);
}

/**
 * SACK recovery without PRR: while the pipe is below ssthresh, grows the window by a segment per
 * ACK, up to ssthresh.
 */
function plainSackAck(tp: Tcpcb, ack: TcpSeq): void {
  const maxseg = tcp_maxseg(tp);
  if (tcp_compute_pipe(tp, ack) < tp.snd_ssthresh)
    tp.snd_cwnd = Math.min(tp.snd_cwnd + maxseg, tp.snd_ssthresh);
}

/** Sets the congestion window for an ACK during SACK recovery. */
function sackRecoveryAck(tp: Tcpcb, ack: TcpSeq): void {
  if (tp.t_tcp.params.do_prr) tcp_do_prr_ack(tp, ack);
  else plainSackAck(tp, ack);
}

/**
 * Begins a SACK recovery with the data behind `ack`, with `flight` bytes in flight. Resets the PRR
 * counters. Sets rescueRxt to the end of the segment to send first (RFC 6675, 5, step 4.3).
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
 * A retransmission of this recovery was lost: reduces the window again (RFC 5681, 4.3). Recovery
 * then lasts until all data now in flight is acknowledged.
 */
function lostAgain(tp: Tcpcb, ack: TcpSeq): void {
  tp.t_flags &= ~(TF_FASTRECOVERY | TF_CONGRECOVERY);
  cc_cong_signal(tp, CC_NDUPACK, ack);
  startSackRecovery(tp, ack, tcp_compute_pipe(tp, ack));
}

/**
 * Enters recovery because the data behind `ack` is lost. Without SACK also retransmits it; with
 * SACK the caller calls output.
 */
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
    // RFC 5681, 3.2 (3): the segments that have left the network, less those of limited transmit.
    tp.snd_cwnd = tp.snd_ssthresh + (tp.t_dupacks - tp.snd_limited) * maxseg;
    return;
  }
  stat.tcps_sack_recovery_episode++;
  startSackRecovery(tp, ack, flight);
  tcp_timer_activate(tp, TT_REXMT, 0);
  tp.t_rtttime = 0;
  tp.sack_newloss = false;
  sackRecoveryAck(tp, ack);
  // RFC 6937, 3.1: always allow the retransmission of the first segment.
  tp.snd_cwnd = Math.max(tp.snd_cwnd, tcp_compute_pipe(tp, ack) + maxseg);
}

/**
 * Processes an ACK that acknowledges no new data: RFC 5681, 2 and 3.2. `news`: its SACK blocks
 * report new data. Returns true if the segment is a duplicate ACK without data and is fully
 * processed.
 */
export function duplicateAck(tp: Tcpcb, seg: TcpSegment, news: boolean): boolean {
  // RFC 6675, 2: an ACK with new SACK information is a duplicate even if it has data or another
  // window.
  const isDuplicate =
    (news || (seg.tlen === 0 && seg.wnd === tp.snd_wnd)) &&
    (seg.flags & TH_FIN) === 0 &&
    seg.ack === tp.snd_una &&
    tcp_timer_active(tp, TT_REXMT);
  if (!isDuplicate) {
    // An old ACK does not reset the count, nor do data or a window update that repeat the last ACK.
    const plain = seg.tlen === 0 && seg.wnd === tp.snd_wnd;
    if (seg.ack === tp.snd_una && plain) tp.t_dupacks = 0;
    return false;
  }
  const sack = bySack(tp, seg);
  // RFC 6675, 2: with SACK, an ACK without new SACK information is not a duplicate.
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
    // RFC 6582, 3.2 (1): do not enter recovery twice for the same window. A scoreboard with holes
    // shows a loss reliably, so skip this check then; but not after a time-out, when all data is
    // sent again anyway (RFC 6675, 5.1).
    const known = sack && tp.snd_holes !== null && tp.snd_nxt === tp.snd_max;
    // After an ECN reduction, snd_recover marks that window; none of it was retransmitted.
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
    limitedTransmit(tp);
    return seg.tlen === 0;
  }
  return false;
}

/** Processes a partial ACK in recovery: the data behind it is lost too. RFC 6582, 3.2 (5). */
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
  // Allow one segment behind `ack`. snd_una has not moved yet, so add the acknowledged bytes.
  resendFrom(tp, ack, maxseg + acked);
  tp.snd_cwnd = Math.max(ocwnd - acked, 0) + maxseg;
}

/** Processes an ACK of new data during recovery: ends recovery, or handles a partial ACK. */
export function recoveryAck(tp: Tcpcb, ack: TcpSeq): void {
  if ((tp.t_flags & (TF_FASTRECOVERY | TF_CONGRECOVERY)) === 0) return;
  if (!SEQ_LT(ack, tp.snd_recover)) cc_post_recovery(tp, ack);
  else if ((tp.t_flags & TF_FASTRECOVERY) !== 0) partialAck(tp, ack);
}

/**
 * After an ACK of new data: enters recovery if the scoreboard shows that the next byte is lost (RFC
 * 6675, 5).
 */
export function lossAfterAck(tp: Tcpcb): void {
  if ((tp.t_flags & TF_FASTRECOVERY) !== 0 || !sackLost(tp)) return;
  if (tp.snd_holes!.start !== tp.snd_una || tp.snd_nxt !== tp.snd_max) return;
  enterRecovery(tp, tp.snd_una, true);
}
