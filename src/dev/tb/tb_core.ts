/** What the parts of the NIC `tb` share: the way to memory and wire, causes, statistics. */

import type { CaptureTap } from '../../sys/capture.ts';
import type { Clock } from '../../sys/clock.ts';
import type { Wire } from '../../sys/wire.ts';
import type { DmaPort, IntrLine } from '../../bus/device.ts';
import { TB_INT_LINK, TB_INT_MASK, TB_NSTATS, TB_ST_INTERRUPTS } from './tbreg.ts';

/** What the device is built into. */
export interface TbConfig {
  readonly dma: DmaPort;
  readonly intr: IntrLine;
  /** Without virtio-net headers. */
  readonly wire: Wire;
  readonly clock: Clock;
  /** The whole arena; the device reaches it only where `dma` lets it, and in its own memory. */
  readonly mem: Uint8Array;
  readonly view: DataView;
  /** Arena offset of TB_SRAM_SIZE bytes that are the device's own. */
  readonly sramOff: number;
  /** Address it has at power-on, 6 bytes. */
  readonly mac: Uint8Array;
  /** The `wire` capture point. */
  readonly capture?: CaptureTap | null;
}

/** A descriptor ring as its registers have it, and where the device is in it. */
export class TbRing {
  baseLo = 0;
  baseHi = 0;
  /** Descriptors. */
  count = 0;
  pos = 0;

  next(slot: number): number {
    return slot + 1 === this.count ? 0 : slot + 1;
  }
}

/** Shared state of one device. */
export class TbCore {
  readonly dma: DmaPort;
  readonly wire: Wire;
  readonly clock: Clock;
  readonly mem: Uint8Array;
  readonly view: DataView;
  readonly sramOff: number;
  readonly capture: CaptureTap | null;
  readonly stats = new Float64Array(TB_NSTATS);
  linkUp = true;
  isr = 0;
  imr = 0;
  readonly #intr: IntrLine;
  #asserted = false;

  constructor(config: TbConfig) {
    this.dma = config.dma;
    this.wire = config.wire;
    this.clock = config.clock;
    this.mem = config.mem;
    this.view = config.view;
    this.sramOff = config.sramOff;
    this.capture = config.capture ?? null;
    this.#intr = config.intr;
  }

  /** Sets causes and, if one of them is unmasked, raises the line. */
  cause(bits: number): void {
    this.isr |= bits & TB_INT_MASK;
    this.updateLine();
  }

  /** The link went up or down. */
  setLink(up: boolean): void {
    if (this.linkUp === up) return;
    this.linkUp = up;
    this.cause(TB_INT_LINK);
  }

  /** Brings the line in step with causes and mask; a level that stays high is raised again. */
  updateLine(): void {
    if ((this.isr & this.imr) === 0) {
      this.#asserted = false;
      return;
    }
    if (!this.#asserted) this.stats[TB_ST_INTERRUPTS]! += 1;
    this.#asserted = true;
    this.#intr.raise();
  }
}
