/**
 * An emulated host that a test script drives: socket calls by descriptor, raw IP packets in and
 * out, and virtual time that the script advances. packetdrill's shared object uses it over a socket
 * (server.ts); our own runner calls it directly. It adds two things to the BSD calls of
 * src/api/bsd.ts: Linux's numbers in arguments and results (a result is a value or a negated
 * errno), and calls that wait on virtual time. Each host has its own Vnet; the caller owns the
 * machine. As on Linux, IPV6_V6ONLY of a new socket is off. Left out: descriptors other than sockets.
 */

import { EAFNOSUPPORT, EBADF, EINPROGRESS, EINVAL, EWOULDBLOCK, type Errno } from '../sys/errno.ts';
import type { Prng } from '../sys/prng.ts';
import type { InAddr } from '../sys/types.ts';
import { inAddr } from '../sys/types.ts';
import type { AddrWords } from '../sys/addr.ts';
import { Bsd, sockaddrIn } from '../api/bsd.ts';
import type { ManualClock } from '../host/manual_clock.ts';
import {
  AF_INET,
  AF_INET6,
  MSG_DONTWAIT,
  MSG_EOR,
  MSG_MORETOCOME,
  MSG_OOB,
  MSG_PEEK,
  SOCK_DGRAM,
  SOCK_STREAM,
} from '../kern/protosw.ts';
import { machineSysctl, type SysctlValue } from '../kern/kern_sysctl.ts';
import { sbavail, SBS_CANTRCVMORE, SBS_CANTSENDMORE, sbspace } from '../kern/uipc_sockbuf.ts';
import {
  SO_ACCEPTCONN,
  SO_LINGER,
  soAtMark,
  sodisconnect,
  type Socket,
  soTakeError,
  SS_ISCONNECTED,
  SS_ISCONNECTING,
} from '../kern/uipc_socket.ts';
import { soReceivedFrom } from '../kern/uipc_dgram.ts';
import { type Vnet, vnet_alloc } from '../kern/vnet.ts';
import { netAttach, netDetach } from '../net/net_attach.ts';
import { inAddrOf } from '../netinet/in.ts';
import { inet_domain_attach, inet_domain_detach } from '../netinet/in_proto.ts';
import { IN6_IS_ADDR_V4MAPPED } from '../netinet6/in6.ts';
import { inet6_domain_attach, inet6_domain_detach } from '../netinet6/in6_proto.ts';
import { in6_localip } from '../netinet6/in6_var.ts';
import { IPPROTO_IPV6 } from '../netinet6/ip6.ts';
import { IPV6_V6ONLY } from '../netinet6/ip6_ctloutput.ts';
import { in6AddrOf } from '../netinet6/ip6_pktopts.ts';
import { view } from '../kern/sockopt.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { V_ip } from '../netinet/ip_var.ts';
import { tcp_shutdownVnet } from '../netinet/tcp_pcblist.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass } from '../sys/pass.ts';
import {
  fromLinuxSockaddr,
  LINUX_AF_INET,
  LINUX_AF_INET6,
  LINUX_AF_UNSPEC,
  LINUX_ERRNO,
  LINUX_F_GETFL,
  LINUX_F_SETFL,
  LINUX_FIONBIO,
  LINUX_FIONREAD,
  LINUX_MSG_DONTWAIT,
  LINUX_MSG_EOR,
  LINUX_MSG_MORE,
  LINUX_MSG_NOSIGNAL,
  LINUX_MSG_OOB,
  LINUX_MSG_PEEK,
  LINUX_MSG_WAITALL,
  LINUX_O_NONBLOCK,
  LINUX_O_RDWR,
  LINUX_POLLERR,
  LINUX_POLLHUP,
  LINUX_POLLIN,
  LINUX_POLLNVAL,
  LINUX_POLLOUT,
  LINUX_POLLPRI,
  LINUX_SIOCATMARK,
  LINUX_TIOCOUTQ,
  linuxErrno,
  linuxFamily,
  linuxResult,
  toLinuxSockaddr,
} from './linux.ts';
import { linuxGetsockopt, linuxSetsockopt } from './sockopt.ts';
import { PacketdrillWire, type SentPacket } from './wire.ts';

/** The result of a call that has to wait. `takeStep` then returns the step to retry. */
export const PD_BLOCK = -0x10000;

/** Retries a waiting call. Returns its result, or PD_BLOCK. */
type PdStep = () => number;

/** Options of a host. */
interface PdHostOptions {
  readonly clock: ManualClock;
  readonly prng: Prng;
  /** The host's first addresses. */
  readonly addr: InAddr;
  readonly addr6: AddrWords;
  /** MTU in bytes. Default 1500. */
  readonly mtu?: number;
}

/** An entry of `poll`, as struct pollfd. */
export interface PdPollfd {
  readonly fd: number;
  readonly events: number;
  revents: number;
}

const MAX_EVENTS_PER_ADVANCE = 10_000_000;
const MSG_KNOWN =
  LINUX_MSG_OOB |
  LINUX_MSG_EOR |
  LINUX_MSG_PEEK |
  LINUX_MSG_DONTWAIT |
  LINUX_MSG_WAITALL |
  LINUX_MSG_NOSIGNAL |
  LINUX_MSG_MORE;

interface Waiter {
  readonly step: PdStep;
  readonly done: (result: number) => void;
}

export class PdHost {
  readonly clock: ManualClock;
  readonly vnet: Vnet;
  readonly wire: PacketdrillWire;
  /** The address returned by the last accept or recvfrom, in Linux's layout. */
  addressOut: Uint8Array = new Uint8Array(0);
  /** The value returned by the last getsockopt or ioctl. */
  valueOut: Uint8Array = new Uint8Array(0);
  readonly #bsd: Bsd;
  /** All open descriptors, each with its O_NONBLOCK flag. */
  readonly #nonblock = new Map<number, boolean>();
  #step: PdStep | null = null;
  #waiters: Waiter[] = [];
  readonly #sysctls = new Map<string, SysctlValue>();

  constructor(options: PdHostOptions) {
    this.clock = options.clock;
    this.vnet = vnet_alloc(options.prng);
    this.#bsd = new Bsd(this.vnet);
    const error =
      inPass(netAttach, this.vnet) ||
      inPass(inet_domain_attach, this.vnet) ||
      inPass(inet6_domain_attach, this.vnet);
    KASSERT(error === 0, 'PdHost: attach');
    this.wire = inPass((mtu) => new PacketdrillWire(this.vnet, mtu), options.mtu ?? 1500);
    this.wire.addAddress(options.addr);
    this.wire.addAddress6(options.addr6);
    for (const { name, set, setText, get } of machineSysctl.tree.list())
      if (set !== null || setText !== undefined) this.#sysctls.set(name, get());
  }

  /** Drops all connections and restores the machine's sysctls. */
  close(): void {
    this.#waiters = [];
    this.#bsd.closeAll();
    this.#nonblock.clear();
    tcp_shutdownVnet(this.vnet, 'rst');
    tcp_shutdownVnet(this.vnet, 'discard');
    inPass(() => {
      this.wire.detach();
      netDetach(this.vnet);
      inet6_domain_detach(this.vnet);
      inet_domain_detach(this.vnet);
    });
    for (const [name, value] of this.#sysctls) {
      const oid = machineSysctl.tree.find(name);
      if (oid !== undefined && oid.get() !== value) machineSysctl.tree.write(name, String(value));
    }
  }

  // Time and packets.

  get nowNs(): number {
    return this.clock.nowNs();
  }

  /** Advances the clock to `untilNs`, runs the timers that are due and continues waiting calls. */
  advanceTo(untilNs: number): void {
    for (let n = 0; n < MAX_EVENTS_PER_ADVANCE && this.clock.step(untilNs); n++) this.#wake();
    this.clock.advanceTo(untilNs);
    this.#wake();
  }

  /**
   * Removes and returns the oldest sent packet. Advances the clock up to `untilNs` until a packet
   * is sent. Returns null if none is sent by then, or if no timer is left.
   */
  receive(untilNs: number): SentPacket | null {
    this.#wake();
    for (let n = 0; this.wire.sent.length === 0 && n < MAX_EVENTS_PER_ADVANCE; n++) {
      if (!this.clock.step(untilNs)) return null;
      this.#wake();
    }
    return this.wire.sent.shift() ?? null;
  }

  /**
   * Receives a raw IP packet. Adds its destination to the host's addresses, because scripts use
   * arbitrary addresses.
   */
  inject(packet: Uint8Array): void {
    if (packet.length >= 20 && packet[0]! >>> 4 === 4) {
      const dst = inAddr(
        ((packet[16]! << 24) | (packet[17]! << 16) | (packet[18]! << 8) | packet[19]!) >>> 0,
      );
      this.#ownAddress(dst);
    } else if (packet.length >= 40 && packet[0]! >>> 4 === 6) {
      this.#ownAddress6(in6AddrOf(view(packet), 24));
    }
    this.wire.inject(packet);
    this.#wake();
  }

  #ownAddress(addr: InAddr): void {
    if (addr !== 0 && !V_ip(this.vnet).addrs.has(addr)) this.wire.addAddress(addr);
  }

  #ownAddress6(addr: AddrWords): void {
    if (!isAny(addr) && addr.w0 >>> 24 !== 0xff && !in6_localip(this.vnet, addr))
      this.wire.addAddress6(addr);
  }

  /** Adds the address that a script binds to. */
  #ownName(nam: Sockaddr): void {
    if (nam.family === AF_INET) this.#ownAddress(inAddrOf(nam));
    else if (IN6_IS_ADDR_V4MAPPED(nam)) this.#ownAddress(nam.w3 as InAddr);
    else this.#ownAddress6(nam);
  }

  // Calls that wait.

  /** Returns the step to retry after a call returned PD_BLOCK. */
  takeStep(): PdStep {
    const step = this.#step!;
    this.#step = null;
    return step;
  }

  /** Calls `done` with the result of `step` when it is no longer PD_BLOCK. */
  wait(step: PdStep, done: (result: number) => void): void {
    this.#waiters.push({ step, done });
  }

  get waiting(): number {
    return this.#waiters.length;
  }

  #wake(): void {
    if (this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      const result = waiter.step();
      if (result === PD_BLOCK) this.#waiters.push(waiter);
      else waiter.done(result);
    }
  }

  /** Runs `step`. If it returns PD_BLOCK, keeps it for `takeStep`. */
  #try(step: PdStep): number {
    const result = step();
    if (result === PD_BLOCK) this.#step = step;
    return result;
  }

  // Descriptors.

  /**
   * Records `fd`, a result of a BSD call, as open unless it is an error. Returns Linux's result.
   */
  #opened(fd: number, nonblock: boolean): number {
    if (fd >= 0) this.#nonblock.set(fd, nonblock);
    return linuxResult(fd);
  }

  /**
   * Ends a call: continues waiting calls that it may have unblocked. Returns Linux's result of `n`.
   */
  #done(n: number): number {
    this.#wake();
    return linuxResult(n);
  }

  /**
   * Calls `f` with the socket of `fd`. Returns 0 or its negated Linux errno; EBADF if `fd` is not
   * open.
   */
  #on(fd: number, f: (so: Socket) => Errno): number {
    const so = this.#bsd.socketOf(fd);
    const error = so === null ? EBADF : f(so);
    return this.#done(error === 0 ? 0 : -error);
  }

  // The calls.

  socket(domain: number, type: number, protocol: number): number {
    const nonblock = (type & LINUX_O_NONBLOCK) !== 0;
    type &= 0xf;
    const six = domain === LINUX_AF_INET6;
    if (domain !== LINUX_AF_INET && !six) return -LINUX_ERRNO['EAFNOSUPPORT']!;
    if (type !== SOCK_STREAM && type !== SOCK_DGRAM) return -LINUX_ERRNO['EPROTONOSUPPORT']!;
    const fd = this.#bsd.socket(six ? AF_INET6 : AF_INET, type, protocol);
    if (six && fd >= 0) this.#bsd.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    return this.#opened(fd, nonblock);
  }

  bind(fd: number, sa: Uint8Array): number {
    const nam = fromLinuxSockaddr(sa);
    if (nam === null) return this.#on(fd, () => EINVAL);
    this.#ownName(nam);
    return this.#done(this.#bsd.bind(fd, sockaddrIn(nam)));
  }

  listen(fd: number, backlog: number): number {
    return this.#done(this.#bsd.listen(fd, backlog));
  }

  accept(fd: number): number {
    const nonblock = this.#nonblock.get(fd) ?? false;
    return this.#try(() => {
      const n = this.#bsd.accept(fd);
      if (n === -EWOULDBLOCK && !nonblock) return PD_BLOCK;
      if (n >= 0) this.addressOut = this.#peerOf(n);
      return this.#opened(n, nonblock);
    });
  }

  #peerOf(fd: number): Uint8Array {
    const so = this.#bsd.socketOf(fd)!;
    return toLinuxSockaddr(so.so_proto.pr_peeraddr(so));
  }

  /** Connects. AF_UNSPEC disconnects a datagram socket. */
  connect(fd: number, sa: Uint8Array): number {
    if (linuxFamily(sa) === LINUX_AF_UNSPEC)
      return this.#on(fd, (so) => (so.so_type === SOCK_STREAM ? EAFNOSUPPORT : sodisconnect(so)));
    const so = this.#bsd.socketOf(fd);
    if (so === null) return -LINUX_ERRNO['EBADF']!;
    const nam = fromLinuxSockaddr(sa);
    if (nam === null) return -LINUX_ERRNO['EINVAL']!;
    const n = this.#bsd.connect(fd, sockaddrIn(nam));
    if (n !== -EINPROGRESS || this.#nonblock.get(fd)!) return linuxResult(n);
    return this.#try(() => {
      if ((so.so_state & SS_ISCONNECTING) !== 0 && so.so_error === 0) return PD_BLOCK;
      return -linuxErrno(soTakeError(so));
    });
  }

  /** `read`, `recv` and similar calls: receives into `buf`. Returns the number of bytes. */
  recv(fd: number, buf: Uint8Array, flags: number): number {
    const so = this.#bsd.socketOf(fd);
    if (so === null) return -LINUX_ERRNO['EBADF']!;
    const stream = so.so_type === SOCK_STREAM;
    const unknown = ~MSG_KNOWN | (stream ? 0 : LINUX_MSG_PEEK | LINUX_MSG_OOB);
    if ((flags & unknown) !== 0) return -LINUX_ERRNO['EOPNOTSUPP']!;
    const nonblock = this.#nonblock.get(fd)! || (flags & LINUX_MSG_DONTWAIT) !== 0;
    // Ignore MSG_WAITALL with MSG_PEEK and MSG_OOB: the data stays in the buffer and a retry would
    // read it twice.
    const peek = (flags & (LINUX_MSG_PEEK | LINUX_MSG_OOB)) !== 0;
    const all = stream && !peek && (flags & LINUX_MSG_WAITALL) !== 0;
    const how =
      ((flags & LINUX_MSG_PEEK) !== 0 ? MSG_PEEK : 0) |
      ((flags & LINUX_MSG_OOB) !== 0 ? MSG_OOB : 0) |
      (nonblock ? MSG_DONTWAIT : 0);
    let got = 0;
    return this.#try(() => {
      // As in FreeBSD, an error that ends the wait for the rest stays for the next call, SO_RCVLOWAT
      // applies to the first bytes, and a read ends at urgent data.
      if (got > 0 && so.so_error !== 0 && sbavail(so.so_rcv) === 0) return got;
      const n = this.#bsd.recv(fd, buf.subarray(got), got > 0 ? how | MSG_DONTWAIT : how);
      got += Math.max(n, 0);
      const more = all && n > 0 && got < buf.length && !soAtMark(so);
      if ((more || n === -EWOULDBLOCK) && !nonblock) return PD_BLOCK;
      if (n < 0) return got > 0 ? got : linuxResult(n);
      this.addressOut = stream ? this.#peerOf(fd) : toLinuxSockaddr(soReceivedFrom.name);
      return got;
    });
  }

  /**
   * `write`, `send` and similar calls: sends all of `data`, or, if nonblocking, what fits into the
   * buffer. `sa` empty: no address.
   */
  send(fd: number, data: Uint8Array, flags: number, sa: Uint8Array): number {
    if (this.#bsd.socketOf(fd) === null) return -LINUX_ERRNO['EBADF']!;
    if ((flags & ~MSG_KNOWN) !== 0) return -LINUX_ERRNO['EOPNOTSUPP']!;
    const nonblock = this.#nonblock.get(fd)! || (flags & LINUX_MSG_DONTWAIT) !== 0;
    const nam = fromLinuxSockaddr(sa);
    const to = nam === null ? null : sockaddrIn(nam);
    const how =
      ((flags & LINUX_MSG_MORE) !== 0 ? MSG_MORETOCOME : 0) |
      ((flags & LINUX_MSG_EOR) !== 0 ? MSG_EOR : 0) |
      ((flags & LINUX_MSG_OOB) !== 0 ? MSG_OOB : 0);
    let put = 0;
    return this.#try(() => {
      const n = this.#bsd.sendto(fd, data.subarray(put), how, to);
      // As in FreeBSD, return the error even if some data was buffered.
      if (n < 0 && n !== -EWOULDBLOCK) return linuxResult(n);
      put += Math.max(n, 0);
      if (put === data.length) return put;
      if (!nonblock) return PD_BLOCK;
      return put > 0 ? put : -linuxErrno(EWOULDBLOCK);
    });
  }

  shutdown(fd: number, how: number): number {
    return this.#done(this.#bsd.shutdown(fd, how));
  }

  closeFd(fd: number): number {
    const so = this.#bsd.socketOf(fd);
    // SO_LINGER with a time does not block close here: TCP sends the rest in the background.
    if (so !== null && so.so_linger > 0) so.so_options &= ~SO_LINGER;
    this.#nonblock.delete(fd);
    return this.#done(this.#bsd.close(fd));
  }

  /**
   * Reads an option into `valueOut`. `fd` -1: of the newest connection that is not accepted yet.
   */
  getsockopt(fd: number, level: number, name: number, len: number): number {
    const newest = fd === -1 ? this.#newest() : null;
    const call = (so: Socket): Errno => {
      const value = new Uint8Array(Math.max(len, 0));
      const n = linuxGetsockopt(so, level, name, value);
      if (n < 0) return -n;
      this.valueOut = value.subarray(0, n);
      return 0;
    };
    if (newest === null) return this.#on(fd, call);
    return -linuxErrno(call(newest));
  }

  #newest(): Socket | null {
    let newest: Socket | null = null;
    for (const fd of this.#nonblock.keys())
      newest = this.#bsd.socketOf(fd)!.sol_comp.at(-1) ?? newest;
    return newest;
  }

  setsockopt(fd: number, level: number, name: number, value: Uint8Array): number {
    return this.#on(fd, (so) => linuxSetsockopt(so, level, name, value));
  }

  fcntl(fd: number, cmd: number, arg: number): number {
    const nonblock = this.#nonblock.get(fd);
    if (nonblock === undefined) return -LINUX_ERRNO['EBADF']!;
    if (cmd === LINUX_F_GETFL) return LINUX_O_RDWR | (nonblock ? LINUX_O_NONBLOCK : 0);
    if (cmd !== LINUX_F_SETFL) return -LINUX_ERRNO['EINVAL']!;
    this.#nonblock.set(fd, (arg & LINUX_O_NONBLOCK) !== 0);
    return 0;
  }

  /** FIONREAD, TIOCOUTQ, FIONBIO, SIOCATMARK. The result is an int in `valueOut`. */
  ioctl(fd: number, request: number, arg: number): number {
    return this.#on(fd, (so) => {
      this.valueOut = new Uint8Array(4);
      const answer = new DataView(this.valueOut.buffer);
      switch (request) {
        case LINUX_FIONREAD:
          answer.setInt32(0, sbavail(so.so_rcv), true);
          return 0;
        case LINUX_TIOCOUTQ:
          answer.setInt32(0, sbavail(so.so_snd), true);
          return 0;
        case LINUX_SIOCATMARK:
          answer.setInt32(0, soAtMark(so) ? 1 : 0, true);
          return 0;
        case LINUX_FIONBIO:
          this.#nonblock.set(fd, arg !== 0);
          answer.setInt32(0, arg, true);
          return 0;
        default:
          return EINVAL;
      }
    });
  }

  /** Sets `revents` of each descriptor. Waits up to `timeoutMs`; if negative, without a limit. */
  poll(fds: readonly PdPollfd[], timeoutMs: number): number {
    const untilNs = timeoutMs < 0 ? Infinity : this.nowNs + timeoutMs * 1e6;
    const step = (): number => {
      let n = 0;
      for (const p of fds) {
        p.revents = this.#ready(p.fd, p.events);
        if (p.revents !== 0) n++;
      }
      return n > 0 || this.nowNs >= untilNs ? n : PD_BLOCK;
    };
    const result = this.#try(step);
    // Schedule an empty event, so that the clock stops at the end of the timeout.
    if (result === PD_BLOCK && untilNs !== Infinity) this.clock.schedule(untilNs, NOTHING);
    return result;
  }

  #ready(fd: number, events: number): number {
    if (fd < 0) return 0;
    const so = this.#bsd.socketOf(fd);
    if (so === null) return LINUX_POLLNVAL;
    const { so_rcv: rcv, so_snd: snd } = so;
    const eof = (rcv.sb_state & SBS_CANTRCVMORE) !== 0;
    const shut = (snd.sb_state & SBS_CANTSENDMORE) !== 0;
    const dead = so.so_error !== 0;
    let revents = 0;
    if ((so.so_options & SO_ACCEPTCONN) !== 0)
      return so.sol_comp.length > 0 ? events & LINUX_POLLIN : 0;
    if (sbavail(rcv) >= Math.max(rcv.sb_lowat, 1) || eof || dead) revents |= LINUX_POLLIN;
    const room = (so.so_state & SS_ISCONNECTED) !== 0 && sbspace(snd) >= snd.sb_lowat;
    if (room || shut || dead) revents |= LINUX_POLLOUT;
    if (so.so_oobmark > 0 || soAtMark(so)) revents |= LINUX_POLLPRI;
    revents &= events;
    if (dead) revents |= LINUX_POLLERR;
    if (eof && shut) revents = (revents & ~LINUX_POLLOUT) | LINUX_POLLHUP;
    return revents;
  }
}

const NOTHING = { run(): void {} };
const isAny = (a: AddrWords): boolean => (a.w0 | a.w1 | a.w2 | a.w3) === 0;
