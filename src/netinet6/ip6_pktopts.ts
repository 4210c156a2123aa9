/**
 * Options of packets to send: the socket options of RFC 3542 and the control messages of sendmsg(2),
 * after ip6_setpktopt and ip6_getpcbopt of sys/netinet6/ip6_output.c. Left out: privileges.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import {
  EADDRNOTAVAIL,
  EAFNOSUPPORT,
  EINVAL,
  ENETDOWN,
  ENOPROTOOPT,
  ENXIO,
  type Errno,
} from '../sys/errno.ts';
import { AF_INET6, IPPROTO_TCP } from '../kern/protosw.ts';
import { SOCKADDR_IN6_SIZE } from '../kern/sockaddr.ts';
import { intBytes, view } from '../kern/sockopt.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { Ifnet } from '../net/if_var.ts';
import { in6Sockaddr, IN6_IS_ADDR_MULTICAST, IN6_IS_ADDR_UNSPECIFIED } from './in6.ts';
import { in6Enabled, in6ifa_ifpwithaddr } from './in6_var.ts';
import {
  IP6PO_MINMTU_ALL,
  IP6PO_MINMTU_MCASTONLY,
  IP6PO_TEMPADDR_PREFER,
  IP6PO_TEMPADDR_SYSTEM,
  type Ip6Pktopts,
  IPV6_DONTFRAG as SEND_DONTFRAG,
} from './ip6_var.ts';
import { in6_clearscope, in6_getlinkifnet, in6_setscope, sa6_embedscope } from './scope6.ts';
import { port } from '../sys/types.ts';

// Names of options and types of control messages. @see sys/netinet6/in6.h
export const IPV6_RTHDRDSTOPTS = 35;
export const IPV6_USE_MIN_MTU = 42;
export const IPV6_PKTINFO = 46;
export const IPV6_HOPLIMIT = 47;
export const IPV6_NEXTHOP = 48;
export const IPV6_HOPOPTS = 49;
export const IPV6_DSTOPTS = 50;
export const IPV6_RTHDR = 51;
export const IPV6_TCLASS = 61;
export const IPV6_DONTFRAG = 62;
export const IPV6_PREFER_TEMPADDR = 63;

/** struct in6_pktinfo: address, then the index of the interface. */
export const PKTINFO_SIZE = 20;
const IPV6_RTHDR_TYPE_0 = 0;
const NONE = new Uint8Array();

/** The names that `ip6_setpktopt` knows and that may be socket options. */
const STICKY: ReadonlySet<number> = new Set([
  IPV6_PKTINFO,
  IPV6_NEXTHOP,
  IPV6_HOPOPTS,
  IPV6_DSTOPTS,
  IPV6_RTHDRDSTOPTS,
  IPV6_RTHDR,
  IPV6_USE_MIN_MTU,
  IPV6_DONTFRAG,
  IPV6_TCLASS,
  IPV6_PREFER_TEMPADDR,
]);

/** Whether `name` is a socket option about the packets to send. */
export function isPktopt(name: number): boolean {
  return STICKY.has(name);
}

/** Reads an address in the layout of struct in6_addr. */
export function in6AddrOf(v: DataView, off: number): NetAddr {
  const a = new NetAddr();
  a.set(v.getInt32(off), v.getInt32(off + 4), v.getInt32(off + 8), v.getInt32(off + 12));
  return a;
}

/** IPV6_PKTINFO: source address and interface; both 0 remove the option. */
function setPktinfo(vnet: Vnet, opt: Ip6Pktopts, buf: Uint8Array, tcp: boolean): Errno {
  if (buf.length !== PKTINFO_SIZE) return EINVAL;
  const a = in6AddrOf(view(buf), 0);
  const index = view(buf).getUint32(16, true);
  const any = IN6_IS_ADDR_UNSPECIFIED(a);
  if ((tcp && !any) || IN6_IS_ADDR_MULTICAST(a)) return EINVAL;
  const ifp: Ifnet | null = index === 0 ? null : in6_getlinkifnet(vnet, index);
  if (index !== 0 && ifp === null) return ENXIO;
  if (ifp !== null && !in6Enabled(ifp)) return ENETDOWN;
  if (ifp !== null && !any) {
    in6_setscope(a, ifp);
    if (in6ifa_ifpwithaddr(ifp, a) === null) return EADDRNOTAVAIL;
  }
  opt.ip6po_ifp = ifp;
  opt.ip6po_src = any ? null : a;
  return 0;
}

/** IPV6_NEXTHOP: struct sockaddr_in6 of a neighbour. */
function setNexthop(vnet: Vnet, opt: Ip6Pktopts, buf: Uint8Array): Errno {
  if (buf.length === 0) {
    opt.ip6po_nexthop = null;
    return 0;
  }
  if (buf.length < 16 || buf.length < buf[0]!) return EINVAL;
  if (buf[1] !== AF_INET6) return EAFNOSUPPORT;
  if (buf[0] !== SOCKADDR_IN6_SIZE) return EINVAL;
  const v = view(buf);
  const sa = in6Sockaddr(in6AddrOf(v, 8), port(0), v.getUint32(24, true));
  if (IN6_IS_ADDR_UNSPECIFIED(sa) || IN6_IS_ADDR_MULTICAST(sa)) return EINVAL;
  const error = sa6_embedscope(vnet, sa);
  if (error !== 0) return error;
  opt.ip6po_nexthop = new NetAddr();
  opt.ip6po_nexthop.setFrom(sa);
  return 0;
}

/** A whole extension header in `buf`, copied; null: removes it. EINVAL: the length is wrong. */
function header(buf: Uint8Array): Uint8Array | null | Errno {
  if (buf.length === 0) return null;
  if (buf.length < 2 || buf.length !== (buf[1]! + 1) << 3) return EINVAL;
  return buf.slice();
}

/** Only type 0 exists, and each segment must be unvisited. ip6_output does not send it. */
function badRthdr(h: Uint8Array): boolean {
  const len = h[1]!;
  return h[2] !== IPV6_RTHDR_TYPE_0 || len === 0 || len % 2 !== 0 || len / 2 !== h[3];
}

/** Sets one of the extension headers. */
function setHeader(opt: Ip6Pktopts, name: number, buf: Uint8Array): Errno {
  const h = header(buf);
  if (typeof h === 'number') return h;
  switch (name) {
    case IPV6_HOPOPTS:
      opt.ip6po_hbh = h;
      return 0;
    case IPV6_RTHDRDSTOPTS:
      opt.ip6po_dest1 = h;
      return 0;
    case IPV6_DSTOPTS:
      opt.ip6po_dest2 = h;
      return 0;
    default:
      if (h !== null && badRthdr(h)) return EINVAL;
      opt.ip6po_rthdr = h;
      return 0;
  }
}

/** Sets an option whose value is the int `v`. EINVAL: out of range. */
function setInt(opt: Ip6Pktopts, name: number, v: number, tcp: boolean): Errno {
  switch (name) {
    case IPV6_HOPLIMIT:
      if (v < -1 || v > 255) return EINVAL;
      opt.ip6po_hlim = v;
      return 0;
    case IPV6_TCLASS:
      if (v < -1 || v > 255) return EINVAL;
      opt.ip6po_tclass = v;
      return 0;
    case IPV6_USE_MIN_MTU:
      if (v < IP6PO_MINMTU_MCASTONLY || v > IP6PO_MINMTU_ALL) return EINVAL;
      opt.ip6po_minmtu = v;
      return 0;
    case IPV6_PREFER_TEMPADDR:
      if (v < IP6PO_TEMPADDR_SYSTEM || v > IP6PO_TEMPADDR_PREFER) return EINVAL;
      opt.ip6po_prefer_tempaddr = v;
      return 0;
    default:
      // As on FreeBSD, TCP ignores IPV6_DONTFRAG.
      if (tcp || v === 0) opt.ip6po_flags &= ~SEND_DONTFRAG;
      else opt.ip6po_flags |= SEND_DONTFRAG;
      return 0;
  }
}

/**
 * Sets the option `name` to `buf`, from a socket option (`sticky`) or a control message of a socket of
 * the protocol `uproto`. EINVAL: wrong size or value. ENOPROTOOPT: unknown, or a hop limit as socket
 * option. ENXIO, ENETDOWN, EADDRNOTAVAIL, EAFNOSUPPORT: the interface or address does not fit.
 * @see ip6(4)
 */
export function ip6_setpktopt(
  vnet: Vnet,
  opt: Ip6Pktopts,
  name: number,
  buf: Uint8Array,
  sticky: boolean,
  uproto: number,
): Errno {
  const tcp = uproto === IPPROTO_TCP;
  switch (name) {
    case IPV6_PKTINFO:
      return setPktinfo(vnet, opt, buf, tcp && sticky);
    case IPV6_NEXTHOP:
      return setNexthop(vnet, opt, buf);
    case IPV6_HOPOPTS:
    case IPV6_RTHDRDSTOPTS:
    case IPV6_RTHDR:
    case IPV6_DSTOPTS:
      return setHeader(opt, name, buf);
    case IPV6_HOPLIMIT:
    case IPV6_TCLASS:
    case IPV6_USE_MIN_MTU:
    case IPV6_DONTFRAG:
    case IPV6_PREFER_TEMPADDR:
      if (name === IPV6_HOPLIMIT && sticky) return ENOPROTOOPT;
      if (buf.length !== 4) return EINVAL;
      return setInt(opt, name, view(buf).getInt32(0, true), tcp);
    default:
      return ENOPROTOOPT;
  }
}

/** The value of IPV6_PKTINFO. */
function pktinfoValue(opt: Ip6Pktopts | null): Uint8Array {
  const bytes = new Uint8Array(PKTINFO_SIZE);
  const v = view(bytes);
  if (opt?.ip6po_src) {
    const a = new NetAddr();
    a.setFrom(opt.ip6po_src);
    in6_clearscope(a);
    in6AddrPut(v, 0, a);
  }
  v.setUint32(16, opt?.ip6po_ifp?.if_index ?? 0, true);
  return bytes;
}

/** Writes an address in the layout of struct in6_addr. */
export function in6AddrPut(v: DataView, off: number, a: AddrWords): void {
  v.setInt32(off, a.w0);
  v.setInt32(off + 4, a.w1);
  v.setInt32(off + 8, a.w2);
  v.setInt32(off + 12, a.w3);
}

/** The value of IPV6_NEXTHOP: struct sockaddr_in6. */
function nexthopValue(a: NetAddr | null): Uint8Array {
  if (a === null) return NONE;
  const bytes = new Uint8Array(SOCKADDR_IN6_SIZE);
  bytes.set([SOCKADDR_IN6_SIZE, AF_INET6]);
  in6AddrPut(view(bytes), 8, a);
  return bytes;
}

/** The value of a socket option that `isPktopt` names. @see sys/netinet6/ip6_output.c */
export function ip6_getpcbopt(opt: Ip6Pktopts | null, name: number): Uint8Array {
  switch (name) {
    case IPV6_PKTINFO:
      return pktinfoValue(opt);
    case IPV6_TCLASS:
      return intBytes(Math.max(opt?.ip6po_tclass ?? 0, 0));
    case IPV6_HOPOPTS:
      return opt?.ip6po_hbh ?? NONE;
    case IPV6_RTHDR:
      return opt?.ip6po_rthdr ?? NONE;
    case IPV6_RTHDRDSTOPTS:
      return opt?.ip6po_dest1 ?? NONE;
    case IPV6_DSTOPTS:
      return opt?.ip6po_dest2 ?? NONE;
    case IPV6_NEXTHOP:
      return nexthopValue(opt?.ip6po_nexthop ?? null);
    case IPV6_USE_MIN_MTU:
      return intBytes(opt?.ip6po_minmtu ?? IP6PO_MINMTU_MCASTONLY);
    case IPV6_DONTFRAG:
      return intBytes(opt !== null && (opt.ip6po_flags & SEND_DONTFRAG) !== 0 ? 1 : 0);
    default:
      return intBytes(opt?.ip6po_prefer_tempaddr ?? IP6PO_TEMPADDR_SYSTEM);
  }
}
