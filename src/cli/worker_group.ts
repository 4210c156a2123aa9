/**
 * The workers of `serve --workers`, in the main thread, which is worker 0: starts a thread for each of
 * the others, passes link changes and control requests to them, and stops them.
 */

import { Worker } from 'node:worker_threads';
import { hasOwnEntries, mergeAnswers } from '../ctl/merge.ts';
import { type ControlRequest, type ControlResponse, errResponse } from '../ctl/protocol.ts';
import { leaveThreads } from '../host/exit.ts';
import { CliError } from './command.ts';
import type { FromWorker, ToWorker, WorkerStart } from './worker_messages.ts';

const MAIN = new URL('./serve_worker.js', import.meta.url);

/** One line about the error that ended a thread; for a bug with the stack trace. */
function errorText(e: Error & { code?: string }): string {
  return (e.code === undefined ? (e.stack ?? e.message) : e.message).replace(/\s*\n\s*/g, ' ');
}

/** One thread. */
class Member {
  readonly number: number;
  readonly #thread: Worker;
  readonly #answers = new Map<number, (answer: ControlResponse) => void>();
  #tag = 0;
  /** Its leaks; null until it has stopped. */
  leaked: Record<string, number> | null = null;
  /** Whether it ended before it had stopped. */
  dead = false;
  /** Resolves with the reason if it ends before it has stopped. */
  readonly died: Promise<string>;
  readonly ready: Promise<void>;
  readonly stopped: Promise<void>;

  constructor(start: WorkerStart, logLine: (line: string) => void) {
    this.number = start.worker;
    const thread = new Worker(MAIN, { workerData: start, stdin: false });
    this.#thread = thread;
    let why: string | null = null;
    thread.on('error', (e) => (why = e instanceof Error ? errorText(e) : String(e)));
    this.died = new Promise((resolve) => {
      thread.on('exit', (status) => {
        this.dead = this.leaked === null;
        if (this.dead) resolve(why ?? `exit status ${status}`);
        for (const answer of this.#answers.values())
          answer(errResponse(null, 'ECANCELED', `worker ${this.number} ended`));
      });
    });
    let isReady = (): void => undefined;
    let hasStopped = (): void => undefined;
    this.ready = new Promise((resolve) => (isReady = resolve));
    this.stopped = new Promise((resolve) => (hasStopped = resolve));
    thread.on('message', (message: FromWorker) => {
      switch (message.op) {
        case 'ready':
          isReady();
          break;
        case 'log':
          logLine(message.line);
          break;
        case 'answer':
          this.#answers.get(message.tag)?.(message.answer);
          this.#answers.delete(message.tag);
          break;
        case 'stopped':
          this.leaked = message.leaked;
          hasStopped();
          break;
      }
    });
  }

  send(message: ToWorker): void {
    this.#thread.postMessage(message, []);
  }

  request(req: ControlRequest): Promise<ControlResponse> {
    const tag = this.#tag++;
    return new Promise((resolve) => {
      this.#answers.set(tag, resolve);
      this.send({ op: 'request', req, tag });
    });
  }
}

export class WorkerGroup {
  readonly #members: Member[] = [];
  /** Resolves with one line when a worker ends unexpectedly. */
  readonly died: Promise<string>;
  #stopping = false;
  /** Ends of the threads that have neither stopped nor died. */
  #left = 0;

  /** Starts the threads. */
  constructor(starts: readonly WorkerStart[], logLine: (line: string) => void) {
    leaveThreads();
    for (const start of starts) this.#members.push(new Member(start, logLine));
    this.#left = starts.length;
    this.died = new Promise((resolve) => {
      for (const { number, died } of this.#members)
        void died.then((why) => {
          this.#left--;
          resolve(`worker ${number} ended: ${why}: the instance stops`);
        });
    });
    for (const { stopped } of this.#members) void stopped.then(() => this.#left--);
  }

  /** Resolves when all serve. Rejects with CliError if one cannot start. */
  async ready(): Promise<void> {
    const all = Promise.all(this.#members.map(({ ready }) => ready));
    const failed = await Promise.race([all.then(() => null), this.died]);
    if (failed !== null) throw new CliError(failed);
  }

  /** Linux set the interface up or down. */
  linkChanged(up: boolean): void {
    for (const member of this.#members) member.send({ op: 'link', up });
  }

  /**
   * Completes `first`, the answer of worker 0, by those of the others. A request that worker 0 refused
   * is not passed on, so that nothing has changed.
   */
  async complete(req: ControlRequest, first: ControlResponse): Promise<ControlResponse> {
    if (req.cmd === 'info' || (!first.ok && !hasOwnEntries(req))) return first;
    const others = await Promise.all(this.#members.map((member) => member.request(req)));
    return mergeAnswers(req, [first, ...others]);
  }

  /** Number of workers that still stop. */
  get unfinished(): number {
    return this.#stopping ? this.#left : 0;
  }

  /** Starts to stop all workers. */
  stop(): void {
    this.#stopping = true;
    for (const member of this.#members) member.send({ op: 'stop' });
  }

  /** Resolves with the leaks of all workers when they have stopped, or at `deadline`. */
  async leaked(deadline: number): Promise<Record<string, number>> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.max(0, deadline - performance.now()));
    });
    const all = this.#members.map(({ stopped, died }) => Promise.race([stopped, died]));
    await Promise.race([Promise.all(all), late]);
    clearTimeout(timer);
    const sum: Record<string, number> = {};
    for (const { leaked, dead } of this.#members)
      for (const [pool, n] of Object.entries(leaked ?? (dead ? {} : { workers: 1 })))
        sum[pool] = (sum[pool] ?? 0) + n;
    return sum;
  }
}
