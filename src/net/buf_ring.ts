/**
 * The packet queue between if_transmit and a full descriptor ring, after buf_ring(9) and the drbr_*
 * functions that drivers use. It is bounded and first in, first out; `peek` reads the head without
 * removing it. Left out: several producers, atomics.
 */

import { m_freem } from '../kern/kern_mbuf.ts';
import type { Mbuf } from '../kern/mbuf.ts';

/** A ring of packets. It owns the packets in it. */
export class BufRing {
  readonly #slots: (Mbuf | null)[];
  #head = 0;
  #used = 0;

  /** @param size capacity in packets */
  constructor(size: number) {
    this.#slots = Array.from({ length: size }, () => null);
  }

  get used(): number {
    return this.#used;
  }

  /** Takes `m`. Returns false if the ring is full; the caller then keeps `m`. */
  enqueue(m: Mbuf): boolean {
    const { length } = this.#slots;
    if (this.#used === length) return false;
    const at = this.#head + this.#used;
    this.#slots[at < length ? at : at - length] = m;
    this.#used++;
    return true;
  }

  /** The packet at the head, which stays in the ring; null if the ring is empty. */
  peek(): Mbuf | null {
    return this.#used === 0 ? null : this.#slots[this.#head]!;
  }

  /** Replaces the packet at the head by `m`, which the caller made from it (drbr_putback). */
  putback(m: Mbuf): void {
    this.#slots[this.#head] = m;
  }

  /** Removes the head from the ring. The caller owns that packet. */
  advance(): void {
    this.#slots[this.#head] = null;
    this.#head = this.#head + 1 === this.#slots.length ? 0 : this.#head + 1;
    this.#used--;
  }

  /** Frees all packets in the ring. @param dropping sees each before */
  flush(dropping?: (m: Mbuf) => void): void {
    for (let m = this.peek(); m !== null; m = this.peek()) {
      dropping?.(m);
      this.advance();
      m_freem(m);
    }
  }
}
