/** Starts the emulated host and its peer in a new namespace and sends them requests. */

import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { StackOptions } from '../../src/index.ts';
import { within } from '../support/instance.ts';
import { Netns } from '../support/netns.ts';
import { distRoot } from '../support/root.ts';
import type { Answer, Args } from './lines.ts';

const START_MS = 20_000;
const STDERR_MAX = 1 << 16;

interface Line {
  ready?: boolean;
  id?: number;
  data?: Answer;
  error?: string;
}

/** A child process of this folder that answers requests. */
export class Program {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<
    number,
    { resolve: (a: Answer) => void; reject: (e: Error) => void }
  >();
  readonly #name: string;
  #stderr = '';
  #next = 1;
  readonly exited: Promise<number | null>;

  private constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.#child = child;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString('utf8')).slice(-STDERR_MAX);
    });
    this.exited = new Promise((resolve) => {
      child.once('close', (status) => {
        const why = new Error(`${name}: ended with ${status}: ${this.#stderr}`);
        for (const { reject } of this.#waiting.values()) reject(why);
        this.#waiting.clear();
        resolve(status);
      });
    });
  }

  /** Runs `NAME.js ARG` of this folder in `ns` and waits until it is ready. */
  static async start(ns: Netns, name: string, arg: string, node: string[] = []): Promise<Program> {
    const file = join(distRoot, 'test/tcpreal', `${name}.js`);
    const child = ns.spawn(
      'sh',
      ['-c', 'ulimit -n "$(ulimit -Hn)"; exec "$@"', 'sh', process.execPath, ...node, file, arg],
      { stdio: ['pipe', 'pipe', 'pipe'] },
    );
    child.stdin?.on('error', () => undefined);
    const program = new Program(name, child);
    const ready = new Promise<void>((resolve, reject) => {
      void program.exited.then(() => reject(new Error(`${name}: ended: ${program.#stderr}`)));
      createInterface({ input: child.stdout! }).on('line', (text) => {
        const line = JSON.parse(text) as Line;
        if (line.ready === true) resolve();
        else program.#answer(line);
      });
    });
    await within(ready, START_MS, () => `${name}: not ready: ${program.#stderr}`);
    return program;
  }

  #answer({ id, data, error }: Line): void {
    const asked = this.#waiting.get(id ?? 0);
    this.#waiting.delete(id ?? 0);
    if (error === undefined) asked?.resolve(data ?? {});
    else asked?.reject(new Error(`${this.#name}: ${error}`));
  }

  /** Sends request `op`. Rejects with the program's error, or after `timeoutMs`. */
  ask<T extends object = Answer>(op: string, args: Args = {}, timeoutMs = 60_000): Promise<T> {
    const id = this.#next++;
    const answer = new Promise<Answer>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
    });
    this.#child.stdin?.write(`${JSON.stringify({ id, op, args })}\n`);
    return within(
      answer as Promise<object> as Promise<T>,
      timeoutMs,
      () => `${this.#name}: ${op}: no answer in ${timeoutMs} ms: ${this.#stderr}`,
    );
  }

  get pid(): number {
    return this.#child.pid!;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

export interface Rig {
  readonly ns: Netns;
  readonly host: Program;
  readonly peer: Program;
}

/**
 * Runs `body` with an emulated host and a peer. Afterwards the host must close in time, with
 * nothing leaked and exit status 0.
 */
export async function withRig(
  options: StackOptions,
  body: (rig: Rig) => Promise<void>,
  node: string[] = [],
): Promise<void> {
  using ns = new Netns();
  const host = await Program.start(ns, 'host', JSON.stringify(options), node);
  const peer = await Program.start(ns, 'peer', '192.0.2.2');
  await body({ ns, host, peer });
  await peer.ask('close');
  const { leaked } = await host.ask<{ leaked: object }>('close', {}, 10_000);
  const status = await within(host.exited, 10_000, () => 'host: closed, but did not end');
  if (status !== 0 || JSON.stringify(leaked) !== '{}')
    throw new Error(`host: status ${status}, leaked ${JSON.stringify(leaked)}`);
}
