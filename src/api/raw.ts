/**
 * Raw ICMP sockets of the emulated host, similar to node:dgram: 'message' is emitted with the whole
 * packet, with IPv4 the IP header included, as on FreeBSD. Left out: other protocols, bind.
 */

import { EventEmitter } from 'node:events';
import { EADDRNOTAVAIL, EBADF, errnoError, type Errno, EWOULDBLOCK } from '../sys/errno.ts';
import { AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_IP, SOCK_RAW } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { type ControlRef, ReceivedFrom } from '../kern/uipc_dgram.ts';
import { ioResult, soRecvDgram, soSendDgram } from '../kern/sys_generic.ts';
import {
  SO_BROADCAST,
  SO_RCV,
  soclose,
  socreate,
  soreserve,
  type Socket,
  soResult,
  soupcall_set,
} from '../kern/uipc_socket.ts';
import { soSetInt } from '../kern/uipc_sockopt.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IP_DONTFRAG, IP_TTL } from '../netinet/ip_ctloutput.ts';
import { IPPROTO_ICMPV6, IPPROTO_IPV6 } from '../netinet6/ip6.ts';
import { IPV6_RECVHOPLIMIT, IPV6_UNICAST_HOPS } from '../netinet6/ip6_ctloutput.ts';
import { IPV6_DONTFRAG, IPV6_HOPLIMIT } from '../netinet6/ip6_pktopts.ts';
import { takeCmsgs } from '../kern/cmsg.ts';
import { view } from '../kern/sockopt.ts';
import { addressText, sockaddr } from './address.ts';
import { Turns } from './turns.ts';

/** Bytes of the largest IP packet, and of the socket buffers. */
const PACKET_MAX = 65535;
const BUFFER_BYTES = 4 * PACKET_MAX;

export interface RawSocketOptions {
  /** 4: ICMP, the default; 6: ICMPv6. */
  readonly family?: 4 | 6;
  /** IP_TTL or IPV6_UNICAST_HOPS, 1 to 255; default net.inet.ip.ttl or net.inet6.ip6.hlim. */
  readonly ttl?: number;
  /** IP_DONTFRAG: send packets with DF; IPV6_DONTFRAG: never in fragments. Default false. */
  readonly dontFragment?: boolean;
}

/**
 * Emits 'message' with (packet, source address as text, its hop limit), and 'error'. With ICMPv6, the
 * packet is the message without the IPv6 header.
 */
export class RawSocket extends EventEmitter {
  #so: Socket | null;
  readonly #vnet: Vnet;
  /** 4 or 6. */
  readonly family: 4 | 6;
  readonly #reading = new Turns(() => this.#receive());
  readonly #buf = Buffer.allocUnsafe(PACKET_MAX);
  readonly #from = new ReceivedFrom();

  /** Throws TapnicError ENOBUFS, EINVAL. */
  constructor(vnet: Vnet, options: RawSocketOptions = {}) {
    super();
    const { family = 4 } = options;
    const six = family === 6;
    this.#vnet = vnet;
    this.family = family;
    const error = six
      ? socreate(vnet, AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)
      : socreate(vnet, AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (error !== 0) throw errnoError(error, 'socket');
    const so = soResult.so!;
    this.#so = so;
    so.so_options |= SO_BROADCAST;
    const { ttl } = options;
    const wrong =
      soreserve(so, BUFFER_BYTES, BUFFER_BYTES) ||
      (six ? soSetInt(so, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1) : 0) ||
      (ttl === undefined ? 0 : this.#setInt(so, IP_TTL, IPV6_UNICAST_HOPS, ttl));
    if (wrong !== 0) {
      this.close();
      throw errnoError(wrong, 'setsockopt');
    }
    this.#setInt(so, IP_DONTFRAG, IPV6_DONTFRAG, options.dontFragment === true ? 1 : 0);
    soupcall_set(so, SO_RCV, this.#reading);
  }

  /** Sets the option of the socket's family. */
  #setInt(so: Socket, name: number, name6: number, value: number): Errno {
    return this.family === 6
      ? soSetInt(so, IPPROTO_IPV6, name6, value)
      : soSetInt(so, IPPROTO_IP, name, value);
  }

  /**
   * Sends the ICMP message `message` to `host`. Its checksum is included; that of ICMPv6 is computed
   * here. Throws TapnicError: EMSGSIZE, EHOSTUNREACH, ENOBUFS, EHOSTDOWN, EAFNOSUPPORT, …
   */
  send(message: Uint8Array, host: string): void {
    if (this.#so === null) throw errnoError(EBADF, 'send');
    const error = soSendDgram(this.#so, message, 0, message.length, this.#peer(host));
    if (error !== 0) throw errnoError(error, `send ${host}`);
  }

  #peer(host: string): Sockaddr {
    const nam = sockaddr(this.#vnet, host, 0);
    if (nam.isAny()) throw errnoError(EADDRNOTAVAIL, 'address', host);
    return nam;
  }

  /** Reads one packet or error. The next one has a turn of its own, so a listener may throw. */
  #receive(): void {
    const so = this.#so;
    if (so === null) return;
    const control: ControlRef = { m: null };
    const error = soRecvDgram(so, this.#buf, 0, PACKET_MAX, 0, this.#from, control);
    if (error === EWOULDBLOCK) return;
    const hops = takeCmsgs(control.m).find(({ type }) => type === IPV6_HOPLIMIT);
    const { n } = ioResult;
    this.#reading.againForRecords(so);
    if (error !== 0) {
      this.emit('error', errnoError(error, 'recvmsg'));
      return;
    }
    // A copy: the listener may keep it.
    this.emit(
      'message',
      Buffer.from(this.#buf.subarray(0, n)),
      addressText(this.#vnet, this.#from.name),
      hops === undefined ? null : view(hops.data).getInt32(0, true),
    );
  }

  /** Closes the socket. No 'message' is emitted afterwards. */
  close(): void {
    const so = this.#so;
    this.#so = null;
    if (so !== null) soclose(so);
  }
}
