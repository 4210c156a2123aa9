import { expect } from 'chai';
import { IPPROTO_TCP, MSG_MORETOCOME } from '../../src/kern/protosw.ts';
import { soSetInt } from '../../src/kern/uipc_sockopt.ts';
import { counted, R_TCP_PAWS, R_TCP_REASS_FULL } from '../../src/sys/reason.ts';
import { EWOULDBLOCK } from '../../src/sys/errno.ts';
import { SB_AUTOSIZE, sbreserve, sbspace } from '../../src/kern/uipc_sockbuf.ts';
import { sosend } from '../../src/kern/uipc_socket.ts';
import { UIO_WRITE, Uio } from '../../src/vm/uio.ts';
import { reassOrdered } from '../../src/netinet/tcp_reass.ts';
import { TCP_NODELAY } from '../../src/netinet/tcp_sockopt.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { ack, expectTx, flags, payload, seq, win } from '../support/frames.ts';
import { type Conn, TestHost } from './tcp_host.ts';

const text = (n: number): string =>
  Array.from({ length: n }, (_, i) => String.fromCharCode(33 + ((i * 7) % 90))).join('');

describe('tcp: receiving', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish();
  });
  afterEach(() => h.close());

  // RFC 9293, 3.8.6.3; net.inet.tcp.delacktime.
  it('delays the ACK of one segment for 40 ms, and acknowledges a second segment immediately', () => {
    c.data(text(1460));
    h.advance(39.9);
    expectTx(h.sent);
    h.advance(0.1);
    expectTx(h.sent, [flags('.'), ack(c.seq)]);

    c.data(text(1460));
    expectTx(h.sent);
    c.data(text(1460));
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    h.advance(1000);
    expectTx(h.sent);
  });

  it('sends the delayed ACK with its own data', () => {
    c.data('ping');
    h.write(c.so, 'pong');
    expectTx(h.sent, [flags('P.'), payload('pong'), ack(c.seq)]);
    h.advance(100);
    expectTx(h.sent);
  });

  it('acknowledges immediately with net.inet.tcp.delayed_ack=0', () => {
    expect(h.vnet.sysctl.write('net.inet.tcp.delayed_ack', '0')).to.equal(0);
    c.data('x');
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
  });

  it('reassembles segments that arrive in any order', () => {
    const t = text(6000);
    const at = (from: number, to: number): void =>
      c.seg({ seq: c.seq + from, payload: t.slice(from, to) });
    at(1000, 2000);
    expectTx(h.sent, [flags('.'), ack(c.seq)]); // RFC 5681, 3.2: an immediate duplicate ACK
    at(4000, 5000);
    at(2000, 3000); // joins the first block
    at(500, 1500); // overlaps the first block
    at(4500, 5500); // overlaps the second block
    at(3900, 4100);
    at(1000, 2000); // a duplicate
    expect(h.tp(c.so).t_segqlen).to.equal(2);
    expect(reassOrdered(h.tp(c.so))).to.equal(true);
    expect(h.read(c.so)).to.equal(EWOULDBLOCK);
    h.sent.length = 0;
    at(0, 600);
    expectTx(h.sent, [flags('.'), ack(c.seq + 3000)]);
    at(2900, 3950);
    expectTx(h.sent, [flags('.'), ack(c.seq + 5500)]);
    expect(h.tp(c.so).t_segqlen).to.equal(0);
    expect(h.read(c.so)).to.equal(t.slice(0, 5500));
  });

  it('merges two queued blocks when a segment fills the gap between them', () => {
    const t = text(3000);
    for (const at of [1000, 2500, 1500, 2000])
      c.seg({ seq: c.seq + at, payload: t.slice(at, at + 500) });
    expect(h.tp(c.so).t_segqlen).to.equal(1);
    expect(h.tp(c.so).t_segq!.tqe_len).to.equal(2000);
    c.seg({ payload: t.slice(0, 1000) });
    expect(h.read(c.so)).to.equal(t);
  });

  it('keeps a FIN that arrives behind a gap', () => {
    c.seg({ seq: c.seq + 3, payload: 'def', flags: 'F.' });
    c.seg({ seq: c.seq + 6, flags: 'F.' });
    h.sent.length = 0;
    c.seg({ payload: 'abc' });
    expectTx(h.sent, [flags('.'), ack(c.seq + 7)]);
    expect(c.state).to.equal('CLOSE_WAIT');
    expect(h.read(c.so)).to.equal('abcdef');
    expect(h.read(c.so)).to.equal(null);
  });

  it('limits the number of segments queued behind a gap', () => {
    h.clock.advance(2e9); // let the challenge ACK limit start over
    for (let i = 0; i < 150; i++) c.seg({ seq: c.seq + 2 + 2 * i, payload: 'x' });
    expect(h.tp(c.so).t_segqlen).to.equal(100);
    expect(counted(R_TCP_REASS_FULL)).to.equal(50);
    // The segment that fills the gap is accepted even if the queue is full.
    c.seg({ payload: 'abc' });
    expect(h.read(c.so)).to.equal('abc');
    expect(V_tcp(h.vnet).reassSegments).to.equal(99);
  });

  it('limits the memory of the reassembly queue by that of the receive buffer', () => {
    V_tcp(h.vnet).params.reass_maxqueuelen = 100_000;
    const { so_rcv } = c.so;
    so_rcv.sb_mbmax = 20_000;
    for (let i = 0; i < 30; i++) c.seg({ seq: c.seq + 1 + 1200 * i, payload: text(1100) });
    expect(h.tp(c.so).t_segqmbuflen).to.be.within(10_000, 20_000);
    expect(counted(R_TCP_REASS_FULL)).to.be.above(10);
  });

  it('accepts the new part of a segment that is partly duplicate', () => {
    c.data('abcdef');
    h.advance(50);
    h.sent.length = 0;
    c.seg({ seq: c.seq - 3, payload: 'defghi' });
    expectTx(h.sent, [flags('.'), ack(c.seq + 3)]);
    expect(h.read(c.so)).to.equal('abcdefghi');
    expect(h.stat.tcps_rcvpartdupbyte).to.equal(3);
  });

  it('works across the wrap of the sequence space', () => {
    const w = h.establish({ dport: 81, seq: 0xfffffffb });
    w.data('abc');
    w.seg({ seq: w.seq + 3, payload: 'ghi' }); // beyond the wrap to 0, behind a gap
    h.advance(50);
    h.sent.length = 0;
    w.data('def'); // 0xffffffff to 1
    expectTx(h.sent, [flags('.'), ack(5)]);
    expect(h.read(w.so)).to.equal('abcdefghi');
  });

  // RFC 9293, 3.8.6: the window closes when the buffer is full, and opens again by two segments or
  // half the buffer.
  it('closes its window and reopens it without a silly window', () => {
    const { so_rcv } = c.so;
    V_tcp(h.vnet).params.recvbuf_auto = false;
    let sent = 0;
    while (so_rcv.sb_hiwat - sent >= 1460) {
      c.data(text(1460));
      sent += 1460;
    }
    h.advance(50);
    const last = h.take().at(-1)!.ip!.tcp!;
    expect(last.ack).to.equal(c.seq);
    expect(last.win).to.equal(so_rcv.sb_hiwat - sent);
    // A byte beyond the window is refused with an ACK.
    c.data(text(Math.max(so_rcv.sb_hiwat - sent, 0)));
    h.advance(50);
    h.sent.length = 0;
    c.seg({ payload: '!' });
    expectTx(h.sent, [flags('.'), ack(c.seq), win(0)]);
    expect(h.stat.tcps_rcvwinprobe).to.equal(1);
    // A small read sends no window update; a large one does.
    h.read(c.so, 1000);
    expectTx(h.sent);
    c.data('!'); // the buffer has room for it, but too little for a window update
    expectTx(h.sent, [ack(c.seq), win(0)]);
    h.read(c.so, 20_000);
    expectTx(h.sent, [flags('.'), ack(c.seq), win(20_999)]);
  });

  it('accepts data up to the last byte of the window and no further', () => {
    const edge = c.seq + c.so.so_rcv.sb_hiwat;
    c.seg({ seq: edge, payload: 'x' });
    expect(h.tp(c.so).t_segqlen).to.equal(0);
    c.seg({ seq: edge - 2, payload: 'abcd' });
    expect(h.tp(c.so).t_segq!.tqe_len).to.equal(2);
    c.seg({ seq: edge - 1, payload: 'b' });
    expect(h.tp(c.so).t_segq!.tqe_len).to.equal(2);
  });

  // RFC 9293, 3.8.6: the right edge of the window does not move left.
  it('does not shrink an advertised window when its buffer shrinks', () => {
    const { so_rcv } = c.so;
    c.data('a');
    h.advance(50);
    const before = h.take()[0]!.ip!.tcp!;
    so_rcv.sb_hiwat = 1000;
    c.data('bc');
    h.advance(50);
    const after = h.take()[0]!.ip!.tcp!;
    expect(after.ack + after.win).to.equal(before.ack + before.win);
  });

  // Without scaling the window cannot open by a quarter of a large buffer.
  for (const size of [300_000, 65_536])
    it(`opens a closed window of 65535 bytes, with a buffer of ${size} bytes`, () => {
      sbreserve(c.so.so_rcv, size);
      for (let room = 1; room > 0;) {
        c.data(text(Math.min(1460, room)));
        room = sbspace(c.so.so_rcv);
      }
      h.advance(50);
      expect(h.take().at(-1)!.ip!.tcp!.win).to.equal(0);
      expect(h.read(c.so, size)).to.have.length(size);
      expectTx(h.sent, [win(65_535)]);
    });

  it('grows the receive buffer with the amount of data per round trip', () => {
    const w = h.establish({ dport: 81, ts: { val: 1, ecr: 0 }, wscale: 6 });
    const before = w.so.so_rcv.sb_hiwat;
    const segment = text(1448);
    for (let i = 0; i < 200; i++) {
      w.ts = { val: 2 + i, ecr: w.ts!.ecr };
      w.data(segment);
      h.advance(0.02);
      h.read(w.so);
    }
    expect(w.so.so_rcv.sb_hiwat).to.be.above(before * 2);
    // A buffer without SB_AUTOSIZE keeps its size.
    w.so.so_rcv.sb_flags &= ~SB_AUTOSIZE;
    const kept = w.so.so_rcv.sb_hiwat;
    for (let i = 0; i < 400; i++) {
      w.data(segment);
      h.advance(0.02);
      h.read(w.so);
    }
    expect(w.so.so_rcv.sb_hiwat).to.equal(kept);
  });
});

describe('tcp: timestamps (RFC 7323)', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish({ ts: { val: 1000, ecr: 0 }, wscale: 2 });
  });
  afterEach(() => h.close());

  it('echoes the timestamp of the segment that it acknowledges', () => {
    c.data('a', { ts: { val: 1005, ecr: c.ts!.ecr } });
    c.data('b', { ts: { val: 1006, ecr: c.ts!.ecr } });
    // RFC 7323, 4.3 (2): of two segments acknowledged together, the timestamp of the earlier one.
    const [f] = expectTx(h.sent, [flags('.'), ack(c.seq)]);
    expect(f!.ip!.tcp!.ts!.ecr).to.equal(1005);
  });

  it('drops a segment with an old timestamp and sends an ACK (PAWS)', () => {
    c.data('a', { ts: { val: 2000, ecr: c.ts!.ecr } });
    h.advance(50);
    h.sent.length = 0;
    c.seg({ payload: 'old', ts: { val: 1999, ecr: c.ts!.ecr } });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    expect(counted(R_TCP_PAWS)).to.equal(1);
    expect(h.read(c.so)).to.equal('a');
    c.seg({ payload: 'new', ts: { val: 2000, ecr: c.ts!.ecr } });
    expect(h.read(c.so)).to.equal('new');
  });

  it('ignores the timestamp of a segment that ends before Last.ACK.sent', () => {
    c.data('abc', { ts: { val: 2000, ecr: c.ts!.ecr } });
    h.advance(50);
    h.sent.length = 0;
    // RFC 7323, 4.3 (2): a blind guess does not meet SEG.SEQ <= Last.ACK.sent < SEG.SEQ + SEG.LEN.
    c.seg({ seq: c.seq - 100_000, payload: 'guess', ts: { val: 0x40000000, ecr: 0 } });
    const [f] = expectTx(h.sent, [flags('.'), ack(c.seq)]);
    expect(f!.ip!.tcp!.ts!.ecr).to.equal(2000);
    c.data('def', { ts: { val: 2001, ecr: c.ts!.ecr } });
    expect(h.read(c.so)).to.equal('abcdef');
    h.advance(50);
    h.sent.length = 0;
    // A retransmission of the last acknowledged segment, whose ACK was lost, ends exactly at
    // Last.ACK.sent.
    c.seg({ seq: c.seq - 3, payload: 'def', ts: { val: 2051, ecr: c.ts!.ecr } });
    expect(h.take()[0]!.ip!.tcp!.ts!.ecr).to.equal(2051);
  });

  it('compares timestamps modulo 2^32', () => {
    c.data('a', { ts: { val: 0x70000000, ecr: c.ts!.ecr } });
    h.advance(50);
    c.data('b', { ts: { val: 0xe0000000, ecr: c.ts!.ecr } });
    h.advance(50);
    c.data('c', { ts: { val: 0x40000000, ecr: c.ts!.ecr } });
    expect(h.read(c.so)).to.equal('abc');
  });

  it('accepts any timestamp after 24 idle days', () => {
    c.data('a', { ts: { val: 2000, ecr: c.ts!.ecr } });
    h.advance(50);
    V_tcp(h.vnet).params.always_keepalive = false;
    h.advance(24 * 86400 * 1000 + 1000);
    h.sent.length = 0;
    c.seg({ payload: 'b', ts: { val: 5, ecr: c.ts!.ecr } });
    expect(h.read(c.so)).to.equal('ab');
  });

  it('drops a segment without the negotiated timestamp, except a RST', () => {
    h.vnet.sysctl.write('net.inet.tcp.tolerate_missing_ts', '0');
    c.ts = undefined;
    c.seg({ payload: 'x' });
    expect(h.read(c.so)).to.equal(EWOULDBLOCK);
    expectTx(h.sent);
    c.seg({ flags: 'R' });
    expect(c.state).to.equal('CLOSED');
  });

  it('measures the round-trip time by the echoed timestamp', () => {
    h.write(c.so, 'x');
    const t = h.take()[0]!.ip!.tcp!;
    h.advance(30);
    c.seg({ ack: t.seq + 1, ts: { val: 1001, ecr: t.ts!.val } });
    expect(h.tp(c.so).t_srtt / 32).to.be.closeTo(1 + 29 / 8, 0.5);
  });

  it('ignores an echoed timestamp from the future', () => {
    h.write(c.so, 'x');
    const t = h.take()[0]!.ip!.tcp!;
    h.advance(30);
    const before = h.tp(c.so).t_srtt;
    c.seg({ ack: t.seq + 1, ts: { val: 1001, ecr: t.ts!.val + 5000 } });
    // The RTT sample then comes from the timed segment.
    expect(h.tp(c.so).t_srtt).to.be.above(before);
    expect(h.tp(c.so).t_srtt / 32).to.be.below(10);
  });
});

describe('tcp: sending', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish();
  });
  afterEach(() => h.close());

  const lengths = (): number[] => h.take().map((f) => f.ip!.tcp!.payload.length);

  /** Shrinks the send window. A smaller window needs a newer segment: RFC 9293, 3.10.7.4. */
  const shrinkTo = (bytes: number): void => {
    c.data('x');
    c.win = bytes;
    c.data('y');
    h.advance(50);
    h.sent.length = 0;
  };

  // Nagle, RFC 9293, 3.7.4.
  it('holds a small segment back while data is in flight, unless TCP_NODELAY is set', () => {
    h.write(c.so, 'a');
    expectTx(h.sent, [payload('a')]);
    h.write(c.so, 'b');
    h.write(c.so, 'c');
    expectTx(h.sent);
    c.seg({ ack: c.ack + 1 });
    expectTx(h.sent, [flags('P.'), payload('bc'), seq(c.ack + 1)]);
    expect(soSetInt(c.so, IPPROTO_TCP, TCP_NODELAY, 1)).to.equal(0);
    h.write(c.so, 'd');
    expectTx(h.sent, [payload('d')]);
  });

  it('waits for more data after MSG_MORETOCOME', () => {
    const bytes = new TextEncoder().encode('head');
    const uio = new Uio().single(bytes, 0, 4, UIO_WRITE);
    expect(sosend(c.so, uio, null, MSG_MORETOCOME)).to.equal(0);
    expectTx(h.sent);
    h.write(c.so, 'body');
    expectTx(h.sent, [flags('P.'), payload('headbody')]);
  });

  it('sends full segments immediately, and the rest when all data is acknowledged', () => {
    h.write(c.so, text(1460 * 2 + 100));
    // An idle connection sends all of it, the short segment included.
    const frames = h.take();
    expect(frames.map((f) => f.ip!.tcp!.payload.length)).to.deep.equal([1460, 1460, 100]);
    expect(frames.map((f) => f.ip!.tcp!.flags)).to.deep.equal(['.', '.', 'P.']);
    h.write(c.so, text(1460 + 50));
    expect(lengths()).to.deep.equal([1460]);
    c.seg({ ack: c.ack + 1460 * 3 + 100 });
    expect(lengths()).to.deep.equal([50]);
  });

  it('starts with ten segments and grows by the acknowledged amount', () => {
    h.write(c.so, text(30_000));
    expect(h.take()).to.have.length(10);
    c.seg({ ack: c.ack + 2 * 1460 });
    expect(h.take(), 'two segments acknowledged, window two segments larger').to.have.length(4);
  });

  it('stays within the peer’s window', () => {
    shrinkTo(2000);
    h.write(c.so, text(5000));
    expect(lengths()).to.deep.equal([1460]);
    // 540 bytes of window are left, less than half of the largest window, so they are not used: RFC
    // 9293, 3.8.6.2.1.
    c.seg({ ack: c.ack + 1460, win: 65535 });
    expect(lengths()).to.deep.equal([1460, 1460, 620]);
  });

  it('takes the window from the newest segment, not from the last to arrive', () => {
    c.data('abc');
    c.data('def');
    c.seg({ seq: c.seq - 3, win: 10 });
    c.seg({ seq: c.seq - 6, win: 20, payload: 'abc' });
    expect(h.tp(c.so).snd_wnd).to.equal(65535);
    c.data('ghi', { win: 30 });
    expect(h.tp(c.so).snd_wnd).to.equal(30);
  });

  it('probes a zero window after 5 s, backs off up to a minute, and resumes when it opens', () => {
    shrinkTo(0);
    h.write(c.so, text(3000));
    expectTx(h.sent);
    const at: number[] = [];
    for (let ms = 0; ms < 250_000; ms += 100) {
      h.advance(100);
      for (const f of h.take()) {
        const t = f.ip!.tcp!;
        expect(t.seq).to.equal(c.ack);
        expect(t.payload.length).to.equal(1);
        at.push((ms + 100) / 1000);
        c.seg({});
      }
    }
    expect(at.slice(0, 3)).to.deep.equal([5, 10, 18.2]);
    expect(Math.max(...at.map((x, i) => x - (at[i - 1] ?? 0)))).to.be.within(40, 60);
    expect(c.state).to.equal('ESTABLISHED');
    expect(h.stat.tcps_sndprobe).to.equal(at.length);

    c.win = 65535;
    c.seg({});
    const frames = h.take();
    expect(frames.map((f) => f.ip!.tcp!.payload.length)).to.deep.equal([1460, 1460]);
    expect(frames[0]!.ip!.tcp!.seq).to.equal(c.ack);
    c.seg({ ack: c.ack + 2920 });
    expectTx(h.sent, [payload(80), seq(c.ack + 2920)]);
  });

  it('continues after the probed byte when the window opens', () => {
    shrinkTo(0);
    h.write(c.so, 'abc');
    h.advance(5000);
    expectTx(h.sent, [payload('a')]);
    c.win = 1000;
    c.seg({ ack: c.ack + 1 });
    expectTx(h.sent, [payload('bc'), seq(c.ack + 1)]);
    c.seg({ ack: c.ack + 3 });
    expect(c.so.so_snd.sb_ccc).to.equal(0);
  });

  it('probes instead of retransmitting when the peer shrinks its window', () => {
    h.write(c.so, text(3000));
    h.take();
    c.seg({ ack: c.ack + 1460, win: 0 });
    expect(h.tp(c.so).snd_wnd).to.equal(0);
    h.write(c.so, 'x');
    // Data beyond the window counts as refused, not as lost: it is probed, not retransmitted.
    h.advance(4999);
    expectTx(h.sent);
    h.advance(1);
    expectTx(h.sent, [payload(1), seq(c.ack + 1460)]);
    c.seg({ ack: c.ack + 3000, win: 100 });
    expectTx(h.sent, [payload('x')]);
  });

  it('grows the send buffer when the buffer limits the rate', () => {
    const w = h.establish({ dport: 81, wscale: 8 });
    const before = w.so.so_snd.sb_hiwat;
    let acked = 0;
    for (let i = 0; i < 100 && w.so.so_snd.sb_hiwat <= before * 2; i++) {
      const room = sbspace(w.so.so_snd);
      if (room > 0) h.write(w.so, new Uint8Array(room));
      for (const f of h.take()) acked += f.ip!.tcp!.payload.length;
      w.seg({ ack: w.ack + acked });
    }
    expect(w.so.so_snd.sb_hiwat).to.be.above(before * 2);
  });
});
