/** The addon's argument checks: any call returns a number, and the process survives. */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { loadAddon, type NativeAddon } from '../../native-bindings/index.ts';

const SIZE = 16 * 1024 * 1024;
const EBADF = -9;
const EFAULT = -14;
const EINVAL = -22;
const EPIPE = -32;
const ECONNRESET = -104;

describe('addon: argument checks', () => {
  const addon = loadAddon();
  const fds = new Int32Array(2);
  let mem: Uint8Array;

  before(() => {
    const arena = addon.arenaAlloc(SIZE);
    if (typeof arena === 'number') throw new Error(`arena ${arena}`);
    mem = new Uint8Array(arena);
    expect(addon.socketPair(fds, 0)).to.equal(0);
  });

  after(() => {
    for (let id = 0; id < 64; id++) addon.pollClose(id);
    for (const fd of fds) addon.fdClose(fd);
  });

  it('gathers one frame from several pieces and scatters it into several', () => {
    mem.set(Buffer.from('hello, wire'), 1000);
    const out = new Uint32Array([1000, 5, 1005, 2, 1007, 4]);
    expect(addon.frameWritev(fds[0]!, out, 3)).to.equal(11);
    const into = new Uint32Array([SIZE - 4, 4, 2000, 100]);
    expect(addon.frameReadv(fds[1]!, into, 2)).to.equal(11);
    expect(Buffer.from(mem.subarray(SIZE - 4)).toString()).to.equal('hell');
    expect(Buffer.from(mem.subarray(2000, 2007)).toString()).to.equal('o, wire');
    expect(addon.frameReadv(fds[1]!, into, 2)).to.equal(-11);
  });

  it('accepts at most 1024 pieces', () => {
    const iov = new Uint32Array(2050);
    for (let i = 0; i < 1025; i++) iov.set([i * 16, 1], 2 * i);
    expect(addon.frameWritev(fds[0]!, iov, 1024)).to.equal(1024);
    expect(addon.frameReadv(fds[1]!, iov, 1024)).to.equal(1024);
    expect(addon.frameWritev(fds[0]!, iov, 1025)).to.equal(EINVAL);
    expect(addon.frameWritev(fds[0]!, iov, 0)).to.equal(EINVAL);
    expect(addon.frameWritev(fds[0]!, iov.subarray(0, 7), 4)).to.equal(EINVAL);
    expect(addon.frameWritev(fds[0]!, iov.subarray(0, 8), 4)).to.equal(4);
    expect(addon.frameReadv(fds[1]!, iov, 4)).to.equal(4);
  });

  it('truncates a frame longer than the buffers, as a TAP does', () => {
    expect(addon.frameWritev(fds[0]!, new Uint32Array([0, 100]), 1)).to.equal(100);
    expect(addon.frameReadv(fds[1]!, new Uint32Array([0, 60]), 1)).to.equal(60);
    expect(addon.frameReadv(fds[1]!, new Uint32Array([0, 60]), 1)).to.equal(-11);
  });

  it('returns EAGAIN when the wire is full', () => {
    const small = new Int32Array(2);
    expect(addon.socketPair(small, 4096)).to.equal(0);
    const iov = new Uint32Array([0, 1500]);
    let sent = 0;
    let n = 0;
    for (; sent < 100 && n >= 0; sent++) n = addon.frameWritev(small[0]!, iov, 1);
    expect(n).to.equal(-11);
    expect(sent).to.be.within(2, 20);
    addon.fdClose(small[1]!);
    expect(addon.frameWritev(small[0]!, iov, 1)).to.equal(ECONNRESET); // the closed end had unread frames
    expect(addon.frameWritev(small[0]!, iov, 1)).to.equal(EPIPE);
    addon.fdClose(small[0]!);
  });

  for (const name of ['frameWritev', 'frameReadv'] as const)
    it(`${name}: refuses any byte outside the arena`, () => {
      const call = (...iov: number[]) =>
        addon[name](fds[0]!, new Uint32Array(iov), iov.length >>> 1);
      expect(call(SIZE, 1)).to.equal(EFAULT);
      expect(call(SIZE - 1, 2)).to.equal(EFAULT);
      expect(call(0, SIZE + 1)).to.equal(EFAULT);
      expect(call(0xffffffff, 1)).to.equal(EFAULT);
      expect(call(1, 0xffffffff)).to.equal(EFAULT); // the sum wraps in 32 bits
      expect(call(0, 1, 0xfffff000, 0x1000)).to.equal(EFAULT);
      expect(call(SIZE, 0, SIZE + 1, 0)).to.equal(EFAULT);
    });

  it('checks every pair of a list, compared with a model', () => {
    const edge = fc.oneof(
      fc.nat(0xffffffff),
      fc.constantFrom(0, 1, SIZE - 1, SIZE, SIZE + 1, 0xffffffff, 0xffffffff - SIZE),
    );
    const pairs = fc.array(fc.tuple(edge, fc.oneof(edge, fc.nat(2000))), {
      minLength: 1,
      maxLength: 8,
    });
    const into = new Uint32Array([0, 1]);
    fc.assert(
      fc.property(pairs, fc.nat(9), (list, iovcnt) => {
        const iov = new Uint32Array(list.flat());
        const used = list.slice(0, iovcnt);
        const bytes = used.reduce((sum, [, len]) => sum + len, 0);
        const outside = used.some(([off, len]) => off + len > SIZE);
        const n = addon.frameWritev(fds[0]!, iov, iovcnt);
        if (iovcnt === 0 || iovcnt > list.length) expect(n).to.equal(EINVAL);
        else if (outside) expect(n).to.equal(EFAULT);
        else expect(n).to.be.oneOf([bytes, -90, -105, -11]); // the errors: more than a socket takes at once
        if (n > 0) expect(addon.frameReadv(fds[1]!, into, 1)).to.equal(1);
      }),
      { numRuns: 3000 },
    );
  });

  it('reads, writes, polls and closes only descriptors of its own', () => {
    const iov = new Uint32Array([0, 1]);
    for (const fd of [0, 1, 2, 3, 10, 65535, 65536, 2 ** 31 - 1, -1, -(2 ** 31)]) {
      if (fd === fds[0] || fd === fds[1]) continue;
      expect(addon.frameWritev(fd, iov, 1), `write ${fd}`).to.equal(EBADF);
      expect(addon.frameReadv(fd, iov, 1), `read ${fd}`).to.equal(EBADF);
      expect(addon.fdClose(fd), `close ${fd}`).to.equal(EBADF);
      expect(addon.netnsEnter(fd), `netns ${fd}`).to.equal(EBADF);
      expect(addon.tapSet(fd, 3, 0), `tap ${fd}`).to.equal(EBADF);
    }
    const other = new Int32Array(2);
    addon.socketPair(other, 0);
    for (const fd of other) expect(addon.fdClose(fd)).to.equal(0);
    for (const fd of other) expect(addon.fdClose(fd)).to.equal(EBADF);
  });

  it('refuses names that are paths or that the kernel would interpret', () => {
    const bytes = (s: string) => new TextEncoder().encode(s);
    const bad = [
      '',
      '.',
      '..',
      'a/b',
      '../x',
      'tap%d',
      'a b',
      'a:1',
      'x\n',
      'x\0y',
      '0123456789abcdef',
    ];
    const nl = addon.netlinkOpen(0);
    const out = new Float64Array(6);
    for (const name of bad) expect(addon.linkGet(nl, bytes(name), out), name).to.equal(EINVAL);
    for (const name of bad.slice(1, 10)) {
      expect(addon.netnsCreate(bytes(name)), name).to.equal(EINVAL);
      expect(addon.netnsRemove(bytes(name)), name).to.equal(EINVAL);
      expect(addon.netnsOpen(bytes(name)), name).to.equal(EINVAL);
    }
    expect(addon.netnsCreate(new Uint8Array(256).fill(97))).to.equal(EINVAL);
    expect(addon.linkGet(nl, bytes('lo'), out)).to.equal(0);
    expect(addon.linkGet(nl, bytes('lo'), out.subarray(0, 5))).to.equal(EINVAL);
    expect(addon.linkGet(nl, bytes('0123456789abcde'), out)).to.equal(-19);
    const name = new Uint8Array(16);
    expect(addon.linkByIndex(nl, 1, out, name)).to.equal(0);
    expect(new TextDecoder().decode(name)).to.equal('lo'.padEnd(16, '\0'));
    expect(addon.linkByIndex(nl, 0x7fffffff, out, name)).to.equal(-19);
    for (const index of [0, -1]) expect(addon.linkByIndex(nl, index, out, name)).to.equal(EINVAL);
    expect(addon.linkByIndex(nl, 1, out.subarray(1), name)).to.equal(EINVAL);
    expect(addon.linkByIndex(nl, 1, out, name.subarray(1))).to.equal(EINVAL);
    expect(addon.linkByIndex(0, 1, out, name)).to.equal(-9);
    addon.fdClose(nl);
  });

  it('returns a number for any argument list', () => {
    const detached = new Uint32Array(8);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    // These descriptors are not open and these names do not exist, so that a call that passes every
    // check has no effect.
    const anything = fc.oneof(
      { weight: 4, arbitrary: fc.constantFrom(-1, 0, 1, 2, 3, 12, 64, 1024, 1025, 65535) },
      fc.constantFrom(2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53, -(2 ** 53), 0.5, NaN),
      fc.constantFrom(Infinity, -Infinity, -0, SIZE, SIZE - 1, SIZE + 1),
      fc.array(fc.nat(0xffffffff), { maxLength: 12 }).map((a) => new Uint32Array(a)),
      fc.uint8Array({ maxLength: 20 }).map((a) => a.fill(0x7a)),
      fc.constantFrom<unknown>(
        detached,
        new Float64Array(8),
        new Int32Array(2),
        new DataView(new ArrayBuffer(8)),
      ),
      fc.constantFrom<unknown>(
        null,
        undefined,
        'x',
        7n,
        {},
        [],
        true,
        Symbol('s'),
        new ArrayBuffer(8),
      ),
      fc.constantFrom<unknown>(
        new Uint32Array(new SharedArrayBuffer(64)),
        new Uint8ClampedArray(16),
      ),
    );
    // Left out are calls that would have an effect. Without an open device or route socket no call
    // can change an interface of the machine.
    const skip = new Set<string>([
      'abi',
      'arenaAlloc',
      'exitNow', // ends the process; test/commands/collide.test.ts tests it
      'filePread', // its completions would go to another reader; read.test.ts tests it
      'readCallback',
      'pollCallback',
      'netnsCreate',
      'netnsRemove',
      'tunOpen',
      'netlinkOpen',
      'netnsOpen',
    ]);
    const names = Object.keys(addon).filter((n) => !skip.has(n)) as (keyof NativeAddon)[];
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.array(anything, { maxLength: 6 }), (name, args) => {
        if (name === 'fdClose' && fds.includes(args[0] as number)) return;
        const result = (addon[name] as (...a: unknown[]) => unknown)(...args);
        expect(typeof result === 'number' || result instanceof ArrayBuffer, name).to.equal(true);
        if (name === 'socketPair' && result === 0)
          for (const fd of args[0] as Int32Array) expect(addon.fdClose(fd)).to.equal(0);
      }),
      { numRuns: 20_000 },
    );
  });

  it('returns EINVAL for missing arguments', () => {
    const bare = addon as unknown as Record<string, (...args: unknown[]) => unknown>;
    for (const name of ['frameWritev', 'frameReadv', 'cksum', 'filePread', 'linkSet', 'pollOpen'])
      expect(bare[name]!(), name).to.equal(EINVAL);
  });
});
