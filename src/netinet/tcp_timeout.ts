/**
 * TCP's timer handlers, after sys/netinet/tcp_timer.c: delayed ACK, retransmission (RFC 6298),
 * window probes (RFC 9293, 3.8.6.1), keepalive (3.8.4), FIN_WAIT_2 and TIME_WAIT. The
 * retransmission and probe timers also check the user timeout (RFC 5482).
 */

import { ETIMEDOUT } from '../sys/errno.ts';
import {
  count,
  R_TCP_KEEPDROP,
  R_TCP_PERSIST,
  R_TCP_REXMT,
  R_TCP_TIMEOUTDROP,
} from '../sys/reason.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import { SBS_CANTRCVMORE } from '../kern/uipc_sockbuf.ts';
import { SO_KEEPALIVE } from '../kern/uipc_socket.ts';
import { INP_DROPPED } from './in_pcb.ts';
import { TH_ACK } from './tcp.ts';
import { CC_RTO, cc_cong_signal, ccSaveForUndo } from './cc.ts';
import { tcp_free_sackholes } from './tcp_sack.ts';
import {
  TCPS_CLOSE_WAIT,
  TCPS_CLOSING,
  TCPS_FIN_WAIT_2,
  TCPS_HAVEESTABLISHED,
  TCPS_SYN_SENT,
  TCPS_TIME_WAIT,
} from './tcp_fsm.ts';
import { seqAdd } from './tcp_seq.ts';
import { tcp_close, tcp_drop, tcp_respond } from './tcp_subr.ts';
import {
  tcp_backoff,
  TCP_MAXRXTSHIFT,
  TCP_RTT_INVALIDATE,
  TCP_REXMTVAL,
  tcp_setpersist,
  tcp_timer_activate,
  TCPT_RANGESET,
  tcpTimerRearm,
} from './tcp_timer.ts';
import {
  mssDefaults,
  TCP_RTT_SHIFT,
  type Tcpcb,
  tcpTicks,
  TCPTV_REXMTMAX,
  TF_ACKNOW,
  TF_DELACK,
  TF_FORCEDATA,
  TF_PREVVALID,
  TF_RCVD_TSTMP,
  TF_REQ_SCALE,
  TF_REQ_TSTMP,
  TF_SACK_PERMIT,
  TF2_PLPMTU_BLACKHOLE,
  TF2_PLPMTU_MAXSEGSNT,
  TP_KEEPIDLE,
  TP_KEEPINTVL,
  TP_MAXIDLE,
  TP_MAXUNACKTIME,
  TT_2MSL,
  TT_KEEP,
  TT_N,
} from './tcp_var.ts';

/** Sum of tcp_backoff: how long the stack retries without an answer, in RTOs. */
const tcp_totbackoff = tcp_backoff.reduce((a, b) => a + b, 0);

/** Milliseconds since the last segment was received. */
function idleMs(tp: Tcpcb): number {
  return (tcpTicks() - tp.t_rcvtime) | 0;
}

function delack(tp: Tcpcb): void {
  tp.t_flags &= ~TF_DELACK;
  tp.t_flags |= TF_ACKNOW;
  tp.t_tcp.stat.tcps_delack++;
  tp.t_fb.tfb_tcp_output(tp);
}

/** Whether data has been unacknowledged for longer than the user timeout. Counts it if so. */
function tcp_maxunacktime_check(tp: Tcpcb): boolean {
  const limit = TP_MAXUNACKTIME(tp);
  if (limit === 0 || ((tcpTicks() - tp.t_acktime) | 0) < limit) return false;
  tp.t_tcp.stat.tcps_progdrops++;
  return true;
}

/** Retransmission time-out: retransmits from snd_una with back-off, RFC 6298 (5.4) to (5.7). */
function rexmt(tp: Tcpcb): void {
  const { stat, params } = tp.t_tcp;
  const impatient = tcp_maxunacktime_check(tp);
  if (++tp.t_rxtshift > Math.min(params.retries, TCP_MAXRXTSHIFT) || impatient) {
    tp.t_rxtshift = TCP_MAXRXTSHIFT;
    stat.tcps_timeoutdrop++;
    count(R_TCP_TIMEOUTDROP);
    tcp_drop(tp, ETIMEDOUT);
    return;
  }
  stat.tcps_rexmttimeo++;
  // A middlebox may drop SYNs with options: retry without them.
  if (params.rexmit_drop_options && tp.t_state === TCPS_SYN_SENT && tp.t_rxtshift === 3)
    tp.t_flags &= ~(TF_REQ_SCALE | TF_REQ_TSTMP | TF_SACK_PERMIT);
  count(R_TCP_REXMT);
  if (tp.t_rxtshift === 1 && TCPS_HAVEESTABLISHED(tp.t_state)) {
    // Save the congestion state in case the time-out was spurious. With timestamps, the
    // retransmission has this or a later timestamp. Without, an ACK within srtt / 2 answers the
    // original.
    const now = tcpTicks() || 1;
    const ts = (tp.t_flags & TF_RCVD_TSTMP) !== 0;
    ccSaveForUndo(tp, ts ? now : (now + (tp.t_srtt >> (TCP_RTT_SHIFT + 1))) | 0);
  } else {
    tp.t_flags &= ~TF_PREVVALID;
  }
  const first = TCPS_HAVEESTABLISHED(tp.t_state) ? TCP_REXMTVAL(tp) : params.rexmit_initial;
  const rto = first * tcp_backoff[tp.t_rxtshift]!;
  tp.t_rxtcur = TCPT_RANGESET(tp, rto, tp.t_rttmin, TCPTV_REXMTMAX);
  if (tp.t_rxtshift > TCP_RTT_INVALIDATE) {
    // No answer for a long time: look up the route again. The next measurement replaces the RTT
    // estimate; until then the back-off continues from it.
    tp.t_inpcb.dropRoute();
    tp.rttStale = true;
  }
  blackHole(tp);
  tp.snd_nxt = tp.snd_una;
  tp.t_flags |= TF_ACKNOW;
  tp.t_rtttime = 0;
  // RFC 2018, 8: the peer may have discarded data that it had reported with SACK.
  tcp_free_sackholes(tp);
  // A lost SYN is no sign of congestion for the window; the initial window becomes one segment.
  if (TCPS_HAVEESTABLISHED(tp.t_state)) cc_cong_signal(tp, CC_RTO, tp.snd_una);
  tp.t_fb.tfb_tcp_output(tp);
}

/**
 * Detects a path MTU black hole: full segments are lost repeatedly and no ICMP error arrives.
 * Lowers t_maxseg at the second and fourth time-out, and restores it at the sixth. After RFC 4821;
 * net.inet.tcp.pmtud_blackhole_detection.
 */
function blackHole(tp: Tcpcb): void {
  const { stat, params } = tp.t_tcp;
  const mode = params.pmtud_blackhole_detection;
  const { inp_af: af } = tp.t_inpcb;
  const { mssdflt, pmtud_blackhole_mss } = mssDefaults(tp.t_tcp, af);
  if (mode === 0 || mode === af.pmtudBlackholeOff || !params.path_mtu_discovery) return;
  if (!TCPS_HAVEESTABLISHED(tp.t_state)) return;
  const shift = tp.t_rxtshift;
  if ((tp.t_flags2 & TF2_PLPMTU_MAXSEGSNT) !== 0 && shift >= 2 && shift < 6 && shift % 2 === 0) {
    if ((tp.t_flags2 & TF2_PLPMTU_BLACKHOLE) === 0) {
      tp.t_flags2 |= TF2_PLPMTU_BLACKHOLE;
      tp.t_pmtud_saved_maxseg = tp.t_maxseg;
    }
    if (tp.t_maxseg > pmtud_blackhole_mss) {
      tp.t_maxseg = pmtud_blackhole_mss;
      stat.tcps_pmtud_blackhole_activated++;
    } else if (tp.t_maxseg > mssdflt) {
      tp.t_maxseg = mssdflt;
      stat.tcps_pmtud_blackhole_activated_min_mss++;
    }
  } else if ((tp.t_flags2 & TF2_PLPMTU_BLACKHOLE) !== 0 && shift >= 6) {
    tp.t_flags2 &= ~TF2_PLPMTU_BLACKHOLE;
    tp.t_maxseg = tp.t_pmtud_saved_maxseg;
    stat.tcps_pmtud_blackhole_failed++;
  }
}

/** Persist time-out: the peer's window is closed, send a window probe of one byte. */
function persist(tp: Tcpcb): void {
  const { stat, params } = tp.t_tcp;
  stat.tcps_persisttimeo++;
  count(R_TCP_PERSIST);
  const idle = idleMs(tp);
  const gone =
    tp.t_rxtshift >= TCP_MAXRXTSHIFT &&
    (idle >= params.keepidle || idle >= TCP_REXMTVAL(tp) * tcp_totbackoff);
  // The program has closed the connection: give up after persmax (60 s by default).
  if (
    tcp_maxunacktime_check(tp) ||
    gone ||
    (tp.t_state > TCPS_CLOSE_WAIT && idle >= params.persmax)
  ) {
    stat.tcps_persistdrop++;
    count(R_TCP_TIMEOUTDROP);
    tcp_drop(tp, ETIMEDOUT);
    return;
  }
  tcp_setpersist(tp);
  tp.t_flags |= TF_FORCEDATA;
  tp.t_fb.tfb_tcp_output(tp);
  tp.t_flags &= ~TF_FORCEDATA;
}

/**
 * Keepalive time-out: drops a connection whose handshake takes too long. After keepidle without a
 * segment sends a probe every keepintvl, and drops the connection after keepcnt probes.
 */
function keep(tp: Tcpcb): void {
  const { stat, params } = tp.t_tcp;
  stat.tcps_keeptimeo++;
  if (!TCPS_HAVEESTABLISHED(tp.t_state)) {
    stat.tcps_keepdrops++;
    count(R_TCP_KEEPDROP);
    tcp_drop(tp, ETIMEDOUT);
    return;
  }
  const so = tp.t_inpcb.inp_socket!;
  const wanted = params.always_keepalive || (so.so_options & SO_KEEPALIVE) !== 0;
  const idle = idleMs(tp);
  const keepidle = TP_KEEPIDLE(tp);
  if (!wanted || tp.t_state > TCPS_CLOSING || idle < keepidle) {
    tcp_timer_activate(tp, TT_KEEP, Math.max(keepidle - (wanted ? idle : 0), 1));
    return;
  }
  if (idle >= keepidle + TP_MAXIDLE(tp)) {
    stat.tcps_keepdrops++;
    count(R_TCP_KEEPDROP);
    tcp_drop(tp, ETIMEDOUT);
    return;
  }
  stat.tcps_keepprobe++;
  // The sequence number snd_una - 1 is already acknowledged, so the peer must answer: RFC 9293,
  // 3.8.4.
  tcp_respond(tp.t_tcp, tp, tp.t_inpcb.inp_inc, seqAdd(tp.snd_una, -1), tp.rcv_nxt, TH_ACK);
  tcp_timer_activate(tp, TT_KEEP, TP_KEEPINTVL(tp));
}

/** The 2 MSL timer: the end of TIME_WAIT, or the idle check of FIN_WAIT_2. */
function twoMsl(tp: Tcpcb): void {
  const { stat, params } = tp.t_tcp;
  if (tp.t_state === TCPS_TIME_WAIT) {
    tcp_close(tp);
    return;
  }
  const so = tp.t_inpcb.inp_socket!;
  if (
    params.fast_finwait2_recycle &&
    tp.t_state === TCPS_FIN_WAIT_2 &&
    (so.so_rcv.sb_state & SBS_CANTRCVMORE) !== 0
  ) {
    stat.tcps_finwait2_drops++;
    tcp_close(tp);
  } else if (idleMs(tp) <= TP_MAXIDLE(tp)) {
    tcp_timer_activate(tp, TT_2MSL, TP_KEEPINTVL(tp));
  } else {
    tcp_close(tp);
  }
}

// Indexed by TT_*.
const handlers: readonly ((tp: Tcpcb) => void)[] = [rexmt, persist, keep, twoMsl, delack];

/**
 * The connection's callout expired: runs the handlers of all timers that are due.
 * @see sys/netinet/tcp_timer.c
 */
export function tcp_timer(tp: Tcpcb): void {
  const now = nowNs();
  for (let which = 0; which < TT_N; which++) {
    if (tp.t_timers[which]! > now) continue;
    tp.t_timers[which] = Infinity;
    handlers[which]!(tp);
    if ((tp.t_inpcb.inp_flags & INP_DROPPED) !== 0) return;
  }
  tcpTimerRearm(tp);
}
