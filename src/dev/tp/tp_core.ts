/** The state that the parts of the NIC `tp` share. */

import { type NicConfig, NicCore, type NicNumbers } from '../blocks/nic_core.ts';
import {
  TP_INT_LSC,
  TP_INT_MASK,
  TP_NSTATS,
  TP_ST_BAD_REG,
  TP_ST_INTERRUPTS,
  TP_ST_RX_FILTERED,
  TP_ST_RX_OVERSIZE,
  TP_ST_RX_RUNT,
  TP_ST_TX_BYTES,
  TP_ST_TX_FRAMES,
  TP_ST_TX_NO_LINK,
  TP_ST_TX_WIRE_ERROR,
  TP_ST_TX_WIRE_FULL,
} from './tpreg.ts';

/** The environment of the device: a wire without virtio-net headers, no access to host memory. */
export type TpConfig = NicConfig;

const numbers: NicNumbers = {
  causes: TP_INT_MASK,
  link: TP_INT_LSC,
  nstats: TP_NSTATS,
  txFrames: TP_ST_TX_FRAMES,
  txBytes: TP_ST_TX_BYTES,
  txWireFull: TP_ST_TX_WIRE_FULL,
  txWireError: TP_ST_TX_WIRE_ERROR,
  txNoLink: TP_ST_TX_NO_LINK,
  rxFiltered: TP_ST_RX_FILTERED,
  rxOversize: TP_ST_RX_OVERSIZE,
  rxRunt: TP_ST_RX_RUNT,
  badReg: TP_ST_BAD_REG,
  interrupts: TP_ST_INTERRUPTS,
};

/** Shared state of one device. */
export class TpCore extends NicCore {
  constructor(config: TpConfig) {
    super(config, numbers);
  }
}
