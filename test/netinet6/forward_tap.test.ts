/** A router for IPv6 between two Linux namespaces, each on a TAP of its own: ping, curl, Scapy. */

import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { mbEmulator } from '../../src/kern/kern_mbuf.ts';
import { ip6stat } from '../../src/netinet6/ip6_var.ts';
import { payloadBytesRead, payloadReasons, payloadReset } from '../../src/vm/payload.ts';
import type { Netns } from '../support/netns.ts';
import { needs } from '../support/needs.ts';
import { Site } from '../support/served.ts';
import { type TapSpec, TapStack } from './tap_stack.ts';

const NEAR_US = '2001:db8:1::2';
const FAR = '2001:db8:2::1';
const FAR_US = '2001:db8:2::2';
const SCAPY = '/usr/lib/python3/dist-packages/scapy';

/** Sends probes with hop limits 1 and 2, as traceroute does, and other packets a router must judge. */
const PROBES = `
import logging; logging.getLogger('scapy').setLevel(logging.ERROR)
from scapy.all import *
conf.verb = 0
mac = sys.argv[1]
FAR, US = '${FAR}', '${NEAR_US}'
def ask(name, p):
    r = srp1(Ether(dst=mac) / p, iface='fwa6', timeout=3)
    if r is None: print(name, 'silence'); return
    i = r[IPv6]
    print(name, i.src, i.payload.type, i.payload.code)
S = '2001:db8:1::1'
ask('hop-1', IPv6(src=S, dst=FAR, hlim=1) / UDP(dport=33434))
ask('hop-2', IPv6(src=S, dst=FAR, hlim=2) / UDP(dport=33434))
ask('no-route', IPv6(src=S, dst='2600::1') / UDP(dport=9))
ask('type-0', IPv6(src=S, dst=US) / IPv6ExtHdrRouting(addresses=[FAR]) / ICMPv6EchoRequest())
`;

describe('forwarding of IPv6 between two TAPs', function () {
  needs('root', 'tap', 'netns', 'curl', 'ping', 'python3');
  this.timeout(120_000);

  async function routed(
    more: TapSpec['more'],
    body: (stack: TapStack, a: Netns, b: Netns) => Promise<void>,
  ): Promise<void> {
    const stack = new TapStack([
      { tap: 'fwa6', host: '2001:db8:1::1', us: NEAR_US, more: more ?? {} },
      { tap: 'fwb6', host: FAR, us: FAR_US, more: more ?? {} },
    ]);
    try {
      const [a, b] = stack.spaces as [Netns, Netns];
      a.exec('ip', ['-6', 'route', 'add', '2001:db8:2::/64', 'via', NEAR_US]);
      b.exec('ip', ['-6', 'route', 'add', '2001:db8:1::/64', 'via', FAR_US]);
      const dark = await a.run('ping', ['-6', '-n', '-c', '1', '-W', '1', FAR]);
      expect(dark.stdout, 'off by default').to.contain('100% packet loss');
      stack.sysctl('net.inet6.ip6.forwarding', 1);
      await body(stack, a, b);
    } finally {
      stack.close();
    }
  }

  for (const [name, more] of [
    ['tn', {}],
    ['tn, mode vnet', { mode: 'vnet' }],
    ['tb', { nic: 'tb' }],
    ['tp', { nic: 'tp' }],
  ] as const)
    it(`ping and curl -6 go through: ${name}`, async () => {
      using site = new Site();
      await routed(more, async (stack, a, b) => {
        for (const size of [0, 56, 1452, 1453, 8000]) {
          const args = ['-6', '-n', '-c', '2', '-i', '0.2', '-W', '10', '-s', `${size}`, FAR];
          const { stdout } = await a.run('ping', args);
          expect(stdout, `${size}`).to.match(/ 2 received/);
          if (size > 8) expect(stdout).to.match(/ ttl=63/);
        }
        const bytes = Buffer.from(Array.from({ length: 2_000_000 }, (_, i) => (i * 7) & 255));
        writeFileSync(site.path('file'), bytes);
        const http = ['-m', 'http.server', '80', '-d', site.dir, '-b', FAR];
        const server = b.spawn('python3', http);
        try {
          for (let i = 0; !b.exec('ss', ['-Htln']).includes(':80 ') && i < 400; i++)
            await sleep(50);
          const out = site.path('out');
          payloadReset();
          const curl = ['-6', '-g', '-sS', '-m', '60', '-o', out, `http://[${FAR}]/file`];
          const got = await a.run('curl', curl, { timeoutMs: 60_000 });
          expect(got.status, got.stderr).to.equal(0);
          expect((await a.run('cmp', [out, site.path('file')])).status).to.equal(0);
        } finally {
          server.kill();
        }
        expect(ip6stat(stack.machine.vnet).ip6s_forward).to.be.at.least(100);
        expect(mbEmulator.conversions).to.equal(0);
        payloadReasons.forEach((reason, i) => expect(payloadBytesRead(i), reason).to.equal(0));
      });
    });

  it('a hop limit ends here, a smaller MTU is reported, and type 0 is refused', async function () {
    needs(SCAPY);
    await routed({}, async (stack, a, b) => {
      const mac = Buffer.from(stack.nics[0]!.ifp.if_lladdr).toString('hex').match(/../g)!.join(':');
      const { stdout, stderr } = await a.run('/usr/bin/python3', ['-c', PROBES, mac]);
      expect(stdout.trim().split('\n'), stderr).to.deep.equal([
        `hop-1 ${NEAR_US} 3 0`,
        `hop-2 ${FAR} 1 4`,
        `no-route ${NEAR_US} 1 0`,
        `type-0 ${NEAR_US} 4 0`,
      ]);
      const one = await a.run('ping', ['-6', '-n', '-c', '1', '-t', '1', '-W', '5', FAR]);
      expect(one.stdout).to.match(/From 2001:db8:1::2 .*Hop limit/i);
      b.exec('ip', ['link', 'set', 'fwb6', 'mtu', '1400']);
      stack.setMtu(1, 1400);
      const args = ['-6', '-n', '-c', '2', '-i', '0.3', '-M', 'do', '-s', '1452', '-W', '5', FAR];
      const big = await a.run('ping', args);
      expect(big.stdout + big.stderr).to.match(/From 2001:db8:1::2 .*(mtu|MTU) ?= ?1400|mtu: 1400/);
      // Linux fragments to the MTU that it learned.
      const cut = await a.run('ping', ['-6', '-n', '-c', '2', '-s', '1452', '-W', '5', FAR]);
      expect(cut.stdout).to.match(/ [12] received/);
      const none = await a.run('ping', ['-6', '-n', '-c', '1', '-W', '8', '2001:db8:2::99']);
      expect(none.stdout).to.match(/From 2001:db8:1::2 .*(Address unreachable|unreachable)/i);
    });
  });
});
