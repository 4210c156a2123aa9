/**
 * The captures of a machine. Each capture listens at one point of one interface. All captures get
 * their records from the one capture ring in the arena. When the ring is drained, a capture's sink
 * gets the records and writes them. At the `if` point, one BPF listener for each interface fills
 * the ring. Left out for now: the points `sockbuf`, `ip` and `ring`, filters.
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

/** Default and largest snap length in bytes; no packet is longer. */
export const CAPTURE_SNAPLEN_MAX = 262144;

let ring: CaptureRing | null = null;
let lastUnit = 0;
const open: Capture[] = [];

/** One capture: a sink for one point of one interface. */
export class Capture {
  readonly point: number;
  /** The interface's number in records. */
  readonly unit: number;
  readonly snaplen: number;
  readonly sink: CaptureSink;
  /** Number of records passed to the sink. */
  packets = 0;
  readonly #lostBefore: number;

  constructor(point: number, unit: number, snaplen: number, sink: CaptureSink, lost: number) {
    this.point = point;
    this.unit = unit;
    this.snaplen = snaplen;
    this.sink = sink;
    this.#lostBefore = lost;
  }

  /**
   * Number of records dropped because the ring was full, at any point, since this capture began.
   */
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

/** Creates an empty capture ring in the arena and removes all captures. Called at boot. */
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

/** Allocates a number, unique on the machine, for an interface and its device. */
export function captureUnit(): number {
  return ++lastUnit;
}

/** The tap with which the device of interface number `unit` adds records to the ring. */
export function captureTap(unit: number): CaptureTap {
  return captureRing().tap(unit);
}

/**
 * Passes the records in the ring to the captures and returns their number. Called once per turn.
 */
function drainCaptureRing(): number {
  return ring === null ? 0 : ring.drain(dispatch);
}

/**
 * Sets each point of the ring to the largest snap length of the open captures there; 0 turns it
 * off.
 */
function updatePoints(): void {
  for (let point = 0; point < CAPTURE_POINTS_MAX; point++) {
    let snaplen = 0;
    for (const c of open) if (c.point === point && c.snaplen > snaplen) snaplen = c.snaplen;
    captureRing().setPoint(point, snaplen);
  }
}

/**
 * Starts a capture of `point` of `ifp` to `sink`, with at most `snaplen` bytes of each packet (0 or
 * less: CAPTURE_SNAPLEN_MAX). Assigns a number to an interface without one. The device's tap must
 * use the same number.
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

/** Ends a capture, after the records in the ring have been passed to the sinks. */
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
