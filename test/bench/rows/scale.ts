/**
 * Rows by number of connections and by file size. The baseline is the same instance with 64 connections,
 * or with files of 1 KB or 1 MB, in the same rounds: the ratio of the CPU figures shows what the number or
 * the size costs. nginx over veth does the same work.
 */

import { createHash, randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Instance } from '../../support/instance.ts';
import type { Bench, RowSpec } from '../bench.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { type Contender, contender, type Contest, type Sample } from '../contest.ts';
import { collected, type GcSpan, GcWatch } from '../gc_watch.ts';
import { meter } from '../load.ts';
import { type Counts, readCounts } from '../proof.ts';
import type { Effort } from '../rounds.ts';
import { startNginx, vethPair } from '../veth.ts';
import { idleRows } from './scale_idle.ts';
import { ManyClient } from './many_client.ts';

/** The unit of work of a row's CPU figure. */
type Per = 'request' | 'GB';

const KIB = 1024;
const MIB = KIB * KIB;
/** Files are repetitions of this many random bytes. */
const PIECE = 16 * MIB;
const ARENA = '256M';
const ADDR = '192.0.2.2';

/** The number of connections with which the others are compared. */
const USUAL_CONNECTIONS = 64;
const CONNECTIONS = [1, 8, 64, 512, 4096, 10_000] as const;
const QUICK_CONNECTIONS = 300;
const SMALL_FILE = KIB;
const USUAL_REQUESTS = 4096;

/** Size, its name, and requests of a run. Small files are measured per request, large ones per byte. */
const SIZES: Record<Per, readonly (readonly [bytes: number, name: string, requests: number])[]> = {
  request: [
    [KIB, '1k', 4096],
    [16 * KIB, '16k', 4096],
    [64 * KIB, '64k', 4096],
  ],
  // The files of 256 MB and more do not fit into the arena.
  GB: [
    [MIB, '1m', 256],
    [16 * MIB, '16m', 32],
    [256 * MIB, '256m', 2],
    [1024 * MIB, '1g', 1],
  ],
};
/** Requests of a run with --quick: enough for Linux to count CPU time. */
const QUICK_REQUESTS: Record<Per, number> = { request: 256, GB: 16 };
/** With --quick, larger files are cut to this size. */
const QUICK_SIZE = 16 * MIB;
/** Runs make at least this many sendfile calls if the files are not so small that they are copied. */
const SENDFILE_MIN = 64 * KIB;
const SIZE_CONNECTIONS = 8;
/** Runs of up to several seconds: few rounds, and none is repeated. */
const EFFORT: Partial<Effort> = { warmUps: 1, rounds: 3, seconds: 5 };

/** What one run does. */
interface Work {
  readonly bytes: number;
  readonly requests: number;
}

const pathOf = (bytes: number): string => `/${bytes}`;

/** Writes a file of each size. Returns their SHA-256. */
function writeFiles(www: string, sizes: readonly number[]): Map<number, string> {
  mkdirSync(www, { recursive: true });
  const piece = randomFillSync(Buffer.allocUnsafe(PIECE));
  const sums = new Map<number, string>();
  for (const size of sizes) {
    const fd = openSync(join(www, String(size)), 'w');
    const sum = createHash('sha256');
    for (let at = 0; at < size; at += PIECE) {
      const part = piece.subarray(0, Math.min(PIECE, size - at));
      writeSync(fd, part);
      sum.update(part);
    }
    closeSync(fd);
    sums.set(size, sum.digest('hex'));
  }
  return sums;
}

/** Checks that the files of `sums` arrive intact. */
async function checkFiles(instance: Instance, sums: ReadonlyMap<number, string>): Promise<void> {
  for (const [size, sum] of sums) {
    const curl = `curl -sSf --max-time 60 '${instance.urlOf(String(size))}' | sha256sum`;
    const arrived = await instance.ns.execAsync('sh', ['-c', curl], { timeoutMs: 60_000 });
    if (!arrived.startsWith(sum)) throw new Error(`a file of ${size} bytes did not arrive intact`);
  }
}

/**
 * V8 compiles what a transfer runs in the first seconds of one, which cost up to ten times as much. All
 * contenders must be past that, or the one that runs first looks slow.
 */
const WARM_UP_MS = 4000;

async function warmUp(ctx: BenchContext, all: readonly Contender[]): Promise<void> {
  if (ctx.quick) return;
  const end = performance.now() + WARM_UP_MS;
  do for (const each of all) await each.run();
  while (performance.now() < end);
}

interface Rig {
  readonly ctx: BenchContext;
  readonly instance: Instance;
  readonly gc: GcWatch;
  readonly www: string;
}

/** Starts an instance that serves files of `sizes` to any number of connections. */
async function start(ctx: BenchContext, sizes: readonly number[]): Promise<Rig> {
  const www = join(ctx.baselines.dir, 'www');
  const sums = writeFiles(www, [...new Set(sizes)]);
  const gc = new GcWatch();
  ctx.defer(() => gc[Symbol.dispose]());
  const args = ['serve', www, '--engine', 'native', '--mode', 'vnet', '--memory', ARENA];
  const many = ['--max-connections', '20000', '--idle-timeout', '600', '--header-timeout', '600'];
  const sysctls = ['kern.ipc.maxsockets=40000', 'kern.ipc.soacceptqueue=4096'];
  const limits = [...many, ...sysctls.flatMap((text) => ['--sysctl', text])];
  const instance = await ctx.start(ctx.netns('scale'), [...args, ...limits], {
    wrapper: gc.wrapper,
  });
  await checkFiles(instance, sums);
  return { ctx, instance, gc, www };
}

/** One run of `work` on the connections of `client` to the process `pid`. */
async function runOnce(
  pid: number,
  client: ManyClient,
  { bytes, requests }: Work,
  sampleOf: (seconds: number, cpu: number) => Pick<Sample, 'value' | 'cpu'>,
): Promise<Sample> {
  const metered = await meter([pid, client.pid], () => client.run(pathOf(bytes), bytes, requests));
  const { seconds, cpuSeconds } = metered.result;
  const { value, cpu } = sampleOf(seconds, metered.cpu[0]!);
  return {
    value,
    cpu,
    peerCpu: sampleOf(seconds, cpuSeconds).cpu,
    foreign: metered.foreign(),
  };
}

/** The figure of a row of requests, or of a row of bytes. */
const FIGURES = {
  request:
    ({ requests }: Work) =>
    (seconds: number, cpu: number) => ({ value: requests / seconds, cpu: (cpu / requests) * 1e6 }),
  GB: ({ bytes, requests }: Work) => {
    const gb = (bytes * requests) / 1e9;
    return (seconds: number, cpu: number) => ({ value: (gb * 8) / seconds, cpu: cpu / gb });
  },
} as const;

interface Reading {
  readonly counts: Counts;
  readonly gc: GcSpan;
}

function ours(
  rig: Rig,
  name: string,
  client: ManyClient,
  work: Work,
  per: Per,
): Contender<Reading> {
  const { instance, gc } = rig;
  return contender({
    name,
    run: () => runOnce(instance.ready.pid, client, work, FIGURES[per](work)),
    read: async () => ({
      gc: await gc.read(instance.ready.pid),
      counts: await readCounts(instance),
    }),
    prove(readings, runs) {
      const { mode, engine } = instance.ready;
      const grown = (of: (c: Counts) => number): number =>
        readings.reduce((n, [a, b]) => n + of(b.counts) - of(a.counts), 0);
      const payload = work.bytes * work.requests * runs.length;
      const requests = work.requests * runs.length;
      const tapBytes = grown((c) => c.tap.bytes);
      const conversions = grown((c) => c.emulator.conversions);
      const sendfiles = grown((c) => c.sendfile.sf_syscalls);
      new Claims()
        .must(mode === 'vnet' && engine === 'native', `mode ${mode}, build ${engine}`)
        .must(tapBytes >= payload, `the TAP took ${tapBytes} bytes of ${payload}`)
        .must(
          sendfiles >= requests || work.bytes < SENDFILE_MIN,
          `${sendfiles} sendfile calls for ${requests} requests`,
        )
        .must(conversions === 0, `${conversions} conversions of unmapped mbufs`)
        .check(name);
      const pauses = collected(readings.map(([, after]) => after.gc));
      return { mode, engine, tapBytes, sendfiles, conversions, requests, ...pauses };
    },
  });
}

/** nginx over veth, with the same client. */
async function nginx(rig: Rig, connections: number, work: Work, per: Per): Promise<Contender> {
  const { ctx } = rig;
  const veth = vethPair(ctx);
  const pid = await startNginx(ctx, veth.server, rig.www);
  const client = await ManyClient.open(ctx, veth.client, veth.addr, connections);
  return {
    name: 'nginx over veth',
    run: () => runOnce(pid, client, work, FIGURES[per](work)),
  };
}

function connectionsRow(wanted: number): RowSpec {
  return {
    name: `scale-conn-${wanted}`,
    async setUp(ctx): Promise<Contest> {
      const connections = ctx.quick ? Math.min(wanted, QUICK_CONNECTIONS) : wanted;
      const rig = await start(ctx, [SMALL_FILE]);
      const least = ctx.quick ? QUICK_REQUESTS.request : USUAL_REQUESTS;
      const requests = Math.max(ctx.quick ? connections : 2 * connections, least);
      const work: Work = { bytes: SMALL_FILE, requests };
      const usualWork: Work = { bytes: SMALL_FILE, requests: Math.min(requests, USUAL_REQUESTS) };
      const { ns } = rig.instance;
      const usual = await ManyClient.open(ctx, ns, ADDR, USUAL_CONNECTIONS);
      const client = await ManyClient.open(ctx, ns, ADDR, connections);
      const measured = ours(rig, `${connections} connections`, client, work, 'request');
      const baseline = ours(rig, `ours, ${USUAL_CONNECTIONS}`, usual, usualWork, 'request');
      await warmUp(ctx, [measured, baseline]);
      return {
        unit: 'requests/s',
        per: 'request',
        ours: measured,
        baseline,
        others: [await nginx(rig, connections, work, 'request')],
        effort: EFFORT,
        conditions: { mtu: 1500, arena: ARENA, fileBytes: SMALL_FILE, connections, requests },
        plot: { plot: 'connections', x: wanted },
      };
    },
  };
}

function sizeRow(per: Per, wanted: number, name: string, requestsPerRun: number): RowSpec {
  return {
    name: `scale-size-${name}`,
    async setUp(ctx): Promise<Contest> {
      const bytes = ctx.quick ? Math.min(wanted, QUICK_SIZE) : wanted;
      const [usualBytes, usualName, usualRequests] = SIZES[per][0]!;
      const rig = await start(ctx, [bytes, usualBytes]);
      const requests = ctx.quick ? QUICK_REQUESTS[per] : requestsPerRun;
      const work: Work = { bytes, requests };
      const usualWork: Work = {
        bytes: usualBytes,
        requests: ctx.quick ? QUICK_REQUESTS[per] : usualRequests,
      };
      const connections = Math.min(SIZE_CONNECTIONS, requests);
      const { ns } = rig.instance;
      const client = await ManyClient.open(ctx, ns, ADDR, connections);
      const usual = await ManyClient.open(ctx, ns, ADDR, SIZE_CONNECTIONS);
      const measured = ours(rig, `files of ${name}`, client, work, per);
      const baseline = ours(rig, `ours, files of ${usualName}`, usual, usualWork, per);
      await warmUp(ctx, [measured, baseline]);
      return {
        unit: per === 'GB' ? 'Gbit/s' : 'requests/s',
        per,
        ours: measured,
        baseline,
        others: [await nginx(rig, connections, work, per)],
        effort: EFFORT,
        conditions: { mtu: 1500, arena: ARENA, fileBytes: bytes, connections, requests },
        plot: { plot: 'file-size', x: wanted },
      };
    },
  };
}

export const scaleBenches: readonly Bench[] = [
  {
    name: 'scale',
    description: '1 to 10,000 connections, files of 1 KB to 1 GB, and memory of idle connections',
    needs: ['root', 'netns', 'tap', 'curl', 'nginx'],
    rows: [
      ...CONNECTIONS.map(connectionsRow),
      ...(['request', 'GB'] as const).flatMap((per) =>
        SIZES[per].map(([bytes, name, requests]) => sizeRow(per, bytes, name, requests)),
      ),
      ...idleRows,
    ],
  },
];
