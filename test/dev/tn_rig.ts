/** A `tn` without a driver: tests drive it through its registers and memory. */

import { ManualClock } from '../../src/host/manual_clock.ts';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import { busDmaInit } from '../../src/bus/bus_dma.ts';
import { RamDmaPort } from '../../src/bus/dma_port.ts';
import type { IntrLine } from '../../src/bus/device.ts';
import { TnDevice } from '../../src/dev/tn/tn.ts';
import type { TnMode } from '../../src/dev/tn/tn_core.ts';
import {
  TN_CTRL,
  TN_CTRL_RXE,
  TN_CTRL_TXE,
  TN_C_L3_SHIFT,
  TN_C_L4_SHIFT,
  TN_C_MSS,
  TN_D_LEN,
  TN_D_STAT,
  TN_DESC_SIZE,
  TN_RDBAH,
  TN_RDBAL,
  TN_RDLEN,
  TN_RDT,
  TN_TDBAH,
  TN_TDBAL,
  TN_TDLEN,
  TN_TDT,
  TN_TXD_CTX,
  TN_TXD_EOP,
  TN_TXD_RS,
} from '../../src/dev/tn/tnreg.ts';
import type { CaptureTap } from '../../src/sys/capture.ts';
import { deviceSramOff, mem, memView } from '../../src/vm/arena.ts';
import { vm_page_startup } from '../../src/vm/vm_page.ts';
import { resetReasons } from '../../src/sys/reason.ts';
import { FakeWire } from './fake_wire.ts';

export const MAC = Uint8Array.from([2, 0, 0, 0, 0, 1]);
/** RAM above 4 GiB, so that both halves of an address matter. */
export const BASE = 0x3_0000_0000;

export const TX_RING = 0x10000;
export const RX_RING = 0x20000;
/** Arena offsets of packets to send and of receive buffers. */
export const TX_DATA = 0x100000;
export const RX_DATA = 0x800000;

export interface RigOptions {
  mode?: TnMode;
  ntx?: number;
  nrx?: number;
  capture?: CaptureTap;
  base?: number;
  timer?: boolean;
}

export interface Context {
  cmd: number;
  l2?: number;
  l3: number;
  l4: number;
  mss?: number;
}

class CountingLine implements IntrLine {
  raised = 0;
  raise(): void {
    this.raised++;
  }
}

export class Rig {
  readonly clock = new ManualClock();
  readonly line = new CountingLine();
  readonly wire: FakeWire;
  readonly dma: RamDmaPort;
  readonly dev: TnDevice;
  readonly ntx: number;
  readonly nrx: number;
  readonly base: number;
  tail = 0;
  rxNext = 0;
  #data = TX_DATA;

  constructor(options: RigOptions = {}) {
    this.base = options.base ?? BASE;
    vm_page_startup(16 << 20, this.base);
    busDmaInit();
    resetReasons();
    this.ntx = options.ntx ?? 256;
    this.nrx = options.nrx ?? 64;
    const mode = options.mode ?? 'wire';
    this.wire = new FakeWire(mode === 'vnet');
    this.dma = new RamDmaPort();
    this.dev = new TnDevice({
      dma: this.dma,
      intr: this.line,
      wire: this.wire,
      cksum: new TsCksum(mem.buffer),
      clock: this.clock,
      mem,
      view: memView,
      sramOff: deviceSramOff(),
      mode,
      mac: MAC,
      capture: options.capture ?? null,
      timer: options.timer === true ? this.clock : null,
    });
  }

  w(reg: number, value: number): void {
    this.dev.write32(reg, value);
  }

  r(reg: number): number {
    return this.dev.read32(reg);
  }

  /** Sets up both rings and starts both engines; `ctrl` gives further TN_CTRL bits. */
  start(ctrl = 0): this {
    this.w(TN_TDBAL, (this.base + TX_RING) >>> 0);
    this.w(TN_TDBAH, Math.floor((this.base + TX_RING) / 2 ** 32));
    this.w(TN_TDLEN, this.ntx * TN_DESC_SIZE);
    this.w(TN_RDBAL, (this.base + RX_RING) >>> 0);
    this.w(TN_RDBAH, Math.floor((this.base + RX_RING) / 2 ** 32));
    this.w(TN_RDLEN, this.nrx * TN_DESC_SIZE);
    this.w(TN_CTRL, TN_CTRL_TXE | TN_CTRL_RXE | ctrl);
    return this;
  }

  /**
   * Writes a descriptor into transmit slot `tail` and advances `tail`, but not the tail register.
   */
  desc(words: [number, number, number, number]): number {
    const slot = this.tail;
    words.forEach((w, i) =>
      memView.setUint32(TX_RING + slot * TN_DESC_SIZE + 4 * i, w >>> 0, true),
    );
    this.tail = (slot + 1) % this.ntx;
    return slot;
  }

  context(c: Context): void {
    const lens = (c.l2 ?? 14) | (c.l3 << TN_C_L3_SHIFT) | (c.l4 << TN_C_L4_SHIFT);
    const slot = this.desc([lens, 0, 0, TN_TXD_CTX | c.cmd]);
    memView.setUint32(TX_RING + slot * TN_DESC_SIZE + TN_C_MSS, c.mss ?? 0, true);
  }

  data(off: number, len: number, cmd: number, tag = 0): number {
    const addr = this.base + off;
    return this.desc([addr, Math.floor(addr / 2 ** 32), len + tag * 65536, cmd]);
  }

  /**
   * Copies bytes into RAM in pieces of the lengths `cuts`, with gaps, and writes their descriptors.
   */
  packet(bytes: Uint8Array, cuts: number[] = [], firstCmd = 0, tag = 0): number {
    const lens = [...cuts];
    const rest = bytes.length - cuts.reduce((a, b) => a + b, 0);
    if (rest > 0) lens.push(rest);
    let at = 0;
    let slot = 0;
    lens.forEach((len, i) => {
      mem.set(bytes.subarray(at, at + len), this.#data);
      const cmd = (i === 0 ? firstCmd : 0) | (i === lens.length - 1 ? TN_TXD_EOP | TN_TXD_RS : 0);
      slot = this.data(this.#data, len, cmd, i === 0 ? tag : 0);
      at += len;
      this.#data += len + 37;
    });
    return slot;
  }

  doorbell(): void {
    this.w(TN_TDT, this.tail);
  }

  txStatus(slot: number): number {
    return memView.getUint32(TX_RING + slot * TN_DESC_SIZE + TN_D_STAT, true);
  }

  /** Writes a buffer of `size` bytes into every receive slot, and posts all but the last. */
  postAll(size = 2048): void {
    for (let i = 0; i < this.nrx; i++) this.post(i, RX_DATA + i * size);
    this.w(TN_RDT, this.nrx - 1);
  }

  post(slot: number, off: number): void {
    const addr = this.base + off;
    const at = RX_RING + slot * TN_DESC_SIZE;
    memView.setUint32(at, addr >>> 0, true);
    memView.setUint32(at + 4, Math.floor(addr / 2 ** 32), true);
    memView.setUint32(at + TN_D_LEN, 0, true);
    memView.setUint32(at + TN_D_STAT, 0, true);
  }

  rx(slot: number): { status: number; len: number; tag: number } {
    const at = RX_RING + slot * TN_DESC_SIZE;
    const lenTag = memView.getUint32(at + TN_D_LEN, true);
    return {
      status: memView.getUint32(at + TN_D_STAT, true),
      len: lenTag & 0xffff,
      tag: lenTag >>> 16,
    };
  }

  rxBytes(slot: number, len: number, size = 2048): Uint8Array {
    return mem.slice(RX_DATA + slot * size, RX_DATA + slot * size + len);
  }
}
