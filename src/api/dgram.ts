/**
 * UDP sockets of the emulated host, with the interface of node:dgram: 'message' is emitted with the
 * data and its sender. Addresses are numeric; there is no name resolution. The socket options and
 * groups of each family are in dgram_options.ts. Left out: arrays of buffers and offsets in `send`, abort
 * signals.
 */

import { EventEmitter } from 'node:events';
import {
  EADDRINUSE,
  EBADF,
  EINVAL,
  ENOBUFS,
  errnoError,
  type Errno,
  EWOULDBLOCK,
  TapnicError,
} from '../sys/errno.ts';
import { AF_INET, AF_INET6, IPPROTO_UDP, SOCK_DGRAM } from '../kern/protosw.ts';
import { ioResult, soRecvDgram, soSendDgram } from '../kern/sys_generic.ts';
import { ReceivedFrom } from '../kern/uipc_dgram.ts';
import {
  SO_BROADCAST,
  SO_RCV,
  SO_REUSEPORT,
  sobind,
  soclose,
  soconnect,
  socreate,
  sodisconnect,
  soreserve,
  type Socket,
  soResult,
  soupcall_set,
} from '../kern/uipc_socket.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import type { Vnet } from '../kern/vnet.ts';
import { addressText, type FamilyName, familyText, isIn6Text, sockaddr } from './address.ts';
import { type DgramFamily, dgram4, dgram6 } from './dgram_options.ts';
import { type Datagram, type SendCallback, sendError, SendQueue, sent } from './send_queue.ts';
import { later, Turns } from './turns.ts';

const DATAGRAM_MAX = 65535;

/** The families of UDP sockets. */
export type DgramType = 'udp4' | 'udp6';

/** A listener of 'message'. */
export type MessageListener = (data: Buffer, from: DgramInfo) => void;

/** Options of a new UDP socket. */
export interface DgramSocketOptions {
  /** `udp6`: IPv6, and IPv4 by v4-mapped addresses. Default `udp4`. */
  readonly type?: DgramType;
  /** Only IPv6, for `udp6`: IPV6_V6ONLY. Default false. */
  readonly ipv6Only?: boolean;
  /** SO_REUSEPORT: several sockets share a port. Default false. */
  readonly reusePort?: boolean;
  /** Several sockets share a port, as node:dgram does it on FreeBSD: SO_REUSEPORT. Default false. */
  readonly reuseAddr?: boolean;
  /**
   * SO_SNDBUF: the size of the largest datagram to send, bytes; default net.inet.udp.maxdgram.
   * SO_RCVBUF: the size of the receive buffer, bytes; default net.inet.udp.recvspace.
   */
  readonly sendBufferSize?: number;
  readonly recvBufferSize?: number;
  /** IP_TTL or IPV6_UNICAST_HOPS, 1 to 255; default net.inet.ip.ttl or net.inet6.ip6.hlim. */
  readonly ttl?: number;
  /** IP_DONTFRAG: send datagrams with DF; IPV6_DONTFRAG: never in fragments. Default false. */
  readonly dontFragment?: boolean;
}

/** The sender of a datagram. */
export interface DgramInfo {
  readonly address: string;
  readonly family: FamilyName;
  readonly port: number;
  /** Bytes of data. */
  readonly size: number;
}

/** Emits 'message' with (data, DgramInfo), 'listening', 'connect', 'error' and 'close'. */
export class DgramSocket extends EventEmitter {
  #so: Socket | null;
  readonly #vnet: Vnet;
  readonly #family: DgramFamily;
  /** `udp4` or `udp6`. */
  readonly type: DgramType;
  readonly #reading = new Turns(() => this.#receive());
  readonly #buf = Buffer.allocUnsafe(DATAGRAM_MAX);
  readonly #from = new ReceivedFrom();
  readonly #queue = new SendQueue((datagram) => this.#transmit(datagram));

  /** Throws TapnicError ENOBUFS, EINVAL, ERR_SOCKET_BAD_TYPE; EAFNOSUPPORT: the stack has no IPv6. */
  constructor(vnet: Vnet, options: DgramSocketOptions = {}) {
    super();
    const { type = 'udp4' } = options;
    if (type !== 'udp4' && type !== 'udp6')
      throw new TapnicError('ERR_SOCKET_BAD_TYPE', 'socket', 'valid types are udp4 and udp6');
    this.type = type;
    this.#vnet = vnet;
    this.#family = type === 'udp6' ? dgram6 : dgram4;
    const domain = type === 'udp6' ? AF_INET6 : AF_INET;
    const error = socreate(vnet, domain, SOCK_DGRAM, IPPROTO_UDP);
    if (error !== 0) throw errnoError(error, 'socket');
    const so = soResult.so!;
    this.#so = so;
    if (options.reusePort === true || options.reuseAddr === true) so.so_options |= SO_REUSEPORT;
    const snd = options.sendBufferSize ?? so.so_snd.sb_hiwat;
    const rcv = options.recvBufferSize ?? so.so_rcv.sb_hiwat;
    const ttl = options.ttl ?? null;
    const reserved = snd > 0 && rcv > 0 ? soreserve(so, snd, rcv) : EINVAL;
    const wrong =
      reserved === 0 && ttl !== null && !(Number.isInteger(ttl) && ttl >= 1 && ttl <= 255)
        ? EINVAL
        : reserved;
    if (wrong !== 0) {
      this.close();
      throw errnoError(wrong, 'setsockopt');
    }
    if (ttl !== null) this.#family.setTtl(so, ttl);
    this.#family.setDontFragment(so, options.dontFragment === true);
    this.#family.setIpv6Only(so, options.ipv6Only === true);
    soupcall_set(so, SO_RCV, this.#reading);
  }

  /** Emits `event` in its own turn, unless the socket is closed before. */
  #emitLater(event: string): void {
    later(() => {
      if (this.#so !== null) this.emit(event);
    });
  }

  /** A socket address of the socket's family. Throws TapnicError EINVAL, ENXIO. */
  #sockaddr(call: string, address: string, port: number): Sockaddr {
    const nam = sockaddr(this.#vnet, address, port);
    if (isIn6Text(address) !== (this.type === 'udp6'))
      throw errnoError(EINVAL, call, `${address} is not an address of a socket of ${this.type}`);
    return nam;
  }

  #open(call: string): Socket {
    if (this.#so === null) throw errnoError(EBADF, call);
    return this.#so;
  }

  /**
   * Binds the socket to `port` (0: any free one) at `address`, by default at all addresses. Throws
   * TapnicError. EADDRINUSE: the port is in use. EADDRNOTAVAIL: not a local address. EINVAL: bound
   * already, or an invalid address or port.
   */
  bind(port = 0, address?: string): this {
    const so = this.#open('bind');
    const nam = this.#sockaddr('bind', address ?? this.#family.any, port);
    check(sobind(so, nam), `bind ${port}`);
    this.#emitLater('listening');
    return this;
  }

  /** The local address; port 0 while the socket is not bound. Throws TapnicError EBADF. */
  address(): { address: string; family: FamilyName; port: number } {
    const so = this.#open('getsockname');
    const name = so.so_proto.pr_sockaddr(so)!;
    return { address: addressText(this.#vnet, name), family: familyText(name), port: name.port };
  }

  /**
   * Sets the peer: the socket exchanges datagrams only with it. Throws TapnicError EHOSTUNREACH, …
   */
  connect(port: number, address: string): this {
    const so = this.#open('connect');
    check(soconnect(so, this.#sockaddr('connect', address, port)), `connect ${address}:${port}`);
    this.#emitLater('connect');
    return this;
  }

  /** Removes the peer; keeps the local port. Throws TapnicError ENOTCONN. */
  disconnect(): this {
    const so = this.#open('disconnect');
    check(sodisconnect(so), 'disconnect');
    return this;
  }

  /**
   * Sends a copy of `message` as one datagram to `port` at `address` (default 127.0.0.1 or ::1);
   * without a port to the connected peer. If the stack has no room for it, it waits in a queue and is
   * sent later. `done` is called later, with null and the number of bytes, or with the error. Without
   * it throws TapnicError: EMSGSIZE, EDESTADDRREQ, EISCONN, EHOSTUNREACH, EACCES. ECONNREFUSED: the
   * peer refused an earlier datagram. In both cases throws EBADF, and EINVAL: invalid port, address or
   * message.
   */
  send(message: Uint8Array | string, done?: SendCallback): void;
  send(message: Uint8Array | string, port: number | undefined, done?: SendCallback): void;
  send(
    message: Uint8Array | string,
    port: number | undefined,
    address?: string,
    done?: SendCallback,
  ): void;
  send(
    message: Uint8Array | string,
    ...args: (number | string | SendCallback | undefined)[]
  ): void {
    this.#open('send');
    const last = args.at(-1);
    const done = typeof last === 'function' ? last : null;
    const [port, address] = args.filter((arg) => typeof arg !== 'function');
    const data = typeof message === 'string' ? Buffer.from(message) : message;
    if (!(data instanceof Uint8Array))
      throw errnoError(EINVAL, 'send', 'the message must be a Uint8Array or a string');
    const datagram = {
      data,
      port: port as number | undefined,
      address: (address ?? this.#family.loopback) as string,
      done,
    };
    const nam = this.#destination(datagram);
    const error = this.#queue.count > 0 ? ENOBUFS : this.#transmit(datagram, nam);
    if (error === ENOBUFS) this.#queue.push(datagram);
    else if (error !== 0 && done === null) throw sendError(error, datagram);
    else sent(datagram, error);
  }

  /** The address of a datagram; null: the connected peer. Throws TapnicError EINVAL. */
  #destination({ port, address }: Datagram): Sockaddr | null {
    return port === undefined ? null : this.#sockaddr('send', address, port);
  }

  #transmit(datagram: Datagram, nam = this.#destination(datagram)): Errno {
    return soSendDgram(this.#so!, datagram.data, 0, datagram.data.length, nam);
  }

  /** Number of datagrams that wait to be sent. */
  getSendQueueCount(): number {
    return this.#queue.count;
  }

  /** Bytes of data that wait to be sent. */
  getSendQueueSize(): number {
    return this.#queue.bytes;
  }

  /** SO_BROADCAST: permits datagrams to broadcast addresses. */
  setBroadcast(on: boolean): void {
    const so = this.#open('setsockopt');
    if (on) so.so_options |= SO_BROADCAST;
    else so.so_options &= ~SO_BROADCAST;
  }

  /** The TTL of unicasts: IP_TTL or IPV6_UNICAST_HOPS, 1 to 255. Throws TapnicError EINVAL, EBADF. */
  setTTL(ttl: number): number {
    this.#setByte('setTTL', ttl, 1, (so) => this.#family.setTtl(so, ttl));
    return ttl;
  }

  /** IP_MULTICAST_TTL or IPV6_MULTICAST_HOPS, 0 to 255, initially 1. Throws TapnicError EINVAL, EBADF. */
  setMulticastTTL(ttl: number): number {
    this.#setByte('setMulticastTTL', ttl, 0, (so) => this.#family.setMulticastTtl(so, ttl));
    return ttl;
  }

  /** IP_MULTICAST_LOOP or IPV6_MULTICAST_LOOP: whether this host receives its own multicasts; initially true. */
  setMulticastLoopback(on: boolean): boolean {
    const so = this.#open('setMulticastLoopback');
    check(this.#family.setMulticastLoop(so, on), 'setMulticastLoopback');
    return on;
  }

  /**
   * IP_MULTICAST_IF: sends multicasts by the interface with the address `multicastInterface`; with
   * 0.0.0.0 by the routing table again. With `udp6`: by that of the zone, as in `::%tn0`. Throws
   * TapnicError EINVAL, EADDRNOTAVAIL, ENXIO, EBADF, ERR_INVALID_ARG_TYPE.
   */
  setMulticastInterface(multicastInterface: string): void {
    const call = 'setMulticastInterface';
    const so = this.#open(call);
    if (typeof multicastInterface !== 'string')
      throw new TapnicError('ERR_INVALID_ARG_TYPE', call, 'the interface must be a string');
    this.#family.setMulticastInterface(so, call, multicastInterface);
  }

  /**
   * Joins a group on the interface with the address `multicastInterface`; without it, on that of the
   * route to the group, else the first one with multicast. Binds an unbound socket to a free port.
   * Throws TapnicError ERR_MISSING_ARGS, EINVAL (not a group), EADDRNOTAVAIL (no such interface),
   * EADDRINUSE (a member already), EBADF.
   */
  addMembership(multicastAddress: string, multicastInterface?: string): void {
    const so = this.#member('addMembership', { multicastAddress });
    this.#family.member(so, 'addMembership', multicastAddress, multicastInterface, true);
  }

  /** Leaves a group. Throws TapnicError as addMembership; EADDRNOTAVAIL: not a member. */
  dropMembership(multicastAddress: string, multicastInterface?: string): void {
    const so = this.#member('dropMembership', { multicastAddress });
    this.#family.member(so, 'dropMembership', multicastAddress, multicastInterface, false);
  }

  /** Joins a group, but only for datagrams from `sourceAddress`. Throws as addMembership. */
  addSourceSpecificMembership(
    sourceAddress: string,
    groupAddress: string,
    multicastInterface?: string,
  ): void {
    const call = 'addSourceSpecificMembership';
    const so = this.#member(call, { sourceAddress, groupAddress });
    this.#family.source(so, call, sourceAddress, groupAddress, multicastInterface, true);
  }

  /** Ends addSourceSpecificMembership. Throws as dropMembership. */
  dropSourceSpecificMembership(
    sourceAddress: string,
    groupAddress: string,
    multicastInterface?: string,
  ): void {
    const call = 'dropSourceSpecificMembership';
    const so = this.#member(call, { sourceAddress, groupAddress });
    this.#family.source(so, call, sourceAddress, groupAddress, multicastInterface, false);
  }

  #setByte(call: string, value: number, min: number, set: (so: Socket) => Errno): void {
    const so = this.#open(call);
    if (typeof value !== 'number')
      throw new TapnicError('ERR_INVALID_ARG_TYPE', call, 'the TTL must be a number');
    const valid = Number.isInteger(value) && value >= min && value <= 255;
    check(valid ? set(so) : EINVAL, call);
  }

  /** The socket, bound to a port. Throws ERR_MISSING_ARGS if one of `args` is missing. */
  #member(call: string, args: Record<string, string>): Socket {
    const so = this.#open(call);
    for (const [name, value] of Object.entries(args))
      if (!value) throw new TapnicError('ERR_MISSING_ARGS', call, `${name} must be specified`);
    if (so.so_proto.pr_sockaddr(so)!.port === 0)
      check(sobind(so, sockaddr(this.#vnet, this.#family.any, 0)), call);
    return so;
  }

  /** Reads one datagram or error. The next one has its own turn, so a listener may throw. */
  #receive(): void {
    const so = this.#so;
    if (so === null) return;
    const error = soRecvDgram(so, this.#buf, 0, DATAGRAM_MAX, 0, this.#from);
    if (error === EWOULDBLOCK) return;
    const { n: size } = ioResult;
    this.#reading.againForRecords(so);
    if (error !== 0) {
      this.emit('error', errnoError(error, 'recvmsg'));
      return;
    }
    const { name } = this.#from;
    const address = addressText(this.#vnet, name);
    const from: DgramInfo = { address, family: familyText(name), port: name.port, size };
    // A copy: the listener may keep it.
    this.emit('message', Buffer.from(this.#buf.subarray(0, size)), from);
  }

  /**
   * Closes the socket. No 'message' is emitted afterwards; 'close' is emitted later. Datagrams that
   * wait to be sent are discarded: ECANCELED.
   */
  close(): this {
    const so = this.#so;
    this.#so = null;
    if (so !== null) {
      this.#queue.cancel();
      soclose(so);
      later(() => this.emit('close'));
    }
    return this;
  }
}

/** Creates a UDP socket of the stack `vnet`; `onMessage` is a listener of 'message'. */
export function createSocket(
  vnet: Vnet,
  options: DgramSocketOptions | DgramType = {},
  onMessage?: MessageListener,
): DgramSocket {
  const socket = new DgramSocket(vnet, typeof options === 'string' ? { type: options } : options);
  if (onMessage !== undefined) socket.on('message', onMessage);
  return socket;
}

function check(error: Errno, syscall: string): void {
  if (error !== 0)
    throw errnoError(
      error,
      syscall,
      error === EADDRINUSE && syscall.startsWith('bind')
        ? 'the port is in use: choose another one'
        : '',
    );
}
