/**
 * Raw ICMP sockets of the emulated host, similar to node:dgram: 'message' is emitted with the whole
 * packet, IP header included, as on FreeBSD. Left out: other protocols, bind.
 */

import { EventEmitter } from 'node:events';
import { EADDRNOTAVAIL, EBADF, EINVAL, errnoError, EWOULDBLOCK } from '../sys/errno.ts';
import { AF_INET, IPPROTO_ICMP, IPPROTO_IP, SOCK_RAW } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { ReceivedFrom } from '../kern/uipc_dgram.ts';
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
import { inAddrOf, inet_ntoa, inSockaddr, parseInAddr } from '../netinet/in.ts';
import { IP_DONTFRAG, IP_TTL } from '../netinet/ip_ctloutput.ts';
import { port } from '../sys/types.ts';
import { Turns } from './turns.ts';

/** Bytes of the largest IP packet, and of the socket buffers. */
const PACKET_MAX = 65535;
const BUFFER_BYTES = 4 * PACKET_MAX;

export interface RawSocketOptions {
  /** IP_TTL, 1 to 255; default net.inet.ip.ttl. */
  readonly ttl?: number;
  /** IP_DONTFRAG: send packets with DF. Default false. */
  readonly dontFragment?: boolean;
}

/** Emits 'message' with (packet, source address as text), and 'error'. */
export class RawSocket extends EventEmitter {
  #so: Socket | null;
  readonly #reading = new Turns(() => this.#receive());
  readonly #buf = Buffer.allocUnsafe(PACKET_MAX);
  readonly #from = new ReceivedFrom();

  /** Throws TapnicError ENOBUFS, EINVAL. */
  constructor(vnet: Vnet, options: RawSocketOptions = {}) {
    super();
    const error = socreate(vnet, AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (error !== 0) throw errnoError(error, 'socket');
    const so = soResult.so!;
    this.#so = so;
    so.so_options |= SO_BROADCAST;
    const { ttl } = options;
    const wrong =
      soreserve(so, BUFFER_BYTES, BUFFER_BYTES) ||
      (ttl === undefined ? 0 : soSetInt(so, IPPROTO_IP, IP_TTL, ttl));
    if (wrong !== 0) {
      this.close();
      throw errnoError(wrong, 'setsockopt');
    }
    soSetInt(so, IPPROTO_IP, IP_DONTFRAG, options.dontFragment === true ? 1 : 0);
    soupcall_set(so, SO_RCV, this.#reading);
  }

  /**
   * Sends the ICMP message `message`, checksum included, to `host`. Throws TapnicError: EMSGSIZE,
   * EHOSTUNREACH, ENOBUFS, EHOSTDOWN, …
   */
  send(message: Uint8Array, host: string): void {
    if (this.#so === null) throw errnoError(EBADF, 'send');
    const error = soSendDgram(this.#so, message, 0, message.length, sockaddrOf(host));
    if (error !== 0) throw errnoError(error, `send ${host}`);
  }

  /** Reads one packet or error. The next one has a turn of its own, so a listener may throw. */
  #receive(): void {
    const so = this.#so;
    if (so === null) return;
    const error = soRecvDgram(so, this.#buf, 0, PACKET_MAX, 0, this.#from);
    if (error === EWOULDBLOCK) return;
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
      inet_ntoa(inAddrOf(this.#from.name)),
    );
  }

  /** Closes the socket. No 'message' is emitted afterwards. */
  close(): void {
    const so = this.#so;
    this.#so = null;
    if (so !== null) soclose(so);
  }
}

function sockaddrOf(host: string): Sockaddr {
  const addr = parseInAddr(host);
  if (addr === null) throw errnoError(EINVAL, 'address', `${host} is not an IPv4 address`);
  if (addr === 0) throw errnoError(EADDRNOTAVAIL, 'address', host);
  return inSockaddr(addr, port(0));
}
