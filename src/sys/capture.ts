/**
 * The capture ring: one region of the arena that the stack, the device and the addon write records
 * into and the host drains once per turn. A producer never waits: if the ring is full, it drops the
 * record and counts it. Only one thread uses the ring, so plain loads and stores are enough. Left
 * out: filters (the reader applies them), more than one ring.
 *
 * The region, little-endian; offsets in bytes, positions relative to the data area:
 *
 *    0  u32 prod       where the next record goes
 *    4  u32 cons       the oldest record; prod == cons is empty
 *    8  u32 lost       records dropped for lack of room, modulo 2^32
 *   12  u32 points     bit 1 << point: capture is on
 *   16  u32 snaplen[8] bytes to keep of a packet, by point
 *   48  u32 bootSec    the wall clock at the machine's time 0, for other writers: s and
 *   52  u32 bootNsec   ns within it
 *   56  u32 meta       nonzero: producers add metadata
 *   60  u32 ids        bit 1 << (unit modulo 32): the NIC notes the ids of its frames, see CAPTURE_IDS_UNITS
 *   64  data area
 *
 * A record starts at a multiple of 8 and is contiguous. A record with point CAPTURE_WRAP ends the
 * data area early; the next record is at the start of the area. One with point CAPTURE_EVENT has only
 * metadata: what happened to a packet without a record of its own, for example a drop. Events are
 * recorded while `meta` is set.
 *
 *    0  u32 size       bytes of this record, header and padding included; a multiple of 8
 *    4  u16 point
 *    6  u16 flags      CAPTURE_OUT or CAPTURE_IN
 *    8  u32 sec        wall clock
 *   12  u32 nsec
 *   16  u32 unit       interface number
 *   20  u32 pktId      0: none
 *   24  u32 caplen
 *   28  u32 wirelen
 *   32  u32 metaLen    bytes of metadata
 *   36  u32 0
 *   40  caplen bytes, padded to a multiple of 8, then metaLen bytes: items of capture_meta.ts
 */

import type { Clock, Task } from './clock.ts';
import { KASSERT } from './kassert.ts';
import { count, R_CAPTURE_FULL } from './reason.ts';
import { MetaWriter } from './capture_meta.ts';
import { captureTags } from './capture_tags.ts';
import { FrameFacts, metaOfFacts, metaRoomOf } from './capture_facts.ts';

// Capture points, in the order in which an outgoing packet passes them.
export const CAPTURE_SOCKBUF = 0;
export const CAPTURE_IP = 1;
export const CAPTURE_IF = 2;
export const CAPTURE_RING = 3;
export const CAPTURE_WIRE = 4;
/** Names of the points, by number. */
export const capturePoints = ['sockbuf', 'ip', 'if', 'ring', 'wire'] as const;
export const CAPTURE_POINTS_MAX = 8;
/** Point number of a record that ends the data area early. */
export const CAPTURE_WRAP = 0xffff;
/** Point number of a record without bytes: only metadata. */
export const CAPTURE_EVENT = 0xfffe;

// Record flags.
export const CAPTURE_OUT = 1;
export const CAPTURE_IN = 2;

// The id of a received frame: these bits, the interface number, and a counter
export const CAPTURE_RX_ID = 0x80000000;
export const CAPTURE_RX_UNIT_SHIFT = 24;
export const CAPTURE_RX_UNIT_MASK = 0x7f;
export const CAPTURE_RX_COUNT_MASK = 0xffffff;

// The region: byte offsets
export const CAPTURE_PROD = 0;
export const CAPTURE_CONS = 4;
export const CAPTURE_LOST = 8;
export const CAPTURE_POINTS = 12;
export const CAPTURE_SNAPLEN = 16;
export const CAPTURE_BOOT = 48;
export const CAPTURE_META = 56;
export const CAPTURE_IDS = 60;
export const CAPTURE_HEADER_BYTES = 64;

// A record: byte offsets
export const CAPTURE_R_SIZE = 0;
export const CAPTURE_R_POINT = 4;
export const CAPTURE_R_FLAGS = 6;
export const CAPTURE_R_SEC = 8;
export const CAPTURE_R_NSEC = 12;
export const CAPTURE_R_UNIT = 16;
export const CAPTURE_R_PKTID = 20;
export const CAPTURE_R_CAPLEN = 24;
export const CAPTURE_R_WIRELEN = 28;
export const CAPTURE_R_METALEN = 32;
export const CAPTURE_RECORD_BYTES = 40;

/**
 * Behind the ring: the ids of the last frames that each NIC sent and received, so that faults on the wire
 * find the packet of a frame. For interface number `unit` modulo CAPTURE_IDS_UNITS, CAPTURE_IDS_BYTES bytes:
 * for what it sent, then for what it received, a u32 number of frames, modulo 2^32, and the ids of the last
 * CAPTURE_IDS_SLOTS frames, at their number modulo that.
 */
export const CAPTURE_IDS_UNITS = 32;
export const CAPTURE_IDS_SLOTS = 512;
export const CAPTURE_IDS_BYTES = 4104;
/** Where those of received frames begin. */
export const CAPTURE_IDS_IN = 2052;
export const CAPTURE_IDS_ALL = 131328;

/** A device's interface to captures. The device passes whole frames as (offset, length) pairs. */
export interface CaptureTap {
  /** Bit 1 << point for each point at which capture is on; 0: none. */
  readonly points: number;
  /** Whether records get metadata, and events are recorded. */
  readonly meta: boolean;
  /** What the device adds to the next record. The record clears it. */
  readonly facts: FrameFacts;
  /** Whether capture is on at `point`. Check it before preparing a frame. */
  wants(point: number): boolean;
  /** Takes the id that the driver gave the packet in `slot`; 0: none. See capture_tags.ts. */
  takeTag(slot: number): number;
  /** Gives the driver the id of the frame in `slot`. */
  putTag(slot: number, id: number): void;
  /** Notes that the device sent or received frame `id`: CAPTURE_OUT or CAPTURE_IN. */
  noteFrame(flags: number, id: number): void;
  /** The id of a received frame, unique among the last 2^24 of its interface; never 0. */
  rxId(): number;
  /**
   * Records one frame of `wirelen` bytes in the arena, given by the (offset, length) pairs
   * iov[2*first .. 2*(first + iovcnt)), with the facts. Reads at most the snap length. Drops and
   * counts the frame if the ring is full.
   */
  capture(
    point: number,
    flags: number,
    pktId: number,
    iov: Uint32Array,
    first: number,
    iovcnt: number,
    wirelen: number,
  ): void;
  /** Records an event at `point` about packet `pktId`, with the facts, if `meta` is set. */
  event(point: number, flags: number, pktId: number): void;
}

/** A record as the ring passes it to sinks. One object serves all records; copy what you keep. */
export class CaptureRecord {
  point = 0;
  /** CAPTURE_OUT or CAPTURE_IN. */
  flags = 0;
  /** Wall clock: seconds since 1970, and nanoseconds within the second. */
  sec = 0;
  nsec = 0;
  /** Interface number. */
  unit = 0;
  /** 0: none. */
  pktId = 0;
  /** `caplen` bytes, at arena offset `off`, of a packet of `wirelen` bytes. */
  off = 0;
  caplen = 0;
  wirelen = 0;
  /** `metaLen` bytes of metadata at arena offset `metaOff`: items of capture_meta.ts. */
  metaOff = 0;
  metaLen = 0;
}

/** Receives the records of the ring, each once, in order. */
export interface CaptureSink {
  /**
   * Takes a record, or an event (point CAPTURE_EVENT) if it asked for metadata. It and its bytes are
   * valid until this returns.
   */
  captureRecord(rec: CaptureRecord): void;
}

/** The machine's ring. */
export class CaptureRing {
  readonly #mem: Uint8Array;
  readonly #view: DataView;
  readonly #base: number;
  readonly #data: number;
  readonly #size: number;
  readonly #clock: Clock;
  readonly #bootSec: number;
  readonly #bootNsec: number;
  #drain: Task | null = null;
  #posted = false;
  #draining = false;
  /** What is posted. */
  readonly #turn: Task = {
    run: () => {
      this.#posted = false;
      this.#drain?.run();
    },
  };
  // The record between `reserve` and `commit`; -1: none.
  #at = -1;
  #reserved = 0;
  readonly #rec = new CaptureRecord();
  /** Bytes to write at the offset `reserve` returned. */
  caplen = 0;
  /** Where up to the reserved number of bytes of metadata may be written. */
  metaOff = 0;
  /** Wall clock of the last record: seconds, and nanoseconds within the second. */
  #stampSec = 0;
  #stampNsec = 0;

  /** The ring is `mem[off .. off + bytes)`; CAPTURE_IDS_ALL bytes follow. Empties it. @param view over all of `mem` */
  constructor(mem: Uint8Array, view: DataView, off: number, bytes: number, clock: Clock) {
    KASSERT(off % 8 === 0 && bytes % 8 === 0 && bytes > 4096, 'CaptureRing: place');
    this.#mem = mem;
    this.#view = view;
    this.#base = off;
    this.#data = off + CAPTURE_HEADER_BYTES;
    this.#size = bytes - CAPTURE_HEADER_BYTES;
    this.#clock = clock;
    this.#bootSec = Math.floor(clock.bootSec);
    this.#bootNsec = Math.round((clock.bootSec - this.#bootSec) * 1e9);
    mem.fill(0, off, off + CAPTURE_HEADER_BYTES);
    mem.fill(0, off + bytes, off + bytes + CAPTURE_IDS_ALL);
    view.setUint32(off + CAPTURE_BOOT, this.#bootSec, true);
    view.setUint32(off + CAPTURE_BOOT + 4, this.#bootNsec, true);
  }

  /** Sets the task that is posted to the clock when records are waiting. It must call `drain`. */
  setDrainTask(task: Task | null): void {
    this.#drain = task;
    this.#posted = false;
  }

  /** Turns capture at `point` on, with at most `snaplen` bytes of each packet; 0 turns it off. */
  setPoint(point: number, snaplen: number): void {
    const view = this.#view;
    const bits = view.getUint32(this.#base + CAPTURE_POINTS, true);
    view.setUint32(
      this.#base + CAPTURE_POINTS,
      snaplen > 0 ? bits | (1 << point) : bits & ~(1 << point),
      true,
    );
    view.setUint32(this.#base + CAPTURE_SNAPLEN + 4 * point, snaplen, true);
  }

  /** Bit 1 << point for each point at which capture is on. */
  get points(): number {
    return this.#view.getUint32(this.#base + CAPTURE_POINTS, true);
  }

  wants(point: number): boolean {
    return (this.points & (1 << point)) !== 0;
  }

  /** Whether records get metadata. */
  get metaWanted(): boolean {
    return this.#view.getUint32(this.#base + CAPTURE_META, true) !== 0;
  }

  set metaWanted(on: boolean) {
    this.#view.setUint32(this.#base + CAPTURE_META, on ? 1 : 0, true);
  }

  /** Records dropped since the ring was created, by the stack and by the addon. */
  get lost(): number {
    return this.#view.getUint32(this.#base + CAPTURE_LOST, true);
  }

  get empty(): boolean {
    return this.#used === 0;
  }

  /** Bytes that wait, with those left over where the ring wraps. */
  get #used(): number {
    const view = this.#view;
    const prod = view.getUint32(this.#base + CAPTURE_PROD, true);
    const cons = view.getUint32(this.#base + CAPTURE_CONS, true);
    return prod >= cons ? prod - cons : this.#size - cons + prod;
  }

  /**
   * Begins a record of a packet of `wirelen` bytes. Returns the arena offset at which the caller
   * writes `caplen` bytes, and up to `metaMax` bytes of metadata at `metaOff`, before `commit`.
   * Returns -1 if capture is off at `point`, or if the ring is full (counted).
   */
  reserve(
    point: number,
    flags: number,
    unit: number,
    pktId: number,
    wirelen: number,
    metaMax = 0,
  ): number {
    const view = this.#view;
    let caplen = 0;
    if (point !== CAPTURE_EVENT) {
      if (!this.wants(point)) return -1;
      const snaplen = view.getUint32(this.#base + CAPTURE_SNAPLEN + 4 * point, true);
      caplen = Math.min(wirelen, snaplen);
    }
    const metaAt = (CAPTURE_RECORD_BYTES + caplen + 7) & ~7;
    const size = (metaAt + metaMax + 7) & ~7;
    const at = this.#room(size);
    if (at < 0) {
      view.setUint32(this.#base + CAPTURE_LOST, this.lost + 1, true);
      count(R_CAPTURE_FULL);
      return -1;
    }
    this.#stamp();
    const rec = this.#data + at;
    view.setUint32(rec + CAPTURE_R_SIZE, size, true);
    view.setUint16(rec + CAPTURE_R_POINT, point, true);
    view.setUint16(rec + CAPTURE_R_FLAGS, flags, true);
    view.setUint32(rec + CAPTURE_R_SEC, this.#stampSec, true);
    view.setUint32(rec + CAPTURE_R_NSEC, this.#stampNsec, true);
    view.setUint32(rec + CAPTURE_R_UNIT, unit, true);
    view.setUint32(rec + CAPTURE_R_PKTID, pktId, true);
    view.setUint32(rec + CAPTURE_R_CAPLEN, caplen, true);
    view.setUint32(rec + CAPTURE_R_WIRELEN, wirelen, true);
    view.setUint32(rec + CAPTURE_R_METALEN, 0, true);
    this.#at = at;
    this.#reserved = size;
    this.caplen = caplen;
    this.metaOff = rec + metaAt;
    return rec + CAPTURE_RECORD_BYTES;
  }

  /** Ends the record that `reserve` began, with `metaLen` bytes of metadata. */
  commit(metaLen = 0): void {
    KASSERT(this.#at >= 0, 'CaptureRing: commit without reserve');
    const view = this.#view;
    const rec = this.#data + this.#at;
    const size = (this.metaOff - rec + metaLen + 7) & ~7;
    KASSERT(size <= this.#reserved, 'CaptureRing: metadata longer than reserved');
    view.setUint32(rec + CAPTURE_R_SIZE, size, true);
    view.setUint32(rec + CAPTURE_R_METALEN, metaLen, true);
    const next = this.#at + size;
    view.setUint32(this.#base + CAPTURE_PROD, next === this.#size ? 0 : next, true);
    this.#at = -1;
    this.kick();
  }

  /**
   * Posts the drain task if records are waiting and it is not posted yet. For writers that do not
   * call `commit`. Runs the task at once if the ring is half full: after a pause of the process, a single turn
   * of the loop may send several megabytes.
   */
  kick(): void {
    const drain = this.#drain;
    if (drain === null || this.#draining) return;
    const used = this.#used;
    if (used === 0) return;
    if (!this.#posted) {
      this.#posted = true;
      this.#clock.post(this.#turn);
    }
    if (used > this.#size >>> 1) drain.run();
  }

  /** Passes every record that is in the ring now to `sink`. Returns the number of records. */
  drain(sink: CaptureSink): number {
    this.#draining = true;
    try {
      return this.#drainTo(sink);
    } finally {
      this.#draining = false;
    }
  }

  #drainTo(sink: CaptureSink): number {
    const view = this.#view;
    const until = view.getUint32(this.#base + CAPTURE_PROD, true);
    let at = view.getUint32(this.#base + CAPTURE_CONS, true);
    let n = 0;
    while (at !== until) {
      const rec = this.#data + at;
      const point = view.getUint16(rec + CAPTURE_R_POINT, true);
      if (point === CAPTURE_WRAP) {
        at = 0;
        continue;
      }
      const r = this.#rec;
      r.point = point;
      r.flags = view.getUint16(rec + CAPTURE_R_FLAGS, true);
      r.sec = view.getUint32(rec + CAPTURE_R_SEC, true);
      r.nsec = view.getUint32(rec + CAPTURE_R_NSEC, true);
      r.unit = view.getUint32(rec + CAPTURE_R_UNIT, true);
      r.pktId = view.getUint32(rec + CAPTURE_R_PKTID, true);
      r.off = rec + CAPTURE_RECORD_BYTES;
      r.caplen = view.getUint32(rec + CAPTURE_R_CAPLEN, true);
      r.wirelen = view.getUint32(rec + CAPTURE_R_WIRELEN, true);
      r.metaOff = rec + ((CAPTURE_RECORD_BYTES + r.caplen + 7) & ~7);
      r.metaLen = view.getUint32(rec + CAPTURE_R_METALEN, true);
      sink.captureRecord(r);
      n++;
      at += view.getUint32(rec + CAPTURE_R_SIZE, true);
      if (at === this.#size) at = 0;
    }
    view.setUint32(this.#base + CAPTURE_CONS, at, true);
    return n;
  }

  /** Where the ids of the frames of interface number `unit` are. @param flags CAPTURE_OUT or CAPTURE_IN */
  idsOff(unit: number, flags: number): number {
    const at = this.#data + this.#size + (unit % CAPTURE_IDS_UNITS) * CAPTURE_IDS_BYTES;
    return flags === CAPTURE_IN ? at + CAPTURE_IDS_IN : at;
  }

  /** Whether interface number `unit` notes the ids of its frames. */
  notesIds(unit: number): boolean {
    const bits = this.#view.getUint32(this.#base + CAPTURE_IDS, true);
    return (bits & (1 << (unit % CAPTURE_IDS_UNITS))) !== 0;
  }

  /** Interface number `unit` notes the ids of its frames from now on. */
  noteIds(unit: number): void {
    const bits = this.#view.getUint32(this.#base + CAPTURE_IDS, true);
    const bit = 1 << (unit % CAPTURE_IDS_UNITS);
    this.#view.setUint32(this.#base + CAPTURE_IDS, (bits | bit) >>> 0, true);
  }

  /** Number of frames that it has sent or received since, modulo 2^32. */
  frames(unit: number, flags: number): number {
    return this.#view.getUint32(this.idsOff(unit, flags), true);
  }

  /** The id of frame number `n` of those; 0: none, not yet, or too long ago. */
  frameId(unit: number, flags: number, n: number): number {
    const at = this.idsOff(unit, flags);
    const ago = (this.#view.getUint32(at, true) - n) >>> 0;
    if (ago === 0 || ago > CAPTURE_IDS_SLOTS) return 0;
    return this.#view.getUint32(at + 4 + 4 * (n % CAPTURE_IDS_SLOTS), true);
  }

  /** Returns a device's interface to the ring, for interface number `unit`. */
  tap(unit: number): CaptureTap {
    return new RingTap(this, this.#mem, this.#view, unit);
  }

  /**
   * Returns the position of `size` contiguous free bytes, or -1. Wraps if necessary. At least one
   * byte stays free, because prod == cons means empty.
   */
  #room(size: number): number {
    const view = this.#view;
    const prod = view.getUint32(this.#base + CAPTURE_PROD, true);
    const cons = view.getUint32(this.#base + CAPTURE_CONS, true);
    if (prod < cons) return prod + size < cons ? prod : -1;
    if (prod + size < this.#size || (prod + size === this.#size && cons > 0)) return prod;
    if (size >= cons) return -1;
    view.setUint32(this.#data + prod, this.#size - prod, true);
    view.setUint16(this.#data + prod + CAPTURE_R_POINT, CAPTURE_WRAP, true);
    return 0;
  }

  /** The wall clock of records now, nanoseconds since 1970. */
  nowNs(): bigint {
    this.#stamp();
    return BigInt(this.#stampSec) * 1_000_000_000n + BigInt(this.#stampNsec);
  }

  #stamp(): void {
    const now = this.#clock.nowNs();
    const sec = Math.floor(now / 1e9);
    const nsec = now - sec * 1e9 + this.#bootNsec;
    const carry = nsec >= 1e9 ? 1 : 0;
    this.#stampSec = this.#bootSec + sec + carry;
    this.#stampNsec = nsec - carry * 1e9;
  }
}

/** Copies a device's frames into the ring. */
class RingTap implements CaptureTap {
  readonly #ring: CaptureRing;
  readonly #mem: Uint8Array;
  readonly #view: DataView;
  readonly #unit: number;
  readonly #meta: MetaWriter;
  readonly facts: FrameFacts = new FrameFacts();
  readonly #idBits: number;
  #received = 0;

  constructor(ring: CaptureRing, mem: Uint8Array, view: DataView, unit: number) {
    this.#ring = ring;
    this.#mem = mem;
    this.#view = view;
    this.#unit = unit;
    this.#meta = new MetaWriter(view);
    const bits = (unit & CAPTURE_RX_UNIT_MASK) << CAPTURE_RX_UNIT_SHIFT;
    this.#idBits = (CAPTURE_RX_ID | bits) >>> 0;
  }

  get points(): number {
    return this.#ring.points;
  }

  get meta(): boolean {
    return this.#ring.metaWanted;
  }

  wants(point: number): boolean {
    return this.#ring.wants(point);
  }

  takeTag(slot: number): number {
    return captureTags.takeSent(this.#unit, slot);
  }

  putTag(slot: number, id: number): void {
    captureTags.putReceived(this.#unit, slot, id);
  }

  noteFrame(flags: number, id: number): void {
    if (!this.#ring.notesIds(this.#unit)) return;
    const view = this.#view;
    const at = this.#ring.idsOff(this.#unit, flags);
    const n = view.getUint32(at, true);
    view.setUint32(at + 4 + 4 * (n % CAPTURE_IDS_SLOTS), id, true);
    view.setUint32(at, n + 1, true);
  }

  rxId(): number {
    this.#received = (this.#received + 1) & CAPTURE_RX_COUNT_MASK;
    return this.#idBits + this.#received;
  }

  capture(
    point: number,
    flags: number,
    pktId: number,
    iov: Uint32Array,
    first: number,
    iovcnt: number,
    wirelen: number,
  ): void {
    const room = this.meta ? metaRoomOf(this.facts) : 0;
    let dst = this.#ring.reserve(point, flags, this.#unit, pktId, wirelen, room);
    if (dst >= 0) {
      let left = this.#ring.caplen;
      for (let i = first; i < first + iovcnt && left > 0; i++) {
        const off = iov[2 * i]!;
        const n = Math.min(iov[2 * i + 1]!, left);
        this.#mem.copyWithin(dst, off, off + n);
        dst += n;
        left -= n;
      }
      KASSERT(left === 0, 'CaptureTap: frame shorter than wirelen');
      this.#commit(point, flags, pktId, room);
    }
    this.facts.clear();
  }

  event(point: number, flags: number, pktId: number): void {
    if (this.meta) {
      const room = metaRoomOf(this.facts);
      const dst = this.#ring.reserve(CAPTURE_EVENT, flags, this.#unit, pktId, 0, room);
      if (dst >= 0) this.#commit(point, flags, pktId, room);
    }
    this.facts.clear();
  }

  #commit(point: number, flags: number, pktId: number, room: number): void {
    if (room > 0) {
      this.#meta.begin(this.#ring.metaOff, room);
      metaOfFacts(this.#meta, this.#mem, this.facts, point, flags, pktId);
    }
    this.#ring.commit(room);
  }
}
