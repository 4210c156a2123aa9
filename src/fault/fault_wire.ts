/**
 * A wire with a fault stage in front, between a NIC and its TAP or simulated link. While the stage
 * is idle, frames go directly to and from the wire below. Otherwise each frame is copied, which
 * makes faults possible and the wire slower.
 */

import type { Task } from '../sys/clock.ts';
import { EAGAIN, EINVAL } from '../sys/errno.ts';
import { count, R_FAULT_QUEUE_FULL, R_FAULT_WIRE_ERROR } from '../sys/reason.ts';
import type { Wire, WireListener } from '../sys/wire.ts';
import { iovGather, iovLength, iovScatter } from '../sys/wire_iov.ts';
import { type Direction, type FaultHit, type FaultStage, RX, TX } from './fault_stage.ts';

/** Frames that wait for a full wire before the NIC gets EAGAIN. */
const OUT_MAX = 256;
/** Received frames that wait for the NIC. */
const IN_MAX = 1000;

/**
 * A range of the arena for frames to and from the wire below, long enough for the longest frame.
 */
export interface FaultScratch {
  readonly off: number;
  readonly bytes: number;
}

/**
 * Gets what faults did to the frames of the NIC, for captures. Frame numbers begin with 0 and count the frames that
 * the NIC sent, or received, through this wire.
 */
export interface FrameNotes {
  /** Frame number `n` that the NIC sent, or received, was affected. */
  affected(dir: Direction, n: number, hits: readonly FaultHit[]): void;
  /** A frame that the NIC will not receive was affected. */
  lost(hits: readonly FaultHit[]): void;
}

interface FaultWireOptions {
  readonly wire: Wire;
  readonly stage: FaultStage;
  /** All of the arena. */
  readonly mem: Uint8Array;
  /** Called once, when the first frame has to be copied. */
  readonly scratch: () => FaultScratch;
  /** Runs a task later, not inside the call. */
  readonly post: (task: Task) => void;
  readonly notes?: FrameNotes;
}

export class FaultWire implements Wire, WireListener {
  readonly vnetHdr: boolean;
  readonly #wire: Wire;
  readonly #stage: FaultStage;
  readonly #mem: Uint8Array;
  readonly #makeScratch: () => FaultScratch;
  #scratch: FaultScratch | null = null;
  readonly #post: (task: Task) => void;
  readonly #iov = new Uint32Array(2);
  readonly #out: Uint8Array[] = [];
  readonly #in: { readonly frame: Uint8Array; readonly hits: readonly FaultHit[] }[] = [];
  readonly #notes: FrameNotes | null;
  /** Frames that the NIC sent and received. */
  readonly #frames = [0, 0];
  #listener: WireListener | null = null;
  #readable = false;
  #armed = false;
  #reading = false;
  #posted = false;

  constructor(options: FaultWireOptions) {
    this.#wire = options.wire;
    this.#stage = options.stage;
    this.#mem = options.mem;
    this.#makeScratch = options.scratch;
    this.#post = options.post;
    this.vnetHdr = options.wire.vnetHdr;
    this.#notes = options.notes ?? null;
    this.#stage.deliver = (dir, frame, hits) => this.#deliver(dir, frame, hits);
    this.#stage.note = (dir, hits, lost) => {
      // A received frame that is not lost has no number yet: see readv.
      if (dir === TX) this.#notes?.affected(TX, this.#frames[TX]!, hits);
      else if (lost) this.#notes?.lost(hits);
    };
    this.#wire.setListener(this);
  }

  /** Numbers of frames that the NIC has sent and received. */
  get frames(): [number, number] {
    return [this.#frames[TX]!, this.#frames[RX]!];
  }

  writev(iov: Uint32Array, iovcnt: number): number {
    if (this.#out.length === 0 && this.#stage.idle(TX)) {
      const sent = this.#wire.writev(iov, iovcnt);
      if (sent >= 0) this.#frames[TX]!++;
      return sent;
    }
    const length = iovLength(this.#mem, iov, iovcnt);
    if (length < 0) return length;
    if (length === 0 || length > this.#room().bytes) return -EINVAL;
    if (this.#out.length >= OUT_MAX) return -EAGAIN;
    const frame = new Uint8Array(length);
    iovGather(this.#mem, iov, frame);
    this.#stage.send(TX, frame);
    this.#frames[TX]!++;
    return length;
  }

  readv(iov: Uint32Array, iovcnt: number): number {
    const room = iovLength(this.#mem, iov, iovcnt);
    if (room < 0) return room;
    for (let n = 0; n < IN_MAX && this.#in.length === 0; n++) {
      if (this.#stage.idle(RX)) {
        const read = this.#wire.readv(iov, iovcnt);
        if (read >= 0) this.#frames[RX]!++;
        return read;
      }
      const { off, bytes } = this.#room();
      this.#iov[0] = off;
      this.#iov[1] = bytes;
      const got = this.#wire.readv(this.#iov, 1);
      if (got < 0) return got;
      this.#reading = true;
      this.#stage.send(RX, this.#mem.slice(off, off + got));
      this.#reading = false;
    }
    const next = this.#in.shift();
    if (next === undefined) return -EAGAIN;
    if (next.hits.length > 0) this.#notes?.affected(RX, this.#frames[RX]!, next.hits);
    this.#frames[RX]!++;
    return iovScatter(this.#mem, iov, room, next.frame);
  }

  armWritable(): void {
    this.#armed = true;
    if (this.#out.length === 0) this.#wire.armWritable();
  }

  setReadable(on: boolean): void {
    this.#readable = on;
    this.#wire.setReadable(on);
    if (on && this.#in.length > 0) this.#postReadable();
  }

  setListener(listener: WireListener | null): void {
    this.#listener = listener;
  }

  /** Discards the frames held. The wire below stays open: its creator closes it. */
  close(): void {
    this.#stage.stop();
    this.#out.length = 0;
    this.#in.length = 0;
    this.#listener = null;
    this.#wire.setListener(null);
  }

  // WireListener, called by the wire below.

  wireReadable(): void {
    this.#listener?.wireReadable();
  }

  wireWritable(): void {
    while (this.#out.length > 0) {
      if (!this.#emit(this.#out[0]!)) {
        this.#wire.armWritable();
        return;
      }
      this.#out.shift();
    }
    if (!this.#armed) return;
    this.#armed = false;
    this.#listener?.wireWritable();
  }

  wireState(up: boolean, error: number): void {
    this.#listener?.wireState(up, error);
  }

  #deliver(dir: Direction, frame: Uint8Array, hits: readonly FaultHit[]): void {
    if (dir === TX) {
      if (this.#out.length === 0 && this.#emit(frame)) return;
      if (this.#out.length >= 2 * OUT_MAX) {
        count(R_FAULT_QUEUE_FULL);
        return;
      }
      this.#out.push(frame);
      this.#wire.armWritable();
      return;
    }
    if (this.#in.length >= IN_MAX) {
      count(R_FAULT_QUEUE_FULL);
      return;
    }
    this.#in.push({ frame, hits });
    if (!this.#reading && this.#readable) this.#postReadable();
  }

  /**
   * Writes a frame to the wire below. False if the wire is full. A frame that it refuses is lost.
   */
  #emit(frame: Uint8Array): boolean {
    const { off } = this.#room();
    this.#mem.set(frame, off);
    this.#iov[0] = off;
    this.#iov[1] = frame.length;
    const sent = this.#wire.writev(this.#iov, 1);
    if (sent === -EAGAIN) return false;
    if (sent < 0) count(R_FAULT_WIRE_ERROR);
    return true;
  }

  #postReadable(): void {
    if (this.#posted) return;
    this.#posted = true;
    this.#post({
      run: () => {
        this.#posted = false;
        if (!this.#readable || this.#in.length === 0) return;
        const before = this.#in.length;
        this.#listener?.wireReadable();
        // Repeat as a level-triggered poll would, but stop if the listener has read nothing.
        if (this.#readable && this.#in.length > 0 && this.#in.length < before) this.#postReadable();
      },
    });
  }

  #room(): FaultScratch {
    this.#scratch ??= this.#makeScratch();
    return this.#scratch;
  }
}
