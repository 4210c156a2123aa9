import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';

describe('host: ManualClock', () => {
  let clock: ManualClock;
  let log: string[];
  const note = (what: string) => ({ run: () => void log.push(`${what}@${clock.nowNs()}`) });

  beforeEach(() => {
    clock = new ManualClock();
    log = [];
  });

  it('stands still until advance() is called', () => {
    clock.setAlarm(10, note('alarm'));
    clock.post(note('posted'));
    expect(clock.nowNs()).to.equal(0);
    expect(log).to.deep.equal([]);
    clock.advance(0);
    expect(log).to.deep.equal(['posted@0']);
    clock.advance(9);
    expect(log).to.have.length(1);
    clock.advance(1);
    expect(log).to.deep.equal(['posted@0', 'alarm@10']);
    expect(clock.idle).to.equal(true);
  });

  it('runs events by time, and those of the same instant in the order they were set, alarm included', () => {
    clock.schedule(30, note('d'));
    clock.schedule(10, note('a'));
    clock.setAlarm(20, note('alarm'));
    clock.schedule(20, note('c'));
    clock.schedule(10, note('b'));
    clock.schedule(0, note('first'));
    clock.advance(100);
    expect(log).to.deep.equal(['first@0', 'a@10', 'b@10', 'alarm@20', 'c@20', 'd@30']);
    expect(clock.nowNs()).to.equal(100);
  });

  it('runs posted tasks first in, first out before time advances, also tasks that they post', () => {
    clock.schedule(5, note('later'));
    clock.post({
      run: () => {
        log.push('one');
        clock.post(note('three'));
      },
    });
    clock.post(note('two'));
    clock.advance(5);
    expect(log).to.deep.equal(['one', 'two@0', 'three@0', 'later@5']);
  });

  it('has one alarm: a new one replaces it, and it can be cleared', () => {
    clock.setAlarm(5, note('old'));
    clock.setAlarm(7, note('new'));
    clock.advance(10);
    clock.setAlarm(12, note('cleared'));
    clock.clearAlarm();
    clock.advance(10);
    expect(log).to.deep.equal(['new@7']);
  });

  it('an alarm may set the next one; an alarm in the past runs at the current time', () => {
    let left = 3;
    const tick = {
      run: () => {
        log.push(`${clock.nowNs()}`);
        if (--left > 0) clock.setAlarm(clock.nowNs() + 1000, tick);
      },
    };
    clock.advance(50);
    clock.setAlarm(1, tick);
    clock.advance(10_000);
    expect(log).to.deep.equal(['50', '1050', '2050']);
  });

  it('runUntilIdle stops when idle, or at its limit', () => {
    clock.schedule(1_000_000, note('x'));
    expect(clock.runUntilIdle(2_000_000)).to.equal(true);
    expect(clock.nowNs()).to.equal(1_000_000);
    const forever = { run: () => clock.schedule(clock.nowNs() + 10, forever) };
    forever.run();
    expect(clock.runUntilIdle(100)).to.equal(false);
    expect(clock.nowNs()).to.equal(1_000_100);
  });

  it('runUntil stops at the event that makes it true', () => {
    for (let t = 10; t <= 50; t += 10) clock.schedule(t, note('e'));
    expect(clock.runUntil(() => log.length === 3, 1000)).to.equal(true);
    expect(clock.nowNs()).to.equal(30);
    expect(clock.runUntil(() => false, 15)).to.equal(false);
    expect(log).to.have.length(4);
  });

  it('panics on posted tasks that never end', () => {
    const again = { run: () => clock.post(again) };
    clock.post(again);
    expect(() => clock.advance(1)).to.throw('never end');
  }).timeout(20_000);

  it('sorts any order of many events', () => {
    const prng = new SeededPrng(7);
    const want: number[] = [];
    const got: number[] = [];
    for (let i = 0; i < 5000; i++) {
      const at = prng.next32() % 997;
      want.push(at * 5000 + i);
      clock.schedule(at, { run: () => void got.push(clock.nowNs() * 5000 + i) });
    }
    clock.advance(1000);
    expect(got).to.deep.equal(want.sort((a, b) => a - b));
  });
});
