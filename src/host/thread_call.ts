/** Calls of functions in a worker thread, and their errors: both sides. */

import {
  MessageChannel,
  type MessagePort,
  parentPort,
  type TransferListItem,
  Worker,
  workerData,
} from 'node:worker_threads';
import { setTimeout as sleep } from 'node:timers/promises';
import { TapnicError } from '../sys/errno.ts';

export type { MessagePort } from 'node:worker_threads';

/** Milliseconds that a thread has to end by itself. */
const END_MS = 1000;

/** An error as data, because a clone of one has no `code`. */
interface ErrorData {
  readonly message: string;
  /** Null: not a TapnicError. */
  readonly code: string | null;
  readonly syscall: string;
  readonly stack: string;
}

type FromThread =
  | { readonly op: 'ready'; readonly value: unknown }
  | { readonly op: 'failed'; readonly error: ErrorData }
  | { readonly op: 'answer'; readonly tag: number; readonly value: unknown }
  | { readonly op: 'refused'; readonly tag: number; readonly error: ErrorData };

interface ToThread {
  readonly tag: number;
  readonly name: string;
  readonly args: readonly unknown[];
}

function toData(e: unknown): ErrorData {
  const error = e instanceof Error ? e : new Error(String(e));
  const { code, syscall } = error instanceof TapnicError ? error : { code: null, syscall: '' };
  return { message: error.message, code, syscall, stack: error.stack ?? '' };
}

function fromData({ message, code, syscall, stack }: ErrorData): Error {
  const error = code === null ? new Error(message) : new TapnicError(code, syscall);
  return Object.assign(error, { message, stack });
}

interface Waiter {
  resolve(value: unknown): void;
  reject(e: Error): void;
}

/** A thread that answers calls. */
export class CalledThread {
  /** Resolves with the value that the thread is ready with. */
  readonly ready: Promise<unknown>;
  /** Resolves with the error if the thread ends before `end`. */
  readonly died: Promise<Error>;
  /** A channel to the program in the thread. */
  readonly port: MessagePort;
  readonly #thread: Worker;
  readonly #calls = new Map<number, Waiter>();
  readonly #exited: Promise<void>;
  #tag = 0;
  #ending = false;
  #gone: Error | null = null;

  /**
   * Starts `main`, which calls `threadSide`. Throws DataCloneError.
   * @param name of the call, for errors
   */
  constructor(main: URL, name: string, data: unknown) {
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    const transferList: TransferListItem[] = [port2];
    const thread = new Worker(main, { workerData: { data, port: port2 }, transferList });
    this.#thread = thread;
    let ready: Waiter;
    this.ready = new Promise((resolve, reject) => (ready = { resolve, reject }));
    this.ready.catch(() => undefined);
    thread.on('message', (message: FromThread) => {
      if (message.op === 'ready') ready.resolve(message.value);
      else if (message.op === 'failed') ready.reject(fromData(message.error));
      else this.#answered(message);
    });
    let why: Error | null = null;
    thread.on('error', (e) => (why = e instanceof Error ? e : new Error(String(e))));
    const gone = new Promise<Error>((resolve) => {
      thread.on('exit', (status) => {
        const text = `the thread ended with status ${status}`;
        resolve((this.#gone = why ?? new TapnicError('ECANCELED', name, text)));
        ready.reject(this.#gone);
        for (const call of this.#calls.values()) call.reject(this.#gone);
        this.#calls.clear();
        port1.close();
      });
    });
    this.#exited = gone.then(() => undefined);
    this.died = new Promise((resolve) => {
      void gone.then((e) => {
        if (!this.#ending) resolve(e);
      });
    });
  }

  /** Calls the function `name` of the thread. Rejects with its error, or with that of the thread. */
  call(name: string, args: readonly unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#gone !== null) return reject(this.#gone);
      const tag = this.#tag++;
      this.#thread.postMessage({ tag, name, args } satisfies ToThread, []);
      this.#calls.set(tag, { resolve, reject });
    });
  }

  /** Ends the thread: waits a second for it, then terminates it. */
  async end(): Promise<void> {
    this.#ending = true;
    this.port.close();
    const late = new AbortController();
    const terminated = sleep(END_MS, null, late).then(
      () => this.#thread.terminate(),
      () => undefined,
    );
    await this.#exited;
    late.abort();
    await terminated;
  }

  #answered(message: Extract<FromThread, { tag: number }>): void {
    const call = this.#calls.get(message.tag);
    this.#calls.delete(message.tag);
    if (message.op === 'answer') call?.resolve(message.value);
    else call?.reject(fromData(message.error));
  }
}

/** The functions of a thread, by name. */
type Functions = Readonly<Record<string, (...args: never[]) => unknown>>;

/** The thread's side of a CalledThread. */
interface ThreadSide {
  readonly data: unknown;
  readonly port: MessagePort;
  /** Answers calls from now on, until `leave`. */
  ready(value: unknown, functions: Functions): void;
  failed(e: unknown): void;
  /** Takes no more calls after the present one is answered, so that the thread can end. */
  leave(): void;
}

/** The other side of the CalledThread that started this thread. */
export function threadSide(): ThreadSide {
  const parent = parentPort!;
  const { data, port } = workerData as { data: unknown; port: MessagePort };
  const send = (message: FromThread): void => parent.postMessage(message, []);
  const answer = async (functions: Functions, { tag, name, args }: ToThread): Promise<void> => {
    try {
      const value: unknown = await functions[name]!(...(args as never[]));
      send({ op: 'answer', tag, value });
    } catch (e) {
      send({ op: 'refused', tag, error: toData(e) });
    }
  };
  return {
    data,
    port,
    ready: (value, functions) => {
      parent.on('message', (call: ToThread) => void answer(functions, call));
      send({ op: 'ready', value });
    },
    failed: (e) => send({ op: 'failed', error: toData(e) }),
    leave: () => {
      setImmediate(() => {
        parent.close();
        port.close();
      });
    },
  };
}
