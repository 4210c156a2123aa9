/**
 * The shell of every NIC model: it connects to the wire and disconnects, handles the wire's events
 * and counts refused register writes. The model defines its registers.
 */

import type { WireListener } from '../../sys/wire.ts';
import type { MmioRegion } from '../../bus/device.ts';
import type { NicCore } from './nic_core.ts';

/** The part that receives. */
export interface NicReceiver {
  /** Receives what waits on the wire. */
  drain(): void;
  /** The wire is up again. */
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

  /** Resets the device to its power-on state and connects it to its wire. */
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
    // Drop the packets that wait for room on the wire: the driver gets their buffers back.
    if (up) this.rx.wireBack();
    else this.wireWritable();
  }

  abstract read32(off: number): number;

  write32(off: number, value: number): void {
    if (!this.write(off, value >>> 0)) this.core.badReg();
  }

  /** Writes one register. False: it does not exist, or refuses the value now. */
  protected abstract write(off: number, value: number): boolean;

  /** Resets everything except the statistics. */
  protected abstract reset(): void;
}
