/**
 * Sockets, after sys/kern/uipc_socket.c: creation, listening, connecting, sending and receiving
 * bytes, shutdown, close, and what protocols tell a socket. Nothing sleeps: calls that would block
 * return EWOULDBLOCK (or EINPROGRESS for connect) and upcalls say when to try again. Left out:
 * accept filters, SIGIO, credentials. Options are in uipc_sockopt.ts.
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
import { count, R_SO_LISTEN_OVERFLOW } from '../sys/reason.ts';
import { type Uio, uiomove } from '../vm/uio.ts';
import { m_free, m_get } from './kern_mbuf.ts';
import { m_mbuftouio } from './m_copydata.ts';
import { type Mbuf, max_hdr, MCLBYTES, M_NOWAIT, M_PKTHDR, MT_DATA, mtod } from './mbuf.ts';
import {
  MSG_DONTWAIT,
  MSG_EOF,
  MSG_MORETOCOME,
  MSG_OOB,
  MSG_PEEK,
  PR_CONNREQUIRED,
  type Protosw,
  PRUS_EOF,
  PRUS_MORETOCOME,
  PRUS_OOB,
  PR_WANTRCVD,
  SOCK_STREAM,
} from './protosw.ts';
import type { Sockaddr } from './sockaddr.ts';
import {
  SBS_CANTRCVMORE,
  SBS_CANTSENDMORE,
  SBS_RCVATMARK,
  sbavail,
  sbdrop,
  sbflush,
  sbreserve,
  Sockbuf,
  sbspace,
  sowakeup,
} from './uipc_sockbuf.ts';
import { m_uiotombuf } from './m_uiotombuf.ts';
import type { Vnet } from './vnet.ts';

// so_state
export const SS_NOFDREF = 0x0001;
export const SS_ISCONNECTED = 0x0002;
export const SS_ISCONNECTING = 0x0004;
export const SS_ISDISCONNECTING = 0x0008;
export const SS_ISDISCONNECTED = 0x2000;
// so_options, and names of options at SOL_SOCKET that are switches; the others are in uipc_sockopt.ts
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

/** kern.ipc.somaxconn: the largest backlog. */
export const soParams = { somaxconn: 128 };

/** Sockets alive on the machine. */
export const soStats = { current: 0 };

/** @see socket(9) */
export class Socket implements Upcall {
  readonly so_vnet: Vnet;
  readonly so_proto: Protosw;
  readonly so_type: number;
  so_state = 0;
  so_options = 0;
  /** Linger time in seconds, with SO_LINGER; 0 closes with RST. */
  so_linger = 0;
  /** SO_USER_COOKIE, SO_TS_CLOCK and SO_MAX_PACING_RATE: kept, nothing here reads them. */
  so_user_cookie = 0;
  so_ts_clock = 0;
  so_max_pacing_rate = 0;
  /** Pending error, cleared when it is reported. */
  so_error: Errno = 0;
  /** The protocol's control block; null once detached. */
  so_pcb: object | null = null;
  readonly so_rcv = new Sockbuf();
  readonly so_snd = new Sockbuf();
  /** Bytes to read in front of urgent data, 0 if none is ahead. */
  so_oobmark = 0;
  /** References besides the descriptor: I/O in flight. */
  so_count = 1;
  /** Of a connection that is not accepted yet: its listener. */
  so_listen: Socket | null = null;
  /** Of a listener: embryonic and complete connections, and the limit on complete ones. */
  sol_qlimit = 0;
  readonly sol_incomp: Socket[] = [];
  readonly sol_comp: Socket[] = [];
  /** Of a listener: connections turned away because the queue was full. */
  sol_overcount = 0;
  /** Of a listener: called when a connection can be accepted. */
  sol_upcall: Task | null = null;
  /** The upcall waits for the end of the pass; it waits once. */
  upcallPending = false;
  /** Our identity for printing. */
  readonly so_id: number;
  /** Sendfile calls that hold or wait for the send side (sblock), the holder first. */
  readonly sndLock: Task[] = [];

  constructor(vnet: Vnet, proto: Protosw) {
    this.so_vnet = vnet;
    this.so_proto = proto;
    this.so_type = proto.pr_type;
    this.so_id = nextId++;
  }

  /** Of a listener: the program's turn, after the pass that asked for it. */
  upcall(): void {
    this.upcallPending = false;
    this.sol_upcall?.run();
  }
}

let nextId = 1;

/** The socket that `socreate` or `soaccept` made; set when they return 0. */
export const soResult: { so: Socket | null } = { so: null };

/**
 * Makes a socket; on 0 it is `soResult.so` and the caller owns it. EAFNOSUPPORT: this Vnet has no
 * such domain; EPROTOTYPE: the domain has no such type; EPROTONOSUPPORT: nor such a protocol.
 * @see socket(9) (there the socket is an out parameter)
 */
export function socreate(vnet: Vnet, domain: number, type: number, protocol: number): Errno {
  return newSocket(inPass(createInPass, vnet, domain, type, protocol));
}

/** Gives `so` to the caller by soResult; an errno is passed on. */
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

/** Sets what runs when `which` buffer wakes up. @see socket(9) */
export function soupcall_set(so: Socket, which: number, func: Task | null): void {
  (which === SO_RCV ? so.so_rcv : so.so_snd).sb_upcall = func;
}

/** @see socket(9) */
export function sobind(so: Socket, nam: Sockaddr): Errno {
  return inPass(bindInPass, so, nam);
}

function bindInPass(so: Socket, nam: Sockaddr): Errno {
  return so.so_proto.pr_bind(so, nam);
}

/** Starts to accept connections; `backlog` is clipped to kern.ipc.somaxconn. @see listen(2) */
export function solisten(so: Socket, backlog: number): Errno {
  return inPass(listenInPass, so, backlog);
}

function listenInPass(so: Socket, backlog: number): Errno {
  const busy = (so.so_state & (SS_ISCONNECTED | SS_ISCONNECTING | SS_ISDISCONNECTING)) !== 0;
  // A datagram socket is told that it cannot listen, connected or not.
  if (busy && (so.so_proto.pr_flags & PR_CONNREQUIRED) !== 0) return EINVAL;
  const limit = backlog < 0 || backlog > soParams.somaxconn ? soParams.somaxconn : backlog;
  const error = so.so_proto.pr_listen(so, limit);
  if (error !== 0) return error;
  so.so_options |= SO_ACCEPTCONN;
  so.sol_qlimit = limit;
  return 0;
}

/** Starts to connect. 0 means under way (or done, for datagrams): an upcall follows. @see socket(9) */
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
 * Takes the oldest complete connection off a listener; on 0 it is `soResult.so` and the caller owns
 * it. EWOULDBLOCK when there is none; ECONNABORTED: it was, but it is over already, and is gone, or
 * the listener was shut down.
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
export function solistenRoom(head: Socket): boolean {
  return head.sol_comp.length + head.sol_incomp.length <= Math.floor((3 * head.sol_qlimit) / 2);
}

/** A listener has a connection to accept: tells whoever waits. @see sys/kern/uipc_socket.c */
function solisten_wakeup(head: Socket): void {
  if (head.sol_upcall !== null && !head.upcallPending) {
    head.upcallPending = true;
    passUpcall(head);
  }
  sorwakeup(head);
}

/**
 * A connection arrived on `head`: returns its new socket, or null if the queue is full or the
 * protocol has no memory. `connstatus` is SS_ISCONNECTED or 0 (embryonic until soisconnected).
 * @see socket(9)
 */
export function sonewconn(head: Socket, connstatus: number): Socket | null {
  if (!solistenRoom(head)) {
    head.sol_overcount++;
    count(R_SO_LISTEN_OVERFLOW);
    return null;
  }
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

/** Data or an end of data arrived: wakes readers at the end of the pass. @see socket(9) */
export function sorwakeup(so: Socket): void {
  sowakeup(so.so_rcv);
}

/** Space was made: wakes writers at the end of the pass. @see socket(9) */
export function sowwakeup(so: Socket): void {
  sowakeup(so.so_snd);
}

/** Urgent data is announced: whoever waits for it should look. @see socket(9) */
export function sohasoutofband(so: Socket): void {
  sorwakeup(so);
}

/** Whether everything in front of the urgent data has been read: SIOCATMARK. @see sockatmark(3) */
export function soAtMark(so: Socket): boolean {
  return (so.so_rcv.sb_state & SBS_RCVATMARK) !== 0;
}

/** @see socket(9) */
export function soisconnecting(so: Socket): void {
  so.so_state &= ~(SS_ISCONNECTED | SS_ISDISCONNECTING);
  so.so_state |= SS_ISCONNECTING;
}

/** The handshake is done: an embryonic connection moves to its listener's queue. @see socket(9) */
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

/** The connection is over; unsent data is dropped. @see socket(9) */
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

/** Takes the pending error: 0 if none. SO_ERROR. */
export function soTakeError(so: Socket): Errno {
  const error = so.so_error;
  so.so_error = 0;
  return error;
}

/**
 * What forbids sending now: EPIPE, the pending error (taken), ENOTCONN, or 0.
 */
export function soSendError(so: Socket): Errno {
  if ((so.so_snd.sb_state & SBS_CANTSENDMORE) !== 0) return EPIPE;
  if (so.so_error !== 0) return soTakeError(so);
  if ((so.so_state & SS_ISCONNECTED) === 0 && (so.so_proto.pr_flags & PR_CONNREQUIRED) !== 0)
    return ENOTCONN;
  return 0;
}

/**
 * Sends from `uio` as much as fits, without waiting; `uio_resid` tells what is left. EWOULDBLOCK:
 * not even the low-water mark fitted. ENOBUFS: no mbufs. Waits behind a sendfile on the same
 * socket: EWOULDBLOCK. `flags`: MSG_OOB marks the last byte as urgent and may exceed the buffer a
 * little; MSG_EOF shuts down behind the last byte; MSG_MORETOCOME does not push yet.
 * @see socket(9)
 */
export function sosend(so: Socket, uio: Uio, nam: Sockaddr | null, flags: number): Errno {
  return inPass(sendInPass, so, uio, nam, flags);
}

function sendInPass(so: Socket, uio: Uio, nam: Sockaddr | null, flags: number): Errno {
  if (so.so_type !== SOCK_STREAM) return sosend_dgram(so, uio, nam);
  if (so.sndLock.length > 0) return soSendError(so) || EWOULDBLOCK;
  return sosendLocked(so, uio, flags);
}

/** How much urgent data may exceed the buffer, sys/kern/uipc_socket.c. */
const OOB_EXTRA = 1024;

/** `sosend` on a stream for whoever holds the send side. */
export function sosendLocked(so: Socket, uio: Uio, flags: number): Errno {
  const error = soSendError(so);
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
  return pr.pr_send(so, prus, top, null);
}

/** Sends one datagram whole. EMSGSIZE if it is larger than the send buffer. */
function sosend_dgram(so: Socket, uio: Uio, nam: Sockaddr | null): Errno {
  if ((so.so_snd.sb_state & SBS_CANTSENDMORE) !== 0) return EPIPE;
  if (so.so_error !== 0) return soTakeError(so);
  if (uio.uio_resid > so.so_snd.sb_hiwat) return EMSGSIZE;
  const top = m_uiotombuf(uio, M_NOWAIT, uio.uio_resid, max_hdr, M_PKTHDR);
  if (top === null) return ENOBUFS;
  return so.so_proto.pr_send(so, 0, top, nam);
}

/** Why there is nothing to read now: 0 is the end of data. With MSG_PEEK an error stays pending. */
function nothingToRead(so: Socket, uio: Uio, flags: number): Errno {
  const sb = so.so_rcv;
  if (so.so_error !== 0) return (flags & MSG_PEEK) !== 0 ? so.so_error : soTakeError(so);
  if ((sb.sb_state & SBS_CANTRCVMORE) !== 0) return 0;
  if ((so.so_state & (SS_ISCONNECTING | SS_ISCONNECTED | SS_ISDISCONNECTED)) === 0) return ENOTCONN;
  return uio.uio_resid === 0 ? 0 : EWOULDBLOCK;
}

/** The byte of urgent data that is kept beside the stream. @see sys/kern/uipc_socket.c */
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
 * Receives bytes of a stream into `uio`, as many as there are, up to urgent data if some is ahead. 0
 * with `uio_resid` unchanged: end of data. EWOULDBLOCK: none yet, or, without MSG_DONTWAIT, fewer
 * than were asked for and than SO_RCVLOWAT. ENOTCONN, or the pending error. `flags`: MSG_PEEK leaves
 * the bytes where they are; MSG_OOB: see pr_rcvoob.
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
  // What is urgent begins a new read, so that a program can tell where.
  if (so.so_oobmark > 0) len = Math.min(len, so.so_oobmark);
  m_mbuftouio(uio, sb.sb_mb, len);
  if ((flags & MSG_PEEK) === 0) {
    sb.sb_state &= ~SBS_RCVATMARK;
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
 * EINVAL: `how` is none of SHUT_*. ENOTCONN: there is no peer; of a listener whoever waits in accept
 * gets ECONNABORTED all the same, and datagrams are shut down, as programs rely on.
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
    sbflush(so.so_rcv);
    so.so_oobmark = 0;
    socantrcvmore(so);
  }
  if (how !== SHUT_RD) error = so.so_proto.pr_shutdown(so);
  return error !== 0 ? error : alone;
}

/** Ends the connection; what was sent still goes out. ENOTCONN; EALREADY: it is ending. @see socket(9) */
export function sodisconnect(so: Socket): Errno {
  return inPass(disconnectInPass, so);
}

function disconnectInPass(so: Socket): Errno {
  if ((so.so_state & SS_ISCONNECTED) === 0) return ENOTCONN;
  if ((so.so_state & SS_ISDISCONNECTING) !== 0) return EALREADY;
  return so.so_proto.pr_disconnect(so);
}

/** The program no longer hears of this socket. */
function soupcallsOff(so: Socket): void {
  so.so_rcv.sb_upcall = null;
  so.so_snd.sb_upcall = null;
  so.so_rcv.sb_notes.length = 0;
  so.so_snd.sb_notes.length = 0;
  so.sol_upcall = null;
}

/** A reference more, such as an I/O in flight holds. @see socket(9) */
export function soref(so: Socket): void {
  so.so_count++;
}

/** Drops a reference; the last one frees the buffers. @see socket(9) */
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

/** Throws away a connection that was never accepted. @see socket(9) */
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
 * The program closes its socket: what was sent still goes out, connections nobody accepted are
 * aborted. The caller's `so` is dead afterwards.
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
  // Whoever still waits has to see that there is nothing left to wait for.
  sorwakeup(so);
  sowwakeup(so);
  sorele(so);
  return error;
}
