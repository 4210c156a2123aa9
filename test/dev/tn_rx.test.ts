import { expect } from 'chai';
import { EIO } from '../../src/sys/errno.ts';
import { counted, R_DEV_RX_NODESC, R_DEV_WIRE_ERROR } from '../../src/sys/reason.ts';
import { mem } from '../../src/vm/arena.ts';
import {
  TN_CTRL_ALLMULTI,
  TN_CTRL_PROMISC,
  TN_CTRL_RXCSUM,
  TN_CTRL_RXCSUM6,
  TN_CTRL_VLSTRIP,
  TN_ICR,
  TN_INT_LSC,
  TN_INT_RXDW,
  TN_INT_RXERR,
  TN_INT_RXO,
  TN_MAXFRM,
  TN_MTA0,
  TN_MTA1,
  TN_RDT,
  TN_RX_BUDGET,
  TN_RXBSZ,
  TN_RXS_DD,
  TN_RXS_EOP,
  TN_RXS_ERR,
  TN_RXS_IPCS,
  TN_RXS_IPE,
  TN_RXS_L4CS,
  TN_RXS_L4E,
  TN_RXS_VP,
  TN_ST_RX_FILTERED,
  TN_ST_RX_FRAMES,
  TN_ST_RX_NODESC,
  TN_ST_RX_OVERSIZE,
  TN_ST_RX_RUNT,
  TN_STATUS,
} from '../../src/dev/tn/tnreg.ts';
import { makePacket, type PacketOptions } from './judge.ts';
import { Rig, RX_DATA } from './tn_rig.ts';

const WHOLE = (TN_RXS_DD | TN_RXS_EOP) >>> 0;
const packet = (o: Partial<PacketOptions> = {}): Uint8Array =>
  makePacket({ payload: 100, cksum: 'full', ...o });

describe('tn: receive', () => {
  it('writes a frame into a posted buffer, completes the descriptor and sets RXDW', () => {
    const rig = new Rig().start();
    expect(rig.wire.readable).to.equal(false);
    rig.postAll();
    expect(rig.wire.readable).to.equal(true);
    const frame = packet();
    rig.wire.inject(frame);
    expect(rig.rx(0)).to.deep.equal({ status: WHOLE, len: frame.length, tag: 0 });
    expect(rig.rxBytes(0, frame.length)).to.deep.equal(frame);
    expect(rig.rx(1).status).to.equal(0);
    expect(rig.r(TN_ICR) & TN_INT_RXDW).to.equal(TN_INT_RXDW);
  });

  it('spreads a long frame over several buffers', () => {
    const rig = new Rig();
    rig.w(TN_MAXFRM, 9018);
    rig.start(TN_CTRL_RXCSUM).postAll();
    const frame = packet({ payload: 5001 });
    rig.wire.inject(frame);
    expect(rig.rx(0)).to.deep.include({ status: TN_RXS_DD, len: 2048 });
    expect(rig.rx(1)).to.deep.include({ status: TN_RXS_DD, len: 2048 });
    const good = (WHOLE | TN_RXS_IPCS | TN_RXS_L4CS) >>> 0;
    expect(rig.rx(2)).to.deep.equal({ status: good, len: frame.length - 4096, tag: 0 });
    expect(rig.rxBytes(0, frame.length)).to.deep.equal(frame);
  });

  it('fills a 4096-byte buffer with a frame of exactly that length', () => {
    const rig = new Rig();
    rig.w(TN_MAXFRM, 4096);
    rig.w(TN_RXBSZ, 4096);
    rig.start().postAll(4096);
    rig.wire.inject(packet({ payload: 4096 - 54 }));
    expect(rig.rx(0)).to.deep.include({ status: WHOLE, len: 4096 });
  });

  describe('address filter', () => {
    const seen = (ctrl: number, dst: number[], mta: [number, number] = [0, 0]): boolean => {
      const rig = new Rig();
      rig.w(TN_MTA0, mta[0]);
      rig.w(TN_MTA1, mta[1]);
      rig.start(ctrl).postAll();
      rig.wire.inject(packet({ dst }));
      const n = rig.dev.stats[TN_ST_RX_FRAMES]! + rig.dev.stats[TN_ST_RX_FILTERED]!;
      expect(n).to.equal(1);
      return rig.dev.stats[TN_ST_RX_FRAMES] === 1;
    };
    const OTHER = [2, 0, 0, 0, 0, 9];
    const ALL_HOSTS = [0x01, 0, 0x5e, 0, 0, 1];

    it('accepts its own address, broadcast, and what PROMISC and ALLMULTI admit', () => {
      expect(seen(0, [2, 0, 0, 0, 0, 1])).to.equal(true);
      expect(seen(0, [255, 255, 255, 255, 255, 255])).to.equal(true);
      expect(seen(0, OTHER)).to.equal(false);
      expect(seen(TN_CTRL_PROMISC, OTHER)).to.equal(true);
      expect(seen(0, ALL_HOSTS)).to.equal(false);
      expect(seen(TN_CTRL_ALLMULTI, ALL_HOSTS)).to.equal(true);
      expect(seen(TN_CTRL_ALLMULTI, OTHER)).to.equal(false);
    });

    it('accepts a multicast address whose hash bit is set', () => {
      const bits = Array.from({ length: 64 }, (_, h) =>
        seen(0, ALL_HOSTS, h < 32 ? [(1 << h) >>> 0, 0] : [0, (1 << (h - 32)) >>> 0]),
      );
      expect(bits.filter(Boolean).length).to.equal(1);
      expect(bits.indexOf(true)).to.equal(crc32be(ALL_HOSTS) >>> 26);
    });
  });

  describe('checksum verdict', () => {
    const verdict = (frame: Uint8Array): number => {
      const rig = new Rig().start(TN_CTRL_RXCSUM | TN_CTRL_RXCSUM6);
      rig.postAll();
      rig.wire.inject(frame);
      return (rig.rx(0).status ^ WHOLE) >>> 0;
    };
    const V4 = TN_RXS_IPCS | TN_RXS_L4CS;

    it('is good for right checksums', () => {
      for (const payload of [0, 1, 2, 1400]) {
        expect(verdict(packet({ payload }))).to.equal(V4);
        expect(verdict(packet({ payload, udp: true }))).to.equal(V4);
        expect(verdict(packet({ payload, v6: true }))).to.equal(TN_RXS_L4CS);
        expect(verdict(packet({ payload, v6: true, udp: true }))).to.equal(TN_RXS_L4CS);
      }
      expect(verdict(packet({ ipOptions: 4, tcpOptions: 12 }))).to.equal(V4);
      expect(verdict(packet({ vlan: 3 }))).to.equal(V4);
    });

    it('is an error for a wrong TCP or IP header checksum', () => {
      expect(verdict(packet({ spoil: 1 }))).to.equal(V4 | TN_RXS_L4E);
      expect(verdict(packet({ spoil: 1, v6: true }))).to.equal(TN_RXS_L4CS | TN_RXS_L4E);
      const bad = packet();
      bad[22]! ^= 1; // the TTL
      expect(verdict(bad)).to.equal(TN_RXS_IPCS | TN_RXS_IPE);
    });

    it('is absent for fragments, UDP without checksum, other ethertypes and bad lengths', () => {
      const fragment = packet();
      fragment[20] = 0x20; // more fragments; the next line corrects the sum
      fragment[24] = (fragment[24]! - 0x20) & 0xff;
      expect(verdict(fragment)).to.equal(TN_RXS_IPCS);
      const noUdpSum = packet({ udp: true });
      noUdpSum[40] = 0;
      noUdpSum[41] = 0;
      expect(verdict(noUdpSum)).to.equal(TN_RXS_IPCS);
      const arp = packet();
      arp[13] = 6;
      expect(verdict(arp)).to.equal(0);
      const short = packet().slice(0, 30);
      expect(verdict(short)).to.equal(0);
      const long = packet();
      long[17] = 255; // an IP length beyond the frame; the next line corrects the sum
      long[25] = (long[25]! - (255 - 140)) & 0xff;
      expect(verdict(long) & TN_RXS_L4CS).to.equal(0);
    });

    it('is given only with TN_CTRL_RXCSUM', () => {
      const rig = new Rig().start();
      rig.postAll();
      rig.wire.inject(packet());
      expect(rig.rx(0).status).to.equal(WHOLE);
    });

    describe('in mode vnet', () => {
      const inject = (ctrl: number, flags: number, frame: Uint8Array): Rig => {
        const rig = new Rig({ mode: 'vnet' }).start(ctrl);
        rig.postAll();
        const hdr = [flags, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
        rig.wire.injectRaw(Uint8Array.from([...hdr, ...frame]));
        return rig;
      };

      it('reports a good checksum for NEEDS_CSUM and DATA_VALID', () => {
        const frame = makePacket({ payload: 50, cksum: 'pseudo' });
        frame.set(packet({ payload: 50 }).subarray(24, 26), 24); // a good IP header checksum
        for (const flags of [1, 2]) {
          const rig = inject(TN_CTRL_RXCSUM, flags, frame);
          expect(rig.rx(0).status).to.equal((WHOLE | V4) >>> 0);
          expect(rig.rxBytes(0, frame.length)).to.deep.equal(frame);
        }
        expect(inject(TN_CTRL_RXCSUM, 0, frame).rx(0).status).to.equal(
          (WHOLE | V4 | TN_RXS_L4E) >>> 0,
        );
      });

      it('completes the checksum if the driver has not enabled RXCSUM', () => {
        const frame = makePacket({ payload: 51, cksum: 'pseudo' });
        const full = packet({ payload: 51 });
        frame.set(full.subarray(24, 26), 24);
        const rig = inject(0, 1, frame);
        expect(rig.rx(0).status).to.equal(WHOLE);
        expect(rig.rxBytes(0, frame.length)).to.deep.equal(full);
      });

      it('receives an unsegmented TSO packet, and reports its number of segments', () => {
        const rig = new Rig({ mode: 'vnet' });
        rig.w(TN_MAXFRM, 65553);
        rig.w(TN_RXBSZ, 4096);
        rig.start(TN_CTRL_RXCSUM).postAll(4096);
        const frame = makePacket({ payload: 60_000, cksum: 'pseudo' });
        frame.set(packet({ payload: 60_000 }).subarray(24, 26), 24);
        const hdr = [1, 1, 54, 0, 1448 & 255, 1448 >> 8, 34, 0, 16, 0, 0, 0];
        rig.wire.injectRaw(Uint8Array.from([...hdr, ...frame]));
        expect(rig.rx(13)).to.deep.include({ status: TN_RXS_DD, len: 4096 });
        const status = WHOLE | V4 | (Math.ceil(60_000 / 1448) << 16);
        expect(rig.rx(14)).to.deep.include({ status: status >>> 0, len: 60_054 - 14 * 4096 });
        expect(rig.rxBytes(0, frame.length, 4096)).to.deep.equal(frame);
      });

      it('writes nothing outside the frame for hostile header fields', () => {
        for (const hdr of [
          [1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0],
          [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
          [255, 255, 255, 255, 255, 255, 100, 0, 48, 0, 255, 255],
        ]) {
          const rig = new Rig({ mode: 'vnet' }).start();
          rig.postAll();
          const frame = packet({ payload: 10 });
          rig.wire.injectRaw(Uint8Array.from([...hdr, ...frame]));
          rig.wire.injectRaw(Uint8Array.from(hdr)); // a header without a frame
          rig.wire.injectRaw(Uint8Array.from([1])); // an incomplete header
          expect(rig.rxBytes(0, frame.length)).to.deep.equal(frame);
          const behind = mem.subarray(RX_DATA + frame.length, RX_DATA + 0x30000);
          expect(behind.every((byte) => byte === 0)).to.equal(true);
          expect(rig.dev.stats[TN_ST_RX_RUNT]).to.equal(2);
        }
      });
    });
  });

  it('strips VLAN tags, also from frames that span buffers', () => {
    for (const payload of [20, 3000, 2048 - 58 + 1, 2048 - 58 + 4, 2 * 2048 - 58 + 3]) {
      const rig = new Rig();
      rig.w(TN_MAXFRM, 9018);
      rig.start(TN_CTRL_VLSTRIP).postAll();
      rig.wire.inject(packet({ payload, vlan: 0xe123 }));
      const plain = packet({ payload });
      const n = Math.ceil(plain.length / 2048);
      expect(rig.rx(n - 1).status).to.equal((WHOLE | TN_RXS_VP) >>> 0);
      expect(rig.rx(n - 1).tag).to.equal(0xe123);
      expect(rig.rx(n).status).to.equal(0);
      expect(rig.rxBytes(0, plain.length)).to.deep.equal(plain);
    }
  });

  it('drops runts and frames longer than TN_MAXFRM', () => {
    const rig = new Rig().start();
    rig.postAll();
    rig.wire.inject(new Uint8Array(13));
    rig.wire.inject(packet({ payload: 1518 - 54 + 1 }));
    rig.wire.inject(packet({ payload: 5000 }));
    expect(rig.dev.stats[TN_ST_RX_RUNT]).to.equal(1);
    expect(rig.dev.stats[TN_ST_RX_OVERSIZE]).to.equal(2);
    rig.wire.inject(packet({ payload: 1518 - 54 }));
    expect(rig.rx(0)).to.deep.include({ status: WHOLE, len: 1518 });
  });

  it('drops a frame longer than the buffers, and counts it as oversize', () => {
    const rig = new Rig();
    rig.w(TN_MAXFRM, 4096);
    rig.start().postAll();
    rig.wire.inject(packet({ payload: 4097 - 54 }));
    expect(rig.dev.stats[TN_ST_RX_OVERSIZE]).to.equal(1);
  });

  it('leaves frames on the wire without free buffers, and reads them when buffers are posted', () => {
    const rig = new Rig({ nrx: 8 }).start();
    rig.postAll();
    const frames = Array.from({ length: 20 }, (_, i) => packet({ payload: i, ipId: i }));
    rig.wire.inject(...frames);
    expect(rig.wire.waiting).to.equal(13);
    expect(rig.wire.readable).to.equal(false);
    expect(rig.dev.stats[TN_ST_RX_NODESC]).to.equal(1);
    expect(counted(R_DEV_RX_NODESC)).to.equal(1);
    expect(rig.r(TN_ICR) & TN_INT_RXO).to.equal(TN_INT_RXO);
    for (let slot = 0; slot < 7; slot++) expect(rig.rx(slot).status).to.equal(WHOLE);
    // Four posted buffers let in four frames; then reception stalls again.
    for (const slot of [7, 0, 1, 2]) rig.post(slot, RX_DATA + slot * 2048);
    rig.w(TN_RDT, 3);
    expect(rig.wire.waiting).to.equal(9);
    expect(rig.rxBytes(7, 61)).to.deep.equal(frames[7]);
    expect(counted(R_DEV_RX_NODESC)).to.equal(2);
  });

  it('receives at most 128 frames per turn', () => {
    const rig = new Rig({ nrx: 512 }).start();
    rig.postAll();
    rig.wire.readable = false;
    rig.wire.inject(...Array.from({ length: 300 }, () => packet({ payload: 6 })));
    rig.wire.readable = true;
    rig.wire.notify();
    expect(rig.dev.stats[TN_ST_RX_FRAMES]).to.equal(TN_RX_BUDGET);
    rig.clock.runPosted();
    expect(rig.dev.stats[TN_ST_RX_FRAMES]).to.equal(300);
  });

  it('returns bad buffers with ERR, in order, and uses the next good one', () => {
    const rig = new Rig({ nrx: 8 });
    rig.w(TN_MAXFRM, 4000);
    rig.start();
    for (let i = 0; i < 8; i++) rig.post(i, RX_DATA + i * 2048);
    rig.post(1, (16 << 20) - 2047); // ends past RAM
    const canary = mem.slice(RX_DATA, RX_DATA + 2048);
    rig.wire.inject(packet());
    rig.w(TN_RDT, 7);
    expect(rig.rx(0)).to.deep.equal({ status: (TN_RXS_DD | TN_RXS_ERR) >>> 0, len: 0, tag: 0 });
    expect(rig.rx(1).status).to.equal((TN_RXS_DD | TN_RXS_ERR) >>> 0);
    expect(rig.rx(2)).to.deep.include({ status: WHOLE, len: 154 });
    expect(rig.r(TN_ICR) & TN_INT_RXERR).to.equal(TN_INT_RXERR);
    expect(mem.slice(RX_DATA, RX_DATA + 2048)).to.deep.equal(canary);
  });

  it('reports link down when the wire fails, and receives again when the wire is back', () => {
    const rig = new Rig().start();
    rig.postAll();
    rig.wire.readError = -EIO;
    rig.wire.notify();
    expect(rig.wire.readable).to.equal(false);
    expect(counted(R_DEV_WIRE_ERROR)).to.equal(1);
    expect(rig.r(TN_STATUS) & 1).to.equal(0);
    expect(rig.r(TN_ICR) & TN_INT_LSC).to.equal(TN_INT_LSC);
    rig.wire.readError = 0;
    rig.wire.listener!.wireState(true, 0);
    expect(rig.wire.readable).to.equal(true);
    rig.wire.inject(packet());
    expect(rig.rx(0).status).to.equal(WHOLE);
  });
});

/** The CRC-32 of Ethernet, most significant bit first, by polynomial division. */
function crc32be(bytes: number[]): number {
  const bits = bytes.flatMap((b) => Array.from({ length: 8 }, (_, i) => (b >>> i) & 1));
  const reg = Array<number>(32).fill(1);
  const poly = [26, 23, 22, 16, 12, 11, 10, 8, 7, 5, 4, 2, 1, 0];
  for (const bit of bits) {
    const top = reg.shift()! ^ bit;
    reg.push(0);
    if (top === 1) for (const p of poly) reg[31 - p]! ^= 1;
  }
  return reg.reduce((n, bit) => n * 2 + bit, 0);
}
