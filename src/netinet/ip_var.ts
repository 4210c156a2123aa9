/**
 * IPv4's per-stack state, after sys/netinet/ip_var.h, in_var.h and protosw.h: statistics, settings,
 * local addresses, and the table of transport protocols for input and ICMP errors.
 */

import { EEXIST, EHOSTDOWN, EHOSTUNREACH, EMSGSIZE, ENOPROTOOPT } from '../sys/errno.ts';
import { ECONNREFUSED, type Errno } from '../sys/errno.ts';
import type { InAddr, Kva } from '../sys/types.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { Route } from '../net/route.ts';
import { INADDR_ANY, inAddrOf } from './in.ts';
import { fib4_lookup } from './in_fib.ts';
import type { InIfaddr } from './in_var.ts';
import { IPDEFTTL } from './ip.ts';

// Flags of ip_output.
export const IP_FORWARDING = 0x1;
/** The header is complete, ip_id included. */
export const IP_RAWOUTPUT = 0x2;
/** Replace ip_dst, a network's broadcast address, by 255.255.255.255. */
export const IP_SENDONES = 0x4;
/** Do not use the routing table: the destination is on a local network. */
export const IP_ROUTETOIF = 0x10;
export const IP_ALLOWBROADCAST = 0x20;

/** IP statistics, with FreeBSD's names. @see sys/netinet/ip_var.h */
export class Ipstat {
  ips_total = 0;
  ips_badsum = 0;
  ips_tooshort = 0;
  ips_toosmall = 0;
  ips_badhlen = 0;
  ips_badlen = 0;
  ips_fragments = 0;
  ips_fragdropped = 0;
  ips_fragtimeout = 0;
  ips_forward = 0;
  ips_fastforward = 0;
  ips_cantforward = 0;
  ips_redirectsent = 0;
  ips_noproto = 0;
  ips_delivered = 0;
  ips_localout = 0;
  ips_odropped = 0;
  ips_reassembled = 0;
  ips_fragmented = 0;
  ips_ofragments = 0;
  ips_cantfrag = 0;
  ips_badoptions = 0;
  ips_noroute = 0;
  ips_badvers = 0;
  ips_rawout = 0;
  ips_toolong = 0;
  ips_notmember = 0;
  ips_nogif = 0;
  ips_badaddr = 0;
}

// Commands of ctlinput, derived from type and code of an ICMP error. @see sys/sys/protosw.h of 13
/** A known error that changes nothing. */
export const PRC_NONE = 0;
export const PRC_MSGSIZE = 5;
const PRC_HOSTDEAD = 6;
export const PRC_UNREACH_NET = 8;
const PRC_UNREACH_HOST = 9;
const PRC_UNREACH_PROTOCOL = 10;
export const PRC_UNREACH_PORT = 11;
const PRC_UNREACH_SRCFAIL = 13;
export const PRC_TIMXCEED_INTRANS = 18;
export const PRC_PARAMPROB = 20;
export const PRC_UNREACH_ADMIN_PROHIB = 21;

/**
 * The errno that a socket gets for a ctlinput command; 0: no error.
 * @see sys/netinet/ip_input.c of 13
 */
export function inetctlerrmap(cmd: number): Errno {
  switch (cmd) {
    case PRC_MSGSIZE:
      return EMSGSIZE;
    case PRC_HOSTDEAD:
      return EHOSTDOWN;
    case PRC_UNREACH_NET:
    case PRC_UNREACH_HOST:
    case PRC_UNREACH_SRCFAIL:
    case PRC_TIMXCEED_INTRANS:
      return EHOSTUNREACH;
    case PRC_UNREACH_PROTOCOL:
    case PRC_UNREACH_PORT:
    case PRC_UNREACH_ADMIN_PROHIB:
      return ECONNREFUSED;
    case PRC_PARAMPROB:
      return ENOPROTOOPT;
    default:
      return 0;
  }
}

/** What a transport protocol registers with IP. */
export interface IpProto {
  /**
   * Input of a packet. `m` starts at a contiguous IP header of `hlen` bytes whose checksum is
   * correct, and is exactly ip_len bytes long. m_pkthdr.csum_flags holds the NIC's result. Takes
   * `m`.
   */
  input(m: Mbuf, hlen: number, vnet: Vnet): void;
  /**
   * An ICMP error about a packet that this host sent from `src` to `dst`. `l4` points to the quoted
   * start of its payload, `l4len` bytes (at least 8): the ports, for TCP also the sequence number.
   * It is borrowed for the call. `mtu` is the MTU of the next hop with PRC_MSGSIZE, else 0.
   */
  ctlinput(
    cmd: number,
    src: InAddr,
    dst: InAddr,
    l4: Kva,
    l4len: number,
    mtu: number,
    vnet: Vnet,
  ): void;
}

/** Settings under net.inet.ip, with FreeBSD's defaults. */
class IpParams {
  /** Default TTL of packets that this host originates. */
  ttl = IPDEFTTL;
  /** Forward packets for other hosts. */
  forwarding = false;
  /** Send redirects while forwarding. */
  redirect = true;
  /** Packets with DF get the id 0: RFC 6864 makes their id meaningless. */
  rfc6864 = true;
  /** Ids are random instead of a counter. */
  random_id = false;
  /** Drop received packets whose source is one of our addresses. */
  source_address_validation = true;
  /** 0: ignore IP options; 1: process them; 2: reject packets with options by an ICMP error. */
  process_options = 1;
  /** Process source routes whose next hop is another address. */
  sourceroute = false;
  /** Accept packets at the end of a source route; replies take the route back. */
  accept_sourceroute = false;
}

/** Settings under net.inet.ip.mcast, with FreeBSD's defaults. */
class McastParams {
  /** The most sources of the filter of a group, and of a socket's filter for a group. */
  maxgrpsrc = 512;
  maxsocksrc = 128;
  /** Whether a socket without multicast options receives its own multicasts. */
  loop = true;
}

/** IPv4's state of one stack. */
export class IpVnet {
  readonly stat = new Ipstat();
  readonly params = new IpParams();
  readonly mcast = new McastParams();
  readonly protox: (IpProto | null)[] = Array.from({ length: 256 }, () => null);
  /** Local addresses. */
  readonly addrs = new Map<InAddr, InIfaddr>();
  /** The route cache of senders that pass no Route to ip_output. */
  readonly scratchRoute = new Route();
  /** The route cache of forwarded packets. */
  readonly forwardRoute = new Route();
  /** The last value of the id counter. */
  ip_id: number;

  constructor(vnet: Vnet) {
    this.ip_id = vnet.prng.next32() & 0xffff;
  }
}

export const V_ip = VNET_DEFINE((vnet) => new IpVnet(vnet));

/** IP statistics of a stack, for `netstat -s`. */
export function ipstat(vnet: Vnet): Ipstat {
  return V_ip(vnet).stat;
}

/**
 * Registers a protocol for input and ICMP errors. EEXIST if the number is taken.
 * @see protosw(9)
 */
export function ipproto_register(vnet: Vnet, proto: number, pr: IpProto): Errno {
  const { protox } = V_ip(vnet);
  if (protox[proto] !== null) return EEXIST;
  protox[proto] = pr;
  return 0;
}

/** Whether `addr` is an address of this host. @see sys/netinet/in.c */
export function in_localip(vnet: Vnet, addr: InAddr): boolean {
  return V_ip(vnet).addrs.has(addr);
}

/** The source address of packets to `dst`; 0.0.0.0 if there is no route. */
export function in_sourceAddr(vnet: Vnet, dst: InAddr): InAddr {
  const nh = fib4_lookup(vnet, dst);
  return nh === null ? INADDR_ANY : inAddrOf(nh.nh_ifa.ifa_addr);
}
