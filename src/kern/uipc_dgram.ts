/**
 * Records in socket buffers, after sys/kern/uipc_sockbuf.c and uipc_socket.c: what datagram and raw
 * sockets receive. A record is an mbuf with the sender's address, the mbufs of control data if there
 * are any, and those of the packet; records are linked by m_nextpkt. Left out: several senders'
 * queues in one buffer.
 */

import { EOPNOTSUPP, type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass } from '../sys/pass.ts';
import type { Uio } from '../vm/uio.ts';
import { m_freem, m_get } from './kern_mbuf.ts';
import { m_mbuftouio } from './m_copydata.ts';
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
import { type Socket, soTakeError } from './uipc_socket.ts';

/**
 * Appends the packet `m0` from `asa`, with the control data `control` or null, as one record. Takes
 * `m0` and `control` and returns true, or returns false, both still the caller's, when there is no
 * room or no mbuf.
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

/** Unlinks the first record and takes its charge off; the caller owns it. Null if there is none. */
function takeRecord(sb: Sockbuf): Mbuf | null {
  const record = sb.sb_mb;
  if (record === null) return null;
  for (let m: Mbuf | null = record; m !== null; m = m.m_next) sbfree(sb, m);
  sb.sb_mb = record.m_nextpkt;
  if (sb.sb_mb === null) sb.sb_lastrecord = null;
  record.m_nextpkt = null;
  return record;
}

/** Drops the first record, if there is one. @see sockbuf(9) */
export function sbdroprecord(sb: Sockbuf): void {
  m_freem(takeRecord(sb));
}

/** Drops every record: before the buffer of a datagram socket is freed. */
export function sbflushRecords(sb: Sockbuf): void {
  while (sb.sb_mb !== null) sbdroprecord(sb);
}

/** The sender of a record that was received, and the record's bytes, lost ones too. */
export class ReceivedFrom {
  readonly name = new Sockaddr();
  len = 0;
}

/**
 * What `soreceive_dgram` fills unless it gets a record of the caller's own. An upcall may receive
 * before a call outside a pass returns: programs give a record of their own.
 */
export const soReceivedFrom = new ReceivedFrom();

/** Where `soreceive_dgram` puts control data. The caller frees it. */
export interface ControlRef {
  m: Mbuf | null;
}

/**
 * Receives one record into `uio`; what does not fit is lost. `from` is filled with the sender. 0
 * with `uio_resid` unchanged is an empty packet, or, after a shutdown, the end. EWOULDBLOCK: no record
 * yet. Else the pending error. `flags`: MSG_PEEK leaves record and error where they are; MSG_OOB is
 * EOPNOTSUPP. The record's control data goes to `controlp`; without one, or with MSG_PEEK, it is not
 * returned.
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
    return (sb.sb_state & SBS_CANTRCVMORE) !== 0 ? 0 : EWOULDBLOCK;
  }
  const record = peek ? sb.sb_mb : takeRecord(sb)!;
  sockaddrGet(mtod(record), from.name);
  let last = record;
  while (last.m_next !== null && last.m_next.m_type === MT_CONTROL) last = last.m_next;
  const packet = last.m_next;
  if (packet !== null) from.len = packet.m_pkthdr.len;
  if (packet !== null && packet.m_pkthdr.len > 0) m_mbuftouio(uio, packet, packet.m_pkthdr.len);
  if (peek) return 0;
  if (controlp !== null && last !== record) {
    controlp.m = record.m_next;
    record.m_next = packet;
    last.m_next = null;
  }
  m_freem(record);
  return 0;
}
