#!/usr/bin/env node
// Builds the addon with g++ and the headers of the npm package node-api-headers: no node-gyp, no
// download. It is also the package's install script. It does nothing if the output is newer than
// the sources. In an installed package it also does nothing if the shipped prebuilt loads. --force
// always builds.
//
//   node scripts/build-addon.mjs [--debug] [--asan] [--ubsan] [--tsan] [--force]
//   node scripts/build-addon.mjs --prebuilt      (for scripts/prebuild.mjs)
//
// Output: build/tapnic.node; with variants build/<variant>[-<variant>]/tapnic.node; the prebuilt
// native-bindings/prebuilds/<platform>-<arch>/tapnic.node.
// Environment: CXX, CXXFLAGS (added last), NODE_API_INCLUDE.
import { execFile, execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const srcDir = join(root, 'native-bindings/src');
const known = ['--debug', '--asan', '--ubsan', '--tsan'];
const args = process.argv.slice(2);
const variants = known.filter((v) => args.includes(v)).map((v) => v.slice(2));
const force = args.includes('--force');
const prebuilding = args.includes('--prebuilt');
const unknown = args.filter((a) => ![...known, '--force', '--prebuilt'].includes(a));

function fail(message, status = 1) {
  process.stderr.write(`build-addon: ${message}\n`);
  process.exit(status);
}

if (unknown.length > 0)
  fail(`unknown option ${unknown[0]}; known: ${known.join(' ')} --force --prebuilt`, 2);
if (process.platform !== 'linux') fail('tapnic needs Linux');

const prebuiltDir = `native-bindings/prebuilds/${process.platform}-${process.arch}`;
const prebuilt = join(prebuiltDir, 'tapnic.node');
const outDir = join(root, prebuilding ? prebuiltDir : join('build', variants.join('-')));
const out = join(outDir, 'tapnic.node');
// Sorted, so that the prebuilt is byte for byte the same on every machine.
const files = readdirSync(srcDir)
  .sort()
  .map((f) => join(srcDir, f));
const sources = files.filter((f) => f.endsWith('.cpp'));
const newest = Math.max(
  ...[...files, fileURLToPath(import.meta.url)].map((f) => statSync(f).mtimeMs),
);
if (!force && existsSync(out) && statSync(out).mtimeMs > newest) process.exit(0);

/** Whether the shipped prebuilt loads on this system, which may have another C library. */
function prebuiltLoads() {
  try {
    createRequire(import.meta.url)(join(root, prebuilt));
    return true;
  } catch {
    return false;
  }
}
// Only a checkout has a tsconfig.json; its sources may be newer than the shipped prebuilt.
if (!force && !prebuilding && !existsSync(join(root, 'tsconfig.json')) && prebuiltLoads())
  process.exit(0);

const cxx = process.env.CXX ?? 'g++';
try {
  execFileSync(cxx, ['--version'], { stdio: 'ignore' });
} catch {
  if (force || prebuilding || variants.length > 0 || !prebuiltLoads()) {
    // As npm's install script: npm removes the package if this fails.
    const { npm_lifecycle_event: event, npm_command: command } = process.env;
    const again =
      event === 'install'
        ? `npm ${command ?? 'install'}`
        : ['node', relative(process.cwd(), fileURLToPath(import.meta.url)), ...args].join(' ');
    fail(
      `no ${cxx}, which builds tapnic's addon: install a C++ compiler (Debian: apt-get install ` +
        `g++), then run \`${again}\``,
    );
  }
  process.stdout.write(`build-addon: no ${cxx}, using ${prebuilt}\n`);
  process.exit(0);
}

function headersOfPackage() {
  try {
    return createRequire(import.meta.url)('node-api-headers').include_dir;
  } catch {
    return undefined;
  }
}
const include = [
  process.env.NODE_API_INCLUDE,
  headersOfPackage(),
  join(dirname(process.execPath), '../include/node'),
  '/usr/include/node',
].find((d) => d !== undefined && existsSync(join(d, 'node_api.h')));
if (include === undefined) fail('node_api.h not found: npm ci, or set NODE_API_INCLUDE');

const sanitize = {
  asan: ['-fsanitize=address', '-fno-omit-frame-pointer'],
  ubsan: ['-fsanitize=undefined', '-fno-sanitize-recover=all'],
  tsan: ['-fsanitize=thread'],
};
const flags = [
  '-std=c++20',
  '-fPIC',
  '-fvisibility=hidden',
  '-fno-exceptions',
  '-fno-rtti',
  '-pthread',
  '-Wall',
  '-Wextra',
  '-Werror',
  // The prebuilt contains no path of the build machine and needs no newer glibc than Node does.
  ...(prebuilding
    ? [`-ffile-prefix-map=${root}=.`, '-include', join(srcDir, 'glibc_compat.h')]
    : ['-g']),
  variants.length > 0 ? '-O1' : '-O2',
  ...(variants.includes('debug') ? ['-O0', '-D_GLIBCXX_ASSERTIONS'] : []),
  ...variants.flatMap((v) => sanitize[v] ?? []),
  ...(process.env.CXXFLAGS ?? '').split(' ').filter((f) => f !== ''),
];
const defines = ['-DNAPI_VERSION=9', '-DNODE_GYP_MODULE_NAME=tapnic', `-I${include}`];

// Build in a private folder and rename at the end, so that concurrent builds do not conflict.
mkdirSync(outDir, { recursive: true });
const tmp = mkdtempSync(join(outDir, '.build-'));
const run = promisify(execFile);
const started = Date.now();
let status = 0;
try {
  const queue = [...sources];
  const objects = sources.map((s) => join(tmp, `${basename(s)}.o`));
  const worker = async () => {
    for (let s = queue.shift(); s !== undefined; s = queue.shift())
      await run(cxx, [...flags, ...defines, '-c', s, '-o', join(tmp, `${basename(s)}.o`)]);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  const own = ['-static-libgcc', '-static-libstdc++', '-Wl,--strip-debug'];
  // The prebuilt uses the C++ library that Node has loaded.
  const shipped = ['-static-libgcc', '-Wl,--as-needed,--strip-all,--build-id=none'];
  const link = prebuilding ? shipped : variants.length > 0 ? [] : own;
  const made = join(tmp, 'tapnic.node');
  await run(cxx, ['-shared', ...flags, ...link, ...objects, '-o', made]);
  utimesSync(made, started / 1000, started / 1000); // a source saved meanwhile is newer
  renameSync(made, out);
} catch (e) {
  process.stderr.write(String(e.stderr ?? e));
  status = 1;
} finally {
  rmSync(tmp, { recursive: true, force: true });
}
if (status !== 0) fail('the addon did not compile');
const seconds = ((Date.now() - started) / 1000).toFixed(1);
process.stdout.write(`build-addon: ${relative(root, out)} (${seconds} s)\n`);
