/** The software state of one `tn`, after the if_*var.h of FreeBSD's drivers. */

import type { Task } from '../src/sys/clock.ts';
import type { Errno } from '../src/sys/errno.ts';
import type { Kva } from '../src/sys/types.ts';
import type { Mbuf } from '../src/kern/mbuf.ts';
import { BusDmaSegs } from '../src/bus/bus_dma.ts';
import type { BusDmamap, BusDmamem, BusDmaTag } from '../src/bus/bus_dma.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import { Ring } from '../src/bus/ring.ts';
import type { IfDriver, IfIoctl, Ifnet } from '../src/net/if_var.ts';
import { TN_TX_SEGS } from '../src/dev/tn/tnreg.ts';

/**
 * Ring lengths. Small ones keep buffers and descriptors in the cache; the transmit ring holds some
 * twenty-five 64 KB TSO packets of 18 pages and a context each.
 */
export const TN_TX_NDESC = 512;
export const TN_RX_NDESC = 256;
/** Packets that wait while the ring is full. */
export const TN_BR_SIZE = 1024;
/** Segments of a packet: all the hardware takes. */
export const TN_NSEGS = TN_TX_SEGS;
/** Bytes of a segment: a power of two that the 16-bit length field holds. */
export const TN_SEGSIZE_MAX = 32768;

/** The driver's functions; the softc is told them, so that it needs no import of them. */
export interface TnOps {
  init(sc: TnSoftc): void;
  transmit(sc: TnSoftc, m: Mbuf): Errno;
  qflush(sc: TnSoftc): void;
  ioctl(sc: TnSoftc, command: IfIoctl, data: number): Errno;
  txflush(sc: TnSoftc): void;
  intr(sc: TnSoftc): void;
}

/** Driver state of one NIC; also its entry points for ifnet and the interrupt. */
export class TnSoftc implements IfDriver, Task {
  readonly ifp: Ifnet;
  readonly regs: MmioRegion;
  readonly intr: IntrVector;
  readonly #ops: TnOps;
  /** What the stack is told to use of the device, kept over a stop: TN_CTRL's mode bits. */
  ctrl = 0;
  /** Egress mode `vnet`: the peer neither segments nor sums for us, nor we for it. */
  vnet = false;

  // DMA
  readonly txTag: BusDmaTag;
  readonly rxTag: BusDmaTag;
  readonly txRingTag: BusDmaTag;
  readonly rxRingTag: BusDmaTag;
  readonly txRing: BusDmamem;
  readonly rxRing: BusDmamem;
  /** One segment each: where the device finds them. */
  readonly txRingAddr: BusDmaSegs;
  readonly rxRingAddr: BusDmaSegs;
  readonly segs = new BusDmaSegs(TN_NSEGS);

  // Transmit: maps, mbufs and descriptor counts are kept at a packet's first slot.
  readonly txr = new Ring(TN_TX_NDESC);
  readonly txMap: BusDmamap[] = [];
  readonly txMbuf: (Mbuf | null)[] = [];
  readonly txNdesc = new Uint16Array(TN_TX_NDESC);
  /** Producer as the device knows it. */
  txRung = 0;
  /** The packet tn_encap had when it failed: collapsing may have replaced it. */
  txHead: Mbuf | null = null;
  /** An mbuf whose data area takes headers that do not lie in one piece. */
  readonly scratch: Mbuf;
  // The context of the packet in tn_encap.
  ctxCmd = 0;
  ctxLens = 0;
  ctxMss = 0;

  // Packets waiting for room on the ring; a ring of its own.
  readonly br: (Mbuf | null)[] = [];
  readonly brRing = new Ring(TN_BR_SIZE);

  // Receive
  readonly rxMap: BusDmamap[] = [];
  /** Loaded first when a slot gets a new buffer, so that the old one stays if that fails. */
  rxSpareMap!: BusDmamap;
  readonly rxMbuf: (Mbuf | null)[] = [];
  /** Bytes of a receive buffer. */
  rxBufSize = 0;
  /** Next slot to look at. */
  rxNext = 0;
  /** A frame of several buffers under way; `rxDiscard`: the rest of it is to be thrown away. */
  rxHead: Mbuf | null = null;
  rxTail: Mbuf | null = null;
  rxDiscard = false;

  constructor(
    ifp: Ifnet,
    regs: MmioRegion,
    intr: IntrVector,
    ops: TnOps,
    dma: {
      txTag: BusDmaTag;
      rxTag: BusDmaTag;
      txRingTag: BusDmaTag;
      rxRingTag: BusDmaTag;
      txRing: BusDmamem;
      rxRing: BusDmamem;
      txAddr: BusDmaSegs;
      rxAddr: BusDmaSegs;
      scratch: Mbuf;
    },
  ) {
    this.ifp = ifp;
    this.regs = regs;
    this.intr = intr;
    this.#ops = ops;
    this.txTag = dma.txTag;
    this.rxTag = dma.rxTag;
    this.txRingTag = dma.txRingTag;
    this.rxRingTag = dma.rxRingTag;
    this.txRing = dma.txRing;
    this.rxRing = dma.rxRing;
    this.txRingAddr = dma.txAddr;
    this.rxRingAddr = dma.rxAddr;
    this.scratch = dma.scratch;
    for (let i = 0; i < TN_BR_SIZE; i++) this.br.push(null);
  }

  get txDesc(): Kva {
    return this.txRing.vaddr;
  }

  get rxDesc(): Kva {
    return this.rxRing.vaddr;
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
