/**
 * FrameStream, the base of Tap and Tun, over a socket pair: frame boundaries, order, waiting, ends.
 * Needs no privilege.
 */

import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { loadAddon } from '../../native-bindings/index.ts';
import { FrameStream } from '../../src/host/tap_stream.ts';
import { TapnicError } from '../../src/sys/errno.ts';

const addon = loadAddon();

/** A frame whose bytes identify it. */
function frame(i: number, length: number): Buffer {
  const bytes = Buffer.alloc(length, i & 0xff);
  bytes.writeUInt32BE(i, 0);
  return bytes;
}

describe('tap: FrameStream', () => {
  const open: FrameStream[] = [];
  let closedFds: number;

  /** Two connected ends; a write waits when `bufBytes` are queued. */
  function pair(bufBytes = 0): [FrameStream, FrameStream] {
    const fds = new Int32Array(2);
    expect(addon.socketPair(fds, bufBytes)).to.equal(0);
    const ends = Array.from(fds, (fd, i) => {
      return new FrameStream([fd], `end ${i}`, () => {
        closedFds++;
        expect(addon.fdClose(fd)).to.equal(0);
      });
    });
    open.push(...ends);
    return ends as [FrameStream, FrameStream];
  }

  beforeEach(() => (closedFds = 0));
  afterEach(async () => {
    for (const stream of open.splice(0)) {
      stream.destroy();
      if (!stream.closed) await once(stream, 'close');
    }
    expect(closedFds % 2).to.equal(0);
  });

  it('keeps frame boundaries for any length', async () => {
    const [a, b] = pair();
    const lengths = [4, 60, 1514, 9014, 65535 + 26];
    lengths.forEach((length, i) => a.write(frame(i, length)));
    const got: Buffer[] = [];
    for await (const chunk of b) {
      got.push(chunk as Buffer);
      if (got.length === lengths.length) break;
    }
    expect(got.map(({ length }) => length)).to.deep.equal(lengths);
    got.forEach((bytes, i) => expect(bytes.equals(frame(i, lengths[i]!))).to.equal(true));
  });

  it('waits while the other side is full, and neither loses nor reorders frames', async () => {
    const COUNT = 5000;
    const [a, b] = pair(20_000);
    let waits = 0;
    const writer = (async (): Promise<void> => {
      for (let i = 0; i < COUNT; i++)
        if (!a.write(frame(i, 200 + (i % 1300)))) {
          waits++;
          await once(a, 'drain');
        }
    })();
    // Without a reader only as much gets through as the pair and the reader's buffer hold.
    b.read(0);
    for (let i = 0; i < 500 && b.readableLength < b.readableHighWaterMark; i++) await sleep(2);
    await sleep(10);
    expect(b.readableLength).to.equal(b.readableHighWaterMark);
    expect(a.writableLength).to.be.greaterThan(500_000);
    let next = 0;
    for await (const chunk of b) {
      const bytes = chunk as Buffer;
      expect(bytes.readUInt32BE(0)).to.equal(next);
      expect(bytes.length).to.equal(200 + (next % 1300));
      if (++next === COUNT) break;
    }
    await writer;
    expect(waits).to.be.greaterThan(1);
  });

  it('calls back for each write when it is done, also for corked ones', async () => {
    const [a, b] = pair();
    b.resume();
    const done: number[] = [];
    a.cork();
    for (let i = 0; i < 600; i++) a.write(frame(i, 100), () => done.push(i));
    expect(done).to.deep.equal([]);
    a.uncork();
    await new Promise<void>((resolve) => a.write(frame(600, 100), () => resolve()));
    expect(done).to.deep.equal(Array.from({ length: 600 }, (_, i) => i));
  });

  it('returns to the event loop between batches', async () => {
    const [a, b] = pair(4 << 20);
    b.resume();
    a.cork();
    for (let i = 0; i < 1000; i++) a.write(frame(i, 100));
    let through = false;
    a.uncork();
    a.write(frame(1000, 100), () => (through = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(through, '1000 frames in one turn').to.equal(false);
  });

  it('closes after the last frame is written, and so does the reader', async () => {
    const [a, b] = pair();
    const events: string[] = [];
    for (const event of ['finish', 'end', 'close']) a.on(event, () => events.push(event));
    a.end(frame(7, 100));
    await once(a, 'close');
    expect(events.slice(-1)).to.deep.equal(['close']);
    expect(events).to.have.members(['finish', 'end', 'close']);
    const got: Buffer[] = [];
    b.on('data', (chunk: Buffer) => got.push(chunk));
    // A socket pair reads as an end when its other end was closed.
    await once(b, 'close');
    expect(got).to.deep.equal([frame(7, 100)]);
  });

  it('fails a waiting write when it is destroyed', async () => {
    const [a] = pair(5000);
    let failure: Error | undefined;
    for (let i = 0; i < 100; i++) a.write(frame(i, 1500), (e) => (failure ??= e ?? undefined));
    await sleep(5);
    expect(failure, 'waits').to.equal(undefined);
    a.destroy();
    await once(a, 'close');
    expect(failure).to.be.instanceOf(TapnicError);
    expect((failure as TapnicError).code).to.equal('ECANCELED');
  });

  it('emits an Error with code and syscall when the kernel refuses a write', async () => {
    const [a, b] = pair();
    b.destroy();
    a.write(frame(0, 60));
    const [e] = (await once(a, 'error')) as [TapnicError];
    expect(e).to.be.instanceOf(TapnicError);
    expect(e.code).to.equal('EPIPE');
    expect(e.syscall).to.equal('write end 0');
  });

  it('refuses an empty frame and encodings', async () => {
    const [a] = pair();
    for (const call of ['setEncoding', 'setDefaultEncoding'] as const)
      expect(() => a[call]('utf8'))
        .to.throw(TapnicError)
        .with.property('code', 'EOPNOTSUPP');
    a.write(Buffer.alloc(0));
    const [e] = (await once(a, 'error')) as [TapnicError];
    expect(e.code).to.equal('EINVAL');
  });

  it('can be piped', async () => {
    const [a, b] = pair();
    const [c, d] = pair();
    b.pipe(c);
    a.write(frame(1, 300));
    a.write(frame(2, 60));
    const got: number[] = [];
    for await (const chunk of d) {
      got.push((chunk as Buffer).length);
      if (got.length === 2) break;
    }
    expect(got).to.deep.equal([300, 60]);
  });
});

describe('tap: addon', () => {
  const EINVAL = -22;
  const EBADF = -9;
  const bytes = new Uint8Array(64);

  it('returns an errno for bad arguments', () => {
    const addonAny = addon as unknown as Record<string, (...args: unknown[]) => number>;
    for (const call of ['fdRead', 'fdWrite']) {
      const f = (...args: unknown[]): number => addonAny[call]!(...args);
      expect(f(), call).to.equal(EINVAL);
      expect(f(0), call).to.equal(EINVAL);
      expect(f('0', bytes), call).to.equal(EINVAL);
      expect(f(0, 'text'), call).to.equal(EINVAL);
      expect(f(0, new Uint16Array(4)), call).to.equal(EINVAL);
      for (const fd of [-1, 0, 1, 2, 65535, 2 ** 31 - 1]) expect(f(fd, bytes)).to.equal(EBADF);
    }
    const attach = (...args: unknown[]): number => addonAny['tunAttach']!(...args);
    expect(attach(0, bytes, 0, 0)).to.equal(EBADF);
    expect(attach(0, bytes, 11, 0)).to.equal(EINVAL);
    expect(attach(0, bytes, 0, 4)).to.equal(EINVAL);
    const addrGet = (...args: unknown[]): number => addonAny['addrGet']!(...args);
    expect(addrGet(0, 1, new Uint8Array(4))).to.equal(EBADF);
    expect(addrGet(0, 0, new Uint8Array(4))).to.equal(EINVAL);
    expect(addrGet(0, 1, new Uint8Array(5))).to.equal(EINVAL);
  });
});
