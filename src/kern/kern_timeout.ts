/**
 * Callouts, after callout(9): one set of timers per machine, on one alarm of the Clock. A binary
 * heap orders them by deadline, then by order of arming. Stopping and rearming allocate nothing.
 * Left out: callwheels, precision, drain, per-CPU placement.
 */

import type { Clock, Task } from '../sys/clock.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass, passClock } from '../sys/pass.ts';

let clock: Clock | null = null;
let heap: Callout[] = [];
let armed = 0;
let running = false;

/** One timer. Preallocate it with its object. @see callout(9) */
export class Callout {
  /** Absolute deadline in nanoseconds of the Clock; meaningful while pending. */
  c_time = 0;
  /** Arming order; it breaks ties between equal deadlines. */
  seq = 0;
  /** Place in the heap; -1 while not pending. */
  pos = -1;
  /** Runs when due, inside a pass. */
  readonly c_func: Task;

  constructor(c_func: Task) {
    this.c_func = c_func;
  }
}

function before(a: Callout, b: Callout): boolean {
  return a.c_time < b.c_time || (a.c_time === b.c_time && a.seq < b.seq);
}

function place(c: Callout, pos: number): void {
  heap[pos] = c;
  c.pos = pos;
}

function siftUp(c: Callout, pos: number): void {
  while (pos > 0) {
    const parent = (pos - 1) >> 1;
    if (!before(c, heap[parent]!)) break;
    place(heap[parent]!, pos);
    pos = parent;
  }
  place(c, pos);
}

function siftDown(c: Callout, pos: number): void {
  const n = heap.length;
  for (;;) {
    let child = 2 * pos + 1;
    if (child >= n) break;
    if (child + 1 < n && before(heap[child + 1]!, heap[child]!)) child++;
    if (!before(heap[child]!, c)) break;
    place(heap[child]!, pos);
    pos = child;
  }
  place(c, pos);
}

function remove(c: Callout): void {
  const pos = c.pos;
  const last = heap.pop()!;
  c.pos = -1;
  if (last === c) return;
  if (pos > 0 && before(last, heap[(pos - 1) >> 1]!)) siftUp(last, pos);
  else siftDown(last, pos);
}

const alarm: Task = {
  run(): void {
    armedFor = Infinity;
    inPass(runDue);
  },
};

/** Runs the callouts that are due and sets the alarm for the next one. */
function runDue(): void {
  const now = clock!.nowNs();
  running = true;
  try {
    // Run at most the number of callouts pending at the start. A callout that rearms itself with an
    // expired deadline then waits for the next alarm.
    for (let n = heap.length; n > 0 && heap.length > 0 && heap[0]!.c_time <= now; n--) {
      const c = heap[0]!;
      remove(c);
      c.c_func.run();
    }
  } finally {
    running = false;
    rearm();
  }
}

let armedFor = Infinity;

/** Sets the clock's alarm for the earliest callout, unless an earlier alarm is already set. */
function rearm(): void {
  if (running || heap.length === 0) return;
  const due = heap[0]!.c_time;
  if (due >= armedFor) return;
  armedFor = due;
  clock!.setAlarm(due, alarm);
}

/** Sets the machine's clock and cancels all callouts. Called at boot. */
export function timeoutInit(c: Clock): void {
  timeoutEnd();
  passClock(c);
  clock = c;
}

/** Cancels all callouts and the alarm. Called at shutdown. */
export function timeoutEnd(): void {
  clock?.clearAlarm();
  for (const pending of heap) pending.pos = -1;
  heap = [];
  armed = 0;
  armedFor = Infinity;
  running = false;
}

/** The machine's clock. Panics before boot. */
export function machineClock(): Clock {
  KASSERT(clock !== null, 'machineClock: not booted');
  return clock;
}

/** Nanoseconds since boot, monotonic. */
export function nowNs(): number {
  return clock!.nowNs();
}

/** (Re)arms `c` to run `delayNs` nanoseconds from now. @see callout(9) */
export function callout_reset(c: Callout, delayNs: number): void {
  if (c.pos >= 0) remove(c);
  c.c_time = clock!.nowNs() + delayNs;
  c.seq = armed++;
  heap.push(c);
  siftUp(c, heap.length - 1);
  rearm();
}

/** Stops `c`; returns whether it was pending. @see callout(9) */
export function callout_stop(c: Callout): boolean {
  if (c.pos < 0) return false;
  remove(c);
  return true;
}

/** Whether `c` is armed. @see callout(9) */
export function callout_pending(c: Callout): boolean {
  return c.pos >= 0;
}

/** Number of pending callouts. */
export function calloutsPending(): number {
  return heap.length;
}
