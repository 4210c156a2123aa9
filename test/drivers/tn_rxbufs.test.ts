import { expect } from 'chai';
import { mbufZones } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_EXT, M_PKTHDR } from '../../src/kern/mbuf.ts';
import { if_get_counter, IFCOUNTER_IQDROPS, SIOCSIFMTU } from '../../src/net/if_var.ts';
import { counted, R_DRV_RX_NOBUF } from '../../src/sys/reason.ts';
import { makePacket } from '../dev/judge.ts';
import { segment } from '../dev/segments.ts';

import { chainBytes, TnHost } from './tn_host.ts';

describe('if_tn: receive buffers', () => {
  let host: TnHost;

  beforeEach(() => {
    host = new TnHost().up();
  });

  afterEach(() => host.down());

  const inject = (...frames: Uint8Array[]): void => {
    host.wire.inject(...frames);
    host.clock.runPosted();
  };

  /** Starts the NIC again without 16 KB buffers, with an MTU of 9000. */
  const restartWithPages = (): void => {
    host.down();
    host = new TnHost();
    mbufZones().jumbo16.max = 0;
    host.up();
    host.ioctl(SIOCSIFMTU, 9000);
  };

  it('chains the 16 KB buffers of a coalesced frame, and copies a small rest', () => {
    const sizes = (total: number): number[] => {
      const frames: Uint8Array[] = [];
      for (let seq = 0; seq < total; seq += 1460)
        frames.push(segment({ payload: Math.min(1460, total - seq), seq }));
      inject(...frames);
      const m = host.received.at(-1)!;
      expect(m.m_pkthdr.len).to.equal(54 + total);
      const lens: number[] = [];
      for (let n: Mbuf | null = m; n !== null; n = n.m_next) lens.push(n.m_len);
      const data = Buffer.concat(frames.map((frame) => frame.subarray(54)));
      expect(data.equals(chainBytes(m).subarray(54))).to.equal(true);
      return lens;
    };
    expect(sizes(40_000)).to.deep.equal([16384, 16384, 40_054 - 32_768]);
    // 2048 bytes and less are copied into an mbuf or a cluster.
    const used = mbufZones().jumbo16.current;
    expect(sizes(32_768 - 54 + 2049)).to.deep.equal([16384, 16384, 2049]);
    expect(mbufZones().jumbo16.current).to.equal(used + 3);
    expect(sizes(32_768 - 54 + 2048)).to.deep.equal([16384, 16384, 2048]);
    expect(mbufZones().jumbo16.current).to.equal(used + 5);
    expect(sizes(32_768 - 54 + 224)).to.deep.equal([16384, 16384, 224]);
    expect(host.received.at(-1)!.m_next!.m_next!.m_flags & M_EXT).to.equal(0);
  });

  it('copies into smaller clusters when 16 KB clusters run out', () => {
    mbufZones().jumbo16.failPoint.arm(1, 1_000_000);
    host.ioctl(SIOCSIFMTU, 9000);
    const frame = makePacket({ payload: 8960, cksum: 'full' });
    for (let i = 0; i < 100; i++) inject(frame);
    expect(host.received.length).to.equal(100);
    const m = host.received.at(-1)!;
    expect([m.m_len, m.m_next!.m_len, m.m_next!.m_next!.m_len]).to.deep.equal([4096, 4096, 822]);
    expect([...chainBytes(m)]).to.deep.equal([...frame]);
    expect(counted(R_DRV_RX_NOBUF)).to.equal(0);
    mbufZones().jumbop.failPoint.arm(1, 1_000_000);
    inject(frame);
    expect(host.received.length).to.equal(100);
    expect(counted(R_DRV_RX_NOBUF)).to.equal(1);
    mbufZones().jumbop.failPoint.disarm();
    mbufZones().jumbo16.failPoint.disarm();
    inject(frame);
    expect(host.received.at(-1)!.m_len).to.equal(9014);
  });

  it('chains the buffers of a jumbo frame', () => {
    restartWithPages();
    const frame = makePacket({ payload: 8960, cksum: 'full' });
    inject(frame, makePacket({ payload: 1, cksum: 'full' }));
    const m = host.received[0]!;
    expect([m.m_pkthdr.len, m.m_len, m.m_next!.m_len, m.m_next!.m_next!.m_len]).to.deep.equal([
      9014, 4096, 4096, 822,
    ]);
    expect([...chainBytes(m)]).to.deep.equal([...frame]);
    expect(m.m_flags & M_PKTHDR).to.equal(M_PKTHDR);
    expect(m.m_next!.m_flags & M_PKTHDR).to.equal(0);
    expect(host.received.length).to.equal(2);
  });

  it('drops frames but keeps its buffers when clusters run out', () => {
    mbufZones().clust.failPoint.arm(1, 1_000_000);
    for (let i = 0; i < 10; i++)
      inject(...Array.from({ length: 50 }, () => makePacket({ payload: 1000, cksum: 'full' })));
    expect(host.received.length).to.equal(0);
    expect(counted(R_DRV_RX_NOBUF)).to.equal(500);
    expect(if_get_counter(host.ifp, IFCOUNTER_IQDROPS)).to.equal(500);
    mbufZones().clust.failPoint.disarm();
    inject(...Array.from({ length: 300 }, () => makePacket({ payload: 1000, cksum: 'full' })));
    expect(host.received.length).to.equal(300);
  });

  it('drops a whole jumbo frame when one of its buffers cannot be replaced', () => {
    restartWithPages();
    const frame = makePacket({ payload: 8960, cksum: 'full' });
    for (const failing of [1, 2, 3]) {
      const zone = mbufZones().jumbop;
      const alloc = zone.alloc.bind(zone);
      let n = 0;
      zone.alloc = () => (++n === failing ? null : alloc());
      inject(frame);
      zone.alloc = alloc;
      inject(frame);
      expect(host.received.length, `buffer ${failing}`).to.equal(failing);
      expect([...chainBytes(host.received.at(-1)!)]).to.deep.equal([...frame]);
    }
    expect(counted(R_DRV_RX_NOBUF)).to.equal(3);
  });
});
