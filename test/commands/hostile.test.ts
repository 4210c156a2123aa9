/** Users who stop an instance at a bad moment, or give it what it cannot use. */

import { type ChildProcess, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { expect } from 'chai';
import { Instance, within } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { Site } from '../support/served.ts';

const WAIT_MS = 30_000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what: string, done: () => boolean): Promise<void> {
  for (const end = performance.now() + WAIT_MS; !done(); await sleep(20))
    if (performance.now() > end) throw new Error(`did not happen: ${what}`);
}

/** Resolves with the status, or the signal that ended the process. */
function endOf(child: ChildProcess): Promise<number | NodeJS.Signals> {
  const end = new Promise<number | NodeJS.Signals>((resolve) =>
    child.once('exit', (code, signal) => resolve(code ?? signal!)),
  );
  return within(end, WAIT_MS, () => 'it did not end');
}

describe('commands: stop at any moment', function () {
  needs('root', 'tap', 'netns', 'curl', 'ip');
  this.timeout(120_000);
  let site: Site;
  let ns: Netns;
  beforeEach(() => {
    site = new Site();
    ns = new Netns('hostile');
  });
  afterEach(() => {
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
  });

  it('SIGHUP stops in order, as the end of a terminal does', async () => {
    site.file('big.bin', 10_000_000);
    const tapnic = await Instance.start(ns, ['serve', site.dir]);
    const curl = tapnic.curl('--limit-rate', '1M', '-o', '/dev/null', tapnic.urlOf('big.bin'));
    await sleep(500);
    tapnic.kill('SIGHUP');
    const end = await tapnic.exited();
    expect(end, end.stderr).to.deep.include({ code: 0, signal: null, leaked: {} });
    expect(existsSync(tapnic.control)).to.equal(false);
    expect(ns.exec('ip', ['-br', 'link'])).not.to.include('nic0');
    await curl;
  });

  it('a second signal removes interface, socket and namespace, too', async () => {
    const name = `${ns.name}-own`;
    const fifo = site.path('fifo');
    ns.exec('mkfifo', [fifo]);
    // A reader that reads nothing: the stop waits for the capture.
    const reader = ns.spawn('sh', ['-c', 'exec sleep 60 < "$0"', fifo], { stdio: 'ignore' });
    // More than the FIFO holds.
    site.file('a.bin', 200_000);
    // `ip netns exec` has its own mounts: a namespace that is created in it has no name outside.
    const here = ['nsenter', `--mount=/proc/${process.pid}/ns/mnt`];
    const args = ['serve', site.dir, '--netns', name, '--capture', `wire=${fifo}`];
    const tapnic = await Instance.start(ns, args, here);
    const fetched = execFileSync('ip', [
      'netns',
      'exec',
      name,
      'curl',
      '-sS',
      tapnic.urlOf('a.bin'),
    ]);
    expect(fetched).to.have.lengthOf(200_000);
    tapnic.kill('SIGINT');
    await sleep(300);
    tapnic.kill('SIGINT');
    const end = await tapnic.exited();
    reader.kill();
    expect(end, end.stderr).to.deep.include({ code: 1, signal: null, leaked: null });
    expect(existsSync(tapnic.control)).to.equal(false);
    const left = existsSync(`/run/netns/${name}`);
    if (left) execFileSync('ip', ['netns', 'delete', name]);
    expect(left, 'the namespace').to.equal(false);
  });

  it('a signal ends a command that waits for its --config file', async () => {
    const fifo = site.path('fifo');
    ns.exec('mkfifo', [fifo]);
    const args = [cliMain, 'serve', site.dir, '--config', fifo];
    const child = ns.spawn(process.execPath, args, { stdio: 'ignore' });
    const waits = (): boolean =>
      readdirSync(`/proc/${child.pid}/task`).some((task) => {
        const { stdout } = { stdout: ns.exec('cat', [`/proc/${child.pid}/task/${task}/wchan`]) };
        return /fifo|pipe_wait|wait_for_partner/.test(stdout);
      });
    await until('it opens the FIFO', waits);
    const end = endOf(child);
    child.kill('SIGINT');
    expect(await end).to.equal('SIGINT');
  });
});

describe('commands: input that cannot be used', function () {
  needs('root', 'tap', 'netns', 'ip');
  this.timeout(120_000);
  let site: Site;
  let ns: Netns;
  before(() => {
    site = new Site();
    ns = new Netns('input');
  });
  after(() => {
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
  });

  const run = (...args: string[]): Promise<Result> => ns.run(process.execPath, [cliMain, ...args]);

  async function refusal(...args: string[]): Promise<[number | null, string]> {
    const { status, stderr } = await run(...args);
    expect(stderr, 'one line').to.match(/^tapnic: [^\n]+\n$/);
    expect(ns.exec('ip', ['-br', 'link']).trim().split('\n')).to.have.lengthOf(1);
    return [status, stderr.slice('tapnic: '.length, -1)];
  }

  it('a --config file that is none, that is endless, or that is too complex', async () => {
    const config = (text: string): string => {
      const file = site.path('c.yaml');
      writeFileSync(file, text);
      return file;
    };
    const serve = (file: string): Promise<[number | null, string]> =>
      refusal('serve', site.dir, '--config', file);
    const rule = 'the name of a file is needed';
    expect(await serve('')).to.deep.equal([2, `--config: '': ${rule}`]);
    expect(await serve('/dev/zero')).to.deep.equal([2, '--config /dev/zero: longer than 1 MiB']);
    const file = config(`${'a: ['.repeat(20_000)}\n`);
    expect((await serve(file))[1]).to.match(/c\.yaml:1:\d+: nested too deeply$/);
    config('mtu: 1400\n---\nmtu: 1500\n');
    expect(await serve(file)).to.deep.equal([2, `${file}:2:1: a second document: one is needed`]);
  });

  it('an empty text: the message shows it, and what is needed', async () => {
    const name = 'white space and control characters';
    for (const [args, text] of [
      [['serve', ''], "'': the name of a directory is needed"],
      [
        ['serve', '.', '--tap', ''],
        `--tap: '': not an interface's name: 1 to 15 bytes without / : % ${name}`,
      ],
      [
        ['serve', '.', '--netns', ''],
        `--netns: '': not a namespace's name: 1 to 255 bytes without / : % ${name}`,
      ],
      [['serve', '.', '--capture', ''], "--capture: '': POINT=FILE is needed"],
      [['serve', '.', '--sysctl', ''], "--sysctl: '': NAME=VALUE is needed"],
      [['serve', '.', '--mtu', ''], "--mtu: '': a whole number from 72 to 9000 is needed"],
      [['fetch', ''], "'': not a URL, such as http://192.0.2.1/file or http://[2001:db8::1]/file"],
      [['fetch', 'http://192.0.2.1/', '-o', ''], "--output: '': the name of a file is needed"],
    ] as const)
      expect(await refusal(...args), args.join(' ')).to.deep.equal([2, text]);
  });

  it('a name with a control character is a usage error', async () => {
    for (const option of ['--tap', '--netns'])
      expect(await refusal('serve', '.', option, 'a\u001bb')).to.satisfy(
        ([status, text]: [number, string]) => status === 2 && text.startsWith(`${option}: a\\x1bb`),
      );
  });

  it('a FIFO in the folder of the namespaces does not block', async () => {
    const path = '/run/netns/fifo';
    // In a mount namespace of its own: every `ip netns` of the machine would wait for the FIFO.
    const script = 'mount -t tmpfs none /run/netns && mkfifo "$0" && exec "$@"';
    for (const args of [['serve', site.dir], ['ifconfig']]) {
      const command = [process.execPath, cliMain, ...args, '--netns', 'fifo'];
      const { status, stderr } = await ns.run('unshare', [
        '-m',
        'sh',
        '-c',
        script,
        path,
        ...command,
      ]);
      expect([status, stderr]).to.deep.equal([
        1,
        `tapnic: ${path}: a leftover file, not a network namespace: remove it by \`ip netns delete fifo\`\n`,
      ]);
    }
  });

  it('a current directory that was removed', async () => {
    const dir = site.path('gone');
    mkdirSync(dir);
    const script = 'cd "$0" && rmdir "$0" && exec "$@"';
    const args = ['-c', script, dir, process.execPath, cliMain, 'serve', '.'];
    const { status, stderr } = await ns.run('sh', args);
    expect([status, stderr]).to.deep.equal([
      1,
      'tapnic: .: ENOENT: the current directory was removed: give an absolute path\n',
    ]);
  });

  it('a limit of open files that is too low for the program itself', async () => {
    // How many files Node opens at a time depends on the load: 128 are sometimes enough.
    for (const limit of [20, 32, 64, 96]) {
      const script = `ulimit -n ${limit}; exec "$0" "$@"`;
      const args = ['-c', script, process.execPath, cliMain, 'serve', site.dir];
      const { status, stderr } = await ns.run('bash', args);
      expect([status, stderr]).to.deep.equal([
        1,
        `tapnic: EMFILE: at most ${limit} files may be open: raise the limit to 256 or more (ulimit -n)\n`,
      ]);
    }
  });

  it('a /dev/net/tun that is another file', async () => {
    const script = 'mount --bind /dev/null /dev/net/tun && exec "$0" "$@"';
    const args = ['-m', 'sh', '-c', script, process.execPath, cliMain, 'serve', site.dir];
    const { status, stderr } = await ns.run('unshare', args);
    expect([status, stderr]).to.deep.equal([
      1,
      'tapnic: TUNSETIFF nic0: ENOTTY: /dev/net/tun is not the TAP device: ' +
        'replace it (mknod /dev/net/tun c 10 200)\n',
    ]);
  });

  it('a control socket with too many clients: the next one reads why', async () => {
    const tapnic = await Instance.start(ns, ['serve', site.dir]);
    const clients: Socket[] = [];
    for (let i = 0; i < 64; i++) {
      const client = connect({ path: tapnic.control });
      clients.push(client);
      await once(client, 'connect');
    }
    const { status, stderr } = await tapnic.command('netstat', '-m');
    expect([status, stderr]).to.deep.equal([1, 'tapnic: 64 clients are connected: try again\n']);
    for (const client of clients) client.destroy();
    expect(await tapnic.stop()).to.deep.include({ code: 0, leaked: {} });
    expect(existsSync(dirname(tapnic.control)), 'the temporary directory').to.equal(false);
  });
});
