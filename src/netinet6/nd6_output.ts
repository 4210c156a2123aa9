/**
 * Sends neighbour solicitations: nd6_ns_output of sys/netinet6/nd6_nbr.c (RFC 4861, 4.3 and 7.2.2).
 * A solicitation goes past ip6_output to the link: its next hop needs no resolution, and it may be
 * caused by ip6_output itself.
 */

import { nextPktId } from '../sys/packet_id.ts';
import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { count, R_IP6_NOBUFS } from '../sys/reason.ts';
import { kva } from '../sys/types.ts';
import { m_gethdr } from '../kern/kern_mbuf.ts';
import { M_ALIGN, type Mbuf, M_MCAST, M_NOWAIT, MT_DATA, mtod } from '../kern/mbuf.ts';
import { ETHERTYPE_IPV6 } from '../net/ethernet.ts';
import { etherSend } from '../net/if_ethersubr.ts';
import { ETHER_ADDR_LEN, IFF_DRV_RUNNING, IFF_UP, type Ifnet } from '../net/if_var.ts';
import { mem, memView } from '../vm/arena.ts';
import {
  ICMP6_CKSUM_OFF,
  ND_HLIM,
  ND_NEIGHBOR_LEN,
  ND_NEIGHBOR_SOLICIT,
  ND_OPT_NONCE,
  ND_OPT_SOURCE_LINKADDR,
  ND_TARGET_OFF,
} from './icmp6.ts';
import { icmp6Count } from './icmp6_var.ts';
import { IN6_IS_ADDR_MULTICAST, IN6_IS_ADDR_UNSPECIFIED, in6Put, in6SolicitedNode } from './in6.ts';
import { in6_cksum } from './in6_cksum.ts';
import { ETHER_MAP_IPV6_MULTICAST } from './in6_mcast.ts';
import { in6_selectsrc } from './in6_src.ts';
import { IN6_IFF_NOTREADY, in6Enabled, in6ifa_ifpforlinklocal } from './in6_var.ts';
import { Ip6, IP6_DST_OFF, IP6_SRC_OFF, IPPROTO_ICMPV6, IPV6_VERSION } from './ip6.ts';
import { ip6stat } from './ip6_var.ts';
import { ND_OPT_LLADDR_LEN, ND_OPT_NONCE_LEN } from './nd6_options.ts';
import { in6ClearscopeAt, in6_setscope } from './scope6.ts';

const $ip6 = new Ip6();
const $dst = new NetAddr();
const mac = new Uint8Array(ETHER_ADDR_LEN);

/** Writes the option `type` with the Ethernet address `lladdr` to the 8 bytes at `p`. */
export function ndPutLladdr(p: number, type: number, lladdr: Uint8Array): void {
  mem[p] = type;
  mem[p + 1] = 1;
  for (let i = 0; i < ETHER_ADDR_LEN; i++) mem[p + 2 + i] = lladdr[i]!;
}

/** Writes the option with a nonce to the 8 bytes at `p`. */
function putNonce(p: number, nonce: Uint8Array): void {
  mem[p] = ND_OPT_NONCE;
  mem[p + 1] = 1;
  for (let i = 0; i < ND_OPT_NONCE_LEN; i++) mem[p + 2 + i] = nonce[i]!;
}

/**
 * A new mbuf with an IPv6 header for `len` bytes of ICMPv6, hop limit 255; null: no mbuf. The caller
 * writes the addresses and the message.
 */
export function ndPacket(len: number): Mbuf | null {
  const m = m_gethdr(M_NOWAIT, MT_DATA);
  if (m === null) {
    count(R_IP6_NOBUFS);
    return null;
  }
  M_ALIGN(m, Ip6.SIZE + len);
  m.m_len = m.m_pkthdr.len = Ip6.SIZE + len;
  m.m_pkthdr.pktId = nextPktId();
  const p = mtod(m);
  mem.fill(0, p, p + m.m_len);
  $ip6.at(p);
  $ip6.ip6_flow = IPV6_VERSION << 24;
  $ip6.ip6_plen = len;
  $ip6.ip6_nxt = IPPROTO_ICMPV6;
  $ip6.ip6_hlim = ND_HLIM;
  return m;
}

/** The source of a solicitation: `saddr` if it is given, else an address for `dst`. */
function sourceOf(ifp: Ifnet, saddr: AddrWords | null, dst: AddrWords): AddrWords | null {
  if (saddr !== null) return saddr;
  const ia = in6_selectsrc(ifp.if_vnet, dst, ifp) ?? in6ifa_ifpforlinklocal(ifp, IN6_IFF_NOTREADY);
  return ia === null ? null : ia.ifa_addr;
}

/**
 * Sends a solicitation for `taddr` on `ifp`. `saddr`: the source; null: chosen here; `::` for duplicate
 * address detection. `lladdr`: the Ethernet address of a neighbour whose reachability is probed; null:
 * send to the solicited-node group. `nonce`: ND_OPT_NONCE_LEN bytes for the option; null: without it.
 * @see sys/netinet6/nd6_nbr.c
 */
export function nd6_ns_output(
  ifp: Ifnet,
  saddr: AddrWords | null,
  lladdr: Uint8Array | null,
  taddr: AddrWords,
  nonce: Uint8Array | null = null,
): void {
  if (IN6_IS_ADDR_MULTICAST(taddr) || !in6Enabled(ifp)) return;
  if ((ifp.if_flags & IFF_UP) === 0 || (ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return;
  if (lladdr === null) in6SolicitedNode(taddr, $dst);
  else $dst.setFrom(taddr);
  in6_setscope($dst, ifp);
  const src = sourceOf(ifp, saddr, $dst);
  if (src === null) return;
  const dad = IN6_IS_ADDR_UNSPECIFIED(src);
  const option = dad ? (nonce === null ? 0 : 2 + ND_OPT_NONCE_LEN) : ND_OPT_LLADDR_LEN;
  const len = ND_NEIGHBOR_LEN + option;
  const m = ndPacket(len);
  if (m === null) return;
  const p = mtod(m);
  in6Put(p + IP6_SRC_OFF, src);
  in6Put(p + IP6_DST_OFF, $dst);
  const ns = kva(p + Ip6.SIZE);
  mem[ns] = ND_NEIGHBOR_SOLICIT;
  in6Put(ns + ND_TARGET_OFF, taddr);
  if (!dad) ndPutLladdr(ns + ND_NEIGHBOR_LEN, ND_OPT_SOURCE_LINKADDR, ifp.if_lladdr);
  else if (nonce !== null) putNonce(ns + ND_NEIGHBOR_LEN, nonce);
  in6ClearscopeAt(p + IP6_SRC_OFF);
  in6ClearscopeAt(p + IP6_DST_OFF);
  in6ClearscopeAt(ns + ND_TARGET_OFF);
  memView.setUint16(ns + ICMP6_CKSUM_OFF, in6_cksum(m, IPPROTO_ICMPV6, Ip6.SIZE, len));
  icmp6Count(ifp.if_vnet, ND_NEIGHBOR_SOLICIT);
  ip6stat(ifp.if_vnet).ip6s_localout++;
  if (lladdr === null) {
    m.m_flags |= M_MCAST;
    ETHER_MAP_IPV6_MULTICAST($dst, mac);
    etherSend(ifp, m, mac, ETHERTYPE_IPV6);
  } else {
    etherSend(ifp, m, lladdr, ETHERTYPE_IPV6);
  }
}
