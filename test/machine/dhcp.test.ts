/** The DHCP client against a scripted server, on virtual time: RFC 2131 and hostile servers. */

import { expect } from 'chai';
import { DhcpWait } from '../../src/machine/dhcp/dhcp_wait.ts';
import {
  IPPROTO_TCP,
  IPPROTO_UDP,
  AF_INET,
  SOCK_DGRAM,
  SOCK_STREAM,
} from '../../src/kern/protosw.ts';
import { sobind, soclose, soconnect, socreate, soResult } from '../../src/kern/uipc_socket.ts';
import { inRouteAddGateway } from '../../src/netinet/in_fib.ts';
import { in_aifaddr, in_difaddr } from '../../src/netinet/in_ifaddr.ts';
import { inSockaddr } from '../../src/netinet/in.ts';
import { ECONNABORTED } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { reasonCounts } from '../../src/sys/reason.ts';
import { inAddr, port } from '../../src/sys/types.ts';
import { addr, OUR_MAC } from '../netinet/rig.ts';
import { BROADCAST_MAC, buildTcp, decodeFrame, ip4 } from '../support/frames.ts';
import {
  type Answer,
  DhcpRig,
  lease,
  OFFERED,
  type Options,
  SERVER,
  SERVER_MAC,
  u32,
} from './dhcp_rig.ts';

/** The lease of `lease` with other options. */
const withOptions = (...more: Options): Options => [...more, ...lease()];

describe('machine: DHCP client', () => {
  let rig: DhcpRig;
  beforeEach(() => (rig = new DhcpRig()));
  afterEach(() => rig.close());

  /** How often a reason of the client was counted. */
  const counted = (reason: string): number =>
    reasonCounts().find((r) => r.layer === 'dhcp' && r.reason === reason)!.count;

  describe('gets a lease', () => {
    it('by discover, offer, request, acknowledgement, and probes the address', () => {
      rig.client.start();
      const discover = rig.one('DISCOVER');
      expect(discover.frame.ip).to.include({ src: '0.0.0.0', dst: '255.255.255.255', ttl: 64 });
      expect(discover.frame).to.include({ src: OUR_MAC, dst: BROADCAST_MAC });
      expect(discover).to.include({ ciaddr: '0.0.0.0', secs: 0, broadcast: false });
      expect(discover.options.get(55)!.slice(0, 3), 'RFC 3442: 121 before 3').to.deep.equal([
        1, 121, 3,
      ]);
      expect(discover.options.get(57)).to.deep.equal([5, 220]);
      rig.answer(discover, 'OFFER');
      const request = rig.one('REQUEST');
      expect(request.frame.ip).to.include({ src: '0.0.0.0', dst: '255.255.255.255' });
      expect(request).to.include({ xid: discover.xid, secs: 0, ciaddr: '0.0.0.0' });
      expect(request.options.get(50)).to.deep.equal(ip4(OFFERED));
      expect(request.options.get(54)).to.deep.equal(ip4(SERVER));
      rig.answer(request, 'ACK', {
        options: withOptions(
          [6, [...ip4('198.51.100.8'), ...ip4('198.51.100.9')]],
          [15, [...Buffer.from('lab.example')]],
        ),
      });
      expect(rig.addrs(), 'not before the probes').to.deep.equal([]);
      rig.pass(0.59);
      expect([rig.probes(OFFERED), rig.addrs().length]).to.deep.equal([3, 0]);
      rig.pass(0.01);
      expect(rig.addrs()).to.deep.equal([OFFERED]);
      expect([rig.via('198.51.100.9'), rig.via('203.0.113.1')]).to.deep.equal(['-', SERVER]);
      expect(rig.events).to.deep.equal([
        {
          event: 'bound',
          if: 'tn0',
          text: `bound to ${OFFERED}/24`,
          state: 'bound',
          addr: `${OFFERED}/24`,
          server: SERVER,
          routers: [SERVER],
          dns: ['198.51.100.8', '198.51.100.9'],
          domain: 'lab.example',
          lease: 3600,
        },
      ]);
    });

    it('from answers that are broadcast, and without a UDP checksum', () => {
      const to = { mac: BROADCAST_MAC, ip: '255.255.255.255' };
      rig.client.start();
      rig.answer(rig.one('DISCOVER'), 'OFFER', { to, sum: 0 });
      rig.answer(rig.one('REQUEST'), 'ACK', { to });
      rig.pass(1);
      expect(rig.addrs()).to.deep.equal([OFFERED]);
    });

    it('sends DISCOVER again after 4, 8, 16, 32, 64, 64 s, each one second more or less', () => {
      rig.client.start();
      const at: number[] = [];
      const start = rig.clock.nowNs();
      for (let ds = 0; ds < 3000; ds++) {
        for (const { secs, broadcast } of rig.taken()) {
          expect(broadcast, 'only the first answer may be unicast').to.equal(at.length > 0);
          at.push((rig.clock.nowNs() - start) / 1e9);
          expect(secs).to.be.closeTo(at.at(-1)!, 1.1);
        }
        rig.pass(0.1);
      }
      const gaps = at.slice(1).map((t, i) => t - at[i]!);
      [4, 8, 16, 32, 64, 64].forEach((s, i) => expect(gaps[i]).to.be.closeTo(s, 1.2));
      expect(new Set(gaps.map((g) => g % 1)).size, 'jitter').to.be.above(1);
    });

    it('looks for another server when one offers but does not acknowledge', () => {
      const OTHER = '198.51.100.2';
      rig.client.start();
      rig.answer(rig.one('DISCOVER'), 'OFFER');
      rig.pass(14);
      const sent = rig.taken();
      expect(sent.map((s) => s.type)).to.deep.equal(['REQUEST', 'REQUEST', 'DISCOVER']);
      const discover = sent[2]!;
      expect(discover.xid).to.not.equal(sent[0]!.xid);
      rig.answer(discover, 'OFFER');
      expect(rig.taken(), 'the same server again').to.deep.equal([]);
      rig.answer(discover, 'OFFER', { options: lease(3600, OTHER), yiaddr: '198.51.100.58' });
      const request = rig.one('REQUEST');
      expect(request.options.get(54)).to.deep.equal(ip4(OTHER));
      rig.answer(request, 'ACK', { options: lease(3600, OTHER), yiaddr: '198.51.100.58' });
      rig.pass(1);
      expect(rig.addrs()).to.deep.equal(['198.51.100.58']);
    });

    it('takes the offer of a silent server again if there is no other', () => {
      rig.client.start();
      rig.answer(rig.one('DISCOVER'), 'OFFER');
      rig.pass(18);
      const sent = rig.taken();
      expect(sent.map((s) => s.type).slice(-2)).to.deep.equal(['DISCOVER', 'DISCOVER']);
      rig.answer(sent.at(-1)!, 'OFFER');
      expect(rig.one('REQUEST')).to.include({ broadcast: true });
    });

    for (const [what, op, spa, tpa] of [
      ['a reply from the address', 2, OFFERED, '0.0.0.0'],
      ['a request from the address', 1, OFFERED, '198.51.100.3'],
      ['another probe for the address', 1, '0.0.0.0', OFFERED],
    ] as const)
      it(`declines after ${what}, and begins again 10 s later`, () => {
        rig.client.start();
        rig.grant();
        rig.pass(0.3);
        rig.taken();
        rig.arp(op, spa, tpa);
        const decline = rig.one('DECLINE');
        expect(decline).to.include({ ciaddr: '0.0.0.0', broadcast: false });
        expect(decline.options.get(50)).to.deep.equal(ip4(OFFERED));
        expect(decline.options.get(54)).to.deep.equal(ip4(SERVER));
        expect(decline.frame.ip).to.include({ src: '0.0.0.0', dst: '255.255.255.255' });
        expect([rig.names(), rig.addrs()]).to.deep.equal([['declined'], []]);
        rig.pass(9.9);
        expect(rig.taken()).to.deep.equal([]);
        rig.pass(0.2);
        rig.grant(lease(), '198.51.100.58');
        rig.pass(1);
        expect(rig.addrs()).to.deep.equal(['198.51.100.58']);
      });

    it('does not decline for ARP of other hosts or its own probes', () => {
      rig.client.start();
      rig.grant();
      rig.arp(1, '198.51.100.3', OFFERED);
      rig.arp(2, '198.51.100.3', OFFERED);
      rig.arp(1, '0.0.0.0', '198.51.100.58');
      rig.arp(1, '0.0.0.0', OFFERED, OUR_MAC);
      rig.pass(1);
      expect(rig.addrs()).to.deep.equal([OFFERED]);
    });

    it('begins again after DHCPNAK, with longer and longer pauses', () => {
      const refuse = (): void => {
        rig.answer(rig.one('DISCOVER'), 'OFFER');
        rig.answer(rig.one('REQUEST'), 'NAK', {
          options: [
            [54, ip4(SERVER)],
            [56, [...Buffer.from('no\n')]],
          ],
        });
      };
      rig.client.start();
      const pauses: number[] = [];
      for (let i = 0; i < 5; i++) {
        refuse();
        const from = rig.clock.nowNs();
        while (rig.sent.length === 0) rig.pass(0.05);
        pauses.push((rig.clock.nowNs() - from) / 1e9);
      }
      [1, 2, 4, 8, 16].forEach((s, i) => expect(pauses[i]).to.be.within(s * 0.74, s * 1.26 + 0.1));
      expect(rig.events[0]!.text).to.equal(`the server refused ${OFFERED}: "no\\n"`);
    });
  });

  describe('keeps a lease', () => {
    it('renews by unicast at T1, from the server only', () => {
      rig.bind();
      rig.pass(1798);
      expect(rig.taken()).to.deep.equal([]);
      rig.pass(2);
      const request = rig.one('REQUEST');
      expect(request.frame).to.include({ dst: SERVER_MAC });
      expect(request.frame.ip).to.include({ src: OFFERED, dst: SERVER });
      expect(request).to.include({ ciaddr: OFFERED });
      expect([request.options.has(50), request.options.has(54)]).to.deep.equal([false, false]);
      rig.answer(request, 'ACK', { options: lease(7200, '198.51.100.2') });
      expect(rig.names()).to.deep.equal(['bound']);
      rig.answer(request, 'ACK', { options: lease(7200) });
      expect(rig.names()).to.deep.equal(['bound', 'renewed']);
      expect(rig.client.info).to.include({ lease: 7200, state: 'bound' });
      rig.pass(3598);
      expect(rig.taken()).to.deep.equal([]);
      rig.pass(3);
      rig.one('REQUEST');
    });

    it("uses the server's T1 and T2 only if they are in order", () => {
      rig.bind(withOptions([58, u32(10)], [59, u32(20)]));
      rig.pass(9.5);
      rig.answer(rig.one('REQUEST'), 'ACK', {
        options: withOptions([58, u32(3000)], [59, u32(10)]),
      });
      rig.pass(1790);
      expect(rig.taken()).to.deep.equal([]);
      rig.pass(20);
      rig.one('REQUEST');
    });

    it('sends again after half of the time to T2, but at least 60 s; then rebinds by broadcast', () => {
      rig.bind();
      const at: [string, number][] = [];
      const start = rig.clock.nowNs() - 0.6e9;
      for (let s = 0; s < 3590; s++) {
        rig.pass(1);
        for (const { frame } of rig.taken())
          at.push([frame.ip!.dst, Math.floor((rig.clock.nowNs() - start) / 1e9)]);
      }
      const times = (dst: string): number[] => at.filter(([to]) => to === dst).map(([, t]) => t);
      [1800, 2475, 2812, 2981, 3065].forEach((t, i) =>
        expect(times(SERVER)[i]).to.be.closeTo(t, 2),
      );
      // T2 is at 3150 s.
      [3150, 3375, 3487, 3547].forEach((t, i) =>
        expect(times('255.255.255.255')[i]).to.be.closeTo(t, 2),
      );
      expect(rig.addrs()).to.deep.equal([OFFERED]);
    });

    it('rebinds to any server', () => {
      rig.bind();
      rig.pass(3151);
      const request = rig.taken().at(-1)!;
      expect(request.frame.ip).to.include({ src: OFFERED, dst: '255.255.255.255' });
      expect(request).to.include({ ciaddr: OFFERED });
      rig.answer(request, 'ACK', { options: lease(3600, '198.51.100.2'), from: '198.51.100.2' });
      expect(rig.names()).to.deep.equal(['bound', 'rebound']);
      expect(rig.client.info.server).to.equal('198.51.100.2');
      expect(rig.via('203.0.113.1'), 'the new router').to.equal('198.51.100.2');
    });

    it('removes the address when the lease expires, drops connections, and begins again', () => {
      rig.bind();
      rig.pass(3590);
      const peer = { src: '198.51.100.9', dst: OFFERED };
      inPass(() => socreate(rig.vnet, AF_INET, SOCK_STREAM, IPPROTO_TCP));
      const so = soResult.so!;
      inPass(() => soconnect(so, inSockaddr(addr(peer.src), port(80))));
      rig.arp(2, peer.src, OFFERED, '02:00:00:00:00:09');
      const syn = rig.sent.map((b) => decodeFrame(b)).find((f) => f.ip?.tcp)!.ip!.tcp!;
      rig.injectIp(
        buildTcp(peer, { sport: 80, dport: syn.sport, flags: 'S.', seq: 7, ack: syn.seq + 1 }),
      );
      rig.sent.length = 0;
      rig.pass(10);
      const last = rig.sent.map((b) => decodeFrame(b)).filter((f) => f.ip?.tcp);
      expect(last.map((f) => f.ip!.tcp!.flags)).to.include('R.');
      expect(so.so_error).to.equal(ECONNABORTED);
      expect(rig.addrs()).to.deep.equal([]);
      expect([rig.via('198.51.100.9'), rig.via('203.0.113.1')]).to.deep.equal([null, null]);
      expect(rig.names()).to.deep.equal(['bound', 'expired']);
      expect(rig.events[1]!.text).to.equal(`lease of ${OFFERED} expired: 1 connections dropped`);
      const discover = rig.taken().filter((s) => s.type === 'DISCOVER');
      expect(discover).to.have.length(1);
      rig.answer(discover[0]!, 'OFFER');
      rig.answer(rig.one('REQUEST'), 'ACK');
      rig.pass(1);
      expect(rig.addrs()).to.deep.equal([OFFERED]);
      soclose(so);
    });

    it('removes the address after DHCPNAK to a renewal', () => {
      rig.bind();
      rig.pass(1800);
      rig.answer(rig.one('REQUEST'), 'NAK', { options: [[54, ip4(SERVER)]] });
      expect([rig.names(), rig.addrs()]).to.deep.equal([['bound', 'refused'], []]);
      rig.pass(2);
      rig.one('DISCOVER');
    });

    it('never renews a lease without end', () => {
      rig.bind(lease(0xffffffff));
      rig.pass(86400 * 400);
      expect([rig.taken(), rig.addrs()]).to.deep.equal([[], [OFFERED]]);
      expect(rig.client.info.lease).to.equal(null);
    });

    it('keeps a lease of 136 years, and follows one of a second', () => {
      rig.bind(lease(0xfffffffe));
      rig.pass(86400 * 400);
      expect([rig.taken(), rig.addrs()]).to.deep.equal([[], [OFFERED]]);
      rig.client.stop();
      rig.taken();
      rig.client.start();
      rig.grant(lease(1));
      rig.pass(0.6);
      expect(rig.addrs()).to.deep.equal([OFFERED]);
      // T1 has passed already: the lease began with the request.
      rig.pass(0.01);
      rig.answer(rig.one('REQUEST'), 'ACK', { options: lease(1) });
      rig.pass(0.8);
      expect(rig.addrs()).to.deep.equal([OFFERED]);
      rig.pass(0.3);
      expect(rig.addrs()).to.deep.equal([]);
    });

    it('releases it when it stops', () => {
      rig.bind();
      rig.client.stop();
      const release = rig.one('RELEASE');
      expect(release.frame).to.include({ dst: SERVER_MAC });
      expect(release.frame.ip).to.include({ src: OFFERED, dst: SERVER });
      expect(release).to.include({ ciaddr: OFFERED });
      expect(release.options.get(54)).to.deep.equal(ip4(SERVER));
      expect([rig.names(), rig.addrs()]).to.deep.equal([['bound', 'released'], []]);
      rig.pass(100_000);
      expect(rig.sent).to.deep.equal([]);
    });

    it('takes changed routes from a renewal, and survives that the user removed the address', () => {
      rig.bind();
      rig.pass(1800);
      rig.answer(rig.one('REQUEST'), 'ACK', { options: [[3, ip4('198.51.100.7')], ...lease()] });
      expect(rig.via('203.0.113.1')).to.equal('198.51.100.7');
      inPass(in_difaddr, rig.ifp, addr(OFFERED));
      rig.pass(3600);
      expect(rig.names()).to.deep.equal(['bound', 'renewed', 'expired']);
    });
  });

  describe('configures', () => {
    const routes = (options: Options, gateway: string | null = 'auto'): (string | null)[] => {
      rig.close();
      rig = new DhcpRig(gateway === null || gateway === 'auto' ? gateway : addr(gateway));
      rig.bind(options);
      return ['203.0.113.1', '10.1.2.3'].map((dst) => rig.via(dst));
    };
    const CLASSLESS: Options[number] = [
      121,
      [
        8,
        10,
        ...ip4('198.51.100.7'),
        0,
        ...ip4('198.51.100.8'),
        32,
        ...ip4('203.0.113.9'),
        0,
        0,
        0,
        0,
      ],
    ];

    it('classless routes instead of the router: RFC 3442', () => {
      expect(routes(withOptions(CLASSLESS))).to.deep.equal(['198.51.100.8', '198.51.100.7']);
      expect(rig.via('203.0.113.9')).to.equal('-');
    });

    it('the given gateway instead of the default route of the server, or no default route', () => {
      expect(routes(lease(), '198.51.100.9')).to.deep.equal(['198.51.100.9', '198.51.100.9']);
      expect(routes(withOptions(CLASSLESS), '198.51.100.9')).to.deep.equal([
        '198.51.100.9',
        '198.51.100.7',
      ]);
      expect(routes(lease(), null)).to.deep.equal([null, null]);
      expect(routes(lease(), '203.0.113.7'), 'not reachable').to.deep.equal([null, null]);
      expect(rig.events[0]!.text).to.equal(
        `route default by 203.0.113.7 left out: not on the network of ${OFFERED}/24`,
      );
    });

    it('a router outside of a network of one address', () => {
      const one: Options = [[1, [255, 255, 255, 255]], [3, ip4('192.0.2.1')], ...lease()];
      expect(routes(one)).to.deep.equal(['192.0.2.1', '192.0.2.1']);
      expect(rig.via('192.0.2.1')).to.equal('-');
    });

    it('a lower MTU for the time of the lease, never a higher or tiny one', () => {
      const mtu = (n: number): number => {
        routes(withOptions([26, [n >>> 8, n & 0xff]]));
        return rig.ifp.if_mtu;
      };
      expect([mtu(9000), mtu(68), mtu(575), mtu(576), mtu(1400)]).to.deep.equal([
        1500, 1500, 1500, 576, 1400,
      ]);
      rig.client.stop();
      expect(rig.ifp.if_mtu).to.equal(1500);
    });

    it('leaves an existing default route alone, and reports a used port 68', () => {
      inPass(in_aifaddr, rig.ifp, addr('192.0.2.2'), 24);
      inRouteAddGateway(rig.vnet, inAddr(0), 0, addr('192.0.2.1'));
      inPass(() => socreate(rig.vnet, AF_INET, SOCK_DGRAM, IPPROTO_UDP));
      const so = soResult.so!;
      sobind(so, inSockaddr(inAddr(0), port(68)));
      rig.client.start();
      rig.grant();
      rig.pass(1);
      expect(rig.via('203.0.113.1')).to.equal('192.0.2.1');
      expect(rig.events.map((e) => e.text)).to.deep.equal([
        `route default by ${SERVER} left out: EEXIST`,
        'UDP port 68: EADDRINUSE: the lease cannot be renewed',
        `bound to ${OFFERED}/24`,
      ]);
      soclose(so);
    });

    it('waits if this stack has the address on another interface', () => {
      inPass(in_aifaddr, rig.ifp, addr(OFFERED), 24);
      rig.client.start();
      rig.grant();
      rig.pass(1);
      expect(rig.events[0]!.text).to.equal(`${OFFERED} cannot be used: EEXIST`);
      expect(rig.client.info.state).to.equal('init');
    });
  });

  describe('refuses', () => {
    const CASES: readonly (readonly [string, Answer])[] = [
      ['another transaction', { xid: 4711 }],
      ['another Ethernet address', { chaddr: '02:00:00:00:00:99' }],
      ['a request instead of a reply', { op: 1 }],
      ['another cookie', { cookie: [1, 2, 3, 4] }],
      ['a bad UDP checksum', { sum: 4711 }],
      ['no options', { raw: [] }],
      ['no message type', { raw: [54, 4, ...ip4(SERVER), 255] }],
      ['an option beyond the end', { raw: [53, 1, 2, 54, 4, ...ip4(SERVER), 51, 200, 1, 255] }],
      ['a code without a length', { raw: [53, 1, 2, 51] }],
      ['no server', { options: lease().filter(([code]) => code !== 54) }],
      ['the server 0.0.0.0', { options: lease(3600, '0.0.0.0') }],
      ['no lease time', { options: lease().filter(([code]) => code !== 51) }],
      ['a lease of 0 s', { options: lease(0) }],
      ['a lease time of 3 bytes', { more: [[51, [0, 1, 0]]] }],
      ['the mask 255.0.255.0', { more: [[1, [255, 0, 255, 0]]] }],
      ['the mask 0.0.0.0', { more: [[1, [0, 0, 0, 0]]] }],
      ['the address 0.0.0.0', { yiaddr: '0.0.0.0' }],
      ['a multicast address', { yiaddr: '224.0.0.1' }],
      ['a loopback address', { yiaddr: '127.0.0.1' }],
      ['255.255.255.255', { yiaddr: '255.255.255.255' }],
      ['the address of the network', { yiaddr: '198.51.100.0' }],
      ['the broadcast address', { yiaddr: '198.51.100.255' }],
      ["the server's own address", { yiaddr: SERVER }],
      ['overloaded fields that are damaged', { more: [[52, [3]]], file: [51, 255], sname: [] }],
    ];
    for (const [what, answer] of CASES)
      it(`an offer with ${what}`, () => {
        rig.client.start();
        const discover = rig.one('DISCOVER');
        rig.answer(discover, 'OFFER', answer);
        expect(rig.taken()).to.deep.equal([]);
        rig.answer(discover, 'OFFER');
        rig.one('REQUEST');
      });

    it('acknowledgements of another server or address, and refusals of another server', () => {
      rig.client.start();
      rig.answer(rig.one('DISCOVER'), 'OFFER');
      const request = rig.one('REQUEST');
      rig.answer(request, 'ACK', { options: lease(3600, '198.51.100.66') });
      rig.answer(request, 'ACK', { yiaddr: '198.51.100.66' });
      rig.answer(request, 'NAK', { options: [[54, ip4('198.51.100.66')]] });
      rig.answer(request, 'NAK', { options: [] });
      rig.answer(request, 'OFFER');
      rig.pass(1);
      expect([rig.names(), rig.addrs(), rig.probes(OFFERED)]).to.deep.equal([[], [], 0]);
      expect(counted('unexpected_message')).to.equal(4);
      expect(counted('bad_message')).to.equal(1);
    });

    it('messages that it does not wait for, such as a second acknowledgement', () => {
      rig.bind();
      const ghost = { xid: 1 } as Parameters<DhcpRig['answer']>[0];
      for (const type of ['OFFER', 'ACK', 'NAK', 'RELEASE']) rig.answer(ghost, type);
      expect([rig.names(), rig.addrs()]).to.deep.equal([['bound'], [OFFERED]]);
    });

    it('duplicates, overloads and long lists within their limits', () => {
      const many = Array.from({ length: 60 }, (_, i) => ip4(`198.51.100.${i + 100}`)).flat();
      const routes = Array.from({ length: 40 }, (_, i) => [24, 10, 0, i, ...ip4(SERVER)]).flat();
      rig.client.start();
      const answer: Answer = {
        more: [
          [52, [3]],
          [6, many],
          [6, many],
          [15, [...Buffer.from('a b')]],
          [121, routes.slice(0, 101)],
          [121, routes.slice(101, 280)],
          [3, [1, 2, 3]],
        ],
        // The first of two wins; options in `file` come after the main field.
        file: [51, 4, ...u32(5), 0, 0, 255],
        sname: [121, 8, 24, 10, 0, 99, ...ip4(SERVER), 255],
      };
      rig.answer(rig.one('DISCOVER'), 'OFFER', answer);
      rig.answer(rig.one('REQUEST'), 'ACK', answer);
      rig.pass(1);
      const { lease: seconds, dns, domain } = rig.client.info;
      expect([seconds, dns.length, domain]).to.deep.equal([3600, 8, null]);
      expect(
        ['10.0.0.1', '10.0.34.1', '10.0.99.1', '10.0.40.1'].map((d) => rig.via(d)),
      ).to.deep.equal([SERVER, SERVER, SERVER, null]);
    });

    it('damaged classless routes as a whole', () => {
      rig.bind(withOptions([121, [33, 10, 0, 0, 0, 1, ...ip4(SERVER)]]));
      expect(rig.via('203.0.113.1'), 'as without the option').to.equal(SERVER);
    });

    it('messages of random bytes', () => {
      rig.client.start();
      const discover = rig.one('DISCOVER');
      for (let i = 0; i < 2000; i++) {
        const n = rig.vnet.prng.next32() % 400;
        const raw = Array.from({ length: n }, () => rig.vnet.prng.next32() & 0xff);
        if (i % 2 === 0) rig.answer(discover, 'OFFER', { raw: [53, 1, 2, ...raw] });
        else rig.datagram(Uint8Array.from(raw));
      }
      rig.sent.length = 0;
      rig.pass(0);
      expect(rig.addrs()).to.deep.equal([]);
    });

    it('more frames than it can hold', () => {
      rig.client.start();
      const discover = rig.one('DISCOVER');
      for (let i = 0; i < 1000; i++) rig.arpAsk('198.51.100.9', '198.51.100.8');
      rig.clock.runPosted();
      rig.answer(discover, 'OFFER');
      rig.one('REQUEST');
    });
  });

  describe('waits', () => {
    const outcome = (signal: AbortSignal | null): { result: unknown } => {
      const box: { result: unknown } = { result: 'pending' };
      new DhcpWait(rig.client, 'nic0', 'tn0').wait(signal).then(
        (r) => (box.result = r),
        (e: unknown) => (box.result = (e as Error).message),
      );
      return box;
    };
    const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

    it('until it has an address', async () => {
      rig.client.start();
      const box = outcome(null);
      rig.grant();
      await settled();
      expect(box.result).to.equal('pending');
      rig.pass(1);
      await settled();
      expect(box.result).to.equal(true);
      const second = outcome(null);
      await settled();
      expect(second.result).to.equal(true);
    });

    it('30 s at most, and names the cause and the remedy', async () => {
      rig.client.start();
      const box = outcome(null);
      rig.answer(rig.one('DISCOVER'), 'OFFER', { options: lease(0) });
      rig.pass(29.9);
      await settled();
      expect(box.result).to.equal('pending');
      rig.pass(0.2);
      await settled();
      expect(box.result).to.equal(
        "dhcp: ETIMEDOUT: tn0 has no address after 30 s: a server's message was refused: no valid " +
          'lease time: connect nic0 to a network with a DHCP server, or choose a fixed address (addr)',
      );
    });

    it('not after a stop', async () => {
      rig.client.start();
      const stop = new AbortController();
      const box = outcome(stop.signal);
      stop.abort();
      await settled();
      expect(box.result).to.equal(false);
    });
  });
});
