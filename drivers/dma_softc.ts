/**
 * The software state that drivers with descriptor rings share, as iflib(9) keeps it for FreeBSD's
 * drivers: rings, maps, mbufs and waiting packets. dma_tx.ts and dma_rx.ts use it. Each driver
 * extends it with the state of its own hardware and describes the hardware with `NicOps`.
 */

import type { Task } from '../src/sys/clock.ts';
import type { Errno } from '../src/sys/errno.ts';
import type { Kva } from '../src/sys/types.ts';
import type { Mbuf } from '../src/kern/mbuf.ts';
import { type BusDmamap, BusDmaSegs, type BusDmaTag } from '../src/bus/bus_dma.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import { Ring } from '../src/bus/ring.ts';
import { BufRing } from '../src/net/buf_ring.ts';
import type { IfDriver, IfIoctl, Ifnet } from '../src/net/if_var.ts';
import { dmaIntr } from './dma_nic.ts';
import type { DmaRing, DmaSetup } from './dma_setup.ts';
import { dmaQflush, dmaTransmit, dmaTxflush } from './dma_tx.ts';
import { type NicControl, nicIoctl } from './nic_ifnet.ts';

/** Interrupt and status registers of a NIC, and the bits in them. */
interface NicIntr {
  /** The causes; writing them acknowledges. */
  readonly causes: number;
  /** Bits written here are set as causes. */
  readonly setCauses: number;
  /** Causes: the link changed; an engine found an error; frames were received. */
  readonly link: number;
  readonly errors: number;
  readonly rx: number;
  /** The status register, and its bits: the link is up; an engine stopped until the next init. */
  readonly status: number;
  readonly linkUp: number;
  readonly stopped: number;
}

/** The hardware-specific functions of a driver. `sc` is the driver's own softc. */
export interface NicOps extends NicControl<DmaSoftc> {
  readonly intr: NicIntr;
  /**
   * Puts `m` on the transmit ring. On 0 the ring owns the packet; on any error the caller owns
   * `sc.txHead`. ENOMEM: no room now, try again later; any other error: the packet cannot be sent.
   */
  encap(sc: DmaSoftc, m: Mbuf): Errno;
  /** Rings the doorbell: the device may send all packets up to the ring's producer. */
  doorbell(sc: DmaSoftc): void;
  /** Calls dmaTxDone for each packet that the device has finished; returns how many. */
  txreap(sc: DmaSoftc): number;
  /** Passes received frames to the stack, at most `limit` descriptors. True: there may be more. */
  rxeof(sc: DmaSoftc, limit: number): boolean;
  /** Writes the address of the buffer that was loaded last, `sc.segs`, into a receive slot. */
  rxaim(sc: DmaSoftc, slot: number): void;
  /** Hands a receive slot to the device with its current buffer, which the caller has synced. */
  rxpost(sc: DmaSoftc, slot: number): void;
}

/** The DMA resources that attach allocated. */
export interface NicDma {
  /** Frees all of them. */
  readonly setup: DmaSetup;
  readonly txTag: BusDmaTag;
  readonly rxTag: BusDmaTag;
  readonly txRing: DmaRing;
  readonly rxRing: DmaRing;
  /** As many maps as transmit slots. */
  readonly txMap: BusDmamap[];
  /** One map per receive slot, and a spare map. */
  readonly rxMap: BusDmamap[];
}

/** Sizes that the driver chooses. */
interface NicSizes {
  /** Maximum number of segments of a packet. */
  readonly nsegs: number;
  /** Capacity, in packets, of the queue that fills while the ring is full. */
  readonly brSize: number;
}

/** Driver state of one NIC; also its entry points for ifnet and the interrupt. */
export class DmaSoftc implements IfDriver, Task {
  readonly ifp: Ifnet;
  readonly regs: MmioRegion;
  readonly intr: IntrVector;
  readonly ops: NicOps;
  readonly setup: DmaSetup;

  // DMA
  readonly txTag: BusDmaTag;
  readonly rxTag: BusDmaTag;
  readonly txRing: DmaRing;
  readonly rxRing: DmaRing;
  readonly segs: BusDmaSegs;

  // Transmit: maps, mbufs and slot counts are kept at a packet's first slot.
  readonly txr: Ring;
  readonly txMap: (BusDmamap | null)[] = [];
  /**
   * The maps of no packet. The last one is used next. It was used last, so the CPU's cache has it;
   * a map of each slot would come from further away.
   */
  readonly txFree: BusDmamap[];
  readonly txMbuf: (Mbuf | null)[] = [];
  readonly txNdesc: Uint16Array;
  /** The ring's producer at the last doorbell. */
  txRung = 0;
  /** Bytes of the packets queued since then. */
  txPending = 0;
  /** The packet that encap works on: its argument, or the copy that replaced it. */
  txHead: Mbuf | null = null;
  readonly br: BufRing;

  // Receive
  /** Slots of the ring. */
  readonly rxNdesc: number;
  readonly rxMap: BusDmamap[];
  /**
   * A new buffer is loaded into this map first: if the load fails, the slot keeps its old buffer.
   */
  rxSpareMap: BusDmamap;
  readonly rxMbuf: (Mbuf | null)[] = [];
  /** The buffers' addresses, so that a copy of a frame does not read the mbuf. */
  readonly rxData: Float64Array;
  /** Bytes of a receive buffer. */
  rxBufSize = 0;
  /** So many bytes in a buffer are copied, and the buffer is posted again. */
  rxCopyMax = 0;
  /** Next slot to read. */
  rxNext = 0;
  /** A partly received frame; `rxDiscard`: drop the rest of it. */
  rxHead: Mbuf | null = null;
  rxTail: Mbuf | null = null;
  rxDiscard = false;
  /** The id of the frame being received, for captures; 0: unknown. */
  rxId = 0;

  constructor(
    ifp: Ifnet,
    regs: MmioRegion,
    intr: IntrVector,
    ops: NicOps,
    dma: NicDma,
    sizes: NicSizes,
  ) {
    this.ifp = ifp;
    this.regs = regs;
    this.intr = intr;
    this.ops = ops;
    this.setup = dma.setup;
    this.txTag = dma.txTag;
    this.rxTag = dma.rxTag;
    this.txRing = dma.txRing;
    this.rxRing = dma.rxRing;
    this.segs = new BusDmaSegs(sizes.nsegs);
    this.txr = new Ring(dma.txMap.length);
    this.txFree = dma.txMap.toReversed();
    this.txNdesc = new Uint16Array(dma.txMap.length);
    this.br = new BufRing(sizes.brSize);
    this.rxMap = dma.rxMap;
    this.rxSpareMap = dma.rxMap.pop()!;
    this.rxNdesc = dma.rxMap.length;
    this.rxData = new Float64Array(this.rxNdesc);
    for (let i = 0; i < dma.txMap.length; i++) {
      this.txMap.push(null);
      this.txMbuf.push(null);
    }
    for (let i = 0; i < this.rxNdesc; i++) this.rxMbuf.push(null);
  }

  /** Addresses of the rings in the arena. */
  get txDesc(): Kva {
    return this.txRing.vaddr;
  }

  get rxDesc(): Kva {
    return this.rxRing.vaddr;
  }

  if_init(_ifp: Ifnet): void {
    this.ops.init(this);
  }

  if_transmit(_ifp: Ifnet, m: Mbuf): Errno {
    return dmaTransmit(this, m);
  }

  if_qflush(_ifp: Ifnet): void {
    dmaQflush(this);
  }

  if_ioctl(_ifp: Ifnet, command: IfIoctl, data: number): Errno {
    return nicIoctl(this, this.ops, command, data);
  }

  if_txflush(_ifp: Ifnet): void {
    dmaTxflush(this);
  }

  /** Handles the interrupt. */
  run(): void {
    dmaIntr(this);
  }
}
