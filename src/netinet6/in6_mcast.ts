/**
 * Groups of IPv6, after sys/netinet6/in6_mcast.c: the groups that the kernel itself joins, and the
 * multicast options of sockets (ip6(4), RFC 3493, 5.2, and RFC 3678). netinet/in_membership.ts and
 * in_multi.ts have what does not depend on the family; mld6.ts reports the groups. Left out:
 * IPV6_MSFILTER, whose value contains a pointer.
 */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import { EADDRNOTAVAIL, EINVAL, ENOPROTOOPT, ENXIO, EOPNOTSUPP, type Errno } from '../sys/errno.ts';
import { AF_INET6, SOCK_STREAM } from '../kern/protosw.ts';
import { SOCKADDR_IN6_SIZE } from '../kern/sockaddr.ts';
import { sooptPutInt, type Sockopt, SOPT_SET, view } from '../kern/sockopt.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifnet_byindex } from '../net/if.ts';
import { IFF_MULTICAST, type Ifnet } from '../net/if_var.ts';
import {
  changeMembership,
  groupReq,
  inp_findmoptions,
  MCAST_BLOCK_SOURCE,
  MCAST_JOIN_GROUP,
  MCAST_JOIN_SOURCE_GROUP,
  MCAST_LEAVE_GROUP,
  MCAST_LEAVE_SOURCE_GROUP,
  MCAST_UNBLOCK_SOURCE,
  type Membership,
  type MembershipFamily,
} from '../netinet/in_membership.ts';
import {
  imoPurge,
  type InMoptions,
  in_joingroup,
  in_leavegroup,
  $joined,
  MCAST_EXCLUDE,
} from '../netinet/in_multi.ts';
import type { Inpcb } from '../netinet/in_pcb.ts';
import { in6Addr, IN6_IS_ADDR_MULTICAST } from './in6.ts';
import { in6_selectif } from './in6_src.ts';
import { in6Ifextra } from './in6_var.ts';
import { Ip6Moptions, V_ip6 } from './ip6_var.ts';
import { in6_getlinkifnet, in6_getscope, in6_setscope } from './scope6.ts';

// Option names of sys/netinet6/in6.h.
export const IPV6_MULTICAST_IF = 9;
export const IPV6_MULTICAST_HOPS = 10;
export const IPV6_MULTICAST_LOOP = 11;
export const IPV6_JOIN_GROUP = 12;
export const IPV6_LEAVE_GROUP = 13;

/** Bytes of ipv6_mreq: the group and the index of the interface. */
const MREQ_SIZE = 20;
const MAXHLIM = 255;

/** Writes the Ethernet address of group `a` to `ll_addr`: RFC 2464, 7. @see sys/net/ethernet.h */
export function ETHER_MAP_IPV6_MULTICAST(a: AddrWords, ll_addr: Uint8Array): void {
  ll_addr[0] = 0x33;
  ll_addr[1] = 0x33;
  ll_addr[2] = a.w3 >>> 24;
  ll_addr[3] = (a.w3 >>> 16) & 0xff;
  ll_addr[4] = (a.w3 >>> 8) & 0xff;
  ll_addr[5] = a.w3 & 0xff;
}

/** A copy of `a` with the zone of `ifp`. */
function withZone(a: AddrWords, ifp: Ifnet): NetAddr {
  const copy = new NetAddr();
  copy.setFrom(a);
  in6_setscope(copy, ifp);
  return copy;
}

/**
 * The kernel joins `group` on `ifp`, or adds a reference. The first report is sent after `delay` ticks of
 * PR_FASTHZ; 0: as soon as possible. ENXIO: IPv6 is not attached to the interface.
 * Else the errno of the receive filter. @see sys/netinet6/in6_mcast.c
 */
export function in6_joingroup(ifp: Ifnet, group: AddrWords, delay = 0): Errno {
  const ext = in6Ifextra(ifp);
  if (ext === null) return ENXIO;
  const a = withZone(group, ifp);
  const found = ext.kernelGroups.find(({ imf }) => imf.imf_inm.equals(a));
  if (found !== undefined) {
    found.refcount++;
    return 0;
  }
  const error = in_joingroup(ext.mld_ifinfo, a, MCAST_EXCLUDE, null, delay);
  if (error === 0) ext.kernelGroups.push({ imf: $joined.imf!, refcount: 1 });
  return error;
}

/** Removes a reference; the last one ends the kernel's membership. @see sys/netinet6/in6_mcast.c */
export function in6_leavegroup(ifp: Ifnet, group: AddrWords): void {
  const ext = in6Ifextra(ifp);
  if (ext === null) return;
  const a = withZone(group, ifp);
  const at = ext.kernelGroups.findIndex(({ imf }) => imf.imf_inm.equals(a));
  const found = ext.kernelGroups[at];
  if (found === undefined || --found.refcount > 0) return;
  ext.kernelGroups.splice(at, 1);
  in_leavegroup(found.imf);
}

/** The interface `ifp` goes: sockets and the kernel are no longer members of its groups. */
export function in6PurgeGroups(ifp: Ifnet): void {
  imoPurge(ifp);
  for (const { imf } of in6Ifextra(ifp)?.kernelGroups.splice(0) ?? []) in_leavegroup(imf);
}

/** Whether an option of level IPPROTO_IPV6 is one of this file's. */
export function isMulticastOption6(name: number): boolean {
  return (
    (name >= IPV6_MULTICAST_IF && name <= IPV6_LEAVE_GROUP) ||
    (name >= MCAST_JOIN_GROUP && name <= MCAST_UNBLOCK_SOURCE)
  );
}

/** The multicast options of a socket; creates them. */
function moptions(inp: Inpcb): InMoptions {
  const { params, mcast } = V_ip6(inp.inp_vnet);
  return inp_findmoptions(inp, params.mcast_hlim, mcast.loop);
}

const $im6o = new Ip6Moptions();

/** The multicast options of a socket for ip6_output, borrowed; null: the defaults. */
export function im6oOf(inp: Inpcb): Ip6Moptions | null {
  const { inp_moptions: imo } = inp;
  if (imo === null) return null;
  $im6o.im6o_multicast_ifp = imo.imo_multicast_ifp;
  $im6o.im6o_multicast_hlim = imo.imo_multicast_ttl;
  $im6o.im6o_multicast_loop = imo.imo_multicast_loop;
  return $im6o;
}

/**
 * The outgoing interface of packets to `dst` from a socket with the options `imo`: for a group that of
 * IPV6_MULTICAST_IF, then that of its zone, then that of the route. Null: no route.
 * @see sys/netinet6/in6_src.c (there in6_selectif)
 */
export function in6McastIf(vnet: Vnet, imo: InMoptions | null, dst: AddrWords): Ifnet | null {
  const ifp = imo === null || !IN6_IS_ADDR_MULTICAST(dst) ? null : imo.imo_multicast_ifp;
  return ifp ?? in6_selectif(vnet, dst);
}

function addrAt(v: DataView, off: number): NetAddr {
  return in6Addr(v.getInt32(off), v.getInt32(off + 4), v.getInt32(off + 8), v.getInt32(off + 12));
}

/** The address of a sockaddr_in6 in a sockaddr_storage; null: of another family. */
function storedAddr(v: DataView, off: number): AddrWords | null {
  if (v.getUint8(off) !== SOCKADDR_IN6_SIZE || v.getUint8(off + 1) !== AF_INET6) return null;
  return addrAt(v, off + 8);
}

/**
 * The interface of a group for which the program named none: that of the zone in the address, else
 * that of the route; null: no route. @see sys/netinet6/in6_mcast.c
 */
function in6p_lookup_mcast_ifp(vnet: Vnet, group: AddrWords): Ifnet | null {
  const zone = in6_getscope(group);
  return zone !== 0 ? in6_getlinkifnet(vnet, zone) : in6_selectif(vnet, group);
}

/** The value of IPV6_JOIN_GROUP and IPV6_LEAVE_GROUP; null: not valid. */
function mreq(vnet: Vnet, v: DataView): Membership | null {
  if (v.byteLength < MREQ_SIZE) return null;
  const group = addrAt(v, 0);
  const index = v.getUint32(16, true);
  const ifp = index !== 0 ? ifnet_byindex(vnet, index) : in6p_lookup_mcast_ifp(vnet, group);
  return { group, source: null, ifp, named: true };
}

/** Parses the value of a membership option; null: not valid, or not a group. */
function parse(vnet: Vnet, sopt: Sockopt): Membership | null {
  const v = view(sopt.sopt_val.subarray(0, sopt.sopt_valsize));
  const name = sopt.sopt_name;
  const m =
    name >= MCAST_JOIN_GROUP
      ? groupReq(vnet, v, name >= MCAST_JOIN_SOURCE_GROUP, storedAddr)
      : mreq(vnet, v);
  if (m === null || !IN6_IS_ADDR_MULTICAST(m.group)) return null;
  const { group, source, ifp } = m;
  if (ifp === null) return m;
  const from = source === null ? null : withZone(source, ifp);
  return { group: withZone(group, ifp), source: from, ifp, named: true };
}

const in6Membership: MembershipFamily = {
  parse,
  moptions,
  link: (ifp) => in6Ifextra(ifp)?.mld_ifinfo ?? null,
  maxsocksrc: (vnet) => V_ip6(vnet).mcast.maxsocksrc,
};

/** The outgoing interface, by index; 0: by the routing table. @see sys/netinet6/in6_mcast.c */
function in6p_set_multicast_if(inp: Inpcb, index: number): Errno {
  let ifp: Ifnet | null = null;
  if (index !== 0) {
    ifp = ifnet_byindex(inp.inp_vnet, index);
    if (ifp === null) return EINVAL;
    if ((ifp.if_flags & IFF_MULTICAST) === 0) return EADDRNOTAVAIL;
  }
  moptions(inp).imo_multicast_ifp = ifp;
  return 0;
}

/** Sets an option whose value is an int. @see sys/netinet6/in6_mcast.c */
function setInt(inp: Inpcb, sopt: Sockopt): Errno {
  if (sopt.sopt_valsize !== 4) return EINVAL;
  const value = view(sopt.sopt_val).getInt32(0, true);
  switch (sopt.sopt_name) {
    case IPV6_MULTICAST_IF:
      return in6p_set_multicast_if(inp, value);
    case IPV6_MULTICAST_HOPS: {
      if (value < -1 || value > MAXHLIM) return EINVAL;
      const { mcast_hlim } = V_ip6(inp.inp_vnet).params;
      moptions(inp).imo_multicast_ttl = value === -1 ? mcast_hlim : value;
      return 0;
    }
    default:
      if (value !== 0 && value !== 1) return EINVAL;
      moptions(inp).imo_multicast_loop = value === 1;
      return 0;
  }
}

/** @see sys/netinet6/in6_mcast.c */
function ip6_setmoptions(inp: Inpcb, sopt: Sockopt): Errno {
  switch (sopt.sopt_name) {
    case IPV6_MULTICAST_IF:
    case IPV6_MULTICAST_HOPS:
    case IPV6_MULTICAST_LOOP:
      return setInt(inp, sopt);
    case IPV6_JOIN_GROUP:
    case MCAST_JOIN_GROUP:
    case MCAST_JOIN_SOURCE_GROUP:
      return changeMembership(in6Membership, inp, sopt, 'join');
    case IPV6_LEAVE_GROUP:
    case MCAST_LEAVE_GROUP:
    case MCAST_LEAVE_SOURCE_GROUP:
      return changeMembership(in6Membership, inp, sopt, 'leave');
    case MCAST_BLOCK_SOURCE:
      return changeMembership(in6Membership, inp, sopt, 'block');
    default:
      return changeMembership(in6Membership, inp, sopt, 'unblock');
  }
}

/** @see sys/netinet6/in6_mcast.c */
function ip6_getmoptions(inp: Inpcb, sopt: Sockopt): Errno {
  const { inp_moptions: imo, inp_vnet: vnet } = inp;
  switch (sopt.sopt_name) {
    case IPV6_MULTICAST_IF:
      return sooptPutInt(sopt, imo?.imo_multicast_ifp?.if_index ?? 0);
    case IPV6_MULTICAST_HOPS:
      return sooptPutInt(sopt, imo?.imo_multicast_ttl ?? V_ip6(vnet).params.mcast_hlim);
    case IPV6_MULTICAST_LOOP:
      return sooptPutInt(sopt, (imo?.imo_multicast_loop ?? V_ip6(vnet).mcast.loop) ? 1 : 0);
    default:
      return ENOPROTOOPT;
  }
}

/**
 * Gets or sets a multicast option of level IPPROTO_IPV6. EOPNOTSUPP: a stream socket. EINVAL: the value
 * is not valid. Else the errno of the option. @see ip6(4), sys/netinet6/in6_mcast.c
 */
export function inp6_mcastopts(so: Socket, inp: Inpcb, sopt: Sockopt): Errno {
  if (so.so_type === SOCK_STREAM) return EOPNOTSUPP;
  return sopt.sopt_dir === SOPT_SET ? ip6_setmoptions(inp, sopt) : ip6_getmoptions(inp, sopt);
}
