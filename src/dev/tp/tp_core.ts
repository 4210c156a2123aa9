/** What the parts of the NIC `tp` share: on-board memory, wire, causes, statistics. */

import type { CaptureTap } from '../../sys/capture.ts';
import type { Clock } from '../../sys/clock.ts';
import type { Wire } from '../../sys/wire.ts';
import type { IntrLine } from '../../bus/device.ts';
import { TP_INT_LSC, TP_INT_MASK, TP_NSTATS, TP_ST_INTERRUPTS } from './tpreg.ts';

/** What the device is built into. It has no way to host memory. */
export interface TpConfig {
  readonly intr: IntrLine;
  /** One without virtio-net headers. */
  readonly wire: Wire;
  readonly clock: Clock;
  /** The whole arena, because the wire speaks in its offsets; only the device's own part is used. */
  readonly mem: Uint8Array;
  readonly view: DataView;
  /** Arena offset of TP_SRAM_SIZE bytes that are the device's own. */
  readonly sramOff: number;
  /** Address it has at power-on, 6 bytes. */
  readonly mac: Uint8Array;
  /** The `wire` capture point. */
  readonly capture?: CaptureTap | null;
}

/** Shared state of one device. */
export class TpCore {
  readonly wire: Wire;
  readonly clock: Clock;
  readonly mem: Uint8Array;
  readonly view: DataView;
  readonly sramOff: number;
  readonly capture: CaptureTap | null;
  readonly stats = new Float64Array(TP_NSTATS);
  linkUp = true;
  isr = 0;
  imr = 0;
  readonly #intr: IntrLine;
  #asserted = false;

  constructor(config: TpConfig) {
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
    this.isr |= bits & TP_INT_MASK;
    if ((bits & this.imr) !== 0) this.updateLine();
  }

  /** The link went up or down. */
  setLink(up: boolean): void {
    if (this.linkUp === up) return;
    this.linkUp = up;
    this.cause(TP_INT_LSC);
  }

  /** Brings the line in step with causes and mask; a level that stays high is raised again. */
  updateLine(): void {
    if ((this.isr & this.imr) === 0) {
      this.#asserted = false;
      return;
    }
    if (!this.#asserted) this.stats[TP_ST_INTERRUPTS]! += 1;
    this.#asserted = true;
    this.#intr.raise();
  }
}
