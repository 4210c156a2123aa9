/**
 * Passes: one run of the stack from an entry point (a socket call, a timer, an interrupt, a control
 * command, a completed I/O) until nothing is left to do. `inPass` is the only entry. One pass is
 * open at a time, so module-level work records are safe. What the stack puts off runs when the
 * outermost entry returns, in three steps: deferred work, then doorbells, then upcalls to programs.
 * Ours: FreeBSD sleeps and runs taskqueues instead.
 */

import type { Clock, Task } from './clock.ts';
import { KASSERT } from './kassert.ts';

/** Calls out of the kernel into a program. It runs with no pass open, so it may call anything. */
export interface Upcall {
  upcall(): void;
}

/** First in, first out. The array keeps its length, so that passes leave no garbage. */
class PassQueue<T> {
  // What waits is items[head .. tail).
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
    }
    return item;
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

/** A pass is open: code of the stack runs, or what it deferred. */
let open = false;
/** The loop over the upcalls is on the call stack. */
let calling = false;
/** Where exceptions of upcalls go. */
let clock: Clock | null = null;

/** Stands for "nothing was thrown", because `undefined` can be thrown. */
const NOTHING: unique symbol = Symbol('nothing');

/** What was thrown in one pass: the first error as it is, or all of them in one AggregateError. */
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

/** Runs the deferred work, and the doorbells when none is left. Closes the pass. */
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

/** Throws a program's exception from the event loop. */
class Rethrow implements Task {
  readonly #error: unknown;

  constructor(error: unknown) {
    this.#error = error;
  }

  run(): void {
    throw this.#error;
  }
}

/** Runs the upcalls one at a time, those included that an upcall's own passes ask for. */
function callUp(failure: unknown): unknown {
  calling = true;
  for (let up = upcalls.shift(); up !== null; up = upcalls.shift()) {
    try {
      up.upcall();
    } catch (e) {
      if (clock !== null) clock.post(new Rethrow(e));
      else failure = withError(failure, e);
    }
  }
  calling = false;
  return failure;
}

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
 * Calls `fn` with up to eight arguments inside a pass and returns its result. While a pass is open
 * the call joins it. Else it opens one, and when `fn` has returned or thrown:
 *
 * 1. Deferred work runs, first in, first out, including what it defers.
 * 2. Doorbells ring, each once. What they defer runs before the next one.
 * 3. The pass is closed, and upcalls run one at a time. An upcall may call anything: that opens the
 *    next pass, whose own upcalls wait behind those that wait already.
 *
 * An exception in any of these does not skip the rest. One of `fn`, of deferred work or of a doorbell
 * is thrown at the end, out of the call that opened the pass; several are thrown as one
 * AggregateError, that of `fn` first. The exception of an upcall is posted to the machine's clock,
 * whose event loop throws it: the call that opened the pass may be another program's, and has to get
 * its result. Without a clock it is thrown at the end like the others.
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
  let failure: unknown = NOTHING;
  let result: unknown;
  try {
    result = fn(a, b, c, d, e, f, g, h);
  } catch (err) {
    failure = err;
  }
  failure = endPass(failure);
  if (!calling) failure = callUp(failure);
  if (failure !== NOTHING) throw failure;
  return result;
}

/** For `inPass(runTask, task)`. */
export function runTask(task: Task): void {
  task.run();
}

/**
 * Runs `task` at the end of the open pass, first in, first out. The caller sees to it that a task is
 * not deferred twice. Panics outside a pass.
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
 * Runs `up` after the open pass, with no pass open. The caller sees to it that an upcall does not
 * wait twice. Panics outside a pass.
 */
export function passUpcall(up: Upcall): void {
  KASSERT(open, 'passUpcall: no pass is open');
  upcalls.push(up);
}

/** Module-level scratch that one call of a function uses at a time. */
export interface WorkRecord {
  /** A call that uses it is under way. */
  entered: boolean;
}

/** Begins to use a record. Panics if it is in use. Pair it with `recordLeave` in a `finally`. */
export function recordEnter(record: WorkRecord): void {
  KASSERT(!record.entered, 'recordEnter: the record is in use');
  record.entered = true;
}

/** Ends the use of a record. */
export function recordLeave(record: WorkRecord): void {
  record.entered = false;
}

/** Gives passes the clock whose loop throws what upcalls throw. Called at boot. */
export function passClock(c: Clock): void {
  clock = c;
}

/** Forgets the clock and what waits, and closes the pass. Called at boot. */
export function passReset(): void {
  clock = null;
  open = false;
  calling = false;
  deferred.clear();
  doorbells.clear();
  upcalls.clear();
}
