/** TLS keys in captures of the library: tshark decrypts the one file that stack.capture() wrote. */

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createStack, type FileCapture, type Stack, TapnicError } from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { decryptedRequests, selfSigned } from '../support/tls.ts';

describe('api: TLS keys in captures', function () {
  needs('root', 'tap', 'netns', 'tshark', 'curl', 'openssl');
  this.timeout(60_000);
  let ns: Netns;
  let dir: string;
  let stack: Stack;
  before(async () => {
    ns = new Netns('keylog');
    dir = mkdtempSync(join(tmpdir(), 'tapnic-keylog-'));
    stack = await createStack({ netns: ns.name, memory: '32M', addr6: null });
  });
  after(async () => {
    expect(await stack.close()).to.deep.equal({});
    ns[Symbol.dispose]();
    rmSync(dir, { recursive: true });
  });

  it('come from keylog events, and from a file that appears later', async () => {
    const server = createServer(selfSigned(dir), (_req, res) => res.end('x'.repeat(3000)));
    stack.listen(server, { port: 443 });
    await once(server, 'listening');
    const events = stack.capture('ip', { file: join(dir, 'events.pcapng'), filter: 'tcp' });
    // Before the capture has begun.
    events.keylog('no key\n');
    const keylog = join(dir, 'keys');
    const file = stack.capture('wire', { file: join(dir, 'file.pcapng.gz'), keylog });
    const none = stack.capture('wire', { file: join(dir, 'none.pcapng') });
    await Promise.all([events, file, none].map(({ ready }) => ready));
    server.on('keylog', (line) => events.keylog(line));
    for (const path of ['one', 'two']) {
      const curl = await ns.run('curl', ['-sSk', `https://192.0.2.2/${path}`], {
        env: { ...process.env, SSLKEYLOGFILE: keylog },
      });
      expect(curl.stdout, curl.stderr).to.have.lengthOf(3000);
    }
    for (const capture of [events, file, none]) await capture.close();
    for (const name of ['events.pcapng', 'file.pcapng.gz'])
      expect(decryptedRequests(join(dir, name)), name).to.deep.equal(['/one', '/two']);
    expect(decryptedRequests(join(dir, 'none.pcapng'))).to.deep.equal([]);
    server.close();
  });

  it('are refused where no file has them', async () => {
    const key = join(dir, 'k');
    appendFileSync(key, 'x\n');
    const cases: [() => unknown, RegExp][] = [
      [() => stack.capture('wire', { file: 'a.pcap', keylog: key }), /EINVAL.*a \.pcapng file/],
      [() => stack.capture('wire', { keylog: key } as object), /EINVAL.*a \.pcapng file/],
      [() => stack.capture('wire', { file: 'a.pcapng', keylog: '' }), /EINVAL.*keylog/],
    ];
    for (const [call, text] of cases) expect(call).to.throw(TapnicError, text);
    const packets = stack.capture('wire');
    expect(() => packets.keylog('x')).to.throw(TapnicError, /EINVAL.*\.pcapng/);
    await packets.close();
    execFileSync('mkfifo', [join(dir, 'fifo')]);
    mkdirSync(join(dir, 'folder'));
    const bad: [string, string, RegExp][] = [
      ['fifo', 'b.pcapng', /^read .*fifo: EINVAL: a key log is a regular file$/],
      ['folder', 'b.pcapng', /^read .*folder: E(ISDIR|INVAL): /],
      ['x.pcapng', 'x.pcapng', /EINVAL: .*would overwrite it/],
    ];
    appendFileSync(join(dir, 'x.pcapng'), 'mine');
    for (const [keylog, name, text] of bad) {
      const capture: FileCapture = stack.capture('wire', {
        file: join(dir, name),
        keylog: join(dir, keylog),
      });
      const error = await capture.closed.catch((e: unknown) => e as Error);
      expect(error, keylog).to.be.instanceOf(TapnicError);
      expect((error as Error).message).to.match(text);
    }
    expect(readFileSync(join(dir, 'x.pcapng'), 'utf8')).to.equal('mine');
  });
});
