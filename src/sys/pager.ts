/** The disk, passed in: asynchronous reads straight into page frames (src/host). */

import type { Errno } from './errno.ts';

/** What sendfile must know of a file; a struct to be filled in, nothing is allocated per call. */
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
  /** The descriptor is open for reading. */
  readable = true;
  /** The file has holes: fewer bytes stored than its size. */
  sparse = false;
}

/** A read in flight. The caller owns it; `pagerDone` is called exactly once. */
export interface PagerRequest {
  /**
   * @param error FreeBSD errno, 0 for none
   * @param nbytes bytes read; fewer than asked for only at end of file
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
   * How far the file is the same from byte `off`: a positive number of bytes is data, a negative one
   * a hole, which reads as zeros and is stored nowhere; it may reach beyond the end of the file.
   * Never 0. To be asked where FileStat says `sparse`.
   */
  extent(fd: number, off: number): number;
  /** Reads in flight. */
  readonly pending: number;
}
