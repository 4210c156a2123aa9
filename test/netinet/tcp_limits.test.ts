/** Timers and limits that apply to slow, silent or narrow-window peers. */

import { expect } from 'chai';
import { EHOSTUNREACH, ETIMEDOUT } from '../../src/sys/errno.ts';
import {
  EV_ADD,
  EV_CLEAR,
  EVFILT_WRITE,
  Kqueue,
  kqueue_close,
  kqueue_register,
  kqueue_scan,
  NOTE_LOWAT,
} from '../../src/kern/kern_event.ts';
import { IPPROTO_TCP, MSG_MORETOCOME } from '../../src/kern/protosw.ts';
import { soSend } from '../../src/kern/sys_generic.ts';
import { SHUT_WR, soshutdown } from '../../src/kern/uipc_socket.ts';
import { SO_RCVBUF, SO_SNDLOWAT, soSetInt, SOL_SOCKET } from '../../src/kern/uipc_sockopt.ts';
import { TCPS_FIN_WAIT_2 } from '../../src/netinet/tcp_fsm.ts';
import { TCP_NODELAY } from '../../src/netinet/tcp_sockopt.ts';
import { ack, buildIcmp, buildIp4, expectTx, flags, payload, win } from '../support/frames.ts';
import { Conn, PEER, PEER_PORT, TestHost, US } from './tcp_host.ts';
import { runUpcalls } from '../support/machine.ts';

describe('tcp: limits', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  /** Advances the clock by `seconds` and returns the flags of each sent segment. */
  const during = (seconds: number): string[] => {
    const seen: string[] = [];
    for (let i = 0; i < seconds; i++) {
      h.advance(1000);
      for (const f of h.take()) if (f.ip?.tcp !== undefined) seen.push(f.ip.tcp.flags);
    }
    return seen;
  };
  /** A connection with a zero send window and buffered data. */
  const shut = (): Conn => {
    const c = h.establish();
    c.win = 0;
    // A smaller window is accepted only from a later segment.
    c.data('x');
    c.seg({});
    h.advance(40);
    h.take();
    h.write(c.so, 'waits');
    expectTx(h.sent);
    return c;
  };

  it('MSG_MORETOCOME: holds a small segment until more data is written', () => {
    const c = h.establish();
    const bytes = Uint8Array.from(Buffer.from('half'));
    expect(soSend(c.so, bytes, 0, 4, MSG_MORETOCOME)).to.equal(0);
    expectTx(h.sent);
    expect(soSend(c.so, bytes, 0, 4, 0)).to.equal(0);
    expectTx(h.sent, [payload('halfhalf')]);
    c.seg({ ack: c.ack + 8 });
    expect(soSetInt(c.so, IPPROTO_TCP, TCP_NODELAY, 1)).to.equal(0);
    expect(soSend(c.so, bytes, 0, 4, MSG_MORETOCOME)).to.equal(0);
    expectTx(h.sent);
    expect(soSend(c.so, bytes, 0, 4, 0)).to.equal(0);
    expectTx(h.sent, [payload('halfhalf')]);
  });

  // RFC 9293, 3.8.6.3: an ACK for at least every second segment. A NIC may have merged several
  // segments into one.
  it('acknowledges more than one MSS of data immediately', () => {
    const c = h.establish({ mss: 500 });
    c.data('a'.repeat(500));
    expectTx(h.sent);
    h.advance(40);
    expectTx(h.sent, [ack(c.seq)]);
    c.data('b'.repeat(501));
    expectTx(h.sent, [ack(c.seq)]);
  });

  it('ends FIN_WAIT_2 ten minutes after the socket is closed', () => {
    const c = h.establish();
    soshutdown(c.so, SHUT_WR);
    c.seg({ ack: c.ack + 1 });
    expect(h.count(TCPS_FIN_WAIT_2)).to.equal(1);
    // An open socket may still read, so no timeout applies.
    h.advance(3_000_000);
    expect(h.count(TCPS_FIN_WAIT_2)).to.equal(1);
    h.closeSocket(c.so);
    h.advance(599_000);
    expect(h.count(TCPS_FIN_WAIT_2)).to.equal(1);
    h.advance(2_000);
    expect(h.count(TCPS_FIN_WAIT_2)).to.equal(0);
  });

  // RFC 9293, 3.8.6.2.2: half the buffer is enough for a window update if it is less than two
  // segments.
  it('advertises a window again once half of a small buffer is free', () => {
    const head = h.listen(80);
    expect(soSetInt(head, SOL_SOCKET, SO_RCVBUF, 2000)).to.equal(0);
    h.seg({ flags: 'S', seq: 1000, mss: 1460 });
    const c = new Conn(h, PEER_PORT, 1001, h.take()[0]!.ip!.tcp!.seq + 1);
    c.seg({});
    c.so = h.accept(head);
    // SO_RCVBUF is rounded up to whole segments.
    expect(c.so.so_rcv.sb_hiwat).to.equal(2920);
    for (let i = 0; i < 2; i++) c.data('x'.repeat(1460));
    expect(h.take().at(-1)!.ip!.tcp!.win).to.equal(0);
    expect(h.read(c.so, 1459)).to.have.length(1459);
    expectTx(h.sent);
    expect(h.read(c.so, 1)).to.have.length(1);
    expectTx(h.sent, [flags('.'), win(1460)]);
  });

  it('NOTE_LOWAT: a kqueue reports room below SO_SNDLOWAT', () => {
    const c = h.establish();
    expect(soSetInt(c.so, SOL_SOCKET, SO_SNDLOWAT, 30_000)).to.equal(0);
    h.write(c.so, new Uint8Array(c.so.so_snd.sb_hiwat));
    h.take();
    const kq = new Kqueue();
    let woken = 0;
    kq.kq_upcall = { run: () => void woken++ };
    const what = { ident: 1, filter: EVFILT_WRITE, flags: EV_ADD | EV_CLEAR };
    const kev = { ...what, fflags: NOTE_LOWAT, data: 1000, udata: 0 };
    expect(kqueue_register(kq, kev, c.so)).to.equal(0);
    expect(kqueue_scan(kq, 1)).to.eql([]);
    c.seg({ ack: c.ack + 1460 });
    runUpcalls();
    expect(woken).to.equal(1);
    expect(kqueue_scan(kq, 1)).to.have.length(1);
    kqueue_close(kq);
  });

  it('accepts an ACK that completes a handshake only with a sequence number in the window', () => {
    const head = h.listen(80);
    const open = (n: number): void => {
      h.seg({ flags: 'S', seq: 1000 });
      const iss = h.take()[0]!.ip!.tcp!.seq;
      h.seg({ flags: '.', seq: n, ack: iss + 1 });
    };
    for (const n of [1000, 999, 1000 + 65_536]) {
      open(n);
      expectTx(h.sent, [flags('R')]);
    }
    expect(head.sol_comp).to.have.length(0);
    open(1001);
    expectTx(h.sent);
    expect(head.sol_comp).to.have.length(1);
  });

  // RFC 5461, 4, and RFC 1122, 4.2.3.9: a connect that times out reports the soft error.
  it('returns the soft ICMP error when a connect times out', () => {
    for (const told of [false, true]) {
      const so = h.connect(80);
      const syn = h.take().find((f) => f.ip?.tcp?.flags === 'S')!.ip!.tcp!;
      const quoted = new Uint8Array(28);
      quoted.set(buildIp4({ src: US, dst: PEER, df: true, len: 60 }, 6, new Uint8Array(8)));
      const view = new DataView(quoted.buffer);
      view.setUint16(20, syn.sport);
      view.setUint16(22, 80);
      view.setUint32(24, syn.seq);
      const error = buildIcmp({ type: 3, code: 1, payload: quoted });
      if (told) h.injectIp(buildIp4({ src: PEER, dst: US }, 1, error));
      expect(so.so_error).to.equal(0);
      h.advance(76_000);
      h.take();
      expect(so.so_error).to.equal(told ? EHOSTUNREACH : ETIMEDOUT);
    }
  });

  it('probes a zero window, and gives up if the peer stays silent', () => {
    const c = shut();
    const seen = during(3600);
    expect(seen.filter((f) => !f.includes('R'))).to.have.length.above(11);
    expect(c.so.so_error).to.equal(ETIMEDOUT);
    expect(h.stat.tcps_persistdrop).to.equal(1);
  });

  it('keeps probing a peer that answers', () => {
    const c = shut();
    for (let i = 0; i < 3600; i++) {
      h.advance(1000);
      if (h.take().length > 0) c.seg({});
    }
    expect(c.state).to.equal('ESTABLISHED');
    expect(h.stat.tcps_persistdrop).to.equal(0);
  });

  it('gives up on a zero window a minute after the socket is closed', () => {
    const c = shut();
    h.closeSocket(c.so);
    during(59);
    expect(h.stat.tcps_persistdrop).to.equal(0);
    expect(during(70)).to.include('R.');
    expect(h.stat.tcps_persistdrop).to.equal(1);
  });
});
