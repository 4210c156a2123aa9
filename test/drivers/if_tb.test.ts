import { expect } from 'chai';
import { EINVAL, ENETDOWN, ENOBUFS, ENXIO } from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import {
  counted,
  R_CONVERT_CSUM,
  R_DRV_IFQ_FULL,
  R_DRV_RX_NOBUF,
  R_DRV_TX_ERROR,
} from '../../src/sys/reason.ts';
import { dmaStats } from '../../src/bus/bus_dma.ts';
import { dmaCheck } from '../../src/bus/busdma_check.ts';
import { IntrVector } from '../../src/bus/intr.ts';
import { timeoutEnd } from '../../src/kern/kern_timeout.ts';
import { MJUMPAGESIZE } from '../../src/kern/mbuf.ts';
import { tbModel } from '../../src/machine/models/tb.ts';
import { nicModel } from '../../src/machine/nic_models.ts';
import { PluggedNic } from '../../src/machine/plugged_nic.ts';
import { if_addmulti, if_delmulti, ifhwioctl } from '../../src/net/if.ts';
import {
  IFCAP_NOMAP,
  IFCAP_TXCSUM,
  IFF_ALLMULTI,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
  IFF_PROMISC,
  IFF_UP,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../../src/net/if_var.ts';
import { TB_CAPABILITIES, tb_attach } from '../../drivers/if_tb.ts';
import { TB_BR_SIZE, TB_RX_NDESC, TB_TX_NDESC } from '../../drivers/if_tbvar.ts';
import { judge, makePacket } from '../dev/judge.ts';
import { FakeWire } from '../dev/fake_wire.ts';
import { inWorld, type World } from '../support/world.ts';
import { bootForNic, NicHost } from './nic_host.ts';

/** Downloads a file, compares the bytes, and judges every IPv4 frame. */
function download(world: World, bytes: number, mtu: number): void {
  const file = world.file(bytes);
  const got = world.transfer(world.connect(), file);
  expect(Buffer.compare(got, Buffer.from(file.bytes)), 'bytes').to.equal(0);
  world.settle();
  for (const frame of world.port.frames) {
    expect(frame.length).to.be.at.most(mtu + 14);
    if (frame[12] === 8 && frame[13] === 0) judge(frame);
  }
  expect(dmaCheck.reports, 'bus_dma calls').to.deep.equal([]);
  expect(dmaStats.faults, 'DMA faults').to.equal(0);
}

describe('if_tb: downloads', () => {
  it('convert unmapped mbufs and compute checksums in software, at every MTU', () => {
    for (const mtu of [576, 1500, 9000]) {
      inWorld({ model: 'tb', mtu, base: 0x2_0000_0000, dmaCheck: true, iommu: true }, (world) => {
        download(world, 200_000, mtu);
        const { conversions, dma, payload_bytes_read: read } = world.m.emulator;
        expect(conversions).to.be.above(0).and.equal(counted(R_CONVERT_CSUM));
        expect(read.checksum + read.small).to.be.at.least(200_000);
        expect([dma.bounced, dma.faults]).to.deep.equal([0, 0]);
      });
    }
  });
});

describe('if_tb: transmit', () => {
  let host: NicHost;

  beforeEach(() => (host = new NicHost(tbModel, { iommu: true })));
  afterEach(() => host.down());

  it('sends chains of up to 32 segments as they are, and defragments longer ones', () => {
    host.up();
    expect(host.ioctl(SIOCSIFMTU, 9000)).to.equal(0);
    const frame = makePacket({ payload: 8900, cksum: 'full' });
    for (const [pieces, defrags] of [
      [1, 0],
      [5, 0],
      [28, 0],
      [45, 1],
    ] as const) {
      const before = dmaStats.defrags;
      const cuts = Array.from({ length: pieces - 1 }, (_, i) => 20 + i);
      expect(host.send(host.chain(frame, cuts, MJUMPAGESIZE))).to.deep.equal([0]);
      expect([...host.wire.sent.at(-1)!], `${pieces} pieces`).to.deep.equal([...frame]);
      expect(dmaStats.defrags - before, `${pieces} pieces`).to.equal(defrags);
    }
  });

  it('drops and counts a packet that it cannot defragment for lack of mbufs', () => {
    host.up();
    expect(host.ioctl(SIOCSIFMTU, 9000)).to.equal(0);
    const frame = makePacket({ payload: 8900, cksum: 'full' });
    // Mbufs too full for m_collapse to merge them in place.
    const cuts = Array.from({ length: 40 }, (_, i) => (i === 0 ? 100 : 200));
    for (let k = 1; k <= 4; k++) {
      const m = host.chain(frame, cuts);
      for (const pool of ['mbuf', 'mbuf_cluster']) failPoint(pool).arm(1, 100);
      expect(host.send(m)).to.deep.equal([0]);
      for (const pool of ['mbuf', 'mbuf_cluster']) failPoint(pool).disarm();
    }
    expect(counted(R_DRV_TX_ERROR)).to.equal(4);
    expect(host.wire.sent).to.deep.equal([]);
  });

  it('queues while the ring is full, and returns ENOBUFS when the queue is full too', () => {
    host.up();
    host.wire.room = 0;
    const ring = TB_TX_NDESC - 1;
    const errors: number[] = [];
    for (let i = 0; i < ring + TB_BR_SIZE + 5; i++)
      errors.push(
        ...host.send(host.chain(makePacket({ payload: 60, seq: i, cksum: 'full' }), [114])),
      );
    expect(errors.filter((e) => e === ENOBUFS)).to.have.lengthOf(5);
    expect(counted(R_DRV_IFQ_FULL)).to.equal(5);
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.not.equal(0);
    for (let i = 0; i < 30; i++) {
      host.wire.drain(100);
      host.clock.runPosted();
    }
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.equal(0);
    const seqs = host.wire.sent.map((f) => judge(f).seq);
    expect(seqs).to.deep.equal(Array.from({ length: ring + TB_BR_SIZE }, (_, i) => i));
  });

  it('sends a pass longer than the ring: writes the doorbell early when the ring is full', () => {
    host.up();
    const n = 3 * TB_TX_NDESC;
    const chains = Array.from({ length: n }, (_, i) =>
      host.chain(makePacket({ payload: 60, seq: i, cksum: 'full' }), [114]),
    );
    expect(host.send(...chains).every((error) => error === 0)).to.equal(true);
    expect(host.wire.sent.map((f) => judge(f).seq)).to.deep.equal(
      Array.from({ length: n }, (_, i) => i),
    );
  });

  it('sends nothing while down, and after up no frame from before', () => {
    const frame = makePacket({ payload: 500, cksum: 'full' });
    expect(host.send(host.chain(frame))).to.deep.equal([ENETDOWN]);
    for (let i = 1; i <= 3; i++) {
      host.up();
      host.wire.room = 1;
      host.send(host.chain(frame), host.chain(frame), host.chain(frame));
      host.ifp.if_flags &= ~IFF_UP;
      expect(host.ioctl(SIOCSIFFLAGS)).to.equal(0);
      expect(host.ifp.if_drv_flags & IFF_DRV_RUNNING).to.equal(0);
      expect(dmaStats.mapsLoaded, 'only rings').to.equal(2);
      host.up();
      host.wire.room = Infinity;
      host.send(host.chain(frame));
      expect(host.wire.sent).to.have.lengthOf(2 * i);
    }
  });

  it('keeps a defragmented packet in the queue while it waits for descriptors', () => {
    host.up();
    expect(host.ioctl(SIOCSIFMTU, 9000)).to.equal(0);
    host.wire.room = 0;
    const small = makePacket({ payload: 60, cksum: 'full' });
    const large = makePacket({ payload: 8900, cksum: 'full' });
    for (let i = 0; i < TB_TX_NDESC; i++) host.send(host.chain(small, [114]));
    host.send(host.chain(large, [100, ...Array.from({ length: 40 }, () => 200)]));
    expect(dmaStats.defrags).to.equal(0);
    // Frees descriptors for the waiting small frame and three more; the large frame needs five.
    host.wire.drain(4);
    host.clock.runPosted();
    expect(dmaStats.defrags).to.equal(1);
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.not.equal(0);
    host.wire.drain(Infinity);
    host.clock.runPosted();
    expect(host.wire.sent).to.have.lengthOf(TB_TX_NDESC + 1);
    expect([...host.wire.sent.at(-1)!]).to.deep.equal([...large]);
  });

  it('leaves no garbage, mapped or unmapped', () => {
    host.up();
    const frame = makePacket({ payload: 1400, cksum: 'full' });
    expect(host.garbageOfSending(host.clusterMaker(frame)), 'a cluster').to.be.below(8);
    expect(host.garbageOfSending(host.unmappedMaker(frame)), 'a page').to.be.below(8);
    expect(host.wire.nsent).to.be.above(200_000);
  }).timeout(60_000);
});

describe('if_tb: receive', () => {
  let host: NicHost;

  beforeEach(() => (host = new NicHost(tbModel, { iommu: true }).up()));
  afterEach(() => host.down());

  it('passes frames of one buffer and of several to the stack, over two rounds of the ring', () => {
    for (const mtu of [1500, 9000]) {
      expect(host.ioctl(SIOCSIFMTU, mtu)).to.equal(0);
      for (let i = 0; i < 2 * TB_RX_NDESC; i++) {
        const frame = makePacket({ payload: (i * 97) % (mtu - 40), seq: i, cksum: 'full' });
        host.inject(frame);
        expect(host.received).to.have.lengthOf(1);
        expect(Buffer.compare(host.receivedBytes[0]!, frame)).to.equal(0);
        expect(host.received[0]!.m_pkthdr.csum_flags).to.equal(0);
        host.drop();
      }
    }
  });

  it('drops frames but keeps its ring full when mbufs or clusters run out', () => {
    const frames = Array.from({ length: 40 }, (_, i) =>
      makePacket({ payload: i % 2 === 0 ? 10 : 1000, seq: i, cksum: 'full' }),
    );
    for (const pool of ['mbuf', 'mbuf_cluster']) {
      failPoint(pool).arm(1, 1_000_000);
      host.inject(...frames);
      failPoint(pool).disarm();
    }
    expect(counted(R_DRV_RX_NOBUF)).to.be.above(40);
    host.drop();
    for (let i = 0; i < 20; i++) host.inject(...frames);
    expect(host.received).to.have.lengthOf(800);
  });

  it('filters by address', () => {
    const group = [1, 0, 0x5e, 1, 2, 3];
    const other = [1, 0, 0x5e, 9, 9, 9];
    const passes = (dst: number[]): number => {
      const before = host.received.length;
      host.inject(makePacket({ payload: 30, dst, cksum: 'full' }));
      return host.received.length - before;
    };
    expect([[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 7], group].map(passes)).to.deep.equal([1, 0, 0]);
    if_addmulti(host.ifp, Uint8Array.from(group));
    expect([group, other].map(passes)).to.deep.equal([1, 0]);
    if_delmulti(host.ifp, Uint8Array.from(group));
    expect(passes(group)).to.equal(0);
    host.ifp.if_flags |= IFF_ALLMULTI;
    host.ioctl(SIOCSIFFLAGS);
    expect([group, other, [2, 0, 0, 0, 0, 7]].map(passes)).to.deep.equal([1, 1, 0]);
    host.ifp.if_flags |= IFF_PROMISC;
    host.ioctl(SIOCSIFFLAGS);
    expect(passes([2, 0, 0, 0, 0, 7])).to.equal(1);
  });

  it('leaves no garbage, for small frames that it copies and large ones that it passes on', () => {
    for (const payload of [30, 1400]) {
      const frame = makePacket({ payload, cksum: 'full' });
      expect(host.garbageOfReceiving(frame), `${payload}`).to.be.below(8);
    }
  }).timeout(60_000);
});

describe('if_tb: attach and ioctl', () => {
  it('frees everything if memory runs out at any point of attach', () => {
    const machine = bootForNic();
    let failures = 0;
    for (let k = 0; k < 900; k += k < 8 ? 1 : 61) {
      failPoint('dma_map').arm(k + 1);
      failPoint('vm_page').arm(k + 1);
      try {
        new PluggedNic(machine, tbModel, new FakeWire(), '02:00:00:00:00:01').stop();
      } catch {
        failures++;
      }
      failPoint('dma_map').disarm();
      failPoint('vm_page').disarm();
      expect(machine.leaked(), `${k}`).to.deep.equal({});
    }
    expect(failures).to.be.above(5);
    timeoutEnd();
  });

  it('stays down when there are too few clusters, and comes up when there are enough', () => {
    const host = new NicHost(tbModel);
    host.ifp.if_flags |= IFF_UP;
    for (const k of [1, 100, TB_RX_NDESC]) {
      failPoint('mbuf_cluster').arm(k);
      expect(host.ioctl(SIOCSIFFLAGS)).to.equal(ENOBUFS);
      failPoint('mbuf_cluster').disarm();
      expect(host.ifp.if_drv_flags & IFF_DRV_RUNNING).to.equal(0);
    }
    host.up();
    host.inject(makePacket({ payload: 30, cksum: 'full' }));
    expect(host.received).to.have.lengthOf(1);
    host.down();
  });

  it('returns ENXIO for a device that is not a tb', () => {
    const machine = bootForNic({ base: 0 });
    const tl = new PluggedNic(machine, nicModel('tl')!, new FakeWire(), '02:00:00:00:00:01');
    expect(tb_attach(tl.ifp, tl.device, null, new IntrVector(machine.clock))).to.equal(ENXIO);
    tl.stop();
    expect(machine.leaked()).to.deep.equal({});
    timeoutEnd();
  });

  it('accepts an MTU up to 9000, and only its own capabilities', () => {
    const host = new NicHost(tbModel).up();
    const mtu = (n: number): number => host.ioctl(SIOCSIFMTU, n);
    expect([67, 68, 9001, 1.5, 9000].map(mtu)).to.deep.equal([EINVAL, 0, EINVAL, EINVAL, 0]);
    expect(host.ifp.if_hwassist).to.equal(0);
    expect(host.ioctl(SIOCSIFCAP, TB_CAPABILITIES & ~IFCAP_NOMAP)).to.equal(0);
    expect(host.ifp.if_capenable & IFCAP_NOMAP).to.equal(0);
    expect(ifhwioctl(host.ifp, SIOCSIFCAP, TB_CAPABILITIES | IFCAP_TXCSUM)).to.equal(EINVAL);
    expect(host.ifp.if_capenable).to.equal(TB_CAPABILITIES & ~IFCAP_NOMAP);
    host.down();
  });
});
