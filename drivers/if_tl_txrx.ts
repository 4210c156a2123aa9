/**
 * Transmit and receive of the driver for `tl`. A frame has four fragments of at most 512 bytes in
 * the lowest 4 GiB. bus_dma bounces memory above that, and the driver copies a chain with more
 * fragments. Packets before TL_TXGET are finished. Block and descriptor rules:
 * docs/tl-datasheet.md.
 */

import { EINVAL, ENOMEM, type Errno } from '../src/sys/errno.ts';
import {
  ETHER_HDR_LEN,
  IPPROTO_TCP,
  IPPROTO_UDP,
  TCP_CKSUM_OFF,
  UDP_CKSUM_OFF,
} from '../src/sys/protocols.ts';
import { memView } from '../src/vm/arena.ts';
import {
  CSUM_IP6_TCP,
  CSUM_IP6_UDP,
  CSUM_IP_TCP,
  CSUM_IP_UDP,
  type Mbuf,
} from '../src/kern/mbuf.ts';
import { bus_dmamap_sync, BUS_DMASYNC_POSTREAD, BUS_DMASYNC_PREWRITE } from '../src/bus/bus_dma.ts';
import { bus_space_read_4, bus_space_write_4 } from '../src/bus/bus_space.ts';
import { IFF_DRV_RUNNING } from '../src/net/if_var.ts';
import {
  TL_B_CMD,
  TL_B_FRAG,
  TL_B_SUM,
  TL_B_TAG,
  TL_BLOCK_SIZE,
  TL_CMD_ERR,
  TL_CMD_INT,
  TL_CMD_SUM,
  TL_CMD_UDP,
  TL_R_ADDR,
  TL_R_ID,
  TL_R_LEN,
  TL_R_STATUS,
  TL_RXBUF_SIZE,
  TL_RXD_SIZE,
  TL_RXGET,
  TL_RXPUT,
  TL_RXS_ERR,
  TL_RXS_IP4,
  TL_RXS_IPBAD,
  TL_RXS_L4,
  TL_RXS_L4BAD,
  TL_TXGET,
  TL_TXPUT,
} from '../src/dev/tl/tlreg.ts';
import { dmaRxAfter, dmaRxBad, dmaRxTake, rxInput, rxVerdict } from './dma_rx.ts';
import { RING_TO_DEVICE, RING_TO_US } from './dma_setup.ts';
import { dmaLoadTx, dmaTxDone, dmaTxMap, dmaTxPut } from './dma_tx.ts';
import { TL_RX_NDESC, type TlSoftc } from './if_tlvar.ts';
import { TxHeaders, txHeaders } from './tx_headers.ts';

const TCP_REQUESTS = CSUM_IP_TCP | CSUM_IP6_TCP;
const REQUESTS = TCP_REQUESTS | CSUM_IP_UDP | CSUM_IP6_UDP;

const $headers = new TxHeaders();

/**
 * Computes the checksum command of the packet's block. EINVAL: the headers are bad, or are not of the
 * protocol whose checksum is requested.
 */
function tl_offload_setup(sc: TlSoftc, m: Mbuf): Errno {
  const { csum_flags, len } = m.m_pkthdr;
  sc.sumCmd = 0;
  sc.sumWhere = 0;
  if ((csum_flags & REQUESTS) === 0) return 0;
  const error = txHeaders(m, sc.scratch, $headers);
  if (error !== 0) return error;
  const tcp = (csum_flags & TCP_REQUESTS) !== 0;
  if ($headers.proto !== (tcp ? IPPROTO_TCP : IPPROTO_UDP)) return EINVAL;
  const start = $headers.l2 + $headers.l3;
  if (len < start + (tcp ? 20 : 8)) return EINVAL;
  sc.sumCmd = tcp ? TL_CMD_SUM : TL_CMD_SUM | TL_CMD_UDP;
  sc.sumWhere = start | ((start + (tcp ? TCP_CKSUM_OFF : UDP_CKSUM_OFF)) << 16);
  return 0;
}

/**
 * Queues `m` for transmission. On 0 the ring owns the packet. On any error the caller owns
 * `sc.txHead`, which is `m` or its copy. ENOMEM: no room on the ring or no bounce pages now.
 * ENOBUFS, EFBIG and EINVAL: the packet cannot be sent.
 * @see bus_dma(9)
 */
export function tl_encap(sc: TlSoftc, m: Mbuf): Errno {
  const { txr, segs } = sc;
  sc.txHead = m;
  if (txr.free === 0) return ENOMEM;
  const slot = txr.slot(txr.prod);
  const map = dmaTxMap(sc);
  let error = tl_offload_setup(sc, m);
  // A copy of the longest frame has three fragments.
  if (error === 0) error = dmaLoadTx(sc, map, m);
  if (error !== 0) return error;
  bus_dmamap_sync(sc.txTag, map, BUS_DMASYNC_PREWRITE);
  const head = sc.txHead;
  const at = sc.txDesc + slot * TL_BLOCK_SIZE;
  memView.setUint32(at + TL_B_CMD, segs.nsegs | sc.sumCmd | TL_CMD_INT, true);
  memView.setUint32(at + TL_B_SUM, sc.sumWhere, true);
  memView.setUint32(at + TL_B_TAG, head.m_pkthdr.pktId, true);
  for (let i = 0; i < segs.nsegs; i++) {
    memView.setInt32(at + TL_B_FRAG + 8 * i, segs.addrLo[i]!, true);
    memView.setUint32(at + TL_B_FRAG + 8 * i + 4, segs.ds_len[i]!, true);
  }
  dmaTxPut(sc, slot, 1);
  txr.produce(1);
  // The doorbell is rung once, at the end of the output pass.
  return 0;
}

/** Rings the doorbell. @see bus_space(9) */
export function tl_doorbell(sc: TlSoftc): void {
  bus_space_write_4(sc.regs, TL_TXPUT, sc.txr.slot(sc.txr.prod));
}

/** Completes the packets that the device has finished; returns how many. @see bus_dma(9) */
export function tl_txreap(sc: TlSoftc): number {
  const { txr } = sc;
  let n = 0;
  const get = bus_space_read_4(sc.regs, TL_TXGET);
  bus_dmamap_sync(sc.txRing.tag, sc.txRing.map, RING_TO_US);
  for (; txr.used > 0 && txr.slot(txr.cons) !== get; n++) {
    const at = sc.txDesc + txr.slot(txr.cons) * TL_BLOCK_SIZE;
    dmaTxDone(sc, (memView.getInt32(at + TL_B_CMD, true) & TL_CMD_ERR) !== 0);
  }
  return n;
}

/** Writes the loaded buffer's address into a slot. @see bus_dma(9) */
export function tl_rxaim(sc: TlSoftc, slot: number): void {
  memView.setInt32(sc.rxDesc + slot * TL_RXD_SIZE + TL_R_ADDR, sc.segs.addrLo[0]!, true);
}

/**
 * Clears a slot's status for the device; a later write of TL_RXPUT hands the slot over.
 * @see bus_dma(9)
 */
export function tl_rxpost(sc: TlSoftc, slot: number): void {
  memView.setUint32(sc.rxDesc + slot * TL_RXD_SIZE + TL_R_STATUS, 0, true);
}

/** Handles one descriptor that the device has finished. */
function tl_rxdesc(sc: TlSoftc, slot: number): void {
  const at = sc.rxDesc + slot * TL_RXD_SIZE;
  const status = memView.getInt32(at + TL_R_STATUS, true);
  const len = memView.getInt32(at + TL_R_LEN, true);
  sc.rxId = memView.getUint32(at + TL_R_ID, true);
  // With bounce pages this copies the frame into the cluster.
  bus_dmamap_sync(sc.rxTag, sc.rxMap[slot]!, BUS_DMASYNC_POSTREAD);
  if ((status & TL_RXS_ERR) !== 0 || len < ETHER_HDR_LEN || len > TL_RXBUF_SIZE) {
    dmaRxBad(sc, slot);
    return;
  }
  const m = dmaRxTake(sc, slot, len, true);
  if (m === null) return;
  const v4 = (status & TL_RXS_IP4) !== 0;
  const l4Good = (status & (TL_RXS_L4 | TL_RXS_L4BAD)) === TL_RXS_L4;
  m.m_pkthdr.pktId = sc.rxId;
  rxVerdict(sc.ifp, m, v4, (status & TL_RXS_IPBAD) === 0, l4Good);
  rxInput(sc.ifp, m);
}

/**
 * Passes received frames to the stack, at most `limit`, and posts their slots again. Returns
 * whether there may be more.
 * @see ifnet(9)
 */
export function tl_rxeof(sc: TlSoftc, limit: number): boolean {
  const { ifp, rxRing } = sc;
  const get = bus_space_read_4(sc.regs, TL_RXGET);
  bus_dmamap_sync(rxRing.tag, rxRing.map, RING_TO_US);
  let n = 0;
  for (; n < limit && sc.rxNext !== get; n++) {
    const slot = sc.rxNext;
    sc.rxNext = dmaRxAfter(sc, slot);
    tl_rxdesc(sc, slot);
    // The stack may have stopped the interface during input.
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return false;
  }
  if (n > 0) tl_rxput(sc);
  return n === limit;
}

/** Hands all posted buffers to the device. @see ifnet(9) */
export function tl_rxput(sc: TlSoftc): void {
  const { rxRing } = sc;
  bus_dmamap_sync(rxRing.tag, rxRing.map, RING_TO_DEVICE);
  // Keep one slot back, so that a full ring does not look empty.
  bus_space_write_4(sc.regs, TL_RXPUT, (sc.rxNext + TL_RX_NDESC - 1) % TL_RX_NDESC);
}
