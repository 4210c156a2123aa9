/** The software state of one `tn`, after the if_*var.h of FreeBSD's drivers. */

import type { Mbuf } from '../src/kern/mbuf.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import type { Ifnet } from '../src/net/if_var.ts';
import { TN_TX_SEGS } from '../src/dev/tn/tnreg.ts';
import { DmaSoftc, type NicDma, type NicOps } from './dma_softc.ts';

/**
 * Ring lengths. Small ones keep buffers and descriptors in the cache; the transmit ring holds some
 * twenty-five 64 KB TSO packets of 18 pages and a context each.
 */
export const TN_TX_NDESC = 512;
export const TN_RX_NDESC = 256;
/** Packets that wait while the ring is full. */
export const TN_BR_SIZE = 1024;
/** Segments of a packet: all the hardware takes. */
export const TN_NSEGS = TN_TX_SEGS;
/** Bytes of a segment: a power of two that the 16-bit length field holds. */
export const TN_SEGSIZE_MAX = 32768;

/** Driver state of one NIC. */
export class TnSoftc extends DmaSoftc {
  /** TN_CTRL's mode bits for the enabled capabilities; kept while the NIC is stopped. */
  ctrl = 0;
  /** Egress mode `vnet`: segmentation and checksums are left out in both directions. */
  vnet = false;
  /** An mbuf whose data area holds a copy of headers that are not contiguous. */
  readonly scratch: Mbuf;
  // The context of the packet in tn_encap.
  ctxCmd = 0;
  ctxLens = 0;
  ctxMss = 0;

  constructor(
    ifp: Ifnet,
    regs: MmioRegion,
    intr: IntrVector,
    ops: NicOps,
    dma: NicDma,
    scratch: Mbuf,
  ) {
    super(ifp, regs, intr, ops, dma, { nsegs: TN_NSEGS, brSize: TN_BR_SIZE });
    this.scratch = scratch;
  }
}
