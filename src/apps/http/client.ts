/**
 * One connection of a client: it finds the requests in what arrives, one at a time, skips their bodies,
 * sends the responses in order, and ends in such a way that the client receives the last one. Bytes
 * behind the request that is being answered are not read, so that TCP's window closes.
 */

import type { Conn, ConnUser } from '../../api/conn.ts';
import type { File } from '../../api/file.ts';
import { type Errno, errnoName, EWOULDBLOCK } from '../../sys/errno.ts';
import { peerText } from '../peer_text.ts';
import { type Head, headEnd, parseHead, skipEmptyLines } from './head.ts';
import { HEAD_MAX, type Limits } from './limits.ts';

/** Limit of the bytes that are discarded after the last response. */
const DISCARD_MAX = 1 << 20;
/** How long the peer may send after the last response, ms. */
const LINGER_MS = 2000;
/** Requests of a connection that are answered in one turn. */
const TURN_REQUESTS = 16;

/** What arrives is read into it, and taken out at once. */
const input = Buffer.alloc(16384);

/** Why a connection has to end. */
export type Trouble = 'head_timeout' | 'head_size' | 'bad_request';

/** What answers requests. */
export interface Server {
  /** Answers with `respond` or `sendfile`, now or later. It must not throw. */
  request(client: Client, head: Head): void;
  /** Answers what is not a request, and ends the connection. @param why what is wrong */
  trouble(client: Client, kind: Trouble, why: string): void;
  /** The connection failed. @param code the errno's name */
  failed(client: Client, code: string): void;
  closed(client: Client): void;
}

/** What becomes of a time-out's check. */
type Late = 'no' | 'request' | 'idle' | 'stalled';

export class Client implements ConnUser {
  readonly #conn: Conn;
  readonly #server: Server;
  readonly #peer: { address: string; port: number } | null;
  /** What has arrived and is not used up: #text from #at on, one character for each byte. */
  #text = '';
  #at = 0;
  readonly #scanned = { line: 0 };
  /** Bytes of the current request's body still to come. */
  #body = 0;
  /** A request is being answered. */
  #busy = false;
  /** `#serve` is running. */
  #serving = false;
  /** The peer has sent its FIN, and it was read. */
  #eof = false;
  /** The connection ends with the response under way. */
  #last = false;
  /** Our side was ended. What arrives is discarded. */
  #ended = false;
  #discarded = 0;
  /** What is left of a response, from #outAt on. */
  #out: Uint8Array | null = null;
  #outAt = 0;
  /** `ready` will be called for room in the send buffer. */
  #wantsRoom = false;
  #sentFile: ((error: Errno, bytes: number) => void) | null = null;
  #drained: ((open: boolean) => void) | null = null;
  /** When the current request began, or the last response was sent, or our side was ended. */
  #sinceMs: number;
  #acked = 0;
  #progressMs = 0;
  /** A response was sent and no byte of the next request has arrived. */
  #idle = false;
  /** Idle, and the peer has acknowledged everything: nothing can be late until the next request. */
  #quiet = false;

  constructor(conn: Conn, server: Server) {
    this.#conn = conn;
    this.#server = server;
    this.#peer = conn.peer();
    this.#sinceMs = performance.now();
  }

  get closed(): boolean {
    return this.#conn.closed;
  }

  /** The peer's address and port, for the log. */
  get peer(): string {
    return peerText(this.#peer?.address, this.#peer?.port);
  }

  /** Whether the connection ends after the current response. */
  get last(): boolean {
    return this.#last;
  }

  /** Whether a response was started, and the request has not ended. */
  get answered(): boolean {
    return this.#busy || this.#body > 0;
  }

  ready(): void {
    this.#wantsRoom = false;
    if (this.#ended) this.#discard();
    else if (this.#out !== null) this.#flush();
    else this.#serve();
  }

  /** Answers the requests that have arrived. */
  #serve(): void {
    if (this.#serving) return;
    this.#serving = true;
    let left = TURN_REQUESTS;
    while (!this.#busy && !this.#ended && !this.closed) {
      if (left-- === 0) {
        this.#conn.again();
        break;
      }
      if (!this.#next()) break;
    }
    this.#serving = false;
  }

  /** Passes on the next request. Returns false if it has not arrived. */
  #next(): boolean {
    for (;;) {
      if (this.#body > 0) this.#skipBody();
      if (this.#body === 0) {
        const start = skipEmptyLines(this.#text, this.#at);
        const end = start === this.#text.length ? -1 : headEnd(this.#text, start, this.#scanned);
        if (end >= 0) {
          this.#request(start, end);
          return true;
        }
        if (this.#text.length - start > HEAD_MAX) {
          this.#server.trouble(this, 'head_size', 'the header is too large');
          return false;
        }
      }
      if (!this.#fill()) return false;
    }
  }

  #request(start: number, end: number): void {
    if (end - start > HEAD_MAX) {
      this.#server.trouble(this, 'head_size', 'the header is too large');
      return;
    }
    const head = parseHead(this.#text, start, end);
    this.#at = end;
    if (typeof head === 'string') {
      this.#server.trouble(this, 'bad_request', head);
      return;
    }
    this.#busy = true;
    if (!head.keepAlive) this.#last = true;
    this.#server.request(this, head);
  }

  /** The current request has a body of `bytes`, which is ignored. */
  expectBody(bytes: number): void {
    this.#body = bytes;
  }

  #skipBody(): void {
    const n = Math.min(this.#body, this.#text.length - this.#at);
    this.#body -= n;
    this.#at += n;
    if (this.#body === 0) this.#wait();
  }

  /** Waits for the next request, of which the beginning may have arrived. */
  #wait(): void {
    this.#idle = true;
    this.#sinceMs = performance.now();
    if (skipEmptyLines(this.#text, this.#at) < this.#text.length) {
      this.#begin();
      return;
    }
    this.#text = '';
    this.#at = 0;
  }

  /** Reads what has arrived. Returns false if nothing has. */
  #fill(): boolean {
    if (this.#eof || !this.#conn.readable) {
      if (this.#eof) this.#endOfData();
      return false;
    }
    const n = this.#conn.recv(input);
    if (n === -EWOULDBLOCK) return false;
    if (n < 0) {
      this.#fail(-n);
      return false;
    }
    if (n === 0) {
      this.#eof = true;
      this.#endOfData();
      return false;
    }
    const text = input.toString('latin1', 0, n);
    if (this.#at < this.#text.length) {
      this.#text = this.#text.slice(this.#at) + text;
      this.#scanned.line = Math.max(this.#scanned.line - this.#at, 0);
    } else {
      this.#text = text;
      this.#scanned.line = 0;
    }
    this.#at = 0;
    if (this.#idle) this.#begin();
    return true;
  }

  /** A request begins. */
  #begin(): void {
    this.#idle = false;
    this.#quiet = false;
    // `late` did not look at a quiet connection.
    this.#progressMs = 0;
    this.#sinceMs = performance.now();
  }

  /** The peer has ended its side, and all its requests were answered. */
  #endOfData(): void {
    const partial = skipEmptyLines(this.#text, this.#at) < this.#text.length;
    if (partial && this.#body === 0)
      this.#server.trouble(this, 'bad_request', 'the connection ended inside a header');
    else this.end();
  }

  #fail(error: Errno): void {
    this.close();
    this.#server.failed(this, errnoName(error));
  }

  /** Sends all of `bytes` instead of a response, and ends the connection. */
  refuse(bytes: Uint8Array): void {
    this.#busy = true;
    this.#last = true;
    this.respond(bytes);
  }

  /** Sends all of `bytes`, which end a response. */
  respond(bytes: Uint8Array): void {
    if (this.closed) return;
    this.#out = bytes;
    this.#outAt = 0;
    this.#flush();
  }

  /** Sends `bytes`, to which more will follow. Resolves when they fit; false if the client has gone. */
  write(bytes: Uint8Array): Promise<boolean> {
    return new Promise((resolve) => {
      this.#drained = resolve;
      this.#out = bytes;
      this.#outAt = 0;
      this.#flush();
    });
  }

  /** Sends `bytes` beside a response: what does not fit is lost, and so is the connection. */
  interim(bytes: Uint8Array): void {
    if (this.#conn.send(bytes, 0) !== bytes.length) this.reset();
  }

  #flush(): void {
    const out = this.#out!;
    while (this.#outAt < out.length) {
      const n = this.#conn.send(out, this.#outAt);
      if (n === -EWOULDBLOCK) {
        if (!this.#wantsRoom) this.#conn.wantRoom();
        this.#wantsRoom = true;
        return;
      }
      if (n < 0) {
        this.#fail(-n);
        return;
      }
      this.#outAt += n;
    }
    this.#out = null;
    const drained = this.#drained;
    this.#drained = null;
    if (drained === null) this.done();
    else drained(true);
  }

  /** Sends `header`, and `nbytes` of `file` behind it. `done` receives the bytes of the file. */
  sendfile(
    file: File,
    offset: number,
    nbytes: number,
    header: Uint8Array[],
    done: (error: Errno, bytes: number) => void,
  ): void {
    this.#sentFile = done;
    const error = this.#conn.sendfile(file, offset, nbytes, { headers: header, trailers: [] });
    if (error !== 0) this.sent(error, 0);
  }

  sent(error: Errno, bytes: number): void {
    const done = this.#sentFile!;
    this.#sentFile = null;
    done(error, bytes);
  }

  /** The response was handed over completely. The next request may come. */
  done(): void {
    this.#busy = false;
    if (this.#last) {
      this.end();
      return;
    }
    if (this.#body === 0) this.#wait();
    if (this.#serving) return;
    // What arrived meanwhile.
    if (this.#at < this.#text.length || this.#conn.readable) this.#conn.again();
  }

  /** Closes the connection, after the response if there is one under way. */
  finish(): void {
    if (this.#busy) this.#last = true;
    else this.end();
  }

  /**
   * Ends our side after the sent data. The connection is closed when the peer has received it: a socket
   * that is closed with unread bytes sends a RST, and the peer may lose the last response.
   */
  end(): void {
    if (this.#ended || this.closed) return;
    this.#ended = true;
    this.#text = '';
    this.#at = 0;
    this.#sinceMs = performance.now();
    this.#conn.shutdown();
    this.#discard();
  }

  #discard(): void {
    while (!this.closed && !this.#eof) {
      const n = this.#conn.recv(input);
      if (n === -EWOULDBLOCK) return;
      if (n < 0) {
        this.#fail(-n);
        return;
      }
      this.#eof = n === 0;
      this.#discarded += n;
      if (this.#discarded > DISCARD_MAX) this.close();
    }
    if (!this.closed && this.#conn.progress.unacked === 0) this.close();
  }

  close(): void {
    if (this.closed) return;
    this.#conn.close();
    this.#gone();
  }

  /** Drops the connection with a RST. */
  reset(): void {
    if (this.closed) return;
    this.#conn.reset();
    this.#gone();
  }

  #gone(): void {
    this.#text = '';
    this.#out = null;
    const drained = this.#drained;
    this.#drained = null;
    drained?.(false);
    this.#server.closed(this);
  }

  /**
   * Call it periodically. Closes a connection that has waited long enough for the peer's FIN. Returns
   * which time-out has expired.
   */
  late(nowMs: number, { headMs, requestMs, idleMs, stallMs }: Limits): Late {
    if (this.#quiet && !this.#ended && nowMs - this.#sinceMs <= idleMs) return 'no';
    const { acked, unacked } = this.#conn.progress;
    const sending = this.#sentFile !== null || this.#out !== null;
    if ((unacked === 0 && !sending) || acked !== this.#acked || this.#progressMs === 0) {
      this.#acked = acked;
      this.#progressMs = nowMs;
    }
    if (nowMs - this.#progressMs > stallMs) return 'stalled';
    const ms = nowMs - this.#sinceMs;
    if (this.#ended) {
      if (unacked === 0 && (this.#eof || ms > LINGER_MS)) this.close();
      return 'no';
    }
    if (this.#idle) {
      // A peer that does not read the response is not idle.
      if (unacked > 0) this.#sinceMs = nowMs;
      else if (!sending) this.#quiet = true;
      return unacked === 0 && ms > idleMs ? 'idle' : 'no';
    }
    if (this.#body > 0) return ms > requestMs ? 'request' : 'no';
    return !this.#busy && ms > headMs ? 'request' : 'no';
  }
}
