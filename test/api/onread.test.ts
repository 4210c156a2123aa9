/**
 * The `onread` buffers of net.Socket: the same client on node:net over loopback and on our sockets over
 * lo0 sees the same calls and events.
 */

import { once } from 'node:events';
import {
  type AddressInfo,
  connect,
  createServer,
  type OnReadOpts,
  type Server,
  type Socket,
  type TcpNetConnectOpts,
} from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { createStack, type Stack } from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';

const BYTES = 300_000;

/** Byte `i` of what the server sends. */
const pattern = (i: number): number => (i * 31 + (i >> 8)) & 0xff;
const SENT = Buffer.from(Array.from({ length: BYTES }, (_, i) => pattern(i)));

/** The part of node:net, and of our stack, that the client needs. */
interface Net {
  listen(server: Server): void;
  connect(options: TcpNetConnectOpts): Promise<Socket>;
}

interface Client {
  title: string;
  /** The program: returns its `onread`, and may act on the socket later. */
  onread: (log: unknown[], socket: () => Socket | null) => OnReadOpts;
}

/** Checks the bytes of one call against the pattern at `at`. */
function check(buffer: Uint8Array, bytes: number, at: number): void {
  expect(Buffer.compare(buffer.subarray(0, bytes), SENT.subarray(at, at + bytes))).to.equal(0);
}

const clients: Client[] = [
  {
    title: 'one buffer for all reads, and no data event',
    onread: (log) => {
      const buffer = Buffer.alloc(1000);
      let at = 0;
      return {
        buffer,
        callback: (bytes, buf) => {
          expect(buf).to.equal(buffer);
          check(buf, bytes, at);
          at += bytes;
          if (at === BYTES) log.push(`all ${bytes <= 1000}`);
          return true;
        },
      };
    },
  },
  {
    title: 'a function makes the buffers; a value of another type keeps the last one',
    onread: (log) => {
      let made = 0;
      let at = 0;
      const buffers = [Buffer.alloc(500), Buffer.alloc(700)];
      return {
        buffer: () => (made++ % 3 === 2 ? (null as unknown as Buffer) : buffers[made % 2]!),
        callback: (bytes, buf) => {
          if (at < 5000) log.push([bytes, buf.length]);
          check(buf, bytes, at);
          at += bytes;
          if (at === BYTES) log.push('all');
          return true;
        },
      };
    },
  },
  {
    title: 'false stops reading until resume',
    onread: (log, socket) => {
      let at = 0;
      let stopped = false;
      return {
        buffer: Buffer.alloc(4096),
        callback: (bytes, buf) => {
          if (stopped) log.push('called while it was stopped');
          check(buf, bytes, at);
          at += bytes;
          if (at === BYTES) log.push('all');
          if (at < 100_000 || stopped || log.length > 0) return true;
          stopped = true;
          log.push(`stopped, ${at < BYTES}`);
          setTimeout(() => {
            stopped = false;
            log.push(`bytesRead ${socket()!.bytesRead === at}`);
            socket()!.resume();
          }, 100);
          return false;
        },
      };
    },
  },
  {
    title: 'pause in the callback stops, too',
    onread: (log, socket) => {
      let at = 0;
      return {
        buffer: Buffer.alloc(65536),
        callback: (bytes, buf) => {
          check(buf, bytes, at);
          at += bytes;
          if (at === BYTES) log.push('all');
          if (log.length > 0) return true;
          log.push('paused');
          socket()!.pause();
          setTimeout(() => {
            log.push('resumed');
            socket()!.resume();
          }, 50);
          return true;
        },
      };
    },
  },
  {
    title: 'destroy in the callback: no further call',
    onread: (log, socket) => ({
      buffer: Buffer.alloc(100),
      callback: (bytes) => {
        log.push(`called ${bytes}`);
        socket()!.destroy();
        return true;
      },
    }),
  },
  {
    title: 'an incomplete onread is ignored',
    onread: (log, socket) => {
      const listen = (): void => {
        if (socket() === null) {
          setImmediate(listen);
          return;
        }
        let at = 0;
        socket()!.on('data', (data: Buffer) => {
          at += data.length;
          if (at === BYTES) log.push('all, by data events');
        });
      };
      listen();
      return { buffer: Buffer.alloc(10) } as unknown as OnReadOpts;
    },
  },
];

/** Runs the client on `net` and returns what it logged. */
async function traceOf(client: Client, net: Net, host: string): Promise<unknown[]> {
  const log: unknown[] = [];
  const server = createServer((peer) => {
    peer.on('error', () => undefined);
    peer.resume();
    setTimeout(() => peer.end(SENT), 50);
  });
  net.listen(server);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  let socket: Socket | null = null;
  const onread = client.onread(log, () => socket);
  socket = await net.connect({ port, host, onread });
  for (const event of ['data', 'end', 'finish']) {
    if (event !== 'data' || client.title.includes('no data'))
      socket.on(event, () => log.push(event));
  }
  socket.on('error', (e: NodeJS.ErrnoException) => log.push(e.code));
  await Promise.race([
    once(socket, 'close').then(([hadError]) => log.push(`close ${String(hadError)}`)),
    sleep(5000),
  ]);
  log.push(client.title.includes('destroy') || socket.bytesRead);
  server.close();
  await once(server, 'close');
  return log;
}

describe('api: onread', () => {
  needs('root', 'tap', 'netns');
  let ns: Netns;
  let stack: Stack;

  before(async () => {
    ns = new Netns('onread');
    stack = await createStack({ netns: ns.name, memory: '64M' });
  });
  after(async () => {
    expect(await stack.close()).to.eql({});
    ns[Symbol.dispose]();
  });

  const node: Net = {
    listen: (server) => void server.listen(0, '127.0.0.1'),
    connect: async (options) => {
      const socket = connect(options);
      await once(socket, 'connect');
      return socket;
    },
  };

  for (const client of clients)
    it(client.title, async () => {
      const ours: Net = {
        listen: (server) => void stack.listen(server, { port: 0 }),
        connect: (options) => stack.connect(options) as unknown as Promise<Socket>,
      };
      const want = await traceOf(client, node, '127.0.0.1');
      expect(await traceOf(client, ours, '192.0.2.2')).to.eql(want);
      expect(want).to.not.include('called while it was stopped');
    }).timeout(20_000);
});
