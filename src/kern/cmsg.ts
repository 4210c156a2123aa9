/**
 * Control messages of sendmsg(2) and recvmsg(2), after struct cmsghdr of sys/sys/socket.h. A received one
 * is an mbuf of type MT_CONTROL that begins with the header, in C's layout on amd64. Unlike FreeBSD,
 * which passes an mbuf to the protocol too, a program's messages are objects.
 */

import { type Kva, kva } from '../sys/types.ts';
import { mem, memView } from '../vm/arena.ts';
import { m_freem, m_get, m_getcl } from './kern_mbuf.ts';
import { type Mbuf, MCLBYTES, MLEN, M_NOWAIT, MT_CONTROL, mtod } from './mbuf.ts';

/** One control message. */
export interface Cmsg {
  /** The protocol, such as IPPROTO_IP. */
  readonly level: number;
  readonly type: number;
  readonly data: Uint8Array;
}

/** The messages of a send; null: none. */
export type Control = readonly Cmsg[] | null;

// struct cmsghdr: its length with the data, level and type; the data is aligned to 8 bytes.
const CMSG_LEVEL = 4;
const CMSG_TYPE = 8;
const CMSG_DATA = 16;

/**
 * A new mbuf for a message with `size` bytes of data, which the caller writes at `cmsgData`. Null: no
 * mbuf is free, or the message is larger than a cluster. @see sys/kern/uipc_sockbuf.c (there it copies the data)
 */
export function sbcreatecontrol(size: number, type: number, level: number): Mbuf | null {
  const large = CMSG_DATA + size > MLEN;
  if (CMSG_DATA + size > MCLBYTES) return null;
  const m = large ? m_getcl(M_NOWAIT, MT_CONTROL, 0) : m_get(M_NOWAIT, MT_CONTROL);
  if (m === null) return null;
  const p = mtod(m);
  memView.setInt32(p, CMSG_DATA + size, true);
  memView.setInt32(p + CMSG_LEVEL, level, true);
  memView.setInt32(p + CMSG_TYPE, type, true);
  memView.setInt32(p + CMSG_TYPE + 4, 0);
  m.m_len = CMSG_DATA + size;
  return m;
}

/** The address of the data of the message in `m`. */
export function cmsgData(m: Mbuf): Kva {
  return kva(mtod(m) + CMSG_DATA);
}

/** The messages in the chain `control`, one per mbuf. Frees the chain. */
export function takeCmsgs(control: Mbuf | null): Cmsg[] {
  const list: Cmsg[] = [];
  for (let m = control; m !== null; m = m.m_next) {
    const p = mtod(m);
    const level = memView.getInt32(p + CMSG_LEVEL, true);
    const type = memView.getInt32(p + CMSG_TYPE, true);
    list.push({ level, type, data: mem.slice(p + CMSG_DATA, p + m.m_len) });
  }
  m_freem(control);
  return list;
}
