/**
 * Rows of idle connections: without any data, and after one HTTP request. The figure is the memory of the
 * JavaScript heap and of what it keeps outside, per connection, after a full collection; the CPU figure is
 * that of the idle process, per connection and second. The baseline is a program of Node.js over veth.
 */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { request } from '../../../src/cli/control_client.ts';
import type { NetstatM } from '../../../src/ctl/netstat_m.ts';
import { TCPS_ESTABLISHED } from '../../../src/netinet/tcp_fsm.ts';
import type { Instance } from '../../support/instance.ts';
import type { Netns } from '../../support/netns.ts';
import { packageRoot } from '../../support/root.ts';
import type { RowSpec } from '../bench.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { contender, type Contest, type Sample } from '../contest.ts';
import { GcWatch } from '../gc_watch.ts';
import { meter } from '../load.ts';
import { startServer, vethPair } from '../veth.ts';
import { ManyClient } from './many_client.ts';

const CONNECTIONS = 10_000;
const QUICK_CONNECTIONS = 500;
/** Connections before the first reading: they compile the code, whose memory does not count. */
const WARM_UP = 2000;
const QUICK_WARM_UP = 100;
/** The file of the requests. */
const FILE = '1024';
const FILE_BYTES = 1024;
const IDLE_MS = 2000;
/** A process is idle if it uses less than this share of a core for a while. */
const QUIET_SHARE = 0.02;
const QUIET_MS = 300;
const QUIET_TRIES = 50;
/** Bytes of a machine page and of a page frame in the arena. */
const PAGE = 4096;

/** Memory of a process, bytes: live JavaScript memory, resident pages, and frames in the arena. */
interface Weight {
  readonly live: number;
  readonly rss: number;
  readonly arena: number;
}

function rssOf(pid: number): number {
  const [, resident] = readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ');
  return Number(resident) * PAGE;
}

/** Page frames of the arena in use, bytes. */
async function arenaOf(instance: Instance): Promise<number> {
  const report = (await request(instance.control, 'netstat', { report: 'm' })) as NetstatM;
  const { pages } = report.emulator;
  return (pages.total - pages.free) * PAGE;
}

/** Waits until a process has nothing to do: it has accepted all connections. */
async function quiet(pid: number): Promise<void> {
  for (let i = 0; i < QUIET_TRIES; i++) {
    const { cpu } = await meter([pid], () => sleep(QUIET_MS));
    if (cpu[0]! < (QUIET_MS / 1000) * QUIET_SHARE) return;
  }
  throw new Error(`process ${pid} does not become idle`);
}

async function weigh(gc: GcWatch, pid: number, arena = 0): Promise<Weight> {
  await quiet(pid);
  const { heap, external } = await gc.read(pid);
  return { live: heap + external, rss: rssOf(pid), arena };
}

/** Bytes per connection between two weights. */
function each(before: Weight, after: Weight, connections: number): Weight {
  const per = (of: (w: Weight) => number): number =>
    Math.round((of(after) - of(before)) / connections);
  return { live: per((w) => w.live), rss: per((w) => w.rss), arena: per((w) => w.arena) };
}

/** The CPU time of an idle process. */
async function idle(pid: number, connections: number, weight: Weight): Promise<Sample> {
  const metered = await meter([pid], () => sleep(IDLE_MS));
  return {
    value: weight.live,
    // A process that needs no CPU at all has no figure.
    cpu: Math.max((metered.cpu[0]! * 1e6) / connections / (IDLE_MS / 1000), 1e-6),
    foreign: metered.foreign(),
  };
}

/** A kind of connection. */
interface Kind {
  readonly name: string;
  readonly port: number;
  /** Arguments of the instance; the first `WWW` stands for a directory with the file. */
  readonly args: readonly string[];
  /** The baseline, its script, and what the connections do before they are idle. */
  readonly baseline: string;
  readonly script: string;
  readonly request: boolean;
}

const KINDS: readonly Kind[] = [
  {
    name: 'scale-idle',
    port: 9,
    args: ['inetd', '--services', 'discard'],
    baseline: 'node:net over veth',
    script: 'discard.mjs',
    request: false,
  },
  {
    name: 'scale-idle-http',
    port: 80,
    args: 'serve WWW --max-connections 20000 --idle-timeout 600 --header-timeout 600'.split(' '),
    baseline: 'node:http over veth',
    script: 'http_idle.mjs',
    request: true,
  },
];

/** A server whose connections are weighed. */
interface Server {
  readonly ns: Netns;
  readonly addr: string;
  readonly pid: number;
  readonly gc: GcWatch;
  /** Bytes of the arena in use. */
  arena(): Promise<number>;
}

/** Opens connections to `server` and returns the memory of each, without the first ones. */
async function opened(ctx: BenchContext, server: Server, kind: Kind, connections: number) {
  const { ns, addr, pid, gc } = server;
  const open = async (n: number): Promise<Weight> => {
    const client = await ManyClient.open(ctx, ns, addr, n, kind.port);
    if (kind.request) await client.run(`/${FILE}`, FILE_BYTES, n);
    return weigh(gc, pid, await server.arena());
  };
  const before = await open(ctx.quick ? QUICK_WARM_UP : WARM_UP);
  return each(before, await open(connections), connections);
}

function www(ctx: BenchContext): string {
  const dir = join(ctx.baselines.dir, 'www');
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, FILE), Buffer.alloc(FILE_BYTES, 1));
  return dir;
}

function probe(ctx: BenchContext): GcWatch {
  const gc = new GcWatch();
  ctx.defer(() => gc[Symbol.dispose]());
  return gc;
}

/** Our instance as a server. */
async function startOurs(ctx: BenchContext, kind: Kind): Promise<[Server, Instance]> {
  const gc = probe(ctx);
  const args = kind.args.map((arg) => (arg === 'WWW' ? www(ctx) : arg));
  const sysctls = ['kern.ipc.maxsockets=40000', 'kern.ipc.soacceptqueue=4096'];
  const more = ['--engine', 'native', '--mode', 'wire', ...sysctls.flatMap((s) => ['--sysctl', s])];
  const wrapper = gc.wrapper;
  const instance = await ctx.start(ctx.netns('idle'), [...args, ...more], { wrapper });
  const { pid, addr } = instance.ready;
  return [{ ns: instance.ns, addr, pid, gc, arena: () => arenaOf(instance) }, instance];
}

/** The baseline as a server. */
async function startNode(ctx: BenchContext, { script, port }: Kind): Promise<Server> {
  const veth = vethPair(ctx);
  const gc = probe(ctx);
  const file = join(packageRoot(), 'test/bench/baseline', script);
  const command = [...gc.wrapper, process.execPath, file, String(port)];
  const pid = await startServer(ctx, veth.server, command, port);
  return { ns: veth.client, addr: veth.addr, pid, gc, arena: () => Promise.resolve(0) };
}

async function setUp(ctx: BenchContext, kind: Kind): Promise<Contest> {
  const connections = ctx.quick ? QUICK_CONNECTIONS : CONNECTIONS;
  const [ours, instance] = await startOurs(ctx, kind);
  const weight = await opened(ctx, ours, kind, connections);
  const node = await startNode(ctx, kind);
  const nodeWeight = await opened(ctx, node, kind, connections);
  return {
    unit: 'B/connection',
    higherIsBetter: false,
    per: 'request',
    ours: contender({
      name: 'ours',
      run: () => idle(ours.pid, connections, weight),
      read: () => request(instance.control, 'netstat', { report: 's' }) as Promise<States>,
      prove(readings, runs) {
        const [, last] = readings.at(-1)!;
        const established = last.protocols.tcp.states[TCPS_ESTABLISHED] ?? 0;
        new Claims()
          .must(established >= connections, `${established} connections established`)
          .check('idle connections');
        const cpu = runs.reduce((n, run) => n + run.cpu, 0) / runs.length;
        const { mode, engine } = instance.ready;
        return {
          mode,
          engine,
          established,
          rssPerConnection: weight.rss,
          arenaPerConnection: weight.arena,
          idleCpuPercent: Number(((cpu * connections) / 1e4).toFixed(3)),
        };
      },
    }),
    baseline: contender({
      name: kind.baseline,
      run: () => idle(node.pid, connections, nodeWeight),
      prove: () => ({ rssPerConnection: nodeWeight.rss }),
    }),
    effort: { warmUps: 0, rounds: 3, seconds: 0 },
    conditions: { connections, warmUpConnections: WARM_UP },
  };
}

/** The part of `netstat -s` that is used. */
interface States {
  readonly protocols: { readonly tcp: { readonly states: readonly number[] } };
}

export const idleRows: readonly RowSpec[] = KINDS.map((kind) => ({
  name: kind.name,
  setUp: (ctx) => setUp(ctx, kind),
}));
