/** The compiled `tapnic` as a child process, where it needs no privilege. */

import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Check } from '../../src/cli/checks.ts';
import type { NicModelInfo } from '../../src/machine/nic_model.ts';
import { cliMain, packageRoot } from '../support/root.ts';

interface Run {
  status: number | null;
  stdout: string;
  stderr: string;
}

describe('cli: tapnic', function () {
  // Each test starts node up to thirty times.
  this.timeout(120_000);
  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-main-'))));
  after(() => rmSync(dir, { recursive: true }));

  /** Runs the command line with its own run directory, which has no instance. */
  function tapnic(...args: string[]): Run {
    const { status, stdout, stderr } = spawnSync(process.execPath, [cliMain, ...args], {
      encoding: 'utf8',
      timeout: 15_000,
      env: { ...process.env, TAPNIC_RUNDIR: join(dir, 'run') },
    });
    return { status, stdout, stderr };
  }

  /** Runs it, expects `status` and only one line of output, on stderr, and returns that line. */
  function complaint(status: number, ...args: string[]): string {
    const run = tapnic(...args);
    expect(run, args.join(' ')).to.include({ status, stdout: '' });
    expect(run.stderr, args.join(' ')).to.match(/^tapnic: [^\n]+\n$/);
    return run.stderr.slice('tapnic: '.length, -1);
  }

  it('prints its version, and help on stdout', () => {
    const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8'));
    expect(tapnic('--version')).to.deep.equal({ status: 0, stdout: `${version}\n`, stderr: '' });
    const help = tapnic('--help');
    expect(help).to.include({ status: 0, stderr: '' });
    for (const command of ['serve', 'ifconfig', 'netstat', 'sysctl', 'arp', 'nics', 'doctor'])
      expect(help.stdout).to.match(new RegExp(`^  ${command}\\b`, 'm'));
    const serve = tapnic('serve', '--help');
    expect(serve).to.include({ status: 0, stderr: '' });
    expect(serve.stdout).to.include('--host-addr6 <cidr>');
  });

  it('ends with 2 and one line for wrong usage', () => {
    expect(complaint(2, 'nonesuch')).to.equal(
      "unknown command 'nonesuch': `tapnic --help` lists them",
    );
    expect(complaint(2, 'serv', '.')).to.match(/Did you mean serve\?/);
    expect(complaint(2, 'serve')).to.match(/missing required argument 'dir'/);
    expect(complaint(2, 'serve', dir, dir)).to.match(/too many arguments/);
    expect(complaint(2, 'serve', dir, '--bogus')).to.match(/unknown option '--bogus'/);
    expect(complaint(2, 'serve', dir, '--mtu')).to.match(/argument missing/);
    expect(complaint(2, 'netstat', '-m', '-s')).to.match(/one of -m, -i, -s/);
    expect(complaint(2, 'netstat', '-z')).to.match(/unknown option '-z'/);
    expect(complaint(2, 'ifconfig', '-q')).to.match(/unknown option -q/);
    expect(complaint(2, 'sysctl')).to.match(/-a, or names/);
    expect(complaint(2, 'arp')).to.match(/use arp .*-a \| HOST/);
    expect(complaint(2, 'ping', '192.0.2.256')).to.match(/an IP address is needed/);
    expect(complaint(2, 'inetd', '--services', 'echo,finger')).to.match(
      /^--services: finger: one of echo, discard, daytime, chargen$/,
    );
    expect(complaint(2, 'fault', 'add', 'melt')).to.match(/^fault add: melt: no kind of fault/);
    expect(complaint(2, 'fault', 'add', 'drop', '--rate', '2')).to.match(/rate: 2: not a number/);
    const bare = tapnic();
    expect(bare).to.include({ status: 2, stdout: '' });
    expect(bare.stderr).to.match(/^Usage: tapnic/);
  });

  it('ends with 1 and one line when standard output is full', () => {
    const full = openSync('/dev/full', 'w');
    try {
      for (const stderr of ['pipe', full] as const) {
        const run = spawnSync(process.execPath, [cliMain, 'nics'], {
          encoding: 'utf8',
          timeout: 15_000,
          stdio: ['ignore', full, stderr],
        });
        expect(run.status).to.equal(1);
        if (stderr === 'pipe')
          expect(run.stderr).to.equal('tapnic: output: ENOSPC: no space left on device, write\n');
      }
    } finally {
      closeSync(full);
    }
  });

  it('ends with 2 and one line for bad NIC options', () => {
    expect(complaint(2, 'serve', dir, '--addr', '192.0.2.2/40')).to.match(
      /^--addr: 192\.0\.2\.2\/40/,
    );
    expect(complaint(2, 'serve', dir, '--cap=-nonesuch')).to.match(
      /^--cap: -nonesuch: not a capab/,
    );
    expect(complaint(2, 'serve', dir, '--cap', '-wol')).to.match(/^--cap: -wol: tn lacks it/);
    expect(complaint(2, 'serve', dir, '--engine', 'rust')).to.match(/one of native, ts$/);
    expect(complaint(2, 'serve', dir, '--napi', 'poll')).to.match(/one of off, thread$/);
    expect(complaint(2, 'serve', dir, '--driver', 'pcap')).to.match(/one of native, tuntap2$/);
    expect(complaint(2, 'serve', dir, '--capture', 'tap=x.pcap')).to.match(
      /one of sockbuf, ip, if, ring, wire$/,
    );
    expect(complaint(2, 'serve', dir, '--capture', 'if=x.txt')).to.match(
      /x\.txt: not the name of a capture/,
    );
    expect(complaint(2, 'serve', dir, '--port', '0')).to.match(/^--port: 0: a whole number/);
    expect(complaint(2, 'serve', dir, '--port', '65536')).to.match(/^--port: 65536/);
    const config = join(dir, 'c.yaml');
    writeFileSync(config, 'mtu: 1500\nbogus: 1\n');
    expect(complaint(2, 'serve', dir, '--config', config)).to.equal(
      `${config}:2:1: unknown key "bogus"`,
    );
    // An error in a command's own option names its place in the file.
    writeFileSync(config, 'mtu: 1500\nport: 99999\n');
    expect(complaint(2, 'serve', dir, '--config', config)).to.match(/c\.yaml:2:7: 99999: a whole/);
    expect(complaint(2, 'serve', dir, '--config', join(dir, 'none'))).to.match(
      /none: ENOENT: no such file or directory$/,
    );
    expect(complaint(2, 'serve', dir, '--config', dir)).to.match(/EISDIR: illegal operation on a/);
  });

  it('ends with 1 and one line for a directory that cannot be served', () => {
    expect(complaint(1, 'serve', join(dir, 'none'))).to.match(/none: ENOENT: give a directory/);
    const file = join(dir, 'file');
    writeFileSync(file, '');
    expect(complaint(1, 'serve', file)).to.match(/ENOTDIR: not a directory/);
  });

  it('ends with 1 when no instance runs', () => {
    for (const args of [['netstat', '-an'], ['ifconfig'], ['sysctl', '-a'], ['arp', '-a']])
      expect(complaint(1, ...args)).to.match(/^no running instance: start one/);
    expect(complaint(1, 'netstat', '-m', '--control', join(dir, 'x.sock'))).to.match(
      /no instance listens there$/,
    );
    expect(complaint(1, 'netstat', '-m', '--tap', 'em1')).to.match(/^no running instance em1 /);
    // A name that looks like a port is a path too; net.connect would take it as a port.
    expect(complaint(1, 'netstat', '-m', '--control', '9')).to.equal(
      '9: no instance listens there',
    );
  });

  it('ends with 1 and one line if no directory is usable for the control socket', () => {
    const nowhere = join(dir, 'none', 'x.sock');
    expect(complaint(1, 'serve', dir, '--control', nowhere)).to.equal(
      `control socket ${nowhere}: ENOENT: no such directory: choose another place by --control`,
    );
    expect(complaint(1, 'packetdrill', '--socket', nowhere)).to.equal(
      `${nowhere}: ENOENT: no such directory: choose another --socket`,
    );
  });

  it('lists the models', () => {
    const { status, stdout } = tapnic('nics', '--json');
    expect(status).to.equal(0);
    const models: NicModelInfo[] = JSON.parse(stdout);
    const tn = models.find(({ name }) => name === 'tn');
    expect(tn?.capabilities).to.include.members(['txcsum', 'rxcsum', 'tso4', 'nomap']);
    expect(tn).to.deep.include({ ifname: 'tn' });
    expect(tn?.pci).to.include({ vendor: 0x544e, device: 1, class: 0x020000 });
    expect(tapnic('nics').stdout)
      .to.match(/^tn\b.*\n.*\bnomap\b/m)
      .and.match(/^\tinterface: tn0 {2}pci: class=0x020000 rev=0x01 vendor=0x544e device=0x0001 /m);
  });

  it('checks the machine, with a remedy for each failure', () => {
    const { status, stdout, stderr } = tapnic('doctor', '--json');
    const checks: Check[] = JSON.parse(stdout);
    expect(stderr).to.equal('');
    expect(checks.map(({ name }) => name)).to.include.members(['addon', 'device node', 'IPv6']);
    for (const { name, ok, detail, remedy } of checks) {
      expect(detail, name).not.to.equal('');
      expect(remedy === '', name).to.equal(ok);
    }
    const failed = checks.some(({ ok, required }) => required && !ok);
    expect(status).to.equal(failed ? 1 : 0);
    const text = tapnic('doctor').stdout;
    expect(text.match(/^(ok  |warn|FAIL)  /gm)).to.have.lengthOf(checks.length);
  });
});
