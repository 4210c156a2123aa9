/** Memberships, source filters and multicast options of UDP sockets, and the reports of IGMP. */

import { expect } from 'chai';
import { AF_INET, IPPROTO_IP, SOCK_DGRAM, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { Sockopt, SOPT_GET, SOPT_SET } from '../../src/kern/sockopt.ts';
import { ioResult, soRecvDgram, soSendDgram } from '../../src/kern/sys_generic.ts';
import { soReceivedFrom } from '../../src/kern/uipc_dgram.ts';
import {
  SO_REUSEADDR,
  SO_REUSEPORT,
  sobind,
  soclose,
  socreate,
  type Socket,
  soResult,
} from '../../src/kern/uipc_socket.ts';
import { sogetopt, sosetopt } from '../../src/kern/uipc_sockopt.ts';
import { ifunit } from '../../src/net/if.ts';
import { igmpstat } from '../../src/netinet/igmp.ts';
import { inSockaddr } from '../../src/netinet/in.ts';
import { inetIfEvents } from '../../src/netinet/in_ifaddr.ts';
import {
  IP_ADD_MEMBERSHIP,
  IP_ADD_SOURCE_MEMBERSHIP,
  IP_BLOCK_SOURCE,
  IP_DROP_MEMBERSHIP,
  IP_DROP_SOURCE_MEMBERSHIP,
  IP_MULTICAST_IF,
  IP_MULTICAST_LOOP,
  IP_MULTICAST_TTL,
  IP_UNBLOCK_SOURCE,
} from '../../src/netinet/in_mcast.ts';
import {
  MCAST_JOIN_GROUP,
  MCAST_JOIN_SOURCE_GROUP,
  MCAST_LEAVE_GROUP,
} from '../../src/netinet/in_membership.ts';
import { ipstat } from '../../src/netinet/ip_var.ts';
import { udpstat } from '../../src/netinet/udp_var.ts';
import {
  EADDRINUSE,
  EADDRNOTAVAIL,
  EHOSTUNREACH,
  EINVAL,
  ENOBUFS,
  ENOSPC,
  EOPNOTSUPP,
  type Errno,
} from '../../src/sys/errno.ts';
import { port } from '../../src/sys/types.ts';
import { buildIp4, buildUdp, decodeFrame, ip4, naiveSum } from '../support/frames.ts';
import { addr, PEER, Rig, US } from './rig.ts';

const GROUP = '239.1.2.3';
const GROUP_MAC = '01:00:5e:01:02:03';
const ALL_HOSTS = '224.0.0.1';
const ALL_HOSTS_MAC = '01:00:5e:00:00:01';
const RA = [0x94, 4, 0, 0];
const S = (n: number): string => `198.51.100.${n}`;
const OTHER = '192.0.2.77';

/** An IGMP message with its checksum, in a packet with TTL 1. */
function igmp(src: string, dst: string, body: number[], ttl = 1): Uint8Array {
  const sum = 0xffff - naiveSum(body);
  const bytes = [...body];
  bytes[2] = sum >>> 8;
  bytes[3] = sum & 0xff;
  return buildIp4({ src, dst, ttl, options: RA }, 2, bytes);
}

const oldQuery = (group: string, code: number): number[] => [0x11, code, 0, 0, ...ip4(group)];
const newQuery = (group: string, code: number, sources: string[] = [], qrv = 2): number[] => [
  ...oldQuery(group, code),
  qrv,
  125,
  sources.length >> 8,
  sources.length & 0xff,
  ...sources.flatMap(ip4),
];

/** The words of an IGMP message, as text: `v3 [to_ex 239.1.2.3 {…}]`, `v2 …`, `leave …`. */
function igmpText(frame: Uint8Array): string {
  const { ip, dst } = decodeFrame(frame);
  expect(ip!.proto).to.equal(2);
  expect(ip!.ttl).to.equal(1);
  expect(ip!.tos).to.equal(0xc0);
  expect([...ip!.options]).to.deep.equal(RA);
  const b = ip!.payload;
  expect(naiveSum(b)).to.equal(0xffff);
  expect(dst.slice(9)).to.equal(
    ip4(ip!.dst)
      .map((n, i) => (i === 1 ? n & 0x7f : n))
      .slice(1)
      .map((n) => n.toString(16).padStart(2, '0'))
      .join(':'),
  );
  const ip4At = (at: number): string => b.subarray(at, at + 4).join('.');
  if (b[0] !== 0x22)
    return `${{ 0x12: 'v1', 0x16: 'v2', 0x17: 'leave' }[b[0]!]} ${ip4At(4)} to ${ip!.dst}`;
  expect(ip!.dst).to.equal('224.0.0.22');
  const types = ['', 'is_in', 'is_ex', 'to_in', 'to_ex', 'allow', 'block'];
  const records: string[] = [];
  let at = 8;
  for (let i = 0; i < b[6]! * 256 + b[7]!; i++) {
    const n = b[at + 2]! * 256 + b[at + 3]!;
    const sources = Array.from({ length: n }, (_, j) => ip4At(at + 8 + 4 * j)).toSorted();
    records.push(`${types[b[at]!]} ${ip4At(at + 4)} {${sources.join(' ')}}`);
    at += 8 + 4 * n;
  }
  expect(at).to.equal(b.length);
  return records.join(', ');
}

describe('in_mcast and igmp', () => {
  let rig: Rig;
  let open: Socket[];
  beforeEach(() => {
    rig = new Rig();
    open = [];
  });
  afterEach(() => {
    for (const so of open) soclose(so);
    rig.close();
  });

  function socket(bindTo = '0.0.0.0', p = 5000, type = SOCK_DGRAM): Socket {
    expect(socreate(rig.vnet, AF_INET, type, 0)).to.equal(0);
    const so = soResult.so!;
    open.push(so);
    so.so_options |= bindTo === '0.0.0.0' ? SO_REUSEPORT : SO_REUSEADDR;
    expect(sobind(so, inSockaddr(addr(bindTo), port(p)))).to.equal(0);
    return so;
  }
  const close = (so: Socket): void => {
    open.splice(open.indexOf(so), 1);
    soclose(so);
  };
  const set = (so: Socket, name: number, bytes: number[]): Errno =>
    sosetopt(so, new Sockopt(SOPT_SET, IPPROTO_IP, name, Uint8Array.from(bytes)));
  const get = (so: Socket, name: number, size: number): number[] => {
    const sopt = new Sockopt(SOPT_GET, IPPROTO_IP, name, new Uint8Array(size));
    expect(sogetopt(so, sopt)).to.equal(0);
    return [...sopt.sopt_val.subarray(0, sopt.sopt_valsize)];
  };
  const mreq = (...addrs: string[]): number[] => addrs.flatMap(ip4);
  const join = (so: Socket, group = GROUP): Errno =>
    set(so, IP_ADD_MEMBERSHIP, mreq(group, '0.0.0.0'));
  const leave = (so: Socket, group = GROUP): Errno =>
    set(so, IP_DROP_MEMBERSHIP, mreq(group, '0.0.0.0'));
  const withSource = (so: Socket, name: number, source: string, group = GROUP): Errno =>
    set(so, name, mreq(group, source, US));
  const sin = (a: string): number[] => [
    16,
    2,
    0,
    0,
    ...ip4(a),
    ...Array.from({ length: 120 }, () => 0),
  ];
  const groupReq = (index: number, ...addrs: string[]): number[] => [
    index,
    ...Array.from({ length: 7 }, () => 0),
    ...addrs.flatMap(sin),
  ];
  const groups = (): string[] =>
    rig.ifp.if_multiaddrs.map(({ ifma_lladdr, ifma_refcount }) => {
      const text = [...ifma_lladdr].map((n) => n.toString(16).padStart(2, '0')).join(':');
      return `${text} ${ifma_refcount}`;
    });
  const deliver = (src = PEER, group = GROUP, p = 5000): void =>
    rig.injectIp(
      buildUdp({ src, dst: group, ttl: 1 }, { sport: 1, dport: p, payload: 'x' }),
      0,
      GROUP_MAC,
    );
  const received = (so: Socket): number => {
    const buf = new Uint8Array(100);
    let n = 0;
    while (soRecvDgram(so, buf, 0, 100, 0, soReceivedFrom) === 0) n++;
    return n;
  };
  const advance = (s: number): void => rig.clock.advance(s * 1e9);
  const reports = (): string[] => rig.sent.splice(0).map(igmpText);

  describe('membership', () => {
    it('filters by group, counts references per interface, and ends with the socket', () => {
      const a = socket();
      const b = socket();
      deliver();
      expect(received(a) + received(b)).to.equal(0);
      expect(ipstat(rig.vnet).ips_notmember).to.equal(1);
      expect(join(a)).to.equal(0);
      expect(join(b)).to.equal(0);
      expect(groups()).to.deep.equal([`${ALL_HOSTS_MAC} 1`, `${GROUP_MAC} 1`]);
      deliver();
      expect([received(a), received(b)]).to.deep.equal([1, 1]);
      // The other socket keeps the group on the interface, but this one gets nothing any more.
      expect(leave(a)).to.equal(0);
      deliver();
      expect([received(a), received(b)]).to.deep.equal([0, 1]);
      expect(ipstat(rig.vnet).ips_notmember).to.equal(2);
      close(b);
      expect(groups()).to.deep.equal([`${ALL_HOSTS_MAC} 1`]);
    });

    it('a socket without any multicast option gets what the host receives', () => {
      const plain = socket();
      expect(join(socket())).to.equal(0);
      deliver();
      expect(received(plain)).to.equal(1);
    });

    it('a socket may be bound to a group, and several with SO_REUSEADDR', () => {
      const a = socket(GROUP);
      const b = socket(GROUP);
      expect(join(a)).to.equal(0);
      expect(join(b)).to.equal(0);
      deliver();
      expect([received(a), received(b)]).to.deep.equal([1, 1]);
      rig.injectIp(buildUdp({ src: PEER, dst: US }, { sport: 1, dport: 5000, payload: 'x' }));
      expect(received(a) + received(b)).to.equal(0);
    });

    it('has the errnos of FreeBSD', () => {
      const so = socket();
      expect(leave(so)).to.equal(EADDRNOTAVAIL);
      expect(join(so, PEER)).to.equal(EINVAL);
      expect(set(so, IP_ADD_MEMBERSHIP, ip4(GROUP))).to.equal(EINVAL);
      expect(set(so, IP_ADD_MEMBERSHIP, mreq(GROUP, OTHER))).to.equal(EADDRNOTAVAIL);
      expect(set(so, IP_ADD_MEMBERSHIP, [...mreq(GROUP, '0.0.0.0'), 99, 0, 0, 0])).to.equal(
        EADDRNOTAVAIL,
      );
      expect(join(so)).to.equal(0);
      expect(join(so)).to.equal(EADDRINUSE);
      expect(withSource(so, IP_ADD_SOURCE_MEMBERSHIP, S(1))).to.equal(EINVAL);
      expect(withSource(so, IP_DROP_SOURCE_MEMBERSHIP, S(1))).to.equal(EADDRNOTAVAIL);
      expect(withSource(so, IP_UNBLOCK_SOURCE, S(1))).to.equal(EADDRNOTAVAIL);
      expect(withSource(so, IP_BLOCK_SOURCE, S(1))).to.equal(0);
      expect(withSource(so, IP_BLOCK_SOURCE, S(1))).to.equal(EADDRNOTAVAIL);
      const ssm = socket();
      expect(withSource(ssm, IP_ADD_SOURCE_MEMBERSHIP, S(1))).to.equal(0);
      expect(withSource(ssm, IP_ADD_SOURCE_MEMBERSHIP, S(1))).to.equal(EADDRNOTAVAIL);
      expect(withSource(ssm, IP_BLOCK_SOURCE, S(1))).to.equal(EINVAL);
      expect(join(ssm)).to.equal(EINVAL);
      expect(join(socket('0.0.0.0', 80, SOCK_STREAM))).to.equal(EOPNOTSUPP);
      expect(set(so, IP_MULTICAST_IF, ip4(OTHER))).to.equal(EADDRNOTAVAIL);
      expect(set(so, IP_MULTICAST_TTL, [0, 1, 0, 0])).to.equal(EINVAL);
      expect(set(so, IP_MULTICAST_TTL, [1, 0])).to.equal(EINVAL);
    });

    it('joins with ip_mreqn and with the protocol-independent options', () => {
      const { if_index } = rig.ifp;
      const so = socket();
      expect(set(so, IP_ADD_MEMBERSHIP, [...mreq(GROUP, '0.0.0.0'), if_index, 0, 0, 0])).to.equal(
        0,
      );
      deliver();
      expect(received(so)).to.equal(1);
      expect(set(so, MCAST_LEAVE_GROUP, groupReq(if_index, GROUP))).to.equal(0);
      expect(set(so, MCAST_JOIN_GROUP, groupReq(99, GROUP))).to.equal(EADDRNOTAVAIL);
      expect(set(so, MCAST_JOIN_SOURCE_GROUP, groupReq(if_index, GROUP))).to.equal(EINVAL);
      expect(set(so, MCAST_JOIN_SOURCE_GROUP, groupReq(if_index, GROUP, PEER))).to.equal(0);
      deliver();
      deliver(S(1));
      expect(received(so)).to.equal(1);
      expect(udpstat(rig.vnet).udps_filtermcast).to.equal(1);
    });

    it('excludes blocked sources', () => {
      const so = socket();
      expect(join(so)).to.equal(0);
      expect(withSource(so, IP_BLOCK_SOURCE, S(1))).to.equal(0);
      deliver(S(1));
      deliver(S(2));
      expect(received(so)).to.equal(1);
      expect(withSource(so, IP_UNBLOCK_SOURCE, S(1))).to.equal(0);
      deliver(S(1));
      expect(received(so)).to.equal(1);
    });

    it('limits the sources of a socket and of a group', () => {
      const so = socket();
      expect(rig.vnet.sysctl.write('net.inet.ip.mcast.maxsocksrc', '2')).to.equal(0);
      expect(withSource(so, IP_ADD_SOURCE_MEMBERSHIP, S(1))).to.equal(0);
      expect(withSource(so, IP_ADD_SOURCE_MEMBERSHIP, S(2))).to.equal(0);
      expect(withSource(so, IP_ADD_SOURCE_MEMBERSHIP, S(3))).to.equal(ENOBUFS);
      expect(rig.vnet.sysctl.write('net.inet.ip.mcast.maxgrpsrc', '3')).to.equal(0);
      const other = socket();
      expect(withSource(other, IP_ADD_SOURCE_MEMBERSHIP, S(3))).to.equal(0);
      expect(withSource(other, IP_ADD_SOURCE_MEMBERSHIP, S(4))).to.equal(ENOSPC);
      deliver(S(4));
      expect(received(other)).to.equal(0);
      // The third socket's first source does not fit either: it is not a member.
      expect(withSource(socket(), IP_ADD_SOURCE_MEMBERSHIP, S(5))).to.equal(ENOSPC);
      expect(groups()).to.deep.equal([`${ALL_HOSTS_MAC} 1`, `${GROUP_MAC} 1`]);
    });

    it('ends when the interface goes', () => {
      const so = socket();
      expect(join(so)).to.equal(0);
      expect(set(so, IP_MULTICAST_IF, ip4(US))).to.equal(0);
      inetIfEvents.ifDetaching(rig.ifp);
      expect(get(so, IP_MULTICAST_IF, 4)).to.deep.equal([0, 0, 0, 0]);
      expect(leave(so)).to.equal(EADDRNOTAVAIL);
      expect(groups()).to.deep.equal([]);
    });
  });

  describe('sending', () => {
    const send = (so: Socket): Errno =>
      soSendDgram(so, Uint8Array.of(1, 2), 0, 2, inSockaddr(addr(GROUP), port(5000)));

    it('needs a route or IP_MULTICAST_IF; the TTL is 1 and a copy comes back to members', () => {
      const so = socket();
      expect(send(so)).to.equal(EHOSTUNREACH);
      expect(set(so, IP_MULTICAST_IF, ip4(US))).to.equal(0);
      expect(get(so, IP_MULTICAST_IF, 4)).to.deep.equal(ip4(US));
      expect(get(so, IP_MULTICAST_IF, 12)).to.deep.equal([
        ...ip4('0.0.0.0'),
        ...ip4(US),
        rig.ifp.if_index,
        0,
        0,
        0,
      ]);
      expect(send(so)).to.equal(0);
      const { ip, dst } = decodeFrame(rig.sent.splice(0)[0]!);
      expect(dst).to.equal(GROUP_MAC);
      expect(ip).to.include({ src: US, dst: GROUP, ttl: 1 });
      expect(received(so), 'not a member').to.equal(0);
      expect(join(so)).to.equal(0);
      expect(send(so)).to.equal(0);
      expect(received(so)).to.equal(1);
      expect(soReceivedFrom.name.w0).to.equal(addr(US));
      expect(set(so, IP_MULTICAST_LOOP, [0])).to.equal(0);
      expect(send(so)).to.equal(0);
      expect(received(so)).to.equal(0);
      expect(get(so, IP_MULTICAST_LOOP, 1)).to.deep.equal([0]);
    });

    it('net.inet.ip.mcast.loop is the default of a socket with other multicast options', () => {
      expect(rig.vnet.sysctl.write('net.inet.ip.mcast.loop', '0')).to.equal(0);
      const so = socket();
      expect(set(so, IP_MULTICAST_IF, ip4(US))).to.equal(0);
      expect(join(so)).to.equal(0);
      expect(get(so, IP_MULTICAST_LOOP, 1)).to.deep.equal([0]);
      expect(send(so)).to.equal(0);
      expect(received(so)).to.equal(0);
    });

    it('IP_MULTICAST_TTL sets the TTL; with 0 nothing leaves the host', () => {
      const so = socket();
      expect(set(so, IP_MULTICAST_IF, ip4(US))).to.equal(0);
      expect(join(so)).to.equal(0);
      expect(get(so, IP_MULTICAST_TTL, 4)).to.deep.equal([1, 0, 0, 0]);
      expect(set(so, IP_MULTICAST_TTL, [7])).to.equal(0);
      expect(send(so)).to.equal(0);
      expect(decodeFrame(rig.sent.splice(0)[0]!).ip!.ttl).to.equal(7);
      expect(set(so, IP_MULTICAST_TTL, [0])).to.equal(0);
      expect(send(so)).to.equal(0);
      expect(rig.sent).to.deep.equal([]);
      expect(received(so)).to.equal(2);
    });

    it('a datagram in fragments comes back whole', () => {
      const so = socket();
      expect(set(so, IP_MULTICAST_IF, ip4(US))).to.equal(0);
      expect(join(so)).to.equal(0);
      const data = Uint8Array.from({ length: 4000 }, (_, i) => i & 0xff);
      expect(soSendDgram(so, data, 0, 4000, inSockaddr(addr(GROUP), port(5000)))).to.equal(0);
      expect(rig.sent.splice(0).length).to.equal(3);
      const buf = new Uint8Array(5000);
      expect(soRecvDgram(so, buf, 0, 5000, 0, soReceivedFrom)).to.equal(0);
      expect(Buffer.from(buf.subarray(0, ioResult.n)).equals(data)).to.equal(true);
    });
  });

  describe('IGMPv3 reports', () => {
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
      expect(igmpstat(rig.vnet).igps_snd_reports).to.equal(4);
    });

    it('sources: the filter of the group combines those of the sockets', () => {
      const a = socket();
      withSource(a, IP_ADD_SOURCE_MEMBERSHIP, S(1));
      advance(4);
      expect(reports()).to.deep.equal([`to_in ${GROUP} {${S(1)}}`, `to_in ${GROUP} {${S(1)}}`]);
      withSource(a, IP_ADD_SOURCE_MEMBERSHIP, S(2));
      advance(4);
      expect(reports()).to.deep.equal([`allow ${GROUP} {${S(2)}}`, `allow ${GROUP} {${S(2)}}`]);
      withSource(a, IP_DROP_SOURCE_MEMBERSHIP, S(1));
      advance(4);
      expect(reports()).to.deep.equal([`block ${GROUP} {${S(1)}}`, `block ${GROUP} {${S(1)}}`]);
      const b = socket();
      join(b);
      withSource(b, IP_BLOCK_SOURCE, S(2));
      withSource(b, IP_BLOCK_SOURCE, S(3));
      advance(4);
      expect(reports()).to.deep.equal([`to_ex ${GROUP} {${S(3)}}`, `to_ex ${GROUP} {${S(3)}}`]);
      close(b);
      advance(4);
      expect(reports()).to.deep.equal([`to_in ${GROUP} {${S(2)}}`, `to_in ${GROUP} {${S(2)}}`]);
    });

    it('answers general, group and group-and-source queries', () => {
      const a = socket();
      join(a);
      withSource(a, IP_BLOCK_SOURCE, S(9));
      const b = socket();
      withSource(b, IP_ADD_SOURCE_MEMBERSHIP, S(1), '239.9.9.9');
      advance(10);
      rig.sent.length = 0;
      const query = (dst: string, group: string, sources: string[] = []): string[] => {
        rig.injectIp(igmp(PEER, dst, newQuery(group, 10, sources)), 0, ALL_HOSTS_MAC);
        advance(1);
        return reports();
      };
      expect(query(ALL_HOSTS, '0.0.0.0')).to.deep.equal([
        `is_ex ${GROUP} {${S(9)}}, is_in 239.9.9.9 {${S(1)}}`,
      ]);
      expect(query(GROUP, GROUP)).to.deep.equal([`is_ex ${GROUP} {${S(9)}}`]);
      expect(query(GROUP, GROUP, [S(8), S(9)])).to.deep.equal([`is_in ${GROUP} {${S(8)}}`]);
      // One group-and-source query of a group in 10 s.
      expect(query(GROUP, GROUP, [S(8)])).to.deep.equal([]);
      expect(igmpstat(rig.vnet).igps_drop_gsr_queries).to.equal(1);
      expect(query('239.9.9.9', '239.9.9.9', [S(1), S(2)])).to.deep.equal([
        `is_in 239.9.9.9 {${S(1)}}`,
      ]);
      expect(query(GROUP, '0.0.0.0')).to.deep.equal([]);
      expect(query(ALL_HOSTS, '0.0.0.0', [S(1)])).to.deep.equal([]);
      expect(igmpstat(rig.vnet)).to.include({
        igps_rcv_v3_queries: 7,
        igps_rcv_gen_queries: 3,
        igps_rcv_group_queries: 1,
        igps_rcv_gsr_queries: 3,
        igps_rcv_badqueries: 2,
      });
    });

    it('uses the robustness variable of the querier', () => {
      rig.injectIp(igmp(PEER, ALL_HOSTS, newQuery('0.0.0.0', 1, [], 4)), 0, ALL_HOSTS_MAC);
      join(socket());
      advance(20);
      expect(reports().length).to.equal(4);
    });

    it('splits many groups over several packets, and cuts a long list that excludes', () => {
      const so = socket();
      for (let i = 0; i < 200; i++) expect(join(so, `239.0.1.${i}`)).to.equal(0);
      advance(0.2);
      const texts = reports();
      expect(texts.length).to.equal(2);
      expect(texts.join(', ').split(', ').length).to.equal(200);
    });

    it('does not report 224.0.0.1, nor with sendlocal=0 other groups of the link', () => {
      const so = socket();
      expect(join(so, ALL_HOSTS)).to.equal(0);
      expect(rig.vnet.sysctl.write('net.inet.igmp.sendlocal', '0')).to.equal(0);
      expect(join(so, '224.0.0.251')).to.equal(0);
      advance(10);
      expect(reports()).to.deep.equal([]);
      const lo = ifunit(rig.vnet, 'lo0')!;
      const before = lo.if_multiaddrs.length;
      expect(set(so, IP_ADD_MEMBERSHIP, mreq(GROUP, '127.0.0.1'))).to.equal(0);
      expect(lo.if_multiaddrs.length).to.equal(before + 1);
      advance(10);
      expect(reports()).to.deep.equal([]);
    });

    it('drops bad messages: TTL, checksum, length', () => {
      join(socket());
      advance(10);
      rig.sent.length = 0;
      const good = newQuery('0.0.0.0', 1);
      rig.injectIp(igmp(PEER, ALL_HOSTS, good, 2), 0, ALL_HOSTS_MAC);
      const bad = igmp(PEER, ALL_HOSTS, good);
      bad[bad.length - 1]! ^= 1;
      rig.injectIp(bad, 0, ALL_HOSTS_MAC);
      rig.injectIp(igmp(PEER, ALL_HOSTS, [0x11, 0, 0, 0]), 0, ALL_HOSTS_MAC);
      rig.injectIp(igmp(PEER, ALL_HOSTS, [...oldQuery('0.0.0.0', 1), 0, 0]), 0, ALL_HOSTS_MAC);
      const lying = newQuery(GROUP, 1);
      lying[11] = 200;
      rig.injectIp(igmp(PEER, GROUP, lying), 0, GROUP_MAC);
      advance(10);
      expect(reports()).to.deep.equal([]);
      expect(igmpstat(rig.vnet)).to.include({
        igps_rcv_total: 5,
        igps_rcv_badttl: 1,
        igps_rcv_badsum: 1,
        igps_rcv_tooshort: 3,
      });
    });

    it('a flood of queries keeps at most one timer and maxgrpsrc sources per group', () => {
      join(socket());
      expect(rig.vnet.sysctl.write('net.inet.igmp.gsrdelay', '0')).to.equal(0);
      expect(rig.vnet.sysctl.write('net.inet.ip.mcast.maxgrpsrc', '300')).to.equal(0);
      advance(10);
      rig.sent.length = 0;
      for (let i = 0; i < 20; i++) {
        const sources = Array.from({ length: 250 }, (_, j) => `10.${i}.${j >> 8}.${j & 255}`);
        rig.injectIp(igmp(PEER, GROUP, newQuery(GROUP, 50, sources)), 0, GROUP_MAC);
      }
      advance(10);
      const text = reports().join();
      expect(text.match(/10\./g)!.length).to.equal(300);
    });
  });

  describe('IGMPv2 and IGMPv1', () => {
    const older = (code: number): void =>
      rig.injectIp(igmp(PEER, ALL_HOSTS, oldQuery('0.0.0.0', code)), 0, ALL_HOSTS_MAC);

    it('speaks version 2 while its querier is present, then version 3 again', () => {
      const so = socket();
      join(so);
      advance(10);
      rig.sent.length = 0;
      older(10);
      advance(1);
      expect(reports()).to.deep.equal([`v2 ${GROUP} to ${GROUP}`]);
      join(so, '239.9.9.9');
      expect(reports()).to.deep.equal(['v2 239.9.9.9 to 239.9.9.9']);
      leave(so, '239.9.9.9');
      expect(reports()).to.deep.equal(['leave 239.9.9.9 to 224.0.0.2']);
      rig.injectIp(igmp(PEER, GROUP, oldQuery(GROUP, 10)), 0, GROUP_MAC);
      advance(1);
      expect(reports()).to.deep.equal([`v2 ${GROUP} to ${GROUP}`]);
      // 2 * 125 s + 10 s after the last query.
      advance(258);
      join(so, '239.9.9.8');
      expect(reports()).to.deep.equal(['v2 239.9.9.8 to 239.9.9.8']);
      advance(3);
      join(so, '239.9.9.7');
      advance(4);
      expect(reports()).to.deep.equal(['to_ex 239.9.9.7 {}', 'to_ex 239.9.9.7 {}']);
    });

    it("another host's report suppresses ours, and our leave", () => {
      const so = socket();
      join(so);
      advance(10);
      older(100);
      rig.sent.length = 0;
      rig.injectIp(igmp(OTHER, GROUP, [0x16, 0, 0, 0, ...ip4(GROUP)]), 0, GROUP_MAC);
      advance(20);
      leave(so);
      advance(20);
      expect(reports()).to.deep.equal([]);
      expect(igmpstat(rig.vnet).igps_rcv_ourreports).to.equal(1);
    });

    it('version 1 has no leave, and v1enable and v2enable switch off the compatibility', () => {
      const so = socket();
      older(0);
      join(so);
      expect(reports()).to.deep.equal([`v1 ${GROUP} to ${GROUP}`]);
      leave(so);
      expect(reports()).to.deep.equal([]);
      expect(rig.vnet.sysctl.write('net.inet.igmp.v1enable', '0')).to.equal(0);
      expect(rig.vnet.sysctl.write('net.inet.igmp.v2enable', '0')).to.equal(0);
      older(10);
      older(0);
      join(so);
      advance(4);
      expect(reports()).to.deep.equal([`to_ex ${GROUP} {}`, `to_ex ${GROUP} {}`]);
    });
  });
});
