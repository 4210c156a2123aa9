/**
 * Zones of items of one size, after uma(9). Items are cut from wired page frames. Free items are
 * reused last in, first out, so that a reused item is likely still in the CPU cache. A zone grows
 * by one page at a time, or by a run of adjacent pages if an item is larger than a page, and never
 * shrinks. Left out: per-CPU caches, reclaim, keg sharing.
 */

import { type FailPoint, failPoint } from '../sys/fail_point.ts';
import { KASSERT } from '../sys/kassert.ts';
import { kva, type Kva } from '../sys/types.ts';
import { PAGE_SIZE } from '../vm/arena.ts';
import { NOPAGE, vm_page_alloc_contig, vm_page_alloc_noobj } from '../vm/vm_page.ts';

/**
 * A zone of items larger than a page grows by this many items at once, because the search for a run
 * of pages looks at all of memory.
 */
const RUN_ITEMS = 16;
/** After a failed search, the next one is this many failed allocations later. */
const SEARCH_EVERY = 1024;

/** A zone of items of `size` bytes of arena memory each. A `T` represents each item. */
export class UmaZone<T> {
  readonly uz_name: string;
  /** Bytes of one item; a divisor or a multiple of PAGE_SIZE. */
  readonly size: number;
  /** Items in use. */
  current = 0;
  /** Items in existence: in use or free. */
  total = 0;
  /** Limit of items in use (for example kern.ipc.nmbclusters). */
  max: number;
  /** Successful and failed allocations since boot. */
  requests = 0;
  failures = 0;
  /** Fail point with the zone's name, with which tests make allocations fail. */
  readonly failPoint: FailPoint;
  readonly #free: T[] = [];
  /** Value of `failures` from which memory is searched again. */
  #searchAt = 0;
  readonly #make: (va: Kva, index: number) => T;

  constructor(name: string, size: number, max: number, make: (va: Kva, index: number) => T) {
    KASSERT(PAGE_SIZE % size === 0 || size % PAGE_SIZE === 0, 'UmaZone: size does not fit pages');
    this.uz_name = name;
    this.size = size;
    this.max = max;
    this.failPoint = failPoint(name);
    this.#make = make;
  }

  /** Number of free items. */
  get cached(): number {
    return this.#free.length;
  }

  /** Allocates an item. Null: the zone is at its limit or no page is free. @see uma(9) */
  alloc(): T | null {
    if (this.current >= this.max || this.failPoint.refuses()) {
      this.failures++;
      return null;
    }
    if (this.#free.length === 0 && !this.#grow()) {
      this.failures++;
      return null;
    }
    this.current++;
    this.requests++;
    return this.#free.pop()!;
  }

  /** Returns an item to the zone. @see uma(9) */
  free(item: T): void {
    KASSERT(this.current > 0, 'UmaZone: freed more than allocated');
    this.current--;
    this.#free.push(item);
  }

  #grow(): boolean {
    if (this.size > PAGE_SIZE) return this.#growRun();
    const page = vm_page_alloc_noobj();
    if (page === NOPAGE) return false;
    // Push from the highest address down, so that items are allocated in address order.
    for (let off = PAGE_SIZE - this.size; off >= 0; off -= this.size)
      this.#free.push(this.#make(kva(page * PAGE_SIZE + off), this.total++));
    return true;
  }

  /** Adds physically contiguous items. */
  #growRun(): boolean {
    if (this.failures < this.#searchAt) return false;
    const each = this.size / PAGE_SIZE;
    const n = Math.max(1, Math.min(RUN_ITEMS, this.max - this.total));
    const page = vm_page_alloc_contig(n * each, 1, 0);
    if (page === NOPAGE) {
      this.#searchAt = this.failures + SEARCH_EVERY;
      return false;
    }
    for (let i = n - 1; i >= 0; i--)
      this.#free.push(this.#make(kva((page + i * each) * PAGE_SIZE), this.total++));
    return true;
  }
}
