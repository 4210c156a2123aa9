/** Drops inside the stack and faults on the wire, as events of captures. */

import { CAPTURE_EVENT, CAPTURE_WIRE } from '../sys/capture.ts';
import {
  META_CSUM_UNKNOWN,
  META_ITEM_BYTES,
  META_PACKET_BYTES,
  META_WHY_BYTES,
  META_WHY_DROP,
  META_WHY_FAULT,
  MetaWriter,
} from '../sys/capture_meta.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import { count, type Reason } from '../sys/reason.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { memView } from '../vm/arena.ts';
import { captureRing } from './capture.ts';

const ROOM = 2 * META_ITEM_BYTES + META_PACKET_BYTES + META_WHY_BYTES;

/**
 * Counts `why`, for which the caller drops `m`, and records it if `m` has a packet id and a capture
 * wants metadata. Call it before `m` is freed.
 * @param point the capture point before which, or behind which, the packet was
 * @param direction CAPTURE_OUT or CAPTURE_IN
 */
export function countDrop(m: Mbuf, why: Reason, point: number, direction: number): void {
  count(why);
  if (captureNotes.on) noteDrop(m, why, point, direction);
}

/** As `countDrop`, for a reason that the caller counts. */
export function noteDrop(m: Mbuf, why: Reason, point: number, direction: number): void {
  const { pktId, len } = m.m_pkthdr;
  if (pktId !== 0) event(pktId, point, direction, META_WHY_DROP, why, len);
}

/** Records that a fault on the wire dropped or changed a frame of `len` bytes. */
export function noteFault(direction: number, why: Reason, len: number): void {
  event(0, CAPTURE_WIRE, direction, META_WHY_FAULT, why, len);
}

function event(
  id: number,
  point: number,
  direction: number,
  what: number,
  why: Reason,
  len: number,
): void {
  if (!captureNotes.on) return;
  const ring = captureRing();
  if (ring.reserve(CAPTURE_EVENT, direction, 0, id, 0, ROOM) < 0) return;
  const w = new MetaWriter(memView);
  w.begin(ring.metaOff, ROOM);
  w.packet(id, point, direction, 0, META_CSUM_UNKNOWN);
  w.why(what, why, len);
  ring.commit(w.length);
}
