/** Two stacks exchange ICMPv6, UDP and TCP over IPv6. */

import { expect } from 'chai';
import { SOCK_DGRAM, SOCK_RAW, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { soSendDgram } from '../../src/kern/sys_generic.ts';
import {
  soaccept,
  sobind,
  soconnect,
  solisten,
  soResult,
  sosend,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import { soReceivedFrom } from '../../src/kern/uipc_dgram.ts';
import { in6Ntop } from '../../src/netinet6/in6.ts';
import { in6Ifaddrs } from '../../src/netinet6/in6_var.ts';
import { IPPROTO_ICMPV6 } from '../../src/netinet6/ip6.ts';
import { ip6_sprintf } from '../../src/netinet6/scope6.ts';
import { EWOULDBLOCK } from '../../src/sys/errno.ts';
import { UIO_WRITE, Uio } from '../../src/vm/uio.ts';
import { A6, B6, linklocal, Pair6, sin6 } from './pair.ts';

describe('two stacks with IPv6', () => {
  let pair: Pair6;
  beforeEach(() => {
    pair = new Pair6();
  });
  afterEach(() => {
    pair.close();
  });

  const echo = (id: number, size: number): Uint8Array => {
    const bytes = new Uint8Array(8 + size).fill(0x5a, 8);
    bytes[0] = 128;
    bytes[4] = id;
    return bytes;
  };

  /** Sends an echo request of `size` bytes from a to `to`; returns the reply's size and source. */
  function ping(to: string, size: number, scope = 0): [number, string] | number {
    const so = pair.socket(pair.net.a.vnet, SOCK_RAW, IPPROTO_ICMPV6);
    const bytes = echo(7, size);
    const error = soSendDgram(so, bytes, 0, bytes.length, sin6(to, 0, scope));
    if (error !== 0) return error;
    pair.run(5);
    for (;;) {
      const got = pair.datagram(so);
      if (typeof got === 'number') return got;
      if (got[0] === 129) return [got.length - 8, in6Ntop(soReceivedFrom.name)];
    }
  }

  it('have a link-local address with an EUI-64 identifier, and lo0 has ::1', () => {
    const { vnet } = pair.net.a;
    expect(in6Ifaddrs(vnet).map((ia) => ip6_sprintf(vnet, ia.ifa_addr))).to.deep.equal([
      '::1',
      'fe80::1%lo0',
      'fe80::ff:fe00:1%tn0',
      A6,
    ]);
  });

  it('answer ping6 of each size, to global and link-local addresses and to themselves', () => {
    for (const size of [0, 1, 7, 8, 56, 1231, 1232])
      expect(ping(B6, size), `${size} bytes`).to.deep.equal([size, B6]);
    const b = linklocal(pair.net.b);
    expect(ping(b, 56, pair.net.a.ifp.if_index)).to.deep.equal([56, b]);
    expect(ping(A6, 56)).to.deep.equal([56, A6]);
    expect(ping('::1', 56)).to.deep.equal([56, '::1']);
    const a = linklocal(pair.net.a);
    expect(ping(a, 56, pair.net.a.ifp.if_index)).to.deep.equal([56, a]);
    expect(ping('2001:db8::3', 56)).to.equal(EWOULDBLOCK);
  });

  it('exchange datagrams', () => {
    const { a, b } = pair.net;
    const server = pair.socket(b.vnet, SOCK_DGRAM);
    expect(sobind(server, sin6('::', 53))).to.equal(0);
    const client = pair.socket(a.vnet, SOCK_DGRAM);
    expect(soconnect(client, sin6(B6, 53))).to.equal(0);
    const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i);
    expect(soSendDgram(client, bytes, 0, bytes.length, null)).to.equal(0);
    pair.run(5);
    expect(pair.datagram(server)).to.deep.equal(bytes);
    expect(in6Ntop(soReceivedFrom.name)).to.equal(A6);
    expect(soSendDgram(server, bytes, 0, 3, soReceivedFrom.name)).to.equal(0);
    pair.run(5);
    expect(pair.datagram(client)).to.deep.equal(bytes.subarray(0, 3));
  });

  /** Connects a to port 80 of `to`; returns both sockets. */
  function connected(to: string, scope = 0): [Socket, Socket] {
    const head = pair.socket(pair.net.b.vnet, SOCK_STREAM);
    expect(sobind(head, sin6('::', 80))).to.equal(0);
    expect(solisten(head, 4)).to.equal(0);
    const client = pair.socket(pair.net.a.vnet, SOCK_STREAM);
    expect(soconnect(client, sin6(to, 80, scope))).to.equal(0);
    pair.run(5);
    expect(soaccept(head), 'accept').to.equal(0);
    pair.sockets.push(soResult.so!);
    return [client, soResult.so!];
  }

  for (const where of ['global', 'link-local'])
    it(`transfer a stream between ${where} addresses`, () => {
      const local = where === 'link-local';
      const to = local ? linklocal(pair.net.b) : B6;
      const [client, server] = connected(to, local ? pair.net.a.ifp.if_index : 0);
      const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7) >>> 3);
      const got: Uint8Array[] = [];
      let sent = 0;
      for (let i = 0; i < 400; i++) {
        const uio = new Uio().single(bytes, sent, bytes.length - sent, UIO_WRITE);
        if (sent < bytes.length) sosend(client, uio, null, 0);
        sent = bytes.length - uio.uio_resid;
        pair.run(1);
        const part = pair.stream(server);
        if (typeof part !== 'number') got.push(part);
      }
      expect(Buffer.compare(Buffer.concat(got), bytes)).to.equal(0);
    });
});
