/**
 * The addresses, socket options and groups of UDP sockets of each family, behind the methods of
 * DgramHandle. As in libuv, a method for TTLs sets the hop limit, and the interface of an IPv6 group is
 * the zone of a text.
 */

import { EINVAL, ENXIO, type Errno } from '../sys/errno.ts';
import { port as portOf } from '../sys/types.ts';
import { AF_INET, AF_INET6, IPPROTO_IP } from '../kern/protosw.ts';
import { type Sockaddr, SOCKADDR_IN6_SIZE } from '../kern/sockaddr.ts';
import { intBytes, Sockopt, SOPT_SET, view } from '../kern/sockopt.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import { soSetInt, sosetopt } from '../kern/uipc_sockopt.ts';
import type { Vnet } from '../kern/vnet.ts';
import { inSockaddr, parseInAddr } from '../netinet/in.ts';
import {
  IP_ADD_MEMBERSHIP,
  IP_ADD_SOURCE_MEMBERSHIP,
  IP_DROP_MEMBERSHIP,
  IP_DROP_SOURCE_MEMBERSHIP,
  IP_MULTICAST_IF,
  IP_MULTICAST_LOOP,
  IP_MULTICAST_TTL,
} from '../netinet/in_mcast.ts';
import { MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_SOURCE_GROUP } from '../netinet/in_membership.ts';
import { IP_DONTFRAG, IP_TTL } from '../netinet/ip_ctloutput.ts';
import { parseIn6 } from '../netinet6/in6.ts';
import {
  IPV6_JOIN_GROUP,
  IPV6_LEAVE_GROUP,
  IPV6_MULTICAST_HOPS,
  IPV6_MULTICAST_IF,
  IPV6_MULTICAST_LOOP,
} from '../netinet6/in6_mcast.ts';
import { IPPROTO_IPV6 } from '../netinet6/ip6.ts';
import { IPV6_UNICAST_HOPS, IPV6_V6ONLY } from '../netinet6/ip6_ctloutput.ts';
import { in6AddrPut, IPV6_DONTFRAG } from '../netinet6/ip6_pktopts.ts';
import { ifOfZone } from '../netinet6/scope6.ts';
import { in6SockaddrOf } from './address.ts';

/** struct ipv6_mreq: group and index of the interface. */
const MREQ6_SIZE = 20;
/** struct group_source_req: index, then group and source as sockaddr_storage. */
const GROUP_OFF = 8;
const STORAGE_SIZE = 128;

/** What differs between the families. Texts that are not addresses of the family are EINVAL. */
export interface DgramFamily {
  readonly domain: number;
  readonly any: string;
  /** The socket address of `address` and a valid port, or an errno: EINVAL; ENXIO: no such zone. */
  name(vnet: Vnet, address: string, port: number): Sockaddr | Errno;
  setTtl(so: Socket, ttl: number): Errno;
  setDontFragment(so: Socket, on: boolean): Errno;
  setIpv6Only(so: Socket, on: boolean): Errno;
  setMulticastTtl(so: Socket, ttl: number): Errno;
  setMulticastLoop(so: Socket, on: boolean): Errno;
  setMulticastInterface(so: Socket, text: string): Errno;
  /** Joins or leaves a group. */
  member(so: Socket, group: string, ifText: string | undefined, join: boolean): Errno;
  /** Joins or leaves a group for one source. */
  source(
    so: Socket,
    source: string,
    group: string,
    ifText: string | undefined,
    join: boolean,
  ): Errno;
}

const ANY = '0.0.0.0';

function set(so: Socket, level: number, name: number, value: Uint8Array): Errno {
  return sosetopt(so, new Sockopt(SOPT_SET, level, name, value));
}

/** Sets an option of level IPPROTO_IP whose value is a list of addresses. EINVAL: not addresses. */
function set4(so: Socket, name: number, value: readonly string[]): Errno {
  const bytes = new DataView(new ArrayBuffer(4 * value.length));
  for (const [i, text] of value.entries()) {
    const addr = parseInAddr(text);
    if (addr === null) return EINVAL;
    bytes.setInt32(4 * i, addr);
  }
  return set(so, IPPROTO_IP, name, new Uint8Array(bytes.buffer));
}

export const dgram4: DgramFamily = {
  domain: AF_INET,
  any: ANY,
  name(_vnet, address, port): Sockaddr | Errno {
    const addr = parseInAddr(address);
    return addr === null ? EINVAL : inSockaddr(addr, portOf(port));
  },
  setTtl: (so, ttl) => soSetInt(so, IPPROTO_IP, IP_TTL, ttl),
  setDontFragment: (so, on) => soSetInt(so, IPPROTO_IP, IP_DONTFRAG, on ? 1 : 0),
  setIpv6Only: () => 0,
  setMulticastTtl: (so, ttl) => soSetInt(so, IPPROTO_IP, IP_MULTICAST_TTL, ttl),
  setMulticastLoop: (so, on) => soSetInt(so, IPPROTO_IP, IP_MULTICAST_LOOP, on ? 1 : 0),
  setMulticastInterface: (so, text) => set4(so, IP_MULTICAST_IF, [text]),
  member: (so, group, ifText = ANY, join) =>
    set4(so, join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, [group, ifText]),
  source: (so, source, group, ifText = ANY, join) =>
    set4(so, join ? IP_ADD_SOURCE_MEMBERSHIP : IP_DROP_SOURCE_MEMBERSHIP, [group, source, ifText]),
};

/** The index of the interface in a text such as `::%tn0` or `%2`, or -errno; 0: none is named. */
function zoneOf(so: Socket, text: string | undefined): number {
  if (text === undefined) return 0;
  const [addr, zone] = text.split('%') as [string, string?];
  if (parseIn6(addr) === null) return -EINVAL;
  if (zone === undefined) return 0;
  return ifOfZone(so.so_vnet, zone)?.if_index ?? -ENXIO;
}

/** Writes the address `text` at `off`. False: it is not an address. */
function putAddr(v: DataView, off: number, text: string): boolean {
  const a = parseIn6(text.split('%')[0]!);
  if (a !== null) in6AddrPut(v, off, a);
  return a !== null;
}

/** Writes a struct sockaddr_in6 with the address `text` at `off`. False: it is not an address. */
function putSockaddr(bytes: Uint8Array, off: number, text: string): boolean {
  bytes.set([SOCKADDR_IN6_SIZE, AF_INET6], off);
  return putAddr(view(bytes), off + 8, text);
}

export const dgram6: DgramFamily = {
  domain: AF_INET6,
  any: '::',
  name(vnet, address, port): Sockaddr | Errno {
    const [text, zone] = address.split('%') as [string, string?];
    if (parseIn6(text) === null) return EINVAL;
    return in6SockaddrOf(vnet, address, port) ?? (zone === undefined ? EINVAL : ENXIO);
  },
  setTtl: (so, ttl) => soSetInt(so, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl),
  setDontFragment: (so, on) => soSetInt(so, IPPROTO_IPV6, IPV6_DONTFRAG, on ? 1 : 0),
  setIpv6Only: (so, on) => soSetInt(so, IPPROTO_IPV6, IPV6_V6ONLY, on ? 1 : 0),
  setMulticastTtl: (so, ttl) => soSetInt(so, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, ttl),
  setMulticastLoop: (so, on) => soSetInt(so, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, on ? 1 : 0),
  setMulticastInterface(so, text): Errno {
    const index = zoneOf(so, text);
    return index < 0 ? -index : set(so, IPPROTO_IPV6, IPV6_MULTICAST_IF, intBytes(index));
  },
  member(so, group, ifText, join): Errno {
    const bytes = new Uint8Array(MREQ6_SIZE);
    const index = zoneOf(so, ifText);
    if (!putAddr(view(bytes), 0, group)) return EINVAL;
    if (index < 0) return -index;
    view(bytes).setUint32(16, index, true);
    return set(so, IPPROTO_IPV6, join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, bytes);
  },
  source(so, source, group, ifText, join): Errno {
    const bytes = new Uint8Array(GROUP_OFF + 2 * STORAGE_SIZE);
    const index = zoneOf(so, ifText);
    if (!putSockaddr(bytes, GROUP_OFF, group)) return EINVAL;
    if (!putSockaddr(bytes, GROUP_OFF + STORAGE_SIZE, source)) return EINVAL;
    if (index < 0) return -index;
    view(bytes).setUint32(0, index, true);
    const name = join ? MCAST_JOIN_SOURCE_GROUP : MCAST_LEAVE_SOURCE_GROUP;
    return set(so, IPPROTO_IPV6, name, bytes);
  },
};
