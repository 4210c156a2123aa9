/**
 * Open files, after sys/kern/kern_descrip.c: a reference count over a host descriptor. Reads in
 * flight hold a reference, so the descriptor stays open when the program closes the file first.
 * Left out: descriptor tables.
 */

import { KASSERT } from '../sys/kassert.ts';

/** `current`: number of open files on the machine. */
export const fileStats = { current: 0 };

/** An open file. The caller of the constructor owns one reference. */
export class File {
  /** The host's descriptor. */
  readonly f_fd: number;
  f_count = 1;
  readonly #close: (fd: number) => void;

  /** @param close called with the descriptor when the last reference is dropped */
  constructor(fd: number, close: (fd: number) => void) {
    this.f_fd = fd;
    this.#close = close;
    fileStats.current++;
  }

  /** Drops a reference. The last one closes the descriptor. */
  drop(): void {
    KASSERT(this.f_count > 0, 'fdrop: no references');
    if (--this.f_count !== 0) return;
    fileStats.current--;
    this.#close(this.f_fd);
  }
}

/** @see sys/kern/kern_descrip.c */
export function fhold(fp: File): void {
  fp.f_count++;
}

/** @see sys/kern/kern_descrip.c */
export function fdrop(fp: File): void {
  fp.drop();
}
