/** What the parts of the NIC `tn` share: the way to memory and wire, causes, statistics. */

import type { CaptureTap } from '../../sys/capture.ts';
import type { CksumKernel } from '../../sys/cksum.ts';
import type { Clock, Task } from '../../sys/clock.ts';
import type { Wire } from '../../sys/wire.ts';
import type { DmaPort, IntrLine } from '../../bus/device.ts';
import {
  TN_CTRL_ALLMULTI,
  TN_CTRL_LRO,
  TN_CTRL_PROMISC,
  TN_CTRL_RXCSUM,
  TN_CTRL_VLSTRIP,
  TN_INT_LSC,
  TN_INT_MASK,
  TN_NSTATS,
  TN_ST_INTERRUPTS,
} from './tnreg.ts';

/** Egress mode: `wire` sends finished frames, `vnet` leaves checksums and segmenting to the peer. */
export type TnMode = 'wire' | 'vnet';

/** A timer for interrupt moderation: runs `event` once at `deadlineNs`. */
export interface TnTimer {
  schedule(deadlineNs: number, event: Task): void;
}

/** What the device is built into. */
export interface TnConfig {
  readonly dma: DmaPort;
  readonly intr: IntrLine;
  /** `vnetHdr` of it must be true exactly in mode `vnet`. */
  readonly wire: Wire;
  readonly cksum: CksumKernel;
  readonly clock: Clock;
  /** The whole arena; the device reaches it only where `dma` lets it, and in its own memory. */
  readonly mem: Uint8Array;
  readonly view: DataView;
  /** Arena offset of TN_SRAM_SIZE bytes that are the device's own. */
  readonly sramOff: number;
  readonly mode: TnMode;
  /** Address it has at power-on, 6 bytes. */
  readonly mac: Uint8Array;
  /** The `wire` capture point. */
  readonly capture?: CaptureTap | null;
  /** Without one TN_ITR reads 0 and takes nothing else. */
  readonly timer?: TnTimer | null;
}

/** Offsets in the on-board memory: transmit's virtio-net header and headers, padding, receive's. */
export const SRAM_TX_VNET = 4;
export const SRAM_TX_HDR = 16;
export const SRAM_ZERO = 512;
export const SRAM_RX_VNET = 1024;
/** Headers of a frame being coalesced, and of the segment looked at. */
export const SRAM_RX_LRO = 1280;
export const SRAM_RX_SEG = 1408;

/** Bytes of a virtio-net header with num_buffers, VIRTIO 1.1, 5.1.6. */
export const VNET_HDR_LEN = 12;
export const VNET_F_NEEDS_CSUM = 1;
export const VNET_F_DATA_VALID = 2;
export const VNET_GSO_NONE = 0;
export const VNET_GSO_TCPV4 = 1;
export const VNET_GSO_TCPV6 = 4;
export const VNET_GSO_ECN = 0x80;

/** Folds a sum of 16-bit words to 16 bits, RFC 1071. `n` is below 2^32. */
export function fold16(n: number): number {
  n = (n & 0xffff) + (n >>> 16);
  return (n & 0xffff) + (n >>> 16);
}

/** Shared state of one device. Implements the delayed interrupt of TN_ITR as a task. */
export class TnCore implements Task {
  readonly dma: DmaPort;
  readonly wire: Wire;
  readonly cksum: CksumKernel;
  readonly clock: Clock;
  readonly mem: Uint8Array;
  readonly view: DataView;
  readonly sramOff: number;
  readonly vnet: boolean;
  readonly capture: CaptureTap | null;
  readonly timer: TnTimer | null;
  readonly stats = new Float64Array(TN_NSTATS);
  linkUp = true;
  /** TN_CTRL's modes, spread out for the engines. */
  promisc = false;
  allmulti = false;
  vlStrip = false;
  rxCsum = false;
  /** Receive coalescing: asked for, and possible. */
  lro = false;
  icr = 0;
  ims = 0;
  /** TN_ITR, µs. */
  itr = 0;
  readonly #intr: IntrLine;
  #asserted = false;
  #lastIntrNs = -Infinity;
  #timerArmed = false;

  constructor(config: TnConfig) {
    this.dma = config.dma;
    this.wire = config.wire;
    this.cksum = config.cksum;
    this.clock = config.clock;
    this.mem = config.mem;
    this.view = config.view;
    this.sramOff = config.sramOff;
    this.vnet = config.mode === 'vnet';
    this.capture = config.capture ?? null;
    this.timer = config.timer ?? null;
    this.#intr = config.intr;
  }

  /** Spreads TN_CTRL's mode bits. */
  setModes(ctrl: number): void {
    this.promisc = (ctrl & TN_CTRL_PROMISC) !== 0;
    this.allmulti = (ctrl & TN_CTRL_ALLMULTI) !== 0;
    this.vlStrip = (ctrl & TN_CTRL_VLSTRIP) !== 0;
    this.rxCsum = (ctrl & TN_CTRL_RXCSUM) !== 0;
    this.lro = (ctrl & TN_CTRL_LRO) !== 0 && this.rxCsum && !this.vnet;
  }

  /** Sets causes and, if one of them is unmasked, raises the line. */
  cause(bits: number): void {
    this.icr |= bits & TN_INT_MASK;
    if ((bits & this.ims) !== 0) this.updateLine();
  }

  /** The link went up or down. */
  setLink(up: boolean): void {
    if (this.linkUp === up) return;
    this.linkUp = up;
    this.cause(TN_INT_LSC);
  }

  /** Brings the line in step with causes and mask; a level that stays high is raised again. */
  updateLine(): void {
    if ((this.icr & this.ims) === 0) {
      this.#asserted = false;
      return;
    }
    if (this.itr > 0 && this.timer !== null) {
      const dueNs = this.#lastIntrNs + this.itr * 1000;
      if (this.clock.nowNs() < dueNs) {
        if (this.#timerArmed) return;
        this.#timerArmed = true;
        this.timer.schedule(dueNs, this);
        return;
      }
      this.#lastIntrNs = this.clock.nowNs();
    }
    if (!this.#asserted) this.stats[TN_ST_INTERRUPTS]! += 1;
    this.#asserted = true;
    this.#intr.raise();
  }

  /** The interrupt that TN_ITR held back is due. */
  run(): void {
    this.#timerArmed = false;
    this.updateLine();
  }
}
