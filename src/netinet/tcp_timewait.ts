/**
 * Segments for connections in TIME_WAIT, after sys/netinet/tcp_timewait.c. Entering and leaving
 * TIME_WAIT is in tcp_subr.ts and tcp_timeout.ts.
 */

import { countSegment } from './tcp_capture.ts';
import {
  R_TCP_BADRST,
  R_TCP_BADSYN,
  R_TCP_NOACK,
  R_TCP_PAWS,
  R_TCP_TIMEWAIT,
} from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { TH_ACK, TH_FIN, TH_RST, TH_SYN } from './tcp.ts';
import { SEQ_GT, seqAdd } from './tcp_seq.ts';
import { tcp_close, tcp_send_challenge_ack } from './tcp_subr.ts';
import { tcp_timer_activate } from './tcp_timer.ts';
import { type Tcpcb, type TcpSegment, TF_RCVD_TSTMP, TOF_TS, TT_2MSL } from './tcp_var.ts';

/** Frees the segment. */
function drop(seg: TcpSegment): false {
  m_freem(seg.m);
  seg.m = null;
  return false;
}

/**
 * Processes a segment for a connection in TIME_WAIT: RFC 9293, 3.10.7.4, and RFC 1337 for RSTs.
 * Returns true for a SYN that may open a new connection; the old connection is then closed and the
 * caller keeps the segment. Otherwise frees the segment.
 * @see sys/netinet/tcp_timewait.c
 */
export function tcp_twcheck(tp: Tcpcb, seg: TcpSegment): boolean {
  const { flags } = seg;
  const { params } = tp.t_tcp;
  if ((flags & TH_RST) !== 0) {
    // RFC 1337: a RST does not end TIME_WAIT.
    countSegment(seg, R_TCP_BADRST);
    return drop(seg);
  }
  if ((flags & (TH_SYN | TH_FIN)) === (TH_SYN | TH_FIN) && params.drop_synfin) {
    countSegment(seg, R_TCP_BADSYN);
    return drop(seg);
  }
  // RFC 9293, 3.6.1: a SYN beyond rcv_nxt starts a new connection. A later timestamp alone does not
  // suffice, unlike in RFC 6191.
  if ((flags & (TH_SYN | TH_ACK)) === TH_SYN && SEQ_GT(seg.seq, tp.rcv_nxt)) {
    tcp_close(tp);
    return true;
  }
  if ((flags & TH_ACK) === 0) {
    countSegment(seg, (flags & TH_SYN) !== 0 ? R_TCP_BADSYN : R_TCP_NOACK);
    return drop(seg);
  }
  // RFC 7323, 3.2.
  const missingTs = (tp.t_flags & TF_RCVD_TSTMP) !== 0 && (seg.to_flags & TOF_TS) === 0;
  if (missingTs && !params.tolerate_missing_ts) {
    countSegment(seg, R_TCP_PAWS);
    return drop(seg);
  }
  // A retransmitted FIN means that our last ACK was lost: restart the 2 MSL timer.
  const end = seqAdd(seg.seq, seg.tlen + ((flags & TH_SYN) !== 0 ? 1 : 0));
  if ((flags & TH_FIN) !== 0 && seqAdd(end, 1) === tp.rcv_nxt)
    tcp_timer_activate(tp, TT_2MSL, 2 * params.msl);
  const duplicateAck =
    flags === TH_ACK && seg.tlen === 0 && seg.seq === tp.rcv_nxt && seg.ack === tp.snd_max;
  if (!duplicateAck) {
    countSegment(seg, R_TCP_TIMEWAIT);
    tcp_send_challenge_ack(tp);
  }
  return drop(seg);
}
