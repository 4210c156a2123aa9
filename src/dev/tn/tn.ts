/**
 * The NIC `tn`, device build `ts`: register file, interrupts, link. The registers are described in
 * docs/tn-datasheet.md. A write of the transmit tail runs the device before it returns: it sends,
 * then drains the wire. The device never calls the driver; it sets causes and raises the interrupt
 * line.
 */

import { RingNic } from '../blocks/ring_nic.ts';
import { type TnConfig, TnCore } from './tn_core.ts';
import { TnRx } from './tn_rx.ts';
import { TnTx } from './tn_tx.ts';
import {
  TN_CTRL,
  TN_CTRL_MASK,
  TN_CTRL_RST,
  TN_CTRL_RXE,
  TN_CTRL_TXE,
  TN_FEAT_ITR,
  TN_FEAT_IXSM,
  TN_FEAT_LRO,
  TN_FEAT_RXCSUM,
  TN_FEAT_RXCSUM6,
  TN_FEAT_TSO4,
  TN_FEAT_TSO6,
  TN_FEAT_TXSM,
  TN_FEAT_TXSM6,
  TN_FEAT_VLAN,
  TN_FEATURES,
  TN_FRAME_MAX,
  TN_ICR,
  TN_ICS,
  TN_ID,
  TN_ID_REV1,
  TN_IMC,
  TN_IMS,
  TN_INT_MASK,
  TN_ITR,
  TN_ITR_MAX,
  TN_LIMITS,
  TN_MACH,
  TN_MACL,
  TN_MAXFRM,
  TN_MAXFRM_MAX,
  TN_MAXFRM_MIN,
  TN_MTA0,
  TN_MTA1,
  TN_RDBAH,
  TN_RDBAL,
  TN_RDH,
  TN_RDLEN,
  TN_RDT,
  TN_REG_SIZE,
  TN_RXBSZ,
  TN_RXBSZ_MAX,
  TN_RXBSZ_MIN,
  TN_STATS,
  TN_STATS_END,
  TN_STATUS,
  TN_STATUS_LU,
  TN_STATUS_RXSTOP,
  TN_STATUS_TXSTOP,
  TN_STATUS_VNET,
  TN_TDBAH,
  TN_TDBAL,
  TN_TDH,
  TN_TDLEN,
  TN_TDT,
  TN_TX_SEGS,
} from './tnreg.ts';

/** One NIC. The constructor connects it to its wire; `close` disconnects it. */
export class TnDevice extends RingNic<TnCore, TnTx, TnRx> {
  override readonly size = TN_REG_SIZE;
  #ctrl = 0;
  /** Upper half of the counter whose lower half was read last. */
  #statHigh = 0;

  constructor(config: TnConfig) {
    if (config.wire.vnetHdr !== (config.mode === 'vnet'))
      throw new RangeError('tn: the wire must have virtio-net headers exactly in mode vnet');
    const core = new TnCore(config);
    super(core, new TnTx(core), new TnRx(core, config.mac));
    this.plugIn();
  }

  override read32(off: number): number {
    const core = this.core;
    if (off >= TN_STATS && off < TN_STATS_END && off % 4 === 0) return this.#readStat(off);
    switch (off) {
      case TN_ID:
        return TN_ID_REV1;
      case TN_CTRL:
        return this.#ctrl;
      case TN_STATUS:
        return (
          (core.linkUp ? TN_STATUS_LU : 0) |
          (core.vnet ? TN_STATUS_VNET : 0) |
          (this.tx.stopped ? TN_STATUS_TXSTOP : 0) |
          (this.rx.stopped ? TN_STATUS_RXSTOP : 0)
        );
      case TN_FEATURES:
        return (
          TN_FEAT_IXSM |
          TN_FEAT_TXSM |
          TN_FEAT_TXSM6 |
          TN_FEAT_TSO4 |
          TN_FEAT_TSO6 |
          TN_FEAT_VLAN |
          TN_FEAT_RXCSUM |
          TN_FEAT_RXCSUM6 |
          (core.timer === null ? 0 : TN_FEAT_ITR) |
          (core.vnet ? 0 : TN_FEAT_LRO)
        );
      case TN_MACL:
        return this.rx.filter.macLow;
      case TN_MACH:
        return this.rx.filter.macHigh;
      case TN_MAXFRM:
        return this.rx.frameMax;
      case TN_LIMITS:
        return (TN_FRAME_MAX << 16) | TN_TX_SEGS;
      case TN_ICR:
        return core.causes;
      case TN_IMS:
        return core.mask;
      case TN_ITR:
        return core.itr;
      case TN_MTA0:
      case TN_MTA1:
        return this.rx.filter.bits[(off - TN_MTA0) / 4]!;
      default:
        return this.#readRing(off);
    }
  }

  #readRing(off: number): number {
    const { ring } = off >= TN_RDBAL ? this.rx : this.tx;
    switch (off) {
      case TN_TDBAL:
      case TN_RDBAL:
        return ring.baseLo >>> 0;
      case TN_TDBAH:
      case TN_RDBAH:
        return ring.baseHi >>> 0;
      case TN_TDLEN:
      case TN_RDLEN:
        return ring.len;
      case TN_TDH:
      case TN_RDH:
        return ring.head;
      case TN_TDT:
      case TN_RDT:
        return ring.tail;
      case TN_RXBSZ:
        return this.rx.bufSize;
      default:
        this.core.badReg();
        return 0xffffffff;
    }
  }

  #readStat(off: number): number {
    if (off % 8 !== 0) return this.#statHigh;
    const n = this.core.stats[(off - TN_STATS) / 8]!;
    this.#statHigh = Math.floor(n / 0x100000000) >>> 0;
    return n >>> 0;
  }

  protected override write(off: number, value: number): boolean {
    const core = this.core;
    switch (off) {
      case TN_TDT:
        if (!this.tx.setTail(value)) return false;
        this.kick();
        return true;
      case TN_RDT:
        return this.rx.setTail(value);
      case TN_ICR:
        core.acknowledge(value);
        return true;
      case TN_ICS:
        core.cause(value);
        return true;
      case TN_IMS:
        core.setMask(core.mask | (value & TN_INT_MASK));
        return true;
      case TN_IMC:
        core.setMask(core.mask & ~value);
        return true;
      case TN_ITR:
        if (value > (core.timer === null ? 0 : TN_ITR_MAX)) return false;
        core.itr = value;
        return true;
      case TN_CTRL:
        return this.#writeCtrl(value);
      case TN_MACL:
        this.rx.filter.macLow = value;
        return true;
      case TN_MACH:
        this.rx.filter.macHigh = value;
        return true;
      case TN_MTA0:
      case TN_MTA1:
        this.rx.filter.bits[(off - TN_MTA0) / 4] = value;
        return true;
      case TN_MAXFRM:
        if (value < TN_MAXFRM_MIN) return false;
        if (value > (core.vnet ? TN_MAXFRM_MAX : TN_FRAME_MAX)) return false;
        this.rx.frameMax = value;
        return true;
      default:
        return this.#writeRing(off, value);
    }
  }

  /** Writes a ring register. Returns false if the engine is enabled or the value is invalid. */
  #writeRing(off: number, value: number): boolean {
    const engine = off >= TN_RDBAL ? this.rx : this.tx;
    if (engine.enabled) return false;
    const { ring } = engine;
    switch (off) {
      case TN_TDBAL:
      case TN_RDBAL:
        ring.baseLo = value | 0;
        return true;
      case TN_TDBAH:
      case TN_RDBAH:
        ring.baseHi = value | 0;
        return true;
      case TN_TDLEN:
      case TN_RDLEN:
        ring.len = value;
        return true;
      case TN_RXBSZ:
        if (value < TN_RXBSZ_MIN || value > TN_RXBSZ_MAX || (value & (value - 1)) !== 0)
          return false;
        this.rx.bufSize = value;
        return true;
      default:
        return false;
    }
  }

  #writeCtrl(value: number): boolean {
    if ((value & TN_CTRL_RST) !== 0) {
      this.reset();
      return true;
    }
    const next = value & TN_CTRL_MASK;
    this.#ctrl = next;
    this.core.setModes(next);
    this.tx.switchTo((next & TN_CTRL_TXE) !== 0);
    this.rx.switchTo((next & TN_CTRL_RXE) !== 0);
    return (value & ~TN_CTRL_MASK) === 0;
  }

  protected override reset(): void {
    super.reset();
    this.#ctrl = 0;
    this.core.setModes(0);
    this.core.itr = 0;
  }
}
