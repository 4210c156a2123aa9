/**
 * sendfile(2), after sys/kern/kern_sendfile.c as of r349529: file pages are sent by reference, in
 * unmapped mbufs of up to 19 pages or, with kern.ipc.mb_use_ext_pgs=0, in one mapped mbuf per page.
 * They may be appended to the socket buffer before they have been read. The call is an object that
 * waits in queues where FreeBSD sleeps. Left out: shared memory objects, kTLS, capability mode.
 */

import type { Task } from '../sys/clock.ts';
import {
  EAGAIN,
  EBADF,
  EFAULT,
  EINVAL,
  ENOBUFS,
  ENOTCONN,
  type Errno,
  EWOULDBLOCK,
} from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import {
  inPass,
  passDefer,
  passUpcall,
  recordEnter,
  recordLeave,
  type Upcall,
} from '../sys/pass.ts';
import { FileStat } from '../sys/pager.ts';
import { count, R_SF_TRUNCATED } from '../sys/reason.ts';
import { PAGE_MASK, PAGE_SIZE } from '../vm/arena.ts';
import { sfBufWait, sfBufWaitCancel } from '../vm/sf_buf.ts';
import { Uio, UIO_WRITE } from '../vm/uio.ts';
import {
  machinePager,
  revalidate,
  vm_object_deallocate,
  type VmObject,
  vmObjectOf,
} from '../vm/vm_object.ts';
import { vmWaitCancel } from '../vm/vm_page.ts';
import { fdrop, fhold, type File } from './kern_descrip.ts';
import { m_freem, m_free } from './kern_mbuf.ts';
import { machineClock } from './kern_timeout.ts';
import { type Mbuf, M_NOWAIT } from './mbuf.ts';
import { PRUS_NOTREADY, SOCK_STREAM } from './protosw.ts';
import { sendfileLive, type Sfio, sfioAlloc, sfstat, Sync } from './sendfile_io.ts';
import { sendfileBuild } from './sendfile_build.ts';
import { SF_SYNC } from './sendfile_flags.ts';
import { round, ROUND_PAGES_MAX } from './sendfile_round.ts';
import { sendfileGrab, sendfileSwapin } from './sendfile_swapin.ts';
import { sendfilePageOff, sendfilePages, sendfileRoundBytes } from './sendfile_size.ts';
import { m_uiotombuf } from './m_uiotombuf.ts';
import { m_last } from './uipc_mbuf.ts';
import {
  SO_ACCEPTCONN,
  type Socket,
  soref,
  sorele,
  sosendLocked,
  soSendError,
  sowwakeup,
} from './uipc_socket.ts';
import { sbspace, taskAdd, taskRemove } from './uipc_sockbuf.ts';

/** Headers and trailers, in the program's memory. @see sendfile(2) */
export interface SfHdtr {
  headers: Uint8Array[];
  trailers: Uint8Array[];
}

/** Called once at the end of a call. */
export interface SendfileListener {
  /**
   * Whether it is called inside the pass, possibly before `sendfile` returns. It must not call into a
   * program then. Otherwise it is called as an upcall: after the pass, with no pass open.
   */
  readonly inPass?: boolean;
  /** @param sbytes header, file and trailer bytes appended to the socket buffer */
  sendfileDone(error: Errno, sbytes: number): void;
}

const st = new FileStat();

/** The state of a call: the next phase that `run` executes. */
type Phase = 'lock' | 'file' | 'trailers' | 'sync' | 'done';

/** A sendfile call in progress. It is in so.sndLock until its data is in the socket buffer. */
export class SendfileCall implements Task, Upcall {
  readonly #so: Socket;
  readonly #file: File;
  readonly #object: VmObject;
  readonly #offset: number;
  readonly #nbytes: number;
  readonly #flags: number;
  readonly #nonblocking: boolean;
  readonly #listener: SendfileListener;
  readonly #sync: Sync | null;
  readonly #headers: Uio | null;
  readonly #trailers: Uio | null;
  #off: number;
  #rem: number;
  #sbytes = 0;
  #error: Errno = 0;
  #phase: Phase = 'lock';
  #size: number;
  #someTrailers = false;
  /** `st` has the file's status: it was read in this pass, and this call has not waited since. */
  #statted = true;

  constructor(
    so: Socket,
    file: File,
    object: VmObject,
    offset: number,
    nbytes: number,
    size: number,
    hdtr: SfHdtr | null,
    flags: number,
    nonblocking: boolean,
    listener: SendfileListener,
  ) {
    this.#so = so;
    this.#file = file;
    this.#object = object;
    this.#offset = offset;
    this.#nbytes = nbytes;
    this.#size = size;
    this.#flags = flags;
    this.#nonblocking = nonblocking;
    this.#listener = listener;
    this.#sync = (flags & SF_SYNC) !== 0 ? new Sync() : null;
    this.#headers = uioOf(hdtr?.headers);
    this.#trailers = uioOf(hdtr?.trailers);
    this.#off = offset;
    this.#rem = remaining(offset, nbytes, size, offset);
    soref(so);
    fhold(file);
    sendfileLive.calls++;
    so.sndLock = taskAdd(so.sndLock, this);
  }

  /** Header, file and trailer bytes in the socket buffer so far. */
  get appended(): number {
    return this.#sbytes;
  }

  /** Continues the call until it has to wait or is done. */
  run(): void {
    while (this.#advance());
    this.#statted = false;
  }

  /** Runs one phase. Returns false if the call has to wait or is done. */
  #advance(): boolean {
    switch (this.#phase) {
      case 'lock':
        if (this.#so.sndLock[0] !== this) return false;
        this.#phase = 'file';
        return true;
      case 'file':
        return !this.#sendFile();
      case 'trailers':
        return !this.#sendTrailers();
      case 'sync':
        if (this.#sync!.count > 0) {
          this.#sync!.waiter = this;
          return false;
        }
        this.#finish();
        return true;
      case 'done':
        return false;
    }
  }

  /** Sends the file's bytes. Returns true if it has to wait. */
  #sendFile(): boolean {
    while (this.#rem > 0 && this.#error === 0) {
      if (this.#round()) return true;
    }
    if (this.#error === 0 && this.#trailers !== null) this.#phase = 'trailers';
    else this.#afterData();
    return false;
  }

  /** Sends the trailers. Returns true if it has to wait. */
  #sendTrailers(): boolean {
    const uio = this.#trailers!;
    while (uio.uio_resid > 0) {
      const before = uio.uio_resid;
      const error = sosendLocked(this.#so, uio, 0);
      if (error === 0) {
        this.#sbytes += before - uio.uio_resid;
        this.#someTrailers = true;
        continue;
      }
      if (error === EWOULDBLOCK && !this.#nonblocking) return this.#wait();
      // Trailers behave as writev(2): a partial write returns no error.
      if (error !== EWOULDBLOCK || !this.#someTrailers) this.#error = error;
      break;
    }
    this.#afterData();
    return false;
  }

  #afterData(): void {
    this.#unlock();
    if (this.#sync !== null && this.#sync.count > 0) this.#phase = 'sync';
    else this.#finish();
  }

  #unlock(): void {
    const lock = this.#so.sndLock;
    KASSERT(lock[0] === this, 'sendfile: lost the send lock');
    taskRemove(lock, this);
    if (lock.length > 0) passDefer(lock[0]);
    else sowwakeup(this.#so); // sosend returned EWOULDBLOCK while the lock was held
  }

  #finish(): void {
    this.#phase = 'done';
    sendfileLive.calls--;
    fdrop(this.#file);
    vm_object_deallocate(this.#object);
    sorele(this.#so);
    if (this.#listener.inPass === true) this.upcall();
    else passUpcall(this);
  }

  /** Calls the listener, after the pass unless it asked for a call inside. */
  upcall(): void {
    this.#listener.sendfileDone(this.#error, this.#sbytes);
  }

  /** Queues the call for space in the send buffer. Returns true. */
  #wait(): boolean {
    const sb = this.#so.so_snd;
    sb.sb_waiters = taskAdd(sb.sb_waiters, this);
    return true;
  }

  /** Runs one round of the outer loop. Returns true if it has to wait and must run again. */
  #round(): boolean {
    const so = this.#so;
    const sb = so.so_snd;
    if (sb.sb_lowat < Math.floor(sb.sb_hiwat / 2)) sb.sb_lowat = Math.floor(sb.sb_hiwat / 2);
    this.#error = soSendError(so);
    if (this.#error !== 0) return false;
    let space = sbspace(sb);
    if (space < this.#rem && (space <= 0 || space < sb.sb_lowat)) {
      if (!this.#nonblocking) return this.#wait();
      this.#error = EAGAIN;
      return false;
    }
    if (!this.#restat()) return false;
    const hdrs = this.#headers;
    const hdrlen = hdrs === null ? 0 : Math.min(hdrs.uio_resid, space);
    space -= hdrlen;
    if (space === 0) {
      this.#sendHeadersOnly(hdrlen);
      return false;
    }
    return this.#sendPages(hdrlen, sendfileRoundBytes(this.#off, this.#rem, space));
  }

  /**
   * Calls fstat again, as the file may have changed, but not twice in a row. Returns false on an error or
   * at the end of the data.
   */
  #restat(): boolean {
    if (this.#statted) {
      this.#statted = false;
      return this.#rem > 0;
    }
    const error = machinePager().fstat(this.#file.f_fd, st);
    if (error !== 0) {
      this.#error = error;
      return false;
    }
    if (st.size !== this.#size) {
      if (st.size < this.#size) count(R_SF_TRUNCATED);
      this.#size = st.size;
      this.#rem = remaining(this.#offset, this.#nbytes, st.size, this.#off);
    }
    revalidate(this.#object, st, wallNs(), false);
    if (this.#off >= st.size) this.#rem = 0;
    return this.#rem > 0;
  }

  /** Copies header bytes into new mbufs. Returns null and sets ENOBUFS if there is no memory. */
  #headerMbufs(hdrlen: number): Mbuf | null {
    const mh = m_uiotombuf(this.#headers!, M_NOWAIT, hdrlen, 0, 0);
    if (mh === null) this.#error = ENOBUFS;
    return mh;
  }

  #sendHeadersOnly(hdrlen: number): void {
    const mh = this.#headerMbufs(hdrlen);
    if (mh === null) return;
    this.#error = this.#so.so_proto.pr_send(this.#so, 0, mh, null);
    if (this.#error === 0) this.#sbytes += hdrlen;
  }

  #aimRound(): void {
    round.so = this.#so;
    round.file = this.#file;
    round.object = this.#object;
    round.sync = this.#sync;
    round.flags = this.#flags;
    round.off = this.#off;
    round.rem = this.#rem;
    round.size = this.#size;
    round.sparse = st.sparse; // set by #restat
  }

  /**
   * Sends `hdrlen` header bytes and at most `bytes` bytes of the file. Returns true if it has to
   * wait.
   */
  #sendPages(hdrlen: number, bytes: number): boolean {
    recordEnter(round);
    try {
      return this.#sendRound(hdrlen, bytes);
    } finally {
      recordLeave(round);
    }
  }

  #sendRound(hdrlen: number, bytes: number): boolean {
    bytes = Math.min(bytes, ROUND_PAGES_MAX * PAGE_SIZE - (this.#off & PAGE_MASK));
    let npages = sendfilePages(this.#off, bytes);
    const wanted = npages;
    this.#aimRound();
    const got = sendfileGrab(npages, this);
    if (got < 0) return true;
    npages = got;
    let { soft } = round;
    const sfio = sfioAlloc(this.#so, this.#file);
    const usable = sendfileSwapin(sfio, npages);
    if (usable < npages) {
      soft = round.soft;
      npages = usable;
    }
    bytes = this.#bytesOf(npages, wanted, bytes);
    const built = npages === 0 ? 0 : sendfileBuild(sfio, npages, bytes);
    if (built < npages) {
      if (built === 0 && round.noSfBuf) {
        // Wait for the first sf_buf. The round starts again when one is free.
        sfio.drop();
        sfstat.sf_allocwait++;
        sfBufWait(this);
        return true;
      }
      soft = built === 0 ? ENOBUFS : 0;
      bytes = this.#bytesOf(built, npages, bytes);
    }
    this.#hand(sfio, hdrlen, bytes, soft);
    return false;
  }

  /** Of `bytes` bytes from #off on, which span `of` pages: the number in the first `n` pages. */
  #bytesOf(n: number, of: number, bytes: number): number {
    if (n === of) return bytes;
    return n === 0 ? 0 : sendfilePageOff(n, this.#off) - this.#off;
  }

  /** Passes headers and pages to the protocol, and releases the round's reference to `sfio`. */
  #hand(sfio: Sfio, hdrlen: number, bytes: number, soft: Errno): void {
    const so = this.#so;
    const ios = sfio.nios > 1;
    const mh = hdrlen === 0 ? null : this.#headerMbufs(hdrlen);
    const first = sfio.m;
    let m = first;
    if (mh !== null) {
      m_last(mh).m_next = first;
      m = mh;
    }
    if (m === null || (hdrlen > 0 && mh === null)) {
      if (!ios) {
        sfio.m = null;
        m_freem(first);
      }
      sfio.drop();
      if (this.#error === 0) this.#error = soft;
      return;
    }
    let error: Errno;
    if (ios) {
      error = so.so_proto.pr_send(so, PRUS_NOTREADY, m, null);
      sfio.sent = error === 0;
      // Reads in flight own the page mbufs. Free only the header mbufs.
      if (error !== 0) for (let h = mh; h !== null && h !== first;) h = m_free(h);
    } else {
      sfio.m = null;
      error = so.so_proto.pr_send(so, 0, m, null);
    }
    sfio.drop();
    this.#error = error !== 0 ? error : soft;
    if (error !== 0) return;
    this.#off += bytes;
    this.#rem -= bytes;
    this.#sbytes += bytes + hdrlen;
  }

  /** Ends the call with `error`, in any phase. Used when the stack stops. */
  cancel(error: Errno): void {
    inPass(cancelInPass, this, error);
  }

  /** The part of `cancel` inside the pass. */
  end(error: Errno): void {
    if (this.#phase === 'done') return;
    taskRemove(this.#so.so_snd.sb_waiters, this);
    vmWaitCancel(this);
    sfBufWaitCancel(this);
    this.#object.waitCancel(this);
    if (this.#error === 0) this.#error = error;
    const lock = this.#so.sndLock;
    if (this.#phase === 'sync') {
      this.#sync!.waiter = null;
    } else if (lock[0] === this) {
      this.#unlock();
    } else {
      taskRemove(lock, this);
    }
    this.#finish();
  }
}

function cancelInPass(call: SendfileCall, error: Errno): void {
  call.end(error);
}

function remaining(offset: number, nbytes: number, size: number, off: number): number {
  return (nbytes !== 0 ? Math.min(offset + nbytes, size) : size) - off;
}

/** Nanoseconds since 1970, exact to 256 ns, which is enough to compare with file times. */
function wallNs(): number {
  const clock = machineClock();
  return clock.bootSec * 1e9 + clock.nowNs();
}

/** Maximum number of headers, and of trailers. */
const UIO_MAXIOV = 1024;

/**
 * Checks headers or trailers as copyinuio does. EINVAL: more than UIO_MAXIOV; EFAULT: one is not a
 * byte array.
 */
function checkUio(parts: readonly Uint8Array[]): Errno {
  if (parts.length > UIO_MAXIOV) return EINVAL;
  // JavaScript callers may pass any value.
  for (const part of parts) if (!ArrayBuffer.isView(part)) return EFAULT;
  return 0;
}

function uioOf(parts: Uint8Array[] | undefined): Uio | null {
  if (parts === undefined || parts.length === 0) return null;
  return new Uio().set(
    parts.map((p) => ({ iov_base: p, iov_off: 0, iov_len: p.length })),
    UIO_WRITE,
  );
}

/** The call that the last successful `sendfile` started. */
export const sendfileResult: { call: SendfileCall | null } = { call: null };

/**
 * Sends `nbytes` bytes of `file` (0: up to its end, even if it grows) from byte `offset`, with
 * headers before and trailers after them. Returns 0 and calls `listener` once, in a later turn of the
 * machine's clock or, if it asks for that, inside a pass. On any other return value `listener` is not called: EBADF (closed, or not open for reading), EINVAL (not a regular
 * file, not a stream, negative offset or length, more than 1024 headers or trailers), EFAULT (a
 * header or trailer is not a byte array), ENOTCONN (a listening socket), or the errno of fstat.
 * `nonblocking`: the call ends with EAGAIN instead of waiting for the socket. The listener receives
 * 0, EPIPE, ENOTCONN, EAGAIN, EBUSY, ENOBUFS, EIO, the socket's error, or that of `cancel`. The
 * call holds references to the socket and the file until it ends.
 * @see sendfile(2)
 */
export function sendfile(
  file: File,
  so: Socket,
  offset: number,
  nbytes: number,
  hdtr: SfHdtr | null,
  flags: number,
  nonblocking: boolean,
  listener: SendfileListener,
): Errno {
  const call = inPass(startInPass, file, so, offset, nbytes, hdtr, flags, nonblocking, listener);
  if (typeof call === 'number') return call;
  sendfileResult.call = call;
  return 0;
}

/** The part of `sendfile` inside the pass. Returns the call, or an errno. */
function startInPass(
  file: File,
  so: Socket,
  offset: number,
  nbytes: number,
  hdtr: SfHdtr | null,
  flags: number,
  nonblocking: boolean,
  listener: SendfileListener,
): SendfileCall | Errno {
  if (offset < 0 || nbytes < 0) return EINVAL;
  let error = hdtr === null ? 0 : checkUio(hdtr.headers) || checkUio(hdtr.trailers);
  if (error !== 0) return error;
  if (file.f_count <= 0) return EBADF;
  error = machinePager().fstat(file.f_fd, st);
  if (error !== 0) return error;
  if (!st.readable) return EBADF;
  if (!st.isFile || so.so_type !== SOCK_STREAM) return EINVAL;
  if ((so.so_options & SO_ACCEPTCONN) !== 0) return ENOTCONN;
  sfstat.sf_syscalls++;
  sfstat.sf_rhpages_requested += flags >>> 16;
  const object = vmObjectOf(st, wallNs());
  const call = new SendfileCall(
    so,
    file,
    object,
    offset,
    nbytes,
    st.size,
    hdtr,
    flags,
    nonblocking,
    listener,
  );
  call.run();
  return call;
}
