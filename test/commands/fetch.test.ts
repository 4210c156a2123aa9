/** `fetch` from the emulated host, with an HTTP server on the Linux side. */

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { sha256, sha256File, Site } from '../support/served.ts';
import { tsharkFields } from '../support/tshark.ts';

const BYTES = 5_000_000;

/** Serves the given file as /file, and prints the client's address and each request. */
const SERVER = `
const { createReadStream, statSync } = require('node:fs');
const file = process.argv[1];
const server = require('node:http').createServer((req, res) => {
  console.log(req.socket.remoteAddress, req.method, req.url);
  if (req.url === '/moved') return res.writeHead(302, { Location: '/file' }).end();
  if (req.url === '/short') {
    res.writeHead(200, { 'Content-Length': 1000 });
    res.write('only this');
    return setTimeout(() => res.destroy(), 100);
  }
  if (req.url === '/loop') return res.writeHead(302, { Location: '/loop' }).end();
  if (req.url === '/silent') return;
  if (req.url !== '/file') return res.writeHead(404).end('nothing here');
  res.setHeader('Content-Length', statSync(file).size);
  createReadStream(file).pipe(res);
});
server.listen(8080, '0.0.0.0', () => console.log('listening'));
`;

describe('commands: fetch', function () {
  needs('root', 'tap', 'netns', 'tshark');
  this.timeout(60_000);

  let site: Site;
  let ns: Netns;
  let sum: string;
  let log = '';
  before(async () => {
    site = new Site();
    ns = new Netns();
    sum = sha256(site.file('big.bin', BYTES));
    const server = ns.spawn(process.execPath, ['-e', SERVER, site.path('big.bin')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    server.stdout!.on('data', (chunk: Buffer) => (log += chunk.toString()));
    await once(server.stdout!, 'data');
  });
  after(() => {
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
  });
  beforeEach(() => (log = ''));

  const base = 'http://192.0.2.1:8080';
  const fetch = (...args: string[]): Promise<Result> =>
    ns.run(process.execPath, [cliMain, 'fetch', '--control', site.path('c.sock'), ...args]);
  const links = (): string => ns.exec('ip', ['-br', 'link']);

  it('writes the body to a file, reports the result, and leaves nothing behind', async () => {
    const out = site.path('out.bin');
    const pcap = site.path('wire.pcap');
    const run = await fetch(`${base}/file`, '-o', out, '--json', '--capture', `wire=${pcap}`);
    expect(run.status, run.stderr).to.equal(0);
    const [ready, fetched, exit] = run.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(ready).to.include({ event: 'ready', tap: 'nic0', addr: '192.0.2.2' });
    expect(fetched).to.include({ event: 'fetched', status: 200, bytes: BYTES, file: out });
    expect(exit).to.deep.equal({ event: 'exit', leaked: {} });
    expect(run.stderr).to.match(/^http:\S+: 200 OK, 5000000 bytes in [\d.]+ s \([\d.]+ MB\/s\)$/m);
    expect(await sha256File(out)).to.equal(sum);
    // The request went over the emulated wire, not through Linux's own stack.
    expect(log).to.equal('192.0.2.2 GET /file\n');
    const asked = await tsharkFields(pcap, ['ip.src', 'tcp.payload'], 'tcp contains "GET "');
    expect(asked.map(([src]) => src)).to.deep.equal(['192.0.2.2']);
    expect(Buffer.from(asked[0]![1]!, 'hex').toString()).to.match(/^GET \/file HTTP\/1\.1\r\n/);
    expect(links()).not.to.include('nic0');
  });

  it('prints the body, and only that, on standard output', async () => {
    const file = site.path('piped.bin');
    const command = `${process.execPath} ${cliMain} fetch ${base}/moved --control ${site.path('c.sock')} >${file}`;
    const run = await ns.run('bash', ['-c', command]);
    expect(run.status, run.stderr).to.equal(0);
    expect(await sha256File(file)).to.equal(sum);
    expect(log).to.equal('192.0.2.2 GET /moved\n192.0.2.2 GET /file\n');
  });

  for (const [what, args, status, stderr] of [
    ['an error status', [`${base}/nope`], 1, /: 404 Not Found, 12 bytes in /],
    ['a body cut short', [`${base}/short`, '-o', '/dev/null'], 1, /\/short: aborted$/],
    ['a loop of redirects', [`${base}/loop`], 1, /\/loop: 302 Found, 0 bytes in /],
    [
      'a full disk',
      [`${base}/file`, '-o', '/dev/full'],
      1,
      /^tapnic: http:\S+\/file: \/dev\/full: ENOSPC: no space left on device$/,
    ],
    [
      'a directory',
      [`${base}/file`, '-o', '/'],
      1,
      /^tapnic: http:\S+\/file: \/: EISDIR: illegal operation on a directory$/,
    ],
    ['a closed port', ['http://192.0.2.1:81/'], 1, /: connect ECONNREFUSED 192\.0\.2\.1:81$/],
    ['a server that does not answer', [`${base}/silent`, '-T', '1'], 1, /\/silent: timed out$/],
    ['a file that cannot be written', [`${base}/file`, '-o', '/nonexistent/x'], 1, /ENOENT/],
    ['a host name', ['http://example.org/'], 2, /an IP address is needed/],
    [
      'JSON and the body on the same stream',
      [`${base}/file`, '--json'],
      2,
      /--json needs --output FILE$/,
    ],
  ] as const)
    it(`fails for ${what} with ${status}`, async () => {
      const begin = performance.now();
      const run = await fetch(...args);
      expect(run.status, run.stderr).to.equal(status);
      expect(run.stderr.trimEnd().split('\n').pop()).to.match(stderr);
      expect(performance.now() - begin).to.be.below(10_000);
      expect(links()).not.to.include('nic0');
    });

  it('exits with 1 on a signal while it waits for a response', async () => {
    const child = ns.spawn(
      process.execPath,
      [cliMain, 'fetch', `${base}/silent`, '--control', site.path('c.sock')],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let stderr = '';
    child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    for (let i = 0; i < 100 && !log.includes('/silent'); i++)
      await new Promise((resolve) => setTimeout(resolve, 50));
    child.kill('SIGINT');
    const [code] = (await once(child, 'close')) as [number | null];
    expect(code, stderr).to.equal(1);
    expect(stderr).to.match(/stopped by a signal/);
    expect(links()).not.to.include('nic0');
  });

  it('exits with 1 on a signal while its output is not read, through an instance', async () => {
    const control = ['--control', site.path('c.sock')];
    const serve = ns.spawn(process.execPath, [cliMain, 'serve', site.dir, '--json', ...control], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(serve.stdout!, 'data');
    const child = ns.spawn(process.execPath, [cliMain, 'fetch', `${base}/file`, ...control], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stderr = '';
    child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    for (let i = 0; i < 100 && !log.includes('/file'); i++)
      await new Promise((resolve) => setTimeout(resolve, 50));
    await new Promise((resolve) => setTimeout(resolve, 500));
    const exited = once(child, 'exit');
    child.kill('SIGINT');
    const late = setTimeout(() => child.kill('SIGKILL'), 5000);
    const [code] = (await exited) as [number | null];
    clearTimeout(late);
    expect(code, stderr).to.equal(1);
    expect(stderr).to.match(/stopped by a signal/);
    serve.kill('SIGINT');
    await once(serve, 'exit');
  });

  describe('through an instance', () => {
    let serve: ReturnType<Netns['spawn']>;
    const control = (): string[] => ['--control', site.path('c.sock')];

    beforeEach(async () => {
      serve = ns.spawn(process.execPath, [cliMain, 'serve', site.dir, '--json', ...control()], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(serve.stdout!, 'data');
    });
    afterEach(async () => {
      serve.kill('SIGINT');
      await once(serve, 'exit');
    });

    it('keeps what it received of a body cut short, and fails', async () => {
      const out = site.path('short');
      const run = await ns.run(process.execPath, [
        cliMain,
        'fetch',
        `${base}/short`,
        '-o',
        out,
        ...control(),
      ]);
      expect(run.status, run.stderr).to.equal(1);
      expect(run.stderr).to.match(/\/short: aborted$/m);
      expect(readFileSync(out, 'utf8')).to.equal('only this');
    });

    for (const [what, file, why] of [
      ['a full disk', '/dev/full', 'ENOSPC: no space left on device'],
      ['a directory', '/', 'EISDIR: illegal operation on a directory'],
      ['a missing directory', '/nonexistent/x', 'ENOENT: no such file or directory'],
    ] as const)
      it(`names the output file that it cannot write: ${what}`, async () => {
        const args = [cliMain, 'fetch', `${base}/file`, '-o', file, ...control()];
        const run = await ns.run(process.execPath, args);
        expect([run.status, run.stderr]).to.deep.equal([
          1,
          `tapnic: ${base}/file: ${file}: ${why}\n`,
        ]);
      });

    it('names a file that may not grow, and keeps what was written', async () => {
      const out = site.path('limited');
      const script = 'ulimit -f 8; exec "$@"';
      const args = [cliMain, 'fetch', `${base}/file`, '-o', out, ...control()];
      const run = await ns.run('bash', ['-c', script, 'bash', process.execPath, ...args]);
      expect([run.status, run.stderr]).to.deep.equal([
        1,
        `tapnic: ${base}/file: ${out}: EFBIG: file too large\n`,
      ]);
      const { length } = readFileSync(out);
      expect(length).to.equal(8 * 1024);
    });

    it('replaces the content of an existing file, and follows a link to it', async () => {
      const out = site.file('old.bin', BYTES + 1000) && site.path('old.bin');
      ns.exec('ln', ['-s', out, site.path('link')]);
      const args = [cliMain, 'fetch', `${base}/file`, '-o', site.path('link'), ...control()];
      const run = await ns.run(process.execPath, args);
      expect(run.status, run.stderr).to.equal(0);
      expect(await sha256File(out)).to.equal(sum);
    });

    it('a full disk under standard output is one line and status 1', async () => {
      const script = 'exec "$@" > /dev/full';
      for (const more of [control(), ['--control', site.path('d.sock'), '--new']]) {
        const place = [
          '--tap',
          'nic5',
          '--addr',
          '198.51.100.2/24',
          '--host-addr',
          '198.51.100.1/24',
        ];
        const own = more.includes('--new') ? place : [];
        const url = own.length > 0 ? 'http://198.51.100.1:8080/file' : `${base}/file`;
        const args = [cliMain, 'fetch', url, ...more, ...own];
        const run = await ns.run('sh', ['-c', script, 'sh', process.execPath, ...args]);
        expect(run.status).to.equal(1);
        const lines = run.stderr
          .trimEnd()
          .split('\n')
          .filter((line) => !line.includes('warning'));
        expect(lines).to.deep.equal(['tapnic: output: ENOSPC: no space left on device, write']);
      }
    });

    it('ends quietly with 1 when the reader of its output ends', async () => {
      const command = `${process.execPath} ${cliMain} fetch ${base}/file ${control().join(' ')} | head -c 10 | wc -c; echo \${PIPESTATUS[0]}`;
      const run = await ns.run('bash', ['-c', command]);
      expect(run.stdout.trim().split(/\s+/)).to.eql(['10', '1']);
      expect(run.stderr).to.equal('');
    });

    it('ends on a signal while it opens a FIFO without a reader', async () => {
      const fifo = site.path('fifo');
      await ns.run('mkfifo', [fifo]);
      const child = ns.spawn(
        process.execPath,
        [cliMain, 'fetch', `${base}/file`, '-o', fifo, ...control()],
        { stdio: ['ignore', 'ignore', 'inherit'] },
      );
      for (let i = 0; i < 100 && !log.includes('/file'); i++)
        await new Promise((resolve) => setTimeout(resolve, 50));
      await new Promise((resolve) => setTimeout(resolve, 500));
      const exited = once(child, 'exit');
      child.kill('SIGINT');
      const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
      const [code] = (await exited) as [number | null];
      clearTimeout(late);
      expect(code).to.equal(1);
    });
  });
});
