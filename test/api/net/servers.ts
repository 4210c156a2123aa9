/** Behaviours of node:net: servers. */

import type { AddressInfo, Server, Socket } from 'node:net';
import { promisify } from 'node:util';
import { type Behaviour, type Bench, closed, once, portOf, sleep } from './bench.ts';

const HOST = '127.0.0.1';

/** Logs a server that listens with certain arguments, and one connection to it. */
const listens = (title: string, listen: (server: Server, b: Bench) => unknown): Behaviour => ({
  title: `listens: ${title}`,
  async run(b) {
    const server = b.traceServer(b.net.createServer());
    const result = listen(server, b);
    b.log('call', result === server, server.listening);
    await once(server, 'listening');
    const { address, family, port } = server.address() as AddressInfo;
    b.log('address', address, family, port > 0, server.listening);
    server.on('connection', (socket) => socket.end());
    const client = b.track(b.net.connect(port, HOST).resume());
    await closed(client);
    server.close();
    b.log('call', server.listening, server.address());
    await once(server, 'close');
  },
});

const count = (server: Server): Promise<number> => promisify(server.getConnections.bind(server))();

export const serverBehaviours: Behaviour[] = [
  listens('listen()', (server) => server.listen()),
  listens('listen(listener)', (server, b) => server.listen(() => b.log('listener', 'called'))),
  listens('listen(null)', (server) => server.listen(null as never)),
  listens('listen(0)', (server) => server.listen(0)),
  listens('listen of a port of text', (server) => server.listen('0' as never)),
  listens('listen(port, listener)', (server, b) =>
    server.listen(0, () => b.log('listener', 'called')),
  ),
  listens('listen(port, host)', (server) => server.listen(0, HOST)),
  listens('listen(port, host, listener)', (server, b) =>
    server.listen(0, HOST, () => b.log('listener', 'called')),
  ),
  listens('listen(port, host, backlog)', (server) => server.listen(0, HOST, 5)),
  listens('listen(port, backlog, listener)', (server, b) =>
    server.listen(0, 5, () => b.log('listener', 'called')),
  ),
  listens('listen(options)', (server) => server.listen({ port: 0, host: HOST, backlog: 5 })),
  listens('listen(options) with a port of undefined', (server) =>
    server.listen({ port: undefined }),
  ),
  listens('listen(options, listener)', (server, b) =>
    server.listen({ port: 0, exclusive: true }, () => b.log('listener', 'called')),
  ),
  listens('a host name: localhost', (server) => server.listen(0, 'localhost')),
  listens('all addresses of IPv4', (server) => server.listen(0, '0.0.0.0')),
  {
    title: 'listens: Server() without new, and createServer(listener)',
    async run(b) {
      const { net } = b;
      const one = (net.Server as never as () => Server)();
      const two = net.createServer((socket) => b.log('two', typeof socket.end));
      const three = new net.Server({ allowHalfOpen: true }, () => {});
      for (const server of [one, two, three])
        b.log('server', server.listening, server.address(), server.listenerCount('connection'));
      b.log('names', (net as never as { Stream: unknown }).Stream === net.Socket);
    },
  },
  {
    title: 'listens: EADDRINUSE is emitted, and it may try again',
    async run(b) {
      const first = await b.listen();
      const second = b.traceServer(b.net.createServer(), 'second');
      second.listen(portOf(first), HOST);
      b.log('second', 'behind the call', second.listening);
      await once(second, 'error').catch((e: unknown) => b.log('second', e));
      second.listen(0, HOST);
      await once(second, 'listening');
    },
  },
  {
    title: 'listens: EADDRINUSE of all addresses',
    async run(b) {
      const first = b.net.createServer().listen(0);
      b.later(() => first.close());
      await once(first, 'listening');
      b.port(portOf(first), 'P');
      const second = b.traceServer(b.net.createServer(), 'second').listen(portOf(first));
      await once(second, 'error').catch((e: unknown) => b.log('second', e));
    },
  },
  {
    title: 'listens: an address that this host does not have',
    async run(b) {
      const server = b.traceServer(b.net.createServer());
      server.listen(b.port(4321, 'P'), '192.0.2.200');
      await once(server, 'error').catch((e: unknown) => b.log('server', e));
    },
  },
  {
    title: 'listens: close in the same turn, without a host',
    async run(b) {
      const server = b.traceServer(b.net.createServer()).listen(0);
      server.close((e) => b.log('close', e));
      await once(server, 'close');
      await sleep(2);
    },
  },
  {
    title: 'listens: close in the same turn, with a host',
    async run(b) {
      const server = b.traceServer(b.net.createServer()).listen(0, HOST);
      b.log('call', server.listening);
      server.close((e) => b.log('close', e));
      await once(server, 'close');
      await sleep(2);
      b.log('call', server.listening);
    },
  },
  {
    title: 'listens: a signal that is aborted later',
    async run(b) {
      const abort = new AbortController();
      const server = b.traceServer(b.net.createServer());
      server.listen({ port: 0, host: HOST, signal: abort.signal });
      await once(server, 'listening');
      abort.abort();
      await once(server, 'close');
      b.log('server', server.listening);
    },
  },
  {
    title: 'listens: a signal that is aborted already',
    async run(b) {
      const server = b.traceServer(b.net.createServer());
      server.listen({ port: 0, signal: AbortSignal.abort() });
      await once(server, 'close');
      b.log('server', server.listening);
    },
  },
  {
    title: 'close: a server that never listened',
    async run(b) {
      const server = b.traceServer(b.net.createServer());
      b.log('call', server.close((e) => b.log('done', e, e?.message)) === server);
      await once(server, 'close');
    },
  },
  {
    title: 'close twice',
    async run(b) {
      const server = b.traceServer(await b.listen());
      server.close((e) => b.log('first', e));
      server.close((e) => b.log('second', e));
      await once(server, 'close');
      await sleep(2);
    },
  },
  {
    title: 'close waits for the last connection',
    async run(b) {
      const { server, near, far } = await b.pair();
      b.traceServer(server);
      far.on('close', () => b.log('server', 'connection closed'));
      far.resume();
      server.close(() => b.log('server', 'done'));
      await sleep(5);
      b.log('server', server.listening, server.address());
      near.end();
      near.resume();
      await once(server, 'close');
    },
  },
  {
    title: 'close: new connections are refused',
    async run(b) {
      const { server } = await b.pair();
      const port = portOf(server);
      server.close();
      const late = b.trace(b.net.connect(port, HOST), 'late');
      await closed(late);
    },
  },
  {
    title: 'close, and listen again',
    async run(b) {
      const server = b.traceServer(await b.listen());
      server.close();
      await once(server, 'close');
      server.listen(0, HOST);
      await once(server, 'listening');
      b.log('server', server.listening);
    },
  },
  {
    title: 'close: Symbol.asyncDispose',
    async run(b) {
      const server = b.traceServer(await b.listen());
      await server[Symbol.asyncDispose]();
      b.log('server', server.listening);
      b.log('again', await server[Symbol.asyncDispose]());
    },
  },
  {
    title: 'getConnections',
    async run(b) {
      const { server, near, far } = await b.pair();
      b.log('count', await count(server));
      far.destroy();
      await closed(far);
      b.log('count', await count(server));
      near.destroy();
      let inside = true;
      server.getConnections(() => b.log('inside', inside));
      inside = false;
      await sleep(2);
    },
  },
  {
    title: 'maxConnections: drop, with its data',
    async run(b) {
      const server = b.traceServer(await b.listen());
      server.maxConnections = 1;
      const first = b.connect(server);
      await once(server, 'connection');
      const dropped = once(server, 'drop');
      const second = b.connect(server).resume();
      await Promise.all([dropped, closed(second)]);
      b.log('count', await count(server));
      first.destroy();
    },
  },
  {
    title: 'maxConnections: room again when a connection has ended',
    async run(b) {
      const server = b.traceServer(await b.listen());
      server.maxConnections = 1;
      const first = b.connect(server);
      const [accepted] = (await once(server, 'connection')) as [Socket];
      first.destroy();
      await closed(accepted.resume());
      const second = b.connect(server);
      await once(server, 'connection');
      b.log('count', await count(server));
      second.destroy();
    },
  },
  {
    title: 'pauseOnConnect',
    async run(b) {
      const { near, far } = await b.pair({ pauseOnConnect: true });
      near.end('hello');
      b.reads(b.trace(far, 'far'), 'far');
      b.log('far', far.isPaused(), far.readableFlowing);
      await sleep(5);
      b.log('far', far.bytesRead);
      far.resume();
      near.resume();
      await closed(far);
    },
  },
  {
    title: 'highWaterMark of a server',
    async run(b) {
      const { far } = await b.pair({ highWaterMark: 1234 });
      b.log('far', far.readableHighWaterMark, far.writableHighWaterMark);
    },
  },
  {
    title: 'noDelay, keepAlive and keepAliveInitialDelay of a server',
    async run(b) {
      const options = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 2500 };
      const { server, far } = await b.pair(options);
      const { noDelay, keepAlive, keepAliveInitialDelay } = server as never as typeof options;
      b.log('server', noDelay, keepAlive, keepAliveInitialDelay, far.destroyed);
    },
  },
  {
    title: 'the properties of a server',
    run(b) {
      const server = b.net.createServer();
      b.log('server', server.listening, server.address(), server.maxConnections);
      b.log('server', server.ref() === server, server.unref() === server);
      b.log('server', (server as never as { allowHalfOpen: boolean }).allowHalfOpen);
    },
  },
  {
    title: 'socket.server is the server, and keeps it',
    async run(b) {
      const { server, far } = await b.pair();
      const has = (): boolean => (far as never as { server: unknown }).server === server;
      b.log('far', has());
      far.destroy();
      await closed(far);
      b.log('far', has());
    },
  },
  {
    title: 'captureRejections: a listener of connection that rejects',
    async run(b) {
      const { EventEmitter } = await import('node:events');
      const before = EventEmitter.captureRejections;
      EventEmitter.captureRejections = true;
      try {
        const server = await b.listen();
        server.on('connection', async (socket) => {
          b.trace(socket, 'far');
          throw new Error('mine');
        });
        const near = b.connect(server);
        await closed(near.on('error', () => {}).resume());
        await sleep(2);
      } finally {
        EventEmitter.captureRejections = before;
      }
    },
  },
  {
    title: 'over IPv6: addresses, data and ends',
    async run(b) {
      const server = await b.listen((socket) => socket.end(String(socket.remoteFamily)), {}, '::1');
      b.log('server', server.address());
      const near = b.reads(b.trace(b.connect(server, { host: '::1' }), 'near'), 'near');
      await once(near, 'connect');
      b.log('near', near.remoteAddress, near.localAddress, near.remoteFamily);
      await closed(near);
    },
  },
  {
    title: 'over IPv6: ipv6Only refuses IPv4',
    async run(b) {
      const server = b.net.createServer().listen({ port: 0, host: '::', ipv6Only: true });
      b.later(() => server.close());
      await once(server, 'listening');
      b.port(portOf(server), 'P');
      b.log('server', server.address());
      const four = b.trace(b.net.connect(portOf(server), HOST), 'four');
      await closed(four);
    },
  },
  {
    title: 'over IPv6: a server of both families sees IPv4-mapped addresses',
    async run(b) {
      const server = b.net.createServer((socket) => {
        b.log('far', socket.remoteAddress, socket.localAddress, socket.remoteFamily);
        socket.end();
      });
      server.listen(0);
      b.later(() => server.close());
      await once(server, 'listening');
      await closed(b.track(b.net.connect(portOf(server), HOST).resume()));
    },
  },
];
