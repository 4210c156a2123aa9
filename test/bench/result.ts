/** The output of a bench: rows, as JSON for scripts or as a table. */

import Table from 'cli-table3';

/** The type of values in `path` and `conditions`. */
export type Fact = string | number | boolean | null | readonly string[];

/** Time of single requests, in microseconds. */
export interface Latency {
  /** Medians over the counted runs of the percentile of a run. */
  p50: number;
  p99: number;
  /** Percentiles of all counted runs together, [percentile, microseconds], for a plot. */
  percentiles: [number, number][];
}

/** What a row knows of each program that it measures. The CPU figures depend on the unit of work. */
export interface Costs {
  /**
   * CPU seconds of the measured process per 10^9 payload bytes, including the kernel's work for it.
   */
  cpuPerGB?: number;
  /** Instead, in rows that count requests: CPU microseconds of that process per request. */
  cpuPerRequest?: number;
  /** The same of the program at the other end, in the unit of the row's CPU figure. */
  peerCpu?: number;
  latency?: Latency;
}

/** A program that ours is compared with. */
export interface Side extends Costs {
  name: string;
  value: number;
  /** Facts that prove its path, if the row checks them. */
  path?: Record<string, Fact>;
}

/** A further baseline of the same rounds; ratios as in `Row`. */
export interface Other extends Side {
  ratio: number;
  ratioSpread: [number, number];
  cpuRatio: number;
}

/** The place of a row in a plot. */
export interface PlotPoint {
  plot: 'connections' | 'file-size' | 'loss';
  /** Number of connections, bytes of a file, percent of the frames. */
  x: number;
  /** The line of ours that the point belongs to. Default: `ours`. */
  series?: string;
}

/** One figure with everything needed to judge it. */
export interface Row extends Costs {
  name: string;
  /** Median over the counted runs. */
  value: number;
  unit: string;
  higherIsBetter: boolean;
  /** The same figure of the baseline, measured in alternation with ours. */
  baseline: Side;
  /** Further baselines, measured in the same rounds. */
  others?: Other[];
  /** Median over the rounds of value : baseline within the round. */
  ratio: number;
  /** Smallest and largest value of the counted runs. */
  spread: [number, number];
  ratioSpread: [number, number];
  /** Number of counted runs. */
  runs: number;
  /** Counters of these runs that prove which path the bytes took. */
  path: Record<string, Fact>;
  /**
   * Median over the rounds of baseline : ours in CPU time per byte or request; above 1 ours needs
   * less. On a shared machine it means more than `ratio`, which includes the time spent waiting for
   * a CPU.
   */
  cpuRatio: number;
  /**
   * Of a row of IPv6: median over the rounds of IPv6 : IPv4 in CPU seconds per byte, of the same build,
   * mode and arm within the round; below 1 IPv6 needs less.
   */
  cpuToIp4?: number;
  cpuToIp4Spread?: [number, number];
  plot?: PlotPoint;
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

/** A spread as text. */
export function rangeText([min, max]: readonly [number, number]): string {
  return `[${min}-${max}]`;
}

/** The CPU time of a unit of work. */
export function cpuOf({ cpuPerGB, cpuPerRequest }: Costs): number {
  return cpuPerGB ?? cpuPerRequest ?? 0;
}

/** CPU time with its unit: `0.152 s/GB`, `3.1 µs/request`. */
export function cpuText(costs: Costs, cpu: number = cpuOf(costs)): string {
  return `${cpu} ${costs.cpuPerGB === undefined ? 'µs/request' : 's/GB'}`;
}

/** The baselines of a row: the baseline, and the further ones, with the ratios to each. */
export function baselinesOf(row: Row): Other[] {
  const { baseline, ratio, ratioSpread, cpuRatio, others = [] } = row;
  return [{ ...baseline, ratio, ratioSpread, cpuRatio }, ...others];
}

/** p50 and p99 as text; empty without a latency. */
export function latencyText({ latency }: Costs): string {
  return latency === undefined ? '' : `${latency.p50} / ${latency.p99}`;
}

/** A column: its title, and the text of ours and of each baseline. */
interface Column {
  readonly title: string;
  readonly ours: (row: Row) => string | number;
  readonly theirs: (side: Other, row: Row) => string | number;
}

const COLUMNS: readonly Column[] = [
  {
    title: 'value',
    ours: ({ value, spread: range, unit }) => `${value} ${rangeText(range)} ${unit}`,
    theirs: ({ name, value }) => `${name} ${value}`,
  },
  {
    title: 'ratio',
    ours: () => '',
    theirs: ({ ratio, ratioSpread }) => `${ratio} ${rangeText(ratioSpread)}`,
  },
  { title: 'CPU', ours: (row) => cpuText(row), theirs: cpuOf },
  { title: 'ratio', ours: () => '', theirs: ({ cpuRatio }) => cpuRatio },
  {
    title: 'CPU of the peer',
    ours: ({ peerCpu = '' }) => peerCpu,
    theirs: ({ peerCpu = '' }) => peerCpu,
  },
  { title: 'p50 / p99 µs', ours: latencyText, theirs: latencyText },
  { title: 'CPU IPv6 : IPv4', ours: toIp4Text, theirs: () => '' },
  { title: 'runs', ours: ({ runs }) => runs, theirs: () => '' },
  {
    title: 'foreign load',
    ours: ({ conditions }) =>
      `${String(conditions['foreignCores'])} core${conditions['noisy'] === true ? ', NOISY' : ''}`,
    theirs: () => '',
  },
];

/** The rows as a table, each with a line for every baseline, then the conditions they share. */
export function formatRows(rows: readonly Row[]): string {
  const lines = rows.map((row) => ({ row, sides: baselinesOf(row) }));
  const columns = COLUMNS.filter(({ ours, theirs }) =>
    lines.some(
      ({ row, sides }) => ours(row) !== '' || sides.some((side) => theirs(side, row) !== ''),
    ),
  );
  const table = new Table({
    head: ['', ...columns.map(({ title }) => title)],
    colAligns: ['left', ...columns.map(() => 'right' as const)],
    style: { head: [], border: [] },
  });
  for (const { row, sides } of lines)
    table.push([
      row.name,
      ...columns.map(({ ours, theirs }) =>
        [ours(row), ...sides.map((side) => theirs(side, row))].join('\n'),
      ),
    ]);
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
