/**
 * Records the memory that is loaded at each page, for the IOMMU (iommu.ts) and the checker
 * (busdma_check.ts). It is kept only while one of them is on; otherwise `watching` is false and
 * bus_dma and the DMA port skip it. Ours; a hardware IOMMU has page tables.
 */

import { PAGE_SIZE, ramBase } from '../vm/arena.ts';
import type { BusDmamap, BusDmaSegs } from './bus_dma.ts';

/** A range of a loaded map inside one page, by arena offset. */
export class Window {
  start = 0;
  /** Arena offset after its last byte. */
  end = 0;
  map: BusDmamap | null = null;
  /** Next window of the same page, and of the same map. */
  nextOfPage: Window | null = null;
  nextOfMap: Window | null = null;
}

/** Whether loads are recorded now. */
export let watching = false;
/** Number of windows. */
export let windowCount = 0;

let pages: (Window | null)[] = [];
let pool: Window | null = null;

/** Starts an empty record for RAM of `npages` pages, or ends recording. No map may be loaded. */
export function watchStart(on: boolean, npages: number): void {
  watching = on;
  windowCount = 0;
  pool = null;
  pages = on ? Array.from({ length: npages }, () => null) : [];
}

/** The first window of the page that holds `off`. */
export function windowsAt(off: number): Window | null {
  return pages[Math.floor(off / PAGE_SIZE)] ?? null;
}

/** Records the segments that were loaded into `map`. */
export function watchLoad(map: BusDmamap, segs: BusDmaSegs): void {
  for (let i = 0; i < segs.nsegs; i++) {
    let start = segs.ds_addr[i]! - ramBase;
    const end = start + segs.ds_len[i]!;
    while (start < end) {
      const page = Math.floor(start / PAGE_SIZE);
      const w = pool ?? new Window();
      pool = w.nextOfPage;
      w.start = start;
      w.end = Math.min(end, (page + 1) * PAGE_SIZE);
      w.map = map;
      w.nextOfPage = pages[page]!;
      pages[page] = w;
      w.nextOfMap = map.windows;
      map.windows = w;
      windowCount++;
      start = w.end;
    }
  }
}

function unlink(w: Window): void {
  const page = Math.floor(w.start / PAGE_SIZE);
  let prev: Window | null = null;
  for (let at = pages[page] ?? null; at !== null && at !== w; at = at.nextOfPage) prev = at;
  if (prev === null) pages[page] = w.nextOfPage;
  else prev.nextOfPage = w.nextOfPage;
}

/** Removes the windows of `map`. */
export function watchUnload(map: BusDmamap): void {
  for (let w = map.windows; w !== null;) {
    const next: Window | null = w.nextOfMap;
    unlink(w);
    w.map = null;
    w.nextOfMap = null;
    w.nextOfPage = pool;
    pool = w;
    windowCount--;
    w = next;
  }
  map.windows = null;
}
