/** Real time: the monotonic clock, Node's timers (resolution 1 ms) and its event loop. */

import { performance } from 'node:perf_hooks';
import type { Clock, Task } from '../sys/clock.ts';
import { interruptSoon } from './host_event.ts';

const MAX_DELAY_MS = 0x7fffffff; // the largest delay of setTimeout

function runTask(task: Task): void {
  task.run();
}

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

  /**
   * Schedules one immediate per task. Node runs nextTick callbacks and promise jobs after each, a
   * task that throws does not stop the next one, and tasks posted by a task run in the next turn.
   */
  post(task: Task): void {
    setImmediate(runTask, task);
  }

  interrupt(task: Task): void {
    interruptSoon(task);
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
}
