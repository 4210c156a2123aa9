/** Hostile segments by Scapy, and port scans by nmap. */

import { expect } from 'chai';
import { join } from 'node:path';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import { Instance } from '../support/instance.ts';
import { full, needs, needsHere } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { packageRoot } from '../support/root.ts';

const FRAMES = full ? 50_000 : 2400;
const SEED = 20_240_607;
const ADDR = '192.0.2.2';
const script = join(packageRoot(), 'test/tcpreal/hostile.py');
const SCAPY = '/usr/bin/scapy';

describe('tcpreal: hostile segments and scans', function () {
  needs('root', 'tap', 'netns', '/usr/bin/python3');
  this.timeout(full ? 300_000 : 90_000);

  async function withEcho(body: (tapnic: Instance) => Promise<void>): Promise<void> {
    using ns = new Netns();
    const tapnic = await Instance.start(ns, ['inetd', '--services', 'echo,discard']);
    try {
      await body(tapnic);
      const answer = await ns.execAsync('bash', [
        '-c',
        `exec 3<>/dev/tcp/${ADDR}/7; echo alive >&3; head -n 1 <&3`,
      ]);
      expect(answer).to.equal('alive\n');
    } catch (e) {
      tapnic.kill('SIGKILL');
      const { signal, stderr } = await tapnic.exited();
      if (signal !== 'SIGKILL' && e instanceof Error) e.message += `; tapnic had ended: ${stderr}`;
      throw e;
    }
    const end = await tapnic.stop();
    expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
  }

  it(`${FRAMES} frames of Scapy's fuzz(): another connection still works, and nothing leaks`, async function () {
    needsHere(this, SCAPY);
    await withEcho(async (tapnic) => {
      const { tap, mac } = tapnic.ready;
      const { status, stdout, stderr } = await tapnic.ns.run(
        '/usr/bin/python3',
        [script, tap, mac, ADDR, '7', '11', String(FRAMES), String(SEED)],
        { timeoutMs: full ? 240_000 : 60_000 },
      );
      expect(status, stderr).to.equal(0);
      const { sent, echoed } = JSON.parse(stdout) as {
        sent: Record<string, number>;
        echoed: boolean;
      };
      expect(echoed, `echoed after ${stdout}`).to.equal(true);
      for (const kind of ['open', 'closed', 'ip', 'blind', 'aimed'])
        expect(sent[kind], kind).to.be.above(FRAMES / 10);
      const { reasons } = await tapnic.json<NetstatS>('netstat', '-s');
      const counted = (reason: string): number =>
        reasons.find((r) => r.layer === 'tcp' && r.reason === reason)?.count ?? 0;
      // Verify that the frames reached these checks.
      for (const reason of ['no_connection', 'bad_syn', 'out_of_window', 'challenge_ack'])
        expect(counted(reason), reason).to.be.above(0);
    });
  });

  /** nmap's state and reason for ports 1 to 12, of which 7 and 9 are open. */
  const EXACT: Record<string, { open: string; closed: string }> = {
    '-sS': { open: 'open syn-ack', closed: 'closed reset' },
    '-sT': { open: 'open syn-ack', closed: 'closed conn-refused' },
    // RFC 9293, 3.10.7.2: an ACK to a listener gets a RST, as an ACK to a closed port does.
    '-sA': { open: 'unfiltered reset', closed: 'unfiltered reset' },
    // 3.10.7.1 and 3.10.7.2: a segment without ACK, SYN and RST is dropped by a listener and gets a
    // RST from a closed port.
    '-sX': { open: 'open|filtered no-response', closed: 'closed reset' },
    '-sN': { open: 'open|filtered no-response', closed: 'closed reset' },
    '-sF': { open: 'open|filtered no-response', closed: 'closed reset' },
  };

  it(`nmap ${Object.keys(EXACT).join(' ')}: reports the right state and reason for each port`, async function () {
    needsHere(this, 'nmap');
    await withEcho(async ({ ns }) => {
      const scan = async (kind: string): Promise<void> => {
        const xml = await ns.execAsync('nmap', [
          '-n',
          '-Pn',
          '-T4',
          kind,
          '-p1-12',
          '-oX',
          '-',
          ADDR,
        ]);
        const seen = [...xml.matchAll(/portid="(\d+)"><state state="([^"]+)" reason="([^"]+)"/g)];
        const { open, closed } = EXACT[kind]!;
        expect(
          seen.map(([, port, state, why]) => `${port} ${state} ${why}`),
          kind,
        ).to.deep.equal(
          Array.from({ length: 12 }, (_, i) => `${i + 1} ${i === 6 || i === 8 ? open : closed}`),
        );
      };
      await Promise.all(Object.keys(EXACT).map(scan));
    });
  });

  it('nmap -O identifies the host as FreeBSD', async function () {
    needsHere(this, 'nmap');
    await withEcho(async ({ ns }) => {
      // nmap times its probes, and on a busy machine a round may fail; allow five rounds.
      let said = '';
      for (let round = 0; round < 5 && !/^OS details:.*FreeBSD/m.test(said); round++)
        said = await ns.execAsync('nmap', ['-n', '-Pn', '-T4', '-O', '-p1-12', ADDR]);
      expect(said).to.match(/^OS details:.*FreeBSD/m);
    });
  });
});
