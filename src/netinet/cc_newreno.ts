/**
 * NewReno with byte counting, after sys/netinet/cc/cc_newreno.c: RFC 5681 (slow start, congestion
 * avoidance, restart after idle), 3465 (appropriate byte counting), 6582 (end of recovery). Slow
 * start and restart are shared with CUBIC. Left out: HyStart++, which FreeBSD's has and does not use
 * unless a program asks for it.
 */

import type { TcpSeq } from '../sys/types.ts';
import { CC_ECN, CC_RTO, CC_RTO_ERR, cwndMax, flightAfter, tcp_compute_initwnd } from './cc.ts';
import { type CcAlgo, tcp_maxseg, type Tcpcb } from './tcp_var.ts';

/**
 * Slow start: RFC 5681, 3.1, by bytes (RFC 3465), of which the window grows by one in `div` (RFC 9406).
 * Returns whether it applied.
 */
export function slowStart(tp: Tcpcb, acked: number, div = 1): boolean {
  if (tp.snd_cwnd > tp.snd_ssthresh) return false;
  const maxseg = tcp_maxseg(tp);
  const p = tp.t_tcp.params;
  let incr = maxseg;
  tp.t_bytes_acked = 0;
  // After a time-out, while lost data is sent again, an ACK may cover much: then L is 1.
  if (p.rfc3465) {
    const limit = tp.snd_nxt === tp.snd_max ? p.abc_l_var : 1;
    incr = Math.min(acked, limit * maxseg);
  }
  tp.snd_cwnd = Math.min(tp.snd_cwnd + Math.floor(incr / div), cwndMax(tp));
  return true;
}

/**
 * Where RFC 5681, equation 4, puts the threshold: `percent` of what is under way, half by default, two
 * segments at least.
 */
function partOfFlight(tp: Tcpcb, percent: number): number {
  const maxseg = tcp_maxseg(tp);
  const flight = Math.min(tp.snd_wnd, tp.snd_cwnd);
  return Math.max(Math.floor((flight * percent) / 100 / maxseg), 2) * maxseg;
}

/** What is left under way limits the window after recovery: no burst. RFC 6582, 3.2 (3). */
export function deflate(tp: Tcpcb, ack: TcpSeq): void {
  const maxseg = tcp_maxseg(tp);
  const pipe = flightAfter(tp, ack);
  tp.snd_cwnd = Math.min(tp.snd_ssthresh, Math.max(pipe, maxseg) + maxseg);
}

/** The window after an idle time: RFC 5681, 4.1. */
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

  ack_received(tp: Tcpcb, acked: number): void {
    if (slowStart(tp, acked)) return;
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
        // Once per loss: a second time-out of the same data halves nothing (RFC 5681, 3.1).
        if (tp.t_rxtshift === 1) tp.snd_ssthresh = partOfFlight(tp, p.newreno_beta);
        tp.snd_cwnd = tcp_maxseg(tp);
        return;
      case CC_RTO_ERR:
        return;
      default:
        // RFC 8511: a mark comes before the queue is full, so less has to go.
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
    // As if the loss had come first.
    tp.snd_ssthresh = partOfFlight(tp, (100 * p.newreno_beta) / p.newreno_beta_ecn);
    tp.snd_cwnd = tp.snd_ssthresh;
  },

  post_recovery: deflate,
  after_idle: restart,
};
