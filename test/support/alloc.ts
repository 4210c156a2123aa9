/** Measures the heap bytes that a function allocates per call. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');

// Coverage counters allocate memory themselves, so nothing can be measured under coverage.
const underCoverage = process.env['TAPNIC_COVERAGE'] === '1';

const WARM_UP = 20_000;
const CALLS = 100_000;
/**
 * Calls between two reads of the heap size. The number is small, so that a collection spoils few
 * calls.
 */
const BATCH = 5_000;
/**
 * Least and greatest number of measurements. The compiler runs in parallel, and optimises late on a
 * busy machine.
 */
const TRIES_LEAST = 2;
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

function leastGrowth(fn: () => unknown): number {
  for (let i = 0; i < WARM_UP; i++) fn();
  if (underCoverage) {
    for (let i = 0; i < CALLS; i++) fn();
    return 0;
  }
  let least = Number.POSITIVE_INFINITY;
  for (let t = 0; t < TRIES_MOST && (t < TRIES_LEAST || least >= 1); t++)
    least = Math.min(least, growthPerCall(fn));
  return least;
}

/**
 * Heap bytes that one call of `fn` allocates, garbage included. Returns the smallest of several
 * measurements, because the runtime's own work only adds bytes. About 0.2 means no allocation; one
 * small object gives about 40. Under coverage it calls `fn` as often as for one measurement and
 * returns 0.
 *
 * Inlining is off during the measurement, because the inlined calls depend on what else the process
 * has run. A number above 2^31 or a closure costs no memory if its callee is inlined, and is
 * allocated if it is not.
 */
export function bytesPerCall(fn: () => unknown): number {
  setFlagsFromString('--no-turbo-inlining');
  try {
    return leastGrowth(fn);
  } finally {
    setFlagsFromString('--turbo-inlining');
  }
}
