/**
 * Transmit and receive of the driver for `tb`. The device owns a descriptor while its OWN bit is
 * set. The driver fills a packet's descriptors, sets OWN in the first one last, and reads the last
 * one to see whether the packet is finished. The NIC has no offload, so the stack has already
 * computed the packets' checksums. Descriptor rules: docs/tb-datasheet.md.
 */

import { captureNotes } from '../src/sys/capture_notes.ts';
import { captureTags } from '../src/sys/capture_tags.ts';
import { ENOMEM, type Errno } from '../src/sys/errno.ts';
import { memView } from '../src/vm/arena.ts';
import type { Mbuf } from '../src/kern/mbuf.ts';
import {
  bus_dmamap_sync,
  bus_dmamap_unload,
  BUS_DMASYNC_POSTREAD,
  BUS_DMASYNC_PREWRITE,
} from '../src/bus/bus_dma.ts';
import { bus_space_write_4 } from '../src/bus/bus_space.ts';
import { IFF_DRV_RUNNING } from '../src/net/if_var.ts';
import {
  TB_CTL_EOP,
  TB_CTL_ERR,
  TB_CTL_INT,
  TB_CTL_OWN,
  TB_D_ADDRH,
  TB_D_ADDRL,
  TB_D_CTL,
  TB_D_LEN,
  TB_DESC_SIZE,
  TB_RXKICK,
  TB_TXKICK,
} from '../src/dev/tb/tbreg.ts';
import { dmaRxAfter, dmaRxBad, dmaRxTake, rxInput } from './dma_rx.ts';
import { RING_TO_DEVICE, RING_TO_US } from './dma_setup.ts';
import { dmaLoadTx, dmaTxDone, dmaTxMap, dmaTxPut } from './dma_tx.ts';
import type { TbSoftc } from './if_tbvar.ts';

/**
 * Fills the descriptors of the loaded packet. The first one is written last, because its OWN bit
 * hands the packet to the device.
 */
function fillTx(sc: TbSoftc): void {
  const { txr, segs } = sc;
  const last = segs.nsegs - 1;
  for (let i = last; i >= 0; i--) {
    const at = sc.txDesc + txr.slot(txr.prod + i) * TB_DESC_SIZE;
    memView.setInt32(at + TB_D_ADDRL, segs.addrLo[i]!, true);
    memView.setInt32(at + TB_D_ADDRH, segs.addrHi[i]!, true);
    memView.setUint32(at + TB_D_LEN, segs.ds_len[i]!, true);
    const ctl = i === last ? TB_CTL_OWN | TB_CTL_EOP | TB_CTL_INT : TB_CTL_OWN;
    memView.setInt32(at + TB_D_CTL, ctl | 0, true);
  }
}

/**
 * Queues `m` for transmission. On 0 the ring owns the packet. On any error the caller owns
 * `sc.txHead`, which is `m` or its copy. ENOMEM: no room on the ring or no bounce pages now.
 * ENOBUFS, EFBIG and EINVAL: the packet cannot be sent.
 * @see bus_dma(9)
 */
export function tb_encap(sc: TbSoftc, m: Mbuf): Errno {
  const { txr, segs } = sc;
  sc.txHead = m;
  if (txr.free === 0) return ENOMEM;
  const first = txr.slot(txr.prod);
  const map = dmaTxMap(sc);
  const error = dmaLoadTx(sc, map, m);
  if (error !== 0) return error;
  if (segs.nsegs > txr.free) {
    bus_dmamap_unload(sc.txTag, map);
    return ENOMEM;
  }
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_PREWRITE);
  if (captureNotes.on) captureTags.putSent(sc.ifp.if_capunit, first, sc.txHead.m_pkthdr.pktId);
  fillTx(sc);
  dmaTxPut(sc, first, segs.nsegs);
  txr.produce(segs.nsegs);
  // The doorbell is rung once, at the end of the output pass.
  return 0;
}

/**
 * Rings the doorbell. The device sends until it reads a descriptor without OWN.
 * @see bus_space(9)
 */
export function tb_doorbell(sc: TbSoftc): void {
  bus_space_write_4(sc.regs, TB_TXKICK, 1);
}

/** Completes the packets that the device has finished; returns how many. @see bus_dma(9) */
export function tb_txreap(sc: TbSoftc): number {
  const { txr } = sc;
  let n = 0;
  bus_dmamap_sync(sc.txRing.tag, sc.txRing.map, RING_TO_US);
  for (; txr.used > 0; n++) {
    const last = txr.slot(txr.cons + sc.txNdesc[txr.slot(txr.cons)]! - 1);
    // Read it as signed: an unsigned word with OWN set would be allocated on V8's heap.
    const ctl = memView.getInt32(sc.txDesc + last * TB_DESC_SIZE + TB_D_CTL, true);
    if ((ctl & TB_CTL_OWN) !== 0) break;
    dmaTxDone(sc, (ctl & TB_CTL_ERR) !== 0);
  }
  return n;
}

/** Writes the loaded buffer's address into a slot. @see bus_dma(9) */
export function tb_rxaim(sc: TbSoftc, slot: number): void {
  const at = sc.rxDesc + slot * TB_DESC_SIZE;
  memView.setInt32(at + TB_D_ADDRL, sc.segs.addrLo[0]!, true);
  memView.setInt32(at + TB_D_ADDRH, sc.segs.addrHi[0]!, true);
}

/** Hands a slot to the device with its current buffer. @see bus_dma(9) */
export function tb_rxpost(sc: TbSoftc, slot: number): void {
  const at = sc.rxDesc + slot * TB_DESC_SIZE;
  memView.setUint32(at + TB_D_LEN, sc.rxBufSize, true);
  memView.setInt32(at + TB_D_CTL, TB_CTL_OWN | 0, true);
}

/** Handles one descriptor that the device has returned. */
function tb_rxdesc(sc: TbSoftc, slot: number, ctl: number, len: number): void {
  // The first buffer of a frame has its id.
  if (sc.rxHead === null && !sc.rxDiscard)
    sc.rxId = captureNotes.on ? captureTags.takeReceived(sc.ifp.if_capunit, slot) : 0;
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
  if ((ctl & TB_CTL_ERR) !== 0 || len > sc.rxBufSize || len === 0) {
    dmaRxBad(sc, slot);
    return;
  }
  const m = dmaRxTake(sc, slot, len, (ctl & TB_CTL_EOP) !== 0);
  if (m === null) return;
  m.m_pkthdr.pktId = sc.rxId;
  rxInput(sc.ifp, m);
}

/**
 * Passes received frames to the stack, at most `limit` descriptors, and posts their slots again.
 * Returns whether there may be more.
 * @see ifnet(9)
 */
export function tb_rxeof(sc: TbSoftc, limit: number): boolean {
  const { ifp, rxRing } = sc;
  bus_dmamap_sync(rxRing.tag, rxRing.map, RING_TO_US);
  let n = 0;
  for (; n < limit; n++) {
    const slot = sc.rxNext;
    const at = sc.rxDesc + slot * TB_DESC_SIZE;
    const ctl = memView.getInt32(at + TB_D_CTL, true);
    if ((ctl & TB_CTL_OWN) !== 0) break;
    const len = memView.getInt32(at + TB_D_LEN, true);
    sc.rxNext = dmaRxAfter(sc, slot);
    tb_rxdesc(sc, slot, ctl, len);
    // The stack may have stopped the interface during input.
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return false;
  }
  if (n === 0) return false;
  tb_rxkick(sc);
  return n === limit;
}

/** Rings the receive doorbell after buffers were posted. @see ifnet(9) */
export function tb_rxkick(sc: TbSoftc): void {
  const { rxRing } = sc;
  bus_dmamap_sync(rxRing.tag, rxRing.map, RING_TO_DEVICE);
  bus_space_write_4(sc.regs, TB_RXKICK, 1);
}
