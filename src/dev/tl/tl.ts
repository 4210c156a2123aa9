/**
 * The NIC `tl`: register file, interrupts, link. What each register does is in
 * docs/tl-datasheet.md. A write of TL_TXPUT runs the device inline: it sends, then drains the wire;
 * it never calls up, it sets causes and raises the line.
 */

import type { WireListener } from '../../sys/wire.ts';
import type { MmioRegion } from '../../bus/device.ts';
import { type TlConfig, TlCore } from './tl_core.ts';
import { TlRx } from './tl_rx.ts';
import { TlTx } from './tl_tx.ts';
import {
  TL_ADDR0,
  TL_ADDR1,
  TL_CTRL,
  TL_CTRL_MASK,
  TL_CTRL_RST,
  TL_CTRL_RXE,
  TL_CTRL_TXE,
  TL_ID,
  TL_ID_REV1,
  TL_INTEN,
  TL_INTR,
  TL_INTSET,
  TL_NSTATS,
  TL_REG_SIZE,
  TL_RXBASE,
  TL_RXGET,
  TL_RXPUT,
  TL_RXSIZE,
  TL_STATS,
  TL_STATUS,
  TL_STATUS_LINK,
  TL_STATUS_RXHALT,
  TL_STATUS_TXHALT,
  TL_TXBASE,
  TL_TXGET,
  TL_TXPUT,
  TL_TXSIZE,
} from './tlreg.ts';

/** One NIC. Plugs itself into the wire it is given; `close` unplugs it. */
export class TlDevice implements MmioRegion, WireListener {
  readonly size = TL_REG_SIZE;
  readonly #core: TlCore;
  readonly #tx: TlTx;
  readonly #rx: TlRx;

  constructor(config: TlConfig) {
    if (config.wire.vnetHdr) throw new RangeError('tl: no virtio-net headers');
    this.#core = new TlCore(config);
    this.#tx = new TlTx(this.#core);
    this.#rx = new TlRx(this.#core, config.mac);
    this.#reset();
    config.wire.setListener(this);
  }

  /** Unplugs it: nothing is sent or received any more. The wire stays open. */
  close(): void {
    this.#reset();
    this.#core.wire.setListener(null);
  }

  /** The statistics by number (TL_ST_*). */
  get stats(): Float64Array {
    return this.#core.stats;
  }

  wireReadable(): void {
    this.#rx.drain();
  }

  wireWritable(): void {
    this.#tx.wireWritable();
  }

  wireState(up: boolean, _error: number): void {
    this.#core.setLink(up);
    // What waited for room on the wire is let go, so that the driver gets it back.
    if (up) this.#rx.wireBack();
    else this.#tx.wireWritable();
  }

  read32(off: number): number {
    const core = this.#core;
    const { filter } = this.#rx;
    if (off >= TL_STATS && off < TL_STATS + 4 * TL_NSTATS && off % 4 === 0)
      return core.stats[(off - TL_STATS) / 4]! % 0x100000000;
    switch (off) {
      case TL_ID:
        return TL_ID_REV1;
      case TL_CTRL:
        return core.ctrl;
      case TL_STATUS:
        return (
          (core.linkUp ? TL_STATUS_LINK : 0) |
          (this.#tx.stopped ? TL_STATUS_TXHALT : 0) |
          (this.#rx.stopped ? TL_STATUS_RXHALT : 0)
        );
      case TL_INTR:
        return core.causes;
      case TL_INTEN:
        return core.mask;
      case TL_ADDR0:
        return filter.macLow;
      case TL_ADDR1:
        return filter.macHigh;
      default:
        return this.#readRing(off);
    }
  }

  write32(off: number, value: number): void {
    if (!this.#write(off, value >>> 0)) this.#core.badReg();
  }

  #readRing(off: number): number {
    const { ring } = off >= TL_RXBASE ? this.#rx : this.#tx;
    switch (off) {
      case TL_TXBASE:
      case TL_RXBASE:
        return ring.base >>> 0;
      case TL_TXSIZE:
      case TL_RXSIZE:
        return ring.size;
      case TL_TXPUT:
      case TL_RXPUT:
        return ring.put;
      case TL_TXGET:
      case TL_RXGET:
        return ring.get;
      default:
        this.#core.badReg();
        return 0xffffffff;
    }
  }

  /** Writes one register; false if there is none, or it does not take that now. */
  #write(off: number, value: number): boolean {
    const core = this.#core;
    const { filter } = this.#rx;
    switch (off) {
      case TL_TXPUT:
        if (!this.#tx.setPut(value)) return false;
        this.#tx.consume();
        this.#rx.drain();
        return true;
      case TL_RXPUT:
        return this.#rx.setPut(value);
      case TL_INTR:
        core.acknowledge(value);
        return true;
      case TL_INTEN:
        return core.setMask(value);
      case TL_INTSET:
        core.cause(value);
        return true;
      case TL_CTRL:
        return this.#writeCtrl(value);
      case TL_ADDR0:
        filter.macLow = value;
        return true;
      case TL_ADDR1:
        filter.macHigh = value;
        return true;
      default:
        return this.#writeRing(off, value);
    }
  }

  /** Rings cannot be moved while the engine runs. */
  #writeRing(off: number, value: number): boolean {
    const engine = off >= TL_RXBASE ? this.#rx : this.#tx;
    if (engine.enabled) return false;
    switch (off) {
      case TL_TXBASE:
      case TL_RXBASE:
        engine.ring.base = value | 0;
        return true;
      case TL_TXSIZE:
      case TL_RXSIZE:
        engine.ring.size = value;
        return true;
      default:
        return false;
    }
  }

  #writeCtrl(value: number): boolean {
    const core = this.#core;
    if ((value & TL_CTRL_RST) !== 0) {
      this.#reset();
      return true;
    }
    const next = value & TL_CTRL_MASK;
    const changed = next ^ core.ctrl;
    core.ctrl = next;
    if ((changed & TL_CTRL_TXE) !== 0) {
      if ((next & TL_CTRL_TXE) !== 0) this.#tx.enable();
      else this.#tx.disable();
    }
    if ((changed & TL_CTRL_RXE) !== 0) {
      if ((next & TL_CTRL_RXE) !== 0) this.#rx.enable();
      else this.#rx.disable();
    }
    return (value & ~TL_CTRL_MASK) === 0;
  }

  /** Everything as at power-on but the statistics. */
  #reset(): void {
    const core = this.#core;
    for (const engine of [this.#tx, this.#rx]) {
      engine.disable();
      engine.stopped = false;
      engine.ring.clear();
    }
    this.#rx.filter.reset();
    core.ctrl = 0;
    core.resetInterrupts();
  }
}
