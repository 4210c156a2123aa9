/**
 * Runs inside a measured process, before its program: `node --import gc_probe.js`. It notes the pauses of
 * the garbage collector. On SIGUSR2 it writes a reading to the file `$TAPNIC_GC_PROBE.N` with N = 1, 2, …,
 * and begins a new period. It costs time only when the collector runs. `gc_watch.ts` is the other side.
 */

import { renameSync, writeFileSync } from 'node:fs';
import { constants, type PerformanceEntry, PerformanceObserver } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { GcReading } from './gc_watch.ts';

/** An entry of type 'gc'. The types of Node.js leave `detail` open. */
interface GcEntry extends PerformanceEntry {
  readonly detail: { readonly kind: number; readonly flags: number };
}

const path = process.env['TAPNIC_GC_PROBE'];
/** Pauses of the present period. */
const period = { pauses: 0, totalMs: 0, maxMs: 0, maxKind: '' };

const KINDS = new Map<number, string>([
  [constants.NODE_PERFORMANCE_GC_MINOR, 'scavenge'],
  [constants.NODE_PERFORMANCE_GC_MAJOR, 'mark-compact'],
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL, 'incremental'],
  [constants.NODE_PERFORMANCE_GC_WEAKCB, 'weak callbacks'],
]);

function note(entries: readonly PerformanceEntry[]): void {
  for (const entry of entries) {
    const { duration } = entry;
    const { kind, flags } = (entry as GcEntry).detail;
    // `weigh` forced it.
    if ((flags & constants.NODE_PERFORMANCE_GC_FLAGS_FORCED) !== 0) continue;
    period.pauses++;
    period.totalMs += duration;
    if (duration <= period.maxMs) continue;
    period.maxMs = duration;
    period.maxKind = KINDS.get(kind) ?? String(kind);
  }
}

/** Bytes of live objects: the heap, and what it keeps outside, after full collections. */
function weigh(gc: () => void): { heap: number; external: number } {
  gc();
  gc();
  const { heapUsed, external } = process.memoryUsage();
  return { heap: heapUsed, external };
}

if (path !== undefined) {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const observer = new PerformanceObserver((list) => note(list.getEntries()));
  observer.observe({ entryTypes: ['gc'] });
  let n = 0;
  process.on('SIGUSR2', () => {
    // In a later turn: Node.js queues the entries of a collection for the next turn.
    setImmediate(() => {
      note(observer.takeRecords());
      const { rss, heapTotal } = process.memoryUsage();
      const reading: GcReading = { ...period, ...weigh(gc), rss, heapTotal };
      Object.assign(period, { pauses: 0, totalMs: 0, maxMs: 0, maxKind: '' });
      n++;
      writeFileSync(`${path}.part`, JSON.stringify(reading));
      renameSync(`${path}.part`, `${path}.${n}`);
    });
  });
}
