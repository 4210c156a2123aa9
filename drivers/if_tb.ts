/**
 * Driver for the NIC `tb`: attach and detach, init and stop. The transmit and receive paths are in
 * if_tb_txrx.ts. The NIC has no offload, so if_hwassist is 0; the stack maps each packet and
 * computes its checksums. Left out: a watchdog, media selection.
 */

import { ENOMEM, ENXIO, type Errno } from '../src/sys/errno.ts';
import { mem } from '../src/vm/arena.ts';
import { MJUMPAGESIZE } from '../src/kern/mbuf.ts';
import type { BusDmaTag } from '../src/bus/bus_dma.ts';
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
  IFF_DRV_RUNNING,
  IFF_PROMISC,
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
import {
  dmaAlloc,
  dmaDetach,
  dmaDown,
  type DmaLayout,
  dmaLink,
  dmaSetFrameMax,
  dmaUp,
  rxBufSizeFor,
} from './dma_nic.ts';
import { writeRingBase } from './dma_setup.ts';
import { dmaRxfill } from './dma_rx.ts';
import type { DmaSoftc, NicOps } from './dma_softc.ts';
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
import { lladdrHigh, lladdrLow, multicastHash, nicAttach, nicAttached } from './nic_ifnet.ts';

/** Capabilities of the model; all are enabled after attach. */
export const TB_CAPABILITIES = IFCAP_VLAN_MTU | IFCAP_JUMBO_MTU | IFCAP_LINKSTATE | IFCAP_NOMAP;

export const TB_MTU_MAX = 9000;
/** Ethernet header and one VLAN tag. */
const FRAME_OVERHEAD = 18;
/** Bytes of a segment: a power of two that fits the length field of a descriptor. */
const TX_SEGSIZE_MAX = 8192;

/** The DMA resources of the driver. `parent` holds the restrictions of the bus. */
function layout(parent: BusDmaTag | null): DmaLayout {
  return {
    parent,
    ringAlign: TB_RING_ALIGN,
    tx: {
      slots: TB_TX_NDESC,
      slotSize: TB_DESC_SIZE,
      maxsize: TB_FRAME_MAX,
      nsegments: TB_NSEGS,
      maxsegsz: TX_SEGSIZE_MAX,
    },
    rx: {
      slots: TB_RX_NDESC,
      slotSize: TB_DESC_SIZE,
      maxsize: MJUMPAGESIZE,
      nsegments: 1,
      maxsegsz: MJUMPAGESIZE,
    },
  };
}

/**
 * Attaches the driver to the NIC at `regs` as interface `ifp`, which gets the NIC's MAC address.
 * `parent` holds the restrictions of the bus. ENXIO: no `tb` is at `regs`; ENOMEM: no memory for
 * rings.
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
  const dma = dmaAlloc(ifp.if_xname, layout(parent));
  if (dma === null) return ENOMEM;
  const sc = new TbSoftc(ifp, regs, intr, tbOps, dma);
  nicAttach(ifp, sc, TB_CAPABILITIES);
  ifp.if_baudrate = 1e9;
  ifp.if_media = '1000baseT <full-duplex>';
  nicAttached(sc, bus_space_read_4(regs, TB_MAC0), bus_space_read_4(regs, TB_MAC1));
  dmaLink(sc);
  return 0;
}

/** Stops the NIC, frees every buffer and detaches the driver from `ifp`. @see ether_ifdetach(9) */
export function tb_detach(ifp: Ifnet): Errno {
  const sc = ifp.if_softc;
  if (!(sc instanceof TbSoftc)) return ENXIO;
  tb_stop(sc);
  bus_space_write_4(sc.regs, TB_CMD, TB_CMD_RST);
  dmaDetach(sc);
  return 0;
}

/** Sets the NIC's receive modes from if_flags. */
function tb_set_rxcfg(sc: TbSoftc): void {
  const { if_flags } = sc.ifp;
  let cfg = 0;
  if ((if_flags & IFF_PROMISC) !== 0) cfg |= TB_RXCFG_PROMISC;
  if ((if_flags & IFF_ALLMULTI) !== 0) cfg |= TB_RXCFG_ALLMULTI;
  bus_space_write_4(sc.regs, TB_RXCFG, cfg);
}

/** Programs the multicast filter from the interface's groups. */
function tb_set_multi(sc: TbSoftc): void {
  const [low, high] = multicastHash(sc.ifp, (lladdr) => ether_crc32_le(lladdr) & 0x3f);
  bus_space_write_4(sc.regs, TB_HASH0, low!);
  bus_space_write_4(sc.regs, TB_HASH1, high!);
}

/** The longest frame to receive. */
function frameMaxOf({ ifp }: DmaSoftc): number {
  return ifp.if_mtu + FRAME_OVERHEAD;
}

/**
 * Starts the NIC: rings, buffers, filter, interrupts. Does nothing if it runs. ENOBUFS: not enough
 * clusters; the NIC stays down.
 * @see ifnet(9)
 */
function tb_init(sc: TbSoftc): Errno {
  const { ifp, regs } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) return 0;
  bus_space_write_4(regs, TB_CMD, TB_CMD_RST);
  const error = dmaRxfill(sc, rxBufSizeFor(frameMaxOf(sc)));
  if (error !== 0) return error;
  // The ring restarts at slot 0: clear OWN in all old descriptors.
  mem.fill(0, sc.txDesc, sc.txDesc + TB_TX_NDESC * TB_DESC_SIZE);
  bus_space_write_4(regs, TB_MAC0, lladdrLow(ifp.if_lladdr));
  bus_space_write_4(regs, TB_MAC1, lladdrHigh(ifp.if_lladdr));
  writeRingBase(regs, TB_TXBASEL, TB_TXBASEH, sc.txRing.busAddr);
  bus_space_write_4(regs, TB_TXCNT, TB_TX_NDESC);
  writeRingBase(regs, TB_RXBASEL, TB_RXBASEH, sc.rxRing.busAddr);
  bus_space_write_4(regs, TB_RXCNT, TB_RX_NDESC);
  bus_space_write_4(regs, TB_MAXFRM, frameMaxOf(sc));
  dmaUp(sc);
  tb_set_rxcfg(sc);
  tb_set_multi(sc);
  bus_space_write_4(regs, TB_CMD, TB_CMD_TXE | TB_CMD_RXE);
  dmaLink(sc);
  bus_space_write_4(regs, TB_ISR, TB_INT_MASK);
  bus_space_write_4(regs, TB_IMR, TB_INT_MASK);
  // This starts reception.
  tb_rxkick(sc);
  return 0;
}

/** Stops the NIC and frees the packets and buffers on its rings and in its queue. @see ifnet(9) */
function tb_stop(sc: TbSoftc): void {
  const { regs } = sc;
  bus_space_write_4(regs, TB_IMR, 0);
  bus_space_write_4(regs, TB_CMD, 0);
  dmaDown(sc);
}

const tbOps: NicOps = {
  mtuMax: TB_MTU_MAX,
  intr: {
    causes: TB_ISR,
    setCauses: TB_ISET,
    link: TB_INT_LINK,
    errors: TB_INT_TXERR | TB_INT_RXERR,
    rx: TB_INT_RX,
    status: TB_STATUS,
    linkUp: TB_STATUS_LINK,
    stopped: TB_STATUS_TXSTOP | TB_STATUS_RXSTOP,
  },
  init: tb_init,
  stop: tb_stop,
  setmodes: tb_set_rxcfg,
  setmulti: tb_set_multi,
  setmtu: (sc) => dmaSetFrameMax(sc, TB_MAXFRM, frameMaxOf(sc)),
  // No capability needs a register write.
  capsync: () => {},
  encap: tb_encap,
  doorbell: tb_doorbell,
  txreap: tb_txreap,
  rxeof: tb_rxeof,
  rxaim: tb_rxaim,
  rxpost: tb_rxpost,
};
