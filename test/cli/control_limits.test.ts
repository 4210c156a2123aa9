/** What a client of the control socket can occupy, and how streamed requests run and end. */

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { ControlChannel } from '../../src/cli/control_channel.ts';
import type { ControlLimits, StreamHandler } from '../../src/cli/control_conn.ts';
import { type ControlServer, openControlServer } from '../../src/cli/control_server.ts';
import { ControlFailure, okResponse } from '../../src/ctl/protocol.ts';
import {
  counted,
  R_CTL_BEHIND,
  R_CTL_CLIENTS,
  R_CTL_IDLE,
  R_CTL_LONG,
  R_CTL_STREAMS,
  R_CTL_UNREAD,
  resetReasons,
} from '../../src/sys/reason.ts';

const LIMITS: ControlLimits = { clients: 3, streams: 2, idleMs: 200, unreadMs: 300 };

describe('cli: limits and streams of the control socket', () => {
  let dir: string;
  let path: string;
  let server: ControlServer;
  let sockets: Socket[];

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-limits-'));
    path = join(dir, 's.sock');
    sockets = [];
    resetReasons();
    server = await openControlServer(path, LIMITS);
  });
  afterEach(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(dir, { recursive: true });
  });

  /** Answers `x` with the arguments, and streams with `handlers`. */
  function handle(handlers: Record<string, StreamHandler> = {}): void {
    server.setHandler((req) => okResponse(req.id, req.args), new Map(Object.entries(handlers)));
  }

  /** A client and everything that it has received. */
  async function client(): Promise<{ socket: Socket; text: () => string; lines: () => unknown[] }> {
    const socket = connect(path);
    sockets.push(socket);
    socket.on('error', () => undefined);
    let got = '';
    socket.on('data', (chunk) => (got += chunk.toString('latin1')));
    await once(socket, 'connect');
    const lines = (): unknown[] =>
      got
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as unknown);
    return { socket, text: () => got, lines };
  }

  async function until(what: string, done: () => boolean, ms = 3000): Promise<void> {
    for (const end = performance.now() + ms; !done(); await sleep(5))
      if (performance.now() > end) throw new Error(`not in ${ms} ms: ${what}`);
  }

  const never: StreamHandler = (_req, _out, signal) =>
    new Promise((resolve) => signal.addEventListener('abort', () => resolve({ ended: true })));

  it('C6: refuses a client beyond the limit with an answer, and takes one when another has left', async () => {
    handle();
    const first = await client();
    await client();
    await client();
    const refused = await client();
    await until('closed', () => refused.socket.closed);
    expect(refused.lines()).to.deep.equal([
      {
        id: null,
        ok: false,
        err: { code: 'EAGAIN', message: '3 clients are connected: try again' },
      },
    ]);
    expect(counted(R_CTL_CLIENTS)).to.equal(1);
    first.socket.destroy();
    await sleep(20);
    const channel = await ControlChannel.open(path);
    expect(await channel.request('x', { a: 1 })).to.deep.equal({ a: 1 });
    channel.close();
  });

  it('C6: ends a client that is idle, or sends a line slowly, but not one with a stream', async () => {
    handle({ long: never });
    const busy = await client();
    busy.socket.write('{"id":1,"cmd":"long"}\n');
    const idle = await client();
    const slow = await client();
    const trickle = setInterval(() => slow.socket.write('x'), 20);
    await until('both closed', () => idle.socket.closed && slow.socket.closed);
    clearInterval(trickle);
    expect(idle.text()).to.include('"code":"ETIMEDOUT","message":"no request in 0.2 s"');
    expect(counted(R_CTL_IDLE)).to.equal(2);
    await sleep(2 * LIMITS.idleMs);
    expect(busy.socket.closed).to.equal(false);
  });

  it('C6: ends a client that does not read its answers, and one whose request is too long', async () => {
    server.setHandler((req) => okResponse(req.id, 'z'.repeat(100_000)));
    const rude = connect(path);
    sockets.push(rude);
    rude.on('error', () => undefined);
    rude.pause();
    rude.write('{"id":1,"cmd":"x"}\n'.repeat(100));
    await until('unread', () => counted(R_CTL_UNREAD) === 1);
    const long = await client();
    long.socket.write('x'.repeat(70_000));
    await until('too long', () => counted(R_CTL_LONG) === 1);
  });

  it('B8: a streamed request has several lines, other requests in between, and one answer', async () => {
    let go: () => void = () => undefined;
    handle({
      count: async (_req, out) => {
        out.event({ n: 1 });
        await new Promise<void>((resolve) => (go = resolve));
        out.event({ n: 2 });
        return { total: 2 };
      },
    });
    const { socket, lines } = await client();
    socket.write('{"id":5,"cmd":"count"}\n{"id":6,"cmd":"x","args":{"a":1}}\n');
    await until('two lines', () => lines().length === 2);
    go();
    await until('all lines', () => lines().length === 4);
    expect(lines()).to.deep.equal([
      { id: 5, event: { n: 1 } },
      { id: 6, ok: true, data: { a: 1 } },
      { id: 5, event: { n: 2 } },
      { id: 5, ok: true, data: { total: 2 } },
    ]);
  });

  it('B8: a client has one streamed request, and all clients together a limited number', async () => {
    handle({ long: never });
    const a = await client();
    a.socket.write('{"id":1,"cmd":"long"}\n{"id":2,"cmd":"long"}\n');
    await until('refused', () => a.lines().length === 1);
    expect(a.text()).to.include('"id":2,"ok":false,"err":{"code":"EBUSY"');
    const b = await client();
    b.socket.write('{"id":1,"cmd":"long"}\n');
    const c = await client();
    c.socket.write('{"id":1,"cmd":"long"}\n');
    await until('refused', () => c.lines().length === 1);
    expect(c.text()).to.include('"EAGAIN","message":"2 streamed requests are running: try again"');
    expect(counted(R_CTL_STREAMS)).to.equal(1);
    // Each end of a stream makes room: `stop`, and a client that goes away.
    a.socket.write(
      '{"id":3,"cmd":"stop","args":{"id":1}}\n{"id":4,"cmd":"stop","args":{"id":1}}\n',
    );
    await until('stopped', () => a.lines().length === 4);
    expect(a.lines().slice(1)).to.have.deep.members([
      { id: 3, ok: true, data: { stopped: true } },
      { id: 1, ok: true, data: { ended: true } },
      { id: 4, ok: true, data: { stopped: true } },
    ]);
    c.socket.write('{"id":9,"cmd":"long"}\n');
    await sleep(50);
    expect(c.lines()).to.have.lengthOf(1);
  });

  it('B8: a stream is cancelled when its client goes away, and when the instance stops', async () => {
    let cancelled = 0;
    handle({
      long: (_req, _out, signal) =>
        new Promise((_resolve, reject) =>
          signal.addEventListener('abort', () => {
            cancelled++;
            reject(new ControlFailure('ECANCELED', 'stopped'));
          }),
        ),
    });
    for (const leave of ['destroy', 'end'] as const) {
      const { socket } = await client();
      socket.write('{"id":1,"cmd":"long"}\n');
      await sleep(50);
      socket[leave]();
      const before = cancelled;
      await until(leave, () => cancelled === before + 1);
    }
    const { socket, lines } = await client();
    socket.write('{"id":1,"cmd":"long"}\n');
    await sleep(50);
    server.stopStreams();
    socket.write('{"id":2,"cmd":"long"}\n');
    await until('both', () => lines().length === 2);
    expect(cancelled).to.equal(3);
    expect(lines()).to.deep.equal([
      { id: 1, ok: false, err: { code: 'ECANCELED', message: 'stopped' } },
      { id: 2, ok: false, err: { code: 'ECANCELED', message: 'the instance is stopping' } },
    ]);
  });

  it('B8: events to a client that does not read are dropped and counted, and memory stays bounded', async () => {
    let sent = 0;
    handle({
      flood: async (_req, out, signal) => {
        for (; sent < 50_000 && !signal.aborted; sent++) out.event({ text: 'y'.repeat(1000) });
        return { sent };
      },
    });
    const rude = connect(path);
    sockets.push(rude);
    rude.on('error', () => undefined);
    rude.pause();
    rude.write('{"id":1,"cmd":"flood"}\n');
    await until('sent', () => sent === 50_000);
    expect(counted(R_CTL_BEHIND)).to.be.above(48_000);
  });

  it('B8: a body arrives whole, at the pace of its reader', async () => {
    const bytes = Buffer.alloc(4_000_000, 'abcdefg\n{"id":1,"ok":true}\n');
    let sent = 0;
    handle({
      body: async (_req, out) => {
        out.event({ event: 'response' });
        for (let at = 0; at < bytes.length; at += 50_000) {
          await out.send(bytes.subarray(at, at + 50_000));
          sent += 50_000;
        }
        return { sent };
      },
    });
    const parts: Buffer[] = [];
    let open: (() => void) | null = null;
    let taken = 0;
    const output = new Writable({
      highWaterMark: 1000,
      write(chunk: Buffer, _encoding, done) {
        parts.push(chunk);
        taken += chunk.length;
        // The first piece waits for the test.
        if (open === null) open = done;
        else setImmediate(done);
      },
    });
    const channel = await ControlChannel.open(path);
    const { signal } = new AbortController();
    const done = channel.stream(
      'body',
      {},
      { event: () => undefined, output: () => output, signal },
    );
    await sleep(150);
    expect(sent, 'what the sockets hold').to.be.below(2_000_000);
    expect(taken).to.be.below(1_000_000);
    open!();
    expect(await done).to.deep.equal({ sent: bytes.length });
    expect(Buffer.concat(parts).equals(bytes)).to.equal(true);
    channel.close();
  });

  it('B8: a stop is answered while a body fills the socket', async () => {
    handle({
      body: async (_req, out, signal) => {
        while (!signal.aborted) await out.send(Buffer.alloc(500_000, 'b'));
        return { stopped: true };
      },
    });
    const { socket, text } = await client();
    socket.pause();
    socket.write('{"id":1,"cmd":"body"}\n');
    await sleep(50); // the socket is full
    socket.write('{"id":2,"cmd":"stop","args":{"id":1}}\n');
    await sleep(50);
    socket.resume();
    await until('the answer', () => text().includes('{"id":1,"ok":true,"data":{"stopped":true}}'));
    expect(text()).to.include('{"id":2,"ok":true,"data":{"stopped":true}}');
  });

  it('B8: a client that stops its request does not wait for an instance that hangs', async () => {
    handle({ hang: () => new Promise(() => undefined) });
    const channel = await ControlChannel.open(path);
    const begin = performance.now();
    const signal = AbortSignal.timeout(50);
    let message = '';
    try {
      await channel.stream('hang', {}, { event: () => undefined, signal });
    } catch (e) {
      ({ message } = e as Error);
    }
    expect(message).to.equal(`${path}: no answer`);
    expect(performance.now() - begin).to.be.within(1900, 4000);
  });

  it('B8: a body is cancelled when what it is written to fails', async () => {
    let ended = '';
    handle({
      body: async (_req, out) => {
        out.event({ event: 'response' });
        try {
          for (;;) await out.send(Buffer.alloc(50_000));
        } catch (e) {
          ended = (e as ControlFailure).code;
          throw e;
        }
      },
    });
    const full = new Writable({ write: (_c, _e, done) => done(new Error('ENOSPC: full')) });
    const channel = await ControlChannel.open(path);
    const { signal } = new AbortController();
    let message = '';
    try {
      await channel.stream('body', {}, { event: () => undefined, output: () => full, signal });
    } catch (e) {
      ({ message } = e as Error);
    }
    expect(message).to.equal('ENOSPC: full');
    await until('the handler ended', () => ended === 'EPIPE');
  });
});
