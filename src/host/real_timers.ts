/**
 * The timers of Node.js as they were when this module was loaded. Test runners replace the global ones by
 * simulated timers, which would stop a simulated link. The public API loads this module first.
 */

import { performance } from 'node:perf_hooks';

/** Timers of Node.js, and the milliseconds of its monotonic clock. */
export interface RealTimers {
  readonly setImmediate: typeof setImmediate;
  readonly setTimeout: typeof setTimeout;
  readonly clearTimeout: typeof clearTimeout;
  readonly now: () => number;
}

export const realTimers: RealTimers = {
  setImmediate,
  setTimeout,
  clearTimeout,
  now: performance.now.bind(performance),
};
