/**
 * Bounce pages, after sys/x86/x86/busdma_bounce.c: memory within the reach of a restricted device,
 * used in place of memory outside of it. Tags with the same restrictions share a zone. A zone grows
 * when maps are created and never shrinks. Left out: waiting for a page (loads never defer, so
 * total_deferred stays 0), NUMA domains.
 */

import { failPoint } from '../sys/fail_point.ts';
import { KASSERT } from '../sys/kassert.ts';
import { count, R_DMA_BOUNCED } from '../sys/reason.ts';
import { kva, type Kva } from '../sys/types.ts';
import { mem, PAGE_MASK, PAGE_SIZE, ramBytes } from '../vm/arena.ts';
import { payloadRead, payloadReason, READ_COPY } from '../vm/payload.ts';
import { type VmPage, vmPageAllocBelow } from '../vm/vm_page.ts';

/** Largest zone on a large machine, in pages: FreeBSD/amd64's MAX_BPAGES. */
const MAX_BPAGES = 8192;
/** Unlike FreeBSD: a zone has at most 1/MEMORY_PART of memory, because our machines are small. */
const MEMORY_PART = 16;

const bounceFail = failPoint('bounce_page');

/** A page of a zone and, while a map uses it, the memory that it replaces. */
export class BouncePage {
  /** Start of the page. */
  readonly va: Kva;
  /**
   * Arena offset of the first bounced byte. With BUS_DMA_KEEP_PG_OFFSET the byte keeps its offset
   * in the page.
   */
  at = 0;
  /** The replaced memory: arena offset and length in bytes. */
  dataOff = 0;
  dataCount = 0;
  /** Whether that memory is file data, whose reads are counted. */
  payload = false;
  /** Next free page of the zone, or next page of the map in load order. */
  next: BouncePage | null = null;

  constructor(va: Kva) {
    this.va = va;
  }
}

/** Bounce pages for all tags that cannot address memory above `lowaddr`. */
export class BounceZone {
  readonly name: string;
  readonly lowaddr: number;
  /** Alignment of the pages in bytes; at least PAGE_SIZE. */
  readonly alignment: number;
  total_bpages = 0;
  free_bpages = 0;
  /** Pages reserved for a load and not in use yet. 0 between loads, because no load waits. */
  reserved_bpages = 0;
  active_bpages = 0;
  /** Sync operations that copied. */
  total_bounced = 0;
  total_deferred = 0;
  /** Maps that may bounce into it. */
  map_count = 0;
  freeList: BouncePage | null = null;

  constructor(name: string, lowaddr: number, alignment: number) {
    this.name = name;
    this.lowaddr = lowaddr;
    this.alignment = Math.max(alignment, PAGE_SIZE);
  }
}

/** All zones, in the order of their creation. */
export const bounceZones: BounceZone[] = [];

/** Removes all zones without freeing pages: they belonged to the previous machine's memory. */
export function bounceInit(): void {
  bounceZones.length = 0;
}

/** Returns a zone for these restrictions; creates one if no existing zone fits. */
export function bounceZoneOf(lowaddr: number, alignment: number): BounceZone {
  for (const zone of bounceZones)
    if (alignment <= zone.alignment && lowaddr >= zone.lowaddr) return zone;
  const zone = new BounceZone(`zone${bounceZones.length}`, lowaddr, alignment);
  bounceZones.push(zone);
  return zone;
}

/**
 * Maximum size of a zone, in pages, when it grows for a map of a tag with `alignment` and
 * `lowaddr`.
 */
export function bouncePagesMax(lowaddr: number, alignment: number, ramEnd: number): number {
  const most = Math.min(MAX_BPAGES, Math.floor(ramBytes / PAGE_SIZE / MEMORY_PART));
  if (alignment > 1) return most;
  return Math.min(most, Math.ceil(ramEnd / PAGE_SIZE) - Math.floor(lowaddr / PAGE_SIZE));
}

/** Adds up to `n` pages to the pool; returns how many were free. */
export function bounceGrow(zone: BounceZone, n: number): number {
  const pages: VmPage[] = [];
  vmPageAllocBelow(n, zone.lowaddr, zone.alignment, pages);
  // Add them from the end, so that bounceTake returns them in address order.
  for (let i = pages.length - 1; i >= 0; i--) {
    const page = new BouncePage(kva(pages[i]! * PAGE_SIZE));
    page.next = zone.freeList;
    zone.freeList = page;
  }
  zone.total_bpages += pages.length;
  zone.free_bpages += pages.length;
  return pages.length;
}

/**
 * Takes a free page to replace memory at arena offset `dataOff`. Returns null if no page is free.
 * The caller sets its dataCount, links it to its map, and returns it with `bounceFree`.
 */
export function bounceTake(
  zone: BounceZone,
  dataOff: number,
  keepOffset: boolean,
  payload: boolean,
): BouncePage | null {
  const page = zone.freeList;
  if (page === null || bounceFail.refuses()) return null;
  zone.freeList = page.next;
  zone.free_bpages--;
  zone.active_bpages++;
  page.next = null;
  page.at = keepOffset ? page.va + (dataOff & PAGE_MASK) : page.va;
  page.dataOff = dataOff;
  page.payload = payload;
  count(R_DMA_BOUNCED);
  return page;
}

/** Returns a map's pages to the zone. */
export function bounceFree(zone: BounceZone, pages: BouncePage | null): void {
  for (let page = pages; page !== null;) {
    const { next } = page;
    page.dataCount = 0;
    page.next = zone.freeList;
    zone.freeList = page;
    zone.free_bpages++;
    zone.active_bpages--;
    page = next;
  }
  KASSERT(zone.active_bpages >= 0, 'bounceFree: more than were taken');
}

/**
 * Copies the replaced memory into the pages, before a device reads them. Reads unmapped pages
 * through the direct map; FreeBSD uses a temporary mapping of the CPU.
 */
export function bounceCopyIn(zone: BounceZone, pages: BouncePage): void {
  const before = payloadReason(READ_COPY);
  for (let page: BouncePage | null = pages; page !== null; page = page.next) {
    const { dataOff, dataCount } = page;
    if (page.payload) payloadRead(dataCount);
    mem.copyWithin(page.at, dataOff, dataOff + dataCount);
  }
  payloadReason(before);
  zone.total_bounced++;
}

/** Copies the pages to the memory that they replace, after a device wrote them. */
export function bounceCopyOut(zone: BounceZone, pages: BouncePage): void {
  for (let page: BouncePage | null = pages; page !== null; page = page.next)
    mem.copyWithin(page.dataOff, page.at, page.at + page.dataCount);
  zone.total_bounced++;
}

/** Number of pages in all zones, and how many of them are in use. */
export function bouncePageCounts(): { total: number; inUse: number } {
  let total = 0;
  let inUse = 0;
  for (const zone of bounceZones) {
    total += zone.total_bpages;
    inUse += zone.active_bpages + zone.reserved_bpages;
  }
  return { total, inUse };
}
