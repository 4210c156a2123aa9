/**
 * A TCP connection of the emulated host as a stream.Duplex with the behaviour of net.Socket, and
 * `sendfile`. It emits the same events in the same order, and each in its own turn of the event loop,
 * after the call that causes it. socket_reader.ts has the receive side, lookup.ts and dial.ts `connect`.
 * Left out: out-of-band data.
 */

import { addAbortSignal, Duplex } from 'node:stream';
import { EALREADY, ECONNABORTED, EISCONN, EPIPE, EWOULDBLOCK, type Errno } from '../sys/errno.ts';
import { passUpcall, type Upcall } from '../sys/pass.ts';
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
import { TCP_KEEPIDLE, TCP_NODELAY } from '../netinet/tcp_sockopt.ts';
import { addressText, familyText } from './address.ts';
import { dial, Dialling } from './dial.ts';
import { lateSocket } from './late_class.ts';
import { Attempts } from './lookup.ts';
import {
  type ConnectOptions,
  connectRequest,
  type ConnectRequest,
  normalArgs,
} from './net_args.ts';
import { hostOf, type NetHost } from './net_host.ts';
import { invalidArgType, nodeError, outOfRange, SocketError } from './node_errors.ts';
import { type SocketOptions, streamOptions } from './socket_options.ts';
import { SocketReader } from './socket_reader.ts';
import { SendfileJob, type SendfileOptions, type SendfileSource } from './socket_sendfile.ts';
import { later } from './turns.ts';

/** Largest delay of a timer, ms; Node's is the same. */
const TIMEOUT_MAX_MS = 0x7fffffff;

const NO_CHUNKS: readonly Uint8Array[] = [];

type Done = (error?: Error | null) => void;

/** The server of a socket, which counts its open connections. */
export interface SocketServer {
  socketClosed(): void;
}

/** Addresses of a connection. */
interface Names {
  readonly local: Sockaddr;
  readonly peer: Sockaddr | null;
}

// Access to private methods of Socket for Events.
let ready: (socket: Socket, sb: Sockbuf) => void;
let active: (socket: Socket) => void;
/** Null for the prototype, whose properties some libraries read. */
let nameOf: (socket: Socket, peer: boolean) => Sockaddr | null;

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

/** A timeout's milliseconds. Throws ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE. */
function timeoutMs(ms: unknown): number {
  if (typeof ms !== 'number') throw invalidArgType('msecs', 'of type number', ms);
  if (!(ms >= 0) || ms === Infinity) throw outOfRange('msecs', 'a non-negative finite number', ms);
  return Math.min(ms, TIMEOUT_MAX_MS);
}

/** A connection. Servers create it; or a program does, and calls `connect`. */
export class Socket extends Duplex {
  readonly #host: NetHost;
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
  /** The sendfile call for which the write in progress waits. */
  #sending: SendfileJob | null = null;
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
  /** The addresses of a name that were tried, with the port. Set if there are several. */
  declare autoSelectFamilyAttemptedAddresses?: string[];

  /** Throws ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE. */
  constructor(options: SocketOptions) {
    const host = hostOf(options?.stack);
    super(streamOptions(options));
    this.#host = host;
    const { onread, signal } = options;
    this.#events.setOnRead(onread);
    // As in Node.js: its own listener, and any value that is true in a condition.
    this.on('end', peerEnded);
    if (options.noDelay) this.#opening.noDelay = true;
    if (options.keepAlive)
      this.#opening.keepAlive = [true, Math.max(options.keepAliveInitialDelay ?? 0, 0)];
    if (signal !== undefined) {
      addAbortSignal(signal, this);
      this.#opening.signal = signal;
    }
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
   * Connects to a port of an address or a host name. 'lookup', 'connectionAttempt' and others, and then
   * 'connect' and 'ready' or 'error' follow. A closed socket may connect again. Throws errors of wrong
   * arguments as net.Socket does, such as ERR_SOCKET_BAD_PORT, and for a path; TapnicError EBADF: the stack is closed.
   */
  connect(options: ConnectOptions, listener?: () => void): this;
  connect(port: number | string, host: string, listener?: () => void): this;
  connect(port: number | string, listener?: () => void): this;
  connect(...args: unknown[]): this {
    const { options, listener } = normalArgs(args);
    const request = connectRequest(options, this.#host);
    this.#host.check('connect');
    if (listener !== null) this.once('connect', listener);
    // Unlike Node.js, which connects nevertheless.
    if (this.#dialling?.signal?.aborted === true) return this;
    if (this.destroyed) this.#reopen();
    if (this.#so !== null || this.connecting) {
      this.#connectAgain(request);
      return this;
    }
    this.connecting = true;
    this.#active();
    this.#host.user?.connection(this);
    const attempts = new Attempts(request, {
      dial: (to) => dial(this.#host.vnet, to, request, (so) => this.#take(so)),
      drop: () => this.#drop(),
      event: (name, ...more) => this.emit(name, ...more),
      several: (attempted) => (this.autoSelectFamilyAttemptedAddresses = attempted),
      failed: (failure) => this.destroy(failure),
    });
    this.#opening.attempts = attempts;
    attempts.start(this.#host);
    return this;
  }

  /** Makes a destroyed socket new. */
  #reopen(): void {
    (this as unknown as { _undestroy(): void })._undestroy();
    Reflect.deleteProperty(this, 'write');
    this.#names = null;
    this.bytesRead = 0;
    this.#sent = 0;
    this.#events.reopen();
  }

  /** The errors of connect(2) for a socket that connects or is connected already. */
  #connectAgain({ host, port }: ConnectRequest): void {
    const errno = this.connecting ? EALREADY : EISCONN;
    const error = new SocketError(errno, 'connect', { address: host, port });
    later(() => this.destroy(error));
  }

  get #opening(): Dialling {
    return (this.#dialling ??= new Dialling());
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

  /** The local or the peer's address; null without a connection. */
  #name(peer: boolean): Sockaddr | null {
    if (this.#names !== null) return peer ? this.#names.peer : this.#names.local;
    const so = this.#so;
    if (so === null || this.connecting || so.so_pcb === null) return null;
    return peer ? so.so_proto.pr_peeraddr(so) : so.so_proto.pr_sockaddr(so);
  }

  /** The old name of `connecting`. */
  get _connecting(): boolean {
    return this.connecting;
  }

  /** Whether no connection is there or under way. */
  get pending(): boolean {
    if (!(#so in this)) return true;
    return this.#so === null || this.connecting;
  }

  /** Bytes that wait to be sent; undefined without a connection. */
  get bufferSize(): number | undefined {
    if (!(#so in this)) return undefined;
    return this.#so === null && !this.connecting ? undefined : this.writableLength;
  }

  get readyState(): 'opening' | 'open' | 'readOnly' | 'writeOnly' | 'closed' {
    if (this.connecting) return 'opening';
    if (this.readable) return this.writable ? 'open' : 'readOnly';
    return this.writable ? 'writeOnly' : 'closed';
  }

  /** Bytes given to `write` and `sendfile`, those included that wait. */
  get bytesWritten(): number {
    if (!(#so in this)) return 0;
    const gone = this.#so === null && !this.connecting;
    return gone ? this.#sent : this.#sent + this.writableLength;
  }

  /** Its local address; an empty object without a connection. */
  address(): { address: string; family: string; port: number } | Record<string, never> {
    const local = nameOf(this, false);
    if (local === null) return {};
    const { port } = local;
    return { address: addressText(this.#host.vnet, local), family: familyText(local), port };
  }

  get remoteAddress(): string | undefined {
    const peer = nameOf(this, true);
    return peer === null ? undefined : addressText(this.#host.vnet, peer);
  }

  get remotePort(): number | undefined {
    return nameOf(this, true)?.port;
  }

  get remoteFamily(): string | undefined {
    const peer = nameOf(this, true);
    return peer === null ? undefined : familyText(peer);
  }

  get localAddress(): string | undefined {
    const local = nameOf(this, false);
    return local === null ? undefined : addressText(this.#host.vnet, local);
  }

  get localPort(): number | undefined {
    return nameOf(this, false)?.port;
  }

  get localFamily(): string | undefined {
    const local = nameOf(this, false);
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
      const { attempts } = this.#opening;
      if (so.so_error !== 0 || (so.so_state & SS_ISDISCONNECTED) !== 0)
        attempts?.fail(attempts.errorOf(soTakeError(so) || ECONNABORTED));
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
      else if (socket.#sending === null) socket.#pump();
      else socket.#sending.progress();
    };
    active = (socket): void => socket.#active();
    nameOf = (socket, peer): Sockaddr | null => (#so in socket ? socket.#name(peer) : null);
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
    if (this.#so === null && !this.connecting)
      this.#wrote(nodeError('ERR_SOCKET_CLOSED', 'Socket is closed'));
    else this.#pump();
  }

  /** Continues the write in progress. */
  #pump(): void {
    const so = this.#so;
    if (this.#writeDone === null || so === null || this.connecting || this.#sending !== null)
      return;
    const { length } = this.#chunks;
    while (this.#chunk < length && this.#sending === null) {
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
        this.#wrote(new SocketError(soTakeError(so) || error, 'write'));
        return;
      }
      this.#nextChunk(chunk.length);
    }
    if (this.#sending === null) this.#wrote(null);
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
    if (done === null || this.pending) return;
    this.#finalDone = null;
    // Ignore an error: the peer may have reset the connection already.
    soshutdown(this.#so!, SHUT_WR);
    later(() => done());
  }

  override _destroy(error: Error | null, done: Done): void {
    const local = nameOf(this, false);
    if (local !== null) this.#names = { local, peer: nameOf(this, true) };
    const { connecting } = this;
    const opened = connecting || this.#so !== null;
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
    if (this.#writeDone !== null) {
      const unsent = connecting ? closedBefore() : null;
      later(() => this.#wrote(unsent));
    }
    const late = error !== null && 'code' in error && error.code === 'ERR_STREAM_WRITE_AFTER_END';
    done(late && this.write === writeAfterEnd ? writeAfterFin() : error);
    this.#host.user?.disconnected(this);
    this.#server?.socketClosed();
    this.#server = null;
    // As in Node.js, without an argument if there was no connection.
    later(() => (opened ? this.emit('close', error !== null) : this.emit('close')));
  }

  /** Ends our side, and destroys the socket after all written data was sent. */
  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  /**
   * Drops the connection with RST, as soon as there is one. Without one, destroys the socket with
   * ERR_SOCKET_CLOSED.
   */
  resetAndDestroy(): this {
    if (this.connecting) this.once('connect', () => this.resetAndDestroy());
    else if (this.#so === null) this.destroy(nodeError('ERR_SOCKET_CLOSED', 'Socket is closed'));
    else {
      this.#so.so_options |= SO_LINGER;
      this.#so.so_linger = 0;
      this.destroy();
    }
    return this;
  }

  /**
   * Sends part of a file without copying it, after the data written before. `source`: a result of
   * `openFile`, a FileHandle, or a path. Resolves with the number of bytes appended to the socket buffer,
   * headers and trailers included; it is smaller than requested if the file ends early. Rejects with
   * the error of sendfile(2), of opening the file, or with an AbortError; each has `bytes`, the
   * number of bytes appended before it. Later writes and `end` wait for the call. The caller keeps its
   * reference on a File, keeps a FileHandle open, and must not change headers and trailers, until the
   * promise settles. @see SendfileError
   */
  async sendfile(source: SendfileSource, options: SendfileOptions = {}): Promise<number> {
    const job = new SendfileJob(source, options ?? {}, this.#host);
    const { chunk, plain } = job;
    this.#jobs ??= new Map();
    if (plain === null) this.#jobs.set(chunk, job);
    // Node's error for a write after end() or destroy() is EPIPE in sendfile(2).
    this.write(plain ?? chunk, (error?: Error | null) => {
      if (plain !== null) job.end(error ? EPIPE : 0, error ? 0 : plain.length);
      else if (this.#jobs!.delete(chunk)) job.end(EPIPE, 0);
    });
    return job.promise;
  }

  /** Sends the file of the write's present chunk, and goes on with the write behind it. */
  #sendfile(so: KernSocket, job: SendfileJob): void {
    this.#sending = job;
    const ended = (bytes: number): void => {
      this.#sending = null;
      this.#active();
      this.#nextChunk(bytes);
      this.#pump();
    };
    if (!job.start(so, () => this.#so === so, ended)) return;
    this.#sending = null;
    this.#nextChunk(0);
  }

  /**
   * Emits 'timeout' after `ms` milliseconds without traffic; 0 turns it off, and removes `callback`.
   * Throws ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE.
   */
  setTimeout(ms: number, callback?: () => void): this {
    if (this.destroyed) return this;
    this.timeout = ms;
    const delay = timeoutMs(ms);
    if (callback !== undefined && typeof callback !== 'function')
      throw invalidArgType('callback', 'of type function', callback);
    if (delay === 0) {
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
    if (this.#sending !== null) this.#active();
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

/** The peer has ended its side, which has ended ours: a later write fails with EPIPE. */
function peerEnded(this: Socket): void {
  if (!this.allowHalfOpen) this.write = writeAfterEnd;
}

function writeAfterEnd(this: Socket, chunk: unknown, ...rest: unknown[]): boolean {
  const done = rest.at(-1);
  if (typeof done === 'function' && this.writableEnded)
    rest[rest.length - 1] = (): void => (done as Done)(writeAfterFin());
  return Duplex.prototype.write.call(this, chunk, ...(rest as [BufferEncoding]));
}

function writeAfterFin(): Error {
  return nodeError('EPIPE', 'This socket has been ended by the other party');
}

function closedBefore(): Error {
  return nodeError(
    'ERR_SOCKET_CLOSED_BEFORE_CONNECTION',
    'Socket closed before the connection was established',
  );
}

lateSocket.loaded(Socket);
