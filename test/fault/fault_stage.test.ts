import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { type Direction, FaultStage, RX, TX } from '../../src/fault/fault_stage.ts';
import type { FaultSpec } from '../../src/fault/fault.ts';
import { bpfProgram } from '../../src/sys/bpf_filter.ts';
import {
  counted,
  R_FAULT_CORRUPT,
  R_FAULT_DROP,
  R_FAULT_QUEUE_FULL,
  type Reason,
  resetReasons,
} from '../../src/sys/reason.ts';

const MS = 1e6;
const NONE: Omit<FaultSpec, 'kind'> = {
  point: 'wire',
  rate: null,
  every: null,
  nth: null,
  burst: null,
  delayMs: null,
  jitterMs: null,
  bits: null,
  match: null,
  matchText: null,
  seed: 1,
};

interface Left {
  dir: Direction;
  n: number;
  atMs: number;
  frame: Uint8Array;
}

class Rig {
  readonly clock = new ManualClock();
  readonly out: Left[] = [];
  readonly stage: FaultStage;
  constructor(skip = 0) {
    resetReasons();
    const { clock } = this;
    this.stage = new FaultStage(
      {
        nowNs: () => clock.nowNs(),
        schedule: (at, event) => clock.setAlarm(at, event),
        stop: () => clock.clearAlarm(),
      },
      (seed) => new SeededPrng(seed),
      skip,
    );
    this.stage.deliver = (dir, frame) =>
      this.out.push({ dir, n: frame[20]!, atMs: clock.nowNs() / MS, frame });
  }
  add(spec: Partial<FaultSpec> & Pick<FaultSpec, 'kind'>): void {
    this.stage.add({ ...NONE, ...spec });
  }
  /** Sends frames 0 to n-1 of 64 bytes, with the number in byte 20. */
  send(n: number, dir: Direction = TX, gapMs = 0): void {
    for (let i = 0; i < n; i++) {
      const frame = new Uint8Array(64);
      frame[20] = i;
      this.stage.send(dir, frame);
      if (gapMs > 0) this.clock.advance(gapMs * MS);
    }
  }
  get numbers(): number[] {
    return this.out.map(({ n }) => n);
  }
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe('fault stage', () => {
  it('is idle in a direction without faults', () => {
    const r = new Rig();
    expect([r.stage.idle(TX), r.stage.idle(RX)]).to.deep.equal([true, true]);
    r.add({ kind: 'drop', point: 'rx' });
    expect([r.stage.idle(TX), r.stage.idle(RX)]).to.deep.equal([true, false]);
    r.add({ kind: 'drop', point: 'wire' });
    expect([r.stage.idle(TX), r.stage.idle(RX)]).to.deep.equal([false, false]);
    expect(r.stage.remove(1)).to.equal(true);
    expect(r.stage.remove(1)).to.equal(false);
    expect(r.stage.removeAll()).to.equal(1);
    expect([r.stage.idle(TX), r.stage.idle(RX)]).to.deep.equal([true, true]);
  });

  it('drops the n-th, every n-th, by chance, in bursts, and only its direction', () => {
    const kept = (spec: Partial<FaultSpec>, n: number): number[] => {
      const r = new Rig();
      r.add({ kind: 'drop', ...spec });
      r.send(n);
      return r.numbers;
    };
    expect(kept({ nth: 3 }, 8)).to.deep.equal([0, 1, 3, 4, 5, 6, 7]);
    expect(kept({ every: 3 }, 9)).to.deep.equal([0, 1, 3, 4, 6, 7]);
    expect(kept({ nth: 2, burst: 3 }, 8)).to.deep.equal([0, 4, 5, 6, 7]);
    expect(kept({}, 5)).to.deep.equal([]);
    expect(kept({ point: 'rx' }, 5)).to.deep.equal(upTo(5));
    const some = kept({ rate: 0.25 }, 250);
    expect(counted(R_FAULT_DROP)).to.equal(250 - some.length);
    expect(some.length).to.be.within(165, 210);
    expect(kept({ rate: 0.25 }, 250)).to.deep.equal(some);
    expect(kept({ rate: 0.25, seed: 2 }, 250)).to.not.deep.equal(some);
  });

  // Output of each kind for frames 0 to 9, sent 10 ms apart: number, delay in ms, length.
  const calm = upTo(10).map((n) => [n, 0, 64]);
  const kinds: [Partial<FaultSpec> & Pick<FaultSpec, 'kind'>, number[][]][] = [
    [{ kind: 'drop', nth: 4 }, calm.filter(([n]) => n !== 3)],
    [{ kind: 'duplicate', nth: 4 }, [...calm.slice(0, 4), [3, 0, 64], ...calm.slice(4)]],
    [
      { kind: 'reorder', nth: 4, delayMs: 25 },
      [...calm.slice(0, 3), ...calm.slice(4, 6), [3, 25, 64], ...calm.slice(6)],
    ],
    [{ kind: 'delay', delayMs: 5 }, calm.map(([n]) => [n!, 5, 64])],
    [{ kind: 'corrupt', nth: 4, bits: 1 }, calm],
    [{ kind: 'truncate', nth: 4, bits: 30 }, calm.map(([n]) => [n!, 0, n === 3 ? 30 : 64])],
    // 64 bytes in 4 ms.
    [{ kind: 'rate', rate: 128_000 }, calm.map(([n]) => [n!, 4, 64])],
  ];
  for (const [spec, want] of kinds) {
    for (const point of ['tx', 'rx', 'wire'] as const) {
      it(`${spec.kind} at ${point} applies to that direction only`, () => {
        const r = new Rig();
        r.add({ ...spec, point });
        const sent = ([TX, RX] as const).map((dir) => {
          const start = r.clock.nowNs() / MS;
          r.out.length = 0;
          r.send(10, dir, 10);
          r.clock.advance(1000 * MS);
          const left = r.out.map(({ n, atMs, frame }) => [n, atMs - start - 10 * n, frame.length]);
          const broken = r.out.filter((o) => o.frame.some((byte, i) => byte !== 0 && i !== 20));
          expect(r.out.every((o) => o.dir === dir)).to.equal(true);
          return { left, broken: broken.length };
        });
        // At `wire` the n-th frame is counted over both directions, so it is in the one sent first.
        const both = spec.nth === undefined;
        for (const dir of [TX, RX]) {
          const name = dir === TX ? 'tx' : 'rx';
          const here = point === name || (point === 'wire' && (both || dir === TX));
          const frames = sent[dir]!.left;
          expect(frames).to.deep.equal(here ? want : calm);
          const damaged = here && spec.kind === 'corrupt' ? 1 : 0;
          expect(sent[dir]!.broken).to.equal(damaged);
        }
        expect(r.stage.held).to.equal(0);
      });
    }
  }

  it('counts only frames that match its filter', () => {
    const r = new Rig();
    // Matches if byte 20 is odd: ldb [20]; jset #1; ret 0xffff or 0.
    const match = bpfProgram([
      [0x30, 0, 0, 20],
      [0x45, 0, 1, 1],
      [0x06, 0, 0, 0xffff],
      [0x06, 0, 0, 0],
    ]);
    r.add({ kind: 'drop', match, nth: 2 });
    r.send(8);
    expect(r.numbers).to.deep.equal([0, 1, 2, 4, 5, 6, 7]);
    expect([r.stage.faults[0]!.matched, r.stage.faults[0]!.hits]).to.deep.equal([4, 1]);
  });

  it('delays without reordering, with and without jitter', () => {
    const r = new Rig();
    r.add({ kind: 'delay', delayMs: 10, jitterMs: 20 });
    r.send(50, RX, 1);
    r.clock.advance(100 * MS);
    expect(r.numbers).to.deep.equal(upTo(50));
    const late = r.out.map(({ atMs }, i) => atMs - i);
    expect(Math.min(...late)).to.be.at.least(10);
    expect(Math.max(...late)).to.be.within(20, 32);
    expect(r.stage.held).to.equal(0);
  });

  it('lets other frames pass a reordered frame', () => {
    const r = new Rig();
    r.add({ kind: 'reorder', nth: 2, delayMs: 3 });
    r.send(8, TX, 1);
    r.clock.advance(10 * MS);
    expect(r.numbers).to.deep.equal([0, 2, 3, 1, 4, 5, 6, 7]);
  });

  it('duplicates, corrupts and truncates, never the virtio-net header', () => {
    const r = new Rig(12);
    r.add({ kind: 'duplicate', nth: 1 });
    r.add({ kind: 'corrupt', nth: 2, bits: 3 });
    r.add({ kind: 'truncate', nth: 3, bits: 20 });
    r.add({ kind: 'truncate', nth: 4 });
    r.send(4);
    expect(r.out.map(({ frame }) => frame.length).slice(0, 4)).to.deep.equal([64, 64, 64, 32]);
    expect(r.out[4]!.frame.length).to.be.within(26, 63);
    const flipped = r.out[2]!.frame.slice();
    flipped[20]! ^= 1;
    let bits = 0;
    flipped.forEach((b, i) => {
      if (i < 12) expect(b).to.equal(0);
      for (let x = b; x !== 0; x &= x - 1) bits++;
    });
    expect(bits).to.be.within(1, 3);
  });

  it('limits the rate, and drops frames when its queue is full', () => {
    const r = new Rig();
    // 64 bytes at 512 kbit/s: a millisecond each.
    r.add({ kind: 'rate', rate: 512_000, burst: 10 });
    r.send(20);
    expect(r.stage.held).to.equal(10);
    expect(counted(R_FAULT_QUEUE_FULL)).to.equal(10);
    r.clock.advance(20 * MS);
    expect(r.out.map(({ atMs }) => atMs)).to.deep.equal(upTo(10).map((i) => i + 1));
    r.send(3);
    r.clock.advance(20 * MS);
    expect(r.out).to.have.length(13);
    r.add({ kind: 'delay', delayMs: 1000 });
    r.send(1);
    r.stage.stop();
    expect(r.stage.held).to.equal(0);
  });

  it('reports each frame that a fault affects', () => {
    const rig = new Rig(4);
    const notes: [Direction, Reason, number, boolean][] = [];
    rig.stage.note = (dir, hits, lost) => {
      for (const { why, bytes } of hits) notes.push([dir, why, bytes, lost]);
    };
    rig.add({ kind: 'corrupt' });
    rig.send(1, TX);
    rig.add({ kind: 'drop' });
    rig.send(1, RX);
    expect(notes).to.deep.equal([
      [TX, R_FAULT_CORRUPT, 60, false],
      [RX, R_FAULT_CORRUPT, 60, true],
      [RX, R_FAULT_DROP, 60, true],
    ]);
  });
});
