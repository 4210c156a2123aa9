/**
 * A socket option passed between program and protocol, after struct sockopt of sys/sys/sockopt.h:
 * level, name and value. The value has C's layout on amd64 (little-endian), so that each front end
 * can pass on the bytes its programs wrote.
 */

import { EINVAL, type Errno } from '../sys/errno.ts';

export const SOPT_GET = 0;
export const SOPT_SET = 1;

/** @see sockopt(9) */
export class Sockopt {
  readonly sopt_dir: number;
  readonly sopt_level: number;
  readonly sopt_name: number;
  /** SOPT_SET: the value from the program. SOPT_GET: the buffer for the value. */
  readonly sopt_val: Uint8Array;
  /** Valid bytes in `sopt_val`. After SOPT_GET, the length of the returned value. */
  sopt_valsize: number;

  constructor(dir: number, level: number, name: number, val: Uint8Array) {
    this.sopt_dir = dir;
    this.sopt_level = level;
    this.sopt_name = name;
    this.sopt_val = val;
    this.sopt_valsize = val.length;
  }
}

/**
 * Limits the value to `len` bytes. EINVAL: the program passed fewer than `minlen` bytes.
 * @see sockopt(9) (FreeBSD's also copies the value)
 */
export function sooptcopyin(sopt: Sockopt, len: number, minlen: number): Errno {
  if (sopt.sopt_valsize < minlen) return EINVAL;
  sopt.sopt_valsize = Math.min(sopt.sopt_valsize, len);
  return 0;
}

/** Copies `bytes` to the program, truncated to the size of its buffer. @see sockopt(9) */
export function sooptcopyout(sopt: Sockopt, bytes: Uint8Array): Errno {
  const n = Math.min(sopt.sopt_valsize, bytes.length);
  sopt.sopt_val.set(bytes.subarray(0, n));
  sopt.sopt_valsize = n;
  return 0;
}

/** The int that `sooptInt` read. */
export const $optval = { v: 0 };

/** Reads an `int` into `$optval.v`. EINVAL: fewer than four bytes. */
export function sooptInt(sopt: Sockopt): Errno {
  const error = sooptcopyin(sopt, 4, 4);
  if (error === 0) $optval.v = view(sopt.sopt_val).getInt32(0, true);
  return error;
}

/** Copies an `int` to the program. */
export function sooptPutInt(sopt: Sockopt, v: number): Errno {
  return sooptcopyout(sopt, intBytes(v));
}

/** The bytes of an `int`. */
export function intBytes(v: number): Uint8Array {
  const bytes = new Uint8Array(4);
  view(bytes).setInt32(0, v, true);
  return bytes;
}

/** A DataView over `bytes`. */
export function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
