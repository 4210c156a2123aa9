/** The software state of one `tb`, after the if_*var.h of FreeBSD's drivers. */

import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import type { Ifnet } from '../src/net/if_var.ts';
import { TB_TX_SEGS } from '../src/dev/tb/tbreg.ts';
import { DmaSoftc, type NicDma, type NicOps } from './dma_softc.ts';

export const TB_TX_NDESC = 512;
export const TB_RX_NDESC = 256;
/** Capacity, in packets, of the queue that fills while the ring is full. */
export const TB_BR_SIZE = 1024;
/** Maximum number of segments of a packet: the hardware's limit. */
export const TB_NSEGS = TB_TX_SEGS;

/** Driver state of one NIC; adds nothing to DmaSoftc. */
export class TbSoftc extends DmaSoftc {
  constructor(ifp: Ifnet, regs: MmioRegion, intr: IntrVector, ops: NicOps, dma: NicDma) {
    super(ifp, regs, intr, ops, dma, { nsegs: TB_NSEGS, brSize: TB_BR_SIZE });
  }
}
