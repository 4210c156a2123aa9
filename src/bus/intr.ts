/**
 * An interrupt line and its handler, after bus_setup_intr(9). A raised line runs the handler once,
 * from the event loop and never from inside the device, as a pass of the stack. Left out: filters,
 * priorities, sharing, binding to a CPU.
 */

import type { Clock, Task } from '../sys/clock.ts';
import { inPass, runTask } from '../sys/pass.ts';
import type { IntrLine } from './device.ts';

/** One line from one device to one driver. */
export class IntrVector implements IntrLine, Task {
  /** Times the handler ran. */
  delivered = 0;
  /** Times the line was raised without a handler. */
  stray = 0;
  readonly #clock: Clock;
  #handler: Task | null = null;
  #pending = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The handler; only bus_setup_intr and bus_teardown_intr set it. */
  set handler(handler: Task | null) {
    this.#handler = handler;
  }

  /** Schedules one run of the handler. Further calls before it runs have no effect. */
  raise(): void {
    if (this.#pending) return;
    this.#pending = true;
    this.#clock.interrupt(this);
  }

  /**
   * Runs the handler; called from the event loop. If the handler's register writes raise the line,
   * it runs again later.
   */
  run(): void {
    this.#pending = false;
    const handler = this.#handler;
    if (handler === null) {
      this.stray++;
      return;
    }
    this.delivered++;
    inPass(runTask, handler);
  }
}

/** Connects a driver's handler to a line. @see bus_setup_intr(9) */
export function bus_setup_intr(line: IntrVector, handler: Task): void {
  line.handler = handler;
}

/**
 * Disconnects the handler. An interrupt still pending is counted as stray.
 * @see bus_setup_intr(9)
 */
export function bus_teardown_intr(line: IntrVector): void {
  line.handler = null;
}
