/**
 * The output queue of an interface (if_snd), after sys/net/ifq.h: a bounded list of packets.
 * Drivers with an if_start take packets from it; drivers with their own if_transmit do not use it.
 * Left out: ALTQ's disciplines, locks, buf_ring(9).
 */

import { ENOBUFS, EPERM, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { machineSysctl } from '../kern/kern_sysctl.ts';
import type { Mbuf } from '../kern/mbuf.ts';

/** Default of net.link.ifqmaxlen, in packets. */
export const IFQ_MAXLEN = 50;
/** Largest value of net.link.ifqmaxlen. */
const IFQ_MAXLEN_MAX = 65536;

let ifqmaxlen = IFQ_MAXLEN;
let ifqmaxlenUsed = false;

/** Packets in transmit order, linked by m_nextpkt. @see ifnet(9) */
export class Ifqueue {
  ifq_head: Mbuf | null = null;
  ifq_tail: Mbuf | null = null;
  ifq_len = 0;
  ifq_maxlen = IFQ_MAXLEN;
}

/**
 * Creates net.link.ifqmaxlen with its default. Called at boot. It can be set until the first driver
 * reads it with ifqDefaultMaxlen; then setting it returns EPERM.
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

/** Returns net.link.ifqmaxlen for a driver that attaches, and makes the variable read-only. */
export function ifqDefaultMaxlen(): number {
  ifqmaxlenUsed = true;
  return ifqmaxlen;
}

/** Sets the limit of the queue in packets. @see ifnet(9) */
export function IFQ_SET_MAXLEN(ifq: Ifqueue, len: number): void {
  KASSERT(len > 0, 'IFQ_SET_MAXLEN: no room at all');
  ifq.ifq_maxlen = len;
}

/**
 * Appends `m` to the queue. Takes `m` on every outcome. ENOBUFS: the queue is full and `m` is
 * freed; the caller counts the drop.
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

/**
 * Removes the first packet and returns it, or null if the queue is empty. The caller owns it.
 * @see ifnet(9)
 */
export function IFQ_DRV_DEQUEUE(ifq: Ifqueue): Mbuf | null {
  const m = ifq.ifq_head;
  if (m === null) return null;
  ifq.ifq_head = m.m_nextpkt;
  if (ifq.ifq_head === null) ifq.ifq_tail = null;
  m.m_nextpkt = null;
  ifq.ifq_len--;
  return m;
}

/**
 * Puts a packet that could not be sent back at the front, even if the queue is full.
 * Part of the ifq(9) library: the stack itself does not call it.
 * @see ifnet(9)
 */
export function IFQ_DRV_PREPEND(ifq: Ifqueue, m: Mbuf): void {
  m.m_nextpkt = ifq.ifq_head;
  ifq.ifq_head = m;
  if (ifq.ifq_tail === null) ifq.ifq_tail = m;
  ifq.ifq_len++;
}

/**
 * @see ifnet(9)
 * Part of the ifq(9) library: the stack itself does not call it.
 */
export function IFQ_DRV_IS_EMPTY(ifq: Ifqueue): boolean {
  return ifq.ifq_len === 0;
}

/** Frees all packets in the queue. @see ifnet(9) */
export function IFQ_PURGE(ifq: Ifqueue): void {
  for (let m = IFQ_DRV_DEQUEUE(ifq); m !== null; m = IFQ_DRV_DEQUEUE(ifq)) m_freem(m);
}
