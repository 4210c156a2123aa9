import { expect } from 'chai';
import { below, fraction, OsPrng, SeededPrng } from '../../src/host/prng.ts';
import type { Prng } from '../../src/sys/prng.ts';

const take = (prng: Prng, n: number) => Array.from({ length: n }, () => prng.next32());

/** Chi-squared of the low and high bytes over 65536 draws: 255 degrees of freedom, 99.99 % below 348. */
function chiSquared(prng: Prng): number[] {
  const low = new Uint32Array(256);
  const high = new Uint32Array(256);
  for (let i = 0; i < 65536; i++) {
    const n = prng.next32();
    low[n & 255]!++;
    high[n >>> 24]!++;
  }
  return [low, high].map((counts) => counts.reduce((sum, c) => sum + (c - 256) ** 2 / 256, 0));
}

describe('host: randomness', () => {
  it('repeats its sequence for the same seed only', () => {
    expect(take(new SeededPrng(42), 100)).to.deep.equal(take(new SeededPrng(42), 100));
    const firsts = new Set<number>();
    for (const base of [0, 2 ** 32, 2 ** 53 - 1001])
      for (let seed = base; seed < base + 1000; seed++) firsts.add(new SeededPrng(seed).next32());
    expect(firsts.size).to.be.greaterThan(2997); // 3000 draws of 2^32: a pair is rare
  });

  it('never changes: a seed in a report must replay in the next release', () => {
    expect(take(new SeededPrng(1), 4)).to.deep.equal([
      2269211057, 1139933354, 2434246791, 1845099284,
    ]);
    expect(take(new SeededPrng(2 ** 53 - 1), 2)).to.deep.equal([2664525958, 911909962]);
    expect(take(new SeededPrng(1).fork(), 2)).to.deep.equal([2293583214, 2250130321]);
  });

  it('gives whole 32-bit numbers, spread evenly', () => {
    for (const prng of [new SeededPrng(0), new SeededPrng(1), new OsPrng()]) {
      for (const n of take(prng, 5000)) expect(n >>> 0).to.equal(n);
      for (const chi of chiSquared(prng)) expect(chi).to.be.within(150, 380);
    }
  });

  it('forks into different streams', () => {
    const a = new SeededPrng(5);
    const b = a.fork();
    const c = a.fork();
    const [x, y, z] = [take(a, 50), take(b, 50), take(c, 50)];
    expect(new Set([...x, ...y, ...z]).size).to.equal(150);
  });

  it('makes fractions below 1 and integers below n', () => {
    const prng = new SeededPrng(9);
    const seen = new Set<number>();
    for (let i = 0; i < 2000; i++) {
      expect(fraction(prng)).to.be.within(0, 1 - 2 ** -32);
      seen.add(below(prng, 6));
    }
    expect([...seen].sort((a, b) => a - b)).to.deep.equal([0, 1, 2, 3, 4, 5]);
  });

  it('of the system does not repeat itself', () => {
    expect(new Set(take(new OsPrng(), 3000)).size).to.be.greaterThan(2990);
  });
});
