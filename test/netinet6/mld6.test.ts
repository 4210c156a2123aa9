/** Multicast listener discovery: reports of versions 2 and 1, and the queries that cause them. */

import { expect } from 'chai';
import { below, SeededPrng } from '../../src/host/prng.ts';
import { AF_INET6, SOCK_DGRAM } from '../../src/kern/protosw.ts';
import { Sockopt, SOPT_SET } from '../../src/kern/sockopt.ts';
import { soclose, socreate, type Socket, soResult } from '../../src/kern/uipc_socket.ts';
import { sosetopt } from '../../src/kern/uipc_sockopt.ts';
import { ifunit } from '../../src/net/if.ts';
import {
  MCAST_BLOCK_SOURCE,
  MCAST_JOIN_SOURCE_GROUP,
  MCAST_LEAVE_GROUP,
  MCAST_LEAVE_SOURCE_GROUP,
} from '../../src/netinet/in_membership.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP } from '../../src/netinet6/in6_mcast.ts';
import {
  IN6_IFF_NODAD,
  IN6_IFF_TENTATIVE,
  in6Ifextra,
  in6ifa_ifpforlinklocal,
} from '../../src/netinet6/in6_var.ts';
import { in6Ntop, parseIn6 } from '../../src/netinet6/in6.ts';
import { IPPROTO_IPV6 } from '../../src/netinet6/ip6.ts';
import { mldstat } from '../../src/netinet6/mld6.ts';
import type { Errno } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { naiveSum } from '../support/frames.ts';
import { buildIp6, decode6, ip6, isMld, pseudo6, summed } from '../support/six.ts';
import { PEER6, PEER_LL, Rig6, US_LL } from './rig6.ts';

const GROUP = 'ff0e::1:3';
const OTHER = 'ff0e::2:9';
const LINK = 'ff02::99';
const ALL_NODES = 'ff02::1';
const ALL_NODES_MAC = '33:33:00:00:00:01';
const GROUP_MAC = '33:33:00:01:00:03';
const S = (n: number): string => `2001:db8:1::${n.toString(16)}`;
/** The router alert that MLD requires, RFC 3810, 5. */
const RA = [58, 0, 5, 2, 0, 0, 1, 0];

const be16 = (n: number): number[] => [n >>> 8, n & 255];
const le32 = (n: number): number[] => [n & 255, (n >>> 8) & 255, 0, 0];

/** An MLD message in a packet with hop limit 1 and a router alert. */
function mld(src: string, dst: string, body: number[], hlim = 1, options = RA): Uint8Array {
  const f = { src, dst, hlim };
  const message = summed(f, 58, body, 2);
  if (options.length === 0) return buildIp6(f, 58, message);
  return buildIp6(f, 0, [...options, ...message]);
}

const v1 = (type: number, group: string, delayMs = 0): number[] => [
  type,
  0,
  0,
  0,
  ...be16(delayMs),
  0,
  0,
  ...ip6(group),
];
const v2query = (group: string, delay: number, sources: string[] = [], qrv = 2): number[] => [
  ...v1(130, group, delay),
  qrv,
  125,
  ...be16(sources.length),
  ...sources.flatMap(ip6),
];

const text = (b: ArrayLike<number>, at: number): string => {
  const v = new DataView(Uint8Array.from(b).buffer);
  const [w0, w1, w2, w3] = [0, 4, 8, 12].map((i) => v.getInt32(at + i)) as [
    number,
    number,
    number,
    number,
  ];
  return in6Ntop({ w0, w1, w2, w3 });
};

/** A message of the stack as text: `to_ex ff0e::1 {…}`, `v1 … to …`, `done … to …`. */
function mldText(frame: Uint8Array): string {
  const { src, dst, hlim, nxt, body } = decode6(frame);
  expect([nxt, hlim]).to.deep.equal([0, 1]);
  expect([...body.subarray(0, 8)]).to.deep.equal([58, 0, 1, 0, 5, 2, 0, 0]);
  const b = body.subarray(8);
  const sum = naiveSum([...be16(pseudo6(src, dst, 58, b.length)), ...b]);
  expect(sum, 'checksum').to.equal(0xffff);
  expect([...frame.subarray(0, 6)]).to.deep.equal([0x33, 0x33, ...dst.slice(12)]);
  expect([text(src, 0), '::']).to.include(text(src, 0));
  const from = text(src, 0) === US_LL ? '' : ` from ${text(src, 0)}`;
  if (b[0] !== 143) {
    expect(b.length).to.equal(24);
    return `${{ 131: 'v1', 132: 'done' }[b[0]!]} ${text(b, 8)} to ${text(dst, 0)}${from}`;
  }
  expect(text(dst, 0)).to.equal('ff02::16');
  const types = ['', 'is_in', 'is_ex', 'to_in', 'to_ex', 'allow', 'block'];
  const records: string[] = [];
  let at = 8;
  for (let i = 0; i < b[6]! * 256 + b[7]!; i++) {
    const n = b[at + 2]! * 256 + b[at + 3]!;
    const sources = Array.from({ length: n }, (_, j) => text(b, at + 20 + 16 * j)).toSorted();
    records.push(`${types[b[at]!]} ${text(b, at + 4)} {${sources.join(' ')}}${from}`);
    at += 20 + 16 * n;
  }
  expect(at).to.equal(b.length);
  return records.join(', ');
}

describe('mld6', () => {
  let rig: Rig6;
  beforeEach(() => {
    rig = new Rig6();
    advance(10);
    rig.sent.length = 0;
    mldstat(rig.vnet).sndReports = 0;
  });
  afterEach(() => rig.close());

  function socket(): Socket {
    expect(socreate(rig.vnet, AF_INET6, SOCK_DGRAM, 0)).to.equal(0);
    rig.sockets.push(soResult.so!);
    return soResult.so!;
  }
  const close = (so: Socket): void => {
    rig.sockets.splice(rig.sockets.indexOf(so), 1);
    inPass(soclose, so);
  };
  const set = (so: Socket, name: number, bytes: number[]): Errno =>
    inPass(() => sosetopt(so, new Sockopt(SOPT_SET, IPPROTO_IPV6, name, Uint8Array.from(bytes))));
  const index = (): number[] => le32(rig.ifp.if_index);
  const join = (so: Socket, group = GROUP): void =>
    expect(set(so, IPV6_JOIN_GROUP, [...ip6(group), ...index()])).to.equal(0) as never;
  const leave = (so: Socket, group = GROUP): void =>
    expect(set(so, IPV6_LEAVE_GROUP, [...ip6(group), ...index()])).to.equal(0) as never;
  const storage = (a: string): number[] =>
    Array.from({ length: 128 }, (_, i) => [28, AF_INET6, 0, 0, 0, 0, 0, 0, ...ip6(a)][i] ?? 0);
  const withSource = (so: Socket, name: number, source: string, group = GROUP): void =>
    expect(set(so, name, [...index(), 0, 0, 0, 0, ...storage(group), ...storage(source)])).to.equal(
      0,
    ) as never;
  const leaveAny = (so: Socket): void =>
    expect(set(so, MCAST_LEAVE_GROUP, [...index(), 0, 0, 0, 0, ...storage(GROUP)])).to.equal(
      0,
    ) as never;
  const sysctl = (name: string, value: number): void =>
    expect(rig.vnet.sysctl.write(`net.inet6.${name}`, `${value}`)).to.equal(0) as never;
  function advance(s: number): void {
    rig.clock.advance(s * 1e9);
  }
  const reports = (): string[] => rig.sent.splice(0).filter(isMld).map(mldText);
  const query = (dst: string, body: number[], src = PEER_LL): void =>
    rig.inject6(mld(src, dst, body), dst === ALL_NODES ? ALL_NODES_MAC : GROUP_MAC);

  describe('MLDv2 reports', () => {
    it('reports the solicited-node groups of addresses, but not ff02::1 or ff01::1', () => {
      const add = (): Errno =>
        in6_aifaddr(rig.ifp, parseIn6('2001:db8::abcd:1234')!, 64, IN6_IFF_NODAD);
      expect(inPass(add)).to.equal(0);
      advance(10);
      const one = 'to_ex ff02::1:ffcd:1234 {}';
      expect(reports()).to.deep.equal([one, one]);
      query(ALL_NODES, v2query('::', 1000));
      advance(1);
      const own = ['is_ex ff02::1:ff00:2 {}', 'is_ex ff02::1:ffcd:1234 {}'];
      expect(reports().join(', ').split(', ').toSorted()).to.deep.equal(own);
    });

    it('sends from :: while the link-local address is tentative', () => {
      const ia = in6ifa_ifpforlinklocal(rig.ifp, 0)!;
      ia.ia6_flags |= IN6_IFF_TENTATIVE;
      join(socket());
      advance(0.2);
      expect(reports()).to.deep.equal([`to_ex ${GROUP} {} from ::`]);
      ia.ia6_flags &= ~IN6_IFF_TENTATIVE;
      advance(4);
      expect(reports()).to.deep.equal([`to_ex ${GROUP} {}`]);
    });

    it('a join and a leave, each twice: the robustness variable', () => {
      const so = socket();
      join(so);
      expect(reports()).to.deep.equal([]);
      advance(0.2);
      expect(reports()).to.deep.equal([`to_ex ${GROUP} {}`]);
      advance(3.2);
      expect(reports()).to.deep.equal([`to_ex ${GROUP} {}`]);
      advance(60);
      expect(reports()).to.deep.equal([]);
      leave(so);
      advance(4);
      expect(reports()).to.deep.equal([`to_in ${GROUP} {}`, `to_in ${GROUP} {}`]);
      advance(60);
      expect(reports()).to.deep.equal([]);
      expect(mldstat(rig.vnet).sndReports).to.equal(4);
    });

    it('sources: the filter of the group combines those of the sockets', () => {
      const twice = (record: string): void => {
        advance(4);
        expect(reports()).to.deep.equal([record, record]);
      };
      const a = socket();
      withSource(a, MCAST_JOIN_SOURCE_GROUP, S(1));
      twice(`allow ${GROUP} {${S(1)}}`);
      withSource(a, MCAST_JOIN_SOURCE_GROUP, S(2));
      twice(`allow ${GROUP} {${S(2)}}`);
      withSource(a, MCAST_LEAVE_SOURCE_GROUP, S(1));
      twice(`block ${GROUP} {${S(1)}}`);
      const b = socket();
      join(b);
      withSource(b, MCAST_BLOCK_SOURCE, S(2));
      withSource(b, MCAST_BLOCK_SOURCE, S(3));
      twice(`to_ex ${GROUP} {${S(3)}}`);
      close(b);
      twice(`to_in ${GROUP} {${S(2)}}`);
      close(a);
      twice(`block ${GROUP} {${S(2)}}`);
      query(ALL_NODES, v2query('::', 1000));
      advance(1);
      expect(reports().join()).not.to.include(GROUP);
    });

    it('use_allow=0 reports memberships with sources by their mode', () => {
      sysctl('mld.use_allow', 0);
      const so = socket();
      withSource(so, MCAST_JOIN_SOURCE_GROUP, S(1));
      advance(4);
      expect(reports()).to.deep.equal([`to_in ${GROUP} {${S(1)}}`, `to_in ${GROUP} {${S(1)}}`]);
      leaveAny(so);
      advance(4);
      expect(reports()).to.deep.equal([`to_in ${GROUP} {}`, `to_in ${GROUP} {}`]);
    });

    it('a membership whose last source left ends without a report', () => {
      const so = socket();
      withSource(so, MCAST_JOIN_SOURCE_GROUP, S(1));
      withSource(so, MCAST_LEAVE_SOURCE_GROUP, S(1));
      advance(10);
      rig.sent.length = 0;
      const { groups } = in6Ifextra(rig.ifp)!.mld_ifinfo;
      const { size } = groups;
      leaveAny(so);
      advance(10);
      expect(reports()).to.deep.equal([]);
      expect(groups.size, 'groups').to.equal(size - 1);
      join(so);
      advance(10);
      expect(reports()).to.deep.equal([`to_ex ${GROUP} {}`, `to_ex ${GROUP} {}`]);
    });

    it('answers general, group and group-and-source queries', () => {
      const a = socket();
      join(a);
      withSource(a, MCAST_BLOCK_SOURCE, S(9));
      const b = socket();
      withSource(b, MCAST_JOIN_SOURCE_GROUP, PEER_LL, LINK);
      advance(10);
      rig.sent.length = 0;
      const asked = (dst: string, group: string, sources: string[] = []): string[] => {
        query(dst, v2query(group, 1000, sources));
        advance(1);
        return reports();
      };
      expect(asked(ALL_NODES, '::')[0]!.split(', ').toSorted()).to.deep.equal([
        'is_ex ff02::1:ff00:2 {}',
        `is_ex ${GROUP} {${S(9)}}`,
        `is_in ${LINK} {${PEER_LL}}`,
      ]);
      expect(asked(GROUP, GROUP)).to.deep.equal([`is_ex ${GROUP} {${S(9)}}`]);
      expect(asked(GROUP, GROUP, [S(8), S(9)])).to.deep.equal([`is_in ${GROUP} {${S(8)}}`]);
      // One group-and-source query of a group in 10 s.
      expect(asked(GROUP, GROUP, [S(8)])).to.deep.equal([]);
      expect(asked(LINK, LINK, [PEER_LL, S(2)])).to.deep.equal([`is_in ${LINK} {${PEER_LL}}`]);
      expect(asked(ALL_NODES, '::', [S(1)])).to.deep.equal([]);
      expect(asked(GROUP, S(1))).to.deep.equal([]);
      expect(mldstat(rig.vnet)).to.include({
        rcvV2Queries: 7,
        rcvGenQueries: 1,
        rcvGroupQueries: 1,
        rcvGsrQueries: 3,
        dropGsrQueries: 1,
        rcvBadQueries: 2,
      });
    });

    it('waits as long as the exponential code of the delay says, and not longer', () => {
      // 0x8800: 0x1800 << 3 = 49.152 s.
      query(ALL_NODES, v2query('::', 0x8800));
      let waited = 0;
      while (rig.sent.length === 0 && waited < 60) {
        advance(0.2);
        waited += 0.2;
      }
      expect(waited).to.be.below(49.4);
      const delays = new Set<number>();
      for (let i = 0; i < 20; i++) {
        rig.sent.length = 0;
        query(ALL_NODES, v2query('::', 10_000));
        let n = 0;
        for (; rig.sent.length === 0; n++) advance(0.2);
        delays.add(n);
        expect(n).to.be.at.most(50);
      }
      expect(delays.size, 'random').to.be.above(5);
    });

    it('uses the robustness variable of the querier', () => {
      query(ALL_NODES, v2query('::', 1, [], 4));
      advance(1);
      rig.sent.length = 0;
      join(socket());
      advance(20);
      expect(reports().length).to.equal(4);
    });

    it('splits many groups over several packets of at most the MTU', () => {
      const so = socket();
      for (let i = 0; i < 200; i++) join(so, `ff0e::7:${(i + 1).toString(16)}`);
      advance(0.2);
      expect(Math.max(...rig.sent.map((f) => f.length - 14))).to.be.at.most(1500);
      const texts = reports();
      expect(texts.length).to.equal(3);
      expect(texts.join(', ').split(', ').length).to.equal(200);
    });

    it('does not report groups of the interface, nor those of lo0', () => {
      const so = socket();
      join(so, 'ff01::5');
      join(so, ALL_NODES);
      const lo = ifunit(rig.vnet, 'lo0')!;
      expect(set(so, IPV6_JOIN_GROUP, [...ip6(GROUP), ...le32(lo.if_index)])).to.equal(0);
      advance(10);
      expect(reports()).to.deep.equal([]);
    });

    it('drops bad messages, each with its count', () => {
      join(socket());
      advance(10);
      rig.sent.length = 0;
      const good = v2query('::', 1000);
      const inject = (packet: Uint8Array): void => rig.inject6(packet, ALL_NODES_MAC);
      inject(mld(PEER_LL, ALL_NODES, good, 2));
      inject(mld(PEER_LL, ALL_NODES, good, 1, []));
      // A router alert of RSVP.
      inject(mld(PEER_LL, ALL_NODES, good, 1, [58, 0, 5, 2, 0, 1, 1, 0]));
      inject(mld(PEER6, ALL_NODES, good));
      inject(mld('::', ALL_NODES, good));
      inject(mld(PEER_LL, ALL_NODES, [130, 0, 0, 0, 0, 0, 0, 0]));
      inject(mld(PEER_LL, ALL_NODES, [...v1(130, '::', 1000), 0, 0]));
      const lying = v2query(GROUP, 1000);
      lying[27] = 200;
      rig.inject6(mld(PEER_LL, GROUP, lying), GROUP_MAC);
      rig.ifp.if_mtu = 9000;
      const many = Array.from({ length: 257 }, (_, i) => S(i + 1));
      rig.inject6(mld(PEER_LL, GROUP, v2query(GROUP, 1000, many)), GROUP_MAC);
      const bad = mld(PEER_LL, ALL_NODES, good);
      bad[bad.length - 1]! ^= 1;
      inject(bad);
      advance(10);
      expect(reports()).to.deep.equal([]);
      expect(mldstat(rig.vnet)).to.include({
        rcvTotal: 9,
        rcvBadHlim: 1,
        rcvNoRa: 2,
        rcvBadQueries: 4,
        rcvTooShort: 2,
      });
    });

    it('v2enable=0 ignores its queries', () => {
      sysctl('mld.v2enable', 0);
      query(ALL_NODES, v2query('::', 1000));
      advance(10);
      expect(reports()).to.deep.equal([]);
    });

    it('a flood of queries keeps at most one timer and maxgrpsrc sources per group', () => {
      join(socket());
      sysctl('mld.gsrdelay', 0);
      sysctl('ip6.mcast.maxgrpsrc', 300);
      advance(10);
      rig.sent.length = 0;
      for (let i = 0; i < 20; i++) {
        const sources = Array.from({ length: 80 }, (_, j) => S(i * 80 + j + 1));
        query(GROUP, v2query(GROUP, 5000, sources));
      }
      advance(10);
      expect(reports().join(' ').match(/2001:/g)!.length).to.equal(300);
    });
  });

  it('random messages with correct checksums never stop the stack', () => {
    const prng = new SeededPrng(9);
    const pick = (n: number): number => below(prng, n);
    const so = socket();
    withSource(so, MCAST_JOIN_SOURCE_GROUP, S(1));
    join(socket());
    const { groups } = in6Ifextra(rig.ifp)!.mld_ifinfo;
    const seeds = [
      v2query(GROUP, 100, [S(1), S(2), S(3)]),
      v2query('::', 0xffff),
      v1(130, GROUP, 10),
      v1(131, GROUP),
      v1(132, GROUP),
      [143, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, ...ip6(GROUP), ...ip6(S(4))],
    ];
    const { size } = groups;
    for (let i = 0; i < 4000; i++) {
      const body = [...seeds[pick(seeds.length)]!];
      for (let n = pick(5); n > 0; n--) body[pick(body.length)] = [0, 255, 2, pick(256)][pick(4)]!;
      const cut = pick(4) === 0 ? body.slice(0, 4 + pick(body.length)) : body;
      const packet = mld(PEER_LL, pick(2) === 0 ? GROUP : ALL_NODES, cut);
      rig.inject6(packet, GROUP_MAC, pick(3) === 0 ? 1 + pick(60) : 0);
      if (i % 500 === 499) advance(30);
      rig.sent.length = 0;
      rig.chains.length = 0;
    }
    expect(groups.size).to.equal(size);
    advance(300_000);
    rig.sent.length = 0;
    query(ALL_NODES, v2query('::', 1000));
    advance(1);
    expect(reports().join()).to.include(GROUP);
  });

  describe('MLDv1', () => {
    const older = (delayMs = 1000): void => query(ALL_NODES, v1(130, '::', delayMs));

    it('speaks version 1 while its querier is present, then version 2 again', () => {
      const so = socket();
      join(so);
      advance(10);
      rig.sent.length = 0;
      older();
      advance(1);
      const solicited = 'v1 ff02::1:ff00:2 to ff02::1:ff00:2';
      expect(reports().toSorted()).to.deep.equal([solicited, `v1 ${GROUP} to ${GROUP}`]);
      join(so, OTHER);
      expect(reports()).to.deep.equal([`v1 ${OTHER} to ${OTHER}`]);
      leave(so, OTHER);
      expect(reports()).to.deep.equal([`done ${OTHER} to ff02::2`]);
      query(GROUP, v1(130, GROUP, 1000));
      advance(1);
      expect(reports()).to.deep.equal([`v1 ${GROUP} to ${GROUP}`]);
      // A query of version 2 is ignored now.
      query(ALL_NODES, v2query('::', 1000));
      advance(2);
      expect(reports()).to.deep.equal([]);
      // 2 * 125 s + 10 s after the last query.
      advance(255);
      join(so, OTHER);
      expect(reports()).to.deep.equal([`v1 ${OTHER} to ${OTHER}`]);
      advance(3);
      join(so, LINK);
      advance(4);
      expect(reports()).to.deep.equal([`to_ex ${LINK} {}`, `to_ex ${LINK} {}`]);
    });

    it("another host's report suppresses ours, and our done", () => {
      const so = socket();
      join(so);
      advance(10);
      older(10_000);
      rig.sent.length = 0;
      query(GROUP, v1(131, GROUP), 'fe80::77');
      advance(20);
      leave(so);
      advance(20);
      expect(reports().join()).not.to.include(GROUP);
      expect(mldstat(rig.vnet)).to.include({ rcvOurReports: 1, rcvBadReports: 0 });
    });

    it('a report of version 1 does not suppress one of version 2, and bad ones are counted', () => {
      join(socket());
      advance(10);
      rig.sent.length = 0;
      query(GROUP, v2query(GROUP, 5000));
      query(GROUP, v1(131, GROUP), 'fe80::77');
      query(GROUP, v1(131, OTHER), 'fe80::77');
      query(GROUP, v1(131, GROUP), PEER6);
      advance(6);
      expect(reports()).to.deep.equal([`is_ex ${GROUP} {}`]);
      expect(mldstat(rig.vnet)).to.include({ rcvReports: 3, rcvOurReports: 1, rcvBadReports: 2 });
    });

    it('v1enable=0 switches off the compatibility, and a bad general query is refused', () => {
      query(GROUP, v1(130, '::', 1000));
      sysctl('mld.v1enable', 0);
      older();
      join(socket());
      advance(4);
      expect(reports()).to.deep.equal([`to_ex ${GROUP} {}`, `to_ex ${GROUP} {}`]);
    });
  });
});
