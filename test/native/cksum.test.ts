import { expect } from 'chai';
import * as fc from 'fast-check';
import { loadAddon } from '../../native-bindings/index.ts';
import { allocArena } from '../../src/host/arena.ts';
import { NativeCksum } from '../../src/host/cksum.ts';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import type { CksumKernel } from '../../src/sys/cksum.ts';

const SIZE = 16 * 1024 * 1024;

/** RFC 1071 word for word: 16-bit big-endian words, the carry added back after each. */
function naive(bytes: Uint8Array, off: number, len: number, sum: number): number {
  for (let i = 0; i < len; i += 2) {
    sum += bytes[off + i]! * 256 + (i + 1 < len ? bytes[off + i + 1]! : 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

describe('addon: checksum', () => {
  let bytes: Uint8Array;
  let kernels: Record<'native' | 'scalar' | 'ts', CksumKernel>;

  before(() => {
    const arena = allocArena(SIZE);
    bytes = new Uint8Array(arena);
    kernels = {
      native: new NativeCksum(arena),
      scalar: new NativeCksum(arena, true),
      ts: new TsCksum(arena),
    };
    for (let i = 0; i < 8192; i++) bytes[i] = (Math.imul(i + 1, 0x9e3779b1) >>> 13) & 0xff;
    bytes.fill(0xff, 8192, 400_000);
    for (let i = 0; i < 64; i++) bytes[SIZE - 64 + i] = i * 3;
  });

  it('computes the example of RFC 1071, section 3', () => {
    bytes.set([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 1 << 20);
    for (const [name, k] of Object.entries(kernels))
      expect(k.sum(1 << 20, 8, 0), name).to.equal(0xddf2);
  });

  for (const name of ['native', 'scalar', 'ts'] as const) {
    it(`${name}: every length to 600 at every alignment to 64`, () => {
      for (let off = 0; off < 64; off++)
        for (let len = 0; len <= 600; len++) {
          const want = naive(bytes, off, len, 0x1234);
          if (kernels[name].sum(off, len, 0x1234) !== want)
            expect.fail(
              `off ${off} len ${len}: ${kernels[name].sum(off, len, 0x1234)}, not ${want}`,
            );
        }
    });

    it(`${name}: carries of a long run of ones`, () => {
      for (const len of [65534, 65535, 65536, 131_072, 300_001])
        expect(kernels[name].sum(8193, len, 0xffff), String(len)).to.equal(
          naive(bytes, 8193, len, 0xffff),
        );
      // The whole arena: some 2^23 words.
      expect(kernels[name].sum(0, SIZE, 0)).to.equal(naive(bytes, 0, SIZE, 0));
    });

    it(`${name}: zeros and an empty range leave the sum unchanged`, () => {
      expect(kernels[name].sum(500_000, 1460, 0)).to.equal(0);
      expect(kernels[name].sum(500_001, 0, 0xffff)).to.equal(0xffff);
    });

    it(`${name}: sums up to the last byte of the arena, and panics past it`, () => {
      for (const len of [1, 2, 3, 31, 32, 33, 64])
        expect(kernels[name].sum(SIZE - len, len, 0)).to.equal(naive(bytes, SIZE - len, len, 0));
      expect(kernels[name].sum(SIZE, 0, 5)).to.equal(5);
      expect(() => kernels[name].sum(SIZE - 3, 4, 0)).to.throw('panic');
      expect(() => kernels[name].sum(SIZE + 1, 0, 0)).to.throw('panic');
      expect(() => kernels[name].sum(-1, 4, 0)).to.throw('panic');
    });
  }

  it('all kernels agree on random data, and sums of parts add up to the sum of the whole', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 0, maxLength: 3000 }),
        fc.nat(63),
        fc.nat(0xffff),
        fc.nat(1500),
        (data, align, seed, cut) => {
          const off = (2 << 20) + align;
          bytes.set(data, off);
          const want = naive(bytes, off, data.length, seed);
          const even = Math.min(cut * 2, data.length - (data.length % 2));
          for (const k of Object.values(kernels)) {
            expect(k.sum(off, data.length, seed)).to.equal(want);
            const first = k.sum(off, even, seed);
            expect(k.sum(off + even, data.length - even, first)).to.equal(want);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  it('refuses bad arguments', () => {
    const addon = loadAddon();
    expect(addon.cksum(0, 10, 0x10000, 0)).to.equal(-22);
    expect(addon.cksum(0, 10, -1, 0)).to.equal(-22);
    expect(addon.cksum(0.5, 10, 0, 0)).to.equal(-22);
    expect(addon.cksum(0, 2 ** 53 - 1, 0, 0)).to.equal(-14);
    expect(addon.cksum(2 ** 53 - 1, 2 ** 53 - 1, 0, 0)).to.equal(-14);
    expect(addon.cksum(2 ** 53, 0, 0, 0)).to.equal(-22);
  });
});
