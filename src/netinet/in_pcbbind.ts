/**
 * Local and foreign addresses and ports of PCBs, after in_pcbbind, in_pcbconnect and in_pcb_lport of
 * sys/netinet/in_pcb.c and sys/netinet6/in6_pcb.c, for both families and for AF_INET6 sockets that use
 * both. Left out: privileges, jails.
 */

import { EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EINVAL, type Errno } from '../sys/errno.ts';
import { port } from '../sys/types.ts';
import { SOCK_STREAM } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { SO_REUSEADDR, SO_REUSEPORT, SO_REUSEPORT_LB } from '../kern/uipc_socket.ts';
import { alsoInet, bindFamily, peer, peerFamily } from './in_mapped.ts';
import {
  InConninfo,
  in_pcbinshash,
  in_pcblookup,
  in_pcblookupConn,
  INP_HIGHPORT,
  INP_IPV6PROTO,
  INP_LOWPORT,
  type InpAf,
  type Inpcb,
  pcbSetConn,
  portBucket,
} from './in_pcb.ts';
import { V_portrange } from './in_portrange.ts';

const ANY_REUSE = SO_REUSEADDR | SO_REUSEPORT | SO_REUSEPORT_LB;
/** An AF_INET6 socket that gets IPv4 is a worse match than any of IPv4. @see sys/netinet/in_pcb.h */
const INP_LOOKUP_MAPPED_PCB_COST = 3;

/**
 * How badly the local address of `t` and that of `inc` fit as addresses of `af`: the number of
 * wildcards, 0 for the same one; -1: they do not overlap.
 */
function mismatch(t: Inpcb, af: InpAf, inc: InConninfo): number {
  const i = t.inp_inc;
  let cost = i.faddrAny() ? 0 : 1;
  if (!i.laddrAny()) {
    if (inc.laddrAny()) cost++;
    else if (t.inp_af !== af || !i.laddrEquals(inc)) return -1;
  } else if (!inc.laddrAny()) {
    cost++;
  }
  return t.inp_af !== af ? cost + INP_LOOKUP_MAPPED_PCB_COST : cost;
}

/**
 * The PCB other than `inp` whose local address and port fit `inc` best in the family `af`; without
 * `wildcard` only one that is not connected and has the same address. Null: none.
 * @see sys/netinet/in_pcb.c
 */
function in_pcblookup_local(
  inp: Inpcb,
  af: InpAf,
  inc: InConninfo,
  wildcard: boolean,
): Inpcb | null {
  const { ports } = inp.inp_pcbinfo;
  let match: Inpcb | null = null;
  let best = Infinity;
  let t: Inpcb | null = ports[portBucket(ports, inc.inc_lport)]!;
  for (; t !== null; t = t.portNext) {
    if (t === inp || t.inp_inc.inc_lport !== inc.inc_lport) continue;
    if ((t.inp_vflag & af.vflag) === 0) continue;
    const same = t.inp_inc.laddrEquals(inc) && (t.inp_af === af || inc.laddrAny());
    if (!wildcard && (t.hashIn !== 1 || !same)) continue;
    const cost = mismatch(t, af, inc);
    if (cost < 0 || cost >= best) continue;
    match = t;
    best = cost;
  }
  return match;
}

/** The options of `t` that permit to share its port. */
function inp_so_options(t: Inpcb): number {
  return t.inp_socket === null ? SO_REUSEADDR | SO_REUSEPORT : t.inp_socket.so_options;
}

/**
 * Whether another PCB prevents `inp` from binding to the local address and port of `inc`; `options` are
 * the SO_REUSE* options of its socket. For a `group` SO_REUSEADDR means the same as SO_REUSEPORT.
 * @see sys/netinet/in_pcb.c, sys/netinet6/in6_pcb.c
 */
export function portConflict(inp: Inpcb, inc: InConninfo, options: number, group = false): boolean {
  const wildcard = (options & ANY_REUSE) === 0;
  let share = options & (SO_REUSEPORT | SO_REUSEPORT_LB);
  if (group && (options & (SO_REUSEADDR | SO_REUSEPORT)) !== 0)
    share |= SO_REUSEADDR | SO_REUSEPORT;
  if (group && (options & (SO_REUSEADDR | SO_REUSEPORT_LB)) !== 0)
    share |= SO_REUSEADDR | SO_REUSEPORT_LB;
  const t = in_pcblookup_local(inp, inp.inp_af, inc, wildcard);
  if (t !== null && (share & inp_so_options(t)) === 0) return true;
  // The address :: with IPV6_V6ONLY off is also 0.0.0.0. A socket of AF_INET may have that.
  const inet = alsoInet(inp);
  if (inet === null || !inc.laddrAny()) return false;
  const t4 = in_pcblookup_local(inp, inet, inc, wildcard);
  return (
    t4 !== null &&
    (share & inp_so_options(t4)) === 0 &&
    (!t4.inp_inc.laddrAny() || (t4.inp_vflag & INP_IPV6PROTO) !== 0)
  );
}

const $try = new InConninfo();

/** Whether the local port of `$try` cannot be chosen for `inp`. */
function taken(inp: Inpcb, af: InpAf): boolean {
  if (!$try.faddrAny()) return in_pcblookup(inp.inp_pcbinfo, af, $try, true) !== null;
  if (in_pcblookup_local(inp, af, $try, true) !== null) return true;
  const inet = alsoInet(inp);
  return inet !== null && in_pcblookup_local(inp, inet, $try, true) !== null;
}

/**
 * Chooses a local port, RFC 6056: starts at a random port of the range and takes the first free
 * one. With a foreign address only the 4-tuple must be unique. EADDRNOTAVAIL: no port is free.
 * @see sys/netinet/in_pcb.c
 */
function in_pcb_lport(inp: Inpcb, af: InpAf, inc: InConninfo): Errno {
  const info = inp.inp_pcbinfo;
  const range = V_portrange(info.ipi_vnet);
  const high = (inp.inp_flags & INP_HIGHPORT) !== 0;
  const low = (inp.inp_flags & INP_LOWPORT) !== 0;
  const from = high ? range.hifirst : low ? range.lowfirst : range.first;
  const to = high ? range.hilast : low ? range.lowlast : range.last;
  const first = Math.min(from, to);
  const n = Math.max(from, to) - first + 1;
  const start = range.randomized
    ? info.ipi_vnet.prng.next32() % n
    : (info.lastport + 1 - first) % n;
  $try.copyFrom(inc);
  for (let i = 0; i < n; i++) {
    $try.inc_lport = port(first + ((start + i + n) % n));
    if (taken(inp, af)) continue;
    inc.inc_lport = $try.inc_lport;
    info.lastport = $try.inc_lport;
    return 0;
  }
  return EADDRNOTAVAIL;
}

/**
 * Binds the PCB to a local address and port; null: to any address and a chosen port. EINVAL:
 * already bound. EAFNOSUPPORT: other family, or a group on a stream socket. EADDRNOTAVAIL: not a local
 * address, or no port is free. EADDRINUSE: the port is in use.
 * @see bind(2)
 */
export function in_pcbbind(inp: Inpcb, nam: Sockaddr | null): Errno {
  const inc = inp.inp_inc;
  if (inc.inc_lport !== 0 || !inc.laddrAny()) return EINVAL;
  const { inp_vflag, inp_af } = inp;
  const error = bindFamily(inp, nam) || bindTo(inp, nam === null ? null : peer.nam);
  if (error === 0) {
    in_pcbinshash(inp);
    return 0;
  }
  inp.inp_vflag = inp_vflag;
  inp.inp_af = inp_af;
  inc.inc_family = inp_af.family;
  inc.inc_lport = port(0);
  inc.setLaddr(0);
  return error;
}

/** Sets the local address and port of `inp`. The caller undoes it after an error. */
function bindTo(inp: Inpcb, nam: Sockaddr | null): Errno {
  const { inp_inc: inc, inp_af: af } = inp;
  if (nam !== null) {
    const zone = af.embedScope(inp.inp_vnet, nam);
    if (zone !== 0) return zone;
    const group = af.isGroup(nam);
    if (group && inp.inp_socket?.so_type === SOCK_STREAM) return EAFNOSUPPORT;
    const error = nam.isAny() || group ? 0 : af.bindable(inp, nam);
    if (error !== 0) return error;
    inc.laddrFrom(nam);
    if (nam.port !== 0) {
      inc.inc_lport = nam.port;
      const options = inp.inp_socket?.so_options ?? 0;
      return portConflict(inp, inc, options, group) ? EADDRINUSE : 0;
    }
  }
  return in_pcb_lport(inp, af, inc);
}

/**
 * Sets the foreign address and port of the PCB, and chooses a local address and port if it has
 * none. EAFNOSUPPORT: other family. EADDRNOTAVAIL: port 0, or no local port is free. EADDRINUSE:
 * the connection exists. EINVAL: a mapped address with IPV6_V6ONLY. ENETUNREACH, EHOSTUNREACH: no
 * route.
 * @see connect(2)
 */
export function in_pcbconnect(inp: Inpcb, nam: Sockaddr): Errno {
  let error = peerFamily(inp, nam);
  if (error !== 0) return error;
  const { nam: sa } = peer;
  const af = peer.af!;
  if (sa.port === 0) return EADDRNOTAVAIL;
  error = af.embedScope(inp.inp_vnet, sa);
  if (error !== 0) return error;
  $conn.copyFrom(inp.inp_inc);
  $conn.inc_family = af.family;
  $conn.faddrFrom(sa);
  $conn.inc_fport = sa.port;
  if ($conn.laddrAny()) {
    error = af.selectLaddr(inp, $conn, false);
    if (error !== 0) return error;
  }
  if ($conn.inc_lport === 0) {
    error = in_pcb_lport(inp, af, $conn);
    if (error !== 0) return error;
  } else if (in_pcblookupConn(inp.inp_pcbinfo, af, $conn) !== null) {
    return EADDRINUSE;
  }
  pcbSetConn(inp, $conn);
  return 0;
}
const $conn = new InConninfo();
