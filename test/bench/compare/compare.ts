/**
 * Compares this revision with another one. A block has a fresh instance of each and two pairs of runs,
 * in the order ABBA; the next block begins with the other revision. The rows of this revision measure
 * both, so REV needs a command line that understands their arguments.
 */

import Table from 'cli-table3';
import type { Asked } from '../args.ts';
import type { RowSpec } from '../bench.ts';
import { Baselines } from '../cc.ts';
import { BenchContext } from '../context.ts';
import { type Contest, Entry, type Sample, warmUp } from '../contest.ts';
import { median, rounded } from '../result.ts';
import { NOISE_CORES } from '../rounds.ts';
import { demand, reasonOf, select } from '../select.ts';
import { type Interval, isWorse, ratioInterval } from './interval.ts';
import { commitOf, Worktree } from './worktree.ts';

/** How much worse a row may be, beyond its interval. */
const TOLERANCE = 0.03;

/** Blocks of a row that may fail and be repeated, such as one with lost datagrams under load. */
const FAILURES = 2;

/** The two revisions of one row. */
interface Compared {
  name: string;
  unit: string;
  higherIsBetter: boolean;
  cpuUnit: string;
  /** Medians of all runs. */
  value: { ours: number; rev: number };
  cpu: { ours: number; rev: number };
  /** Ours : REV. */
  valueRatio: Interval;
  cpuRatio: Interval;
  pairs: number;
  /** Independent values of the interval. */
  blocks: number;
  foreignCores: number;
  noisy: boolean;
  worse: boolean;
  /** Why the path of REV was not proven; null if it was. */
  revPath: string | null;
}

interface Pair {
  ours: Sample;
  rev: Sample;
}

/** A block: its pairs, and why REV's path was not proven. */
interface Block {
  contest: Contest;
  pairs: Pair[];
  revPath: string | null;
}

/** Why the path of `entry` is not proven; null if it is. */
function unproven(entry: Entry): string | null {
  try {
    entry.prove();
    return null;
  } catch (e) {
    return reasonOf(e);
  }
}

/** One block of `count` pairs, 1 or 2. `first` tells which revision begins. */
async function runBlock(
  spec: RowSpec,
  cli: string,
  options: Pick<BenchContext, 'quick' | 'progress'>,
  count: number,
  first: keyof Pair,
): Promise<Block> {
  using baselines = new Baselines();
  using revBaselines = new Baselines();
  await using ctx = new BenchContext({ ...options, baselines });
  await using revCtx = new BenchContext({ ...options, baselines: revBaselines, cli });
  const contest = await spec.setUp(ctx);
  const revContest = await spec.setUp(revCtx).catch((e: unknown): never => {
    throw new Error(`the other revision: ${reasonOf(e)}`, { cause: e });
  });
  const entries = { ours: new Entry(contest.ours), rev: new Entry(revContest.ours) };
  const { warmUps } = ctx.effort(contest.effort);
  for (const { contender } of Object.values(entries)) await warmUp(contender, warmUps);
  const pairs: Pair[] = [];
  for (let i = 0; i < count; i++) {
    // ABBA: the second pair of a block has the other order.
    const oursFirst = (first === 'ours') === (i % 2 === 0);
    const a = await entries[oursFirst ? 'ours' : 'rev'].measure();
    const b = await entries[oursFirst ? 'rev' : 'ours'].measure();
    pairs.push(oursFirst ? { ours: a, rev: b } : { ours: b, rev: a });
  }
  entries.ours.prove();
  return { contest, pairs, revPath: unproven(entries.rev) };
}

function foreignOf({ pairs }: Block): number {
  return Math.max(...pairs.flatMap(({ ours, rev }) => [ours.foreign, rev.foreign]));
}

/** The mean of the logarithms of the ratios in each block, as ratios. */
function blockRatios(blocks: readonly Block[], figure: (sample: Sample) => number): number[] {
  return blocks.map(({ pairs }) => {
    const logs = pairs.map(({ ours, rev }) => Math.log(figure(ours) / figure(rev)));
    return Math.exp(logs.reduce((sum, x) => sum + x, 0) / logs.length);
  });
}

/** Runs blocks until there are `pairs` pairs without disturbance, or twice as many in all. */
async function runBlocks(
  spec: RowSpec,
  cli: string,
  { pairs, quick }: Asked,
  progress: (text: string) => void,
): Promise<{ counted: Block[]; noisy: boolean }> {
  const all: Block[] = [];
  let failures = 0;
  const calm = (): Block[] => all.filter((block) => foreignOf(block) <= NOISE_CORES);
  const count = (blocks: readonly Block[]): number =>
    blocks.reduce((sum, block) => sum + block.pairs.length, 0);
  while (count(calm()) < pairs && count(all) < (quick ? pairs : 2 * pairs)) {
    const size = Math.min(2, pairs - count(calm()));
    const first = all.length % 2 === 0 ? 'ours' : 'rev';
    try {
      all.push(await runBlock(spec, cli, { quick, progress }, size, first));
    } catch (e) {
      if (++failures > FAILURES) throw e;
      progress(`${spec.name}: a block failed and is repeated: ${reasonOf(e)}`);
      continue;
    }
    progress(`${spec.name}: ${count(all)} pairs, ${count(calm())} of ${pairs} undisturbed`);
  }
  const noisy = count(calm()) < pairs;
  return { counted: noisy ? all : calm(), noisy };
}

async function compareRow(
  spec: RowSpec,
  cli: string,
  asked: Asked,
  progress: (text: string) => void,
): Promise<Compared> {
  const { counted, noisy } = await runBlocks(spec, cli, asked, progress);
  const { unit, higherIsBetter = true, per } = counted[0]!.contest;
  const pairs = counted.flatMap((block) => block.pairs);
  const medians = (figure: (sample: Sample) => number): Compared['value'] => ({
    ours: rounded(median(pairs.map(({ ours }) => figure(ours)))),
    rev: rounded(median(pairs.map(({ rev }) => figure(rev)))),
  });
  const valueRatio = ratioInterval(blockRatios(counted, ({ value }) => value));
  const cpuRatio = ratioInterval(blockRatios(counted, ({ cpu }) => cpu));
  return {
    name: spec.name,
    unit,
    higherIsBetter,
    cpuUnit: per === 'GB' ? 's/GB' : 'µs/request',
    value: medians(({ value }) => value),
    cpu: medians(({ cpu }) => cpu),
    valueRatio,
    cpuRatio,
    pairs: pairs.length,
    blocks: counted.length,
    foreignCores: Number(median(counted.map(foreignOf)).toFixed(2)),
    noisy,
    worse: isWorse(valueRatio, higherIsBetter, TOLERANCE) || isWorse(cpuRatio, false, TOLERANCE),
    revPath: counted.map(({ revPath }) => revPath).find((why) => why !== null) ?? null,
  };
}

function intervalText({ ratio, low, high }: Interval): string {
  return `${ratio.toFixed(3)} [${low.toFixed(3)}-${high.toFixed(3)}]`;
}

function format(rows: readonly Compared[], revision: string): string {
  const head = ['', 'value', revision, 'ratio', 'CPU', revision, 'ratio', 'pairs', 'foreign load'];
  const table = new Table({
    head: [...head, ''],
    colAligns: ['left', ...head.slice(1).map(() => 'right' as const)],
    style: { head: [], border: [] },
  });
  for (const row of rows)
    table.push([
      row.name,
      `${row.value.ours} ${row.unit}`,
      row.value.rev,
      intervalText(row.valueRatio),
      `${row.cpu.ours} ${row.cpuUnit}`,
      row.cpu.rev,
      intervalText(row.cpuRatio),
      row.pairs,
      `${row.foreignCores} core${row.noisy ? ', NOISY' : ''}`,
      row.worse ? 'WORSE' : '',
    ]);
  const notes = rows
    .filter(({ revPath }) => revPath !== null)
    .map(({ name, revPath }) => `  ${name}: the path of ${revision} is not proven: ${revPath}\n`);
  const method = `  ratio: this revision : ${revision}, geometric mean, with the 95 % interval of the t distribution over blocks of two pairs\n`;
  return `${table.toString()}\n${method}${notes.join('')}`;
}

/** The rows that `names` mean. Throws for a bench that cannot be compared. */
function rowsOf(names: readonly string[]): RowSpec[] {
  return select(names).flatMap(({ bench }) => {
    if ('rows' in bench) {
      demand(bench.needs);
      return bench.rows;
    }
    if (names.includes('all')) return [];
    throw new Error(`compare: ${bench.name} measures in its own way and cannot be compared`);
  });
}

/**
 * Compares this revision with `revision`.
 * @returns the exit status: 1 if a row is worse, or could not be measured
 */
export async function compare(asked: Asked, revision: string): Promise<number> {
  const specs = rowsOf(asked.names);
  const commit = commitOf(revision);
  const progress = (text: string): void => {
    process.stderr.write(`bench compare: ${text}\n`);
  };
  using worktree = new Worktree(commit);
  progress(`building ${revision}`);
  await worktree.build();
  const rows: Compared[] = [];
  let failed = false;
  for (const spec of specs) {
    try {
      demand(spec.needs ?? []);
      rows.push(await compareRow(spec, worktree.cli, asked, progress));
    } catch (e) {
      failed = true;
      process.stderr.write(`bench: FAILED: ${spec.name}: ${reasonOf(e)}\n`);
    }
  }
  if (asked.json) process.stdout.write(`${JSON.stringify(rows)}\n`);
  else if (rows.length > 0) process.stdout.write(format(rows, revision));
  return failed || rows.some(({ worse }) => worse) ? 1 : 0;
}
