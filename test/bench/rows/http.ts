/**
 * The web server: files of 1 KB and 64 KB over connections that stay open. All servers have the same
 * load, of `baseline/web.c`. The baselines are nginx and a node:http server on a veth pair, and in mode
 * `wire` the C sender of bulk transmission.
 */

import type { Bench, RowSpec } from '../bench.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { type Contender, contender, type Contest } from '../contest.ts';
import { type Counts, type Mode, readCounts } from '../proof.ts';
import { startNginx, startNode, vethPair } from '../veth.ts';
import { HttpRig, type Load, NODE_SERVER } from './http_rig.ts';

const MTU = 1500;
const ETHER_HEADER = 14;
const NODE_PORT = 8080;
/** V8 still compiles what a request runs after three runs, on the CPU of ours. */
const WARM_UPS = 8;
const KB = 1024;

interface HttpRow {
  readonly name: string;
  readonly mode: Mode;
  readonly unit: 'requests/s' | 'Gbit/s';
  readonly load: Load;
  /** What ours is compared with first. */
  readonly baseline: 'nginx' | 'node' | 'c';
}

const ROWS: readonly HttpRow[] = [
  {
    name: 'http-1k-1',
    mode: 'wire',
    unit: 'requests/s',
    load: { connections: 1, fileBytes: KB, files: 1, requests: 6000, latencies: true },
    baseline: 'nginx',
  },
  {
    name: 'http-1k',
    mode: 'wire',
    unit: 'requests/s',
    load: { connections: 64, fileBytes: KB, files: 16, requests: 24_000 },
    baseline: 'node',
  },
  {
    name: 'http-64k',
    mode: 'wire',
    unit: 'Gbit/s',
    load: { connections: 64, fileBytes: 64 * KB, files: 256, requests: 3000 },
    baseline: 'c',
  },
  {
    name: 'http-64k-vnet',
    mode: 'vnet',
    unit: 'Gbit/s',
    load: { connections: 64, fileBytes: 64 * KB, files: 256, requests: 8000 },
    baseline: 'node',
  },
];

/** Proves that every response left by sendfile and DMA alone, in frames of the mode. */
function provePath(rig: HttpRig, row: HttpRow, readings: readonly (readonly [Counts, Counts])[]) {
  const sum = (of: (c: Counts) => number): number =>
    readings.reduce((n, [before, after]) => n + of(after) - of(before), 0);
  const payload = rig.payload * readings.length;
  const requests = rig.load.requests * readings.length;
  const frames = sum((c) => c.tap.packets);
  const tapBytes = sum((c) => c.tap.bytes);
  const sendfileCalls = sum((c) => c.sendfile.sf_syscalls);
  const conversions = sum((c) => c.emulator.conversions + c.emulator.conversion_failures);
  const mapped = sum((c) => c.emulator.sf_bufs.total);
  const mean = tapBytes / frames;
  new Claims()
    .must(sendfileCalls >= requests, `${sendfileCalls} sendfile calls for ${requests} requests`)
    .must(conversions === 0, `${conversions} conversions of unmapped mbufs`)
    .must(mapped === 0, `${mapped} pages mapped`)
    .must(tapBytes >= payload, `the TAP took ${tapBytes} bytes of ${payload}`)
    .must(
      row.mode === 'wire' ? mean <= MTU + ETHER_HEADER : mean > 2 * MTU,
      `frames of ${mean} bytes on the TAP`,
    )
    .must(
      rig.load.fileBytes > KB || frames < 1.2 * requests,
      `${frames} frames for ${requests} requests: header and body apart`,
    )
    .check(row.name);
  return { sendfileCalls, conversions, sf_bufs: mapped, tapFrames: frames, tapBytes };
}

async function setUp(ctx: BenchContext, row: HttpRow): Promise<Contest> {
  const { connections, requests } = row.load;
  // Each connection has at least a few requests.
  const few = Math.max(connections * 4, Math.ceil(requests / 20));
  const rig = new HttpRig(ctx, { ...row.load, requests: ctx.quick ? few : requests });
  const { mode, unit } = row;
  const args = ['serve', rig.www, '--engine', 'native', '--mode', mode, '--memory', '256M'];
  const instance = await ctx.start(ctx.netns('http'), args);
  const { addr, pid, engine } = instance.ready;
  await rig.check(instance.ns, addr);
  const veth = vethPair(ctx);
  const nginxPid = await startNginx(ctx, veth.server, rig.www);
  const nodePid = await startNode(
    ctx,
    veth.server,
    NODE_SERVER,
    [rig.www, `${NODE_PORT}`],
    NODE_PORT,
  );
  await rig.check(veth.client, veth.addr);
  await rig.check(veth.client, veth.addr, NODE_PORT);
  const ours = contender({
    name: 'ours',
    run: () => rig.run(instance.ns, addr, pid, unit),
    read: () => readCounts(instance),
    prove: (readings) => ({ engine, mode, ...provePath(rig, row, readings) }),
  });
  const nginx = contender({
    name: 'nginx over veth',
    run: () => rig.run(veth.client, veth.addr, nginxPid, unit),
  });
  const node = contender({
    name: 'node:http over veth',
    run: () => rig.run(veth.client, veth.addr, nodePid, unit, NODE_PORT),
  });
  const [baseline, ...others]: Contender[] =
    row.baseline === 'c'
      ? [rig.sender(), node, nginx]
      : row.baseline === 'node'
        ? [node, nginx]
        : [nginx, node];
  return {
    unit,
    per: unit === 'Gbit/s' ? 'GB' : 'request',
    ours,
    baseline: baseline!,
    others,
    effort: { warmUps: WARM_UPS },
    conditions: { mtu: MTU, ...rig.load },
  };
}

export const httpBenches: readonly Bench[] = [
  {
    name: 'http',
    description: 'the web server: small and larger files, with nginx and node:http',
    needs: ['root', 'netns', 'tap', 'curl', 'nginx'],
    rows: ROWS.map((row): RowSpec => ({ name: row.name, setUp: (ctx) => setUp(ctx, row) })),
  },
];
