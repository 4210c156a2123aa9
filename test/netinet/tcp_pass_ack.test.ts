import { expect } from 'chai';
import { soDiscard } from '../../src/kern/uipc_move.ts';
import { SO_RCV, soupcall_set } from '../../src/kern/uipc_socket.ts';
import { sbavail } from '../../src/kern/uipc_sockbuf.ts';
import { TF2_PASSACK } from '../../src/netinet/tcp_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { ECONNRESET } from '../../src/sys/errno.ts';
import { ack, expectTx, flags, win } from '../support/frames.ts';
import { type Conn, TestHost } from './tcp_host.ts';

const FULL = 'x'.repeat(1460);

describe('tcp: one ACK for the segments of a pass', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish();
  });
  afterEach(() => h.close());

  const segments = (n: number): void => {
    for (let i = 0; i < n; i++) c.data(FULL);
  };

  it('acknowledges many segments of one pass once, at its end', () => {
    inPass(() => {
      segments(9);
      expectTx(h.sent);
    });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    h.advance(1000);
    expectTx(h.sent);
    expect(h.tp(c.so).t_flags2 & TF2_PASSACK).to.equal(0);
  });

  it('delays the ACK of a single segment as before', () => {
    inPass(segments, 1);
    expectTx(h.sent);
    h.advance(40);
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
  });

  it('sends no ACK of its own if data carries it', () => {
    inPass(() => {
      segments(3);
      h.write(c.so, 'answer');
    });
    expectTx(h.sent, [flags('P.'), ack(c.seq)]);
  });

  it('acknowledges a segment behind a gap immediately, after the data before it', () => {
    inPass(() => {
      segments(2);
      const { seq } = c;
      c.seq += 1460;
      c.data(FULL);
      expectTx(h.sent, [flags('.'), ack(seq)], [flags('.'), ack(seq)]);
      c.data(FULL);
      expectTx(h.sent, [flags('.'), ack(seq)]);
    });
    expectTx(h.sent);
  });

  it('accepts a RST at RCV.NXT behind the segments', () => {
    inPass(() => {
      segments(2);
      c.seg({ flags: 'R' });
      expect(c.so.so_error).to.equal(ECONNRESET);
    });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
  });

  it('announces the window of data that was discarded in the pass', () => {
    const discard = { run: () => undefined, take: () => soDiscard(c.so) === 0 };
    soupcall_set(c.so, SO_RCV, discard);
    inPass(segments, 10);
    expectTx(h.sent, [flags('.'), ack(c.seq), win(65535)]);
    expect(sbavail(c.so.so_rcv)).to.equal(0);
  });

  it('sends no ACK for a connection that ended in the pass', () => {
    const { so } = c;
    inPass(() => {
      segments(2);
      so.so_options |= 0x80; // SO_LINGER
      h.closeSocket(so);
    });
    expectTx(h.sent, [flags('R.')]);
  });

  it('sends one ACK for each of several connections, in order', () => {
    const d = h.establish({ sport: 4002, dport: 82 });
    inPass(() => {
      segments(2);
      for (let i = 0; i < 4; i++) d.data(FULL);
      segments(2);
    });
    expectTx(h.sent, [flags('.'), ack(c.seq)], [flags('.'), ack(d.seq)]);
  });
});
