/**
 * Input of one segment on a synchronized or connecting connection, after tcp_do_segment of
 * sys/netinet/tcp_input.c: RFC 9293, 3.10.7.3 and 3.10.7.4, one function per step. tcp_fastpath.ts
 * comes first and handles the two common cases of bulk transfer. Urgent data is in tcp_oob.ts.
 */

import {
  countSegment,
  tcpCaptureQueued,
  tcpCaptureQueuedEnd,
  tcpCaptureWanted,
} from './tcp_capture.ts';
import { ECONNREFUSED, ECONNRESET } from '../sys/errno.ts';
import type { TcpSeq } from '../sys/types.ts';
import { KASSERT } from '../sys/kassert.ts';
import {
  R_TCP_AFTERCLOSE,
  R_TCP_AFTERFIN,
  R_TCP_BADACK,
  R_TCP_BADRST,
  R_TCP_BADSEQ,
  R_TCP_BADSYN,
  R_TCP_DUP,
  R_TCP_NOACK,
  R_TCP_PAWS,
} from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { sbspace } from '../kern/uipc_sockbuf.ts';
import { socantrcvmore, soisconnected, SS_NOFDREF } from '../kern/uipc_socket.ts';
import { m_adj } from '../kern/uipc_mbuf.ts';
import { TCP_MAXWIN, TH_ACK, TH_FIN, TH_PUSH, TH_RST, TH_SYN, TH_URG } from './tcp.ts';
import {
  CONT,
  DEAD,
  DROP,
  DROPAFTERACK,
  DROPWITHRESET,
  stepAck,
  synAcked,
  synDataAcked,
  type Verdict,
} from './tcp_ack.ts';
import { cc_conn_init } from './cc.ts';
import { tcp_ecn_input_segment, tcp_ecn_input_syn_sent } from './tcp_ecn.ts';
import { tcp_fastopen_update_cache } from './tcp_fastopen.ts';
import {
  tcp_state_change,
  TCPS_CLOSE_WAIT,
  TCPS_CLOSED,
  TCPS_CLOSING,
  TCPS_ESTABLISHED,
  TCPS_FIN_WAIT_1,
  TCPS_FIN_WAIT_2,
  TCPS_HAVEESTABLISHED,
  TCPS_HAVERCVDFIN,
  TCPS_LAST_ACK,
  TCPS_LISTEN,
  TCPS_SYN_RECEIVED,
  TCPS_SYN_SENT,
  TCPS_TIME_WAIT,
} from './tcp_fsm.ts';
import { deliver, fastPath, mayDelayAck, tcp_autorcvbuf, updateTsRecent } from './tcp_fastpath.ts';
import { stepUrg } from './tcp_oob.ts';
import { tcpPassAckNow } from './tcp_pass_ack.ts';
import { tcpPassOutput } from './tcp_pass_output.ts';
import { present, REASS_FULL, tcp_reass } from './tcp_reass.ts';
import { tcp_clean_sackreport, tcp_update_dsack_list, tcp_update_sack_list } from './tcp_sack.ts';
import { SEQ_GEQ, SEQ_GT, SEQ_LEQ, SEQ_LT, seqAdd, seqDiff, TSTMP_LT } from './tcp_seq.ts';
import {
  challengeAllowed,
  tcp_close,
  tcp_drop,
  tcp_dropwithreset,
  tcp_mss,
  tcp_send_challenge_ack,
  tcp_twstart,
} from './tcp_subr.ts';
import { tcp_timer_activate, tcp_timer_active } from './tcp_timer.ts';
import {
  TCP_PAWS_IDLE,
  type Tcpcb,
  type TcpSegment,
  tcpTicks,
  TF_ACKNOW,
  TF_CONGRECOVERY,
  TF_FASTRECOVERY,
  TF_DELACK,
  TF_FASTOPEN,
  TF_NEEDFIN,
  TF_RCVD_SCALE,
  TF_RCVD_TSTMP,
  TF_REQ_SCALE,
  TF_REQ_TSTMP,
  TF_SACK_PERMIT,
  TF2_ACE_PERMIT,
  TF2_ECN_PERMIT,
  TOF_MSS,
  TOF_SACKPERM,
  TOF_SCALE,
  TOF_TS,
  TP_KEEPIDLE,
  TT_DELACK,
  TT_KEEP,
  TT_REXMT,
} from './tcp_var.ts';

/** Applies the options of the peer's SYN. */
function synOptions(tp: Tcpcb, seg: TcpSegment): void {
  if ((seg.to_flags & TOF_SCALE) !== 0 && (tp.t_flags & TF_REQ_SCALE) !== 0) {
    tp.t_flags |= TF_RCVD_SCALE;
    tp.snd_scale = seg.to_wscale;
    tp.rcv_scale = tp.request_r_scale;
  }
  if ((seg.to_flags & TOF_TS) !== 0 && (tp.t_flags & TF_REQ_TSTMP) !== 0) {
    tp.t_flags |= TF_RCVD_TSTMP;
    tp.ts_recent = seg.to_tsval;
    tp.ts_recent_age = tcpTicks();
  }
  if ((seg.to_flags & TOF_SACKPERM) === 0) tp.t_flags &= ~TF_SACK_PERMIT;
  tcp_mss(tp, (seg.to_flags & TOF_MSS) !== 0 ? seg.to_mss : 0);
}

/** A segment in SYN_SENT: RFC 9293, 3.10.7.3. */
function synSent(tp: Tcpcb, seg: TcpSegment): Verdict {
  const so = tp.t_inpcb.inp_socket!;
  const ack = (seg.flags & TH_ACK) !== 0;
  if (ack && (SEQ_LEQ(seg.ack, tp.iss) || SEQ_GT(seg.ack, tp.snd_max))) {
    countSegment(seg, R_TCP_BADACK);
    return DROPWITHRESET;
  }
  if ((seg.flags & TH_RST) !== 0) {
    if (!ack) {
      countSegment(seg, R_TCP_BADRST);
      return DROP;
    }
    tcp_drop(tp, ECONNREFUSED);
    return DEAD;
  }
  if ((seg.flags & TH_SYN) === 0) {
    countSegment(seg, R_TCP_BADSYN);
    return DROP;
  }
  tp.irs = seg.seq;
  tp.rcv_nxt = seqAdd(seg.seq, 1);
  tp.rcv_adv = tp.rcv_nxt;
  tp.last_ack_sent = tp.rcv_nxt;
  synOptions(tp, seg);
  tcp_ecn_input_syn_sent(tp, seg);
  const dataAcked = ack && SEQ_GT(seg.ack, seqAdd(tp.iss, 1));
  if ((tp.t_flags & TF_FASTOPEN) !== 0) {
    if (ack) tcp_fastopen_update_cache(tp, seg, dataAcked);
    // Unlike FreeBSD: Fast Open has no part in a simultaneous open.
    else tp.t_flags &= ~TF_FASTOPEN;
  }
  tp.snd_wnd = seg.wnd;
  tp.max_sndwnd = Math.max(tp.max_sndwnd, seg.wnd);
  tp.t_flags |= TF_ACKNOW;
  if (ack) {
    tp.t_tcp.stat.tcps_connects++;
    tp.t_starttime = tcpTicks();
    soisconnected(so);
    tp.rcv_adv = seqAdd(tp.rcv_nxt, Math.min(tp.rcv_wnd, TCP_MAXWIN));
    cc_conn_init(tp);
    synAcked(tp, seg);
    if (tp.snd_una !== tp.snd_max) synDataAcked(tp, seg);
    tcp_state_change(tp, TCPS_ESTABLISHED);
    if ((tp.t_flags & TF_NEEDFIN) !== 0) {
      tp.t_flags &= ~TF_NEEDFIN;
      tcp_state_change(tp, TCPS_FIN_WAIT_1);
    }
    tcp_timer_activate(tp, TT_KEEP, TP_KEEPIDLE(tp));
  } else {
    // Simultaneous open: send our SYN again, now with an ACK. RFC 9293, figure 7.
    tcp_timer_activate(tp, TT_REXMT, 0);
    tcp_state_change(tp, TCPS_SYN_RECEIVED);
    tp.snd_nxt = tp.iss;
  }
  // The SYN is processed. Trim the data behind it to the receive window.
  seg.seq = seqAdd(seg.seq, 1);
  seg.flags &= ~TH_SYN;
  if (seg.tlen > tp.rcv_wnd) {
    m_adj(seg.m!, -(seg.tlen - tp.rcv_wnd));
    seg.tlen = tp.rcv_wnd;
    seg.flags &= ~TH_FIN;
    tp.t_tcp.stat.tcps_rcvpackafterwin++;
  }
  trimUrp(seg, 1);
  tp.rcv_up = seg.seq;
  tp.snd_wl1 = seqAdd(seg.seq, -1);
  return CONT;
}

/** Adjusts the urgent pointer after the first `n` sequence numbers of the segment were removed. */
function trimUrp(seg: TcpSegment, n: number): void {
  if ((seg.flags & TH_URG) === 0) return;
  seg.urp = Math.max(seg.urp - n, 0);
}

/**
 * Whether the whole segment is beyond the receive window. As in FreeBSD, only its text counts, and the
 * right edge itself is not beyond the window for a segment without text.
 */
function beyondWindow(tp: Tcpcb, seg: TcpSegment): boolean {
  const end = seqAdd(tp.rcv_nxt, tp.rcv_wnd);
  const outside = seqDiff(seqAdd(seg.seq, seg.tlen), end);
  return SEQ_GT(seg.seq, tp.rcv_nxt) && outside > 0 && outside >= seg.tlen;
}

/** Whether any part of the segment is in the receive window, whose right edge belongs to it. */
function inWindow(tp: Tcpcb, seg: TcpSegment): boolean {
  const len =
    seg.tlen + ((seg.flags & TH_FIN) !== 0 ? 1 : 0) + ((seg.flags & TH_SYN) !== 0 ? 1 : 0);
  const last = seqAdd(seg.seq, Math.max(len, 1) - 1);
  return SEQ_GEQ(last, tp.rcv_nxt) && !beyondWindow(tp, seg);
}

/**
 * Whether the sequence number of a RST or SYN is in the window. As in FreeBSD, the window starts at
 * the last ACK sent: while an ACK is delayed, this is all that the peer knows.
 */
function inBlindWindow(tp: Tcpcb, seq: TcpSeq): boolean {
  const left = tp.last_ack_sent;
  return SEQ_GEQ(seq, left) && SEQ_LT(seq, seqAdd(left, tp.rcv_wnd));
}

/**
 * The second step, the RST bit: RFC 9293 and RFC 5961, 3.2. It runs before the first step, whose
 * ACK for an unacceptable segment must not answer a RST.
 */
function stepReset(tp: Tcpcb, seg: TcpSegment): Verdict {
  if ((seg.flags & TH_RST) === 0) return CONT;
  const inside = seg.seq === tp.last_ack_sent || inBlindWindow(tp, seg.seq);
  if (!inside) {
    tp.t_tcp.stat.tcps_badrst++;
    countSegment(seg, R_TCP_BADRST);
    return DROP;
  }
  if (seg.seq !== tp.last_ack_sent && !tp.t_tcp.params.insecure_rst) {
    tp.t_tcp.stat.tcps_badrst++;
    countSegment(seg, R_TCP_BADRST);
    tcp_send_challenge_ack(tp);
    return DROP;
  }
  switch (tp.t_state) {
    case TCPS_SYN_RECEIVED:
      tp.t_tcp.stat.tcps_drops++;
      tp.t_inpcb.inp_socket!.so_error = ECONNREFUSED;
      tcp_close(tp);
      return DEAD;
    case TCPS_ESTABLISHED:
    case TCPS_FIN_WAIT_1:
    case TCPS_FIN_WAIT_2:
    case TCPS_CLOSE_WAIT:
    case TCPS_CLOSING:
    case TCPS_LAST_ACK:
      tp.t_tcp.stat.tcps_drops++;
      tp.t_inpcb.inp_socket!.so_error = ECONNRESET;
      tcp_close(tp);
      return DEAD;
    case TCPS_CLOSED:
    case TCPS_LISTEN:
    case TCPS_SYN_SENT:
    case TCPS_TIME_WAIT:
      KASSERT(false, 'stepReset: not a synchronized state');
      return DEAD;
  }
}

/**
 * Checks a segment in SYN_RECEIVED before all others: an ACK of anything but our SYN gets a RST. With
 * Fast Open it accepts the SYN that created the connection, once, and segments with ACK, FIN or RST.
 */
function stepSynReceived(tp: Tcpcb, seg: TcpSegment): Verdict {
  if (tp.t_state !== TCPS_SYN_RECEIVED || (seg.flags & TH_RST) !== 0) return CONT;
  const ack = (seg.flags & TH_ACK) !== 0;
  if (ack && (SEQ_LEQ(seg.ack, tp.snd_una) || SEQ_GT(seg.ack, tp.snd_max))) {
    countSegment(seg, R_TCP_BADACK);
    return DROPWITHRESET;
  }
  if ((tp.t_flags & TF_FASTOPEN) === 0) return CONT;
  if ((seg.flags & TH_SYN) === 0) {
    if (ack || (seg.flags & TH_FIN) !== 0) return CONT;
    countSegment(seg, R_TCP_NOACK);
    return DROP;
  }
  if (!ack && !tcp_timer_active(tp, TT_DELACK) && !tcp_timer_active(tp, TT_REXMT)) return CONT;
  // Without ACK it is the peer's retransmission: our SYN-ACK answers it.
  countSegment(seg, R_TCP_BADSYN);
  return ack ? DROPWITHRESET : DROP;
}

/**
 * The fourth step, the SYN bit: RFC 5961, 4.2. It is an error or an attack on an open connection.
 */
function stepSyn(tp: Tcpcb, seg: TcpSegment): Verdict {
  if ((seg.flags & TH_SYN) === 0 || tp.t_state === TCPS_SYN_RECEIVED) return CONT;
  tp.t_tcp.stat.tcps_badsyn++;
  countSegment(seg, R_TCP_BADSYN);
  if (tp.t_tcp.params.insecure_syn && inBlindWindow(tp, seg.seq)) {
    tcp_drop(tp, ECONNRESET);
    return DEAD;
  }
  tcp_send_challenge_ack(tp);
  return DROP;
}

/**
 * The SYN bit in SYN_RECEIVED. The peer's own SYN again, in a simultaneous open usually with an ACK
 * (RFC 9293, figure 7), is removed from the segment; without ACK it causes our SYN-ACK again. As in
 * FreeBSD, a segment before that SYN gets a RST, and a SYN after it counts as a segment without SYN.
 */
function trimSyn(tp: Tcpcb, seg: TcpSegment): Verdict {
  if (tp.t_state !== TCPS_SYN_RECEIVED) return CONT;
  if (SEQ_LT(seg.seq, tp.irs)) {
    countSegment(seg, R_TCP_BADSEQ);
    return DROPWITHRESET;
  }
  if ((seg.flags & TH_SYN) === 0) return CONT;
  seg.flags &= ~TH_SYN;
  if (seg.seq !== tp.irs) return CONT;
  seg.seq = seqAdd(seg.seq, 1);
  trimUrp(seg, 1);
  const fastOpen = (tp.t_flags & TF_FASTOPEN) !== 0;
  if (seg.tlen === 0 && (seg.flags & TH_FIN) === 0 && !fastOpen) tp.t_flags |= TF_ACKNOW;
  return CONT;
}

/** PAWS: drops a segment with a timestamp older than ts_recent, an old duplicate. RFC 7323, 5.3. */
function stepPaws(tp: Tcpcb, seg: TcpSegment): Verdict {
  if ((tp.t_flags & TF_RCVD_TSTMP) === 0 || (seg.to_flags & TOF_TS) === 0) return CONT;
  if (tp.ts_recent === 0 || !TSTMP_LT(seg.to_tsval, tp.ts_recent)) return CONT;
  if (((tcpTicks() - tp.ts_recent_age) | 0) > TCP_PAWS_IDLE) {
    tp.ts_recent = 0;
    return CONT;
  }
  const { stat } = tp.t_tcp;
  stat.tcps_rcvduppack++;
  stat.tcps_rcvdupbyte += seg.tlen;
  stat.tcps_pawsdrop++;
  countSegment(seg, R_TCP_PAWS);
  return seg.tlen > 0 ? DROPAFTERACK : DROP;
}

/** Reports the duplicate data [start, start + len) to the peer by a D-SACK block: RFC 2883. */
function duplicate(tp: Tcpcb, start: TcpSeq, len: number): void {
  if ((tp.t_flags & TF_SACK_PERMIT) !== 0 && len > 0)
    tcp_update_sack_list(tp, start, seqAdd(start, len));
}

/**
 * Removes the data that was received before from the front. A segment that becomes empty is still
 * processed for its ACK.
 */
function trimFront(tp: Tcpcb, seg: TcpSegment): void {
  let todrop = seqDiff(tp.rcv_nxt, seg.seq);
  if (todrop <= 0) return;
  const { stat } = tp.t_tcp;
  // Answer an empty segment, such as a keepalive, with a rate-limited ACK: RFC 9293, 3.8.4.
  if (seg.tlen === 0 && (seg.flags & TH_FIN) === 0) {
    seg.challenge = true;
    return;
  }
  tp.t_flags |= TF_ACKNOW;
  countSegment(seg, R_TCP_DUP);
  if (todrop > seg.tlen || (todrop === seg.tlen && (seg.flags & TH_FIN) === 0)) {
    // The segment has no new data, and its FIN was received before.
    seg.flags &= ~TH_FIN;
    todrop = seg.tlen;
    duplicate(tp, seg.seq, todrop);
    stat.tcps_rcvduppack++;
    stat.tcps_rcvdupbyte += todrop;
  } else {
    stat.tcps_rcvpartduppack++;
    stat.tcps_rcvpartdupbyte += todrop;
    duplicate(tp, seg.seq, todrop);
  }
  trimUrp(seg, todrop);
  seg.hdrlen += todrop;
  seg.tlen -= todrop;
  seg.seq = seqAdd(seg.seq, todrop);
}

/**
 * The first step: checks the sequence number and trims the segment to the receive window. RFC 9293,
 * 3.10.7.4.
 */
function stepSequence(tp: Tcpcb, seg: TcpSegment): Verdict {
  const { stat } = tp.t_tcp;
  // Ignore the ACK too if the whole segment is beyond the window.
  const end = seqAdd(tp.rcv_nxt, tp.rcv_wnd);
  if (beyondWindow(tp, seg)) {
    stat.tcps_rcvpackafterwin++;
    stat.tcps_rcvbyteafterwin += seg.tlen;
    countSegment(seg, R_TCP_BADSEQ);
    return DROPAFTERACK;
  }
  trimFront(tp, seg);
  // The program has closed the socket and cannot read new data. Send a RST: RFC 9293, 3.6.1.
  const so = tp.t_inpcb.inp_socket!;
  if ((so.so_state & SS_NOFDREF) !== 0 && tp.t_state > TCPS_CLOSE_WAIT && seg.tlen > 0) {
    stat.tcps_rcvafterclose++;
    countSegment(seg, R_TCP_AFTERCLOSE);
    tcp_close(tp);
    return DROPWITHRESET;
  }
  const beyond = seqDiff(seqAdd(seg.seq, seg.tlen), end);
  if (beyond > 0) {
    stat.tcps_rcvpackafterwin++;
    if (beyond >= seg.tlen && tp.rcv_wnd === 0) {
      // A window probe: process its ACK, and discard its data.
      stat.tcps_rcvwinprobe++;
      tp.t_flags |= TF_ACKNOW;
    }
    stat.tcps_rcvbyteafterwin += beyond;
    countSegment(seg, R_TCP_BADSEQ);
    m_adj(seg.m!, -beyond);
    seg.tlen -= beyond;
    seg.flags &= ~(TH_PUSH | TH_FIN);
  }
  updateTsRecent(tp, seg);
  return CONT;
}

/**
 * Updates the send window from a new enough segment: RFC 9293, 3.10.7.4, end of the fifth step.
 * Returns whether it was updated.
 */
function updateWindow(tp: Tcpcb, seg: TcpSegment): boolean {
  if ((seg.flags & TH_ACK) === 0) return false;
  const newer =
    SEQ_LT(tp.snd_wl1, seg.seq) ||
    (tp.snd_wl1 === seg.seq &&
      (SEQ_LT(tp.snd_wl2, seg.ack) || (tp.snd_wl2 === seg.ack && seg.wnd > tp.snd_wnd)));
  if (!newer) return false;
  if (seg.tlen === 0 && tp.snd_wl2 === seg.ack && seg.wnd > tp.snd_wnd)
    tp.t_tcp.stat.tcps_rcvwinupd++;
  tp.snd_wnd = seg.wnd;
  tp.snd_wl1 = seg.seq;
  tp.snd_wl2 = seg.ack;
  tp.max_sndwnd = Math.max(tp.max_sndwnd, seg.wnd);
  return true;
}

/** Delivers queued text that is in order. Sets TH_FIN in seg.flags if it ends with the FIN. */
function presentQueued(tp: Tcpcb, seg: TcpSegment): void {
  const before = tp.rcv_nxt;
  seg.flags |= present(tp);
  if (tp.rcv_nxt !== before) tp.t_flags |= TF_ACKNOW;
}

/**
 * The seventh step: the segment's data. Takes seg.m and sets it to null if it queues or delivers
 * data.
 */
function stepText(tp: Tcpcb, seg: TcpSegment): void {
  const tfoSyn = tp.t_state === TCPS_SYN_RECEIVED && (tp.t_flags & TF_FASTOPEN) !== 0;
  if (tfoSyn) {
    // Delay the SYN-ACK of data, which the program may answer. The peer retransmits its FIN: the
    // handshake cannot complete in CLOSE_WAIT.
    seg.flags &= ~TH_FIN;
    if (seg.tlen === 0) tp.t_flags |= TF_ACKNOW;
  }
  if (seg.tlen === 0 && (seg.flags & TH_FIN) === 0) {
    // The ACK that completes a simultaneous open releases what came with the peer's SYN.
    if (tp.t_segq !== null && tp.t_segq.tqe_start === tp.rcv_nxt) presentQueued(tp, seg);
    return;
  }
  if (TCPS_HAVERCVDFIN(tp.t_state)) {
    if (seg.tlen > 0) countSegment(seg, R_TCP_AFTERFIN);
    seg.flags &= ~TH_FIN;
    return;
  }
  const open = TCPS_HAVEESTABLISHED(tp.t_state) || tfoSyn;
  if (seg.seq === tp.rcv_nxt && tp.t_segq === null && open) {
    const delay = mayDelayAck(tp, seg.tlen) || tfoSyn;
    if (delay && (seg.flags & TH_FIN) === 0) tp.t_flags |= TF_DELACK;
    else tp.t_flags |= TF_ACKNOW;
    const { stat } = tp.t_tcp;
    stat.tcps_rcvpack++;
    stat.tcps_rcvbyte += seg.tlen;
    tp.rcv_nxt = seqAdd(tp.rcv_nxt, seg.tlen);
    // The queue is empty, so a D-SACK block is the only block still worth sending.
    if (tp.rcv_numsacks > 0 && !tp.dsack) tcp_clean_sackreport(tp);
    if (seg.tlen > 0) {
      tcp_autorcvbuf(tp, tp.t_inpcb.inp_socket!, seg.tlen);
      deliver(tp, seg);
    }
    return;
  }
  // The segment leaves or fills a gap: acknowledge it immediately (RFC 5681, 3.2).
  const m = seg.m!;
  seg.m = null;
  const { seq, tlen } = seg;
  if (tcpCaptureWanted()) tcpCaptureQueued(tp, m, seq, tlen, seg.hdrlen);
  m_adj(m, seg.hdrlen);
  const fin = tcp_reass(tp, seq, tlen, seg.flags, m);
  if (tcpCaptureWanted()) tcpCaptureQueuedEnd(tp, fin === REASS_FULL);
  // RFC 2018, 4: do not report data that was discarded because the queue is full.
  if ((tp.t_flags & TF_SACK_PERMIT) !== 0 && fin !== REASS_FULL)
    tcp_update_dsack_list(tp, seq, seqAdd(seq, tlen));
  seg.flags &= ~TH_FIN;
  if (fin === TH_FIN) seg.flags |= TH_FIN;
  tp.t_flags |= TF_ACKNOW;
}

/**
 * The eighth step: processes an in-order FIN, RFC 9293, 3.10.7.4. Returns DEAD if `tp` entered
 * TIME_WAIT.
 */
function finReceived(tp: Tcpcb): Verdict {
  const so = tp.t_inpcb.inp_socket!;
  if (!TCPS_HAVERCVDFIN(tp.t_state)) {
    socantrcvmore(so);
    tp.t_flags |= TF_ACKNOW;
    tp.rcv_nxt = seqAdd(tp.rcv_nxt, 1);
  }
  switch (tp.t_state) {
    case TCPS_SYN_RECEIVED:
    case TCPS_ESTABLISHED:
      tcp_state_change(tp, TCPS_CLOSE_WAIT);
      return CONT;
    case TCPS_FIN_WAIT_1:
      // Our FIN is not acknowledged yet: the fifth step would have entered FIN_WAIT_2.
      tcp_state_change(tp, TCPS_CLOSING);
      return CONT;
    case TCPS_FIN_WAIT_2:
      tcp_twstart(tp);
      return DEAD;
    case TCPS_CLOSE_WAIT:
    case TCPS_CLOSING:
    case TCPS_LAST_ACK:
      return CONT;
    case TCPS_CLOSED:
    case TCPS_LISTEN:
    case TCPS_SYN_SENT:
    case TCPS_TIME_WAIT:
      KASSERT(false, 'finReceived: not a synchronized state');
      return DEAD;
  }
}

/**
 * Sends an ACK like any other, with SACK blocks and with a FIN that is not acknowledged yet, but at
 * the limited rate of challenge ACKs: two ends that each reject the other's segments would otherwise
 * exchange ACKs endlessly.
 */
function limitedAck(tp: Tcpcb): void {
  if (!challengeAllowed(tp)) return;
  tp.t_flags |= TF_ACKNOW;
  tp.t_fb.tfb_tcp_output(tp);
}

/** Ends the processing of a segment as `verdict` says: frees seg.m and sends the RST or ACK. */
function finish(tp: Tcpcb, seg: TcpSegment, verdict: Verdict): void {
  m_freem(seg.m);
  seg.m = null;
  const inp = tp.t_inpcb;
  switch (verdict) {
    case DROPWITHRESET:
      tcp_dropwithreset(tp.t_tcp, tp, inp.inp_inc, seg, true);
      return;
    case DROPAFTERACK:
      // This ACK replaces one that an earlier step requested.
      tp.t_flags &= ~TF_ACKNOW;
      limitedAck(tp);
      return;
    case DEAD:
      return;
    case CONT:
    case DROP:
      // Send the ACK that an earlier step requested.
      if ((tp.t_flags & TF_ACKNOW) !== 0) tp.t_fb.tfb_tcp_output(tp);
      else if (seg.challenge) limitedAck(tp);
      return;
  }
}

/**
 * Runs the steps of RFC 9293, 3.10.7.4 up to the fifth. Returns CONT if data and FIN must be
 * processed.
 */
function steps(tp: Tcpcb, seg: TcpSegment): Verdict {
  if (tp.t_state === TCPS_SYN_SENT) return synSent(tp, seg);
  let verdict = stepSynReceived(tp, seg);
  if (verdict === CONT) verdict = stepReset(tp, seg);
  // Check SYN before PAWS. The SYN of a restarted peer may have any timestamp, and the peer needs
  // the challenge ACK to detect the half-open connection (RFC 9293, 3.5.1).
  if (verdict === CONT) verdict = stepSyn(tp, seg);
  if (verdict === CONT) verdict = stepPaws(tp, seg);
  if (verdict === CONT) verdict = trimSyn(tp, seg);
  if (verdict === CONT) verdict = stepSequence(tp, seg);
  if (verdict === CONT) verdict = stepAck(tp, seg);
  return verdict;
}

/** Sends what the ACK allows: at the end of the pass, unless the connection is in recovery or ends. */
function moreToSend(tp: Tcpcb): void {
  const plain = (tp.t_flags & (TF_FASTRECOVERY | TF_CONGRECOVERY)) === 0;
  if (plain && tp.t_state === TCPS_ESTABLISHED) tcpPassOutput(tp);
  else tp.t_fb.tfb_tcp_output(tp);
}

/**
 * Processes a segment of a connection in any state except CLOSED, LISTEN and TIME_WAIT. Takes
 * seg.m. The caller has checked its headers and parsed its options.
 * @see sys/netinet/tcp_input.c
 */
export function tcp_do_segment(tp: Tcpcb, seg: TcpSegment): void {
  if ((seg.flags & (TH_SYN | TH_FIN)) === (TH_SYN | TH_FIN) && tp.t_tcp.params.drop_synfin) {
    countSegment(seg, R_TCP_BADSYN);
    m_freem(seg.m);
    seg.m = null;
    return;
  }
  tp.t_rcvtime = tcpTicks();
  if ((seg.flags & TH_SYN) === 0) seg.wnd <<= tp.snd_scale;
  const so = tp.t_inpcb.inp_socket!;
  tp.rcv_wnd = Math.max(sbspace(so.so_rcv), seqDiff(tp.rcv_adv, tp.rcv_nxt), 0);
  const missingTs = (tp.t_flags & TF_RCVD_TSTMP) !== 0 && (seg.to_flags & TOF_TS) === 0;
  const ecn = (tp.t_flags2 & (TF2_ECN_PERMIT | TF2_ACE_PERMIT)) !== 0;
  if (ecn && tp.t_state !== TCPS_SYN_SENT && inWindow(tp, seg)) tcp_ecn_input_segment(tp, seg);
  // RFC 7323, 3.2: after negotiation every segment except a RST carries a timestamp. Some peers omit
  // it.
  if (missingTs && (seg.flags & TH_RST) === 0 && !tp.t_tcp.params.tolerate_missing_ts) {
    countSegment(seg, R_TCP_PAWS);
    m_freem(seg.m);
    seg.m = null;
    return;
  }
  if (!missingTs && fastPath(tp, seg)) {
    m_freem(seg.m);
    seg.m = null;
    return;
  }
  seg.challenge = false;
  // The steps below compare with the last ACK sent.
  tcpPassAckNow(tp);
  const una = tp.snd_una;
  let verdict = steps(tp, seg);
  if (verdict !== CONT) {
    finish(tp, seg, verdict);
    return;
  }
  // Call tcp_output also for an ACK that freed send buffer space without a window update.
  const windowMoved = updateWindow(tp, seg) || tp.snd_una !== una;
  stepUrg(tp, seg);
  stepText(tp, seg);
  if ((seg.flags & TH_FIN) !== 0) verdict = finReceived(tp);
  m_freem(seg.m);
  seg.m = null;
  if (verdict === DEAD) return;
  if (seg.challenge && (tp.t_flags & TF_ACKNOW) === 0) limitedAck(tp);
  if ((tp.t_flags & TF_ACKNOW) !== 0) tp.t_fb.tfb_tcp_output(tp);
  else if (windowMoved) moreToSend(tp);
  if ((tp.t_flags & TF_DELACK) !== 0 && !tcp_timer_active(tp, TT_DELACK))
    tcp_timer_activate(tp, TT_DELACK, tp.t_tcp.params.delacktime);
}
