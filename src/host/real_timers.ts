/**
 * The timers of Node.js as they were when this module was loaded. Test runners replace the global ones by
 * simulated timers, which would stop a simulated link. The public API loads this module first.
 */

import { performance } from 'node:perf_hooks';

/** setImmediate, setTimeout and clearTimeout. */
export const soon = setImmediate;
export const after = setTimeout;
export const cancel = clearTimeout;
/** Milliseconds of the monotonic clock. */
export const realMs: () => number = performance.now.bind(performance);
