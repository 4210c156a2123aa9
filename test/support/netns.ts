/**
 * A private network namespace for one test: `using ns = new Netns()`. It has a unique name, and
 * `lo` is up. It is removed, with every program started in it, when the block ends, normally or by
 * a throw, or when the process ends. Only programs started through it are killed, by pid. Needs
 * root.
 */

import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess, SpawnOptions } from 'node:child_process';

const live = new Set<Netns>();
let made = 0;

function disposeAll(): void {
  for (const ns of live) ns[Symbol.dispose]();
}

function guardProcess(): void {
  process.on('exit', disposeAll);
  // The default action of these two would skip the exit handlers, and a second signal while they
  // run would end them: keep the listeners.
  process.on('SIGTERM', () => process.exit(143));
  process.on('SIGHUP', () => process.exit(129));
}

/** The exit status and the output of a program. */
export interface Result {
  /** Exit status; null if a signal ended it. */
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** Milliseconds until SIGKILL. Default 30000. */
  timeoutMs?: number;
  input?: string | Buffer;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
}

export class Netns implements Disposable {
  readonly name: string;
  readonly #children = new Set<ChildProcess>();

  /** Creates the namespace. @param tag part of the name, to distinguish two hosts of a test */
  constructor(tag = '') {
    if (made++ === 0) guardProcess();
    // scripts/test sets the prefix, and removes the namespaces that a killed run left with it.
    const prefix = process.env['TAPNIC_NETNS_PREFIX'] ?? 'tn';
    this.name = `${prefix}-${process.pid}-${made}${tag === '' ? '' : `-${tag}`}`;
    execFileSync('ip', ['netns', 'add', this.name]);
    live.add(this);
    this.exec('ip', ['link', 'set', 'lo', 'up']);
  }

  /** Runs `cmd` to its end and returns its stdout. Throws if the status is not 0. */
  exec(cmd: string, args: string[] = [], options: RunOptions = {}): string {
    return execFileSync('ip', ['netns', 'exec', this.name, cmd, ...args], {
      encoding: 'utf8',
      timeout: options.timeoutMs ?? 30_000,
      killSignal: 'SIGKILL',
      maxBuffer: 64 << 20,
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.input === undefined ? {} : { input: options.input }),
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
  }

  /**
   * Starts `cmd`. The child's pid is the pid of the program, because `ip netns exec` executes it in
   * its own process.
   */
  spawn(cmd: string, args: string[] = [], options: SpawnOptions = {}): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', this.name, cmd, ...args], options);
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    child.once('error', () => this.#children.delete(child));
    return child;
  }

  /** Runs `cmd` to its end without blocking the event loop. Resolves with any exit status. */
  run(cmd: string, args: string[] = [], options: RunOptions = {}): Promise<Result> {
    return new Promise((resolve, reject) => {
      const child = this.spawn(cmd, args, {
        stdio: ['pipe', 'pipe', 'pipe'],
        ...(options.env === undefined ? {} : { env: options.env }),
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      });
      const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 30_000);
      const stdout: Buffer[] = [];
      const stderr: Buffer[] = [];
      child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
      child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk));
      child.stdin?.on('error', () => undefined); // EPIPE: the program did not read its input
      child.stdin?.end(options.input);
      child.once('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      child.once('close', (status, signal) => {
        clearTimeout(timer);
        const text = (chunks: Buffer[]): string => Buffer.concat(chunks).toString('utf8');
        resolve({ status, signal, stdout: text(stdout), stderr: text(stderr) });
      });
    });
  }

  /** Like `run`, but resolves with stdout, and rejects if the status is not 0. */
  async execAsync(cmd: string, args: string[] = [], options: RunOptions = {}): Promise<string> {
    const { status, signal, stdout, stderr } = await this.run(cmd, args, options);
    if (status === 0) return stdout;
    throw new Error(`${cmd} ${args.join(' ')}: status ${status ?? signal}: ${stderr.trim()}`);
  }

  [Symbol.dispose](): void {
    if (!live.delete(this)) return;
    for (const child of this.#children) child.kill('SIGKILL');
    this.#children.clear();
    try {
      execFileSync('ip', ['netns', 'delete', this.name], { stdio: 'pipe' });
    } catch (error) {
      // It may have been deleted by hand. A throw here would hide an error of the test.
      console.error(`netns ${this.name}: ${String(error)}`);
    }
  }
}
