/**
 * Passes: one run of the stack from an entry point (a socket call, a timer, an interrupt, a control
 * command, a completed I/O) until nothing is left to do. `inPass` is the only entry. One pass is
 * open at a time, so module-level work records are safe. Deferred work runs when the outermost
 * entry returns, in two steps: deferred tasks, then doorbells. Upcalls to programs run later, each in
 * its own turn of the event loop. Unlike FreeBSD, which sleeps and runs taskqueues.
 */

import type { Clock, Task } from './clock.ts';
import { KASSERT } from './kassert.ts';

/**
 * A call from the kernel into a program. It runs with no pass open and no call of a program on the
 * call stack, so it may call any function and may throw.
 */
export interface Upcall {
  upcall(): void;
}

/** The number of removed items at the front from which `shift` moves the others. */
const GAP_MIN = 256;

/** A first-in, first-out queue. The array keeps its length, so that passes create no garbage. */
class PassQueue<T> {
  // The queued items are items[head .. tail).
  head = 0;
  tail = 0;
  readonly items: (T | null)[] = [];

  push(item: T): void {
    this.items[this.tail++] = item;
  }

  /** Removes and returns the first item; null if the queue is empty. */
  shift(): T | null {
    if (this.head === this.tail) return null;
    const item = this.items[this.head]!;
    this.items[this.head++] = null;
    if (this.head === this.tail) {
      this.head = 0;
      this.tail = 0;
    } else if (this.head >= GAP_MIN && 2 * this.head >= this.tail) {
      this.#closeUp();
    }
    return item;
  }

  /** Moves the queued items to the front, so that a queue that is never empty does not grow. */
  #closeUp(): void {
    const { head, tail, items } = this;
    for (let i = head; i < tail; i++) {
      items[i - head] = items[i]!;
      items[i] = null;
    }
    this.head = 0;
    this.tail = tail - head;
  }

  clear(): void {
    this.head = 0;
    this.tail = 0;
    this.items.length = 0;
  }
}

const deferred = new PassQueue<Task>();
const doorbells = new PassQueue<Task>();
const upcalls = new PassQueue<Upcall>();

/** Whether a pass is open: stack code or deferred work is running. */
let open = false;
/** Passes opened so far. */
let passes = 0;
/** The time of the pass with the number `timeOf`. */
let timeNs = 0;
let timeOf = 0;
/** The clock whose event loop runs upcalls. */
let clock: Clock | null = null;

/** Means "nothing was thrown", because `undefined` can be thrown. */
const NOTHING: unique symbol = Symbol('nothing');

/** Adds `error` to what the pass has thrown: one error alone, or several in one AggregateError. */
function withError(before: unknown, error: unknown): unknown {
  if (before === NOTHING) return error;
  const errors: unknown[] =
    before instanceof PassErrors ? [...before.errors, error] : [before, error];
  return new PassErrors(errors);
}

/** Several errors of one pass, the first one first. */
class PassErrors extends AggregateError {
  constructor(errors: unknown[]) {
    super(errors, errors.map(String).join('; '));
  }
}

/**
 * Runs the deferred work, and the doorbells when no deferred work is left. Closes the pass. Returns
 * `failure` with the errors added.
 */
function endPass(failure: unknown): unknown {
  for (;;) {
    const task = deferred.shift() ?? doorbells.shift();
    if (task === null) break;
    try {
      task.run();
    } catch (e) {
      failure = withError(failure, e);
    }
  }
  open = false;
  return failure;
}

/** One turn of the event loop. It runs one upcall. */
const turn: Task = {
  run(): void {
    upcalls.shift()?.upcall();
  },
};

type PassFn = (
  a?: unknown,
  b?: unknown,
  c?: unknown,
  d?: unknown,
  e?: unknown,
  f?: unknown,
  g?: unknown,
  h?: unknown,
) => unknown;

/**
 * Calls `fn` with up to eight arguments inside a pass and returns its result. If a pass is open,
 * `fn` runs in it. Otherwise inPass opens one, and after `fn` has returned or thrown:
 *
 * 1. Deferred tasks run, first in, first out, including tasks that they defer.
 * 2. Doorbells run in order. Tasks that a doorbell defers run before the next doorbell.
 * 3. The pass is closed.
 *
 * An exception in one of these does not skip the rest. The call that opened the pass throws it at the
 * end; several are thrown as one AggregateError, that of `fn` first. Upcalls that were queued run
 * after the call, see `passUpcall`.
 */
export function inPass<R>(fn: () => R): R;
export function inPass<A, R>(fn: (a: A) => R, a: A): R;
export function inPass<A, B, R>(fn: (a: A, b: B) => R, a: A, b: B): R;
export function inPass<A, B, C, R>(fn: (a: A, b: B, c: C) => R, a: A, b: B, c: C): R;
export function inPass<A, B, C, D, R>(fn: (a: A, b: B, c: C, d: D) => R, a: A, b: B, c: C, d: D): R;
export function inPass<A, B, C, D, E, R>(
  fn: (a: A, b: B, c: C, d: D, e: E) => R,
  a: A,
  b: B,
  c: C,
  d: D,
  e: E,
): R;
export function inPass<A, B, C, D, E, F, R>(
  fn: (a: A, b: B, c: C, d: D, e: E, f: F) => R,
  a: A,
  b: B,
  c: C,
  d: D,
  e: E,
  f: F,
): R;
export function inPass<A, B, C, D, E, F, G, R>(
  fn: (a: A, b: B, c: C, d: D, e: E, f: F, g: G) => R,
  a: A,
  b: B,
  c: C,
  d: D,
  e: E,
  f: F,
  g: G,
): R;
export function inPass<A, B, C, D, E, F, G, H, R>(
  fn: (a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H) => R,
  a: A,
  b: B,
  c: C,
  d: D,
  e: E,
  f: F,
  g: G,
  h: H,
): R;
export function inPass(
  fn: PassFn,
  a?: unknown,
  b?: unknown,
  c?: unknown,
  d?: unknown,
  e?: unknown,
  f?: unknown,
  g?: unknown,
  h?: unknown,
): unknown {
  if (open) return fn(a, b, c, d, e, f, g, h);
  open = true;
  passes++;
  let failure: unknown = NOTHING;
  let result: unknown;
  try {
    result = fn(a, b, c, d, e, f, g, h);
  } catch (err) {
    failure = err;
  }
  failure = endPass(failure);
  if (failure !== NOTHING) throw failure;
  return result;
}

/** The number of the open pass, or of the last one. For work that is limited per pass. */
export function passNumber(): number {
  return passes;
}

/**
 * The time of `c` at the first call in the open pass; outside a pass the time now. A pass is short, and a
 * reading of the clock takes as long as the whole input of a small packet.
 */
export function passTime(c: Clock): number {
  if (!open) return c.nowNs();
  if (timeOf !== passes) {
    timeOf = passes;
    timeNs = c.nowNs();
  }
  return timeNs;
}

/** For `inPass(runTask, task)`. */
export function runTask(task: Task): void {
  task.run();
}

/**
 * Runs `task` at the end of the open pass, first in, first out. The caller must not defer a task
 * twice. Panics outside a pass.
 */
export function passDefer(task: Task): void {
  KASSERT(open, 'passDefer: no pass is open');
  deferred.push(task);
}

/** Runs `task` when the open pass has no deferred work left. Panics outside a pass. */
export function passDoorbell(task: Task): void {
  KASSERT(open, 'passDoorbell: no pass is open');
  doorbells.push(task);
}

/**
 * Runs `up` in a later turn of the machine's event loop, first in, first out. An upcall
 * that is queued several times runs as often; the caller must limit that. The event loop throws an
 * exception of `up`, and the next upcalls still run. A turn runs one upcall, and an upcall that it
 * queues gets a later turn, so programs that answer each other do not block the loop. Panics outside a
 * pass and before boot.
 */
export function passUpcall(up: Upcall): void {
  KASSERT(open, 'passUpcall: no pass is open');
  KASSERT(clock !== null, 'passUpcall: no clock');
  upcalls.push(up);
  clock.post(turn);
}

/** Whether upcalls wait for their turn. */
export function passUpcallsWait(): boolean {
  return upcalls.head !== upcalls.tail;
}

/** A module-level work record. Only one call at a time may use it. */
export interface WorkRecord {
  /** Whether a call uses the record. */
  entered: boolean;
}

/** Marks a record as in use. Panics if it is already in use. Call `recordLeave` in a `finally`. */
export function recordEnter(record: WorkRecord): void {
  KASSERT(!record.entered, 'recordEnter: the record is in use');
  record.entered = true;
}

/** Marks a record as free. */
export function recordLeave(record: WorkRecord): void {
  record.entered = false;
}

/** Sets the clock whose event loop runs upcalls. Called at boot. */
export function passClock(c: Clock): void {
  clock = c;
}

/** Removes the clock, discards all queued work and closes the pass. Called at boot. */
export function passReset(): void {
  clock = null;
  open = false;
  timeOf = 0;
  deferred.clear();
  doorbells.clear();
  upcalls.clear();
}
