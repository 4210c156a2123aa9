/**
 * Driver for the NIC `tl`: attach and detach, init and stop, interrupt, ioctl, capabilities. The
 * transmit and receive paths are in if_tl_txrx.ts. Left out: a watchdog, media selection.
 */

import { ENOMEM, ENXIO, type Errno } from '../src/sys/errno.ts';
import { count, R_DRV_HW_ERROR } from '../src/sys/reason.ts';
import { m_freem, m_gethdr } from '../src/kern/kern_mbuf.ts';
import {
  CSUM_IP6_TCP,
  CSUM_IP6_UDP,
  CSUM_IP_TCP,
  CSUM_IP_UDP,
  M_WAITOK,
  MT_DATA,
} from '../src/kern/mbuf.ts';
import {
  bus_dmamap_sync,
  BUS_SPACE_MAXADDR_32BIT,
  type BusDmamap,
  type BusDmaTag,
} from '../src/bus/bus_dma.ts';
import { bus_space_read_4, bus_space_write_4 } from '../src/bus/bus_space.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import {
  IFCAP_HWCSUM,
  IFCAP_HWCSUM_IPV6,
  IFCAP_LINKSTATE,
  IFCAP_RXCSUM,
  IFCAP_RXCSUM_IPV6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFCAP_VLAN_MTU,
  IFF_ALLMULTI,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
  IFF_PROMISC,
  type IfIoctl,
  type Ifnet,
} from '../src/net/if_var.ts';
import {
  TL_ADDR0,
  TL_ADDR1,
  TL_BLOCK_SIZE,
  TL_BOUNDARY,
  TL_CTRL,
  TL_CTRL_MULTI,
  TL_CTRL_PROMISC,
  TL_CTRL_RST,
  TL_CTRL_RXE,
  TL_CTRL_RXSUM,
  TL_CTRL_TXE,
  TL_FRAG_MAX,
  TL_FRAME_MAX,
  TL_ID,
  TL_ID_REV1,
  TL_INT_LINK,
  TL_INT_MASK,
  TL_INT_RX,
  TL_INT_RXERR,
  TL_INT_TXERR,
  TL_INTEN,
  TL_INTR,
  TL_INTSET,
  TL_RING_ALIGN,
  TL_RXBASE,
  TL_RXBUF_SIZE,
  TL_RXD_SIZE,
  TL_RXSIZE,
  TL_STATUS,
  TL_STATUS_LINK,
  TL_STATUS_RXHALT,
  TL_STATUS_TXHALT,
  TL_TXBASE,
  TL_TXSIZE,
} from '../src/dev/tl/tlreg.ts';
import { DmaSetup, RING_TO_DEVICE } from './dma_setup.ts';
import { dmaRxdrain, dmaRxfill } from './dma_rx.ts';
import type { NicOps } from './dma_softc.ts';
import { dmaQflush, dmaTxdrain, dmaTxeof } from './dma_tx.ts';

import { TL_NSEGS, TL_RX_NDESC, TL_TX_NBLOCKS, TlSoftc } from './if_tlvar.ts';
import {
  tl_doorbell,
  tl_encap,
  tl_rxaim,
  tl_rxeof,
  tl_rxpost,
  tl_rxput,
  tl_txreap,
} from './if_tl_txrx.ts';
import {
  lladdrHigh,
  lladdrLow,
  nicAttach,
  nicAttached,
  type NicControl,
  nicDetach,
  nicIoctl,
  nicLink,
} from './nic_ifnet.ts';

/** Everything the model can do, in FreeBSD's words; all of it is on after attach. */
export const TL_CAPABILITIES = IFCAP_HWCSUM | IFCAP_HWCSUM_IPV6 | IFCAP_VLAN_MTU | IFCAP_LINKSTATE;

export const TL_MTU_MAX = 1500;
/** Frames one interrupt handles before others get their turn. */
const RX_LIMIT = 64;

/** Allocates everything DMA needs; null if memory is out, or none of it below 4 GiB. */
function makeSoftc(
  setup: DmaSetup,
  ifp: Ifnet,
  regs: MmioRegion,
  bus: BusDmaTag | null,
  intr: IntrVector,
): TlSoftc | null {
  // What holds for all of the device's accesses: 32 address bits, 16 of which count.
  const parent = setup.tag('device', {
    parent: bus,
    lowaddr: BUS_SPACE_MAXADDR_32BIT,
    boundary: TL_BOUNDARY,
    maxsize: TL_BOUNDARY,
    nsegments: TL_NSEGS,
    maxsegsz: TL_BOUNDARY,
  });
  const txTag = setup.tag('tx', {
    parent,
    maxsize: TL_FRAME_MAX,
    nsegments: TL_NSEGS,
    maxsegsz: TL_FRAG_MAX,
  });
  const rxTag = setup.tag('rx', {
    parent,
    maxsize: TL_RXBUF_SIZE,
    nsegments: 1,
    maxsegsz: TL_RXBUF_SIZE,
  });
  const align = { parent, alignment: TL_RING_ALIGN };
  const txRing = setup.ring('tx ring', TL_TX_NBLOCKS * TL_BLOCK_SIZE, align);
  const rxRing = setup.ring('rx ring', TL_RX_NDESC * TL_RXD_SIZE, align);
  const scratch = m_gethdr(M_WAITOK, MT_DATA);
  if (scratch !== null) setup.add(() => m_freem(scratch));
  if (txRing === null || rxRing === null || scratch === null) return null;
  const txMap: BusDmamap[] = [];
  const rxMap: BusDmamap[] = [];
  if (!setup.maps(txTag, TL_TX_NBLOCKS, txMap)) return null;
  if (!setup.maps(rxTag, TL_RX_NDESC + 1, rxMap)) return null;
  const dma = { setup, txTag, rxTag, txRing, rxRing, txMap, rxMap };
  return new TlSoftc(ifp, regs, intr, tlOps, dma, scratch);
}

/**
 * Attaches the driver to the NIC at `regs` as interface `ifp`, whose address becomes the NIC's.
 * `bus` restricts DMA as the bus does. ENXIO: there is no `tl`; ENOMEM: no memory for rings that the
 * NIC reaches.
 * @see ether_ifattach(9)
 */
export function tl_attach(
  ifp: Ifnet,
  regs: MmioRegion,
  bus: BusDmaTag | null,
  intr: IntrVector,
): Errno {
  if (bus_space_read_4(regs, TL_ID) !== TL_ID_REV1) return ENXIO;
  bus_space_write_4(regs, TL_CTRL, TL_CTRL_RST);
  const setup = new DmaSetup(ifp.if_xname);
  const sc = makeSoftc(setup, ifp, regs, bus, intr);
  if (sc === null) {
    setup.undo();
    return ENOMEM;
  }
  nicAttach(ifp, sc, TL_CAPABILITIES);
  ifp.if_baudrate = 100e6;
  ifp.if_media = '100baseTX <full-duplex>';
  tl_capsync(sc);
  nicAttached(sc, bus_space_read_4(regs, TL_ADDR0), bus_space_read_4(regs, TL_ADDR1));
  tl_link(sc);
  return 0;
}

/** Stops the NIC, gives every buffer back and takes the driver off `ifp`. @see ether_ifdetach(9) */
export function tl_detach(ifp: Ifnet): Errno {
  const sc = ifp.if_softc;
  if (!(sc instanceof TlSoftc)) return ENXIO;
  tl_stop(sc);
  bus_space_write_4(sc.regs, TL_CTRL, TL_CTRL_RST);
  nicDetach(sc);
  sc.setup.undo();
  return 0;
}

/** Mode bits from flags and capabilities; written to the NIC if it runs. */
function tl_set_modes(sc: TlSoftc): void {
  const { if_flags, if_capenable, if_drv_flags, if_multiaddrs } = sc.ifp;
  let ctrl = 0;
  if ((if_flags & IFF_PROMISC) !== 0) ctrl |= TL_CTRL_PROMISC;
  // The NIC has no filter for single groups: it takes in all of them or none.
  if ((if_flags & IFF_ALLMULTI) !== 0 || if_multiaddrs.length > 0) ctrl |= TL_CTRL_MULTI;
  if ((if_capenable & (IFCAP_RXCSUM | IFCAP_RXCSUM_IPV6)) !== 0) ctrl |= TL_CTRL_RXSUM;
  sc.ctrl = ctrl;
  if ((if_drv_flags & IFF_DRV_RUNNING) !== 0)
    bus_space_write_4(sc.regs, TL_CTRL, ctrl | TL_CTRL_RXE | TL_CTRL_TXE);
}

/** The CSUM_* that the enabled capabilities stand for. The IP header is the stack's to sum. */
function tl_capsync(sc: TlSoftc): void {
  const { ifp } = sc;
  let assist = 0;
  if ((ifp.if_capenable & IFCAP_TXCSUM) !== 0) assist |= CSUM_IP_TCP | CSUM_IP_UDP;
  if ((ifp.if_capenable & IFCAP_TXCSUM_IPV6) !== 0) assist |= CSUM_IP6_TCP | CSUM_IP6_UDP;
  ifp.if_hwassist = assist;
  tl_set_modes(sc);
}

/**
 * Brings the NIC up: rings, buffers, filter, interrupts. Nothing if it runs. ENOBUFS: there are too
 * few clusters or bounce pages; it stays down.
 * @see ifnet(9)
 */
export function tl_init(sc: TlSoftc): Errno {
  const { ifp, regs } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) return 0;
  bus_space_write_4(regs, TL_CTRL, TL_CTRL_RST);
  const error = dmaRxfill(sc, TL_RXBUF_SIZE);
  if (error !== 0) return error;
  bus_space_write_4(regs, TL_ADDR0, lladdrLow(ifp.if_lladdr));
  bus_space_write_4(regs, TL_ADDR1, lladdrHigh(ifp.if_lladdr));
  bus_space_write_4(regs, TL_TXBASE, sc.txRing.busAddr);
  bus_space_write_4(regs, TL_TXSIZE, TL_TX_NBLOCKS);
  bus_space_write_4(regs, TL_RXBASE, sc.rxRing.busAddr);
  bus_space_write_4(regs, TL_RXSIZE, TL_RX_NDESC);
  bus_dmamap_sync(sc.txRing.tag, sc.txRing.map, RING_TO_DEVICE);
  bus_dmamap_sync(sc.rxRing.tag, sc.rxRing.map, RING_TO_DEVICE);
  ifp.if_drv_flags |= IFF_DRV_RUNNING;
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
  tl_set_modes(sc);
  tl_link(sc);
  bus_space_write_4(regs, TL_INTR, TL_INT_MASK);
  bus_space_write_4(regs, TL_INTEN, TL_INT_MASK);
  // Reading starts here.
  tl_rxput(sc);
  return 0;
}

/** Takes the NIC down and frees what is on its rings and in its queue. @see ifnet(9) */
export function tl_stop(sc: TlSoftc): void {
  const { ifp, regs } = sc;
  bus_space_write_4(regs, TL_INTEN, 0);
  bus_space_write_4(regs, TL_CTRL, sc.ctrl);
  ifp.if_drv_flags &= ~(IFF_DRV_RUNNING | IFF_DRV_OACTIVE);
  dmaQflush(sc);
  dmaTxdrain(sc);
  dmaRxdrain(sc);
}

/** Reads the link's state. */
function tl_link(sc: TlSoftc): void {
  nicLink(sc.ifp, (bus_space_read_4(sc.regs, TL_STATUS) & TL_STATUS_LINK) !== 0);
}

/** The interrupt handler; runs as a pass of the stack. @see bus_setup_intr(9) */
export function tl_intr(sc: TlSoftc): void {
  const { ifp, regs } = sc;
  const causes = bus_space_read_4(regs, TL_INTR);
  bus_space_write_4(regs, TL_INTR, causes);
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return;
  if ((causes & TL_INT_LINK) !== 0) tl_link(sc);
  if ((causes & (TL_INT_TXERR | TL_INT_RXERR)) !== 0) {
    const status = bus_space_read_4(regs, TL_STATUS);
    if ((status & (TL_STATUS_TXHALT | TL_STATUS_RXHALT)) !== 0) {
      // The NIC cannot reach its rings: starting it again would end the same way.
      count(R_DRV_HW_ERROR);
      tl_stop(sc);
      return;
    }
  }
  dmaTxeof(sc);
  const more = tl_rxeof(sc, RX_LIMIT);
  // The stack may have taken the interface down meanwhile.
  if (more && (ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0)
    bus_space_write_4(regs, TL_INTSET, TL_INT_RX);
}

const tlControl: NicControl<TlSoftc> = {
  mtuMax: TL_MTU_MAX,
  init: tl_init,
  stop: tl_stop,
  setmodes: tl_set_modes,
  setmulti: tl_set_modes,
  // Buffers and filter are made for the longest frame anyway.
  setmtu: () => 0,
  capsync: tl_capsync,
};

/** @see ifnet(9) */
export function tl_ioctl(sc: TlSoftc, command: IfIoctl, data: number): Errno {
  return nicIoctl(sc, tlControl, command, data);
}

const tlOps: NicOps = {
  init: (sc: TlSoftc) => void tl_init(sc),
  ioctl: tl_ioctl,
  intr: tl_intr,
  encap: tl_encap,
  doorbell: tl_doorbell,
  txreap: tl_txreap,
  rxaim: tl_rxaim,
  rxpost: tl_rxpost,
};
