/** Listening sockets of the emulated host, shaped like net.Server, and outgoing connections. */

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

/** Backlog asked for; kern.ipc.soacceptqueue clips it. */
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

  /** The address it listens on; null when it does not. */
  address(): { address: string; family: string; port: number } | null {
    const so = this.#so;
    if (so === null) return null;
    const name = so.so_proto.pr_sockaddr(so)!;
    return { address: inet_ntoa(inAddrOf(name)), family: 'IPv4', port: name.port };
  }

  /**
   * Starts to accept connections to `port` (0: any free one) on every address or on `host`. Throws
   * TapnicError EADDRINUSE, EADDRNOTAVAIL, EINVAL: no port, no address, or it listens already.
   */
  listen(port: number, host?: string): this {
    if (this.#so !== null) throw errnoError(EINVAL, `listen ${port}`, 'it listens already');
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
      // One that is over before it was accepted is nothing to report; the next may be well.
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

  /** Stops accepting; connections that are open stay. */
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

/** A server of the stack `vnet`; `onConnection` listens to 'connection'. */
export function createServer(vnet: Vnet, onConnection?: (socket: TcpSocket) => void): TcpServer {
  const server = new TcpServer(vnet);
  if (onConnection !== undefined) server.on('connection', onConnection);
  return server;
}

/** Connects from the emulated host to an IPv4 address; rejects with TapnicError (ECONNREFUSED, EINVAL, …). */
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
