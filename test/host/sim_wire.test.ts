import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { SimLink, type SimLinkOptions } from '../../src/host/sim_wire.ts';
import { EAGAIN, EFAULT, EINVAL, EIO } from '../../src/sys/errno.ts';
import type { WireListener } from '../../src/sys/wire.ts';

const SIZE = 1 << 20;
const MS = 1_000_000;

function setup(options: Partial<SimLinkOptions> = {}, seed = 1) {
  const arena = new ArrayBuffer(SIZE);
  const clock = new ManualClock();
  const link = new SimLink({ arena, clock, prng: new SeededPrng(seed), ...options });
  return { clock, link, mem: new Uint8Array(arena) };
}

/** A frame of `bytes` that carries its number. */
function frame(n: number, bytes = 60): Uint8Array {
  const f = new Uint8Array(bytes).fill(0x55);
  new DataView(f.buffer).setUint32(14, n);
  return f;
}

const numberOf = (f: Uint8Array) => new DataView(f.buffer, f.byteOffset).getUint32(14);

function listener(log: string[], more: Partial<WireListener> = {}): WireListener {
  return {
    wireReadable: () => void log.push('readable'),
    wireWritable: () => void log.push('writable'),
    wireState: (up, error) => void log.push(`state ${up} ${error}`),
    ...more,
  };
}

/** Sends `count` frames from a to b and returns the numbers that arrive, with the time of each. */
function run(options: Partial<SimLinkOptions>, count: number, seed = 1) {
  const { clock, link } = setup(options, seed);
  const got: [n: number, atNs: number][] = [];
  link.b.onFrame = (f) => void got.push([numberOf(f), clock.nowNs()]);
  for (let n = 0; n < count; n++) {
    link.a.inject(frame(n));
    clock.advance(1000);
  }
  clock.runUntilIdle(1e12);
  return { got, numbers: got.map(([n]) => n), stats: link.ab.stats };
}

describe('host: SimLink', () => {
  it('gathers a frame from several pieces and scatters it into several', () => {
    const { clock, link, mem } = setup();
    const f = frame(7, 100).map((_, i) => i);
    mem.set(f.subarray(0, 33), 5000);
    mem.set(f.subarray(33), 200);
    expect(link.a.writev(new Uint32Array([5000, 33, 200, 67]), 2)).to.equal(100);
    const into = new Uint32Array([4096, 14, 8192, 2048]);
    expect(link.b.readv(into, 2)).to.equal(-EAGAIN); // not inside the call
    clock.advance(0);
    expect(link.b.readv(into, 2)).to.equal(100);
    expect(mem.slice(4096, 4110)).to.deep.equal(f.slice(0, 14));
    expect(mem.slice(8192, 8278)).to.deep.equal(f.slice(14));
    expect(link.b.readv(into, 2)).to.equal(-EAGAIN);
    expect(link.a.readv(into, 2)).to.equal(-EAGAIN);
  });

  it('refuses what a TAP refuses, and truncates a frame to the buffers', () => {
    const { clock, link } = setup();
    const w = (...iov: number[]) => link.a.writev(new Uint32Array(iov), iov.length / 2);
    expect(w(0, 13)).to.equal(-EINVAL);
    expect(w(0, 14)).to.equal(14);
    expect(w()).to.equal(-EINVAL);
    expect(w(SIZE - 10, 14)).to.equal(-EFAULT);
    expect(w(0xffffffff, 0xffffffff)).to.equal(-EFAULT);
    expect(w(0, 256 * 1024 + 1)).to.equal(-EINVAL);
    expect(w(0, 100)).to.equal(100);
    clock.advance(0);
    expect(link.b.readv(new Uint32Array([0, 2048]), 1)).to.equal(14);
    expect(link.b.readv(new Uint32Array([0, 60]), 1)).to.equal(60);
    expect(link.b.readv(new Uint32Array([0, 60]), 1)).to.equal(-EAGAIN);
    const vnet = setup({ vnetHdr: true }).link;
    expect(vnet.a.writev(new Uint32Array([0, 25]), 1)).to.equal(-EINVAL);
    expect(vnet.a.writev(new Uint32Array([0, 26]), 1)).to.equal(26);
  });

  it('delivers all frames in order by default', () => {
    const { numbers, stats } = run({}, 500);
    expect(numbers).to.deep.equal(Array.from({ length: 500 }, (_, i) => i));
    expect(stats).to.include({ sent: 500, delivered: 500, bytes: 30_000, lost: 0 });
  });

  it('repeats a run for the same seed, and differs for another', () => {
    const impair = { loss: 0.1, duplicate: 0.1, reorder: 0.1, corrupt: 0.1, jitterNs: 5000 };
    expect(run({ impair }, 400, 3).got).to.deep.equal(run({ impair }, 400, 3).got);
    expect(run({ impair }, 400, 3).got).to.not.deep.equal(run({ impair }, 400, 4).got);
  });

  it('a change of one impairment leaves the random choices of the others unchanged', () => {
    const lost = (impair: object) => {
      const { numbers } = run({ impair }, 1000);
      return Array.from({ length: 1000 }, (_, i) => i).filter((n) => !numbers.includes(n));
    };
    expect(lost({ loss: 0.1 }).length).to.be.within(60, 140);
    expect(lost({ loss: 0.1, duplicate: 0.5, reorder: 0.3, jitterNs: 99 })).to.deep.equal(
      lost({ loss: 0.1 }),
    );
  });

  it('duplicates', () => {
    const { numbers, stats } = run({ impair: { duplicate: 0.2 } }, 1000);
    expect(stats.duplicated).to.be.within(150, 250);
    expect(numbers).to.have.length(1000 + stats.duplicated);
    expect(new Set(numbers).size).to.equal(1000);
  });

  it('reorders by delaying some frames; jitter alone does not', () => {
    const late = run({ impair: { reorder: 0.1, reorderNs: 5000 } }, 1000);
    expect(late.stats.reordered).to.be.within(60, 140);
    expect(late.numbers).to.have.length(1000);
    let inversions = 0;
    for (let i = 1; i < 1000; i++) if (late.numbers[i]! < late.numbers[i - 1]!) inversions++;
    expect(inversions).to.be.within(50, 140);
    const jitter = run({ impair: { delayNs: 10_000, jitterNs: 50_000 } }, 1000);
    expect(jitter.numbers).to.deep.equal([...jitter.numbers].sort((a, b) => a - b));
    for (const [n, at] of jitter.got) expect(at - n * 1000).to.be.within(10_000, 60_000);
  });

  it('corrupts one bit, never in the virtio-net header', () => {
    const { clock, link } = setup({ vnetHdr: true, impair: { corrupt: 1 } });
    const sent = new Uint8Array(80);
    const bits = new Set<number>();
    link.b.onFrame = (f) => {
      const set = [...f].flatMap((byte, i) =>
        [...Array(8).keys()].filter((b) => (byte >> b) & 1).map((b) => i * 8 + b),
      );
      expect(set).to.have.length(1);
      expect(set[0]).to.be.within(12 * 8, 80 * 8 - 1);
      bits.add(set[0]!);
    };
    for (let i = 0; i < 2000; i++) link.a.inject(sent);
    clock.advance(1);
    expect(sent.every((b) => b === 0)).to.equal(true);
    expect(bits.size).to.be.greaterThan(450); // of 544
  });

  it('delays', () => {
    const { got } = run({ impair: { delayNs: 30 * MS } }, 3);
    expect(got).to.deep.equal([
      [0, 30 * MS],
      [1, 30 * MS + 1000],
      [2, 30 * MS + 2000],
    ]);
  });

  it('limits the rate: the queue drains at that rate, and drops frames when it is full', () => {
    const { clock, link } = setup({ impair: { rateBps: 1e6, queueFrames: 10 } });
    const got: number[] = [];
    link.b.onFrame = () => void got.push(clock.nowNs());
    for (let i = 0; i < 15; i++) link.a.inject(frame(i, 125)); // 1000 bits: 1 ms each
    clock.runUntilIdle(1e10);
    expect(got).to.deep.equal(Array.from({ length: 10 }, (_, i) => (i + 1) * MS));
    expect(link.ab.stats.queueDrops).to.equal(5);
    link.a.inject(frame(0, 125));
    clock.runUntilIdle(1e10);
    expect(got.at(-1)).to.equal(11 * MS);
  });

  it('returns EAGAIN when full if configured to wait, and calls wireWritable once when there is room', () => {
    const { clock, link } = setup({ impair: { rateBps: 1e6, queueFrames: 2, full: 'wait' } });
    const log: string[] = [];
    link.a.setListener(listener(log));
    const iov = new Uint32Array([0, 125]);
    expect(link.a.writev(iov, 1)).to.equal(125);
    expect(link.a.writev(iov, 1)).to.equal(125);
    expect(link.a.writev(iov, 1)).to.equal(-EAGAIN);
    link.a.armWritable();
    link.a.armWritable();
    expect(log).to.deep.equal([]);
    clock.advance(MS - 1);
    expect(log).to.deep.equal([]);
    clock.advance(1);
    expect(log).to.deep.equal(['writable']);
    expect(link.a.writev(iov, 1)).to.equal(125);
    clock.advance(10 * MS);
    expect(log).to.deep.equal(['writable']);
    link.a.armWritable(); // there is room: wireWritable follows, but not inside the call
    expect(log).to.have.length(1);
    clock.advance(0);
    expect(log).to.have.length(2);
    expect(link.ab.stats).to.include({ sent: 3, delivered: 3, queueDrops: 0 });
  });

  it('calls wireReadable while reading is on, until all frames are read', () => {
    const { clock, link } = setup();
    const log: string[] = [];
    const iov = new Uint32Array([0, 2048]);
    const one = { wireReadable: () => void log.push(`read ${link.b.readv(iov, 1)}`) };
    link.b.setListener(listener(log, one));
    link.a.inject(frame(0, 60));
    clock.advance(1);
    expect(log).to.deep.equal([]); // off at the start
    link.a.inject(frame(1, 70));
    link.a.inject(frame(2, 80));
    clock.advance(1);
    link.b.setReadable(true);
    expect(log).to.deep.equal([]);
    clock.advance(0);
    expect(log).to.deep.equal(['read 60', 'read 70', 'read 80']);
    link.b.setReadable(false);
    link.a.inject(frame(3, 90));
    clock.advance(1);
    expect(log).to.have.length(3);
  });

  it('calls a reader that reads nothing once per frame', () => {
    const { clock, link } = setup();
    const log: string[] = [];
    link.b.setListener(listener(log));
    link.b.setReadable(true);
    link.a.inject(frame(0));
    clock.advance(1);
    link.a.inject(frame(1));
    clock.advance(1);
    expect(log).to.deep.equal(['readable', 'readable']);
  });

  it('drops frames beyond the receive queue', () => {
    const { clock, link } = setup({ rxQueueFrames: 10 });
    for (let i = 0; i < 12; i++) link.a.inject(frame(i));
    clock.advance(1);
    expect(link.b.unread).to.equal(10);
    expect(link.ab.stats).to.include({ sent: 12, delivered: 10, rxDrops: 2 });
  });

  it('can be set down and up again', () => {
    const { clock, link } = setup({ impair: { delayNs: MS } });
    const log: string[] = [];
    link.a.setListener(listener(log));
    const iov = new Uint32Array([0, 60]);
    expect(link.a.writev(iov, 1)).to.equal(60);
    link.setUp(false);
    expect(log).to.deep.equal([]);
    expect(link.a.writev(iov, 1)).to.equal(-EIO);
    expect(link.a.readv(iov, 1)).to.equal(-EIO);
    clock.advance(2 * MS);
    expect(log).to.deep.equal(['state false 0']);
    expect(link.ab.stats).to.include({ delivered: 0, downDrops: 1 });
    link.setUp(true);
    link.setUp(true);
    expect(link.a.writev(iov, 1)).to.equal(60);
    clock.advance(2 * MS);
    expect(log).to.deep.equal(['state false 0', 'state true 0']);
    expect(link.b.readv(iov, 1)).to.equal(60);
    link.b.close();
    clock.advance(0);
    expect(log.at(-1)).to.equal('state false 0');
    expect(link.b.writev(iov, 1)).to.equal(-EIO);
  });

  it('drops the frames that its filter refuses', () => {
    const { clock, link } = setup();
    const got: number[] = [];
    link.b.onFrame = (f) => void got.push(numberOf(f));
    link.ab.filter = (_, index) => index !== 2;
    for (let i = 0; i < 5; i++) link.a.inject(frame(i));
    clock.advance(1);
    expect(got).to.deep.equal([0, 1, 3, 4]);
    expect(link.ab.stats.lost).to.equal(1);
  });
});
