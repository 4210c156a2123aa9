import { expect } from 'chai';
import { bytesPerCall } from './alloc.ts';

describe('test support: bytesPerCall', function () {
  this.timeout(60_000);
  const kept: { n: number }[] = [];
  let sum = 0;

  it('reports less than 1 byte for a function that allocates nothing', () => {
    expect(bytesPerCall(() => (sum = (sum + 1) | 0))).to.be.below(1);
  });

  it('reports one small object', () => {
    expect(bytesPerCall(() => (kept[0] = { n: sum++ }))).to.be.above(12);
  });

  it('reports a heap number that the callee returns, although the callee could be inlined', () => {
    const unsigned = (n: number): number => n >>> 0;
    expect(bytesPerCall(() => (sum = unsigned(~sum) & 1))).to.be.above(12);
  });

  it('reports the whole size of large objects, which trigger garbage collections', () => {
    const hundred = Array.from({ length: 100 }, (_, i) => i);
    const arrays: number[][] = [];
    const bytes = bytesPerCall(() => (arrays[0] = hundred.slice()));
    expect(bytes).to.be.within(800, 1000);
  });
});
