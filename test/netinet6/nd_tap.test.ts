/** Neighbour discovery with Linux on a TAP: collisions, states on both sides, redirects, hostile messages. */

import { once } from 'node:events';
import { expect } from 'chai';
import { ifConsole, if_setlladdr } from '../../src/net/if.ts';
import type { Llentry } from '../../src/net/if_llatbl.ts';
import { RTF_DYNAMIC } from '../../src/net/route.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6RouteAddGateway, in6Routes } from '../../src/netinet6/in6_fib.ts';
import { IN6_IFF_DUPLICATED, in6ifa_ifpwithaddr, in6Ifextra } from '../../src/netinet6/in6_var.ts';
import { nd6Table } from '../../src/netinet6/nd6.ts';
import { nd6DadWait } from '../../src/netinet6/nd6_dad.ts';
import { ND6_LLINFO_REACHABLE, V_nd6 } from '../../src/netinet6/nd6_var.ts';
import { parseIn6Zone } from '../../src/netinet6/scope6.ts';
import { inPass } from '../../src/sys/pass.ts';
import { mac } from '../support/frames.ts';
import { needs } from '../support/needs.ts';
import { Site } from '../support/served.ts';
import { tsharkFields } from '../support/tshark.ts';
import { HOST6, OUR6, Tap6 } from './tap6_rig.ts';

describe('neighbour discovery with Linux', function () {
  needs(
    'root',
    'tap',
    'netns',
    'ping',
    'tcpdump',
    'tshark',
    '/usr/lib/python3/dist-packages/scapy',
  );
  this.timeout(180_000);
  let tap: Tap6;
  let site: Site;
  const lines: string[] = [];

  const open = (dad_count: number): void => {
    tap = new Tap6('nd', dad_count);
    site = new Site();
    lines.length = 0;
    ifConsole.log = (line): void => void lines.push(line);
  };
  afterEach(() => {
    ifConsole.log = null;
    tap.close();
    site[Symbol.dispose]();
  });

  /** Adds an address and waits for the end of its detection. */
  function added(text = OUR6): Promise<string> {
    tap.add(text);
    const ia = in6ifa_ifpwithaddr(tap.nic.ifp, parseIn6(text)!)!;
    return new Promise((resolve) => nd6DadWait(ia, resolve));
  }
  const entry = (text = HOST6): Llentry | null => nd6Table(tap.nic.ifp)!.find(parseIn6(text)!);
  const neigh = (text = OUR6): string => tap.ns.exec('ip', ['-6', 'neigh', 'show', text]).trim();
  const addr6 = (): string => tap.ns.exec('ip', ['-6', 'addr', 'show', 'dev', 'tap6']);

  /** Captures ICMPv6 on the TAP around `body`; every checksum is verified. */
  async function captured(body: () => Promise<void>, fields: string[]): Promise<string[][]> {
    const file = site.path('nd.pcap');
    const child = tap.ns.spawn(
      'tcpdump',
      ['-i', 'tap6', '-n', '-U', '-w', file, '--immediate-mode', 'icmp6'],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    await once(child.stderr!, 'data');
    try {
      await body();
    } finally {
      child.kill('SIGINT');
      await once(child, 'close');
    }
    const rows = await tsharkFields(file, ['icmpv6.checksum.status', '_ws.malformed', ...fields]);
    for (const [sum, malformed] of rows) expect([sum, malformed]).to.deep.equal(['1', '']);
    return rows.map((row) => row.slice(2));
  }

  it('an address that Linux has is a duplicate; the others work', async () => {
    open(1);
    expect(await added()).to.equal('ready');
    expect(await added(HOST6)).to.equal('duplicated');
    expect(lines).to.include.members([
      `tn0: DAD detected duplicate IPv6 address ${HOST6}: NS in/out/loopback=0/1/0, NA in=1`,
      `tn0: DAD complete for ${HOST6} - duplicate found`,
    ]);
    const ia = in6ifa_ifpwithaddr(tap.nic.ifp, parseIn6(HOST6)!)!;
    expect(ia.ia6_flags).to.equal(IN6_IFF_DUPLICATED);
    expect(await tap.ping(56)).to.contain(' 0% packet loss');
  });

  it('an address that we have fails on Linux', async () => {
    open(1);
    expect(await added()).to.equal('ready');
    tap.ns.exec('ip', ['-6', 'addr', 'add', `${OUR6}/64`, 'dev', 'tap6']);
    await tap.until('dadfailed', () => /2001:db8::2.*dadfailed/.test(addr6()));
    tap.ns.exec('ip', ['-6', 'addr', 'del', `${OUR6}/64`, 'dev', 'tap6']);
    expect(await tap.ping(56)).to.contain(' 0% packet loss');
  });

  it('tshark reads our solicitation with its nonce, and an address is usable afterwards', async () => {
    open(1);
    const rows = await captured(async () => {
      expect(await added()).to.equal('ready');
    }, [
      'icmpv6.type',
      'ipv6.src',
      'ipv6.dst',
      'icmpv6.nd.ns.target_address',
      'icmpv6.opt.nonce',
      'ipv6.hlim',
    ]);
    const ours = rows.filter(
      ([type, src, , target]) => type === '135' && src === '::' && target === OUR6,
    );
    expect(ours).to.have.lengthOf(1);
    const [, , dst, , nonce, hlim] = ours[0]!;
    expect([dst, hlim]).to.deep.equal(['ff02::1:ff00:2', '255']);
    expect(nonce).to.match(/^[0-9a-f:]+$/);
    expect(await tap.ping(56)).to.contain(' 0% packet loss');
  });

  it('both sides reach REACHABLE, and we probe Linux', async () => {
    open(0);
    tap.add();
    const nd = in6Ifextra(tap.nic.ifp)!.nd_ifinfo;
    nd.reachable = nd.basereachable = 300;
    Object.assign(V_nd6(tap.machine.vnet).params, { nd6_delay: 1 });
    const rows = await captured(async () => {
      // Traffic for some seconds.
      for (let i = 0; i < 20; i++) {
        expect(await tap.ping(56)).to.contain(' 0% packet loss');
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }, ['icmpv6.type', 'eth.src', 'eth.dst', 'icmpv6.nd.ns.target_address']);
    const linux = tap.ns.exec('cat', ['/sys/class/net/tap6/address']).trim();
    const unicast = (from: (src: string) => boolean, target: string): number =>
      rows.filter(
        ([type, src, dst, to]) =>
          type === '135' && from(src!) && !dst!.startsWith('33:33') && to === target,
      ).length;
    expect(
      unicast((src) => src !== linux, HOST6),
      'our probes',
    ).to.be.above(0);
    expect(neigh()).to.contain(' lladdr ').and.not.contain('router');
    await tap.until('both reachable', async () => {
      await tap.ping(56);
      return entry()?.ln_state === ND6_LLINFO_REACHABLE && neigh().endsWith('REACHABLE');
    });
  });

  it('a neighbour that is gone is forgotten, and an entry unresolved again', async () => {
    open(0);
    tap.add();
    const other = '2001:db8::77';
    tap.ns.exec('ip', ['-6', 'addr', 'add', `${other}/64`, 'dev', 'tap6', 'nodad']);
    for (const from of [HOST6, other]) {
      const got = await tap.ns.run('ping', ['-6', '-n', '-c', '1', '-W', '10', '-I', from, OUR6]);
      expect(got.stdout).to.contain(' 0% packet loss');
    }
    Object.assign(V_nd6(tap.machine.vnet).params, { nd6_delay: 0, nd6_umaxtries: 2 });
    in6Ifextra(tap.nic.ifp)!.nd_ifinfo.retrans = 100;
    const lle = entry(other)!;
    tap.ns.exec('ip', ['-6', 'addr', 'del', `${other}/64`, 'dev', 'tap6']);
    inPass(() => nd6Table(tap.nic.ifp)!.setState(lle, 3));
    await tap.until('forgotten', () => entry(other) === null);
    expect(entry()).to.not.equal(null);
  });

  it('Linux learns a changed Ethernet address from our advertisement', async () => {
    open(0);
    tap.add();
    expect(await tap.ping(56)).to.contain(' 0% packet loss');
    inPass(if_setlladdr, tap.nic.ifp, Uint8Array.from(mac('02:00:00:00:00:99')));
    await tap.until('the new address', () => neigh().includes('02:00:00:00:00:99'));
    expect(await tap.ping(56)).to.contain(' 0% packet loss');
  });

  it('follows a redirect of Linux', async () => {
    open(0);
    tap.add();
    const far = '2001:db8:9::9';
    const { ns } = tap;
    // Linux is the router; the better one is another address of the link, which Linux plays as well.
    ns.exec('sysctl', ['-qw', 'net.ipv6.conf.all.forwarding=1']);
    ns.exec('ip', ['-6', 'neigh', 'add', 'fe80::77', 'lladdr', '02:00:00:00:00:77', 'dev', 'tap6']);
    ns.exec('ip', ['-6', 'route', 'add', '2001:db8:9::/64', 'via', 'fe80::77', 'dev', 'tap6']);
    const local = (): string | undefined =>
      /inet6 (fe80::[0-9a-f:]+)\/64 scope link(?! tentative)/.exec(addr6())?.[1];
    await tap.until('a link-local address of Linux', () => local() !== undefined);
    const gateway = parseIn6Zone(tap.machine.vnet, `${local()!}%tn0`)!;
    expect(in6RouteAddGateway(tap.machine.vnet, parseIn6('2001:db8:9::')!, 64, gateway)).to.equal(
      0,
    );
    // An echo request with the far address as source makes us send a reply by the router.
    const script = `
from scapy.all import *
p = Ether(dst='${[...tap.nic.ifp.if_lladdr].map((b) => b.toString(16).padStart(2, '0')).join(':')}')
sendp(p/IPv6(src='${far}', dst='${OUR6}')/ICMPv6EchoRequest(), iface='tap6', verbose=0)
`;
    await tap.until('a redirect', async () => {
      const { status, stderr } = await ns.run('/usr/bin/python3', ['-c', script]);
      expect(status, stderr).to.equal(0);
      await new Promise((resolve) => setTimeout(resolve, 200));
      const routes = in6Routes(tap.machine.vnet);
      return routes.some(({ rt_nhop }) => (rt_nhop.nh_flags & RTF_DYNAMIC) !== 0);
    });
    const hop =
      entry(`fe80::77`) ??
      nd6Table(tap.nic.ifp)!.find(parseIn6Zone(tap.machine.vnet, 'fe80::77%tn0')!);
    expect([...hop!.ll_addr]).to.deep.equal(mac('02:00:00:00:00:77'));
    expect(hop!.ln_router).to.equal(true);
  });

  it("survives Scapy's fuzzed messages, and answers within a second", async () => {
    open(0);
    tap.add();
    expect(await tap.ping(56)).to.contain(' 0% packet loss');
    const us = [...tap.nic.ifp.if_lladdr].map((b) => b.toString(16).padStart(2, '0')).join(':');
    const script = `
import random
from scapy.all import *
random.seed(7)
e = Ether(dst='${us}')
s = conf.L2socket(iface='tap6')
kinds = [ICMPv6ND_NS, ICMPv6ND_NA, ICMPv6ND_Redirect]
opts = [ICMPv6NDOptSrcLLAddr, ICMPv6NDOptDstLLAddr, ICMPv6NDOptRedirectedHdr, ICMPv6NDOptUnknown, ICMPv6NDOptMTU]
for i in range(3000):
    k = random.choice(kinds)
    ip = IPv6(src=random.choice(['${HOST6}', 'fe80::1', '::', str(RandIP6())]), dst=random.choice(['${OUR6}', 'ff02::1', 'ff02::1:ff00:2']), hlim=random.choice([255, 255, 255, 1]))
    m = k(tgt=random.choice(['${OUR6}', '${HOST6}', str(RandIP6())])) if random.random() < .7 else fuzz(k())
    p = ip / m
    for n in range(random.randrange(4)):
        p = p / (fuzz(random.choice(opts)()) if random.random() < .5 else random.choice(opts)())
    try: b = bytes(p)
    except Exception: continue
    s.send(bytes(e)[:12] + b'\\x86\\xdd' + b)
`;
    const { status, stderr } = await tap.ns.run('/usr/bin/python3', ['-c', script], {
      timeoutMs: 120_000,
    });
    expect(status, stderr).to.equal(0);
    // The messages may have changed what Linux's entry says; Linux answers our solicitations.
    await tap.until('an answer', async () => {
      const args = ['-6', '-n', '-c', '1', '-W', '1', OUR6];
      return (await tap.ns.run('ping', args)).stdout.includes(' 0% packet loss');
    });
    expect(nd6Table(tap.nic.ifp)!.table.size).to.be.below(3000);
  });
});
