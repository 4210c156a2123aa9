/** The results of several calls, kept in a file. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../support/root.ts';
import type { Row } from '../result.ts';

/** When and with what something was measured. */
export interface Origin {
  /** The bench of the row. */
  readonly bench: string;
  /** ISO 8601, UTC, to the minute. */
  readonly at: string;
  /** The commit, with `-dirty` if files were changed. */
  readonly revision: string;
  readonly quick: boolean;
}

export interface Measured extends Origin {
  readonly row: Row;
}

/** A row or bench that could not be measured. */
export interface Failure extends Origin {
  readonly name: string;
  readonly why: string;
}

export interface Results {
  measured: Measured[];
  failures: Failure[];
}

const FILE = 'results.json';

/** The results in `dir`; none if there is no such file. Throws if it is damaged. */
export function readResults(dir: string): Results {
  let text: string;
  try {
    text = readFileSync(join(dir, FILE), 'utf8');
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return { measured: [], failures: [] };
    throw e;
  }
  try {
    const results: Results = JSON.parse(text);
    if (Array.isArray(results.measured) && Array.isArray(results.failures)) return results;
  } catch {
    // Reported below.
  }
  throw new Error(`${join(dir, FILE)}: not the results of a bench: remove it, or name another DIR`);
}

/** Writes the results to `dir`, which is created if necessary. */
export function writeResults(dir: string, results: Results): void {
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, FILE), `${JSON.stringify(results, null, 1)}\n`);
}

/** The commit of this checkout. */
export function revision(): string {
  try {
    const args = ['describe', '--always', '--dirty', '--abbrev=10', '--exclude=*'];
    return execFileSync('git', args, {
      cwd: packageRoot(),
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return 'unknown';
  }
}
