/**
 * TCP servers of the emulated host, and outgoing connections. `listen` works with every net.Server of
 * Node.js (net, http, https, http2); `Server` has the interface of net.Server. Left out: cluster.
 */

import { addAbortListener, EventEmitter } from 'node:events';
import { promisify } from 'node:util';
import { EADDRINUSE, EAFNOSUPPORT, type Errno } from '../sys/errno.ts';
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
import { lateServer } from './late_class.ts';
import { stackLookup } from './lookup.ts';
import { type ConnectOptions, listenRequest, normalArgs } from './net_args.ts';
import { type AnyServer, hostOf, type NetHost, type SocketStack } from './net_host.ts';
import { invalidArgType, nodeError, SocketError } from './node_errors.ts';
import { Socket, type SocketServer } from './socket.ts';
import type { SocketOptions } from './socket_options.ts';
import { later, Turns } from './turns.ts';

/** The requested backlog, as Node's; kern.ipc.soacceptqueue limits it. */
export const BACKLOG = 511;

/** The address and the queue of a listening server. */
export interface ListenOptions {
  /** 0 to 65535, as a number or as text; 0, the default: any free port. */
  readonly port?: number | string | null | undefined;
  /** An IPv4 or IPv6 address, or a name. Default: all addresses of both families, `::`. */
  readonly host?: string | undefined;
  /** With the address `::`, whether the server accepts only IPv6. Default false. */
  readonly ipv6Only?: boolean | undefined;
  /** Length of the accept queue. Default 511; kern.ipc.soacceptqueue limits it. */
  readonly backlog?: number | undefined;
  /** Closes the server when it is aborted. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of a server, as net.Server's. */
export interface ServerOptions {
  /** Keeps our side open after the peer has ended its side. Default false. */
  readonly allowHalfOpen?: boolean | undefined;
  /** Whether sockets are paused when they are accepted. Default false. */
  readonly pauseOnConnect?: boolean | undefined;
  /** TCP_NODELAY. Default false. */
  readonly noDelay?: boolean | undefined;
  /** SO_KEEPALIVE, and when the first probe is sent, in ms. Default false. */
  readonly keepAlive?: boolean | undefined;
  readonly keepAliveInitialDelay?: number | undefined;
  /** High-water mark of the sockets, bytes. Default: that of Node's streams. */
  readonly highWaterMark?: number | undefined;
  /** A net.BlockList: connections from its addresses are closed at once. */
  readonly blockList?: AddressList | undefined;
}

/** The part of net.BlockList that servers use. */
interface AddressList {
  check(address: string, family: 'ipv4' | 'ipv6'): boolean;
}

/** A server's address. */
export interface ListenAddress {
  readonly address: string;
  readonly family: string;
  readonly port: number;
}

/**
 * The internal part of net.Server that `listen` uses. `listening`, `address` and `close` use `_handle`,
 * the listening socket; `_connections` is the number of open connections. The names are the same in
 * all versions from Node.js 20 to 24.
 */
interface ServerInside extends EventEmitter {
  _handle: ListenHandle | null;
  _connections: number;
  /** Counts the calls of `listen` and `close`: a host name of an earlier one is not used. */
  _listeningId?: number;
  _emitCloseIfDrained(): void;
  maxConnections?: number | null | undefined;
  allowHalfOpen?: boolean;
  pauseOnConnect?: boolean;
  noDelay?: boolean;
  keepAlive?: boolean;
  /** In seconds. */
  keepAliveInitialDelay?: number;
  highWaterMark?: number;
  blockList?: AddressList | undefined;
}

/** The listening socket of a server. It takes the place of Node's own handle. */
class ListenHandle implements SocketServer {
  readonly #host: NetHost;
  readonly #server: ServerInside;
  #so: KernSocket | null;
  /** Accepted connections that the server has not emitted. */
  readonly #accepted: KernSocket[] = [];
  readonly #accepting = new Turns(() => this.#accept());

  /** Takes ownership of `so`, which listens. */
  constructor(host: NetHost, so: KernSocket, server: ServerInside) {
    this.#host = host;
    this.#so = so;
    this.#server = server;
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
      const family = familyText(peer) === 'IPv6' ? 'ipv6' : 'ipv4';
      if (server.blockList.check(addressText(this.#host.vnet, peer), family)) {
        soclose(so);
        return;
      }
    }
    const { allowHalfOpen = false, highWaterMark } = server;
    const socket = new Socket({ stack: this.#host, allowHalfOpen, highWaterMark });
    socket.adopt(so, this, server.pauseOnConnect === true);
    if (server.noDelay) socket.setNoDelay(true);
    if (server.keepAlive) socket.setKeepAlive(true, (server.keepAliveInitialDelay ?? 0) * 1000);
    server._connections++;
    socket.server = server;
    this.#host.user?.connection(socket);
    server.emit('connection', socket);
  }

  #dropped(side: string, name: Sockaddr | null): Record<string, unknown> {
    if (name === null) return {};
    return {
      [`${side}Address`]: addressText(this.#host.vnet, name),
      [`${side}Port`]: name.port,
      [`${side}Family`]: familyText(name),
    };
  }

  socketClosed(): void {
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
    return {
      address: addressText(this.#host.vnet, name),
      family: familyText(name),
      port: name.port,
    };
  }

  /** Stops accepting. */
  close(): void {
    const so = this.#so;
    this.#so = null;
    if (so === null) return;
    soclose(so);
    for (const unseen of this.#accepted.splice(0)) reset(unseen);
    this.#host.user?.closed(this.#server as unknown as AnyServer);
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

/** A listening socket, or why the call failed. */
type Listening =
  | { readonly so: KernSocket; readonly failure: null }
  | { readonly so: null; readonly failure: SocketError };

/** Where a socket listens. */
interface ListenPlace {
  readonly port: number;
  /** An address; null: all addresses of both families, or of IPv4 if the stack has no IPv6. */
  readonly host: string | null;
  readonly backlog: number;
  readonly ipv6Only: boolean;
}

/**
 * Creates a listening socket. Throws TapnicError EINVAL: invalid port or address. `failure`: EADDRINUSE,
 * EADDRNOTAVAIL, ENOBUFS.
 */
export function openListener(vnet: Vnet, place: ListenPlace): Listening {
  const { port, host, backlog, ipv6Only } = place;
  let where = host ?? '::';
  let error = listeningSocket(vnet, sockaddr(vnet, where, port), backlog, ipv6Only);
  if (error === EAFNOSUPPORT && host === null) {
    where = '0.0.0.0';
    error = listeningSocket(vnet, sockaddr(vnet, where, port), backlog, false);
  }
  if (error === 0) return { so: soResult.so!, failure: null };
  const hint = error === EADDRINUSE ? 'choose another port' : '';
  const at = { address: where, port };
  return { so: null, failure: new SocketError(error, 'listen', at, true, hint) };
}

/** Makes `server` listen, and emits 'listening' or 'error' later. */
function attach(host: NetHost, server: ServerInside, place: ListenPlace): void {
  let failure: Error;
  try {
    const listener = openListener(host.vnet, place);
    if (listener.so !== null) {
      const handle = new ListenHandle(host, listener.so, server);
      server._handle = handle;
      host.user?.listens(server as unknown as AnyServer);
      later(() => {
        if (server._handle === handle) server.emit('listening');
      });
      return;
    }
    ({ failure } = listener);
  } catch (e) {
    failure = e as Error;
  }
  later(() => server.emit('error', failure));
}

/** Closes the server when the signal is aborted. */
function closesOn(signal: AbortSignal, server: AnyServer): void {
  if (signal.aborted) {
    later(() => server.close());
    return;
  }
  const watch = addAbortListener(signal, () => server.close());
  server.once('close', () => watch[Symbol.dispose]());
}

/**
 * Makes `server` accept connections to the stack, with the arguments of net.Server's `listen`.
 * 'listening' is emitted later, or 'error' with TapnicError EADDRINUSE, EADDRNOTAVAIL, ENOBUFS. Throws
 * errors of wrong arguments as net.Server does; ERR_SERVER_ALREADY_LISTEN; TapnicError EBADF: the stack is
 * closed.
 */
export function listen(host: NetHost, server: AnyServer, args: readonly unknown[]): void {
  const inside = server as unknown as ServerInside;
  if (typeof inside?._emitCloseIfDrained !== 'function')
    throw invalidArgType('server', 'a server of node:net, node:http or tapnic', server);
  host.check('listen');
  const request = listenRequest(args, BACKLOG);
  if (inside._handle)
    throw nodeError(
      'ERR_SERVER_ALREADY_LISTEN',
      'Listen method has been called more than once without closing.',
    );
  if (request.listener !== null) server.once('listening', request.listener);
  if (request.signal !== null) closesOn(request.signal, server);
  const id = (inside._listeningId ?? 0) + 1;
  inside._listeningId = id;
  if (request.host === null) {
    attach(host, inside, request);
    return;
  }
  stackLookup(host)(request.host, {}, (error, address) => {
    if (inside._listeningId !== id) return;
    if (error !== null) inside.emit('error', error);
    else attach(host, inside, { ...request, host: address as string });
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

/** A number of an option. Throws ERR_INVALID_ARG_TYPE. */
function numberOf(name: string, value: unknown): number | undefined {
  if (value === undefined || typeof value === 'number') return value;
  throw invalidArgType(`options.${name}`, 'of type number', value);
}

/**
 * A TCP server of the emulated host. It emits 'listening', 'connection', 'error', 'drop' and 'close' as
 * net.Server does; its connections are Sockets.
 */
export class Server extends EventEmitter {
  readonly #host: NetHost;
  /** Limit of open connections. The server closes further ones and emits 'drop'. */
  maxConnections: number | null | undefined = undefined;
  /** As in net.Server; only clusters use it. */
  dropMaxConnection: boolean | undefined = undefined;
  readonly allowHalfOpen: boolean;
  readonly pauseOnConnect: boolean;
  readonly noDelay: boolean;
  readonly keepAlive: boolean;
  /** Seconds, as in net.Server. */
  readonly keepAliveInitialDelay: number;
  readonly highWaterMark: number | undefined;
  readonly blockList: AddressList | undefined;
  // As in net.Server, for `listen`.
  _handle: ListenHandle | null = null;
  _connections = 0;
  _listeningId = 1;

  /** `onConnection` is added as a listener of 'connection'. Throws ERR_INVALID_ARG_TYPE. */
  constructor(options: ServerOptions & { readonly stack: SocketStack }, onConnection?: unknown) {
    super();
    this.#host = hostOf(options?.stack);
    const delay = numberOf('keepAliveInitialDelay', options.keepAliveInitialDelay) ?? 0;
    const mark = numberOf('highWaterMark', options.highWaterMark);
    const { blockList } = options;
    if (blockList !== undefined && typeof blockList?.check !== 'function')
      throw invalidArgType('options.blockList', 'an instance of net.BlockList', blockList);
    this.allowHalfOpen = options.allowHalfOpen ?? false;
    this.pauseOnConnect = options.pauseOnConnect ?? false;
    this.noDelay = Boolean(options.noDelay);
    this.keepAlive = Boolean(options.keepAlive);
    this.keepAliveInitialDelay = Math.max(0, Math.floor(delay / 1000));
    this.highWaterMark = mark !== undefined && mark >= 0 ? mark : undefined;
    this.blockList = blockList;
    if (typeof onConnection === 'function')
      this.on('connection', onConnection as (socket: Socket) => void);
  }

  /** Whether it accepts connections. */
  get listening(): boolean {
    return this._handle !== null;
  }

  /** The address on which it listens; null if it does not. */
  address(): ListenAddress | null {
    return this._handle === null ? null : this._handle.address();
  }

  /**
   * Starts to accept connections; see the function `listen`. `listener` is added as a listener of
   * 'listening'.
   */
  listen(options: ListenOptions, listener?: () => void): this;
  listen(port?: number | string, host?: string, backlog?: number, listener?: () => void): this;
  listen(port: number | string, host: string, listener: () => void): this;
  listen(port: number | string, backlog: number, listener?: () => void): this;
  listen(port: number | string, listener: () => void): this;
  listen(listener: () => void): this;
  listen(...args: unknown[]): this {
    listen(this.#host, this, args);
    return this;
  }

  /**
   * Stops accepting; open connections stay open. 'close' is emitted when they have ended. `done` is
   * added as a listener of it, and receives ERR_SERVER_NOT_RUNNING if the server does not listen.
   */
  close(done?: (error?: Error) => void): this {
    this._listeningId++;
    const handle = this._handle;
    this._handle = null;
    if (typeof done === 'function') {
      const stopped = nodeError('ERR_SERVER_NOT_RUNNING', 'Server is not running.');
      this.once('close', handle === null ? (): void => done(stopped) : done);
    }
    handle?.close();
    this._emitCloseIfDrained();
    return this;
  }

  /** Closes the server; resolves when the last connection has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this._handle !== null) await promisify(this.close.bind(this))();
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

  /** With `captureRejections`: a listener of 'connection' that rejects destroys its socket. */
  override [EventEmitter.captureRejectionSymbol](
    error: Error,
    event: string,
    socket: unknown,
  ): void {
    if (event === 'connection') (socket as Socket).destroy(error);
    else this.emit('error', error);
  }

  /** No effect, like `unref`: the stack keeps the process alive until it is closed. */
  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }
}

lateServer.loaded(Server);

/** A listener of 'connection'. */
export type ConnectionListener = (socket: Socket) => void;

/** Creates a server of the stack; `onConnection` is a listener of 'connection'. Throws as `Server`. */
export function createServer(
  stack: SocketStack,
  options?: ServerOptions | ConnectionListener | null,
  onConnection?: ConnectionListener,
): Server {
  if (typeof options === 'function') return new Server({ stack }, options);
  if (options !== undefined && typeof options !== 'object')
    throw invalidArgType('options', 'of type object', options);
  return new Server({ ...options, stack }, onConnection);
}

/** Creates a socket with the options of `connect`, and connects it; the arguments of `connect`. */
export function dialSocket(stack: SocketStack, args: readonly unknown[]): Socket {
  const { options } = normalArgs(args);
  const socket = new Socket({ ...(options as Partial<SocketOptions>), stack });
  const { timeout } = options as { timeout?: number };
  if (timeout) socket.setTimeout(timeout);
  return socket.connect(...(args as [ConnectOptions]));
}

/**
 * Connects from the emulated host, with the arguments of `Socket.connect`. Rejects with TapnicError
 * (ECONNREFUSED, …), or the error of a wrong argument.
 */
export function connect(stack: SocketStack, ...args: readonly unknown[]): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = dialSocket(stack, args);
    const failed = (error: Error): void => reject(error);
    // The stack closes connections that are not established without an error.
    const closed = (): void => reject(nodeError('ERR_SOCKET_CLOSED', 'Socket is closed'));
    socket.once('error', failed).once('close', closed);
    socket.once('connect', () => {
      socket.off('error', failed).off('close', closed);
      resolve(socket);
    });
  });
}
