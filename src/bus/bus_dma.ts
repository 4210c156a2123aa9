/**
 * bus_dma, after sys/kern/subr_bus_dma.c and sys/x86/x86/busdma_bounce.c: a tag holds the address
 * restrictions of a device, a map holds one loaded mapping, and a load turns an mbuf chain into
 * physical segments. It takes the pages of unmapped mbufs from their page lists, without a mapping.
 * Memory that the device cannot reach is bounced (busdma_bounce.ts). Unlike FreeBSD: a load fills a
 * struct that the caller preallocated, before it returns. No load defers (in FreeBSD, only loads of
 * mbufs never do): it fails with ENOMEM if no bounce page is free. Left out: uio loads.
 */

import { EBUSY, EINVAL, ENOMEM, type Errno } from '../sys/errno.ts';
import { failPoint } from '../sys/fail_point.ts';
import { KASSERT } from '../sys/kassert.ts';
import { kva, type Kva } from '../sys/types.ts';
import { EXT_SFBUF, type Mbuf, M_EXT, M_NOMAP, M_PKTHDR, mtod } from '../kern/mbuf.ts';
import { mem, PAGE_MASK, PAGE_SIZE, ramBase, ramBytes } from '../vm/arena.ts';
import { NOPAGE, vm_page_alloc_contig, VM_PAGE_TO_PHYS, vm_page_unwire } from '../vm/vm_page.ts';
import {
  bounceCopyIn,
  bounceCopyOut,
  bounceFree,
  bounceGrow,
  bounceInit,
  bouncePagesMax,
  type BouncePage,
  type BounceZone,
  bounceZoneOf,
} from './busdma_bounce.ts';
import { checkSync, checkUnload, dmaCheck, dmaCheckInit } from './busdma_check.ts';
import { addUnmapped, addVirtual } from './busdma_segs.ts';
import {
  BUS_DMASYNC_POSTREAD,
  BUS_DMASYNC_POSTWRITE,
  BUS_DMASYNC_PREREAD,
  BUS_DMASYNC_PREWRITE,
} from './busdma_sync.ts';
import { busDmaZoneSysctl } from './busdma_sysctl.ts';
import { watching, watchLoad, watchStart, watchUnload, type Window } from './busdma_watch.ts';
import { iommu } from './iommu.ts';

export const BUS_DMA_NOWAIT = 0x1;
export const BUS_DMA_ALLOCNOW = 0x2;
export const BUS_DMA_ZERO = 0x8;
export const BUS_DMA_KEEP_PG_OFFSET = 0x400;

export { BUS_DMASYNC_POSTREAD, BUS_DMASYNC_POSTWRITE, BUS_DMASYNC_PREREAD, BUS_DMASYNC_PREWRITE };

export const BUS_SPACE_MAXADDR_32BIT = 0xffffffff;
/** The highest address that a JavaScript number holds exactly; FreeBSD's has 64 bits. */
export const BUS_SPACE_MAXADDR = Number.MAX_SAFE_INTEGER;

/** Index of the last histogram entry, which counts loads of that many segments or more. */
const HIST_MAX = 128;

/** Counters over all tags (ours: FreeBSD counts only bounces). */
export const dmaStats = {
  /** Successful loads, and their segments. */
  loads: 0,
  segments: 0,
  /** Bounce pages that those loads used. */
  bounced: 0,
  /** Chains that a driver compacted after EFBIG. */
  defrags: 0,
  /** Device accesses that were refused. */
  faults: 0,
  mapsLive: 0,
  /** mapsLive: maps that exist. mapsLoaded: those that are loaded. */
  mapsLoaded: 0,
  /** segHist[n]: loads of n segments; the last entry is for n and more. */
  segHist: new Float64Array(HIST_MAX + 1),
};

/** Sets the counters of events to 0 and keeps those of live maps. For tests. */
export function dmaStatsReset(): void {
  dmaStats.loads = 0;
  dmaStats.segments = 0;
  dmaStats.bounced = 0;
  dmaStats.defrags = 0;
  dmaStats.faults = 0;
  dmaStats.segHist.fill(0);
}

const mapFail = failPoint('dma_map');

/** Removes the bounce zones and clears the counters. Called at boot, after memory is set up. */
export function busDmaInit(): void {
  bounceInit();
  dmaStatsReset();
  dmaStats.mapsLive = 0;
  dmaStats.mapsLoaded = 0;
  busDmaWatch({});
}

/**
 * Turns the IOMMU and the checker on or off; both are off after boot. Panics if a map is loaded,
 * because only later loads are recorded.
 */
export function busDmaWatch({ iommu: remap = false, check = false }): void {
  KASSERT(dmaStats.mapsLoaded === 0, 'busDmaWatch: something is loaded');
  iommu.enabled = remap;
  iommu.lastFault = '';
  dmaCheckInit(check);
  watchStart(remap || check, ramBytes / PAGE_SIZE);
}

/** Returns whether an address inside the excluded window must be bounced. */
type BusDmaFilter = (arg: object | null, addr: number) => boolean;

/** Parameters of bus_dma_tag_create. @see bus_dma(9) */
export interface BusDmaTagParams {
  /** Name in the checker's reports, such as `tn0 tx` (ours). Default: the parent's name. */
  name?: string;
  parent?: BusDmaTag | null;
  /** Bytes, a power of two. */
  alignment?: number;
  /** Bytes, a power of two: no segment crosses a multiple of it. 0: no boundary. */
  boundary?: number;
  /** Addresses in (lowaddr, highaddr] are out of the device's reach. */
  lowaddr?: number;
  highaddr?: number;
  filter?: BusDmaFilter | null;
  filterarg?: object | null;
  /** Limits: bytes of a mapping, segments of a mapping, bytes of a segment. */
  maxsize: number;
  nsegments: number;
  maxsegsz: number;
  flags?: number;
}

/** The address restrictions of a device; created by bus_dma_tag_create. @see bus_dma(9) */
export class BusDmaTag {
  name = 'dma';
  parent: BusDmaTag | null = null;
  alignment = 1;
  boundary = 0;
  lowaddr = BUS_SPACE_MAXADDR;
  highaddr = BUS_SPACE_MAXADDR;
  filter: BusDmaFilter | null = null;
  filterarg: object | null = null;
  maxsize = 0;
  nsegments = 0;
  maxsegsz = 0;
  flags = 0;
  /** BUS_DMA_KEEP_PG_OFFSET: bounced bytes keep their offset in the page. */
  keepOffset = false;
  /** Whether any address of this machine may have to be bounced. */
  couldBounce = false;
  /** Zone of the bounce pages; null before the first map, or before BUS_DMA_ALLOCNOW. */
  zone: BounceZone | null = null;
  /** Whether the zone has had pages added for one mapping of `maxsize` bytes. */
  minAllocDone = false;
  /** Live maps, live child tags, and the number of maps created so far. */
  mapCount = 0;
  childCount = 0;
  mapsMade = 0;
}

/** Output parameter of bus_dma_tag_create: FreeBSD's `bus_dma_tag_t *`. */
export interface BusDmaTagRef {
  tag: BusDmaTag | null;
}

/** One mapping of memory for a device. @see bus_dma(9) */
export class BusDmamap {
  // The fields that each load and sync uses come first, in one or two lines of the CPU's cache.
  readonly tag: BusDmaTag;
  loaded = false;
  /** The BUS_DMASYNC operations of the last bus_dmamap_sync since the load. */
  synced = 0;
  /** Bounce pages of the loaded memory, in load order. */
  bpages: BouncePage | null = null;
  /** False for memory of bus_dmamem_alloc, which was chosen so that the device reaches it. */
  readonly mayBounce: boolean;
  bpagesLast: BouncePage | null = null;
  /** Number among the tag's maps. */
  readonly id: number;
  /** Memory of bus_dmamem_alloc, which driver and device use at the same time. */
  readonly isMemory: boolean;
  // Set while loads are watched. `windows`: the loaded ranges. `handed`: the PRE operations since
  // the load. `owned`: those without a later POST. `touched`: those that the device has used since.
  windows: Window | null = null;
  handed = 0;
  owned = 0;
  touched = 0;

  constructor(tag: BusDmaTag, isMemory: boolean) {
    this.tag = tag;
    this.id = tag.mapsMade++;
    this.isMemory = isMemory;
    this.mayBounce = tag.couldBounce && !isMemory;
  }
}

/** Output parameter of bus_dmamap_create: FreeBSD's `bus_dmamap_t *`. */
export interface BusDmamapRef {
  map: BusDmamap | null;
}

/**
 * The segments of a load: FreeBSD's array of bus_dma_segment_t and its count. Each address is
 * stored as one number and, for descriptors, as two signed words: V8 may allocate a number above
 * 2^31 on its heap when it is passed to a function.
 */
export class BusDmaSegs {
  readonly ds_addr: Float64Array;
  readonly addrLo: Int32Array;
  readonly addrHi: Int32Array;
  readonly ds_len: Uint32Array;
  nsegs = 0;

  /** @param max at least the nsegments of the tags it is used with */
  constructor(max: number) {
    this.ds_addr = new Float64Array(max);
    this.addrLo = new Int32Array(max);
    this.addrHi = new Int32Array(max);
    this.ds_len = new Uint32Array(max);
  }
}

/** Memory of bus_dmamem_alloc: physically contiguous, with the map that loads it. */
interface BusDmamem {
  readonly vaddr: Kva;
  readonly map: BusDmamap;
  readonly npages: number;
}

const isPowerOf2 = (n: number): boolean => Number.isInteger(Math.log2(n));
/** The last byte of the page that holds `addr`. */
const pageEnd = (addr: number): number =>
  addr >= BUS_SPACE_MAXADDR
    ? BUS_SPACE_MAXADDR
    : Math.floor(addr / PAGE_SIZE) * PAGE_SIZE + PAGE_MASK;

function inherit(tag: BusDmaTag, parent: BusDmaTag): void {
  tag.parent = parent;
  parent.childCount++;
  tag.lowaddr = Math.min(tag.lowaddr, parent.lowaddr);
  tag.highaddr = Math.max(tag.highaddr, parent.highaddr);
  if (tag.boundary === 0) tag.boundary = parent.boundary;
  else if (parent.boundary !== 0) tag.boundary = Math.min(tag.boundary, parent.boundary);
  if (tag.filter === null) {
    tag.filter = parent.filter;
    tag.filterarg = parent.filterarg;
  }
}

/**
 * Bounce pages of one mapping. Unlike FreeBSD: rounded up, so that a mapping below a page has one.
 */
const mappingPages = (tag: BusDmaTag): number => Math.ceil(tag.maxsize / PAGE_SIZE);

function zoneOf(tag: BusDmaTag): BounceZone {
  if (tag.zone === null) {
    let { alignment } = tag;
    for (let t = tag.parent; t !== null; t = t.parent) alignment = Math.max(alignment, t.alignment);
    tag.zone = bounceZoneOf(tag.lowaddr, alignment);
    busDmaZoneSysctl(tag.zone);
  }
  return tag.zone;
}

/** BUS_DMA_ALLOCNOW: allocates the bounce pages of one mapping before a map exists. */
function allocNow(tag: BusDmaTag): Errno {
  const zone = zoneOf(tag);
  const pages = mappingPages(tag) - zone.total_bpages;
  if (pages > 0 && bounceGrow(zone, pages) < pages) return ENOMEM;
  tag.minAllocDone = true;
  return 0;
}

/**
 * Creates a tag, which also has its parent's restrictions. Returns 0 and the tag in `ref`. EINVAL:
 * a size or count is 0, or an alignment or boundary is not a power of two. ENOMEM: no memory for
 * the bounce pages of BUS_DMA_ALLOCNOW.
 * @see bus_dma(9)
 */
export function bus_dma_tag_create(params: BusDmaTagParams, ref: BusDmaTagRef): Errno {
  ref.tag = null;
  const alignment = params.alignment ?? 1;
  const boundary = params.boundary ?? 0;
  const { maxsize, nsegments, maxsegsz } = params;
  if (!(maxsize > 0 && nsegments > 0 && maxsegsz > 0)) return EINVAL;
  if (!(alignment >= 1) || !isPowerOf2(alignment)) return EINVAL;
  if (boundary !== 0 && !(boundary >= 1 && isPowerOf2(boundary))) return EINVAL;
  const tag = new BusDmaTag();
  tag.name = params.name ?? params.parent?.name ?? 'dma';
  tag.alignment = alignment;
  tag.boundary = boundary;
  tag.lowaddr = pageEnd(params.lowaddr ?? BUS_SPACE_MAXADDR);
  tag.highaddr = pageEnd(params.highaddr ?? BUS_SPACE_MAXADDR);
  tag.filter = params.filter ?? null;
  tag.filterarg = params.filterarg ?? null;
  tag.maxsize = maxsize;
  tag.nsegments = nsegments;
  tag.flags = params.flags ?? 0;
  tag.keepOffset = (tag.flags & BUS_DMA_KEEP_PG_OFFSET) !== 0;
  const parent = params.parent ?? null;
  if (parent !== null) inherit(tag, parent);
  tag.maxsegsz = tag.boundary !== 0 ? Math.min(maxsegsz, tag.boundary) : maxsegsz;
  tag.couldBounce =
    tag.lowaddr < ramBase + ramBytes - 1 ||
    tag.alignment > 1 ||
    tag.filter !== null ||
    (parent !== null && parent.couldBounce);
  if (tag.couldBounce && (tag.flags & BUS_DMA_ALLOCNOW) !== 0 && allocNow(tag) !== 0) {
    if (parent !== null) parent.childCount--;
    return ENOMEM;
  }
  ref.tag = tag;
  return 0;
}

/** Destroys a tag. EBUSY, and no change, while it has maps or child tags. @see bus_dma(9) */
export function bus_dma_tag_destroy(tag: BusDmaTag): Errno {
  if (tag.mapCount !== 0 || tag.childCount !== 0) return EBUSY;
  if (tag.parent !== null) tag.parent.childCount--;
  tag.parent = null;
  return 0;
}

function makeMap(tag: BusDmaTag, isMemory: boolean): BusDmamap {
  tag.mapCount++;
  dmaStats.mapsLive++;
  return new BusDmamap(tag, isMemory);
}

/**
 * Adds the pages of one mapping to the zone of a tag that could bounce, up to the zone's limit.
 * ENOMEM: not enough memory, for the tag's first map only; later maps share the existing pages.
 */
function growZone(tag: BusDmaTag): Errno {
  const zone = zoneOf(tag);
  const most = bouncePagesMax(tag.lowaddr, tag.alignment, ramBase + ramBytes);
  if (!tag.minAllocDone || (zone.map_count > 0 && zone.total_bpages < most)) {
    const pages = Math.max(Math.min(most - zone.total_bpages, mappingPages(tag)), 1);
    const enough = bounceGrow(zone, pages) === pages;
    if (!tag.minAllocDone && !enough) return ENOMEM;
    tag.minAllocDone = true;
  }
  zone.map_count++;
  return 0;
}

/**
 * Creates a map. Returns 0 and the map in `ref`. ENOMEM: no memory for the bounce pages that its
 * loads may need.
 * @see bus_dma(9)
 */
export function bus_dmamap_create(tag: BusDmaTag, _flags: number, ref: BusDmamapRef): Errno {
  ref.map = null;
  if (mapFail.refuses()) return ENOMEM;
  if (tag.couldBounce && growZone(tag) !== 0) return ENOMEM;
  ref.map = makeMap(tag, false);
  return 0;
}

/** Destroys a map. EBUSY, and no change, while it is loaded. @see bus_dma(9) */
export function bus_dmamap_destroy(tag: BusDmaTag, map: BusDmamap): Errno {
  KASSERT(map.tag === tag, 'bus_dmamap_destroy: not of this tag');
  if (map.loaded) return EBUSY;
  if (map.mayBounce) tag.zone!.map_count--;
  tag.mapCount--;
  dmaStats.mapsLive--;
  return 0;
}

/**
 * Allocates `tag.maxsize` bytes of physically contiguous memory with a map. Aligns it as the tag
 * requires, at least to a page; zeroes it with BUS_DMA_ZERO. Returns null if memory is exhausted.
 * @see bus_dma(9)
 */
export function bus_dmamem_alloc(tag: BusDmaTag, flags: number): BusDmamem | null {
  const npages = Math.ceil(tag.maxsize / PAGE_SIZE);
  const first = vm_page_alloc_contig(npages, tag.alignment, tag.boundary);
  if (first === NOPAGE) return null;
  // This is the lowest free run: if the device cannot reach it, it cannot reach any other.
  if (VM_PAGE_TO_PHYS(first) + npages * PAGE_SIZE - 1 > tag.lowaddr) {
    for (let i = 0; i < npages; i++) vm_page_unwire(first + i, false);
    return null;
  }
  const vaddr = kva(first * PAGE_SIZE);
  if ((flags & BUS_DMA_ZERO) !== 0) mem.fill(0, vaddr, vaddr + npages * PAGE_SIZE);
  return { vaddr, map: makeMap(tag, true), npages };
}

/** Frees memory of bus_dmamem_alloc. The caller has unloaded it. @see bus_dma(9) */
export function bus_dmamem_free(tag: BusDmaTag, dmamem: BusDmamem): void {
  const error = bus_dmamap_destroy(tag, dmamem.map);
  KASSERT(error === 0, 'bus_dmamem_free: still loaded');
  for (let i = 0; i < dmamem.npages; i++) vm_page_unwire(dmamem.vaddr / PAGE_SIZE + i, false);
}

/** Whether a mapped mbuf's data is a page of a file. */
const isFileBytes = (m: Mbuf): boolean =>
  (m.m_flags & M_EXT) !== 0 && m.m_ext.ext_type === EXT_SFBUF;

function freeBounced(map: BusDmamap): void {
  if (map.bpages === null) return;
  bounceFree(map.tag.zone!, map.bpages);
  map.bpages = null;
  map.bpagesLast = null;
}

function loadBegin(tag: BusDmaTag, map: BusDmamap, segs: BusDmaSegs): void {
  KASSERT(map.tag === tag, 'bus_dmamap_load: map of another tag');
  KASSERT(!map.loaded, 'bus_dmamap_load: map is loaded');
  KASSERT(segs.ds_len.length >= tag.nsegments, 'bus_dmamap_load: segment array too short');
  segs.nsegs = 0;
}

function loadEnd(map: BusDmamap, segs: BusDmaSegs, error: Errno): Errno {
  if (error !== 0) {
    segs.nsegs = 0;
    freeBounced(map);
    return error;
  }
  for (let page = map.bpages; page !== null; page = page.next) dmaStats.bounced++;
  map.loaded = true;
  map.synced = 0;
  if (watching) watchLoad(map, segs);
  dmaStats.mapsLoaded++;
  dmaStats.loads++;
  dmaStats.segments += segs.nsegs;
  dmaStats.segHist[Math.min(segs.nsegs, HIST_MAX)]! += 1;
  return 0;
}

/**
 * Loads a chain of mapped and unmapped mbufs into at most `nsegments` physical segments. Memory
 * that is adjacent in RAM becomes one segment, also across mbufs. Reads the mbuf headers of `m`,
 * not the data, and changes nothing. Never waits. On an error nothing is loaded. EFBIG: too many
 * segments. ENOMEM: no bounce page is free. EINVAL: longer than the tag's maxsize.
 * @see bus_dma(9), sys/kern/subr_bus_dma.c
 */
export function bus_dmamap_load_mbuf_sg(
  tag: BusDmaTag,
  map: BusDmamap,
  m0: Mbuf,
  segs: BusDmaSegs,
): Errno {
  loadBegin(tag, map, segs);
  if ((m0.m_flags & M_PKTHDR) !== 0 && m0.m_pkthdr.len > tag.maxsize) return EINVAL;
  let error = 0;
  for (let m: Mbuf | null = m0; m !== null && error === 0; m = m.m_next) {
    if (m.m_len === 0) continue;
    error =
      (m.m_flags & M_NOMAP) !== 0
        ? addUnmapped(map, segs, m)
        : addVirtual(map, segs, mtod(m), m.m_len, isFileBytes(m));
  }
  return loadEnd(map, segs, error);
}

/**
 * Loads `len` bytes of mapped memory. Unlike FreeBSD: fills `segs` before it returns, without a
 * callback. Errors as in bus_dmamap_load_mbuf_sg.
 * @see bus_dma(9)
 */
export function bus_dmamap_load(
  tag: BusDmaTag,
  map: BusDmamap,
  va: Kva,
  len: number,
  segs: BusDmaSegs,
): Errno {
  loadBegin(tag, map, segs);
  if (len > tag.maxsize) return EINVAL;
  return loadEnd(map, segs, addVirtual(map, segs, va, len, false));
}

function unloadWatched(map: BusDmamap): void {
  if (dmaCheck.enabled) checkUnload(map);
  watchUnload(map);
  map.handed = 0;
  map.owned = 0;
  map.touched = 0;
}

function syncWatched(map: BusDmamap, op: number): void {
  if (dmaCheck.enabled) checkSync(map, op);
  const pre = op & (BUS_DMASYNC_PREREAD | BUS_DMASYNC_PREWRITE);
  // Each POST bit is the next higher bit of its PRE bit.
  const post = (op >> 1) & (BUS_DMASYNC_PREREAD | BUS_DMASYNC_PREWRITE);
  map.handed |= pre;
  map.owned |= pre;
  if (!map.isMemory) map.owned &= ~post;
  map.touched &= ~(pre | post);
}

/**
 * Unloads a map, whose memory the device no longer uses. Does nothing if it is not loaded.
 * @see bus_dma(9)
 */
export function bus_dmamap_unload(tag: BusDmaTag, map: BusDmamap): void {
  KASSERT(map.tag === tag, 'bus_dmamap_unload: map of another tag');
  if (!map.loaded) return;
  if (watching) unloadWatched(map);
  map.loaded = false;
  map.synced = 0;
  freeBounced(map);
  dmaStats.mapsLoaded--;
}

/**
 * Hands loaded memory to the device (PRE) or back to the CPU (POST). Memory is coherent, so only
 * bounced bytes are copied: into the bounce pages with PREWRITE, out of them with POSTREAD. Panics
 * if PRE and POST are mixed or nothing is loaded.
 * @see bus_dma(9)
 */
export function bus_dmamap_sync(tag: BusDmaTag, map: BusDmamap, op: number): void {
  const pre = (op & (BUS_DMASYNC_PREREAD | BUS_DMASYNC_PREWRITE)) !== 0;
  const post = (op & (BUS_DMASYNC_POSTREAD | BUS_DMASYNC_POSTWRITE)) !== 0;
  KASSERT(pre !== post, 'bus_dmamap_sync: either PRE or POST');
  KASSERT(map.tag === tag && map.loaded, 'bus_dmamap_sync: nothing loaded');
  map.synced = op;
  if (watching) syncWatched(map, op);
  if (map.bpages === null) return;
  if ((op & BUS_DMASYNC_PREWRITE) !== 0) bounceCopyIn(tag.zone!, map.bpages);
  if ((op & BUS_DMASYNC_POSTREAD) !== 0) bounceCopyOut(tag.zone!, map.bpages);
}
