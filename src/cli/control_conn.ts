/**
 * The server's side of one client of the control socket. Requests, unread answers, idle time and
 * streams are limited. Each limit has a reason in src/sys/reason.ts. A client that exceeds one loses
 * only its own connection.
 */

import type { Socket } from 'node:net';
import {
  bodyHead,
  ControlFailure,
  type ControlRequest,
  type ControlResponse,
  errResponse,
  eventLine,
  failureResponse,
  okResponse,
  parseRequest,
  REQUEST_MAX,
} from '../ctl/protocol.ts';
import { Panic } from '../sys/kassert.ts';
import { count, R_CTL_BEHIND, R_CTL_IDLE, R_CTL_LONG, R_CTL_UNREAD } from '../sys/reason.ts';
import { LineSplitter } from './lines.ts';

/** Limits of the control socket. */
export interface ControlLimits {
  /** Maximum number of connected clients. */
  readonly clients: number;
  /** Maximum number of streamed requests of all clients. Each client can have one. */
  readonly streams: number;
  /** Milliseconds without a complete request after which an idle client is closed. */
  readonly idleMs: number;
  /** Milliseconds after which a client that reads none of its pending answers is closed. */
  readonly unreadMs: number;
}

/** The output of a streamed request before its answer. */
export interface StreamOut {
  /** Writes an event. Drops and counts it while the client does not read. */
  event(value: object): void;
  /** Writes an event, or bytes of a body, and resolves when there is room for more. */
  send(what: object | Buffer): Promise<void>;
}

/**
 * Runs a streamed request until it is done or `signal` is aborted. Resolves with the data of the
 * answer. Rejects with ControlFailure.
 */
export type StreamHandler = (
  req: ControlRequest,
  out: StreamOut,
  signal: AbortSignal,
) => Promise<unknown>;

/** The server as a connection uses it. */
export interface ControlHost {
  readonly limits: ControlLimits;
  /** Runs a request that is not streamed. Throws ControlFailure. */
  answer(req: ControlRequest): ControlResponse | Promise<ControlResponse>;
  /** Returns the handler of a streamed command, null for others. Throws ControlFailure. */
  stream(cmd: string): StreamHandler | null;
  closed(conn: ControlConn): void;
}

/** Streamed requests whose client may stop reading for any time. */
const PATIENT: ReadonlySet<string> = new Set(['capture']);
/** Milliseconds that a refused client has to read the reason and close. */
const REFUSE_MS = 1000;

export class ControlConn {
  readonly #socket: Socket;
  readonly #host: ControlHost;
  readonly #lines = new LineSplitter(REQUEST_MAX);
  readonly #queue: string[] = [];
  readonly #idle: NodeJS.Timeout;
  /** Whether an answer follows, before which no other request is answered. */
  #waiting = false;
  #stream: {
    readonly id: number;
    readonly abort: AbortController;
    readonly patient: boolean;
  } | null = null;
  #ended = false;

  constructor(socket: Socket, host: ControlHost) {
    this.#socket = socket;
    this.#host = host;
    const { idleMs, unreadMs } = host.limits;
    this.#idle = setTimeout(() => this.#onIdle(), idleMs).unref();
    socket.on('error', () => undefined); // 'close' follows
    socket.on('close', () => this.#onClose());
    // Treat the end of the client's side as the end of the client.
    socket.on('end', () => this.stopStream());
    // Node calls this if no byte was read or written for that long.
    socket.setTimeout(unreadMs, () => {
      // A paused Wireshark may come back: its capture counts drops until then.
      if (socket.writableLength === 0 || this.#stream?.patient === true) return;
      count(R_CTL_UNREAD);
      socket.destroy();
    });
    socket.on('data', (chunk) => this.#data(chunk));
    // Requests can arrive while the body of a streamed request fills the socket.
    socket.on('drain', () => this.#pump());
  }

  /** Whether a streamed request is running. */
  get streaming(): boolean {
    return this.#stream !== null;
  }

  /** Aborts the streamed request. Its answer follows. */
  stopStream(): void {
    this.#stream?.abort.abort();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Sends an error without a request id and ends the connection. */
  refuse(code: string, message: string): void {
    if (this.#ended) return;
    this.#ended = true;
    // Read and discard what the client sends: a write to a closed socket would be an error for it,
    // and it would not read the reason.
    this.#socket.resume();
    this.#socket.end(`${JSON.stringify(errResponse(null, code, message))}\n`);
    const timer = setTimeout(() => this.#socket.destroy(), REFUSE_MS);
    this.#socket.once('close', () => clearTimeout(timer));
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
    while (this.#queue.length > 0 && !this.#ended && !this.#waiting) {
      const response = this.#answer(this.#queue.shift()!);
      if (response instanceof Promise) {
        this.#waiting = true;
        void response.then((later) => this.#answered(later));
        this.#socket.pause();
        return;
      }
      if (response === null || this.#write(response)) continue;
      // The client sends faster than it reads: pause it.
      this.#socket.pause();
      return;
    }
    if (!this.#ended && !this.#waiting) this.#socket.resume();
  }

  #answered(response: ControlResponse): void {
    this.#waiting = false;
    if (this.#ended) return;
    this.#idle.refresh();
    if (this.#write(response)) this.#pump();
  }

  #write(value: object): boolean {
    return this.#socket.write(`${JSON.stringify(value)}\n`);
  }

  /** Returns the answer to a line, null if a streamed request answers it. */
  #answer(line: string): ControlResponse | Promise<ControlResponse> | null {
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

  /** Runs `stop`: aborts the streamed request whose id is in the arguments. */
  #stop({ id, args }: ControlRequest): ControlResponse {
    const stopped = this.#stream !== null && this.#stream.id === args['id'];
    if (stopped) this.stopStream();
    return okResponse(id, { stopped });
  }

  #start(req: ControlRequest, handler: StreamHandler): void {
    if (this.#stream !== null)
      throw new ControlFailure('EBUSY', `${req.cmd}: this client already has a streamed request`);
    const patient = PATIENT.has(req.cmd);
    const stream = { id: req.id, abort: new AbortController(), patient };
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

/** Returns the answer for an error that a handler threw. Throws a panic again. */
function failure(id: number | null, e: unknown): ControlResponse {
  if (e instanceof Panic) throw e;
  return failureResponse(id, e);
}
