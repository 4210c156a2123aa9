/**
 * The NIC `tb`: register file, interrupts, link. The registers are described in
 * docs/tb-datasheet.md. A write of TB_TXKICK runs the device before it returns: it sends, then
 * drains the wire. The device never calls the driver; it sets causes and raises the interrupt line.
 */

import { RingNic } from '../blocks/ring_nic.ts';
import { type TbConfig, TbCore } from './tb_core.ts';
import { TbRx } from './tb_rx.ts';
import { TbTx } from './tb_tx.ts';
import {
  TB_CMD,
  TB_CMD_MASK,
  TB_CMD_RST,
  TB_CMD_RXE,
  TB_CMD_TXE,
  TB_FRAME_MAX,
  TB_FRAME_MIN,
  TB_HASH0,
  TB_HASH1,
  TB_ID,
  TB_ID_REV1,
  TB_IMR,
  TB_ISET,
  TB_ISR,
  TB_MAC0,
  TB_MAC1,
  TB_MAXFRM,
  TB_NSTATS,
  TB_REG_SIZE,
  TB_RXBASEH,
  TB_RXBASEL,
  TB_RXCFG,
  TB_RXCFG_MASK,
  TB_RXCNT,
  TB_RXKICK,
  TB_RXPOS,
  TB_SRAM_SIZE,
  TB_STATS,
  TB_STATUS,
  TB_STATUS_LINK,
  TB_STATUS_RXSTOP,
  TB_STATUS_TXSTOP,
  TB_TXBASEH,
  TB_TXBASEL,
  TB_TXCNT,
  TB_TXKICK,
  TB_TXPOS,
} from './tbreg.ts';

/** One NIC. The constructor connects it to its wire; `close` disconnects it. */
export class TbDevice extends RingNic<TbCore, TbTx, TbRx> {
  override readonly size = TB_REG_SIZE;
  #cmd = 0;

  constructor(config: TbConfig) {
    if (config.wire.vnetHdr) throw new RangeError('tb: the wire must not have virtio-net headers');
    const core = new TbCore(config);
    super(core, new TbTx(core), new TbRx(core, config.mac));
    // Zeros for the padding of short frames.
    config.mem.fill(0, config.sramOff, config.sramOff + TB_SRAM_SIZE);
    this.plugIn();
  }

  override read32(off: number): number {
    const core = this.core;
    const { filter } = this.rx;
    if (off >= TB_STATS && off < TB_STATS + 4 * TB_NSTATS && off % 4 === 0)
      return core.stats[(off - TB_STATS) / 4]! % 0x100000000;
    switch (off) {
      case TB_ID:
        return TB_ID_REV1;
      case TB_CMD:
        return this.#cmd;
      case TB_RXCFG:
        return this.rx.config;
      case TB_STATUS:
        return (
          (core.linkUp ? TB_STATUS_LINK : 0) |
          (this.tx.stopped ? TB_STATUS_TXSTOP : 0) |
          (this.rx.stopped ? TB_STATUS_RXSTOP : 0)
        );
      case TB_ISR:
        return core.causes;
      case TB_IMR:
        return core.mask;
      case TB_MAC0:
        return filter.macLow;
      case TB_MAC1:
        return filter.macHigh;
      case TB_HASH0:
        return filter.bits[0]!;
      case TB_HASH1:
        return filter.bits[1]!;
      case TB_MAXFRM:
        return this.rx.frameMax;
      default:
        return this.#readRing(off);
    }
  }

  #readRing(off: number): number {
    const { ring } = off >= TB_RXBASEL ? this.rx : this.tx;
    switch (off) {
      case TB_TXBASEL:
      case TB_RXBASEL:
        return ring.baseLo >>> 0;
      case TB_TXBASEH:
      case TB_RXBASEH:
        return ring.baseHi >>> 0;
      case TB_TXCNT:
      case TB_RXCNT:
        return ring.count;
      case TB_TXPOS:
      case TB_RXPOS:
        return ring.pos;
      default:
        this.core.badReg();
        return 0xffffffff;
    }
  }

  protected override write(off: number, value: number): boolean {
    const core = this.core;
    switch (off) {
      case TB_TXKICK:
        if (!this.tx.enabled) return false;
        this.kick();
        return true;
      case TB_RXKICK:
        if (!this.rx.enabled) return false;
        this.rx.kick();
        return true;
      case TB_ISR:
        core.acknowledge(value);
        return true;
      case TB_IMR:
        return core.setMask(value);
      case TB_ISET:
        core.cause(value);
        return true;
      case TB_CMD:
        return this.#writeCmd(value);
      case TB_RXCFG:
        this.rx.config = value & TB_RXCFG_MASK;
        return (value & ~TB_RXCFG_MASK) === 0;
      case TB_MAXFRM:
        if (value < TB_FRAME_MIN || value > TB_FRAME_MAX) return false;
        this.rx.frameMax = value;
        return true;
      default:
        return this.#writeAddr(off, value) || this.#writeRing(off, value);
    }
  }

  #writeAddr(off: number, value: number): boolean {
    const { filter } = this.rx;
    switch (off) {
      case TB_MAC0:
        filter.macLow = value;
        return true;
      case TB_MAC1:
        filter.macHigh = value;
        return true;
      case TB_HASH0:
        filter.bits[0] = value;
        return true;
      case TB_HASH1:
        filter.bits[1] = value;
        return true;
      default:
        return false;
    }
  }

  /** Writes a ring register. Returns false if the engine is enabled or the value is invalid. */
  #writeRing(off: number, value: number): boolean {
    const engine = off >= TB_RXBASEL ? this.rx : this.tx;
    if (engine.enabled) return false;
    switch (off) {
      case TB_TXBASEL:
      case TB_RXBASEL:
        engine.ring.baseLo = value | 0;
        return true;
      case TB_TXBASEH:
      case TB_RXBASEH:
        engine.ring.baseHi = value | 0;
        return true;
      case TB_TXCNT:
      case TB_RXCNT:
        engine.ring.count = value;
        return true;
      default:
        return false;
    }
  }

  #writeCmd(value: number): boolean {
    if ((value & TB_CMD_RST) !== 0) {
      this.reset();
      return true;
    }
    const next = value & TB_CMD_MASK;
    this.#cmd = next;
    this.tx.switchTo((next & TB_CMD_TXE) !== 0);
    this.rx.switchTo((next & TB_CMD_RXE) !== 0);
    return (value & ~TB_CMD_MASK) === 0;
  }

  protected override reset(): void {
    super.reset();
    this.#cmd = 0;
  }
}
