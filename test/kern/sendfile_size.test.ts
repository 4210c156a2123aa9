import { expect } from 'chai';
import * as fc from 'fast-check';
import {
  sendfilePageBytes,
  sendfilePageOff,
  sendfilePages,
  sendfileRoundBytes,
} from '../../src/kern/sendfile_size.ts';

describe('sendfile: size of a round', () => {
  it('off 5000, rem 1,000,000, space 65,536: 64,632 bytes, 16 pages, end 69,632', () => {
    const n = sendfileRoundBytes(5000, 1_000_000, 65_536);
    expect(n).to.equal(64_632);
    expect(sendfilePages(5000, n)).to.equal(16);
    expect(5000 + n).to.equal(17 * 4096);
  });

  it('off 0, rem 150,000, space 200,000: 150,000 bytes, 37 pages', () => {
    const n = sendfileRoundBytes(0, 150_000, 200_000);
    expect(n).to.equal(150_000);
    expect(sendfilePages(0, n)).to.equal(37);
    expect(sendfilePageBytes(36, 37, 0, n)).to.equal(2544);
  });

  it('off 4095, rem 10, space 65,536: 10 bytes, 2 pages of 1 and 9', () => {
    const n = sendfileRoundBytes(4095, 10, 65_536);
    expect(n).to.equal(10);
    expect(sendfilePages(4095, n)).to.equal(2);
    expect([0, 1].map((i) => sendfilePageBytes(i, 2, 4095, n))).to.eql([1, 9]);
  });

  it('off 100, rem 5,000, space 3,000: 3,000 bytes, 1 page', () => {
    const n = sendfileRoundBytes(100, 5000, 3000);
    expect(n).to.equal(3000);
    expect(sendfilePages(100, n)).to.equal(1);
  });

  it('fills space up to one page completely; cuts a larger round at the end of a page', () => {
    expect(sendfileRoundBytes(100, 10_000, 4096)).to.equal(4096);
    expect(sendfileRoundBytes(100, 10_000, 4097)).to.equal(3996);
    expect(sendfileRoundBytes(0, 10_000, 4097)).to.equal(4096);
    expect(sendfileRoundBytes(100, 4097, 4097), 'rem equals space').to.equal(3996);
    expect(sendfileRoundBytes(100, 4096, 4097)).to.equal(4096);
  });

  it('is at least 1 byte, at most rem and space, and the bytes of its pages add up', () => {
    const size = fc.oneof(
      fc.integer({ min: 1, max: 20_000 }),
      fc.integer({ min: 1, max: 2 ** 40 }),
    );
    const space = fc.oneof(
      fc.integer({ min: 1, max: 9000 }),
      fc.integer({ min: 1, max: 2 * 1024 * 1024 }),
    );
    fc.assert(
      fc.property(fc.nat(2 ** 40), size, space, (off, rem, sp) => {
        const n = sendfileRoundBytes(off, rem, sp);
        expect(n).to.be.within(1, Math.min(rem, sp));
        if (n < rem && sp > 4096) expect((off + n) % 4096, 'ends on a page').to.equal(0);
        const pages = sendfilePages(off, n);
        expect(pages).to.equal(Math.floor((off + n - 1) / 4096) - Math.floor(off / 4096) + 1);
        let sum = 0;
        for (let i = 0; i < pages; i++) {
          expect(sendfilePageOff(i, off)).to.equal(off + sum);
          const b = sendfilePageBytes(i, pages, off, n);
          expect(b).to.be.within(1, 4096);
          sum += b;
        }
        expect(sum).to.equal(n);
      }),
      { numRuns: 300 },
    );
  });
});
