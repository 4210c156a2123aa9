/**
 * Virtual time: it passes when told to, so seconds of it cost microseconds and a run repeats
 * exactly. Besides the one alarm of `Clock` it has any number of events, for simulated wires and
 * disks.
 */

import type { Clock, Task } from '../sys/clock.ts';
import { panic } from '../sys/kassert.ts';

/** A clock that takes events besides its alarm: what the simulated wire and disk need. */
export interface EventClock extends Clock {
  /** Asks for one `event.run()` at `deadlineNs`, at once if that has passed. It cannot be taken back. */
  schedule(deadlineNs: number, event: Task): void;
}

interface Entry {
  atNs: number;
  seq: number;
  task: Task;
}

export interface ManualClockOptions {
  /** Where time starts, in ns. Default 0. */
  readonly startNs?: number;
  /** The wall clock at 0, in s since 1970. Default 1767225600, the first second of 2026. */
  readonly bootSec?: number;
}

/** A posted task that posts itself for ever would hang the run: more than this is our mistake. */
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
  /** Posted tasks from head to tail; the array is kept, so that posting allocates nothing. */
  readonly #posted: (Task | null)[] = [];
  #postedHead = 0;
  #postedTail = 0;
  /** A binary heap: events by time, those of one instant in the order they were asked for. */
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

  /** Nothing is posted, scheduled or set: time can pass, nothing will happen. */
  get idle(): boolean {
    return this.nextNs === Infinity;
  }

  /** When the next thing happens: now if something is posted, Infinity if nothing ever will. */
  get nextNs(): number {
    if (this.#postedHead < this.#postedTail) return this.#nowNs;
    const eventNs = this.#heap.length > 0 ? this.#heap[0]!.atNs : Infinity;
    const nextNs = this.#alarm === null ? eventNs : Math.min(eventNs, this.#alarmNs);
    return Math.max(nextNs, this.#nowNs);
  }

  /** Runs what is posted, and what that posts, until nothing is; time stands still. */
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

  /** Lets `ns` nanoseconds pass, doing all that falls into them, the last instant included. */
  advance(ns: number): void {
    this.advanceTo(this.#nowNs + ns);
  }

  advanceTo(untilNs: number): void {
    while (this.step(untilNs));
    if (untilNs > this.#nowNs) this.#nowNs = untilNs;
  }

  /** Does the next thing if it is due by `untilNs`; returns whether it did. */
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
   * Runs until nothing is left to happen, for `limitNs` of virtual time at most. Returns whether it
   * came to rest; if not, exactly `limitNs` have passed.
   */
  runUntilIdle(limitNs: number): boolean {
    const untilNs = this.#nowNs + limitNs;
    while (this.step(untilNs));
    if (this.idle) return true;
    this.#nowNs = untilNs;
    return false;
  }

  /** Runs until `done()`, asked after each event; returns false if `limitNs` passed before that. */
  runUntil(done: () => boolean, limitNs: number): boolean {
    const untilNs = this.#nowNs + limitNs;
    this.runPosted();
    while (!done()) if (!this.step(untilNs)) return done();
    return true;
  }

  /** Takes the earliest of alarm and events out. */
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
