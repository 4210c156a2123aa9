/** What the parts of the NIC `tb` share. */

import type { DmaPort } from '../../bus/device.ts';
import { type DmaNicConfig, NicCore, type NicNumbers } from '../blocks/nic_core.ts';
import {
  TB_INT_LINK,
  TB_INT_MASK,
  TB_NSTATS,
  TB_ST_BAD_REG,
  TB_ST_INTERRUPTS,
  TB_ST_RX_FILTERED,
  TB_ST_RX_OVERSIZE,
  TB_ST_RX_RUNT,
  TB_ST_TX_BYTES,
  TB_ST_TX_FRAMES,
  TB_ST_TX_NO_LINK,
  TB_ST_TX_WIRE_ERROR,
  TB_ST_TX_WIRE_FULL,
} from './tbreg.ts';

/** What the device is built into; a wire without virtio-net headers. */
export type TbConfig = DmaNicConfig;

const numbers: NicNumbers = {
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
};

/** A descriptor ring as its registers have it, and where the device is in it. */
export class TbRing {
  baseLo = 0;
  baseHi = 0;
  /** Descriptors. */
  count = 0;
  pos = 0;

  next(slot: number): number {
    return slot + 1 === this.count ? 0 : slot + 1;
  }
}

/** Shared state of one device. */
export class TbCore extends NicCore {
  readonly dma: DmaPort;

  constructor(config: TbConfig) {
    super(config, numbers);
    this.dma = config.dma;
  }
}
