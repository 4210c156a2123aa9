/**
 * Received data without a copy: the chains of a receive buffer for programs in the kernel, after
 * soreceive(9) with `mp0` and sosend(9) with `top` in sys/kern/uipc_socket.c. All functions must be
 * called inside a pass.
 */

import { ENOBUFS, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { m_freem } from './kern_mbuf.ts';
import { type Mbuf, M_BCAST, M_MCAST, M_NOWAIT, M_PROTOFLAGS, M_VLANTAG } from './mbuf.ts';
import { m_pkthdr_init } from './m_pkthdr.ts';
import type { Sockaddr } from './sockaddr.ts';
import { SBS_RCVATMARK, sbavail, sbcut, sbdrop, sbspace } from './uipc_sockbuf.ts';
import { m_copym } from './uipc_mbuf.ts';
import type { Socket } from './uipc_socket.ts';

/** Makes the received packet `m` one to send: its header keeps only the length. */
export function packetToSend(m: Mbuf): void {
  const { len } = m.m_pkthdr;
  m_pkthdr_init(m);
  m.m_pkthdr.len = len;
  m.m_flags &= ~(M_BCAST | M_MCAST | M_VLANTAG | M_PROTOFLAGS);
}

/** Adjusts the position of the urgent data after `len` bytes were removed. */
function passOobmark(so: Socket, len: number): void {
  const sb = so.so_rcv;
  sb.sb_state &= ~SBS_RCVATMARK;
  if (so.so_oobmark === 0) return;
  so.so_oobmark = Math.max(so.so_oobmark - len, 0);
  if (so.so_oobmark === 0) sb.sb_state |= SBS_RCVATMARK;
}

/** Removes and frees all received bytes of a stream. Returns how many. */
export function soDiscard(so: Socket): number {
  const len = sbavail(so.so_rcv);
  if (len === 0) return 0;
  sbdrop(so.so_rcv, len);
  passOobmark(so, len);
  so.so_proto.pr_rcvd(so, 0);
  return len;
}

/**
 * Sends the received bytes of a stream back on the same connection, as many as the send buffer has room
 * for. 0: none are left, or there is no room. ENOBUFS: no mbuf. Else the errno of pr_send.
 */
export function soEcho(so: Socket): Errno {
  const { so_rcv: rcv, so_snd: snd } = so;
  const avail = sbavail(rcv);
  const len = Math.min(avail, sbspace(snd));
  if (len <= 0) return 0;
  let m: Mbuf | null;
  if (len === avail) {
    m = sbcut(rcv, len);
    KASSERT(m !== null, 'soEcho: no mbuf');
  } else {
    m = m_copym(rcv.sb_mb!, 0, len, M_NOWAIT);
    if (m === null) return ENOBUFS;
    sbdrop(rcv, len);
  }
  passOobmark(so, len);
  // The segments that leave, or the window update, advertise the room that became free.
  return so.so_proto.pr_send(so, 0, m, null);
}

/** Sends the packet `m`, which it takes, to `nam`. @see sosend(9) */
export function soSendPacket(so: Socket, m: Mbuf, nam: Sockaddr): Errno {
  if (so.so_error !== 0) {
    const error = so.so_error;
    so.so_error = 0;
    m_freem(m);
    return error;
  }
  return so.so_proto.pr_send(so, 0, m, nam, null);
}
