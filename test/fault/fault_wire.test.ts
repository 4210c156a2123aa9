import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { SimLink } from '../../src/host/sim_wire.ts';
import { FaultStage } from '../../src/fault/fault_stage.ts';
import { FaultWire } from '../../src/fault/fault_wire.ts';
import type { FaultSpec } from '../../src/fault/fault.ts';

const MS = 1e6;
const spec = (kind: FaultSpec['kind'], more: Partial<FaultSpec> = {}): FaultSpec => ({
  kind,
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
  ...more,
});

describe('fault wire', () => {
  const arena = new ArrayBuffer(1 << 20);
  const mem = new Uint8Array(arena);
  let clock: ManualClock;
  let link: SimLink;
  let stage: FaultStage;
  let wire: FaultWire;
  let scratches: number;
  let far: number[];
  let got: number[];

  beforeEach(() => {
    clock = new ManualClock();
    link = new SimLink({ arena, clock, prng: new SeededPrng(1) });
    scratches = 0;
    far = [];
    got = [];
    stage = new FaultStage(
      {
        nowNs: () => clock.nowNs(),
        schedule: (at, event) => clock.setAlarm(at, event),
        stop: () => clock.clearAlarm(),
      },
      (seed) => new SeededPrng(seed),
      0,
    );
    wire = new FaultWire({
      wire: link.a,
      stage,
      mem,
      scratch: () => {
        scratches++;
        return { off: 0x40000, bytes: 0x11000 };
      },
      post: (task) => clock.post(task),
    });
    link.b.onFrame = (frame) => far.push(frame[20]!);
    wire.setListener({
      wireReadable: () => {
        const iov = Uint32Array.from([0x2000, 2048]);
        for (let n = 0; n < 3; n++) {
          if (wire.readv(iov, 1) < 0) return;
          got.push(mem[0x2000 + 20]!);
        }
      },
      wireWritable: () => undefined,
      wireState: () => undefined,
    });
    wire.setReadable(true);
  });
  afterEach(() => {
    wire.close();
    link.a.close();
  });

  /** Sends frames 0 to n-1 in two pieces each. */
  const send = (n: number): void => {
    for (let i = 0; i < n; i++) {
      mem.fill(0, 0x1000, 0x1100);
      mem[0x1000 + 20] = i;
      const iov = Uint32Array.from([0x1000, 30, 0x101e, 34]);
      expect(wire.writev(iov, 2)).to.equal(64);
    }
  };
  const receive = (n: number): void => {
    for (let i = 0; i < n; i++) {
      const frame = new Uint8Array(64);
      frame[20] = i;
      link.b.inject(frame);
    }
  };
  const settle = (ms = 50): void => {
    for (let i = 0; i < ms; i++) clock.advance(MS);
  };

  it('copies nothing without a fault', () => {
    send(3);
    receive(3);
    settle();
    expect([far, got, scratches]).to.deep.equal([[0, 1, 2], [0, 1, 2], 0]);
  });

  it('drops in each direction', () => {
    stage.add(spec('drop', { point: 'tx', nth: 2 }));
    stage.add(spec('drop', { point: 'rx', nth: 3 }));
    send(4);
    receive(4);
    settle();
    expect([far, got, scratches]).to.deep.equal([[0, 2, 3], [0, 1, 3], 1]);
  });

  it('delays received frames, and notifies the NIC when they are due', () => {
    stage.add(spec('delay', { delayMs: 10 }));
    receive(8);
    send(2);
    settle(5);
    expect([far, got]).to.deep.equal([[], []]);
    settle();
    expect([far, got]).to.deep.equal([
      [0, 1],
      [0, 1, 2, 3, 4, 5, 6, 7],
    ]);
  });

  it('delivers held frames when the last fault is removed', () => {
    stage.add(spec('delay', { delayMs: 10 }));
    send(2);
    stage.removeAll();
    expect(far).to.deep.equal([]);
    send(1);
    settle();
    expect(far).to.deep.equal([0, 1, 0]);
  });

  it('waits for a full wire instead of dropping frames', () => {
    link.ab.impair.rateBps = 512_000;
    link.ab.impair.queueFrames = 4;
    link.ab.impair.full = 'wait';
    stage.add(spec('duplicate', { every: 2 }));
    send(20);
    settle(100);
    expect(far).to.have.length(30);
  });

  it('refuses addresses outside memory as a wire does', () => {
    stage.add(spec('drop'));
    expect(wire.writev(Uint32Array.from([arena.byteLength - 4, 64]), 1)).to.be.below(0);
    expect(wire.writev(Uint32Array.from([0, 64]), 2)).to.be.below(0);
    expect(wire.readv(Uint32Array.from([arena.byteLength, 64]), 1)).to.be.below(0);
  });
});
