/**
 * The server of the control socket. A client can lose only its own connection: the length of lines
 * and the queue of answers are bounded, and an invalid line gets an error.
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

type ControlHandler = (req: ControlRequest) => ControlResponse;

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
    // Ignore accept errors such as EMFILE: the listener stays open for the next client.
    this.#server.on('error', () => undefined);
  }

  /**
   * Listens; only this user may connect. Rejects with Node's error: EEXIST if the path exists. The
   * socket is bound under a temporary name and then linked to its own. libuv removes the bound name
   * when it closes, which could otherwise be the socket of another instance.
   */
  listen(): Promise<void> {
    // Do not use join(): listen() would take a bare `.123` as a port.
    const bound = `${dirname(this.path)}/.${process.pid}`;
    rmSync(bound, { force: true }); // left by a killed process with the same pid
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

  /** Sets the handler of requests. Without a handler they are answered with EAGAIN. */
  setHandler(handler: ControlHandler): void {
    this.#handler = handler;
  }

  /** Stops listening, closes the clients' connections and removes the socket. */
  close(): void {
    process.off('exit', this.#onExit);
    this.#unlink();
    this.#server.close();
    for (const client of this.#clients) client.destroy();
  }

  /** Removes the socket, unless another instance has replaced it. */
  #unlink(): void {
    try {
      if (lstatSync(this.path).ino === this.#inode) unlinkSync(this.path);
    } catch {
      // It is already removed.
    }
  }

  #accept(socket: Socket): void {
    const lines = new LineSplitter(REQUEST_MAX);
    const queue: string[] = [];
    this.#clients.add(socket);
    socket.on('error', () => undefined); // 'close' follows
    socket.on('close', () => this.#clients.delete(socket));
    const pump = (): void => {
      while (queue.length > 0) {
        const more = socket.write(`${JSON.stringify(this.#answer(queue.shift()!))}\n`);
        if (more) continue;
        // The client sends faster than it reads: pause it.
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
 * Listens at `path`. Replaces the socket of a dead instance. Throws CliError (EADDRINUSE) if an
 * instance listens there, or if another kind of file has that path.
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
