/**
 * node:dgram's own Socket on another UDP socket than Linux's. Everything that a program sees (arguments,
 * errors, the order of events) is Node's code; only the handle below it is replaced. Node.js has no
 * public way to do this: a dgram.Socket keeps its handle in the property with the symbol `state symbol`,
 * in Node.js 20 to 26. The constructor checks that.
 */

import { Socket } from 'node:dgram';
import { BlockList } from 'node:net';
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { EWOULDBLOCK, type Errno, errnoName, TapnicError } from '../sys/errno.ts';

export type { RemoteInfo, SocketOptions } from 'node:dgram';

/** The address of one end. */
interface Address {
  readonly address: string;
  readonly family: 'IPv4' | 'IPv6';
  readonly port: number;
}

/** The UDP socket below a dgram.Socket: DgramHandle of src/api. Errors are FreeBSD's numbers. */
interface UdpSocket {
  bind(port: number, address: string): Errno;
  connect(port: number, address: string): Errno;
  disconnect(): Errno;
  address(): Address | Errno;
  remoteAddress(): Address | Errno;
  start(user: { message(data: Buffer, from: Address): void; failed(error: Errno): void }): void;
  stop(): void;
  /** EWOULDBLOCK: `done` is called later. */
  send(
    data: Uint8Array,
    port: number | undefined,
    address: string,
    done: ((error: Errno, bytes: number) => void) | null,
  ): Errno;
  getSendQueueCount(): number;
  getSendQueueSize(): number;
  /** The size, or -errno. */
  bufferSize(size: number, receive: boolean): number;
  setBroadcast(on: boolean): Errno;
  setTTL(ttl: number): Errno;
  setMulticastTTL(ttl: number): Errno;
  setMulticastLoopback(on: boolean): Errno;
  setMulticastInterface(ifText: string): Errno;
  setMembership(group: string, ifText: string | undefined, join: boolean): Errno;
  setSourceMembership(
    source: string,
    group: string,
    ifText: string | undefined,
    join: boolean,
  ): Errno;
  close(): void;
  readonly closed: boolean;
}

/** The options that are not left to Node: some of its versions do not have them. */
export interface NodeDgramOptions {
  /** Datagrams from these addresses are ignored. */
  readonly receiveBlockList?: BlockList | undefined;
  /** `connect` and `send` to these addresses fail with ERR_IP_BLOCKED. */
  readonly sendBlockList?: BlockList | undefined;
}

type LookupDone = (error: Error | null, address?: string, family?: number) => void;
type Lookup = (address: string | undefined, done: LookupDone) => void;

/** Node's request of `send`. */
interface SendRequest {
  oncomplete?: (error: number, bytes: number) => void;
}

/** The parts of Node's UDP handle and of the state of a dgram.Socket, that this file uses. */
interface NodeHandle {
  lookup: Lookup;
  close(): void;
  recvStart(): number;
}
interface NodeState {
  handle: NodeHandle | null;
}

const numbers = new Map([...getSystemErrorMap()].map(([number, [name]]) => [name, number]));
/** Node's number of a name that it does not know. */
const UNKNOWN = -constants.errno.EIO;

/** Node's number of an errno: Linux's, negative. */
function nodeErrno(error: Errno): number {
  return error === 0 ? 0 : (numbers.get(errnoName(error)) ?? UNKNOWN);
}

const LOOPBACK = { udp4: '127.0.0.1', udp6: '::1' };

function blocks(list: BlockList | undefined, address: string): boolean {
  return list !== undefined && list.check(address, address.includes(':') ? 'ipv6' : 'ipv4');
}

/** The interface of Node's UDP handle (udp_wrap) over a UdpSocket. */
class Handle implements NodeHandle {
  readonly #udp: UdpSocket;
  readonly #options: NodeDgramOptions;
  readonly #closed: () => void;
  /** The look-ups of `connect` and `send` come after that of `bind`. */
  #bound = false;
  #referenced = true;
  /** Set by Node before `recvStart`. */
  onmessage!: (nread: number, handle: Handle, data?: Buffer, from?: Address) => void;
  readonly lookup: Lookup;

  constructor(udp: UdpSocket, lookup: Lookup, options: NodeDgramOptions, closed: () => void) {
    this.#udp = udp;
    this.#options = options;
    this.#closed = closed;
    this.lookup = (host, done) =>
      lookup(host, (error, address, family) => {
        const blocked = this.#bound && address !== undefined && this.#blocked(address);
        done(error ?? (blocked ? blockedError(address) : null), address, family);
      });
  }

  #blocked(address: string): boolean {
    return blocks(this.#options.sendBlockList, address);
  }

  /** @param port of any type, as the program passed it */
  bind(address: string, port: unknown): number {
    // The stack was closed during a look-up. Node now runs the calls that wait, `close` at last.
    if (this.#udp.closed) return 0;
    const error = nodeErrno(this.#udp.bind(Number(port), address));
    if (error === 0) this.#bound = true;
    return error;
  }

  /** A descriptor of Linux is no socket of the stack. */
  open(): number {
    return -constants.errno.EOPNOTSUPP;
  }

  connect(address: string, port: number): number {
    return nodeErrno(this.#udp.connect(port, address));
  }

  disconnect(): number {
    return nodeErrno(this.#udp.disconnect());
  }

  getsockname(out: object): number {
    return stored(out, this.#udp.address());
  }

  getpeername(out: object): number {
    return stored(out, this.#udp.remoteAddress());
  }

  recvStart(): number {
    this.#udp.start({
      message: (data, from) => {
        if (blocks(this.#options.receiveBlockList, from.address)) return;
        this.onmessage(data.length, this, data, from);
      },
      failed: (error) => this.onmessage(nodeErrno(error), this),
    });
    return 0;
  }

  recvStop(): number {
    this.#udp.stop();
    return 0;
  }

  /** Without a port: to the peer. Returns the bytes + 1, 0 if it is sent later, or an error. */
  send(
    request: SendRequest,
    list: readonly NodeJS.ArrayBufferView[],
    _count: number,
    port: unknown,
    address?: string,
  ): number {
    const parts = list.map((v) => Buffer.from(v.buffer, v.byteOffset, v.byteLength));
    const data = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    // The argument is the flag of a callback if the socket is connected.
    const to = typeof port === 'number' ? port : undefined;
    const error = this.#udp.send(data, to, address ?? '', (e, bytes) =>
      request.oncomplete?.(nodeErrno(e), bytes),
    );
    if (error === EWOULDBLOCK) return 0;
    return error === 0 ? data.length + 1 : nodeErrno(error);
  }

  getSendQueueCount(): number {
    return this.#udp.getSendQueueCount();
  }

  getSendQueueSize(): number {
    return this.#udp.getSendQueueSize();
  }

  /** Undefined and the reason in `context` if it fails. */
  bufferSize(size: number, receive: boolean, context: object): number | undefined {
    if (this.#udp.closed) return size;
    const n = size > 0x7fffffff ? -1 : this.#udp.bufferSize(size, receive);
    if (n >= 0) return n;
    const errno = size > 0x7fffffff ? -constants.errno.EINVAL : nodeErrno(-n);
    const [code, message] = getSystemErrorMap().get(errno)!;
    const syscall = receive ? 'uv_recv_buffer_size' : 'uv_send_buffer_size';
    Object.assign(context, { errno, code, message, syscall });
    return undefined;
  }

  setBroadcast(on: number): number {
    return nodeErrno(this.#udp.setBroadcast(on !== 0));
  }

  setTTL(ttl: number): number {
    return nodeErrno(this.#udp.setTTL(ttl));
  }

  setMulticastTTL(ttl: number): number {
    return nodeErrno(this.#udp.setMulticastTTL(ttl));
  }

  setMulticastLoopback(on: number): number {
    return nodeErrno(this.#udp.setMulticastLoopback(on !== 0));
  }

  setMulticastInterface(ifText: string): number {
    return nodeErrno(this.#udp.setMulticastInterface(ifText));
  }

  addMembership(group: unknown, ifText?: unknown): number {
    return nodeErrno(this.#udp.setMembership(textOf(group) ?? '', textOf(ifText), true));
  }

  dropMembership(group: unknown, ifText?: unknown): number {
    return nodeErrno(this.#udp.setMembership(textOf(group) ?? '', textOf(ifText), false));
  }

  addSourceSpecificMembership(source: string, group: string, ifText?: unknown): number {
    return nodeErrno(this.#udp.setSourceMembership(source, group, textOf(ifText), true));
  }

  dropSourceSpecificMembership(source: string, group: string, ifText?: unknown): number {
    return nodeErrno(this.#udp.setSourceMembership(source, group, textOf(ifText), false));
  }

  close(): void {
    this.#udp.close();
    this.#closed();
  }

  // The stack keeps the process alive until it is closed.

  ref(): void {
    this.#referenced = true;
  }

  unref(): void {
    this.#referenced = false;
  }

  hasRef(): boolean {
    return this.#referenced;
  }
}

/** Stores an address in `out`; returns Node's number of an errno. */
function stored(out: object, address: Address | Errno): number {
  if (typeof address === 'number') return nodeErrno(address);
  Object.assign(out, address);
  return 0;
}

/** An address as text; empty, which is invalid, for other values. */
function textOf(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  return typeof value === 'string' ? value : '';
}

function blockedError(address: string): Error {
  return new TapnicError('ERR_IP_BLOCKED', 'send', `sendBlockList contains ${address}`);
}

/** Throws ERR_INVALID_ARG_TYPE, as Node.js 24 does, if a list is not a net.BlockList. */
function checkBlockList(name: keyof NodeDgramOptions, value: unknown): void {
  if (value === undefined || value instanceof BlockList) return;
  const error = new TypeError(`options.${name} must be an instance of net.BlockList`);
  throw Object.assign(error, { code: 'ERR_INVALID_ARG_TYPE' });
}

/** Finds the state of a new dgram.Socket. Throws TapnicError ENOTSUP: this Node.js has another one. */
function stateOf(socket: Socket): NodeState {
  const symbol = Object.getOwnPropertySymbols(socket).find((s) => s.description === 'state symbol');
  const state = symbol && (socket as unknown as Record<symbol, NodeState | undefined>)[symbol];
  const { handle } = state ?? {};
  if (state !== undefined && (handle === null || typeof handle?.recvStart === 'function'))
    return state;
  const hint = `dgram.Socket of Node.js ${process.version} is not known: use an older Node.js`;
  throw new TapnicError('ENOTSUP', 'createSocket', hint);
}

// The types do not have the constructor, which createSocket calls.
const NodeSocket = Socket as unknown as new (
  options: unknown,
  listener?: (...args: never[]) => void,
) => Socket;

/** How a dgram.Socket gets the UDP socket below it, and reports its end. */
interface UdpSource {
  /** Not called if the dgram.Socket is closed already, by an aborted signal. */
  make(): UdpSocket;
  closed(): void;
}

/** A dgram.Socket on the UdpSocket that `source` makes. */
export class StackDgramSocket extends NodeSocket {
  /** Throws as dgram.createSocket; TapnicError ENOTSUP. */
  constructor(
    options: unknown,
    listener: ((...args: never[]) => void) | undefined,
    source: UdpSource,
  ) {
    const own =
      typeof options === 'object' && options !== null ? (options as NodeDgramOptions) : {};
    const { receiveBlockList, sendBlockList } = own;
    checkBlockList('receiveBlockList', receiveBlockList);
    checkBlockList('sendBlockList', sendBlockList);
    const lists = { receiveBlockList: undefined, sendBlockList: undefined };
    super(own === options ? { ...own, ...lists } : options, listener);
    const state = stateOf(this);
    const { handle: linux } = state;
    // An aborted signal has closed the socket.
    if (linux === null) return;
    const named = (own as { lookup?: unknown }).lookup !== undefined;
    const loopback = LOOPBACK[this.#type];
    // `localhost` is lo0 of the stack, also if /etc/hosts of Linux has another address.
    const lookup: Lookup = (host, done) =>
      linux.lookup(host === 'localhost' && !named ? loopback : host, done);
    const handle = new Handle(source.make(), lookup, own, () => source.closed());
    // Node finds the socket of a handle by a symbol.
    for (const symbol of Object.getOwnPropertySymbols(linux))
      Object.defineProperty(handle, symbol, Object.getOwnPropertyDescriptor(linux, symbol)!);
    state.handle = handle;
    linux.close();
  }

  get #type(): 'udp4' | 'udp6' {
    return (this as unknown as { type: 'udp4' | 'udp6' }).type;
  }

  /** As dgram.Socket's, but always `exclusive`: the primary process of a cluster has no stack. */
  override bind(...args: unknown[]): this {
    const [first, second] = args;
    const done = args.at(-1);
    const where =
      typeof first === 'object' && first !== null
        ? { ...first, exclusive: true }
        : {
            port: typeof first === 'function' ? undefined : first,
            address: typeof second === 'function' ? undefined : second,
            exclusive: true,
          };
    if (typeof done === 'function') super.bind(where as object, done as () => void);
    else super.bind(where as object);
    return this;
  }
}
