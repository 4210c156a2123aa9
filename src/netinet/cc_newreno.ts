/**
 * NewReno with byte counting, after sys/netinet/cc/cc_newreno.c: RFC 5681 (slow start, congestion
 * avoidance, restart after idle), 3465 (appropriate byte counting), 6582 (end of recovery). Slow
 * start and restart are shared with CUBIC. Left out: HyStart++, which FreeBSD's NewReno uses only
 * if a program enables it.
 */

import type { TcpSeq } from '../sys/types.ts';
import { CC_ECN, CC_RTO, CC_RTO_ERR, cwndMax, flightAfter, tcp_compute_initwnd } from './cc.ts';
import type { CcAlgo } from './cc_var.ts';
import { tcp_maxseg, type Tcpcb } from './tcp_var.ts';

/**
 * Slow start (RFC 5681, 3.1) with byte counting (RFC 3465): grows the window by the counted bytes
 * divided by `div` (RFC 9406). The limit holds for each of `nsegs` coalesced ACKs. Returns false, with the window unchanged, if the connection is not
 * in slow start.
 */
export function slowStart(tp: Tcpcb, acked: number, nsegs: number, div = 1): boolean {
  if (tp.snd_cwnd > tp.snd_ssthresh) return false;
  const maxseg = tcp_maxseg(tp);
  const p = tp.t_tcp.params;
  let incr = maxseg;
  tp.t_bytes_acked = 0;
  // While data is sent again after a time-out, one ACK may cover much data: the limit L is then 1.
  if (p.rfc3465) {
    const limit = tp.snd_nxt === tp.snd_max ? nsegs * p.abc_l_var : 1;
    incr = Math.min(acked, limit * maxseg);
  }
  tp.snd_cwnd = Math.min(tp.snd_cwnd + Math.floor(incr / div), cwndMax(tp));
  return true;
}

/**
 * The new ssthresh by RFC 5681, equation 4: `percent` of the data in flight (50 by default), at
 * least two segments.
 */
function partOfFlight(tp: Tcpcb, percent: number): number {
  const maxseg = tcp_maxseg(tp);
  const flight = Math.min(tp.snd_wnd, tp.snd_cwnd);
  return Math.max(Math.floor((flight * percent) / 100 / maxseg), 2) * maxseg;
}

/**
 * Limits the window after recovery to the data in flight plus one segment, to avoid a burst. RFC
 * 6582, 3.2 (3).
 */
export function deflate(tp: Tcpcb, ack: TcpSeq): void {
  const maxseg = tcp_maxseg(tp);
  const pipe = flightAfter(tp, ack);
  tp.snd_cwnd = Math.min(tp.snd_ssthresh, Math.max(pipe, maxseg) + maxseg);
}

/** Sets the window after an idle period: RFC 5681, 4.1. */
export function restart(tp: Tcpcb): void {
  tp.snd_ssthresh = Math.max(tp.snd_ssthresh, Math.floor((tp.snd_cwnd * 3) / 4));
  tp.snd_cwnd = Math.min(tp.snd_cwnd, tcp_compute_initwnd(tp, tcp_maxseg(tp)));
}

/** @see cc_newreno(4) */
export const newreno_cc_algo: CcAlgo = {
  name: 'newreno',

  conn_init(): void {},

  app_limited(): void {},
  rttsample(): void {},

  ack_received(tp: Tcpcb, acked: number, nsegs: number): void {
    if (slowStart(tp, acked, nsegs)) return;
    const maxseg = tcp_maxseg(tp);
    let incr = maxseg;
    if (tp.t_tcp.params.rfc3465) {
      tp.t_bytes_acked += acked;
      if (tp.t_bytes_acked < tp.snd_cwnd) return;
      tp.t_bytes_acked -= tp.snd_cwnd;
    } else {
      incr = Math.max(Math.floor((maxseg * maxseg) / tp.snd_cwnd), 1);
    }
    tp.snd_cwnd = Math.min(tp.snd_cwnd + incr, cwndMax(tp));
  },

  cong_signal(tp: Tcpcb, type: number): void {
    const p = tp.t_tcp.params;
    switch (type) {
      case CC_RTO:
        // Once per loss: further time-outs of the same data do not change ssthresh (RFC 5681, 3.1).
        if (tp.t_rxtshift === 1) tp.snd_ssthresh = partOfFlight(tp, p.newreno_beta);
        tp.snd_cwnd = tcp_maxseg(tp);
        return;
      case CC_RTO_ERR:
        return;
      default:
        // RFC 8511: an ECN mark arrives before the queue is full, so reduce the window less than
        // for a loss.
        tp.snd_ssthresh = partOfFlight(
          tp,
          type === CC_ECN && p.abe ? p.newreno_beta_ecn : p.newreno_beta,
        );
        tp.snd_cwnd = tp.snd_ssthresh;
    }
  },

  loss_after_mark(tp: Tcpcb): void {
    const p = tp.t_tcp.params;
    if (!p.abe || !p.abe_frlossreduce) return;
    // Reduce further, to the value that the loss alone would have given.
    tp.snd_ssthresh = partOfFlight(tp, (100 * p.newreno_beta) / p.newreno_beta_ecn);
    tp.snd_cwnd = tp.snd_ssthresh;
  },

  post_recovery: deflate,
  after_idle: restart,
};
