/**
 * Output of a connection, after sys/netinet/tcp_output.c: `plan` decides what to send (windows,
 * Nagle, silly windows, window updates, FIN); `send` builds one segment or TSO packet, passes it to
 * IP and updates the send variables. Left out: IP options.
 */

import { nextPktId } from '../sys/packet_id.ts';
import {
  EACCES,
  EHOSTDOWN,
  EHOSTUNREACH,
  EMSGSIZE,
  ENETDOWN,
  ENETUNREACH,
  ENOBUFS,
  EPERM,
  type Errno,
} from '../sys/errno.ts';
import { recordEnter, recordLeave } from '../sys/pass.ts';
import { count, R_TCP_SACK_REXMT } from '../sys/reason.ts';
import { kva, type TcpSeq, tcpSeq } from '../sys/types.ts';
import { m_freem, m_gethdr } from '../kern/kern_mbuf.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import { type Mbuf, max_linkhdr, MHLEN, M_NOWAIT, MT_DATA, mtod } from '../kern/mbuf.ts';
import { IPPROTO_TCP } from '../kern/protosw.ts';
import {
  sbavail,
  sbsndOff,
  sbsndptr_adv,
  sbsndptr_noadv,
  sbspace,
  sbused,
} from '../kern/uipc_sockbuf.ts';
import { payloadReason, READ_SMALL } from '../vm/payload.ts';
import { cc_after_idle } from './cc.ts';
import {
  TCP_MAXWIN,
  Tcphdr,
  TH_ACK,
  TH_FIN,
  TH_PUSH,
  TH_RST,
  TH_SUM_OFF,
  TH_SYN,
  TH_URG,
} from './tcp.ts';
import {
  ecnSynAck,
  IPTOS_ECN_ECT0,
  IPTOS_ECN_MASK,
  tcp_ecn_output_established,
  tcp_ecn_output_syn_sent,
} from './tcp_ecn.ts';
import {
  tcp_outflags,
  TCPS_HAVEESTABLISHED,
  TCPS_HAVERCVDSYN,
  TCPS_SYN_RECEIVED,
} from './tcp_fsm.ts';
import { copymLen, tcp_m_copym, trimChain } from './tcp_m_copym.ts';
import { putSack, putTimestamp } from './tcp_options.ts';
import {
  sackRescue,
  sackRexmitted,
  tcp_clean_dsack_blocks,
  tcp_compute_pipe,
  tcp_sack_adjust,
  tcp_sack_output,
} from './tcp_sack.ts';
import { SEQ_GT, SEQ_LT, seqAdd, seqDiff } from './tcp_seq.ts';
import { tcp_sndbuf_autoscale } from './tcp_sndbuf.ts';
import { putSyn, synDataLen, tfoHeld } from './tcp_syn.ts';
import { tcp_mss_update, tcpMayUseTso } from './tcp_subr.ts';
import { tcp_setpersist, tcp_timer_activate, tcp_timer_active } from './tcp_timer.ts';
import {
  outputQuota,
  type Sackhole,
  tcp_maxseg,
  type Tcpcb,
  tcpTicks,
  TF_ACKNOW,
  TF_DELACK,
  TF_FASTRECOVERY,
  TF_FASTOPEN,
  TF_FORCEDATA,
  TF_LASTIDLE,
  TF_MORETOCOME,
  TF_NODELAY,
  TF_NOOPT,
  TF_NOPUSH,
  TF_RCVD_TSTMP,
  TF_SACK_PERMIT,
  TF_SENTFIN,
  TF2_ACE_PERMIT,
  TF2_ECN_PERMIT,
  TF2_PLPMTU_MAXSEGSNT,
  TT_DELACK,
  TT_PERSIST,
  TT_REXMT,
} from './tcp_var.ts';
import { windowField, windowUpdateDue } from './tcp_window.ts';
import { tcpCaptureOut, tcpCaptureWanted } from './tcp_capture.ts';

/** The next packet, filled by `plan` and used by `send`. Only one tcp_output runs at a time. */
const p = {
  entered: false,
  /** Payload bytes, and their offset from snd_una. */
  len: 0,
  off: 0,
  flags: 0,
  /** Receive window to advertise, bytes. */
  recwin: 0,
  tso: false,
  /** Another packet may follow this one. */
  sendalot: false,
  /** The SACK hole that it retransmits, or null. */
  hole: null as Sackhole | null,
  /** It is a rescue retransmission. */
  rescue: false,
  /** ECN codepoint of the IP header. */
  ecn: 0,
};

const SACK_RECOVERY = TF_FASTRECOVERY | TF_SACK_PERMIT;
const ECN_ON = TF2_ECN_PERMIT | TF2_ACE_PERMIT;
const $th = new Tcphdr();

/** Whether to send p.len > 0 bytes now: Nagle and silly windows, RFC 9293, 3.7.4 and 3.8.6.2.1. */
function worthSending(tp: Tcpcb, idle: boolean, maxseg: number, avail: number): boolean {
  if (p.len >= maxseg) return true;
  const f = tp.t_flags;
  if (
    (f & (TF_MORETOCOME | TF_NOPUSH)) === 0 &&
    (idle || (f & TF_NODELAY) !== 0) &&
    p.len + p.off >= avail
  )
    return true;
  return (
    (f & TF_FORCEDATA) !== 0 ||
    (p.len >= tp.max_sndwnd / 2 && tp.max_sndwnd > 0) ||
    SEQ_LT(tp.snd_nxt, tp.snd_max)
  );
}

/** The part of `plan` for a SYN or its retransmission. Only an implied connect sends data with it. */
function planSyn(tp: Tcpcb): boolean {
  p.len = 0;
  p.tso = false;
  if (tfoHeld(tp)) return false;
  if (tp.snd_nxt === tp.iss) {
    p.flags &= ~TH_FIN;
    p.len = synDataLen(tp);
    return true;
  }
  // The SYN was sent, so only an ACK may be due. As in FreeBSD, in SYN_RECEIVED it is the SYN-ACK
  // again; with Fast Open, whose SYN-ACK may be acknowledged in part, a plain ACK.
  p.flags &= ~TH_FIN;
  const due = tp.t_state === TCPS_SYN_RECEIVED && (tp.t_flags & TF_ACKNOW) !== 0;
  if (due && (tp.t_flags & TF_FASTOPEN) === 0) {
    tp.snd_nxt = tp.iss;
    p.off = 0;
  } else {
    p.flags &= ~TH_SYN;
  }
  return due;
}

/**
 * If the peer closed its window before all data was sent, sets snd_nxt back to snd_una and starts the
 * persist timer. If all of it is in flight, the retransmission timer runs on, as in FreeBSD.
 */
function windowClosed(tp: Tcpcb, avail: number): void {
  if (tp.snd_wnd !== 0 || !TCPS_HAVEESTABLISHED(tp.t_state) || p.off >= avail) return;
  tcp_timer_activate(tp, TT_REXMT, 0);
  tp.t_rxtshift = 0;
  tp.snd_nxt = tp.snd_una;
  if (!tcp_timer_active(tp, TT_PERSIST)) tcp_setpersist(tp);
}

/**
 * Plans a packet in SACK recovery after NextSeg of RFC 6675: first a lost hole, then new data, then
 * a hole that may be lost, then one rescue retransmission. cwnd minus pipe limits the size. Returns
 * true for a retransmission; for new data returns false with p.len set (0: nothing to send).
 */
function planRecovery(tp: Tcpcb, idle: boolean, avail: number): boolean {
  const room = tp.snd_cwnd - tcp_compute_pipe(tp);
  const lost = tcp_sack_output(tp, true);
  if (planHole(tp, lost, room)) return true;
  p.off = seqDiff(tp.snd_nxt, tp.snd_una);
  p.len = 0;
  // A lost hole that does not fit yet goes first; send nothing before it.
  if (lost !== null) return false;
  const fresh = Math.min(avail, tp.snd_wnd) - p.off;
  p.len = Math.max(fresh, 0);
  // Use the next rules if Nagle holds the new data back; otherwise no ACKs would return.
  if (p.len > 0 && worthSending(tp, idle, tcp_maxseg(tp), avail)) {
    p.len = Math.max(Math.min(fresh, room), 0);
    // Plan again after it: the next rules may apply.
    p.sendalot = p.len > 0;
    return false;
  }
  p.len = 0;
  const any = tcp_sack_output(tp, false);
  return any === null ? planRescue(tp, room) : planHole(tp, any, room);
}

/** Plans the rescue retransmission if it is due and fits into `room` bytes; returns whether so. */
function planRescue(tp: Tcpcb, room: number): boolean {
  const maxseg = tcp_maxseg(tp);
  if (room < maxseg || tp.snd_wnd === 0 || !sackRescue(tp)) return false;
  // Take the last segment in flight. A FIN uses a sequence number but no byte of the buffer.
  const fin = (tp.t_flags & TF_SENTFIN) !== 0 ? 1 : 0;
  const end = seqDiff(tp.snd_max, tp.snd_una) - fin;
  p.off = Math.max(end - maxseg, seqDiff(tp.snd_fack, tp.snd_una));
  p.len = Math.max(end - p.off, 0);
  if (fin === 0) p.flags &= ~TH_FIN;
  p.rescue = true;
  p.sendalot = true;
  return true;
}

/** Plans a segment from `hole` if not null and if it fits into `room` bytes; returns whether so. */
function planHole(tp: Tcpcb, hole: Sackhole | null, room: number): boolean {
  if (hole === null) return false;
  const len = Math.min(seqDiff(hole.end, hole.rxmit), tcp_maxseg(tp));
  if (room < len) return false;
  p.hole = hole;
  p.len = len;
  p.off = seqDiff(hole.rxmit, tp.snd_una);
  p.flags &= ~TH_FIN;
  p.sendalot = true;
  return true;
}

/** Plans the next packet in `p`. Returns whether to send it. */
function plan(tp: Tcpcb, idle: boolean): boolean {
  const so = tp.t_inpcb.inp_socket!;
  const snd = so.so_snd;
  const avail = sbavail(snd);
  const used = sbused(snd);
  p.sendalot = false;
  p.tso = false;
  p.hole = null;
  p.rescue = false;
  const limit = SEQ_LT(tp.snd_nxt, tp.snd_max) ? tcp_sack_adjust(tp) : 0;
  p.off = seqDiff(tp.snd_nxt, tp.snd_una);
  p.flags = tcp_outflags[tp.t_state]!;
  const scale = tp.rcv_scale;
  p.recwin = Math.min(Math.max(sbspace(so.so_rcv), 0), TCP_MAXWIN << scale);
  if ((p.flags & TH_RST) !== 0) {
    p.len = 0;
    return true;
  }
  if ((p.flags & TH_SYN) !== 0) return planSyn(tp);
  let sendwin = Math.min(tp.snd_wnd, tp.snd_cwnd);
  if ((tp.t_flags & TF_FORCEDATA) !== 0) {
    if (sendwin === 0) {
      if (p.off < used) p.flags &= ~TH_FIN;
      sendwin = 1;
    } else {
      tcp_timer_activate(tp, TT_PERSIST, 0);
      tp.t_rxtshift = 0;
    }
  }
  p.len = Math.min(avail, sendwin) - p.off;
  if (limit > 0 && p.len > limit) {
    p.len = limit;
    p.sendalot = true;
  }
  // A window probe is sent during recovery too.
  const sackRecovery =
    (tp.t_flags & (SACK_RECOVERY | TF_FORCEDATA)) === SACK_RECOVERY && tp.recover_fs > 0;
  if (sackRecovery && (tp.snd_holes !== null || tp.snd_wnd > 0)) {
    if (planRecovery(tp, idle, avail)) return true;
  } else if (p.len < 0 || (p.len === 0 && !tcp_timer_active(tp, TT_PERSIST))) {
    p.len = 0;
    windowClosed(tp, avail);
    p.off = seqDiff(tp.snd_nxt, tp.snd_una);
  }
  tcp_sndbuf_autoscale(tp, snd, sendwin);
  const maxseg = tcp_maxseg(tp);
  if (p.len > maxseg) {
    if (tcpMayUseTso(tp)) {
      p.tso = true;
    } else {
      p.len = maxseg;
      p.sendalot = true;
    }
  }
  // Once the FIN is sent, every ACK repeats it until it is acknowledged.
  if (p.off + p.len < used) p.flags &= ~TH_FIN;
  if (p.len > 0 && worthSending(tp, idle, maxseg, avail)) return true;
  if (windowUpdateDue(tp, p.recwin)) return true;
  if ((tp.t_flags & TF_ACKNOW) !== 0) return true;
  // Urgent data that is not acknowledged overrides Nagle and closed windows. As in FreeBSD, each call
  // announces it, with an ACK if nothing else is due.
  if (SEQ_GT(tp.snd_up, tp.snd_una)) return true;
  if ((p.flags & TH_FIN) !== 0 && ((tp.t_flags & TF_SENTFIN) === 0 || tp.snd_nxt === tp.snd_una))
    return true;
  guard(tp, avail);
  return false;
}

/** Starts a timer if data is unacknowledged or unsent and no timer runs. */
function guard(tp: Tcpcb, avail: number): void {
  if (tcp_timer_active(tp, TT_REXMT) || tcp_timer_active(tp, TT_PERSIST)) return;
  const off = seqDiff(tp.snd_nxt, tp.snd_una);
  if (tp.snd_max !== tp.snd_una && (tp.snd_wnd > 0 || avail <= off)) {
    // Recovery stopped the timer and sent nothing. Data in flight still needs it: RFC 6298 (5.1).
    tcp_timer_activate(tp, TT_REXMT, tp.t_rxtcur);
  } else if (avail > off && off >= 0) {
    // Data waits for the window. Probe it: RFC 9293, 3.8.6.1.
    tp.t_rxtshift = 0;
    tcp_setpersist(tp);
  }
}

/** Writes the segment's options at `at`. Returns their length in bytes. */
function tcp_addoptions(tp: Tcpcb, at: number): number {
  const f = tp.t_flags;
  const tsval = (tcpTicks() + tp.ts_offset) | 0;
  if ((p.flags & TH_SYN) !== 0) {
    const len = putSyn(tp, kva(at), (p.flags & TH_ACK) !== 0, tsval);
    p.len = Math.min(p.len, tp.t_maxseg - len);
    return len;
  }
  const rst = (p.flags & TH_RST) !== 0;
  if ((f & TF_RCVD_TSTMP) === 0) return rst ? 0 : putSack(kva(at), tp);
  // Start a measurement of the receive buffer's autotuning.
  if (tp.rfbuf_ts === 0) {
    tp.rfbuf_ts = tsval === 0 ? 1 : tsval;
    tp.rfbuf_cnt = 0;
  }
  const len = putTimestamp(kva(at), tsval, tp.ts_recent);
  return tp.rcv_numsacks === 0 || rst ? len : len + putSack(kva(at + len), tp);
}

/** Limits a TSO packet to the NIC's maximum, and to full segments unless it empties the buffer. */
function limitTso(tp: Tcpcb, hdrlen: number, avail: number): void {
  const maxseg = tcp_maxseg(tp);
  const max = Math.min(tp.t_tsomax - max_linkhdr, 65535) - hdrlen;
  if (p.len > max) {
    p.len = Math.max(max, maxseg);
    p.sendalot = true;
  }
  fullSegments(maxseg, avail);
  if (p.len <= maxseg) p.tso = false;
}

/** Cuts off a short last segment, unless the packet empties the buffer. */
function fullSegments(maxseg: number, avail: number): void {
  if (p.off + p.len >= avail) return;
  const part = p.len % maxseg;
  if (part > 0 && p.len > maxseg) p.len -= part;
  p.sendalot = true;
}

/** Appends p.len bytes of payload to `m`; may reduce p.len. ENOBUFS: no memory; `m` is freed. */
function addPayload(tp: Tcpcb, m: Mbuf, hdrlen: number): Errno {
  const sb = tp.t_inpcb.inp_socket!.so_snd;
  const from = sbsndptr_noadv(sb, p.off);
  const moff = sbsndOff.off;
  if (p.len <= MHLEN - hdrlen - max_linkhdr) {
    const before = payloadReason(READ_SMALL);
    m_copydata(from, moff, p.len, kva(mtod(m) + hdrlen));
    payloadReason(before);
    sbsndptr_adv(sb, from, moff + p.len);
    m.m_len += p.len;
    return 0;
  }
  const segcount = p.tso ? tp.t_tsomaxsegcount : 0;
  m.m_next = tcp_m_copym(from, moff, p.len, segcount, tp.t_tsomaxsegsize);
  if (m.m_next === null) {
    m_freem(m);
    return ENOBUFS;
  }
  if (copymLen.len !== p.len) {
    // The packet would need too many DMA segments. Send fewer full segments.
    p.len = copymLen.len;
    p.sendalot = true;
    const maxseg = tcp_maxseg(tp);
    if (p.len > maxseg) trimChain(m.m_next, p.len - (p.len % maxseg));
    p.len = copymLen.len;
    if (p.len <= maxseg) p.tso = false;
  }
  sbsndptr_adv(sb, from, moff + p.len);
  return 0;
}

/** The sequence number of the segment. */
function segmentSeq(tp: Tcpcb): TcpSeq {
  if (p.hole !== null) return p.hole.rxmit;
  if (p.rescue) return seqAdd(tp.snd_una, p.off);
  if ((p.flags & TH_RST) !== 0) {
    // The peer accepts a RST only at its rcv_nxt (RFC 5961, 3.2). Most likely that is snd_max, or
    // the edge of its window if less.
    const edge = seqAdd(tp.snd_una, tp.snd_wnd);
    return SEQ_GT(tp.snd_max, edge) ? edge : tp.snd_max;
  }
  if (p.len > 0 || (p.flags & (TH_SYN | TH_FIN)) !== 0 || tcp_timer_active(tp, TT_PERSIST))
    return tp.snd_nxt;
  return tp.snd_max;
}

/** Counts the segment in FreeBSD's statistics, by its purpose. */
function countSent(tp: Tcpcb): void {
  const { stat } = tp.t_tcp;
  stat.tcps_sndtotal++;
  if (p.len > 0) {
    if ((tp.t_flags & TF_FORCEDATA) !== 0 && p.len === 1) {
      stat.tcps_sndprobe++;
    } else if (p.hole !== null || p.rescue || SEQ_LT(tp.snd_nxt, tp.snd_max)) {
      if (p.hole !== null || p.rescue) {
        count(R_TCP_SACK_REXMT);
        stat.tcps_sack_rexmits++;
        stat.tcps_sack_rexmit_bytes += p.len;
      }
      tp.t_sndrexmitpack++;
      stat.tcps_sndrexmitpack++;
      stat.tcps_sndrexmitbyte += p.len;
    } else {
      stat.tcps_sndpack++;
      stat.tcps_sndbyte += p.len;
    }
  } else if ((tp.t_flags & TF_ACKNOW) !== 0) {
    stat.tcps_sndacks++;
  } else if ((p.flags & (TH_SYN | TH_FIN | TH_RST)) !== 0) {
    stat.tcps_sndctrl++;
  } else if (SEQ_GT(tp.snd_up, tp.snd_una)) {
    stat.tcps_sndurg++;
  } else {
    stat.tcps_sndwinup++;
  }
}

/** Moves the send variables past the segment and starts its timer. */
function advance(tp: Tcpcb): void {
  const recovering = (tp.t_flags & SACK_RECOVERY) === SACK_RECOVERY;
  if (recovering) tp.prr_out += p.len;
  // Black hole detection considers only segments of full size.
  if (p.len >= tcp_maxseg(tp)) tp.t_flags2 |= TF2_PLPMTU_MAXSEGSNT;
  else if (p.len > 0) tp.t_flags2 &= ~TF2_PLPMTU_MAXSEGSNT;
  if (p.hole !== null || p.rescue) {
    if (p.hole !== null) sackRexmitted(tp, p.hole, p.len);
    else tp.rescueRxt = tp.snd_recover;
    if (!tcp_timer_active(tp, TT_REXMT)) tcp_timer_activate(tp, TT_REXMT, tp.t_rxtcur);
    return;
  }
  // No data was in flight. Start the time within which the peer must acknowledge.
  if (tp.snd_una === tp.snd_max) tp.t_acktime = tcpTicks();
  const ctl = ((p.flags & TH_SYN) !== 0 ? 1 : 0) + ((p.flags & TH_FIN) !== 0 ? 1 : 0);
  if ((tp.t_flags & TF_FORCEDATA) !== 0 && tcp_timer_active(tp, TT_PERSIST)) {
    // The persist timer resends a probe from the same snd_nxt until the window opens.
    if ((p.flags & TH_FIN) !== 0) tp.t_flags |= TF_SENTFIN;
    const end = seqAdd(tp.snd_nxt, p.len + ctl);
    if (SEQ_GT(end, tp.snd_max)) tp.snd_max = end;
    return;
  }
  const start = tp.snd_nxt;
  if ((p.flags & TH_FIN) !== 0) tp.t_flags |= TF_SENTFIN;
  tp.snd_nxt = seqAdd(start, p.len + ctl);
  if (SEQ_GT(tp.snd_nxt, tp.snd_max)) {
    tp.snd_max = tp.snd_nxt;
    // RFC 6298 (3): measure the RTT only of new data.
    if (tp.t_rtttime === 0) {
      tp.t_rtttime = tcpTicks() || 1;
      tp.t_rtseq = start;
      tp.t_tcp.stat.tcps_segstimed++;
    }
  }
  if (!tcp_timer_active(tp, TT_REXMT) && tp.snd_nxt !== tp.snd_una && p.len + ctl > 0) {
    if (tcp_timer_active(tp, TT_PERSIST)) {
      tcp_timer_activate(tp, TT_PERSIST, 0);
      tp.t_rxtshift = 0;
    }
    tcp_timer_activate(tp, TT_REXMT, tp.t_rxtcur);
  }
}

/**
 * Returns the urgent pointer of the segment at `seq` and sets URG: RFC 9293, 3.8.5. Without urgent
 * data, keeps snd_up at or beyond snd_una. Unlike FreeBSD: it is at most 65535 and does not wrap.
 */
function urgent(tp: Tcpcb, seq: TcpSeq): number {
  if ((p.flags & (TH_SYN | TH_RST)) !== 0) return 0;
  if (SEQ_GT(tp.snd_up, seq)) {
    p.flags |= TH_URG;
    return Math.min(seqDiff(tp.snd_up, seq), 65535);
  }
  if (SEQ_LT(tp.snd_up, tp.snd_una)) tp.snd_up = tp.snd_una;
  return 0;
}

/** Fills in the headers of the segment in `m`. */
function fillHeaders(tp: Tcpcb, m: Mbuf, ipoptlen: number, hdrlen: number): void {
  const inp = tp.t_inpcb;
  const af = inp.inp_af;
  const total = hdrlen + p.len;
  const th = $th.at(kva(mtod(m) + af.hdrlen));
  th.th_sport = inp.inp_inc.inc_lport;
  th.th_dport = inp.inp_inc.inc_fport;
  th.th_seq = segmentSeq(tp);
  th.th_ack = (p.flags & TH_ACK) !== 0 ? tp.rcv_nxt : tcpSeq(0);
  th.th_off = (Tcphdr.SIZE + ipoptlen) >> 2;
  const win = windowField(tp, p.recwin, p.flags);
  // RFC 7323, 2.2: the window of a SYN is not scaled.
  p.recwin = (p.flags & TH_SYN) !== 0 ? win : win << tp.rcv_scale;
  th.th_win = win;
  th.th_urp = urgent(tp, th.th_seq);
  th.th_flags = p.flags;
  const ph = m.m_pkthdr;
  ph.len = total;
  ph.csum_flags = af.csumTcp;
  ph.csum_data = TH_SUM_OFF;
  ph.pktId = nextPktId();
  // With TSO the NIC adds each segment's length to the pseudo-header checksum.
  if (p.tso) {
    // Unlike FreeBSD, set only the bit of this IP version. FreeBSD's CSUM_TSO has both: with TSO6
    // on and TSO4 off, ip_output would pass the packet to an interface that cannot segment it.
    ph.csum_flags |= af.csumTso;
    ph.tso_segsz = tcp_maxseg(tp);
    th.th_sum = af.pseudo(inp.inp_inc, IPPROTO_TCP);
  } else {
    th.th_sum = af.pseudo(inp.inp_inc, Tcphdr.SIZE + ipoptlen + p.len + IPPROTO_TCP);
  }
  // Segments of minmss pass any path, if need be in fragments: ICMP cannot make them smaller.
  const { path_mtu_discovery, minmss } = tp.t_tcp.params;
  const df = path_mtu_discovery && tp.t_maxseg > minmss;
  // With ECN, ignore the two low bits of the program's IP_TOS: RFC 3168, 5, gives them to ECN.
  const ecn = (tp.t_flags2 & ECN_ON) !== 0;
  const asked = af.tosOf(inp);
  const tos = ecn ? (asked & ~IPTOS_ECN_MASK) | p.ecn : asked;
  af.fill(mtod(m), inp.inp_inc, total, IPPROTO_TCP, af.ttlOf(inp), tos, df);
}

/**
 * Sets the ECN flags and codepoint: RFC 3168, 6.1. Only new data is sent as ECN-capable, and no window
 * probe.
 */
function ecnFlags(tp: Tcpcb): void {
  p.ecn = 0;
  if ((p.flags & (TH_SYN | TH_ACK)) === TH_SYN) {
    p.flags |= tcp_ecn_output_syn_sent(tp);
  } else if ((tp.t_flags2 & ECN_ON) === 0 || (p.flags & TH_RST) !== 0) {
    return;
  } else if ((p.flags & TH_SYN) !== 0) {
    p.flags |= ecnSynAck(tp);
  } else {
    const fresh =
      p.len > 0 &&
      p.hole === null &&
      !p.rescue &&
      !SEQ_LT(tp.snd_nxt, tp.snd_max) &&
      !((tp.t_flags & TF_FORCEDATA) !== 0 && p.len === 1);
    p.flags |= tcp_ecn_output_established(tp, fresh);
    if (fresh) p.ecn = IPTOS_ECN_ECT0;
  }
}

/** Builds the planned packet and sends it. Returns 0, or the error IP returned. */
function send(tp: Tcpcb): Errno {
  const inp = tp.t_inpcb;
  const sb = inp.inp_socket!.so_snd;
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) return ENOBUFS;
  m.m_data += max_linkhdr;
  const iphdr = inp.inp_af.hdrlen;
  const noopt = (tp.t_flags & TF_NOOPT) !== 0;
  const optlen = noopt ? 0 : tcp_addoptions(tp, m.m_data + iphdr + Tcphdr.SIZE);
  const hdrlen = iphdr + Tcphdr.SIZE + optlen;
  m.m_len = hdrlen;
  if (p.tso) limitTso(tp, hdrlen, sbavail(sb));
  if (p.len > 0) {
    const error = addPayload(tp, m, hdrlen);
    if (error !== 0) return error;
  }
  const used = sbused(sb);
  if (p.off + p.len < used) p.flags &= ~TH_FIN;
  if (p.len > 0 && p.off + p.len === used && (p.flags & TH_SYN) === 0) p.flags |= TH_PUSH;
  countSent(tp);
  ecnFlags(tp);
  const start = tp.snd_nxt;
  // A FIN that is sent again has the sequence number that it had.
  const plain = p.hole === null && !p.rescue;
  if (plain && (p.flags & TH_FIN) !== 0 && (tp.t_flags & TF_SENTFIN) !== 0 && start === tp.snd_max)
    tp.snd_nxt = seqAdd(start, -1);
  fillHeaders(tp, m, optlen, hdrlen);
  if (tcpCaptureWanted()) {
    const seq = segmentSeq(tp);
    tcpCaptureOut(tp, m, seq, p.len, SEQ_LT(seq, tp.snd_max));
  }
  advance(tp);
  const error = inp.inp_af.output(m, inp, inp.inp_vnet);
  if (error === 0) return 0;
  // The packet was not sent. Undo `advance`, so that the next call sends the same data.
  if ((tp.t_flags & SACK_RECOVERY) === SACK_RECOVERY) tp.prr_out -= p.len;
  if (p.hole !== null) sackRexmitted(tp, p.hole, -p.len);
  else if ((p.flags & TH_SYN) === 0 && !tcp_timer_active(tp, TT_PERSIST)) tp.snd_nxt = start;
  return error;
}

/** Handles an error from IP. Returns the result of tcp_output. */
function sendError(tp: Tcpcb, error: Errno): Errno {
  switch (error) {
    case ENOBUFS:
      // No memory, or the interface's queue is full. Reduce cwnd to one segment; the timer retries.
      if (p.len === 0 && (p.flags & (TH_SYN | TH_FIN)) === 0 && tp.snd_una === tp.snd_max) {
        // A pure ACK: retry by the delayed ACK timer, which counts no retransmission timeout.
        tcp_timer_activate(tp, TT_DELACK, tp.t_tcp.params.delacktime);
        return 0;
      }
      if (!tcp_timer_active(tp, TT_REXMT) && !tcp_timer_active(tp, TT_PERSIST))
        tcp_timer_activate(tp, TT_REXMT, tp.t_rxtcur);
      tp.snd_cwnd = tcp_maxseg(tp);
      return 0;
    case EMSGSIZE:
      // The interface lost TSO, or its MTU shrank.
      tcp_mss_update(tp, -1, 0);
      if (!tcp_timer_active(tp, TT_REXMT)) tcp_timer_activate(tp, TT_REXMT, tp.t_rxtcur);
      return 0;
    case EPERM:
    case EACCES:
      tp.t_softerror = error;
      return 0;
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
      if (!TCPS_HAVERCVDSYN(tp.t_state)) return error;
      tp.t_softerror = error;
      return 0;
    default:
      return error;
  }
}

/** Records the advertised window and the ACK of a sent packet, and clears the pending ACK flags. */
function sent(tp: Tcpcb): void {
  if (p.recwin > 0) {
    const edge = seqAdd(tp.rcv_nxt, p.recwin);
    if (SEQ_GT(edge, tp.rcv_adv)) tp.rcv_adv = edge;
  }
  tp.last_ack_sent = tp.rcv_nxt;
  if (tp.dsack) tcp_clean_dsack_blocks(tp);
  tp.t_flags &= ~(TF_ACKNOW | TF_DELACK);
  if (tcp_timer_active(tp, TT_DELACK)) tcp_timer_activate(tp, TT_DELACK, 0);
}

/**
 * Sends the data, FIN, ACKs and window updates that are due. Returns 0, or the error that the
 * program's call reports; the connection stays open. Panics on a recursive call.
 * @see sys/netinet/tcp_output.c
 */
export function tcp_output(tp: Tcpcb): Errno {
  recordEnter(p);
  try {
    return output(tp);
  } finally {
    recordLeave(p);
  }
}

function output(tp: Tcpcb): Errno {
  let idle = (tp.t_flags & TF_LASTIDLE) !== 0 || tp.snd_max === tp.snd_una;
  if (idle && TCPS_HAVEESTABLISHED(tp.t_state) && ((tcpTicks() - tp.t_rcvtime) | 0) >= tp.t_rxtcur)
    cc_after_idle(tp);
  tp.t_flags &= ~TF_LASTIDLE;
  if (idle && (tp.t_flags & TF_MORETOCOME) !== 0) {
    tp.t_flags |= TF_LASTIDLE;
    idle = false;
  }
  let again = true;
  outputQuota.sent = 0;
  while (outputQuota.sent < outputQuota.packets && plan(tp, idle)) {
    outputQuota.sent++;
    const error = send(tp);
    if (error !== 0) {
      const result = sendError(tp, error);
      // Retry once with the new segment size. More retries could loop endlessly on a wrong MTU.
      if (error !== EMSGSIZE || !again) return result;
      again = false;
      continue;
    }
    sent(tp);
    if (p.sendalot) continue;
    // After a pure ACK, data may still wait for the window. Keep a timer running.
    if (p.len === 0 && TCPS_HAVEESTABLISHED(tp.t_state))
      guard(tp, sbavail(tp.t_inpcb.inp_socket!.so_snd));
    break;
  }
  return 0;
}
