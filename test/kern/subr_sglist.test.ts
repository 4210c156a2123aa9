import { expect } from 'chai';
import * as fc from 'fast-check';
import { m_freem, m_get, m_getcl } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOMAP, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import {
  type Sglist,
  sglist_alloc,
  sglist_append,
  sglist_append_ext_pgs,
  sglist_append_mb_ext_pgs,
  sglist_append_mbuf,
  sglist_append_phys,
  sglist_count,
  sglist_count_ext_pgs,
  sglist_count_mb_ext_pgs,
  sglist_length,
  sglist_reset,
} from '../../src/kern/subr_sglist.ts';
import { EFBIG, EINVAL } from '../../src/sys/errno.ts';
import { Panic } from '../../src/sys/kassert.ts';
import { kva, physAddr } from '../../src/sys/types.ts';
import { mem, PAGE_SIZE, ramBase } from '../../src/vm/arena.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { runs } from '../support/property.ts';
import { bootEach } from './boot.ts';
import { Chain, chainArb, chainBytes, must, pgsMbuf } from './chains.ts';

/** Address and length of each segment. */
const segs = (sg: Sglist): [number, number][] =>
  Array.from({ length: sg.sg_nseg }, (_, i) => [sg.ss_paddr[i]!, sg.ss_len[i]!]);

/** Returns the bytes that hardware reads at the segments. */
const gather = (sg: Sglist): Uint8Array =>
  Buffer.concat(segs(sg).map(([addr, n]) => mem.slice(addr - ramBase, addr - ramBase + n)));

/** Reverses the pages of an unmapped mbuf, so that no page follows its predecessor in memory. */
function scatter(m: Mbuf): void {
  const { pa, pa0, npgs } = must(m.m_ext.ext_pgs);
  pa.subarray(pa0, pa0 + npgs).reverse();
}

describe('sglist(9)', () => {
  bootEach();

  it('joins adjacent ranges; a failed append leaves the list unchanged', () => {
    const sg = sglist_alloc(2);
    expect(sglist_append_phys(sg, physAddr(0x1_0000_0000), 100)).to.equal(0);
    expect(sglist_append_phys(sg, physAddr(0x1_0000_0064), 28)).to.equal(0);
    expect(sglist_append_phys(sg, physAddr(0x1_0000_0080), 0)).to.equal(0);
    expect(sglist_append(sg, kva(0x5000), 10_000)).to.equal(0);
    const two: [number, number][] = [
      [0x1_0000_0000, 128],
      [0x5000 + ramBase, 10_000],
    ];
    expect(segs(sg)).to.deep.equal(two);
    expect(sglist_length(sg)).to.equal(10_128);
    expect(sglist_append_phys(sg, physAddr(0x9000_0000), 1)).to.equal(EFBIG);
    expect(sglist_append(sg, kva(0x5000), 1)).to.equal(EFBIG);
    // The first mbuf follows the last segment in memory, the second does not.
    const m = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    m.m_len = 50;
    m.m_next = must(m_get(M_NOWAIT, MT_DATA));
    m.m_next.m_len = 10;
    const other = sglist_alloc(1);
    expect(sglist_append(other, kva(m.m_data - 16), 16)).to.equal(0);
    expect(sglist_append_mbuf(other, m)).to.equal(EFBIG);
    expect(segs(other)).to.deep.equal([[m.m_data - 16 + ramBase, 16]]);
    m_freem(m);
    expect(segs(sg)).to.deep.equal(two);
    sglist_reset(sg);
    expect([sg.sg_nseg, sglist_length(sg)]).to.deep.equal([0, 0]);
  });

  it('EINVAL when the list has no segments', () => {
    const none = sglist_alloc(0);
    const m = pgsMbuf({ npgs: 1 });
    expect(sglist_append(none, kva(0x5000), 10)).to.equal(EINVAL);
    expect(sglist_append_phys(none, physAddr(0x5000), 10)).to.equal(EINVAL);
    expect(sglist_append_mbuf(none, m)).to.equal(EINVAL);
    expect(sglist_append_mb_ext_pgs(none, m)).to.equal(EINVAL);
    m_freem(m);
  });

  it('counts the segments of a page list: header, runs of adjacent pages, trailer', () => {
    const m = pgsMbuf({ npgs: 4, hdr: 13, trail: 16 });
    const pgs = must(m.m_ext.ext_pgs);
    expect(sglist_count_mb_ext_pgs(m), 'adjacent pages are one segment').to.equal(3);
    scatter(m);
    expect(sglist_count_mb_ext_pgs(m)).to.equal(6);
    expect(sglist_count_ext_pgs(pgs, 10, 20), 'header and page').to.equal(2);
    expect(sglist_count_ext_pgs(pgs, 13 + 4 * PAGE_SIZE + 4, 12), 'trailer').to.equal(1);
    expect(sglist_count_ext_pgs(pgs, 13 + PAGE_SIZE - 1, 2), 'across pages').to.equal(2);
    expect(sglist_count_ext_pgs(pgs, 0, 0)).to.equal(0);
    expect(sglist_count(kva(0x5000), 0)).to.equal(0);
    const sg = sglist_alloc(6);
    expect(sglist_append_mb_ext_pgs(sg, m)).to.equal(0);
    expect(segs(sg).map(([, n]) => n)).to.deep.equal([13, ...Array(4).fill(PAGE_SIZE), 16]);
    const short = sglist_alloc(5);
    expect(sglist_append_mb_ext_pgs(short, m)).to.equal(EFBIG);
    expect(short.sg_nseg).to.equal(0);
    expect(sglist_append_ext_pgs(short, pgs, 13, 4 * PAGE_SIZE)).to.equal(0);
    expect(short.sg_nseg).to.equal(4);
    sglist_reset(short);
    expect(sglist_append_ext_pgs(short, pgs, 13 + 4 * PAGE_SIZE + 4, 12)).to.equal(0);
    expect(segs(short), 'inside the trailer').to.deep.equal([[pgs.trail + 4 + ramBase, 12]]);
    expect(() => sglist_count_ext_pgs(pgs, 0, m.m_len + 1)).to.throw(Panic);
    expect(() => sglist_append_ext_pgs(sglist_alloc(9), pgs, 0, m.m_len + 1)).to.throw(Panic);
    m_freem(m);
  });

  it('any chain: keeps the bytes, and uses no more segments than counted', () => {
    fc.assert(
      fc.property(chainArb(), (shape) => {
        const chain = new Chain(shape);
        const want = chainBytes(chain.m);
        let most = 0;
        for (let m: Mbuf | null = chain.m; m !== null; m = m.m_next)
          most += (m.m_flags & M_NOMAP) !== 0 ? sglist_count_mb_ext_pgs(m) : m.m_len > 0 ? 1 : 0;
        const sg = sglist_alloc(Math.max(most, 1));
        expect(sglist_append_mbuf(sg, chain.m)).to.equal(0);
        expect(Buffer.compare(gather(sg), want)).to.equal(0);
        expect(sglist_length(sg)).to.equal(want.length);
        if (sg.sg_nseg > 1) {
          const short = sglist_alloc(sg.sg_nseg - 1);
          expect(sglist_append_mbuf(short, chain.m)).to.equal(EFBIG);
          expect(short.sg_nseg).to.equal(0);
        }
        m_freem(chain.m);
        chain.done();
      }),
      runs(100),
    );
  });

  it('allocates no heap memory per call', () => {
    const m = pgsMbuf({ npgs: 19, first: 100 });
    scatter(m);
    const sg = sglist_alloc(32);
    const once = (): void => {
      sglist_reset(sg);
      sglist_append_mbuf(sg, m);
    };
    expect(bytesPerCall(once)).to.be.below(8);
    m_freem(m);
  }).timeout(60_000);
});
