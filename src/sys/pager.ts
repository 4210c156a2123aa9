/** The disk interface: asynchronous reads directly into page frames. src/host implements it. */

import type { Errno } from './errno.ts';

/** The file attributes that sendfile needs. The caller reuses it, so `fstat` does not allocate. */
export class FileStat {
  /** Device and inode: together the identity of the file. */
  dev = 0;
  ino = 0;
  /** Bytes. */
  size = 0;
  /** Last status change, seconds and nanoseconds. */
  ctimeSec = 0;
  ctimeNsec = 0;
  /** Last modification, seconds and nanoseconds. */
  mtimeSec = 0;
  mtimeNsec = 0;
  isFile = false;
  /** Whether the descriptor is open for reading. */
  readable = true;
  /** Whether the file has holes: fewer bytes are stored than its size. */
  sparse = false;
}

/** A read in flight. The caller owns it; `pagerDone` is called exactly once. */
export interface PagerRequest {
  /**
   * @param error FreeBSD errno, 0 for success
   * @param nbytes bytes read; less than requested only at end of file
   */
  pagerDone(error: Errno, nbytes: number): void;
}

export interface Pager {
  /** Fills `st`. Returns 0 or an errno. */
  fstat(fd: number, st: FileStat): Errno;
  /**
   * Starts one asynchronous read of consecutive file bytes from `off` into the (arena offset,
   * length) pairs `iov[0 .. 2*iovcnt)`, which is copied before this returns. Returns 0 and calls
   * `req.pagerDone` later from the event loop, or an errno and never calls it.
   */
  pread(fd: number, off: number, iov: Uint32Array, iovcnt: number, req: PagerRequest): Errno;
  /**
   * The length of the data or hole at byte `off`: positive for data, negative for a hole, which
   * reads as zeros and is not stored. It may extend beyond the end of the file and is never 0. Call
   * it only if `FileStat.sparse` is set.
   */
  extent(fd: number, off: number): number;
  /** Reads in flight. */
  readonly pending: number;
}
