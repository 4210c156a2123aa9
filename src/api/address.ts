/** Addresses as programs give them, texts and numbers, as the kernel has them. IPv4 only. */

import { EINVAL, errnoError } from '../sys/errno.ts';
import { port as portOf } from '../sys/types.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { inSockaddr, parseInAddr } from '../netinet/in.ts';

/**
 * `host` in dotted form and `port`, 0 to 65535. Throws TapnicError EINVAL if either is something
 * else, nothing included.
 */
export function sockaddr(host: string, port: number): Sockaddr {
  const addr = typeof host === 'string' ? parseInAddr(host) : null;
  if (addr === null) throw errnoError(EINVAL, 'address', `${host} is not an IPv4 address`);
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw errnoError(EINVAL, 'address', `port ${port} is not 0 to 65535`);
  return inSockaddr(addr, portOf(port));
}

/** Where to receive: at every address if `host` is undefined. Throws as `sockaddr` does. */
export function localSockaddr(host: string | undefined, port: number): Sockaddr {
  return sockaddr(host ?? '0.0.0.0', port);
}
