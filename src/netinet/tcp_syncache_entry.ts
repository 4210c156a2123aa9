/**
 * An entry of the syncache and the connection that it becomes, part of sys/netinet/tcp_syncache.c in
 * FreeBSD.
 */

import { tcpSeq, type TcpSeq } from '../sys/types.ts';
import { SB_AUTOSIZE } from '../kern/uipc_sockbuf.ts';
import { type Socket, sonewconn } from '../kern/uipc_socket.ts';
import { InConninfo, INP_DONTFRAG, type Inpcb, pcbSetConn } from './in_pcb.ts';
import type { IpOptions } from './ip_options.ts';
import { tcp_ecn_syncache_socket } from './tcp_ecn.ts';
import { tcp_state_change, TCPS_SYN_RECEIVED } from './tcp_fsm.ts';
import { seqAdd } from './tcp_seq.ts';
import { intotcpcb, tcp_mss } from './tcp_subr.ts';
import { tcp_timer_activate } from './tcp_timer.ts';
import {
  type Tcpcb,
  tcpTicks,
  type TcpVnet,
  TF_NODELAY,
  TF_NOOPT,
  TF_NOPUSH,
  TF_RCVD_SCALE,
  TF_RCVD_TSTMP,
  TF_REQ_SCALE,
  TF_REQ_TSTMP,
  TF_SACK_PERMIT,
  TP_KEEPINIT,
  TT_KEEP,
} from './tcp_var.ts';

// sc_flags
export const SCF_NOOPT = 0x01;
export const SCF_WINSCALE = 0x02;
export const SCF_TIMESTAMP = 0x04;
export const SCF_SACK = 0x08;
export const SCF_UNREACH = 0x20;

/** One half-open connection. Pooled. @see sys/netinet/tcp_syncache.h */
export class Syncache {
  readonly sc_inc = new InConninfo();
  sc_flags = 0;
  /** The ECN flags of the SYN-ACK, as tcp_ecn_syncache_add returned them; 0: no ECN. */
  ecnReply = 0;
  sc_iss: TcpSeq = tcpSeq(0);
  sc_irs: TcpSeq = tcpSeq(0);
  /** Window that our SYN-ACK announces, bytes. */
  sc_wnd = 0;
  /** The peer's MSS option (0: absent), the peer's window scale, and the scale we announce. */
  sc_peer_mss = 0;
  sc_requested_s_scale = 0;
  sc_requested_r_scale = 0;
  /** The peer's timestamp to echo, and the offset of our timestamps. */
  sc_tsreflect = 0;
  sc_tsoff = 0;
  /** Copied from the listener's IP_TTL and IP_TOS. */
  sc_ip_ttl = 64;
  sc_ip_tos = 0;
  /** The way back of a source route, for the SYN-ACK and the connection; null: none. */
  sc_ipopts: IpOptions | null = null;
  /** How often the SYN-ACK was sent. */
  sc_rxmits = 0;
  /** When the SYN-ACK is sent next, ns. */
  sc_rxttime = 0;
  /** Challenge ACKs in the current interval of the rate limit, and its end in ticks. */
  sc_challenge_ack_cnt = 0;
  sc_challenge_ack_end = 0;
  bucket = 0;
  bucketNext: Syncache | null = null;
  // Index and links of the retransmission queue. All entries of a queue were sent equally often and
  // wait equally long, so each queue is sorted by sc_rxttime. -1: not queued.
  queue = -1;
  qPrev: Syncache | null = null;
  qNext: Syncache | null = null;
}

/** Copies the listener's options, timers and congestion control to the new connection. */
function inherit(tp: Tcpcb, linp: Inpcb): void {
  const ltp = intotcpcb(linp);
  const inp = tp.t_inpcb;
  inp.inp_ip_ttl = linp.inp_ip_ttl;
  inp.inp_ip_tos = linp.inp_ip_tos;
  inp.inp_ip_minttl = linp.inp_ip_minttl;
  inp.inp_flags |= linp.inp_flags & INP_DONTFRAG;
  inp.inp_af.inherit(inp, linp);
  tp.t_flags |= ltp.t_flags & (TF_NOPUSH | TF_NODELAY);
  tp.t_cc = ltp.t_cc;
  tp.t_keepinit = ltp.t_keepinit;
  tp.t_keepidle = ltp.t_keepidle;
  tp.t_keepintvl = ltp.t_keepintvl;
  tp.t_keepcnt = ltp.t_keepcnt;
  tp.t_maxunacktime = ltp.t_maxunacktime;
}

/**
 * Creates the connection of an entry in SYN_RECEIVED. Null if sonewconn fails.
 * @see sys/netinet/tcp_syncache.c
 */
export function syncache_socket(tcp: TcpVnet, sc: Syncache, lso: Socket): Socket | null {
  const so = sonewconn(lso, 0);
  if (so === null) {
    tcp.stat.tcps_listendrop++;
    return null;
  }
  const inp = so.so_pcb as Inpcb;
  const tp = intotcpcb(inp);
  // Inherit fixed buffer sizes: SO_SNDBUF or SO_RCVBUF on the listener turned autotuning off.
  so.so_snd.sb_flags &= lso.so_snd.sb_flags | ~SB_AUTOSIZE;
  so.so_rcv.sb_flags &= lso.so_rcv.sb_flags | ~SB_AUTOSIZE;
  pcbSetConn(inp, sc.sc_inc);
  inherit(tp, lso.so_pcb as Inpcb);
  inp.inp_options = sc.sc_ipopts;
  if ((sc.sc_flags & SCF_NOOPT) !== 0) tp.t_flags |= TF_NOOPT;
  tcp_state_change(tp, TCPS_SYN_RECEIVED);
  tp.iss = sc.sc_iss;
  tp.irs = sc.sc_irs;
  tp.rcv_nxt = seqAdd(sc.sc_irs, 1);
  tp.rcv_up = tp.rcv_nxt;
  tp.rcv_adv = seqAdd(tp.rcv_nxt, sc.sc_wnd);
  tp.last_ack_sent = tp.rcv_nxt;
  tp.snd_wl1 = sc.sc_irs;
  tp.snd_una = sc.sc_iss;
  tp.snd_recover = sc.sc_iss;
  tp.snd_up = sc.sc_iss;
  tp.snd_nxt = seqAdd(sc.sc_iss, 1);
  tp.snd_max = tp.snd_nxt;
  tp.ts_offset = sc.sc_tsoff;
  if ((sc.sc_flags & SCF_WINSCALE) !== 0) {
    tp.t_flags |= TF_REQ_SCALE | TF_RCVD_SCALE;
    tp.snd_scale = sc.sc_requested_s_scale;
    tp.request_r_scale = sc.sc_requested_r_scale;
  } else {
    tp.t_flags &= ~TF_REQ_SCALE;
  }
  if ((sc.sc_flags & SCF_TIMESTAMP) !== 0) {
    tp.t_flags |= TF_REQ_TSTMP | TF_RCVD_TSTMP;
    tp.ts_recent = sc.sc_tsreflect;
    tp.ts_recent_age = tcpTicks();
  } else {
    tp.t_flags &= ~TF_REQ_TSTMP;
  }
  if ((sc.sc_flags & SCF_SACK) === 0) tp.t_flags &= ~TF_SACK_PERMIT;
  tcp_ecn_syncache_socket(tp, sc.ecnReply);
  tp.snd_fack = tp.snd_una;
  tcp_mss(tp, sc.sc_peer_mss);
  // RFC 5681, 3.1: after a SYN-ACK retransmission the initial window is one segment.
  tp.t_rxtshift = sc.sc_rxmits > 1 ? 1 : 0;
  tcp_timer_activate(tp, TT_KEEP, TP_KEEPINIT(tp));
  tcp.stat.tcps_accepts++;
  return so;
}
