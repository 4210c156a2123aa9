/**
 * BSD sockets by descriptor: the calls socket(2), bind(2), … on a stack. A call never waits. It
 * returns the result of the C call, or FreeBSD's errno negated. The `…Async` variant of a call
 * waits as on a blocking descriptor, and rejects with a TapnicError. Unlike FreeBSD, where a
 * waiting thread keeps a file that another thread closes: a call that waits on a closed descriptor
 * fails with EBADF. Left out: poll and select (use a kqueue), descriptors shared by processes,
 * control messages of streams, devices other than bpf(4).
 */

import type { Task } from '../sys/clock.ts';
import {
  EAFNOSUPPORT,
  EALREADY,
  EBADF,
  EFAULT,
  EINPROGRESS,
  EINVAL,
  EMFILE,
  ENOENT,
  ENOTCONN,
  ENOTTY,
  errnoError,
  type Errno,
  EWOULDBLOCK,
} from '../sys/errno.ts';
import { port as portOf } from '../sys/types.ts';
import {
  type Kevent,
  EV_ERROR,
  EV_RECEIPT,
  knote_fdclose,
  Kqueue,
  kqueue_close,
  kqueue_register,
  kqueue_scan,
} from '../kern/kern_event.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import {
  AF_INET6,
  IPPROTO_TCP,
  MSG_DONTWAIT,
  MSG_OOB,
  MSG_PEEK,
  MSG_TRUNC,
  MSG_WAITALL,
  SOCK_STREAM,
} from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { type Cmsg, takeCmsgs } from '../kern/cmsg.ts';
import { intBytes, Sockopt, SOPT_GET, SOPT_SET, view } from '../kern/sockopt.ts';
import { type ControlRef, ReceivedFrom, soReceivedFrom } from '../kern/uipc_dgram.ts';
import { ioResult, soRecv, soRecvDgram, soSend, soSendDgram } from '../kern/sys_generic.ts';
import { sbavail, type Sockbuf, sbRunWaiters, taskAdd, taskRemove } from '../kern/uipc_sockbuf.ts';
import { sogetopt, sosetopt } from '../kern/uipc_sockopt.ts';
import {
  SHUT_RDWR,
  SO_ACCEPTCONN,
  SO_LINGER,
  soaccept,
  soAtMark,
  sobind,
  soclose,
  soconnect,
  socreate,
  sodisconnect,
  type Socket,
  solisten,
  soResult,
  soshutdown,
  soTakeError,
  SS_ISCONNECTED,
  SS_ISCONNECTING,
} from '../kern/uipc_socket.ts';
import type { Vnet } from '../kern/vnet.ts';
import { BpfDesc, bpfReadResult } from '../net/bpf_desc.ts';
import { bpfioctl, bpfIoctls } from '../net/bpf_ioctl.ts';
import { bpfwrite } from '../net/bpf_write.ts';
import { inPass } from '../sys/pass.ts';
import { constants } from './constants.ts';
import { inAddrOf, inet_ntoa, inSockaddr, parseInAddr } from '../netinet/in.ts';
import { in6Ntop } from '../netinet6/in6.ts';
import { in6SockaddrOf, isIn6Text } from './address.ts';
import { TCP_INFO, TCP_INFO_SIZE, type TcpInfo, tcpInfoOf } from '../netinet/tcp_sockopt.ts';

/** An address as text, and a port: struct sockaddr_in, or struct sockaddr_in6 if it is of IPv6. */
export interface SockaddrIn {
  /** A dotted quad, or an IPv6 address. A call also accepts a zone in it: `fe80::1%tn0`. */
  readonly address: string;
  readonly port: number;
  /** IPv6 only. Has no effect, as on FreeBSD. */
  readonly sin6_flowinfo?: number;
  /** IPv6 only: the index of the interface of a link-local address or group. Default 0. */
  readonly sin6_scope_id?: number;
}

/** struct linger; seconds. */
export interface Linger {
  readonly l_onoff: number;
  readonly l_linger: number;
}

/** struct timeval. */
export interface Timeval {
  readonly tv_sec: number;
  readonly tv_usec: number;
}

/** The result of recvfrom. */
interface Received {
  /** The result of recv: bytes, or -errno. */
  readonly n: number;
  /** msg_flags: MSG_TRUNC or 0. */
  readonly flags: number;
  /** Null for a stream socket, and on an error. */
  readonly from: SockaddrIn | null;
}

/** The result of recvmsg. */
interface ReceivedMessage extends Received {
  /** The control messages that socket options such as IP_RECVTTL request. */
  readonly control: readonly Cmsg[];
}

/** The value of setsockopt: an int, a struct, a string such as an algorithm's name, or bytes. */
export type OptionValue = number | Linger | Timeval | string | Uint8Array;

/** A file of a descriptor. */
type File = Socket | Kqueue | BpfDesc;

/** Maximum number of descriptors of a table, kern.maxfilesperproc. */
const FD_MAX = 65_536;

function optionBytes(v: OptionValue): Uint8Array {
  if (typeof v === 'number') return intBytes(v);
  if (typeof v === 'string') return new TextEncoder().encode(`${v}\0`);
  if (v instanceof Uint8Array) return v;
  if ('l_onoff' in v) {
    const bytes = new Uint8Array(8);
    bytes.set(intBytes(v.l_onoff));
    bytes.set(intBytes(v.l_linger), 4);
    return bytes;
  }
  const bytes = new Uint8Array(16);
  view(bytes).setBigInt64(0, BigInt(v.tv_sec), true);
  view(bytes).setBigInt64(8, BigInt(v.tv_usec), true);
  return bytes;
}

const NO_BYTES = new Uint8Array();

function closeBpf(d: BpfDesc): void {
  d.close();
}

/** The result of a call: the errno negated; 0 instead of -0. */
function failed(error: Errno): number {
  return error === 0 ? 0 : -error;
}

/** Converts an address to the kernel's form; null if it is invalid, or its zone is unknown. */
function sockaddr(vnet: Vnet, a: SockaddrIn): Sockaddr | null {
  if (!Number.isInteger(a.port) || a.port < 0 || a.port > 65_535) return null;
  if (isIn6Text(a.address)) {
    const nam = in6SockaddrOf(vnet, a.address, a.port);
    if (nam === null) return null;
    nam.flowinfo = a.sin6_flowinfo ?? 0;
    nam.scope_id = a.sin6_scope_id || nam.scope_id;
    return nam;
  }
  const addr = parseInAddr(a.address);
  return addr === null ? null : inSockaddr(addr, portOf(a.port));
}

/** Converts the kernel's form of an address to text and port. */
export function sockaddrIn(a: Sockaddr): SockaddrIn {
  if (a.family !== AF_INET6) return { address: inet_ntoa(inAddrOf(a)), port: a.port };
  const { port, flowinfo: sin6_flowinfo, scope_id: sin6_scope_id } = a;
  return { address: in6Ntop(a), port, sin6_flowinfo, sin6_scope_id };
}

/** Resolves with 0 when the buffer wakes up, with EWOULDBLOCK after `timeoNs` (0: no time-out). */
function sbwait(sb: Sockbuf, timeoNs: number): Promise<Errno> {
  return new Promise((resolve) => {
    let timer: Callout | null = null;
    const waiter: Task = {
      run(): void {
        if (timer !== null) callout_stop(timer);
        resolve(0);
      },
    };
    sb.sb_waiters = taskAdd(sb.sb_waiters, waiter);
    if (timeoNs === 0) return;
    timer = new Callout({
      run(): void {
        sb.sb_waiters = taskRemove(sb.sb_waiters, waiter);
        resolve(EWOULDBLOCK);
      },
    });
    callout_reset(timer, timeoNs);
  });
}

/** Returns a result that is not negative; throws TapnicError for a negative one. */
function checked(n: number, call: string): number {
  if (n < 0) throw errnoError(-n, call);
  return n;
}

/** Whether the next receive on `so` fails: it was closed, or an error is pending and no data is left. */
const failsNext = (so: Socket | null): boolean =>
  so === null || (so.so_error !== 0 && sbavail(so.so_rcv) === 0);

/** A table of descriptors on a stack. */
export class Bsd {
  /** FreeBSD's numbers by name: AF_INET, SO_LINGER, EVFILT_READ, … */
  readonly constants = constants;
  readonly #vnet: Vnet;
  readonly #files = new Map<number, File>();
  /** The requests of ioctl by name: BIOCSETIF, … */
  readonly ioctls = bpfIoctls;
  /** All descriptors below this one are in use. */
  #next = 3;

  constructor(vnet: Vnet) {
    this.#vnet = vnet;
  }

  /**
   * Installs `file` at the lowest free descriptor. -EMFILE: the table is full; `file` is closed.
   */
  #install(file: File): number {
    let fd = this.#next;
    while (this.#files.has(fd)) fd++;
    if (fd >= FD_MAX) {
      if (file instanceof BpfDesc) file.close();
      else if (!(file instanceof Kqueue)) soclose(file);
      return -EMFILE;
    }
    this.#files.set(fd, file);
    this.#next = fd + 1;
    return fd;
  }

  #remove(fd: number): void {
    this.#files.delete(fd);
    this.#next = Math.min(this.#next, fd);
    for (const file of this.#files.values()) if (file instanceof Kqueue) knote_fdclose(file, fd);
  }

  /** The socket of a descriptor; null if it is not open or not a socket. */
  socketOf(s: number): Socket | null {
    const file = this.#files.get(s);
    return file instanceof Kqueue || file instanceof BpfDesc ? null : (file ?? null);
  }

  /** @see socket(2) */
  socket(domain: number, type: number, protocol = 0): number {
    const error = socreate(this.#vnet, domain, type, protocol);
    return error !== 0 ? -error : this.#install(soResult.so!);
  }

  /** @see bind(2) */
  bind(s: number, addr: SockaddrIn): number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    const nam = sockaddr(this.#vnet, addr);
    return nam === null ? -EAFNOSUPPORT : failed(sobind(so, nam));
  }

  /** @see listen(2) */
  listen(s: number, backlog: number): number {
    const so = this.socketOf(s);
    return so === null ? -EBADF : failed(solisten(so, backlog));
  }

  /** The descriptor of a new connection; -EWOULDBLOCK: none is complete. @see accept(2) */
  accept(s: number): number {
    const head = this.socketOf(s);
    if (head === null) return -EBADF;
    const error = soaccept(head);
    return error !== 0 ? -error : this.#install(soResult.so!);
  }

  /**
   * Waits for a buffer of `s`. EWOULDBLOCK: time-out. EBADF: `s` was closed, and possibly reused.
   */
  async #wait(s: number, so: Socket, sb: Sockbuf, timeoNs: number): Promise<Errno> {
    const error = await sbwait(sb, timeoNs);
    return this.#files.get(s) === so ? error : EBADF;
  }

  /**
   * Waits for a connection. ECONNABORTED: a connection ended before it was accepted, or the
   * listener was shut down.
   */
  async acceptAsync(s: number): Promise<number> {
    for (;;) {
      const n = this.accept(s);
      if (n !== -EWOULDBLOCK) return checked(n, 'accept');
      const so = this.socketOf(s)!;
      const error = await this.#wait(s, so, so.so_rcv, so.so_rcv.sb_timeo);
      if (error !== 0) throw errnoError(error, 'accept');
    }
  }

  /**
   * 0: connected. -EINPROGRESS: connecting, EVFILT_WRITE reports the end. -EALREADY: was connecting
   * already.
   * @see connect(2)
   */
  connect(s: number, addr: SockaddrIn): number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    const nam = sockaddr(this.#vnet, addr);
    if (nam === null) return -EAFNOSUPPORT;
    if ((so.so_state & SS_ISCONNECTING) !== 0) return -EALREADY;
    const error = soconnect(so, nam);
    if (error !== 0) return -error;
    if ((so.so_state & SS_ISCONNECTING) !== 0) return -EINPROGRESS;
    return failed(soTakeError(so));
  }

  /** Connects; waits until the handshake ends. */
  async connectAsync(s: number, addr: SockaddrIn): Promise<void> {
    const n = this.connect(s, addr);
    if (n !== -EINPROGRESS) {
      checked(n, 'connect');
      return;
    }
    const so = this.socketOf(s)!;
    let error: Errno = 0;
    while (error === 0 && (so.so_state & SS_ISCONNECTING) !== 0 && so.so_error === 0)
      error = await this.#wait(s, so, so.so_snd, 0);
    checked(failed(error !== 0 ? error : soTakeError(so)), 'connect');
  }

  /**
   * The number of bytes sent, less than the length of `buf` if the send buffer is full.
   * -EWOULDBLOCK: no room.
   * @see send(2)
   */
  send(s: number, buf: Uint8Array, flags = 0): number {
    return this.sendto(s, buf, flags, null);
  }

  /** Like `send`; a datagram is sent to `addr`. @see sendto(2) */
  sendto(s: number, buf: Uint8Array, flags: number, addr: SockaddrIn | null): number {
    return this.sendmsg(s, buf, flags, addr, []);
  }

  /**
   * Like `sendto`, with control messages: IP_SENDSRCADDR and IP_TOS for UDP, IPV6_PKTINFO and others for
   * UDP and raw sockets of AF_INET6. A raw socket of AF_INET ignores them; a stream has none (EINVAL).
   * @see sendmsg(2), ip(4), ip6(4)
   */
  sendmsg(
    s: number,
    buf: Uint8Array,
    flags: number,
    addr: SockaddrIn | null,
    control: readonly Cmsg[],
  ): number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    if (!(buf instanceof Uint8Array)) return -EFAULT;
    const nam = addr === null ? null : sockaddr(this.#vnet, addr);
    if (addr !== null && nam === null) return -EAFNOSUPPORT;
    if (so.so_type === SOCK_STREAM) {
      if (control.length > 0) return -EINVAL;
      const error = soSend(so, buf, 0, buf.length, flags, nam);
      return error !== 0 ? -error : ioResult.n;
    }
    const error = soSendDgram(so, buf, 0, buf.length, nam, control.length > 0 ? control : null);
    return error !== 0 ? -error : buf.length;
  }

  /** Sends all of `buf`, or less if SO_SNDTIMEO expires. */
  async sendAsync(s: number, buf: Uint8Array, flags = 0): Promise<number> {
    let sent = 0;
    for (;;) {
      const n = this.send(s, buf.subarray(sent), flags);
      if (n < 0 && n !== -EWOULDBLOCK) throw errnoError(-n, 'send');
      sent += Math.max(n, 0);
      if ((sent === buf.length && n >= 0) || (flags & MSG_DONTWAIT) !== 0) {
        if (n < 0 && sent === 0) throw errnoError(-n, 'send');
        return sent;
      }
      if (n >= 0) continue;
      const so = this.socketOf(s)!;
      const error = await this.#wait(s, so, so.so_snd, so.so_snd.sb_timeo);
      if (error === 0) continue;
      if (error === EWOULDBLOCK && sent > 0) return sent;
      throw errnoError(error, 'send');
    }
  }

  /** The number of bytes stored in `buf`; 0: end of data. -EWOULDBLOCK: no data. @see recv(2) */
  recv(s: number, buf: Uint8Array, flags = 0): number {
    return this.#recv(s, buf, flags, soReceivedFrom);
  }

  #recv(
    s: number,
    buf: Uint8Array,
    flags: number,
    from: ReceivedFrom,
    controlp: ControlRef | null = null,
  ): number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    if (!(buf instanceof Uint8Array)) return -EFAULT;
    const error =
      so.so_type === SOCK_STREAM
        ? soRecv(so, buf, 0, buf.length, flags)
        : soRecvDgram(so, buf, 0, buf.length, flags, from, controlp);
    return error !== 0 ? -error : ioResult.n;
  }

  /**
   * Like `recv`, and returns the sender of a datagram. MSG_TRUNC in the returned `flags`: the
   * datagram was longer than `buf`. @see recvfrom(2), recvmsg(2)
   */
  recvfrom(s: number, buf: Uint8Array, flags = 0): Received {
    return this.#recvmsg(s, buf, flags, null);
  }

  /** Like `recvfrom`, and returns the control messages of a datagram. @see recvmsg(2), ip(4) */
  recvmsg(s: number, buf: Uint8Array, flags = 0): ReceivedMessage {
    const control: ControlRef = { m: null };
    const received = this.#recvmsg(s, buf, flags, control);
    return { ...received, control: takeCmsgs(control.m) };
  }

  #recvmsg(s: number, buf: Uint8Array, flags: number, control: ControlRef | null): Received {
    const sender = new ReceivedFrom();
    const stream = this.socketOf(s)?.so_type === SOCK_STREAM;
    const n = this.#recv(s, buf, flags, sender, control);
    if (n < 0 || stream) return { n, flags: 0, from: null };
    const from = sockaddrIn(sender.name);
    return { n, flags: sender.len > buf.length ? MSG_TRUNC : 0, from };
  }

  /** Waits for data; with MSG_WAITALL until `buf` is full, the data ends or urgent data is next. */
  async recvAsync(s: number, buf: Uint8Array, flags = 0): Promise<number> {
    let got = 0;
    const all =
      (flags & MSG_WAITALL) !== 0 &&
      (flags & (MSG_PEEK | MSG_OOB | MSG_DONTWAIT)) === 0 &&
      this.socketOf(s)?.so_type === SOCK_STREAM;
    for (;;) {
      // Leave an error that ends the wait for the rest to the next call.
      if (got > 0 && failsNext(this.socketOf(s))) return got;
      // SO_RCVLOWAT applies to the first bytes.
      const n = this.recv(s, buf.subarray(got), got > 0 ? flags | MSG_DONTWAIT : flags);
      if (n >= 0) got += n;
      else if (n !== -EWOULDBLOCK) throw errnoError(-n, 'recv');
      const so = this.socketOf(s)!;
      const done = n === 0 || got === buf.length || soAtMark(so);
      if (n >= 0 && (done || !all)) return got;
      if ((flags & (MSG_DONTWAIT | MSG_OOB)) !== 0) throw errnoError(EWOULDBLOCK, 'recv');
      if (n >= 0) continue;
      const error = await this.#wait(s, so, so.so_rcv, so.so_rcv.sb_timeo);
      if (error === 0) continue;
      if (got > 0) return got;
      throw errnoError(error, 'recv');
    }
  }

  /** @see shutdown(2) */
  shutdown(s: number, how = SHUT_RDWR): number {
    const so = this.socketOf(s);
    return so === null ? -EBADF : failed(soshutdown(so, how));
  }

  /** Closes a socket, a kqueue or a device. TCP still sends the data in the send buffer. @see close(2) */
  close(fd: number): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -EBADF;
    this.#remove(fd);
    if (file instanceof BpfDesc) inPass(closeBpf, file);
    else if (file instanceof Kqueue) kqueue_close(file);
    else return failed(soclose(file));
    return 0;
  }

  /**
   * Like `close`; with SO_LINGER waits until all data is acknowledged, at most l_linger seconds.
   */
  async closeAsync(fd: number): Promise<void> {
    const so = this.socketOf(fd);
    const lingers = so !== null && (so.so_options & SO_LINGER) !== 0 && so.so_linger > 0;
    if (!lingers || (so.so_state & SS_ISCONNECTED) === 0) {
      checked(this.close(fd), 'close');
      return;
    }
    this.#remove(fd);
    sodisconnect(so);
    const limit = { late: false };
    const timer = new Callout({
      run(): void {
        limit.late = true;
        sbRunWaiters(so.so_snd);
      },
    });
    callout_reset(timer, so.so_linger * 1e9);
    while ((so.so_state & SS_ISCONNECTED) !== 0 && !limit.late) await sbwait(so.so_snd, 0);
    callout_stop(timer);
    soclose(so);
  }

  /** The local address, or -errno. @see getsockname(2) */
  getsockname(s: number): SockaddrIn | number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    const name = so.so_pcb === null ? null : so.so_proto.pr_sockaddr(so);
    return name === null ? -EINVAL : sockaddrIn(name);
  }

  /** The peer's address, or -errno. @see getpeername(2) */
  getpeername(s: number): SockaddrIn | number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    if ((so.so_state & SS_ISCONNECTED) === 0 || so.so_pcb === null) return -ENOTCONN;
    const name = so.so_proto.pr_peeraddr(so);
    return name === null ? -ENOTCONN : sockaddrIn(name);
  }

  /** @see setsockopt(2) */
  setsockopt(s: number, level: number, name: number, value: OptionValue): number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    return failed(sosetopt(so, new Sockopt(SOPT_SET, level, name, optionBytes(value))));
  }

  /** Reads an option into `value`. Returns the number of bytes stored. @see getsockopt(2) */
  getsockoptBytes(s: number, level: number, name: number, value: Uint8Array): number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    const sopt = new Sockopt(SOPT_GET, level, name, value);
    const error = sogetopt(so, sopt);
    return error !== 0 ? -error : sopt.sopt_valsize;
  }

  /** The value of an int option, which is never negative, or -errno. @see getsockopt(2) */
  getsockopt(s: number, level: number, name: number): number {
    const bytes = new Uint8Array(4);
    const n = this.getsockoptBytes(s, level, name, bytes);
    return n < 0 ? n : view(bytes).getInt32(0, true);
  }

  /** TCP_INFO, or -errno. */
  tcpInfo(s: number): TcpInfo | number {
    const bytes = new Uint8Array(TCP_INFO_SIZE);
    const n = this.getsockoptBytes(s, IPPROTO_TCP, TCP_INFO, bytes);
    return n < 0 ? n : tcpInfoOf(bytes);
  }

  /** 1: the next byte to read is urgent; 0: it is not. @see sockatmark(3) */
  sockatmark(s: number): number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    return soAtMark(so) ? 1 : 0;
  }

  /** FIONREAD: bytes that can be read now; for a listener, connections to accept. */
  nread(s: number): number {
    const so = this.socketOf(s);
    if (so === null) return -EBADF;
    const { so_rcv: sb } = so;
    return (so.so_options & SO_ACCEPTCONN) !== 0 ? so.sol_comp.length : sbavail(sb) - sb.sb_ctl;
  }

  /** Opens `/dev/bpf`; -ENOENT for any other path. @see open(2), bpf(4) */
  open(path: string): number {
    return /^\/dev\/bpf0?$/.test(path) ? this.#install(new BpfDesc(this.#vnet)) : -ENOENT;
  }

  #bpf(fd: number): BpfDesc | null {
    const file = this.#files.get(fd);
    return file instanceof BpfDesc ? file : null;
  }

  /**
   * A request to a descriptor of bpf(4), by FreeBSD's name or number. `arg` is the struct as on amd64,
   * which the request may write; a number is an int that is only read, a string a name of an interface.
   * @see ioctl(2), bpf(4)
   */
  ioctl(fd: number, what: string | number, arg: Uint8Array | number | string = NO_BYTES): number {
    const d = this.#bpf(fd);
    if (d === null) return this.#files.has(fd) ? -ENOTTY : -EBADF;
    if (typeof arg === 'number') return failed(inPass(bpfioctl, d, what, intBytes(arg)));
    const bytes = typeof arg === 'string' ? new TextEncoder().encode(`${arg}\0`) : arg;
    return bytes instanceof Uint8Array ? failed(inPass(bpfioctl, d, what, bytes)) : -EFAULT;
  }

  /**
   * Reads the packets of a buffer of bpf(4) into `buf`, which must have its size (BIOCGBLEN); recv on a
   * socket. -EWOULDBLOCK: no data.
   * @see read(2)
   */
  read(fd: number, buf: Uint8Array): number {
    const d = this.#bpf(fd);
    if (d === null) return this.recv(fd, buf);
    if (!(buf instanceof Uint8Array)) return -EFAULT;
    const error = d.read(buf);
    return error !== 0 ? -error : bpfReadResult.n;
  }

  /** Waits for data. 0: the time-out of bpf(4) passed, or a stream ended. */
  async readAsync(fd: number, buf: Uint8Array): Promise<number> {
    const d = this.#bpf(fd);
    if (d === null) return this.recvAsync(fd, buf);
    const error = await d.readWaiting(buf);
    return checked(error !== 0 ? -error : bpfReadResult.n, 'read');
  }

  /** Sends one packet through bpf(4); send on a socket. @see write(2) */
  write(fd: number, buf: Uint8Array): number {
    const d = this.#bpf(fd);
    if (d === null) return this.send(fd, buf);
    if (!(buf instanceof Uint8Array)) return -EFAULT;
    const error = inPass(bpfwrite, d, buf);
    return error !== 0 ? -error : buf.length;
  }

  /** @see kqueue(2) */
  kqueue(): number {
    return this.#install(new Kqueue());
  }

  /**
   * Applies `changes`, then returns at most `nevents` events. A change that fails is returned as an
   * event with EV_ERROR and the errno as data; if there is no room for it, the result is -errno.
   * @see kevent(2)
   */
  kevent(fd: number, changes: readonly Partial<Kevent>[], nevents: number): Kevent[] | number {
    const kq = this.#files.get(fd);
    if (!(kq instanceof Kqueue)) return -EBADF;
    const errors: Kevent[] = [];
    for (const change of changes) {
      const kev = { ident: 0, filter: 0, flags: 0, fflags: 0, data: 0, udata: null, ...change };
      const file = this.#files.get(kev.ident);
      const error =
        file === undefined || file instanceof Kqueue ? EBADF : kqueue_register(kq, kev, file);
      if (error === 0 && (kev.flags & EV_RECEIPT) === 0) continue;
      if (errors.length >= nevents) return error === 0 ? errors : -error;
      errors.push({ ...kev, flags: EV_ERROR, data: error });
    }
    return errors.length > 0 ? errors : kqueue_scan(kq, nevents);
  }

  /** Like `kevent`, but waits for an event. Resolves with an empty array after `timeoutMs`. */
  async keventAsync(
    fd: number,
    changes: readonly Partial<Kevent>[],
    nevents: number,
    timeoutMs = Infinity,
  ): Promise<Kevent[]> {
    let events = this.kevent(fd, changes, nevents);
    const kq = this.#files.get(fd) as Kqueue;
    const limit = { late: timeoutMs <= 0 };
    const waiter: Task = { run(): void {} };
    const timer = new Callout({
      run(): void {
        limit.late = true;
        const at = kq.kq_waiters.indexOf(waiter);
        if (at >= 0) kq.kq_waiters.splice(at, 1);
        waiter.run();
      },
    });
    if (timeoutMs > 0 && timeoutMs !== Infinity) callout_reset(timer, timeoutMs * 1e6);
    while (typeof events !== 'number' && events.length === 0 && !limit.late) {
      await new Promise<void>((resolve) => {
        waiter.run = resolve;
        kq.kq_waiters.push(waiter);
      });
      events = this.#files.get(fd) === kq ? this.kevent(fd, [], nevents) : -EBADF;
    }
    callout_stop(timer);
    if (typeof events === 'number') throw errnoError(-events, 'kevent');
    return events;
  }

  /** Closes all descriptors, as at the exit of a process. */
  closeAll(): void {
    for (const fd of this.#files.keys()) this.close(fd);
  }
}
