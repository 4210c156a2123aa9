/**
 * Selective acknowledgments, after sys/netinet/tcp_sack.c. Sender: the scoreboard of what the peer
 * has (RFC 2018, 6675), kept as a list of holes between snd_una and snd_fack. Receiver: the blocks we
 * report, duplicates included (RFC 2883). Nothing here allocates but a hole, once.
 */

import { count, R_TCP_SACK_BAD } from '../sys/reason.ts';
import { type TcpSeq, tcpSeq } from '../sys/types.ts';
import { memView } from '../vm/arena.ts';
import { TCPOLEN_SACK } from './tcp.ts';
import { SEQ_GEQ, SEQ_GT, SEQ_LEQ, SEQ_LT, SEQ_MAX, seqAdd, seqDiff } from './tcp_seq.ts';
import {
  MAX_SACK_BLKS,
  noSackblks,
  Sackhole,
  tcp_maxseg,
  type Tcpcb,
  tcprexmtthresh,
  type TcpSegment,
  TF_SACK_PERMIT,
} from './tcp_var.ts';

// The receiver.

/**
 * The bytes [start, end) arrived out of order or again: they are reported first, joined with what
 * they touch. Everything before rcv_nxt is forgotten, but for a duplicate, reported once.
 * @see sys/netinet/tcp_sack.c
 */
export function tcp_update_sack_list(tp: Tcpcb, start: TcpSeq, end: TcpSeq): void {
  tcp_clean_dsack_blocks(tp);
  const b = tp.sackblks;
  if (SEQ_LEQ(end, tp.rcv_nxt)) {
    // It was there already: a D-SACK, which is no part of the list.
    putFirst(tp, start, end, keep(tp, start, start));
    tp.dsack = true;
    return;
  }
  let first = start;
  let last = end;
  let dupStart = start;
  let dupEnd = start;
  for (let i = 0; i < tp.rcv_numsacks; i++) {
    const s = tcpSeq(b[2 * i]!);
    const e = tcpSeq(b[2 * i + 1]!);
    if (SEQ_GT(s, last) || SEQ_LT(e, first)) continue;
    // What of it was there already; of several such parts the first one found.
    if (dupStart === dupEnd && SEQ_LT(s, end) && SEQ_GT(e, start)) {
      dupStart = SEQ_MAX(s, start);
      dupEnd = SEQ_LT(e, end) ? e : end;
    }
    if (SEQ_LT(s, first)) first = s;
    if (SEQ_GT(e, last)) last = e;
  }
  const n = keep(tp, first, last);
  if (SEQ_GT(first, tp.rcv_nxt)) putFirst(tp, first, last, n);
  else tp.rcv_numsacks = n;
  if (dupStart !== dupEnd) {
    // RFC 2883, 4: the duplicate, then the block it is part of.
    putFirst(tp, dupStart, dupEnd, tp.rcv_numsacks);
    tp.dsack = true;
  }
}

/** rcv_nxt has moved: forgets what it passed, but for a duplicate that is yet to be reported. */
export function sackTrim(tp: Tcpcb): void {
  const again = tp.dsack;
  const start = tcpSeq(tp.sackblks[0]!);
  const end = tcpSeq(tp.sackblks[1]!);
  tcp_clean_dsack_blocks(tp);
  tp.rcv_numsacks = keep(tp, tp.rcv_nxt, tp.rcv_nxt);
  if (!again) return;
  putFirst(tp, start, end, tp.rcv_numsacks);
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

/** Puts a block in front of `n` others; the last one is lost if there are too many. */
function putFirst(tp: Tcpcb, start: TcpSeq, end: TcpSeq, n: number): void {
  if (tp.sackblks === noSackblks) tp.sackblks = new Int32Array(2 * MAX_SACK_BLKS);
  const b = tp.sackblks;
  const kept = Math.min(n, MAX_SACK_BLKS - 1);
  b.copyWithin(2, 0, 2 * kept);
  b[0] = start;
  b[1] = end;
  tp.rcv_numsacks = kept + 1;
}

/** Forgets a duplicate that has been reported. @see sys/netinet/tcp_sack.c */
export function tcp_clean_dsack_blocks(tp: Tcpcb): void {
  if (!tp.dsack) return;
  tp.dsack = false;
  tp.sackblks.copyWithin(0, 2, 2 * tp.rcv_numsacks);
  tp.rcv_numsacks--;
}

/** Nothing is missing any more: there is nothing to report. @see sys/netinet/tcp_sack.c */
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

/** Puts `hole` behind `after`, or in front if that is null. */
function insert(tp: Tcpcb, hole: Sackhole, after: Sackhole | null): void {
  hole.prev = after;
  hole.next = after === null ? tp.snd_holes : after.next;
  if (hole.next === null) tp.snd_holesTail = hole;
  else hole.next.prev = hole;
  if (after === null) tp.snd_holes = hole;
  else after.next = hole;
}

/** Takes a hole off the board; returns the next one. */
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

/** Forgets the scoreboard. @see sys/netinet/tcp_sack.c */
export function tcp_free_sackholes(tp: Tcpcb): void {
  for (let hole = tp.snd_holes; hole !== null;) hole = remove(tp, hole);
  tp.snd_fack = tp.snd_una;
  tp.sacked_bytes = 0;
  tp.sack_bytes_rexmit = 0;
}

/** Adds the sums of the board up anew. */
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

/** The peer has [start, end), which is below snd_fack: takes it out of the holes it is in. */
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
      // In the middle: two holes, if there is room for one more; else it stays one, a bit too large.
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

/** The peer has [start, end), which reaches beyond snd_fack. */
function extend(tp: Tcpcb, start: TcpSeq, end: TcpSeq): void {
  if (SEQ_GT(start, tp.snd_fack)) {
    const hole = holeAlloc(tp, tp.snd_fack, start);
    // Without a place for it the block is as if it had not come.
    if (hole === null) return;
    insert(tp, hole, tp.snd_holesTail);
    tp.sack_newloss = true;
  } else if (SEQ_LT(start, tp.snd_fack)) {
    fill(tp, start, tp.snd_fack);
  }
  tp.snd_fack = end;
}

/**
 * Sends again what was sent again and lost again: later data has arrived since. Sets sack_again if
 * that was sent since the window was last lowered.
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
 * Enters what an acceptable ACK says into the scoreboard, and what it says to have arrived into
 * delivered_data. `ack` is its acknowledgment, not before snd_una, which the caller moves later.
 * Returns whether there is news of anything beyond `ack`.
 * @see sys/netinet/tcp_sack.c
 */
export function tcp_sack_doack(tp: Tcpcb, seg: TcpSegment, ack: TcpSeq): boolean {
  const { stat } = tp.t_tcp;
  const before = tp.sacked_bytes;
  tp.delivered_data = Math.max(seqDiff(ack, tp.snd_una), 0);
  tp.sack_again = false;
  tp.sack_newloss = false;
  if (tp.snd_holes === null && before === 0) {
    // Nobody has kept it up to date: it may be gigabytes behind, and look ahead.
    tp.snd_fack = ack;
    if (seg.to_nsacks === 0) return false;
  }
  // What is acknowledged for good leaves the board.
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
      // RFC 2883: it arrived twice.
      stat.tcps_dsack_count++;
      stat.tcps_dsack_bytes += seqDiff(end, start);
    } else if (SEQ_LEQ(end, start) || SEQ_LEQ(start, ack) || SEQ_GT(end, tp.snd_max)) {
      // One that begins at `ack` would have been acknowledged.
      count(R_TCP_SACK_BAD);
    } else if (SEQ_GT(end, tp.snd_fack)) {
      extend(tp, start, end);
    } else {
      fill(tp, start, end);
    }
  }
  recount(tp, ack);
  // Of what `ack` covers, `before - held` had been reported already.
  tp.delivered_data += tp.sacked_bytes - before;
  if (tp.t_tcp.params.sack_lrd && tp.sack_bytes_rexmit > 0) lostRetransmissions(tp);
  return tp.sacked_bytes > held;
}

/**
 * Whether a byte with `bytes` SACKed above it, in `blocks` separate blocks, counts as lost: RFC 6675,
 * IsLost. Without net.inet.tcp.sack.revised any does that has something above it.
 */
const isLost = (tp: Tcpcb, bytes: number, blocks: number): boolean =>
  !tp.t_tcp.params.sack_revised ||
  blocks >= tcprexmtthresh ||
  bytes > (tcprexmtthresh - 1) * tcp_maxseg(tp);

/**
 * Bytes under way when all up to `ack` is acknowledged: RFC 6675, SetPipe. Holes that count as lost
 * are not, unless sent again.
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
    // Behind each hole lies one block that the peer has.
    blocks++;
    edge = hole.start;
    if (isLost(tp, above, blocks)) pipe -= seqDiff(hole.end, hole.start);
  }
  return pipe;
}

/** Whether so much beyond snd_una arrived that the byte there is lost: RFC 6675, IsLost (HighACK + 1). */
export function sackLost(tp: Tcpcb): boolean {
  return (
    tp.t_tcp.params.sack_revised &&
    tp.snd_holes !== null &&
    isLost(tp, tp.sacked_bytes, tp.snd_numholes)
  );
}

/**
 * The next hole to send from: with `lost` only one that counts as lost, else any (RFC 6675, NextSeg
 * rules 1 and 3). The first segment of a recovery goes whatever counts (section 5, step 4.3). Null:
 * none.
 * @see sys/netinet/tcp_sack.c
 */
export function tcp_sack_output(tp: Tcpcb, lost: boolean): Sackhole | null {
  // All that the peer has lies above the first hole's start, or between the holes.
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
 * Whether the end of what is under way is to be sent again: RFC 6675, NextSeg rule 4, once in a recovery
 * and when the board has nothing left. A hole that this recovery has filled does not go a second time:
 * the peer said nothing of it yet because it could not.
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

/** `len` bytes of a hole were sent again; back if negative, because they never left. */
export function sackRexmitted(tp: Tcpcb, hole: Sackhole, len: number): void {
  hole.rxmit = seqAdd(hole.rxmit, len);
  hole.sentAt = tp.snd_max;
  tp.sack_bytes_rexmit += len;
}

/**
 * After a time-out, while all is sent again: moves snd_nxt over what the peer has. Returns how many
 * bytes may be sent from there before the next such place; 0: no limit.
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
