/**
 * `tapnic capture --keylog`: curl and openssl s_server talk TLS through a router, and tshark decrypts the captured
 * files without a key file.
 */

import { type ChildProcess, execFileSync } from 'node:child_process';
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import type { Netns } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { FAR, routed } from '../support/routed.ts';
import { decryptedRequests, selfSigned } from '../support/tls.ts';

/** A running `tapnic capture`. */
interface Client {
  readonly child: ChildProcess;
  readonly said: () => string;
  readonly ended: Promise<string>;
}

describe('netns: TLS keys in captures', function () {
  needs('root', 'tap', 'netns', 'curl', 'openssl', 'tshark');
  this.timeout(120_000);
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-keys-'))));
  afterEach(() => rmSync(dir, { recursive: true }));

  async function capture(ns: Netns, control: string, ...args: string[]): Promise<Client> {
    const child = ns.spawn(process.execPath, [cliMain, 'capture', ...args, '--control', control], {
      cwd: dir,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    const ended = new Promise<string>((resolve) => child.once('close', () => resolve(stderr)));
    while (!stderr.includes('until Ctrl-C') && child.exitCode === null) await sleep(20);
    return { child, said: () => stderr, ended };
  }

  const stop = async ({ child, ended }: Client): Promise<string> => {
    child.kill('SIGINT');
    const stderr = await ended;
    expect(child.exitCode, stderr).to.equal(0);
    return stderr;
  };

  it('tshark decrypts the one file, each of a rotation has the keys; wrong key logs are refused', async () => {
    selfSigned(dir);
    await routed(['--add-nic', 'nic1'], async ({ a, b, tapnic }) => {
      const s_server = [
        's_server',
        '-accept',
        '443',
        '-www',
        '-quiet',
        '-key',
        'key',
        '-cert',
        'cert',
      ];
      const server = b.spawn('openssl', s_server, { cwd: dir, stdio: 'ignore' });
      const env = { ...process.env, SSLKEYLOGFILE: join(dir, 'keys') };
      const get = async (path: string, ...more: string[]): Promise<void> => {
        const args = ['-sSk', '-m', '30', ...more, `https://${FAR}/${path}`];
        const curl = await a.run('curl', args, { env });
        expect(curl.stdout, curl.stderr).to.include('Ciphers supported');
      };
      try {
        while (!b.exec('ss', ['-Htln']).includes(':443 ')) await sleep(50);
        const control = tapnic.control;
        const one = await capture(a, control, 'wire,ip', '-w', 'one.pcapng', '--keylog', 'keys');
        expect(one.said()).to.match(/^capture: keys: waiting for this key log\n/);
        await get('first');
        appendFileSync(join(dir, 'keys'), '# a comment\nno key\n');
        // Longer than packets wait for keys.
        await sleep(800);
        truncateSync(join(dir, 'keys'));
        await get('second', '--tls-max', '1.2');
        expect(await stop(one)).to.match(/\n6 TLS keys \(1 other line left out\)\n/);
        expect(new Set(decryptedRequests(join(dir, 'one.pcapng')))).to.deep.equal(
          new Set(['/first', '/second']),
        );

        // Keys that are there before, in each file of a rotation.
        const args = ['-C', '0.01', '-w', 'ring.pcapng', '--keylog', 'keys'];
        const ring = await capture(a, control, 'wire', ...args);
        for (const path of ['a', 'b']) await get(path);
        expect(await stop(ring)).to.match(/TLS keys/);
        const files = readdirSync(dir).filter((name) => name.startsWith('ring'));
        expect(files.length).to.be.above(2);
        const secrets = files.map((name) =>
          readFileSync(join(dir, name)).includes('TRAFFIC_SECRET_0'),
        );
        expect(secrets).to.not.include(false);

        execFileSync('mkfifo', [join(dir, 'fifo')]);
        writeFileSync(join(dir, 'mine.pcapng'), 'mine');
        const cases: [string[], RegExp][] = [
          [['-w', 'x.pcapng', '--keylog', 'fifo'], /fifo: EINVAL: a key log is a regular file/],
          [['-w', 'x.pcap', '--keylog', 'keys'], /--keylog: a \.pcap file has no keys/],
          [['-w', 'mine.pcapng', '--keylog', 'mine.pcapng'], /the capture would overwrite it/],
        ];
        for (const [words, text] of cases) {
          const { ended } = await capture(a, control, 'wire', ...words);
          const stderr = await ended;
          expect(stderr, words.join(' ')).to.match(text);
          expect(stderr.match(/\n/g), stderr).to.have.lengthOf(1);
        }
        expect(readFileSync(join(dir, 'mine.pcapng'), 'utf8')).to.equal('mine');
      } finally {
        server.kill();
      }
    });
  });
});
