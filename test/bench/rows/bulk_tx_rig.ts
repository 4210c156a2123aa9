/** What the rows of bulk transmission share: files, runs of the receiver, and the C sender. */

import { createHash, randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Netns } from '../../support/netns.ts';
import { type Report, reportOf } from '../bulk_tx.ts';
import { Claims } from '../claims.ts';
import type { BenchContext } from '../context.ts';
import { type Contender, contender, type Sample } from '../contest.ts';
import { meter } from '../load.ts';
import type { Mode } from '../proof.ts';

const FILE = 'file.bin';
const SMALL_FILE = 'small.bin';
/** The C sender's interface and address. */
const BASELINE_TAP = 'base0';
const BASELINE_ADDR = '192.0.2.2';

/** What a run sends. */
export interface Load {
  readonly fileBytes: number;
  /** Requests for the file, of all connections together. */
  readonly requests: number;
  readonly connections: number;
}

/** Bytes of the bodies of one run. */
export function payloadOf({ fileBytes, requests }: Load): number {
  return fileBytes * requests;
}

/** A folder with the file of a row, and a small one for warm-ups. */
export class Site {
  readonly dir: string;
  readonly #sha256: string;

  constructor(ctx: BenchContext, fileBytes: number) {
    this.dir = join(ctx.baselines.dir, `www-${fileBytes}`);
    mkdirSync(this.dir, { recursive: true });
    const bytes = randomFillSync(Buffer.allocUnsafe(fileBytes));
    writeFileSync(join(this.dir, FILE), bytes);
    writeFileSync(join(this.dir, SMALL_FILE), bytes.subarray(0, 4096));
    this.#sha256 = createHash('sha256').update(bytes).digest('hex');
  }

  /** Downloads the file from `addr` and compares it. */
  async check(ctx: BenchContext, ns: Netns, addr: string): Promise<void> {
    const bytes = await download(ctx, ns, `http://${addr}/${FILE}`);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    if (sha256 !== this.#sha256) throw new Error(`${addr}: the file did not arrive intact`);
  }
}

/** The body at `url`, as curl in `ns` receives it. */
export async function download(ctx: BenchContext, ns: Netns, url: string): Promise<Buffer> {
  const out = join(ctx.baselines.dir, 'received');
  await ns.execAsync('curl', ['-s', '-S', '-f', '-o', out, url]);
  const bytes = readFileSync(out);
  rmSync(out);
  return bytes;
}

/** Receives and discards `load` from `addr`. */
async function receive(
  ctx: BenchContext,
  ns: Netns,
  addr: string,
  file: string,
  { fileBytes, requests, connections }: Load,
): Promise<Report> {
  const args = ['-d', addr, '-f', `/${file}`, '-r', `${requests}`, '-s', `${fileBytes}`];
  args.push('-n', `${connections}`, ...ctx.pins.args('peer'));
  const report = reportOf(await ns.execAsync(ctx.baselines.program('sink'), args));
  // Bytes beyond the bodies can only be their headers.
  const headers = report.bytes - fileBytes * requests;
  if (headers < 0 || headers > 2048 * requests)
    throw new Error(`${addr}: received ${report.bytes} bytes for ${fileBytes * requests}`);
  return report;
}

/** The kernel's NAPI threads of interfaces called `tap`, in any namespace. */
export function napiThreads(tap: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith(`napi/${tap}-`);
      } catch {
        return false; // it has ended
      }
    })
    .map(Number);
}

/** The thread of `tap` that is not in `before`, moved to the CPU of the peer. */
export function newNapiThread(ctx: BenchContext, tap: string, before: readonly number[]): number {
  const [pid, ...more] = napiThreads(tap).filter((thread) => !before.includes(thread));
  if (pid === undefined) throw new Error(`${tap}: no NAPI thread`);
  if (more.length > 0) throw new Error(`${tap}: several NAPI threads: another bench is running`);
  ctx.pins.move(pid, 'peer');
  return pid;
}

/** A run that receives from a server. `pids`: its process, and its NAPI thread. */
export async function receiveFrom(
  ctx: BenchContext,
  ns: Netns,
  addr: string,
  pids: readonly number[],
  load: Load,
): Promise<Sample> {
  const m = await meter([pids], () => receive(ctx, ns, addr, FILE, load));
  return sampleOf(m.result, load, m.cpu[0]!, m.foreign(m.result.cpuSeconds));
}

/** Many small requests, until V8 has compiled what a request runs. */
export async function warmRequests(ctx: BenchContext, ns: Netns, addr: string): Promise<void> {
  const requests = ctx.quick ? 10 : 3000;
  await receive(ctx, ns, addr, SMALL_FILE, { fileBytes: 4096, requests, connections: 1 });
}

function sampleOf(report: Report, load: Load, cpu: number, foreign: number): Sample {
  const gb = payloadOf(load) / 1e9;
  return {
    value: (gb * 8) / report.seconds,
    cpu: cpu / gb,
    peerCpu: report.cpuSeconds / gb,
    foreign,
  };
}

/** What the C sender prints at its end. */
interface SenderReport extends Report {
  segments: number;
  retransmits: number;
}

/** Starts the C sender; resolves when its interface is up. */
async function startSender(ctx: BenchContext, ns: Netns, args: readonly string[]) {
  const child = ns.spawn(ctx.baselines.program('bulk_tx'), [...args, ...ctx.pins.args('ours')], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')));
  const exit = once(child, 'close');
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const line = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error(`bulk_tx: ended: ${stderr}`);
    return value;
  };
  await line();
  return {
    report: async (): Promise<SenderReport> => JSON.parse(await line()),
    end: async (): Promise<void> => {
      child.kill('SIGKILL');
      await exit;
    },
  };
}

/** How the C sender sends. */
export interface Sender {
  readonly name: string;
  readonly mode: Mode;
  readonly mtu: number;
  readonly napi: boolean;
  readonly load: Load;
  /** The bytes are copied from a buffer of a program. */
  readonly copies?: boolean;
}

/** The C sender as a contender. */
export function cSender(
  ctx: BenchContext,
  { name, mode, mtu, napi, load, copies = false }: Sender,
): Contender {
  const ns = ctx.netns('c');
  const bytes = payloadOf(load);
  const args = ['-t', BASELINE_TAP, '-m', mode, '-M', `${mtu}`, '-b', `${bytes}`];
  args.push('-a', `${load.fileBytes}`, '-n', `${load.connections}`);
  if (napi) args.push('-N');
  if (copies) args.push('-u');
  return contender({
    name,
    run: async () => {
      const before = napi ? napiThreads(BASELINE_TAP) : [];
      const sender = await startSender(ctx, ns, args);
      try {
        const threads = napi ? [newNapiThread(ctx, BASELINE_TAP, before)] : [];
        const m = await meter([threads], async () => {
          const received = await receive(ctx, ns, BASELINE_ADDR, FILE, load);
          return { received, sent: await sender.report() };
        });
        const { received, sent } = m.result;
        const mean = sent.bytes / sent.segments;
        new Claims()
          .must(sent.bytes === bytes, `sent ${sent.bytes} bytes of ${bytes}`)
          .must(mode === 'wire' ? mean < mtu : mean > 2 * mtu, `segments of ${mean} bytes`)
          .check(name);
        const cpu = m.cpu[0]! + sent.cpuSeconds;
        return sampleOf(received, load, cpu, m.foreign(received.cpuSeconds, sent.cpuSeconds));
      } finally {
        await sender.end();
      }
    },
  });
}
