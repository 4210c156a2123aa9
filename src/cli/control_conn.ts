/**
 * One client of an instance's control socket. It can at worst lose its own connection: requests,
 * unread answers, idle time and streams are limited, and each limit has a reason in src/sys/reason.ts.
 */

import type { Socket } from 'node:net';
import {
  bodyHead,
  ControlFailure,
  type ControlRequest,
  type ControlResponse,
  errResponse,
  eventLine,
  okResponse,
  parseRequest,
  REQUEST_MAX,
} from '../ctl/protocol.ts';
import { Panic } from '../sys/kassert.ts';
import { count, R_CTL_BEHIND, R_CTL_IDLE, R_CTL_LONG, R_CTL_UNREAD } from '../sys/reason.ts';
import { LineSplitter } from './lines.ts';

/** What a client may use. */
export interface ControlLimits {
  /** Clients at a time. */
  readonly clients: number;
  /** Streamed requests at a time, of all clients. A client can have one. */
  readonly streams: number;
  /** Milliseconds without a request, and without one under way. */
  readonly idleMs: number;
  /** Milliseconds in which a client reads nothing of what waits for it. */
  readonly unreadMs: number;
}

/** Where a streamed request writes what it has before its answer. */
export interface StreamOut {
  /** Writes an event. Drops it, counted, while the client does not read. */
  event(value: object): void;
  /** Writes an event, or bytes of a body, and resolves when there is room for more. */
  send(what: object | Buffer): Promise<void>;
}

/**
 * Carries out a streamed request until it is done or `signal` is aborted; resolves with the data of
 * its answer. Rejects with ControlFailure.
 */
export type StreamHandler = (
  req: ControlRequest,
  out: StreamOut,
  signal: AbortSignal,
) => Promise<unknown>;

/** What a connection needs of its server. */
export interface ControlHost {
  readonly limits: ControlLimits;
  /** Answers a request at once; throws ControlFailure. */
  answer(req: ControlRequest): ControlResponse;
  /** The handler of a streamed command; null for others. Throws ControlFailure (EAGAIN). */
  stream(cmd: string): StreamHandler | null;
  closed(conn: ControlConn): void;
}

export class ControlConn {
  readonly #socket: Socket;
  readonly #host: ControlHost;
  readonly #lines = new LineSplitter(REQUEST_MAX);
  readonly #queue: string[] = [];
  readonly #idle: NodeJS.Timeout;
  #stream: { readonly id: number; readonly abort: AbortController } | null = null;
  #ended = false;

  constructor(socket: Socket, host: ControlHost) {
    this.#socket = socket;
    this.#host = host;
    const { idleMs, unreadMs } = host.limits;
    this.#idle = setTimeout(() => this.#onIdle(), idleMs).unref();
    socket.on('error', () => undefined); // it went away: 'close' follows
    socket.on('close', () => this.#onClose());
    // The end of the client's side: there is no one to read the rest of a stream.
    socket.on('end', () => this.stopStream());
    // Node calls this when neither side moved a byte.
    socket.setTimeout(unreadMs, () => {
      if (socket.writableLength === 0) return;
      count(R_CTL_UNREAD);
      socket.destroy();
    });
    socket.on('data', (chunk) => this.#data(chunk));
  }

  /** Whether a streamed request is under way. */
  get streaming(): boolean {
    return this.#stream !== null;
  }

  /** Stops the streamed request, which then answers. */
  stopStream(): void {
    this.#stream?.abort.abort();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Answers with an error that belongs to no request, and ends the connection. */
  refuse(code: string, message: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#socket.pause();
    this.#socket.end(`${JSON.stringify(errResponse(null, code, message))}\n`, () =>
      this.#socket.destroy(),
    );
  }

  #onClose(): void {
    clearTimeout(this.#idle);
    this.#ended = true;
    this.stopStream();
    this.#host.closed(this);
  }

  #onIdle(): void {
    if (this.#stream !== null || this.#socket.writableLength > 0) {
      this.#idle.refresh();
      return;
    }
    count(R_CTL_IDLE);
    this.refuse('ETIMEDOUT', `no request in ${this.#host.limits.idleMs / 1000} s`);
  }

  #data(chunk: Buffer): void {
    if (this.#ended) return;
    const whole = this.#lines.push(chunk);
    if (whole === null) {
      count(R_CTL_LONG);
      this.refuse('EMSGSIZE', `a request is at most ${REQUEST_MAX} bytes`);
      return;
    }
    if (whole.length > 0) this.#idle.refresh();
    this.#queue.push(...whole);
    if (!this.#socket.writableNeedDrain) this.#pump();
  }

  /** Answers queued requests while the client reads the answers. */
  #pump(): void {
    while (this.#queue.length > 0 && !this.#ended) {
      const response = this.#answer(this.#queue.shift()!);
      if (response === null || this.#write(response)) continue;
      // The client sends faster than it reads.
      this.#socket.pause();
      this.#socket.once('drain', () => this.#pump());
      return;
    }
    if (!this.#ended) this.#socket.resume();
  }

  #write(value: object): boolean {
    return this.#socket.write(`${JSON.stringify(value)}\n`);
  }

  /** The answer to a line; null if it follows later. */
  #answer(line: string): ControlResponse | null {
    let id: number | null = null;
    try {
      const req = parseRequest(line);
      id = req.id;
      if (req.cmd === 'stop') return this.#stop(req);
      const handler = this.#host.stream(req.cmd);
      if (handler === null) return this.#host.answer(req);
      this.#start(req, handler);
      return null;
    } catch (e) {
      return failure(id, e);
    }
  }

  /** `stop`: ends the streamed request with the id in its arguments, if it is under way. */
  #stop({ id, args }: ControlRequest): ControlResponse {
    const stopped = this.#stream !== null && this.#stream.id === args['id'];
    if (stopped) this.stopStream();
    return okResponse(id, { stopped });
  }

  #start(req: ControlRequest, handler: StreamHandler): void {
    if (this.#stream !== null)
      throw new ControlFailure('EBUSY', `${req.cmd}: this client runs a streamed request already`);
    const stream = { id: req.id, abort: new AbortController() };
    this.#stream = stream;
    void handler(req, this.#out(req.id), stream.abort.signal)
      .then(
        (data) => okResponse(req.id, data),
        (e: unknown) => failure(req.id, e),
      )
      .then((response) => {
        this.#stream = null;
        this.#idle.refresh();
        if (!this.#ended) this.#write(response);
      });
  }

  #out(id: number): StreamOut {
    return {
      event: (value) => {
        if (this.#ended) return;
        if (this.#socket.writableNeedDrain) count(R_CTL_BEHIND);
        else this.#write(eventLine(id, value));
      },
      send: (what) => this.#send(id, what),
    };
  }

  #send(id: number, what: object | Buffer): Promise<void> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      const gone = (): void => reject(new ControlFailure('EPIPE', 'the client is gone'));
      if (this.#ended) {
        gone();
        return;
      }
      let room: boolean;
      if (Buffer.isBuffer(what)) {
        socket.cork();
        socket.write(bodyHead(id, what.length));
        room = socket.write(what);
        socket.uncork();
      } else room = this.#write(eventLine(id, what));
      if (room) {
        resolve();
        return;
      }
      const drained = (): void => {
        socket.off('close', gone);
        resolve();
      };
      socket.once('drain', drained);
      socket.once('close', gone);
    });
  }
}

/** The answer for an error that a handler threw. A panic is no answer: it is thrown on. */
function failure(id: number | null, e: unknown): ControlResponse {
  if (e instanceof Panic) throw e;
  const message = e instanceof Error ? e.message : String(e);
  return errResponse(id, e instanceof ControlFailure ? e.code : 'EIO', message);
}
