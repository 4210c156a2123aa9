/**
 * IPv4 on sockets of AF_INET6, after in6_mapped_sockaddr and in6_sin6_2_sin of sys/netinet6: an
 * IPv4-mapped address ::ffff:a.b.c.d means the IPv4 address a.b.c.d unless IPV6_V6ONLY is set
 * (RFC 3493, 3.7). Such a connection is one of IPv4: its PCB contains IPv4 addresses, and its packets
 * are IPv4's. Only here they have the mapped form, on the way from and to the program.
 */

import type { AddrWords } from '../sys/addr.ts';
import { EAFNOSUPPORT, EINVAL, type Errno } from '../sys/errno.ts';
import { AF_INET, AF_INET6 } from '../kern/protosw.ts';
import { Sockaddr, SOCKADDR_IN6_SIZE, SOCKADDR_IN_SIZE } from '../kern/sockaddr.ts';
import {
  IN6P_IPV6_V6ONLY,
  type InConninfo,
  INP_IPV4,
  INP_IPV6,
  INP_IPV6PROTO,
  type InpAf,
  type Inpcb,
  inpaf,
  pcbSetFamily,
} from './in_pcb.ts';

/** The upper words of a mapped address. */
function isMapped(a: AddrWords): boolean {
  return a.w0 === 0 && a.w1 === 0 && a.w2 === 0xffff;
}

/** Sets `to` to the IPv4 address in the mapped address `from`. @see sys/netinet6/in6.c */
function in6_sin6_2_sin(to: Sockaddr, from: Sockaddr): Sockaddr {
  to.len = SOCKADDR_IN_SIZE;
  to.family = AF_INET;
  to.port = from.port;
  to.set(from.w3);
  return to;
}

/** Changes the IPv4 address `sa` into a mapped address. @see sys/netinet6/in6.c */
function in6_sin_2_v4mapsin6(sa: Sockaddr): Sockaddr {
  sa.len = SOCKADDR_IN6_SIZE;
  sa.family = AF_INET6;
  sa.set(0, 0, 0xffff, sa.w0);
  sa.flowinfo = 0;
  sa.scope_id = 0;
  return sa;
}

/** Whether the socket of `inp` is of AF_INET6. */
function isInet6(inp: Inpcb): boolean {
  return (inp.inp_vflag & INP_IPV6PROTO) !== 0;
}

/** The address family of the socket of `inp`. */
function domainOf(inp: Inpcb): number {
  return isInet6(inp) ? AF_INET6 : inp.inp_af.family;
}

/** The table of the family of the socket of `inp`, which has its socket options. */
export function socketAf(inp: Inpcb): InpAf {
  return isInet6(inp) ? inpaf(inp.inp_vnet, AF_INET6) : inp.inp_af;
}

/**
 * Sets `to` to inc's foreign or local address and port as the program of `inp` sees it: an IPv4 address
 * of an AF_INET6 socket is mapped. @see sys/netinet6/in6_pcb.c
 */
export function in6_mapped_sockaddr(
  inp: Inpcb,
  inc: InConninfo,
  foreign: boolean,
  to: Sockaddr,
): Sockaddr {
  const af = inc === inp.inp_inc ? inp.inp_af : inpaf(inp.inp_vnet, inc.inc_family);
  af.sockaddr(inc, foreign, to);
  return to.family === AF_INET && isInet6(inp) ? in6_sin_2_v4mapsin6(to) : to;
}

/** An address that a program named, with the family to use. `of` and `bindFamily` set it. */
export const peer: { af: InpAf | null; nam: Sockaddr } = { af: null, nam: new Sockaddr() };

const $sin = new Sockaddr();

/** The address ::1 with the port of `nam`. As a destination, :: means this host. */
function loopback6(nam: Sockaddr): Sockaddr {
  $sin.len = nam.len;
  $sin.family = nam.family;
  $sin.port = nam.port;
  $sin.set(0, 0, 0, 1);
  $sin.flowinfo = 0;
  $sin.scope_id = 0;
  return $sin;
}

/**
 * Sets `peer` to the foreign address `nam` in the form to use for `inp`. EAFNOSUPPORT: other family, or
 * one that the socket does not use. EINVAL: a mapped address with IPV6_V6ONLY.
 */
export function peerFamily(inp: Inpcb, nam: Sockaddr): Errno {
  if (nam.family !== domainOf(inp)) return EAFNOSUPPORT;
  peer.nam = nam;
  peer.af = isInet6(inp) ? inpaf(inp.inp_vnet, AF_INET6) : inp.inp_af;
  if (!isInet6(inp)) return 0;
  if (!isMapped(nam)) {
    if (nam.isAny()) peer.nam = loopback6(nam);
    return (inp.inp_vflag & INP_IPV6) === 0 ? EAFNOSUPPORT : 0;
  }
  if ((inp.inp_flags & IN6P_IPV6_V6ONLY) !== 0) return EINVAL;
  if ((inp.inp_vflag & INP_IPV4) === 0) return EAFNOSUPPORT;
  peer.nam = in6_sin6_2_sin($sin, nam);
  peer.af = inpaf(inp.inp_vnet, AF_INET);
  return 0;
}

/**
 * Sets the families of `inp` for its local address `nam`, null: any, and `peer` to the form of `nam` to
 * use. EAFNOSUPPORT: other family.
 */
export function bindFamily(inp: Inpcb, nam: Sockaddr | null): Errno {
  if (nam !== null && nam.family !== domainOf(inp)) return EAFNOSUPPORT;
  if (nam !== null) peer.nam = nam;
  if (!isInet6(inp)) return 0;
  const only = (inp.inp_flags & IN6P_IPV6_V6ONLY) !== 0;
  if (nam !== null && !only && isMapped(nam)) {
    peer.nam = in6_sin6_2_sin($sin, nam);
    pcbSetFamily(inp, AF_INET);
    return 0;
  }
  pcbSetFamily(inp, AF_INET6);
  if (!only && (nam === null || nam.isAny())) inp.inp_vflag |= INP_IPV4;
  return 0;
}

/** IPv4's table if an AF_INET6 socket with the address :: also gets IPv4, else null. */
export function alsoInet(inp: Inpcb): InpAf | null {
  const both = INP_IPV4 | INP_IPV6;
  return (inp.inp_vflag & both) === both ? inpaf(inp.inp_vnet, AF_INET) : null;
}
