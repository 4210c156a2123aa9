/** Open files as `sendfile` takes them. */

import { EBADF, EINVAL, errnoError } from '../sys/errno.ts';
import { File } from '../kern/kern_descrip.ts';

export type { File } from '../kern/kern_descrip.ts';

/**
 * Wraps an open descriptor, which is the file's from now on. The caller owns one reference and gives
 * it back with `drop()`; `close` runs when the last one goes, which may be later: reads in flight
 * hold their own. Throws TapnicError EBADF (no descriptor), EINVAL (`close` is no function).
 */
export function openFile(fd: number, close: (fd: number) => void): File {
  if (!Number.isInteger(fd) || fd < 0) throw errnoError(EBADF, 'openFile', 'no descriptor');
  if (typeof close !== 'function')
    throw errnoError(EINVAL, 'openFile', 'what closes the descriptor is needed, such as closeSync');
  return new File(fd, close);
}
