/**
 * The receive engine of `tp`: it reads a frame into a FIFO, filters it by address, and stores it
 * with a header in the ring of pages. If the ring has no room for a frame, the frame is lost, as on
 * a card without flow control. All later frames are lost until the driver has recovered the ring.
 * Left out: frames with errors, which a TAP does not deliver.
 */

import type { Task } from '../../sys/clock.ts';
import { CAPTURE_IN } from '../../sys/capture.ts';
import { META_CSUM_UNKNOWN } from '../../sys/capture_meta.ts';
import { EAGAIN } from '../../sys/errno.ts';
import { count, R_DEV_RX_OVERFLOW } from '../../sys/reason.ts';
import { AddressFilter, hashBe } from '../blocks/address_filter.ts';
import type { TpCore } from './tp_core.ts';
import {
  TP_FRAME_MAX,
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
  TP_ST_RX_FRAMES,
  TP_ST_RX_MISSED,
  TP_ST_RX_OVERFLOWS,
} from './tpreg.ts';

/** The FIFO follows packet memory and is longer than the longest frame. */
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
  readonly filter: AddressFilter;
  readonly #core: TpCore;
  readonly #iov = new Uint32Array(2);
  #causes = 0;
  #posted = false;

  constructor(core: TpCore, mac: Uint8Array) {
    this.#core = core;
    this.filter = new AddressFilter(mac, hashBe);
    this.#iov[0] = core.sramOff + FIFO_OFF;
    this.#iov[1] = FIFO_BYTES;
  }

  /** Whether PSTART, PSTOP, BNRY and CURR describe a valid ring. */
  get ringGood(): boolean {
    const { pstart, pstop, bnry, curr } = this;
    const inRing = bnry >= pstart && bnry < pstop && curr >= pstart && curr < pstop;
    return pstop <= TP_NPAGES && pstop - pstart >= TP_RING_MIN && inRing;
  }

  /** Starts reception. The caller has checked the ring. */
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

  /** The link came up: watches the wire again. */
  wireBack(): void {
    if (this.running) this.#core.wire.setReadable(true);
  }

  /** Continues a drain that reached its budget. */
  run(): void {
    this.#posted = false;
    this.drain();
  }

  /** Receives waiting frames: at most TP_RX_BUDGET now, the rest on later turns of the loop. */
  drain(): void {
    if (!this.running) return;
    const { wire, clock } = this.#core;
    this.#causes = 0;
    let budget = TP_RX_BUDGET;
    for (; budget > 0; budget--) {
      const n = wire.readv(this.#iov, 1);
      if (n < 0) {
        // Stop polling: the loop would report the wire as readable again and again.
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

  /** Handles a frame of `len` bytes in the FIFO. */
  #receive(len: number): void {
    const { mem, sramOff, stats } = this.#core;
    const id = this.#core.rxId();
    if (!this.#core.arrived(len, TP_FRAME_MAX, id)) return;
    const fifo = sramOff + FIFO_OFF;
    if (!this.#accepts(fifo)) {
      this.#core.filtered(id, this.#iov, 1, len);
      return;
    }
    const pages = this.#pagesFor(len);
    if (pages === 0) {
      this.#core.captureRejected(id, this.#iov, 1, len, R_DEV_RX_OVERFLOW);
      return;
    }
    if (id !== 0) this.#core.captureWire(CAPTURE_IN, id, this.#iov, 1, len, META_CSUM_UNKNOWN);
    const group = (mem[fifo]! & 1) !== 0;
    this.#core.putTag(this.curr, id);
    this.#store(fifo, len, pages, group);
    stats[TP_ST_RX_FRAMES]! += 1;
    stats[TP_ST_RX_BYTES]! += len;
    this.#causes |= TP_INT_PRX;
    if (this.#core.ringFacts() !== null) this.#core.captureRing(CAPTURE_IN, id, this.#iov, 1, len);
  }

  /**
   * Returns the number of pages for a frame. Counts an overflow and returns 0 if the ring has too
   * few. One page always stays free.
   */
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

  /** Stores header and frame in the ring and wraps at its end. */
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
    const { rcr, filter } = this;
    if ((rcr & TP_RCR_PRO) !== 0) return true;
    if ((mem[fifo]! & 1) === 0) return filter.isOwn(mem, fifo);
    if (filter.isBroadcast(mem, fifo)) return (rcr & TP_RCR_AB) !== 0;
    if ((rcr & TP_RCR_ALLMULTI) !== 0) return true;
    return (rcr & TP_RCR_AM) !== 0 && filter.inHash(mem, fifo);
  }
}
