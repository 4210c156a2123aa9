/**
 * A simulated link on virtual time, with seeded loss, duplication, reordering, corruption, delay
 * and a rate limit. Each of its two ends is a `Wire` for a NIC, or is driven by a test through
 * `inject` and `onFrame`. Left out: collisions, preambles, inter-frame gaps.
 */

import { EAGAIN, EINVAL, EIO } from '../sys/errno.ts';
import { ETHER_HDR_LEN } from '../sys/protocols.ts';
import { RateLine } from '../sys/rate_line.ts';
import { VNET_HDR_LEN, type Wire, type WireListener } from '../sys/wire.ts';
import { iovGather, iovLength, iovScatter } from '../sys/wire_iov.ts';
import type { EventClock } from './manual_clock.ts';
import { fraction, type SeededPrng } from './prng.ts';

/** The longest frame that an end accepts, header included: four times the largest IP packet. */
const MAX_FRAME = 256 * 1024;

/** Impairments of one direction. Probabilities are from 0 to 1. They may be changed at any time. */
export interface Impairments {
  loss: number;
  duplicate: number;
  /** A reordered frame is delayed by `reorderNs` more; later frames may overtake it. */
  reorder: number;
  reorderNs: number;
  /** One bit of the frame is flipped, never in the virtio-net header. */
  corrupt: number;
  delayNs: number;
  /** Additional random delay from 0 to this, uniform. Jitter alone never reorders frames. */
  jitterNs: number;
  /** Bits per second; 0: no limit. */
  rateBps: number;
  /** Length of the queue in front of the rate limit, in frames. */
  queueFrames: number;
  /** If the queue is full: `drop` loses the frame, `wait` makes `writev` return -EAGAIN. */
  full: 'drop' | 'wait';
}

/** Counted in frames, except `bytes`. */
interface LinkStats {
  sent: number;
  bytes: number;
  delivered: number;
  lost: number;
  duplicated: number;
  reordered: number;
  corrupted: number;
  /**
   * Frames lost because the rate queue was full, the receive queue was full, or the link was down.
   */
  queueDrops: number;
  rxDrops: number;
  downDrops: number;
}

export interface SimLinkOptions {
  readonly arena: ArrayBuffer;
  readonly clock: EventClock;
  readonly prng: SeededPrng;
  readonly vnetHdr?: boolean;
  /**
   * Receive queue of an end, in frames. Frames that arrive when it is full are lost, as on a TAP.
   * Default 1000.
   */
  readonly rxQueueFrames?: number;
  /** Impairments of both directions. */
  readonly impair?: Partial<Impairments>;
}

class Arrival {
  readonly #lane: SimLane;
  readonly #frame: Uint8Array;

  constructor(lane: SimLane, frame: Uint8Array) {
    this.#lane = lane;
    this.#frame = frame;
  }

  run(): void {
    this.#lane.arrived(this.#frame);
  }
}

/** One direction. */
class SimLane {
  readonly impair: Impairments = {
    loss: 0,
    duplicate: 0,
    reorder: 0,
    reorderNs: 1_000_000,
    corrupt: 0,
    delayNs: 0,
    jitterNs: 0,
    rateBps: 0,
    queueFrames: 1000,
    full: 'drop',
  };
  readonly stats: LinkStats = {
    sent: 0,
    bytes: 0,
    delivered: 0,
    lost: 0,
    duplicated: 0,
    reordered: 0,
    corrupted: 0,
    queueDrops: 0,
    rxDrops: 0,
    downDrops: 0,
  };
  /**
   * Called with each sent frame and its number, from 0; the frame is lost if it returns false. It
   * does not change the random choices for other frames.
   */
  filter: ((frame: Uint8Array, index: number) => boolean) | null = null;
  /** Called with each sent frame, before it is corrupted, and whether it is lost. */
  onSent: ((frame: Uint8Array, lost: boolean) => void) | null = null;

  readonly #link: SimLink;
  readonly #to: SimEnd;
  readonly #clock: EventClock;
  readonly #prng: SeededPrng;
  readonly #skip: number;
  readonly #line = new RateLine();
  #lastArrivalNs = 0;

  constructor(link: SimLink, to: SimEnd, clock: EventClock, prng: SeededPrng) {
    this.#link = link;
    this.#to = to;
    this.#clock = clock;
    this.#prng = prng;
    this.#skip = link.vnetHdr ? VNET_HDR_LEN : 0;
  }

  /** Whether the queue is full now. */
  get isFull(): boolean {
    const { rateBps, queueFrames } = this.impair;
    return this.#line.waiting(this.#clock.nowNs()) >= queueFrames && rateBps > 0;
  }

  /** The time at which the queue has room; the current time if it has room now. */
  get roomAtNs(): number {
    return this.isFull ? this.#line.nextNs : this.#clock.nowNs();
  }

  /** Sends a frame with the impairments applied. Takes ownership of it. */
  send(frame: Uint8Array): void {
    const { impair, stats } = this;
    // Draw six random numbers per frame, independent of the settings: changing one setting does not
    // change the other choices.
    const lose = fraction(this.#prng) < impair.loss;
    const twice = fraction(this.#prng) < impair.duplicate;
    const late = fraction(this.#prng) < impair.reorder;
    const corrupt = fraction(this.#prng) < impair.corrupt;
    const where = this.#prng.next32();
    const jitterNs = Math.floor(fraction(this.#prng) * impair.jitterNs);

    const index = stats.sent++;
    stats.bytes += frame.length - this.#skip;
    if (this.isFull) {
      stats.queueDrops++;
      this.onSent?.(frame, true);
      return;
    }
    const departNs = this.#depart(frame.length - this.#skip);
    const lost = lose || (this.filter !== null && !this.filter(frame, index));
    this.onSent?.(frame, lost);
    if (lost) {
      stats.lost++;
      return;
    }
    if (corrupt) {
      const bit = where % ((frame.length - this.#skip) * 8);
      frame[this.#skip + (bit >> 3)]! ^= 1 << (bit & 7);
      stats.corrupted++;
    }
    let arriveNs = departNs + impair.delayNs + jitterNs;
    if (late) {
      arriveNs += impair.reorderNs;
      stats.reordered++;
    } else {
      arriveNs = this.#lastArrivalNs = Math.max(arriveNs, this.#lastArrivalNs);
    }
    this.#clock.schedule(arriveNs, new Arrival(this, frame));
    if (!twice) return;
    stats.duplicated++;
    this.#clock.schedule(arriveNs, new Arrival(this, frame.slice()));
  }

  /** Called by Arrival. */
  arrived(frame: Uint8Array): void {
    if (!this.#link.up) {
      this.stats.downDrops++;
      return;
    }
    if (this.#to.deliver(frame)) this.stats.delivered++;
    else this.stats.rxDrops++;
  }

  /** Returns the time at which the frame's last bit is sent. */
  #depart(bytes: number): number {
    const now = this.#clock.nowNs();
    const { rateBps } = this.impair;
    return rateBps <= 0 ? now : this.#line.send(now, bytes, rateBps);
  }
}

/** One end of a link. */
export class SimEnd implements Wire {
  readonly vnetHdr: boolean;
  /** Receives the arriving frames, virtio-net header included; `readv` then gets no frames. */
  onFrame: ((frame: Uint8Array) => void) | null = null;

  readonly #link: SimLink;
  readonly #clock: EventClock;
  readonly #mem: Uint8Array;
  readonly #rxMax: number;
  #rx: Uint8Array[] = [];
  #rxHead = 0;
  #readable = false;
  #armed = false;
  #posted = false;
  #listener: WireListener | null = null;
  #closed = false;

  constructor(link: SimLink, options: SimLinkOptions) {
    this.#link = link;
    this.vnetHdr = link.vnetHdr;
    this.#clock = options.clock;
    this.#mem = new Uint8Array(options.arena);
    this.#rxMax = options.rxQueueFrames ?? 1000;
  }

  /** Frames that have arrived and are unread. */
  get unread(): number {
    return this.#rx.length - this.#rxHead;
  }

  writev(iov: Uint32Array, iovcnt: number): number {
    const length = iovLength(this.#mem, iov, iovcnt);
    if (length < 0) return length;
    if (length < ETHER_HDR_LEN + (this.vnetHdr ? VNET_HDR_LEN : 0) || length > MAX_FRAME)
      return -EINVAL;
    if (!this.#link.up || this.#closed) return -EIO;
    const lane = this.#link.laneFrom(this);
    if (lane.impair.full === 'wait' && lane.isFull) return -EAGAIN;
    const frame = new Uint8Array(length);
    iovGather(this.#mem, iov, frame);
    lane.send(frame);
    return length;
  }

  readv(iov: Uint32Array, iovcnt: number): number {
    const room = iovLength(this.#mem, iov, iovcnt);
    if (room < 0) return room;
    if (this.#closed) return -EIO;
    if (this.unread === 0) return this.#link.up ? -EAGAIN : -EIO;
    const frame = this.#rx[this.#rxHead++]!;
    if (this.#rxHead === this.#rx.length) {
      this.#rx = [];
      this.#rxHead = 0;
    }
    return iovScatter(this.#mem, iov, room, frame);
  }

  armWritable(): void {
    if (this.#armed) return;
    this.#armed = true;
    this.#clock.schedule(this.#link.laneFrom(this).roomAtNs, {
      run: () => {
        if (!this.#armed) return;
        this.#armed = false;
        this.#listener?.wireWritable();
      },
    });
  }

  /** While it is on, the listener is called again if it has read something and frames are left. */
  setReadable(on: boolean): void {
    this.#readable = on;
    if (on && this.unread > 0) this.#postReadable();
  }

  setListener(listener: WireListener | null): void {
    this.#listener = listener;
  }

  /** Closes this end; the link goes down. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#armed = false;
    this.#listener = null;
    this.#rx = [];
    this.#rxHead = 0;
    this.#link.setUp(false);
  }

  /** Sends a copy of `frame`, for tests and replay. It has a virtio-net header iff `vnetHdr`. */
  inject(frame: Uint8Array): void {
    this.#link.laneFrom(this).send(frame.slice());
  }

  /** Called by SimLane. Takes ownership of the frame. Returns false if there is no room. */
  deliver(frame: Uint8Array): boolean {
    if (this.onFrame !== null) {
      this.onFrame(frame);
      return true;
    }
    if (this.#closed || this.unread >= this.#rxMax) return false;
    this.#rx.push(frame);
    if (this.#readable) this.#notify();
    return true;
  }

  /** Called by SimLink. Reports the link state to the listener in a later turn. */
  linkChanged(up: boolean): void {
    this.#clock.post({ run: () => this.#listener?.wireState(up, 0) });
  }

  #notify(): void {
    const before = this.unread;
    this.#listener?.wireReadable();
    // Notify again while frames are left, like a level-triggered poll, but only if the listener
    // reads.
    if (this.#readable && this.unread > 0 && this.unread < before) this.#postReadable();
  }

  #postReadable(): void {
    if (this.#posted) return;
    this.#posted = true;
    this.#clock.post({
      run: () => {
        this.#posted = false;
        if (this.#readable && this.unread > 0) this.#notify();
      },
    });
  }
}

export class SimLink {
  readonly vnetHdr: boolean;
  readonly a: SimEnd;
  readonly b: SimEnd;
  /** The two directions: `ab` from `a` to `b`, `ba` back. */
  readonly ab: SimLane;
  readonly ba: SimLane;
  #up = true;

  constructor(options: SimLinkOptions) {
    this.vnetHdr = options.vnetHdr ?? false;
    this.a = new SimEnd(this, options);
    this.b = new SimEnd(this, options);
    this.ab = new SimLane(this, this.b, options.clock, options.prng.fork());
    this.ba = new SimLane(this, this.a, options.clock, options.prng.fork());
    this.setImpair(options.impair ?? {});
  }

  get up(): boolean {
    return this.#up;
  }

  /**
   * Sets the link state and reports it to both listeners. Frames in transit are lost if the link is
   * down when they arrive.
   */
  setUp(up: boolean): void {
    if (up === this.#up) return;
    this.#up = up;
    this.a.linkChanged(up);
    this.b.linkChanged(up);
  }

  /** Changes the impairments of both directions. */
  setImpair(impair: Partial<Impairments>): void {
    Object.assign(this.ab.impair, impair);
    Object.assign(this.ba.impair, impair);
  }

  /** Called by the ends: the direction in which `end` sends. */
  laneFrom(end: SimEnd): SimLane {
    return end === this.a ? this.ab : this.ba;
  }
}
