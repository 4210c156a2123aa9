/** `withLink` and `expectFrames` on a simulated link, as a suite of mocha uses them. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createLink, TapnicError } from '../../src/index.ts';
import type { Link, Stack } from '../../src/index.ts';
import {
  expectFrames,
  FrameMismatch,
  framesOf,
  type TestFunction,
  watchFrames,
  withFault,
  withLink,
} from '../../src/testing/kit.ts';
import { errorOf } from './rejected.ts';

const SERVER = '192.0.2.2';

/** Client says hello to an echo server and closes. */
async function hello(client: Stack, server: Stack): Promise<void> {
  server.createServer((socket) => socket.pipe(socket)).listen(7);
  const socket = await client.connect(7, SERVER);
  socket.end('hello');
  socket.resume();
  await once(socket, 'close');
}

const HELLO = [
  '> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val * ecr 0>',
  '+0.002 < S. 0:0(0) ack 1',
  '+0 > . 1:1(0) ack 1',
  '> P. 1:6(5) ack 1 "hello"',
];

/** Runs a test function as a runner without a context does. */
function run(test: TestFunction): Promise<void> {
  return test.call(undefined, undefined);
}

describe('testing: withLink', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tapnic-failures-'));
  const setBefore = process.env['TAPNIC_FAILURES'];
  before(() => (process.env['TAPNIC_FAILURES'] = folder));
  after(() => {
    if (setBefore === undefined) delete process.env['TAPNIC_FAILURES'];
    else process.env['TAPNIC_FAILURES'] = setBefore;
    rmSync(folder, { recursive: true });
  });

  it(
    'gives stacks on a link, and expects frames in order',
    withLink(async ({ client, server }) => {
      await hello(client, server);
      const mine = framesOf(client).filter(({ direction }) => direction === 'out');
      expect(mine.at(-1)!.tcp!.flags).to.match(/F|\./);
      const error = await errorOf(expectFrames(client, HELLO));
      expect(error).to.be.instanceOf(FrameMismatch);
      expect(error.message).to.match(
        /^client: 4 frames expected, \d+ passed: frame 5 is one too many\n/,
      );
      expect(error.message).to.include('ignored: 2 arp');
      const late = ['> S', '+0.003 < S. 0:0(0) ack 1'];
      expect((await errorOf(expectFrames(client, late))).message).to.include(
        'frame 2: it passed 2.000 ms after the frame before, not 3',
      );
    }),
  );

  it(
    'moves time only with advance if time is manual',
    withLink({ time: 'manual', delayMs: 10 }, async ({ client, server, link, advance }) => {
      server.createServer((socket) => socket.end()).listen(7);
      const connecting = client.connect(7, SERVER);
      await link.settle();
      expect(link.now).to.equal(0);
      await expectFrames(client, ['> arp request 192.0.2.2']);
      await advance(20);
      await expectFrames(client, ['< arp reply', '> S']);
      await expectFrames(client, ['+0.02 < S.', '> .'], { withinMs: 20 });
      const socket = await connecting;
      socket.destroy();
    }),
  );

  it(
    'has names of its own for stacks, faults and a wire',
    withLink(
      { stacks: { left: {}, right: { addr: '192.0.2.77/24' } }, delayMs: 3, seed: 7 },
      async ({ left, right }) => {
        right.createServer((socket) => socket.end()).listen(7);
        const result = await withFault(
          left,
          'drop',
          { match: 'tcp[tcpflags] & tcp-syn != 0', nth: 1, point: 'tx' },
          async (fault) => {
            const socket = await left.connect(7, '192.0.2.77');
            socket.destroy();
            expect(left.faults().map(({ id }) => id)).to.deep.equal([fault.id]);
            return 'done';
          },
        );
        expect(result).to.equal('done');
        expect(left.faults()).to.deep.equal([]);
        // The first SYN was lost on the wire, so the other side received the second one.
        const received = framesOf(right).filter(({ direction }) => direction === 'in');
        expect(received.filter(({ tcp }) => tcp?.flags === 'S')).to.have.lengthOf(1);
        expect(received.at(-1)!.timeMs).to.be.at.least(1000);
      },
    ),
  );

  it(
    'expects silence',
    withLink(async ({ client, server, advance }) => {
      await advance(60_000);
      await expectFrames(client, []);
      await expectFrames(server, []);
      client.createSocket('udp4').send('x', 9, SERVER);
      const error = await errorOf(expectFrames(server, []));
      expect(error.message).to.include('frame 1 is one too many').and.include('UDP, length 1');
      await expectFrames(server, ['< udp (1) "x"', '> icmp unreachable port_unreachable']);
      // These are compared now.
      await expectFrames(server, []);
    }),
  );

  it('keeps the captures and pages of a failed test, named after it, until it passes', async () => {
    let fail = true;
    const test = withLink({ seed: 3 }, async ({ client, server }) => {
      await hello(client, server);
      if (fail) throw new Error('as planned');
    });
    const named = {
      runnable: () => null,
      skip: () => null,
      test: { fullTitle: () => 'a/b: it fails?' },
    };
    const mocha = { ...named, timeout: () => 0 };
    const error = await errorOf(test.call(mocha));
    const files = ['client.html', 'client.pcapng', 'server.html', 'server.pcapng'];
    expect(readdirSync(folder).sort()).to.deep.equal(files.map((end) => `a-b-it-fails.${end}`));
    expect(error.message)
      .to.match(/^as planned\n\nseed of the link: 3; /)
      .and.include('a-b-it-fails.client.pcapng');
    expect(error.stack).to.include('seed of the link: 3');
    expect(readFileSync(join(folder, 'a-b-it-fails.server.html'), 'utf8')).to.include('<html');
    fail = false;
    await test.call(mocha);
    expect(readdirSync(folder)).to.deep.equal([]);
  });

  it('closes the link of a failed test, and keeps nothing without keepCapture', async () => {
    let link: Link | null = null;
    const error = await errorOf(
      run(
        withLink({ keepCapture: false }, (test) => {
          link = test.link;
          return Promise.reject(new TypeError('first'));
        }),
      ),
    );
    expect(error).to.be.instanceOf(TypeError);
    expect((await errorOf(link!.advance(1))).code).to.equal('EBADF');
    expect(readdirSync(folder)).to.deep.equal([]);
    // Also what is thrown need not be an error.
    const text = await errorOf(
      // oxlint-disable-next-line typescript/prefer-promise-reject-errors
      run(withLink({ keepCapture: false }, () => Promise.reject('a text'))),
    );
    expect(text.message).to.match(/^a text\n\nseed/);
    const link2 = await createLink({ stacks: { a: {}, b: {} } });
    expect(await link2.close()).to.deep.equal({});
  });

  it('runs tests that are started together one after the other', async () => {
    const order: string[] = [];
    const one = (name: string): Promise<void> =>
      run(
        withLink(async ({ link }) => {
          order.push(`${name} begins`);
          await link.settle();
          order.push(`${name} ends`);
        }),
      );
    await Promise.all([one('a'), one('b')]);
    expect(order).to.deep.equal(['a begins', 'a ends', 'b begins', 'b ends']);
  });

  it('fails a test that leaks, and names what', async () => {
    const leaky = withLink({ keepCapture: false }, ({ link }) => {
      const close = link.close.bind(link);
      link.close = async () => ({ ...(await close()), mbufs: 2 });
    });
    const error = await errorOf(run(leaky));
    expect([error.code, error.message.split('\n')[0]]).to.deep.equal([
      'EBUSY',
      'leak check: EBUSY: 2 mbufs are not free after the test',
    ]);
    // The failure of the test comes first.
    const both = withLink({ keepCapture: false }, ({ link }) => {
      const close = link.close.bind(link);
      link.close = async () => ({ ...(await close()), mbufs: 2 });
      throw new Error('first');
    });
    expect((await errorOf(run(both))).message).to.match(
      /^first\n\nalso: leak check: EBUSY: 2 mbufs/,
    );
  });

  it('refuses a fixture inside another, which would wait for its own end', async () => {
    const inner = withLink(() => undefined);
    const error = await errorOf(run(withLink({ keepCapture: false }, () => run(inner))));
    expect(error.code).to.equal('EBUSY');
    expect(error.message).to.include('use the stacks of one withLink, or stackInWorker');
    await run(inner);
  });

  it('ends a test when the limit of mocha is over, and closes its link', async () => {
    let limit = 50;
    const set: number[] = [];
    const timeout = (ms?: number): number => {
      if (ms !== undefined) set.push((limit = ms));
      return limit;
    };
    const mocha = { runnable: () => null, skip: () => null, timeout };
    const error = await errorOf(
      withLink({ keepCapture: false }, () => new Promise(() => undefined)).call(mocha),
    );
    expect(error.code).to.equal('ETIMEDOUT');
    expect(error.message).to.include('50 ms');
    // Mocha itself waits longer, for the close.
    expect(set).to.deep.equal([5050]);
    await run(withLink(() => undefined));
  });

  it('ends a test when the signal of its runner is aborted', async () => {
    const abort = new AbortController();
    const context = { name: 'x', skip: () => null, diagnostic: () => null, signal: abort.signal };
    const hangs = withLink({ keepCapture: false }, () => {
      setImmediate(() => abort.abort());
      return new Promise(() => undefined);
    });
    expect((await errorOf(hangs.call(undefined, context))).code).to.equal('ETIMEDOUT');
  });

  it('refuses wrong arguments, with the remedy', async () => {
    const messages = [
      () => withLink(null as never),
      () => withLink({}, 5 as never),
      () => withLink({ stacks: { link: {}, b: {} } }, () => undefined),
    ].map((call) => {
      try {
        call();
      } catch (e) {
        expect(e).to.be.instanceOf(TapnicError);
        return (e as Error).message;
      }
      return 'accepted';
    });
    expect(messages).to.deep.equal([
      'withLink: EINVAL: a function that runs the test is needed',
      'withLink: EINVAL: a function that runs the test is needed',
      'withLink: EINVAL: stacks.link: choose another name',
    ]);
    const error = await errorOf(run(withLink({ lossRate: 2 }, () => undefined)));
    expect([error.code, error.message.includes('lossRate')]).to.deep.equal(['EINVAL', true]);
    await run(
      withLink(async ({ client }) => {
        const code = async (call: Promise<unknown>): Promise<string> => {
          const e = await errorOf(call);
          expect(e).to.be.instanceOf(TapnicError);
          return `${e.code}: ${e.message.split(': ').slice(2).join(': ')}`;
        };
        expect(await code(expectFrames(client, 'S' as never))).to.include('an array of lines');
        expect(await code(expectFrames(client, ['S']))).to.include('`<` or `>` is needed');
        expect(await code(expectFrames(client, [], { ignore: 'x' as 'arp' }))).to.include(
          'ignore: x',
        );
        expect(await code(expectFrames(client, [], { withinMs: -1 }))).to.include('withinMs: -1');
        expect(await code(expectFrames({} as Stack, []))).to.include('watchFrames(stack)');
        expect(await code(expectFrames(undefined as never, []))).to.include('watchFrames(stack)');
        expect(await code(withFault(client, 'drop', {}, null as never))).to.include('a function');
        expect(await code(withFault(client, 'nonesuch' as 'drop', {}, () => 1))).to.match(
          /^EINVAL/,
        );
        expect(client.faults()).to.deep.equal([]);
      }),
    );
  });

  it('names a busy thread, and expects frames of a link that it did not create', async () => {
    const link = await createLink({ stacks: { a: {}, b: {} }, time: 'real', delayMs: 0 });
    try {
      expect((await errorOf(run(withLink(() => undefined)))).code).to.equal('EBUSY');
      const { a } = link.stacks;
      watchFrames(a, 'a');
      a.createSocket('udp4').send('x', 9, SERVER);
      await expectFrames(a, ['> udp (1)', '< icmp unreachable port_unreachable']);
      const late = await errorOf(expectFrames(a, ['> S'], { withinMs: 20 }));
      expect(late.message).to.match(/^a: 1 frame expected, 0 passed: frame 1 is missing/);
      expect((await errorOf(expectFrames(a, ['+1 > S']))).code).to.equal('EINVAL');
    } finally {
      expect(await link.close()).to.deep.equal({});
    }
    expect(() => watchFrames(link.stacks.b)).to.throw(TapnicError, 'EBADF');
  });
});
