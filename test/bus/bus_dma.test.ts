import { expect } from 'chai';
import { EBUSY, EFBIG, EINVAL } from '../../src/sys/errno.ts';
import { Panic } from '../../src/sys/kassert.ts';
import { counted, R_DMA_EFBIG, resetReasons } from '../../src/sys/reason.ts';
import type { Kva } from '../../src/sys/types.ts';
import { PAGE_SIZE, ramBase, vtophys } from '../../src/vm/arena.ts';
import { payloadBytesRead, payloadReasons, payloadReset } from '../../src/vm/payload.ts';
import {
  type VmPage,
  vm_page_alloc_contig,
  vm_page_alloc_noobj,
  vm_page_startup,
  VM_PAGE_TO_PHYS,
  PHYS_TO_VM_PAGE,
  vm_page_unwire,
  vmPageCounts,
} from '../../src/vm/vm_page.ts';
import { m_freem, m_get, m_getcl, m_gethdr, mb_alloc_ext_pgs } from '../../src/kern/kern_mbuf.ts';
import { mbuf_init } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, MCLBYTES, M_NOWAIT, M_PKTHDR, MT_DATA, mtod } from '../../src/kern/mbuf.ts';
import {
  bus_dma_tag_create,
  bus_dma_tag_destroy,
  bus_dmamap_create,
  bus_dmamap_destroy,
  bus_dmamap_load,
  bus_dmamap_load_mbuf_sg,
  bus_dmamap_sync,
  bus_dmamap_unload,
  bus_dmamem_alloc,
  bus_dmamem_free,
  BUS_DMA_NOWAIT,
  BUS_DMA_ZERO,
  BUS_DMASYNC_POSTWRITE,
  BUS_DMASYNC_PREREAD,
  BUS_DMASYNC_PREWRITE,
  busDmaInit,
  type BusDmamap,
  type BusDmamapRef,
  BusDmaSegs,
  type BusDmaTag,
  type BusDmaTagParams,
  dmaStats,
} from '../../src/bus/bus_dma.ts';
import { expectMachineClean } from '../support/machine.ts';

const BASE = 0x1_4000_0000; // RAM above 4 GiB, so that every address needs both 32-bit halves

function tagOf(params: Partial<BusDmaTagParams> = {}): BusDmaTag {
  const ref = { tag: null };
  const error = bus_dma_tag_create(
    { maxsize: 65536, nsegments: 32, maxsegsz: 65536, ...params },
    ref,
  );
  expect(error).to.equal(0);
  return ref.tag as unknown as BusDmaTag;
}

const freePages = (m: Mbuf): void => {
  const pgs = m.m_ext.ext_pgs!;
  for (let i = 0; i < pgs.npgs; i++)
    vm_page_unwire(PHYS_TO_VM_PAGE(pgs.pa[pgs.pa0 + i] as never), false);
};

/** Makes an unmapped mbuf over `pages`: `len` bytes from offset `off` of the first page. */
function extPgs(pages: VmPage[], off: number, len: number): Mbuf {
  const m = mb_alloc_ext_pgs(M_NOWAIT, false, freePages)!;
  const pgs = m.m_ext.ext_pgs!;
  pgs.npgs = pages.length;
  pages.forEach((p, i) => (pgs.pa[pgs.pa0 + i] = VM_PAGE_TO_PHYS(p)));
  pgs.first_pg_off = off;
  const before = (pages.length - 1) * PAGE_SIZE - (pages.length > 1 ? off : 0);
  pgs.last_pg_len = len - before;
  m.m_len = len;
  m.m_ext.ext_size = pages.length * PAGE_SIZE;
  return m;
}

/** Allocates `n` pages of which none follows its predecessor in RAM. */
function scattered(n: number): VmPage[] {
  const all = Array.from({ length: 2 * n }, () => vm_page_alloc_noobj());
  const odd = all.filter((_, i) => i % 2 === 1);
  for (const p of odd) vm_page_unwire(p, false);
  return all.filter((_, i) => i % 2 === 0);
}

const list = (segs: BusDmaSegs): [number, number][] =>
  Array.from({ length: segs.nsegs }, (_, i) => [segs.ds_addr[i]!, segs.ds_len[i]!]);

describe('bus_dma', () => {
  let tags: BusDmaTag[] = [];
  let maps: BusDmamap[] = [];
  const segs = new BusDmaSegs(64);

  const tag = (params: Partial<BusDmaTagParams> = {}): BusDmaTag => {
    tags.unshift(tagOf(params));
    return tags[0]!;
  };
  const map = (t: BusDmaTag): BusDmamap => {
    const ref: BusDmamapRef = { map: null };
    expect(bus_dmamap_create(t, 0, ref)).to.equal(0);
    maps.push(ref.map!);
    return ref.map!;
  };

  beforeEach(() => {
    vm_page_startup(16 << 20, BASE);
    mbuf_init();
    busDmaInit();
    payloadReset();
    resetReasons();
    tags = [];
    maps = [];
  });

  afterEach(() => {
    for (const m of maps) {
      bus_dmamap_unload(m.tag, m);
      expect(bus_dmamap_destroy(m.tag, m)).to.equal(0);
    }
    for (const t of tags) expect(bus_dma_tag_destroy(t)).to.equal(0);
    expect([dmaStats.mapsLive, dmaStats.mapsLoaded]).to.deep.equal([0, 0]);
    expectMachineClean();
    // Loading a map must not count as reading payload.
    payloadReasons.forEach((_, i) => expect(payloadBytesRead(i)).to.equal(0));
  });

  describe('tags', () => {
    const create = (params: Partial<BusDmaTagParams>): number =>
      bus_dma_tag_create({ maxsize: 4096, nsegments: 1, maxsegsz: 4096, ...params }, { tag: null });

    it('refuse sizes of 0, and alignments and boundaries that are not powers of two', () => {
      expect(create({ maxsegsz: 0 })).to.equal(EINVAL);
      expect(create({ nsegments: 0 })).to.equal(EINVAL);
      expect(create({ maxsize: 0 })).to.equal(EINVAL);
      expect(create({ alignment: 3 })).to.equal(EINVAL);
      expect(create({ alignment: 0 })).to.equal(EINVAL);
      expect(create({ boundary: 6000 })).to.equal(EINVAL);
      expect(create({ boundary: -4096 })).to.equal(EINVAL);
      expect(create({})).to.equal(0);
    });

    it('inherit the lowest lowaddr, the highest highaddr and the smallest boundary that is not 0', () => {
      const parent = tag({ lowaddr: 0xffffff, highaddr: 0xfffffffff, boundary: 8192 });
      const wide = tag({ parent });
      expect([wide.lowaddr, wide.boundary]).to.deep.equal([0xffffff, 8192]);
      const narrow = tag({ parent, lowaddr: 0xfffff, highaddr: 0xffffff, boundary: 4096 });
      expect([narrow.lowaddr, narrow.highaddr]).to.deep.equal([0xfffff, 0xfffffffff]);
      expect(narrow.boundary).to.equal(4096);
      expect(tag({ parent, boundary: 1 << 20 }).boundary).to.equal(8192);
    });

    it('round lowaddr and highaddr up to page ends and limit maxsegsz to the boundary', () => {
      const t = tag({ lowaddr: 0x1001, highaddr: 0x2000, boundary: 1024, maxsegsz: 4096 });
      expect([t.lowaddr, t.highaddr, t.maxsegsz]).to.deep.equal([0x1fff, 0x2fff, 1024]);
    });

    it('cannot be destroyed while they have maps or children: EBUSY', () => {
      const parent = tag();
      const child = tag({ parent });
      const m = map(child);
      expect(bus_dma_tag_destroy(parent)).to.equal(EBUSY);
      expect(bus_dma_tag_destroy(child)).to.equal(EBUSY);
      bus_dmamap_destroy(child, m);
      maps = [];
      expect(bus_dma_tag_destroy(child)).to.equal(0);
      tags = [parent];
    });
  });

  describe('bus_dmamap_load_mbuf_sg', () => {
    /**
     * A header of 66 bytes and a window into three pages: first_pg_off 904, 10,000 bytes, m_data
     * 2000, m_len 1448.
     */
    function packet(pages: VmPage[]): Mbuf {
      const m = m_gethdr(M_NOWAIT, MT_DATA)!;
      m.m_len = 66;
      const payload = extPgs(pages, 904, 10_000);
      payload.m_data = 2000;
      payload.m_len = 1448;
      m.m_next = payload;
      m.m_pkthdr.len = 66 + 1448;
      return m;
    }

    it('makes three segments of a header and a window over scattered pages', () => {
      const t = tag();
      const pages = scattered(3);
      const m = packet(pages);
      expect(bus_dmamap_load_mbuf_sg(t, map(t), m, segs)).to.equal(0);
      expect(list(segs)).to.deep.equal([
        [vtophys(mtod(m)), 66],
        [VM_PAGE_TO_PHYS(pages[0]!) + 2904, 1192],
        [VM_PAGE_TO_PHYS(pages[1]!), 256],
      ]);
      expect(dmaStats.loads).to.equal(1);
      expect(dmaStats.segments).to.equal(3);
      expect(dmaStats.segHist[3]).to.equal(1);
      m_freem(m);
    });

    it('makes two segments when the second page follows the first in memory', () => {
      const t = tag();
      const first = vm_page_alloc_contig(3, 1, 0);
      const m = packet([first, first + 1, first + 2]);
      expect(bus_dmamap_load_mbuf_sg(t, map(t), m, segs)).to.equal(0);
      expect(list(segs)).to.deep.equal([
        [vtophys(mtod(m)), 66],
        [VM_PAGE_TO_PHYS(first) + 2904, 1448],
      ]);
      m_freem(m);
    });

    it('loads header, pages and trailer of an unmapped mbuf in order', () => {
      const t = tag();
      const pages = scattered(2);
      const m = extPgs(pages, 0, 8192);
      const pgs = m.m_ext.ext_pgs!;
      pgs.hdr_len = 13;
      pgs.trail_len = 16;
      m.m_len += 29;
      expect(bus_dmamap_load_mbuf_sg(t, map(t), m, segs)).to.equal(0);
      expect(list(segs)).to.deep.equal([
        [vtophys(pgs.hdr), 13],
        [VM_PAGE_TO_PHYS(pages[0]!), 4096],
        [VM_PAGE_TO_PHYS(pages[1]!), 4096],
        [vtophys(pgs.trail), 16],
      ]);
      bus_dmamap_unload(t, maps[0]!);
      // The window m_data 10, m_len 20: three header bytes, seventeen of page 0.
      m.m_data = 10;
      m.m_len = 20;
      expect(bus_dmamap_load_mbuf_sg(t, maps[0]!, m, segs)).to.equal(0);
      expect(list(segs)).to.deep.equal([
        [vtophys((pgs.hdr + 10) as Kva), 3],
        [VM_PAGE_TO_PHYS(pages[0]!), 17],
      ]);
      bus_dmamap_unload(t, maps[0]!);
      // A window inside the trailer.
      m.m_data = 13 + 8192 + 4;
      m.m_len = 12;
      expect(bus_dmamap_load_mbuf_sg(t, maps[0]!, m, segs)).to.equal(0);
      expect(list(segs)).to.deep.equal([[vtophys((pgs.trail + 4) as Kva), 12]]);
      m_freem(m);
    });

    it('coalesces adjacent ranges across mbufs, and skips empty mbufs', () => {
      const t = tag();
      const first = vm_page_alloc_contig(2, 1, 0);
      const a = extPgs([first], 0, 4096);
      const empty = m_get(M_NOWAIT, MT_DATA)!;
      const b = extPgs([first + 1], 0, 100);
      a.m_next = empty;
      empty.m_next = b;
      expect(bus_dmamap_load_mbuf_sg(t, map(t), a, segs)).to.equal(0);
      expect(list(segs)).to.deep.equal([[VM_PAGE_TO_PHYS(first), 4196]]);
      m_freem(a);
    });

    it('splits segments at maxsegsz and at the boundary', () => {
      const first = vm_page_alloc_contig(4, 16384, 0);
      const pa = VM_PAGE_TO_PHYS(first);
      const m = extPgs([first, first + 1, first + 2, first + 3], 1000, 15_000);
      const size = tag({ maxsegsz: 5000 });
      expect(bus_dmamap_load_mbuf_sg(size, map(size), m, segs)).to.equal(0);
      // Ranges are added page by page: page 1 does not fit whole into the segment that starts in
      // page 0.
      expect(list(segs).every(([, len]) => len <= 5000)).to.equal(true);
      expect(list(segs).reduce((n, [, len]) => n + len, 0)).to.equal(15_000);
      const boundary = tag({ boundary: 8192 });
      expect(bus_dmamap_load_mbuf_sg(boundary, map(boundary), m, segs)).to.equal(0);
      expect(list(segs)).to.deep.equal([
        [pa + 1000, 7192],
        [pa + 8192, 7808],
      ]);
      m_freem(m);
    });

    it('fails with EFBIG above nsegments, and leaves the map unloaded', () => {
      const m = extPgs(scattered(4), 0, 16_384);
      const three = tag({ nsegments: 3 });
      const held = map(three);
      expect(bus_dmamap_load_mbuf_sg(three, held, m, segs)).to.equal(EFBIG);
      expect([segs.nsegs, held.loaded, dmaStats.loads]).to.deep.equal([0, false, 0]);
      expect(counted(R_DMA_EFBIG)).to.equal(1);
      const four = tag({ nsegments: 4 });
      expect(bus_dmamap_load_mbuf_sg(four, map(four), m, segs)).to.equal(0);
      m_freem(m);
    });

    it('fails with EINVAL above maxsize', () => {
      const t = tag({ maxsize: 100 });
      const m = m_gethdr(M_NOWAIT, MT_DATA)!;
      m.m_len = 101;
      m.m_pkthdr.len = 101;
      expect(bus_dmamap_load_mbuf_sg(t, map(t), m, segs)).to.equal(EINVAL);
      m.m_len = 100;
      m.m_pkthdr.len = 100;
      expect(bus_dmamap_load_mbuf_sg(t, maps[0]!, m, segs)).to.equal(0);
      m_freem(m);
    });

    it('loads a cluster as one segment', () => {
      const t = tag({ nsegments: 1, maxsegsz: MCLBYTES, maxsize: MCLBYTES });
      const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
      m.m_len = MCLBYTES;
      m.m_pkthdr.len = MCLBYTES;
      expect(bus_dmamap_load_mbuf_sg(t, map(t), m, segs)).to.equal(0);
      expect(list(segs)).to.deep.equal([[m.m_data + ramBase, MCLBYTES]]);
      m_freem(m);
    });
  });

  it('panics on a second load of a map, on sync of an unloaded map, and on PRE and POST in one sync', () => {
    const t = tag();
    const held = map(t);
    const m = m_gethdr(M_NOWAIT, MT_DATA)!;
    m.m_len = 10;
    expect(() => bus_dmamap_sync(t, held, BUS_DMASYNC_PREWRITE)).to.throw(Panic, 'nothing loaded');
    bus_dmamap_load_mbuf_sg(t, held, m, segs);
    expect(() => bus_dmamap_load_mbuf_sg(t, held, m, segs)).to.throw(Panic, 'is loaded');
    expect(bus_dmamap_destroy(t, held)).to.equal(EBUSY);
    bus_dmamap_sync(t, held, BUS_DMASYNC_PREWRITE | BUS_DMASYNC_PREREAD);
    expect(() => bus_dmamap_sync(t, held, BUS_DMASYNC_PREREAD | BUS_DMASYNC_POSTWRITE)).to.throw(
      Panic,
      'either PRE or POST',
    );
    bus_dmamap_unload(t, held);
    expect(() => bus_dmamap_sync(t, held, BUS_DMASYNC_POSTWRITE)).to.throw(Panic);
    m_freem(m);
  });

  it('loads a range of mapped memory', () => {
    const t = tag({ nsegments: 1 });
    const m = m_getcl(M_NOWAIT, MT_DATA, 0)!;
    expect(bus_dmamap_load(t, map(t), mtod(m), 1500, segs)).to.equal(0);
    expect(list(segs)).to.deep.equal([[vtophys(mtod(m)), 1500]]);
    bus_dmamap_unload(t, maps[0]!);
    expect(bus_dmamap_load(t, maps[0]!, mtod(m), 65537, segs)).to.equal(EINVAL);
    m_freem(m);
  });

  describe('bus_dmamem_alloc', () => {
    it('allocates contiguous, aligned memory, and bus_dmamem_free frees it', () => {
      const t = tag({ alignment: 16384, maxsize: 12_288, nsegments: 1 });
      const before = vmPageCounts();
      const held = bus_dmamem_alloc(t, BUS_DMA_NOWAIT | BUS_DMA_ZERO)!;
      expect(held.npages).to.equal(3);
      expect(vtophys(held.vaddr) % 16384).to.equal(0);
      expect(vmPageCounts().wired).to.equal(before.wired + 3);
      expect(bus_dmamap_load(t, held.map, held.vaddr, 12_288, segs)).to.equal(0);
      expect(segs.nsegs).to.equal(1);
      expect(() => bus_dmamem_free(t, held)).to.throw(Panic);
      bus_dmamap_unload(t, held.map);
      bus_dmamem_free(t, held);
      expect(vmPageCounts()).to.deep.equal(before);
    });

    it('fails when the device can reach no free memory', () => {
      const t = tag({ lowaddr: 0xffffffff, maxsize: 4096 });
      const before = vmPageCounts();
      expect(bus_dmamem_alloc(t, BUS_DMA_NOWAIT)).to.equal(null);
      expect(vmPageCounts()).to.deep.equal(before);
    });

    it('fails when no run of frames is long enough; allocates no frame twice', () => {
      const t = tag({ maxsize: 4096 * 4096, maxsegsz: 4096 * 4096, nsegments: 1 });
      expect(bus_dmamem_alloc(t, BUS_DMA_NOWAIT)).to.equal(null);
      const seen = new Set<number>();
      for (let i = 0; i < 10; i++) seen.add(vm_page_alloc_contig(2, 1, 0));
      const others = Array.from({ length: 50 }, () => vm_page_alloc_noobj());
      for (const p of others)
        for (const q of [p, p - 1]) expect(seen.has(q), `frame ${p}`).to.equal(false);
      for (const p of seen) for (const q of [p, p + 1]) vm_page_unwire(q, false);
      for (const p of others) vm_page_unwire(p, false);
    });
  });
});
