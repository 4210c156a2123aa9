/** The small services, with Linux's TCP and socat as the peer. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { chargenPattern } from '../../src/apps/inetd/inetd.ts';
import type { SocketLine } from '../../src/ctl/netstat_an.ts';
import { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { sha256, sha256File, Site } from '../support/served.ts';

const BYTES = full ? 200_000_000 : 4_000_000;
const ADDR = '192.0.2.2';

/** Runs bash in `ns`, with `$addr` set to the emulated host's address. */
const bash = (ns: Netns, script: string): Promise<Result> =>
  ns.run('bash', ['-c', `set -o pipefail; addr=${ADDR}; ${script}`], { timeoutMs: 60_000 });

describe('netns: inetd', function () {
  needs('root', 'tap', 'netns', 'socat');
  this.timeout(120_000);

  async function withInetd(
    args: string[],
    body: (tapnic: Instance) => Promise<void>,
  ): Promise<void> {
    using ns = new Netns();
    const tapnic = await Instance.start(ns, ['inetd', ...args]);
    try {
      await body(tapnic);
    } catch (e) {
      tapnic.kill('SIGKILL');
      await tapnic.exited();
      throw e;
    }
    const end = await tapnic.stop();
    expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
  }

  it('runs echo, discard, daytime and chargen', async () => {
    using site = new Site();
    const sum = sha256(site.file('in.bin', BYTES));
    await withInetd([], async ({ ns, ready }) => {
      expect(ready).to.deep.include({
        services: { echo: 7, discard: 9, daytime: 13, chargen: 19 },
      });

      const echoed = await bash(
        ns,
        `socat -t 20 - TCP:$addr:7 <${site.path('in.bin')} >${site.path('out.bin')}`,
      );
      expect(echoed.status, echoed.stderr).to.equal(0);
      expect(await sha256File(site.path('out.bin'))).to.equal(sum);

      // discard accepts everything, sends nothing, and closes when the peer has closed.
      const sunk = await bash(ns, `socat -t 20 - TCP:$addr:9 <${site.path('in.bin')} | wc -c`);
      expect(sunk).to.include({ status: 0, stdout: '0\n' });

      const before = Date.now() - 1000;
      const time = await bash(ns, 'socat -t 5 - TCP:$addr:13 </dev/null');
      expect(time.stdout).to.match(/^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\r\n$/);
      // date(1) parses the time.
      const said =
        1000 *
        Number(execFileSync('date', ['-d', time.stdout.trim(), '+%s'], { encoding: 'utf8' }));
      expect(said).to.be.within(before, Date.now());

      const turns = 300;
      const want = chargenPattern();
      const n = turns * want.length + 100;
      const got = await bash(
        ns,
        `socat -u TCP:$addr:19 - 2>/dev/null | head -c ${n} >${site.path('chars')}; true`,
      );
      expect(got.status, got.stderr).to.equal(0);
      const chars = readFileSync(site.path('chars'));
      expect(chars).to.have.lengthOf(n);
      for (let at = 0; at < n; at += want.length) {
        const piece = chars.subarray(at, at + want.length);
        expect(piece.equals(want.subarray(0, piece.length)), `from byte ${at}`).to.equal(true);
      }
    });
  });

  it('echoes to fifty clients at once, to each its own data', async () => {
    await withInetd(['--services', 'echo'], async (tapnic) => {
      const { ns } = tapnic;
      const one = (i: number): Promise<Result> =>
        bash(
          ns,
          `head -c 100000 < <(yes 'client ${i}') | tee >(sha256sum >&2) | socat -t 20 - TCP:$addr:7 | sha256sum`,
        );
      for (const { status, stdout, stderr } of await Promise.all(
        Array.from({ length: 50 }, (_, i) => one(i)),
      )) {
        expect(status, stderr).to.equal(0);
        expect(stdout).to.equal(stderr);
      }
      // A service that was not requested is not running.
      const refused = await bash(ns, 'socat - TCP:$addr:9 </dev/null');
      expect(refused.stderr).to.match(/Connection refused/);
      const lines = await tapnic.json<SocketLine[]>('netstat', '-an');
      expect(
        lines.filter(({ state }) => state === 'LISTEN').map(({ local }) => local),
      ).to.deep.equal(['*.7']);
    });
  });

  it('stops within two seconds with clients that never read and clients that never write', async () => {
    await withInetd([], async (tapnic) => {
      const { ns } = tapnic;
      const held = [7, 9, 19, 19].map((port) =>
        bash(ns, `exec 3<>/dev/tcp/$addr/${port}; sleep 0.1; kill -STOP $$`),
      );
      // The window of chargen is full, and that of the echo whose client does not read.
      const fill = bash(ns, `head -c 5000000 /dev/zero >/dev/tcp/$addr/7; true`);
      await new Promise((resolve) => setTimeout(resolve, 1500));
      const begin = performance.now();
      const end = await tapnic.stop();
      expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
      expect(performance.now() - begin).to.be.below(2500);
      const pids = execFileSync('ip', ['netns', 'pids', ns.name], { encoding: 'utf8' });
      for (const pid of pids.split('\n').filter((line) => line !== ''))
        process.kill(Number(pid), 'SIGKILL');
      await Promise.all([...held, fill]);
    });
  });

  it('refuses services that it does not have, with status 2', async () => {
    using ns = new Netns();
    const run = await ns.run(process.execPath, [cliMain, 'inetd', '--services', 'echo,time']);
    expect(run).to.deep.include({
      status: 2,
      stdout: '',
      stderr: 'tapnic: --services: time: one of echo, discard, daytime, chargen\n',
    });
  });
});
