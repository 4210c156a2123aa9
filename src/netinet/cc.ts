/**
 * Congestion control as the rest of TCP sees it, after sys/netinet/cc/cc.c: a table of algorithms,
 * the one a connection uses, and what does not depend on it (initial window, signals, undoing a
 * time-out that was none). Left out: modules loaded at run time.
 */

import { type Errno, ESRCH } from '../sys/errno.ts';
import { TCP_MAXWIN } from './tcp.ts';
import { SEQ_LEQ, SEQ_LT } from './tcp_seq.ts';
import {
  type CcAlgo,
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

// What an algorithm is told by cong_signal.
/** ECN: the network marked a packet instead of dropping it. */
export const CC_ECN = 0x00000001;
/** The retransmission timer went off. */
export const CC_RTO = 0x00000002;
/** It should not have: nothing was lost. */
export const CC_RTO_ERR = 0x00000004;
/** Duplicate ACKs or SACK say that a segment is lost. */
export const CC_NDUPACK = 0x00000008;

const algorithms = new Map<string, CcAlgo>();

/** Adds an algorithm under its name. @see mod_cc(9) */
export function cc_register_algo(algo: CcAlgo): void {
  algorithms.set(algo.name, algo);
}

/** The table of algorithms and how many connections use each: net.inet.tcp.cc.available. */
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

/** Sets the algorithm of new connections: net.inet.tcp.cc.algorithm. ESRCH: there is none such. */
export function ccSetDefault(tcp: TcpVnet, name: string): Errno {
  const algo = ccFind(name);
  if (algo === null) return ESRCH;
  tcp.ccAlgo = algo;
  return 0;
}

/** Gives a connection another algorithm: TCP_CONGESTION; ESRCH: there is none such. Its window stays what it is. @see tcp(4) */
export function tcp_set_cc_mod(tp: Tcpcb, name: string): Errno {
  const algo = ccFind(name);
  if (algo === null) return ESRCH;
  tp.t_cc = algo;
  tp.t_ccv.reset();
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

/** The connection is established: sets the window it starts with. @see sys/netinet/tcp_input.c */
export function cc_conn_init(tp: Tcpcb): void {
  const maxseg = tcp_maxseg(tp);
  // RFC 5681, 3.1: after a lost SYN one segment.
  tp.snd_cwnd = tp.t_rxtshift > 0 ? maxseg : tcp_compute_initwnd(tp, maxseg);
  tp.t_bytes_acked = 0;
  tp.t_cc.conn_init(tp);
}

/** New data was acknowledged: `acked` bytes, none in recovery. @see sys/netinet/tcp_input.c */
export function cc_ack_received(tp: Tcpcb, acked: number): void {
  // RFC 7661's thought, as FreeBSD has it: a window that was not the limit proves nothing.
  if (tp.snd_cwnd > tp.snd_wnd) {
    tp.t_bytes_acked = 0;
    tp.t_cc.app_limited(tp);
    return;
  }
  tp.t_cc.ack_received(tp, acked);
}

/**
 * The first time-out of some data: remembers what it is about to change, since what follows may show
 * that nothing was lost.
 * @param badrxtwin what is acknowledged of before then was sent before the time-out, ms
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

/** Puts back what the time-out changed. */
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

/** The window was lowered: the next new data says so, whatever the reason. RFC 3168, 6.1.2. */
function announceCwr(tp: Tcpcb): void {
  if ((tp.t_flags2 & TF2_ECN_PERMIT) !== 0) tp.t_flags2 |= TF2_ECN_SND_CWR;
}

/**
 * Tells the algorithm of congestion: `type` is CC_*, `ack` the acknowledgment that told of it.
 * Enters the recovery that the type asks for. What happens in one window of data lowers the window
 * once, be it marks, losses or both.
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
      // RFC 3168, 6.1.2: once per window of data. Before more than that is acknowledged, the peer
      // cannot know of the last reduction and go on without its echo.
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
      // What came back is over if this very ACK ends it; nothing may be under way that another would.
      if ((tp.t_flags & (TF_FASTRECOVERY | TF_CONGRECOVERY)) !== 0 && !SEQ_LT(ack, tp.snd_recover))
        cc_post_recovery(tp, ack);
      return;
  }
}

/**
 * All that was under way when recovery began is acknowledged up to `ack`: RFC 6582, 3.2 (3). A mark
 * leaves no holes, so after one the window stays what it was lowered to.
 * @see sys/netinet/tcp_input.c
 */
export function cc_post_recovery(tp: Tcpcb, ack: TcpSeq): void {
  if ((tp.t_flags & TF_FASTRECOVERY) !== 0) tp.t_cc.post_recovery(tp, ack);
  tp.t_bytes_acked = 0;
  tp.t_flags &= ~(TF_FASTRECOVERY | TF_CONGRECOVERY);
}

/** Nothing was under way for a whole RTO: start slowly again. RFC 5681, 4.1. @see sys/netinet/tcp_output.c */
export function cc_after_idle(tp: Tcpcb): void {
  tp.t_cc.after_idle(tp);
}

/** Bytes under way when all up to `ack` is acknowledged, by the scoreboard if there is one. */
export function flightAfter(tp: Tcpcb, ack: TcpSeq): number {
  return Math.max(tcp_compute_pipe(tp, ack), 0);
}

/** The most a window may be: what the peer's scale can announce. */
export function cwndMax(tp: Tcpcb): number {
  return TCP_MAXWIN << tp.snd_scale;
}
