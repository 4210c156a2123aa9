/**
 * sglist(9), after sys/kern/subr_sglist.c as of r349529: a list of physical segments with a fixed
 * capacity. In FreeBSD drivers such as vtnet use it instead of bus_dma. Unmapped mbufs are appended
 * by their page lists. An append that does not fit leaves the list unchanged. Left out: reference
 * counts, user memory, bios, and joining, splitting and slicing lists. No driver here needs an
 * sglist.
 */

import { EFBIG, EINVAL, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import type { Kva, PhysAddr } from '../sys/types.ts';
import { ramBase } from '../vm/arena.ts';
import { type Mbuf, type MbufExtPgs, mbuf_ext_pg_len, M_NOMAP, mtod } from './mbuf.ts';

/**
 * Segments of physical memory; the first sg_nseg entries of the arrays are valid.
 * @see sglist(9)
 */
export class Sglist {
  /** FreeBSD's sg_segs, with one array for each field. */
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

/**
 * An empty list for `nsegs` segments. Unlike FreeBSD's, it cannot fail.
 * Part of the sglist(9) library: the stack itself does not call it.
 * @see sglist(9)
 */
export function sglist_alloc(nsegs: number): Sglist {
  return new Sglist(nsegs);
}

/**
 * Empties the list.
 * Part of the sglist(9) library: the stack itself does not call it.
 * @see sglist(9)
 */
export function sglist_reset(sg: Sglist): void {
  sg.sg_nseg = 0;
}

/**
 * Bytes of all segments.
 * Part of the sglist(9) library: the stack itself does not call it.
 * @see sglist(9)
 */
export function sglist_length(sg: Sglist): number {
  let len = 0;
  for (let i = 0; i < sg.sg_nseg; i++) len += sg.ss_len[i]!;
  return len;
}

/**
 * Appends a segment, or extends the last segment if the new one directly follows it in memory.
 * EFBIG: the list is full.
 */
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

/**
 * Appends mapped memory. It is always one segment, because kernel addresses are in the direct map.
 */
function appendVirtual(sg: Sglist, va: number, len: number): Errno {
  return appendRange(sg, va + ramBase, len);
}

/** Appends the bytes [off, off + len) of a page list, header and trailer included. */
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

// State that a failed append restores: the number of segments and the length of the last one.
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

/** Number of segments for `len` bytes of mapped memory: 1, or 0 if `len` is 0. @see sglist(9) */
export function sglist_count(_buf: Kva, len: number): number {
  return len === 0 ? 0 : 1;
}

/**
 * Upper bound of the segments for the bytes [off, off + len) of a page list: one for header bytes,
 * one for each run of contiguous pages, one for trailer bytes. An append may need fewer, because it
 * also joins the header, the pages and the trailer where they are contiguous.
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

/**
 * `sglist_count_ext_pgs` for the data of an unmapped mbuf.
 * Part of the sglist(9) library: the stack itself does not call it.
 * @see sys/kern/subr_sglist.c
 */
export function sglist_count_mb_ext_pgs(m: Mbuf): number {
  KASSERT((m.m_flags & M_NOMAP) !== 0, 'sglist_count_mb_ext_pgs: mapped mbuf');
  return sglist_count_ext_pgs(m.m_ext.ext_pgs!, m.m_data, m.m_len);
}

/**
 * Appends `len` bytes of mapped memory. EINVAL: the list has capacity 0; EFBIG: the list is full.
 * Part of the sglist(9) library: the stack itself does not call it.
 * @see sglist(9)
 */
export function sglist_append(sg: Sglist, buf: Kva, len: number): Errno {
  if (sg.sg_maxseg === 0) return EINVAL;
  return appendVirtual(sg, buf, len); // one segment: a failure changes nothing
}

/**
 * Appends a range of physical memory. EINVAL: the list has capacity 0; EFBIG: the list is full.
 * Part of the sglist(9) library: the stack itself does not call it.
 * @see sglist(9)
 */
export function sglist_append_phys(sg: Sglist, paddr: PhysAddr, len: number): Errno {
  if (sg.sg_maxseg === 0) return EINVAL;
  return appendRange(sg, paddr, len);
}

/**
 * Appends the bytes [off, off + len) of a page list. EINVAL: the list has capacity 0; EFBIG: they
 * do not fit.
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

/**
 * `sglist_append_ext_pgs` for the data of an unmapped mbuf.
 * Part of the sglist(9) library: the stack itself does not call it.
 * @see sys/kern/subr_sglist.c
 */
export function sglist_append_mb_ext_pgs(sg: Sglist, m: Mbuf): Errno {
  KASSERT((m.m_flags & M_NOMAP) !== 0, 'sglist_append_mb_ext_pgs: mapped mbuf');
  return sglist_append_ext_pgs(sg, m.m_ext.ext_pgs!, m.m_data, m.m_len);
}

/**
 * Appends the data of a chain of mapped and unmapped mbufs; skips empty mbufs. Does not change `m0`
 * and does not read its data. EINVAL: the list has capacity 0; EFBIG: the chain does not fit, and
 * the driver may call m_defrag and retry.
 * Part of the sglist(9) library: the stack itself does not call it.
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
