/**
 * The interface structure and its constants, after sys/net/if.h and if_var.h as of r349529. Left
 * out: groups except their names, descriptions by ioctl, ALTQ, netmap, netgraph hooks, per-address
 * statistics.
 */

import type { Task } from '../sys/clock.ts';
import type { Errno } from '../sys/errno.ts';
import { passDoorbell } from '../sys/pass.ts';
import { type AddrWords, NetAddr } from '../sys/addr.ts';
import type { IfnetRef } from '../kern/ifnet_ref.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { AF_MAX } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { Ifqueue } from './ifq.ts';

// if_flags. RUNNING and OACTIVE are in if_drv_flags and merged for output.
export const IFF_UP = 0x1;
export const IFF_BROADCAST = 0x2;
export const IFF_DEBUG = 0x4;
export const IFF_LOOPBACK = 0x8;
export const IFF_POINTOPOINT = 0x10;
export const IFF_DRV_RUNNING = 0x40;
export const IFF_NOARP = 0x80;
export const IFF_PROMISC = 0x100;
export const IFF_ALLMULTI = 0x200;
export const IFF_DRV_OACTIVE = 0x400;
export const IFF_SIMPLEX = 0x800;
export const IFF_LINK0 = 0x1000;
export const IFF_LINK1 = 0x2000;
export const IFF_LINK2 = 0x4000;
export const IFF_MULTICAST = 0x8000;
export const IFF_PPROMISC = 0x20000;
export const IFF_MONITOR = 0x40000;
export const IFF_STATICARP = 0x80000;

// if_capabilities, if_capenable
export const IFCAP_RXCSUM = 0x1;
export const IFCAP_TXCSUM = 0x2;
export const IFCAP_NETCONS = 0x4;
export const IFCAP_VLAN_MTU = 0x8;
export const IFCAP_VLAN_HWTAGGING = 0x10;
export const IFCAP_JUMBO_MTU = 0x20;
export const IFCAP_POLLING = 0x40;
export const IFCAP_VLAN_HWCSUM = 0x80;
export const IFCAP_TSO4 = 0x100;
export const IFCAP_TSO6 = 0x200;
export const IFCAP_LRO = 0x400;
export const IFCAP_WOL_UCAST = 0x800;
export const IFCAP_WOL_MCAST = 0x1000;
export const IFCAP_WOL_MAGIC = 0x2000;
export const IFCAP_TOE4 = 0x4000;
export const IFCAP_TOE6 = 0x8000;
export const IFCAP_VLAN_HWFILTER = 0x10000;
export const IFCAP_VLAN_HWTSO = 0x40000;
export const IFCAP_LINKSTATE = 0x80000;
export const IFCAP_NETMAP = 0x100000;
export const IFCAP_RXCSUM_IPV6 = 0x200000;
export const IFCAP_TXCSUM_IPV6 = 0x400000;
export const IFCAP_HWSTATS = 0x800000;
export const IFCAP_TXRTLMT = 0x1000000;
export const IFCAP_HWRXTSTMP = 0x2000000;
export const IFCAP_NOMAP = 0x4000000;
export const IFCAP_TXTLS4 = 0x8000000;
export const IFCAP_TXTLS6 = 0x10000000;
export const IFCAP_HWCSUM = IFCAP_RXCSUM | IFCAP_TXCSUM;
export const IFCAP_HWCSUM_IPV6 = IFCAP_RXCSUM_IPV6 | IFCAP_TXCSUM_IPV6;
export const IFCAP_TSO = IFCAP_TSO4 | IFCAP_TSO6;

export const LINK_STATE_UNKNOWN = 0;
export const LINK_STATE_DOWN = 1;
export const LINK_STATE_UP = 2;

// Commands of a driver's if_ioctl: names instead of numbers.
export const SIOCSIFFLAGS = 'SIOCSIFFLAGS';
export const SIOCSIFCAP = 'SIOCSIFCAP';
export const SIOCSIFMTU = 'SIOCSIFMTU';
export const SIOCADDMULTI = 'SIOCADDMULTI';
export const SIOCDELMULTI = 'SIOCDELMULTI';
export type IfIoctl =
  | typeof SIOCSIFFLAGS
  | typeof SIOCSIFCAP
  | typeof SIOCSIFMTU
  | typeof SIOCADDMULTI
  | typeof SIOCDELMULTI;

// Counter indices of if_inc_counter.
export const IFCOUNTER_IPACKETS = 0;
export const IFCOUNTER_IERRORS = 1;
export const IFCOUNTER_OPACKETS = 2;
export const IFCOUNTER_OERRORS = 3;
export const IFCOUNTER_COLLISIONS = 4;
export const IFCOUNTER_IBYTES = 5;
export const IFCOUNTER_OBYTES = 6;
export const IFCOUNTER_IMCASTS = 7;
export const IFCOUNTER_OMCASTS = 8;
export const IFCOUNTER_IQDROPS = 9;
export const IFCOUNTER_OQDROPS = 10;
export const IFCOUNTER_NOPROTO = 11;
export const IFCOUNTERS = 12;

export const ETHER_ADDR_LEN = 6;

// if_type
export const IFT_ETHER = 0x06;
export const IFT_LOOP = 0x18;
export const IFT_L2VLAN = 0x87;
/** A port of a lagg(4); the lagg itself is IFT_ETHER. */
export const IFT_IEEE8023ADLAG = 0xa1;

/** The next hop of a packet, an argument of if_output: family and address. */
export class OutputDst extends NetAddr {
  readonly family: number;

  constructor(family: number) {
    super();
    this.family = family;
  }
}

/** An address of an interface. Each family derives its own class. @see sys/net/if_var.h */
export class Ifaddr {
  readonly ifa_ifp: Ifnet;
  /** AF_*. */
  readonly ifa_family: number;
  readonly ifa_addr: AddrWords;

  constructor(ifp: Ifnet, family: number, addr: AddrWords) {
    this.ifa_ifp = ifp;
    this.ifa_family = family;
    const words = new NetAddr();
    words.setFrom(addr);
    this.ifa_addr = words;
  }
}

/** A multicast link-level address that an interface receives. */
export interface IfMultiaddr {
  /** 6 bytes. */
  readonly ifma_lladdr: Uint8Array;
  ifma_refcount: number;
}

/** A resolved link-level address. */
export interface LinkAddr {
  /** 6 bytes. */
  readonly ll_addr: Uint8Array;
}

/**
 * The resolver of one family on one interface: ether_output uses it to find the link-level address
 * of a next hop. IPv4's resolver is ARP.
 */
export interface LinkResolver {
  /** The Ethernet type of the family's packets. */
  readonly ethertype: number;
  /** The result of a `resolve` that returned 0. Borrowed until the next call. */
  readonly resolved: LinkAddr;
  /**
   * Resolves `dst` for sending `m`. 0: resolved, the caller keeps `m`. On every other errno `m` was
   * taken. EWOULDBLOCK: `m` is held until a reply arrives. EHOSTDOWN, EHOSTUNREACH: no reply so
   * far; `m` is held too. EINVAL: `dst` cannot be resolved on this interface. ENOBUFS: the table is
   * full.
   */
  resolve(ifp: Ifnet, m: Mbuf, dst: OutputDst): Errno;
}

/** The taps of an interface (bpf, captures), called by the code that FreeBSD has in BPF_MTAP. */
export interface BpfIf {
  /** Number of listeners. Callers skip `mtap` if it is 0. */
  readonly listeners: number;
  /** Passes a frame to every listener. Does not take `m`. */
  mtap(m: Mbuf, outgoing: boolean): void;
}

/** The vlan(4) interfaces of a parent interface: the type of if_vlantrunk. */
export interface IfVlanTrunk {
  /**
   * Input of a frame whose tag `vtag` was removed. `m` starts at the Ethernet header. Takes `m`.
   */
  input(m: Mbuf, vtag: number): void;
  /** The parent's capabilities or offloads changed. */
  capabilities(): void;
  /** The parent's link went up or down. */
  linkState(): void;
}

/** A port of a lagg(4): the type of if_lagg. */
export interface IfLaggPort {
  readonly laggIfp: Ifnet;
  /** Input of a frame on the port. True: process it as input of the lagg. False: `m` was taken. */
  input(m: Mbuf): boolean;
  /** The port's capabilities or offloads changed. */
  capabilities(): void;
  /** The port's link went up or down. */
  linkState(): void;
}

/** The driver's functions of an interface. @see ifnet(9) */
export interface IfDriver {
  if_init(ifp: Ifnet): void;
  /** Queues a frame that starts at its Ethernet header. Takes `m` on every outcome. */
  if_transmit(ifp: Ifnet, m: Mbuf): Errno;
  if_qflush(ifp: Ifnet): void;
  if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno;
  /** Ours: rings the doorbell for all frames that if_transmit queued; called once per pass. */
  if_txflush(ifp: Ifnet): void;
}

/** A network interface. @see ifnet(9) */
export class Ifnet implements IfnetRef, Task {
  readonly if_vnet: Vnet;
  readonly if_xname: string;
  if_index = 0;
  if_flags = 0;
  if_drv_flags = 0;
  /** Number of ifpromisc calls in effect, without IFF_PPROMISC. */
  if_pcount = 0;
  if_capabilities = 0;
  if_capenable = 0;
  /** CSUM_* flags of the checksums the interface computes; ip_output checks them per packet. */
  if_hwassist = 0;
  if_mtu = 1500;
  if_link_state = LINK_STATE_UNKNOWN;
  /** bits/s */
  if_baudrate = 0;
  /** Largest TSO packet in bytes, without the Ethernet header; 0: no limit given. */
  if_hw_tsomax = 0;
  if_hw_tsomaxsegcount = 0;
  if_hw_tsomaxsegsize = 0;
  /** Link-level address, 6 bytes. */
  readonly if_lladdr = new Uint8Array(ETHER_ADDR_LEN);
  /** Addresses of all families; the primary address of a family is its first. */
  readonly if_addrhead: Ifaddr[] = [];
  /** Multicast link-level addresses for the driver's filter. */
  readonly if_multiaddrs: IfMultiaddr[] = [];
  /** The resolvers of the families, indexed by AF_*. Each family sets its own when it attaches. */
  readonly if_afdata: (LinkResolver | null)[] = Array.from({ length: AF_MAX }, () => null);
  /** Bytes of link-level header: 14 with ether_ifattach. */
  if_hdrlen = 0;
  /** IFT_*. */
  if_type = 0;
  /** The media line of ifconfig, e.g. `10Gbase-T <full-duplex>`. */
  if_media = 'autoselect';
  if_bpf: BpfIf | null = null;
  if_vlantrunk: IfVlanTrunk | null = null;
  if_lagg: IfLaggPort | null = null;
  /** The groups that ifconfig(8) prints, without `all`. */
  if_groups: readonly string[] = [];
  /** Ours: the interface's number in capture records, unique on the machine; 0: not assigned. */
  if_capunit = 0;
  if_driver: IfDriver | null = null;
  if_softc: object | null = null;
  /** The output queue of drivers that use the default if_transmit with if_start. */
  readonly if_snd = new Ifqueue();
  /** Protocol output: takes `m` on every outcome. Set by ether_ifattach. */
  if_output: ((ifp: Ifnet, m: Mbuf, dst: OutputDst) => Errno) | null = null;
  /** Input of received frames, called by the driver: takes `m`. Set by ether_ifattach. */
  if_input: ((ifp: Ifnet, m: Mbuf) => void) | null = null;
  readonly counters = new Float64Array(IFCOUNTERS);
  #txPending = false;

  constructor(vnet: Vnet, xname: string) {
    this.if_vnet = vnet;
    this.if_xname = xname;
  }

  /** Requests one if_txflush at the end of the pass. Drivers call it after queueing a frame. */
  deferTxflush(): void {
    if (this.#txPending) return;
    this.#txPending = true;
    passDoorbell(this);
  }

  /** Runs at the end of the pass: calls if_txflush. */
  run(): void {
    this.#txPending = false;
    this.if_driver?.if_txflush(this);
  }
}

/** @see ifnet(9) */
export function if_inc_counter(ifp: Ifnet, counter: number, n: number): void {
  ifp.counters[counter]! += n;
}

/**
 * Counts a frame of `len` bytes that `ifp` (a vlan or lagg) sent through another interface. `error`
 * is the result of the other interface.
 */
export function ifCountSent(ifp: Ifnet, error: Errno, len: number, mcast: boolean): void {
  if (error !== 0) {
    if_inc_counter(ifp, IFCOUNTER_OERRORS, 1);
    return;
  }
  if_inc_counter(ifp, IFCOUNTER_OPACKETS, 1);
  if_inc_counter(ifp, IFCOUNTER_OBYTES, len);
  if (mcast) if_inc_counter(ifp, IFCOUNTER_OMCASTS, 1);
}

/** @see ifnet(9) */
export function if_get_counter(ifp: Ifnet, counter: number): number {
  return ifp.counters[counter]!;
}
