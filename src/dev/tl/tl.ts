/**
 * The NIC `tl`: register file, interrupts, link. The registers are described in
 * docs/tl-datasheet.md. A write of TL_TXPUT runs the device before it returns: it sends, then
 * drains the wire. The device never calls the driver; it sets causes and raises the interrupt line.
 */

import { RingNic } from '../blocks/ring_nic.ts';
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

/** One NIC. The constructor connects it to its wire; `close` disconnects it. */
export class TlDevice extends RingNic<TlCore, TlTx, TlRx> {
  override readonly size = TL_REG_SIZE;

  constructor(config: TlConfig) {
    if (config.wire.vnetHdr) throw new RangeError('tl: the wire must not have virtio-net headers');
    const core = new TlCore(config);
    super(core, new TlTx(core), new TlRx(core, config.mac));
    this.plugIn();
  }

  override read32(off: number): number {
    const core = this.core;
    const { filter } = this.rx;
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
          (this.tx.stopped ? TL_STATUS_TXHALT : 0) |
          (this.rx.stopped ? TL_STATUS_RXHALT : 0)
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

  #readRing(off: number): number {
    const { ring } = off >= TL_RXBASE ? this.rx : this.tx;
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
        this.core.badReg();
        return 0xffffffff;
    }
  }

  protected override write(off: number, value: number): boolean {
    const core = this.core;
    const { filter } = this.rx;
    switch (off) {
      case TL_TXPUT:
        if (!this.tx.setPut(value)) return false;
        this.kick();
        return true;
      case TL_RXPUT:
        return this.rx.setPut(value);
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

  /** Writes a ring register. Returns false if the engine is enabled or the value is invalid. */
  #writeRing(off: number, value: number): boolean {
    const engine = off >= TL_RXBASE ? this.rx : this.tx;
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
    const core = this.core;
    if ((value & TL_CTRL_RST) !== 0) {
      this.reset();
      return true;
    }
    const next = value & TL_CTRL_MASK;
    core.ctrl = next;
    this.tx.switchTo((next & TL_CTRL_TXE) !== 0);
    this.rx.switchTo((next & TL_CTRL_RXE) !== 0);
    return (value & ~TL_CTRL_MASK) === 0;
  }

  protected override reset(): void {
    super.reset();
    this.core.ctrl = 0;
  }
}
