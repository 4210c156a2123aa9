/**
 * Records in socket buffers, after sys/kern/uipc_sockbuf.c and uipc_socket.c: what datagram and raw
 * sockets receive. A record is an mbuf with the sender's address and the mbufs of the packet;
 * records are linked by m_nextpkt. Left out: control data, several senders' queues in one buffer.
 */

import { EOPNOTSUPP, type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass } from '../sys/pass.ts';
import { inAddr, type InAddr, port, type Port } from '../sys/types.ts';
import { memView } from '../vm/arena.ts';
import type { Uio } from '../vm/uio.ts';
import { m_freem, m_get } from './kern_mbuf.ts';
import { m_mbuftouio } from './m_copydata.ts';
import { type Mbuf, M_NOWAIT, M_PKTHDR, M_PROTOFLAGS, MT_SONAME, mtod } from './mbuf.ts';
import { AF_INET, MSG_OOB, MSG_PEEK } from './protosw.ts';
import { SBS_CANTRCVMORE, sballoc, sbfree, type Sockbuf, sbspace } from './uipc_sockbuf.ts';
import { type Socket, soTakeError } from './uipc_socket.ts';

// struct sockaddr_in: sin_len, sin_family, sin_port, sin_addr, 8 bytes of zeros.
const SOCKADDR_IN_SIZE = 16;
const SIN_PORT = 2;
const SIN_ADDR = 4;

/**
 * Appends the packet `m0` from `addr` and `from` as one record. Takes `m0` and returns true, or
 * returns false, `m0` still the caller's, when there is no room or no mbuf.
 * @see sockbuf(9) (there the address is a struct sockaddr)
 */
export function sbappendaddr(sb: Sockbuf, addr: InAddr, from: Port, m0: Mbuf): boolean {
  KASSERT((m0.m_flags & M_PKTHDR) !== 0, 'sbappendaddr: no packet header');
  if (m0.m_pkthdr.len + SOCKADDR_IN_SIZE > sbspace(sb)) return false;
  const name = m_get(M_NOWAIT, MT_SONAME);
  if (name === null) return false;
  const p = mtod(name);
  memView.setUint8(p, SOCKADDR_IN_SIZE);
  memView.setUint8(p + 1, AF_INET);
  memView.setUint16(p + SIN_PORT, from);
  memView.setUint32(p + SIN_ADDR, addr);
  memView.setFloat64(p + 8, 0);
  name.m_len = SOCKADDR_IN_SIZE;
  name.m_next = m0;
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
  addr: InAddr = inAddr(0);
  port: Port = port(0);
  len = 0;
}

/**
 * What `soreceive_dgram` fills unless it gets a record of the caller's own. An upcall may receive
 * before a call outside a pass returns: programs give a record of their own.
 */
export const soReceivedFrom = new ReceivedFrom();

/**
 * Receives one record into `uio`; what does not fit is lost. `from` is filled with the sender. 0
 * with `uio_resid` unchanged is an empty packet, or, after a shutdown, the end. EWOULDBLOCK: none
 * yet. Else the pending error. `flags`: MSG_PEEK leaves record and error where they are; MSG_OOB is
 * EOPNOTSUPP.
 * @see socket(9)
 */
export function soreceive_dgram(so: Socket, uio: Uio, flags = 0, from = soReceivedFrom): Errno {
  return inPass(receiveInPass, so, uio, flags, from);
}

function receiveInPass(so: Socket, uio: Uio, flags: number, from: ReceivedFrom): Errno {
  if ((flags & MSG_OOB) !== 0) return EOPNOTSUPP;
  const sb = so.so_rcv;
  const peek = (flags & MSG_PEEK) !== 0;
  from.len = 0;
  if (sb.sb_mb === null) {
    if (so.so_error !== 0) return peek ? so.so_error : soTakeError(so);
    return (sb.sb_state & SBS_CANTRCVMORE) !== 0 ? 0 : EWOULDBLOCK;
  }
  const record = peek ? sb.sb_mb : takeRecord(sb)!;
  const p = mtod(record);
  from.port = memView.getUint16(p + SIN_PORT) as Port;
  from.addr = memView.getUint32(p + SIN_ADDR) as InAddr;
  const packet = record.m_next;
  if (packet !== null) from.len = packet.m_pkthdr.len;
  if (packet !== null && packet.m_pkthdr.len > 0) m_mbuftouio(uio, packet, packet.m_pkthdr.len);
  if (!peek) m_freem(record);
  return 0;
}
