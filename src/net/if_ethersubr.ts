/**
 * Ethernet, after sys/net/if_ethersubr.c. Output: address resolution and framing. Input: checks,
 * taps, lagg(4) ports, 802.1Q tags and dispatch. Left out: bridge, netgraph and carp hooks, sending
 * 802.1p priorities, link-layer packet filters.
 */

import { CAPTURE_IF, CAPTURE_IN, CAPTURE_OUT } from '../sys/capture.ts';
import { countDrop, noteLost, pullupInput } from './capture_drop.ts';
import {
  EAFNOSUPPORT,
  EINVAL,
  ENETDOWN,
  ENOBUFS,
  EOPNOTSUPP,
  type Errno,
  EWOULDBLOCK,
} from '../sys/errno.ts';
import {
  count,
  R_ETHER_DOWN,
  R_ETHER_LONG,
  R_ETHER_LOOP,
  R_ETHER_NOTUS,
  R_ETHER_SHORT,
  R_ETHER_TYPE,
  R_ETHER_VLAN,
  R_IF_NOBUFS,
  type Reason,
} from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { M_BCAST, type Mbuf, M_MCAST, M_NOWAIT, mtod, M_VLANTAG } from '../kern/mbuf.ts';
import { m_adj, M_PREPEND } from '../kern/uipc_mbuf.ts';
import { kva } from '../sys/types.ts';
import { mem, memView } from '../vm/arena.ts';
import { bpfattach, bpfdetach, DLT_EN10MB } from './bpf.ts';
import {
  EVL_VLANOFTAG,
  etherbroadcastaddr,
  EtherHeader,
  ETHER_HDR_LEN,
  ETHERMTU,
  ETHERTYPE_VLAN,
  ETHER_VLAN_ENCAP_LEN,
} from './ethernet.ts';
import { if_attach, if_detach } from './if.ts';
import { loopBroadcast } from './if_loop.ts';
import {
  ETHER_ADDR_LEN,
  IFCOUNTER_IBYTES,
  IFCOUNTER_IERRORS,
  IFCOUNTER_IMCASTS,
  IFCOUNTER_NOPROTO,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OQDROPS,
  IFF_BROADCAST,
  IFF_DRV_RUNNING,
  IFF_MONITOR,
  IFF_MULTICAST,
  IFF_SIMPLEX,
  IFF_UP,
  if_inc_counter,
  type IfIoctl,
  type Ifnet,
  IFT_ETHER,
  type OutputDst,
  SIOCSIFMTU,
} from './if_var.ts';
import { netisr_dispatch, netisrOfEthertype } from './netisr.ts';

const $eh = new EtherHeader();

/**
 * Initializes `ifp` as an Ethernet interface with address `lladdr` (6 bytes) and attaches it. The
 * driver has set capabilities, if_driver and if_mtu before.
 * @see ifnet(9)
 */
export function ether_ifattach(ifp: Ifnet, lladdr: Uint8Array): void {
  ifp.if_lladdr.set(lladdr.subarray(0, ifp.if_lladdr.length));
  ifp.if_type = IFT_ETHER;
  ifp.if_hdrlen = ETHER_HDR_LEN;
  ifp.if_flags |= IFF_BROADCAST | IFF_SIMPLEX | IFF_MULTICAST;
  ifp.if_output = ether_output;
  ifp.if_input = ether_input;
  if (ifp.if_baudrate === 0) ifp.if_baudrate = 10_000_000;
  bpfattach(ifp, DLT_EN10MB, ETHER_HDR_LEN);
  if_attach(ifp);
}

/**
 * Detaches an Ethernet interface. Frames that arrive or are sent later are dropped.
 * @see ifnet(9)
 */
export function ether_ifdetach(ifp: Ifnet): void {
  if_detach(ifp);
  bpfdetach(ifp);
  ifp.if_output = discardOutput;
  ifp.if_input = discardInput;
}

function discardOutput(_ifp: Ifnet, m: Mbuf): Errno {
  m_freem(m);
  return ENETDOWN;
}

function discardInput(_ifp: Ifnet, m: Mbuf): void {
  m_freem(m);
}

/**
 * The default if_ioctl, for commands that a driver does not handle. SIOCSIFMTU: EINVAL above 1500;
 * a driver with jumbo frames handles this command itself. EOPNOTSUPP: any other command.
 * Part of the ifnet(9) library: the stack itself does not call it.
 * @see ifnet(9)
 */
export function ether_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
  if (command !== SIOCSIFMTU) return EOPNOTSUPP;
  if (data > ETHERMTU) return EINVAL;
  ifp.if_mtu = data;
  return 0;
}

function outputError(ifp: Ifnet, m: Mbuf, error: Errno): Errno {
  if_inc_counter(ifp, IFCOUNTER_OERRORS, 1);
  m_freem(m);
  return error;
}

/**
 * Sends a packet to the next hop `dst` on this link: resolves the Ethernet address, prepends the
 * header and passes the frame to the driver. Takes `m` on every outcome. Returns 0 also if the
 * packet is held until the address is resolved. ENETDOWN: the interface is not up and running.
 * ENOBUFS: no mbuf for the header. EAFNOSUPPORT: the interface has no resolver for the family. Else
 * the errno of the resolver or the driver. With IFF_SIMPLEX a copy of a broadcast is looped back as
 * input.
 * @see ifnet(9)
 */
export function ether_output(ifp: Ifnet, m: Mbuf, dst: OutputDst): Errno {
  if (
    (ifp.if_flags & (IFF_UP | IFF_MONITOR)) !== IFF_UP ||
    (ifp.if_drv_flags & IFF_DRV_RUNNING) === 0
  ) {
    countDrop(m, R_ETHER_DOWN, CAPTURE_IF, CAPTURE_OUT, ifp);
    return outputError(ifp, m, ENETDOWN);
  }
  const resolver = ifp.if_afdata[dst.family] ?? null;
  if (resolver === null) return outputError(ifp, m, EAFNOSUPPORT);
  let dhost: Uint8Array = etherbroadcastaddr;
  if ((m.m_flags & M_BCAST) === 0) {
    const error = resolver.resolve(ifp, m, dst);
    if (error !== 0) return error === EWOULDBLOCK ? 0 : error;
    dhost = resolver.resolved.ll_addr;
  }
  const top = encapsulate(ifp, m, dhost, resolver.ethertype);
  if (top === null) return ENOBUFS;
  if ((top.m_flags & M_BCAST) !== 0 && (ifp.if_flags & IFF_SIMPLEX) !== 0)
    loopBroadcast(ifp, top, dst.family, ETHER_HDR_LEN);
  return ifp.if_driver!.if_transmit(ifp, top);
}

/** Prepends an Ethernet header to `m`. Takes `m`. Null: no mbuf; the drop is counted. */
function encapsulate(ifp: Ifnet, m: Mbuf, dhost: Uint8Array, type: number): Mbuf | null {
  const { pktId, len } = m.m_pkthdr;
  const top = M_PREPEND(m, ETHER_HDR_LEN, M_NOWAIT);
  if (top === null) {
    if_inc_counter(ifp, IFCOUNTER_OQDROPS, 1);
    count(R_IF_NOBUFS);
    noteLost(pktId, len, R_IF_NOBUFS, CAPTURE_IF, CAPTURE_OUT, ifp);
    return null;
  }
  $eh.at(mtod(top));
  $eh.setDhost(dhost);
  $eh.setShost(ifp.if_lladdr);
  $eh.ether_type = type;
  return top;
}

/**
 * Prepends an Ethernet header with `type` and destination `dhost` (6 bytes) to `m` and passes the
 * frame to the driver. Takes `m` on every outcome. ARP and ND send with this function. Unlike
 * FreeBSD, which passes a prepared header in the route.
 */
export function etherSend(ifp: Ifnet, m: Mbuf, dhost: Uint8Array, type: number): Errno {
  const top = encapsulate(ifp, m, dhost, type);
  if (top === null) return ENOBUFS;
  return ifp.if_driver!.if_transmit(ifp, top);
}

function inputDrop(ifp: Ifnet, m: Mbuf, why: Reason): void {
  if_inc_counter(ifp, IFCOUNTER_IERRORS, 1);
  countDrop(m, why, CAPTURE_IF, CAPTURE_IN);
  m_freem(m);
}

/**
 * Input of a frame: checks it, passes it to the taps and dispatches it. Takes `m`, which starts at
 * the Ethernet header. The driver counts IFCOUNTER_IPACKETS; this function counts IFCOUNTER_IBYTES.
 * @see ifnet(9)
 */
function ether_input(ifp: Ifnet, m: Mbuf): void {
  if ((ifp.if_flags & IFF_UP) === 0) {
    countDrop(m, R_ETHER_DOWN, CAPTURE_IF, CAPTURE_IN);
    m_freem(m);
    return;
  }
  const len = m.m_pkthdr.len;
  if (len < ETHER_HDR_LEN) return inputDrop(ifp, m, R_ETHER_SHORT);
  const top = m.m_len < ETHER_HDR_LEN ? pullupInput(m, ETHER_HDR_LEN, R_IF_NOBUFS, CAPTURE_IF) : m;
  if (top === null) {
    if_inc_counter(ifp, IFCOUNTER_IERRORS, 1);
    return;
  }
  m = top;
  $eh.at(mtod(m));
  m.m_pkthdr.rcvif = ifp;
  // A frame that the NIC coalesced (lro_nsegs > 1) may exceed the MTU.
  const tag = $eh.ether_type === ETHERTYPE_VLAN ? ETHER_VLAN_ENCAP_LEN : 0;
  if (len > ifp.if_mtu + ETHER_HDR_LEN + tag && m.m_pkthdr.lro_nsegs <= 1)
    return inputDrop(ifp, m, R_ETHER_LONG);
  if_inc_counter(ifp, IFCOUNTER_IBYTES, len);
  if ($eh.isMulticast) {
    m.m_flags |= $eh.isBroadcast ? M_BCAST : M_MCAST;
    if_inc_counter(ifp, IFCOUNTER_IMCASTS, 1);
  }
  if (ifp.if_bpf !== null && ifp.if_bpf.listeners > 0) ifp.if_bpf.mtap(m, false);
  if ((ifp.if_flags & IFF_MONITOR) !== 0) return m_freem(m);
  // The link returned a frame that this interface sent: drop it.
  if ((ifp.if_flags & IFF_SIMPLEX) !== 0 && $eh.shostIs(ifp.if_lladdr)) {
    countDrop(m, R_ETHER_LOOP, CAPTURE_IF, CAPTURE_IN);
    m_freem(m);
    return;
  }
  if (ifp.if_lagg !== null) {
    if (!ifp.if_lagg.input(m)) return;
    ifp = ifp.if_lagg.laggIfp;
  }
  if ((m.m_flags & M_VLANTAG) === 0 && $eh.ether_type !== ETHERTYPE_VLAN) ether_demux(ifp, m);
  else tagged(ifp, m);
}

const macs = new Uint8Array(2 * ETHER_ADDR_LEN);

/**
 * Inserts the 802.1Q tag `tag` after the addresses of a frame. The header is written to mapped
 * memory: to the first mbuf if it has room before its data, else to a new mbuf. Takes `m`. Null: no
 * mbuf.
 * @see sys/net/if_ethersubr.c
 */
export function ether_vlanencap(m: Mbuf, tag: number): Mbuf | null {
  let src: number = mtod(m);
  const type = memView.getUint16(src + 2 * ETHER_ADDR_LEN);
  for (let i = 0; i < macs.length; i++) macs[i] = mem[src + i]!;
  m.m_data = kva(m.m_data + ETHER_HDR_LEN);
  m.m_len -= ETHER_HDR_LEN;
  m.m_pkthdr.len -= ETHER_HDR_LEN;
  const top = M_PREPEND(m, ETHER_HDR_LEN + ETHER_VLAN_ENCAP_LEN, M_NOWAIT);
  if (top === null) return null;
  src = mtod(top);
  for (let i = 0; i < macs.length; i++) mem[src + i] = macs[i]!;
  memView.setUint16(src + 12, ETHERTYPE_VLAN);
  memView.setUint16(src + 14, tag);
  memView.setUint16(src + 16, type);
  return top;
}

/**
 * Removes the 802.1Q tag of a frame of at least 18 bytes and stores it as a NIC does: M_VLANTAG and
 * ether_vtag. Takes `m`. Null: no mbuf.
 */
function etherVlanDecap(m: Mbuf): Mbuf | null {
  const top = pullupInput(m, ETHER_HDR_LEN + ETHER_VLAN_ENCAP_LEN, R_IF_NOBUFS, CAPTURE_IF);
  if (top === null) return null;
  const p = mtod(top);
  top.m_pkthdr.ether_vtag = memView.getUint16(p + ETHER_HDR_LEN);
  top.m_flags |= M_VLANTAG;
  mem.copyWithin(p + ETHER_VLAN_ENCAP_LEN, p, p + 2 * ETHER_ADDR_LEN);
  m_adj(top, ETHER_VLAN_ENCAP_LEN);
  return top;
}

/**
 * Input of a tagged frame: removes the tag, if the NIC has not, and passes the frame to its
 * vlan(4). Takes `m`.
 */
function tagged(ifp: Ifnet, m: Mbuf): void {
  if ((m.m_flags & M_VLANTAG) === 0) {
    if (m.m_pkthdr.len < ETHER_HDR_LEN + ETHER_VLAN_ENCAP_LEN)
      return inputDrop(ifp, m, R_ETHER_SHORT);
    const top = etherVlanDecap(m);
    if (top === null) {
      if_inc_counter(ifp, IFCOUNTER_IERRORS, 1);
      return;
    }
    m = top;
  }
  const { ether_vtag } = m.m_pkthdr;
  m.m_flags &= ~M_VLANTAG;
  $eh.at(mtod(m));
  if (EVL_VLANOFTAG(ether_vtag) === 0) {
    // VLAN 0: a priority tag (IEEE 802.1Q 9.6). Treat the frame as untagged.
    ether_demux(ifp, m);
  } else if (ifp.if_vlantrunk !== null) {
    ifp.if_vlantrunk.input(m, ether_vtag);
  } else {
    if_inc_counter(ifp, IFCOUNTER_NOPROTO, 1);
    countDrop(m, R_ETHER_VLAN, CAPTURE_IF, CAPTURE_IN);
    m_freem(m);
  }
}

/** Removes the Ethernet header of a checked frame and dispatches it to its protocol. Takes `m`. */
function ether_demux(ifp: Ifnet, m: Mbuf): void {
  const type = $eh.ether_type;
  // An interface in promiscuous mode, or without a filter, receives frames for other stations.
  if ((m.m_flags & (M_BCAST | M_MCAST)) === 0 && !$eh.dhostIs(ifp.if_lladdr)) {
    countDrop(m, R_ETHER_NOTUS, CAPTURE_IF, CAPTURE_IN);
    m_freem(m);
    return;
  }
  const isr = netisrOfEthertype(ifp.if_vnet, type);
  if (isr === 0) {
    if_inc_counter(ifp, IFCOUNTER_NOPROTO, 1);
    countDrop(m, R_ETHER_TYPE, CAPTURE_IF, CAPTURE_IN);
    m_freem(m);
    return;
  }
  m_adj(m, ETHER_HDR_LEN);
  netisr_dispatch(ifp.if_vnet, isr, m);
}
