/**
 * kqueue(2) for sockets and bpf(4), after the socket filters of sys/kern/kern_event.c and uipc_socket.c:
 * EVFILT_READ, EVFILT_WRITE and EVFILT_EMPTY, level-triggered without EV_CLEAR, EV_ONESHOT or
 * EV_DISPATCH. Left out: files, timers, signals, processes, user events, a kqueue in a kqueue.
 * Nothing sleeps here: kq_upcall runs when the caller should scan again.
 */

import { EINVAL, ENOENT, type Errno } from '../sys/errno.ts';
import type { Task } from '../sys/clock.ts';
import { inPass, passUpcall, type Upcall } from '../sys/pass.ts';
import { PR_CONNREQUIRED } from './protosw.ts';
import {
  sbavail,
  SBS_CANTRCVMORE,
  SBS_CANTSENDMORE,
  type Sockbuf,
  sbspace,
  sbused,
  taskAdd,
  taskRemove,
} from './uipc_sockbuf.ts';
import { SO_ACCEPTCONN, Socket, SS_ISCONNECTED } from './uipc_socket.ts';

export const EVFILT_READ = -1;
export const EVFILT_WRITE = -2;
export const EVFILT_EMPTY = -13;

// flags
export const EV_ADD = 0x0001;
export const EV_DELETE = 0x0002;
export const EV_ENABLE = 0x0004;
export const EV_DISABLE = 0x0008;
export const EV_ONESHOT = 0x0010;
export const EV_CLEAR = 0x0020;
export const EV_RECEIPT = 0x0040;
export const EV_DISPATCH = 0x0080;
export const EV_ERROR = 0x4000;
export const EV_EOF = 0x8000;
/** fflags of EVFILT_READ and EVFILT_WRITE: `data` is the low-water mark. */
export const NOTE_LOWAT = 0x0001;

/**
 * struct kevent: a requested change, or an event. An event carries the `udata` of the last change.
 */
export interface Kevent {
  readonly ident: number;
  readonly filter: number;
  readonly flags: number;
  readonly fflags: number;
  /** In an event: bytes to read, bytes of space to write, or connections to accept. */
  readonly data: number;
  readonly udata: unknown;
}

/** A file that is not a socket and can be read, such as a descriptor of bpf(4). */
export interface KqFile {
  /** Run when a read may have become possible. */
  kq_notes: readonly Task[];
  /** Bytes to read; -1: a read would block. */
  kqReadable(): number;
}

/** One registered filter of a kqueue on one file. @see sys/sys/event.h */
class Knote implements Task {
  readonly kn_kq: Kqueue;
  readonly kn_ident: number;
  readonly kn_filter: number;
  readonly kn_file: Socket | KqFile;
  kn_flags = 0;
  kn_sfflags = 0;
  kn_sdata = 0;
  kn_udata: unknown = null;
  disabled = false;
  /** Whether it is in Kqueue.active. */
  queued = false;
  // Results of the last filter run.
  eof = false;
  fflags = 0;
  data = 0;

  constructor(kq: Kqueue, ident: number, filter: number, file: Socket | KqFile) {
    this.kn_kq = kq;
    this.kn_ident = ident;
    this.kn_filter = filter;
    this.kn_file = file;
  }

  /** Called when the socket buffer is woken. */
  run(): void {
    if (!this.disabled) activate(this);
  }
}

/** @see kqueue(2) */
export class Kqueue implements Upcall {
  readonly knotes = new Map<number, Knote>();
  active: Knote[] = [];
  /** Runs after a pass in which a filter may have become ready. */
  kq_upcall: Task | null = null;
  /** Waiting kevent calls. A wake-up removes and runs all of them. */
  readonly kq_waiters: Task[] = [];
  wakePending = false;

  upcall(): void {
    this.wakePending = false;
    for (let n = this.kq_waiters.length; n > 0; n--) this.kq_waiters.shift()?.run();
    this.kq_upcall?.run();
  }
}

function key(ident: number, filter: number): number {
  return ident * 16 - filter;
}

function buffer(so: Socket, filter: number): Sockbuf {
  return filter === EVFILT_READ ? so.so_rcv : so.so_snd;
}

/** Adds `kn` to the notes of its file. */
function attach(kn: Knote): void {
  const { kn_file: file } = kn;
  if (file instanceof Socket) {
    const sb = buffer(file, kn.kn_filter);
    sb.sb_notes = taskAdd(sb.sb_notes, kn);
  } else {
    file.kq_notes = taskAdd(file.kq_notes, kn);
  }
}

function activate(kn: Knote): void {
  const kq = kn.kn_kq;
  if (!kn.queued) {
    kn.queued = true;
    kq.active.push(kn);
  }
  if (kq.kq_upcall !== null || kq.kq_waiters.length > 0) wake(kq);
}

function wake(kq: Kqueue): void {
  if (kq.wakePending) return;
  kq.wakePending = true;
  passUpcall(kq);
}

/** @see sys/kern/uipc_socket.c */
function filt_soread(kn: Knote, so: Socket): boolean {
  if ((so.so_options & SO_ACCEPTCONN) !== 0) {
    kn.data = so.sol_comp.length;
    kn.eof = so.so_error !== 0;
    kn.fflags = so.so_error;
    return kn.eof || kn.data > 0;
  }
  kn.data = sbavail(so.so_rcv) - so.so_rcv.sb_ctl;
  if ((so.so_rcv.sb_state & SBS_CANTRCVMORE) !== 0) {
    kn.eof = true;
    kn.fflags = so.so_error;
    return true;
  }
  if (so.so_error !== 0 || so.so_rerror !== 0) return true;
  if ((kn.kn_sfflags & NOTE_LOWAT) !== 0) return kn.data >= kn.kn_sdata;
  // Compare sb_acc, which includes addresses: an empty datagram is readable too.
  return sbavail(so.so_rcv) >= so.so_rcv.sb_lowat;
}

/** @see sys/kern/uipc_socket.c */
function filt_sowrite(kn: Knote, so: Socket): boolean {
  if ((so.so_options & SO_ACCEPTCONN) !== 0) return false;
  kn.data = sbspace(so.so_snd);
  if ((so.so_snd.sb_state & SBS_CANTSENDMORE) !== 0) {
    kn.eof = true;
    kn.fflags = so.so_error;
    return true;
  }
  if (so.so_error !== 0) return true;
  if ((so.so_state & SS_ISCONNECTED) === 0 && (so.so_proto.pr_flags & PR_CONNREQUIRED) !== 0)
    return false;
  return kn.data >= ((kn.kn_sfflags & NOTE_LOWAT) !== 0 ? kn.kn_sdata : so.so_snd.sb_lowat);
}

/** Runs the filter; returns whether the knote is ready. */
function f_event(kn: Knote): boolean {
  kn.eof = false;
  kn.fflags = 0;
  const { kn_file: file } = kn;
  if (!(file instanceof Socket)) {
    const bytes = file.kqReadable();
    kn.data = Math.max(bytes, 0);
    return bytes >= 0;
  }
  if (kn.kn_filter === EVFILT_READ) return filt_soread(kn, file);
  if (kn.kn_filter === EVFILT_WRITE) return filt_sowrite(kn, file);
  kn.data = sbused(file.so_snd);
  return kn.data === 0;
}

function drop(kn: Knote): void {
  kn.kn_kq.knotes.delete(key(kn.kn_ident, kn.kn_filter));
  const { kn_file: file } = kn;
  taskRemove(file instanceof Socket ? buffer(file, kn.kn_filter).sb_notes : file.kq_notes, kn);
  kn.disabled = true;
}

/**
 * Applies one change; `file` is the file of kev.ident. EINVAL: unknown filter, or not one of the
 * file; ENOENT: no such knote, and no EV_ADD.
 * @see sys/kern/kern_event.c
 */
export function kqueue_register(kq: Kqueue, kev: Kevent, file: Socket | KqFile): Errno {
  return inPass(registerInPass, kq, kev, file);
}

function registerInPass(kq: Kqueue, kev: Kevent, file: Socket | KqFile): Errno {
  const { ident, filter, flags } = kev;
  if (filter !== EVFILT_READ && filter !== EVFILT_WRITE && filter !== EVFILT_EMPTY) return EINVAL;
  if (filter !== EVFILT_READ && !(file instanceof Socket)) return EINVAL;
  let kn = kq.knotes.get(key(ident, filter));
  if (kn === undefined) {
    if ((flags & EV_ADD) === 0) return ENOENT;
    kn = new Knote(kq, ident, filter, file);
    kq.knotes.set(key(ident, filter), kn);
    attach(kn);
    kn.kn_flags = flags & (EV_ONESHOT | EV_CLEAR | EV_DISPATCH);
  }
  if ((flags & EV_DELETE) !== 0) {
    drop(kn);
    return 0;
  }
  kn.kn_udata = kev.udata;
  kn.kn_sfflags = kev.fflags;
  kn.kn_sdata = kev.data;
  if ((flags & EV_ENABLE) !== 0) kn.disabled = false;
  else if ((flags & EV_DISABLE) !== 0) kn.disabled = true;
  if (!kn.disabled && f_event(kn)) activate(kn);
  return 0;
}

/**
 * Returns at most `max` events, the one that has waited longest first. A level-triggered knote that
 * is still ready goes to the end of the queue for the next scan.
 * @see sys/kern/kern_event.c
 */
export function kqueue_scan(kq: Kqueue, max: number): Kevent[] {
  const events: Kevent[] = [];
  const again: Knote[] = [];
  let i = 0;
  for (; i < kq.active.length && events.length < max; i++) {
    const kn = kq.active[i]!;
    kn.queued = false;
    if (kn.disabled || !f_event(kn)) continue;
    events.push({
      ident: kn.kn_ident,
      filter: kn.kn_filter,
      flags: kn.kn_flags | (kn.eof ? EV_EOF : 0),
      fflags: kn.fflags,
      data: kn.data,
      udata: kn.kn_udata,
    });
    if ((kn.kn_flags & EV_ONESHOT) !== 0) {
      drop(kn);
    } else if ((kn.kn_flags & EV_DISPATCH) !== 0) {
      kn.disabled = true;
    } else if ((kn.kn_flags & EV_CLEAR) === 0) {
      kn.queued = true;
      again.push(kn);
    }
  }
  kq.active = kq.active.slice(i).concat(again);
  return events;
}

/**
 * Removes the knotes of the descriptor `ident`, which is being closed.
 * @see sys/kern/kern_event.c
 */
export function knote_fdclose(kq: Kqueue, ident: number): void {
  for (const filter of [EVFILT_READ, EVFILT_WRITE, EVFILT_EMPTY]) {
    const kn = kq.knotes.get(key(ident, filter));
    if (kn !== undefined) drop(kn);
  }
}

/** Closes the kqueue and wakes the waiting kevent calls. @see sys/kern/kern_event.c */
export function kqueue_close(kq: Kqueue): void {
  inPass(closeInPass, kq);
}

function closeInPass(kq: Kqueue): void {
  for (const kn of kq.knotes.values()) drop(kn);
  kq.active = [];
  kq.kq_upcall = null;
  if (kq.kq_waiters.length > 0) wake(kq);
}
