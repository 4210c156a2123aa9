/** The running test, as mocha, node:test and vitest describe it. */

import { TapnicError } from '../sys/errno.ts';

/** A test that runs. */
export interface RunningTest {
  /** Title with those of its suites; `test` if the runner does not say. */
  readonly name: string;
  /** Marks it as skipped; may throw what the runner expects. */
  skip(why: string): void;
  /** Aborted when the runner gives up; null: see `limit`. */
  readonly signal: AbortSignal | null;
  /** Takes over the time limit. Returns a function that gives the ms now, 0: none; null: the runner keeps it. */
  readonly takeLimit: (() => () => number) | null;
}

/** What is used of mocha's context. */
interface MochaThis {
  test?: { fullTitle(): string };
  runnable(): unknown;
  skip(): never;
  timeout(): number;
  timeout(ms: number): unknown;
}

interface VitestTask {
  name: string;
  suite?: VitestTask;
}

interface VitestContext {
  task: VitestTask;
  skip(note?: string): void;
  signal?: AbortSignal;
}

interface NodeContext {
  name: string;
  fullName?: string;
  skip(message?: string): void;
  signal: AbortSignal;
}

/** Time that mocha waits longer than the test, for the fixture to close what it opened, ms. */
const GRACE_MS = 5000;

function hasFunctions(of: unknown, ...names: string[]): boolean {
  return (
    typeof of === 'object' &&
    of !== null &&
    names.every((name) => typeof Reflect.get(of, name) === 'function')
  );
}

function mochaTest(self: MochaThis): RunningTest {
  return {
    name: self.test?.fullTitle() ?? 'test',
    skip: () => self.skip(),
    signal: null,
    takeLimit: () => {
      let limit = self.timeout();
      let set = limit === 0 ? 0 : limit + GRACE_MS;
      self.timeout(set);
      return () => {
        // The test has changed it meanwhile.
        if (self.timeout() !== set) {
          limit = self.timeout();
          set = limit === 0 ? 0 : limit + GRACE_MS;
          self.timeout(set);
        }
        return limit;
      };
    },
  };
}

function vitestName({ name, suite }: VitestTask): string {
  return suite === undefined ? name : `${vitestName(suite)} ${name}`;
}

/** The name that jest gives, and others with its `expect`. */
function nameOfExpect(): string {
  const expect: unknown = Reflect.get(globalThis, 'expect');
  if (typeof expect !== 'function') return 'test';
  const getState: unknown = Reflect.get(expect, 'getState');
  if (typeof getState !== 'function') return 'test';
  const { currentTestName } = Reflect.apply(getState, expect, []) as { currentTestName?: string };
  return currentTestName ?? 'test';
}

/** @param self `this` of the function that the runner calls @param context its argument */
export function runningTest(self: unknown, context: unknown): RunningTest {
  if (hasFunctions(self, 'runnable', 'skip', 'timeout')) return mochaTest(self as MochaThis);
  if (hasFunctions(context, 'skip') && Reflect.has(context as object, 'task')) {
    const { task, signal = null } = context as VitestContext;
    const skip = (why: string): void => (context as VitestContext).skip(why);
    return { name: vitestName(task).trim(), skip, signal, takeLimit: null };
  }
  if (hasFunctions(context, 'skip', 'diagnostic')) {
    const { fullName, name, signal } = context as NodeContext;
    const skip = (why: string): void => (context as NodeContext).skip(why);
    return { name: fullName ?? name, skip, signal, takeLimit: null };
  }
  return {
    name: nameOfExpect(),
    skip: (why) => {
      throw new TapnicError('ENOTSUP', 'skip', `${why}; this runner cannot skip a running test`);
    },
    signal: null,
    takeLimit: null,
  };
}
