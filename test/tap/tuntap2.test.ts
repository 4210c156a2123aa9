/** The adapter of `--driver tuntap2`, against a stand-in with the members of that package. */

import { EventEmitter } from 'node:events';
import { expect } from 'chai';
import { allocArena } from '../../src/host/arena.ts';
import type { Tuntap2Device } from '../../src/host/tuntap2.ts';
import { Tuntap2Wire } from '../../src/host/tuntap2_wire.ts';
import { EAGAIN, EFAULT, EIO, TapnicError } from '../../src/sys/errno.ts';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { Site } from '../support/served.ts';
import { FakeTuntap2 } from '../support/tuntap2.ts';
import { TUNTAP2_MEMBERS } from './fake_tuntap2.ts';

const SIZE = 16 * 1024 * 1024;

/** A scripted device with the members of tuntap2 and no others. */
class Scripted extends EventEmitter {
  readonly name = 'tap5';
  readonly set: string[] = [];
  readonly written: Buffer[] = [];
  full = false;
  paused = false;
  released = 0;
  refuses = '';

  #assign(what: string, value: unknown): void {
    const thrown: unknown = `${what} refused`;
    if (this.refuses === what) throw thrown;
    this.set.push(`${what} ${String(value)}`);
  }

  set isUp(up: boolean) {
    this.#assign('isUp', up);
  }

  set mtu(mtu: number) {
    this.#assign('mtu', mtu);
  }

  set ipv4(cidr: string) {
    this.#assign('ipv4', cidr);
  }

  set ipv6(cidr: string) {
    this.#assign('ipv6', cidr);
  }

  write(frame: Buffer): boolean {
    this.written.push(Buffer.from(frame));
    return !this.full;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  release(): void {
    this.released++;
    this.emit('close');
  }

  /** The device as the adapter gets it: access to a member that tuntap2 lacks fails. */
  get device(): Tuntap2Device {
    const proxy: unknown = new Proxy(this, {
      get: (target, key) => {
        expect(TUNTAP2_MEMBERS, 'a member of tuntap2').to.include(key);
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
      set: (target, key, value) => {
        expect(TUNTAP2_MEMBERS, 'a member of tuntap2').to.include(key);
        return Reflect.set(target, key, value, target);
      },
    });
    return proxy as Tuntap2Device;
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('tap: Tuntap2Wire', () => {
  const OPTIONS = { mtu: 1400, hostAddr: '192.0.2.1/24', hostAddr6: '2001:db8::1/64' };
  const iov = new Uint32Array([4096, 2048]);
  let arena: ArrayBuffer;
  let mem: Uint8Array;
  let scripted: Scripted;
  let events: string[];

  function wire(options: Partial<typeof OPTIONS> = {}): Tuntap2Wire {
    const made = new Tuntap2Wire(arena, scripted.device, { ...OPTIONS, ...options });
    made.setListener({
      wireReadable: () => events.push('readable'),
      wireWritable: () => events.push('writable'),
      wireState: (up, error) => events.push(`state ${up} ${error}`),
    });
    return made;
  }

  before(() => {
    arena = allocArena(SIZE);
    mem = new Uint8Array(arena);
  });
  beforeEach(() => {
    scripted = new Scripted();
    events = [];
  });

  it('configures the device through its properties', () => {
    const w = wire();
    expect(scripted.set).to.deep.equal([
      'mtu 1400',
      'isUp true',
      'ipv4 192.0.2.1/24',
      'ipv6 2001:db8::1/64',
    ]);
    expect(w).to.include({ name: 'tap5', created: true, vnetHdr: false, napi: 'off' });
    expect(w.warnings).to.deep.equal([]);
    w.close();
    w.close();
    expect(scripted.released).to.equal(1);
    expect(events, 'no event after close').to.deep.equal([]);
  });

  it('turns what the device throws into Errors, and continues without IPv6', () => {
    scripted.refuses = 'ipv6';
    expect(wire().warnings).to.deep.equal(['tuntap2 2001:db8::1/64: EIO: ipv6 refused']);
    scripted.refuses = 'ipv4';
    expect(() => wire())
      .to.throw(TapnicError, 'tuntap2 192.0.2.1/24: EIO: ipv4 refused')
      .with.property('code', 'EIO');
    expect(scripted.released, 'released').to.equal(1);
  });

  it('gathers a frame out of the arena, and waits for drain', async () => {
    const w = wire();
    mem.set(Buffer.from('hello, '), 100);
    mem.set(Buffer.from('wire'), 9000);
    const out = new Uint32Array([100, 7, 9000, 4]);
    expect(w.writev(out, 2)).to.equal(11);
    scripted.full = true;
    expect(w.writev(out, 2), 'the frame that fills it is accepted').to.equal(11);
    expect(w.writev(out, 2)).to.equal(-EAGAIN);
    expect(scripted.written.map(String)).to.deep.equal(['hello, wire', 'hello, wire']);
    w.armWritable();
    await turn();
    expect(events).to.deep.equal([]);
    scripted.full = false;
    scripted.emit('drain');
    expect(events, 'not inside the call').to.deep.equal([]);
    await turn();
    expect(events).to.deep.equal(['writable']);
    scripted.emit('drain');
    await turn();
    expect(events, 'once').to.deep.equal(['writable']);
    expect(w.writev(out, 2)).to.equal(11);
    expect(w.writev(new Uint32Array([SIZE - 4, 8]), 1)).to.equal(-EFAULT);
    expect(w.writev(new Uint32Array([0xffffffff, 0xffffffff]), 1)).to.equal(-EFAULT);
    w.close();
  });

  it('scatters frames into the arena, once reading is on', async () => {
    const w = wire();
    expect(scripted.listenerCount('data'), 'reading is off').to.equal(0);
    w.setReadable(true);
    scripted.emit('data', Buffer.from('first frame'));
    scripted.emit('data', Buffer.from('second'));
    expect(events, 'not inside the call').to.deep.equal([]);
    await turn();
    expect(events).to.deep.equal(['readable']);
    expect(w.readv(new Uint32Array([4096, 5, 8192, 100]), 2)).to.equal(11);
    expect(Buffer.from(mem.subarray(4096, 4101)).toString()).to.equal('first');
    expect(Buffer.from(mem.subarray(8192, 8198)).toString()).to.equal(' frame');
    await turn();
    expect(events, 'one frame is left').to.deep.equal(['readable', 'readable']);
    expect(w.readv(new Uint32Array([4096, 3]), 1), 'truncated to the buffer').to.equal(3);
    expect(w.readv(iov, 1)).to.equal(-EAGAIN);
    w.setReadable(false);
    scripted.emit('data', Buffer.from('later'));
    await turn();
    expect(events).to.have.lengthOf(2);
    w.setReadable(true);
    await turn();
    expect(events).to.have.lengthOf(3);
    expect(w.readv(iov, 1)).to.equal(5);
    w.close();
  });

  it('pauses the device when frames pile up', async () => {
    const w = wire();
    w.setReadable(true);
    w.setReadable(false);
    for (let i = 0; i < 256; i++) {
      expect(scripted.paused, String(i)).to.equal(false);
      scripted.emit('data', Buffer.alloc(60, i));
    }
    expect(scripted.paused).to.equal(true);
    for (let i = 0; i < 256; i++) {
      expect(w.readv(iov, 1)).to.equal(60);
      expect(mem[4096]).to.equal(i);
      expect(scripted.paused).to.equal(i < 128);
    }
    w.close();
    await turn();
  });

  it('reports link down with an error when the device fails or closes by itself', async () => {
    for (const event of ['error', 'close']) {
      scripted = new Scripted();
      events = [];
      const w = wire();
      scripted.emit(event, new Error('EIO'));
      expect(events).to.deep.equal([`state false ${EIO}`]);
      expect(w.writev(iov, 1)).to.equal(-EIO);
      expect(w.readv(iov, 1)).to.equal(-EIO);
      w.close();
      await turn();
    }
  });
});

describe('tap: --driver tuntap2', () => {
  needs('root', 'tap', 'netns', 'curl');
  const fake = new FakeTuntap2();
  const site = new Site();

  after(() => {
    fake[Symbol.dispose]();
    site[Symbol.dispose]();
  });

  it('serves a file through a TAP that the package opened', async () => {
    using ns = new Netns('t2');
    const bytes = site.file('file.bin', 2_000_000);
    const args = ['serve', site.dir, '--driver', 'tuntap2'];
    const tapnic = await Instance.start(ns, args, fake.wrapper);
    expect(tapnic.ready).to.include({ tap: 'tap0', mode: 'wire', engine: 'ts', created: true });
    const out = site.path('out');
    expect(await tapnic.curl('-o', out, tapnic.urlOf('file.bin'))).to.include({ status: 0 });
    const cmp = await ns.run('cmp', [out, site.path('file.bin')]);
    expect([cmp.status, bytes.length]).to.deep.equal([0, 2_000_000]);
    const { code, leaked, stderr } = await tapnic.stop();
    expect({ code, leaked, stderr }).to.deep.equal({ code: 0, leaked: {}, stderr: '' });
    expect(ns.exec('ip', ['-br', 'link'])).to.not.include('tap0');
  });

  it('says how to install the package when it is missing', async () => {
    using ns = new Netns('t2');
    const args = [cliMain, 'serve', site.dir, '--driver', 'tuntap2', '--json'];
    const { status, stdout, stderr } = await ns.run(process.execPath, args);
    expect([status, stdout]).to.deep.equal([1, '']);
    expect(stderr).to.equal(
      'tapnic: tuntap2: ERR_MODULE_NOT_FOUND: the optional package is not installed: ' +
        'npm install tuntap2@^0.9.1\n',
    );
  });

  it('refuses options that the package does not support', async () => {
    using ns = new Netns('t2');
    const conflicts: [string[], string][] = [
      [['--tap', 'nic0'], '--tap: tuntap2 has no choice of a name'],
      [['--netns', 'x'], '--netns: tuntap2 opens only in the current namespace'],
      [['--mode', 'vnet'], '--mode: tuntap2 has only wire'],
      [['--engine', 'native'], '--engine: tuntap2 has only ts'],
    ];
    for (const [args, why] of conflicts) {
      const all = [cliMain, 'serve', site.dir, '--driver', 'tuntap2', ...args];
      const { status, stderr } = await ns.run(process.execPath, all);
      expect([status, stderr]).to.deep.equal([2, `tapnic: --driver: conflicts with ${why}\n`]);
    }
  });
});
