/**
 * The command line against running instances: the ready event, output of clients, refused
 * arguments.
 */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect } from 'chai';
import type { Check } from '../../src/cli/checks.ts';
import type { ArpLine } from '../../src/ctl/arp.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import type { SocketLine } from '../../src/ctl/netstat_an.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import type { SysctlLeaf } from '../../src/ctl/sysctl.ts';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { Site, withServed } from '../support/served.ts';

const FILE_BYTES = 300_000;

/** Expects exit status `status`, nothing on stdout and one line on stderr; returns that line. */
function complaint(run: Result, status: number): string {
  expect(run, run.stderr).to.include({ status, stdout: '' });
  expect(run.stderr).to.match(/^tapnic: [^\n]+\n$/);
  return run.stderr.slice('tapnic: '.length, -1);
}

/** ifconfig after a download of FILE_BYTES. */
async function expectIfconfig(tapnic: Instance): Promise<void> {
  const all = await tapnic.command('ifconfig');
  expect(all.stdout).to.match(
    /^tn0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500\n\toptions=[0-9a-f]+<.*\bNOMAP\b.*>\n\tether .*\n\tinet 192\.0\.2\.2 netmask 0xffffff00 broadcast 192\.0\.2\.255\n\tinet6 fe80::.*%tn0 prefixlen 64 scopeid 0x\d\n\tinet6 2001:db8::2 prefixlen 64\n\tmedia: Ethernet .*\n\tstatus: active\n\tnd6 options=21<PERFORMNUD,AUTO_LINKLOCAL>\n/m,
  );
  const [tn0] = [await tapnic.json<InterfaceInfo>('ifconfig', 'tn0')];
  expect(tn0).to.include({ name: 'tn0', mtu: 1500, ether: tapnic.ready.mac, status: 'active' });
  expect(tn0.counters['obytes']).to.be.above(FILE_BYTES);
  expect(tn0.capabilities_names).to.include.members(['TXCSUM', 'TSO4', 'NOMAP']);
}

/** netstat -m after a download by sendfile. */
async function expectMbufs(tapnic: Instance): Promise<void> {
  const m = await tapnic.json<NetstatM>('netstat', '-m');
  expect(m.sendfile.sf_syscalls).to.be.above(0);
  expect(m.emulator.dma.loads).to.be.above(0);
  expect(m.emulator.conversions).to.equal(0);
  const { wired, cached, free, total } = m.emulator.pages;
  expect(wired + cached + free).to.equal(total);
  const text = (await tapnic.command('netstat', '-m')).stdout;
  expect(text.split('\n')[0]).to.match(/^\d+\/\d+\/\d+ mbufs in use \(current\/cache\/total\)$/);
  expect(text).to.match(/^[1-9]\d* sendfile syscalls$/m);
}

/** netstat -s, -an and -i of a server with one connection so far. */
async function expectProtocols(tapnic: Instance): Promise<void> {
  const s = await tapnic.json<NetstatS>('netstat', '-s');
  expect(s.protocols['tcp']).to.include({ tcps_accepts: 1 });
  expect(s.reasons.length).to.be.above(50);
  const stats = (await tapnic.command('netstat', '-s')).stdout;
  expect(stats).to.match(/^tcp:\n\t\d+ packets sent\n/m);
  expect(stats).to.match(/^\t1 connection accept$/m);

  const sockets = await tapnic.json<SocketLine[]>('netstat', '-an');
  expect(sockets.find(({ state }) => state === 'LISTEN')).to.include({
    proto: 'tcp46',
    local: '*.80',
    foreign: '*.*',
  });
  expect((await tapnic.command('netstat', '-an')).stdout).to.match(
    /^tcp46 {6}0 {6}0 \*\.80 {19}\*\.\* {20}LISTEN$/m,
  );
  expect((await tapnic.command('netstat', '-i')).stdout).to.match(
    /^tn0 {4}1500 <Link#\d> {6}[0-9a-f:]{17} +[1-9]/m,
  );
}

describe('commands: clients of an instance', function () {
  needs('root', 'tap', 'netns', 'ping', 'curl');
  this.timeout(60_000);

  it('print what FreeBSD prints, and the same as JSON', async () => {
    using site = new Site();
    site.file('a.bin', FILE_BYTES);
    await withServed(site, ['--seed', '7'], async (tapnic) => {
      const { ready } = tapnic;
      expect(ready).to.include({
        event: 'ready',
        tap: 'nic0',
        created: true,
        if: 'tn0',
        addr: '192.0.2.2',
        addr6: '2001:db8::2',
        mode: 'wire',
        napi: 'off',
        engine: 'native',
        pid: tapnic.pid,
        url: 'http://192.0.2.2/',
        url6: 'http://[2001:db8::2]/',
        seed: 7,
      });
      expect(ready.mac).to.match(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/);
      expect(Number.parseInt(ready.mac, 16) & 3, 'locally administered unicast').to.equal(2);
      const got = await tapnic.curl(
        '-o',
        '/dev/null',
        '-w',
        '%{size_download}',
        tapnic.urlOf('a.bin'),
      );
      expect(got.stdout).to.equal(String(FILE_BYTES));

      await expectIfconfig(tapnic);
      await expectMbufs(tapnic);
      await expectProtocols(tapnic);

      const [host] = await tapnic
        .json<ArpLine[]>('arp', '-a')
        .then((lines) => lines.filter(({ addr }) => addr === '192.0.2.1'));
      expect(host?.ether).to.equal(linuxMac(tapnic.ns, 'nic0'));
      expect((await tapnic.command('arp', '-a')).stdout).to.match(
        /^\? \(192\.0\.2\.1\) at \S+ on tn0 expires in \d+ seconds \[ethernet\]$/m,
      );
    });
  });

  it('show the content of a socket buffer while its reader is slow', async () => {
    using site = new Site();
    site.file('big.bin', 20_000_000);
    await withServed(site, [], async (tapnic) => {
      const curl = tapnic.curl(
        '--limit-rate',
        '1M',
        '--max-time',
        '2',
        '-o',
        '/dev/null',
        tapnic.urlOf('big.bin'),
      );
      let fullest: SocketLine | undefined;
      for (let i = 0; i < 12; i++)
        for (const line of await tapnic.json<SocketLine[]>('netstat', '-an'))
          if (line.sendq > (fullest?.sendq ?? 0)) fullest = line;
      await curl;
      expect(fullest?.state).to.equal('ESTABLISHED');
      expect(fullest?.foreign).to.match(/^192\.0\.2\.1\.\d+$/);
      expect(fullest?.send_ext_pgs).to.be.above(0);
      expect(fullest!.send_mbufs).to.be.least(fullest!.send_ext_pgs);
      expect(fullest!.send_mbcnt).to.be.above(fullest!.sendq);
    });
  });

  it('switch capabilities as ifconfig does', async () => {
    using site = new Site();
    const bytes = site.file('a.bin', FILE_BYTES);
    await withServed(site, [], async (tapnic) => {
      const names = async (): Promise<string[]> =>
        (await tapnic.json<InterfaceInfo>('ifconfig', 'tn0')).options_names;
      const before = await names();
      const set = async (...words: string[]): Promise<string[]> => {
        const run = await tapnic.command('ifconfig', 'tn0', ...words);
        expect(run, words.join(' ')).to.deep.include({ status: 0, stdout: '', stderr: '' });
        return names();
      };
      expect(await set('-nomap')).to.deep.equal(before.filter((name) => name !== 'NOMAP'));
      expect(await set('mextpg')).to.deep.equal(before);
      // The usual coupling of drivers: no TSO without checksums.
      const bare = await set('-txcsum');
      expect(bare).not.to.include.members(['TXCSUM']);
      expect(bare).not.to.include.members(['TSO4']);
      const refused = await tapnic.command('ifconfig', 'tn0', 'tso4');
      expect(complaint(refused, 1)).to.match(/^tso4: Resource temporarily unavailable$/);
      const got = await tapnic.curl(
        '-o',
        '/dev/null',
        '-w',
        '%{size_download}',
        tapnic.urlOf('a.bin'),
      );
      expect(got.stdout).to.equal(String(bytes.length));
      const m = await tapnic.json<NetstatM>('netstat', '-m');
      // Small payloads are copied and summed then; `small` counts them.
      const { checksum, small } = m.emulator.payload_bytes_read;
      expect(checksum + small).to.be.least(FILE_BYTES);
      expect(await set('txcsum', 'tso4')).to.deep.equal(before);

      // A capability that the NIC lacks is ignored. An unknown word is an error and changes
      // nothing.
      expect(await set('wol', '-polling')).to.deep.equal(before);
      const bad = await tapnic.command('ifconfig', 'tn0', '-txcsum', 'bogus');
      expect(complaint(bad, 1)).to.equal('bogus: bad value');
      expect(await names()).to.deep.equal(before);
      expect(complaint(await tapnic.command('ifconfig', 'em0'), 1)).to.equal(
        'interface em0 does not exist',
      );
    });
  });

  it('read and write sysctls', async () => {
    using site = new Site();
    await withServed(site, ['--sysctl', 'kern.ipc.mb_use_ext_pgs=0'], async (tapnic) => {
      const name = 'kern.ipc.mb_use_ext_pgs';
      expect((await tapnic.command('sysctl', name)).stdout).to.equal(`${name}: 0\n`);
      expect((await tapnic.command('sysctl', `${name}=1`)).stdout).to.equal(`${name}: 0 -> 1\n`);
      expect((await tapnic.command('sysctl', '-n', name)).stdout).to.equal('1\n');
      const all = await tapnic.json<SysctlLeaf[]>('sysctl', '-a');
      expect(all.map((leaf) => leaf.name)).to.include.members([name, 'kern.ipc.sfstat']);
      expect(all.filter((leaf) => leaf.name.startsWith('net.inet.'))).not.to.have.lengthOf(0);
      expect(complaint(await tapnic.command('sysctl', 'kern.nope'), 1)).to.equal(
        "unknown oid 'kern.nope'",
      );
      expect(complaint(await tapnic.command('sysctl', `${name}=2`), 1)).to.match(
        /Invalid argument$/,
      );
    });
  });
});

/** The MAC address of Linux's interface. */
function linuxMac(ns: Netns, dev: string): string {
  const [link] = JSON.parse(ns.exec('ip', ['-j', 'link', 'show', dev])) as { address: string }[];
  return link!.address;
}

/** Command prefixes that run a command without /dev/net, and without CAP_NET_ADMIN. */
const hidden = ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs none /dev/net && exec "$@"', 'sh'];
const weak = ['setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin'];

describe('commands: an instance that cannot start', function () {
  needs('root', 'tap', 'netns');
  this.timeout(60_000);

  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-cli-'))));
  after(() => rmSync(dir, { recursive: true, force: true }));

  const node = (control: string, ...args: string[]): string[] => [
    process.execPath,
    cliMain,
    'serve',
    dir,
    '--json',
    '--control',
    join(dir, control),
    ...args,
  ];

  /**
   * Runs `serve` after the command prefix `prefix`, expects it to fail, and returns its message.
   */
  async function failing(ns: Netns, prefix: string[], ...args: string[]): Promise<string> {
    const [cmd, ...rest] = [...prefix, ...node('fail.sock', ...args)];
    return complaint(await ns.run(cmd!, rest), 1);
  }

  it('prints one line when the interface or the control socket is in use', async () => {
    using ns = new Netns();
    const args = ['serve', dir, '--tap', 'em7', '--control', join(dir, 'live.sock')];
    const tapnic = await Instance.start(ns, args);
    expect(await failing(ns, [], '--tap', 'em7')).to.match(
      /EBUSY: interface em7 is in use: stop its user or choose another name$/,
    );
    expect(complaint(await ns.run(node('').shift()!, node('live.sock').slice(1)), 1)).to.match(
      /live\.sock: EADDRINUSE: an instance is running there: stop it/,
    );
    // An interface that is not a TAP.
    expect(await failing(ns, [], '--tap', 'lo')).to.match(
      /TUNSETIFF lo: EINVAL: interface lo exists and is not a .*TAP: choose another name, or the number of queues that it was made with$/,
    );
    expect(await tapnic.stop()).to.deep.include({ code: 0, leaked: {} });
  });

  it('prints one line without the device node or the privilege', async () => {
    using ns = new Netns();
    expect(await failing(ns, hidden)).to.match(
      /ENOENT: no TAP device here: modprobe tun, or add --device \/dev\/net\/tun --cap-add NET_ADMIN$/,
    );
    expect(await failing(ns, weak)).to.match(/EPERM: run as root or add .*--cap-add NET_ADMIN$/);
    const weaker = ['setpriv', '--bounding-set', '-sys_admin', '--inh-caps', '-sys_admin'];
    expect(await failing(ns, weaker, '--netns', `${ns.name}-x`)).to.match(
      /EPERM: run as root or add --cap-add SYS_ADMIN$/,
    );
    expect(ns.exec('ip', ['netns', 'list'])).not.to.include(`${ns.name}-x`);
  });

  it('gets the reason from doctor', async () => {
    using ns = new Netns();
    const verdicts = async (prefix: string[]): Promise<string[]> => {
      const [cmd, ...rest] = [...prefix, process.execPath, cliMain, 'doctor', '--json'];
      const { status, stdout } = await ns.run(cmd, rest);
      const checks: Check[] = JSON.parse(stdout);
      const failed = checks.filter(({ ok, required }) => required && !ok);
      expect(status, stdout).to.equal(failed.length === 0 ? 0 : 1);
      for (const { remedy } of failed) expect(remedy).not.to.equal('');
      return failed.map(({ name }) => name);
    };
    expect(await verdicts([])).to.deep.equal([]);
    expect(await verdicts(hidden)).to.deep.equal(['device node', 'tap']);
    expect(await verdicts(weak)).to.deep.equal(['NET_ADMIN', 'tap']);
    expect(ns.exec('ip', ['-br', 'link']), 'the probe is gone').not.to.include('tnprobe');
  });

  it('refuses a sysctl that does not exist, with status 2', async () => {
    using ns = new Netns();
    const [cmd, ...rest] = node('s.sock', '--sysctl', 'kern.ipc.nonesuch=1');
    expect(complaint(await ns.run(cmd!, rest), 2)).to.equal(
      "--sysctl: unknown oid 'kern.ipc.nonesuch'",
    );
    const file = join(dir, 'sysctl.yaml');
    writeFileSync(file, 'sysctl:\n  kern.ipc.somaxconn: 64\n  kern.ipc.nonesuch: 1\n');
    const [cmd2, ...yaml] = node('s.sock', '--config', file, '--sysctl', 'kern.ipc.somaxconn=1');
    expect(complaint(await ns.run(cmd2!, yaml), 2)).to.equal(
      `${file}:3:3: unknown oid 'kern.ipc.nonesuch'`,
    );
  });
});

describe('commands: --netns', function () {
  needs('root', 'tap', 'netns', 'ping');
  this.timeout(60_000);

  /**
   * Runs `serve --netns NAME` from this process's own namespaces, calls `body` when it is ready,
   * and stops it. It does not use `ip netns exec`, whose own mount namespace has its own list of
   * named namespaces.
   */
  async function withInstance(name: string, body: () => void): Promise<void> {
    using site = new Site();
    const control = join(site.dir, 'c.sock');
    const args = ['serve', site.dir, '--json', '--netns', name, '--control', control];
    const child = spawn(process.execPath, [cliMain, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const lines: string[] = [];
    const closed = once(child, 'close');
    try {
      for await (const line of createInterface({ input: child.stdout })) {
        lines.push(line);
        if (lines.length > 1) continue;
        expect(JSON.parse(line)).to.include({ event: 'ready', netns: name, control });
        body();
        child.kill('SIGTERM');
      }
    } finally {
      child.kill('SIGKILL');
    }
    expect(await closed).to.deep.equal([0, null]);
    expect(lines.at(-1)).to.equal('{"event":"exit","leaked":{}}');
  }

  const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });

  it('creates the namespace and removes it at the end', async () => {
    const name = `${process.env['TAPNIC_NETNS_PREFIX'] ?? 'tn'}-${process.pid}-made`;
    const before = ip('-br', 'link');
    await withInstance(name, () => {
      for (const addr of ['192.0.2.2', '127.0.0.1'])
        expect(ip('netns', 'exec', name, 'ping', '-c', '1', '-W', '2', addr)).to.include(
          ' 0% packet loss',
        );
      expect(ip('-br', 'link'), 'links outside the namespace').to.equal(before);
    });
    expect(ip('netns', 'list')).not.to.include(name);
  });

  it('keeps a namespace that existed before', async () => {
    using inside = new Netns('b');
    const links = (): string => inside.exec('ip', ['-br', 'link']);
    await withInstance(inside.name, () => expect(links()).to.match(/^nic0/m));
    expect(links()).not.to.match(/^nic0/m);
  });
});
