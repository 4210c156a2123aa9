/** A program on a simulated host: sends a seeded stream, verifies the received one, closes. */

import { expect } from 'chai';
import type { EventClock } from '../../src/host/manual_clock.ts';
import { below, type SeededPrng } from '../../src/host/prng.ts';
import { AF_INET, AF_INET6, SOCK_STREAM } from '../../src/kern/protosw.ts';
import type { Sockaddr } from '../../src/kern/sockaddr.ts';
import {
  SHUT_WR,
  SO_RCV,
  SO_SND,
  soaccept,
  sobind,
  soclose,
  soconnect,
  socreate,
  solisten,
  SO_LINGER,
  SO_REUSEADDR,
  soreceive,
  soResult,
  sosend,
  soshutdown,
  type Socket,
  SS_ISCONNECTING,
  soupcall_set,
} from '../../src/kern/uipc_socket.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { inSockaddr, parseInAddr } from '../../src/netinet/in.ts';
import { in6addr_any, in6Sockaddr, parseIn6 } from '../../src/netinet6/in6.ts';
import type { Task } from '../../src/sys/clock.ts';
import { type Errno, errnoName, EWOULDBLOCK, ENOBUFS } from '../../src/sys/errno.ts';
import { port } from '../../src/sys/types.ts';
import { UIO_READ, UIO_WRITE, Uio } from '../../src/vm/uio.ts';

export function sin(addr: string, n: number): Sockaddr {
  return inSockaddr(parseInAddr(addr)!, port(n));
}

/** A socket address of the family of `addr`. */
export function sockaddrOf(addr: string, n: number): Sockaddr {
  return addr.includes(':') ? in6Sockaddr(parseIn6(addr)!, port(n)) : sin(addr, n);
}

export function tcpSocket(vnet: Vnet, family = AF_INET): Socket {
  expect(socreate(vnet, family, SOCK_STREAM, 0)).to.equal(0);
  return soResult.so!;
}

export function listenOn(vnet: Vnet, n: number, backlog = 8, six = false): Socket {
  const so = tcpSocket(vnet, six ? AF_INET6 : AF_INET);
  so.so_options |= SO_REUSEADDR;
  const any = six ? in6Sockaddr(in6addr_any, port(n)) : sin('0.0.0.0', n);
  expect(sobind(so, any)).to.equal(0);
  expect(solisten(so, backlog)).to.equal(0);
  return so;
}

/** Byte `i` of the stream `key`. */
export function streamByte(key: number, i: number): number {
  return (Math.imul(i + 1, 0x9e3779b1) ^ Math.imul(key, 0x85ebca6b) ^ (i >>> 7)) >>> 24;
}

export interface Plan {
  /** Keys of the sent and the received stream, and the number of bytes to send. */
  readonly sendKey: number;
  readonly recvKey: number;
  readonly total: number;
  /** Largest write and read, bytes. */
  readonly chunk: number;
  /** Send our FIN only after the peer's FIN. */
  readonly closeLast: boolean;
  /** Read at most `bytes` bytes, then pause for `everyNs`. */
  readonly pace?: { readonly bytes: number; readonly everyNs: number };
  /** Close as soon as everything is written, without waiting for the peer's FIN. */
  readonly early?: boolean;
}

export class Endpoint implements Task {
  readonly so: Socket;
  readonly plan: Plan;
  readonly prng: SeededPrng;
  sent = 0;
  received = 0;
  eof = false;
  ended = false;
  closed = false;
  /** A description of the error, or '', and its errno if it has one. */
  error = '';
  errno: Errno = 0;
  /** Reads nothing while true. */
  stalled = false;
  #running = false;
  #again = false;
  readonly #uio = new Uio();
  readonly #buf: Uint8Array;
  readonly #clock: EventClock | null;
  #budget: number;
  readonly #refill: Task;

  /** @param clock needed for a plan with a pace */
  constructor(so: Socket, plan: Plan, prng: SeededPrng, clock: EventClock | null = null) {
    this.#clock = clock;
    this.#budget = plan.pace?.bytes ?? Infinity;
    this.#refill = {
      run: () => {
        this.#budget = plan.pace!.bytes;
        this.run();
      },
    };
    this.so = so;
    this.plan = plan;
    this.prng = prng;
    this.#buf = new Uint8Array(plan.chunk);
    soupcall_set(so, SO_RCV, this);
    soupcall_set(so, SO_SND, this);
  }

  get done(): boolean {
    return this.closed;
  }

  toString(): string {
    const { sent, received, eof, ended, error, plan } = this;
    return JSON.stringify({ sent, received, eof, ended, error, plan });
  }

  /** A socket call may call this again while it runs; then run one more turn. */
  run(): void {
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    do {
      this.#again = false;
      this.#turn();
    } while (this.#again);
    this.#running = false;
  }

  #turn(): void {
    if (this.closed || (this.so.so_state & SS_ISCONNECTING) !== 0) return;
    this.#read();
    this.#write();
    if (this.plan.early === true && this.sent === this.plan.total) {
      this.close();
      return;
    }
    const mayEnd = this.sent === this.plan.total && (!this.plan.closeLast || this.eof);
    if (mayEnd && !this.ended && this.error === '') {
      this.ended = true;
      this.#check(soshutdown(this.so, SHUT_WR), 'shutdown', this.eof);
    }
    if ((this.ended && this.eof) || this.error !== '') this.close();
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    soclose(this.so);
  }

  /** Closes with a RST, with data pending or not. */
  abort(): void {
    if (this.closed) return;
    this.so.so_options |= SO_LINGER;
    this.so.so_linger = 0;
    this.close();
  }

  #check(error: number, what: string, mayFail = false): boolean {
    if (error === 0) return true;
    if (error === EWOULDBLOCK || error === ENOBUFS || mayFail) return false;
    this.errno = error;
    this.error = `${what}: ${errnoName(error)} after ${this.sent} sent, ${this.received} received`;
    return false;
  }

  #read(): void {
    for (let n = 0; !this.eof && !this.stalled && this.#budget > 0; n++) {
      if (n === 10_000) {
        this.#again = true;
        return;
      }
      const len = Math.min(1 + below(this.prng, this.plan.chunk), this.#budget);
      const uio = this.#uio.single(this.#buf, 0, len, UIO_READ);
      if (!this.#check(soreceive(this.so, uio), 'receive')) return;
      const got = len - uio.uio_resid;
      if (got === 0) {
        this.eof = true;
        return;
      }
      for (let i = 0; i < got; i++) {
        if (this.#buf[i] === streamByte(this.plan.recvKey, this.received + i)) continue;
        this.error = `byte ${this.received + i} differs`;
        return;
      }
      this.received += got;
      this.#budget -= got;
      if (this.#budget === 0)
        this.#clock!.schedule(this.#clock!.nowNs() + this.plan.pace!.everyNs, this.#refill);
    }
  }

  #write(): void {
    for (let n = 0; this.sent < this.plan.total && this.error === ''; n++) {
      if (n === 10_000) {
        this.#again = true;
        return;
      }
      const len = Math.min(1 + below(this.prng, this.plan.chunk), this.plan.total - this.sent);
      for (let i = 0; i < len; i++) this.#buf[i] = streamByte(this.plan.sendKey, this.sent + i);
      const uio = this.#uio.single(this.#buf, 0, len, UIO_WRITE);
      if (!this.#check(sosend(this.so, uio, null, 0), 'send')) return;
      this.sent += len - uio.uio_resid;
    }
  }
}

/** Accepts every connection of a listener. */
export class Acceptor implements Task {
  readonly listener: Socket;
  readonly accepted: Socket[] = [];
  onAccept: ((so: Socket) => void) | null = null;

  constructor(listener: Socket) {
    this.listener = listener;
    listener.sol_upcall = this;
  }

  run(): void {
    while (soaccept(this.listener) === 0) {
      const so = soResult.so!;
      this.accepted.push(so);
      this.onAccept?.(so);
    }
  }
}

export function connectTo(so: Socket, addr: string, n: number): void {
  expect(soconnect(so, sockaddrOf(addr, n))).to.equal(0);
}
