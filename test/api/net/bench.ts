/** What a behaviour of node:net is written with: it acts on a module, and logs what it sees. */

import { once } from 'node:events';
import type { AddressInfo, NetConnectOpts, Server, ServerOpts, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** The module under test: node:net, or that of a stack. */
export type NetModule = typeof import('node:net');

/** A behaviour. What it logs must be equal on node:net and on ours. */
export interface Behaviour {
  readonly title: string;
  readonly run: (b: Bench) => unknown;
}

/** `data` events of one socket that follow each other are one event. */
type Event = unknown[];

const SOCKET_EVENTS = ['ready', 'end', 'finish', 'drain', 'timeout', 'connect'];

interface Thrown extends NodeJS.ErrnoException {
  address?: string;
  port?: number;
}

/** A port is replaced by its name, because it differs from run to run. */
export class Bench {
  readonly net: NetModule;
  /** Events by name of the object that emitted them: the order between two objects is left open. */
  readonly logs: Record<string, Event[]> = {};
  readonly #closers: (() => unknown)[] = [];
  readonly #ports = new Map<number, string>();

  constructor(net: NetModule) {
    this.net = net;
  }

  log(name: string, ...event: unknown[]): void {
    (this.logs[name] ??= []).push(event.map((value) => this.#plain(value)));
  }

  #plain(value: unknown): unknown {
    if (typeof value === 'number') return this.#ports.get(value) ?? value;
    if (typeof value === 'string') {
      let text = value;
      for (const [port, name] of this.#ports) text = text.replaceAll(String(port), name);
      return text;
    }
    if (Array.isArray(value)) return value.map((one) => this.#plain(one));
    if (value instanceof Error) return this.errorOf(value);
    if (typeof value === 'object' && value !== null && !Buffer.isBuffer(value))
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, this.#plain(v)]));
    return value;
  }

  /** The part of an error that programs use. */
  errorOf(error: unknown): unknown {
    if (!(error instanceof Error)) return error;
    const { code, errno, syscall, address, port } = error as Thrown;
    // Ours has the properties of the first error.
    if (error instanceof AggregateError) return this.#plain({ code, errors: error.errors });
    return this.#plain({ code, errno, syscall, address, port });
  }

  /** Logs what `fn` throws, with class and message. */
  throws(name: string, fn: () => unknown): void {
    try {
      const value = fn();
      this.log(name, 'no error', typeof value);
    } catch (e) {
      const { name: type, message, code } = e as Thrown;
      this.log(name, type, code, message);
    }
  }

  /** Names a port in the logs. */
  port(n: number, name: string): number {
    this.#ports.set(n, name);
    return n;
  }

  /** Cleans `what` up after the behaviour. */
  later(what: () => unknown): void {
    this.#closers.push(what);
  }

  track<T extends Socket>(socket: T): T {
    socket.once('close', () => gone.add(socket));
    this.later(() =>
      socket
        .removeAllListeners('error')
        .on('error', () => {})
        .destroy(),
    );
    return socket;
  }

  /** Logs the events of a socket. 'data' is logged only if the behaviour reads. */
  trace<T extends Socket>(socket: T, name: string): T {
    for (const event of SOCKET_EVENTS) socket.on(event, () => this.log(name, event));
    socket.on('error', (e) => this.log(name, 'error', e));
    socket.on('close', (...args) => this.log(name, 'close', ...args));
    return this.track(socket);
  }

  /** Logs received data, as one event up to the next one. */
  reads<T extends Socket>(socket: T, name: string): T {
    socket.on('data', (data: Buffer) => {
      const last = this.logs[name]?.at(-1);
      if (last?.[0] === 'data') last[1] = Buffer.concat([last[1] as Buffer, data]);
      else (this.logs[name] ??= []).push(['data', data]);
    });
    return socket;
  }

  traceServer(server: Server, name = 'server'): Server {
    for (const event of ['listening', 'close', 'connection'])
      server.on(event, () => this.log(name, event));
    server.on('error', (e) => this.log(name, 'error', e));
    server.on('drop', (data) =>
      this.log(name, 'drop', { ...data, remotePort: typeof data?.remotePort }),
    );
    this.later(() => {
      if (server.listening) server.close();
    });
    return server;
  }

  /** A server on 127.0.0.1 that listens, and whose sockets are cleaned up. */
  async listen(
    onConnection?: (socket: Socket) => void,
    options: ServerOpts = {},
    host = '127.0.0.1',
  ): Promise<Server> {
    const server = this.net.createServer(options);
    server.on('connection', (socket) => this.track(socket));
    if (onConnection !== undefined) server.on('connection', onConnection);
    this.later(() => {
      if (server.listening) server.close();
    });
    server.listen(0, host);
    await once(server, 'listening');
    this.port(portOf(server), 'P');
    return server;
  }

  /** Connects to a server of `listen`. */
  connect(server: Server, options: Partial<NetConnectOpts> = {}): Socket {
    const to = { port: portOf(server), host: '127.0.0.1', ...options };
    return this.track(this.net.connect(to as NetConnectOpts));
  }

  /** Both ends of a connection. */
  async pair(
    server: ServerOpts = {},
    client: Partial<NetConnectOpts> = {},
  ): Promise<{ server: Server; near: Socket; far: Socket }> {
    const listener = await this.listen(undefined, server);
    const accepted = once(listener, 'connection') as Promise<[Socket]>;
    const near = this.connect(listener, client);
    const [[far]] = await Promise.all([accepted, once(near, 'connect')]);
    return { server: listener, near, far };
  }

  /** A free port of 127.0.0.1. */
  async unusedPort(): Promise<number> {
    const server = this.net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const port = portOf(server);
    server.close();
    await once(server, 'close');
    return this.port(port, 'P');
  }

  async done(): Promise<void> {
    for (const close of this.#closers.splice(0).toReversed()) close();
    await sleep(2);
  }
}

export function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

/** Sockets that have emitted 'close'. */
const gone = new WeakSet<Socket>();

/** Resolves when a tracked socket has emitted 'close'. */
export async function closed(socket: Socket): Promise<void> {
  if (!gone.has(socket))
    await new Promise<void>((resolve) => void socket.once('close', () => resolve()));
}

export { once, sleep };
