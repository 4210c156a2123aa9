import { expect } from 'chai';
import { EADDRINUSE, EDOM, EINVAL, ENOBUFS, ENOPROTOOPT, type Errno } from '../../src/sys/errno.ts';
import { AF_INET, IPPROTO_TCP, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { $optval, intBytes, Sockopt, SOPT_GET, SOPT_SET, view } from '../../src/kern/sockopt.ts';
import { SB_AUTOSIZE } from '../../src/kern/uipc_sockbuf.ts';
import {
  SO_ACCEPTCONN,
  SO_BROADCAST,
  SO_DEBUG,
  SO_DONTROUTE,
  SO_KEEPALIVE,
  SO_LINGER,
  SO_OOBINLINE,
  SO_REUSEADDR,
  SO_REUSEPORT,
  SO_REUSEPORT_LB,
  soclose,
  socreate,
  soisconnected,
  solisten,
  sonewconn,
  soreserve,
  soResult,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import {
  SO_DOMAIN,
  SO_ERROR,
  SO_LISTENINCQLEN,
  SO_LISTENQLEN,
  SO_LISTENQLIMIT,
  SO_PROTOCOL,
  SO_RCVBUF,
  SO_RCVLOWAT,
  SO_RCVTIMEO,
  SO_SETFIB,
  SO_SNDBUF,
  SO_SNDLOWAT,
  SO_SNDTIMEO,
  SO_TS_CLOCK,
  SO_TYPE,
  sogetopt,
  soGetInt,
  SOL_SOCKET,
  sosetopt,
  soSetInt,
} from '../../src/kern/uipc_sockopt.ts';
import { bootEach } from './boot.ts';
import { must } from './chains.ts';
import { connectedSocket, testVnet } from './testproto.ts';

describe('uipc_sockopt', () => {
  let so: Socket;
  afterEach(() => soclose(so)); // runs before the leak check of bootEach
  bootEach();
  beforeEach(() => (so = connectedSocket()));

  const set = (name: number, val: Uint8Array): Errno =>
    sosetopt(so, new Sockopt(SOPT_SET, SOL_SOCKET, name, val));
  const get = (name: number, size = 16): Uint8Array => {
    const sopt = new Sockopt(SOPT_GET, SOL_SOCKET, name, new Uint8Array(size));
    expect(sogetopt(so, sopt)).to.equal(0);
    return sopt.sopt_val.subarray(0, sopt.sopt_valsize);
  };
  const int = (name: number): number => {
    expect(soGetInt(so, SOL_SOCKET, name), `option ${name}`).to.equal(0);
    return $optval.v;
  };
  const longs = (...v: number[]): Uint8Array =>
    Uint8Array.from(Buffer.from(BigInt64Array.from(v.map(BigInt)).buffer));
  const ints = (...v: number[]): Uint8Array =>
    Uint8Array.from(Buffer.from(Int32Array.from(v).buffer));

  // sys/sys/socket.h
  for (const [name, bit] of Object.entries({
    SO_DEBUG: [SO_DEBUG, 0x1],
    SO_REUSEADDR: [SO_REUSEADDR, 0x4],
    SO_KEEPALIVE: [SO_KEEPALIVE, 0x8],
    SO_DONTROUTE: [SO_DONTROUTE, 0x10],
    SO_BROADCAST: [SO_BROADCAST, 0x20],
    SO_OOBINLINE: [SO_OOBINLINE, 0x100],
    SO_REUSEPORT: [SO_REUSEPORT, 0x200],
    SO_REUSEPORT_LB: [SO_REUSEPORT_LB, 0x10000],
  }))
    it(`${name} is a boolean option and reads as its bit when set`, () => {
      expect(bit[0]).to.equal(bit[1]);
      expect(int(bit[0]!)).to.equal(0);
      expect(soSetInt(so, SOL_SOCKET, bit[0]!, 7)).to.equal(0);
      expect(int(bit[0]!)).to.equal(bit[1]);
      expect(soSetInt(so, SOL_SOCKET, bit[0]!, 0)).to.equal(0);
      expect(int(bit[0]!)).to.equal(0);
    });

  it('buffer sizes and low-water marks; setting a size clears SB_AUTOSIZE', () => {
    so.so_snd.sb_flags |= SB_AUTOSIZE;
    so.so_rcv.sb_flags |= SB_AUTOSIZE;
    expect(soSetInt(so, SOL_SOCKET, SO_SNDBUF, 20_000)).to.equal(0);
    expect([int(SO_SNDBUF), so.so_snd.sb_flags & SB_AUTOSIZE]).to.eql([20_000, 0]);
    expect(so.so_rcv.sb_flags & SB_AUTOSIZE).to.equal(SB_AUTOSIZE);
    expect(soSetInt(so, SOL_SOCKET, SO_RCVBUF, 1000)).to.equal(0);
    expect([int(SO_RCVBUF), so.so_rcv.sb_flags & SB_AUTOSIZE]).to.eql([1000, 0]);
    expect(int(SO_SNDLOWAT)).to.equal(2048);
    expect(int(SO_RCVLOWAT)).to.equal(1);
    // The low-water mark is limited to the buffer size.
    expect(soSetInt(so, SOL_SOCKET, SO_RCVLOWAT, 5000)).to.equal(0);
    expect(int(SO_RCVLOWAT)).to.equal(1000);
    for (const name of [SO_SNDBUF, SO_RCVBUF, SO_SNDLOWAT, SO_RCVLOWAT])
      for (const v of [0, -1]) expect(soSetInt(so, SOL_SOCKET, name, v)).to.equal(EINVAL);
    expect(soSetInt(so, SOL_SOCKET, SO_RCVBUF, 4 << 20)).to.equal(ENOBUFS);
    expect(int(SO_RCVBUF)).to.equal(1000);
  });

  it('SO_LINGER: struct linger, EDOM beyond 65535 s', () => {
    expect(set(SO_LINGER, ints(1, 12))).to.equal(0);
    expect([so.so_options & SO_LINGER, so.so_linger]).to.eql([SO_LINGER, 12]);
    expect(get(SO_LINGER)).to.eql(ints(SO_LINGER, 12));
    for (const l of [-1, 65_536]) expect(set(SO_LINGER, ints(1, l))).to.equal(EDOM);
    expect(set(SO_LINGER, ints(1))).to.equal(EINVAL);
    expect(set(SO_LINGER, ints(0, 65_535))).to.equal(0);
    expect(get(SO_LINGER)).to.eql(ints(0, 65_535));
  });

  it('SO_RCVTIMEO, SO_SNDTIMEO: struct timeval, EDOM', () => {
    expect(set(SO_RCVTIMEO, longs(2, 500_000))).to.equal(0);
    expect(so.so_rcv.sb_timeo).to.equal(2.5e9);
    expect(get(SO_RCVTIMEO)).to.eql(longs(2, 500_000));
    expect(get(SO_SNDTIMEO)).to.eql(longs(0, 0));
    for (const bad of [longs(-1, 0), longs(0, -1), longs(0, 1_000_000)])
      expect(set(SO_SNDTIMEO, bad)).to.equal(EDOM);
    expect(set(SO_SNDTIMEO, longs(1))).to.equal(EINVAL);
    expect(set(SO_SNDTIMEO, longs(2 ** 40, 0))).to.equal(0);
    expect(so.so_snd.sb_timeo).to.equal(0);
  });

  it('SO_ERROR returns and clears so_error; SO_TYPE, SO_PROTOCOL and SO_DOMAIN are read-only', () => {
    so.so_error = EADDRINUSE;
    expect([int(SO_ERROR), int(SO_ERROR)]).to.eql([48, 0]);
    expect([int(SO_TYPE), int(SO_PROTOCOL), int(SO_DOMAIN)]).to.eql([SOCK_STREAM, 6, AF_INET]);
    for (const name of [SO_ERROR, SO_TYPE, SO_PROTOCOL, SO_DOMAIN, SO_ACCEPTCONN, SO_LISTENQLEN])
      expect(soSetInt(so, SOL_SOCKET, name, 1)).to.equal(ENOPROTOOPT);
  });

  it('SO_ACCEPTCONN and SO_LISTEN* report the queues of a listener', () => {
    expect(socreate(testVnet(), AF_INET, SOCK_STREAM, 0)).to.equal(0);
    const head = must(soResult.so);
    soreserve(head, 8192, 8192);
    const ask = (name: number): number => {
      expect(soGetInt(head, SOL_SOCKET, name)).to.equal(0);
      return $optval.v;
    };
    expect([ask(SO_ACCEPTCONN), ask(SO_LISTENQLIMIT)]).to.eql([0, 0]);
    solisten(head, 2);
    soisconnected(must(sonewconn(head, 0)));
    for (let i = 0; i < 3; i++) must(sonewconn(head, 0));
    expect(sonewconn(head, 0)).to.equal(null);
    expect([ask(SO_ACCEPTCONN), ask(SO_LISTENQLIMIT)]).to.eql([SO_ACCEPTCONN, 2]);
    expect([ask(SO_LISTENQLEN), ask(SO_LISTENINCQLEN)]).to.eql([1, 3]);
    expect(head.sol_overcount).to.equal(1);
    soclose(head);
  });

  it('ENOPROTOOPT for unknown names and levels, EINVAL for short values; results are cut to the buffer', () => {
    // 0xc has the bits of two options.
    for (const name of [0, 0xc, 0x40000, 0x1100, -1]) {
      expect(soSetInt(so, SOL_SOCKET, name, 1)).to.equal(ENOPROTOOPT);
      expect(soGetInt(so, SOL_SOCKET, name)).to.equal(ENOPROTOOPT);
    }
    // The protocol of this test has no options.
    expect(soSetInt(so, IPPROTO_TCP, 1, 1)).to.equal(ENOPROTOOPT);
    expect(soGetInt(so, IPPROTO_TCP, 1)).to.equal(ENOPROTOOPT);
    expect(set(SO_KEEPALIVE, new Uint8Array(3))).to.equal(EINVAL);
    expect(set(SO_KEEPALIVE, Uint8Array.from([1, 0, 0, 0, 9, 9]))).to.equal(0);
    expect(get(SO_KEEPALIVE, 2)).to.eql(Uint8Array.from([8, 0]));
    expect(get(SO_SNDBUF, 16)).to.have.length(4);
    expect(soSetInt(so, SOL_SOCKET, SO_SETFIB, 0)).to.equal(0);
    expect(soSetInt(so, SOL_SOCKET, SO_SETFIB, 1)).to.equal(EINVAL);
    expect(soSetInt(so, SOL_SOCKET, SO_TS_CLOCK, 4)).to.equal(EINVAL);
    expect(view(intBytes(-2)).getInt32(0, true)).to.equal(-2);
  });
});
