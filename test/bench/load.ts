/** Facts about the machine, and the CPU time that others used while a bench runs. */

import { readFileSync, readdirSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import type { Fact } from './result.ts';

/** Ticks of `/proc/stat` per second. */
const TICKS_PER_SECOND = 100;

/** Indexes of fields in the `cpu` line of /proc/stat. */
const IDLE = 3;
const IOWAIT = 4;
/** Fields to sum: the guest times after them are included in user and nice. */
const FIELDS = 8;

/** CPU seconds used since boot by everything, including time that the hypervisor gave to others. */
export function busySeconds(): number {
  const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n');
  const ticks = line
    .split(/\s+/)
    .slice(1, 1 + FIELDS)
    .map(Number);
  const busy = ticks.reduce((sum, n, i) => (i === IDLE || i === IOWAIT ? sum : sum + n), 0);
  return busy / TICKS_PER_SECOND;
}

/** CPU seconds that the living threads of `pid` have used. */
export function cpuSecondsOf(pid: number): number {
  let ns = 0;
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    try {
      ns += Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0]);
    } catch {
      // The thread has ended meanwhile.
    }
  }
  return ns / 1e9;
}

/** CPU seconds of this process. */
export function ownCpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** The CPUs that this process may use. */
export function allowedCpus(): number[] {
  const status = readFileSync('/proc/self/status', 'utf8');
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '0';
  return list.split(',').flatMap((range) => {
    const [from = 0, to = from] = range.split('-').map(Number);
    return Array.from({ length: to - from + 1 }, (_none, i) => from + i);
  });
}

/** The facts about the machine that every row has. */
export function machineFacts(): Record<string, Fact> {
  const [cpu] = cpus();
  return {
    kernel: release(),
    cpu: cpu?.model ?? 'unknown',
    cpus: allowedCpus().length,
    node: process.version,
    loadAverage: Number((loadavg()[0] ?? 0).toFixed(2)),
  };
}

/** CPU time of a piece of work. */
export interface Metered<T> {
  result: T;
  /** Seconds that the work took. */
  seconds: number;
  /** CPU seconds of the process or processes, in the order of the argument. */
  cpu: number[];
  /**
   * Cores that other processes used meanwhile, for `foreign` of a sample.
   * @param ended CPU seconds of programs that ended during the work, as they reported them
   */
  foreign: (...ended: number[]) => number;
}

/**
 * Measures CPU time during `work`. `of` are processes that live before and after it, or groups of
 * processes whose time is added: a server with its workers, a kernel thread.
 */
export async function meter<T>(
  of: readonly (number | readonly number[])[],
  work: () => Promise<T>,
): Promise<Metered<T>> {
  const read = (): number[] =>
    of.map((pids) => [pids].flat().reduce((sum: number, pid) => sum + cpuSecondsOf(pid), 0));
  const before = read();
  const own0 = ownCpuSeconds();
  const busy0 = busySeconds();
  const start = process.hrtime.bigint();
  const result = await work();
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const busy = busySeconds() - busy0;
  const own = ownCpuSeconds() - own0;
  const cpu = read().map((n, i) => n - before[i]!);
  const known = cpu.reduce((sum, n) => sum + n, own);
  const foreign = (...ended: number[]): number =>
    Math.max(0, (busy - known - ended.reduce((sum, n) => sum + n, 0)) / seconds);
  return { result, seconds, cpu, foreign };
}
