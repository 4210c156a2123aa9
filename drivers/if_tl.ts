/**
 * Driver for the NIC `tl`: attach and detach, init and stop, capabilities. The transmit and receive
 * paths are in if_tl_txrx.ts. Left out: a watchdog, media selection.
 */

import { ENOMEM, ENXIO, type Errno } from '../src/sys/errno.ts';
import { CSUM_IP6_TCP, CSUM_IP6_UDP, CSUM_IP_TCP, CSUM_IP_UDP } from '../src/kern/mbuf.ts';
import { BUS_SPACE_MAXADDR_32BIT, type BusDmaTag } from '../src/bus/bus_dma.ts';
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
  IFF_DRV_RUNNING,
  IFF_PROMISC,
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
import {
  dmaAlloc,
  dmaDetach,
  dmaDown,
  type DmaLayout,
  dmaLink,
  dmaScratch,
  dmaUp,
} from './dma_nic.ts';
import { dmaRxfill } from './dma_rx.ts';
import type { NicOps } from './dma_softc.ts';
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
import { lladdrHigh, lladdrLow, nicAttach, nicAttached } from './nic_ifnet.ts';

/** Capabilities of the model; all are enabled after attach. */
export const TL_CAPABILITIES = IFCAP_HWCSUM | IFCAP_HWCSUM_IPV6 | IFCAP_VLAN_MTU | IFCAP_LINKSTATE;

export const TL_MTU_MAX = 1500;

/** The DMA resources of the driver. `parent` holds the restrictions of the bus. */
function layout(parent: BusDmaTag | null): DmaLayout {
  return {
    parent,
    // Addresses have 32 bits, and the NIC's address counter has 16: no segment may cross a multiple
    // of 64 KB.
    device: {
      lowaddr: BUS_SPACE_MAXADDR_32BIT,
      boundary: TL_BOUNDARY,
      maxsize: TL_BOUNDARY,
      nsegments: TL_NSEGS,
      maxsegsz: TL_BOUNDARY,
    },
    ringAlign: TL_RING_ALIGN,
    tx: {
      slots: TL_TX_NBLOCKS,
      slotSize: TL_BLOCK_SIZE,
      maxsize: TL_FRAME_MAX,
      nsegments: TL_NSEGS,
      maxsegsz: TL_FRAG_MAX,
    },
    rx: {
      slots: TL_RX_NDESC,
      slotSize: TL_RXD_SIZE,
      maxsize: TL_RXBUF_SIZE,
      nsegments: 1,
      maxsegsz: TL_RXBUF_SIZE,
    },
  };
}

/**
 * Attaches the driver to the NIC at `regs` as interface `ifp`, which gets the NIC's MAC address.
 * `parent` holds the restrictions of the bus. ENXIO: no `tl` is at `regs`; ENOMEM: no memory within
 * the NIC's reach for rings.
 * @see ether_ifattach(9)
 */
export function tl_attach(
  ifp: Ifnet,
  regs: MmioRegion,
  parent: BusDmaTag | null,
  intr: IntrVector,
): Errno {
  if (bus_space_read_4(regs, TL_ID) !== TL_ID_REV1) return ENXIO;
  bus_space_write_4(regs, TL_CTRL, TL_CTRL_RST);
  const dma = dmaAlloc(ifp.if_xname, layout(parent));
  const scratch = dma === null ? null : dmaScratch(dma);
  if (dma === null || scratch === null) return ENOMEM;
  const sc = new TlSoftc(ifp, regs, intr, tlOps, dma, scratch);
  nicAttach(ifp, sc, TL_CAPABILITIES);
  ifp.if_baudrate = 100e6;
  ifp.if_media = '100baseTX <full-duplex>';
  tl_capsync(sc);
  nicAttached(sc, bus_space_read_4(regs, TL_ADDR0), bus_space_read_4(regs, TL_ADDR1));
  dmaLink(sc);
  return 0;
}

/** Stops the NIC, frees every buffer and detaches the driver from `ifp`. @see ether_ifdetach(9) */
export function tl_detach(ifp: Ifnet): Errno {
  const sc = ifp.if_softc;
  if (!(sc instanceof TlSoftc)) return ENXIO;
  tl_stop(sc);
  bus_space_write_4(sc.regs, TL_CTRL, TL_CTRL_RST);
  dmaDetach(sc);
  return 0;
}

/** Computes the mode bits from flags and capabilities, and writes them to the NIC if it runs. */
function tl_set_modes(sc: TlSoftc): void {
  const { if_flags, if_capenable, if_drv_flags, if_multiaddrs } = sc.ifp;
  let ctrl = 0;
  if ((if_flags & IFF_PROMISC) !== 0) ctrl |= TL_CTRL_PROMISC;
  // The NIC has no filter for single groups: it receives all of them or none.
  if ((if_flags & IFF_ALLMULTI) !== 0 || if_multiaddrs.length > 0) ctrl |= TL_CTRL_MULTI;
  if ((if_capenable & (IFCAP_RXCSUM | IFCAP_RXCSUM_IPV6)) !== 0) ctrl |= TL_CTRL_RXSUM;
  sc.ctrl = ctrl;
  if ((if_drv_flags & IFF_DRV_RUNNING) !== 0)
    bus_space_write_4(sc.regs, TL_CTRL, ctrl | TL_CTRL_RXE | TL_CTRL_TXE);
}

/** Sets if_hwassist from the enabled capabilities. The stack computes the IP header checksum. */
function tl_capsync(sc: TlSoftc): void {
  const { ifp } = sc;
  let assist = 0;
  if ((ifp.if_capenable & IFCAP_TXCSUM) !== 0) assist |= CSUM_IP_TCP | CSUM_IP_UDP;
  if ((ifp.if_capenable & IFCAP_TXCSUM_IPV6) !== 0) assist |= CSUM_IP6_TCP | CSUM_IP6_UDP;
  ifp.if_hwassist = assist;
  tl_set_modes(sc);
}

/**
 * Starts the NIC: rings, buffers, filter, interrupts. Does nothing if it runs. ENOBUFS: not enough
 * clusters or bounce pages; the NIC stays down.
 * @see ifnet(9)
 */
function tl_init(sc: TlSoftc): Errno {
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
  dmaUp(sc);
  tl_set_modes(sc);
  dmaLink(sc);
  bus_space_write_4(regs, TL_INTR, TL_INT_MASK);
  bus_space_write_4(regs, TL_INTEN, TL_INT_MASK);
  // This starts reception.
  tl_rxput(sc);
  return 0;
}

/** Stops the NIC and frees the packets and buffers on its rings and in its queue. @see ifnet(9) */
function tl_stop(sc: TlSoftc): void {
  const { regs } = sc;
  bus_space_write_4(regs, TL_INTEN, 0);
  bus_space_write_4(regs, TL_CTRL, sc.ctrl);
  dmaDown(sc);
}

const tlOps: NicOps = {
  mtuMax: TL_MTU_MAX,
  intr: {
    causes: TL_INTR,
    setCauses: TL_INTSET,
    link: TL_INT_LINK,
    errors: TL_INT_TXERR | TL_INT_RXERR,
    rx: TL_INT_RX,
    status: TL_STATUS,
    linkUp: TL_STATUS_LINK,
    stopped: TL_STATUS_TXHALT | TL_STATUS_RXHALT,
  },
  init: tl_init,
  stop: tl_stop,
  setmodes: tl_set_modes,
  setmulti: tl_set_modes,
  // Nothing depends on the MTU: buffers and filter always accept the longest frame.
  setmtu: () => 0,
  capsync: tl_capsync,
  encap: tl_encap,
  doorbell: tl_doorbell,
  txreap: tl_txreap,
  rxeof: tl_rxeof,
  rxaim: tl_rxaim,
  rxpost: tl_rxpost,
};
