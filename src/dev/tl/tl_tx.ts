/**
 * The transmit engine of `tl`: store and forward. It copies the fragments of a block into its FIFO,
 * inserts a checksum there if the block asks for one, and puts the frame on the wire. A frame that a
 * full wire did not take stays in the FIFO. Every word of a block may be hostile: what is wrong is
 * counted and dropped.
 */

import type { Task } from '../../sys/clock.ts';
import { count, R_DEV_BAD_RING, R_DEV_TX_BAD } from '../../sys/reason.ts';
import { BLOCKED, ETHER_HDR_LEN } from '../blocks/nic_core.ts';
import { type TlCore, TlRing } from './tl_core.ts';
import {
  TL_B_CMD,
  TL_B_FRAG,
  TL_B_SUM,
  TL_B_TAG,
  TL_BLOCK_SIZE,
  TL_BOUNDARY,
  TL_CMD_DONE,
  TL_CMD_ERR,
  TL_CMD_INT,
  TL_CMD_NFRAGS,
  TL_CMD_SUM,
  TL_CMD_UDP,
  TL_FRAG_MAX,
  TL_FRAGS,
  TL_FRAME_MAX,
  TL_FRAME_MIN,
  TL_INT_TX,
  TL_INT_TXERR,
  TL_ST_DMA_FAULTS,
  TL_ST_TX_BAD,
  TL_TX_BUDGET,
} from './tlreg.ts';

/** The transmit ring and the frame in the FIFO. */
export class TlTx implements Task {
  readonly ring = new TlRing();
  enabled = false;
  /** The ring cannot be used; stays until transmit is enabled anew. */
  stopped = false;
  readonly #core: TlCore;
  /** The wire is full and has been asked to say when it is not. */
  #blocked = false;
  #posted = false;
  #causes = 0;
  /** Bytes in the FIFO, 0 if there is no frame, and what the driver calls it. */
  #len = 0;
  #tag = 0;
  readonly #iov = new Uint32Array(2);

  constructor(core: TlCore) {
    this.#core = core;
    this.#iov[0] = core.sramOff;
  }

  /** TL_CTRL.TXE went up: takes the ring from the registers, from block 0. */
  enable(): void {
    this.disable();
    this.enabled = true;
    this.stopped = false;
    if (!this.ring.fits) this.#stop();
  }

  /** TL_CTRL.TXE went down, or a reset: forgets ring position and frame. */
  disable(): void {
    this.enabled = false;
    this.ring.rewind();
    this.#len = 0;
    this.#blocked = false;
  }

  /** TL_TXPUT was written: false if there is no such block. */
  setPut(index: number): boolean {
    if (!this.enabled || index >= this.ring.size) return false;
    this.ring.put = index;
    return true;
  }

  /** The wire has room again. */
  wireWritable(): void {
    this.#blocked = false;
    this.consume();
  }

  /** The rest of what a doorbell left over. */
  run(): void {
    this.#posted = false;
    this.consume();
  }

  /** Sends what is on the ring: at most TL_TX_BUDGET frames now, the rest on later turns. */
  consume(): void {
    if (!this.enabled || this.stopped || this.#blocked) return;
    const { ring } = this;
    if (ring.get === ring.put) return;
    const base = this.#core.dma.map(ring.base, 0, ring.size * TL_BLOCK_SIZE, true);
    if (base < 0) {
      this.#core.stats[TL_ST_DMA_FAULTS]! += 1;
      this.#stop();
      return;
    }
    this.#causes = 0;
    let budget = TL_TX_BUDGET;
    for (; budget > 0 && ring.get !== ring.put; budget--) {
      const at = base + ring.get * TL_BLOCK_SIZE;
      if (this.#len === 0 && !this.#fetch(at)) continue;
      if (!this.#emit()) break;
      this.#complete(at, 0);
    }
    if (budget === 0 && ring.get !== ring.put && !this.#posted) {
      this.#posted = true;
      this.#core.clock.post(this);
    }
    if (this.#causes !== 0) this.#core.cause(this.#causes);
  }

  #stop(): void {
    this.stopped = true;
    this.#len = 0;
    count(R_DEV_BAD_RING);
    this.#core.cause(TL_INT_TXERR);
  }

  /** Writes the status and goes on to the next block. */
  #complete(at: number, status: number): void {
    const { view } = this.#core;
    if ((view.getInt32(at + TL_B_CMD, true) & TL_CMD_INT) !== 0) this.#causes |= TL_INT_TX;
    view.setInt32(at + TL_B_CMD, TL_CMD_DONE | status, true);
    this.#len = 0;
    this.ring.advance();
  }

  /** Brings the block's frame into the FIFO; if it is bad the block is done with, and false. */
  #fetch(at: number): boolean {
    const { view, stats } = this.#core;
    const cmd = view.getInt32(at + TL_B_CMD, true);
    const len = this.#copyFrags(at, cmd & TL_CMD_NFRAGS);
    if (len < ETHER_HDR_LEN || !this.#insertSum(cmd, view.getUint32(at + TL_B_SUM, true), len)) {
      stats[TL_ST_TX_BAD]! += 1;
      count(R_DEV_TX_BAD);
      this.#causes |= TL_INT_TXERR;
      this.#complete(at, TL_CMD_ERR);
      return false;
    }
    this.#len = len;
    this.#tag = view.getUint32(at + TL_B_TAG, true);
    return true;
  }

  /** Copies `n` fragments into the FIFO. Returns how many bytes that is, -1 if one is bad. */
  #copyFrags(at: number, n: number): number {
    const { dma, mem, view, stats, sramOff } = this.#core;
    if (n > TL_FRAGS) return -1;
    let total = 0;
    for (let i = 0; i < n; i++) {
      const addr = view.getInt32(at + TL_B_FRAG + 8 * i, true);
      const len = view.getUint32(at + TL_B_FRAG + 8 * i + 4, true);
      if (len === 0 || len > TL_FRAG_MAX || total + len > TL_FRAME_MAX) return -1;
      if ((addr & (TL_BOUNDARY - 1)) + len > TL_BOUNDARY) return -1;
      const off = dma.map(addr, 0, len, false);
      if (off < 0) {
        stats[TL_ST_DMA_FAULTS]! += 1;
        return -1;
      }
      mem.copyWithin(sramOff + total, off, off + len);
      total += len;
    }
    return total;
  }

  /** Sums the frame in the FIFO if the block asks for it; false if it asks for the impossible. */
  #insertSum(cmd: number, where: number, len: number): boolean {
    if ((cmd & TL_CMD_SUM) === 0) return true;
    const { view, cksum, sramOff } = this.#core;
    const start = where & 0xffff;
    const field = where >>> 16;
    if (start < ETHER_HDR_LEN || field < start || field % 2 !== start % 2) return false;
    if (field + 2 > len) return false;
    // The field holds the pseudo-header's sum, which is thereby part of this one.
    let sum = ~cksum.sum(sramOff + start, len - start, 0) & 0xffff;
    if (sum === 0 && (cmd & TL_CMD_UDP) !== 0) sum = 0xffff; // RFC 768: 0 would mean none
    view.setUint16(sramOff + field, sum);
    return true;
  }

  /** Puts the frame on the wire; false if that is full. One that it refuses is gone. */
  #emit(): boolean {
    const { wire, mem, sramOff, linkUp } = this.#core;
    if (!linkUp) {
      this.#core.noLink();
      return true;
    }
    if (this.#len < TL_FRAME_MIN) {
      mem.fill(0, sramOff + this.#len, sramOff + TL_FRAME_MIN);
      this.#len = TL_FRAME_MIN;
    }
    this.#iov[1] = this.#len;
    const n = wire.writev(this.#iov, 1);
    this.#blocked = this.#core.written(n, this.#iov, 1, this.#len, this.#tag) === BLOCKED;
    return !this.#blocked;
  }
}
