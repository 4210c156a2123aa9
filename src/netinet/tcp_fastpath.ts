/**
 * The two common cases of bulk transfer, tried before the steps of RFC 9293 (header prediction, Van
 * Jacobson 1990): a pure ACK of new data, and the next data in order without other changes. This
 * file also has the code that both paths share: delivery to the socket, delayed ACKs, buffer
 * growth. Nothing here allocates. In FreeBSD this is part of tcp_do_segment.
 */

import { CAPTURE_IN, CAPTURE_SOCKBUF } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import { R_TCP_AFTERCLOSE } from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import {
  SB_AUTOSIZE,
  sbappendstream,
  sbavail,
  sbdrop,
  sbreserve,
  SBS_CANTRCVMORE,
  sbspace,
} from '../kern/uipc_sockbuf.ts';
import { sorwakeup, type Socket } from '../kern/uipc_socket.ts';
import { m_adj } from '../kern/uipc_mbuf.ts';
import { cc_ack_received } from './cc.ts';
import { TH_ACK, TH_CWR, TH_ECE, TH_FIN, TH_RST, TH_SYN, TH_URG } from './tcp.ts';
import { measureRtt, rearmRexmt, wakeWriter } from './tcp_ack.ts';
import { TCPS_ESTABLISHED } from './tcp_fsm.ts';
import { tcp_pulloutofband } from './tcp_oob.ts';
import { tcpPassAck } from './tcp_pass_ack.ts';
import { tcpPassOutput } from './tcp_pass_output.ts';
import { tcp_clean_sackreport } from './tcp_sack.ts';
import { SEQ_GT, SEQ_LEQ, SEQ_LT, seqAdd, seqDiff, TSTMP_LT } from './tcp_seq.ts';
import { tcp_timer_activate, tcp_timer_active } from './tcp_timer.ts';
import {
  TCP_RTT_SHIFT,
  TCPOOB_EXPECT,
  type Tcpcb,
  tcprexmtthresh,
  type TcpSegment,
  TF_CONGRECOVERY,
  TF_DELACK,
  TF_FASTRECOVERY,
  TF_NEEDFIN,
  TF_PREVVALID,
  TF_RXWIN0SENT,
  TOF_SACK,
  TOF_TS,
  TT_DELACK,
} from './tcp_var.ts';
import { tcpCaptureIn, tcpCaptureWanted } from './tcp_capture.ts';

/**
 * Whether the ACK of `tlen` bytes may be delayed until a second segment or the timer: RFC 9293,
 * 3.8.6.3.
 */
export function mayDelayAck(tp: Tcpcb, tlen: number): boolean {
  return (
    tp.t_tcp.params.delayed_ack &&
    (tp.t_flags & (TF_DELACK | TF_RXWIN0SENT)) === 0 &&
    !tcp_timer_active(tp, TT_DELACK) &&
    tlen <= tp.t_maxseg
  );
}

/**
 * Enlarges the receive buffer according to the bytes received in half a round trip.
 * @see sys/netinet/tcp_input.c
 */
export function tcp_autorcvbuf(tp: Tcpcb, so: Socket, tlen: number): void {
  const { params } = tp.t_tcp;
  const sb = so.so_rcv;
  if (
    !params.recvbuf_auto ||
    (sb.sb_flags & SB_AUTOSIZE) === 0 ||
    tp.t_srtt === 0 ||
    tp.rfbuf_ts === 0
  )
    return;
  const since = (tp.t_rcvtime + tp.ts_offset - tp.rfbuf_ts) | 0;
  if (since <= (tp.t_srtt >> TCP_RTT_SHIFT) >> 1) {
    tp.rfbuf_cnt += tlen;
    return;
  }
  if (tp.rfbuf_cnt > (sb.sb_hiwat / 8) * 3 && sb.sb_hiwat < params.recvbuf_max) {
    const size = Math.min(sb.sb_hiwat + (sb.sb_hiwat >> 1), params.recvbuf_max);
    if (!sbreserve(sb, size)) sb.sb_flags &= ~SB_AUTOSIZE;
  }
  tp.rfbuf_ts = 0;
  tp.rfbuf_cnt = 0;
}

/**
 * Removes the headers and appends the payload to the receive buffer. Frees it if the program can
 * read no more. Takes the segment's mbuf.
 */
export function deliver(tp: Tcpcb, seg: TcpSegment): void {
  const so = tp.t_inpcb.inp_socket!;
  const m = seg.m!;
  seg.m = null;
  if ((so.so_rcv.sb_state & SBS_CANTRCVMORE) !== 0) {
    countDrop(m, R_TCP_AFTERCLOSE, CAPTURE_SOCKBUF, CAPTURE_IN);
    m_freem(m);
  } else {
    if (tcpCaptureWanted() && seg.hdrlen > 0) tcpCaptureIn(tp, m, seg.seq, seg.hdrlen);
    if (seg.hdrlen > 0) m_adj(m, seg.hdrlen);
    if ((tp.t_oobflags & TCPOOB_EXPECT) !== 0) tcp_pulloutofband(tp, m, seg.seq, seg.tlen);
    sbappendstream(so.so_rcv, m, false);
  }
  sorwakeup(so);
}

/**
 * Updates ts_recent from a segment that covers last_ack_sent: RFC 7323, 4.3. A segment that ends
 * before last_ack_sent is an old duplicate or forged, and half of all random timestamps compare as
 * newer.
 */
export function updateTsRecent(tp: Tcpcb, seg: TcpSegment): void {
  if ((seg.to_flags & TOF_TS) === 0 || SEQ_GT(seg.seq, tp.last_ack_sent)) return;
  const end = seqAdd(seg.seq, seg.tlen + ((seg.flags & (TH_SYN | TH_FIN)) !== 0 ? 1 : 0));
  if (SEQ_LT(end, tp.last_ack_sent)) return;
  tp.ts_recent_age = tp.t_rcvtime;
  tp.ts_recent = seg.to_tsval;
}

/**
 * Processes a pure ACK of new data (sender of a bulk transfer). Returns false, with nothing
 * changed, for other segments.
 */
function fastAck(tp: Tcpcb, seg: TcpSegment): boolean {
  if (
    !SEQ_GT(seg.ack, tp.snd_una) ||
    !SEQ_LEQ(seg.ack, tp.snd_max) ||
    (tp.t_flags & (TF_FASTRECOVERY | TF_CONGRECOVERY)) !== 0 ||
    tp.t_dupacks >= tcprexmtthresh ||
    tp.snd_holes !== null ||
    tp.sacked_bytes !== 0 ||
    (tp.t_rxtshift === 1 && (tp.t_flags & TF_PREVVALID) !== 0)
  )
    return false;
  const { stat } = tp.t_tcp;
  const so = tp.t_inpcb.inp_socket!;
  const acked = seqDiff(seg.ack, tp.snd_una);
  stat.tcps_predack++;
  stat.tcps_rcvackpack++;
  stat.tcps_rcvackbyte += acked;
  measureRtt(tp, seg);
  sbdrop(so.so_snd, acked);
  if (SEQ_GT(seg.ack, tp.snd_recover)) tp.snd_recover = seqAdd(seg.ack, -1);
  cc_ack_received(tp, acked, seg.nsegs);
  tp.snd_una = seg.ack;
  tp.t_acktime = tp.t_rcvtime;
  tp.t_tcp.nudHint?.(tp.t_inpcb.inp_inc);
  tp.snd_wl2 = seg.ack;
  tp.t_dupacks = 0;
  rearmRexmt(tp, seg.ack);
  wakeWriter(so);
  if (sbavail(so.so_snd) > 0) tcpPassOutput(tp);
  return true;
}

/**
 * Processes the next data in order (receiver of a bulk transfer). Returns false, with nothing
 * changed, for other segments; else takes the mbuf.
 */
function fastData(tp: Tcpcb, seg: TcpSegment): boolean {
  const so = tp.t_inpcb.inp_socket!;
  if (seg.ack !== tp.snd_una || tp.t_segq !== null || seg.tlen > sbspace(so.so_rcv)) return false;
  const { stat } = tp.t_tcp;
  // The reassembly queue is empty, so the only block left is a D-SACK that was reported.
  if (tp.rcv_numsacks > 0) tcp_clean_sackreport(tp);
  stat.tcps_preddat++;
  stat.tcps_rcvpack++;
  stat.tcps_rcvbyte += seg.tlen;
  tp.rcv_nxt = seqAdd(tp.rcv_nxt, seg.tlen);
  tp.snd_wl1 = seg.seq;
  if (SEQ_GT(tp.rcv_nxt, tp.rcv_up)) tp.rcv_up = tp.rcv_nxt;
  tcp_autorcvbuf(tp, so, seg.tlen);
  deliver(tp, seg);
  if (mayDelayAck(tp, seg.tlen)) {
    tp.t_flags |= TF_DELACK;
    tcp_timer_activate(tp, TT_DELACK, tp.t_tcp.params.delacktime);
  } else {
    tcpPassAck(tp);
  }
  return true;
}

const SPECIAL = TH_SYN | TH_FIN | TH_RST | TH_URG | TH_ACK | TH_ECE | TH_CWR;

/**
 * Header prediction (Van Jacobson). Returns whether the segment was one of the two common cases and
 * is processed.
 */
export function fastPath(tp: Tcpcb, seg: TcpSegment): boolean {
  if (
    tp.t_state !== TCPS_ESTABLISHED ||
    (seg.flags & SPECIAL) !== TH_ACK ||
    (seg.to_flags & TOF_SACK) !== 0 ||
    seg.seq !== tp.rcv_nxt ||
    tp.snd_nxt !== tp.snd_max ||
    seg.wnd === 0 ||
    seg.wnd !== tp.snd_wnd ||
    (tp.t_flags & TF_NEEDFIN) !== 0 ||
    ((seg.to_flags & TOF_TS) !== 0 && TSTMP_LT(seg.to_tsval, tp.ts_recent))
  )
    return false;
  updateTsRecent(tp, seg);
  return seg.tlen === 0 ? fastAck(tp, seg) : fastData(tp, seg);
}
