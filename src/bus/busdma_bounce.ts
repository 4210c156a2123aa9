/**
 * Bounce pages, after sys/x86/x86/busdma_bounce.c: memory that a restricted device reaches, used in
 * place of memory that it does not. Tags with the same needs share a zone; a zone grows when maps
 * are made and never shrinks. Left out: waiting for a page (loads never defer, so total_deferred
 * stays 0), NUMA domains.
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
/** Unlike FreeBSD: a zone has at most this part of memory, because our machines are small. */
const MEMORY_PART = 16;

const bounceFail = failPoint('bounce_page');

/** A page of a zone and, while a map has it, what it stands for. */
export class BouncePage {
  /** Start of the page. */
  readonly va: Kva;
  /** Where the device's bytes begin: in the same place of the page with BUS_DMA_KEEP_PG_OFFSET. */
  at = 0;
  /** The memory it stands for, by arena offset, and its bytes. */
  dataOff = 0;
  dataCount = 0;
  /** Whether that memory holds file bytes, whose reading is counted. */
  payload = false;
  /** Next of its zone's free pages, or of its map's pages in the order of the load. */
  next: BouncePage | null = null;

  constructor(va: Kva) {
    this.va = va;
  }
}

/** Bounce pages for all tags that cannot address memory above `lowaddr`. */
export class BounceZone {
  readonly name: string;
  readonly lowaddr: number;
  /** Bytes; of the pages, so at least PAGE_SIZE. */
  readonly alignment: number;
  total_bpages = 0;
  free_bpages = 0;
  /** Promised to a load and not in use yet: 0 between loads, because none waits. */
  reserved_bpages = 0;
  active_bpages = 0;
  /** Syncs that copied. */
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

/** All zones, in the order of their making. */
export const bounceZones: BounceZone[] = [];

/** Drops all zones without freeing pages: the machine that had them is gone. */
export function bounceInit(): void {
  bounceZones.length = 0;
}

/** The zone for these needs, made if no other will do. */
export function bounceZoneOf(lowaddr: number, alignment: number): BounceZone {
  for (const zone of bounceZones)
    if (alignment <= zone.alignment && lowaddr >= zone.lowaddr) return zone;
  const zone = new BounceZone(`zone${bounceZones.length}`, lowaddr, alignment);
  bounceZones.push(zone);
  return zone;
}

/** Most pages that a zone may have through maps of tags with `alignment` and `lowaddr`. */
export function bouncePagesMax(lowaddr: number, alignment: number, ramEnd: number): number {
  const most = Math.min(MAX_BPAGES, Math.floor(ramBytes / PAGE_SIZE / MEMORY_PART));
  if (alignment > 1) return most;
  return Math.min(most, Math.ceil(ramEnd / PAGE_SIZE) - Math.floor(lowaddr / PAGE_SIZE));
}

/** Adds up to `n` pages to the pool; returns how many were free. */
export function bounceGrow(zone: BounceZone, n: number): number {
  const pages: VmPage[] = [];
  vmPageAllocBelow(n, zone.lowaddr, zone.alignment, pages);
  // From the end, so that pages leave in the order of their addresses.
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
 * Takes a page to stand for memory at arena offset `dataOff`; null if none is free. The caller sets
 * its dataCount, links it to its map, and gives it back with `bounceFree`.
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

/** Gives a map's pages back. */
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
 * Copies what the pages stand for into them: for a device that will read. Reaches unmapped pages
 * through the direct map, as FreeBSD does by a temporary mapping of this CPU.
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

/** Copies the pages to what they stand for: after a device wrote. */
export function bounceCopyOut(zone: BounceZone, pages: BouncePage): void {
  for (let page: BouncePage | null = pages; page !== null; page = page.next)
    mem.copyWithin(page.dataOff, page.at, page.at + page.dataCount);
  zone.total_bounced++;
}

/** Pages of all zones, and those of them in use. */
export function bouncePageCounts(): { total: number; inUse: number } {
  let total = 0;
  let inUse = 0;
  for (const zone of bounceZones) {
    total += zone.total_bpages;
    inUse += zone.active_bpages + zone.reserved_bpages;
  }
  return { total, inUse };
}
