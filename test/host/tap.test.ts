import { expect } from 'chai';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { join } from 'node:path';
import { addonPaths, loadAddon } from '../../native-bindings/index.ts';
import { allocArena } from '../../src/host/arena.ts';
import {
  createNetns,
  loopbackUp,
  netnsExists,
  netnsUsers,
  removeNetns,
  withNetns,
} from '../../src/host/netns.ts';
import { openTap, type TapOptions, TapWire, TUN_F_CSUM, TUN_F_TSO4 } from '../../src/host/tap.ts';
import { EAGAIN, EINVAL, EIO, ENXIO, TapnicError } from '../../src/sys/errno.ts';
import { needs } from '../support/needs.ts';
import { distRoot } from '../support/root.ts';

const NETNS = `tapnic-tap-${process.pid}`;
const SIZE = 16 * 1024 * 1024;

interface IpLink {
  ifname: string;
  mtu: number;
  address: string;
  flags: string[];
  operstate: string;
  addr_info: {
    family: string;
    local: string;
    prefixlen: number;
    broadcast?: string;
    tentative?: boolean;
  }[];
}

function ip(...args: string[]): string {
  return execFileSync('ip', ['-n', NETNS, ...args], { encoding: 'utf8' });
}

function ipAddr(name: string): IpLink {
  const [link] = JSON.parse(ip('-j', 'addr', 'show', 'dev', name)) as IpLink[];
  return link!;
}

function exists(name: string): boolean {
  return spawnSync('ip', ['-n', NETNS, 'link', 'show', name]).status === 0;
}

/** Runs `fn` and returns the TapnicError it must throw. */
function thrown(fn: () => unknown): TapnicError {
  try {
    fn();
  } catch (e) {
    if (e instanceof TapnicError) return e;
    throw e;
  }
  throw new Error('did not throw');
}

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !done(); i++) await new Promise((r) => setTimeout(r, 4));
  expect(done()).to.equal(true);
}

describe('host: TAP', () => {
  needs('root', 'tap', 'ip');
  let arena: ArrayBuffer;
  let mem: Uint8Array;
  const open: TapWire[] = [];

  function tap(options: Partial<TapOptions> = {}): TapWire {
    const wire = openTap({ arena, name: 'nic0', netns: NETNS, ...options });
    open.push(wire);
    return wire;
  }

  before(() => {
    createNetns(NETNS);
    withNetns(NETNS, loopbackUp);
    arena = allocArena(SIZE);
    mem = new Uint8Array(arena);
  });
  afterEach(() => {
    for (const wire of open.splice(0)) wire.close();
    expect(exists('nic0')).to.equal(false);
  });
  after(() => {
    if (netnsExists(NETNS)) removeNetns(NETNS);
  });

  it('has the settings that `ip` shows', () => {
    const wire = tap({
      hostMac: '02:00:5e:00:53:01',
      mtu: 1400,
      hostAddr: '192.0.2.1/24',
      hostAddr6: '2001:db8::1/64',
    });
    expect(wire.created).to.equal(true);
    expect(wire.warnings).to.deep.equal([]);
    const link = ipAddr('nic0');
    expect(link.mtu).to.equal(1400);
    expect(link.address).to.equal('02:00:5e:00:53:01');
    expect(link.flags).to.include.members(['UP', 'LOWER_UP', 'BROADCAST']);
    const v4 = link.addr_info.find((a) => a.family === 'inet')!;
    expect(v4).to.include({ local: '192.0.2.1', prefixlen: 24, broadcast: '192.0.2.255' });
    const v6 = link.addr_info.find((a) => a.local === '2001:db8::1')!;
    expect(v6.prefixlen).to.equal(64);
    expect(v6.tentative, 'no duplicate address detection').to.equal(undefined);

    expect(wire.link()).to.deep.equal({
      ifindex: wire.ifindex,
      up: true,
      mtu: 1400,
      mac: '02:00:5e:00:53:01',
      txqueuelen: 1000,
      ipv6: true,
    });
    wire.close();
    expect(exists('nic0')).to.equal(false);
  });

  it('is created only in the given namespace, and the thread returns to its own', () => {
    const home = execFileSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' });
    tap();
    expect(exists('nic0')).to.equal(true);
    expect(existsSync('/sys/class/net/nic0')).to.equal(false);
    expect(execFileSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' })).to.equal(home);
  });

  it('changes with its setters', () => {
    const wire = tap({ hostAddr: '192.0.2.1/24' });
    wire.setMtu(9000);
    wire.setMac('02-00-5E-00-53-FF');
    wire.addAddr('198.51.100.1/31');
    wire.addAddr('2001:db8:1::ffff:192.0.2.9/112');
    wire.removeAddr('192.0.2.1/24');
    wire.addRoute('203.0.113.0/24', '198.51.100.0');
    wire.addRoute('2001:db8:2::/48');
    const link = ipAddr('nic0');
    expect(link.mtu).to.equal(9000);
    expect(link.address).to.equal('02:00:5e:00:53:ff');
    const locals = link.addr_info.map((a) => `${a.local}/${a.prefixlen}`);
    expect(locals).to.include.members(['198.51.100.1/31', '2001:db8:1::ffff:c000:209/112']);
    expect(locals).to.not.include('192.0.2.1/24');
    expect(ip('route')).to.include('203.0.113.0/24 via 198.51.100.0 dev nic0');
    expect(ip('-6', 'route')).to.include('2001:db8:2::/48 dev nic0');

    expect(thrown(() => wire.setMtu(60)).code).to.equal('EINVAL');
    expect(thrown(() => wire.addAddr('198.51.100.1/31')).code).to.equal('EEXIST');
    expect(thrown(() => wire.removeAddr('192.0.2.77/24')).code).to.equal('EADDRNOTAVAIL');
    for (const bad of [
      '192.0.2.1',
      '192.0.2.1/33',
      '192.0.2.256/24',
      '2001:db8::1/129',
      'fe80::1%lo/64',
      '',
    ])
      expect(thrown(() => wire.addAddr(bad)).code, bad).to.equal('EINVAL');
    expect(thrown(() => wire.setMac('02:00:5e:00:53')).code).to.equal('EINVAL');
  });

  it('carries frames both ways, and returns EIO while it is down', async () => {
    const wire = tap({ hostAddr: '192.0.2.1/24' });
    const events: string[] = [];
    const iov = new Uint32Array([4096, 2048]);
    let arp: Uint8Array | undefined;
    wire.setListener({
      wireReadable: () => {
        for (let n = wire.readv(iov, 1); n !== -EAGAIN; n = wire.readv(iov, 1)) {
          expect(n).to.be.greaterThan(13);
          if (mem[4096 + 12] === 0x08 && mem[4096 + 13] === 0x06) arp = mem.slice(4096, 4096 + n);
        }
        events.push('readable');
      },
      wireWritable: () => events.push('writable'),
      wireState: (up, error) => events.push(`state ${up} ${error}`),
    });
    wire.setReadable(true);
    wire.armWritable();
    await until(() => events.includes('writable'));
    expect(events.filter((e) => e === 'writable')).to.have.length(1);

    // Linux sends an ARP request for 192.0.2.2, which arrives as a frame.
    spawnSync('ip', ['netns', 'exec', NETNS, 'bash', '-c', 'echo x > /dev/udp/192.0.2.2/9']);
    await until(() => arp !== undefined);
    expect([...arp!.subarray(38, 42)]).to.deep.equal([192, 0, 2, 2]);

    // Answer it, in two pieces: Linux then has the neighbour.
    const reply = arp!.slice(0, 42);
    reply.set(arp!.subarray(6, 12), 0);
    reply.set([2, 0, 0x5e, 0, 0x53, 2], 6);
    reply[21] = 2;
    reply.set([2, 0, 0x5e, 0, 0x53, 2, 192, 0, 2, 2], 22);
    reply.set(arp!.subarray(22, 32), 32);
    mem.set(reply.subarray(0, 14), 100);
    mem.set(reply.subarray(14), 9000);
    const out = new Uint32Array([100, 14, 9000, 28]);
    expect(wire.writev(out, 2)).to.equal(42);
    await until(() => ip('neigh').includes('192.0.2.2 dev nic0 lladdr 02:00:5e:00:53:02'));

    expect(wire.writev(new Uint32Array([100, 13]), 1)).to.equal(-EINVAL);
    ip('link', 'set', 'nic0', 'down');
    await until(() => events.includes('state false 0'));
    expect(wire.writev(out, 2)).to.equal(-EIO);
    ip('link', 'set', 'nic0', 'up');
    await until(() => events.includes('state true 0'));
    expect(wire.writev(out, 2)).to.equal(42);

    ip('link', 'delete', 'nic0');
    await until(() => events.includes(`state false ${ENXIO}`));
    expect(wire.writev(out, 2)).to.equal(-ENXIO);
    expect(thrown(() => wire.link()).code).to.equal('ENODEV');
  });

  it('has the 12-byte virtio-net header and accepts offloads when requested', async () => {
    const wire = tap({ vnetHdr: true, offload: TUN_F_CSUM | TUN_F_TSO4, hostAddr: '192.0.2.1/24' });
    expect(wire.vnetHdr).to.equal(true);
    const features = execFileSync('ip', ['netns', 'exec', NETNS, 'ethtool', '-k', 'nic0'], {
      encoding: 'utf8',
    });
    expect(features).to.match(/tx-tcp-segmentation: on/);
    expect(features).to.match(/tx-tcp6-segmentation: off/);
    // A frame with a header of zeros: 12 + 14 bytes at least.
    mem.fill(0, 0, 64);
    expect(wire.writev(new Uint32Array([0, 26]), 1)).to.equal(26);
    expect(wire.writev(new Uint32Array([0, 25]), 1)).to.equal(-EINVAL);
    expect(thrown(() => wire.setOffload(TUN_F_TSO4)).code).to.equal('EINVAL');
  });

  it('refuses a second opener, and names a remedy', () => {
    tap();
    const e = thrown(() => tap());
    expect(e.code).to.equal('EBUSY');
    expect(e.message).to.equal(
      'TUNSETIFF nic0: EBUSY: interface nic0 is in use: stop its user or choose another name',
    );
  });

  it('attaches a persistent TAP and leaves it as it is', () => {
    ip('tuntap', 'add', 'dev', 'keep0', 'mode', 'tap');
    try {
      ip('link', 'set', 'keep0', 'mtu', '1300');
      ip('addr', 'add', '198.51.100.9/24', 'dev', 'keep0');
      const wire = tap({ name: 'keep0', mtu: 1500, hostAddr: '192.0.2.1/24' });
      expect(wire.created).to.equal(false);
      const link = ipAddr('keep0');
      expect(link.mtu).to.equal(1300);
      expect(link.flags).to.not.include('UP');
      expect(link.addr_info.map((a) => a.local)).to.deep.equal(['198.51.100.9']);
      wire.close();
      expect(exists('keep0')).to.equal(true);
    } finally {
      ip('link', 'delete', 'keep0');
    }
  });

  it('refuses bad names and interfaces that are not single-queue TAPs, and names a remedy', () => {
    ip('tuntap', 'add', 'dev', 'many0', 'mode', 'tap', 'multi_queue');
    try {
      for (const name of ['lo', 'many0', '', 'a/b', 'tap%d', '0123456789abcdef']) {
        const e = thrown(() => tap({ name }));
        expect(e.code, name).to.equal('EINVAL');
        const there = name === 'lo' || name === 'many0';
        expect(e.message, name).to.include(
          there ? `interface ${name} exists and is not a single-queue TAP` : '1 to 15 bytes',
        );
      }
    } finally {
      ip('link', 'delete', 'many0');
    }
  });

  it('leaves no interface behind when an address is refused', () => {
    expect(thrown(() => tap({ hostAddr: '192.0.2.1' })).code).to.equal('EINVAL');
    expect(thrown(() => tap({ hostMac: '01:00:5e:00:00:01' })).code).to.equal('EADDRNOTAVAIL');
    expect(exists('nic0')).to.equal(false);
  });

  it('opens without IPv6 where it is disabled, and warns', () => {
    const all = '/proc/sys/net/ipv6/conf/default/disable_ipv6';
    const set = (n: number) =>
      execFileSync('ip', ['netns', 'exec', NETNS, 'bash', '-c', `echo ${n} > ${all}`]);
    set(1);
    try {
      const wire = tap({ hostAddr: '192.0.2.1/24', hostAddr6: '2001:db8::1/64' });
      expect(wire.link().ipv6).to.equal(false);
      expect(wire.warnings).to.deep.equal([
        'IPv6 is disabled on nic0: 2001:db8::1/64 not set; ' +
          'sysctl net.ipv6.conf.all.disable_ipv6=0 enables it',
      ]);
      expect(ipAddr('nic0').addr_info.map((a) => a.local)).to.deep.equal(['192.0.2.1']);
    } finally {
      set(0);
    }
  });

  it('opens without a NAPI thread where it cannot have one, and warns', () => {
    const wire = tap({ napi: 'thread' }); // the mounted sysfs belongs to another namespace
    expect(wire.napi).to.equal('off');
    expect(wire.warnings).to.have.length(1);
    expect(wire.warnings[0]).to.match(/^no NAPI thread: /);
    expect(wire.created).to.equal(true);
  });

  /**
   * Opens `nic1` in a separate process and namespace, after the command `first`; returns the
   * output.
   */
  function opening(options: string, { first = ':', as = '' } = {}): string {
    const module = (path: string) => JSON.stringify(pathToFileURL(join(distRoot, path)));
    const code = `
      import { allocArena } from ${module('src/host/arena.js')};
      import { openTap } from ${module('src/host/tap.js')};
      try {
        const tap = openTap({ arena: allocArena(1 << 24), name: 'nic1', ${options} });
        console.log(tap.napi, tap.warnings.join());
        tap.close();
      } catch (e) {
        console.log(e.message);
      }`;
    const script = `${first} && exec ${as} "$0" --input-type=module -e "$1"`;
    const args = ['--net', '--mount', 'bash', '-c', script, process.execPath, code];
    const { stdout, stderr } = spawnSync('unshare', args, { encoding: 'utf8' });
    return stdout.trim() + stderr;
  }

  it('has a NAPI thread where sysfs belongs to its namespace', () => {
    expect(opening(`napi: 'thread'`, { first: 'mount -t sysfs sysfs /sys' })).to.equal('thread');
  });

  it('names a remedy when the privilege or the device is missing', () => {
    const remedy = 'run as root or add --device /dev/net/tun --cap-add NET_ADMIN';
    expect(opening('')).to.equal('off');
    expect(opening('', { as: 'setpriv --bounding-set -net_admin --inh-caps -net_admin' })).to.equal(
      `TUNSETIFF nic1: EPERM: ${remedy}`,
    );
    const noNode = 'mount -t tmpfs none /dev/net';
    expect(opening('', { first: noNode })).to.equal(
      '/dev/net/tun: ENOENT: no TAP device here: modprobe tun, ' +
        'or add --device /dev/net/tun --cap-add NET_ADMIN',
    );
    const rootOnly = `${noNode} && mknod -m 600 /dev/net/tun c 10 200`;
    const nobody = 'setpriv --reuid 65534 --clear-groups --inh-caps -all';
    expect(opening('', { first: rootOnly, as: nobody })).to.equal(
      `/dev/net/tun: EACCES: ${remedy}`,
    );
  });

  it('adopts an inherited descriptor', () => {
    const addon = loadAddon();
    const addonFile = addonPaths().find((p) => existsSync(p));
    const fd = withNetns(NETNS, () => addon.tunOpen());
    const name = new TextEncoder().encode('inh0');
    expect(withNetns(NETNS, () => addon.tapAttach(fd, name, 0, 0))).to.equal(1);
    const code = `
      const addon = require(${JSON.stringify(addonFile)});
      const name = new Uint8Array(16);
      console.log(addon.tapAdopt(2), addon.tapAdopt(99), addon.tapAdopt(3), addon.tapName(3, name) & 2,
        Buffer.from(name).toString().replace(/\\0/g, ''), addon.fdClose(3));`;
    const stdio = ['ignore', 'pipe', 'inherit', fd] as const;
    const child = spawnSync(process.execPath, ['-e', code], {
      stdio: [...stdio],
      encoding: 'utf8',
    });
    expect(child.stdout.trim()).to.equal('-22 -9 3 2 inh0 0');
    addon.fdClose(fd);
    expect(exists('inh0')).to.equal(false);
  });
});

describe('host: network namespaces', () => {
  needs('root', 'ip');
  const name = `tapnic-ns-${process.pid}`;

  afterEach(() => {
    if (netnsExists(name)) removeNetns(name);
  });

  it('are visible to `ip netns`', () => {
    createNetns(name);
    expect(execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })).to.include(name);
    withNetns(name, loopbackUp);
    const flags = execFileSync('ip', ['-n', name, 'link', 'show', 'lo'], { encoding: 'utf8' });
    expect(flags).to.match(/[<,]UP[,>]/);
    expect(thrown(() => createNetns(name)).message).to.equal(
      `netns add ${name}: EEXIST: namespace ${name} exists`,
    );
    removeNetns(name);
    expect(netnsExists(name)).to.equal(false);
    expect(thrown(() => removeNetns(name)).code).to.equal('ENOENT');
    expect(thrown(() => withNetns(name, () => 0)).message).to.include('ip netns list');
    expect(thrown(() => createNetns('../x')).code).to.equal('EINVAL');
  });

  it('name a leftover file of /run/netns, and how to remove it', () => {
    createNetns(`${name}-dir`); // makes /run/netns a mount
    writeFileSync(`/run/netns/${name}`, '');
    try {
      const hint =
        `EINVAL: /run/netns/${name} is a plain file, left over from a namespace that no longer ` +
        `exists: remove it with ip netns delete ${name}`;
      expect(thrown(() => withNetns(name, () => 0)).message).to.equal(`setns ${name}: ${hint}`);
      expect(thrown(() => createNetns(name)).message).to.include('is a plain file, left over');
    } finally {
      removeNetns(name);
      removeNetns(`${name}-dir`);
    }
    expect(netnsExists(name)).to.equal(false);
  });

  it('can be removed by `ip`, and entered if `ip` made them', () => {
    createNetns(name);
    execFileSync('ip', ['netns', 'delete', name]);
    expect(netnsExists(name)).to.equal(false);
    execFileSync('ip', ['netns', 'add', name]);
    expect(withNetns(name, () => 42)).to.equal(42);
  });

  it('list the processes inside', async () => {
    createNetns(name);
    expect(netnsUsers(name)).to.deep.equal([]);
    const child = spawn('ip', ['netns', 'exec', name, 'sleep', '30'], { stdio: 'ignore' });
    try {
      await until(() => netnsUsers(name).length > 0);
      expect(netnsUsers(name)).to.deep.equal([child.pid]);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('return the thread to its namespace after a throw, and refuse an async function', () => {
    createNetns(name);
    const inside = () => execFileSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' });
    const home = inside();
    expect(withNetns(name, inside)).to.not.equal(home);
    expect(() =>
      withNetns(name, () => {
        throw new Error('mine');
      }),
    ).to.throw('mine');
    expect(inside()).to.equal(home);
    expect(() => withNetns(name, async () => 0)).to.throw('must be synchronous');
    expect(inside()).to.equal(home);
  });
});
