/** Files, request lists and servers of the rows of the web server. */

import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { below, SeededPrng } from '../../../src/host/prng.ts';
import type { Netns } from '../../support/netns.ts';
import { packageRoot } from '../../support/root.ts';
import { type Report, reportOf } from '../bulk_tx.ts';
import type { BenchContext } from '../context.ts';
import { type Contender, contender, type Sample } from '../contest.ts';
import { meter } from '../load.ts';

const SEED = 1945;
const RUN_TIMEOUT_MS = 60_000;
const READY_TIMEOUT_MS = 20_000;
/** Sizes of the C sender: its arena is as large as the files of a row. */
const ARENA = 16 << 20;

/** The requests of a run. */
export interface Load {
  readonly connections: number;
  readonly fileBytes: number;
  readonly files: number;
  readonly requests: number;
  /** Whether the client prints the time of each request. */
  readonly latencies?: boolean;
}

/** What `web` prints. */
interface WebReport extends Report {
  responses: number;
  /** Microseconds. */
  latencies?: number[];
}

export class HttpRig {
  readonly load: Load;
  readonly www: string;
  readonly #ctx: BenchContext;
  readonly #list: string;
  readonly #sha256: string;

  constructor(ctx: BenchContext, load: Load) {
    this.#ctx = ctx;
    this.load = load;
    this.www = join(ctx.baselines.dir, 'www-http');
    mkdirSync(this.www, { recursive: true });
    const all = createHash('sha256');
    for (let i = 0; i < load.files; i++) {
      const bytes = randomBytes(load.fileBytes);
      writeFileSync(join(this.www, `f${i}`), bytes);
      all.update(bytes);
    }
    this.#sha256 = all.digest('hex');
    this.#list = join(ctx.baselines.dir, 'list-http');
    const prng = new SeededPrng(SEED);
    const lines = Array.from(
      { length: load.requests },
      () => `/f${below(prng, load.files)} ${load.fileBytes}\n`,
    );
    writeFileSync(this.#list, lines.join(''));
  }

  /** Bytes of the bodies of a run. */
  get payload(): number {
    return this.load.requests * this.load.fileBytes;
  }

  /** Fetches every file once, and compares the bytes. */
  async check(ns: Netns, addr: string, port = 80): Promise<void> {
    const url = `http://${addr}:${port}/f[0-${this.load.files - 1}]`;
    const sum = `curl -sSf --max-time 60 '${url}' | sha256sum`;
    const out = await ns.execAsync('sh', ['-c', sum]);
    if (!out.startsWith(this.#sha256)) throw new Error(`${url}: the files did not arrive intact`);
  }

  /** A run against the server `pid`. `unit`: of the value. */
  async run(ns: Netns, addr: string, pid: number, unit: 'requests/s' | 'Gbit/s', port = 80) {
    const { connections, requests, latencies } = this.load;
    const web = this.#ctx.baselines.program('web');
    const args = ['-d', addr, '-p', `${port}`, '-l', this.#list, '-n', `${connections}`];
    if (latencies === true) args.push('-t');
    args.push(...this.#ctx.pins.args('peer'));
    const m = await meter([pid], () => ns.execAsync(web, args, { timeoutMs: RUN_TIMEOUT_MS }));
    const report: WebReport = JSON.parse(m.result);
    if (report.bytes !== this.payload)
      throw new Error(`${addr}: received ${report.bytes} bytes, not ${this.payload}`);
    const perRequest = unit === 'requests/s';
    const units = perRequest ? requests / 1e6 : this.payload / 1e9;
    const sample: Sample = {
      value: (perRequest ? requests : (this.payload * 8) / 1e9) / report.seconds,
      cpu: m.cpu[0]! / units,
      peerCpu: report.cpuSeconds / units,
      foreign: m.foreign(report.cpuSeconds),
      ...(report.latencies === undefined ? {} : { latencies: report.latencies }),
    };
    return sample;
  }

  /** The C sender of bulk transmission in mode `wire`: a run of as many bytes on one connection. */
  sender(): Contender {
    const ctx = this.#ctx;
    const ns = ctx.netns('c');
    return contender({
      name: 'C sender, software checksum',
      run: async () => {
        const program = await startSender(ctx, ns, this.payload);
        try {
          const args = ['-d', '192.0.2.2', '-f', '/f', '-r', '1', '-s', `${this.payload}`];
          const sink = ctx.baselines.program('sink');
          let sender: Report | null = null;
          const m = await meter([], async () => {
            const out = await ns.execAsync(sink, [...args, ...ctx.pins.args('peer')], {
              timeoutMs: RUN_TIMEOUT_MS,
            });
            sender = await program.report();
            return reportOf(out);
          });
          const { cpuSeconds } = sender!;
          return {
            value: (this.payload * 8) / 1e9 / m.result.seconds,
            cpu: cpuSeconds / (this.payload / 1e9),
            peerCpu: m.result.cpuSeconds / (this.payload / 1e9),
            foreign: m.foreign(cpuSeconds + m.result.cpuSeconds),
          };
        } finally {
          program.kill();
        }
      },
    });
  }
}

/** The file server of node:http. */
export const NODE_SERVER = join(packageRoot(), 'test/bench/baseline/files.mjs');

/** Starts the C sender, which serves one connection; resolves when its interface is up. */
async function startSender(ctx: BenchContext, ns: Netns, bytes: number) {
  const args = ['-t', 'base0', '-m', 'wire', '-b', `${bytes}`, '-a', `${ARENA}`];
  const child = ns.spawn(ctx.baselines.program('bulk_tx'), [...args, ...ctx.pins.args('ours')], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')));
  const exit = once(child, 'close');
  const ended = (): Error => new Error(`bulk_tx: ended (${child.exitCode}): ${stderr}`);
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      stdout += `${line}\n`;
      if (line === 'ready') resolve();
    });
    exit.then(() => reject(ended()), reject);
    setTimeout(() => reject(new Error('bulk_tx: not ready')), READY_TIMEOUT_MS).unref();
  });
  return {
    report: async (): Promise<Report> => {
      await exit;
      if (child.exitCode !== 0) throw ended();
      return reportOf(stdout);
    },
    kill: () => child.kill('SIGKILL'),
  };
}
