/** Control messages of UDP and raw sockets at level IPPROTO_IP, as recvmsg(2) and sendmsg(2) show them. */

import { expect } from 'chai';
import { Bsd } from '../../src/api/bsd.ts';
import { constants } from '../../src/api/constants.ts';
import type { Cmsg } from '../../src/kern/cmsg.ts';
import { m_freem, m_get } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, MT_DATA, mtod } from '../../src/kern/mbuf.ts';
import { EADDRNOTAVAIL, EADDRINUSE, EINVAL, ENOPROTOOPT } from '../../src/sys/errno.ts';
import { mem } from '../../src/vm/arena.ts';
import {
  buildIcmp,
  buildIp4,
  buildUdp,
  decodeFrame,
  expectTx,
  from,
  to,
} from '../support/frames.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { addr } from './rig.ts';
import { PEER, TestHost, US } from './tcp_host.ts';

const ANY = '0.0.0.0';

describe('ip control messages', () => {
  let h: TestHost;
  let b: Bsd;
  beforeEach(() => {
    h = new TestHost();
    b = new Bsd(h.vnet);
  });
  afterEach(() => {
    b.closeAll();
    h.close();
  });

  const { AF_INET, IPPROTO_IP, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, MSG_PEEK, ...C } = constants;
  const hex = (data: Uint8Array): string => Buffer.from(data).toString('hex');
  const bytes = (text: string): Uint8Array => Uint8Array.from(text.split('.'), Number);

  function udp(port = 53, address = ANY): number {
    const s = b.socket(AF_INET, SOCK_DGRAM);
    if (port !== 0) expect(b.bind(s, { address, port })).to.equal(0);
    return s;
  }
  const on = (s: number, ...names: number[]): void => {
    for (const name of names)
      expect(b.setsockopt(s, IPPROTO_IP, name, 1), String(name)).to.equal(0);
  };
  const arrives = (ip = {}): void => {
    const fields = { sport: 4000, dport: 53, payload: 'hello' };
    h.injectIp(buildUdp({ src: PEER, dst: US, ttl: 9, tos: 0x2d, ...ip }, fields));
  };
  /** The messages of the next datagram: type and data of each. */
  function messages(s: number, flags = 0): [number, string][] {
    const got = b.recvmsg(s, new Uint8Array(100), flags);
    expect(got.n).to.be.above(0);
    for (const m of got.control) expect(m.level).to.equal(IPPROTO_IP);
    return got.control.map((m) => [m.type, hex(m.data)]);
  }

  /** Fills the free mbufs with garbage, so that a message shows what it leaves unwritten. */
  function dirty(): void {
    const list: Mbuf[] = [];
    for (let i = 0; i < 32; i++) {
      const m = m_get(M_NOWAIT, MT_DATA)!;
      mem.fill(0xa5, mtod(m), mtod(m) + 200);
      list.push(m);
    }
    for (const m of list) m_freem(m);
  }

  it("has FreeBSD's numbers", () => {
    const { IP_RECVOPTS, IP_RECVRETOPTS, IP_RECVDSTADDR, IP_SENDSRCADDR, IP_RETOPTS } = C;
    expect([IP_RECVOPTS, IP_RECVRETOPTS, IP_RECVDSTADDR, IP_SENDSRCADDR, IP_RETOPTS]).to.eql([
      5, 6, 7, 7, 8,
    ]);
    const { IP_RECVIF, IP_ORIGDSTADDR, IP_RECVORIGDSTADDR, IP_RECVTTL, IP_RECVTOS } = C;
    expect([IP_RECVIF, IP_ORIGDSTADDR, IP_RECVORIGDSTADDR, IP_RECVTTL, IP_RECVTOS]).to.eql([
      20, 27, 27, 65, 68,
    ]);
  });

  it('each option is off at first, and is read as 1 once it is set', () => {
    const s = udp();
    const { IP_RECVOPTS, IP_RECVRETOPTS, IP_RECVDSTADDR, IP_RECVIF, IP_ORIGDSTADDR } = C;
    const names = [IP_RECVOPTS, IP_RECVRETOPTS, IP_RECVDSTADDR, IP_RECVIF, IP_ORIGDSTADDR];
    for (const name of [...names, C.IP_RECVTTL, C.IP_RECVTOS, C.IP_DONTFRAG]) {
      expect(b.getsockopt(s, IPPROTO_IP, name)).to.equal(0);
      expect(b.setsockopt(s, IPPROTO_IP, name, 7)).to.equal(0);
      expect(b.getsockopt(s, IPPROTO_IP, name), String(name)).to.equal(1);
      expect(b.setsockopt(s, IPPROTO_IP, name, 0)).to.equal(0);
      expect(b.getsockopt(s, IPPROTO_IP, name)).to.equal(0);
      expect(b.setsockopt(s, IPPROTO_IP, name, new Uint8Array(3))).to.equal(-EINVAL);
    }
  });

  it('UDP: all messages, in the order of FreeBSD; a look keeps them', () => {
    const s = udp();
    dirty();
    arrives();
    expect(messages(s)).to.eql([]);
    on(s, C.IP_RECVTOS, C.IP_RECVTTL, C.IP_RECVDSTADDR, C.IP_ORIGDSTADDR);
    arrives();
    const dst = hex(bytes(US));
    const all = [
      [C.IP_ORIGDSTADDR, `10020035${dst}0000000000000000`],
      [C.IP_RECVDSTADDR, dst],
      [C.IP_RECVTTL, '09'],
      [C.IP_RECVTOS, '2d'],
    ];
    expect(messages(s, MSG_PEEK)).to.eql(all);
    expect(messages(s)).to.eql(all);
  });

  it('UDP: IP_RECVIF gives the interface as a sockaddr_dl', () => {
    const s = udp();
    on(s, C.IP_RECVIF);
    dirty();
    arrives();
    const [[type, data] = []] = messages(s);
    expect(type).to.equal(C.IP_RECVIF);
    const sdl = Buffer.from(data!, 'hex');
    const { if_index, if_xname, if_type, if_lladdr } = h.ifp;
    expect([sdl.length, sdl[0], sdl[1], sdl.readUInt16LE(2), sdl[4]]).to.eql([
      56,
      56,
      18,
      if_index,
      if_type,
    ]);
    const end = 8 + sdl[5]!;
    expect(sdl.toString('latin1', 8, end)).to.equal(if_xname);
    expect(hex(sdl.subarray(end, end + sdl[6]!))).to.equal(hex(if_lladdr));
    expect(sdl.subarray(end + 6).every((byte) => byte === 0)).to.equal(true);
    expect(sdl[7]).to.equal(0);
  });

  it('UDP: IP_RECVIF of a datagram over lo0: no link-level address', () => {
    const s = udp();
    on(s, C.IP_RECVIF);
    const target = { address: '127.0.0.1', port: 53 };
    expect(b.sendto(udp(54), Uint8Array.of(1), 0, target)).to.equal(1);
    const sdl = Buffer.from(messages(s)[0]![1], 'hex');
    expect([sdl.toString('latin1', 8, 8 + sdl[5]!), sdl[4], sdl[6]]).to.eql(['lo0', 24, 0]);
  });

  it('UDP: IP options do not move what the messages show, and yield none themselves', () => {
    const s = udp();
    on(s, C.IP_RECVOPTS, C.IP_RECVRETOPTS, C.IP_RECVTTL, C.IP_ORIGDSTADDR);
    arrives({ options: [7, 7, 4, 0, 0, 0, 0, 0] });
    expect(messages(s)).to.eql([
      [C.IP_ORIGDSTADDR, `10020035${hex(bytes(US))}0000000000000000`],
      [C.IP_RECVTTL, '09'],
    ]);
    // IP_RETOPTS reads what IP_OPTIONS set; it cannot be set.
    expect(b.setsockopt(s, IPPROTO_IP, C.IP_RETOPTS, new Uint8Array(4))).to.equal(-ENOPROTOOPT);
    expect(b.setsockopt(s, IPPROTO_IP, C.IP_OPTIONS, Uint8Array.of(1, 1, 1, 0))).to.equal(0);
    const buf = new Uint8Array(8);
    expect(b.getsockoptBytes(s, IPPROTO_IP, C.IP_RETOPTS, buf)).to.equal(8);
    expect([...buf]).to.eql([0, 0, 0, 0, 1, 1, 1, 0]);
  });

  it('a broadcast gives each socket messages of its own', () => {
    const list = [1, 2].map(() => {
      const s = b.socket(AF_INET, SOCK_DGRAM);
      expect(b.setsockopt(s, C.SOL_SOCKET, C.SO_REUSEPORT, 1)).to.equal(0);
      expect(b.bind(s, { address: ANY, port: 53 })).to.equal(0);
      return s;
    });
    on(list[0]!, C.IP_RECVDSTADDR);
    on(list[1]!, C.IP_RECVTTL);
    arrives({ dst: '255.255.255.255' });
    expect(messages(list[0]!)).to.eql([[C.IP_RECVDSTADDR, 'ffffffff']]);
    expect(messages(list[1]!)).to.eql([[C.IP_RECVTTL, '09']]);
  });

  it('raw sockets have the messages too, except the destination with its port', () => {
    const s = b.socket(AF_INET, SOCK_RAW, 1);
    on(s, C.IP_RECVTTL, C.IP_RECVDSTADDR, C.IP_ORIGDSTADDR);
    h.injectIp(buildIp4({ src: PEER, dst: US, ttl: 3 }, 1, buildIcmp({ type: 0, id: 1, seq: 1 })));
    expect(messages(s)).to.eql([
      [C.IP_RECVDSTADDR, hex(bytes(US))],
      [C.IP_RECVTTL, '03'],
    ]);
  });

  it('recvmsg on an empty socket and recvfrom return no messages', () => {
    const s = udp();
    on(s, C.IP_RECVTTL);
    expect(b.recvmsg(s, new Uint8Array(9)).control).to.eql([]);
    arrives();
    expect(b.recvfrom(s, new Uint8Array(9)).n).to.equal(5);
    expect(b.recvmsg(s, new Uint8Array(9)).n).to.equal(-35);
  });

  describe('sendmsg', () => {
    const peer = { address: PEER, port: 9 };
    const message = (type: number, ...data: number[]): Cmsg => ({
      level: IPPROTO_IP,
      type,
      data: Uint8Array.from(data),
    });
    const send = (s: number, ...control: Cmsg[]): number =>
      b.sendmsg(s, Uint8Array.of(1, 2, 3), 0, peer, control);
    const src = (text: string): Cmsg => message(C.IP_SENDSRCADDR, ...bytes(text));

    it('IP_TOS sets the TOS of one datagram', () => {
      const s = udp();
      expect(send(s, message(C.IP_TOS, 0x88))).to.equal(3);
      expect(send(s)).to.equal(3);
      expect(h.take().map((f) => f.ip!.tos)).to.eql([0x88, 0]);
      expect(send(s, message(C.IP_TOS, 1, 2))).to.equal(-EINVAL);
    });

    it('IP_SENDSRCADDR sets the source of one datagram', () => {
      const s = udp();
      expect(send(s, src('127.0.0.1'))).to.equal(-EADDRNOTAVAIL);
      expect(send(s, src(US))).to.equal(3);
      expectTx(h.sent, [from(US, 53), to(PEER, 9)]);
      expect(b.getsockname(s)).to.eql({ address: ANY, port: 53 });
      // The next datagram has the default source again.
      const alias = '192.0.2.3';
      expect(in_aifaddr(h.ifp, addr(alias), 24)).to.equal(0);
      h.sent.length = 0;
      expect(send(s, src(alias))).to.equal(3);
      expect(send(s)).to.equal(3);
      // The data of a message may be a part of a larger buffer.
      const all = Uint8Array.from([1, 2, 3, 4, ...bytes(alias)]);
      expect(send(s, { ...src(alias), data: all.subarray(4) })).to.equal(3);
      expect(h.take().map((f) => f.ip!.src)).to.eql([alias, US, alias]);
    });

    it('IP_SENDSRCADDR fails without port, with a local address, for 0.0.0.0 and other sizes', () => {
      expect(send(udp(0), src(US))).to.equal(-EINVAL);
      expect(send(udp(54, US), src(US))).to.equal(-EINVAL);
      const s = udp();
      expect(send(s, src(ANY))).to.equal(-EINVAL);
      expect(send(s, message(C.IP_SENDSRCADDR, 1))).to.equal(-EINVAL);
      expect(send(s, src('203.0.113.9'))).to.equal(-EADDRNOTAVAIL);
    });

    it('IP_SENDSRCADDR fails if another socket has the address and port', () => {
      const both = (address: string): number => {
        const s = b.socket(AF_INET, SOCK_DGRAM);
        b.setsockopt(s, C.SOL_SOCKET, C.SO_REUSEADDR, 1);
        expect(b.bind(s, { address, port: 55 })).to.equal(0);
        return s;
      };
      const s = both(ANY);
      both(US);
      expect(send(s, src(US))).to.equal(-EADDRINUSE);
      expect(h.sent).to.have.length(0);
    });

    it('unknown messages fail, those of another level are ignored', () => {
      const s = udp();
      expect(send(s, message(C.IP_RECVTTL, 1))).to.equal(-ENOPROTOOPT);
      expect(send(s, { ...message(1, 1), level: 6 })).to.equal(3);
      expect(decodeFrame(h.sent.pop()!).ip!.tos).to.equal(0);
    });

    it('a raw socket ignores them, a stream refuses them', () => {
      const raw = b.socket(AF_INET, SOCK_RAW, 1);
      const echo = buildIcmp({ type: 8, id: 1, seq: 1 });
      const tos = [message(C.IP_TOS, 0x88)];
      expect(b.sendmsg(raw, echo, 0, { address: PEER, port: 0 }, tos)).to.equal(echo.length);
      expect(h.take()[0]!.ip!.tos).to.equal(0);
      const stream = b.socket(AF_INET, SOCK_STREAM);
      expect(b.sendmsg(stream, echo, 0, null, tos)).to.equal(-EINVAL);
    });
  });
});
