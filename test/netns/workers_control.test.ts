/** `serve --workers`: control socket, options, and the end of an instance. */

import { expect } from 'chai';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Instance } from '../support/instance.ts';
import { Netns, type Result } from '../support/netns.ts';
import { needs } from '../support/needs.ts';
import { cliMain } from '../support/root.ts';
import { sha256, Site } from '../support/served.ts';
import { curls, python } from '../support/workers.ts';

const SMALL = 100_000;

/** What a connection of the emulated host is like, seen from Linux: whether it uses SACK. */
const SACK = `
import json, socket, struct
seen = []
for i in range(24):
    c = socket.create_connection(('192.0.2.2', 80), 20)
    seen.append((c.getsockopt(6, 11, 104)[5] & 2) != 0)
    c.close()
print(json.dumps(seen))`;

describe('netns: control of serve --workers', function () {
  needs('root', 'tap', 'netns', 'curl', 'python3');
  this.timeout(120_000);

  const site = new Site();
  let small = '';
  let ns: Netns;
  let tapnic: Instance;

  before(async () => {
    small = sha256(site.file('small', SMALL));
    ns = new Netns();
    tapnic = await Instance.start(ns, ['serve', site.dir, '--workers', '2']);
  });

  after(async () => {
    const exit = await tapnic.stop();
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
    expect(exit.code, exit.stderr).to.equal(0);
    expect(exit.leaked).to.deep.equal({});
  });

  async function ok(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await tapnic.command(...args);
    expect(status, stderr).to.equal(0);
    return stdout;
  }

  it('sets a sysctl on all workers', async () => {
    expect(await python<boolean[]>(ns, SACK)).not.to.include(false);
    expect(await ok('sysctl', 'net.inet.tcp.sack.enable=0')).to.contain('1 -> 0');
    expect(await python<boolean[]>(ns, SACK)).not.to.include(true);
    await ok('sysctl', 'net.inet.tcp.sack.enable=1');
    expect(await python<boolean[]>(ns, SACK)).not.to.include(false);
  });

  it('refuses a wrong value once, without a change', async () => {
    const { status, stderr } = await tapnic.command('sysctl', 'net.inet.tcp.sack.enable=7');
    expect(status).to.equal(1);
    expect(stderr).to.match(/^tapnic: .*sack\.enable=7: Invalid argument\n$/);
    expect(stderr).not.to.contain('worker');
  });

  it('switches a capability on all workers, and adds their counters', async () => {
    type Memory = { emulator: { payload_bytes_read: { checksum: number } } };
    type Info = { counters: { ipackets: number }; mtu: number; options_names: string[] };
    expect(await curls(ns, tapnic.urlOf('small'), 16)).to.deep.equal({ [small]: 16 });
    const fast = await tapnic.json<Memory>('netstat', '-m');
    expect(fast.emulator.payload_bytes_read.checksum).to.equal(0);
    await ok('ifconfig', 'tn0', '-txcsum');
    const before = await tapnic.json<Info>('ifconfig', 'tn0');
    expect(before.options_names).not.to.include('TXCSUM');
    expect(before.mtu).to.equal(1500);
    expect(await curls(ns, tapnic.urlOf('small'), 16)).to.deep.equal({ [small]: 16 });
    const slow = await tapnic.json<Memory>('netstat', '-m');
    // Every connection's bytes were summed in software, whichever worker it had.
    expect(slow.emulator.payload_bytes_read.checksum).to.be.at.least(16 * SMALL * 0.99);
    const after = await tapnic.json<Info>('ifconfig', 'tn0');
    expect(after.counters.ipackets - before.counters.ipackets).to.be.at.least(16 * 4);
    await ok('ifconfig', 'tn0', 'txcsum');
  });

  it('adds an address on all workers', async () => {
    await ok('ifconfig', 'tn0', 'inet', '192.0.2.9/24', 'alias');
    await ok('ifconfig', 'tn0', 'inet6', '2001:db8::9/64', 'alias');
    await sleep(1500);
    expect(await curls(ns, 'http://192.0.2.9/small', 16)).to.deep.equal({ [small]: 16 });
    expect(await curls(ns, 'http://[2001:db8::9]/small', 16)).to.deep.equal({ [small]: 16 });
    await ok('ifconfig', 'tn0', 'inet', '192.0.2.9', '-alias');
    await ok('ifconfig', 'tn0', 'inet6', '2001:db8::9', '-alias');
  });

  it('injects a fault on all workers, adds its hits, and removes it', async () => {
    await ok('fault', 'add', 'drop', '--point', 'rx', '--rate', '1', '--match', 'tcp port 80');
    const script = `
import json, socket
lost = 0
cs = []
for i in range(16):
    c = socket.socket(); c.setblocking(False); cs.append(c)
    try: c.connect(('192.0.2.2', 80))
    except BlockingIOError: pass
import time; time.sleep(2)
for c in cs:
    try: c.getpeername()
    except OSError: lost += 1
print(lost)`;
    expect(await python<number>(ns, script)).to.equal(16);
    const [fault] = await tapnic.json<{ id: number; hits: number }[]>('fault', 'list');
    expect(fault!.hits).to.be.at.least(16);
    await ok('fault', 'remove', String(fault!.id));
    expect(await curls(ns, tapnic.urlOf('small'), 16)).to.deep.equal({ [small]: 16 });
    expect(await tapnic.json('fault', 'list')).to.deep.equal([]);
  });

  for (const [what, ...args] of [
    ['nth', 'drop', '--nth', '3'],
    ['rate', 'rate', '--rate', '1000000'],
  ])
    it(`refuses a fault with ${what}, and names the remedy`, async () => {
      const { status, stderr } = await tapnic.command('fault', 'add', ...args);
      expect(status).to.equal(1);
      expect(stderr).to.match(/^tapnic: .*each worker would count .*use --workers 1\n$/);
      expect(await tapnic.json('fault', 'list')).to.deep.equal([]);
    });

  it('refuses a live capture, and names the remedy', async () => {
    const { status, stderr } = await tapnic.command('capture', 'wire', '-w', '-');
    expect(status).to.equal(1);
    expect(stderr).to.match(/^tapnic: capture: not with several workers: .*use --workers 1\n$/);
  });

  it('answers several requests of one client in their order', async () => {
    const script = `
import json, socket, sys
c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1])
c.sendall(b''.join(json.dumps({'id': i, 'cmd': ['vmstat', 'netstat', 'info'][i % 3],
  'args': [{'report': 'z'}, {'report': 's'}, {}][i % 3]}).encode() + b'\\n' for i in range(30)))
f = c.makefile()
got = [json.loads(f.readline()) for i in range(30)]
print(json.dumps([[a['id'], a['ok']] for a in got]))`;
    const answers = await python<[number, boolean][]>(ns, script, tapnic.control);
    expect(answers).to.deep.equal(Array.from({ length: 30 }, (_, i) => [i, true]));
  });
});

describe('netns: kinds of serve --workers', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(120_000);
  const site = new Site();
  let small = '';
  before(() => (small = sha256(site.file('small', SMALL))));
  after(() => site[Symbol.dispose]());

  for (const args of [
    ['--mode', 'vnet'],
    ['--napi', 'thread'],
    ['--engine', 'ts'],
    ['--nic', 'tp'],
    ['--fault', 'delay,delay=1'],
    ['--port', '8080', '--addr6', 'none'],
  ])
    it(`serves with ${args.join(' ')}`, async () => {
      using ns = new Netns();
      const tapnic = await Instance.start(ns, ['serve', site.dir, '--workers', '3', ...args]);
      try {
        const families = tapnic.ready.addr6 === null ? ([4] as const) : ([4, 6] as const);
        for (const family of families)
          expect(await curls(ns, tapnic.urlOf('small', family), 16)).to.deep.equal({ [small]: 16 });
      } finally {
        const exit = await tapnic.stop();
        expect(exit.code, exit.stderr).to.equal(0);
        expect(exit.leaked).to.deep.equal({});
      }
    });

  it('looks for duplicates and announces its address once', async () => {
    using ns = new Netns();
    const pcap = site.path('dad.txt');
    const script = `ip tuntap add nic0 mode tap multi_queue; ip link set nic0 up
      ip addr add 192.0.2.1/24 dev nic0; ip addr add 2001:db8::1/64 dev nic0 nodad
      exec tcpdump -lnni nic0 '(icmp6 and ip6[40] == 135 and src host ::) or arp' > ${pcap}`;
    const dump = ns.spawn('sh', ['-c', script], { stdio: 'ignore' });
    await sleep(1500);
    const tapnic = await Instance.start(ns, [
      'serve',
      site.dir,
      '--workers',
      '3',
      '--sysctl',
      'net.inet6.ip6.dad_count=1',
    ]);
    await sleep(1000);
    dump.kill('SIGINT');
    await sleep(500);
    const exit = await tapnic.stop();
    expect(exit.code, exit.stderr).to.equal(0);
    const lines = readFileSync(pcap, 'utf8').split('\n');
    const asked = lines.filter((line) => line.includes('who has 2001:db8::2'));
    expect(asked).to.have.lengthOf(1);
    expect(
      lines.filter((line) => line.includes('who-has 192.0.2.2 tell 192.0.2.2')),
    ).to.have.lengthOf(1);
    // The interface existed before, and stays.
    expect(ns.exec('ip', ['-d', 'link', 'show', 'nic0'])).to.contain('multi_queue');
    expect(tapnic.ready.created).to.equal(false);
  });

  it('refuses a persistent TAP with one queue, and names the remedy', async () => {
    using ns = new Netns();
    ns.exec('ip', ['tuntap', 'add', 'nic0', 'mode', 'tap']);
    const { status, stderr } = await run(ns, site, '--workers', '2');
    expect(status).to.equal(1);
    expect(stderr).to.match(/^tapnic: .*nic0 exists and is not a multi-queue TAP: .*\n$/);
  });

  it('is one stack on one queue with --workers 1', async () => {
    using ns = new Netns();
    const tapnic = await Instance.start(ns, ['serve', site.dir, '--workers', '1']);
    expect(tapnic.ready).to.include({ workers: 1 });
    expect(ns.exec('ip', ['-d', 'link', 'show', 'nic0'])).not.to.contain('multi_queue');
    expect(readFileSync(`/proc/${tapnic.pid}/status`, 'utf8')).to.match(/Threads:\s+1?\d\n/);
    const exit = await tapnic.stop();
    expect(exit.code, exit.stderr).to.equal(0);
  });

  for (const [args, text] of [
    [['--addr', 'dhcp'], /--addr dhcp: give a fixed address/],
    [['--addr6', 'auto'], /--addr6 auto: give a fixed address/],
    [['--capture', 'wire=x.pcap'], /--capture: run tcpdump -i nic0/],
    [['--add-nic', 'nic1'], /--add-nic: use one NIC/],
    [['--fault', 'drop,nth=3'], /--fault drop,nth: each worker would count/],
    [['--memory', '24M'], /each worker needs 16M: give --memory 32M/],
    [['--driver', 'tuntap2', '--engine', 'ts'], /--driver tuntap2: use --driver native/],
  ] as const)
    it(`refuses ${args.join(' ')} in one line`, async () => {
      using ns = new Netns();
      const { status, stderr } = await run(ns, site, '--workers', '2', ...args);
      expect(stderr).to.match(text);
      expect(stderr.trim().split('\n')).to.have.lengthOf(1);
      expect(status).to.equal(2);
    });

  for (const n of ['0', '65', 'x'])
    it(`refuses --workers ${n}`, async () => {
      using ns = new Netns();
      const { status, stderr } = await run(ns, site, '--workers', n);
      expect(status).to.equal(2);
      expect(stderr).to.match(/^tapnic: --workers: .*\n$/);
    });
});

function run(ns: Netns, site: Site, ...args: string[]): Promise<Result> {
  return ns.run(process.execPath, [cliMain, 'serve', site.dir, ...args]);
}

describe('netns: the end of serve --workers', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(60_000);
  const site = new Site();
  before(() => site.file('large', 50_000_000));
  after(() => site[Symbol.dispose]());

  const links = (ns: Netns): string => ns.exec('ip', ['-br', 'link']);

  /** Starts an instance and slow downloads from it. */
  async function busy(ns: Netns, wrapper: string[] = []): Promise<Instance> {
    const tapnic = await Instance.start(ns, ['serve', site.dir, '--workers', '2'], wrapper);
    const url = tapnic.urlOf('large');
    const loads = `for i in $(seq 16); do curl -sS --limit-rate 500k -o /dev/null '${url}' & done; wait`;
    ns.spawn('sh', ['-c', loads], { stdio: 'ignore' });
    await sleep(1500);
    return tapnic;
  }

  it('stops during transfers within its time, and leaks nothing', async () => {
    using ns = new Netns();
    const tapnic = await busy(ns);
    const begun = performance.now();
    const exit = await tapnic.stop();
    expect(exit.code, exit.stderr).to.equal(0);
    expect(exit.leaked).to.deep.equal({});
    expect(performance.now() - begun).to.be.below(4000);
    expect(links(ns)).not.to.contain('nic0');
  });

  it('ends at the second signal', async () => {
    using ns = new Netns();
    const tapnic = await busy(ns);
    tapnic.kill('SIGTERM');
    await sleep(50);
    tapnic.kill('SIGTERM');
    const { code } = await tapnic.exited();
    expect(code).to.equal(1);
    expect(links(ns)).not.to.contain('nic0');
  });

  it('leaves nothing after SIGKILL', async () => {
    using ns = new Netns();
    const tapnic = await busy(ns);
    tapnic.kill('SIGKILL');
    await tapnic.exited();
    expect(links(ns)).not.to.contain('nic0');
  });

  it('ends when the TAP is deleted', async () => {
    using ns = new Netns();
    const tapnic = await busy(ns);
    ns.exec('ip', ['link', 'delete', 'nic0']);
    const { code, leaked, stderr } = await tapnic.exited();
    expect(code).to.equal(1);
    expect(leaked).to.deep.equal({});
    expect(stderr).to.contain('nic0: the interface is gone: it was deleted');
  });

  it('ends with one line when a worker ends', async () => {
    using ns = new Netns();
    const hook = site.path('hook.cjs');
    const sign = site.path('die');
    writeFileSync(
      hook,
      `const { isMainThread } = require('node:worker_threads');
       if (!isMainThread) setInterval(() => {
         if (require('node:fs').existsSync(${JSON.stringify(sign)})) process.exit(7);
       }, 50).unref();`,
    );
    const tapnic = await busy(ns, ['env', `NODE_OPTIONS=--require=${hook}`]);
    writeFileSync(sign, '');
    const { code, leaked, stderr } = await tapnic.exited();
    expect(code).to.equal(1);
    expect(leaked).to.deep.equal({});
    const errors = stderr.split('\n').filter((line) => line.includes('"level":50'));
    expect(errors).to.have.lengthOf(1);
    expect(errors[0]).to.contain('worker 1 ended: exit status 7: the instance stops');
    expect(links(ns)).not.to.contain('nic0');
  });
});
