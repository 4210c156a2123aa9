/**
 * TCP's part of captures: records of point `sockbuf`, and the link from a retransmission to the packet
 * that carried the bytes first. The memory of sent segments, and of those in the reassembly queue, exists
 * only while a capture runs.
 */

import { captureOn, captureRing } from '../net/capture.ts';
import { noteDrop, noteLost } from '../net/capture_drop.ts';
import {
  captureSockbufIn,
  captureSockbufOut,
  captureSockbufWaited,
  type WaitedData,
} from '../net/capture_layers.ts';
import type { Ifnet } from '../net/if_var.ts';
import { CAPTURE_IN, CAPTURE_SOCKBUF } from '../sys/capture.ts';
import { META_LINK_RETRANSMISSION } from '../sys/capture_meta.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import { count, R_TCP_REASS_FLUSHED, R_TCP_REASS_WAIT, type Reason } from '../sys/reason.ts';
import type { TcpSeq } from '../sys/types.ts';
import { type Mbuf, mtod } from '../kern/mbuf.ts';
import { mem } from '../vm/arena.ts';
import { seqAdd, seqDiff } from './tcp_seq.ts';
import type { Tcpcb, TcpSegment } from './tcp_var.ts';

/** Segments that a connection remembers. */
const SEGMENTS = 256;

/** The last segments of a connection: sequence number, length and packet id of each. */
class SentSegments {
  readonly #seq = new Uint32Array(SEGMENTS);
  readonly #len = new Uint32Array(SEGMENTS);
  readonly #id = new Uint32Array(SEGMENTS);
  #next = 0;

  add(seq: number, len: number, id: number): void {
    const at = this.#next++ % SEGMENTS;
    this.#seq[at] = seq;
    this.#len[at] = len;
    this.#id[at] = id;
  }

  /** The id of the oldest remembered packet that carried the byte at `seq`; 0: none. */
  find(seq: number): number {
    const begin = Math.max(0, this.#next - SEGMENTS);
    for (let i = begin; i < this.#next; i++) {
      const at = i % SEGMENTS;
      if ((seq - this.#seq[at]!) >>> 0 < this.#len[at]!) return this.#id[at]!;
    }
    return 0;
  }
}

const sent = new WeakMap<Tcpcb, SentSegments>();

/** Whether `tcpCaptureOut` and `tcpCaptureIn` have work. */
export function tcpCaptureWanted(): boolean {
  return captureNotes.on || captureOn.sockbuf;
}

/** Position in the stream of the byte at `seq`, modulo 2^32: the SYN is in front of byte 0. */
function position(seq: TcpSeq, initial: TcpSeq): number {
  return (seqDiff(seq, initial) - 1) >>> 0;
}

/**
 * Handles a segment with `len` bytes from `seq` before it goes to IP. Its first mbuf has the headers; the
 * others share the storage of the socket buffer.
 * @param again whether some of the bytes were sent before
 */
export function tcpCaptureOut(tp: Tcpcb, m: Mbuf, seq: TcpSeq, len: number, again: boolean): void {
  if (len === 0) return;
  const id = m.m_pkthdr.pktId;
  if (captureNotes.on) {
    let segments = sent.get(tp);
    if (segments === undefined) sent.set(tp, (segments = new SentSegments()));
    if (again) captureNotes.link(id, META_LINK_RETRANSMISSION, 0, segments.find(seq));
    else segments.add(seq, len, id);
  }
  if (!captureOn.sockbuf) return;
  const { inp_route, inp_socket, inp_vnet } = tp.t_inpcb;
  if (inp_socket === null) return;
  // The first data of an accepted connection has no cached route yet.
  const unit = inp_route.ro_nh?.nh_ifp.if_capunit ?? inp_vnet.capunit;
  const { family } = tp.t_inpcb.inp_af;
  const first = position(seq, tp.iss);
  captureSockbufOut(captureRing(), unit, m, family, inp_socket.so_id, first, len);
}

/** Counts `why`, for which the segment, or part of it, is not processed. */
export function countSegment(seg: TcpSegment, why: Reason): void {
  count(why);
  if (captureNotes.on && seg.m !== null) noteDrop(seg.m, why, CAPTURE_SOCKBUF, CAPTURE_IN);
}

/** Records received data before the receive buffer gets it; `m` begins with its headers. */
export function tcpCaptureIn(tp: Tcpcb, m: Mbuf, seq: TcpSeq, hdrlen: number): void {
  const so = tp.t_inpcb.inp_socket;
  const ifp = m.m_pkthdr.rcvif as Ifnet | null;
  if (!captureOn.sockbuf || so === null || ifp === null) return;
  captureSockbufIn(captureRing(), ifp, m, hdrlen, so.so_id, position(seq, tp.irs));
}

/** Data in the reassembly queue, with the packet that brought it. */
interface Queued extends WaitedData {
  readonly seq: TcpSeq;
  readonly len: number;
  /** It is all data of its segment. */
  readonly whole: boolean;
  waited: boolean;
}

/** Those of a connection; they do not overlap. */
const queued = new WeakMap<Tcpcb, Queued[]>();

/** The longest headers of a segment that are recorded: IPv6 and TCP with options. */
const HEADERS_MAX = 100;

/**
 * Remembers a segment that goes to the reassembly queue: `len` bytes from `seq`, `hdrlen` bytes into `m`.
 * `tcpCapturePresent` records it when the socket buffer gets its data.
 */
export function tcpCaptureQueued(
  tp: Tcpcb,
  m: Mbuf,
  seq: TcpSeq,
  len: number,
  hdrlen: number,
): void {
  const { pktId, csum_flags, rcvif } = m.m_pkthdr;
  if (len === 0 || rcvif === null) return;
  const list = queued.get(tp) ?? [];
  queued.set(tp, list);
  const header = new Uint8Array(Math.min(hdrlen, HEADERS_MAX, m.m_len));
  header.set(mem.subarray(mtod(m), mtod(m) + header.length));
  const packet = { pktId, csumFlags: csum_flags, ifp: rcvif as Ifnet, header };
  // Only the parts that no segment has brought before.
  list.sort((a, b) => seqDiff(a.seq, b.seq));
  const before = [...list];
  let at = seq;
  let left = len;
  for (const other of before) {
    const gap = Math.min(seqDiff(other.seq, at), left);
    if (gap > 0) list.push({ ...packet, seq: at, len: gap, whole: gap === len, waited: false });
    const skip = Math.max(seqDiff(seqAdd(other.seq, other.len), at), 0);
    if (skip >= left) return;
    at = seqAdd(at, skip);
    left -= skip;
  }
  list.push({ ...packet, seq: at, len: left, whole: left === len, waited: false });
}

/** After the queue took the segment, or dropped it: what is still there waits. */
export function tcpCaptureQueuedEnd(tp: Tcpcb, dropped: boolean): void {
  const list = queued.get(tp);
  if (list === undefined) return;
  const left = dropped ? list.filter(({ waited }) => waited) : list;
  for (const one of left) one.waited = true;
  queued.set(tp, left);
}

/**
 * Records the `len` bytes from `start` in the chain `m`, which the socket buffer gets now: each byte once,
 * with the first segment that brought it.
 */
export function tcpCapturePresent(tp: Tcpcb, m: Mbuf, start: TcpSeq, len: number): void {
  const list = queued.get(tp);
  const so = tp.t_inpcb.inp_socket;
  if (list === undefined || so === null) return;
  list.sort((a, b) => seqDiff(a.seq, b.seq));
  for (const one of list) {
    const from = seqDiff(one.seq, start);
    const n = Math.min(from + one.len, len) - from;
    if (from < 0 || n <= 0) continue;
    const first = position(one.seq, tp.irs);
    const why = one.waited ? R_TCP_REASS_WAIT : 0;
    if (captureOn.sockbuf)
      captureSockbufWaited(captureRing(), partOf(one, n), m, from, n, so.so_id, first, why);
  }
  const left = list.filter((one) => seqDiff(one.seq, start) >= len);
  if (left.length > 0) queued.set(tp, left);
  else queued.delete(tp);
}

/** The queue of a connection is freed with its data: drops of the segments that brought it. */
export function tcpCaptureFlushed(tp: Tcpcb): void {
  const list = queued.get(tp);
  if (list === undefined) return;
  queued.delete(tp);
  for (const { pktId, len, ifp } of list)
    noteLost(pktId, len, R_TCP_REASS_FLUSHED, CAPTURE_SOCKBUF, CAPTURE_IN, ifp);
}

/** Sets length and sequence number in the headers of a part of a segment. */
function partOf(one: Queued, len: number): WaitedData {
  if (one.whole && one.len === len) return one;
  const header = one.header.slice();
  const view = new DataView(header.buffer);
  const v6 = header[0]! >> 4 === 6;
  const th = v6 ? 40 : (header[0]! & 15) << 2;
  if (v6) view.setUint16(4, header.length - 40 + len);
  else view.setUint16(2, header.length + len);
  if (header.length >= th + 8) view.setUint32(th + 4, one.seq);
  return { ...one, header };
}
