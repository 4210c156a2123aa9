/**
 * The receive window that a connection announces: RFC 9293, 3.8.6, and RFC 7323, 2. In FreeBSD this
 * is part of tcp_output.
 */

import { TCP_MAXWIN, TH_RST, TH_SYN } from './tcp.ts';
import { TCPS_HAVERCVDFIN, TCPS_HAVERCVDSYN } from './tcp_fsm.ts';
import { seqDiff } from './tcp_seq.ts';
import { type Tcpcb, TF_RXWIN0SENT } from './tcp_var.ts';

/**
 * `bytes` in units of the window scale. Rounds up, so that the right edge of the window never moves
 * left: RFC 7323, 2.4.
 */
const scaledWindow = (tp: Tcpcb, bytes: number): number => Math.ceil(bytes / (1 << tp.rcv_scale));

/**
 * Whether the receive window, now `recwin` bytes, has grown enough to send a window update: RFC
 * 9293, 3.8.6.2.2.
 */
export function windowUpdateDue(tp: Tcpcb, recwin: number): boolean {
  if (recwin <= 0 || TCPS_HAVERCVDFIN(tp.t_state) || !TCPS_HAVERCVDSYN(tp.t_state)) return false;
  const hiwat = tp.t_inpcb.inp_socket!.so_rcv.sb_hiwat;
  const announced = Math.max(seqDiff(tp.rcv_adv, tp.rcv_nxt), 0);
  const adv = recwin - announced;
  // No update if the window field would not change.
  if (adv <= 0 || scaledWindow(tp, recwin) <= scaledWindow(tp, announced)) return false;
  // The last case is a window that a larger buffer cannot open any further.
  if (
    adv >= 2 * tp.t_maxseg &&
    (adv >= hiwat / 4 ||
      recwin <= hiwat / 8 ||
      hiwat <= 8 * tp.t_maxseg ||
      adv >= TCP_MAXWIN << tp.rcv_scale)
  )
    return true;
  return 2 * adv >= hiwat;
}

/**
 * The window field of a segment with `flags`, for a receive buffer with room for `recwin` bytes.
 * Never shrinks the window; a silly window becomes 0. A RST announces 0. The field of a SYN is not
 * scaled.
 */
export function windowField(tp: Tcpcb, recwin: number, flags: number): number {
  if ((flags & TH_RST) !== 0) return 0;
  const syn = (flags & TH_SYN) !== 0;
  const hiwat = tp.t_inpcb.inp_socket!.so_rcv.sb_hiwat;
  if (recwin < hiwat / 4 && recwin < tp.t_maxseg && !syn) recwin = 0;
  const promised = seqDiff(tp.rcv_adv, tp.rcv_nxt);
  if (promised > recwin && TCPS_HAVERCVDSYN(tp.t_state)) recwin = promised;
  if (syn) return Math.min(recwin, TCP_MAXWIN);
  const scaled = Math.min(scaledWindow(tp, recwin), TCP_MAXWIN);
  if (scaled === 0 && TCPS_HAVERCVDSYN(tp.t_state)) {
    tp.t_flags |= TF_RXWIN0SENT;
    tp.t_sndzerowin++;
  } else {
    tp.t_flags &= ~TF_RXWIN0SENT;
  }
  return scaled;
}
