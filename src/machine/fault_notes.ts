/**
 * Events of captures for the faults of a NIC. A fault affects a frame before the device has recorded it,
 * and a received one before it has an id, so an event waits until the device has noted the frame.
 */

import { Callout, callout_reset, callout_stop, nowNs } from '../kern/kern_timeout.ts';
import { type Direction, type FaultHit, TX } from '../fault/fault_stage.ts';
import type { FrameNotes } from '../fault/fault_wire.ts';
import { captureRing } from '../net/capture.ts';
import { noteFault } from '../net/capture_drop.ts';
import {
  CAPTURE_IN,
  CAPTURE_OUT,
  CAPTURE_RX_COUNT_MASK,
  CAPTURE_RX_ID,
  CAPTURE_RX_UNIT_MASK,
  CAPTURE_RX_UNIT_SHIFT,
  CAPTURE_WIRE,
} from '../sys/capture.ts';
import { captureNotes } from '../sys/capture_notes.ts';

const RETRY_NS = 1e6;
/** A frame that the device has not noted by then gets an event without an id. */
const LIMIT_NS = 1e9;
const WAITING_MAX = 4096;

interface Waiting {
  readonly flags: number;
  readonly n: number;
  readonly hits: readonly FaultHit[];
  readonly sinceNs: number;
}

export class FaultNotes implements FrameNotes {
  /** The interface's number in captures; 0: not known yet. */
  #unit = 0;
  /** The numbers of the first frames by the wire, sent and received, by flags. */
  readonly #before = new Map<number, number>();
  #waiting: Waiting[] = [];
  #lost = 0;
  readonly #timer = new Callout({ run: () => this.#flush() });

  /**
   * The NIC notes its frames from now on.
   * @param unit its number in captures
   * @param frames how many it has sent and received by the wire before
   */
  begin(unit: number, [sent, received]: readonly [number, number]): void {
    const ring = captureRing();
    this.#unit = unit;
    ring.noteIds(unit);
    this.#before.set(CAPTURE_OUT, ring.frames(unit, CAPTURE_OUT) - sent);
    this.#before.set(CAPTURE_IN, ring.frames(unit, CAPTURE_IN) - received);
  }

  affected(dir: Direction, n: number, hits: readonly FaultHit[]): void {
    if (!captureNotes.on || this.#unit === 0 || this.#waiting.length >= WAITING_MAX) return;
    const flags = dir === TX ? CAPTURE_OUT : CAPTURE_IN;
    const number = (this.#before.get(flags)! + n) >>> 0;
    this.#waiting.push({ flags, n: number, hits, sinceNs: nowNs() });
    if (this.#waiting.length === 1) callout_reset(this.#timer, RETRY_NS);
  }

  /** The frame gets an id of its own; those of received frames count up, these down. */
  lost(hits: readonly FaultHit[]): void {
    const bits = (this.#unit & CAPTURE_RX_UNIT_MASK) << CAPTURE_RX_UNIT_SHIFT;
    const number = (CAPTURE_RX_COUNT_MASK - this.#lost++) & CAPTURE_RX_COUNT_MASK;
    this.#record(CAPTURE_IN, ((CAPTURE_RX_ID | bits) >>> 0) + number, hits);
  }

  #record(flags: number, id: number, hits: readonly FaultHit[]): void {
    for (const { why, bytes } of hits) noteFault(id, this.#unit, CAPTURE_WIRE, flags, why, bytes);
  }

  #flush(): void {
    const late = nowNs() - LIMIT_NS;
    const left: Waiting[] = [];
    for (const one of this.#waiting) {
      const { flags, n, hits, sinceNs } = one;
      const known = ((captureRing().frames(this.#unit, flags) - n) | 0) > 0;
      if (known || sinceNs <= late)
        this.#record(flags, captureRing().frameId(this.#unit, flags, n), hits);
      else left.push(one);
    }
    this.#waiting = left;
    if (left.length > 0) callout_reset(this.#timer, RETRY_NS);
  }

  close(): void {
    callout_stop(this.#timer);
    this.#waiting = [];
  }
}
