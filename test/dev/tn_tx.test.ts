import { expect } from 'chai';
import { EINVAL, EIO } from '../../src/sys/errno.ts';
import {
  counted,
  R_DEV_DMA_FAULT,
  R_DEV_LINK_DOWN,
  R_DEV_TX_BAD,
  R_DEV_WIRE_ERROR,
} from '../../src/sys/reason.ts';
import {
  TN_ICR,
  TN_IMS,
  TN_INT_TXDW,
  TN_INT_TXERR,
  TN_ST_TX_BAD,
  TN_ST_TX_FRAMES,
  TN_ST_TX_SEGMENTS,
  TN_ST_TX_TSO,
  TN_ST_TX_WIRE_FULL,
  TN_STATUS,
  TN_STATUS_TXSTOP,
  TN_TDH,
  TN_TX_BUDGET,
  TN_TX_SEGS,
  TN_TXD_EOP,
  TN_TXD_IXSM,
  TN_TXD_RS,
  TN_TXD_TCP,
  TN_TXD_TSE,
  TN_TXD_TXSM,
  TN_TXD_V6,
  TN_TXD_VLE,
  TN_TXS_DD,
  TN_TXS_ERR,
} from '../../src/dev/tn/tnreg.ts';
import { judge, makePacket, payloadBytes } from './judge.ts';
import { Rig, TX_DATA } from './tn_rig.ts';

const TSO4 = { cmd: TN_TXD_TSE | TN_TXD_TCP, l3: 20, l4: 20 };
const joined = (parts: Uint8Array[]): number[] => parts.flatMap((p) => [...p]);

describe('tn: transmit', () => {
  it('gathers a frame from its descriptors unchanged, and reports DD and TXDW', () => {
    const rig = new Rig().start();
    const frame = makePacket({ payload: 100, cksum: 'full' });
    const slot = rig.packet(frame, [14, 1, 30]);
    rig.doorbell();
    expect(rig.wire.sent).to.deep.equal([frame]);
    expect(rig.wire.pieces).to.deep.equal([4]);
    expect(rig.txStatus(slot)).to.equal(TN_TXS_DD);
    expect(rig.r(TN_TDH)).to.equal(rig.tail);
    expect(rig.r(TN_ICR) & TN_INT_TXDW).to.equal(TN_INT_TXDW);
    // No cause is unmasked yet.
    expect(rig.line.raised).to.equal(0);
    rig.w(TN_IMS, TN_INT_TXDW);
    expect(rig.line.raised).to.equal(1);
  });

  it('pads short frames to 60 bytes with zeros', () => {
    const rig = new Rig().start();
    rig.packet(makePacket({ payload: 0, cksum: 'full' }));
    rig.doorbell();
    expect(rig.wire.sent[0]!.length).to.equal(60);
    expect([...rig.wire.sent[0]!.subarray(54)]).to.deep.equal([0, 0, 0, 0, 0, 0]);
    judge(rig.wire.sent[0]!);
  });

  describe('checksums', () => {
    for (const v6 of [false, true])
      for (const udp of [false, true])
        for (const payload of [0, 1, 2, 7, 999, 1400])
          it(`${udp ? 'UDP' : 'TCP'} over IPv${v6 ? 6 : 4}, ${payload} bytes in odd pieces`, () => {
            const rig = new Rig().start();
            const cmd = TN_TXD_TXSM | (udp ? 0 : TN_TXD_TCP) | (v6 ? TN_TXD_V6 : TN_TXD_IXSM);
            rig.context({ cmd, l3: v6 ? 40 : 20, l4: udp ? 8 : 20 });
            const frame = makePacket({ payload, v6, udp, cksum: 'pseudo' });
            const hdr = frame.length - payload;
            rig.packet(frame, payload > 4 ? [hdr - 3, 4, 1] : [hdr]);
            rig.doorbell();
            const got = judge(rig.wire.sent[0]!);
            expect([...got.payload]).to.deep.equal([...payloadBytes(payload)]);
          });

    it('with IP and TCP options', () => {
      const rig = new Rig().start();
      rig.context({ cmd: TN_TXD_TXSM | TN_TXD_TCP | TN_TXD_IXSM, l3: 28, l4: 32 });
      rig.packet(makePacket({ payload: 55, ipOptions: 8, tcpOptions: 12, cksum: 'pseudo' }));
      rig.doorbell();
      judge(rig.wire.sent[0]!);
    });

    it('a UDP checksum of 0 is sent as 0xffff', () => {
      const rig = new Rig().start();
      const frame = makePacket({ payload: 2, udp: true, cksum: 'pseudo' });
      // This payload makes the sum 0xffff, whose complement is 0.
      const full = makePacket({ payload: 2, udp: true, cksum: 'full' });
      const sum = full[40]! * 256 + full[41]!;
      const old = frame[42]! * 256 + frame[43]!;
      const word = (old + sum) % 0xffff;
      frame[42] = word >>> 8;
      frame[43] = word & 0xff;
      rig.context({ cmd: TN_TXD_TXSM | TN_TXD_IXSM, l3: 20, l4: 8 });
      rig.packet(frame);
      rig.doorbell();
      const sent = rig.wire.sent[0]!;
      expect(sent[40]! * 256 + sent[41]!).to.equal(0xffff);
      judge(sent);
    });

    it('the IP header checksum alone', () => {
      const rig = new Rig().start();
      const frame = makePacket({ payload: 40, udp: true, cksum: 'pseudo' });
      rig.context({ cmd: TN_TXD_IXSM, l3: 20, l4: 0 });
      rig.packet(frame);
      rig.doorbell();
      const sent = rig.wire.sent[0]!;
      expect([...sent.subarray(34)]).to.deep.equal([...frame.subarray(34)]);
      expect(sent[24]! * 256 + sent[25]!).to.not.equal(0);
    });
  });

  describe('TSO', () => {
    for (const v6 of [false, true])
      for (const [payload, mss] of [
        [65495 - (v6 ? 20 : 0), 1460],
        [4000, 1000],
        [1001, 1000],
        [100, 1460],
        [1, 536],
      ] as const)
        it(`cuts ${payload} bytes over IPv${v6 ? 6 : 4} into segments of ${mss}`, () => {
          const rig = new Rig().start();
          rig.context({ ...TSO4, cmd: TSO4.cmd | (v6 ? TN_TXD_V6 : 0), l3: v6 ? 40 : 20, mss });
          const frame = makePacket({
            payload,
            v6,
            cksum: 'tso',
            seq: 0xffff_ff00,
            ipId: 0xfffe,
            thFlags: 0x99, // CWR, ACK, PSH, FIN
          });
          const hdr = frame.length - payload;
          const cuts = [hdr];
          for (let at = 0; at + 4096 < payload; at += 4096) cuts.push(at === 0 ? 3001 : 4096);
          const slot = rig.packet(frame, cuts);
          rig.doorbell();
          const n = Math.ceil(payload / mss);
          const got = rig.wire.sent.map((f) => judge(f));
          expect(got.length).to.equal(n);
          expect(joined(got.map((g) => g.payload))).to.deep.equal([...payloadBytes(payload)]);
          got.forEach((g, i) => {
            expect(g.payload.length).to.equal(i < n - 1 ? mss : payload - (n - 1) * mss);
            expect(g.seq).to.equal((0xffff_ff00 + i * mss) % 2 ** 32);
            if (!v6) expect(g.ipId).to.equal((0xfffe + i) % 65536);
            const fin = i === n - 1 ? 0x09 : 0;
            expect(g.thFlags, `flags of segment ${i}`).to.equal(0x10 | fin | (i === 0 ? 0x80 : 0));
          });
          expect(rig.txStatus(slot)).to.equal(TN_TXS_DD);
          expect(rig.dev.stats[TN_ST_TX_TSO]).to.equal(1);
          expect(rig.dev.stats[TN_ST_TX_SEGMENTS]).to.equal(n);
        });

    it('resumes at the next segment after the wire was full in the middle of a packet', () => {
      const rig = new Rig().start();
      rig.wire.room = 3;
      rig.context({ ...TSO4, mss: 1000 });
      const slot = rig.packet(makePacket({ payload: 10_000, cksum: 'tso' }), [54, 777, 4096]);
      const next = rig.packet(makePacket({ payload: 10, cksum: 'full' }));
      rig.doorbell();
      expect([rig.wire.nsent, rig.wire.armed]).to.deep.equal([3, 1]);
      expect(rig.txStatus(slot) & TN_TXS_DD).to.equal(0);
      // Another doorbell neither tries again nor sends a later packet.
      rig.doorbell();
      expect(rig.dev.stats[TN_ST_TX_WIRE_FULL]).to.equal(1);
      rig.wire.drain(1);
      expect(rig.wire.nsent).to.equal(4);
      rig.wire.drain(100);
      expect(rig.wire.nsent).to.equal(11);
      const got = rig.wire.sent.map((f) => judge(f));
      expect(joined(got.slice(0, 10).map((g) => g.payload))).to.deep.equal([
        ...payloadBytes(10_000),
      ]);
      expect(rig.txStatus(slot)).to.equal(TN_TXS_DD);
      expect(rig.txStatus(next)).to.equal(TN_TXS_DD);
    });

    it('emits at most 256 frames per doorbell, and the rest in later turns', () => {
      const rig = new Rig().start();
      for (let i = 0; i < 6; i++) {
        rig.context({ ...TSO4, mss: 100 });
        rig.packet(makePacket({ payload: 10_000, cksum: 'tso' }));
      }
      rig.doorbell();
      expect(rig.wire.nsent).to.equal(TN_TX_BUDGET);
      rig.clock.runPosted();
      expect(rig.wire.nsent).to.equal(600);
      rig.wire.sent.forEach((f) => judge(f));
    });
  });

  describe('VLAN', () => {
    it('inserts the tag into a plain frame', () => {
      const rig = new Rig().start();
      const frame = makePacket({ payload: 100, cksum: 'full' });
      rig.packet(frame, [6, 20], TN_TXD_VLE, 0x2064);
      rig.doorbell();
      expect(judge(rig.wire.sent[0]!).vtag).to.equal(0x2064);
      expect([...rig.wire.sent[0]!.subarray(16)]).to.deep.equal([...frame.subarray(12)]);
    });

    it('inserts the tag into a frame whose checksum it computes, and into every TSO segment', () => {
      const rig = new Rig().start();
      rig.context({ cmd: TN_TXD_TXSM | TN_TXD_TCP | TN_TXD_IXSM, l3: 20, l4: 20 });
      rig.packet(makePacket({ payload: 100, cksum: 'pseudo' }), [54], TN_TXD_VLE, 7);
      rig.context({ ...TSO4, mss: 600 });
      rig.packet(makePacket({ payload: 1500, cksum: 'tso' }), [54], TN_TXD_VLE, 8);
      rig.doorbell();
      const got = rig.wire.sent.map((f) => judge(f));
      expect(got.map((g) => [g.vtag, g.payload.length])).to.deep.equal([
        [7, 100],
        [8, 600],
        [8, 600],
        [8, 300],
      ]);
    });

    it('computes the checksum of a frame that already has a tag', () => {
      const rig = new Rig().start();
      rig.context({ cmd: TN_TXD_TXSM | TN_TXD_TCP | TN_TXD_IXSM, l2: 18, l3: 20, l4: 20 });
      rig.packet(makePacket({ payload: 100, vlan: 5, cksum: 'pseudo' }));
      rig.doorbell();
      expect(judge(rig.wire.sent[0]!).vtag).to.equal(5);
    });
  });

  describe('mode vnet', () => {
    const le16 = (b: Uint8Array, off: number): number => b[off]! + 256 * b[off + 1]!;
    const hdr = (f: Uint8Array): number[] => [
      f[0]!,
      f[1]!,
      le16(f, 2),
      le16(f, 4),
      le16(f, 6),
      le16(f, 8),
      le16(f, 10),
    ];

    it('leaves the TCP checksum to the peer, with the pseudo-header sum in the field', () => {
      const rig = new Rig({ mode: 'vnet' }).start();
      rig.context({ cmd: TN_TXD_TXSM | TN_TXD_TCP | TN_TXD_IXSM, l3: 20, l4: 20 });
      const frame = makePacket({ payload: 1000, cksum: 'pseudo' });
      rig.packet(frame, [54, 500]);
      rig.doorbell();
      const sent = rig.wire.sent[0]!;
      expect(hdr(sent)).to.deep.equal([1, 0, 0, 0, 34, 16, 0]);
      const full = makePacket({ payload: 1000, cksum: 'full' });
      // Only the IP header checksum has been filled in.
      expect([...sent.subarray(12, 12 + 34)]).to.deep.equal([...full.subarray(0, 34)]);
      expect([...sent.subarray(12 + 34)]).to.deep.equal([...frame.subarray(34)]);
    });

    for (const v6 of [false, true])
      it(`sends a TSO packet over IPv${v6 ? 6 : 4} unsegmented, with the full length in the pseudo-header sum`, () => {
        const rig = new Rig({ mode: 'vnet' }).start();
        const l3 = v6 ? 40 : 20;
        rig.context({ cmd: TSO4.cmd | (v6 ? TN_TXD_V6 : 0), l3, l4: 20, mss: 1448 });
        rig.packet(makePacket({ payload: 30_000, v6, cksum: 'tso' }), [14 + l3 + 20, 8000, 8000]);
        rig.doorbell();
        const sent = rig.wire.sent[0]!;
        const l4 = 14 + l3;
        expect(hdr(sent)).to.deep.equal([1, v6 ? 4 : 1, l4 + 20, 1448, l4, 16, 0]);
        const want = makePacket({ payload: 30_000, v6, cksum: 'pseudo' });
        if (!v6) want.set(makePacket({ payload: 30_000, cksum: 'full' }).subarray(24, 26), 24);
        expect([...sent.subarray(12)]).to.deep.equal([...want]);
      });

    it('sets the ECN flag for CWR, and no GSO type for a packet of one segment', () => {
      const rig = new Rig({ mode: 'vnet' }).start();
      rig.context({ ...TSO4, mss: 1000 });
      rig.packet(makePacket({ payload: 1001, cksum: 'tso', thFlags: 0x90 }));
      rig.context({ ...TSO4, mss: 1000 });
      rig.packet(makePacket({ payload: 1000, cksum: 'tso' }));
      rig.doorbell();
      expect(hdr(rig.wire.sent[0]!)).to.deep.equal([1, 0x81, 54, 1000, 34, 16, 0]);
      expect(hdr(rig.wire.sent[1]!)).to.deep.equal([1, 0, 0, 0, 34, 16, 0]);
    });

    it('clears the header of a frame without offloads, and adds an inserted tag to csum_start', () => {
      const rig = new Rig({ mode: 'vnet' }).start();
      rig.context({ cmd: TN_TXD_TXSM | TN_TXD_TCP, l3: 20, l4: 20 });
      rig.packet(makePacket({ payload: 10, cksum: 'pseudo' }), [], TN_TXD_VLE, 9);
      rig.packet(makePacket({ payload: 10, cksum: 'full' }));
      rig.doorbell();
      expect(hdr(rig.wire.sent[0]!)).to.deep.equal([1, 0, 0, 0, 38, 16, 0]);
      expect(hdr(rig.wire.sent[1]!)).to.deep.equal([0, 0, 0, 0, 0, 0, 0]);
    });
  });

  describe('driver errors', () => {
    /**
     * Sends the packet that `make` queues and a good one after it. Expects the first to be dropped
     * and the second to be sent.
     */
    function expectDropped(rig: Rig, make: () => number): void {
      const slot = make();
      const good = makePacket({ payload: 77, cksum: 'full' });
      rig.packet(good);
      rig.doorbell();
      expect(rig.txStatus(slot), 'status').to.equal((TN_TXS_DD | TN_TXS_ERR) >>> 0);
      expect(rig.wire.sent).to.deep.equal([good]);
      expect(rig.dev.stats[TN_ST_TX_BAD]).to.equal(1);
      expect(counted(R_DEV_TX_BAD)).to.equal(1);
      expect(rig.r(TN_ICR) & TN_INT_TXERR).to.equal(TN_INT_TXERR);
    }
    const last = TN_TXD_EOP | TN_TXD_RS;
    const pkt = (): Uint8Array => makePacket({ payload: 2000, cksum: 'tso' });
    const cases: Record<string, (rig: Rig) => number> = {
      'a length of 0': (rig) => {
        rig.data(TX_DATA, 100, 0);
        rig.data(TX_DATA, 0, 0);
        return rig.data(TX_DATA, 100, last);
      },
      'less than an Ethernet header': (rig) => rig.data(TX_DATA, 13, last),
      'an address past RAM': (rig) => rig.data(16 << 20, 100, last),
      'a buffer that ends past RAM': (rig) => rig.data((16 << 20) - 99, 100, last),
      'an address in frame 0': (rig) => rig.data(64, 100, last),
      'an address of all ones': (rig) => rig.desc([-1, -1, 100, last]),
      'a frame above 9216 bytes': (rig) => rig.data(TX_DATA, 9217, last),
      'a context without data': (rig) => rig.desc([0, 0, 0, 0x4 | last]),
      'a second context': (rig) => {
        rig.context({ ...TSO4, mss: 1000 });
        rig.context({ ...TSO4, mss: 1000 });
        return rig.packet(pkt());
      },
      'an MSS of 0': (rig) => {
        rig.context({ ...TSO4, mss: 0 });
        return rig.packet(pkt());
      },
      'an MSS that makes jumbo frames above the limit': (rig) => {
        rig.context({ ...TSO4, mss: 9200 });
        return rig.packet(pkt());
      },
      'TSO of UDP': (rig) => {
        rig.context({ cmd: TN_TXD_TSE, l3: 20, l4: 8, mss: 1000 });
        return rig.packet(pkt());
      },
      'TSO without payload': (rig) => {
        rig.context({ ...TSO4, mss: 1000 });
        return rig.packet(makePacket({ payload: 0, cksum: 'tso' }));
      },
      'TSO of more than 64 KB': (rig) => {
        rig.context({ ...TSO4, mss: 1000 });
        rig.data(TX_DATA, 60_000, 0);
        return rig.data(TX_DATA, 6000, last);
      },
      'headers longer than the packet': (rig) => {
        rig.context({ cmd: TN_TXD_TXSM | TN_TXD_TCP, l3: 60, l4: 60 });
        return rig.packet(makePacket({ payload: 0, cksum: 'pseudo' }));
      },
      'an IP header of 16 bytes': (rig) => {
        rig.context({ cmd: TN_TXD_IXSM, l3: 16, l4: 0 });
        return rig.packet(pkt());
      },
      'headers above 256 bytes': (rig) => {
        rig.context({ cmd: TN_TXD_TXSM | TN_TXD_TCP | TN_TXD_V6, l3: 508, l4: 20 });
        return rig.packet(pkt());
      },
      'more than 64 descriptors': (rig) => rig.packet(pkt(), Array(TN_TX_SEGS).fill(20)),
    };
    for (const [what, make] of Object.entries(cases))
      it(`${what}: counted, reported, dropped`, () => {
        const rig = new Rig().start();
        expectDropped(rig, () => make(rig));
      });

    it('a packet of 64 descriptors is sent', () => {
      const rig = new Rig().start();
      const frame = makePacket({ payload: 2000, cksum: 'full' });
      rig.packet(frame, Array(TN_TX_SEGS - 1).fill(20));
      rig.doorbell();
      expect(rig.wire.sent).to.deep.equal([frame]);
    });

    it('waits for the descriptor with EOP', () => {
      const rig = new Rig().start();
      const frame = makePacket({ payload: 100, cksum: 'full' });
      rig.packet(frame, [50]);
      const tail = rig.tail;
      rig.tail = tail - 1;
      rig.doorbell();
      expect([rig.wire.nsent, rig.dev.stats[TN_ST_TX_BAD]]).to.deep.equal([0, 0]);
      rig.tail = tail;
      rig.doorbell();
      expect(rig.wire.sent).to.deep.equal([frame]);
    });

    it('a full ring without EOP is dropped, up to the next packet', () => {
      const rig = new Rig({ ntx: 8 }).start();
      for (let i = 0; i < 7; i++) rig.data(TX_DATA, 100, 0);
      rig.doorbell();
      expect(rig.dev.stats[TN_ST_TX_BAD]).to.equal(1);
      // The end of the bad packet, and a good packet.
      const end = rig.data(TX_DATA, 100, TN_TXD_EOP | TN_TXD_RS);
      rig.packet(makePacket({ payload: 7, cksum: 'full' }));
      rig.doorbell();
      expect(rig.txStatus(end)).to.equal((TN_TXS_DD | TN_TXS_ERR) >>> 0);
      expect(rig.wire.nsent).to.equal(1);
      expect(rig.dev.stats[TN_ST_TX_BAD]).to.equal(1);
    });

    it('a ring outside RAM stops the engine', () => {
      const rig = new Rig({ base: 0 });
      rig.w(0x100, 0xffff_0000);
      rig.w(0x108, 4096);
      rig.w(0x004, 0x2);
      rig.w(0x110, 5);
      expect(rig.r(TN_STATUS) & TN_STATUS_TXSTOP).to.equal(TN_STATUS_TXSTOP);
      expect(rig.r(TN_ICR) & TN_INT_TXERR).to.equal(TN_INT_TXERR);
      expect(counted(R_DEV_DMA_FAULT)).to.equal(1);
    });
  });

  describe('wire failures', () => {
    it('a frame that the wire refuses is lost with the rest of its TSO packet, and counted', () => {
      const rig = new Rig().start();
      rig.wire.error = -EINVAL;
      rig.context({ ...TSO4, mss: 1000 });
      const slot = rig.packet(makePacket({ payload: 5000, cksum: 'tso' }));
      rig.doorbell();
      expect(rig.txStatus(slot)).to.equal(TN_TXS_DD);
      expect(counted(R_DEV_WIRE_ERROR)).to.equal(1);
      rig.wire.error = -EIO;
      rig.packet(makePacket({ payload: 5, cksum: 'full' }));
      rig.doorbell();
      expect(counted(R_DEV_WIRE_ERROR)).to.equal(2);
      expect(rig.dev.stats[TN_ST_TX_FRAMES]).to.equal(0);
    });

    it('a link that goes down drops every frame, also one that waits for room', () => {
      const rig = new Rig().start();
      rig.wire.room = 1;
      rig.packet(makePacket({ payload: 1, cksum: 'full' }));
      const slot = rig.packet(makePacket({ payload: 2, cksum: 'full' }));
      rig.doorbell();
      expect(rig.txStatus(slot) & TN_TXS_DD).to.equal(0);
      rig.wire.listener!.wireState(false, 0);
      expect(rig.txStatus(slot)).to.equal(TN_TXS_DD);
      expect(counted(R_DEV_LINK_DOWN)).to.equal(1);
      expect(rig.r(TN_STATUS) & 1).to.equal(0);
      rig.wire.room = 100;
      rig.wire.listener!.wireState(true, 0);
      rig.packet(makePacket({ payload: 3, cksum: 'full' }));
      rig.doorbell();
      expect(rig.wire.nsent).to.equal(2);
    });
  });

  it('sends in order over many wraps of the ring', () => {
    const rig = new Rig({ ntx: 8 }).start();
    for (let i = 0; i < 100; i++) {
      const slot = rig.packet(makePacket({ payload: i, cksum: 'full', ipId: i }), [20, 11]);
      rig.doorbell();
      expect(rig.txStatus(slot)).to.equal(TN_TXS_DD);
    }
    expect(rig.wire.sent.map((f) => judge(f).ipId)).to.deep.equal(
      Array.from({ length: 100 }, (_, i) => i),
    );
  });
});
