/** SHA-256 and HMAC against Node's. */

import { createHash, createHmac } from 'node:crypto';
import { expect } from 'chai';
import { hmacSha256, sha256 } from '../../src/sys/sha256.ts';

const bytes = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (i * 7) & 0xff);

describe('sha256', () => {
  it('agrees with Node for messages of each length around the block', () => {
    for (const n of [0, 1, 3, 54, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000]) {
      const want = createHash('sha256').update(bytes(n)).digest('hex');
      const half = n >> 1;
      const parts = [bytes(n).subarray(0, half), bytes(n).subarray(half)];
      expect(Buffer.from(sha256(parts)).toString('hex'), `${n} bytes`).to.equal(want);
    }
  });

  it('is the hash of an HMAC, whose key may be longer than a block', () => {
    for (const n of [0, 1, 36, 64, 65, 200]) {
      const want = createHmac('sha256', bytes(n)).update('some text').digest('hex');
      const got = hmacSha256(bytes(n), [Buffer.from('some '), Buffer.from('text')]);
      expect(Buffer.from(got).toString('hex'), `key of ${n} bytes`).to.equal(want);
    }
  });
});
