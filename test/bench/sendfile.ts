/**
 * `sendfile`: web serving from a warm page cache in five arms: unmapped mbufs, one mapped mbuf per
 * page as before unmapped mbufs existed, unmapped mbufs that are converted because the NIC
 * lacks NOMAP or checksum offload, and read and write instead of sendfile. Measures mbufs in the send buffers, CPU time, and what was
 * mapped, converted and read.
 */

import Table from 'cli-table3';
import { Instance } from '../support/instance.ts';
import { Netns } from '../support/netns.ts';
import { type Fill, mbufsPerMB } from '../support/send_buffers.ts';
import type { Bench } from './bench.ts';
import { Baselines } from './cc.ts';
import {
  type Arm,
  type ArmName,
  ARMS,
  counting,
  FAMILIES,
  type Family,
  type Mode,
  provePath,
  type Span,
} from './proof.ts';
import {
  cpuToIp4,
  median,
  type Row,
  rounded,
  sharedConditions,
  spread,
  toIp4Text,
} from './result.ts';
import { type Effort, type Rounds, runRounds } from './rounds.ts';
import {
  MTU,
  WebRig,
  type WebRun,
  type Workload,
  workloadBytes,
  workloadRequests,
} from './web_rig.ts';

const KIB = 1024;
const MIB = KIB * KIB;
const SEED = 349529;
const BASELINE: ArmName = 'no-ext-pgs';
/** In bulk the baseline must have at least this many times the mbufs of the default arm. */
const FEWER = 15;
const FREEBSD_CLAIM = '5-10 % less CPU time in web serving';

/** 4/3 of 1 KiB to 4 MiB: no size is a whole number of pages. */
const MIX_SIZES = Array.from({ length: 13 }, (_none, i) => Math.floor((KIB << i) * (4 / 3)));
const MIX: Workload = { name: 'mix', connections: 64, sizes: MIX_SIZES, timesEach: 32 };
const BULK: Workload = { name: 'bulk', connections: 4, sizes: [64 * MIB], timesEach: 4 };
const EFFORT: Effort = { warmUps: 2, rounds: 5, seconds: 90 };

/** Enough for the counters to prove the paths, not for a figure. */
const QUICK_MIX: Workload = { ...MIX, connections: 4, timesEach: 1 };
const QUICK_BULK: Workload = { ...BULK, connections: 1, sizes: [64 * MIB], timesEach: 1 };
const QUICK_EFFORT: Effort = { warmUps: 0, rounds: 1, seconds: 0 };

/** The results of one arm in one round. */
interface Measured {
  run: WebRun;
  mix: Fill;
  bulk: Fill;
}

type Round = Record<Family, Record<ArmName, Measured>>;

/** What the arms of a mode share. */
interface Plan {
  readonly rig: WebRig;
  readonly mode: Mode;
  readonly mix: Workload;
  readonly bulk: Workload;
  readonly effort: Effort;
  /** Whether to check the figures. */
  readonly judge: boolean;
}

async function measure(plan: Plan, instance: Instance, family: Family): Promise<Measured> {
  const { rig, mix, bulk } = plan;
  // Sampling costs the server CPU time, so the timed run is not sampled.
  const run = await rig.run(instance, mix, family);
  const filled = await rig.fill(instance, mix, family);
  return { run, mix: filled, bulk: await rig.fill(instance, bulk, family) };
}

/** What the counters of each family and arm prove. */
type Paths = Record<Family, Partial<Record<ArmName, Row['path']>>>;

/**
 * Runs all arms of `plan` over both families alternately; every round begins with another arm and the
 * other family.
 */
async function runArms(
  plan: Plan,
  instances: ReadonlyMap<Arm, Instance>,
): Promise<{ rounds: Rounds<Round>; paths: Paths }> {
  const { rig, mix, effort } = plan;
  for (const instance of instances.values())
    for (let i = 0; i < effort.warmUps; i++)
      for (const family of FAMILIES) await rig.run(instance, mix, family);
  const spans = new Map<string, Span[]>();
  const rounds = await runRounds(
    effort,
    async (n): Promise<Round> => {
      const round: Record<Family, Partial<Round[Family]>> = { 4: {}, 6: {} };
      for (let i = 0; i < ARMS.length; i++) {
        const arm = ARMS[(n + i) % ARMS.length]!;
        const instance = instances.get(arm)!;
        for (const turn of FAMILIES.keys()) {
          const family = FAMILIES[(n + turn) % FAMILIES.length]!;
          const key = arm.name + family;
          if (!spans.has(key)) spans.set(key, []);
          const run = (): Promise<Measured> => measure(plan, instance, family);
          round[family][arm.name] = await counting(instance, spans.get(key)!, run);
        }
      }
      return round as Round;
    },
    (round) =>
      Math.max(...FAMILIES.flatMap((f) => Object.values(round[f]).map(({ run }) => run.foreign))),
  );
  const paths: Paths = { 4: {}, 6: {} };
  for (const [arm, instance] of instances)
    for (const family of FAMILIES) {
      const claim = claimOf(plan, arm, family, rounds.all.length);
      paths[family][arm.name] = provePath(instance, claim, spans.get(arm.name + family)!);
    }
  return { rounds, paths };
}

/** What `times` rounds of an arm over a family claim. */
function claimOf(
  { mix, bulk, mode }: Plan,
  { name: arm }: Arm,
  family: Family,
  times: number,
): Parameters<typeof provePath>[1] {
  const bytes = (2 * workloadBytes(mix) + workloadBytes(bulk)) * times;
  const requests = (2 * workloadRequests(mix) + workloadRequests(bulk)) * times;
  return { family, engine: 'native', mode, arm, mtu: MTU, bytes, requests };
}

/** Checks the send buffers by criteria that do not depend on the machine's speed. */
function proveFill(rounds: Rounds<Round>, family: Family, judge: boolean): void {
  const all = rounds.all.map((round) => round[family]);
  for (const { name } of ARMS) {
    const extPgs = all.reduce((sum, r) => sum + r[name].bulk.extPgs + r[name].mix.extPgs, 0);
    if (extPgs > 0 === (name === BASELINE || name === 'write'))
      throw new Error(`${name}, IPv${family}: ${extPgs} unmapped mbufs seen in the send buffers`);
  }
  if (!judge) return;
  const fewer = all.map((r) => mbufsPerMB(r[BASELINE].bulk) / mbufsPerMB(r.default.bulk));
  const least = Math.min(...fewer);
  if (least < FEWER)
    throw new Error(
      `bulk, IPv${family}: ${BASELINE} has only ${least.toFixed(1)} times the mbufs per MB of default, not ${FEWER}`,
    );
}

/** A row for `arm`: `figure` of each round, compared with the baseline arm in the same round. */
function rowOf(
  name: string,
  unit: string,
  arm: Arm,
  family: Family,
  { counted }: Rounds<Round>,
  figure: (measured: Measured) => number,
  facts: Pick<Row, 'path' | 'conditions'>,
): Row {
  const ours = counted.map((round) => figure(round[family][arm.name]));
  const base = counted.map((round) => figure(round[family][BASELINE]));
  const ratios = ours.map((value, i) => value / base[i]!);
  const cpu = (of: ArmName, over: Family = family): number[] =>
    counted.map((round) => round[over][of].run.cpuPerGB);
  const cpuBase = cpu(BASELINE);
  const cpu4 = cpu(arm.name, 4);
  const toIp4 = cpu(arm.name).map((value, i) => value / cpu4[i]!);
  const [min, max] = spread(ours);
  const [ratioMin, ratioMax] = spread(ratios);
  return {
    name,
    value: rounded(median(ours)),
    unit,
    higherIsBetter: false,
    baseline: {
      name: 'kern.ipc.mb_use_ext_pgs=0',
      value: rounded(median(base)),
      cpuPerGB: rounded(median(cpuBase)),
    },
    ratio: rounded(median(ratios)),
    spread: [rounded(min), rounded(max)],
    ratioSpread: [rounded(ratioMin), rounded(ratioMax)],
    runs: counted.length,
    cpuPerGB: rounded(median(cpu(arm.name))),
    cpuRatio: rounded(median(cpu(arm.name).map((value, i) => cpuBase[i]! / value))),
    ...(family === 6 ? cpuToIp4(toIp4) : {}),
    ...facts,
  };
}

async function stop({ label }: Arm, instance: Instance): Promise<void> {
  const { code, leaked, stderr } = await instance.stop();
  if (code !== 0) throw new Error(`${label}: status ${code}: ${JSON.stringify(leaked)} ${stderr}`);
}

/** The rows of a mode: three figures of each arm over each family. */
async function rowsOf(plan: Plan): Promise<Row[]> {
  const instances = new Map<Arm, Instance>();
  const stack = new DisposableNamespaces();
  try {
    await Promise.all(
      ARMS.map(async (arm) => {
        const ns = stack.add(arm.name);
        instances.set(arm, await plan.rig.start(ns, arm, 'native', plan.mode));
      }),
    );
    const { rounds, paths } = await runArms(plan, instances);
    for (const family of FAMILIES) proveFill(rounds, family, plan.judge);
    await Promise.all([...instances].map(([arm, instance]) => stop(arm, instance)));
    return FAMILIES.flatMap((family) =>
      ARMS.flatMap((arm) => armRows(plan, arm, family, rounds, paths[family][arm.name]!)),
    );
  } finally {
    stack.dispose();
  }
}

function armRows(
  plan: Plan,
  arm: Arm,
  family: Family,
  rounds: Rounds<Round>,
  path: Row['path'],
): Row[] {
  const prefix = plan.mode === 'wire' ? 'sendfile' : `sendfile-${plan.mode}`;
  const suffix = family === 6 ? '-ip6' : '';
  const runs = rounds.counted.map((round) => round[family][arm.name]);
  const conditions = {
    ...plan.rig.conditions(),
    foreignCores: Number(median(runs.map(({ run }) => run.foreign)).toFixed(2)),
    noisy: rounds.noisy,
    roundsLeftOut: rounds.all.length - rounds.counted.length,
    looksBulk: runs.reduce((sum, { bulk }) => sum + bulk.looks, 0),
    looksMix: runs.reduce((sum, { mix }) => sum + mix.looks, 0),
    gbits: rounded(median(runs.map(({ run }) => run.gbits))),
    freebsdClaim: FREEBSD_CLAIM,
  };
  const facts = { path: { ...path, arm: arm.label }, conditions };
  const row = (what: string, unit: string, figure: (m: Measured) => number): Row =>
    rowOf(`${prefix}-${what}-${arm.name}${suffix}`, unit, arm, family, rounds, figure, facts);
  return [
    row('mbufs-per-mb', 'mbufs/MB', ({ bulk }) => mbufsPerMB(bulk)),
    row('mix-mbufs-per-mb', 'mbufs/MB', ({ mix }) => mbufsPerMB(mix)),
    row('cpu', 'CPU s/GB', ({ run }) => run.cpuPerGB),
  ];
}

/** One namespace for each arm; `dispose` removes all. */
class DisposableNamespaces {
  readonly #all: Netns[] = [];

  add(tag: string): Netns {
    const ns = new Netns(tag);
    this.#all.push(ns);
    return ns;
  }

  dispose(): void {
    for (const ns of this.#all) ns[Symbol.dispose]();
  }
}

function cellOf({ value, spread: [min, max], ratio }: Row): string {
  return `${value} [${min}-${max}]\n${ratio < 0.5 ? `1/${(1 / ratio).toFixed(1)}` : ratio.toFixed(3)}`;
}

/** File bytes read by the CPU, by reason, per 10^9 bytes sent. */
function readsCell({ path }: Row): string {
  const reads = path['payload_bytes_read'] as string[];
  const perGB = reads.map((text) => {
    const [why, n] = text.split(' ');
    return `${why} ${perGBText(Number(n), path)}`;
  });
  return perGB.length === 0 ? '0' : perGB.join('\n');
}

function perGBText(n: number, path: Row['path']): string {
  return String(Math.round(n / (Number(path['bytes']) / 1e9)));
}

/** A table for each mode and family with a column for each arm, then the conditions they share. */
export function formatArms(rows: readonly Row[]): string {
  const modes = [...new Set(rows.map(({ path }) => String(path['mode'])))];
  const families = [...new Set(rows.map(({ path }) => String(path['family'])))];
  const tables = modes.flatMap((mode) =>
    families.map((family) => {
      const of = rows.filter(({ path }) => path['mode'] === mode && path['family'] === family);
      return `${tableOf(mode, family, of)}\n`;
    }),
  );
  return `${tables.join('\n')}${sharedConditions(rows)}`;
}

function tableOf(mode: string, family: string, of: readonly Row[]): string {
  const arms = of.filter(({ name }) => name.includes('-cpu-'));
  const table = new Table({
    head: [`mode ${mode}, ${family}`, ...arms.map(({ path }) => String(path['arm']))],
    colAligns: ['left', ...arms.map(() => 'right' as const)],
    style: { head: [], border: [] },
  });
  const figure = (title: string, part: string): void => {
    const cells = of.filter(({ name }) => name.includes(part)).map(cellOf);
    table.push([`${title}\n  to mb_use_ext_pgs=0`, ...cells]);
  };
  const count = (title: string, cell: (row: Row) => string): void => {
    table.push([title, ...arms.map(cell)]);
  };
  figure('mbufs per MB in send buffers, bulk', `${mode === 'wire' ? 'sendfile' : mode}-mbufs-`);
  figure('mbufs per MB in send buffers, mix', '-mix-mbufs-');
  figure('CPU seconds per GB, mix', '-cpu-');
  if (arms.some((row) => row.cpuToIp4 !== undefined)) count('  IPv6 : IPv4', toIp4Text);
  count('Gbit/s, mix', ({ conditions }) => String(conditions['gbits']));
  count('pages mapped per GB', ({ path }) => perGBText(Number(path['sf_bufs']), path));
  count('conversions per GB', ({ path }) => perGBText(Number(path['conversions']), path));
  count('file bytes read by the CPU per GB', readsCell);
  count('noisy', ({ conditions }) => (conditions['noisy'] === true ? 'NOISY' : 'no'));
  return table.toString();
}

export const sendfile: Bench = {
  name: 'sendfile',
  description:
    'web serving in five arms over IPv4 and IPv6: mbufs in the send buffers, CPU time, bytes read and mapped',
  needs: ['root', 'netns', 'tap', 'curl'],
  async run({ quick, progress }) {
    using baselines = new Baselines();
    const mix = quick ? QUICK_MIX : MIX;
    const bulk = quick ? QUICK_BULK : BULK;
    const effort = quick ? QUICK_EFFORT : EFFORT;
    const rig = new WebRig(baselines, [mix, bulk], SEED);
    const rows: Row[] = [];
    for (const mode of quick ? (['wire'] as const) : (['wire', 'vnet'] as const)) {
      progress(`${mode}: ${ARMS.map(({ label }) => label).join(', ')}, IPv4 and IPv6, in turns`);
      rows.push(...(await rowsOf({ rig, mode, mix, bulk, effort, judge: !quick })));
    }
    return rows;
  },
  format: formatArms,
};
