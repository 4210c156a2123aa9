/**
 * sglist(9), after sys/kern/subr_sglist.c as of r349529: a list of physical segments of fixed length,
 * for drivers that hand their hardware such a list instead of using bus_dma, as vtnet does. Unmapped
 * mbufs are appended by their page lists. What does not fit leaves the list as it was. Left out:
 * reference counts, user memory, bios, and joining, splitting and slicing lists; no driver here needs
 * an sglist.
 */

import { EFBIG, EINVAL, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import type { Kva, PhysAddr } from '../sys/types.ts';
import { ramBase } from '../vm/arena.ts';
import { type Mbuf, type MbufExtPgs, mbuf_ext_pg_len, M_NOMAP, mtod } from './mbuf.ts';

/** Segments of physical memory; of the arrays, the first sg_nseg entries count. @see sglist(9) */
export class Sglist {
  /** FreeBSD's sg_segs, a field an array. */
  readonly ss_paddr: Float64Array;
  readonly ss_len: Float64Array;
  sg_nseg = 0;
  readonly sg_maxseg: number;

  constructor(sg_maxseg: number) {
    this.ss_paddr = new Float64Array(sg_maxseg);
    this.ss_len = new Float64Array(sg_maxseg);
    this.sg_maxseg = sg_maxseg;
  }
}

/** An empty list for `nsegs` segments. Unlike FreeBSD's it cannot fail. @see sglist(9) */
export function sglist_alloc(nsegs: number): Sglist {
  return new Sglist(nsegs);
}

/** Empties the list. @see sglist(9) */
export function sglist_reset(sg: Sglist): void {
  sg.sg_nseg = 0;
}

/** Bytes of all segments. @see sglist(9) */
export function sglist_length(sg: Sglist): number {
  let len = 0;
  for (let i = 0; i < sg.sg_nseg; i++) len += sg.ss_len[i]!;
  return len;
}

/** Adds a piece behind the last one, or to it if it lies behind it in memory. EFBIG: no room. */
function appendRange(sg: Sglist, paddr: number, len: number): Errno {
  if (len === 0) return 0;
  const last = sg.sg_nseg - 1;
  const end = last >= 0 ? sg.ss_paddr[last]! + sg.ss_len[last]! : -1;
  if (end === paddr) {
    sg.ss_len[last]! += len;
    return 0;
  }
  if (sg.sg_nseg === sg.sg_maxseg) return EFBIG;
  sg.ss_paddr[sg.sg_nseg] = paddr;
  sg.ss_len[sg.sg_nseg++] = len;
  return 0;
}

/** Adds mapped memory, which here is one piece: the map is the direct map. */
function appendVirtual(sg: Sglist, va: number, len: number): Errno {
  return appendRange(sg, va + ramBase, len);
}

/** Adds the bytes [off, off + len) of a page list, header and trailer among them. */
function appendExtPgs(sg: Sglist, pgs: MbufExtPgs, off: number, len: number): Errno {
  let error: Errno = 0;
  if (off < pgs.hdr_len) {
    const n = Math.min(pgs.hdr_len - off, len);
    error = appendVirtual(sg, pgs.hdr + off, n);
    len -= n;
    off = 0;
  } else {
    off -= pgs.hdr_len;
  }
  let pgoff = pgs.first_pg_off;
  for (let i = 0; i < pgs.npgs && len > 0 && error === 0; i++, pgoff = 0) {
    const whole = mbuf_ext_pg_len(pgs, i, pgoff);
    if (off >= whole) {
      off -= whole;
      continue;
    }
    const n = Math.min(whole - off, len);
    error = appendRange(sg, pgs.pa[pgs.pa0 + i]! + pgoff + off, n);
    len -= n;
    off = 0;
  }
  if (len === 0 || error !== 0) return error;
  KASSERT(off + len <= pgs.trail_len, 'sglist_append_ext_pgs: beyond the storage');
  return appendVirtual(sg, pgs.trail + off, len);
}

// What an append that fails puts back: only its last segment and their number can have changed.
let savedNseg = 0;
let savedLen = 0;

function save(sg: Sglist): void {
  savedNseg = sg.sg_nseg;
  savedLen = savedNseg > 0 ? sg.ss_len[savedNseg - 1]! : 0;
}

function restoreOn(sg: Sglist, error: Errno): Errno {
  if (error === 0) return 0;
  sg.sg_nseg = savedNseg;
  if (savedNseg > 0) sg.ss_len[savedNseg - 1] = savedLen;
  return error;
}

/** Segments that `len` bytes of mapped memory need: one, unless there are none. @see sglist(9) */
export function sglist_count(_buf: Kva, len: number): number {
  return len === 0 ? 0 : 1;
}

/**
 * Segments that the bytes [off, off + len) of a page list need at most: pieces of the header, runs of
 * pages that follow each other in memory, pieces of the trailer. That one of these three may continue
 * another is not looked at, though an append would.
 * @see sys/kern/subr_sglist.c
 */
export function sglist_count_ext_pgs(pgs: MbufExtPgs, off: number, len: number): number {
  let nsegs = 0;
  if (off < pgs.hdr_len) {
    const n = Math.min(pgs.hdr_len - off, len);
    nsegs += sglist_count(pgs.hdr, n);
    len -= n;
    off = 0;
  } else {
    off -= pgs.hdr_len;
  }
  let next = -1;
  let pgoff = pgs.first_pg_off;
  for (let i = 0; i < pgs.npgs && len > 0; i++, pgoff = 0) {
    const whole = mbuf_ext_pg_len(pgs, i, pgoff);
    if (off >= whole) {
      off -= whole;
      continue;
    }
    const n = Math.min(whole - off, len);
    const paddr = pgs.pa[pgs.pa0 + i]! + pgoff + off;
    if (paddr !== next) nsegs++;
    next = paddr + n;
    len -= n;
    off = 0;
  }
  KASSERT(off + len <= pgs.trail_len || len === 0, 'sglist_count_ext_pgs: beyond the storage');
  return nsegs + sglist_count(pgs.trail, len);
}

/** `sglist_count_ext_pgs` of what an unmapped mbuf shows. @see sys/kern/subr_sglist.c */
export function sglist_count_mb_ext_pgs(m: Mbuf): number {
  KASSERT((m.m_flags & M_NOMAP) !== 0, 'sglist_count_mb_ext_pgs: mapped mbuf');
  return sglist_count_ext_pgs(m.m_ext.ext_pgs!, m.m_data, m.m_len);
}

/** Appends `len` bytes of mapped memory. EINVAL: a list for no segments; EFBIG. @see sglist(9) */
export function sglist_append(sg: Sglist, buf: Kva, len: number): Errno {
  if (sg.sg_maxseg === 0) return EINVAL;
  return appendVirtual(sg, buf, len); // one piece: it fits or changes nothing
}

/** Appends a range of physical memory. EINVAL: a list for no segments; EFBIG. @see sglist(9) */
export function sglist_append_phys(sg: Sglist, paddr: PhysAddr, len: number): Errno {
  if (sg.sg_maxseg === 0) return EINVAL;
  return appendRange(sg, paddr, len);
}

/**
 * Appends the bytes [off, off + len) of a page list. EINVAL: a list for no segments; EFBIG.
 * @see sys/kern/subr_sglist.c
 */
export function sglist_append_ext_pgs(
  sg: Sglist,
  pgs: MbufExtPgs,
  off: number,
  len: number,
): Errno {
  if (sg.sg_maxseg === 0) return EINVAL;
  save(sg);
  return restoreOn(sg, appendExtPgs(sg, pgs, off, len));
}

/** `sglist_append_ext_pgs` of what an unmapped mbuf shows. @see sys/kern/subr_sglist.c */
export function sglist_append_mb_ext_pgs(sg: Sglist, m: Mbuf): Errno {
  KASSERT((m.m_flags & M_NOMAP) !== 0, 'sglist_append_mb_ext_pgs: mapped mbuf');
  return sglist_append_ext_pgs(sg, m.m_ext.ext_pgs!, m.m_data, m.m_len);
}

/**
 * Appends a chain, mapped and unmapped mbufs alike; empty ones are skipped. Only reads `m0`, and only
 * its headers. EINVAL: a list for no segments; EFBIG: the driver may m_defrag and try again.
 * @see sglist(9)
 */
export function sglist_append_mbuf(sg: Sglist, m0: Mbuf): Errno {
  if (sg.sg_maxseg === 0) return EINVAL;
  save(sg);
  let error: Errno = 0;
  for (let m: Mbuf | null = m0; m !== null && error === 0; m = m.m_next) {
    if (m.m_len === 0) continue;
    error =
      (m.m_flags & M_NOMAP) !== 0
        ? appendExtPgs(sg, m.m_ext.ext_pgs!, m.m_data, m.m_len)
        : appendVirtual(sg, mtod(m), m.m_len);
  }
  return restoreOn(sg, error);
}
