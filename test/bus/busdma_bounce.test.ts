import { expect } from 'chai';
import * as fc from 'fast-check';
import { EFBIG, ENOMEM } from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { counted, R_DMA_BOUNCED, R_DMA_EFBIG, R_DMA_ENOMEM } from '../../src/sys/reason.ts';
import { mem, PAGE_SIZE, ramBase, vtophys } from '../../src/vm/arena.ts';
import { payloadBytesRead, payloadReasons, READ_COPY } from '../../src/vm/payload.ts';
import { vmPageAllocBelow, vmPageCounts, vm_page_unwire } from '../../src/vm/vm_page.ts';
import { m_freem, m_getcl, m_gethdr, mb_unmapped_to_ext } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, MCLBYTES, M_NOWAIT, M_PKTHDR, MT_DATA, mtod } from '../../src/kern/mbuf.ts';
import {
  bus_dma_tag_create,
  bus_dma_tag_destroy,
  bus_dmamap_create,
  bus_dmamap_load_mbuf_sg,
  bus_dmamap_sync,
  bus_dmamap_unload,
  BUS_DMA_ALLOCNOW,
  BUS_DMA_KEEP_PG_OFFSET,
  BUS_DMASYNC_POSTREAD,
  BUS_DMASYNC_POSTWRITE,
  BUS_DMASYNC_PREREAD,
  BUS_DMASYNC_PREWRITE,
  type BusDmamapRef,
  BusDmaSegs,
  dmaStats,
} from '../../src/bus/bus_dma.ts';
import { bounceZones } from '../../src/bus/busdma_bounce.ts';
import { busDmaSysctlInit } from '../../src/bus/busdma_sysctl.ts';
import { ipcSysctlInit } from '../../src/kern/kern_ipc_sysctl.ts';
import { machineSysctl } from '../../src/kern/kern_sysctl.ts';
import {
  above4G,
  bootDma,
  DmaThings,
  fillUnmapped,
  gather,
  LOW_BASE,
  MAX32,
  newUnmapped,
  pattern,
  RAM,
} from './bounce_rig.ts';

describe('bounce pages', () => {
  const things = new DmaThings();
  const segs = new BusDmaSegs(256);

  beforeEach(() => bootDma(LOW_BASE));
  afterEach(() => things.end());

  /** A packet above 4 GiB: 66 header bytes and two unmapped pages, filled with the pattern. */
  function packet(): Mbuf {
    return above4G(() => {
      const m = m_gethdr(M_NOWAIT, MT_DATA)!;
      m.m_len = 66;
      for (let i = 0; i < 66; i++) mem[m.m_data + i] = pattern(i);
      m.m_next = newUnmapped(904, 5000);
      fillUnmapped(m.m_next, 66);
      m.m_pkthdr.len = 5066;
      return m;
    });
  }

  const expected = (len: number): number[] => Array.from({ length: len }, (_, i) => pattern(i));

  it('replace memory above lowaddr; PREWRITE copies the data into them', () => {
    const t = things.tag({ lowaddr: MAX32 });
    const map = things.map(t);
    const m = packet();
    expect(vtophys(mtod(m))).to.be.above(MAX32);
    expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(0);
    for (let i = 0; i < segs.nsegs; i++)
      expect(segs.ds_addr[i]! + segs.ds_len[i]! - 1).to.be.at.most(MAX32);
    const [zone] = bounceZones;
    expect([zone!.active_bpages, zone!.total_bounced]).to.deep.equal([3, 0]);
    bus_dmamap_sync(t, map, BUS_DMASYNC_PREWRITE);
    expect(gather(segs)).to.deep.equal(expected(5066));
    expect([dmaStats.bounced, counted(R_DMA_BOUNCED), zone!.total_bounced]).to.deep.equal([
      3, 3, 1,
    ]);
    // The CPU read the file bytes in the pages; the header bytes do not count.
    payloadReasons.forEach((_, i) =>
      expect(payloadBytesRead(i)).to.equal(i === READ_COPY ? 5000 : 0),
    );
    bus_dmamap_sync(t, map, BUS_DMASYNC_POSTWRITE);
    expect(zone!.total_bounced).to.equal(1);
    bus_dmamap_unload(t, map);
    expect([zone!.active_bpages, zone!.free_bpages]).to.deep.equal([0, zone!.total_bpages]);
    m_freem(m);
  });

  it('count file bytes of EXT_SFBUF mbufs as read by the CPU, too', () => {
    const t = things.tag({ lowaddr: MAX32 });
    const map = things.map(t);
    const m = above4G(() => mb_unmapped_to_ext(newUnmapped(0, 3000))!);
    expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(0);
    bus_dmamap_sync(t, map, BUS_DMASYNC_PREWRITE);
    expect(payloadBytesRead(READ_COPY)).to.equal(3000);
    bus_dmamap_unload(t, map);
    m_freem(m);
  });

  it('replace memory for reception; POSTREAD copies the data out of them', () => {
    const t = things.tag({ lowaddr: MAX32, nsegments: 1, maxsize: MCLBYTES, maxsegsz: MCLBYTES });
    const map = things.map(t);
    const m = above4G(() => m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!);
    m.m_len = MCLBYTES;
    m.m_pkthdr.len = MCLBYTES;
    expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(0);
    expect([segs.nsegs, segs.ds_len[0]]).to.deep.equal([1, MCLBYTES]);
    bus_dmamap_sync(t, map, BUS_DMASYNC_PREREAD);
    const at = segs.ds_addr[0]! - ramBase;
    for (let i = 0; i < MCLBYTES; i++) mem[at + i] = pattern(i); // the device
    expect(mem[m.m_data + 1]).to.equal(0);
    bus_dmamap_sync(t, map, BUS_DMASYNC_POSTREAD);
    expect([...mem.subarray(m.m_data, m.m_data + MCLBYTES)]).to.deep.equal(expected(MCLBYTES));
    m_freem(m);
  });

  it('replace misaligned memory, at the same page offset with BUS_DMA_KEEP_PG_OFFSET', () => {
    const m = packet();
    mem.copyWithin(m.m_data + 2, m.m_data, m.m_data + 66);
    m.m_data += 2;
    for (const flags of [0, BUS_DMA_KEEP_PG_OFFSET]) {
      const t = things.tag({ alignment: 8, flags });
      const map = things.map(t);
      expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(0);
      // The header is not aligned to 8 bytes, the pages are.
      expect(dmaStats.bounced).to.equal(1);
      const want = flags === 0 ? 0 : m.m_data % PAGE_SIZE;
      expect(segs.ds_addr[0]! % PAGE_SIZE).to.equal(want);
      bus_dmamap_sync(t, map, BUS_DMASYNC_PREWRITE);
      expect(gather(segs)).to.deep.equal(expected(5066));
      bus_dmamap_unload(t, map);
      dmaStats.bounced = 0;
    }
    m_freem(m);
  });

  it('are not used where a filter returns false; are used for the window of a parent tag', () => {
    const m = packet();
    const filtered = things.tag({ lowaddr: MAX32, filter: () => false });
    const one = things.map(filtered);
    expect(bus_dmamap_load_mbuf_sg(filtered, one, m, segs)).to.equal(0);
    expect([dmaStats.bounced, segs.ds_addr[0]]).to.deep.equal([0, vtophys(mtod(m))]);
    bus_dmamap_unload(filtered, one);
    const heir = things.tag({ parent: filtered });
    const three = things.map(heir);
    expect(bus_dmamap_load_mbuf_sg(heir, three, m, segs)).to.equal(0);
    expect(dmaStats.bounced, 'the filter is inherited').to.equal(0);
    bus_dmamap_unload(heir, three);
    const parent = things.tag({ lowaddr: MAX32 });
    const child = things.tag({ parent });
    const two = things.map(child);
    expect(bus_dmamap_load_mbuf_sg(child, two, m, segs)).to.equal(0);
    expect(dmaStats.bounced).to.equal(3);
    bus_dmamap_unload(child, two);
    m_freem(m);
  });

  it('are used for the alignment of a parent tag', () => {
    const m = packet();
    m.m_data += 2;
    m.m_len -= 2;
    const parent = things.tag({ alignment: 8 });
    const child = things.tag({ parent });
    expect([child.alignment, child.couldBounce]).to.deep.equal([1, true]);
    const map = things.map(child);
    expect(bus_dmamap_load_mbuf_sg(child, map, m, segs)).to.equal(0);
    expect(dmaStats.bounced).to.equal(1);
    expect(segs.ds_addr[0]! % 8).to.equal(0);
    bus_dmamap_unload(child, map);
    m_freem(m);
  });

  it('are not used above highaddr, which is rounded up to the end of its page', () => {
    const m = packet();
    const pgs = m.m_next!.m_ext.ext_pgs!;
    const pages = [vtophys(mtod(m)), pgs.pa[pgs.pa0]!, pgs.pa[pgs.pa0 + 1]!];
    pages.forEach((page, i) => (pages[i] = page - (page % PAGE_SIZE)));
    for (const highaddr of pages) {
      const t = things.tag({ lowaddr: MAX32, highaddr });
      const map = things.map(t);
      expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(0);
      expect(dmaStats.bounced).to.equal(pages.filter((page) => page <= highaddr).length);
      bus_dmamap_unload(t, map);
      dmaStats.bounced = 0;
    }
    m_freem(m);
  });

  it('missing: the load returns ENOMEM, counts it and frees the pages it took', () => {
    const t = things.tag({ lowaddr: MAX32, maxsize: 2 * PAGE_SIZE });
    const map = things.map(t);
    const [zone] = bounceZones;
    expect(zone!.total_bpages).to.equal(2);
    const m = packet();
    expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(ENOMEM);
    expect(counted(R_DMA_ENOMEM)).to.equal(1);
    expect([segs.nsegs, map.loaded, zone!.free_bpages, dmaStats.bounced]).to.deep.equal([
      0,
      false,
      2,
      0,
    ]);
    m_freem(m);
  });

  it('are freed when the k-th allocation of a load fails, for each k', () => {
    const t = things.tag({ lowaddr: MAX32 });
    const map = things.map(t);
    const m = packet();
    for (let k = 0; k < 3; k++) {
      failPoint('bounce_page').arm(k + 1);
      expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(ENOMEM);
      expect(bounceZones[0]!.active_bpages).to.equal(0);
    }
    failPoint('bounce_page').arm(4);
    expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(0);
    bus_dmamap_unload(t, map);
    m_freem(m);
  });

  it('are freed after EFBIG', () => {
    const t = things.tag({ lowaddr: MAX32, nsegments: 2, maxsegsz: 2048 });
    const map = things.map(t);
    const m = packet();
    expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(EFBIG);
    expect(counted(R_DMA_EFBIG)).to.equal(1);
    expect([map.loaded, bounceZones[0]!.active_bpages]).to.deep.equal([false, 0]);
    m_freem(m);
  });

  describe('zones', () => {
    it('are shared by tags with the same or weaker restrictions', () => {
      things.map(things.tag({ lowaddr: MAX32 }));
      things.map(things.tag({ lowaddr: MAX32 + 4 * PAGE_SIZE }));
      expect(bounceZones).to.have.lengthOf(1);
      things.map(things.tag({ lowaddr: MAX32 - (4 << 20) }));
      things.map(things.tag({ lowaddr: MAX32, alignment: 16384 }));
      expect(bounceZones.map((z) => z.name)).to.deep.equal(['zone0', 'zone1', 'zone2']);
      expect(bounceZones[2]!.alignment).to.equal(16384);
    });

    it('grow with each map by the pages of one mapping, up to 1/16 of memory', () => {
      const t = things.tag({ lowaddr: MAX32, maxsize: 16 * PAGE_SIZE });
      things.map(t);
      const [zone] = bounceZones;
      expect(zone!.total_bpages).to.equal(16);
      things.map(t);
      expect(zone!.total_bpages).to.equal(32);
      for (let i = 0; i < 40; i++) things.map(t);
      expect(zone!.total_bpages).to.equal(RAM / PAGE_SIZE / 16);
    });

    it('are filled at tag creation with BUS_DMA_ALLOCNOW; the first map adds no pages', () => {
      const t = things.tag({ lowaddr: MAX32, maxsize: 8 * PAGE_SIZE, flags: BUS_DMA_ALLOCNOW });
      expect(bounceZones[0]!.total_bpages).to.equal(8);
      things.map(t);
      expect(bounceZones[0]!.total_bpages).to.equal(8);
    });

    it('without memory: ENOMEM for a tag with BUS_DMA_ALLOCNOW and for the first map of a tag', () => {
      const low: number[] = [];
      vmPageAllocBelow(RAM / PAGE_SIZE, MAX32, 1, low);
      for (const p of low.splice(0, 3)) vm_page_unwire(p, false);
      const before = vmPageCounts();
      const parent = things.tag();
      const params = { parent, maxsize: 65536, nsegments: 1, maxsegsz: 65536, lowaddr: MAX32 };
      const tagRef = { tag: null };
      expect(bus_dma_tag_create({ ...params, flags: BUS_DMA_ALLOCNOW }, tagRef)).to.equal(ENOMEM);
      expect([tagRef.tag, bus_dma_tag_destroy(parent)]).to.deep.equal([null, 0]);
      const t = things.tag({ lowaddr: MAX32 });
      const ref: BusDmamapRef = { map: null };
      expect(bus_dmamap_create(t, 0, ref)).to.equal(ENOMEM);
      expect([ref.map, t.mapCount, dmaStats.mapsLive]).to.deep.equal([null, 0, 0]);
      // The zone keeps the three pages that could be allocated.
      expect(bounceZones[0]!.total_bpages).to.equal(3);
      expect(vmPageCounts().wired).to.equal(before.wired + 3);
      for (const p of low) vm_page_unwire(p, false);
    });

    it('show their state as sysctls, read-only', () => {
      ipcSysctlInit();
      busDmaSysctlInit();
      const { tree } = machineSysctl;
      const t = things.tag({ lowaddr: MAX32, maxsize: 4 * PAGE_SIZE });
      const map = things.map(t);
      const m = packet();
      expect(bus_dmamap_load_mbuf_sg(t, map, m, segs)).to.equal(0);
      bus_dmamap_sync(t, map, BUS_DMASYNC_PREWRITE);
      const values = Object.fromEntries(tree.list('hw.busdma').map((o) => [o.name, o.get()]));
      expect(values).to.deep.include({
        'hw.busdma.total_bpages': 4,
        'hw.busdma.zone0.total_bpages': 4,
        'hw.busdma.zone0.free_bpages': 1,
        'hw.busdma.zone0.reserved_bpages': 0,
        'hw.busdma.zone0.active_bpages': 3,
        'hw.busdma.zone0.total_bounced': 1,
        'hw.busdma.zone0.total_deferred': 0,
        'hw.busdma.zone0.lowaddr': '0xffffffff',
        'hw.busdma.zone0.alignment': 4096,
        'hw.busdma.zone0.domain': 0,
      });
      for (const oid of tree.list('hw.busdma')) expect(oid.set, oid.name).to.equal(null);
      expect(tree.find('hw.busdma.zone0.lowaddr')!.type).to.equal('string');
      m_freem(m);
    });
  });

  it('bus_dmamap_create returns ENOMEM at fail point dma_map', () => {
    const t = things.tag();
    failPoint('dma_map').arm(2);
    things.map(t);
    const ref: BusDmamapRef = { map: null };
    expect(bus_dmamap_create(t, 0, ref)).to.equal(ENOMEM);
    things.map(t);
    expect(dmaStats.mapsLive).to.equal(2);
  });
});

describe('bus_dma: any chain under any restriction', function () {
  this.timeout(60_000);

  const things = new DmaThings();
  const segs = new BusDmaSegs(256);

  interface Piece {
    unmapped: boolean;
    high: boolean;
    off: number;
    len: number;
  }

  const pieces = fc.array(
    fc.record({
      unmapped: fc.boolean(),
      high: fc.boolean(),
      off: fc.oneof(fc.nat(64), fc.nat(4095)),
      len: fc.oneof(fc.nat(300), fc.nat(9000)),
    }),
    { minLength: 1, maxLength: 6 },
  );
  const restrictions = fc.record({
    alignment: fc.constantFrom(1, 1, 1, 2, 64, 4096, 8192),
    boundary: fc.constantFrom(0, 0, 512, 4096, 65536),
    lowaddr: fc.constantFrom(Number.MAX_SAFE_INTEGER, MAX32, MAX32 - (2 << 20)),
    highaddr: fc.constantFrom(Number.MAX_SAFE_INTEGER, MAX32 + (2 << 20)),
    maxsegsz: fc.constantFrom(65536, 4096, 1000),
    nsegments: fc.constantFrom(4, 32, 256),
    keep: fc.boolean(),
  });

  /** Builds a chain of the pieces, filled with the pattern from 0 on. */
  function build(list: Piece[]): Mbuf {
    const head = m_gethdr(M_NOWAIT, MT_DATA)!;
    head.m_len = 0;
    let tail = head;
    let n = 0;
    for (const { unmapped, high, off, len } of list) {
      const make = (): Mbuf => {
        if (unmapped && len > 0) return newUnmapped(off, len);
        const m = m_getcl(M_NOWAIT, MT_DATA, 0)!;
        m.m_data += off % 512;
        m.m_len = Math.min(len, MCLBYTES - 512);
        return m;
      };
      const m = high ? above4G(make) : make();
      if (unmapped && len > 0) fillUnmapped(m, n);
      else for (let i = 0; i < m.m_len; i++) mem[m.m_data + i] = pattern(n + i);
      n += m.m_len;
      tail.m_next = m;
      tail = m;
    }
    head.m_pkthdr.len = n;
    return head;
  }

  it('the segments hold the bytes of the chain and respect all restrictions; nothing leaks', () => {
    let loaded = 0;
    let failed = 0;
    fc.assert(
      fc.property(pieces, restrictions, (list, { keep, ...limits }) => {
        bootDma(LOW_BASE);
        const t = things.tag({
          ...limits,
          maxsize: 60_000,
          flags: keep && limits.alignment === 1 ? BUS_DMA_KEEP_PG_OFFSET : 0,
        });
        const map = things.map(t);
        const m = build(list);
        const total = m.m_pkthdr.len;
        const error = bus_dmamap_load_mbuf_sg(t, map, m, segs);
        if (error !== 0) {
          failed++;
          expect(error).to.be.oneOf([EFBIG, ENOMEM]);
          expect([segs.nsegs, map.loaded]).to.deep.equal([0, false]);
          for (const zone of bounceZones) expect(zone.active_bpages).to.equal(0);
        } else {
          loaded++;
          bus_dmamap_sync(t, map, BUS_DMASYNC_PREWRITE);
          expect(gather(segs)).to.deep.equal(Array.from({ length: total }, (_, i) => pattern(i)));
          expect(segs.nsegs).to.be.at.most(limits.nsegments);
          for (let i = 0; i < segs.nsegs; i++) {
            const first = segs.ds_addr[i]!;
            const last = first + segs.ds_len[i]! - 1;
            expect(segs.ds_len[i]).to.be.within(1, limits.maxsegsz);
            expect(first % limits.alignment).to.equal(0);
            for (const a of [first, last])
              expect(
                a > limits.lowaddr && a <= limits.highaddr,
                'address in the excluded window',
              ).to.equal(false);
            const { boundary } = limits;
            if (boundary !== 0)
              expect(Math.floor(first / boundary)).to.equal(Math.floor(last / boundary));
          }
          bus_dmamap_unload(t, map);
        }
        m_freem(m);
        things.end();
      }),
      { numRuns: process.env['TAPNIC_FULL'] === '1' ? 2000 : 150 },
    );
    // Both outcomes must occur.
    expect(loaded).to.be.above(20);
    expect(failed).to.be.above(5);
  });
});
