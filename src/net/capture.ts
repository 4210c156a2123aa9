/**
 * The captures of a machine. A capture listens at any number of points of interfaces. All captures
 * get their records from the one capture ring in the arena: when the ring is drained, each capture
 * whose filter accepts a record passes it to its sink, which writes it. At the `if` point, one BPF
 * listener for each interface fills the ring.
 */

import {
  CAPTURE_EVENT,
  CAPTURE_IF,
  CAPTURE_IN,
  CAPTURE_OUT,
  CAPTURE_IP,
  CAPTURE_POINTS_MAX,
  CAPTURE_SOCKBUF,
  type CaptureRecord,
  CaptureRing,
  type CaptureSink,
  type CaptureTap,
} from '../sys/capture.ts';
import { bpf_filter, type BpfProgram, bpfReach } from '../sys/bpf_filter.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import type { Clock, Task } from '../sys/clock.ts';
import { KASSERT } from '../sys/kassert.ts';
import { kva } from '../sys/types.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { CAPTURE_RING_BYTES, captureRingOff, mem, memView } from '../vm/arena.ts';
import { captureLayersReset, metaOfChain, metaRoom } from './capture_layers.ts';
import { BPF_D_INOUT, bpfOf, type BpfListener } from './bpf.ts';
import type { Ifnet } from './if_var.ts';

/** Default and largest snap length in bytes; no packet is longer. */
export const CAPTURE_SNAPLEN_MAX = 262144;

/** Packet ids that a capture with a filter remembers, to record their events. */
const ACCEPTED = 65_536;

/** Which points of the stack's layers are captured: one branch per packet checks it. */
export const captureOn = { ip: false, sockbuf: false };

let ring: CaptureRing | null = null;
let lastUnit = 0;
const open: Capture[] = [];

/** One point of one interface. */
interface CapturePlace {
  /** CAPTURE_* number. */
  readonly point: number;
  readonly ifp: Ifnet;
}

/** What a capture records. */
interface CaptureOptions {
  /** Bytes kept of a packet; 0 or less: CAPTURE_SNAPLEN_MAX. */
  readonly snaplen?: number;
  /** Records only packets that it accepts; null: all. It must be valid. */
  readonly filter?: BpfProgram | null;
  /** Whether records get metadata; default false. */
  readonly meta?: boolean;
}

/** Counters of one place of a capture. */
export class CaptureCounts {
  readonly point: number;
  readonly ifp: Ifnet;
  /** The interface's number in records. */
  readonly unit: number;
  /** Packets that passed the place, and those that the filter accepted. */
  received = 0;
  accepted = 0;

  constructor(place: CapturePlace) {
    this.point = place.point;
    this.ifp = place.ifp;
    this.unit = place.ifp.if_capunit;
  }
}

/** One capture. */
export class Capture {
  readonly places: CaptureCounts[] = [];
  readonly snaplen: number;
  /** Bytes of a packet that the ring must keep: for the file and for the filter. */
  readonly reach: number;
  readonly filter: BpfProgram | null;
  readonly meta: boolean;
  readonly sink: CaptureSink;
  /** Number of records passed to the sink. */
  packets = 0;
  readonly #lostBefore: number;
  /** The ids of the last packets that the filter accepted; null: no filter. */
  readonly #accepted: Uint32Array | null;

  constructor(options: CaptureOptions, sink: CaptureSink) {
    const { snaplen = 0, filter = null, meta = false } = options;
    this.snaplen = snaplen > 0 ? Math.min(snaplen, CAPTURE_SNAPLEN_MAX) : CAPTURE_SNAPLEN_MAX;
    this.filter = filter;
    this.meta = meta;
    const reach = filter === null ? 0 : Math.min(bpfReach(filter), CAPTURE_SNAPLEN_MAX);
    this.reach = Math.max(this.snaplen, reach);
    this.#accepted = filter !== null && meta ? new Uint32Array(ACCEPTED) : null;
    this.sink = sink;
    this.#lostBefore = captureRing().lost;
  }

  /**
   * Number of records dropped because the ring was full, at any point, since this capture began.
   */
  get drops(): number {
    return ring === null ? 0 : (ring.lost - this.#lostBefore) >>> 0;
  }

  /** Remembers a packet that the filter accepted. */
  accept(pktId: number): void {
    if (this.#accepted !== null) this.#accepted[pktId % ACCEPTED] = pktId;
  }

  /**
   * Whether it records events of a packet: with a filter, only those of a packet that the filter
   * accepted at one of the places before.
   */
  wantsEvent(pktId: number): boolean {
    return this.#accepted === null || (pktId !== 0 && this.#accepted[pktId % ACCEPTED] === pktId);
  }

  /** Whether it records the interface with number `unit`. @param unit 0: any */
  hasUnit(unit: number): boolean {
    return unit === 0 || this.places.some((place) => place.unit === unit);
  }

  /** The index in `places` of a record's place; -1: not recorded. @param unit 0: any */
  placeOf(point: number, unit: number): number {
    for (let i = 0; i < this.places.length; i++) {
      const place = this.places[i]!;
      if (place.point === point && (place.unit === unit || unit === 0)) return i;
    }
    return -1;
  }
}

/** Fills the ring from one interface's BPF tap. */
class IfTap implements BpfListener {
  readonly bd_direction = BPF_D_INOUT;
  readonly ifp: Ifnet;

  constructor(ifp: Ifnet) {
    this.ifp = ifp;
  }

  bpfPacket(ifp: Ifnet, m: Mbuf, pktlen: number, outgoing: boolean): void {
    const flags = outgoing ? CAPTURE_OUT : CAPTURE_IN;
    const { pktId } = m.m_pkthdr;
    const to = ring!;
    const dst = to.reserve(CAPTURE_IF, flags, ifp.if_capunit, pktId, pktlen, metaRoom(to));
    if (dst < 0) return;
    m_copydata(m, 0, to.caplen, kva(dst));
    to.commit(metaOfChain(to, CAPTURE_IF, flags, m, m));
  }
}

const ifTaps: IfTap[] = [];

/** Passes an event to the captures with metadata of its interface. */
function dispatchEvent(rec: CaptureRecord): void {
  for (let i = 0; i < open.length; i++) {
    const c = open[i]!;
    if (c.meta && c.hasUnit(rec.unit) && c.wantsEvent(rec.pktId)) c.sink.captureRecord(rec);
  }
}

const dispatch: CaptureSink = {
  captureRecord(rec: CaptureRecord): void {
    if (rec.point === CAPTURE_EVENT) {
      dispatchEvent(rec);
      return;
    }
    const { caplen } = rec;
    for (let i = 0; i < open.length; i++) {
      const c = open[i]!;
      const at = c.placeOf(rec.point, rec.unit);
      if (at < 0) continue;
      const place = c.places[at]!;
      place.received++;
      const { filter } = c;
      if (filter !== null && bpf_filter(filter, mem, rec.off, rec.wirelen, caplen) === 0) continue;
      place.accepted++;
      c.packets++;
      c.accept(rec.pktId);
      rec.caplen = Math.min(caplen, c.snaplen);
      c.sink.captureRecord(rec);
    }
    rec.caplen = caplen;
  },
};

const drainTask: Task = {
  run(): void {
    drainCaptureRing();
  },
};

/** Creates an empty capture ring in the arena and removes all captures. Called at boot. */
export function captureInit(clock: Clock): void {
  ring = new CaptureRing(mem, memView, captureRingOff(), CAPTURE_RING_BYTES, clock);
  ring.setDrainTask(drainTask);
  open.length = 0;
  captureLayersReset();
  captureNotes.on = captureOn.ip = captureOn.sockbuf = false;
  ifTaps.length = 0;
  lastUnit = 0;
}

/** The machine's ring. Panics before `captureInit`. */
export function captureRing(): CaptureRing {
  KASSERT(ring !== null, 'captureRing: not booted');
  return ring;
}

/** Allocates a number, unique on the machine, for an interface and its device. */
export function captureUnit(): number {
  return ++lastUnit;
}

/** The tap with which the device of interface number `unit` adds records to the ring. */
export function captureTap(unit: number): CaptureTap {
  return captureRing().tap(unit);
}

/**
 * Passes the records in the ring to the captures and returns their number. Called once per turn, and by readers that
 * need what has been recorded so far.
 */
export function drainCaptureRing(): number {
  return ring === null ? 0 : ring.drain(dispatch);
}

/**
 * Sets each point of the ring to the largest number of bytes that an open capture needs there; 0
 * turns it off.
 */
function updatePoints(): void {
  for (let point = 0; point < CAPTURE_POINTS_MAX; point++) {
    let reach = 0;
    for (const c of open)
      if (c.reach > reach && c.places.some((place) => place.point === point)) reach = c.reach;
    captureRing().setPoint(point, reach);
  }
  const meta = open.some((c) => c.meta);
  captureRing().metaWanted = meta;
  captureNotes.on = meta;
  captureOn.ip = captureRing().wants(CAPTURE_IP);
  captureOn.sockbuf = captureRing().wants(CAPTURE_SOCKBUF);
}

/** The captures of the machine. */
export function openCaptures(): readonly Capture[] {
  return open;
}

function wantsIf(unit: number): boolean {
  return open.some((c) => c.placeOf(CAPTURE_IF, unit) >= 0);
}

/**
 * Starts a capture of `places` to `sink`. Assigns a number to an interface without one. The device's
 * tap must use the same number.
 */
export function captureOpen(
  places: readonly CapturePlace[],
  options: CaptureOptions,
  sink: CaptureSink,
): Capture {
  drainCaptureRing();
  const c = new Capture(options, sink);
  open.push(c);
  for (const place of places) captureAddPlace(c, place);
  return c;
}

/** Adds a place to an open capture, as its last one. */
export function captureAddPlace(c: Capture, place: CapturePlace): void {
  const { point, ifp } = place;
  if (ifp.if_capunit === 0) ifp.if_capunit = captureUnit();
  c.places.push(new CaptureCounts(place));
  if (point === CAPTURE_IF && !ifTaps.some((tap) => tap.ifp === ifp)) {
    const tap = new IfTap(ifp);
    ifTaps.push(tap);
    bpfOf(ifp)?.attach(tap);
  }
  updatePoints();
}

/** Ends a capture, after the records in the ring have been passed to the sinks. */
export function captureClose(c: Capture): void {
  drainCaptureRing();
  const at = open.indexOf(c);
  if (at < 0) return;
  open.splice(at, 1);
  for (let i = ifTaps.length - 1; i >= 0; i--) {
    const tap = ifTaps[i]!;
    if (wantsIf(tap.ifp.if_capunit)) continue;
    ifTaps.splice(i, 1);
    bpfOf(tap.ifp)?.detach(tap);
  }
  updatePoints();
}
