/** Behaviours of node:net: data, the ends of connections, and time-outs. */

import type { Socket } from 'node:net';
import { type Behaviour, type Bench, closed, once, portOf, sleep } from './bench.ts';

interface Ends {
  readonly near: Socket;
  readonly far: Socket;
}

/** Logs both ends of a connection while `act` runs, until both are closed or `act` returns false. */
function between(
  title: string,
  act: (ends: Ends, b: Bench) => unknown,
  options: { server?: object; client?: object } = {},
): Behaviour {
  return {
    title,
    async run(b) {
      const { near, far } = await b.pair(options.server, options.client);
      b.trace(near, 'near');
      b.trace(far, 'far');
      if ((await act({ near, far }, b)) === false) return;
      await Promise.all([closed(near), closed(far)]);
      for (const [name, socket] of [
        ['near', near],
        ['far', far],
      ] as const)
        b.log(name, socket.bytesRead, socket.bytesWritten, socket.destroyed, socket.readyState);
    },
  };
}

const half = { server: { allowHalfOpen: true }, client: { allowHalfOpen: true } };
/** More than both ends buffer. */
const TOO_MUCH = 20_000_000;

const reading = ({ near, far }: Ends, b: Bench): void => {
  b.reads(near, 'near');
  b.reads(far, 'far');
};

const flowing = ({ near, far }: Ends): void => {
  near.resume();
  far.resume();
};

const ending: Behaviour[] = [
  between('end: FIN ends both sides', (ends) => {
    flowing(ends);
    ends.near.end();
  }),
  between('end with data', (ends, b) => {
    reading(ends, b);
    ends.near.end('bye');
  }),
  between('end with a callback', (ends, b) => {
    flowing(ends);
    b.log('call', ends.near.end('x', () => b.log('near', 'ended')) === ends.near);
  }),
  between('end twice', (ends, b) => {
    flowing(ends);
    ends.near.end('x');
    ends.near.end(() => b.log('near', 'again'));
  }),
  between('end, and the peer does not read', ({ near }) => void near.end()),
  between(
    'allowHalfOpen: the other side stays open',
    async (ends, b) => {
      reading(ends, b);
      ends.near.end('question');
      await once(ends.far, 'end');
      b.log('far', ends.far.readyState, ends.far.writable);
      ends.far.end('answer');
    },
    half,
  ),
  between(
    'allowHalfOpen: the program does not end the other side',
    async (ends, b) => {
      flowing(ends);
      ends.near.end();
      await once(ends.far, 'end');
      await sleep(10);
      b.log('far', ends.far.readyState);
      b.log('near', ends.near.readyState);
      return false;
    },
    half,
  ),
  between('allowHalfOpen set later', async (ends, b) => {
    flowing(ends);
    ends.far.allowHalfOpen = true;
    ends.near.end();
    await once(ends.far, 'end');
    await sleep(5);
    b.log('far', ends.far.readyState);
    ends.far.end();
  }),
  between('write behind end: ERR_STREAM_WRITE_AFTER_END', (ends, b) => {
    flowing(ends);
    ends.near.end();
    ends.near.write('late', (e) => b.log('write', e));
  }),
  between('write behind the end of the peer: EPIPE', (ends, b) => {
    flowing(ends);
    ends.near.on('finish', () => {
      b.log(
        'call',
        ends.near.write('late', (e) => b.log('write', e, e?.message)),
      );
    });
    ends.far.end();
  }),
  between('both ends end at once', (ends) => {
    flowing(ends);
    ends.near.end('a');
    ends.far.end('b');
  }),
  between('destroySoon sends what was written', (ends, b) => {
    b.reads(ends.far, 'far');
    ends.near.write('last words');
    ends.near.destroySoon();
  }),
  between('destroySoon without data', (ends) => {
    ends.far.resume();
    ends.near.destroySoon();
  }),
  between('destroy: the peer sees the end', (ends) => {
    ends.far.resume();
    ends.near.destroy();
  }),
  between('destroy returns the socket, also twice', ({ near, far }, b) => {
    far.resume();
    b.log('call', near.destroy() === near, near.destroy() === near);
  }),
  between('destroy with an error', (ends) => {
    ends.far.resume();
    ends.near.destroy(new Error('mine'));
  }),
  between('destroy while a write waits', async (ends, b) => {
    ends.far.pause();
    ends.near.write(Buffer.alloc(TOO_MUCH), (e) => b.log('write', e ?? 'no error'));
    ends.near.write('behind', (e) => b.log('behind', e));
    await sleep(10);
    ends.near.destroy();
    await closed(ends.near);
    await sleep(2);
    return false;
  }),
  between('destroy with an error while a write waits', async (ends, b) => {
    ends.far.pause();
    ends.near.write(Buffer.alloc(TOO_MUCH), (e) => b.log('write', e ?? 'no error'));
    await sleep(10);
    ends.near.destroy(new Error('mine'));
    await closed(ends.near);
    await sleep(2);
    return false;
  }),
  between('write behind destroy: ERR_STREAM_DESTROYED', async (ends, b) => {
    ends.far.resume();
    ends.near.destroy();
    b.log(
      'near',
      ends.near.write('late', (e) => b.log('write', e)),
    );
    await sleep(2);
  }),
  between('end behind destroy', async (ends, b) => {
    ends.far.resume();
    ends.near.destroy();
    ends.near.end((e?: Error) => b.log('end', e));
    await sleep(2);
  }),
  between('resetAndDestroy: ECONNRESET', (ends, b) => {
    ends.far.resume();
    b.log('call', ends.near.resetAndDestroy() === ends.near);
  }),
  between('resetAndDestroy while the peer writes', async (ends, b) => {
    ends.far.resume().write(Buffer.alloc(TOO_MUCH), (e) => b.log('write', e !== undefined));
    ends.near.pause();
    await sleep(5);
    ends.near.resetAndDestroy();
    await closed(ends.far);
    return false;
  }),
  between('a reset of a paused socket is seen when it reads', async (ends) => {
    ends.far.pause();
    ends.near.resetAndDestroy();
    await sleep(5);
    ends.far.resume();
  }),
  between('a listener of close that is added late', async (ends, b) => {
    flowing(ends);
    ends.near.end();
    await Promise.all([closed(ends.near), closed(ends.far)]);
    b.log('near', ends.near.closed, ends.near.readableEnded, ends.near.writableFinished);
  }),
  between('Symbol.asyncDispose destroys', async (ends, b) => {
    ends.far.resume();
    ends.near.on('error', () => {});
    await ends.near[Symbol.asyncDispose]().catch((e: unknown) => b.log('dispose', e));
    b.log('near', ends.near.destroyed);
  }),
];

const data: Behaviour[] = [
  between('write: return values, callbacks and bytes', async (ends, b) => {
    reading(ends, b);
    b.log(
      'call',
      ends.near.write('one', () => b.log('near', 'one written')),
    );
    b.log(
      'call',
      ends.near.write(Buffer.from('two'), () => b.log('near', 'two written')),
    );
    b.log(
      'call',
      ends.near.write(new Uint8Array([51]), () => b.log('near', '3 written')),
    );
    await sleep(3);
    ends.near.end();
  }),
  between('write: encodings', (ends, b) => {
    reading(ends, b);
    ends.near.write('e4f6', 'hex');
    ends.near.write('w6Q=', 'base64');
    ends.near.write('äö', 'latin1');
    ends.near.write('äö', 'utf16le');
    ends.near.end('äö');
  }),
  between('setEncoding', (ends, b) => {
    ends.far.setEncoding('utf8').on('data', (text) => b.log('text', typeof text, text));
    ends.near.end('grüße');
  }),
  between('setDefaultEncoding', (ends, b) => {
    reading(ends, b);
    ends.near.setDefaultEncoding('hex');
    ends.near.end('6162');
  }),
  between('cork and uncork', async (ends, b) => {
    reading(ends, b);
    ends.near.cork();
    ends.near.write('a');
    ends.near.write('b');
    b.log('call', ends.near.writableCorked, ends.near.bytesWritten);
    ends.near.uncork();
    ends.near.end();
  }),
  between('an empty write', (ends, b) => {
    reading(ends, b);
    ends.near.write('', () => b.log('write', 'called'));
    ends.near.end();
  }),
  between('much data: drain, and all of it arrives', async (ends, b) => {
    ends.far.resume();
    b.log('call', ends.near.write(Buffer.alloc(TOO_MUCH)));
    await once(ends.near, 'drain');
    ends.near.end();
  }),
  between('bufferSize and writableLength while the peer does not read', async (ends, b) => {
    ends.far.pause();
    ends.near.write(Buffer.alloc(TOO_MUCH));
    ends.near.write('xyz');
    await sleep(5);
    const { bufferSize, writableLength, bytesWritten, writableNeedDrain } = ends.near;
    b.log('call', bufferSize, writableLength, bytesWritten, writableNeedDrain);
    return false;
  }),
  between('pause and resume', async (ends, b) => {
    reading(ends, b);
    ends.far.pause();
    ends.near.write('waits');
    await sleep(5);
    b.log('far', ends.far.isPaused(), ends.far.bytesRead);
    ends.far.resume();
    await once(ends.far, 'data');
    ends.near.end();
  }),
  between('readable and read()', async (ends, b) => {
    ends.far.once('readable', () => b.log('far', 'readable', ends.far.read(2)));
    ends.near.end('abcdef');
    await once(ends.far, 'readable');
    b.log('rest', ends.far.read());
    ends.far.resume();
  }),
  between('for await', async (ends, b) => {
    ends.near.resume().end('abc');
    const chunks: Buffer[] = [];
    for await (const chunk of ends.far) chunks.push(chunk as Buffer);
    b.log('chunks', Buffer.concat(chunks));
  }),
  between('for await that is left early destroys', async (ends, b) => {
    ends.near.resume().write('abc');
    for await (const chunk of ends.far) {
      b.log('chunk', chunk);
      break;
    }
    b.log('far', ends.far.destroyed);
  }),
  between('pipe back: an echo', async (ends, b) => {
    b.reads(ends.near, 'near');
    ends.far.pipe(ends.far);
    ends.near.end('echo');
  }),
  between('unshift', async (ends, b) => {
    ends.near.end('b');
    await once(ends.far, 'readable');
    ends.far.unshift(Buffer.from('a'));
    b.log('far', ends.far.read());
    flowing(ends);
  }),
  between(
    'highWaterMark of a client',
    async ({ near }, b) => {
      b.log('near', near.readableHighWaterMark, near.writableHighWaterMark);
      b.log('near', near.write(Buffer.alloc(9)), near.write(Buffer.alloc(1)));
      return false;
    },
    { client: { highWaterMark: 10 } },
  ),
  between("a listener of 'data' that pauses", async (ends, b) => {
    ends.far.on('data', (chunk: Buffer) => {
      b.log('far', 'data', chunk.length);
      ends.far.pause();
      setTimeout(() => ends.far.resume(), 5);
    });
    ends.near.write('abc');
    await once(ends.far, 'pause');
    ends.near.end('de');
  }),
];

/** A client that reads into buffers of the program. */
const onread = (
  title: string,
  buffer: (b: Bench) => Uint8Array | (() => Uint8Array),
  more: (b: Bench, socket: () => Socket, n: number) => boolean,
): Behaviour => ({
  title: `onread: ${title}`,
  async run(b) {
    const server = await b.listen((socket) => socket.end('abcdefghij'));
    let calls = 0;
    const near: Socket = b.connect(server, {
      onread: {
        buffer: buffer(b) as Uint8Array,
        callback: (n: number, buf: Uint8Array) => {
          b.log('read', n, Buffer.from(buf.subarray(0, n)));
          return more(b, () => near, ++calls);
        },
      },
    });
    b.reads(b.trace(near, 'near'), 'near');
    await closed(near);
    b.log('near', near.bytesRead);
  },
});

const onreads: Behaviour[] = [
  onread(
    'one buffer for all reads',
    () => Buffer.alloc(4),
    () => true,
  ),
  onread(
    'a function that returns the next buffer',
    (b) => {
      let n = 2;
      return () => {
        b.log('buffer', n);
        return Buffer.alloc(n++);
      };
    },
    () => true,
  ),
  onread(
    'false pauses until resume',
    () => Buffer.alloc(4),
    (b, socket, n) => {
      if (n > 1) return true;
      setTimeout(() => {
        b.log('read', 'resumes');
        socket().resume();
      }, 5);
      return false;
    },
  ),
  {
    title: 'onread: the socket is `this` of the callback',
    async run(b) {
      const server = await b.listen((socket) => socket.end('abcdef'));
      const near: Socket = b.connect(server, {
        onread: {
          buffer: Buffer.alloc(4),
          callback(this: unknown, n: number) {
            b.log('read', n, this === near);
            return true;
          },
        },
      });
      await closed(near);
    },
  },
  onread(
    'destroy in the callback',
    () => Buffer.alloc(4),
    (_b, socket) => {
      socket().destroy();
      return true;
    },
  ),
];

/** What programs read or replace though it is not documented. */
const inside: Behaviour[] = [
  {
    title: '_connecting before, during and after a connection',
    async run(b) {
      const server = await b.listen((socket) => void socket.end());
      const socket = new b.net.Socket();
      const state = (when: string): void => {
        b.log('socket', when, (socket as unknown as { _connecting: boolean })._connecting);
      };
      state('new');
      b.track(socket).resume();
      socket.connect(portOf(server), '127.0.0.1');
      state('connecting');
      await once(socket, 'connect');
      state('connected');
      await closed(socket);
      state('closed');
    },
  },
  ...[1, 'yes', 0, ''].map((value): Behaviour => ({
    title: `options of a server: noDelay and keepAlive as ${JSON.stringify(value)}`,
    run(b) {
      const server = b.net.createServer({ noDelay: value, keepAlive: value } as never);
      const { noDelay, keepAlive } = server as unknown as Record<string, unknown>;
      b.log('server', noDelay, keepAlive);
    },
  })),
  {
    title: 'instanceof: sockets and servers of the module, and of a subclass',
    async run(b) {
      const { Socket, Server } = b.net;
      class Mine extends Socket {}
      const accepted: Socket[] = [];
      const server = await b.listen((socket) => accepted.push(socket.end()));
      const socket = b.connect(server).resume();
      await closed(socket);
      for (const one of [socket, ...accepted, new Mine(), new Socket(), server])
        b.log('of', one instanceof Socket, one instanceof Server, one instanceof Mine);
    },
  },
  between('listeners of a new connection', async ({ near, far }, b) => {
    for (const event of ['end', 'data', 'error'])
      b.log('count', event, near.listenerCount(event), far.listenerCount(event));
    return false;
  }),
  between('write between the end of the peer and our own end', async ({ near, far }, b) => {
    near.on('end', () => near.write('late', (e) => b.log('near', 'written', e?.message)));
    near.resume();
    far.resume().end();
    await Promise.all([closed(near), closed(far)]);
    b.log('bytes', near.bytesWritten, far.bytesRead);
    return false;
  }),
];

const timeouts: Behaviour[] = [
  between('setTimeout: timeout, and nothing else happens', async ({ near }, b) => {
    near.setTimeout(10, () => b.log('near', 'callback', near.timeout));
    await once(near, 'timeout');
    await sleep(2);
    b.log('near', near.destroyed);
    return false;
  }),
  between('setTimeout: traffic restarts it', async ({ near, far }, b) => {
    far.resume();
    near.resume().setTimeout(60);
    for (let i = 0; i < 5; i++) {
      await sleep(20);
      near.write('x');
    }
    b.log('near', near.timeout);
    near.setTimeout(0);
    return false;
  }),
  between('setTimeout: 0 removes the callback', async ({ near }, b) => {
    const callback = (): void => b.log('near', 'callback');
    near.setTimeout(5, callback);
    near.setTimeout(0, callback);
    b.log('near', near.timeout, near.listenerCount('timeout'));
    await sleep(10);
    return false;
  }),
  between('setTimeout: it is emitted again', async ({ near }) => {
    near.setTimeout(5);
    await once(near, 'timeout');
    near.write('x');
    await once(near, 'timeout');
    near.setTimeout(0);
    return false;
  }),
  between('setTimeout: not behind destroy', async ({ near, far }, b) => {
    far.resume();
    near.setTimeout(5);
    near.destroy();
    b.log('near', near.setTimeout(7) === near, near.timeout);
    await sleep(10);
  }),
];

export const streamBehaviours: Behaviour[] = [
  ...ending,
  ...data,
  ...onreads,
  ...inside,
  ...timeouts,
];
