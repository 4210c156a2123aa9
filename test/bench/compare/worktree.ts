/** Another revision of the repository, built in a temporary worktree. */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../support/root.ts';

function git(args: readonly string[]): string {
  return execFileSync('git', [...args], {
    cwd: packageRoot(),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trim();
}

/** The commit that `revision` means. Throws if there is none, or if files are not committed. */
export function commitOf(revision: string): string {
  let commit: string;
  try {
    commit = git(['rev-parse', '--verify', '--quiet', '--end-of-options', `${revision}^{commit}`]);
  } catch {
    throw new Error(`compare: ${revision}: no such revision in this repository`);
  }
  const changed = git(['status', '--porcelain', '--untracked-files=no'])
    .split('\n')
    .filter(Boolean);
  if (changed.length > 0)
    throw new Error(
      `compare: ${changed.length} files have changes that are not committed: commit or stash them`,
    );
  return commit;
}

/** A commit in a directory of its own, removed by dispose, and when the process ends. */
export class Worktree implements Disposable {
  readonly dir = join(mkdtempSync(join(tmpdir(), 'tapnic-compare-')), 'tree');

  constructor(commit: string) {
    process.once('exit', this.#remove);
    git(['worktree', 'add', '--detach', this.dir, commit]);
    symlinkSync(join(packageRoot(), 'node_modules'), join(this.dir, 'node_modules'));
  }

  /** The command line of the built revision. */
  get cli(): string {
    return join(this.dir, 'dist/src/cli/main.js');
  }

  /** Builds the addon and the sources. Rejects if that fails. */
  async build(): Promise<void> {
    const tsc = join(this.dir, 'node_modules/.bin/tsc');
    await this.#run([process.execPath, 'scripts/build-addon.mjs']);
    await this.#run([tsc, '-p', '.']);
    if (!existsSync(this.cli)) throw new Error('compare: the revision has no command line');
  }

  async #run([program, ...args]: readonly string[]): Promise<void> {
    // A group of its own, so that the compilers end too.
    const child = spawn(program!, args, {
      cwd: this.dir,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const kill = (): void => {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
    };
    // Before the directory is removed.
    process.prependOnceListener('exit', kill);
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (output = (output + chunk.toString()).slice(-2000)));
    const [code] = (await once(child, 'close')) as [number | null];
    process.off('exit', kill);
    if (code !== 0) throw new Error(`compare: the revision does not build: ${output.trim()}`);
  }

  readonly #remove = (): void => {
    try {
      git(['worktree', 'remove', '--force', this.dir]);
    } catch {
      // It was not added completely.
    }
    rmSync(join(this.dir, '..'), { recursive: true, force: true });
  };

  [Symbol.dispose](): void {
    process.off('exit', this.#remove);
    this.#remove();
  }
}
