/** Router discovery with radvd, and under thc-ipv6's flood of advertisements. */

import { expect } from 'chai';
import { in6Ntop } from '../../src/netinet6/in6.ts';
import { IN6_IFF_DEPRECATED } from '../../src/netinet6/in6_var.ts';
import { nd6Table } from '../../src/netinet6/nd6.ts';
import { nd6Dnslist } from '../../src/netinet6/nd6_dns.ts';
import { nd6Drlist, nd6Ifinfo, nd6Prlist } from '../../src/netinet6/nd6_list.ts';
import { setTimeout as sleep } from 'node:timers/promises';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { RaTap } from './tap_ra.ts';

const P1 = '2001:db8:1::';
const P2 = '2001:db8:2::';
const prefix = (text: string, more = ''): string => `prefix ${text}/64 { ${more} };`;

describe('radvd', function () {
  needs('root', 'tap', 'netns', 'radvd', 'ping');
  this.timeout(180_000);
  let h: RaTap;
  beforeEach(() => {
    h = new RaTap();
  });
  afterEach(() => h.close());

  const ping = async (to: string): Promise<string> =>
    (await h.ns.run('ping', ['-6', '-n', '-c', '2', '-i', '0.1', '-W', '10', to])).stdout;

  it('configures address, default route, MTU, hop limit and DNS; Linux reaches the address', async () => {
    h.ns.exec('ip', ['-6', 'addr', 'add', `${P1}1/64`, 'dev', h.tap, 'nodad']);
    h.radvd(
      `AdvDefaultPreference high; AdvLinkMTU 1400; AdvCurHopLimit 70; AdvManagedFlag on; ` +
        `${prefix(P1)} ${prefix(P2, 'AdvOnLink off;')} ` +
        `RDNSS ${P1}53 { }; DNSSL lab.example example.com { };`,
    );
    h.autoconf();
    await h.until('two addresses', () => h.addresses.length === 2);
    expect(h.gateway).to.equal(h.linklocal());
    const [dr] = nd6Drlist(h.machine.vnet);
    expect(dr).to.include({ pref: 'high', managed: true, other: false });
    expect(nd6Ifinfo(h.ifp)).to.include({ linkmtu: 1400, chlim: 70 });
    expect(
      nd6Dnslist(h.ifp).map(({ addr, domain }) => (addr ? in6Ntop(addr) : domain)),
    ).to.deep.equal([`${P1}53`, 'lab.example', 'example.com']);
    const listed = nd6Prlist(h.machine.vnet).filter(
      ({ ifp, raf_auto }) => ifp === h.ifp && raf_auto,
    );
    expect(listed.map(({ onlink }) => onlink)).to.have.members([true, false]);
    for (const text of h.texts.filter((one) => one.startsWith(P1)))
      expect(await ping(text)).to.contain(' 0% packet loss');
  });

  it('whose lifetimes are short: the addresses are deprecated and removed, the router too', async () => {
    const child = h.radvd(
      `AdvDefaultLifetime 6; ${prefix(P1, 'AdvValidLifetime 12; AdvPreferredLifetime 5;')}`,
    );
    h.autoconf();
    await h.until('an address', () => h.addresses.length === 1);
    await h.until('a router', () => h.gateway !== null);
    // radvd is refreshed every 3 to 4 s; without it everything expires.
    child.kill('SIGKILL');
    await h.until('deprecated', () => (h.addresses[0]!.ia6_flags & IN6_IFF_DEPRECATED) !== 0);
    await h.until('no router', () => h.gateway === null);
    expect(h.addresses).to.have.lengthOf(1);
    await h.until('no address', () => h.addresses.length === 0);
    expect(nd6Prlist(h.machine.vnet).filter(({ ifp }) => ifp === h.ifp)).to.have.lengthOf(1);
  });

  it('on two routers: the default route changes when the preferred one stops, and back', async () => {
    using other = new Netns('ra2');
    const { ns } = h;
    ns.exec('ip', ['link', 'add', 'br0', 'type', 'bridge']);
    ns.exec('ip', [
      'link',
      'add',
      'veth0',
      'type',
      'veth',
      'peer',
      'name',
      'veth1',
      'netns',
      other.name,
    ]);
    for (const dev of [h.tap, 'veth0']) ns.exec('ip', ['link', 'set', dev, 'master', 'br0', 'up']);
    ns.exec('ip', ['link', 'set', 'br0', 'up']);
    other.exec('ip', ['link', 'set', 'veth1', 'up']);
    other.exec('sysctl', ['-q', '-w', 'net.ipv6.conf.all.forwarding=1']);
    // radvd needs link-local addresses that are not tentative.
    await sleep(3000);
    const first = h.radvd(`AdvDefaultPreference high; ${prefix(P1)}`, ns, 'br0');
    h.radvd(prefix(P2), other, 'veth1');
    h.autoconf();
    await h.until('two addresses', () => h.addresses.length === 2);
    const [one, two] = [h.linklocal(ns, 'br0'), h.linklocal(other, 'veth1')];
    await h.until('the preferred router', () => h.gateway === one);
    expect(nd6Drlist(h.machine.vnet)).to.have.lengthOf(2);
    // radvd says goodbye with lifetime 0.
    first.kill('SIGTERM');
    await h.until('the other router', () => h.gateway === two);
    h.radvd(`AdvDefaultPreference high; ${prefix(P1)}`, ns, 'br0');
    await h.until('the preferred router', () => h.gateway === one);
  });

  describe('flood_router26', function () {
    needs('atk6-flood_router26');

    // Short lifetimes; an atomic fragment header; hop-by-hop options.
    for (const mode of ['-s', '-f', '-H'])
      it(`bounds the lists, and answers within a second afterwards: ${mode}`, async () => {
        h.ns.exec('ip', ['-6', 'addr', 'add', `${P1}1/64`, 'dev', h.tap, 'nodad']);
        h.radvd(prefix(P1));
        h.autoconf();
        await h.until('an address', () => h.addresses.length === 1);
        const [own] = h.texts;
        const flood = h.ns.spawn('atk6-flood_router26', [mode, h.tap], { stdio: 'ignore' });
        await sleep(2000);
        expect(flood.exitCode).to.equal(null);
        const ended = new Promise((done) => flood.once('exit', done));
        flood.kill('SIGKILL');
        await ended;
        const answered = await h.ns.run('ping', ['-6', '-n', '-c', '1', '-W', '1', own!]);
        const { vnet } = h.machine;
        expect(nd6Drlist(vnet).length).to.be.at.most(16);
        expect(nd6Prlist(vnet).filter(({ ifp }) => ifp === h.ifp).length).to.be.at.most(17);
        expect(h.addresses.length).to.be.at.most(16);
        expect(nd6Dnslist(h.ifp).length).to.be.at.most(16);
        expect(nd6Table(h.ifp)!.table.size).to.be.at.most(16_384);
        expect(answered.stdout).to.contain(' 0% packet loss');
      });
  });
});
