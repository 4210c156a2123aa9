/** The row `bulk-tx-write`: a program writes bytes without a file, see `write_program.ts`. */

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Netns } from '../../support/netns.ts';
import { distRoot } from '../../support/root.ts';
import type { RowSpec } from '../bench.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { contender, type Contest } from '../contest.ts';
import { cSender, download, type Load, receiveFrom } from './bulk_tx_rig.ts';

const MTU = 1500;
const ETHER_HEADER = 14;
/** Bytes of a run: 0.4 s of the C sender. */
const BYTES = 192 << 20;
const QUICK_BYTES = 4 << 20;

/** The first line of the program. */
interface Ready {
  pid: number;
  tap: string;
  addr: string;
  mode: string;
  engine: string;
  napi: string;
  sha256: string;
  bufferBytes: number;
}

/** What it prints after SIGUSR2. */
interface Counters {
  options: string[];
  opackets: number;
  conversions: number;
  dmaBounced: number;
  dmaFaults: number;
  sendfileCalls: number;
}

/** Those and Linux's counters of the TAP. */
interface Readings extends Counters {
  tap: { packets: number; bytes: number };
}

interface LinkStats {
  stats64: { rx: Readings['tap'] };
}

/** The running program. */
interface Program {
  readonly ready: Ready;
  readonly counters: () => Promise<Counters>;
}

async function start(ctx: BenchContext, ns: Netns, bytes: number): Promise<Program> {
  const script = join(distRoot, 'test/bench/rows/write_program.js');
  const child = ns.spawn(process.execPath, ['--enable-source-maps', script, `${bytes}`], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4000)));
  const exit = once(child, 'close');
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  ctx.defer(async () => {
    child.kill('SIGTERM');
    await exit;
    if (child.exitCode !== 0) throw new Error(`write program: ${child.exitCode}: ${stderr}`);
  });
  const line = async <T>(): Promise<T> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error(`write program: ended: ${stderr}`);
    return JSON.parse(value);
  };
  const ready = await line<Ready>();
  ctx.pins.move(ready.pid, 'ours');
  return {
    ready,
    counters: () => {
      child.kill('SIGUSR2');
      return line<Counters>();
    },
  };
}

/** Downloads a few buffers and compares each. */
async function check(ctx: BenchContext, ns: Netns, { addr, sha256, bufferBytes }: Ready) {
  const body = await download(ctx, ns, `http://${addr}/${4 * bufferBytes}`);
  for (let at = 0; at < 4 * bufferBytes; at += bufferBytes) {
    const part = body.subarray(at, at + bufferBytes);
    const sum = createHash('sha256').update(part).digest('hex');
    if (sum !== sha256) throw new Error(`${addr}: the bytes did not arrive intact`);
  }
}

async function setUp(ctx: BenchContext): Promise<Contest> {
  const bytes = ctx.quick ? QUICK_BYTES : BYTES;
  const load: Load = { fileBytes: bytes, requests: 1, connections: 1 };
  const ns = ctx.netns('tx');
  const { ready, counters } = await start(ctx, ns, bytes);
  await check(ctx, ns, ready);
  const read = async (): Promise<Readings> => {
    const args = ['-s', '-j', 'link', 'show', 'dev', ready.tap];
    const [link]: LinkStats[] = JSON.parse(await ns.execAsync('ip', args));
    return { ...(await counters()), tap: link!.stats64.rx };
  };
  return {
    unit: 'Gbit/s',
    per: 'GB',
    ours: contender({
      name: 'ours',
      run: () => receiveFrom(ctx, ns, ready.addr, [ready.pid], load),
      read,
      prove(spans, runs) {
        const grown = (count: (r: Readings) => number): number =>
          spans.reduce((n, [before, after]) => n + count(after) - count(before), 0);
        const { mode, engine, napi } = ready;
        const options = spans.at(-1)![1].options;
        const driverFrames = grown((r) => r.opackets);
        const tapFrames = grown((r) => r.tap.packets);
        const tapBytes = grown((r) => r.tap.bytes);
        const sendfileCalls = grown((r) => r.sendfileCalls);
        const bytesPerTapFrame = Math.round(tapBytes / tapFrames);
        const sent = bytes * runs.length;
        new Claims()
          .must(
            mode === 'wire' && engine === 'native' && napi === 'off',
            `${mode}, ${engine}, ${napi}`,
          )
          .must(options.includes('TXCSUM') && options.includes('TSO4'), 'no offloads')
          .must(sendfileCalls === 0, `${sendfileCalls} sendfile calls`)
          .must(grown((r) => r.dmaBounced) === 0, 'bounced pages')
          .must(grown((r) => r.dmaFaults) === 0, 'DMA faults')
          .must(tapBytes >= sent, `the TAP took ${tapBytes} bytes of ${sent}`)
          .must(bytesPerTapFrame <= MTU + ETHER_HEADER, `frames of ${bytesPerTapFrame} bytes`)
          .must(driverFrames * 2 < tapFrames, `${driverFrames} frames sent: no TSO`)
          .check('bulk-tx-write');
        return { mode, engine, napi, options, driverFrames, tapFrames, tapBytes, sendfileCalls };
      },
    }),
    baseline: cSender(ctx, {
      name: 'C sender, copy and software checksum',
      mode: 'wire',
      mtu: MTU,
      napi: false,
      load,
      copies: true,
    }),
    effort: { warmUps: 4 },
    conditions: { mtu: MTU, bytesPerRun: bytes, bufferBytes: ready.bufferBytes, connections: 1 },
  };
}

export const writeRow: RowSpec = { name: 'bulk-tx-write', setUp };
