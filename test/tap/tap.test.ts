/** Tap, Tun and tuntap against the kernel, checked with `ip`, `ping`, `tcpdump` and `ethtool`. */

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { netnsExists } from '../../src/host/netns.ts';
import { Tap, Tun, TapnicError, tuntap, type TunOptions } from '../../src/index.ts';
import { withNetns } from '../../src/host/netns.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { distRoot } from '../support/root.ts';
import { answerArpAndPing, answerPing } from './responder.ts';
import { pinged } from '../support/ping.ts';

interface IpLink {
  ifname: string;
  mtu: number;
  address?: string;
  link_type: string;
  flags: string[];
  addr_info: { family: string; local: string; prefixlen: number; tentative?: boolean }[];
  linkinfo?: { info_kind: string; info_data: Record<string, unknown> };
  stats64: { rx: { packets: number; bytes: number }; tx: { packets: number } };
}

function thrown(fn: () => unknown): TapnicError {
  try {
    fn();
  } catch (e) {
    if (e instanceof TapnicError) return e;
    throw e;
  }
  throw new Error('did not throw');
}

async function until(what: string, done: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !done(); i++) await sleep(10);
  expect(done(), what).to.equal(true);
}

describe('tap: Tap and Tun', () => {
  needs('root', 'tap', 'netns');
  let ns: Netns;
  const open: (Tap | Tun)[] = [];

  const links = (): IpLink[] =>
    JSON.parse(ns.exec('ip', ['-j', '-d', '-s', 'addr', 'show'])) as IpLink[];
  const link = (name: string): IpLink | undefined => links().find((l) => l.ifname === name);
  const keep = <T extends Tap | Tun>(stream: T): T => (open.push(stream), stream);
  const tap = (options: TunOptions = {}): Tap => keep(new Tap({ netns: ns.name, ...options }));
  const tun = (options: TunOptions = {}): Tun => keep(new Tun({ netns: ns.name, ...options }));

  beforeEach(() => (ns = new Netns('tap')));
  afterEach(async () => {
    for (const stream of open.splice(0)) {
      stream.destroy();
      if (!stream.closed) await once(stream, 'close');
    }
    try {
      expect(links().map(({ ifname }) => ifname)).to.deep.equal(['lo']);
    } finally {
      ns[Symbol.dispose]();
    }
  });

  it('has the settings that `ip` shows, and changes with its properties', () => {
    const t = tap({ name: 'eth7' });
    expect(t).to.include({ name: 'eth7', isTap: true, isTun: false, created: true, isUp: false });
    expect(link('eth7')!.linkinfo).to.deep.include({ info_kind: 'tun' });
    expect(link('eth7')!.linkinfo!.info_data).to.include({ type: 'tap', pi: false });
    expect(link('eth7')!.flags).to.not.include('UP');
    expect(t.mac).to.equal(link('eth7')!.address);
    expect([t.ipv4, t.ipv6]).to.deep.equal([undefined, undefined]);

    t.mac = '02:00:5e:00:53:07';
    t.mtu = 1400;
    t.ipv4 = '198.51.100.1/28';
    t.ipv4 = '192.0.2.1/24'; // replaces the other address
    t.isUp = true;
    t.ipv6 = '2001:db8::1/64';
    t.ipv6 = '2001:db8::1:0:0:1/80'; // adds an address
    const now = link('eth7')!;
    expect(now.mtu).to.equal(1400);
    expect(now.address).to.equal('02:00:5e:00:53:07');
    expect(now.flags).to.include.members(['UP', 'LOWER_UP']);
    const addrs = now.addr_info.map((a) => `${a.local}/${a.prefixlen}`);
    expect(addrs).to.include.members(['192.0.2.1/24', '2001:db8::1/64', '2001:db8::1:0:0:1/80']);
    expect(addrs).to.not.include('198.51.100.1/28');
    const global = now.addr_info.filter(({ local }) => local.startsWith('2001:'));
    expect(global.map(({ tentative }) => tentative)).to.deep.equal([undefined, undefined]);
    expect(t).to.include({ isUp: true, mtu: 1400, mac: '02:00:5e:00:53:07', ipv4: '192.0.2.1/24' });
    expect(addrs).to.include(t.ipv6);
    t.ipv4 = '192.0.2.1/24';
    t.ipv6 = '2001:db8::1/64';

    // Changes made by others are visible: no value is cached.
    ns.exec('ip', ['link', 'set', 'eth7', 'down', 'mtu', '1300']);
    expect(t).to.include({ isUp: false, mtu: 1300 });
  });

  it('gets a name from the kernel if none is given', () => {
    expect(tap().name).to.equal('tap0');
    expect(tap().name).to.equal('tap1');
    expect(tun().name).to.equal('tun0');
    expect(links().map(({ ifname }) => ifname)).to.have.members(['lo', 'tap0', 'tap1', 'tun0']);
  });

  it('delivers ARP and ping of Linux, and the replies, frame by frame', async () => {
    const t = tap({ name: 'eth7' });
    t.ipv4 = '192.0.2.1/24';
    t.isUp = true;
    const sent = answerArpAndPing(t, '192.0.2.2');
    expect(await pinged(ns, '192.0.2.2', 20, 1000)).to.equal(20);
    expect(ns.exec('ip', ['neigh'])).to.include('192.0.2.2 dev eth7 lladdr 02:00:5e:00:53:02');
    // Linux counts exactly the frames we wrote as received.
    expect(link('eth7')!.stats64.rx).to.include({ packets: sent.frames, bytes: sent.bytes });
    expect(sent.frames).to.be.within(21, 23);
  });

  it('sends the bytes it was given: tcpdump shows them', async () => {
    const t = tap({ name: 'eth7' });
    t.isUp = true;
    const dump = ns.run('tcpdump', ['-i', 'eth7', '-n', '-xx', '-c', '3', 'ether proto 0x88b5']);
    const payload = [14, 60, 1514].map((length) => {
      const frame = Buffer.alloc(length, length & 0xff);
      frame.write('ffffffffffff02005e00530288b5', 'hex');
      return frame;
    });
    const state = { dumped: false };
    void dump.then(() => (state.dumped = true));
    // Repeat until tcpdump listens; it ends after the first three frames it sees.
    for (let i = 0; i < 300 && !state.dumped; i++) {
      for (const frame of payload) t.write(frame);
      await sleep(20);
    }
    const { stdout, stderr } = await dump;
    const hex = stdout.replace(/^.*0x[0-9a-f]+: {2}(.*)$/gm, '$1').replace(/\s+/g, '');
    expect(stderr).to.match(/3 packets captured/);
    for (const length of [14, 60, 1514]) {
      expect(stdout).to.match(new RegExp(`length ${length}\\b`));
      expect(hex).to.include(payload.find((f) => f.length === length)!.toString('hex'));
    }
  });

  it('delivers frames to async iteration', async () => {
    const t = tap({ name: 'eth7' });
    t.ipv4 = '192.0.2.1/24';
    t.isUp = true;
    const ping = ns.run('ping', ['-c', '1', '-W', '1', '192.0.2.99']);
    let asked: Buffer | undefined;
    for await (const chunk of t) {
      const frame = chunk as Buffer;
      if (frame.readUInt16BE(12) !== 0x0806) continue;
      asked = frame;
      break;
    }
    // The ARP request was for 192.0.2.99. Leaving the loop has closed the interface.
    expect([...asked!.subarray(38, 42)]).to.deep.equal([192, 0, 2, 99]);
    expect(t.destroyed).to.equal(true);
    await ping;
  });

  it('carries IP packets as a Tun, and has no MAC address', async () => {
    const t = tun({ name: 'wg7' });
    expect(t).to.include({ name: 'wg7', isTap: false, isTun: true });
    expect(link('wg7')!.linkinfo!.info_data).to.include({ type: 'tun', pi: false });
    t.ipv4 = '192.0.2.1/24';
    t.isUp = true;
    expect(t.mac).to.equal('00:00:00:00:00:00');
    expect(thrown(() => (t.mac = '02:00:5e:00:53:07')).code).to.equal('EOPNOTSUPP');
    answerPing(t);
    expect(await pinged(ns, '192.0.2.77', 5)).to.equal(5);
  });

  it('has the virtio-net header and accepts offloads when requested', async () => {
    const t = tap({ name: 'eth7', vnetHdr: true, offloads: ['csum', 'tso4'] });
    t.ipv4 = '192.0.2.1/24';
    t.isUp = true;
    expect(link('eth7')!.linkinfo!.info_data).to.include({ vnet_hdr: true });
    const features = ns.exec('ethtool', ['-k', 'eth7']);
    expect(features).to.match(/tx-tcp-segmentation: on/);
    expect(features).to.match(/tx-tcp6-segmentation: off/);
    answerArpAndPing(t, '192.0.2.2', 12);
    expect(await pinged(ns, '192.0.2.2', 3)).to.equal(3);
  });

  it('has the requested number of queues', async () => {
    const t = tap({ name: 'eth7', queues: 4 });
    t.ipv4 = '192.0.2.1/24';
    t.isUp = true;
    const data = link('eth7')!.linkinfo!.info_data;
    expect(data).to.include({ multi_queue: true, numqueues: 4 });
    answerArpAndPing(t, '192.0.2.2');
    // Many flows, so that Linux uses many queues. Every packet must arrive through one of them.
    const before = t.listenerCount('data');
    let echoes = 0;
    t.on('data', (frame: Buffer) => {
      if (frame.length > 42 && frame[23] === 17) echoes++;
    });
    expect(before).to.equal(1);
    const script =
      'for p in $(seq 2000 2199); do echo hello > /dev/udp/192.0.2.2/$p 2>/dev/null; done';
    await ns.execAsync('ping', ['-c', '1', '192.0.2.2']);
    await ns.run('bash', ['-c', script]);
    await until('200 datagrams', () => echoes === 200);
    expect(t.name).to.equal('eth7');
    const named = tap({ queues: 2 });
    expect(link(named.name)!.linkinfo!.info_data).to.include({ numqueues: 2 });
  });

  it('stays when it is persistent, and can be attached again', async () => {
    const first = tap({ name: 'eth7', persist: true });
    first.mtu = 1234;
    first.destroy();
    await once(first, 'close');
    expect(link('eth7')).to.include({ mtu: 1234 });
    const again = tap({ name: 'eth7' });
    expect(again).to.include({ created: false, mtu: 1234 });
    again.destroy();
    await once(again, 'close');
    expect(link('eth7')).to.not.equal(undefined);
    const last = tap({ name: 'eth7', persist: false });
    last.destroy();
    await once(last, 'close');
    expect(link('eth7')).to.equal(undefined);
  });

  it('is created only in the given namespace', () => {
    tap({ name: 'eth7' });
    expect(execFileSync('ip', ['link'], { encoding: 'utf8' })).to.not.include('eth7');
    expect(thrown(() => tap({ netns: `${ns.name}-none` })).code).to.equal('ENOENT');
    expect(netnsExists(`${ns.name}-none`)).to.equal(false);
  });

  it('throws an Error with code and syscall', () => {
    tap({ name: 'eth7' });
    const busy = thrown(() => tap({ name: 'eth7' }));
    expect(busy).to.include({ code: 'EBUSY', syscall: 'TUNSETIFF eth7', name: 'TapnicError' });
    expect(busy.message).to.include('stop its user or choose another name');
    tap({ name: 'many7', queues: 2 });
    expect(thrown(() => tap({ name: 'many7', queues: 2 })).code, 'a third queue').to.equal('EBUSY');
    expect(link('many7')!.linkinfo!.info_data).to.include({ numqueues: 2 });
    const bad: [TunOptions, string][] = [
      [{ name: '' }, 'EINVAL'],
      [{ name: 'a/b' }, 'EINVAL'],
      [{ name: 'lo' }, 'EINVAL'],
      [{ name: '0123456789abcdef' }, 'EINVAL'],
      [{ name: 'x', queues: 0 }, 'EINVAL'],
      [{ name: 'x', queues: 1.5 }, 'EINVAL'],
      [{ name: 'x', queues: 33 }, 'EINVAL'],
      [{ name: 'x', offloads: ['csum'] }, 'EINVAL'],
      [{ name: 'x', vnetHdr: true, offloads: ['tso4'] }, 'EINVAL'],
      [{ name: 'x', sndbuf: 0 }, 'EINVAL'],
    ];
    for (const [options, code] of bad)
      expect(thrown(() => tap(options)).code, JSON.stringify(options)).to.equal(code);
    const t = tap();
    for (const mac of ['', 'nonsense', '02:00:5e:00:53', '02:00:5e:00:53:zz'])
      expect(thrown(() => (t.mac = mac)).code, mac).to.equal('EINVAL');
    expect(thrown(() => (t.mac = '01:00:5e:00:00:01')).code).to.equal('EADDRNOTAVAIL');
    for (const mtu of [0, -1, 67, 65522, 1500.5, NaN, 2 ** 33])
      expect(thrown(() => (t.mtu = mtu)).code, String(mtu)).to.equal('EINVAL');
    for (const cidr of ['', '192.0.2.1', '192.0.2.1/33', '2001:db8::1/64', 'x/24'])
      expect(thrown(() => (t.ipv4 = cidr)).code, cidr).to.equal('EINVAL');
    for (const cidr of ['', '2001:db8::1', '2001:db8::1/129', '192.0.2.1/24'])
      expect(thrown(() => (t.ipv6 = cidr)).code, cidr).to.equal('EINVAL');
  });

  it('fails a write with EIO while the link is down, and with ENODEV when the interface is gone', async () => {
    const down = tap({ name: 'eth7' });
    down.write(Buffer.alloc(60));
    const [e] = (await once(down, 'error')) as [TapnicError];
    expect(e).to.include({ code: 'EIO', syscall: 'write eth7' });
    expect(e.message).to.include('set isUp first');
    await until('closed', () => down.closed);

    for (const reading of [true, false]) {
      const gone = tap({ name: 'eth8' });
      gone.isUp = true;
      const failed = once(gone, 'error');
      if (reading) gone.resume();
      ns.exec('ip', ['link', 'delete', 'eth8']);
      if (!reading) gone.write(Buffer.alloc(60));
      const [why] = (await failed) as [TapnicError];
      expect(why.code, `reading ${reading}`).to.equal('ENODEV');
      expect(gone.isUp).to.equal(false);
    }
  });

  it('closes on end, destroy and release, after the queued frames are written', async () => {
    const ending = tap({ name: 'eth7' });
    ending.isUp = true;
    const frames = Array.from({ length: 50 }, () => Buffer.alloc(60, 0xff));
    for (const frame of frames.slice(1)) ending.write(frame);
    const before = link('eth7')!.stats64.rx.packets;
    ending.end(frames[0]);
    await once(ending, 'close');
    expect(before).to.be.at.most(50);
    expect(link('eth7')).to.equal(undefined);
    expect(thrown(() => ending.mtu)).to.include({ code: 'EBADF' });
    expect(ending.isUp).to.equal(false);

    const released = tap({ name: 'eth7', persist: true });
    released.isUp = true;
    released.cork(); // so that all frames still wait
    for (const frame of frames) released.write(frame);
    released.pause();
    await new Promise<void>((resolve) => released.release(resolve));
    expect(released.closed).to.equal(true);
    expect(link('eth7')!.stats64.rx.packets, 'all frames written').to.equal(50);
    let again = 0;
    released.release(() => again++);
    await until('called back', () => again === 1);
    tap({ name: 'eth7', persist: false }).destroy();

    const destroyed = tap({ name: 'eth9' });
    destroyed.destroy(new Error('mine'));
    const [e] = (await once(destroyed, 'error')) as [Error];
    expect(e.message).to.equal('mine');
    expect(link('eth9')).to.equal(undefined);
  });

  it('emits open and ready', async () => {
    const t = tap();
    const events: string[] = [];
    t.on('open', () => events.push('open'));
    await once(t, 'ready');
    expect(events).to.deep.equal(['open']);
  });

  it('is created by tuntap(options) as the options describe', () => {
    const legacy = (options: Parameters<typeof tuntap>[0]): Tap | Tun =>
      keep(withNetns(ns.name, () => tuntap(options)));
    const t = legacy({
      type: 'tap',
      mtu: 1400,
      addr: '192.0.2.1',
      mask: '255.255.255.240',
      up: true,
      persist: true,
    });
    expect(t).to.be.instanceOf(Tap);
    expect(t).to.include({ mtu: 1400, ipv4: '192.0.2.1/28', isUp: true });
    expect(link(t.name)!.addr_info[0]).to.include({ local: '192.0.2.1', prefixlen: 28 });
    expect(legacy({ type: 'tun', addr: '192.0.2.9' }).ipv4).to.equal('192.0.2.9/32');
    const before = links().length;
    for (const options of [
      { name: 'eth7' },
      { type: 'bridge' as 'tap' },
      { addr: '192.0.2.1', mask: '255.0.255.0' },
      { addr: '192.0.2.1', mask: 'x' },
      { addr: 'nonsense' },
      { mtu: 1 },
    ])
      expect(thrown(() => legacy(options)).code, JSON.stringify(options)).to.equal('EINVAL');
    expect(links().length, 'no interface left behind').to.equal(before);
  });

  it('takes a queue set for which there are no descriptors as a whole or not at all', () => {
    const code = `
      import { Tap } from ${JSON.stringify(pathToFileURL(join(distRoot, 'src/index.js')))};
      try {
        new Tap({ name: 'many7', queues: 32 });
      } catch (e) {
        console.log(e.message);
      }`;
    const script = `ulimit -n 45; exec "${process.execPath}" --input-type=module -e "$CODE"`;
    ns.exec('ip', ['tuntap', 'add', 'dev', 'many7', 'mode', 'tap', 'multi_queue']);
    const out = ns.exec('bash', ['-c', script], { env: { ...process.env, CODE: code } });
    expect(out).to.equal(
      '/dev/net/tun: EMFILE: this process has as many files open as it may: raise its limit ' +
        '(ulimit -n)\n',
    );
    ns.exec('ip', ['link', 'del', 'many7']);
  });

  it('opens more queues in all than 64', async () => {
    const taps = ['many1', 'many2', 'many3'].map((name) => tap({ name, queues: 32 }));
    for (const t of taps) expect(link(t.name)!.linkinfo!.info_data).to.include({ numqueues: 32 });
    for (const t of taps) t.destroy();
    await Promise.all(taps.map((t) => once(t, 'close')));
  });

  it('names a remedy without the privilege, and lets the process end', () => {
    const code = `
      import { Tap } from ${JSON.stringify(pathToFileURL(join(distRoot, 'src/index.js')))};
      try {
        const tap = new Tap();
        tap.isUp = true;
        tap.write(Buffer.alloc(60));
        console.log(tap.name);
      } catch (e) {
        console.log(e.code, e.message);
      }`;
    const run = (...as: string[]): string =>
      ns.exec(as[0] ?? process.execPath, [
        ...as.slice(1),
        ...(as.length > 0 ? [process.execPath] : []),
        '--input-type=module',
        '-e',
        code,
      ]);
    // The stream has no reader, so it does not keep the process alive.
    expect(run()).to.equal('tap0\n');
    expect(run('setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin')).to.equal(
      'EPERM TUNSETIFF: EPERM: run as root or add --device /dev/net/tun --cap-add NET_ADMIN\n',
    );
  });
});
