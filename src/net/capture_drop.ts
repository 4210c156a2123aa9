/**
 * Drops inside the stack and faults on the wire, as events of captures. A function that drops a packet
 * calls `countDrop`; one that has no packet at hand, because it processes the message in it, calls
 * `countInputDrop`, after the caller has named the packet by `inputSubject`.
 */

import { CAPTURE_EVENT, CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import {
  META_CSUM_UNKNOWN,
  META_ITEM_BYTES,
  META_PACKET_BYTES,
  META_WHY_BYTES,
  META_WHY_DROP,
  META_WHY_FAULT,
} from '../sys/capture_meta.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import { count, type Reason } from '../sys/reason.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { m_pullup } from '../kern/uipc_mbuf.ts';
import { captureRing } from './capture.ts';
import { metaWriter } from './capture_layers.ts';
import type { Ifnet } from './if_var.ts';

const ROOM = 2 * META_ITEM_BYTES + META_PACKET_BYTES + META_WHY_BYTES;

/**
 * Counts `why`, for which the caller drops `m`, and records it if `m` has a packet id and a capture
 * wants metadata. Call it before `m` is freed.
 * @param point the capture point before which, or behind which, the packet was
 * @param direction CAPTURE_OUT or CAPTURE_IN
 * @param ifp the interface that sends it; a received packet names its own
 */
export function countDrop(
  m: Mbuf,
  why: Reason,
  point: number,
  direction: number,
  ifp: Ifnet | null = null,
): void {
  count(why);
  if (captureNotes.on) noteDrop(m, why, point, direction, ifp);
}

/** As `countDrop`, for a reason that the caller counts. */
export function noteDrop(
  m: Mbuf,
  why: Reason,
  point: number,
  direction: number,
  ifp: Ifnet | null = null,
): void {
  const { pktId, len } = m.m_pkthdr;
  const by = direction === CAPTURE_IN ? (m.m_pkthdr.rcvif as Ifnet | null) : ifp;
  noteLost(pktId, len, why, point, direction, by);
}

/** As `noteDrop`, for packet `id` of `len` bytes, whose mbufs may be free already. */
export function noteLost(
  id: number,
  len: number,
  why: Reason,
  point: number,
  direction: number,
  ifp: Ifnet | null,
): void {
  if (id !== 0) event(id, ifp?.if_capunit ?? 0, point, direction, META_WHY_DROP, why, len);
}

/** m_pullup for a received packet: counts and records `why` if it fails, and has then freed `m`. */
export function pullupInput(m: Mbuf, len: number, why: Reason, point = CAPTURE_IP): Mbuf | null {
  const { pktId, len: bytes, rcvif } = m.m_pkthdr;
  const top = m_pullup(m, len);
  if (top !== null) return top;
  count(why);
  noteLost(pktId, bytes, why, point, CAPTURE_IN, rcvif as Ifnet | null);
  return null;
}

/** The received packet whose message is being processed. */
const subject = { id: 0, len: 0, ifp: null as Ifnet | null };

/** Names the received packet of the following calls of `countInputDrop`. */
export function inputSubject({ m_pkthdr }: Mbuf): void {
  if (!captureNotes.on) return;
  subject.id = m_pkthdr.pktId;
  subject.len = m_pkthdr.len;
  subject.ifp = m_pkthdr.rcvif as Ifnet | null;
}

/** Counts `why`, for which the message of the packet that `inputSubject` named is not processed. */
export function countInputDrop(why: Reason): void {
  count(why);
  if (captureNotes.on) noteLost(subject.id, subject.len, why, CAPTURE_IP, CAPTURE_IN, subject.ifp);
}

/**
 * Records that a fault on the wire dropped or changed frame `id`, of `len` bytes, of the interface with
 * the number `unit`.
 */
export function noteFault(
  id: number,
  unit: number,
  point: number,
  direction: number,
  why: Reason,
  len: number,
): void {
  event(id, unit, point, direction, META_WHY_FAULT, why, len);
}

function event(
  id: number,
  unit: number,
  point: number,
  direction: number,
  what: number,
  why: Reason,
  len: number,
): void {
  if (!captureNotes.on) return;
  const ring = captureRing();
  if (ring.reserve(CAPTURE_EVENT, direction, unit, id, 0, ROOM) < 0) return;
  const w = metaWriter(ring, ROOM);
  w.packet(id, point, direction, 0, META_CSUM_UNKNOWN);
  w.why(what, why, len);
  ring.commit(w.length);
}
