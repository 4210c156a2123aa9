/**
 * The protocol switch, after protosw(9): how sockets reach a protocol without importing it. Calls
 * return an errno; those that take an mbuf chain say who owns it. Left out: raw control messages,
 * kernel credentials.
 */

import type { Errno } from '../sys/errno.ts';
import type { Mbuf } from './mbuf.ts';
import type { Sockaddr } from './sockaddr.ts';
import type { Sockopt } from './sockopt.ts';
import type { Socket } from './uipc_socket.ts';

export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;

export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_INET6 = 28;
/** Families are numbers below this. */
export const AF_MAX = 43;

export { IPPROTO_ICMP, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP } from '../sys/protocols.ts';

// pr_flags
export const PR_ATOMIC = 0x01;
export const PR_ADDR = 0x02;
export const PR_CONNREQUIRED = 0x04;
export const PR_WANTRCVD = 0x08;

// Flags of send and recv, sys/sys/socket.h. MSG_MORETOCOME is the kernel's own.
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
/** The mbufs are not ready: append, do not transmit; pr_ready follows. */
export const PRUS_NOTREADY = 0x8;

/** @see protosw(9) */
export interface Protosw {
  readonly pr_type: number;
  readonly pr_domain: number;
  readonly pr_protocol: number;
  readonly pr_flags: number;
  pr_attach(so: Socket): Errno;
  /** The socket is going: free the PCB or leave it to finish by itself. */
  pr_detach(so: Socket): void;
  pr_bind(so: Socket, nam: Sockaddr): Errno;
  pr_listen(so: Socket, backlog: number): Errno;
  pr_connect(so: Socket, nam: Sockaddr): Errno;
  /** Takes `m` on every outcome, but for PRUS_NOTREADY and an error: then the I/O still owns it. */
  pr_send(so: Socket, flags: number, m: Mbuf, nam: Sockaddr | null): Errno;
  /** `count` units from `m` on became ready (sbready). Takes them if the connection is gone. */
  pr_ready(so: Socket, m: Mbuf, count: number): Errno;
  /** The application took data: maybe a window update. */
  pr_rcvd(so: Socket, flags: number): Errno;
  /**
   * Puts the byte of urgent data, which is kept beside the stream, into `m`; with MSG_PEEK in `flags`
   * it stays. EINVAL: there is none; EWOULDBLOCK: it is on its way. Without the function: EOPNOTSUPP.
   */
  pr_rcvoob?(so: Socket, m: Mbuf, flags: number): Errno;
  /** No more to send: FIN. */
  pr_shutdown(so: Socket): Errno;
  pr_disconnect(so: Socket): Errno;
  /** Drop the connection at once: RST. */
  pr_abort(so: Socket): void;
  /** The application closed its socket. */
  pr_close(so: Socket): void;
  pr_sockaddr(so: Socket): Sockaddr | null;
  pr_peeraddr(so: Socket): Sockaddr | null;
  /**
   * Reads or sets an option of the protocol, by sopt_level; hears of those at SOL_SOCKET too.
   * ENOPROTOOPT: it has none such. Without the function it has none at all.
   */
  pr_ctloutput?(so: Socket, sopt: Sockopt): Errno;
}
