import { expect } from 'chai';
import * as fc from 'fast-check';
import { ManualClock } from '../../src/host/manual_clock.ts';
import {
  Callout,
  callout_pending,
  callout_reset,
  calloutsPending,
  callout_stop,
  machineClock,
  nowNs,
  timeoutInit,
} from '../../src/kern/kern_timeout.ts';
import { passDefer, passReset } from '../../src/sys/pass.ts';

describe('kern_timeout', () => {
  let clock: ManualClock;
  let log: string[];
  const named = (name: string): Callout =>
    new Callout({ run: () => void log.push(`${name}@${nowNs()}`) });

  beforeEach(() => {
    passReset();
    clock = new ManualClock();
    timeoutInit(clock);
    log = [];
  });

  it('runs callouts in order of deadline, then of arming', () => {
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map(named) as [Callout, Callout, Callout, Callout];
    callout_reset(a, 30);
    callout_reset(b, 10);
    callout_reset(c, 30);
    callout_reset(d, 10);
    clock.advance(9);
    expect(log).to.eql([]);
    clock.advance(100);
    expect(log).to.eql(['b@10', 'd@10', 'a@30', 'c@30']);
    expect(calloutsPending()).to.equal(0);
    expect(machineClock()).to.equal(clock);
  });

  it('callout_reset moves a pending callout to an earlier or later time', () => {
    const a = named('a');
    callout_reset(a, 50);
    callout_reset(a, 10);
    callout_reset(a, 80);
    expect(calloutsPending()).to.equal(1);
    clock.advance(79);
    expect(log).to.eql([]);
    clock.advance(1);
    expect(log).to.eql(['a@80']);
  });

  it('callout_stop returns whether the callout was pending', () => {
    const a = named('a');
    expect(callout_stop(a)).to.equal(false);
    callout_reset(a, 5);
    expect(callout_pending(a)).to.equal(true);
    expect(callout_stop(a)).to.equal(true);
    expect(callout_stop(a)).to.equal(false);
    clock.advance(100);
    expect(log).to.eql([]);
    callout_reset(a, 5);
    clock.advance(5);
    expect(log).to.eql(['a@105']);
    expect(callout_pending(a)).to.equal(false);
  });

  it('lets a callout stop another one that is due at the same time', () => {
    const b = named('b');
    const a = new Callout({ run: () => void callout_stop(b) });
    callout_reset(a, 5);
    callout_reset(b, 5);
    clock.advance(10);
    expect(log).to.eql([]);
  });

  it('a callout that rearms itself with 0 ns runs again within the same advance of time', () => {
    let n = 0;
    const a: Callout = new Callout({
      run: () => {
        if (++n < 5) callout_reset(a, 0);
      },
    });
    callout_reset(a, 1);
    clock.advance(1);
    expect(n).to.equal(5);
  });

  it('runs the other callouts after a callout or a task it deferred throws', () => {
    const bad = new Callout({
      run: () => {
        throw new Error('callout');
      },
    });
    const worse = new Callout({
      run: () =>
        passDefer({
          run: () => {
            throw new Error('deferred');
          },
        }),
    });
    callout_reset(bad, 1);
    callout_reset(worse, 2);
    callout_reset(named('a'), 2);
    callout_reset(named('b'), 3);
    expect(() => clock.advance(1)).to.throw('callout');
    expect(() => clock.advance(1)).to.throw('deferred');
    clock.advance(10);
    callout_reset(named('c'), 1);
    clock.advance(10);
    expect(log).to.eql(['a@2', 'b@3', 'c@13']);
  });

  it('timeoutInit discards the callouts of the previous machine', () => {
    const a = named('a');
    callout_reset(a, 5);
    timeoutInit(new ManualClock());
    expect(calloutsPending()).to.equal(0);
    expect(callout_pending(a)).to.equal(false);
    clock.advance(10);
    expect(log).to.eql([]);
  });

  // Nanoseconds: within the heap, across all levels of the wheel, and around the borders of its slots.
  const DAY = 86_400e9;
  const spans: readonly (readonly [string, fc.Arbitrary<number>])[] = [
    ['100 ns', fc.nat(100)],
    ['a day', fc.double({ min: 0, max: 1, noNaN: true }).map((x) => Math.floor(DAY ** x))],
    [
      'borders of slots',
      fc
        .tuple(fc.nat(3), fc.nat(4), fc.integer({ min: -1, max: 1 }))
        .map(([level, n, off]) => Math.max(n * 2 ** (24 + 8 * level) + off, 0)),
    ],
  ];
  for (const [title, delay] of spans)
    it(`random arming, stopping and advancing against a sorted list: ${title}`, () => {
      const op = fc.tuple(fc.constantFrom('reset', 'stop', 'advance'), fc.nat(9), delay);
      fc.assert(
        fc.property(fc.array(op, { maxLength: 60 }), (ops) => {
          clock = new ManualClock();
          timeoutInit(clock);
          const ran: string[] = [];
          const cs = Array.from(
            { length: 10 },
            (_, i) => new Callout({ run: () => void ran.push(`${i}@${nowNs()}`) }),
          );
          let model: { i: number; at: number; seq: number }[] = [];
          const want: string[] = [];
          ops.forEach(([what, i, n], seq) => {
            if (what !== 'advance') model = model.filter((m) => m.i !== i);
            if (what === 'reset') {
              callout_reset(cs[i]!, n);
              model.push({ i, at: clock.nowNs() + n, seq });
            } else if (what === 'stop') {
              callout_stop(cs[i]!);
            } else {
              const due = model.filter((m) => m.at <= clock.nowNs() + n);
              due.sort((x, y) => x.at - y.at || x.seq - y.seq);
              want.push(...due.map((m) => `${m.i}@${m.at}`));
              model = model.filter((m) => !due.includes(m));
              clock.advance(n);
            }
            expect(calloutsPending()).to.equal(model.length);
          });
          expect(ran).to.eql(want);
        }),
        { numRuns: 300 },
      );
    });
});
