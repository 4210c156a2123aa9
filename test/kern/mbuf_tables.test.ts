import { expect } from 'chai';
import {
  m_free,
  m_get,
  m_getcl,
  m_gethdr,
  m_getjcl,
  mb_alloc_ext_pgs,
  mb_ext_pgs_check,
  mbufZones,
} from '../../src/kern/kern_mbuf.ts';
import * as mbuf from '../../src/kern/mbuf.ts';
import {
  type Mbuf,
  mbuf_ext_pg_len,
  M_LEADINGSPACE,
  M_NOWAIT,
  M_PKTHDR,
  M_SIZE,
  M_START,
  MT_DATA,
  M_TRAILINGSPACE,
  M_WRITABLE,
} from '../../src/kern/mbuf.ts';
import { m_copydata } from '../../src/kern/m_copydata.ts';
import { m_copym, m_sanity } from '../../src/kern/uipc_mbuf.ts';
import { sbappendstream, sbflush, Sockbuf } from '../../src/kern/uipc_sockbuf.ts';
import { kva } from '../../src/sys/types.ts';
import { mem, PAGE_SIZE, ramBase } from '../../src/vm/arena.ts';
import { bootEach } from './boot.ts';
import { chainBytes, must, pgsMbuf, scratchPages, sfbufMbuf } from './chains.ts';

/** Returns the values of the exported constants that the keys of `want` name. */
function valuesOf(want: Record<string, number>): Record<string, unknown> {
  return Object.fromEntries(Object.keys(want).map((name) => [name, Reflect.get(mbuf, name)]));
}

describe('mbuf: constants of sys/mbuf.h', () => {
  const TABLES: Record<string, Record<string, number>> = {
    sizes: {
      MSIZE: 256,
      MHSIZE: 32,
      MLEN: 224,
      MHLEN: 168,
      MINCLSIZE: 169,
      MCLBYTES: 2048,
      MJUMPAGESIZE: 4096,
      MJUM16BYTES: 16384,
      max_linkhdr: 16,
      max_protohdr: 60,
      max_hdr: 76,
      M_COPYALL: 1_000_000_000,
      MBUF_PEXT_HDR_LEN: 23,
      MBUF_PEXT_TRAIL_LEN: 64,
      MBUF_PEXT_MAX_PGS: 19,
      MBUF_PEXT_FLAG_ANON: 1,
    },
    m_flags: {
      M_EXT: 0x1,
      M_PKTHDR: 0x2,
      M_EOR: 0x4,
      M_RDONLY: 0x8,
      M_BCAST: 0x10,
      M_MCAST: 0x20,
      M_PROMISC: 0x40,
      M_VLANTAG: 0x80,
      M_NOMAP: 0x100,
      M_NOFREE: 0x200,
      M_TSTMP: 0x400,
      M_TSTMP_HPREC: 0x800,
      M_PROTO1: 0x1000,
      M_NOTREADY: 0x1000,
      M_BLOCKED: 0x2000,
      M_NOTAVAIL: 0x3000,
    },
    ext_type: {
      EXT_CLUSTER: 1,
      EXT_SFBUF: 2,
      EXT_JUMBOP: 3,
      EXT_JUMBO9: 4,
      EXT_JUMBO16: 5,
      EXT_PACKET: 6,
      EXT_MBUF: 7,
      EXT_RXRING: 8,
      EXT_PGS: 9,
      EXT_NET_DRV: 252,
      EXT_MOD_TYPE: 253,
      EXT_DISPOSABLE: 254,
      EXT_EXTREF: 255,
    },
    ext_flags: {
      EXT_FLAG_EMBREF: 0x1,
      EXT_FLAG_EXTREF: 0x2,
      EXT_FLAG_NOFREE: 0x10,
      EXT_FLAG_VENDOR1: 0x10000,
      EXT_FLAG_VENDOR2: 0x20000,
      EXT_FLAG_VENDOR3: 0x40000,
      EXT_FLAG_SYNC: 0x10000,
      EXT_FLAG_NOCACHE: 0x20000,
      EXT_FLAG_CACHE_LAST: 0x40000,
    },
  };
  for (const [name, want] of Object.entries(TABLES))
    it(name, () => {
      expect(valuesOf(want)).to.deep.equal(want);
    });

  it('M_COPYFLAGS contains the packet header flags and no storage flag such as M_NOMAP', () => {
    expect(mbuf.M_COPYFLAGS & (mbuf.M_NOMAP | mbuf.M_EXT | mbuf.M_NOFREE)).to.equal(0);
    expect(mbuf.M_COPYFLAGS & 0xfff).to.equal(0xcfe & ~mbuf.M_NOMAP);
  });
});

describe('mbuf: the 256-byte record of an unmapped mbuf', () => {
  bootEach();

  it('is 256 bytes and aligned, with hdr at 160 and trail at 192; records do not overlap', () => {
    const { extpgs } = mbufZones();
    expect(extpgs.size).to.equal(256);
    const ms = Array.from({ length: 40 }, () => must(mb_alloc_ext_pgs(M_NOWAIT, false, () => {})));
    const records = ms.map((m) => must(m.m_ext.ext_pgs));
    for (const p of records) {
      const base = p.hdr - 160;
      expect(base % 256).to.equal(0);
      expect(p.trail - base).to.equal(192);
      // The 23 header bytes end at the flags byte; the 64 trailer bytes end the record.
      expect(p.hdr + mbuf.MBUF_PEXT_HDR_LEN - base).to.equal(183);
      expect(p.trail + mbuf.MBUF_PEXT_TRAIL_LEN - base).to.equal(256);
      expect(p.pa0 % mbuf.MBUF_PEXT_MAX_PGS).to.equal(0);
    }
    expect(new Set(records.map((p) => p.hdr)).size).to.equal(40);
    expect(new Set(records.map((p) => p.pa0)).size).to.equal(40);
    for (const m of ms) m_free(m);
  });

  it('holds at most 19 * 4096 + 23 + 64 = 77,911 bytes', () => {
    const m = pgsMbuf({ npgs: 19, hdr: 23, trail: 64 });
    expect(m.m_len).to.equal(77_911);
    expect(m.m_ext.ext_size).to.equal(77_824);
    m_free(m);
  });
});

describe('mbuf: byte offsets of an unmapped mbuf', () => {
  bootEach();

  it('file offset 5000, 10,000 bytes: usable 3192, 4096, 2712', () => {
    const m = pgsMbuf({ npgs: 3, first: 904, last: 2712 });
    const p = must(m.m_ext.ext_pgs);
    expect([0, 1, 2].map((i) => mbuf_ext_pg_len(p, i, i === 0 ? p.first_pg_off : 0))).to.eql([
      3192, 4096, 2712,
    ]);
    expect([m.m_len, m.m_ext.ext_size]).to.eql([10_000, 12_288]);
    m_free(m);
  });

  it('a single page counts last_pg_len from first_pg_off', () => {
    const m = pgsMbuf({ npgs: 1, first: 4000, last: 96 });
    const p = must(m.m_ext.ext_pgs);
    mb_ext_pgs_check(p);
    expect(mbuf_ext_pg_len(p, 0, 4000)).to.equal(96);
    m_free(m);
  });

  it('byte b of page i is at pa[i] + (i = 0: first_pg_off) + b; hdr precedes and trail follows the pages', () => {
    const m = pgsMbuf({ npgs: 2, first: 100, last: 50, hdr: 3, trail: 2 });
    const p = must(m.m_ext.ext_pgs);
    const to = scratchPages(1);
    const at = [
      p.hdr,
      p.hdr + 2,
      p.pa[p.pa0]! - ramBase + 100,
      p.pa[p.pa0]! - ramBase + PAGE_SIZE - 1,
      p.pa[p.pa0 + 1]! - ramBase,
      p.pa[p.pa0 + 1]! - ramBase + 49,
      p.trail,
      p.trail + 1,
    ];
    const offsets = [0, 2, 3, 3 + 3995, 3 + 3996, 3 + 3996 + 49, 3 + 3996 + 50, 3 + 3996 + 51];
    const got = offsets.map((off) => {
      m_copydata(m, off, 1, kva(to.off));
      return mem[to.off];
    });
    expect(got).to.eql(at.map((a) => mem[a]));
    to.free();
    m_free(m);
  });

  it('shadows have their own m_data and m_len over the same bytes', () => {
    const m = pgsMbuf({ npgs: 2, hdr: 10 });
    const bytes = chainBytes(m);
    const s = must(m_copym(m, 5, 100, M_NOWAIT));
    const t = must(m_copym(s, 50, 20, M_NOWAIT));
    expect([m.m_data, s.m_data, t.m_data]).to.eql([0, 5, 55]);
    expect(chainBytes(t)).to.eql(bytes.slice(55, 75));
    for (const n of [m, s, t]) m_free(n);
  });
});

describe('mbuf: M_WRITABLE, M_START, M_SIZE and space, by kind', () => {
  bootEach();

  /** Sets `m` to ten bytes at offset 20 of its storage. */
  function aimed(m: Mbuf | null): Mbuf {
    const n = must(m);
    n.m_data = M_START(n) + 20;
    n.m_len = 10;
    n.m_pkthdr.len = 10;
    return n;
  }
  const cluster = (): Mbuf => aimed(m_getcl(M_NOWAIT, MT_DATA, 0));

  // Writable, bytes of storage, leading and trailing space.
  const KINDS: Record<string, [() => Mbuf, boolean, number, number, number]> = {
    plain: [() => aimed(m_get(M_NOWAIT, MT_DATA)), true, 224, 20, 194],
    'with packet header': [() => aimed(m_gethdr(M_NOWAIT, MT_DATA)), true, 168, 20, 138],
    cluster: [cluster, true, 2048, 20, 2018],
    'page cluster with packet header': [
      () => aimed(m_getjcl(M_NOWAIT, MT_DATA, M_PKTHDR, 4096)),
      true,
      4096,
      20,
      4066,
    ],
    'mapped file page': [() => sfbufMbuf(20, 10), false, 4096, 0, 0],
    'unmapped, two pages': [() => aimed(pgsMbuf({ npgs: 2 })), false, 8192, 0, 0],
  };
  for (const [kind, [make, writable, size, leading, trailing]] of Object.entries(KINDS))
    it(kind, () => {
      const m = make();
      expect(M_WRITABLE(m)).to.equal(writable);
      expect([M_SIZE(m), M_LEADINGSPACE(m), M_TRAILINGSPACE(m)]).to.eql([size, leading, trailing]);
      expect(m.m_data - M_START(m)).to.equal(20);
      expect(m_sanity(m, false)).to.equal(true);
      m_free(m);
    });

  it('a cluster is not writable while it is shared', () => {
    const m = cluster();
    const s = must(m_copym(m, 0, 10, M_NOWAIT));
    for (const n of [m, s])
      expect([M_WRITABLE(n), M_LEADINGSPACE(n), M_TRAILINGSPACE(n)]).to.eql([false, 0, 0]);
    m_free(m);
    expect(M_WRITABLE(s)).to.equal(true);
    m_free(s);
  });
});

describe('mbuf: charge to a socket buffer', () => {
  bootEach();

  // mbcnt, ccnt.
  const CHARGES: Record<string, [() => Mbuf, number, number]> = {
    'plain mbuf': [() => must(m_get(M_NOWAIT, MT_DATA)), 256, 0],
    cluster: [() => must(m_getcl(M_NOWAIT, MT_DATA, 0)), 256 + 2048, 1],
    'page cluster': [() => must(m_getjcl(M_NOWAIT, MT_DATA, 0, 4096)), 256 + 4096, 1],
    'mapped file page': [() => sfbufMbuf(0, 4096), 256 + 4096, 1],
    'unmapped, one page': [() => pgsMbuf({ npgs: 1 }), 256 + 4096, 1],
    'unmapped, part of two pages': [() => pgsMbuf({ npgs: 2, first: 4000, last: 300 }), 8448, 1],
    'unmapped, with header and trailer (not charged)': [
      () => pgsMbuf({ npgs: 4, hdr: 13, trail: 16 }),
      16_640,
      1,
    ],
    'unmapped, 19 pages': [() => pgsMbuf({ npgs: 19 }), 78_080, 1],
  };
  for (const [kind, [make, mbcnt, ccnt]] of Object.entries(CHARGES))
    it(`${kind}: ${mbcnt} bytes`, () => {
      const sb = new Sockbuf();
      const m = make();
      if (m.m_len === 0) m.m_len = 1;
      sbappendstream(sb, m, false);
      expect([sb.sb_mbcnt, sb.sb_mcnt, sb.sb_ccnt]).to.eql([mbcnt, 1, ccnt]);
      sbflush(sb);
      expect([sb.sb_mbcnt, sb.sb_mcnt, sb.sb_ccnt]).to.eql([0, 0, 0]);
    });
});
