/**
 * Pauses of the garbage collector and growth of the heap of a measured process, through `gc_probe.ts`:
 *
 *     using gc = new GcWatch();
 *     const instance = await Instance.start(ns, args, gc.wrapper);
 *     // … warm-up …
 *     await gc.read(instance.pid);
 *     // … timed run …
 *     const path = { ...path, ...gcFacts(await gc.read(instance.pid)) };
 *
 * `read` collects garbage, so call it only outside of timed parts.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { distRoot } from '../support/root.ts';

const READ_TIMEOUT_MS = 20_000;
const POLL_MS = 5;

/** What the probe writes. The pauses are those since the last reading; collections by `read` are left out. */
export interface GcReading {
  readonly pauses: number;
  readonly totalMs: number;
  readonly maxMs: number;
  /** The kind of the longest pause: scavenge, mark-compact, incremental, weak callbacks. */
  readonly maxKind: string;
  /** Bytes of live objects in the heap, and of memory that they keep outside of it. */
  readonly heap: number;
  readonly external: number;
  readonly rss: number;
  readonly heapTotal: number;
}

/** A reading, compared with the one before. */
export interface GcSpan extends GcReading {
  /** Growth of `heap` and `external`. */
  readonly growth: number;
}

/** The garbage collector of one process. */
export class GcWatch implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), 'tapnic-gc-'));
  #readings = 0;
  #live: number | null = null;

  get #file(): string {
    return join(this.#dir, 'gc');
  }

  /**
   * A program with its arguments that starts a program of Node.js with the probe, as `Instance.start` takes
   * it. It turns off the collections that V8 makes in idle time, because `read` would cause them.
   */
  get wrapper(): string[] {
    const probe = pathToFileURL(join(distRoot, 'test/bench/gc_probe.js')).href;
    const before = process.env['NODE_OPTIONS'] ?? '';
    return [
      'env',
      `TAPNIC_GC_PROBE=${this.#file}`,
      `NODE_OPTIONS=${`${before} --import=${probe}`.trim()}`,
      'sh',
      '-c',
      'node=$1; shift; exec "$node" --no-memory-reducer "$@"',
      'sh',
    ];
  }

  /** Ends the present period of process `pid` and begins the next one. */
  async read(pid: number): Promise<GcSpan> {
    const file = `${this.#file}.${++this.#readings}`;
    process.kill(pid, 'SIGUSR2');
    const reading = JSON.parse(await appears(file)) as GcReading;
    const live = reading.heap + reading.external;
    const growth = this.#live === null ? 0 : live - this.#live;
    this.#live = live;
    return { ...reading, growth };
  }

  [Symbol.dispose](): void {
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** The text of `file`, which appears at once. */
async function appears(file: string): Promise<string> {
  for (let waited = 0; waited < READ_TIMEOUT_MS; waited += POLL_MS) {
    try {
      return readFileSync(file, 'utf8');
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== 'ENOENT') throw e;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  throw new Error(`${file}: no reading of the garbage collector in ${READ_TIMEOUT_MS} ms`);
}

/** The facts of a row's `path`. */
export function gcFacts(span: GcSpan): Record<string, number | string> {
  return {
    gcMaxPauseMs: Number(span.maxMs.toFixed(2)),
    gcMaxKind: span.maxKind,
    gcPauses: span.pauses,
    gcTotalMs: Number(span.totalMs.toFixed(1)),
    gcHeapGrowthBytes: span.growth,
  };
}

/** The facts of several runs: the longest pause, and sums. */
export function collected(spans: readonly GcSpan[]): Record<string, number | string> {
  const longest = spans.reduce((a, b) => (b.maxMs > a.maxMs ? b : a));
  const sum = (of: (span: GcSpan) => number): number => spans.reduce((n, s) => n + of(s), 0);
  return gcFacts({
    ...longest,
    pauses: sum((s) => s.pauses),
    totalMs: sum((s) => s.totalMs),
    growth: sum((s) => s.growth),
  });
}
