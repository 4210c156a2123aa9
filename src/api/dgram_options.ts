/**
 * The socket options and groups of UDP sockets of each family, behind the methods of DgramSocket. As in
 * libuv, a method for TTLs sets the hop limit, and the interface of an IPv6 group is the zone of a text.
 */

import { EINVAL, ENXIO, errnoError, type Errno } from '../sys/errno.ts';
import { AF_INET6, IPPROTO_IP } from '../kern/protosw.ts';
import { SOCKADDR_IN6_SIZE } from '../kern/sockaddr.ts';
import { intBytes, Sockopt, SOPT_SET, view } from '../kern/sockopt.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import { soSetInt, sosetopt } from '../kern/uipc_sockopt.ts';
import { parseInAddr } from '../netinet/in.ts';
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

/** struct ipv6_mreq: group and index of the interface. */
const MREQ6_SIZE = 20;
/** struct group_source_req: index, then group and source as sockaddr_storage. */
const GROUP_OFF = 8;
const STORAGE_SIZE = 128;

/** What differs between the families. The functions with `call` throw TapnicError. */
export interface DgramFamily {
  readonly any: string;
  readonly loopback: string;
  setTtl(so: Socket, ttl: number): Errno;
  setDontFragment(so: Socket, on: boolean): Errno;
  setIpv6Only(so: Socket, on: boolean): Errno;
  setMulticastTtl(so: Socket, ttl: number): Errno;
  setMulticastLoop(so: Socket, on: boolean): Errno;
  setMulticastInterface(so: Socket, call: string, text: string): void;
  /** Joins or leaves a group. */
  member(so: Socket, call: string, group: string, ifText: string | undefined, join: boolean): void;
  /** Joins or leaves a group for one source. */
  source(
    so: Socket,
    call: string,
    source: string,
    group: string,
    ifText: string | undefined,
    join: boolean,
  ): void;
}

const ANY = '0.0.0.0';

function set(so: Socket, call: string, level: number, name: number, value: Uint8Array): void {
  const error = sosetopt(so, new Sockopt(SOPT_SET, level, name, value));
  if (error !== 0) throw errnoError(error, call);
}

/** Sets an option of level IPPROTO_IP whose value is a list of addresses. EINVAL: not addresses. */
function set4(so: Socket, call: string, name: number, value: readonly string[]): void {
  const bytes = new DataView(new ArrayBuffer(4 * value.length));
  for (const [i, text] of value.entries()) {
    const addr = typeof text === 'string' ? parseInAddr(text) : null;
    if (addr === null) throw errnoError(EINVAL, call, `${text} is not an IPv4 address`);
    bytes.setInt32(4 * i, addr);
  }
  set(so, call, IPPROTO_IP, name, new Uint8Array(bytes.buffer));
}

export const dgram4: DgramFamily = {
  any: ANY,
  loopback: '127.0.0.1',
  setTtl: (so, ttl) => soSetInt(so, IPPROTO_IP, IP_TTL, ttl),
  setDontFragment: (so, on) => soSetInt(so, IPPROTO_IP, IP_DONTFRAG, on ? 1 : 0),
  setIpv6Only: () => 0,
  setMulticastTtl: (so, ttl) => soSetInt(so, IPPROTO_IP, IP_MULTICAST_TTL, ttl),
  setMulticastLoop: (so, on) => soSetInt(so, IPPROTO_IP, IP_MULTICAST_LOOP, on ? 1 : 0),
  setMulticastInterface(so, call, text): void {
    set4(so, call, IP_MULTICAST_IF, [text]);
  },
  member(so, call, group, ifText = ANY, join): void {
    set4(so, call, join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, [group, ifText]);
  },
  source(so, call, source, group, ifText = ANY, join): void {
    const name = join ? IP_ADD_SOURCE_MEMBERSHIP : IP_DROP_SOURCE_MEMBERSHIP;
    set4(so, call, name, [group, source, ifText]);
  },
};

/** The index of the interface in a text such as `::%tn0` or `%2`; 0: none is named. */
function zoneOf(so: Socket, call: string, text: string | undefined): number {
  if (text === undefined) return 0;
  // A program in JavaScript may pass anything.
  const [addr, zone] = typeof text === 'string' ? (text.split('%') as [string, string?]) : [''];
  if (parseIn6(addr) === null) throw errnoError(EINVAL, call, `${text} is not an IPv6 address`);
  if (zone === undefined) return 0;
  const ifp = ifOfZone(so.so_vnet, zone);
  if (ifp === null) throw errnoError(ENXIO, call, `no interface ${zone}`);
  return ifp.if_index;
}

/** Writes the address `text` at `off`. Throws TapnicError EINVAL. */
function putAddr(v: DataView, off: number, call: string, text: string): void {
  const a = typeof text === 'string' ? parseIn6(text.split('%')[0]!) : null;
  if (a === null) throw errnoError(EINVAL, call, `${text} is not an IPv6 address`);
  in6AddrPut(v, off, a);
}

/** Writes a struct sockaddr_in6 with the address `text` at `off`. */
function putSockaddr(bytes: Uint8Array, off: number, call: string, text: string): void {
  bytes.set([SOCKADDR_IN6_SIZE, AF_INET6], off);
  putAddr(view(bytes), off + 8, call, text);
}

export const dgram6: DgramFamily = {
  any: '::',
  loopback: '::1',
  setTtl: (so, ttl) => soSetInt(so, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl),
  setDontFragment: (so, on) => soSetInt(so, IPPROTO_IPV6, IPV6_DONTFRAG, on ? 1 : 0),
  setIpv6Only: (so, on) => soSetInt(so, IPPROTO_IPV6, IPV6_V6ONLY, on ? 1 : 0),
  setMulticastTtl: (so, ttl) => soSetInt(so, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, ttl),
  setMulticastLoop: (so, on) => soSetInt(so, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, on ? 1 : 0),
  setMulticastInterface(so, call, text): void {
    const index = zoneOf(so, call, text);
    set(so, call, IPPROTO_IPV6, IPV6_MULTICAST_IF, intBytes(index));
  },
  member(so, call, group, ifText, join): void {
    const bytes = new Uint8Array(MREQ6_SIZE);
    putAddr(view(bytes), 0, call, group);
    view(bytes).setUint32(16, zoneOf(so, call, ifText), true);
    set(so, call, IPPROTO_IPV6, join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, bytes);
  },
  source(so, call, source, group, ifText, join): void {
    const bytes = new Uint8Array(GROUP_OFF + 2 * STORAGE_SIZE);
    view(bytes).setUint32(0, zoneOf(so, call, ifText), true);
    putSockaddr(bytes, GROUP_OFF, call, group);
    putSockaddr(bytes, GROUP_OFF + STORAGE_SIZE, call, source);
    const name = join ? MCAST_JOIN_SOURCE_GROUP : MCAST_LEAVE_SOURCE_GROUP;
    set(so, call, IPPROTO_IPV6, name, bytes);
  },
};
