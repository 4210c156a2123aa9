import { expect } from 'chai';
import { counted, R_TCP_BADRST, R_TCP_OFF, R_TCP_SHORT, R_TCP_SUM } from '../../src/sys/reason.ts';
import { ECONNRESET } from '../../src/sys/errno.ts';
import { SO_LINGER } from '../../src/kern/uipc_socket.ts';
import { ack, buildIp4, expectTx, flags, payload, seq, to } from '../support/frames.ts';
import { PEER, TestHost, US } from './tcp_host.ts';

describe('tcp: resets and challenges', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  // RFC 9293, 3.5.2, group 1.
  it('answers a SYN to a closed port with a RST that acknowledges it', () => {
    h.seg({ flags: 'S', seq: 0xffffffff, payload: 'abc' });
    expectTx(h.sent, [to(PEER), flags('R.'), seq(0), ack(3)]);
  });

  it('counts SYN and FIN in the acknowledgment of a RST', () => {
    h.seg({ flags: 'FS', seq: 10 });
    expectTx(h.sent, [flags('R.'), seq(0), ack(12)]);
    h.seg({ flags: 'FPU', seq: 10 }); // nmap's Xmas scan
    expectTx(h.sent, [flags('R.'), seq(0), ack(11)]);
    h.seg({ flags: '', seq: 10 }); // nmap's null scan
    expectTx(h.sent, [flags('R.'), seq(0), ack(10)]);
  });

  it('answers an ACK to a closed port with a RST at the acknowledged number', () => {
    h.seg({ flags: '.', seq: 10, ack: 77 });
    expectTx(h.sent, [flags('R'), seq(77)]);
  });

  it('never answers a RST or a malformed segment', () => {
    h.seg({ flags: 'R', seq: 10 });
    h.seg({ flags: 'R.', seq: 10, ack: 4 });
    h.seg({ flags: 'S', seq: 10, sum: 0x1234 });
    h.seg({ flags: 'S', seq: 10, off: 4 });
    h.seg({ flags: 'S', seq: 10, off: 15 });
    h.injectIp(buildIp4({ src: PEER, dst: US }, 6, new Uint8Array(19)));
    expectTx(h.sent);
    expect(counted(R_TCP_SUM)).to.equal(1);
    expect(counted(R_TCP_OFF)).to.equal(2);
    expect(counted(R_TCP_SHORT)).to.equal(1);
  });

  // FreeBSD's tcp_respond includes the options of a connection that lives on.
  it('sends timestamps in the RST of a connection, and not for a closed one', () => {
    h.connect(8080);
    const syn = h.take().at(-1)!.ip!.tcp!;
    const at = { sport: 8080, dport: syn.sport };
    h.seg({ ...at, flags: 'S', seq: 10, ts: { val: 7, ecr: 0 } });
    const first = h.take()[0]!.ip!.tcp!;
    h.seg({ ...at, flags: '.', seq: 11, ack: syn.seq + 9, ts: { val: 8, ecr: first.ts!.val } });
    expect(h.take().map((f) => [f.ip!.tcp!.flags, f.ip!.tcp!.ts?.ecr])).to.eql([['R', 7]]);
    const c = h.establish({ ts: { val: 7, ecr: 0 } });
    h.closeSocket(c.so);
    h.take();
    c.data('x');
    expect(h.take().map((f) => [f.ip!.tcp!.flags, f.ip!.tcp!.ts])).to.eql([['R', undefined]]);
  });

  it('sends timestamps, and no SACK blocks, in the RST of a program that aborts', () => {
    const c = h.establish({ ts: { val: 7, ecr: 0 }, sackOk: true });
    c.seg({ seq: c.seq + 5, payload: 'later' });
    expect(h.take()[0]!.ip!.tcp!.sack).to.have.length(1);
    c.so.so_options |= SO_LINGER;
    c.so.so_linger = 0;
    h.closeSocket(c.so);
    const rst = h.take()[0]!.ip!.tcp!;
    expect([rst.flags, rst.ts?.ecr, rst.sack]).to.eql(['R.', 7, undefined]);
  });

  it('a listener accepts only SYNs', () => {
    h.listen(80);
    h.seg({ flags: '.', seq: 10, ack: 77 });
    expectTx(h.sent, [flags('R'), seq(77)]);
    h.seg({ flags: 'S.', seq: 10, ack: 77 });
    expectTx(h.sent, [flags('R'), seq(77)]);
    h.seg({ flags: 'F', seq: 10 });
    h.seg({ flags: '', seq: 10 });
    expectTx(h.sent);
  });

  // RFC 5961, 3.2.
  it('accepts a RST at exactly rcv_nxt, challenges one in the window, ignores one outside', () => {
    const c = h.establish();
    c.seg({ flags: 'R', seq: c.seq - 1 });
    c.seg({ flags: 'R', seq: c.seq + 70000 });
    expectTx(h.sent);
    c.seg({ flags: 'R', seq: c.seq + 1 });
    expectTx(h.sent, [flags('.'), seq(c.ack), ack(c.seq)]);
    c.seg({ flags: 'R', seq: c.seq + 65534 });
    expectTx(h.sent, [flags('.'), seq(c.ack), ack(c.seq)]);
    expect(c.state).to.equal('ESTABLISHED');
    expect(counted(R_TCP_BADRST)).to.equal(4);

    c.seg({ flags: 'R', seq: c.seq });

    expect(c.state).to.equal('CLOSED');
    expect(h.read(c.so)).to.equal(ECONNRESET);
    expectTx(h.sent);
  });

  // RFC 5961, 4.2.
  it('sends a challenge ACK for a SYN in a connection, with any sequence number', () => {
    const c = h.establish();
    c.seg({ flags: 'S', seq: c.seq });
    expectTx(h.sent, [flags('.'), seq(c.ack), ack(c.seq)]);
    c.seg({ flags: 'S', seq: c.seq - 100000 });
    expectTx(h.sent, [flags('.'), seq(c.ack), ack(c.seq)]);
    expect(c.state).to.equal('ESTABLISHED');
  });

  // net.inet.tcp.ack_war_cnt per ack_war_timewindow.
  it('sends five challenge ACKs per second', () => {
    const c = h.establish();
    for (let i = 0; i < 20; i++) c.seg({ flags: 'S' });
    expect(h.take()).to.have.length(5);
    h.advance(999);
    c.seg({ flags: 'S' });
    expectTx(h.sent);
    h.advance(1);
    c.seg({ flags: 'S' });
    expectTx(h.sent, [flags('.')]);
  });

  // RFC 5961, 5.2.
  it('drops a segment with an unacceptable ACK and answers with an ACK', () => {
    const c = h.establish();
    c.seg({ ack: c.ack + 1, payload: 'evil' });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    c.seg({ ack: c.ack - 65536, payload: 'evil' });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    c.seg({ ack: c.ack - 65535, payload: 'good' });
    expect(h.read(c.so)).to.equal('good');
  });

  it('answers data outside the window with an ACK', () => {
    const c = h.establish();
    c.seg({ seq: c.seq + 70000, payload: 'late' });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    expect(h.stat.tcps_rcvpackafterwin).to.equal(1);
  });

  it('sends a RST on close with SO_LINGER of 0 s, with unread and unacknowledged data', () => {
    const c = h.establish();
    c.data('unread');
    h.write(c.so, 'unacked');
    h.sent.length = 0;
    c.so.so_options |= SO_LINGER;
    c.so.so_linger = 0;
    h.closeSocket(c.so);
    expectTx(h.sent, [flags('R.'), seq(c.ack + 7), ack(c.seq)]);
  });

  it('sends a RST for new data after the socket is closed', () => {
    const c = h.establish();
    h.closeSocket(c.so);
    expectTx(h.sent, [flags('F.'), seq(c.ack)]);
    c.seg({ ack: c.ack + 1 });
    c.data('more', { ack: c.ack + 1 });
    expectTx(h.sent, [flags('R'), seq(c.ack + 1), payload(0)]);
    expect(h.stat.tcps_rcvafterclose).to.equal(1);
  });
});
