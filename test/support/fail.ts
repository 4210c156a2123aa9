/** Walks an allocator's failures: the first request refused, then the second, until none is reached. */

import { failPoint } from '../../src/sys/fail_point.ts';

/**
 * Runs `body(k)` with the `k`-th request to the fail point `name` refused, for k = 1, 2, … until a
 * run makes fewer than k requests; returns that k. `body` sees a point that is armed and whether it
 * fired by `failPoint(name).fired`. Throws if `max` runs do not reach the end.
 */
export function eachFailure(name: string, body: (k: number) => void, max = 10_000): number {
  const point = failPoint(name);
  for (let k = 1; k <= max; k++) {
    point.arm(k);
    try {
      body(k);
    } finally {
      point.disarm();
    }
    if (point.fired === 0) return k;
  }
  throw new Error(`${name}: still failing at request ${max}`);
}
