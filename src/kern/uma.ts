/**
 * Zones of equal items, after uma(9): carved out of wired page frames, recycled last in, first out
 * so that what was used last is reused while it is in the cache. A zone grows by a page and never
 * shrinks. Left out: per-CPU caches, reclaim, keg sharing.
 */

import { type FailPoint, failPoint } from '../sys/fail_point.ts';
import { KASSERT } from '../sys/kassert.ts';
import { kva, type Kva } from '../sys/types.ts';
import { PAGE_SIZE } from '../vm/arena.ts';
import { NOPAGE, vm_page_alloc_noobj } from '../vm/vm_page.ts';

/** A zone of items of `size` bytes of arena each, every one represented by a `T`. */
export class UmaZone<T> {
  readonly uz_name: string;
  /** Bytes of one item; a divisor of PAGE_SIZE. */
  readonly size: number;
  /** Items in use. */
  current = 0;
  /** Items ever carved out: in use or cached. */
  total = 0;
  /** Most items there may be; kern.ipc.nmb*. */
  max: number;
  /** Items handed out since boot, and allocations denied. */
  requests = 0;
  failures = 0;
  /** Makes allocations fail for tests; bears the zone's name. */
  readonly failPoint: FailPoint;
  readonly #free: T[] = [];
  readonly #make: (va: Kva, index: number) => T;

  constructor(name: string, size: number, max: number, make: (va: Kva, index: number) => T) {
    KASSERT(PAGE_SIZE % size === 0, 'UmaZone: size does not divide a page');
    this.uz_name = name;
    this.size = size;
    this.max = max;
    this.failPoint = failPoint(name);
    this.#make = make;
  }

  /** Free items at hand. */
  get cached(): number {
    return this.#free.length;
  }

  /** Takes an item, or returns null: the zone is at its limit or memory is out. @see uma(9) */
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

  /** Gives an item back. @see uma(9) */
  free(item: T): void {
    KASSERT(this.current > 0, 'UmaZone: freed more than allocated');
    this.current--;
    this.#free.push(item);
  }

  #grow(): boolean {
    const page = vm_page_alloc_noobj();
    if (page === NOPAGE) return false;
    // Pushed from the end, so that items leave in the order of their addresses.
    for (let off = PAGE_SIZE - this.size; off >= 0; off -= this.size)
      this.#free.push(this.#make(kva(page * PAGE_SIZE + off), this.total++));
    return true;
  }
}
