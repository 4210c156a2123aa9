/**
 * IPv4's multicast options of sockets, after sys/netinet/in_mcast.c (ip(4), RFC 3678): joining and
 * leaving groups, source filters, the outgoing interface, TTL and loopback. in_membership.ts and
 * in_multi.ts have what does not depend on the family. Left out: multicast routing (IP_MULTICAST_VIF),
 * and IP_MSFILTER, whose value contains a pointer.
 */

import type { AddrWords } from '../sys/addr.ts';
import { EADDRNOTAVAIL, EINVAL, ENOPROTOOPT, EOPNOTSUPP, type Errno } from '../sys/errno.ts';
import type { InAddr } from '../sys/types.ts';
import { AF_INET, SOCK_STREAM } from '../kern/protosw.ts';
import { SOCKADDR_IN_SIZE } from '../kern/sockaddr.ts';
import { sooptcopyout, sooptPutInt, type Sockopt, SOPT_SET, view } from '../kern/sockopt.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifnet_byindex, ifnetList } from '../net/if.ts';
import { IFF_LOOPBACK, IFF_MULTICAST, type Ifnet } from '../net/if_var.ts';
import { igmpLink } from './igmp.ts';
import { IN_MULTICAST, INADDR_ANY, inAddrOf, in_nullhost, inNetAddr } from './in.ts';
import { fib4_lookup } from './in_fib.ts';
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
} from './in_membership.ts';
import { imoPurge, type InMoptions, in_leavegroup } from './in_multi.ts';
import type { Inpcb } from './in_pcb.ts';
import { inPrimary } from './in_var.ts';
import { V_ip } from './ip_var.ts';

// Option names of sys/netinet/in.h.
export const IP_MULTICAST_IF = 9;
export const IP_MULTICAST_TTL = 10;
export const IP_MULTICAST_LOOP = 11;
export const IP_ADD_MEMBERSHIP = 12;
export const IP_DROP_MEMBERSHIP = 13;
const IP_MULTICAST_VIF = 14;
export const IP_ADD_SOURCE_MEMBERSHIP = 70;
export const IP_DROP_SOURCE_MEMBERSHIP = 71;
export const IP_BLOCK_SOURCE = 72;
export const IP_UNBLOCK_SOURCE = 73;

const MAXTTL = 255;

// Bytes of the values: ip_mreq, ip_mreqn (and ip_mreq_source).
const MREQ_SIZE = 8;
const MREQN_SIZE = 12;

/** Whether an option of level IPPROTO_IP is one of this file's. */
export function isMulticastOption(name: number): boolean {
  return (
    (name >= IP_MULTICAST_IF && name <= IP_MULTICAST_VIF) ||
    (name >= IP_ADD_SOURCE_MEMBERSHIP && name <= IP_UNBLOCK_SOURCE) ||
    (name >= MCAST_JOIN_GROUP && name <= MCAST_UNBLOCK_SOURCE)
  );
}

/** The multicast options of a socket; creates them. */
function moptions(inp: Inpcb): InMoptions {
  return inp_findmoptions(inp, 1, V_ip(inp.inp_vnet).mcast.loop);
}

/** The interface that has the address `addr`, or null. */
function addrToIfp(vnet: Vnet, addr: InAddr): Ifnet | null {
  return V_ip(vnet).addrs.get(addr)?.ifa_ifp ?? null;
}

/** The interface of a membership for which the program named none. @see sys/netinet/in_mcast.c */
function inp_lookup_mcast_ifp(vnet: Vnet, group: InAddr, addr: InAddr): Ifnet | null {
  if (!in_nullhost(addr)) return addrToIfp(vnet, addr);
  const nh = fib4_lookup(vnet, group);
  if (nh !== null) return nh.nh_ifp;
  // RFC 3678: without a route the system chooses. As in FreeBSD the first that has multicast.
  for (const ia of V_ip(vnet).addrs.values()) {
    const { if_flags } = ia.ifa_ifp;
    if ((if_flags & (IFF_LOOPBACK | IFF_MULTICAST)) === IFF_MULTICAST) return ia.ifa_ifp;
  }
  return null;
}

/** The address of a sockaddr_in in a sockaddr_storage; null: of another family. */
function storedAddr(v: DataView, off: number): AddrWords | null {
  if (v.getUint8(off) !== SOCKADDR_IN_SIZE || v.getUint8(off + 1) !== AF_INET) return null;
  return inNetAddr(v.getInt32(off + 4) as InAddr);
}

/** The value of an option of the IP_ kind; null: not valid. `joins`: choose an interface. */
function mreq(vnet: Vnet, v: DataView, ofSource: boolean, joins: boolean): Membership | null {
  if (v.byteLength < (ofSource ? MREQN_SIZE : MREQ_SIZE)) return null;
  const to = v.getInt32(0) as InAddr;
  const group = inNetAddr(to);
  // ip_mreq_source: group, source, interface. ip_mreqn: group, address, index.
  const source = ofSource ? inNetAddr(v.getInt32(4) as InAddr) : null;
  const addr = v.getInt32(ofSource ? 8 : 4) as InAddr;
  const index = !ofSource && v.byteLength === MREQN_SIZE ? v.getInt32(8, true) : 0;
  if (index !== 0) return { group, source, ifp: ifnet_byindex(vnet, index), named: true };
  const named = joins || !in_nullhost(addr);
  const ifp = joins ? inp_lookup_mcast_ifp(vnet, to, addr) : addrToIfp(vnet, addr);
  return { group, source, ifp, named };
}

/** Parses the value of a membership option; null: not valid, or not a group. */
function parse(vnet: Vnet, sopt: Sockopt): Membership | null {
  const v = view(sopt.sopt_val.subarray(0, sopt.sopt_valsize));
  const name = sopt.sopt_name;
  const m =
    name >= MCAST_JOIN_GROUP
      ? groupReq(vnet, v, name >= MCAST_JOIN_SOURCE_GROUP, storedAddr)
      : mreq(
          vnet,
          v,
          name >= IP_ADD_SOURCE_MEMBERSHIP,
          name === IP_ADD_MEMBERSHIP || name === IP_ADD_SOURCE_MEMBERSHIP,
        );
  return m === null || !IN_MULTICAST(inAddrOf(m.group)) ? null : m;
}

const inMembership: MembershipFamily = {
  parse,
  moptions,
  link: igmpLink,
  maxsocksrc: (vnet) => V_ip(vnet).mcast.maxsocksrc,
};

/** The outgoing interface: an address, or ip_mreqn. @see sys/netinet/in_mcast.c */
function inp_set_multicast_if(inp: Inpcb, sopt: Sockopt): Errno {
  const { inp_vnet: vnet } = inp;
  const v = view(sopt.sopt_val.subarray(0, sopt.sopt_valsize));
  let ifp: Ifnet | null = null;
  if (v.byteLength === MREQN_SIZE) {
    const index = v.getInt32(8, true);
    if (index < 0) return EINVAL;
    if (index > 0) {
      ifp = ifnet_byindex(vnet, index);
      if (ifp === null) return index > ifnetList(vnet).length ? EINVAL : EADDRNOTAVAIL;
    }
  } else {
    if (v.byteLength < 4) return EINVAL;
    const addr = v.getInt32(0) as InAddr;
    if (!in_nullhost(addr)) {
      ifp = addrToIfp(vnet, addr);
      if (ifp === null) return EADDRNOTAVAIL;
    }
  }
  if (ifp !== null && (ifp.if_flags & IFF_MULTICAST) === 0) return EOPNOTSUPP;
  moptions(inp).imo_multicast_ifp = ifp;
  return 0;
}

/** A value that may be an unsigned char or an int; -1: another size. */
function charOrInt(sopt: Sockopt): number {
  if (sopt.sopt_valsize === 1) return sopt.sopt_val[0]!;
  return sopt.sopt_valsize === 4 ? view(sopt.sopt_val).getUint32(0, true) : -1;
}

/** @see sys/netinet/in_mcast.c */
function inp_setmoptions(inp: Inpcb, sopt: Sockopt): Errno {
  switch (sopt.sopt_name) {
    case IP_MULTICAST_VIF:
      return EOPNOTSUPP;
    case IP_MULTICAST_IF:
      return inp_set_multicast_if(inp, sopt);
    case IP_MULTICAST_TTL: {
      const ttl = charOrInt(sopt);
      if (ttl < 0 || ttl > MAXTTL) return EINVAL;
      moptions(inp).imo_multicast_ttl = ttl;
      return 0;
    }
    case IP_MULTICAST_LOOP: {
      const loop = charOrInt(sopt);
      if (loop < 0) return EINVAL;
      moptions(inp).imo_multicast_loop = loop !== 0;
      return 0;
    }
    case IP_ADD_MEMBERSHIP:
    case IP_ADD_SOURCE_MEMBERSHIP:
    case MCAST_JOIN_GROUP:
    case MCAST_JOIN_SOURCE_GROUP:
      return changeMembership(inMembership, inp, sopt, 'join');
    case IP_DROP_MEMBERSHIP:
    case IP_DROP_SOURCE_MEMBERSHIP:
    case MCAST_LEAVE_GROUP:
    case MCAST_LEAVE_SOURCE_GROUP:
      return changeMembership(inMembership, inp, sopt, 'leave');
    case IP_BLOCK_SOURCE:
    case MCAST_BLOCK_SOURCE:
      return changeMembership(inMembership, inp, sopt, 'block');
    default:
      return changeMembership(inMembership, inp, sopt, 'unblock');
  }
}

/** Returns `value` as an unsigned char if the program's buffer has one byte. */
function putCharOrInt(sopt: Sockopt, value: number): Errno {
  if (sopt.sopt_valsize === 1) return sooptcopyout(sopt, Uint8Array.of(value));
  return sooptPutInt(sopt, value);
}

/** @see sys/netinet/in_mcast.c */
function inp_getmoptions(inp: Inpcb, sopt: Sockopt): Errno {
  const imo = inp.inp_moptions;
  switch (sopt.sopt_name) {
    case IP_MULTICAST_VIF:
      return sooptPutInt(sopt, -1);
    case IP_MULTICAST_IF: {
      const ifp = imo?.imo_multicast_ifp ?? null;
      const v = new DataView(new ArrayBuffer(MREQN_SIZE));
      const addr = (ifp === null ? null : inPrimary(ifp)?.ia_addr) ?? INADDR_ANY;
      if (sopt.sopt_valsize < MREQN_SIZE) {
        v.setInt32(0, addr);
        return sooptcopyout(sopt, new Uint8Array(v.buffer, 0, 4));
      }
      v.setInt32(4, addr);
      v.setInt32(8, ifp?.if_index ?? 0, true);
      return sooptcopyout(sopt, new Uint8Array(v.buffer));
    }
    case IP_MULTICAST_TTL:
      return putCharOrInt(sopt, imo?.imo_multicast_ttl ?? 1);
    case IP_MULTICAST_LOOP:
      return putCharOrInt(sopt, (imo?.imo_multicast_loop ?? true) ? 1 : 0);
    default:
      return ENOPROTOOPT;
  }
}

/**
 * Gets or sets a multicast option. EOPNOTSUPP: a stream socket. EINVAL: the value is not valid. Else
 * the errno of the option. @see ip(4), sys/netinet/in_mcast.c
 */
export function inp_mcastopts(so: Socket, inp: Inpcb, sopt: Sockopt): Errno {
  if (so.so_type === SOCK_STREAM) return EOPNOTSUPP;
  return sopt.sopt_dir === SOPT_SET ? inp_setmoptions(inp, sopt) : inp_getmoptions(inp, sopt);
}

/** The interface `ifp` goes: sockets lose their memberships on it, and no longer send by it. */
export function inPurgeGroups(ifp: Ifnet): void {
  imoPurge(ifp);
  for (const inm of igmpLink(ifp)?.groups.list() ?? [])
    for (const imf of inm.members.slice()) in_leavegroup(imf);
}
