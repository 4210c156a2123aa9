/** What the sockets of node:net's kind need of a stack, and what a stack needs of them. */

import type { EventEmitter } from 'node:events';
import type { Vnet } from '../kern/vnet.ts';
import { invalidArgType } from './node_errors.ts';
import type { Socket } from './socket.ts';

/** One result of a lookup. */
export interface LookupAddress {
  readonly address: string;
  readonly family: number;
}

/** A function with the arguments of dns.lookup. */
export type LookupFunction = (
  hostname: string,
  options: { family?: number | undefined; hints?: number | undefined; all?: boolean },
  callback: (
    error: Error | null,
    address: string | readonly LookupAddress[],
    family?: number,
  ) => void,
) => void;

/** The public part of a server that `listen` needs. net.Server and its subclasses have it. */
export interface AnyServer extends EventEmitter {
  readonly listening: boolean;
  close(done?: (error?: Error) => void): unknown;
}

/** The owner of servers and connections, which closes them when it is closed. */
export interface NetUser {
  listens(server: AnyServer): void;
  closed(server: AnyServer): void;
  /** A connection was accepted, or we connect. */
  connection(socket: Socket): void;
  /** A connection was destroyed. */
  disconnected(socket: Socket): void;
}

/** An open file of this host, and what closes it. */
interface OpenedFile {
  readonly fd: number;
  readonly close: (fd: number) => void;
}

type OpenPath = (path: string | URL) => Promise<OpenedFile>;

/** Node's defaults of trying several addresses, which a program can change. */
interface AutoSelect {
  enabled(): boolean;
  attemptMs(): number;
}

/** What a stack passes to its sockets. */
export interface NetHostOptions {
  readonly user?: NetUser;
  /** Resolves names other than `localhost`. Without it, no other name can be resolved. */
  readonly lookup?: LookupFunction;
  /** The defaults of `autoSelectFamily` and `autoSelectFamilyAttemptTimeout`: true and 250. */
  readonly autoSelect?: AutoSelect;
  /** Opens a file of this host for `sendfile`. */
  readonly openPath?: OpenPath;
  /** Throws if the stack is closed. */
  readonly check?: (call: string) => void;
}

/** The property of a stack that has its NetHost. */
export const netHost: unique symbol = Symbol('tapnic.netHost');

/** A stack, as the option `stack` of sockets and servers. `createStack` makes one. */
export interface SocketStack {
  readonly [netHost]: NetHost;
}

const ALL_ADDRESSES: AutoSelect = { enabled: () => true, attemptMs: () => 250 };

export class NetHost implements SocketStack {
  readonly vnet: Vnet;
  readonly user: NetUser | null;
  readonly lookup: LookupFunction | null;
  readonly openPath: OpenPath | null;
  readonly autoSelect: AutoSelect;
  readonly #check: ((call: string) => void) | null;

  constructor(vnet: Vnet, options: NetHostOptions = {}) {
    this.vnet = vnet;
    this.user = options.user ?? null;
    this.lookup = options.lookup ?? null;
    this.openPath = options.openPath ?? null;
    this.autoSelect = options.autoSelect ?? ALL_ADDRESSES;
    this.#check = options.check ?? null;
  }

  get [netHost](): this {
    return this;
  }

  /** Throws TapnicError EBADF if the stack is closed. */
  check(call: string): void {
    this.#check?.(call);
  }
}

/** The NetHost of the option `stack`. Throws ERR_INVALID_ARG_TYPE. */
export function hostOf(stack: SocketStack | undefined): NetHost {
  const host = (stack as Partial<SocketStack> | null | undefined)?.[netHost];
  if (host === undefined) throw invalidArgType('options.stack', 'an instance of Stack', stack);
  return host;
}
