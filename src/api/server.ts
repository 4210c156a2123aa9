/**
 * TCP servers of the emulated host, and outgoing connections. `listen` works with every net.Server of
 * Node.js (net, http, https, http2); `Server` has the interface of net.Server. Left out: name
 * resolution, cluster, abort signals.
 */

import { EventEmitter } from 'node:events';
import {
  EADDRINUSE,
  EAFNOSUPPORT,
  EINVAL,
  errnoError,
  type Errno,
  TapnicError,
} from '../sys/errno.ts';
import { AF_INET6, IPPROTO_TCP, SOCK_STREAM } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import {
  SO_LINGER,
  SO_REUSEADDR,
  soaccept,
  sobind,
  soclose,
  socreate,
  type Socket as KernSocket,
  solisten,
  soResult,
} from '../kern/uipc_socket.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IPPROTO_IPV6 } from '../netinet6/ip6.ts';
import { IPV6_V6ONLY } from '../netinet6/ip6_ctloutput.ts';
import { soSetInt } from '../kern/uipc_sockopt.ts';
import { addressText, familyText, sockaddr } from './address.ts';
import type { ConnectOptions } from './dial.ts';
import { Socket, type SocketServer } from './socket.ts';
import { later, Turns } from './turns.ts';

/** The requested backlog, as Node's; kern.ipc.soacceptqueue limits it. */
export const BACKLOG = 511;

/** The address and the queue of a listening server. */
export interface ListenOptions {
  /** 0 to 65535; 0, the default: any free port. */
  readonly port?: number | undefined;
  /** An IPv4 or IPv6 address. Default: all addresses of both families, `::`. */
  readonly host?: string | undefined;
  /** With the address `::`, whether the server accepts only IPv6. Default false. */
  readonly ipv6Only?: boolean | undefined;
  /** Length of the accept queue. Default 511; kern.ipc.soacceptqueue limits it. */
  readonly backlog?: number | undefined;
}

/** Options of a server, as net.Server's. */
export interface ServerOptions {
  /** Keeps our side open after the peer has ended its side. Default false. */
  readonly allowHalfOpen?: boolean;
  /** Whether sockets are paused when they are accepted. Default false. */
  readonly pauseOnConnect?: boolean;
  /** TCP_NODELAY. Default false. */
  readonly noDelay?: boolean;
  /** SO_KEEPALIVE, and when the first probe is sent, in ms. Default false. */
  readonly keepAlive?: boolean;
  readonly keepAliveInitialDelay?: number;
  /** High-water mark of the sockets, bytes. Default: that of Node's streams. */
  readonly highWaterMark?: number;
}

/** A server's address. */
export interface ListenAddress {
  readonly address: string;
  readonly family: string;
  readonly port: number;
}

/** The public part of a server that `listen` needs. net.Server and its subclasses have it. */
export interface AnyServer extends EventEmitter {
  readonly listening: boolean;
  close(done?: (error?: Error) => void): unknown;
}

/**
 * The internal part of net.Server that `listen` uses. `listening`, `address` and `close` use `_handle`,
 * the listening socket; `_connections` is the number of open connections. The names are the same in
 * all versions from Node.js 20 to 24.
 */
interface ServerInside extends EventEmitter {
  _handle: ListenHandle | null;
  _connections: number;
  _emitCloseIfDrained(): void;
  maxConnections?: number | null;
  allowHalfOpen?: boolean;
  pauseOnConnect?: boolean;
  noDelay?: boolean;
  keepAlive?: boolean;
  /** In seconds. */
  keepAliveInitialDelay?: number;
  highWaterMark?: number;
  blockList?: { check(address: string, family: string): boolean } | undefined;
}

/** The stack of a server, which closes servers and connections when it is closed. */
export interface ListenUser {
  listens(server: AnyServer): void;
  closed(server: AnyServer): void;
  connection(socket: Socket): void;
  /** A connection was destroyed. */
  disconnected(socket: Socket): void;
}

/** The listening socket of a server. It takes the place of Node's own handle. */
class ListenHandle implements SocketServer {
  readonly #vnet: Vnet;
  readonly #server: ServerInside;
  readonly #user: ListenUser | null;
  #so: KernSocket | null;
  /** Accepted connections that the server has not emitted. */
  readonly #accepted: KernSocket[] = [];
  readonly #accepting = new Turns(() => this.#accept());

  /** Takes ownership of `so`, which listens. */
  constructor(vnet: Vnet, so: KernSocket, server: ServerInside, user: ListenUser | null) {
    this.#vnet = vnet;
    this.#so = so;
    this.#server = server;
    this.#user = user;
    so.sol_upcall = this.#accepting;
  }

  /**
   * Accepts up to a backlog of connections, so that a burst does not overflow the kernel's queue, and
   * emits one. The next one has its own turn, because a listener may throw. If the listener is too
   * slow, the kernel's queue fills up and the kernel refuses further connections.
   */
  #accept(): void {
    const head = this.#so;
    if (head === null) return;
    const limit = Math.max(head.sol_qlimit, 1);
    while (head.sol_comp.length > 0 && this.#accepted.length < limit)
      // A connection that ended before it was accepted is not reported.
      if (soaccept(head) === 0) this.#accepted.push(soResult.so!);
    const so = this.#accepted.shift();
    const left = this.#accepted.length + head.sol_comp.length;
    if (left > 0) this.#accepting.again(left);
    if (so !== undefined) this.#connection(so);
  }

  #connection(so: KernSocket): void {
    const server = this.#server;
    const peer = so.so_proto.pr_peeraddr(so);
    if (server._connections >= limitOf(server)) {
      const local = so.so_proto.pr_sockaddr(so);
      soclose(so);
      server.emit('drop', {
        ...this.#dropped('local', local),
        ...this.#dropped('remote', peer),
      });
      return;
    }
    if (peer !== null && server.blockList !== undefined) {
      const family = familyText(peer).toLowerCase();
      if (server.blockList.check(addressText(this.#vnet, peer), family)) {
        soclose(so);
        return;
      }
    }
    const { allowHalfOpen = false, highWaterMark } = server;
    const socket = new Socket(this.#vnet, { allowHalfOpen, highWaterMark });
    socket.adopt(so, this, server.pauseOnConnect === true);
    if (server.noDelay === true) socket.setNoDelay(true);
    if (server.keepAlive === true)
      socket.setKeepAlive(true, (server.keepAliveInitialDelay ?? 0) * 1000);
    server._connections++;
    socket.server = server;
    this.#user?.connection(socket);
    server.emit('connection', socket);
  }

  #dropped(side: string, name: Sockaddr | null): Record<string, unknown> {
    if (name === null) return {};
    return {
      [`${side}Address`]: addressText(this.#vnet, name),
      [`${side}Port`]: name.port,
      [`${side}Family`]: familyText(name),
    };
  }

  socketClosed(socket: Socket): void {
    this.#user?.disconnected(socket);
    this.#server._connections--;
    this.#server._emitCloseIfDrained();
  }

  /** Called by net.Server: stores the address in `out`. */
  getsockname(out: Record<string, unknown>): number {
    Object.assign(out, this.address());
    return 0;
  }

  address(): ListenAddress {
    const so = this.#so!;
    const name = so.so_proto.pr_sockaddr(so)!;
    return { address: addressText(this.#vnet, name), family: familyText(name), port: name.port };
  }

  /** Stops accepting. */
  close(): void {
    const so = this.#so;
    this.#so = null;
    if (so === null) return;
    soclose(so);
    for (const unseen of this.#accepted.splice(0)) reset(unseen);
    this.#user?.closed(this.#server as unknown as AnyServer);
  }

  /** Called by net.Server. No effect: the stack keeps the process alive until it is closed. */
  ref(): void {}
  unref(): void {}
}

/** Closes a connection that no program has seen. The peer gets a RST. */
function reset(so: KernSocket): void {
  so.so_options |= SO_LINGER;
  so.so_linger = 0;
  soclose(so);
}

/** How many connections may be open. In Node.js 20, `maxConnections` 0 is no limit. */
function limitOf({ maxConnections: limit }: ServerInside): number {
  if (limit === undefined || limit === null) return Infinity;
  return limit === 0 && parseInt(process.versions.node, 10) < 21 ? Infinity : limit;
}

/** Creates a listening socket in `soResult`. */
export function listeningSocket(
  vnet: Vnet,
  local: Sockaddr,
  backlog: number,
  ipv6Only: boolean,
): Errno {
  const made = socreate(vnet, local.family, SOCK_STREAM, IPPROTO_TCP);
  if (made !== 0) return made;
  const so = soResult.so!;
  so.so_options |= SO_REUSEADDR;
  if (local.family === AF_INET6) soSetInt(so, IPPROTO_IPV6, IPV6_V6ONLY, ipv6Only ? 1 : 0);
  const error = sobind(so, local) || solisten(so, backlog);
  if (error !== 0) soclose(so);
  soResult.so = so;
  return error;
}

/** A listening socket, or why the call failed; `failure` has the address and the port, as Node's. */
type Listening =
  | { readonly so: KernSocket; readonly failure: null }
  | { readonly so: null; readonly failure: TapnicError };

/**
 * Creates a listening socket. Throws TapnicError EINVAL: invalid port or address. `failure`: EADDRINUSE,
 * EADDRNOTAVAIL, ENOBUFS.
 */
export function openListener(vnet: Vnet, options: ListenOptions): Listening {
  const { port = 0, host, backlog = BACKLOG, ipv6Only = false } = options;
  // As net.Server: all addresses of both families, or of IPv4 if the stack has no IPv6.
  let where = host ?? '::';
  let error = listeningSocket(vnet, sockaddr(vnet, where, port), backlog, ipv6Only);
  if (error === EAFNOSUPPORT && host === undefined) {
    where = '0.0.0.0';
    error = listeningSocket(vnet, sockaddr(vnet, where, port), backlog, false);
  }
  const so = soResult.so!;
  if (error === 0) return { so, failure: null };
  const hint = error === EADDRINUSE ? ': the port is in use: choose another one' : '';
  const failure = errnoError(error, 'listen', `${where}:${port}${hint}`);
  return { so: null, failure: Object.assign(failure, { address: where, port }) };
}

/**
 * Makes `server` accept connections to the stack `vnet`. 'listening' is emitted later, or 'error' with
 * TapnicError EADDRINUSE, EADDRNOTAVAIL, ENOBUFS. Throws TapnicError EINVAL: invalid port, address or
 * server, or the server listens already.
 */
export function listen(
  vnet: Vnet,
  server: AnyServer,
  options: ListenOptions = {},
  user: ListenUser | null = null,
): void {
  const inside = server as unknown as ServerInside;
  const { port = 0 } = options;
  if (typeof inside?._emitCloseIfDrained !== 'function')
    throw errnoError(
      EINVAL,
      `listen ${port}`,
      'a server of node:net, node:http or tapnic is needed',
    );
  if (inside._handle) throw errnoError(EINVAL, `listen ${port}`, 'the server listens already');
  const { so, failure } = openListener(vnet, options);
  if (so === null) {
    later(() => inside.emit('error', failure));
    return;
  }
  const handle = new ListenHandle(vnet, so, inside, user);
  inside._handle = handle;
  user?.listens(server);
  later(() => {
    if (inside._handle === handle) inside.emit('listening');
  });
}

/** Waits for the result of `server.listen()`. Rejects with the error that the server emits. */
export function listening(server: EventEmitter): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      server.off('listening', listens);
      reject(error);
    };
    const listens = (): void => {
      server.off('error', failed);
      resolve();
    };
    server.once('listening', listens);
    server.once('error', failed);
  });
}

/**
 * A TCP server of the emulated host. It emits 'listening', 'connection', 'error', 'drop' and 'close' as
 * net.Server does; its connections are Sockets.
 */
export class Server extends EventEmitter {
  readonly #vnet: Vnet;
  readonly #user: ListenUser | null;
  /** Limit of open connections. The server closes further ones and emits 'drop'. */
  maxConnections: number | null = null;
  readonly allowHalfOpen: boolean;
  readonly pauseOnConnect: boolean;
  readonly noDelay: boolean;
  readonly keepAlive: boolean;
  /** Seconds, as in net.Server. */
  readonly keepAliveInitialDelay: number;
  readonly highWaterMark: number | undefined;
  // As in net.Server, for `listen`.
  _handle: ListenHandle | null = null;
  _connections = 0;

  /** @param user the stack that closes the server */
  constructor(vnet: Vnet, options: ServerOptions = {}, user: ListenUser | null = null) {
    super();
    this.#vnet = vnet;
    this.#user = user;
    this.allowHalfOpen = options.allowHalfOpen ?? false;
    this.pauseOnConnect = options.pauseOnConnect ?? false;
    this.noDelay = options.noDelay ?? false;
    this.keepAlive = options.keepAlive ?? false;
    this.keepAliveInitialDelay = Math.floor((options.keepAliveInitialDelay ?? 0) / 1000);
    this.highWaterMark = options.highWaterMark;
  }

  /** Whether it accepts connections. */
  get listening(): boolean {
    return this._handle !== null;
  }

  /** The address on which it listens; null if it does not. */
  address(): ListenAddress | null {
    return this._handle === null ? null : this._handle.address();
  }

  /** Starts to accept connections; see `listen`. `listener` is added as a listener of 'listening'. */
  listen(options: ListenOptions, listener?: () => void): this;
  listen(port?: number, host?: string, backlog?: number, listener?: () => void): this;
  listen(port: number, host: string, listener: () => void): this;
  listen(port: number, listener: () => void): this;
  listen(...args: unknown[]): this {
    const listener = args.at(-1);
    const values = args.filter((arg) => typeof arg !== 'function');
    const [where, host, backlog] = values;
    // Without arguments the port is any free one; an undefined port is an error.
    const port = values.length === 0 ? 0 : (where ?? NaN);
    const options = typeof where === 'object' ? (where as ListenOptions) : { port, host, backlog };
    if (typeof listener === 'function') this.once('listening', listener as () => void);
    listen(this.#vnet, this, options as ListenOptions, this.#user);
    return this;
  }

  /**
   * Stops accepting; open connections stay open. 'close' is emitted when they have ended. `done` is
   * added as a listener of it, and receives TapnicError ERR_SERVER_NOT_RUNNING if the server does not
   * listen.
   */
  close(done?: (error?: Error) => void): this {
    const handle = this._handle;
    this._handle = null;
    if (done !== undefined) {
      const error = new TapnicError('ERR_SERVER_NOT_RUNNING', 'close', 'it does not listen');
      this.once('close', handle === null ? (): void => done(error) : done);
    }
    handle?.close();
    this._emitCloseIfDrained();
    return this;
  }

  _emitCloseIfDrained(): void {
    if (this._handle !== null || this._connections > 0) return;
    later(() => this.emit('close'));
  }

  /** Calls `done` with the number of open connections. */
  getConnections(done: (error: Error | null, connections: number) => void): this {
    later(() => done(null, this._connections));
    return this;
  }

  /** No effect, like `unref`: the stack keeps the process alive until it is closed. */
  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }
}

/** Creates a server of the stack `vnet`; `onConnection` is a listener of 'connection'. */
export function createServer(
  vnet: Vnet,
  options: ServerOptions | ((socket: Socket) => void) = {},
  onConnection?: (socket: Socket) => void,
  user: ListenUser | null = null,
): Server {
  const listener = typeof options === 'function' ? options : onConnection;
  const server = new Server(vnet, typeof options === 'function' ? {} : options, user);
  if (listener !== undefined) server.on('connection', listener);
  return server;
}

/**
 * Connects from the emulated host to an IPv4 or IPv6 address. Rejects with TapnicError: ECONNREFUSED,
 * EINVAL, …
 */
export function connect(
  vnet: Vnet,
  where: number | ConnectOptions,
  host?: string,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const options = typeof where === 'object' ? where : { port: where, host };
    if (typeof where !== 'object') sockaddr(vnet, host!, where);
    const socket = new Socket(vnet, options);
    socket.once('error', reject);
    socket.connect(options, () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}
