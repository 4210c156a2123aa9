/**
 * Driver for the NIC `tb`: attach and detach, init and stop, interrupt, ioctl. The transmit and
 * receive paths are in if_tb_txrx.ts. The NIC has no offload, so if_hwassist is 0 and the stack sums
 * (and for that maps) everything itself. Left out: a watchdog, media selection.
 */

import { ENOMEM, ENXIO, type Errno } from '../src/sys/errno.ts';
import { count, R_DRV_HW_ERROR } from '../src/sys/reason.ts';
import { mem } from '../src/vm/arena.ts';
import { MCLBYTES, MJUMPAGESIZE } from '../src/kern/mbuf.ts';
import { bus_dmamap_sync, type BusDmamap, type BusDmaTag } from '../src/bus/bus_dma.ts';
import { bus_space_read_4, bus_space_write_4 } from '../src/bus/bus_space.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import type { IntrVector } from '../src/bus/intr.ts';
import { ether_crc32_le } from '../src/net/ether_crc.ts';
import {
  IFCAP_JUMBO_MTU,
  IFCAP_LINKSTATE,
  IFCAP_NOMAP,
  IFCAP_VLAN_MTU,
  IFF_ALLMULTI,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
  IFF_PROMISC,
  type IfIoctl,
  type Ifnet,
} from '../src/net/if_var.ts';
import {
  TB_CMD,
  TB_CMD_RST,
  TB_CMD_RXE,
  TB_CMD_TXE,
  TB_DESC_SIZE,
  TB_FRAME_MAX,
  TB_HASH0,
  TB_HASH1,
  TB_ID,
  TB_ID_REV1,
  TB_IMR,
  TB_INT_LINK,
  TB_INT_MASK,
  TB_INT_RX,
  TB_INT_RXERR,
  TB_INT_TXERR,
  TB_ISET,
  TB_ISR,
  TB_MAC0,
  TB_MAC1,
  TB_MAXFRM,
  TB_RING_ALIGN,
  TB_RXBASEH,
  TB_RXBASEL,
  TB_RXCFG,
  TB_RXCFG_ALLMULTI,
  TB_RXCFG_PROMISC,
  TB_RXCNT,
  TB_STATUS,
  TB_STATUS_LINK,
  TB_STATUS_RXSTOP,
  TB_STATUS_TXSTOP,
  TB_TXBASEH,
  TB_TXBASEL,
  TB_TXCNT,
} from '../src/dev/tb/tbreg.ts';
import { DmaSetup, RING_TO_DEVICE, writeRingBase } from './dma_setup.ts';
import { dmaRxdrain, dmaRxfill } from './dma_rx.ts';
import type { NicOps } from './dma_softc.ts';
import { dmaQflush, dmaTxdrain, dmaTxeof } from './dma_tx.ts';

import { TB_NSEGS, TB_RX_NDESC, TB_TX_NDESC, TbSoftc } from './if_tbvar.ts';
import {
  tb_doorbell,
  tb_encap,
  tb_rxaim,
  tb_rxeof,
  tb_rxkick,
  tb_rxpost,
  tb_txreap,
} from './if_tb_txrx.ts';
import {
  lladdrHigh,
  lladdrLow,
  multicastHash,
  nicAttach,
  nicAttached,
  type NicControl,
  nicDetach,
  nicIoctl,
  nicLink,
} from './nic_ifnet.ts';

/** Everything the model can do, in FreeBSD's words; all of it is on after attach. */
export const TB_CAPABILITIES = IFCAP_VLAN_MTU | IFCAP_JUMBO_MTU | IFCAP_LINKSTATE | IFCAP_NOMAP;

export const TB_MTU_MAX = 9000;
/** Ethernet header and one VLAN tag. */
const FRAME_OVERHEAD = 18;
/** A power of two that the length field of a descriptor holds. */
const TX_SEGSIZE_MAX = 8192;
/** Descriptors one interrupt handles before others get their turn. */
const RX_LIMIT = 64;

/** Allocates everything DMA needs; null if memory is out. */
function makeSoftc(
  setup: DmaSetup,
  ifp: Ifnet,
  regs: MmioRegion,
  parent: BusDmaTag | null,
  intr: IntrVector,
): TbSoftc | null {
  const txTag = setup.tag('tx', {
    parent,
    maxsize: TB_FRAME_MAX,
    nsegments: TB_NSEGS,
    maxsegsz: TX_SEGSIZE_MAX,
  });
  const rxTag = setup.tag('rx', {
    parent,
    maxsize: MJUMPAGESIZE,
    nsegments: 1,
    maxsegsz: MJUMPAGESIZE,
  });
  const align = { parent, alignment: TB_RING_ALIGN };
  const txRing = setup.ring('tx ring', TB_TX_NDESC * TB_DESC_SIZE, align);
  const rxRing = setup.ring('rx ring', TB_RX_NDESC * TB_DESC_SIZE, align);
  const txMap: BusDmamap[] = [];
  const rxMap: BusDmamap[] = [];
  if (txRing === null || rxRing === null) return null;
  if (!setup.maps(txTag, TB_TX_NDESC, txMap)) return null;
  if (!setup.maps(rxTag, TB_RX_NDESC + 1, rxMap)) return null;
  const dma = { setup, txTag, rxTag, txRing, rxRing, txMap, rxMap };
  return new TbSoftc(ifp, regs, intr, tbOps, dma);
}

/**
 * Attaches the driver to the NIC at `regs` as interface `ifp`, whose address becomes the NIC's.
 * `parent` restricts DMA as the bus does. ENXIO: there is no `tb`; ENOMEM: no memory for rings.
 * @see ether_ifattach(9)
 */
export function tb_attach(
  ifp: Ifnet,
  regs: MmioRegion,
  parent: BusDmaTag | null,
  intr: IntrVector,
): Errno {
  if (bus_space_read_4(regs, TB_ID) !== TB_ID_REV1) return ENXIO;
  bus_space_write_4(regs, TB_CMD, TB_CMD_RST);
  const setup = new DmaSetup(ifp.if_xname);
  const sc = makeSoftc(setup, ifp, regs, parent, intr);
  if (sc === null) {
    setup.undo();
    return ENOMEM;
  }
  nicAttach(ifp, sc, TB_CAPABILITIES);
  ifp.if_baudrate = 1e9;
  ifp.if_media = '1000baseT <full-duplex>';
  nicAttached(sc, bus_space_read_4(regs, TB_MAC0), bus_space_read_4(regs, TB_MAC1));
  tb_link(sc);
  return 0;
}

/** Stops the NIC, gives every buffer back and takes the driver off `ifp`. @see ether_ifdetach(9) */
export function tb_detach(ifp: Ifnet): Errno {
  const sc = ifp.if_softc;
  if (!(sc instanceof TbSoftc)) return ENXIO;
  tb_stop(sc);
  bus_space_write_4(sc.regs, TB_CMD, TB_CMD_RST);
  nicDetach(sc);
  sc.setup.undo();
  return 0;
}

/** Tells the NIC what the flags say. */
function tb_set_rxcfg(sc: TbSoftc): void {
  const { if_flags } = sc.ifp;
  let cfg = 0;
  if ((if_flags & IFF_PROMISC) !== 0) cfg |= TB_RXCFG_PROMISC;
  if ((if_flags & IFF_ALLMULTI) !== 0) cfg |= TB_RXCFG_ALLMULTI;
  bus_space_write_4(sc.regs, TB_RXCFG, cfg);
}

/** Lets in the multicast addresses that somebody listens to. */
function tb_set_multi(sc: TbSoftc): void {
  const [low, high] = multicastHash(sc.ifp, (lladdr) => ether_crc32_le(lladdr) & 0x3f);
  bus_space_write_4(sc.regs, TB_HASH0, low!);
  bus_space_write_4(sc.regs, TB_HASH1, high!);
}

/** The small buffer if it holds the longest frame. */
function rxBufSizeOf(mtu: number): number {
  return mtu + FRAME_OVERHEAD < MCLBYTES ? MCLBYTES : MJUMPAGESIZE;
}

/** if_mtu has changed. */
function tb_setmtu(sc: TbSoftc): Errno {
  const { if_mtu } = sc.ifp;
  if (sc.rxBufSize === rxBufSizeOf(if_mtu)) {
    bus_space_write_4(sc.regs, TB_MAXFRM, if_mtu + FRAME_OVERHEAD);
    return 0;
  }
  // Buffers of another size: the rings have to be built anew.
  tb_stop(sc);
  return tb_init(sc);
}

/**
 * Brings the NIC up: rings, buffers, filter, interrupts. Nothing if it runs. ENOBUFS: there are too
 * few clusters; it stays down.
 * @see ifnet(9)
 */
export function tb_init(sc: TbSoftc): Errno {
  const { ifp, regs } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) return 0;
  bus_space_write_4(regs, TB_CMD, TB_CMD_RST);
  const error = dmaRxfill(sc, rxBufSizeOf(ifp.if_mtu));
  if (error !== 0) return error;
  // The ring starts anew: no descriptor of before may still look like the device's.
  mem.fill(0, sc.txDesc, sc.txDesc + TB_TX_NDESC * TB_DESC_SIZE);
  bus_space_write_4(regs, TB_MAC0, lladdrLow(ifp.if_lladdr));
  bus_space_write_4(regs, TB_MAC1, lladdrHigh(ifp.if_lladdr));
  writeRingBase(regs, TB_TXBASEL, TB_TXBASEH, sc.txRing.busAddr);
  bus_space_write_4(regs, TB_TXCNT, TB_TX_NDESC);
  writeRingBase(regs, TB_RXBASEL, TB_RXBASEH, sc.rxRing.busAddr);
  bus_space_write_4(regs, TB_RXCNT, TB_RX_NDESC);
  bus_space_write_4(regs, TB_MAXFRM, ifp.if_mtu + FRAME_OVERHEAD);
  bus_dmamap_sync(sc.txRing.tag, sc.txRing.map, RING_TO_DEVICE);
  bus_dmamap_sync(sc.rxRing.tag, sc.rxRing.map, RING_TO_DEVICE);
  ifp.if_drv_flags |= IFF_DRV_RUNNING;
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
  tb_set_rxcfg(sc);
  tb_set_multi(sc);
  bus_space_write_4(regs, TB_CMD, TB_CMD_TXE | TB_CMD_RXE);
  tb_link(sc);
  bus_space_write_4(regs, TB_ISR, TB_INT_MASK);
  bus_space_write_4(regs, TB_IMR, TB_INT_MASK);
  // Reading starts here.
  tb_rxkick(sc);
  return 0;
}

/** Takes the NIC down and frees what is on its rings and in its queue. @see ifnet(9) */
export function tb_stop(sc: TbSoftc): void {
  const { ifp, regs } = sc;
  bus_space_write_4(regs, TB_IMR, 0);
  bus_space_write_4(regs, TB_CMD, 0);
  ifp.if_drv_flags &= ~(IFF_DRV_RUNNING | IFF_DRV_OACTIVE);
  dmaQflush(sc);
  dmaTxdrain(sc);
  dmaRxdrain(sc);
}

/** Reads the link's state. */
function tb_link(sc: TbSoftc): void {
  nicLink(sc.ifp, (bus_space_read_4(sc.regs, TB_STATUS) & TB_STATUS_LINK) !== 0);
}

/** The interrupt handler; runs as a pass of the stack. @see bus_setup_intr(9) */
export function tb_intr(sc: TbSoftc): void {
  const { ifp, regs } = sc;
  const causes = bus_space_read_4(regs, TB_ISR);
  bus_space_write_4(regs, TB_ISR, causes);
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return;
  if ((causes & TB_INT_LINK) !== 0) tb_link(sc);
  if ((causes & (TB_INT_TXERR | TB_INT_RXERR)) !== 0) {
    const status = bus_space_read_4(regs, TB_STATUS);
    if ((status & (TB_STATUS_TXSTOP | TB_STATUS_RXSTOP)) !== 0) {
      // The NIC cannot reach its rings: starting it again would end the same way.
      count(R_DRV_HW_ERROR);
      tb_stop(sc);
      return;
    }
  }
  dmaTxeof(sc);
  const more = tb_rxeof(sc, RX_LIMIT);
  // The stack may have taken the interface down meanwhile.
  if (more && (ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0)
    bus_space_write_4(regs, TB_ISET, TB_INT_RX);
}

const tbControl: NicControl<TbSoftc> = {
  mtuMax: TB_MTU_MAX,
  init: tb_init,
  stop: tb_stop,
  setmodes: tb_set_rxcfg,
  setmulti: tb_set_multi,
  setmtu: tb_setmtu,
  // No capability is the hardware's business.
  capsync: () => {},
};

/** @see ifnet(9) */
export function tb_ioctl(sc: TbSoftc, command: IfIoctl, data: number): Errno {
  return nicIoctl(sc, tbControl, command, data);
}

const tbOps: NicOps = {
  init: (sc: TbSoftc) => void tb_init(sc),
  ioctl: tb_ioctl,
  intr: tb_intr,
  encap: tb_encap,
  doorbell: tb_doorbell,
  txreap: tb_txreap,
  rxaim: tb_rxaim,
  rxpost: tb_rxpost,
};
