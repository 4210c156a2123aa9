/** Addresses that another interface of the namespace has: one line, before anything is changed. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { cliMain, packageRoot } from '../support/root.ts';
import { Site } from '../support/served.ts';

describe('commands: addresses that are in use', function () {
  needs('root', 'tap', 'netns', 'curl', 'ip');
  this.timeout(120_000);
  let dir: string;
  let site: Site;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-addr-'));
    site = new Site();
    site.file('a.bin', 1000);
  });
  after(() => {
    site[Symbol.dispose]();
    rmSync(dir, { recursive: true });
  });

  /** Runs a command that must fail, and returns its message. */
  async function refused(ns: Netns, ...args: string[]): Promise<string> {
    const control = ['--control', join(dir, 'x.sock')];
    const run = await ns.run(process.execPath, [cliMain, ...args, ...control]);
    expect(run, run.stderr).to.include({ status: 1, stdout: '' });
    expect(run.stderr).to.match(/^tapnic: [^\n]+\n$/);
    return run.stderr;
  }
  const REMEDY = 'choose another addr and hostAddr (--addr, --host-addr)\n';

  it('are refused with the interface and the process that has them, by every command', async () => {
    using ns = new Netns();
    const one = await Instance.start(ns, ['serve', site.dir]);
    const links = ns.exec('ip', ['-br', 'addr']);
    const has = `interface nic0 of process ${one.pid}`;
    for (const [addr, host, why] of [
      ['192.0.2.2/24', '192.0.2.1/24', `192.0.2.1/24: EADDRINUSE: ${has} has this address`],
      ['192.0.2.1/24', '192.0.2.9/24', `192.0.2.1: EADDRINUSE: ${has} has this address`],
      ['192.0.2.1/24', 'none', `192.0.2.1: EADDRINUSE: ${has} has this address`],
      [
        '192.0.2.8/24',
        '192.0.2.9/24',
        `192.0.2.9/24: EADDRINUSE: ${has} has the network 192.0.2.0/24`,
      ],
      ['192.0.2.130/25', '192.0.2.129/25', `EADDRINUSE: ${has} has the network 192.0.2.0/24`],
      ['192.0.3.1/16', '192.0.3.2/16', `EADDRINUSE: ${has} has the network 192.0.2.0/24`],
    ] as const)
      expect(
        await refused(ns, 'serve', site.dir, '--tap', 'nic1', '--addr', addr, '--host-addr', host),
        addr,
      ).to.include(`${why}: ${REMEDY}`);
    for (const args of [['ping', '192.0.2.1'], ['inetd'], ['fetch', 'http://192.0.2.1/']])
      expect(await refused(ns, ...args, '--tap', 'nic1')).to.include(`${has} has this address`);
    const program = `
      const { createStack } = await import(process.argv[1]);
      await createStack({ tap: 'nic1' }).catch((e) => console.log(e.code, e.message));`;
    const index = join(packageRoot(), 'dist/src/index.js');
    const args = ['--input-type=module', '-e', program, index];
    expect((await ns.run(process.execPath, args)).stdout).to.equal(
      `EADDRINUSE address 192.0.2.1/24: EADDRINUSE: ${has} has this address: ${REMEDY}`,
    );
    expect(ns.exec('ip', ['-br', 'addr']), 'nothing was changed').to.equal(links);
    const end = await one.stop();
    expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
  });

  it('do not stop instances on different networks, which both work', async () => {
    using ns = new Netns();
    const one = await Instance.start(ns, ['serve', site.dir]);
    const two = await Instance.start(ns, [
      'serve',
      site.dir,
      '--tap',
      'nic1',
      '--addr',
      '198.51.100.2/24',
      '--host-addr',
      '198.51.100.1/24',
    ]);
    for (const each of [one, two]) {
      const { stdout } = await each.curl(
        '-w',
        '%{size_download}',
        '-o',
        '/dev/null',
        each.urlOf('a.bin'),
      );
      expect(stdout).to.equal('1000');
    }
    expect(two.stderr).to.match(/2001:db8::1\/64 not set: interface nic0 of process \d+ has this/);
    for (const each of [two, one]) expect((await each.stop()).code).to.equal(0);
  });

  it('are refused by one of two instances that start at once', async () => {
    using ns = new Netns();
    const starts = await Promise.allSettled(
      ['nic0', 'nic1', 'nic2'].map((tap) => Instance.start(ns, ['serve', site.dir, '--tap', tap])),
    );
    const ran = starts.filter((start) => start.status === 'fulfilled');
    expect(ran).to.have.lengthOf(1);
    const { value: one } = ran[0]!;
    const got = await one.curl('-w', '%{size_download}', '-o', '/dev/null', one.urlOf('a.bin'));
    expect(got.stdout).to.equal('1000');
    for (const start of starts)
      if (start.status === 'rejected') expect(String(start.reason)).to.include('EADDRINUSE');
    expect((await one.stop()).code).to.equal(0);
  });

  it('count for other kinds of interfaces and routes, but not less specific routes', async () => {
    using ns = new Netns();
    ns.exec('ip', ['link', 'add', 'd0', 'type', 'veth', 'peer', 'name', 'd1']);
    ns.exec('ip', ['link', 'set', 'd1', 'up']);
    ns.exec('ip', ['addr', 'add', '203.0.113.1/24', 'dev', 'd0']);
    ns.exec('ip', ['link', 'set', 'd0', 'up']);
    const at = (net: string): string[] => [
      'serve',
      site.dir,
      '--addr',
      `${net}.2/24`,
      '--host-addr',
      `${net}.1/24`,
    ];
    expect(await refused(ns, ...at('203.0.113'))).to.include('interface d0 has this address');
    ns.exec('ip', ['route', 'add', '198.51.100.0/25', 'via', '203.0.113.9']);
    expect(await refused(ns, ...at('198.51.100'))).to.include(
      'interface d0 has the network 198.51.100.0/25',
    );
    ns.exec('ip', ['route', 'add', '192.0.0.0/16', 'via', '203.0.113.9']);
    ns.exec('ip', ['route', 'add', 'default', 'via', '203.0.113.9']);
    const one = await Instance.start(ns, ['serve', site.dir]);
    const got = await one.curl('-w', '%{size_download}', '-o', '/dev/null', one.urlOf('a.bin'));
    expect(got.stdout).to.equal('1000');
    expect((await one.stop()).code).to.equal(0);
  });
});
