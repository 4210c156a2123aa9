/** Entries that a program sets, proxy ARP, the limit of log lines, and repeated announcements. */

import { expect } from 'chai';
import { changeArp, formatArp, gatherArp } from '../../src/ctl/arp.ts';
import { in_aifaddr, in_difaddr } from '../../src/netinet/in_ifaddr.ts';
import { arpReply, decodeFrame, expectTx } from '../support/frames.ts';
import { addr, OUR_MAC, PEER, PEER_MAC, Rig, US } from './rig.ts';

const OTHER = '192.0.2.9';
const OTHER_MAC = '02:00:00:00:00:09';

describe('if_ether: static entries', () => {
  let rig: Rig;
  beforeEach(() => (rig = new Rig()));
  afterEach(() => rig.close());
  const write = (leaf: string, value: string): void => {
    expect(rig.vnet.sysctl.write(`net.link.ether.inet.${leaf}`, value)).to.equal(0);
  };
  const change = (op: 'set' | 'delete', host: string, ether = '', words: string[] = []): void => {
    const [temp, pub, replace] = ['temp', 'pub', 'replace'].map((w) => words.includes(w));
    changeArp(rig.vnet, { op, addr: host, ether, temp: temp!, pub: pub!, replace: replace! });
  };
  const line = (host: string): string =>
    formatArp(gatherArp(rig.vnet).filter((l) => l.addr === host));

  it('sets permanent, temporary and published entries, and deletes them', () => {
    change('set', OTHER, '2:0:0:0:0:9');
    expect(line(OTHER)).to.equal(`? (${OTHER}) at ${OTHER_MAC} on tn0 permanent [ethernet]\n`);
    change('set', OTHER, OTHER_MAC, ['temp']);
    expect(line(OTHER)).to.match(/ expires in 1200 seconds \[ethernet\]$/m);
    rig.clock.advance(1300e9);
    expect(line(OTHER)).to.equal('');
    change('set', OTHER, 'auto', ['pub']);
    expect(line(OTHER)).to.equal(
      `? (${OTHER}) at ${OUR_MAC} on tn0 permanent published [ethernet]\n`,
    );
    change('delete', OTHER);
    expect(line(OTHER)).to.equal('');
  });

  it('refuses other networks, own addresses and bad addresses', () => {
    const bad: [host: string, ether: string, message: RegExp][] = [
      ['203.0.113.1', OTHER_MAC, /cannot intuit interface/],
      [US, OTHER_MAC, /is an address of tn0/],
      [OTHER, '2:0:0', /invalid Ethernet address/],
      ['x', OTHER_MAC, /not an IPv4 address/],
    ];
    for (const [host, ether, message] of bad)
      expect(() => change('set', host, ether)).to.throw(message);
    expect(() => change('delete', OTHER)).to.throw(/cannot locate/);
    expect(() => change('delete', US)).to.throw(/cannot locate/);
  });

  it('answers requests for a published address with its Ethernet address', () => {
    change('set', OTHER, OTHER_MAC);
    rig.arpAsk(OTHER);
    expectTx(rig.sent);
    change('set', OTHER, OTHER_MAC, ['pub']);
    rig.arpAsk(OTHER);
    expectTx(rig.sent, [arpReply(OTHER, OTHER_MAC)]);
  });

  it('logs one address conflict per second, and defends the address', () => {
    for (let i = 0; i < 5; i++) rig.arpAsk(US, US, '02:00:00:00:00:66');
    expect(rig.console).to.deep.equal([
      `arp: 02:00:00:00:00:66 is using my IP address ${US} on tn0!`,
    ]);
    expect(rig.sent.splice(0).length).to.equal(5);
    rig.clock.advance(1e9);
    rig.arpAsk(US, US, '02:00:00:00:00:66');
    expect(rig.console.length).to.equal(2);
    write('max_log_per_second', '-1');
    for (let i = 0; i < 5; i++) rig.arpAsk(US, US, '02:00:00:00:00:66');
    expect(rig.console.length).to.equal(7);
  });

  it('repeats an announcement after 1, 2 and 4 s with garp_rexmit_count=3', () => {
    write('garp_rexmit_count', '3');
    expect(in_aifaddr(rig.ifp, addr(OTHER), 24)).to.equal(0);
    const times: number[] = [];
    for (let s = 0; s < 20; s++) {
      for (const bytes of rig.sent.splice(0)) {
        expect(decodeFrame(bytes).arp).to.include({ op: 1, spa: OTHER, tpa: OTHER });
        times.push(s);
      }
      rig.clock.advance(1e9);
    }
    expect(times).to.deep.equal([0, 1, 3, 7]);
    expect(in_difaddr(rig.ifp, addr(OTHER))).to.equal(0);
    // The timer of a deleted address does not run on.
    expect(in_aifaddr(rig.ifp, addr(OTHER), 24)).to.equal(0);
    expect(in_difaddr(rig.ifp, addr(OTHER))).to.equal(0);
    rig.sent.length = 0;
    rig.clock.advance(10e9);
    expectTx(rig.sent);
    rig.arpReply(PEER, PEER_MAC);
  });
});
