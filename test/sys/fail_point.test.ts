import { expect } from 'chai';
import { failPoint, failPointNames, failPointsReset } from '../../src/sys/fail_point.ts';

describe('fail points', () => {
  it('refuse the k-th request and the n - 1 after it, and no other', () => {
    const p = failPoint('test');
    expect(p.refuses()).to.equal(false);
    p.arm(3, 2);
    expect(Array.from({ length: 6 }, () => p.refuses())).to.eql([
      false,
      false,
      true,
      true,
      false,
      false,
    ]);
    expect([p.seen, p.fired]).to.eql([6, 2]);
    p.arm(1);
    expect([p.seen, p.fired]).to.eql([0, 0]);
    p.disarm();
    expect([p.refuses(), p.seen]).to.eql([false, 0]);
  });

  it('are shared by name, and failPointsReset disarms all of them', () => {
    const p = failPoint('test');
    expect(failPoint('test')).to.equal(p);
    expect(failPointNames()).to.include('test');
    p.arm(1);
    failPointsReset();
    expect(p.refuses()).to.equal(false);
  });
});
