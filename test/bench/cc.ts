/** Compiles the baselines. */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../support/root.ts';

const FLAGS = ['-std=gnu17', '-O3', '-Wall', '-Wextra', '-Werror'];

function compiler(): string {
  const asked = process.env['CC'];
  for (const name of asked === undefined || asked === '' ? ['cc', 'gcc', 'clang'] : [asked])
    if (spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0) return name;
  throw new Error(
    `no C compiler (${asked ?? 'cc, gcc, clang'}): the baselines are in C; install gcc or set CC`,
  );
}

/** Compiles baselines into a temporary directory, which dispose removes. */
export class Baselines implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), 'tapnic-bench-'));
  readonly #done = new Set<string>();
  readonly #cc: string;

  constructor() {
    // An interrupted bench runs its exit handlers only.
    process.once('exit', this.#remove);
    try {
      this.#cc = compiler();
    } catch (e) {
      this[Symbol.dispose]();
      throw e;
    }
  }

  /** Scratch space, removed together with the programs. */
  get dir(): string {
    return this.#dir;
  }

  /** The compiler with its version, for the conditions. */
  get compiler(): string {
    const text = execFileSync(this.#cc, ['--version'], { encoding: 'utf8' });
    return `${text.split('\n')[0]} ${FLAGS[1]}`;
  }

  /** Compiles `baseline/<name>.c` once; returns the path of the program. */
  program(name: string): string {
    const out = join(this.#dir, name);
    if (!this.#done.has(name)) {
      const source = join(packageRoot(), 'test/bench/baseline', `${name}.c`);
      const { status, stderr } = spawnSync(this.#cc, [...FLAGS, '-o', out, source], {
        encoding: 'utf8',
      });
      if (status !== 0) throw new Error(`${name}.c does not compile: ${stderr.trim()}`);
      this.#done.add(name);
    }
    return out;
  }

  readonly #remove = (): void => rmSync(this.#dir, { recursive: true, force: true });

  [Symbol.dispose](): void {
    process.off('exit', this.#remove);
    this.#remove();
  }
}
