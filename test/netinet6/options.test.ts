/** Socket options and control messages of IPv6: ip6(4), icmp6(4), RFC 3493, RFC 3542. */

import { expect } from 'chai';
import {
  AF_INET,
  AF_INET6,
  IPPROTO_TCP,
  IPPROTO_UDP,
  SOCK_DGRAM,
  SOCK_RAW,
  SOCK_STREAM,
} from '../../src/kern/protosw.ts';
import { type Cmsg, takeCmsgs } from '../../src/kern/cmsg.ts';
import { intBytes, Sockopt, SOPT_GET, SOPT_SET, view } from '../../src/kern/sockopt.ts';
import { soRecvDgram, soSend, soSendDgram } from '../../src/kern/sys_generic.ts';
import { type ControlRef, ReceivedFrom } from '../../src/kern/uipc_dgram.ts';
import {
  soaccept,
  sobind,
  soclose,
  soconnect,
  socreate,
  solisten,
  soResult,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import { sogetopt, sosetopt } from '../../src/kern/uipc_sockopt.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { inSockaddr, parseInAddr } from '../../src/netinet/in.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IN6_IFF_NODAD } from '../../src/netinet6/in6_var.ts';
import { IPPROTO_ICMPV6, IPPROTO_IPV6 } from '../../src/netinet6/ip6.ts';
import { in6AddrPut } from '../../src/netinet6/ip6_pktopts.ts';
import * as O from '../../src/netinet6/ip6_ctloutput.ts';
import * as P from '../../src/netinet6/ip6_pktopts.ts';
import {
  EADDRINUSE,
  EADDRNOTAVAIL,
  EHOSTUNREACH,
  EINVAL,
  EMSGSIZE,
  ENOPROTOOPT,
  ENOTCONN,
  ENXIO,
} from '../../src/sys/errno.ts';
import { port } from '../../src/sys/types.ts';
import { A6, B6, linklocal, Pair6, sin6 } from './pair.ts';

const A6B = '2001:db8::11';

describe('socket options of IPv6', () => {
  let pair: Pair6;
  let a: Vnet;
  let b: Vnet;
  /** The IPv6 packets that host a sent, without neighbour discovery and MLD. */
  let sent: Uint8Array[];
  beforeEach(() => {
    pair = new Pair6();
    a = pair.net.a.vnet;
    b = pair.net.b.vnet;
    expect(in6_aifaddr(pair.net.a.ifp, parseIn6(A6B)!, 64, IN6_IFF_NODAD)).to.equal(0);
    sent = [];
    pair.net.a.onFrame = (frame): void => {
      const ip6 = frame.slice(14);
      const nd = ip6[6] === 58 && ip6[40]! >= 130 && ip6[40]! <= 143;
      const mld = ip6[6] === 0 && ip6[40] === 58;
      if (frame[12] === 0x86 && !nd && !mld) sent.push(ip6);
    };
  });
  afterEach(() => {
    pair.close();
  });

  const setBytes = (so: Socket, name: number, value: Uint8Array, level = IPPROTO_IPV6): number =>
    sosetopt(so, new Sockopt(SOPT_SET, level, name, value));
  const set = (so: Socket, name: number, value: number): number =>
    setBytes(so, name, intBytes(value));
  function get(so: Socket, name: number, size = 4, level = IPPROTO_IPV6): Uint8Array | number {
    const sopt = new Sockopt(SOPT_GET, level, name, new Uint8Array(size));
    const error = sogetopt(so, sopt);
    return error === 0 ? sopt.sopt_val.subarray(0, sopt.sopt_valsize) : -error;
  }
  function getInt(so: Socket, name: number): number {
    const value = get(so, name);
    return typeof value === 'number' ? value : view(value).getInt32(0, true);
  }

  function pktinfo(text: string, index: number): Uint8Array {
    const bytes = new Uint8Array(20);
    in6AddrPut(view(bytes), 0, parseIn6(text)!);
    view(bytes).setUint32(16, index, true);
    return bytes;
  }

  const sendTo = (so: Socket, text: string, size = 1, control: Cmsg[] = []): number =>
    soSendDgram(so, new Uint8Array(size), 0, size, sin6(text, 9), control);
  const message = (type: number, data: Uint8Array): Cmsg => ({ level: IPPROTO_IPV6, type, data });

  const tclassOf = (p: Uint8Array): number => ((p[0]! << 4) | (p[1]! >>> 4)) & 0xff;
  const flowOf = (p: Uint8Array): number => ((p[1]! & 15) << 16) | (p[2]! << 8) | p[3]!;
  const src = (p: Uint8Array): Uint8Array => p.subarray(8, 24);
  const bytesOf = (text: string): Uint8Array => pktinfo(text, 0).subarray(0, 16);

  /** Receives a datagram and its control messages. */
  function receive(so: Socket): [number, Record<number, Uint8Array>] {
    const control: ControlRef = { m: null };
    const buf = new Uint8Array(100);
    const error = soRecvDgram(so, buf, 0, 100, 0, new ReceivedFrom(), control);
    const list = takeCmsgs(control.m);
    return [error, Object.fromEntries(list.map(({ type, data }) => [type, data]))];
  }

  const INTS: [string, number, number, number[], number[]][] = [
    ['IPV6_UNICAST_HOPS', O.IPV6_UNICAST_HOPS, -1, [-1, 0, 255], [-2, 256]],
    ['IPV6_TCLASS', P.IPV6_TCLASS, 0, [0, 255], [-2, 256]],
    ['IPV6_USE_MIN_MTU', P.IPV6_USE_MIN_MTU, -1, [-1, 0, 1], [-2, 2]],
    ['IPV6_PREFER_TEMPADDR', P.IPV6_PREFER_TEMPADDR, -1, [-1, 0, 1], [-2, 2]],
    ['IPV6_PORTRANGE', O.IPV6_PORTRANGE, 0, [0, 1, 2], [-1, 3]],
    ['IPV6_DONTFRAG', P.IPV6_DONTFRAG, 0, [1, 0], []],
    ['IPV6_AUTOFLOWLABEL', O.IPV6_AUTOFLOWLABEL, 1, [0, 1], []],
    ['IPV6_BINDANY', O.IPV6_BINDANY, 0, [1, 0], []],
    ['IPV6_RECVPKTINFO', O.IPV6_RECVPKTINFO, 0, [1, 0], []],
    ['IPV6_RECVHOPLIMIT', O.IPV6_RECVHOPLIMIT, 0, [1, 0], []],
    ['IPV6_RECVTCLASS', O.IPV6_RECVTCLASS, 0, [1, 0], []],
    ['IPV6_RECVRTHDR', O.IPV6_RECVRTHDR, 0, [1, 0], []],
    ['IPV6_RECVHOPOPTS', O.IPV6_RECVHOPOPTS, 0, [1, 0], []],
    ['IPV6_RECVDSTOPTS', O.IPV6_RECVDSTOPTS, 0, [1, 0], []],
    ['IPV6_RECVPATHMTU', O.IPV6_RECVPATHMTU, 0, [1, 0], []],
    ['IPV6_ORIGDSTADDR', O.IPV6_ORIGDSTADDR, 0, [1, 0], []],
  ];
  for (const [title, name, initial, valid, invalid] of INTS)
    it(`${title} takes ${valid.join()} and refuses ${invalid.join() || 'nothing'}`, () => {
      const so = pair.socket(a, SOCK_DGRAM);
      expect(getInt(so, name)).to.equal(initial);
      for (const v of valid) {
        expect(set(so, name, v), `${v}`).to.equal(0);
        expect(getInt(so, name)).to.equal(v);
      }
      for (const v of invalid) expect(set(so, name, v), `${v}`).to.equal(EINVAL);
      expect(setBytes(so, name, new Uint8Array(3))).to.equal(EINVAL);
    });

  it('refuses unknown options and levels, and a sticky hop limit', () => {
    const so = pair.socket(a, SOCK_DGRAM);
    expect(set(so, 12_345, 1)).to.equal(ENOPROTOOPT);
    expect(getInt(so, 12_345)).to.equal(-ENOPROTOOPT);
    expect(set(so, P.IPV6_HOPLIMIT, 1)).to.equal(ENOPROTOOPT);
    expect(setBytes(so, 3, intBytes(1), 0), 'IPPROTO_IP').to.equal(EINVAL);
    const tcp = pair.socket(a, SOCK_STREAM);
    expect(set(tcp, P.IPV6_DONTFRAG, 1)).to.equal(0);
    expect(getInt(tcp, P.IPV6_DONTFRAG), 'ignored for TCP').to.equal(0);
    expect(set(tcp, O.IPV6_RECVPATHMTU, 1)).to.equal(0);
    expect(getInt(tcp, O.IPV6_RECVPATHMTU), 'ignored for TCP').to.equal(0);
    expect(set(tcp, P.IPV6_TCLASS, 4)).to.equal(0);
    expect(setBytes(tcp, P.IPV6_PKTINFO, pktinfo(A6B, 0)), 'TCP').to.equal(EINVAL);
  });

  it('hop limit and traffic class of the socket and of a control message are in each datagram', () => {
    const so = pair.socket(a, SOCK_DGRAM);
    expect(sendTo(so, B6)).to.equal(0);
    expect([set(so, O.IPV6_UNICAST_HOPS, 7), set(so, P.IPV6_TCLASS, 0xb8)]).to.deep.equal([0, 0]);
    expect(sendTo(so, B6)).to.equal(0);
    const control = [
      message(P.IPV6_HOPLIMIT, intBytes(9)),
      message(P.IPV6_TCLASS, intBytes(0x28)),
      { level: IPPROTO_TCP, type: 1, data: new Uint8Array(1) },
    ];
    expect(sendTo(so, B6, 1, control)).to.equal(0);
    expect(sendTo(so, B6)).to.equal(0);
    expect(sendTo(so, B6, 1, [message(P.IPV6_HOPLIMIT, intBytes(256))])).to.equal(EINVAL);
    expect(sendTo(so, B6, 1, [message(77, intBytes(1))])).to.equal(ENOPROTOOPT);
    pair.run(5);
    expect(sent.map((p) => [p[7], tclassOf(p)])).to.deep.equal([
      [64, 0],
      [7, 0xb8],
      [9, 0x28],
      [7, 0xb8],
    ]);
  });

  it('every packet of a TCP connection has hop limit and traffic class of its socket', () => {
    const dead = pair.socket(b, SOCK_STREAM);
    expect(soconnect(dead, sin6(A6, 81))).to.equal(0);
    pair.run(10);
    expect(
      sent.map((p) => [p[7], tclassOf(p)]),
      'RST without a socket',
    ).to.deep.equal([[64, 0]]);
    sent.length = 0;
    const head = pair.socket(a, SOCK_STREAM);
    expect(set(head, O.IPV6_UNICAST_HOPS, 7) + set(head, P.IPV6_TCLASS, 0xb8)).to.equal(0);
    expect(sobind(head, sin6('::', 80))).to.equal(0);
    expect(solisten(head, 5)).to.equal(0);
    const client = pair.socket(b, SOCK_STREAM);
    expect(soconnect(client, sin6(A6, 80))).to.equal(0);
    pair.run(10);
    expect(soaccept(head)).to.equal(0);
    const so = soResult.so!;
    pair.sockets.push(so);
    expect(getInt(so, P.IPV6_TCLASS), 'inherited').to.equal(0xb8);
    expect(soSend(so, new Uint8Array(5000), 0, 5000, 0, null)).to.equal(0);
    pair.run(2000);
    expect(soSend(client, new Uint8Array(10), 0, 10, 0, null)).to.equal(0);
    pair.run(500);
    expect(sent.length).to.be.above(4);
    for (const p of sent) expect([p[7], tclassOf(p)]).to.deep.equal([7, 0xb8]);
    expect(set(so, P.IPV6_TCLASS, 0x20)).to.equal(0);
    sent.length = 0;
    soclose(so);
    pair.sockets.splice(pair.sockets.indexOf(so), 1);
    pair.run(10);
    expect(sent.length, 'FIN or RST').to.be.above(0);
    for (const p of sent) expect([p[7], tclassOf(p)]).to.deep.equal([7, 0x20]);
  });

  it('extension headers of the socket are in each packet, and TCP makes room for them', () => {
    const hbh = Uint8Array.from([0, 0, 1, 4, 0, 0, 0, 0]);
    const dst = Uint8Array.from([0, 1, 1, 12, ...Array.from({ length: 12 }, () => 0)]);
    const head = pair.socket(b, SOCK_STREAM);
    expect(sobind(head, sin6('::', 80))).to.equal(0);
    expect(solisten(head, 5)).to.equal(0);
    const so = pair.socket(a, SOCK_STREAM);
    expect(setBytes(so, P.IPV6_HOPOPTS, hbh)).to.equal(0);
    expect(setBytes(so, P.IPV6_DSTOPTS, dst)).to.equal(0);
    expect(get(so, P.IPV6_DSTOPTS, 64)).to.deep.equal(dst);
    expect(soconnect(so, sin6(B6, 80))).to.equal(0);
    pair.run(10);
    expect(soaccept(head)).to.equal(0);
    const peer = soResult.so!;
    pair.sockets.push(peer);
    const data = Uint8Array.from({ length: 8000 }, (_, i) => i);
    expect(soSend(so, data, 0, data.length, 0, null)).to.equal(0);
    pair.run(2000);
    expect(pair.stream(peer)).to.deep.equal(data);
    for (const p of sent) {
      expect([p[6], p[40], p[48]]).to.deep.equal([0, 60, 6]);
      expect(p.length).to.be.at.most(1500);
    }
    expect(Math.max(...sent.map((p) => p.length))).to.equal(1500);
    expect(setBytes(so, P.IPV6_HOPOPTS, new Uint8Array())).to.equal(0);
    expect(setBytes(so, P.IPV6_HOPOPTS, hbh.subarray(0, 7)), 'length').to.equal(EINVAL);
    expect(setBytes(so, P.IPV6_RTHDR, Uint8Array.from([0, 0, 2, 0, 0, 0, 0, 0]))).to.equal(EINVAL);
  });

  it('does not send a packet with a routing header, as FreeBSD', () => {
    const so = pair.socket(a, SOCK_DGRAM);
    const rthdr = Uint8Array.from([0, 2, 0, 1, ...Array.from({ length: 20 }, () => 0)]);
    expect(setBytes(so, P.IPV6_RTHDR, rthdr)).to.equal(0);
    expect(sendTo(so, B6)).to.equal(EINVAL);
    expect(setBytes(so, P.IPV6_RTHDR, new Uint8Array())).to.equal(0);
    expect(sendTo(so, B6)).to.equal(0);
  });

  it('IPV6_PKTINFO chooses the source and the interface', () => {
    const so = pair.socket(a, SOCK_DGRAM);
    const { if_index } = pair.net.a.ifp;
    expect(sendTo(so, B6, 1, [message(P.IPV6_PKTINFO, pktinfo(A6B, 0))])).to.equal(0);
    expect(sendTo(so, B6, 1, [message(P.IPV6_PKTINFO, pktinfo(A6B, if_index))])).to.equal(0);
    // A link-local destination without a zone takes that of the interface.
    const ll = linklocal(pair.net.b);
    expect(sendTo(so, ll, 1, [message(P.IPV6_PKTINFO, pktinfo('::', if_index))])).to.equal(0);
    pair.run(5);
    expect(sent.map(src)).to.deep.equal([A6B, A6B, linklocal(pair.net.a)].map(bytesOf));
    const bad: [Uint8Array, number][] = [
      [pktinfo(A6B, 99), ENXIO],
      [pktinfo('2001:db8::99', if_index), EADDRNOTAVAIL],
      [pktinfo('ff02::1', 0), EINVAL],
      [new Uint8Array(19), EINVAL],
    ];
    for (const [info, error] of bad)
      expect(sendTo(so, B6, 1, [message(P.IPV6_PKTINFO, info)])).to.equal(error);
    const lo = message(P.IPV6_PKTINFO, pktinfo('::', 1));
    expect(sendTo(so, B6, 1, [lo]), 'the route leads elsewhere').to.equal(EHOSTUNREACH);
    expect(setBytes(so, P.IPV6_PKTINFO, pktinfo(A6B, if_index))).to.equal(0);
    expect(get(so, P.IPV6_PKTINFO, 20)).to.deep.equal(pktinfo(A6B, if_index));
    sent.length = 0;
    expect(sendTo(so, B6)).to.equal(0);
    expect(setBytes(so, P.IPV6_PKTINFO, pktinfo('::', 0)), 'removes it').to.equal(0);
    expect(sendTo(so, B6)).to.equal(0);
    pair.run(5);
    expect(sent.map(src)).to.deep.equal([A6B, A6].map(bytesOf));
  });

  it('IPV6_NEXTHOP sends by a neighbour', () => {
    const so = pair.socket(a, SOCK_DGRAM);
    const nexthop = new Uint8Array(28);
    nexthop.set([28, AF_INET6]);
    in6AddrPut(view(nexthop), 8, parseIn6(B6)!);
    expect(sendTo(so, '2001:db8:9::1')).to.equal(EHOSTUNREACH);
    expect(setBytes(so, P.IPV6_NEXTHOP, nexthop)).to.equal(0);
    expect(get(so, P.IPV6_NEXTHOP, 28)).to.deep.equal(nexthop);
    expect(sendTo(so, B6)).to.equal(0);
    pair.run(5);
    expect(sent).to.have.lengthOf(1);
    nexthop[1] = 2;
    expect(setBytes(so, P.IPV6_NEXTHOP, nexthop)).to.not.equal(0);
  });

  it('IPV6_DONTFRAG and IPV6_USE_MIN_MTU', () => {
    const so = pair.socket(a, SOCK_DGRAM);
    expect(sendTo(so, B6, 1400)).to.equal(0);
    pair.run(5);
    expect(sent.splice(0).map((p) => p.length)).to.deep.equal([1448]);
    expect(set(so, P.IPV6_USE_MIN_MTU, 1)).to.equal(0);
    expect(sendTo(so, B6, 1400)).to.equal(0);
    pair.run(5);
    expect(Math.max(...sent.splice(0).map((p) => p.length))).to.be.at.most(1280);
    expect(set(so, P.IPV6_USE_MIN_MTU, 0) + set(so, P.IPV6_DONTFRAG, 1)).to.equal(0);
    expect(sendTo(so, B6, 2000)).to.equal(EMSGSIZE);
    expect(sendTo(so, B6, 2000, [message(P.IPV6_DONTFRAG, intBytes(0))])).to.equal(0);
  });

  it('IPV6_AUTOFLOWLABEL 0 leaves the flow label 0', () => {
    const so = pair.socket(a, SOCK_DGRAM);
    expect(soconnect(so, sin6(B6, 9))).to.equal(0);
    const one = (): number => soSendDgram(so, new Uint8Array(1), 0, 1, null);
    expect(one()).to.equal(0);
    expect(set(so, O.IPV6_AUTOFLOWLABEL, 0)).to.equal(0);
    expect(one()).to.equal(0);
    pair.run(5);
    expect(flowOf(sent[0]!)).to.not.equal(0);
    expect(flowOf(sent[1]!)).to.equal(0);
    a.sysctl.write('net.inet6.ip6.auto_flowlabel', '0');
    expect(getInt(pair.socket(a, SOCK_DGRAM), O.IPV6_AUTOFLOWLABEL)).to.equal(0);
  });

  it('IPV6_BINDANY binds to an address of another host; IPV6_PORTRANGE chooses the range', () => {
    const so = pair.socket(a, SOCK_DGRAM);
    expect(sobind(so, sin6('2001:db8::99', 5))).to.equal(EADDRNOTAVAIL);
    expect(set(so, O.IPV6_BINDANY, 1)).to.equal(0);
    expect(sobind(so, sin6('2001:db8::99', 5))).to.equal(0);
    const low = pair.socket(a, SOCK_DGRAM);
    expect(set(low, O.IPV6_PORTRANGE, O.IPV6_PORTRANGE_LOW)).to.equal(0);
    expect(sobind(low, sin6('::', 0))).to.equal(0);
    expect(low.so_proto.pr_sockaddr(low)!.port).to.be.within(600, 1023);
    expect(sobind(pair.socket(a, SOCK_DGRAM), sin6('2001:db8::99', 5))).to.not.equal(EADDRINUSE);
  });

  it('recvmsg has the messages that were requested, for IPv6 and for mapped IPv4', () => {
    const so = pair.socket(b, SOCK_DGRAM);
    const requests = [
      O.IPV6_RECVPKTINFO,
      O.IPV6_RECVHOPLIMIT,
      O.IPV6_RECVTCLASS,
      O.IPV6_RECVHOPOPTS,
      O.IPV6_RECVDSTOPTS,
      O.IPV6_ORIGDSTADDR,
    ];
    expect(set(so, O.IPV6_V6ONLY, 0)).to.equal(0);
    for (const name of requests) expect(set(so, name, 1)).to.equal(0);
    expect(sobind(so, sin6('::', 9))).to.equal(0);
    const { if_index } = pair.net.b.ifp;
    const from = pair.socket(a, SOCK_DGRAM);
    const hbh = Uint8Array.from([0, 0, 1, 4, 0, 0, 0, 0]);
    const dst = Uint8Array.from([0, 0, 1, 4, 1, 2, 3, 4]);
    expect(setBytes(from, P.IPV6_HOPOPTS, hbh) + setBytes(from, P.IPV6_DSTOPTS, dst)).to.equal(0);
    expect(set(from, P.IPV6_TCLASS, 0xb8)).to.equal(0);
    expect(sendTo(from, B6)).to.equal(0);
    pair.run(5);
    const [error, got] = receive(so);
    expect(error).to.equal(0);
    expect(got[P.IPV6_PKTINFO]).to.deep.equal(pktinfo(B6, if_index));
    expect(got[P.IPV6_HOPLIMIT]).to.deep.equal(intBytes(64));
    expect(got[P.IPV6_TCLASS]).to.deep.equal(intBytes(0xb8));
    expect(got[P.IPV6_HOPOPTS]!.subarray(2)).to.deep.equal(hbh.subarray(2));
    expect(got[P.IPV6_DSTOPTS]!.subarray(2)).to.deep.equal(dst.subarray(2));
    const orig = got[O.IPV6_ORIGDSTADDR]!;
    expect([...orig.subarray(0, 4), ...orig.subarray(8, 24)]).to.deep.equal([
      28,
      AF_INET6,
      0,
      9,
      ...bytesOf(B6),
    ]);
    expect(socreate(a, AF_INET, SOCK_DGRAM, IPPROTO_UDP)).to.equal(0);
    pair.sockets.push(soResult.so!);
    const to4 = inSockaddr(parseInAddr('192.0.2.2')!, port(9));
    expect(soSendDgram(soResult.so!, new Uint8Array(1), 0, 1, to4)).to.equal(0);
    pair.run(5);
    const [error4, mapped] = receive(so);
    expect(error4).to.equal(0);
    expect(mapped[P.IPV6_PKTINFO]).to.deep.equal(pktinfo('::ffff:192.0.2.2', if_index));
    expect(mapped[P.IPV6_HOPLIMIT]).to.deep.equal(intBytes(64));
    expect(mapped[P.IPV6_TCLASS]).to.deep.equal(intBytes(0));
  });

  it('IPV6_PATHMTU needs a peer; IPV6_RECVPATHMTU reports a smaller path MTU', () => {
    const so = pair.socket(a, SOCK_DGRAM);
    expect(get(so, O.IPV6_PATHMTU, 32)).to.equal(-ENOTCONN);
    expect(soconnect(so, sin6(B6, 9))).to.equal(0);
    const info = get(so, O.IPV6_PATHMTU, 32) as Uint8Array;
    expect(view(info).getUint32(28, true)).to.equal(1500);
    const asks = pair.socket(a, SOCK_DGRAM);
    expect(set(asks, O.IPV6_RECVPATHMTU, 1)).to.equal(0);
    expect(sendTo(asks, B6, 1300)).to.equal(0);
    pair.run(5);
    // Packet too big about that datagram, from b.
    const raw = pair.socket(b, SOCK_RAW, IPPROTO_ICMPV6);
    const tooBig = new Uint8Array(8 + 100);
    tooBig[0] = 2;
    view(tooBig).setUint32(4, 1280);
    tooBig.set(sent[0]!.subarray(0, 100), 8);
    expect(soSendDgram(raw, tooBig, 0, tooBig.length, sin6(A6, 0))).to.equal(0);
    pair.run(5);
    // The first record is port unreachable's error or the message.
    const records = [receive(asks), receive(asks)];
    const told = records.find(([, got]) => got[O.IPV6_PATHMTU] !== undefined)!;
    expect(view(told[1][O.IPV6_PATHMTU]!).getUint32(28, true)).to.equal(1280);
    expect(told[1][O.IPV6_PATHMTU]!.subarray(8, 24)).to.deep.equal(bytesOf(B6));
    const known = get(so, O.IPV6_PATHMTU, 32) as Uint8Array;
    expect(view(known).getUint32(28, true), 'of another socket').to.equal(1280);
    // A datagram that may not be fragmented reports the MTU of the link.
    expect(set(asks, P.IPV6_DONTFRAG, 1)).to.equal(0);
    expect(sendTo(asks, B6, 2000)).to.equal(EMSGSIZE);
    pair.run(5);
    const [error, local] = receive(asks);
    expect(error).to.equal(0);
    expect(view(local[O.IPV6_PATHMTU]!).getUint32(28, true)).to.equal(1500);
  });

  it('ICMP6_FILTER selects the types that a raw socket receives', () => {
    const so = pair.socket(b, SOCK_RAW, IPPROTO_ICMPV6);
    const icmp6 = IPPROTO_ICMPV6;
    expect(get(so, O.ICMP6_FILTER, 32, icmp6)).to.deep.equal(new Uint8Array(32).fill(0xff));
    const only = new Uint8Array(32);
    only[129 >> 3] = 1 << (129 & 7);
    expect(setBytes(so, O.ICMP6_FILTER, only, icmp6)).to.equal(0);
    expect(get(so, O.ICMP6_FILTER, 32, icmp6)).to.deep.equal(only);
    expect(setBytes(so, O.ICMP6_FILTER, only.subarray(1), icmp6)).to.equal(EMSGSIZE);
    expect(setBytes(so, O.ICMP6_FILTER + 1, only, icmp6)).to.equal(ENOPROTOOPT);
    const from = pair.socket(a, SOCK_RAW, icmp6);
    for (const type of [128, 129])
      expect(
        soSendDgram(from, Uint8Array.from([type, 0, 0, 0, 0, 0, 0, type]), 0, 8, sin6(B6, 0)),
      ).to.equal(0);
    pair.run(5);
    const got = pair.datagram(so) as Uint8Array;
    expect([got[0], got[7]]).to.deep.equal([129, 129]);
    expect(pair.datagram(so)).to.be.a('number');
    // The checksum's offset is fixed.
    expect(set(so, O.IPV6_CHECKSUM, 2)).to.equal(0);
    for (const off of [-1, 3, 4]) expect(set(so, O.IPV6_CHECKSUM, off)).to.equal(EINVAL);
    expect(getInt(so, O.IPV6_CHECKSUM)).to.equal(2);
  });
});
