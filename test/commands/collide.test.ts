/**
 * An instance on a shared machine: other instances, interfaces and namespaces in use, a full or a
 * slow disk, an interface that is deleted, and signals at any time.
 */

import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Exit, Instance } from '../support/instance.ts';
import { full, needs, needsHere } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { seededBytes, sha256, sha256File, Site } from '../support/served.ts';
import { SlowDir } from '../support/slowfs.ts';
import { tsharkFields } from '../support/tshark.ts';

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });
const links = (ns: Netns): string => ns.exec('ip', ['-br', 'link']);
const prefix = process.env['TAPNIC_NETNS_PREFIX'] ?? 'tn';
const CLEAN = { code: 0, signal: null, leaked: {} };
/** The two seconds that the contract allows for a stop, and slack for a loaded machine. */
const STOP_MS = 2000;
const SLACK_MS = 700;

/** User and system time of a process, in milliseconds. */
function cpuMs(pid: number): number {
  // proc(5): fields 14 and 15, counted from the end of the name, which may contain spaces. A tick
  // is 10 ms.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

/** Expects that the process uses less than a tenth of a core for a second. */
async function expectNoSpin(pid: number): Promise<void> {
  const before = cpuMs(pid);
  await sleep(1000);
  expect(cpuMs(pid) - before, 'CPU milliseconds in a second of idling').to.be.below(100);
}

/** An instance started from this process's own namespaces, for --netns. */
class Outside {
  readonly child: ChildProcess;
  readonly exit: Promise<{ code: number | null; lines: string[]; stderr: string }>;
  readonly #lines: string[] = [];
  #stderr = '';

  constructor(rundir: string, args: string[]) {
    this.child = spawn(process.execPath, [cliMain, ...args, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TAPNIC_RUNDIR: rundir },
    });
    let text = '';
    this.child.stdout!.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const lines = text.split('\n');
      text = lines.pop()!;
      this.#lines.push(...lines);
    });
    this.child.stderr!.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.exit = once(this.child, 'close').then(([code]) => ({
      code: code as number | null,
      lines: this.#lines,
      stderr: this.#stderr,
    }));
  }

  async ready(): Promise<{ control: string }> {
    for (let i = 0; i < 200 && this.#lines.length === 0; i++) await sleep(50);
    if (this.#lines.length === 0) throw new Error(`not ready: ${this.#stderr}`);
    return JSON.parse(this.#lines[0]!) as { control: string };
  }

  async stop(): Promise<void> {
    this.child.kill('SIGTERM');
    const { code, lines, stderr } = await this.exit;
    expect(code, stderr).to.equal(0);
    expect(lines.at(-1)).to.equal('{"event":"exit","leaked":{}}');
  }
}

describe('commands: collisions', function () {
  needs('root', 'tap', 'netns', 'curl', 'tshark', 'unshare', 'setpriv');
  this.timeout(60_000);

  let dir: string;
  let site: Site;
  let sum: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-collide-'));
    site = new Site();
    sum = sha256(site.file('big.bin', 20_000_000));
    site.file('a.bin', 1000);
  });
  after(() => {
    site[Symbol.dispose]();
    rmSync(dir, { recursive: true, force: true });
  });

  const named = (tag: string): string => `${prefix}-${process.pid}-${tag}`;
  const netnsList = (): string[] =>
    ip('netns', 'list')
      .split('\n')
      .map((line) => line.split(' ')[0]!);
  const command = (rundir: string, ...args: string[]): Result => {
    try {
      const env = { ...process.env, TAPNIC_RUNDIR: rundir };
      const options = { encoding: 'utf8', env, stdio: 'pipe', timeout: 20_000 } as const;
      const stdout = execFileSync(process.execPath, [cliMain, ...args], options);
      return { status: 0, signal: null, stdout, stderr: '' };
    } catch (e) {
      return e as Result;
    }
  };

  describe('with other instances', () => {
    it('two with the same interface name in two namespaces are separate', async () => {
      const rundir = join(dir, 'two');
      const names = [named('one'), named('two')];
      const both = names.map((ns) => new Outside(rundir, ['serve', site.dir, '--netns', ns]));
      try {
        for (const one of both) await one.ready();
        const fetched = await Promise.all(
          names.map(async (ns) => {
            const out = join(dir, `${ns}.bin`);
            const url = 'http://192.0.2.2/big.bin';
            const child = spawn('ip', ['netns', 'exec', ns, 'curl', '-sS', '-o', out, url]);
            await once(child, 'close');
            return sha256File(out);
          }),
        );
        expect(fetched).to.deep.equal([sum, sum]);
        expect(command(rundir, 'netstat', '-m', '--netns', names[0]!).status).to.equal(0);
        const unclear = command(rundir, 'netstat', '-m');
        expect(unclear.status).to.equal(1);
        expect(unclear.stderr).to.match(/no running instance in this network namespace/);
        for (const ns of names) expect(unclear.stderr).to.include(`--netns ${ns} (`);
        // A third instance with the same interface in the same namespace.
        const third = new Outside(rundir, ['serve', site.dir, '--netns', names[0]!]);
        const end = await third.exit;
        expect(end).to.deep.include({ code: 1, lines: [] });
        expect(end.stderr).to.match(/EADDRINUSE: an instance is running there/);
      } finally {
        for (const one of both) await one.stop();
      }
      expect(netnsList()).not.to.include.members(names);
      expect(readdirSync(rundir)).to.deep.equal([]);
    });

    it('keeps the namespace it created while a later instance uses it', async () => {
      const rundir = join(dir, 'later');
      const name = named('shared');
      const first = new Outside(rundir, ['serve', site.dir, '--netns', name]);
      await first.ready();
      const second = new Outside(
        rundir,
        `serve ${site.dir} --netns ${name} --tap nic1 --host-addr 198.51.100.1/24 --host-addr6 none --addr 198.51.100.2/24`.split(
          ' ',
        ),
      );
      try {
        await second.ready();
        await first.stop();
        expect(netnsList()).to.include(name);
        const got = ip(
          'netns',
          'exec',
          name,
          'curl',
          '-sS',
          '-w',
          '%{size_download}',
          '-o',
          '/dev/null',
          'http://198.51.100.2/a.bin',
        );
        expect(got).to.equal('1000');
      } finally {
        await second.stop();
        // The second instance did not create the namespace, so it does not remove it.
        ip('netns', 'delete', name);
      }
    });

    it('keeps the namespace it created while a program runs inside', async () => {
      const rundir = join(dir, 'inside');
      const name = named('inside');
      const one = new Outside(rundir, ['serve', site.dir, '--netns', name]);
      await one.ready();
      const guest = spawn('ip', ['netns', 'exec', name, 'sleep', '60'], { stdio: 'ignore' });
      try {
        await sleep(200);
        await one.stop();
        expect(netnsList()).to.include(name);
      } finally {
        guest.kill('SIGKILL');
        await once(guest, 'close');
        ip('netns', 'delete', name);
      }
    });
  });

  describe('with interfaces', () => {
    it('attaches a persistent interface that is down, leaves it down, and works when it comes up', async () => {
      using ns = new Netns();
      ns.exec('ip', ['tuntap', 'add', 'dev', 'keep0', 'mode', 'tap']);
      ns.exec('ip', ['addr', 'add', '203.0.113.1/24', 'dev', 'keep0']);
      const args = ['serve', site.dir, '--tap', 'keep0', '--addr', '203.0.113.2/24'];
      const one = await Instance.start(ns, [...args, '--host-addr', '198.51.100.1/24']);
      expect(one.ready.created).to.equal(false);
      const state = (): string => ns.exec('ip', ['-br', 'addr', 'show', 'keep0']).trim();
      expect(state(), 'link and addresses unchanged').to.match(/^keep0 +DOWN +203\.0\.113\.1\/24$/);
      ns.exec('ip', ['link', 'set', 'keep0', 'up']);
      const got = await one.curl('-w', '%{size_download}', '-o', '/dev/null', one.urlOf('a.bin'));
      expect(got.stdout, got.stderr).to.equal('1000');
      one.kill('SIGKILL');
      await one.exited();
      expect(state(), 'after SIGKILL').to.match(/^keep0 +(DOWN|UP|UNKNOWN) +203\.0\.113\.1\/24/);
      const again = await Instance.start(ns, args);
      expect(await again.stop()).to.deep.include(CLEAN);
      expect(state()).to.include('203.0.113.1/24');
    });

    it('runs without IPv6 where it is disabled, and warns', async () => {
      using ns = new Netns();
      for (const which of ['all', 'default'])
        ns.exec('sysctl', ['-qw', `net.ipv6.conf.${which}.disable_ipv6=1`]);
      const one = await Instance.start(ns, ['serve', site.dir]);
      expect(one.ready.addr6).to.equal(null);
      expect(ns.exec('ip', ['-6', 'addr'])).to.equal('');
      const got = await one.curl('-w', '%{size_download}', '-o', '/dev/null', one.urlOf('a.bin'));
      expect(got.stdout).to.equal('1000');
      const end = await one.stop();
      expect(end).to.deep.include(CLEAN);
      expect(end.stderr).to.match(/IPv6 is disabled on nic0/);
    });

    for (const engine of full ? ['native', 'ts'] : ['native'])
      it(`ends with an error when its interface is deleted during 5 downloads (${engine})`, async () => {
        using ns = new Netns();
        const one = await Instance.start(ns, ['serve', site.dir, '--engine', engine]);
        const curls = Array.from({ length: 5 }, () =>
          one.curl(
            '--limit-rate',
            '1M',
            '--max-time',
            '4',
            '-o',
            '/dev/null',
            one.urlOf('big.bin'),
          ),
        );
        await sleep(700);
        const begin = performance.now();
        ns.exec('ip', ['link', 'delete', 'nic0']);
        const end = await one.exited();
        expect(performance.now() - begin).to.be.below(STOP_MS + SLACK_MS);
        expect(end, end.stderr).to.deep.include({ code: 1, leaked: {} });
        expect(end.stderr).to.match(/nic0: the interface is gone: it was deleted/);
        expect(existsSync(one.control)).to.equal(false);
        for (const { status } of await Promise.all(curls)) expect(status).not.to.equal(0);
      });

    for (const engine of full ? ['native', 'ts'] : ['native'])
      it(`recovers when its interface is set down and up during a download (${engine})`, async () => {
        using ns = new Netns();
        const out = join(dir, 'down.bin');
        const one = await Instance.start(ns, ['serve', site.dir, '--engine', engine]);
        const curl = one.curl('--limit-rate', '8M', '-o', out, one.urlOf('big.bin'));
        await sleep(700);
        ns.exec('ip', ['link', 'set', 'nic0', 'down']);
        await sleep(100);
        await expectNoSpin(one.pid);
        // With the link Linux has removed the route of the address, but not the address.
        ns.exec('ip', ['link', 'set', 'nic0', 'up']);
        const { status, stderr } = await curl;
        expect(status, stderr).to.equal(0);
        expect(await sha256File(out)).to.equal(sum);
        const end = await one.stop();
        expect(end).to.deep.include(CLEAN);
        expect(end.stderr).to.match(
          /tn0: link state changed to DOWN[^]*tn0: link state changed to UP/,
        );
      });
  });

  describe('with the device and the control socket', () => {
    /**
     * Runs `serve` after the command prefix `wrap`, expects it to fail, and returns its message.
     */
    async function complaint(wrap: string[], ...args: string[]): Promise<string> {
      using ns = new Netns();
      const all = [...wrap, process.execPath, cliMain, 'serve', site.dir, '--json', ...args];
      const run = await ns.run(all[0]!, all.slice(1));
      expect(run, run.stderr).to.include({ status: 1, stdout: '' });
      expect(run.stderr).to.match(/^tapnic: [^\n]+\n$/);
      return run.stderr;
    }
    const inMounts = (script: string): string[] => [
      'unshare',
      '-m',
      'sh',
      '-c',
      `${script} && exec "$@"`,
      'sh',
    ];

    it('prints one line when the device cannot be opened or is not a TUN device', async () => {
      const own = (node: string): string =>
        `mount -t tmpfs none /dev/net && ${node} && chmod 000 /dev/net/tun`;
      const weak = ['setpriv', '--bounding-set', '-dac_override', '--inh-caps', '-dac_override'];
      const control = ['--control', join(dir, 'x.sock')];
      expect(
        await complaint([...inMounts(own('mknod /dev/net/tun c 10 200')), ...weak], ...control),
      ).to.match(/\/dev\/net\/tun: EACCES: /);
      expect(await complaint(inMounts(own('mknod /dev/net/tun c 1 3')), ...control)).to.match(
        /TUNSETIFF nic0: (ENOTTY|EINVAL|EBADFD)/,
      );
    });

    it('prints one line when there is no place for its control socket', async () => {
      const ro = `mount -t tmpfs -o ro none ${dir}/ro`;
      mkdirSync(join(dir, 'ro'));
      const wrap = inMounts(ro);
      expect(await complaint(wrap, '--control', join(dir, 'ro', 'c.sock'))).to.match(
        /c\.sock: EROFS: choose another place by --control$/m,
      );
      expect(await complaint([], '--control', join(dir, 'nowhere', 'c.sock'))).to.match(
        /c\.sock: ENOENT: no such directory: choose another place by --control$/m,
      );
      const env = ['env', `TAPNIC_RUNDIR=${join(dir, 'ro')}`];
      expect(await complaint([...wrap, ...env])).to.match(
        /no place for a control socket: .*--control$/m,
      );
    });

    it('replaces a stale socket, and refuses to replace a file', async () => {
      using ns = new Netns();
      const path = join(dir, 'stale.sock');
      const script = `const s = require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
      await ns.run(process.execPath, ['-e', script]);
      expect(existsSync(path), 'stale').to.equal(true);
      const one = await Instance.start(ns, ['serve', site.dir, '--control', path]);
      expect((await one.command('netstat', '-m')).status).to.equal(0);
      expect(await one.stop()).to.deep.include(CLEAN);
      writeFileSync(path, 'mine');
      expect(await complaint([], '--control', path)).to.match(
        /EADDRINUSE: a file of that name is there$/m,
      );
      expect(readFileSync(path, 'utf8')).to.equal('mine');
    });
  });

  describe('with disks', () => {
    it('continues to serve when its capture fills the disk, and the capture stays readable', async () => {
      using ns = new Netns();
      const small = join(dir, 'small');
      mkdirSync(small);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'none', small]);
      try {
        const file = join(small, 'wire.pcap');
        const out = join(dir, 'full.bin');
        const one = await Instance.start(ns, ['serve', site.dir, '--capture', `wire=${file}`]);
        const got = await one.curl('-o', out, one.urlOf('big.bin'));
        expect(got.status, got.stderr).to.equal(0);
        expect(await sha256File(out)).to.equal(sum);
        const end = await one.stop();
        expect(end, end.stderr).to.deep.include({ ...CLEAN, code: 1 });
        expect(end.stderr).to.match(/capture: write \S+wire\.pcap: ENOSPC/);
        // tshark fails for a file that was cut in the middle of a packet.
        const frames = await tsharkFields(file, ['frame.number']);
        expect(frames.length).to.be.above(500);
      } finally {
        execFileSync('umount', ['--lazy', small]);
      }
    });

    it('stops in time while it waits for the disk, and reports what the pending reads hold', async function () {
      needsHere(this, '/dev/fuse');
      await using slow = await SlowDir.mount(seededBytes(500_000, 1));
      for (const [delayMs, want] of [
        [300, CLEAN],
        [30_000, { code: 1, signal: null }],
      ] as const) {
        using ns = new Netns();
        const one = await Instance.start(ns, ['serve', slow.dir]);
        slow.delayMs = 0;
        const warm = await one.curl('-r', '0-99', '-o', '/dev/null', one.urlOf('slow.bin'));
        expect(warm.status, warm.stderr).to.equal(0);
        slow.delayMs = delayMs;
        const curl = one.curl(
          '--max-time',
          '5',
          '-o',
          '/dev/null',
          '-w',
          '%{size_download}',
          '-r',
          '200000-',
          one.urlOf('slow.bin'),
        );
        for (let i = 0; i < 100 && slow.pending === 0; i++) await sleep(20);
        expect(slow.pending, 'pending reads').to.be.above(0);
        if (delayMs > 1000) await expectNoSpin(one.pid);
        const begin = performance.now();
        one.kill('SIGTERM');
        const end: Exit = await one.exited();
        expect(performance.now() - begin).to.be.below(STOP_MS + SLACK_MS);
        expect(end, end.stderr).to.deep.include(want);
        if (end.code === 1) expect(end.leaked).to.have.any.keys('sendfile_ios', 'wired_file_pages');
        // Reads of 300 ms can end in the second that connections have. Then the file is complete.
        const { status, stdout } = await curl;
        if (delayMs > 1000) expect(status).not.to.equal(0);
        if (status === 0) expect(stdout).to.equal('300000');
        expect(links(ns)).not.to.include('nic0');
        expect(existsSync(one.control)).to.equal(false);
      }
    });
  });

  describe('with signals', () => {
    const serve = (ns: Netns, control: string): ChildProcess =>
      ns.spawn(process.execPath, [cliMain, 'serve', site.dir, '--json', '--control', control], {
        stdio: ['ignore', 'pipe', 'ignore'],
      });

    const delays = full
      ? Array.from({ length: 40 }, (_, i) => i * 20)
      : [0, 120, 240, 360, 480, 600];
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGKILL'] as const)
      it(`leaves nothing behind after ${signal} at any time of its start`, async () => {
        using ns = new Netns();
        const control = join(dir, `early-${signal}.sock`);
        const one = async (ms: number, i: number): Promise<void> => {
          // In CI each signal takes every third delay. The three signals together cover all delays.
          if (!full && i % 3 !== ['SIGTERM', 'SIGINT', 'SIGKILL'].indexOf(signal)) return;
          const child = serve(ns, control);
          const closed = once(child, 'close');
          await sleep(ms);
          child.kill(signal);
          const [code, how] = (await closed) as [number | null, string | null];
          if (signal === 'SIGKILL') expect(how).to.equal(signal);
          // Before the process runs JavaScript, the signal has its default action.
          else if (how !== signal) expect(code, `after ${ms} ms`).to.equal(0);
          expect(links(ns), `after ${ms} ms`).not.to.include('nic0');
          if (signal !== 'SIGKILL') expect(existsSync(control)).to.equal(false);
        };
        for (const [i, ms] of delays.entries()) await one(ms, i);
        const after = await Instance.start(ns, ['serve', site.dir, '--control', control]);
        expect(await after.stop()).to.deep.include(CLEAN);
      });

    it('can be started again after SIGKILL during 50 downloads', async () => {
      using ns = new Netns();
      const args = ['serve', site.dir, '--control', join(dir, 'killed.sock')];
      const one = await Instance.start(ns, args);
      const curls = Array.from({ length: 50 }, () =>
        one.curl(
          '--limit-rate',
          '500K',
          '--max-time',
          '3',
          '-o',
          '/dev/null',
          one.urlOf('big.bin'),
        ),
      );
      await sleep(1000);
      one.kill('SIGKILL');
      await one.exited();
      expect(links(ns)).not.to.include('nic0');
      const next = await Instance.start(ns, args);
      const got = await next.curl('-w', '%{size_download}', '-o', '/dev/null', next.urlOf('a.bin'));
      expect(got.stdout, got.stderr).to.equal('1000');
      for (const { status } of await Promise.all(curls)) expect(status).not.to.equal(0);
      expect(await next.stop()).to.deep.include(CLEAN);
    });
  });
});
