/**
 * The small services over TCP and UDP, after usr.sbin/inetd/builtins.c: echo (RFC 862), discard
 * (RFC 863), chargen (RFC 864), daytime (RFC 867). Left out: the time service, programs,
 * configuration files, limits per client. Unlike FreeBSD's, echo answers datagrams of any length.
 */

import type { RemoteInfo, Socket as DgramSocket, SocketOptions } from 'node:dgram';
import type { DirectKind, DirectOptions, DirectService } from '../../api/direct.ts';
import { listening, type Server } from '../../api/server.ts';
import type { Socket } from '../../api/socket.ts';
import { peerText } from '../peer_text.ts';

/** Receives reports of problems; pino's loggers fit. */
export interface Logger {
  info(fields: object, message: string): void;
}

/** A service over sockets of the kind that programs use. */
interface SocketService {
  readonly name: string;
  readonly port: number;
  readonly serve: (socket: Socket) => void;
  /** The answer to a datagram. */
  readonly answer: () => Buffer;
}

/** A service that runs inside the stack. */
interface StackService {
  readonly name: DirectKind;
  readonly port: number;
}

export type Service = SocketService | StackService;

const FIRST_PRINTABLE = 0x20;
/** Printable characters of ASCII, the space included. */
const PRINTABLE = 95;
/** Characters of a line, as in RFC 864's example. */
const LINE = 72;

/** One period of the pattern: a line starting at each of the printable characters. */
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

/** Sends the pattern until the connection ends; discards received data. */
function chargen(socket: Socket): void {
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

/** Sends the time and closes. */
function daytime(socket: Socket): void {
  socket.resume();
  socket.end(`${ctime(new Date())}\r\n`);
}

let nextLine = 0;

/** One line; each call returns the next line of the pattern. */
function chargenLine(): Buffer {
  const bytes = LINE + 2;
  const at = (nextLine++ % PRINTABLE) * bytes;
  return chargenPattern().subarray(at, at + bytes);
}

/** All services, on the ports of their RFCs. */
export const services: readonly Service[] = [
  { name: 'echo', port: 7 },
  { name: 'discard', port: 9 },
  {
    name: 'daytime',
    port: 13,
    serve: daytime,
    answer: () => Buffer.from(`${ctime(new Date())}\r\n`),
  },
  { name: 'chargen', port: 19, serve: chargen, answer: chargenLine },
];

/** Socket buffers for one datagram to send and four to receive, of any size. */
const DGRAM: SocketOptions = {
  // Takes both families.
  type: 'udp6',
  sendBufferSize: 65535,
  recvBufferSize: 4 * 65535,
};

/**
 * Makes sockets of the emulated host: servers that do not listen yet, UDP sockets not bound, and the
 * services inside the stack, which listen at once.
 */
export interface InetdSockets {
  server(): Server;
  dgram(options: SocketOptions): DgramSocket;
  direct(options: DirectOptions): Pick<DirectService, 'close' | 'destroy'>;
}

export interface InetdOptions {
  readonly services: readonly Service[];
  readonly log: Logger;
}

/** Whether `port` is that of a service: two services would answer each other without end. */
function isService(port: number): boolean {
  for (const service of services) if (service.port === port) return true;
  return false;
}

/** Answers a datagram for `service`, unless it comes from port 0 or from the port of a service. */
function answerDatagram(
  service: SocketService,
  dgram: DgramSocket,
  { address, port }: RemoteInfo,
  log: Logger,
): void {
  if (port === 0 || isService(port)) return;
  const failed = (code: string | undefined): void => {
    const peer = peerText(address, port);
    log.info({ service: service.name, peer, code }, 'datagram not answered');
  };
  // Drop answers while others wait: a flood of requests must not fill the memory.
  if (dgram.getSendQueueCount() > 0) failed('ENOBUFS');
  else
    dgram.send(service.answer(), port, address, (error: NodeJS.ErrnoException | null) => {
      if (error !== null) failed(error.code);
    });
}

function directOptions({ name, port }: StackService, log: Logger): DirectOptions {
  return {
    kind: name,
    port,
    ignores: isService,
    failed(what, address, peerPort, code) {
      const fields = { service: name, peer: peerText(address, peerPort), code };
      log.info(fields, what === 'connection' ? 'connection error' : 'datagram not answered');
    },
  };
}

/** Running services. */
export class Inetd {
  readonly #servers: Server[] = [];
  readonly #dgrams: DgramSocket[] = [];
  readonly #directs: Pick<DirectService, 'close' | 'destroy'>[] = [];
  readonly #sockets = new Set<Socket>();
  /** Resolves when all services listen; rejects with TapnicError EADDRINUSE. */
  readonly ready: Promise<void>;

  /** Throws TapnicError EADDRINUSE of a port of echo and discard. */
  constructor(make: InetdSockets, { services: wanted, log }: InetdOptions) {
    const listens: Promise<void>[] = [];
    try {
      for (const service of wanted) {
        if (!('serve' in service)) {
          this.#directs.push(make.direct(directOptions(service, log)));
          continue;
        }
        const server = make.server();
        listens.push(listening(server));
        server.on('connection', (socket: Socket) => this.#connection(service, socket, log));
        server.listen(service.port);
        this.#servers.push(server);
        const dgram = make.dgram(DGRAM);
        this.#dgrams.push(dgram);
        listens.push(listening(dgram));
        dgram.on('message', (_data: Buffer, from: RemoteInfo) =>
          answerDatagram(service, dgram, from, log),
        );
        dgram.bind(service.port);
      }
    } catch (e) {
      this.#closeAll();
      // The caller cannot wait for these.
      for (const promise of listens) promise.catch(() => undefined);
      throw e;
    }
    this.ready = Promise.all(listens).then(
      () => undefined,
      (e: unknown) => {
        this.#closeAll();
        throw e;
      },
    );
  }

  #closeDoors(): void {
    for (const server of this.#servers) server.close();
    for (const dgram of this.#dgrams.splice(0)) dgram.close();
  }

  #closeAll(): void {
    this.#closeDoors();
    for (const direct of this.#directs) direct.close();
  }

  #connection(service: SocketService, socket: Socket, log: Logger): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const peer = peerText(socket.remoteAddress, socket.remotePort);
      log.info({ service: service.name, peer, code: error.code }, 'connection error');
    });
    service.serve(socket);
  }

  /** Stops accepting connections, and ends the open ones. */
  close(): void {
    this.#closeAll();
    for (const socket of this.#sockets) {
      // Stop the writers first: they must not write after end().
      socket.unpipe();
      socket.removeAllListeners('drain');
      socket.resume();
      socket.end();
    }
  }

  /** Resets every open connection. */
  destroy(): void {
    this.#closeDoors();
    for (const direct of this.#directs) direct.destroy();
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}
