import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { EINVAL, ENETDOWN, ENOBUFS, ENXIO } from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { ifhwioctl } from '../../src/net/if.ts';
import {
  counted,
  R_DMA_ENOMEM,
  R_DRV_DEFRAG,
  R_DRV_IFQ_FULL,
  R_DRV_RX_NOBUF,
  R_DRV_TX_ERROR,
} from '../../src/sys/reason.ts';
import { dmaStats } from '../../src/bus/bus_dma.ts';
import { dmaCheck } from '../../src/bus/busdma_check.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP6_TCP,
  CSUM_IP6_UDP,
  CSUM_IP_CHECKED,
  CSUM_IP_TCP,
  CSUM_IP_UDP,
  CSUM_IP_VALID,
  CSUM_PSEUDO_HDR,
  type Mbuf,
  MJUMPAGESIZE,
} from '../../src/kern/mbuf.ts';
import { timeoutEnd } from '../../src/kern/kern_timeout.ts';
import type { NicModel } from '../../src/machine/nic_model.ts';
import { nicModel } from '../../src/machine/nic_models.ts';
import { tlModel } from '../../src/machine/models/tl.ts';
import { PluggedNic } from '../../src/machine/plugged_nic.ts';
import {
  IFCAP_NOMAP,
  IFCAP_RXCSUM,
  IFCAP_RXCSUM_IPV6,
  IFCAP_TSO4,
  IFCAP_TXCSUM,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OQDROPS,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
  IFF_UP,
  if_get_counter,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../../src/net/if_var.ts';
import { IntrVector } from '../../src/bus/intr.ts';
import { TL_BR_SIZE, TL_RX_NDESC, TL_TX_NBLOCKS } from '../../drivers/if_tlvar.ts';
import { TL_CAPABILITIES, tl_attach } from '../../drivers/if_tl.ts';
import { DSTOPTS, judge, makePacket, payloadBytes } from '../dev/judge.ts';
import { FakeWire } from '../dev/fake_wire.ts';
import { packageRoot } from '../support/root.ts';
import { inWorld, type World } from '../support/world.ts';
import { bootForNic, NicHost } from './nic_host.ts';

/** 4 MiB below 4 GiB, the rest above. */
const CROSS = 0xffc0_0000;
const ABOVE = 0x2_0000_0000;

/** Downloads a file, compares the bytes, and judges every IPv4 frame. */
function download(world: World, bytes: number): void {
  const file = world.file(bytes);
  const got = world.transfer(world.connect(), file);
  expect(Buffer.compare(got, Buffer.from(file.bytes)), 'bytes').to.equal(0);
  world.settle();
  let data = 0;
  for (const frame of world.port.frames) {
    expect(frame.length).to.be.at.most(1514);
    if (frame[12] === 8 && frame[13] === 0) data += judge(frame).payload.length;
  }
  expect(data).to.be.at.least(bytes);
  expect(dmaCheck.reports, 'bus_dma calls').to.deep.equal([]);
  expect(dmaStats.faults, 'DMA faults').to.equal(0);
}

describe('if_tl: downloads', () => {
  it('convert unmapped mbufs without NOMAP, leave checksums to the NIC, and defragment long chains', () => {
    inWorld({ model: 'tl', base: 0, dmaCheck: true }, (world) => {
      download(world, 500_000);
      const { conversions, dma, payload_bytes_read: read } = world.m.emulator;
      expect(conversions).to.be.above(0);
      expect(dma.defrags).to.be.above(0).and.equal(counted(R_DRV_DEFRAG));
      expect(dma.bounced).to.equal(0);
      expect(read.checksum).to.equal(0);
    });
  });

  it('use bounce pages where memory lies above 4 GiB', () => {
    inWorld(
      { model: 'tl', memory: 32 << 20, base: CROSS, dmaCheck: true, iommu: true },
      (world) => {
        download(world, 5_000_000);
        const { dma } = world.m.emulator;
        expect(dma.bounced).to.be.above(0);
        expect(dma.defrags).to.be.above(0);
      },
    );
  });

  it('need no conversion once one changed line adds NOMAP to the capabilities', async () => {
    const dir = join(packageRoot(), 'dist', 'drivers');
    const lines = readFileSync(join(dir, 'if_tl.js'), 'utf8').split('\n');
    const at = lines.findIndex((line) => line.startsWith('export const TL_CAPABILITIES ='));
    expect(lines[at]).to.match(/;$/);
    // In C the name of the bit would do; the compiled module does not import it.
    lines[at] = lines[at]!.replace(/;$/, ` | ${IFCAP_NOMAP};`);
    const path = join(dir, `if_tl_nomap.${process.pid}.js`);
    writeFileSync(path, lines.join('\n'));
    let changed: typeof import('../../drivers/if_tl.ts');
    try {
      changed = await import(pathToFileURL(path).href);
    } finally {
      rmSync(path);
    }
    const nomap: NicModel = {
      ...tlModel,
      attach: (ifp, device, intr) => changed.tl_attach(ifp, device, null, intr),
      detach: changed.tl_detach,
    };
    for (const model of [tlModel, nomap]) {
      inWorld({ model, dmaCheck: true }, (world) => {
        download(world, 300_000);
        const { conversions, sf_bufs } = world.m.emulator;
        if (model === nomap) expect([conversions, sf_bufs.total]).to.deep.equal([0, 0]);
        else expect(Math.min(conversions, sf_bufs.total)).to.be.above(0);
      });
    }
  });
});

describe('if_tl: transmit', () => {
  let host: NicHost;

  afterEach(() => host.down());

  const CSUM = { tcp: CSUM_IP_TCP, udp: CSUM_IP_UDP, tcp6: CSUM_IP6_TCP, udp6: CSUM_IP6_UDP };

  it('has the NIC insert TCP and UDP checksums, IPv4 and IPv6, with and without a VLAN tag', () => {
    host = new NicHost(tlModel, { base: 0, iommu: true }).up();
    for (const [kind, request] of Object.entries(CSUM)) {
      for (const vlan of [undefined, 7]) {
        for (const payload of [0, 1, 700, 1400]) {
          const v6 = kind.endsWith('6');
          const udp = kind.startsWith('udp');
          const options = { v6, udp, payload, ...(vlan === undefined ? {} : { vlan }) };
          const frame = makePacket({ ...options, cksum: 'pseudo' });
          // The stack computes the IP header checksum; `full` and `pseudo` differ only in
          // checksums.
          const whole = makePacket({ ...options, cksum: 'full' });
          const l3 = vlan === undefined ? 14 : 18;
          if (!v6) frame.set(whole.subarray(l3 + 10, l3 + 12), l3 + 10);
          // Headers in two mbufs, so that the driver must gather them.
          const m = host.chain(frame, [20, 30]);
          m.m_pkthdr.csum_flags = request;
          expect(host.send(m)).to.deep.equal([0]);
          const sent = host.wire.sent.at(-1)!;
          const got = judge(sent);
          expect([...got.payload]).to.deep.equal([...payloadBytes(payload)]);
          expect([...sent.subarray(0, whole.length)]).to.deep.equal([...whole]);
        }
      }
    }
  });

  it('drops and counts packets whose headers are cut short', () => {
    host = new NicHost(tlModel, { base: 0 }).up();
    for (const len of [14, 33, 40, 53]) {
      const m = host.chain(makePacket({ payload: 100, cksum: 'pseudo' }).subarray(0, len));
      m.m_pkthdr.csum_flags = CSUM_IP_TCP;
      host.send(m);
    }
    expect(host.wire.sent).to.have.lengthOf(0);
    expect(counted(R_DRV_TX_ERROR)).to.equal(4);
    expect(if_get_counter(host.ifp, IFCOUNTER_OERRORS)).to.equal(4);
  });

  it('drops and counts packets of another protocol than the requested checksum', () => {
    host = new NicHost(tlModel, { base: 0 }).up();
    for (const [kind, request] of Object.entries(CSUM)) {
      const udp = !kind.startsWith('udp');
      const v6 = kind.endsWith('6');
      const m = host.chain(makePacket({ payload: 100, udp, v6, cksum: 'pseudo' }));
      m.m_pkthdr.csum_flags = request;
      host.send(m);
    }
    expect(host.wire.sent).to.have.lengthOf(0);
    expect(counted(R_DRV_TX_ERROR)).to.equal(4);
  });

  it('collapses chains of small mbufs, and defragments chains that stay too long', () => {
    host = new NicHost(tlModel, { base: 0 }).up();
    const frame = makePacket({ payload: 1400, cksum: 'full' });
    for (const cuts of [
      [54, 100, 100, 100, 100, 100],
      Array.from({ length: 20 }, () => 60),
      [1, 1, 1, 1, 1],
      [54],
    ]) {
      expect(host.send(host.chain(frame, cuts))).to.deep.equal([0]);
      expect([...host.wire.sent.at(-1)!]).to.deep.equal([...frame]);
    }
    expect(dmaStats.defrags).to.equal(3);
    expect(dmaStats.segHist.subarray(5).some((n) => n > 0)).to.equal(false);
  });

  it('drops and counts a packet that it cannot defragment for lack of mbufs', () => {
    host = new NicHost(tlModel, { base: 0 }).up();
    const frame = makePacket({ payload: 1400, cksum: 'full' });
    const cuts = Array.from({ length: 20 }, () => 60);
    let dropped = 0;
    for (const pool of ['mbuf', 'mbuf_cluster']) {
      for (let k = 1; k <= 8; k++) {
        const m = host.chain(frame, cuts);
        const before = host.wire.sent.length;
        failPoint(pool).arm(k, 100);
        expect(host.send(m)).to.deep.equal([0]);
        failPoint(pool).disarm();
        if (host.wire.sent.length === before) dropped++;
      }
    }
    expect(dropped).to.be.above(0).and.equal(counted(R_DRV_TX_ERROR));
    for (const sent of host.wire.sent) expect([...sent]).to.deep.equal([...frame]);
  });

  it('queues while the ring is full, and returns ENOBUFS when the queue is full too', () => {
    host = new NicHost(tlModel, { base: 0 }).up();
    host.wire.room = 0;
    const ring = TL_TX_NBLOCKS - 1;
    const errors: number[] = [];
    for (let i = 0; i < ring + TL_BR_SIZE + 5; i++) {
      const frame = makePacket({ payload: 60, seq: i, cksum: 'full' });
      errors.push(...host.send(host.chain(frame)));
    }
    expect(errors.filter((e) => e === ENOBUFS)).to.have.lengthOf(5);
    expect(counted(R_DRV_IFQ_FULL)).to.equal(5);
    expect(if_get_counter(host.ifp, IFCOUNTER_OQDROPS)).to.equal(5);
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.not.equal(0);
    for (let i = 0; i < 50; i++) {
      host.wire.drain(100);
      host.clock.runPosted();
    }
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.equal(0);
    const seqs = host.wire.sent.map((f) => judge(f).seq);
    expect(seqs).to.deep.equal(Array.from({ length: ring + TL_BR_SIZE }, (_, i) => i));
  });

  it('keeps a packet until a bounce page is free, and drops it if no transfer in progress can free one', () => {
    host = new NicHost(tlModel, { base: CROSS }).up();
    const frame = makePacket({ payload: 1000, cksum: 'full' });
    const far = (): Mbuf => host.high(() => host.chain(frame, [54], MJUMPAGESIZE));
    expect(host.send(far())).to.deep.equal([0]);
    expect(dmaStats.bounced).to.be.above(0);
    // No transfer is in progress that could free a bounce page.
    failPoint('bounce_page').arm(1);
    expect(host.send(far())).to.deep.equal([0]);
    expect([counted(R_DMA_ENOMEM), counted(R_DRV_TX_ERROR)]).to.deep.equal([1, 1]);
    host.wire.room = 0;
    expect(host.send(host.chain(frame))).to.deep.equal([0]);
    failPoint('bounce_page').arm(1);
    expect(host.send(far())).to.deep.equal([0]);
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.not.equal(0);
    host.wire.drain(10);
    host.clock.runPosted();
    expect([counted(R_DMA_ENOMEM), counted(R_DRV_TX_ERROR)]).to.deep.equal([2, 1]);
    expect(host.wire.sent.map((f) => [...f])).to.deep.equal([1, 2, 3].map(() => [...frame]));
  });

  it('sends nothing while down, and sends again after each up', () => {
    host = new NicHost(tlModel, { base: 0 });
    const frame = makePacket({ payload: 500, cksum: 'full' });
    expect(host.send(host.chain(frame))).to.deep.equal([ENETDOWN]);
    for (let i = 0; i < 3; i++) {
      host.up();
      host.wire.room = 1;
      host.send(host.chain(frame), host.chain(frame), host.chain(frame));
      host.ifp.if_flags &= ~IFF_UP;
      expect(host.ioctl(SIOCSIFFLAGS)).to.equal(0);
      expect(host.ifp.if_drv_flags & IFF_DRV_RUNNING).to.equal(0);
      expect(dmaStats.mapsLoaded, 'only rings').to.equal(2);
    }
    expect(host.wire.sent).to.have.lengthOf(3);
  });

  it('leaves no garbage, mapped, unmapped or bounced', () => {
    host = new NicHost(tlModel, { base: CROSS, iommu: true }).up();
    const frame = makePacket({ payload: 1400, cksum: 'full' });
    const makers = {
      cluster: host.clusterMaker(frame),
      page: host.unmappedMaker(frame),
      'page above 4 GiB': host.high(() => host.unmappedMaker(frame)),
    };
    for (const [what, make] of Object.entries(makers))
      expect(host.garbageOfSending(make), what).to.be.below(8);
    expect(dmaStats.bounced).to.be.above(100_000);
    expect(host.wire.nsent).to.be.above(300_000);
  }).timeout(60_000);
});

describe('if_tl: receive', () => {
  let host: NicHost;

  afterEach(() => host.down());

  it('passes frames to the stack with the checksum verdicts that RXCSUM enables', () => {
    host = new NicHost(tlModel, { base: CROSS, iommu: true }).up();
    const good = CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
    const ip = CSUM_IP_CHECKED | CSUM_IP_VALID;
    const cases: [Parameters<typeof makePacket>[0], number][] = [
      [{ payload: 1400, cksum: 'full' }, ip | good],
      [{ payload: 10, cksum: 'full' }, ip | good],
      [{ payload: 10, cksum: 'full', udp: true }, ip | good],
      [{ payload: 900, cksum: 'full', v6: true }, good],
      [{ payload: 900, cksum: 'full', v6: true, udp: true }, good],
      [{ payload: 900, cksum: 'full', spoil: 1 }, ip],
      [{ payload: 900, cksum: 'full', v6: true, spoil: 1 }, 0],
      [{ payload: 900, cksum: 'full', vlan: 3 }, 0],
      [{ payload: 900, cksum: 'full', v6: true, exts: [{ type: DSTOPTS }] }, 0],
    ];
    for (const [options, flags] of cases) {
      const frame = makePacket(options);
      host.inject(frame);
      expect([...host.receivedBytes.at(-1)!]).to.deep.equal([...frame]);
      expect(host.received.at(-1)!.m_pkthdr.csum_flags, JSON.stringify(options)).to.equal(flags);
    }
    const spoiled = makePacket({ payload: 900, cksum: 'full' });
    spoiled[24]! ^= 1;
    host.inject(spoiled);
    expect(host.received.at(-1)!.m_pkthdr.csum_flags, 'IP header').to.equal(CSUM_IP_CHECKED);
    for (const [off, four, six] of [
      [IFCAP_RXCSUM, 0, good],
      [IFCAP_RXCSUM_IPV6, ip | good, 0],
    ] as const) {
      expect(host.ioctl(SIOCSIFCAP, TL_CAPABILITIES & ~off)).to.equal(0);
      host.inject(makePacket({ payload: 900, cksum: 'full' }));
      expect(host.received.at(-1)!.m_pkthdr.csum_flags).to.equal(four);
      host.inject(makePacket({ payload: 900, cksum: 'full', v6: true }));
      expect(host.received.at(-1)!.m_pkthdr.csum_flags).to.equal(six);
    }
    const cap = TL_CAPABILITIES & ~(IFCAP_RXCSUM | IFCAP_RXCSUM_IPV6);
    expect(host.ioctl(SIOCSIFCAP, cap)).to.equal(0);
    host.inject(makePacket({ payload: 900, cksum: 'full' }));
    expect(host.received.at(-1)!.m_pkthdr.csum_flags).to.equal(0);
  });

  it('receives small and large frames over three rounds of the ring', () => {
    host = new NicHost(tlModel, { base: CROSS, iommu: true }).up();
    for (let i = 0; i < 3 * TL_RX_NDESC; i++) {
      const frame = makePacket({ payload: (i * 37) % 1400, seq: i, cksum: 'full' });
      host.inject(frame);
      expect([...host.receivedBytes.at(-1)!]).to.deep.equal([...frame]);
      host.drop();
    }
  });

  it('drops frames but keeps its ring full when mbufs or clusters run out', () => {
    host = new NicHost(tlModel, { base: 0 }).up();
    const frames = Array.from({ length: 40 }, (_, i) =>
      makePacket({ payload: i % 2 === 0 ? 10 : 1000, seq: i, cksum: 'full' }),
    );
    for (const pool of ['mbuf', 'mbuf_cluster']) {
      failPoint(pool).arm(1, 1_000_000);
      host.inject(...frames);
      failPoint(pool).disarm();
    }
    expect(counted(R_DRV_RX_NOBUF)).to.be.above(40);
    const before = host.received.length;
    for (let i = 0; i < 10; i++) host.inject(...frames);
    expect(host.received.length - before).to.equal(400);
  });

  it('leaves no garbage, for small frames that it copies and large ones that it passes on', () => {
    host = new NicHost(tlModel, { base: 0, iommu: true }).up();
    for (const payload of [30, 1400]) {
      const frame = makePacket({ payload, cksum: 'full' });
      expect(host.garbageOfReceiving(frame), `${payload}`).to.be.below(8);
    }
  }).timeout(60_000);
});

describe('if_tl: attach and ioctl', () => {
  it('frees everything if memory runs out at any point of attach', () => {
    const machine = bootForNic({ base: CROSS });
    for (const [what, arm] of [
      ['map', (k: number) => failPoint('dma_map').arm(k + 1)],
      ['page', (k: number) => failPoint('vm_page').arm(k + 1)],
      ['mbuf', (k: number) => failPoint('mbuf').arm(k + 1)],
    ] as const) {
      let failures = 0;
      for (let k = 0; k < 400; k += k < 8 ? 1 : 61) {
        arm(k);
        try {
          new PluggedNic(machine, tlModel, new FakeWire(), '02:00:00:00:00:01').stop();
        } catch {
          failures++;
        }
        failPoint('dma_map').disarm();
        failPoint('vm_page').disarm();
        failPoint('mbuf').disarm();
        const { bounce_pages: _pool, ...leaked } = machine.leaked();
        expect(leaked, `${what} ${k}`).to.deep.equal({});
      }
      if (what !== 'page') expect(failures, what).to.be.above(0);
    }
    timeoutEnd();
  });

  it('fails with ENXIO for a device that is not a tl, and with ENOMEM without memory below 4 GiB', () => {
    const machine = bootForNic({ base: ABOVE });
    expect(() => new PluggedNic(machine, tlModel, new FakeWire(), '02:00:00:00:00:01')).to.throw(
      /ENOMEM/,
    );
    const tb = new PluggedNic(machine, nicModel('tb')!, new FakeWire(), '02:00:00:00:00:01');
    expect(tl_attach(tb.ifp, tb.device, null, new IntrVector(machine.clock))).to.equal(ENXIO);
    tb.stop();
    expect(machine.leaked()).to.deep.equal({});
    timeoutEnd();
  });

  it('accepts an MTU up to 1500, and only its own capabilities', () => {
    const host = new NicHost(tlModel, { base: 0 }).up();
    const mtu = (n: number): number => host.ioctl(SIOCSIFMTU, n);
    expect([67, 68, 576, 1500, 1501, 9000, 1.5].map(mtu)).to.deep.equal([
      EINVAL,
      0,
      0,
      0,
      EINVAL,
      EINVAL,
      EINVAL,
    ]);
    const v4 = CSUM_IP_TCP | CSUM_IP_UDP;
    const v6 = CSUM_IP6_TCP | CSUM_IP6_UDP;
    expect(host.ifp.if_hwassist).to.equal(v4 | v6);
    expect(host.ioctl(SIOCSIFCAP, TL_CAPABILITIES & ~IFCAP_TXCSUM)).to.equal(0);
    expect(host.ifp.if_hwassist).to.equal(v6);
    expect(host.ioctl(SIOCSIFCAP, TL_CAPABILITIES)).to.equal(0);
    expect(host.ifp.if_hwassist).to.equal(v4 | v6);
    for (const bit of [IFCAP_NOMAP, IFCAP_TSO4])
      expect(ifhwioctl(host.ifp, SIOCSIFCAP, TL_CAPABILITIES | bit)).to.equal(EINVAL);
    expect(host.ifp.if_capenable).to.equal(TL_CAPABILITIES);
    host.down();
  });

  it('reports link state changes', () => {
    const host = new NicHost(tlModel, { base: 0 }).up();
    host.wire.listener!.wireState(false, 0);
    host.clock.runPosted();
    expect(host.ifp.if_link_state).to.equal(1);
    host.send(host.chain(makePacket({ payload: 100, cksum: 'full' })));
    host.wire.listener!.wireState(true, 0);
    host.clock.runPosted();
    expect(host.ifp.if_link_state).to.equal(2);
    host.inject(makePacket({ payload: 100, cksum: 'full' }));
    expect([host.received.length, host.wire.sent.length]).to.deep.equal([1, 0]);
    host.down();
  });
});
