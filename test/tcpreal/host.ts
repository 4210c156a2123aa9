/**
 * The emulated host of these tests as a separate program: `node host.js STACK_OPTIONS_AS_JSON`.
 * With --expose-gc it can report the memory of its connections.
 */

import {
  connect,
  createServer,
  createStack,
  type Stack,
  type StackOptions,
} from '../../src/index.ts';
import type { Socket } from '../../src/index.ts';
import { type Answer, type Args, serveLines } from './lines.ts';
import { receiveStream, sendStream } from './streams.ts';

const options = JSON.parse(process.argv[2] ?? '{}') as StackOptions;
const stack: Stack = await createStack(options);

/** Open connections that stay idle. */
const held = new Set<Socket>();

// Use shared functions: a closure per connection would take more memory than what is measured.
const ignore = (): void => undefined;
function letGo(this: Socket): void {
  held.delete(this);
}

function hold(socket: Socket): void {
  held.add(socket);
  socket.on('error', ignore).on('close', letGo);
}

/** The outcome of the single connection to each port. */
const results = new Map<number, Promise<Answer>>();

/** Listens for one connection to `port` and runs `body` on it; `result` waits for the outcome. */
function serveOne(port: number, body: (socket: Socket) => Promise<Answer>): Answer {
  const result = new Promise<Answer>((resolve, reject) => {
    const server = createServer(stack, (socket) => {
      server.close();
      body(socket).then(resolve, reject);
    }).listen(port);
  });
  result.catch(() => undefined);
  results.set(port, result);
  return {};
}

const receive = async (socket: Socket): Promise<Answer> => {
  const received = await receiveStream(socket);
  socket.end();
  return received;
};

const send = async (socket: Socket, bytes: number): Promise<Answer> => {
  await sendStream(socket, bytes);
  // The peer closes after it has received everything.
  socket.resume();
  await new Promise((resolve, reject) => {
    socket.once('close', resolve);
    socket.once('error', reject);
  });
  return {};
};

const listeners: ReturnType<typeof createServer>[] = [];

/**
 * A permanent service on a port: `hold` keeps connections idle, `echo` runs until the peer's FIN,
 * `answer` echoes once and closes first.
 */
function listen(port: number, what: string): void {
  const server = createServer(stack, (socket) => {
    if (what === 'hold') {
      hold(socket);
      return;
    }
    socket.on('error', () => undefined);
    if (what === 'answer') socket.once('data', (chunk: Buffer) => socket.end(chunk)).resume();
    else socket.on('data', (chunk: Buffer) => socket.write(chunk));
    socket.once('end', () => socket.end());
  });
  listeners.push(server.listen(port));
}

const bsd = stack.bsd();
const { AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_FASTOPEN } = bsd.constants;

function must(n: number): number {
  if (n < 0) throw new Error(`errno ${-n}`);
  return n;
}

/** Echoes once to each of `count` connections; `fast`: whether each began with Fast Open. */
async function fastOpenServe(at: number, count: number): Promise<Answer> {
  const head = must(bsd.socket(AF_INET, SOCK_STREAM, 0));
  must(bsd.setsockopt(head, IPPROTO_TCP, TCP_FASTOPEN, 1));
  must(bsd.bind(head, { address: '0.0.0.0', port: at }));
  must(bsd.listen(head, 8));
  const fast: number[] = [];
  for (let i = 0; i < count; i++) {
    const s = await bsd.acceptAsync(head);
    fast.push(bsd.getsockopt(s, IPPROTO_TCP, TCP_FASTOPEN));
    const buf = new Uint8Array(100);
    const n = await bsd.recvAsync(s, buf);
    await bsd.sendAsync(s, buf.subarray(0, n));
    await bsd.closeAsync(s);
  }
  await bsd.closeAsync(head);
  return { fast };
}

/** Sends `text` with the SYN and returns what comes back. */
async function fastOpenSend(to: number, text: string): Promise<Answer> {
  const s = must(bsd.socket(AF_INET, SOCK_STREAM, 0));
  must(bsd.setsockopt(s, IPPROTO_TCP, TCP_FASTOPEN, 1));
  must(bsd.sendto(s, Buffer.from(text), 0, { address: '192.0.2.1', port: to }));
  const buf = new Uint8Array(100);
  const n = await bsd.recvAsync(s, buf);
  await bsd.closeAsync(s);
  return { answer: Buffer.from(buf.subarray(0, n)).toString() };
}

/** Memory in use after three garbage collections. */
async function weigh(): Promise<Answer> {
  if (globalThis.gc === undefined) throw new Error('start with --expose-gc');
  // Wait between collections: finalizers of one free memory that the next can collect.
  for (let i = 0; i < 3; i++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  return { heapUsed, external, arrayBuffers, rss, held: held.size };
}

const num = (args: Args, name: string): number => Number(args[name]);

serveLines({
  receiveAt: (args) => serveOne(num(args, 'port'), receive),
  sendAt: (args) => serveOne(num(args, 'port'), (socket) => send(socket, num(args, 'bytes'))),
  result: (args) => results.get(num(args, 'port'))!,
  receiveFrom: async (args) => receive(await connect(stack, num(args, 'port'), '192.0.2.1')),
  sendTo: async (args) =>
    send(await connect(stack, num(args, 'port'), '192.0.2.1'), num(args, 'bytes')),
  listen: (args) => {
    listen(num(args, 'port'), String(args['what']));
    return {};
  },
  fastOpenServe: (args) => fastOpenServe(num(args, 'port'), num(args, 'count')),
  fastOpenSend: (args) => fastOpenSend(num(args, 'port'), String(args['text'])),
  weigh,
  netstat: () => ({ ...stack.netstat('s') }),
  sockets: () => ({ sockets: stack.netstat('an') }),
  mbufs: () => ({ ...stack.netstat('m') }),
  faults: () => ({ faults: stack.faults() }),
  endHeld: () => {
    for (const socket of held) {
      socket.resume();
      socket.end();
    }
    return {};
  },
  close: async () => {
    const leaked = await stack.close();
    process.stdin.destroy();
    return { leaked };
  },
});
