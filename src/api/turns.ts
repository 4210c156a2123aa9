/** Turns of the event loop: sockets emit one event per turn. */

import type { Task } from '../sys/clock.ts';
import { inPass, passUpcall, type Upcall } from '../sys/pass.ts';

/** Runs `fn` in a later turn. */
export function later(fn: () => void): void {
  inPass(passUpcall, { upcall: fn });
}

/**
 * Work that an upcall of a socket starts and that takes one turn per event, such as reading
 * datagrams. `step` does one piece of it. If more is left it calls `again` before it emits the event,
 * because a listener may throw.
 */
export class Turns implements Task, Upcall {
  readonly #step: () => void;
  #waits = false;

  constructor(step: () => void) {
    this.#step = step;
  }

  /** The upcall of the socket: runs `step`, unless a later turn is scheduled. */
  run(): void {
    if (!this.#waits) this.#step();
  }

  /** Schedules `step` for a later turn. */
  again(): void {
    if (this.#waits) return;
    this.#waits = true;
    inPass(passUpcall, this);
  }

  upcall(): void {
    this.#waits = false;
    this.#step();
  }
}
