/**
 * Converts addresses of programs (text and port number) to socket addresses of the kernel, and back.
 * Text is a dotted quad, or an IPv6 address with an optional zone: `fe80::1%tn0`.
 */

import { EINVAL, ENXIO, errnoError } from '../sys/errno.ts';
import { port as portOf } from '../sys/types.ts';
import { AF_INET6 } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import type { Vnet } from '../kern/vnet.ts';
import { inAddrOf, inet_ntoa, inSockaddr, parseInAddr } from '../netinet/in.ts';
import { in6Ntop, in6Sockaddr, parseIn6 } from '../netinet6/in6.ts';
import {
  in6_clearscope,
  in6_getlinkifnet,
  in6_getscope,
  parseIn6Zone,
} from '../netinet6/scope6.ts';

/** The name of a family, as Node.js has it. */
export type FamilyName = 'IPv4' | 'IPv6';

/** Whether `text` can only be an IPv6 address. */
export function isIn6Text(text: string): boolean {
  return text.includes(':');
}

/** The socket address of an IPv6 address with an optional zone. Null: not one, or an unknown zone. */
export function in6SockaddrOf(vnet: Vnet, text: string, port: number): Sockaddr | null {
  const a = parseIn6Zone(vnet, text);
  if (a === null) return null;
  const zone = in6_getscope(a);
  in6_clearscope(a);
  return in6Sockaddr(a, portOf(port), zone);
}

/**
 * The socket address of `host`, a dotted quad or an IPv6 address, and `port`, 0 to 65535. Throws
 * TapnicError EINVAL for any other value, undefined included; ENXIO if the zone is no interface.
 */
export function sockaddr(vnet: Vnet, host: string, port: number): Sockaddr {
  const badPort = !Number.isInteger(port) || port < 0 || port > 65_535;
  const nam = typeof host === 'string' ? parsed(vnet, host, badPort ? 0 : port) : null;
  if (nam === null) throw errnoError(EINVAL, 'address', `${host} is not an IPv4 or IPv6 address`);
  if (badPort) throw errnoError(EINVAL, 'address', `port ${port} is not 0 to 65535`);
  return nam;
}

/** The socket address of `host` and a valid port; null: not an address. Throws TapnicError ENXIO. */
function parsed(vnet: Vnet, host: string, port: number): Sockaddr | null {
  if (!isIn6Text(host)) {
    const addr = parseInAddr(host);
    return addr === null ? null : inSockaddr(addr, portOf(port));
  }
  const nam = in6SockaddrOf(vnet, host, port);
  const [text, zone] = host.split('%') as [string, string?];
  if (nam === null && zone !== undefined && parseIn6(text) !== null)
    throw errnoError(ENXIO, 'address', `${host}: no interface ${zone}, or an address without zone`);
  return nam;
}

/** An address as text; with a zone for a link-local address: `fe80::1%tn0`. */
export function addressText(vnet: Vnet, sa: Sockaddr): string {
  if (sa.family !== AF_INET6) return inet_ntoa(inAddrOf(sa));
  const text = in6Ntop(sa);
  if (sa.scope_id === 0) return text;
  return `${text}%${in6_getlinkifnet(vnet, sa.scope_id)?.if_xname ?? sa.scope_id}`;
}

/** The name of the family of an address. */
export function familyText(sa: Sockaddr): FamilyName {
  return sa.family === AF_INET6 ? 'IPv6' : 'IPv4';
}
