/** Runs a function repeatedly and refuses its first allocation, then its second, and so on. */

import { failPoint } from '../../src/sys/fail_point.ts';
import { inPass } from '../../src/sys/pass.ts';

/** The pools of the machine, by the names of their fail points. */
export const MEMORY_POOLS = [
  'mbuf',
  'mbuf_cluster',
  'mbuf_jumbo_page',
  'mbuf_jumbo_16k',
  'mbuf_extpgs',
  'sf_buf',
  'vm_page',
] as const;

/**
 * Runs `run(setup(), fired)` in a pass for k = 1, 2, … and refuses the k-th request that `run` makes to fail
 * point `name`. Ends when a run makes fewer than k requests, and returns that k. `fired()` returns
 * whether the refusal has happened. Throws after `max` runs.
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
      inPass(run, subject, () => point.fired > 0);
    } finally {
      point.disarm();
    }
    if (point.fired === 0) return k;
  }
  throw new Error(`${name}: still failing at request ${max}`);
}
