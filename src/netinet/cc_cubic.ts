/**
 * CUBIC, after sys/netinet/cc/cc_cubic.c by RFC 9438: in congestion avoidance the window follows a
 * cubic function of the time since it was last reduced. It is never smaller than Reno's window. The
 * first slow start uses HyStart++ (RFC 9406).
 */

import { nowNs } from '../kern/kern_timeout.ts';
import { CC_RTO, CC_RTO_ERR, cwndMax } from './cc.ts';
import { deflate, restart, slowStart } from './cc_newreno.ts';
import { TCP_MAXWIN } from './tcp.ts';
import { seqAdd } from './tcp_seq.ts';
import type { CcAlgo } from './cc_var.ts';
import { HYSTART_NO_SAMPLE, tcp_maxseg, TCP_RTT_SHIFT, type Tcpcb } from './tcp_var.ts';

/**
 * RFC 9438, 4.6 and 5: the reduction factor of the window, and the constant of the cubic function.
 */
export const CUBIC_BETA = 0.7;
const CUBIC_C = 0.4;
/** RFC 9438, 4.3: the additive increase with which Reno matches a reduction factor of 0.7. */
const ALPHA = (3 * (1 - CUBIC_BETA)) / (1 + CUBIC_BETA);

/** RFC 9438, 4.2. Multiplication gives the same result on every machine; Math.pow may not. */
const cubic = (t: number): number => CUBIC_C * (t * t * t);

/** Begins an epoch of congestion avoidance at the current window: RFC 9438, 4.2. */
function epochStart(tp: Tcpcb, maxseg: number): void {
  const v = tp.t_ccv;
  v.epochNs = nowNs();
  const cwnd = tp.snd_cwnd / maxseg;
  v.wEst = cwnd;
  if (v.wMax <= cwnd) {
    // No loss occurred at a larger window: the plateau is at the current window.
    v.wMax = cwnd;
    v.k = 0;
  } else {
    v.k = Math.cbrt((v.wMax - cwnd) / CUBIC_C);
  }
}

/** Records the window at a reduction (in segments) and sets ssthresh: RFC 9438, 4.6 and 4.7. */
function reduce(tp: Tcpcb): void {
  const v = tp.t_ccv;
  const maxseg = tcp_maxseg(tp);
  const cwnd = tp.snd_cwnd / maxseg;
  // Fast convergence: if the window did not reach its last maximum, leave bandwidth to other flows.
  v.wMax = cwnd < v.wMax ? (cwnd * (1 + CUBIC_BETA)) / 2 : cwnd;
  v.cwndPrior = cwnd;
  v.epochNs = -1;
  const flight = Math.min(tp.snd_wnd, tp.snd_cwnd);
  tp.snd_ssthresh = Math.max(Math.floor(Math.round(flight * CUBIC_BETA) / maxseg), 2) * maxseg;
}

/**
 * Grows the window if the connection is in slow start; returns whether it is. HyStart++ may end
 * slow start early.
 */
function inSlowStart(tp: Tcpcb, acked: number, nsegs: number): boolean {
  const { hystart } = tp.t_ccv;
  if (hystart === null) return slowStart(tp, acked, nsegs);
  if (hystart.acked(tp, seqAdd(tp.snd_una, acked))) {
    tp.snd_ssthresh = tp.snd_cwnd;
    return false;
  }
  const div = hystart.conservative ? tp.t_tcp.params.hystart_css_growth_div : 1;
  return slowStart(tp, acked, nsegs, div);
}

/** @see cc_cubic(4) */
export const cubic_cc_algo: CcAlgo = {
  name: 'cubic',

  conn_init(tp: Tcpcb): void {
    // RFC 9406, 4.3: use HyStart++ only if ssthresh still has its initial value.
    tp.ccReset(tp.snd_ssthresh >= TCP_MAXWIN << 14);
  },

  rttsample(tp: Tcpcb, us: number): void {
    // The handshake has one sample. A connection without data needs no more state.
    if (tp.ccv === null && tp.hystartUs === HYSTART_NO_SAMPLE) tp.hystartUs = us;
    else tp.t_ccv.hystart?.sample(us);
  },

  app_limited(tp: Tcpcb): void {
    // RFC 9438, 4.2: time in which the window did not limit sending does not count.
    if (tp.ccv !== null) tp.ccv.epochNs = -1;
  },

  ack_received(tp: Tcpcb, acked: number, nsegs: number): void {
    const v = tp.t_ccv;
    if (inSlowStart(tp, acked, nsegs)) return;
    v.hystart = null;
    const maxseg = tcp_maxseg(tp);
    if (v.epochNs < 0) epochStart(tp, maxseg);
    const cwnd = tp.snd_cwnd / maxseg;
    const segs = acked / maxseg;
    // Estimate of Reno's window: RFC 9438, 4.3.
    v.wEst += ((v.wEst < v.cwndPrior ? ALPHA : 1) * segs) / cwnd;
    const t = (nowNs() - v.epochNs) / 1e9;
    const rtt = (tp.t_srtt >> TCP_RTT_SHIFT) / 1e3;
    const now = cubic(t - v.k) + v.wMax;
    let next: number;
    if (now < v.wEst) {
      next = Math.max(v.wEst, cwnd);
    } else {
      // RFC 9438, 4.4 and 4.5: grow towards the value of the cubic one round trip later, at most
      // 1.5 times the window.
      const ahead = cubic(t + rtt - v.k) + v.wMax;
      const target = Math.min(Math.max(ahead, cwnd), 1.5 * cwnd);
      next = cwnd + ((target - cwnd) / cwnd) * segs;
    }
    tp.snd_cwnd = Math.min(Math.floor(next * maxseg), cwndMax(tp));
  },

  cong_signal(tp: Tcpcb, type: number): void {
    const v = tp.t_ccv;
    v.hystart = null;
    switch (type) {
      case CC_RTO:
        // RFC 9438, 4.8. Reduce once per loss, as NewReno does.
        if (tp.t_rxtshift === 1) {
          v.save();
          reduce(tp);
        }
        v.epochNs = -1;
        tp.snd_cwnd = tcp_maxseg(tp);
        return;
      case CC_RTO_ERR:
        // RFC 9438, 4.9: restore the state from before the time-out.
        v.restore();
        return;
      default:
        reduce(tp);
        tp.snd_cwnd = tp.snd_ssthresh;
    }
  },

  loss_after_mark(): void {},

  post_recovery: deflate,

  after_idle(tp: Tcpcb): void {
    restart(tp);
    if (tp.hystartUs >= 0) tp.hystartUs = HYSTART_NO_SAMPLE;
    if (tp.ccv === null) return;
    tp.ccv.epochNs = -1;
    tp.ccv.hystart?.start();
  },
};
