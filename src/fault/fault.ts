/** One fault: which frames it selects, and what it does to them. */

import { bpf_filter, type BpfProgram } from '../sys/bpf_filter.ts';
import type { Prng } from '../sys/prng.ts';
import { RateLine } from '../sys/rate_line.ts';

export const FAULT_KINDS = [
  'drop',
  'duplicate',
  'reorder',
  'delay',
  'corrupt',
  'truncate',
  'rate',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** `tx`: what the NIC sends, `rx`: what it receives, `wire`: both. */
export const FAULT_POINTS = ['wire', 'rx', 'tx'] as const;
export type FaultPoint = (typeof FAULT_POINTS)[number];

/** The options of a fault; null if not given. */
export interface FaultSpec {
  readonly kind: FaultKind;
  readonly point: FaultPoint;
  /** Probability that a frame is selected, 0 to 1; for kind `rate` bits per second. */
  readonly rate: number | null;
  /** Selects every n-th frame, or only the n-th. Counts frames that `match` accepts, from 1. */
  readonly every: number | null;
  readonly nth: number | null;
  /** Number of frames in a row once one is selected; for kind `rate` frames in the queue. */
  readonly burst: number | null;
  readonly delayMs: number | null;
  /** Greatest additional delay; the delay is uniform. */
  readonly jitterMs: number | null;
  /** Bits to flip; for kind `truncate` bytes to keep. */
  readonly bits: number | null;
  /** A filter over the Ethernet frame, and the text it was made from. */
  readonly match: BpfProgram | null;
  readonly matchText: string | null;
  readonly seed: number;
}

/** Defaults: frames in the queue of a rate limit, delay in ms of a reordered frame. */
export const RATE_QUEUE = 100;
const REORDER_MS = 1;

export class Fault {
  readonly id: number;
  readonly spec: FaultSpec;
  readonly prng: Prng;
  /** The program of the filter; null: all frames. */
  filter: BpfProgram | null;
  /** Frames that `match` accepted, and frames that were selected. */
  matched = 0;
  hits = 0;
  /** Kind `rate`: the rate-limited line of each direction. */
  readonly lines = [new RateLine(), new RateLine()];
  #burstLeft = 0;

  constructor(id: number, spec: FaultSpec, prng: Prng) {
    this.id = id;
    this.spec = spec;
    this.prng = prng;
    this.filter = spec.match;
  }

  /** Uniform in [0, 1). */
  fraction(): number {
    return this.prng.next32() / 0x1_0000_0000;
  }

  /**
   * Whether the fault applies to `frame`, whose Ethernet header is at `off`. Updates the counters.
   */
  picks(frame: Uint8Array, off: number): boolean {
    const { spec, filter } = this;
    const len = frame.length - off;
    if (filter !== null && bpf_filter(filter, frame, off, len, len) === 0) return false;
    this.matched++;
    // Draw a number for every frame, so that a burst does not change the choices after it.
    const chance = spec.kind !== 'rate' && spec.rate !== null ? this.fraction() < spec.rate : true;
    if (this.#burstLeft > 0) {
      this.#burstLeft--;
      this.hits++;
      return true;
    }
    if (!chance) return false;
    if (spec.nth !== null && this.matched !== spec.nth) return false;
    if (spec.every !== null && this.matched % spec.every !== 0) return false;
    if (spec.kind !== 'rate' && spec.burst !== null) this.#burstLeft = spec.burst - 1;
    this.hits++;
    return true;
  }

  /** The delay of a frame in ns. */
  delayNs(): number {
    const { delayMs, jitterMs, kind } = this.spec;
    const base = delayMs ?? (kind === 'reorder' ? REORDER_MS : 0);
    const more = jitterMs === null ? 0 : this.fraction() * jitterMs;
    return Math.round((base + more) * 1e6);
  }
}
