/** Percentiles of the time of single requests. */

import { type Latency, median, rounded } from './result.ts';

/** The percentiles of a plot. */
const PERCENTILES = [
  0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 92.5, 95, 97, 98, 99, 99.5, 99.9, 99.99, 100,
];

/** The value below or at which `percent` of the sorted values lie. */
function percentile(sorted: ArrayLike<number>, percent: number): number {
  const i = Math.ceil((percent / 100) * sorted.length) - 1;
  return sorted[Math.max(0, i)]!;
}

/** Percentiles of runs, each with its requests; null if there are no requests. */
export function latencyOf(runs: readonly (readonly number[])[]): Latency | null {
  const sorted = runs.filter((run) => run.length > 0).map((run) => Float64Array.from(run).sort());
  if (sorted.length === 0) return null;
  const all = Float64Array.from(runs.flat()).sort();
  const of = (percent: number): number =>
    rounded(median(sorted.map((run) => percentile(run, percent))));
  return {
    p50: of(50),
    p99: of(99),
    percentiles: PERCENTILES.map((p) => [p, rounded(percentile(all, p))]),
  };
}
