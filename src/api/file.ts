/** Open files as `sendfile` takes them. */

import { File } from '../kern/kern_descrip.ts';

export type { File } from '../kern/kern_descrip.ts';

/**
 * Wraps an open descriptor. The caller owns one reference and gives it back with `drop()`; `close`
 * runs when the last one goes, which may be later: reads in flight hold their own.
 */
export function openFile(fd: number, close: (fd: number) => void): File {
  return new File(fd, close);
}
