/**
 * Interrupts in real time. An event of the host, such as a readable descriptor, runs the interrupt
 * handlers that it raises in the same turn of the event loop. A handler may raise the next interrupt:
 * its doorbell makes the device send frames and read those that have arrived. So the device is polled
 * while frames arrive, as NAPI does on Linux. The loop polls descriptors again when no interrupt is
 * left, when a program waits for its turn, or at the limit.
 * Before the loop sleeps, an event may wait a short time for the next one (spin.ts).
 */

import { performance } from 'node:perf_hooks';
import type { Task } from '../sys/clock.ts';
import { passUpcallsWait } from '../sys/pass.ts';
import { Spin, SPIN_NS } from './spin.ts';

/** Handlers that one event runs, so that timers and other descriptors get their turns. */
const INTERRUPTS_MAX = 32;

/** Interrupts raised during the event. The array keeps its length, so that events make no garbage. */
const raised: (Task | null)[] = [];
let head = 0;
let tail = 0;
let inEvent = false;

const spin = new Spin();
let wait: ((ns: number) => boolean) | null = null;

/** Sets the function that waits, without sleeping, until the loop has something to do; false: not yet. */
export function hostSpin(fn: (ns: number) => boolean): void {
  wait = fn;
}

/** Runs `task`: at the end of the current event of the host, else in a later turn of the loop. */
export function interruptSoon(task: Task): void {
  if (inEvent) raised[tail++] = task;
  else setImmediate(runInterrupt, task);
}

/** An event of its own, for an interrupt that no event raised or that was left to the loop. */
function runInterrupt(task: Task): void {
  hostEventBegin();
  interruptSoon(task);
  hostEventEnd();
}

/** An event starts. The caller must call `hostEventEnd` in a `finally`. */
export function hostEventBegin(): void {
  inEvent = true;
}

/** An event of a descriptor starts. The caller must call `hostPollEnd` in a `finally`. */
export function hostPollBegin(): void {
  spin.begin(nowNs());
  hostEventBegin();
}

/** The handler of a descriptor's event has returned. */
export function hostPollEnd(): void {
  try {
    hostEventEnd();
    if (wait !== null && !passUpcallsWait() && spin.wanted()) spin.waited(wait(SPIN_NS));
  } finally {
    spin.end(nowNs());
  }
}

function nowNs(): number {
  return performance.now() * 1e6;
}

/** The event's handler has returned: runs the raised interrupts and leaves the rest to the loop. */
export function hostEventEnd(): void {
  try {
    for (let n = 0; head < tail && n < INTERRUPTS_MAX; n++) {
      if (n > 0 && passUpcallsWait()) break;
      raised[head++]!.run();
    }
  } finally {
    inEvent = false;
    while (head < tail) setImmediate(runInterrupt, raised[head++]!);
    for (let i = 0; i < tail; i++) raised[i] = null;
    head = 0;
    tail = 0;
  }
}
