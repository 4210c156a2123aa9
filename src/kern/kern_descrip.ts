/**
 * Open files, after sys/kern/kern_descrip.c: a counted reference to a host descriptor, so that a
 * file closed by its program stays open for reads in flight. Left out: descriptor tables.
 */

import { KASSERT } from '../sys/kassert.ts';

/** Files open on the machine. */
export const fileStats = { current: 0 };

/** An open file. Whoever makes it owns one reference. */
export class File {
  /** The host's descriptor. */
  readonly f_fd: number;
  f_count = 1;
  readonly #close: (fd: number) => void;

  /** @param close closes the descriptor when the last reference goes */
  constructor(fd: number, close: (fd: number) => void) {
    this.f_fd = fd;
    this.#close = close;
    fileStats.current++;
  }

  /** Drops a reference. */
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
