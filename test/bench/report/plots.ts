/** The plots of a report: which rows each has, and its axes. */

import { baselinesOf, type Latency, type PlotPoint, type Row, type Side } from '../result.ts';
import {
  bytesText,
  evenPoints,
  logPoints,
  percentileScale,
  type Scale,
  valueScale,
} from './scale.ts';
import { draw, type Line, type Plot } from './svg.ts';

export interface PlotFile {
  readonly title: string;
  readonly file: string;
  readonly svg: string;
}

interface Kind {
  readonly title: string;
  readonly xTitle: string;
  readonly axis: (values: readonly number[]) => Scale;
  /** Whether the baselines get lines too. */
  readonly baselines: boolean;
}

const KINDS: Record<PlotPoint['plot'], Kind> = {
  connections: {
    title: 'by number of connections',
    xTitle: 'connections',
    axis: (values) => logPoints(values, String),
    baselines: true,
  },
  'file-size': {
    title: 'by file size',
    xTitle: 'size of the file',
    axis: (values) => logPoints(values, bytesText),
    baselines: true,
  },
  loss: {
    title: 'by loss, ours only',
    xTitle: 'lost frames of the sender, percent',
    axis: (values) => evenPoints(values, String),
    baselines: false,
  },
};

/** What is plotted at one x. */
interface Point {
  x: number;
  y: number;
  bar?: readonly [number, number];
}

/** The lines of the rows of one plot, by name. */
function seriesOf(rows: readonly Row[], { baselines }: Kind): Map<string, Point[]> {
  const series = new Map<string, Point[]>();
  const add = (name: string, point: Point): void => {
    series.set(name, [...(series.get(name) ?? []), point]);
  };
  for (const row of rows) {
    const { x, series: name = 'ours' } = row.plot!;
    add(name, { x, y: row.value, bar: row.spread });
    if (!baselines) continue;
    // A baseline of ours at another x is not a line of its own.
    const sides = baselinesOf(row).filter((side) => !side.name.startsWith('ours'));
    for (const side of sides) add(side.name, { x, y: side.value });
  }
  return series;
}

/** A plot of rows with the same unit and x axis. */
function throughput(rows: readonly Row[], kind: Kind): Plot {
  const series = seriesOf(rows, kind);
  const points = [...series.values()].flat();
  const xs = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b);
  const x = kind.axis(xs);
  const y = valueScale(points.flatMap(({ y: value, bar = [] }) => [value, ...bar]));
  const { unit } = rows[0]!;
  const lines = [...series].map(([name, unordered]): Line => {
    const line = [...unordered].sort((a, b) => a.x - b.x);
    const bars = line.flatMap(({ bar }) =>
      bar === undefined ? [] : [[y.place(bar[0]), y.place(bar[1])] as const],
    );
    return {
      name,
      points: line.map((point) => [x.place(point.x), y.place(point.y)]),
      ...(bars.length === line.length ? { bars } : {}),
    };
  });
  return {
    title: `${unit} ${kind.title}`,
    xTitle: kind.xTitle,
    yTitle: unit,
    xTicks: x.ticks,
    yTicks: y.ticks,
    lines,
  };
}

/** Ours and the baselines of one row, or null if nothing has a latency. */
function latency(row: Row): Plot | null {
  const top = 99.99;
  const named: [string, Latency][] = [{ ...row, name: 'ours' }, ...baselinesOf(row)].flatMap(
    ({ name, latency: of }) => (of === undefined ? [] : [[name, of] as [string, Latency]]),
  );
  if (named.length === 0) return null;
  const shown = named.map(
    ([name, { percentiles }]) => [name, percentiles.filter(([p]) => p <= top)] as const,
  );
  const x = percentileScale(top);
  const y = valueScale(shown.flatMap(([, list]) => list.map(([, us]) => us)));
  return {
    title: `Latency of ${row.name}`,
    xTitle: 'percentile',
    yTitle: 'µs',
    xTicks: x.ticks,
    yTicks: y.ticks,
    lines: shown.map(([name, list]) => ({
      name,
      points: list.map(([p, us]) => [x.place(p), y.place(us)] as const),
    })),
  };
}

function slug(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

/** A row by file size in Gbit/s, also if it was measured in requests per second. */
function inGbits(row: Row): Row {
  const {
    plot,
    unit,
    value,
    spread: [low, high],
    baseline,
    others = [],
  } = row;
  if (plot?.plot !== 'file-size' || unit !== 'requests/s') return row;
  const by = (requests: number): number => (requests * plot.x * 8) / 1e9;
  const side = <S extends Side>(of: S): S => ({ ...of, value: by(of.value) });
  return {
    ...row,
    unit: 'Gbit/s',
    value: by(value),
    spread: [by(low), by(high)],
    baseline: side(baseline),
    others: others.map(side),
  };
}

/** All plots that the rows have data for. A plot by something needs two different x. */
export function plotsOf(rows: readonly Row[]): PlotFile[] {
  const groups = new Map<string, { kind: Kind; rows: Row[] }>();
  for (const row of rows.map(inGbits)) {
    if (row.plot === undefined) continue;
    const key = `${row.plot.plot}-${slug(row.unit)}`;
    const group = groups.get(key) ?? { kind: KINDS[row.plot.plot], rows: [] };
    group.rows.push(row);
    groups.set(key, group);
  }
  const files: PlotFile[] = [];
  const add = (key: string, plot: Plot): void => {
    files.push({ title: plot.title, file: `performance-${key}.svg`, svg: draw(plot) });
  };
  for (const [key, { kind, rows: of }] of groups)
    if (new Set(of.map(({ plot }) => plot!.x)).size > 1) add(key, throughput(of, kind));
  for (const row of rows) {
    const plot = row.plot === undefined ? latency(row) : null;
    if (plot !== null) add(`latency-${slug(row.name)}`, plot);
  }
  return files;
}
