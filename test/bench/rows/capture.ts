/**
 * What a capture costs: bulk transmission with one point and 96 bytes of each packet, next to the same
 * without a capture, and with all points and whole packets. The three run in turns. A client of the
 * instance gets the capture and discards it.
 */

import { once } from 'node:events';
import type { Instance } from '../../support/instance.ts';
import { cliMain } from '../../support/root.ts';
import type { Bench } from '../bench.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { type Contender, contender, type Contest } from '../contest.ts';
import { type Load, receiveFrom, Site, warmRequests } from './bulk_tx_rig.ts';

const FILE_BYTES = 16 << 20;
/** Requests of a run. */
const REQUESTS = 12;

interface Variant {
  readonly name: string;
  /** Arguments of `tapnic capture`; empty: no capture. */
  readonly capture: readonly string[];
  /** Points at which packets are recorded. */
  readonly points: number;
}

const OFF: Variant = { name: 'no capture', capture: [], points: 0 };
const ONE: Variant = { name: 'one point, 96 bytes', capture: ['if', '-s', '96'], points: 1 };
const ALL: Variant = {
  name: 'all points, whole packets',
  capture: ['sockbuf,ip,if,wire'],
  points: 4,
};

interface Place {
  readonly if: string;
  readonly captures: number;
}

/** Places of tn0 with a running capture. */
async function running(instance: Instance): Promise<number> {
  const places = await instance.json<Place[]>('capture', '--list');
  return places.filter((place) => place.if === 'tn0' && place.captures > 0).length;
}

/** Starts a client that discards what it gets. */
async function startCapture(
  ctx: BenchContext,
  instance: Instance,
  { capture, points }: Variant,
): Promise<void> {
  if (points === 0) return;
  const args = ['capture', ...capture, '-w', '/dev/null', '--control', instance.control];
  const child = instance.ns.spawn(process.execPath, [cliMain, ...args], { stdio: 'ignore' });
  const exit = once(child, 'close');
  ctx.defer(async () => {
    child.kill('SIGINT');
    await exit;
  });
  if (child.pid !== undefined) ctx.pins.move(child.pid, 'peer');
  for (let i = 0; (await running(instance)) < points; i++) {
    if (i === 100) throw new Error('the capture has not begun');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function side(
  ctx: BenchContext,
  site: Site,
  load: Load,
  variant: Variant,
): Promise<Contender<number>> {
  const args = ['serve', site.dir, '--engine', 'native', '--mode', 'wire', '--memory', '256M'];
  const instance = await ctx.start(ctx.netns('cap'), args);
  const { ns, ready } = instance;
  await site.check(ctx, ns, ready.addr);
  await warmRequests(ctx, ns, ready.addr);
  await startCapture(ctx, instance, variant);
  return contender({
    name: variant.name,
    run: () => receiveFrom(ctx, ns, ready.addr, [ready.pid], load),
    read: () => running(instance),
    prove(readings) {
      const [from, to] = readings[0]!;
      new Claims()
        .must(ready.engine === 'native' && ready.mode === 'wire', 'another path')
        .must(from === variant.points && to === variant.points, `${to} points are recorded`)
        .check(variant.name);
      return { engine: ready.engine, mode: ready.mode, points: variant.points };
    },
  });
}

async function setUp(ctx: BenchContext): Promise<Contest> {
  const load: Load = ctx.quick
    ? { fileBytes: 1 << 20, requests: 2, connections: 1 }
    : { fileBytes: FILE_BYTES, requests: REQUESTS, connections: 1 };
  const site = new Site(ctx, load.fileBytes);
  return {
    unit: 'Gbit/s',
    per: 'GB',
    ours: await side(ctx, site, load, ONE),
    baseline: await side(ctx, site, load, OFF),
    others: [await side(ctx, site, load, ALL)],
    conditions: { mtu: 1500, fileBytes: load.fileBytes, connections: 1 },
  };
}

export const captureBenches: readonly Bench[] = [
  {
    name: 'capture',
    description: 'bulk transmission with a capture of one point, next to none, and of all points',
    needs: ['root', 'netns', 'tap', 'curl'],
    rows: [{ name: 'capture', setUp }],
  },
];
