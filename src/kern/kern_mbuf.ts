/**
 * The mbuf allocator, after sys/kern/kern_mbuf.c as of r349529: zones and their limits, plain and
 * external mbufs, clusters, unmapped mbufs and their conversion. Left out: packet secondary zone
 * (its netstat line reads 0), 9k clusters (no code here allocates them), debugnet.
 */

import { KASSERT } from '../sys/kassert.ts';
import {
  count,
  R_CLUSTER_DENIED,
  R_COMPRESS,
  R_CONVERT_FAILED,
  R_EXTPGS_DENIED,
  R_MBUF_DENIED,
} from '../sys/reason.ts';
import { EBUSY, type Errno } from '../sys/errno.ts';
import { kva, type Kva, type PhysAddr } from '../sys/types.ts';
import { mem, PAGE_SIZE, ramBytes } from '../vm/arena.ts';
import { payloadReason, READ_SMALL } from '../vm/payload.ts';
import { sf_buf_alloc, sf_buf_free, sf_buf_kva, type SfBuf } from '../vm/sf_buf.ts';
import { PHYS_TO_VM_PAGE } from '../vm/vm_page.ts';
import {
  EXT_CLUSTER,
  EXT_FLAG_EMBREF,
  EXT_JUMBO16,
  EXT_JUMBOP,
  EXT_PGS,
  EXT_SFBUF,
  extHolder,
  type ExtFree,
  Mbuf,
  MbufExtPgs,
  mbuf_ext_pg_len,
  MBUF_PEXT_HDR_LEN,
  MBUF_PEXT_MAX_PGS,
  MBUF_PEXT_TRAIL_LEN,
  MCLBYTES,
  M_EOR,
  M_EXT,
  MHSIZE,
  MINCLSIZE,
  MJUM16BYTES,
  MJUMPAGESIZE,
  MLEN,
  M_NOMAP,
  M_PKTHDR,
  m_pktdat,
  M_RDONLY,
  M_SIZE,
  MSIZE,
  MT_DATA,
  MT_NOTMBUF,
} from './mbuf.ts';
import { UmaZone } from './uma.ts';
import { m_copydata } from './m_copydata.ts';
import { m_dup_pkthdr, m_pkthdr_init } from './m_pkthdr.ts';

const EXTPGS_SIZE = 256;
const EXTPGS_HDR_OFF = 160;
const EXTPGS_TRAIL_OFF = 192;
/**
 * Unlike FreeBSD, the zone of page lists has a limit, because all lists share one preallocated
 * array.
 */
const EXTPGS_MAX = 1 << 18;

const never = (): never => {
  throw new Error('mbinit has not run');
};
let zone_mbuf = new UmaZone<Mbuf>('mbuf', MSIZE, 0, never);
let zone_clust = new UmaZone<Kva>('mbuf_cluster', MCLBYTES, 0, never);
let zone_jumbop = new UmaZone<Kva>('mbuf_jumbo_page', MJUMPAGESIZE, 0, never);
let zone_jumbo16 = new UmaZone<Kva>('mbuf_jumbo_16k', MJUM16BYTES, 0, never);
let zone_extpgs = new UmaZone<MbufExtPgs>('mbuf_extpgs', EXTPGS_SIZE, 0, never);

/**
 * kern.ipc.mb_use_ext_pgs. Unlike r349529, on by default, because unmapped mbufs are what tapnic
 * exists to test.
 */
export const mbParams = { mb_use_ext_pgs: true };

/** Counters that FreeBSD does not have. */
export const mbEmulator = {
  /** Unmapped mbufs in use, including those that share storage. */
  unmappedCurrent: 0,
  /**
   * Chains with unmapped mbufs that mb_unmapped_to_ext converted, and chains it failed to convert.
   */
  conversions: 0,
  conversionFailures: 0,
};

/**
 * Builds the zones, with the limits FreeBSD computes from the size of memory (tuning(7)). Only the
 * machine's boot calls this, after `vm_init`.
 * @see sys/kern/kern_mbuf.c
 */
export function mbuf_init(): void {
  const maxmbufmem = ramBytes / 2;
  const nmbclusters = Math.floor(maxmbufmem / MCLBYTES / 4);
  const nmbjumbop = Math.floor(maxmbufmem / MJUMPAGESIZE / 4);
  const nmbjumbo16 = Math.floor(maxmbufmem / MJUM16BYTES / 6);
  const nclusters = nmbclusters + nmbjumbop + nmbjumbo16;
  const nmbufs = Math.max(Math.floor(maxmbufmem / MSIZE / 5), nclusters);
  const nextpgs = Math.min(EXTPGS_MAX, ramBytes / PAGE_SIZE);
  const pa = new Float64Array(nextpgs * MBUF_PEXT_MAX_PGS);
  zone_mbuf = new UmaZone('mbuf', MSIZE, nmbufs, (va) => new Mbuf(kva(va + MHSIZE)));
  zone_clust = new UmaZone('mbuf_cluster', MCLBYTES, nmbclusters, (va) => va);
  zone_jumbop = new UmaZone('mbuf_jumbo_page', MJUMPAGESIZE, nmbjumbop, (va) => va);
  zone_jumbo16 = new UmaZone('mbuf_jumbo_16k', MJUM16BYTES, nmbjumbo16, (va) => va);
  zone_extpgs = new UmaZone(
    'mbuf_extpgs',
    EXTPGS_SIZE,
    nextpgs,
    (va, i) =>
      new MbufExtPgs(
        pa,
        i * MBUF_PEXT_MAX_PGS,
        kva(va + EXTPGS_HDR_OFF),
        kva(va + EXTPGS_TRAIL_OFF),
      ),
  );
  mbEmulator.unmappedCurrent = 0;
  mbEmulator.conversions = 0;
  mbEmulator.conversionFailures = 0;
}

/** The zones, for netstat -m, sysctl and tests. */
export function mbufZones(): {
  mbuf: UmaZone<Mbuf>;
  clust: UmaZone<Kva>;
  jumbop: UmaZone<Kva>;
  jumbo16: UmaZone<Kva>;
  extpgs: UmaZone<MbufExtPgs>;
} {
  return {
    mbuf: zone_mbuf,
    clust: zone_clust,
    jumbop: zone_jumbop,
    jumbo16: zone_jumbo16,
    extpgs: zone_extpgs,
  };
}

function allocMbuf(type: number, flags: number): Mbuf | null {
  const m = zone_mbuf.alloc();
  if (m === null) {
    count(R_MBUF_DENIED);
    return null;
  }
  m.m_next = null;
  m.m_nextpkt = null;
  m.m_len = 0;
  m.m_type = type;
  m.m_flags = flags;
  m.m_data = m.m_dat;
  return m;
}

/** A plain mbuf of MLEN bytes, or null. The caller owns it. @see mbuf(9) */
export function m_get(_how: number, type: number): Mbuf | null {
  return allocMbuf(type, 0);
}

/** A packet-header mbuf of MHLEN bytes, or null. The caller owns it. @see mbuf(9) */
export function m_gethdr(_how: number, type: number): Mbuf | null {
  const m = allocMbuf(type, M_PKTHDR);
  if (m === null) return null;
  m.m_data = m_pktdat(m);
  m_pkthdr_init(m);
  return m;
}

function extInit(m: Mbuf, buf: Kva, size: number, type: number, free: ExtFree | null): void {
  const ext = m.m_ext;
  ext.ext_count = 1;
  ext.ext_cnt = null;
  ext.ext_buf = buf;
  ext.ext_pgs = null;
  ext.ext_size = size;
  ext.ext_type = type;
  ext.ext_flags = EXT_FLAG_EMBREF;
  ext.ext_free = free;
  ext.ext_arg1 = null;
  ext.ext_arg2 = null;
  m.m_flags |= M_EXT;
  m.m_data = buf;
}

/**
 * Attaches a 2 KiB cluster. If none is free, returns false and leaves `m` unchanged.
 * @see mbuf(9)
 */
export function m_clget(m: Mbuf, _how: number): boolean {
  KASSERT((m.m_flags & M_EXT) === 0, 'm_clget: already external');
  const cl = zone_clust.alloc();
  if (cl === null) {
    count(R_CLUSTER_DENIED);
    return false;
  }
  extInit(m, cl, MCLBYTES, EXT_CLUSTER, null);
  return true;
}

/**
 * An mbuf (with packet header if `flags` has M_PKTHDR) with a cluster of `size` bytes, MCLBYTES,
 * MJUMPAGESIZE or MJUM16BYTES, or null. The caller owns it.
 * @see mbuf(9)
 */
export function m_getjcl(how: number, type: number, flags: number, size: number): Mbuf | null {
  const m = (flags & M_PKTHDR) !== 0 ? m_gethdr(how, type) : m_get(how, type);
  if (m === null) return null;
  let zone = zone_clust;
  let ext = EXT_CLUSTER;
  if (size === MJUMPAGESIZE) {
    zone = zone_jumbop;
    ext = EXT_JUMBOP;
  } else if (size === MJUM16BYTES) {
    zone = zone_jumbo16;
    ext = EXT_JUMBO16;
  } else {
    KASSERT(size === MCLBYTES, 'm_getjcl: no zone of that size');
  }
  const cl = zone.alloc();
  if (cl === null) {
    count(R_CLUSTER_DENIED);
    m_free(m);
    return null;
  }
  extInit(m, cl, size, ext, null);
  return m;
}

/** `m_getjcl` for the 2 KiB cluster. @see mbuf(9) */
export function m_getcl(how: number, type: number, flags: number): Mbuf | null {
  return m_getjcl(how, type, flags, MCLBYTES);
}

/**
 * Allocates as few mbufs and clusters as hold `len` bytes. They are appended to the chain `m`. If
 * `m` is null they form a new chain, with packet header if `flags` has M_PKTHDR. M_EOR is set on
 * the last mbuf. The new mbufs are empty (m_len 0). Returns the head, or null if memory runs out;
 * `m` is then unchanged.
 * @see mbuf(9)
 */
export function m_getm2(
  m: Mbuf | null,
  len: number,
  how: number,
  type: number,
  flags: number,
): Mbuf | null {
  KASSERT(len >= 0, 'm_getm2: negative len');
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  while (len > 0) {
    const hdr: number = m === null && top === null ? flags & M_PKTHDR : 0;
    let n: Mbuf | null;
    if (len > MCLBYTES) n = m_getjcl(how, type, hdr, MJUMPAGESIZE);
    else if (len >= MINCLSIZE) n = m_getjcl(how, type, hdr, MCLBYTES);
    else n = hdr !== 0 ? m_gethdr(how, type) : m_get(how, type);
    if (n === null) {
      m_freem(top);
      return null;
    }
    len -= M_SIZE(n);
    if (tail === null) top = n;
    else tail.m_next = n;
    tail = n;
  }
  if (tail !== null && (flags & M_EOR) !== 0) tail.m_flags |= M_EOR;
  if (m === null) return top;
  let last = m;
  while (last.m_next !== null) last = last.m_next;
  last.m_next = top;
  return m;
}

/**
 * Attaches the caller's storage of `size` bytes at `buf`. When the last reference is dropped,
 * `free` is called with the mbuf that holds the reference count. `flags` (M_RDONLY) are or-ed into
 * m_flags.
 * @see mbuf(9)
 */
export function m_extadd(
  m: Mbuf,
  buf: Kva,
  size: number,
  free: ExtFree,
  arg1: object | null,
  arg2: object | null,
  flags: number,
  type: number,
): void {
  extInit(m, buf, size, type, free);
  m.m_flags |= flags;
  m.m_ext.ext_arg1 = arg1;
  m.m_ext.ext_arg2 = arg2;
}

/**
 * Allocates an unmapped mbuf without pages. The caller adds the pages and increases m_len and
 * ext_size. Returns null if no mbuf or no page list is free. `free` releases the pages.
 * @see sys/kern/kern_mbuf.c
 */
export function mb_alloc_ext_pgs(how: number, pkthdr: boolean, free: ExtFree): Mbuf | null {
  const m = pkthdr ? m_gethdr(how, MT_DATA) : m_get(how, MT_DATA);
  if (m === null) return null;
  const pgs = zone_extpgs.alloc();
  if (pgs === null) {
    count(R_EXTPGS_DENIED);
    m_free(m);
    return null;
  }
  pgs.npgs = 0;
  pgs.nrdy = 0;
  pgs.hdr_len = 0;
  pgs.trail_len = 0;
  pgs.first_pg_off = 0;
  pgs.last_pg_len = 0;
  pgs.flags = 0;
  extInit(m, kva(0), 0, EXT_PGS, free);
  m.m_flags |= M_RDONLY | M_NOMAP;
  m.m_ext.ext_pgs = pgs;
  mbEmulator.unmappedCurrent++;
  return m;
}

/** Panics if the page list is inconsistent. @see sys/kern/kern_mbuf.c */
export function mb_ext_pgs_check(pgs: MbufExtPgs): void {
  KASSERT(pgs.npgs > 0, 'ext_pgs with no pages');
  KASSERT(pgs.npgs <= MBUF_PEXT_MAX_PGS, 'ext_pgs with too many pages');
  KASSERT(pgs.nrdy <= pgs.npgs, 'ext_pgs with too many ready pages');
  KASSERT(pgs.first_pg_off < PAGE_SIZE, 'ext_pgs with too large page offset');
  KASSERT(pgs.last_pg_len > 0, 'ext_pgs with zero last page length');
  KASSERT(pgs.last_pg_len <= PAGE_SIZE, 'ext_pgs with too large last page length');
  KASSERT(
    pgs.npgs > 1 || pgs.first_pg_off + pgs.last_pg_len <= PAGE_SIZE,
    'ext_pgs with a single page that is too long',
  );
  KASSERT(pgs.hdr_len <= MBUF_PEXT_HDR_LEN, 'ext_pgs with too large header length');
  KASSERT(pgs.trail_len <= MBUF_PEXT_TRAIL_LEN, 'ext_pgs with too large trailer length');
}

function freeMbuf(m: Mbuf): void {
  KASSERT(m.m_type !== MT_NOTMBUF, 'm_free: free already');
  m.m_type = MT_NOTMBUF;
  m.m_next = null;
  m.m_nextpkt = null;
  zone_mbuf.free(m);
}

/** Frees external storage and then the mbuf `holder`, which holds its reference count. */
function releaseStorage(holder: Mbuf): void {
  const ext = holder.m_ext;
  switch (ext.ext_type) {
    case EXT_CLUSTER:
      zone_clust.free(ext.ext_buf);
      break;
    case EXT_JUMBOP:
      zone_jumbop.free(ext.ext_buf);
      break;
    case EXT_JUMBO16:
      zone_jumbo16.free(ext.ext_buf);
      break;
    case EXT_PGS:
      ext.ext_free!(holder);
      zone_extpgs.free(ext.ext_pgs!);
      ext.ext_pgs = null;
      break;
    default:
      ext.ext_free!(holder);
  }
  freeMbuf(holder);
}

/**
 * Drops m's reference on its external storage and frees `m`. If `m` holds the reference count, its
 * memory is kept until the count is 0.
 * @see sys/kern/kern_mbuf.c
 */
function mb_free_ext(m: Mbuf): void {
  KASSERT((m.m_flags & M_EXT) !== 0, 'mb_free_ext: no external storage');
  if ((m.m_flags & M_NOMAP) !== 0) mbEmulator.unmappedCurrent--;
  const holder = extHolder(m);
  KASSERT(holder.m_ext.ext_count > 0, 'mb_free_ext: storage is free');
  const shadow = holder !== m;
  if (--holder.m_ext.ext_count === 0) releaseStorage(holder);
  if (shadow) freeMbuf(m);
}

/** Frees one mbuf and returns the next. @see mbuf(9) */
export function m_free(m: Mbuf): Mbuf | null {
  const n = m.m_next;
  if ((m.m_flags & M_EXT) !== 0) mb_free_ext(m);
  else freeMbuf(m);
  return n;
}

/** Frees a chain. @see mbuf(9) */
export function m_freem(m: Mbuf | null): void {
  while (m !== null) m = m_free(m);
}

/** Frees the packets of a list linked by m_nextpkt. @see sys/kern/kern_mbuf.c */
export function m_freemp(m: Mbuf | null): void {
  while (m !== null) {
    const next: Mbuf | null = m.m_nextpkt;
    m_freem(m);
    m = next;
  }
}

/**
 * Frees mbufs whose I/O failed: `units` units from `m` on. A unit is one page of an unmapped mbuf,
 * or one whole mbuf of any other kind. Frees each mbuf when all its units are counted. Does not
 * touch the mbufs behind the last unit.
 * @see sys/kern/kern_mbuf.c
 */
export function mb_free_notready(m: Mbuf | null, units: number): void {
  for (let i = 0; i < units; i++) {
    KASSERT(m !== null, 'mb_free_notready: fewer units than counted');
    if ((m.m_flags & M_EXT) !== 0 && m.m_ext.ext_type === EXT_PGS) {
      if (--m.m_ext.ext_pgs!.nrdy !== 0) continue;
    }
    m = m_free(m);
  }
}

// Scratch mbuf: holds m_ext while mb_unmapped_compress copies the data. It has no storage of its
// own.
const compressTmp = new Mbuf(kva(0));

/** Copies all fields of m_ext from `from` to `to`. Reference counts are not changed. */
function extMove(to: Mbuf, from: Mbuf): void {
  const d = to.m_ext;
  const s = from.m_ext;
  d.ext_count = s.ext_count;
  d.ext_cnt = s.ext_cnt;
  d.ext_buf = s.ext_buf;
  d.ext_pgs = s.ext_pgs;
  d.ext_size = s.ext_size;
  d.ext_type = s.ext_type;
  d.ext_flags = s.ext_flags;
  d.ext_free = s.ext_free;
  d.ext_arg1 = s.ext_arg1;
  d.ext_arg2 = s.ext_arg2;
}

/**
 * Converts a small unmapped mbuf (no packet header, at most MLEN bytes) to an ordinary one in
 * place, so that a few unacknowledged bytes do not keep a whole page wired. Returns EBUSY and
 * changes nothing if the storage is shared.
 * @see sys/kern/kern_mbuf.c
 */
export function mb_unmapped_compress(m: Mbuf): Errno {
  KASSERT((m.m_flags & M_NOMAP) !== 0 && m.m_ext.ext_type === EXT_PGS, 'compress: not unmapped');
  KASSERT((m.m_flags & M_PKTHDR) === 0, 'compress: packet header');
  KASSERT(m.m_len <= MLEN, 'compress: too long');
  // Unlike FreeBSD, also refuse an mbuf that does not hold the count itself, even when the count is
  // 1: the free callback is stored in the holder.
  if ((m.m_ext.ext_flags & EXT_FLAG_EMBREF) === 0 || m.m_ext.ext_count !== 1) return EBUSY;
  const tmp = compressTmp;
  tmp.m_flags = m.m_flags;
  tmp.m_data = m.m_data;
  tmp.m_len = m.m_len;
  extMove(tmp, m);
  m.m_flags &= ~(M_EXT | M_RDONLY | M_NOMAP);
  m.m_data = m.m_dat;
  const before = payloadReason(READ_SMALL);
  m_copydata(tmp, 0, m.m_len, m.m_dat);
  payloadReason(before);
  // Call the free callback last: freeing pages can wake a waiter that calls this function again.
  const pgs = tmp.m_ext.ext_pgs!;
  tmp.m_ext.ext_free!(tmp);
  zone_extpgs.free(pgs);
  mbEmulator.unmappedCurrent--;
  count(R_COMPRESS);
  return 0;
}

/**
 * Free callback of an mbuf made by mapPart: unmaps the page and drops the reference on the page
 * list.
 */
function mb_unmapped_free_mext(m: Mbuf): void {
  sf_buf_free(m.m_ext.ext_arg1 as SfBuf);
  const holder = m.m_ext.ext_arg2 as Mbuf;
  if (--holder.m_ext.ext_count === 0) releaseStorage(holder);
}

/**
 * Copies `len` header or trailer bytes at `src` into a new mbuf, with packet header if `pkt`. Null
 * if none is free.
 */
function copyPart(src: Kva, len: number, pkt: boolean): Mbuf | null {
  const m = pkt ? m_gethdr(0, MT_DATA) : m_get(0, MT_DATA);
  if (m === null) return null;
  mem.copyWithin(m.m_data, src, src + len);
  m.m_len = len;
  return m;
}

/**
 * Maps `len` bytes of one page of `holder`'s list into a new read-only mbuf. Null if no mbuf or
 * sf_buf is free.
 */
function mapPart(
  holder: Mbuf,
  pa: PhysAddr,
  pgoff: number,
  len: number,
  pkt: boolean,
): Mbuf | null {
  const m = pkt ? m_gethdr(0, MT_DATA) : m_get(0, MT_DATA);
  if (m === null) return null;
  const sf = sf_buf_alloc(PHYS_TO_VM_PAGE(pa));
  if (sf === null) {
    m_free(m);
    return null;
  }
  m_extadd(m, sf_buf_kva(sf), PAGE_SIZE, mb_unmapped_free_mext, sf, holder, M_RDONLY, EXT_SFBUF);
  m.m_data += pgoff;
  m.m_len = len;
  return m;
}

/**
 * Converts one unmapped mbuf to a chain of mapped ones. Header and trailer bytes are copied. Each
 * page is mapped into its own mbuf, which holds a reference on the page list. Consumes `m`; does
 * not touch the mbufs behind it. Returns null on failure and for an empty mbuf. Unlike FreeBSD,
 * copies m's packet header to the first new mbuf: m_split inside unmapped data makes packets whose
 * first mbuf is unmapped.
 * @see sys/kern/kern_mbuf.c
 */
export function _mb_unmapped_to_ext(m: Mbuf): Mbuf | null {
  const hdr = (m.m_flags & M_PKTHDR) !== 0;
  const pgs = m.m_ext.ext_pgs!;
  const holder = extHolder(m);
  let off = m.m_data;
  let len = m.m_len;
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let refs = 0;
  let failed = false;
  const nparts = pgs.npgs + 2;
  for (let i = 0; i < nparts && len > 0 && !failed; i++) {
    const page = i - 1; // part 0 is the header, the last the trailer
    const isPage = page >= 0 && page < pgs.npgs;
    const pgoff = page === 0 ? pgs.first_pg_off : 0;
    const whole = isPage
      ? mbuf_ext_pg_len(pgs, page, pgoff)
      : page < 0
        ? pgs.hdr_len
        : pgs.trail_len;
    if (off >= whole) {
      off -= whole;
      continue;
    }
    const n = Math.min(whole - off, len);
    const part: Mbuf | null = isPage
      ? mapPart(holder, pgs.pa[pgs.pa0 + page]! as PhysAddr, pgoff + off, n, hdr && top === null)
      : copyPart(kva((page < 0 ? pgs.hdr : pgs.trail) + off), n, hdr && top === null);
    if (part === null) {
      failed = true;
      break;
    }
    if (isPage) refs++;
    if (tail !== null) {
      tail.m_next = part;
    } else {
      top = part;
      if (hdr) m_dup_pkthdr(part, m);
    }
    tail = part;
    off = 0;
    len -= n;
  }
  // Add the references of the new mbufs before m_free drops m's, so that the page list is not
  // freed.
  holder.m_ext.ext_count += refs;
  m_free(m);
  if (!failed) return top;
  m_freem(top);
  return null;
}

/**
 * Replaces every unmapped mbuf of a chain by mapped ones; mapped mbufs stay as they are. Consumes
 * `top`. If no mbuf or sf_buf is free, frees the whole chain and returns null.
 * @see sys/kern/kern_mbuf.c
 */
export function mb_unmapped_to_ext(top: Mbuf): Mbuf | null {
  let head: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let m: Mbuf | null = top;
  let converted = false;
  while (m !== null) {
    const next: Mbuf | null = m.m_next;
    m.m_next = null;
    let piece: Mbuf | null = m;
    if ((m.m_flags & M_NOMAP) !== 0) {
      converted = true;
      piece = _mb_unmapped_to_ext(m);
      if (piece === null) {
        m_freem(head);
        m_freem(next);
        mbEmulator.conversionFailures++;
        count(R_CONVERT_FAILED);
        return null;
      }
    }
    if (tail === null) head = piece;
    else tail.m_next = piece;
    tail = piece;
    while (tail.m_next !== null) tail = tail.m_next;
    m = next;
  }
  if (converted) mbEmulator.conversions++;
  return head;
}
