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
import {
  counting,
  type Engine,
  FAMILIES,
  type Family,
  type Mode,
  provePath,
  type Span,
} from './proof.ts';
import { cpuToIp4, median, type Row, rounded, spread } from './result.ts';
import { type Effort, type Rounds, runRounds } from './rounds.ts';

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

const BASELINE_ADDR: Record<Family, string> = { 4: '192.0.2.2', 6: '2001:db8::2' };

/** The address of an instance. */
export function addrOf({ ready }: Instance, family: Family): string {
  const addr = family === 4 ? ready.addr : ready.addr6;
  if (addr === null) throw new Error('the instance has no IPv6 address: Linux has IPv6 disabled');
  return addr;
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
    const report = reportOf(await ns.execAsync(sink, [...args, ...this.#pins.args('peer')]));
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
  async runBaseline(ns: Netns, mode: Mode, family: Family): Promise<Run> {
    const args = ['-t', 'base0', '-m', mode, '-b', `${this.payload}`];
    if (family === 6) args.push('-6');
    const arena = ['-a', `${this.size.fileBytes}`];
    const child = ns.spawn(
      this.baselines.program('bulk_tx'),
      [...args, ...arena, ...this.#pins.args('ours')],
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
      return await this.#transfer(ns, BASELINE_ADDR[family], async () => {
        if (first) {
          first = false;
          return 0;
        }
        const [code] = await exit;
        if (code !== 0) throw new Error(`bulk_tx: ended (${code}): ${stderr}`);
        return reportOf(stdout).cpuSeconds;
      });
    } catch (e) {
      throw new Error(`C sender, ${mode}, IPv${family}: ${String(e)}`, { cause: e });
    } finally {
      child.kill('SIGKILL');
    }
  }

  /**
   * Starts a serving instance, loads the file into its arena, and checks that it arrives intact over
   * both families.
   */
  async startInstance(ns: Netns, engine: Engine, mode: Mode): Promise<Instance> {
    const options = ['--engine', engine, '--mode', mode, '--memory', MEMORY, '--mtu', String(MTU)];
    const instance = await Instance.start(ns, ['serve', this.#www, ...options]);
    this.#pins.move(instance.ready.pid, 'ours');
    const out = join(this.baselines.dir, 'received');
    for (const family of FAMILIES) {
      const url = instance.urlOf(FILE, family);
      const { status, stderr } = await instance.curl('-g', '-f', '-o', out, url);
      if (status !== 0) throw new Error(`curl: status ${status}: ${stderr.trim()}`);
      const sha256 = createHash('sha256').update(readFileSync(out)).digest('hex');
      rmSync(out);
      if (sha256 !== this.#sha256) throw new Error(`IPv${family}: the file did not arrive intact`);
    }
    return instance;
  }

  /** A run of the emulated host. */
  async runInstance(instance: Instance, family: Family): Promise<Run> {
    const { pid, control } = instance.ready;
    try {
      return await this.#transfer(instance.ns, addrOf(instance, family), () =>
        Promise.resolve(cpuSecondsOf(pid)),
      );
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

/** The runs of one family in one round. */
interface Pair {
  base: Run;
  ours: Run;
}

/** Runs of both families, all in turn. */
type Round = Record<Family, Pair>;

/** Measures the rows of `engine` in `mode`, one of each family, alternating with the C sender. */
export async function bulkTxRows(
  name: string,
  rig: BulkRig,
  engine: Engine,
  mode: Mode,
  effort: Effort,
): Promise<Row[]> {
  using baseNs = new Netns('c');
  using ns = new Netns(engine);
  const instance = await rig.startInstance(ns, engine, mode);
  for (let i = 0; i < effort.warmUps; i++)
    for (const family of FAMILIES) await rig.runInstance(instance, family);
  const spans: Record<Family, Span[]> = { 4: [], 6: [] };
  const rounds = await runRounds(
    effort,
    async (n): Promise<Round> => {
      const round: Partial<Round> = {};
      // Every round begins with the other family.
      for (let i = 0; i < FAMILIES.length; i++) {
        const family = FAMILIES[(n + i) % FAMILIES.length]!;
        const base = await rig.runBaseline(baseNs, mode, family);
        const run = (): Promise<Run> => rig.runInstance(instance, family);
        round[family] = { base, ours: await counting(instance, spans[family], run) };
      }
      return round as Round;
    },
    (round) => Math.max(...FAMILIES.flatMap((f) => [round[f].base.foreign, round[f].ours.foreign])),
  );
  const paths = FAMILIES.map((family) => {
    const bytes = rig.payload * rounds.all.length;
    const requests = rig.size.requests * rounds.all.length;
    const claim = { family, engine, mode, arm: 'default' as const, mtu: MTU, bytes, requests };
    return provePath(instance, claim, spans[family]);
  });
  const { code, leaked, stderr } = await instance.stop();
  if (code !== 0) throw new Error(`tapnic: status ${code}: ${JSON.stringify(leaked)} ${stderr}`);
  return FAMILIES.map((family, i) => rowOf(name, rig, mode, family, rounds, paths[i]!));
}

function rowOf(
  name: string,
  rig: BulkRig,
  mode: Mode,
  family: Family,
  { counted, all, noisy }: Rounds<Round>,
  path: Row['path'],
): Row {
  const pairs = counted.map((round) => round[family]);
  const ours = pairs.map((pair) => pair.ours);
  const base = pairs.map((pair) => pair.base);
  const foreign = pairs.flatMap((pair) => [pair.base.foreign, pair.ours.foreign]);
  const [min, max] = spread(ours.map(({ gbits }) => gbits));
  const ratios = pairs.map((pair) => pair.ours.gbits / pair.base.gbits);
  const [ratioMin, ratioMax] = spread(ratios);
  const sums = mode === 'vnet' ? '64 KB segments' : 'software checksum';
  const toIp4 = counted.map((round) => round[6].ours.cpuPerGB / round[4].ours.cpuPerGB);
  return {
    name: family === 6 ? `${name}-ip6` : name,
    value: rounded(median(ours.map(({ gbits }) => gbits))),
    unit: 'Gbit/s',
    higherIsBetter: true,
    baseline: {
      name: `C sender, ${family === 6 ? 'IPv6, ' : ''}${sums}`,
      value: rounded(median(base.map(({ gbits }) => gbits))),
      cpuPerGB: rounded(median(base.map(({ cpuPerGB }) => cpuPerGB))),
    },
    ratio: rounded(median(ratios)),
    spread: [rounded(min), rounded(max)],
    ratioSpread: [rounded(ratioMin), rounded(ratioMax)],
    runs: counted.length,
    cpuPerGB: rounded(median(ours.map(({ cpuPerGB }) => cpuPerGB))),
    path,
    cpuRatio: rounded(median(pairs.map((pair) => pair.base.cpuPerGB / pair.ours.cpuPerGB))),
    ...(family === 6 ? cpuToIp4(toIp4) : {}),
    conditions: {
      ...rig.conditions(),
      foreignCores: Number(median(foreign).toFixed(2)),
      noisy,
      roundsLeftOut: all.length - counted.length,
    },
  };
}
