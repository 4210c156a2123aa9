import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { addonPaths, loadAddon } from '../../native-bindings/index.ts';
import { allocArena } from '../../src/host/arena.ts';
import { NativeCksum } from '../../src/host/cksum.ts';
import { type FdWire, socketPairWires } from '../../src/host/fd_wire.ts';
import { FdPoll } from '../../src/host/poll.ts';
import { EAGAIN, EBADF, EIO, EPIPE } from '../../src/sys/errno.ts';
import { bytesPerCall } from '../support/alloc.ts';

const addonFile = addonPaths().find((p) => existsSync(p));

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !done(); i++) await new Promise((r) => setTimeout(r, 2));
  expect(done()).to.equal(true);
}

describe('addon: descriptors on the event loop', () => {
  let arena: ArrayBuffer;
  let mem: Uint8Array;
  const open: FdWire[] = [];
  const iov = new Uint32Array([0, 1000]);
  const into = new Uint32Array([8192, 4096]);

  before(() => {
    arena = allocArena(16 * 1024 * 1024);
    mem = new Uint8Array(arena);
  });
  afterEach(() => {
    for (const wire of open.splice(0)) wire.close();
  });

  function pair(bufBytes = 0): [FdWire, FdWire] {
    const wires = socketPairWires(arena, false, bufBytes);
    open.push(...wires);
    return wires;
  }

  function watch(wire: FdWire): {
    readable: number;
    writable: number;
    state: string[];
    read: number[];
  } {
    const seen = { readable: 0, writable: 0, state: [] as string[], read: [] as number[] };
    wire.setListener({
      wireReadable: () => {
        seen.readable++;
        for (let n = wire.readv(into, 1); n !== -EAGAIN; n = wire.readv(into, 1)) {
          seen.read.push(n);
          if (n < 0) {
            wire.setReadable(false);
            return;
          }
        }
      },
      wireWritable: () => void seen.writable++,
      wireState: (up, error) => void seen.state.push(`${up} ${error}`),
    });
    return seen;
  }

  it('report frames while reading is on, never inside a call', async () => {
    const [a, b] = pair();
    const seen = watch(b);
    mem.fill(0x41, 0, 1000);
    expect(a.writev(iov, 1)).to.equal(1000);
    await new Promise((r) => setTimeout(r, 10));
    expect(seen.readable).to.equal(0); // off at the start
    b.setReadable(true);
    expect(seen.readable).to.equal(0);
    await until(() => seen.read.length === 1);
    expect(seen.read).to.deep.equal([1000]);
    expect(mem[8192 + 999]).to.equal(0x41);
    for (let i = 0; i < 50; i++) expect(a.writev(iov, 1)).to.equal(1000);
    await until(() => seen.read.length === 51);
    b.setReadable(false);
    const before = seen.readable;
    a.writev(iov, 1);
    await new Promise((r) => setTimeout(r, 10));
    expect(seen.readable).to.equal(before);
  });

  it('report room once after EAGAIN', async () => {
    const [a, b] = pair(4096);
    const seen = watch(a);
    let n = 0;
    while (n >= 0) n = a.writev(iov, 1);
    expect(n).to.equal(-EAGAIN);
    a.armWritable();
    await new Promise((r) => setTimeout(r, 10));
    expect(seen.writable).to.equal(0);
    while (b.readv(into, 1) > 0);
    await until(() => seen.writable === 1);
    await new Promise((r) => setTimeout(r, 10));
    expect(seen.writable).to.equal(1);
  });

  it('report that the other end has closed', async () => {
    const [a, b] = pair();
    const seen = watch(b);
    b.setReadable(true);
    a.close();
    await until(() => seen.read.length > 0);
    expect(seen.read).to.deep.equal([-EIO]);
    expect(b.writev(iov, 1)).to.equal(-EPIPE);
    b.close();
    b.close();
    expect(b.writev(iov, 1)).to.equal(-EBADF);
    b.setReadable(true);
    b.armWritable();
  });

  it('may be closed by their own handler, and by the handler of another', async () => {
    const [a, b] = pair();
    const [c, d] = pair();
    let calls = 0;
    const closeBoth = {
      wireReadable: () => {
        calls++;
        b.close();
        d.close();
      },
      wireWritable: () => undefined,
      wireState: () => undefined,
    };
    for (const wire of [b, d]) {
      wire.setListener(closeBoth);
      wire.setReadable(true);
    }
    a.writev(iov, 1);
    c.writev(iov, 1);
    await until(() => calls > 0);
    await new Promise((r) => setTimeout(r, 10));
    expect(calls).to.equal(1);
  });

  it('move a frame and leave no garbage', () => {
    const [a, b] = pair();
    const there = bytesPerCall(() => {
      a.writev(iov, 1);
      b.readv(into, 1);
    });
    expect(there).to.be.below(8);
    expect(bytesPerCall(() => b.readv(into, 1))).to.be.below(8); // EAGAIN
    const kernel = new NativeCksum(arena);
    expect(bytesPerCall(() => kernel.sum(54, 1460, 0xffff))).to.be.below(8);
  }).timeout(60_000);

  it('have one watch each, no fixed number, and closed slots can be used again', async () => {
    const addon = loadAddon();
    let events = 0;
    const handler = { pollEvent: () => void events++ };
    const fds = new Int32Array(300);
    for (let i = 0; i < 300; i += 2) addon.socketPair(fds.subarray(i, i + 2), 0);
    for (let round = 0; round < 3; round++) {
      const polls = [...fds].map((fd) => new FdPoll(fd, handler));
      polls.pop()!.close();
      expect(() => new FdPoll(fds[0]!, handler)).to.throw('EBUSY');
      for (const poll of polls) poll.watch(3);
      expect(addon.fdClose(fds[0]!)).to.equal(-16);
      await until(() => events >= polls.length); // every descriptor is writable
      events = 0;
      for (const poll of polls) poll.close();
      await new Promise((r) => setTimeout(r, 5));
    }
    for (const fd of fds) expect(addon.fdClose(fd)).to.equal(0);
    expect(addon.pollEvents(0, 1, 1)).to.equal(-9);
    expect(addon.pollClose(100_000)).to.equal(-9);
    expect(addon.pollEvents(0, 4, 1)).to.equal(-22);
  });

  it('a handler that throws causes an uncaught exception, and polling continues', () => {
    const code = `
      const addon = require(${JSON.stringify(addonFile)});
      addon.arenaAlloc(1 << 24);
      let n = 0;
      process.on('uncaughtException', (e) => console.log(e.message));
      addon.pollCallback((id, status, events) => {
        if (n++ === 0) throw new Error('mine');
        console.log('again', id, status, events);
        addon.pollClose(id);
      });
      const fds = new Int32Array(2);
      addon.socketPair(fds, 0);
      addon.frameWritev(fds[1], new Uint32Array([0, 5]), 1);
      addon.pollEvents(addon.pollOpen(fds[0]), 1, 1);`;
    const text = execFileSync(process.execPath, ['-e', code], {
      encoding: 'utf8',
      timeout: 20_000,
    });
    expect(text).to.equal('mine\nagain 0 0 1\n');
  });

  it('pollSpin waits until a descriptor has an event or an immediate is queued, or for the time', () => {
    const code = `
      const addon = require(${JSON.stringify(addonFile)});
      addon.arenaAlloc(1 << 24);
      addon.pollCallback((id) => {
        console.log('event');
        // Level-triggered: the frame is still there.
        console.log(addon.pollSpin(0));
        addon.frameReadv(fds[0], new Uint32Array([64, 5]), 1);
        console.log(addon.pollSpin(1000), addon.pollSpin(1e6));
        setImmediate(() => addon.pollClose(id));
        console.log(addon.pollSpin(0), addon.pollSpin(1e6 + 1));
      });
      const fds = new Int32Array(2);
      addon.socketPair(fds, 0);
      addon.frameWritev(fds[1], new Uint32Array([0, 5]), 1);
      addon.pollEvents(addon.pollOpen(fds[0]), 1, 1);`;
    const text = execFileSync(process.execPath, ['-e', code], {
      encoding: 'utf8',
      timeout: 20_000,
    });
    expect(text).to.equal('event\n1\n0 0\n1 -22\n');
  });

  it('keep the process alive only with ref', () => {
    const code = (ref: number) => `
      const addon = require(${JSON.stringify(addonFile)});
      addon.pollCallback(() => {});
      const fds = new Int32Array(2);
      addon.socketPair(fds, 0);
      addon.pollEvents(addon.pollOpen(fds[0]), 1, ${ref});
      setTimeout(() => { console.log('alive'); process.exit(); }, 100).unref();`;
    const run = (ref: number) =>
      execFileSync(process.execPath, ['-e', code(ref)], { encoding: 'utf8', timeout: 20_000 });
    expect(run(0)).to.equal('');
    expect(run(1)).to.equal('alive\n');
  });
});
