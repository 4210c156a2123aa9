/**
 * The garbage collector during a minute of each kind of work: the longest pause, and how much live memory
 * grows. The baseline is the limit of a pause; a ratio of at most 1 keeps it.
 */

import { randomFillSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Instance } from '../../support/instance.ts';
import type { Bench, RowSpec } from '../bench.ts';
import { reportOf } from '../bulk_tx.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { contender, type Contest } from '../contest.ts';
import { gcFacts, type GcSpan, GcWatch } from '../gc_watch.ts';
import { meter } from '../load.ts';
import type { Mode } from '../proof.ts';
import { ManyClient } from './many_client.ts';

const MIB = 1 << 20;
/** The limit of a pause, ms. */
const PAUSE_MAX = 2;
/** Live memory that may be added in a minute: compiled code, and buffers that grow to their size. */
const GROWTH_MAX = 2 * MIB;
const SECONDS = 60;
const WARM_UP_SECONDS = 5;
const QUICK_SECONDS = 1;
const FILE_BYTES = 16 * MIB;
const SMALL_BYTES = 1024;
const SMALL_CONNECTIONS = 64;

/** One piece of work, about half a second. Returns its payload bytes. */
type Step = () => Promise<number>;

/** A kind of work. */
interface Kind {
  readonly name: string;
  readonly mode: Mode;
  /** Arguments of the instance; `WWW` stands for a directory with the files. */
  readonly args: readonly string[];
  step(ctx: BenchContext, instance: Instance): Promise<Step>;
}

/** Sends a file on one connection. */
function sends(requests: number): Kind['step'] {
  return (ctx, { ns, ready }) => {
    const file = ['-f', `/${FILE_BYTES}`, '-r', String(requests), '-s', String(FILE_BYTES)];
    const args = ['-d', ready.addr, ...file, ...ctx.pins.args('peer')];
    const sink = ctx.baselines.program('sink');
    return Promise.resolve(async () => {
      await ns.execAsync(sink, args);
      return FILE_BYTES * requests;
    });
  };
}

/** Receives and discards `bytes` on one connection. */
function receives(bytes: number): Kind['step'] {
  return (ctx, { ns, ready }) => {
    const args = ['-d', ready.addr, '-b', String(bytes), '-p', '9', ...ctx.pins.args('peer')];
    const source = ctx.baselines.program('source');
    return Promise.resolve(async () => reportOf(await ns.execAsync(source, args)).bytes);
  };
}

/** Answers requests for a small file on 64 connections. */
async function answers(ctx: BenchContext, { ns, ready }: Instance): Promise<Step> {
  const client = await ManyClient.open(ctx, ns, ready.addr, SMALL_CONNECTIONS);
  return async () => (await client.run(`/${SMALL_BYTES}`, SMALL_BYTES, 2048)).bytes;
}

const SERVE = ['serve', 'WWW'];
const DISCARD = ['inetd', '--services', 'discard'];

const KINDS: readonly Kind[] = [
  { name: 'bulk-tx-vnet', mode: 'vnet', args: SERVE, step: sends(128) },
  { name: 'bulk-tx-wire', mode: 'wire', args: SERVE, step: sends(16) },
  { name: 'bulk-rx-vnet', mode: 'vnet', args: DISCARD, step: receives(1200e6) },
  { name: 'bulk-rx-wire', mode: 'wire', args: DISCARD, step: receives(300e6) },
  { name: 'http-1k', mode: 'wire', args: SERVE, step: answers },
];

function www(ctx: BenchContext): string {
  const dir = join(ctx.baselines.dir, 'www');
  mkdirSync(dir, { recursive: true });
  for (const bytes of [FILE_BYTES, SMALL_BYTES])
    writeFileSync(join(dir, String(bytes)), randomFillSync(Buffer.allocUnsafe(bytes)));
  return dir;
}

/** Repeats `step` for `seconds`. Returns the payload bytes. */
async function repeated(step: Step, seconds: number): Promise<number> {
  let bytes = 0;
  const end = performance.now() + seconds * 1000;
  do bytes += await step();
  while (performance.now() < end);
  return bytes;
}

async function setUp(ctx: BenchContext, kind: Kind): Promise<Contest> {
  const gc = new GcWatch();
  ctx.defer(() => gc[Symbol.dispose]());
  const args = kind.args.map((arg) => (arg === 'WWW' ? www(ctx) : arg));
  const device = ['--engine', 'native', '--mode', kind.mode, '--memory', '256M'];
  const wrapper = gc.wrapper;
  const instance = await ctx.start(ctx.netns('gc'), [...args, ...device], { wrapper });
  const { pid, mode, engine } = instance.ready;
  const step = await kind.step(ctx, instance);
  const seconds = ctx.quick ? QUICK_SECONDS : SECONDS;
  let last: GcSpan | null = null;
  let bytes = 0;
  return {
    unit: 'ms',
    higherIsBetter: false,
    per: 'GB',
    ours: contender({
      name: kind.name,
      warmUps: 0,
      run: async () => {
        await repeated(step, ctx.quick ? QUICK_SECONDS : WARM_UP_SECONDS);
        await gc.read(pid);
        const metered = await meter([pid], () => repeated(step, seconds));
        bytes = metered.result;
        last = await gc.read(pid);
        return {
          // A row needs a figure above 0.
          value: Math.max(last.maxMs, 0.001),
          cpu: metered.cpu[0]! / (bytes / 1e9),
          foreign: 0,
        };
      },
      prove() {
        const { growth } = last!;
        new Claims()
          .must(bytes > 0, 'no payload')
          .must(growth < GROWTH_MAX, `${growth} bytes more live memory after ${seconds} s`)
          .check(kind.name);
        return { mode, engine, bytes, ...gcFacts(last!) };
      },
    }),
    baseline: {
      name: `limit, ${PAUSE_MAX} ms`,
      run: () => Promise.resolve({ value: PAUSE_MAX, cpu: 1e-9, foreign: 0 }),
    },
    effort: { warmUps: 0, rounds: 1, seconds: 0 },
    conditions: { mtu: 1500, seconds },
  };
}

const rows: readonly RowSpec[] = KINDS.map((kind) => ({
  name: `gc-${kind.name}`,
  setUp: (ctx) => setUp(ctx, kind),
}));

export const gcBenches: readonly Bench[] = [
  {
    name: 'gc',
    description: 'a minute each of bulk work and of small requests: pauses and growth of the heap',
    needs: ['root', 'netns', 'tap', 'taskset'],
    rows,
  },
];
