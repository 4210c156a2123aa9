/**
 * Prints the suites that a change can affect, one a line: `node dist/scripts/changed.js BASE`. The
 * change is what differs from the commit that HEAD and BASE have in common, untracked files
 * included. For `./scripts/test --changed`.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { affectedSuites } from '../test/support/changed.ts';
import { readSources } from '../test/support/sources.ts';

/** Paths that a git command prints, from the package root. */
function paths(...args: string[]): string[] {
  const text = execFileSync('git', args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  return text.split('\0').filter((path) => path !== '');
}

/** The commit that HEAD and `base` have in common. Without one git prints why and the program ends. */
function mergeBase(base: string): string {
  const { status, stdout } = spawnSync('git', ['merge-base', 'HEAD', base], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0) process.exit(1);
  return stdout.trim();
}

const common = mergeBase(process.argv[2] ?? 'HEAD');
const untracked = paths('ls-files', '-z', '--others', '--exclude-standard');
// Relative, because the package may be a folder of a larger repository.
const changed = paths('diff', '--name-only', '--relative', '--no-renames', '-z', common);
const tracked = paths('ls-files', '-z').filter((path) => existsSync(path));
const files = [...tracked, ...untracked];
for (const suite of affectedSuites([...changed, ...untracked], readSources(files), files))
  console.log(suite);
