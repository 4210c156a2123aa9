/**
 * Sockets, after sys/kern/uipc_socket.c: create, listen, connect, send, receive, shutdown, close,
 * and the functions by which protocols change a socket's state. No call sleeps: a call that would
 * block returns EWOULDBLOCK, and an upcall signals when to retry. Left out: accept filters, SIGIO,
 * credentials. Socket options are in uipc_sockopt.ts.
 */

import type { Task } from '../sys/clock.ts';
import {
  EAFNOSUPPORT,
  EALREADY,
  EINVAL,
  EISCONN,
  ECONNABORTED,
  EMSGSIZE,
  ENOBUFS,
  ENOTCONN,
  EOPNOTSUPP,
  EPIPE,
  EPROTONOSUPPORT,
  EPROTOTYPE,
  type Errno,
  EWOULDBLOCK,
} from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass, passUpcall, type Upcall } from '../sys/pass.ts';
import { count, R_SO_LISTEN_OVERFLOW, R_SO_MAXSOCKETS } from '../sys/reason.ts';
import { type Uio, uiomove } from '../vm/uio.ts';
import type { Control } from './cmsg.ts';
import { m_free, m_get } from './kern_mbuf.ts';
import { m_mbuftouio } from './m_copydata.ts';
import { type Mbuf, max_hdr, MCLBYTES, M_NOWAIT, M_PKTHDR, MT_DATA, mtod } from './mbuf.ts';
import {
  MSG_DONTWAIT,
  MSG_EOF,
  MSG_EOR,
  MSG_MORETOCOME,
  MSG_OOB,
  MSG_PEEK,
  PR_CONNREQUIRED,
  PR_IMPLOPCL,
  type Protosw,
  PRUS_EOF,
  PRUS_MORETOCOME,
  PRUS_OOB,
  PR_WANTRCVD,
  SOCK_STREAM,
} from './protosw.ts';
import type { Sockaddr } from './sockaddr.ts';
import { noTasks, SocketBase } from './socket_cold.ts';
import {
  SBS_CANTRCVMORE,
  SBS_CANTSENDMORE,
  SBS_RCVATMARK,
  sbavail,
  sbdrop,
  sbflush,
  sbrelease,
  sbreserve,
  Sockbuf,
  sbspace,
  type SoUpcall,
  sowakeup,
} from './uipc_sockbuf.ts';
import { m_uiotombuf } from './m_uiotombuf.ts';
import type { Vnet } from './vnet.ts';

// so_state
export const SS_NOFDREF = 0x0001;
export const SS_ISCONNECTED = 0x0002;
export const SS_ISCONNECTING = 0x0004;
const SS_ISDISCONNECTING = 0x0008;
export const SS_ISDISCONNECTED = 0x2000;
// so_options: the boolean options at SOL_SOCKET. The others are in uipc_sockopt.ts.
export const SO_DEBUG = 0x0001;
export const SO_ACCEPTCONN = 0x0002;
export const SO_REUSEADDR = 0x0004;
export const SO_KEEPALIVE = 0x0008;
export const SO_DONTROUTE = 0x0010;
export const SO_BROADCAST = 0x0020;
export const SO_USELOOPBACK = 0x0040;
export const SO_LINGER = 0x0080;
export const SO_OOBINLINE = 0x0100;
export const SO_REUSEPORT = 0x0200;
export const SO_TIMESTAMP = 0x0400;
export const SO_NOSIGPIPE = 0x0800;
export const SO_BINTIME = 0x2000;
export const SO_NO_OFFLOAD = 0x4000;
export const SO_REUSEPORT_LB = 0x00010000;
export const SO_RERROR = 0x00020000;
// sopriv: which buffer an upcall is for
export const SO_RCV = 1;
export const SO_SND = 2;
// soshutdown
export const SHUT_RD = 0;
export const SHUT_WR = 1;
export const SHUT_RDWR = 2;

/** kern.ipc.somaxconn: the largest backlog; kern.ipc.maxsockets: the limit of sockets, set at boot. */
export const soParams = { somaxconn: 128, maxsockets: 0x7fffffff };

/** Number of sockets on the machine. */
export const soStats = { current: 0 };

/** @see socket(9) */
export class Socket extends SocketBase implements Upcall {
  readonly so_vnet: Vnet;
  readonly so_proto: Protosw;
  readonly so_type: number;
  so_state = 0;
  so_options = 0;
  /** Pending error. Cleared when reported. */
  so_error: Errno = 0;
  /** The protocol's control block; null once detached. */
  so_pcb: object | null = null;
  readonly so_rcv = new Sockbuf();
  readonly so_snd = new Sockbuf();
  /** Reference count: the descriptor, and I/O in flight. */
  so_count = 1;
  /** The listener of a connection that is not accepted yet. */
  so_listen: Socket | null = null;
  /** Ours: an identifier for output. */
  readonly so_id: number;
  /** Sendfile calls that hold (the first) or wait for the lock on the send side (sblock). */
  sndLock: readonly Task[] = noTasks;

  constructor(vnet: Vnet, proto: Protosw) {
    super();
    this.so_vnet = vnet;
    this.so_proto = proto;
    this.so_type = proto.pr_type;
    this.so_id = nextId++;
  }

  /** Listener: runs sol_upcall after the pass. */
  upcall(): void {
    this.upcallPending = false;
    this.sol_upcall?.run();
  }
}

let nextId = 1;

/** The socket of the last `socreate` or `soaccept` that returned 0. */
export const soResult: { so: Socket | null } = { so: null };

/** Whether kern.ipc.maxsockets allows one more socket; counts a refusal. */
function soAllowed(): boolean {
  if (soStats.current < soParams.maxsockets) return true;
  count(R_SO_MAXSOCKETS);
  return false;
}

/**
 * kern.ipc.maxsockets by default: FreeBSD's formula for kern.maxfiles, which is the default of both:
 * an eighth of the pages, at least 16 for each of `maxusers`, at most a quarter of the pages.
 */
export function maxsocketsDefault(pages: number): number {
  const users = Math.max(Math.floor(pages / 512), 32);
  const maxusers = users > 384 ? 384 + Math.floor((users - 384) / 8) : users;
  return Math.min(Math.max(16 * maxusers, pages >>> 3), pages >>> 2);
}

/**
 * Creates a socket. Returns 0 and sets `soResult.so`, which the caller owns. EAFNOSUPPORT: the Vnet
 * does not have the domain. EPROTOTYPE: the domain does not have the type. EPROTONOSUPPORT: the
 * domain does not have the type with this protocol. Unlike FreeBSD: the socket is not an out
 * parameter.
 * @see socket(9)
 */
export function socreate(vnet: Vnet, domain: number, type: number, protocol: number): Errno {
  return newSocket(inPass(createInPass, vnet, domain, type, protocol));
}

/** Stores `so` in soResult and returns 0; returns an errno unchanged. */
function newSocket(so: Socket | Errno): Errno {
  if (typeof so === 'number') return so;
  soResult.so = so;
  return 0;
}

function createInPass(vnet: Vnet, domain: number, type: number, protocol: number): Socket | Errno {
  const pr = vnet.protosw.find(
    (p) =>
      p.pr_domain === domain &&
      p.pr_type === type &&
      (protocol === 0 || p.pr_protocol === protocol),
  );
  if (pr === undefined) {
    if (!vnet.protosw.some((p) => p.pr_domain === domain)) return EAFNOSUPPORT;
    return protocol === 0 ? EPROTOTYPE : EPROTONOSUPPORT;
  }
  if (!soAllowed()) return ENOBUFS;
  const so = new Socket(vnet, pr);
  const error = pr.pr_attach(so);
  if (error !== 0) return error;
  soStats.current++;
  return so;
}

/** Sets the sizes of both buffers, in bytes. ENOBUFS beyond kern.ipc.maxsockbuf. @see socket(9) */
export function soreserve(so: Socket, sndcc: number, rcvcc: number): Errno {
  if (!sbreserve(so.so_snd, sndcc) || !sbreserve(so.so_rcv, rcvcc)) return ENOBUFS;
  so.so_rcv.sb_lowat = 1;
  so.so_snd.sb_lowat = Math.min(MCLBYTES, so.so_snd.sb_hiwat);
  return 0;
}

/** Sets the upcall of buffer `which` (SO_RCV or SO_SND). @see socket(9) */
export function soupcall_set(so: Socket, which: number, func: SoUpcall | null): void {
  (which === SO_RCV ? so.so_rcv : so.so_snd).sb_upcall = func;
}

/** @see socket(9) */
export function sobind(so: Socket, nam: Sockaddr): Errno {
  return inPass(bindInPass, so, nam);
}

function bindInPass(so: Socket, nam: Sockaddr): Errno {
  return so.so_proto.pr_bind(so, nam);
}

/** Makes `so` a listener. `backlog` is limited to kern.ipc.somaxconn. @see listen(2) */
export function solisten(so: Socket, backlog: number): Errno {
  return inPass(listenInPass, so, backlog);
}

function listenInPass(so: Socket, backlog: number): Errno {
  const busy = (so.so_state & (SS_ISCONNECTED | SS_ISCONNECTING | SS_ISDISCONNECTING)) !== 0;
  // A datagram socket gets EOPNOTSUPP from pr_listen, connected or not.
  if (busy && (so.so_proto.pr_flags & PR_CONNREQUIRED) !== 0) return EINVAL;
  const limit = backlog < 0 || backlog > soParams.somaxconn ? soParams.somaxconn : backlog;
  const error = so.so_proto.pr_listen(so, limit);
  if (error !== 0) return error;
  if ((so.so_options & SO_ACCEPTCONN) === 0) {
    so.sol_incomp = [];
    so.sol_comp = [];
  }
  so.so_options |= SO_ACCEPTCONN;
  so.sol_qlimit = limit;
  return 0;
}

/**
 * Starts to connect. 0: a stream socket is connecting and an upcall follows; a datagram socket is
 * connected.
 * @see socket(9)
 */
export function soconnect(so: Socket, nam: Sockaddr): Errno {
  return inPass(connectInPass, so, nam);
}

function connectInPass(so: Socket, nam: Sockaddr): Errno {
  if ((so.so_options & SO_ACCEPTCONN) !== 0) return EOPNOTSUPP;
  if ((so.so_state & (SS_ISCONNECTED | SS_ISCONNECTING)) !== 0) {
    // A datagram socket may change its peer.
    if ((so.so_proto.pr_flags & PR_CONNREQUIRED) !== 0 || so.so_proto.pr_disconnect(so) !== 0)
      return EISCONN;
  }
  so.so_error = 0;
  return so.so_proto.pr_connect(so, nam);
}

/**
 * Removes the oldest complete connection from a listener's queue. Returns 0 and sets `soResult.so`,
 * which the caller owns. EWOULDBLOCK: the queue is empty. ECONNABORTED: the connection has ended
 * already and was freed, or the listener was shut down. EINVAL: `head` is not a listener.
 * @see accept(2)
 */
export function soaccept(head: Socket): Errno {
  return newSocket(inPass(acceptInPass, head));
}

function acceptInPass(head: Socket): Socket | Errno {
  if ((head.so_options & SO_ACCEPTCONN) === 0) return EINVAL;
  if (head.so_error !== 0) return soTakeError(head);
  const so = head.sol_comp.shift();
  if (so === undefined) return EWOULDBLOCK;
  so.so_listen = null;
  if ((so.so_state & SS_ISDISCONNECTED) !== 0) {
    sorele(so);
    return ECONNABORTED;
  }
  so.so_state &= ~SS_NOFDREF;
  return so;
}

/** Whether a listener has room for one more connection. FreeBSD's limit is 3/2 of the backlog. */
function solistenRoom(head: Socket): boolean {
  return head.sol_comp.length + head.sol_incomp.length <= Math.floor((3 * head.sol_qlimit) / 2);
}

/** Wakes the waiters of a listener: a connection can be accepted. @see sys/kern/uipc_socket.c */
function solisten_wakeup(head: Socket): void {
  if (head.sol_upcall !== null && !head.upcallPending) {
    head.upcallPending = true;
    passUpcall(head);
  }
  sorwakeup(head);
}

/**
 * Creates the socket of a new connection on the listener `head`. Null: the queue is full, or the
 * buffers or the protocol could not be set up. `connstatus` is SS_ISCONNECTED, or 0 for an
 * incomplete connection, which soisconnected completes.
 * @see socket(9)
 */
export function sonewconn(head: Socket, connstatus: number): Socket | null {
  if (!solistenRoom(head)) {
    head.sol_overcount++;
    count(R_SO_LISTEN_OVERFLOW);
    return null;
  }
  if (!soAllowed()) return null;
  const so = new Socket(head.so_vnet, head.so_proto);
  so.so_options = head.so_options & ~SO_ACCEPTCONN;
  so.so_linger = head.so_linger;
  so.so_state = SS_NOFDREF | connstatus;
  if (soreserve(so, head.so_snd.sb_hiwat, head.so_rcv.sb_hiwat) !== 0) return null;
  if (so.so_proto.pr_attach(so) !== 0) return null;
  so.so_rcv.sb_lowat = head.so_rcv.sb_lowat;
  so.so_snd.sb_lowat = head.so_snd.sb_lowat;
  so.so_rcv.sb_timeo = head.so_rcv.sb_timeo;
  so.so_snd.sb_timeo = head.so_snd.sb_timeo;
  soStats.current++;
  so.so_listen = head;
  if (connstatus !== 0) {
    head.sol_comp.push(so);
    solisten_wakeup(head);
  } else {
    head.sol_incomp.push(so);
  }
  return so;
}

/** Wakes readers at the end of the pass: data or end of data arrived. @see socket(9) */
export function sorwakeup(so: Socket): void {
  sowakeup(so.so_rcv);
}

/** Wakes writers at the end of the pass: space became free. @see socket(9) */
export function sowwakeup(so: Socket): void {
  sowakeup(so.so_snd);
}

/** Wakes readers: urgent data was announced. @see socket(9) */
export function sohasoutofband(so: Socket): void {
  sorwakeup(so);
}

/** Whether all bytes before the urgent data were read: SIOCATMARK. @see sockatmark(3) */
export function soAtMark(so: Socket): boolean {
  return (so.so_rcv.sb_state & SBS_RCVATMARK) !== 0;
}

/** @see socket(9) */
export function soisconnecting(so: Socket): void {
  so.so_state &= ~(SS_ISCONNECTED | SS_ISDISCONNECTING);
  so.so_state |= SS_ISCONNECTING;
}

/**
 * The handshake is complete: moves an incomplete connection to the listener's queue of complete
 * ones.
 * @see socket(9)
 */
export function soisconnected(so: Socket): void {
  so.so_state &= ~(SS_ISCONNECTING | SS_ISDISCONNECTING);
  so.so_state |= SS_ISCONNECTED;
  const head = so.so_listen;
  if (head !== null && !head.sol_comp.includes(so)) {
    removeFrom(head.sol_incomp, so);
    head.sol_comp.push(so);
    solisten_wakeup(head);
    return;
  }
  sorwakeup(so);
  sowwakeup(so);
}

/** @see socket(9) */
export function soisdisconnecting(so: Socket): void {
  so.so_state &= ~SS_ISCONNECTING;
  so.so_state |= SS_ISDISCONNECTING;
  so.so_rcv.sb_state |= SBS_CANTRCVMORE;
  so.so_snd.sb_state |= SBS_CANTSENDMORE;
  sorwakeup(so);
  sowwakeup(so);
}

/** The connection has ended: marks the socket and discards unsent data. @see socket(9) */
export function soisdisconnected(so: Socket): void {
  so.so_state &= ~(SS_ISCONNECTING | SS_ISCONNECTED | SS_ISDISCONNECTING);
  so.so_state |= SS_ISDISCONNECTED;
  so.so_rcv.sb_state |= SBS_CANTRCVMORE;
  so.so_snd.sb_state |= SBS_CANTSENDMORE;
  sbdrop(so.so_snd, so.so_snd.sb_ccc);
  sorwakeup(so);
  sowwakeup(so);
}

/** @see socket(9) */
export function socantsendmore(so: Socket): void {
  so.so_snd.sb_state |= SBS_CANTSENDMORE;
  sowwakeup(so);
}

/** @see socket(9) */
export function socantrcvmore(so: Socket): void {
  so.so_rcv.sb_state |= SBS_CANTRCVMORE;
  sorwakeup(so);
}

/** Returns and clears the pending error; 0 if none. SO_ERROR. */
export function soTakeError(so: Socket): Errno {
  const error = so.so_error;
  so.so_error = 0;
  return error;
}

/**
 * The errno that forbids sending now, or 0. EPIPE: the send side was shut down. ENOTCONN: not
 * connected, except if the send connects (`implied`). Else the pending error, which is cleared.
 */
export function soSendError(so: Socket, implied = false): Errno {
  if ((so.so_snd.sb_state & SBS_CANTSENDMORE) !== 0) return EPIPE;
  if (so.so_error !== 0) return soTakeError(so);
  if (implied) return 0;
  if ((so.so_state & SS_ISCONNECTED) === 0 && (so.so_proto.pr_flags & PR_CONNREQUIRED) !== 0)
    return ENOTCONN;
  return 0;
}

/**
 * Sends as much of `uio` as fits, without waiting; `uio_resid` is the number of bytes not sent.
 * EWOULDBLOCK: the free space is below the low-water mark, or a sendfile on the socket holds the
 * send side. ENOBUFS: no mbufs. EMSGSIZE: a datagram larger than the send buffer. `flags`: MSG_OOB
 * marks the last byte as urgent and may exceed the buffer by up to 1024 bytes; MSG_EOF shuts down
 * the send side after the last byte; MSG_MORETOCOME delays the push.
 * EINVAL: MSG_EOR on a stream, which has no records. A `nam` connects a TCP socket.
 * @see socket(9)
 */
export function sosend(so: Socket, uio: Uio, nam: Sockaddr | null, flags: number): Errno {
  return inPass(sendInPass, so, uio, nam, flags);
}

function sendInPass(so: Socket, uio: Uio, nam: Sockaddr | null, flags: number): Errno {
  if (so.so_type !== SOCK_STREAM) return sosend_dgram(so, uio, nam, null);
  // A byte stream has no records.
  if ((flags & MSG_EOR) !== 0) return EINVAL;
  if (so.sndLock.length > 0) return soSendError(so) || EWOULDBLOCK;
  return sosendLocked(so, uio, flags, nam);
}

/** Bytes by which urgent data may exceed the buffer, sys/kern/uipc_socket.c. */
const OOB_EXTRA = 1024;

/** `sosend` on a stream, for a caller that holds the lock on the send side. */
export function sosendLocked(
  so: Socket,
  uio: Uio,
  flags: number,
  nam: Sockaddr | null = null,
): Errno {
  // With an address, the protocol connects (PR_IMPLOPCL).
  const implied = nam !== null && (so.so_proto.pr_flags & PR_IMPLOPCL) !== 0;
  const error = soSendError(so, implied && (so.so_options & SO_ACCEPTCONN) === 0);
  if (error !== 0) return error;
  const { so_snd: sb, so_proto: pr } = so;
  const resid = uio.uio_resid;
  if (resid === 0 && (flags & MSG_EOF) === 0) return 0;
  const space = sbspace(sb) + ((flags & MSG_OOB) !== 0 ? OOB_EXTRA : 0);
  if (space < resid && (space <= 0 || space < sb.sb_lowat)) return EWOULDBLOCK;
  const top =
    resid === 0
      ? m_get(M_NOWAIT, MT_DATA)
      : m_uiotombuf(uio, M_NOWAIT, Math.min(space, resid), 0, 0);
  if (top === null) return ENOBUFS;
  let prus = (flags & MSG_OOB) !== 0 ? PRUS_OOB : 0;
  if (uio.uio_resid > 0 || (flags & MSG_MORETOCOME) !== 0) prus |= PRUS_MORETOCOME;
  if (uio.uio_resid === 0 && (flags & MSG_EOF) !== 0) prus |= PRUS_EOF;
  return pr.pr_send(so, prus, top, implied ? nam : null);
}

/** Sends one datagram. EMSGSIZE: it is larger than the send buffer. @see sys/kern/uipc_socket.c */
export function sosend_dgram(so: Socket, uio: Uio, nam: Sockaddr | null, c: Control): Errno {
  if ((so.so_snd.sb_state & SBS_CANTSENDMORE) !== 0) return EPIPE;
  if (so.so_error !== 0) return soTakeError(so);
  if (uio.uio_resid > so.so_snd.sb_hiwat) return EMSGSIZE;
  const top = m_uiotombuf(uio, M_NOWAIT, uio.uio_resid, max_hdr, M_PKTHDR);
  if (top === null) return ENOBUFS;
  return so.so_proto.pr_send(so, 0, top, nam, c);
}

/**
 * The result of a read without data; 0: end of data. Clears the pending error, except with
 * MSG_PEEK.
 */
function nothingToRead(so: Socket, uio: Uio, flags: number): Errno {
  const sb = so.so_rcv;
  if (so.so_error !== 0) return (flags & MSG_PEEK) !== 0 ? so.so_error : soTakeError(so);
  if ((sb.sb_state & SBS_CANTRCVMORE) !== 0) return 0;
  if ((so.so_state & (SS_ISCONNECTING | SS_ISCONNECTED | SS_ISDISCONNECTED)) === 0) return ENOTCONN;
  return uio.uio_resid === 0 ? 0 : EWOULDBLOCK;
}

/** Receives the urgent byte that is kept outside the stream. @see sys/kern/uipc_socket.c */
function soreceive_rcvoob(so: Socket, uio: Uio, flags: number): Errno {
  const { so_proto: pr } = so;
  if (pr.pr_rcvoob === undefined) return EOPNOTSUPP;
  const m: Mbuf | null = m_get(M_NOWAIT, MT_DATA);
  if (m === null) return ENOBUFS;
  const error = pr.pr_rcvoob(so, m, flags);
  if (error === 0) uiomove(mtod(m), m.m_len, uio);
  m_free(m);
  return error;
}

/**
 * Receives the available bytes of a stream into `uio`, at most up to the urgent data. 0 with
 * `uio_resid` unchanged: end of data. EWOULDBLOCK: no data, or, without MSG_DONTWAIT, less than
 * both SO_RCVLOWAT and the requested size. ENOTCONN: never connected. Else the pending error.
 * `flags`: MSG_PEEK keeps the bytes in the buffer; MSG_OOB: see pr_rcvoob.
 * @see socket(9)
 */
export function soreceive(so: Socket, uio: Uio, flags = 0): Errno {
  return inPass(receiveInPass, so, uio, flags);
}

function receiveInPass(so: Socket, uio: Uio, flags: number): Errno {
  KASSERT(so.so_type === SOCK_STREAM, 'soreceive: stream sockets only');
  if ((flags & MSG_OOB) !== 0) return soreceive_rcvoob(so, uio, flags);
  const sb = so.so_rcv;
  const avail = sbavail(sb);
  const few = avail < sb.sb_lowat && avail < uio.uio_resid && (flags & MSG_DONTWAIT) === 0;
  const last = so.so_error !== 0 || (sb.sb_state & SBS_CANTRCVMORE) !== 0;
  if (avail === 0 || (few && !last)) return nothingToRead(so, uio, flags);
  let len = Math.min(avail, uio.uio_resid);
  if (len === 0) return 0;
  // Stop before the urgent data, so that a program can detect its position.
  if (so.so_oobmark > 0) len = Math.min(len, so.so_oobmark);
  m_mbuftouio(uio, sb.sb_mb, len);
  sb.sb_state &= ~SBS_RCVATMARK;
  if ((flags & MSG_PEEK) === 0) {
    sbdrop(sb, len);
    if (so.so_oobmark > 0) {
      so.so_oobmark -= len;
      if (so.so_oobmark === 0) sb.sb_state |= SBS_RCVATMARK;
    }
    if ((so.so_proto.pr_flags & PR_WANTRCVD) !== 0 && so.so_pcb !== null)
      so.so_proto.pr_rcvd(so, flags);
  }
  return 0;
}

/**
 * Shuts down one or both directions. EINVAL: `how` is not a SHUT_* constant. ENOTCONN: no peer. As
 * on FreeBSD, ENOTCONN does not mean that the call had no effect: a call that waits in accept on a
 * listener returns ECONNABORTED, and an unconnected datagram socket is shut down.
 * @see shutdown(2)
 */
export function soshutdown(so: Socket, how: number): Errno {
  return inPass(shutdownInPass, so, how);
}

function shutdownInPass(so: Socket, how: number): Errno {
  if (how !== SHUT_RD && how !== SHUT_WR && how !== SHUT_RDWR) return EINVAL;
  if ((so.so_options & SO_ACCEPTCONN) !== 0) {
    if (how !== SHUT_WR) {
      so.so_error = ECONNABORTED;
      solisten_wakeup(so);
    }
    return ENOTCONN;
  }
  const alone =
    (so.so_state & (SS_ISCONNECTED | SS_ISCONNECTING | SS_ISDISCONNECTING)) === 0 ? ENOTCONN : 0;
  if (alone !== 0 && so.so_type === SOCK_STREAM) return alone;
  let error = 0;
  if (how !== SHUT_WR) {
    socantrcvmore(so);
    // The window closes as data arrives, which is acknowledged and discarded.
    sbrelease(so.so_rcv);
  }
  if (how !== SHUT_RD) error = so.so_proto.pr_shutdown(so);
  return error !== 0 ? error : alone;
}

/**
 * Ends the connection after the data in the send buffer. ENOTCONN: not connected. EALREADY: a
 * disconnect is in progress.
 * @see socket(9)
 */
export function sodisconnect(so: Socket): Errno {
  return inPass(disconnectInPass, so);
}

function disconnectInPass(so: Socket): Errno {
  if ((so.so_state & SS_ISCONNECTED) === 0) return ENOTCONN;
  if ((so.so_state & SS_ISDISCONNECTING) !== 0) return EALREADY;
  return so.so_proto.pr_disconnect(so);
}

/** Removes all upcalls and waiters of the program. */
function soupcallsOff(so: Socket): void {
  so.so_rcv.sb_upcall = null;
  so.so_snd.sb_upcall = null;
  so.so_rcv.sb_notes = noTasks;
  so.so_snd.sb_notes = noTasks;
  so.sol_upcall = null;
}

/** Adds a reference, for example for I/O in flight. @see socket(9) */
export function soref(so: Socket): void {
  so.so_count++;
}

/**
 * Releases a reference. The last one detaches the protocol and frees the buffers.
 * @see socket(9)
 */
export function sorele(so: Socket): void {
  KASSERT(so.so_count > 0, 'sorele: no references');
  if (--so.so_count !== 0) return;
  KASSERT((so.so_state & SS_NOFDREF) !== 0, 'sorele: last reference of an open socket');
  if (so.so_pcb !== null) so.so_proto.pr_detach(so);
  sbflush(so.so_snd);
  sbflush(so.so_rcv);
  soStats.current--;
}

function removeFrom(queue: Socket[], so: Socket): void {
  const i = queue.indexOf(so);
  if (i >= 0) queue.splice(i, 1);
}

/** Aborts and frees a connection that was never accepted. @see socket(9) */
export function soabort(so: Socket): void {
  inPass(abortInPass, so);
}

function abortInPass(so: Socket): void {
  const head = so.so_listen;
  if (head !== null) {
    removeFrom(head.sol_comp, so);
    removeFrom(head.sol_incomp, so);
    so.so_listen = null;
  }
  if (so.so_pcb !== null) so.so_proto.pr_abort(so);
  soupcallsOff(so);
  sorele(so);
}

/**
 * Closes a socket of a program. The protocol still sends the data in the send buffer. Connections
 * of a listener that were not accepted are aborted. The caller must not use `so` afterwards.
 * @see socket(9)
 */
export function soclose(so: Socket): Errno {
  return inPass(closeInPass, so);
}

function closeInPass(so: Socket): Errno {
  KASSERT((so.so_state & SS_NOFDREF) === 0, 'soclose: closed already');
  let error = 0;
  if ((so.so_options & SO_ACCEPTCONN) !== 0) {
    while (so.sol_incomp.length > 0) soabort(so.sol_incomp[0]!);
    while (so.sol_comp.length > 0) soabort(so.sol_comp[0]!);
  } else if ((so.so_state & SS_ISCONNECTED) !== 0 && (so.so_state & SS_ISDISCONNECTING) === 0) {
    error = so.so_proto.pr_disconnect(so);
  }
  if (so.so_pcb !== null) so.so_proto.pr_close(so);
  so.so_state |= SS_NOFDREF;
  soupcallsOff(so);
  // Wake the remaining waiters, so that their calls fail.
  sorwakeup(so);
  sowwakeup(so);
  sorele(so);
  return error;
}
