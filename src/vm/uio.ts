/**
 * uio, after uio(9): a list of byte ranges to copy to or from. A range lies in the arena (kernel
 * space: its buffer is the arena) or in a program's own buffer (user space).
 */

import { KASSERT } from '../sys/kassert.ts';
import type { Kva, PhysAddr } from '../sys/types.ts';
import { mem, PAGE_MASK, PAGE_SIZE, PHYS_TO_DMAP } from './arena.ts';
import { payloadRead } from './payload.ts';

export const UIO_READ = 0;
export const UIO_WRITE = 1;

/** One range: `iov_len` bytes at `iov_off` of `iov_base`. */
interface Iovec {
  iov_base: Uint8Array;
  iov_off: number;
  iov_len: number;
}

const NO_BYTES = new Uint8Array();

/** The state of a copy. @see uio(9) */
export class Uio {
  uio_iov: Iovec[] = [];
  /** The range of `single`; kept, so that a read or write allocates none. */
  readonly #one: Iovec[] = [{ iov_base: NO_BYTES, iov_off: 0, iov_len: 0 }];
  /** Index of the range in use and offset inside it. */
  iovIndex = 0;
  iovOff = 0;
  /** Bytes still to copy. */
  uio_resid = 0;
  uio_rw = UIO_READ;

  /** Sets one range and returns this. */
  single(base: Uint8Array, off: number, len: number, rw: number): this {
    const one = this.#one[0]!;
    one.iov_base = base;
    one.iov_off = off;
    one.iov_len = len;
    return this.set(this.#one, rw);
  }

  set(iov: Iovec[], rw: number): this {
    this.uio_iov = iov;
    this.iovIndex = 0;
    this.iovOff = 0;
    this.uio_resid = 0;
    for (const v of iov) this.uio_resid += v.iov_len;
    this.uio_rw = rw;
    return this;
  }
}

/** Up to this length a loop over bytes is not slower than `set` on a view, which takes 96 bytes. */
const LOOP_MAX = 64;

/** Copies between arena bytes and a program's buffer; views only for long ranges. */
function copyRange(cp: Kva, buf: Uint8Array, off: number, n: number, read: boolean): void {
  if (buf.buffer === mem.buffer) {
    const at = buf.byteOffset + off; // the range may be a part of the arena, not the whole
    if (read) mem.copyWithin(at, cp, cp + n);
    else mem.copyWithin(cp, at, at + n);
  } else if (n <= LOOP_MAX) {
    if (read) for (let i = 0; i < n; i++) buf[off + i] = mem[cp + i]!;
    else for (let i = 0; i < n; i++) mem[cp + i] = buf[off + i]!;
  } else if (read) {
    buf.set(mem.subarray(cp, cp + n), off);
  } else {
    mem.set(buf.subarray(off, off + n), cp);
  }
}

/**
 * Copies `n` bytes, at most `uio_resid`, between mapped memory at `cp` and the uio, in the
 * direction of `uio_rw`: UIO_READ is from memory to the uio. Cannot fail: bad user addresses do
 * not exist here.
 * @see uio(9)
 */
export function uiomove(cp: Kva, n: number, uio: Uio): void {
  let from: number = cp;
  n = Math.min(n, uio.uio_resid);
  while (n > 0) {
    const iov = uio.uio_iov[uio.iovIndex];
    KASSERT(iov !== undefined, 'uiomove: resid beyond the iovec');
    const c = Math.min(n, iov.iov_len - uio.iovOff);
    if (c > 0) {
      copyRange(from as Kva, iov.iov_base, iov.iov_off + uio.iovOff, c, uio.uio_rw === UIO_READ);
      from += c;
      n -= c;
      uio.iovOff += c;
      uio.uio_resid -= c;
    }
    if (uio.iovOff === iov.iov_len) {
      uio.iovIndex++;
      uio.iovOff = 0;
    }
  }
}

/**
 * Copies `n` bytes between unmapped pages and the uio: `pa[first]` is the first page and `offset`
 * the byte to start at, counted from its start. Reads are counted as payload reads.
 * @see uio(9), sys/kern/subr_uio.c (there the pages are vm_page_t)
 */
export function uiomove_fromphys(
  pa: Float64Array,
  first: number,
  offset: number,
  n: number,
  uio: Uio,
): void {
  if (uio.uio_rw === UIO_READ) payloadRead(Math.min(n, uio.uio_resid));
  let page = first + Math.floor(offset / PAGE_SIZE);
  let pgOff = offset & PAGE_MASK;
  while (n > 0 && uio.uio_resid > 0) {
    const c = Math.min(n, PAGE_SIZE - pgOff);
    uiomove((PHYS_TO_DMAP(pa[page]! as PhysAddr) + pgOff) as Kva, c, uio);
    n -= c;
    page++;
    pgOff = 0;
  }
}

/**
 * Copies `n` bytes at `pa`, within one page, to mapped memory: the per-page step of m_copydata on
 * unmapped mbufs. Counted as a payload read.
 */
export function copyFromPhys(pa: PhysAddr, dst: Kva, n: number): void {
  payloadRead(n);
  const src = PHYS_TO_DMAP(pa);
  mem.copyWithin(dst, src, src + n);
}
