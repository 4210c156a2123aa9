import { expect } from 'chai';
import { m_freem } from '../../src/kern/kern_mbuf.ts';
import { IFF_NOARP, IFF_STATICARP, IFF_UP, SIOCSIFFLAGS } from '../../src/net/if_var.ts';
import { ifhwioctl } from '../../src/net/if.ts';
import { Nhop, RTF_HOST, RTF_UP } from '../../src/net/route.ts';
import { inRouteAdd, inRouteAddGateway } from '../../src/netinet/in_fib.ts';
import { arpDelete, arpEntries, arpSet, arpstat } from '../../src/netinet/if_ether.ts';
import { in_aifaddr, in_difaddr } from '../../src/netinet/in_ifaddr.ts';
import { inet_ntoa } from '../../src/netinet/in.ts';
import { ip_output } from '../../src/netinet/ip_output.ts';
import { ether_ntoa } from '../../src/net/ethernet.ts';
import {
  EADDRNOTAVAIL,
  EEXIST,
  EHOSTDOWN,
  EHOSTUNREACH,
  EINVAL,
  ENOENT,
} from '../../src/sys/errno.ts';
import {
  counted,
  R_ARP_BAD,
  R_ARP_DUPLICATE,
  R_ARP_EVICTED,
  R_ARP_HOLD_FULL,
  R_ARP_TIMEOUT,
} from '../../src/sys/reason.ts';
import {
  arpReply,
  arpRequest,
  BROADCAST_MAC,
  buildArp,
  buildUdp,
  expectTx,
  payload,
  to,
  toMac,
} from '../support/frames.ts';
import { addr, OUR_MAC, outPacket, PEER, PEER_MAC, Rig, US } from './rig.ts';

const SEC = 1e9;
const OTHER_MAC = '02:00:00:00:00:77';

describe('arp', () => {
  let rig: Rig;
  beforeEach(() => (rig = new Rig({ arp: false })));
  afterEach(() => rig.close());

  const send = (text: string, dst = PEER): number =>
    ip_output(
      outPacket(buildUdp({ src: US, dst }, { sport: 1, dport: 2, payload: text })),
      null,
      0,
      rig.vnet,
    );
  /** The entries in the form of `arp -a`, without our own address. */
  const table = (): unknown[] =>
    arpEntries(rig.vnet)
      .filter((e) => inet_ntoa(e.addr) !== US)
      .map((e) => [inet_ntoa(e.addr), e.lladdr === null ? null : ether_ntoa(e.lladdr), e.expires]);

  it('sends an ARP request, queues packets and sends them in order when the reply arrives', () => {
    for (const text of ['one', 'two', 'three']) expect(send(text)).to.equal(0);
    const [f] = expectTx(rig.sent, [arpRequest(PEER), toMac(BROADCAST_MAC)]);
    expect(f!.arp).to.include({ sha: OUR_MAC, spa: US, tha: '00:00:00:00:00:00' });
    expect(table()).to.deep.equal([[PEER, null, 20]]);
    rig.arpReply(PEER, PEER_MAC);
    expectTx(
      rig.sent,
      ...['one', 'two', 'three'].map((text) => [to(PEER), toMac(PEER_MAC), payload(text)]),
    );
    expect(table()).to.deep.equal([[PEER, PEER_MAC, 1200]]);
    send('four');
    expectTx(rig.sent, [payload('four'), toMac(PEER_MAC)]);
  });

  it('queues 16 packets and drops the oldest', () => {
    for (let i = 0; i < 18; i++) send(`${i}`);
    expect(counted(R_ARP_HOLD_FULL)).to.equal(2);
    rig.sent.length = 0;
    rig.arpReply(PEER, PEER_MAC);
    const sent = expectTx(rig.sent, ...Array.from({ length: 16 }, () => [to(PEER)]));
    expect(Buffer.from(sent[0]!.ip!.udp!.payload).toString()).to.equal('2');
  });

  it('sends five ARP requests, one per second, then returns EHOSTDOWN; starts over 20 s later', () => {
    for (let i = 0; i < 5; i++) {
      expect(send('a')).to.equal(0);
      expect(send('b')).to.equal(i === 4 ? EHOSTDOWN : 0);
      expectTx(rig.sent, [arpRequest(PEER)]);
      rig.clock.advance(SEC);
    }
    expect(send('c')).to.equal(EHOSTDOWN);
    expectTx(rig.sent, [arpRequest(PEER)]);
    rig.clock.advance(20 * SEC - 1);
    expect(table().length).to.equal(1);
    rig.clock.advance(1);
    expect(table()).to.deep.equal([]);
    expect(arpstat(rig.vnet).timeouts).to.equal(1);
    expect(counted(R_ARP_TIMEOUT)).to.equal(11);
    expect(send('d')).to.equal(0);
    expectTx(rig.sent, [arpRequest(PEER)]);
  });

  it('returns EHOSTUNREACH when the gateway does not answer', () => {
    inRouteAddGateway(rig.vnet, addr('0.0.0.0'), 0, addr(PEER));
    for (let i = 0; i < 5; i++) {
      expect(send('a', '203.0.113.1')).to.equal(0);
      rig.clock.advance(SEC);
    }
    expect(send('a', '203.0.113.1')).to.equal(EHOSTUNREACH);
    rig.sent.length = 0;
  });

  it('resolves hosts that a route, not an address, puts on the link', () => {
    expect(send('a', '203.0.113.1')).to.equal(EHOSTUNREACH);
    const nh = new Nhop(rig.ifp, rig.ifp.if_addrhead[0]!, null, RTF_UP | RTF_HOST, 0);
    expect(inRouteAdd(rig.vnet, addr('203.0.113.1'), 32, nh)).to.equal(0);
    expect(inRouteAddGateway(rig.vnet, addr('0.0.0.0'), 0, addr('203.0.113.1'))).to.equal(0);
    expect(send('b', '198.51.100.7')).to.equal(0);
    const [f] = expectTx(rig.sent, [arpRequest('203.0.113.1')]);
    expect(f!.arp).to.include({ spa: US });
    rig.arpReply('203.0.113.1', OTHER_MAC);
    expectTx(rig.sent, [payload('b'), toMac(OTHER_MAC)]);
  });

  it('answers requests for our address, learns the sender, and reuses the frame', () => {
    rig.arpAsk(US);
    expectTx(rig.sent, [arpReply(US, OUR_MAC), toMac(PEER_MAC)]);
    expect(rig.chains[0]!.mbufs).to.equal(1);
    expect(table()).to.deep.equal([[PEER, PEER_MAC, 1200]]);
    rig.arpAsk('192.0.2.99');
    expectTx(rig.sent);
    // A probe for our address, RFC 5227: it is answered, and no entry is made.
    rig.arpAsk(US, '0.0.0.0', OTHER_MAC);
    expectTx(rig.sent, [arpReply(US, OUR_MAC), toMac(OTHER_MAC)]);
    expect(table().length).to.equal(1);
  });

  it('makes no entry from traffic between other hosts, but updates an existing entry', () => {
    rig.arpAsk('192.0.2.50', '192.0.2.60', OTHER_MAC);
    expect(table()).to.deep.equal([]);
    rig.arpReply(PEER, PEER_MAC);
    rig.arpAsk('192.0.2.50', PEER, OTHER_MAC);
    expect(table()).to.deep.equal([[PEER, OTHER_MAC, 1200]]);
    expect(rig.console.at(-1)).to.equal(
      `arp: ${PEER} moved from ${PEER_MAC} to ${OTHER_MAC} on tn0`,
    );
    // A sender address outside the interface's networks makes no entry either.
    rig.arpAsk(US, '203.0.113.1', OTHER_MAC);
    expect(table().length).to.equal(1);
    rig.sent.length = 0;
  });

  it('counts and logs a second host with our address and sends an ARP reply to it', () => {
    rig.arpAsk('192.0.2.50', US, OTHER_MAC);
    expect(counted(R_ARP_DUPLICATE)).to.equal(1);
    expect(arpstat(rig.vnet).dupips).to.equal(1);
    expect(rig.console).to.include(`arp: ${OTHER_MAC} is using my IP address ${US} on tn0!`);
    expectTx(rig.sent, [arpReply(US, OUR_MAC), toMac(OTHER_MAC)]);
  });

  it('drops ARP packets that are not for Ethernet and IPv4, and invalid sender addresses', () => {
    const arp = { op: 1, sha: PEER_MAC, spa: PEER, tha: OUR_MAC, tpa: US };
    const e = { dst: BROADCAST_MAC, src: PEER_MAC };
    for (const [at, value] of [
      [14, 9],
      [17, 9],
      [18, 7],
      [19, 16],
    ] as const) {
      const frame = buildArp(e, arp);
      frame[at] = value;
      rig.inject(frame);
    }
    rig.inject(buildArp(e, arp).subarray(0, 41));
    rig.inject(buildArp(e, { ...arp, sha: BROADCAST_MAC }));
    rig.inject(buildArp(e, { ...arp, spa: '224.0.0.1' }));
    expect(counted(R_ARP_BAD)).to.equal(7);
    expect(arpstat(rig.vnet).received).to.equal(7);
    expectTx(rig.sent);
    expect(table()).to.deep.equal([]);
  });

  it('re-verifies entries in use before they expire, and lets unused ones expire', () => {
    rig.arpReply(PEER, PEER_MAC);
    rig.arpReply('192.0.2.3', OTHER_MAC);
    rig.clock.advance(1195 * SEC);
    expectTx(rig.sent);
    send('x');
    rig.sent.length = 0;
    rig.clock.advance(SEC);
    expectTx(rig.sent, [arpRequest(PEER)]);
    rig.arpReply(PEER, PEER_MAC);
    rig.clock.advance(4 * SEC);
    expect(table()).to.deep.equal([[PEER, PEER_MAC, 1196]]);
    expect(arpstat(rig.vnet).timeouts).to.equal(1);
  });

  it('sends at most maxtries requests for an entry in use that gets no reply', () => {
    rig.arpReply(PEER, PEER_MAC);
    rig.clock.advance(1195 * SEC);
    send('x');
    rig.sent.length = 0;
    rig.clock.advance(10 * SEC);
    expect(table()).to.deep.equal([]);
    const n = rig.sent.splice(0).length;
    expect(n).to.be.within(4, 5);
  });

  it('announces a new address, and stops answering for a deleted one', () => {
    expect(in_aifaddr(rig.ifp, addr('198.51.100.7'), 24)).to.equal(0);
    const [f] = expectTx(rig.sent, [arpRequest('198.51.100.7')]);
    expect(f!.arp!.spa).to.equal('198.51.100.7');
    expect(in_aifaddr(rig.ifp, addr('198.51.100.7'), 24)).to.equal(EEXIST);
    expect(in_aifaddr(rig.ifp, addr('198.51.100.8'), 33)).to.equal(EINVAL);
    expect(in_aifaddr(rig.ifp, addr('224.0.0.8'), 24)).to.equal(EADDRNOTAVAIL);
    rig.arpAsk('198.51.100.7', PEER);
    expectTx(rig.sent, [arpReply('198.51.100.7', OUR_MAC)]);
    expect(in_difaddr(rig.ifp, addr('198.51.100.7'))).to.equal(0);
    expect(in_difaddr(rig.ifp, addr('198.51.100.7'))).to.equal(EADDRNOTAVAIL);
    rig.arpAsk('198.51.100.7', PEER);
    expectTx(rig.sent);
  });

  it('deletes learned entries when the interface goes down, and announces its address when it comes up', () => {
    rig.arpReply(PEER, PEER_MAC);
    send('held', '192.0.2.44');
    rig.sent.length = 0;
    ifhwioctl(rig.ifp, SIOCSIFFLAGS, rig.ifp.if_flags & ~IFF_UP);
    expect(table()).to.deep.equal([]);
    ifhwioctl(rig.ifp, SIOCSIFFLAGS, rig.ifp.if_flags | IFF_UP);
    expectTx(rig.sent, [arpRequest(US)]);
  });

  /** Sends requests for our address from `n` neighbours of 10.0.0.0/8 that do not exist. */
  const spoof = (n: number, from = 0): void => {
    for (let i = from; i < from + n; i++) {
      const spa = `10.${1 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
      rig.arpAsk('10.0.0.2', spa, OTHER_MAC);
      rig.sent.length = 0;
    }
  };

  it('evicts entries of a full table: neighbours in use and new ones stay reachable', () => {
    in_aifaddr(rig.ifp, addr('10.0.0.2'), 8);
    rig.sent.length = 0;
    send('a');
    rig.arpReply(PEER, PEER_MAC);
    rig.sent.length = 0;
    for (let round = 0; round < 4; round++) {
      spoof(9000, 9000 * round);
      send('in use');
      expectTx(rig.sent, [payload('in use'), toMac(PEER_MAC)]);
      // A new neighbour is resolved although spoofed ones arrive before its reply.
      const fresh = `10.0.9.${round + 1}`;
      expect(send('new', fresh)).to.equal(0);
      expectTx(rig.sent, [arpRequest(fresh)]);
      spoof(5000, 200_000 + 5000 * round);
      rig.arpReply(fresh, PEER_MAC);
      expectTx(rig.sent, [payload('new'), to(fresh), toMac(PEER_MAC)]);
    }
    expect(table().length).to.be.most(16384);
    expect(counted(R_ARP_EVICTED)).to.be.above(30_000);
  }).timeout(30_000);

  it('evicts the oldest entry that waits for a reply when too many wait', () => {
    in_aifaddr(rig.ifp, addr('10.0.0.2'), 8);
    for (let i = 0; i < 20_000; i++) {
      expect(send('x', `10.1.${i >> 8}.${i & 255}`)).to.equal(0);
      rig.sent.length = 0;
    }
    // Each entry holds one packet, and at most 1024 packets are held. One entry is 10.0.0.2.
    expect(table().length).to.equal(1024 + 1);
    expect(counted(R_ARP_EVICTED)).to.equal(20_000 - 1024);
    expect(arpEntries(rig.vnet).some((e) => inet_ntoa(e.addr) === '10.1.0.0')).to.equal(false);
    rig.arpReply('10.1.78.31', PEER_MAC); // the newest
    expectTx(rig.sent, [payload('x'), to('10.1.78.31')]);
  }).timeout(30_000);

  it('does not let ARP packets change permanent entries', () => {
    const there = Uint8Array.from([2, 0, 0, 0, 0, 9]);
    send('waits', '192.0.2.9');
    rig.sent.length = 0;
    expect(arpSet(rig.ifp, addr('192.0.2.9'), there)).to.equal(0);
    expectTx(rig.sent, [payload('waits'), toMac('02:00:00:00:00:09')]);
    rig.arpReply('192.0.2.9', OTHER_MAC);
    expect(rig.console.at(-1)).to.include('attempts to modify permanent entry for 192.0.2.9');
    rig.clock.advance(2000 * SEC);
    expect(table()).to.deep.equal([['192.0.2.9', '02:00:00:00:00:09', null]]);
    expect(arpDelete(rig.ifp, addr('192.0.2.9'))).to.equal(0);
    expect(arpDelete(rig.ifp, addr('192.0.2.9'))).to.equal(ENOENT);
    expect(arpSet(rig.ifp, addr(US), there)).to.equal(EEXIST);
    expect(arpDelete(rig.ifp, addr(US))).to.equal(EINVAL);
    expect(arpSet(rig.ifp, addr('203.0.113.1'), there)).to.equal(EINVAL);
  });

  it('sends no request and learns nothing on an interface with IFF_NOARP or IFF_STATICARP', () => {
    rig.ifp.if_flags |= IFF_NOARP;
    expect(send('x')).to.equal(EINVAL);
    rig.arpAsk(US);
    rig.ifp.if_flags &= ~IFF_NOARP;
    rig.ifp.if_flags |= IFF_STATICARP;
    rig.arpAsk(US);
    expectTx(rig.sent, [arpReply(US, OUR_MAC)]);
    expect(table()).to.deep.equal([]);
    m_freem(null);
  });
});
