/** TCP Fast Open with Linux's own, as server and as client. */

import { expect } from 'chai';
import { join } from 'node:path';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import { needs } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';
import { withRig } from './rig.ts';

const script = join(packageRoot(), 'test/tcpreal/fastopen.py');
const PYTHON = '/usr/bin/python3';
const ROUNDS = ['round 0', 'round 1', 'round 2'];

describe('tcpreal: Fast Open with Linux', function () {
  needs('root', 'tap', 'netns', PYTHON);
  this.timeout(60_000);

  /** The lines of the script. */
  const lines = (out: string): object[] =>
    out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
  /** The first connection requests the cookie, the others carry their data in the SYN. */
  const expected = ROUNDS.map((text, i) => ({ text, synData: i > 0 }));

  it('accepts data in the SYNs of a Linux client', async () => {
    const sysctl = { 'net.inet.tcp.fastopen.server_enable': 1 };
    await withRig({ sysctl }, async ({ ns, host }) => {
      ns.exec('sysctl', ['-qw', 'net.ipv4.tcp_fastopen=3']);
      const served = host.ask('fastOpenServe', { port: 9000, count: ROUNDS.length });
      const { status, stdout, stderr } = await ns.run(PYTHON, [
        script,
        'client',
        '192.0.2.2',
        '9000',
      ]);
      expect(status, stderr).to.equal(0);
      expect(lines(stdout)).to.eql(expected);
      expect(await served).to.deep.include({ fast: [0, 1, 1] });
    });
  });

  it('sends data in the SYN to a Linux server', async () => {
    await withRig({}, async ({ ns, host }) => {
      ns.exec('sysctl', ['-qw', 'net.ipv4.tcp_fastopen=3']);
      const server = ns.run(PYTHON, [script, 'server', '9001']);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      for (const text of ROUNDS) {
        const { answer } = await host.ask<{ answer: string }>('fastOpenSend', {
          port: 9001,
          text,
        });
        expect(answer).to.equal(text);
      }
      const { status, stdout, stderr } = await server;
      expect(status, stderr).to.equal(0);
      expect(lines(stdout).slice(1)).to.eql(expected);
      const { protocols } = await host.ask<NetstatS>('netstat');
      const tcp = protocols['tcp']!;
      expect(tcp['tcps_tfo_active']).to.equal(2);
      expect(tcp['tcps_tfo_disabled']).to.equal(0);
    });
  });
});
