/**
 * Bulk reception: a C program sends over kernel TCP, and a program on the emulated host discards the
 * data. The baseline is `baseline/bulk_rx.c`, a minimal reader on its own TAP. In mode `vnet` a
 * node:net server on a veth pair takes part too.
 */

import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Instance } from '../../support/instance.ts';
import type { Netns } from '../../support/netns.ts';
import { packageRoot } from '../../support/root.ts';
import type { Bench, RowSpec } from '../bench.ts';
import { type Report, reportOf } from '../bulk_tx.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { type Contender, contender, type Contest, type Sample } from '../contest.ts';
import { collected, type GcSpan, GcWatch } from '../gc_watch.ts';
import { meter } from '../load.ts';
import { type Counts, type Mode, readCounts } from '../proof.ts';
import { startNode, vethPair } from '../veth.ts';

const MTU = 1500;
const ETHER_HEADER = 14;
const DISCARD = '9';
const ECHO = '7';
const BASELINE_ADDR = '192.0.2.2';
const READY_TIMEOUT_MS = 20_000;

/** Bytes of a run, about 0.5 s of the C reader. */
const BYTES: Record<Mode, number> = { wire: 600e6, vnet: 2400e6 };
const QUICK_BYTES = 4e6;
/** Bytes that are sent back and compared before the runs. */
const CHECKED_BYTES = 20e6;

/** Linux's counters of the frames that it gave to the TAP. */
interface Sent {
  packets: number;
  bytes: number;
}

interface Readings extends Counts {
  gc: GcSpan;
  sent: Sent;
}

interface LinkStats {
  stats64: { tx: Sent };
}

/** What the C reader prints. */
interface ReaderReport extends Report {
  frames: number;
  badSums: number;
}

/** Sends `bytes` to `address` from `ns`; the report is of the sender. */
async function send(
  ctx: BenchContext,
  ns: Netns,
  address: string,
  bytes: number,
  ...more: string[]
): Promise<Report> {
  const args = ['-d', address, '-b', `${bytes}`, ...more, ...ctx.pins.args('peer')];
  const report = reportOf(await ns.execAsync(ctx.baselines.program('source'), args));
  if (report.bytes !== bytes) throw new Error(`sent ${report.bytes} bytes of ${bytes}`);
  return report;
}

function sampleOf(report: Report, cpu: number, foreign: number): Sample {
  const { bytes, seconds, cpuSeconds } = report;
  return {
    value: (bytes * 8) / 1e9 / seconds,
    cpu: cpu / (bytes / 1e9),
    peerCpu: cpuSeconds / (bytes / 1e9),
    foreign,
  };
}

/** A run that sends to the discard port of process `pid`. */
async function discarded(
  ctx: BenchContext,
  ns: Netns,
  address: string,
  pid: number,
  bytes: number,
): Promise<Sample> {
  const m = await meter([pid], () => send(ctx, ns, address, bytes, '-p', DISCARD));
  return sampleOf(m.result, m.cpu[0]!, m.foreign(m.result.cpuSeconds));
}

/** Starts the C reader, which serves one connection; resolves when its interface is up. */
async function startReader(ctx: BenchContext, ns: Netns, mode: Mode) {
  const args = ['-t', 'base0', '-m', mode, ...ctx.pins.args('ours')];
  const child = ns.spawn(ctx.baselines.program('bulk_rx'), args, {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')));
  const exit = once(child, 'close');
  const ended = (): Error => new Error(`bulk_rx: ended (${child.exitCode}): ${stderr}`);
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      stdout += `${line}\n`;
      if (line === 'ready') resolve();
    });
    exit.then(() => reject(ended()), reject);
    setTimeout(() => reject(new Error('bulk_rx: not ready')), READY_TIMEOUT_MS).unref();
  });
  return {
    report: async (): Promise<ReaderReport> => {
      await exit;
      if (child.exitCode !== 0) throw ended();
      return JSON.parse(stdout.trim().split('\n').at(-1)!);
    },
    kill: () => child.kill('SIGKILL'),
  };
}

/** The C reader. */
function reader(ctx: BenchContext, mode: Mode, bytes: number): Contender {
  const ns = ctx.netns('c');
  return contender({
    name: mode === 'wire' ? 'C reader, software checksum' : 'C reader, 64 KB frames',
    run: async () => {
      const program = await startReader(ctx, ns, mode);
      try {
        let read: ReaderReport | null = null;
        const m = await meter([], async () => {
          const sent = await send(ctx, ns, BASELINE_ADDR, bytes);
          read = await program.report();
          return sent;
        });
        const { cpuSeconds, frames, badSums, bytes: got } = read!;
        const mean = got / frames;
        new Claims()
          .must(got === bytes, `read ${got} bytes of ${bytes}`)
          .must(badSums === 0, `${badSums} wrong checksums`)
          .must(mode === 'wire' ? mean <= MTU : mean > 2 * MTU, `frames of ${mean} bytes`)
          .check(`C reader, ${mode}`);
        return sampleOf(m.result, cpuSeconds, m.foreign(m.result.cpuSeconds, cpuSeconds));
      } finally {
        program.kill();
      }
    },
  });
}

async function readings(instance: Instance, gcWatch: GcWatch): Promise<Readings> {
  const args = ['-s', '-j', 'link', 'show', 'dev', instance.ready.tap];
  const [link]: LinkStats[] = JSON.parse(await instance.ns.execAsync('ip', args));
  // Collects garbage, so it comes first: the counters are read next to the run.
  const gc = await gcWatch.read(instance.ready.pid);
  return { ...(await readCounts(instance)), sent: link!.stats64.tx, gc };
}

/** The discard service on the emulated host. */
function ours(
  ctx: BenchContext,
  instance: Instance,
  gc: GcWatch,
  bytes: number,
): Contender<Readings> {
  const { pid, addr, mode, engine, napi } = instance.ready;
  return contender({
    name: 'ours',
    run: () => discarded(ctx, instance.ns, addr, pid, bytes),
    read: () => readings(instance, gc),
    prove(spans, runs) {
      const grown = (count: (r: Readings) => number): number =>
        spans.reduce((n, [before, after]) => n + count(after) - count(before), 0);
      const options = spans.at(-1)?.[1].nic.options_names ?? [];
      const tapFrames = grown((r) => r.sent.packets);
      const tapBytes = grown((r) => r.sent.bytes);
      const driverFrames = grown((r) => r.nic.counters['ipackets'] ?? 0);
      const dmaBounced = grown((r) => r.emulator.dma.bounced);
      const dmaFaults = grown((r) => r.emulator.dma.faults);
      const bytesPerTapFrame = Math.round(tapBytes / tapFrames);
      const frameMax = MTU + ETHER_HEADER;
      const claims = new Claims()
        .must(engine === 'native', `build ${engine}, not native`)
        .must(napi === 'off', `napi ${napi}, not off`)
        .must(tapBytes >= bytes * runs.length, `the TAP gave ${tapBytes} bytes`)
        .must(dmaBounced === 0, `${dmaBounced} bounced pages`)
        .must(dmaFaults === 0, `${dmaFaults} DMA faults`);
      for (const option of ['RXCSUM', ...(mode === 'wire' ? ['LRO'] : [])])
        claims.must(options.includes(option), `${option} is off`);
      if (mode === 'wire') {
        claims.must(bytesPerTapFrame <= frameMax, `frames of ${bytesPerTapFrame} bytes on the TAP`);
        claims.must(driverFrames * 2 < tapFrames, `${driverFrames} frames received: no LRO`);
      } else {
        claims.must(bytesPerTapFrame > 2 * frameMax, 'no super-frames on the TAP');
        claims.must(driverFrames <= tapFrames, `${driverFrames} frames received of ${tapFrames}`);
      }
      claims.check(mode);
      const frames = { tapFrames, tapBytes, driverFrames, bytesPerTapFrame };
      return {
        engine,
        mode,
        napi,
        options,
        ...frames,
        ...collected(spans.map(([, { gc: g }]) => g)),
      };
    },
  });
}

function spec(mode: Mode): RowSpec {
  return {
    name: `bulk-rx-${mode}`,
    async setUp(ctx): Promise<Contest> {
      const bytes = ctx.quick ? QUICK_BYTES : BYTES[mode];
      const args = ['inetd', '--services', 'discard,echo', '--engine', 'native', '--mode', mode];
      const options = ['--memory', '256M', '--mtu', `${MTU}`];
      const gc = new GcWatch();
      ctx.defer(() => gc[Symbol.dispose]());
      const instance = await ctx.start(ctx.netns('rx'), [...args, ...options], {
        wrapper: gc.wrapper,
      });
      const { ns, ready } = instance;
      await send(ctx, ns, ready.addr, ctx.quick ? QUICK_BYTES : CHECKED_BYTES, '-p', ECHO, '-e');
      const contest = {
        unit: 'Gbit/s',
        per: 'GB' as const,
        ours: ours(ctx, instance, gc, bytes),
        baseline: reader(ctx, mode, bytes),
        conditions: { mtu: MTU, bytesPerRun: bytes, arena: '256M', connections: 1 },
      };
      if (mode === 'wire') return contest;
      const veth = vethPair(ctx);
      const script = join(packageRoot(), 'test/bench/baseline/discard.mjs');
      const node = await startNode(ctx, veth.server, script, [DISCARD], Number(DISCARD));
      const others = [
        contender({
          name: 'node:net over veth',
          run: () => discarded(ctx, veth.client, veth.addr, node, bytes),
        }),
      ];
      return { ...contest, others };
    },
  };
}

export const bulkRxBenches: readonly Bench[] = [
  {
    name: 'bulk-rx',
    description: 'bulk reception, next to a minimal C reader; 64 KB frames also next to node:net',
    needs: ['root', 'netns', 'tap'],
    rows: [spec('wire'), spec('vnet')],
  },
];
