/**
 * The output path of interfaces whose driver has no if_transmit of its own, after the defaults in
 * sys/net/if.c: queue on if_snd, then have the driver's if_start empty the queue, unless the
 * hardware is full (OACTIVE); the driver starts it again when it is not.
 */

import type { Errno } from '../sys/errno.ts';
import { count, R_DRV_IFQ_FULL } from '../sys/reason.ts';
import { type Mbuf, M_MCAST } from '../kern/mbuf.ts';
import {
  IFCOUNTER_OBYTES,
  IFCOUNTER_OMCASTS,
  IFCOUNTER_OQDROPS,
  if_inc_counter,
  type IfDriver,
  IFF_DRV_OACTIVE,
  type IfIoctl,
  type Ifnet,
} from './if_var.ts';
import { IFQ_ENQUEUE, IFQ_PURGE } from './ifq.ts';

/**
 * A driver that supplies if_start and leaves if_transmit and if_qflush to FreeBSD's defaults. Its
 * packets wait in if_snd. FreeBSD's drivers leave both pointers null and if_attach fills them in;
 * here they extend this class.
 * @see ifnet(9)
 */
export abstract class IfStartDriver implements IfDriver {
  abstract if_init(ifp: Ifnet): void;
  /** Sends what waits in if_snd until there is nothing or no room; then it sets OACTIVE. */
  abstract if_start(ifp: Ifnet): void;
  abstract if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno;

  if_transmit(ifp: Ifnet, m: Mbuf): Errno {
    return if_transmit_default(ifp, this, m);
  }

  if_qflush(ifp: Ifnet): void {
    if_qflush(ifp);
  }

  /** Nothing is put off to the end of a pass: if_start has sent. */
  if_txflush(_ifp: Ifnet): void {}
}

/**
 * Queues a frame and starts output unless OACTIVE is set. Takes `m` on every outcome. ENOBUFS,
 * counted as OQDROPS: the queue is full. Bytes (and OMCASTS, for groups) are counted as soon as the
 * frame is queued, packets by the driver when they are sent.
 * @see ifnet(9), sys/net/if.c (if_transmit)
 */
export function if_transmit_default(ifp: Ifnet, driver: IfStartDriver, m: Mbuf): Errno {
  // The packet is the queue's, and perhaps sent and freed, when the counters have their turn.
  const { len } = m.m_pkthdr;
  const multicast = (m.m_flags & M_MCAST) !== 0;
  const error = IFQ_ENQUEUE(ifp.if_snd, m);
  if (error !== 0) {
    if_inc_counter(ifp, IFCOUNTER_OQDROPS, 1);
    count(R_DRV_IFQ_FULL);
    return error;
  }
  if_inc_counter(ifp, IFCOUNTER_OBYTES, len);
  if (multicast) if_inc_counter(ifp, IFCOUNTER_OMCASTS, 1);
  if ((ifp.if_drv_flags & IFF_DRV_OACTIVE) === 0) driver.if_start(ifp);
  return 0;
}

/** Frees what waits in if_snd. @see ifnet(9) */
export function if_qflush(ifp: Ifnet): void {
  IFQ_PURGE(ifp.if_snd);
}
