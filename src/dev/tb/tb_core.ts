/** The state that the parts of the NIC `tb` share. */

import { type DmaNicConfig, DmaNicCore, type DmaNicNumbers } from '../blocks/nic_core.ts';
import type { DescRing } from '../blocks/ring_nic.ts';
import {
  TB_INT_LINK,
  TB_INT_MASK,
  TB_INT_RXEMPTY,
  TB_INT_RXERR,
  TB_INT_TXERR,
  TB_NDESC_MAX,
  TB_NDESC_MIN,
  TB_NSTATS,
  TB_RING_ALIGN,
  TB_ST_BAD_REG,
  TB_ST_DMA_FAULTS,
  TB_ST_INTERRUPTS,
  TB_ST_RX_BAD,
  TB_ST_RX_FILTERED,
  TB_ST_RX_NODESC,
  TB_ST_RX_OVERSIZE,
  TB_ST_RX_RUNT,
  TB_ST_TX_BAD,
  TB_ST_TX_BYTES,
  TB_ST_TX_FRAMES,
  TB_ST_TX_NO_LINK,
  TB_ST_TX_WIRE_ERROR,
  TB_ST_TX_WIRE_FULL,
} from './tbreg.ts';

/** The environment of the device: a wire without virtio-net headers. */
export type TbConfig = DmaNicConfig;

const numbers: DmaNicNumbers = {
  causes: TB_INT_MASK,
  link: TB_INT_LINK,
  nstats: TB_NSTATS,
  txFrames: TB_ST_TX_FRAMES,
  txBytes: TB_ST_TX_BYTES,
  txWireFull: TB_ST_TX_WIRE_FULL,
  txWireError: TB_ST_TX_WIRE_ERROR,
  txNoLink: TB_ST_TX_NO_LINK,
  rxFiltered: TB_ST_RX_FILTERED,
  rxOversize: TB_ST_RX_OVERSIZE,
  rxRunt: TB_ST_RX_RUNT,
  badReg: TB_ST_BAD_REG,
  interrupts: TB_ST_INTERRUPTS,
  dmaFaults: TB_ST_DMA_FAULTS,
  txBad: TB_ST_TX_BAD,
  rxBad: TB_ST_RX_BAD,
  rxNodesc: TB_ST_RX_NODESC,
  txError: TB_INT_TXERR,
  rxError: TB_INT_RXERR,
  rxEmpty: TB_INT_RXEMPTY,
};

/** A descriptor ring: its registers, and the device's position in it. */
export class TbRing implements DescRing {
  /** Signed: V8 would allocate a heap number for an unsigned half above 2^31. */
  baseLo = 0;
  baseHi = 0;
  /** Number of descriptors. */
  count = 0;
  pos = 0;

  get fits(): boolean {
    const { count, baseLo } = this;
    return count >= TB_NDESC_MIN && count <= TB_NDESC_MAX && baseLo % TB_RING_ALIGN === 0;
  }

  next(slot: number): number {
    return slot + 1 === this.count ? 0 : slot + 1;
  }

  rewind(): void {
    this.pos = 0;
  }

  clear(): void {
    this.baseLo = 0;
    this.baseHi = 0;
    this.count = 0;
  }
}

/** Shared state of one device. */
export class TbCore extends DmaNicCore {
  constructor(config: TbConfig) {
    super(config, numbers);
  }
}
