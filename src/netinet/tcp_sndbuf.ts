/** Autosizing of a send buffer, after tcp_sndbuf_autoscale of sys/netinet/tcp_output.c. */

import { SB_AUTOSIZE, sbreserve, sbused, type Sockbuf } from '../kern/uipc_sockbuf.ts';
import { sowwakeup } from '../kern/uipc_socket.ts';
import { seqDiff } from './tcp_seq.ts';
import type { Tcpcb } from './tcp_var.ts';

/**
 * Increases the send buffer if its size, and not the network, limits the connection.
 * @see sys/netinet/tcp_output.c
 */
export function tcp_sndbuf_autoscale(tp: Tcpcb, sb: Sockbuf, sendwin: number): void {
  const { params } = tp.t_tcp;
  if (!params.sendbuf_auto || (sb.sb_flags & SB_AUTOSIZE) === 0) return;
  const lowat = params.sendbuf_auto_lowat ? sb.sb_lowat : 0;
  const used = sbused(sb);
  if (
    (tp.snd_wnd / 4) * 5 < sb.sb_hiwat - lowat ||
    used < (sb.sb_hiwat / 8) * 7 - lowat ||
    used >= params.sendbuf_max ||
    sendwin < used - seqDiff(tp.snd_nxt, tp.snd_una)
  )
    return;
  const size = Math.min(sb.sb_hiwat + params.sendbuf_inc, params.sendbuf_max);
  // The size would exceed kern.ipc.maxsockbuf. Stop autosizing.
  if (!sbreserve(sb, size)) sb.sb_flags &= ~SB_AUTOSIZE;
  else sowwakeup(tp.t_inpcb.inp_socket!);
}
