/**
 * Bulk transmission: sendfile sends a file in the arena, or a program writes bytes, and a C program
 * receives and discards them. The baseline is `baseline/bulk_tx.c`, a minimal sender with its own
 * TAP; with 64 KB segments and one connection, nginx on a veth pair takes part too.
 */

import type { Bench, RowSpec } from '../bench.ts';
import type { BenchContext } from '../context.ts';
import { contender, type Contest } from '../contest.ts';
import { type Mode, provePath, readCounts } from '../proof.ts';
import { startNginx, vethPair } from '../veth.ts';
import {
  cSender,
  receiveFrom,
  type Load,
  napiThreads,
  newNapiThread,
  payloadOf,
  Site,
  warmRequests,
} from './bulk_tx_rig.ts';
import { writeRow } from './bulk_tx_write.ts';

const MEMORY = '256M';
const TAP = 'nic0';
/** Larger than the second-level cache, so that the payload comes from further away. */
const FILE_BYTES = 16 << 20;

interface Variant {
  readonly name: string;
  readonly mode: Mode;
  readonly mtu?: number;
  readonly napi?: boolean;
  readonly connections?: number;
  /** Requests of a run; about 0.4 s of the C sender. */
  readonly requests: number;
  readonly nginx?: boolean;
}

const VARIANTS: readonly Variant[] = [
  { name: 'bulk-tx-vnet', mode: 'vnet', requests: 128, nginx: true },
  { name: 'bulk-tx-vnet-64', mode: 'vnet', connections: 64, requests: 128 },
  { name: 'bulk-tx-wire', mode: 'wire', requests: 12 },
  { name: 'bulk-tx-wire-napi', mode: 'wire', napi: true, requests: 32 },
  { name: 'bulk-tx-wire-9000', mode: 'wire', mtu: 9000, requests: 40 },
];

function loadOf({ connections = 1, requests }: Variant, quick: boolean): Load {
  if (quick) return { fileBytes: 1 << 20, requests: Math.max(2, connections), connections };
  return { fileBytes: FILE_BYTES, requests, connections };
}

/** nginx on a veth pair with the same file and the same receiver. */
async function nginx(ctx: BenchContext, site: Site, load: Load) {
  const veth = vethPair(ctx);
  const pid = await startNginx(ctx, veth.server, site.dir);
  await site.check(ctx, veth.client, veth.addr);
  return contender({
    name: 'nginx over veth',
    run: () => receiveFrom(ctx, veth.client, veth.addr, [pid], load),
  });
}

async function setUp(ctx: BenchContext, variant: Variant): Promise<Contest> {
  const { name, mode, mtu = 1500, napi = false, connections = 1 } = variant;
  const load = loadOf(variant, ctx.quick);
  const site = new Site(ctx, load.fileBytes);
  const how = ['--engine', 'native', '--mode', mode, '--mtu', `${mtu}`, '--memory', MEMORY];
  const threads = napiThreads(TAP);
  const args = ['serve', site.dir, ...how, ...(napi ? ['--napi', 'thread'] : [])];
  const instance = await ctx.start(ctx.netns('tx'), args);
  const { ns, ready } = instance;
  const pids = [ready.pid, ...(napi ? [newNapiThread(ctx, ready.tap, threads)] : [])];
  await site.check(ctx, ns, ready.addr);
  await warmRequests(ctx, ns, ready.addr);
  const sums = mode === 'vnet' ? '64 KB segments' : 'software checksum';
  return {
    unit: 'Gbit/s',
    per: 'GB',
    ours: contender({
      name: 'ours',
      run: () => receiveFrom(ctx, ns, ready.addr, pids, load),
      read: () => readCounts(instance),
      prove: (spans, runs) => {
        const bytes = payloadOf(load) * runs.length;
        const requests = load.requests * runs.length;
        const claim = { family: 4 as const, engine: 'native' as const, mode, mtu, bytes, requests };
        return provePath(instance, { ...claim, arm: 'default', napi }, spans);
      },
    }),
    baseline: cSender(ctx, { name: `C sender, ${sums}`, mode, mtu, napi, load }),
    ...(variant.nginx === true ? { others: [await nginx(ctx, site, load)] } : {}),
    effort: { warmUps: 4 },
    conditions: { mtu, fileBytes: load.fileBytes, connections, arena: MEMORY, row: name },
  };
}

function spec(variant: Variant): RowSpec {
  return {
    name: variant.name,
    ...(variant.nginx === true ? { needs: ['nginx'] } : {}),
    setUp: (ctx) => setUp(ctx, variant),
  };
}

export const bulkTxBenches: readonly Bench[] = [
  {
    name: 'bulk-tx',
    description:
      'bulk transmission, next to a minimal C sender: 64 KB segments, MTU 1500 and 9000, NAPI, writes',
    needs: ['root', 'netns', 'tap', 'curl'],
    rows: [...VARIANTS.map(spec), writeRow],
  },
];
