/**
 * Frames as wires take them, (offset, length) pairs of the arena, for wires that copy: those of a
 * simulation and those that hold frames back.
 */

import { EFAULT, EINVAL } from './errno.ts';

/** As writev(2) on Linux has it. */
const IOV_MAX = 1024;

/** Bytes that a list of pairs in `mem` holds; -EINVAL for a bad count, -EFAULT outside of it. */
export function iovLength(mem: Uint8Array, iov: Uint32Array, iovcnt: number): number {
  if (!(iovcnt >= 1 && iovcnt <= IOV_MAX && 2 * iovcnt <= iov.length)) return -EINVAL;
  let length = 0;
  for (let i = 0; i < 2 * iovcnt; i += 2) {
    if (iov[i]! + iov[i + 1]! > mem.length) return -EFAULT;
    length += iov[i + 1]!;
  }
  return length;
}

/** Fills `frame`, which is as long as the list, from the arena. */
export function iovGather(mem: Uint8Array, iov: Uint32Array, frame: Uint8Array): void {
  for (let i = 0, at = 0; at < frame.length; i += 2) {
    const off = iov[i]!;
    const n = iov[i + 1]!;
    frame.set(mem.subarray(off, off + n), at);
    at += n;
  }
}

/** Puts as much of `frame` into the arena as the list's `room` bytes hold; returns how much. */
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
