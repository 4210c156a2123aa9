/**
 * Functions that all drivers with descriptor rings share, as FreeBSD's drivers share iflib(9): they
 * allocate DMA memory at attach, free it at detach, start and stop the NIC, and handle the
 * interrupt. A driver describes its NIC with NicOps.
 */

import type { Errno } from '../src/sys/errno.ts';
import { count, R_DRV_HW_ERROR } from '../src/sys/reason.ts';
import { m_freem, m_gethdr } from '../src/kern/kern_mbuf.ts';
import { type Mbuf, MCLBYTES, MJUMPAGESIZE, M_WAITOK, MT_DATA } from '../src/kern/mbuf.ts';
import {
  bus_dmamap_sync,
  type BusDmamap,
  type BusDmaTag,
  type BusDmaTagParams,
} from '../src/bus/bus_dma.ts';
import { bus_space_read_4, bus_space_write_4 } from '../src/bus/bus_space.ts';
import { IFF_DRV_OACTIVE, IFF_DRV_RUNNING } from '../src/net/if_var.ts';
import { dmaRxdrain } from './dma_rx.ts';
import { DmaSetup, RING_TO_DEVICE } from './dma_setup.ts';
import type { DmaSoftc, NicDma } from './dma_softc.ts';
import { dmaQflush, dmaTxdrain, dmaTxeof } from './dma_tx.ts';
import { nicDetach, nicLink } from './nic_ifnet.ts';

/** Descriptors that one interrupt handles at most. */
const RX_LIMIT = 64;

/** Sizes of a descriptor ring, and the bus_dma limits of a packet or buffer on it. */
interface DmaRingLayout {
  readonly slots: number;
  readonly slotSize: number;
  readonly maxsize: number;
  readonly nsegments: number;
  readonly maxsegsz: number;
}

/** The bus_dma parameters of a NIC. */
export interface DmaLayout {
  /** Restrictions of the bus. */
  readonly parent: BusDmaTag | null;
  /** Further restrictions of the device; default: none. */
  readonly device?: BusDmaTagParams;
  readonly ringAlign: number;
  readonly tx: DmaRingLayout;
  readonly rx: DmaRingLayout;
}

/**
 * Allocates the rings, tags and maps of the interface `ifname`. Returns null if memory is
 * exhausted; nothing stays allocated then.
 */
export function dmaAlloc(ifname: string, layout: DmaLayout): NicDma | null {
  const setup = new DmaSetup(ifname);
  const { tx, rx, ringAlign: alignment } = layout;
  const parent =
    layout.device === undefined
      ? layout.parent
      : setup.tag('device', { parent: layout.parent, ...layout.device });
  const tag = (what: string, { maxsize, nsegments, maxsegsz }: DmaRingLayout): BusDmaTag =>
    setup.tag(what, { parent, maxsize, nsegments, maxsegsz });
  const txTag = tag('tx', tx);
  const rxTag = tag('rx', rx);
  const txRing = setup.ring('tx ring', tx.slots * tx.slotSize, { parent, alignment });
  const rxRing = setup.ring('rx ring', rx.slots * rx.slotSize, { parent, alignment });
  const txMap: BusDmamap[] = [];
  const rxMap: BusDmamap[] = [];
  const mapped = setup.maps(txTag, tx.slots, txMap) && setup.maps(rxTag, rx.slots + 1, rxMap);
  if (txRing !== null && rxRing !== null && mapped)
    return { setup, txTag, rxTag, txRing, rxRing, txMap, rxMap };
  setup.undo();
  return null;
}

/**
 * Allocates an mbuf that the driver uses until detach. If memory is exhausted, frees `dma` and
 * returns null.
 */
export function dmaScratch({ setup }: NicDma): Mbuf | null {
  const m = m_gethdr(M_WAITOK, MT_DATA);
  if (m === null) setup.undo();
  else setup.add(() => m_freem(m));
  return m;
}

/**
 * Detaches the driver from the interface and frees its DMA memory. The caller has stopped the NIC.
 */
export function dmaDetach(sc: DmaSoftc): void {
  nicDetach(sc);
  sc.setup.undo();
}

/**
 * Marks the interface as running. The caller has filled the rings and written their addresses to
 * the NIC.
 */
export function dmaUp({ ifp, txRing, rxRing }: DmaSoftc): void {
  bus_dmamap_sync(txRing.tag, txRing.map, RING_TO_DEVICE);
  bus_dmamap_sync(rxRing.tag, rxRing.map, RING_TO_DEVICE);
  ifp.if_drv_flags |= IFF_DRV_RUNNING;
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
}

/** Frees all packets and buffers on the rings and in the queue. The caller has stopped the NIC. */
export function dmaDown(sc: DmaSoftc): void {
  sc.ifp.if_drv_flags &= ~(IFF_DRV_RUNNING | IFF_DRV_OACTIVE);
  dmaQflush(sc);
  dmaTxdrain(sc);
  dmaRxdrain(sc);
}

/**
 * Returns the receive buffer size for frames of up to `frameMax` bytes: a cluster if the frame
 * fits, otherwise a page.
 */
export function rxBufSizeFor(frameMax: number): number {
  return frameMax < MCLBYTES ? MCLBYTES : MJUMPAGESIZE;
}

/** Handles a change of if_mtu: writes `reg`, or restarts the NIC if the buffer size changes. */
export function dmaSetFrameMax(sc: DmaSoftc, reg: number, frameMax: number): Errno {
  if (sc.rxBufSize === rxBufSizeFor(frameMax)) {
    bus_space_write_4(sc.regs, reg, frameMax);
    return 0;
  }
  // The buffer size changes, so the rings must be filled again.
  sc.ops.stop(sc);
  return sc.ops.init(sc);
}

/** Reads the link state and reports it to the stack. */
export function dmaLink({ ifp, regs, ops }: DmaSoftc): void {
  nicLink(ifp, (bus_space_read_4(regs, ops.intr.status) & ops.intr.linkUp) !== 0);
}

/** The interrupt handler; runs as a pass of the stack. */
export function dmaIntr(sc: DmaSoftc): void {
  const { ifp, regs, ops } = sc;
  const { intr } = ops;
  const causes = bus_space_read_4(regs, intr.causes);
  bus_space_write_4(regs, intr.causes, causes);
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return;
  if ((causes & intr.link) !== 0) dmaLink(sc);
  if ((causes & intr.errors) !== 0) {
    if ((bus_space_read_4(regs, intr.status) & intr.stopped) !== 0) {
      // The NIC cannot read its rings; a restart would fail in the same way.
      count(R_DRV_HW_ERROR);
      ops.stop(sc);
      return;
    }
  }
  dmaTxeof(sc);
  const more = ops.rxeof(sc, RX_LIMIT);
  // The stack may have stopped the interface during input.
  if (more && (ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0)
    bus_space_write_4(regs, intr.setCauses, intr.rx);
}
