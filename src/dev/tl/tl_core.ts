/** What the parts of the NIC `tl` share: the way to memory and wire, causes, statistics. */

import type { CaptureTap } from '../../sys/capture.ts';
import type { CksumKernel } from '../../sys/cksum.ts';
import type { Clock } from '../../sys/clock.ts';
import type { Wire } from '../../sys/wire.ts';
import type { DmaPort, IntrLine } from '../../bus/device.ts';
import {
  TL_INT_LINK,
  TL_INT_MASK,
  TL_NSTATS,
  TL_RING_ALIGN,
  TL_RING_MAX,
  TL_RING_MIN,
  TL_ST_INTERRUPTS,
} from './tlreg.ts';

/** What the device is built into. */
export interface TlConfig {
  readonly dma: DmaPort;
  readonly intr: IntrLine;
  /** Without virtio-net headers. */
  readonly wire: Wire;
  readonly cksum: CksumKernel;
  readonly clock: Clock;
  /** The whole arena; the device reaches it only where `dma` lets it, and in its own memory. */
  readonly mem: Uint8Array;
  readonly view: DataView;
  /** Arena offset of TL_SRAM_SIZE bytes that are the device's own. */
  readonly sramOff: number;
  /** Address it has at power-on, 6 bytes. */
  readonly mac: Uint8Array;
  /** The `wire` capture point. */
  readonly capture?: CaptureTap | null;
}

/** A ring as its registers have it: the driver puts, the device gets. Both are indices. */
export class TlRing {
  /** Signed: an address above 2^31 is a number on the heap wherever it is passed on. */
  base = 0;
  /** Entries. */
  size = 0;
  put = 0;
  get = 0;

  /** Whether the device can work on a ring like this. */
  get fits(): boolean {
    const { size } = this;
    const inRange = size >= TL_RING_MIN && size <= TL_RING_MAX && (size & (size - 1)) === 0;
    return inRange && this.base % TL_RING_ALIGN === 0;
  }

  advance(): void {
    this.get = (this.get + 1) & (this.size - 1);
  }

  /** Everything but the position, which belongs to an engine that runs. */
  clear(): void {
    this.base = 0;
    this.size = 0;
  }

  rewind(): void {
    this.put = 0;
    this.get = 0;
  }
}

/** Folds a sum of 16-bit words to 16 bits, RFC 1071. `n` is below 2^32. */
export function fold16(n: number): number {
  n = (n & 0xffff) + (n >>> 16);
  return (n & 0xffff) + (n >>> 16);
}

/** Shared state of one device. */
export class TlCore {
  readonly dma: DmaPort;
  readonly wire: Wire;
  readonly cksum: CksumKernel;
  readonly clock: Clock;
  readonly mem: Uint8Array;
  readonly view: DataView;
  readonly sramOff: number;
  readonly capture: CaptureTap | null;
  readonly stats = new Float64Array(TL_NSTATS);
  linkUp = true;
  intr = 0;
  inten = 0;
  /** TL_CTRL. */
  ctrl = 0;
  readonly #line: IntrLine;
  #asserted = false;

  constructor(config: TlConfig) {
    this.dma = config.dma;
    this.wire = config.wire;
    this.cksum = config.cksum;
    this.clock = config.clock;
    this.mem = config.mem;
    this.view = config.view;
    this.sramOff = config.sramOff;
    this.capture = config.capture ?? null;
    this.#line = config.intr;
  }

  /** Sets causes and, if one of them is unmasked, raises the line. */
  cause(bits: number): void {
    this.intr |= bits & TL_INT_MASK;
    this.updateLine();
  }

  /** The link went up or down. */
  setLink(up: boolean): void {
    if (this.linkUp === up) return;
    this.linkUp = up;
    this.cause(TL_INT_LINK);
  }

  /** Brings the line in step with causes and mask; a level that stays high is raised again. */
  updateLine(): void {
    if ((this.intr & this.inten) === 0) {
      this.#asserted = false;
      return;
    }
    if (!this.#asserted) this.stats[TL_ST_INTERRUPTS]! += 1;
    this.#asserted = true;
    this.#line.raise();
  }
}
