/**
 * Page frames, after sys/vm/vm_page.c: allocation, wiring, and least-recently-used reclaim of file
 * pages. A frame is free, cached (belongs to a file, not wired, may be reclaimed) or wired, and
 * `free + cached + wired = total` always. State lives in typed arrays by frame number; there is no
 * object per page. Left out: queues by activity, laundering (file pages are never dirty), NUMA.
 */

import { failPoint, failPointsReset } from '../sys/fail_point.ts';
import { KASSERT } from '../sys/kassert.ts';
import { passDefer } from '../sys/pass.ts';
import type { Task } from '../sys/clock.ts';
import { count, R_VM_WIRE_LIMIT, R_VM_WIRE_SHARE } from '../sys/reason.ts';
import { physAddr, type PhysAddr } from '../sys/types.ts';
import {
  arenaBytes,
  arenaSet,
  PAGE_SIZE,
  ramBase,
  ramBytes,
  VM_SIZE_MAX,
  VM_SIZE_MIN,
} from './arena.ts';

/** A page frame number, 1 and up; frame 0 is never used, so that no Kva is 0. */
export type VmPage = number;
export const NOPAGE: VmPage = -1;

/** The owner of a page: the file's page cache in vm_object.ts. */
export interface PageOwner {
  /** The frame is being reclaimed: drop the reference to it. */
  pageReclaimed(pindex: number, page: VmPage): void;
}

const VALID = 1;
const BUSY = 2;
const FILE = 4; // counts against the wired-file-page limit

/** A connection may hold this part of the reserve of file pages that is left. */
const WIRE_SHARE = 256;

let npages = 0;
let freeStack = new Int32Array(0);
let nfree = 0;
let ncached = 0;
let nwired = 0;
let nwiredFile = 0;
let wiredFileMax = 0;
let wireCount = new Int32Array(0);
let flags = new Uint8Array(0);
let pindexOf = new Float64Array(0);
// LRU list of cached pages: frame 0 is its head and tail.
let lruNext = new Int32Array(0);
let lruPrev = new Int32Array(0);
let owner: (PageOwner | null)[] = [];
let waiters: Task[] = [];
const pageFail = failPoint('vm_page');
/** Ends a wait after an injected failure: possibly no frame will ever be freed. */
const retry: Task = { run: wakeup };

/**
 * Boots the machine's memory: `size` bytes of RAM (16 MiB to 4096 MiB, whole pages) at physical
 * address `base`. `memory` is arenaBytes(size) long and zeroed; without it a plain buffer is
 * allocated. Throws RangeError for a size out of range.
 * @see sys/vm/vm_page.c
 */
export function vm_page_startup(size: number, base: number, memory?: ArrayBuffer): void {
  if (!(size >= VM_SIZE_MIN && size <= VM_SIZE_MAX) || size % PAGE_SIZE !== 0)
    throw new RangeError(`memory size ${size}: 16M to 4096M in whole pages`);
  arenaSet(memory ?? new ArrayBuffer(arenaBytes(size)), base);
  npages = ramBytes / PAGE_SIZE;
  freeStack = new Int32Array(npages);
  nfree = 0;
  for (let p = npages - 1; p >= 1; p--) freeStack[nfree++] = p;
  ncached = 0;
  nwired = 0;
  nwiredFile = 0;
  wiredFileMax = Math.floor((npages - 1) * 0.75);
  wireCount = new Int32Array(npages);
  flags = new Uint8Array(npages);
  pindexOf = new Float64Array(npages);
  lruNext = new Int32Array(npages);
  lruPrev = new Int32Array(npages);
  owner = Array.from({ length: npages }, () => null);
  waiters = [];
  failPointsReset();
}

/** @see sys/vm/vm_page.h */
export function VM_PAGE_TO_PHYS(p: VmPage): PhysAddr {
  return physAddr(ramBase + p * PAGE_SIZE);
}

/** The frame that holds `pa`. Panics outside RAM. @see sys/vm/vm_page.h */
export function PHYS_TO_VM_PAGE(pa: PhysAddr): VmPage {
  const off = pa - ramBase;
  KASSERT(off >= PAGE_SIZE && off < ramBytes, 'PHYS_TO_VM_PAGE: not RAM');
  return Math.floor(off / PAGE_SIZE);
}

function lruInsert(p: VmPage, atTail: boolean): void {
  const before = atTail ? lruPrev[0]! : 0;
  const after = lruNext[before]!;
  lruNext[before] = p;
  lruPrev[p] = before;
  lruNext[p] = after;
  lruPrev[after] = p;
  ncached++;
}

function lruRemove(p: VmPage): void {
  lruNext[lruPrev[p]!] = lruNext[p]!;
  lruPrev[lruNext[p]!] = lruPrev[p]!;
  ncached--;
}

function reclaimOne(): VmPage {
  const p = lruNext[0]!;
  if (p === 0) return NOPAGE;
  lruRemove(p);
  const own = owner[p]!;
  owner[p] = null;
  own.pageReclaimed(pindexOf[p]!, p);
  flags[p] = 0;
  return p;
}

/**
 * Allocates a wired frame for the kernel's own use (mbufs, clusters), reclaiming the file page used
 * longest ago if none is free. Returns NOPAGE when every frame is wired.
 * @see vm_page_alloc(9)
 */
export function vm_page_alloc_noobj(): VmPage {
  if (pageFail.refuses()) {
    passDefer(retry);
    return NOPAGE;
  }
  const p = nfree > 0 ? freeStack[--nfree]! : reclaimOne();
  if (p === NOPAGE) return NOPAGE;
  wireCount[p] = 1;
  nwired++;
  return p;
}

/**
 * Allocates `n` wired frames that follow each other in RAM, for descriptor rings and the like: the
 * first one's physical address is a multiple of `alignment`, and no multiple of `boundary` (0: none)
 * lies inside. Returns the first, or NOPAGE if free memory holds no such run: nothing is reclaimed.
 * Looks at every free frame, so it is for attaching, not for packets.
 * @see vm_page_alloc_contig(9)
 */
export function vm_page_alloc_contig(n: number, alignment: number, boundary: number): VmPage {
  if (pageFail.refuses()) return NOPAGE;
  const isFree = new Uint8Array(npages);
  for (let i = 0; i < nfree; i++) isFree[freeStack[i]!] = 1;
  let run = 0;
  for (let p = 1; p < npages; p++) {
    run = isFree[p] === 1 ? run + 1 : 0;
    const first = p - n + 1;
    if (run < n) continue;
    const pa = ramBase + first * PAGE_SIZE;
    const last = pa + n * PAGE_SIZE - 1;
    if (pa % alignment !== 0) continue;
    if (boundary !== 0 && Math.floor(pa / boundary) !== Math.floor(last / boundary)) continue;
    let kept = 0;
    for (let i = 0; i < nfree; i++) {
      const q = freeStack[i]!;
      if (q < first || q > p) freeStack[kept++] = q;
    }
    nfree = kept;
    nwired += n;
    for (let q = first; q <= p; q++) wireCount[q] = 1;
    return first;
  }
  return NOPAGE;
}

/**
 * Allocates up to `n` wired frames that end at or below physical address `high` and begin at a
 * multiple of `alignment`, each for itself, and appends them to `out`. Nothing is reclaimed. Looks
 * at many free frames, so it is for attaching, not for packets.
 */
export function vmPageAllocBelow(n: number, high: number, alignment: number, out: VmPage[]): void {
  let kept = nfree;
  // From the top of the stack, where the lowest frames are after boot.
  for (let i = nfree - 1; i >= 0 && n > 0; i--) {
    const p = freeStack[i]!;
    const pa = ramBase + p * PAGE_SIZE;
    if (pa + PAGE_SIZE - 1 > high || pa % alignment !== 0) continue;
    out.push(p);
    n--;
    wireCount[p] = 1;
    nwired++;
    freeStack[i] = freeStack[--kept]!;
  }
  nfree = kept;
}

/**
 * Allocates a busy, wired, invalid frame for page `pindex` of `own`. Returns NOPAGE when no frame
 * is available or when wired file pages are at their limit, 75 % of memory, which keeps room for
 * receive clusters. `held`: see vmWireAllowed.
 * @see vm_page_alloc(9)
 */
export function vm_page_alloc(own: PageOwner, pindex: number, held = 0): VmPage {
  if (!vmWireAllowed(held)) return NOPAGE;
  const p = vm_page_alloc_noobj();
  if (p === NOPAGE) return NOPAGE;
  nwiredFile++;
  owner[p] = own;
  pindexOf[p] = pindex;
  flags[p] = BUSY | FILE;
  return p;
}

/**
 * Whether one more file page may be wired for a connection that holds `held` pages; a refusal is
 * counted. Half of the limit is a reserve, of which a connection may hold a small share of what is
 * left, at least one page. So connections whose peers do not read cannot starve the others: in the
 * smallest machine it takes about 800 of them. Of the other half, a connection may hold as much as
 * it leaves.
 */
export function vmWireAllowed(held = 0): boolean {
  const left = wiredFileMax - nwiredFile;
  // Runs for every page: the usual case needs neither a division nor a maximum.
  if (held < left - (wiredFileMax >> 1)) return true;
  if (left > 0 && (held === 0 || held < Math.floor(left / WIRE_SHARE))) return true;
  count(left > 0 ? R_VM_WIRE_SHARE : R_VM_WIRE_LIMIT);
  return false;
}

/** Whether the page is wired. @see vm_page_wire(9) */
export function vm_page_wired(p: VmPage): boolean {
  return wireCount[p] !== 0;
}

/** Adds a wiring; a cached page leaves the reclaim list. @see vm_page_wire(9) */
export function vm_page_wire(p: VmPage): void {
  if (wireCount[p]!++ === 0) {
    lruRemove(p);
    nwired++;
    nwiredFile++;
  }
}

/**
 * Wires pages as `vm_page_wire` does while they are resident, not busy, and may be wired: `chunk[at +
 * i]` for `i` from `from` to `n - 1`, which it stores in `pages[i]`. `held`: see vmWireAllowed, for
 * i = 0. Returns the first `i` that it did not wire. For runs of pages: it reads the arrays once.
 */
export function vmPagesWire(
  chunk: Int32Array,
  at: number,
  pages: VmPage[],
  from: number,
  n: number,
  held: number,
): number {
  const counts = wireCount;
  const [states, next, prev] = [flags, lruNext, lruPrev];
  // The check of vmWireAllowed that needs no share of the reserve.
  const most = wiredFileMax - (wiredFileMax >> 1);
  let wired = nwiredFile;
  let i = from;
  for (; i < n; i++) {
    const p = chunk[at + i]!;
    if (p === NOPAGE || (states[p]! & BUSY) !== 0) break;
    if (counts[p] === 0) {
      if (held + i >= most - wired) break;
      const before = prev[p]!;
      const after = next[p]!;
      next[before] = after;
      prev[after] = before;
      wired++;
    }
    counts[p]!++;
    pages[i] = p;
  }
  const taken = wired - nwiredFile;
  nwiredFile = wired;
  nwired += taken;
  ncached -= taken;
  return i;
}

/** The first of pages[from .. n) that is not valid; `n` if there is none. */
export function vmPagesInvalid(pages: readonly VmPage[], from: number, n: number): number {
  const states = flags;
  let i = from;
  while (i < n && (states[pages[i]!]! & VALID) !== 0) i++;
  return i;
}

/**
 * Drops a wiring of the pages at the `n` addresses pa[pa0 ..], as `vm_page_unwire` with `noreuse`
 * false. For runs of pages.
 */
export function vmPagesUnwire(pa: Float64Array, pa0: number, n: number): void {
  const counts = wireCount;
  const [states, next, prev] = [flags, lruNext, lruPrev];
  const base = ramBase;
  let cached = 0;
  for (let i = pa0; i < pa0 + n; i++) {
    const p = Math.floor((pa[i]! - base) / PAGE_SIZE);
    const wirings = counts[p]!;
    if (wirings > 1) {
      counts[p] = wirings - 1;
    } else if ((states[p]! & (VALID | FILE)) !== (VALID | FILE) || owner[p] === null) {
      vm_page_unwire(p, false);
    } else {
      KASSERT(wirings === 1, 'vm_page_unwire: not wired');
      counts[p] = 0;
      const tail = prev[0]!;
      next[tail] = p;
      prev[p] = tail;
      next[p] = 0;
      prev[0] = p;
      cached++;
    }
  }
  nwired -= cached;
  nwiredFile -= cached;
  ncached += cached;
  if (cached > 0) wakeup();
}

function free(p: VmPage): void {
  flags[p] = 0;
  owner[p] = null;
  freeStack[nfree++] = p;
}

function wakeup(): void {
  if (waiters.length === 0) return;
  const woken = waiters;
  waiters = [];
  for (const task of woken) passDefer(task);
}

/**
 * Drops a wiring. With the last one a file page becomes cached; with `noreuse` it becomes free if
 * it is not busy, else first in line for reclaim. A page without owner, or one that never became
 * valid, becomes free.
 * @see vm_page_unwire(9)
 */
export function vm_page_unwire(p: VmPage, noreuse: boolean): void {
  KASSERT(wireCount[p]! > 0, 'vm_page_unwire: not wired');
  if (--wireCount[p]! !== 0) return;
  nwired--;
  if ((flags[p]! & FILE) !== 0) nwiredFile--;
  const own = owner[p]!;
  if (own === null) {
    free(p);
  } else if ((flags[p]! & VALID) === 0) {
    KASSERT((flags[p]! & BUSY) === 0, 'vm_page_unwire: last wiring of a busy page');
    own.pageReclaimed(pindexOf[p]!, p);
    free(p);
  } else if (noreuse && (flags[p]! & BUSY) === 0) {
    own.pageReclaimed(pindexOf[p]!, p);
    free(p);
  } else {
    lruInsert(p, !noreuse);
  }
  wakeup();
}

/**
 * Removes the owner of a page. A cached page is freed immediately; a wired one keeps its bytes and
 * is freed with its last wiring. The owner must have dropped the page already.
 */
export function vmPageDisown(p: VmPage): void {
  owner[p] = null;
  if (wireCount[p] !== 0) return;
  lruRemove(p);
  free(p);
  wakeup();
}

/** Whether the page holds its file's bytes. @see sys/vm/vm_page.h */
export function vm_page_all_valid(p: VmPage): boolean {
  return (flags[p]! & VALID) !== 0;
}

/** Whether a read into the page is in progress. @see vm_page_busy(9) */
export function vm_page_busied(p: VmPage): boolean {
  return (flags[p]! & BUSY) !== 0;
}

/** Begins a read into a page that is not valid. @see vm_page_busy(9) */
export function vm_page_busy_acquire(p: VmPage): void {
  KASSERT((flags[p]! & (BUSY | VALID)) === 0, 'vm_page_busy_acquire: busy or valid');
  flags[p]! |= BUSY;
}

/** Ends a read: the page is no longer busy, and valid iff `ok`. @see vm_page_busy(9) */
export function vm_page_xunbusy(p: VmPage, ok: boolean): void {
  KASSERT((flags[p]! & BUSY) !== 0, 'vm_page_xunbusy: not busy');
  flags[p] = (flags[p]! & ~BUSY) | (ok ? VALID : 0);
}

/**
 * Runs `task` once when a page was freed or became reclaimable, at the end of that pass. Unlike
 * FreeBSD's vm_wait(9) nothing sleeps.
 */
export function vmWaitPages(task: Task): void {
  waiters.push(task);
}

/** Withdraws a `vmWaitPages`. */
export function vmWaitCancel(task: Task): void {
  const i = waiters.indexOf(task);
  if (i >= 0) waiters.splice(i, 1);
}

/** Frames by state; `free + cached + wired = total`. */
interface PageCounts {
  free: number;
  cached: number;
  wired: number;
  total: number;
  /** Of the wired ones, those that hold file bytes. */
  wiredFile: number;
}

/** Counts frames by state. */
export function vmPageCounts(): PageCounts {
  return {
    free: nfree,
    cached: ncached,
    wired: nwired,
    total: Math.max(npages - 1, 0),
    wiredFile: nwiredFile,
  };
}
