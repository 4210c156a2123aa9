/**
 * A stack with one Ethernet interface. The driver records each sent frame as bytes in `sent`;
 * `inject` delivers a frame to the stack.
 */

import { expect } from 'chai';
import { SeededPrng } from '../../src/host/prng.ts';
import type { ManualClock } from '../../src/host/manual_clock.ts';
import { m_freem, m_get, m_getcl, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOMAP, M_NOWAIT, M_PKTHDR, MT_DATA } from '../../src/kern/mbuf.ts';
import { m_length } from '../../src/kern/uipc_mbuf.ts';
import { type Vnet, vnet_alloc } from '../../src/kern/vnet.ts';
import { captureInit } from '../../src/net/capture.ts';
import { if_alloc, ifConsole } from '../../src/net/if.ts';
import { ether_ifattach, ether_ifdetach, ether_ioctl } from '../../src/net/if_ethersubr.ts';
import {
  IFF_DRV_RUNNING,
  type IfDriver,
  type IfIoctl,
  type Ifnet,
  SIOCADDMULTI,
  SIOCDELMULTI,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../../src/net/if_var.ts';
import { netAttach, netDetach } from '../../src/net/net_attach.ts';
import { parseInAddr } from '../../src/netinet/in.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { inet_domain_attach, inet_domain_detach } from '../../src/netinet/in_proto.ts';
import { inet6_domain_attach, inet6_domain_detach } from '../../src/netinet6/in6_proto.ts';
import type { Errno } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import type { InAddr } from '../../src/sys/types.ts';
import { mem } from '../../src/vm/arena.ts';
import { chainBytes } from '../kern/chains.ts';
import { BROADCAST_MAC, buildArp, buildEther, ETHERTYPE_IPV4, mac } from '../support/frames.ts';
import { bootMachine, expectMachineClean } from '../support/machine.ts';

export const US = '192.0.2.2';
export const PEER = '192.0.2.1';
export const OUR_MAC = '02:00:00:00:00:02';
export const PEER_MAC = '02:00:00:00:00:01';

export const addr = (text: string): InAddr => parseInAddr(text)!;

export interface RigOptions {
  hwassist?: number;
  capabilities?: number;
  mtu?: number;
  /** Default true: the ARP entry of the peer exists. */
  arp?: boolean;
}

/** Properties of the mbuf chain that the driver was given for one frame. */
export interface SentChain {
  mbufs: number;
  unmapped: number;
  csum_flags: number;
  csum_data: number;
  tso_segsz: number;
}

export class Rig implements IfDriver {
  readonly clock: ManualClock;
  readonly vnet: Vnet;
  readonly ifp: Ifnet;
  readonly sent: Uint8Array[] = [];
  readonly chains: SentChain[] = [];
  readonly console: string[] = [];
  /** Makes the next transmissions fail. */
  txError: Errno = 0;

  constructor(options: RigOptions = {}) {
    this.clock = bootMachine();
    captureInit(this.clock);
    ifConsole.log = (line): void => void this.console.push(line);
    this.vnet = vnet_alloc(new SeededPrng(1));
    expect(netAttach(this.vnet)).to.equal(0);
    expect(inet_domain_attach(this.vnet)).to.equal(0);
    expect(inet6_domain_attach(this.vnet)).to.equal(0);
    this.ifp = if_alloc(this.vnet, 'tn0');
    this.ifp.if_driver = this;
    this.ifp.if_capabilities = this.ifp.if_capenable = options.capabilities ?? 0;
    this.ifp.if_hwassist = options.hwassist ?? 0;
    this.ifp.if_mtu = options.mtu ?? 1500;
    ether_ifattach(this.ifp, Uint8Array.from(mac(OUR_MAC)));
    expect(in_aifaddr(this.ifp, addr(US), 24)).to.equal(0);
    if (options.arp ?? true) this.arpReply(PEER, PEER_MAC);
    this.sent.length = 0;
    this.chains.length = 0;
  }

  if_init(ifp: Ifnet): void {
    ifp.if_drv_flags |= IFF_DRV_RUNNING;
  }
  if_transmit(ifp: Ifnet, m: Mbuf): Errno {
    if (this.txError !== 0) {
      m_freem(m);
      return this.txError;
    }
    ifp.if_bpf?.mtap(m, true);
    expect(m.m_pkthdr.len, 'm_pkthdr.len').to.equal(m_length(m));
    const bytes = chainBytes(m);
    const chain = { unmapped: 0, mbufs: 0 };
    for (let n: Mbuf | null = m; n !== null; n = n.m_next) {
      chain.mbufs++;
      if ((n.m_flags & M_NOMAP) !== 0) chain.unmapped++;
    }
    const { csum_flags, csum_data, tso_segsz } = m.m_pkthdr;
    this.chains.push({ ...chain, csum_flags, csum_data, tso_segsz });
    this.sent.push(bytes);
    m_freem(m);
    return 0;
  }
  if_qflush(): void {}
  if_txflush(): void {}
  if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
    switch (command) {
      case SIOCSIFCAP:
        ifp.if_capenable = data;
        return 0;
      case SIOCSIFFLAGS:
        this.if_init(ifp);
        return 0;
      case SIOCSIFMTU:
      case SIOCADDMULTI:
      case SIOCDELMULTI:
        return ether_ioctl(ifp, command, data);
    }
  }

  /** The number of segments that the NIC has coalesced into each of the next frames. */
  coalesced = 0;

  /** Delivers one frame to the stack, in mbufs of `piece` bytes if given. */
  inject(frame: Uint8Array, piece = 0): void {
    const m = piece > 0 ? pieces(frame, piece) : clusters(frame);
    m.m_pkthdr.lro_nsegs = this.coalesced;
    inPass(this.ifp.if_input!, this.ifp, m);
  }

  /** Delivers an IPv4 packet from the peer to us. */
  injectIp(packet: Uint8Array, piece = 0, dst = OUR_MAC): void {
    this.inject(buildEther({ dst, src: PEER_MAC }, ETHERTYPE_IPV4, packet), piece);
  }

  /** Delivers an ARP reply: `who` is at `sha`. */
  arpReply(who: string, sha: string): void {
    this.inject(
      buildArp({ dst: OUR_MAC, src: sha }, { op: 2, sha, spa: who, tha: OUR_MAC, tpa: US }),
    );
  }

  /** Delivers an ARP request for `tpa` from the peer. */
  arpAsk(tpa: string, spa = PEER, sha = PEER_MAC): void {
    this.inject(
      buildArp(
        { dst: BROADCAST_MAC, src: sha },
        { op: 1, sha, spa, tha: '00:00:00:00:00:00', tpa },
      ),
    );
  }

  /** Detaches everything and verifies that nothing was leaked. */
  close(): void {
    if (this.ifp.if_bpf !== null) ether_ifdetach(this.ifp);
    netDetach(this.vnet);
    inet6_domain_detach(this.vnet);
    inet_domain_detach(this.vnet);
    ifConsole.log = null;
    expectMachineClean();
  }
}

/**
 * A received frame in 2 KiB clusters, as drivers allocate them; 2 bytes of offset align the IP
 * header.
 */
function clusters(frame: Uint8Array): Mbuf {
  const top = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
  top.m_data += 2;
  let tail = top;
  for (let off = 0; off < frame.length || off === 0;) {
    if (off > 0) {
      tail.m_next = m_getcl(M_NOWAIT, MT_DATA, 0)!;
      tail = tail.m_next;
    }
    const n = Math.min(off === 0 ? 2046 : 2048, frame.length - off);
    mem.set(frame.subarray(off, off + n), tail.m_data);
    tail.m_len = n;
    off += n;
    if (n === 0) break;
  }
  top.m_pkthdr.len = frame.length;
  return top;
}

function pieces(frame: Uint8Array, piece: number): Mbuf {
  const top = m_gethdr(M_NOWAIT, MT_DATA)!;
  let tail = top;
  for (let off = 0; off < frame.length; off += piece) {
    if (off > 0) {
      tail.m_next = m_get(M_NOWAIT, MT_DATA)!;
      tail = tail.m_next;
    }
    const n = Math.min(piece, frame.length - off);
    mem.set(frame.subarray(off, off + n), tail.m_data);
    tail.m_len = n;
  }
  top.m_pkthdr.len = frame.length;
  return top;
}

/**
 * A packet as a protocol builds it: `bytes` in one mbuf or cluster, with room for max_linkhdr in
 * front.
 */
export function outPacket(bytes: Uint8Array): Mbuf {
  const m =
    bytes.length + 16 <= 168 ? m_gethdr(M_NOWAIT, MT_DATA)! : m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
  m.m_data += 16;
  mem.set(bytes, m.m_data);
  m.m_len = m.m_pkthdr.len = bytes.length;
  return m;
}
