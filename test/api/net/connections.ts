/** Behaviours of node:net: connections that begin, and their errors. */

import type { AddressInfo, LookupFunction, Socket } from 'node:net';
import { type Behaviour, type Bench, closed, once, portOf, sleep } from './bench.ts';

const HOST = '127.0.0.1';

/** A lookup with fixed results; a result may be wrong. */
const finds = (...list: [string, number][]): LookupFunction =>
  ((_name: string, { all }: { all?: boolean }, done: (...args: unknown[]) => void) => {
    if (all)
      done(
        null,
        list.map(([address, family]) => ({ address, family })),
      );
    else done(null, ...list[0]!);
  }) as LookupFunction;

/** Logs the events of a connection to a name that `lookup` resolves. */
function resolves(title: string, lookup: LookupFunction, options: object = {}): Behaviour {
  return {
    title: `names: ${title}`,
    async run(b) {
      const server = await b.listen((socket) => void socket.end());
      const socket = new b.net.Socket();
      for (const event of ['lookup', 'connectionAttempt', 'connectionAttemptFailed'])
        socket.on(event, (...args) => b.log('socket', event, ...args));
      b.trace(socket, 'socket').resume();
      socket.connect({ port: portOf(server), host: 'name.example', lookup, ...options });
      b.log('socket', 'connecting', socket.connecting);
      await closed(socket);
    },
  };
}

/** Logs the events of a connection with `options` to a port without a listener. */
function refused(title: string, options: object): Behaviour {
  return {
    title: `refused: ${title}`,
    async run(b) {
      const socket = b.net.connect({ port: await b.unusedPort(), host: HOST, ...options });
      b.trace(socket, 'socket');
      await closed(socket);
      b.log('state', socket.destroyed, socket.connecting, socket.pending, socket.readyState);
    },
  };
}

const state = (b: Bench, name: string, socket: Socket): void => {
  const { connecting, pending, readyState, destroyed, bytesRead, bytesWritten } = socket;
  const { bufferSize, readable, writable, remoteAddress, timeout, allowHalfOpen } = socket;
  b.log(name, connecting, pending, readyState, destroyed, bytesRead, bytesWritten);
  b.log(name, bufferSize, readable, writable, remoteAddress, timeout, allowHalfOpen);
};

/** `connect` with arguments that its types do not have. */
const anyConnect = (b: Bench): ((...args: unknown[]) => Socket) => b.net.connect as never;

const signatures: Behaviour[] = (
  [
    ['connect(port, host)', ({ net }, port) => net.connect(port, HOST)],
    [
      'connect(port, host, listener)',
      (b, port) => b.net.connect(port, HOST, () => b.log('c', 'called')),
    ],
    [
      'connect with a port of text',
      ({ net }, port) => net.connect({ port: String(port) as never, host: HOST }),
    ],
    ['connect(options)', ({ net }, port) => net.connect({ port, host: HOST })],
    [
      'connect(options, listener)',
      (b, port) => b.net.connect({ port, host: HOST }, () => b.log('c', 'called')),
    ],
    ['createConnection(options)', ({ net }, port) => net.createConnection({ port, host: HOST })],
    ['connect(port) to localhost', ({ net }, port) => net.connect({ port })],
    ['connect(port, listener)', (b, port) => anyConnect(b)(port, () => b.log('c', 'called'))],
    ['new Socket().connect(port, host)', ({ net }, port) => new net.Socket().connect(port, HOST)],
    [
      'Socket() without new',
      ({ net }, port) => (net.Socket as never as () => Socket)().connect(port, HOST),
    ],
    ['a null as host', ({ net }, port) => net.connect({ port, host: null as never })],
    [
      'noDelay and keepAlive',
      ({ net }, port) =>
        net.connect({
          port,
          host: HOST,
          noDelay: true,
          keepAlive: true,
          keepAliveInitialDelay: 1000,
        }),
    ],
    ['localAddress', ({ net }, port) => net.connect({ port, host: HOST, localAddress: HOST })],
    [
      'setNoDelay and setKeepAlive before connect',
      ({ net }, port) => new net.Socket().setNoDelay().setKeepAlive(true, 2000).connect(port, HOST),
    ],
  ] as [string, (b: Bench, port: number) => Socket][]
).map(([title, connect]) => ({
  title: `connects: ${title}`,
  async run(b) {
    const server = await b.listen((socket) => void socket.end('hello'));
    const socket = b.reads(b.trace(connect(b, portOf(server)), 'socket'), 'socket');
    await closed(socket);
  },
}));

/** A connection to no address in particular: to this host, as on Linux. */
const toUnspecified = (host: string): Behaviour => ({
  title: `connect to ${host}`,
  async run(b) {
    const server = await b.listen((socket) => void socket.end(), {}, '::');
    const socket = b.trace(b.connect(server, { host }), 'socket').resume();
    await once(socket, 'connect');
    const { remoteAddress, remoteFamily, localAddress } = socket;
    b.log('socket', remoteAddress, remoteFamily, localAddress);
    await closed(socket);
  },
});

export const connectBehaviours: Behaviour[] = [
  toUnspecified('0.0.0.0'),
  toUnspecified('::'),
  ...signatures,
  {
    title: 'a socket before connect: its properties',
    run: (b) => state(b, 'new', new b.net.Socket()),
  },
  {
    title: 'a socket that connects: its properties',
    async run(b) {
      const server = await b.listen();
      const socket = b.connect(server);
      state(b, 'connecting', socket);
      b.log('address', socket.address(), socket.localPort, socket.remotePort);
      await once(socket, 'connect');
    },
  },
  {
    title: 'a connected socket: its properties and addresses',
    async run(b) {
      const { near, far } = await b.pair();
      b.port(near.localPort!, 'L');
      state(b, 'near', near);
      state(b, 'far', far);
      for (const [name, socket] of [
        ['near', near],
        ['far', far],
      ] as const) {
        const { localAddress, localPort, localFamily } = socket;
        const { remoteAddress, remotePort, remoteFamily } = socket;
        b.log(name, localAddress, localPort, localFamily, remoteAddress, remotePort, remoteFamily);
        b.log(name, socket.address());
      }
      const { server } = near as never as { server: unknown };
      b.log('server', server);
    },
  },
  {
    title: 'a destroyed socket: its properties',
    async run(b) {
      const { near } = await b.pair();
      near.write('abc');
      near.destroy();
      await closed(near);
      const { connecting, pending, readyState, destroyed, bytesRead, bytesWritten } = near;
      b.log('near', connecting, pending, readyState, destroyed, bytesRead, bytesWritten);
      b.log('near', near.bufferSize, near.readable, near.writable);
    },
  },
  {
    title: 'local address and port of the program',
    async run(b) {
      const port = await b.unusedPort();
      b.port(port, 'L');
      const server = await b.listen((socket) => b.log('far', socket.remotePort));
      const near = b.connect(server, { localAddress: HOST, localPort: port });
      await once(near, 'connect');
      b.log('near', near.localAddress, near.localPort);
      await sleep(5);
    },
  },
  {
    title: 'a local address that this host does not have',
    async run(b) {
      const server = await b.listen();
      const near = b.trace(b.connect(server, { localAddress: '192.0.2.200' }), 'near');
      await closed(near);
    },
  },
  {
    title: 'a local address of the other family',
    async run(b) {
      const server = await b.listen();
      const near = b.connect(server, { localAddress: '::1' });
      const [error] = (await once(near, 'error').catch((e: unknown) => [e])) as [Error];
      b.log('near', (error as NodeJS.ErrnoException).syscall, near.destroyed);
    },
  },
  refused('connect', {}),
  refused('connect with allowHalfOpen', { allowHalfOpen: true }),
  {
    title: 'refused: data that was written before',
    async run(b) {
      const socket = b.net.connect({ port: await b.unusedPort(), host: HOST });
      b.trace(socket, 'socket');
      socket.write('early', (e) => b.log('write', e));
      socket.end();
      await closed(socket);
      await sleep(2);
    },
  },
  {
    title: 'refused: an exception reaches the listener, not the caller',
    async run(b) {
      const socket = new b.net.Socket();
      b.trace(socket, 'socket');
      socket.connect(await b.unusedPort(), HOST);
      b.log('socket', 'behind the call');
      await closed(socket);
    },
  },
  {
    title: 'write and end before connect',
    async run(b) {
      const server = await b.listen((socket) => b.reads(b.trace(socket, 'far'), 'far'));
      const near = b.trace(new b.net.Socket(), 'near').resume();
      near.connect(portOf(server), HOST);
      b.log('write', near.write('one'), near.write('two'), near.bytesWritten, near.bufferSize);
      near.end('three', () => b.log('write', 'ended'));
      await closed(near);
      b.log('near', near.bytesWritten);
    },
  },
  {
    title: 'write before connect is called: ERR_SOCKET_CLOSED',
    async run(b) {
      const socket = b.trace(new b.net.Socket(), 'socket');
      socket.write('x', (e) => b.log('write', e));
      await closed(socket);
    },
  },
  {
    title: 'end before connect is called: nothing, until it connects',
    async run(b) {
      const server = await b.listen((socket) => b.reads(b.trace(socket, 'far'), 'far'));
      const near = b.track(new b.net.Socket()).resume();
      for (const event of ['connect', 'finish']) near.on(event, () => b.log('near', event));
      near.end();
      await sleep(5);
      b.log('near', 'connects');
      near.connect(portOf(server), HOST);
      await closed(near);
    },
  },
  {
    title: 'destroy before connect is called',
    async run(b) {
      const socket = b.trace(new b.net.Socket(), 'socket');
      socket.destroy();
      await closed(socket);
    },
  },
  {
    title: 'destroy with an error before connect is called',
    async run(b) {
      const socket = b.trace(new b.net.Socket(), 'socket');
      socket.destroy(new Error('mine'));
      await closed(socket);
    },
  },
  {
    title: 'destroy while it connects',
    async run(b) {
      let accepted = 0;
      const server = await b.listen(() => accepted++);
      const socket = b.trace(b.connect(server), 'socket');
      socket.write('early', (e) => b.log('write', e));
      socket.destroy();
      await closed(socket);
      await sleep(5);
      b.log('accepted', accepted);
    },
  },
  {
    title: 'destroy with an error while it connects',
    async run(b) {
      const server = await b.listen();
      const socket = b.trace(b.connect(server), 'socket');
      socket.destroy(new Error('mine'));
      await closed(socket);
    },
  },
  {
    title: 'destroy while a name is resolved',
    async run(b) {
      const server = await b.listen();
      const lookup: LookupFunction = (_name, _options, done) => {
        setTimeout(() => done(null, HOST, 4), 10);
      };
      const socket = b.trace(b.connect(server, { host: 'x', lookup, family: 4 }), 'socket');
      socket.on('lookup', () => b.log('socket', 'lookup'));
      socket.destroy();
      await closed(socket);
      await sleep(20);
    },
  },
  {
    title: 'connect again after close: the socket is new',
    async run(b) {
      const server = await b.listen((socket) => void socket.end('hello'));
      const socket = b.reads(b.trace(new b.net.Socket(), 'socket'), 'socket');
      socket.connect(portOf(server), HOST);
      await closed(socket);
      socket.connect(portOf(server), HOST);
      b.log('socket', socket.destroyed, socket.connecting);
      await once(socket, 'close');
      b.log('socket', socket.bytesRead);
    },
  },
  {
    title: 'connect again after a refusal',
    async run(b) {
      const server = await b.listen((socket) => void socket.end('hello'));
      const socket = b.reads(b.trace(new b.net.Socket(), 'socket'), 'socket');
      const unused = await b.unusedPort();
      socket.connect(unused, HOST);
      await closed(socket);
      socket.connect(portOf(server), HOST);
      await once(socket, 'close');
    },
  },
  {
    title: 'connect of a socket that connects',
    async run(b) {
      const server = await b.listen();
      const socket = b.connect(server);
      b.trace(socket, 'socket');
      socket.connect(portOf(server), HOST);
      await closed(socket);
    },
  },
  {
    title: 'resetAndDestroy before connect is called',
    async run(b) {
      const socket = b.trace(new b.net.Socket(), 'socket');
      b.log('socket', socket.resetAndDestroy() === socket);
      await closed(socket);
    },
  },
  {
    title: 'resetAndDestroy while it connects',
    async run(b) {
      const server = await b.listen((socket) => void socket.on('error', () => {}).resume());
      const near = b.trace(b.connect(server), 'near');
      near.resetAndDestroy();
      b.log('near', near.destroyed);
      await closed(near);
      await sleep(5);
    },
  },
  {
    title: 'resetAndDestroy of a destroyed socket',
    async run(b) {
      const { near } = await b.pair();
      near.destroy();
      await closed(near);
      b.trace(near, 'near').resetAndDestroy();
      await sleep(3);
      b.log('near', near.destroyed);
    },
  },
  {
    title: 'setTimeout while it connects, and the option timeout',
    async run(b) {
      const server = await b.listen();
      const near = b.connect(server, { timeout: 20 });
      b.log('near', near.timeout);
      b.trace(near, 'near').on('timeout', () => near.destroy());
      await closed(near);
    },
  },
  {
    title: 'the option signal: aborted before',
    async run(b) {
      const server = await b.listen();
      const near = b.connect(server, { signal: AbortSignal.abort() });
      near.on('error', (e) => b.log('near', e));
      await closed(near);
    },
  },
  {
    title: 'the option signal: aborted while it connects',
    async run(b) {
      const server = await b.listen();
      const abort = new AbortController();
      const near = b.trace(b.connect(server, { signal: abort.signal }), 'near');
      abort.abort();
      await closed(near);
    },
  },
  {
    title: 'the option signal: aborted when connected',
    async run(b) {
      const abort = new AbortController();
      const { near, far } = await b.pair({}, { signal: abort.signal });
      b.trace(near, 'near');
      b.trace(far, 'far').resume();
      abort.abort();
      await Promise.all([closed(near), closed(far)]);
    },
  },
  {
    title: 'ref, unref, setNoDelay, setKeepAlive, setTimeout and connect return the socket',
    async run(b) {
      const { near } = await b.pair();
      const fresh = new b.net.Socket();
      for (const socket of [near, fresh])
        b.log(
          'same',
          socket.ref() === socket,
          socket.unref() === socket,
          socket.setNoDelay() === socket,
          socket.setKeepAlive(true, 1000) === socket,
          socket.setTimeout(0) === socket,
        );
    },
  },
  resolves('one address', finds([HOST, 4])),
  resolves('one address of one family', finds([HOST, 4]), { family: 4 }),
  resolves('no attempts of several', finds([HOST, 4]), { autoSelectFamily: false }),
  resolves('several addresses, the first one answers', finds([HOST, 4], ['::1', 6])),
  resolves('the same address twice', finds([HOST, 4], [HOST, 4])),
  resolves('a wrong address', finds(['nowhere', 4])),
  resolves('a wrong address, of one family', finds(['nowhere', 4]), { family: 4 }),
  resolves('a wrong family', finds([HOST, 5]), { family: 4 }),
  resolves('one usable address of three', finds(['nowhere', 4], [HOST, 7], [HOST, 4])),
  resolves('an error', (_name, _options, done) =>
    done(Object.assign(new Error('no'), { code: 'ENOTFOUND' }), ''),
  ),
  resolves(
    'an error, of one family',
    (_name, _options, done) => done(Object.assign(new Error('no'), { code: 'ENOTFOUND' }), ''),
    { family: 4 },
  ),
  {
    title: 'names: what lookup is called with',
    async run(b) {
      const server = await b.listen();
      for (const options of [
        {},
        { family: 4 },
        { family: 6, hints: 1 },
        { autoSelectFamily: false },
      ]) {
        const lookup = ((name: string, query: object, done: (e: Error) => void) => {
          b.log('lookup', name, query);
          done(new Error('enough'));
        }) as never;
        const socket = b.connect(server, { host: 'name.example', lookup, ...options });
        await closed(socket.on('error', () => {}));
      }
    },
  },
  {
    title: 'names: all addresses refuse',
    async run(b) {
      const port = await b.unusedPort();
      const lookup = finds([HOST, 4], ['127.0.0.2', 4]);
      const socket = b.net.connect({ port, host: 'x', lookup });
      socket.on('error', (e) => b.log('socket', (e as NodeJS.ErrnoException).code, e.name));
      for (const event of ['connectionAttempt', 'connectionAttemptFailed'])
        socket.on(event, (address, to, family) => b.log('socket', event, address, to, family));
      await closed(b.track(socket));
    },
  },
  {
    title: 'connectionAttempt with an address',
    async run(b) {
      const server = await b.listen();
      const socket = b.connect(server);
      for (const event of ['lookup', 'connectionAttempt', 'connectionAttemptFailed'])
        socket.on(event, (...args) => b.log('socket', event, ...args));
      b.trace(socket, 'socket');
      await once(socket, 'connect');
      b.log('socket', (socket.address() as AddressInfo).family);
    },
  },
];
