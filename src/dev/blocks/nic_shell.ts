/**
 * The shell of every NIC model: how it is plugged into its wire and taken off, what the wire tells
 * it, and what becomes of a register write that is refused. Left to the model: its registers.
 */

import type { WireListener } from '../../sys/wire.ts';
import type { MmioRegion } from '../../bus/device.ts';
import type { NicCore } from './nic_core.ts';

/** The part that receives. */
export interface NicReceiver {
  /** Receives what waits on the wire. */
  drain(): void;
  /** The wire came back. */
  wireBack(): void;
}

/** One NIC. A model's constructor ends with `plugIn`; `close` unplugs it. */
export abstract class NicShell<C extends NicCore, R extends NicReceiver>
  implements MmioRegion, WireListener
{
  abstract readonly size: number;
  protected readonly core: C;
  protected readonly rx: R;

  constructor(core: C, rx: R) {
    this.core = core;
    this.rx = rx;
  }

  /** Brings the device into the state of power-on and onto its wire. */
  protected plugIn(): void {
    this.reset();
    this.core.wire.setListener(this);
  }

  /** Unplugs it: nothing is sent or received any more. The wire stays open. */
  close(): void {
    this.reset();
    this.core.wire.setListener(null);
  }

  /** The statistics by number, as the model's datasheet has them. */
  get stats(): Float64Array {
    return this.core.stats;
  }

  wireReadable(): void {
    this.rx.drain();
  }

  abstract wireWritable(): void;

  wireState(up: boolean, _error: number): void {
    this.core.setLink(up);
    // What waited for room on the wire is let go, so that the driver gets it back.
    if (up) this.rx.wireBack();
    else this.wireWritable();
  }

  abstract read32(off: number): number;

  write32(off: number, value: number): void {
    if (!this.write(off, value >>> 0)) this.core.badReg();
  }

  /** Writes one register; false if there is none, or it does not take that now. */
  protected abstract write(off: number, value: number): boolean;

  /** Everything as at power-on but the statistics. */
  protected abstract reset(): void;
}
