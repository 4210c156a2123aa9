/** Paths of the package, derived from the path of this compiled file in dist/test/support. */

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The tree this file was compiled into: `dist`, or the directory of `--outDir`. */
export const distRoot: string = fileURLToPath(new URL('../..', import.meta.url));

/** The compiled command line. */
export const cliMain: string = join(distRoot, 'src/cli/main.js');

/** The package root, where the sources are: the nearest parent with a tsconfig.json, else the cwd. */
export function packageRoot(): string {
  for (let dir = distRoot; dirname(dir) !== dir; dir = dirname(dir))
    if (existsSync(join(dir, 'tsconfig.json'))) return dir;
  if (existsSync('tsconfig.json')) return process.cwd();
  throw new Error('the package root was not found: run from the checkout');
}
