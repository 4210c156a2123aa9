/**
 * A TCP connection of the emulated host as a stream.Duplex, with the part of net.Socket's interface
 * that node:http, node:tls and common programs use, and `sendfile`. Left out: out-of-band data,
 * `allowHalfOpen: false` (it is always true, as for BSD sockets).
 */

import { Duplex } from 'node:stream';
import type { Task } from '../sys/clock.ts';
import { EINVAL, EPIPE, EWOULDBLOCK, errnoError, type Errno, TapnicError } from '../sys/errno.ts';
import { inPass, passUpcall, type Upcall } from '../sys/pass.ts';
import { File } from '../kern/kern_descrip.ts';
import { sendfile, type SfHdtr } from '../kern/kern_sendfile.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import { AF_INET, IPPROTO_TCP } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { ioResult, soRead, soWrite } from '../kern/sys_generic.ts';
import {
  SHUT_WR,
  SO_KEEPALIVE,
  SO_LINGER,
  SO_RCV,
  SO_SND,
  soclose,
  type Socket,
  soshutdown,
  soTakeError,
  soupcall_set,
  SS_ISCONNECTED,
  SS_ISDISCONNECTED,
} from '../kern/uipc_socket.ts';
import { sbavail } from '../kern/uipc_sockbuf.ts';
import { SOL_SOCKET, soSetInt } from '../kern/uipc_sockopt.ts';
import { TCP_KEEPIDLE, TCP_NODELAY } from '../netinet/tcp_sockopt.ts';
import { inAddrOf, inet_ntoa } from '../netinet/in.ts';

/** Largest chunk of a 'data' event, bytes. */
const READ_MAX = 65536;

type WriteDone = (error?: Error | null) => void;

/** The part of a file to send. */
export interface SendfileOptions {
  /** Offset of the first byte; default 0. */
  offset?: number;
  /** Number of bytes; default 0: up to the end of the file at the time of sending. */
  nbytes?: number;
  /** Headers and trailers: bytes to send before and after the file. */
  hdtr?: SfHdtr;
  /** SF_* flags; default 0. */
  flags?: number;
}

/** Throws TapnicError EINVAL if `file` is not a File or a number is not a safe integer. */
function checkSendfile(file: File, options: SendfileOptions): void {
  if (!(file instanceof File))
    throw errnoError(EINVAL, 'sendfile', 'the file must be a result of openFile');
  for (const name of ['offset', 'nbytes', 'flags'] as const)
    if (!Number.isSafeInteger(options[name] ?? 0))
      throw errnoError(EINVAL, 'sendfile', `${name} must be an integer`);
}

/** A connection. `connect` and TcpServer create it. */
export class TcpSocket extends Duplex {
  /** The BSD socket; null once closed. */
  #so: Socket | null;
  #local: Sockaddr | null = null;
  #peer: Sockaddr | null = null;
  readonly #onReadable: Task = { run: () => this.#readable() };
  readonly #rest: Upcall = { upcall: () => this.#readMore() };
  readonly #onWritable: Task = { run: () => this.#writable() };
  #wantRead = false;
  #ended = false;
  // The write in progress, and its callback.
  #chunk: Uint8Array | null = null;
  #chunkOff = 0;
  #chunkDone: WriteDone | null = null;
  #pumping = false;
  #connectDone: ((error: Errno) => void) | null = null;
  #timeoutMs = 0;
  #timer: Callout | null = null;
  #sendfiles = 0;
  bytesRead = 0;
  bytesWritten = 0;

  /** Takes ownership of `so`, which is connected or connecting. */
  constructor(so: Socket) {
    super({ allowHalfOpen: true, autoDestroy: true, emitClose: true });
    this.#so = so;
    soupcall_set(so, SO_RCV, this.#onReadable);
    soupcall_set(so, SO_SND, this.#onWritable);
    this.#remember();
  }

  #remember(): void {
    const so = this.#so;
    if (so === null || so.so_pcb === null) return;
    this.#local = so.so_proto.pr_sockaddr(so);
    this.#peer = so.so_proto.pr_peeraddr(so);
  }

  get connecting(): boolean {
    return this.#connectDone !== null;
  }

  get remoteAddress(): string | undefined {
    return this.#peer === null ? undefined : addressText(this.#peer);
  }

  get remotePort(): number | undefined {
    return this.#peer?.port;
  }

  get remoteFamily(): string | undefined {
    return this.#peer === null ? undefined : familyText(this.#peer);
  }

  get localAddress(): string | undefined {
    return this.#local === null ? undefined : addressText(this.#local);
  }

  get localPort(): number | undefined {
    return this.#local?.port;
  }

  get localFamily(): string | undefined {
    return this.#local === null ? undefined : familyText(this.#local);
  }

  /** For `connect`: calls `done` once, with the result of the handshake. */
  onConnected(done: (error: Errno) => void): void {
    this.#connectDone = done;
  }

  #settleConnect(): boolean {
    if (this.#connectDone === null) return true;
    const so = this.#so!;
    const connected = (so.so_state & SS_ISCONNECTED) !== 0;
    if (!connected && so.so_error === 0 && (so.so_state & SS_ISDISCONNECTED) === 0) return false;
    const done = this.#connectDone;
    this.#connectDone = null;
    this.#remember();
    done(connected ? 0 : soTakeError(so));
    return connected;
  }

  #readable(): void {
    if (this.#so === null || !this.#settleConnect()) return;
    if (this.#wantRead) this._read();
  }

  #writable(): void {
    if (this.#so === null || !this.#settleConnect()) return;
    this.#pump();
  }

  override _read(): void {
    const so = this.#so;
    if (so === null || this.#ended || this.connecting) {
      this.#wantRead = true;
      return;
    }
    this.#wantRead = false;
    for (;;) {
      const avail = sbavail(so.so_rcv);
      const buf = Buffer.allocUnsafe(Math.min(Math.max(avail, 1), READ_MAX));
      const error = soRead(so, buf, 0, buf.length);
      if (error === EWOULDBLOCK) {
        this.#wantRead = true;
        return;
      }
      if (error !== 0) {
        this.destroy(errnoError(error, 'read'));
        return;
      }
      if (ioResult.n === 0) {
        this.#ended = true;
        this.push(null);
        return;
      }
      this.bytesRead += ioResult.n;
      this.#active();
      const data = buf.subarray(0, ioResult.n);
      let wanted = false;
      try {
        wanted = this.push(data);
      } catch (e) {
        inPass(passUpcall, this.#rest);
        throw e;
      }
      if (!wanted) return;
    }
  }

  /** Continues reading after a listener of 'data' threw an exception. */
  #readMore(): void {
    if (!this.destroyed) this._read();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: WriteDone): void {
    this.#chunk = chunk;
    this.#chunkOff = 0;
    this.#chunkDone = done;
    this.#pump();
  }

  /** Continues the write in progress. */
  #pump(): void {
    const so = this.#so;
    const chunk = this.#chunk;
    if (chunk === null || so === null || this.connecting || this.#pumping) return;
    // Upcalls run before soWrite returns and may call #pump: only the outer call loops.
    this.#pumping = true;
    let error: Errno = 0;
    while (error === 0 && this.#so !== null && this.#chunkOff < chunk.length) {
      error = soWrite(so, chunk, this.#chunkOff, chunk.length - this.#chunkOff, false);
      if (error !== 0) break;
      this.#chunkOff += ioResult.n;
      this.bytesWritten += ioResult.n;
      this.#active();
    }
    this.#pumping = false;
    if (this.#so === null || error === EWOULDBLOCK) return;
    this.#writeDone(error === 0 ? null : errnoError(error, 'write'));
  }

  #writeDone(error: Error | null): void {
    const done = this.#chunkDone!;
    this.#chunk = null;
    this.#chunkDone = null;
    done(error);
  }

  override _final(done: WriteDone): void {
    const so = this.#so;
    // Ignore an error: the peer may have reset the connection already.
    if (so !== null) soshutdown(so, SHUT_WR);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#timer !== null) callout_stop(this.#timer);
    const so = this.#so;
    this.#so = null;
    if (so !== null) soclose(so);
    if (this.#chunkDone !== null) this.#writeDone(error ?? errnoError(EPIPE, 'write'));
    done(error);
  }

  /** Drops the connection with RST. */
  resetAndDestroy(): this {
    if (this.#so !== null) {
      this.#so.so_options |= SO_LINGER;
      this.#so.so_linger = 0;
    }
    return this.destroy();
  }

  /**
   * Sends part of an open file without copying it, after the data written before. Resolves with the
   * number of bytes appended to the socket buffer, headers and trailers included; it is smaller
   * than requested if the file ends early. Rejects with the error of sendfile(2), whose `bytes` is
   * the number of bytes appended before it. The caller keeps its reference on `file`, and must not
   * change headers and trailers until the promise settles.
   */
  async sendfile(file: File, options: SendfileOptions = {}): Promise<number> {
    checkSendfile(file, options);
    await new Promise<void>((resolve, reject) => {
      // Node's error for a write after end() or destroy() is EPIPE in sendfile(2).
      this.write('', (error) =>
        error
          ? reject(error instanceof TapnicError ? error : errnoError(EPIPE, 'sendfile'))
          : resolve(),
      );
    });
    return new Promise<number>((resolve, reject) => {
      const so = this.#so;
      const fail = (error: Errno, bytes: number): void =>
        reject(Object.assign(errnoError(error, 'sendfile'), { bytes }));
      if (so === null) {
        fail(EPIPE, 0);
        return;
      }
      this.#sendfiles++;
      const listener = {
        sendfileDone: (error: Errno, sbytes: number): void => {
          this.#sendfiles--;
          this.bytesWritten += sbytes;
          this.#active();
          if (error === 0) resolve(sbytes);
          else fail(error, sbytes);
        },
      };
      const error = sendfile(
        file,
        so,
        options.offset ?? 0,
        options.nbytes ?? 0,
        options.hdtr ?? null,
        options.flags ?? 0,
        false,
        listener,
      );
      if (error !== 0) {
        this.#sendfiles--;
        fail(error, 0);
      }
    });
  }

  /** Emits 'timeout' after `ms` milliseconds without traffic, as net.Socket does; 0: off. */
  setTimeout(ms: number, callback?: () => void): this {
    this.#timeoutMs = ms;
    if (callback !== undefined) this.once('timeout', callback);
    if (ms === 0) {
      if (this.#timer !== null) callout_stop(this.#timer);
    } else {
      const idle: Upcall = { upcall: () => this.#idle() };
      this.#timer ??= new Callout({ run: () => passUpcall(idle) });
      this.#active();
    }
    return this;
  }

  #active(): void {
    if (this.#timeoutMs > 0 && this.#timer !== null && !this.destroyed)
      callout_reset(this.#timer, this.#timeoutMs * 1e6);
  }

  #idle(): void {
    if (this.destroyed || this.#timeoutMs === 0) return;
    // A sendfile that waits for the peer is not idle; TCP's timers end it if the peer is gone.
    if (this.#sendfiles > 0) this.#active();
    else this.emit('timeout');
  }

  /** TCP_NODELAY: turns Nagle's algorithm off, so that small segments are sent without delay. */
  setNoDelay(noDelay = true): this {
    if (this.#so !== null) soSetInt(this.#so, IPPROTO_TCP, TCP_NODELAY, noDelay ? 1 : 0);
    return this;
  }

  /**
   * Sets SO_KEEPALIVE, and TCP_KEEPIDLE if `initialDelay` is at least 1000 ms. With
   * net.inet.tcp.always_keepalive TCP sends keepalive probes even if `enable` is false.
   */
  setKeepAlive(enable = false, initialDelay = 0): this {
    if (this.#so === null) return this;
    soSetInt(this.#so, SOL_SOCKET, SO_KEEPALIVE, enable ? 1 : 0);
    const seconds = Math.floor(initialDelay / 1000);
    if (enable && seconds > 0) soSetInt(this.#so, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    return this;
  }

  /** The BSD socket, for options without a method here; null once closed. */
  get bsdSocket(): Socket | null {
    return this.#so;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }
}

function addressText(a: Sockaddr): string {
  return a.family === AF_INET ? inet_ntoa(inAddrOf(a)) : '::';
}

function familyText(a: Sockaddr): string {
  return a.family === AF_INET ? 'IPv4' : 'IPv6';
}
