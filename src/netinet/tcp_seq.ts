/**
 * Sequence numbers, after sys/netinet/tcp_seq.h: arithmetic modulo 2^32 (RFC 9293, 3.4). `a` is
 * before `b` if their difference `a - b`, as a signed 32-bit integer, is negative. Sequence numbers
 * are stored as signed 32-bit integers.
 */

import type { TcpSeq } from '../sys/types.ts';

/** @see sys/netinet/tcp_seq.h */
export function SEQ_LT(a: TcpSeq, b: TcpSeq): boolean {
  return ((a - b) | 0) < 0;
}

/** @see sys/netinet/tcp_seq.h */
export function SEQ_LEQ(a: TcpSeq, b: TcpSeq): boolean {
  return ((a - b) | 0) <= 0;
}

/** @see sys/netinet/tcp_seq.h */
export function SEQ_GT(a: TcpSeq, b: TcpSeq): boolean {
  return ((a - b) | 0) > 0;
}

/** @see sys/netinet/tcp_seq.h */
export function SEQ_GEQ(a: TcpSeq, b: TcpSeq): boolean {
  return ((a - b) | 0) >= 0;
}

/** The later one. @see sys/netinet/tcp_seq.h */
export function SEQ_MAX(a: TcpSeq, b: TcpSeq): TcpSeq {
  return SEQ_GT(a, b) ? a : b;
}

/** `a` advanced by `n`, which may be negative. */
export function seqAdd(a: TcpSeq, n: number): TcpSeq {
  return ((a + n) | 0) as TcpSeq;
}

/** Bytes from `b` to `a`; negative if `a` is before `b`. */
export function seqDiff(a: TcpSeq, b: TcpSeq): number {
  return (a - b) | 0;
}

/** Whether timestamp `a` is before `b`, in the same arithmetic (RFC 7323, 5.2). */
export function TSTMP_LT(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}
