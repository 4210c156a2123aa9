/**
 * The payload of an outgoing segment, after tcp_m_copym of sys/netinet/tcp_output.c. It shares
 * storage with the socket buffer and is shortened to the DMA segment limit of a TSO engine.
 */

import { KASSERT } from '../sys/kassert.ts';
import { m_freem, m_get } from '../kern/kern_mbuf.ts';
import { type Mbuf, M_EXT, M_NOMAP, M_NOWAIT } from '../kern/mbuf.ts';
import { mb_dupcl } from '../kern/uipc_mbuf.ts';
import { mem, PAGE_SIZE } from '../vm/arena.ts';

/** Number of bytes that the last tcp_m_copym copied; an in-out parameter in FreeBSD. */
export const copymLen = { len: 0 };

/**
 * Estimate of the DMA segments that a TSO engine needs for `len` bytes of `m`: one per page or
 * `segsize`, and for unmapped data three more (page crossing, header, trailer).
 */
function fragsOf(m: Mbuf, len: number, segsize: number): number {
  if ((m.m_flags & M_NOMAP) !== 0) return Math.ceil(len / Math.min(segsize, PAGE_SIZE)) + 3;
  return Math.max(Math.ceil(len / segsize), 1);
}

/**
 * Copies `len` bytes of `m` from offset `off0` on, sharing external storage. If `segcount` is above
 * 0, stops before the estimated number of DMA segments, each of at most `segsize` bytes, reaches
 * it. Sets `copymLen.len` to the bytes copied. Does not change `m`'s data. Returns null if there is
 * no memory. The caller owns the copy.
 * @see sys/netinet/tcp_output.c
 */
export function tcp_m_copym(
  m: Mbuf,
  off0: number,
  len: number,
  segcount: number,
  segsize: number,
): Mbuf | null {
  let off = off0;
  let src: Mbuf | null = m;
  while (src !== null && off >= src.m_len) {
    off -= src.m_len;
    src = src.m_next;
  }
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let frags = 0;
  copymLen.len = 0;
  while (len > 0) {
    KASSERT(src !== null, 'tcp_m_copym: chain too short');
    const n = Math.min(len, src.m_len - off);
    if (segcount > 0) {
      frags += fragsOf(src, n, segsize);
      // Always copy the first mbuf, even if it alone reaches the limit.
      if (frags >= segcount && top !== null) return top;
    }
    const c = m_get(M_NOWAIT, src.m_type);
    if (c === null) {
      m_freem(top);
      return null;
    }
    c.m_len = n;
    if ((src.m_flags & M_EXT) !== 0) {
      mb_dupcl(c, src);
      c.m_data = src.m_data + off;
    } else {
      mem.copyWithin(c.m_data, src.m_data + off, src.m_data + off + n);
    }
    if (tail === null) top = c;
    else tail.m_next = c;
    tail = c;
    copymLen.len += n;
    len -= n;
    off = 0;
    src = src.m_next;
  }
  return top;
}

/** Shortens the chain `m`, a copy made here, to `len` bytes, also in `copymLen`. Frees the rest. */
export function trimChain(m: Mbuf, len: number): void {
  copymLen.len = len;
  let n: Mbuf = m;
  for (; len > n.m_len; n = n.m_next!) len -= n.m_len;
  n.m_len = len;
  m_freem(n.m_next);
  n.m_next = null;
}
