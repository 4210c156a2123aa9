/**
 * A disk under the test's control: a read stays pending until the test completes it, in any order.
 */

import { EIO, EBADF, type Errno } from '../../src/sys/errno.ts';
import type { FileStat, Pager, PagerRequest } from '../../src/sys/pager.ts';
import { File } from '../../src/kern/kern_descrip.ts';
import { mem, PAGE_SIZE } from '../../src/vm/arena.ts';

export interface HandFile {
  ino: number;
  bytes: Uint8Array;
  ctimeSec: number;
  ctimeNsec: number;
  isFile: boolean;
  readable: boolean;
  /** Start and end (exclusive) of each hole, in ascending order. `bytes` must be 0 there. */
  holes: [number, number][];
  open: boolean;
}

export interface HandRead {
  file: HandFile;
  off: number;
  iov: Uint32Array;
  req: PagerRequest;
}

/** Returns `n` pseudo-random bytes; the same `salt` gives the same bytes. */
export function fileBytes(n: number, salt = 1): Uint8Array {
  const bytes = new Uint8Array(n);
  let x = salt;
  for (let i = 0; i < n; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

export class HandDisk implements Pager {
  readonly reads: HandRead[] = [];
  /** Errnos that the next calls of pread return instead of starting a read. */
  failReads: Errno[] = [];
  statError: Errno = 0;
  readonly #files = new Map<number, HandFile>();
  #next = 3;

  /** Creates a file whose change time is an hour before boot, and opens it. */
  file(bytes: Uint8Array): { file: File; disk: HandFile } {
    const fd = this.#next++;
    const disk: HandFile = {
      ino: fd + 100,
      bytes,
      ctimeSec: 1767225600 - 3600,
      ctimeNsec: 0,
      isFile: true,
      readable: true,
      holes: [],
      open: true,
    };
    this.#files.set(fd, disk);
    return { file: this.#opened(fd, disk), disk };
  }

  /** Opens the file again. */
  again(disk: HandFile): File {
    const fd = this.#next++;
    this.#files.set(fd, disk);
    return this.#opened(fd, disk);
  }

  #opened(fd: number, disk: HandFile): File {
    disk.open = true;
    return new File(fd, () => {
      this.#files.delete(fd);
      disk.open = false;
    });
  }

  /** Replaces the contents and advances the change time. */
  change(disk: HandFile, bytes: Uint8Array): void {
    disk.bytes = bytes;
    disk.ctimeNsec += 1_000_000;
  }

  fstat(fd: number, st: FileStat): Errno {
    const file = this.#files.get(fd);
    if (this.statError !== 0) return this.statError;
    if (file === undefined) return EBADF;
    st.dev = 7;
    st.ino = file.ino;
    st.size = file.bytes.length;
    st.ctimeSec = st.mtimeSec = file.ctimeSec;
    st.ctimeNsec = st.mtimeNsec = file.ctimeNsec;
    st.isFile = file.isFile;
    st.readable = file.readable;
    st.sparse = file.holes.length > 0;
    return 0;
  }

  pread(fd: number, off: number, iov: Uint32Array, iovcnt: number, req: PagerRequest): Errno {
    const error = this.failReads.shift() ?? 0;
    if (error !== 0) return error;
    const file = this.#files.get(fd);
    if (file === undefined) return EBADF;
    this.reads.push({ file, off, iov: iov.slice(0, 2 * iovcnt), req });
    return 0;
  }

  extent(fd: number, off: number): number {
    const holes = this.#files.get(fd)?.holes ?? [];
    const hole = holes.find(([, end]) => end > off);
    if (hole === undefined) return Number.MAX_SAFE_INTEGER;
    return hole[0] > off ? hole[0] - off : off - hole[1];
  }

  get pending(): number {
    return this.reads.length;
  }

  /** Completes read `i` with the file's current bytes, or with an error. */
  complete(i = 0, error: Errno = 0): void {
    const [read] = this.reads.splice(i, 1) as [HandRead];
    const { file, off, iov, req } = read;
    let n = 0;
    const ranges = error === 0 ? iov.length : 0;
    for (let v = 0; v < ranges; v += 2) {
      const from = off + n;
      const part = file.bytes.subarray(from, from + iov[v + 1]!);
      mem.set(part, iov[v]);
      n += part.length;
    }
    req.pagerDone(error, error === 0 ? n : 0);
  }

  /** Completes all pending reads, and the reads that these completions start. */
  completeAll(limit = 10_000): void {
    for (let i = 0; i < limit && this.reads.length > 0; i++) this.complete();
    if (this.reads.length > 0) throw new Error('completeAll: reads are still pending at the limit');
  }

  fail(i = 0): void {
    this.complete(i, EIO);
  }

  /** Number of file pages in each pending read, in the order of the reads. */
  pagesPending(): number[] {
    return this.reads.map(({ iov }) => iov.length / 2);
  }

  /** First file page of each pending read. */
  firstPages(): number[] {
    return this.reads.map(({ off }) => off / PAGE_SIZE);
  }
}
