/** Walks an allocator's failures: the first request refused, then the second, until none is reached. */

import { failPoint } from '../../src/sys/fail_point.ts';

/** The pools of the machine, by the names of their fail points. */
export const MEMORY_POOLS = [
  'mbuf',
  'mbuf_cluster',
  'mbuf_jumbo_page',
  'mbuf_extpgs',
  'sf_buf',
  'vm_page',
] as const;

/**
 * Runs `run(setup(), fired)` with the `k`-th request that `run` makes to the fail point `name`
 * refused, for k = 1, 2, … until a run makes fewer than k requests; returns that k. `fired()` tells
 * whether the refusal has happened yet. Throws if `max` runs do not reach the end.
 */
export function eachFailure<T>(
  name: string,
  setup: () => T,
  run: (subject: T, fired: () => boolean) => void,
  max = 10_000,
): number {
  const point = failPoint(name);
  for (let k = 1; k <= max; k++) {
    const subject = setup();
    point.arm(k);
    try {
      run(subject, () => point.fired > 0);
    } finally {
      point.disarm();
    }
    if (point.fired === 0) return k;
  }
  throw new Error(`${name}: still failing at request ${max}`);
}
