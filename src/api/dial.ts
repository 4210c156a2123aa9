/** The BSD sockets of `connect`: their addresses and options. */

import { EINVAL, ENXIO, type Errno, errnoOf } from '../sys/errno.ts';
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
import type { Attempts, DialFailure } from './lookup.ts';
import type { ConnectRequest } from './net_args.ts';
import type { LookupAddress } from './net_host.ts';
import { SocketError } from './node_errors.ts';

/** State of a connection that we open. */
export class Dialling {
  /** The attempts under way. */
  attempts: Attempts | null = null;
  /** The option `signal`. */
  signal: AbortSignal | null = null;
  // Options that were set before `connect`.
  noDelay: boolean | null = null;
  keepAlive: [boolean, number] | null = null;
}

/** As on Linux, to connect to no address in particular is to connect to this host. */
const UNSPECIFIED: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' };

/** A socket address. An errno if `address` is no address of the stack, such as an unknown zone. */
function addressOf(vnet: Vnet, address: string, port: number): Sockaddr | Errno {
  try {
    return sockaddr(vnet, address, port);
  } catch (e) {
    return errnoOf((e as NodeJS.ErrnoException).code);
  }
}

/** The local address of a socket of the family of `peer`; null: any. */
function localOf(vnet: Vnet, request: ConnectRequest, peer: Sockaddr): Sockaddr | Errno | null {
  const { localAddress, localPort } = request;
  if (localAddress === undefined && localPort === undefined) return null;
  const any = peer.family === AF_INET6 ? '::' : '0.0.0.0';
  const local = addressOf(vnet, localAddress ?? any, localPort ?? 0);
  return typeof local === 'object' && local.family !== peer.family ? EINVAL : local;
}

/**
 * Creates a BSD socket, passes it to `take`, binds it and begins to connect. A socket of AF_INET6 also
 * connects to v4-mapped addresses, as on Linux. Returns what failed, or null.
 */
export function dial(
  vnet: Vnet,
  to: LookupAddress,
  request: ConnectRequest,
  take: (so: KernSocket) => void,
): DialFailure | null {
  const { address } = to;
  const { port, localAddress, localPort } = request;
  const failed = (error: Errno, hint = ''): DialFailure => ({
    error: new SocketError(error, 'connect', { address, port }, false, hint),
    connecting: true,
  });
  const peer = addressOf(vnet, UNSPECIFIED[address] ?? address, port);
  if (typeof peer === 'number')
    return failed(peer, peer === ENXIO ? `no interface ${address.split('%')[1]}` : '');
  const made = socreate(vnet, peer.family, SOCK_STREAM, IPPROTO_TCP);
  if (made !== 0) return failed(made);
  const so = soResult.so!;
  if (peer.family === AF_INET6) soSetInt(so, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  take(so);
  const local = localOf(vnet, request, peer);
  const bound = typeof local === 'number' ? local : local === null ? 0 : sobind(so, local);
  if (bound !== 0) {
    const any = peer.family === AF_INET6 ? '::' : '0.0.0.0';
    const where = { address: localAddress ?? any, port: localPort };
    return { error: new SocketError(bound, 'bind', where), connecting: false };
  }
  const error = soconnect(so, peer);
  return error === 0 ? null : failed(error);
}
