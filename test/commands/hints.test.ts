/** The hints of commands: what to run next, in a form that works. */

import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ChildProcess } from 'node:child_process';
import { expect } from 'chai';
import { within } from '../support/instance.ts';
import { needs, skipHere } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { Site } from '../support/served.ts';

const WAIT_MS = 30_000;
const NOBODY = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];

describe('commands: hints', function () {
  needs('root', 'tap', 'netns', 'curl', 'setpriv');
  this.timeout(120_000);
  let site: Site;
  let ns: Netns;
  let run: string;
  const children: ChildProcess[] = [];
  beforeEach(() => {
    site = new Site();
    ns = new Netns('hints');
    run = mkdtempSync(join(tmpdir(), 'tapnic-run-'));
  });
  afterEach(async () => {
    for (const child of children.splice(0)) {
      const exit = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await exit;
    }
    ns[Symbol.dispose]();
    rmSync(run, { recursive: true });
    site[Symbol.dispose]();
  });

  /** Starts `serve` without --json. Resolves with its output when it contains `wanted`. */
  function serve(wanted: string, ...more: string[]): Promise<string> {
    const args = [cliMain, 'serve', site.dir, ...more];
    const env = { ...process.env, TAPNIC_RUNDIR: run };
    const child = ns.spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    children.push(child);
    let said = '';
    const there = new Promise<string>((resolve) => {
      for (const stream of [child.stdout, child.stderr])
        stream!.on('data', (chunk: Buffer) => {
          said += chunk.toString();
          if (said.includes(wanted)) resolve(said);
        });
    });
    return within(there, WAIT_MS, () => `no "${wanted}": ${said}`);
  }

  it('serve prints a command that fetches a file, also one with an unusual name', async () => {
    site.file("it's $(x) ü.bin", 3000);
    const said = await serve('fetch it: ');
    const command = /^fetch it: (.*)$/m.exec(said)![1]!;
    expect(command).to.match(/^curl -sSO http:\/\/192\.0\.2\.2\/[\w.%-]+$/);
    const fetched = await ns.run('sh', ['-c', command.replace('-sSO', '-sS')]);
    expect([fetched.status, fetched.stdout.length > 0, fetched.stderr]).to.deep.equal([
      0,
      true,
      '',
    ]);
  });

  it('serve of an empty folder prints a command that lists it', async () => {
    const said = await serve('fetch it: ', '--port', '8080');
    const command = /^fetch it: (.*)$/m.exec(said)![1]!;
    expect(command).to.equal('curl -sS http://192.0.2.2:8080/');
    expect((await ns.run('sh', ['-c', command])).status).to.equal(0);
  });

  it('commands of another user name the owner of the instance, and what to do', async function () {
    const reads = await ns.run(NOBODY[0]!, [...NOBODY.slice(1), 'test', '-r', cliMain]);
    if (reads.status !== 0) skipHere(this, 'another user cannot read this checkout');
    chmodSync(run, 0o700);
    await serve('fetch it: ');
    const env = { ...process.env, TAPNIC_RUNDIR: run };
    for (const args of [
      ['ping', '192.0.2.1'],
      ['fetch', 'http://192.0.2.1/'],
      ['netstat', '-m'],
    ]) {
      const words = [...NOBODY.slice(1), process.execPath, cliMain, ...args];
      const { status, stderr } = await ns.run(NOBODY[0]!, words, { env });
      expect([status, stderr], args[0]).to.deep.equal([
        1,
        `tapnic: ${run}: EACCES: an instance of root runs in this network namespace: run this command ` +
          `as root (sudo -u '#0' tapnic ...), or bring up an own NIC with --new\n`,
      ]);
    }
  });
});
