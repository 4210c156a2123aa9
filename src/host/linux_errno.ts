/** Translates Linux's error numbers: the addon's results become FreeBSD's numbers or an Error. */

import { linuxErrnoName } from '../../native-bindings/index.ts';
import { type Call, explain, type Subject } from './cause.ts';
import { type Errno, ENXIO, errnoOf, TapnicError } from '../sys/errno.ts';

const LINUX_MAX = 133; // EHWPOISON, the largest errno

const table = Int32Array.from({ length: LINUX_MAX + 1 }, (_, n) => {
  if (n === 0) return 0;
  const name = linuxErrnoName(n);
  // A TAP returns EBADFD after its interface was deleted. For a driver the device does not exist:
  // ENXIO.
  return name === 'EBADFD' ? ENXIO : errnoOf(name);
});

/** The FreeBSD number of a positive Linux errno; EIO if FreeBSD does not have that error. */
export function fromLinux(errno: number): Errno {
  return table[errno] ?? errnoOf(undefined);
}

/** Returns a count unchanged and converts a negated Linux errno to a negated FreeBSD errno. */
export function resultFromLinux(n: number): number {
  return n >= 0 ? n : -fromLinux(-n);
}

/**
 * Returns a count unchanged, or throws a TapnicError for a negated Linux errno, with its cause and
 * remedy.
 * @param call the kind of `syscall`; null: the errno alone
 */
export function check(
  n: number,
  syscall: string,
  call: Call | null = null,
  subject: Subject = {},
): number {
  if (n >= 0) return n;
  const code = linuxErrnoName(-n);
  throw new TapnicError(code, syscall, call === null ? '' : explain(call, code, subject));
}
