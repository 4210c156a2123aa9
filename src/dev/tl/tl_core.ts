/** The state that the parts of the NIC `tl` share. */

import type { CksumKernel } from '../../sys/cksum.ts';
import { type DmaNicConfig, DmaNicCore, type DmaNicNumbers } from '../blocks/nic_core.ts';
import type { DescRing } from '../blocks/ring_nic.ts';
import {
  TL_INT_LINK,
  TL_INT_MASK,
  TL_INT_RXEMPTY,
  TL_INT_RXERR,
  TL_INT_TXERR,
  TL_NSTATS,
  TL_RING_ALIGN,
  TL_RING_MAX,
  TL_RING_MIN,
  TL_ST_BAD_REG,
  TL_ST_DMA_FAULTS,
  TL_ST_INTERRUPTS,
  TL_ST_RX_BAD,
  TL_ST_RX_FILTERED,
  TL_ST_RX_NODESC,
  TL_ST_RX_OVERSIZE,
  TL_ST_RX_RUNT,
  TL_ST_TX_BAD,
  TL_ST_TX_BYTES,
  TL_ST_TX_FRAMES,
  TL_ST_TX_NO_LINK,
  TL_ST_TX_WIRE_ERROR,
  TL_ST_TX_WIRE_FULL,
} from './tlreg.ts';

/** The environment of the device: a wire without virtio-net headers. */
export interface TlConfig extends DmaNicConfig {
  readonly cksum: CksumKernel;
}

const numbers: DmaNicNumbers = {
  causes: TL_INT_MASK,
  link: TL_INT_LINK,
  nstats: TL_NSTATS,
  txFrames: TL_ST_TX_FRAMES,
  txBytes: TL_ST_TX_BYTES,
  txWireFull: TL_ST_TX_WIRE_FULL,
  txWireError: TL_ST_TX_WIRE_ERROR,
  txNoLink: TL_ST_TX_NO_LINK,
  rxFiltered: TL_ST_RX_FILTERED,
  rxOversize: TL_ST_RX_OVERSIZE,
  rxRunt: TL_ST_RX_RUNT,
  badReg: TL_ST_BAD_REG,
  interrupts: TL_ST_INTERRUPTS,
  dmaFaults: TL_ST_DMA_FAULTS,
  txBad: TL_ST_TX_BAD,
  rxBad: TL_ST_RX_BAD,
  rxNodesc: TL_ST_RX_NODESC,
  txError: TL_INT_TXERR,
  rxError: TL_INT_RXERR,
  rxEmpty: TL_INT_RXEMPTY,
};

/** A ring: its registers. The driver moves the put index, the device the get index. */
export class TlRing implements DescRing {
  /** Signed: V8 would allocate a heap number for an unsigned address above 2^31. */
  base = 0;
  /** Number of entries. */
  size = 0;
  put = 0;
  get = 0;

  get fits(): boolean {
    const { size } = this;
    const inRange = size >= TL_RING_MIN && size <= TL_RING_MAX && (size & (size - 1)) === 0;
    return inRange && this.base % TL_RING_ALIGN === 0;
  }

  advance(): void {
    this.get = (this.get + 1) & (this.size - 1);
  }

  clear(): void {
    this.base = 0;
    this.size = 0;
  }

  rewind(): void {
    this.put = 0;
    this.get = 0;
  }
}

/** Shared state of one device. */
export class TlCore extends DmaNicCore {
  readonly cksum: CksumKernel;
  /** TL_CTRL. */
  ctrl = 0;

  constructor(config: TlConfig) {
    super(config, numbers);
    this.cksum = config.cksum;
  }
}
