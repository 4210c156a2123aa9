/**
 * Builds the mbufs of a round of sendfile, after sys/kern/kern_sendfile.c as of r349529. For TCP an
 * mbuf is unmapped and holds up to 19 pages. With kern.ipc.mb_use_ext_pgs=0, and for other
 * protocols, an mbuf holds one mapped page.
 */

import { PAGE_MASK, PAGE_SIZE } from '../vm/arena.ts';
import { sf_buf_alloc, sf_buf_free, sf_buf_kva } from '../vm/sf_buf.ts';
import { VM_PAGE_TO_PHYS } from '../vm/vm_page.ts';
import { m_extadd, m_get, mb_alloc_ext_pgs, mb_ext_pgs_check, mbParams } from './kern_mbuf.ts';
import {
  EXT_FLAG_CACHE_LAST,
  EXT_FLAG_NOCACHE,
  EXT_FLAG_SYNC,
  EXT_SFBUF,
  type Mbuf,
  MBUF_PEXT_MAX_PGS,
  M_NOTREADY,
  M_NOWAIT,
  M_RDONLY,
  MT_DATA,
} from './mbuf.ts';
import { IPPROTO_TCP } from './protosw.ts';
import { sendfile_free_mext, sendfile_free_mext_pg, type Sfio, sfstat } from './sendfile_io.ts';
import { SF_NOCACHE } from './sendfile_flags.ts';
import { round } from './sendfile_round.ts';
import { sendfilePageBytes } from './sendfile_size.ts';

/**
 * Whether the last page of a round of `bytes` is sent only in part and will be needed again: more
 * of the file follows, or the call asked for readahead.
 */
function keepLast(bytes: number): boolean {
  const partial = ((round.off + bytes) & PAGE_MASK) !== 0;
  return partial && (round.rem > bytes || round.flags >>> 16 !== 0);
}

/** Sets the flags of a page mbuf that follow from the flags of the call (SF_NOCACHE, SF_SYNC). */
function dress(m: Mbuf, notReady: number, cacheLast: number): void {
  m.m_flags |= notReady;
  if ((round.flags & SF_NOCACHE) !== 0) m.m_ext.ext_flags |= EXT_FLAG_NOCACHE | cacheLast;
  if (round.sync === null) return;
  m.m_ext.ext_flags |= EXT_FLAG_SYNC;
  m.m_ext.ext_arg2 = round.sync;
  round.sync.count++;
}

function buildExtPgs(sfio: Sfio, npages: number, bytes: number, notReady: number): number {
  const { pages, off } = round;
  let tail: Mbuf | null = null;
  for (let i = 0; i < npages;) {
    const m = mb_alloc_ext_pgs(M_NOWAIT, false, sendfile_free_mext_pg);
    if (m === null) return i;
    const pgs = m.m_ext.ext_pgs!;
    pgs.first_pg_off = i === 0 ? off & PAGE_MASK : 0;
    const n = Math.min(npages - i, MBUF_PEXT_MAX_PGS);
    const { pa, pa0 } = pgs;
    for (let k = 0; k < n; k++) pa[pa0 + k] = VM_PAGE_TO_PHYS(pages[i + k]!);
    pgs.npgs = n;
    pgs.last_pg_len = sendfilePageBytes(i + n - 1, npages, off, bytes);
    const first = n === 1 ? 0 : sendfilePageBytes(i, npages, off, bytes) - PAGE_SIZE;
    m.m_len = (n - 1) * PAGE_SIZE + first + pgs.last_pg_len;
    m.m_ext.ext_size = n * PAGE_SIZE;
    i += n;
    if (notReady !== 0) pgs.nrdy = pgs.npgs;
    mb_ext_pgs_check(pgs);
    dress(m, notReady, i === npages && keepLast(bytes) ? EXT_FLAG_CACHE_LAST : 0);
    if (tail === null) sfio.m = m;
    else tail.m_next = m;
    tail = m;
  }
  return npages;
}

function buildMapped(sfio: Sfio, npages: number, bytes: number, notReady: number): number {
  const { pages, off } = round;
  let tail: Mbuf | null = null;
  for (let i = 0; i < npages; i++) {
    const sf = sf_buf_alloc(pages[i]!);
    if (sf === null) {
      round.noSfBuf = true;
      sfstat.sf_allocfail++;
      return i;
    }
    const m = m_get(M_NOWAIT, MT_DATA);
    if (m === null) {
      sf_buf_free(sf);
      return i;
    }
    const buf = sf_buf_kva(sf);
    m_extadd(m, buf, PAGE_SIZE, sendfile_free_mext, sf, null, M_RDONLY, EXT_SFBUF);
    if (i === 0) m.m_data += off & PAGE_MASK;
    m.m_len = sendfilePageBytes(i, npages, off, bytes);
    dress(m, notReady, 0);
    if (i === npages - 1 && keepLast(bytes)) m.m_ext.ext_flags &= ~EXT_FLAG_NOCACHE;
    if (tail === null) sfio.m = m;
    else tail.m_next = m;
    tail = m;
  }
  return npages;
}

/**
 * Builds the mbufs for `bytes` bytes in the round's first `npages` pages and stores the chain in
 * `sfio.m`. The mbufs are M_NOTREADY if `sfio` has reads in flight. Returns the number of pages for
 * which there was memory; unwires the others.
 */
export function sendfileBuild(sfio: Sfio, npages: number, bytes: number): number {
  const notReady = sfio.nios > 1 ? M_NOTREADY : 0;
  const mapped = !mbParams.mb_use_ext_pgs || round.so!.so_proto.pr_protocol !== IPPROTO_TCP;
  round.noSfBuf = false;
  const built = mapped
    ? buildMapped(sfio, npages, bytes, notReady)
    : buildExtPgs(sfio, npages, bytes, notReady);
  sfio.npages = built;
  round.release(built, npages);
  return built;
}
