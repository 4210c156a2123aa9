/**
 * Measures a row: ours, its baseline and further programs run in turns, and every round begins with
 * another one. The row has medians, spreads, ratios within a round, and the proof of each path.
 */

import type { BenchContext } from './context.ts';
import { machineFacts } from './load.ts';
import { latencyOf } from './latency.ts';
import {
  type Costs,
  type Fact,
  median,
  type Other,
  type PlotPoint,
  type Row,
  rounded,
  type Side,
  spread,
} from './result.ts';
import { type Effort, runRounds } from './rounds.ts';

/** One run of one contender. */
export interface Sample {
  /** The figure, in the unit of the row. */
  value: number;
  /** CPU of the measured program: seconds per GB, or microseconds per request. */
  cpu: number;
  /** The same of the program at the other end. */
  peerCpu?: number;
  /** Cores that none of the programs of this run used; see `meter`. */
  foreign: number;
  /** Microseconds of single requests, in any order. */
  latencies?: readonly number[];
}

/** Readings of counters before and after each counted run. */
export type Readings<C> = readonly (readonly [before: C, after: C])[];

/** A program that takes part: ours or a baseline. */
export interface Contender<C = unknown> {
  /** Printed in the table: `C sender, software checksum`, `nginx over veth`. */
  readonly name: string;
  /** Runs before the first round. Default: the row's for ours, 1 for others. */
  readonly warmUps?: number;
  run(): Promise<Sample>;
  /** Reads the counters that `prove` needs; called before and after each counted run. */
  read?(): Promise<C>;
  /**
   * Proves the path of all runs of the rounds; the result is `path` in the row. A throw refuses the
   * figure. Ours must have it.
   */
  prove?(readings: Readings<C>, runs: readonly Sample[]): Record<string, Fact>;
}

/** Infers the type of the counters. */
export function contender<C>(of: Contender<C>): Contender<C> {
  return of;
}

/** A row that is ready to run. */
export interface Contest {
  readonly unit: string;
  /** Default: true. */
  readonly higherIsBetter?: boolean;
  /** The unit of work of `cpu`. */
  readonly per: 'GB' | 'request';
  readonly ours: Contender;
  readonly baseline: Contender;
  readonly others?: readonly Contender[];
  /** Default: 3 warm-ups, 5 undisturbed rounds within 20 s. */
  readonly effort?: Partial<Effort>;
  /** Conditions besides the facts about the machine. */
  readonly conditions?: Record<string, Fact>;
  readonly plot?: PlotPoint;
}

/** A contender with its readings. */
export class Entry {
  readonly contender: Contender;
  readonly #readings: (readonly [unknown, unknown])[] = [];
  readonly #runs: Sample[] = [];

  constructor(of: Contender) {
    this.contender = of;
  }

  /** A run that counts. */
  async measure(): Promise<Sample> {
    const before = await this.contender.read?.();
    const sample = await this.contender.run();
    this.#readings.push([before, await this.contender.read?.()]);
    this.#runs.push(sample);
    for (const n of [sample.value, sample.cpu])
      if (!(n > 0 && Number.isFinite(n)))
        throw new Error(`${this.contender.name}: no figure: ${n}`);
    return sample;
  }

  /** Throws if the path of the runs is not the claimed one; null if it is not checked. */
  prove(): Record<string, Fact> | null {
    return this.contender.prove?.(this.#readings, this.#runs) ?? null;
  }
}

/** Runs `entries` in turn; round `n` begins with the entry `n` of them. */
async function turns(entries: readonly Entry[], n: number): Promise<Map<Entry, Sample>> {
  const round = new Map<Entry, Sample>();
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[(n + i) % entries.length]!;
    round.set(entry, await entry.measure());
  }
  return round;
}

/** Runs the warm-ups of `of`, which do not count. */
export async function warmUp(of: Contender, times: number): Promise<void> {
  for (let i = 0; i < (of.warmUps ?? times); i++) await of.run();
}

/** Measures the row `name`. Rejects if a path is not the claimed one. */
export async function runContest(ctx: BenchContext, name: string, contest: Contest): Promise<Row> {
  const { unit, higherIsBetter = true, per, plot } = contest;
  const effort = ctx.effort(contest.effort);
  const ours = new Entry(contest.ours);
  const baseline = new Entry(contest.baseline);
  const others = (contest.others ?? []).map((of) => new Entry(of));
  const entries = [baseline, ours, ...others];
  for (const { contender: of } of entries)
    await warmUp(of, of === contest.ours ? effort.warmUps : Math.min(1, effort.warmUps));
  const { counted, all, noisy } = await runRounds(
    effort,
    (n) => turns(entries, n),
    (round) => Math.max(...[...round.values()].map(({ foreign }) => foreign)),
  );
  const path = ours.prove();
  if (path === null) throw new Error(`${name}: nothing proves the path of ours`);
  const samples = (entry: Entry): Sample[] => counted.map((round) => round.get(entry)!);
  const mine = samples(ours);
  const foreign = counted.flatMap((round) => [...round.values()].map((sample) => sample.foreign));
  const { ratio, ratioSpread, cpuRatio } = compared(mine, samples(baseline));
  return {
    name,
    ...figure(mine),
    unit,
    higherIsBetter,
    baseline: sideOf(baseline, samples(baseline), per),
    ratio,
    spread: rounds2(spread(mine.map(({ value }) => value))),
    ratioSpread,
    runs: counted.length,
    ...costsOf(mine, per),
    ...(others.length === 0
      ? {}
      : { others: others.map((entry) => otherOf(entry, samples(entry), mine, per)) }),
    cpuRatio,
    path,
    ...(plot === undefined ? {} : { plot }),
    conditions: {
      ...machineFacts(),
      compiler: ctx.baselines.compiler,
      pinned: ctx.pins.cpus !== null,
      ...contest.conditions,
      foreignCores: Number(median(foreign).toFixed(2)),
      noisy,
      roundsLeftOut: all.length - counted.length,
    },
  };
}

function rounds2([min, max]: readonly [number, number]): [number, number] {
  return [rounded(min), rounded(max)];
}

function figure(samples: readonly Sample[]): { value: number } {
  return { value: rounded(median(samples.map(({ value }) => value))) };
}

/** Ratios of `ours` to `base` within the rounds. */
function compared(
  ours: readonly Sample[],
  base: readonly Sample[],
): Pick<Other, 'ratio' | 'ratioSpread' | 'cpuRatio'> {
  const ratios = ours.map(({ value }, i) => value / base[i]!.value);
  return {
    ratio: rounded(median(ratios)),
    ratioSpread: rounds2(spread(ratios)),
    cpuRatio: rounded(median(ours.map(({ cpu }, i) => base[i]!.cpu / cpu))),
  };
}

function costsOf(samples: readonly Sample[], per: Contest['per']): Costs {
  const cpu = rounded(median(samples.map((sample) => sample.cpu)));
  const peers = samples.map(({ peerCpu }) => peerCpu).filter((n) => n !== undefined);
  const latency = latencyOf(samples.map(({ latencies }) => latencies ?? []));
  return {
    ...(per === 'GB' ? { cpuPerGB: cpu } : { cpuPerRequest: cpu }),
    ...(peers.length === 0 ? {} : { peerCpu: rounded(median(peers)) }),
    ...(latency === null ? {} : { latency }),
  };
}

function sideOf(entry: Entry, samples: readonly Sample[], per: Contest['per']): Side {
  const path = entry.prove();
  return {
    name: entry.contender.name,
    ...figure(samples),
    ...costsOf(samples, per),
    ...(path === null ? {} : { path }),
  };
}

function otherOf(
  entry: Entry,
  samples: readonly Sample[],
  ours: readonly Sample[],
  per: Contest['per'],
): Other {
  return { ...sideOf(entry, samples, per), ...compared(ours, samples) };
}
