/** The software state of one `tb`, after the if_*var.h of FreeBSD's drivers. */

import type { Task } from '../src/sys/clock.ts';
import type { Errno } from '../src/sys/errno.ts';
import type { Mbuf } from '../src/kern/mbuf.ts';
import { type BusDmamap, BusDmaSegs, type BusDmaTag } from '../src/bus/bus_dma.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import { Ring } from '../src/bus/ring.ts';
import { BufRing } from '../src/net/buf_ring.ts';
import type { IfDriver, IfIoctl, Ifnet } from '../src/net/if_var.ts';
import { TB_TX_SEGS } from '../src/dev/tb/tbreg.ts';
import type { DmaRing } from './dma_setup.ts';

export const TB_TX_NDESC = 512;
export const TB_RX_NDESC = 256;
/** Packets that wait while the ring is full. */
export const TB_BR_SIZE = 1024;
/** Segments of a packet: all the hardware takes. */
export const TB_NSEGS = TB_TX_SEGS;

/** The driver's functions; the softc is told them, so that it needs no import of them. */
export interface TbOps {
  init(sc: TbSoftc): void;
  transmit(sc: TbSoftc, m: Mbuf): Errno;
  qflush(sc: TbSoftc): void;
  ioctl(sc: TbSoftc, command: IfIoctl, data: number): Errno;
  txflush(sc: TbSoftc): void;
  intr(sc: TbSoftc): void;
}

/** What attach has allocated. */
export interface TbDma {
  readonly txTag: BusDmaTag;
  readonly rxTag: BusDmaTag;
  readonly txRing: DmaRing;
  readonly rxRing: DmaRing;
  /** A map per transmit descriptor. */
  readonly txMap: BusDmamap[];
  /** A map per receive descriptor, and one to spare. */
  readonly rxMap: BusDmamap[];
}

/** Driver state of one NIC; also its entry points for ifnet and the interrupt. */
export class TbSoftc implements IfDriver, Task {
  readonly ifp: Ifnet;
  readonly regs: MmioRegion;
  readonly intr: IntrVector;
  readonly #ops: TbOps;

  // DMA
  readonly txTag: BusDmaTag;
  readonly rxTag: BusDmaTag;
  readonly txRing: DmaRing;
  readonly rxRing: DmaRing;
  readonly segs = new BusDmaSegs(TB_NSEGS);

  // Transmit: maps, mbufs and descriptor counts are kept at a packet's first slot.
  readonly txr = new Ring(TB_TX_NDESC);
  readonly txMap: BusDmamap[];
  readonly txMbuf: (Mbuf | null)[] = [];
  readonly txNdesc = new Uint16Array(TB_TX_NDESC);
  /** Something is on the ring that the device has not been told of. */
  txUnrung = false;
  /** The packet tb_encap had when it failed: collapsing may have replaced it. */
  txHead: Mbuf | null = null;
  readonly br = new BufRing(TB_BR_SIZE);

  // Receive
  readonly rxMap: BusDmamap[];
  rxSpareMap: BusDmamap;
  readonly rxMbuf: (Mbuf | null)[] = [];
  /** Bytes of a receive buffer. */
  rxBufSize = 0;
  /** Next slot to look at. */
  rxNext = 0;
  /** A frame of several buffers under way; `rxDiscard`: the rest of it is to be thrown away. */
  rxHead: Mbuf | null = null;
  rxTail: Mbuf | null = null;
  rxDiscard = false;

  constructor(ifp: Ifnet, regs: MmioRegion, intr: IntrVector, ops: TbOps, dma: TbDma) {
    this.ifp = ifp;
    this.regs = regs;
    this.intr = intr;
    this.#ops = ops;
    this.txTag = dma.txTag;
    this.rxTag = dma.rxTag;
    this.txRing = dma.txRing;
    this.rxRing = dma.rxRing;
    this.txMap = dma.txMap;
    this.rxMap = dma.rxMap;
    this.rxSpareMap = dma.rxMap.pop()!;
    for (let i = 0; i < TB_TX_NDESC; i++) this.txMbuf.push(null);
    for (let i = 0; i < TB_RX_NDESC; i++) this.rxMbuf.push(null);
  }

  if_init(_ifp: Ifnet): void {
    this.#ops.init(this);
  }

  if_transmit(_ifp: Ifnet, m: Mbuf): Errno {
    return this.#ops.transmit(this, m);
  }

  if_qflush(_ifp: Ifnet): void {
    this.#ops.qflush(this);
  }

  if_ioctl(_ifp: Ifnet, command: IfIoctl, data: number): Errno {
    return this.#ops.ioctl(this, command, data);
  }

  if_txflush(_ifp: Ifnet): void {
    this.#ops.txflush(this);
  }

  /** The interrupt. */
  run(): void {
    this.#ops.intr(this);
  }
}
