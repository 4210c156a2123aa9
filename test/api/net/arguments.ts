/** Behaviours of node:net: wrong arguments. */

import type { Behaviour, Bench } from './bench.ts';

const throwing = (title: string, call: (b: Bench) => unknown): Behaviour => ({
  title: `wrong arguments: ${title}`,
  run: (b) => b.throws('call', () => call(b)),
});

const connecting = (title: string, options: object): Behaviour =>
  throwing(`connect with ${title}`, ({ net }) => {
    const socket = net.connect(options as never);
    socket.on('error', () => {}).destroy();
    return socket;
  });

const listening = (title: string, ...args: unknown[]): Behaviour =>
  throwing(`listen with ${title}`, ({ net }) => {
    const server = net.createServer();
    server.on('error', () => {});
    server.listen(...(args as []));
    server.close();
    return server;
  });

const HOST = '127.0.0.1';

export const argumentBehaviours: Behaviour[] = [
  throwing('connect()', ({ net }) => (net.connect as () => unknown)()),
  connecting('{}', {}),
  connecting('a negative port', { port: -1, host: HOST }),
  connecting('a port beyond 65535', { port: 65_536, host: HOST }),
  connecting('half a port', { port: 1.5, host: HOST }),
  connecting('an empty port', { port: ' ', host: HOST }),
  connecting('a port that is text', { port: 'http', host: HOST }),
  connecting('a port of another type', { port: true, host: HOST }),
  connecting('a port that is null', { port: null, host: HOST }),
  connecting('a port that is an object', { port: {}, host: HOST }),
  connecting('a hexadecimal port', { port: '0x50', host: HOST }),
  connecting('a local address that is a name', { port: 1, host: HOST, localAddress: 'here' }),
  connecting('a local port that is text', { port: 1, host: HOST, localPort: '5000' }),
  connecting('a lookup of another type', { port: 1, host: 'here', lookup: 'dns' }),
  connecting('unknown hints', { port: 1, host: 'localhost', hints: 0x1000 }),
  connecting('unknown hints for an address', { port: 1, host: HOST, hints: 0x1000 }),
  connecting('autoSelectFamily of another type', { port: 1, host: HOST, autoSelectFamily: 1 }),
  connecting('an attempt time-out of text', {
    port: 1,
    host: HOST,
    autoSelectFamilyAttemptTimeout: 'x',
  }),
  connecting('an attempt time-out of 0', {
    port: 1,
    host: HOST,
    autoSelectFamilyAttemptTimeout: 0,
  }),
  connecting('half a millisecond for an attempt', {
    port: 1,
    host: HOST,
    autoSelectFamilyAttemptTimeout: 1.5,
  }),
  connecting('a time-out of text', { port: 1, host: HOST, timeout: 'x' }),
  throwing('objectMode', ({ net }) => new net.Socket({ objectMode: true } as never)),
  throwing(
    'readableObjectMode',
    ({ net }) => new net.Socket({ readableObjectMode: true } as never),
  ),
  throwing(
    'writableObjectMode',
    ({ net }) => new net.Socket({ writableObjectMode: true } as never),
  ),
  throwing(
    'keepAliveInitialDelay of a socket',
    ({ net }) => new net.Socket({ keepAliveInitialDelay: 'x' } as never),
  ),
  throwing('a signal of a socket', ({ net }) => new net.Socket({ signal: {} } as never)),
  ...[-1, NaN, Infinity, '1', undefined].map((ms) =>
    throwing(`setTimeout(${ms})`, ({ net }) => new net.Socket().setTimeout(ms as number)),
  ),
  throwing('a callback of setTimeout', ({ net }) => new net.Socket().setTimeout(1, 'x' as never)),
  throwing('write(null)', ({ net }) => new net.Socket().on('error', () => {}).write(null as never)),
  throwing('write(5)', ({ net }) => new net.Socket().on('error', () => {}).write(5 as never)),
  throwing('options of createServer', ({ net }) => net.createServer('x' as never)),
  throwing('keepAliveInitialDelay of a server', ({ net }) =>
    net.createServer({ keepAliveInitialDelay: 'x' } as never),
  ),
  throwing('highWaterMark of a server', ({ net }) =>
    net.createServer({ highWaterMark: 'x' } as never),
  ),
  listening('{}', {}),
  listening('a negative port', -1),
  listening('a port beyond 65535', 65_536, HOST),
  listening('half a port', { port: 1.5 }),
  listening('a port that is text', { port: 'http' }),
  listening('a port of another type', { port: true }),
  listening('true', true),
  listening('NaN', NaN),
  listening('a port that is undefined, and no options', undefined),
  listening('a host and no port', { host: HOST }),
  listening('a signal', { port: 0, signal: {} }),
  {
    title: 'wrong arguments: listen twice',
    async run(b) {
      const server = await b.listen();
      b.throws('again', () => server.listen(0));
      b.log('server', server.listening);
    },
  },
];
