/**
 * The receive engine of `tb`: one scatter read per frame straight into the buffers it owns, then
 * the address filter. It reads the wire only while it owns buffers for the longest frame, so a slow
 * driver pushes back on the wire instead of losing frames. It verifies nothing and strips nothing.
 */

import type { Task } from '../../sys/clock.ts';
import { EAGAIN } from '../../sys/errno.ts';
import {
  count,
  R_DEV_BAD_RING,
  R_DEV_RX_BAD,
  R_DEV_RX_NODESC,
  R_DEV_WIRE_ERROR,
} from '../../sys/reason.ts';
import { AddressFilter, hashLe } from '../blocks/address_filter.ts';
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
  TB_INT_RXEMPTY,
  TB_INT_RXERR,
  TB_NDESC_MAX,
  TB_NDESC_MIN,
  TB_RING_ALIGN,
  TB_RX_BUDGET,
  TB_RXBUF_MAX,
  TB_RXBUF_MIN,
  TB_RXCFG_ALLMULTI,
  TB_RXCFG_PROMISC,
  TB_ST_DMA_FAULTS,
  TB_ST_RX_BAD,
  TB_ST_RX_BYTES,
  TB_ST_RX_FRAMES,
  TB_ST_RX_NODESC,
} from './tbreg.ts';

/** Buffers of a frame; as many of the smallest hold the longest frame and a byte more. */
const BUFS_MAX = Math.floor(TB_FRAME_MAX / TB_RXBUF_MIN) + 1;

/** The receive ring and address filter. */
export class TbRx implements Task {
  readonly ring = new TbRing();
  enabled = false;
  stopped = false;
  /** TB_RXCFG. */
  config = 0;
  /** TB_MAXFRM. */
  frameMax = 1518;
  readonly filter: AddressFilter;
  readonly #core: TbCore;
  /** Too few buffers: not reading the wire until TB_RXKICK. */
  #stalled = false;
  #posted = false;
  #causes = 0;
  readonly #iov = new Uint32Array(2 * BUFS_MAX);
  #nbufs = 0;

  constructor(core: TbCore, mac: Uint8Array) {
    this.#core = core;
    this.filter = new AddressFilter(mac, hashLe);
  }

  /** TB_CMD.RXE went up: takes the ring from the registers, from descriptor 0. */
  enable(): void {
    this.disable();
    this.enabled = true;
    this.stopped = false;
    const { count: n, baseLo } = this.ring;
    if (n < TB_NDESC_MIN || n > TB_NDESC_MAX || baseLo % TB_RING_ALIGN !== 0) {
      this.#stop();
      return;
    }
    // It reads when the driver says that there are buffers.
    this.#stalled = true;
  }

  /** TB_CMD.RXE went down, or a reset. */
  disable(): void {
    if (this.enabled) this.#core.wire.setReadable(false);
    this.enabled = false;
    this.ring.pos = 0;
    this.#stalled = false;
  }

  /** TB_RXKICK was written. */
  kick(): void {
    if (!this.#stalled || this.stopped) return;
    this.#stalled = false;
    this.#core.wire.setReadable(true);
    this.drain();
  }

  /** The rest of what a drain's budget left over. */
  run(): void {
    this.#posted = false;
    this.drain();
  }

  /** Receives what waits, at most TB_RX_BUDGET frames now, the rest on later turns. */
  drain(): void {
    if (!this.enabled || this.stopped || this.#stalled) return;
    const { dma, wire, clock, stats } = this.#core;
    const { ring } = this;
    const base = dma.map(ring.baseLo, ring.baseHi, ring.count * TB_DESC_SIZE, true);
    if (base < 0) {
      stats[TB_ST_DMA_FAULTS]! += 1;
      this.#stop();
      return;
    }
    this.#causes = 0;
    let budget = TB_RX_BUDGET;
    for (; budget > 0; budget--) {
      if (!this.#gather(base)) {
        if (this.#stalled) break;
        continue;
      }
      const n = wire.readv(this.#iov, this.#nbufs);
      if (n < 0) {
        if (n !== -EAGAIN) this.#wireGone();
        break;
      }
      this.#receive(base, n);
    }
    if (budget === 0 && !this.#posted) {
      this.#posted = true;
      clock.post(this);
    }
    if (this.#causes !== 0) this.#core.cause(this.#causes);
  }

  /** The wire came back. */
  wireBack(): void {
    if (this.enabled && !this.stopped && !this.#stalled) this.#core.wire.setReadable(true);
  }

  #stop(): void {
    this.stopped = true;
    this.#core.wire.setReadable(false);
    count(R_DEV_BAD_RING);
    this.#core.cause(TB_INT_RXERR);
  }

  /** Reading failed: without this the loop would go on being told that there is something to read. */
  #wireGone(): void {
    count(R_DEV_WIRE_ERROR);
    this.#core.wire.setReadable(false);
    this.#core.setLink(false);
  }

  /**
   * Lists buffers that hold the longest frame and a byte more, so that a longer one is noticed.
   * False if there are too few, which stalls the engine, or if one is bad: then those up to it have
   * been given back, because descriptors are consumed in order.
   */
  #gather(base: number): boolean {
    const { dma, view, stats } = this.#core;
    const { ring } = this;
    let room = 0;
    let n = 0;
    for (let slot = ring.pos; room <= this.frameMax; n++, slot = ring.next(slot)) {
      const at = base + slot * TB_DESC_SIZE;
      if (n === ring.count || (view.getInt32(at + TB_D_CTL, true) & TB_CTL_OWN) === 0) {
        this.#stall();
        return false;
      }
      const len = view.getUint32(at + TB_D_LEN, true);
      let off = -1;
      if (len >= TB_RXBUF_MIN && len <= TB_RXBUF_MAX) {
        const lo = view.getInt32(at + TB_D_ADDRL, true);
        off = dma.map(lo, view.getInt32(at + TB_D_ADDRH, true), len, true);
        if (off < 0) stats[TB_ST_DMA_FAULTS]! += 1;
      }
      if (off < 0) {
        stats[TB_ST_RX_BAD]! += 1;
        count(R_DEV_RX_BAD);
        for (let k = 0; k <= n; k++) this.#giveBack(base, 0, TB_CTL_ERR);
        this.#causes |= TB_INT_RXERR;
        return false;
      }
      this.#iov[2 * n] = off;
      this.#iov[2 * n + 1] = len;
      room += len;
    }
    this.#nbufs = n;
    return true;
  }

  #stall(): void {
    this.#stalled = true;
    this.#core.wire.setReadable(false);
    this.#core.stats[TB_ST_RX_NODESC]! += 1;
    count(R_DEV_RX_NODESC);
    this.#causes |= TB_INT_RXEMPTY;
  }

  #giveBack(base: number, len: number, ctl: number): void {
    const { ring } = this;
    const at = base + ring.pos * TB_DESC_SIZE;
    this.#core.view.setUint32(at + TB_D_LEN, len, true);
    this.#core.view.setUint32(at + TB_D_CTL, ctl, true);
    ring.pos = ring.next(ring.pos);
    this.#causes |= TB_INT_RX;
  }

  /** A frame of `len` bytes lies in the listed buffers: hands it over, or not. */
  #receive(base: number, len: number): void {
    const { stats } = this.#core;
    const iov = this.#iov;
    if (!this.#core.arrived(iov, this.#nbufs, len, this.frameMax)) return;
    if (!this.#accepts(iov[0]!)) {
      this.#core.filtered();
      return;
    }
    stats[TB_ST_RX_FRAMES]! += 1;
    stats[TB_ST_RX_BYTES]! += len;
    for (let i = 0; len > 0; i++) {
      const n = Math.min(len, iov[2 * i + 1]!);
      len -= n;
      this.#giveBack(base, n, len === 0 ? TB_CTL_EOP : 0);
    }
  }

  /** The address filter: own, broadcast, multicast by hash, or whatever the modes let in. */
  #accepts(frame: number): boolean {
    const { config } = this;
    const promisc = (config & TB_RXCFG_PROMISC) !== 0;
    const allmulti = (config & TB_RXCFG_ALLMULTI) !== 0;
    return this.filter.accepts(this.#core.mem, frame, promisc, allmulti);
  }
}
