/** TCP servers of the emulated host, with the interface of net.Server, and outgoing connections. */

import { EventEmitter } from 'node:events';
import type { Task } from '../sys/clock.ts';
import { EADDRINUSE, ECONNABORTED, EINVAL, errnoError, type Errno } from '../sys/errno.ts';
import { AF_INET, IPPROTO_TCP, SOCK_STREAM } from '../kern/protosw.ts';
import {
  SO_REUSEADDR,
  soaccept,
  sobind,
  soclose,
  soconnect,
  socreate,
  type Socket,
  solisten,
  soResult,
} from '../kern/uipc_socket.ts';
import type { Vnet } from '../kern/vnet.ts';
import { inAddrOf, inet_ntoa } from '../netinet/in.ts';
import { inPass, passUpcall, type Upcall } from '../sys/pass.ts';
import { localSockaddr, sockaddr } from './address.ts';
import { TcpSocket } from './socket.ts';

/** The requested backlog; kern.ipc.soacceptqueue limits it. */
const BACKLOG = 128;

function check(error: Errno, syscall: string, hint = ''): void {
  if (error !== 0) throw errnoError(error, syscall, hint);
}

function tcpSocket(vnet: Vnet): Socket {
  check(socreate(vnet, AF_INET, SOCK_STREAM, IPPROTO_TCP), 'socket');
  return soResult.so!;
}

/** Emits 'connection' with a TcpSocket, 'listening' and 'close'. */
export class TcpServer extends EventEmitter {
  readonly #vnet: Vnet;
  #so: Socket | null = null;
  readonly #onAccept: Task = { run: () => this.#accept() };
  readonly #rest: Upcall = { upcall: () => this.#accept() };

  constructor(vnet: Vnet) {
    super();
    this.#vnet = vnet;
  }

  /** Whether it accepts connections. */
  get listening(): boolean {
    return this.#so !== null;
  }

  /** The address on which it listens; null if it does not. */
  address(): { address: string; family: string; port: number } | null {
    const so = this.#so;
    if (so === null) return null;
    const name = so.so_proto.pr_sockaddr(so)!;
    return { address: inet_ntoa(inAddrOf(name)), family: 'IPv4', port: name.port };
  }

  /**
   * Starts to accept connections to `port` (0: any free one) at `host`, by default at all
   * addresses. Throws TapnicError. EADDRINUSE: the port is in use. EADDRNOTAVAIL: not a local
   * address. EINVAL: invalid port or address, or the server listens already.
   */
  listen(port: number, host?: string): this {
    if (this.#so !== null) throw errnoError(EINVAL, `listen ${port}`, 'the server listens already');
    const local = localSockaddr(host, port);
    const so = tcpSocket(this.#vnet);
    so.so_options |= SO_REUSEADDR;
    const bound = sobind(so, local);
    const error = bound !== 0 ? bound : solisten(so, BACKLOG);
    if (error !== 0) {
      soclose(so);
      throw errnoError(
        error,
        `listen ${port}`,
        error === EADDRINUSE ? 'the port is in use: choose another one' : '',
      );
    }
    this.#so = so;
    so.sol_upcall = this.#onAccept;
    this.emit('listening');
    return this;
  }

  #accept(): void {
    while (this.#so !== null) {
      const error = soaccept(this.#so);
      // The connection ended before it was accepted: try the next one.
      if (error === ECONNABORTED) continue;
      if (error !== 0) return;
      const socket = new TcpSocket(soResult.so!);
      try {
        this.emit('connection', socket);
      } catch (e) {
        inPass(passUpcall, this.#rest);
        throw e;
      }
    }
  }

  /** Stops accepting; open connections stay open. */
  close(): this {
    const so = this.#so;
    this.#so = null;
    if (so !== null) {
      soclose(so);
      this.emit('close');
    }
    return this;
  }
}

/** Creates a server of the stack `vnet`; `onConnection` is a listener of 'connection'. */
export function createServer(vnet: Vnet, onConnection?: (socket: TcpSocket) => void): TcpServer {
  const server = new TcpServer(vnet);
  if (onConnection !== undefined) server.on('connection', onConnection);
  return server;
}

/**
 * Connects from the emulated host to an IPv4 address. Rejects with TapnicError: ECONNREFUSED,
 * EINVAL, …
 */
export function connect(vnet: Vnet, port: number, host: string): Promise<TcpSocket> {
  return new Promise((resolve, reject) => {
    const peer = sockaddr(host, port);
    const so = tcpSocket(vnet);
    const socket = new TcpSocket(so);
    const failed = (error: Errno): void => {
      socket.destroy();
      reject(errnoError(error, `connect ${host}:${port}`));
    };
    socket.onConnected((error) => {
      if (error === 0) resolve(socket);
      else failed(error);
    });
    const error = soconnect(so, peer);
    if (error !== 0) failed(error);
  });
}
