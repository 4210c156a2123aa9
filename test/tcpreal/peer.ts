/** The peer of these tests, on Linux sockets: `node peer.js ADDRESS_OF_THE_EMULATED_HOST`. */

import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { type Answer, type Args, serveLines } from './lines.ts';
import { receiveStream, sendStream } from './streams.ts';

const host = process.argv[2] ?? '192.0.2.2';
const num = (args: Args, name: string): number => Number(args[name]);

async function dial(port: number): Promise<Socket> {
  const socket = connect({ port, host, allowHalfOpen: true, noDelay: true });
  await once(socket, 'connect');
  return socket;
}

/** The outcome of the single connection to each port. */
const results = new Map<number, Promise<Answer>>();

/** Listens for one connection to `port` and runs `body` on it; `result` waits for the outcome. */
async function serveOne(port: number, body: (socket: Socket) => Promise<Answer>): Promise<Answer> {
  const server = createServer({ allowHalfOpen: true });
  const result = new Promise<Answer>((resolve, reject) => {
    server.once('connection', (socket) => {
      server.close();
      body(socket).then(resolve, reject);
    });
  });
  result.catch(() => undefined);
  results.set(port, result);
  server.listen(port, '192.0.2.1');
  await once(server, 'listening');
  return {};
}

const receive = async (socket: Socket): Promise<Answer> => {
  const received = await receiveStream(socket);
  socket.end();
  return received;
};

const send = async (socket: Socket, bytes: number): Promise<Answer> => {
  const closed = once(socket, 'close');
  await sendStream(socket, bytes);
  socket.resume();
  await closed;
  return {};
};

const held = new Set<Socket>();

function hold(socket: Socket): void {
  held.add(socket);
  socket.on('error', () => undefined);
  socket.once('close', () => held.delete(socket));
}

/**
 * Opens a connection, sends `text`, waits for its echo, closes. Resolves with an error text or
 * null.
 */
function roundTrip(port: number, text: string): Promise<string | null> {
  return new Promise((resolve) => {
    let said = '';
    const socket = connect({ port, host, noDelay: true });
    socket.on('connect', () => socket.write(text));
    socket.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1');
      if (said.length >= text.length) socket.end();
    });
    socket.on('error', (e) => resolve(e.message));
    socket.on('close', () => resolve(said === text ? null : `${said} for ${text}`));
  });
}

/**
 * Opens and closes `count` connections, at most `perSecond` per second and `atOnce` at a time; each
 * echoes its own text. Returns the time it took and what went wrong.
 */
async function churn(args: Args): Promise<Answer> {
  const [port, count, perSecond, atOnce] = ['port', 'count', 'perSecond', 'atOnce'].map((name) =>
    num(args, name),
  ) as [number, number, number, number];
  const wrong: string[] = [];
  const begin = performance.now();
  let begun = 0;
  let slowestMs = 0;
  const worker = async (): Promise<void> => {
    while (begun < count) {
      const n = begun++;
      const early = begin + (n * 1000) / perSecond - performance.now();
      if (early > 1) await new Promise((resolve) => setTimeout(resolve, early));
      const from = performance.now();
      const problem = await roundTrip(port, `connection ${n}.`);
      slowestMs = Math.max(slowestMs, performance.now() - from);
      if (problem !== null) wrong.push(`${n}: ${problem}`);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  const seconds = (performance.now() - begin) / 1000;
  return { wrong: wrong.length, first: wrong.slice(0, 5), seconds, slowestMs };
}

serveLines({
  receiveAt: (args) => serveOne(num(args, 'port'), receive),
  sendAt: (args) => serveOne(num(args, 'port'), (socket) => send(socket, num(args, 'bytes'))),
  result: (args) => results.get(num(args, 'port'))!,
  receiveFrom: async (args) => receive(await dial(num(args, 'port'))),
  sendTo: async (args) => send(await dial(num(args, 'port')), num(args, 'bytes')),
  churn,
  dial: async (args) => {
    const batch = 100;
    for (let left = num(args, 'count'); left > 0; left -= batch)
      for (const socket of await Promise.all(
        Array.from({ length: Math.min(batch, left) }, () => dial(num(args, 'port'))),
      ))
        hold(socket);
    return { held: held.size };
  },
  endHeld: async () => {
    for (const socket of held) socket.end().resume();
    for (let i = 0; i < 300 && held.size > 0; i++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    return { held: held.size };
  },
  close: () => {
    process.stdin.destroy();
    for (const socket of held) socket.destroy();
    return {};
  },
});
