/**
 * The interface between an emulated host and a test script: point-to-point, raw IP packets. Each
 * sent packet is queued with its time. Left out: link-level headers, offloads, and for IPv6 a link-local
 * address and neighbour discovery.
 */

import type { AddrWords } from '../sys/addr.ts';
import { EAFNOSUPPORT, EEXIST, ENETDOWN, type Errno } from '../sys/errno.ts';
import { inAddr, type InAddr, kva } from '../sys/types.ts';
import { mem } from '../vm/arena.ts';
import { m_freem, m_getcl } from '../kern/kern_mbuf.ts';
import { m_copydata } from '../kern/m_copydata.ts';
import { type Mbuf, M_NOWAIT, M_PKTHDR, MCLBYTES, MT_DATA } from '../kern/mbuf.ts';
import { AF_INET, AF_INET6 } from '../kern/protosw.ts';
import { nowNs } from '../kern/kern_timeout.ts';
import type { Vnet } from '../kern/vnet.ts';
import { if_alloc, if_attach, if_detach } from '../net/if.ts';
import {
  IFCOUNTER_IPACKETS,
  IFCOUNTER_OPACKETS,
  IFF_DRV_RUNNING,
  IFF_POINTOPOINT,
  IFF_UP,
  if_inc_counter,
  type IfDriver,
  type IfIoctl,
  type Ifnet,
  LINK_STATE_UP,
  SIOCSIFMTU,
} from '../net/if_var.ts';
import { NETISR_IP, NETISR_IPV6, netisr_dispatch } from '../net/netisr.ts';
import { Nhop, RTF_UP } from '../net/route.ts';
import { inRouteAdd } from '../netinet/in_fib.ts';
import { inPrimary } from '../netinet/in_var.ts';
import { in_aifaddr } from '../netinet/in_ifaddr.ts';
import { in6addr_any } from '../netinet6/in6.ts';
import { in6RouteAdd } from '../netinet6/in6_fib.ts';
import { in6_aifaddr } from '../netinet6/in6_ifattach.ts';
import {
  IN6_IFF_NODAD,
  in6Ifextra,
  in6ifa_ifpwithaddr,
  ND6_IFF_AUTO_LINKLOCAL,
} from '../netinet6/in6_var.ts';
import { inPass } from '../sys/pass.ts';

/** A packet that the stack sent. */
export interface SentPacket {
  readonly bytes: Uint8Array;
  readonly timeNs: number;
}

/** Length of the queue of sent packets. If it is full, new packets are dropped. */
const QUEUE_MAX = 65536;

/**
 * The interface `pd0`: queues the stack's packets in `sent`; `inject` passes packets to the stack.
 */
export class PacketdrillWire implements IfDriver {
  readonly ifp: Ifnet;
  /** Packets that were sent and not taken yet, the oldest first. */
  readonly sent: SentPacket[] = [];
  dropped = 0;

  constructor(vnet: Vnet, mtu: number) {
    const ifp = if_alloc(vnet, 'pd0');
    this.ifp = ifp;
    ifp.if_mtu = mtu;
    ifp.if_flags = IFF_POINTOPOINT | IFF_UP;
    ifp.if_drv_flags = IFF_DRV_RUNNING;
    ifp.if_link_state = LINK_STATE_UP;
    ifp.if_driver = this;
    ifp.if_output = (_ifp, m, dst): Errno => this.#output(m, dst.family);
    ifp.if_input = (_ifp, m): void => m_freem(m);
    if_attach(ifp);
  }

  /**
   * Adds an address to the host; an existing one is kept. The first address gets the default route.
   * Returns 0 or an errno of in_aifaddr or rib_add_route.
   */
  addAddress(addr: InAddr): Errno {
    return inPass(() => this.#addAddress(addr));
  }

  #addAddress(addr: InAddr): Errno {
    const first = inPrimary(this.ifp) === null;
    const error = in_aifaddr(this.ifp, addr, 32);
    if (error !== 0) return error === EEXIST ? 0 : error;
    if (!first) return 0;
    const nh = new Nhop(this.ifp, inPrimary(this.ifp)!, null, RTF_UP, 0);
    return inRouteAdd(this.ifp.if_vnet, inAddr(0), 0, nh);
  }

  /** Like `addAddress`, for an IPv6 address without a zone. */
  addAddress6(addr: AddrWords): Errno {
    return inPass(() => this.#addAddress6(addr));
  }

  #addAddress6(addr: AddrWords): Errno {
    const { nd_ifinfo: nd } = in6Ifextra(this.ifp)!;
    const first = (nd.flags & ND6_IFF_AUTO_LINKLOCAL) !== 0;
    nd.flags &= ~ND6_IFF_AUTO_LINKLOCAL;
    const error = in6_aifaddr(this.ifp, addr, 128, IN6_IFF_NODAD);
    if (error !== 0) return error === EEXIST ? 0 : error;
    if (!first) return 0;
    const ia = in6ifa_ifpwithaddr(this.ifp, addr)!;
    return in6RouteAdd(this.ifp.if_vnet, in6addr_any, 0, new Nhop(this.ifp, ia, null, RTF_UP, 0));
  }

  /** Passes a packet to the stack, which has processed it when this returns. */
  inject(packet: Uint8Array): void {
    inPass(() => {
      const top = clusters(packet);
      top.m_pkthdr.rcvif = this.ifp;
      if_inc_counter(this.ifp, IFCOUNTER_IPACKETS, 1);
      const six = packet.length > 0 && packet[0]! >>> 4 === 6;
      netisr_dispatch(this.ifp.if_vnet, six ? NETISR_IPV6 : NETISR_IP, top);
    });
  }

  detach(): void {
    this.sent.length = 0;
    if_detach(this.ifp);
  }

  #output(m: Mbuf, family: number): Errno {
    const known = family === AF_INET || family === AF_INET6;
    if (!known || (this.ifp.if_flags & IFF_UP) === 0) {
      m_freem(m);
      return known ? ENETDOWN : EAFNOSUPPORT;
    }
    const { len } = m.m_pkthdr;
    if_inc_counter(this.ifp, IFCOUNTER_OPACKETS, 1);
    if (this.sent.length >= QUEUE_MAX) this.dropped++;
    else this.sent.push({ bytes: bytesOf(m, len), timeNs: nowNs() });
    m_freem(m);
    return 0;
  }

  // IfDriver. The stack sends only through if_output.
  if_init(): void {}
  if_transmit(_ifp: Ifnet, m: Mbuf): Errno {
    m_freem(m);
    return EAFNOSUPPORT;
  }
  if_qflush(): void {}
  if_txflush(): void {}
  if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
    if (command === SIOCSIFMTU) ifp.if_mtu = data;
    return 0;
  }
}

/**
 * Returns the packet's bytes. Copies them through a cluster with m_copydata, because unmapped mbufs
 * have no address.
 */
function bytesOf(m: Mbuf, len: number): Uint8Array {
  const out = new Uint8Array(len);
  const via = m_getcl(M_NOWAIT, MT_DATA, 0)!;
  for (let off = 0; off < len; off += MCLBYTES) {
    const n = Math.min(MCLBYTES, len - off);
    m_copydata(m, off, n, kva(via.m_data));
    out.set(mem.subarray(via.m_data, via.m_data + n), off);
  }
  m_freem(via);
  return out;
}

/** Copies a packet to clusters, as a driver receives it. */
function clusters(packet: Uint8Array): Mbuf {
  const top = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
  let tail = top;
  for (let off = 0; off < packet.length;) {
    if (off > 0) {
      tail.m_next = m_getcl(M_NOWAIT, MT_DATA, 0)!;
      tail = tail.m_next;
    }
    const n = Math.min(MCLBYTES, packet.length - off);
    mem.set(packet.subarray(off, off + n), tail.m_data);
    tail.m_len = n;
    off += n;
  }
  top.m_pkthdr.len = packet.length;
  return top;
}
