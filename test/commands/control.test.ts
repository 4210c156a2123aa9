/** Instances and their clients in several network namespaces; ping and fetch by a running instance. */

import { once } from 'node:events';
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { spawnSync, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { expect } from 'chai';
import { controlName } from '../../src/cli/control_path.ts';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import type { SocketLine } from '../../src/ctl/netstat_an.ts';
import { needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { sha256, sha256File, Site } from '../support/served.ts';

const BYTES = 8_000_000;

/** Serves the given file on Linux's side; /slow answers nothing, /loud has controls in its header. */
const SERVER = `
const { createReadStream, statSync } = require('node:fs');
const file = process.argv[1];
require('node:http')
  .createServer((req, res) => {
    console.log(req.socket.remoteAddress, req.url);
    if (req.url === '/slow') return req.socket.on('close', () => console.log('closed'));
    if (req.url === '/loud') return res.writeHead(200, 'O\\x9bK').end('x');
    if (req.url === '/empty') return res.end();
    if (req.url === '/short') {
      res.writeHead(200, { 'Content-Length': 1000 });
      res.write('only this');
      return setTimeout(() => res.destroy(), 100);
    }
    if (req.url !== '/file') return res.writeHead(404).end('nothing here');
    res.setHeader('Content-Length', statSync(file).size);
    createReadStream(file).pipe(res);
  })
  .listen(8080, '192.0.2.1', () => console.log('listening'));
`;

interface Ready {
  control: string;
  netnsInode: number;
  pid: number;
}

/** An instance without --control, whose socket is in a directory that several tests share. */
class Shared {
  readonly child: ChildProcess;
  readonly lines: string[] = [];
  readonly #closed: Promise<unknown[]>;

  constructor(rundir: string, ns: Netns, args: readonly string[]) {
    const env = { ...process.env, TAPNIC_RUNDIR: rundir };
    const words = [cliMain, ...args, '--json'];
    this.child = ns.spawn(process.execPath, words, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    createInterface({ input: this.child.stdout! }).on('line', (line) => this.lines.push(line));
    this.child.stderr!.resume();
    this.#closed = once(this.child, 'close');
  }

  async ready(): Promise<Ready> {
    for (let i = 0; i < 400 && this.lines.length === 0; i++) await sleep(25);
    return JSON.parse(this.lines[0] ?? 'null') as Ready;
  }

  async stop(): Promise<void> {
    this.child.kill('SIGTERM');
    expect(await this.#closed).to.deep.equal([0, null]);
    expect(this.lines.at(-1)).to.equal('{"event":"exit","leaked":{}}');
  }
}

/** A client command without --control. */
function client(rundir: string, ns: Netns, ...args: string[]): Promise<Result> {
  const env = { ...process.env, TAPNIC_RUNDIR: rundir };
  return ns.run(process.execPath, [cliMain, ...args], { env });
}

const inodeOf = (ns: Netns): number => statSync(`/run/netns/${ns.name}`).ino;

describe('commands: B5: control sockets by namespace', function () {
  needs('root', 'tap', 'netns');
  this.timeout(60_000);

  let site: Site;
  let rundir: string;
  beforeEach(() => {
    site = new Site();
    rundir = join(site.dir, 'run');
  });
  afterEach(() => site[Symbol.dispose]());

  it('instances in two unnamed places do not collide, and each command finds its own', async () => {
    using a = new Netns('a');
    using b = new Netns('b');
    using none = new Netns('c');
    const serve = ['serve', site.dir];
    const [one, two] = [new Shared(rundir, a, serve), new Shared(rundir, b, serve)];
    const [ready, other] = [await one.ready(), await two.ready()];
    for (const [ns, { control, netnsInode, pid }] of [
      [a, ready],
      [b, other],
    ] as const) {
      expect(control).to.equal(join(rundir, controlName('nic0', inodeOf(ns))));
      expect(netnsInode).to.equal(inodeOf(ns));
      const leaf = await client(rundir, ns, 'ping', '192.0.2.1', '-c', '1', '--json');
      expect(JSON.parse(leaf.stdout.split('\n')[0]!), leaf.stderr).to.include({ pid });
      expect((await client(rundir, ns, 'netstat', '-m')).status).to.equal(0);
      // From another namespace by name.
      expect((await client(rundir, none, 'netstat', '-m', '--netns', ns.name)).status).to.equal(0);
    }
    const without = await client(rundir, none, 'netstat', '-m');
    expect(without).to.include({ status: 1, stdout: '' });
    expect(without.stderr).to.match(
      /^tapnic: no running instance in this network namespace: start one with `tapnic serve DIR`/,
    );
    for (const ns of [a, b]) expect(without.stderr).to.include(`--netns ${ns.name} (`);
    await one.stop();
    await two.stop();
    expect(readdirSync(rundir)).to.deep.equal([]);
  });

  it('the namespace of the interface counts, not that of the process', async () => {
    using from = new Netns('from');
    using to = new Netns('to');
    const one = new Shared(rundir, from, ['serve', site.dir, '--netns', to.name]);
    const { control, netnsInode } = await one.ready();
    expect(netnsInode).to.equal(inodeOf(to));
    expect(control).to.equal(join(rundir, controlName('nic0', inodeOf(to))));
    for (const [ns, args, status] of [
      [to, [], 0],
      [from, ['--netns', to.name], 0],
      [from, [], 1],
      [to, ['--netns', from.name], 1],
      [to, ['--tap', 'nic0'], 0],
      [to, ['--tap', 'nic1'], 1],
    ] as const) {
      const run = await client(rundir, ns, 'netstat', '-m', ...args);
      expect(run.status, `${args.join(' ')} ${run.stderr}`).to.equal(status);
    }
    await one.stop();
  });

  it('several in one namespace are listed, and --tap picks one', async () => {
    using ns = new Netns();
    const one = new Shared(rundir, ns, ['serve', site.dir]);
    const second = '--tap em1 --host-addr 198.51.100.1/24 --host-addr6 none --addr 198.51.100.2/24';
    const two = new Shared(rundir, ns, ['serve', site.dir, ...second.split(' ')]);
    const paths = [(await two.ready()).control, (await one.ready()).control];
    for (const args of [
      ['netstat', '-m'],
      ['ping', '192.0.2.1', '-c', '1'],
      ['fetch', 'http://192.0.2.1/'],
    ]) {
      const run = await client(rundir, ns, ...args);
      expect(run, args.join(' ')).to.include({ status: 1, stdout: '' });
      expect(run.stderr).to.equal(
        `tapnic: 2 running instances, choose by --tap or --control: em1 (${paths[0]}), nic0 (${paths[1]})\n`,
      );
    }
    const picked = await client(rundir, ns, 'ping', '198.51.100.1', '-c', '1', '--tap', 'em1');
    expect(picked.status, picked.stderr).to.equal(0);
    expect((await client(rundir, ns, 'netstat', '-m', '--control', paths[0]!)).status).to.equal(0);
    await two.stop();
    expect((await client(rundir, ns, 'netstat', '-m')).status).to.equal(0);
    await one.stop();
  });

  it('a leftover file in place of a namespace is named, and so is a missing namespace', async () => {
    using ns = new Netns();
    const file = `/run/netns/${ns.name}-left`;
    writeFileSync(file, '');
    try {
      const left = await client(rundir, ns, 'netstat', '-m', '--netns', `${ns.name}-left`);
      expect(left.status).to.equal(1);
      expect(left.stderr).to.include(
        `${file}: a leftover file, not a network namespace: remove it by \`ip netns delete ${ns.name}-left\``,
      );
    } finally {
      spawnSync('rm', [file]);
    }
    const gone = await client(rundir, ns, 'netstat', '-m', '--netns', `${ns.name}-left`);
    expect(gone.stderr).to.match(/^tapnic: no network namespace \S+-left: `ip netns list`/);
  });

  it('without /proc the error says what to do', async () => {
    using ns = new Netns();
    const script = 'mount -t tmpfs none /proc && exec "$@"';
    const words = ['-m', 'sh', '-c', script, 'sh', process.execPath, cliMain, 'netstat', '-m'];
    const run = await ns.run('unshare', words, {
      env: { ...process.env, TAPNIC_RUNDIR: rundir },
    });
    expect(run.status, run.stderr).to.equal(1);
    expect(run.stderr).to.match(
      /^tapnic: \/proc\/self\/ns\/net: ENOENT: .*mount \/proc, or use --control$/m,
    );
  });
});

describe('commands: B8: ping and fetch by a running instance', function () {
  needs('root', 'tap', 'netns');
  this.timeout(60_000);

  let site: Site;
  let rundir: string;
  let ns: Netns;
  let tapnic: Shared;
  let ready: Ready;
  let log: string;
  let sum: string;
  before(async () => {
    site = new Site();
    rundir = join(site.dir, 'run');
    sum = sha256(site.file('big.bin', BYTES));
    ns = new Netns();
    tapnic = new Shared(rundir, ns, ['serve', site.dir]);
    ready = await tapnic.ready();
    const server = ns.spawn(process.execPath, ['-e', SERVER, site.path('big.bin')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    server.stdout!.on('data', (chunk: Buffer) => (log += chunk.toString()));
    await once(server.stdout!, 'data');
  });
  after(async () => {
    await tapnic.stop();
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
  });
  beforeEach(() => (log = ''));

  const run = (...args: string[]): Promise<Result> => client(rundir, ns, ...args);
  const base = 'http://192.0.2.1:8080';
  const start = (...args: string[]): ChildProcess =>
    ns.spawn(process.execPath, [cliMain, ...args], {
      env: { ...process.env, TAPNIC_RUNDIR: rundir },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  /** Sockets of the instance that a ping or a fetch uses. */
  const sockets = async (): Promise<SocketLine[]> =>
    (JSON.parse((await run('netstat', '-an', '--json')).stdout) as SocketLine[]).filter(
      ({ state }) => state !== 'LISTEN' && state !== 'TIME_WAIT',
    );
  async function until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
    for (const end = performance.now() + 30_000; !(await done()); await sleep(30))
      if (performance.now() > end) throw new Error(`not in time: ${what}`);
  }

  it('ping prints the same as with a NIC of its own, and makes none', async () => {
    const { status, stdout, stderr } = await run('ping', '192.0.2.1', '-c', '3', '-i', '0.1');
    expect(status, stderr).to.equal(0);
    expect(stdout).to.match(
      /^PING 192\.0\.2\.1 \(192\.0\.2\.1\): 56 data bytes\n(64 bytes from 192\.0\.2\.1: icmp_seq=\d ttl=64 time=[\d.]+ ms\n){3}\n--- 192\.0\.2\.1 ping statistics ---\n3 packets transmitted, 3 packets received, 0\.0% packet loss\nround-trip/,
    );
    const lines = (await run('ping', '192.0.2.77', '-c', '1', '-W', '200', '--json')).stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(lines[0]).to.include({ event: 'ready', control: ready.control, pid: ready.pid });
    expect(lines.at(-1)).to.include({ event: 'statistics', received: 0, loss_percent: 100 });
    const df = await run('ping', '192.0.2.1', '-c', '1', '-s', '1473', '-D', '-W', '200');
    expect(df).to.include({ status: 1, stderr: 'ping: sendto: Message too long\n' });
  });

  it('Ctrl-C prints the statistics of ping, and its socket is gone', async () => {
    const child = start('ping', '192.0.2.1', '-i', '0.1');
    let out = '';
    child.stdout!.on('data', (chunk: Buffer) => (out += chunk.toString()));
    await until('two replies', () => out.includes('icmp_seq=1 '));
    child.kill('SIGINT');
    expect(await once(child, 'close')).to.deep.equal([0, null]);
    expect(out).to.match(
      /packets transmitted, \d+ packets received, 0\.0% packet loss\nround-trip/,
    );
    await until('no raw socket', async () => (await sockets()).length === 0);
  });

  it('a killed client cancels its ping and its fetch', async () => {
    const pinging = start('ping', '192.0.2.77', '-i', '0.2');
    await once(pinging.stdout!, 'data');
    const fetching = start('fetch', `${base}/slow`, '-T', '60');
    await until('request', () => log.includes('/slow'));
    expect((await sockets()).map(({ foreign }) => foreign)).to.include('192.0.2.1.8080');
    pinging.kill('SIGKILL');
    fetching.kill('SIGKILL');
    await until('closed at the server', () => log.includes('closed'));
    await until('no socket', async () => (await sockets()).length === 0);
  });

  it('fetch writes the body to a file or to standard output', async () => {
    const out = site.path('out.bin');
    const file = await run('fetch', `${base}/file`, '-o', out, '--json');
    expect(file.status, file.stderr).to.equal(0);
    const [first, fetched] = file.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(first).to.include({ event: 'ready', control: ready.control, pid: ready.pid });
    expect(fetched).to.include({ event: 'fetched', status: 200, bytes: BYTES, file: out });
    expect(await sha256File(out)).to.equal(sum);
    expect(log).to.equal('192.0.2.2 /file\n');
    const piped = site.path('piped.bin');
    const command = `${process.execPath} ${cliMain} fetch ${base}/file >${piped}`;
    const env = { ...process.env, TAPNIC_RUNDIR: rundir };
    expect((await ns.run('bash', ['-c', command], { env })).status).to.equal(0);
    expect(await sha256File(piped)).to.equal(sum);
    const none = site.path('none.bin');
    expect((await run('fetch', `${base}/empty`, '-o', none)).status).to.equal(0);
    expect(statSync(none).size).to.equal(0);
  });

  for (const [what, args, stderr] of [
    ['an error status', [`${base}/nope`], /: 404 Not Found, 12 bytes in /],
    ['a body cut short', [`${base}/short`, '-o', '/dev/null'], /\/short: aborted$/],
    ['a closed port', ['http://192.0.2.1:81/'], /: connect ECONNREFUSED 192\.0\.2\.1:81$/],
    ['a server that does not answer', [`${base}/slow`, '-T', '1'], /\/slow: timed out$/],
    ['a file that cannot be written', [`${base}/file`, '-o', '/nonexistent/x'], /ENOENT/],
  ] as const)
    it(`fetch fails for ${what} with 1`, async () => {
      const { status, stderr: line } = await run('fetch', ...args);
      expect(status, line).to.equal(1);
      expect(line.trimEnd().split('\n').pop()).to.match(stderr);
    });

  it('C6: a header of the peer prints escaped', async () => {
    const { stderr } = await run('fetch', `${base}/loud`, '-o', '/dev/null');
    expect(stderr).to.match(/: 200 O\\x9bK, 1 bytes in /);
  });

  it('--new and any NIC option bring up a NIC of their own', async () => {
    const own = '--tap em1 --host-addr 198.51.100.1/24 --host-addr6 none --addr 198.51.100.2/24';
    for (const more of [[], ['--new']]) {
      const args = ['ping', '198.51.100.1', '-c', '1', '--json', ...own.split(' '), ...more];
      const { status, stdout, stderr } = await run(...args);
      expect(status, stderr).to.equal(0);
      expect(JSON.parse(stdout.split('\n')[0]!)).to.include({ tap: 'em1' });
      expect(stdout).to.include('{"event":"exit","leaked":{}}');
    }
    // The name and the namespace are taken, so a NIC of its own cannot be had.
    for (const option of [['--new'], ['--seed', '1'], ['--nic', 'tb']]) {
      const { status, stderr } = await run('ping', '192.0.2.1', '-c', '1', ...option);
      expect(status).to.equal(1);
      expect(stderr, option.join(' ')).to.match(/EADDRINUSE: an instance is running there/);
    }
  });

  it('without an instance, both bring up a NIC of their own', async () => {
    using empty = new Netns('d');
    const { status, stdout, stderr } = await client(
      rundir,
      empty,
      ...'ping 192.0.2.1 -c 1 --json'.split(' '),
    );
    expect(status, stderr).to.equal(0);
    expect(stdout).to.match(/"created":true/);
    expect(stdout).to.include('{"event":"exit","leaked":{}}');
    expect(existsSync(join(rundir, controlName('nic0', inodeOf(empty))))).to.equal(false);
  });

  it('a ping and a fetch under way end in order when the instance stops', async () => {
    using other = new Netns('e');
    const one = new Shared(rundir, other, ['serve', site.dir]);
    await one.ready();
    const env = { ...process.env, TAPNIC_RUNDIR: rundir };
    const begin = (...args: string[]): ChildProcess =>
      other.spawn(process.execPath, [cliMain, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const silent = other.spawn('nc', ['-l', '-k', '192.0.2.1', '8081'], { stdio: 'ignore' });
    const pinging = begin('ping', '192.0.2.1', '-i', '0.1');
    let out = '';
    pinging.stdout!.on('data', (chunk: Buffer) => (out += chunk.toString()));
    await until('a reply', () => out.includes('icmp_seq=1 '));
    const fetching = begin('fetch', 'http://192.0.2.1:8081/');
    // A fetch that finds no instance any more brings up its own NIC.
    await until('the connection', () =>
      other.exec('ss', ['-Htn', 'state', 'established']).includes('192.0.2.1:8081'),
    );
    const closed = [once(pinging, 'close'), once(fetching, 'close')];
    await one.stop();
    expect(await Promise.all(closed)).to.deep.equal([
      [0, null],
      [1, null],
    ]);
    expect(out).to.match(/packets received, /);
    silent.kill('SIGKILL');
  });

  it('C6: limits of control clients are in the reasons of netstat -s', async () => {
    const { reasons } = JSON.parse((await run('netstat', '-s', '--json')).stdout) as NetstatS;
    expect(
      reasons.filter(({ layer }) => layer === 'control').map(({ reason }) => reason),
    ).to.deep.equal([
      'too_many_clients',
      'idle_client',
      'long_request',
      'unread_answers',
      'too_many_streams',
      'line_to_slow_client',
    ]);
  });
});
