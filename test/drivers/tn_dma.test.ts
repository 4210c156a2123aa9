import { expect } from 'chai';
import {
  counted,
  R_DEV_DMA_FAULT,
  R_DMA_CHECK_UNLOAD_OWNED,
  R_DMA_CHECK_UNLOADED,
  R_DMA_ENOMEM,
  R_DRV_TX_ERROR,
} from '../../src/sys/reason.ts';
import { memView } from '../../src/vm/arena.ts';
import { payloadBytesRead, READ_COPY } from '../../src/vm/payload.ts';
import { vmPageAllocBelow, vm_page_unwire } from '../../src/vm/vm_page.ts';
import { CSUM_IP, CSUM_IP_TCP, CSUM_IP_TSO, type Mbuf } from '../../src/kern/mbuf.ts';
import { bus_dmamap_unload, dmaStats } from '../../src/bus/bus_dma.ts';
import { bounceZones } from '../../src/bus/busdma_bounce.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { IFF_DRV_OACTIVE } from '../../src/net/if_var.ts';
import { dmaCheck } from '../../src/bus/busdma_check.ts';
import { iommu } from '../../src/bus/iommu.ts';
import { TN_RX_NDESC, TN_TX_NDESC } from '../../drivers/if_tnvar.ts';
import { dmaTxeof, dmaTxflush } from '../../drivers/dma_tx.ts';
import { tn_encap } from '../../drivers/tn_txrx.ts';
import { judge, makePacket, payloadBytes } from '../dev/judge.ts';
import { chainBytes, TnHost } from './tn_host.ts';

/** RAM has 32 MiB below 4 GiB and 32 MiB above; the bus carries 32 address bits. */
const CROSS = 0xfe00_0000;
const MAX32 = 0xffff_ffff;
const BUS32 = {
  base: CROSS,
  parent: { name: 'pci32', lowaddr: MAX32, maxsize: 2 ** 32, nsegments: 64, maxsegsz: 2 ** 32 },
};

describe('if_tn on a restricted bus', () => {
  let host: TnHost;

  afterEach(() => host.down());

  const tso = (payload: number): Mbuf => {
    const m = host.unmapped(makePacket({ payload, cksum: 'tso' }), 54, 1000, 10);
    m.m_pkthdr.csum_flags = CSUM_IP | CSUM_IP_TCP | CSUM_IP_TSO;
    m.m_pkthdr.tso_segsz = 1448;
    return m;
  };

  /** Runs `fn` while no page below 4 GiB is free. */
  function high<T>(fn: () => T): T {
    const low: number[] = [];
    vmPageAllocBelow(1 << 20, MAX32, 1, low);
    try {
      return fn();
    } finally {
      for (const p of low) vm_page_unwire(p, false);
    }
  }

  it('bounces memory above 4 GiB, and sends the same frames', () => {
    host = new TnHost('wire', 64 << 20, BUS32).up();
    const m = high(() => tso(20_000));
    const bounced = dmaStats.bounced;
    expect(host.send(m)).to.deep.equal([0]);
    const got = host.wire.sent.map((f) => judge(f));
    expect(got.flatMap((g) => [...g.payload])).to.deep.equal([...payloadBytes(20_000)]);
    expect(dmaStats.bounced).to.equal(bounced + 6);
    expect(bounceZones[0]!.total_bounced).to.be.above(0);
    expect(payloadBytesRead(READ_COPY)).to.equal(20_000);
  });

  it('receives into bounced buffers', () => {
    host = new TnHost('wire', 64 << 20, BUS32);
    high(() => host.up());
    expect(bounceZones[0]!.active_bpages).to.equal(TN_RX_NDESC);
    const frames = [1400, 10, 900].map((payload) => makePacket({ payload, cksum: 'full' }));
    host.wire.inject(...frames);
    host.clock.runPosted();
    expect(host.received.map((m) => [...chainBytes(m)])).to.deep.equal(frames.map((f) => [...f]));
  });

  it('drops a packet that finds no bounce page while none is in use, and sends the next', () => {
    host = new TnHost('wire', 64 << 20, BUS32).up();
    for (let k = 0; k < 6; k++) {
      failPoint('bounce_page').arm(k + 1);
      host.send(high(() => tso(20_000)));
      expect(host.wire.sent).to.have.lengthOf(0);
    }
    expect([counted(R_DMA_ENOMEM), counted(R_DRV_TX_ERROR)]).to.deep.equal([6, 6]);
    host.send(high(() => tso(20_000)));
    expect(host.wire.sent).to.have.lengthOf(14);
  });

  it('keeps a packet in the queue until a bounce page in use is freed', () => {
    host = new TnHost('wire', 64 << 20, BUS32).up();
    host.wire.room = 0;
    expect(host.send(high(() => tso(2000)))).to.deep.equal([0]);
    failPoint('bounce_page').arm(1);
    expect(
      host.send(
        high(() => tso(20_000)),
        high(() => tso(1000)),
      ),
    ).to.deep.equal([0, 0]);
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.not.equal(0);
    host.wire.drain(100);
    host.clock.runPosted();
    host.wire.drain(100);
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.equal(0);
    expect([counted(R_DMA_ENOMEM), counted(R_DRV_TX_ERROR)]).to.deep.equal([1, 0]);
    expect(host.wire.sent.map((f) => judge(f).payload.length)).to.deep.equal([
      1448,
      552,
      ...Array.from({ length: 13 }, () => 1448),
      20_000 - 13 * 1448,
      1000,
    ]);
  });

  it('runs behind an IOMMU without a fault', () => {
    host = new TnHost('wire', 64 << 20, { iommu: true }).up();
    host.send(tso(60_000));
    expect(host.wire.sent).to.have.lengthOf(42);
    const frame = makePacket({ payload: 1400, cksum: 'full' });
    for (let i = 0; i < 600; i++) {
      host.wire.inject(frame);
      host.clock.runPosted();
    }
    expect(host.received).to.have.lengthOf(600);
    expect([dmaStats.faults, iommu.lastFault]).to.deep.equal([0, '']);
  });

  it('loses only the packet whose descriptor holds an unmapped address, behind an IOMMU', () => {
    host = new TnHost('wire', 64 << 20, { iommu: true }).up();
    const { sc } = host;
    const at = sc.txDesc + sc.txr.slot(sc.txr.prod) * 16;
    expect(tn_encap(sc, host.mapped(makePacket({ payload: 100, cksum: 'full' })))).to.equal(0);
    // A page with other packets' headers: it is RAM, but no loaded map covers it.
    memView.setUint32(at, (memView.getUint32(at, true) ^ 0x800) >>> 0, true);
    dmaTxflush(sc);
    dmaTxeof(sc);
    host.clock.runPosted();
    expect([host.wire.sent.length, counted(R_DEV_DMA_FAULT), dmaStats.faults]).to.deep.equal([
      0, 1, 1,
    ]);
    expect(iommu.lastFault).to.match(/^read of 154 bytes at 0x8002/);
    expect(dmaCheck.reports).to.have.lengthOf(1);
    dmaCheck.reports.length = 0;
    host.send(host.mapped(makePacket({ payload: 100, cksum: 'full' })));
    expect(host.wire.sent).to.have.lengthOf(1);
  });

  it('loads a packet into the map that was released last', () => {
    host = new TnHost().up();
    const { sc } = host;
    const ids = new Set<number>();
    for (let i = 0; i < 2 * TN_TX_NDESC; i++) {
      const first = sc.txr.slot(sc.txr.prod);
      expect(tn_encap(sc, host.mapped(makePacket({ payload: 100, cksum: 'full' })))).to.equal(0);
      ids.add(sc.txMap[first]!.id);
      dmaTxflush(sc);
      dmaTxeof(sc);
      expect(sc.txMap[first]).to.equal(null);
    }
    expect([...ids]).to.deep.equal([0]);
    expect(new Set(sc.txFree).size).to.equal(TN_TX_NDESC);
  });

  it('an unload before completion is reported by the bus_dma checker', () => {
    host = new TnHost().up();
    const { sc } = host;
    const first = sc.txr.slot(sc.txr.prod);
    expect(tn_encap(sc, host.mapped(makePacket({ payload: 100, cksum: 'full' })))).to.equal(0);
    bus_dmamap_unload(sc.txTag, sc.txMap[first]!);
    dmaTxflush(sc);
    expect([counted(R_DMA_CHECK_UNLOAD_OWNED), counted(R_DMA_CHECK_UNLOADED)]).to.deep.equal([
      1, 1,
    ]);
    expect(dmaCheck.reports[0]).to.match(/^tn0 tx map 0: unloaded while the device owns it/);
    expect(dmaCheck.reports[1]).to.match(
      /^tn0 tx map 0: device reads 154 bytes at 0x\w+ after the unload$/,
    );
    dmaCheck.reports.length = 0;
    // The driver's completion would sync a map that is not loaded, so mark it as loaded again.
    const map = sc.txMap[first]!;
    map.loaded = true;
    map.owned = 4;
    dmaStats.mapsLoaded++;
    dmaTxeof(sc);
    host.clock.runPosted();
  });
});
