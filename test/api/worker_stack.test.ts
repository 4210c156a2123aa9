/** `stackInWorker`: a stack in a thread of its own, beside one in this thread, with Linux between them. */

import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { connect, createStack, stackInWorker } from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';

/** A program that serves its data, and echoes messages. */
const PROGRAM = `export default async function peer(stack, data, port) {
  stack.createServer((socket) => socket.end(data.text)).listen(80);
  port.on('message', (message) => port.postMessage(message + ' from ' + stack.info.addr));
  port.unref();
}`;

async function errorOf(promise: Promise<unknown>): Promise<NodeJS.ErrnoException> {
  try {
    await promise;
  } catch (e) {
    return e as NodeJS.ErrnoException;
  }
  throw new Error('no error');
}

describe('api: stackInWorker', () => {
  needs('root', 'tap', 'netns');
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-worker-'));
  after(() => rmSync(dir, { recursive: true }));

  function program(name: string, code: string): string {
    const path = join(dir, name);
    writeFileSync(path, code);
    return path;
  }

  it('runs a program with a second stack, to which the first connects through Linux', async () => {
    using ns = new Netns('inworker');
    ns.exec('sysctl', ['-qw', 'net.ipv4.ip_forward=1']);
    const netns = ns.name;
    const stack = await createStack({ netns });
    const path = program('peer.mjs', PROGRAM);
    const options = {
      netns,
      tap: 'nic1',
      addr: '198.51.100.2/24',
      hostAddr: '198.51.100.1/24',
      addr6: null,
      hostAddr6: null,
    };
    const peer = await stackInWorker(options, { program: path, data: { text: 'hello' } });
    expect(peer.info).to.include({ tap: 'nic1', addr: '198.51.100.2', if: 'tn0' });

    const socket = await connect(stack, 80, '198.51.100.2');
    let got = '';
    for await (const chunk of socket) got += String(chunk);
    expect(got).to.equal('hello');
    peer.port.postMessage('greetings', []);
    expect(await once(peer.port, 'message')).to.deep.equal(['greetings from 198.51.100.2']);

    expect(await peer.sysctl('net.inet.ip.ttl', 9)).to.equal(64);
    expect(await peer.sysctl('net.inet.ip.ttl')).to.equal(9);
    expect((await peer.ifconfig('tn0', '-txcsum'))!.options_names).to.not.include('TXCSUM');
    expect((await peer.ifconfig()).map(({ name }) => name)).to.include('lo0');
    expect((await peer.netstat('an')).some(({ lport }) => lport === 80)).to.equal(true);
    const { id } = await peer.addFault('drop', { match: 'tcp', point: 'tx' });
    expect((await peer.faults()).map((fault) => fault.id)).to.deep.equal([id]);
    await peer.removeFault('all');
    const error = await errorOf(peer.sysctl('no.such'));
    expect(error).to.include({ name: 'TapnicError', code: 'ENOENT', syscall: 'sysctl' });
    expect(error.message).to.include('no.such');

    expect(await stack.close()).to.deep.equal({});
    expect(await peer.close()).to.deep.equal({});
    expect(await errorOf(peer.sysctl('net.inet.ip.ttl'))).to.include({ code: 'EBADF' });
    expect(ns.exec('ip', ['-br', 'link'])).to.not.include('nic1');
  });

  it('rejects with the error of the options, the stack and the program', async () => {
    using ns = new Netns('inworkerr');
    const netns = ns.name;
    const cases: [object, object, string][] = [
      [{ mtu: 71 }, {}, 'createStack: EINVAL: mtu: 71'],
      [{ tap: () => undefined }, {}, 'stackInWorker: EINVAL: options and data'],
      [{}, { program: './peer.mjs' }, 'program: ./peer.mjs: a file: URL or an absolute path'],
      [{}, { program: new URL('http://192.0.2.1/') }, 'not the URL of a file'],
      [
        {},
        { program: program('none.mjs', 'export const one = 1;') },
        'no function as default export',
      ],
      [
        {},
        { program: program('throws.mjs', "export default () => { throw new Error('own'); }") },
        'own',
      ],
    ];
    for (const [options, of, message] of cases) {
      const error = await errorOf(stackInWorker({ netns, ...options }, of));
      expect(error.message).to.include(message);
      expect(ns.exec('ip', ['-br', 'link'])).to.not.include('nic0');
    }
  });

  it('reports a program that throws later, and ends one that does not end', async () => {
    using ns = new Netns('inworkdie');
    const netns = ns.name;
    const throws = program(
      'later.mjs',
      `export default (stack, data, port) =>
        port.on('message', () => { throw new Error('later'); });`,
    );
    const dying = await stackInWorker({ netns }, { program: throws });
    dying.port.postMessage(1, []);
    expect((await dying.died).message).to.equal('later');
    expect((await errorOf(dying.netstat('m'))).message).to.equal('later');
    expect((await errorOf(dying.close())).message).to.equal('later');
    const stays = program('stays.mjs', 'export default () => void setInterval(() => {}, 1000);');
    const staying = await stackInWorker({ netns }, { program: stays });
    expect(await staying.close()).to.deep.equal({});
  });
});
