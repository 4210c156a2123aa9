/**
 * Selective acknowledgments, after sys/netinet/tcp_sack.c. Sender: the scoreboard (RFC 2018, RFC
 * 6675), a list of the holes between snd_una and snd_fack. Receiver: the blocks to report, D-SACK
 * blocks included (RFC 2883). Only a new hole and the first block of a connection allocate; holes
 * are pooled.
 */

import { count, R_TCP_SACK_BAD, R_TCP_SACK_FULL } from '../sys/reason.ts';
import { type TcpSeq, tcpSeq } from '../sys/types.ts';
import { memView } from '../vm/arena.ts';
import { TCPOLEN_SACK } from './tcp.ts';
import { SEQ_GEQ, SEQ_GT, SEQ_LEQ, SEQ_LT, SEQ_MAX, seqAdd, seqDiff } from './tcp_seq.ts';
import {
  Sackhole,
  tcp_maxseg,
  type Tcpcb,
  tcprexmtthresh,
  type TcpSegment,
  TF_SACK_PERMIT,
} from './tcp_var.ts';
import { MAX_SACK_BLKS, noSackblks } from './tcpcb_cold.ts';

// The receiver.

/**
 * Records that the bytes [start, end) before rcv_nxt arrived again. They become the first block to
 * report, a D-SACK. It is reported once.
 * @see sys/netinet/tcp_sack.c
 */
export function tcp_update_sack_list(tp: Tcpcb, start: TcpSeq, end: TcpSeq): void {
  tcp_clean_dsack_blocks(tp);
  putFirst(tp, start, end, keep(tp, start, start));
  tp.dsack = true;
}

/**
 * Records that the bytes [start, end), none of them before the old rcv_nxt, went into the
 * reassembly queue or through it; rcv_nxt may have advanced. Joins them with the blocks they touch
 * and puts the result first, unless rcv_nxt has passed it. If a part of them was received before,
 * the lowest such range comes in front, as a D-SACK (RFC 2883, 4), also when rcv_nxt has advanced.
 * Duplicate bytes of the same segment before the old rcv_nxt, which tcp_update_sack_list has
 * recorded, are lower still and stay. Removes the blocks that rcv_nxt has passed.
 * @see sys/netinet/tcp_sack.c
 */
export function tcp_update_dsack_list(tp: Tcpcb, start: TcpSeq, end: TcpSeq): void {
  const b = tp.sackblks;
  // An empty range at `end` stands for no duplicate: every overlap begins before it.
  let dupStart = end;
  let dupEnd = end;
  if (tp.dsack && b[1] === start) {
    dupStart = tcpSeq(b[0]!);
    dupEnd = start;
  }
  tcp_clean_dsack_blocks(tp);
  let first = start;
  let last = end;
  for (let i = 0; i < tp.rcv_numsacks; i++) {
    const s = tcpSeq(b[2 * i]!);
    const e = tcpSeq(b[2 * i + 1]!);
    if (SEQ_GT(s, end) || SEQ_LT(e, start)) continue;
    const from = SEQ_MAX(s, start);
    if (SEQ_LT(from, dupStart) && SEQ_LT(from, e)) {
      dupStart = from;
      dupEnd = SEQ_LT(e, end) ? e : end;
    }
    if (SEQ_LT(s, first)) first = s;
    if (SEQ_GT(e, last)) last = e;
  }
  const n = keep(tp, first, last);
  // Nothing to put there for a FIN without data.
  if (SEQ_GT(first, tp.rcv_nxt) && first !== last) putFirst(tp, first, last, n);
  else tp.rcv_numsacks = n;
  if (dupStart === dupEnd) return;
  putFirst(tp, dupStart, dupEnd, tp.rcv_numsacks);
  tp.dsack = true;
}

/** Drops blocks that [first, last) covers or that rcv_nxt has passed; returns how many are left. */
function keep(tp: Tcpcb, first: TcpSeq, last: TcpSeq): number {
  const b = tp.sackblks;
  let n = 0;
  for (let i = 0; i < tp.rcv_numsacks; i++) {
    const s = tcpSeq(b[2 * i]!);
    const e = tcpSeq(b[2 * i + 1]!);
    if (SEQ_LEQ(e, tp.rcv_nxt) || (SEQ_GEQ(s, first) && SEQ_LEQ(e, last))) continue;
    b[2 * n] = s;
    b[2 * n + 1] = e;
    n++;
  }
  return n;
}

/**
 * Puts a block in front of the first `n` blocks. Drops the last one if there are more than
 * MAX_SACK_BLKS.
 */
function putFirst(tp: Tcpcb, start: TcpSeq, end: TcpSeq, n: number): void {
  if (tp.sackblks === noSackblks) tp.sackblks = new Int32Array(2 * MAX_SACK_BLKS);
  const b = tp.sackblks;
  const kept = Math.min(n, MAX_SACK_BLKS - 1);
  b.copyWithin(2, 0, 2 * kept);
  b[0] = start;
  b[1] = end;
  tp.rcv_numsacks = kept + 1;
}

/** Removes a D-SACK block that has been reported. @see sys/netinet/tcp_sack.c */
export function tcp_clean_dsack_blocks(tp: Tcpcb): void {
  if (!tp.dsack) return;
  tp.dsack = false;
  tp.sackblks.copyWithin(0, 2, 2 * tp.rcv_numsacks);
  tp.rcv_numsacks--;
}

/** Removes all blocks, because no data is missing any more. @see sys/netinet/tcp_sack.c */
export function tcp_clean_sackreport(tp: Tcpcb): void {
  tp.rcv_numsacks = 0;
  tp.dsack = false;
}

// The sender.

function holeAlloc(tp: Tcpcb, start: TcpSeq, end: TcpSeq): Sackhole | null {
  const tcp = tp.t_tcp;
  const { sack_maxholes, sack_globalmaxholes } = tcp.params;
  if (tp.snd_numholes >= sack_maxholes || tcp.sackHoles >= sack_globalmaxholes) {
    tcp.stat.tcps_sack_sboverflow++;
    count(R_TCP_SACK_FULL);
    return null;
  }
  const hole = tcp.sackFree ?? new Sackhole();
  tcp.sackFree = hole.next;
  hole.start = start;
  hole.end = end;
  hole.rxmit = start;
  hole.sentAt = start;
  tcp.sackHoles++;
  tp.snd_numholes++;
  return hole;
}

/** Inserts `hole` behind `after`, or at the front if `after` is null. */
function insert(tp: Tcpcb, hole: Sackhole, after: Sackhole | null): void {
  hole.prev = after;
  hole.next = after === null ? tp.snd_holes : after.next;
  if (hole.next === null) tp.snd_holesTail = hole;
  else hole.next.prev = hole;
  if (after === null) tp.snd_holes = hole;
  else after.next = hole;
}

/** Removes a hole from the scoreboard and returns the next one. */
function remove(tp: Tcpcb, hole: Sackhole): Sackhole | null {
  const { prev, next } = hole;
  if (prev === null) tp.snd_holes = next;
  else prev.next = next;
  if (next === null) tp.snd_holesTail = prev;
  else next.prev = prev;
  const tcp = tp.t_tcp;
  hole.prev = null;
  hole.next = tcp.sackFree;
  tcp.sackFree = hole;
  tcp.sackHoles--;
  tp.snd_numholes--;
  return next;
}

/** Clears the scoreboard. @see sys/netinet/tcp_sack.c */
export function tcp_free_sackholes(tp: Tcpcb): void {
  for (let hole = tp.snd_holes; hole !== null;) hole = remove(tp, hole);
  tp.snd_fack = tp.snd_una;
  tp.sacked_bytes = 0;
  tp.sack_bytes_rexmit = 0;
}

/** Computes sacked_bytes and sack_bytes_rexmit from the holes. */
function recount(tp: Tcpcb, una: TcpSeq): void {
  let missing = 0;
  let rexmit = 0;
  for (let hole = tp.snd_holes; hole !== null; hole = hole.next) {
    missing += seqDiff(hole.end, hole.start);
    rexmit += seqDiff(hole.rxmit, hole.start);
  }
  tp.sacked_bytes = Math.max(seqDiff(tp.snd_fack, una), 0) - missing;
  tp.sack_bytes_rexmit = rexmit;
}

/** The peer has [start, end), which is below snd_fack: removes that range from the holes. */
function fill(tp: Tcpcb, start: TcpSeq, end: TcpSeq): void {
  let hole = tp.snd_holes;
  while (hole !== null && SEQ_LT(hole.start, end)) {
    if (SEQ_LEQ(hole.end, start)) {
      hole = hole.next;
    } else if (SEQ_LEQ(start, hole.start) && SEQ_GEQ(end, hole.end)) {
      hole = remove(tp, hole);
    } else if (SEQ_LEQ(start, hole.start)) {
      hole.start = end;
      hole.rxmit = SEQ_MAX(hole.rxmit, end);
      return;
    } else if (SEQ_GEQ(end, hole.end)) {
      hole.end = start;
      if (SEQ_GT(hole.rxmit, start)) hole.rxmit = start;
      hole = hole.next;
    } else {
      // The range is inside the hole: split the hole. At the limit of holes, leave it whole; it is
      // then too large.
      const rest = holeAlloc(tp, end, hole.end);
      if (rest === null) return;
      rest.rxmit = SEQ_MAX(hole.rxmit, end);
      rest.sentAt = hole.sentAt;
      hole.end = start;
      if (SEQ_GT(hole.rxmit, start)) hole.rxmit = start;
      insert(tp, rest, hole);
      return;
    }
  }
}

/**
 * The peer has [start, end), which ends beyond snd_fack: advances snd_fack and adds a hole for a
 * gap.
 */
function extend(tp: Tcpcb, start: TcpSeq, end: TcpSeq): void {
  if (SEQ_GT(start, tp.snd_fack)) {
    const hole = holeAlloc(tp, tp.snd_fack, start);
    // At the limit of holes, ignore the block.
    if (hole === null) return;
    insert(tp, hole, tp.snd_holesTail);
    tp.sack_newloss = true;
  } else if (SEQ_LT(start, tp.snd_fack)) {
    fill(tp, start, tp.snd_fack);
  }
  tp.snd_fack = end;
}

/**
 * Detects lost retransmissions: data sent at least three segments later has arrived. Resets these
 * holes, so that they are sent again. Sets sack_again if such a retransmission was sent after the
 * window was last reduced.
 */
function lostRetransmissions(tp: Tcpcb): void {
  const margin = tcprexmtthresh * tcp_maxseg(tp);
  for (let hole = tp.snd_holes; hole !== null; hole = hole.next) {
    if (hole.rxmit === hole.start || seqDiff(tp.snd_fack, hole.sentAt) < margin) continue;
    if (SEQ_GEQ(hole.sentAt, tp.snd_recover)) tp.sack_again = true;
    tp.sack_bytes_rexmit -= seqDiff(hole.rxmit, hole.start);
    hole.rxmit = hole.start;
    tp.t_tcp.stat.tcps_sack_lostrexmits++;
  }
}

/**
 * Updates the scoreboard from an acceptable ACK and sets delivered_data to the bytes it newly
 * reports as received. `ack` is its acknowledgment number, not before snd_una; the caller advances
 * snd_una later. Returns whether the ACK reports new data beyond `ack`.
 * @see sys/netinet/tcp_sack.c
 */
export function tcp_sack_doack(tp: Tcpcb, seg: TcpSegment, ack: TcpSeq): boolean {
  const { stat } = tp.t_tcp;
  const before = tp.sacked_bytes;
  tp.delivered_data = Math.max(seqDiff(ack, tp.snd_una), 0);
  tp.sack_again = false;
  tp.sack_newloss = false;
  if (tp.snd_holes === null && before === 0) {
    // snd_fack is not updated while the scoreboard is empty. It may be so old that it compares as
    // ahead.
    tp.snd_fack = ack;
    if (seg.to_nsacks === 0) return false;
  }
  // Remove acknowledged data from the scoreboard.
  if (SEQ_LT(tp.snd_fack, ack)) tp.snd_fack = ack;
  let hole = tp.snd_holes;
  while (hole !== null && SEQ_LT(hole.start, ack)) {
    if (SEQ_LEQ(hole.end, ack)) {
      hole = remove(tp, hole);
      continue;
    }
    hole.start = ack;
    hole.rxmit = SEQ_MAX(hole.rxmit, ack);
    break;
  }
  recount(tp, ack);
  const held = tp.sacked_bytes;
  for (let i = 0; i < seg.to_nsacks; i++) {
    const start = tcpSeq(memView.getInt32(seg.to_sacks + i * TCPOLEN_SACK));
    const end = tcpSeq(memView.getInt32(seg.to_sacks + i * TCPOLEN_SACK + 4));
    stat.tcps_sack_rcv_blocks++;
    if (SEQ_GT(end, start) && SEQ_LEQ(end, ack)) {
      // RFC 2883: a D-SACK, the data arrived twice.
      stat.tcps_dsack_count++;
      stat.tcps_dsack_bytes += seqDiff(end, start);
    } else if (SEQ_LEQ(end, start) || SEQ_LEQ(start, ack) || SEQ_GT(end, tp.snd_max)) {
      // Invalid. Data of a block that begins at `ack` would have been acknowledged.
      count(R_TCP_SACK_BAD);
    } else if (SEQ_GT(end, tp.snd_fack)) {
      extend(tp, start, end);
    } else {
      fill(tp, start, end);
    }
  }
  recount(tp, ack);
  // `before - held` of the bytes that `ack` covers were SACKed before: do not count them again.
  tp.delivered_data += tp.sacked_bytes - before;
  if (tp.t_tcp.params.sack_lrd && tp.sack_bytes_rexmit > 0) lostRetransmissions(tp);
  return tp.sacked_bytes > held;
}

/**
 * Whether a byte with `bytes` SACKed above it, in `blocks` separate blocks, counts as lost: RFC
 * 6675, IsLost. Without net.inet.tcp.sack.revised, any hole below SACKed data counts as lost.
 */
const isLost = (tp: Tcpcb, bytes: number, blocks: number): boolean =>
  !tp.t_tcp.params.sack_revised ||
  blocks >= tcprexmtthresh ||
  bytes > (tcprexmtthresh - 1) * tcp_maxseg(tp);

/**
 * Bytes in flight after `ack` is processed: RFC 6675, SetPipe. Holes that count as lost are not in
 * flight, except for their retransmitted bytes.
 * @see sys/netinet/tcp_sack.c
 */
export function tcp_compute_pipe(tp: Tcpcb, ack: TcpSeq = tp.snd_una): number {
  const all = seqDiff(tp.snd_max, ack);
  if (tp.snd_holesTail === null) return all - tp.sacked_bytes;
  let pipe = all - tp.sacked_bytes + tp.sack_bytes_rexmit;
  let above = 0;
  let blocks = 0;
  let edge = tp.snd_fack;
  for (let hole: Sackhole | null = tp.snd_holesTail; hole !== null; hole = hole.prev) {
    above += seqDiff(edge, hole.end);
    // One block that the peer has follows each hole.
    blocks++;
    edge = hole.start;
    if (isLost(tp, above, blocks)) pipe -= seqDiff(hole.end, hole.start);
  }
  return pipe;
}

/** Whether the byte at snd_una counts as lost: RFC 6675, IsLost (HighACK + 1). */
export function sackLost(tp: Tcpcb): boolean {
  return (
    tp.t_tcp.params.sack_revised &&
    tp.snd_holes !== null &&
    isLost(tp, tp.sacked_bytes, tp.snd_numholes)
  );
}

/**
 * The next hole to retransmit: with `lost`, only if it counts as lost, else any hole (RFC 6675,
 * NextSeg rules 1 and 3). The first segment of a recovery need not count as lost (section 5, step
 * 4.3). Null: no hole to send.
 * @see sys/netinet/tcp_sack.c
 */
export function tcp_sack_output(tp: Tcpcb, lost: boolean): Sackhole | null {
  // `above` is the number of SACKed bytes above the current hole, `blocks` the number of blocks
  // above it.
  let above = tp.sacked_bytes;
  let blocks = tp.snd_numholes;
  let edge = tp.snd_una;
  for (let hole = tp.snd_holes; hole !== null; hole = hole.next, blocks--) {
    above -= seqDiff(hole.start, edge);
    edge = hole.end;
    if (SEQ_LT(hole.rxmit, hole.end)) {
      const first =
        hole.rxmit === tp.snd_una &&
        SEQ_LT(tp.snd_una, tp.rescueRxt) &&
        tp.rescueRxt !== tp.snd_recover;
      return !lost || first || isLost(tp, above, blocks) ? hole : null;
    }
  }
  return null;
}

/**
 * Whether to retransmit the last segment in flight: RFC 6675, NextSeg rule 4. This happens once per
 * recovery, when the scoreboard has no hole left to send. A hole that this recovery has
 * retransmitted is not sent again, because the peer cannot have reported it yet.
 */
export function sackRescue(tp: Tcpcb): boolean {
  return (
    tp.t_tcp.params.sack_revised &&
    SEQ_GT(tp.snd_una, tp.rescueRxt) &&
    SEQ_LT(tp.snd_fack, tp.snd_max) &&
    tp.snd_nxt === tp.snd_max &&
    tcp_sack_output(tp, false) === null
  );
}

/**
 * Records the retransmission of `len` bytes of a hole. A negative `len` undoes it if output failed.
 */
export function sackRexmitted(tp: Tcpcb, hole: Sackhole, len: number): void {
  hole.rxmit = seqAdd(hole.rxmit, len);
  hole.sentAt = tp.snd_max;
  tp.sack_bytes_rexmit += len;
}

/**
 * After a time-out, when data is sent again from snd_una on: advances snd_nxt past data that the
 * peer has. Returns the number of bytes from snd_nxt to the end of the hole; 0: no limit.
 * @see sys/netinet/tcp_sack.c
 */
export function tcp_sack_adjust(tp: Tcpcb): number {
  if ((tp.t_flags & TF_SACK_PERMIT) === 0 || tp.snd_holes === null) return 0;
  if (SEQ_GEQ(tp.snd_nxt, tp.snd_fack)) return 0;
  for (let hole: Sackhole | null = tp.snd_holes; hole !== null; hole = hole.next) {
    if (SEQ_LT(tp.snd_nxt, hole.end)) {
      if (SEQ_LT(tp.snd_nxt, hole.start)) tp.snd_nxt = hole.start;
      return seqDiff(hole.end, tp.snd_nxt);
    }
  }
  tp.snd_nxt = tp.snd_fack;
  return 0;
}
