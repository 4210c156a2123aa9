/**
 * Records in the receive buffers of datagram and raw sockets, after sys/kern/uipc_sockbuf.c and
 * uipc_socket.c. A record is a chain: an mbuf with the sender's address, optional mbufs with
 * control data, and the mbufs of the packet. m_nextpkt links records. Left out: one queue per
 * sender in a buffer.
 */

import { ENOBUFS, EOPNOTSUPP, type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass } from '../sys/pass.ts';
import type { Uio } from '../vm/uio.ts';
import { m_freem, m_get } from './kern_mbuf.ts';
import { m_copydata, m_mbuftouio } from './m_copydata.ts';
import {
  type Mbuf,
  M_NOWAIT,
  M_PKTHDR,
  M_PROTOFLAGS,
  MT_CONTROL,
  MT_SONAME,
  mtod,
} from './mbuf.ts';
import { MSG_OOB, MSG_PEEK } from './protosw.ts';
import { Sockaddr, sockaddrGet, sockaddrPut } from './sockaddr.ts';
import { SBS_CANTRCVMORE, sballoc, sbfree, type Sockbuf, sbspace } from './uipc_sockbuf.ts';
import { m_last, m_length } from './uipc_mbuf.ts';
import { SO_RERROR, type Socket, sorwakeup, soTakeError } from './uipc_socket.ts';

/**
 * Appends the packet `m0` from `asa`, with the control data `control` (may be null), as one record.
 * Returns true and takes `m0` and `control`. Returns false if there is no room or no mbuf; the
 * caller then keeps both.
 * @see sockbuf(9)
 */
export function sbappendaddr(
  sb: Sockbuf,
  asa: Sockaddr,
  m0: Mbuf,
  control: Mbuf | null = null,
): boolean {
  KASSERT((m0.m_flags & M_PKTHDR) !== 0, 'sbappendaddr: no packet header');
  if (m0.m_pkthdr.len + asa.len + m_length(control) > sbspace(sb)) return false;
  const name = m_get(M_NOWAIT, MT_SONAME);
  if (name === null) return false;
  sockaddrPut(mtod(name), asa);
  name.m_len = asa.len;
  name.m_next = control ?? m0;
  if (control !== null) m_last(control).m_next = m0;
  for (let m: Mbuf | null = name; m !== null; m = m.m_next) {
    m.m_flags &= ~M_PROTOFLAGS;
    sballoc(sb, m);
  }
  if (sb.sb_lastrecord === null) sb.sb_mb = name;
  else sb.sb_lastrecord.m_nextpkt = name;
  sb.sb_lastrecord = name;
  return true;
}

/**
 * Removes the first record and uncharges it from the buffer. The caller owns it. Null: the buffer
 * is empty.
 */
function takeRecord(sb: Sockbuf): Mbuf | null {
  const record = sb.sb_mb;
  if (record === null) return null;
  for (let m: Mbuf | null = record; m !== null; m = m.m_next) sbfree(sb, m);
  sb.sb_mb = record.m_nextpkt;
  if (sb.sb_mb === null) sb.sb_lastrecord = null;
  record.m_nextpkt = null;
  return record;
}

/** Frees the first record, if any. @see sockbuf(9) */
export function sbdroprecord(sb: Sockbuf): void {
  m_freem(takeRecord(sb));
}

/** Frees all records, before the buffer of a datagram socket is freed. */
export function sbflushRecords(sb: Sockbuf): void {
  while (sb.sb_mb !== null) sbdroprecord(sb);
}

/**
 * A packet did not fit into the receive buffer. With SO_RERROR the next read of the empty buffer
 * returns ENOBUFS; without, nothing happens.
 * @see getsockopt(2), sys/kern/uipc_sockbuf.c
 */
export function soroverflow(so: Socket): void {
  if ((so.so_options & SO_RERROR) === 0) return;
  so.so_rerror = ENOBUFS;
  sorwakeup(so);
}

/** Returns and clears the error that `soroverflow` set; 0 if none. */
export function soTakeRerror(so: Socket): Errno {
  const error = so.so_rerror;
  so.so_rerror = 0;
  return error;
}

/** The number of records in the buffer, counted up to `limit`. */
export function sbRecords(sb: Sockbuf, limit: number): number {
  let n = 0;
  for (let m = sb.sb_mb; m !== null && n < limit; m = m.m_nextpkt) n++;
  return n;
}

/** The sender of a received record, and the length of the packet, truncated bytes included. */
export class ReceivedFrom {
  readonly name = new Sockaddr();
  len = 0;
}

/**
 * The default `from` argument of `soreceive_dgram`. If the call is not made inside a pass, an
 * upcall may receive and overwrite it before the call returns. Programs therefore pass a record of
 * their own.
 */
export const soReceivedFrom = new ReceivedFrom();

/** The out parameter of `soreceive_dgram` for control data. The caller frees it. */
export interface ControlRef {
  m: Mbuf | null;
}

/**
 * Receives one record into `uio` and discards bytes that do not fit. Sets `from` to the sender. 0
 * with `uio_resid` unchanged: an empty packet, or end of data after a shutdown. EWOULDBLOCK: no
 * record. Else the pending error, which is cleared. MSG_PEEK in `flags` keeps the record and the
 * error; MSG_OOB returns EOPNOTSUPP. Stores the control data in `controlp`; frees it if that is
 * null. MSG_PEEK stores a copy of the control data.
 * @see socket(9)
 */
export function soreceive_dgram(
  so: Socket,
  uio: Uio,
  flags = 0,
  from = soReceivedFrom,
  controlp: ControlRef | null = null,
): Errno {
  return inPass(receiveInPass, so, uio, flags, from, controlp);
}

/** A copy of the chain from `m` up to `end`; what fits into the free mbufs. */
function copyControl(m: Mbuf | null, end: Mbuf | null): Mbuf | null {
  let first: Mbuf | null = null;
  let last: Mbuf | null = null;
  for (; m !== null && m !== end; m = m.m_next) {
    const n = m_get(M_NOWAIT, MT_CONTROL);
    if (n === null) break;
    m_copydata(m, 0, m.m_len, mtod(n));
    n.m_len = m.m_len;
    if (last === null) first = n;
    else last.m_next = n;
    last = n;
  }
  return first;
}

function receiveInPass(
  so: Socket,
  uio: Uio,
  flags: number,
  from: ReceivedFrom,
  controlp: ControlRef | null,
): Errno {
  if ((flags & MSG_OOB) !== 0) return EOPNOTSUPP;
  const sb = so.so_rcv;
  const peek = (flags & MSG_PEEK) !== 0;
  from.len = 0;
  if (controlp !== null) controlp.m = null;
  if (sb.sb_mb === null) {
    if (so.so_error !== 0) return peek ? so.so_error : soTakeError(so);
    if (so.so_rerror !== 0) return peek ? so.so_rerror : soTakeRerror(so);
    return (sb.sb_state & SBS_CANTRCVMORE) !== 0 ? 0 : EWOULDBLOCK;
  }
  const record = peek ? sb.sb_mb : takeRecord(sb)!;
  sockaddrGet(mtod(record), from.name);
  let last = record;
  while (last.m_next !== null && last.m_next.m_type === MT_CONTROL) last = last.m_next;
  const packet = last.m_next;
  if (packet !== null) from.len = packet.m_pkthdr.len;
  if (packet !== null && packet.m_pkthdr.len > 0) m_mbuftouio(uio, packet, packet.m_pkthdr.len);
  if (peek) {
    if (controlp !== null && last !== record) controlp.m = copyControl(record.m_next, packet);
    return 0;
  }
  if (controlp !== null && last !== record) {
    controlp.m = record.m_next;
    record.m_next = packet;
    last.m_next = null;
  }
  m_freem(record);
  return 0;
}
