/**
 * Copies program data into mbufs, after m_uiotombuf and m_uiotombuf_nomap of sys/kern/uipc_mbuf.c:
 * into ordinary mbufs, or into unmapped mbufs over anonymous pages. FreeBSD uses the unmapped form
 * for kTLS; tapnic does not use it. Left out: sleeping for memory.
 */

import { KASSERT } from '../sys/kassert.ts';
import type { PhysAddr } from '../sys/types.ts';
import { PAGE_SIZE } from '../vm/arena.ts';
import { UIO_WRITE, type Uio, uiomove, uiomove_fromphys } from '../vm/uio.ts';
import {
  NOPAGE,
  PHYS_TO_VM_PAGE,
  vm_page_alloc_noobj,
  VM_PAGE_TO_PHYS,
  vm_page_unwire,
} from '../vm/vm_page.ts';
import { m_freem, m_getm2, mb_alloc_ext_pgs, mb_ext_pgs_check } from './kern_mbuf.ts';
import {
  type Mbuf,
  MBUF_PEXT_FLAG_ANON,
  MBUF_PEXT_MAX_PGS,
  MHLEN,
  M_NOMAP,
  M_PKTHDR,
  MT_DATA,
  mtod,
  M_TRAILINGSPACE,
} from './mbuf.ts';

/**
 * Free callback of m_uiotombuf_nomap's mbufs: unwires and frees their pages.
 * @see sys/kern/uipc_mbuf.c
 */
function mb_free_mext_pgs(m: Mbuf): void {
  const pgs = m.m_ext.ext_pgs!;
  for (let i = 0; i < pgs.npgs; i++)
    vm_page_unwire(PHYS_TO_VM_PAGE(pgs.pa[pgs.pa0 + i]! as PhysAddr), false);
}

/**
 * Adds new pages for `len` bytes to the empty unmapped mbuf `m`. Returns false if memory runs out.
 */
function addPages(m: Mbuf, len: number): boolean {
  const pgs = m.m_ext.ext_pgs!;
  pgs.flags = MBUF_PEXT_FLAG_ANON;
  for (let left = len; left > 0; left -= pgs.last_pg_len) {
    const page = vm_page_alloc_noobj();
    if (page === NOPAGE) return false;
    pgs.pa[pgs.pa0 + pgs.npgs++] = VM_PAGE_TO_PHYS(page);
    pgs.last_pg_len = Math.min(left, PAGE_SIZE);
    m.m_ext.ext_size += PAGE_SIZE;
    mb_ext_pgs_check(pgs);
  }
  m.m_len = len;
  return true;
}

/**
 * Copies `len` bytes (0: all) of `uio` into new unmapped mbufs of at most `maxseg` bytes each (0:
 * 19 pages). Every page is full, except possibly the last one of each mbuf. With M_PKTHDR in
 * `flags` the chain is a packet. Returns null and leaves `uio` unchanged if there is no memory. The
 * caller owns the chain.
 * @see sys/kern/uipc_mbuf.c
 */
export function m_uiotombuf_nomap(
  uio: Uio,
  how: number,
  len: number,
  maxseg: number,
  flags: number,
): Mbuf | null {
  KASSERT(uio.uio_rw === UIO_WRITE, 'm_uiotombuf_nomap: not a write');
  const most = MBUF_PEXT_MAX_PGS * PAGE_SIZE;
  const seg = maxseg === 0 ? most : maxseg;
  KASSERT(seg > 0 && seg <= most, 'm_uiotombuf_nomap: maxseg');
  const total = len > 0 ? Math.min(uio.uio_resid, len) : uio.uio_resid;
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let left = total;
  // Allocate all memory before reading uio: on failure uio must be unchanged.
  do {
    const pkt: boolean = (flags & M_PKTHDR) !== 0 && top === null;
    const m: Mbuf | null = mb_alloc_ext_pgs(how, pkt, mb_free_mext_pgs);
    if (m !== null) {
      if (tail === null) top = m;
      else tail.m_next = m;
      tail = m;
    }
    if (m === null || !addPages(m, Math.min(left, seg))) {
      m_freem(top);
      return null;
    }
    left -= m.m_len;
  } while (left > 0);
  for (let m = top; m !== null; m = m.m_next) {
    const pgs = m.m_ext.ext_pgs!;
    uiomove_fromphys(pgs.pa, pgs.pa0, 0, m.m_len, uio);
  }
  if ((flags & M_PKTHDR) !== 0) top!.m_pkthdr.len = total;
  return top;
}

/**
 * Copies `len` bytes (0: all) of `uio` into new mbufs. The data starts `align` bytes into the first
 * mbuf. With M_PKTHDR in `flags` the chain is a packet. With M_NOMAP this is m_uiotombuf_nomap and
 * `align` is its `maxseg`. Returns null and leaves `uio` unchanged if there is no memory or `align`
 * is MHLEN or more. The caller owns the chain.
 * @see mbuf(9)
 */
export function m_uiotombuf(
  uio: Uio,
  how: number,
  len: number,
  align: number,
  flags: number,
): Mbuf | null {
  if ((flags & M_NOMAP) !== 0) return m_uiotombuf_nomap(uio, how, len, align, flags);
  KASSERT(uio.uio_rw === UIO_WRITE, 'm_uiotombuf: not a write');
  if (align >= MHLEN) return null;
  const total = len > 0 ? Math.min(uio.uio_resid, len) : uio.uio_resid;
  // Allocate all memory before reading uio: on failure uio must be unchanged.
  const top = m_getm2(null, Math.max(total + align, 1), how, MT_DATA, flags);
  if (top === null) return null;
  top.m_data += align;
  let left = total;
  for (let m: Mbuf | null = top; m !== null; m = m.m_next) {
    m.m_len = Math.min(left, M_TRAILINGSPACE(m));
    uiomove(mtod(m), m.m_len, uio);
    left -= m.m_len;
  }
  KASSERT(left === 0, 'm_uiotombuf: too little room');
  if ((flags & M_PKTHDR) !== 0) top.m_pkthdr.len = total;
  return top;
}
