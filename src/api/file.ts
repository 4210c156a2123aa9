/** Open files for `sendfile`. */

import { EBADF, EINVAL, errnoError } from '../sys/errno.ts';
import { File } from '../kern/kern_descrip.ts';

export type { File } from '../kern/kern_descrip.ts';

/**
 * Wraps an open descriptor; the File owns it from now on. The caller owns one reference and
 * releases it with `drop()`. `close` runs when the last reference is released. That may be later,
 * because reads in flight hold references. Throws TapnicError EBADF (`fd` is not a descriptor),
 * EINVAL (`close` is not a function).
 */
export function openFile(fd: number, close: (fd: number) => void): File {
  if (!Number.isInteger(fd) || fd < 0)
    throw errnoError(EBADF, 'openFile', 'fd is not a descriptor');
  if (typeof close !== 'function')
    throw errnoError(EINVAL, 'openFile', 'pass a function that closes fd, such as closeSync');
  return new File(fd, close);
}
