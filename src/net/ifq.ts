/**
 * The output queue of an interface (if_snd), after sys/net/ifq.h: a list of packets with a limit.
 * For drivers that start output from a queue; those with an if_transmit of their own leave it
 * empty. Left out: ALTQ's disciplines, locks, buf_ring(9).
 */

import { ENOBUFS, EPERM, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { machineSysctl } from '../kern/kern_sysctl.ts';
import type { Mbuf } from '../kern/mbuf.ts';

/** net.link.ifqmaxlen where nobody says otherwise. */
export const IFQ_MAXLEN = 50;
/** The longest queue that can be asked for. */
const IFQ_MAXLEN_MAX = 65536;

let ifqmaxlen = IFQ_MAXLEN;
let ifqmaxlenUsed = false;

/** Packets in the order of their sending, linked by m_nextpkt. @see ifnet(9) */
export class Ifqueue {
  ifq_head: Mbuf | null = null;
  ifq_tail: Mbuf | null = null;
  ifq_len = 0;
  ifq_maxlen = IFQ_MAXLEN;
}

/**
 * Makes net.link.ifqmaxlen, as at boot. A tunable: it is taken until a driver has asked for it, then
 * it is read-only (EPERM).
 */
export function ifqInit(): void {
  ifqmaxlen = IFQ_MAXLEN;
  ifqmaxlenUsed = false;
  machineSysctl.tree.int(
    'net.link.ifqmaxlen',
    'max send queue size',
    () => ifqmaxlen,
    (v): Errno => {
      if (ifqmaxlenUsed) return EPERM;
      ifqmaxlen = v;
      return 0;
    },
    1,
    IFQ_MAXLEN_MAX,
  );
}

/** net.link.ifqmaxlen, for a driver that attaches. Cannot be changed afterwards. */
export function ifqDefaultMaxlen(): number {
  ifqmaxlenUsed = true;
  return ifqmaxlen;
}

/** Sets how many packets may wait. @see ifnet(9) */
export function IFQ_SET_MAXLEN(ifq: Ifqueue, len: number): void {
  KASSERT(len > 0, 'IFQ_SET_MAXLEN: no room at all');
  ifq.ifq_maxlen = len;
}

/**
 * Puts `m` behind the others. Takes it on every outcome: ENOBUFS, and freed, if the queue is full;
 * the caller counts.
 * @see ifnet(9)
 */
export function IFQ_ENQUEUE(ifq: Ifqueue, m: Mbuf): Errno {
  if (ifq.ifq_len >= ifq.ifq_maxlen) {
    m_freem(m);
    return ENOBUFS;
  }
  m.m_nextpkt = null;
  if (ifq.ifq_tail === null) ifq.ifq_head = m;
  else ifq.ifq_tail.m_nextpkt = m;
  ifq.ifq_tail = m;
  ifq.ifq_len++;
  return 0;
}

/** Takes the first packet, null if there is none; the caller owns it. @see ifnet(9) */
export function IFQ_DRV_DEQUEUE(ifq: Ifqueue): Mbuf | null {
  const m = ifq.ifq_head;
  if (m === null) return null;
  ifq.ifq_head = m.m_nextpkt;
  if (ifq.ifq_head === null) ifq.ifq_tail = null;
  m.m_nextpkt = null;
  ifq.ifq_len--;
  return m;
}

/** Puts a packet that could not be sent back at the front, limit or not. @see ifnet(9) */
export function IFQ_DRV_PREPEND(ifq: Ifqueue, m: Mbuf): void {
  m.m_nextpkt = ifq.ifq_head;
  ifq.ifq_head = m;
  if (ifq.ifq_tail === null) ifq.ifq_tail = m;
  ifq.ifq_len++;
}

/** @see ifnet(9) */
export function IFQ_DRV_IS_EMPTY(ifq: Ifqueue): boolean {
  return ifq.ifq_len === 0;
}

/** Frees all that wait. @see ifnet(9) */
export function IFQ_PURGE(ifq: Ifqueue): void {
  for (let m = IFQ_DRV_DEQUEUE(ifq); m !== null; m = IFQ_DRV_DEQUEUE(ifq)) m_freem(m);
}
