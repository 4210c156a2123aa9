/** Real time: the monotonic clock, Node's timers (resolution 1 ms) and its event loop. */

import type { Clock, Task } from '../sys/clock.ts';

const MAX_DELAY_MS = 0x7fffffff; // the largest delay of setTimeout

interface RealClockOptions {
  /** Whether a pending alarm keeps the process alive. Default true. */
  readonly ref?: boolean;
}

/** `alarm.run()` is called up to 1 ms after its deadline, later if the loop is busy. */
export class RealClock implements Clock {
  readonly #ref: boolean;
  #timer: NodeJS.Timeout | null = null;
  /**
   * When #timer is due, in ns. An alarm with a later deadline keeps the timer, which rearms itself
   * when it fires.
   */
  #timerNs = 0;
  #deadlineNs = 0;
  #alarm: Task | null = null;
  #posted: Task[] = [];
  #running: Task[] = [];
  #scheduled = false;

  constructor(options: RealClockOptions = {}) {
    this.#ref = options.ref ?? true;
  }

  /** Computed on each read, so it follows changes of the wall clock. */
  get bootSec(): number {
    return (Date.now() - performance.now()) / 1000;
  }

  nowNs(): number {
    return Math.floor(performance.now() * 1e6);
  }

  setAlarm(deadlineNs: number, alarm: Task): void {
    this.#deadlineNs = deadlineNs;
    this.#alarm = alarm;
    if (this.#timer !== null && this.#timerNs <= deadlineNs) return;
    this.#arm();
  }

  clearAlarm(): void {
    this.#alarm = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  post(task: Task): void {
    this.#posted.push(task);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#drain);
  }

  #arm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    const leftMs = (this.#deadlineNs - this.nowNs()) / 1e6;
    const delayMs = Math.min(Math.max(Math.ceil(leftMs), 1), MAX_DELAY_MS);
    this.#timerNs = this.nowNs() + delayMs * 1e6;
    this.#timer = setTimeout(this.#fire, delayMs);
    if (!this.#ref) this.#timer.unref();
  }

  readonly #fire = (): void => {
    this.#timer = null;
    const alarm = this.#alarm;
    if (alarm === null) return;
    // Node counts whole milliseconds from the start of the turn, so a timer may fire slightly
    // early.
    if (this.nowNs() < this.#deadlineNs) {
      this.#arm();
      return;
    }
    this.#alarm = null;
    alarm.run();
  };

  // Tasks posted meanwhile run in the next turn, so they cannot starve I/O.
  readonly #drain = (): void => {
    const tasks = this.#posted;
    this.#posted = this.#running;
    this.#running = tasks;
    this.#scheduled = false;
    let i = 0;
    try {
      while (i < tasks.length) tasks[i++]!.run();
    } finally {
      // If a task threw, the remaining tasks still have to run.
      const rest = i < tasks.length ? tasks.slice(i) : null;
      tasks.length = 0;
      if (rest !== null) {
        this.#posted.unshift(...rest);
        if (!this.#scheduled) {
          this.#scheduled = true;
          setImmediate(this.#drain);
        }
      }
    }
  };
}
