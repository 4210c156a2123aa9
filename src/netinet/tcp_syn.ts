/**
 * The SYN and SYN-ACK of a connection, part of tcp_output in sys/netinet/tcp_output.c: their options,
 * and the data that they may carry. The SYN-ACKs of the syncache are in tcp_syncache.ts.
 */

import type { Kva } from '../sys/types.ts';
import { sbavail } from '../kern/uipc_sockbuf.ts';
import { TCPS_SYN_RECEIVED, TCPS_SYN_SENT } from './tcp_fsm.ts';
import { putSynOptions } from './tcp_options.ts';
import { SEQ_GT } from './tcp_seq.ts';
import { tcp_mssopt, tcpWscale } from './tcp_subr.ts';
import {
  type Tcpcb,
  TF_FASTOPEN,
  TF_NOOPT,
  TF_RCVD_SCALE,
  TF_RCVD_TSTMP,
  TF_REQ_SCALE,
  TF_REQ_TSTMP,
  TF_SACK_PERMIT,
} from './tcp_var.ts';

/**
 * Writes the options of the SYN, or with `ack` of the SYN-ACK, of `tp` at `at`; returns their length.
 * A retransmission has no Fast Open option, in case something on the path drops it: RFC 7413, 4.2.1.
 */
export function putSyn(tp: Tcpcb, at: Kva, ack: boolean, tsval: number): number {
  const f = tp.t_flags;
  const scale = (f & TF_REQ_SCALE) !== 0 && (!ack || (f & TF_RCVD_SCALE) !== 0);
  const ts = (f & TF_REQ_TSTMP) !== 0 && (!ack || (f & TF_RCVD_TSTMP) !== 0);
  if (!ack) tp.request_r_scale = tcpWscale();
  const tfo = (f & TF_FASTOPEN) !== 0 && tp.t_rxtshift === 0 ? tp.t_tfo : null;
  return putSynOptions(
    at,
    tcp_mssopt(tp.t_tcp, tp.t_inpcb.inp_inc),
    scale ? tp.request_r_scale : -1,
    (f & TF_SACK_PERMIT) !== 0,
    ts,
    tsval,
    ack ? tp.ts_recent : 0,
    tfo === null ? null : tfo.cookie,
    tfo === null ? 0 : tfo.cookieLen,
  );
}

/** Whether the SYN or SYN-ACK of `tp` is sent, so that only its retransmission may follow. */
export function tfoHeld(tp: Tcpcb): boolean {
  return (
    (tp.t_flags & TF_FASTOPEN) !== 0 && SEQ_GT(tp.snd_max, tp.snd_una) && tp.snd_nxt !== tp.snd_una
  );
}

/**
 * Bytes of data that the SYN or SYN-ACK of `tp` may carry: as the peer's window permits, and for Fast
 * Open only with a cookie and not in a retransmission.
 */
export function synDataLen(tp: Tcpcb): number {
  const tfo = (tp.t_flags & TF_FASTOPEN) !== 0;
  if ((tp.t_flags & TF_NOOPT) !== 0) return 0;
  if (tp.t_state === TCPS_SYN_RECEIVED && !tfo) return 0;
  if (tfo && tp.t_rxtshift > 0) return 0;
  if (tfo && tp.t_state === TCPS_SYN_SENT && tp.t_tfo!.cookieLen === 0) return 0;
  const avail = sbavail(tp.t_inpcb.inp_socket!.so_snd);
  return Math.max(Math.min(avail, tp.snd_wnd, tp.snd_cwnd), 0);
}
