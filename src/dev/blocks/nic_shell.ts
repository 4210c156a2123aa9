/**
 * The shell of every NIC model: it connects to the wire and disconnects, handles the wire's events
 * and counts refused register writes. The model defines its registers.
 */

import type { WireListener } from '../../sys/wire.ts';
import type { MmioRegion } from '../../bus/device.ts';
import type { NicCore } from './nic_core.ts';

/** The receiving part of a NIC. */
interface NicReceiver {
  /** Receives the frames that wait on the wire. */
  drain(): void;
  /** The link came up: watches the wire again. */
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

  /** Disconnects the device from its wire: it no longer sends or receives. The wire stays open. */
  close(): void {
    this.reset();
    this.core.wire.setListener(null);
  }

  /** The statistics, indexed by the numbers of the model's datasheet. */
  get stats(): Float64Array {
    return this.core.stats;
  }

  wireReadable(): void {
    this.rx.drain();
  }

  abstract wireWritable(): void;

  wireState(up: boolean, _error: number): void {
    this.core.setLink(up);
    // With the link down, drop the packets that wait for room on the wire, so that the driver gets
    // their buffers back.
    if (up) this.rx.wireBack();
    else this.wireWritable();
  }

  abstract read32(off: number): number;

  write32(off: number, value: number): void {
    if (!this.write(off, value >>> 0)) this.core.badReg();
  }

  /** Writes one register. Returns false if it does not exist or cannot take the value now. */
  protected abstract write(off: number, value: number): boolean;

  /** Resets everything except the statistics. */
  protected abstract reset(): void;
}
