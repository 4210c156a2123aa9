/**
 * Passes: one run of the stack from an entry point (interrupt, timer, system call, I/O completion)
 * until nothing is left to do. What must happen once per pass, such as ringing a doorbell or waking
 * a sleeper, is deferred to its end, so a burst of packets rings once. Ours: FreeBSD sleeps and
 * runs taskqueues instead.
 */

import type { Task } from './clock.ts';

let depth = 0;
let draining = false;
// What is deferred is queue[head .. tail); the array keeps its length, so that passes leave no garbage.
let head = 0;
let tail = 0;
const queue: (Task | null)[] = [];

function drain(): void {
  draining = true;
  depth++;
  try {
    while (head < tail) {
      const task = queue[head]!;
      queue[head++] = null;
      task.run();
    }
  } finally {
    if (head === tail) {
      head = 0;
      tail = 0;
    }
    depth--;
    draining = false;
  }
}

/** Opens a pass or joins the one that is open. */
export function passEnter(): void {
  depth++;
}

/** Closes a pass; the outermost one runs what was deferred, and what that defers, until none is left. */
export function passLeave(): void {
  depth--;
  if (depth === 0 && !draining && tail > 0) drain();
}

/**
 * Runs `task` at the end of the pass that is open, or now if none is. The caller sees to it that a
 * task is not deferred twice. First in, first out.
 */
export function passDefer(task: Task): void {
  queue[tail++] = task;
  if (depth === 0 && !draining) drain();
}

/** Forgets what is deferred. For tests that panicked inside a pass. */
export function passReset(): void {
  depth = 0;
  draining = false;
  head = 0;
  tail = 0;
  queue.length = 0;
}
