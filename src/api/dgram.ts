/**
 * UDP sockets of the emulated host, with the interface of node:dgram: 'message' is emitted with the
 * data and its sender. Addresses are numeric; there is no name resolution. Left out:
 * IPv6, arrays of buffers in `send`, abort signals.
 */

import { EventEmitter } from 'node:events';
import {
  EADDRINUSE,
  EBADF,
  EINVAL,
  errnoError,
  type Errno,
  EWOULDBLOCK,
  TapnicError,
} from '../sys/errno.ts';
import { AF_INET, IPPROTO_IP, IPPROTO_UDP, SOCK_DGRAM } from '../kern/protosw.ts';
import { Sockopt, SOPT_SET } from '../kern/sockopt.ts';
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
import { soSetInt, sosetopt } from '../kern/uipc_sockopt.ts';
import type { Vnet } from '../kern/vnet.ts';
import { inAddrOf, inet_ntoa, parseInAddr } from '../netinet/in.ts';
import {
  IP_ADD_MEMBERSHIP,
  IP_ADD_SOURCE_MEMBERSHIP,
  IP_DROP_MEMBERSHIP,
  IP_DROP_SOURCE_MEMBERSHIP,
  IP_MULTICAST_IF,
  IP_MULTICAST_LOOP,
  IP_MULTICAST_TTL,
} from '../netinet/in_mcast.ts';
import { IP_DONTFRAG, IP_TTL } from '../netinet/ip_ctloutput.ts';
import { localSockaddr, sockaddr } from './address.ts';
import { later, Turns } from './turns.ts';

const DATAGRAM_MAX = 65535;
const ANY = '0.0.0.0';

/** Options of a new UDP socket. */
export interface DgramSocketOptions {
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
  /** IP_TTL, 1 to 255; default net.inet.ip.ttl. */
  readonly ttl?: number;
  /** IP_DONTFRAG: send datagrams with DF. Default false. */
  readonly dontFragment?: boolean;
}

/** The sender of a datagram. */
export interface DgramInfo {
  readonly address: string;
  readonly family: 'IPv4';
  readonly port: number;
  /** Bytes of data. */
  readonly size: number;
}

/** Emits 'message' with (data, DgramInfo), 'listening', 'connect', 'error' and 'close'. */
export class DgramSocket extends EventEmitter {
  #so: Socket | null;
  readonly #reading = new Turns(() => this.#receive());
  readonly #buf = Buffer.allocUnsafe(DATAGRAM_MAX);
  readonly #from = new ReceivedFrom();

  /** Throws TapnicError ENOBUFS, EINVAL. */
  constructor(vnet: Vnet, options: DgramSocketOptions = {}) {
    super();
    const error = socreate(vnet, AF_INET, SOCK_DGRAM, IPPROTO_UDP);
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
    if (ttl !== null) soSetInt(so, IPPROTO_IP, IP_TTL, ttl);
    soSetInt(so, IPPROTO_IP, IP_DONTFRAG, options.dontFragment === true ? 1 : 0);
    soupcall_set(so, SO_RCV, this.#reading);
  }

  /** Emits `event` in its own turn, unless the socket is closed before. */
  #emitLater(event: string): void {
    later(() => {
      if (this.#so !== null) this.emit(event);
    });
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
    const nam = localSockaddr(address, port);
    check(sobind(so, nam), `bind ${port}`);
    this.#emitLater('listening');
    return this;
  }

  /** The local address; port 0 while the socket is not bound. Throws TapnicError EBADF. */
  address(): { address: string; family: 'IPv4'; port: number } {
    const so = this.#open('getsockname');
    const name = so.so_proto.pr_sockaddr(so)!;
    return { address: inet_ntoa(inAddrOf(name)), family: 'IPv4', port: name.port };
  }

  /**
   * Sets the peer: the socket exchanges datagrams only with it. Throws TapnicError EHOSTUNREACH, …
   */
  connect(port: number, address: string): this {
    check(soconnect(this.#open('connect'), sockaddr(address, port)), `connect ${address}:${port}`);
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
   * Sends a copy of `message` as one datagram to `port` at `address` (default 127.0.0.1); without a
   * port to the connected peer. Throws TapnicError: EMSGSIZE, EDESTADDRREQ, EISCONN, EHOSTUNREACH,
   * ENOBUFS, EACCES. EINVAL: invalid port, address or message. ECONNREFUSED: the peer refused an
   * earlier datagram.
   */
  send(message: Uint8Array | string, port?: number, address?: string): void {
    const so = this.#open('send');
    const data = typeof message === 'string' ? Buffer.from(message) : message;
    if (!(data instanceof Uint8Array))
      throw errnoError(EINVAL, 'send', 'the message must be a Uint8Array or a string');
    const nam = port === undefined ? null : sockaddr(address ?? '127.0.0.1', port);
    const error = soSendDgram(so, data, 0, data.length, nam);
    if (error !== 0) throw errnoError(error, nam === null ? 'send' : `send ${address}:${port}`);
  }

  /** SO_BROADCAST: permits datagrams to broadcast addresses. */
  setBroadcast(on: boolean): void {
    const so = this.#open('setsockopt');
    if (on) so.so_options |= SO_BROADCAST;
    else so.so_options &= ~SO_BROADCAST;
  }

  /** The TTL of unicasts: IP_TTL, 1 to 255. Throws TapnicError EINVAL, EBADF. */
  setTTL(ttl: number): number {
    this.#setByte('setTTL', IP_TTL, ttl, 1);
    return ttl;
  }

  /** IP_MULTICAST_TTL, 0 to 255, initially 1. Throws TapnicError EINVAL, EBADF. */
  setMulticastTTL(ttl: number): number {
    this.#setByte('setMulticastTTL', IP_MULTICAST_TTL, ttl, 0);
    return ttl;
  }

  /** IP_MULTICAST_LOOP: whether this host receives its own multicasts; initially true. */
  setMulticastLoopback(on: boolean): boolean {
    const so = this.#open('setMulticastLoopback');
    check(soSetInt(so, IPPROTO_IP, IP_MULTICAST_LOOP, on ? 1 : 0), 'setMulticastLoopback');
    return on;
  }

  /**
   * IP_MULTICAST_IF: sends multicasts by the interface with the address `multicastInterface`; with
   * 0.0.0.0 by the routing table again. Throws TapnicError EINVAL, EADDRNOTAVAIL, EBADF.
   */
  setMulticastInterface(multicastInterface: string): void {
    const so = this.#open('setMulticastInterface');
    setOption(so, 'setMulticastInterface', IP_MULTICAST_IF, [multicastInterface]);
  }

  /**
   * Joins a group on the interface with the address `multicastInterface`; without it, on that of the
   * route to the group, else the first one with multicast. Binds an unbound socket to a free port.
   * Throws TapnicError ERR_MISSING_ARGS, EINVAL (not a group), EADDRNOTAVAIL (no such interface),
   * EADDRINUSE (a member already), EBADF.
   */
  addMembership(multicastAddress: string, multicastInterface?: string): void {
    const so = this.#member('addMembership', { multicastAddress });
    const value = [multicastAddress, multicastInterface ?? ANY];
    setOption(so, 'addMembership', IP_ADD_MEMBERSHIP, value);
  }

  /** Leaves a group. Throws TapnicError as addMembership; EADDRNOTAVAIL: not a member. */
  dropMembership(multicastAddress: string, multicastInterface?: string): void {
    const so = this.#member('dropMembership', { multicastAddress });
    const value = [multicastAddress, multicastInterface ?? ANY];
    setOption(so, 'dropMembership', IP_DROP_MEMBERSHIP, value);
  }

  /** Joins a group, but only for datagrams from `sourceAddress`. Throws as addMembership. */
  addSourceSpecificMembership(
    sourceAddress: string,
    groupAddress: string,
    multicastInterface?: string,
  ): void {
    const so = this.#member('addSourceSpecificMembership', { sourceAddress, groupAddress });
    const value = [groupAddress, sourceAddress, multicastInterface ?? ANY];
    setOption(so, 'addSourceSpecificMembership', IP_ADD_SOURCE_MEMBERSHIP, value);
  }

  /** Ends addSourceSpecificMembership. Throws as dropMembership. */
  dropSourceSpecificMembership(
    sourceAddress: string,
    groupAddress: string,
    multicastInterface?: string,
  ): void {
    const so = this.#member('dropSourceSpecificMembership', { sourceAddress, groupAddress });
    const value = [groupAddress, sourceAddress, multicastInterface ?? ANY];
    setOption(so, 'dropSourceSpecificMembership', IP_DROP_SOURCE_MEMBERSHIP, value);
  }

  #setByte(call: string, name: number, value: number, min: number): void {
    const so = this.#open(call);
    if (typeof value !== 'number')
      throw new TapnicError('ERR_INVALID_ARG_TYPE', call, 'the TTL must be a number');
    const valid = Number.isInteger(value) && value >= min && value <= 255;
    check(valid ? soSetInt(so, IPPROTO_IP, name, value) : EINVAL, call);
  }

  /** The socket, bound to a port. Throws ERR_MISSING_ARGS if one of `args` is missing. */
  #member(call: string, args: Record<string, string>): Socket {
    const so = this.#open(call);
    for (const [name, value] of Object.entries(args))
      if (!value) throw new TapnicError('ERR_MISSING_ARGS', call, `${name} must be specified`);
    if (so.so_proto.pr_sockaddr(so)!.port === 0) check(sobind(so, localSockaddr(ANY, 0)), call);
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
    const address = inet_ntoa(inAddrOf(name));
    const from: DgramInfo = { address, family: 'IPv4', port: name.port, size };
    // A copy: the listener may keep it.
    this.emit('message', Buffer.from(this.#buf.subarray(0, size)), from);
  }

  /** Closes the socket. No 'message' is emitted afterwards; 'close' is emitted later. */
  close(): this {
    const so = this.#so;
    this.#so = null;
    if (so !== null) {
      soclose(so);
      later(() => this.emit('close'));
    }
    return this;
  }
}

/** Creates a UDP socket of the stack `vnet`. */
export function createSocket(vnet: Vnet, options: DgramSocketOptions = {}): DgramSocket {
  return new DgramSocket(vnet, options);
}

/** Sets an option of level IPPROTO_IP whose value is a list of addresses. EINVAL: not addresses. */
function setOption(so: Socket, call: string, name: number, value: readonly string[]): void {
  const bytes = new DataView(new ArrayBuffer(4 * value.length));
  for (const [i, text] of value.entries()) {
    const addr = typeof text === 'string' ? parseInAddr(text) : null;
    if (addr === null) throw errnoError(EINVAL, call, `${text} is not an IPv4 address`);
    bytes.setInt32(4 * i, addr);
  }
  const sopt = new Sockopt(SOPT_SET, IPPROTO_IP, name, new Uint8Array(bytes.buffer));
  check(sosetopt(so, sopt), call);
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
