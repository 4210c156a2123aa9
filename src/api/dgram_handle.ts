/**
 * A UDP socket of the emulated host, with the operations that node:dgram needs of the socket below it.
 * Calls complete at once and return FreeBSD's errno; datagrams and errors arrive in turns of their own.
 * src/machine/dgram.ts makes a dgram.Socket of it. As in libuv, the socket exists only after `bind`, and
 * a group can be joined before. The options and groups of each family are in dgram_options.ts.
 */

import { EBADF, EINVAL, ENOBUFS, ENOTCONN, type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import { IPPROTO_UDP, SOCK_DGRAM } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
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
  type Socket,
  soResult,
  soupcall_set,
} from '../kern/uipc_socket.ts';
import { sbreserve, sbreserveMax } from '../kern/uipc_sockbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import { addressText, type FamilyName, familyText } from './address.ts';
import { type DgramFamily, dgram4, dgram6 } from './dgram_options.ts';
import { type SendDone, SendQueue } from './send_queue.ts';
import { Turns } from './turns.ts';

const DATAGRAM_MAX = 65535;

/** The families of UDP sockets. */
export type DgramType = 'udp4' | 'udp6';

/** The address of one end. */
interface DgramAddress {
  readonly address: string;
  readonly family: FamilyName;
  readonly port: number;
}

/** The program of a socket. Each call has a turn of its own, and may throw. */
interface DgramUser {
  message(data: Buffer, from: DgramAddress): void;
  /** The error of an earlier datagram, such as ECONNREFUSED, or of the receive buffer. */
  failed(error: Errno): void;
}

/** Options of a socket, set when it is bound. */
interface DgramHandleOptions {
  /** `udp6`: IPv6, and IPv4 by v4-mapped addresses. Default `udp4`. */
  readonly type?: DgramType;
  /** SO_REUSEPORT: several sockets share a port. Default false. */
  readonly reusePort?: boolean;
  /** IPV6_V6ONLY, for `udp6`. Default false. */
  readonly ipv6Only?: boolean;
  /** IP_TTL or IPV6_UNICAST_HOPS, 1 to 255. Default: net.inet.ip.ttl or net.inet6.ip6.hlim. */
  readonly ttl?: number | undefined;
  /** IP_DONTFRAG: send datagrams with DF; IPV6_DONTFRAG: never in fragments. Default false. */
  readonly dontFragment?: boolean;
}

export class DgramHandle {
  readonly #vnet: Vnet;
  readonly #options: DgramHandleOptions;
  readonly #family: DgramFamily;
  #so: Socket | null = null;
  #closed = false;
  #user: DgramUser | null = null;
  readonly #reading = new Turns(() => this.#receive());
  readonly #buf = Buffer.allocUnsafe(DATAGRAM_MAX);
  readonly #from = new ReceivedFrom();
  readonly #queue = new SendQueue(({ data, nam }) => this.#transmit(data, nam));

  constructor(vnet: Vnet, options: DgramHandleOptions = {}) {
    this.#vnet = vnet;
    this.#options = options;
    this.#family = options.type === 'udp6' ? dgram6 : dgram4;
  }

  /** Creates the socket. ENOBUFS; EAFNOSUPPORT: the stack has no IPv6. */
  #create(): Errno {
    const { reusePort, ttl, dontFragment, ipv6Only } = this.#options;
    const error = socreate(this.#vnet, this.#family.domain, SOCK_DGRAM, IPPROTO_UDP);
    if (error !== 0) return error;
    const so = soResult.so!;
    if (reusePort === true) so.so_options |= SO_REUSEPORT;
    if (ttl !== undefined) this.#family.setTtl(so, ttl);
    this.#family.setDontFragment(so, dontFragment === true);
    this.#family.setIpv6Only(so, ipv6Only === true);
    soupcall_set(so, SO_RCV, this.#reading);
    this.#so = so;
    return 0;
  }

  /** A socket address of the socket's family, or EINVAL, ENXIO. */
  #name(address: string, port: number): Sockaddr | Errno {
    if (!Number.isInteger(port) || port < 0 || port > 65_535) return EINVAL;
    return this.#family.name(this.#vnet, address, port);
  }

  /**
   * Binds the socket to `port` (0: any free one) at `address`, by default at all addresses. EADDRINUSE,
   * EADDRNOTAVAIL: not a local address. EINVAL: bound already, or an invalid address or port. ENXIO: no
   * such zone. EBADF: closed. EAFNOSUPPORT, ENOBUFS.
   */
  bind(port: number, address: string = this.#family.any): Errno {
    if (this.#closed) return EBADF;
    const nam = this.#name(address, port);
    if (typeof nam === 'number') return nam;
    if (this.#so !== null) return sobind(this.#so, nam);
    const error = this.#create();
    if (error !== 0) return error;
    const so = this.#so!;
    const failed = sobind(so, nam);
    if (failed === 0) return 0;
    // As in libuv, a later `bind` begins with a new socket.
    this.#so = null;
    soclose(so);
    return failed;
  }

  /** Sets the peer. EHOSTUNREACH, EADDRNOTAVAIL, EINVAL, ENXIO, EBADF. */
  connect(port: number, address: string): Errno {
    if (this.#so === null) return EBADF;
    const nam = this.#name(address, port);
    return typeof nam === 'number' ? nam : soconnect(this.#so, nam);
  }

  /** Removes the peer; keeps the local port. ENOTCONN, EBADF. */
  disconnect(): Errno {
    return this.#so === null ? EBADF : sodisconnect(this.#so);
  }

  /** The local address, or EBADF. */
  address(): DgramAddress | Errno {
    return this.#so === null ? EBADF : this.#addressOf(this.#so.so_proto.pr_sockaddr(this.#so));
  }

  /** The address of the peer, or ENOTCONN, EBADF. */
  remoteAddress(): DgramAddress | Errno {
    return this.#so === null ? EBADF : this.#addressOf(this.#so.so_proto.pr_peeraddr(this.#so));
  }

  #addressOf(nam: Sockaddr | null): DgramAddress | Errno {
    if (nam === null) return ENOTCONN;
    return { address: addressText(this.#vnet, nam), family: familyText(nam), port: nam.port };
  }

  /** Begins to call `user`. */
  start(user: DgramUser): void {
    this.#user = user;
    if (this.#so !== null) this.#reading.againForRecords(this.#so);
  }

  /** Calls no user any more. */
  stop(): void {
    this.#user = null;
  }

  /**
   * Sends a copy of `data` as one datagram to `port` at `address`; without a port to the peer. 0: sent.
   * EWOULDBLOCK: there is no room now, the datagram waits, and `done` is called when it was sent. Other
   * errors: not sent. EMSGSIZE, EHOSTUNREACH, EACCES, ENOTCONN, EBADF; ECONNREFUSED: the peer refused an
   * earlier datagram.
   */
  send(data: Uint8Array, port?: number, address = '', done: SendDone | null = null): Errno {
    if (this.#so === null) return EBADF;
    const nam = port === undefined ? null : this.#name(address, port);
    if (typeof nam === 'number') return nam;
    const error = this.#queue.count > 0 ? ENOBUFS : this.#transmit(data, nam);
    if (error !== ENOBUFS) return error;
    this.#queue.push({ data, nam, done });
    return EWOULDBLOCK;
  }

  #transmit(data: Uint8Array, nam: Sockaddr | null): Errno {
    return soSendDgram(this.#so!, data, 0, data.length, nam);
  }

  /** Number of datagrams that wait to be sent. */
  getSendQueueCount(): number {
    return this.#queue.count;
  }

  /** Bytes of data that wait to be sent. */
  getSendQueueSize(): number {
    return this.#queue.bytes;
  }

  /**
   * SO_RCVBUF, or SO_SNDBUF: the size of the largest datagram to send. `size` 0 changes nothing; one
   * that exceeds the limit of kern.ipc.maxsockbuf sets the limit, as on Linux. Returns the size, or
   * -EBADF. Unlike FreeBSD, which returns ENOBUFS.
   */
  bufferSize(size: number, receive: boolean): number {
    if (this.#so === null) return -EBADF;
    const sb = receive ? this.#so.so_rcv : this.#so.so_snd;
    if (size > 0) sbreserve(sb, Math.min(size, sbreserveMax()));
    return sb.sb_hiwat;
  }

  /** SO_BROADCAST: permits datagrams to broadcast addresses. EBADF. */
  setBroadcast(on: boolean): Errno {
    const so = this.#so;
    if (so === null) return EBADF;
    if (on) so.so_options |= SO_BROADCAST;
    else so.so_options &= ~SO_BROADCAST;
    return 0;
  }

  /** The TTL of unicasts: IP_TTL or IPV6_UNICAST_HOPS, 1 to 255. EINVAL, EBADF. */
  setTTL(ttl: number): Errno {
    if (this.#so === null) return EBADF;
    return isByte(ttl, 1) ? this.#family.setTtl(this.#so, ttl) : EINVAL;
  }

  /** IP_MULTICAST_TTL or IPV6_MULTICAST_HOPS, 0 to 255, initially 1. EINVAL, EBADF. */
  setMulticastTTL(ttl: number): Errno {
    if (this.#so === null) return EBADF;
    return isByte(ttl, 0) ? this.#family.setMulticastTtl(this.#so, ttl) : EINVAL;
  }

  /** IP_MULTICAST_LOOP: whether this host receives its own multicasts; initially true. EBADF. */
  setMulticastLoopback(on: boolean): Errno {
    return this.#so === null ? EBADF : this.#family.setMulticastLoop(this.#so, on);
  }

  /**
   * IP_MULTICAST_IF: sends multicasts by the interface with the address `ifText`; with 0.0.0.0 by the
   * routing table again. With `udp6`: by that of the zone, as in `::%tn0`. EINVAL, EADDRNOTAVAIL, ENXIO,
   * EBADF.
   */
  setMulticastInterface(ifText: string): Errno {
    return this.#so === null ? EBADF : this.#family.setMulticastInterface(this.#so, ifText);
  }

  /**
   * Joins or leaves a group on the interface with the address `ifText`; without it, on that of the route
   * to the group, else the first one with multicast. Binds an unbound socket to a free port. EINVAL: not
   * a group. EADDRNOTAVAIL, ENXIO: no such interface, or not a member. EADDRINUSE: a member already.
   */
  setMembership(group: string, ifText: string | undefined, join: boolean): Errno {
    const error = this.#so === null ? this.bind(0) : 0;
    return error !== 0 ? error : this.#family.member(this.#so!, group, ifText, join);
  }

  /** As setMembership, but only for datagrams from `source`. */
  setSourceMembership(
    source: string,
    group: string,
    ifText: string | undefined,
    join: boolean,
  ): Errno {
    const error = this.#so === null ? this.bind(0) : 0;
    return error !== 0 ? error : this.#family.source(this.#so!, source, group, ifText, join);
  }

  /** Reads one datagram or error. The next one has its own turn, so a listener may throw. */
  #receive(): void {
    const [so, user] = [this.#so, this.#user];
    if (so === null || user === null) return;
    const error = soRecvDgram(so, this.#buf, 0, DATAGRAM_MAX, 0, this.#from);
    if (error === EWOULDBLOCK) return;
    const { n: size } = ioResult;
    this.#reading.againForRecords(so);
    if (error !== 0) {
      user.failed(error);
      return;
    }
    const { name } = this.#from;
    const address = addressText(this.#vnet, name);
    const from: DgramAddress = { address, family: familyText(name), port: name.port };
    // A copy: the program may keep it.
    user.message(Buffer.from(this.#buf.subarray(0, size)), from);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Closes the socket. Datagrams that wait to be sent are discarded: ECANCELED. */
  close(): void {
    const so = this.#so;
    this.#so = null;
    this.#closed = true;
    this.#user = null;
    if (so === null) return;
    this.#queue.cancel();
    soclose(so);
  }
}

function isByte(value: number, min: number): boolean {
  return Number.isInteger(value) && value >= min && value <= 255;
}
