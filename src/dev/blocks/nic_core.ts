/**
 * The common state of every NIC model: access to wire and memory, interrupt causes and their line,
 * the link, statistics, and the counting and capture of each frame on the wire.
 */

import {
  CAPTURE_IN,
  CAPTURE_OUT,
  CAPTURE_RING,
  CAPTURE_WIRE,
  type CaptureTap,
} from '../../sys/capture.ts';
import type { FrameFacts } from '../../sys/capture_facts.ts';
import { META_LINK_TSO } from '../../sys/capture_meta.ts';
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
  type Reason,
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
  /** The capture points `ring` and `wire`. */
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

  /**
   * Counts a packet of `len` bytes that is dropped because the link is down; `tag` is the driver's
   * packet id.
   */
  noLink(len: number, tag: number): void {
    this.stats[this.numbers.txNoLink]! += 1;
    count(R_DEV_LINK_DOWN);
    this.captureDrop(CAPTURE_WIRE, CAPTURE_OUT, tag, R_DEV_LINK_DOWN, len);
  }

  /** Records that a packet of `len` bytes, which has no record at `point`, was dropped. */
  captureDrop(point: number, flags: number, id: number, reason: Reason, len: number): void {
    const { capture } = this;
    if (capture === null || !capture.meta) return;
    capture.facts.dropped(reason, len);
    capture.event(point, flags, id);
  }

  /** Records a frame at point `wire`. @param csum META_CSUM_* */
  captureWire(
    flags: number,
    id: number,
    iov: Uint32Array,
    pieces: number,
    len: number,
    csum: number,
  ): void {
    const { capture } = this;
    if (capture === null || !capture.wants(CAPTURE_WIRE)) return;
    capture.facts.csum = csum;
    capture.capture(CAPTURE_WIRE, flags, id, iov, 0, pieces, len);
  }

  /**
   * Records a packet of `len` bytes at point `ring`. The caller has set the facts.
   * @param flags CAPTURE_OUT: as fetched, CAPTURE_IN: as handed to the driver
   */
  captureRing(flags: number, id: number, iov: Uint32Array, pieces: number, len: number): void {
    this.capture?.capture(CAPTURE_RING, flags, id, iov, 0, pieces, len);
  }

  /** The facts for a record at point `ring`; null: it is not captured. */
  ringFacts(): FrameFacts | null {
    const { capture } = this;
    return capture !== null && capture.wants(CAPTURE_RING) ? capture.facts : null;
  }

  /** The facts for an event; null: nothing records events. */
  eventFacts(): FrameFacts | null {
    const { capture } = this;
    return capture !== null && capture.meta ? capture.facts : null;
  }

  /** The id that the driver gave the packet in `slot`, if captures want ids: once. Else 0. */
  takeTag(slot: number): number {
    const { capture } = this;
    return capture !== null && capture.meta ? capture.takeTag(slot) : 0;
  }

  /** Gives the driver the id of the frame in `slot`, if captures want ids. */
  putTag(slot: number, id: number): void {
    const { capture } = this;
    if (capture !== null && id !== 0 && capture.meta) capture.putTag(slot, id);
  }

  /** The id of a frame that arrives: 0 without captures. */
  rxId(): number {
    const { capture } = this;
    return capture === null || capture.points === 0 ? 0 : capture.rxId();
  }

  /**
   * Counts and captures the result `n` of sending a frame of `len` bytes in the first `pieces`
   * pairs of `iov`; `tag` is the driver's packet id. Returns SENT, BLOCKED or LOST.
   * @param csum META_CSUM_*
   * @param child number of the frame among the segments of a TSO packet; -1: it is no segment
   */
  written(
    n: number,
    iov: Uint32Array,
    pieces: number,
    len: number,
    tag: number,
    csum = 0,
    child = -1,
  ): number {
    const { stats, capture } = this;
    const numbers = this.numbers;
    if (n >= 0) {
      stats[numbers.txFrames]! += 1;
      stats[numbers.txBytes]! += len;
      if (capture !== null) capture.noteFrame(CAPTURE_OUT, tag);
      if (capture !== null && capture.wants(CAPTURE_WIRE)) {
        if (child >= 0) capture.facts.link(META_LINK_TSO, child, tag);
        this.captureWire(CAPTURE_OUT, tag, iov, pieces, len, csum);
      }
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
    this.captureDrop(CAPTURE_WIRE, CAPTURE_OUT, tag, R_DEV_WIRE_ERROR, len);
    return LOST;
  }

  /**
   * Returns whether the received frame `id` of `len` bytes has a valid length. Counts one that is too
   * short or longer than `max`.
   */
  arrived(len: number, max: number, id: number): boolean {
    const { stats } = this;
    this.capture?.noteFrame(CAPTURE_IN, id);
    if (len < ETHER_HDR_LEN) {
      stats[this.numbers.rxRunt]! += 1;
      count(R_DEV_RX_RUNT);
      this.captureDrop(CAPTURE_WIRE, CAPTURE_IN, id, R_DEV_RX_RUNT, Math.max(len, 0));
      return false;
    }
    if (len > max) {
      stats[this.numbers.rxOversize]! += 1;
      count(R_DEV_RX_OVERSIZE);
      this.captureDrop(CAPTURE_WIRE, CAPTURE_IN, id, R_DEV_RX_OVERSIZE, len);
      return false;
    }
    return true;
  }

  /**
   * Counts and captures the frame `id` of `len` bytes in the first `pieces` pairs of `iov`, which the
   * address filter rejects.
   */
  filtered(id: number, iov: Uint32Array, pieces: number, len: number): void {
    this.stats[this.numbers.rxFiltered]! += 1;
    count(R_DEV_RX_FILTER);
    this.captureRejected(id, iov, pieces, len, R_DEV_RX_FILTER);
  }

  /** Records a received frame that is dropped for `reason`. */
  captureRejected(id: number, iov: Uint32Array, pieces: number, len: number, reason: Reason): void {
    const { capture } = this;
    if (capture === null) return;
    if (!capture.wants(CAPTURE_WIRE)) {
      this.captureDrop(CAPTURE_WIRE, CAPTURE_IN, id, reason, len);
      return;
    }
    capture.facts.dropped(reason, len);
    capture.capture(CAPTURE_WIRE, CAPTURE_IN, id, iov, 0, pieces, len);
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
