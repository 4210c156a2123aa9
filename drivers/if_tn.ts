/**
 * Driver for the NIC `tn`: attach and detach, init and stop, interrupt, capabilities. The transmit
 * and receive paths are in tn_txrx.ts. Left out: a watchdog (a wire that takes nothing for long is
 * legitimate here), media selection.
 */

import { EINVAL, ENOBUFS, ENOMEM, ENXIO, EOPNOTSUPP, type Errno } from '../src/sys/errno.ts';
import { KASSERT } from '../src/sys/kassert.ts';
import { count, R_DRV_HW_ERROR } from '../src/sys/reason.ts';
import { m_freem, m_gethdr } from '../src/kern/kern_mbuf.ts';
import {
  CSUM_IP,
  CSUM_IP6_TCP,
  CSUM_IP6_TSO,
  CSUM_IP6_UDP,
  CSUM_IP_TCP,
  CSUM_IP_TSO,
  CSUM_IP_UDP,
  MCLBYTES,
  MJUMPAGESIZE,
  M_WAITOK,
  MT_DATA,
} from '../src/kern/mbuf.ts';
import {
  bus_dma_tag_create,
  bus_dma_tag_destroy,
  bus_dmamap_create,
  bus_dmamap_destroy,
  bus_dmamap_load,
  bus_dmamap_sync,
  bus_dmamap_unload,
  bus_dmamem_alloc,
  bus_dmamem_free,
  BUS_DMA_NOWAIT,
  BUS_DMA_ZERO,
  type BusDmamap,
  type BusDmamem,
  type BusDmamapRef,
  BusDmaSegs,
  type BusDmaTag,
  type BusDmaTagParams,
  type BusDmaTagRef,
} from '../src/bus/bus_dma.ts';
import { bus_space_read_4, bus_space_write_4 } from '../src/bus/bus_space.ts';
import type { MmioRegion } from '../src/bus/device.ts';
import { bus_setup_intr, bus_teardown_intr, type IntrVector } from '../src/bus/intr.ts';
import { if_link_state_change, ifToggleTxOffload } from '../src/net/if.ts';
import { ether_ifattach, ether_ifdetach } from '../src/net/if_ethersubr.ts';
import {
  ETHER_ADDR_LEN,
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
  IFF_BROADCAST,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
  IFF_MULTICAST,
  IFF_PROMISC,
  IFF_SIMPLEX,
  IFF_UP,
  type IfIoctl,
  type Ifnet,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
  SIOCADDMULTI,
  SIOCDELMULTI,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../src/net/if_var.ts';
import {
  TN_CTRL,
  TN_CTRL_ALLMULTI,
  TN_CTRL_LRO,
  TN_CTRL_PROMISC,
  TN_CTRL_RST,
  TN_CTRL_RXCSUM,
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
  TN_NSEGS,
  TN_RX_NDESC,
  TN_SEGSIZE_MAX,
  TnSoftc,
  TN_TX_NDESC,
  type TnOps,
} from './if_tnvar.ts';
import {
  RING_TO_DEVICE,
  tn_newbuf,
  tn_qflush,
  tn_rxdrain,
  tn_rxeof,
  tn_transmit,
  tn_txdrain,
  tn_txeof,
  tn_txflush,
} from './tn_txrx.ts';

/**
 * Everything the model can do, in FreeBSD's words; all of it is on after attach. LRO is not there in
 * egress mode `vnet`, where the peer leaves packets in one piece itself.
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

const MTU_MIN = 68; // RFC 791
const MTU_MAX = 9000;
/** Ethernet header and one VLAN tag. */
const FRAME_OVERHEAD = 18;
/** Largest IP packet that with its Ethernet and VLAN headers is below 64 KB. */
const TSO_MAX = 65518;
/** Header and padding mbufs that the stack does not count among a TSO packet's segments. */
const TSO_SEGS_RESERVED = 2;
/** Descriptors one interrupt handles before others get their turn. */
const RX_LIMIT = 64;
const INTERRUPTS =
  TN_INT_TXDW | TN_INT_RXDW | TN_INT_LSC | TN_INT_RXO | TN_INT_TXERR | TN_INT_RXERR;

/** Undoes attach so far, last step first. */
class Undo {
  readonly #steps: (() => void)[] = [];
  add(step: () => void): void {
    this.#steps.push(step);
  }
  run(): void {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) step();
  }
}

const attached = new WeakMap<TnSoftc, Undo>();

function mustDo(error: Errno): void {
  KASSERT(error === 0, 'tn: a DMA resource is still in use');
}

function makeTag(undo: Undo, params: BusDmaTagParams): BusDmaTag {
  const ref: BusDmaTagRef = { tag: null };
  mustDo(bus_dma_tag_create(params, ref));
  const tag = ref.tag!;
  undo.add(() => mustDo(bus_dma_tag_destroy(tag)));
  return tag;
}

/** A ring's memory, loaded, and its bus address in `addr`; null if there is no contiguous memory. */
function makeRing(undo: Undo, tag: BusDmaTag, addr: BusDmaSegs): BusDmamem | null {
  const ring = bus_dmamem_alloc(tag, BUS_DMA_NOWAIT | BUS_DMA_ZERO);
  if (ring === null) return null;
  undo.add(() => bus_dmamem_free(tag, ring));
  mustDo(bus_dmamap_load(tag, ring.map, ring.vaddr, tag.maxsize, addr));
  undo.add(() => bus_dmamap_unload(tag, ring.map));
  return ring;
}

function ringTag(undo: Undo, name: string, parent: BusDmaTag | null, ndesc: number): BusDmaTag {
  return makeTag(undo, {
    name,
    parent,
    alignment: TN_RING_ALIGN,
    maxsize: ndesc * TN_DESC_SIZE,
    nsegments: 1,
    maxsegsz: ndesc * TN_DESC_SIZE,
  });
}

/** Makes the maps of all slots and the spare one; ENOMEM, and some are there, if memory is out. */
function makeMaps(undo: Undo, sc: TnSoftc): Errno {
  const { txTag, rxTag, txMap, rxMap } = sc;
  const ref: BusDmamapRef = { map: null };
  const make = (tag: BusDmaTag, maps: BusDmamap[], n: number): Errno => {
    while (maps.length < n) {
      if (bus_dmamap_create(tag, 0, ref) !== 0) return ENOMEM;
      maps.push(ref.map!);
    }
    return 0;
  };
  undo.add(() => {
    for (const map of txMap) mustDo(bus_dmamap_destroy(txTag, map));
    for (const map of rxMap) mustDo(bus_dmamap_destroy(rxTag, map));
  });
  if (make(txTag, txMap, TN_TX_NDESC) !== 0 || make(rxTag, rxMap, TN_RX_NDESC) !== 0) return ENOMEM;
  if (bus_dmamap_create(rxTag, 0, ref) !== 0) return ENOMEM;
  sc.rxSpareMap = ref.map!;
  undo.add(() => mustDo(bus_dmamap_destroy(rxTag, sc.rxSpareMap)));
  return 0;
}

/** Allocates everything DMA needs; null if memory is out. */
function makeSoftc(
  undo: Undo,
  ifp: Ifnet,
  regs: MmioRegion,
  parent: BusDmaTag | null,
  intr: IntrVector,
): TnSoftc | null {
  const name = ifp.if_xname;
  const txTag = makeTag(undo, {
    name: `${name} tx`,
    parent,
    maxsize: TN_TSO_MAX,
    nsegments: TN_NSEGS,
    maxsegsz: TN_SEGSIZE_MAX,
  });
  const rxTag = makeTag(undo, {
    name: `${name} rx`,
    parent,
    maxsize: MJUMPAGESIZE,
    nsegments: 1,
    maxsegsz: MJUMPAGESIZE,
  });
  const txRingTag = ringTag(undo, `${name} tx ring`, parent, TN_TX_NDESC);
  const rxRingTag = ringTag(undo, `${name} rx ring`, parent, TN_RX_NDESC);
  const txAddr = new BusDmaSegs(1);
  const rxAddr = new BusDmaSegs(1);
  const txRing = makeRing(undo, txRingTag, txAddr);
  const rxRing = makeRing(undo, rxRingTag, rxAddr);
  const scratch = m_gethdr(M_WAITOK, MT_DATA);
  if (scratch !== null) undo.add(() => m_freem(scratch));
  if (txRing === null || rxRing === null || scratch === null) return null;
  const dma = {
    txTag,
    rxTag,
    txRingTag,
    rxRingTag,
    txRing,
    rxRing,
    txAddr,
    rxAddr,
    scratch,
  };
  const sc = new TnSoftc(ifp, regs, intr, tnOps, dma);
  if (makeMaps(undo, sc) !== 0) return null;
  for (let i = 0; i < TN_TX_NDESC; i++) sc.txMbuf.push(null);
  for (let i = 0; i < TN_RX_NDESC; i++) sc.rxMbuf.push(null);
  return sc;
}

/**
 * Attaches the driver to the NIC at `regs` as interface `ifp`, whose address becomes the NIC's.
 * `parent` restricts DMA as the bus does. ENXIO: there is no `tn`; ENOMEM: no memory for rings, maps
 * or bounce pages.
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
  const undo = new Undo();
  const sc = makeSoftc(undo, ifp, regs, parent, intr);
  if (sc === null) {
    undo.run();
    return ENOMEM;
  }
  attached.set(sc, undo);
  sc.vnet = (bus_space_read_4(regs, TN_STATUS) & TN_STATUS_VNET) !== 0;
  ifp.if_softc = sc;
  ifp.if_driver = sc;
  ifp.if_flags = IFF_BROADCAST | IFF_SIMPLEX | IFF_MULTICAST;
  const canLro = (bus_space_read_4(regs, TN_FEATURES) & TN_FEAT_LRO) !== 0;
  ifp.if_capabilities = canLro ? TN_CAPABILITIES : TN_CAPABILITIES & ~IFCAP_LRO;
  ifp.if_capenable = ifp.if_capabilities;
  ifp.if_hw_tsomax = TSO_MAX;
  ifp.if_hw_tsomaxsegcount = TN_NSEGS - TSO_SEGS_RESERVED;
  ifp.if_hw_tsomaxsegsize = TN_SEGSIZE_MAX;
  ifp.if_baudrate = 10e9;
  ifp.if_media = '10Gbase-T <full-duplex>';
  tn_capsync(sc);
  const lladdr = new Uint8Array(ETHER_ADDR_LEN);
  const low = bus_space_read_4(regs, TN_MACL);
  const high = bus_space_read_4(regs, TN_MACH);
  for (let i = 0; i < 4; i++) lladdr[i] = (low >>> (8 * i)) & 0xff;
  for (let i = 0; i < 2; i++) lladdr[4 + i] = (high >>> (8 * i)) & 0xff;
  bus_setup_intr(intr, sc);
  ether_ifattach(ifp, lladdr);
  tn_link(sc);
  return 0;
}

/** Stops the NIC, gives every buffer back and takes the driver off `ifp`. @see ether_ifdetach(9) */
export function tn_detach(ifp: Ifnet): Errno {
  const sc = ifp.if_softc;
  if (!(sc instanceof TnSoftc)) return ENXIO;
  tn_stop(sc);
  bus_space_write_4(sc.regs, TN_CTRL, TN_CTRL_RST);
  ether_ifdetach(ifp);
  bus_teardown_intr(sc.intr);
  attached.get(sc)!.run();
  attached.delete(sc);
  ifp.if_softc = null;
  ifp.if_driver = null;
  return 0;
}

function writeCtrl(sc: TnSoftc, enable: number): void {
  bus_space_write_4(sc.regs, TN_CTRL, sc.ctrl | enable);
}

/** Mode bits from flags and capabilities; written to the NIC if it runs. */
function tn_set_modes(sc: TnSoftc): void {
  const { ifp } = sc;
  const { if_flags, if_capenable } = ifp;
  let ctrl = 0;
  if ((if_flags & IFF_PROMISC) !== 0) ctrl |= TN_CTRL_PROMISC;
  if ((if_flags & IFF_ALLMULTI) !== 0) ctrl |= TN_CTRL_ALLMULTI;
  if ((if_capenable & IFCAP_VLAN_HWTAGGING) !== 0) ctrl |= TN_CTRL_VLSTRIP;
  if ((if_capenable & (IFCAP_RXCSUM | IFCAP_RXCSUM_IPV6)) !== 0) ctrl |= TN_CTRL_RXCSUM;
  // Without verdicts of the NIC there is nothing to coalesce: then the bit has no effect.
  if ((if_capenable & IFCAP_LRO) !== 0) ctrl |= TN_CTRL_LRO;
  sc.ctrl = ctrl;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) writeCtrl(sc, TN_CTRL_RXE | TN_CTRL_TXE);
}

/** The bit of the multicast hash that stands for an address: the top of its big-endian CRC-32. */
function multiHash(addr: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < ETHER_ADDR_LEN; i++) {
    for (let bit = 0; bit < 8; bit++) {
      const carry = (crc >>> 31) ^ ((addr[i]! >>> bit) & 1);
      crc = ((crc << 1) ^ (carry === 1 ? 0x04c11db7 : 0)) >>> 0;
    }
  }
  return crc >>> 26;
}

/** Lets in the multicast addresses that somebody listens to. */
function tn_set_multi(sc: TnSoftc): void {
  const mta = [0, 0];
  for (const { ifma_lladdr } of sc.ifp.if_multiaddrs) {
    const hash = multiHash(ifma_lladdr);
    mta[hash >>> 5] = (mta[hash >>> 5]! | (1 << (hash & 31))) >>> 0;
  }
  bus_space_write_4(sc.regs, TN_MTA0, mta[0]!);
  bus_space_write_4(sc.regs, TN_MTA1, mta[1]!);
}

/** The CSUM_* that the enabled capabilities stand for; NOMAP has none. */
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

/** SIOCSIFCAP: what was toggled before an error stays toggled, as in FreeBSD's drivers. */
function tn_setcap(sc: TnSoftc, wanted: number): Errno {
  const { ifp } = sc;
  if ((wanted & ~ifp.if_capabilities) !== 0) return EINVAL;
  const changed = wanted ^ ifp.if_capenable;
  const plain =
    IFCAP_RXCSUM |
    IFCAP_RXCSUM_IPV6 |
    IFCAP_VLAN_MTU |
    IFCAP_VLAN_HWTAGGING |
    IFCAP_VLAN_HWCSUM |
    IFCAP_VLAN_HWTSO |
    IFCAP_JUMBO_MTU |
    IFCAP_LRO |
    IFCAP_LINKSTATE |
    IFCAP_NOMAP;
  ifp.if_capenable ^= changed & plain;
  const error = ifToggleTxOffload(ifp, changed);
  tn_capsync(sc);
  return error;
}

function tn_setmtu(sc: TnSoftc, mtu: number): Errno {
  if (!Number.isInteger(mtu) || mtu < MTU_MIN || mtu > MTU_MAX) return EINVAL;
  const { ifp } = sc;
  ifp.if_mtu = mtu;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return 0;
  if (sc.rxBufSize === rxBufSizeOf(sc, mtu)) {
    bus_space_write_4(sc.regs, TN_MAXFRM, frameMaxOf(sc, mtu));
    return 0;
  }
  // Buffers of another size: the rings have to be built anew.
  tn_stop(sc);
  return tn_init(sc);
}

/** @see ifnet(9) */
export function tn_ioctl(sc: TnSoftc, command: IfIoctl, data: number): Errno {
  const { ifp } = sc;
  switch (command) {
    case SIOCSIFFLAGS:
      if ((ifp.if_flags & IFF_UP) === 0) {
        if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) tn_stop(sc);
        return 0;
      }
      if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return tn_init(sc);
      tn_set_modes(sc);
      return 0;
    case SIOCSIFCAP:
      return tn_setcap(sc, data);
    case SIOCSIFMTU:
      return tn_setmtu(sc, data);
    case SIOCADDMULTI:
    case SIOCDELMULTI:
      if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) tn_set_multi(sc);
      return 0;
    default:
      return EOPNOTSUPP;
  }
}

/**
 * The longest frame to let in. A peer that does not segment (egress mode `vnet`) sends TCP packets
 * of up to 64 KB in one piece, whatever the MTU.
 */
function frameMaxOf(sc: TnSoftc, mtu: number): number {
  return sc.vnet ? TN_MAXFRM_MAX : mtu + FRAME_OVERHEAD;
}

/** The small buffer if it holds the longest frame. */
function rxBufSizeOf(sc: TnSoftc, mtu: number): number {
  return frameMaxOf(sc, mtu) < MCLBYTES ? MCLBYTES : MJUMPAGESIZE;
}

/** Fills the receive ring; ENOBUFS, and nothing kept, if there are too few clusters. */
function tn_rxfill(sc: TnSoftc): Errno {
  sc.rxBufSize = rxBufSizeOf(sc, sc.ifp.if_mtu);
  sc.rxNext = 0;
  sc.rxDiscard = false;
  for (let slot = 0; slot < TN_RX_NDESC; slot++) {
    if (tn_newbuf(sc, slot) === 0) continue;
    tn_rxdrain(sc);
    return ENOBUFS;
  }
  return 0;
}

function writeRing(sc: TnSoftc, low: number, high: number, addr: BusDmaSegs): void {
  bus_space_write_4(sc.regs, low, addr.ds_addr[0]! >>> 0);
  bus_space_write_4(sc.regs, high, Math.floor(addr.ds_addr[0]! / 0x100000000));
}

/**
 * Brings the NIC up: rings, buffers, filter, interrupts. Nothing if it runs. ENOBUFS: there are too
 * few clusters; it stays down.
 * @see ifnet(9)
 */
export function tn_init(sc: TnSoftc): Errno {
  const { ifp, regs } = sc;
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0) return 0;
  bus_space_write_4(regs, TN_CTRL, TN_CTRL_RST);
  const error = tn_rxfill(sc);
  if (error !== 0) return error;
  const mac = ifp.if_lladdr;
  bus_space_write_4(regs, TN_MACL, mac[0]! | (mac[1]! << 8) | (mac[2]! << 16) | (mac[3]! << 24));
  bus_space_write_4(regs, TN_MACH, mac[4]! | (mac[5]! << 8));
  writeRing(sc, TN_TDBAL, TN_TDBAH, sc.txRingAddr);
  bus_space_write_4(regs, TN_TDLEN, TN_TX_NDESC * TN_DESC_SIZE);
  writeRing(sc, TN_RDBAL, TN_RDBAH, sc.rxRingAddr);
  bus_space_write_4(regs, TN_RDLEN, TN_RX_NDESC * TN_DESC_SIZE);
  bus_space_write_4(regs, TN_RXBSZ, sc.rxBufSize);
  bus_space_write_4(regs, TN_MAXFRM, frameMaxOf(sc, ifp.if_mtu));
  bus_dmamap_sync(sc.txRingTag, sc.txRing.map, RING_TO_DEVICE);
  bus_dmamap_sync(sc.rxRingTag, sc.rxRing.map, RING_TO_DEVICE);
  ifp.if_drv_flags |= IFF_DRV_RUNNING;
  ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
  tn_set_modes(sc);
  tn_set_multi(sc);
  tn_link(sc);
  bus_space_write_4(regs, TN_ICR, TN_INT_MASK);
  bus_space_write_4(regs, TN_IMS, INTERRUPTS);
  // The last slot stays with us, so that a full ring does not look empty. Reading starts here.
  bus_space_write_4(regs, TN_RDT, TN_RX_NDESC - 1);
  return 0;
}

/** Takes the NIC down and frees what is on its rings and in its queue. @see ifnet(9) */
export function tn_stop(sc: TnSoftc): void {
  const { ifp, regs } = sc;
  bus_space_write_4(regs, TN_IMC, TN_INT_MASK);
  writeCtrl(sc, 0);
  ifp.if_drv_flags &= ~(IFF_DRV_RUNNING | IFF_DRV_OACTIVE);
  tn_qflush(sc);
  tn_txdrain(sc);
  tn_rxdrain(sc);
}

/** Reads the link's state. */
function tn_link(sc: TnSoftc): void {
  const up = (bus_space_read_4(sc.regs, TN_STATUS) & TN_STATUS_LU) !== 0;
  if_link_state_change(sc.ifp, up ? LINK_STATE_UP : LINK_STATE_DOWN);
}

/** The interrupt handler; runs as a pass of the stack. @see bus_setup_intr(9) */
export function tn_intr(sc: TnSoftc): void {
  const { ifp, regs } = sc;
  const causes = bus_space_read_4(regs, TN_ICR);
  bus_space_write_4(regs, TN_ICR, causes);
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return;
  if ((causes & TN_INT_LSC) !== 0) tn_link(sc);
  if ((causes & (TN_INT_TXERR | TN_INT_RXERR)) !== 0) {
    const status = bus_space_read_4(regs, TN_STATUS);
    if ((status & (TN_STATUS_TXSTOP | TN_STATUS_RXSTOP)) !== 0) {
      // The NIC cannot reach its rings: starting it again would end the same way.
      count(R_DRV_HW_ERROR);
      tn_stop(sc);
      return;
    }
  }
  tn_txeof(sc);
  const more = tn_rxeof(sc, RX_LIMIT);
  // The stack may have taken the interface down meanwhile.
  if (more && (ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0)
    bus_space_write_4(regs, TN_ICS, TN_INT_RXDW);
}

const tnOps: TnOps = {
  init: (sc) => void tn_init(sc),
  transmit: tn_transmit,
  qflush: tn_qflush,
  ioctl: tn_ioctl,
  txflush: tn_txflush,
  intr: tn_intr,
};
