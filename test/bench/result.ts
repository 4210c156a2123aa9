/** The output of a bench: rows, as JSON for scripts or as a table. */

import Table from 'cli-table3';

/** The type of values in `path` and `conditions`. */
export type Fact = string | number | boolean | null | readonly string[];

/** One figure with everything needed to judge it. */
export interface Row {
  name: string;
  /** Median over the counted runs. */
  value: number;
  unit: string;
  higherIsBetter: boolean;
  /** The same figure of the baseline, measured in alternation with ours. */
  baseline: { name: string; value: number; cpuPerGB: number };
  /** Median over the rounds of value : baseline within the round. */
  ratio: number;
  /** Smallest and largest value of the counted runs. */
  spread: [number, number];
  ratioSpread: [number, number];
  /** Number of counted runs. */
  runs: number;
  /**
   * CPU seconds of our sending process per 10^9 payload bytes, including the kernel's work for it.
   */
  cpuPerGB: number;
  /** Counters of these runs that prove which path the bytes took. */
  path: Record<string, Fact>;
  /**
   * Median over the rounds of baseline : ours in CPU seconds per byte; above 1 ours needs less. On
   * a shared machine it means more than `ratio`, which includes the time spent waiting for a CPU.
   */
  cpuRatio: number;
  /**
   * Of a row of IPv6: median over the rounds of IPv6 : IPv4 in CPU seconds per byte, of the same build,
   * mode and arm within the round; below 1 IPv6 needs less.
   */
  cpuToIp4?: number;
  cpuToIp4Spread?: [number, number];
  conditions: Record<string, Fact>;
}

/** The middle value; for an even number of values the mean of the middle two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const mid = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[mid]!;
  return (sorted[mid - 1]! + sorted[mid]!) / 2;
}

/** Median and spread, as rows have them, of ratios that were computed within rounds. */
export function cpuToIp4(ratios: readonly number[]): Pick<Row, 'cpuToIp4' | 'cpuToIp4Spread'> {
  const [min, max] = spread(ratios);
  return { cpuToIp4: rounded(median(ratios)), cpuToIp4Spread: [rounded(min), rounded(max)] };
}

/** IPv6 : IPv4 in CPU per byte as text; empty for a row of IPv4. */
export function toIp4Text(row: Row): string {
  const { cpuToIp4: ratio, cpuToIp4Spread: range } = row;
  return ratio === undefined || range === undefined ? '' : `${ratio} ${rangeText(range)}`;
}

/** Smallest and largest value. */
export function spread(values: readonly number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

/** Rounds to four significant digits: the runs are not more precise. */
export function rounded(n: number): number {
  return Number(n.toPrecision(4));
}

function rangeText([min, max]: readonly [number, number]): string {
  return `[${min}-${max}]`;
}

/** The rows as a table, then the conditions that all of them share. */
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
      'CPU IPv6 : IPv4',
      'runs',
      'foreign load',
    ],
    colAligns: ['left', ...Array.from({ length: 9 }, () => 'right' as const)],
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
      toIp4Text(row),
      row.runs,
      `${String(conditions['foreignCores'])} core${conditions['noisy'] === true ? ', NOISY' : ''}`,
    ]);
  }
  return `${table.toString()}\n${sharedConditions(rows)}`;
}

/** The conditions that all rows share, one line each. */
export function sharedConditions(rows: readonly Row[]): string {
  const [first] = rows;
  const shared = Object.entries(first?.conditions ?? {}).filter(([key, value]) =>
    rows.every(({ conditions }) => JSON.stringify(conditions[key]) === JSON.stringify(value)),
  );
  return shared.map(([key, value]) => `  ${key}: ${String(value)}\n`).join('');
}
