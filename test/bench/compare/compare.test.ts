import { expect } from 'chai';
import { needs } from '../../support/needs.ts';
import { bench } from '../run_bench.ts';
import { isWorse, ratioInterval } from './interval.ts';

describe('bench: compare', () => {
  it('computes the geometric mean and the interval of the t distribution', () => {
    const { ratio, low, high } = ratioInterval([1, Math.E, Math.E ** 2]);
    // Logarithms 0, 1, 2: mean 1, standard error 1 / sqrt(3), t with 2 degrees of freedom 4.303.
    const half = 4.303 / Math.sqrt(3);
    expect(ratio).to.be.closeTo(Math.E, 1e-9);
    expect(Math.log(low)).to.be.closeTo(1 - half, 1e-9);
    expect(Math.log(high)).to.be.closeTo(1 + half, 1e-9);
  });

  it('has no bounds from one value, and narrow ones from many equal values', () => {
    expect(ratioInterval([1.1])).to.include({ low: 0, high: Infinity });
    const { low, high } = ratioInterval(Array.from({ length: 60 }, () => 0.9));
    expect(low).to.be.closeTo(0.9, 1e-9);
    expect(high).to.be.closeTo(0.9, 1e-9);
  });

  it('calls a row worse only if the better end of the interval is beyond the tolerance', () => {
    const of = (low: number, high: number): Parameters<typeof isWorse>[0] => ({
      ratio: Math.sqrt(low * high),
      low,
      high,
    });
    expect(isWorse(of(0.8, 0.96), true, 0.03)).to.equal(true);
    expect(isWorse(of(0.8, 0.98), true, 0.03)).to.equal(false);
    expect(isWorse(of(1.04, 1.2), false, 0.03)).to.equal(true);
    expect(isWorse(of(1.02, 1.2), false, 0.03)).to.equal(false);
    expect(isWorse(of(1.2, 1.3), true, 0.03)).to.equal(false);
  });

  it('exits with 2 without a revision or a name, or with a wrong number of pairs', () => {
    for (const args of [[], ['HEAD'], ['HEAD', 'loss', '--pairs', '0'], ['HEAD', 'nonesuch']])
      expect(bench('compare', ...args), args.join(' ')).to.include({ status: 2, stdout: '' });
    expect(bench('loss', '--pairs', '3')).to.include({ status: 2, stdout: '' });
  });

  describe('with a repository', () => {
    needs('git', 'root', 'netns', 'tap', 'curl');

    it('names an unknown revision, and a bench that cannot be compared, in one line', () => {
      const unknown = bench('compare', 'nonesuch', 'loss');
      expect(unknown.status).to.equal(1);
      expect(unknown.stderr).to.match(/^bench: FAILED: compare: nonesuch: no such revision.*\n$/);
      const other = bench('compare', 'HEAD', 'smoke');
      expect(other.status).to.equal(1);
      expect(other.stderr).to.match(/^bench: FAILED: compare: smoke .*cannot be compared\n$/);
    });
  });
});
