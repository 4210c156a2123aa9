/** What a bench prints: rows, as JSON for scripts or as a table. */

import Table from 'cli-table3';

/** What a proof or a condition may be. */
export type Fact = string | number | boolean | null | readonly string[];

/** One figure with everything needed to judge it. */
export interface Row {
  name: string;
  /** Median over the runs that count. */
  value: number;
  unit: string;
  higherIsBetter: boolean;
  /** The same of the least program that does the same work, measured in turns with ours. */
  baseline: { name: string; value: number; cpuPerGB: number };
  /** Median over the rounds of value : baseline within the round. */
  ratio: number;
  /** Least and greatest value of the runs that count. */
  spread: [number, number];
  ratioSpread: [number, number];
  /** Runs that count. */
  runs: number;
  /** CPU seconds of our sending process per 10^9 payload bytes, kernel work on its account included. */
  cpuPerGB: number;
  /** What was counted in these runs that proves which path the bytes took. */
  path: Record<string, Fact>;
  /**
   * Median over the rounds of baseline : ours in CPU seconds per byte; above 1 ours needs less. On a
   * machine that others use as well it says more than `ratio`, which waits for a core along with us.
   */
  cpuRatio: number;
  conditions: Record<string, Fact>;
}

/** The middle value; of an even number the mean of the middle two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const mid = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[mid]!;
  return (sorted[mid - 1]! + sorted[mid]!) / 2;
}

/** Least and greatest. */
export function spread(values: readonly number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

/** Four significant digits: more would claim what no run here can tell. */
export function rounded(n: number): number {
  return Number(n.toPrecision(4));
}

function rangeText([min, max]: readonly [number, number]): string {
  return `[${min}-${max}]`;
}

/** The rows as a table, and under it the conditions that all of them share. */
export function formatRows(rows: readonly Row[]): string {
  const table = new Table({
    head: [
      '',
      'value',
      'baseline',
      'ratio',
      'CPU s/GB',
      'baseline',
      'ratio',
      'runs',
      'foreign load',
    ],
    colAligns: ['left', ...Array.from({ length: 8 }, () => 'right' as const)],
    style: { head: [], border: [] },
  });
  for (const row of rows) {
    const { conditions, baseline } = row;
    table.push([
      row.name,
      `${row.value} ${rangeText(row.spread)} ${row.unit}`,
      `${baseline.name} ${baseline.value}`,
      `${row.ratio} ${rangeText(row.ratioSpread)}`,
      row.cpuPerGB,
      baseline.cpuPerGB,
      row.cpuRatio,
      row.runs,
      `${String(conditions['foreignCores'])} core${conditions['noisy'] === true ? ', NOISY' : ''}`,
    ]);
  }
  return `${table.toString()}\n${sharedConditions(rows)}`;
}

/** The conditions that all rows share, a line each. */
export function sharedConditions(rows: readonly Row[]): string {
  const [first] = rows;
  const shared = Object.entries(first?.conditions ?? {}).filter(([key, value]) =>
    rows.every(({ conditions }) => JSON.stringify(conditions[key]) === JSON.stringify(value)),
  );
  return shared.map(([key, value]) => `  ${key}: ${String(value)}\n`).join('');
}
