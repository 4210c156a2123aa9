/** The client verifies its server: whose directory, whose process. Starts that race have one winner. */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect } from 'chai';
import { controlName, defaultControlPath, netnsInode } from '../../src/cli/control_path.ts';
import { full, needs } from '../support/needs.ts';
import { cliMain } from '../support/root.ts';

/** nobody, and another ordinary user. */
const NOBODY = 65534;
const OTHER = 64999;

/** Answers every request with a planted sysctl whose value acts on a terminal. */
const PLANT = `
const [, path, netnsInode] = process.argv;
process.umask(0);
require('node:net')
  .createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      console.log(String(chunk).trim());
      const { id, cmd } = JSON.parse(String(chunk).split('\\n')[0]);
      const data = cmd === 'info'
        ? { netnsInode: Number(netnsInode) }
        : [{ name: 'planted', value: '\\x1b[31mred', descr: '', writable: false, type: 'string' }];
      socket.write(JSON.stringify({ id, ok: true, data }) + '\\n');
    });
  })
  .listen(path, () => console.log('listening'));
`;

const asUser = (uid: number): string[] => [
  'setpriv',
  `--reuid=${uid}`,
  `--regid=${uid}`,
  '--clear-groups',
];

describe('cli: C6: the server of a client', function () {
  needs('root', 'setpriv');
  this.timeout(60_000);

  let dir: string;
  let children: ChildProcess[];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-peer-'));
    chmodSync(dir, 0o755);
    children = [];
  });
  afterEach(async () => {
    for (const child of children)
      if (child.exitCode === null && child.signalCode === null) {
        const closed = once(child, 'close');
        child.kill('SIGKILL');
        await closed;
      }
    rmSync(dir, { recursive: true, force: true });
  });

  /** Starts a listener of `uid` at `path`; what it has received comes from the function. */
  async function plant(path: string, uid: number): Promise<() => string[]> {
    const script = ['-e', PLANT, path, String(netnsInode(null))];
    const [program, ...args] = [...asUser(uid), process.execPath, ...script];
    const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    const lines: string[] = [];
    createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
    for (let i = 0; i < 200 && lines.length === 0; i++)
      await new Promise((resolve) => setTimeout(resolve, 25));
    expect(lines).to.deep.equal(['listening']);
    return () => lines.slice(1);
  }

  /** Runs a client as `uid` that finds its instance in `rundir`. */
  function client(rundir: string, args: string[], uid = 0, env: NodeJS.ProcessEnv = {}): string {
    const command = [process.execPath, cliMain, ...args];
    const [program, ...rest] = uid === 0 ? command : [...asUser(uid), ...command];
    const { status, stdout, stderr } = spawnSync(program!, rest, {
      encoding: 'utf8',
      timeout: 15_000,
      // Another user cannot write into the folder of the coverage counters, and would report that.
      env: { ...process.env, TAPNIC_RUNDIR: rundir, NODE_V8_COVERAGE: '', ...env },
    });
    expect(stdout + stderr, 'no control character').to.match(/^[\t\n -~]*$/);
    return `${status}: ${stdout}${stderr}`;
  }

  const own = (): string => controlName('nic0', netnsInode(null));

  it("root's command does not connect to what an ordinary user planted in the temporary directory", async () => {
    const tmp = join(dir, 'tmp');
    mkdirSync(tmp);
    chmodSync(tmp, 0o1777);
    const planted = join(tmp, 'tapnic-0');
    mkdirSync(planted, { mode: 0o755 });
    chownSync(planted, NOBODY, NOBODY);
    const received = await plant(join(planted, own()), NOBODY);
    const result = client('', ['sysctl', 'planted'], 0, { TMPDIR: tmp });
    expect(result).to.match(/^1: tapnic: no running instance/);
    expect(result).to.include(`not searched: ${planted}: it belongs to uid ${NOBODY}`);
    expect(received()).to.deep.equal([]);
  });

  for (const [what, make, why] of [
    ['of another user', (at: string) => chownSync(at, OTHER, OTHER), `it belongs to uid ${OTHER}`],
    ['that others may write', (at: string) => chmodSync(at, 0o777), 'other users may write it'],
    ['that its group may write', (at: string) => chmodSync(at, 0o770), 'other users may write it'],
    [
      'that is a symbolic link',
      (at: string) => {
        renameSync(at, `${at}.real`);
        symlinkSync(`${at}.real`, at);
      },
      'it is not a directory',
    ],
    [
      'whose parent others may write without the sticky bit',
      (at: string) => chmodSync(join(at, '..'), 0o777),
      'other users may write ',
    ],
  ] as const)
    it(`a directory ${what} is neither searched nor used`, async () => {
      const parent = join(dir, 'parent');
      const rundir = join(parent, 'run');
      mkdirSync(parent);
      mkdirSync(rundir, { mode: 0o700 });
      make(rundir);
      const received = await plant(join(dir, 'x.sock'), 0);
      renameSync(join(dir, 'x.sock'), join(rundir, own()));
      const result = client(rundir, ['sysctl', 'planted']);
      expect(result).to.include(`not searched: ${rundir}: ${why}`);
      expect(received()).to.deep.equal([]);
      process.env['TAPNIC_RUNDIR'] = rundir;
      try {
        expect(() => defaultControlPath('nic0', 1)).to.throw(`${rundir}: ${why}`);
      } finally {
        delete process.env['TAPNIC_RUNDIR'];
      }
    });

  it('a process of another user is refused, also with --control, before anything is sent', async () => {
    const path = join(dir, 'open', 'x.sock');
    mkdirSync(join(dir, 'open'));
    chmodSync(join(dir, 'open'), 0o777);
    const received = await plant(path, NOBODY);
    // The file belongs to root: the credentials of the process decide.
    chownSync(path, 0, 0);
    const refused = new RegExp(`^1: tapnic: ${path}: refused: a process of uid ${NOBODY} listens`);
    const result = client(dir, ['sysctl', 'a=1', '--control', path]);
    expect(result).to.match(refused);
    expect(result).to.include(`run this command as uid ${NOBODY} (sudo -u '#${NOBODY}' tapnic`);
    for (const args of [
      ['ping', '192.0.2.1', '-c', '1'],
      ['fetch', 'http://192.0.2.1/'],
    ])
      expect(client(dir, [...args, '--control', path])).to.match(refused);
    chmodSync(path, 0o666);
    expect(client(dir, ['sysctl', 'a', '--control', path], OTHER)).to.match(refused);
    expect(received()).to.deep.equal([]);
    // The same user gets its answer, with the terminal's escape sequence escaped.
    const same = ['sysctl', 'planted', '--control', path];
    expect(client(dir, same, NOBODY)).to.equal('0: planted: \\x1b[31mred\n');
    const json = client(dir, [...same, '--json'], NOBODY).slice('0: '.length);
    expect((JSON.parse(json) as [{ value: string }])[0].value).to.equal('\x1b[31mred');
  });

  it('a process of root is trusted by an ordinary user', async () => {
    const path = join(dir, 'x.sock');
    await plant(path, 0);
    expect(client(dir, ['sysctl', 'planted', '--control', path], OTHER)).to.match(/^0: planted: /);
  });
});

/** Waits for a moment, opens the control server at a path, prints how that went, and stays. */
const RACER = `
const { openControlServer } = await import(process.argv[1]);
const [path, at] = process.argv.slice(2);
while (Date.now() < Number(at));
try {
  const server = await openControlServer(path);
  server.setHandler(({ id }) => ({ id, ok: true, data: process.pid }));
  console.log('won');
} catch (e) {
  console.log(e.message);
}
process.stdin.resume().on('end', () => process.exit(0));
`;

describe('cli: C6: starts that race over a dead socket', function () {
  needs('root');
  this.timeout(120_000);

  const RACERS = 8;
  const ROUNDS = full ? 30 : 4;

  it(`${RACERS} processes at once, ${ROUNDS} times: one wins, the others get EADDRINUSE`, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-race-'));
    const path = join(dir, 'x.sock');
    const module = join(dirname(cliMain), 'control_server.js');
    try {
      for (let round = 0; round < ROUNDS; round++) {
        await deadSocket(path);
        const at = String(Date.now() + 1500);
        const children = Array.from({ length: RACERS }, () =>
          spawn(process.execPath, ['--input-type=module', '-e', RACER, module, path, at], {
            stdio: ['pipe', 'pipe', 'inherit'],
          }),
        );
        const said = await Promise.all(
          children.map(async ({ stdout }) => String((await once(stdout, 'data'))[0]).trim()),
        );
        const losers = said.filter((line) => line !== 'won');
        expect(losers, 'losers').to.have.lengthOf(RACERS - 1);
        for (const line of losers)
          expect(line).to.match(/EADDRINUSE: an instance is running there/);
        const { request } = await import('../../src/cli/control_client.ts');
        const winner = children[said.indexOf('won')]!;
        expect(await request(path, 'x', {}), 'who answers').to.equal(winner.pid);
        expect(readdirSync(dir), 'nothing is left beside it').to.deep.equal(['x.sock']);
        const closed = children.map((child) => once(child, 'close'));
        for (const child of children) child.stdin.end();
        await Promise.all(closed);
        expect(existsSync(path), 'the winner removes its socket').to.equal(false);
      }
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  /** A socket without a listener, as SIGKILL leaves it. */
  function deadSocket(path: string): Promise<void> {
    return new Promise((resolve) => {
      const server = createServer().listen(`${path}.live`, () => {
        renameSync(`${path}.live`, path);
        server.close(() => {
          expect(lstatSync(path).isSocket()).to.equal(true);
          resolve();
        });
      });
    });
  }
});
