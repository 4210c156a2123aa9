#!/usr/bin/env node
// Builds the shared object that packetdrill loads and the commands that its scripts call. No other
// build runs this script.
//
//   node scripts/build-packetdrill.mjs [--force]
//
// Output: build/packetdrill/tapnic_packetdrill.so and
// build/packetdrill/bin/{sysctl,sockstat,tcpdrop,ifconfig}. Environment: CC, CFLAGS (added last).
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const src = join(root, 'native-bindings/packetdrill');
const SHIMS = ['sysctl', 'sockstat', 'tcpdrop', 'ifconfig'];

function fail(message, status = 1) {
  process.stderr.write(`build-packetdrill: ${message}\n`);
  process.exit(status);
}

const args = process.argv.slice(2);
const unknown = args.filter((arg) => arg !== '--force');
if (unknown.length > 0) fail(`unknown option ${unknown[0]}; known: --force`, 2);
if (process.platform !== 'linux') fail('tapnic needs Linux');
const out = join(root, 'build/packetdrill');
const object = join(out, 'tapnic_packetdrill.so');
const bin = join(out, 'bin');

const files = readdirSync(src).map((name) => join(src, name));
const newest = Math.max(
  ...[...files, fileURLToPath(import.meta.url)].map((f) => statSync(f).mtimeMs),
);
const made = [object, ...SHIMS.map((name) => join(bin, name))];
if (!args.includes('--force') && made.every((f) => existsSync(f) && statSync(f).mtimeMs > newest))
  process.exit(0);

const cc = process.env.CC ?? 'cc';
try {
  execFileSync(cc, ['--version'], { stdio: 'ignore' });
} catch {
  fail(`no ${cc}: install a C compiler (Debian: apt-get install gcc), then run this again`);
}
const flags = [
  '-std=gnu11',
  '-O2',
  '-g',
  '-pthread',
  '-fvisibility=hidden',
  '-Wall',
  '-Wextra',
  '-Werror',
  ...(process.env.CFLAGS ?? '').split(' ').filter((f) => f !== ''),
];

// Build in a private folder and rename at the end, so that concurrent builds do not conflict.
mkdirSync(bin, { recursive: true });
const tmp = mkdtempSync(join(out, '.build-'));
try {
  const sources = (...names) => names.map((name) => join(src, name));
  const run = (...more) => execFileSync(cc, [...flags, ...more], { stdio: ['ignore', 1, 2] });
  run('-shared', '-fPIC', ...sources('adapter.c', 'link.c'), '-ldl', '-o', join(tmp, 'so'));
  run(...sources('shim.c', 'link.c'), '-o', join(tmp, 'shim'));
  for (const name of SHIMS) {
    linkSync(join(tmp, 'shim'), join(tmp, name));
    renameSync(join(tmp, name), join(bin, name));
  }
  renameSync(join(tmp, 'so'), object);
} catch {
  fail('the shared object or a command did not compile');
} finally {
  rmSync(tmp, { recursive: true, force: true });
}
process.stdout.write(`build-packetdrill: ${relative(root, object)}, ${relative(root, bin)}\n`);
