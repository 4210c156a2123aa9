/**
 * vlan(4), after sys/net/if_vlan.c: interfaces that send and receive frames with an 802.1Q tag
 * through a parent interface. Either vlan(4) writes the tag into the mapped header in front of the
 * payload, or the NIC inserts it. Left out: 802.1ad (QinQ), priorities other than 0, hardware
 * filters, setting the parent to promiscuous mode, kTLS and rate limits.
 */

import { CAPTURE_IF, CAPTURE_IN, CAPTURE_OUT } from '../sys/capture.ts';
import { countDrop, noteLost } from './capture_drop.ts';
import {
  EBUSY,
  EEXIST,
  EINVAL,
  ENETDOWN,
  ENOBUFS,
  ENXIO,
  EPROTONOSUPPORT,
  type Errno,
} from '../sys/errno.ts';
import { count, R_ETHER_VLAN, R_IF_NOBUFS, R_VLAN_DOWN, R_VLAN_PARENT } from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import {
  CSUM_IP,
  CSUM_IP6_TSO,
  CSUM_IP_TSO,
  CSUM_TCP,
  CSUM_TCP_IPV6,
  CSUM_UDP,
  CSUM_UDP_IPV6,
  type Mbuf,
  M_MCAST,
  M_VLANTAG,
} from '../kern/mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { ETHER_VLAN_ENCAP_LEN, EVL_MAKETAG, EVL_VLANOFTAG, EVL_VLID_MASK } from './ethernet.ts';
import {
  if_addmulti,
  if_alloc,
  ifCapabilitiesChanged,
  if_delmulti,
  ifEventsRegister,
  if_link_state_change,
  if_setlladdr,
  ifunit,
} from './if.ts';
import { if_clone_attach, ifc_simple_match, type IfClone } from './if_clone.ts';
import { ether_ifattach, ether_ifdetach, ether_vlanencap } from './if_ethersubr.ts';
import {
  ETHER_ADDR_LEN,
  IFCAP_HWCSUM,
  IFCAP_HWCSUM_IPV6,
  IFCAP_LRO,
  IFCAP_NOMAP,
  IFCAP_TSO,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFCAP_VLAN_HWCSUM,
  IFCAP_VLAN_HWTAGGING,
  IFCAP_VLAN_HWTSO,
  IFCAP_VLAN_MTU,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_NOPROTO,
  IFCOUNTER_OERRORS,
  IFF_BROADCAST,
  IFF_DRV_RUNNING,
  IFF_MULTICAST,
  IFF_SIMPLEX,
  IFF_UP,
  if_inc_counter,
  ifCountSent,
  type IfDriver,
  type IfIoctl,
  type IfMultiaddr,
  type Ifnet,
  IFT_ETHER,
  IFT_L2VLAN,
  type IfVlanTrunk,
  LINK_STATE_UNKNOWN,
  SIOCADDMULTI,
  SIOCDELMULTI,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from './if_var.ts';

/** Smallest MTU: the minimum payload of an Ethernet frame. */
const VLAN_MINMTU = 46;

const NO_ADDR = new Uint8Array(ETHER_ADDR_LEN);

/** Parameters of the cloner, from `ifconfig vlan100 create vlan 100 vlandev tn0`. @see vlan(4) */
interface Vlanreq {
  /** The parent's name. */
  readonly vlr_parent: string;
  /** VLAN id. */
  readonly vlr_tag: number;
}

/** The vlan(4) interfaces of one parent, by VLAN id. */
class Trunk implements IfVlanTrunk {
  readonly parent: Ifnet;
  readonly vlans = new Map<number, Ifvlan>();

  constructor(parent: Ifnet) {
    this.parent = parent;
  }

  input(m: Mbuf, vtag: number): void {
    const ifv = this.vlans.get(EVL_VLANOFTAG(vtag));
    if (ifv === undefined || (ifv.ifv_ifp.if_flags & IFF_UP) === 0) {
      if_inc_counter(this.parent, IFCOUNTER_NOPROTO, 1);
      const why = ifv === undefined ? R_ETHER_VLAN : R_VLAN_DOWN;
      countDrop(m, why, CAPTURE_IF, CAPTURE_IN);
      m_freem(m);
      return;
    }
    const ifp = ifv.ifv_ifp;
    m.m_pkthdr.rcvif = ifp;
    if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
    ifp.if_input!(ifp, m);
  }

  capabilities(): void {
    for (const ifv of this.vlans.values()) vlan_capabilities(ifv);
  }

  linkState(): void {
    for (const { ifv_ifp } of this.vlans.values())
      if_link_state_change(ifv_ifp, this.parent.if_link_state);
  }
}

/** One interface: its softc and its driver. @see vlan(4) */
class Ifvlan implements IfDriver {
  readonly ifv_ifp: Ifnet;
  ifv_trunk: Trunk | null = null;
  ifv_vid = 0;
  /** Capabilities that the user has not disabled; initially all. */
  ifv_capenable = -1;
  /**
   * Difference of the parent's MTU and ours: 4 if the parent cannot send frames that are 4 bytes
   * longer, else 0.
   */
  ifv_mtufudge = 0;
  /** Group addresses that this interface has joined on the parent. */
  readonly vlan_mc_listhead: Uint8Array[] = [];

  constructor(ifp: Ifnet) {
    this.ifv_ifp = ifp;
  }

  if_init(): void {}

  if_qflush(): void {}

  if_txflush(): void {}

  if_transmit(ifp: Ifnet, m: Mbuf): Errno {
    const p = this.ifv_trunk?.parent;
    const len = m.m_pkthdr.len;
    const mcast = (m.m_flags & M_MCAST) !== 0;
    if (ifp.if_bpf !== null && ifp.if_bpf.listeners > 0) ifp.if_bpf.mtap(m, true);
    if (
      p === undefined ||
      (p.if_flags & IFF_UP) === 0 ||
      (p.if_drv_flags & IFF_DRV_RUNNING) === 0
    ) {
      countDrop(m, R_VLAN_PARENT, CAPTURE_IF, CAPTURE_OUT, ifp);
      m_freem(m);
      if_inc_counter(ifp, IFCOUNTER_OERRORS, 1);
      return ENETDOWN;
    }
    const tag = EVL_MAKETAG(this.ifv_vid, 0);
    let top: Mbuf | null = m;
    if ((p.if_capenable & IFCAP_VLAN_HWTAGGING) !== 0) {
      m.m_pkthdr.ether_vtag = tag;
      m.m_flags |= M_VLANTAG;
    } else {
      const { pktId } = m.m_pkthdr;
      top = ether_vlanencap(m, tag);
      if (top === null) {
        count(R_IF_NOBUFS);
        noteLost(pktId, len, R_IF_NOBUFS, CAPTURE_IF, CAPTURE_OUT, ifp);
        if_inc_counter(ifp, IFCOUNTER_OERRORS, 1);
        return ENOBUFS;
      }
    }
    const error = p.if_driver!.if_transmit(p, top);
    ifCountSent(ifp, error, len, mcast);
    return error;
  }

  if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
    switch (command) {
      case SIOCSIFFLAGS:
        return 0;
      case SIOCSIFMTU: {
        const p = this.ifv_trunk?.parent;
        const fudge = this.ifv_mtufudge;
        if (p === undefined || data > p.if_mtu - fudge || data < VLAN_MINMTU - fudge) return EINVAL;
        ifp.if_mtu = data;
        return 0;
      }
      case SIOCSIFCAP:
        this.ifv_capenable = data;
        vlan_capabilities(this);
        return 0;
      case SIOCADDMULTI:
      case SIOCDELMULTI:
        vlan_setmulti(this);
        return 0;
    }
  }
}

function softcOf(ifp: Ifnet): Ifvlan | null {
  return ifp.if_softc instanceof Ifvlan ? ifp.if_softc : null;
}

/** Joins the group addresses of the interface on the parent. @see sys/net/if_vlan.c */
function vlan_setmulti(ifv: Ifvlan): void {
  const p = ifv.ifv_trunk?.parent;
  if (p === undefined) return;
  for (const addr of ifv.vlan_mc_listhead.splice(0)) if_delmulti(p, addr);
  for (const { ifma_lladdr } of ifv.ifv_ifp.if_multiaddrs as readonly IfMultiaddr[]) {
    if (if_addmulti(p, ifma_lladdr) === 0) ifv.vlan_mc_listhead.push(ifma_lladdr);
  }
}

/**
 * Computes the capabilities of the interface from its parent's, less those that the user disabled.
 * Unlike FreeBSD, TSO of an address family is enabled only together with its transmit checksum
 * offload: the NICs here expect the pseudo-header sum in the checksum field of a TSO packet, and a
 * software checksum would overwrite it.
 * @see sys/net/if_vlan.c
 */
function vlan_capabilities(ifv: Ifvlan): void {
  const ifp = ifv.ifv_ifp;
  const p = ifv.ifv_trunk?.parent;
  if (p === undefined) return;
  const { if_capabilities: pcap, if_capenable: pena, if_hwassist: phwa } = p;
  const mena = pena & ifv.ifv_capenable;
  const hwcsum = IFCAP_HWCSUM | IFCAP_HWCSUM_IPV6;
  let cap = 0;
  let ena = 0;
  let hwa = 0;
  if ((pcap & IFCAP_VLAN_HWCSUM) !== 0) cap |= pcap & hwcsum;
  // A NIC does not find the headers behind a tag in the frame data. It can only sum if it inserts
  // the tag itself.
  if ((pena & IFCAP_VLAN_HWCSUM) !== 0 && (pena & IFCAP_VLAN_HWTAGGING) !== 0) {
    ena |= mena & hwcsum;
    if ((ena & IFCAP_TXCSUM) !== 0) hwa |= phwa & (CSUM_IP | CSUM_TCP | CSUM_UDP);
    if ((ena & IFCAP_TXCSUM_IPV6) !== 0) hwa |= phwa & (CSUM_TCP_IPV6 | CSUM_UDP_IPV6);
  }
  if ((pcap & IFCAP_VLAN_HWTSO) !== 0) cap |= pcap & IFCAP_TSO;
  if ((pena & IFCAP_VLAN_HWTSO) !== 0) {
    if ((ena & IFCAP_TXCSUM) !== 0) ena |= mena & IFCAP_TSO4;
    if ((ena & IFCAP_TXCSUM_IPV6) !== 0) ena |= mena & IFCAP_TSO6;
    if ((ena & IFCAP_TSO4) !== 0) hwa |= phwa & CSUM_IP_TSO;
    if ((ena & IFCAP_TSO6) !== 0) hwa |= phwa & CSUM_IP6_TSO;
  }
  cap |= pcap & IFCAP_LRO;
  ena |= mena & IFCAP_LRO;
  // vlan(4) and the NIC both insert the tag into the mapped header, never into unmapped payload.
  cap |= pcap & IFCAP_NOMAP;
  ena |= mena & IFCAP_NOMAP;
  ifp.if_hw_tsomax = p.if_hw_tsomax;
  ifp.if_hw_tsomaxsegcount = p.if_hw_tsomaxsegcount;
  ifp.if_hw_tsomaxsegsize = p.if_hw_tsomaxsegsize;
  ifp.if_capabilities = cap;
  ifp.if_capenable = ena;
  ifp.if_hwassist = hwa;
  ifCapabilitiesChanged(ifp);
}

/**
 * Configures the interface as VLAN `vid` on parent `p`. EPROTONOSUPPORT: `p` is not Ethernet, or
 * lacks broadcast or multicast; EINVAL: `vid` is not in 1 to 4094, `ifp` is not a vlan(4)
 * interface, or `p` is `ifp`; EBUSY: `ifp` has a parent; EEXIST: `p` already has VLAN `vid`. Unlike
 * FreeBSD's, takes no protocol, because only 802.1Q is supported.
 * @see vlan(4), sys/net/if_vlan.c
 */
export function vlan_config(ifp: Ifnet, p: Ifnet, vid: number): Errno {
  const ifv = softcOf(ifp);
  const needed = IFF_BROADCAST | IFF_MULTICAST;
  if (ifv === null || p === ifp) return EINVAL;
  if ((p.if_type !== IFT_ETHER && p.if_type !== IFT_L2VLAN) || (p.if_flags & needed) !== needed)
    return EPROTONOSUPPORT;
  if (!Number.isInteger(vid) || vid <= 0 || vid >= EVL_VLID_MASK) return EINVAL;
  if (ifv.ifv_trunk !== null) return EBUSY;
  const trunk = p.if_vlantrunk instanceof Trunk ? p.if_vlantrunk : new Trunk(p);
  if (trunk.vlans.has(vid)) return EEXIST;
  p.if_vlantrunk = trunk;
  trunk.vlans.set(vid, ifv);
  ifv.ifv_trunk = trunk;
  ifv.ifv_vid = vid;
  ifv.ifv_mtufudge = (p.if_capenable & IFCAP_VLAN_MTU) !== 0 ? 0 : ETHER_VLAN_ENCAP_LEN;
  ifp.if_mtu = p.if_mtu - ifv.ifv_mtufudge;
  ifp.if_baudrate = p.if_baudrate;
  ifp.if_media = p.if_media;
  ifp.if_flags = (ifp.if_flags & ~IFF_SIMPLEX) | (p.if_flags & IFF_SIMPLEX);
  ifp.if_drv_flags |= IFF_DRV_RUNNING;
  vlan_capabilities(ifv);
  vlan_setmulti(ifv);
  if_setlladdr(ifp, p.if_lladdr);
  if_link_state_change(ifp, p.if_link_state);
  return 0;
}

/**
 * Removes the interface from its parent. Does nothing if it has no parent.
 * @see vlan(4), sys/net/if_vlan.c
 */
export function vlan_unconfig(ifp: Ifnet): void {
  const ifv = softcOf(ifp);
  const trunk = ifv?.ifv_trunk ?? null;
  if (ifv === null || trunk === null) return;
  for (const addr of ifv.vlan_mc_listhead.splice(0)) if_delmulti(trunk.parent, addr);
  trunk.vlans.delete(ifv.ifv_vid);
  if (trunk.vlans.size === 0) trunk.parent.if_vlantrunk = null;
  ifv.ifv_trunk = null;
  ifv.ifv_vid = 0;
  ifv.ifv_mtufudge = 0;
  ifp.if_drv_flags &= ~IFF_DRV_RUNNING;
  ifp.if_capabilities = 0;
  ifp.if_capenable = 0;
  ifp.if_hwassist = 0;
  ifp.if_media = '';
  if_setlladdr(ifp, NO_ADDR);
  if_link_state_change(ifp, LINK_STATE_UNKNOWN);
}

/** The values of a vlan(4) interface that `ifconfig` prints. */
export interface VlanInfo {
  vlan: number;
  proto: '802.1q';
  pcp: number;
  /** The parent's name, or null. */
  parent: string | null;
}

/** The VLAN and parent of `ifp`; null if it is not a vlan(4) interface. */
export function vlanInfo(ifp: Ifnet): VlanInfo | null {
  const ifv = softcOf(ifp);
  if (ifv === null) return null;
  const parent = ifv.ifv_trunk?.parent.if_xname ?? null;
  return { vlan: ifv.ifv_vid, proto: '802.1q', pcp: 0, parent };
}

/**
 * Splits a name such as `tn0.100` into parent and VLAN id. Null: another form, or no such parent.
 */
function ethernetDotTag(vnet: Vnet, name: string): Vlanreq | null {
  const match = /^(.+)\.([1-9]\d{0,3})$/.exec(name);
  if (match === null || ifunit(vnet, match[1]!) === null) return null;
  return { vlr_parent: match[1]!, vlr_tag: Number(match[2]) };
}

const vlanCloner: IfClone = {
  ifc_name: 'vlan',
  match: (vnet, name) => ifc_simple_match('vlan', name) || ethernetDotTag(vnet, name) !== null,
  /**
   * `params`: a Vlanreq or null. ENXIO: the parent does not exist; other errors are vlan_config's.
   */
  create(vnet: Vnet, name: string, params: object | null): Errno {
    const vlr = (params as Vlanreq | null) ?? ethernetDotTag(vnet, name);
    const p = vlr === null ? null : ifunit(vnet, vlr.vlr_parent);
    if (vlr !== null && p === null) return ENXIO;
    const ifp = if_alloc(vnet, name);
    const ifv = new Ifvlan(ifp);
    ifp.if_softc = ifv;
    ifp.if_driver = ifv;
    ifp.if_media = '';
    ether_ifattach(ifp, NO_ADDR);
    ifp.if_baudrate = 0;
    ifp.if_type = IFT_L2VLAN;
    const error = p === null ? 0 : vlan_config(ifp, p, vlr!.vlr_tag);
    if (error !== 0) ether_ifdetach(ifp);
    return error;
  },
  destroy(ifp: Ifnet): void {
    vlan_unconfig(ifp);
    ether_ifdetach(ifp);
  },
};

const V_vlan = VNET_DEFINE(() => ({ attached: false }));

/** Registers vlan(4) with a stack. Further calls for the same Vnet do nothing. */
export function vlanAttach(vnet: Vnet): void {
  const v = V_vlan(vnet);
  if (v.attached) return;
  v.attached = true;
  if_clone_attach(vnet, vlanCloner);
  ifEventsRegister(vnet, {
    ifAttached(): void {},
    ifDetaching(ifp: Ifnet): void {
      if (!(ifp.if_vlantrunk instanceof Trunk)) return;
      for (const ifv of ifp.if_vlantrunk.vlans.values()) vlan_unconfig(ifv.ifv_ifp);
    },
    ifChanged(ifp: Ifnet): void {
      if (!(ifp.if_vlantrunk instanceof Trunk)) return;
      for (const { ifv_ifp } of ifp.if_vlantrunk.vlans.values()) {
        if (!ifv_ifp.if_lladdr.every((b, i) => b === ifp.if_lladdr[i]))
          if_setlladdr(ifv_ifp, ifp.if_lladdr);
      }
    },
  });
}
