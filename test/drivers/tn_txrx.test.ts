import { expect } from 'chai';
import { EAGAIN, EFBIG, EINVAL, ENOBUFS } from '../../src/sys/errno.ts';
import {
  counted,
  R_DEV_TX_BAD,
  R_DRV_DEFRAG,
  R_DRV_IFQ_FULL,
  R_DRV_RING_FULL,
  R_DRV_TX_ERROR,
} from '../../src/sys/reason.ts';
import { mem } from '../../src/vm/arena.ts';
import { payloadBytesRead, payloadReasons } from '../../src/vm/payload.ts';
import { m_freem, m_get, m_getcl, mbEmulator, mbufZones } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_DATA_VALID_IPV6,
  CSUM_IP,
  CSUM_IP6_TCP,
  CSUM_IP6_TSO,
  CSUM_TSO,
  CSUM_IP_CHECKED,
  CSUM_IP_TCP,
  CSUM_IP_TSO,
  CSUM_IP_UDP,
  CSUM_IP_VALID,
  CSUM_PSEUDO_HDR,
  type Mbuf,
  M_EXT,
  M_NOWAIT,
  M_PKTHDR,
  M_VLANTAG,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import {
  bus_dmamap_sync,
  bus_dmamap_unload,
  BUS_DMASYNC_POSTWRITE,
  dmaStats,
} from '../../src/bus/bus_dma.ts';
import {
  IFCAP_RXCSUM,
  IFCAP_RXCSUM_IPV6,
  IFCAP_VLAN_HWTAGGING,
  IFCOUNTER_OERRORS,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_OBYTES,
  IFCOUNTER_OPACKETS,
  IFCOUNTER_OQDROPS,
  IFF_DRV_OACTIVE,
  if_get_counter,
  SIOCSIFCAP,
} from '../../src/net/if_var.ts';
import { TN_BR_SIZE, TN_NSEGS, TN_RX_NDESC, TN_TX_NDESC } from '../../drivers/if_tnvar.ts';
import { dmaTxdrain, dmaTxeof, dmaTxflush } from '../../drivers/dma_tx.ts';
import { tn_encap, tn_rxeof } from '../../drivers/tn_txrx.ts';
import {
  DSTOPTS,
  type ExtHeader,
  FRAGMENT,
  HOPOPTS,
  judge,
  makePacket,
  type PacketOptions,
  payloadBytes,
} from '../dev/judge.ts';
import { segment } from '../dev/segments.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { chainBytes, TnHost } from './tn_host.ts';

const noPayloadRead = (): void =>
  payloadReasons.forEach((name, i) => expect(payloadBytesRead(i), name).to.equal(0));

describe('if_tn: transmit', () => {
  let host: TnHost;

  beforeEach(() => {
    host = new TnHost().up();
  });

  afterEach(() => host.down());

  it('sends an unmapped packet without a CPU read of its payload', () => {
    const frame = makePacket({ payload: 1448, cksum: 'pseudo' });
    const m = host.unmapped(frame, 54, 2904);
    m.m_pkthdr.csum_flags = CSUM_IP | CSUM_IP_TCP;
    expect(host.send(m)).to.deep.equal([0]);
    const got = judge(host.wire.sent[0]!);
    expect([...got.payload]).to.deep.equal([...payloadBytes(1448)]);
    noPayloadRead();
    expect(mbEmulator.unmappedCurrent).to.equal(0);
    expect(if_get_counter(host.ifp, IFCOUNTER_OPACKETS)).to.equal(1);
    expect(if_get_counter(host.ifp, IFCOUNTER_OBYTES)).to.equal(frame.length);
    // Two rings, the receive buffers, and the packet.
    expect(dmaStats.loads).to.equal(2 + TN_RX_NDESC + 1);
  });

  for (const v6 of [false, true])
    it(`sends a TSO packet of 64 KB over IPv${v6 ? 6 : 4} from file pages`, () => {
      const payload = 65_000;
      const frame = makePacket({ payload, v6, cksum: 'tso' });
      const m = host.unmapped(frame, frame.length - payload, 1000, 10);
      // FreeBSD's TCP sets both TSO bits; the driver takes the IP version from the packet.
      m.m_pkthdr.csum_flags = CSUM_TSO | (v6 ? CSUM_IP6_TCP : CSUM_IP | CSUM_IP_TCP);
      m.m_pkthdr.tso_segsz = 1448;
      expect(host.send(m)).to.deep.equal([0]);
      const got = host.wire.sent.map((f) => judge(f));
      expect(got.length).to.equal(Math.ceil(payload / 1448));
      expect(got.flatMap((g) => [...g.payload])).to.deep.equal([...payloadBytes(payload)]);
      noPayloadRead();
    });

  it('sends a UDP checksum, and an IP header checksum alone', () => {
    const udp = host.mapped(makePacket({ payload: 99, udp: true, cksum: 'pseudo' }));
    udp.m_pkthdr.csum_flags = CSUM_IP | CSUM_IP_UDP;
    const full = makePacket({ payload: 20, cksum: 'full' });
    const noIpSum = full.slice();
    noIpSum.fill(0, 24, 26);
    const ip = host.mapped(noIpSum);
    ip.m_pkthdr.csum_flags = CSUM_IP;
    host.send(udp, ip);
    judge(host.wire.sent[0]!);
    expect([...host.wire.sent[1]!]).to.deep.equal([...full]);
  });

  it('inserts a VLAN tag', () => {
    const m = host.mapped(makePacket({ payload: 100, cksum: 'full' }));
    m.m_flags |= M_VLANTAG;
    m.m_pkthdr.ether_vtag = 0xe00a;
    const tso = host.unmapped(makePacket({ payload: 3000, cksum: 'tso' }), 54);
    tso.m_pkthdr.csum_flags = CSUM_IP | CSUM_IP_TCP | CSUM_IP_TSO;
    tso.m_pkthdr.tso_segsz = 1448;
    tso.m_flags |= M_VLANTAG;
    tso.m_pkthdr.ether_vtag = 11;
    host.send(m, tso);
    expect(host.wire.sent.map((f) => judge(f).vtag)).to.deep.equal([0xe00a, 11, 11, 11]);
  });

  it('reads headers that are spread over mbufs, and no payload', () => {
    const frame = makePacket({ payload: 2000, cksum: 'tso', tcpOptions: 12 });
    const hdr = 66;
    const rest = host.unmapped(frame, hdr);
    // Split the header mbuf in three: 14, 20 and 32 bytes.
    const top = host.mapped(frame.subarray(0, 14));
    const ip = m_get(M_NOWAIT, MT_DATA)!;
    mem.set(frame.subarray(14, 34), ip.m_data);
    ip.m_len = 20;
    const tcp = m_get(M_NOWAIT, MT_DATA)!;
    mem.set(frame.subarray(34, hdr), tcp.m_data);
    tcp.m_len = 32;
    top.m_next = ip;
    ip.m_next = tcp;
    tcp.m_next = rest.m_next;
    rest.m_next = null;
    m_freem(rest);
    top.m_pkthdr.len = frame.length;
    top.m_pkthdr.csum_flags = CSUM_IP | CSUM_IP_TCP | CSUM_IP_TSO;
    top.m_pkthdr.tso_segsz = 1000;
    host.send(top);
    const got = host.wire.sent.map((f) => judge(f));
    expect(got.flatMap((g) => [...g.payload])).to.deep.equal([...payloadBytes(2000)]);
    noPayloadRead();
  });

  it('drops and frees packets without the headers that csum_flags needs', () => {
    const bad = makePacket({ payload: 10, udp: true, cksum: 'pseudo' });
    const m = host.mapped(bad);
    m.m_pkthdr.csum_flags = CSUM_IP_TCP; // it is UDP
    const short = host.mapped(bad.subarray(0, 30));
    short.m_pkthdr.csum_flags = CSUM_IP_TCP;
    expect(host.send(m, short)).to.deep.equal([0, 0]);
    expect(counted(R_DRV_TX_ERROR)).to.equal(2);
    expect(if_get_counter(host.ifp, IFCOUNTER_OERRORS)).to.equal(2);
    expect(host.wire.nsent).to.equal(0);
  });

  describe('EFBIG', () => {
    /** `n` mbufs of `size` bytes each after a header mbuf. */
    function chopped(n: number, size: number): [Mbuf, Uint8Array] {
      const frame = makePacket({ payload: n * size, cksum: 'tso' });
      const top = host.mapped(frame.subarray(0, 54));
      top.m_pkthdr.len = frame.length;
      top.m_pkthdr.csum_flags = CSUM_IP | CSUM_IP_TCP | CSUM_IP_TSO;
      top.m_pkthdr.tso_segsz = 1448;
      const spare: Mbuf[] = [];
      let tail = top;
      for (let i = 0; i < n; i++) {
        // Every other mbuf is freed, so that no two of the chain are adjacent in RAM.
        spare.push(m_get(M_NOWAIT, MT_DATA)!);
        const m = m_get(M_NOWAIT, MT_DATA)!;
        mem.set(frame.subarray(54 + i * size, 54 + (i + 1) * size), m.m_data);
        m.m_len = size;
        tail.m_next = m;
        tail = m;
      }
      for (const m of spare) m_freem(m);
      return [top, frame];
    }

    it('collapses the chain', () => {
      const [m] = chopped(TN_NSEGS + 20, 100);
      host.send(m);
      expect(counted(R_DRV_DEFRAG)).to.equal(1);
      expect(dmaStats.defrags).to.equal(1);
      const got = host.wire.sent.map((f) => judge(f));
      expect(got.flatMap((g) => [...g.payload])).to.deep.equal([
        ...payloadBytes((TN_NSEGS + 20) * 100),
      ]);
    });

    /**
     * Unmapped mbufs of 1500 bytes on two scattered pages each: no two of them fit into a cluster,
     * so m_collapse cannot help.
     */
    function pages(): [Mbuf, number] {
      const n = TN_NSEGS / 2 + 1;
      const frame = makePacket({ payload: n * 1500, cksum: 'tso' });
      host.scatter = true;
      const top = host.mapped(frame.subarray(0, 54));
      let tail = top;
      for (let i = 0; i < n; i++) {
        const part = host.unmapped(frame.subarray(54 + i * 1500, 1554 + i * 1500), 0, 3000);
        tail.m_next = part.m_next;
        part.m_next = null;
        m_freem(part);
        tail = tail.m_next!;
      }
      top.m_pkthdr.len = frame.length;
      top.m_pkthdr.csum_flags = CSUM_IP | CSUM_IP_TCP | CSUM_IP_TSO;
      top.m_pkthdr.tso_segsz = 1448;
      return [top, n * 1500];
    }

    it('defragments unmapped pages when m_collapse cannot help, and counts the bytes read', () => {
      const [m, len] = pages();
      host.send(m);
      expect(counted(R_DRV_DEFRAG)).to.equal(1);
      const got = host.wire.sent.map((f) => judge(f));
      expect(got.flatMap((g) => [...g.payload])).to.deep.equal([...payloadBytes(len)]);
      expect(payloadBytesRead(payloadReasons.indexOf('copy'))).to.be.at.least(len);
    });

    it('keeps the defragmented packet in the queue', () => {
      const [m, len] = pages();
      host.wire.room = 0;
      host.send(...Array.from({ length: TN_TX_NDESC - 1 }, () => host.mapped(new Uint8Array(60))));
      host.send(m);
      expect(counted(R_DRV_DEFRAG)).to.equal(0);
      // Three free descriptors: the driver tries to load the packet, but it does not fit.
      host.wire.drain(3);
      host.clock.runPosted();
      expect(counted(R_DRV_DEFRAG)).to.equal(1);
      expect(host.sc.br.used).to.equal(1);
      host.wire.drain(Infinity);
      host.clock.runPosted();
      const got = host.wire.sent.slice(TN_TX_NDESC - 1).map((f) => judge(f));
      expect(got.flatMap((g) => [...g.payload])).to.deep.equal([...payloadBytes(len)]);
    });

    it('drops the packet when there is no memory to defragment it', () => {
      const [m] = chopped(TN_NSEGS + 20, 200);
      mbufZones().clust.failPoint.arm(1, 1000);
      host.send(m);
      mbufZones().clust.failPoint.disarm();
      expect(host.wire.nsent).to.equal(0);
      expect(counted(R_DRV_TX_ERROR)).to.equal(1);
    });

    it('tn_encap leaves the packet to its caller on an error', () => {
      const m = host.mapped(makePacket({ payload: 10, cksum: 'full' }));
      m.m_pkthdr.len = 70_000;
      expect(tn_encap(host.sc, m)).to.equal(EINVAL);
      expect(host.sc.txHead).to.equal(m);
      m_freem(m);
      expect(EFBIG).to.not.equal(EINVAL);
    });
  });

  it('writes the doorbell once per pass', () => {
    let rung = 0;
    const { dev } = host;
    const write = dev.write32.bind(dev);
    dev.write32 = (off, value) => {
      if (off === 0x110) rung++;
      write(off, value);
    };
    host.send(...Array.from({ length: 20 }, () => host.mapped(new Uint8Array(60))));
    expect([rung, host.wire.nsent]).to.deep.equal([1, 20]);
  });

  it('writes the doorbell early when one pass fills the ring', () => {
    const n = TN_TX_NDESC + 100;
    const errors = host.send(...Array.from({ length: n }, () => host.mapped(new Uint8Array(60))));
    expect(errors.every((e) => e === 0)).to.equal(true);
    expect(host.wire.nsent).to.equal(n);
  });

  it('queues when the ring is full, drops when the queue is full, and sends the rest in order', () => {
    host.wire.room = 0;
    const frame = (i: number): Uint8Array => makePacket({ payload: 20, cksum: 'full', ipId: i });
    const fit = TN_TX_NDESC - 1 + TN_BR_SIZE;
    const total = fit + 50;
    const errors = host.send(...Array.from({ length: total }, (_, i) => host.mapped(frame(i))));
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.equal(IFF_DRV_OACTIVE);
    expect(errors.filter((e) => e === ENOBUFS).length).to.equal(50);
    expect(counted(R_DRV_RING_FULL)).to.equal(1);
    expect(counted(R_DRV_IFQ_FULL)).to.equal(50);
    expect(if_get_counter(host.ifp, IFCOUNTER_OQDROPS)).to.equal(50);
    host.wire.drain(100);
    host.clock.runPosted();
    expect(host.wire.nsent).to.equal(100);
    host.wire.drain(Infinity);
    host.clock.runPosted();
    expect(host.wire.nsent).to.equal(fit);
    expect(host.wire.sent.map((f) => judge(f).ipId)).to.deep.equal(
      Array.from({ length: fit }, (_, i) => i),
    );
    expect(host.ifp.if_drv_flags & IFF_DRV_OACTIVE).to.equal(0);
  });

  it('queues a packet of which only a part would fit', () => {
    host.scatter = true;
    host.wire.room = 0;
    const big = (i: number): Mbuf => {
      const frame = makePacket({ payload: 30_000, cksum: 'tso', seq: i });
      const m = host.unmapped(frame, 54);
      m.m_pkthdr.csum_flags = CSUM_IP | CSUM_IP_TCP | CSUM_IP_TSO;
      m.m_pkthdr.tso_segsz = 1448;
      return m;
    };
    const small = Array.from({ length: TN_TX_NDESC - 7 }, () => host.mapped(new Uint8Array(60)));
    expect(host.send(...small, big(1), big(2)).every((e) => e === 0)).to.equal(true);
    expect(host.sc.br.used).to.equal(2);
    host.wire.drain(Infinity);
    host.clock.runPosted();
    expect(host.wire.nsent).to.equal(small.length + 2 * Math.ceil(30_000 / 1448));
    expect(dmaStats.mapsLoaded).to.equal(2 + TN_RX_NDESC);
  });

  it('works across the wrap of its ring counters at 2^32', () => {
    host.sc.txr.prod = 0xffff_fe00;
    host.sc.txr.cons = 0xffff_fe00;
    host.sc.txRung = 0xffff_fe00;
    for (let i = 0; i < 60; i++)
      host.send(
        ...Array.from({ length: 20 }, (_, k) =>
          host.mapped(makePacket({ payload: 1, cksum: 'full', ipId: i * 20 + k })),
        ),
      );
    expect(host.wire.sent.map((f) => judge(f).ipId)).to.deep.equal(
      Array.from({ length: 1200 }, (_, i) => i),
    );
    expect(host.sc.txr.prod).to.be.below(2000);
  });

  it('passes each frame to bpf listeners before it is on the wire', () => {
    const log: string[] = [];
    host.ifp.if_bpf = {
      listeners: 1,
      mtap: (m, out) => log.push(`${m.m_pkthdr.len} ${out} ${host.wire.nsent}`),
    };
    host.send(host.mapped(new Uint8Array(60)), host.mapped(new Uint8Array(61)));
    expect(log).to.deep.equal(['60 true 0', '61 true 0']);
    host.ifp.if_bpf = null;
  });

  for (const v6 of [false, true])
    it(`leaves no garbage, from mbuf to wire and back to the pool, IPv${v6 ? 6 : 4}`, () => {
      const frame = makePacket({ v6, payload: 1400, cksum: 'pseudo' });
      host.wire.keep = false;
      const { sc } = host;
      // The interrupt stays pending, so that the event loop's queues are not measured.
      const bytes = bytesPerCall(() => {
        const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
        mem.set(frame, m.m_data);
        m.m_len = frame.length;
        m.m_pkthdr.len = frame.length;
        m.m_pkthdr.csum_flags = v6 ? CSUM_IP6_TCP : CSUM_IP | CSUM_IP_TCP;
        tn_encap(sc, m);
        dmaTxflush(sc);
        dmaTxeof(sc);
      });
      host.clock.runPosted();
      expect(bytes).to.be.below(8);
      expect(host.wire.nsent).to.be.above(100_000);
    }).timeout(60_000);

  for (const v6 of [false, true])
    it(`tn_encap leaves no garbage over a chain of pages, IPv${v6 ? 6 : 4}`, () => {
      const m = host.unmapped(makePacket({ v6, payload: 20_000, cksum: 'tso' }), v6 ? 74 : 54, 100);
      m.m_pkthdr.csum_flags = v6
        ? CSUM_IP6_TCP | CSUM_IP6_TSO
        : CSUM_IP | CSUM_IP_TCP | CSUM_IP_TSO;
      m.m_pkthdr.tso_segsz = 1448;
      const { sc } = host;
      const bytes = bytesPerCall(() => {
        tn_encap(sc, m);
        // Take the packet off the ring without freeing it, so that the next call can send it again.
        const first = sc.txr.slot(sc.txr.cons);
        bus_dmamap_sync(sc.txTag, sc.txMap[first]!, BUS_DMASYNC_POSTWRITE);
        bus_dmamap_unload(sc.txTag, sc.txMap[first]!);
        sc.txFree.push(sc.txMap[first]!);
        sc.txMbuf[first] = null;
        sc.txr.consume(sc.txNdesc[first]!);
      });
      expect(bytes).to.be.below(8);
      dmaTxdrain(sc);
      m_freem(m);
      expect(counted(R_DEV_TX_BAD)).to.equal(0);
    }).timeout(60_000);
});

describe('if_tn: receive', () => {
  let host: TnHost;

  beforeEach(() => {
    host = new TnHost().up();
  });

  afterEach(() => host.down());

  const inject = (...frames: Uint8Array[]): void => {
    host.wire.inject(...frames);
    host.clock.runPosted();
  };

  it('passes received frames to the stack, and copies small ones', () => {
    const big = makePacket({ payload: 1400, cksum: 'full' });
    const small = makePacket({ payload: 10, cksum: 'full' });
    inject(big, small);
    const [a, b] = host.received;
    expect([...chainBytes(a!)]).to.deep.equal([...big]);
    expect([...chainBytes(b!)]).to.deep.equal([...small]);
    expect([a!.m_pkthdr.len, a!.m_pkthdr.rcvif]).to.deep.equal([big.length, host.ifp]);
    // A small frame is copied, and its cluster stays in the ring.
    expect([a!.m_flags & M_EXT, b!.m_flags & M_EXT]).to.deep.equal([M_EXT, 0]);
    expect(if_get_counter(host.ifp, IFCOUNTER_IPACKETS)).to.equal(2);
  });

  for (const v6 of [false, true])
    it(`leaves no garbage, from wire to mbuf and back to the pool, IPv${v6 ? 6 : 4}`, () => {
      // A wire that copies the same frame from the arena each time, and allocates nothing.
      const frame = makePacket({ v6, payload: 1400, cksum: 'full' });
      const keep = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
      mem.set(frame, keep.m_data);
      let left = 0;
      host.wire.readv = (iov) => {
        if (left-- <= 0) return -EAGAIN;
        mem.copyWithin(iov[0]!, keep.m_data, keep.m_data + frame.length);
        return frame.length;
      };
      let n = 0;
      host.ifp.if_input = (_ifp, m) => {
        n++;
        m_freem(m);
      };
      const bytes = bytesPerCall(() => {
        left = 1;
        host.wire.notify();
        tn_rxeof(host.sc, 1);
      });
      host.clock.runPosted();
      expect(bytes).to.be.below(8);
      expect(n).to.be.above(100_000);
      m_freem(keep);
    }).timeout(60_000);

  for (const v6 of [false, true])
    it(`leaves no garbage when the NIC coalesces segments, IPv${v6 ? 6 : 4}`, () => {
      // Three consecutive segments per call.
      const frames = [0, 1, 2].map((i) =>
        segment({ v6, payload: 1001, seq: 0xfffff000 + i * 1001 }),
      );
      const keep = frames.map((frame) => {
        const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
        mem.set(frame, m.m_data);
        return m;
      });
      const { length } = frames[0]!;
      let left = 0;
      host.wire.readv = (iov) => {
        if (left === 0) return -EAGAIN;
        const from = keep[3 - left--]!.m_data;
        mem.copyWithin(iov[0]!, from, from + length);
        return length;
      };
      let n = 0;
      let segs = 0;
      host.ifp.if_input = (_ifp, m) => {
        n++;
        segs += m.m_pkthdr.lro_nsegs;
        m_freem(m);
      };
      const bytes = bytesPerCall(() => {
        left = 3;
        host.wire.notify();
        tn_rxeof(host.sc, 2);
      });
      host.clock.runPosted();
      expect(bytes).to.be.below(8);
      expect(n).to.be.above(100_000);
      expect(segs).to.equal(3 * n);
      keep.forEach((m) => m_freem(m));
    }).timeout(60_000);

  it('passes coalesced segments up as one packet, with their number in lro_nsegs', () => {
    const frames = Array.from({ length: 12 }, (_, i) =>
      segment({ payload: 1448, seq: 1 + i * 1448, ts: [i, 1] }),
    );
    host.wire.readable = false;
    host.wire.inject(...frames);
    host.wire.readable = true;
    host.wire.notify();
    host.clock.runPosted();
    expect(host.received.length).to.equal(1);
    const m = host.received[0]!;
    const got = judge(chainBytes(m));
    const sent = frames.flatMap((frame) => [...judge(frame).payload]);
    expect([...got.payload]).to.deep.equal(sent);
    expect([m.m_pkthdr.len, m.m_pkthdr.lro_nsegs]).to.deep.equal([66 + 12 * 1448, 12]);
    const good = CSUM_DATA_VALID | CSUM_PSEUDO_HDR | CSUM_IP_CHECKED | CSUM_IP_VALID;
    expect(m.m_pkthdr.csum_flags).to.equal(good);
    expect(if_get_counter(host.ifp, IFCOUNTER_IPACKETS)).to.equal(1);
  });

  it('receives over many rounds of its ring', () => {
    for (let i = 0; i < 30; i++) {
      const frames = Array.from({ length: 50 }, (_, k) =>
        makePacket({ payload: 100 + k, cksum: 'full', ipId: i * 50 + k }),
      );
      inject(...frames);
      host.received.forEach((m, k) => {
        expect([...chainBytes(m)]).to.deep.equal([...frames[k]!]);
        m_freem(m);
      });
      host.received.length = 0;
    }
    expect(if_get_counter(host.ifp, IFCOUNTER_IPACKETS)).to.equal(1500);
  });

  it('receives a burst longer than its ring', () => {
    const n = 3 * TN_RX_NDESC;
    inject(
      ...Array.from({ length: n }, (_, i) => makePacket({ payload: 6, cksum: 'full', ipId: i })),
    );
    expect(host.received.map((m) => judge(chainBytes(m)).ipId)).to.deep.equal(
      Array.from({ length: n }, (_, i) => i),
    );
  });

  it('sets csum_flags from the checksum verdicts of the NIC', () => {
    const good = CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
    const ip = CSUM_IP_CHECKED | CSUM_IP_VALID;
    inject(
      makePacket({ payload: 10, cksum: 'full' }),
      makePacket({ payload: 10, v6: true, cksum: 'full' }),
      makePacket({ payload: 10, cksum: 'full', spoil: 1 }),
    );
    expect(host.received.map((m) => m.m_pkthdr.csum_flags)).to.deep.equal([ip | good, good, ip]);
    expect(host.received[0]!.m_pkthdr.csum_data).to.equal(0xffff);
    host.ioctl(SIOCSIFCAP, host.ifp.if_capenable & ~IFCAP_RXCSUM);
    inject(makePacket({ payload: 10, cksum: 'full' }));
    inject(makePacket({ payload: 10, v6: true, cksum: 'full' }));
    expect(host.received.slice(3).map((m) => m.m_pkthdr.csum_flags)).to.deep.equal([0, good]);
    host.ioctl(SIOCSIFCAP, (host.ifp.if_capenable | IFCAP_RXCSUM) & ~IFCAP_RXCSUM_IPV6);
    inject(makePacket({ payload: 10, cksum: 'full' }));
    inject(makePacket({ payload: 10, v6: true, cksum: 'full' }));
    expect(host.received.slice(5).map((m) => m.m_pkthdr.csum_flags)).to.deep.equal([ip | good, 0]);
  });

  it('sets csum_flags of IPv6 packets with extension headers, and not those of fragments', () => {
    const at = (exts: ExtHeader[], o: Partial<PacketOptions> = {}): void =>
      inject(makePacket({ payload: 10, v6: true, cksum: 'full', exts, ...o }));
    at([{ type: HOPOPTS }, { type: DSTOPTS }]);
    at([{ type: HOPOPTS }, { type: DSTOPTS }], { udp: true });
    at([{ type: DSTOPTS }], { spoil: 1 });
    at([{ type: FRAGMENT }]);
    const good = CSUM_DATA_VALID_IPV6 | CSUM_PSEUDO_HDR;
    expect(host.received.map((m) => m.m_pkthdr.csum_flags)).to.deep.equal([good, good, 0, 0]);
    expect(host.received[1]!.m_pkthdr.csum_data).to.equal(0xffff);
  });

  it('moves VLAN tags to ether_vtag, or leaves them in the frame without VLAN_HWTAGGING', () => {
    inject(makePacket({ payload: 300, vlan: 0x200a, cksum: 'full' }));
    const m = host.received[0]!;
    expect(m.m_flags & M_VLANTAG).to.equal(M_VLANTAG);
    expect(m.m_pkthdr.ether_vtag).to.equal(0x200a);
    expect([...chainBytes(m)]).to.deep.equal([...makePacket({ payload: 300, cksum: 'full' })]);
    host.ioctl(SIOCSIFCAP, host.ifp.if_capenable & ~IFCAP_VLAN_HWTAGGING);
    inject(makePacket({ payload: 300, vlan: 0x200a, cksum: 'full' }));
    expect(host.received[1]!.m_flags & M_VLANTAG).to.equal(0);
  });
});

describe('if_tn in mode vnet', () => {
  it('sends super-frames and receives', () => {
    const host = new TnHost('vnet').up();
    const frame = makePacket({ payload: 60_000, cksum: 'tso' });
    const m = host.unmapped(frame, 54, 7);
    m.m_pkthdr.csum_flags = CSUM_IP | CSUM_IP_TCP | CSUM_IP_TSO;
    m.m_pkthdr.tso_segsz = 1448;
    host.send(m);
    expect(host.wire.sent.map((f) => f.length)).to.deep.equal([12 + frame.length]);
    expect([...host.wire.sent[0]!.subarray(66)]).to.deep.equal([...payloadBytes(60_000)]);
    noPayloadRead();
    host.wire.inject(makePacket({ payload: 1000, cksum: 'full' }));
    host.clock.runPosted();
    expect(host.received.length).to.equal(1);
    // An unsegmented TSO packet from Linux, longer than the MTU. lro_nsegs makes the stack accept
    // it.
    const big = makePacket({ payload: 60_000, cksum: 'full' });
    const hdr = [1, 1, 54, 0, 1448 & 255, 1448 >> 8, 34, 0, 16, 0, 0, 0];
    host.wire.injectRaw(Uint8Array.from([...hdr, ...big]));
    host.clock.runPosted();
    const got = host.received[1]!;
    expect([got.m_pkthdr.len, got.m_pkthdr.lro_nsegs]).to.deep.equal([big.length, 42]);
    expect([...chainBytes(got)]).to.deep.equal([...big]);
    host.down();
  });

  for (const v6 of [false, true])
    it(`${v6 ? '-rxcsum6' : '-rxcsum'}: the stack gets complete checksums, those of the other family are verified`, () => {
      const host = new TnHost('vnet').up();
      const off = v6 ? IFCAP_RXCSUM_IPV6 : IFCAP_RXCSUM;
      expect(host.ioctl(SIOCSIFCAP, host.ifp.if_capenable & ~off)).to.equal(0);
      for (const six of [false, true]) {
        const full = makePacket({ payload: 400, v6: six, cksum: 'full' });
        const l4 = six ? 54 : 34;
        // As Linux sends it: the checksum field holds the pseudo-header's sum.
        const left = makePacket({ payload: 400, v6: six, cksum: 'pseudo' });
        left.set(full.subarray(0, l4));
        host.wire.injectRaw(Uint8Array.from([1, 0, 0, 0, 0, 0, l4, 0, 16, 0, 0, 0, ...left]));
        host.clock.runPosted();
        const m = host.received.at(-1)!;
        const verified = six !== v6;
        expect((m.m_pkthdr.csum_flags & CSUM_DATA_VALID) !== 0).to.equal(verified);
        expect(chainBytes(m)).to.deep.equal(verified ? left : full);
      }
      host.down();
    });
});
