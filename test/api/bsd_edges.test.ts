/** BSD sockets in states that program errors cause, and calls that wait during other calls. */

import { expect } from 'chai';
import { Bsd, type OptionValue } from '../../src/api/bsd.ts';
import {
  EADDRNOTAVAIL,
  EAFNOSUPPORT,
  ECONNABORTED,
  ECONNREFUSED,
  ECONNRESET,
  EDESTADDRREQ,
  EINPROGRESS,
  EINVAL,
  EISCONN,
  ENOTCONN,
  EOPNOTSUPP,
  EPIPE,
  EPROTONOSUPPORT,
  EPROTOTYPE,
  EWOULDBLOCK,
  type TapnicError,
} from '../../src/sys/errno.ts';
import {
  EV_ADD,
  EV_DISABLE,
  EV_ENABLE,
  EV_EOF,
  EVFILT_EMPTY,
  EVFILT_READ,
  EVFILT_WRITE,
  type Kevent,
} from '../../src/kern/kern_event.ts';
import {
  AF_INET,
  IPPROTO_TCP,
  MSG_EOF,
  MSG_OOB,
  MSG_PEEK,
  MSG_TRUNC,
  MSG_WAITALL,
  SOCK_DGRAM,
  SOCK_STREAM,
} from '../../src/kern/protosw.ts';
import {
  SHUT_RD,
  SHUT_RDWR,
  SHUT_WR,
  SO_ACCEPTCONN,
  SO_KEEPALIVE,
  SO_LINGER,
} from '../../src/kern/uipc_socket.ts';
import {
  SO_ERROR,
  SO_RCVBUF,
  SO_RCVLOWAT,
  SO_RCVTIMEO,
  SO_SNDLOWAT,
  SO_SNDTIMEO,
  SOL_SOCKET,
} from '../../src/kern/uipc_sockopt.ts';
import { SB_AUTOSIZE } from '../../src/kern/uipc_sockbuf.ts';
import { MS, TestHost } from '../netinet/tcp_host.ts';

const LO = '127.0.0.1';

describe('api: bsd at the edges', () => {
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
  const stream = (): number => b.socket(AF_INET, SOCK_STREAM);
  const dgram = (): number => b.socket(AF_INET, SOCK_DGRAM);
  const at = (port: number, address = LO): { address: string; port: number } => ({ address, port });
  const listener = (port: number): number => {
    const s = stream();
    expect([b.bind(s, at(port, '0.0.0.0')), b.listen(s, 5)]).to.eql([0, 0]);
    return s;
  };
  /** The outcome of an async call: a result, the code that it rejects with, or `waits`. */
  const outcome = (p: Promise<unknown>): { now: unknown } => {
    const state: { now: unknown } = { now: 'waits' };
    p.then(
      (v) => (state.now = v),
      (e: unknown) => (state.now = (e as TapnicError).code),
    );
    return state;
  };
  const settle = async (ms = 0): Promise<void> => {
    for (let i = 0; i < 20; i++) await Promise.resolve();
    h.clock.advance(ms * MS);
    for (let i = 0; i < 20; i++) await Promise.resolve();
  };
  const events = (kq: number): Kevent[] => b.kevent(kq, [], 9) as Kevent[];

  it('socket: reports a wrong domain, type or protocol', () => {
    expect(b.socket(77, SOCK_STREAM)).to.equal(-EAFNOSUPPORT);
    expect(b.socket(AF_INET, 77)).to.equal(-EPROTOTYPE);
    expect(b.socket(AF_INET, SOCK_STREAM, 99)).to.equal(-EPROTONOSUPPORT);
    expect(b.socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP)).to.be.below(0);
  });

  it('a connecting stream: recv waits, send and getpeername return ENOTCONN', async () => {
    const c = stream();
    expect(b.connect(c, at(7, '192.0.2.1'))).to.equal(-EINPROGRESS);
    expect(b.recv(c, new Uint8Array(9))).to.equal(-EWOULDBLOCK);
    expect(b.send(c, text('x'))).to.equal(-ENOTCONN);
    expect(b.getpeername(c)).to.equal(-ENOTCONN);
    expect(b.listen(c, 1)).to.equal(-EINVAL);
  });

  it('a refused stream: ECONNREFUSED again, and it cannot be bound or listen', async () => {
    const c = stream();
    const first = outcome(b.connectAsync(c, at(9)));
    await settle();
    expect(first.now).to.equal('ECONNREFUSED');
    expect(b.connect(c, at(9))).to.equal(-ECONNREFUSED);
    expect([b.bind(c, at(99)), b.listen(c, 1)]).to.eql([-EINVAL, -EINVAL]);
    expect([b.send(c, text('x')), b.recv(c, new Uint8Array(1))]).to.eql([-EPIPE, 0]);
    expect(b.shutdown(c)).to.equal(-ENOTCONN);
  });

  it('bind: EINVAL the second time, EADDRNOTAVAIL for a foreign address', () => {
    const s = stream();
    expect(b.bind(s, at(80, '192.0.2.77'))).to.equal(-EADDRNOTAVAIL);
    expect(b.bind(s, at(80))).to.equal(0);
    expect(b.bind(s, at(81))).to.equal(-EINVAL);
    expect(b.connect(s, at(80, '224.0.0.1'))).to.equal(-EAFNOSUPPORT);
  });

  it('a listener has no data and no peer; shutdown ends a waiting accept', async () => {
    const l = listener(80);
    expect([b.send(l, text('x')), b.recv(l, new Uint8Array(1))]).to.eql([-ENOTCONN, -ENOTCONN]);
    expect([b.connect(l, at(81)), b.listen(l, 9)]).to.eql([-EOPNOTSUPP, 0]);
    const kq = b.kqueue();
    const add = { ident: l, flags: EV_ADD };
    const filters = [EVFILT_READ, EVFILT_WRITE, EVFILT_EMPTY];
    b.kevent(
      kq,
      filters.map((filter) => ({ ...add, filter })),
      0,
    );
    expect(events(kq).map((e) => e.filter)).to.eql([EVFILT_EMPTY]);
    const waiting = outcome(b.acceptAsync(l));
    expect(b.shutdown(l, SHUT_WR)).to.equal(-ENOTCONN);
    await settle();
    expect(waiting.now).to.equal('waits');
    expect(b.shutdown(l, SHUT_RD)).to.equal(-ENOTCONN);
    const read = events(kq).find((e) => e.filter === EVFILT_READ);
    expect(read).to.include({ flags: EV_EOF, fflags: ECONNABORTED });
    expect(events(kq).map((e) => e.filter)).not.to.include(EVFILT_WRITE);
    await settle();
    expect(waiting.now).to.equal('ECONNABORTED');
    expect(b.accept(l)).to.equal(-EWOULDBLOCK);
  });

  it('shutdown of a datagram socket without a peer: ENOTCONN, and it takes effect', async () => {
    const u = dgram();
    b.bind(u, at(53));
    const waiting = outcome(b.recvAsync(u, new Uint8Array(9)));
    expect(b.shutdown(u, SHUT_RDWR)).to.equal(-ENOTCONN);
    await settle();
    expect(waiting.now).to.equal(0);
    const full = dgram();
    b.bind(full, at(54));
    for (const s of ['one', '', 'two']) b.sendto(dgram(), text(s), 0, at(54));
    await settle();
    b.shutdown(full, SHUT_RD);
    expect([b.nread(full), b.recv(full, new Uint8Array(9))]).to.eql([0, 0]);
    expect(b.sendto(u, text('x'), 0, at(54))).to.equal(-EPIPE);
    expect(b.shutdown(u, 7)).to.equal(-EINVAL);
  });

  /** A connection over lo0: the client and the server. */
  const connected = async (port: number): Promise<[number, number]> => {
    const l = listener(port);
    const c = stream();
    b.connect(c, at(port));
    await settle();
    return [c, b.accept(l)];
  };

  it('MSG_WAITALL: a RST ends it with what arrived, and the next call returns the error', async () => {
    const [c, s] = await connected(90);
    b.setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, 3);
    const buf = new Uint8Array(10);
    const whole = outcome(b.recvAsync(s, buf, MSG_WAITALL));
    for (const [part, left] of [
      ['ab', 2],
      ['c', 0],
      ['d', 0],
    ] as const) {
      b.send(c, text(part));
      await settle(50);
      expect([whole.now, b.nread(s)]).to.eql(['waits', left]);
    }
    b.setsockopt(c, SOL_SOCKET, SO_LINGER, { l_onoff: 1, l_linger: 0 });
    b.close(c);
    await settle();
    expect([whole.now, Buffer.from(buf).toString('latin1', 0, 4)]).to.eql([4, 'abcd']);
    expect(b.recv(s, buf)).to.equal(-ECONNRESET);
    expect(b.recv(s, buf)).to.equal(0);
  });

  it('MSG_WAITALL does not join datagrams', async () => {
    const u = dgram();
    b.bind(u, at(55));
    for (const s of ['one', 'two']) b.sendto(dgram(), text(s), 0, at(55));
    await settle();
    expect(await b.recvAsync(u, new Uint8Array(9), MSG_WAITALL)).to.equal(3);
  });

  it('shutdown(SHUT_RD) leaves a socket that acknowledges and discards data, up to its window', async () => {
    const [c, s] = await connected(91);
    expect(b.shutdown(s, SHUT_RD)).to.equal(0);
    expect(b.getsockopt(s, SOL_SOCKET, SO_RCVBUF)).to.equal(0);
    const sent = outcome(b.sendAsync(c, new Uint8Array(200_000)));
    for (let i = 0; i < 50; i++) await settle(100);
    expect(sent.now).to.equal('waits');
    expect([b.recv(s, new Uint8Array(9)), b.send(s, text('x'))]).to.eql([0, 1]);
    // SO_RCVBUF opens the window again.
    expect(b.setsockopt(s, SOL_SOCKET, SO_RCVBUF, 65_536)).to.equal(0);
    for (let i = 0; i < 100; i++) await settle(1000);
    expect(sent.now).to.equal(200_000);
  });

  it('datagrams: MSG_PEEK, MSG_TRUNC, MSG_OOB, with and without a peer', async () => {
    const [a, z] = [dgram(), dgram()];
    expect(b.bind(z, at(53))).to.equal(0);
    expect(b.send(a, text('x'))).to.equal(-EDESTADDRREQ);
    for (const s of ['hello', '', 'bye']) b.sendto(a, text(s), 0, at(53));
    await settle();
    const buf = new Uint8Array(3);
    const from = { from: at((b.getsockname(a) as { port: number }).port) };
    expect(b.recvfrom(z, buf, MSG_PEEK)).to.eql({ n: 3, flags: MSG_TRUNC, ...from });
    expect(b.recv(z, buf, MSG_PEEK | MSG_TRUNC)).to.equal(5);
    expect(Buffer.from(buf).toString()).to.equal('hel');
    expect(b.recv(z, buf, MSG_OOB)).to.equal(-EOPNOTSUPP);
    expect(b.recv(z, buf)).to.equal(3);
    expect(b.recvfrom(z, buf)).to.eql({ n: 0, flags: 0, ...from });
    expect(b.recvfrom(z, buf)).to.eql({ n: 3, flags: 0, ...from });
    expect(b.recv(z, buf, MSG_PEEK)).to.equal(-EWOULDBLOCK);
    expect(b.connect(a, at(53))).to.equal(0);
    expect(b.sendto(a, text('x'), 0, at(54))).to.equal(-EISCONN);
    expect([b.listen(a, 1), b.accept(a)]).to.eql([-EOPNOTSUPP, -EINVAL]);
  });

  it('a refused datagram socket reports ECONNREFUSED once, and not for another peer', async () => {
    const [a, z] = [dgram(), dgram()];
    b.bind(z, at(53));
    expect(b.connect(a, at(54))).to.equal(0);
    for (const reported of [true, false]) {
      expect(b.send(a, text('x'))).to.equal(1);
      await settle();
      if (reported) expect(b.send(a, text('x'))).to.equal(-ECONNREFUSED);
    }
    expect(b.connect(a, at(53))).to.equal(0);
    expect(b.send(a, text('new'))).to.equal(3);
    await settle();
    expect(b.recv(z, new Uint8Array(9))).to.equal(3);
  });

  it('close wakes waiting calls with EBADF, even if the descriptor is in use again', async () => {
    const l = listener(80);
    const u = dgram();
    b.bind(u, at(53));
    const c = stream();
    const kq = b.kqueue();
    const waiting = [
      b.acceptAsync(l),
      b.recvAsync(u, new Uint8Array(1)),
      b.connectAsync(c, at(7, '192.0.2.1')),
      b.keventAsync(kq, [], 1),
    ].map(outcome);
    await settle();
    for (const fd of [l, u, c, kq]) b.close(fd);
    const again = [listener(81), dgram(), stream(), b.kqueue()];
    expect(again).to.eql([l, u, c, kq]);
    await settle();
    expect(waiting.map((w) => w.now)).to.eql(['EBADF', 'EBADF', 'EBADF', 'EBADF']);
  });

  it('an accepted socket inherits the options of its listener', async () => {
    const l = listener(80);
    const set = (name: number, v: OptionValue): void => {
      expect(b.setsockopt(l, SOL_SOCKET, name, v)).to.equal(0);
    };
    set(SO_LINGER, { l_onoff: 1, l_linger: 7 });
    set(SO_RCVLOWAT, 30);
    set(SO_SNDLOWAT, 4000);
    set(SO_RCVTIMEO, { tv_sec: 3, tv_usec: 0 });
    set(SO_SNDTIMEO, { tv_sec: 4, tv_usec: 0 });
    set(SO_KEEPALIVE, 1);
    set(SO_RCVBUF, 20_000);
    const c = stream();
    const accepted = b.acceptAsync(l);
    await b.connectAsync(c, at(80));
    const s = await accepted;
    const of = (fd: number): number[][] =>
      [SO_LINGER, SO_RCVLOWAT, SO_SNDLOWAT, SO_RCVTIMEO, SO_SNDTIMEO, SO_KEEPALIVE].map((name) => {
        const bytes = new Uint8Array(16);
        expect(b.getsockoptBytes(fd, SOL_SOCKET, name, bytes)).to.be.above(0);
        return [...bytes];
      });
    expect(of(s)).to.eql(of(l));
    expect(of(s)).not.to.eql(of(c));
    expect(b.getsockopt(s, SOL_SOCKET, SO_ACCEPTCONN)).to.equal(0);
    // A size set by SO_RCVBUF turns autosizing off.
    const { so_rcv, so_snd } = b.socketOf(s)!;
    expect([so_rcv.sb_flags & SB_AUTOSIZE, so_snd.sb_flags & SB_AUTOSIZE]).to.eql([0, SB_AUTOSIZE]);
  });

  it('MSG_EOF sends FIN behind the data; MSG_OOB may exceed a full buffer by up to 1024 bytes', async () => {
    const l = listener(80);
    const c = stream();
    const accepted = b.acceptAsync(l);
    await b.connectAsync(c, at(80));
    const s = await accepted;
    expect(b.send(s, text('bye'), MSG_EOF)).to.equal(3);
    expect(b.send(s, text('x'))).to.equal(-EPIPE);
    await settle(10);
    const buf = new Uint8Array(9);
    expect([b.recv(c, buf), b.recv(c, buf)]).to.eql([3, 0]);
    // The peer does not read in the other direction, so both buffers fill up.
    for (let idle = 0, i = 0; idle < 100 && i < 10_000; i++) {
      idle = b.send(c, new Uint8Array(10_000)) > 0 ? 0 : idle + 1;
      h.clock.advance(10 * MS);
    }
    expect(b.send(c, text('x'))).to.equal(-EWOULDBLOCK);
    let urgent = 0;
    while (urgent < 5000 && b.send(c, text('!'), MSG_OOB) === 1) urgent++;
    expect(urgent).to.be.within(100, 1024);
  });

  it('close wakes a blocked reader and a blocked writer of one connection', async () => {
    const l = listener(80);
    const c = stream();
    const accepted = b.acceptAsync(l);
    await b.connectAsync(c, at(80));
    const s = await accepted;
    const reads = outcome(b.recvAsync(s, new Uint8Array(9)));
    const writes = outcome(b.sendAsync(s, new Uint8Array(1 << 20)));
    await settle(10);
    expect([reads.now, writes.now]).to.eql(['waits', 'waits']);
    b.close(s);
    await settle();
    expect([reads.now, writes.now]).to.eql(['EBADF', 'EBADF']);
    expect(b.getsockopt(c, SOL_SOCKET, SO_ERROR)).to.equal(0);
  });

  it('an event wakes two waiters of one kqueue; EV_ENABLE wins over EV_DISABLE', async () => {
    const u = dgram();
    b.bind(u, at(53));
    const kq = b.kqueue();
    const flags = EV_ADD | EV_ENABLE | EV_DISABLE;
    const one = outcome(b.keventAsync(kq, [{ ident: u, filter: EVFILT_READ, flags }], 1));
    const two = outcome(b.keventAsync(kq, [], 1));
    await settle();
    expect([one.now, two.now]).to.eql(['waits', 'waits']);
    b.sendto(dgram(), text('four'), 0, at(53));
    await settle();
    for (const w of [one, two]) expect((w.now as Kevent[])[0]).to.include({ ident: u, data: 4 });
  });
});
