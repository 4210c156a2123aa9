/**
 * The transmit engine of `tb`: walks the descriptors it owns, gathers a packet by physical address
 * and writes it to the wire unchanged, with one gather write per frame. If the wire is full, the
 * packet and its descriptors are kept. A descriptor may contain any value: a packet with a bad one
 * is counted and dropped.
 */

import { CAPTURE_OUT, CAPTURE_RING } from '../../sys/capture.ts';
import { META_CSUM_SOFTWARE } from '../../sys/capture_meta.ts';
import { R_DEV_TX_BAD } from '../../sys/reason.ts';
import { ETHER_HDR_LEN } from '../../sys/protocols.ts';
import { BLOCKED } from '../blocks/nic_core.ts';
import { TxEngine } from '../blocks/ring_nic.ts';
import { type TbCore, TbRing } from './tb_core.ts';
import {
  TB_CTL_EOP,
  TB_CTL_ERR,
  TB_CTL_INT,
  TB_CTL_OWN,
  TB_D_ADDRH,
  TB_D_ADDRL,
  TB_D_CTL,
  TB_D_LEN,
  TB_DESC_SIZE,
  TB_FRAME_MAX,
  TB_FRAME_MIN,
  TB_INT_TX,
  TB_TX_BUDGET,
  TB_TX_SEGS,
  TB_TX_SEGSIZE_MAX,
} from './tbreg.ts';

/** The transmit ring and the packet being sent. */
export class TbTx extends TxEngine<TbCore, TbRing> {
  /** A bad packet is incomplete: drop its descriptors until its last one arrives. */
  #skipping = false;
  /** The packet being sent: its descriptors and the pieces gathered from them. */
  #active = false;
  #ndesc = 0;
  #npieces = 0;
  #total = 0;
  /** Its id, for captures. */
  #tag = 0;
  /** Pairs of arena offset and length, with room for padding. */
  readonly #iov = new Uint32Array(2 * (TB_TX_SEGS + 1));

  constructor(core: TbCore) {
    super(core, new TbRing());
  }

  protected override forget(): void {
    this.#active = false;
    this.#skipping = false;
  }

  /**
   * Sends the packets that the device owns: at most TB_TX_BUDGET frames now, the rest on later
   * turns of the loop.
   */
  consume(): void {
    if (!this.enabled || this.stopped || this.blocked) return;
    const { ring } = this;
    const base = this.beginRound(ring.baseLo, ring.baseHi, ring.count * TB_DESC_SIZE);
    if (base < 0) return;
    let budget = TB_TX_BUDGET;
    for (; budget > 0; budget--) {
      if (!this.#active && !this.#fetch(base)) break;
      if (!this.#active) continue;
      if (!this.#emit()) break;
      this.#giveBack(base, this.#ndesc, 0);
      this.#active = false;
    }
    this.endRound(budget === 0);
  }

  /** Returns the next `n` descriptors to the driver. */
  #giveBack(base: number, n: number, status: number): void {
    const { view } = this.core;
    const { ring } = this;
    for (let i = 0; i < n; i++, ring.pos = ring.next(ring.pos)) {
      const at = base + ring.pos * TB_DESC_SIZE + TB_D_CTL;
      const ctl = view.getInt32(at, true);
      view.setInt32(at, (ctl & ~TB_CTL_OWN) | status, true);
      if ((ctl & TB_CTL_INT) !== 0) this.causes |= TB_INT_TX;
    }
  }

  /**
   * Reads the next packet's descriptors. Returns false if there is nothing to do. Otherwise the
   * packet is active, or bad descriptors were returned to the driver.
   */
  #fetch(base: number): boolean {
    const { view } = this.core;
    const { ring } = this;
    if (this.#skipping) return this.#skip(base);
    this.#npieces = 0;
    this.#total = 0;
    let bad = false;
    const max = Math.min(TB_TX_SEGS, ring.count);
    for (let n = 1, slot = ring.pos; n <= max; n++, slot = ring.next(slot)) {
      const at = base + slot * TB_DESC_SIZE;
      const ctl = view.getInt32(at + TB_D_CTL, true);
      // The packet is not complete yet: its last descriptor is missing.
      if ((ctl & TB_CTL_OWN) === 0) return false;
      if (!bad) bad = !this.#piece(at);
      if ((ctl & TB_CTL_EOP) === 0) continue;
      this.#tag = this.core.takeTag(ring.pos);
      if (bad || this.#total < ETHER_HDR_LEN || this.#total > TB_FRAME_MAX) {
        this.#drop(base, n);
      } else {
        this.#active = true;
        this.#captureRing(base, n);
      }
      this.#ndesc = n;
      return true;
    }
    this.#tag = this.core.takeTag(ring.pos);
    this.#drop(base, max);
    this.#skipping = true;
    return true;
  }

  #drop(base: number, n: number): void {
    this.badPacket();
    const { pos, count } = this.ring;
    this.core.eventFacts()?.descs(base, count, TB_DESC_SIZE, pos, n);
    this.core.captureDrop(CAPTURE_RING, CAPTURE_OUT, this.#tag, R_DEV_TX_BAD, this.#total);
    this.#giveBack(base, n, TB_CTL_ERR);
  }

  /** Captures the packet in its `n` descriptors as it was fetched. */
  #captureRing(base: number, n: number): void {
    const facts = this.core.ringFacts();
    if (facts === null) return;
    facts.csum = META_CSUM_SOFTWARE;
    facts.descs(base, this.ring.count, TB_DESC_SIZE, this.ring.pos, n);
    this.core.captureRing(CAPTURE_OUT, this.#tag, this.#iov, this.#npieces, this.#total);
  }

  /**
   * Returns the remaining descriptors of a bad packet, which has been counted, to the driver; at
   * most one round of the ring.
   */
  #skip(base: number): boolean {
    const { ring } = this;
    let n = 0;
    for (; n < ring.count; n++) {
      const at = base + ring.pos * TB_DESC_SIZE + TB_D_CTL;
      const ctl = this.core.view.getInt32(at, true);
      if ((ctl & TB_CTL_OWN) === 0) break;
      this.#giveBack(base, 1, TB_CTL_ERR);
      if ((ctl & TB_CTL_EOP) === 0) continue;
      this.#skipping = false;
      return true;
    }
    return n > 0;
  }

  /** Adds a descriptor's buffer to the packet. Returns false if the descriptor is bad. */
  #piece(at: number): boolean {
    const { view, dma } = this.core;
    const len = view.getUint32(at + TB_D_LEN, true);
    if (len === 0 || len > TB_TX_SEGSIZE_MAX) return false;
    const lo = view.getInt32(at + TB_D_ADDRL, true);
    const hi = view.getInt32(at + TB_D_ADDRH, true);
    const off = dma.map(lo, hi, len, false);
    if (off < 0) {
      this.core.dmaFault();
      return false;
    }
    this.#iov[2 * this.#npieces] = off;
    this.#iov[2 * this.#npieces + 1] = len;
    this.#npieces++;
    this.#total += len;
    return true;
  }

  /**
   * Writes the packet to the wire. Returns false if the wire is full. A packet that the wire
   * refuses is dropped.
   */
  #emit(): boolean {
    const { wire, sramOff, linkUp } = this.core;
    const iov = this.#iov;
    if (!linkUp) {
      this.core.noLink(this.#total, this.#tag);
      return true;
    }
    let pieces = this.#npieces;
    if (this.#total < TB_FRAME_MIN) {
      iov[2 * pieces] = sramOff;
      iov[2 * pieces + 1] = TB_FRAME_MIN - this.#total;
      pieces++;
    }
    const n = wire.writev(iov, pieces);
    const len = Math.max(this.#total, TB_FRAME_MIN);
    const did = this.core.written(n, iov, pieces, len, this.#tag, META_CSUM_SOFTWARE);
    this.blocked = did === BLOCKED;
    return !this.blocked;
  }
}
