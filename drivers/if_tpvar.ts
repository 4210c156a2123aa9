/** The software state of one `tp`, after the if_*var.h of FreeBSD's drivers. */

import type { Task } from '../src/sys/clock.ts';
import type { Errno } from '../src/sys/errno.ts';
import type { Mbuf } from '../src/kern/mbuf.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import { IfStartDriver } from '../src/net/ifq_start.ts';
import type { IfIoctl, Ifnet } from '../src/net/if_var.ts';
import { TP_FRAME_MAX, TP_PAGE_SIZE } from '../src/dev/tp/tpreg.ts';

/** Pages of a transmit buffer, which holds the longest frame. */
export const TP_TXBUF_PAGES = Math.ceil(TP_FRAME_MAX / TP_PAGE_SIZE);
/** The driver fills one while the NIC sends the other. */
export const TP_TXBUFS = 2;
/** First page of the receive ring, after the transmit buffers. */
export const TP_RING_START = TP_TXBUFS * TP_TXBUF_PAGES;

/** The driver's functions, passed to the softc so that it does not import them. */
export interface TpOps {
  init(sc: TpSoftc): Errno;
  start(sc: TpSoftc): void;
  ioctl(sc: TpSoftc, command: IfIoctl, data: number): Errno;
  intr(sc: TpSoftc): void;
}

/** Driver state of one NIC; also its entry points for ifnet and the interrupt. */
export class TpSoftc extends IfStartDriver implements Task {
  readonly ifp: Ifnet;
  readonly regs: MmioRegion;
  readonly intr: IntrVector;
  readonly #ops: TpOps;
  /** A cluster into which the driver copies unmapped mbufs to read them. */
  readonly scratch: Mbuf;
  /** Page after the receive ring. */
  readonly memEnd: number;
  /** First page of the oldest frame in the ring. */
  nextPage = 0;
  // Transmit buffers: `txInuse` hold frames, `txNext` is the one to send, `txFill` the one to fill.
  readonly txLen = new Uint16Array(TP_TXBUFS);
  /** Packet ids, for captures. */
  readonly txId = new Uint32Array(TP_TXBUFS);
  txInuse = 0;
  txNext = 0;
  txFill = 0;
  /** The NIC is sending `txNext`. */
  txBusy = false;

  constructor(
    ifp: Ifnet,
    regs: MmioRegion,
    intr: IntrVector,
    ops: TpOps,
    scratch: Mbuf,
    npages: number,
  ) {
    super();
    this.ifp = ifp;
    this.regs = regs;
    this.intr = intr;
    this.#ops = ops;
    this.scratch = scratch;
    this.memEnd = npages;
  }

  if_init(_ifp: Ifnet): void {
    this.#ops.init(this);
  }

  if_start(_ifp: Ifnet): void {
    this.#ops.start(this);
  }

  if_ioctl(_ifp: Ifnet, command: IfIoctl, data: number): Errno {
    return this.#ops.ioctl(this, command, data);
  }

  /** Handles the interrupt. */
  run(): void {
    this.#ops.intr(this);
  }
}
