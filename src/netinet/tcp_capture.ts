/**
 * TCP's part of captures: records of point `sockbuf`, and the link from a retransmission to the packet
 * that carried the bytes first. The memory of sent segments exists only while a capture runs. Left
 * out: records of received data that waited in the reassembly queue.
 */

import { captureOn, captureRing } from '../net/capture.ts';
import { captureSockbufIn, captureSockbufOut } from '../net/capture_layers.ts';
import type { Ifnet } from '../net/if_var.ts';
import { META_LINK_RETRANSMISSION } from '../sys/capture_meta.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import type { TcpSeq } from '../sys/types.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { seqDiff } from './tcp_seq.ts';
import type { Tcpcb } from './tcp_var.ts';

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
  const { inp_route, inp_socket } = tp.t_inpcb;
  if (inp_socket === null) return;
  // The first data of an accepted connection has no cached route yet.
  const unit = inp_route.ro_nh?.nh_ifp.if_capunit ?? 0;
  captureSockbufOut(captureRing(), unit, m, inp_socket.so_id, position(seq, tp.iss), len);
}

/** Records received data before the receive buffer gets it; `m` begins with its headers. */
export function tcpCaptureIn(tp: Tcpcb, m: Mbuf, seq: TcpSeq, hdrlen: number): void {
  const so = tp.t_inpcb.inp_socket;
  const ifp = m.m_pkthdr.rcvif as Ifnet | null;
  if (!captureOn.sockbuf || so === null || ifp === null) return;
  captureSockbufIn(captureRing(), ifp, m, hdrlen, so.so_id, position(seq, tp.irs));
}
