/** Proof that a per-packet path leaves no garbage. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');

// Coverage counters leave garbage of their own: nothing can be measured under them.
const underCoverage = process.env['TAPNIC_COVERAGE'] === '1';

const WARM_UP = 20_000;
const CALLS = 100_000;
const TRIES = 5;

/**
 * Heap bytes that one call of `fn` leaves behind, garbage included: the least of a few measurements,
 * because the runtime's own work only ever adds. 0.1 is none; one small object is about 40.
 * Under coverage it calls `fn` as often as for one measurement and says 0.
 */
export function bytesPerCall(fn: () => unknown): number {
  for (let i = 0; i < WARM_UP; i++) fn();
  if (underCoverage) {
    for (let i = 0; i < CALLS; i++) fn();
    return 0;
  }
  let least = Number.POSITIVE_INFINITY;
  for (let t = 0; t < TRIES; t++) {
    gc();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < CALLS; i++) fn();
    const grown = process.memoryUsage().heapUsed - before;
    // A collection in the middle shows as shrinking: such a measurement says nothing.
    if (grown >= 0) least = Math.min(least, grown / CALLS);
  }
  return least;
}
