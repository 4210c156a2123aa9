/**
 * Transmit for drivers with bus_dma, from if_transmit to the descriptor ring and back: the part
 * that does not depend on the hardware. The driver fills the descriptors (encap), rings the
 * doorbell and finds the packets that the device has finished (txreap).
 */

import { CAPTURE_OUT, CAPTURE_RING } from '../src/sys/capture.ts';
import { countDrop } from '../src/net/capture_drop.ts';
import { EFBIG, ENETDOWN, ENOBUFS, ENOMEM, type Errno } from '../src/sys/errno.ts';
import {
  count,
  R_DRV_DEFRAG,
  R_DRV_DOWN,
  R_DRV_IFQ_FLUSHED,
  R_DRV_IFQ_FULL,
  R_DRV_RING_FULL,
  R_DRV_TX_ERROR,
} from '../src/sys/reason.ts';
import { m_freem } from '../src/kern/kern_mbuf.ts';
import { type Mbuf, M_MCAST, M_NOWAIT } from '../src/kern/mbuf.ts';
import { m_collapse, m_defrag } from '../src/kern/uipc_mbuf.ts';
import {
  bus_dmamap_load_mbuf_sg,
  bus_dmamap_sync,
  bus_dmamap_unload,
  BUS_DMASYNC_POSTWRITE,
  type BusDmamap,
  dmaStats,
} from '../src/bus/bus_dma.ts';
import {
  IFCOUNTER_OBYTES,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OMCASTS,
  IFCOUNTER_OPACKETS,
  IFCOUNTER_OQDROPS,
  if_inc_counter,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
} from '../src/net/if_var.ts';
import { RING_TO_DEVICE } from './dma_setup.ts';
import type { DmaSoftc } from './dma_softc.ts';

/**
 * Bytes after which a pass rings the doorbell before its end, as iflib(9) does after a number of
 * descriptors. The device has then copied about half of a second-level cache of 1 MB, and the mbufs
 * of the finished packets are still in it when they are freed.
 */
const DOORBELL_BYTES = 256 * 1024;

/** The map for the next packet. The ring has room, so one is free. */
export function dmaTxMap(sc: DmaSoftc): BusDmamap {
  return sc.txFree[sc.txFree.length - 1]!;
}

/**
 * Records that the packet `sc.txHead`, loaded into the map of dmaTxMap, has the `n` slots from `first`
 * on.
 */
export function dmaTxPut(sc: DmaSoftc, first: number, n: number): void {
  sc.txMap[first] = sc.txFree.pop()!;
  sc.txMbuf[first] = sc.txHead;
  sc.txNdesc[first] = n;
}

/**
 * Loads the chain into `sc.segs`, and copies it first if it has too many segments; `sc.txHead` is
 * the loaded chain. ENOBUFS: no memory for the copy. ENOMEM: bus_dma has no bounce pages now.
 */
export function dmaLoadTx(sc: DmaSoftc, map: BusDmamap, m: Mbuf): Errno {
  const { segs, txTag } = sc;
  let error = bus_dmamap_load_mbuf_sg(txTag, map, m, segs);
  if (error !== EFBIG) return error;
  dmaStats.defrags++;
  count(R_DRV_DEFRAG);
  const collapsed = m_collapse(m, M_NOWAIT, txTag.nsegments);
  if (collapsed !== null) {
    sc.txHead = collapsed;
    error = bus_dmamap_load_mbuf_sg(txTag, map, collapsed, segs);
    if (error !== EFBIG) return error;
  }
  const defragged = m_defrag(sc.txHead!, M_NOWAIT);
  if (defragged === null) return ENOBUFS;
  sc.txHead = defragged;
  return bus_dmamap_load_mbuf_sg(txTag, map, defragged, segs);
}

/** Counts a packet that is on the ring and passes it to BPF. */
function accountTx(sc: DmaSoftc, m: Mbuf): void {
  const { ifp } = sc;
  if_inc_counter(ifp, IFCOUNTER_OPACKETS, 1);
  if_inc_counter(ifp, IFCOUNTER_OBYTES, m.m_pkthdr.len);
  if ((m.m_flags & M_MCAST) !== 0) if_inc_counter(ifp, IFCOUNTER_OMCASTS, 1);
  const bpf = ifp.if_bpf;
  if (bpf !== null && bpf.listeners > 0) bpf.mtap(m, true);
}

/** Puts a packet on the ring. True: queued or dropped. False: no room, and the caller owns it. */
function put(sc: DmaSoftc, m: Mbuf): boolean {
  let error = sc.ops.encap(sc, m);
  if (error === ENOMEM && sc.txr.prod !== sc.txRung) {
    // A long output pass has filled the ring or used up the bounce pages: ring the doorbell now and
    // free the finished packets.
    dmaTxflush(sc);
    sc.ops.txreap(sc);
    error = sc.ops.encap(sc, sc.txHead!);
  }
  if (error === 0) {
    accountTx(sc, sc.txHead!);
    sc.txPending += sc.txHead!.m_pkthdr.len;
    if (sc.txPending >= DOORBELL_BYTES) {
      dmaTxflush(sc);
      sc.ops.txreap(sc);
    }
    return true;
  }
  // If the ring is empty, no completion will retry this packet.
  if (error === ENOMEM && sc.txr.used > 0) return false;
  countDrop(sc.txHead!, R_DRV_TX_ERROR, CAPTURE_RING, CAPTURE_OUT, sc.ifp);
  if_inc_counter(sc.ifp, IFCOUNTER_OERRORS, 1);
  m_freem(sc.txHead);
  return true;
}

function enqueue(sc: DmaSoftc, m: Mbuf): Errno {
  if (sc.br.enqueue(m)) return 0;
  countDrop(m, R_DRV_IFQ_FULL, CAPTURE_RING, CAPTURE_OUT, sc.ifp);
  if_inc_counter(sc.ifp, IFCOUNTER_OQDROPS, 1);
  m_freem(m);
  return ENOBUFS;
}

/** Moves waiting packets to the ring while it has room. OACTIVE stays set if the ring is full. */
function start(sc: DmaSoftc): void {
  const { br, ifp } = sc;
  for (let m = br.peek(); m !== null; m = br.peek()) {
    if (!put(sc, m)) {
      // encap may have replaced the packet by a copy.
      br.putback(sc.txHead!);
      ifp.if_drv_flags |= IFF_DRV_OACTIVE;
      return;
    }
    br.advance();
    ifp.deferTxflush();
  }
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
}

/**
 * if_transmit: sends or queues `m`, and owns it on every outcome. ENETDOWN: the interface is not
 * running. ENOBUFS: ring and queue are full.
 */
export function dmaTransmit(sc: DmaSoftc, m: Mbuf): Errno {
  const { ifp } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) {
    countDrop(m, R_DRV_DOWN, CAPTURE_RING, CAPTURE_OUT, ifp);
    if_inc_counter(ifp, IFCOUNTER_OQDROPS, 1);
    m_freem(m);
    return ENETDOWN;
  }
  if (sc.br.used > 0) return enqueue(sc, m);
  if (!put(sc, m)) {
    count(R_DRV_RING_FULL);
    ifp.if_drv_flags |= IFF_DRV_OACTIVE;
    return enqueue(sc, sc.txHead!);
  }
  ifp.deferTxflush();
  return 0;
}

/** if_qflush: frees the packets that wait for the ring, and counts them as dropped. */
export function dmaQflush(sc: DmaSoftc): void {
  const { br, ifp } = sc;
  br.flush((m) => countDrop(m, R_DRV_IFQ_FLUSHED, CAPTURE_RING, CAPTURE_OUT, ifp));
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
}

/** if_txflush: rings the doorbell if packets were added to the ring since the last one. */
export function dmaTxflush(sc: DmaSoftc): void {
  const { txr, txRing } = sc;
  if (txr.prod === sc.txRung) return;
  sc.txRung = txr.prod;
  sc.txPending = 0;
  bus_dmamap_sync(txRing.tag, txRing.map, RING_TO_DEVICE);
  sc.ops.doorbell(sc);
}

/** Unloads and frees the packet whose first slot is `first`. */
function txfree(sc: DmaSoftc, first: number): void {
  const map = sc.txMap[first]!;
  const m = sc.txMbuf[first]!;
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_POSTWRITE);
  bus_dmamap_unload(sc.txTag, map);
  sc.txMap[first] = null;
  sc.txFree.push(map);
  sc.txMbuf[first] = null;
  m_freem(m);
}

/** Completes the oldest packet on the ring. `failed`: the device reported it as bad. */
export function dmaTxDone(sc: DmaSoftc, failed: boolean): void {
  const { txr } = sc;
  if (failed) {
    countDrop(sc.txMbuf[txr.slot(txr.cons)]!, R_DRV_TX_ERROR, CAPTURE_RING, CAPTURE_OUT, sc.ifp);
    if_inc_counter(sc.ifp, IFCOUNTER_OERRORS, 1);
  }
  const first = txr.slot(txr.cons);
  txfree(sc, first);
  txr.consume(sc.txNdesc[first]!);
}

/** Handles transmit completions: frees packets and queues waiting ones. */
export function dmaTxeof(sc: DmaSoftc): void {
  if (sc.ops.txreap(sc) > 0 && sc.br.used > 0) start(sc);
}

/** Frees everything on the transmit ring; the caller has stopped the device. */
export function dmaTxdrain(sc: DmaSoftc): void {
  const { txr } = sc;
  while (txr.used > 0) dmaTxDone(sc, false);
  txr.reset();
  sc.txRung = 0;
  sc.txPending = 0;
}
