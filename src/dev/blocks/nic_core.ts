/**
 * The common state of every NIC model: access to wire and memory, interrupt causes and their line,
 * the link, statistics, and the counting and capture of each frame on the wire.
 */

import { CAPTURE_IN, CAPTURE_OUT, CAPTURE_WIRE, type CaptureTap } from '../../sys/capture.ts';
import type { Clock } from '../../sys/clock.ts';
import { EAGAIN } from '../../sys/errno.ts';
import { ETHER_HDR_LEN } from '../../sys/protocols.ts';
import {
  count,
  R_DEV_BAD_REG,
  R_DEV_LINK_DOWN,
  R_DEV_RX_FILTER,
  R_DEV_RX_OVERSIZE,
  R_DEV_RX_RUNT,
  R_DEV_WIRE_ERROR,
  R_DEV_WIRE_FULL,
} from '../../sys/reason.ts';
import type { Wire } from '../../sys/wire.ts';
import type { DmaPort, IntrLine } from '../../bus/device.ts';

/** The environment of the device. */
export interface NicConfig {
  readonly intr: IntrLine;
  readonly wire: Wire;
  readonly clock: Clock;
  /**
   * The whole arena. The device may access its own memory in it directly, and host memory only at
   * offsets from its DMA port.
   */
  readonly mem: Uint8Array;
  readonly view: DataView;
  /** Arena offset of the device's own memory; the datasheet defines its size. */
  readonly sramOff: number;
  /** Station address at power-on, 6 bytes. */
  readonly mac: Uint8Array;
  /** The `wire` capture point. */
  readonly capture?: CaptureTap | null;
}

/** The environment of a bus master. */
export interface DmaNicConfig extends NicConfig {
  readonly dma: DmaPort;
}

/** A model's cause bits and numbers of statistics. */
export interface NicNumbers {
  /** All defined causes. */
  readonly causes: number;
  readonly link: number;
  readonly nstats: number;
  readonly txFrames: number;
  readonly txBytes: number;
  readonly txWireFull: number;
  readonly txWireError: number;
  readonly txNoLink: number;
  readonly rxFiltered: number;
  readonly rxOversize: number;
  readonly rxRunt: number;
  readonly badReg: number;
  readonly interrupts: number;
}

/** Those of a bus master whose engines use descriptor rings. */
export interface DmaNicNumbers extends NicNumbers {
  readonly dmaFaults: number;
  readonly txBad: number;
  readonly rxBad: number;
  readonly rxNodesc: number;
  /** Causes: an engine found a bad descriptor or ring; no receive buffer is posted. */
  readonly txError: number;
  readonly rxError: number;
  readonly rxEmpty: number;
}

// Result of sending a frame.
export const SENT = 0;
/** The wire is full; it calls wireWritable when it has room. */
export const BLOCKED = 1;
/** The wire refused the frame. */
const LOST = 2;

/** Shared state of one device. */
export class NicCore<N extends NicNumbers = NicNumbers> {
  readonly numbers: N;
  readonly wire: Wire;
  readonly clock: Clock;
  readonly mem: Uint8Array;
  readonly view: DataView;
  readonly sramOff: number;
  readonly capture: CaptureTap | null;
  readonly stats: Float64Array;
  linkUp = true;
  /** Causes that are set, and causes that raise the line. */
  causes = 0;
  mask = 0;
  readonly #line: IntrLine;
  #asserted = false;

  constructor(config: NicConfig, numbers: N) {
    this.numbers = numbers;
    this.wire = config.wire;
    this.clock = config.clock;
    this.mem = config.mem;
    this.view = config.view;
    this.sramOff = config.sramOff;
    this.capture = config.capture ?? null;
    this.stats = new Float64Array(numbers.nstats);
    this.#line = config.intr;
  }

  /** Sets causes and, if one of them is unmasked, raises the line. */
  cause(bits: number): void {
    this.causes |= bits & this.numbers.causes;
    if ((bits & this.mask) !== 0) this.updateLine();
  }

  /** Clears `bits` of the causes. */
  acknowledge(bits: number): void {
    this.causes &= ~bits;
    this.updateLine();
  }

  /** Sets the mask. Returns false if a bit is not a cause; the other bits are set. */
  setMask(bits: number): boolean {
    this.mask = bits & this.numbers.causes;
    this.updateLine();
    return (bits & ~this.numbers.causes) === 0;
  }

  /** Resets causes and mask to their power-on state. */
  resetInterrupts(): void {
    this.mask = 0;
    this.causes = 0;
    this.updateLine();
  }

  /** Raises the line if an unmasked cause is set, also if it was raised before. */
  updateLine(): void {
    if ((this.causes & this.mask) === 0) {
      this.#asserted = false;
      return;
    }
    if (!this.#asserted) this.stats[this.numbers.interrupts]! += 1;
    this.#asserted = true;
    this.#line.raise();
  }

  /** Records a change of the link and sets its cause. */
  setLink(up: boolean): void {
    if (this.linkUp === up) return;
    this.linkUp = up;
    this.cause(this.numbers.link);
  }

  /** Counts a register access that was refused. */
  badReg(): void {
    this.stats[this.numbers.badReg]! += 1;
    count(R_DEV_BAD_REG);
  }

  /** Counts a packet that is dropped because the link is down. */
  noLink(): void {
    this.stats[this.numbers.txNoLink]! += 1;
    count(R_DEV_LINK_DOWN);
  }

  /**
   * Counts and captures the result `n` of sending a frame of `len` bytes in the first `pieces`
   * pairs of `iov`; `tag` is the driver's packet id. Returns SENT, BLOCKED or LOST.
   */
  written(n: number, iov: Uint32Array, pieces: number, len: number, tag: number): number {
    const { stats, capture } = this;
    const numbers = this.numbers;
    if (n >= 0) {
      stats[numbers.txFrames]! += 1;
      stats[numbers.txBytes]! += len;
      if (capture !== null && capture.wants(CAPTURE_WIRE))
        capture.capture(CAPTURE_WIRE, CAPTURE_OUT, tag, iov, 0, pieces, len);
      return SENT;
    }
    if (n === -EAGAIN) {
      stats[numbers.txWireFull]! += 1;
      count(R_DEV_WIRE_FULL);
      this.wire.armWritable();
      return BLOCKED;
    }
    stats[numbers.txWireError]! += 1;
    count(R_DEV_WIRE_ERROR);
    return LOST;
  }

  /**
   * Checks a frame of `len` bytes that was read into the first `pieces` pairs of `iov`. Captures a
   * valid frame and returns true. Counts a frame that is too short or longer than `max` and returns
   * false.
   */
  arrived(iov: Uint32Array, pieces: number, len: number, max: number): boolean {
    const { stats, capture } = this;
    if (len < ETHER_HDR_LEN) {
      stats[this.numbers.rxRunt]! += 1;
      count(R_DEV_RX_RUNT);
      return false;
    }
    if (len > max) {
      stats[this.numbers.rxOversize]! += 1;
      count(R_DEV_RX_OVERSIZE);
      return false;
    }
    if (capture !== null && capture.wants(CAPTURE_WIRE))
      capture.capture(CAPTURE_WIRE, CAPTURE_IN, 0, iov, 0, pieces, len);
    return true;
  }

  /** Counts a frame that the address filter rejects. */
  filtered(): void {
    this.stats[this.numbers.rxFiltered]! += 1;
    count(R_DEV_RX_FILTER);
  }
}

/** Shared state of one bus master. */
export class DmaNicCore extends NicCore<DmaNicNumbers> {
  readonly dma: DmaPort;

  constructor(config: DmaNicConfig, numbers: DmaNicNumbers) {
    super(config, numbers);
    this.dma = config.dma;
  }

  /** Counts an access that the bus refused. */
  dmaFault(): void {
    this.stats[this.numbers.dmaFaults]! += 1;
  }
}
