/**
 * The arithmetic of a descriptor ring: two counters that run free and wrap at 2^32, so that full
 * and empty differ without a flag. The driver owns the memory of the descriptors.
 */

import { KASSERT } from '../sys/kassert.ts';

/**
 * A ring of `size` slots, a power of two, between one producer and one consumer. Hardware that
 * compares head with tail cannot tell a full ring from an empty one, so one slot stays unused.
 */
export class Ring {
  /** Slots. */
  readonly size: number;
  /** Number of slots produced and consumed since the start, modulo 2^32. */
  prod: number;
  cons: number;

  /** @param start where both counters begin; a test of the wrap starts close below 2^32 */
  constructor(size: number, start = 0) {
    KASSERT(size >= 2 && (size & (size - 1)) === 0, 'ring: size is no power of two');
    this.size = size;
    this.prod = start >>> 0;
    this.cons = this.prod;
  }

  /** The slot number of a counter. */
  slot(counter: number): number {
    return counter & (this.size - 1);
  }

  /** Number of slots produced and not consumed yet. */
  get used(): number {
    return (this.prod - this.cons) >>> 0;
  }

  /** Number of slots that can be produced now. */
  get free(): number {
    return this.size - 1 - this.used;
  }

  /** Advances the producer over `n` filled slots. */
  produce(n: number): void {
    KASSERT(n <= this.free, 'ring: overrun');
    this.prod = (this.prod + n) >>> 0;
  }

  /** Advances the consumer over `n` finished slots. */
  consume(n: number): void {
    KASSERT(n <= this.used, 'ring: underrun');
    this.cons = (this.cons + n) >>> 0;
  }

  /** Empties the ring and sets both counters to slot 0, as a reset of the hardware does. */
  reset(): void {
    this.prod = 0;
    this.cons = 0;
  }
}
