/**
 * Sequence numbers, after sys/netinet/tcp_seq.h: modulo 2^32 (RFC 9293, 3.4), so `a` is before `b`
 * if the shorter way from `a` to `b` leads forward. They are held as signed 32-bit integers.
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

/** `n` bytes on from `a`; back if negative. */
export function seqAdd(a: TcpSeq, n: number): TcpSeq {
  return ((a + n) | 0) as TcpSeq;
}

/** Bytes from `b` on to `a`: negative if `a` is before `b`. */
export function seqDiff(a: TcpSeq, b: TcpSeq): number {
  return (a - b) | 0;
}

/** Whether timestamp `a` is before `b` (RFC 7323, 5.2): the same arithmetic. */
export function TSTMP_LT(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** @see sys/netinet/tcp_seq.h */
export function TSTMP_GEQ(a: number, b: number): boolean {
  return ((a - b) | 0) >= 0;
}
