/** The end of a stack, or of the process, while events are posted or being emitted. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { createStack, type Leaked, type Socket, type Stack } from '../../src/index.ts';
import { within } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { distRoot } from '../support/root.ts';

const WAIT_MS = 30_000;

describe('api: the end inside an event', function () {
  needs('root', 'tap', 'netns');
  this.timeout(120_000);
  let ns: Netns;
  beforeEach(() => (ns = new Netns('end')));
  afterEach(() => ns[Symbol.dispose]());

  /**
   * Runs `setUp`, which calls `end` in an event, and resolves with what leaked. Both ends of each
   * connection are on the emulated host, so that more events are posted meanwhile.
   */
  async function closeIn(setUp: (stack: Stack, end: () => void) => void): Promise<Leaked> {
    const stack = await createStack({ netns: ns.name, memory: '32M' });
    const leaked = new Promise<Leaked>((resolve, reject) => {
      setUp(stack, () => void stack.close().then(resolve, reject));
    });
    return within(leaked, WAIT_MS, () => 'the event was not emitted, or the stack not closed');
  }

  /** Connects `n` times to port 7, and ignores how the connections end. */
  function connections(stack: Stack, n: number, use: (socket: Socket) => void): void {
    for (let i = 0; i < n; i++)
      stack.connect(7, '192.0.2.2').then(
        (socket) => {
          socket.on('error', () => undefined);
          use(socket);
        },
        () => undefined,
      );
  }

  for (const event of ['listening', 'connection', 'data', 'end', 'close'] as const)
    it(`a stack that is closed in '${event}' leaks nothing`, async () => {
      const leaked = await closeIn((stack, end) => {
        const server = stack.createServer((socket) => {
          socket.on('error', () => undefined);
          if (event === 'connection') end();
          else if (event !== 'listening') socket.on(event, end);
          socket.resume();
        });
        if (event === 'listening') server.once('listening', end);
        server.listen(7);
        connections(stack, 20, (socket) => socket.end('x'.repeat(5000)));
      });
      expect(leaked).to.deep.equal({});
    });

  it("a stack that is closed in 'message' leaks nothing", async () => {
    const leaked = await closeIn((stack, end) => {
      const server = stack.createSocket('udp4');
      server.on('message', end);
      server.bind(9);
      const client = stack.createSocket('udp4');
      client.on('error', () => undefined);
      for (let i = 0; i < 50; i++) client.send('x', 9, '192.0.2.2');
    });
    expect(leaked).to.deep.equal({});
  });

  it('a stack that is closed while UDP sockets bind and look up a name leaks nothing', async () => {
    const log: string[] = [];
    let found: (() => void) | null = null;
    const leaked = await closeIn((stack, end) => {
      const lookup = (
        host: string,
        _options: unknown,
        done: (error: Error | null, address: string, family: number) => void,
      ): void => {
        if (host === 'slow.example') found = (): void => done(null, '127.0.0.1', 4);
        else process.nextTick(done, null, host, 4);
      };
      const slow = stack.createSocket({ type: 'udp4', lookup, recvBufferSize: 9999 });
      slow.on('error', (e) => log.push(e.message));
      slow.on('close', () => log.push('close'));
      slow.bind(0, 'slow.example');
      slow.send('x', 9, '192.0.2.1', (e) => log.push(`sent ${(e as NodeJS.ErrnoException).code}`));
      stack.createSocket('udp4').bind();
      const idle = stack.createSocket({ type: 'udp4', signal: AbortSignal.abort() });
      idle.on('close', () => end());
      stack.createSocket('udp4');
    });
    expect(leaked).to.deep.equal({});
    expect(log).to.deep.equal([]);
    found!();
    await sleep(20);
    expect(log).to.deep.equal(['close']);
  });

  it('a stack whose listener throws can be closed in uncaughtException', async () => {
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    let message = '';
    try {
      const leaked = await closeIn((stack, end) => {
        process.once('uncaughtException', (e) => {
          ({ message } = e);
          end();
        });
        let thrown = false;
        stack
          .createServer((socket) => {
            socket.on('error', () => undefined);
            if (thrown) return;
            thrown = true;
            throw new Error('of the listener');
          })
          .listen(7);
        connections(stack, 5, (socket) => socket.end('x'));
      });
      expect(message).to.equal('of the listener');
      expect(leaked).to.deep.equal({});
    } finally {
      for (const listener of listeners) process.on('uncaughtException', listener);
    }
  });

  it('a process that exits while events are posted has its status, and leaves nothing', async () => {
    const name = `${ns.name}-own`;
    const index = pathToFileURL(join(distRoot, 'src/index.js')).href;
    const program = `
      import { createStack } from ${JSON.stringify(index)};
      const stack = await createStack({ netns: ${JSON.stringify(name)}, memory: '32M' });
      stack.createServer((socket) => {
        socket.on('error', () => undefined);
        socket.on('data', () => process.exit(7));
      }).listen(7);
      for (let i = 0; i < 30; i++)
        void stack.connect(7, '192.0.2.2').then((socket) => socket.end('x'.repeat(5000)));
    `;
    const args = ['--input-type=module', '-e', program];
    const { status, stderr } = await ns.run(process.execPath, args, { timeoutMs: WAIT_MS });
    expect([status, stderr]).to.deep.equal([7, '']);
    expect(existsSync(`/run/netns/${name}`)).to.equal(false);
  });
});
