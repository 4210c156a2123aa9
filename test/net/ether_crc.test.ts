import { crc32 } from 'node:zlib';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { ether_crc32_be, ether_crc32_le } from '../../src/net/ether_crc.ts';

const reverse = (n: number): number => {
  let out = 0;
  for (let i = 0; i < 32; i++) out |= ((n >>> i) & 1) << (31 - i);
  return out;
};

describe('ether_crc', () => {
  it("equals zlib's CRC-32 before the final complement, and its bit-reversed form", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20 }), (bytes) => {
        const le = ~crc32(bytes);
        expect(ether_crc32_le(bytes)).to.equal(le);
        expect(ether_crc32_be(bytes)).to.equal(reverse(le));
      }),
    );
  });
});
