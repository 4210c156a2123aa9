/** Logs of programs that use node:dgram or a stack's sockets, so that both can be compared. */

import type { createSocket, RemoteInfo, Socket } from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';

/** A module like node:dgram. */
export interface Dgram {
  readonly createSocket: typeof createSocket;
}

const PROPS = ['name', 'code', 'errno', 'syscall', 'hostname', 'address', 'port'] as const;
/** How long a program waits for an event. */
const WAIT_MS = 5000;

/** The log of one program. Ports that the system chose have names: the first one is `P1`. */
export class Log {
  readonly lines: string[] = [];
  readonly #ports = new Map<number, string>();
  readonly #sockets: Socket[] = [];
  readonly #dgram: Dgram;

  constructor(dgram: Dgram) {
    this.#dgram = dgram;
  }

  /** A socket that is closed after the program. */
  socket(
    ...args: [options?: unknown, listener?: (data: Buffer, from: RemoteInfo) => void]
  ): Socket {
    const [options, listener] = args.length === 0 ? ['udp4'] : args;
    const socket = this.#dgram.createSocket(options as 'udp4', listener);
    this.#sockets.push(socket);
    return socket;
  }

  /** Gives a port a name. */
  port(port: number): number {
    if (port > 0 && !this.#ports.has(port)) this.#ports.set(port, `P${this.#ports.size + 1}`);
    return port;
  }

  /** A socket that is bound, and its port. */
  async bound(address?: string, options: unknown = 'udp4'): Promise<[Socket, number]> {
    const socket = this.socket(options);
    const listening = this.once(socket, 'listening');
    socket.bind(0, address);
    await listening;
    return [socket, this.port(socket.address().port)];
  }

  #text(value: unknown): string {
    if (value instanceof Error) {
      const props = PROPS.map((name) => (value as unknown as Record<string, unknown>)[name]);
      const codes = props.map((prop) => this.#text(prop)).join(' ');
      return this.#named(`${codes} "${value.message}"`);
    }
    if (Buffer.isBuffer(value)) return `<${value.toString('latin1')}>`;
    if (typeof value === 'function') return 'function';
    return this.#named(JSON.stringify(value) ?? 'undefined');
  }

  #named(text: string): string {
    return text.replaceAll(/\d{4,5}/g, (n) => this.#ports.get(Number(n)) ?? n);
  }

  note(what: string, ...values: unknown[]): void {
    this.lines.push([what, ...values.map((value) => this.#text(value))].join(' '));
  }

  /** Notes the result of a call, or what it throws. */
  call(what: string, run: () => unknown): void {
    try {
      const result = run();
      this.note(what, typeof result === 'object' && result !== null ? 'object' : result);
    } catch (e) {
      this.note(what, 'throws', e);
    }
  }

  /** Notes the events of a socket. */
  watch(name: string, socket: Socket): void {
    for (const event of ['listening', 'connect', 'close'])
      socket.on(event, (...args) => this.note(`${name} ${event}`, ...args));
    socket.on('error', (e) => this.note(`${name} error`, e));
    socket.on('message', (data, from) => {
      this.port(from.port);
      this.note(`${name} message`, data, from);
    });
  }

  /** A callback that notes its arguments. */
  noted(what: string): (...args: unknown[]) => void {
    return (...args) => this.note(what, ...args);
  }

  /** Waits for an event. It notes that the event does not come. */
  async once(socket: Socket, event: string): Promise<unknown[]> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.note(`no ${event}`);
        resolve([]);
      }, WAIT_MS);
      socket.once(event, (...args: unknown[]) => {
        clearTimeout(timer);
        resolve(args);
      });
    });
  }

  /** Sends, and waits until the datagram is sent. Returns the error. */
  async sent(from: Socket, data: string, port: number, address?: string): Promise<unknown> {
    return new Promise((resolve) => from.send(data, port, address, resolve));
  }

  /** Closes the sockets of the program. */
  async end(): Promise<string[]> {
    const { lines } = this;
    const log = [...lines];
    for (const socket of this.#sockets) {
      socket.on('error', () => undefined);
      try {
        socket.close();
      } catch {
        // Closed by the program.
      }
    }
    await sleep(1);
    return log;
  }
}

/** Calls a method of a socket with arguments of any type. */
export function invoke(
  socket: Socket,
  name: keyof Socket & string,
  args: readonly unknown[],
): unknown {
  return (socket as unknown as Record<string, (...args: readonly unknown[]) => unknown>)[name]!(
    ...args,
  );
}

/** A program. It returns when all events have come. */
export type Program = (log: Log) => void | Promise<void>;

/** Waits for events that should not come, and for turns of the event loop. */
export async function settled(): Promise<void> {
  await sleep(10);
}
