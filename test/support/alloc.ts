/** Measures the heap bytes that a function allocates per call. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');

const WARM_UP = 20_000;
const CALLS = 100_000;
/**
 * Calls between two reads of the heap size. The number is small, so that a collection spoils few
 * calls.
 */
const BATCH = 5_000;
/**
 * Greatest number of measurements. The compiler runs in parallel, and optimises late on a busy
 * machine.
 */
const TRIES_MOST = 20;

/**
 * Heap growth per call. Batches in which the heap shrank, because a collection ran, are left out.
 */
function growthPerCall(fn: () => unknown): number {
  gc();
  let grown = 0;
  let calls = 0;
  for (let b = 0; b < CALLS / BATCH; b++) {
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < BATCH; i++) fn();
    const more = process.memoryUsage().heapUsed - before;
    if (more < 0) continue;
    grown += more;
    calls += BATCH;
  }
  return calls === 0 ? Number.POSITIVE_INFINITY : grown / calls;
}

function leastGrowth(fn: () => unknown, enough: number): number {
  for (let i = 0; i < WARM_UP; i++) fn();
  let least = Number.POSITIVE_INFINITY;
  for (let t = 0; t < TRIES_MOST && least >= enough; t++)
    least = Math.min(least, growthPerCall(fn));
  return least;
}

/**
 * Heap bytes that one call of `fn` allocates, garbage included. The runtime's own work only adds
 * bytes, so the first measurement below `enough` is returned, or else the smallest of twenty. About 0.2
 * means no allocation; one small object gives about 40.
 *
 * Inlining is off during the measurement, because the inlined calls depend on what else the process
 * has run. A number above 2^31 or a closure costs no memory if its callee is inlined, and is
 * allocated if it is not.
 */
export function bytesPerCall(fn: () => unknown, enough = 1): number {
  setFlagsFromString('--no-turbo-inlining');
  try {
    return leastGrowth(fn, enough);
  } finally {
    setFlagsFromString('--turbo-inlining');
  }
}
