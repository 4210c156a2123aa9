/**
 * The same program on node:net over loopback and on our sockets over a TAP: both sides see the same
 * events in the same order. Data that arrives in several chunks counts as one event.
 */

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import {
  createServer,
  type AddressInfo,
  type Server,
  type ServerOpts,
  type Socket,
} from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { createStack, type Stack } from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';

/**
 * The peer, always of node:net and half-open: it connects, carries out its steps, and prints its events
 * as JSON. `write:N`, `wait:MS`, `read:N` (waits until N bytes arrived), `end`, `reset`, `pause`,
 * `resume`; then it waits for its end, for at
 * most 1.5 seconds.
 */
const PEER = `
  import { connect } from 'node:net';
  import { setTimeout as sleep } from 'node:timers/promises';
  const [host, port, ...steps] = process.argv.slice(1);
  const log = [];
  const note = (name, bytes) => {
    const last = log.at(-1);
    if (name === 'data' && last?.[0] === 'data') last[1] += bytes;
    else log.push(bytes === undefined ? [name] : [name, bytes]);
  };
  const socket = connect({ host, port: Number(port), allowHalfOpen: true });
  let got = 0;
  socket.on('data', (data) => {
    got += data.length;
    note('data', data.length);
  });
  const ended = new Promise((resolve) => socket.on('end', () => resolve(note('end'))));
  socket.on('error', (e) => note(e.code));
  const closed = new Promise((resolve) => socket.on('close', () => resolve(note('close'))));
  await Promise.race([closed, new Promise((resolve) => socket.on('connect', resolve))]);
  for (const step of steps) {
    const [verb, n] = step.split(':');
    if (verb === 'wait') await sleep(Number(n));
    else if (verb === 'read') while (got < Number(n) && !socket.destroyed) await sleep(10);
    else if (verb === 'write') socket.write(Buffer.alloc(Number(n), 'x'));
    else if (verb === 'reset') socket.resetAndDestroy();
    else socket[verb]();
  }
  await Promise.race([closed, ended.then(() => sleep(200)), sleep(1500)]);
  console.log(JSON.stringify(log));
  process.exit();
`;

type Note = (event: string) => void;

interface Scene {
  title: string;
  options?: ServerOpts;
  /** Steps of the peer. */
  peer: string[];
  /** The program; the trace has the events of the socket, and what it notes. */
  serve?: (socket: Socket, note: Note) => void;
  /** How often uncaughtException is emitted. */
  uncaught?: number;
}

const flowing = (socket: Socket): void => void socket.on('data', () => undefined);

const scenes: Scene[] = [
  { title: 'FIN, and nobody reads', peer: ['end'] },
  { title: 'RST, and nobody reads', peer: ['wait:50', 'reset'] },
  { title: 'FIN to a paused socket', peer: ['end'], serve: (socket) => void socket.pause() },
  {
    title: 'RST to a paused socket',
    peer: ['wait:50', 'reset'],
    serve: (socket) => void socket.pause(),
  },
  {
    title: 'RST to a socket that flows',
    peer: ['write:10', 'wait:50', 'reset'],
    serve: flowing,
  },
  { title: 'data and FIN, and nobody reads: no end', peer: ['write:1000', 'end', 'wait:200'] },
  { title: 'data and RST, and nobody reads', peer: ['write:1000', 'wait:50', 'reset'] },
  {
    title: 'data and FIN, read later',
    peer: ['write:1000', 'end', 'wait:200'],
    serve: (socket) => void setTimeout(() => flowing(socket), 100),
  },
  {
    title: 'data beyond the high-water mark and FIN, read later',
    peer: ['write:500000', 'end', 'wait:300'],
    serve: (socket) => void setTimeout(() => flowing(socket), 150),
  },
  {
    title: 'more unread data than the high-water mark, then RST: not noticed until it is read',
    peer: ['write:500000', 'wait:100', 'reset', 'wait:100'],
  },
  {
    title: 'data that nobody wants: resume without a listener',
    peer: ['write:300000', 'wait:50', 'write:300000', 'wait:50', 'end'],
    serve: (socket) => void socket.resume(),
  },
  {
    title: 'RST while data is discarded',
    peer: ['write:300000', 'wait:50', 'reset'],
    serve: (socket) => void socket.resume(),
  },
  {
    title: 'discarded, then read: a listener sees only what arrives later',
    peer: ['write:300000', 'wait:300', 'write:70000', 'wait:50', 'end'],
    serve: (socket, note) => {
      let bytes = 0;
      socket.resume();
      setTimeout(() => socket.on('data', (data: Buffer) => (bytes += data.length)), 150);
      socket.on('end', () => note(`listened to ${bytes}`));
    },
  },
  {
    title: 'discarded, paused, and read: nothing that arrives behind pause is lost',
    peer: ['write:300000', 'wait:300', 'write:70000', 'wait:200', 'end'],
    serve: (socket, note) => {
      let bytes = 0;
      socket.resume();
      setTimeout(() => socket.pause(), 150);
      setTimeout(() => {
        note(`read ${socket.bytesRead >= 300_000}`);
        socket.on('data', (data: Buffer) => (bytes += data.length));
        socket.resume();
      }, 450);
      socket.on('end', () => note(`listened to ${bytes}`));
    },
  },
  {
    title: 'a listener that is removed: the rest is discarded',
    peer: ['write:1000', 'wait:50', 'write:300000', 'wait:50', 'end'],
    serve: (socket, note) => {
      const listener = (): void => {
        note(`decoded ${socket.readableDidRead}`);
        socket.removeAllListeners('data');
      };
      socket.on('data', listener);
    },
  },
  {
    title: 'timeout while data is discarded: each read restarts it',
    peer: ['write:1000', 'wait:150', 'write:1000', 'wait:150', 'write:1000', 'wait:500', 'end'],
    serve: (socket) => {
      socket.resume();
      socket.setTimeout(250);
    },
  },
  { title: 'FIN ends our side: allowHalfOpen false', peer: ['write:10', 'end'], serve: flowing },
  {
    title: 'FIN leaves our side open: allowHalfOpen true',
    options: { allowHalfOpen: true },
    peer: ['write:10', 'end'],
    serve: (socket) => {
      flowing(socket);
      socket.on('end', () => setTimeout(() => socket.end('good-bye'), 50));
    },
  },
  {
    title: 'FIN leaves our side open, and the program never ends it',
    options: { allowHalfOpen: true },
    peer: ['end'],
    serve: flowing,
  },
  {
    title: 'FIN while much is still to be written: all of it arrives',
    peer: ['end', 'read:600000'],
    serve: (socket) => {
      socket.write(Buffer.alloc(600_000));
    },
  },
  {
    title: 'a write behind the FIN, with allowHalfOpen false',
    peer: ['end'],
    serve: (socket, note) => {
      flowing(socket);
      socket.on('finish', () =>
        socket.write('late', (error) => note(`written ${(error as NodeJS.ErrnoException).code}`)),
      );
    },
  },
  {
    title: 'end in the middle of what arrives',
    peer: ['write:300000', 'wait:50', 'write:300000', 'wait:50', 'end'],
    serve: (socket) => void socket.on('data', () => socket.end()),
  },
  {
    title: 'destroySoon sends what was written',
    peer: ['read:600000'],
    serve: (socket) => {
      socket.write(Buffer.alloc(600_000));
      socket.destroySoon();
    },
  },
  { title: 'destroy', peer: [], serve: (socket) => void socket.destroy() },
  {
    title: 'destroy with an error',
    peer: [],
    serve: (socket) => void socket.destroy(new Error('mine')),
  },
  {
    title: 'resetAndDestroy',
    peer: ['wait:50'],
    serve: (socket) => void socket.resetAndDestroy(),
  },
  {
    title: 'end, and the peer ends later',
    peer: ['wait:100', 'write:5', 'end'],
    serve: (socket) => {
      flowing(socket);
      socket.end('bye');
    },
  },
  {
    title: 'drain when a slow reader has caught up',
    // More than Linux buffers, and `read`: a slow peer must not exit before it has read everything.
    peer: ['pause', 'wait:100', 'resume', 'read:60000000', 'wait:200'],
    serve: (socket, note) => note(`write ${socket.write(Buffer.alloc(60_000_000))}`),
  },
  {
    title: 'timeout of an idle socket, once',
    peer: ['wait:50', 'write:5', 'wait:400', 'end'],
    serve: (socket, note) => {
      flowing(socket);
      socket.setTimeout(150, () => note(`callback, ${socket.timeout}`));
    },
  },
  {
    title: 'timeout switched off',
    peer: ['wait:200', 'end'],
    serve: (socket) => {
      flowing(socket);
      const callback = (): void => undefined;
      socket.setTimeout(100, callback);
      socket.setTimeout(0, callback);
    },
  },
  {
    title: 'pauseOnConnect: nothing happens until resume',
    options: { pauseOnConnect: true },
    peer: ['write:100', 'end', 'wait:200'],
    serve: (socket, note) => {
      socket.on('data', () => undefined);
      setTimeout(() => {
        note(`paused ${socket.isPaused()}`);
        socket.resume();
      }, 150);
    },
  },
  {
    title: "a listener of 'data' that throws each time",
    peer: ['write:10', 'wait:50', 'write:10', 'wait:50', 'end'],
    serve: (socket) =>
      void socket.on('data', () => {
        throw new Error('data');
      }),
    uncaught: 2,
  },
  {
    title: "a listener of 'end' that throws",
    peer: ['write:10', 'end'],
    serve: (socket) => {
      flowing(socket);
      socket.on('end', () => {
        throw new Error('end');
      });
    },
    uncaught: 1,
  },
  {
    title: "a listener of 'connection' that throws",
    peer: ['write:10', 'end'],
    serve: (socket) => {
      flowing(socket);
      throw new Error('connection');
    },
    uncaught: 1,
  },
  {
    title: "no listener of 'error'",
    peer: ['wait:50', 'reset'],
    serve: (socket) => void socket.removeAllListeners('error'),
    uncaught: 1,
  },
];

interface Trace {
  socket: unknown[];
  peer: unknown[];
  uncaught: number;
}

/** Runs `scene` on `server`; `ready` makes it listen, and `run` runs the peer. */
async function traceOf(
  scene: Scene,
  start: (server: Server) => void,
  run: (port: number, args: string[]) => Promise<string>,
): Promise<Trace> {
  const log: unknown[][] = [];
  let inside = false;
  const server = createServer(scene.options ?? {}, (socket) => {
    const note: Note = (event) => {
      if (inside && !event.startsWith('write ')) log.push(['inside a call']);
      if (event !== 'data') log.push([event, socket.readyState]);
      else if (log.at(-1)?.[0] !== event) log.push([event]);
    };
    inside = true;
    // Only looks at data if the program reads it.
    const on = socket.on.bind(socket);
    for (const event of ['end', 'finish', 'drain', 'timeout']) on(event, () => note(event));
    on('error', (e: NodeJS.ErrnoException) => note(`error ${e.code ?? e.message}`));
    on('close', (hadError: boolean) => {
      note(`close ${hadError}`);
      log.push([socket.bytesRead, socket.destroyed, socket.pending]);
    });
    let noting = false;
    socket.on('newListener', (event) => {
      if (event !== 'data' || noting) return;
      noting = true;
      socket.on('data', () => note('data'));
    });
    try {
      scene.serve?.(socket, note);
    } finally {
      inside = false;
    }
  });
  start(server);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const out = await run(port, ['--input-type=module', '-e', PEER]);
  await sleep(50);
  const closed = once(server, 'close');
  const count = await promisify(server.getConnections.bind(server))();
  log.push(['connections', count]);
  server.close();
  if (count === 0) await closed;
  return { socket: log, peer: JSON.parse(out) as unknown[], uncaught: 0 };
}

describe('api: events as those of node:net', () => {
  needs('root', 'tap', 'netns');
  let ns: Netns;
  let stack: Stack;
  const stacks: Stack[] = [];

  before(async () => {
    ns = new Netns('trace');
    stack = await createStack({ netns: ns.name, memory: '64M' });
    stacks.push(stack);
  });
  after(async () => {
    for (const s of stacks) expect(await s.close()).to.eql({});
    ns[Symbol.dispose]();
  });

  /** Runs `body` with uncaughtException counted. */
  async function counting(body: () => Promise<Trace>): Promise<Trace> {
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    let uncaught = 0;
    process.on('uncaughtException', () => uncaught++);
    try {
      const trace = await body();
      return { ...trace, uncaught };
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of others) process.on('uncaughtException', listener);
    }
  }

  /** Runs `scene` with node:net on `loopback` and with the stack at `addr`, and compares. */
  const compares = (title: string, scene: Scene, loopback: string, addr: string): void => {
    it(title, async () => {
      const node = await counting(() =>
        traceOf(
          scene,
          (server) => void server.listen(0, loopback),
          async (port, args) => {
            const all = [...args, loopback, String(port), ...scene.peer];
            return (await promisify(execFile)(process.execPath, all)).stdout;
          },
        ),
      );
      const ours = await counting(() =>
        traceOf(
          scene,
          (server) => void stack.listen(server, { port: 0 }),
          (port, args) =>
            ns.execAsync(process.execPath, [...args, addr, String(port), ...scene.peer]),
        ),
      );
      expect(ours, 'ours, and those of node:net').to.eql(node);
      expect(ours.uncaught).to.equal(scene.uncaught ?? 0);
    }).timeout(20_000);
  };

  for (const scene of scenes) compares(scene.title, scene, '127.0.0.1', '192.0.2.2');

  // The families differ below TCP only.
  const six = [
    'FIN, and nobody reads',
    'RST to a socket that flows',
    'FIN leaves our side open: allowHalfOpen true',
    'FIN while much is still to be written: all of it arrives',
    'resetAndDestroy',
  ];
  for (const scene of scenes.filter(({ title }) => six.includes(title)))
    compares(`over IPv6: ${scene.title}`, scene, '::1', '2001:db8::2');
});
