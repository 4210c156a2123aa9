/** Sockets and servers where they differ from node:net's, and `sendfile`: a machine's lo0, without a NIC. */

import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { BlockList, createServer as createNet } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { openFile } from '../../src/api/file.ts';
import { lateClass } from '../../src/api/late_class.ts';
import { type StackNet, stackNet } from '../../src/api/net.ts';
import { NetHost } from '../../src/api/net_host.ts';
import { connect, createServer, listen, type Server } from '../../src/api/server.ts';
import { Socket } from '../../src/api/socket.ts';
import type { SendfileError, SendfileOptions } from '../../src/api/socket_sendfile.ts';
import { openPath } from '../../src/host/node_net.ts';
import { bootHostMachine, type Machine } from '../../src/machine/machine.ts';
import { endMachine } from '../netinet6/plain_nic.ts';

const HOST = '127.0.0.1';

describe('api: sockets of a stack', () => {
  let machine: Machine;
  let host: NetHost;
  let net: StackNet;
  let closed = false;
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-socket-'));
  const path = join(dir, 'file');
  const CONTENT = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * 7919) >>> 5));

  before(() => {
    writeFileSync(path, CONTENT);
    machine = bootHostMachine({ memory: 64 * 1024 * 1024 });
    const check = (call: string): void => {
      if (closed) throw Object.assign(new Error(call), { code: 'EBADF' });
    };
    host = new NetHost(machine.vnet, { openPath, check });
    net = stackNet(host);
  });
  after(() => {
    endMachine(machine, []);
    expect(machine.leaked()).to.eql({});
    rmSync(dir, { recursive: true });
  });

  /** A server, and the port on which it listens. */
  async function serve(server: Server): Promise<number> {
    server.listen(0, HOST);
    await once(server, 'listening');
    return server.address()!.port;
  }

  const codeOf = (fn: () => unknown): unknown => {
    try {
      fn();
      return null;
    } catch (e) {
      return (e as NodeJS.ErrnoException).code;
    }
  };
  const rejection = (promise: Promise<unknown>): Promise<SendfileError> =>
    promise.then(
      () => expect.fail('no error'),
      (e: unknown) => e as SendfileError,
    );

  it('has properties that can be read from its prototype', () => {
    const proto = Socket.prototype;
    const names = ['bytesWritten', 'bufferSize', 'pending', 'remoteAddress', 'localPort'] as const;
    expect(names.map((name) => proto[name])).to.eql([0, undefined, true, undefined, undefined]);
  });

  it("follows Node's default of trying several addresses", async () => {
    const asked: unknown[] = [];
    const lookup = (_name: string, options: object, done: (e: Error) => void): void => {
      asked.push(options);
      done(new Error('enough'));
    };
    for (const enabled of [true, false]) {
      const autoSelect = { enabled: () => enabled, attemptMs: () => 20 };
      const one = new NetHost(machine.vnet, { autoSelect });
      await rejection(connect(one, { port: 1, host: 'x', lookup: lookup as never }));
    }
    expect(asked.map((options) => (options as { all?: boolean }).all)).to.eql([true, undefined]);
  });

  it('needs a stack', () => {
    for (const stack of [undefined, null, {}, 'x'])
      expect(codeOf(() => new Socket({ stack } as never))).to.equal('ERR_INVALID_ARG_TYPE');
    expect(codeOf(() => createServer(undefined as never))).to.equal('ERR_INVALID_ARG_TYPE');
    expect(codeOf(() => new Socket(undefined as never))).to.equal('ERR_INVALID_ARG_TYPE');
  });

  it('has no paths, descriptors and handles of Linux, and says so', () => {
    expect(() => net.connect('/tmp/socket')).to.throw(/no Unix domain sockets; connect to a port/);
    expect(() => net.createServer().listen('/tmp/socket')).to.throw(/no Unix domain sockets/);
    expect(() => net.createServer().listen({ fd: 3 } as never)).to.throw(/no descriptors of Linux/);
    expect(() => new net.Socket({ fd: 3 } as never)).to.throw(/no descriptors of Linux/);
    const server = net.createServer();
    expect(codeOf(() => server.listen('/tmp/socket', () => {}))).to.equal('ERR_INVALID_ARG_VALUE');
    expect([server.listening, server.listenerCount('listening')]).to.eql([false, 0]);
  });

  it('leaves no listener behind a wrong argument', () => {
    const socket = new net.Socket();
    expect(codeOf(() => socket.connect(70_000, HOST, () => {}))).to.equal('ERR_SOCKET_BAD_PORT');
    expect([socket.connecting, socket.listenerCount('connect')]).to.eql([false, 0]);
  });

  it('resolves localhost, but no other name without a lookup', async () => {
    const server = net.createServer((socket) => socket.end());
    const port = await serve(server);
    const near = await connect(host, { port });
    expect(near.remoteAddress).to.equal(HOST);
    near.resume();
    await once(near, 'close');
    const e = await rejection(connect(host, port, 'host.example'));
    expect(e).to.include({ code: 'ENOTFOUND', syscall: 'getaddrinfo', hostname: 'host.example' });
    const failed = net.createServer().listen(0, 'host.example');
    const [error] = await once(failed, 'error').catch((thrown: unknown) => [thrown]);
    expect(error).to.include({ code: 'ENOTFOUND' });
    server.close();
  });

  it('says EISCONN if a connected socket connects', async () => {
    const server = net.createServer((socket) => void socket.resume());
    const port = await serve(server);
    const near = await connect(host, port, HOST);
    near.connect(port, HOST);
    const [error] = await once(near, 'error').catch((e: unknown) => [e]);
    expect(error).to.include({ code: 'EISCONN', syscall: 'connect', address: HOST, port });
    server.close();
  });

  it('does not connect if its signal was aborted before, and rejects', async () => {
    let accepted = 0;
    const server = net.createServer(() => accepted++);
    const port = await serve(server);
    const e = await rejection(connect(host, { port, host: HOST, signal: AbortSignal.abort() }));
    expect(e.code).to.equal('ABORT_ERR');
    await sleep(5);
    expect(accepted).to.equal(0);
    server.close();
  });

  it('closes connections of a BlockList, and reports the others', async () => {
    const blockList = new BlockList();
    blockList.addAddress('127.0.0.1');
    const seen: (string | undefined)[] = [];
    const server = net.createServer({ blockList }, (socket) => {
      seen.push(socket.remoteAddress);
      socket.end();
    });
    const port = await serve(server);
    const near = await connect(host, port, HOST);
    near.on('error', () => {}).resume();
    await once(near, 'close');
    expect(seen).to.eql([]);
    server.close();
    const wrong = { blockList: {} } as never;
    expect(codeOf(() => net.createServer(wrong))).to.equal('ERR_INVALID_ARG_TYPE');
  });

  it('lets a server of node:net listen with each signature', async () => {
    for (const args of [[], [0], ['0'], [0, HOST], [0, HOST, 5], [0, 5], [{ port: 0 }], [null]]) {
      const server = createNet();
      let called = 0;
      listen(host, server, [...args, () => called++]);
      await once(server, 'listening');
      expect(called).to.equal(1);
      expect(codeOf(() => listen(host, server, [0]))).to.equal('ERR_SERVER_ALREADY_LISTEN');
      server.close();
      await once(server, 'close');
    }
    const server = createNet();
    expect(codeOf(() => listen(host, server, [70_000]))).to.equal('ERR_SOCKET_BAD_PORT');
    expect(codeOf(() => listen(host, {} as never, [0]))).to.equal('ERR_INVALID_ARG_TYPE');
  });

  it('says EBADF when the stack is closed', async () => {
    const [server, socket] = [net.createServer(), new net.Socket()];
    closed = true;
    expect(codeOf(() => server.listen(0))).to.equal('EBADF');
    expect(codeOf(() => socket.connect(1, HOST))).to.equal('EBADF');
    expect((await rejection(connect(host, 1, HOST))).code).to.equal('EBADF');
    closed = false;
  });

  /** What a peer receives, and the result of `send`. */
  async function received<T>(send: (socket: Socket) => Promise<T>): Promise<[Buffer, T]> {
    let result: Promise<T> | null = null;
    const server = net.createServer((socket) => {
      result = send(socket);
      result.then(
        () => socket.end(),
        () => socket.end(),
      );
    });
    const near = await connect(host, await serve(server), HOST);
    const chunks: Buffer[] = [];
    for await (const chunk of near) chunks.push(chunk as Buffer);
    server.close();
    return [Buffer.concat(chunks), await result!];
  }

  const sends = async (source: Parameters<Socket['sendfile']>[0], options?: SendfileOptions) =>
    received((socket) => socket.sendfile(source, options));

  it('sendfile of a path, a URL, a FileHandle and a File', async () => {
    const handle = await open(path);
    const file = openFile(openSync(path, 'r'), closeSync);
    for (const source of [path, pathToFileURL(path), handle, file]) {
      const [bytes, n] = await sends(source);
      expect(n).to.equal(CONTENT.length);
      expect(bytes.equals(CONTENT)).to.equal(true);
    }
    await handle.close();
    expect((await rejection(sends(handle))).code).to.equal('EBADF');
    file.drop();
  });

  it('sendfile of a part, with headers and trailers of several kinds', async () => {
    const [bytes, n] = await sends(path, {
      offset: 5000,
      length: 10,
      headers: ['head ', Buffer.from('er ')],
      trailers: ' trailer',
    });
    const want = Buffer.concat([
      Buffer.from('head er '),
      CONTENT.subarray(5000, 5010),
      Buffer.from(' trailer'),
    ]);
    expect(bytes.equals(want)).to.equal(true);
    expect(n).to.equal(want.length);
    const [none, count] = await sends(path, { length: 0, headers: 'a', trailers: 'b' });
    expect([none.toString(), count]).to.eql(['ab', 2]);
    const hdtr = { headers: [Buffer.from('h')], trailers: [Buffer.from('t')] };
    const [old] = await sends(path, { offset: 1, nbytes: 1, hdtr });
    expect(old.equals(Buffer.from([0x68, CONTENT[1]!, 0x74]))).to.equal(true);
  });

  it('sendfile keeps its place among writes, also of a path', async () => {
    const [bytes] = await received(async (socket) => {
      socket.write('before ');
      const sent = socket.sendfile(path, { length: 3 });
      const second = socket.sendfile(path, { offset: 3, length: 3 });
      socket.write(' behind');
      return Promise.all([sent, second]);
    });
    const want = Buffer.concat([Buffer.from('before '), CONTENT.subarray(0, 6)]);
    expect(bytes.equals(Buffer.concat([want, Buffer.from(' behind')]))).to.equal(true);
  });

  it('sendfile reports its progress, at last all bytes', async () => {
    const reports: number[] = [];
    const [, n] = await sends(path, { onProgress: (bytes) => void reports.push(bytes) });
    expect(n).to.equal(CONTENT.length);
    expect(reports.at(-1)).to.equal(n);
    expect(reports.length).to.be.above(2);
    expect(reports).to.eql([...reports].sort((a, b) => a - b));
  });

  it('sendfile is aborted before it begins, while it waits, and in the middle', async () => {
    const early = await rejection(sends(path, { signal: AbortSignal.abort(new Error('mine')) }));
    expect(early).to.include({ name: 'AbortError', code: 'ABORT_ERR', bytes: 0 });
    expect((early.cause as Error).message).to.equal('mine');

    const abort = new AbortController();
    let failed: SendfileError | null = null;
    let waiting: SendfileError | null = null;
    const [bytes] = await received(async (socket) => {
      const waits = new AbortController();
      const first = rejection(
        socket.sendfile(path, { signal: abort.signal, onProgress: () => abort.abort() }),
      );
      const second = rejection(socket.sendfile(path, { signal: waits.signal }));
      waits.abort();
      waiting = await second;
      failed = await first;
      socket.write('goes on');
    });
    expect(waiting!).to.include({ code: 'ABORT_ERR', bytes: 0 });
    expect(failed!.code).to.equal('ABORT_ERR');
    const sent = failed!.bytes;
    expect(sent).to.be.within(1, CONTENT.length - 1);
    const want = Buffer.concat([CONTENT.subarray(0, sent), Buffer.from('goes on')]);
    expect(bytes.equals(want)).to.equal(true);
  });

  it('sendfile rejects with a code and bytes', async () => {
    const missing = await rejection(sends(join(dir, 'missing')));
    expect(missing).to.include({ code: 'ENOENT', syscall: 'open', bytes: 0 });
    expect(await rejection(sends(dir))).to.include({ code: 'EINVAL', bytes: 0 });
    for (const options of [
      { length: -1 },
      { length: 1.5 },
      { offset: 'x' },
      { signal: {} },
      { onProgress: 1 },
      { flags: 0.5 },
    ] as unknown as SendfileOptions[])
      expect((await rejection(sends(path, options))).code).to.equal('EINVAL');
    expect((await rejection(sends(5 as never))).code).to.equal('EINVAL');
    const destroyed = await rejection(received((socket) => socket.destroy().sendfile(path)));
    expect(destroyed).to.include({ code: 'EPIPE', bytes: 0 });
  });

  it('sendfile of a connection that the peer resets has the bytes before', async () => {
    let result: Promise<SendfileError> | null = null;
    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      result = rejection(socket.sendfile(path, { onProgress: () => server.emit('progress') }));
    });
    const progress = once(server, 'progress');
    const near = await connect(host, await serve(server), HOST);
    near.pause();
    await progress;
    near.resetAndDestroy();
    const e = await result!;
    expect(e.code).to.match(/EPIPE|ECONNRESET/);
    expect(e.bytes).to.be.within(1, CONTENT.length - 1);
    server.close();
  });
});

describe('api: Socket and Server before a stack is created', () => {
  it('can be extended, and create objects when they are loaded', () => {
    const late = lateClass<typeof Socket>(() => new TypeError('no stack'));
    class Mine extends late.type {
      more(): string {
        return `more ${this.readyState}`;
      }
    }
    const machine = bootHostMachine({ memory: 16 * 1024 * 1024 });
    const stack = new NetHost(machine.vnet);
    expect(() => new Mine({ stack })).to.throw('no stack');
    late.loaded(Socket);
    const mine = new Mine({ stack });
    const real = new Socket({ stack });
    expect(mine.more()).to.equal('more open');
    const checks = [Mine, late.type, Socket].map((type) =>
      [mine, real].map((s) => s instanceof type),
    );
    expect(checks).to.eql([
      [true, false],
      [true, true],
      [true, true],
    ]);
    expect(new late.type({ stack })).to.be.instanceOf(Socket);
    endMachine(machine, []);
  });
});
