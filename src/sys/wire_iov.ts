/**
 * Helpers for wires that copy frames, which are lists of (offset, length) pairs of the arena:
 * simulated wires and wires that delay frames.
 */

import { EFAULT, EINVAL } from './errno.ts';

/** The limit of writev(2) on Linux. */
const IOV_MAX = 1024;

/**
 * The byte count of a list of pairs in `mem`; -EINVAL for a bad count, -EFAULT for a pair outside
 * `mem`.
 */
export function iovLength(mem: Uint8Array, iov: Uint32Array, iovcnt: number): number {
  if (!(iovcnt >= 1 && iovcnt <= IOV_MAX && 2 * iovcnt <= iov.length)) return -EINVAL;
  let length = 0;
  for (let i = 0; i < 2 * iovcnt; i += 2) {
    if (iov[i]! + iov[i + 1]! > mem.length) return -EFAULT;
    length += iov[i + 1]!;
  }
  return length;
}

/** Copies the pieces from the arena to `frame`, whose length is that of the list. */
export function iovGather(mem: Uint8Array, iov: Uint32Array, frame: Uint8Array): void {
  for (let i = 0, at = 0; at < frame.length; i += 2) {
    const off = iov[i]!;
    const n = iov[i + 1]!;
    frame.set(mem.subarray(off, off + n), at);
    at += n;
  }
}

/** Copies `frame` into the pieces in the arena, at most `room` bytes; returns the bytes copied. */
export function iovScatter(
  mem: Uint8Array,
  iov: Uint32Array,
  room: number,
  frame: Uint8Array,
): number {
  const length = Math.min(frame.length, room);
  for (let i = 0, at = 0; at < length; i += 2) {
    const n = Math.min(iov[i + 1]!, length - at);
    mem.set(frame.subarray(at, at + n), iov[i]);
    at += n;
  }
  return length;
}
