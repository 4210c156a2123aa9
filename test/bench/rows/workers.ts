/**
 * What it costs to share a port between workers: small files on 64 connections from `serve --workers 2`,
 * next to one stack. Both have one CPU, so the row shows the cost of a request and not the number of
 * cores.
 */

import { createHash, randomFillSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NetstatS } from '../../../src/ctl/netstat_s.ts';
import type { Instance } from '../../support/instance.ts';
import type { Bench } from '../bench.ts';
import { reportOf } from '../bulk_tx.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { type Contender, contender, type Contest } from '../contest.ts';
import { meter } from '../load.ts';

const WORKERS = 2;
const CONNECTIONS = 64;
const FILE = 'file.bin';
const FILE_BYTES = 1024;

/** Files and requests of a run. */
interface Load {
  readonly www: string;
  /** The list of requests for the client. */
  readonly list: string;
  readonly requests: number;
  readonly sha256: string;
}

function prepare(ctx: BenchContext): Load {
  const www = join(ctx.baselines.dir, 'www-workers');
  mkdirSync(www);
  const bytes = randomFillSync(Buffer.allocUnsafe(FILE_BYTES));
  writeFileSync(join(www, FILE), bytes);
  const requests = CONNECTIONS * (ctx.quick ? 4 : 500);
  const list = join(ctx.baselines.dir, 'list-workers');
  writeFileSync(list, `/${FILE} ${FILE_BYTES}\n`.repeat(requests));
  return { www, list, requests, sha256: createHash('sha256').update(bytes).digest('hex') };
}

/** Counters of a stack, or the sum of those of all workers. */
interface Counts {
  readonly accepted: number;
  readonly handedOver: number;
  readonly lost: number;
}

async function counts(instance: Instance): Promise<Counts> {
  const { protocols } = await instance.json<NetstatS>('netstat', '-s');
  const { handedOver = 0, handoverFull = 0 } = (protocols['workers'] ?? {}) as Record<
    string,
    number
  >;
  return {
    accepted: protocols['tcp']!['tcps_accepts'] as number,
    handedOver,
    lost: handoverFull,
  };
}

async function server(ctx: BenchContext, load: Load, workers: number): Promise<Contender<Counts>> {
  const args = ['serve', load.www, '--workers', `${workers}`, '--engine', 'native'];
  const instance = await ctx.start(ctx.netns(`w${workers}`), args);
  const sum = `curl -sSf --max-time 60 '${instance.urlOf(FILE)}' | sha256sum`;
  const arrived = await instance.ns.execAsync('sh', ['-c', sum]);
  if (!arrived.startsWith(load.sha256)) throw new Error('the file did not arrive intact');
  const { addr, pid } = instance.ready;
  const args2 = ['-d', addr, '-l', load.list, '-n', `${CONNECTIONS}`, ...ctx.pins.args('peer')];
  return contender({
    name: workers === 1 ? 'one stack' : `${workers} workers`,
    async run() {
      const metered = await meter([pid], () =>
        instance.ns.execAsync(ctx.baselines.program('web'), args2, { timeoutMs: 90_000 }),
      );
      const report = reportOf(metered.result);
      if (report.bytes !== load.requests * FILE_BYTES) throw new Error(`${report.bytes} bytes`);
      return {
        value: load.requests / report.seconds / 1000,
        cpu: (metered.cpu[0]! * 1e6) / load.requests,
        peerCpu: (report.cpuSeconds * 1e6) / load.requests,
        foreign: metered.foreign(report.cpuSeconds),
      };
    },
    read: () => counts(instance),
    prove(readings, runs) {
      const sumOf = (key: keyof Counts): number =>
        readings.reduce((n, [a, b]) => n + b[key] - a[key], 0);
      const { engine, mode } = instance.ready;
      const [accepted, handedOver, lost] = [sumOf('accepted'), sumOf('handedOver'), sumOf('lost')];
      new Claims()
        .must(accepted === CONNECTIONS * runs.length, `${accepted} connections were accepted`)
        .must(workers === 1 ? handedOver === 0 : handedOver > 0, `${handedOver} frames handed over`)
        .must(lost === 0, `${lost} frames lost between workers`)
        .must(engine === 'native', `the build ${engine}`)
        .check(`${workers} workers`);
      return { engine, mode, workers, accepted, handedOver, lost };
    },
  });
}

export const workersBenches: readonly Bench[] = [
  {
    name: 'workers',
    description:
      'requests for 1 KB on 64 connections, 2 workers next to one stack, on one CPU each',
    needs: ['root', 'netns', 'tap', 'curl'],
    rows: [
      {
        name: 'workers',
        async setUp(ctx): Promise<Contest> {
          const load = prepare(ctx);
          return {
            unit: 'k/s',
            per: 'request',
            ours: await server(ctx, load, WORKERS),
            baseline: await server(ctx, load, 1),
            conditions: { connections: CONNECTIONS, fileBytes: FILE_BYTES },
          };
        },
      },
    ],
  },
];
