/**
 * A static file server on the emulated host. `client.ts` finds the requests of a connection; this file
 * answers them. sendfile sends the bodies, which never pass through a Buffer, in one unit with the header.
 * Left out: compression, several ranges in one response, methods other than GET and HEAD.
 */

import { type Conn, ConnListener } from '../../api/conn.ts';
import type { ListenOptions } from '../../api/server.ts';
import { EPIPE, type Errno, errnoName } from '../../sys/errno.ts';
import type { Folder } from '../../sys/folder.ts';
import {
  count,
  R_HTTP_BAD_REQUEST,
  R_HTTP_BODY,
  R_HTTP_CONN_LIMIT,
  R_HTTP_FILE_TIMEOUT,
  R_HTTP_HEAD_SIZE,
  R_HTTP_HEAD_TIMEOUT,
  R_HTTP_IDLE_TIMEOUT,
  R_HTTP_SEND_STALL,
} from '../../sys/reason.ts';
import { Client, type Server, type Trouble } from './client.ts';
import { FileCache, OpenFile } from './file_cache.ts';
import { find, statusOf } from './files.ts';
import { type Head, hostProblem } from './head.ts';
import { BODY_MAX, LimitedLog, type Limits, type Logger } from './limits.ts';
import { listing, ListingError } from './listing.ts';
import {
  type Exchange,
  headBytes,
  headText,
  nowS,
  refusal,
  sendHead,
  sendPieces,
  sendText,
} from './responses.ts';
import { notModified, preconditionFailed, rangeOf } from './semantics.ts';
import { directoryLocation, percentEncoded, targetOf } from './url_path.ts';

/** Connections over the limit that are answered with 503; further ones are reset. */
const REFUSED_MAX = 64;
const SECOND_MS = 1000;
/** The methods of every resource. */
const ALLOW = 'Allow: GET, HEAD, OPTIONS\r\n';
const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n');

interface ServeOptions {
  /** Directory to serve. */
  readonly folder: Folder;
  readonly log: Logger;
  readonly limits: Limits;
}

/** The stack of the emulated host. */
type Vnet = ConstructorParameters<typeof ConnListener>[0];

/** A running file server. */
export class HttpApp implements Server {
  readonly #folder: Folder;
  readonly #log: LimitedLog;
  readonly #limits: Limits;
  readonly #keepAliveS: number;
  readonly #files: FileCache;
  readonly #clients = new Set<Client>();
  readonly #listener: ConnListener;
  readonly #timer: NodeJS.Timeout;
  #secondMs = performance.now();
  #closing = false;

  /** Throws TapnicError EADDRINUSE. */
  constructor(vnet: Vnet, where: ListenOptions, options: ServeOptions) {
    const { headMs, idleMs, stallMs } = options.limits;
    this.#folder = options.folder;
    this.#log = new LimitedLog(options.log);
    this.#limits = options.limits;
    this.#keepAliveS = Math.floor(idleMs / 1000);
    this.#files = new FileCache(options.folder);
    this.#listener = new ConnListener(vnet, where, (conn) => this.#accepted(conn));
    const sweepMs = Math.min(SECOND_MS, headMs, idleMs, stallMs);
    this.#timer = setInterval(() => this.#sweep(), sweepMs).unref();
  }

  #accepted(conn: Conn): void {
    const client = new Client(conn, this);
    const connections = this.#clients.size;
    const { connections: max } = this.#limits;
    if (connections >= max) {
      count(R_HTTP_CONN_LIMIT);
      this.#log.warn({ peer: client.peer, connections }, 'too many connections');
      if (connections >= max + REFUSED_MAX) {
        client.reset();
        return;
      }
    }
    this.#clients.add(client);
    conn.open(client);
    if (connections >= max) client.refuse(refusal(503));
  }

  closed(client: Client): void {
    this.#clients.delete(client);
  }

  failed(client: Client, code: string): void {
    this.#log.info({ peer: client.peer, code }, 'connection error');
  }

  trouble(client: Client, kind: Trouble, why: string): void {
    switch (kind) {
      case 'head_timeout':
        count(R_HTTP_HEAD_TIMEOUT);
        // The rest of the request's body did not arrive in time.
        if (client.answered) client.finish();
        else client.refuse(refusal(408));
        break;
      case 'head_size':
        count(R_HTTP_HEAD_SIZE);
        client.refuse(refusal(431));
        break;
      case 'bad_request':
        count(R_HTTP_BAD_REQUEST);
        this.#log.info({ peer: client.peer, why }, 'bad request');
        client.refuse(refusal(400));
    }
  }

  #sweep(): void {
    const now = performance.now();
    for (const client of this.#clients) this.#expire(client, now);
    if (now - this.#secondMs < SECOND_MS / 2) return;
    this.#secondMs = now;
    this.#files.sweep();
    this.#log.second();
  }

  #expire(client: Client, now: number): void {
    switch (client.late(now, this.#limits)) {
      case 'no':
        break;
      case 'request':
        this.trouble(client, 'head_timeout', '');
        break;
      case 'idle':
        count(R_HTTP_IDLE_TIMEOUT);
        client.end();
        break;
      case 'stalled':
        count(R_HTTP_SEND_STALL);
        this.#log.info({ peer: client.peer }, 'a client does not read its response');
        client.reset();
    }
  }

  /** Stops accepting connections, and ends each open connection when its response is sent. */
  close(): void {
    this.#closing = true;
    this.#listener.close();
    this.#files.close();
    for (const client of this.#clients) client.finish();
  }

  /** Resets every open connection. */
  destroy(): void {
    clearInterval(this.#timer);
    this.#log.second();
    this.#listener.close();
    this.#files.close();
    for (const client of this.#clients) client.reset();
  }

  request(client: Client, head: Head): void {
    const x: Exchange = { client, head, keepAliveS: this.#keepAliveS, started: false };
    try {
      this.#respond(x);
    } catch (error) {
      this.#abort(x, error);
    }
  }

  #respond(x: Exchange): void {
    const { client, head } = x;
    if (head.length > 0 || head.encoded) {
      if (head.encoded || head.length > BODY_MAX) {
        count(R_HTTP_BODY);
        client.finish();
        if (head.encoded) sendText(x, 411, 'Length Required');
        else sendText(x, 413, 'Content Too Large');
        return;
      }
      client.expectBody(head.length);
      if (/^100-continue$/i.test(head.fields.expect ?? '')) client.interim(CONTINUE);
    }
    this.#answer(x);
  }

  #answer(x: Exchange): void {
    const { client, head } = x;
    if (head.version !== '1.1' && head.version !== '1.0') {
      sendText(x, 505, 'HTTP Version Not Supported');
      return;
    }
    if (head.method === 'CONNECT') {
      client.refuse(refusal(405, ALLOW));
      return;
    }
    const get = head.method === 'GET' || head.method === 'HEAD';
    const problem = hostProblem(head);
    if (get && problem === null) {
      const file = this.#files.get(keyOf(head.target));
      if (file !== null) {
        this.#sendFile(x, file);
        return;
      }
    }
    const options = head.method === 'OPTIONS';
    // The target * means the server itself.
    const target =
      problem === null ? targetOf(options && head.target === '*' ? '/' : head.target) : 400;
    if (target === 400) {
      count(R_HTTP_BAD_REQUEST);
      sendText(x, 400, problem ?? 'Bad Request');
    } else if (options) {
      sendHead(x, 204, ALLOW);
    } else if (!get) {
      sendText(x, 405, 'Method Not Allowed', ALLOW);
    } else if (target === 403) {
      sendText(x, 403, 'EACCES');
    } else {
      this.#lookup(x, target).catch((error: unknown) => this.#abort(x, error));
    }
  }

  async #lookup(x: Exchange, target: Exclude<ReturnType<typeof targetOf>, number>): Promise<void> {
    const found = await find(this.#folder, target.path, target.slash);
    switch (found.kind) {
      case 'error':
        this.#failed(x, found.status, found.code);
        return;
      case 'redirect':
        sendText(x, 301, 'Moved Permanently', `Location: ${directoryLocation(target)}\r\n`);
        return;
      case 'directory':
        await this.#sendListing(x, found.fd, target.path);
        return;
      case 'file': {
        const file = new OpenFile(this.#folder, found);
        const kept = this.#files.put(keyOf(x.head.target), file);
        try {
          this.#sendFile(x, file);
        } finally {
          if (!kept) file.file.drop();
        }
      }
    }
  }

  #failed(x: Exchange, status: number, code: string): void {
    if (code === 'ETIMEDOUT') count(R_HTTP_FILE_TIMEOUT);
    if (status >= 500) this.#log.warn({ url: shortUrl(x.head), code }, 'cannot open');
    sendText(x, status, code);
  }

  async #sendListing(x: Exchange, fd: number, path: Buffer): Promise<void> {
    const name = path.length === 0 ? '/' : `/${path.toString('latin1')}/`;
    try {
      await sendPieces(x, listing(this.#folder, fd, name));
    } catch (e) {
      if (!(e instanceof ListingError) || x.started) throw e;
      this.#failed(x, statusOf(e.code), e.code);
    } finally {
      this.#folder.close(fd);
    }
  }

  #sendFile(x: Exchange, file: OpenFile): void {
    const { head, client } = x;
    if (head.conditional || head.method === 'HEAD' || client.last || file.size === 0) {
      this.#sendPart(x, file);
      return;
    }
    const second = nowS();
    if (file.headS !== second) {
      file.headS = second;
      file.head = [
        Buffer.from(headText(200, contents(file, file.size), this.#keepAliveS), 'latin1'),
      ];
    }
    x.started = true;
    this.#sendBytes(x, file, 0, file.size, file.head);
  }

  /** Answers conditions, ranges and HEAD. */
  #sendPart(x: Exchange, file: OpenFile): void {
    const { head } = x;
    const { size, etag, mtimeMs, fields } = file;
    if (preconditionFailed(head, etag, mtimeMs)) {
      sendText(x, 412, 'Precondition Failed', fields);
      return;
    }
    if (notModified(head, etag, mtimeMs)) {
      sendHead(x, 304, fields);
      return;
    }
    const range =
      head.method === 'GET' ? rangeOf(head, size, etag, mtimeMs) : { kind: 'all' as const };
    if (range.kind === 'bad') {
      sendText(x, 416, 'Range Not Satisfiable', `${fields}Content-Range: bytes */${size}\r\n`);
      return;
    }
    const partial = range.kind === 'range';
    const offset = partial ? range.first : 0;
    const nbytes = partial ? range.last - range.first + 1 : size;
    const which = partial ? `Content-Range: bytes ${range.first}-${range.last}/${size}\r\n` : '';
    const header = headBytes(x, partial ? 206 : 200, contents(file, nbytes, which));
    if (head.method === 'HEAD' || nbytes === 0) x.client.respond(header);
    else this.#sendBytes(x, file, offset, nbytes, [header]);
  }

  /** Sends the header and, by reference, the body. */
  #sendBytes(
    x: Exchange,
    { file }: OpenFile,
    offset: number,
    nbytes: number,
    header: Uint8Array[],
  ): void {
    x.client.sendfile(file, offset, nbytes, header, (error, bytes) => {
      const sent = Math.max(bytes - header[0]!.length, 0);
      if (error === 0 && sent === nbytes) x.client.done();
      else this.#cutShort(x, error, sent, nbytes);
    });
  }

  #cutShort({ client, head }: Exchange, error: Errno, sent: number, nbytes: number): void {
    // close() ended the connection during the transfer. The client sees a FIN after the queued
    // data.
    if (client.closed || (this.#closing && error === EPIPE)) return;
    // The header promised more bytes than were sent. Only a reset shows the client the error.
    const code = error === 0 ? 'truncated' : errnoName(error);
    this.#log.warn(
      { url: shortUrl(head), peer: client.peer, code, sent, nbytes },
      'response cut short',
    );
    client.reset();
  }

  #abort(x: Exchange, error: unknown): void {
    this.#log.warn({ url: shortUrl(x.head), error: String(error) }, 'request failed');
    if (!x.started) sendText(x, 500, 'Internal Server Error');
    else x.client.reset();
  }
}

/** The fields of a response with `nbytes` of a file. `range`: the field that says which ones. */
function contents({ fields, type }: OpenFile, nbytes: number, range = ''): string {
  return `${fields}${range}${type}Content-Length: ${nbytes}\r\n`;
}

/** The part of a target that decides which file it names. */
function keyOf(target: string): string {
  const query = target.indexOf('?');
  return query < 0 ? target : target.slice(0, query);
}

/** The request's target for the log: as ASCII, and not all of a long one. */
function shortUrl({ target }: Head): string {
  return target.slice(0, 200).replace(/[^\x21-\x7e]/g, percentEncoded);
}
