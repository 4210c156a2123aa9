/** How much of a file one round of sendfile sends: the arithmetic of sys/kern/kern_sendfile.c. */

import { PAGE_MASK, PAGE_SIZE } from '../vm/arena.ts';

/**
 * Bytes to send this round: at most `rem` and `space`. A round that does not finish ends on a page
 * boundary of the file, unless it is no more than a page.
 */
export function sendfileRoundBytes(off: number, rem: number, space: number): number {
  if (space > rem) return rem;
  if (space <= PAGE_SIZE) return space;
  const poff = off & PAGE_MASK;
  const head = poff === 0 ? 0 : PAGE_SIZE - poff;
  return Math.floor((space - head) / PAGE_SIZE) * PAGE_SIZE + head;
}

/** Pages that `len` bytes from file offset `off` touch. */
export function sendfilePages(off: number, len: number): number {
  return Math.ceil(((off & PAGE_MASK) + len) / PAGE_SIZE);
}

/** Bytes of page `i` of the `n` that `len` bytes from `off` touch. */
export function sendfilePageBytes(i: number, n: number, off: number, len: number): number {
  if (i === 0) return Math.min(PAGE_SIZE - (off & PAGE_MASK), len);
  const tail = (off + len) % PAGE_SIZE;
  return i === n - 1 && tail !== 0 ? tail : PAGE_SIZE;
}

/** Offset in the file of the first byte sent of page `i`. */
export function sendfilePageOff(i: number, off: number): number {
  return i === 0 ? off : off - (off % PAGE_SIZE) + i * PAGE_SIZE;
}
