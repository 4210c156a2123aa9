/** A program of ours loads the shared object as packetdrill does, against `tapnic packetdrill`. */

import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import { cliMain, packageRoot } from '../support/root.ts';

const root = packageRoot();
const object = join(root, 'build/packetdrill/tapnic_packetdrill.so');
const run = promisify(execFile);

interface Done {
  status: number;
  out: string;
  err: string;
}

const missing = 'tapnic: missing packet:';

/** Runs `tapnic packetdrill ARGS...` to its end, for 30 s at most. */
async function tapnic(...args: string[]): Promise<Done> {
  const child = spawn(process.execPath, [cliMain, 'packetdrill', ...args], { timeout: 30_000 });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk) => (out += String(chunk)));
  child.stderr.on('data', (chunk) => (err += String(chunk)));
  const [code] = (await once(child, 'close')) as [number | null];
  return { status: code ?? -1, out, err };
}

describe("packetdrill's shared object", function () {
  this.timeout(60_000);
  needs('cc');
  let work: string;
  let driver: string;

  before(async () => {
    work = mkdtempSync(join(tmpdir(), 'tapnic-pdtest-'));
    driver = join(work, 'driver');
    execFileSync(process.execPath, [join(root, 'scripts/build-packetdrill.mjs')]);
    const flags = '-std=gnu11 -Wall -Wextra -Werror -pthread'.split(' ');
    const include = `-I${join(root, 'native-bindings/packetdrill')}`;
    const source = join(root, 'test/native/packetdrill_driver.c');
    await run('cc', [...flags, include, source, '-ldl', '-o', driver]);
  });
  after(() => rmSync(work, { recursive: true, force: true }));

  it('passes calls, packets and time to the host: handshake, data, blocking, errors, close, commands', async () => {
    const { status, out, err } = await tapnic('--json', '--', driver, object, 'mtu=1400');
    // The driver ends each of its two rounds with a packet that never comes.
    expect(err.split('\n').map((line) => line.slice(0, 23))).to.eql([missing, missing, '']);
    expect(status).to.equal(0);
    expect(JSON.parse(out.trim())).to.deep.equal({ event: 'exit', leaked: {}, scripts: 2 });
  });

  it('reports what fails, and exits with the status of the program', async () => {
    // The driver expects an MTU of 1400, once for each of its two rounds.
    const wrong = await tapnic('--', driver, object);
    expect(wrong.status).to.equal(1);
    expect(wrong.err.match(/mtu 1400/g)).to.have.length(2);
    const flags = await tapnic('--', driver, object, 'speed=9');
    expect(flags.err).to.match(
      /--so_flags: speed=9: mtu=BYTES, addr=ADDRESS, addr6=ADDRESS or socket=PATH/,
    );
    expect(flags.status).to.equal(1);
    const none = await tapnic('--', join(work, 'nothing'));
    expect(none.err).to.match(/ENOENT/);
    expect((await tapnic('--addr', 'x')).status).to.equal(2);
    expect((await tapnic('--addr6', '1.2.3.4')).status).to.equal(2);
    expect((await tapnic('--mtu', '5')).status).to.equal(2);
  });

  it('reports calls that would wait and missing packets, and leaves no descriptor open', async () => {
    const { status, err } = await tapnic('--', driver, object, 'mtu=1400', 'wrong');
    expect(err).to.not.match(/driver\.c/);
    expect(err).to.match(/tapnic: read or recv would wait, and the script does not mark it/);
    expect(err).to.match(/tapnic: poll or epoll_wait would wait/);
    expect(err).to.match(/tapnic: missing packet: the script expects a packet here/);
    expect(status).to.equal(0);
  });

  it('scripts/build-packetdrill.mjs accepts --force and refuses other arguments', async () => {
    const build = join(root, 'scripts/build-packetdrill.mjs');
    const { stdout } = await run(process.execPath, [build, '--force']);
    expect(stdout).to.match(/tapnic_packetdrill\.so/);
    await run(process.execPath, [build, '--fast']).then(
      () => expect.fail('accepted'),
      (e: { code: number; stderr: string }) => {
        expect(e.code).to.equal(2);
        expect(e.stderr).to.match(/unknown option --fast; known: --force/);
      },
    );
  });

  it('cleans up after a program that is killed in the middle of a script', async () => {
    const script = `timeout -s KILL 0.15 ${driver} ${object}; ${driver} ${object} mtu=1400`;
    const { status, out, err } = await tapnic('--json', '--', 'sh', '-c', script);
    expect(status, err).to.equal(0);
    expect(JSON.parse(out.trim().split('\n').at(-1)!)).to.have.deep.property('leaked', {});
  });

  describe('and its process, given bad input', () => {
    let child: ReturnType<typeof spawn>;
    let path: string;

    beforeEach(async () => {
      path = join(work, 'sock');
      child = spawn(process.execPath, [cliMain, 'packetdrill', '--json', '--socket', path], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [line] = (await once(child.stdout!, 'data')) as [Buffer];
      expect(JSON.parse(String(line))).to.include({ event: 'ready', socket: path, pid: child.pid });
    });
    afterEach(async () => {
      child.kill('SIGTERM');
      const [code] = (await once(child, 'close')) as [number | null];
      expect(code).to.equal(0);
    });

    /** A frame with a header of 40 bytes, then the payload. */
    const frame = (op: number, a: number, payload = '', size?: number): Buffer => {
      const bytes = Buffer.alloc(40 + payload.length);
      bytes.writeUInt32LE(size ?? bytes.length, 0);
      bytes.writeUInt32LE(1, 4);
      bytes.writeUInt32LE(op, 8);
      bytes.writeInt32LE(-1, 12);
      bytes.writeInt32LE(a, 24);
      bytes.write(payload, 40, 'latin1');
      return bytes;
    };
    /**
     * Sends `sent` and returns the results in the replies. Ends when the other end closes or after
     * `replies` replies.
     */
    async function ask(sent: Buffer, replies: number): Promise<number[]> {
      const socket = connect(path);
      let got = Buffer.alloc(0);
      socket.on('data', (chunk) => {
        got = Buffer.concat([got, chunk]);
        let n = 0;
        for (let at = 0; at + 4 <= got.length && got.readUInt32LE(at) > 0; n++)
          at += got.readUInt32LE(at);
        if (replies > 0 && n >= replies) socket.end();
      });
      socket.write(sent);
      await once(socket, 'close');
      const results: number[] = [];
      for (let at = 0; at + 32 <= got.length; at += got.readUInt32LE(at))
        results.push(got.readInt32LE(at + 8));
      return results;
    }
    const hello = frame(1, 1);

    it('refuses invalid frames, calls before HELLO, a second script and another version', async () => {
      expect(await ask(Buffer.alloc(64), 0)).to.deep.equal([]);
      expect(await ask(Buffer.alloc(64, 0xff), 0)).to.deep.equal([]);
      expect(await ask(frame(2, 2), 0)).to.deep.equal([]);
      expect(await ask(Buffer.concat([hello, hello]), 0)).to.deep.equal([0, -16]);
      expect(await ask(frame(1, 99), 0)).to.deep.equal([-71]);
      expect(await ask(frame(19, 0, 'sysctl\0-a\0'), 0)).to.deep.equal([1]);
      // Unknown operations, bad descriptors, bad packets.
      const odd = [frame(77, 0), frame(5, 0), frame(16, 0, 'E'), frame(16, 0), frame(15, 0, 'abc')];
      expect(await ask(Buffer.concat([hello, ...odd]), 6)).to.deep.equal([0, -38, -9, 0, 0, 0]);
    });

    it('lets a script wait for the end of another, up to a time limit, and skips a waiter that has died', async () => {
      const first = connect(path);
      first.write(hello);
      await once(first, 'data');
      expect(await ask(hello, 1)).to.deep.equal([-16]);
      const dead = connect(path);
      dead.write(hello);
      const next = ask(hello, 1);
      await setTimeout(50);
      dead.destroy();
      first.destroy();
      expect(await next).to.deep.equal([0]);
    });

    it('still serves after an incomplete frame', async () => {
      await ask(Buffer.concat([hello, frame(2, 2).subarray(0, 20)]), 1);
      const env = { ...process.env, TAPNIC_PACKETDRILL: path };
      const bin = join(root, 'build/packetdrill/bin');
      const PATH = `${bin}:${process.env['PATH'] ?? ''}`;
      await run(driver, [object, 'mtu=1400'], { env: { ...env, PATH }, timeout: 20_000 });
      const shim = run(join(bin, 'sysctl'), ['-a'], { env });
      await shim.then(
        () => expect.fail('no script runs'),
        (e: { code: number; stderr: string }) => {
          expect(e.code).to.equal(1);
          expect(e.stderr).to.equal('sysctl: no script runs\n');
        },
      );
    });
  });
});

/** Path of packetdrill, set by the user. Not required, because no distribution packages it. */
const packetdrill = process.env['PACKETDRILL'] ?? '';

if (packetdrill !== '')
  describe('packetdrill itself (PACKETDRILL)', function () {
    this.timeout(60_000);
    before(() => execFileSync(process.execPath, [join(root, 'scripts/build-packetdrill.mjs')]));
    const folder = join(root, 'test/packetdrill');
    for (const name of readdirSync(folder).filter((file) => file.endsWith('.pkt')))
      it(name, async () => {
        const { status, err } = await tapnic(
          '--',
          packetdrill,
          `--so_filename=${object}`,
          '--ip_version=ipv4',
          '--local_ip=192.168.0.1',
          '--strict_segments',
          join(folder, name),
        );
        expect(status, err).to.equal(0);
      });
  });
