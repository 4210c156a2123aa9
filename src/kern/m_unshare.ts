/**
 * Copies of packets, after sys/kern/uipc_mbuf.c: m_unshare makes every mbuf of a packet writable;
 * m_fragment splits a packet into many small mbufs to test a driver.
 */

import { KASSERT } from '../sys/kassert.ts';
import { kva } from '../sys/types.ts';
import { mem } from '../vm/arena.ts';
import { m_free, m_freem, m_get, m_getcl } from './kern_mbuf.ts';
import { countMappedRead, m_copydata } from './m_copydata.ts';
import {
  type Mbuf,
  MCLBYTES,
  M_EXT,
  MINCLSIZE,
  M_NOMAP,
  M_PKTHDR,
  mtod,
  M_TRAILINGSPACE,
  M_WRITABLE,
} from './mbuf.ts';
import { m_dup_pkthdr, m_move_pkthdr } from './m_pkthdr.ts';
import { m_fixhdr, m_last } from './uipc_mbuf.ts';

/**
 * Copies m's data into as few writable mbufs as hold it and moves m's packet header to the first.
 * Null: no memory.
 */
function copyOne(m: Mbuf, how: number): Mbuf | null {
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let off = 0;
  countMappedRead(m, m.m_len);
  do {
    const left = m.m_len - off;
    const pkt: boolean = top === null && (m.m_flags & M_PKTHDR) !== 0;
    const n: Mbuf | null =
      pkt || left >= MINCLSIZE ? m_getcl(how, m.m_type, pkt ? M_PKTHDR : 0) : m_get(how, m.m_type);
    if (n === null) {
      m_freem(top);
      return null;
    }
    n.m_len = Math.min(left, M_TRAILINGSPACE(n));
    mem.copyWithin(mtod(n), mtod(m) + off, mtod(m) + off + n.m_len);
    off += n.m_len;
    if (tail === null) top = n;
    else tail.m_next = n;
    tail = n;
  } while (off < m.m_len);
  if ((m.m_flags & M_PKTHDR) !== 0) m_move_pkthdr(top!, m);
  return top;
}

/** Whether `tail` has external storage and m's bytes fit into its free space. */
function fitsBehind(tail: Mbuf, m: Mbuf): boolean {
  return (tail.m_flags & M_EXT) !== 0 && M_TRAILINGSPACE(tail) >= m.m_len;
}

/**
 * Makes every mbuf of a packet writable. Mbufs that are read-only or share storage are replaced by
 * copies. Copied and plain mbufs are merged into the free space of a preceding cluster if they fit.
 * Takes `m0` and returns the chain. Frees everything and returns null if there is no memory. Panics
 * on unmapped data.
 * @see sys/kern/uipc_mbuf.c
 */
export function m_unshare(m0: Mbuf, how: number): Mbuf | null {
  for (let m: Mbuf | null = m0; m !== null; m = m.m_next)
    KASSERT((m.m_flags & M_NOMAP) === 0, 'm_unshare: unmapped mbuf');
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let m: Mbuf | null = m0;
  while (m !== null) {
    const next: Mbuf | null = m.m_next;
    m.m_next = null;
    const writable = M_WRITABLE(m);
    if (tail !== null && fitsBehind(tail, m) && !((m.m_flags & M_EXT) !== 0 && writable)) {
      countMappedRead(m, m.m_len);
      mem.copyWithin(mtod(tail) + tail.m_len, mtod(m), mtod(m) + m.m_len);
      tail.m_len += m.m_len;
      m_free(m);
    } else {
      const piece: Mbuf | null = writable ? m : copyOne(m, how);
      if (!writable) m_free(m);
      if (piece === null) {
        m_freem(top);
        m_freem(next);
        return null;
      }
      if (tail === null) top = piece;
      else tail.m_next = piece;
      tail = m_last(piece);
    }
    m = next;
  }
  return top;
}

/**
 * Copies a packet into mbufs of at most `length` bytes each (at most MCLBYTES), to test a driver's
 * scatter/gather code. Takes `m0` and returns the copy. Returns `m0` unchanged if it has no packet
 * header, `length` is not above 0, or there is no memory. Reads with m_copydata, so unmapped data
 * is allowed. Left out: FreeBSD's random lengths (`length` -1 and -2).
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see sys/kern/uipc_mbuf.c
 */
export function m_fragment(m0: Mbuf, how: number, length: number): Mbuf {
  if ((m0.m_flags & M_PKTHDR) === 0 || length <= 0) return m0;
  const total = m_fixhdr(m0);
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let off = 0;
  do {
    const n: Mbuf | null = m_getcl(how, m0.m_type, top === null ? M_PKTHDR : 0);
    if (n === null) {
      m_freem(top);
      return m0;
    }
    n.m_len = Math.min(length, MCLBYTES, total - off);
    m_copydata(m0, off, n.m_len, kva(n.m_data));
    off += n.m_len;
    if (tail === null) top = n;
    else tail.m_next = n;
    tail = n;
  } while (off < total);
  m_dup_pkthdr(top!, m0);
  m_freem(m0);
  return top!;
}
