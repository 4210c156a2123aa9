/** `--addr dhcp` and `addr: 'dhcp'`, with dnsmasq as the server. */

import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { cliMain, packageRoot } from '../support/root.ts';
import { Site } from '../support/served.ts';

const HOST = '198.51.100.1';
const POOL = /^198\.51\.100\.(5\d|6\d)$/;

const OPTIONS =
  '--conf-file=/dev/null --keep-in-foreground --user=root --pid-file= --interface=nic0 ' +
  '--bind-dynamic --port=0 --log-dhcp --no-ping ' +
  '--dhcp-range=198.51.100.50,198.51.100.69,255.255.255.0,2m';

/** A dnsmasq that waits for the interface nic0 in `ns`. Its log is in a file of the site. */
class Dnsmasq {
  readonly #log: string;
  readonly leases: string;
  readonly child: ChildProcess;

  constructor(ns: Netns, site: Site, args: string[] = []) {
    this.#log = site.path('dnsmasq.log');
    this.leases = site.path('leases');
    this.child = ns.spawn(
      'dnsmasq',
      [
        ...OPTIONS.split(' '),
        `--log-facility=${this.#log}`,
        `--dhcp-leasefile=${this.leases}`,
        ...args,
      ],
      { stdio: 'ignore' },
    );
  }

  get log(): string {
    try {
      return readFileSync(this.#log, 'utf8');
    } catch {
      return '';
    }
  }

  /** Waits until the log has `text`. */
  async said(text: string): Promise<void> {
    for (let i = 0; i < 300 && !this.log.includes(text); i++) await sleep(100);
    expect(this.log).to.include(text);
  }
}

const ARGS = ['--addr', 'dhcp', '--host-addr', `${HOST}/24`];

describe('netns: DHCP', function () {
  needs('root', 'tap', 'netns', 'dnsmasq', 'curl');
  this.timeout(120_000);

  for (const mode of ['wire', 'vnet'])
    it(`gets, renews and releases a lease of dnsmasq in mode ${mode}`, async () => {
      using site = new Site();
      using ns = new Netns();
      site.file('f', 1000);
      const server = new Dnsmasq(ns, site, [
        '--dhcp-option-force=option:T1,3',
        '--dhcp-option=option:router,198.51.100.7',
        '--dhcp-option=option:dns-server,198.51.100.8',
        '--dhcp-option=option:domain-name,lab.example',
        '--dhcp-option=option:mtu,1400',
      ]);
      const args = ['serve', site.dir, '--mode', mode, ...ARGS];
      const tapnic = await Instance.start(ns, args);
      const { addr, url } = tapnic.ready;
      expect(addr).to.match(POOL);
      expect(url).to.equal(`http://${addr}/`);
      const { stdout } = await tapnic.curl('-o', '/dev/null', '-w', '%{size_download}', `${url}f`);
      expect(stdout).to.equal('1000');
      type Line = { destination: string; gateway: string };
      const routes = await tapnic.json<Line[]>('netstat', '-rn');
      expect(routes.find((r) => r.destination === 'default')!.gateway).to.equal('198.51.100.7');
      const [tn0] = await tapnic
        .json<{ mtu: number; inet: { addr: string }[] }[]>('ifconfig')
        .then((all) => all.filter(({ inet }) => inet.some((one) => one.addr === addr)));
      expect(tn0!.mtu).to.equal(1400);
      for (let i = 0; i < 100 && !tapnic.stderr.includes('"dhcp":"renewed"'); i++) await sleep(100);
      const events = tapnic.stderr.split('\n').filter((line) => line.includes('"dhcp":'));
      expect(JSON.parse(events[0]!)).to.deep.include({
        dhcp: 'bound',
        if: 'tn0',
        addr: `${addr}/24`,
        server: HOST,
        routers: ['198.51.100.7'],
        dns: ['198.51.100.8'],
        domain: 'lab.example',
        lease: 120,
      });
      expect(JSON.parse(events[1]!)).to.deep.include({ dhcp: 'renewed', addr: `${addr}/24` });
      const end = await tapnic.stop();
      expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
      await server.said('DHCPRELEASE');
      expect(readFileSync(server.leases, 'utf8')).to.not.include(addr);
    });

  it('declines an address that Linux has, and takes another one', async () => {
    using site = new Site();
    using ns = new Netns();
    ns.exec('ip', ['tuntap', 'add', 'dev', 'nic0', 'mode', 'tap']);
    for (const cidr of [`${HOST}/24`, '198.51.100.60/24'])
      ns.exec('ip', ['addr', 'add', cidr, 'dev', 'nic0']);
    ns.exec('ip', ['link', 'set', 'nic0', 'up']);
    const mac = '02:00:5e:00:53:60';
    // Linux delivers unicast answers to 198.51.100.60 to itself: only broadcast ones arrive.
    const server = new Dnsmasq(ns, site, [`--dhcp-host=${mac},198.51.100.60`]);
    const tapnic = await Instance.start(ns, ['inetd', '--addr', 'dhcp', '--mac', mac]);
    expect(server.log).to.include('DHCPDECLINE(nic0) 198.51.100.60');
    expect(tapnic.ready.addr).to.match(POOL).and.not.equal('198.51.100.60');
    expect(tapnic.stderr).to.include('"dhcp":"declined"');
    const end = await tapnic.stop();
    expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
  });

  it('gives the library an address', async () => {
    using site = new Site();
    using ns = new Netns();
    const server = new Dnsmasq(ns, site);
    const index = join(packageRoot(), 'dist/src/index.js');
    const script = `
      import { createStack } from ${JSON.stringify(index)};
      const stack = await createStack({ addr: 'dhcp', hostAddr: '${HOST}/24' });
      console.log(stack.info.addr, stack.info.dhcp.server, stack.netstat('r')[0].destination);
      console.log(JSON.stringify(await stack.close()));`;
    const run = await ns.run(process.execPath, ['--input-type=module', '-e', script], {
      timeoutMs: 60_000,
    });
    expect(run.stderr).to.equal('');
    expect(run.stdout).to.match(/^198\.51\.100\.[56]\d 198\.51\.100\.1 default\n\{\}\n$/);
    await server.said('DHCPRELEASE');
  });

  it('ends within two seconds of a signal while it has no address', async () => {
    using ns = new Netns();
    const child = ns.spawn(process.execPath, [cliMain, 'inetd', '--json', '--addr', 'dhcp'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let stdout = '';
    child.stdout!.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
    const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
    for (let i = 0; i < 300 && !ns.exec('ip', ['-br', 'link']).includes('nic0'); i++)
      await sleep(100);
    await sleep(500);
    child.kill('SIGTERM');
    expect(await exit).to.equal(0);
    expect(stdout).to.equal('{"event":"exit","leaked":{}}\n');
  });

  // The limit is 30 s of real time.
  if (full)
    it('exits with 1 and one line if no server answers', async () => {
      using ns = new Netns();
      const args = [cliMain, 'inetd', '--addr', 'dhcp'];
      const run = await ns.run(process.execPath, args, { timeoutMs: 60_000 });
      expect(run.status).to.equal(1);
      expect(run.stderr).to.equal(
        'tapnic: dhcp: ETIMEDOUT: tn0 has no address after 30 s: no server answers on nic0: connect ' +
          'nic0 to a network with a DHCP server, or choose a fixed address (addr)\n',
      );
    });
});
