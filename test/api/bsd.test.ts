/** BSD sockets by descriptor: one stack talks to itself over lo0, on virtual time. */

import { expect } from 'chai';
import { Bsd } from '../../src/api/bsd.ts';
import {
  EADDRINUSE,
  EALREADY,
  EBADF,
  ECONNREFUSED,
  ECONNRESET,
  EFAULT,
  EINPROGRESS,
  EINVAL,
  EISCONN,
  ENOENT,
  ENOPROTOOPT,
  ENOTCONN,
  EPIPE,
  EWOULDBLOCK,
  type TapnicError,
} from '../../src/sys/errno.ts';
import {
  EV_ADD,
  EV_EOF,
  EV_ERROR,
  EVFILT_READ,
  EVFILT_WRITE,
  type Kevent,
} from '../../src/kern/kern_event.ts';
import {
  AF_INET,
  IPPROTO_TCP,
  MSG_OOB,
  MSG_PEEK,
  MSG_WAITALL,
  SOCK_DGRAM,
  SOCK_STREAM,
} from '../../src/kern/protosw.ts';
import { SHUT_WR, SO_KEEPALIVE, SO_LINGER, SO_REUSEADDR } from '../../src/kern/uipc_socket.ts';
import {
  SO_ERROR,
  SO_RCVBUF,
  SO_RCVTIMEO,
  SO_SNDBUF,
  SOL_SOCKET,
} from '../../src/kern/uipc_sockopt.ts';
import { TCP_CONGESTION, TCP_NODELAY, type TcpInfo } from '../../src/netinet/tcp_sockopt.ts';
import { Conn, MS, TestHost } from '../netinet/tcp_host.ts';

const LO = '127.0.0.1';

describe('api: bsd', () => {
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

  const text = (s: string): Uint8Array => Uint8Array.from(Buffer.from(s));
  const first = (events: Kevent[] | number): Kevent => (events as Kevent[])[0]!;
  const recv = (s: number, flags = 0, max = 100): string | number => {
    const buf = Buffer.alloc(max);
    const n = b.recv(s, buf, flags);
    return n < 0 ? n : buf.toString('latin1', 0, n);
  };
  /** The code that an async call rejects with. */
  const code = async (p: Promise<unknown>): Promise<string> => {
    try {
      await p;
    } catch (e) {
      return (e as TapnicError).code;
    }
    return 'nothing';
  };
  /** Lets promises settle, then advances the clock. */
  const settle = async (ms = 0): Promise<void> => {
    for (let i = 0; i < 20; i++) await Promise.resolve();
    h.clock.advance(ms * MS);
    for (let i = 0; i < 20; i++) await Promise.resolve();
  };
  const listener = (port = 80, backlog = 5): number => {
    const s = b.socket(AF_INET, SOCK_STREAM);
    expect(b.setsockopt(s, SOL_SOCKET, SO_REUSEADDR, 1)).to.equal(0);
    expect(b.bind(s, { address: '0.0.0.0', port })).to.equal(0);
    expect(b.listen(s, backlog)).to.equal(0);
    return s;
  };
  const pair = async (port = 80): Promise<[number, number]> => {
    const l = listener(port);
    const c = b.socket(AF_INET, SOCK_STREAM);
    const accepted = b.acceptAsync(l);
    await b.connectAsync(c, { address: LO, port });
    const s = await accepted;
    b.close(l);
    return [c, s];
  };

  /** A connection from a peer on the wire: its descriptor, and the peer. */
  const fromPeer = (port: number): [number, Conn] => {
    const l = listener(port);
    const sport = 40_000 + port;
    h.seg({ flags: 'S', seq: 1000, sport, dport: port });
    const t = h.take().find((f) => f.ip?.tcp?.flags === 'S.')!.ip!.tcp!;
    const c = new Conn(h, sport, 1001, t.seq + 1);
    c.dport = port;
    c.seg({});
    const s = b.accept(l);
    expect(s).to.be.above(0);
    b.close(l);
    return [s, c];
  };

  it('connects, transfers data and returns both addresses', async () => {
    const [c, s] = await pair();
    expect(b.send(c, text('hello'))).to.equal(5);
    await settle();
    expect(recv(s, MSG_PEEK)).to.equal('hello');
    expect(recv(s)).to.equal('hello');
    expect(recv(s)).to.equal(-EWOULDBLOCK);
    expect(b.getpeername(c)).to.eql({ address: LO, port: 80 });
    expect(b.getsockname(s)).to.eql({ address: LO, port: 80 });
    expect(b.getpeername(s)).to.eql(b.getsockname(c));
    expect(b.connect(c, { address: LO, port: 80 })).to.equal(-EISCONN);
    expect(b.send(c, text('X'), MSG_OOB)).to.equal(1);
    await settle();
    expect([b.sockatmark(s), recv(s, MSG_OOB), b.sockatmark(c)]).to.eql([1, 'X', 0]);
    expect(b.shutdown(c, SHUT_WR)).to.equal(0);
    expect(b.send(c, text('x'))).to.equal(-EPIPE);
    await settle();
    expect(recv(s)).to.equal('');
    expect(b.send(s, text('still'))).to.equal(5);
    await settle();
    expect(recv(c)).to.equal('still');
  });

  it('returns the lowest free descriptor, and EBADF for one that is not open', () => {
    const fds = [0, 1, 2].map(() => b.socket(AF_INET, SOCK_STREAM));
    expect(fds).to.eql([3, 4, 5]);
    expect(b.close(4)).to.equal(0);
    expect([b.close(4), b.close(-1)]).to.eql([-EBADF, -EBADF]);
    expect([b.kqueue(), b.socket(AF_INET, SOCK_STREAM)]).to.eql([4, 6]);
    expect([b.recv(4, new Uint8Array(1)), b.listen(9, 1), b.sockatmark(9)]).to.eql([
      -EBADF,
      -EBADF,
      -EBADF,
    ]);
    expect(b.socket(AF_INET, SOCK_STREAM, 99)).to.be.below(0);
  });

  it('connect without waiting: EINPROGRESS, EALREADY, then EVFILT_WRITE or SO_ERROR', async () => {
    const c = b.socket(AF_INET, SOCK_STREAM);
    const kq = b.kqueue();
    // No reply yet: its ARP request is on the wire.
    expect(b.connect(c, { address: '192.0.2.1', port: 7 })).to.equal(-EINPROGRESS);
    expect(b.connect(c, { address: '192.0.2.1', port: 7 })).to.equal(-EALREADY);
    const watch = { ident: c, filter: EVFILT_WRITE, flags: EV_ADD };
    expect(b.kevent(kq, [watch], 4)).to.eql([]);
    h.seg({
      flags: 'R.',
      sport: 7,
      dport: (b.getsockname(c) as { port: number }).port,
      ...ackOf(),
    });
    const events = b.kevent(kq, [], 4);
    expect(events).to.have.length(1);
    expect(first(events)).to.include({ flags: EV_EOF, fflags: ECONNREFUSED });
    expect(b.getsockopt(c, SOL_SOCKET, SO_ERROR)).to.equal(ECONNREFUSED);
    expect(b.getsockopt(c, SOL_SOCKET, SO_ERROR)).to.equal(0);
  });
  /** The ACK number that answers the last SYN sent. */
  const ackOf = (): { ack: number } => {
    const syn = h.take().find((f) => f.ip?.tcp?.flags === 'S')!;
    return { ack: (syn.ip!.tcp!.seq + 1) >>> 0 };
  };

  it('blocking calls wait, time out, and transfer all requested bytes', async () => {
    const [c, s] = await pair();
    const buf = new Uint8Array(10);
    const whole = b.recvAsync(s, buf, MSG_WAITALL);
    for (const part of ['abc', 'defg', 'hijkl']) {
      b.send(c, text(part));
      await settle(50);
    }
    expect(await whole).to.equal(10);
    expect(Buffer.from(buf).toString()).to.equal('abcdefghij');
    expect(recv(s)).to.equal('kl');
    // SO_RCVTIMEO
    expect(b.setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, { tv_sec: 1, tv_usec: 500_000 })).to.equal(0);
    const late = code(b.recvAsync(s, buf));
    await settle(1_499);
    let over = false;
    void late.then(() => (over = true));
    await settle();
    expect(over).to.equal(false);
    await settle(1);
    expect(await late).to.equal('EAGAIN');
    // A write larger than both buffers ends when the reader has read the data.
    b.setsockopt(c, SOL_SOCKET, SO_SNDBUF, 5000);
    b.setsockopt(s, SOL_SOCKET, SO_RCVBUF, 5000);
    const sent = b.sendAsync(c, new Uint8Array(50_000).fill(7));
    let got = 0;
    for (let i = 0; i < 500 && got < 50_000; i++) {
      await settle(100);
      const n = b.recv(s, new Uint8Array(4000));
      if (n > 0) got += n;
    }
    expect([await sent, got]).to.eql([50_000, 50_000]);
  });

  it('sets and reads options with int, struct and text values', async () => {
    const [c] = await pair();
    expect(b.setsockopt(c, IPPROTO_TCP, TCP_NODELAY, 1)).to.equal(0);
    expect(b.getsockopt(c, IPPROTO_TCP, TCP_NODELAY)).to.equal(4);
    expect(b.setsockopt(c, IPPROTO_TCP, TCP_CONGESTION, 'newreno')).to.equal(0);
    const name = new Uint8Array(16);
    expect(b.getsockoptBytes(c, IPPROTO_TCP, TCP_CONGESTION, name), 'with NUL').to.equal(8);
    expect(Buffer.from(name).toString('latin1')).to.equal('newreno'.padEnd(16, '\0'));
    expect(b.setsockopt(c, SOL_SOCKET, SO_LINGER, { l_onoff: 1, l_linger: 5 })).to.equal(0);
    expect(b.getsockopt(c, SOL_SOCKET, SO_KEEPALIVE)).to.equal(0);
    expect(b.setsockopt(c, SOL_SOCKET, 0x7777, 1)).to.equal(-ENOPROTOOPT);
    expect((b.tcpInfo(c) as TcpInfo).tcpi_state).to.equal(4);
    expect(b.tcpInfo(99)).to.equal(-EBADF);
  });

  it('SO_LINGER: close waits for the last ACK up to the set time; 0 resets', async () => {
    for (const acked of [true, false]) {
      const port = acked ? 90 : 91;
      const [s, c] = fromPeer(port);
      b.setsockopt(s, SOL_SOCKET, SO_LINGER, { l_onoff: 1, l_linger: 3 });
      b.send(s, text('bye'));
      let closed = false;
      const closing = b.closeAsync(s).then(() => (closed = true));
      await settle(500);
      expect(b.send(s, text('x'))).to.equal(-EBADF);
      expect(closed).to.equal(false);
      if (acked) c.seg({ ack: c.ack + 4 });
      else await settle(2_499);
      expect(closed).to.equal(false);
      await settle(acked ? 0 : 1);
      expect(closed).to.equal(true);
      await closing;
    }
    const [e, u] = await pair(82);
    b.setsockopt(e, SOL_SOCKET, SO_LINGER, { l_onoff: 1, l_linger: 0 });
    await b.closeAsync(e);
    await settle();
    expect(recv(u)).to.equal(-ECONNRESET);
    expect(recv(u)).to.equal('');
  });

  it('kevent: changes, events, errors, waiting', async () => {
    const [c, s] = await pair();
    const kq = b.kqueue();
    const read = { ident: s, filter: EVFILT_READ, flags: EV_ADD, udata: 'mine' };
    expect(b.kevent(kq, [read], 5)).to.eql([]);
    const waiting = b.keventAsync(kq, [], 5);
    b.send(c, text('four'));
    await settle();
    expect(await waiting).to.eql([
      { ident: s, filter: EVFILT_READ, flags: 0, fflags: 0, data: 4, udata: 'mine' },
    ]);
    expect(b.nread(s)).to.equal(4);
    recv(s);
    const none = b.keventAsync(kq, [], 5, 250);
    await settle(250);
    expect(await none).to.eql([]);
    const bad = b.kevent(kq, [{ ident: 77, filter: EVFILT_READ, flags: EV_ADD }], 1);
    expect(first(bad)).to.include({ flags: EV_ERROR, data: EBADF });
    expect(b.kevent(kq, [{ ident: s, filter: EVFILT_WRITE, flags: 2 }], 0)).to.equal(-ENOENT);
    expect(b.kevent(s, [], 1)).to.equal(-EBADF);
    b.close(c);
    await settle();
    const eof = b.kevent(kq, [], 5);
    expect(first(eof)).to.include({ flags: EV_EOF, ident: s });
    b.close(s);
    expect(b.kevent(kq, [], 5)).to.eql([]);
  });

  it('sends datagrams with an address and on a connected socket', async () => {
    const [a, z] = [b.socket(AF_INET, SOCK_DGRAM), b.socket(AF_INET, SOCK_DGRAM)];
    expect(b.bind(z, { address: LO, port: 53 })).to.equal(0);
    expect(b.sendto(a, text('q'), 0, { address: LO, port: 53 })).to.equal(1);
    await settle();
    const buf = new Uint8Array(10);
    const { n, from } = b.recvfrom(z, buf);
    expect([n, buf[0], from!.address]).to.eql([1, 0x71, LO]);
    expect(b.recvfrom(z, buf)).to.eql({ n: -EWOULDBLOCK, flags: 0, from: null });
    expect(b.connect(z, from!)).to.equal(0);
    expect(b.send(z, text('answer'))).to.equal(6);
    await settle();
    expect(recv(a)).to.equal('answer');
  });

  it('returns the errors of the C calls', async () => {
    const l = listener();
    const other = b.socket(AF_INET, SOCK_STREAM);
    expect(b.bind(other, { address: '0.0.0.0', port: 80 })).to.equal(-EADDRINUSE);
    expect(b.bind(other, { address: 'nowhere', port: 80 })).to.be.below(0);
    expect(b.send(other, 'text' as never)).to.equal(-EFAULT);
    expect(b.recv(other, 7 as never)).to.equal(-EFAULT);
    const udp = b.socket(AF_INET, SOCK_DGRAM);
    expect(b.sendto(udp, 7 as never, 0, { address: LO, port: 9 })).to.equal(-EFAULT);
    expect(b.accept(other)).to.equal(-EINVAL);
    expect(b.accept(l)).to.equal(-EWOULDBLOCK);
    expect(b.getpeername(l)).to.equal(-ENOTCONN);
    expect(b.shutdown(other, SHUT_WR)).to.equal(-ENOTCONN);
    expect(recv(other)).to.equal(-ENOTCONN);
    expect(await code(b.connectAsync(other, { address: LO, port: 9 }))).to.equal('ECONNREFUSED');
  });
});
