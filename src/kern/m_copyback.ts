/**
 * mbuf routines that access data by address, after sys/kern/uipc_mbuf.c: m_copyup, m_copyback,
 * m_append, m_apply, m_print and m_devget. FreeBSD's versions do not check for unmapped data. Here
 * each panics when it would access unmapped data; the message names the function and says
 * `unmapped`.
 */

import { KASSERT } from '../sys/kassert.ts';
import { kva, type Kva } from '../sys/types.ts';
import { mem } from '../vm/arena.ts';
import type { IfnetRef } from './ifnet_ref.ts';
import { m_free, m_freem, m_get, m_getcl, m_gethdr } from './kern_mbuf.ts';
import { countMappedRead } from './m_copydata.ts';
import {
  type Mbuf,
  max_linkhdr,
  MHLEN,
  MINCLSIZE,
  MLEN,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  M_RDONLY,
  MT_DATA,
  mtod,
  M_SIZE,
  M_TRAILINGSPACE,
} from './mbuf.ts';
import { m_move_pkthdr } from './m_pkthdr.ts';
import { m_last } from './uipc_mbuf.ts';

/**
 * Copies the first `len` bytes into a new mbuf, `dstoff` bytes from its start, so that headers can
 * be rewritten in front of them. The rest of the chain follows the new mbuf. Takes `n`. Frees
 * everything and returns null if the chain is shorter than `len`, `len + dstoff` exceeds MHLEN, or
 * there is no memory. Panics if the bytes to copy are unmapped.
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see mbuf(9)
 */
export function m_copyup(n: Mbuf, len: number, dstoff: number): Mbuf | null {
  const m =
    len > MHLEN - dstoff
      ? null
      : (n.m_flags & M_PKTHDR) !== 0
        ? m_gethdr(M_NOWAIT, n.m_type)
        : m_get(M_NOWAIT, n.m_type);
  if (m === null) {
    m_freem(n);
    return null;
  }
  if ((n.m_flags & M_PKTHDR) !== 0) m_move_pkthdr(m, n);
  m.m_data += dstoff;
  let src: Mbuf | null = n;
  while (src !== null && len > 0) {
    KASSERT((src.m_flags & M_NOMAP) === 0, 'm_copyup: unmapped mbuf');
    const c = Math.min(len, src.m_len);
    countMappedRead(src, c);
    mem.copyWithin(m.m_data + m.m_len, mtod(src), mtod(src) + c);
    len -= c;
    m.m_len += c;
    src.m_len -= c;
    src.m_data += c;
    if (src.m_len === 0) src = m_free(src);
  }
  m.m_next = src;
  if (len === 0) return m;
  m_freem(m);
  return null;
}

/**
 * Appends a zeroed mbuf of up to `len` bytes to `m` and returns it, or null if there is no memory.
 */
function growBy(m: Mbuf, len: number): Mbuf | null {
  const n = m_get(M_NOWAIT, m.m_type);
  if (n === null) return null;
  mem.fill(0, n.m_data, n.m_data + MLEN);
  n.m_len = Math.min(MLEN, len);
  m.m_next = n;
  return n;
}

/**
 * Copies `len` bytes from `cp` into the chain, starting at offset `off`. A chain that is too short
 * grows, with zeros between the old end and `off`, and the packet length grows with it. If memory
 * runs out, the remaining bytes are not copied. Panics on unmapped data; unlike FreeBSD's also on
 * read-only data.
 * @see mbuf(9)
 */
export function m_copyback(m0: Mbuf, off: number, len: number, cp: Kva): void {
  KASSERT(off >= 0 && len >= 0, 'm_copyback: negative');
  let m: Mbuf | null = m0;
  let before = 0; // bytes of the chain in front of m
  while (off > m.m_len) {
    off -= m.m_len;
    before += m.m_len;
    m = m.m_next ?? growBy(m, off + len);
    if (m === null) break;
  }
  for (let src: number = cp; m !== null && len > 0;) {
    if (m.m_next === null && len > m.m_len - off)
      m.m_len += Math.min(len - (m.m_len - off), M_TRAILINGSPACE(m));
    const n: number = Math.min(m.m_len - off, len);
    if (n > 0) {
      KASSERT((m.m_flags & M_NOMAP) === 0, 'm_copyback: unmapped mbuf');
      KASSERT((m.m_flags & M_RDONLY) === 0, 'm_copyback: read-only mbuf');
      mem.copyWithin(mtod(m) + off, src, src + n);
    }
    src += n;
    len -= n;
    if (len === 0) break;
    off = 0;
    before += m.m_len;
    m = m.m_next ?? growBy(m, len);
  }
  const total = before + (m === null ? 0 : m.m_len);
  if ((m0.m_flags & M_PKTHDR) !== 0 && m0.m_pkthdr.len < total) m0.m_pkthdr.len = total;
}

/**
 * Appends `len` bytes from `cp`, first into the free space of the last mbuf, then into new mbufs.
 * Returns false if memory ran out; then only a part is appended. If the last mbuf is unmapped, all
 * bytes go into new mbufs.
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see mbuf(9)
 */
export function m_append(m0: Mbuf, len: number, cp: Kva): boolean {
  let m: Mbuf = m_last(m0);
  let left = len;
  for (let src: number = cp; left > 0;) {
    const n: number = Math.min(left, M_TRAILINGSPACE(m));
    if (n > 0) {
      mem.copyWithin(mtod(m) + m.m_len, src, src + n);
      m.m_len += n;
      src += n;
      left -= n;
    }
    if (left === 0) break;
    const next = m_get(M_NOWAIT, m.m_type);
    if (next === null) break;
    m.m_next = next;
    m = next;
  }
  if ((m0.m_flags & M_PKTHDR) !== 0) m0.m_pkthdr.len += len - left;
  return left === 0;
}

/** Callback of m_apply for `len` bytes at `data`. A return value other than 0 stops m_apply. */
type ApplyFn<T> = (arg: T, data: Kva, len: number) => number;

/**
 * Calls `f` for each contiguous piece of the `len` bytes from `off` on, in order. Returns the first
 * value other than 0 that `f` returns, or 0. Does not change `m`. Panics if the chain is too short
 * or the data is unmapped.
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see mbuf(9)
 */
export function m_apply<T>(m: Mbuf, off: number, len: number, f: ApplyFn<T>, arg: T): number {
  KASSERT(off >= 0 && len >= 0, 'm_apply: negative');
  let src: Mbuf | null = m;
  while (off > 0) {
    KASSERT(src !== null, 'm_apply: offset beyond the chain');
    if (off < src.m_len) break;
    off -= src.m_len;
    src = src.m_next;
  }
  for (; len > 0; off = 0, src = src.m_next) {
    KASSERT(src !== null, 'm_apply: chain too short');
    KASSERT((src.m_flags & M_NOMAP) === 0, 'm_apply: unmapped mbuf');
    const n = Math.min(src.m_len - off, len);
    countMappedRead(src, n);
    const rval = f(arg, kva(mtod(src) + off), n);
    if (rval !== 0) return rval;
    len -= n;
  }
  return 0;
}

/**
 * Returns the bytes of a chain in hexadecimal, one line per mbuf: at most `maxlen` bytes, or the
 * whole packet if `maxlen` is -1. Unlike FreeBSD, returns the text instead of printing it to the
 * console. Does not change `m`. Panics on unmapped data.
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see sys/kern/uipc_mbuf.c
 */
export function m_print(m: Mbuf | null, maxlen: number): string {
  if (m === null) return 'mbuf: 0\n';
  let left = maxlen;
  if (left < 0) left = (m.m_flags & M_PKTHDR) !== 0 ? m.m_pkthdr.len : Number.MAX_SAFE_INTEGER;
  let text = '';
  for (let n: Mbuf | null = m; n !== null && left > 0; n = n.m_next) {
    KASSERT((n.m_flags & M_NOMAP) === 0, 'm_print: unmapped mbuf');
    const len = Math.min(n.m_len, left);
    countMappedRead(n, len);
    text += `${len}:`;
    for (let i = 0; i < len; i++) text += ` ${mem[mtod(n) + i]!.toString(16).padStart(2, '0')}`;
    text += '\n';
    left -= len;
  }
  return text;
}

/** Copies `len` bytes from the device address `from` to mapped memory at `to`. */
type DevCopy = (from: number, to: Kva, len: number) => void;

/**
 * Builds a packet of `totlen` bytes received on `ifp`. `copy` copies the bytes from device memory
 * at `buf`. The data begins `off` bytes into the first mbuf. Returns null if there is no memory or
 * `off` is not in 0 to MHLEN. The caller owns the packet.
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see mbuf(9)
 */
export function m_devget(
  buf: number,
  totlen: number,
  off: number,
  ifp: IfnetRef | null,
  copy: DevCopy,
): Mbuf | null {
  if (off < 0 || off > MHLEN) return null;
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let left = totlen;
  while (left > 0) {
    const first: boolean = top === null;
    const cluster: boolean = left + (first ? off : 0) >= MINCLSIZE;
    const flags: number = first ? M_PKTHDR : 0;
    const m: Mbuf | null = cluster
      ? m_getcl(M_NOWAIT, MT_DATA, flags)
      : first
        ? m_gethdr(M_NOWAIT, MT_DATA)
        : m_get(M_NOWAIT, MT_DATA);
    if (m === null) {
      m_freem(top);
      return null;
    }
    let room = M_SIZE(m);
    if (first) {
      m.m_pkthdr.rcvif = ifp;
      m.m_pkthdr.len = totlen;
      // Reserve room for a link header, so that a short packet can be reused for the reply.
      const skip: number = off + (!cluster && left + off + max_linkhdr <= MHLEN ? max_linkhdr : 0);
      m.m_data += skip;
      room -= skip;
    }
    m.m_len = Math.min(left, room);
    copy(buf, mtod(m), m.m_len);
    buf += m.m_len;
    left -= m.m_len;
    if (tail === null) top = m;
    else tail.m_next = m;
    tail = m;
  }
  return top;
}
