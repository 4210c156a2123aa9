/** Where Linux's error numbers end: the addon's results become FreeBSD's numbers or an Error. */

import { linuxErrnoName } from '../../native-bindings/index.ts';
import { type Errno, ENXIO, errnoOf, TapnicError } from '../sys/errno.ts';

const LINUX_MAX = 133; // EHWPOISON, the last one

const table = Int32Array.from({ length: LINUX_MAX + 1 }, (_, n) => {
  if (n === 0) return 0;
  const name = linuxErrnoName(n);
  // A TAP whose interface was deleted answers EBADFD: to a driver, the device is gone.
  return name === 'EBADFD' ? ENXIO : errnoOf(name);
});

/** The FreeBSD number of a positive Linux errno; EIO for one FreeBSD does not have. */
export function fromLinux(errno: number): Errno {
  return table[errno] ?? errnoOf(undefined);
}

/** Passes a count on and turns a negated Linux errno into a negated FreeBSD one. */
export function resultFromLinux(n: number): number {
  return n >= 0 ? n : -fromLinux(-n);
}

/**
 * Passes a result on, or throws the TapnicError of a negated Linux errno.
 * @param hint what to do about it, if that does not depend on the error
 */
export function check(n: number, syscall: string, hint = ''): number {
  if (n < 0) throw new TapnicError(linuxErrnoName(-n), syscall, hint);
  return n;
}
