/**
 * The small services over TCP, after usr.sbin/inetd/builtins.c: echo (RFC 862), discard (RFC 863),
 * chargen (RFC 864), daytime (RFC 867). Left out: UDP, the time service, programs, configuration
 * files, limits per client.
 */

import type { TcpServer } from '../../api/server.ts';
import type { TcpSocket } from '../../api/socket.ts';

/** Where the services report what went wrong; pino's loggers fit. */
export interface Logger {
  info(fields: object, message: string): void;
}

export interface Service {
  readonly name: string;
  readonly port: number;
  readonly serve: (socket: TcpSocket) => void;
}

/** Sends back what comes. A reader that is slow slows its own sending down. */
function echo(socket: TcpSocket): void {
  socket.pipe(socket);
}

/** Throws away what comes. */
function discard(socket: TcpSocket): void {
  socket.once('end', () => socket.end());
  socket.resume();
}

const FIRST_PRINTABLE = 0x20;
/** Printable characters of ASCII, the space included. */
const PRINTABLE = 95;
/** Characters of a line, RFC 864's example. */
const LINE = 72;

/** One turn of the ring of printable characters: a line starts at each of them. */
export function chargenPattern(): Buffer {
  const lines: string[] = [];
  for (let first = 0; first < PRINTABLE; first++) {
    let line = '';
    for (let i = 0; i < LINE; i++)
      line += String.fromCodePoint(FIRST_PRINTABLE + ((first + i) % PRINTABLE));
    lines.push(`${line}\r\n`);
  }
  return Buffer.from(lines.join(''), 'ascii');
}

/** Sends the pattern until the connection ends; throws away what comes. */
function chargen(socket: TcpSocket): void {
  const pattern = chargenPattern();
  const more = (): void => {
    while (socket.writable && socket.write(pattern));
  };
  socket.on('drain', more);
  socket.resume();
  more();
}

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');

/** Local time as ctime(3) has it, without its line feed: `Sun Nov 22 09:05:07 2026`. */
export function ctime(t: Date): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  const day = String(t.getDate()).padStart(2);
  const time = `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
  return `${DAYS[t.getDay()]} ${MONTHS[t.getMonth()]} ${day} ${time} ${t.getFullYear()}`;
}

/** Says what time it is and ends. */
function daytime(socket: TcpSocket): void {
  socket.resume();
  socket.end(`${ctime(new Date())}\r\n`);
}

/** The services there are, on their RFCs' ports. */
export const services: readonly Service[] = [
  { name: 'echo', port: 7, serve: echo },
  { name: 'discard', port: 9, serve: discard },
  { name: 'daytime', port: 13, serve: daytime },
  { name: 'chargen', port: 19, serve: chargen },
];

export interface InetdOptions {
  readonly services: readonly Service[];
  readonly log: Logger;
}

/** Running services. */
export class Inetd {
  readonly #servers: TcpServer[] = [];
  readonly #sockets = new Set<TcpSocket>();

  /** `newServer` makes a server that does not listen yet. Throws TapnicError EADDRINUSE. */
  constructor(newServer: () => TcpServer, { services: wanted, log }: InetdOptions) {
    try {
      for (const service of wanted) {
        const server = newServer();
        server.on('connection', (socket: TcpSocket) => this.#connection(service, socket, log));
        server.listen(service.port);
        this.#servers.push(server);
      }
    } catch (e) {
      for (const server of this.#servers) server.close();
      throw e;
    }
  }

  #connection(service: Service, socket: TcpSocket, log: Logger): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const peer = `${socket.remoteAddress}:${socket.remotePort}`;
      log.info({ service: service.name, peer, code: error.code }, 'connection error');
    });
    service.serve(socket);
  }

  /** Stops accepting connections and ends those that are open. */
  close(): void {
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) {
      // Whoever still writes must not do so behind the end.
      socket.unpipe();
      socket.removeAllListeners('drain');
      socket.resume();
      socket.end();
    }
  }

  /** Resets every connection that is left. */
  destroy(): void {
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}
