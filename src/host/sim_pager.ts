/**
 * A simulated disk: files in memory on virtual time, with seeded errors and seeded latency, which
 * reorders reads. A read returns the contents of the file at its completion, as a real disk may.
 */

import { EBADF, EFAULT, EINVAL, EIO, type Errno } from '../sys/errno.ts';
import type { FileStat, Pager, PagerRequest } from '../sys/pager.ts';
import type { EventClock } from './manual_clock.ts';
import { below, fraction, type SeededPrng } from './prng.ts';

export interface SimPagerOptions {
  readonly arena: ArrayBuffer;
  readonly clock: EventClock;
  readonly prng: SeededPrng;
  /** A read takes a uniform time between these, in ns. Default 100 us for both: no reordering. */
  readonly latencyMinNs?: number;
  readonly latencyMaxNs?: number;
  /** Probability that a read fails with EIO and reads nothing. Default 0. */
  readonly errorRate?: number;
}

/** One file. Change it through these methods, which update its ctime. */
class SimFile {
  readonly ino: number;
  isFile = true;
  readable = true;
  ctimeNs: number;
  mtimeNs: number;
  /** Reads that touch byte offsets from here on fail with EIO: a bad sector. */
  badFrom = Infinity;
  /** First byte and end (exclusive) of each hole, in order; the bytes in a hole are zeros. */
  readonly holes: (readonly [number, number])[] = [];
  readonly #clock: EventClock;
  #bytes: Uint8Array;

  constructor(clock: EventClock, ino: number, bytes: Uint8Array) {
    this.#clock = clock;
    this.ino = ino;
    this.#bytes = bytes;
    this.ctimeNs = this.mtimeNs = clock.nowNs();
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Replaces the contents with any number of bytes and removes all holes. */
  set(bytes: Uint8Array): void {
    this.#bytes = bytes;
    this.holes.length = 0;
    this.ctimeNs = this.mtimeNs = this.#clock.nowNs();
  }

  /** Makes bytes [from, to) a hole that reads as zeros. It must lie after the existing holes. */
  punch(from: number, to: number): void {
    const before = [...this.holes];
    this.set(Uint8Array.from(this.#bytes).fill(0, from, to));
    this.holes.push(...before, [from, to]);
  }

  /** Shortens the file, or extends it with zeros. */
  truncate(size: number): void {
    const bytes = new Uint8Array(size);
    bytes.set(this.#bytes.subarray(0, size));
    this.set(bytes);
  }
}

class Read {
  readonly #pager: SimPager;
  readonly #file: SimFile;
  readonly #off: number;
  readonly #iov: Uint32Array;
  readonly #req: PagerRequest;
  readonly #fail: boolean;

  constructor(
    pager: SimPager,
    file: SimFile,
    off: number,
    iov: Uint32Array,
    req: PagerRequest,
    fail: boolean,
  ) {
    this.#pager = pager;
    this.#file = file;
    this.#off = off;
    this.#iov = iov;
    this.#req = req;
    this.#fail = fail;
  }

  run(): void {
    const { bytes, badFrom } = this.#file;
    const mem = this.#pager.mem;
    let nbytes = 0;
    let error = this.#fail ? EIO : 0;
    for (let i = 0; i < this.#iov.length && error === 0; i += 2) {
      const from = this.#off + nbytes;
      const n = Math.min(this.#iov[i + 1]!, Math.max(bytes.length - from, 0));
      if (from + n > badFrom) error = EIO;
      else mem.set(bytes.subarray(from, from + n), this.#iov[i]);
      if (error === 0) nbytes += n;
    }
    this.#pager.completed();
    this.#req.pagerDone(error, nbytes);
  }
}

export class SimPager implements Pager {
  readonly mem: Uint8Array;
  /** Number of reads started, for tests. */
  reads = 0;
  readonly #clock: EventClock;
  readonly #prng: SeededPrng;
  readonly #latencyMinNs: number;
  readonly #latencyMaxNs: number;
  errorRate: number;
  readonly #files = new Map<number, SimFile>();
  #nextFd = 1000; // no real descriptor of a test process is this large
  #nextIno = 2;
  #pending = 0;

  constructor(options: SimPagerOptions) {
    this.mem = new Uint8Array(options.arena);
    this.#clock = options.clock;
    this.#prng = options.prng.fork();
    this.#latencyMinNs = options.latencyMinNs ?? 100_000;
    this.#latencyMaxNs = Math.max(options.latencyMaxNs ?? 100_000, this.#latencyMinNs);
    this.errorRate = options.errorRate ?? 0;
  }

  /** Creates a file of `bytes` (referenced, not copied) and returns a descriptor of it. */
  open(bytes: Uint8Array): number {
    const fd = this.#nextFd++;
    this.#files.set(fd, new SimFile(this.#clock, this.#nextIno++, bytes));
    return fd;
  }

  /** A second descriptor of the same file. */
  dup(fd: number): number {
    const file = this.file(fd);
    this.#files.set(this.#nextFd, file);
    return this.#nextFd++;
  }

  /** The file of a descriptor. Throws RangeError if `fd` is not open. */
  file(fd: number): SimFile {
    const file = this.#files.get(fd);
    if (file === undefined) throw new RangeError(`SimPager: no descriptor ${fd}`);
    return file;
  }

  /** Reads in flight still complete. */
  close(fd: number): void {
    this.#files.delete(fd);
  }

  fstat(fd: number, st: FileStat): Errno {
    const file = this.#files.get(fd);
    if (file === undefined) return EBADF;
    st.dev = 1;
    st.ino = file.ino;
    st.size = file.bytes.length;
    const bootNs = this.#clock.bootSec * 1e9;
    st.ctimeSec = Math.floor((bootNs + file.ctimeNs) / 1e9);
    st.ctimeNsec = file.ctimeNs % 1e9;
    st.mtimeSec = Math.floor((bootNs + file.mtimeNs) / 1e9);
    st.mtimeNsec = file.mtimeNs % 1e9;
    st.isFile = file.isFile;
    st.readable = file.readable;
    st.sparse = file.holes.length > 0;
    return 0;
  }

  pread(fd: number, off: number, iov: Uint32Array, iovcnt: number, req: PagerRequest): Errno {
    const file = this.#files.get(fd);
    if (file === undefined) return EBADF;
    if (!(iovcnt >= 1 && iovcnt <= 1024 && 2 * iovcnt <= iov.length)) return EINVAL;
    if (!Number.isSafeInteger(off) || off < 0) return EINVAL;
    for (let i = 0; i < 2 * iovcnt; i += 2)
      if (iov[i]! + iov[i + 1]! > this.mem.length) return EFAULT;
    // Draw two numbers per read for all options, so that enabling errors does not change latencies.
    const takesNs =
      this.#latencyMinNs + below(this.#prng, this.#latencyMaxNs - this.#latencyMinNs + 1);
    const fail = fraction(this.#prng) < this.errorRate;
    this.reads++;
    this.#pending++;
    const read = new Read(this, file, off, iov.slice(0, 2 * iovcnt), req, fail);
    this.#clock.schedule(this.#clock.nowNs() + takesNs, read);
    return 0;
  }

  extent(fd: number, off: number): number {
    for (const [from, to] of this.#files.get(fd)?.holes ?? [])
      if (to > off) return from > off ? from - off : off - to;
    return Number.MAX_SAFE_INTEGER;
  }

  get pending(): number {
    return this.#pending;
  }

  /** Called by a read that has completed. */
  completed(): void {
    this.#pending--;
  }
}
