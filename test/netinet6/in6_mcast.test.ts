/** Memberships, source filters and multicast options of IPv6 sockets. */

import { expect } from 'chai';
import { DgramHandle } from '../../src/api/dgram_handle.ts';
import { AF_INET6, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { Sockopt, SOPT_GET, SOPT_SET } from '../../src/kern/sockopt.ts';
import { soRecvDgram, soSendDgram } from '../../src/kern/sys_generic.ts';
import { soReceivedFrom } from '../../src/kern/uipc_dgram.ts';
import {
  SO_REUSEPORT,
  sobind,
  soclose,
  socreate,
  type Socket,
  soResult,
} from '../../src/kern/uipc_socket.ts';
import { sogetopt, sosetopt } from '../../src/kern/uipc_sockopt.ts';
import {
  MCAST_BLOCK_SOURCE,
  MCAST_JOIN_GROUP,
  MCAST_JOIN_SOURCE_GROUP,
  MCAST_LEAVE_GROUP,
  MCAST_LEAVE_SOURCE_GROUP,
  MCAST_UNBLOCK_SOURCE,
} from '../../src/netinet/in_membership.ts';
import { udpstat } from '../../src/netinet/udp_var.ts';
import { in6RouteAddGateway } from '../../src/netinet6/in6_fib.ts';
import { inet6IfEvents } from '../../src/netinet6/in6_ifattach.ts';
import {
  IPV6_JOIN_GROUP,
  IPV6_LEAVE_GROUP,
  IPV6_MULTICAST_HOPS,
  IPV6_MULTICAST_IF,
  IPV6_MULTICAST_LOOP,
} from '../../src/netinet6/in6_mcast.ts';
import { IPPROTO_ICMPV6, IPPROTO_IPV6 } from '../../src/netinet6/ip6.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import {
  EADDRINUSE,
  EADDRNOTAVAIL,
  EBADF,
  EHOSTUNREACH,
  EINVAL,
  ENOBUFS,
  ENOSPC,
  EOPNOTSUPP,
  type Errno,
} from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { buildIcmp6, buildUdp6, ip6 } from '../support/six.ts';
import { sin6 } from './pair.ts';
import { PEER6, PEER_LL, Rig6, US6, US_LL } from './rig6.ts';

const GROUP = 'ff0e::1:3';
const LINK = 'ff02::99';
const GROUP_MAC = '33:33:00:01:00:03';
const LINK_MAC = '33:33:00:00:00:99';
const S = (n: number): string => `2001:db8:1::${n}`;
const PORT = 5000;

const le32 = (n: number): number[] => [
  n & 255,
  (n >>> 8) & 255,
  (n >>> 16) & 255,
  (n >>> 24) & 255,
];

describe('in6_mcast', () => {
  let rig: Rig6;
  let index: number;
  beforeEach(() => {
    rig = new Rig6();
    index = rig.ifp.if_index;
  });
  afterEach(() => rig.close());

  function socket(bindTo = '::', type = SOCK_DGRAM, protocol = 0): Socket {
    expect(socreate(rig.vnet, AF_INET6, type, protocol)).to.equal(0);
    const so = soResult.so!;
    rig.sockets.push(so);
    so.so_options |= SO_REUSEPORT;
    const nam = sin6(bindTo, type === SOCK_RAW ? 0 : PORT, bindTo === LINK ? index : 0);
    expect(sobind(so, nam)).to.equal(0);
    return so;
  }
  const close = (so: Socket): void => {
    rig.sockets.splice(rig.sockets.indexOf(so), 1);
    inPass(soclose, so);
  };
  const set = (so: Socket, name: number, bytes: number[]): Errno =>
    inPass(() => sosetopt(so, new Sockopt(SOPT_SET, IPPROTO_IPV6, name, Uint8Array.from(bytes))));
  const get = (so: Socket, name: number): number => {
    const sopt = new Sockopt(SOPT_GET, IPPROTO_IPV6, name, new Uint8Array(4));
    expect(sogetopt(so, sopt)).to.equal(0);
    expect(sopt.sopt_valsize).to.equal(4);
    return new DataView(sopt.sopt_val.buffer).getInt32(0, true);
  };
  const mreq = (group: string, n = index): number[] => [...ip6(group), ...le32(n)];
  const join = (so: Socket, group = GROUP, n = index): Errno =>
    set(so, IPV6_JOIN_GROUP, mreq(group, n));
  const leave = (so: Socket, group = GROUP, n = index): Errno =>
    set(so, IPV6_LEAVE_GROUP, mreq(group, n));
  const storage = (a: string): number[] => {
    const head = [28, AF_INET6, 0, 0, 0, 0, 0, 0, ...ip6(a)];
    return [...head, ...Array.from({ length: 128 - head.length }, () => 0)];
  };
  const groupReq = (n: number, ...addrs: string[]): number[] => [
    ...le32(n),
    0,
    0,
    0,
    0,
    ...addrs.flatMap(storage),
  ];
  const withSource = (so: Socket, name: number, source: string, group = GROUP): Errno =>
    set(so, name, groupReq(index, group, source));
  const groups = (): string[] =>
    rig.ifp.if_multiaddrs
      .map(({ ifma_lladdr, ifma_refcount }) => {
        const text = [...ifma_lladdr].map((n) => n.toString(16).padStart(2, '0')).join(':');
        return `${text} ${ifma_refcount}`;
      })
      .filter((text) => text.startsWith(GROUP_MAC) || text.startsWith(LINK_MAC));
  const deliver = (src = PEER6, group = GROUP): void =>
    rig.inject6(buildUdp6({ src, dst: group, hlim: 1 }, 1, PORT, [120]), GROUP_MAC);
  const received = (so: Socket): number => {
    const buf = new Uint8Array(200);
    let n = 0;
    while (soRecvDgram(so, buf, 0, 200, 0, soReceivedFrom) === 0) n++;
    return n;
  };

  describe('membership', () => {
    it('filters by group, counts references per interface, and ends with the socket', () => {
      const [a, b] = [socket(), socket()];
      deliver();
      expect(received(a) + received(b)).to.equal(0);
      expect(rig.stat6.ip6s_notmember).to.equal(1);
      expect(join(a)).to.equal(0);
      expect(join(b)).to.equal(0);
      expect(groups()).to.deep.equal([`${GROUP_MAC} 1`]);
      deliver();
      expect([received(a), received(b)]).to.deep.equal([1, 1]);
      expect(leave(a)).to.equal(0);
      deliver();
      expect([received(a), received(b)]).to.deep.equal([0, 1]);
      expect(rig.stat6.ip6s_notmember).to.equal(2);
      close(b);
      expect(groups()).to.deep.equal([]);
    });

    it('a group of the link belongs to its interface; a socket may be bound to it', () => {
      const so = socket(LINK);
      expect(join(so, LINK)).to.equal(0);
      deliver(PEER_LL, LINK);
      expect(received(so)).to.equal(1);
      expect(soReceivedFrom.name.scope_id).to.equal(index);
      deliver(PEER_LL, GROUP);
      expect(received(so)).to.equal(0);
      expect(leave(so, LINK)).to.equal(0);
    });

    it('has the errnos of FreeBSD', () => {
      const so = socket();
      expect(leave(so)).to.equal(EADDRNOTAVAIL);
      expect(join(so, PEER6)).to.equal(EINVAL);
      expect(set(so, IPV6_JOIN_GROUP, ip6(GROUP))).to.equal(EINVAL);
      expect(join(so, GROUP, 99)).to.equal(EADDRNOTAVAIL);
      // No route to the group: the program must name the interface.
      expect(join(so, GROUP, 0)).to.equal(EADDRNOTAVAIL);
      expect(join(so)).to.equal(0);
      expect(join(so)).to.equal(EADDRINUSE);
      expect(withSource(so, MCAST_JOIN_SOURCE_GROUP, S(1))).to.equal(EINVAL);
      expect(withSource(so, MCAST_LEAVE_SOURCE_GROUP, S(1))).to.equal(EADDRNOTAVAIL);
      expect(withSource(so, MCAST_UNBLOCK_SOURCE, S(1))).to.equal(EADDRNOTAVAIL);
      expect(withSource(so, MCAST_BLOCK_SOURCE, S(1))).to.equal(0);
      expect(withSource(so, MCAST_BLOCK_SOURCE, S(1))).to.equal(EADDRNOTAVAIL);
      const ssm = socket();
      expect(withSource(ssm, MCAST_JOIN_SOURCE_GROUP, S(1))).to.equal(0);
      expect(withSource(ssm, MCAST_JOIN_SOURCE_GROUP, S(1))).to.equal(EADDRNOTAVAIL);
      expect(withSource(ssm, MCAST_BLOCK_SOURCE, S(1))).to.equal(EINVAL);
      expect(join(ssm)).to.equal(EINVAL);
      expect(set(so, MCAST_JOIN_GROUP, groupReq(index, GROUP).slice(0, 135))).to.equal(EINVAL);
      const wrong = groupReq(index, LINK);
      wrong[9] = 2;
      expect(set(so, MCAST_JOIN_GROUP, wrong)).to.equal(EINVAL);
      expect(set(so, MCAST_JOIN_GROUP, groupReq(99, LINK))).to.equal(EADDRNOTAVAIL);
      expect(join(socket('::', SOCK_STREAM))).to.equal(EOPNOTSUPP);
      expect(set(so, IPV6_MULTICAST_IF, le32(99))).to.equal(EINVAL);
      expect(set(so, IPV6_MULTICAST_IF, [1])).to.equal(EINVAL);
      for (const hops of [-2, 256])
        expect(set(so, IPV6_MULTICAST_HOPS, le32(hops))).to.equal(EINVAL);
      for (const loop of [2, -1]) expect(set(so, IPV6_MULTICAST_LOOP, le32(loop))).to.equal(EINVAL);
    });

    it('without an interface takes that of the route to the group', () => {
      expect(in6RouteAddGateway(rig.vnet, parseIn6('::')!, 0, parseIn6(PEER6)!)).to.equal(0);
      const so = socket();
      expect(join(so, GROUP, 0)).to.equal(0);
      expect(groups()).to.deep.equal([`${GROUP_MAC} 1`]);
      expect(leave(so, GROUP, 0)).to.equal(0);
      expect(groups()).to.deep.equal([]);
    });

    it('includes and excludes sources, also link-local ones', () => {
      const so = socket();
      expect(withSource(so, MCAST_JOIN_SOURCE_GROUP, PEER_LL, LINK)).to.equal(0);
      deliver(PEER_LL, LINK);
      deliver('fe80::77', LINK);
      expect(received(so)).to.equal(1);
      expect(udpstat(rig.vnet).udps_filtermcast).to.equal(1);
      expect(withSource(so, MCAST_LEAVE_SOURCE_GROUP, PEER_LL, LINK)).to.equal(0);
      expect(set(so, MCAST_LEAVE_GROUP, groupReq(index, LINK))).to.equal(0);
      expect(set(so, MCAST_JOIN_GROUP, groupReq(index, GROUP))).to.equal(0);
      expect(withSource(so, MCAST_BLOCK_SOURCE, S(1))).to.equal(0);
      deliver(S(1));
      deliver(S(2));
      expect(received(so)).to.equal(1);
      expect(withSource(so, MCAST_UNBLOCK_SOURCE, S(1))).to.equal(0);
      deliver(S(1));
      expect(received(so)).to.equal(1);
    });

    it('limits the sources of a socket and of a group', () => {
      const so = socket();
      expect(rig.vnet.sysctl.write('net.inet6.ip6.mcast.maxsocksrc', '2')).to.equal(0);
      expect(withSource(so, MCAST_JOIN_SOURCE_GROUP, S(1))).to.equal(0);
      expect(withSource(so, MCAST_JOIN_SOURCE_GROUP, S(2))).to.equal(0);
      expect(withSource(so, MCAST_JOIN_SOURCE_GROUP, S(3))).to.equal(ENOBUFS);
      expect(rig.vnet.sysctl.write('net.inet6.ip6.mcast.maxgrpsrc', '3')).to.equal(0);
      const other = socket();
      expect(withSource(other, MCAST_JOIN_SOURCE_GROUP, S(3))).to.equal(0);
      expect(withSource(other, MCAST_JOIN_SOURCE_GROUP, S(4))).to.equal(ENOSPC);
      expect(withSource(socket(), MCAST_JOIN_SOURCE_GROUP, S(5))).to.equal(ENOSPC);
      expect(groups()).to.deep.equal([`${GROUP_MAC} 1`]);
    });

    it('ends when the interface goes', () => {
      const so = socket();
      expect(join(so)).to.equal(0);
      expect(set(so, IPV6_MULTICAST_IF, le32(index))).to.equal(0);
      inPass(() => inet6IfEvents.ifDetaching(rig.ifp));
      expect(get(so, IPV6_MULTICAST_IF)).to.equal(0);
      expect(groups()).to.deep.equal([]);
    });

    it('a raw socket gets a group that it joined, through the same filter', () => {
      const so = socket('::', SOCK_RAW, IPPROTO_ICMPV6);
      expect(withSource(so, MCAST_JOIN_SOURCE_GROUP, PEER6)).to.equal(0);
      const echoReply = (src: string): void => {
        const body = [129, 0, 0, 0, 0, 1, 0, 1];
        rig.inject6(buildIcmp6({ src, dst: GROUP, hlim: 1 }, body), GROUP_MAC);
      };
      echoReply(PEER6);
      echoReply(S(1));
      expect(received(so)).to.equal(1);
    });
  });

  describe('sending', () => {
    const send = (so: Socket, to = GROUP): Errno =>
      inPass(() => soSendDgram(so, Uint8Array.of(1, 2), 0, 2, sin6(to, PORT)));
    const sent = (): { src: number[]; hlim: number }[] => rig.take6();

    it('needs a route or IPV6_MULTICAST_IF; the hop limit is 1 and a copy comes back to members', () => {
      const so = socket();
      expect(send(so)).to.equal(EHOSTUNREACH);
      expect(set(so, IPV6_MULTICAST_IF, le32(index))).to.equal(0);
      expect(get(so, IPV6_MULTICAST_IF)).to.equal(index);
      expect(send(so)).to.equal(0);
      expect(sent()).to.have.lengthOf(1);
      expect(received(so), 'not a member').to.equal(0);
      expect(join(so)).to.equal(0);
      expect(send(so)).to.equal(0);
      const [f] = sent();
      expect(f).to.deep.include({ src: ip6(US6), hlim: 1 });
      expect(received(so)).to.equal(1);
      expect(set(so, IPV6_MULTICAST_LOOP, le32(0))).to.equal(0);
      expect(send(so)).to.equal(0);
      expect(received(so)).to.equal(0);
      expect(get(so, IPV6_MULTICAST_LOOP)).to.equal(0);
      // A group of the link needs no zone with IPV6_MULTICAST_IF, and has a link-local source.
      sent();
      expect(send(so, LINK)).to.equal(0);
      expect(sent()[0]!.src).to.deep.equal(ip6(US_LL));
    });

    it('IPV6_MULTICAST_HOPS sets the hop limit; -1: the default; with 0 nothing leaves', () => {
      const so = socket();
      expect(get(so, IPV6_MULTICAST_HOPS)).to.equal(1);
      expect(set(so, IPV6_MULTICAST_IF, le32(index))).to.equal(0);
      expect(join(so)).to.equal(0);
      const hlims = [7, 255, -1].map((hops) => {
        expect(set(so, IPV6_MULTICAST_HOPS, le32(hops))).to.equal(0);
        expect(send(so)).to.equal(0);
        return sent()[0]!.hlim;
      });
      expect(hlims).to.deep.equal([7, 255, 1]);
      expect(set(so, IPV6_MULTICAST_HOPS, le32(0))).to.equal(0);
      received(so);
      expect(send(so)).to.equal(0);
      expect([sent().length, received(so)]).to.deep.equal([0, 1]);
    });

    it('net.inet6.ip6.mcast.loop is the default of IPV6_MULTICAST_LOOP', () => {
      expect(rig.vnet.sysctl.write('net.inet6.ip6.mcast.loop', '0')).to.equal(0);
      const so = socket();
      expect(get(so, IPV6_MULTICAST_LOOP)).to.equal(0);
      expect(set(so, IPV6_MULTICAST_IF, le32(index))).to.equal(0);
      expect(join(so)).to.equal(0);
      expect(send(so)).to.equal(0);
      expect(received(so)).to.equal(0);
    });
  });

  it('DgramHandle: a group or an interface that is no address of the family is EINVAL', () => {
    for (const type of ['udp4', 'udp6'] as const) {
      const one = new DgramHandle(rig.vnet, { type });
      const group = type === 'udp4' ? '224.1.2.3' : GROUP;
      const other = type === 'udp4' ? GROUP : '224.1.2.3';
      expect(one.setMulticastInterface('::'), 'not bound').to.equal(EBADF);
      for (const on of [true, false]) {
        expect(one.setMembership(other, undefined, on)).to.equal(EINVAL);
        expect(one.setMembership(group, '5', on)).to.equal(EINVAL);
        expect(one.setSourceMembership(other, group, undefined, on)).to.equal(EINVAL);
        expect(one.setSourceMembership('x', group, undefined, on)).to.equal(EINVAL);
      }
      expect(one.setMulticastInterface('x')).to.equal(EINVAL);
      one.close();
    }
    rig.advance(0);
  });
});
