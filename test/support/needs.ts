/**
 * Requirements of a suite. If one is missing, the suite is skipped and the reason is reported. With
 * TAPNIC_REQUIRE=1, as in CI, the suite fails.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, existsSync, openSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { delimiter, join } from 'node:path';

/**
 * A condition of the machine; a file, if it starts with /; any other word is a program on the PATH.
 */
export type Need = 'root' | 'tap' | 'netns' | 'registry' | 'loopback6' | (string & {});

function onPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((dir) => {
    try {
      accessSync(join(dir, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Creates a namespace, because only that proves that it is possible. */
function netnsMissing(): string | null {
  if (!onPath('ip')) return 'netns: no `ip` (install iproute2)';
  const name = `tn-probe-${process.pid}`;
  const { status, stderr } = spawnSync('ip', ['netns', 'add', name], { encoding: 'utf8' });
  if (status !== 0) return `netns: cannot create a namespace (${stderr.trim()})`;
  execFileSync('ip', ['netns', 'delete', name]);
  return null;
}

function tapMissing(): string | null {
  if (!existsSync('/dev/net/tun')) return 'tap: no /dev/net/tun';
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
    return null;
  } catch (error) {
    return `tap: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Packages that are not in the lock file come only from the npm registry. */
function registryMissing(): string | null {
  const { status } = spawnSync('npm', ['view', 'node-api-headers', 'version'], { timeout: 30_000 });
  return status === 0 ? null : 'registry: the npm registry cannot be reached';
}

function loopback6Missing(): string | null {
  const addrs = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addrs.some(({ address }) => address === '::1')
    ? null
    : 'loopback6: no ::1 on this machine';
}

const probes: Record<string, () => string | null> = {
  root: () => (process.getuid?.() === 0 ? null : 'root: not running as root'),
  tap: tapMissing,
  netns: netnsMissing,
  registry: registryMissing,
  loopback6: loopback6Missing,
};

const results = new Map<string, string | null>();

/** Returns why `need` is not met, or null if it is. Probes once per process. */
export function missing(need: Need): string | null {
  let why = results.get(need);
  if (why === undefined) {
    const there = need.startsWith('/') ? existsSync : onPath;
    const probe = probes[need] ?? (() => (there(need) ? null : `${need}: not found`));
    why = probe();
    results.set(need, why);
  }
  return why;
}

/** Full titles of skipped suites with the reasons, for the reporter. */
export const skippedSuites = new Map<string, string>();

/**
 * Returns which of `wanted` are missing, or null. Throws if something is missing and
 * TAPNIC_REQUIRE=1.
 */
function lacking(wanted: readonly Need[]): string | null {
  const why = wanted.map(missing).filter((reason) => reason !== null);
  if (why.length === 0) return null;
  if (process.env['TAPNIC_REQUIRE'] === '1')
    throw new Error(`missing, and required: ${why.join('; ')}`);
  return why.join('; ');
}

/** Like `needs`, for one test: call it first in the test, with the test's `this`. */
export function needsHere(test: Mocha.Context, ...wanted: Need[]): void {
  const why = lacking(wanted);
  if (why !== null) skipHere(test, why);
}

/**
 * For a requirement that only the test itself can check: skips the test, or fails it with
 * TAPNIC_REQUIRE=1.
 */
export function skipHere(test: Mocha.Context, why: string): void {
  if (process.env['TAPNIC_REQUIRE'] === '1') throw new Error(`missing, and required: ${why}`);
  skippedSuites.set(test.test?.fullTitle() ?? '', why);
  test.skip();
}

/**
 * For a requirement that only a `before` hook can check: skips its suite, or fails it with
 * TAPNIC_REQUIRE=1. The hook cleans up what it made.
 */
export function skipSuite(hook: Mocha.Context, why: string): void {
  if (process.env['TAPNIC_REQUIRE'] === '1') throw new Error(`missing, and required: ${why}`);
  const suite = hook.test?.parent;
  skippedSuites.set(suite?.fullTitle() ?? '', why);
  // Remove the `after` hooks: mocha would run them, but the `before` hooks that they clean up
  // after are skipped.
  const hooks: unknown = suite === undefined ? null : Reflect.get(suite, '_afterAll');
  if (Array.isArray(hooks)) hooks.length = 0;
  hook.skip();
}

/**
 * Call it in a `describe`. If the machine lacks any of `wanted`, the tests are skipped, or fail
 * with TAPNIC_REQUIRE=1.
 */
export function needs(...wanted: Need[]): void {
  before(function () {
    const why = lacking(wanted);
    if (why !== null) skipSuite(this, why);
  });
}

/** Full size, `./scripts/test --full`, or CI size. */
export const full: boolean = process.env['TAPNIC_FULL'] === '1';
