/** Neighbour discovery: which messages are valid, what is announced, floods of messages. */

import { expect } from 'chai';
import { mbufZones } from '../../src/kern/kern_mbuf.ts';
import { soSendDgram } from '../../src/kern/sys_generic.ts';
import { if_setlladdr } from '../../src/net/if.ts';
import type { Llentry } from '../../src/net/if_llatbl.ts';
import { V_icmp6 } from '../../src/netinet6/icmp6_var.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IN6_IFF_ANYCAST } from '../../src/netinet6/in6_var.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { nd6Table } from '../../src/netinet6/nd6.ts';
import { V_nd6 } from '../../src/netinet6/nd6_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import {
  counted,
  R_ND6_BAD,
  R_ND6_FRAGMENT,
  R_ND6_NOT_NEIGHBOR,
  type Reason,
} from '../../src/sys/reason.ts';
import { PEER_MAC } from '../netinet/rig.ts';
import { mac } from '../support/frames.ts';
import { buildIcmp6, buildIp6, ip6, type Packet6 } from '../support/six.ts';
import {
  ADVERT,
  advert,
  lla,
  NONCE,
  O,
  R,
  S,
  SLLA,
  SOLICIT,
  solicit,
  solicitedNode,
  TLLA,
} from './nd6_messages.ts';
import { sin6 } from './pair.ts';
import { PEER6, PEER_LL, Rig6, US6, US_LL } from './rig6.ts';

const OTHER = '2001:db8::9';
const OFF_LINK = '2001:db8:7::9';
const GROUP = solicitedNode(US6);
const FROM = { src: PEER6, dst: US6 };
const zeros = (n: number): number[] => Array.from({ length: n }, () => 0);

/** A message in one fragment: RFC 6946. */
function atomic(packet: Uint8Array): Uint8Array {
  const [src, dst] = [packet.slice(8, 24), packet.slice(24, 40)];
  const fragment = buildIp6({ src: '::', dst: '::', hlim: 255 }, 44, [
    58,
    ...zeros(6),
    1,
    ...packet.subarray(40),
  ]);
  fragment.set(src, 8);
  fragment.set(dst, 24);
  return fragment;
}

type Counter =
  | 'icp6s_badns'
  | 'icp6s_badna'
  | 'icp6s_badcode'
  | 'icp6s_badlen'
  | 'icp6s_invlhlim'
  | 'icp6s_nd_badopt';

describe('neighbour discovery: a message', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6();
  });
  afterEach(() => h.close());

  const entry = (text = OTHER): Llentry | null => nd6Table(h.ifp)!.find(parseIn6(text)!);
  const slla = lla(SLLA, PEER_MAC);
  const tlla = lla(TLLA, PEER_MAC);
  // RFC 4861, 7.1.1 and 7.1.2: what, the message, its counters.
  const bad: [string, Uint8Array, Counter[], Reason?][] = [
    [
      'a solicitation with hop limit 254',
      solicit({ ...FROM, hlim: 254 }, US6),
      ['icp6s_badns', 'icp6s_invlhlim'],
    ],
    [
      'a solicitation with code 1',
      buildIcmp6({ ...FROM, hlim: 255 }, [SOLICIT, 1, ...zeros(22)]),
      ['icp6s_badcode'],
    ],
    [
      'a solicitation of 23 bytes',
      buildIcmp6({ ...FROM, hlim: 255 }, [SOLICIT, ...zeros(22)]),
      ['icp6s_badlen'],
    ],
    ['a solicitation for a group', solicit(FROM, 'ff02::1'), ['icp6s_badns']],
    [
      'a solicitation with an option of length 0',
      solicit(FROM, US6, [1, 0, ...zeros(6)]),
      ['icp6s_nd_badopt'],
    ],
    [
      'a solicitation with an option that ends behind it',
      solicit(FROM, US6, [1, 2, ...zeros(6)]),
      ['icp6s_nd_badopt'],
    ],
    ['a solicitation with half an option', solicit(FROM, US6, [1]), ['icp6s_nd_badopt']],
    [
      'a solicitation with an address of 14 bytes',
      solicit(FROM, US6, [1, 2, ...zeros(14)]),
      ['icp6s_badns'],
    ],
    [
      'a solicitation from :: to our address',
      solicit({ ...FROM, src: '::' }, US6),
      ['icp6s_badns'],
    ],
    [
      'a solicitation from :: to all nodes',
      solicit({ src: '::', dst: 'ff02::1' }, US6),
      ['icp6s_badns'],
    ],
    [
      'a solicitation from :: with an address',
      solicit({ src: '::', dst: GROUP }, US6, slla),
      ['icp6s_badns'],
    ],
    [
      'a solicitation from another network',
      solicit({ ...FROM, src: OFF_LINK }, US6, slla),
      ['icp6s_badns'],
    ],
    [
      'a solicitation in a fragment',
      atomic(solicit({ src: PEER6, dst: US6 }, US6)),
      [],
      R_ND6_FRAGMENT,
    ],
    [
      'an advertisement with hop limit 254',
      advert({ ...FROM, hlim: 254 }, OTHER, S),
      ['icp6s_badna', 'icp6s_invlhlim'],
    ],
    [
      'an advertisement with code 1',
      buildIcmp6({ ...FROM, hlim: 255 }, [ADVERT, 1, ...zeros(22)]),
      ['icp6s_badcode'],
    ],
    [
      'an advertisement of 23 bytes',
      buildIcmp6({ ...FROM, hlim: 255 }, [ADVERT, ...zeros(22)]),
      ['icp6s_badlen'],
    ],
    ['an advertisement of a group', advert(FROM, 'ff02::1', S), ['icp6s_badna']],
    [
      'a solicited advertisement to all nodes',
      advert({ ...FROM, dst: 'ff02::1' }, OTHER, S, tlla),
      ['icp6s_badna'],
    ],
    [
      'an advertisement with an option of length 0',
      advert(FROM, OTHER, S, [2, 0, ...zeros(6)]),
      ['icp6s_nd_badopt'],
    ],
    [
      'an advertisement with an address of 14 bytes',
      advert(FROM, OTHER, S, [2, 2, ...zeros(14)]),
      ['icp6s_badna'],
    ],
    [
      'an advertisement in a fragment',
      atomic(advert(FROM, OTHER, S | O, tlla)),
      [],
      R_ND6_FRAGMENT,
    ],
  ];
  for (const [what, packet, counters, reason] of bad)
    it(`is dropped and counted: ${what}`, () => {
      soSendDgram(h.udp6(7000), Uint8Array.from([1]), 0, 1, sin6(OTHER, 9));
      h.take6();
      h.inject6(packet);
      const { stat } = V_icmp6(h.vnet);
      for (const name of [
        'icp6s_badns',
        'icp6s_badna',
        'icp6s_badcode',
        'icp6s_badlen',
        'icp6s_invlhlim',
        'icp6s_nd_badopt',
      ] as const)
        expect(stat[name], name).to.equal(counters.includes(name) ? 1 : 0);
      expect(counted(reason ?? R_ND6_BAD)).to.equal(1);
      expect(h.take6()).to.deep.equal([]);
      expect(entry()!.la_flags & 8, 'nothing learned').to.equal(0);
    });

  it('is logged with nd6_debug, at most ten a second', () => {
    h.inject6(solicit({ ...FROM, hlim: 1 }, US6));
    expect(h.console).to.deep.equal([]);
    V_nd6(h.vnet).params.nd6_debug = 1;
    for (let i = 0; i < 20; i++) h.inject6(solicit({ ...FROM, hlim: 1 }, US6));
    expect(h.console).to.have.lengthOf(10);
    expect(h.console[0]).to.equal(
      `nd6_ns_input: invalid hlim: src=${PEER6} dst=${US6} tgt=${US6} on tn0`,
    );
  });

  it('may have unknown options, ten of which are read', () => {
    const unknown = [200, 1, ...zeros(6)];
    const many = (n: number): number[] => Array.from({ length: n }, () => unknown).flat();
    h.inject6(solicit(FROM, US6, [...many(9), ...slla]));
    expect(h.take6().map(({ body }) => body[0])).to.deep.equal([ADVERT]);
    expect(V_icmp6(h.vnet).stat.icp6s_nd_toomanyopt).to.equal(0);
    h.inject6(solicit({ ...FROM, src: OTHER }, US6, [...many(30), ...slla]));
    expect([V_icmp6(h.vnet).stat.icp6s_nd_toomanyopt, entry()?.ln_state]).to.deep.equal([1, 0]);
  });

  it('is read in mbufs of any size, with options of 1000 bytes', () => {
    const long = [200, 125, ...zeros(998)];
    for (const piece of [0, 200, 64]) {
      h.inject6(solicit({ ...FROM, src: OTHER }, US6, [...long, ...slla]), undefined, piece);
      expect(h.take6()).to.have.lengthOf(1);
      expect([...entry()!.ll_addr]).to.deep.equal(mac(PEER_MAC));
      nd6Table(h.ifp)!.remove(entry()!);
    }
  });

  it('from another network is accepted with nd6_onlink_ns_rfc4861, or from the cache', () => {
    V_nd6(h.vnet).params.nd6_onlink_ns_rfc4861 = 1;
    h.inject6(solicit({ src: OFF_LINK, dst: GROUP }, US6, slla), '33:33:ff:00:00:02');
    expect(entry(OFF_LINK)).to.not.equal(null);
    V_nd6(h.vnet).params.nd6_onlink_ns_rfc4861 = 0;
    h.inject6(solicit({ src: OFF_LINK, dst: GROUP }, US6, slla), '33:33:ff:00:00:02');
    expect(V_icmp6(h.vnet).stat.icp6s_badns).to.equal(0);
  });

  it('is not sent to a next hop that is not on the link', () => {
    // A route that says so makes it a neighbour; without one there is no way to it.
    const so = h.udp6(7000);
    soSendDgram(so, Uint8Array.from([1]), 0, 1, sin6(OFF_LINK, 9));
    expect([h.take6().length, counted(R_ND6_NOT_NEIGHBOR)]).to.deep.equal([0, 0]);
  });

  describe('in answer to a solicitation', () => {
    const answer = (): Packet6 => {
      const sent = h.take6();
      expect(sent).to.have.lengthOf(1);
      return sent[0]!;
    };

    it('to the group: with the address and O; to our address: without both', () => {
      h.inject6(solicit({ src: PEER6, dst: GROUP }, US6, slla), '33:33:ff:00:00:02');
      let { body } = answer();
      expect([body[4], ...body.subarray(24)]).to.deep.equal([
        S | O,
        ...lla(TLLA, '02:00:00:00:00:02'),
      ]);
      h.inject6(solicit(FROM, US6));
      ({ body } = answer());
      expect([body[4], body.length]).to.deep.equal([S, 24]);
    });

    it('of a router has the flag R, unless norbit_raif', () => {
      V_ip6(h.vnet).params.forwarding = true;
      h.inject6(solicit(FROM, US6));
      expect(answer().body[4]).to.equal(R | S);
    });

    it('about an anycast address lacks O', () => {
      expect(inPass(in6_aifaddr, h.ifp, parseIn6('2001:db8::aa')!, 64, IN6_IFF_ANYCAST)).to.equal(
        0,
      );
      h.inject6(
        solicit({ src: PEER6, dst: solicitedNode('2001:db8::aa') }, '2001:db8::aa', slla),
        '33:33:ff:00:00:aa',
      );
      expect(answer().body[4]).to.equal(S);
    });

    it('from :: goes to all nodes without S, from the link-local address', () => {
      h.inject6(
        solicit({ src: '::', dst: GROUP }, US6, [NONCE, 1, 1, 2, 3, 4, 5, 6]),
        '33:33:ff:00:00:02',
      );
      const { src, dst, body, hlim } = answer();
      expect([src, dst, body[4], hlim]).to.deep.equal([ip6(US_LL), ip6('ff02::1'), O, 255]);
      expect([...body.subarray(24)]).to.deep.equal(lla(TLLA, '02:00:00:00:00:02'));
    });
  });

  it('announces each address after a change of the Ethernet address', () => {
    inPass(if_setlladdr, h.ifp, Uint8Array.from(mac('02:00:00:00:00:42')));
    const sent = h.take6().filter(({ body }) => body[0] === ADVERT);
    expect(sent.map(({ dst }) => dst)).to.deep.equal([ip6('ff02::1'), ip6('ff02::1')]);
    const targets = sent.map(({ body }) => [...body.subarray(8, 24)]);
    expect(targets).to.deep.equal([ip6(US_LL), ip6(US6)]);
    for (const { body, hlim } of sent)
      expect([body[4], hlim, ...body.subarray(24)]).to.deep.equal([
        O,
        255,
        ...lla(TLLA, '02:00:00:00:00:42'),
      ]);
    inPass(if_setlladdr, h.ifp, Uint8Array.from(mac('02:00:00:00:00:42')));
    expect(h.take6(), 'no change').to.deep.equal([]);
  });

  it('nd6_useloopback=0: without a route by lo0 a packet to ourselves is looped', () => {
    V_nd6(h.vnet).params.nd6_useloopback = 0;
    expect(inPass(in6_aifaddr, h.ifp, parseIn6('2001:db8::55')!, 64, 0)).to.equal(0);
    const so = h.udp6(7000);
    expect(soSendDgram(so, Uint8Array.from([65]), 0, 1, sin6('2001:db8::55', 7000))).to.equal(0);
    h.advance(1);
    expect([h.datagram(so), h.sent.length]).to.deep.equal(['A', 0]);
  });
});

describe('neighbour discovery: a flood', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6({ nud: true });
  });
  afterEach(() => h.close());

  const N = 30_000;
  const nth = (i: number): string =>
    `2001:db8::1:${(i >>> 12).toString(16)}:${(i & 0xfff).toString(16)}`;
  const clear = (): void => {
    h.sent.length = 0;
    h.chains.length = 0;
  };
  const answers = (): void => {
    clear();
    h.inject6(buildIcmp6(FROM, [128, 0, 0, 0, 0, 1, 0, 1]));
    let sent = h.take6();
    // The flood may have evicted the entry of an idle peer, which is then resolved again.
    if (sent.some(({ body }) => body[0] === SOLICIT && body[23] === 1)) {
      h.inject6(advert(FROM, PEER6, S | O, lla(TLLA, PEER_MAC)));
      sent = h.take6();
    }
    expect(sent.filter(({ body }) => body[0] === 129)).to.have.lengthOf(1);
    h.inject6(solicit({ src: PEER_LL, dst: US_LL }, US_LL, lla(SLLA, PEER_MAC)));
    expect(h.take6().filter(({ body }) => body[0] === ADVERT)).to.have.lengthOf(1);
  };

  const floods: [string, (i: number) => Uint8Array][] = [
    [
      'solicitations from a /64',
      (i) => solicit({ src: nth(i), dst: US6 }, US6, lla(SLLA, PEER_MAC)),
    ],
    [
      'advertisements of a /64',
      (i) => advert({ src: nth(i), dst: US6 }, nth(i), S | O, lla(TLLA, PEER_MAC)),
    ],
    [
      'echo requests from a /64',
      (i) => buildIcmp6({ src: nth(i), dst: US6 }, [128, 0, 0, 0, 0, 1, 0, 1]),
    ],
    ['solicitations of others from ::', (i) => solicit({ src: '::', dst: GROUP }, nth(i))],
  ];
  for (const [what, packet] of floods)
    it(`of ${what}: bounded tables, and answers within a second`, () => {
      for (let i = 0; i < N; i++) {
        h.inject6(packet(i));
        if (i % 100 === 0) clear();
      }
      expect(nd6Table(h.ifp)!.table.size).to.be.at.most(16_384);
      expect(mbufZones().mbuf.current).to.be.below(3000);
      answers();
      h.advance(1000);
      answers();
      // All timers run: the table does not grow, and nothing is kept of what nobody answers.
      for (let s = 0; s < 20; s++) {
        h.advance(1000);
        clear();
      }
      expect(nd6Table(h.ifp)!.table.size).to.be.at.most(16_384);
    }).timeout(60_000);
});
