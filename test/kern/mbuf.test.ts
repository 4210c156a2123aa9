import { expect } from 'chai';
import { counted, R_EXTPGS_DENIED, R_CLUSTER_DENIED, R_MBUF_DENIED } from '../../src/sys/reason.ts';
import {
  m_clget,
  m_extadd,
  m_free,
  m_freem,
  m_get,
  m_getcl,
  m_gethdr,
  m_getjcl,
  mb_alloc_ext_pgs,
  mb_ext_pgs_check,
  mb_free_notready,
  mbEmulator,
  mbufZones,
} from '../../src/kern/kern_mbuf.ts';
import {
  EXT_DISPOSABLE,
  EXT_FLAG_EMBREF,
  EXT_JUMBO16,
  EXT_PGS,
  type Mbuf,
  M_ALIGN,
  M_EXT,
  m_extrefcnt,
  MHLEN,
  MJUM16BYTES,
  M_LEADINGSPACE,
  MLEN,
  M_NOMAP,
  M_NOTREADY,
  M_NOWAIT,
  M_PKTHDR,
  m_pktdat,
  M_RDONLY,
  M_SIZE,
  M_START,
  MT_DATA,
  mtod,
  M_TRAILINGSPACE,
  M_WRITABLE,
} from '../../src/kern/mbuf.ts';
import { machineSysctl } from '../../src/kern/kern_sysctl.ts';
import { m_copym, M_PREPEND, mb_dupcl } from '../../src/kern/uipc_mbuf.ts';
import { EINVAL } from '../../src/sys/errno.ts';
import { kva } from '../../src/sys/types.ts';
import {
  NOPAGE,
  type VmPage,
  vmPageCounts,
  vm_page_alloc_noobj,
  vm_page_unwire,
} from '../../src/vm/vm_page.ts';
import { bootEach } from './boot.ts';
import { chainBytes, freePages, must, pgsMbuf } from './chains.ts';

describe('kern_mbuf: allocation', () => {
  bootEach();

  it('gives a plain mbuf MLEN bytes of data and an mbuf with packet header MHLEN', () => {
    const m = must(m_get(M_NOWAIT, MT_DATA));
    const h = must(m_gethdr(M_NOWAIT, MT_DATA));
    expect([MLEN, MHLEN]).to.deep.equal([224, 168]);
    expect(M_TRAILINGSPACE(m)).to.equal(224);
    expect(M_TRAILINGSPACE(h)).to.equal(168);
    expect(h.m_data).to.equal(m_pktdat(h));
    expect(h.m_pkthdr.len).to.equal(0);
    m_freem(m);
    m_freem(h);
  });

  it('clears the packet header of a recycled mbuf', () => {
    const h = must(m_gethdr(M_NOWAIT, MT_DATA));
    Object.assign(h.m_pkthdr, { len: 9, csum_flags: 7, tso_segsz: 5, ether_vtag: 3, pktId: 4 });
    m_free(h);
    const again = must(m_gethdr(M_NOWAIT, MT_DATA));
    expect(again).to.equal(h);
    expect(Object.values(again.m_pkthdr).every((v) => v === 0 || v === null)).to.equal(true);
    m_free(again);
  });

  it('returns null or false when an allocation fails; m_getcl frees its mbuf when the cluster fails', () => {
    const { mbuf, clust, extpgs } = mbufZones();
    mbuf.failPoint.arm(1);
    expect(m_get(M_NOWAIT, MT_DATA)).to.equal(null);
    clust.failPoint.arm(1);
    expect(m_getcl(M_NOWAIT, MT_DATA, 0)).to.equal(null);
    const m = must(m_get(M_NOWAIT, MT_DATA));
    clust.failPoint.arm(1);
    expect(m_clget(m, M_NOWAIT)).to.equal(false);
    expect(m.m_flags & M_EXT).to.equal(0);
    m_free(m);
    extpgs.failPoint.arm(1);
    expect(mb_alloc_ext_pgs(M_NOWAIT, true, freePages)).to.equal(null);
    expect([counted(R_MBUF_DENIED), counted(R_CLUSTER_DENIED), counted(R_EXTPGS_DENIED)]).to.eql([
      1, 2, 1,
    ]);
  });

  it('allocates up to the zone limit and not beyond', () => {
    const { clust } = mbufZones();
    clust.max = 3;
    const held = [1, 2, 3].map(() => must(m_getcl(M_NOWAIT, MT_DATA, 0)));
    expect(m_getcl(M_NOWAIT, MT_DATA, 0)).to.equal(null);
    m_freem(held.pop()!);
    held.push(must(m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)));
    for (const m of held) m_freem(m);
  });

  it('computes the zone limits as FreeBSD does; sysctl can only raise them', () => {
    const { mbuf, clust, jumbop, jumbo16 } = mbufZones();
    // Half of the 32 MiB is mbuf memory: a quarter of it for clusters of 2 KB and of a page, a sixth
    // for those of 16 KB, a fifth for mbufs.
    expect(clust.max).to.equal(2048);
    expect(jumbop.max).to.equal(1024);
    expect(jumbo16.max).to.equal(170);
    expect(mbuf.max).to.equal(Math.floor((16 * 1024 * 1024) / 256 / 5));
    const { tree } = machineSysctl;
    expect(tree.write('kern.ipc.nmbclusters', '2047')).to.equal(EINVAL);
    expect(tree.write('kern.ipc.nmbclusters', '2049')).to.equal(0);
    expect(clust.max).to.equal(2049);
  });

  it('allocates 16 KB clusters as runs of pages, until no run is free', () => {
    const { jumbo16 } = mbufZones();
    const held = [1, 2, 3].map(() => must(m_getjcl(M_NOWAIT, MT_DATA, M_PKTHDR, MJUM16BYTES)));
    expect(held.map((m) => [M_SIZE(m), m.m_ext.ext_type])).to.deep.equal(
      held.map(() => [16384, EXT_JUMBO16]),
    );
    expect(new Set(held.map((m) => m.m_data)).size).to.equal(3);
    for (const m of held) m_freem(m);
    // Keep one page of every four: no run is left.
    const pages: VmPage[] = [];
    for (let p = vm_page_alloc_noobj(); p !== NOPAGE; p = vm_page_alloc_noobj()) pages.push(p);
    pages.sort((a, b) => a - b);
    for (const p of pages) if (p % 4 !== 0) vm_page_unwire(p, false);
    while (jumbo16.cached > 0) held.push(must(m_getjcl(M_NOWAIT, MT_DATA, 0, MJUM16BYTES)));
    expect(m_getjcl(M_NOWAIT, MT_DATA, 0, MJUM16BYTES)).to.equal(null);
    // Memory is searched again only after many failures.
    for (const p of pages) if (p % 4 === 0) vm_page_unwire(p, false);
    const { failures } = jumbo16;
    let m: Mbuf | null = null;
    while (m === null) m = m_getjcl(M_NOWAIT, MT_DATA, 0, MJUM16BYTES);
    expect(jumbo16.failures - failures).to.equal(1023);
    m_freem(m);
    for (const h of held.slice(3)) m_freem(h);
  });

  it('allocates the item that was freed last', () => {
    const [a, b] = [must(m_get(M_NOWAIT, MT_DATA)), must(m_get(M_NOWAIT, MT_DATA))];
    m_free(a);
    m_free(b);
    const c = must(m_get(M_NOWAIT, MT_DATA));
    expect(c).to.equal(b);
    m_free(c);
  });

  it('panics when a plain mbuf is freed twice', () => {
    const m = must(m_get(M_NOWAIT, MT_DATA));
    m_free(m);
    expect(() => m_free(m)).to.throw('free already');
  });
});

describe('kern_mbuf: unmapped mbufs', () => {
  bootEach();

  it('are allocated empty, read-only and without an address', () => {
    const m = must(mb_alloc_ext_pgs(M_NOWAIT, false, () => {}));
    expect(m.m_flags).to.equal(M_EXT | M_RDONLY | M_NOMAP);
    expect(m.m_data).to.equal(0);
    expect(m.m_len).to.equal(0);
    const { ext_type, ext_flags, ext_count, ext_size } = m.m_ext;
    expect([ext_type, ext_flags, ext_count, ext_size]).to.eql([EXT_PGS, EXT_FLAG_EMBREF, 1, 0]);
    const p = must(m.m_ext.ext_pgs);
    const { npgs, nrdy, hdr_len, trail_len, first_pg_off, last_pg_len, flags } = p;
    expect([npgs, nrdy, hdr_len, trail_len, first_pg_off, last_pg_len, flags]).to.eql(
      Array.from({ length: 7 }, () => 0),
    );
    m_free(m);
  });

  it('can have a packet header', () => {
    const m = must(mb_alloc_ext_pgs(M_NOWAIT, true, () => {}));
    expect(m.m_flags & M_PKTHDR).to.equal(M_PKTHDR);
    expect(m.m_pkthdr.len).to.equal(0);
    m_free(m);
  });

  it('have page lists that do not overlap', () => {
    const a = pgsMbuf({ npgs: 19 });
    const b = pgsMbuf({ npgs: 19, hdr: 23, trail: 64 });
    const bytes = chainBytes(a);
    const c = pgsMbuf({ npgs: 19, hdr: 23, trail: 64 });
    expect(chainBytes(a)).to.eql(bytes);
    for (const m of [a, b, c]) m_free(m);
  });

  it('have no address and no leading or trailing space, and are not writable', () => {
    const m = pgsMbuf({ npgs: 1, first: 100, last: 50 });
    expect(() => mtod(m)).to.throw('unmapped');
    expect(M_WRITABLE(m)).to.equal(false);
    expect([M_START(m), M_LEADINGSPACE(m), M_TRAILINGSPACE(m)]).to.eql([0, 0, 0]);
    m_free(m);
  });

  it('M_PREPEND puts the header into a new mapped mbuf', () => {
    const m = pgsMbuf({ npgs: 1 });
    const top = must(M_PREPEND(m, 20, M_NOWAIT));
    expect(top).to.not.equal(m);
    expect(top.m_flags & M_NOMAP).to.equal(0);
    expect(top.m_next).to.equal(m);
    m_freem(top);
  });

  it('mb_ext_pgs_check panics for each invalid field and accepts the limits', () => {
    const m = pgsMbuf({ npgs: 2, first: 4095, last: 4096, hdr: 23, trail: 64 });
    const p = must(m.m_ext.ext_pgs);
    p.nrdy = 2;
    mb_ext_pgs_check(p);
    const broken: [Partial<typeof p>, string][] = [
      [{ npgs: 0 }, 'no pages'],
      [{ npgs: 20 }, 'too many pages'],
      [{ nrdy: 3 }, 'too many ready'],
      [{ first_pg_off: 4096 }, 'page offset'],
      [{ last_pg_len: 0 }, 'zero last'],
      [{ last_pg_len: 4097 }, 'large last'],
      [{ npgs: 1, nrdy: 1, first_pg_off: 1, last_pg_len: 4096 }, 'single page'],
      [{ hdr_len: 24 }, 'header length'],
      [{ trail_len: 65 }, 'trailer length'],
    ];
    for (const [change, why] of broken) {
      const good = Object.fromEntries(
        Object.keys(change).map((k) => [k, p[k as keyof typeof p]]),
      ) as Partial<typeof p>;
      Object.assign(p, change);
      expect(() => mb_ext_pgs_check(p), why).to.throw(why);
      Object.assign(p, good);
    }
    Object.assign(p, { npgs: 1, nrdy: 0, first_pg_off: 1, last_pg_len: 4095 });
    mb_ext_pgs_check(p);
    p.npgs = 2;
    m_free(m);
  });
});

describe('kern_mbuf: reference counts', () => {
  bootEach();

  function shadowOf(m: Mbuf): Mbuf {
    const n = must(m_get(M_NOWAIT, MT_DATA));
    mb_dupcl(n, m);
    n.m_data = m.m_data;
    n.m_len = m.m_len;
    return n;
  }

  for (const kind of ['unmapped', 'cluster'] as const) {
    const make = (): Mbuf =>
      kind === 'unmapped' ? pgsMbuf({ npgs: 2 }) : must(m_getcl(M_NOWAIT, MT_DATA, 0));

    it(`${kind}: a holder freed before its shadows stays allocated until the last shadow is freed`, () => {
      const m = make();
      const s = shadowOf(m);
      const t = shadowOf(s);
      expect([m_extrefcnt(m), m_extrefcnt(s), m_extrefcnt(t)]).to.eql([3, 3, 3]);
      const { mbuf, clust, extpgs } = mbufZones();
      const storage = (): number => clust.current + extpgs.current;
      m_free(m);
      expect([mbuf.current, storage()]).to.eql([3, 1]);
      m_free(s);
      expect([mbuf.current, storage(), m_extrefcnt(t)]).to.eql([2, 1, 1]);
      m_free(t);
      expect([mbuf.current, storage()]).to.eql([0, 0]);
    });

    it(`${kind}: a holder has one reference after its shadows are freed`, () => {
      const m = make();
      const s = shadowOf(m);
      expect(M_WRITABLE(m)).to.equal(false);
      m_free(s);
      expect(m_extrefcnt(m)).to.equal(1);
      expect(M_WRITABLE(m)).to.equal(kind === 'cluster');
      m_free(m);
    });
  }

  it('calls the free routine once, with the mbuf that holds the reference count', () => {
    const seen: Mbuf[] = [];
    const m = must(m_get(M_NOWAIT, MT_DATA));
    m_extadd(m, kva(8192), 64, (h) => seen.push(h), null, null, M_RDONLY, EXT_DISPOSABLE);
    const s = shadowOf(m);
    m_free(m);
    expect(seen).to.eql([]);
    m_free(s);
    expect(seen).to.have.lengthOf(1);
    expect(seen[0]).to.equal(m);
  });

  it('unmappedCurrent counts shadows, but not a holder that was freed', () => {
    const m = pgsMbuf({ npgs: 1 });
    const s = must(m_copym(m, 10, 20, M_NOWAIT));
    expect(mbEmulator.unmappedCurrent).to.equal(2);
    m_free(m);
    expect(mbEmulator.unmappedCurrent).to.equal(1);
    m_free(s);
    expect(mbEmulator.unmappedCurrent).to.equal(0);
  });

  it('keeps the pages wired for a shadow after the holder is freed', () => {
    const before = vmPageCounts().wired;
    const m = pgsMbuf({ npgs: 3 });
    const s = must(m_copym(m, 0, 5000, M_NOWAIT));
    const bytes = chainBytes(s);
    m_free(m);
    expect(vmPageCounts().wired).to.be.at.least(before + 3);
    expect(chainBytes(s)).to.eql(bytes);
    m_free(s);
  });
});

describe('mb_free_notready', () => {
  bootEach();

  it('counts each page of an unmapped mbuf, and any other mbuf, as one unit', () => {
    const a = pgsMbuf({ npgs: 3 });
    const b = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    const c = pgsMbuf({ npgs: 2 });
    const d = must(m_get(M_NOWAIT, MT_DATA));
    a.m_next = b;
    b.m_next = c;
    c.m_next = d;
    must(a.m_ext.ext_pgs).nrdy = 3;
    must(c.m_ext.ext_pgs).nrdy = 2;
    for (const m of [a, b, c]) m.m_flags |= M_NOTREADY;
    mb_free_notready(a, 2);
    expect(must(a.m_ext.ext_pgs).nrdy).to.equal(1);
    mb_free_notready(a, 1 + 1 + 2);
    // d is not among the counted units, so it stays allocated.
    expect(mbufZones().mbuf.current).to.equal(1);
    m_free(d);
  });

  it('panics when the chain has fewer units than count', () => {
    const a = pgsMbuf({ npgs: 1 });
    must(a.m_ext.ext_pgs).nrdy = 1;
    expect(() => mb_free_notready(a, 2)).to.throw('fewer units');
  });

  it('does not free a page list that a shadow still references', () => {
    const a = pgsMbuf({ npgs: 2 });
    must(a.m_ext.ext_pgs).nrdy = 2;
    const s = must(m_copym(a, 0, 100, M_NOWAIT));
    const bytes = chainBytes(s);
    mb_free_notready(a, 2);
    expect(chainBytes(s)).to.eql(bytes);
    m_free(s);
  });
});

describe('M_ALIGN', () => {
  bootEach();

  it('places data at the end, aligned to 8', () => {
    const m = must(m_get(M_NOWAIT, MT_DATA));
    M_ALIGN(m, 21);
    expect(m.m_data - m.m_dat).to.equal(200);
    m_free(m);
  });
});
