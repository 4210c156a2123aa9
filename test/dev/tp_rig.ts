/** A `tp` on a wire held by the test, with a minimal driver. */

import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { resetReasons } from '../../src/sys/reason.ts';
import { passReset } from '../../src/sys/pass.ts';
import { deviceSramOff, mem, memView } from '../../src/vm/arena.ts';
import { vm_page_startup } from '../../src/vm/vm_page.ts';
import { TpDevice } from '../../src/dev/tp/tp.ts';
import {
  TP_BNRY,
  TP_CR,
  TP_CR_RRD,
  TP_CR_RST,
  TP_CR_RWR,
  TP_CR_STA,
  TP_CR_TXP,
  TP_CURR,
  TP_DATA,
  TP_IMR,
  TP_INT_MASK,
  TP_INT_RDC,
  TP_ISR,
  TP_NPAGES,
  TP_PAGE_SIZE,
  TP_PSTART,
  TP_PSTOP,
  TP_RBCR,
  TP_RCR,
  TP_RCR_AB,
  TP_RSAR,
  TP_SRAM_SIZE,
  TP_STATS,
  TP_TBCR,
  TP_TPSR,
} from '../../src/dev/tp/tpreg.ts';
import { FakeWire } from './fake_wire.ts';

export const MAC = [2, 0, 0, 0, 0, 1];
const PEER = [2, 0, 0, 0, 0, 2];

/** A frame of `len` bytes for `dst`; `seed` selects its payload. */
export function frameOf(len: number, seed = 0, dst = MAC): Uint8Array {
  const frame = Uint8Array.from({ length: len }, (_, i) => (i * 7 + seed) & 0xff);
  frame.set(dst.slice(0, len));
  if (len >= 14) frame.set([...PEER, 0x88, 0xb5], 6);
  return frame;
}

/** The frame as it is on the wire: padded to 60 bytes. */
export function padded(frame: Uint8Array): Uint8Array {
  if (frame.length >= 60) return frame;
  const out = new Uint8Array(60);
  out.set(frame);
  return out;
}

export class TpRig {
  readonly clock = new ManualClock();
  readonly wire = new FakeWire();
  readonly dev: TpDevice;
  /** Number of interrupts raised. */
  raised = 0;
  /** The ring for `take`: its first page, the page past its end, the next page to read. */
  first = 0;
  stop = 0;
  next = 0;

  constructor() {
    passReset();
    vm_page_startup(16 << 20, 0);
    resetReasons();
    // A pattern around the device's own memory; `close` checks that it is unchanged.
    mem.fill(0xaa, deviceSramOff() - 4096, deviceSramOff());
    mem.fill(0xaa, deviceSramOff() + TP_SRAM_SIZE, deviceSramOff() + TP_SRAM_SIZE + 4096);
    this.dev = new TpDevice({
      intr: { raise: () => void this.raised++ },
      wire: this.wire,
      clock: this.clock,
      mem,
      view: memView,
      sramOff: deviceSramOff(),
      mac: Uint8Array.from(MAC),
    });
  }

  rd(reg: number): number {
    return this.dev.read32(reg);
  }

  wr(reg: number, value: number): void {
    this.dev.write32(reg, value);
  }

  stat(n: number): number {
    expect(this.rd(TP_STATS + 4 * n)).to.equal(this.dev.stats[n]! >>> 0);
    return this.dev.stats[n]!;
  }

  /** Starts receiving into the ring of pages `first` to `stop`, all causes unmasked. */
  ring(first = 12, stop = TP_NPAGES): this {
    this.wr(TP_CR, TP_CR_RST);
    this.first = this.next = first;
    this.stop = stop;
    this.wr(TP_PSTART, first);
    this.wr(TP_PSTOP, stop);
    this.wr(TP_BNRY, first);
    this.wr(TP_CURR, first);
    this.wr(TP_RCR, TP_RCR_AB);
    this.wr(TP_IMR, TP_INT_MASK);
    this.wr(TP_CR, TP_CR_STA);
    return this;
  }

  /** Reads packet memory through the data port. */
  peek(addr: number, len: number): Uint8Array {
    this.wr(TP_RSAR, addr);
    this.wr(TP_RBCR, len);
    this.wr(TP_CR, TP_CR_RRD);
    const out = new Uint8Array(len);
    for (let i = 0; i < len; i += 4) {
      const word = this.rd(TP_DATA);
      for (let k = 0; k < 4 && i + k < len; k++) out[i + k] = (word >>> (8 * k)) & 0xff;
    }
    expect(this.rd(TP_ISR) & TP_INT_RDC).to.equal(TP_INT_RDC);
    this.wr(TP_ISR, TP_INT_RDC);
    return out;
  }

  /** Writes packet memory through the data port. */
  poke(addr: number, bytes: Uint8Array): void {
    this.wr(TP_RSAR, addr);
    this.wr(TP_RBCR, bytes.length);
    this.wr(TP_CR, TP_CR_RWR);
    for (let i = 0; i < bytes.length; i += 4) {
      let word = 0;
      for (let k = 0; k < 4; k++) word |= (bytes[i + k] ?? 0xee) << (8 * k);
      this.wr(TP_DATA, word);
    }
    expect(this.rd(TP_ISR) & TP_INT_RDC).to.equal(TP_INT_RDC);
    this.wr(TP_ISR, TP_INT_RDC);
  }

  send(frame: Uint8Array, page = 0): void {
    this.poke(page * TP_PAGE_SIZE, frame);
    this.wr(TP_TPSR, page);
    this.wr(TP_TBCR, frame.length);
    this.wr(TP_CR, TP_CR_TXP);
  }

  /** Takes the oldest frame from the ring and frees its pages; null if the ring is empty. */
  take(): Uint8Array | null {
    if (this.next === this.rd(TP_CURR)) return null;
    const at = this.next * TP_PAGE_SIZE;
    const [status, next, lenLo, lenHi] = this.peek(at, 4);
    expect(status! & 1).to.equal(1);
    const len = lenLo! | (lenHi! << 8);
    const first = Math.min(len, this.stop * TP_PAGE_SIZE - at - 4);
    const frame = new Uint8Array(len);
    if (first > 0) frame.set(this.peek(at + 4, first));
    if (first < len) frame.set(this.peek(this.first * TP_PAGE_SIZE, len - first), first);
    this.next = next!;
    this.wr(TP_BNRY, this.next);
    return frame;
  }

  takeAll(): Uint8Array[] {
    const frames: Uint8Array[] = [];
    for (let f = this.take(); f !== null; f = this.take()) frames.push(f);
    return frames;
  }

  /** Closes the device, and checks that the memory around its own is unchanged. */
  close(): void {
    this.dev.close();
    const before = mem.subarray(deviceSramOff() - 4096, deviceSramOff());
    const end = deviceSramOff() + TP_SRAM_SIZE;
    expect(
      before.every((b) => b === 0xaa) && mem.subarray(end, end + 4096).every((b) => b === 0xaa),
      'memory around the device',
    ).to.equal(true);
  }
}
