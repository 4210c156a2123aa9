import { expect } from 'chai';
import {
  counted,
  R_DEV_DMA_FAULT,
  R_DMA_CHECK_DOUBLE_LOAD,
  R_DMA_CHECK_NO_POST,
  R_DMA_CHECK_NO_PRE,
  R_DMA_CHECK_NOT_LOADED,
  R_DMA_CHECK_POST_FIRST,
  R_DMA_CHECK_UNLOAD_OWNED,
  R_DMA_CHECK_UNLOADED,
} from '../../src/sys/reason.ts';
import { ipcSysctlInit } from '../../src/kern/kern_ipc_sysctl.ts';
import { m_freem, m_getcl } from '../../src/kern/kern_mbuf.ts';
import { machineSysctl } from '../../src/kern/kern_sysctl.ts';
import { type Mbuf, M_NOWAIT, M_PKTHDR, MT_DATA } from '../../src/kern/mbuf.ts';
import {
  bus_dmamap_load,
  bus_dmamap_load_mbuf_sg,
  bus_dmamap_sync,
  bus_dmamap_unload,
  bus_dmamem_alloc,
  bus_dmamem_free,
  BUS_DMASYNC_POSTREAD,
  BUS_DMASYNC_POSTWRITE,
  BUS_DMASYNC_PREREAD,
  BUS_DMASYNC_PREWRITE,
  busDmaWatch,
  BusDmaSegs,
  type BusDmamap,
  type BusDmaTag,
} from '../../src/bus/bus_dma.ts';
import { dmaCheck, dmaCheckSysctlInit } from '../../src/bus/busdma_check.ts';
import { windowCount } from '../../src/bus/busdma_watch.ts';
import { RamDmaPort } from '../../src/bus/dma_port.ts';
import { bootDma, DmaThings, LOW_BASE } from './bounce_rig.ts';

describe('the checker of bus_dma calls', () => {
  const things = new DmaThings();
  const segs = new BusDmaSegs(64);
  let port: RamDmaPort;
  let tag: BusDmaTag;
  let m: Mbuf;

  beforeEach(() => {
    bootDma(LOW_BASE);
    busDmaWatch({ check: true });
    port = new RamDmaPort();
    tag = things.tag({ name: 'test0 tx' });
    m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
    m.m_len = 1000;
    m.m_pkthdr.len = 1000;
  });

  afterEach(() => {
    m_freem(m);
    things.end();
    busDmaWatch({});
  });

  const load = (map: BusDmamap): void => {
    expect(bus_dmamap_load_mbuf_sg(map.tag, map, m, segs)).to.equal(0);
  };
  /** A device access to `len` bytes at offset `off` of the last load. */
  const touch = (write: boolean, off = 0, len = 1000): number => {
    const addr = segs.ds_addr[0]! + off;
    return port.map(addr >>> 0, Math.floor(addr / 2 ** 32), len, write);
  };
  /** Expects one report with reason `why` and this text; `@` stands for the address of the load. */
  const expectOne = (why: number, text: string): void => {
    const at = `0x${segs.ds_addr[0]!.toString(16)}`;
    expect(dmaCheck.reports).to.deep.equal([text.replace('@', at)]);
    expect([counted(why), dmaCheck.violations]).to.deep.equal([1, 1]);
    dmaCheck.reports.length = 0;
  };

  it('reports nothing for correct calls', () => {
    const map = things.map(tag);
    load(map);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREWRITE);
    expect(touch(false)).to.be.above(0);
    expect(touch(false, 100, 10)).to.be.above(0);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_POSTWRITE);
    bus_dmamap_unload(tag, map);
    load(map);
    for (let i = 0; i < 3; i++) {
      bus_dmamap_sync(tag, map, BUS_DMASYNC_PREREAD);
      touch(true);
      bus_dmamap_sync(tag, map, BUS_DMASYNC_POSTREAD);
    }
    bus_dmamap_unload(tag, map);
    expect([dmaCheck.violations, windowCount]).to.deep.equal([0, 0]);
  });

  it('allows driver and device to share memory of bus_dmamem_alloc', () => {
    const ring = bus_dmamem_alloc(tag, 0)!;
    expect(bus_dmamap_load(tag, ring.map, ring.vaddr, 8192, segs)).to.equal(0);
    bus_dmamap_sync(tag, ring.map, BUS_DMASYNC_PREREAD | BUS_DMASYNC_PREWRITE);
    touch(false, 0, 8192);
    bus_dmamap_sync(tag, ring.map, BUS_DMASYNC_POSTREAD | BUS_DMASYNC_POSTWRITE);
    touch(true, 5000, 16);
    bus_dmamap_unload(tag, ring.map);
    bus_dmamem_free(tag, ring);
    expect(dmaCheck.reports).to.deep.equal([]);
  });

  it('missing PRE: the device reads memory without a PREWRITE', () => {
    const map = things.map(tag);
    load(map);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREREAD);
    touch(false);
    expectOne(
      R_DMA_CHECK_NO_PRE,
      'test0 tx map 0: device reads 1000 bytes at @ without BUS_DMASYNC_PREWRITE',
    );
    bus_dmamap_sync(tag, map, BUS_DMASYNC_POSTREAD);
  });

  it('missing PRE: the device writes memory after POSTREAD', () => {
    const map = things.map(tag);
    load(map);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREREAD);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_POSTREAD);
    touch(true, 10, 20);
    const at = `0x${(segs.ds_addr[0]! + 10).toString(16)}`;
    expectOne(
      R_DMA_CHECK_NO_PRE,
      `test0 tx map 0: device writes 20 bytes at ${at} without BUS_DMASYNC_PREREAD`,
    );
  });

  it('missing POST: unload, or another PRE, after the device used the memory', () => {
    const map = things.map(tag);
    load(map);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREWRITE);
    touch(false);
    bus_dmamap_unload(tag, map);
    expectOne(
      R_DMA_CHECK_NO_POST,
      'test0 tx map 0: unloaded without BUS_DMASYNC_POSTWRITE: the device has used it',
    );
    load(map);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREREAD);
    touch(true);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREREAD);
    expect(dmaCheck.reports).to.deep.equal([
      'test0 tx map 0: BUS_DMASYNC_PREREAD again without BUS_DMASYNC_POSTREAD: the device has used it',
    ]);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_POSTREAD);
  });

  it('POST without its own PRE, although the other PRE was done', () => {
    const map = things.map(tag);
    load(map);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREWRITE);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_POSTREAD);
    expectOne(
      R_DMA_CHECK_POST_FIRST,
      'test0 tx map 0: BUS_DMASYNC_POSTREAD without BUS_DMASYNC_PREREAD before it',
    );
    bus_dmamap_sync(tag, map, BUS_DMASYNC_POSTWRITE);
  });

  it('use after unload: the report names the former map', () => {
    const map = things.map(tag);
    load(map);
    bus_dmamap_unload(tag, map);
    touch(false);
    expectOne(
      R_DMA_CHECK_UNLOADED,
      'test0 tx map 0: device reads 1000 bytes at @ after the unload',
    );
  });

  it('unload while the device owns the memory', () => {
    const map = things.map(tag);
    load(map);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREWRITE);
    bus_dmamap_unload(tag, map);
    expectOne(
      R_DMA_CHECK_UNLOAD_OWNED,
      'test0 tx map 0: unloaded while the device owns it: BUS_DMASYNC_PREWRITE, never BUS_DMASYNC_POSTWRITE',
    );
  });

  it('double load of memory that the device may write; two loads for reading are allowed', () => {
    const other = things.tag({ name: 'test0 rx' });
    const one = things.map(tag);
    const two = things.map(other);
    load(one);
    load(two);
    bus_dmamap_sync(tag, one, BUS_DMASYNC_PREWRITE);
    bus_dmamap_sync(other, two, BUS_DMASYNC_PREWRITE);
    touch(false);
    bus_dmamap_sync(other, two, BUS_DMASYNC_POSTWRITE);
    expect(dmaCheck.reports).to.deep.equal([]);
    bus_dmamap_sync(other, two, BUS_DMASYNC_PREREAD);
    expectOne(
      R_DMA_CHECK_DOUBLE_LOAD,
      'test0 rx map 0: memory at @ for the device to write is loaded in test0 tx map 0, too',
    );
    bus_dmamap_sync(tag, one, BUS_DMASYNC_POSTWRITE);
    bus_dmamap_sync(other, two, BUS_DMASYNC_POSTREAD);
  });

  it('access that starts in loaded memory and ends in memory that was never loaded', () => {
    const map = things.map(tag);
    load(map);
    bus_dmamap_sync(tag, map, BUS_DMASYNC_PREWRITE);
    touch(false, 0, 1010);
    const rest = `0x${(segs.ds_addr[0]! + 1000).toString(16)}`;
    expectOne(
      R_DMA_CHECK_NOT_LOADED,
      `device reads 1010 bytes at @, of which those from ${rest} on are in no map`,
    );
    bus_dmamap_sync(tag, map, BUS_DMASYNC_POSTWRITE);
  });

  it('only reports: the access succeeds and no fault is counted', () => {
    const map = things.map(tag);
    load(map);
    bus_dmamap_unload(tag, map);
    expect(touch(true)).to.be.above(0);
    expect([port.faults, counted(R_DEV_DMA_FAULT)]).to.deep.equal([0, 0]);
  });

  it('prints at most 64 reports on the console, keeps 32 and shows them as sysctls', () => {
    ipcSysctlInit();
    dmaCheckSysctlInit();
    const lines: string[] = [];
    dmaCheck.console = (line) => void lines.push(line);
    const map = things.map(tag);
    load(map);
    bus_dmamap_unload(tag, map);
    for (let i = 0; i < 100; i++) touch(false, i, 1);
    dmaCheck.console = null;
    expect(lines).to.have.lengthOf(64);
    expect(lines[0]).to.match(/^bus_dma: test0 tx map 0: device reads 1 bytes at 0x\w+ after/);
    const value = (name: string): unknown => machineSysctl.tree.find(name)!.get();
    expect([value('hw.busdma.check'), value('hw.busdma.violations')]).to.deep.equal([1, 100]);
    expect(String(value('hw.busdma.violation_report')).split('\n')).to.have.lengthOf(32);
  });

  it('records nothing when it is off', () => {
    busDmaWatch({});
    const map = things.map(tag);
    load(map);
    expect([windowCount, touch(true) > 0, dmaCheck.violations]).to.deep.equal([0, true, 0]);
  });
});
