/**
 * Joining and leaving groups and changing source filters by socket options, the same for IPv4 and
 * IPv6: the family-free half of sys/netinet/in_mcast.c and sys/netinet6/in6_mcast.c (RFC 3678). The
 * files of the families, in_mcast.ts and in6_mcast.ts, read the values of their options.
 */

import type { AddrWords } from '../sys/addr.ts';
import { EADDRINUSE, EADDRNOTAVAIL, EINVAL, ENOBUFS, ENOMEM, type Errno } from '../sys/errno.ts';
import type { Sockopt } from '../kern/sockopt.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifnet_byindex } from '../net/if.ts';
import { IFF_MULTICAST, type Ifnet } from '../net/if_var.ts';
import {
  type GroupLink,
  imo_match_group,
  type InMfilter,
  InMoptions,
  in_joingroup,
  in_leavegroup,
  inmUpdate,
  $joined,
  MCAST_EXCLUDE,
  MCAST_INCLUDE,
  V_moptions,
} from './in_multi.ts';
import type { Inpcb } from './in_pcb.ts';

// Option names of sys/netinet/in.h that do not depend on the family.
export const MCAST_JOIN_GROUP = 80;
export const MCAST_LEAVE_GROUP = 81;
export const MCAST_JOIN_SOURCE_GROUP = 82;
export const MCAST_LEAVE_SOURCE_GROUP = 83;
export const MCAST_BLOCK_SOURCE = 84;
export const MCAST_UNBLOCK_SOURCE = 85;

/** The most groups of a socket: IP_MAX_MEMBERSHIPS, IPV6_MAX_MEMBERSHIPS. @see sys/netinet/in.h */
const MAX_MEMBERSHIPS = 4095;

// Bytes of group_req and group_source_req. A sockaddr_storage has 128 bytes and is aligned to 8.
const STORAGE_SIZE = 128;
const GROUP_OFF = 8;
const GROUP_REQ_SIZE = GROUP_OFF + STORAGE_SIZE;
const GROUP_SOURCE_REQ_SIZE = GROUP_REQ_SIZE + STORAGE_SIZE;

/** What a membership option names. */
export interface Membership {
  readonly group: AddrWords;
  /** Null: all sources. */
  readonly source: AddrWords | null;
  /** Null: the value names none, or one that does not exist. */
  readonly ifp: Ifnet | null;
  /** Whether the value names an interface. */
  readonly named: boolean;
}

/**
 * The value of an option of the MCAST_ kind; null: not valid. `stored` reads the address of a
 * sockaddr_storage; null: of another family.
 */
export function groupReq(
  vnet: Vnet,
  v: DataView,
  ofSource: boolean,
  stored: (v: DataView, off: number) => AddrWords | null,
): Membership | null {
  if (v.byteLength < (ofSource ? GROUP_SOURCE_REQ_SIZE : GROUP_REQ_SIZE)) return null;
  const group = stored(v, GROUP_OFF);
  const source = ofSource ? stored(v, GROUP_REQ_SIZE) : null;
  if (group === null || (ofSource && source === null)) return null;
  return { group, source, ifp: ifnet_byindex(vnet, v.getUint32(0, true)), named: true };
}

/**
 * The multicast options of a socket; creates them with these defaults for the TTL or hop limit and
 * for the loopback of multicasts. @see sys/netinet/in_mcast.c
 */
export function inp_findmoptions(inp: Inpcb, ttl: number, loop: boolean): InMoptions {
  if (inp.inp_moptions === null) {
    const imo = new InMoptions();
    imo.imo_multicast_ttl = ttl;
    imo.imo_multicast_loop = loop;
    inp.inp_moptions = imo;
    V_moptions(inp.inp_vnet).add(imo);
  }
  return inp.inp_moptions;
}

/** What the membership options of the families differ in. */
export interface MembershipFamily {
  /** The value of a membership option; null: not valid, or not a group. */
  parse(vnet: Vnet, sopt: Sockopt): Membership | null;
  /** The multicast options of a socket; creates them with the family's defaults. */
  moptions(inp: Inpcb): InMoptions;
  /** The groups of an interface; null: it does not have the family. */
  link(ifp: Ifnet): GroupLink | null;
  /** The most sources of a socket's filter. */
  maxsocksrc(vnet: Vnet): number;
}

/** Adds a source to a filter. ENOBUFS: it has `max` sources. Else the errno of inmUpdate. */
function addSource(imf: InMfilter, source: AddrWords, max: number): Errno {
  if (imf.imf_sources.size >= max) return ENOBUFS;
  imf.imf_sources.add(source);
  const error = inmUpdate(imf.imf_inm);
  if (error !== 0) imf.imf_sources.remove(source);
  return error;
}

/** Removes a source from a filter. Returns the errno of inmUpdate. */
function removeSource(imf: InMfilter, source: AddrWords): Errno {
  imf.imf_sources.remove(source);
  const error = inmUpdate(imf.imf_inm);
  // A source that no socket excludes any more can make the list of the group longer.
  if (error !== 0) imf.imf_sources.add(source);
  return error;
}

/**
 * Joins a group, or one source of it. EINVAL: the
 * socket is a member with another kind of filter. EADDRNOTAVAIL: no such interface, or a member of this
 * source already. EADDRINUSE: a member already. ENOMEM: too many groups. ENOBUFS, ENOSPC: too many
 * sources of the socket, of the group.
 */
function joinGroup(family: MembershipFamily, inp: Inpcb, m: Membership): Errno {
  const { group, source, ifp } = m;
  const link = ifp === null ? null : family.link(ifp);
  if (ifp === null || link === null || (ifp.if_flags & IFF_MULTICAST) === 0) return EADDRNOTAVAIL;
  const imo = family.moptions(inp);
  const imf = imo_match_group(imo, ifp, group);
  if (imf !== null) {
    if (source === null) return imf.imf_fmode === MCAST_EXCLUDE ? EADDRINUSE : EINVAL;
    if (imf.imf_fmode !== MCAST_INCLUDE) return EINVAL;
    if (imf.imf_sources.has(source)) return EADDRNOTAVAIL;
    return addSource(imf, source, family.maxsocksrc(inp.inp_vnet));
  }
  if (imo.imo_head.length >= MAX_MEMBERSHIPS) return ENOMEM;
  const fmode = source === null ? MCAST_EXCLUDE : MCAST_INCLUDE;
  const error = in_joingroup(link, group, fmode, source);
  if (error === 0) imo.imo_head.unshift($joined.imf!);
  return error;
}

/** Leaves a group, or one source of it. EADDRNOTAVAIL: not a member, or no such interface. */
function leaveGroup(family: MembershipFamily, inp: Inpcb, m: Membership): Errno {
  const { group, source, ifp, named } = m;
  if (named && ifp === null) return EADDRNOTAVAIL;
  const imo = family.moptions(inp);
  const imf = imo_match_group(imo, ifp, group);
  if (imf === null) return EADDRNOTAVAIL;
  if (source !== null) {
    if (imf.imf_fmode === MCAST_EXCLUDE) return EADDRNOTAVAIL;
    if (!imf.imf_sources.has(source)) return EADDRNOTAVAIL;
    return removeSource(imf, source);
  }
  imo.imo_head.splice(imo.imo_head.indexOf(imf), 1);
  in_leavegroup(imf);
  return 0;
}

/**
 * Excludes a source from a membership (`block`), or ends that. EINVAL: the membership names the
 * sources that it includes. EADDRNOTAVAIL: not a member, or the source is in that state already.
 */
function blockSource(family: MembershipFamily, inp: Inpcb, m: Membership, block: boolean): Errno {
  const { group, ifp, named } = m;
  const source = m.source!;
  if (named && ifp === null) return EADDRNOTAVAIL;
  const imf = imo_match_group(family.moptions(inp), ifp, group);
  if (imf === null) return EADDRNOTAVAIL;
  if (imf.imf_fmode !== MCAST_EXCLUDE) return EINVAL;
  if (imf.imf_sources.has(source) === block) return EADDRNOTAVAIL;
  if (!block) return removeSource(imf, source);
  return addSource(imf, source, family.maxsocksrc(inp.inp_vnet));
}

/**
 * Sets a membership option: joins or leaves a group or one source of it, excludes a source from a
 * membership or ends that. EINVAL: the value is not valid. Else the errno of the change.
 * @see sys/netinet/in_mcast.c (inp_join_group …), sys/netinet6/in6_mcast.c (in6p_join_group …)
 */
export function changeMembership(
  family: MembershipFamily,
  inp: Inpcb,
  sopt: Sockopt,
  change: 'join' | 'leave' | 'block' | 'unblock',
): Errno {
  const m = family.parse(inp.inp_vnet, sopt);
  if (m === null) return EINVAL;
  if (change === 'join') return joinGroup(family, inp, m);
  if (change === 'leave') return leaveGroup(family, inp, m);
  return blockSource(family, inp, m, change === 'block');
}
