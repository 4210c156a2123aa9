/**
 * Functions that read mbuf chains, mapped or unmapped, after sys/kern/uipc_mbuf.c. They are not in
 * uipc_mbuf.ts because the allocator (mb_unmapped_compress) imports them and uipc_mbuf.ts imports
 * the allocator.
 */

import { KASSERT } from '../sys/kassert.ts';
import { kva, type Kva, type PhysAddr } from '../sys/types.ts';
import { mem } from '../vm/arena.ts';
import { payloadRead } from '../vm/payload.ts';
import { copyFromPhys, type Uio, uiomove, uiomove_fromphys } from '../vm/uio.ts';
import { EXT_SFBUF, type Mbuf, mbuf_ext_pg_len, M_EXT, M_NOMAP, mtod } from './mbuf.ts';

/** Counts a CPU read of `n` bytes of `m` if its storage is a mapped file page (EXT_SFBUF). */
export function countMappedRead(m: Mbuf, n: number): void {
  if ((m.m_flags & M_EXT) !== 0 && m.m_ext.ext_type === EXT_SFBUF) payloadRead(n);
}

/** Copies `len` bytes of the unmapped mbuf `m`, starting `off` bytes behind m_data, to `cp`. */
function m_copyfromunmapped(m: Mbuf, off: number, len: number, cp: Kva): void {
  const pgs = m.m_ext.ext_pgs!;
  let skip = m.m_data + off;
  let dst: number = cp;
  if (skip < pgs.hdr_len) {
    const n = Math.min(pgs.hdr_len - skip, len);
    mem.copyWithin(dst, pgs.hdr + skip, pgs.hdr + skip + n);
    dst += n;
    len -= n;
    skip = 0;
  } else {
    skip -= pgs.hdr_len;
  }
  let pgoff = pgs.first_pg_off;
  for (let i = 0; i < pgs.npgs && len > 0; i++, pgoff = 0) {
    const whole = mbuf_ext_pg_len(pgs, i, pgoff);
    if (skip >= whole) {
      skip -= whole;
      continue;
    }
    const n = Math.min(whole - skip, len);
    copyFromPhys((pgs.pa[pgs.pa0 + i]! + pgoff + skip) as PhysAddr, kva(dst), n);
    dst += n;
    len -= n;
    skip = 0;
  }
  if (len === 0) return;
  KASSERT(skip + len <= pgs.trail_len, 'm_copydata: beyond the unmapped storage');
  mem.copyWithin(dst, pgs.trail + skip, pgs.trail + skip + len);
}

/**
 * Copies `len` bytes, starting at offset `off` of the chain, to mapped memory at `cp`. Does not
 * change `m`; the caller keeps it. Panics if the chain holds fewer than `off + len` bytes.
 * @see mbuf(9), sys/kern/uipc_mbuf.c
 */
export function m_copydata(m: Mbuf | null, off: number, len: number, cp: Kva): void {
  KASSERT(off >= 0, 'm_copydata: negative off');
  KASSERT(len >= 0, 'm_copydata: negative len');
  for (; m !== null && off >= m.m_len; m = m.m_next) off -= m.m_len;
  for (let dst: number = cp; len > 0; m = m.m_next, off = 0) {
    KASSERT(m !== null, 'm_copydata: chain too short');
    const n = Math.min(m.m_len - off, len);
    // An M_NOMAP mbuf has pages but no address.
    if ((m.m_flags & M_NOMAP) !== 0) {
      m_copyfromunmapped(m, off, n, kva(dst));
    } else {
      countMappedRead(m, n);
      mem.copyWithin(dst, mtod(m) + off, mtod(m) + off + n);
    }
    dst += n;
    len -= n;
  }
}

/**
 * Copies `len` bytes of the unmapped mbuf `m`, starting `m_off` bytes behind m_data, to `uio`. Does
 * not change `m`.
 * @see sys/kern/uipc_mbuf.c
 */
export function m_unmappedtouio(m: Mbuf, m_off: number, uio: Uio, len: number): void {
  KASSERT((m.m_flags & M_NOMAP) !== 0, 'm_unmappedtouio: mapped mbuf');
  const pgs = m.m_ext.ext_pgs!;
  let skip = m.m_data + m_off;
  if (skip < pgs.hdr_len) {
    const n = Math.min(pgs.hdr_len - skip, len);
    uiomove(kva(pgs.hdr + skip), n, uio);
    len -= n;
    skip = 0;
  } else {
    skip -= pgs.hdr_len;
  }
  let pgoff = pgs.first_pg_off;
  for (let i = 0; i < pgs.npgs && len > 0; i++, pgoff = 0) {
    const whole = mbuf_ext_pg_len(pgs, i, pgoff);
    if (skip >= whole) {
      skip -= whole;
      continue;
    }
    const n = Math.min(whole - skip, len);
    uiomove_fromphys(pgs.pa, pgs.pa0 + i, pgoff + skip, n, uio);
    len -= n;
    skip = 0;
  }
  if (len > 0) {
    KASSERT(skip + len <= pgs.trail_len, 'm_unmappedtouio: beyond the storage');
    uiomove(kva(pgs.trail + skip), len, uio);
  }
}

/**
 * Copies up to `len` bytes (all if 0) of a chain, mapped or unmapped, to `uio`. Does not change
 * `m`.
 * @see sys/kern/uipc_mbuf.c
 */
export function m_mbuftouio(uio: Uio, m: Mbuf | null, len: number): void {
  let left = len > 0 ? Math.min(len, uio.uio_resid) : uio.uio_resid;
  for (; m !== null && left > 0; m = m.m_next) {
    const n = Math.min(m.m_len, left);
    if ((m.m_flags & M_NOMAP) !== 0) {
      m_unmappedtouio(m, 0, uio, n);
    } else {
      countMappedRead(m, n);
      uiomove(mtod(m), n, uio);
    }
    left -= n;
  }
}
