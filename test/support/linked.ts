/** The package as an installed one, without an installation. */

import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { distRoot, packageRoot } from './root.ts';

/**
 * Lets programs in `dir` import 'tapnic', compiled for this run. `others` are names of packages that they import as
 * well.
 */
export function linkPackage(dir: string, ...others: string[]): void {
  const modules = join(dir, 'node_modules');
  const tapnic = join(modules, 'tapnic');
  mkdirSync(tapnic, { recursive: true });
  for (const name of ['package.json', 'build', 'commonjs', 'node_modules'])
    symlinkSync(join(packageRoot(), name), join(tapnic, name));
  symlinkSync(distRoot, join(tapnic, 'dist'));
  for (const name of others)
    symlinkSync(join(packageRoot(), 'node_modules', name), join(modules, name));
}
