/** The mean ratio of paired figures, with its 95 % interval. */

/** Quantiles 0.975 of Student's t distribution, for 1 to 30 degrees of freedom. */
const T975 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145,
  2.131, 2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048,
  2.045, 2.042,
];

/** The quantile 0.975 of the t distribution; infinite for 0 degrees of freedom. */
function t975(df: number): number {
  if (df < 1) return Infinity;
  // Between 30 and infinity, 1.96 + 2.45 / df is right to 0.002.
  return T975[df - 1] ?? 1.96 + 2.45 / df;
}

/** A geometric mean of ratios with the bounds of its 95 % interval. */
export interface Interval {
  ratio: number;
  low: number;
  high: number;
}

/**
 * The interval of the mean of the logarithms, by the t distribution; the values must be independent.
 * A single value has no interval: its bounds are 0 and infinity.
 */
export function ratioInterval(ratios: readonly number[]): Interval {
  const logs = ratios.map(Math.log);
  const n = logs.length;
  const mean = logs.reduce((sum, x) => sum + x, 0) / n;
  if (n < 2) return { ratio: Math.exp(mean), low: 0, high: Infinity };
  const variance = logs.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (n - 1);
  const half = t975(n - 1) * Math.sqrt(variance / n);
  return { ratio: Math.exp(mean), low: Math.exp(mean - half), high: Math.exp(mean + half) };
}

/** Whether even the better end of the interval is worse than `tolerance` allows. */
export function isWorse(of: Interval, higherIsBetter: boolean, tolerance: number): boolean {
  return higherIsBetter ? of.high < 1 - tolerance : of.low > 1 + tolerance;
}
