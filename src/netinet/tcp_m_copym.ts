/**
 * The payload of an outgoing segment, after tcp_m_copym of sys/netinet/tcp_output.c: storage shared
 * with the socket buffer, cut short where a TSO engine's segment limit would be reached.
 */

import { KASSERT } from '../sys/kassert.ts';
import { m_freem, m_get } from '../kern/kern_mbuf.ts';
import { type Mbuf, M_EXT, M_NOMAP, M_NOWAIT } from '../kern/mbuf.ts';
import { mb_dupcl } from '../kern/uipc_mbuf.ts';
import { mem, PAGE_SIZE } from '../vm/arena.ts';

/** How many bytes the last tcp_m_copym took: its in-out parameter of FreeBSD. */
export const copymLen = { len: 0 };

/**
 * DMA segments a TSO engine may need for `len` bytes of `m`: one per page or segment, and for
 * unmapped data one for crossing a page and two for a header and a trailer.
 */
function fragsOf(m: Mbuf, len: number, segsize: number): number {
  if ((m.m_flags & M_NOMAP) !== 0) return Math.ceil(len / Math.min(segsize, PAGE_SIZE)) + 3;
  return Math.max(Math.ceil(len / segsize), 1);
}

/**
 * Shares `len` bytes from `off0` bytes into `m` for a packet. With `segcount` above 0 stops before
 * the estimate of DMA segments, each of at most `segsize` bytes, reaches it. Sets `copymLen.len` to
 * what it took. Only reads `m`; the caller owns the copy; null without memory.
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
      // The first mbuf always goes: a limit that not even one fits is no limit to keep to.
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
