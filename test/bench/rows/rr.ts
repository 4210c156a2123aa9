/**
 * Small packets: echoes of UDP and ICMP, requests of one byte over TCP, and new connections. A C client
 * on the kernel's sockets measures rate and latency. The baseline of the echoes is a C responder on a
 * TAP of its own; that of TCP is a C server on the kernel's sockets, over a veth pair.
 */

import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { request } from '../../../src/cli/control_client.ts';
import type { NetstatS } from '../../../src/ctl/netstat_s.ts';
import type { Instance } from '../../support/instance.ts';
import type { Netns } from '../../support/netns.ts';
import type { Bench, RowSpec } from '../bench.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { type Contender, contender, type Contest, type Sample } from '../contest.ts';
import { meter } from '../load.ts';
import { type Counts, readCounts } from '../proof.ts';
import { startServer, vethPair } from '../veth.ts';

const SECONDS = 0.6;
const QUICK_SECONDS = 0.3;
const ECHO = 7;
const DISCARD = 9;
/** The address of Linux's end of `responder.c` is fixed; instances have the same. */
const RESPONDER = '192.0.2.2';
const READY_TIMEOUT_MS = 10_000;

/** What `baseline/rr.c` prints. */
interface Report {
  answers: number;
  lost: number;
  seconds: number;
  cpuSeconds: number;
  latencies: number[];
}

interface Load {
  readonly mode: 'udp' | 'icmp' | 'tcp' | 'accept';
  readonly port: number;
  readonly outstanding: number;
  /** The figure is the median latency, not the rate. */
  readonly latency?: boolean;
}

/** A program that answers: its namespace for clients, its address and its process. */
interface Target {
  readonly ns: Netns;
  readonly addr: string;
  readonly pid: number;
}

async function ask(ctx: BenchContext, target: Target, load: Load): Promise<Report> {
  const seconds = ctx.quick ? QUICK_SECONDS : SECONDS;
  const where = ['-d', target.addr, '-p', `${load.port}`];
  const args = [load.mode, ...where, '-n', `${load.outstanding}`, '-t', `${seconds}`];
  const rr = ctx.baselines.program('rr');
  const out = await target.ns.execAsync(rr, [...args, ...ctx.pins.args('peer')]);
  const report: Report = JSON.parse(out);
  return report;
}

/** A measured run and its answers. */
async function run(
  ctx: BenchContext,
  target: Target,
  load: Load,
): Promise<{ sample: Sample; answers: number }> {
  const metered = await meter([target.pid], () => ask(ctx, target, load));
  const { answers, lost, seconds, cpuSeconds, latencies } = metered.result;
  if (lost > answers / 1000) throw new Error(`${load.mode}: ${lost} of ${answers} were lost`);
  const sorted = Float64Array.from(latencies).sort();
  const sample: Sample = {
    value: load.latency === true ? sorted[sorted.length >> 1]! : answers / seconds,
    // The CPU time of the server includes the warm-up of the client, a tenth of the time.
    cpu: (metered.cpu[0]! / (1.1 * answers)) * 1e6,
    peerCpu: (cpuSeconds / answers) * 1e6,
    foreign: metered.foreign(cpuSeconds),
    latencies,
  };
  return { sample, answers };
}

/** Starts `responder.c` on a TAP of its own. */
async function startResponder(ctx: BenchContext): Promise<Target> {
  const ns = ctx.netns('c');
  const args = ['-t', 'base0', ...ctx.pins.args('ours')];
  const child = ns.spawn(ctx.baselines.program('responder'), args, {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(child, 'close');
  ctx.defer(async () => {
    child.kill('SIGKILL');
    await exit;
  });
  const signal = AbortSignal.timeout(READY_TIMEOUT_MS);
  await once(createInterface({ input: child.stdout! }), 'line', { signal });
  return { ns, addr: RESPONDER, pid: child.pid! };
}

/** Starts `echod.c` behind a veth pair. */
async function startEchod(ctx: BenchContext): Promise<Target> {
  const veth = vethPair(ctx);
  const pid = await startServer(ctx, veth.server, [ctx.baselines.program('echod')], ECHO);
  return { ns: veth.client, addr: veth.addr, pid };
}

async function startOurs(ctx: BenchContext): Promise<Instance> {
  // FreeBSD answers at most 200 echo requests a second.
  const unlimited = ['--sysctl', 'net.inet.icmp.icmplim=0'];
  const args = ['inetd', '--engine', 'native', '--mode', 'wire', ...unlimited];
  return await ctx.start(ctx.netns('rr'), args);
}

/** Counters of the NIC and the TAP, and the counter of the stack that grows with each answer. */
interface Seen extends Counts {
  done: number;
}

const COUNTER: Record<Load['mode'], readonly [protocol: string, counter: string]> = {
  udp: ['udp', 'udps_opackets'],
  icmp: ['icmp', 'icps_reflect'],
  tcp: ['tcp', 'tcps_sndpack'],
  accept: ['tcp', 'tcps_accepts'],
};

async function read(instance: Instance, load: Load): Promise<Seen> {
  const [protocol, counter] = COUNTER[load.mode];
  const s = (await request(instance.control, 'netstat', { report: 's' })) as NetstatS;
  return { ...(await readCounts(instance)), done: Number(s.protocols[protocol]![counter]) };
}

function contenderOurs(ctx: BenchContext, instance: Instance, load: Load): Contender<Seen> {
  const { pid, addr, mode, engine } = instance.ready;
  const target = { ns: instance.ns, addr, pid };
  const answers: number[] = [];
  return contender({
    name: 'ours',
    run: async () => {
      const { sample, answers: n } = await run(ctx, target, load);
      answers.push(n);
      return sample;
    },
    read: () => read(instance, load),
    prove(readings) {
      const grown = (of: (seen: Seen) => number): number =>
        readings.reduce((n, [before, after]) => n + of(after) - of(before), 0);
      // The runs before the first reading were warm-ups.
      const wanted = answers.slice(-readings.length).reduce((sum, n) => sum + n, 0);
      const frames = grown(({ tap }) => tap.packets);
      const done = grown((seen) => seen.done);
      const [, counter] = COUNTER[load.mode];
      new Claims()
        .must(mode === 'wire' && engine === 'native', `mode ${mode}, build ${engine}`)
        .must(frames >= wanted, `the TAP took ${frames} frames for ${wanted} answers`)
        .must(done >= wanted, `${counter} grew by ${done} for ${wanted} answers`)
        .check(load.mode);
      return { mode, engine, frames, [counter]: done };
    },
  });
}

/** A row. The client compares each answer with its request, so it also proves the bytes. */
function row(name: string, load: Load): RowSpec {
  return {
    name,
    async setUp(ctx): Promise<Contest> {
      const packets = load.mode === 'udp' || load.mode === 'icmp';
      const baseline = packets ? await startResponder(ctx) : await startEchod(ctx);
      const instance = await startOurs(ctx);
      const what = load.mode === 'accept' ? 'C server' : 'C echo';
      return {
        unit:
          load.latency === true ? 'µs' : load.mode === 'accept' ? 'connections/s' : 'requests/s',
        higherIsBetter: load.latency !== true,
        per: 'request',
        ours: contenderOurs(ctx, instance, load),
        baseline: contender({
          name: packets ? 'C responder on a TAP' : `${what} over veth`,
          run: async () => (await run(ctx, baseline, load)).sample,
        }),
        // Short requests need the optimized code of every function that they pass.
        effort: { warmUps: 4, rounds: 7 },
        conditions: { mtu: 1500, outstanding: load.outstanding },
      };
    },
  };
}

const NEEDS = ['root', 'netns', 'tap'] as const;
const ECHOES = { port: ECHO, outstanding: 32 };
const ONE = { port: ECHO, outstanding: 1, latency: true };

export const rrBenches: readonly Bench[] = [
  {
    name: 'echo',
    description:
      'echoes of UDP and ICMP, 32 outstanding, and the latency of one; next to C on a TAP',
    needs: NEEDS,
    rows: [
      row('udp-echo', { mode: 'udp', ...ECHOES }),
      row('udp-echo-latency', { mode: 'udp', ...ONE }),
      row('icmp-echo', { mode: 'icmp', ...ECHOES }),
      row('icmp-echo-latency', { mode: 'icmp', ...ONE }),
    ],
  },
  {
    name: 'rr',
    description: 'requests of one byte over TCP, and new connections, next to C over veth',
    needs: NEEDS,
    rows: [
      row('tcp-rr', { mode: 'tcp', port: ECHO, outstanding: 1 }),
      row('tcp-rr-64', { mode: 'tcp', port: ECHO, outstanding: 64 }),
      row('accept', { mode: 'accept', port: DISCARD, outstanding: 32 }),
    ],
  },
];
