/**
 * Shared by the fuzzers of devices: RAM filled with a pattern, a check that a device wrote only
 * where it was allowed to, and generators of frames and words.
 */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { resetReasons } from '../../src/sys/reason.ts';
import { deviceSramOff, mem, memView, PAGE_SIZE, ramBytes } from '../../src/vm/arena.ts';
import { vm_page_startup } from '../../src/vm/vm_page.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import type { CksumKernel } from '../../src/sys/cksum.ts';
import type { MmioRegion } from '../../src/bus/device.ts';
import { busDmaInit } from '../../src/bus/bus_dma.ts';
import { RamDmaPort } from '../../src/bus/dma_port.ts';
import { full } from '../support/needs.ts';
import { FakeWire } from './fake_wire.ts';
import { makePacket } from './judge.ts';

export const MAC = Uint8Array.from([2, 0, 0, 0, 0, 1]);
/** Bytes of RAM. */
export const SIZE = 16 << 20;

export const RUNS = full ? 5000 : 240;
const seed = process.env['FC_SEED'];
export const fuzzParams = { numRuns: RUNS, ...(seed === undefined ? {} : { seed: Number(seed) }) };

/** The constructor arguments of a device under test. */
export interface Slot {
  readonly dma: RamDmaPort;
  readonly intr: { raise(): void };
  readonly wire: FakeWire;
  readonly cksum: CksumKernel;
  readonly clock: ManualClock;
  readonly mem: Uint8Array;
  readonly view: DataView;
  readonly sramOff: number;
  readonly mac: Uint8Array;
}

export interface TestDevice extends MmioRegion {
  readonly stats: Float64Array;
  close(): void;
}

let pristine = Buffer.alloc(0);
let expected = Buffer.alloc(0);

/** Boots RAM at `base` and fills it with a pattern in which each byte depends on its offset. */
export function patternRam(base: number): void {
  vm_page_startup(SIZE, base);
  busDmaInit();
  pristine = Buffer.alloc(mem.length);
  for (let i = 0; i < pristine.length; i++) pristine[i] = (i * 167 + (i >>> 12)) & 0xff;
  expected = Buffer.alloc(mem.length);
}

/** A device on RAM that holds only the pattern. */
export class DmaBench<D extends TestDevice> {
  readonly wire = new FakeWire();
  readonly clock = new ManualClock();
  readonly dev: D;
  raised = 0;

  constructor(build: (slot: Slot) => D) {
    mem.set(pristine);
    expected.set(pristine);
    resetReasons();
    this.dev = build({
      dma: new RamDmaPort(),
      intr: { raise: () => void this.raised++ },
      wire: this.wire,
      cksum: new TsCksum(mem.buffer),
      clock: this.clock,
      mem,
      view: memView,
      sramOff: deviceSramOff(),
      mac: MAC,
    });
  }

  w(reg: number, value: number): void {
    this.dev.write32(reg, value >>> 0);
  }

  r(reg: number): number {
    return this.dev.read32(reg);
  }

  /** Writes words at an arena offset, as a driver would. */
  put(off: number, ...words: number[]): void {
    words.forEach((word, i) => memView.setUint32(off + 4 * i, word >>> 0, true));
  }

  get(off: number): number {
    return memView.getUint32(off, true);
  }

  /**
   * Accepts the present content of a range: the device was allowed to write there, or the test did.
   */
  allow(off: number, len: number): void {
    expected.set(mem.subarray(off, off + len), off);
  }

  /** Allows all of RAM except frame 0, for tests whose rings may lie anywhere. */
  allowRam(): void {
    this.allow(PAGE_SIZE, ramBytes - PAGE_SIZE);
  }

  /**
   * Runs the posted turns to their end, adds the statistics to `reached`, and closes the device.
   */
  finish(reached: Float64Array): void {
    this.wire.drain(100_000);
    this.clock.runPosted();
    this.dev.stats.forEach((n, i) => (reached[i]! += n));
    this.dev.close();
  }

  expectUntouched(sramBytes: number): void {
    this.allow(deviceSramOff(), sramBytes);
    const now = Buffer.from(mem.buffer);
    if (now.equals(expected)) return;
    const at = now.findIndex((byte, i) => byte !== expected[i]);
    expect.fail(`the device wrote at 0x${at.toString(16)}`);
  }
}

/**
 * What the sum of a statistic must reach. With few runs more than one is left to chance: a path that
 * one run in forty reaches has a sum of 0 in one of ten series of 80.
 */
const LEAST = full ? RUNS / 100 : 1;

/** Fails if the sum of a statistic is below LEAST: the fuzzer does not reach that path. */
export function expectReached(
  reached: Float64Array,
  names: readonly string[],
  ...stats: number[]
): void {
  const short = stats.filter((st) => reached[st]! < LEAST).map((st) => names[st]!);
  expect(short, `statistics below ${LEAST}`).to.deep.equal([]);
}

export const word: fc.Arbitrary<number> = fc.oneof(
  fc.nat(0xffffffff),
  fc.constantFrom(0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0),
);

export const frame: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc
    .record({
      payload: fc.nat(2000),
      v6: fc.boolean(),
      udp: fc.boolean(),
      spoil: fc.constantFrom(0, 0, 1),
      dst: fc.constantFrom<number[]>([...MAC], [...MAC], [2, 0, 0, 0, 0, 7], [1, 0, 0x5e, 0, 0, 1]),
    })
    .map((o) => makePacket({ ...o, cksum: 'full' })),
  fc.uint8Array({ maxLength: 200 }),
  fc
    .tuple(fc.uint8Array({ minLength: 14, maxLength: 100 }), fc.constantFrom(0x0800, 0x86dd))
    .map(([bytes, type]) => {
      bytes.set(MAC);
      bytes[12] = type >>> 8;
      bytes[13] = type & 0xff;
      return bytes;
    }),
);
