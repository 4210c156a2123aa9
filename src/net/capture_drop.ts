/** Drops inside the stack, as events of captures. */

import { CAPTURE_EVENT } from '../sys/capture.ts';
import {
  META_CSUM_UNKNOWN,
  META_ITEM_BYTES,
  META_PACKET_BYTES,
  META_WHY_BYTES,
  META_WHY_DROP,
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
  if (!captureNotes.on || pktId === 0) return;
  const ring = captureRing();
  if (ring.reserve(CAPTURE_EVENT, direction, 0, pktId, 0, ROOM) < 0) return;
  const w = new MetaWriter(memView);
  w.begin(ring.metaOff, ROOM);
  w.packet(pktId, point, direction, 0, META_CSUM_UNKNOWN);
  w.why(META_WHY_DROP, why, len);
  ring.commit(w.length);
}
