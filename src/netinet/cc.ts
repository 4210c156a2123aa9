/**
 * The interface between TCP and its congestion control, after sys/netinet/cc/cc.c: a table of
 * algorithms, the algorithm of each connection, and the parts common to all algorithms (initial
 * window, congestion signals, undoing a spurious time-out). Left out: modules loaded at run time.
 */

import { type Errno, ESRCH } from '../sys/errno.ts';
import type { CcAlgo } from './cc_var.ts';
import { TCP_MAXWIN } from './tcp.ts';
import { SEQ_LEQ, SEQ_LT } from './tcp_seq.ts';
import {
  tcp_maxseg,
  type Tcpcb,
  type TcpVnet,
  TF_CONGRECOVERY,
  TF_FASTRECOVERY,
  TF_PREVVALID,
  TF_WASCRECOVERY,
  TF_WASFRECOVERY,
  TF2_ECN_PERMIT,
  TF2_ECN_SND_CWR,
} from './tcp_var.ts';
import { tcp_compute_pipe } from './tcp_sack.ts';
import type { TcpSeq } from '../sys/types.ts';

// Types of congestion signals, the argument of cong_signal.
/** ECN: the network marked a packet instead of dropping it. */
export const CC_ECN = 0x00000001;
/** The retransmission timer expired. */
export const CC_RTO = 0x00000002;
/** The last time-out was spurious: no data was lost. */
export const CC_RTO_ERR = 0x00000004;
/** Duplicate ACKs or SACK show that a segment is lost. */
export const CC_NDUPACK = 0x00000008;

const algorithms = new Map<string, CcAlgo>();

/** Adds an algorithm to the table under its name. @see mod_cc(9) */
export function cc_register_algo(algo: CcAlgo): void {
  algorithms.set(algo.name, algo);
}

/**
 * Text of net.inet.tcp.cc.available: the algorithms and the number of connections that use each.
 */
export function ccAvailable(tcp: TcpVnet): string {
  const lines = ['', 'CCmod           D PCB count'];
  for (const algo of algorithms.values()) {
    let n = 0;
    for (let inp = tcp.tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext)
      if ((inp.inp_ppcb as Tcpcb | null)?.t_cc === algo) n++;
    lines.push(`${algo.name.padEnd(16)}${algo === tcp.ccAlgo ? '*' : ' '} ${n}`);
  }
  return [...lines, ''].join('\n');
}

/** The algorithm called `name`, or null. */
export function ccFind(name: string): CcAlgo | null {
  return algorithms.get(name) ?? null;
}

/** Sets the algorithm of new connections (net.inet.tcp.cc.algorithm). ESRCH: unknown algorithm. */
export function ccSetDefault(tcp: TcpVnet, name: string): Errno {
  const algo = ccFind(name);
  if (algo === null) return ESRCH;
  tcp.ccAlgo = algo;
  return 0;
}

/**
 * Changes the algorithm of a connection (TCP_CONGESTION). The congestion window does not change.
 * ESRCH: unknown algorithm.
 * @see tcp(4)
 */
export function tcp_set_cc_mod(tp: Tcpcb, name: string): Errno {
  const algo = ccFind(name);
  if (algo === null) return ESRCH;
  tp.t_cc = algo;
  tp.ccReset(false);
  algo.conn_init(tp);
  return 0;
}

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

/**
 * Sets the congestion window of a connection that is now established.
 * @see sys/netinet/tcp_input.c
 */
export function cc_conn_init(tp: Tcpcb): void {
  const maxseg = tcp_maxseg(tp);
  // RFC 5681, 3.1: after a lost SYN the window is one segment.
  tp.snd_cwnd = tp.t_rxtshift > 0 ? maxseg : tcp_compute_initwnd(tp, maxseg);
  tp.t_bytes_acked = 0;
  tp.t_cc.conn_init(tp);
}

/**
 * Called when `acked` bytes of new data are acknowledged outside of recovery, by `nsegs` coalesced ACKs.
 * @see sys/netinet/tcp_input.c
 */
export function cc_ack_received(tp: Tcpcb, acked: number, nsegs: number): void {
  // Like FreeBSD (after RFC 7661), do not grow a congestion window that did not limit sending.
  if (tp.snd_cwnd > tp.snd_wnd) {
    tp.t_bytes_acked = 0;
    tp.t_cc.app_limited(tp);
    return;
  }
  tp.t_cc.ack_received(tp, acked, nsegs);
}

/**
 * Saves the state that the first time-out of some data will change. It is restored if later ACKs
 * show that the time-out was spurious.
 * @param badrxtwin an ACK whose receive time or timestamp echo is before this time (ms) shows that
 * the time-out was spurious
 */
export function ccSaveForUndo(tp: Tcpcb, badrxtwin: number): void {
  tp.snd_cwnd_prev = tp.snd_cwnd;
  tp.snd_ssthresh_prev = tp.snd_ssthresh;
  tp.snd_recover_prev = tp.snd_recover;
  const f = tp.t_flags;
  tp.t_flags &= ~(TF_WASFRECOVERY | TF_WASCRECOVERY);
  if ((f & TF_FASTRECOVERY) !== 0) tp.t_flags |= TF_WASFRECOVERY;
  if ((f & TF_CONGRECOVERY) !== 0) tp.t_flags |= TF_WASCRECOVERY;
  tp.t_flags |= TF_PREVVALID;
  tp.t_badrxtwin = badrxtwin;
}

/** Restores the state saved by ccSaveForUndo. */
function undo(tp: Tcpcb): void {
  tp.snd_cwnd = tp.snd_cwnd_prev;
  tp.snd_ssthresh = tp.snd_ssthresh_prev;
  tp.snd_recover = tp.snd_recover_prev;
  if ((tp.t_flags & TF_WASFRECOVERY) !== 0) tp.t_flags |= TF_FASTRECOVERY;
  if ((tp.t_flags & TF_WASCRECOVERY) !== 0) tp.t_flags |= TF_CONGRECOVERY;
  tp.snd_nxt = tp.snd_max;
  tp.t_flags &= ~TF_PREVVALID;
  tp.t_badrxtwin = 0;
}

/** The window was reduced, for any reason: send CWR with the next new data. RFC 3168, 6.1.2. */
function announceCwr(tp: Tcpcb): void {
  if ((tp.t_flags2 & TF2_ECN_PERMIT) !== 0) tp.t_flags2 |= TF2_ECN_SND_CWR;
}

/**
 * Passes a congestion signal to the algorithm and enters the recovery state of its type. `type` is
 * CC_*, `ack` the acknowledgment that showed the congestion. The window is reduced once per window
 * of data, even if that window has both marks and losses.
 * @see sys/netinet/tcp_input.c
 */
export function cc_cong_signal(tp: Tcpcb, type: number, ack: TcpSeq): void {
  const { stat } = tp.t_tcp;
  switch (type) {
    case CC_NDUPACK:
      if ((tp.t_flags & TF_FASTRECOVERY) !== 0) return;
      if ((tp.t_flags & TF_CONGRECOVERY) === 0) {
        tp.t_cc.cong_signal(tp, CC_NDUPACK);
        announceCwr(tp);
      } else {
        tp.t_cc.loss_after_mark(tp);
      }
      tp.snd_recover = tp.snd_max;
      tp.t_bytes_acked = 0;
      tp.t_flags |= TF_FASTRECOVERY | TF_CONGRECOVERY;
      return;
    case CC_ECN:
      // RFC 3168, 6.1.2: reduce the window once per window of data. Until `ack` passes snd_recover,
      // the peer may still send ECE for the last reduction, because it has not received our CWR.
      if (SEQ_LEQ(ack, tp.snd_recover)) return;
      if ((tp.t_flags & TF_FASTRECOVERY) !== 0) cc_post_recovery(tp, ack);
      stat.tcps_ecn_rcwnd++;
      tp.t_cc.cong_signal(tp, CC_ECN);
      announceCwr(tp);
      tp.snd_recover = tp.snd_max;
      tp.t_bytes_acked = 0;
      tp.t_flags |= TF_CONGRECOVERY;
      return;
    case CC_RTO:
      tp.t_dupacks = 0;
      tp.t_bytes_acked = 0;
      tp.t_cc.cong_signal(tp, CC_RTO);
      tp.t_flags &= ~(TF_FASTRECOVERY | TF_CONGRECOVERY);
      tp.snd_recover = tp.snd_max;
      announceCwr(tp);
      return;
    case CC_RTO_ERR:
      stat.tcps_sndrexmitbad++;
      tp.t_cc.cong_signal(tp, CC_RTO_ERR);
      undo(tp);
      // The undo may have restored a recovery. End it here if this ACK completes it, because
      // without data in flight no later ACK will.
      if ((tp.t_flags & (TF_FASTRECOVERY | TF_CONGRECOVERY)) !== 0 && !SEQ_LT(ack, tp.snd_recover))
        cc_post_recovery(tp, ack);
      return;
  }
}

/**
 * Ends recovery: `ack` acknowledges all data that was in flight when it began (RFC 6582, 3.2 (3)).
 * Only after loss does the algorithm adjust the window. After an ECN mark no data is missing and
 * the reduced window stays.
 * @see sys/netinet/tcp_input.c
 */
export function cc_post_recovery(tp: Tcpcb, ack: TcpSeq): void {
  if ((tp.t_flags & TF_FASTRECOVERY) !== 0) tp.t_cc.post_recovery(tp, ack);
  tp.t_bytes_acked = 0;
  tp.t_flags &= ~(TF_FASTRECOVERY | TF_CONGRECOVERY);
}

/**
 * Restarts with a small window after no data was in flight for one RTO. RFC 5681, 4.1.
 * @see sys/netinet/tcp_output.c
 */
export function cc_after_idle(tp: Tcpcb): void {
  tp.t_cc.after_idle(tp);
}

/** Bytes in flight after `ack` is processed, less SACKed and lost data if there is a scoreboard. */
export function flightAfter(tp: Tcpcb, ack: TcpSeq): number {
  return Math.max(tcp_compute_pipe(tp, ack), 0);
}

/** Largest congestion window: the largest window that the peer can advertise with its scale. */
export function cwndMax(tp: Tcpcb): number {
  return TCP_MAXWIN << tp.snd_scale;
}
