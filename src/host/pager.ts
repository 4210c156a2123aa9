/**
 * The real disk: preadv on libuv's thread pool, directly into page frames. The addon has at most 64
 * reads in flight; further reads wait here in order. Not implemented: O_DIRECT, io_uring.
 */

import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';
import { EAGAIN, EFAULT, EINVAL, type Errno } from '../sys/errno.ts';
import type { FileStat, Pager, PagerRequest } from '../sys/pager.ts';
import { assertCurrentArena } from './arena.ts';
import { check, fromLinux } from './linux_errno.ts';

/** Limit of reads waiting or in flight. Beyond it `pread` returns EAGAIN. */
const MAX_PENDING = 4096;
const MAX_IOV = 1024;
const LINUX_EAGAIN = -11;
const LINUX_EBUSY = -16;
const LINUX_ENXIO = -6;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** One read. Slots and their iov arrays are reused. */
class Slot {
  readonly id: number;
  fd = -1;
  off = 0;
  iov = new Uint32Array(64);
  iovcnt = 0;
  req: PagerRequest | null = null;

  constructor(id: number) {
    this.id = id;
  }
}

// The addon has one callback per isolate, so all pagers of the isolate share the slots.
const slots: Slot[] = [];
const free: Slot[] = [];
let registered = false;

function take(): Slot | null {
  const slot = free.pop();
  if (slot !== undefined) return slot;
  if (slots.length === MAX_PENDING) return null;
  const made = new Slot(slots.length);
  slots.push(made);
  return made;
}

function submit(addon: NativeAddon, slot: Slot): number {
  return addon.filePread(slot.id, slot.fd, slot.off, slot.iov, slot.iovcnt);
}

function finish(slot: Slot, error: Errno, nbytes: number): void {
  const req = slot.req!;
  slot.req = null;
  free.push(slot);
  req.pagerDone(error, nbytes);
}

/** Reads that wait for others to end, first in, first out. */
class Queue {
  /** What the addon returns when the reads of this queue have to wait. */
  readonly full: number;
  readonly #slots: Slot[] = [];
  #head = 0;

  constructor(full: number) {
    this.full = full;
  }

  get empty(): boolean {
    return this.#head === this.#slots.length;
  }

  push(slot: Slot): void {
    this.#slots.push(slot);
  }

  /** Starts waiting reads until the addon accepts no more. */
  pump(addon: NativeAddon): void {
    while (!this.empty) {
      const slot = this.#slots[this.#head]!;
      const error = submit(addon, slot);
      if (error === this.full) return;
      this.#head++;
      if (this.empty) {
        this.#slots.length = 0;
        this.#head = 0;
      }
      // `pread` returned 0 for this read, so the error goes to `pagerDone`; this code runs from the
      // loop.
      if (error !== 0) finish(slot, fromLinux(-error), 0);
    }
  }
}

const local = new Queue(LINUX_EAGAIN);
/** Reads from FUSE and network file systems. They must not delay the others. */
const remote = new Queue(LINUX_EBUSY);

function done(id: number, error: number, nbytes: number): void {
  local.pump(loadAddon());
  finish(slots[id]!, fromLinux(-error), nbytes);
}

/** Completes a read from a FUSE or network file system; `error` is -errno or 0. */
export function remoteReadDone(id: number, error: number, nbytes: number): void {
  remote.pump(loadAddon());
  finish(slots[id]!, fromLinux(-error), nbytes);
}

/**
 * Reads of the isolate in flight or waiting, including those into the arena of an earlier machine.
 */
export function readsPending(): number {
  return slots.length - free.length;
}

export class NativePager implements Pager {
  readonly #addon: NativeAddon;
  readonly #stat = new Float64Array(8);
  readonly #arenaBytes: number;

  /** @param arena the one `allocArena` returned last */
  constructor(arena: ArrayBuffer) {
    assertCurrentArena(arena);
    this.#arenaBytes = arena.byteLength;
    this.#addon = loadAddon();
    if (!registered) check(this.#addon.readCallback(done), 'preadv');
    registered = true;
  }

  /** Returns 0 or EBADF. It also returns 0 for a directory or a device; check `isFile`. */
  fstat(fd: number, st: FileStat): Errno {
    const out = this.#stat;
    const error = this.#addon.fileStat(fd, out);
    if (error !== 0) return fromLinux(-error);
    st.dev = out[0]!;
    st.ino = out[1]!;
    st.size = out[2]!;
    st.ctimeSec = out[3]!;
    st.ctimeNsec = out[4]!;
    st.mtimeSec = out[5]!;
    st.mtimeNsec = out[6]!;
    const is = out[7]!;
    st.isFile = (is & 1) !== 0;
    st.readable = (is & 2) !== 0;
    st.sparse = (is & 4) !== 0;
    return 0;
  }

  extent(fd: number, off: number): number {
    const data = this.#addon.fileSeek(fd, off, SEEK_DATA);
    if (data === LINUX_ENXIO) return -Number.MAX_SAFE_INTEGER;
    // If the file system does not support SEEK_DATA, treat everything as data.
    if (data < 0) return Number.MAX_SAFE_INTEGER;
    if (data > off) return off - data;
    const hole = this.#addon.fileSeek(fd, off, SEEK_HOLE);
    return hole > off ? hole - off : Number.MAX_SAFE_INTEGER;
  }

  /**
   * The descriptor must stay open until `pagerDone`. Returns EINVAL for more than 1024 pieces
   * or a bad offset, EFAULT for a piece outside the arena, EAGAIN beyond 4096 reads. EBADF, EISDIR,
   * EIO and other errors of the read are passed to `pagerDone`.
   */
  pread(fd: number, off: number, iov: Uint32Array, iovcnt: number, req: PagerRequest): Errno {
    if (!(iovcnt >= 1 && iovcnt <= MAX_IOV && 2 * iovcnt <= iov.length)) return EINVAL;
    if (!Number.isSafeInteger(off) || off < 0) return EINVAL;
    const slot = take();
    if (slot === null) return EAGAIN;
    if (slot.iov.length < 2 * iovcnt) slot.iov = new Uint32Array(2 * iovcnt);
    for (let i = 0; i < 2 * iovcnt; i += 2) {
      if (iov[i]! + iov[i + 1]! > this.#arenaBytes) {
        free.push(slot);
        return EFAULT;
      }
      slot.iov[i] = iov[i]!;
      slot.iov[i + 1] = iov[i + 1]!;
    }
    slot.fd = fd;
    slot.off = off;
    slot.iovcnt = iovcnt;
    slot.req = req;
    const error = submit(this.#addon, slot);
    if (error === LINUX_EAGAIN) local.push(slot);
    else if (error === LINUX_EBUSY) remote.push(slot);
    if (error === 0 || error === LINUX_EAGAIN || error === LINUX_EBUSY) return 0;
    slot.req = null;
    free.push(slot);
    return fromLinux(-error);
  }

  /** Reads in flight or waiting, of the whole isolate. */
  get pending(): number {
    return readsPending();
  }
}
