/** How often fast-check runs a property. A failure prints its seed; TAPNIC_SEED replays it. */

import { full } from './needs.ts';

/** Settings for `n` runs at CI size, twenty times as many at full size. */
export function runs(n: number): { numRuns: number; seed?: number } {
  const seed = process.env['TAPNIC_SEED'];
  const numRuns = full ? n * 20 : n;
  return seed === undefined ? { numRuns } : { numRuns, seed: Number(seed) };
}
