/**
 * Bulk transmit: sendfile sends a file in the arena through unmapped mbufs, bus_dma and the
 * emulated NIC, and a C program receives and discards it. Runs alternate with those of
 * `baseline/bulk_tx.c`, a minimal sender that serves the same receiver over its own TAP.
 */

import { createHash, randomFillSync } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { once } from 'node:events';
import { request } from '../../src/cli/control_client.ts';
import { Instance } from '../support/instance.ts';
import { Netns } from '../support/netns.ts';
import type { Baselines } from './cc.ts';
import { busySeconds, cpuSecondsOf, machineFacts, ownCpuSeconds } from './load.ts';
import { Pins } from './pins.ts';
import { type Engine, type Mode, provePath, readCounts } from './proof.ts';
import { median, type Row, rounded, spread } from './result.ts';
import { type Effort, runRounds } from './rounds.ts';

const MTU = 1500;
const MEMORY = '256M';
const FILE = 'file.bin';
const READY_TIMEOUT_MS = 20_000;

/** One transfer. */
interface Run {
  gbits: number;
  /** CPU seconds of the sender per 10^9 bytes. */
  cpuPerGB: number;
  /** Cores that neither sender nor receiver nor this process used. */
  foreign: number;
}

/** The fields used of what the C programs print. */
export interface Report {
  bytes: number;
  seconds: number;
  cpuSeconds: number;
}

/** Size of the transfers of one row. */
export interface Size {
  fileBytes: number;
  /** Requests for the file on one connection. */
  requests: number;
}

export function reportOf(stdout: string): Report {
  const line = stdout.trim().split('\n').at(-1) ?? '';
  const report: Report = JSON.parse(line);
  return report;
}

/** What all senders share: the receiver, the file, and the assignment of CPUs. */
export class BulkRig {
  readonly baselines: Baselines;
  readonly size: Size;
  readonly #pins = new Pins();
  readonly #www: string;
  readonly #sha256: string;

  constructor(baselines: Baselines, size: Size) {
    this.baselines = baselines;
    this.size = size;
    this.#www = join(baselines.dir, `www-${size.fileBytes}`);
    mkdirSync(this.#www, { recursive: true });
    const bytes = randomFillSync(Buffer.allocUnsafe(size.fileBytes));
    writeFileSync(join(this.#www, FILE), bytes);
    this.#sha256 = createHash('sha256').update(bytes).digest('hex');
  }

  get payload(): number {
    return this.size.fileBytes * this.size.requests;
  }

  /** One transfer from `address` in `ns`; `senderCpu` returns the sender's CPU seconds so far. */
  async #transfer(ns: Netns, address: string, senderCpu: () => Promise<number>): Promise<Run> {
    const { fileBytes, requests } = this.size;
    const sink = this.baselines.program('sink');
    const args = ['-d', address, '-f', `/${FILE}`, '-r', `${requests}`, '-s', `${fileBytes}`];
    const cpu0 = await senderCpu();
    const own0 = ownCpuSeconds();
    const busy0 = busySeconds();
    const start = process.hrtime.bigint();
    const report = reportOf(await ns.execAsync(sink, [...args, ...this.#pins.args('receiver')]));
    const elapsed = Number(process.hrtime.bigint() - start) / 1e9;
    const busy = busySeconds() - busy0;
    const own = ownCpuSeconds() - own0;
    const cpu = (await senderCpu()) - cpu0;
    // Bytes beyond the bodies can only be their headers.
    const headers = report.bytes - this.payload;
    if (headers < 0 || headers > 2048 * requests)
      throw new Error(`${address}: received ${report.bytes} bytes for ${this.payload}`);
    return {
      gbits: (this.payload * 8) / 1e9 / report.seconds,
      cpuPerGB: cpu / (this.payload / 1e9),
      foreign: Math.max(0, (busy - own - cpu - report.cpuSeconds) / elapsed),
    };
  }

  /** A run of the C sender. */
  async runBaseline(ns: Netns, mode: Mode): Promise<Run> {
    const args = ['-t', 'base0', '-m', mode, '-b', `${this.payload}`];
    const arena = ['-a', `${this.size.fileBytes}`];
    const child = ns.spawn(
      this.baselines.program('bulk_tx'),
      [...args, ...arena, ...this.#pins.args('sender')],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let stdout = '';
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')));
    const exit = once(child, 'close');
    const ready = new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout! }).on('line', (line) => {
        stdout += `${line}\n`;
        if (line === 'ready') resolve();
      });
      exit.then(([code]) => reject(new Error(`bulk_tx: ended (${code}): ${stderr}`)), reject);
      setTimeout(() => reject(new Error('bulk_tx: not ready')), READY_TIMEOUT_MS).unref();
    });
    try {
      await ready;
      // The sender counts its own CPU time, from ready to the last acknowledgment.
      let first = true;
      return await this.#transfer(ns, '192.0.2.2', async () => {
        if (first) {
          first = false;
          return 0;
        }
        const [code] = await exit;
        if (code !== 0) throw new Error(`bulk_tx: ended (${code}): ${stderr}`);
        return reportOf(stdout).cpuSeconds;
      });
    } catch (e) {
      throw new Error(`C sender, ${mode}: ${String(e)}`, { cause: e });
    } finally {
      child.kill('SIGKILL');
    }
  }

  /**
   * Starts a serving instance, loads the file into its arena, and checks that it arrives intact.
   */
  async startInstance(ns: Netns, engine: Engine, mode: Mode): Promise<Instance> {
    const options = ['--engine', engine, '--mode', mode, '--memory', MEMORY, '--mtu', String(MTU)];
    const instance = await Instance.start(ns, ['serve', this.#www, ...options]);
    this.#pins.move(instance.ready.pid, 'sender');
    const out = join(this.baselines.dir, 'received');
    const { status, stderr } = await instance.curl('-f', '-o', out, instance.urlOf(FILE));
    if (status !== 0) throw new Error(`curl: status ${status}: ${stderr.trim()}`);
    const sha256 = createHash('sha256').update(readFileSync(out)).digest('hex');
    rmSync(out);
    if (sha256 !== this.#sha256) throw new Error('the file did not arrive intact');
    return instance;
  }

  /** A run of the emulated host. */
  async runInstance(instance: Instance): Promise<Run> {
    const { pid, addr, control } = instance.ready;
    try {
      return await this.#transfer(instance.ns, addr, () => Promise.resolve(cpuSecondsOf(pid)));
    } catch (e) {
      // Read the state of the connections now; it cannot be read later.
      const state = await request(control, 'netstat', { report: 'an' }).catch(String);
      throw new Error(`${String(e)}; connections: ${JSON.stringify(state)}`, { cause: e });
    }
  }

  conditions(): Row['conditions'] {
    return {
      ...machineFacts(),
      compiler: this.baselines.compiler,
      mtu: MTU,
      arena: MEMORY,
      fileBytes: this.size.fileBytes,
      requestsPerRun: this.size.requests,
      pinned: this.#pins.cpus !== null,
    };
  }
}

/** Measures one row: `engine` in `mode`, alternating with the C sender. */
export async function bulkTxRow(
  name: string,
  rig: BulkRig,
  engine: Engine,
  mode: Mode,
  effort: Effort,
): Promise<Row> {
  using baseNs = new Netns('c');
  using ns = new Netns(engine);
  const instance = await rig.startInstance(ns, engine, mode);
  for (let i = 0; i < effort.warmUps; i++) await rig.runInstance(instance);
  const before = await readCounts(instance);
  const { counted, all, noisy } = await runRounds(
    effort,
    async () => {
      const base = await rig.runBaseline(baseNs, mode);
      return { base, ours: await rig.runInstance(instance) };
    },
    ({ base, ours }) => Math.max(base.foreign, ours.foreign),
  );
  const after = await readCounts(instance);
  const path = provePath(
    instance,
    {
      engine,
      mode,
      arm: 'default',
      mtu: MTU,
      bytes: rig.payload * all.length,
      requests: rig.size.requests * all.length,
    },
    before,
    after,
  );
  const { code, leaked, stderr } = await instance.stop();
  if (code !== 0) throw new Error(`tapnic: status ${code}: ${JSON.stringify(leaked)} ${stderr}`);

  const ours = counted.map((round) => round.ours);
  const base = counted.map((round) => round.base);
  const ratios = counted.map((round) => round.ours.gbits / round.base.gbits);
  const foreign = counted.flatMap((round) => [round.base.foreign, round.ours.foreign]);
  const [min, max] = spread(ours.map(({ gbits }) => gbits));
  const [ratioMin, ratioMax] = spread(ratios);
  return {
    name,
    value: rounded(median(ours.map(({ gbits }) => gbits))),
    unit: 'Gbit/s',
    higherIsBetter: true,
    baseline: {
      name: `C sender, ${mode === 'vnet' ? '64 KB segments' : 'software checksum'}`,
      value: rounded(median(base.map(({ gbits }) => gbits))),
      cpuPerGB: rounded(median(base.map(({ cpuPerGB }) => cpuPerGB))),
    },
    ratio: rounded(median(ratios)),
    spread: [rounded(min), rounded(max)],
    ratioSpread: [rounded(ratioMin), rounded(ratioMax)],
    runs: counted.length,
    cpuPerGB: rounded(median(ours.map(({ cpuPerGB }) => cpuPerGB))),
    path,
    cpuRatio: rounded(median(counted.map((round) => round.base.cpuPerGB / round.ours.cpuPerGB))),
    conditions: {
      ...rig.conditions(),
      foreignCores: Number(median(foreign).toFixed(2)),
      noisy,
      roundsLeftOut: all.length - counted.length,
    },
  };
}
