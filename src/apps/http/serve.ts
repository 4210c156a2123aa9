/**
 * A static file server on the emulated host. node:http handles HTTP over our sockets; sendfile
 * sends the bodies, which never pass through a Buffer. Left out: compression, several ranges in one
 * response, methods other than GET and HEAD.
 */

import { closeSync } from 'node:fs';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Socket as NetSocket } from 'node:net';
import { openFile, type File } from '../../api/file.ts';
import type { Server as TcpServer } from '../../api/server.ts';
import type { Socket as TcpSocket } from '../../api/socket.ts';
import { contentType, type FoundFile, Root } from './files.ts';
import { etagOf, notModified, preconditionFailed, rangeOf } from './semantics.ts';

/** Receives reports of problems; pino's loggers fit. */
interface Logger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

interface ServeOptions {
  /** Directory to serve. */
  readonly dir: string;
  readonly port: number;
  readonly log: Logger;
}

/** A running file server. */
export class HttpApp {
  readonly #http: Server;
  readonly #tcp: TcpServer;
  readonly #root: Root;
  readonly #log: Logger;
  /** Open connections, each with the callbacks of the responses that wait for their turn. */
  readonly #sockets = new Map<TcpSocket, Set<() => void>>();
  #idle: (() => void)[] = [];
  #closing = false;

  /**
   * Takes over `server`, which must not listen yet. Throws the errors of fs for the directory, or
   * EADDRINUSE.
   */
  constructor(server: TcpServer, options: ServeOptions) {
    this.#root = new Root(options.dir);
    this.#log = options.log;
    this.#http = createHttpServer((req, res) => {
      this.#respond(req, res).catch((error: unknown) => this.#abort(req, res, error));
    });
    this.#http.on('clientError', (_error, socket) => {
      if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
      else socket.destroy();
    });
    this.#tcp = server;
    server.on('connection', (socket: TcpSocket) => this.#connection(socket));
    this.#tcp.listen(options.port);
  }

  /** The port it listens on. */
  get port(): number {
    return this.#tcp.address()?.port ?? 0;
  }

  /** Number of open connections. */
  get connections(): number {
    return this.#sockets.size;
  }

  #connection(socket: TcpSocket): void {
    this.#sockets.set(socket, new Set());
    socket.once('close', () => {
      for (const gone of this.#sockets.get(socket) ?? []) gone();
      this.#sockets.delete(socket);
      if (this.#sockets.size > 0) return;
      for (const resolve of this.#idle) resolve();
      this.#idle = [];
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#log.info({ peer: peerOf(socket), code: error.code }, 'connection error');
    });
    // TcpSocket has everything that node:http needs of a net.Socket.
    this.#http.emit('connection', socket as unknown as NetSocket);
  }

  /** Stops accepting connections, and ends each open connection when its response is sent. */
  close(): void {
    this.#closing = true;
    this.#tcp.close();
    this.#http.close();
    for (const socket of this.#sockets.keys()) socket.end();
  }

  /** Resets every open connection. */
  destroy(): void {
    this.#tcp.close();
    for (const socket of this.#sockets.keys()) socket.resetAndDestroy();
  }

  /** Resolves when no connection is open. */
  idle(): Promise<void> {
    if (this.#sockets.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  async #respond(req: IncomingMessage, res: ServerResponse): Promise<void> {
    res.setHeader('Server', 'tapnic');
    if (req.method !== 'GET' && req.method !== 'HEAD') {
      res.setHeader('Allow', 'GET, HEAD');
      sendText(req, res, 405, 'Method Not Allowed');
      return;
    }
    const path = (req.url ?? '/').replace(/^https?:\/\/[^/]*/, '').replace(/[?#].*$/, '') || '/';
    const found = this.#root.find(path);
    switch (found.kind) {
      case 'error':
        if (found.status >= 500) this.#log.warn({ url: req.url, code: found.code }, 'cannot open');
        sendText(req, res, found.status, found.code);
        return;
      case 'redirect':
        res.setHeader('Location', found.location);
        sendText(req, res, 301, 'Moved Permanently');
        return;
      case 'directory':
        sendBody(req, res, 200, 'text/html; charset=utf-8', found.html);
        return;
      case 'file':
        await this.#sendFile(req, res, found);
    }
  }

  async #sendFile(req: IncomingMessage, res: ServerResponse, found: FoundFile): Promise<void> {
    const file = openFile(found.fd, closeSync);
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
      await this.#sendRange(req, res, found, file, etag);
    } finally {
      file.drop();
    }
  }

  async #sendRange(
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
    await this.#sendBytes(req, res, file, offset, nbytes);
  }

  /** Sends the body by reference, after the header, when it is this response's turn. */
  async #sendBytes(
    req: IncomingMessage,
    res: ServerResponse,
    file: File,
    offset: number,
    nbytes: number,
  ): Promise<void> {
    const socket = await this.#turn(req, res);
    if (socket === null || socket.destroyed) return;
    res.flushHeaders();
    let sent = 0;
    let code = 'truncated';
    try {
      sent = await socket.sendfile(file, { offset, nbytes });
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
      { url: req.url, peer: peerOf(socket), code, sent, nbytes },
      'response cut short',
    );
    socket.resetAndDestroy();
  }

  /**
   * Resolves with the connection when it is this response's turn, or with null if it has closed.
   */
  #turn(req: IncomingMessage, res: ServerResponse): Promise<TcpSocket | null> {
    const socket = req.socket as unknown as TcpSocket;
    if (res.socket !== null) return Promise.resolve(socket);
    const waiting = this.#sockets.get(socket);
    if (waiting === undefined) return Promise.resolve(null);
    // When a connection closes, node:http drops the responses that wait behind the current one.
    return new Promise((resolve) => {
      const gone = (): void => resolve(null);
      waiting.add(gone);
      res.once('socket', () => {
        waiting.delete(gone);
        resolve(socket);
      });
    });
  }

  #abort(req: IncomingMessage, res: ServerResponse, error: unknown): void {
    this.#log.warn({ url: req.url, error: String(error) }, 'request failed');
    if (!res.headersSent) sendText(req, res, 500, 'Internal Server Error');
    else res.destroy();
  }
}

function peerOf(socket: TcpSocket): string {
  return `${socket.remoteAddress}:${socket.remotePort}`;
}

function sendBody(
  req: IncomingMessage,
  res: ServerResponse,
  status: number,
  type: string,
  body: string,
): void {
  res.statusCode = status;
  res.setHeader('Content-Type', type);
  res.setHeader('Content-Length', Buffer.byteLength(body));
  res.end(req.method === 'HEAD' ? undefined : body);
}

function sendText(req: IncomingMessage, res: ServerResponse, status: number, text: string): void {
  sendBody(req, res, status, 'text/plain; charset=utf-8', `${status} ${text}\n`);
}
