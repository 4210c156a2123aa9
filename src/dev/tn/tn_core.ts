/**
 * The state that the parts of the NIC `tn` share: modes, interrupt moderation, the layout of
 * on-board memory.
 */

import type { CksumKernel } from '../../sys/cksum.ts';
import type { Task } from '../../sys/clock.ts';
import { type DmaNicConfig, DmaNicCore, type DmaNicNumbers } from '../blocks/nic_core.ts';
import type { DescRing } from '../blocks/ring_nic.ts';
import {
  TN_CTRL_ALLMULTI,
  TN_CTRL_LRO,
  TN_CTRL_PROMISC,
  TN_CTRL_RXCSUM,
  TN_CTRL_RXCSUM6,
  TN_CTRL_VLSTRIP,
  TN_DESC_SIZE,
  TN_INT_LSC,
  TN_INT_MASK,
  TN_INT_RXERR,
  TN_INT_RXO,
  TN_INT_TXERR,
  TN_NDESC_MAX,
  TN_NSTATS,
  TN_RING_ALIGN,
  TN_ST_BAD_REG,
  TN_ST_DMA_FAULTS,
  TN_ST_INTERRUPTS,
  TN_ST_RX_BAD,
  TN_ST_RX_FILTERED,
  TN_ST_RX_NODESC,
  TN_ST_RX_OVERSIZE,
  TN_ST_RX_RUNT,
  TN_ST_TX_BAD,
  TN_ST_TX_BYTES,
  TN_ST_TX_FRAMES,
  TN_ST_TX_NO_LINK,
  TN_ST_TX_WIRE_ERROR,
  TN_ST_TX_WIRE_FULL,
} from './tnreg.ts';

/**
 * Egress mode. `wire` sends finished frames; `vnet` leaves checksums and segmentation to the peer.
 */
export type TnMode = 'wire' | 'vnet';

/** A timer for interrupt moderation: runs `event` once at `deadlineNs`. */
interface TnTimer {
  schedule(deadlineNs: number, event: Task): void;
}

/** The environment of the device. `vnetHdr` of the wire must be true exactly in mode `vnet`. */
export interface TnConfig extends DmaNicConfig {
  readonly cksum: CksumKernel;
  readonly mode: TnMode;
  /** Without a timer TN_ITR reads 0 and accepts only 0. */
  readonly timer?: TnTimer | null;
}

const numbers: DmaNicNumbers = {
  causes: TN_INT_MASK,
  link: TN_INT_LSC,
  nstats: TN_NSTATS,
  txFrames: TN_ST_TX_FRAMES,
  txBytes: TN_ST_TX_BYTES,
  txWireFull: TN_ST_TX_WIRE_FULL,
  txWireError: TN_ST_TX_WIRE_ERROR,
  txNoLink: TN_ST_TX_NO_LINK,
  rxFiltered: TN_ST_RX_FILTERED,
  rxOversize: TN_ST_RX_OVERSIZE,
  rxRunt: TN_ST_RX_RUNT,
  badReg: TN_ST_BAD_REG,
  interrupts: TN_ST_INTERRUPTS,
  dmaFaults: TN_ST_DMA_FAULTS,
  txBad: TN_ST_TX_BAD,
  rxBad: TN_ST_RX_BAD,
  rxNodesc: TN_ST_RX_NODESC,
  txError: TN_INT_TXERR,
  rxError: TN_INT_RXERR,
  rxEmpty: TN_INT_RXO,
};

/**
 * Offsets in on-board memory: transmit virtio-net header, transmit headers, padding, receive
 * virtio-net header.
 */
export const SRAM_TX_VNET = 4;
export const SRAM_TX_HDR = 16;
export const SRAM_ZERO = 512;
export const SRAM_RX_VNET = 1024;
/** Headers of a frame being coalesced, and of the current segment. */
export const SRAM_RX_LRO = 1280;
export const SRAM_RX_SEG = 1408;
/** The payload of a frame with a checksum: TN_FRAME_MAX bytes. */
export const SRAM_TX_FIFO = 4096;

/** A ring: its registers. The driver moves the tail, the device the head. */
export class TnRing implements DescRing {
  /** Signed: V8 would allocate a heap number for an unsigned half above 2^31. */
  baseLo = 0;
  baseHi = 0;
  /** Length in bytes. */
  len = 0;
  head = 0;
  tail = 0;
  /** Number of descriptors; valid while the engine runs. */
  ndesc = 0;

  get fits(): boolean {
    const { len, baseLo, ndesc } = this;
    const aligned = len % TN_RING_ALIGN === 0 && baseLo % TN_RING_ALIGN === 0;
    return len > 0 && aligned && ndesc <= TN_NDESC_MAX;
  }

  /** Number of descriptors from head to tail. */
  get used(): number {
    const n = this.tail - this.head;
    return n >= 0 ? n : n + this.ndesc;
  }

  next(slot: number): number {
    return slot + 1 === this.ndesc ? 0 : slot + 1;
  }

  rewind(): void {
    this.head = 0;
    this.tail = 0;
    this.ndesc = this.len / TN_DESC_SIZE;
  }

  clear(): void {
    this.baseLo = 0;
    this.baseHi = 0;
    this.len = 0;
  }
}

/** Shared state of one device. Implements the delayed interrupt of TN_ITR as a task. */
export class TnCore extends DmaNicCore implements Task {
  readonly cksum: CksumKernel;
  readonly vnet: boolean;
  readonly timer: TnTimer | null;
  /** TN_CTRL's mode bits, decoded for the engines. */
  promisc = false;
  allmulti = false;
  vlStrip = false;
  rxCsum4 = false;
  rxCsum6 = false;
  /** Receive coalescing is enabled and possible. */
  lro = false;
  /** TN_ITR, in µs. */
  itr = 0;
  #lastIntrNs = -Infinity;
  #timerArmed = false;

  constructor(config: TnConfig) {
    super(config, numbers);
    this.cksum = config.cksum;
    this.vnet = config.mode === 'vnet';
    this.timer = config.timer ?? null;
  }

  /** Decodes TN_CTRL's mode bits. */
  setModes(ctrl: number): void {
    this.promisc = (ctrl & TN_CTRL_PROMISC) !== 0;
    this.allmulti = (ctrl & TN_CTRL_ALLMULTI) !== 0;
    this.vlStrip = (ctrl & TN_CTRL_VLSTRIP) !== 0;
    this.rxCsum4 = (ctrl & TN_CTRL_RXCSUM) !== 0;
    this.rxCsum6 = (ctrl & TN_CTRL_RXCSUM6) !== 0;
    // Without a verdict no frame can be coalesced.
    this.lro = (ctrl & TN_CTRL_LRO) !== 0 && !this.vnet;
  }

  /** Updates the line, but delays an interrupt that TN_ITR does not allow yet. */
  override updateLine(): void {
    if ((this.causes & this.mask) === 0 || !this.#early()) super.updateLine();
  }

  #early(): boolean {
    if (this.itr === 0 || this.timer === null) return false;
    const dueNs = this.#lastIntrNs + this.itr * 1000;
    if (this.clock.nowNs() >= dueNs) {
      this.#lastIntrNs = this.clock.nowNs();
      return false;
    }
    if (!this.#timerArmed) {
      this.#timerArmed = true;
      this.timer.schedule(dueNs, this);
    }
    return true;
  }

  /** Raises the interrupt that TN_ITR delayed. */
  run(): void {
    this.#timerArmed = false;
    this.updateLine();
  }
}
