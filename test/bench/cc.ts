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

/** Programs that this process has compiled, by name. */
const compiled = new Map<string, string>();
let programs: string | null = null;

/** The directory of the programs, which is removed when this process ends. */
function programDir(): string {
  if (programs !== null) return programs;
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-baselines-'));
  process.once('exit', () => rmSync(dir, { recursive: true, force: true }));
  return (programs = dir);
}

/** The programs in C, and a temporary directory for a row, which dispose removes. */
export class Baselines implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), 'tapnic-bench-'));
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

  /** Scratch space. */
  get dir(): string {
    return this.#dir;
  }

  /** The compiler with its version, for the conditions. */
  get compiler(): string {
    const text = execFileSync(this.#cc, ['--version'], { encoding: 'utf8' });
    return `${text.split('\n')[0]} ${FLAGS[1]}`;
  }

  /** Compiles `baseline/<name>.c` once in this process; returns the path of the program. */
  program(name: string): string {
    const done = compiled.get(name);
    if (done !== undefined) return done;
    const out = join(programDir(), name);
    const source = join(packageRoot(), 'test/bench/baseline', `${name}.c`);
    const { status, stderr } = spawnSync(this.#cc, [...FLAGS, '-o', out, source], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`${name}.c does not compile: ${stderr.trim()}`);
    compiled.set(name, out);
    return out;
  }

  readonly #remove = (): void => rmSync(this.#dir, { recursive: true, force: true });

  [Symbol.dispose](): void {
    process.off('exit', this.#remove);
    this.#remove();
  }
}
