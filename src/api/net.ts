/** A stack as a module with the names of node:net, for programs and libraries that take such a module. */

import type { ConnectOptions } from './net_args.ts';
import type { SocketStack } from './net_host.ts';
import {
  type ConnectionListener,
  createServer,
  dialSocket,
  Server,
  type ServerOptions,
} from './server.ts';
import { Socket } from './socket.ts';
import type { SocketOptions } from './socket_options.ts';

/** Options of a socket of `net`. */
export type StackSocketOptions = Omit<SocketOptions, 'stack'>;

/** Connects. Unlike `stack.connect` it returns the socket. */
interface NetConnect {
  (options: ConnectOptions & StackSocketOptions, listener?: () => void): Socket;
  (port: number | string, host: string, listener?: () => void): Socket;
  (port: number | string, listener?: () => void): Socket;
}

type Constructor = abstract new (...args: never[]) => object;

type ServerArgs = [
  options?: ServerOptions | ConnectionListener | null,
  onConnection?: ConnectionListener,
];

/** A class of node:net's kind: an object is created with `new` or without. */
interface NetClass<T, A extends unknown[]> {
  new (...args: A): T;
  (...args: A): T;
  readonly prototype: T;
}

/** The names of node:net that need a stack. */
export interface StackNet {
  readonly Socket: NetClass<Socket, [options?: StackSocketOptions]>;
  readonly Stream: StackNet['Socket'];
  readonly Server: NetClass<Server, ServerArgs>;
  readonly connect: NetConnect;
  readonly createConnection: NetConnect;
  createServer(...args: ServerArgs): Server;
}

/** Lets `type` be called without `new`. */
function callable<T extends object, A extends unknown[]>(
  type: new (...args: A) => T,
): NetClass<T, A> {
  const apply = (_type: unknown, _this: unknown, args: A): T => new type(...args);
  return new Proxy(type, { apply }) as NetClass<T, A>;
}

/**
 * `instanceof` for the classes of a module: sockets that servers accept and that `connect` returns are of
 * the class `base`, which a program knows only as `type`. Subclasses of the program are as usual.
 */
function isInstance(
  type: Constructor,
  base: Constructor,
  as: Constructor,
  value: unknown,
): boolean {
  if (as.prototype === type.prototype) return value instanceof base;
  return Function.prototype[Symbol.hasInstance].call(as, value);
}

/** node:net's names for a stack. */
export function stackNet(stack: SocketStack): StackNet {
  class StackSocket extends Socket {
    constructor(options?: StackSocketOptions) {
      super({ ...options, stack });
    }

    static override [Symbol.hasInstance](value: unknown): boolean {
      return isInstance(StackSocket, Socket, this, value);
    }
  }
  class StackServer extends Server {
    constructor(...[options, onConnection]: ServerArgs) {
      const listener = typeof options === 'function' ? options : onConnection;
      super({ ...(typeof options === 'function' ? {} : options), stack }, listener);
    }

    static override [Symbol.hasInstance](value: unknown): boolean {
      return isInstance(StackServer, Server, this, value);
    }
  }
  const connect = (...args: unknown[]): Socket => dialSocket(stack, args);
  const socketType = callable<Socket, [options?: StackSocketOptions]>(StackSocket);
  return {
    Socket: socketType,
    Stream: socketType,
    Server: callable<Server, ServerArgs>(StackServer),
    connect,
    createConnection: connect,
    createServer: (...args) => createServer(stack, ...args),
  };
}
