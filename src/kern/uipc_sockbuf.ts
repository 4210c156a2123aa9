/**
 * Socket buffers, after sys/kern/uipc_sockbuf.c as of r349529: accounting, ready and not-ready
 * data, compression. It has stream buffers and plain records; uipc_dgram.ts has the records of
 * datagram sockets. Left out: locking (one thread, so the _locked names are not needed), control
 * data, kTLS sessions, autotuning.
 */

import { EINPROGRESS, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { passDefer, passUpcall, type Upcall } from '../sys/pass.ts';
import type { Task } from '../sys/clock.ts';
import { kva } from '../sys/types.ts';
import { payloadReason, READ_SMALL } from '../vm/payload.ts';
import { m_free, mb_unmapped_compress } from './kern_mbuf.ts';
import { m_copydata } from './m_copydata.ts';
import { m_demote } from './uipc_mbuf.ts';
import {
  EXT_PGS,
  type Mbuf,
  M_BLOCKED,
  MCLBYTES,
  M_EOR,
  M_EXT,
  MLEN,
  M_NOMAP,
  M_NOTAVAIL,
  M_NOTREADY,
  M_PROTOFLAGS,
  MSIZE,
  MT_DATA,
  MT_OOBDATA,
  M_TRAILINGSPACE,
  M_WRITABLE,
} from './mbuf.ts';
import { noTasks, SockbufBase } from './socket_cold.ts';

// sb_flags
export const SB_NOCOALESCE = 0x200;
export const SB_AUTOSIZE = 0x800;
export const SB_STOP = 0x1000;
// sb_state
export const SBS_CANTSENDMORE = 0x10;
export const SBS_CANTRCVMORE = 0x20;
export const SBS_RCVATMARK = 0x40;

/** kern.ipc.maxsockbuf and kern.ipc.sockbuf_waste_factor. */
export const sbParams = { sb_max: 2 * 1024 * 1024, sb_efficiency: 8 };

/** @see sys/sys/sockbuf.h */
// Sockbuf.queued
const SBQ_WAKE = 1;
const SBQ_UPCALL = 2;

/** What runs when a buffer has data or space: the argument is the buffer. A Task fits. */
export interface SoUpcall {
  run(sb: Sockbuf): void;
  /**
   * Uses the buffer at the end of the pass, without a call of the program's code. Returns whether
   * `run` must follow, after the pass.
   */
  take?(sb: Sockbuf): boolean;
}

export class Sockbuf extends SockbufBase implements Task, Upcall {
  sb_mb: Mbuf | null = null;
  sb_mbtail: Mbuf | null = null;
  /** First mbuf of the last record. A stream is one record. */
  sb_lastrecord: Mbuf | null = null;
  /** First mbuf that is not ready. */
  sb_fnrdy: Mbuf | null = null;
  /** Position of sbsndptr_adv: an mbuf, and its offset from the start of the buffer. */
  sb_sndptr: Mbuf | null = null;
  sb_sndptroff = 0;
  /** Bytes that are ready, and all bytes. */
  sb_acc = 0;
  sb_ccc = 0;
  /** Bytes of memory charged. */
  sb_mbcnt = 0;
  sb_mcnt = 0;
  sb_ccnt = 0;
  sb_hiwat = 0;
  sb_mbmax = 0;
  sb_lowat = 1;
  sb_flags = 0;
  sb_state = 0;
  /** Runs after the pass when the buffer has data (receive) or space (send); see soupcall_set. */
  sb_upcall: SoUpcall | null = null;
  /** SBQ_WAKE: `run` is queued for the end of the pass. SBQ_UPCALL: `upcall` is queued. */
  queued = 0;

  /** Wakes the waiters and knotes, at the end of the pass that called sowakeup. */
  run(): void {
    this.queued &= ~SBQ_WAKE;
    sbRunWaiters(this);
    for (let i = 0; i < this.sb_notes.length; i++) this.sb_notes[i]!.run();
    if (this.sb_upcall === null) return;
    if (this.sb_upcall.take?.(this) === false || (this.queued & SBQ_UPCALL) !== 0) return;
    this.queued |= SBQ_UPCALL;
    passUpcall(this);
  }

  /** Calls the program, after the pass. Closing the socket clears sb_upcall. */
  upcall(): void {
    this.queued &= ~SBQ_UPCALL;
    this.sb_upcall?.run(this);
  }
}

/** Adds `task` to a list of a Sockbuf and returns the list. */
export function taskAdd(list: readonly Task[], task: Task): readonly Task[] {
  if (list === noTasks) return [task];
  (list as Task[]).push(task);
  return list;
}

/** Removes `task`, if the list contains it, and returns the list. */
export function taskRemove(list: readonly Task[], task: Task): readonly Task[] {
  const at = list.indexOf(task);
  if (at >= 0) (list as Task[]).splice(at, 1);
  return list;
}

/** Removes and runs the waiters of the buffer. A waiter that is added meanwhile stays. */
export function sbRunWaiters(sb: Sockbuf): void {
  // A waiter that runs may remove another one; the queue is then shorter than `n`.
  for (let n = sb.sb_waiters.length; n > 0 && sb.sb_waiters.length > 0; n--)
    (sb.sb_waiters as Task[]).shift()!.run();
}

/** Wakes the buffer's waiters, once, at the end of the pass. @see sockbuf(9) */
export function sowakeup(sb: Sockbuf): void {
  if ((sb.queued & SBQ_WAKE) !== 0) return;
  if (sb.sb_upcall === null && sb.sb_waiters.length === 0 && sb.sb_notes.length === 0) return;
  sb.queued |= SBQ_WAKE;
  passDefer(sb);
}

/** Returns the bytes that can be read or sent now. @see sockbuf(9) */
export function sbavail(sb: Sockbuf): number {
  return sb.sb_acc;
}

/** Returns all bytes in the buffer, ready or not. @see sockbuf(9) */
export function sbused(sb: Sockbuf): number {
  return sb.sb_ccc;
}

/**
 * Returns the free space in bytes; negative if the buffer holds more than its limits.
 * @see sockbuf(9)
 */
export function sbspace(sb: Sockbuf): number {
  if ((sb.sb_flags & SB_STOP) !== 0) return 0;
  return Math.min(sb.sb_hiwat - sb.sb_ccc, sb.sb_mbmax - sb.sb_mbcnt);
}

/** The largest size that `sbreserve` accepts, in bytes: it follows from kern.ipc.maxsockbuf. */
export function sbreserveMax(): number {
  return Math.floor((sbParams.sb_max * MCLBYTES) / (MSIZE + MCLBYTES));
}

/**
 * Sets the limits for `cc` bytes of data. Returns false and changes nothing if `cc` exceeds the
 * limit that follows from kern.ipc.maxsockbuf.
 * @see sockbuf(9)
 */
export function sbreserve(sb: Sockbuf, cc: number): boolean {
  if (cc > sbreserveMax()) return false;
  sb.sb_hiwat = cc;
  sb.sb_mbmax = Math.min(cc * sbParams.sb_efficiency, sbParams.sb_max);
  if (sb.sb_lowat > sb.sb_hiwat) sb.sb_lowat = sb.sb_hiwat;
  return true;
}

/** Charges `m` to the buffer. @see sockbuf(9) */
export function sballoc(sb: Sockbuf, m: Mbuf): void {
  sb.sb_ccc += m.m_len;
  if (sb.sb_fnrdy === null) {
    if ((m.m_flags & M_NOTREADY) !== 0) sb.sb_fnrdy = m;
    else sb.sb_acc += m.m_len;
  } else {
    m.m_flags |= M_BLOCKED;
  }
  if (m.m_type !== MT_DATA && m.m_type !== MT_OOBDATA) sb.sb_ctl += m.m_len;
  sb.sb_mbcnt += MSIZE;
  sb.sb_mcnt++;
  if ((m.m_flags & M_EXT) !== 0) {
    sb.sb_mbcnt += m.m_ext.ext_size;
    sb.sb_ccnt++;
  }
}

/**
 * Removes the charge of `m`. If `m` was sb_fnrdy, unblocks the ready mbufs behind it.
 * @see sockbuf(9)
 */
export function sbfree(sb: Sockbuf, m: Mbuf): void {
  sb.sb_ccc -= m.m_len;
  if ((m.m_flags & M_NOTAVAIL) === 0) sb.sb_acc -= m.m_len;
  if (m === sb.sb_fnrdy) {
    KASSERT((m.m_flags & M_NOTREADY) !== 0, 'sbfree: sb_fnrdy is ready');
    let n = m.m_next;
    while (n !== null && (n.m_flags & M_NOTREADY) === 0) {
      n.m_flags &= ~M_BLOCKED;
      sb.sb_acc += n.m_len;
      n = n.m_next;
    }
    sb.sb_fnrdy = n;
  }
  if (m.m_type !== MT_DATA && m.m_type !== MT_OOBDATA) sb.sb_ctl -= m.m_len;
  sb.sb_mbcnt -= MSIZE;
  sb.sb_mcnt--;
  if ((m.m_flags & M_EXT) !== 0) {
    sb.sb_mbcnt -= m.m_ext.ext_size;
    sb.sb_ccnt--;
  }
  if (sb.sb_sndptr === m) {
    sb.sb_sndptr = null;
    sb.sb_sndptroff = 0;
  } else if (sb.sb_sndptroff !== 0) {
    sb.sb_sndptroff -= m.m_len;
  }
}

/**
 * Whether the bytes of `n` may be appended to `m`: `m` is ready, mapped, writable and has the
 * space.
 */
function fitsBehind(m: Mbuf, n: Mbuf): boolean {
  return (
    (m.m_flags & M_EOR) === 0 &&
    (m.m_flags & (M_NOTREADY | M_NOMAP)) === 0 &&
    M_WRITABLE(m) &&
    n.m_len <= MCLBYTES / 4 &&
    n.m_len <= M_TRAILINGSPACE(m) &&
    n.m_type === m.m_type
  );
}

/**
 * Appends the bytes of `n` to `m`. Counts reads of file pages as READ_SMALL, copies that FreeBSD
 * makes too.
 */
function copyBehind(m: Mbuf, n: Mbuf): void {
  const before = payloadReason(READ_SMALL);
  m_copydata(n, 0, n.m_len, kva(m.m_data + m.m_len));
  payloadReason(before);
  m.m_len += n.m_len;
}

/**
 * Appends the chain `m` after the tail `n`, or as the first if null. Copies small mbufs into the
 * tail and converts small unmapped mbufs to mapped ones. Takes `m`.
 * @see sys/kern/uipc_sockbuf.c
 */
function sbcompress(sb: Sockbuf, m: Mbuf | null, n: Mbuf | null): void {
  let eor = 0;
  while (m !== null) {
    eor |= m.m_flags & M_EOR;
    if (
      m.m_len === 0 &&
      (eor === 0 || m.m_next !== null || (n !== null && n.m_type === m.m_type))
    ) {
      if (sb.sb_fnrdy === m) sb.sb_fnrdy = m.m_next;
      m = m_free(m);
      continue;
    }
    if (
      n !== null &&
      (sb.sb_flags & SB_NOCOALESCE) === 0 &&
      (m.m_flags & M_NOTREADY) === 0 &&
      fitsBehind(n, m)
    ) {
      copyBehind(n, m);
      sb.sb_ccc += m.m_len;
      if (sb.sb_fnrdy === null) sb.sb_acc += m.m_len;
      m = m_free(m);
      continue;
    }
    if ((m.m_flags & M_NOMAP) !== 0 && (m.m_flags & M_NOTREADY) === 0 && m.m_len <= MLEN)
      mb_unmapped_compress(m); // on an error `m` stays unmapped and valid
    const next: Mbuf | null = m.m_next;
    if (n === null) sb.sb_mb = m;
    else n.m_next = m;
    m.m_next = null;
    m.m_flags &= ~M_EOR;
    sb.sb_mbtail = m;
    sballoc(sb, m);
    n = m;
    m = next;
  }
  if (eor !== 0 && n !== null) n.m_flags |= eor;
}

/**
 * Appends data to a stream buffer. Removes packet headers, record ends and protocol flags. Takes
 * `m`. `notReady` (PRUS_NOTREADY) keeps the M_NOTREADY flags.
 * @see sockbuf(9)
 */
export function sbappendstream(sb: Sockbuf, m: Mbuf, notReady: boolean): void {
  KASSERT(m.m_nextpkt === null, 'sbappendstream: packet chain');
  KASSERT(sb.sb_mb === sb.sb_lastrecord, 'sbappendstream: records');
  m_demote(m, true, notReady ? M_NOTREADY : 0);
  sbcompress(sb, m, sb.sb_mbtail);
  sb.sb_lastrecord = sb.sb_mb;
}

/** Clears the protocol flags of a chain; keeps M_NOTREADY if `notReady`. */
function clearProtoFlags(m: Mbuf, notReady: boolean): void {
  const clear = notReady ? M_PROTOFLAGS & ~M_NOTREADY : M_PROTOFLAGS;
  for (let n: Mbuf | null = m; n !== null; n = n.m_next) n.m_flags &= ~clear;
}

/**
 * Appends data to the last record, or as a new record if the last one has ended (M_EOR). Takes `m`.
 * `notReady` as for sbappendstream.
 * Part of the sockbuf(9) library: the stack itself does not call it.
 * @see sockbuf(9)
 */
export function sbappend(sb: Sockbuf, m: Mbuf, notReady: boolean): void {
  clearProtoFlags(m, notReady);
  let last: Mbuf | null = sb.sb_lastrecord;
  if (last !== null) {
    while (last.m_next !== null && (last.m_flags & M_EOR) === 0) last = last.m_next;
    if ((last.m_flags & M_EOR) !== 0) {
      sbappendrecord(sb, m);
      return;
    }
  }
  sbcompress(sb, m, last);
  sb.sb_lastrecord ??= sb.sb_mb;
}

/** Appends the chain `m0` as a new record. Takes it. @see sockbuf(9) */
export function sbappendrecord(sb: Sockbuf, m0: Mbuf): void {
  clearProtoFlags(m0, false);
  const rest = m0.m_next;
  m0.m_next = null;
  if (sb.sb_lastrecord === null) sb.sb_mb = m0;
  else sb.sb_lastrecord.m_nextpkt = m0;
  sb.sb_lastrecord = m0;
  sb.sb_mbtail = m0;
  sballoc(sb, m0);
  // M_EOR must be on the record's last mbuf.
  if (rest !== null && (m0.m_flags & M_EOR) !== 0) {
    m0.m_flags &= ~M_EOR;
    rest.m_flags |= M_EOR;
  }
  sbcompress(sb, rest, m0);
}

/**
 * Merges the small mbufs that became ready, from `m0` up to, not including, `end`.
 * @see sys/kern/uipc_sockbuf.c
 */
function sbready_compress(sb: Sockbuf, m0: Mbuf, end: Mbuf | null): void {
  if ((sb.sb_flags & SB_NOCOALESCE) !== 0) return;
  for (let m: Mbuf | null = m0; m !== null && m !== end; m = m.m_next) {
    if ((m.m_flags & M_NOMAP) !== 0 && m.m_len <= MLEN) {
      const extSize = m.m_ext.ext_size;
      if (mb_unmapped_compress(m) === 0) {
        sb.sb_mbcnt -= extSize;
        sb.sb_ccnt--;
      }
    }
    let n: Mbuf | null = m.m_next;
    while (n !== null && n !== end && fitsBehind(m, n)) {
      copyBehind(m, n);
      m.m_flags |= n.m_flags & M_EOR;
      m.m_next = n.m_next;
      sb.sb_mbcnt -= MSIZE;
      sb.sb_mcnt--;
      if ((n.m_flags & M_EXT) !== 0) {
        sb.sb_mbcnt -= n.m_ext.ext_size;
        sb.sb_ccnt--;
      }
      if (sb.sb_mbtail === n) sb.sb_mbtail = m;
      if (sb.sb_sndptr === n) sb.sb_sndptr = null;
      m_free(n);
      n = m.m_next;
    }
  }
  if (sb.sb_sndptr === null) sb.sb_sndptroff = 0;
}

/**
 * Marks `count` units of I/O from `m0` on as done. A unit is a page of an unmapped mbuf, or a whole
 * mbuf of another kind. Returns 0 if more data can be sent now, EINPROGRESS if the data is
 * incomplete or an earlier mbuf is not ready.
 * @see sys/kern/uipc_sockbuf.c
 */
export function sbready(sb: Sockbuf, m0: Mbuf, count: number): Errno {
  KASSERT(sb.sb_fnrdy !== null, 'sbready: nothing is pending');
  const blocker = sb.sb_fnrdy === m0;
  let m: Mbuf | null = m0;
  for (let i = 0; i < count; i++) {
    KASSERT(m !== null && (m.m_flags & M_NOTREADY) !== 0, 'sbready: not a pending mbuf');
    if ((m.m_flags & M_EXT) !== 0 && m.m_ext.ext_type === EXT_PGS) {
      if (--m.m_ext.ext_pgs!.nrdy !== 0) continue;
    }
    m.m_flags &= ~(M_NOTREADY | (blocker ? M_BLOCKED : 0));
    if (blocker) sb.sb_acc += m.m_len;
    m = m.m_next;
  }
  // The first mbuf is still incomplete.
  if (m === m0) return EINPROGRESS;
  if (!blocker) {
    sbready_compress(sb, m0, m);
    return EINPROGRESS;
  }
  for (; m !== null && (m.m_flags & M_NOTREADY) === 0; m = m.m_next) {
    m.m_flags &= ~M_BLOCKED;
    sb.sb_acc += m.m_len;
  }
  sb.sb_fnrdy = m;
  sbready_compress(sb, m0, m);
  return 0;
}

/**
 * Removes `len` bytes from the front and returns the mbufs to free. Not-ready mbufs are unlinked
 * but not returned: the I/O owns them and frees them with mb_free_notready.
 */
function sbcut_internal(sb: Sockbuf, len: number): Mbuf | null {
  let free: Mbuf | null = null;
  let freeTail: Mbuf | null = null;
  let m = sb.sb_mb;
  let record = m === null ? null : m.m_nextpkt; // the record after m's
  while (len > 0) {
    if (m === null) {
      KASSERT(record !== null, 'sbcut: len exceeds the data');
      m = record;
      record = m.m_nextpkt;
    }
    if (m.m_len > len) {
      KASSERT((m.m_flags & M_NOTAVAIL) === 0, 'sbcut: trimming data that is not available');
      m.m_len -= len;
      m.m_data += len;
      sb.sb_ccc -= len;
      sb.sb_acc -= len;
      if (m.m_type !== MT_DATA && m.m_type !== MT_OOBDATA) sb.sb_ctl -= len;
      if (sb.sb_sndptroff !== 0) sb.sb_sndptroff -= len;
      break;
    }
    len -= m.m_len;
    sbfree(sb, m);
    const n: Mbuf | null = m.m_next;
    m.m_nextpkt = null;
    if ((m.m_flags & M_NOTREADY) === 0) {
      m.m_next = null;
      if (freeTail === null) free = m;
      else freeTail.m_next = m;
      freeTail = m;
    }
    m = n;
  }
  // Free empty mbufs at the front.
  while (m !== null && m.m_len === 0 && (m.m_flags & M_NOTREADY) === 0) {
    sbfree(sb, m);
    m = m_free(m);
  }
  if (m === null) m = record;
  else m.m_nextpkt = record;
  sb.sb_mb = m;
  if (m === null) {
    sb.sb_mbtail = null;
    sb.sb_lastrecord = null;
    KASSERT(sb.sb_ccc === 0 && sb.sb_mbcnt === 0, 'sbcut: empty but charged');
  } else if (m.m_nextpkt === null) {
    sb.sb_lastrecord = m;
  }
  return free;
}

/**
 * Removes `len` bytes from the front and frees their mbufs. Panics if there are fewer.
 * @see sockbuf(9)
 */
export function sbdrop(sb: Sockbuf, len: number): void {
  for (let m = sbcut_internal(sb, len); m !== null;) m = m_free(m);
}

/**
 * Like sbdrop, but returns the removed mbufs; the caller owns them.
 * Part of the sockbuf(9) library: the stack itself does not call it.
 * @see sockbuf(9)
 */
export function sbcut(sb: Sockbuf, len: number): Mbuf | null {
  return sbcut_internal(sb, len);
}

/** Empties the buffer. The I/O keeps the not-ready mbufs and frees them later. @see sockbuf(9) */
export function sbflush(sb: Sockbuf): void {
  sbdrop(sb, sb.sb_ccc);
  while (sb.sb_mb !== null) {
    // Zero-length mbufs may be left.
    const m: Mbuf = sb.sb_mb;
    sbfree(sb, m);
    if (m.m_next !== null) m.m_next.m_nextpkt = m.m_nextpkt;
    sb.sb_mb = m.m_next ?? m.m_nextpkt;
    m.m_nextpkt = null;
    if ((m.m_flags & M_NOTREADY) === 0) m_free(m);
  }
  sb.sb_mbtail = null;
  sb.sb_lastrecord = null;
  sb.sb_fnrdy = null;
}

/** Frees all data and sets the limits to 0, so that the buffer has no room. @see sockbuf(9) */
export function sbrelease(sb: Sockbuf): void {
  sbflush(sb);
  sb.sb_hiwat = 0;
  sb.sb_mbmax = 0;
}

/** Offset in the mbuf that sbsndptr_noadv or sbsndmbuf returned: FreeBSD's output parameter. */
export const sbsndOff = { off: 0 };

/**
 * Returns an mbuf at or before byte `off` and sets `sbsndOff.off` to the distance from its start.
 * That is sb_sndptr, so that new data needs no walk along the chain, or the first mbuf if `off` is
 * before sb_sndptr (a retransmission). The buffer must not be empty.
 * @see sys/kern/uipc_sockbuf.c
 */
export function sbsndptr_noadv(sb: Sockbuf, off: number): Mbuf {
  KASSERT(sb.sb_mb !== null, 'sbsndptr_noadv: empty');
  if (sb.sb_sndptr !== null && sb.sb_sndptroff <= off) {
    sbsndOff.off = off - sb.sb_sndptroff;
    return sb.sb_sndptr;
  }
  if (sb.sb_sndptr === null) {
    sb.sb_sndptr = sb.sb_mb;
    sb.sb_sndptroff = 0;
  }
  sbsndOff.off = off;
  return sb.sb_mb;
}

/**
 * Records that `len` bytes from the start of `mb`, which sbsndptr_noadv returned, were sent: moves
 * sb_sndptr past the mbufs that were sent completely. Does nothing if `mb` is not sb_sndptr (a
 * retransmission).
 * @see sys/kern/uipc_sockbuf.c
 */
export function sbsndptr_adv(sb: Sockbuf, mb: Mbuf, len: number): void {
  if (mb !== sb.sb_sndptr) return;
  let m = mb;
  while (len >= m.m_len && m.m_next !== null) {
    len -= m.m_len;
    sb.sb_sndptroff += m.m_len;
    m = m.m_next;
  }
  sb.sb_sndptr = m;
}

/**
 * Returns the mbuf that contains byte `off` and sets `sbsndOff.off` to the offset in it. Returns
 * null if there is no such byte. Does not use sb_sndptr.
 * Part of the sockbuf(9) library: the stack itself does not call it.
 * @see sys/kern/uipc_sockbuf.c
 */
export function sbsndmbuf(sb: Sockbuf, off: number): Mbuf | null {
  let m = sb.sb_mb;
  while (m !== null && m.m_len <= off) {
    off -= m.m_len;
    m = m.m_next;
  }
  sbsndOff.off = off;
  return m;
}

/**
 * Recounts the buffer and panics if a field differs; for tests and debugging. Unlike FreeBSD, it
 * also checks the M_NOTREADY and M_BLOCKED flags.
 * Part of the sockbuf(9) library: the stack itself does not call it.
 * @see sys/kern/uipc_sockbuf.c
 */
export function sbcheck(sb: Sockbuf): void {
  let [acc, ccc, mbcnt, mcnt, ccnt, ctl] = [0, 0, 0, 0, 0, 0];
  let fnrdy: Mbuf | null = null;
  let sndptroff = -1;
  let last: Mbuf | null = null;
  for (let r = sb.sb_mb; r !== null; r = r.m_nextpkt) {
    last = r;
    for (let m: Mbuf | null = r; m !== null; m = m.m_next) {
      KASSERT(m === r || m.m_nextpkt === null, 'sbcheck: m_nextpkt inside a record');
      if (m === sb.sb_sndptr) sndptroff = ccc;
      const ext = (m.m_flags & M_EXT) !== 0;
      ccc += m.m_len;
      mcnt++;
      ccnt += ext ? 1 : 0;
      mbcnt += MSIZE + (ext ? m.m_ext.ext_size : 0);
      if (m.m_type !== MT_DATA && m.m_type !== MT_OOBDATA) ctl += m.m_len;
      if (fnrdy === null && (m.m_flags & M_NOTREADY) !== 0) fnrdy = m;
      if (fnrdy === null) acc += m.m_len;
      const want = fnrdy === null ? 0 : m === fnrdy ? M_NOTREADY : M_BLOCKED;
      KASSERT((m.m_flags & want) === want, 'sbcheck: M_NOTREADY or M_BLOCKED missing');
      KASSERT(fnrdy !== null || (m.m_flags & M_NOTAVAIL) === 0, 'sbcheck: M_BLOCKED in front');
    }
  }
  KASSERT(sb.sb_acc === acc && sb.sb_ccc === ccc, 'sbcheck: sb_acc, sb_ccc');
  KASSERT(sb.sb_mbcnt === mbcnt, 'sbcheck: sb_mbcnt');
  KASSERT(sb.sb_mcnt === mcnt && sb.sb_ccnt === ccnt, 'sbcheck: sb_mcnt, sb_ccnt');
  KASSERT(sb.sb_ctl === ctl, 'sbcheck: sb_ctl');
  KASSERT(sb.sb_fnrdy === fnrdy, 'sbcheck: sb_fnrdy');
  KASSERT(sb.sb_lastrecord === last, 'sbcheck: sb_lastrecord');
  KASSERT(sb.sb_sndptr === null || sb.sb_sndptroff === sndptroff, 'sbcheck: sb_sndptroff');
}
