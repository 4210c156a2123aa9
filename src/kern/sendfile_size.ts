/** Sizes and offsets of one round of sendfile, as sys/kern/kern_sendfile.c computes them. */

import { PAGE_MASK, PAGE_SIZE } from '../vm/arena.ts';

/**
 * Bytes to send in this round: at most `rem` and `space`. A round that does not send all of `rem`
 * ends on a page boundary of the file, unless `space` is a page or less.
 */
export function sendfileRoundBytes(off: number, rem: number, space: number): number {
  if (space > rem) return rem;
  if (space <= PAGE_SIZE) return space;
  const poff = off & PAGE_MASK;
  const head = poff === 0 ? 0 : PAGE_SIZE - poff;
  return Math.floor((space - head) / PAGE_SIZE) * PAGE_SIZE + head;
}

/** Number of pages that contain the `len` bytes from file offset `off` on. */
export function sendfilePages(off: number, len: number): number {
  return Math.ceil(((off & PAGE_MASK) + len) / PAGE_SIZE);
}

/** Bytes to send from page `i` of the `n` pages that contain the `len` bytes from `off` on. */
export function sendfilePageBytes(i: number, n: number, off: number, len: number): number {
  if (i === 0) return Math.min(PAGE_SIZE - (off & PAGE_MASK), len);
  const tail = (off + len) % PAGE_SIZE;
  return i === n - 1 && tail !== 0 ? tail : PAGE_SIZE;
}

/** File offset of the first byte that is sent from page `i`. */
export function sendfilePageOff(i: number, off: number): number {
  return i === 0 ? off : off - (off % PAGE_SIZE) + i * PAGE_SIZE;
}
