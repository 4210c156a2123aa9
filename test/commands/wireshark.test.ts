/** Wireshark's side of captures, with tshark in its place: extcap, dissector, profile, installation. */

import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain, packageRoot } from '../support/root.ts';
import { Site } from '../support/served.ts';

const FILE_BYTES = 200_000;

/** Runs `tapnic` in the environment `env`. */
function tapnic(env: NodeJS.ProcessEnv, ...args: string[]): Result {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [cliMain, ...args], {
    env,
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { status, signal, stdout, stderr };
}

describe('commands: Wireshark', function () {
  needs('root', 'tap', 'netns', 'curl', 'tshark');
  this.timeout(120_000);

  let home: string;
  let env: NodeJS.ProcessEnv;
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'tapnic-wireshark-'));
    env = { ...process.env, HOME: home };
    delete env['XDG_CONFIG_HOME'];
  });
  afterEach(() => rmSync(home, { recursive: true, force: true }));

  const install = (): string[] => {
    const { status, stdout, stderr } = tapnic(env, 'capture', '--install-wireshark');
    expect(status, stderr).to.equal(0);
    return stdout.split('\n').filter((line) => line.startsWith('/'));
  };

  describe('--install-wireshark', () => {
    it('prints where it puts what, and changes nothing when it runs again', () => {
      const lines = install();
      expect(lines.map((line) => line.replace(home, ''))).to.include.members([
        '/.local/lib/wireshark/plugins/tapnic.lua',
        '/.config/wireshark/profiles/tapnic/preferences',
        '/.config/wireshark/profiles/tapnic/colorfilters',
        '/.config/wireshark/profiles/tapnic/dfilter_buttons',
      ]);
      for (const file of lines) expect(existsSync(file), file).to.equal(true);
      expect(install()).to.deep.equal(lines.map((line) => `${line} (unchanged)`));
    });

    it('honours XDG_CONFIG_HOME', () => {
      env['XDG_CONFIG_HOME'] = join(home, 'xdg');
      expect(install()).to.include(join(home, 'xdg/wireshark/profiles/tapnic/preferences'));
    });

    it('replaces an older file of its own, not one of somebody else', () => {
      const lua = install().find((line) => line.endsWith('.lua'))!;
      const text = readFileSync(lua, 'utf8');
      writeFileSync(lua, `-- older\n${text}`);
      install();
      expect(readFileSync(lua, 'utf8')).to.equal(text);
      writeFileSync(lua, 'own work\n');
      const { status, stderr } = tapnic(env, 'capture', '--install-wireshark');
      expect(stderr).to.match(/^tapnic: .*tapnic\.lua: another program wrote .* move it away.*\n$/);
      expect(status).to.equal(1);
      expect(readFileSync(lua, 'utf8')).to.equal('own work\n');
    });

    it('a missing HOME, or one that cannot be written, is one line', () => {
      const { HOME: _, ...homeless } = env;
      const unset = tapnic(homeless, 'capture', '--install-wireshark');
      expect(unset).to.deep.include({ status: 1, stdout: '' });
      expect(unset.stderr).to.match(/^tapnic: HOME is not set: .*\n$/);
      writeFileSync(join(home, 'file'), '');
      const file = { ...env, HOME: join(home, 'file') };
      const not = tapnic(file, 'capture', '--install-wireshark');
      expect(not).to.deep.include({ status: 1, stdout: '' });
      expect(not.stderr).to.match(/^tapnic: \/.*: ENOTDIR: not a directory\n$/);
    });
  });

  describe('of a running instance', () => {
    let site: Site;
    let ns: Netns;
    let instance: Instance;
    beforeEach(async () => {
      site = new Site();
      site.file('a.bin', FILE_BYTES);
      ns = new Netns();
      const run = join(home, 'run');
      env['TAPNIC_RUNDIR'] = run;
      mkdirSync(run, { mode: 0o700 });
      // The path that the instance itself would choose with this TAPNIC_RUNDIR.
      const control = join(run, `${statSync(`/run/netns/${ns.name}`).ino}.nic0.sock`);
      instance = await Instance.start(ns, [
        'serve',
        site.dir,
        '--cap',
        '-nomap',
        '--control',
        control,
      ]);
    });
    afterEach(async () => {
      const { code, stderr } = await instance.stop();
      ns[Symbol.dispose]();
      site[Symbol.dispose]();
      expect(code, stderr).to.equal(0);
    });

    /** Downloads until `work` ends. */
    const during = async <T>(work: Promise<T>): Promise<T> => {
      const ended = Symbol('ended');
      const pause = (): Promise<undefined> =>
        new Promise((resolve) => setTimeout(resolve, 300, undefined));
      const over = work.then(() => ended);
      while ((await Promise.race([over, pause()])) !== ended)
        await instance.curl('-o', '/dev/null', instance.urlOf('a.bin'));
      return work;
    };

    /** Runs tshark outside the instance's namespace, and a download as soon as it captures. */
    const live = async (args: string[]): Promise<Result> => {
      using other = new Netns('ws');
      return await during(other.run('tshark', ['-n', ...args], { env, timeoutMs: 60_000 }));
    };

    it('tshark lists its points, captures from them and filters by the fields', async () => {
      install();
      const list = spawnSync('tshark', ['-D'], { env, encoding: 'utf8' });
      const places = ['sockbuf@tn0', 'ip@tn0', 'if@tn0', 'wire@tn0', 'all'];
      const names = places.map((place) => `tapnic-${ns.name}-nic0-${place}`);
      for (const name of [...names, 'tapnic']) expect(list.stdout).to.include(` ${name} (tapnic`);
      // Fields of one packet at the points that it passes.
      const fields = ['id', 'point', 'why.reason', 'mbuf.kind'].flatMap((f) => [
        '-e',
        `tapnic.${f}`,
      ]);
      const all = await live([
        '-i',
        names.at(-1)!,
        '-a',
        'packets:150',
        '-Y',
        'tapnic.why.what == "conversion"',
        '-T',
        'fields',
        ...fields,
      ]);
      expect(all.status, all.stderr).to.equal(0);
      expect(all.stdout).to.match(/^\d+\tif\tmbuf\.convert_no_ifcap_nomap\tint,(clust,)?sfbuf/m);
      expect(all.stdout).to.match(/^\d+\twire\tmbuf\.convert_no_ifcap_nomap/m);
      // A filter of Wireshark's own line, and one of the dialog.
      const key = `extcap.${names[3]!.replaceAll(/[^a-zA-Z0-9]/g, '_')}`.toLowerCase();
      const one = await live([
        '-i',
        names[3]!,
        '-f',
        'tcp',
        '-o',
        `${key}.filter:src host 192.0.2.2`,
        '-o',
        `${key}.snaplen:70`,
        '-a',
        'packets:20',
        '-T',
        'fields',
        '-e',
        'tapnic.point',
        '-e',
        'tapnic.dir',
        '-e',
        'ip.src',
        '-e',
        'frame.cap_len',
      ]);
      expect(one.status, one.stderr).to.equal(0);
      const lines = one.stdout.trim().split('\n');
      expect(lines).to.have.lengthOf(20);
      for (const line of lines) expect(line).to.match(/^wire\tout\t192\.0\.2\.2\t(6\d|70)$/);
    });

    it('extcap reports errors on stderr with its status, and filters on stdout', async () => {
      const script = install().find((line) => line.endsWith('tapnic-extcap'))!;
      const run = (...args: string[]): Promise<Result> => ns.run(script, args, { env });
      const place = 'tapnic-nic0-wire@tn0';
      expect(await run('--extcap-interface', place, '--extcap-dlts')).to.deep.include({
        status: 0,
        stdout: 'dlt {number=1}{name=EN10MB}{display=Ethernet}\n',
      });
      const config = await run('--extcap-interface=tapnic', '--extcap-config');
      for (const call of ['points', 'filter', 'snaplen', 'netns', 'tap', 'control'])
        expect(config.stdout).to.include(`{call=--${call}}`);
      const filter = ['--extcap-interface', place, '--extcap-capture-filter'];
      expect(await run(...filter, 'tcp port 80')).to.deep.include({ status: 0, stdout: '' });
      const bad = await run(...filter, 'tcp prt 80');
      expect(bad).to.deep.include({ status: 0, stderr: '' });
      expect(bad.stdout).to.match(/syntax error/);
      const fifo = join(home, 'fifo');
      const capture = ['--capture', '--fifo', fifo, '--extcap-interface'];
      const cases: [string[], number, RegExp][] = [
        [['tapnic-nic9-wire@tn0'], 1, /tapnic-nic9-wire@tn0: no such capture point/],
        [['tapnic', '--points', 'wire@tn7'], 1, /tn7: no such interface: there is tn0/],
        [['tapnic', '--points', 'nowhere'], 1, /nowhere: not a capture point/],
        [['tapnic', '--netns', 'none-such'], 1, /no network namespace none-such/],
        [['tapnic', '--control', '/none'], 1, /\/none: no instance listens there/],
        [[place, '--snaplen', '0'], 2, /snaplen: 0: a whole number from 1/],
        [[place, '--filter', 'prt'], 2, /syntax error/],
        [[place, '--fifo', join(home, 'no/fifo')], 1, /ENOENT/],
      ];
      for (const [args, status, text] of cases) {
        const result = await run(...capture, ...args);
        expect(result.stderr, args.join(' ')).to.match(text);
        expect(result.stderr.trimEnd().split('\n')).to.have.lengthOf(1);
        expect(result.status, args.join(' ')).to.equal(status);
      }
    });

    it('the profile adds columns and colours', async () => {
      install();
      const file = join(home, 'a.pcapng');
      const capture = ns.run(
        process.execPath,
        [cliMain, 'capture', 'ip,if,wire', '-c', '100', '-w', file, '--control', instance.control],
        { env },
      );
      expect((await during(capture)).status).to.equal(0);
      const tshark = (...args: string[]): Result => {
        const { status, signal, stdout, stderr } = spawnSync(
          'tshark',
          ['-n', '-C', 'tapnic', '-r', file, ...args],
          { env: { ...env, COLORTERM: 'truecolor' }, encoding: 'utf8' },
        );
        return { status, signal, stdout, stderr };
      };
      const rows = tshark();
      expect(rows.stdout).to.match(/ \d+ if out .*conversion mbuf\.convert_no_ifcap_nomap/);
      expect(rows.stderr).to.not.match(/tapnic|profile|table|colou?r|Lua/i);
      const rules = tshark('--color', '-T', 'fields', '-e', 'frame.coloring_rule.name').stdout;
      const names = new Set(rules.trim().split('\n'));
      for (const name of ['tapnic conversion', 'tapnic ip', 'tapnic wire'])
        expect(names).to.include(name);
    });
  });

  it('the extcap lists no instance that does not answer, and does not wait for it', () => {
    const script = install().find((line) => line.endsWith('tapnic-extcap'))!;
    env['TAPNIC_RUNDIR'] = join(home, 'none');
    const { stdout, status } = spawnSync(script, ['--extcap-interfaces', '--extcap-version=4.0'], {
      env,
      encoding: 'utf8',
    });
    expect(status).to.equal(0);
    expect(stdout.trim().split('\n')).to.have.lengthOf(2);
    expect(stdout).to.match(/^extcap \{version=.*\}\ninterface \{value=tapnic\}/);
  });

  it('is in the package', () => {
    const { bin, files } = JSON.parse(
      readFileSync(join(packageRoot(), 'package.json'), 'utf8'),
    ) as { bin: Record<string, string>; files: string[] };
    expect(files).to.include('wireshark');
    const program = join(packageRoot(), bin['tapnic-extcap']!);
    expect(execFileSync('head', ['-1', program], { encoding: 'utf8' })).to.equal(
      '#!/usr/bin/env node\n',
    );
  });
});
