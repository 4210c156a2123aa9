/**
 * The loopback interface, after sys/net/if_loop.c: packets to local addresses are queued as input
 * for the end of the pass, so that local traffic does not recurse. lo0 does not have IFCAP_NOMAP:
 * ip_output converts unmapped packets before.
 */

import { CAPTURE_IF, CAPTURE_OUT } from '../sys/capture.ts';
import { noteLost } from './capture_drop.ts';
import { EAFNOSUPPORT, ENETDOWN, EOPNOTSUPP, type Errno } from '../sys/errno.ts';
import { count, R_IF_NOBUFS } from '../sys/reason.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_DELAY_DATA,
  CSUM_DELAY_DATA_IPV6,
  CSUM_IP,
  CSUM_IP_CHECKED,
  CSUM_IP_VALID,
  CSUM_PSEUDO_HDR,
  CSUM_TCP,
  CSUM_TCP_IPV6,
  CSUM_UDP,
  CSUM_UDP_IPV6,
  type Mbuf,
  M_LOOP,
  M_NOWAIT,
} from '../kern/mbuf.ts';
import { m_adj, m_dup, M_PREPEND } from '../kern/uipc_mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { memView } from '../vm/arena.ts';
import { bpfattach, DLT_NULL } from './bpf.ts';
import { if_alloc, if_attach } from './if.ts';
import {
  IFCAP_HWCSUM,
  IFCAP_HWCSUM_IPV6,
  IFCAP_LINKSTATE,
  IFCOUNTER_IBYTES,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_IQDROPS,
  IFCOUNTER_OBYTES,
  IFCOUNTER_OPACKETS,
  IFF_DRV_RUNNING,
  IFF_LOOPBACK,
  IFF_MULTICAST,
  IFF_UP,
  if_inc_counter,
  type IfDriver,
  type IfIoctl,
  type Ifnet,
  IFT_LOOP,
  LINK_STATE_UP,
  type OutputDst,
  SIOCADDMULTI,
  SIOCDELMULTI,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from './if_var.ts';
import { netisrOfFamily, netisr_queue } from './netisr.ts';

/** The lo0 of a stack, the interface of the routes to its own addresses. Null before loAttach. */
export const V_loif = VNET_DEFINE((): { ifp: Ifnet | null } => ({ ifp: null }));

const LOMTU = 16384;
const LO_CSUM_FEATURES = CSUM_IP | CSUM_TCP | CSUM_UDP;
const LO_CSUM_FEATURES6 = CSUM_TCP_IPV6 | CSUM_UDP_IPV6;
const LO_CSUM_SET = CSUM_DATA_VALID | CSUM_PSEUDO_HDR | CSUM_IP_CHECKED | CSUM_IP_VALID;

const loDriver: IfDriver = {
  if_init(): void {},
  if_transmit(_ifp, m): Errno {
    m_freem(m);
    return EOPNOTSUPP;
  },
  if_qflush(): void {},
  if_txflush(): void {},
  if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
    switch (command) {
      case SIOCSIFMTU:
        ifp.if_mtu = data;
        return 0;
      case SIOCSIFCAP:
        ifp.if_capenable = data;
        ifp.if_hwassist =
          ((data & IFCAP_HWCSUM) === IFCAP_HWCSUM ? LO_CSUM_FEATURES : 0) |
          ((data & IFCAP_HWCSUM_IPV6) === IFCAP_HWCSUM_IPV6 ? LO_CSUM_FEATURES6 : 0);
        return 0;
      case SIOCSIFFLAGS:
      case SIOCADDMULTI:
      case SIOCDELMULTI:
        return 0;
    }
  },
};

/**
 * Passes a packet to the taps with a header of 4 bytes, the family (DLT_NULL). Returns the packet
 * without it, or null if no mbuf was free.
 */
function tap(ifp: Ifnet, m: Mbuf, family: number): Mbuf | null {
  if (ifp.if_bpf === null || ifp.if_bpf.listeners === 0) return m;
  const top = M_PREPEND(m, 4, M_NOWAIT);
  if (top === null) return null;
  // In host byte order, as DLT_NULL defines. Readers detect the order by the small value.
  memView.setUint32(top.m_data, family, true);
  ifp.if_bpf.mtap(top, false);
  top.m_data += 4;
  top.m_len -= 4;
  top.m_pkthdr.len -= 4;
  return top;
}

/**
 * The if_output of lo0: queues the packet as input of `ifp`. IPv6 passes the interface whose zone the
 * addresses belong to as `ifp`; else it is lo0. The taps of lo0 get the packet. Takes `m`.
 * @see ifnet(9)
 */
function looutput(ifp: Ifnet, m: Mbuf, dst: OutputDst): Errno {
  if ((ifp.if_flags & IFF_UP) === 0) {
    m_freem(m);
    return ENETDOWN;
  }
  if (netisrOfFamily(ifp.if_vnet, dst.family) === 0) {
    m_freem(m);
    return EAFNOSUPPORT;
  }
  const { len, pktId } = m.m_pkthdr;
  if_inc_counter(ifp, IFCOUNTER_OPACKETS, 1);
  if_inc_counter(ifp, IFCOUNTER_OBYTES, len);
  const top = tap(V_loif(ifp.if_vnet).ifp!, m, dst.family);
  if (top === null) {
    count(R_IF_NOBUFS);
    noteLost(pktId, len, R_IF_NOBUFS, CAPTURE_IF, CAPTURE_OUT, ifp);
    return 0;
  }
  trustSums(top);
  top.m_flags |= M_LOOP;
  return if_simloop(ifp, top, dst.family, 0);
}

/** Marks checksums that were left to the NIC as verified: a looped packet cannot be damaged. */
function trustSums(m: Mbuf): void {
  const ph = m.m_pkthdr;
  const asked = ph.csum_flags;
  ph.csum_flags = 0;
  ph.csum_data = 0;
  ph.tso_segsz = 0;
  if ((asked & (CSUM_DELAY_DATA | CSUM_DELAY_DATA_IPV6)) !== 0) {
    ph.csum_flags = LO_CSUM_SET;
    ph.csum_data = 0xffff;
  } else if ((asked & CSUM_IP) !== 0) {
    ph.csum_flags = CSUM_IP_CHECKED | CSUM_IP_VALID;
  }
}

/**
 * Queues `m`, which `ifp` sent, as input of `ifp` at the end of the pass, without its first `hlen`
 * bytes. If it has a link header (`hlen` > 0), the taps get it. Takes `m`. Returns the errno of
 * netisr_queue.
 * @see sys/net/if_loop.c
 */
function if_simloop(ifp: Ifnet, m: Mbuf, af: number, hlen: number): Errno {
  m.m_pkthdr.rcvif = ifp;
  if (hlen > 0) {
    if (ifp.if_bpf !== null && ifp.if_bpf.listeners > 0) ifp.if_bpf.mtap(m, false);
    m_adj(m, hlen);
  }
  if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
  if_inc_counter(ifp, IFCOUNTER_IBYTES, m.m_pkthdr.len);
  return netisr_queue(ifp.if_vnet, netisrOfFamily(ifp.if_vnet, af), m);
}

/**
 * Queues a copy of the broadcast frame `m`, which is about to be sent, as input of `ifp`, because a
 * simplex interface does not receive its own broadcasts. Counts IFCOUNTER_IQDROPS if no mbuf is
 * free. Does not take `m`.
 */
export function loopBroadcast(ifp: Ifnet, m: Mbuf, af: number, hlen: number): void {
  const n = m_dup(m, M_NOWAIT);
  if (n === null) {
    if_inc_counter(ifp, IFCOUNTER_IQDROPS, 1);
    return;
  }
  trustSums(n);
  if_simloop(ifp, n, af, hlen);
}

/**
 * Queues a copy of the packet `m` to a group, which is about to be sent, as input of `ifp`, because
 * this host is a member. The taps do not get it. Does not take `m`.
 * @see sys/netinet6/ip6_output.c (there ip6_mloop)
 */
export function loopMulticast(ifp: Ifnet, m: Mbuf, af: number): void {
  const n = m_dup(m, M_NOWAIT);
  if (n === null) {
    if_inc_counter(ifp, IFCOUNTER_IQDROPS, 1);
    return;
  }
  loopCopy(ifp, n, af);
}

/**
 * Queues `m`, a copy of a multicast packet that `ifp` sends, as input of `ifp`. Its checksums count as
 * verified. Takes `m`.
 */
export function loopCopy(ifp: Ifnet, m: Mbuf, af: number): void {
  trustSums(m);
  m.m_flags |= M_LOOP;
  if_simloop(ifp, m, af, 0);
}

/** Creates lo0 of a stack: up, without addresses. @see lo(4) */
export function loAttach(vnet: Vnet): Ifnet {
  const ifp = if_alloc(vnet, 'lo0');
  ifp.if_type = IFT_LOOP;
  ifp.if_groups = ['lo'];
  ifp.if_mtu = LOMTU;
  ifp.if_flags = IFF_LOOPBACK | IFF_MULTICAST | IFF_UP;
  ifp.if_drv_flags = IFF_DRV_RUNNING;
  ifp.if_capabilities = IFCAP_HWCSUM | IFCAP_HWCSUM_IPV6 | IFCAP_LINKSTATE;
  ifp.if_capenable = ifp.if_capabilities;
  ifp.if_hwassist = LO_CSUM_FEATURES | LO_CSUM_FEATURES6;
  ifp.if_link_state = LINK_STATE_UP;
  ifp.if_media = '';
  ifp.if_driver = loDriver;
  ifp.if_output = looutput;
  ifp.if_input = (_ifp, m): void => m_freem(m);
  V_loif(vnet).ifp = ifp;
  bpfattach(ifp, DLT_NULL, 4);
  if_attach(ifp);
  return ifp;
}
