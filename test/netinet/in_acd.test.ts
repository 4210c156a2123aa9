/** Address conflict detection of configured addresses, RFC 5227, on virtual time. */

import { expect } from 'chai';
import { formatInterface, gatherInterface } from '../../src/ctl/ifconfig.ts';
import { runIfconfig } from '../../src/ctl/ifconfig_verbs.ts';
import { if_down, if_link_state_change, if_up } from '../../src/net/if.ts';
import { LINK_STATE_DOWN, LINK_STATE_UP } from '../../src/net/if_var.ts';
import { arpstat } from '../../src/netinet/if_ether.ts';
import { inConfigure } from '../../src/netinet/in_acd.ts';
import { fib4_lookup } from '../../src/netinet/in_fib.ts';
import { in_difaddr } from '../../src/netinet/in_ifaddr.ts';
import { in_localip } from '../../src/netinet/ip_var.ts';
import { EADDRNOTAVAIL, EEXIST } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { BROADCAST_MAC, buildArp, decodeFrame } from '../support/frames.ts';
import { addr, OUR_MAC, PEER, Rig, US } from './rig.ts';

const NEW = '203.0.113.7';
const OTHER_MAC = '02:00:00:00:00:66';
const SEC = 1e9;

describe('in_acd: RFC 5227', () => {
  let rig: Rig;
  const acd = (on: string): void =>
    void expect(rig.vnet.sysctl.write('net.link.ether.inet.acd', on)).to.equal(0);
  beforeEach(() => {
    rig = new Rig();
    acd('1');
    rig.sent.length = 0;
    rig.console.length = 0;
  });
  afterEach(() => rig.close());

  const configure = (host = NEW): number => inPass(() => inConfigure(rig.ifp, addr(host), 24));
  const arp = (op: number, spa: string, tpa: string, sha = OTHER_MAC): void => {
    const tha = '00:00:00:00:00:00';
    rig.inject(buildArp({ dst: BROADCAST_MAC, src: sha }, { op, sha, spa, tha, tpa }));
  };
  /** ARP packets sent in the next `s` seconds: time in ms, sender, target. */
  const record = (s: number): [ms: number, spa: string, tpa: string][] => {
    const found: [number, string, string][] = [];
    for (let ms = 0; ms < s * 1000; ms += 10) {
      rig.clock.advance(10e6);
      for (const bytes of rig.sent.splice(0)) {
        const frame = decodeFrame(bytes);
        if (frame.arp !== undefined) found.push([ms, frame.arp.spa, frame.arp.tpa]);
      }
    }
    return found;
  };
  const inet = (host = NEW): string[] | undefined =>
    gatherInterface(rig.ifp).inet.find((line) => line.addr === host)?.flags;
  const text = (): string => formatInterface(gatherInterface(rig.ifp));
  const has = (host: string): boolean => gatherInterface(rig.ifp).inet.some((l) => l.addr === host);

  it('does not probe by default', () => {
    acd('0');
    expect(configure()).to.equal(0);
    expect(in_localip(rig.vnet, addr(NEW))).to.equal(true);
    expect(record(10)).to.deep.equal([[0, NEW, NEW]]);
    expect(inet()).to.equal(undefined);
  });

  it('sends three probes from 0.0.0.0, waits, and announces twice', () => {
    expect(configure()).to.equal(0);
    expect(inet()).to.deep.equal(['tentative']);
    expect(text()).to.match(
      /\tinet 203\.0\.113\.7 netmask 0xffffff00 broadcast 203\.0\.113\.255 tentative\n/,
    );
    const sent = record(15);
    expect(sent.map(([, spa, tpa]) => `${spa} ${tpa}`)).to.deep.equal([
      ...Array<string>(3).fill(`0.0.0.0 ${NEW}`),
      ...Array<string>(2).fill(`${NEW} ${NEW}`),
    ]);
    const times = sent.map(([ms]) => ms);
    const gaps = times.slice(1).map((ms, i) => ms - times[i]!);
    expect(times[0], 'PROBE_WAIT').to.be.within(0, 1000);
    expect(gaps[0], 'PROBE_MIN, PROBE_MAX').to.be.within(990, 2010);
    expect(gaps[1]).to.be.within(990, 2010);
    expect(gaps[2], 'ANNOUNCE_WAIT').to.be.within(1990, 2010);
    expect(gaps[3], 'ANNOUNCE_INTERVAL').to.be.within(1990, 2010);
    expect(inet()).to.equal(undefined);
    expect(has(NEW)).to.equal(true);
  });

  it('does not use the address until the probes have passed', () => {
    expect(configure()).to.equal(0);
    rig.clock.advance(3 * SEC);
    rig.sent.length = 0;
    arp(1, '203.0.113.9', NEW);
    expect(rig.sent, 'no reply').to.have.lengthOf(0);
    expect(in_localip(rig.vnet, addr(NEW)), 'not accepted').to.equal(false);
    expect(fib4_lookup(rig.vnet, addr('203.0.113.9')), 'no source').to.equal(null);
    rig.clock.advance(5 * SEC);
    rig.sent.length = 0;
    arp(1, '203.0.113.9', NEW);
    expect(decodeFrame(rig.sent[0]!).arp).to.include({ op: 2, spa: NEW, sha: OUR_MAC });
    expect(in_localip(rig.vnet, addr(NEW))).to.equal(true);
  });

  const conflicts: [name: string, op: number, spa: string, tpa: string][] = [
    ['a reply', 2, NEW, US],
    ['a request', 1, NEW, PEER],
    ['an announcement', 1, NEW, NEW],
    ['a simultaneous probe', 1, '0.0.0.0', NEW],
  ];
  for (const [name, op, spa, tpa] of conflicts)
    for (const atMs of [1, 2500, 1000 * 3.5])
      it(`marks the address duplicated: ${name} after ${atMs} ms`, () => {
        expect(configure()).to.equal(0);
        rig.clock.advance(atMs * 1e6);
        const { dupips } = arpstat(rig.vnet);
        arp(op, spa, tpa);
        rig.clock.advance(1);
        expect(inet()).to.deep.equal(['duplicated']);
        expect(text()).to.match(/broadcast 203\.0\.113\.255 duplicated\n/);
        expect(arpstat(rig.vnet).dupips).to.equal(dupips + 1);
        expect(rig.console.join()).to.match(
          /203\.0\.113\.7 on tn0 is a duplicate: 02:00:00:00:00:66/,
        );
        rig.sent.length = 0;
        expect(record(20), 'silent').to.have.lengthOf(0);
        expect(in_localip(rig.vnet, addr(NEW))).to.equal(false);
        arp(1, PEER, US, '02:00:00:00:00:01');
        expect(decodeFrame(rig.sent[0]!).arp, 'the other works').to.include({ op: 2, spa: US });
      });

  it('is not disturbed by own probes, requests for the address, and probes for others', () => {
    expect(configure()).to.equal(0);
    rig.clock.advance(SEC);
    arp(1, '0.0.0.0', NEW, OUR_MAC);
    arp(1, NEW, NEW, OUR_MAC);
    arp(1, '203.0.113.9', NEW);
    arp(2, '0.0.0.0', NEW);
    arp(1, '0.0.0.0', '203.0.113.8');
    rig.clock.advance(7 * SEC);
    expect([has(NEW), inet()]).to.deep.equal([true, undefined]);
  });

  it('deletes and replaces an address that is probed or a duplicate', () => {
    expect(configure()).to.equal(0);
    expect(configure()).to.equal(EEXIST);
    expect(in_difaddr(rig.ifp, addr(NEW))).to.equal(0);
    expect(in_difaddr(rig.ifp, addr(NEW))).to.equal(EADDRNOTAVAIL);
    expect(record(10)).to.have.lengthOf(0);
    expect(has(NEW)).to.equal(false);
    expect(in_difaddr(rig.ifp, addr(US))).to.equal(0);
    runIfconfig(rig.vnet, 'tn0', ['inet', `${NEW}/24`]);
    expect(inet()).to.deep.equal(['tentative']);
    runIfconfig(rig.vnet, 'tn0', ['inet', '203.0.113.8/24']);
    expect([has(NEW), inet('203.0.113.8')]).to.deep.equal([false, ['tentative']]);
    rig.clock.advance(7 * SEC);
    expect(inet('203.0.113.8')).to.equal(undefined);
  });

  it('probes while the link is up, and again after a time down', () => {
    rig.ifp.if_link_state = LINK_STATE_UP;
    expect(configure()).to.equal(0);
    rig.clock.advance(1.5 * SEC);
    if_link_state_change(rig.ifp, LINK_STATE_DOWN);
    rig.sent.length = 0;
    expect(record(20)).to.have.lengthOf(0);
    expect(inet()).to.deep.equal(['tentative']);
    if_link_state_change(rig.ifp, LINK_STATE_UP);
    expect(record(3).length).to.be.within(1, 3);
    arp(2, NEW, US);
    rig.clock.advance(1);
    expect(inet()).to.deep.equal(['duplicated']);
    inPass(() => if_down(rig.ifp));
    inPass(() => if_up(rig.ifp));
    expect(inet()).to.deep.equal(['tentative']);
    rig.clock.advance(7 * SEC);
    expect([has(NEW), inet()]).to.deep.equal([true, undefined]);
  });

  it('limits attempts to one a minute after ten conflicts', () => {
    const attempt = (): void => {
      expect(configure()).to.equal(0);
      rig.clock.advance(SEC);
      arp(2, NEW, US);
      rig.clock.advance(1);
      expect(in_difaddr(rig.ifp, addr(NEW))).to.equal(0);
    };
    for (let i = 0; i < 10; i++) attempt();
    rig.sent.length = 0;
    expect(configure()).to.equal(0);
    const [first] = record(70);
    expect(first![0]).to.be.within(58_000, 61_000);
  });

  it('defends a configured address once in ten seconds, logs, counts, and keeps it', () => {
    const { dupips } = arpstat(rig.vnet);
    for (const [op, spa, tpa] of [
      [1, US, US],
      [2, US, PEER],
      [1, US, PEER],
    ] as const)
      arp(op, spa, tpa);
    expect(rig.sent.map((bytes) => decodeFrame(bytes).arp)).to.have.lengthOf(1);
    expect(decodeFrame(rig.sent[0]!).arp).to.include({ op: 1, spa: US, tpa: US, sha: OUR_MAC });
    expect(arpstat(rig.vnet).dupips).to.equal(dupips + 3);
    expect(rig.console).to.have.lengthOf(1);
    rig.clock.advance(10 * SEC);
    rig.sent.length = 0;
    arp(2, US, PEER);
    expect(rig.sent).to.have.lengthOf(1);
    expect(rig.console).to.have.lengthOf(2);
    expect(in_localip(rig.vnet, addr(US)), 'kept').to.equal(true);
    // A probe of another host is answered, and is no conflict.
    rig.sent.length = 0;
    arp(1, '0.0.0.0', US);
    expect(decodeFrame(rig.sent[0]!).arp).to.include({ op: 2, spa: US });
    expect(arpstat(rig.vnet).dupips).to.equal(dupips + 4);
  });
});
