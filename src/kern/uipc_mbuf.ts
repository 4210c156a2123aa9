/**
 * mbuf routines, after sys/kern/uipc_mbuf.c as of r349529. Functions that only read chains are in
 * m_copydata.ts, those that access data by address in m_copyback.ts; m_uiotombuf and m_unshare have
 * files of their own. m_pullup panics if it would access unmapped data. Left out: mbuf tags,
 * m_copymdata, m_pulldown.
 */

import { KASSERT } from '../sys/kassert.ts';
import { kva } from '../sys/types.ts';
import { mem } from '../vm/arena.ts';
import { m_free, m_freem, m_get, m_getcl, m_gethdr, m_getjcl, mbEmulator } from './kern_mbuf.ts';
import { countMappedRead, m_copydata } from './m_copydata.ts';
import { copyPkthdr, m_dup_pkthdr, m_move_pkthdr } from './m_pkthdr.ts';
import {
  EXT_FLAG_EMBREF,
  extHolder,
  type Mbuf,
  mbuf_ext_pg_len,
  M_ALIGN,
  MCLBYTES,
  M_COPYALL,
  M_EXT,
  MHLEN,
  MJUMPAGESIZE,
  M_LEADINGSPACE,
  MLEN,
  M_NOFREE,
  M_NOMAP,
  M_PKTHDR,
  M_RDONLY,
  MT_DATA,
  M_SIZE,
  M_START,
  M_TRAILINGSPACE,
  M_WRITABLE,
} from './mbuf.ts';

/**
 * Attaches m's external storage to `n` and adds a reference. `n` must have no external storage.
 * @see sys/kern/uipc_mbuf.c
 */
export function mb_dupcl(n: Mbuf, m: Mbuf): void {
  KASSERT((m.m_flags & M_EXT) !== 0, 'mb_dupcl: no external storage');
  KASSERT((n.m_flags & M_EXT) === 0, 'mb_dupcl: target has storage');
  const holder = extHolder(m);
  const from = m.m_ext;
  const to = n.m_ext;
  to.ext_cnt = holder;
  to.ext_count = 0;
  to.ext_buf = from.ext_buf;
  to.ext_pgs = from.ext_pgs;
  to.ext_size = from.ext_size;
  to.ext_type = from.ext_type;
  to.ext_flags = from.ext_flags & ~EXT_FLAG_EMBREF;
  to.ext_free = null;
  to.ext_arg1 = null;
  to.ext_arg2 = null;
  holder.m_ext.ext_count++;
  n.m_flags |= M_EXT | (m.m_flags & (M_RDONLY | M_NOMAP));
  if ((n.m_flags & M_NOMAP) !== 0) mbEmulator.unmappedCurrent++;
}

/**
 * Removes packet headers from a chain (from all mbufs, or from all but the first). Clears all
 * m_flags except the storage flags and `flags`.
 * @see sys/kern/uipc_mbuf.c
 */
export function m_demote(m0: Mbuf, all: boolean, flags: number): void {
  const keep = M_EXT | M_RDONLY | M_NOFREE | M_NOMAP | flags;
  for (let m = all ? m0 : m0.m_next; m !== null; m = m.m_next) {
    KASSERT(m.m_nextpkt === null, 'm_demote: packet chain');
    m.m_flags &= keep;
  }
}

/** Size of m's storage in bytes. For an unmapped mbuf: header, pages and trailer. */
function storageBytes(m: Mbuf): number {
  if ((m.m_flags & M_NOMAP) === 0) return M_SIZE(m);
  const pgs = m.m_ext.ext_pgs!;
  let n = pgs.hdr_len + pgs.trail_len;
  for (let i = 0; i < pgs.npgs; i++) n += mbuf_ext_pg_len(pgs, i, i === 0 ? pgs.first_pg_off : 0);
  return n;
}

/**
 * Whether a chain is consistent: the data of each mbuf is inside its storage, only the first mbuf
 * has a packet header, the packet length is right, and no mbuf but the first has m_nextpkt set.
 * With `sanitize`, repairs headers, packet length and m_nextpkt and returns true for a repaired
 * chain. Unlike FreeBSD's, handles the header and trailer of unmapped mbufs.
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see mbuf(9)
 */
export function m_sanity(m0: Mbuf, sanitize: boolean): boolean {
  let total = 0;
  for (let m: Mbuf | null = m0; m !== null; m = m.m_next) {
    const from = m.m_data - M_START(m);
    if (from < 0 || m.m_len < 0 || from + m.m_len > storageBytes(m)) return false;
    if (m !== m0 && m.m_nextpkt !== null) {
      if (!sanitize) return false;
      m_freem(m.m_nextpkt);
      m.m_nextpkt = null;
    }
    if (m !== m0 && (m.m_flags & M_PKTHDR) !== 0) {
      if (!sanitize) return false;
      m.m_flags &= ~M_PKTHDR;
    }
    total += m.m_len;
  }
  if ((m0.m_flags & M_PKTHDR) === 0 || m0.m_pkthdr.len === total) return true;
  if (sanitize) m0.m_pkthdr.len = total;
  return sanitize;
}

/** Bytes in a chain. @see mbuf(9) */
export function m_length(m: Mbuf | null): number {
  let len = 0;
  for (; m !== null; m = m.m_next) len += m.m_len;
  return len;
}

/** Sets the packet length from the chain and returns it. @see mbuf(9) */
export function m_fixhdr(m: Mbuf): number {
  return (m.m_pkthdr.len = m_length(m));
}

/** The last mbuf of a chain. @see mbuf(9) */
export function m_last(m: Mbuf): Mbuf {
  while (m.m_next !== null) m = m.m_next;
  return m;
}

/**
 * Adds a new mbuf of `len` bytes in front of `m`. Takes `m`; frees it and returns null if there is
 * no memory.
 * @see mbuf(9)
 */
function m_prepend(m: Mbuf, len: number, how: number): Mbuf | null {
  const pkt = (m.m_flags & M_PKTHDR) !== 0;
  KASSERT(len <= (pkt ? MHLEN : MLEN), 'm_prepend: too long');
  const mn = pkt ? m_gethdr(how, m.m_type) : m_get(how, m.m_type);
  if (mn === null) {
    m_freem(m);
    return null;
  }
  if (pkt) m_move_pkthdr(mn, m);
  mn.m_next = m;
  M_ALIGN(mn, len);
  mn.m_len = len;
  return mn;
}

/**
 * Adds `plen` bytes in front of the data, in m's leading space if they fit, else in a new mbuf.
 * Takes `m`; frees it and returns null if there is no memory.
 * @see mbuf(9)
 */
export function M_PREPEND(m: Mbuf, plen: number, how: number): Mbuf | null {
  let top: Mbuf | null = m;
  if (M_LEADINGSPACE(m) >= plen) {
    m.m_data -= plen;
    m.m_len += plen;
  } else {
    top = m_prepend(m, plen, how);
  }
  if (top !== null && (top.m_flags & M_PKTHDR) !== 0) top.m_pkthdr.len += plen;
  return top;
}

/**
 * A read-only copy of `len` bytes (or M_COPYALL) from offset `off0` on. External storage is shared,
 * internal data is copied. Does not change `m`'s data. Returns null if there is no memory. The
 * caller owns the copy.
 * @see mbuf(9)
 */
export function m_copym(m: Mbuf, off0: number, len: number, how: number): Mbuf | null {
  KASSERT(off0 >= 0 && len >= 0, 'm_copym: negative');
  const copyhdr = off0 === 0 && (m.m_flags & M_PKTHDR) !== 0;
  let off = off0;
  let src: Mbuf | null = m;
  while (src !== null && off >= src.m_len && off > 0) {
    off -= src.m_len;
    src = src.m_next;
  }
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  while (len > 0) {
    if (src === null) {
      KASSERT(len === M_COPYALL, 'm_copym: chain too short');
      break;
    }
    const n: Mbuf | null =
      copyhdr && top === null ? m_gethdr(how, src.m_type) : m_get(how, src.m_type);
    if (n === null) {
      m_freem(top);
      return null;
    }
    if (copyhdr && top === null) {
      m_dup_pkthdr(n, m);
      n.m_pkthdr.len = len === M_COPYALL ? m.m_pkthdr.len : len;
    }
    n.m_len = Math.min(len, src.m_len - off);
    if ((src.m_flags & M_EXT) !== 0) {
      mb_dupcl(n, src);
      n.m_data = src.m_data + off;
    } else {
      mem.copyWithin(n.m_data, src.m_data + off, src.m_data + off + n.m_len);
    }
    if (tail === null) top = n;
    else tail.m_next = n;
    tail = n;
    if (len !== M_COPYALL) len -= n.m_len;
    off = 0;
    src = src.m_next;
  }
  return top;
}

/**
 * `m_copym` of a whole packet.
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see mbuf(9)
 */
export function m_copypacket(m: Mbuf, how: number): Mbuf | null {
  return m_copym(m, 0, M_COPYALL, how);
}

/**
 * A writable copy of a whole packet in new mbufs and clusters. Unlike FreeBSD, reads with
 * m_copydata, so that unmapped data can be duplicated too. Does not change `m`. Returns null if
 * there is no memory. The caller owns the copy.
 * @see mbuf(9)
 */
export function m_dup(m: Mbuf, how: number): Mbuf | null {
  const n = copyToClusters(m, m_length(m), how, (m.m_flags & M_PKTHDR) !== 0);
  if (n !== null && (m.m_flags & M_PKTHDR) !== 0) m_dup_pkthdr(n, m);
  return n;
}

/** Allocates an empty mbuf for up to `len` bytes: plain, or with a 2 KiB or a page-size cluster. */
function getFor(len: number, how: number, type: number, hdr: boolean): Mbuf | null {
  const flags = hdr ? M_PKTHDR : 0;
  if (len > MCLBYTES) return m_getjcl(how, type, flags, MJUMPAGESIZE);
  if (len > (hdr ? MHLEN : MLEN)) return m_getcl(how, type, flags);
  return hdr ? m_gethdr(how, type) : m_get(how, type);
}

/**
 * Copies `len` bytes of `m` into a new chain of mbufs of at most 2 KiB, with packet header if
 * `pkthdr`.
 */
function copyToClusters(m: Mbuf, len: number, how: number, pkthdr: boolean): Mbuf | null {
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let off = 0;
  do {
    const n: Mbuf | null = getFor(Math.min(len, MCLBYTES), how, m.m_type, pkthdr && top === null);
    if (n === null) {
      m_freem(top);
      return null;
    }
    n.m_len = Math.min(len, M_TRAILINGSPACE(n));
    m_copydata(m, off, n.m_len, kva(n.m_data));
    if (tail === null) top = n;
    else tail.m_next = n;
    tail = n;
    off += n.m_len;
    len -= n.m_len;
  } while (len > 0);
  return top;
}

/**
 * Removes `req_len` bytes from the front, or `-req_len` bytes from the end if it is negative.
 * @see mbuf(9)
 */
export function m_adj(mp: Mbuf, req_len: number): void {
  const pkt = (mp.m_flags & M_PKTHDR) !== 0;
  if (req_len >= 0) {
    let len = req_len;
    for (let m: Mbuf | null = mp; m !== null && len > 0; m = m.m_next) {
      const n = Math.min(m.m_len, len);
      m.m_len -= n;
      m.m_data += n;
      len -= n;
    }
    if (pkt) mp.m_pkthdr.len -= req_len - len;
    return;
  }
  const total = m_length(mp);
  let keep = Math.max(total + req_len, 0);
  if (pkt) mp.m_pkthdr.len -= total - keep;
  for (let m: Mbuf | null = mp; m !== null; m = m.m_next) {
    m.m_len = Math.min(m.m_len, keep);
    keep -= m.m_len;
  }
}

/**
 * Appends `n` to the chain `m`. Copies mbufs of `n` into the last mbuf of `m` while they fit. Takes
 * `n`.
 * @see mbuf(9)
 */
export function m_cat(m: Mbuf, n: Mbuf | null): void {
  m = m_last(m);
  while (n !== null) {
    if ((n.m_flags & M_NOMAP) !== 0 || !M_WRITABLE(m) || M_TRAILINGSPACE(m) < n.m_len) {
      m.m_next = n;
      return;
    }
    m_copydata(n, 0, n.m_len, kva(m.m_data + m.m_len));
    m.m_len += n.m_len;
    n = m_free(n);
  }
}

/**
 * `m_cat` for two packets: adds the packet lengths and removes n's packet header. Takes `n`.
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see mbuf(9)
 */
export function m_catpkt(m: Mbuf, n: Mbuf): void {
  m.m_pkthdr.len += n.m_pkthdr.len;
  m_demote(n, true, 0);
  m_cat(m, n);
}

/**
 * Makes the first `len` bytes (at most MHLEN if they must be copied to a new mbuf) contiguous.
 * Takes `n`. Frees everything and returns null if the chain is shorter than `len` or there is no
 * memory. Panics if the first mbuf or any data to copy is unmapped.
 * @see mbuf(9)
 */
export function m_pullup(n: Mbuf, len: number): Mbuf | null {
  KASSERT((n.m_flags & M_NOMAP) === 0, 'm_pullup: unmapped mbuf');
  if (n.m_len >= len) return n;
  let m: Mbuf = n;
  let src: Mbuf | null = n;
  if ((n.m_flags & M_EXT) === 0 && M_WRITABLE(n) && M_TRAILINGSPACE(n) + n.m_len >= len) {
    src = n.m_next;
    len -= n.m_len;
  } else {
    const head =
      len > MHLEN
        ? null
        : (n.m_flags & M_PKTHDR) !== 0
          ? m_gethdr(0, n.m_type)
          : m_get(0, n.m_type);
    if (head === null) {
      m_freem(n);
      return null;
    }
    if ((n.m_flags & M_PKTHDR) !== 0) m_move_pkthdr(head, n);
    m = head;
  }
  while (src !== null && len > 0) {
    KASSERT((src.m_flags & M_NOMAP) === 0, 'm_pullup: unmapped mbuf');
    const count = Math.min(len, src.m_len);
    countMappedRead(src, count);
    mem.copyWithin(m.m_data + m.m_len, src.m_data, src.m_data + count);
    len -= count;
    m.m_len += count;
    src.m_len -= count;
    src.m_data += count;
    if (src.m_len === 0) src = m_free(src);
  }
  m.m_next = src;
  if (len === 0) return m;
  m_freem(m);
  return null;
}

/**
 * Splits a chain at offset `len0`: `m0` keeps the front; the rest is returned and shares external
 * storage with it. Returns null if there is no memory (`m0` is then unchanged) or nothing follows
 * `len0`.
 * @see mbuf(9)
 */
export function m_split(m0: Mbuf, len0: number, how: number): Mbuf | null {
  let m: Mbuf | null = m0;
  let len = len0;
  while (m !== null && len > m.m_len) {
    len -= m.m_len;
    m = m.m_next;
  }
  if (m === null) return null;
  const pkt = (m0.m_flags & M_PKTHDR) !== 0;
  const remain = m.m_len - len;
  let n: Mbuf | null;
  if (remain === 0 && !pkt) {
    n = m.m_next;
    m.m_next = null;
    return n;
  }
  n = pkt ? m_gethdr(how, m0.m_type) : m_get(how, m.m_type);
  if (n === null) return null;
  if (pkt) {
    copyPkthdr(n, m0);
    n.m_pkthdr.len = m0.m_pkthdr.len - len0;
  }
  if (remain > 0) {
    if ((m.m_flags & M_EXT) !== 0) {
      mb_dupcl(n, m);
      n.m_data = m.m_data + len;
    } else if (remain > (pkt ? MHLEN : MLEN)) {
      // The rest does not fit into a packet-header mbuf: leave that mbuf empty and add a plain one
      // for the data.
      const rest = m_get(how, m.m_type);
      if (rest === null) {
        m_free(n);
        return null;
      }
      mem.copyWithin(rest.m_data, m.m_data + len, m.m_data + m.m_len);
      rest.m_len = remain;
      n.m_next = rest;
    } else {
      M_ALIGN(n, remain);
      mem.copyWithin(n.m_data, m.m_data + len, m.m_data + m.m_len);
    }
    if (n.m_next === null) n.m_len = remain;
  }
  if (pkt) m0.m_pkthdr.len = len0;
  m.m_len = len;
  m_last(n).m_next = m.m_next;
  m.m_next = null;
  return n;
}

/** Out parameter of m_getptr. */
export const m_getptrOff = { off: 0 };

/**
 * The mbuf that holds byte `loc` of the chain; sets `m_getptrOff.off` to the byte's offset from
 * m_data. The position behind the last byte belongs to the last mbuf. Null if `loc` is beyond the
 * chain. The data of an unmapped mbuf has no address; the offset is then only usable with
 * m_copydata and similar functions.
 * Part of the mbuf(9) library: the stack itself does not call it.
 * @see mbuf(9)
 */
export function m_getptr(m: Mbuf | null, loc: number): Mbuf | null {
  for (; m !== null; m = m.m_next) {
    if (m.m_len > loc || (m.m_len === loc && m.m_next === null)) {
      m_getptrOff.off = loc;
      return m;
    }
    loc -= m.m_len;
  }
  return null;
}

/**
 * Copies a packet into as few mbufs of at most 2 KiB as hold it; the copy is mapped. On success
 * frees `m0` and returns the copy. If there is no memory, returns null and leaves `m0` unchanged.
 * @see mbuf(9)
 */
export function m_defrag(m0: Mbuf, how: number): Mbuf | null {
  KASSERT((m0.m_flags & M_PKTHDR) !== 0, 'm_defrag: no packet header');
  const n = copyToClusters(m0, m_length(m0), how, true);
  if (n === null) return null;
  m_dup_pkthdr(n, m0);
  m_freem(m0);
  return n;
}

/**
 * Upper bound of the DMA segments for `m`; ignores contiguous pages and trimmed data.
 * @see sys/kern/uipc_mbuf.c
 */
function frags_per_mbuf(m: Mbuf): number {
  if ((m.m_flags & M_NOMAP) === 0) return 1;
  const pgs = m.m_ext.ext_pgs!;
  return (pgs.hdr_len !== 0 ? 1 : 0) + pgs.npgs + (pgs.trail_len !== 0 ? 1 : 0);
}

/**
 * Reduces a chain to at most `maxfrags` DMA segments by copying adjacent mbufs together, in place.
 * Returns `m0`. If that is not possible, returns null; the caller still owns `m0`, which may have
 * changed.
 * @see mbuf(9)
 */
export function m_collapse(m0: Mbuf, how: number, maxfrags: number): Mbuf | null {
  let curfrags = 0;
  for (let m: Mbuf | null = m0; m !== null; m = m.m_next) curfrags += frags_per_mbuf(m);
  // First, copy an mbuf into the free space of the one in front of it.
  for (let m: Mbuf = m0; curfrags > maxfrags;) {
    const n = m.m_next;
    if (n === null) break;
    if (M_WRITABLE(m) && n.m_len < M_TRAILINGSPACE(m)) {
      m_copydata(n, 0, n.m_len, kva(m.m_data + m.m_len));
      m.m_len += n.m_len;
      m.m_next = n.m_next;
      curfrags -= frags_per_mbuf(n);
      m_free(n);
    } else {
      m = n;
    }
  }
  // Then copy pairs of mbufs behind the first one into new clusters, until a pass merges no pair.
  while (curfrags > maxfrags) {
    const before = curfrags;
    let prev: Mbuf = m0;
    while (prev.m_next !== null && prev.m_next.m_next !== null && curfrags > maxfrags) {
      const a: Mbuf = prev.m_next;
      const b: Mbuf = a.m_next!;
      if (a.m_len + b.m_len < MCLBYTES) {
        const m = m_getcl(how, MT_DATA, 0);
        if (m === null) return null;
        m_copydata(a, 0, a.m_len, kva(m.m_data));
        m_copydata(b, 0, b.m_len, kva(m.m_data + a.m_len));
        m.m_len = a.m_len + b.m_len;
        m.m_next = b.m_next;
        prev.m_next = m;
        curfrags += 1 - frags_per_mbuf(a) - frags_per_mbuf(b);
        m_free(a);
        m_free(b);
      }
      prev = prev.m_next;
    }
    if (curfrags === before) return null;
  }
  return m0;
}
