/** `stackInWorker`: a stack on a TAP in a thread of its own, and the calls to it. */

import { isAbsolute } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { FaultLine } from '../ctl/fault.ts';
import type { InterfaceInfo } from '../ctl/ifconfig.ts';
import type { NetstatReports } from '../ctl/netstat.ts';
import type { FaultKind } from '../fault/fault.ts';
import { CalledThread, type MessagePort } from '../host/thread_call.ts';
import type { SysctlValue } from '../kern/kern_sysctl.ts';
import { TapnicError } from '../sys/errno.ts';
import type { StackInfo } from './nic_stack.ts';
import type { FaultOptions, Leaked, Stack, StackOptions } from './stack.ts';

const MAIN = new URL('./worker_stack_main.js', import.meta.url);

/** The default export of a program: it runs in the worker, with the stack. */
export type StackProgram = (stack: Stack, data: unknown, port: MessagePort) => void | Promise<void>;

/** What runs in the worker. */
export interface WorkerProgram {
  /** An ES module whose default export is a StackProgram: a `file:` URL or an absolute path. */
  readonly program?: URL | string;
  /** Passed to the program as a structured clone. */
  readonly data?: unknown;
}

/** What the worker starts with, and what it is ready with. */
export interface WorkerStackStart {
  readonly options: StackOptions;
  /** The URL of the program; null: none. */
  readonly program: string | null;
  readonly data: unknown;
}
export interface WorkerStackReady {
  readonly info: StackInfo;
  readonly warnings: readonly string[];
}

/** A stack in a worker. Its calls are those of Stack, and asynchronous. Made by `stackInWorker`. */
export class WorkerStack implements AsyncDisposable {
  readonly info: StackInfo;
  readonly warnings: readonly string[];
  /** Messages to and from the program. */
  readonly port: MessagePort;
  /** Resolves with the error if the worker ends before `close`, for example by an exception. */
  readonly died: Promise<Error>;
  readonly #thread: CalledThread;
  #closing: Promise<Leaked> | null = null;

  /** Called by `openWorkerStack`. */
  constructor(thread: CalledThread, { info, warnings }: WorkerStackReady) {
    this.#thread = thread;
    this.info = info;
    this.warnings = warnings;
    this.port = thread.port;
    this.died = thread.died;
  }

  /** See Stack. */
  ifconfig(): Promise<InterfaceInfo[]>;
  ifconfig(name: string, ...words: string[]): Promise<InterfaceInfo | null>;
  ifconfig(...words: string[]): Promise<unknown> {
    return this.#call('ifconfig', words);
  }

  /** See Stack. */
  sysctl(name: string, value?: string | number): Promise<SysctlValue> {
    return this.#call('sysctl', [name, value]) as Promise<SysctlValue>;
  }

  /** See Stack. */
  netstat<R extends keyof NetstatReports>(report: R): Promise<NetstatReports[R]> {
    return this.#call('netstat', [report]) as Promise<NetstatReports[R]>;
  }

  /** Resolves when the fault applies to frames. See Stack. */
  addFault(kind: FaultKind, options?: FaultOptions): Promise<FaultLine> {
    return this.#call('addFault', [kind, options]) as Promise<FaultLine>;
  }

  /** See Stack. */
  faults(): Promise<FaultLine[]> {
    return this.#call('faults', []) as Promise<FaultLine[]>;
  }

  /** See Stack. */
  removeFault(id: number | 'all'): Promise<void> {
    return this.#call('removeFault', [id]) as Promise<void>;
  }

  /** Closes the stack, then ends the worker. Resolves with the leaks, as Stack does. */
  close(): Promise<Leaked> {
    this.#closing ??= this.#stop();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #stop(): Promise<Leaked> {
    try {
      return (await this.#thread.call('close', [])) as Leaked;
    } finally {
      await this.#thread.end();
    }
  }

  async #call(name: string, args: readonly unknown[]): Promise<unknown> {
    if (this.#closing !== null) throw new TapnicError('EBADF', name, 'the stack is closed');
    return this.#thread.call(name, args);
  }
}

/** The URL of a program. Throws TapnicError. */
function urlOf(program: unknown): string {
  const refuse = (why: string): never => {
    throw new TapnicError('EINVAL', 'stackInWorker', `program: ${String(program)}: ${why}`);
  };
  if (program instanceof URL || (typeof program === 'string' && program.startsWith('file:')))
    try {
      return pathToFileURL(fileURLToPath(program)).href;
    } catch {
      return refuse('not the URL of a file');
    }
  if (typeof program === 'string' && isAbsolute(program)) return pathToFileURL(program).href;
  return refuse(
    "a file: URL or an absolute path is needed, such as new URL('./peer.js', import.meta.url)",
  );
}

/** `stackInWorker` of src/index.ts. */
export async function openWorkerStack(
  options: StackOptions,
  { program, data }: WorkerProgram,
): Promise<WorkerStack> {
  const url = program === undefined ? null : urlOf(program);
  let thread: CalledThread;
  try {
    const start: WorkerStackStart = { options, program: url, data };
    thread = new CalledThread(MAIN, 'stackInWorker', start);
  } catch (e) {
    throw new TapnicError('EINVAL', 'stackInWorker', `options and data: ${(e as Error).message}`);
  }
  try {
    return new WorkerStack(thread, (await thread.ready) as WorkerStackReady);
  } catch (e) {
    await thread.end();
    throw e;
  }
}
