/**
 * Received urgent data, after the sixth step of tcp_do_segment and tcp_pulloutofband of
 * sys/netinet/tcp_input.c: RFC 9293, 3.8.5, and RFC 6093, with the semantics of BSD sockets. The
 * urgent pointer is taken to point behind the last urgent byte (RFC 6093, 3.1 gives the reason).
 * That one byte is kept outside the stream unless SO_OOBINLINE is set. Unlike FreeBSD, which
 * removes the byte from the segment that carries URG, the byte is removed when its position in the
 * stream is delivered, so that the right byte is found after reordering and retransmission too.
 */

import { EINVAL, type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import type { TcpSeq } from '../sys/types.ts';
import { mem } from '../vm/arena.ts';
import { m_free, m_freem, m_get } from '../kern/kern_mbuf.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import { type Mbuf, M_NOWAIT, MT_DATA, mtod } from '../kern/mbuf.ts';
import { MSG_PEEK } from '../kern/protosw.ts';
import { sbavail, sbParams, SBS_RCVATMARK } from '../kern/uipc_sockbuf.ts';
import { sohasoutofband, SO_OOBINLINE, type Socket } from '../kern/uipc_socket.ts';
import { m_copym, m_last } from '../kern/uipc_mbuf.ts';
import { TH_URG } from './tcp.ts';
import { TCPS_HAVERCVDFIN } from './tcp_fsm.ts';
import { SEQ_GT, seqAdd, seqDiff } from './tcp_seq.ts';
import {
  TCPOOB_EXPECT,
  TCPOOB_HADDATA,
  TCPOOB_HAVEDATA,
  type Tcpcb,
  type TcpSegment,
} from './tcp_var.ts';

/** The sixth step: the URG bit. RFC 9293, 3.10.7.4. */
export function stepUrg(tp: Tcpcb, seg: TcpSegment): void {
  if ((seg.flags & TH_URG) === 0 || seg.urp === 0 || TCPS_HAVERCVDFIN(tp.t_state)) {
    // Keep rcv_up at or beyond rcv_nxt. An old value could otherwise compare as ahead when sequence
    // numbers wrap.
    if (SEQ_GT(tp.rcv_nxt, tp.rcv_up)) tp.rcv_up = tp.rcv_nxt;
    return;
  }
  const so = tp.t_inpcb.inp_socket!;
  // Ignore an urgent pointer that is farther ahead than the largest socket buffer.
  if (seg.urp + sbavail(so.so_rcv) > sbParams.sb_max) return;
  const up = seqAdd(seg.seq, seg.urp);
  if (!SEQ_GT(up, tp.rcv_up)) return;
  tp.rcv_up = up;
  const ahead = seqDiff(up, tp.rcv_nxt) - 1;
  // Data that was received already cannot become urgent.
  if (ahead < 0) return;
  so.so_oobmark = sbavail(so.so_rcv) + ahead;
  if (so.so_oobmark === 0) so.so_rcv.sb_state |= SBS_RCVATMARK;
  tp.t_oobflags &= ~(TCPOOB_HAVEDATA | TCPOOB_HADDATA);
  tp.t_oobflags |= TCPOOB_EXPECT;
  sohasoutofband(so);
}

/**
 * Removes the urgent byte from `m`, which holds `len` bytes of the stream from `start` on and is
 * about to be delivered. Does nothing if the byte is not in `m`. The caller keeps `m`, which may
 * then contain an empty mbuf. If there is no memory, the byte stays in line.
 * @see sys/netinet/tcp_input.c
 */
export function tcp_pulloutofband(tp: Tcpcb, m: Mbuf, start: TcpSeq, len: number): void {
  let off = seqDiff(tp.rcv_up, start) - 1;
  if (off < 0 || off >= len) return;
  tp.t_oobflags &= ~TCPOOB_EXPECT;
  if ((tp.t_inpcb.inp_socket!.so_options & SO_OOBINLINE) !== 0) return;
  let n: Mbuf = m;
  for (; off >= n.m_len; n = n.m_next!) off -= n.m_len;
  const rest = n.m_len - off - 1;
  const byte = m_get(M_NOWAIT, MT_DATA);
  // The storage may be shared, so do not move bytes in it: reference the bytes behind the urgent
  // byte with m_copym.
  const tail = rest > 0 && off > 0 ? m_copym(n, off + 1, rest, M_NOWAIT) : null;
  if (byte === null || (tail === null && rest > 0 && off > 0)) {
    m_freem(byte);
    m_freem(tail);
    return;
  }
  m_copydata(n, off, 1, mtod(byte));
  tp.t_iobc = mem[mtod(byte)]!;
  m_free(byte);
  tp.t_oobflags |= TCPOOB_HAVEDATA;
  if (off === 0) {
    n.m_data++;
    n.m_len--;
  } else {
    n.m_len = off;
    if (tail !== null) {
      m_last(tail).m_next = n.m_next;
      n.m_next = tail;
    }
  }
}

/**
 * pr_rcvoob: stores the urgent byte in `m`. EINVAL: no urgent data was announced, the byte was read
 * already, or SO_OOBINLINE is set; EWOULDBLOCK: the byte was announced but has not arrived.
 * @see sys/netinet/tcp_usrreq.c
 */
export function tcp_usr_rcvoob(so: Socket, tp: Tcpcb, m: Mbuf, flags: number): Errno {
  if (
    (so.so_oobmark === 0 && (so.so_rcv.sb_state & SBS_RCVATMARK) === 0) ||
    (so.so_options & SO_OOBINLINE) !== 0 ||
    (tp.t_oobflags & TCPOOB_HADDATA) !== 0
  )
    return EINVAL;
  if ((tp.t_oobflags & TCPOOB_HAVEDATA) === 0) return EWOULDBLOCK;
  m.m_len = 1;
  mem[mtod(m)] = tp.t_iobc;
  if ((flags & MSG_PEEK) === 0) tp.t_oobflags ^= TCPOOB_HAVEDATA | TCPOOB_HADDATA;
  return 0;
}
