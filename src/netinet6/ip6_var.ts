/**
 * IPv6's per-stack state, after sys/netinet6/ip6_var.h and ip6protosw.h: statistics, settings, the
 * options of a packet to send, and the table of protocols for input and ICMPv6 errors. Left out:
 * source address statistics per scope, IPsec policies.
 */

import { EEXIST, type Errno } from '../sys/errno.ts';
import type { NetAddr } from '../sys/addr.ts';
import type { Kva } from '../sys/types.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { Route } from '../net/route.ts';
import type { InConninfo } from '../netinet/in_pcb.ts';
import { IPV6_DEFHLIM } from './ip6.ts';

// Flags of ip6_output.
/** The source may be `::`: duplicate address detection, MLD. */
export const IPV6_UNSPECSRC = 0x01;
/** Do not fragment. */
export const IPV6_DONTFRAG = 0x04;
/** Fragment to IPV6_MMTU. */
export const IPV6_MINMTU = 0x08;

/** IPv6 statistics, with FreeBSD's names. @see sys/netinet6/ip6_var.h */
export class Ip6stat {
  ip6s_total = 0;
  ip6s_tooshort = 0;
  ip6s_toosmall = 0;
  ip6s_fragments = 0;
  ip6s_fragdropped = 0;
  ip6s_fragtimeout = 0;
  ip6s_fragoverflow = 0;
  ip6s_atomicfrags = 0;
  ip6s_forward = 0;
  ip6s_cantforward = 0;
  ip6s_redirectsent = 0;
  ip6s_delivered = 0;
  ip6s_localout = 0;
  ip6s_odropped = 0;
  ip6s_reassembled = 0;
  ip6s_fragmented = 0;
  ip6s_ofragments = 0;
  ip6s_cantfrag = 0;
  ip6s_badoptions = 0;
  ip6s_noroute = 0;
  ip6s_badvers = 0;
  ip6s_rawout = 0;
  ip6s_badscope = 0;
  ip6s_notmember = 0;
  /** Received packets by the next header of the IPv6 header. */
  readonly ip6s_nxthist = new Float64Array(256);
  ip6s_toomanyhdr = 0;
}

// Values of IPV6_USE_MIN_MTU, and of IPV6_PREFER_TEMPADDR, where 0 means not to prefer. @see sys/netinet6/ip6_var.h
export const IP6PO_MINMTU_MCASTONLY = -1;
export const IP6PO_MINMTU_DISABLE = 0;
export const IP6PO_MINMTU_ALL = 1;
export const IP6PO_TEMPADDR_SYSTEM = -1;
export const IP6PO_TEMPADDR_PREFER = 1;

/** The options of packets that a program sends; all buffers are whole headers. */
export class Ip6Pktopts {
  /** -1: the default. */
  ip6po_hlim = -1;
  ip6po_tclass = -1;
  /** Outgoing interface; null: by the route. */
  ip6po_ifp: Ifnet | null = null;
  /** The source address; null: chosen by RFC 6724. */
  ip6po_src: NetAddr | null = null;
  /** The neighbour to send to; null: by the route. */
  ip6po_nexthop: NetAddr | null = null;
  /** IP6PO_MINMTU_*: which packets are fragmented to IPV6_MMTU. */
  ip6po_minmtu = IP6PO_MINMTU_MCASTONLY;
  /** IP6PO_TEMPADDR_*. */
  ip6po_prefer_tempaddr = IP6PO_TEMPADDR_SYSTEM;
  /** Extension headers in the order of the packet; null: none. Byte 0 is overwritten. */
  ip6po_hbh: Uint8Array | null = null;
  ip6po_dest1: Uint8Array | null = null;
  ip6po_rthdr: Uint8Array | null = null;
  ip6po_dest2: Uint8Array | null = null;
  /** Flags of ip6_output: IPV6_DONTFRAG, IPV6_MINMTU. */
  ip6po_flags = 0;

  /** Copies `from`. The headers are shared: they are never changed. */
  copyFrom(from: Ip6Pktopts): void {
    this.ip6po_hlim = from.ip6po_hlim;
    this.ip6po_tclass = from.ip6po_tclass;
    this.ip6po_ifp = from.ip6po_ifp;
    this.ip6po_src = from.ip6po_src;
    this.ip6po_nexthop = from.ip6po_nexthop;
    this.ip6po_minmtu = from.ip6po_minmtu;
    this.ip6po_prefer_tempaddr = from.ip6po_prefer_tempaddr;
    this.ip6po_hbh = from.ip6po_hbh;
    this.ip6po_dest1 = from.ip6po_dest1;
    this.ip6po_rthdr = from.ip6po_rthdr;
    this.ip6po_dest2 = from.ip6po_dest2;
    this.ip6po_flags = from.ip6po_flags;
  }
}

/** How to send to groups. @see sys/netinet6/ip6_var.h */
export class Ip6Moptions {
  /** Outgoing interface; null: by the zone or the route. */
  im6o_multicast_ifp: Ifnet | null = null;
  im6o_multicast_hlim = 1;
  /** Whether members of the group on this host get a copy. */
  im6o_multicast_loop = true;
}

/** An mbuf flag of received packets: the packet had a fragment header. @see sys/netinet6/ip6_var.h */
export const M_FRAGMENTED = 0x200000;

/** The packet that the input functions process. */
export const ip6Input: {
  m: Mbuf | null;
  /** The offset of the current header. */
  off: number;
  /** The offset of the byte that contains the number of the current header, and of the next one. */
  nxtOff: number;
  next: number;
} = { m: null, off: 0, nxtOff: 0, next: 0 };

/** What a protocol or an extension header registers with IPv6. @see sys/netinet6/ip6protosw.h */
export interface Ip6Proto {
  /**
   * Input of the packet in `ip6Input`. An extension header moves `ip6Input.off` behind itself, may
   * replace `ip6Input.m`, and returns the number of the next header. IPPROTO_DONE: `m` was taken.
   */
  input(m: Mbuf, off: number, vnet: Vnet): number;
  /**
   * An ICMPv6 error about a packet that this host sent. The local address of `inc` is its source,
   * the foreign one its destination. `l4` points to `l4len` quoted bytes of its payload (at least
   * 8). `mtu` is set with PRC_MSGSIZE, else 0.
   */
  ctlinput(cmd: number, inc: InConninfo, l4: Kva, l4len: number, mtu: number, vnet: Vnet): void;
}

/** Settings under net.inet6.ip6, with FreeBSD's defaults. */
class Ip6Params {
  hlim = IPV6_DEFHLIM;
  /** Hop limit of packets to groups, without IPV6_MULTICAST_HOPS. */
  mcast_hlim = 1;
  /** Maximum number of extension headers of a received packet. */
  hdrnestlimit = 15;
  auto_flowlabel = true;
  /** Give each interface with IPv6 a link-local address. */
  auto_linklocal = true;
  /** Drop received packets whose source is one of our addresses. */
  source_address_validation = true;
  /** Accept a link-local address without a zone: its interface is the only one. */
  use_defaultzone = false;
  /** The default of IPV6_V6ONLY. */
  v6only = true;
  /** Prefer temporary addresses as source. */
  prefer_tempaddr = false;
  /** Forward packets between interfaces: the stack is a router. */
  forwarding = false;
  /** Send redirects when forwarding. */
  redirect = true;
  /** No flag R in advertisements of interfaces that accept router advertisements. */
  norbit_raif = false;
  /** Solicitations of duplicate address detection; 0: no detection. */
  dad_count = 1;
  /** Send a nonce with them: RFC 7527. */
  dad_enhanced = 1;
  /** New interfaces accept router advertisements. */
  accept_rtadv = false;
  /** New interfaces ignore the routers of advertisements. */
  no_radr = false;
  /** Accept the routers of advertisements while forwarding: RFC 6204, W-3. */
  rfc6204w3 = false;
  /** Add temporary addresses to those of advertised prefixes: RFC 8981. */
  use_tempaddr = false;
  /** Lifetimes of temporary addresses, seconds. */
  temp_preferred_lifetime = 86_400;
  temp_valid_lifetime = 604_800;
  /** Seconds by which temporary addresses become deprecated earlier; -1: not chosen yet. */
  desync_factor = -1;
  /** New interfaces have stable identifiers: RFC 7217. */
  use_stableaddr = false;
  /** Duplicates of stable addresses of an interface that are replaced. */
  stableaddr_maxretries = 3;
  /** What names the interface in a stable identifier: STABLEADDR_NETIFSRC_*. */
  stableaddr_netifsource = 0;
  /** Use deprecated addresses as source if there is no other. */
  use_deprecated = true;
}

/** Settings under net.inet6.ip6.mcast, with FreeBSD's defaults. */
class Mcast6Params {
  /** The most sources of a group, and of a socket's filter. */
  maxgrpsrc = 512;
  maxsocksrc = 128;
  /** Whether this host receives its own multicasts, without IPV6_MULTICAST_LOOP. */
  loop = true;
}

/** TCP's segment sizes over IPv6. @see sys/netinet/tcp_subr.c */
class V6TcpMss {
  mssdflt = 1220;
  pmtud_blackhole_mss = 1220;
}

/** IPv6's state of one stack. */
export class Ip6Vnet {
  readonly stat = new Ip6stat();
  readonly params = new Ip6Params();
  readonly mcast = new Mcast6Params();
  readonly tcpMss = new V6TcpMss();
  readonly inet6sw: (Ip6Proto | null)[] = Array.from({ length: 256 }, () => null);
  /** The route cache of senders that pass no Route to ip6_output. */
  readonly scratchRoute = new Route();
  /** The route cache of forwarded packets. */
  readonly forwardRoute = new Route();
  /** Seeds of flow labels and fragment identifications. */
  readonly flowSeed: number;
  fragId: number;

  constructor(vnet: Vnet) {
    this.flowSeed = vnet.prng.next32() | 0;
    this.fragId = vnet.prng.next32() | 0;
  }
}

export const V_ip6 = VNET_DEFINE((vnet) => new Ip6Vnet(vnet));

/** IPv6 statistics of a stack, for `netstat -s`. */
export function ip6stat(vnet: Vnet): Ip6stat {
  return V_ip6(vnet).stat;
}

/**
 * Registers a protocol or an extension header. EEXIST: the number is taken.
 * @see sys/netinet6/in6_proto.c
 */
export function ip6proto_register(vnet: Vnet, proto: number, pr: Ip6Proto): Errno {
  const { inet6sw } = V_ip6(vnet);
  if (inet6sw[proto] !== null) return EEXIST;
  inet6sw[proto] = pr;
  return 0;
}
