/** Assignment of CPUs: sender and receiver get a CPU each, if there are two. */

import { spawnSync } from 'node:child_process';
import { allowedCpus } from './load.ts';

interface Cpus {
  sender: number;
  receiver: number;
}

/** The CPUs of a bench; null if there is only one, or no `taskset`. */
export class Pins {
  readonly cpus: Cpus | null;

  constructor() {
    const [sender, receiver] = allowedCpus();
    const can =
      sender !== undefined &&
      receiver !== undefined &&
      spawnSync('taskset', ['--version'], { stdio: 'ignore' }).status === 0;
    this.cpus = can ? { sender, receiver } : null;
  }

  /** The arguments that pin a baseline program. */
  args(who: keyof Cpus): string[] {
    return this.cpus === null ? [] : ['-c', String(this.cpus[who])];
  }

  /** Pins all threads of process `pid`. */
  move(pid: number, who: keyof Cpus): void {
    if (this.cpus === null) return;
    const args = ['-a', '-p', '-c', String(this.cpus[who]), String(pid)];
    const { status, stderr } = spawnSync('taskset', args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`taskset: ${stderr.trim()}`);
  }
}
