/** Assignment of CPUs: the measured program and the other end get a CPU each, if there are two. */

import { spawnSync } from 'node:child_process';
import { allowedCpus } from './load.ts';

/** The measured program, whether ours or a baseline in its place, and the program at the other end. */
export type Who = 'ours' | 'peer';

/** The CPUs of a bench; null if there is only one, or no `taskset`. */
export class Pins {
  readonly cpus: Record<Who, number> | null;

  constructor() {
    const [ours, peer] = allowedCpus();
    const can =
      ours !== undefined &&
      peer !== undefined &&
      spawnSync('taskset', ['--version'], { stdio: 'ignore' }).status === 0;
    this.cpus = can ? { ours, peer } : null;
  }

  /** The arguments that pin a baseline program, which pins itself. */
  args(who: Who): string[] {
    return this.cpus === null ? [] : ['-c', String(this.cpus[who])];
  }

  /** `command` run by taskset, for programs that do not pin themselves. */
  command(who: Who, command: readonly string[]): string[] {
    if (this.cpus === null) return [...command];
    return ['taskset', '-c', String(this.cpus[who]), ...command];
  }

  /** Pins all threads of process `pid`. */
  move(pid: number, who: Who): void {
    if (this.cpus === null) return;
    const args = ['-a', '-p', '-c', String(this.cpus[who]), String(pid)];
    const { status, stderr } = spawnSync('taskset', args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`taskset: ${stderr.trim()}`);
  }
}
