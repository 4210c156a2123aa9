/** Address conflict detection of IPv4 (RFC 5227) with Linux as the other host. */

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { request } from '../../src/cli/control_client.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { Site, withServed } from '../support/served.ts';
import { tsharkFields } from '../support/tshark.ts';

const US = '192.0.2.2';
const ACD = ['--sysctl', 'net.link.ether.inet.acd=1'];
const CLEAN = { code: 0, leaked: {} };

/** The flags of an address, without the time that a command needs to start; null: there is no such address. */
async function flagsOf(tapnic: Instance, addr: string): Promise<string[] | null> {
  const info = await request(tapnic.control, 'ifconfig', { if: tapnic.ready.if });
  const { inet } = info as InterfaceInfo;
  const line = inet.find((l) => l.addr === addr);
  return line === undefined ? null : (line.flags ?? []);
}

async function untilFlags(tapnic: Instance, addr: string, flags: string[]): Promise<void> {
  for (let i = 0; i < 300; i++) {
    if (String(await flagsOf(tapnic, addr)) === String(flags)) return;
    await sleep(100);
  }
  expect(await flagsOf(tapnic, addr)).to.deep.equal(flags);
}

describe('netns: RFC 5227', function () {
  needs('root', 'tap', 'netns', 'curl', 'ping', 'tshark');
  this.timeout(120_000);

  it('probes, announces, serves, and shows a duplicate; an address in use is defended', async () => {
    using site = new Site();
    site.file('a.bin', 1000);
    const capture = site.path('wire.pcap');
    await withServed(site, ['--capture', `wire=${capture}`, ...ACD], async (tapnic) => {
      const { ns, ready } = tapnic;
      const get = async (): Promise<number | null> =>
        (await tapnic.curl('-4', tapnic.urlOf('a.bin'), '-o', site.path('o'))).status;
      expect(ready.addr).to.equal(US);
      expect(await flagsOf(tapnic, US)).to.deep.equal([]);
      expect(await get()).to.equal(0);
      expect((await tapnic.command('netstat', '-rn')).stdout, 'gateway').to.match(/^default +192/m);

      // Linux has this address.
      ns.exec('ip', ['addr', 'add', '192.0.2.99/24', 'dev', 'nic0']);
      await tapnic.command('ifconfig', 'tn0', 'inet', '192.0.2.99/24', 'alias');
      await untilFlags(tapnic, '192.0.2.99', ['duplicated']);
      expect((await tapnic.command('ifconfig', 'tn0')).stdout).to.match(
        /^\tinet 192\.0\.2\.99 netmask 0xffffff00 broadcast 192\.0\.2\.255 duplicated$/m,
      );
      expect(await get()).to.equal(0);

      // Linux does not have this one.
      await tapnic.command('ifconfig', 'tn0', 'inet', '192.0.2.98/24', 'alias');
      expect(await flagsOf(tapnic, '192.0.2.98')).to.deep.equal(['tentative']);
      const early = await ns.run('ping', ['-c', '1', '-W', '1', '192.0.2.98']);
      expect(early.status, 'not used yet').to.equal(1);
      await untilFlags(tapnic, '192.0.2.98', []);
      expect((await ns.run('ping', ['-c', '1', '-W', '10', '192.0.2.98'])).status).to.equal(0);

      // Linux takes our address: its ARP requests carry it.
      ns.exec('ip', ['addr', 'add', `${US}/32`, 'dev', 'nic0']);
      await ns.run('ping', ['-c', '2', '-W', '1', '-I', US, '192.0.2.77']);
      ns.exec('ip', ['addr', 'del', `${US}/32`, 'dev', 'nic0']);
      expect(await flagsOf(tapnic, US), 'kept').to.deep.equal([]);
      expect(await get()).to.equal(0);
    });
    const mine = 'arp.opcode == 1 && arp.src.hw_mac[0:1] == 02';
    const rows = await tsharkFields(
      capture,
      ['arp.src.proto_ipv4', 'arp.dst.proto_ipv4', 'arp.src.hw_mac'],
      mine,
    );
    const of = (spa: string, tpa: string): number =>
      rows.filter(([s, t]) => s === spa && t === tpa).length;
    expect(of('0.0.0.0', US), 'probes').to.equal(3);
    expect(of(US, US), 'two announcements and one defence').to.equal(3);
    expect(of('0.0.0.0', '192.0.2.99')).to.be.within(1, 3);
    expect(of('192.0.2.99', '192.0.2.99'), 'never announced').to.equal(0);
    expect(of('0.0.0.0', '192.0.2.98')).to.equal(3);
  });

  it('is ready without an address that another host has, with one warning', async () => {
    using site = new Site();
    using ns = new Netns();
    using other = new Netns('other');
    const ip = (text: string): string => ns.exec('ip', text.split(' '));
    ip('tuntap add keep0 mode tap');
    ip('link add br0 type bridge');
    ip(`link add v1 type veth peer name far netns ${other.name}`);
    for (const dev of ['keep0', 'v1']) ip(`link set ${dev} master br0`);
    for (const dev of ['keep0', 'v1', 'br0']) ip(`link set ${dev} up`);
    other.exec('ip', ['addr', 'add', `${US}/24`, 'dev', 'far']);
    other.exec('ip', ['link', 'set', 'far', 'up']);
    const args = ['serve', site.dir, '--tap', 'keep0', '--host-addr', 'none'];
    const tapnic = await Instance.start(ns, [...args, '--addr6', 'none', ...ACD]);
    expect([tapnic.ready.addr, tapnic.ready.url]).to.deep.equal([null, null]);
    expect(tapnic.stderr).to.match(/tn0: 192\.0\.2\.2 is a duplicate: another host on the link/);
    expect(await flagsOf(tapnic, US)).to.deep.equal(['duplicated']);
    await tapnic.command('ifconfig', 'tn0', 'inet', '192.0.2.3/24');
    await untilFlags(tapnic, '192.0.2.3', []);
    expect((await other.run('ping', ['-c', '1', '-W', '10', '192.0.2.3'])).status).to.equal(0);
    expect(await tapnic.stop()).to.deep.include(CLEAN);
  });
});
