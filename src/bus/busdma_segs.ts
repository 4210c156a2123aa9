/**
 * Adds memory to the segments of a load and applies the tag's restrictions to each piece, after the
 * _bus_dmamap_addseg and load functions of sys/x86/x86/busdma_bounce.c.
 */

import { EFBIG, ENOMEM, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { count, R_DMA_EFBIG, R_DMA_ENOMEM } from '../sys/reason.ts';
import type { Mbuf, MbufExtPgs } from '../kern/mbuf.ts';
import { PAGE_SIZE, ramBase } from '../vm/arena.ts';
import type { BusDmamap, BusDmaSegs, BusDmaTag } from './bus_dma.ts';
import { type BouncePage, bounceTake } from './busdma_bounce.ts';

/**
 * Whether RAM at offset `off` must be bounced for this tag. An offset for the reason given at
 * addPhys.
 */
function mustBounce(tag: BusDmaTag, off: number): boolean {
  const addr = off + ramBase;
  for (let t: BusDmaTag | null = tag; t !== null; t = t.parent) {
    const outside = (addr > t.lowaddr && addr <= t.highaddr) || addr % t.alignment !== 0;
    if (outside && (t.filter === null || t.filter(t.filterarg, addr))) return true;
  }
  return false;
}

/**
 * Takes a bounce page to replace memory at `off`. If none is free, counts that and returns null.
 */
function bounce(map: BusDmamap, off: number, payload: boolean): BouncePage | null {
  const { tag } = map;
  const page = bounceTake(tag.zone!, off, tag.keepOffset, payload);
  if (page === null) {
    count(R_DMA_ENOMEM);
    return null;
  }
  if (map.bpagesLast === null) map.bpages = page;
  else map.bpagesLast.next = page;
  map.bpagesLast = page;
  return page;
}

/**
 * Adds `size` bytes of one page at offset `off` into RAM; `payload`: they are file data. Returns 0,
 * ENOMEM or EFBIG. Takes an offset, because V8 would allocate an address above 2^31 on its heap at
 * each call.
 */
function addPhys(
  map: BusDmamap,
  segs: BusDmaSegs,
  off: number,
  size: number,
  payload: boolean,
): Errno {
  const { tag } = map;
  const { boundary, maxsegsz } = tag;
  const { ds_addr, ds_len } = segs;
  while (size > 0) {
    let addr = off + ramBase;
    let s = size < maxsegsz ? size : maxsegsz;
    let page: BouncePage | null = null;
    if (map.mayBounce && mustBounce(tag, off)) {
      page = bounce(map, off, payload);
      if (page === null) return ENOMEM;
      addr = page.at + ramBase;
    }
    if (boundary !== 0) s = Math.min(s, boundary - (addr % boundary));
    if (page !== null) page.dataCount = s;
    const last = segs.nsegs - 1;
    const lastEnd = last >= 0 ? ds_addr[last]! + ds_len[last]! : -1;
    if (
      lastEnd === addr &&
      ds_len[last]! + s <= maxsegsz &&
      (boundary === 0 || Math.floor(ds_addr[last]! / boundary) === Math.floor(addr / boundary))
    ) {
      ds_len[last]! += s;
    } else {
      if (segs.nsegs >= tag.nsegments) {
        count(R_DMA_EFBIG);
        return EFBIG;
      }
      ds_addr[segs.nsegs] = addr;
      segs.addrLo[segs.nsegs] = addr;
      segs.addrHi[segs.nsegs] = addr / 0x100000000;
      ds_len[segs.nsegs] = s;
      segs.nsegs++;
    }
    off += s;
    size -= s;
  }
  return 0;
}

/**
 * Adds mapped memory: page by page, because pages that are adjacent in the map need not be adjacent
 * in RAM.
 */
export function addVirtual(
  map: BusDmamap,
  segs: BusDmaSegs,
  va: number,
  size: number,
  payload: boolean,
): Errno {
  const { maxsegsz, boundary } = map.tag;
  // A receive buffer: one segment. The map of all of RAM is linear, so only bounce pages split it.
  if (segs.nsegs === 0 && size <= maxsegsz && boundary === 0 && !map.mayBounce)
    return addPhys(map, segs, va, size, payload);
  while (size > 0) {
    const s = Math.min(size, PAGE_SIZE - (va % PAGE_SIZE));
    const error = addPhys(map, segs, va, s, payload);
    if (error !== 0) return error;
    va += s;
    size -= s;
  }
  return 0;
}

/**
 * Adds `len` bytes of the page list `pgs` from byte `at` of page `i` on. A map that needs no bounce
 * pages and has no boundary gets the same segments as by addPhys; the current one is kept in local
 * variables.
 */
function addPages(
  map: BusDmamap,
  segs: BusDmaSegs,
  pgs: MbufExtPgs,
  i: number,
  at: number,
  len: number,
): Errno {
  const { nsegments, maxsegsz, boundary } = map.tag;
  const { pa } = pgs;
  const plain = !map.mayBounce && boundary === 0 && maxsegsz >= PAGE_SIZE;
  const { ds_addr, ds_len } = segs;
  let n = segs.nsegs;
  let cur = n > 0 ? ds_len[n - 1]! : 0;
  let end = n > 0 ? ds_addr[n - 1]! + cur : -1;
  for (let k = pgs.pa0 + i; len > 0; k++) {
    const s = Math.min(PAGE_SIZE - at, len);
    if (!plain) {
      const error = addPhys(map, segs, pa[k]! - ramBase + at, s, true);
      if (error !== 0) return error;
    } else {
      const addr = pa[k]! + at;
      if (addr !== end || cur + s > maxsegsz) {
        if (n === nsegments) {
          count(R_DMA_EFBIG);
          return EFBIG;
        }
        cur = 0;
        ds_addr[n] = addr;
        segs.addrLo[n] = addr;
        segs.addrHi[n] = addr / 0x100000000;
        segs.nsegs = ++n;
      }
      cur += s;
      ds_len[n - 1] = cur;
      end = addr + s;
    }
    len -= s;
    at = 0;
  }
  return 0;
}

/** Bytes in the pages of `pgs`. */
function pageBytes({ npgs, first_pg_off, last_pg_len }: MbufExtPgs): number {
  return npgs > 1 ? (npgs - 1) * PAGE_SIZE - first_pg_off + last_pg_len : last_pg_len;
}

/** Adds the window of an unmapped mbuf: header bytes, pages by physical address, trailer bytes. */
export function addUnmapped(map: BusDmamap, segs: BusDmaSegs, m: Mbuf): Errno {
  const pgs = m.m_ext.ext_pgs!;
  let off = m.m_data;
  let len = m.m_len;
  if (off < pgs.hdr_len) {
    const n = Math.min(pgs.hdr_len - off, len);
    const error = addVirtual(map, segs, pgs.hdr + off, n, false);
    if (error !== 0) return error;
    len -= n;
    off = 0;
  } else {
    off -= pgs.hdr_len;
  }
  const n = Math.min(pageBytes(pgs) - off, len);
  if (n > 0) {
    const from = off + pgs.first_pg_off;
    const error = addPages(map, segs, pgs, Math.floor(from / PAGE_SIZE), from % PAGE_SIZE, n);
    if (error !== 0) return error;
    len -= n;
    off += n;
  }
  if (len === 0) return 0;
  off -= pageBytes(pgs);
  KASSERT(off + len <= pgs.trail_len, 'bus_dmamap_load_mbuf_sg: beyond the unmapped storage');
  return addVirtual(map, segs, pgs.trail + off, len, false);
}
