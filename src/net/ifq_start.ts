/**
 * The output path of interfaces whose driver has no if_transmit, after the defaults in
 * sys/net/if.c. A frame is queued on if_snd; the driver's if_start then sends from the queue,
 * unless the hardware is full (OACTIVE). The driver clears OACTIVE and calls if_start again when
 * there is room.
 */

import { CAPTURE_OUT, CAPTURE_RING } from '../sys/capture.ts';
import { countDrop, noteLost } from './capture_drop.ts';
import type { Errno } from '../sys/errno.ts';
import { count, R_DRV_IFQ_FLUSHED, R_DRV_IFQ_FULL } from '../sys/reason.ts';
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
  /**
   * Sends packets from if_snd until it is empty or the hardware is full; in the latter case sets
   * OACTIVE.
   */
  abstract if_start(ifp: Ifnet): void;
  abstract if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno;

  if_transmit(ifp: Ifnet, m: Mbuf): Errno {
    return if_transmit_default(ifp, this, m);
  }

  if_qflush(ifp: Ifnet): void {
    if_qflush(ifp);
  }

  /** Does nothing: if_start sends immediately and defers no work to the end of a pass. */
  if_txflush(_ifp: Ifnet): void {}
}

/**
 * Queues a frame and starts output unless OACTIVE is set. Takes `m` on every outcome. ENOBUFS: the
 * queue is full; the drop is counted in OQDROPS. Counts OBYTES, and OMCASTS for a multicast frame,
 * when the frame is queued. The driver counts packets when it sends them.
 * @see ifnet(9), sys/net/if.c (if_transmit)
 */
function if_transmit_default(ifp: Ifnet, driver: IfStartDriver, m: Mbuf): Errno {
  // Read the packet header first: after IFQ_ENQUEUE the queue owns `m`.
  const { len, pktId } = m.m_pkthdr;
  const multicast = (m.m_flags & M_MCAST) !== 0;
  const error = IFQ_ENQUEUE(ifp.if_snd, m);
  if (error !== 0) {
    if_inc_counter(ifp, IFCOUNTER_OQDROPS, 1);
    count(R_DRV_IFQ_FULL);
    noteLost(pktId, len, R_DRV_IFQ_FULL, CAPTURE_RING, CAPTURE_OUT, ifp);
    return error;
  }
  if_inc_counter(ifp, IFCOUNTER_OBYTES, len);
  if (multicast) if_inc_counter(ifp, IFCOUNTER_OMCASTS, 1);
  if ((ifp.if_drv_flags & IFF_DRV_OACTIVE) === 0) driver.if_start(ifp);
  return 0;
}

/** Frees all packets in if_snd, and counts them as dropped. @see ifnet(9) */
export function if_qflush(ifp: Ifnet): void {
  for (let m = ifp.if_snd.ifq_head; m !== null; m = m.m_nextpkt)
    countDrop(m, R_DRV_IFQ_FLUSHED, CAPTURE_RING, CAPTURE_OUT, ifp);
  IFQ_PURGE(ifp.if_snd);
}
