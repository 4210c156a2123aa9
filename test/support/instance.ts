/** A running `tapnic` in a network namespace, driven only through its command line. */

import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Netns, Result } from './netns.ts';
import { cliMain } from './root.ts';

/** The `ready` line, as docs/usage.md defines it. */
export interface Ready {
  event: 'ready';
  tap: string;
  created: boolean;
  if: string;
  addr: string;
  addr6: string | null;
  mac: string;
  mode: 'wire' | 'vnet';
  napi: string;
  engine: string;
  control: string;
  pid: number;
  /** NICs besides the first. */
  ports: { tap: string; if: string; mac: string; nic: string }[];
  url?: string;
  url6?: string | null;
}

/** How an instance ended. */
export interface Exit {
  /** Exit status; null if a signal ended it. */
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Pool names to counts, from the exit line; null if there was no such line. */
  leaked: Record<string, number> | null;
  stderr: string;
}

/** Addresses are ready at once. */
const NO_DAD = 'net.inet6.ip6.dad_count=0';
const READY_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 10_000;
const STDERR_MAX = 1 << 20;

/** Any line of an instance's stdout. */
type Line = Partial<Omit<Ready, 'event'>> & { event?: string; leaked?: Record<string, number> };

function parseLine(line: string): Line {
  try {
    const value: Line | null = JSON.parse(line);
    return value ?? {};
  } catch {
    return {};
  }
}

function isReady(line: Line): line is Ready {
  return line.event === 'ready' && line.control !== undefined && line.addr !== undefined;
}

export class Instance {
  readonly ready: Ready;
  readonly #ns: Netns;
  readonly #child: ChildProcess;
  readonly #exit: Promise<Exit>;
  readonly #stderr: () => string;

  private constructor(
    ns: Netns,
    child: ChildProcess,
    ready: Ready,
    exit: Promise<Exit>,
    stderr: () => string,
  ) {
    this.#stderr = stderr;
    this.#ns = ns;
    this.#child = child;
    this.ready = ready;
    this.#exit = exit;
  }

  /**
   * Runs `tapnic ARGS --json` in `ns` and waits for its `ready` line. Its control socket is in a
   * temporary directory unless ARGS say otherwise. Duplicate address detection is off unless ARGS name
   * dad_count: it takes a second. Rejects with its stderr if it exits before.
   * @param wrapper a program with its arguments that executes tapnic, such as env
   * @param cli the command line to run, for one of another revision
   */
  static async start(
    ns: Netns,
    args: string[],
    wrapper: string[] = [],
    cli: string = cliMain,
  ): Promise<Instance> {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-'));
    const control = args.some((arg) => arg.startsWith('--control'))
      ? []
      : ['--control', join(dir, 'control.sock')];
    const dad = args.some((arg) => arg.includes('dad_count')) ? [] : ['--sysctl', NO_DAD];
    const tapnic = [
      process.execPath,
      '--enable-source-maps',
      cli,
      ...args,
      ...control,
      ...dad,
      '--json',
    ];
    const [program, ...rest] = [...wrapper, ...tapnic];
    const child = ns.spawn(program!, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      stderr = (stderr + chunk.toString('utf8')).slice(-STDERR_MAX);
    });
    let leaked: Exit['leaked'] = null;
    let onReady: (ready: Ready) => void = () => undefined;
    const readyLine = new Promise<Ready>((resolve) => (onReady = resolve));
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const said = parseLine(line);
      if (isReady(said)) onReady(said);
      if (said.event === 'exit') leaked = said.leaked ?? null;
    });
    const exit = new Promise<Exit>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => {
        rmSync(dir, { recursive: true, force: true });
        resolve({ code, signal, leaked, stderr });
      });
    });
    const failed = exit.then(({ code, signal }): never => {
      throw new Error(
        `tapnic ${args.join(' ')}: ended (${code ?? signal}) before ready: ${stderr}`,
      );
    });
    const ready = await within(Promise.race([readyLine, failed]), READY_TIMEOUT_MS, () => {
      child.kill('SIGKILL');
      return `tapnic ${args.join(' ')}: no ready line in ${READY_TIMEOUT_MS} ms: ${stderr}`;
    });
    failed.catch(() => undefined);
    return new Instance(ns, child, ready, exit, () => stderr);
  }

  get ns(): Netns {
    return this.#ns;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** What it has written to stderr so far. */
  get stderr(): string {
    return this.#stderr();
  }

  get control(): string {
    return this.ready.control;
  }

  /** `http://addr/`, with a slash at the end. */
  get url(): string {
    if (this.ready.url === undefined)
      throw new Error('this instance does not serve files: its ready line has no url');
    return new URL('/', this.ready.url).href;
  }

  /** The same for IPv6. */
  get url6(): string {
    const { url6 } = this.ready;
    if (typeof url6 !== 'string') throw new Error('the ready line has no url6');
    return new URL('/', url6).href;
  }

  /** The URL of one file in the served directory. */
  urlOf(path: string, family: 4 | 6 = 4): string {
    const base = family === 6 ? this.url6 : this.url;
    return new URL(path.split('/').map(encodeURIComponent).join('/'), base).href;
  }

  /**
   * Runs a client command (`netstat -m`, …) against this instance. Resolves with any exit status.
   */
  command(...args: string[]): Promise<Result> {
    return this.#ns.run(process.execPath, [cliMain, ...args, '--control', this.control]);
  }

  /** Like `command`, with --json and its output parsed. Rejects if the status is not 0. */
  async json<T>(...args: string[]): Promise<T> {
    const { status, stdout, stderr } = await this.command(...args, '--json');
    if (status !== 0) throw new Error(`tapnic ${args.join(' ')}: status ${status}: ${stderr}`);
    const value: T = JSON.parse(stdout);
    return value;
  }

  /** Runs curl in the instance's namespace: quiet, errors shown, bounded in time. */
  curl(...args: string[]): Promise<Result> {
    return this.#ns.run('curl', ['-sS', '--max-time', '60', ...args], { timeoutMs: 65_000 });
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Waits until the instance exits, without stopping it. */
  exited(): Promise<Exit> {
    return this.#exit;
  }

  /**
   * Sends SIGTERM and resolves with the exit. Kills the instance and rejects if it does not exit in
   * time.
   */
  async stop(): Promise<Exit> {
    this.#child.kill('SIGTERM');
    return await within(this.#exit, STOP_TIMEOUT_MS, () => {
      this.#child.kill('SIGKILL');
      return `tapnic did not stop in ${STOP_TIMEOUT_MS} ms`;
    });
  }
}

/** Settles as `promise` does. Rejects with the message of `expired` after `ms` milliseconds. */
export function within<T>(promise: Promise<T>, ms: number, expired: () => string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(expired())), ms);
    void promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
