/** The server of the control socket: its path, its handlers and its limits. */

import { createHash } from 'node:crypto';
import { linkSync, lstatSync, rmSync, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import {
  ControlFailure,
  type ControlRequest,
  type ControlResponse,
  STARTING,
} from '../ctl/protocol.ts';
import { count, R_CTL_CLIENTS, R_CTL_STREAMS } from '../sys/reason.ts';
import { CliError } from './command.ts';
import {
  ControlConn,
  type ControlHost,
  type ControlLimits,
  type StreamHandler,
} from './control_conn.ts';
import { bindError } from './control_path.ts';
import { isLive } from './peer.ts';
import { withSocketLock } from './socket_lock.ts';

const LIMITS: ControlLimits = { clients: 64, streams: 16, idleMs: 60_000, unreadMs: 60_000 };

/** Answers a request, at once or later. Rejects only for a bug. */
type ControlHandler = (req: ControlRequest) => ControlResponse | Promise<ControlResponse>;
/** Streamed commands by name. */
export type StreamHandlers = ReadonlyMap<string, StreamHandler>;

export class ControlServer implements ControlHost {
  readonly path: string;
  readonly limits: ControlLimits;
  readonly #server: Server;
  readonly #conns = new Set<ControlConn>();
  #handler: ControlHandler | null = null;
  #streams: StreamHandlers = new Map();
  #stopping = false;
  #inode = 0;
  readonly #onExit = (): void => this.#unlink();

  constructor(path: string, limits: ControlLimits = LIMITS) {
    this.path = path;
    this.limits = limits;
    this.#server = createServer((socket) => this.#accept(socket));
    // Ignore accept errors such as EMFILE: the listener stays open for the next client.
    this.#server.on('error', () => undefined);
  }

  /**
   * Listens; only this user may connect. Rejects with Node's error: EEXIST if the path exists. The
   * socket is bound under a temporary name and then linked to its own. libuv removes the bound name
   * when it closes, which could otherwise be the socket of another instance. The caller holds the
   * lock of the path.
   */
  listen(): Promise<void> {
    const hash = createHash('sha1').update(basename(this.path)).digest('hex').slice(0, 8);
    // Do not use join(): listen() would take a bare `.123` as a port.
    const bound = `${dirname(this.path)}/.${hash}`;
    rmSync(bound, { force: true }); // left by a killed process
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      // listen() binds the socket before it returns, so the umask applies to no other file.
      const umask = process.umask(0o177);
      try {
        this.#server.listen(bound, () => {
          this.#server.off('error', reject);
          try {
            linkSync(bound, this.path);
          } catch (e) {
            this.#server.close();
            reject(e);
            return;
          } finally {
            rmSync(bound, { force: true });
          }
          this.#inode = lstatSync(this.path).ino;
          process.once('exit', this.#onExit);
          resolve();
        });
      } finally {
        process.umask(umask);
      }
    });
  }

  /** Sets the handlers of requests. Without a handler they are answered with EAGAIN. */
  setHandler(handler: ControlHandler, streams: StreamHandlers = new Map()): void {
    this.#handler = handler;
    this.#streams = streams;
  }

  /** Aborts the streamed requests and rejects new ones. */
  stopStreams(): void {
    this.#stopping = true;
    for (const conn of this.#conns) conn.stopStream();
  }

  /** Stops listening, closes the clients' connections and removes the socket. */
  close(): void {
    process.off('exit', this.#onExit);
    // Unlink before closing: while the server listens, no other instance replaces the socket.
    this.#unlink();
    this.#server.close();
    for (const conn of this.#conns) conn.destroy();
  }

  answer(req: ControlRequest): ControlResponse | Promise<ControlResponse> {
    if (this.#handler === null) throw new ControlFailure('EAGAIN', STARTING);
    return this.#handler(req);
  }

  stream(cmd: string): StreamHandler | null {
    const handler = this.#streams.get(cmd);
    if (handler === undefined) return null;
    if (this.#stopping) throw new ControlFailure('ECANCELED', 'the instance is stopping');
    const running = [...this.#conns].filter(({ streaming }) => streaming).length;
    if (running < this.limits.streams) return handler;
    count(R_CTL_STREAMS);
    throw new ControlFailure('EAGAIN', `${running} streamed requests are running: try again`);
  }

  closed(conn: ControlConn): void {
    this.#conns.delete(conn);
  }

  #accept(socket: Socket): void {
    const full = this.#conns.size >= this.limits.clients;
    const conn = new ControlConn(socket, this);
    if (full) {
      count(R_CTL_CLIENTS);
      conn.refuse('EAGAIN', `${this.limits.clients} clients are connected: try again`);
    } else this.#conns.add(conn);
  }

  /** Removes the socket, unless another instance has replaced it. */
  #unlink(): void {
    try {
      if (lstatSync(this.path).ino === this.#inode) unlinkSync(this.path);
    } catch {
      // It is already removed.
    }
  }
}

/** Listens at `path`. The caller holds its lock. Throws CliError if the path is in use. */
async function listenOrReplace(
  path: string,
  limits: ControlLimits | undefined,
): Promise<ControlServer> {
  for (let attempt = 0; attempt < 2; attempt++) {
    const server = new ControlServer(path, limits);
    try {
      await server.listen();
      return server;
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== 'EEXIST') throw e;
    }
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false)
      throw new CliError(`control socket ${path}: EADDRINUSE: a file of that name is there`);
    if (await isLive(path)) break;
    rmSync(path, { force: true });
  }
  throw new CliError(
    `control socket ${path}: EADDRINUSE: an instance is running there: ` +
      `stop it, or choose another --tap or --control, with another --addr and --host-addr`,
  );
}

/**
 * Listens at `path`. Replaces the socket of a dead instance. Throws CliError (EADDRINUSE) if an
 * instance listens there, or if another kind of file has that path.
 */
export async function openControlServer(
  path: string,
  limits?: ControlLimits,
): Promise<ControlServer> {
  try {
    return await withSocketLock(path, () => listenOrReplace(path, limits));
  } catch (e) {
    if (e instanceof CliError) throw e;
    throw new CliError(
      `control socket ${path}: ${bindError(path, e)}: choose another place by --control`,
    );
  }
}
