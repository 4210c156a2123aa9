import { expect } from 'chai';
import { counted, R_DEV_BAD_REG } from '../../src/sys/reason.ts';
import { vm_page_startup } from '../../src/vm/vm_page.ts';
import { mem, memView } from '../../src/vm/arena.ts';
import { CAPTURE_IN, CAPTURE_OUT, CAPTURE_WIRE } from '../../src/sys/capture.ts';
import { TnDevice } from '../../src/dev/tn/tn.ts';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { busDmaInit } from '../../src/bus/bus_dma.ts';
import { RamDmaPort } from '../../src/bus/dma_port.ts';
import {
  TN_CTRL,
  TN_CTRL_RST,
  TN_CTRL_TXE,
  TN_FEAT_ITR,
  TN_FEATURES,
  TN_ICR,
  TN_ICS,
  TN_ID,
  TN_ID_REV1,
  TN_IMC,
  TN_IMS,
  TN_INT_LSC,
  TN_INT_MASK,
  TN_INT_TXDW,
  TN_ITR,
  TN_LIMITS,
  TN_MACH,
  TN_MACL,
  TN_MAXFRM,
  TN_NSTATS,
  TN_RDT,
  TN_RXBSZ,
  TN_ST_BAD_REG,
  TN_ST_INTERRUPTS,
  TN_ST_TX_BYTES,
  TN_STATS,
  TN_STATUS,
  TN_STATUS_LU,
  TN_STATUS_TXSTOP,
  TN_STATUS_VNET,
  TN_TDBAL,
  TN_TDH,
  TN_TDLEN,
  TN_TDT,
  tnStatNames,
} from '../../src/dev/tn/tnreg.ts';
import { FakeTap } from './fake_tap.ts';
import { FakeWire } from './fake_wire.ts';
import { makePacket } from './judge.ts';
import { MAC, Rig } from './tn_rig.ts';

describe('tn: registers', () => {
  it('identify the device and its limits', () => {
    const rig = new Rig();
    expect(rig.r(TN_ID)).to.equal(TN_ID_REV1);
    expect(rig.r(TN_STATUS)).to.equal(TN_STATUS_LU);
    expect(rig.r(TN_LIMITS)).to.equal(9216 * 65536 + 64);
    expect(rig.r(TN_MACL)).to.equal(0x00000002);
    expect(rig.r(TN_MACH)).to.equal(0x0100);
    expect(new Rig({ mode: 'vnet' }).r(TN_STATUS)).to.equal(TN_STATUS_LU | TN_STATUS_VNET);
    expect(tnStatNames.length).to.equal(TN_NSTATS);
  });

  it('count accesses to undefined registers and writes to read-only ones', () => {
    const rig = new Rig();
    for (const off of [0x34, 0x1c0, 0xffc, 0x1000, 0x7fffffff, 2, 5, -4, 0.5])
      expect(rig.r(off), `${off}`).to.equal(0xffffffff);
    const reads = counted(R_DEV_BAD_REG);
    expect(reads).to.equal(9);
    for (const off of [TN_ID, TN_STATUS, TN_FEATURES, TN_TDH, TN_STATS, 0x34, 3])
      rig.w(off, 0x12345678);
    expect(counted(R_DEV_BAD_REG)).to.equal(reads + 7);
    expect(rig.dev.stats[TN_ST_BAD_REG]).to.equal(reads + 7);
    expect(rig.r(TN_ID)).to.equal(TN_ID_REV1);
  });

  it('refuse ring addresses and sizes while the ring runs, and a tail past its end', () => {
    const rig = new Rig({ ntx: 8 }).start();
    const before = counted(R_DEV_BAD_REG);
    const base = rig.r(TN_TDBAL);
    rig.w(TN_TDBAL, 0);
    rig.w(TN_TDLEN, 128);
    rig.w(TN_TDT, 8);
    rig.w(TN_RDT, 64);
    rig.w(TN_RXBSZ, 4096);
    expect(counted(R_DEV_BAD_REG)).to.equal(before + 5);
    expect([rig.r(TN_TDBAL), rig.r(TN_TDT), rig.r(TN_RXBSZ)]).to.deep.equal([base, 0, 2048]);
  });

  it('accept only values in range', () => {
    const rig = new Rig();
    for (const [reg, bad, good] of [
      [TN_MAXFRM, [0, 59, 9217, 0xffffffff], [60, 9216]],
      [TN_RXBSZ, [0, 1024, 2049, 6144, 32768, 65536], [2048, 4096, 8192, 16384]],
    ] as const) {
      const before = rig.r(reg);
      for (const v of bad) rig.w(reg, v);
      expect(rig.r(reg)).to.equal(before);
      for (const v of good) {
        rig.w(reg, v);
        expect(rig.r(reg)).to.equal(v);
      }
    }
    const vnet = new Rig({ mode: 'vnet' });
    vnet.w(TN_MAXFRM, 65553);
    expect(vnet.r(TN_MAXFRM)).to.equal(65553);
  });

  it('stop at a ring that is misaligned, empty, too long or not a multiple of 8 descriptors', () => {
    for (const [base, len] of [
      [0x10040, 1024],
      [0x10000, 0],
      [0x10000, 64],
      [0x10000, 1024 + 16],
      [0x10000, 4096 * 16 + 128],
    ] as const) {
      const rig = new Rig({ base: 0 });
      rig.w(TN_TDBAL, base);
      rig.w(TN_TDLEN, len);
      rig.w(TN_CTRL, TN_CTRL_TXE);
      expect(rig.r(TN_STATUS) & TN_STATUS_TXSTOP).to.equal(TN_STATUS_TXSTOP);
      rig.w(TN_TDT, 1);
      // Enabling a valid ring clears the stop.
      rig.w(TN_CTRL, 0);
      rig.start();
      expect(rig.r(TN_STATUS) & TN_STATUS_TXSTOP).to.equal(0);
    }
  });

  it('return to their initial values at a reset', () => {
    const rig = new Rig().start();
    rig.postAll();
    rig.w(TN_MACL, 0x12345678);
    rig.w(TN_IMS, TN_INT_MASK);
    rig.w(TN_ICS, TN_INT_TXDW);
    rig.w(TN_CTRL, TN_CTRL_RST);
    expect([rig.r(TN_CTRL), rig.r(TN_IMS), rig.r(TN_ICR), rig.r(TN_TDBAL)]).to.deep.equal([
      0, 0, 0, 0,
    ]);
    expect(rig.r(TN_MACL)).to.equal(0x00000002);
    expect(rig.wire.readable).to.equal(false);
    rig.wire.inject(makePacket({ payload: 1, cksum: 'full' }));
    expect(rig.wire.waiting).to.equal(1);
  });

  it('hold 64-bit statistics: a read of the low half latches the high half', () => {
    const rig = new Rig();
    const { stats } = rig.dev;
    stats[TN_ST_TX_BYTES] = 5 * 2 ** 32 - 1;
    const at = TN_STATS + 8 * TN_ST_TX_BYTES;
    expect(rig.r(at)).to.equal(0xffffffff);
    stats[TN_ST_TX_BYTES] = 5 * 2 ** 32;
    expect(rig.r(at + 4)).to.equal(4);
    expect([rig.r(at), rig.r(at + 4)]).to.deep.equal([0, 5]);
  });

  describe('interrupts', () => {
    it('are level-triggered: raised again while a cause remains', () => {
      const rig = new Rig();
      rig.w(TN_ICS, TN_INT_TXDW | TN_INT_LSC);
      expect(rig.line.raised).to.equal(0);
      rig.w(TN_IMS, TN_INT_TXDW | TN_INT_LSC);
      expect(rig.line.raised).to.equal(1);
      rig.w(TN_ICR, TN_INT_TXDW);
      expect([rig.r(TN_ICR), rig.line.raised]).to.deep.equal([TN_INT_LSC, 2]);
      rig.w(TN_IMC, TN_INT_LSC);
      rig.w(TN_ICR, TN_INT_LSC);
      expect([rig.r(TN_ICR), rig.line.raised]).to.deep.equal([0, 2]);
      expect(rig.dev.stats[TN_ST_INTERRUPTS]).to.equal(1);
    });

    it('are delayed by TN_ITR', () => {
      const rig = new Rig({ timer: true });
      expect(rig.r(TN_FEATURES) & TN_FEAT_ITR).to.equal(TN_FEAT_ITR);
      rig.w(TN_ITR, 50);
      rig.w(TN_IMS, TN_INT_MASK);
      const hit = (): void => {
        rig.w(TN_ICS, TN_INT_TXDW);
        rig.w(TN_ICR, TN_INT_TXDW);
      };
      hit();
      expect(rig.line.raised).to.equal(1);
      rig.clock.advance(10_000);
      rig.w(TN_ICS, TN_INT_TXDW);
      rig.w(TN_ICS, TN_INT_TXDW);
      expect(rig.line.raised).to.equal(1);
      rig.clock.advance(39_999);
      expect(rig.line.raised).to.equal(1);
      rig.clock.advance(1);
      expect(rig.line.raised).to.equal(2);
      rig.w(TN_ICR, TN_INT_TXDW);
      rig.clock.advance(1_000_000);
      expect(rig.line.raised).to.equal(2);
    });

    it('are not delayed if the device has no timer', () => {
      const rig = new Rig();
      rig.w(TN_ITR, 50);
      expect(rig.r(TN_ITR)).to.equal(0);
      expect(rig.r(TN_FEATURES) & TN_FEAT_ITR).to.equal(0);
    });
  });

  it('passes each frame to captures as it is on the wire', () => {
    const log: [number, number, number][] = [];
    let bytes: number[] = [];
    const capture = new FakeTap(
      CAPTURE_WIRE,
      (_point, flags, pktId, iov, first, iovcnt, wirelen) => {
        log.push([flags, pktId >>> 31, wirelen]);
        bytes = [];
        for (let i = first; i < first + iovcnt; i++)
          bytes.push(...mem.subarray(iov[2 * i], iov[2 * i]! + iov[2 * i + 1]!));
        bytes.length = wirelen;
      },
    );
    for (const mode of ['wire', 'vnet'] as const) {
      log.length = 0;
      const rig = new Rig({ mode, capture }).start();
      rig.postAll();
      const frame = makePacket({ payload: 20, cksum: 'full' });
      rig.packet(frame, [30]);
      rig.doorbell();
      expect(bytes).to.deep.equal([...frame]);
      rig.wire.inject(frame);
      expect(bytes).to.deep.equal([...frame]);
      expect(log).to.deep.equal([
        [CAPTURE_OUT, 0, 74],
        [CAPTURE_IN, 1, 74],
      ]);
    }
  });

  it('throws RangeError unless the wire has virtio-net headers in mode vnet, and none in mode wire', () => {
    vm_page_startup(16 << 20, 0);
    busDmaInit();
    for (const mode of ['wire', 'vnet'] as const)
      expect(
        () =>
          new TnDevice({
            dma: new RamDmaPort(),
            intr: { raise: () => {} },
            wire: new FakeWire(mode === 'wire'),
            cksum: new TsCksum(mem.buffer),
            clock: new ManualClock(),
            mem,
            view: memView,
            sramOff: 16 << 20,
            mode,
            mac: MAC,
          }),
      ).to.throw(RangeError);
  });
});
