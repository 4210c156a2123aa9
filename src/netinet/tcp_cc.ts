/**
 * Congestion control: NewReno with byte counting, after sys/netinet/cc/cc_newreno.c. RFC 5681 (slow
 * start, congestion avoidance, restart after idle), 3465 (appropriate byte counting), 6582 (NewReno's
 * recovery), 6928 (initial window of ten). Left out: CUBIC and the choice of an algorithm, ECN, PRR.
 */

import { TCP_MAXWIN } from './tcp.ts';
import { SEQ_MAX, seqAdd, seqDiff } from './tcp_seq.ts';
import { tcp_maxseg, TF_FASTRECOVERY, type Tcpcb } from './tcp_var.ts';
import type { TcpSeq } from '../sys/types.ts';

/** The initial congestion window for segments of `maxseg` bytes. @see sys/netinet/tcp_input.c */
export function tcp_compute_initwnd(tp: Tcpcb, maxseg: number): number {
  const p = tp.t_tcp.params;
  if (p.initcwnd_segments > 0) {
    const n = p.initcwnd_segments;
    return Math.min(n * maxseg, Math.max(2 * maxseg, n * 1460));
  }
  if (p.rfc3390) return Math.min(4 * maxseg, Math.max(2 * maxseg, 4380));
  return (maxseg > 2190 ? 2 : maxseg > 1095 ? 3 : 4) * maxseg;
}

/** The connection is established: sets the window it starts with. @see sys/netinet/tcp_input.c */
export function cc_conn_init(tp: Tcpcb): void {
  const maxseg = tcp_maxseg(tp);
  // RFC 5681, 3.1: after a lost SYN one segment.
  tp.snd_cwnd = tp.t_rxtshift > 0 ? maxseg : tcp_compute_initwnd(tp, maxseg);
  tp.t_bytes_acked = 0;
}

/** New data was acknowledged outside of recovery: `acked` bytes. @see sys/netinet/tcp_input.c */
export function cc_ack_received(tp: Tcpcb, acked: number): void {
  // RFC 7661's thought, as FreeBSD has it: a window that was not the limit proves nothing.
  if (tp.snd_cwnd > tp.snd_wnd) {
    tp.t_bytes_acked = 0;
    return;
  }
  const maxseg = tcp_maxseg(tp);
  const p = tp.t_tcp.params;
  let incr = maxseg;
  if (tp.snd_cwnd <= tp.snd_ssthresh) {
    tp.t_bytes_acked = 0;
    // After a time-out, while lost data is sent again, an ACK may cover much: then L is 1.
    if (p.rfc3465) {
      const limit = tp.snd_nxt === tp.snd_max ? p.abc_l_var : 1;
      incr = Math.min(acked, limit * maxseg);
    }
  } else if (p.rfc3465) {
    tp.t_bytes_acked += acked;
    if (tp.t_bytes_acked < tp.snd_cwnd) return;
    tp.t_bytes_acked -= tp.snd_cwnd;
  } else {
    incr = Math.max(Math.floor((maxseg * maxseg) / tp.snd_cwnd), 1);
  }
  tp.snd_cwnd = Math.min(tp.snd_cwnd + incr, TCP_MAXWIN << tp.snd_scale);
}

/** Half of what is under way, at least two segments: RFC 5681, equation 4. */
function halveSsthresh(tp: Tcpcb): void {
  const maxseg = tcp_maxseg(tp);
  const flight = Math.min(tp.snd_wnd, tp.snd_cwnd);
  tp.snd_ssthresh = Math.max(Math.floor(flight / 2 / maxseg), 2) * maxseg;
}

/** Three duplicate ACKs: a segment is lost. Enters recovery. @see sys/netinet/tcp_input.c */
export function ccLoss(tp: Tcpcb): void {
  halveSsthresh(tp);
  tp.snd_recover = tp.snd_max;
  tp.t_bytes_acked = 0;
  tp.t_flags |= TF_FASTRECOVERY;
}

/** The retransmission timer went off: everything under way counts as lost. */
export function ccTimeout(tp: Tcpcb): void {
  // Once per loss: a second time-out of the same data halves nothing (RFC 5681, 3.1).
  if (tp.t_rxtshift === 1) halveSsthresh(tp);
  tp.snd_cwnd = tcp_maxseg(tp);
  tp.snd_recover = tp.snd_max;
  tp.t_bytes_acked = 0;
  tp.t_flags &= ~TF_FASTRECOVERY;
}

/** All that was under way when recovery began is acknowledged up to `ack`: RFC 6582, 3.2 (3). @see sys/netinet/tcp_input.c */
export function cc_post_recovery(tp: Tcpcb, ack: TcpSeq): void {
  const maxseg = tcp_maxseg(tp);
  const flight = Math.max(seqDiff(tp.snd_max, ack), 0);
  tp.snd_cwnd = Math.min(tp.snd_ssthresh, Math.max(flight, maxseg) + maxseg);
  tp.t_bytes_acked = 0;
  tp.t_flags &= ~TF_FASTRECOVERY;
  tp.snd_recover = SEQ_MAX(tp.snd_recover, seqAdd(ack, 0));
}

/** Nothing was under way for a whole RTO: start slowly again. RFC 5681, 4.1. @see sys/netinet/tcp_output.c */
export function cc_after_idle(tp: Tcpcb): void {
  tp.snd_ssthresh = Math.max(tp.snd_ssthresh, Math.floor((tp.snd_cwnd * 3) / 4));
  tp.snd_cwnd = Math.min(tp.snd_cwnd, tcp_compute_initwnd(tp, tcp_maxseg(tp)));
}
