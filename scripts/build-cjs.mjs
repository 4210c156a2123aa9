#!/usr/bin/env node
// Compiles what the package also offers as CommonJS, `tapnic/testing/matchers`, to dist/cjs.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.cjs.json'], {
  cwd: root,
  stdio: 'inherit',
});
writeFileSync(join(root, 'dist/cjs/package.json'), '{"type":"commonjs"}\n');
