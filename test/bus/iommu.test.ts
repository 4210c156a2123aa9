import { expect } from 'chai';
import * as fc from 'fast-check';
import { counted, R_DEV_DMA_FAULT } from '../../src/sys/reason.ts';
import { kva } from '../../src/sys/types.ts';
import { PAGE_SIZE, ramBase } from '../../src/vm/arena.ts';
import { vm_page_alloc_contig, vm_page_unwire } from '../../src/vm/vm_page.ts';
import { ipcSysctlInit } from '../../src/kern/kern_ipc_sysctl.ts';
import { machineSysctl } from '../../src/kern/kern_sysctl.ts';
import {
  bus_dmamap_load,
  bus_dmamap_sync,
  bus_dmamap_unload,
  bus_dmamem_alloc,
  bus_dmamem_free,
  BUS_DMASYNC_PREREAD,
  BUS_DMASYNC_PREWRITE,
  busDmaWatch,
  type BusDmamap,
  BusDmaSegs,
  dmaStats,
} from '../../src/bus/bus_dma.ts';
import { windowCount } from '../../src/bus/busdma_watch.ts';
import { RamDmaPort } from '../../src/bus/dma_port.ts';
import { iommu, iommuSysctlInit } from '../../src/bus/iommu.ts';
import { bootDma, DmaThings, LOW_BASE } from './bounce_rig.ts';

const NPAGES = 6;
const BYTES = NPAGES * PAGE_SIZE;

describe('IOMMU', () => {
  const things = new DmaThings();
  const segs = new BusDmaSegs(64);
  let port: RamDmaPort;
  /** Arena offset of the BYTES bytes that the test loads. */
  let base: number;

  beforeEach(() => {
    bootDma(LOW_BASE);
    busDmaWatch({ iommu: true });
    port = new RamDmaPort();
    base = vm_page_alloc_contig(NPAGES, 1, 0) * PAGE_SIZE;
  });

  afterEach(() => {
    for (let i = 0; i < NPAGES; i++) vm_page_unwire(base / PAGE_SIZE + i, false);
    things.end();
    expect(windowCount).to.equal(0);
    busDmaWatch({});
  });

  const reaches = (off: number, len: number, write: boolean): boolean => {
    const addr = base + off + ramBase;
    return port.map(addr >>> 0, Math.floor(addr / 2 ** 32), len, write) === base + off;
  };
  const load = (map: BusDmamap, off: number, len: number): void =>
    void bus_dmamap_load(map.tag, map, kva(base + off), len, segs);

  it('allows a device to access loaded bytes and no others', () => {
    const map = things.map(things.tag());
    expect(reaches(100, 1, false)).to.equal(false);
    load(map, 100, 5000);
    expect(reaches(100, 5000, false)).to.equal(true);
    expect(reaches(5099, 1, false)).to.equal(true);
    expect(reaches(99, 2, false)).to.equal(false);
    expect(reaches(5099, 2, false)).to.equal(false);
    bus_dmamap_unload(map.tag, map);
    expect(reaches(100, 1, false)).to.equal(false);
    expect([port.faults, counted(R_DEV_DMA_FAULT), dmaStats.faults]).to.deep.equal([4, 4, 4]);
    expect(iommu.lastFault).to.equal(
      `read of 1 bytes at 0x${(base + 100 + ramBase).toString(16)}: page not mapped at ` +
        `0x${(base + 100 + ramBase).toString(16)}`,
    );
  });

  it('allows a device to write after PREREAD, and to write memory of bus_dmamem_alloc', () => {
    const tag = things.tag();
    const map = things.map(tag);
    load(map, 0, 2048);
    expect(reaches(0, 64, true)).to.equal(false);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREWRITE);
    expect(reaches(0, 64, true)).to.equal(false);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREREAD);
    expect(reaches(0, 64, true)).to.equal(true);
    bus_dmamap_unload(tag, map);
    load(map, 0, 2048);
    expect(reaches(0, 64, true)).to.equal(false);
    const ring = bus_dmamem_alloc(tag, 0)!;
    expect(bus_dmamap_load(tag, ring.map, ring.vaddr, 8192, segs)).to.equal(0);
    expect(reaches(ring.vaddr - base, 8192, true)).to.equal(true);
    bus_dmamap_unload(tag, ring.map);
    bus_dmamem_free(tag, ring);
  });

  it('agrees with a byte-by-byte model after random loads and unloads', () => {
    const steps = fc.array(
      fc.record({
        map: fc.nat(3),
        off: fc.nat(BYTES - 1),
        len: fc.integer({ min: 1, max: 9000 }),
        write: fc.boolean(),
        probe: fc.nat(BYTES - 1),
        probeLen: fc.integer({ min: 1, max: 6000 }),
      }),
      { maxLength: 25 },
    );
    const tag = things.tag();
    const maps = [0, 1, 2, 3].map(() => things.map(tag));
    fc.assert(
      fc.property(steps, (list) => {
        const held = maps.map(() => ({ off: 0, len: 0, write: false }));
        for (const { map: i, off, len, write, probe, probeLen } of list) {
          const map = maps[i]!;
          if (map.loaded) {
            bus_dmamap_unload(tag, map);
            held[i] = { off: 0, len: 0, write: false };
          } else {
            const n = Math.min(len, BYTES - off);
            load(map, off, n);
            if (write) bus_dmamap_sync(tag, map, BUS_DMASYNC_PREREAD);
            held[i] = { off, len: n, write };
          }
          const n = Math.min(probeLen, BYTES - probe);
          for (const w of [false, true]) {
            const may = held.filter((h) => h.write || !w);
            let want = true;
            for (let b = probe; b < probe + n && want; b++)
              want = may.some((h) => b >= h.off && b < h.off + h.len);
            expect(reaches(probe, n, w)).to.equal(want);
          }
        }
        for (const map of maps) bus_dmamap_unload(tag, map);
        expect(windowCount).to.equal(0);
      }),
      { numRuns: 60 },
    );
  });

  it('shows its state in read-only sysctls', () => {
    ipcSysctlInit();
    iommuSysctlInit();
    load(things.map(things.tag()), 0, 5000);
    reaches(5000, 1, false);
    const { tree } = machineSysctl;
    const value = (name: string): unknown => tree.find(`hw.iommu.${name}`)!.get();
    expect([value('dma'), value('windows')]).to.deep.equal([1, 2]);
    expect(value('last_fault')).to.match(/^read of 1 bytes at 0x\w+: not allowed at 0x\w+$/);
    for (const oid of tree.list('hw.iommu')) expect(oid.set, oid.name).to.equal(null);
  });
});
