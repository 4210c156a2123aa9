#!/usr/bin/env node
// Builds the addon that the package ships: native-bindings/prebuilds/<platform>-<arch>/tapnic.node,
// stripped, and byte for byte the same for the same sources and compiler. `npm pack` and `npm
// publish` run it (prepack); the output is not committed. It fails if the result needs newer
// libraries than the oldest supported Node does, because one binary serves Node 20, 22, 24 and 26.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The library versions that Node's own binaries for x64 need. */
const LIMITS = { GLIBC: '2.28', GLIBCXX: '3.4.25', CXXABI: '1.3.11' };

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const out = join(
  root,
  `native-bindings/prebuilds/${process.platform}-${process.arch}`,
  'tapnic.node',
);
execFileSync(
  process.execPath,
  [join(root, 'scripts/build-addon.mjs'), '--prebuilt', '--force'],
  // npm pack uses standard output.
  { stdio: ['ignore', 2, 2] },
);

const parts = (version) => version.split('.').map(Number);
function newer(a, b) {
  const [x, y] = [parts(a), parts(b)];
  for (let i = 0; i < Math.max(x.length, y.length); i++)
    if ((x[i] ?? 0) !== (y[i] ?? 0)) return (x[i] ?? 0) > (y[i] ?? 0);
  return false;
}

const symbols = execFileSync('readelf', ['--wide', '--dyn-syms', out], { encoding: 'utf8' });
const tooNew = [...symbols.matchAll(/\bUND +(\S+)@(GLIBC|GLIBCXX|CXXABI)_([\d.]+)/g)].filter(
  ([, , library, version]) => newer(version, LIMITS[library]),
);
if (tooNew.length > 0) {
  for (const [, symbol, library, version] of tooNew)
    process.stderr.write(`prebuild: ${symbol} needs ${library} ${version}: see glibc_compat.h\n`);
  process.exit(1);
}
const bytes = readFileSync(out);
const sha = createHash('sha256').update(bytes).digest('hex');
process.stderr.write(`prebuild: ${relative(root, out)}: ${bytes.length} bytes, sha256 ${sha}\n`);
