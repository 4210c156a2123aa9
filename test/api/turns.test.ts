/**
 * When events are emitted: in a turn of the event loop of their own, behind the call that causes them,
 * also when both ends are in this process (lo0). What a listener throws reaches uncaughtException.
 */

import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { RawSocket } from '../../src/api/raw.ts';
import { NetHost } from '../../src/api/net_host.ts';
import { connect as connectOn, Server } from '../../src/api/server.ts';
import { Socket } from '../../src/api/socket.ts';
import { createServer, createStack, type Stack } from '../../src/index.ts';
import { DgramSocket } from '../../src/machine/dgram.ts';
import { TestHost } from '../netinet/tcp_host.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';

/** Counts uncaughtException while `body` runs; returns what was thrown. */
async function uncaught(body: () => Promise<void>): Promise<string[]> {
  const others = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  const messages: string[] = [];
  process.on('uncaughtException', (e) => messages.push(e.message));
  try {
    await body();
  } finally {
    process.removeAllListeners('uncaughtException');
    for (const listener of others) process.on('uncaughtException', listener);
  }
  return messages;
}

describe('api: turns of the event loop', () => {
  needs('root', 'tap', 'netns');
  let ns: Netns;
  let stack: Stack;

  beforeEach(async () => {
    ns = new Netns('turns');
    stack = await createStack({ netns: ns.name, memory: '64M' });
  });
  afterEach(async () => {
    expect(await stack.close()).to.eql({});
    ns[Symbol.dispose]();
  });

  it('a connection to this process: no event inside the call that causes it', async () => {
    const log: string[] = [];
    let inside = '';
    const call = (name: string, fn: () => void): void => {
      inside = name;
      fn();
      inside = '';
    };
    const note = (event: string) => (): void => {
      log.push(inside === '' ? event : `${event} inside ${inside}`);
    };
    const server = stack.createServer((socket) => {
      note('connection')();
      for (const event of ['data', 'end', 'finish', 'close'])
        socket.on(event, note(`server ${event}`));
    });
    server.on('listening', note('listening')).on('close', note('server closed'));
    call('listen', () => server.listen(7));
    const client = await stack.connect(7, '127.0.0.1');
    for (const event of ['data', 'end', 'finish', 'close'])
      client.on(event, note(`client ${event}`));
    call('write', () => client.write('hello'));
    await sleep(20);
    call('end', () => client.end());
    call('close', () => server.close());
    await once(client, 'close');
    await sleep(20);
    expect(log.filter((event) => event.includes('inside'))).to.eql([]);
    expect(log.slice(0, 3)).to.eql(['listening', 'connection', 'server data']);
    const rest = ['server closed', 'client finish', 'server end', 'server finish', 'server close'];
    rest.push('client end', 'client close');
    expect(log.slice(3).toSorted()).to.eql(rest.toSorted());
  });

  it("datagrams: 'listening', 'connect', 'message', 'error' and 'close' behind the call", async () => {
    const log: string[] = [];
    let inside = false;
    const note = (event: string): void => void log.push(inside ? `${event} inside` : event);
    const a = stack.createSocket('udp4');
    const b = stack.createSocket('udp4');
    for (const event of ['listening', 'connect', 'close']) a.on(event, () => note(event));
    a.on('message', (data: Buffer) => note(`message ${data.toString()}`));
    b.on('error', () => note('error'));
    inside = true;
    a.bind(5000, '127.0.0.1');
    b.send('one', 5000, '127.0.0.1');
    b.send('two', 5000, '127.0.0.1');
    b.send('', 5000, '127.0.0.1');
    inside = false;
    await sleep(20);
    inside = true;
    b.connect(5001, '127.0.0.1', () => b.send('refused'));
    a.connect(9, '127.0.0.1');
    inside = false;
    await sleep(20);
    inside = true;
    a.close();
    inside = false;
    await sleep(20);
    expect(log).to.include.members(['listening', 'connect', 'error', 'close']);
    expect(log.filter((event) => event.startsWith('message'))).to.eql([
      'message one',
      'message two',
      'message ',
    ]);
    expect(log.filter((event) => event.includes('inside'))).to.eql([]);
  });

  it('what a listener of connection throws reaches uncaughtException, and the client goes on', async () => {
    let accepted = 0;
    const server = stack.createServer((socket) => {
      socket.end('bye');
      socket.resume();
      if (++accepted < 3) throw new Error(`listener ${accepted}`);
    });
    server.listen(7);
    const thrown = await uncaught(async () => {
      const clients = await Promise.all([1, 2, 3].map(async () => stack.connect(7, '127.0.0.1')));
      for (const client of clients) {
        const chunks = await client.toArray();
        expect(Buffer.concat(chunks as Buffer[]).toString()).to.equal('bye');
      }
    });
    expect(thrown).to.eql(['listener 1', 'listener 2']);
    expect(accepted).to.equal(3);
  });

  it('what any listener throws reaches uncaughtException once, and no event is lost', async () => {
    const log: string[] = [];
    const throwing = (event: string) => (): void => {
      log.push(event);
      throw new Error(event);
    };
    const server = stack.createServer((socket) => {
      socket.resume();
      socket.setTimeout(30);
      // Node itself does not go on behind a listener of 'end' that throws.
      for (const event of ['timeout', 'close']) socket.on(event, throwing(event));
    });
    server.on('listening', throwing('listening'));
    const dgram = stack.createSocket('udp4');
    dgram.on('message', throwing('message')).on('listening', throwing('bound'));
    const thrown = await uncaught(async () => {
      server.listen(7);
      const client = await stack.connect(7, '127.0.0.1');
      dgram.bind(5000);
      for (let i = 0; i < 3; i++) stack.createSocket('udp4').send('x', 5000, '127.0.0.1');
      await sleep(100);
      client.end();
      client.resume();
      await once(client, 'close');
      await sleep(50);
    });
    const events = ['bound', 'close', 'listening', 'message', 'message', 'message', 'timeout'];
    expect(log.toSorted()).to.eql(events);
    expect(thrown.toSorted()).to.eql(events);
  });

  it('two programs that answer each other over lo0 do not block the event loop', async () => {
    let rounds = 0;
    createServer(stack, (socket) => socket.on('data', (data: Buffer) => socket.write(data))).listen(
      7,
    );
    const client = await stack.connect(7, '127.0.0.1');
    client.on('data', (data: Buffer) => {
      rounds++;
      client.write(data);
    });
    client.write('ball');
    const [a, b] = [stack.createSocket('udp4'), stack.createSocket('udp4')];
    for (const [socket, port, peer] of [
      [a, 5000, 5001],
      [b, 5001, 5000],
    ] as const) {
      socket.on('message', (data: Buffer) => {
        rounds++;
        socket.send(data, peer, '127.0.0.1');
      });
      socket.bind(port);
    }
    // To itself, too.
    const self = stack.createSocket('udp4');
    self.on('message', (data: Buffer) => {
      rounds++;
      self.send(data, 5002, '127.0.0.1');
    });
    self.bind(5002);
    self.send('ball', 5002, '127.0.0.1');
    a.send('ball', 5001, '127.0.0.1');
    let late = 0;
    for (let i = 0; i < 20; i++) {
      const start = performance.now();
      await sleep(10);
      late = Math.max(late, performance.now() - start - 10);
    }
    expect(rounds).to.be.above(100);
    expect(late, 'ms that a timer waited').to.be.below(200);
  });
});

describe('api: events of a connection that we open', () => {
  const trace = (socket: Socket, log: string[]): void => {
    for (const event of ['connect', 'ready', 'data', 'end', 'finish'])
      socket.on(event, () => log.push(`${event} ${socket.readyState}`));
    socket.on('error', (e: NodeJS.ErrnoException) => log.push(`error ${e.code}`));
    socket.on('close', (hadError: boolean) => log.push(`close ${hadError}`));
  };

  let h: TestHost;
  beforeEach(() => {
    h = new TestHost();
    // Turns of Node's event loop, as the real clock has them.
    h.clock.post = (task): void => void setImmediate(() => task.run());
  });
  afterEach(() => h.close());

  it('connect, ready, then what was written before; bytesWritten counts what waits', async () => {
    const head = h.listen(7);
    const log: string[] = [];
    const socket = new Socket({ stack: new NetHost(h.vnet) });
    trace(socket, log);
    expect([socket.pending, socket.connecting]).to.eql([true, false]);
    socket.connect(7, '127.0.0.1', () => log.push('callback'));
    socket.write('early');
    socket.end();
    const { connecting, pending, readyState, bytesWritten } = socket;
    expect([connecting, pending, readyState, bytesWritten]).to.eql([true, true, 'opening', 5]);
    expect(log).to.eql([]);
    await once(socket, 'finish');
    const peer = h.accept(head);
    expect(h.read(peer, 10)!.toString()).to.equal('early');
    expect(log).to.eql(['connect readOnly', 'callback', 'ready readOnly', 'finish readOnly']);
    h.closeSocket(peer);
    await once(socket, 'close');
    expect(log.slice(4)).to.eql(['end closed', 'close false']);
    expect([socket.bytesWritten, socket.destroyed]).to.eql([5, true]);
  });

  it('a refused connection: error, then close(true); no call emits', async () => {
    const log: string[] = [];
    const socket = new Socket({ stack: new NetHost(h.vnet) });
    trace(socket, log);
    socket.connect({ port: 9, host: '127.0.0.1' });
    expect(log).to.eql([]);
    await new Promise((resolve) => socket.on('close', resolve));
    expect(log).to.eql(['error ECONNREFUSED', 'close true']);
    const refused = await connectOn(new NetHost(h.vnet), 9, '127.0.0.1').catch((e: unknown) => e);
    expect(refused).to.include({
      code: 'ECONNREFUSED',
      syscall: 'connect',
      address: '127.0.0.1',
      port: 9,
    });
    await sleep(5);
  });
});

describe('api: callbacks and listeners that throw', () => {
  let h: TestHost;
  beforeEach(() => {
    h = new TestHost();
    h.clock.post = (task): void => void setImmediate(() => task.run());
  });
  afterEach(() => h.close());

  it("the callback of a write that 'destroy' ends: behind the call, and 'close' follows", async () => {
    const server = new Server({ stack: new NetHost(h.vnet) });
    let accepted: Socket | null = null;
    server.on('connection', (socket: Socket) => (accepted = socket.pause()));
    server.listen(7);
    const client = await connectOn(new NetHost(h.vnet), 7, '127.0.0.1');
    await sleep(5);
    const log: string[] = [];
    client.pause();
    const socket = accepted!;
    socket.on('close', () => log.push('close'));
    const thrown = await uncaught(async () => {
      socket.write(Buffer.alloc(3_000_000), () => {
        log.push('callback');
        throw new Error('callback');
      });
      await sleep(5);
      socket.destroy();
      log.push('destroyed');
      await sleep(20);
    });
    expect(log).to.eql(['destroyed', 'callback', 'close']);
    expect(thrown).to.eql(['callback']);
    client.destroy();
    const closed = once(server, 'close');
    server.close();
    await closed;
  });

  it("a listener of 'connect' that throws: 'ready' follows", async () => {
    const head = h.listen(7);
    const socket = new Socket({ stack: new NetHost(h.vnet) });
    let ready = 0;
    const emitted = new Promise<void>((resolve) => {
      socket.on('ready', () => {
        ready++;
        resolve();
      });
    });
    const thrown = await uncaught(async () => {
      socket.connect(7, '127.0.0.1', () => {
        throw new Error('connect');
      });
      await emitted;
      await sleep(5);
    });
    expect(thrown).to.eql(['connect']);
    expect(ready).to.equal(1);
    h.closeSocket(h.accept(head));
    socket.destroy();
    await once(socket, 'close');
  });
});

describe('api: events that are queued together', () => {
  /** Lets the turns pass that are posted, and those that they post; a timer may be due before them. */
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 200; i++) await new Promise(setImmediate);
  };
  let h: TestHost;
  let ticks = 0;
  let ticking: NodeJS.Immediate;

  beforeEach(() => {
    h = new TestHost();
    h.clock.post = (task): void => void setImmediate(() => task.run());
    ticks = 0;
    const tick = (): void => {
      ticks++;
      ticking = setImmediate(tick);
    };
    tick();
  });
  afterEach(() => {
    clearImmediate(ticking);
    h.close();
  });

  it('100 datagrams: in order, 32 in a turn of the loop, a later one for each exception', async () => {
    const [a, b] = [new DgramSocket(h.vnet, 'udp4'), new DgramSocket(h.vnet, 'udp4')];
    a.bind(5000, '127.0.0.1');
    const got: string[] = [];
    const at: number[] = [];
    a.on('message', (data: Buffer) => {
      got.push(data.toString());
      at.push(ticks);
      if (got.length % 40 === 0) throw new Error(`listener ${got.length}`);
    });
    const want = Array.from({ length: 100 }, (_, i) => `datagram ${i}`);
    const thrown = await uncaught(async () => {
      for (const text of want) b.send(text, 5000, '127.0.0.1');
      await settle();
    });
    expect(got).to.eql(want);
    expect(thrown).to.eql(['listener 40', 'listener 80']);
    const perTick = new Map<number, number>();
    for (const tick of at) perTick.set(tick, (perTick.get(tick) ?? 0) + 1);
    expect(perTick.size, 'turns of the loop').to.be.below(12);
    expect(Math.max(...perTick.values()), 'in one turn of the loop').to.be.below(34);
    a.close();
    b.close();
    await settle();
  });

  it('close() in a listener: no further message of the same turn of the loop', async () => {
    const [a, b] = [new DgramSocket(h.vnet, 'udp4'), new DgramSocket(h.vnet, 'udp4')];
    a.bind(5000, '127.0.0.1');
    const log: string[] = [];
    a.on('message', (data: Buffer) => {
      log.push(data.toString());
      if (log.length === 3) a.close();
    });
    a.on('close', () => log.push('close'));
    for (let i = 0; i < 10; i++) b.send(String(i), 5000, '127.0.0.1');
    await settle();
    expect(log).to.eql(['0', '1', '2', 'close']);
    b.close();
    await settle();
  });

  it('a queued error follows the datagrams before it', async () => {
    const [a, b] = [new DgramSocket(h.vnet, 'udp4'), new DgramSocket(h.vnet, 'udp4')];
    a.bind(5000, '127.0.0.1');
    a.connect(5001, '127.0.0.1');
    b.bind(5001, '127.0.0.1');
    const log: string[] = [];
    a.on('message', (data: Buffer) => log.push(data.toString()));
    a.on('error', (e: NodeJS.ErrnoException) => log.push(String(e.code)));
    await settle();
    for (let i = 0; i < 3; i++)
      await new Promise((resolve) => b.send(String(i), 5000, '127.0.0.1', resolve));
    b.close();
    a.send('refused');
    await settle();
    expect(log).to.eql(['0', '1', '2', 'ECONNREFUSED']);
    a.close();
    await settle();
  });

  it('20 connections: a few turns of the loop, and an exception loses none', async () => {
    const server = new Server({ stack: new NetHost(h.vnet) });
    const at = new Set<number>();
    let accepted = 0;
    server.on('connection', (socket: Socket) => {
      at.add(ticks);
      socket.end();
      socket.resume();
      if (++accepted === 10) throw new Error('listener');
    });
    server.listen(7);
    const thrown = await uncaught(async () => {
      const clients = await Promise.all(
        Array.from({ length: 20 }, async () => connectOn(new NetHost(h.vnet), 7, '127.0.0.1')),
      );
      await Promise.all(clients.map(async (client) => client.resume() && once(client, 'close')));
    });
    expect(thrown).to.eql(['listener']);
    expect(accepted).to.equal(20);
    expect(at.size, 'turns of the loop').to.be.below(10);
    const closed = once(server, 'close');
    server.close();
    await closed;
  });

  it('50 packets of a raw socket: 32 in a turn of the loop', async () => {
    const raw = new RawSocket(h.vnet);
    const at = new Set<number>();
    let messages = 0;
    raw.on('message', () => {
      messages++;
      at.add(ticks);
    });
    const echo = Buffer.from('0800f7ff00000000', 'hex');
    for (let i = 0; i < 50; i++) raw.send(echo, '127.0.0.1');
    await settle();
    // An echo request to the own address is received, too.
    expect(messages).to.be.at.least(50);
    expect(at.size, 'turns of the loop').to.be.below(12);
    raw.close();
    await settle();
  });
});

describe('api: raw sockets', () => {
  it("raw sockets: 'message' behind the call, and a listener that throws loses nothing", () => {
    const h = new TestHost();
    try {
      const raw = new RawSocket(h.vnet);
      let messages = 0;
      raw.on('message', () => {
        messages++;
        throw new Error('listener');
      });
      const echo = Buffer.from('0800f7ff00000000', 'hex');
      raw.send(echo, '127.0.0.1');
      expect(messages).to.equal(0);
      let thrown = 0;
      for (let i = 0; i < 10; i++)
        try {
          h.clock.runPosted();
        } catch {
          thrown++;
        }
      expect(messages).to.be.above(0);
      expect(thrown).to.equal(messages);
      raw.close();
    } finally {
      h.close();
    }
  });
});
