/**
 * A static file server on the emulated host. node:http handles HTTP behind a gate that gives it one
 * request at a time; sendfile sends the bodies, which never pass through a Buffer. Left out:
 * compression, several ranges in one response, methods other than GET and HEAD.
 */

import { type IncomingMessage, Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { openFile, type File } from '../../api/file.ts';
import type { Socket } from '../../api/socket.ts';
import type { Folder } from '../../sys/folder.ts';
import {
  count,
  type Reason,
  R_HTTP_BAD_REQUEST,
  R_HTTP_BODY,
  R_HTTP_CONN_LIMIT,
  R_HTTP_FILE_TIMEOUT,
  R_HTTP_HEAD_SIZE,
  R_HTTP_HEAD_TIMEOUT,
  R_HTTP_IDLE_TIMEOUT,
  R_HTTP_SEND_STALL,
} from '../../sys/reason.ts';
import { peerText } from '../peer_text.ts';
import { contentType, find, type FoundFile, statusOf } from './files.ts';
import { Gate } from './gate.ts';
import { BODY_MAX, HEAD_MAX, LimitedLog, type Limits, type Logger } from './limits.ts';
import { listing, ListingError } from './listing.ts';
import { hostProblem, sendPieces, sendText } from './responses.ts';
import { etagOf, notModified, preconditionFailed, rangeOf } from './semantics.ts';
import { directoryLocation, percentEncoded, targetOf } from './url_path.ts';

/** Connections over the limit that are answered with 503; further ones are reset. */
const REFUSED_MAX = 64;
const SWEEP_MS = 1000;
/** The methods of every resource. */
const ALLOW = 'GET, HEAD, OPTIONS';
const NOT_ALLOWED = '405 Method Not Allowed';

interface ServeOptions {
  /** Directory to serve. */
  readonly folder: Folder;
  readonly log: Logger;
  readonly limits: Limits;
}

/** A running file server. */
export class HttpApp {
  /** What is to listen. */
  readonly server: Server;
  readonly #folder: Folder;
  readonly #log: LimitedLog;
  readonly #limits: Limits;
  readonly #gates = new Set<Gate>();
  readonly #sweep: NodeJS.Timeout;
  #closing = false;

  constructor(options: ServeOptions) {
    this.#folder = options.folder;
    this.#log = new LimitedLog(options.log);
    this.#limits = options.limits;
    this.server = this.#makeServer();
    this.#sweep = setInterval(() => this.#everySecond(), SWEEP_MS).unref();
  }

  #makeServer(): Server {
    const { headMs, requestMs, idleMs } = this.#limits;
    const http = new Server({
      headersTimeout: headMs,
      requestTimeout: requestMs,
      keepAliveTimeout: idleMs,
      connectionsCheckingInterval: Math.min(1000, headMs),
      maxHeaderSize: HEAD_MAX,
      // `#respond` checks the header, and answers in turn.
      requireHostHeader: false,
    });
    // Put a gate in front of node:http's own listener, which attaches its parser.
    const [parse] = http.listeners('connection');
    http.removeAllListeners('connection');
    http.on('connection', (socket) => {
      this.#connection(socket as unknown as Socket, (gate) => parse!.call(http, gate));
    });
    const request = (req: IncomingMessage, res: ServerResponse): void => {
      this.#request(req, res);
    };
    http.on('request', request);
    // The header Expect: respond as to any request.
    http.on('checkContinue', request);
    http.on('checkExpectation', request);
    http.on('connect', (_req, socket) => refuse(socket, NOT_ALLOWED));
    http.on('clientError', (error, socket) => this.#clientError(error, socket));
    http.on('timeout', (socket) => {
      count(R_HTTP_IDLE_TIMEOUT);
      socket.destroySoon();
    });
    return http;
  }

  #connection(socket: Socket, parse: (gate: Gate) => void): void {
    const gate = new Gate(socket);
    if (this.#gates.size >= this.#limits.connections) {
      this.#overLimit(gate);
      return;
    }
    this.#gates.add(gate);
    gate.once('close', () => this.#gates.delete(gate));
    gate.on('error', (error: NodeJS.ErrnoException) => {
      this.#log.info({ peer: peerOf(gate), code: error.code }, 'connection error');
    });
    parse(gate);
    gate.open();
  }

  /** Refuses a connection: up to REFUSED_MAX with a response, the others with a reset. */
  #overLimit(gate: Gate): void {
    count(R_HTTP_CONN_LIMIT);
    const connections = this.#gates.size;
    this.#log.warn({ peer: peerOf(gate), connections }, 'too many connections');
    gate.on('error', () => undefined);
    if (connections >= this.#limits.connections + REFUSED_MAX) {
      gate.resetAndDestroy();
      return;
    }
    this.#gates.add(gate);
    gate.once('close', () => this.#gates.delete(gate));
    refuse(gate, '503 Service Unavailable');
  }

  #clientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    const { code } = error;
    if (!socket.writable || code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    const [why, status] = errorStatus(error);
    count(why);
    if ((socket as Gate).answered) {
      // The rest of the request's body did not arrive in time.
      (socket as Gate).finish();
      return;
    }
    if (why === R_HTTP_BAD_REQUEST)
      this.#log.info({ peer: peerOf(socket as Gate), code }, 'bad request');
    refuse(socket, status);
  }

  #everySecond(): void {
    const now = performance.now();
    for (const gate of this.#gates) {
      if (!gate.stalled(now, this.#limits.stallMs)) continue;
      count(R_HTTP_SEND_STALL);
      this.#log.info({ peer: peerOf(gate) }, 'a client does not read its response');
      gate.resetAndDestroy();
    }
    this.#log.second();
  }

  /** Stops accepting connections, and ends each open connection when its response is sent. */
  close(): void {
    this.#closing = true;
    this.server.close();
    for (const gate of this.#gates) gate.finish();
  }

  /** Resets every open connection. */
  destroy(): void {
    clearInterval(this.#sweep);
    this.#log.second();
    this.server.close();
    for (const gate of this.#gates) gate.resetAndDestroy();
  }

  #request(req: IncomingMessage, res: ServerResponse): void {
    const gate = req.socket as unknown as Gate;
    if (gate.answered) {
      // node:http found the end of a head where the gate did not.
      count(R_HTTP_BAD_REQUEST);
      gate.resetAndDestroy();
      return;
    }
    const length = Number(req.headers['content-length'] ?? 0);
    const encoded = req.headers['transfer-encoding'] !== undefined;
    const refused = encoded || length > BODY_MAX;
    gate.requestStarted(refused ? 0 : length);
    // An unfinished response is never followed by another one.
    res.once('finish', () => gate.requestDone());
    res.setHeader('Server', 'tapnic');
    req.resume();
    if (refused) {
      count(R_HTTP_BODY);
      res.shouldKeepAlive = false;
      if (encoded) sendText(req, res, 411, 'Length Required');
      else sendText(req, res, 413, 'Content Too Large');
      return;
    }
    if (length > 0 && /^100-continue$/i.test(req.headers.expect ?? '')) res.writeContinue();
    this.#respond(gate, req, res).catch((error: unknown) => this.#abort(gate, req, res, error));
  }

  async #respond(gate: Gate, req: IncomingMessage, res: ServerResponse): Promise<void> {
    if (req.httpVersionMajor !== 1) {
      res.shouldKeepAlive = false;
      sendText(req, res, 505, 'HTTP Version Not Supported');
      return;
    }
    const problem = hostProblem(req);
    const options = req.method === 'OPTIONS';
    // The target * means the server itself.
    const url = options && req.url === '*' ? '/' : (req.url ?? '/');
    const target = problem === null ? targetOf(url) : 400;
    if (target === 400) {
      count(R_HTTP_BAD_REQUEST);
      sendText(req, res, 400, problem ?? 'Bad Request');
      return;
    }
    if (options) {
      res.writeHead(204, { Allow: ALLOW }).end();
      return;
    }
    if (req.method !== 'GET' && req.method !== 'HEAD') {
      res.setHeader('Allow', ALLOW);
      sendText(req, res, 405, 'Method Not Allowed');
      return;
    }
    if (target === 403) {
      sendText(req, res, 403, 'EACCES');
      return;
    }
    const found = await find(this.#folder, target.path, target.slash);
    switch (found.kind) {
      case 'error':
        this.#failed(req, res, found.status, found.code);
        return;
      case 'redirect':
        res.setHeader('Location', directoryLocation(target));
        sendText(req, res, 301, 'Moved Permanently');
        return;
      case 'directory':
        await this.#sendListing(req, res, found.fd, target.path);
        return;
      case 'file':
        await this.#sendFile(gate, req, res, found);
    }
  }

  #failed(req: IncomingMessage, res: ServerResponse, status: number, code: string): void {
    if (code === 'ETIMEDOUT') count(R_HTTP_FILE_TIMEOUT);
    if (status >= 500) this.#log.warn({ url: shortUrl(req), code }, 'cannot open');
    sendText(req, res, status, code);
  }

  async #sendListing(
    req: IncomingMessage,
    res: ServerResponse,
    fd: number,
    path: Buffer,
  ): Promise<void> {
    const name = path.length === 0 ? '/' : `/${path.toString('latin1')}/`;
    try {
      await sendPieces(req, res, listing(this.#folder, fd, name));
    } catch (e) {
      if (!(e instanceof ListingError) || res.headersSent) throw e;
      this.#failed(req, res, statusOf(e.code), e.code);
    } finally {
      this.#folder.close(fd);
    }
  }

  async #sendFile(
    gate: Gate,
    req: IncomingMessage,
    res: ServerResponse,
    found: FoundFile,
  ): Promise<void> {
    const file = openFile(found.fd, (fd) => this.#folder.close(fd));
    try {
      const etag = etagOf(found.size, found.mtimeMs);
      res.setHeader('ETag', etag);
      res.setHeader('Last-Modified', new Date(found.mtimeMs).toUTCString());
      res.setHeader('Accept-Ranges', 'bytes');
      if (preconditionFailed(req, etag, found.mtimeMs)) {
        sendText(req, res, 412, 'Precondition Failed');
        return;
      }
      if (notModified(req, etag, found.mtimeMs)) {
        res.writeHead(304).end();
        return;
      }
      await this.#sendRange(gate, req, res, found, file, etag);
    } finally {
      file.drop();
    }
  }

  async #sendRange(
    gate: Gate,
    req: IncomingMessage,
    res: ServerResponse,
    found: FoundFile,
    file: File,
    etag: string,
  ): Promise<void> {
    const { size } = found;
    const range =
      req.method === 'GET' ? rangeOf(req, size, etag, found.mtimeMs) : { kind: 'all' as const };
    if (range.kind === 'bad') {
      res.setHeader('Content-Range', `bytes */${size}`);
      sendText(req, res, 416, 'Range Not Satisfiable');
      return;
    }
    const partial = range.kind === 'range';
    const offset = partial ? range.first : 0;
    const nbytes = partial ? range.last - range.first + 1 : size;
    res.statusCode = partial ? 206 : 200;
    if (partial) res.setHeader('Content-Range', `bytes ${range.first}-${range.last}/${size}`);
    res.setHeader('Content-Type', contentType(found.path));
    res.setHeader('Content-Length', nbytes);
    if (req.method === 'HEAD' || nbytes === 0) {
      res.end();
      return;
    }
    await this.#sendBytes(gate, req, res, file, offset, nbytes);
  }

  /** Sends the header and, by reference, the body. */
  async #sendBytes(
    gate: Gate,
    req: IncomingMessage,
    res: ServerResponse,
    file: File,
    offset: number,
    nbytes: number,
  ): Promise<void> {
    if (gate.destroyed) return;
    gate.hold();
    res.flushHeaders();
    let sent = 0;
    let code = 'truncated';
    try {
      sent = await gate.sendfile(file, offset, nbytes);
    } catch (e) {
      const error = e as NodeJS.ErrnoException & { bytes?: number };
      sent = error.bytes ?? 0;
      code = error.code ?? 'EIO';
    }
    if (sent === nbytes) {
      res.end();
      return;
    }
    // close() ended the connection during the transfer. The client sees a FIN after the queued
    // data.
    if (this.#closing && code === 'EPIPE') return;
    // The header promised more bytes than were sent. Only a reset shows the client the error.
    this.#log.warn(
      { url: shortUrl(req), peer: peerOf(gate), code, sent, nbytes },
      'response cut short',
    );
    gate.resetAndDestroy();
  }

  #abort(gate: Gate, req: IncomingMessage, res: ServerResponse, error: unknown): void {
    this.#log.warn({ url: shortUrl(req), error: String(error) }, 'request failed');
    if (!res.headersSent) sendText(req, res, 500, 'Internal Server Error');
    else gate.resetAndDestroy();
  }
}

/** What an error of node:http's parser or its time-outs is counted as and answered with. */
function errorStatus(error: NodeJS.ErrnoException): [Reason, string] {
  const { code } = error;
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return [R_HTTP_HEAD_TIMEOUT, '408 Request Timeout'];
  if (code === 'HPE_HEADER_OVERFLOW')
    return [R_HTTP_HEAD_SIZE, '431 Request Header Fields Too Large'];
  // node:http knows only the registered methods. Another one is a method, too.
  const { rawPacket } = error as { rawPacket?: Buffer };
  if (code === 'HPE_INVALID_METHOD' && /^[A-Z][A-Z_-]* +\//.test(startOf(rawPacket)))
    return [R_HTTP_BAD_REQUEST, NOT_ALLOWED];
  return [R_HTTP_BAD_REQUEST, '400 Bad Request'];
}

/** The beginning of a request, without empty lines in front. */
function startOf(piece: Buffer | undefined): string {
  return (piece ?? Buffer.alloc(0)).toString('latin1', 0, 100).trimStart();
}

/** Answers outside of a response of node:http, and closes. */
function refuse(socket: Duplex, status: string): void {
  const allow = status === NOT_ALLOWED ? `Allow: ${ALLOW}\r\n` : '';
  socket.write(
    `HTTP/1.1 ${status}\r\nServer: tapnic\r\n${allow}Content-Length: 0\r\nConnection: close\r\n\r\n`,
  );
  (socket as Gate).destroySoon();
}

/** The request's target for the log: as ASCII, and not all of a long one. */
function shortUrl(req: IncomingMessage): string {
  return (req.url ?? '').slice(0, 200).replace(/[^\x21-\x7e]/g, percentEncoded);
}

function peerOf(gate: Gate): string {
  return peerText(gate.remoteAddress, gate.remotePort);
}
