/** Turns of the event loop: sockets emit one event per turn. */

import type { Task } from '../sys/clock.ts';
import { inPass, passUpcall, type Upcall } from '../sys/pass.ts';
import { sbRecords } from '../kern/uipc_dgram.ts';
import type { Socket } from '../kern/uipc_socket.ts';

/** Runs `fn` in a later turn. */
export function later(fn: () => void): void {
  inPass(passUpcall, { upcall: fn });
}

/** Limit of the turns that one `Turns` has scheduled. */
const TURNS_MAX = 32;

/**
 * Work that an upcall of a socket starts and that takes one turn per event, such as reading
 * datagrams. `step` does one piece of it. If more is left it calls `again` before it emits the event,
 * because a listener may throw. Objects of which there are many extend it; a closure each would take
 * more memory.
 */
export abstract class TurnTaker implements Upcall {
  #scheduled = 0;

  abstract step(): void;

  /** Runs `step`, unless a later turn is scheduled. */
  runNow(): void {
    if (this.#scheduled === 0) this.step();
  }

  /**
   * Schedules `step` for `turns` later turns, at most TURNS_MAX. No effect while turns are scheduled.
   * Between turns that were scheduled together the event loop does not poll for I/O, which takes
   * longer than a datagram does. The limit keeps the loop responsive.
   */
  again(turns = 1): void {
    if (this.#scheduled > 0) return;
    this.#scheduled = Math.min(turns, TURNS_MAX);
    for (let i = 0; i < this.#scheduled; i++) inPass(passUpcall, this);
  }

  upcall(): void {
    this.#scheduled--;
    this.step();
  }
}

/** A TurnTaker whose `step` is a function. */
export class Turns extends TurnTaker implements Task {
  readonly #step: () => void;

  constructor(step: () => void) {
    super();
    this.#step = step;
  }

  override step(): void {
    this.#step();
  }

  /** The upcall of the socket. */
  run(): void {
    this.runNow();
  }

  /** Schedules a turn for each record, and for the error, that is queued in a datagram socket. */
  againForRecords(so: Socket): void {
    const left =
      sbRecords(so.so_rcv, TURNS_MAX) + (so.so_error === 0 && so.so_rerror === 0 ? 0 : 1);
    if (left > 0) this.again(left);
  }
}
