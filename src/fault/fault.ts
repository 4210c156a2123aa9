/** One fault: which frames it takes, and what is to happen to them. */

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

/** A fault as it was asked for; null: not given. */
export interface FaultSpec {
  readonly kind: FaultKind;
  readonly point: FaultPoint;
  /** Probability of a frame, 0 to 1; of kind `rate` bits per second. */
  readonly rate: number | null;
  /** Every n-th frame; only the n-th. Frames that `match` passes are counted, from 1. */
  readonly every: number | null;
  readonly nth: number | null;
  /** So many frames in a row once one was chosen; of kind `rate` frames in the queue. */
  readonly burst: number | null;
  readonly delayMs: number | null;
  /** Up to so much more, uniform. */
  readonly jitterMs: number | null;
  /** Bits to flip; of kind `truncate` bytes to leave. */
  readonly bits: number | null;
  /** A filter over the Ethernet frame, and the text it was made from. */
  readonly match: BpfProgram | null;
  readonly matchText: string | null;
  readonly seed: number;
}

/** Frames a rate limit's queue holds, ms a reordered frame is late, unless told otherwise. */
export const RATE_QUEUE = 100;
export const REORDER_MS = 1;

export class Fault {
  readonly id: number;
  readonly spec: FaultSpec;
  readonly prng: Prng;
  /** Frames that `match` let through, and those it was done to. */
  matched = 0;
  hits = 0;
  /** Kind `rate`: the line of each direction. */
  readonly lines = [new RateLine(), new RateLine()];
  #burstLeft = 0;

  constructor(id: number, spec: FaultSpec, prng: Prng) {
    this.id = id;
    this.spec = spec;
    this.prng = prng;
  }

  /** Uniform, 0 to below 1. */
  fraction(): number {
    return this.prng.next32() / 0x1_0000_0000;
  }

  /** Whether it happens to `frame`, whose Ethernet header is at `off`. Counts. */
  picks(frame: Uint8Array, off: number): boolean {
    const { spec } = this;
    const len = frame.length - off;
    if (spec.match !== null && bpf_filter(spec.match, frame, off, len, len) === 0) return false;
    this.matched++;
    // A draw a frame whatever happens: a burst does not change the luck of those after it.
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

  /** How late a frame is to be, ns. */
  delayNs(): number {
    const { delayMs, jitterMs, kind } = this.spec;
    const base = delayMs ?? (kind === 'reorder' ? REORDER_MS : 0);
    const more = jitterMs === null ? 0 : this.fraction() * jitterMs;
    return Math.round((base + more) * 1e6);
  }
}
