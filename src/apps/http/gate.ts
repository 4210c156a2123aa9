/**
 * The gate between a connection and node:http. node:http parses a whole chunk at once; the gate passes
 * it the bytes of one request, up to the blank line that ends its head, and the next request when the
 * response is finished. Bytes that arrive in the meantime are kept unparsed. Beyond a limit the gate
 * stops reading, so that TCP's window closes.
 *
 * The gate also keeps the head of a response until its body follows by sendfile, so that both leave in
 * one segment. It closes a connection in such a way that the peer receives the last response.
 */

import { Duplex } from 'node:stream';
import type { File } from '../../api/file.ts';
import { sendProgress } from '../../api/send_progress.ts';
import type { Socket } from '../../api/socket.ts';

/** Number of kept bytes at which the gate stops reading. */
const WAITING_MAX = 16384;
/** Limit of the bytes that are discarded after the last response. */
const DISCARD_MAX = 1 << 20;
/** How long the peer may send after the last response, ms. */
const LINGER_MS = 2000;

const CR = 0x0d;
const LF = 0x0a;
const CR_LF = Buffer.from('\r\n');

/**
 * Returns `piece` of a head with CR LF for each LF that no CR precedes. A line may end with LF alone
 * (RFC 9112, 2.2), but node:http refuses it. `after`: the byte before `piece`.
 */
function withCrLf(piece: Buffer, after: number): Buffer {
  const parts: Buffer[] = [];
  let from = 0;
  for (let at = piece.indexOf(LF); at >= 0; at = piece.indexOf(LF, at + 1)) {
    if ((at === 0 ? after : piece[at - 1]) === CR) continue;
    parts.push(piece.subarray(from, at), CR_LF);
    from = at + 1;
  }
  if (from === 0) return piece;
  parts.push(piece.subarray(from));
  return Buffer.concat(parts);
}

type Done = (error?: Error | null) => void;

/**
 * Percent-encodes bytes above 127 in the first line of `piece`, which is part of a request line.
 * Clients send such bytes, and node:http refuses them. Empty lines in front stay.
 */
function encodedTarget(piece: Buffer): Buffer {
  let start = 0;
  while (piece[start] === CR || piece[start] === LF) start++;
  const newline = piece.indexOf(LF, start);
  const end = newline < 0 ? piece.length : newline;
  if (!piece.subarray(start, end).some((c) => c > 0x7f)) return piece;
  const line = piece
    .toString('latin1', 0, end)
    .replace(/[\x80-\xff]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  return Buffer.concat([Buffer.from(line, 'latin1'), piece.subarray(end)]);
}

/** A connection as node:http sees it. */
export class Gate extends Duplex {
  readonly raw: Socket;
  /** Bytes that node:http has not received. */
  readonly #waiting: Buffer[] = [];
  #waitingBytes = 0;
  /** The peer has sent its FIN. */
  #eof = false;
  /** node:http has asked for bytes. */
  #wanted = false;
  /** A piece is on its way to node:http's parser. */
  #passing = false;
  /** A request is being answered. */
  #busy = false;
  /** The connection ends with the response under way. */
  #last = false;
  /** Bytes of the current request's body still to come. */
  #body = 0;
  /** Whether the passed bytes end inside a request's head, and whether its last line is empty so far. */
  #inHead = false;
  #lineEmpty = false;
  /** Whether they end inside its first line. */
  #inFirstLine = false;
  /** The last byte of the head that was passed. */
  #lastByte = 0;
  /** Pieces of a response's head that wait for the body; null when nothing is held. */
  #held: Buffer[] | null = null;
  #sending = false;
  /** When the last response was sent and the connection began to wait for the peer's FIN; 0: not yet. */
  #lingerMs = 0;
  #discarded = 0;
  #timeoutMs = 0;
  #acked = 0;
  #progressMs = 0;

  constructor(raw: Socket) {
    super({ allowHalfOpen: true });
    this.raw = raw;
    raw.on('data', (chunk: Buffer) => this.#arrived(chunk));
    raw.on('end', () => this.#ended());
    raw.on('error', (error) => this.destroy(error));
    raw.on('close', () => this.destroy());
    raw.on('timeout', () => this.#timeout());
  }

  /** For node:http, and for the log. */
  get remoteAddress(): string | undefined {
    return this.raw.remoteAddress;
  }

  get remotePort(): number | undefined {
    return this.raw.remotePort;
  }

  setTimeout(ms: number, callback?: () => void): this {
    if (callback !== undefined) this.once('timeout', callback);
    this.#timeoutMs = ms;
    this.raw.setTimeout(ms);
    return this;
  }

  setNoDelay(noDelay?: boolean): this {
    this.raw.setNoDelay(noDelay);
    return this;
  }

  setKeepAlive(enable?: boolean, initialDelay?: number): this {
    this.raw.setKeepAlive(enable, initialDelay);
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  /** Call it when node:http listens to the gate: its parser must run before the listener added here. */
  open(): void {
    this.on('data', () => {
      this.#passing = false;
      this.#feed();
    });
  }

  /** The current request, with `body` bytes behind its head, is being answered. */
  requestStarted(body: number): void {
    this.#busy = true;
    this.#inHead = false;
    this.#body = body;
  }

  /** The response was handed over completely. The next request may come. */
  requestDone(): void {
    this.#busy = false;
    if (this.#last) this.destroySoon();
    else this.#feed();
  }

  /** Whether the response to the current request was started. A second one must not follow. */
  get answered(): boolean {
    return this.#busy || this.#body > 0;
  }

  /** Closes the connection, after the response if there is one under way. */
  finish(): void {
    if (this.#busy) this.#last = true;
    else this.destroySoon();
  }

  #arrived(chunk: Buffer): void {
    if (this.writableEnded) {
      this.#discarded += chunk.length;
      if (this.#discarded > DISCARD_MAX) this.destroy();
      return;
    }
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes > WAITING_MAX) this.raw.pause();
    this.#feed();
  }

  #ended(): void {
    this.#eof = true;
    if (this.#lingerMs > 0 && sendProgress(this.raw).unacked === 0) this.destroy();
    else this.#feed();
  }

  override _read(): void {
    this.#wanted = true;
    this.#feed();
  }

  /** Passes the next piece to node:http, if one is allowed. */
  #feed(): void {
    if (!this.#wanted || this.#passing || this.destroyed || this.writableEnded) return;
    if (this.#busy && this.#body === 0) return;
    const chunk = this.#waiting[0];
    if (chunk === undefined) {
      if (this.#eof && !this.#busy && !this.readableEnded) this.push(null);
      return;
    }
    let length = Math.min(this.#body, chunk.length);
    let piece = chunk.subarray(0, length);
    if (length > 0) {
      this.#body -= length;
    } else {
      const inLine = this.#inFirstLine || !this.#inHead;
      length = this.#headLength(chunk);
      piece = chunk.subarray(0, length);
      const last = piece.at(-1)!;
      piece = withCrLf(piece, this.#lastByte);
      this.#lastByte = last;
      if (inLine) piece = encodedTarget(piece);
    }
    if (length === chunk.length) this.#waiting.shift();
    else this.#waiting[0] = chunk.subarray(length);
    this.#waitingBytes -= length;
    if (this.#waitingBytes <= WAITING_MAX && this.raw.isPaused()) this.raw.resume();
    this.#passing = true;
    this.#wanted = false;
    this.push(piece);
  }

  /** Bytes of `chunk` up to the end of a head. Empty lines in front of a request are part of it. */
  #headLength(chunk: Buffer): number {
    for (let i = 0; i < chunk.length; i++) {
      const c = chunk[i];
      if (c === CR) continue;
      if (c !== LF) {
        if (!this.#inHead) this.#inFirstLine = true;
        this.#inHead = true;
        this.#lineEmpty = false;
        continue;
      }
      if (this.#inHead) this.#inFirstLine = false;
      if (this.#inHead && this.#lineEmpty) {
        this.#inHead = false;
        return i + 1;
      } else {
        this.#lineEmpty = true;
      }
    }
    return chunk.length;
  }

  /** Holds back what is written from now on, which is the head of a response, for `sendfile`. */
  hold(): void {
    this.#held = [];
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    if (this.#held === null) {
      this.#writeRaw(chunk, done);
      return;
    }
    this.#held.push(chunk);
    done();
  }

  override _writev(chunks: { chunk: Buffer }[], done: Done): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), 'latin1', done);
  }

  #writeRaw(chunk: Buffer, done: Done): void {
    this.raw.write(chunk, (error?: Error | null) => done(error ?? null));
  }

  /**
   * Sends what is held, and `nbytes` of `file` behind it. Resolves with the bytes of the file that
   * were accepted; rejects as the socket's `sendfile` does, with the same count in `bytes`.
   */
  async sendfile(file: File, offset: number, nbytes: number): Promise<number> {
    const head = Buffer.concat(this.#held ?? []);
    this.#held = null;
    this.#sending = true;
    const hdtr = { headers: [head], trailers: [] };
    try {
      return (await this.raw.sendfile(file, { offset, nbytes, hdtr })) - head.length;
    } catch (e) {
      const error = e as Error & { bytes?: number };
      throw Object.assign(error, { bytes: Math.max((error.bytes ?? 0) - head.length, 0) });
    } finally {
      this.#sending = false;
    }
  }

  override _final(done: Done): void {
    if (this.raw.destroyed) done();
    else this.raw.end(() => done());
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#waiting.length = 0;
    if (!this.raw.destroyed) this.raw.destroy();
    done(error);
  }

  /**
   * Ends the connection after the written data, and destroys it when the peer has received the data. A
   * socket that is closed with unread bytes sends a RST, and the peer may lose the last response.
   */
  destroySoon(): void {
    this.#waiting.length = 0;
    this.#waitingBytes = 0;
    if (!this.writableEnded) this.end();
    this.raw.resume();
    if (this.writableFinished) this.#linger();
    else this.once('finish', () => this.#linger());
  }

  #linger(): void {
    this.#lingerMs = performance.now();
    if (this.#eof && sendProgress(this.raw).unacked === 0) this.destroy();
  }

  /** Drops the connection with a RST. */
  resetAndDestroy(): void {
    if (!this.raw.destroyed) this.raw.resetAndDestroy();
    this.destroy();
  }

  /** A peer that does not read the response is not idle: `stalled` detects it. */
  #timeout(): void {
    if (!this.#busy && sendProgress(this.raw).unacked === 0) this.emit('timeout');
    else this.raw.setTimeout(this.#timeoutMs);
  }

  /**
   * Call it periodically. Destroys a connection that has waited long enough for the peer's FIN. Returns
   * whether the sent data has made no progress for `stallMs`.
   */
  stalled(nowMs: number, stallMs: number): boolean {
    if (this.destroyed) return false;
    const { acked, unacked } = sendProgress(this.raw);
    if ((unacked === 0 && !this.#sending) || acked !== this.#acked || this.#progressMs === 0) {
      this.#acked = acked;
      this.#progressMs = nowMs;
    }
    if (this.#lingerMs > 0 && unacked === 0 && (this.#eof || nowMs - this.#lingerMs > LINGER_MS))
      this.destroy();
    return nowMs - this.#progressMs > stallMs;
  }
}
