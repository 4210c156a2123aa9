/**
 * The receive engine of `tb`: one scatter read per frame directly into the buffers that it owns,
 * then the address filter. It reads the wire only while it owns buffers for the longest frame, so
 * frames wait on the wire, and are not lost, while the driver is slow. It does not verify checksums
 * or strip VLAN tags.
 */

import { CAPTURE_IN, CAPTURE_RING } from '../../sys/capture.ts';
import { META_CSUM_UNKNOWN } from '../../sys/capture_meta.ts';
import { R_DEV_RX_BAD } from '../../sys/reason.ts';
import { EAGAIN } from '../../sys/errno.ts';
import { AddressFilter, hashLe } from '../blocks/address_filter.ts';
import { RxEngine } from '../blocks/ring_nic.ts';
import { type TbCore, TbRing } from './tb_core.ts';
import {
  TB_CTL_EOP,
  TB_CTL_ERR,
  TB_CTL_OWN,
  TB_D_ADDRH,
  TB_D_ADDRL,
  TB_D_CTL,
  TB_D_LEN,
  TB_DESC_SIZE,
  TB_FRAME_MAX,
  TB_INT_RX,
  TB_RX_BUDGET,
  TB_RXBUF_MAX,
  TB_RXBUF_MIN,
  TB_RXCFG_ALLMULTI,
  TB_RXCFG_PROMISC,
  TB_ST_RX_BYTES,
  TB_ST_RX_FRAMES,
} from './tbreg.ts';

/**
 * Maximum number of buffers of a frame: so many of the smallest hold one byte more than the longest
 * frame.
 */
const BUFS_MAX = Math.floor(TB_FRAME_MAX / TB_RXBUF_MIN) + 1;

/** The receive ring and address filter. */
export class TbRx extends RxEngine<TbCore, TbRing> {
  /** TB_RXCFG. */
  config = 0;
  /** TB_MAXFRM. */
  frameMax = 1518;
  readonly #iov = new Uint32Array(2 * BUFS_MAX);
  #nbufs = 0;

  constructor(core: TbCore, mac: Uint8Array) {
    super(core, new TbRing(), new AddressFilter(mac, hashLe));
  }

  override reset(): void {
    super.reset();
    this.config = 0;
    this.frameMax = 1518;
  }

  /** Handles a write of TB_RXKICK. */
  kick(): void {
    if (this.stalled && !this.stopped) this.resume();
  }

  /** Receives waiting frames: at most TB_RX_BUDGET now, the rest on later turns of the loop. */
  drain(): void {
    if (!this.enabled || this.stopped || this.stalled) return;
    const { ring } = this;
    const { wire } = this.core;
    const base = this.beginRound(ring.baseLo, ring.baseHi, ring.count * TB_DESC_SIZE);
    if (base < 0) return;
    let budget = TB_RX_BUDGET;
    for (; budget > 0; budget--) {
      if (!this.#gather(base)) {
        if (this.stalled) break;
        continue;
      }
      const n = wire.readv(this.#iov, this.#nbufs);
      if (n < 0) {
        if (n !== -EAGAIN) this.wireGone();
        break;
      }
      this.#receive(base, n);
    }
    this.endRound(budget === 0);
  }

  /**
   * Lists buffers for one byte more than the longest frame, so that a longer one is detected.
   * Returns false in two cases. If there are too few buffers, the engine stalls. If one is bad, it
   * and those before it are returned with an error, because descriptors are consumed in order.
   */
  #gather(base: number): boolean {
    const { dma, view } = this.core;
    const { ring } = this;
    let room = 0;
    let n = 0;
    for (let slot = ring.pos; room <= this.frameMax; n++, slot = ring.next(slot)) {
      const at = base + slot * TB_DESC_SIZE;
      if (n === ring.count || (view.getInt32(at + TB_D_CTL, true) & TB_CTL_OWN) === 0) {
        this.stall();
        return false;
      }
      const len = view.getUint32(at + TB_D_LEN, true);
      let off = -1;
      if (len >= TB_RXBUF_MIN && len <= TB_RXBUF_MAX) {
        const lo = view.getInt32(at + TB_D_ADDRL, true);
        off = dma.map(lo, view.getInt32(at + TB_D_ADDRH, true), len, true);
        if (off < 0) this.core.dmaFault();
      }
      if (off < 0) {
        this.badBuffer();
        const first = ring.pos;
        for (let k = 0; k <= n; k++) this.#giveBack(base, 0, TB_CTL_ERR);
        this.core.eventFacts()?.descs(base, ring.count, TB_DESC_SIZE, first, n + 1);
        this.core.captureDrop(CAPTURE_RING, CAPTURE_IN, 0, R_DEV_RX_BAD, 0);
        return false;
      }
      this.#iov[2 * n] = off;
      this.#iov[2 * n + 1] = len;
      room += len;
    }
    this.#nbufs = n;
    return true;
  }

  #giveBack(base: number, len: number, ctl: number): void {
    const { ring } = this;
    const at = base + ring.pos * TB_DESC_SIZE;
    this.core.view.setUint32(at + TB_D_LEN, len, true);
    this.core.view.setUint32(at + TB_D_CTL, ctl, true);
    ring.pos = ring.next(ring.pos);
    this.causes |= TB_INT_RX;
  }

  /** Filters a frame of `len` bytes in the listed buffers and hands it to the driver. */
  #receive(base: number, len: number): void {
    const { stats } = this.core;
    const iov = this.#iov;
    const id = this.core.rxId();
    if (!this.core.arrived(len, this.frameMax, id)) return;
    if (!this.#accepts(iov[0]!)) {
      this.core.filtered(id, iov, this.#nbufs, len);
      return;
    }
    if (id !== 0) this.core.captureWire(CAPTURE_IN, id, iov, this.#nbufs, len, META_CSUM_UNKNOWN);
    stats[TB_ST_RX_FRAMES]! += 1;
    stats[TB_ST_RX_BYTES]! += len;
    const { pos, count } = this.ring;
    this.core.putTag(pos, id);
    let left = len;
    let used = 0;
    for (; left > 0; used++) {
      const n = Math.min(left, iov[2 * used + 1]!);
      left -= n;
      this.#giveBack(base, n, left === 0 ? TB_CTL_EOP : 0);
    }
    const facts = this.core.ringFacts();
    if (facts === null) return;
    facts.descs(base, count, TB_DESC_SIZE, pos, used);
    this.core.captureRing(CAPTURE_IN, id, iov, used, len);
  }

  /**
   * Whether the frame passes the address filter: station address, broadcast, multicast hash, and
   * the two modes.
   */
  #accepts(frame: number): boolean {
    const { config } = this;
    const promisc = (config & TB_RXCFG_PROMISC) !== 0;
    const allmulti = (config & TB_RXCFG_ALLMULTI) !== 0;
    return this.filter.accepts(this.core.mem, frame, promisc, allmulti);
  }
}
