/** The software state of one `tn`, after the if_*var.h of FreeBSD's drivers. */

import type { Mbuf } from '../src/kern/mbuf.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import type { Ifnet } from '../src/net/if_var.ts';
import { TN_TX_SEGS } from '../src/dev/tn/tnreg.ts';
import { DmaSoftc, type NicDma, type NicOps } from './dma_softc.ts';

/**
 * Ring lengths. Short rings keep buffers and descriptors in the CPU's cache. The transmit ring
 * holds about 25 TSO packets of 64 KB, each with 18 pages and a context descriptor.
 */
export const TN_TX_NDESC = 512;
export const TN_RX_NDESC = 64;
/** Capacity, in packets, of the queue that fills while the ring is full. */
export const TN_BR_SIZE = 1024;
/** Maximum number of segments of a packet: the hardware's limit. */
export const TN_NSEGS = TN_TX_SEGS;
/** Bytes of a segment: a power of two that fits the 16-bit length field. */
export const TN_SEGSIZE_MAX = 32768;

/** Driver state of one NIC. */
export class TnSoftc extends DmaSoftc {
  /** TN_CTRL's mode bits for the enabled capabilities; kept while the NIC is stopped. */
  ctrl = 0;
  /** Egress mode `vnet`: packets pass unsegmented and without checksums in both directions. */
  vnet = false;
  /** An mbuf whose data area holds a copy of headers that are not contiguous. */
  readonly scratch: Mbuf;
  // Context descriptor of the packet that tn_encap works on.
  ctxCmd = 0;
  ctxLens = 0;
  ctxMss = 0;
  /** Low word of the bus address of each receive slot's buffer. */
  readonly rxAddrLo: Int32Array = new Int32Array(TN_RX_NDESC);

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
