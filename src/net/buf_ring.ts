/**
 * The queue of packets between if_transmit and a full descriptor ring, after buf_ring(9) and the
 * drbr_* functions as drivers use them: bounded, first in first out, and its head can be looked at
 * before it is taken. Left out: several producers, atomics.
 */

import { m_freem } from '../kern/kern_mbuf.ts';
import type { Mbuf } from '../kern/mbuf.ts';

/** A ring of packets. It owns what is in it. */
export class BufRing {
  readonly #slots: (Mbuf | null)[];
  #head = 0;
  #used = 0;

  /** @param size packets it holds */
  constructor(size: number) {
    this.#slots = Array.from({ length: size }, () => null);
  }

  get used(): number {
    return this.#used;
  }

  /** Takes `m` over; false, and the caller keeps it, if the ring is full. */
  enqueue(m: Mbuf): boolean {
    const { length } = this.#slots;
    if (this.#used === length) return false;
    const at = this.#head + this.#used;
    this.#slots[at < length ? at : at - length] = m;
    this.#used++;
    return true;
  }

  /** The packet at the head, which stays; null if there is none. */
  peek(): Mbuf | null {
    return this.#used === 0 ? null : this.#slots[this.#head]!;
  }

  /** Puts `m` in the place of the packet at the head, which it was made from. */
  putback(m: Mbuf): void {
    this.#slots[this.#head] = m;
  }

  /** Drops the head from the ring: the packet is the caller's now. */
  advance(): void {
    this.#slots[this.#head] = null;
    this.#head = this.#head + 1 === this.#slots.length ? 0 : this.#head + 1;
    this.#used--;
  }

  /** Frees all packets. */
  flush(): void {
    for (let m = this.peek(); m !== null; m = this.peek()) {
      this.advance();
      m_freem(m);
    }
  }
}
