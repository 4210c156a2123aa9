/**
 * Bulk transmission with loss, ours only: the instance drops some of the frames that its NIC sends. The
 * baseline is the same instance without loss, in the same rounds.
 */

import { createHash, randomFillSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { request } from '../../../src/cli/control_client.ts';
import type { FaultLine } from '../../../src/ctl/fault.ts';
import type { Instance } from '../../support/instance.ts';
import type { Bench, RowSpec } from '../bench.ts';
import { reportOf } from '../bulk_tx.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { type Contender, contender, type Contest, type Sample } from '../contest.ts';
import { meter } from '../load.ts';
import { type Counts, readCounts } from '../proof.ts';

const MIB = 1 << 20;
const FILE = 'file.bin';
/** Clears the ssthresh and round-trip times of earlier connections. */
const FORGET = 'net.inet.tcp.hostcache.purgenow';
/** A frame number that no run reaches. */
const NEVER = 1_000_000_000;

/** Percent of the sent frames that are lost, and the requests for the file in a run. */
const LOSSES: readonly (readonly [percent: number, requests: number])[] = [
  [0, 8],
  [0.01, 8],
  [0.1, 8],
  [1, 4],
  [3, 2],
];

/** What runs measure with: an instance that serves one file. */
interface Rig {
  readonly ctx: BenchContext;
  readonly instance: Instance;
  readonly fileBytes: number;
}

/** Starts an instance, and checks that the file arrives intact with the highest loss. */
async function start(ctx: BenchContext, fileBytes: number): Promise<Rig> {
  const www = join(ctx.baselines.dir, 'www');
  mkdirSync(www);
  const bytes = randomFillSync(Buffer.allocUnsafe(fileBytes));
  writeFileSync(join(www, FILE), bytes);
  const args = ['serve', www, '--engine', 'native', '--mode', 'wire', '--memory', '256M'];
  const instance = await ctx.start(ctx.netns('loss'), args);
  const rig = { ctx, instance, fileBytes };
  const sum = `curl -sSf --max-time 60 '${instance.urlOf(FILE)}' | sha256sum`;
  const [percent] = LOSSES.at(-1)!;
  const arrived = await losing(rig, percent, () => instance.ns.execAsync('sh', ['-c', sum]));
  if (!arrived.result.startsWith(createHash('sha256').update(bytes).digest('hex')))
    throw new Error('the file did not arrive intact');
  return rig;
}

/** Runs `work` while the NIC loses `percent` of its frames. Returns what the fault counted. */
async function losing<T>(
  { instance }: Rig,
  percent: number,
  work: () => Promise<T>,
): Promise<{ result: T; fault: FaultLine }> {
  const fault = (args: Record<string, unknown>): Promise<unknown> =>
    request(instance.control, 'fault', args);
  // Without loss there is a fault too: frames then take the same way through the process.
  const when = percent === 0 ? { nth: NEVER } : { rate: percent / 100 };
  const { id } = (await fault({ op: 'add', kind: 'drop', point: 'tx', ...when })) as FaultLine;
  try {
    const result = await work();
    const lines = (await fault({ op: 'list' })) as FaultLine[];
    return { result, fault: lines.find((line) => line.id === id)! };
  } finally {
    await fault({ op: 'remove', id });
  }
}

/** One transfer of the file, `requests` times on one connection. */
async function transfer(rig: Rig, percent: number, requests: number) {
  const { ctx, instance, fileBytes } = rig;
  const { pid, addr, control } = instance.ready;
  const payload = fileBytes * requests;
  const args = ['-d', addr, '-f', `/${FILE}`, '-r', `${requests}`, '-s', `${fileBytes}`];
  const sink = [...args, ...ctx.pins.args('peer')];
  await request(control, 'sysctl', { name: FORGET, value: '1' });
  const metered = await meter([pid], () =>
    losing(rig, percent, () =>
      instance.ns.execAsync(ctx.baselines.program('sink'), sink, { timeoutMs: 90_000 }),
    ),
  );
  const { result, fault } = metered.result;
  const report = reportOf(result);
  if (report.bytes < payload) throw new Error(`received ${report.bytes} bytes of ${payload}`);
  const sample: Sample = {
    value: (payload * 8) / 1e9 / report.seconds,
    cpu: metered.cpu[0]! / (payload / 1e9),
    peerCpu: report.cpuSeconds / (payload / 1e9),
    foreign: metered.foreign(report.cpuSeconds),
  };
  return { sample, fault };
}

/** Our sender with `percent` loss. */
function sender(rig: Rig, percent: number, requests: number): Contender<Counts> {
  const total = { frames: 0, lost: 0 };
  return contender({
    name: percent === 0 ? 'ours without loss' : `ours, ${percent} % of the frames lost`,
    run: async () => {
      const { sample, fault } = await transfer(rig, percent, requests);
      total.frames += fault.matched;
      total.lost += fault.hits;
      return sample;
    },
    read: () => readCounts(rig.instance),
    prove(readings, runs) {
      const { mode, engine } = rig.instance.ready;
      const payload = rig.fileBytes * requests * runs.length;
      const tapBytes = readings.reduce((n, [a, b]) => n + b.tap.bytes - a.tap.bytes, 0);
      const { frames, lost } = total;
      const expected = (frames * percent) / 100;
      new Claims()
        .must(mode === 'wire' && engine === 'native', `mode ${mode}, build ${engine}`)
        .must(tapBytes >= payload, `the TAP took ${tapBytes} bytes of ${payload}`)
        .must(
          percent === 0 ? lost === 0 : Math.abs(lost - expected) <= 5 * Math.sqrt(expected) + 1,
          `${lost} of ${frames} frames lost, not about ${Math.round(expected)}`,
        )
        .check(`loss of ${percent} %`);
      return { mode, engine, tapBytes, frames, lost };
    },
  });
}

function spec(percent: number, requests: number): RowSpec {
  return {
    name: `loss-${percent}`,
    async setUp(ctx): Promise<Contest> {
      const rig = await start(ctx, ctx.quick ? 2 * MIB : 16 * MIB);
      const times = ctx.quick ? 1 : requests;
      return {
        unit: 'Gbit/s',
        per: 'GB',
        ours: sender(rig, percent, times),
        baseline: sender(rig, 0, times),
        conditions: { mtu: 1500, fileBytes: rig.fileBytes, requestsPerRun: times },
        plot: { plot: 'loss', x: percent },
      };
    },
  };
}

export const lossBenches: readonly Bench[] = [
  {
    name: 'loss',
    description: 'bulk transmission with 0 to 3 % of the frames lost, next to none lost; ours only',
    needs: ['root', 'netns', 'tap', 'curl'],
    rows: LOSSES.map(([percent, requests]) => spec(percent, requests)),
  },
];
