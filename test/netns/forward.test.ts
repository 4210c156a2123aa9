/**
 * A router between two Linux namespaces: a bridge and a veth lead from the TAP of the second NIC to
 * the other one. ping, tracepath and curl go through the stack, with NICs that need the fallbacks and with TSO frames.
 */

import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import { needs } from '../support/needs.ts';
import { FAR, routed } from '../support/routed.ts';
import { Site } from '../support/served.ts';

describe('netns: forwarding', function () {
  needs('root', 'tap', 'netns', 'curl', 'python3');
  this.timeout(120_000);

  const arms: [name: string, args: string[]][] = [
    ['tn and tn', ['--add-nic', 'nic1']],
    ['tn and tb', ['--add-nic', 'nic1,nic=tb']],
    ['tl and tp', ['--nic', 'tl', '--add-nic', 'nic1,nic=tp']],
    ['tn and tn, mode vnet', ['--mode', 'vnet', '--add-nic', 'nic1']],
  ];
  for (const [name, args] of arms)
    it(`ping and curl go through: ${name}`, async () => {
      using site = new Site();
      await routed(args, async ({ a, b, tapnic }) => {
        for (const size of [0, 56, 1472, 1473, 8000]) {
          const ping = await a.run('ping', ['-c', '2', '-i', '0.2', '-s', `${size}`, FAR]);
          expect(ping.stdout, `${size}: ${ping.stderr}`).to.match(/ 2 received/);
          expect(ping.stdout).to.match(/ ttl=63/);
        }
        const bytes = Buffer.from(
          Array.from({ length: 3_000_000 }, (_, i) => (i * 7 + (i >> 8)) & 255),
        );
        writeFileSync(site.path('file'), bytes);
        const server = b.spawn('python3', ['-m', 'http.server', '80', '-d', site.dir, '-b', FAR]);
        try {
          for (let i = 0; !b.exec('ss', ['-Htln']).includes(':80 ') && i < 200; i++)
            await sleep(50);
          const out = site.path('out');
          const curl = await a.run('curl', ['-sS', '-m', '60', '-o', out, `http://${FAR}/file`]);
          expect(curl.status, curl.stderr).to.equal(0);
          expect((await a.run('cmp', [out, site.path('file')])).status).to.equal(0);
        } finally {
          server.kill();
        }
        const ip = (await tapnic.json<NetstatS>('netstat', '-s')).protocols['ip']!;
        expect(ip['ips_forward']).to.be.at.least(100);
        expect(ip['ips_fastforward']).to.equal(ip['ips_forward']);
        const m = await tapnic.json<NetstatM>('netstat', '-m');
        expect(m.emulator.conversions).to.equal(0);
      });
    });

  it('tracepath sees the hop and the smaller MTU; a TTL of 1 ends here', async () => {
    await routed(['--add-nic', 'nic1'], async ({ a, b, tapnic }) => {
      b.exec('ip', ['link', 'set', 'far', 'mtu', '1400']);
      expect((await tapnic.command('ifconfig', 'tn1', 'mtu', '1400')).status).to.equal(0);
      const ping = await a.run('ping', ['-c', '1', '-t', '1', '-W', '10', FAR]);
      expect(ping.stdout).to.match(/From 192\.0\.2\.2 .*Time to live exceeded/);
      // Without DF the router fragments.
      const cut = await a.run('ping', ['-c', '1', '-M', 'dont', '-s', '1472', '-W', '10', FAR]);
      expect(cut.stdout).to.match(/ 1 received/);
      const big = await a.run('ping', ['-c', '1', '-M', 'do', '-s', '1472', '-W', '10', FAR]);
      expect(big.stdout + big.stderr).to.match(/From 192\.0\.2\.2 .*mtu ?= ?1400/);
      const path = await a.run('tracepath', ['-n', '-m', '4', FAR]);
      if (path.status === 0) expect(path.stdout).to.match(/1: +192\.0\.2\.2[\s\S]*pmtu 1400/);
      const none = await a.run('ping', ['-c', '1', '-W', '5', '198.51.100.99']);
      expect(none.stdout).to.match(/ 0 received/);
      const { ip, icmp } = (await tapnic.json<NetstatS>('netstat', '-s')).protocols;
      expect(ip!['ips_fragmented']).to.be.at.least(1);
      expect(ip!['ips_cantfrag']).to.be.at.least(1);
      expect((icmp!['icps_outhist'] as number[])[11]).to.be.at.least(1);
    });
  });

  it('forwards IPv6 with the same commands, and reports its groups', async () => {
    await routed(['--add-nic', 'nic1'], async ({ a, b, tapnic }) => {
      const far = '2001:db8:2::1';
      b.exec('ip', `-6 addr add ${far}/64 dev far nodad`.split(' '));
      b.exec('ip', '-6 route add 2001:db8::/64 via 2001:db8:2::2'.split(' '));
      a.exec('ip', '-6 route add 2001:db8:2::/64 via 2001:db8::2'.split(' '));
      const port = tapnic.ready.ports[0]!.if;
      const lines = [
        `ifconfig ${port} inet6 2001:db8:2::2 prefixlen 64`,
        'sysctl net.inet6.ip6.forwarding=1',
      ];
      for (const line of lines) {
        const { status, stderr } = await tapnic.command(...line.split(' '));
        expect(status, `${line}: ${stderr}`).to.equal(0);
      }
      let out = '';
      // Duplicate address detection ends first.
      for (let i = 0; i < 20 && !/ 2 received/.test(out); i++)
        out = (await a.run('ping', ['-6', '-n', '-c', '2', '-i', '0.2', '-W', '1', far])).stdout;
      expect(out).to.match(/ 2 received/);
      expect(out).to.match(/ ttl=63/);
      b.exec('ip', ['link', 'set', 'far', 'mtu', '1400']);
      expect((await tapnic.command('ifconfig', port, 'mtu', '1400')).status).to.equal(0);
      const path = await a.run('tracepath', ['-6', '-n', '-m', '4', far]);
      if (path.status === 0)
        expect(path.stdout).to.match(/1: +2001:db8::2 [\s\S]*pmtu 1400\n[\s\S]*pmtu 1400 hops 2/);
      const big = ['-6', '-n', '-c', '1', '-M', 'dont', '-s', '5000', '-W', '5', far];
      expect((await a.run('ping', big)).stdout).to.match(/ 1 received/);
      const { protocols } = await tapnic.json<NetstatS>('netstat', '-s');
      expect(protocols['ip6']!['ip6s_forward']).to.be.at.least(4);
      expect(protocols['mld']!['sndReports']).to.be.at.least(1);
      const text = await tapnic.command('netstat', '-s', '-p', 'mld');
      expect(text.stdout).to.match(/^mld:\n[\s\S]*\t[1-9]\d* listener reports? sent\n/);
    });
  });
});
