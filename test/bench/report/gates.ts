/** The gates and goals of the rows: what a release needs, and what is wanted. */

import { baselinesOf, type Row } from '../result.ts';

/** A condition on a row. */
export interface Condition {
  readonly text: string;
  /** Whether it holds; null if a figure for it is missing. */
  readonly holds: (row: Row, all: readonly Row[]) => boolean | null;
}

export interface Gate {
  readonly row: string;
  /** Null: only a goal. */
  readonly gate: Condition | null;
  readonly goal: Condition;
}

/** The ratio to the first baseline whose name matches; null if there is none. */
function ratioTo(row: Row, name: RegExp): number | null {
  return baselinesOf(row).find((side) => name.test(side.name))?.ratio ?? null;
}

/** At least `least` of the baseline whose name matches. */
function of(least: number, name: RegExp, text: string): Condition {
  const holds = (row: Row): boolean | null => {
    const ratio = ratioTo(row, name);
    return ratio === null ? null : ratio >= least;
  };
  return { text: `${least}${text}`, holds };
}

/** At least `least` of the row's baseline. */
function atLeast(least: number): Condition {
  return { text: String(least), holds: (row) => row.ratio >= least };
}

function both(a: Condition, b: Condition): Condition {
  const holds: Condition['holds'] = (row, all) => {
    const results = [a.holds(row, all), b.holds(row, all)];
    return results.includes(null) ? null : results.every(Boolean);
  };
  return { text: `${a.text}, ${b.text}`, holds };
}

function ahead(name: RegExp, text: string): Condition {
  return { ...of(1, name, ''), text: `ahead of ${text}` };
}

const NGINX = /nginx/;
const NODE_NET = /node:net/;
const NODE_HTTP = /node:http/;
const C = /^C\b/;

/** Of a row whose figure or whose requests have a latency: the median at most `us` after that of C. */
function within(us: number): Condition {
  const holds = ({ unit, value, latency, baseline }: Row): boolean | null => {
    if (unit === 'µs') return value <= baseline.value + us;
    if (latency === undefined || baseline.latency === undefined) return null;
    return latency.p50 <= baseline.latency.p50 + us;
  };
  return { text: `p50 within ${us} µs of C`, holds };
}

/** The default arm needs less CPU time than each other arm of the same mode and family. */
const defaultArmFirst: Condition = {
  text: 'default arm ahead of all',
  holds: (row, all) => {
    const arms = all.filter(({ name }) => name !== row.name && /^sendfile-cpu-[a-z-]+$/.test(name));
    const rivals = arms.filter(({ name }) => !name.endsWith('-ip6'));
    return rivals.length === 0 ? null : rivals.every(({ value }) => row.value <= value);
  },
};

/** CPU time per unit of work is at most `factor` times that of the baseline, which is ours at a usual size. */
function flat(factor: number): Condition {
  const holds = ({ baseline, cpuRatio }: Row): boolean | null =>
    baseline.name.startsWith('ours') ? 1 / cpuRatio <= factor : null;
  return { text: `CPU at most ${factor} × of the usual`, holds };
}

const FLAT = { gate: flat(2), goal: flat(1.25) };

/** A figure of at most `bytes`. */
function bytesAtMost(bytes: number): Condition {
  return { text: `at most ${bytes} bytes`, holds: ({ value }) => value <= bytes };
}

/** In the order of the page. */
export const GATES: readonly Gate[] = [
  { row: 'bulk-tx-vnet', gate: both(atLeast(0.85), ahead(NGINX, 'nginx')), goal: atLeast(0.92) },
  { row: 'bulk-tx-vnet-64', gate: atLeast(0.75), goal: atLeast(0.85) },
  { row: 'bulk-tx-wire', gate: atLeast(0.9), goal: atLeast(0.97) },
  { row: 'bulk-tx-wire-napi', gate: atLeast(0.5), goal: atLeast(0.75) },
  { row: 'bulk-tx-wire-9000', gate: atLeast(0.75), goal: atLeast(0.9) },
  { row: 'bulk-tx-write', gate: atLeast(0.7), goal: atLeast(0.9) },
  { row: 'bulk-rx-wire', gate: atLeast(0.55), goal: atLeast(0.8) },
  {
    row: 'bulk-rx-vnet',
    gate: both(atLeast(0.6), ahead(NODE_NET, 'node:net')),
    goal: atLeast(0.9),
  },
  { row: 'udp-echo', gate: atLeast(0.7), goal: atLeast(0.9) },
  { row: 'udp-echo-latency', gate: within(15), goal: within(15) },
  { row: 'icmp-echo', gate: atLeast(0.85), goal: atLeast(0.95) },
  { row: 'icmp-echo-latency', gate: within(15), goal: within(15) },
  { row: 'tcp-rr', gate: atLeast(0.85), goal: atLeast(1) },
  { row: 'tcp-rr-64', gate: atLeast(0.75), goal: atLeast(0.95) },
  { row: 'http-1k-1', gate: of(0.5, NGINX, ' of nginx'), goal: of(1, NGINX, ' of nginx') },
  { row: 'http-1k', gate: ahead(NODE_HTTP, 'node:http'), goal: of(2.5, NODE_HTTP, ' × node:http') },
  { row: 'http-64k', gate: of(0.8, C, ' of C'), goal: of(0.95, C, ' of C') },
  {
    row: 'http-64k-vnet',
    gate: of(2, NODE_HTTP, ' × node:http'),
    goal: of(4, NODE_HTTP, ' × node:http'),
  },
  { row: 'accept', gate: atLeast(0.5), goal: atLeast(0.8) },
  { row: 'sendfile-cpu-default', gate: defaultArmFirst, goal: defaultArmFirst },
  { row: 'capture', gate: atLeast(0.85), goal: atLeast(0.95) },
  { row: 'scale-idle', gate: null, goal: bytesAtMost(2048) },
];

/** The gate of a row; the rows of plots have one in common. */
export function gateOf({ name, plot }: Pick<Row, 'name' | 'plot'>): Omit<Gate, 'row'> | null {
  const gate = GATES.find(({ row }) => row === name);
  if (gate !== undefined) return gate;
  return plot === undefined || plot.plot === 'loss' ? null : FLAT;
}
