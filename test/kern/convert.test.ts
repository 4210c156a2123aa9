import { expect } from 'chai';
import * as fc from 'fast-check';
import { inPass } from '../../src/sys/pass.ts';
import { EBUSY } from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { counted, R_CONVERT_FAILED } from '../../src/sys/reason.ts';
import {
  m_free,
  m_freem,
  m_gethdr,
  mb_unmapped_compress,
  mb_unmapped_to_ext,
  mbEmulator,
  mbufZones,
} from '../../src/kern/kern_mbuf.ts';
import {
  EXT_SFBUF,
  CSUM_IP,
  type Mbuf,
  M_EXT,
  m_extrefcnt,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  M_RDONLY,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { m_copym, m_copypacket, m_fixhdr, m_split } from '../../src/kern/uipc_mbuf.ts';
import { mem, PAGE_SIZE, ramBase } from '../../src/vm/arena.ts';
import { payloadBytesRead, READ_COPY, READ_SMALL } from '../../src/vm/payload.ts';
import { sfstatBufs } from '../../src/vm/sf_buf.ts';
import { bootEach, expectAllBack } from './boot.ts';
import { Chain, chainArb, chainBytes, expectBytes, must, pgsMbuf } from './chains.ts';

/** m_len of every mbuf of a chain. */
function lens(m: Mbuf | null): number[] {
  const out: number[] = [];
  for (; m !== null; m = m.m_next) out.push(m.m_len);
  return out;
}

/** Converts `m` and checks that the bytes are unchanged and no mbuf is unmapped. */
function converted(m: Mbuf): Mbuf {
  const want = chainBytes(m);
  const top = must(mb_unmapped_to_ext(m));
  expectBytes(top, want);
  for (let n: Mbuf | null = top; n !== null; n = n.m_next) expect(n.m_flags & M_NOMAP).to.equal(0);
  return top;
}

describe('mb_unmapped_to_ext', () => {
  bootEach();

  /** The unmapped mbuf that sendfile makes for 10,000 bytes from file offset 5000. */
  const example = (): Mbuf => pgsMbuf({ npgs: 3, first: 904, last: 2712 });

  it('window: m_data 2000, m_len 1448 of 10,000 bytes from file offset 5000', () => {
    const m = example();
    expect([m.m_len, m.m_ext.ext_size]).to.eql([10_000, 12_288]);
    const p = must(m.m_ext.ext_pgs);
    m.m_data = 2000;
    m.m_len = 1448;
    const from = (i: number, off: number, n: number): number[] => {
      const at = p.pa[p.pa0 + i]! - ramBase + off;
      return [...mem.subarray(at, at + n)];
    };
    const bytes = [...chainBytes(m)];
    expect(bytes).to.eql([...from(0, 2904, 1192), ...from(1, 0, 256)]);
    m_free(m);
  });

  it('conversion of that window: 2 EXT_SFBUF mbufs (1192, 256); counter +2 -1', () => {
    const holder = example();
    const m = must(m_copym(holder, 2000, 1448, M_NOWAIT));
    expect(m_extrefcnt(holder)).to.equal(2);
    const top = converted(m);
    expect(lens(top)).to.eql([1192, 256]);
    for (let n: Mbuf | null = top; n !== null; n = n.m_next) {
      expect(n.m_ext.ext_type).to.equal(EXT_SFBUF);
      expect(n.m_flags).to.equal(M_EXT | M_RDONLY);
      expect(n.m_ext.ext_size).to.equal(PAGE_SIZE);
    }
    expect(m_extrefcnt(holder)).to.equal(2 + 2 - 1);
    m_free(holder);
    expect(mbufZones().extpgs.current).to.equal(1);
    m_freem(top);
  });

  it('conversion of a TLS-shaped mbuf (hdr 13, 4 pages full, trail 16), whole: 6 mbufs', () => {
    const top = converted(pgsMbuf({ npgs: 4, hdr: 13, trail: 16 }));
    expect(lens(top)).to.eql([13, 4096, 4096, 4096, 4096, 16]);
    m_freem(top);
  });

  it('same with m_data 10, m_len 20: 3 header bytes, 17 bytes of page 0', () => {
    const m = pgsMbuf({ npgs: 4, hdr: 13, trail: 16 });
    m.m_data = 10;
    m.m_len = 20;
    const top = converted(m);
    expect(lens(top)).to.eql([3, 17]);
    m_freem(top);
  });

  it('same with m_data 13+16384+4, m_len 12: 1 mbuf of 12 trailer bytes', () => {
    const m = pgsMbuf({ npgs: 4, hdr: 13, trail: 16 });
    m.m_data = 13 + 16_384 + 4;
    m.m_len = 12;
    const top = converted(m);
    expect(lens(top)).to.eql([12]);
    // The page list is free again, because the trailer was copied.
    expect(mbufZones().extpgs.current).to.equal(0);
    m_freem(top);
  });

  it('copies no byte of the pages', () => {
    const m = pgsMbuf({ npgs: 19 });
    const top = must(mb_unmapped_to_ext(m));
    expect(sfstatBufs.current).to.equal(19);
    expect(payloadBytesRead(READ_COPY) + payloadBytesRead(READ_SMALL)).to.equal(0);
    m_freem(top);
  });

  it('fails on an unmapped mbuf with m_len 0', () => {
    const m = pgsMbuf({ npgs: 1 });
    m.m_len = 0;
    expect(mb_unmapped_to_ext(m)).to.equal(null);
    expect(mbEmulator.conversionFailures).to.equal(1);
  });

  it('counts one conversion per chain, and none for a chain without unmapped mbufs', () => {
    const a = pgsMbuf({ npgs: 2 });
    a.m_next = pgsMbuf({ npgs: 1 });
    const top = converted(a);
    expect(mbEmulator.conversions).to.equal(1);
    expect(mb_unmapped_to_ext(top)).to.equal(top);
    expect(mbEmulator.conversions).to.equal(1);
    m_freem(top);
  });

  for (const what of ['sf_buf', 'mbuf'] as const)
    it(`leaks nothing when an allocation fails at any step (${what})`, () => {
      for (let step = 0; step < 6; step++) {
        const a = pgsMbuf({ npgs: 2, hdr: 5, trail: 3 });
        const b = pgsMbuf({ npgs: 2 });
        const holder = must(m_copym(a, 0, a.m_len, M_NOWAIT)); // shares a's pages
        a.m_next = b;
        const use = mbufZones().mbuf.current;
        const point = failPoint(what);
        point.arm(step + 1);
        const top = inPass(mb_unmapped_to_ext, a);
        point.disarm();
        if (what === 'sf_buf' && step >= 4) {
          m_freem(must(top));
        } else {
          expect(top, `step ${step}`).to.equal(null);
          // The mbuf of `a` stays allocated: it holds the reference count of the pages that
          // `holder` shares.
          expect(mbufZones().mbuf.current).to.equal(use - 1);
          expect(counted(R_CONVERT_FAILED)).to.equal(step + 1);
        }
        m_freem(holder);
        expectAllBack();
      }
    });

  it('converts again after one sf_buf allocation failed', () => {
    failPoint('sf_buf').arm(1);
    expect(inPass(mb_unmapped_to_ext, pgsMbuf({ npgs: 1 }))).to.equal(null);
    m_freem(must(mb_unmapped_to_ext(pgsMbuf({ npgs: 1 }))));
  });

  it('keeps the bytes of random chains', () => {
    fc.assert(
      fc.property(chainArb(), fc.nat(100), (segs, hdr) => {
        const c = new Chain(segs, hdr);
        const top = converted(c.m);
        expectBytes(top, c.bytes);
        m_freem(top);
        c.done();
        expectAllBack();
      }),
      { numRuns: 150 },
    );
  });

  for (const shape of [{ npgs: 2 }, { npgs: 1, hdr: 13 }, { npgs: 1, first: 5, trail: 9 }])
    it(`keeps the packet header of the second part of m_split: ${JSON.stringify(shape)}`, () => {
      const h = must(m_gethdr(M_NOWAIT, MT_DATA));
      h.m_len = 40;
      h.m_next = pgsMbuf(shape);
      h.m_pkthdr.csum_flags = CSUM_IP;
      m_fixhdr(h);
      const bytes = chainBytes(h);
      for (const at of [42, 50, bytes.length - 3]) {
        const whole = must(m_copypacket(h, M_NOWAIT));
        const rest = must(m_split(whole, at, M_NOWAIT));
        expect(rest.m_flags & (M_PKTHDR | M_NOMAP)).to.equal(M_PKTHDR | M_NOMAP);
        const top = must(mb_unmapped_to_ext(rest));
        expect(top.m_flags & (M_PKTHDR | M_NOMAP)).to.equal(M_PKTHDR);
        expect(top.m_pkthdr.csum_flags).to.equal(CSUM_IP);
        expectBytes(top, bytes.slice(at));
        m_freem(top);
        m_freem(whole);
      }
      m_freem(h);
    });
});

describe('mb_unmapped_compress', () => {
  bootEach();

  for (const len of [1, 200, 224])
    it(`copies ${len} bytes into the mbuf itself and frees the page`, () => {
      const m = pgsMbuf({ npgs: 1, first: 300, last: len });
      const bytes = chainBytes(m);
      expect(mb_unmapped_compress(m)).to.equal(0);
      expect(m.m_flags & (M_EXT | M_RDONLY | M_NOMAP)).to.equal(0);
      expect(chainBytes(m)).to.eql(bytes);
      expect(mbufZones().extpgs.current).to.equal(0);
      expect(payloadBytesRead(READ_SMALL)).to.equal(len);
      expect(payloadBytesRead(READ_COPY)).to.equal(0);
      m_free(m);
    });

  it('panics at 225 bytes', () => {
    const m = pgsMbuf({ npgs: 1, last: 225 });
    expect(() => mb_unmapped_compress(m)).to.throw('too long');
    m_free(m);
  });

  it('copies across pages, header and trailer', () => {
    const m = pgsMbuf({ npgs: 2, first: 4046, last: 60, hdr: 23, trail: 64 });
    const bytes = chainBytes(m);
    expect(bytes).to.have.lengthOf(197);
    expect(mb_unmapped_compress(m)).to.equal(0);
    expect(chainBytes(m)).to.eql(bytes);
    m_free(m);
  });

  it('same with a shadow alive (refcount 2): EBUSY, left as is', () => {
    const m = pgsMbuf({ npgs: 1, last: 200 });
    const s = must(m_copym(m, 0, 200, M_NOWAIT));
    const flags = m.m_flags;
    expect(mb_unmapped_compress(m)).to.equal(EBUSY);
    expect(m.m_flags).to.equal(flags);
    m_free(s);
    expect(mb_unmapped_compress(m)).to.equal(0);
    m_free(m);
  });

  it('can be called again from the free routine of the pages', () => {
    const [a, b] = [pgsMbuf({ npgs: 1, last: 100 }), pgsMbuf({ npgs: 1, last: 50 })];
    const bytes = [chainBytes(a), chainBytes(b)];
    const free = must(a.m_ext.ext_free);
    a.m_ext.ext_free = (h) => {
      free(h);
      expect(mb_unmapped_compress(b)).to.equal(0);
    };
    expect(mb_unmapped_compress(a)).to.equal(0);
    expect([chainBytes(a), chainBytes(b)]).to.eql(bytes);
    // Both page lists are free, and each was freed once.
    const [c, d] = [pgsMbuf({ npgs: 1 }), pgsMbuf({ npgs: 1 })];
    expect(c.m_ext.ext_pgs).to.not.equal(d.m_ext.ext_pgs);
    for (const m of [a, b, c, d]) m_free(m);
  });

  it('returns EBUSY for a shadow whose holder was freed', () => {
    const m = pgsMbuf({ npgs: 1, last: 200 });
    const s = must(m_copym(m, 0, 200, M_NOWAIT));
    m_free(m);
    expect(m_extrefcnt(s)).to.equal(1);
    expect(mb_unmapped_compress(s)).to.equal(EBUSY);
    m_free(s);
  });
});
