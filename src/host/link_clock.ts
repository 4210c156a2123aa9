/**
 * The clock of a simulated link whose programs run in this event loop: virtual time that stands while programs
 * run, and advances when they have reacted to what happened.
 *
 * An upcall takes a turn of the event loop, as with the real clock, so that Node.js runs nextTick callbacks and
 * promise jobs after each. When no upcall waits, and some turns have passed in which a program may have
 * reacted, the next event runs, as far as time may go. What lets it go: `advance` to the time named;
 * `until`; and `LinkActivity`, what the network has under way. A real clock, `real`, lets it go as real time does.
 */

import type { Task } from '../sys/clock.ts';
import { ManualClock } from './manual_clock.ts';
import { type RealTimers, realTimers } from './real_timers.ts';

/** Turns of the event loop in which programs react before time advances: for their setImmediate. */
const REACT_TURNS = 3;
/** Events that run in one turn if none calls a program. */
const EVENTS_MAX = 256;
/** How much faster than real time `until`, and what is `slow`, lets time pass. */
const PACE = 1000;
/** Time between two looks whether a disk has been read, ms; most reads wake the clock themselves. */
const READ_MS = 2;
/** How long time stands for a disk that does not answer, ms. */
const READ_MAX_MS = 2000;
/** The longest delay of setTimeout, ms. */
const TIMER_MAX_MS = 0x7fffffff;

/**
 * What the network has under way: `fast`: something that ends by itself, such as a retransmission; `slow`:
 * something that may last as long as a program likes; `none`.
 */
export type Activity = 'fast' | 'slow' | 'none';

export interface LinkActivity {
  activity(): Activity;
  /** Whether the host still reads from a disk for a stack. Time stands meanwhile. */
  reading(): boolean;
}

/** How time advances by itself. */
export type LinkTime = 'auto' | 'manual' | 'real';

/** Somebody who waits for a time, or for the network to be quiet. */
interface Waiter {
  /** The time to reach, ns; Infinity: none. */
  readonly untilNs: number;
  /** Whether time may go on to `untilNs`: at once; as `activity` allows; or also when that is `none`, paced. */
  readonly how: 'go' | 'active' | 'paced';
  /** It waits no longer. Asked before each event. */
  done(): boolean;
  /** `reached`: the time is reached; else it was done, or with `active`, nothing is under way. */
  end(reached: boolean): void;
}

export class LinkClock extends ManualClock {
  readonly #real: RealTimers;
  #mode: LinkTime = 'manual';
  /** With `real`: when it began, real ms and virtual ns. */
  #began = { ms: 0, ns: 0 };
  #network: LinkActivity | null = null;
  /** Upcalls and other posted tasks that wait for their turn. */
  #posted = 0;
  /** Turns left for programs to react. */
  #react = 0;
  #armed = false;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;
  readonly #waiters = new Set<Waiter>();
  /** Since when a disk is read, real ms; null: none is. */
  #readMs: number | null = null;
  /** Where paced time began: real ms, virtual ns; null: time is not paced now. */
  #paced: { ms: number; ns: number } | null = null;

  constructor(real = realTimers) {
    super();
    this.#real = real;
  }

  get mode(): LinkTime {
    return this.#mode;
  }

  /** Changes the mode, which is `manual` before. */
  start(mode: LinkTime): void {
    this.#began = { ms: this.#real.now(), ns: this.nowNs() };
    this.#mode = mode;
    this.#wake();
  }

  /** Sets what drives `auto`. */
  follow(network: LinkActivity): void {
    this.#network = network;
    this.#wake();
  }

  /** Nothing runs any more. Waiters end as if done. */
  close(): void {
    this.#closed = true;
    if (this.#timer !== null) this.#real.clearTimeout(this.#timer);
    this.#timer = null;
    for (const waiter of this.#waiters) this.#end(waiter, false);
  }

  override nowNs(): number {
    if (this.#mode !== 'real') return super.nowNs();
    return this.#began.ns + Math.floor((this.#real.now() - this.#began.ms) * 1e6);
  }

  override setAlarm(deadlineNs: number, alarm: Task): void {
    super.setAlarm(deadlineNs, alarm);
    this.#wake();
  }

  override schedule(deadlineNs: number, event: Task): void {
    super.schedule(deadlineNs, event);
    this.#wake();
  }

  override post(task: Task): void {
    this.#posted++;
    this.#real.setImmediate(this.#runOne, task);
  }

  /** Runs before time advances, without a turn of its own. */
  override interrupt(task: Task): void {
    super.post(task);
    this.#wake();
  }

  /**
   * Lets time go to `untilNs` and runs everything that is due by then. Resolves when programs have reacted;
   * with false if the clock was closed before.
   */
  advanceTurns(untilNs: number): Promise<boolean> {
    return this.#wait('go', untilNs, () => false);
  }

  /**
   * Lets time go on until `done()`, at most to `untilNs`. With `paced`, idle timers run too. Resolves with
   * whether `untilNs` was reached before.
   */
  run(how: 'active' | 'paced', untilNs: number, done: () => boolean): Promise<boolean> {
    return this.#wait(how, untilNs, done);
  }

  /** Asks again whether waiters are done. */
  poke(): void {
    this.#wake();
  }

  #wait(how: Waiter['how'], untilNs: number, done: () => boolean): Promise<boolean> {
    return new Promise((resolve) => {
      if (this.#closed) return resolve(false);
      this.#waiters.add({ untilNs, how, done, end: resolve });
      this.#wake();
    });
  }

  #end(waiter: Waiter, reached: boolean): void {
    this.#waiters.delete(waiter);
    this.#react = REACT_TURNS;
    waiter.end(reached);
  }

  readonly #runOne = (task: Task): void => {
    try {
      task.run();
    } finally {
      this.#posted--;
      this.#wake();
    }
  };

  /** Something happened: programs get time to react, then events go on. */
  #wake(): void {
    if (this.#closed) return;
    this.#react = REACT_TURNS;
    this.#arm();
  }

  #arm(): void {
    if (this.#armed || this.#closed) return;
    this.#armed = true;
    this.#real.setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#armed = false;
    if (this.#closed) return;
    let going = true;
    try {
      going = this.#go();
    } finally {
      if (going) this.#arm();
    }
  };

  /** One turn. Returns whether another one is needed now. */
  #go(): boolean {
    // The last posted task wakes us.
    if (this.#posted > 0) return false;
    super.runPosted();
    if (this.#posted > 0) return false;
    if (this.#reads()) {
      this.#react = REACT_TURNS;
      this.#later(READ_MS);
      return false;
    }
    if (this.#react > 0) {
      this.#react--;
      return true;
    }
    for (let n = 0; n < EVENTS_MAX; n++) {
      // Those who waited react first.
      if (this.#endDone()) return true;
      const limitNs = this.#limit();
      if (!super.step(limitNs)) return this.#rest(limitNs);
      if (this.#posted > 0) return false;
    }
    return true;
  }

  /** Whether a disk is read, and not for so long that it may never answer. */
  #reads(): boolean {
    if (this.#network?.reading() !== true) {
      this.#readMs = null;
      return false;
    }
    this.#readMs ??= this.#real.now();
    return this.#real.now() - this.#readMs < READ_MAX_MS;
  }

  /** Ends the waiters that are done; returns whether there were any. */
  #endDone(): boolean {
    let ended = false;
    for (const waiter of this.#waiters) {
      if (!waiter.done()) continue;
      this.#end(waiter, false);
      ended = true;
    }
    return ended;
  }

  /** How far time may go now, ns. */
  #limit(): number {
    const now = this.nowNs();
    let goNs = now;
    let stopNs = Infinity;
    let paced = false;
    let active = this.#mode === 'auto';
    for (const waiter of this.#waiters) {
      stopNs = Math.min(stopNs, waiter.untilNs);
      if (waiter.how === 'go') goNs = Math.max(goNs, waiter.untilNs);
      else active = true;
      paced ||= waiter.how === 'paced';
    }
    if (this.#mode === 'real') return now;
    const activity = active ? this.#activity() : 'none';
    if (activity === 'fast') goNs = Infinity;
    paced ||= activity === 'slow' && this.#mode === 'auto';
    if (!paced || goNs > now) this.#paced = null;
    else goNs = this.#pacedNs();
    return Math.max(now, Math.min(goNs, stopNs));
  }

  #activity(): Activity {
    if (this.scheduled > 0) return 'fast';
    return this.#network?.activity() ?? 'none';
  }

  /** The time that paced time has reached. */
  #pacedNs(): number {
    const ms = this.#real.now();
    this.#paced ??= { ms, ns: this.nowNs() };
    return this.#paced.ns + Math.floor((ms - this.#paced.ms) * 1e6 * PACE);
  }

  /** Nothing is due up to `limitNs`. Returns whether another turn is needed now. */
  #rest(limitNs: number): boolean {
    if (limitNs < Infinity && this.#mode !== 'real') super.advanceTo(limitNs);
    const now = this.nowNs();
    let ended = false;
    for (const waiter of this.#waiters) {
      const reached = now >= waiter.untilNs;
      const quiet = this.nextNs === Infinity || this.#activity() !== 'fast';
      if (!reached && !(waiter.how === 'active' && quiet)) continue;
      this.#end(waiter, reached);
      ended = true;
    }
    if (!ended) this.#sleep();
    return ended;
  }

  /** Waits in real time for the next event that time will reach by itself. */
  #sleep(): void {
    const pace = this.#mode === 'real' ? 1 : PACE;
    if (pace > 1 && this.#paced === null) return;
    let dueNs = this.nextNs;
    for (const { untilNs } of this.#waiters) dueNs = Math.min(dueNs, untilNs);
    if (dueNs === Infinity) return;
    this.#later(Math.ceil((dueNs - this.nowNs()) / 1e6 / pace));
    // A timer of an idle network does not keep the process alive.
    if (this.#waiters.size === 0 && this.#activity() === 'none') this.#timer!.unref();
  }

  /** Takes a turn in `ms` milliseconds. */
  #later(ms: number): void {
    if (this.#timer !== null) this.#real.clearTimeout(this.#timer);
    this.#timer = this.#real.setTimeout(
      () => {
        this.#timer = null;
        this.#arm();
      },
      Math.min(Math.max(ms, 1), TIMER_MAX_MS),
    );
  }
}
