/** The emulated host over IPv6, with Linux's programs as its peers. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { request } from '../../src/cli/control_client.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import type { NdpLine, NdpRouter } from '../../src/ctl/ndp.ts';
import type { SocketLine } from '../../src/ctl/netstat_an.ts';
import { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { sha256, sha256File, Site, withServed } from '../support/served.ts';
import { tsharkFields } from '../support/tshark.ts';

const US = '2001:db8::2';
const LINUX = '2001:db8::1';
const CLEAN = { code: 0, leaked: {} };

/** Linux's link-local address on `dev`. */
function linkLocal(ns: Netns, dev = 'nic0'): string {
  const text = ns.exec('ip', ['-6', '-o', 'addr', 'show', 'dev', dev, 'scope', 'link']);
  return /inet6 (fe80::[0-9a-f:]+)\//.exec(text)![1]!;
}

/** Waits until `done` returns true, at most 30 s. */
async function until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 30_000; performance.now() < end; await sleep(50))
    if (await done()) return;
  throw new Error(`${what}: not within 30 s`);
}

/** Sends `ifconfig IF WORD …` on the control socket, without the time that a command needs to start. */
const ifconfig = (tapnic: Instance, ...words: string[]): Promise<unknown> =>
  request(tapnic.control, 'ifconfig', { if: tapnic.ready.if, words });

/** The flags of an address in `ifconfig IF --json`. */
async function flagsOf(tapnic: Instance, addr: string): Promise<string[] | null> {
  const info = await request(tapnic.control, 'ifconfig', { if: tapnic.ready.if });
  const { inet6 } = info as InterfaceInfo;
  return inet6.find((line) => line.addr === addr)?.flags ?? null;
}

const ping6 = (ns: Netns, addr: string, ...args: string[]): Promise<Result> =>
  ns.run('ping', ['-6', '-n', '-c', '1', '-W', '5', ...args, addr]);

/** Runs tapnic to its end. */
const tapnicIn = (ns: Netns, ...args: string[]): Promise<Result> =>
  ns.run(process.execPath, [cliMain, ...args], { timeoutMs: 50_000 });

describe('netns: IPv6', function () {
  needs('root', 'tap', 'netns', 'curl', 'ping', 'nc', 'tshark');
  this.timeout(120_000);

  it('is ready when duplicate address detection has ended, and serves files to curl -6', async () => {
    using site = new Site();
    const sum = sha256(site.file('a.bin', 3_000_000));
    const capture = site.path('wire.pcap');
    const args = ['--capture', `wire=${capture}`, '--sysctl', 'net.inet6.ip6.dad_count=1'];
    await withServed(site, args, async (tapnic) => {
      const { ready } = tapnic;
      expect([ready.addr6, ready.url6]).to.deep.equal([US, `http://[${US}]/`]);
      expect(await flagsOf(tapnic, US), 'usable').to.deep.equal([]);
      const got = await tapnic.curl('-6', '-o', site.path('out'), tapnic.urlOf('a.bin', 6));
      expect(got.status, got.stderr).to.equal(0);
      expect(await sha256File(site.path('out'))).to.equal(sum);
      expect(
        (await tapnic.curl('-4', tapnic.urlOf('a.bin'), '-o', site.path('out'))).status,
      ).to.equal(0);
    });
    const probes = await tsharkFields(
      capture,
      ['ipv6.src', 'icmpv6.nd.ns.target_address'],
      'icmpv6.type == 135 && ipv6.src == ::',
    );
    expect(probes.map(([, target]) => target)).to.include(US);
  });

  it('answers ping of Linux, and pings it, at every fragment boundary', async () => {
    using site = new Site();
    await withServed(site, [], async (tapnic) => {
      // 1500 - 40 - 8: one frame. With a fragment header 1448 bytes fit into each.
      const edges = [1, 2, 3, 45].map((n) => 1448 * n - 8);
      const sizes = [0, 1, 56, 1451, 1452, 1453, ...edges.flatMap((n) => [n - 1, n, n + 1]), 65507];
      for (const size of sizes) {
        const got = await ping6(tapnic.ns, US, '-s', String(size));
        expect(got.status, `size ${size}: ${got.stdout}`).to.equal(0);
        const own = await tapnic.command(
          'ping',
          '-c',
          '1',
          '-W',
          '5000',
          '-s',
          String(size),
          LINUX,
        );
        expect(own.status, `size ${size}: ${own.stdout}${own.stderr}`).to.equal(0);
      }
      const one = await tapnic.command('ping', '-6', '-c', '1', LINUX);
      expect(one.stdout).to.match(
        /^PING\(56=40\+8\+8 bytes\) 2001:db8::2 --> 2001:db8::1\n16 bytes from 2001:db8::1, icmp_seq=0 hlim=64 time=[\d.]+ ms\n\n--- 2001:db8::1 ping statistics ---\n/,
      );
      const wrong = await tapnic.command('ping', '-4', '-c', '1', LINUX);
      expect(wrong).to.include({ status: 2, stdout: '' });
      expect(wrong.stderr).to.equal(`tapnic: -4: ${LINUX}: not an IPv4 address\n`);
    });
  });

  it('takes link-local addresses with a zone, in both directions', async () => {
    using site = new Site();
    site.file('a.bin', 100_000);
    const args = ['--addr6', 'fe80::22%tn0/64', '--host-addr6', 'fe80::1%nic0/64'];
    await withServed(site, args, async (tapnic) => {
      const { ready, ns } = tapnic;
      expect([ready.addr6, ready.url6]).to.deep.equal([
        'fe80::22%tn0',
        'http://[fe80::22%25nic0]/',
      ]);
      const got = await tapnic.curl('-o', site.path('out'), `${ready.url6}a.bin`);
      expect(got.status, got.stderr).to.equal(0);
      expect((await ping6(ns, 'fe80::22%nic0')).status).to.equal(0);
      const own = await tapnic.command('ping', '-c', '1', 'fe80::1%tn0');
      expect(own.stdout).to.match(/fe80::22%tn0 --> fe80::1%tn0\n16 bytes from fe80::1%tn0, /);
      for (const command of ['ping', 'fetch']) {
        const host = command === 'ping' ? 'fe80::1%nope' : 'http://[fe80::1%nope]/';
        const unknown = await tapnic.command(command, host);
        expect(unknown, command).to.include({ status: 1, stdout: '' });
        expect(unknown.stderr).to.match(/^tapnic: .*fe80::1%nope(:80)?: no interface nope.*\n$/);
      }
      expect((await tapnic.command('netstat', '-rn', '-6')).stdout).to.match(
        /^default +fe80::1%tn0 +UGS +tn0/m,
      );
      const script = `import http.server, socketserver, sys
class S(socketserver.TCPServer): address_family = 10
S(("::", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()`;
      const server = ns.spawn('python3', ['-c', script], { cwd: site.dir, stdio: 'ignore' });
      try {
        await until('the server', () => ns.exec('ss', ['-Hltn6']).includes(':8080 '));
        const fetched = await tapnic.command(
          'fetch',
          '-o',
          site.path('out2'),
          'http://[fe80::1%tn0]:8080/a.bin',
        );
        expect(fetched.status, fetched.stderr).to.equal(0);
        expect(fetched.stderr).to.match(
          /^http:\/\/\[fe80::1%25tn0\]:8080\/a\.bin: 200 OK, 100000 bytes/,
        );
      } finally {
        server.kill('SIGKILL');
      }
    });
  });

  it('runs the small services for both families, and netstat names the sockets', async () => {
    using ns = new Netns();
    const tapnic = await Instance.start(ns, ['inetd']);
    const nc = async (...args: string[]): Promise<string> =>
      (await ns.run('bash', ['-c', `echo hello | timeout 10 nc ${args.join(' ')}`])).stdout;
    for (const [flag, addr] of [
      ['-6', US],
      ['-4', '192.0.2.2'],
    ] as const) {
      expect(await nc(flag, '-N', addr, '7'), `TCP ${flag}`).to.equal('hello\n');
      expect(await nc(flag, '-u', '-w1', addr, '7'), `UDP ${flag}`).to.equal('hello\n');
    }
    // daytime closes first, so its connection stays in TIME_WAIT.
    expect(await nc('-6', '-d', US, '13')).to.match(/^\w{3} \w{3} .* \d{4}\r\n$/);
    const sockets = await tapnic.json<SocketLine[]>('netstat', '-an');
    const listeners = sockets.filter(({ foreign }) => foreign === '*.*');
    expect(new Set(listeners.map(({ proto }) => proto))).to.deep.equal(new Set(['tcp46', 'udp46']));
    expect(sockets.filter(({ proto }) => proto === 'tcp6').map(({ local }) => local)).to.deep.equal(
      [`${US}.13`],
    );
    const udp = await tapnic.command('netstat', '-an', '-p', 'udp');
    expect(udp.stdout)
      .to.match(/^udp46 +0 +0 \*\.7 +\*\.\*$/m)
      .and.not.match(/tcp/);
    const text = (await tapnic.command('netstat', '-s', '-p', 'icmp6')).stdout;
    expect(text).to.match(/^icmp6:\n\t0 calls to icmp6_error\n/);
    expect(text).to.match(/^\tInput histogram:\n(\t\t.*\n)*\t\tneighbor solicitation: \d+\n/m);
    const bad = await tapnic.command('netstat', '-s', '-p', 'ipx');
    expect(bad.status).to.equal(1);
    expect(bad.stderr).to.match(
      /^tapnic: netstat: ipx: unknown or uninstrumented protocol: tcp, udp/,
    );
    expect(await tapnic.stop()).to.deep.include(CLEAN);
  });

  it('shows an address that another host has as duplicated; everything else works', async () => {
    using site = new Site();
    site.file('a.bin', 1000);
    await withServed(site, ['--sysctl', 'net.inet6.ip6.dad_count=1'], async (tapnic) => {
      tapnic.ns.exec('ip', ['-6', 'addr', 'add', '2001:db8::99/64', 'dev', 'nic0', 'nodad']);
      await ifconfig(tapnic, 'inet6', '2001:db8::99/64');
      expect(await flagsOf(tapnic, '2001:db8::99')).to.deep.equal(['tentative']);
      const duplicated = async (): Promise<boolean> =>
        (await flagsOf(tapnic, '2001:db8::99'))!.includes('duplicated');
      await until('duplicated', duplicated);
      expect((await tapnic.curl(tapnic.urlOf('a.bin', 6), '-o', site.path('o'))).status).to.equal(
        0,
      );
    });
    using ns = new Netns();
    ns.exec('ip', ['tuntap', 'add', 'keep0', 'mode', 'tap']);
    ns.exec('ip', ['link', 'set', 'keep0', 'up']);
    ns.exec('ip', ['-6', 'addr', 'add', `${US}/64`, 'dev', 'keep0', 'nodad']);
    const args = ['serve', site.dir, '--tap', 'keep0', '--sysctl', 'net.inet6.ip6.dad_count=1'];
    const tapnic = await Instance.start(ns, args);
    expect([tapnic.ready.addr6, tapnic.ready.url6]).to.deep.equal([null, null]);
    expect(tapnic.stderr).to.match(
      /tn0: 2001:db8::2 is a duplicate: another host on the link has it/,
    );
    expect(await tapnic.stop()).to.deep.include(CLEAN);
  });

  it('leaves IPv6 out, with one warning, where another interface has the network', async () => {
    using site = new Site();
    using ns = new Netns();
    const one = await Instance.start(ns, ['serve', site.dir]);
    const own = '--tap nic1 --addr 198.51.100.2/24 --host-addr 198.51.100.1/24'.split(' ');
    const two = await Instance.start(ns, ['serve', site.dir, ...own]);
    expect([two.ready.addr6, two.ready.url6]).to.deep.equal([null, null]);
    expect(two.stderr.trim().split('\n')).to.have.lengthOf(1);
    expect(two.stderr).to.match(/2001:db8::1\/64 not set: interface nic0 .*has this address/);
    expect((await two.json<InterfaceInfo>('ifconfig', 'tn0')).inet6).to.deep.equal([]);
    expect(await two.stop()).to.deep.include(CLEAN);
    const six = ['--addr6', '2001:db8:1::2/64', '--host-addr6', '2001:db8:1::1/64'];
    const three = await Instance.start(ns, ['serve', site.dir, ...own, ...six]);
    expect(three.ready.addr6).to.equal('2001:db8:1::2');
    for (const addr of [US, '2001:db8:1::2'])
      expect((await ping6(ns, addr)).status, addr).to.equal(0);
    for (const each of [three, one]) expect(await each.stop()).to.deep.include(CLEAN);
  });

  it('has no IPv6 with --addr6 none, and where Linux has disabled it', async () => {
    using site = new Site();
    await withServed(site, ['--addr6', 'none'], async ({ ready, ns }) => {
      expect([ready.addr6, ready.url6]).to.deep.equal([null, null]);
      expect((await ping6(ns, US, '-W', '1')).status).to.not.equal(0);
    });
    using ns = new Netns();
    for (const which of ['all', 'default'])
      ns.exec('sysctl', ['-qw', `net.ipv6.conf.${which}.disable_ipv6=1`]);
    for (const addr6 of ['auto', '2001:db8:1::2/64']) {
      const tapnic = await Instance.start(ns, ['serve', site.dir, '--addr6', addr6]);
      expect([tapnic.ready.addr6, tapnic.ready.url6]).to.deep.equal([null, null]);
      expect(tapnic.stderr).to.match(/IPv6 is disabled on nic0/);
      expect((await tapnic.command('ifconfig', 'tn0')).stdout).to.match(
        /nd6 options=29<.*IFDISABLED/,
      );
      expect(await tapnic.stop()).to.deep.include(CLEAN);
    }
  });

  it('matches frames of IPv6 in faults', async () => {
    using site = new Site();
    site.file('a.bin', 200_000);
    await withServed(site, [], async (tapnic) => {
      await tapnic.command(
        'fault',
        'add',
        'drop',
        '--point',
        'rx',
        '--match',
        'ip6 and icmp6 and ip6[40] == 128',
      );
      expect((await ping6(tapnic.ns, US, '-W', '1')).status).to.equal(1);
      expect((await tapnic.curl(tapnic.urlOf('a.bin', 6), '-o', site.path('o'))).status).to.equal(
        0,
      );
      await tapnic.command('fault', 'remove', 'all');
      expect((await ping6(tapnic.ns, US)).status).to.equal(0);
    });
  });
});

describe('netns: IPv6 by router advertisements', function () {
  needs('root', 'tap', 'netns', 'curl', 'radvd');
  this.timeout(120_000);

  /** Runs `body` with a directory in which radvd.conf advertises `prefix` on nic0. */
  async function withRouter(ns: Netns, prefix: string, body: () => Promise<void>): Promise<void> {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-ra-'));
    const conf = join(dir, 'radvd.conf');
    writeFileSync(
      conf,
      `interface nic0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; IgnoreIfMissing on;
        prefix ${prefix} { AdvOnLink on; AdvAutonomous on; AdvValidLifetime 3600; AdvPreferredLifetime 1800; }; };\n`,
    );
    ns.exec('sysctl', ['-qw', 'net.ipv6.conf.all.forwarding=1']);
    const args = ['-n', '-C', conf, '-p', join(dir, 'pid'), '-m', 'stderr'];
    const radvd = ns.spawn('radvd', args, { stdio: 'ignore' });
    try {
      await body();
    } finally {
      radvd.kill('SIGKILL');
      rmSync(dir, { recursive: true, force: true });
    }
  }

  it('takes address and default route from the network; ready waits for them', async () => {
    using site = new Site();
    site.file('a.bin', 1000);
    using ns = new Netns();
    await withRouter(ns, '2001:db8::/64', async () => {
      const args = ['serve', site.dir, '--addr6', 'auto', '--sysctl', 'net.inet6.ip6.dad_count=1'];
      const tapnic = await Instance.start(ns, args);
      const { addr6 } = tapnic.ready;
      expect(addr6).to.match(/^2001:db8::[0-9a-f:]*ff:fe[0-9a-f:]+$/);
      expect(await flagsOf(tapnic, addr6!)).to.deep.equal(['autoconf']);
      expect((await tapnic.curl(tapnic.urlOf('a.bin', 6), '-o', site.path('o'))).status).to.equal(
        0,
      );
      const [router] = await tapnic.json<NdpRouter[]>('ndp', '-r');
      expect(router).to.include({ addr: `${linkLocal(ns)}%tn0`, if: 'tn0', installed: true });
      const text = (await tapnic.command('ndp', '-r')).stdout;
      expect(text).to.match(/^fe80::\S+%tn0 if=tn0, flags=, pref=medium, expire=\d+s\n$/);
      expect((await tapnic.command('ndp', '-p')).stdout).to.match(
        /^2001:db8::\/64 if=tn0\nflags=LAO vltime=3600, pltime=1800, expire=.*, ref=1\n {2}advertised by\n {4}fe80::\S+%tn0 \(reachable\)\n/m,
      );
      const neighbors = await tapnic.json<NdpLine[]>('ndp', '-a');
      expect(neighbors.find(({ router: r }) => r)?.addr).to.equal(`${linkLocal(ns)}%tn0`);
      expect(await tapnic.stop()).to.deep.include(CLEAN);
    });
  });

  it('--gateway6 replaces the router of the network', async () => {
    using site = new Site();
    using ns = new Netns();
    await withRouter(ns, '2001:db8::/64', async () => {
      for (const [via, route] of [
        [LINUX, /^default +2001:db8::1 +UGS/m],
        ['none', null],
      ] as const) {
        const args = ['serve', site.dir, '--addr6', 'auto', '--gateway6', via];
        const tapnic = await Instance.start(ns, args);
        const { stdout } = await tapnic.command('netstat', '-rn', '-6');
        if (route === null) expect(stdout).to.not.match(/^default/m);
        else expect(stdout).to.match(route);
        expect(await tapnic.stop()).to.deep.include(CLEAN);
      }
    });
  });

  it('ends within two seconds of a signal while there is no router', async () => {
    using site = new Site();
    using ns = new Netns();
    const child = ns.spawn(process.execPath, [cliMain, 'serve', site.dir, '--addr6', 'auto'], {
      stdio: 'ignore',
    });
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    await until('the TAP', () => ns.exec('ip', ['-br', 'link']).includes('nic0'));
    await sleep(1000);
    const begin = performance.now();
    child.kill('SIGTERM');
    expect(await ended).to.equal(0);
    expect(performance.now() - begin).to.be.below(10_000);
  });

  if (full)
    it('ends with 1 and the remedy after 30 seconds without a router', async () => {
      using site = new Site();
      using ns = new Netns();
      const { status, stdout, stderr } = await tapnicIn(ns, 'serve', site.dir, '--addr6', 'auto');
      expect([status, stdout]).to.deep.equal([1, '']);
      expect(stderr).to.match(
        /^tapnic: .*tn0 has no IPv6 address after 30 s: no router on nic0 advertises a prefix: .*addr6.*\n$/,
      );
    });
});
