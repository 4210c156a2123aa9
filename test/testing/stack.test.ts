/** `withStack`: a NIC in a new namespace, with Linux as the peer. */

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { get } from 'node:http';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { TapnicError } from '../../src/index.ts';
import { expectFrames, type TestFunction, withFault, withStack } from '../../src/testing/kit.ts';
import { needs } from '../support/needs.ts';
import { errorOf } from './rejected.ts';

const run = (test: TestFunction): Promise<void> => test.call(undefined, undefined);
/** Namespaces of fixtures of this process. */
const left = (): string[] =>
  readdirSync('/run/netns').filter((name) => name.startsWith(`tapnic-test-${process.pid}-`));
const namespace = (): string => readlinkSync('/proc/thread-self/ns/net');

describe('testing: withStack', function () {
  needs('root', 'tap', 'netns', 'ping');
  this.timeout(30_000);

  it(
    'puts the test into the namespace: node:net, node:http and programs are on the Linux side',
    withStack(async ({ stack, addr, netns }) => {
      expect(left()).to.deep.equal([netns]);
      const { createServer } = await import('node:http');
      stack.listen(
        createServer((_request, response) => response.end('from the NIC')),
        { port: 80 },
      );
      const [response] = await once(get({ host: addr, agent: false }), 'response');
      let body = '';
      for await (const chunk of response) body += chunk;
      expect(body).to.equal('from the NIC');
      const { stdout } = await promisify(execFile)('ping', ['-c', '1', '-W', '5', addr]);
      expect(stdout).to.include('1 received');
    }),
  );

  it(
    'expects frames in real time, with chatter of the kernel behind a filter',
    withStack({ addr: '192.0.2.9/24', mtu: 1400 }, async ({ stack, addr }) => {
      expect(addr).to.equal('192.0.2.9');
      stack.createServer((socket) => socket.resume()).listen(7);
      const socket = connect(7, addr);
      await once(socket, 'connect');
      const handshake = [
        '< S 0:0(0)',
        { flags: 'S.', seq: 0, ack: 1, direction: 'out' },
        '< . 1:1(0) ack 1',
      ];
      await expectFrames(stack, handshake as string[]);
      await withFault(stack, 'drop', { point: 'rx', nth: 1 }, async () => {
        // The NIC loses the first segment; Linux sends it again.
        socket.write('hi');
        await expectFrames(stack, ['< P. 1:3(2) ack 1 "hi"', '> . 1:1(0) ack 3'], {
          quietMs: 100,
        });
      });
      const wrong = await errorOf(expectFrames(stack, ['< F.'], { withinMs: 10 }));
      expect(wrong.message).to.include('frame 1 is missing');
      socket.destroy();
    }),
  );

  it('leaves the namespace, and removes it, also after a failure', async () => {
    const home = namespace();
    let inside = '';
    const failing = withStack({ keepCapture: false }, () => {
      inside = namespace();
      throw new Error('as planned');
    });
    expect((await errorOf(run(failing))).message).to.match(/^as planned\n\nseed of the stack: \d+/);
    expect(namespace()).to.equal(home);
    expect(inside).to.not.equal(home);
    expect(left()).to.deep.equal([]);
    const wrong = await errorOf(run(withStack({ mtu: 3 }, () => undefined)));
    expect([wrong.code, left(), namespace()]).to.deep.equal(['EINVAL', [], home]);
  });

  it('ends programs that a test left running, and names them', async () => {
    let child = null as ReturnType<typeof spawn> | null;
    const error = await errorOf(
      run(
        withStack({ keepCapture: false }, async () => {
          child = spawn('sleep', ['60']);
          await once(child, 'spawn');
        }),
      ),
    );
    expect(error.message).to.include(`${child!.pid} (sleep): end them in the test`);
    if (child!.signalCode === null) await once(child!, 'exit');
    expect(child!.signalCode).to.equal('SIGKILL');
    expect(left()).to.deep.equal([]);
  });

  it('refuses wrong arguments', () => {
    expect(() => withStack(undefined as never)).to.throw(TapnicError, 'a function that runs');
    expect(() => withStack({ netns: 'x' } as object, () => undefined)).to.throw(
      TapnicError,
      'netns: the fixture creates the namespace',
    );
  });
});
