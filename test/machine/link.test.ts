/** `createLink`: stacks of this thread on a simulated wire, in virtual time. Needs no privileges. */

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { connect, createLink, createServer, createStack, openFile } from '../../src/index.ts';
import type { Link, LinkFrame, LinkOptions, Socket, Stack } from '../../src/index.ts';
import { distRoot } from '../support/root.ts';

const B = '192.0.2.2';

type Two = 'a' | 'b';

/** Runs `test` with a link, and checks that it leaks nothing. */
async function withLink<Name extends string>(
  options: LinkOptions<Name>,
  test: (link: Link<Name>) => Promise<void>,
): Promise<void> {
  const link = await createLink(options);
  let leaked;
  try {
    await test(link);
  } finally {
    leaked = await link.close();
  }
  expect(leaked).to.deep.equal({});
}

/** The same with stacks `a` and `b`. */
async function withTwo(
  options: Omit<LinkOptions<Two>, 'stacks'>,
  test: (link: Link<Two>, a: Stack, b: Stack) => Promise<void>,
): Promise<void> {
  await withLink({ stacks: { a: {}, b: {} }, ...options }, (link) =>
    test(link, link.stacks.a, link.stacks.b),
  );
}

/** A server that reads everything, counts it and answers the end with its own. */
function counter(stack: Stack, port: number): { bytes: number } {
  const seen = { bytes: 0 };
  createServer(stack, (socket) => {
    socket.on('data', (data: Buffer) => (seen.bytes += data.length));
  }).listen(port);
  return seen;
}

/** A connection whose writer has filled the buffers of a reader that is paused. */
async function pausedReader(
  link: Link<Two>,
  a: Stack,
  b: Stack,
): Promise<{ socket: Socket; reader: Socket }> {
  const accepted = new Promise<Socket>((resolve) => {
    createServer(b, (socket) => resolve(socket.pause())).listen(80);
  });
  const socket = await link.until(connect(a, 80, B));
  const reader = await link.until(accepted);
  socket.resume().end(Buffer.alloc(500_000));
  await link.settle();
  return { socket, reader };
}

async function text(socket: Socket): Promise<string> {
  let all = '';
  for await (const chunk of socket) all += String(chunk);
  return all;
}

/** The code of the error with which `promise` rejects. */
async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (e) {
    return (e as NodeJS.ErrnoException).code ?? String(e);
  }
  return 'none';
}

async function messageOf(options: unknown): Promise<string> {
  try {
    const link = await createLink(options as LinkOptions<Two>);
    await link.close();
  } catch (e) {
    return (e as Error).message;
  }
  return 'accepted';
}

/** A line for each frame of a transfer through a lossy wire. */
async function lossyFrames(seed: number): Promise<string[]> {
  const frames: string[] = [];
  await withTwo({ seed, lossRate: 0.2 }, async (link, a, b) => {
    const seen = counter(b, 80);
    link.onFrame(({ from, timeMs, bytes, lost }: LinkFrame) => {
      frames.push(`${timeMs} ${from} ${Buffer.from(bytes).toString('hex')} ${lost}`);
    });
    const socket = await connect(a, 80, B);
    socket.resume().end(Buffer.alloc(100_000, 'x'));
    await once(socket, 'close');
    expect(seen.bytes).to.equal(100_000);
  });
  return frames;
}

describe('a simulated link', () => {
  it('connects two stacks of this thread, and time passes as the wire says', async () => {
    await withTwo({ delayMs: 5000 }, async (link, a, b) => {
      createServer(b, (socket) => socket.end('hello')).listen(80);
      expect(link.now).to.equal(0);
      const socket = await connect(a, 80, B);
      // ARP and SYN each cross the wire twice.
      expect(link.now).to.equal(20_000);
      expect(await text(socket)).to.equal('hello');
      expect(link.now).to.equal(30_000);
    });
  });

  it('has both families, TCP and UDP, lo0 and broadcasts', async () => {
    await withTwo({}, async (_link, a, b) => {
      createServer(b, (socket) => socket.end(socket.remoteAddress)).listen(80);
      expect(await text(await connect(a, 80, '2001:db8::2'))).to.equal('2001:db8::1');
      expect(await text(await connect(b, 80, '127.0.0.1'))).to.equal('::ffff:127.0.0.1');
      for (const [type, to] of [
        ['udp4', '192.0.2.255'],
        ['udp6', '2001:db8::2'],
      ] as const) {
        const server = b.createSocket(type).bind(53);
        const client = a.createSocket(type).bind(4000);
        await once(client, 'listening');
        if (type === 'udp4') client.setBroadcast(true);
        server.on('message', (data, { port, address }) => server.send(data, port, address));
        client.send('hi', 53, to);
        expect(String((await once(client, 'message'))[0])).to.equal('hi');
      }
    });
  });

  it('serves node:http, and a file by sendfile', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-link-'));
    const file = join(dir, 'file');
    const bytes = Buffer.alloc(300_000, 'file');
    writeFileSync(file, bytes);
    await withTwo({}, async (_link, a, b) => {
      b.listen(
        createHttpServer((_req, res) => res.end(bytes)),
        { port: 80 },
      );
      const got = await new Promise<Buffer[]>((resolve, reject) => {
        get(
          {
            createConnection: (_options, done) => {
              connect(a, 80, B).then(
                (socket) => done(null, socket),
                (e: Error) => done(e, null!),
              );
              return undefined;
            },
          },
          (res) => res.toArray().then(resolve, reject),
        ).on('error', reject);
      });
      expect(Buffer.concat(got).equals(bytes)).to.equal(true);

      createServer(b, (socket) => {
        const open = openFile(openSync(file, 'r'), closeSync);
        void socket.sendfile(open).then(() => {
          open.drop();
          socket.end();
        });
      }).listen(81);
      expect(await text(await connect(a, 81, B))).to.equal(String(bytes));
    });
    rmSync(dir, { recursive: true });
  });

  it('retransmits by itself under loss, and repeats exactly with the same seed', async () => {
    const first = await lossyFrames(1);
    expect(first.filter((line) => line.endsWith('true')).length).to.be.above(10);
    expect(await lossyFrames(1)).to.deep.equal(first);
    expect(await lossyFrames(2)).to.not.deep.equal(first);
  });

  it('reports a black hole after virtual minutes', async () => {
    await withTwo({ lossRate: 1 }, async (link, a) => {
      expect(await codeOf(connect(a, 80, B))).to.equal('ETIMEDOUT');
      expect(link.now).to.be.within(75_000, 80_000);
    });
  });

  it('lets time stand while the network is quiet, and idle timers run in advance', async () => {
    await withTwo({}, async (link, a, b) => {
      counter(b, 80);
      const socket = await connect(a, 80, B);
      await link.settle();
      const quiet = link.now;
      let timeouts = 0;
      socket.setTimeout(1000, () => timeouts++);
      await sleep(20);
      expect(link.now).to.equal(quiet);
      await link.advance(999.5);
      expect(timeouts).to.equal(0);
      await link.advance(0.5);
      expect(timeouts).to.equal(1);
      expect(link.now).to.equal(quiet + 1000);
    });
  });

  it('with manual time does nothing without advance', async () => {
    await withTwo({ time: 'manual', delayMs: 10 }, async (link, a, b) => {
      createServer(b, (socket) => socket.end('hello')).listen(80);
      const frames: string[] = [];
      link.onFrame(({ from, timeMs }) => frames.push(`${from} ${timeMs}`));
      let connected = false;
      const connecting = connect(a, 80, B).then((socket) => {
        connected = true;
        return socket;
      });
      await sleep(10);
      await link.settle();
      expect(frames).to.deep.equal(['a 0']);
      await link.advance(39);
      expect(connected).to.equal(false);
      await link.advance(1);
      expect(connected).to.equal(true);
      expect(frames).to.deep.equal(['a 0', 'b 10', 'a 20', 'b 30', 'a 40']);
      expect(await link.until(connecting.then(text))).to.equal('hello');
      expect(link.now).to.equal(60);
    });
  });

  it('with real time passes as real time does', async () => {
    await withTwo({ time: 'real', delayMs: 20 }, async (link, a, b) => {
      createServer(b, (socket) => socket.end('hello')).listen(80);
      const start = performance.now();
      expect(await text(await connect(a, 80, B))).to.equal('hello');
      expect(performance.now() - start).to.be.at.least(110);
      expect(await codeOf(link.advance(1))).to.equal('EINVAL');
      await link.settle();
    });
  });

  it('until runs idle timers, to a limit', async () => {
    await withTwo({}, async (link, a, b) => {
      counter(b, 80);
      const socket = await connect(a, 80, B);
      socket.setTimeout(30_000);
      await link.until(once(socket, 'timeout'));
      expect(link.now).to.be.within(30_000, 31_000);
      const never = new Promise(() => undefined);
      const start = link.now;
      expect(await codeOf(link.until(never, { limitMs: 5000 }))).to.equal('ETIMEDOUT');
      expect(link.now - start).to.equal(5000);
      expect(await codeOf(link.until(Promise.reject(new Error('own'))))).to.equal('Error: own');
      expect(await link.until('a value')).to.equal('a value');
    });
  });

  it('waits for a reader that pauses', async () => {
    await withTwo({}, async (link, a, b) => {
      const { socket, reader } = await pausedReader(link, a, b);
      const quiet = link.now;
      // Window probes go on meanwhile.
      while (link.now < quiet + 10_000) await sleep(1);
      let bytes = 0;
      reader.on('data', (data: Buffer) => (bytes += data.length)).resume();
      await once(socket, 'close');
      expect(bytes).to.equal(500_000);
    });
  });

  it('recovers from a lost window update by a probe', async () => {
    await withTwo({ time: 'manual' }, async (link, a, b) => {
      const { socket, reader } = await pausedReader(link, a, b);
      await link.advance(1000);
      let bytes = 0;
      reader.on('data', (data: Buffer) => (bytes += data.length));
      let lost = 0;
      link.onFrame((frame) => (lost += Number(frame.lost)));
      link.set({ lossRate: 1 });
      reader.resume();
      await link.settle();
      link.set({ lossRate: 0 });
      expect(lost).to.be.above(0);
      const start = link.now;
      await link.until(once(socket, 'close'));
      expect(link.now - start).to.be.above(1000);
      expect(bytes).to.equal(500_000);
    });
  });

  it('limits the rate, and loses what the queue cannot hold', async () => {
    await withTwo({ rate: '1M', delayMs: 0 }, async (link, a, b) => {
      const seen = counter(b, 80);
      const socket = await connect(a, 80, B);
      socket.resume().end(Buffer.alloc(125_000));
      await once(socket, 'close');
      expect(seen.bytes).to.equal(125_000);
      // A second for the payload, and about 5 % for headers.
      expect(link.now).to.be.within(1030, 1150);
      await link.settle();
      link.set({ rate: 1e4, queue: 3 });
      const lost: boolean[] = [];
      link.onFrame((frame) => lost.push(frame.lost));
      const udp = a.createSocket('udp4');
      for (let i = 0; i < 6; i++) udp.send(Buffer.alloc(100), 9, B);
      await link.settle();
      expect(lost.slice(0, 6)).to.deep.equal([false, false, false, true, true, true]);
    });
  });

  it('switches frames to the stack that they are for', async () => {
    const stacks = { a: {}, b: {}, c: { mtu: 9000, nic: 'tb' } };
    await withLink({ stacks }, async ({ stacks: { a, b, c } }) => {
      expect(c.ifconfig('tb0').mtu).to.equal(9000);
      const received = (): number => c.ifconfig('tb0').counters['ipackets']!;
      counter(b, 80);
      const before = received();
      const socket = await connect(a, 80, B);
      socket.resume().end(Buffer.alloc(10_000));
      await once(socket, 'close');
      // The ARP request of a; the answers of b are for a alone.
      expect(received() - before).to.equal(1);
    });
  });

  it('has faults and captures per stack', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-link-'));
    const file = join(dir, 'b.pcap');
    const stacks = {
      a: { fault: ['drop,point=tx,match=icmp'] },
      b: { capture: { wire: file } },
    };
    await withLink({ stacks }, async ({ stacks: { a, b } }) => {
      b.addFault('drop', { point: 'tx', every: 2 });
      const capture = a.capture('wire', { count: 1 });
      counter(b, 80);
      const socket = await connect(a, 80, B);
      socket.resume().end('x'.repeat(20_000));
      await once(socket, 'close');
      expect(b.faults()[0]!.hits).to.be.above(2);
      for await (const { direction, length } of capture)
        expect({ direction, length }).to.deep.equal({ direction: 'out', length: 60 });
    });
    expect(readFileSync(file).includes('x'.repeat(1000))).to.equal(true);
    rmSync(dir, { recursive: true });
  });

  it('captures at each point what the stack itself does', async () => {
    await withTwo({}, async (_link, a, b) => {
      createServer(b, (socket) => socket.end('hello')).listen(80);
      const points = ['sockbuf', 'ip', 'ip@lo0', 'if', 'wire'];
      const captures = points.map((point) => a.capture(point));
      expect(await text(await connect(b, 80, '127.0.0.1'))).to.equal('hello');
      const results = await Promise.all(captures.map((capture) => capture.close()));
      expect(results.map(({ packets }) => packets)).to.deep.equal([0, 0, 0, 0, 0]);
      const own = a.capture('sockbuf');
      expect(await text(await connect(a, 80, B))).to.equal('hello');
      expect((await own.close()).packets).to.equal(1);
    });
  });

  it('loses frames while it is down', async () => {
    await withTwo({}, async (link, a, b) => {
      const seen = counter(b, 80);
      const socket = await connect(a, 80, B);
      await link.settle();
      link.up = false;
      await link.settle();
      expect(a.ifconfig('tn0').status).to.equal('no carrier');
      socket.end('hello');
      await link.advance(2000);
      expect(seen.bytes).to.equal(0);
      link.up = true;
      await link.until(once(socket.resume(), 'close'));
      expect(seen.bytes).to.equal(5);
    });
  });

  it('unplugs one stack when that is closed', async () => {
    await withTwo({}, async (link, a, b) => {
      createServer(b, { allowHalfOpen: true }, (socket) => socket.resume()).listen(80);
      const socket = await connect(a, 80, B);
      const closed = codeOf(once(socket.resume(), 'close'));
      expect(await b.close()).to.deep.equal({});
      expect(await closed).to.equal('ECONNRESET');
      // Its address is in the ARP table of a, so SYNs reach no stack.
      expect(await codeOf(connect(a, 80, B))).to.equal('ETIMEDOUT');
      expect(await codeOf(connect(b, 80, B))).to.equal('EBADF');
      expect(link.up).to.equal(true);
    });
  });

  it('leaks nothing when it is closed in the middle of everything', async () => {
    for (const time of ['auto', 'manual'] as const)
      await withTwo(
        { time, lossRate: 0.2, duplicateRate: 0.1, reorderRate: 0.2 },
        async (link, a, b) => {
          createServer(b, { allowHalfOpen: true }, (socket) => socket.pause()).listen(80);
          for (let i = 0; i < 20; i++) {
            const socket = await link.until(connect(a, 80, B));
            socket.on('error', () => undefined);
            socket.write(Buffer.alloc(i * 10_000));
          }
          void connect(a, 81, '192.0.2.99').catch(() => undefined);
          b.createSocket('udp6').bind(53);
          a.createSocket('udp4').send(Buffer.alloc(9000), 53, B);
        },
      );
  });

  it('ends what waits when it is closed', async () => {
    const link = await createLink({ stacks: { a: {}, b: {} } });
    const waiting = codeOf(link.until(new Promise(() => undefined)));
    const closed = link.close();
    expect(link.close()).to.equal(closed);
    expect(await closed).to.deep.equal({});
    expect(await waiting).to.equal('ECANCELED');
    expect(await codeOf(link.advance(1))).to.equal('EBADF');
    expect(await codeOf(link.until(Promise.resolve(1)))).to.equal('EBADF');
    expect(await codeOf(link.settle())).to.equal('EBADF');
    expect(() => link.set({})).to.throw('EBADF');
  });

  it('is the only machine of its thread', async () => {
    await withTwo({}, async () => {
      expect(await codeOf(createLink({ stacks: { a: {}, b: {} } }))).to.equal('EBUSY');
      expect(await codeOf(createStack())).to.equal('EBUSY');
    });
    await withTwo({}, async () => undefined);
  });

  it('has sysctls of its machine and of each stack', async () => {
    const options = {
      stacks: { a: { sysctl: { 'net.inet.ip.ttl': 9 } }, b: {} },
      sysctl: { 'kern.ipc.mb_use_ext_pgs': 0 },
    };
    await withLink(options, async ({ stacks: { a, b } }) => {
      const both = (name: string): unknown[] => [a, b].map((stack) => stack.sysctl(name));
      expect(both('net.inet.ip.ttl')).to.deep.equal([9, 64]);
      expect(both('kern.ipc.mb_use_ext_pgs')).to.deep.equal([0, 0]);
    });
  });

  it('refuses wrong options with the name of each', async () => {
    const two = { a: {}, b: {} };
    const cases: [unknown, string][] = [
      [null, 'an object of options is needed'],
      [{}, 'stacks: an object is needed, options by name'],
      [{ stacks: { a: {} } }, 'stacks: 2 to 16 stacks are needed'],
      [{ stacks: { 'a b': {}, c: {} } }, "stacks.a b: a b: not an interface's name"],
      [{ stacks: { a: {}, b: 1 } }, 'stacks.b: an object of options is needed'],
      [{ stacks: { a: { mtu: 71 }, b: {} } }, 'stacks.a.mtu: 71: a whole number from 72'],
      [{ stacks: { a: { tap: 'x' }, b: {} } }, 'stacks.a: tap: not an option of a stack on a link'],
      [{ stacks: { a: { addr: 'dhcp' }, b: {} } }, 'stacks.a.addr: dhcp: a link has no server'],
      [
        { stacks: { a: { addr: '192.0.2.2/24' }, b: {} } },
        'stacks.b.addr: 192.0.2.2: stacks.a has it',
      ],
      [
        { stacks: { a: { sysctl: { 'kern.ipc.nsfbufs': 1 } }, b: {} } },
        'kern.ipc.nsfbufs is of the machine',
      ],
      [{ stacks: two, sysctl: { 'net.inet.ip.ttl': 1 } }, 'net.inet.ip.ttl is of a stack'],
      [{ stacks: two, lossRate: 2 }, 'lossRate: 2: a number from 0 to 1 is needed'],
      [{ stacks: two, lossRate: '1' }, 'lossRate: "1": a number from 0 to 1 is needed'],
      [{ stacks: two, delayMs: -1 }, 'delayMs: -1: a number from 0'],
      [{ stacks: two, rate: '10X' }, 'rate: "10X": a number from 0'],
      [{ stacks: two, time: 'fast' }, 'time: fast: one of auto, manual, real'],
      [{ stacks: two, seed: -1 }, 'seed: -1: a whole number'],
      [{ stacks: two, memory: '1M' }, 'memory: 1048576: 16M to 4096M'],
      [{ stacks: two, delay: 1 }, 'delay: not an option of a link: stacks, time'],
    ];
    for (const [options, message] of cases) {
      const got = await messageOf(options);
      expect(got, JSON.stringify(options)).to.include(message).and.include('EINVAL');
    }
    const unknown = createLink({ stacks: { a: { sysctl: { 'net.x': 1 } }, b: {} } });
    expect(await codeOf(unknown)).to.equal('ENOENT');
    await withTwo({}, async (link) => {
      expect(() => link.set({ lossRate: 2 })).to.throw('set: EINVAL: lossRate: 2');
      expect(await codeOf(link.advance(-1))).to.equal('EINVAL');
      expect(await codeOf(link.advance('1' as unknown as number))).to.equal('EINVAL');
    });
  });

  it('sends on when a listener of frames throws, and reports what it threw', async () => {
    const others = process.listeners('uncaughtException');
    const thrown: string[] = [];
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (e) => thrown.push(e.message));
    try {
      await withTwo({}, async (link, a, b) => {
        createServer(b, (socket) => socket.end('hello')).listen(80);
        const off = link.onFrame(() => {
          throw new Error('listener');
        });
        expect(await text(await connect(a, 80, B))).to.equal('hello');
        off();
        await link.settle();
        const before = thrown.length;
        expect(await text(await connect(a, 80, B))).to.equal('hello');
        expect(thrown.length).to.equal(before);
      });
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const other of others) process.on('uncaughtException', other);
    }
    expect(thrown.length).to.be.above(5);
    expect(new Set(thrown)).to.deep.equal(new Set(['listener']));
  });

  it('needs no timers that a test runner has replaced', async () => {
    const { setImmediate: soon, setTimeout: after } = globalThis;
    const never = (() => undefined) as never;
    globalThis.setImmediate = globalThis.setTimeout = never;
    try {
      await withTwo({ lossRate: 0.2 }, async (link, a, b) => {
        createServer(b, (socket) => socket.end('hello')).listen(80);
        expect(await link.until(connect(a, 80, B).then(text))).to.equal('hello');
      });
    } finally {
      globalThis.setImmediate = soon;
      globalThis.setTimeout = after;
    }
  });

  it('does not keep the process alive', async () => {
    const program = `
      import { createLink, createServer } from ${JSON.stringify(join(distRoot, 'src/index.js'))};
      const link = await createLink({ stacks: { a: {}, b: {} } });
      createServer(link.stacks.b, (s) => s.resume()).listen(80);
      await link.stacks.a.connect(80, '${B}');
      console.log('connected');`;
    const run = promisify(execFile);
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', program]);
    expect(stdout).to.equal('connected\n');
  });
});
