/**
 * The reassembly queue, after sys/netinet/tcp_reass.c: segments beyond a gap, in sequence order,
 * without overlap, adjacent ones joined. The number of entries per connection, the number of
 * entries per stack and the memory of the receive buffer limit it. D-SACK blocks are in
 * tcp_sack.ts.
 */

import { tcpCaptureFlushed, tcpCapturePresent, tcpCaptureWanted } from './tcp_capture.ts';
import { CAPTURE_IN, CAPTURE_SOCKBUF } from '../sys/capture.ts';
import { countDrop } from '../net/capture_drop.ts';
import {
  count,
  R_TCP_AFTERCLOSE,
  R_TCP_DUP,
  R_TCP_REASS_FLUSHED,
  R_TCP_REASS_FULL,
  R_TCP_REASS_WAIT,
} from '../sys/reason.ts';
import { kva, type TcpSeq } from '../sys/types.ts';
import { m_free, m_freem } from '../kern/kern_mbuf.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import { type Mbuf, MCLBYTES, M_EXT, M_PKTHDR, MSIZE, M_TRAILINGSPACE } from '../kern/mbuf.ts';
import { sbappendstream, SBS_CANTRCVMORE } from '../kern/uipc_sockbuf.ts';
import { m_adj, m_last } from '../kern/uipc_mbuf.ts';
import { sorwakeup } from '../kern/uipc_socket.ts';
import { TH_FIN } from './tcp.ts';
import { TCPS_HAVEESTABLISHED } from './tcp_fsm.ts';
import { SEQ_GEQ, SEQ_GT, SEQ_LEQ, SEQ_LT, seqAdd, seqDiff } from './tcp_seq.ts';
import { tcp_pulloutofband } from './tcp_oob.ts';
import { type Tcpcb, TCPOOB_EXPECT, TsegQent } from './tcp_var.ts';

/** Bytes of memory charged for a chain: mbufs and external storage. */
function charge(m: Mbuf | null): number {
  let n = 0;
  for (; m !== null; m = m.m_next) n += MSIZE + ((m.m_flags & M_EXT) !== 0 ? m.m_ext.ext_size : 0);
  return n;
}

function qentAlloc(tp: Tcpcb, start: TcpSeq, len: number, flags: number, m: Mbuf): TsegQent {
  const tcp = tp.t_tcp;
  const q = tcp.reassFree ?? new TsegQent();
  tcp.reassFree = q.tqe_next;
  q.tqe_start = start;
  q.tqe_len = len;
  q.tqe_flags = flags;
  q.tqe_segs = 1;
  q.tqe_m = m;
  q.tqe_last = m_last(m);
  tcp.reassSegments++;
  tp.t_segqlen++;
  tp.t_segqmbuflen += charge(m);
  return q;
}

/** Returns an entry to the pool. The caller owns its mbufs. */
function qentFree(tp: Tcpcb, q: TsegQent): void {
  const tcp = tp.t_tcp;
  tp.t_segqmbuflen -= charge(q.tqe_m);
  tp.t_segqlen--;
  tcp.reassSegments--;
  q.tqe_m = null;
  q.tqe_last = null;
  q.tqe_next = tcp.reassFree;
  tcp.reassFree = q;
}

/** Frees all entries of the queue and their mbufs; each segment counts as dropped. @see sys/netinet/tcp_reass.c */
export function tcp_reass_flush(tp: Tcpcb): void {
  if (tp.t_segq !== null && tcpCaptureWanted()) tcpCaptureFlushed(tp);
  for (let q = tp.t_segq; q !== null;) {
    const next: TsegQent | null = q.tqe_next;
    const m = q.tqe_m;
    count(R_TCP_REASS_FLUSHED, q.tqe_segs);
    qentFree(tp, q);
    m_freem(m);
    q = next;
  }
  tp.t_segq = null;
}

/**
 * Appends the chain `m` to the data of `q`; copies small mbufs into its last mbuf if they fit.
 * Takes `m`.
 */
function append(tp: Tcpcb, q: TsegQent, m: Mbuf): void {
  let n: Mbuf | null = m;
  while (n !== null) {
    const last: Mbuf = q.tqe_last!;
    if (n.m_len <= MCLBYTES / 4 && n.m_len <= M_TRAILINGSPACE(last)) {
      m_copydata(n, 0, n.m_len, kva(last.m_data + last.m_len));
      last.m_len += n.m_len;
      n = m_free(n);
      continue;
    }
    const next: Mbuf | null = n.m_next;
    n.m_next = null;
    last.m_next = n;
    q.tqe_last = n;
    tp.t_segqmbuflen += charge(n);
    n = next;
  }
}

/** Joins `q` with the next entry if that one directly follows it in sequence. */
function join(tp: Tcpcb, q: TsegQent): void {
  const n = q.tqe_next;
  if (n === null || seqAdd(q.tqe_start, q.tqe_len) !== n.tqe_start) return;
  const m = n.tqe_m!;
  q.tqe_next = n.tqe_next;
  q.tqe_len += n.tqe_len;
  q.tqe_flags |= n.tqe_flags;
  q.tqe_segs += n.tqe_segs;
  qentFree(tp, n);
  append(tp, q, m);
}

/** Whether a limit forbids one more entry with the mbufs `m`. */
function full(tp: Tcpcb, m: Mbuf): boolean {
  const tcp = tp.t_tcp;
  const rcv = tp.t_inpcb.inp_socket!.so_rcv;
  return (
    tp.t_segqlen >= tcp.params.reass_maxqueuelen ||
    tcp.reassSegments >= tcp.params.reass_maxsegments ||
    tp.t_segqmbuflen + charge(m) > rcv.sb_mbmax - rcv.sb_mbcnt
  );
}

/**
 * Inserts the segment of `len` bytes from `start` on into the queue and trims bytes that are there
 * already. Takes `m`, which contains only the payload.
 */
function enqueue(tp: Tcpcb, start: TcpSeq, len: number, flags: number, m: Mbuf): void {
  const stat = tp.t_tcp.stat;
  let prev: TsegQent | null = null;
  let next = tp.t_segq;
  while (next !== null && SEQ_LEQ(next.tqe_start, start)) {
    prev = next;
    next = next.tqe_next;
  }
  if (prev !== null) {
    const over = seqDiff(seqAdd(prev.tqe_start, prev.tqe_len), start);
    if (over >= len && over > 0) {
      // The whole segment is a duplicate. Its FIN may still be new.
      if (over === len) prev.tqe_flags |= flags;
      stat.tcps_rcvduppack++;
      stat.tcps_rcvdupbyte += len;
      countDrop(m, R_TCP_DUP, CAPTURE_SOCKBUF, CAPTURE_IN);
      m_freem(m);
      return;
    }
    if (over > 0) {
      m_adj(m, over);
      start = seqAdd(start, over);
      len -= over;
    }
  }
  // Free later entries that the segment covers, but keep their FIN. If it overlaps the front of a
  // longer entry, trim the end of the segment.
  const end = seqAdd(start, len);
  while (next !== null && SEQ_LT(next.tqe_start, end)) {
    const over = seqDiff(end, next.tqe_start);
    if (over < next.tqe_len) {
      m_adj(m, -over);
      len -= over;
      break;
    }
    if (over === next.tqe_len) flags |= next.tqe_flags;
    const gone: TsegQent = next;
    const old = gone.tqe_m;
    next = gone.tqe_next;
    qentFree(tp, gone);
    m_freem(old);
  }
  stat.tcps_rcvoopack++;
  stat.tcps_rcvoobyte += len;
  tp.t_rcvoopack++;
  if (prev !== null && seqAdd(prev.tqe_start, prev.tqe_len) === start) {
    prev.tqe_next = next;
    prev.tqe_len += len;
    prev.tqe_flags |= flags;
    prev.tqe_segs++;
    append(tp, prev, m);
    join(tp, prev);
    return;
  }
  const q = qentAlloc(tp, start, len, flags, m);
  q.tqe_next = next;
  if (prev === null) tp.t_segq = q;
  else prev.tqe_next = q;
  join(tp, q);
}

/** Result of tcp_reass for a segment that it dropped. */
export const REASS_FULL = -1;

/**
 * Queues an acceptable segment of `len` bytes from `start` on, then delivers all data in order to
 * the socket. Takes `m`, which contains only the payload. `start` must not be before rcv_nxt.
 * Returns TH_FIN if the data delivered ends with the peer's FIN, REASS_FULL if the queue was full
 * and `m` was freed, else 0.
 * @see sys/netinet/tcp_reass.c
 */
export function tcp_reass(tp: Tcpcb, start: TcpSeq, len: number, flags: number, m: Mbuf): number {
  m.m_flags &= ~M_PKTHDR;
  // Always accept the segment at rcv_nxt. Otherwise a full queue could never empty.
  if (start !== tp.rcv_nxt && full(tp, m)) {
    tp.t_tcp.stat.tcps_rcvreassfull++;
    countDrop(m, R_TCP_REASS_FULL, CAPTURE_SOCKBUF, CAPTURE_IN);
    m_freem(m);
    return REASS_FULL;
  }
  if (start !== tp.rcv_nxt) count(R_TCP_REASS_WAIT);
  enqueue(tp, start, len, flags & TH_FIN, m);
  return present(tp);
}

/**
 * Delivers the entries that are in order to the socket. Returns TH_FIN if the last one has a FIN,
 * else 0. Before the handshake is complete it delivers nothing: text that came with the SYN of a
 * simultaneous open waits for the ACK of our own SYN (RFC 9293, 3.10.7.3).
 */
export function present(tp: Tcpcb): number {
  if (!TCPS_HAVEESTABLISHED(tp.t_state)) return 0;
  const so = tp.t_inpcb.inp_socket!;
  let fin = 0;
  let q = tp.t_segq;
  while (q !== null && q.tqe_start === tp.rcv_nxt) {
    const next: TsegQent | null = q.tqe_next;
    const m = q.tqe_m!;
    const len = q.tqe_len;
    tp.rcv_nxt = seqAdd(tp.rcv_nxt, len);
    fin = q.tqe_flags & TH_FIN;
    qentFree(tp, q);
    if ((so.so_rcv.sb_state & SBS_CANTRCVMORE) !== 0) {
      countDrop(m, R_TCP_AFTERCLOSE, CAPTURE_SOCKBUF, CAPTURE_IN);
      m_freem(m);
    } else {
      if (tcpCaptureWanted()) tcpCapturePresent(tp, m, seqAdd(tp.rcv_nxt, -len), len);
      if ((tp.t_oobflags & TCPOOB_EXPECT) !== 0)
        tcp_pulloutofband(tp, m, seqAdd(tp.rcv_nxt, -len), len);
      sbappendstream(so.so_rcv, m, false);
    }
    q = next;
    if (fin !== 0) break;
  }
  tp.t_segq = q;
  sorwakeup(so);
  return fin;
}

/**
 * Whether the entries are in order, not adjacent and not before rcv_nxt; for assertions in tests.
 */
export function reassOrdered(tp: Tcpcb): boolean {
  for (let q = tp.t_segq; q !== null && q.tqe_next !== null; q = q.tqe_next) {
    const end = seqAdd(q.tqe_start, q.tqe_len);
    if (!SEQ_GT(q.tqe_next.tqe_start, end) || !SEQ_GEQ(q.tqe_start, tp.rcv_nxt)) return false;
  }
  return true;
}
