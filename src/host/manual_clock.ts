/**
 * Virtual time: it advances only on request, so a second of virtual time costs microseconds and a
 * run repeats exactly. Besides the one alarm of `Clock` it has any number of events, for simulated
 * wires and disks.
 */

import type { Clock, Task } from '../sys/clock.ts';
import { panic } from '../sys/kassert.ts';

/** A clock with events besides its alarm, for the simulated wire and disk. */
export interface EventClock extends Clock {
  /**
   * Schedules one `event.run()` at `deadlineNs`, or immediately if that has passed. It cannot be
   * cancelled.
   */
  schedule(deadlineNs: number, event: Task): void;
}

interface Entry {
  atNs: number;
  seq: number;
  task: Task;
}

interface ManualClockOptions {
  /** The first time value, in ns. Default 0. */
  readonly startNs?: number;
  /** The wall clock at 0, in s since 1970. Default 1767225600, the first second of 2026. */
  readonly bootSec?: number;
}

/** Limit of posted tasks in one drain. A task that always posts itself would hang the run. */
const MAX_POSTED_PER_INSTANT = 10_000_000;

function before(a: Entry, b: Entry): boolean {
  return a.atNs < b.atNs || (a.atNs === b.atNs && a.seq < b.seq);
}

export class ManualClock implements EventClock {
  readonly bootSec: number;
  #nowNs: number;
  #seq = 0;
  #alarm: Task | null = null;
  #alarmNs = 0;
  #alarmSeq = 0;
  /** Posted tasks from head to tail. The array is reused, so posting does not allocate. */
  readonly #posted: (Task | null)[] = [];
  #postedHead = 0;
  #postedTail = 0;
  /** A binary heap of events, ordered by time; events of one instant in the order of scheduling. */
  readonly #heap: Entry[] = [];

  constructor(options: ManualClockOptions = {}) {
    this.#nowNs = options.startNs ?? 0;
    this.bootSec = options.bootSec ?? 1767225600;
  }

  nowNs(): number {
    return this.#nowNs;
  }

  setAlarm(deadlineNs: number, alarm: Task): void {
    this.#alarm = alarm;
    this.#alarmNs = deadlineNs;
    this.#alarmSeq = this.#seq++;
  }

  clearAlarm(): void {
    this.#alarm = null;
  }

  post(task: Task): void {
    this.#posted[this.#postedTail++] = task;
  }

  /** As `post`: the order of a simulation depends on its seed alone. */
  interrupt(task: Task): void {
    this.post(task);
  }

  schedule(deadlineNs: number, event: Task): void {
    const heap = this.#heap;
    const entry = { atNs: deadlineNs, seq: this.#seq++, task: event };
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(entry, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = entry;
  }

  /** Number of events that are scheduled, without the alarm. */
  get scheduled(): number {
    return this.#heap.length;
  }

  /** Whether no task is posted, no event is scheduled and no alarm is set. */
  get idle(): boolean {
    return this.nextNs === Infinity;
  }

  /**
   * Time of the next task, event or alarm in ns: now if a task is posted, Infinity if the clock is
   * idle.
   */
  get nextNs(): number {
    if (this.#postedHead < this.#postedTail) return this.#nowNs;
    const eventNs = this.#heap.length > 0 ? this.#heap[0]!.atNs : Infinity;
    const nextNs = this.#alarm === null ? eventNs : Math.min(eventNs, this.#alarmNs);
    return Math.max(nextNs, this.#nowNs);
  }

  /**
   * Runs posted tasks, including those they post, until the queue is empty. Time does not advance.
   */
  runPosted(): void {
    let n = 0;
    while (this.#postedHead < this.#postedTail) {
      const task = this.#posted[this.#postedHead]!;
      this.#posted[this.#postedHead++] = null;
      if (this.#postedHead === this.#postedTail) {
        this.#postedHead = 0;
        this.#postedTail = 0;
      }
      if (++n > MAX_POSTED_PER_INSTANT) panic('ManualClock: posted tasks never end');
      task.run();
    }
  }

  /**
   * Advances time by `ns` nanoseconds and runs everything due in that time, including at its end.
   */
  advance(ns: number): void {
    this.advanceTo(this.#nowNs + ns);
  }

  advanceTo(untilNs: number): void {
    while (this.step(untilNs));
    if (untilNs > this.#nowNs) this.#nowNs = untilNs;
  }

  /** Runs the next task, event or alarm if it is due by `untilNs`; returns whether it did. */
  step(untilNs = Infinity): boolean {
    if (this.#postedHead < this.#postedTail) {
      this.runPosted();
      return true;
    }
    const nextNs = this.nextNs;
    if (nextNs === Infinity || nextNs > untilNs) return false;
    this.#nowNs = nextNs;
    this.#take().run();
    this.runPosted();
    return true;
  }

  /**
   * Runs until the clock is idle, for at most `limitNs` of virtual time. Returns whether the clock
   * became idle; if not, exactly `limitNs` have passed.
   */
  runUntilIdle(limitNs: number): boolean {
    const untilNs = this.#nowNs + limitNs;
    while (this.step(untilNs));
    if (this.idle) return true;
    this.#nowNs = untilNs;
    return false;
  }

  /**
   * Runs until `done()`, called after each event, is true; returns false if `limitNs` passed first.
   */
  runUntil(done: () => boolean, limitNs: number): boolean {
    const untilNs = this.#nowNs + limitNs;
    this.runPosted();
    while (!done()) if (!this.step(untilNs)) return done();
    return true;
  }

  /** Removes and returns the earliest of alarm and events. */
  #take(): Task {
    const heap = this.#heap;
    const first = heap[0];
    const alarm = this.#alarm;
    if (
      alarm !== null &&
      (first === undefined ||
        this.#alarmNs < first.atNs ||
        (this.#alarmNs === first.atNs && this.#alarmSeq < first.seq))
    ) {
      this.#alarm = null;
      return alarm;
    }
    const last = heap.pop()!;
    if (heap.length > 0) this.#sink(last);
    return first!.task;
  }

  #sink(entry: Entry): void {
    const heap = this.#heap;
    let i = 0;
    for (let child = 1; child < heap.length; child = 2 * i + 1) {
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, entry)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = entry;
  }
}
