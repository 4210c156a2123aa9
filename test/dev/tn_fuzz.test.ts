/**
 * A hostile driver: any register write, any descriptor. The device must not throw, hang, or write a
 * byte that no descriptor gave it. fast-check prints seed and path of a failure; `FC_SEED` replays
 * it.
 */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { EAGAIN } from '../../src/sys/errno.ts';
import { resetReasons } from '../../src/sys/reason.ts';
import { deviceSramOff, mem, memView, PAGE_SIZE, ramBytes } from '../../src/vm/arena.ts';
import { vm_page_startup } from '../../src/vm/vm_page.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import { busDmaInit } from '../../src/bus/bus_dma.ts';
import { RamDmaPort } from '../../src/bus/dma_port.ts';
import { TnDevice } from '../../src/dev/tn/tn.ts';
import {
  TN_CTRL,
  TN_CTRL_RST,
  TN_CTRL_RXE,
  TN_CTRL_TXE,
  TN_DESC_SIZE,
  TN_MAXFRM,
  TN_NSTATS,
  TN_RDBAH,
  TN_RDBAL,
  TN_RDLEN,
  TN_RDT,
  TN_RXBSZ,
  TN_SRAM_SIZE,
  TN_ST_BAD_REG,
  TN_ST_DMA_FAULTS,
  TN_ST_RX_BAD,
  TN_ST_RX_FILTERED,
  TN_ST_RX_FRAMES,
  TN_ST_RX_OVERSIZE,
  TN_ST_TX_BAD,
  TN_ST_TX_FRAMES,
  TN_ST_TX_TSO,
  TN_ST_TX_WIRE_FULL,
  TN_TDBAH,
  TN_TDBAL,
  TN_TDLEN,
  TN_TDT,
  tnStatNames,
} from '../../src/dev/tn/tnreg.ts';
import { full } from '../support/needs.ts';
import { FakeWire } from './fake_wire.ts';
import { DSTOPTS, FRAGMENT, HOPOPTS, makePacket, ROUTING } from './judge.ts';

const BASE = 0xff80_0000; // RAM crosses the 4 GiB line
const SIZE = 16 << 20;
const RUNS = full ? 20_000 : 500;
const seed = process.env['FC_SEED'];
const params = { numRuns: RUNS, ...(seed === undefined ? {} : { seed: Number(seed) }) };
const MAC = Uint8Array.from([2, 0, 0, 0, 0, 1]);

const TX_RING = 0x4000;
const RX_RING = 0x8000;
const NDESC = 64;

let pristine: Buffer;
let expected: Buffer;
/**
 * Statistics summed over all runs; expectReached checks that the fuzzer reaches the paths it tests.
 */
let reached = new Float64Array(TN_NSTATS);

/** A transmit descriptor: data, or a context. */
type TxDesc =
  | { addr: number; len: number; tag: number; cmd: number }
  | { lens: number; mss: number; cmd: number };

interface Bench {
  dev: TnDevice;
  wire: FakeWire;
  clock: ManualClock;
}

function bench(vnet: boolean): Bench {
  mem.set(pristine);
  expected.set(pristine);
  resetReasons();
  const clock = new ManualClock();
  const wire = new FakeWire(vnet);
  wire.keep = false;
  const dev = new TnDevice({
    dma: new RamDmaPort(),
    intr: { raise: () => {} },
    wire,
    cksum: new TsCksum(mem.buffer),
    clock,
    mem,
    view: memView,
    sramOff: deviceSramOff(),
    mode: vnet ? 'vnet' : 'wire',
    mac: MAC,
  });
  return { dev, wire, clock };
}

/**
 * Accepts the present content of a range: the device was allowed to write there, or the test did.
 */
function allow(off: number, len: number): void {
  expected.set(mem.subarray(off, off + len), off);
}

function expectUntouched(): void {
  allow(deviceSramOff(), TN_SRAM_SIZE);
  const now = Buffer.from(mem.buffer);
  if (now.equals(expected)) return;
  const at = now.findIndex((byte, i) => byte !== expected[i]);
  expect.fail(`the device wrote at 0x${at.toString(16)}`);
}

/** Runs the device's posted turns to their end. */
function settle({ clock, wire }: Bench): void {
  wire.drain(100_000);
  clock.runPosted();
}

function finish(b: Bench): void {
  settle(b);
  b.dev.stats.forEach((n, i) => (reached[i]! += n));
  b.dev.close();
}

function expectReached(...stats: number[]): void {
  const short = stats.filter((st) => reached[st]! < RUNS / 100).map((st) => tnStatNames[st]!);
  expect(short, 'statistics below one per hundred runs').to.deep.equal([]);
}

const word = fc.oneof(
  fc.nat(0xffffffff),
  fc.constantFrom(0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0),
);
const frame = fc.oneof(
  fc
    .record({
      payload: fc.nat(3000),
      v6: fc.boolean(),
      exts: fc.array(
        fc.record({
          type: fc.constantFrom(HOPOPTS, ROUTING, FRAGMENT, DSTOPTS, 51),
          units: fc.constantFrom(0, 1, 26, 27, 255),
          left: fc.constantFrom(0, 0, 1),
        }),
        { maxLength: 10 },
      ),
      udp: fc.boolean(),
      vlan: fc.nat(0xffff),
      dst: fc.constantFrom<number[]>([...MAC], [2, 0, 0, 0, 0, 7], [1, 0, 0x5e, 0, 0, 1]),
    })
    .map((o) => makePacket({ ...o, cksum: 'full' })),
  fc.uint8Array({ maxLength: 200 }),
  fc
    .tuple(
      fc.uint8Array({ minLength: 14, maxLength: 100 }),
      fc.constantFrom(0x0800, 0x86dd, 0x8100),
    )
    .map(([bytes, type]) => {
      bytes.set(MAC);
      bytes[12] = type >>> 8;
      bytes[13] = type & 0xff;
      return bytes;
    }),
);

/** Addresses inside RAM, and any. */
const goodAddr = fc.nat(SIZE - 0x20000).map((n) => BASE + 0x10000 + n);
const addr = fc.oneof(
  { weight: 6, arbitrary: goodAddr },
  fc.constantFrom(0, BASE, BASE + 4095, BASE + SIZE, BASE + SIZE - 1, BASE + SIZE - 2048),
  fc.nat(0xffffffff),
  fc.nat(0xffffffff).map((n) => n * 2 ** 20),
);
const txDesc = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      addr,
      len: fc.oneof(fc.nat(2000), fc.nat(0xffff), fc.constantFrom(0, 1, 13, 14, 0xffff)),
      tag: fc.nat(0xffff),
      cmd: fc.oneof(fc.constantFrom(0, 1, 3, 8, 11), fc.nat(0x1ff), word),
    }),
  },
  fc.record({
    lens: fc.oneof(fc.constantFrom(14 | (20 << 8) | (20 << 17), 14 | (40 << 8) | (32 << 17)), word),
    mss: fc.oneof(fc.nat(2000), word),
    cmd: fc
      .oneof(fc.constantFrom(0x10, 0x30, 0x130, 0x170, 0x1e0), fc.nat(0x1ff))
      .map((c) => c | 4),
  }),
);
// A valid TSO packet, so that fuzzed descriptors also reach an engine that is busy.
const tso = fc
  .record({
    addr: goodAddr,
    len: fc.integer({ min: 1000, max: 9000 }),
    mss: fc.integer({ min: 60, max: 1460 }),
  })
  .map((o): TxDesc[] => [
    { lens: 14 | (20 << 8) | (20 << 17), mss: o.mss, cmd: 0x174 },
    { addr: o.addr, len: o.len, tag: 0, cmd: 3 },
  ]);
const txDescs = fc.oneof({ weight: 4, arbitrary: txDesc.map((d): TxDesc[] => [d]) }, tso);
const vnetHdr = fc.uint8Array({ minLength: 12, maxLength: 12 });
const rxDesc = fc.record({ addr });

const inRam = fc.nat(SIZE - 1).map((n) => (BASE + n) >>> 0);
/** An access of a driver, or an event. */
const op = fc.oneof(
  fc.record({
    reg: fc.oneof(
      fc.constantFrom(0, 4, 0x10, 0x14, 0x18, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x40, 0x44),
      fc.constantFrom(TN_TDBAL, TN_TDBAH, TN_TDLEN, TN_TDT, TN_RDBAL, TN_RDBAH, TN_RDLEN),
      fc.constantFrom(TN_RDT, TN_RXBSZ, TN_CTRL, TN_CTRL, TN_TDT, TN_MAXFRM),
      fc.nat(0x1200),
    ),
    value: fc.oneof(
      word,
      inRam,
      fc.nat(128),
      fc.nat(8192),
      fc.nat(600).map((n) => n * 128),
      fc.constantFrom(2, 4, 6, 0x7e, 0x1fe),
    ),
  }),
  fc.record({ frame }),
  fc.record({ room: fc.nat(3) }),
  fc.record({ event: fc.constantFrom('wireReadable', 'wireWritable', 'posted') }),
  fc.record({ read: fc.oneof(fc.nat(0x1200), word) }),
  fc.record({ ctrl: fc.constantFrom(TN_CTRL_RST, 0, TN_CTRL_RXE, TN_CTRL_TXE) }),
  fc.record({ link: fc.boolean() }),
  // Rings inside RAM or partly outside it. The bytes that lie there are their descriptors.
  fc.record({
    ring: fc.nat(SIZE / 128 - 1).map((n) => BASE + n * 128),
    len: fc.oneof(fc.integer({ min: 1, max: 512 }), fc.nat(70_000)).map((n) => n * 128),
    tail: fc.nat(4096),
  }),
);

describe('tn: fuzzing', function () {
  this.timeout(full ? 1_200_000 : 120_000);

  beforeEach(() => {
    reached = new Float64Array(TN_NSTATS);
  });

  before(() => {
    vm_page_startup(SIZE, BASE);
    busDmaInit();
    pristine = Buffer.alloc(mem.length);
    for (let i = 0; i < pristine.length; i++) pristine[i] = (i * 167 + (i >>> 12)) & 0xff;
    expected = Buffer.alloc(mem.length);
  });

  it(`${RUNS} random sequences of register accesses write only to RAM and device memory`, () => {
    fc.assert(
      fc.property(fc.boolean(), fc.array(op, { maxLength: 60 }), (vnet, ops) => {
        const b = bench(vnet);
        for (const o of ops) {
          if ('reg' in o) {
            b.dev.write32(o.reg, o.value);
            const read = b.dev.read32(o.reg);
            expect(read >= 0 && read <= 0xffffffff && Number.isInteger(read)).to.equal(true);
          } else if ('frame' in o) {
            b.wire.injectRaw(o.frame);
          } else if ('event' in o) {
            if (o.event === 'posted') b.clock.runPosted();
            else b.wire.listener?.[o.event as 'wireReadable']();
          } else if ('read' in o) {
            expect(b.dev.read32(o.read)).to.be.within(0, 0xffffffff);
          } else if ('ctrl' in o) {
            b.dev.write32(TN_CTRL, o.ctrl);
          } else if ('room' in o) {
            b.wire.room = o.room;
          } else if ('link' in o) {
            b.wire.listener?.wireState(o.link, 0);
          } else {
            b.dev.write32(TN_CTRL, 0);
            for (const [reg, value] of [
              [TN_TDBAL, o.ring],
              [TN_TDBAH, Math.floor(o.ring / 2 ** 32)],
              [TN_TDLEN, o.len],
              [TN_RDBAL, o.ring],
              [TN_RDBAH, Math.floor(o.ring / 2 ** 32)],
              [TN_RDLEN, o.len],
              [TN_CTRL, TN_CTRL_RXE | TN_CTRL_TXE],
              [TN_RDT, o.tail],
              [TN_TDT, o.tail],
            ] as const)
              b.dev.write32(reg, value >>> 0);
          }
        }
        finish(b);
        // The rings may lie anywhere in RAM, so the device may write anywhere in RAM, but not
        // elsewhere.
        allow(PAGE_SIZE, ramBytes - PAGE_SIZE);
        expectUntouched();
      }),
      params,
    );
    expectReached(TN_ST_BAD_REG, TN_ST_DMA_FAULTS, TN_ST_TX_BAD, TN_ST_RX_BAD);
  });

  it(`${RUNS} random descriptor rings make it write only to posted buffers`, () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.constantFrom(0, 0x18, 0x20, 0x40, 0x60, 0x78, 0x100, 0x140, 0x1f8),
        fc.constantFrom(2048, 4096),
        fc.integer({ min: 60, max: 70_000 }),
        fc.array(txDescs, { maxLength: NDESC - 1 }).map((a) => a.flat().slice(0, NDESC - 1)),
        fc.array(rxDesc, { minLength: NDESC, maxLength: NDESC }),
        fc.array(fc.tuple(frame, vnetHdr), { maxLength: 20 }),
        fc.array(fc.nat(NDESC + 2), { maxLength: 6 }),
        (vnet, ctrl, bufSize, maxFrame, tx, rx, frames, tails) => {
          const b = bench(vnet);
          const put = (at: number, w: number[]): void =>
            w.forEach((v, i) => memView.setUint32(at + 4 * i, v >>> 0, true));
          tx.forEach((d, i) => {
            const at = TX_RING + i * TN_DESC_SIZE;
            if ('lens' in d) put(at, [d.lens, d.mss, 0, d.cmd]);
            else put(at, [d.addr, Math.floor(d.addr / 2 ** 32), d.len + d.tag * 65536, d.cmd]);
          });
          rx.forEach((d, i) =>
            put(RX_RING + i * TN_DESC_SIZE, [d.addr, Math.floor(d.addr / 2 ** 32), 0, 0]),
          );
          // The test wrote the rings, not the device.
          allow(TX_RING, NDESC * TN_DESC_SIZE);
          allow(RX_RING, NDESC * TN_DESC_SIZE);
          const w = (reg: number, value: number): void => b.dev.write32(reg, value >>> 0);
          w(TN_TDBAL, BASE + TX_RING);
          w(TN_RDBAL, BASE + RX_RING);
          w(TN_TDLEN, NDESC * TN_DESC_SIZE);
          w(TN_RDLEN, NDESC * TN_DESC_SIZE);
          w(TN_RXBSZ, bufSize);
          w(TN_MAXFRM, maxFrame);
          w(TN_CTRL, TN_CTRL_TXE | TN_CTRL_RXE | ctrl);
          b.wire.room = 5;
          w(TN_RDT, NDESC - 1);
          for (const [f, hdr] of frames)
            b.wire.injectRaw(vnet ? Uint8Array.from([...hdr, ...f]) : f);
          for (const t of tails) w(TN_TDT, t);
          w(TN_TDT, tx.length);
          finish(b);
          allow(TX_RING, NDESC * TN_DESC_SIZE);
          allow(RX_RING, NDESC * TN_DESC_SIZE);
          for (const d of rx) {
            const off = d.addr - BASE;
            if (off >= PAGE_SIZE && off + bufSize <= SIZE) allow(off, bufSize);
          }
          expectUntouched();
        },
      ),
      params,
    );
    expectReached(TN_ST_TX_FRAMES, TN_ST_TX_TSO, TN_ST_TX_BAD, TN_ST_TX_WIRE_FULL);
    expectReached(TN_ST_RX_FRAMES, TN_ST_RX_BAD, TN_ST_RX_FILTERED, TN_ST_RX_OVERSIZE);
  });

  it('posts no endless turns on a wire that never has room', () => {
    const b = bench(false);
    b.wire.error = -EAGAIN;
    settle(b);
    expect(b.wire.armed).to.equal(0);
  });
});
