/** Sockets of AF_INET6 that use IPv4, IPV6_V6ONLY, and ports shared by the families. */

import { expect } from 'chai';
import { AF_INET, AF_INET6, IPPROTO_IP, SOCK_DGRAM, SOCK_STREAM } from '../../src/kern/protosw.ts';
import type { Sockaddr } from '../../src/kern/sockaddr.ts';
import { Sockopt, SOPT_GET, view } from '../../src/kern/sockopt.ts';
import { ReceivedFrom } from '../../src/kern/uipc_dgram.ts';
import {
  SO_REUSEADDR,
  SO_REUSEPORT,
  soaccept,
  sobind,
  soclose,
  soconnect,
  socreate,
  sodisconnect,
  solisten,
  soResult,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import { ioResult, soRecvDgram, soSend, soSendDgram } from '../../src/kern/sys_generic.ts';
import { sogetopt, soSetInt } from '../../src/kern/uipc_sockopt.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { inSockaddr, parseInAddr } from '../../src/netinet/in.ts';
import { IP_TTL } from '../../src/netinet/ip_ctloutput.ts';
import { tcp_pcblist } from '../../src/netinet/tcp_pcblist.ts';
import { udp_pcblist } from '../../src/netinet/udp_pcblist.ts';
import { in6Ntop } from '../../src/netinet6/in6.ts';
import { IPPROTO_IPV6 } from '../../src/netinet6/ip6.ts';
import { IPV6_UNICAST_HOPS, IPV6_V6ONLY } from '../../src/netinet6/ip6_ctloutput.ts';
import {
  EADDRINUSE,
  EADDRNOTAVAIL,
  EAFNOSUPPORT,
  EINVAL,
  ENOPROTOOPT,
  EWOULDBLOCK,
} from '../../src/sys/errno.ts';
import { port } from '../../src/sys/types.ts';
import { A6, B6, Pair6, sin6 } from './pair.ts';

const A4 = '192.0.2.1';
const B4 = '192.0.2.2';
const sin4 = (text: string, n: number): Sockaddr => inSockaddr(parseInAddr(text)!, port(n));

describe('sockets of AF_INET6 with IPv4', () => {
  let pair: Pair6;
  let a: Vnet;
  let b: Vnet;
  beforeEach(() => {
    pair = new Pair6();
    a = pair.net.a.vnet;
    b = pair.net.b.vnet;
  });
  afterEach(() => {
    pair.close();
  });

  function inet(vnet: Vnet, type: number): Socket {
    expect(socreate(vnet, AF_INET, type, 0)).to.equal(0);
    pair.sockets.push(soResult.so!);
    return soResult.so!;
  }

  const both = (vnet: Vnet, type: number): Socket => {
    const so = pair.socket(vnet, type);
    expect(soSetInt(so, IPPROTO_IPV6, IPV6_V6ONLY, 0)).to.equal(0);
    return so;
  };

  function optionOf(so: Socket, level: number, name: number): number {
    const value = new Uint8Array(4);
    const error = sogetopt(so, new Sockopt(SOPT_GET, level, name, value));
    return error === 0 ? view(value).getInt32(0, true) : -error;
  }

  const text = (sa: Sockaddr | null): string =>
    sa === null ? '-' : sa.family === AF_INET6 ? `[${in6Ntop(sa)}]` : String(sa.w0);
  const names = (so: Socket): string =>
    `${text(so.so_proto.pr_sockaddr(so))} ${text(so.so_proto.pr_peeraddr(so))}`;

  /** Connects `client` to the listener `head`; returns the accepted socket. */
  function connected(head: Socket, client: Socket, nam: Sockaddr): Socket {
    expect(soconnect(client, nam)).to.equal(0);
    pair.run(10);
    expect(soaccept(head)).to.equal(0);
    pair.sockets.push(soResult.so!);
    return soResult.so!;
  }

  function transfers(from: Socket, to: Socket): void {
    const bytes = new Uint8Array(100).fill(7);
    expect(soSend(from, bytes, 0, 100, 0, null)).to.equal(0);
    pair.run(300);
    expect(pair.stream(to)).to.deep.equal(bytes);
  }

  it('IPV6_V6ONLY is on by default, follows net.inet6.ip6.v6only, and is fixed by bind', () => {
    const so = pair.socket(b, SOCK_STREAM);
    expect(optionOf(so, IPPROTO_IPV6, IPV6_V6ONLY)).to.equal(1);
    expect(sobind(so, sin6('::', 80))).to.equal(0);
    expect(soSetInt(so, IPPROTO_IPV6, IPV6_V6ONLY, 0)).to.equal(EINVAL);
    b.sysctl.write('net.inet6.ip6.v6only', '0');
    expect(optionOf(pair.socket(b, SOCK_STREAM), IPPROTO_IPV6, IPV6_V6ONLY)).to.equal(0);
  });

  it('a listener of both families accepts from both, and shows IPv4 peers as mapped', () => {
    const head = both(b, SOCK_STREAM);
    expect(sobind(head, sin6('::', 80))).to.equal(0);
    expect(solisten(head, 5)).to.equal(0);
    const four = inet(a, SOCK_STREAM);
    const served4 = connected(head, four, sin4(B4, 80));
    expect(names(served4)).to.equal(`[::ffff:${B4}] [::ffff:${A4}]`);
    transfers(four, served4);
    transfers(served4, four);
    const six = pair.socket(a, SOCK_STREAM);
    const served6 = connected(head, six, sin6(B6, 80));
    expect(names(served6)).to.equal(`[${B6}] [${A6}]`);
    transfers(served6, six);
    expect(tcp_pcblist(b).map(({ proto, laddr }) => `${proto} ${laddr}`)).to.deep.equal([
      `tcp6 ${B6}`,
      `tcp4 ${B4}`,
      'tcp46 ::',
    ]);
    // A mapped connection is one of IPv4, but its options are those of IPv6.
    expect(optionOf(served4, IPPROTO_IP, IP_TTL)).to.equal(-EINVAL);
    expect(optionOf(served4, IPPROTO_IPV6, IP_TTL + 1000)).to.equal(-ENOPROTOOPT);
  });

  it('a listener with IPV6_V6ONLY refuses IPv4', () => {
    const head = pair.socket(b, SOCK_STREAM);
    expect(sobind(head, sin6('::', 80))).to.equal(0);
    expect(solisten(head, 5)).to.equal(0);
    const four = inet(a, SOCK_STREAM);
    expect(soconnect(four, sin4(B4, 80))).to.equal(0);
    pair.run(10);
    expect(four.so_error, 'RST').to.not.equal(0);
    expect(tcp_pcblist(b).map(({ proto }) => proto)).to.deep.equal(['tcp6']);
  });

  it('listen without bind listens for both families', () => {
    const head = both(b, SOCK_STREAM);
    expect(solisten(head, 5)).to.equal(0);
    const { port: n } = head.so_proto.pr_sockaddr(head)!;
    expect(text(head.so_proto.pr_sockaddr(head))).to.equal('[::]');
    connected(head, inet(a, SOCK_STREAM), sin4(B4, n));
    connected(head, pair.socket(a, SOCK_STREAM), sin6(B6, n));
  });

  it('connects to a mapped address, except with IPV6_V6ONLY', () => {
    const head = inet(b, SOCK_STREAM);
    expect(sobind(head, sin4('0.0.0.0', 80))).to.equal(0);
    expect(solisten(head, 5)).to.equal(0);
    const to = sin6(`::ffff:${B4}`, 80);
    expect(soconnect(pair.socket(a, SOCK_STREAM), to)).to.equal(EINVAL);
    const so = both(a, SOCK_STREAM);
    expect(soSetInt(so, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9)).to.equal(0);
    const ttls = new Set<number>();
    pair.net.a.onFrame = (frame) => frame[12] === 8 && frame[13] === 0 && ttls.add(frame[22]!);
    const served = connected(head, so, to);
    expect(names(so)).to.equal(`[::ffff:${A4}] [::ffff:${B4}]`);
    expect(text(served.so_proto.pr_peeraddr(served))).to.equal(String(parseInAddr(A4)));
    transfers(so, served);
    expect([...ttls], 'IPV6_UNICAST_HOPS is the TTL too').to.deep.equal([9]);
    expect(soconnect(both(a, SOCK_STREAM), sin6('::ffff:224.0.0.1', 80))).to.equal(EAFNOSUPPORT);
  });

  it('a socket that is bound to an address of one family cannot connect to the other', () => {
    const six = both(a, SOCK_STREAM);
    expect(sobind(six, sin6(A6, 0))).to.equal(0);
    expect(soconnect(six, sin6(`::ffff:${B4}`, 80))).to.equal(EAFNOSUPPORT);
    const four = both(a, SOCK_STREAM);
    expect(sobind(four, sin6(`::ffff:${A4}`, 0))).to.equal(0);
    expect(text(four.so_proto.pr_sockaddr(four))).to.equal(`[::ffff:${A4}]`);
    expect(soconnect(four, sin6(B6, 80))).to.equal(EAFNOSUPPORT);
    expect(sobind(both(a, SOCK_STREAM), sin6('::ffff:203.0.113.1', 0))).to.equal(EADDRNOTAVAIL);
    for (const group of ['::ffff:224.0.0.1', 'ff02::1']) {
      expect(sobind(both(a, SOCK_STREAM), sin6(group, 0)), group).to.equal(EAFNOSUPPORT);
      expect(sobind(both(a, SOCK_DGRAM), sin6(group, 0)), group).to.equal(0);
    }
    expect(sobind(pair.socket(a, SOCK_STREAM), sin4(A4, 0))).to.equal(EAFNOSUPPORT);
    expect(sobind(inet(a, SOCK_STREAM), sin6(A6, 0))).to.equal(EAFNOSUPPORT);
  });

  /** Receives a datagram on `so`; returns the sender, its port and the bytes. */
  function received(so: Socket): string | number {
    const buf = new Uint8Array(100);
    const from = new ReceivedFrom();
    const error = soRecvDgram(so, buf, 0, buf.length, 0, from);
    if (error !== 0) return error;
    return `${text(from.name)} ${Buffer.from(buf.subarray(0, ioResult.n)).toString()}`;
  }

  const send = (so: Socket, data: string, nam: Sockaddr | null): number =>
    soSendDgram(so, Buffer.from(data), 0, data.length, nam);

  it('one UDP socket exchanges datagrams with both families', () => {
    const so = both(b, SOCK_DGRAM);
    expect(sobind(so, sin6('::', 9))).to.equal(0);
    expect(udp_pcblist(b).map(({ proto }) => proto)).to.deep.equal(['udp46']);
    const four = inet(a, SOCK_DGRAM);
    expect(sobind(four, sin4('0.0.0.0', 1004))).to.equal(0);
    const six = pair.socket(a, SOCK_DGRAM);
    expect(sobind(six, sin6('::', 1006))).to.equal(0);
    expect(send(four, 'four', sin4(B4, 9))).to.equal(0);
    expect(send(six, 'six', sin6(B6, 9))).to.equal(0);
    pair.run(5);
    expect([received(so), received(so), received(so)]).to.deep.equal([
      `[::ffff:${A4}] four`,
      `[${A6}] six`,
      EWOULDBLOCK,
    ]);
    expect(send(so, 'to four', sin6(`::ffff:${A4}`, 1004))).to.equal(0);
    expect(send(so, 'to six', sin6(A6, 1006))).to.equal(0);
    pair.run(5);
    expect(received(four)).to.equal(`${parseInAddr(B4)} to four`);
    expect(received(six)).to.equal(`[${B6}] to six`);
    expect(send(six, 'no', sin6(`::ffff:${B4}`, 9)), 'IPV6_V6ONLY').to.equal(EINVAL);
    expect(soconnect(six, sin6(`::ffff:${B4}`, 9)), 'IPV6_V6ONLY').to.equal(EINVAL);
  });

  it('a connected UDP socket receives only from its peer, and can be disconnected', () => {
    const so = both(b, SOCK_DGRAM);
    expect(sobind(so, sin6('::', 9))).to.equal(0);
    const four = inet(a, SOCK_DGRAM);
    expect(sobind(four, sin4('0.0.0.0', 1004))).to.equal(0);
    const six = pair.socket(a, SOCK_DGRAM);
    expect(soconnect(so, sin6(`::ffff:${A4}`, 1004))).to.equal(0);
    expect(names(so)).to.equal(`[::ffff:${B4}] [::ffff:${A4}]`);
    expect(send(so, 'x', null)).to.equal(0);
    expect(send(six, 'six', sin6(B6, 9))).to.equal(0);
    expect(send(four, 'four', sin4(B4, 9))).to.equal(0);
    pair.run(5);
    expect(received(four)).to.equal(`${parseInAddr(B4)} x`);
    expect([received(so), received(so)]).to.deep.equal([`[::ffff:${A4}] four`, EWOULDBLOCK]);
    expect(sodisconnect(so)).to.equal(0);
    expect(send(so, 'y', sin6(`::ffff:${A4}`, 1004))).to.equal(0);
    pair.run(5);
    expect(received(four)).to.equal(`${parseInAddr(B4)} y`);
  });

  it('delivers to the socket of the family before one of both families', () => {
    const so = both(b, SOCK_DGRAM);
    const four = inet(b, SOCK_DGRAM);
    for (const s of [so, four]) s.so_options |= SO_REUSEPORT;
    expect(sobind(four, sin4('0.0.0.0', 9))).to.equal(0);
    expect(sobind(so, sin6('::', 9))).to.equal(0);
    const client = inet(a, SOCK_DGRAM);
    expect(send(client, 'x', sin4(B4, 9))).to.equal(0);
    pair.run(5);
    expect([received(four), received(so)]).to.deep.equal([`${parseInAddr(A4)} x`, EWOULDBLOCK]);
    soclose(four);
    pair.sockets.splice(pair.sockets.indexOf(four), 1);
    expect(send(client, 'y', sin4(B4, 9))).to.equal(0);
    pair.run(5);
    expect(received(so)).to.equal(`[::ffff:${A4}] y`);
  });

  // The rules of in_pcbbind and in6_pcbbind: 46 is `::` without IPV6_V6ONLY.
  type Kind = '4' | '6' | '46' | '4 addr' | '6 addr' | '46 addr';
  const bound = (kind: Kind, options = 0): number => {
    const six = kind.startsWith('6');
    const so = kind.startsWith('46')
      ? both(b, SOCK_STREAM)
      : six
        ? pair.socket(b, SOCK_STREAM)
        : inet(b, SOCK_STREAM);
    so.so_options |= options;
    const addr = {
      '4': '0.0.0.0',
      '4 addr': B4,
      '6': '::',
      '46': '::',
      '6 addr': B6,
      '46 addr': `::ffff:${B4}`,
    }[kind];
    const nam = addr.includes(':') ? sin6(addr, 80) : sin4(addr, 80);
    return sobind(so, nam);
  };
  const table: [Kind, Kind, number, number, number][] = [
    // first, second: without options, with SO_REUSEADDR, with SO_REUSEPORT on both.
    ['4', '6', 0, 0, 0],
    ['6', '4', 0, 0, 0],
    ['46', '4', EADDRINUSE, EADDRINUSE, 0],
    ['4', '46', 0, 0, 0],
    ['46', '6', EADDRINUSE, EADDRINUSE, 0],
    ['6', '46', EADDRINUSE, EADDRINUSE, 0],
    ['46', '46', EADDRINUSE, EADDRINUSE, 0],
    ['46', '4 addr', EADDRINUSE, 0, 0],
    ['4 addr', '46', EADDRINUSE, 0, 0],
    ['46 addr', '46', EADDRINUSE, 0, 0],
    ['46 addr', '4 addr', EADDRINUSE, EADDRINUSE, 0],
    ['4 addr', '6', 0, 0, 0],
    ['6 addr', '46', EADDRINUSE, 0, 0],
    ['6 addr', '4', 0, 0, 0],
  ];
  for (const [first, second, plain, reuseaddr, reuseport] of table)
    it(`bind of ${second} after ${first}`, () => {
      const got = [0, SO_REUSEADDR, SO_REUSEPORT].map((options) => {
        expect(bound(first, options)).to.equal(0);
        const error = bound(second, options);
        for (const so of pair.sockets.splice(0)) soclose(so);
        return error;
      });
      expect(got).to.deep.equal([plain, reuseaddr, reuseport]);
    });

  it(':: as destination means this host', () => {
    const head = pair.socket(b, SOCK_STREAM);
    expect(sobind(head, sin6('::', 80))).to.equal(0);
    expect(solisten(head, 5)).to.equal(0);
    const client = pair.socket(b, SOCK_STREAM);
    const served = connected(head, client, sin6('::', 80));
    expect(names(served)).to.equal('[::1] [::1]');
    const dgram = pair.socket(b, SOCK_DGRAM);
    expect(sobind(dgram, sin6('::', 9))).to.equal(0);
    expect(send(pair.socket(b, SOCK_DGRAM), 'x', sin6('::', 9))).to.equal(0);
    pair.run(5);
    expect(received(dgram)).to.equal('[::1] x');
  });

  it('chooses ports that are free in both families', () => {
    b.sysctl.write('net.inet.ip.portrange.first', '20000');
    b.sysctl.write('net.inet.ip.portrange.last', '20001');
    const four = inet(b, SOCK_STREAM);
    expect(sobind(four, sin4('0.0.0.0', 20000))).to.equal(0);
    const so = both(b, SOCK_STREAM);
    expect(sobind(so, sin6('::', 0))).to.equal(0);
    expect(so.so_proto.pr_sockaddr(so)!.port).to.equal(20001);
    expect(sobind(both(b, SOCK_STREAM), sin6('::', 0))).to.equal(EADDRNOTAVAIL);
    const only = pair.socket(b, SOCK_STREAM);
    expect(sobind(only, sin6('::', 0))).to.equal(0);
    expect(only.so_proto.pr_sockaddr(only)!.port).to.equal(20000);
  });
});
