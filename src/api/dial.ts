/** The sockets of `connect`: their addresses and options. */

import { errnoError, type Errno } from '../sys/errno.ts';
import { AF_INET6, IPPROTO_TCP, SOCK_STREAM } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import {
  sobind,
  soconnect,
  socreate,
  type Socket as KernSocket,
  soResult,
} from '../kern/uipc_socket.ts';
import { soSetInt } from '../kern/uipc_sockopt.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IPPROTO_IPV6 } from '../netinet6/ip6.ts';
import { IPV6_V6ONLY } from '../netinet6/ip6_ctloutput.ts';
import { sockaddr } from './address.ts';
import type { Attempts } from './lookup.ts';
import type { LookupOptions } from './lookup.ts';
import type { SocketOptions } from './socket.ts';

/** The address of the peer, and our own; for a new socket its options too. */
export interface ConnectOptions extends LookupOptions, SocketOptions {
  /** 1 to 65535. */
  readonly port: number;
  /**
   * An IPv4 or IPv6 address, such as `fe80::1%tn0`, or with `lookup` a name. Default 127.0.0.1, or ::1 with
   * `family` 6. As in Node.js, `family` has no effect on an address.
   */
  readonly host?: string | undefined;
  /** The local address and port. Default: chosen. */
  readonly localAddress?: string | undefined;
  readonly localPort?: number | undefined;
}

/** A socket that is about to connect. */
interface Dial {
  readonly so: KernSocket;
  /** For errors: `connect host:port`. */
  readonly call: string;
  readonly peer: Sockaddr;
  readonly local: Sockaddr | null;
}

/**
 * Creates a BSD socket of `family`. One of AF_INET6 also connects to v4-mapped addresses, as on Linux.
 * Throws TapnicError ENOBUFS, EAFNOSUPPORT.
 */
function tcpSocket(vnet: Vnet, family: number): KernSocket {
  const error = socreate(vnet, family, SOCK_STREAM, IPPROTO_TCP);
  if (error !== 0) throw errnoError(error, 'socket');
  const so = soResult.so!;
  if (family === AF_INET6) soSetInt(so, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  return so;
}

/** The local address of `connect`; null: chosen. Throws TapnicError EINVAL, ENXIO. */
function localOf(vnet: Vnet, options: ConnectOptions, peer: Sockaddr): Sockaddr | null {
  const { localAddress, localPort } = options;
  if (localAddress === undefined && localPort === undefined) return null;
  const any = peer.family === AF_INET6 ? '::' : '0.0.0.0';
  return sockaddr(vnet, localAddress ?? any, localPort ?? 0);
}

/** Creates the socket. Throws TapnicError: EINVAL, ENXIO (addresses), ENOBUFS, EAFNOSUPPORT. */
export function dial(vnet: Vnet, options: ConnectOptions): Dial {
  const { host, port, family } = options;
  const text = typeof host === 'string' ? host : family === 6 ? '::1' : '127.0.0.1';
  const peer = sockaddr(vnet, text, port);
  const local = localOf(vnet, options, peer);
  return { so: tcpSocket(vnet, peer.family), call: `connect ${text}:${port}`, peer, local };
}

/** Binds and connects the socket. */
export function dialled({ so, local, peer }: Dial): Errno {
  const bound = local === null ? 0 : sobind(so, local);
  return bound || soconnect(so, peer);
}

/** State of a connection that we open. */
export class Dialling {
  /** The call for the error of a failed `connect`. */
  call = 'connect';
  /** The error of a `connect` that failed at once. */
  refused: Errno = 0;
  /** The addresses of a name, while they are tried. */
  attempts: Attempts | null = null;
  // Options that were set before `connect`.
  noDelay: boolean | null = null;
  keepAlive: [boolean, number] | null = null;
}
