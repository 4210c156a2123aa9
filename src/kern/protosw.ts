/**
 * The protocol switch, after protosw(9): the functions of a protocol that sockets call, so that
 * sockets import no protocol. Functions with an mbuf argument document who owns it afterwards. Left
 * out: raw control messages, kernel credentials.
 */

import type { Errno } from '../sys/errno.ts';
import type { Control } from './cmsg.ts';
import type { Mbuf } from './mbuf.ts';
import type { Sockaddr } from './sockaddr.ts';
import type { Sockopt } from './sockopt.ts';
import type { Socket } from './uipc_socket.ts';

export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;

export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_LINK = 18;
export const AF_INET6 = 28;
/** All AF_* numbers are below AF_MAX. */
export const AF_MAX = 43;

export {
  IPPROTO_ICMP,
  IPPROTO_IGMP,
  IPPROTO_IP,
  IPPROTO_TCP,
  IPPROTO_UDP,
} from '../sys/protocols.ts';

// pr_flags
export const PR_ATOMIC = 0x01;
export const PR_ADDR = 0x02;
export const PR_CONNREQUIRED = 0x04;
export const PR_WANTRCVD = 0x08;
/** A send with an address connects the socket. */
export const PR_IMPLOPCL = 0x20;

// Flags of send and recv, sys/sys/socket.h. MSG_MORETOCOME is used only inside the kernel.
export const MSG_OOB = 0x00000001;
export const MSG_PEEK = 0x00000002;
export const MSG_DONTROUTE = 0x00000004;
export const MSG_EOR = 0x00000008;
export const MSG_TRUNC = 0x00000010;
export const MSG_WAITALL = 0x00000040;
export const MSG_DONTWAIT = 0x00000080;
export const MSG_EOF = 0x00000100;
export const MSG_NOSIGNAL = 0x00020000;
export const MSG_MORETOCOME = 0x00100000;

// pr_send flags
export const PRUS_OOB = 0x1;
export const PRUS_EOF = 0x2;
export const PRUS_MORETOCOME = 0x4;
/** The mbufs are not ready: append them, but do not transmit. A pr_ready call follows. */
export const PRUS_NOTREADY = 0x8;

/** @see protosw(9) */
export interface Protosw {
  readonly pr_type: number;
  readonly pr_domain: number;
  readonly pr_protocol: number;
  readonly pr_flags: number;
  pr_attach(so: Socket): Errno;
  /** Detaches the protocol from a socket whose last reference is gone; frees the PCB. */
  pr_detach(so: Socket): void;
  pr_bind(so: Socket, nam: Sockaddr): Errno;
  pr_listen(so: Socket, backlog: number): Errno;
  pr_connect(so: Socket, nam: Sockaddr): Errno;
  /**
   * `control`: the control messages of a datagram; a protocol without such messages ignores them.
   * Takes `m` on every outcome, except on an error with PRUS_NOTREADY: the I/O then still owns it.
   */
  pr_send(so: Socket, flags: number, m: Mbuf, nam: Sockaddr | null, control?: Control): Errno;
  /**
   * Marks `count` units from `m` on as ready (see sbready) and transmits. If the connection is
   * gone, frees them and returns ECONNRESET.
   */
  pr_ready(so: Socket, m: Mbuf, count: number): Errno;
  /** The program read data from the receive buffer; may send a window update. */
  pr_rcvd(so: Socket, flags: number): Errno;
  /**
   * Copies the urgent byte, which is kept outside the stream, to `m`. MSG_PEEK in `flags` leaves it
   * readable. EINVAL: no urgent data. EWOULDBLOCK: announced but not received yet. If the protocol
   * lacks this function, the socket returns EOPNOTSUPP.
   */
  pr_rcvoob?(so: Socket, m: Mbuf, flags: number): Errno;
  /** Ends the sending side: TCP sends FIN. */
  pr_shutdown(so: Socket): Errno;
  pr_disconnect(so: Socket): Errno;
  /** Drops the connection at once: TCP sends RST. */
  pr_abort(so: Socket): void;
  /** The program closed the socket. */
  pr_close(so: Socket): void;
  pr_sockaddr(so: Socket): Sockaddr | null;
  pr_peeraddr(so: Socket): Sockaddr | null;
  /**
   * Reads or sets an option of the protocol, selected by sopt_level. Also called for options at
   * SOL_SOCKET. ENOPROTOOPT: unknown option. A protocol without options lacks this function.
   */
  pr_ctloutput?(so: Socket, sopt: Sockopt): Errno;
}
