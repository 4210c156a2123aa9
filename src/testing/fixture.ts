/**
 * What withStack and withLink have in common: open, run the test, close, check for leaks, keep the captures of a failed
 * test. A thread has one stack or link at a time, so tests that a runner starts together run one after the other.
 */

import { AsyncLocalStorage } from 'node:async_hooks';
import { realTimers } from '../host/real_timers.ts';
import type { Leaked, Stack } from '../machine/stack.ts';
import { TapnicError } from '../sys/errno.ts';
import { FailureCapture } from './failure_capture.ts';
import { type FrameLog, openLog } from './frame_log.ts';
import { type RunningTest, runningTest } from './runner.ts';

/** Options of both fixtures. */
export interface FixtureOptions {
  /** False: record nothing. A failed test then has no capture. Default true. */
  readonly keepCapture?: boolean;
}

/** What a fixture opened. */
interface Opened<T> {
  /** The argument of the test. */
  readonly context: T;
  readonly stacks: readonly { readonly name: string; readonly stack: Stack }[];
  /** Closes everything. Resolves with the leaks. */
  close(): Promise<Leaked>;
  /** What repeats a run, for the report of a failure. */
  readonly repeat: string;
}

/** A requirement that this machine lacks: the test is skipped. */
export class Missing extends Error {}

/** A function for a runner: mocha calls it with its context as `this`, node:test and vitest pass theirs. */
export type TestFunction = (this: unknown, context?: unknown) => Promise<void>;

/** The name of the test in which a program runs. */
const running = new AsyncLocalStorage<string>();
/** The end of the fixture that runs now. */
let busy: Promise<void> = Promise.resolve();

/** Adds lines to the message of an error, also in its stack. */
function withNotes(thrown: unknown, notes: readonly string[]): unknown {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  if (notes.length === 0) return error;
  const { message, stack } = error;
  const more = `${message}\n\n${notes.join('\n')}`;
  try {
    error.message = more;
    if (stack !== undefined) error.stack = stack.replace(message, () => more);
  } catch {
    return new Error(more, { cause: thrown });
  }
  return error;
}

/** How often the limit of a test is looked at, at least, ms. */
const CHECK_MS = 1000;

/**
 * Rejects with TapnicError ETIMEDOUT when the runner's limit is reached. Until `stop`, it keeps the process alive, which
 * a link does not do.
 */
function timeLimit({ signal, takeLimit }: RunningTest): { over: Promise<never>; stop: () => void } {
  const limit = takeLimit?.() ?? (() => 0);
  const start = realTimers.now();
  let timer: NodeJS.Timeout;
  let aborted = (): void => undefined;
  const over = new Promise<never>((_resolve, reject) => {
    const fail = (why: string): void => reject(new TapnicError('ETIMEDOUT', 'test', why));
    const check = (): void => {
      const ms = limit();
      const left = ms === 0 ? CHECK_MS : start + ms - realTimers.now();
      if (left <= 0) fail(`the time limit of ${ms} ms is over: await less, or this.timeout(ms)`);
      timer = realTimers.setTimeout(check, Math.min(Math.max(left, 1), CHECK_MS));
    };
    check();
    aborted = () => fail('the runner has ended the test: its time limit is over');
  });
  over.catch(() => undefined);
  if (signal?.aborted === true) aborted();
  signal?.addEventListener('abort', aborted, { once: true });
  const stop = (): void => {
    realTimers.clearTimeout(timer);
    signal?.removeEventListener('abort', aborted);
  };
  return { over, stop };
}

/** Runs the test until it ends or the runner's limit is reached. */
async function inTime(test: RunningTest, body: () => unknown): Promise<void> {
  const { over, stop } = timeLimit(test);
  try {
    const result = (async () => void (await body()))();
    // It may reject after the limit.
    result.catch(() => undefined);
    await Promise.race([result, over]);
  } finally {
    stop();
  }
}

function leakError(leaked: Leaked): Error | null {
  const items = Object.entries(leaked).map(([pool, n]) => `${n} ${pool}`);
  return items.length === 0
    ? null
    : new TapnicError('EBUSY', 'leak check', `${items.join(', ')} are not free after the test`);
}

/** Closes what was opened; returns the leak or the failure of the close, or null. */
async function closed<T>(opened: Opened<T>): Promise<unknown> {
  try {
    return leakError(await opened.close());
  } catch (e) {
    return e;
  }
}

/** Runs the test on what was opened, and closes that also after an error. Returns what went wrong, in order. */
async function failuresOf<T>(
  test: RunningTest,
  opened: Opened<T>,
  capture: FailureCapture | null,
  body: (context: T) => unknown,
): Promise<unknown[]> {
  const failures: unknown[] = [];
  const logs: FrameLog[] = [];
  try {
    for (const { name, stack } of opened.stacks) {
      logs.push(openLog(stack, name));
      await capture?.add(stack, name);
    }
    await inTime(test, () => running.run(test.name, () => body(opened.context)));
  } catch (e) {
    failures.push(e);
  }
  for (const log of logs) log.close();
  // The captures also show the end of the connections.
  const leak = await closed(opened);
  if (leak !== null) failures.push(leak);
  await capture?.end();
  return failures;
}

async function runOpened<T>(
  test: RunningTest,
  opened: Opened<T>,
  capture: FailureCapture | null,
  body: (context: T) => unknown,
): Promise<void> {
  const failures = await failuresOf(test, opened, capture, body);
  if (failures.length === 0) {
    capture?.discard();
    return;
  }
  const kept = (await capture?.keep()) ?? [];
  const others = failures.slice(1).map((e) => `also: ${(e as Error).message}`);
  throw withNotes(failures[0], [...others, opened.repeat, ...kept]);
}

/** Waits for the fixture before. Returns the function that lets the next one begin. */
async function turn(): Promise<() => void> {
  const outer = running.getStore();
  if (outer !== undefined)
    throw new TapnicError(
      'EBUSY',
      'fixture',
      `it is inside that of "${outer}", and a thread has one: use the stacks of one withLink, or stackInWorker`,
    );
  const before = busy;
  let done = (): void => undefined;
  busy = new Promise((resolve) => (done = resolve));
  await before;
  return done;
}

/** Skips the test, or fails it if the requirement must be there. */
function missing(test: RunningTest, why: string): void {
  if (process.env['TAPNIC_REQUIRE'] === '1')
    throw new TapnicError('ENOTSUP', 'withStack', `missing, and required: ${why}`);
  console.warn(`tapnic: skipped "${test.name}": ${why}`);
  test.skip(why);
}

/** A test function around `body`. */
export function fixture<T>(
  options: FixtureOptions,
  open: () => Promise<Opened<T>>,
  body: (context: T) => unknown,
): TestFunction {
  // Without a declared parameter: mocha passes a callback to functions that have one, and vitest reads its name.
  return async function (this: unknown): Promise<void> {
    const test = runningTest(this, arguments[0]);
    const done = await turn();
    try {
      const opened = await open();
      const capture = options.keepCapture === false ? null : new FailureCapture(test.name);
      await runOpened(test, opened, capture, body);
    } catch (e) {
      if (!(e instanceof Missing)) throw e;
      missing(test, e.message);
    } finally {
      done();
    }
  };
}
