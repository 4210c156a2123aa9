/**
 * The transmit engine of `tl`: store and forward. It copies the fragments of a block into its FIFO,
 * inserts a checksum there if the block requests one, and writes the frame to the wire. If the wire
 * is full, the frame stays in the FIFO. A block may contain any value: a frame with a bad block is
 * counted and dropped.
 */

import { CAPTURE_OUT, CAPTURE_RING } from '../../sys/capture.ts';
import { META_CSUM_NIC, META_CSUM_SOFTWARE } from '../../sys/capture_meta.ts';
import { R_DEV_TX_BAD } from '../../sys/reason.ts';
import { ETHER_HDR_LEN } from '../../sys/protocols.ts';
import { BLOCKED } from '../blocks/nic_core.ts';
import { TxEngine } from '../blocks/ring_nic.ts';
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
  TL_TX_BUDGET,
} from './tlreg.ts';

/** The transmit ring and the frame in the FIFO. */
export class TlTx extends TxEngine<TlCore, TlRing> {
  /** Bytes of the frame in the FIFO, 0 if it is empty, and the driver's packet id. */
  #len = 0;
  #tag = 0;
  /** Its checksum state, for captures. */
  #csum = 0;
  readonly #iov = new Uint32Array(2);

  constructor(core: TlCore) {
    super(core, new TlRing());
    this.#iov[0] = core.sramOff;
  }

  protected override forget(): void {
    this.#len = 0;
  }

  /** Handles a write of TL_TXPUT. Returns false if the block does not exist. */
  setPut(index: number): boolean {
    if (!this.enabled || index >= this.ring.size) return false;
    this.ring.put = index;
    return true;
  }

  /**
   * Sends the packets on the ring: at most TL_TX_BUDGET frames now, the rest on later turns of the
   * loop.
   */
  consume(): void {
    if (!this.enabled || this.stopped || this.blocked) return;
    const { ring } = this;
    if (ring.get === ring.put) return;
    const base = this.beginRound(ring.base, 0, ring.size * TL_BLOCK_SIZE);
    if (base < 0) return;
    let budget = TL_TX_BUDGET;
    for (; budget > 0 && ring.get !== ring.put; budget--) {
      const at = base + ring.get * TL_BLOCK_SIZE;
      if (this.#len === 0 && !this.#fetch(base, at)) continue;
      if (!this.#emit()) break;
      this.#complete(at, 0);
    }
    this.endRound(budget === 0 && ring.get !== ring.put);
  }

  /** Writes the status and moves to the next block. */
  #complete(at: number, status: number): void {
    const { view } = this.core;
    if ((view.getInt32(at + TL_B_CMD, true) & TL_CMD_INT) !== 0) this.causes |= TL_INT_TX;
    view.setInt32(at + TL_B_CMD, TL_CMD_DONE | status, true);
    this.#len = 0;
    this.ring.advance();
  }

  /**
   * Copies the block's frame into the FIFO. Returns false if the block is bad; it was then
   * completed with an error.
   */
  #fetch(base: number, at: number): boolean {
    const { view } = this.core;
    const { get, size } = this.ring;
    const cmd = view.getInt32(at + TL_B_CMD, true);
    const len = this.#copyFrags(at, cmd & TL_CMD_NFRAGS);
    this.#tag = view.getUint32(at + TL_B_TAG, true);
    this.#csum = (cmd & TL_CMD_SUM) !== 0 ? META_CSUM_NIC : META_CSUM_SOFTWARE;
    const facts = len < ETHER_HDR_LEN ? null : this.core.ringFacts();
    if (facts !== null) {
      facts.csum = this.#csum;
      facts.descs(base, size, TL_BLOCK_SIZE, get, 1);
      this.#iov[1] = len;
      this.core.captureRing(CAPTURE_OUT, this.#tag, this.#iov, 1, len);
    }
    if (len < ETHER_HDR_LEN || !this.#insertSum(cmd, view.getUint32(at + TL_B_SUM, true), len)) {
      this.badPacket();
      this.core.eventFacts()?.descs(base, size, TL_BLOCK_SIZE, get, 1);
      const bytes = Math.max(len, 0);
      this.core.captureDrop(CAPTURE_RING, CAPTURE_OUT, this.#tag, R_DEV_TX_BAD, bytes);
      this.#complete(at, TL_CMD_ERR);
      return false;
    }
    this.#len = len;
    return true;
  }

  /**
   * Copies `n` fragments into the FIFO. Returns the number of bytes, or -1 if a fragment is bad.
   */
  #copyFrags(at: number, n: number): number {
    const { dma, mem, view, sramOff } = this.core;
    if (n > TL_FRAGS) return -1;
    let total = 0;
    for (let i = 0; i < n; i++) {
      const addr = view.getInt32(at + TL_B_FRAG + 8 * i, true);
      const len = view.getUint32(at + TL_B_FRAG + 8 * i + 4, true);
      if (len === 0 || len > TL_FRAG_MAX || total + len > TL_FRAME_MAX) return -1;
      if ((addr & (TL_BOUNDARY - 1)) + len > TL_BOUNDARY) return -1;
      const off = dma.map(addr, 0, len, false);
      if (off < 0) {
        this.core.dmaFault();
        return -1;
      }
      mem.copyWithin(sramOff + total, off, off + len);
      total += len;
    }
    return total;
  }

  /** Inserts the checksum if the block requests it. Returns false if the request is invalid. */
  #insertSum(cmd: number, where: number, len: number): boolean {
    if ((cmd & TL_CMD_SUM) === 0) return true;
    const { view, cksum, sramOff } = this.core;
    const start = where & 0xffff;
    const field = where >>> 16;
    if (start < ETHER_HDR_LEN || field < start || field % 2 !== start % 2) return false;
    if (field + 2 > len) return false;
    // The field holds the pseudo-header's sum, so this sum includes it.
    let sum = ~cksum.sum(sramOff + start, len - start, 0) & 0xffff;
    if (sum === 0 && (cmd & TL_CMD_UDP) !== 0) sum = 0xffff; // RFC 768: 0 means no checksum
    view.setUint16(sramOff + field, sum);
    return true;
  }

  /**
   * Writes the frame to the wire. Returns false if the wire is full. A frame that the wire refuses
   * is dropped.
   */
  #emit(): boolean {
    const { wire, mem, sramOff, linkUp } = this.core;
    if (!linkUp) {
      this.core.noLink(this.#len, this.#tag);
      return true;
    }
    if (this.#len < TL_FRAME_MIN) {
      mem.fill(0, sramOff + this.#len, sramOff + TL_FRAME_MIN);
      this.#len = TL_FRAME_MIN;
    }
    this.#iov[1] = this.#len;
    const n = wire.writev(this.#iov, 1);
    const did = this.core.written(n, this.#iov, 1, this.#len, this.#tag, this.#csum);
    this.blocked = did === BLOCKED;
    return !this.blocked;
  }
}
