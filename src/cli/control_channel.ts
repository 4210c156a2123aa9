/** A client's connection to an instance: checks the peer, sends requests, reads answers. */

import { connect, type Socket } from 'node:net';
import { finished, type Writable } from 'node:stream';
import { type ControlLine, parseLine, RESPONSE_MAX } from '../ctl/protocol.ts';
import { CliError } from './command.ts';
import { checkPeer } from './peer.ts';

const ANSWER_TIMEOUT_MS = 10_000;
/** Time-out of the answer of a stopped request. */
const STOP_TIMEOUT_MS = 2000;
/** How long the output may take after a failed request, or without progress after a stop, ms. */
const LAST_WRITE_MS = 2000;
const STALLED = 'the reader takes no bytes: what waited for it is lost';
const LF = 0x0a;

/** Ends `output`. Resolves when all is written; rejects with the output's error. */
function ended(output: Writable): Promise<void> {
  return new Promise((resolve, reject) => {
    finished(output, (e) => (e === undefined || e === null ? resolve() : reject(e)));
    output.end();
  });
}

/** Splits the received bytes into lines and bodies. */
class Incoming {
  readonly #line: (line: ControlLine) => void;
  readonly #body: (bytes: Buffer) => void;
  #parts: Buffer[] = [];
  #held = 0;
  #bodyLeft = 0;

  constructor(line: (line: ControlLine) => void, body: (bytes: Buffer) => void) {
    this.#line = line;
    this.#body = body;
  }

  /** Throws ControlFailure (EPROTO) for an invalid line. */
  push(chunk: Buffer): void {
    for (let rest = chunk; rest.length > 0;) {
      if (this.#bodyLeft > 0) {
        const bytes = rest.subarray(0, this.#bodyLeft);
        this.#bodyLeft -= bytes.length;
        rest = rest.subarray(bytes.length);
        this.#body(bytes);
        continue;
      }
      const lf = rest.indexOf(LF);
      const part = lf < 0 ? rest : rest.subarray(0, lf);
      this.#held += part.length;
      this.#parts.push(part);
      if (lf < 0 || this.#held > RESPONSE_MAX) {
        // Reject a line that is too long.
        if (this.#held > RESPONSE_MAX) parseLine('');
        return;
      }
      const line = parseLine(Buffer.concat(this.#parts).toString('utf8'));
      this.#parts = [];
      this.#held = 0;
      rest = rest.subarray(lf + 1);
      if (line.kind === 'body') this.#bodyLeft = line.bytes;
      else this.#line(line);
    }
  }
}

/** The client's side of a streamed request. */
interface StreamUse {
  event(event: Readonly<Record<string, unknown>>): void;
  /** Opens the destination of the body, at the event `response`. */
  output?(): Writable;
  /** Stops the request. Its answer follows. */
  readonly signal: AbortSignal;
}

interface Pending {
  readonly id: number;
  readonly resolve: (data: unknown) => void;
  readonly reject: (e: Error) => void;
  readonly stream: StreamUse | null;
}

/** One request at a time. */
export class ControlChannel {
  readonly path: string;
  readonly #socket: Socket;
  #pending: Pending | null = null;
  #output: Writable | null = null;
  /** Bytes of the body that came, and that the output took. */
  #received = 0;
  #written = 0;
  #lastId = 0;
  #error: CliError | null = null;

  private constructor(path: string, socket: Socket) {
    this.path = path;
    this.#socket = socket;
    const incoming = new Incoming(
      (line) => this.#onLine(line),
      (bytes) => this.#onBody(bytes),
    );
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => {
      if (this.#pending?.stream === null)
        this.#fail(
          `${path}: no answer in ${ANSWER_TIMEOUT_MS / 1000} s: is the process stopped (kill -CONT)?`,
        );
    });
    socket.on('error', (e: NodeJS.ErrnoException) => this.#fail(`${path}: ${e.code ?? e.message}`));
    socket.on('close', () =>
      this.#fail(`${path}: closed without an answer: the instance has ended`),
    );
    socket.on('data', (chunk) => {
      try {
        incoming.push(chunk);
      } catch (e) {
        this.#fail(`${path}: ${e instanceof Error ? e.message : String(e)}`);
      }
    });
  }

  /** Connects. Rejects with CliError if no process listens, or if another user's process does. */
  static open(path: string): Promise<ControlChannel> {
    return new Promise((resolve, reject) => {
      const socket = connect({ path });
      socket.once('error', (e: NodeJS.ErrnoException) =>
        reject(
          new CliError(
            e.code === 'ENOENT' || e.code === 'ECONNREFUSED'
              ? `${path}: no instance listens there`
              : `${path}: ${e.code ?? e.message}`,
          ),
        ),
      );
      socket.once('connect', () => {
        try {
          checkPeer(socket, path);
        } catch (e) {
          socket.destroy();
          reject(e);
          return;
        }
        socket.removeAllListeners('error');
        resolve(new ControlChannel(path, socket));
      });
    });
  }

  /** Sends a request. Resolves with the data of its answer. Rejects with CliError. */
  request(cmd: string, args: object, stream: StreamUse | null = null): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#error !== null) {
        reject(this.#error);
        return;
      }
      const id = ++this.#lastId;
      this.#pending = { id, resolve, reject, stream };
      this.#send({ id, cmd, args });
    });
  }

  /** Runs a streamed request. Resolves when the body is completely written. */
  async stream(cmd: string, args: object, use: StreamUse): Promise<unknown> {
    const done = this.request(cmd, args, use);
    let timer: NodeJS.Timeout | undefined;
    let seen = 0;
    const check = (): void => {
      const waiting = this.#output !== null && this.#written < this.#received;
      if (this.#written > seen) seen = this.#written;
      else if (waiting || this.#pending === null) this.#output?.destroy(new CliError(STALLED));
      else this.#fail(`${this.path}: no answer`);
    };
    const stop = (): void => {
      seen = this.#written;
      timer = setInterval(check, STOP_TIMEOUT_MS);
      if (this.#pending === null) return;
      this.#send({ id: ++this.#lastId, cmd: 'stop', args: { id: this.#pending.id } });
    };
    if (use.signal.aborted) stop();
    use.signal.addEventListener('abort', stop, { once: true });
    try {
      const data = await done;
      if (this.#output !== null) await ended(this.#output);
      return data;
    } catch (e) {
      // What was received before the failure is written.
      if (this.#output !== null && !use.signal.aborted) await this.#lastWrite(this.#output);
      throw e;
    } finally {
      clearInterval(timer);
      use.signal.removeEventListener('abort', stop);
      this.#output?.destroy();
    }
  }

  async #lastWrite(output: Writable): Promise<void> {
    const timer = setTimeout(() => output.destroy(), LAST_WRITE_MS);
    await ended(output).catch(() => undefined);
    clearTimeout(timer);
  }

  close(): void {
    this.#pending = null;
    this.#socket.destroy();
  }

  #send(value: object): void {
    this.#socket.write(`${JSON.stringify(value)}\n`);
  }

  #fail(message: string): void {
    this.#error ??= new CliError(message);
    this.#socket.destroy();
    const pending = this.#pending;
    this.#pending = null;
    pending?.reject(this.#error);
  }

  #onLine(line: ControlLine): void {
    const pending = this.#pending;
    if (line.kind === 'event' && pending?.stream) {
      const { stream } = pending;
      // Open the destination here: an empty body also creates its file.
      if (line.event['event'] === 'response' && stream.output) this.#open(stream.output());
      stream.event(line.event);
    }
    if (line.kind !== 'answer' || pending === null) return;
    const { answer } = line;
    // An answer without id ends the connection. Ignore the answer to `stop`.
    if (answer.id !== pending.id && answer.id !== null) return;
    this.#pending = null;
    if (answer.ok) pending.resolve(answer.data);
    else pending.reject(new CliError(answer.err.message));
  }

  #onBody(bytes: Buffer): void {
    this.#received += bytes.length;
    const written = (): void => void (this.#written += bytes.length);
    if (this.#output === null || this.#output.write(bytes, written)) return;
    this.#socket.pause();
    this.#output.once('drain', () => this.#socket.resume());
  }

  #open(output: Writable): void {
    this.#output = output;
    output.once('error', (e) => this.#fail(e.message));
  }
}
