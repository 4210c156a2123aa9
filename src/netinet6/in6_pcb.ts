/**
 * The part of a PCB that only IPv6 uses, after the in6p_* fields of sys/netinet/in_pcb.h. It is created
 * when a program sets the first option.
 */

import type { Inpcb } from '../netinet/in_pcb.ts';
import { in6Ifextra } from './in6_var.ts';
import { in6_selectif } from './in6_src.ts';
import { IPV6_DEFHLIM } from './ip6.ts';
import { Ip6Pktopts, V_ip6 } from './ip6_var.ts';
import { NetAddr } from '../sys/addr.ts';

// inp_flags
export const IN6P_PKTINFO = 0x00010000;
export const IN6P_HOPLIMIT = 0x00020000;
export const IN6P_HOPOPTS = 0x00040000;
export const IN6P_DSTOPTS = 0x00080000;
export const IN6P_RTHDR = 0x00100000;
export const IN6P_RTHDRDSTOPTS = 0x00200000;
export const IN6P_TCLASS = 0x00400000;
export const IN6P_AUTOFLOWLABEL = 0x00800000;
/** In FreeBSD a bit of inp_flags2. */
export const IN6P_ORIGDSTADDR = 0x01000000;
export const IN6P_MTU = 0x80000000 | 0;
/** The options that request control messages of received packets. */
export const IN6P_CONTROLOPTS =
  IN6P_PKTINFO |
  IN6P_HOPLIMIT |
  IN6P_HOPOPTS |
  IN6P_DSTOPTS |
  IN6P_RTHDR |
  IN6P_RTHDRDSTOPTS |
  IN6P_TCLASS |
  IN6P_ORIGDSTADDR |
  IN6P_MTU;

/** IPv6's options of a socket. */
class In6pcb {
  /** IPV6_UNICAST_HOPS; -1: the default. */
  in6p_hops = -1;
  /** The options of each packet; null: none. */
  in6p_outputopts: Ip6Pktopts | null = null;
  /** ICMP6_FILTER: a bit per type that passes; null: all. */
  in6p_icmp6filt: Uint32Array | null = null;
}

/** The options of `inp`; null: the defaults. */
export function in6pcbOf(inp: Inpcb): In6pcb | null {
  return inp.inp_in6 as In6pcb | null;
}

/** The options of `inp`, to change. */
export function in6pcb(inp: Inpcb): In6pcb {
  inp.inp_in6 ??= new In6pcb();
  return inp.inp_in6 as In6pcb;
}

/** The options of each packet of `inp`, or null. */
export function in6OutputOpts(inp: Inpcb): Ip6Pktopts | null {
  return in6pcbOf(inp)?.in6p_outputopts ?? null;
}

/** The options of each packet of `inp`, to change. */
export function in6OutputOptsToSet(inp: Inpcb): Ip6Pktopts {
  const in6p = in6pcb(inp);
  in6p.in6p_outputopts ??= new Ip6Pktopts();
  return in6p.in6p_outputopts;
}

/** Copies the options of a listener to a new connection. @see sys/netinet/tcp_syncache.c */
export function in6Inherit(inp: Inpcb, listener: Inpcb): void {
  inp.inp_flags |= listener.inp_flags & (IN6P_CONTROLOPTS | IN6P_AUTOFLOWLABEL);
  if ((listener.inp_flags & IN6P_AUTOFLOWLABEL) === 0) inp.inp_flags &= ~IN6P_AUTOFLOWLABEL;
  const from = in6pcbOf(listener);
  if (from === null) return;
  in6pcb(inp).in6p_hops = from.in6p_hops;
  if (from.in6p_outputopts !== null) in6OutputOptsToSet(inp).copyFrom(from.in6p_outputopts);
}

const $dst = new NetAddr();

/**
 * The hop limit of unicasts of `inp`: IPV6_UNICAST_HOPS, else the one that a router advertised for the
 * link, else net.inet6.ip6.hlim. Unlike FreeBSD, where links without such a router keep 64.
 * @see sys/netinet6/in6_src.c
 */
export function in6_selecthlim(inp: Inpcb): number {
  const hops = in6pcbOf(inp)?.in6p_hops ?? -1;
  if (hops >= 0) return hops;
  let ifp = inp.inp_route.ro_nh?.nh_ifp ?? null;
  if (ifp === null && !inp.inp_inc.faddrAny())
    ifp = in6_selectif(inp.inp_vnet, inp.inp_inc.faddrTo($dst));
  const chlim = ifp === null ? null : in6Ifextra(ifp)?.nd_ifinfo.chlim;
  return chlim && chlim !== IPV6_DEFHLIM ? chlim : V_ip6(inp.inp_vnet).params.hlim;
}
