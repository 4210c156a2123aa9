/** The output of a running instance: a terminal or pipe that is not read must not stop it. */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ChildProcess } from 'node:child_process';
import { expect } from 'chai';
import { within } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';

/** Runs its arguments on a terminal that is never read. Prints the pid, then the status. */
const TERMINAL = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
print(pid, flush=True)
_, status = os.waitpid(pid, 0)
print('status', os.waitstatus_to_exitcode(status), flush=True)
`;
const STOP_MS = 2000 + 700;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe('commands: output that is not read', function () {
  needs('root', 'tap', 'netns', 'python3');
  this.timeout(60_000);

  let dir: string;
  let ns: Netns;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-output-'));
    ns = new Netns();
  });
  afterEach(() => {
    ns[Symbol.dispose]();
    rmSync(dir, { recursive: true, force: true });
  });

  const control = (): string => join(dir, 'control.sock');
  /** A command that prints a line each millisecond. */
  const ping = (): string[] => [
    process.execPath,
    cliMain,
    'ping',
    '--interval',
    '0.001',
    '192.0.2.1',
    '--control',
    control(),
  ];
  /** Packets that the emulated host has sent. */
  const sent = async (): Promise<number> => {
    const args = [cliMain, 'netstat', '-s', '--json', '--control', control()];
    const { status, stdout, stderr } = await ns.run(process.execPath, args, { timeoutMs: 5000 });
    expect(status, stderr).to.equal(0);
    const found = /"(?:ips_localout|ips_total)": ?(\d+)/.exec(stdout);
    return Number(found?.[1]);
  };
  /** The instance works although its output does not move. */
  const works = async (): Promise<void> => {
    await sleep(4000); // some 250 KB
    const before = await sent();
    await sleep(500);
    expect((await sent()) - before).to.be.above(50);
  };
  const statusOf = async (child: ChildProcess): Promise<number | null> =>
    within(new Promise((resolve) => child.once('exit', resolve)), STOP_MS, () => 'it did not stop');

  it('a stopped terminal stops neither the host nor its stop', async () => {
    const python = ns.spawn('python3', ['-c', TERMINAL, ...ping()], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    python.stdout!.on('data', (chunk: Buffer) => (said += chunk.toString()));
    await works();
    const pid = Number.parseInt(said, 10);
    process.kill(pid, 'SIGTERM');
    await statusOf(python);
    expect(said).to.match(/status 0\n$/);
  });

  it('a pipe without a reader stops neither the host nor its stop', async () => {
    // The shell keeps the pipe open and reads nothing.
    const child = ns.spawn(ping()[0]!, ping().slice(1), { stdio: ['ignore', 'pipe', 'inherit'] });
    await works();
    child.kill('SIGTERM');
    expect(await statusOf(child)).to.equal(0);
  });

  it('a full disk under the output is a failure at the end, not the end', async () => {
    const script = 'exec "$@" --count 300 > /dev/full';
    const { status, stderr } = await ns.run('sh', ['-c', script, 'sh', ...ping()]);
    expect(status).to.equal(1);
    expect(stderr).to.match(/^tapnic: output: .*ENOSPC.*\n$/);
  });

  it('a file gets every line', async () => {
    const out = join(dir, 'out');
    const script = 'out=$1; shift; exec "$@" --count 300 > "$out" 2>&1';
    const { status, stderr } = await ns.run('sh', ['-c', script, 'sh', out, ...ping()]);
    expect(status, stderr).to.equal(0);
    const lines = readFileSync(out, 'utf8').trimEnd().split('\n');
    expect(lines.filter((line) => line.includes('icmp_seq='))).to.have.lengthOf(300);
    expect(lines[0]).to.match(/^PING /);
    expect(lines.at(-1)).to.match(/round-trip/);
  });
});
