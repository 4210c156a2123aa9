/** `expectCapture`: golden captures with normalised fields. */

import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { TapnicError } from '../../src/index.ts';
import { expectCapture, FrameMismatch, withLink } from '../../src/testing/kit.ts';
import type { ExpectCaptureOptions, TestFunction } from '../../src/testing/kit.ts';
import { errorOf } from './rejected.ts';

const run = (test: TestFunction): Promise<void> => test.call(undefined, undefined);

describe('testing: golden captures', () => {
  const dir = mkdtempSync(join(tmpdir(), 'tapnic-golden-'));
  const file = join(dir, 'echo.pcap');
  after(() => rmSync(dir, { recursive: true }));

  /** Two connections and a ping; ports, ISNs, timestamps and ids depend on the seed. */
  function conversation(
    seed: number,
    text: string,
    options: ExpectCaptureOptions,
    path: string | URL = file,
  ) {
    return run(
      withLink({ seed, keepCapture: false }, async ({ client, server }) => {
        server.createServer((socket) => socket.pipe(socket)).listen(7);
        for (const one of [text, 'again']) {
          const socket = await client.connect(7, '192.0.2.2');
          socket.end(one);
          socket.resume();
          await once(socket, 'close');
        }
        client.createSocket('udp4').send('x', 9, '192.0.2.2');
        await expectCapture(client, path, options);
      }),
    );
  }

  it('are written with update, and are equal in runs with other numbers', async () => {
    const missing = await errorOf(conversation(1, 'hello', {}));
    expect(missing).to.be.instanceOf(TapnicError);
    expect([missing.code, missing.syscall]).to.deep.equal(['ENOENT', 'expectCapture']);
    expect(missing.message).to.include('TAPNIC_UPDATE=1');
    process.env['TAPNIC_UPDATE'] = '1';
    try {
      await conversation(1, 'hello', {});
    } finally {
      delete process.env['TAPNIC_UPDATE'];
    }
    const golden = readFileSync(file);
    await conversation(2, 'hello', {}, pathToFileURL(file));
    await conversation(3, 'hello', { update: true });
    expect(readFileSync(file)).to.not.deep.equal(golden);
    await conversation(1, 'hello', {});
  });

  it('show the first difference, and both sides', async () => {
    await conversation(1, 'hello', { update: true });
    const longer = await errorOf(conversation(1, 'hello!', {}));
    expect(longer).to.be.instanceOf(FrameMismatch);
    expect(longer.message).to.include('client: frame 4 is not that of').and.include('seq 1:7');
    expect(longer.message).to.include('TAPNIC_UPDATE=1 writes');
    const other = await errorOf(conversation(1, 'HELLO', {}));
    expect(other.message).to.include('the payload differs');
    await conversation(1, 'HELLO', { payload: false });
    const arp = await errorOf(conversation(1, 'hello', { ignore: 'none' }));
    expect(arp.message).to.include('ARP, Request');
  });

  it('name a file that is no capture', async () => {
    const bad = join(dir, 'bad.pcap');
    writeFileSync(bad, 'not a capture');
    const error = await errorOf(conversation(1, 'hello', {}, bad));
    expect([error.code, error.message.includes('bad.pcap')]).to.deep.equal(['EINVAL', true]);
    const folder = await errorOf(conversation(1, 'hello', { update: true }, dir));
    expect(folder.code).to.equal('EISDIR');
  });
});
