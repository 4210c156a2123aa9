/** Axes of plots: places from 0 to 1 for values, and round values for the ticks. */

import type { Tick } from './svg.ts';

export interface Scale {
  readonly place: (value: number) => number;
  readonly ticks: readonly Tick[];
}

/** From this ratio of the largest to the smallest value an axis is logarithmic. */
const LOG_FROM = 40;

/** A number with at most three digits and a unit prefix: `1.5k`. */
export function short(n: number): string {
  const prefixes = [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const;
  const [by, prefix] = prefixes.find(([factor]) => n >= factor) ?? [1, ''];
  return `${Number((n / by).toPrecision(3))}${prefix}`;
}

/** A size in bytes, as a power of 1024 if it is one. */
export function bytesText(n: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  const i = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, n)) / 10));
  return `${Number((n / 1024 ** i).toPrecision(3))} ${units[i]}`;
}

function linear(values: readonly number[]): Scale {
  const top = Math.max(...values);
  const rough = top / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough)!;
  const count = Math.ceil(top / step);
  const place = (value: number): number => value / (count * step);
  const ticks = Array.from({ length: count + 1 }, (_none, i) => {
    const value = Number((i * step).toPrecision(6));
    return { at: place(value), label: short(value) };
  });
  return { place, ticks };
}

function logarithmic(values: readonly number[]): Scale {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
  const place = (value: number): number => (Math.log10(value) - low) / (high - low);
  const ticks = Array.from({ length: high - low + 1 }, (_none, i) => ({
    at: i / (high - low),
    label: short(Number((10 ** (low + i)).toPrecision(6))),
  }));
  return { place, ticks };
}

/** An axis for positive values: from 0, or logarithmic if they differ much. */
export function valueScale(values: readonly number[]): Scale {
  const least = Math.min(...values);
  return least > 0 && Math.max(...values) / least >= LOG_FROM
    ? logarithmic(values)
    : linear(values);
}

/** A logarithmic axis with a tick at each of the values, which are in order. */
export function logPoints(values: readonly number[], label: (n: number) => string): Scale {
  const [first = 1] = values;
  const span = Math.log(values.at(-1)! / first) || 1;
  const place = (value: number): number => 0.02 + (0.96 * Math.log(value / first)) / span;
  return { place, ticks: values.map((value) => ({ at: place(value), label: label(value) })) };
}

/** An axis with a tick at each of the values, all equally far apart. */
export function evenPoints(values: readonly number[], label: (n: number) => string): Scale {
  const step = 1 / Math.max(1, values.length - 1);
  const place = (value: number): number => 0.02 + 0.96 * values.indexOf(value) * step;
  return { place, ticks: values.map((value) => ({ at: place(value), label: label(value) })) };
}

/** An axis of percentiles, on which 90, 99 and 99.9 are equally far apart. */
export function percentileScale(top: number): Scale {
  const nines = (percent: number): number => -Math.log10(1 - percent / 100);
  const place = (percent: number): number => nines(Math.min(percent, top)) / nines(top);
  const ticks = [0, 50, 90, 99, 99.9, 99.99]
    .filter((percent) => percent <= top)
    .map((percent) => ({ at: place(percent), label: String(percent) }));
  return { place, ticks };
}
