/**
 * An Ethernet interface. The driver records each sent frame in `sent`, as bytes and with the
 * properties of its chain; `inject` delivers a frame to the stack. Capabilities depend on each
 * other as in a real driver.
 */

import { expect } from 'chai';
import {
  CSUM_IP,
  CSUM_IP6_TSO,
  CSUM_IP_TSO,
  CSUM_TCP,
  CSUM_TCP_IPV6,
  CSUM_UDP,
  CSUM_UDP_IPV6,
  type Mbuf,
  M_NOMAP,
  M_VLANTAG,
} from '../../src/kern/mbuf.ts';
import { m_freem } from '../../src/kern/kern_mbuf.ts';
import { m_length } from '../../src/kern/uipc_mbuf.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { if_alloc, if_link_state_change, ifToggleTxOffload } from '../../src/net/if.ts';
import { ether_ifattach, ether_ifdetach } from '../../src/net/if_ethersubr.ts';
import {
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFF_DRV_RUNNING,
  IFF_UP,
  type IfDriver,
  type IfIoctl,
  type Ifnet,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../../src/net/if_var.ts';
import type { Errno } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { chainBytes } from '../kern/chains.ts';
import { outPacket } from '../netinet/rig.ts';
import { mac } from '../support/frames.ts';

export interface SentFrame {
  bytes: Uint8Array;
  unmapped: number;
  /** The VLAN tag that the NIC has to insert, or null. */
  vtag: number | null;
}

const TX = IFCAP_TXCSUM | IFCAP_TXCSUM_IPV6 | IFCAP_TSO4 | IFCAP_TSO6;

export class FakeNic implements IfDriver {
  readonly ifp: Ifnet;
  readonly sent: SentFrame[] = [];

  constructor(vnet: Vnet, name: string, lladdr: string, capabilities: number) {
    this.ifp = if_alloc(vnet, name);
    this.ifp.if_driver = this;
    this.ifp.if_capabilities = this.ifp.if_capenable = capabilities;
    this.#capsync();
    ether_ifattach(this.ifp, Uint8Array.from(mac(lladdr)));
    this.link(true);
  }

  link(up: boolean): void {
    if_link_state_change(this.ifp, up ? LINK_STATE_UP : LINK_STATE_DOWN);
  }

  up(): this {
    this.ifp.if_flags |= IFF_UP;
    this.if_init(this.ifp);
    return this;
  }

  if_init(ifp: Ifnet): void {
    ifp.if_drv_flags |= IFF_DRV_RUNNING;
  }

  if_transmit(_ifp: Ifnet, m: Mbuf): Errno {
    expect(m.m_pkthdr.len, 'm_pkthdr.len').to.equal(m_length(m));
    expect(m.m_flags & M_NOMAP, 'M_NOMAP on the header mbuf').to.equal(0);
    let unmapped = 0;
    for (let n = m.m_next; n !== null; n = n.m_next) if ((n.m_flags & M_NOMAP) !== 0) unmapped++;
    const vtag = (m.m_flags & M_VLANTAG) !== 0 ? m.m_pkthdr.ether_vtag : null;
    this.sent.push({ bytes: chainBytes(m), unmapped, vtag });
    m_freem(m);
    return 0;
  }

  if_qflush(): void {}

  if_txflush(): void {}

  if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
    if (command === SIOCSIFMTU) ifp.if_mtu = data;
    if (command === SIOCSIFFLAGS) {
      if ((ifp.if_flags & IFF_UP) !== 0) ifp.if_drv_flags |= IFF_DRV_RUNNING;
      else ifp.if_drv_flags &= ~IFF_DRV_RUNNING;
    }
    if (command !== SIOCSIFCAP) return 0;
    const changed = data ^ ifp.if_capenable;
    ifp.if_capenable ^= changed & ~TX;
    const error = ifToggleTxOffload(ifp, changed);
    this.#capsync();
    return error;
  }

  /** Delivers a frame from the wire; `vtag` is the tag that the NIC stripped. */
  inject(frame: Uint8Array, vtag?: number): void {
    const m = outPacket(frame);
    if (vtag !== undefined) {
      m.m_flags |= M_VLANTAG;
      m.m_pkthdr.ether_vtag = vtag;
    }
    inPass(this.ifp.if_input!, this.ifp, m);
  }

  detach(): void {
    ether_ifdetach(this.ifp);
  }

  #capsync(): void {
    const { ifp } = this;
    const on = (cap: number): boolean => (ifp.if_capenable & cap) !== 0;
    ifp.if_hwassist =
      (on(IFCAP_TXCSUM) ? CSUM_IP | CSUM_TCP | CSUM_UDP : 0) |
      (on(IFCAP_TXCSUM_IPV6) ? CSUM_TCP_IPV6 | CSUM_UDP_IPV6 : 0) |
      (on(IFCAP_TSO4) ? CSUM_IP_TSO : 0) |
      (on(IFCAP_TSO6) ? CSUM_IP6_TSO : 0);
  }
}
