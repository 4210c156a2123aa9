/**
 * The instance's end of the control socket. A client can at worst lose its own connection: the length
 * of lines and the queue of answers are bounded, and a line that is not a request gets an error.
 */

import { linkSync, lstatSync, rmSync, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import {
  ControlFailure,
  type ControlRequest,
  type ControlResponse,
  errResponse,
  parseRequest,
  REQUEST_MAX,
} from '../ctl/protocol.ts';
import { Panic } from '../sys/kassert.ts';
import { CliError } from './command.ts';
import { isLive } from './control_client.ts';
import { bindError } from './control_path.ts';
import { LineSplitter } from './lines.ts';

const CLIENTS_MAX = 64;

export type ControlHandler = (req: ControlRequest) => ControlResponse;

export class ControlServer {
  readonly path: string;
  readonly #server: Server;
  readonly #clients = new Set<Socket>();
  #handler: ControlHandler | null = null;
  #inode = 0;
  readonly #onExit = (): void => this.#unlink();

  constructor(path: string) {
    this.path = path;
    this.#server = createServer((socket) => this.#accept(socket));
    this.#server.maxConnections = CLIENTS_MAX;
    // Out of descriptors: the next client finds the listener as it was.
    this.#server.on('error', () => undefined);
  }

  /**
   * Listens, for this user alone. Rejects with Node's own error: EEXIST if the path is
   * there. The socket is bound under another name and linked to its own, because libuv removes
   * the name it was bound to when it closes, even if another instance has put its socket there.
   */
  listen(): Promise<void> {
    // Not join(): a bare `.123` would be a port to listen().
    const bound = `${dirname(this.path)}/.${process.pid}`;
    rmSync(bound, { force: true }); // of a process that was killed here and had the same pid
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      // listen() binds the socket before it returns, so no other file gets the narrower mask.
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

  /** Carries requests out from now on; before, they are answered with EAGAIN. */
  setHandler(handler: ControlHandler): void {
    this.#handler = handler;
  }

  /** Stops listening, drops the clients, removes the socket. */
  close(): void {
    process.off('exit', this.#onExit);
    this.#unlink();
    this.#server.close();
    for (const client of this.#clients) client.destroy();
  }

  /** Removes the socket, but not one that another instance has put in its place. */
  #unlink(): void {
    try {
      if (lstatSync(this.path).ino === this.#inode) unlinkSync(this.path);
    } catch {
      // It is gone already.
    }
  }

  #accept(socket: Socket): void {
    const lines = new LineSplitter(REQUEST_MAX);
    const queue: string[] = [];
    this.#clients.add(socket);
    socket.on('error', () => undefined); // it went away: 'close' follows
    socket.on('close', () => this.#clients.delete(socket));
    const pump = (): void => {
      while (queue.length > 0) {
        const more = socket.write(`${JSON.stringify(this.#answer(queue.shift()!))}\n`);
        if (more) continue;
        // The client sends faster than it reads.
        socket.pause();
        socket.once('drain', pump);
        return;
      }
      socket.resume();
    };
    socket.on('data', (chunk) => {
      const whole = lines.push(chunk);
      if (whole === null) {
        const error = errResponse(null, 'EMSGSIZE', `a request is at most ${REQUEST_MAX} bytes`);
        socket.pause();
        socket.end(`${JSON.stringify(error)}\n`, () => socket.destroy());
        return;
      }
      queue.push(...whole);
      if (socket.writableNeedDrain) return;
      pump();
    });
  }

  #answer(line: string): ControlResponse {
    let id: number | null = null;
    try {
      const req = parseRequest(line);
      id = req.id;
      if (this.#handler === null) return errResponse(id, 'EAGAIN', 'starting: try again');
      return this.#handler(req);
    } catch (e) {
      if (e instanceof Panic) throw e;
      const message = e instanceof Error ? e.message : String(e);
      return errResponse(id, e instanceof ControlFailure ? e.code : 'EIO', message);
    }
  }
}

/**
 * Listens at `path`; the socket of an instance that died is replaced. Throws CliError (EADDRINUSE)
 * if an instance listens there, or if something else than a socket is in the way.
 */
export async function openControlServer(path: string): Promise<ControlServer> {
  for (let attempt = 0; attempt < 2; attempt++) {
    const server = new ControlServer(path);
    try {
      await server.listen();
      return server;
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== 'EEXIST')
        throw new CliError(
          `control socket ${path}: ${bindError(path, e)}: choose another place by --control`,
        );
    }
    if (!lstatSync(path).isSocket())
      throw new CliError(`control socket ${path}: EADDRINUSE: a file of that name is there`);
    if (await isLive(path)) break;
    unlinkSync(path);
  }
  throw new CliError(
    `control socket ${path}: EADDRINUSE: an instance is running there: ` +
      `stop it, or choose another --tap or --control`,
  );
}
