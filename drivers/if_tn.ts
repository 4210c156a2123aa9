/**
 * Driver for the NIC `tn`: attach and detach, init and stop, capabilities. The transmit and receive
 * paths are in tn_txrx.ts. Left out: a watchdog (a wire may stall for a long time), media
 * selection.
 */

import { ENOMEM, ENXIO, type Errno } from '../src/sys/errno.ts';
import {
  CSUM_IP,
  CSUM_IP6_TCP,
  CSUM_IP6_TSO,
  CSUM_IP6_UDP,
  CSUM_IP_TCP,
  CSUM_IP_TSO,
  CSUM_IP_UDP,
  MJUM16BYTES,
} from '../src/kern/mbuf.ts';
import type { BusDmaTag } from '../src/bus/bus_dma.ts';
import { bus_space_read_4, bus_space_write_4 } from '../src/bus/bus_space.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import { ether_crc32_be } from '../src/net/ether_crc.ts';
import {
  IFCAP_HWCSUM,
  IFCAP_HWCSUM_IPV6,
  IFCAP_JUMBO_MTU,
  IFCAP_LINKSTATE,
  IFCAP_LRO,
  IFCAP_NOMAP,
  IFCAP_RXCSUM,
  IFCAP_RXCSUM_IPV6,
  IFCAP_TSO,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFCAP_VLAN_HWCSUM,
  IFCAP_VLAN_HWTAGGING,
  IFCAP_VLAN_HWTSO,
  IFCAP_VLAN_MTU,
  IFF_ALLMULTI,
  IFF_DRV_RUNNING,
  IFF_PROMISC,
  type Ifnet,
} from '../src/net/if_var.ts';
import {
  TN_CTRL,
  TN_CTRL_ALLMULTI,
  TN_CTRL_LRO,
  TN_CTRL_PROMISC,
  TN_CTRL_RST,
  TN_CTRL_RXCSUM,
  TN_CTRL_RXCSUM6,
  TN_CTRL_RXE,
  TN_CTRL_TXE,
  TN_CTRL_VLSTRIP,
  TN_DESC_SIZE,
  TN_FEAT_LRO,
  TN_FEATURES,
  TN_ICR,
  TN_ICS,
  TN_ID,
  TN_ID_REV1,
  TN_IMC,
  TN_IMS,
  TN_INT_LSC,
  TN_INT_MASK,
  TN_INT_RXDW,
  TN_INT_RXERR,
  TN_INT_RXO,
  TN_INT_TXDW,
  TN_INT_TXERR,
  TN_MACH,
  TN_MACL,
  TN_MAXFRM,
  TN_MAXFRM_MAX,
  TN_MTA0,
  TN_MTA1,
  TN_RDBAH,
  TN_RDBAL,
  TN_RDLEN,
  TN_RDT,
  TN_RING_ALIGN,
  TN_RXBSZ,
  TN_STATUS,
  TN_STATUS_LU,
  TN_STATUS_RXSTOP,
  TN_STATUS_TXSTOP,
  TN_STATUS_VNET,
  TN_TDBAH,
  TN_TDBAL,
  TN_TDLEN,
  TN_TSO_MAX,
} from '../src/dev/tn/tnreg.ts';
import {
  dmaAlloc,
  dmaDetach,
  dmaDown,
  type DmaLayout,
  dmaLink,
  dmaScratch,
  dmaSetFrameMax,
  dmaUp,
  rxBufSizeFor,
} from './dma_nic.ts';
import { writeRingBase } from './dma_setup.ts';
import { dmaRxfill } from './dma_rx.ts';
import type { NicOps } from './dma_softc.ts';
import { TN_NSEGS, TN_RX_NDESC, TN_SEGSIZE_MAX, TN_TX_NDESC, TnSoftc } from './if_tnvar.ts';
import { lladdrHigh, lladdrLow, multicastHash, nicAttach, nicAttached } from './nic_ifnet.ts';
import { tn_doorbell, tn_encap, tn_rxaim, tn_rxeof, tn_rxpost, tn_txreap } from './tn_txrx.ts';

/**
 * Capabilities of the model; all are enabled after attach. LRO is absent in egress mode `vnet`,
 * because the peer already sends unsegmented packets.
 */
export const TN_CAPABILITIES =
  IFCAP_HWCSUM |
  IFCAP_HWCSUM_IPV6 |
  IFCAP_VLAN_MTU |
  IFCAP_VLAN_HWTAGGING |
  IFCAP_VLAN_HWCSUM |
  IFCAP_VLAN_HWTSO |
  IFCAP_JUMBO_MTU |
  IFCAP_TSO |
  IFCAP_LRO |
  IFCAP_LINKSTATE |
  IFCAP_NOMAP;

const MTU_MAX = 9000;
/** Ethernet header and one VLAN tag. */
const FRAME_OVERHEAD = 18;
/** Largest IP packet that stays below 64 KB with its Ethernet and VLAN headers. */
const TSO_MAX = 65518;
/** Header and padding mbufs that the stack does not count among a TSO packet's segments. */
const TSO_SEGS_RESERVED = 2;
const INTERRUPTS =
  TN_INT_TXDW | TN_INT_RXDW | TN_INT_LSC | TN_INT_RXO | TN_INT_TXERR | TN_INT_RXERR;

/** The DMA resources of the driver. `parent` holds the restrictions of the bus. */
function layout(parent: BusDmaTag | null): DmaLayout {
  return {
    parent,
    ringAlign: TN_RING_ALIGN,
    tx: {
      slots: TN_TX_NDESC,
      slotSize: TN_DESC_SIZE,
      maxsize: TN_TSO_MAX,
      nsegments: TN_NSEGS,
      maxsegsz: TN_SEGSIZE_MAX,
    },
    rx: {
      slots: TN_RX_NDESC,
      slotSize: TN_DESC_SIZE,
      maxsize: MJUM16BYTES,
      nsegments: 1,
      maxsegsz: MJUM16BYTES,
    },
  };
}

/**
 * Attaches the driver to the NIC at `regs` as interface `ifp`, which gets the NIC's MAC address.
 * `parent` holds the restrictions of the bus. ENXIO: no `tn` is at `regs`; ENOMEM: no memory for
 * rings, maps or bounce pages.
 * @see ether_ifattach(9)
 */
export function tn_attach(
  ifp: Ifnet,
  regs: MmioRegion,
  parent: BusDmaTag | null,
  intr: IntrVector,
): Errno {
  if (bus_space_read_4(regs, TN_ID) !== TN_ID_REV1) return ENXIO;
  bus_space_write_4(regs, TN_CTRL, TN_CTRL_RST);
  const dma = dmaAlloc(ifp.if_xname, layout(parent));
  const scratch = dma === null ? null : dmaScratch(dma);
  if (dma === null || scratch === null) return ENOMEM;
  const sc = new TnSoftc(ifp, regs, intr, tnOps, dma, scratch);
  sc.vnet = (bus_space_read_4(regs, TN_STATUS) & TN_STATUS_VNET) !== 0;
  const canLro = (bus_space_read_4(regs, TN_FEATURES) & TN_FEAT_LRO) !== 0;
  nicAttach(ifp, sc, canLro ? TN_CAPABILITIES : TN_CAPABILITIES & ~IFCAP_LRO);
  ifp.if_hw_tsomax = TSO_MAX;
  ifp.if_hw_tsomaxsegcount = TN_NSEGS - TSO_SEGS_RESERVED;
  ifp.if_hw_tsomaxsegsize = TN_SEGSIZE_MAX;
  ifp.if_baudrate = 10e9;
  ifp.if_media = '10Gbase-T <full-duplex>';
  tn_capsync(sc);
  nicAttached(sc, bus_space_read_4(regs, TN_MACL), bus_space_read_4(regs, TN_MACH));
  dmaLink(sc);
  return 0;
}

/** Stops the NIC, frees every buffer and detaches the driver from `ifp`. @see ether_ifdetach(9) */
export function tn_detach(ifp: Ifnet): Errno {
  const sc = ifp.if_softc;
  if (!(sc instanceof TnSoftc)) return ENXIO;
  tn_stop(sc);
  bus_space_write_4(sc.regs, TN_CTRL, TN_CTRL_RST);
  dmaDetach(sc);
  return 0;
}

function writeCtrl(sc: TnSoftc, enable: number): void {
  bus_space_write_4(sc.regs, TN_CTRL, sc.ctrl | enable);
}

/** Computes the mode bits from flags and capabilities, and writes them to the NIC if it runs. */
function tn_set_modes(sc: TnSoftc): void {
  const { ifp } = sc;
  const { if_flags, if_capenable } = ifp;
  let ctrl = 0;
  if ((if_flags & IFF_PROMISC) !== 0) ctrl |= TN_CTRL_PROMISC;
  if ((if_flags & IFF_ALLMULTI) !== 0) ctrl |= TN_CTRL_ALLMULTI;
  if ((if_capenable & IFCAP_VLAN_HWTAGGING) !== 0) ctrl |= TN_CTRL_VLSTRIP;
  if ((if_capenable & IFCAP_RXCSUM) !== 0) ctrl |= TN_CTRL_RXCSUM;
  if ((if_capenable & IFCAP_RXCSUM_IPV6) !== 0) ctrl |= TN_CTRL_RXCSUM6;
  // Coalescing needs verified checksums: without them the bit has no effect.
  if ((if_capenable & IFCAP_LRO) !== 0) ctrl |= TN_CTRL_LRO;
  sc.ctrl = ctrl;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) writeCtrl(sc, TN_CTRL_RXE | TN_CTRL_TXE);
}

/** Programs the multicast filter from the interface's groups. */
function tn_set_multi(sc: TnSoftc): void {
  const [low, high] = multicastHash(sc.ifp, (lladdr) => ether_crc32_be(lladdr) >>> 26);
  bus_space_write_4(sc.regs, TN_MTA0, low!);
  bus_space_write_4(sc.regs, TN_MTA1, high!);
}

/** Sets if_hwassist from the enabled capabilities; IFCAP_NOMAP has no CSUM_* bit. */
function tn_capsync(sc: TnSoftc): void {
  const { ifp } = sc;
  const cap = ifp.if_capenable;
  let assist = 0;
  if ((cap & IFCAP_TXCSUM) !== 0) assist |= CSUM_IP | CSUM_IP_TCP | CSUM_IP_UDP;
  if ((cap & IFCAP_TXCSUM_IPV6) !== 0) assist |= CSUM_IP6_TCP | CSUM_IP6_UDP;
  if ((cap & IFCAP_TSO4) !== 0) assist |= CSUM_IP_TSO;
  if ((cap & IFCAP_TSO6) !== 0) assist |= CSUM_IP6_TSO;
  ifp.if_hwassist = assist;
  tn_set_modes(sc);
}

/**
 * The longest frame to receive. In egress mode `vnet` the peer sends TCP packets of up to 64 KB
 * unsegmented, regardless of the MTU.
 */
function frameMaxOf(sc: TnSoftc): number {
  return sc.vnet ? TN_MAXFRM_MAX : sc.ifp.if_mtu + FRAME_OVERHEAD;
}

/**
 * Fills the receive ring with 16 KB buffers, so that a coalesced frame is a short chain; with those
 * for the longest frame if there are too few. ENOBUFS: not enough of those either.
 */
function tn_rxfill(sc: TnSoftc): Errno {
  if (dmaRxfill(sc, MJUM16BYTES) === 0) return 0;
  return dmaRxfill(sc, rxBufSizeFor(frameMaxOf(sc)));
}

/** Handles a change of if_mtu. Every frame fits 16 KB buffers. */
function tn_setmtu(sc: TnSoftc): Errno {
  if (sc.rxBufSize !== MJUM16BYTES) return dmaSetFrameMax(sc, TN_MAXFRM, frameMaxOf(sc));
  bus_space_write_4(sc.regs, TN_MAXFRM, frameMaxOf(sc));
  return 0;
}

/**
 * Starts the NIC: rings, buffers, filter, interrupts. Does nothing if it runs. ENOBUFS: not enough
 * clusters; the NIC stays down.
 * @see ifnet(9)
 */
function tn_init(sc: TnSoftc): Errno {
  const { ifp, regs } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) return 0;
  bus_space_write_4(regs, TN_CTRL, TN_CTRL_RST);
  const error = tn_rxfill(sc);
  if (error !== 0) return error;
  bus_space_write_4(regs, TN_MACL, lladdrLow(ifp.if_lladdr));
  bus_space_write_4(regs, TN_MACH, lladdrHigh(ifp.if_lladdr));
  writeRingBase(regs, TN_TDBAL, TN_TDBAH, sc.txRing.busAddr);
  bus_space_write_4(regs, TN_TDLEN, TN_TX_NDESC * TN_DESC_SIZE);
  writeRingBase(regs, TN_RDBAL, TN_RDBAH, sc.rxRing.busAddr);
  bus_space_write_4(regs, TN_RDLEN, TN_RX_NDESC * TN_DESC_SIZE);
  bus_space_write_4(regs, TN_RXBSZ, sc.rxBufSize);
  bus_space_write_4(regs, TN_MAXFRM, frameMaxOf(sc));
  dmaUp(sc);
  tn_set_modes(sc);
  tn_set_multi(sc);
  dmaLink(sc);
  bus_space_write_4(regs, TN_ICR, TN_INT_MASK);
  bus_space_write_4(regs, TN_IMS, INTERRUPTS);
  // Keep the last slot back, so that a full ring does not look empty. This starts reception.
  bus_space_write_4(regs, TN_RDT, TN_RX_NDESC - 1);
  return 0;
}

/** Stops the NIC and frees the packets and buffers on its rings and in its queue. @see ifnet(9) */
export function tn_stop(sc: TnSoftc): void {
  const { regs } = sc;
  bus_space_write_4(regs, TN_IMC, TN_INT_MASK);
  writeCtrl(sc, 0);
  dmaDown(sc);
}

const tnOps: NicOps = {
  mtuMax: MTU_MAX,
  intr: {
    causes: TN_ICR,
    setCauses: TN_ICS,
    link: TN_INT_LSC,
    errors: TN_INT_TXERR | TN_INT_RXERR,
    rx: TN_INT_RXDW,
    status: TN_STATUS,
    linkUp: TN_STATUS_LU,
    stopped: TN_STATUS_TXSTOP | TN_STATUS_RXSTOP,
  },
  init: tn_init,
  stop: tn_stop,
  setmodes: tn_set_modes,
  setmulti: tn_set_multi,
  setmtu: tn_setmtu,
  capsync: tn_capsync,
  encap: tn_encap,
  doorbell: tn_doorbell,
  txreap: tn_txreap,
  rxeof: tn_rxeof,
  rxaim: tn_rxaim,
  rxpost: tn_rxpost,
};
