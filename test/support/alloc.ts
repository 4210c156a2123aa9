/** Proof that a per-packet path leaves no garbage. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');

// Coverage counters leave garbage of their own: nothing can be measured under them.
const underCoverage = process.env['TAPNIC_COVERAGE'] === '1';

const WARM_UP = 20_000;
const CALLS = 100_000;
/** Calls between two looks at the heap: few enough that a collection spoils few of them. */
const BATCH = 5_000;
/** The compiler works beside us: on a busy machine what it does about a number comes late. */
const TRIES_LEAST = 2;
const TRIES_MOST = 20;

/** Growth of the heap by one call, without the batches in which a collection shows as shrinking. */
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
 * Heap bytes that one call of `fn` leaves behind, garbage included: the least of a few measurements,
 * because the runtime's own work only ever adds. 0.2 is none; one small object is about 40.
 * Under coverage it calls `fn` as often as for one measurement and says 0.
 *
 * What is compiled meanwhile is compiled without inlining. Which calls are inlined depends on what
 * else the process has run, and a number above 2^31 or a closure costs nothing where its callee is
 * inlined and is garbage where it is not.
 */
export function bytesPerCall(fn: () => unknown): number {
  setFlagsFromString('--no-turbo-inlining');
  try {
    return leastGrowth(fn);
  } finally {
    setFlagsFromString('--turbo-inlining');
  }
}
