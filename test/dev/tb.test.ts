/** The NIC `tb`, through registers and memory as docs/tb-datasheet.md describes it, then fuzzed. */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { EINVAL, EIO } from '../../src/sys/errno.ts';
import { mem, PAGE_SIZE } from '../../src/vm/arena.ts';
import { TbDevice } from '../../src/dev/tb/tb.ts';
import * as tb from '../../src/dev/tb/tbreg.ts';
import { full } from '../support/needs.ts';
import {
  DmaBench,
  expectReached,
  frame,
  fuzzParams,
  patternRam,
  RUNS,
  SIZE,
  word,
} from './dma_bench.ts';
import { makePacket } from './judge.ts';

const { TB_CTL_EOP: EOP, TB_CTL_ERR: ERR, TB_CTL_INT: INT, TB_CTL_OWN: OWN } = tb;
/** RAM crosses the 4 GiB line, so that both halves of an address matter. */
const BASE = 0xffc0_0000;
const TX_RING = 0x4000;
const RX_RING = 0x8000;
const TX_DATA = 0x10000;
const RX_DATA = 0x500000;
const N = 64;

type Bench = DmaBench<TbDevice>;
const bench = (): Bench => new DmaBench((slot) => new TbDevice(slot));

const hi = (off: number): number => Math.floor((BASE + off) / 2 ** 32);

function desc(b: Bench, ring: number, slot: number, off: number, len: number, ctl: number): void {
  b.put(ring + slot * tb.TB_DESC_SIZE, BASE + off, hi(off), len, ctl);
}

const ctlOf = (b: Bench, ring: number, slot: number): number =>
  b.get(ring + slot * tb.TB_DESC_SIZE + tb.TB_D_CTL);
const lenOf = (b: Bench, ring: number, slot: number): number =>
  b.get(ring + slot * tb.TB_DESC_SIZE + tb.TB_D_LEN);

function start(b: Bench, count = N): Bench {
  for (let i = 0; i < count; i++) desc(b, TX_RING, i, 0, 0, 0);
  for (let i = 0; i < count; i++) desc(b, RX_RING, i, RX_DATA + i * 2048, 2048, OWN);
  b.w(tb.TB_TXBASEL, BASE + TX_RING);
  b.w(tb.TB_TXBASEH, hi(TX_RING));
  b.w(tb.TB_TXCNT, count);
  b.w(tb.TB_RXBASEL, BASE + RX_RING);
  b.w(tb.TB_RXBASEH, hi(RX_RING));
  b.w(tb.TB_RXCNT, count);
  b.w(tb.TB_IMR, tb.TB_INT_MASK);
  b.w(tb.TB_CMD, tb.TB_CMD_TXE | tb.TB_CMD_RXE);
  b.w(tb.TB_RXKICK, 1);
  return b;
}

const stat = (b: Bench, n: number): number => b.r(tb.TB_STATS + 4 * n);

describe('tb', () => {
  before(() => patternRam(BASE));

  it('implements its registers, and counts reads and writes that they do not allow', () => {
    const b = bench();
    expect(b.r(tb.TB_ID)).to.equal(0x54420001);
    expect(b.r(tb.TB_STATUS)).to.equal(tb.TB_STATUS_LINK);
    expect([b.r(tb.TB_MAC0), b.r(tb.TB_MAC1), b.r(tb.TB_MAXFRM)]).to.deep.equal([2, 0x100, 1518]);
    const bad = (access: () => unknown): boolean => {
      const before = stat(b, tb.TB_ST_BAD_REG);
      access();
      return stat(b, tb.TB_ST_BAD_REG) === before + 1;
    };
    for (const off of [0x1c, 0x34, 0x54, 0x74, 0x140, 0x200, 1, 0x06, tb.TB_TXKICK, tb.TB_ISET])
      expect(
        bad(() => expect(b.r(off)).to.equal(0xffffffff)),
        `read ${off}`,
      ).to.equal(true);
    for (const [off, value] of [
      [tb.TB_ID, 1],
      [tb.TB_STATUS, 1],
      [tb.TB_TXPOS, 1],
      [tb.TB_STATS, 1],
      [tb.TB_MAXFRM, 59],
      [tb.TB_MAXFRM, 9019],
      [tb.TB_TXKICK, 1],
      [tb.TB_RXKICK, 1],
      [tb.TB_IMR, 0x40],
      [tb.TB_RXCFG, 4],
      [tb.TB_CMD, 8],
      [3, 0],
    ] as const)
      expect(
        bad(() => b.w(off, value)),
        `write ${off} ${value}`,
      ).to.equal(true);
    for (const [off, value] of [
      [tb.TB_MAC0, 0x04030201],
      [tb.TB_MAC1, 0x0605],
      [tb.TB_HASH0, 0x80000001],
      [tb.TB_HASH1, 0xffffffff],
      [tb.TB_MAXFRM, 9018],
      [tb.TB_TXBASEL, 0xffffff00],
      [tb.TB_RXBASEH, 5],
      [tb.TB_IMR, 0x3f],
    ] as const) {
      expect(bad(() => b.w(off, value))).to.equal(false);
      expect(b.r(off)).to.equal(value);
    }
    b.w(tb.TB_CMD, tb.TB_CMD_RST);
    expect([b.r(tb.TB_MAC0), b.r(tb.TB_HASH1), b.r(tb.TB_IMR), b.r(tb.TB_TXBASEL)]).to.deep.equal([
      2, 0, 0, 0,
    ]);
    expect(stat(b, tb.TB_ST_BAD_REG), 'statistics survive a reset').to.be.above(10);
    b.dev.close();
  });

  it('stops transmission with TXSTOP and TXERR when the ring is invalid', () => {
    for (const [base, count] of [
      [0x4001, N],
      [0x4080, N],
      [0x4000, 7],
      [0x4000, 1025],
      [0x4000, 0],
      [SIZE, N],
      [0, N],
    ] as const) {
      const b = bench();
      b.w(tb.TB_TXBASEL, BASE + base);
      b.w(tb.TB_TXBASEH, hi(base));
      b.w(tb.TB_TXCNT, count);
      b.w(tb.TB_CMD, tb.TB_CMD_TXE);
      b.w(tb.TB_TXKICK, 1);
      expect(b.r(tb.TB_STATUS), `${base} ${count}`).to.equal(
        tb.TB_STATUS_LINK | tb.TB_STATUS_TXSTOP,
      );
      expect(b.r(tb.TB_ISR)).to.equal(tb.TB_INT_TXERR);
      b.dev.close();
    }
  });

  it('gathers descriptors into one frame, pads short frames, and returns all descriptors', () => {
    const b = start(bench());
    const bytes = makePacket({ payload: 500, cksum: 'full' });
    mem.set(bytes.subarray(0, 30), TX_DATA);
    mem.set(bytes.subarray(30, 31), TX_DATA + 5000);
    mem.set(bytes.subarray(31), TX_DATA + 9001);
    desc(b, TX_RING, 0, TX_DATA, 30, OWN);
    desc(b, TX_RING, 1, TX_DATA + 5000, 1, OWN);
    desc(b, TX_RING, 2, TX_DATA + 9001, bytes.length - 31, OWN | EOP | INT);
    desc(b, TX_RING, 3, TX_DATA, 20, OWN | EOP);
    b.w(tb.TB_TXKICK, 1);
    expect([...b.wire.sent[0]!]).to.deep.equal([...bytes]);
    expect([...b.wire.sent[1]!]).to.deep.equal([
      ...bytes.subarray(0, 20),
      ...Array.from({ length: 40 }, () => 0),
    ]);
    expect([0, 1, 2, 3].map((i) => ctlOf(b, TX_RING, i))).to.deep.equal([0, 0, EOP | INT, EOP]);
    expect([b.r(tb.TB_TXPOS), b.r(tb.TB_ISR), b.raised]).to.deep.equal([4, tb.TB_INT_TX, 1]);
    b.dev.close();
  });

  it('waits for EOP and for room on the wire, and counts wire errors and frames sent without link', () => {
    const b = start(bench());
    desc(b, TX_RING, 0, TX_DATA, 100, OWN);
    b.w(tb.TB_TXKICK, 1);
    expect([b.wire.sent.length, b.r(tb.TB_TXPOS)]).to.deep.equal([0, 0]);
    b.wire.room = 0;
    desc(b, TX_RING, 1, TX_DATA, 100, OWN | EOP);
    b.w(tb.TB_TXKICK, 1);
    expect([stat(b, tb.TB_ST_TX_WIRE_FULL), b.r(tb.TB_TXPOS), b.wire.armed]).to.deep.equal([
      1, 0, 1,
    ]);
    b.wire.drain(1);
    expect([b.wire.sent.length, b.r(tb.TB_TXPOS)]).to.deep.equal([1, 2]);
    b.wire.room = Infinity;
    b.wire.error = -EINVAL;
    desc(b, TX_RING, 2, TX_DATA, 100, OWN | EOP);
    b.w(tb.TB_TXKICK, 1);
    b.wire.error = 0;
    b.dev.wireState(false, EIO);
    desc(b, TX_RING, 3, TX_DATA, 100, OWN | EOP);
    b.w(tb.TB_TXKICK, 1);
    expect([stat(b, tb.TB_ST_TX_WIRE_ERROR), stat(b, tb.TB_ST_TX_NO_LINK)]).to.deep.equal([1, 1]);
    expect([b.r(tb.TB_STATUS), b.r(tb.TB_TXPOS)]).to.deep.equal([0, 4]);
    b.dev.close();
  });

  it('drops a bad packet with all its descriptors, and sends the next packet', () => {
    const bad: [number, number, number][][] = [
      [[TX_DATA, 0, EOP]],
      [[TX_DATA, 13, EOP]],
      [[TX_DATA, 16384, EOP]],
      [
        [TX_DATA, 9000, 0],
        [TX_DATA, 19, EOP],
      ],
      [[SIZE - 50, 60, EOP]],
      [[10, 60, EOP]],
      [
        [TX_DATA, 60, 0],
        [SIZE, 1, EOP],
      ],
      Array.from({ length: 33 }, (_, i): [number, number, number] => [
        TX_DATA,
        60,
        i < 32 ? 0 : EOP,
      ]),
    ];
    for (const pieces of bad) {
      const b = start(bench());
      pieces.forEach(([off, len, ctl], i) => desc(b, TX_RING, i, off, len, OWN | ctl));
      desc(b, TX_RING, pieces.length, TX_DATA, 60, OWN | EOP);
      b.w(tb.TB_TXKICK, 1);
      const ctls = pieces.map((_, i) => ctlOf(b, TX_RING, i));
      expect(ctls.every((ctl) => (ctl & (OWN | ERR)) >>> 0 === ERR)).to.equal(true);
      expect(stat(b, tb.TB_ST_TX_BAD), JSON.stringify(pieces)).to.equal(1);
      expect([b.wire.sent.length, b.r(tb.TB_TXPOS)]).to.deep.equal([1, pieces.length + 1]);
      expect(b.r(tb.TB_ISR) & tb.TB_INT_TXERR).to.not.equal(0);
      b.dev.close();
    }
    // A full ring without EOP in any descriptor.
    const b = start(bench(), 8);
    for (let i = 0; i < 8; i++) desc(b, TX_RING, i, TX_DATA, 60, OWN);
    b.w(tb.TB_TXKICK, 1);
    expect([stat(b, tb.TB_ST_TX_BAD), b.wire.sent.length]).to.deep.equal([1, 0]);
    expect(ctlOf(b, TX_RING, 7)).to.equal(ERR);
    b.dev.close();
  });

  it('fills buffers in order, stalls when too few are left, and resumes at RXKICK', () => {
    const b = start(bench());
    b.w(tb.TB_MAXFRM, 9018);
    const small = makePacket({ payload: 10, cksum: 'full' });
    const large = makePacket({ payload: 8900, cksum: 'full' });
    b.wire.inject(small, large);
    expect([ctlOf(b, RX_RING, 0), lenOf(b, RX_RING, 0)]).to.deep.equal([EOP, small.length]);
    const lens = [1, 2, 3, 4, 5].map((i) => lenOf(b, RX_RING, i));
    expect(lens).to.deep.equal([2048, 2048, 2048, 2048, large.length - 8192]);
    expect([4, 5].map((i) => ctlOf(b, RX_RING, i))).to.deep.equal([0, EOP]);
    expect([...mem.subarray(RX_DATA + 2048, RX_DATA + 2048 + 8192)]).to.deep.equal([
      ...large.subarray(0, 8192),
    ]);
    // 6 of the 64 buffers are used, and a frame of up to TB_MAXFRM may need 5.
    for (let i = 0; i < 60; i++) b.wire.inject(small);
    expect([b.wire.waiting, b.wire.readable, stat(b, tb.TB_ST_RX_NODESC)]).to.deep.equal([
      6,
      false,
      1,
    ]);
    expect(b.r(tb.TB_ISR) & tb.TB_INT_RXEMPTY).to.not.equal(0);
    for (let i = 0; i < 60; i++) desc(b, RX_RING, i, RX_DATA + i * 2048, 2048, OWN);
    b.w(tb.TB_RXKICK, 1);
    expect([b.wire.waiting, b.wire.readable]).to.deep.equal([0, true]);
    b.dev.close();
  });

  it('returns a bad buffer with ERR, and with it the good buffers before it that the frame would have used', () => {
    for (const [off, len] of [
      [RX_DATA, 1023],
      [RX_DATA, 16384],
      [SIZE - 1000, 2048],
      [0, 2048],
    ] as const) {
      const b = start(bench());
      desc(b, RX_RING, 0, off, len, OWN);
      b.wire.inject(makePacket({ payload: 100, cksum: 'full' }));
      expect([ctlOf(b, RX_RING, 0), lenOf(b, RX_RING, 0)]).to.deep.equal([ERR, 0]);
      expect(ctlOf(b, RX_RING, 1)).to.equal(EOP);
      expect(stat(b, tb.TB_ST_RX_BAD)).to.equal(1);
      b.dev.close();
    }
    const b = start(bench());
    b.w(tb.TB_MAXFRM, 5000);
    desc(b, RX_RING, 2, SIZE, 2048, OWN);
    b.wire.inject(makePacket({ payload: 100, cksum: 'full' }));
    expect([0, 1, 2, 3].map((i) => ctlOf(b, RX_RING, i))).to.deep.equal([ERR, ERR, ERR, EOP]);
    b.dev.close();
  });

  it('drops runts, oversized frames and frames for other addresses', () => {
    const b = start(bench());
    b.wire.inject(
      new Uint8Array(13),
      makePacket({ payload: 1465, cksum: 'full' }),
      makePacket({ payload: 9, dst: [2, 0, 0, 0, 0, 9], cksum: 'full' }),
      makePacket({ payload: 1464, cksum: 'full' }),
      makePacket({ payload: 9, dst: [255, 255, 255, 255, 255, 255], cksum: 'full' }),
    );
    const of = (...n: number[]): number[] => n.map((i) => stat(b, i));
    expect(
      of(tb.TB_ST_RX_RUNT, tb.TB_ST_RX_OVERSIZE, tb.TB_ST_RX_FILTERED, tb.TB_ST_RX_FRAMES),
    ).to.deep.equal([1, 1, 1, 2]);
    b.dev.close();
  });
});

describe('tb: fuzzing', function () {
  this.timeout(full ? 1_200_000 : 120_000);
  let reached = new Float64Array(tb.TB_NSTATS);

  before(() => patternRam(BASE));
  beforeEach(() => (reached = new Float64Array(tb.TB_NSTATS)));

  it(`${RUNS} random sequences of register accesses write only to RAM and device memory`, () => {
    const op = fc.oneof(
      fc.record({
        reg: fc.oneof(
          fc.nat(0x80).map((n) => n & ~3),
          fc.nat(0x240),
        ),
        value: fc.oneof(
          word,
          fc.nat(64),
          fc.nat(SIZE).map((n) => (BASE + n) & ~255),
        ),
      }),
      fc.record({ frame }),
      fc.record({ room: fc.nat(3) }),
      fc.record({ link: fc.boolean() }),
      fc.record({ ring: fc.nat(SIZE / 256).map((n) => n * 256), count: fc.nat(1100) }),
    );
    fc.assert(
      fc.property(fc.array(op, { maxLength: 60 }), (ops) => {
        const b = bench();
        for (const o of ops) {
          if ('reg' in o) {
            b.w(o.reg, o.value);
            const read = b.r(o.reg);
            expect(read >= 0 && read <= 0xffffffff && Number.isInteger(read)).to.equal(true);
          } else if ('frame' in o) b.wire.inject(o.frame);
          else if ('room' in o) b.wire.room = o.room;
          else if ('link' in o) b.dev.wireState(o.link, 0);
          else {
            b.w(tb.TB_CMD, 0);
            for (const first of [tb.TB_TXBASEL, tb.TB_RXBASEL]) {
              b.w(first, BASE + o.ring);
              b.w(first + 4, hi(o.ring));
              b.w(first + 8, o.count);
            }
            b.w(tb.TB_CMD, tb.TB_CMD_TXE | tb.TB_CMD_RXE);
            b.w(tb.TB_RXKICK, 1);
            b.w(tb.TB_TXKICK, 1);
          }
        }
        b.finish(reached);
        b.allowRam();
        b.expectUntouched(tb.TB_SRAM_SIZE);
      }),
      fuzzParams,
    );
    expectReached(reached, tb.tbStatNames, tb.TB_ST_BAD_REG, tb.TB_ST_DMA_FAULTS);
  });

  it(`${RUNS} random descriptor rings make it write only to owned buffers`, () => {
    const addr = fc.oneof(
      { weight: 6, arbitrary: fc.nat(SIZE - 0x30000).map((n) => BASE + 0x20000 + n) },
      fc.constantFrom(0, BASE, BASE + 4095, BASE + SIZE, BASE + SIZE - 1, BASE + SIZE - 2048),
      fc.nat(0xffffffff).map((n) => n * 2 ** 20),
    );
    const ctl = fc.oneof(
      { weight: 4, arbitrary: fc.constantFrom(OWN, OWN | EOP, OWN | EOP | INT) },
      { weight: 1, arbitrary: fc.oneof(fc.constant(0), word) },
    );
    const tx = fc.record({
      addr,
      len: fc.oneof(fc.nat(2000), fc.constantFrom(0, 1, 13, 14, 16383, 16384, 0xffffffff)),
      ctl,
    });
    const rx = fc.record({
      addr,
      len: fc.oneof(
        { weight: 5, arbitrary: fc.constantFrom(1024, 2048, 4096, 16383) },
        { weight: 1, arbitrary: fc.oneof(fc.constantFrom(0, 1023, 16384), word) },
      ),
    });
    fc.assert(
      fc.property(
        fc.integer({ min: 60, max: 9018 }),
        fc.array(tx, { minLength: N, maxLength: N }),
        fc.array(rx, { minLength: N, maxLength: N }),
        fc.array(frame, { maxLength: 20 }),
        fc.nat(3),
        (frameMax, txs, rxs, frames, cfg) => {
          const b = bench();
          const fill = (ring: number, i: number, a: number, len: number, c: number): void =>
            b.put(ring + i * tb.TB_DESC_SIZE, a, Math.floor(a / 2 ** 32), len, c);
          start(b);
          txs.forEach((d, i) => fill(TX_RING, i, d.addr, d.len, d.ctl));
          rxs.forEach((d, i) => fill(RX_RING, i, d.addr, d.len, OWN));
          b.w(tb.TB_MAXFRM, frameMax);
          b.w(tb.TB_RXCFG, cfg);
          b.wire.room = 1;
          b.wire.inject(...frames);
          for (let i = 0; i < 4; i++) b.w(tb.TB_TXKICK, i);
          b.finish(reached);
          b.allow(TX_RING, N * tb.TB_DESC_SIZE);
          b.allow(RX_RING, N * tb.TB_DESC_SIZE);
          for (const d of rxs) {
            const off = d.addr - BASE;
            const ok = d.len >= 1024 && d.len <= 16383 && off >= PAGE_SIZE && off + d.len <= SIZE;
            if (ok) b.allow(off, d.len);
          }
          b.expectUntouched(tb.TB_SRAM_SIZE);
        },
      ),
      fuzzParams,
    );
    expectReached(
      reached,
      tb.tbStatNames,
      tb.TB_ST_TX_FRAMES,
      tb.TB_ST_TX_BAD,
      tb.TB_ST_TX_WIRE_FULL,
      tb.TB_ST_RX_FRAMES,
      tb.TB_ST_RX_BAD,
      tb.TB_ST_RX_FILTERED,
      tb.TB_ST_RX_OVERSIZE,
      tb.TB_ST_DMA_FAULTS,
    );
  });
});
