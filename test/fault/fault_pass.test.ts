/** Faults whose frames reach code that calls the stack, or the faults, again. */

import { expect } from 'chai';
import type { FaultSpec } from '../../src/fault/fault.ts';
import { FaultStage, RX, TX } from '../../src/fault/fault_stage.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { inPass, passClock, passDefer, passNumber, passReset } from '../../src/sys/pass.ts';

const MS = 1e6;
const DELAY: FaultSpec = {
  kind: 'delay',
  point: 'wire',
  rate: null,
  every: null,
  nth: null,
  burst: null,
  delayMs: 2,
  jitterMs: null,
  bits: null,
  match: null,
  matchText: null,
  seed: 1,
};

const frameOf = (n: number): Uint8Array => new Uint8Array(64).fill(n);

describe('faults inside a pass', () => {
  let clock: ManualClock;
  let stage: FaultStage;
  beforeEach(() => {
    clock = new ManualClock();
    passReset();
    passClock(clock);
    stage = new FaultStage(
      {
        nowNs: () => clock.nowNs(),
        // As the callouts of a machine do: the event opens a pass.
        schedule: (at, event) => clock.setAlarm(at, { run: () => inPass(() => event.run()) }),
        stop: () => clock.clearAlarm(),
      },
      (seed) => new SeededPrng(seed),
      0,
    );
  });
  afterEach(() => passReset());

  it('a delivery that enters the stack joins the pass, and its deferred work runs once', () => {
    const log: string[] = [];
    let inside = -1;
    stage.deliver = (_dir, frame) =>
      inPass(() => {
        if (inside < 0) inside = passNumber();
        expect(passNumber(), 'one pass').to.equal(inside);
        log.push(`frame ${frame[0]}`);
        const n = frame[0];
        passDefer({ run: () => log.push(`deferred ${n}`) });
      });
    stage.add(DELAY);
    for (let n = 1; n <= 3; n++) inPass(() => stage.send(RX, frameOf(n)));
    clock.advance(2 * MS);
    expect(log).to.deep.equal([
      'frame 1',
      'frame 2',
      'frame 3',
      'deferred 1',
      'deferred 2',
      'deferred 3',
    ]);
  });

  it('a delivery that answers on the same wire keeps the order of both directions', () => {
    const log: string[] = [];
    stage.deliver = (dir, frame) => {
      log.push(`${dir === RX ? 'rx' : 'tx'} ${frame[0]} ${clock.nowNs() / MS}`);
      if (dir === RX) inPass(() => stage.send(TX, frameOf(frame[0]! + 10)));
    };
    stage.add(DELAY);
    inPass(() => {
      for (let n = 1; n <= 3; n++) stage.send(RX, frameOf(n));
    });
    clock.advance(2 * MS);
    expect(log).to.deep.equal(['rx 1 2', 'rx 2 2', 'rx 3 2']);
    clock.advance(2 * MS);
    expect(log.slice(3)).to.deep.equal(['tx 11 4', 'tx 12 4', 'tx 13 4']);
    expect(stage.held).to.equal(0);
  });

  it('a delivery may remove and add faults, and stop the stage', () => {
    const log: number[] = [];
    stage.deliver = (_dir, frame) => {
      log.push(frame[0]!);
      if (frame[0] === 1) {
        stage.removeAll();
        stage.add({ ...DELAY, kind: 'drop', delayMs: null });
        stage.send(RX, frameOf(9));
      }
      if (frame[0] === 2) stage.stop();
    };
    stage.add(DELAY);
    for (let n = 1; n <= 3; n++) stage.send(RX, frameOf(n));
    clock.advance(10 * MS);
    expect(log, 'frame 3 was discarded by the stop').to.deep.equal([1, 2]);
    expect(stage.held).to.equal(0);
  });
});
