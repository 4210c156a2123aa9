/**
 * What a suite needs of the machine. A missing need is never silent: the suite is skipped with the
 * reason, and with TAPNIC_REQUIRE=1, as in CI, it fails.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, existsSync, openSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** A condition of the machine; a file, if it begins with /; any other word, a program on the PATH. */
export type Need = 'root' | 'tap' | 'netns' | 'registry' | (string & {});

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

/** Tries it: a namespace that can be made is the only proof that one can be had. */
function netnsMissing(): string | null {
  if (!onPath('ip')) return 'netns: no `ip` (install iproute2)';
  const name = `tn-probe-${process.pid}`;
  const { status, stderr } = spawnSync('ip', ['netns', 'add', name], { encoding: 'utf8' });
  if (status !== 0) return `netns: cannot make one (${stderr.trim()})`;
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

/** Packages that are not in the lock file can be had only from the npm registry. */
function registryMissing(): string | null {
  const { status } = spawnSync('npm', ['view', 'node-api-headers', 'version'], { timeout: 30_000 });
  return status === 0 ? null : 'registry: the npm registry cannot be reached';
}

const probes: Record<string, () => string | null> = {
  root: () => (process.getuid?.() === 0 ? null : 'root: not running as root'),
  tap: tapMissing,
  netns: netnsMissing,
  registry: registryMissing,
};

const results = new Map<string, string | null>();

/** Why `need` is not met, null if it is. Probed once per process. */
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

/** Full titles of skipped suites, and why. For the reporter. */
export const skippedSuites = new Map<string, string>();

/** What the machine lacks of `wanted`, null if nothing. Throws where a lack is a failure. */
function lacking(wanted: readonly Need[]): string | null {
  const why = wanted.map(missing).filter((reason) => reason !== null);
  if (why.length === 0) return null;
  if (process.env['TAPNIC_REQUIRE'] === '1')
    throw new Error(`missing, and required: ${why.join('; ')}`);
  return why.join('; ');
}

/** As `needs`, for one test: to be called first in it, with its `this`. */
export function needsHere(test: Mocha.Context, ...wanted: Need[]): void {
  const why = lacking(wanted);
  if (why !== null) skipHere(test, why);
}

/** For a lack that only the test itself can see: skips it, or, with TAPNIC_REQUIRE=1, fails. */
export function skipHere(test: Mocha.Context, why: string): void {
  if (process.env['TAPNIC_REQUIRE'] === '1') throw new Error(`missing, and required: ${why}`);
  skippedSuites.set(test.test?.fullTitle() ?? '', why);
  test.skip();
}

/**
 * To be called in a `describe`: unless the machine has all of `wanted`, its tests are skipped, or,
 * with TAPNIC_REQUIRE=1, fail.
 */
export function needs(...wanted: Need[]): void {
  before(function () {
    const why = lacking(wanted);
    if (why === null) return;
    const suite = this.test?.parent;
    skippedSuites.set(suite?.fullTitle() ?? '', why);
    // What its other `before` hooks would have made is not there to be taken away; mocha would run
    // the `after` hooks all the same.
    const hooks: unknown = suite === undefined ? null : Reflect.get(suite, '_afterAll');
    if (Array.isArray(hooks)) hooks.length = 0;
    this.skip();
  });
}

/** Full size, `./scripts/test --full`, or CI size. */
export const full: boolean = process.env['TAPNIC_FULL'] === '1';
