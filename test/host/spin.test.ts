import { expect } from 'chai';
import { PAUSE_MAX, QUICK_NS, Spin } from '../../src/host/spin.ts';

describe('host: spin', () => {
  let spin: Spin;
  let now: number;
  beforeEach(() => {
    spin = new Spin();
    now = 1e9;
  });

  /** An event `gapNs` after the last one; `found`: the result of its wait. Returns whether it waited. */
  const event = (gapNs: number, found: boolean): boolean => {
    now += gapNs;
    spin.begin(now);
    const wanted = spin.wanted();
    if (wanted) spin.waited(found);
    spin.end(now);
    return wanted;
  };

  it('waits after events that follow quickly, and not after others', () => {
    expect(event(0, true)).to.equal(false);
    expect(event(QUICK_NS - 1, true)).to.equal(true);
    expect(event(QUICK_NS, true)).to.equal(false);
    expect(event(1000, true)).to.equal(true);
    expect(event(1000, true)).to.equal(true);
    for (let i = 0; i < 100; i++) expect(event(1e6, true)).to.equal(false);
  });

  it('leaves out more and more events after waits in vain', () => {
    event(0, false);
    const gaps: number[] = [];
    for (let last = 0, i = 1; gaps.length < 14; i++) {
      if (!event(1000, false)) continue;
      gaps.push(i - last);
      last = i;
    }
    expect(gaps.slice(0, 6)).to.deep.equal([1, 2, 3, 5, 9, 17]);
    expect(gaps.at(-1)).to.equal(PAUSE_MAX + 1);
  });

  it('waits after each quick event again when a wait has found an event', () => {
    event(0, false);
    for (let i = 0; i < 100; i++) event(1000, false);
    while (!event(1000, true));
    for (let i = 0; i < 10; i++) expect(event(1000, true)).to.equal(true);
    expect(event(1000, false)).to.equal(true);
    expect(event(1000, false)).to.equal(false);
    expect(event(1000, false)).to.equal(true);
  });
});
