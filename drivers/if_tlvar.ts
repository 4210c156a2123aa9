/** The software state of one `tl`, after the if_*var.h of FreeBSD's drivers. */

import type { Mbuf } from '../src/kern/mbuf.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import type { Ifnet } from '../src/net/if_var.ts';
import { TL_FRAGS } from '../src/dev/tl/tlreg.ts';
import { DmaSoftc, type NicDma, type NicOps } from './dma_softc.ts';

/** Ring lengths: transmit blocks, each for a whole packet, and receive descriptors. */
export const TL_TX_NBLOCKS = 128;
export const TL_RX_NDESC = 128;
/** Capacity, in packets, of the queue that fills while the ring is full. */
export const TL_BR_SIZE = 512;
/** Maximum number of segments of a packet: the hardware's limit. */
export const TL_NSEGS = TL_FRAGS;

/** Driver state of one NIC. */
export class TlSoftc extends DmaSoftc {
  /** TL_CTRL's mode bits for the enabled capabilities; kept while the NIC is stopped. */
  ctrl = 0;
  /** An mbuf whose data area holds a copy of headers that are not contiguous. */
  readonly scratch: Mbuf;
  // TL_B_CMD and TL_B_SUM of the packet that tl_encap works on.
  sumCmd = 0;
  sumWhere = 0;

  constructor(
    ifp: Ifnet,
    regs: MmioRegion,
    intr: IntrVector,
    ops: NicOps,
    dma: NicDma,
    scratch: Mbuf,
  ) {
    super(ifp, regs, intr, ops, dma, { nsegs: TL_NSEGS, brSize: TL_BR_SIZE });
    this.scratch = scratch;
  }
}
