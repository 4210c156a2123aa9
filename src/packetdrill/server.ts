/**
 * The server for packetdrill's shared object: a Unix socket that serves one script at a time. A
 * HELLO creates an emulated host for the script; the end of its connection removes it. Commands
 * (the shims) act on the running script's host. A client can lose only its own connection.
 */

import { createServer, type Server, type Socket } from 'node:net';
import { allocArena } from '../host/arena.ts';
import { NativeCksum } from '../host/cksum.ts';
import { ManualClock } from '../host/manual_clock.ts';
import { NativePager } from '../host/pager.ts';
import { SeededPrng } from '../host/prng.ts';
import { Machine } from '../machine/machine.ts';
import { PD_BLOCK, PdHost, type PdPollfd } from './host.ts';
import { LINUX_ERRNO } from './linux.ts';
import { runShim } from './shim.ts';
import { parseInAddr } from '../netinet/in.ts';
import { parseIn6 } from '../netinet6/in6.ts';
import type { AddrWords } from '../sys/addr.ts';
import type { InAddr } from '../sys/types.ts';
import { arenaBytes } from '../vm/arena.ts';
import {
  LINK_VERSION,
  LinkReader,
  type LinkReply,
  type LinkRequest,
  OP_ACCEPT,
  OP_BIND,
  OP_CLOSE,
  OP_CONNECT,
  OP_FCNTL,
  OP_GETSOCKOPT,
  OP_HELLO,
  OP_INJECT,
  OP_IOCTL,
  OP_LISTEN,
  OP_POLL,
  OP_RECEIVE,
  OP_RECV,
  OP_SEND,
  OP_SETSOCKOPT,
  OP_SHIM,
  OP_SHUTDOWN,
  OP_SLEEP,
  OP_SOCKET,
  PAYLOAD_MAX,
  replyFrame,
} from './frames.ts';

const CLIENTS_MAX = 16;
/** Real time within which an incomplete request must be completed. */
const PARTIAL_MS = 5000;
/**
 * Real time that a new script waits for the previous one to end: a program that it started may keep
 * its connection open.
 */
const BUSY_MS = 1000;
/** The largest clock advance of one request: a year. */
const STEP_MAX_US = 366 * 86400e6;
const POLLFD = 8;

export interface PacketdrillOptions {
  readonly path: string;
  /** The host's address, the source of connections that are not bound. */
  readonly addr: InAddr;
  readonly addr6: AddrWords;
  readonly mtu: number;
  /** Bytes of RAM. */
  readonly memory: number;
  readonly seed: number;
}

/** The settings of one script. */
type Settings = Pick<PacketdrillOptions, 'addr' | 'addr6' | 'mtu'>;

/** Parses the settings of a HELLO, from --so_flags: `mtu=1400,addr=192.168.0.2`. Throws Error. */
function settings(text: string, { addr, addr6, mtu }: PacketdrillOptions): Settings {
  for (const pair of text.split(',').filter((p) => p !== '')) {
    const eq = pair.indexOf('=');
    const [name, value] = [pair.slice(0, eq), pair.slice(eq + 1)];
    if (name === 'socket') continue;
    if (name === 'mtu' && /^\d+$/.test(value) && Number(value) >= 72 && Number(value) <= 65535)
      mtu = Number(value);
    else if (name === 'addr' && parseInAddr(value) !== null) addr = parseInAddr(value)!;
    else if (name === 'addr6' && parseIn6(value) !== null) addr6 = parseIn6(value)!;
    else
      throw new Error(`--so_flags: ${pair}: mtu=BYTES, addr=ADDRESS, addr6=ADDRESS or socket=PATH`);
  }
  return { addr, addr6, mtu };
}

/**
 * A started call: its result or PD_BLOCK, and the function that makes its reply's data when it is
 * done.
 */
interface Begun {
  readonly result: number;
  readonly out: (result?: number) => Pick<LinkReply, 'a' | 'payload'>;
}

class Session {
  readonly host: PdHost;
  readonly #socket: Socket;

  constructor(socket: Socket, host: PdHost) {
    this.#socket = socket;
    this.host = host;
  }

  get nowUs(): number {
    return Math.floor(this.host.nowNs / 1e3);
  }

  /** Executes a request. Replies immediately, or when a waiting call is done. */
  handle(q: LinkRequest): void {
    const { host } = this;
    // Advance our clock to the script's, which has advanced by itself.
    const ahead = q.nowUs - this.nowUs;
    if (ahead > 0 && ahead <= STEP_MAX_US) host.advanceTo(q.nowUs * 1e3);
    let out: Pick<LinkReply, 'a' | 'payload'> = {};
    const call = this.#begin(q);
    if (call.result !== PD_BLOCK) {
      if (call.result >= 0) out = call.out();
      this.reply({ id: q.id, result: call.result, nowUs: this.nowUs, ...out });
      return;
    }
    const step = host.takeStep();
    if (q.noWait) {
      this.reply({ id: q.id, result: -LINUX_ERRNO['EDEADLK']!, nowUs: this.nowUs });
      return;
    }
    host.wait(step, (result) => {
      out = result >= 0 ? call.out(result) : {};
      this.reply({ id: q.id, result, late: true, nowUs: this.nowUs, ...out });
    });
  }

  reply(reply: LinkReply): void {
    this.#socket.write(replyFrame(reply));
  }

  #begin(q: LinkRequest): Begun {
    const { host } = this;
    const { fd, a, b, c, payload } = q;
    const none = (): object => ({});
    const value = (): object => ({ payload: host.valueOut });
    switch (q.op) {
      case OP_SOCKET:
        return { result: host.socket(a, b, c), out: none };
      case OP_BIND:
        return { result: host.bind(fd, payload), out: none };
      case OP_LISTEN:
        return { result: host.listen(fd, a), out: none };
      case OP_ACCEPT:
        return { result: host.accept(fd), out: () => ({ payload: host.addressOut }) };
      case OP_CONNECT:
        return { result: host.connect(fd, payload), out: none };
      case OP_RECV: {
        const buf = new Uint8Array(Math.min(Math.max(a, 0), PAYLOAD_MAX / 2));
        const result = host.recv(fd, buf, b);
        const out = (late = result): object => ({
          a: host.addressOut.length,
          payload: Buffer.concat([host.addressOut, buf.subarray(0, late)]),
        });
        return { result, out };
      }
      case OP_SEND: {
        const sa = payload.subarray(0, Math.max(a, 0));
        return { result: host.send(fd, payload.subarray(sa.length), b, sa), out: none };
      }
      case OP_FCNTL:
        return { result: host.fcntl(fd, a, b), out: none };
      case OP_IOCTL:
        return { result: host.ioctl(fd, a >>> 0, b), out: value };
      case OP_CLOSE:
        return { result: host.closeFd(fd), out: none };
      case OP_SHUTDOWN:
        return { result: host.shutdown(fd, a), out: none };
      case OP_GETSOCKOPT:
        return { result: host.getsockopt(fd, a, b, Math.min(c, PAYLOAD_MAX)), out: value };
      case OP_SETSOCKOPT:
        return { result: host.setsockopt(fd, a, b, payload), out: none };
      case OP_POLL:
        return this.#poll(payload, a);
      case OP_INJECT:
        host.inject(payload);
        return { result: 0, out: none };
      case OP_RECEIVE:
        return this.#receive();
      case OP_SLEEP:
        return { result: 0, out: none };
      default:
        return { result: -LINUX_ERRNO['ENOSYS']!, out: none };
    }
  }

  #poll(payload: Buffer, timeoutMs: number): Begun {
    const fds: PdPollfd[] = [];
    for (let at = 0; at + POLLFD <= payload.length; at += POLLFD)
      fds.push({ fd: payload.readInt32LE(at), events: payload.readInt16LE(at + 4), revents: 0 });
    const out = (): object => {
      fds.forEach((p, i) => payload.writeInt16LE(p.revents, POLLFD * i + 6));
      return { payload };
    };
    return { result: this.host.poll(fds, timeoutMs), out };
  }

  #receive(): Begun {
    const packet = this.host.receive(this.host.nowNs + STEP_MAX_US * 1e3);
    if (packet === null) return { result: 0, out: () => ({}) };
    const payload = Buffer.alloc(8 + packet.bytes.length);
    payload.writeBigInt64LE(BigInt(Math.floor(packet.timeNs / 1e3)), 0);
    payload.set(packet.bytes, 8);
    return { result: packet.bytes.length, out: () => ({ payload }) };
  }
}

export class PacketdrillServer {
  readonly #options: PacketdrillOptions;
  readonly #server: Server;
  readonly #clients = new Set<Socket>();
  readonly #clock = new ManualClock({ startNs: 1e9 });
  readonly #machine: Machine;
  #session: Session | null = null;
  /** Scripts that wait for the running one to end, in order. */
  readonly #next: (() => void)[] = [];
  /** Number of scripts that were started. */
  scripts = 0;

  constructor(options: PacketdrillOptions) {
    this.#options = options;
    const arena = allocArena(arenaBytes(options.memory));
    this.#machine = new Machine({
      memory: options.memory,
      seed: options.seed,
      clock: this.#clock,
      prng: new SeededPrng(options.seed),
      pager: new NativePager(arena),
      cksum: new NativeCksum(arena),
      arena,
    });
    this.#server = createServer((socket) => this.#accept(socket));
    this.#server.maxConnections = CLIENTS_MAX;
  }

  /** Listens; only this user may connect. Rejects with Node's error. */
  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      // listen() binds the socket before it returns, so the umask applies to no other file.
      const umask = process.umask(0o177);
      try {
        this.#server.listen(this.#options.path, () => {
          this.#server.off('error', reject);
          this.#server.on('error', () => undefined);
          resolve();
        });
      } finally {
        process.umask(umask);
      }
    });
  }

  /** Stops the server. Returns the leaked items: counts by pool name. */
  close(): Record<string, number> {
    this.#server.close();
    this.#next.length = 0;
    for (const client of this.#clients) client.destroy();
    this.#end();
    return this.#machine.leaked();
  }

  #end(): void {
    this.#session?.host.close();
    this.#session = null;
    this.#next.shift()?.();
  }

  #accept(socket: Socket): void {
    const reader = new LinkReader();
    let session: Session | null = null;
    this.#clients.add(socket);
    socket.on('error', () => undefined); // 'close' follows
    socket.on('timeout', () => socket.destroy());
    socket.on('close', () => {
      this.#clients.delete(socket);
      if (session !== null && session === this.#session) this.#end();
      session = null;
    });
    socket.on('data', (chunk) => {
      const requests = reader.push(chunk);
      if (requests === null) {
        socket.destroy();
        return;
      }
      socket.setTimeout(reader.partial ? PARTIAL_MS : 0);
      for (const q of requests) {
        if (socket.destroyed) return;
        if (q.op === OP_SHIM) this.#shim(socket, q);
        else if (q.op === OP_HELLO) this.#hello(socket, q, (started) => (session = started));
        else if (session === null) socket.destroy();
        else session.handle(q);
      }
    });
  }

  #refuse(socket: Socket, { id }: LinkRequest, errno: string, message: string): void {
    const result = -LINUX_ERRNO[errno]!;
    socket.end(replyFrame({ id, result, nowUs: 0, payload: Buffer.from(message) }));
  }

  /**
   * Starts a script and calls `adopt` with its session. If another script runs, waits up to BUSY_MS
   * for its end, then replies EBUSY.
   */
  #hello(socket: Socket, q: LinkRequest, adopt: (session: Session) => void): void {
    if (q.a !== LINK_VERSION) {
      const message = `version ${q.a} of the shared object, not ${LINK_VERSION}`;
      this.#refuse(socket, q, 'EPROTO', message);
      return;
    }
    let wanted: Settings;
    try {
      wanted = settings(q.payload.toString('latin1'), this.#options);
    } catch (e) {
      this.#refuse(socket, q, 'EINVAL', (e as Error).message);
      return;
    }
    if (this.#session === null) {
      adopt(this.#start(socket, q, wanted));
      return;
    }
    const turn = (): void => {
      clearTimeout(timer);
      if (socket.destroyed) this.#next.shift()?.();
      else adopt(this.#start(socket, q, wanted));
    };
    const timer = setTimeout(() => {
      this.#next.splice(this.#next.indexOf(turn), 1);
      this.#refuse(socket, q, 'EBUSY', 'a script runs already');
    }, BUSY_MS);
    timer.unref();
    this.#next.push(turn);
  }

  #start(socket: Socket, { id }: LinkRequest, wanted: Settings): Session {
    // Give every script the same conditions: a time of whole seconds and the same random numbers.
    this.#clock.advanceTo(Math.ceil(this.#clock.nowNs() / 1e9) * 1e9);
    const prng = new SeededPrng(this.#options.seed);
    const session = new Session(socket, new PdHost({ clock: this.#clock, prng, ...wanted }));
    this.#session = session;
    this.scripts++;
    session.reply({ id, result: 0, nowUs: session.nowUs });
    return session;
  }

  #shim(socket: Socket, q: LinkRequest): void {
    const host = this.#session?.host;
    const words = q.payload.toString().split('\0').slice(0, -1);
    const { status, out, err } =
      host === undefined
        ? { status: 1, out: '', err: `${words[0]}: no script runs\n` }
        : runShim(host, words);
    const stdout = Buffer.from(out);
    const payload = Buffer.concat([stdout, Buffer.from(err)]).subarray(0, PAYLOAD_MAX);
    socket.end(replyFrame({ id: q.id, result: status, nowUs: 0, a: stdout.length, payload }));
  }
}
