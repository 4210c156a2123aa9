/**
 * A TCP connection of the emulated host as a stream.Duplex with the behaviour of net.Socket, and
 * `sendfile`. It emits the same events in the same order, and each in its own turn of the event loop,
 * after the call that causes it. socket_reader.ts has the receive side. Left out: out-of-band data,
 * abort signals.
 */

import { Duplex } from 'node:stream';
import {
  EINVAL,
  EISCONN,
  EPIPE,
  EWOULDBLOCK,
  errnoError,
  type Errno,
  TapnicError,
} from '../sys/errno.ts';
import { passUpcall, type Upcall } from '../sys/pass.ts';
import { File } from '../kern/kern_descrip.ts';
import { sendfile, type SfHdtr } from '../kern/kern_sendfile.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import { IPPROTO_TCP } from '../kern/protosw.ts';
import type { Sockaddr } from '../kern/sockaddr.ts';
import { ioResult, soWrite } from '../kern/sys_generic.ts';
import {
  SHUT_WR,
  SO_KEEPALIVE,
  SO_LINGER,
  SO_RCV,
  SO_SND,
  soclose,
  type Socket as KernSocket,
  soshutdown,
  soTakeError,
  soupcall_set,
  SS_ISCONNECTED,
  SS_ISDISCONNECTED,
} from '../kern/uipc_socket.ts';
import type { Sockbuf } from '../kern/uipc_sockbuf.ts';
import { SOL_SOCKET, soSetInt } from '../kern/uipc_sockopt.ts';
import type { Vnet } from '../kern/vnet.ts';
import { TCP_KEEPIDLE, TCP_NODELAY } from '../netinet/tcp_sockopt.ts';
import { addressText, familyText, sockaddr } from './address.ts';
import { type ConnectOptions, dial, dialled, Dialling } from './dial.ts';
import { Attempts, isIP, type LookupFunction, resolveHost } from './lookup.ts';
import { type OnReadOptions, SocketReader } from './socket_reader.ts';
import { later } from './turns.ts';

/** Largest delay of a timer, ms; Node's is the same. */
const TIMEOUT_MAX_MS = 0x7fffffff;

const NO_CHUNKS: readonly Uint8Array[] = [];

type Done = (error?: Error | null) => void;

/** Options of a new socket, as net.Socket's. */
export interface SocketOptions {
  /** Keeps our side open after the peer has ended its side. Default false. */
  readonly allowHalfOpen?: boolean | undefined;
  /** High-water mark of both directions, bytes. Default: that of Node's streams. */
  readonly highWaterMark?: number | undefined;
  /** Buffers for received data. There are no 'data' events then. */
  readonly onread?: OnReadOptions | undefined;
}

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

/** A call of `sendfile`. */
interface SendfileJob {
  readonly file: File;
  readonly options: SendfileOptions;
  settled(error: Errno, bytes: number): void;
}

/** The server of a socket, which counts its open connections. */
export interface SocketServer {
  socketClosed(socket: Socket): void;
}

/** Addresses of a connection. */
interface Names {
  readonly local: Sockaddr;
  readonly peer: Sockaddr | null;
}

// Access to private methods of Socket for Events.
let ready: (socket: Socket, sb: Sockbuf) => void;
let active: (socket: Socket) => void;

/**
 * The upcalls of a connection's buffers, and its turns of reading. One object, because closures
 * would take 300 bytes per connection.
 */
class Events extends SocketReader<Socket> {
  run(sb: Sockbuf): void {
    ready(this.stream, sb);
  }

  protected override active(): void {
    active(this.stream);
  }
}

/** Throws TapnicError EINVAL if `file` is not a File or a number is not a safe integer. */
function checkSendfile(file: File, options: SendfileOptions): void {
  if (!(file instanceof File))
    throw errnoError(EINVAL, 'sendfile', 'the file must be a result of openFile');
  for (const name of ['offset', 'nbytes', 'flags'] as const)
    if (!Number.isSafeInteger(options[name] ?? 0))
      throw errnoError(EINVAL, 'sendfile', `${name} must be an integer`);
}

/** A connection. `connect` and servers create it. */
export class Socket extends Duplex {
  readonly #vnet: Vnet;
  /** The BSD socket; null before `connect` and once closed. */
  #so: KernSocket | null = null;
  /** The addresses of a closed connection. Those of an open one are read from its PCB. */
  #names: Names | null = null;
  readonly #events = new Events(this);
  // The write in progress: its chunks, the position, and its callback. A chunk may stand for a
  // sendfile, see #jobs.
  #chunks: readonly Uint8Array[] = NO_CHUNKS;
  #chunk = 0;
  #chunkOff = 0;
  #writeDone: Done | null = null;
  /** The callback of `_final`. */
  #finalDone: Done | null = null;
  /** Of a connection that we open, or that got options before; see `#opening`. */
  #dialling: Dialling | null = null;
  #timer: Callout | null = null;
  /** Pending sendfile calls. Each has an empty chunk that marks its place among the written data. */
  #jobs: Map<Uint8Array, SendfileJob> | null = null;
  /** Whether the write in progress waits for the end of a sendfile. */
  #sending = false;
  /** Bytes of complete writes and sendfile calls. */
  #sent = 0;
  #server: SocketServer | null = null;
  bytesRead = 0;
  /** Whether `connect` is in progress. */
  connecting = false;
  /** The argument of `setTimeout`, milliseconds. */
  timeout: number | undefined = undefined;
  /** The server that accepted it; null otherwise. */
  server: unknown = null;

  constructor(vnet: Vnet, options: SocketOptions = {}) {
    const { highWaterMark } = options;
    super({
      allowHalfOpen: options.allowHalfOpen ?? false,
      autoDestroy: true,
      // _destroy emits 'close', which has an argument.
      emitClose: false,
      ...(highWaterMark === undefined
        ? {}
        : { readableHighWaterMark: highWaterMark, writableHighWaterMark: highWaterMark }),
    });
    this.#vnet = vnet;
    this.#events.setOnRead(options.onread);
  }

  /**
   * For a server: takes over the accepted `so`. `paused`: nothing is read until the program resumes.
   * Otherwise reading begins, so that the end of a connection without a reader is noticed.
   */
  adopt(so: KernSocket, server: SocketServer, paused: boolean): void {
    this.#server = server;
    this.#take(so);
    if (paused) this.pause();
    else this.read(0);
  }

  #take(so: KernSocket): void {
    this.#so = so;
    soupcall_set(so, SO_RCV, this.#events);
    soupcall_set(so, SO_SND, this.#events);
    const { noDelay = null, keepAlive = null } = this.#dialling ?? {};
    if (noDelay !== null) this.setNoDelay(noDelay);
    if (keepAlive !== null) this.setKeepAlive(...keepAlive);
  }

  /**
   * Connects to a port, 1 to 65535, of an IPv4 or IPv6 address, or with `lookup` of a name. 'connect' and
   * 'ready' or 'error' follow.
   * Throws TapnicError: EINVAL (no port or no address), ENXIO (no such zone), EISCONN, ENOBUFS.
   */
  connect(options: ConnectOptions, listener?: () => void): this;
  connect(port: number, host: string, listener?: () => void): this;
  connect(port: number, listener?: () => void): this;
  connect(
    where: ConnectOptions | number,
    hostOrListener?: string | (() => void),
    listener?: () => void,
  ): this {
    const options = typeof where === 'object' ? where : { port: where, host: hostOrListener };
    const onConnect = typeof hostOrListener === 'function' ? hostOrListener : listener;
    if (this.#so !== null || this.connecting || this.destroyed)
      throw errnoError(EISCONN, 'connect');
    const host = typeof options.host === 'string' ? options.host : undefined;
    const wanted: ConnectOptions = { ...options, host };
    const { lookup } = wanted;
    if (host !== undefined && lookup !== undefined && isIP(host) === 0) {
      sockaddr(this.#vnet, '::', options.port);
      this.connecting = true;
      this.#resolve(host, { ...wanted, lookup });
    } else {
      this.#dial(wanted);
    }
    if (onConnect !== undefined) this.once('connect', onConnect);
    return this;
  }

  get #opening(): Dialling {
    return (this.#dialling ??= new Dialling());
  }

  /** Begins to connect to an address. Throws TapnicError. */
  #dial(options: ConnectOptions): void {
    const call = dial(this.#vnet, options);
    this.#opening.call = call.call;
    this.#take(call.so);
    this.connecting = true;
    const error = dialled(call);
    this.#opening.refused = error;
    if (error === 0) return;
    later(() => {
      if (this.#so === call.so) this.#connectFailed(error);
    });
  }

  /** Resolves the name `host`, and then tries its addresses. */
  #resolve(host: string, options: ConnectOptions & { lookup: LookupFunction }): void {
    const seen = (error: Error | null, address?: string, family?: number): void => {
      if (!this.destroyed) this.emit('lookup', error, address, family, host);
    };
    const bound = options.localAddress !== undefined;
    resolveHost(host, options, bound, seen, (error, list) =>
      later(() => {
        if (this.destroyed) return;
        if (error !== null) {
          this.destroy(error);
          return;
        }
        const attempts = new Attempts(list, options, {
          dial: (wanted) => this.#dial(wanted),
          drop: () => this.#drop(),
          event: (name, ...args) => this.emit(name, ...args),
          failed: (failure) => this.destroy(failure),
        });
        this.#opening.attempts = attempts;
        attempts.next();
      }),
    );
  }

  #endAttempts(): void {
    const dialling = this.#dialling;
    dialling?.attempts?.stop();
    if (dialling !== null) dialling.attempts = null;
  }

  /** Closes the socket of an attempt that failed. */
  #drop(): void {
    const so = this.#so;
    this.#so = null;
    if (so !== null) soclose(so);
  }

  #connectFailed(error: Errno): void {
    if (this.destroyed) return;
    const { call, attempts } = this.#opening;
    const failure = errnoError(error, call);
    if (attempts === null) this.destroy(failure);
    else attempts.fail(failure);
  }

  /** The local or the peer's address; null without a connection. */
  #name(peer: boolean): Sockaddr | null {
    if (this.#names !== null) return peer ? this.#names.peer : this.#names.local;
    const so = this.#so;
    if (so === null || this.connecting || so.so_pcb === null) return null;
    return peer ? so.so_proto.pr_peeraddr(so) : so.so_proto.pr_sockaddr(so);
  }

  /** Whether no connection is there or under way. */
  get pending(): boolean {
    return this.#so === null || this.connecting;
  }

  get readyState(): 'opening' | 'open' | 'readOnly' | 'writeOnly' | 'closed' {
    if (this.connecting) return 'opening';
    if (this.readable) return this.writable ? 'open' : 'readOnly';
    return this.writable ? 'writeOnly' : 'closed';
  }

  /** Bytes given to `write` and `sendfile`, those included that wait. */
  get bytesWritten(): number {
    return this.#so === null ? this.#sent : this.#sent + this.writableLength;
  }

  /** Its local address; an empty object without a connection. */
  address(): { address: string; family: string; port: number } | Record<string, never> {
    const local = this.#name(false);
    if (local === null) return {};
    const { port } = local;
    return { address: addressText(this.#vnet, local), family: familyText(local), port };
  }

  get remoteAddress(): string | undefined {
    const peer = this.#name(true);
    return peer === null ? undefined : addressText(this.#vnet, peer);
  }

  get remotePort(): number | undefined {
    return this.#name(true)?.port;
  }

  get remoteFamily(): string | undefined {
    const peer = this.#name(true);
    return peer === null ? undefined : familyText(peer);
  }

  get localAddress(): string | undefined {
    const local = this.#name(false);
    return local === null ? undefined : addressText(this.#vnet, local);
  }

  get localPort(): number | undefined {
    return this.#name(false)?.port;
  }

  get localFamily(): string | undefined {
    const local = this.#name(false);
    return local === null ? undefined : familyText(local);
  }

  /**
   * Returns whether the socket was connected before. When `connect` ends, emits 'connect' and 'ready'
   * or destroys the socket with the error.
   */
  #connected(): boolean {
    if (!this.connecting) return true;
    const so = this.#so!;
    const connected = (so.so_state & SS_ISCONNECTED) !== 0;
    if (!connected) {
      if (so.so_error !== 0 || (so.so_state & SS_ISDISCONNECTED) !== 0)
        this.#connectFailed(soTakeError(so) || this.#opening.refused);
      return false;
    }
    this.connecting = false;
    this.#endAttempts();
    this.#active();
    // In its own turn, because a listener may throw.
    later(() => this.#start());
    try {
      this.emit('connect');
    } catch (e) {
      later(() => this.emit('ready'));
      throw e;
    }
    this.emit('ready');
    return false;
  }

  /** Continues the calls that waited for the connection. */
  #start(): void {
    this.#pump();
    this.#shutdown();
    if (!this.destroyed && !this.isPaused()) this.read(0);
  }

  static {
    ready = (socket, sb): void => {
      const so = socket.#so;
      if (so === null || !socket.#connected()) return;
      if (sb === so.so_rcv) socket.#events.runNow();
      else socket.#pump();
    };
    active = (socket): void => socket.#active();
  }

  override _read(): void {
    this.#events.start();
  }

  // Reading into the program's buffers is not part of the stream: these calls start and stop it.
  override pause(): this {
    if (this.#events.ownBuffers) this.#events.stop();
    return super.pause();
  }

  override resume(): this {
    if (this.#events.ownBuffers && !this.pending) this.#events.start();
    return super.resume();
  }

  override read(size?: number): unknown {
    if (this.#events.ownBuffers && !this.pending) this.#events.start();
    return super.read(size);
  }

  /** As in Node.js, a write fails with EPIPE after the peer's end has ended our side. */
  override write(chunk: unknown, ...rest: unknown[]): boolean {
    const done = rest.at(-1);
    if (typeof done === 'function' && this.#endedByPeer())
      rest[rest.length - 1] = (): void => (done as Done)(writeAfterFin());
    return super.write(chunk, ...(rest as []));
  }

  /** Whether the peer has ended its side, and that has ended ours. */
  #endedByPeer(): boolean {
    return this.readableEnded && !this.allowHalfOpen && this.writableEnded;
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: Done): void {
    this.#begin([chunk], done);
  }

  override _writev(chunks: { chunk: Uint8Array }[], done: Done): void {
    const all = chunks.map(({ chunk }) => chunk);
    // The chunks are sent together, as by writev(2). The last one pushes, so it must not be empty.
    const some = all.filter((chunk) => chunk.length > 0 || this.#jobs?.has(chunk));
    this.#begin(some, done);
  }

  #begin(chunks: Uint8Array[], done: Done): void {
    this.#chunks = chunks;
    this.#chunk = 0;
    this.#chunkOff = 0;
    this.#writeDone = done;
    this.#pump();
  }

  /** Continues the write in progress. */
  #pump(): void {
    const so = this.#so;
    if (this.#writeDone === null || so === null || this.connecting || this.#sending) return;
    const { length } = this.#chunks;
    while (this.#chunk < length && !this.#sending) {
      const chunk = this.#chunks[this.#chunk]!;
      const more = this.#chunk < length - 1 && !this.#jobs?.has(this.#chunks[this.#chunk + 1]!);
      const job = chunk.length === 0 ? this.#jobs?.get(chunk) : undefined;
      if (job !== undefined) {
        this.#jobs!.delete(chunk);
        this.#sendfile(so, job);
        continue;
      }
      const error = this.#sendChunk(so, chunk, more);
      if (error === EWOULDBLOCK) return;
      if (error !== 0) {
        // The pending error is more specific than EPIPE.
        this.#wrote(errnoError(soTakeError(so) || error, 'write'));
        return;
      }
      this.#nextChunk(chunk.length);
    }
    if (!this.#sending) this.#wrote(null);
  }

  #sendChunk(so: KernSocket, chunk: Uint8Array, more: boolean): Errno {
    while (this.#chunkOff < chunk.length) {
      const error = soWrite(so, chunk, this.#chunkOff, chunk.length - this.#chunkOff, more);
      if (error !== 0) return error;
      this.#chunkOff += ioResult.n;
      this.#active();
    }
    return 0;
  }

  /** Counts the sent bytes of a chunk and proceeds to the next one. */
  #nextChunk(bytes: number): void {
    this.#sent += bytes;
    this.#chunk++;
    this.#chunkOff = 0;
  }

  /** Ends the write in progress and calls its callback. */
  #wrote(error: Error | null): void {
    const done = this.#writeDone!;
    this.#writeDone = null;
    this.#chunks = NO_CHUNKS;
    done(error);
  }

  override _final(done: Done): void {
    this.#finalDone = done;
    this.#shutdown();
  }

  /** Sends FIN after all data, if the program has ended our side. 'finish' is emitted later. */
  #shutdown(): void {
    const done = this.#finalDone;
    if (done === null || this.connecting) return;
    this.#finalDone = null;
    // Ignore an error: the peer may have reset the connection already.
    if (this.#so !== null) soshutdown(this.#so, SHUT_WR);
    later(() => done());
  }

  override _destroy(error: Error | null, done: Done): void {
    const local = this.#name(false);
    if (local !== null) this.#names = { local, peer: this.#name(true) };
    this.connecting = false;
    this.#endAttempts();
    if (this.#timer !== null) callout_stop(this.#timer);
    const so = this.#so;
    if (so !== null) {
      this.#sent += this.#chunkOff;
      this.#so = null;
      soclose(so);
    }
    // In its own turn, because the program's callback may throw.
    if (this.#writeDone !== null) later(() => this.#wrote(error ?? errnoError(EPIPE, 'write')));
    const late = error !== null && 'code' in error && error.code === 'ERR_STREAM_WRITE_AFTER_END';
    done(late && this.#endedByPeer() ? writeAfterFin() : error);
    later(() => this.emit('close', error !== null));
    this.#server?.socketClosed(this);
    this.#server = null;
  }

  /** Ends our side, and destroys the socket after all written data was sent. */
  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
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
   * the number of bytes appended before it. Later writes and `end` wait for it. The caller keeps its
   * reference on `file`, and must not change headers and trailers until the promise settles.
   */
  async sendfile(file: File, options: SendfileOptions = {}): Promise<number> {
    checkSendfile(file, options);
    return new Promise<number>((resolve, reject) => {
      const settled = (error: Errno, bytes: number): void => {
        if (error === 0) resolve(bytes);
        else reject(Object.assign(errnoError(error, 'sendfile'), { bytes }));
      };
      const chunk = Buffer.alloc(0);
      this.#jobs ??= new Map();
      this.#jobs.set(chunk, { file, options, settled });
      // Node's error for a write after end() or destroy() is EPIPE in sendfile(2).
      this.write(chunk, (error?: Error | null) => {
        if (error && this.#jobs!.delete(chunk)) settled(EPIPE, 0);
      });
    });
  }

  /** Sends the file of the write's present chunk, and goes on with the write behind it. */
  #sendfile(so: KernSocket, job: SendfileJob): void {
    this.#sending = true;
    const sendfileDone = (error: Errno, sbytes: number): void => {
      job.settled(error, sbytes);
      this.#sending = false;
      this.#active();
      this.#nextChunk(sbytes);
      this.#pump();
    };
    const { offset = 0, nbytes = 0, hdtr = null, flags = 0 } = job.options;
    const error = sendfile(job.file, so, offset, nbytes, hdtr, flags, false, { sendfileDone });
    if (error === 0) return;
    this.#sending = false;
    job.settled(error, 0);
    this.#nextChunk(0);
  }

  /**
   * Emits 'timeout' after `ms` milliseconds without traffic; 0 turns it off, and removes `callback`.
   * Throws TapnicError EINVAL if `ms` is negative or not a finite number.
   */
  setTimeout(ms: number, callback?: () => void): this {
    if (this.destroyed) return this;
    if (typeof ms !== 'number' || !(ms >= 0) || ms === Infinity)
      throw errnoError(EINVAL, 'timeout', `${ms} is not a number of milliseconds`);
    this.timeout = ms;
    if (ms === 0) {
      if (this.#timer !== null) callout_stop(this.#timer);
      if (callback !== undefined) this.removeListener('timeout', callback);
      return this;
    }
    if (callback !== undefined) this.once('timeout', callback);
    const idle: Upcall = { upcall: () => this.#idle() };
    this.#timer ??= new Callout({ run: () => passUpcall(idle) });
    this.#active();
    return this;
  }

  /** There was traffic. */
  #active(): void {
    const { timeout } = this;
    if (timeout !== undefined && timeout > 0 && this.#timer !== null && !this.destroyed)
      callout_reset(this.#timer, Math.min(timeout, TIMEOUT_MAX_MS) * 1e6);
  }

  #idle(): void {
    if (this.destroyed || this.timeout === 0) return;
    // A sendfile that waits for the peer is not idle; TCP's timers end it if the peer is gone.
    if (this.#sending) this.#active();
    else this.emit('timeout');
  }

  /** TCP_NODELAY: turns Nagle's algorithm off, so that small segments are sent without delay. */
  setNoDelay(noDelay = true): this {
    if (this.#so === null) this.#opening.noDelay = noDelay;
    else soSetInt(this.#so, IPPROTO_TCP, TCP_NODELAY, noDelay ? 1 : 0);
    return this;
  }

  /**
   * Sets SO_KEEPALIVE, and TCP_KEEPIDLE if `initialDelay` is at least 1000 ms. With
   * net.inet.tcp.always_keepalive TCP sends keepalive probes even if `enable` is false.
   */
  setKeepAlive(enable = false, initialDelay = 0): this {
    if (this.#so === null) {
      this.#opening.keepAlive = [enable, initialDelay];
      return this;
    }
    soSetInt(this.#so, SOL_SOCKET, SO_KEEPALIVE, enable ? 1 : 0);
    const seconds = Math.floor(initialDelay / 1000);
    if (enable && seconds > 0) soSetInt(this.#so, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    return this;
  }

  /** The BSD socket, for options without a method here; null once closed. */
  get bsdSocket(): KernSocket | null {
    return this.#so;
  }

  /** No effect, like `unref`: the stack keeps the process alive until it is closed. */
  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }
}

function writeAfterFin(): TapnicError {
  return new TapnicError('EPIPE', 'write', 'the peer has ended the connection');
}
