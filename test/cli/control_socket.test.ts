import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { loadAddon } from '../../native-bindings/index.ts';
import { CliError } from '../../src/cli/command.ts';
import { ask, findInstance, request } from '../../src/cli/control_client.ts';
import { type ControlServer, openControlServer } from '../../src/cli/control_server.ts';
import {
  checkedPath,
  controlName,
  defaultControlPath,
  netnsInode,
} from '../../src/cli/control_path.ts';
import { LineSplitter } from '../../src/cli/lines.ts';
import { okResponse, REQUEST_MAX } from '../../src/ctl/protocol.ts';

/** The message that `promise` rejects with; it must be a CliError. */
async function rejection(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (e) {
    if (e instanceof CliError) return e.message;
    throw e;
  }
  throw new Error('it did not reject');
}

/** Sends `text` unchanged; resolves with everything received until the other end closes. */
function exchange(path: string, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let got = '';
    const socket: Socket = connect(path, () => socket.end(text));
    socket.setTimeout(5000, () => reject(new Error(`open after 5 s: ${got.slice(0, 100)}`)));
    socket.on('data', (chunk) => (got += chunk.toString('utf8')));
    socket.on('error', reject);
    socket.on('close', () => resolve(got));
  });
}

describe('cli: control socket', () => {
  let dir: string;
  let path: string;
  let servers: ControlServer[];

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-ctl-'));
    path = join(dir, 'nic0.sock');
    servers = [];
    process.env['TAPNIC_RUNDIR'] = dir;
  });
  afterEach(() => {
    for (const server of servers) server.close();
    delete process.env['TAPNIC_RUNDIR'];
    rmSync(dir, { recursive: true });
  });

  /** A server that answers with the request's own arguments. */
  async function open(at = path): Promise<ControlServer> {
    const server = await openControlServer(at);
    server.setHandler((req) => okResponse(req.id, req.args));
    servers.push(server);
    return server;
  }

  it('answers requests in order, and removes the socket on close', async () => {
    const server = await open();
    expect(await request(path, 'x', { a: [1] })).to.deep.equal({ a: [1] });
    const two = await exchange(path, '{"id":1,"cmd":"x"}\n{"id":2,"cmd":"x"}\n');
    expect(
      two
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).id),
    ).to.deep.equal([1, 2]);
    expect(statSync(path).mode & 0o777).to.equal(0o600);
    server.close();
    expect(existsSync(path)).to.equal(false);
    expect(await rejection(request(path, 'x', {}))).to.match(/no instance listens there/);
  });

  it('answers a line that is not a request with an error, and keeps the connection', async () => {
    await open();
    const got = await exchange(path, 'GET / HTTP/1.1\n\n{"id":7,"cmd":"x"}\n\xff\xfe\n');
    const answers = got
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(answers.map(({ ok }) => ok)).to.deep.equal([false, false, true, false]);
    expect(answers[0].err.code).to.equal('EINVAL');
  });

  it('ends only the connection whose line is too long', async () => {
    await open();
    const got = await exchange(path, 'x'.repeat(REQUEST_MAX + 1));
    expect(JSON.parse(got).err.code).to.equal('EMSGSIZE');
    const fits = `{"id":1,"cmd":"x","args":{"a":"${'y'.repeat(REQUEST_MAX - 50)}"}}\n`;
    expect(JSON.parse(await exchange(path, fits)).ok).to.equal(true);
  });

  it('survives a client that does not read, and a handler that throws', async () => {
    const server = await open();
    let answered = 0;
    server.setHandler((req) => {
      if (req.cmd === 'bad') throw new TypeError('no such thing');
      answered++;
      return okResponse(req.id, 'z'.repeat(100_000));
    });
    const rude = connect(path);
    rude.on('error', () => undefined);
    rude.pause();
    rude.write('{"id":1,"cmd":"x"}\n'.repeat(3000));
    const bad = JSON.parse(await exchange(path, '{"id":1,"cmd":"bad"}\n'));
    expect(bad).to.deep.equal({
      id: 1,
      ok: false,
      err: { code: 'EIO', message: 'no such thing' },
    });
    // The requests that fit into the socket's buffers, and those in transit.
    expect(answered).to.be.within(1, 100);
    rude.destroy();
  });

  it('answers early clients with EAGAIN', async () => {
    servers.push(await openControlServer(path));
    expect(await rejection(request(path, 'x', {}))).to.equal('starting: try again');
  });

  it('rejects the path of a live instance and replaces the socket of a dead one', async () => {
    await open();
    expect(await rejection(openControlServer(path))).to.match(/EADDRINUSE: an instance is running/);

    // A socket without a listener, as after SIGKILL.
    const dead = join(dir, 'dead.sock');
    await new Promise<void>((resolve) => {
      const server = createServer().listen(`${dead}.live`, () => {
        // Closing unlinks the bound name.
        renameSync(`${dead}.live`, dead);
        server.close(() => resolve());
      });
    });
    expect(existsSync(dead)).to.equal(true);
    await open(dead);
    expect(await request(dead, 'x', { b: 1 })).to.deep.equal({ b: 1 });
  });

  it('listens in the current directory, even if the name looks like a port', async () => {
    const before = process.cwd();
    process.chdir(dir);
    try {
      await open('1');
      expect(await request('1', 'x', { b: 2 })).to.deep.equal({ b: 2 });
      expect(existsSync(join(dir, '1'))).to.equal(true);
    } finally {
      process.chdir(before);
    }
  });

  it('C6: ignores the lock file of a killed process, and names one that is held', async function () {
    this.timeout(20_000);
    const file = join(dir, '.nic0.sock.lock');
    writeFileSync(file, '');
    (await open()).close();
    expect(existsSync(file)).to.equal(false);
    const fd = openSync(file, 'w');
    expect(loadAddon().fileLock(fd)).to.equal(0);
    expect(await rejection(openControlServer(path))).to.equal(
      `${file}: another process has held the lock for 5 s`,
    );
    closeSync(fd);
    await open();
  });

  it('does not remove a file that is not a socket', async () => {
    writeFileSync(path, 'precious');
    expect(await rejection(openControlServer(path))).to.match(/EADDRINUSE: a file of that name/);
    expect(existsSync(path)).to.equal(true);
  });

  it('does not remove the socket of an instance that replaced it', async () => {
    const first = await open();
    rmSync(path);
    await open();
    first.close();
    expect(await request(path, 'x', {})).to.deep.equal({});
  });

  /** An instance in the network namespace with this inode. */
  async function openIn(inode: number, tap: string): Promise<string> {
    const at = join(dir, controlName(tap, inode));
    const server = await open(at);
    server.setHandler((req) =>
      okResponse(req.id, req.cmd === 'info' ? { netnsInode: inode } : req.args),
    );
    return at;
  }

  it('B5: finds the only instance of its own network namespace, or lists those there are', async () => {
    const own = netnsInode(null);
    expect(await rejection(findInstance({}))).to.match(
      /^no running instance: start one with `tapnic serve DIR`, or use --control$/,
    );
    const nic0 = await openIn(own, 'nic0');
    writeFileSync(join(dir, controlName('stale', own)), '');
    expect(await findInstance({})).to.include({ path: nic0 });
    // An instance in another namespace is not one of ours.
    const other = await openIn(own + 1, 'nic9');
    expect(await findInstance({})).to.include({ path: nic0 });
    expect(await rejection(findInstance({ tap: 'nic9' }))).to.match(
      /^no running instance nic9 in this network namespace: .*there is --control \S*nic9\.sock/,
    );
    expect(await ask({ control: other }, 'x', { c: 1 })).to.deep.equal({ c: 1 });

    const em1 = await openIn(own, 'em1');
    expect(await rejection(findInstance({}))).to.equal(
      `2 running instances, choose by --tap or --control: em1 (${em1}), nic0 (${nic0})`,
    );
    expect(await findInstance({ tap: 'nic0' })).to.include({ path: nic0 });
    expect(await ask({ tap: 'em1' }, 'x', { c: 1 })).to.deep.equal({ c: 1 });
    expect(await rejection(findInstance({ tap: 'em2' }))).to.match(/^no running instance em2 /);
    expect(await rejection(findInstance({ netns: 'tn-nonesuch' }))).to.match(
      /^no network namespace tn-nonesuch: `ip netns list` shows/,
    );
    for (const netns of ['', '.', '..', 'a/b', 'a\0b'])
      expect(await rejection(findInstance({ netns })), netns).to.match(/^--netns: .*not a name/);
  });

  it('B5: does not believe a socket whose instance is in another network namespace', async () => {
    const own = netnsInode(null);
    const server = await open(join(dir, controlName('nic0', own)));
    server.setHandler((req) => okResponse(req.id, { netnsInode: own + 1 }));
    expect(await rejection(ask({}, 'x', {}))).to.match(
      new RegExp(`the instance is in network namespace ${own + 1}, not ${own}: use --control$`),
    );
    expect(await ask({ control: server.path }, 'x', {})).to.deep.equal({ netnsInode: own + 1 });
  });

  it('B5: computes the path of a socket and limits its length', () => {
    expect(controlName('nic0', 4026531840)).to.equal('4026531840.nic0.sock');
    expect(defaultControlPath('nic0', 4026531840)).to.equal(join(dir, '4026531840.nic0.sock'));
    expect(() => checkedPath('x'.repeat(108))).to.throw(CliError, /longer than 107 bytes/);
    expect(checkedPath('x'.repeat(107))).to.have.lengthOf(107);
  });
});

describe('cli: lines', () => {
  it('splits lines independently of the chunk boundaries', () => {
    const lines = new LineSplitter(5);
    expect(lines.push(Buffer.from('ab'))).to.deep.equal([]);
    expect(lines.push(Buffer.from('c\n\nde\nf'))).to.deep.equal(['abc', '', 'de']);
    expect(lines.push(Buffer.from('\n'))).to.deep.equal(['f']);
  });

  it('accepts a line of the maximum length and rejects a longer one, complete or not', () => {
    expect(new LineSplitter(5).push(Buffer.from('12345\n'))).to.deep.equal(['12345']);
    expect(new LineSplitter(5).push(Buffer.from('123456\n'))).to.equal(null);
    expect(new LineSplitter(5).push(Buffer.from('123456'))).to.equal(null);
    const split = new LineSplitter(5);
    expect(split.push(Buffer.from('123'))).to.deep.equal([]);
    expect(split.push(Buffer.from('456'))).to.equal(null);
  });

  it('joins multibyte characters that arrive in several chunks', () => {
    const [a, b] = [Buffer.from('é\n').subarray(0, 1), Buffer.from('é\n').subarray(1)];
    const lines = new LineSplitter(5);
    lines.push(a);
    expect(lines.push(b)).to.deep.equal(['é']);
  });
});
