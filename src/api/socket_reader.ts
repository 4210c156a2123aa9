/**
 * The receive side of a Socket: it reads the BSD socket's buffer when the stream requests data. Each
 * chunk is emitted in its own turn of the event loop. A program that discards the data, and one with
 * `onread` buffers, cause no Buffer per chunk.
 */

import type { Duplex } from 'node:stream';
import { ENOBUFS, EWOULDBLOCK } from '../sys/errno.ts';
import { ioResult, soRead } from '../kern/sys_generic.ts';
import { soDiscard } from '../kern/uipc_move.ts';
import type { Socket as KernSocket } from '../kern/uipc_socket.ts';
import { sbavail, SBS_CANTRCVMORE, type Sockbuf, type SoUpcall } from '../kern/uipc_sockbuf.ts';
import { SocketError } from './node_errors.ts';
import { TurnTaker } from './turns.ts';

/** Largest chunk of one 'data' event, bytes. Node's is the same. */
const READ_MAX = 65536;

/** Buffers of the program for received data, instead of 'data' events, as net.Socket's `onread`. */
export interface OnReadOptions {
  /** The buffer of all reads, or a function that returns the buffer of the next read. */
  readonly buffer: Uint8Array | (() => Uint8Array);
  /** Called with the number of bytes in `buffer`. Reading stops at false, until `resume`. */
  readonly callback: (bytes: number, buffer: Uint8Array) => boolean;
}

/** The stream whose receive side it is. */
interface ReaderStream extends Duplex {
  bytesRead: number;
  readonly connecting: boolean;
  /** Null before `connect` and once closed. */
  readonly bsdSocket: KernSocket | null;
}

/** The `onread` of a socket, and the buffer of the next read. */
class OwnBuffers {
  readonly #options: OnReadOptions;
  buffer: Uint8Array | null = null;

  constructor(options: OnReadOptions) {
    this.#options = options;
    if (typeof options.buffer !== 'function') this.buffer = options.buffer;
    else this.#next(options.buffer);
  }

  /** Takes the next buffer of the program. As in Node.js, keeps the last one if the program returns nothing. */
  #next(buffer: () => Uint8Array): void {
    const next: unknown = buffer();
    if (next instanceof Uint8Array) this.buffer = next;
  }

  /** Calls the program, with the socket as `this`. Returns whether reading goes on. */
  filled(stream: Duplex, bytes: number, buf: Uint8Array): boolean {
    const { buffer, callback } = this.#options;
    const more: unknown = callback.call(stream, bytes, buf);
    if (typeof buffer === 'function') this.#next(buffer);
    return more !== false;
  }
}

/** One object per connection has the upcalls of its buffers and its turns of reading. */
export abstract class SocketReader<S extends ReaderStream> extends TurnTaker implements SoUpcall {
  protected readonly stream: S;
  #own: OwnBuffers | null = null;
  /** Whether the stream requests data. */
  #reading = false;
  /** Whether the end of the peer's data was read. */
  #atEnd = false;

  constructor(stream: S) {
    super();
    this.stream = stream;
  }

  abstract run(sb: Sockbuf): void;

  /** There was traffic. */
  protected abstract active(): void;

  /** Sets `onread`. As in Node.js, an incomplete one is ignored. */
  setOnRead(onread: OnReadOptions | undefined): void {
    if (typeof onread !== 'object' || onread === null) return;
    const { buffer, callback } = onread;
    const buffers = buffer instanceof Uint8Array || typeof buffer === 'function';
    if (buffers && typeof callback === 'function') this.#own = new OwnBuffers(onread);
  }

  /** The stream is used for a new connection. */
  reopen(): void {
    this.#reading = false;
    this.#atEnd = false;
  }

  /** Whether data goes into buffers of the program. */
  get ownBuffers(): boolean {
    return this.#own !== null;
  }

  /** Whether there is data, the end of data or an error. */
  #due({ so_rcv: sb, so_error }: KernSocket): boolean {
    return sbavail(sb) > 0 || (sb.sb_state & SBS_CANTRCVMORE) !== 0 || so_error !== 0;
  }

  /**
   * Whether the program discards the data: it flows, and has no listener. The first chunk is always
   * read, because then the stream records that it was read from.
   */
  #discards(): boolean {
    const stream = this.stream;
    return (
      this.#reading &&
      stream.readableFlowing === true &&
      stream.listenerCount('data') === 0 &&
      stream.readableDidRead &&
      stream.readableLength === 0 &&
      stream.readableEncoding === null &&
      this.#own === null
    );
  }

  /**
   * If the program discards received data, does so in the pass that received it: the ACK at the end of
   * the pass then announces the whole window.
   */
  take(sb: Sockbuf): boolean {
    const so = this.stream.bsdSocket;
    if (so === null || sb !== so.so_rcv || !this.#discards()) return true;
    const n = soDiscard(so);
    if (n === 0) return true;
    this.stream.bytesRead += n;
    this.active();
    return this.#due(so);
  }

  /** The stream requests data. */
  start(): void {
    this.#reading = true;
    const { bsdSocket: so, connecting } = this.stream;
    if (so !== null && !connecting) this.#readSoon(so);
  }

  /** The program stops reading into its own buffers. */
  stop(): void {
    this.#reading = false;
  }

  /**
   * Schedules turns of reading if there is data, the end of data or an error: one for each chunk.
   * Between them the loop does not poll.
   */
  #readSoon(so: KernSocket): void {
    if (this.#atEnd || !this.#due(so)) return;
    this.again(Math.ceil(sbavail(so.so_rcv) / READ_MAX) || 1);
  }

  /** Reads one chunk. The next one has its own turn, so a listener may throw. */
  step(): void {
    const so = this.stream.bsdSocket;
    if (so === null || !this.#reading || this.#atEnd || !this.#due(so)) return;
    if (this.#own !== null) this.#readInto(so, this.#own);
    else this.#readChunk(so);
  }

  #readChunk(so: KernSocket): void {
    const buf = Buffer.allocUnsafe(Math.min(Math.max(sbavail(so.so_rcv), 1), READ_MAX));
    const n = this.#readTo(so, buf);
    if (n === 0) return;
    if (!this.stream.push(n === buf.length ? buf : buf.subarray(0, n))) this.#reading = false;
  }

  #readInto(so: KernSocket, own: OwnBuffers): void {
    const buf = own.buffer ?? new Uint8Array(0);
    const n = this.#readTo(so, buf);
    if (n > 0 && !own.filled(this.stream, n, buf)) this.#reading = false;
  }

  /**
   * Reads into `buf`. Returns the number of bytes; 0: there is nothing to emit, because there is no
   * data, or because it was the end of data or an error.
   */
  #readTo(so: KernSocket, buf: Uint8Array): number {
    const stream = this.stream;
    const noRoom = buf.length === 0 && sbavail(so.so_rcv) > 0;
    const error = noRoom ? ENOBUFS : soRead(so, buf, 0, buf.length);
    if (error === EWOULDBLOCK) return 0;
    if (error !== 0) {
      stream.destroy(new SocketError(error, 'read'));
      return 0;
    }
    const { n } = ioResult;
    this.active();
    if (n === 0) {
      this.#atEnd = true;
      stream.push(null);
      stream.read(0);
      return 0;
    }
    stream.bytesRead += n;
    this.#readSoon(so);
    return n;
  }
}
