/**
 * The small services over TCP and UDP, after usr.sbin/inetd/builtins.c: echo (RFC 862), discard
 * (RFC 863), chargen (RFC 864), daytime (RFC 867). Left out: the time service, programs,
 * configuration files, limits per client. Unlike FreeBSD's, echo answers datagrams of any length.
 */

import type { DgramInfo, DgramSocket, DgramSocketOptions } from '../../api/dgram.ts';
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
  /** What a datagram is answered with; null: nothing. */
  readonly answer: (data: Buffer) => Buffer | null;
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

let nextLine = 0;

/** One line, each time the next one of the pattern. */
function chargenLine(): Buffer {
  const bytes = LINE + 2;
  const at = (nextLine++ % PRINTABLE) * bytes;
  return chargenPattern().subarray(at, at + bytes);
}

/** The services there are, on their RFCs' ports. */
export const services: readonly Service[] = [
  { name: 'echo', port: 7, serve: echo, answer: (data) => data },
  { name: 'discard', port: 9, serve: discard, answer: () => null },
  {
    name: 'daytime',
    port: 13,
    serve: daytime,
    answer: () => Buffer.from(`${ctime(new Date())}\r\n`),
  },
  { name: 'chargen', port: 19, serve: chargen, answer: chargenLine },
];

/** Whole datagrams, and a few of them. */
const DGRAM: DgramSocketOptions = { sendBufferSize: 65535, recvBufferSize: 4 * 65535 };

/** Makes the sockets of the emulated host: servers that do not listen yet, UDP sockets not bound. */
export interface InetdSockets {
  server(): TcpServer;
  dgram(options: DgramSocketOptions): DgramSocket;
}

export interface InetdOptions {
  readonly services: readonly Service[];
  readonly log: Logger;
}

/** A datagram for `service`: answers it, unless another service would answer in turn, for ever. */
function answerDatagram(
  service: Service,
  dgram: DgramSocket,
  data: Buffer,
  { address, port }: DgramInfo,
  log: Logger,
): void {
  if (port === 0 || services.some((other) => other.port === port)) return;
  const answer = service.answer(data);
  if (answer === null) return;
  try {
    dgram.send(answer, port, address);
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    log.info({ service: service.name, peer: `${address}:${port}`, code }, 'datagram not answered');
  }
}

/** Running services. */
export class Inetd {
  readonly #servers: TcpServer[] = [];
  readonly #dgrams: DgramSocket[] = [];
  readonly #sockets = new Set<TcpSocket>();

  /** Throws TapnicError EADDRINUSE. */
  constructor(make: InetdSockets, { services: wanted, log }: InetdOptions) {
    try {
      for (const service of wanted) {
        const server = make.server();
        server.on('connection', (socket: TcpSocket) => this.#connection(service, socket, log));
        server.listen(service.port);
        this.#servers.push(server);
        const dgram = make.dgram(DGRAM);
        this.#dgrams.push(dgram);
        dgram.on('message', (data: Buffer, from: DgramInfo) =>
          answerDatagram(service, dgram, data, from, log),
        );
        dgram.bind(service.port);
      }
    } catch (e) {
      this.#closeDoors();
      throw e;
    }
  }

  #closeDoors(): void {
    for (const server of this.#servers) server.close();
    for (const dgram of this.#dgrams) dgram.close();
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
    this.#closeDoors();
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
    this.#closeDoors();
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}
