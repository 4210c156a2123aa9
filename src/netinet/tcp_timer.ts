/**
 * The timers of a connection, after sys/netinet/tcp_timer.c: five deadlines share one callout.
 * Setting a timer moves the callout only to an earlier time. If it expires before any deadline, it
 * is set to the next one. The actions on expiry are in tcp_timeout.ts.
 */

import { nowNs } from '../kern/kern_timeout.ts';
import { callout_pending, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import {
  TCP_DELTA_SHIFT,
  TCP_RTT_SHIFT,
  type Tcpcb,
  TCPTV_REXMTMAX,
  TF_PREVVALID,
  TT_N,
  TT_PERSIST,
} from './tcp_var.ts';

/** Back-off factors, indexed by the number of retransmissions: RFC 6298 (5.5). */
export const tcp_backoff: readonly number[] = [
  1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512, 512,
];
export const TCP_MAXRXTSHIFT = 12;
/** After more retransmissions than this, the next measurement starts the estimate anew: RFC 6298, 5. */
export const TCP_RTT_INVALIDATE = TCP_MAXRXTSHIFT / 4;

/** Sets the timer `which` to expire in `delayMs` ms; 0 stops it. @see sys/netinet/tcp_timer.c */
export function tcp_timer_activate(tp: Tcpcb, which: number, delayMs: number): void {
  if (delayMs === 0) {
    tp.t_timers[which] = Infinity;
    return;
  }
  const delayNs = delayMs * 1e6;
  const due = nowNs() + delayNs;
  tp.t_timers[which] = due;
  const c = tp.t_callout;
  if (!callout_pending(c) || due < c.c_time) callout_reset(c, delayNs);
}

/** Whether the timer `which` is running. @see sys/netinet/tcp_timer.c */
export function tcp_timer_active(tp: Tcpcb, which: number): boolean {
  return tp.t_timers[which]! !== Infinity;
}

/** Stops all timers and the callout. @see sys/netinet/tcp_timer.c */
export function tcp_cancel_timers(tp: Tcpcb): void {
  tp.t_timers.fill(Infinity);
  callout_stop(tp.t_callout);
}

/** Sets the callout to the next deadline, or stops it if no timer is running. */
export function tcpTimerRearm(tp: Tcpcb): void {
  let due = Infinity;
  for (let i = 0; i < TT_N; i++) due = Math.min(due, tp.t_timers[i]!);
  if (due === Infinity) callout_stop(tp.t_callout);
  else callout_reset(tp.t_callout, Math.max(due - nowNs(), 0));
}

/**
 * The retransmission time-out in ms without back-off: srtt + 4 * rttvar, RFC 6298 (2.3).
 * @see sys/netinet/tcp_timer.h
 */
export function TCP_REXMTVAL(tp: Tcpcb): number {
  const rto = ((tp.t_srtt >> (TCP_RTT_SHIFT - TCP_DELTA_SHIFT)) + tp.t_rttvar) >> TCP_DELTA_SHIFT;
  return Math.max(tp.t_rttmin, rto);
}

/** Adds net.inet.tcp.rexmit_slop and limits the sum to [min, max]. @see sys/netinet/tcp_timer.h */
export function TCPT_RANGESET(tp: Tcpcb, value: number, min: number, max: number): number {
  return Math.min(Math.max(value + tp.t_tcp.params.rexmit_slop, min), max);
}

/** Sets t_rxtcur from the round-trip estimate, without back-off. */
export function setRxtcur(tp: Tcpcb): void {
  tp.t_rxtcur = TCPT_RANGESET(tp, TCP_REXMTVAL(tp), tp.t_rttmin, TCPTV_REXMTMAX);
}

/** Starts the persist timer with back-off: RFC 9293, 3.8.6.1. @see sys/netinet/tcp_output.c */
export function tcp_setpersist(tp: Tcpcb): void {
  // t_rxtshift now counts probes, so the next ACK says nothing about an earlier time-out.
  tp.t_flags &= ~TF_PREVVALID;
  const { persmin, persmax } = tp.t_tcp.params;
  const t = ((tp.t_srtt >> 2) + tp.t_rttvar) >> 1;
  const delay = TCPT_RANGESET(tp, t * tcp_backoff[tp.t_rxtshift]!, persmin, persmax);
  tcp_timer_activate(tp, TT_PERSIST, delay);
  if (tp.t_rxtshift < TCP_MAXRXTSHIFT) tp.t_rxtshift++;
}
