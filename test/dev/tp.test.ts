import { expect } from 'chai';
import * as fc from 'fast-check';
import { SeededPrng } from '../../src/host/prng.ts';
import { EIO } from '../../src/sys/errno.ts';
import { counted, R_DEV_BAD_REG, R_DEV_RX_OVERFLOW } from '../../src/sys/reason.ts';
import { TpDevice } from '../../src/dev/tp/tp.ts';
import {
  TP_BNRY,
  TP_CR,
  TP_CR_ABT,
  TP_CR_RRD,
  TP_CR_RST,
  TP_CR_RWR,
  TP_CR_STA,
  TP_CR_STP,
  TP_CR_TXP,
  TP_CURR,
  TP_DATA,
  TP_FRAME_MAX,
  TP_ID,
  TP_IMR,
  TP_INT_LSC,
  TP_INT_MASK,
  TP_INT_OVW,
  TP_INT_PRX,
  TP_INT_PTX,
  TP_INT_RDC,
  TP_INT_TXE,
  TP_ISR,
  TP_LIMITS,
  TP_MACH,
  TP_MACL,
  TP_MEM_SIZE,
  TP_MTA0,
  TP_MTA1,
  TP_NPAGES,
  TP_NSTATS,
  TP_PAGE_SIZE,
  TP_PSTART,
  TP_PSTOP,
  TP_RBCR,
  TP_RCR,
  TP_RCR_ALLMULTI,
  TP_RCR_AM,
  TP_RCR_PRO,
  TP_REG_SIZE,
  TP_RSAR,
  TP_ST_BAD_PIO,
  TP_ST_BAD_REG,
  TP_ST_PIO_READ,
  TP_ST_PIO_WRITTEN,
  TP_ST_RX_FILTERED,
  TP_ST_RX_FRAMES,
  TP_ST_RX_MISSED,
  TP_ST_RX_OVERFLOWS,
  TP_ST_RX_OVERSIZE,
  TP_ST_RX_RUNT,
  TP_ST_TX_BAD,
  TP_ST_TX_FRAMES,
  TP_ST_TX_NO_LINK,
  TP_ST_TX_WIRE_ERROR,
  TP_ST_TX_WIRE_FULL,
  TP_STATS,
  TP_STATUS,
  TP_STATUS_LU,
  TP_STATUS_OVF,
  TP_STATUS_RUN,
  TP_STATUS_TXB,
  TP_TBCR,
  TP_TPSR,
  TP_TSR,
  TP_TSR_BAD,
  TP_TSR_CRS,
  TP_TSR_ERR,
  TP_TSR_PTX,
  tpStatNames,
} from '../../src/dev/tp/tpreg.ts';
import { FakeWire } from './fake_wire.ts';
import { frameOf, MAC, padded, TpRig } from './tp_rig.ts';

const BROADCAST = [255, 255, 255, 255, 255, 255];

describe('tp', () => {
  let rig: TpRig;
  beforeEach(() => (rig = new TpRig()));
  afterEach(() => rig.close());

  /** Injects frames one by one, then runs the turns of the event loop that receiving takes. */
  const inject = (...frames: Uint8Array[]): void => {
    for (const frame of frames) rig.wire.inject(frame);
    rig.clock.runPosted();
  };

  describe('registers', () => {
    it("have the datasheet's values at power-on", () => {
      const want: [number, number][] = [
        [TP_ID, 0x54500001],
        [TP_CR, TP_CR_STP],
        [TP_STATUS, TP_STATUS_LU],
        [TP_LIMITS, 0x05ee0080],
        [TP_MACL, 0x00000002],
        [TP_MACH, 0x0100],
        ...[TP_ISR, TP_IMR, TP_RCR, TP_PSTART, TP_PSTOP, TP_BNRY, TP_CURR, TP_TPSR, TP_TBCR].map(
          (reg): [number, number] => [reg, 0],
        ),
        ...[TP_TSR, TP_RSAR, TP_RBCR, TP_MTA0, TP_MTA1].map((reg): [number, number] => [reg, 0]),
      ];
      for (const [reg, value] of want) expect(rig.rd(reg), reg.toString(16)).to.equal(value);
      expect(rig.stat(TP_ST_BAD_REG)).to.equal(0);
      expect(tpStatNames.length).to.equal(TP_NSTATS);
    });

    it('accept values in range, and count and ignore others', () => {
      const cases: [number, number, number][] = [
        // register, largest value accepted, a value refused
        [TP_PSTART, 127, 128],
        [TP_PSTOP, 128, 129],
        [TP_BNRY, 127, 128],
        [TP_CURR, 127, 128],
        [TP_TPSR, 127, 128],
        [TP_TBCR, 0xffff, 0x10000],
        [TP_RSAR, 32767, 32768],
        [TP_RBCR, 32768, 32769],
        [TP_RCR, 0xf, 0x10],
      ];
      for (const [i, [reg, good, bad]] of cases.entries()) {
        rig.wr(reg, good);
        expect(rig.rd(reg)).to.equal(good);
        rig.wr(reg, bad);
        rig.wr(reg, -1);
        expect(rig.rd(reg), 'kept').to.equal(good);
        expect(rig.stat(TP_ST_BAD_REG)).to.equal(2 * (i + 1));
      }
    });

    it('count accesses to undefined registers and writes to read-only ones', () => {
      let bad = 0;
      for (const reg of [0x54, 0x7c, 1, 2, 0x3d, TP_STATS + 4 * TP_NSTATS, TP_REG_SIZE, -4, 1e9]) {
        expect(rig.rd(reg)).to.equal(0xffffffff);
        rig.wr(reg, 1);
        bad += 2;
        expect(rig.stat(TP_ST_BAD_REG), `${reg}`).to.equal(bad);
      }
      for (const reg of [TP_ID, TP_STATUS, TP_TSR, TP_LIMITS, TP_STATS]) {
        rig.wr(reg, 1);
        expect(rig.stat(TP_ST_BAD_REG)).to.equal(++bad);
      }
      expect(counted(R_DEV_BAD_REG)).to.equal(bad);
    });

    it('ignore contradictory and unknown commands, and count them', () => {
      rig.ring();
      const before = rig.stat(TP_ST_BAD_REG);
      const contradictory = [TP_CR_STP | TP_CR_STA, TP_CR_RRD | TP_CR_RWR, 0x40, 0x100 | TP_CR_STP];
      for (const command of contradictory) rig.wr(TP_CR, command);
      expect(rig.stat(TP_ST_BAD_REG) - before).to.equal(4);
      expect(rig.rd(TP_CR)).to.equal(TP_CR_STA);
    });

    it('RST resets all but packet memory and statistics', () => {
      rig.poke(300, frameOf(8));
      rig.ring();
      inject(frameOf(100));
      rig.wr(TP_MACL, 7);
      rig.wr(TP_MTA0, 7);
      rig.wr(TP_CR, TP_CR_RST | 0xffff);
      expect([TP_CR, TP_ISR, TP_IMR, TP_CURR, TP_MTA0].map((r) => rig.rd(r))).to.deep.equal([
        TP_CR_STP,
        0,
        0,
        0,
        0,
      ]);
      expect(rig.rd(TP_MACL)).to.equal(2);
      expect(rig.wire.readable).to.equal(false);
      expect([...rig.peek(300, 8)]).to.deep.equal([...frameOf(8)]);
      expect(rig.stat(TP_ST_RX_FRAMES)).to.equal(1);
    });

    it('throws for a wire with virtio-net headers', () => {
      expect(
        () =>
          new TpDevice({
            intr: { raise: () => {} },
            wire: new FakeWire(true),
            clock: rig.clock,
            mem: new Uint8Array(0),
            view: new DataView(new ArrayBuffer(0)),
            sramOff: 0,
            mac: Uint8Array.from(MAC),
          }),
      ).to.throw('vnet');
    });
  });

  describe('data port', () => {
    it('reads and writes any range of packet memory', () => {
      const range = fc
        .tuple(fc.nat(TP_MEM_SIZE - 1), fc.integer({ min: 0, max: 70 }))
        .map(([at, len]) => [at, Math.min(len, TP_MEM_SIZE - at)] as const);
      const model = new Uint8Array(TP_MEM_SIZE);
      rig.poke(0, model);
      fc.assert(
        fc.property(range, fc.nat(255), range, ([at, len], seed, [from, n]) => {
          const bytes = frameOf(len, seed);
          rig.poke(at, bytes);
          model.set(bytes, at);
          expect([...rig.peek(from, n)]).to.deep.equal([...model.subarray(from, from + n)]);
        }),
      );
      expect([...rig.peek(0, TP_MEM_SIZE)]).to.deep.equal([...model]);
      expect(rig.stat(TP_ST_BAD_PIO)).to.equal(0);
      expect(rig.stat(TP_ST_PIO_WRITTEN)).to.be.above(TP_MEM_SIZE);
      expect(rig.stat(TP_ST_PIO_READ)).to.be.above(TP_MEM_SIZE);
    });

    it('refuses transfers past packet memory, and accesses without a transfer', () => {
      expect(rig.rd(TP_DATA)).to.equal(-1);
      rig.wr(TP_DATA, 5);
      rig.wr(TP_RSAR, TP_MEM_SIZE - 1);
      rig.wr(TP_RBCR, 2);
      rig.wr(TP_CR, TP_CR_RRD);
      expect(rig.rd(TP_DATA)).to.equal(-1);
      expect(rig.stat(TP_ST_BAD_PIO)).to.equal(4);
      expect(rig.stat(TP_ST_BAD_REG)).to.equal(0);
      rig.wr(TP_RBCR, 1);
      rig.wr(TP_CR, TP_CR_RRD);
      expect(rig.rd(TP_CR)).to.equal(TP_CR_STP | TP_CR_RRD);
      rig.wr(TP_DATA, 5);
      expect(rig.stat(TP_ST_BAD_PIO), 'the wrong direction').to.equal(5);
      expect(rig.rd(TP_ISR)).to.equal(0);
      rig.rd(TP_DATA);
      expect(rig.rd(TP_ISR)).to.equal(TP_INT_RDC);
      expect(rig.rd(TP_CR)).to.equal(TP_CR_STP);
    });

    it('ABT aborts a transfer, and a new command replaces the transfer in progress', () => {
      rig.wr(TP_RBCR, 8);
      rig.wr(TP_CR, TP_CR_RWR);
      rig.wr(TP_DATA, 0x04030201);
      rig.wr(TP_CR, TP_CR_ABT);
      rig.wr(TP_DATA, 0x08070605);
      expect(rig.stat(TP_ST_BAD_PIO)).to.equal(1);
      rig.wr(TP_CR, TP_CR_RWR);
      rig.wr(TP_RBCR, 4);
      rig.wr(TP_CR, TP_CR_RRD);
      expect(rig.rd(TP_DATA)).to.equal(0x04030201);
      expect(rig.rd(TP_ISR)).to.equal(TP_INT_RDC);
    });
  });

  describe('transmit', () => {
    it('sends frames of all lengths, padded to 60 bytes', () => {
      for (const len of [14, 15, 59, 60, 61, 64, 256, 1514, TP_FRAME_MAX]) {
        const frame = frameOf(len, len);
        rig.send(frame, len % 100);
        expect([...rig.wire.sent.at(-1)!], `${len}`).to.deep.equal([...padded(frame)]);
        expect([rig.rd(TP_TSR), rig.rd(TP_ISR)]).to.deep.equal([TP_TSR_PTX, TP_INT_PTX]);
        rig.wr(TP_ISR, TP_INT_PTX);
      }
      expect(rig.stat(TP_ST_TX_FRAMES)).to.equal(9);
    });

    it('refuses a frame with a bad length or past packet memory', () => {
      const cases: [number, number][] = [
        [0, 0],
        [0, 13],
        [0, TP_FRAME_MAX + 1],
        [0, 0xffff],
        [TP_NPAGES - 1, 257],
      ];
      for (const [page, len] of cases) {
        rig.wr(TP_TPSR, page);
        rig.wr(TP_TBCR, len);
        rig.wr(TP_CR, TP_CR_TXP);
        expect([rig.rd(TP_TSR), rig.rd(TP_ISR)]).to.deep.equal([TP_TSR_BAD, TP_INT_TXE]);
        rig.wr(TP_ISR, TP_INT_TXE);
      }
      rig.wr(TP_TBCR, 256);
      rig.wr(TP_CR, TP_CR_TXP);
      expect(rig.rd(TP_TSR)).to.equal(TP_TSR_PTX);
      expect([rig.stat(TP_ST_TX_BAD), rig.wire.nsent]).to.deep.equal([5, 1]);
    });

    it('waits for room on the wire, and sends the frame once', () => {
      rig.wire.room = 0;
      rig.send(frameOf(100));
      expect(rig.rd(TP_STATUS) & TP_STATUS_TXB).to.equal(TP_STATUS_TXB);
      expect(rig.rd(TP_CR)).to.equal(TP_CR_STP | TP_CR_TXP);
      expect(rig.rd(TP_ISR)).to.equal(0);
      rig.wr(TP_CR, TP_CR_TXP);
      expect(rig.stat(TP_ST_BAD_REG), 'TXP while a frame waits').to.equal(1);
      rig.wire.drain(5);
      expect([rig.wire.nsent, rig.rd(TP_ISR), rig.stat(TP_ST_TX_WIRE_FULL)]).to.deep.equal([
        1,
        TP_INT_PTX,
        1,
      ]);
      rig.wire.listener!.wireWritable();
      expect(rig.wire.nsent).to.equal(1);
    });

    it('discards the waiting frame at a reset', () => {
      rig.wire.room = 0;
      rig.send(frameOf(100));
      rig.wr(TP_CR, TP_CR_RST);
      rig.wire.drain(5);
      expect([rig.wire.nsent, rig.rd(TP_ISR)]).to.deep.equal([0, 0]);
    });

    it('drops frames without link, also the waiting one', () => {
      rig.wire.room = 0;
      rig.send(frameOf(100));
      rig.wire.listener!.wireState(false, 0);
      expect(rig.rd(TP_ISR)).to.equal(TP_INT_LSC | TP_INT_TXE);
      expect([rig.rd(TP_TSR), rig.rd(TP_STATUS)]).to.deep.equal([TP_TSR_CRS, 0]);
      rig.send(frameOf(100));
      expect(rig.stat(TP_ST_TX_NO_LINK)).to.equal(2);
      rig.wire.listener!.wireState(true, 0);
      rig.wire.room = 9;
      rig.wire.error = -EIO;
      rig.send(frameOf(100));
      expect([rig.rd(TP_TSR), rig.stat(TP_ST_TX_WIRE_ERROR)]).to.deep.equal([TP_TSR_ERR, 1]);
      rig.wire.error = 0;
      rig.send(frameOf(100));
      expect(rig.rd(TP_TSR)).to.equal(TP_TSR_PTX);
    });
  });

  describe('receive ring', () => {
    it('delivers any sequence of frame sizes intact, across the end of the ring', () => {
      const sizes = fc.array(fc.integer({ min: 14, max: TP_FRAME_MAX }), { maxLength: 40 });
      const place = fc
        .tuple(fc.nat(100), fc.integer({ min: 7, max: 60 }))
        .map(([first, n]) => [first, Math.min(first + n, TP_NPAGES)] as const);
      fc.assert(
        fc.property(place, sizes, fc.infiniteStream(fc.boolean()), ([first, stop], lens, take) => {
          rig.ring(first, stop);
          const missed = rig.stat(TP_ST_RX_MISSED);
          const want: Uint8Array[] = [];
          const got: Uint8Array[] = [];
          for (const [i, len] of lens.entries()) {
            want.push(frameOf(len, i));
            // Take frames at random, and always if the next frame may not fit. The smallest ring
            // holds one frame of the greatest length.
            if (take.next().value === true || i % 2 === 1) got.push(...rig.takeAll());
            const used = (rig.rd(TP_CURR) - rig.next + stop - first) % (stop - first);
            const free = stop - first - 1 - used;
            if (Math.ceil((len + 4) / TP_PAGE_SIZE) > free) got.push(...rig.takeAll());
            inject(want.at(-1)!);
          }
          got.push(...rig.takeAll());
          expect(rig.stat(TP_ST_RX_MISSED) - missed).to.equal(0);
          expect(got.length).to.equal(want.length);
          for (const [i, frame] of want.entries())
            expect(Buffer.from(got[i]!).equals(frame), `frame ${i}`).to.equal(true);
        }),
        { numRuns: 60 },
      );
    });

    it('keeps one page free, and after an overflow drops and counts frames until the driver recovers', () => {
      rig.ring(12, 12 + 8); // seven usable pages
      const small = frameOf(252); // fills a page, with its header
      for (let i = 0; i < 7; i++) inject(frameOf(252, i));
      expect(rig.rd(TP_ISR)).to.equal(TP_INT_PRX);
      expect(rig.rd(TP_CURR)).to.equal(19);
      inject(small);
      expect(rig.rd(TP_ISR)).to.equal(TP_INT_PRX | TP_INT_OVW);
      expect(rig.rd(TP_STATUS)).to.equal(TP_STATUS_LU | TP_STATUS_RUN | TP_STATUS_OVF);
      rig.wr(TP_BNRY, 15);
      rig.next = 15;
      inject(small, frameOf(60));
      expect(rig.rd(TP_CURR), 'no reception before recovery, although pages are free').to.equal(19);
      expect([rig.stat(TP_ST_RX_OVERFLOWS), rig.stat(TP_ST_RX_MISSED)]).to.deep.equal([1, 3]);
      expect(counted(R_DEV_RX_OVERFLOW)).to.equal(3);
      // The recovery, first with a step missing.
      rig.wr(TP_CR, TP_CR_STA);
      expect(rig.rd(TP_STATUS) & TP_STATUS_OVF, 'without STP').to.equal(TP_STATUS_OVF);
      rig.wr(TP_CR, TP_CR_STP);
      const got = rig.takeAll();
      expect(got.map((f) => f[20])).to.deep.equal([3, 4, 5, 6].map((i) => frameOf(252, i)[20]));
      const bad = rig.stat(TP_ST_BAD_REG);
      rig.wr(TP_CR, TP_CR_STA);
      expect(rig.rd(TP_CR), 'without the acknowledgement').to.equal(TP_CR_STP);
      expect(rig.stat(TP_ST_BAD_REG)).to.equal(bad + 1);
      rig.wr(TP_ISR, TP_INT_OVW);
      rig.wr(TP_CR, TP_CR_STA);
      inject(small);
      expect([rig.takeAll().length, rig.stat(TP_ST_RX_OVERFLOWS)]).to.deep.equal([1, 1]);
    });

    it('starts only with a valid ring', () => {
      const bad: [number, number, number, number][] = [
        [0, 0, 0, 0],
        [12, 18, 12, 12], // six pages: the longest frame would never fit
        [20, 12, 15, 15],
        [12, 40, 40, 12],
        [12, 40, 12, 11],
      ];
      for (const [start, stop, bnry, curr] of bad) {
        rig.wr(TP_PSTART, start);
        rig.wr(TP_PSTOP, stop);
        rig.wr(TP_BNRY, bnry);
        rig.wr(TP_CURR, curr);
        rig.wr(TP_CR, TP_CR_STA);
        expect(rig.rd(TP_CR)).to.equal(TP_CR_STP);
      }
      expect(rig.stat(TP_ST_BAD_REG)).to.equal(bad.length);
      rig.wr(TP_PSTOP, 19);
      rig.wr(TP_CURR, 12);
      rig.wr(TP_CR, TP_CR_STA);
      expect(rig.rd(TP_CR)).to.equal(TP_CR_STA);
      for (const reg of [TP_PSTART, TP_PSTOP, TP_CURR]) rig.wr(reg, 13);
      for (const page of [11, 19, 127]) rig.wr(TP_BNRY, page);
      expect(rig.stat(TP_ST_BAD_REG)).to.equal(bad.length + 6);
      expect([rig.rd(TP_PSTART), rig.rd(TP_BNRY)]).to.deep.equal([12, 12]);
    });

    it('filters by address', () => {
      rig.ring();
      const other = frameOf(60, 0, [2, 0, 0, 0, 0, 9]);
      const all = frameOf(60, 0, BROADCAST);
      const hosts = frameOf(60, 0, [1, 0, 0x5e, 0, 0, 1]);
      const mdns = frameOf(60, 0, [1, 0, 0x5e, 0, 0, 0xfb]);
      const seen = (rcr: number): number[] => {
        rig.wr(TP_RCR, rcr);
        const counts = [other, all, hosts, mdns].map((frame) => {
          inject(frame);
          return rig.takeAll().length;
        });
        return counts;
      };
      expect(seen(0)).to.deep.equal([0, 0, 0, 0]);
      expect(seen(1)).to.deep.equal([0, 1, 0, 0]);
      const hash = hashOf([1, 0, 0x5e, 0, 0, 1]);
      rig.wr(hash < 32 ? TP_MTA0 : TP_MTA1, 1 << (hash & 31));
      expect(seen(0)).to.deep.equal([0, 0, 0, 0]);
      expect(seen(TP_RCR_AM)).to.deep.equal([0, 0, 1, 0]);
      expect(seen(TP_RCR_ALLMULTI)).to.deep.equal([0, 0, 1, 1]);
      expect(seen(TP_RCR_PRO)).to.deep.equal([1, 1, 1, 1]);
      expect(rig.stat(TP_ST_RX_FILTERED)).to.equal(4 + 3 + 4 + 3 + 2);
    });

    it('drops runts and oversized frames, and marks group frames', () => {
      rig.ring();
      inject(frameOf(13), frameOf(TP_FRAME_MAX + 1), frameOf(14), frameOf(60, 0, BROADCAST));
      expect([rig.stat(TP_ST_RX_RUNT), rig.stat(TP_ST_RX_OVERSIZE)]).to.deep.equal([1, 1]);
      expect(rig.peek(12 * 256, 1)[0]).to.equal(1);
      expect(rig.peek(13 * 256, 1)[0]).to.equal(3);
      expect(rig.takeAll().map((f) => f.length)).to.deep.equal([14, 60]);
    });

    it('reads eight frames per turn', () => {
      rig.ring();
      rig.wire.listener = null;
      rig.wire.inject(...Array.from({ length: 20 }, (_, i) => frameOf(60, i)));
      rig.wire.listener = rig.dev;
      rig.wire.notify();
      expect(rig.wire.waiting).to.equal(12);
      rig.clock.runPosted();
      expect(rig.wire.waiting).to.equal(0);
      expect(rig.takeAll().length).to.equal(20);
    });

    it('leaves frames on the wire while stopped, and stops reading a wire that fails', () => {
      rig.ring();
      rig.wr(TP_CR, TP_CR_STP);
      inject(frameOf(60));
      expect(rig.wire.waiting).to.equal(1);
      rig.wr(TP_CR, TP_CR_STA);
      rig.wire.notify();
      expect(rig.takeAll().length).to.equal(1);
      rig.wire.readError = -EIO;
      rig.wire.notify();
      expect(rig.wire.readable, 'a failed wire is not read').to.equal(false);
      rig.wire.readError = 0;
      rig.wire.listener!.wireState(true, 0);
      expect(rig.wire.readable).to.equal(true);
    });
  });

  it('raises a level-triggered interrupt', () => {
    rig.ring();
    inject(frameOf(60));
    expect(rig.raised).to.equal(1);
    rig.wr(TP_IMR, 0);
    inject(frameOf(60));
    expect(rig.raised, 'masked').to.equal(1);
    rig.wr(TP_IMR, TP_INT_MASK);
    expect(rig.raised, 'unmasked while high').to.equal(2);
    rig.wr(TP_ISR, TP_INT_PRX);
    expect(rig.raised).to.equal(2);
    rig.wr(TP_ISR, TP_INT_MASK);
    expect([rig.rd(TP_ISR), rig.raised]).to.deep.equal([0, 2]);
  });

  it('works after random register accesses, frames and a reset, and changes no other memory', () => {
    const seed = Number(process.env['TAPNIC_SEED'] ?? 0x7470);
    for (let round = 0; round < 40; round++) {
      const prng = new SeededPrng(seed + round);
      const below = (n: number): number => prng.next32() % n;
      const value = (): number =>
        [prng.next32(), below(2), below(64), below(256), below(2000), 0x8000, 128][below(7)]!;
      try {
        fuzz(below, value);
      } catch (e) {
        throw new Error(`seed ${seed + round}`, { cause: e });
      }
    }
  });

  function fuzz(below: (n: number) => number, value: () => number): void {
    if (below(2) === 0) rig.ring(below(100), TP_NPAGES - below(20));
    for (let i = 0; i < 1500; i++) {
      const reg = below(10) === 0 ? below(TP_REG_SIZE * 2) : 4 * below(0x58 / 4);
      const pick = below(12);
      if (pick < 6) rig.wr(reg, value());
      else if (pick < 7) rig.wr(TP_CR, 1 << below(6));
      else if (pick < 9) rig.rd(reg);
      else if (pick < 11)
        rig.wire.inject(frameOf(below(1700), i, below(2) === 0 ? MAC : BROADCAST));
      else if (below(2) === 0) rig.wire.drain(below(3));
      else rig.wire.listener!.wireState(below(2) === 0, 0);
      if (below(4) === 0) rig.clock.runPosted();
    }
    for (const frame of rig.wire.sent) expect(frame.length).to.be.within(60, TP_FRAME_MAX);
    // After a reset the device must work, in any state that the accesses left.
    rig.wire.sent.length = 0;
    rig.wire.room = Infinity;
    rig.wire.listener!.wireState(true, 0);
    rig.ring();
    rig.clock.runPosted();
    while (rig.wire.waiting > 0) {
      rig.wire.notify();
      rig.clock.runPosted();
      rig.wr(TP_CR, TP_CR_STP);
      rig.takeAll();
      rig.wr(TP_ISR, TP_INT_MASK);
      rig.wr(TP_CR, TP_CR_STA);
    }
    rig.ring();
    inject(frameOf(1000, 5));
    expect([...rig.takeAll()[0]!]).to.deep.equal([...frameOf(1000, 5)]);
    rig.send(frameOf(900, 6));
    expect([...rig.wire.sent.at(-1)!]).to.deep.equal([...frameOf(900, 6)]);
  }
});

/** The upper six bits of the big-endian CRC-32, bit by bit over a string of bits. */
function hashOf(addr: number[]): number {
  const bits = addr.flatMap((b) => [0, 1, 2, 3, 4, 5, 6, 7].map((i) => (b >> i) & 1));
  let crc = 0xffffffffn;
  for (const bit of bits) {
    const top = Number((crc >> 31n) & 1n) ^ bit;
    crc = ((crc << 1n) & 0xffffffffn) ^ (top === 1 ? 0x04c11db7n : 0n);
  }
  return Number(crc >> 26n);
}
