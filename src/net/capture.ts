/**
 * Captures of a machine: who listens at which point, fed from the one capture ring of the arena. A
 * listener gets records while the ring is drained and writes them where it likes; at the `if` point a
 * BPF listener per interface fills the ring. Left out for now: the points `sockbuf`, `ip` and
 * `ring`, filters.
 */

import {
  CAPTURE_IF,
  CAPTURE_IN,
  CAPTURE_OUT,
  CAPTURE_POINTS_MAX,
  CaptureRing,
  type CaptureSink,
  type CaptureTap,
} from '../sys/capture.ts';
import type { Clock, Task } from '../sys/clock.ts';
import { KASSERT } from '../sys/kassert.ts';
import { kva } from '../sys/types.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { CAPTURE_RING_BYTES, captureRingOff, mem, memView } from '../vm/arena.ts';
import { BPF_D_INOUT, bpfOf, type BpfListener } from './bpf.ts';
import type { Ifnet } from './if_var.ts';

/** Bytes kept of a packet when nobody asks for less: all of it. */
export const CAPTURE_SNAPLEN_MAX = 262144;

let ring: CaptureRing | null = null;
let lastUnit = 0;
const open: Capture[] = [];

/** One listener at one point of one interface. */
export class Capture {
  readonly point: number;
  /** The interface's number in records. */
  readonly unit: number;
  readonly snaplen: number;
  readonly sink: CaptureSink;
  /** Records handed to the sink. */
  packets = 0;
  readonly #lostBefore: number;

  constructor(point: number, unit: number, snaplen: number, sink: CaptureSink, lost: number) {
    this.point = point;
    this.unit = unit;
    this.snaplen = snaplen;
    this.sink = sink;
    this.#lostBefore = lost;
  }

  /** Records that the ring had no room for since this capture began, at any point. */
  get drops(): number {
    return ring === null ? 0 : (ring.lost - this.#lostBefore) >>> 0;
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
    const dst = ring!.reserve(CAPTURE_IF, flags, ifp.if_capunit, pktId, pktlen);
    if (dst < 0) return;
    m_copydata(m, 0, ring!.caplen, kva(dst));
    ring!.commit();
  }
}

const ifTaps: IfTap[] = [];

const dispatch: CaptureSink = {
  captureRecord(point, flags, sec, nsec, unit, pktId, off, caplen, wirelen): void {
    for (let i = 0; i < open.length; i++) {
      const c = open[i]!;
      if (c.point !== point || c.unit !== unit) continue;
      c.packets++;
      const n = Math.min(caplen, c.snaplen);
      c.sink.captureRecord(point, flags, sec, nsec, unit, pktId, off, n, wirelen);
    }
  },
};

const drainTask: Task = {
  run(): void {
    drainCaptureRing();
  },
};

/** Empties the capture ring of the arena and forgets all captures. Called at boot. */
export function captureInit(clock: Clock): void {
  ring = new CaptureRing(mem, memView, captureRingOff(), CAPTURE_RING_BYTES, clock);
  ring.setDrainTask(drainTask);
  open.length = 0;
  ifTaps.length = 0;
  lastUnit = 0;
}

/** The machine's ring. Panics before `captureInit`. */
export function captureRing(): CaptureRing {
  KASSERT(ring !== null, 'captureRing: not booted');
  return ring;
}

/** A number for one interface and its device, unique on the machine. */
export function captureUnit(): number {
  return ++lastUnit;
}

/** The device's end of the ring for interface number `unit`. */
export function captureTap(unit: number): CaptureTap {
  return captureRing().tap(unit);
}

/** Hands what waits in the ring to the listeners; returns how many records. Once per turn. */
export function drainCaptureRing(): number {
  return ring === null ? 0 : ring.drain(dispatch);
}

/** Sets the ring's points to what the open captures ask for together. */
function updatePoints(): void {
  for (let point = 0; point < CAPTURE_POINTS_MAX; point++) {
    let snaplen = 0;
    for (const c of open) if (c.point === point && c.snaplen > snaplen) snaplen = c.snaplen;
    captureRing().setPoint(point, snaplen);
  }
}

/**
 * Begins to record `point` of `ifp`, up to `snaplen` bytes of each packet, to `sink`. An interface
 * without a number gets one; the device's tap must have been made for the same.
 */
export function captureOpen(
  point: number,
  ifp: Ifnet,
  snaplen: number,
  sink: CaptureSink,
): Capture {
  drainCaptureRing();
  if (ifp.if_capunit === 0) ifp.if_capunit = captureUnit();
  const keep = snaplen > 0 ? Math.min(snaplen, CAPTURE_SNAPLEN_MAX) : CAPTURE_SNAPLEN_MAX;
  const c = new Capture(point, ifp.if_capunit, keep, sink, captureRing().lost);
  open.push(c);
  if (point === CAPTURE_IF && !ifTaps.some((tap) => tap.ifp === ifp)) {
    const tap = new IfTap(ifp);
    ifTaps.push(tap);
    bpfOf(ifp)?.attach(tap);
  }
  updatePoints();
  return c;
}

/** Ends a capture; what was recorded before is handed over first. */
export function captureClose(c: Capture): void {
  drainCaptureRing();
  const at = open.indexOf(c);
  if (at < 0) return;
  open.splice(at, 1);
  if (c.point === CAPTURE_IF && !open.some((o) => o.point === CAPTURE_IF && o.unit === c.unit)) {
    const tapAt = ifTaps.findIndex((tap) => tap.ifp.if_capunit === c.unit);
    if (tapAt >= 0) {
      const [tap] = ifTaps.splice(tapAt, 1);
      bpfOf(tap!.ifp)?.detach(tap!);
    }
  }
  updatePoints();
}
