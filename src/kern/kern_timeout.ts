/**
 * Callouts, after callout(9): one set of timers per machine, on one alarm of the Clock. They run in
 * order of deadline, then of arming. Arming and stopping take constant time, whatever the number of
 * callouts, and allocate nothing.
 *
 * Time is divided into ticks of 2^24 ns, about 17 ms. A callout that is due in a later tick than `tick`
 * is in a hierarchical timer wheel, in which nothing is sorted: four levels of 256 slots, of which one
 * slot spans 1, 2^8, 2^16 and 2^24 ticks. The others are in a binary heap, which sorts them. When a slot
 * has begun its callouts move to a finer level or to the heap. Each slot remembers its earliest deadline,
 * for which the alarm is set if the heap is empty.
 *
 *     tick of the deadline:  | level 3 | level 2 | level 1 | level 0 |   8 bits each
 *
 * The level is that of the highest digit in which the deadline differs from `tick`; the digit is the
 * slot. Left out: precision, drain, per-CPU placement.
 */

import type { Clock, Task } from '../sys/clock.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass, passClock, passTime } from '../sys/pass.ts';

/** A timer of any kind. An object with one timer extends it, which saves an object. */
export abstract class AnyCallout {
  /** Absolute deadline in nanoseconds of the Clock; meaningful while pending. */
  c_time = 0;
  /** Arming order modulo 2^32; it breaks ties between equal deadlines. */
  c_seq = 0;
  /** Place in the heap; -1 while not pending; -2 - i in slot i of the wheel. */
  c_pos = NOT_PENDING;
  c_next: AnyCallout | null = null;
  c_prev: AnyCallout | null = null;

  /** Runs when due, inside a pass. */
  abstract c_run(): void;
}

/** One timer. Preallocate it with its object. @see callout(9) */
export class Callout extends AnyCallout {
  readonly c_func: Task;

  constructor(c_func: Task) {
    super();
    this.c_func = c_func;
  }

  override c_run(): void {
    this.c_func.run();
  }
}

const NOT_PENDING = -1;
const TICK_NS = 1 << 24;
const DIGIT = 8;
const SLOTS = 1 << DIGIT;
const LEVELS = 4;
/** Later deadlines are put into the slot of this one, and back again from there. */
const TICK_MAX = 0x3fffffff;
/** Words of the bitmap of one level. */
const WORDS = SLOTS / 32;

let clock: Clock | null = null;
let heap: AnyCallout[] = [];
/** Callouts that are due up to this tick are in the heap. */
let tick = 0;
/** First callout of each slot, level by level, and a bit for each slot that has any. */
const wheel: (AnyCallout | null)[] = Array.from({ length: LEVELS * SLOTS }, () => null);
const occupied = new Int32Array(LEVELS * WORDS);
/** The earliest deadline in each slot; NaN: unknown, because its callout was removed. */
const earliest = new Float64Array(LEVELS * SLOTS);
/** Callouts in the heap and in the wheel. */
let pending = 0;
let armed = 0;
let running = false;

function before(a: AnyCallout, b: AnyCallout): boolean {
  return a.c_time < b.c_time || (a.c_time === b.c_time && ((a.c_seq - b.c_seq) | 0) < 0);
}

function place(c: AnyCallout, pos: number): void {
  heap[pos] = c;
  c.c_pos = pos;
}

function siftUp(c: AnyCallout, pos: number): void {
  while (pos > 0) {
    const parent = (pos - 1) >> 1;
    if (!before(c, heap[parent]!)) break;
    place(heap[parent]!, pos);
    pos = parent;
  }
  place(c, pos);
}

function siftDown(c: AnyCallout, pos: number): void {
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

function heapRemove(c: AnyCallout): void {
  const pos = c.c_pos;
  const last = heap.pop()!;
  if (last === c) return;
  if (pos > 0 && before(last, heap[(pos - 1) >> 1]!)) siftUp(last, pos);
  else siftDown(last, pos);
}

function wheelRemove(c: AnyCallout): void {
  const slot = -2 - c.c_pos;
  if (c.c_next !== null) c.c_next.c_prev = c.c_prev;
  if (c.c_prev !== null) c.c_prev.c_next = c.c_next;
  else wheel[slot] = c.c_next;
  if (wheel[slot] === null) occupied[slot >> 5]! &= ~(1 << (slot & 31));
  if (earliest[slot] === c.c_time) earliest[slot] = NaN;
  c.c_next = null;
  c.c_prev = null;
}

function remove(c: AnyCallout): void {
  if (c.c_pos >= 0) heapRemove(c);
  else wheelRemove(c);
  c.c_pos = NOT_PENDING;
  pending--;
}

/** Puts a callout that is in neither into the heap or the wheel. */
function insert(c: AnyCallout): void {
  const due = Math.min(Math.floor(c.c_time / TICK_NS), TICK_MAX);
  if (due <= tick) {
    heap.push(c);
    siftUp(c, heap.length - 1);
    return;
  }
  const level = (31 - Math.clz32(due ^ tick)) >> 3;
  const slot = level * SLOTS + ((due >> (level * DIGIT)) & (SLOTS - 1));
  const next = wheel[slot]!;
  c.c_next = next;
  if (next !== null) next.c_prev = c;
  // A slot that was empty has only this deadline. An unknown one stays unknown.
  if (next === null || c.c_time < earliest[slot]!) earliest[slot] = c.c_time;
  wheel[slot] = c;
  c.c_pos = -2 - slot;
  occupied[slot >> 5]! |= 1 << (slot & 31);
}

/** The first slot of the wheel that has callouts; -1: none. */
function firstSlot(): number {
  // A slot before the present one of its level is empty, and a finer level ends before a coarser one
  // goes on.
  for (let w = 0; w < occupied.length; w++)
    if (occupied[w] !== 0) return w * 32 + 31 - Math.clz32(occupied[w]! & -occupied[w]!);
  return -1;
}

/** The tick at which a slot of the wheel begins. */
function slotTick(slot: number): number {
  const shift = (slot >> DIGIT) * DIGIT;
  const digit = slot & (SLOTS - 1);
  // The higher digits are those of `tick`.
  return (((tick >> shift) & ~(SLOTS - 1)) | digit) << shift;
}

/** The earliest deadline of all callouts; some must be pending. */
function firstDeadline(): number {
  if (heap.length > 0) return heap[0]!.c_time;
  const slot = firstSlot();
  let due = earliest[slot]!;
  if (!Number.isNaN(due)) return due;
  due = Infinity;
  for (let c: AnyCallout | null = wheel[slot]!; c !== null; c = c.c_next)
    if (c.c_time < due) due = c.c_time;
  earliest[slot] = due;
  return due;
}

/** Proceeds to the tick of `now`: moves the callouts of the slots that have begun. */
function advance(now: number): void {
  const to = Math.min(Math.floor(now / TICK_NS), TICK_MAX);
  for (let slot = firstSlot(); slot >= 0; slot = firstSlot()) {
    const begin = slotTick(slot);
    if (begin > to) break;
    tick = begin;
    let c: AnyCallout | null = wheel[slot]!;
    wheel[slot] = null;
    occupied[slot >> 5]! &= ~(1 << (slot & 31));
    while (c !== null) {
      const next: AnyCallout | null = c.c_next;
      c.c_next = null;
      c.c_prev = null;
      insert(c);
      c = next;
    }
  }
  if (to > tick) tick = to;
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
  advance(now);
  try {
    // Run at most the number of callouts pending at the start. A callout that rearms itself with an
    // expired deadline then waits for the next alarm.
    for (let n = pending; n > 0 && heap.length > 0 && heap[0]!.c_time <= now; n--) {
      const c = heap[0]!;
      remove(c);
      c.c_run();
    }
  } finally {
    running = false;
    if (pending > 0) setAlarm(firstDeadline());
  }
}

let armedFor = Infinity;

/** Sets the clock's alarm for `due` unless an earlier alarm is already set. */
function setAlarm(due: number): void {
  if (running || due >= armedFor) return;
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
  for (const c of heap) c.c_pos = NOT_PENDING;
  for (const first of wheel)
    for (let c = first; c !== null;) {
      const next: AnyCallout | null = c.c_next;
      c.c_pos = NOT_PENDING;
      c.c_next = null;
      c.c_prev = null;
      c = next;
    }
  heap = [];
  wheel.fill(null);
  occupied.fill(0);
  tick = 0;
  pending = 0;
  armed = 0;
  armedFor = Infinity;
  running = false;
}

/** The machine's clock. Panics before boot. */
export function machineClock(): Clock {
  KASSERT(clock !== null, 'machineClock: not booted');
  return clock;
}

/** Nanoseconds since boot, monotonic: one time for the whole pass, as FreeBSD's tick. */
export function nowNs(): number {
  return passTime(clock!);
}

/** (Re)arms `c` to run `delayNs` nanoseconds from now. @see callout(9) */
export function callout_reset(c: AnyCallout, delayNs: number): void {
  if (c.c_pos !== NOT_PENDING) remove(c);
  const now = clock!.nowNs();
  if (Math.floor(now / TICK_NS) !== tick) advance(now);
  c.c_time = now + delayNs;
  c.c_seq = armed;
  armed = (armed + 1) | 0;
  pending++;
  insert(c);
  // The alarm is not later than any other deadline.
  setAlarm(c.c_time);
}

/** Stops `c`; returns whether it was pending. @see callout(9) */
export function callout_stop(c: AnyCallout): boolean {
  if (c.c_pos === NOT_PENDING) return false;
  remove(c);
  return true;
}

/** Whether `c` is armed. @see callout(9) */
export function callout_pending(c: AnyCallout): boolean {
  return c.c_pos !== NOT_PENDING;
}

/** Number of pending callouts. */
export function calloutsPending(): number {
  return pending;
}
