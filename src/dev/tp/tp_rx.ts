/**
 * The receive engine of `tp`: a FIFO takes a frame off the wire, the filter looks at it, and what is
 * for us goes into the ring of pages with a header in front. A frame that finds too little room is
 * lost, as on a card without flow control, and so is all that follows until the driver has
 * recovered the ring. Left out: frames with errors, which a TAP does not deliver.
 */

import { CAPTURE_IN, CAPTURE_WIRE } from '../../sys/capture.ts';
import type { Task } from '../../sys/clock.ts';
import { EAGAIN } from '../../sys/errno.ts';
import {
  count,
  R_DEV_RX_FILTER,
  R_DEV_RX_OVERFLOW,
  R_DEV_RX_OVERSIZE,
  R_DEV_RX_RUNT,
} from '../../sys/reason.ts';
import type { TpCore } from './tp_core.ts';
import {
  TP_FRAME_MAX,
  TP_FRAME_RUNT,
  TP_INT_OVW,
  TP_INT_PRX,
  TP_MEM_SIZE,
  TP_NPAGES,
  TP_PAGE_SIZE,
  TP_RCR_AB,
  TP_RCR_ALLMULTI,
  TP_RCR_AM,
  TP_RCR_PRO,
  TP_RING_MIN,
  TP_RX_BUDGET,
  TP_RXHDR_LEN_SHIFT,
  TP_RXHDR_NEXT_SHIFT,
  TP_RXHDR_SIZE,
  TP_RXS_GROUP,
  TP_RXS_OK,
  TP_ST_RX_BYTES,
  TP_ST_RX_FILTERED,
  TP_ST_RX_FRAMES,
  TP_ST_RX_MISSED,
  TP_ST_RX_OVERFLOWS,
  TP_ST_RX_OVERSIZE,
  TP_ST_RX_RUNT,
} from './tpreg.ts';

/** The FIFO lies behind packet memory; a frame that is longer than the longest still fits. */
const FIFO_OFF = TP_MEM_SIZE;
const FIFO_BYTES = 2048;

export class TpRx implements Task {
  pstart = 0;
  pstop = 0;
  bnry = 0;
  curr = 0;
  rcr = 0;
  /** The ring overflowed and has not been recovered. */
  halted = false;
  running = false;
  readonly mac = new Uint8Array(6);
  readonly mta = new Uint32Array(2);
  readonly #core: TpCore;
  readonly #iov = new Uint32Array(2);
  #causes = 0;
  #posted = false;

  constructor(core: TpCore) {
    this.#core = core;
    this.#iov[0] = core.sramOff + FIFO_OFF;
    this.#iov[1] = FIFO_BYTES;
  }

  /** Whether PSTART, PSTOP, BNRY and CURR describe a ring. */
  get ringGood(): boolean {
    const { pstart, pstop, bnry, curr } = this;
    const inRing = bnry >= pstart && bnry < pstop && curr >= pstart && curr < pstop;
    return pstop <= TP_NPAGES && pstop - pstart >= TP_RING_MIN && inRing;
  }

  /** Begins to receive; the ring is good. */
  start(): void {
    this.running = true;
    this.halted = false;
    this.#core.wire.setReadable(true);
  }

  stop(): void {
    if (this.running) this.#core.wire.setReadable(false);
    this.running = false;
    this.halted = false;
  }

  /** The wire came back. */
  wireBack(): void {
    if (this.running) this.#core.wire.setReadable(true);
  }

  /** The rest of what a drain's budget left over. */
  run(): void {
    this.#posted = false;
    this.drain();
  }

  /** Receives what waits, at most TP_RX_BUDGET frames now, the rest on later turns. */
  drain(): void {
    if (!this.running) return;
    const { wire, clock } = this.#core;
    this.#causes = 0;
    let budget = TP_RX_BUDGET;
    for (; budget > 0; budget--) {
      const n = wire.readv(this.#iov, 1);
      if (n < 0) {
        // Otherwise the loop would go on being told that there is something to read.
        if (n !== -EAGAIN) wire.setReadable(false);
        break;
      }
      this.#receive(n);
    }
    if (budget === 0 && !this.#posted) {
      this.#posted = true;
      clock.post(this);
    }
    if (this.#causes !== 0) this.#core.cause(this.#causes);
  }

  /** A frame of `len` bytes is in the FIFO. */
  #receive(len: number): void {
    const { capture, mem, sramOff, stats } = this.#core;
    if (len < TP_FRAME_RUNT) {
      stats[TP_ST_RX_RUNT]! += 1;
      count(R_DEV_RX_RUNT);
      return;
    }
    if (len > TP_FRAME_MAX) {
      stats[TP_ST_RX_OVERSIZE]! += 1;
      count(R_DEV_RX_OVERSIZE);
      return;
    }
    if (capture !== null && capture.wants(CAPTURE_WIRE))
      capture.capture(CAPTURE_WIRE, CAPTURE_IN, 0, this.#iov, 0, 1, len);
    const fifo = sramOff + FIFO_OFF;
    if (!this.#accepts(fifo)) {
      stats[TP_ST_RX_FILTERED]! += 1;
      count(R_DEV_RX_FILTER);
      return;
    }
    const pages = this.#pagesFor(len);
    if (pages === 0) return;
    const group = (mem[fifo]! & 1) !== 0;
    this.#store(fifo, len, pages, group);
    stats[TP_ST_RX_FRAMES]! += 1;
    stats[TP_ST_RX_BYTES]! += len;
    this.#causes |= TP_INT_PRX;
  }

  /** Pages that a frame takes; 0, and counted, if the ring has too few: one always stays free. */
  #pagesFor(len: number): number {
    const { stats } = this.#core;
    const pages = Math.ceil((len + TP_RXHDR_SIZE) / TP_PAGE_SIZE);
    const size = this.pstop - this.pstart;
    const free = (this.bnry - this.curr - 1 + size) % size;
    if (!this.halted && pages <= free) return pages;
    if (!this.halted) {
      this.halted = true;
      stats[TP_ST_RX_OVERFLOWS]! += 1;
      this.#causes |= TP_INT_OVW;
    }
    stats[TP_ST_RX_MISSED]! += 1;
    count(R_DEV_RX_OVERFLOW);
    return 0;
  }

  /** Puts header and frame into the ring, over its end if need be. */
  #store(fifo: number, len: number, pages: number, group: boolean): void {
    const { mem, view, sramOff } = this.#core;
    const at = sramOff + this.curr * TP_PAGE_SIZE;
    let next = this.curr + pages;
    if (next >= this.pstop) next -= this.pstop - this.pstart;
    const status = TP_RXS_OK | (group ? TP_RXS_GROUP : 0);
    const word = status | (next << TP_RXHDR_NEXT_SHIFT) | (len << TP_RXHDR_LEN_SHIFT);
    view.setInt32(at, word, true);
    const room = sramOff + this.pstop * TP_PAGE_SIZE - (at + TP_RXHDR_SIZE);
    const first = Math.min(len, room);
    mem.copyWithin(at + TP_RXHDR_SIZE, fifo, fifo + first);
    if (first < len) mem.copyWithin(sramOff + this.pstart * TP_PAGE_SIZE, fifo + first, fifo + len);
    this.curr = next;
  }

  #accepts(fifo: number): boolean {
    const { mem } = this.#core;
    const { rcr, mac } = this;
    if ((rcr & TP_RCR_PRO) !== 0) return true;
    if ((mem[fifo]! & 1) === 0) {
      for (let i = 0; i < 6; i++) if (mem[fifo + i] !== mac[i]) return false;
      return true;
    }
    let broadcast = true;
    for (let i = 0; i < 6; i++) if (mem[fifo + i] !== 0xff) broadcast = false;
    if (broadcast) return (rcr & TP_RCR_AB) !== 0;
    if ((rcr & TP_RCR_ALLMULTI) !== 0) return true;
    if ((rcr & TP_RCR_AM) === 0) return false;
    const hash = this.#hash(fifo);
    return (this.mta[hash >>> 5]! & (1 << (hash & 31))) !== 0;
  }

  /** The top six bits of the CRC-32 of the six bytes at `p`, least significant bit of each first. */
  #hash(p: number): number {
    const { mem } = this.#core;
    let crc = -1;
    for (let i = 0; i < 6; i++) {
      for (let bit = 0, byte = mem[p + i]!; bit < 8; bit++, byte >>= 1) {
        const carry = (crc >>> 31) ^ (byte & 1);
        crc = (crc << 1) ^ (carry === 1 ? 0x04c11db7 : 0);
      }
    }
    return crc >>> 26;
  }
}
