/**
 * Converts addresses of programs (text and port number) to socket addresses of the kernel. IPv4
 * only.
 */

import { EINVAL, errnoError } from '../sys/errno.ts';
import { port as portOf } from '../sys/types.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { inSockaddr, parseInAddr } from '../netinet/in.ts';

/**
 * The socket address of `host`, a dotted quad, and `port`, 0 to 65535. Throws TapnicError EINVAL
 * for any other value, undefined included.
 */
export function sockaddr(host: string, port: number): Sockaddr {
  const addr = typeof host === 'string' ? parseInAddr(host) : null;
  if (addr === null) throw errnoError(EINVAL, 'address', `${host} is not an IPv4 address`);
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw errnoError(EINVAL, 'address', `port ${port} is not 0 to 65535`);
  return inSockaddr(addr, portOf(port));
}

/** The local address to bind to; `host` undefined: any address. Throws as `sockaddr` does. */
export function localSockaddr(host: string | undefined, port: number): Sockaddr {
  return sockaddr(host ?? '0.0.0.0', port);
}
