/**
 * An emulated host that a test script drives: socket calls by descriptor, raw IPv4 packets in and
 * out, time that passes when told to. What packetdrill's shared object reaches over a socket
 * (server.ts) and what our own runner calls directly. Underneath are the BSD calls of
 * src/api/bsd.ts; what is added here is Linux's side of it (calls take and return Linux's numbers: a
 * result, or a negated errno) and calls that wait on virtual time. Each host is a Vnet of its own;
 * the machine is the caller's. Left out: IPv6, descriptors other than sockets.
 */

import { EAFNOSUPPORT, EBADF, EINPROGRESS, EINVAL, EWOULDBLOCK, type Errno } from '../sys/errno.ts';
import type { Prng } from '../sys/prng.ts';
import type { InAddr } from '../sys/types.ts';
import { inAddr } from '../sys/types.ts';
import { Bsd, sockaddrIn } from '../api/bsd.ts';
import type { ManualClock } from '../host/manual_clock.ts';
import {
  AF_INET,
  MSG_DONTWAIT,
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
import { V_ip } from '../netinet/ip_var.ts';
import { tcp_shutdownVnet } from '../netinet/tcp_pcblist.ts';
import { KASSERT } from '../sys/kassert.ts';
import { inPass } from '../sys/pass.ts';
import {
  fromLinuxSockaddr,
  LINUX_AF_INET,
  LINUX_AF_UNSPEC,
  LINUX_ERRNO,
  LINUX_F_GETFL,
  LINUX_F_SETFL,
  LINUX_FIONBIO,
  LINUX_FIONREAD,
  LINUX_MSG_DONTWAIT,
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

/** What a call returns that would sleep: `takeStep` gives what to try again. */
export const PD_BLOCK = -0x10000;

/** One more try of a call that waits: its result, or PD_BLOCK. */
export type PdStep = () => number;

/** What a host is made with. */
export interface PdHostOptions {
  readonly clock: ManualClock;
  readonly prng: Prng;
  /** Its first address. */
  readonly addr: InAddr;
  /** Bytes; default 1500. */
  readonly mtu?: number;
}

/** A descriptor to poll, as struct pollfd. */
export interface PdPollfd {
  readonly fd: number;
  readonly events: number;
  revents: number;
}

const MAX_EVENTS_PER_ADVANCE = 10_000_000;
const MSG_KNOWN =
  LINUX_MSG_OOB |
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
  /** The address that the last accept, recvfrom, … tells of, as Linux lays it out. */
  addressOut: Uint8Array = new Uint8Array(0);
  /** The value the last getsockopt or ioctl gave. */
  valueOut: Uint8Array = new Uint8Array(0);
  readonly #bsd: Bsd;
  /** Every open descriptor: whether its calls do not wait, O_NONBLOCK. */
  readonly #nonblock = new Map<number, boolean>();
  #step: PdStep | null = null;
  #waiters: Waiter[] = [];
  readonly #sysctls = new Map<string, SysctlValue>();

  constructor(options: PdHostOptions) {
    this.clock = options.clock;
    this.vnet = vnet_alloc(options.prng);
    this.#bsd = new Bsd(this.vnet);
    const error = inPass(netAttach, this.vnet) || inPass(inet_domain_attach, this.vnet);
    KASSERT(error === 0, 'PdHost: attach');
    this.wire = inPass((mtu) => new PacketdrillWire(this.vnet, mtu), options.mtu ?? 1500);
    this.wire.addAddress(options.addr);
    for (const { name, set, setText, get } of machineSysctl.tree.list())
      if (set !== null || setText !== undefined) this.#sysctls.set(name, get());
  }

  /** Ends all connections without a word, and puts the machine's sysctls back. */
  close(): void {
    this.#waiters = [];
    this.#bsd.closeAll();
    this.#nonblock.clear();
    tcp_shutdownVnet(this.vnet, 'rst');
    tcp_shutdownVnet(this.vnet, 'discard');
    inPass(() => {
      this.wire.detach();
      netDetach(this.vnet);
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

  /** Lets time pass until `untilNs`: timers run when they are due, calls that wait go on. */
  advanceTo(untilNs: number): void {
    for (let n = 0; n < MAX_EVENTS_PER_ADVANCE && this.clock.step(untilNs); n++) this.#wake();
    this.clock.advanceTo(untilNs);
    this.#wake();
  }

  /**
   * The oldest packet that left; time passes until there is one, to `untilNs` at most. Null: there
   * is none by then, or none will ever come.
   */
  receive(untilNs: number): SentPacket | null {
    this.#wake();
    for (let n = 0; this.wire.sent.length === 0 && n < MAX_EVENTS_PER_ADVANCE; n++) {
      if (!this.clock.step(untilNs)) return null;
      this.#wake();
    }
    return this.wire.sent.shift() ?? null;
  }

  /** A raw IPv4 packet arrives. Its destination is ours whatever it is: scripts choose at random. */
  inject(packet: Uint8Array): void {
    if (packet.length >= 20 && packet[0]! >>> 4 === 4) {
      const dst = inAddr(
        ((packet[16]! << 24) | (packet[17]! << 16) | (packet[18]! << 8) | packet[19]!) >>> 0,
      );
      this.#ownAddress(dst);
    }
    this.wire.inject(packet);
    this.#wake();
  }

  #ownAddress(addr: InAddr): void {
    if (addr !== 0 && !V_ip(this.vnet).addrs.has(addr)) this.wire.addAddress(addr);
  }

  // Calls that wait.

  /** What to try again after PD_BLOCK. */
  takeStep(): PdStep {
    const step = this.#step!;
    this.#step = null;
    return step;
  }

  /** Has `done` called with the result of `step` as soon as it has one. */
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

  /** The result of `step` now, or PD_BLOCK with the step left for `takeStep`. */
  #try(step: PdStep): number {
    const result = step();
    if (result === PD_BLOCK) this.#step = step;
    return result;
  }

  // Descriptors.

  /** Notes that `fd`, a result of the BSD calls, is open. */
  #opened(fd: number, nonblock: boolean): number {
    if (fd >= 0) this.#nonblock.set(fd, nonblock);
    return linuxResult(fd);
  }

  /** Ends a call that may let others go on: `n` as Linux has it. */
  #done(n: number): number {
    this.#wake();
    return linuxResult(n);
  }

  /** Runs `f` on the socket of `fd`; its errno negated, or 0. */
  #on(fd: number, f: (so: Socket) => Errno): number {
    const so = this.#bsd.socketOf(fd);
    const error = so === null ? EBADF : f(so);
    return this.#done(error === 0 ? 0 : -error);
  }

  // The calls.

  socket(domain: number, type: number, protocol: number): number {
    const nonblock = (type & LINUX_O_NONBLOCK) !== 0;
    type &= 0xf;
    if (domain !== LINUX_AF_INET) return -LINUX_ERRNO['EAFNOSUPPORT']!;
    if (type !== SOCK_STREAM && type !== SOCK_DGRAM) return -LINUX_ERRNO['EPROTONOSUPPORT']!;
    return this.#opened(this.#bsd.socket(AF_INET, type, protocol), nonblock);
  }

  bind(fd: number, sa: Uint8Array): number {
    const nam = fromLinuxSockaddr(sa);
    if (nam === null) return this.#on(fd, () => EINVAL);
    this.#ownAddress(inAddrOf(nam));
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

  /** AF_UNSPEC dissolves the association of a datagram socket. */
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

  /** `read` and its kin: bytes received into `buf`. */
  recv(fd: number, buf: Uint8Array, flags: number): number {
    const so = this.#bsd.socketOf(fd);
    if (so === null) return -LINUX_ERRNO['EBADF']!;
    const stream = so.so_type === SOCK_STREAM;
    const unknown = ~MSG_KNOWN | (stream ? 0 : LINUX_MSG_PEEK | LINUX_MSG_OOB);
    if ((flags & unknown) !== 0) return -LINUX_ERRNO['EOPNOTSUPP']!;
    const nonblock = this.#nonblock.get(fd)! || (flags & LINUX_MSG_DONTWAIT) !== 0;
    // What is only looked at stays in front: waiting for more of it would read it twice.
    const peek = (flags & (LINUX_MSG_PEEK | LINUX_MSG_OOB)) !== 0;
    const all = stream && !peek && (flags & LINUX_MSG_WAITALL) !== 0;
    const how =
      ((flags & LINUX_MSG_PEEK) !== 0 ? MSG_PEEK : 0) |
      ((flags & LINUX_MSG_OOB) !== 0 ? MSG_OOB : 0) |
      (nonblock ? MSG_DONTWAIT : 0);
    let got = 0;
    return this.#try(() => {
      const n = this.#bsd.recv(fd, buf.subarray(got), how);
      got += Math.max(n, 0);
      const more = all && n > 0 && got < buf.length;
      if ((more || n === -EWOULDBLOCK) && !nonblock) return PD_BLOCK;
      if (n < 0) return got > 0 ? got : linuxResult(n);
      this.addressOut = stream ? this.#peerOf(fd) : toLinuxSockaddr(soReceivedFrom.name);
      return got;
    });
  }

  /** `write` and its kin: all of `data` unless the descriptor does not wait. `sa`: empty for none. */
  send(fd: number, data: Uint8Array, flags: number, sa: Uint8Array): number {
    if (this.#bsd.socketOf(fd) === null) return -LINUX_ERRNO['EBADF']!;
    if ((flags & ~MSG_KNOWN) !== 0) return -LINUX_ERRNO['EOPNOTSUPP']!;
    const nonblock = this.#nonblock.get(fd)! || (flags & LINUX_MSG_DONTWAIT) !== 0;
    const nam = fromLinuxSockaddr(sa);
    const to = nam === null ? null : sockaddrIn(nam);
    const how =
      ((flags & LINUX_MSG_MORE) !== 0 ? MSG_MORETOCOME : 0) |
      ((flags & LINUX_MSG_OOB) !== 0 ? MSG_OOB : 0);
    let put = 0;
    return this.#try(() => {
      const n = this.#bsd.sendto(fd, data.subarray(put), how, to);
      // As in FreeBSD, an error counts even if the buffer has taken some of the data.
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
    // A close that lingers does not sleep here: what is left to send goes out by itself.
    if (so !== null && so.so_linger > 0) so.so_options &= ~SO_LINGER;
    this.#nonblock.delete(fd);
    return this.#done(this.#bsd.close(fd));
  }

  /** -1: of the newest connection that is not accepted yet. The answer is `valueOut`. */
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

  /** FIONREAD, TIOCOUTQ, FIONBIO, SIOCATMARK; an answer is `valueOut`, an int. */
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

  /** Readiness of each descriptor, in `revents`; waits `timeoutMs`, for ever if negative. */
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
    // Time stops at the end of the wait even if nothing else happens then.
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
