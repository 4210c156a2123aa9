/** Runs the bench program, for the tests of its output. */

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { distRoot } from '../support/root.ts';

export function bench(...args: string[]): {
  status: number | null;
  stdout: string;
  stderr: string;
} {
  return spawnSync(process.execPath, [join(distRoot, 'test/bench/main.js'), ...args], {
    encoding: 'utf8',
    timeout: 230_000,
    maxBuffer: 16 << 20,
  });
}
