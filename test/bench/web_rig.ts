/**
 * The web-serving workload: files of many sizes in the arena, which a C client requests in a seeded
 * order on many connections, and samples of the mbufs in the send buffers meanwhile.
 */

import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { request } from '../../src/cli/control_client.ts';
import { below, SeededPrng } from '../../src/host/prng.ts';
import { Instance } from '../support/instance.ts';
import type { Netns } from '../support/netns.ts';
import { distRoot } from '../support/root.ts';
import { type Fill, watchSendBuffers } from '../support/send_buffers.ts';
import { addrOf, reportOf } from './bulk_tx.ts';
import type { Baselines } from './cc.ts';
import { busySeconds, cpuSecondsOf, machineFacts, ownCpuSeconds } from './load.ts';
import { Pins } from './pins.ts';
import { type Arm, type Engine, FAMILIES, type Family, type Mode } from './proof.ts';
import type { Row } from './result.ts';

export const MTU = 1500;
const MEMORY = '256M';
/** The sysctl that clears the ssthresh and round-trip times of earlier connections. */
const FORGET = 'net.inet.tcp.hostcache.purgenow';
const CLIENT_TIMEOUT_MS = 90_000;
/** Milliseconds between two samples of the send buffers. */
const SAMPLE_MS = 5;
/** Runs until a sample finds data: with small files on a busy machine the first may not. */
const FILL_RUNS_MOST = 20;

/** Starts the server with read and write instead of sendfile. */
const WRITE_WRAPPER = [
  'env',
  `NODE_OPTIONS=--import=${pathToFileURL(join(distRoot, 'test/bench/write_probe.js')).href}`,
];

/** The requests of a run. */
export interface Workload {
  readonly name: string;
  readonly connections: number;
  /** Sizes of the files in bytes; each file is requested `timesEach` times. */
  readonly sizes: readonly number[];
  readonly timesEach: number;
}

/** Bytes of all response bodies. */
export function workloadBytes({ sizes, timesEach }: Workload): number {
  return sizes.reduce((sum, n) => sum + n, 0) * timesEach;
}

export function workloadRequests({ sizes, timesEach }: Workload): number {
  return sizes.length * timesEach;
}

/** One run of a workload. */
export interface WebRun {
  gbits: number;
  /** CPU seconds of the server per 10^9 bytes. */
  cpuPerGB: number;
  /** Cores that neither server nor client nor this process used. */
  foreign: number;
}

/** Files, request lists and client of the workloads. */
export class WebRig {
  readonly #baselines: Baselines;
  readonly #pins = new Pins();
  readonly #www: string;
  readonly #seed: number;
  readonly #sizes: readonly number[];
  /** SHA-256 of all files, one after the other. */
  readonly #sha256: string;
  readonly #workloads: readonly Workload[];

  constructor(baselines: Baselines, workloads: readonly Workload[], seed: number) {
    this.#baselines = baselines;
    this.#workloads = workloads;
    this.#seed = seed;
    this.#www = join(baselines.dir, 'www-web');
    mkdirSync(this.#www, { recursive: true });
    const prng = new SeededPrng(seed);
    const all = createHash('sha256');
    this.#sizes = [...new Set(workloads.flatMap(({ sizes }) => sizes))];
    for (const size of this.#sizes) {
      const words = new Uint32Array(Math.ceil(size / 4));
      for (let i = 0; i < words.length; i++) words[i] = prng.next32();
      const bytes = Buffer.from(words.buffer, 0, size);
      writeFileSync(join(this.#www, String(size)), bytes);
      all.update(bytes);
    }
    this.#sha256 = all.digest('hex');
    for (const workload of workloads) writeFileSync(this.#list(workload), shuffled(workload, prng));
  }

  #list({ name }: Workload): string {
    return join(this.#baselines.dir, `list-${name}`);
  }

  /**
   * Starts a serving instance, loads every file into its arena, and checks that all arrive intact over
   * both families.
   */
  async start(ns: Netns, arm: Arm, engine: Engine, mode: Mode): Promise<Instance> {
    const options = ['--engine', engine, '--mode', mode, '--memory', MEMORY, '--mtu', String(MTU)];
    const args = ['serve', this.#www, ...options, ...arm.args];
    const instance = await Instance.start(ns, args, arm.writes === true ? WRITE_WRAPPER : []);
    this.#pins.move(instance.ready.pid, 'ours');
    for (const family of FAMILIES) {
      const urls = this.#sizes.map((size) => `'${instance.urlOf(String(size), family)}'`).join(' ');
      const { stdout, stderr } = await ns.run('sh', [
        '-c',
        `curl -gsSf --max-time 60 ${urls} | sha256sum`,
      ]);
      if (!stdout.startsWith(this.#sha256))
        throw new Error(`${arm.label}, IPv${family}: the files did not arrive intact: ${stderr}`);
    }
    return instance;
  }

  /** Runs `workload` against `instance`. */
  async run(instance: Instance, workload: Workload, family: Family): Promise<WebRun> {
    const { pid } = instance.ready;
    const args = [
      '-d',
      addrOf(instance, family),
      '-l',
      this.#list(workload),
      '-n',
      String(workload.connections),
    ];
    const client = this.#baselines.program('web');
    // Clear the host cache, so that the connections of the last run do not affect this one.
    await request(instance.control, 'sysctl', { name: FORGET, value: '1' });
    const cpu0 = cpuSecondsOf(pid);
    const own0 = ownCpuSeconds();
    const busy0 = busySeconds();
    const start = process.hrtime.bigint();
    const running = instance.ns.execAsync(client, [...args, ...this.#pins.args('peer')], {
      timeoutMs: CLIENT_TIMEOUT_MS,
    });
    const died = instance.exited().then(({ code, signal, stderr }): never => {
      throw new Error(`the server ended (${code ?? signal}): ${stderr.slice(-2000)}`);
    });
    died.catch(() => undefined);
    const stdout = await Promise.race([running, died]);
    const elapsed = Number(process.hrtime.bigint() - start) / 1e9;
    const cpu = cpuSecondsOf(pid) - cpu0;
    const report = reportOf(stdout);
    const foreign = busySeconds() - busy0 - (ownCpuSeconds() - own0) - cpu - report.cpuSeconds;
    const bytes = workloadBytes(workload);
    if (report.bytes !== bytes) throw new Error(`received ${report.bytes} bytes, not ${bytes}`);
    return {
      gbits: (bytes * 8) / 1e9 / report.seconds,
      cpuPerGB: cpu / (bytes / 1e9),
      foreign: Math.max(0, foreign / elapsed),
    };
  }

  /** Like `run`, but samples the send buffers meanwhile. Repeats a run that ended between two samples. */
  async fill(instance: Instance, workload: Workload, family: Family): Promise<Fill> {
    for (let n = 0; n < FILL_RUNS_MOST; n++) {
      const run = this.run(instance, workload, family);
      const fill = await watchSendBuffers(instance.control, run, SAMPLE_MS);
      if (fill.looks > 0) return fill;
    }
    throw new Error(`${workload.name}: no look found a send buffer filled`);
  }

  conditions(): Row['conditions'] {
    const workloads = this.#workloads.map(
      ({ name, connections, sizes, timesEach }) =>
        `${name}: ${connections} connections, ${sizes.length * timesEach} requests, files of ${sizes.join(' ')} bytes`,
    );
    return {
      ...machineFacts(),
      compiler: this.#baselines.compiler,
      mtu: MTU,
      arena: MEMORY,
      workloads,
      seed: this.#seed,
      lookEveryMs: SAMPLE_MS,
      pinned: this.#pins.cpus !== null,
    };
  }
}

/** The requests of `workload`, a line each, in the same order for the same seed. */
function shuffled({ sizes, timesEach }: Workload, prng: SeededPrng): string {
  const all = Array.from({ length: timesEach }, () => sizes).flat();
  for (let i = all.length - 1; i > 0; i--) {
    const j = below(prng, i + 1);
    [all[i], all[j]] = [all[j]!, all[i]!];
  }
  return all.map((size) => `/${size} ${size}\n`).join('');
}
