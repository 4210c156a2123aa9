/**
 * lagg(4), after sys/net/if_lagg.c: combines several interfaces (ports) into one. It supports the
 * protocols failover, loadbalance and roundrobin. The lagg has the capabilities that all its ports
 * have; other capabilities are disabled on the ports. Left out: LACP, broadcast, flow ids for the
 * hash, InfiniBand, kTLS and rate limits.
 */

import { CAPTURE_IF, CAPTURE_IN, CAPTURE_OUT } from '../sys/capture.ts';
import { countDrop } from './capture_drop.ts';
import {
  EBUSY,
  EEXIST,
  EINVAL,
  ENETDOWN,
  ENOENT,
  ENOSPC,
  EPROTONOSUPPORT,
  type Errno,
} from '../sys/errno.ts';
import { R_LAGG_DOWN, R_LAGG_INACTIVE, R_LAGG_NOPORT } from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { type Mbuf, M_MCAST, mtod, M_VLANTAG } from '../kern/mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { mem, memView } from '../vm/arena.ts';
import { ETHER_HDR_LEN, ETHERTYPE_IP } from './ethernet.ts';
import {
  if_addmulti,
  if_alloc,
  ifCapabilitiesChanged,
  if_delmulti,
  ifEventsRegister,
  if_link_state_change,
  if_setlladdr,
} from './if.ts';
import { if_clone_attach, ifc_simple_match, type IfClone } from './if_clone.ts';
import { ether_ifattach, ether_ifdetach } from './if_ethersubr.ts';
import {
  ETHER_ADDR_LEN,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_OERRORS,
  IFF_DRV_RUNNING,
  IFF_LOOPBACK,
  IFF_UP,
  if_inc_counter,
  ifCountSent,
  type IfDriver,
  type IfIoctl,
  type IfLaggPort,
  type Ifnet,
  IFT_ETHER,
  IFT_IEEE8023ADLAG,
  IFT_L2VLAN,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
  type OutputDst,
  SIOCADDMULTI,
  SIOCDELMULTI,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from './if_var.ts';

/** Most ports of one lagg. */
const LAGG_MAX_PORTS = 32;

// Port flags that `ifconfig` prints.
const LAGG_PORT_MASTER = 0x1;
const LAGG_PORT_ACTIVE = 0x4;

/** The supported protocols, the default first. */
export const laggProtos = ['failover', 'loadbalance', 'roundrobin'] as const;
type LaggProto = (typeof laggProtos)[number];

const NO_ADDR = new Uint8Array(ETHER_ADDR_LEN);

class LaggVnet {
  attached = false;
  /** net.link.lagg.failover_rx_all */
  failover_rx_all = false;
}

const V_lagg = VNET_DEFINE(() => new LaggVnet());

/** One port, with the values of the interface to restore when it leaves the lagg. */
class LaggPortSoftc implements IfLaggPort {
  readonly lp_softc: LaggSoftc;
  readonly lp_ifp: Ifnet;
  readonly lp_lladdr: Uint8Array;
  readonly lp_ifcapenable: number;
  readonly lp_iftype: number;
  readonly lp_output: Ifnet['if_output'];
  /** Group addresses that the lagg has joined on the port. */
  readonly lp_mc_head: Uint8Array[] = [];

  constructor(sc: LaggSoftc, ifp: Ifnet) {
    this.lp_softc = sc;
    this.lp_ifp = ifp;
    this.lp_lladdr = ifp.if_lladdr.slice();
    this.lp_ifcapenable = ifp.if_capenable;
    this.lp_iftype = ifp.if_type;
    this.lp_output = ifp.if_output;
  }

  get laggIfp(): Ifnet {
    return this.lp_softc.sc_ifp;
  }

  get active(): boolean {
    const { if_link_state, if_flags } = this.lp_ifp;
    return if_link_state === LINK_STATE_UP && (if_flags & IFF_UP) !== 0;
  }

  input(m: Mbuf): boolean {
    const sc = this.lp_softc;
    const ifp = sc.sc_ifp;
    if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) {
      countDrop(m, R_LAGG_DOWN, CAPTURE_IF, CAPTURE_IN);
      m_freem(m);
      return false;
    }
    if (sc.sc_proto === 'failover' && !lagg_fail_input(sc, this)) {
      countDrop(m, R_LAGG_INACTIVE, CAPTURE_IF, CAPTURE_IN);
      m_freem(m);
      return false;
    }
    m.m_pkthdr.rcvif = ifp;
    if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
    if (ifp.if_bpf !== null && ifp.if_bpf.listeners > 0) ifp.if_bpf.mtap(m, false);
    return true;
  }

  capabilities(): void {
    lagg_capabilities(this.lp_softc);
  }

  linkState(): void {
    lagg_linkstate(this.lp_softc);
  }
}

/** One lagg: its softc and its driver. @see lagg(4) */
class LaggSoftc implements IfDriver {
  readonly sc_ifp: Ifnet;
  /** Ordered by if_index. */
  readonly sc_ports: LaggPortSoftc[] = [];
  /**
   * The primary port: the first one of the lagg, and after its removal the one with the lowest
   * if_index.
   */
  sc_primary: LaggPortSoftc | null = null;
  sc_proto: LaggProto = laggProtos[0];
  /** For roundrobin: frames sent. */
  sc_seq = 0;
  /** Set while lagg_capabilities runs, because its changes to the ports call it again. */
  computing = false;

  constructor(ifp: Ifnet) {
    this.sc_ifp = ifp;
  }

  if_init(ifp: Ifnet): void {
    ifp.if_drv_flags |= IFF_DRV_RUNNING;
  }

  if_qflush(): void {}

  if_txflush(): void {}

  if_transmit(ifp: Ifnet, m: Mbuf): Errno {
    const len = m.m_pkthdr.len;
    const mcast = (m.m_flags & M_MCAST) !== 0;
    if (ifp.if_bpf !== null && ifp.if_bpf.listeners > 0) ifp.if_bpf.mtap(m, true);
    const lp = choosePort(this, m);
    if (lp === null) {
      countDrop(m, R_LAGG_NOPORT, CAPTURE_IF, CAPTURE_OUT, ifp);
      if_inc_counter(ifp, IFCOUNTER_OERRORS, 1);
      m_freem(m);
      return ENETDOWN;
    }
    const error = lp.lp_ifp.if_driver!.if_transmit(lp.lp_ifp, m);
    ifCountSent(ifp, error, len, mcast);
    return error;
  }

  if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
    switch (command) {
      case SIOCSIFFLAGS:
        if ((ifp.if_flags & IFF_UP) !== 0) ifp.if_drv_flags |= IFF_DRV_RUNNING;
        else ifp.if_drv_flags &= ~IFF_DRV_RUNNING;
        return 0;
      case SIOCSIFMTU:
        return setMtu(this, data);
      case SIOCSIFCAP:
        for (const { lp_ifp } of this.sc_ports) lp_ifp.if_driver?.if_ioctl(lp_ifp, command, data);
        lagg_capabilities(this);
        return 0;
      case SIOCADDMULTI:
      case SIOCDELMULTI:
        for (const lp of this.sc_ports) lagg_setmulti(lp);
        return 0;
    }
  }
}

function softcOf(ifp: Ifnet): LaggSoftc | null {
  return ifp.if_softc instanceof LaggSoftc ? ifp.if_softc : null;
}

/**
 * Sets the MTU of all ports and of the lagg. If a port refuses it, restores the old MTU and returns
 * the port's error.
 */
function setMtu(sc: LaggSoftc, mtu: number): Errno {
  const was = sc.sc_ifp.if_mtu;
  for (const { lp_ifp } of sc.sc_ports) {
    const error = lp_ifp.if_driver?.if_ioctl(lp_ifp, SIOCSIFMTU, mtu) ?? EINVAL;
    if (error === 0) continue;
    for (const lp of sc.sc_ports) {
      if (lp.lp_ifp.if_mtu !== was) lp.lp_ifp.if_driver?.if_ioctl(lp.lp_ifp, SIOCSIFMTU, was);
    }
    return error;
  }
  sc.sc_ifp.if_mtu = mtu;
  return 0;
}

/** Joins all group addresses of the lagg on a port. @see sys/net/if_lagg.c */
function lagg_setmulti(lp: LaggPortSoftc): void {
  lagg_clrmulti(lp);
  for (const { ifma_lladdr } of lp.lp_softc.sc_ifp.if_multiaddrs)
    if (if_addmulti(lp.lp_ifp, ifma_lladdr) === 0) lp.lp_mc_head.push(ifma_lladdr);
}

/** @see sys/net/if_lagg.c */
function lagg_clrmulti(lp: LaggPortSoftc): void {
  for (const addr of lp.lp_mc_head.splice(0)) if_delmulti(lp.lp_ifp, addr);
}

/**
 * `lp` if it is active, else the next active port; null if no port is active.
 * @see sys/net/if_lagg.c
 */
function lagg_link_active(sc: LaggSoftc, lp: LaggPortSoftc | null): LaggPortSoftc | null {
  if (lp !== null && lp.active) return lp;
  const { sc_ports } = sc;
  const n = sc_ports.length;
  const from = lp === null ? 0 : sc_ports.indexOf(lp) + 1;
  for (let i = 0; i < n; i++) {
    const next = sc_ports[(from + i) % n]!;
    if (next.active) return next;
  }
  return null;
}

/** Whether a failover lagg accepts a frame received on `lp`. @see sys/net/if_lagg.c */
function lagg_fail_input(sc: LaggSoftc, lp: LaggPortSoftc): boolean {
  const { sc_primary } = sc;
  if (lp === sc_primary || V_lagg(sc.sc_ifp.if_vnet).failover_rx_all) return true;
  const active = lagg_link_active(sc, sc_primary);
  // Accept the frame also if no port is active.
  return active === null || active === lp;
}

/** The port that sends the frame `m`; null if no port is active. Does not change `m`. */
function choosePort(sc: LaggSoftc, m: Mbuf): LaggPortSoftc | null {
  const n = sc.sc_ports.length;
  if (n === 0) return null;
  switch (sc.sc_proto) {
    case 'failover':
      return lagg_link_active(sc, sc.sc_primary);
    case 'loadbalance':
      return lagg_link_active(sc, sc.sc_ports[(laggHash(m) >>> 0) % n]!);
    case 'roundrobin':
      sc.sc_seq = (sc.sc_seq + 1) >>> 0;
      return lagg_link_active(sc, sc.sc_ports[sc.sc_seq % n]!);
  }
}

function mix(hash: number, word: number): number {
  return Math.imul(hash ^ word, 0x01000193);
}

/**
 * A hash that is the same for all packets of a flow. It covers the MAC addresses, the VLAN tag, the
 * IPv4 addresses and the ports, if they are in the first mbuf, where the stack puts them. It is
 * FNV-1a over 32-bit words; it need not equal FreeBSD's hash, whose seed is random. The result is
 * signed, because an unsigned one would be allocated on the heap.
 */
function laggHash(m: Mbuf): number {
  const p = mtod(m);
  let hash = mix(mix(0x811c9dc5 | 0, memView.getInt32(p)), memView.getInt32(p + 4));
  hash = mix(hash, memView.getInt32(p + 8));
  if ((m.m_flags & M_VLANTAG) !== 0) hash = mix(hash, m.m_pkthdr.ether_vtag);
  if (m.m_len >= ETHER_HDR_LEN + 20 && memView.getUint16(p + 12) === ETHERTYPE_IP) {
    const ip = p + ETHER_HDR_LEN;
    hash = mix(mix(hash, memView.getInt32(ip + 12)), memView.getInt32(ip + 16));
    const l4 = (mem[ip]! & 0xf) * 4;
    const proto = mem[ip + 9]!;
    const whole = (memView.getUint16(ip + 6) & 0x3fff) === 0;
    if (whole && (proto === 6 || proto === 17) && m.m_len >= ETHER_HDR_LEN + l4 + 4)
      hash = mix(hash, memView.getInt32(ip + l4));
  }
  // The low bits of a product do not depend on the high bits of a word, where the source port is.
  // Mix them in.
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b);
  return hash ^ (hash >>> 16);
}

/** The lower of two limits; 0 means no limit. */
function least(a: number, b: number): number {
  return a === 0 ? b : b === 0 ? a : Math.min(a, b);
}

function lagg_setcaps(lp: LaggPortSoftc, cap: number): void {
  const { lp_ifp } = lp;
  if (lp_ifp.if_capenable === cap) return;
  lp_ifp.if_driver?.if_ioctl(lp_ifp, SIOCSIFCAP, cap);
  lp_ifp.if_vlantrunk?.capabilities();
}

/**
 * Computes the capabilities of the lagg. Enabled are the capabilities that are enabled on every
 * port. Sets each port to them and repeats until nothing changes, because disabling one capability
 * may disable another. The supported capabilities and offloads are those that all ports have; the
 * TSO limits are the lowest of all ports. A lagg without ports has no capabilities.
 * @see sys/net/if_lagg.c
 */
function lagg_capabilities(sc: LaggSoftc): void {
  if (sc.computing) return;
  sc.computing = true;
  const { sc_ifp, sc_ports } = sc;
  let ena = sc_ports.length === 0 ? 0 : -1;
  for (const { lp_ifp } of sc_ports) ena &= lp_ifp.if_capenable;
  let before: number;
  do {
    before = ena;
    for (const lp of sc_ports) {
      lagg_setcaps(lp, ena);
      ena &= lp.lp_ifp.if_capenable;
    }
  } while (before !== ena);
  let cap = sc_ports.length === 0 ? 0 : -1;
  let hwa = cap;
  let tsomax = 0;
  let tsomaxsegcount = 0;
  let tsomaxsegsize = 0;
  for (const { lp_ifp } of sc_ports) {
    cap &= lp_ifp.if_capabilities;
    hwa &= lp_ifp.if_hwassist;
    tsomax = least(tsomax, lp_ifp.if_hw_tsomax);
    tsomaxsegcount = least(tsomaxsegcount, lp_ifp.if_hw_tsomaxsegcount);
    tsomaxsegsize = least(tsomaxsegsize, lp_ifp.if_hw_tsomaxsegsize);
  }
  sc_ifp.if_capabilities = cap;
  sc_ifp.if_capenable = ena;
  sc_ifp.if_hwassist = hwa;
  sc_ifp.if_hw_tsomax = tsomax;
  sc_ifp.if_hw_tsomaxsegcount = tsomaxsegcount;
  sc_ifp.if_hw_tsomaxsegsize = tsomaxsegsize;
  sc.computing = false;
  ifCapabilitiesChanged(sc_ifp);
}

/**
 * Sets the lagg's link state: up if the link of any port is up. Also computes the bit rate.
 * @see sys/net/if_lagg.c
 */
function lagg_linkstate(sc: LaggSoftc): void {
  let state = LINK_STATE_DOWN;
  let sum = 0;
  for (const { lp_ifp } of sc.sc_ports) {
    if (lp_ifp.if_link_state === LINK_STATE_UP) state = LINK_STATE_UP;
    sum += lp_ifp.if_baudrate;
  }
  sc.sc_ifp.if_baudrate =
    sc.sc_proto === 'failover' ? (sc.sc_primary?.lp_ifp.if_baudrate ?? 0) : sum;
  if_link_state_change(sc.sc_ifp, state);
}

/** if_output of a port: drops a packet that is sent through the port directly. ENETDOWN always. */
function lagg_port_output(_ifp: Ifnet, m: Mbuf, _dst: OutputDst): Errno {
  m_freem(m);
  return ENETDOWN;
}

/** Sets the MAC address of the lagg and all its ports to `lladdr`. */
function setLladdr(sc: LaggSoftc, lladdr: Uint8Array): void {
  if_setlladdr(sc.sc_ifp, lladdr);
  for (const { lp_ifp } of sc.sc_ports) if_setlladdr(lp_ifp, lladdr);
}

/**
 * Makes `ifp` a port of the lagg `laggIfp`. The lagg takes the MTU and the MAC address of the first
 * port; later ports get that MAC address. EINVAL: `laggIfp` is not a lagg, `ifp` is a lagg or a
 * loopback interface, or its MTU differs; EEXIST: `ifp` is already a port of this lagg; EBUSY: it
 * is a port of another lagg; EPROTONOSUPPORT: it is not Ethernet; ENOSPC: the lagg has 32 ports.
 * Unlike FreeBSD's, the first parameter is the lagg's interface.
 * @see lagg(4), sys/net/if_lagg.c
 */
export function lagg_port_create(laggIfp: Ifnet, ifp: Ifnet): Errno {
  const sc = softcOf(laggIfp);
  if (sc === null || ifp === laggIfp || (ifp.if_flags & IFF_LOOPBACK) !== 0) return EINVAL;
  if (ifp.if_lagg !== null) return ifp.if_lagg.laggIfp === laggIfp ? EEXIST : EBUSY;
  if (ifp.if_type !== IFT_ETHER && ifp.if_type !== IFT_L2VLAN) return EPROTONOSUPPORT;
  if (softcOf(ifp) !== null) return EINVAL;
  if (sc.sc_ports.length >= LAGG_MAX_PORTS) return ENOSPC;
  if (sc.sc_ports.length > 0 && ifp.if_mtu !== laggIfp.if_mtu) return EINVAL;
  const lp = new LaggPortSoftc(sc, ifp);
  ifp.if_lagg = lp;
  ifp.if_type = IFT_IEEE8023ADLAG;
  ifp.if_output = lagg_port_output;
  const at = sc.sc_ports.findIndex((other) => other.lp_ifp.if_index > ifp.if_index);
  sc.sc_ports.splice(at < 0 ? sc.sc_ports.length : at, 0, lp);
  if (sc.sc_primary === null) {
    sc.sc_primary = lp;
    laggIfp.if_mtu = ifp.if_mtu;
    if_setlladdr(laggIfp, ifp.if_lladdr);
  } else {
    if_setlladdr(ifp, laggIfp.if_lladdr);
  }
  lagg_capabilities(sc);
  lagg_linkstate(sc);
  lagg_setmulti(lp);
  return 0;
}

/**
 * Removes `ifp` from the lagg `laggIfp` and restores its MAC address and capabilities. The other
 * ports keep their capabilities. ENOENT: `ifp` is not a port of it; EINVAL: `laggIfp` is not a
 * lagg.
 * @see lagg(4), sys/net/if_lagg.c
 */
export function lagg_port_destroy(laggIfp: Ifnet, ifp: Ifnet): Errno {
  const sc = softcOf(laggIfp);
  if (sc === null) return EINVAL;
  const at = sc.sc_ports.findIndex((lp) => lp.lp_ifp === ifp);
  if (at < 0) return ENOENT;
  const lp = sc.sc_ports[at]!;
  lagg_clrmulti(lp);
  sc.sc_ports.splice(at, 1);
  ifp.if_lagg = null;
  ifp.if_type = lp.lp_iftype;
  ifp.if_output = lp.lp_output;
  if (lp === sc.sc_primary) {
    sc.sc_primary = sc.sc_ports[0] ?? null;
    setLladdr(sc, sc.sc_primary?.lp_lladdr ?? NO_ADDR);
  }
  if_setlladdr(ifp, lp.lp_lladdr);
  lagg_setcaps(lp, lp.lp_ifcapenable);
  lagg_capabilities(sc);
  lagg_linkstate(sc);
  return 0;
}

/**
 * Changes the protocol. EINVAL: `laggIfp` is not a lagg; EPROTONOSUPPORT: unknown protocol.
 * @see lagg(4)
 */
export function laggSetProto(laggIfp: Ifnet, proto: string): Errno {
  const sc = softcOf(laggIfp);
  if (sc === null) return EINVAL;
  const known = laggProtos.find((name) => name === proto);
  if (known === undefined) return EPROTONOSUPPORT;
  sc.sc_proto = known;
  lagg_linkstate(sc);
  return 0;
}

/** The values of a lagg(4) interface that `ifconfig` prints. */
export interface LaggInfo {
  proto: LaggProto;
  /** The layers that the hash covers. */
  hash: string;
  ports: { name: string; flags: number; flags_names: string[] }[];
}

/** The protocol and ports of `ifp`; null if it is not a lagg(4) interface. */
export function laggInfo(ifp: Ifnet): LaggInfo | null {
  const sc = softcOf(ifp);
  if (sc === null) return null;
  const failover = sc.sc_proto === 'failover';
  const current = lagg_link_active(sc, sc.sc_primary);
  const ports = sc.sc_ports.map((lp) => {
    const master = failover && lp === sc.sc_primary;
    const active = failover ? lp === current : lp.active;
    return {
      name: lp.lp_ifp.if_xname,
      flags: (master ? LAGG_PORT_MASTER : 0) | (active ? LAGG_PORT_ACTIVE : 0),
      flags_names: [...(master ? ['MASTER'] : []), ...(active ? ['ACTIVE'] : [])],
    };
  });
  return { proto: sc.sc_proto, hash: 'l2,l3,l4', ports };
}

const laggCloner: IfClone = {
  ifc_name: 'lagg',
  match: (_vnet, name) => ifc_simple_match('lagg', name),
  create(vnet: Vnet, name: string): Errno {
    const ifp = if_alloc(vnet, name);
    const sc = new LaggSoftc(ifp);
    ifp.if_softc = sc;
    ifp.if_driver = sc;
    ether_ifattach(ifp, NO_ADDR);
    ifp.if_baudrate = 0;
    ifp.if_link_state = LINK_STATE_DOWN;
    return 0;
  },
  destroy(ifp: Ifnet): void {
    const { sc_ports } = softcOf(ifp)!;
    for (let lp = sc_ports.at(-1); lp !== undefined; lp = sc_ports.at(-1))
      lagg_port_destroy(ifp, lp.lp_ifp);
    ether_ifdetach(ifp);
  },
};

/** Registers lagg(4) with a stack. Further calls for the same Vnet do nothing. */
export function laggAttach(vnet: Vnet): void {
  const v = V_lagg(vnet);
  if (v.attached) return;
  v.attached = true;
  vnet.sysctl.bool(
    'net.link.lagg.failover_rx_all',
    'Accept input from any interface in a failover lagg',
    () => v.failover_rx_all,
    (on) => {
      v.failover_rx_all = on;
    },
  );
  if_clone_attach(vnet, laggCloner);
  ifEventsRegister(vnet, {
    ifAttached(): void {},
    ifDetaching(ifp: Ifnet): void {
      if (ifp.if_lagg !== null) lagg_port_destroy(ifp.if_lagg.laggIfp, ifp);
    },
    ifChanged(ifp: Ifnet): void {
      // After `ifconfig lagg0 ether ...`, set the ports to the new MAC address.
      const sc = softcOf(ifp);
      if (sc === null || sc.sc_primary === null) return;
      for (const { lp_ifp } of sc.sc_ports) {
        if (!lp_ifp.if_lladdr.every((b, i) => b === ifp.if_lladdr[i]))
          if_setlladdr(lp_ifp, ifp.if_lladdr);
      }
    },
  });
}
