/**
 * A simulated link: two ends on virtual time with seeded loss, duplication, reordering, corruption,
 * delay and a rate. Each end is a `Wire` for a NIC, or a test's own end: `inject` and `onFrame`.
 * Left out: collisions, preambles, inter-frame gaps.
 */

import { EAGAIN, EINVAL, EIO } from '../sys/errno.ts';
import { ETHER_HDR_LEN } from '../sys/protocols.ts';
import { RateLine } from '../sys/rate_line.ts';
import { VNET_HDR_LEN, type Wire, type WireListener } from '../sys/wire.ts';
import { iovGather, iovLength, iovScatter } from '../sys/wire_iov.ts';
import type { EventClock } from './manual_clock.ts';
import { fraction, type SeededPrng } from './prng.ts';

/** The longest frame an end takes, header included: four times what IP can fill. */
const MAX_FRAME = 256 * 1024;

/** What happens to frames of one direction. Probabilities are 0 to 1; may be changed at any time. */
export interface Impairments {
  loss: number;
  duplicate: number;
  /** A reordered frame takes `reorderNs` longer, and those behind it may pass. */
  reorder: number;
  reorderNs: number;
  /** One bit of the frame is flipped; never in the virtio-net header, which is on no cable. */
  corrupt: number;
  delayNs: number;
  /** Up to this much more, uniform; in itself it never reorders. */
  jitterNs: number;
  /** Bits per second, 0 for no limit. */
  rateBps: number;
  /** Frames waiting for the rate limit before the queue is full. */
  queueFrames: number;
  /** What a full queue does: lose the frame, or answer `writev` with -EAGAIN. */
  full: 'drop' | 'wait';
}

/** Counted in frames, except `bytes`. */
export interface LinkStats {
  sent: number;
  bytes: number;
  delivered: number;
  lost: number;
  duplicated: number;
  reordered: number;
  corrupted: number;
  /** Lost to a full queue before the rate limit, at the receiver, or because the link was down. */
  queueDrops: number;
  rxDrops: number;
  downDrops: number;
}

export interface SimLinkOptions {
  readonly arena: ArrayBuffer;
  readonly clock: EventClock;
  readonly prng: SeededPrng;
  readonly vnetHdr?: boolean;
  /** Frames an end holds unread; what comes then is lost, as on a TAP. Default 1000. */
  readonly rxQueueFrames?: number;
  /** Of both directions. */
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
export class SimLane {
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
   * A script: sees each frame as sent, with its number from 0, and loses it by returning false.
   * Comes before chance and does not change what chance does to other frames.
   */
  filter: ((frame: Uint8Array, index: number) => boolean) | null = null;

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

  /** Whether a frame sent now would find the queue full. */
  get isFull(): boolean {
    const { rateBps, queueFrames } = this.impair;
    return this.#line.waiting(this.#clock.nowNs()) >= queueFrames && rateBps > 0;
  }

  /** When the queue next has room; now if it has. */
  get roomAtNs(): number {
    return this.isFull ? this.#line.nextNs : this.#clock.nowNs();
  }

  /** Takes a frame over and decides what becomes of it. */
  send(frame: Uint8Array): void {
    const { impair, stats } = this;
    // Six draws a frame whatever the settings: changing one does not change the luck of others.
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
      return;
    }
    const departNs = this.#depart(frame.length - this.#skip);
    if (lose || (this.filter !== null && !this.filter(frame, index))) {
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

  /** For Arrival. */
  arrived(frame: Uint8Array): void {
    if (!this.#link.up) {
      this.stats.downDrops++;
      return;
    }
    if (this.#to.deliver(frame)) this.stats.delivered++;
    else this.stats.rxDrops++;
  }

  /** The time at which the frame's last bit has left. */
  #depart(bytes: number): number {
    const now = this.#clock.nowNs();
    const { rateBps } = this.impair;
    return rateBps <= 0 ? now : this.#line.send(now, bytes, rateBps);
  }
}

/** One end of a link. */
export class SimEnd implements Wire {
  readonly vnetHdr: boolean;
  /** Takes the frames that arrive, virtio-net header included; `readv` then sees none. */
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

  /** Frames that have arrived and were not read. */
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

  /** While it is on, the listener is called again after each call in which it read something. */
  setReadable(on: boolean): void {
    this.#readable = on;
    if (on && this.unread > 0) this.#postReadable();
  }

  setListener(listener: WireListener | null): void {
    this.#listener = listener;
  }

  /** The other end sees the link go down. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#armed = false;
    this.#listener = null;
    this.#rx = [];
    this.#rxHead = 0;
    this.#link.setUp(false);
  }

  /** Sends a copy of `frame`, for a test or a player; with its virtio-net header iff `vnetHdr`. */
  inject(frame: Uint8Array): void {
    this.#link.laneFrom(this).send(frame.slice());
  }

  /** For SimLane. Takes the frame over; false if there is no room. */
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

  /** For SimLink: tells the listener on its next turn. */
  linkChanged(up: boolean): void {
    this.#clock.post({ run: () => this.#listener?.wireState(up, 0) });
  }

  #notify(): void {
    const before = this.unread;
    this.#listener?.wireReadable();
    // As a level-triggered poll would, but not for ever where nobody reads.
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
  /** Directions: from `a` to `b`, and back. */
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

  /** Pulls the cable or plugs it in: frames on their way are lost, both listeners are told. */
  setUp(up: boolean): void {
    if (up === this.#up) return;
    this.#up = up;
    this.a.linkChanged(up);
    this.b.linkChanged(up);
  }

  /** Changes both directions. */
  setImpair(impair: Partial<Impairments>): void {
    Object.assign(this.ab.impair, impair);
    Object.assign(this.ba.impair, impair);
  }

  /** For the ends. */
  laneFrom(end: SimEnd): SimLane {
    return end === this.a ? this.ab : this.ba;
  }
}
