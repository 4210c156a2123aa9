/** The software state of one `tl`, after the if_*var.h of FreeBSD's drivers. */

import type { Task } from '../src/sys/clock.ts';
import type { Errno } from '../src/sys/errno.ts';
import type { Mbuf } from '../src/kern/mbuf.ts';
import { type BusDmamap, BusDmaSegs, type BusDmaTag } from '../src/bus/bus_dma.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import { Ring } from '../src/bus/ring.ts';
import { BufRing } from '../src/net/buf_ring.ts';
import type { IfDriver, IfIoctl, Ifnet } from '../src/net/if_var.ts';
import { TL_FRAGS } from '../src/dev/tl/tlreg.ts';
import type { DmaRing } from './dma_setup.ts';

/** Transmit blocks, each a whole packet; receive descriptors. */
export const TL_TX_NBLOCKS = 128;
export const TL_RX_NDESC = 128;
/** Packets that wait while the ring is full. */
export const TL_BR_SIZE = 512;
/** Segments of a packet: all the hardware takes. */
export const TL_NSEGS = TL_FRAGS;

/** The driver's functions; the softc is told them, so that it needs no import of them. */
export interface TlOps {
  init(sc: TlSoftc): void;
  transmit(sc: TlSoftc, m: Mbuf): Errno;
  qflush(sc: TlSoftc): void;
  ioctl(sc: TlSoftc, command: IfIoctl, data: number): Errno;
  txflush(sc: TlSoftc): void;
  intr(sc: TlSoftc): void;
}

/** What attach has allocated. */
export interface TlDma {
  readonly txTag: BusDmaTag;
  readonly rxTag: BusDmaTag;
  readonly txRing: DmaRing;
  readonly rxRing: DmaRing;
  /** A map per transmit block. */
  readonly txMap: BusDmamap[];
  /** A map per receive descriptor, and one to spare. */
  readonly rxMap: BusDmamap[];
  readonly scratch: Mbuf;
}

/** Driver state of one NIC; also its entry points for ifnet and the interrupt. */
export class TlSoftc implements IfDriver, Task {
  readonly ifp: Ifnet;
  readonly regs: MmioRegion;
  readonly intr: IntrVector;
  readonly #ops: TlOps;

  /** What the stack is told to use of the device, kept over a stop: TL_CTRL's mode bits. */
  ctrl = 0;

  // DMA
  readonly txTag: BusDmaTag;
  readonly rxTag: BusDmaTag;
  readonly txRing: DmaRing;
  readonly rxRing: DmaRing;
  readonly segs = new BusDmaSegs(TL_NSEGS);

  // Transmit: a packet is a block, and so are its map and its mbuf.
  readonly txr = new Ring(TL_TX_NBLOCKS);
  readonly txMap: BusDmamap[];
  readonly txMbuf: (Mbuf | null)[] = [];
  /** Producer as the device knows it. */
  txRung = 0;
  /** The packet tl_encap had when it failed: collapsing may have replaced it. */
  txHead: Mbuf | null = null;
  /** An mbuf whose data area takes headers that do not lie in one piece. */
  readonly scratch: Mbuf;
  // TL_B_CMD and TL_B_SUM of the packet in tl_encap.
  sumCmd = 0;
  sumWhere = 0;
  readonly br = new BufRing(TL_BR_SIZE);

  // Receive
  readonly rxMap: BusDmamap[];
  rxSpareMap: BusDmamap;
  readonly rxMbuf: (Mbuf | null)[] = [];
  /** Next slot to look at. */
  rxNext = 0;

  constructor(ifp: Ifnet, regs: MmioRegion, intr: IntrVector, ops: TlOps, dma: TlDma) {
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
    this.scratch = dma.scratch;
    for (let i = 0; i < TL_TX_NBLOCKS; i++) this.txMbuf.push(null);
    for (let i = 0; i < TL_RX_NDESC; i++) this.rxMbuf.push(null);
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
