/** UDP sockets for programs: node:dgram's Socket on a DgramHandle of a stack. */

import { DgramHandle, type DgramType } from '../api/dgram_handle.ts';
import {
  type NodeDgramOptions,
  type RemoteInfo,
  type SocketOptions,
  StackDgramSocket,
} from '../host/node_dgram.ts';
import type { Vnet } from '../kern/vnet.ts';

export type { DgramType } from '../api/dgram_handle.ts';

/** The sender of a datagram, and its size in bytes. */
export type DgramInfo = RemoteInfo;

/** A listener of 'message'. */
export type MessageListener = (data: Buffer, from: DgramInfo) => void;

/** Options of a new UDP socket: those of node:dgram, and two of ours. */
export interface DgramSocketOptions extends SocketOptions, NodeDgramOptions {
  /** Several sockets share a port: SO_REUSEPORT, as `reuseAddr` with node:dgram on FreeBSD. */
  readonly reusePort?: boolean | undefined;
  /** IP_TTL or IPV6_UNICAST_HOPS, 1 to 255; default net.inet.ip.ttl or net.inet6.ip6.hlim. */
  readonly ttl?: number | undefined;
  /** IP_DONTFRAG: send datagrams with DF; IPV6_DONTFRAG: never in fragments. Default false. */
  readonly dontFragment?: boolean | undefined;
}

/** Throws ERR_OUT_OF_RANGE for an invalid TTL. */
function checkTtl(ttl: unknown): void {
  if (ttl === undefined || (Number.isInteger(ttl) && Number(ttl) >= 1 && Number(ttl) <= 255))
    return;
  const error = new RangeError(`options.ttl must be an integer from 1 to 255`);
  throw Object.assign(error, { code: 'ERR_OUT_OF_RANGE' });
}

/** The stack of UDP sockets, which closes them when it is closed. */
export interface DgramUser {
  opened(socket: DgramSocket, handle: DgramHandle): void;
  closed(socket: DgramSocket): void;
}

/** A UDP socket of a stack: a dgram.Socket. */
export class DgramSocket extends StackDgramSocket {
  /**
   * Throws as dgram.createSocket does: ERR_SOCKET_BAD_TYPE, ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE.
   * @param user the stack that closes the socket
   */
  constructor(
    vnet: Vnet,
    options: DgramSocketOptions | DgramType,
    onMessage?: MessageListener,
    user: DgramUser | null = null,
  ) {
    const own: Partial<DgramSocketOptions> = typeof options === 'object' ? (options ?? {}) : {};
    const { type, reuseAddr, reusePort, ipv6Only, ttl, dontFragment } = own;
    checkTtl(ttl);
    let handle: DgramHandle | null = null;
    const make = (): DgramHandle => {
      handle = new DgramHandle(vnet, {
        type: type ?? (options as DgramType),
        reusePort: Boolean(reuseAddr) || Boolean(reusePort),
        ipv6Only: Boolean(ipv6Only),
        ttl,
        dontFragment: Boolean(dontFragment),
      });
      return handle;
    };
    super(options, onMessage, { make, closed: () => user?.closed(this) });
    if (handle !== null) user?.opened(this, handle);
  }
}

/** Closes a socket whose stack is closed; one that still looks up a name reports it later. */
export function closeDgram(socket: DgramSocket, handle: DgramHandle): void {
  if (!handle.closed) socket.close();
  handle.close();
}
