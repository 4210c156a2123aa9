/**
 * The faults on a NIC's wire, and the frames they hold. A frame passes through the faults in order,
 * and the result is delivered at its time. Frames of one direction keep their order, except those
 * that a `reorder` selected.
 */

import type { Task } from '../sys/clock.ts';
import type { Prng } from '../sys/prng.ts';
import { ETHER_HDR_LEN } from '../sys/protocols.ts';
import {
  count,
  R_FAULT_CORRUPT,
  R_FAULT_DELAY,
  R_FAULT_DROP,
  R_FAULT_DUPLICATE,
  R_FAULT_QUEUE_FULL,
  R_FAULT_REORDER,
  R_FAULT_TRUNCATE,
  type Reason,
} from '../sys/reason.ts';
import { Fault, type FaultSpec, RATE_QUEUE } from './fault.ts';

/** Directions: what the NIC sends and what it receives. */
export const TX = 0;
export const RX = 1;
export type Direction = typeof TX | typeof RX;

/** Frames that may be held at once; more are dropped. */
const HELD_MAX = 100_000;

/** The timer of the stage: one event at a time, which the next `schedule` replaces. */
export interface StageTimer {
  nowNs(): number;
  schedule(deadlineNs: number, event: Task): void;
  stop(): void;
}

/** A fault that affected a frame of `bytes` bytes. */
export interface FaultHit {
  readonly why: Reason;
  readonly bytes: number;
}

/** Receives the frames that leave the stage, and owns them; `hits` affected it. */
type Deliver = (dir: Direction, frame: Uint8Array, hits: readonly FaultHit[]) => void;

interface Held {
  readonly dueNs: number;
  readonly order: number;
  readonly dir: Direction;
  readonly frame: Uint8Array;
  readonly hits: readonly FaultHit[];
}

const NO_HITS: readonly FaultHit[] = [];

export class FaultStage implements Task {
  readonly faults: Fault[] = [];
  /** Set by the receiver of the frames. */
  deliver: Deliver = () => undefined;
  /** Called when faults have affected a frame; `lost`: it is not delivered, not even later. */
  note: (dir: Direction, hits: readonly FaultHit[], lost: boolean) => void = () => undefined;
  /** The faults that affected the frame under way. */
  #hits: FaultHit[] = [];
  readonly #timer: StageTimer;
  readonly #makePrng: (seed: number) => Prng;
  /** Bytes before the Ethernet header. */
  readonly #skip: number;
  readonly #lastNs = [0, 0];
  /** A heap by time, then order of arrival. */
  readonly #held: Held[] = [];
  #order = 0;
  /** The id of the next fault. */
  nextId = 1;

  /** @param skip bytes of virtio-net header in front of each frame */
  constructor(timer: StageTimer, makePrng: (seed: number) => Prng, skip: number) {
    this.#timer = timer;
    this.#makePrng = makePrng;
    this.#skip = skip;
  }

  /**
   * Whether frames of `dir` pass unchanged: no fault is for that direction, and no frame is held.
   */
  idle(dir: Direction): boolean {
    if (this.#held.length > 0) return false;
    const other = dir === TX ? 'rx' : 'tx';
    for (const { spec } of this.faults) if (spec.point !== other) return false;
    return true;
  }

  /** Number of frames held. */
  get held(): number {
    return this.#held.length;
  }

  add(spec: FaultSpec): Fault {
    const fault = new Fault(this.nextId++, spec, this.#makePrng(spec.seed));
    this.faults.push(fault);
    return fault;
  }

  /**
   * Removes a fault; frames it holds are still delivered at their time. False if there is no such
   * id.
   */
  remove(id: number): boolean {
    const i = this.faults.findIndex((fault) => fault.id === id);
    if (i < 0) return false;
    this.faults.splice(i, 1);
    return true;
  }

  removeAll(): number {
    return this.faults.splice(0).length;
  }

  /** Takes over a frame and applies the faults to it. */
  send(dir: Direction, frame: Uint8Array): void {
    this.#hits = [];
    const lost = !this.#apply(dir, frame);
    if (this.#hits.length > 0) this.note(dir, this.#hits, lost);
  }

  /** Applies the faults, and delivers or holds the frame. Returns whether it was not lost. */
  #apply(dir: Direction, frame: Uint8Array): boolean {
    const other = dir === TX ? 'rx' : 'tx';
    const now = this.#timer.nowNs();
    let due = now;
    let copies = 1;
    let late = 0;
    for (const fault of this.faults) {
      const { spec } = fault;
      if (spec.point === other || !fault.picks(frame, this.#skip)) continue;
      switch (spec.kind) {
        case 'drop':
          this.#hit(R_FAULT_DROP, frame);
          return false;
        case 'duplicate':
          this.#hit(R_FAULT_DUPLICATE, frame);
          copies++;
          break;
        case 'corrupt':
          this.#corrupt(fault, frame);
          break;
        case 'truncate':
          frame = this.#truncate(fault, frame);
          break;
        case 'delay':
          this.#hit(R_FAULT_DELAY, frame);
          due += fault.delayNs();
          break;
        case 'reorder':
          this.#hit(R_FAULT_REORDER, frame);
          late += fault.delayNs();
          break;
        case 'rate':
          due = this.#queue(fault, dir, frame, due);
          if (due < 0) return false;
          break;
      }
    }
    if (late > 0) {
      due = Math.max(due, this.#lastNs[dir]!) + late;
    } else {
      due = Math.max(due, this.#lastNs[dir]!);
      this.#lastNs[dir] = due;
    }
    const hits = this.#hits.length > 0 ? this.#hits : NO_HITS;
    let kept = false;
    for (let n = 0; n < copies; n++) {
      const one = n === 0 ? frame : frame.slice();
      if (due > now) kept = this.#hold(due, dir, one, hits) || kept;
      else {
        this.deliver(dir, one, hits);
        kept = true;
      }
    }
    return kept;
  }

  /** Timer event: delivers the frames that are due. */
  run(): void {
    const now = this.#timer.nowNs();
    while (this.#held.length > 0 && this.#held[0]!.dueNs <= now) {
      const { dir, frame, hits } = this.#pop();
      this.deliver(dir, frame, hits);
    }
    if (this.#held.length > 0) this.#timer.schedule(this.#held[0]!.dueNs, this);
  }

  /** Discards the frames held. */
  stop(): void {
    this.#held.length = 0;
    this.#timer.stop();
  }

  #hit(why: Reason, frame: Uint8Array): void {
    count(why);
    this.#hits.push({ why, bytes: frame.length - this.#skip });
  }

  #corrupt(fault: Fault, frame: Uint8Array): void {
    this.#hit(R_FAULT_CORRUPT, frame);
    const bits = (frame.length - this.#skip) * 8;
    if (bits <= 0) return;
    for (let n = fault.spec.bits ?? 1; n > 0; n--) {
      const bit = Math.floor(fault.fraction() * bits);
      frame[this.#skip + (bit >> 3)]! ^= 1 << (bit & 7);
    }
  }

  #truncate(fault: Fault, frame: Uint8Array): Uint8Array {
    this.#hit(R_FAULT_TRUNCATE, frame);
    const least = this.#skip + ETHER_HDR_LEN;
    const room = frame.length - least;
    if (room <= 0) return frame;
    const { bits } = fault.spec;
    const keep = bits === null ? Math.floor(fault.fraction() * room) : bits - ETHER_HDR_LEN;
    return frame.subarray(0, Math.min(least + Math.max(keep, 0), frame.length));
  }

  /** When a frame has left a rate-limited line, or -1 if its queue is full. */
  #queue(fault: Fault, dir: Direction, frame: Uint8Array, now: number): number {
    const line = fault.lines[dir]!;
    if (line.waiting(now) < (fault.spec.burst ?? RATE_QUEUE))
      return line.send(now, frame.length - this.#skip, fault.spec.rate!);
    this.#hit(R_FAULT_QUEUE_FULL, frame);
    return -1;
  }

  /** Keeps a frame until `dueNs`. Returns false, and drops it, if too many are held. */
  #hold(dueNs: number, dir: Direction, frame: Uint8Array, hits: readonly FaultHit[]): boolean {
    if (this.#held.length >= HELD_MAX) {
      this.#hit(R_FAULT_QUEUE_FULL, frame);
      return false;
    }
    const heap = this.#held;
    let i = heap.push({ dueNs, order: this.#order++, dir, frame, hits }) - 1;
    for (let up = (i - 1) >> 1; i > 0 && before(heap[i]!, heap[up]!); up = (i - 1) >> 1) {
      [heap[i], heap[up]] = [heap[up]!, heap[i]!];
      i = up;
    }
    if (i === 0) this.#timer.schedule(dueNs, this);
    return true;
  }

  #pop(): Held {
    const heap = this.#held;
    const top = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return top;
    heap[0] = last;
    for (let i = 0; ;) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2])
        if (child < heap.length && before(heap[child]!, heap[least]!)) least = child;
      if (least === i) return top;
      [heap[i], heap[least]] = [heap[least]!, heap[i]!];
      i = least;
    }
  }
}

const before = (a: Held, b: Held): boolean =>
  a.dueNs < b.dueNs || (a.dueNs === b.dueNs && a.order < b.order);
