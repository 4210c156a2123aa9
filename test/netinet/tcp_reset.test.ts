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
  it('resets a SYN for a closed port with its acknowledgment', () => {
    h.seg({ flags: 'S', seq: 0xffffffff, payload: 'abc' });
    expectTx(h.sent, [to(PEER), flags('R.'), seq(0), ack(3)]);
  });

  it('counts SYN and FIN in what it acknowledges', () => {
    h.seg({ flags: 'FS', seq: 10 });
    expectTx(h.sent, [flags('R.'), seq(0), ack(12)]);
    h.seg({ flags: 'FPU', seq: 10 }); // nmap's Xmas scan
    expectTx(h.sent, [flags('R.'), seq(0), ack(11)]);
    h.seg({ flags: '', seq: 10 }); // and its null scan
    expectTx(h.sent, [flags('R.'), seq(0), ack(10)]);
  });

  it('resets an ACK for a closed port at its own number', () => {
    h.seg({ flags: '.', seq: 10, ack: 77 });
    expectTx(h.sent, [flags('R'), seq(77)]);
  });

  it('never answers a RST, a broadcast or a broken segment', () => {
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

  it('listens to SYNs only', () => {
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
  it('takes a RST at exactly rcv_nxt, challenges one in the window, ignores one outside', () => {
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
  it('challenges a SYN in a connection, whatever its number', () => {
    const c = h.establish();
    c.seg({ flags: 'S', seq: c.seq });
    expectTx(h.sent, [flags('.'), seq(c.ack), ack(c.seq)]);
    c.seg({ flags: 'S', seq: c.seq - 100000 });
    expectTx(h.sent, [flags('.'), seq(c.ack), ack(c.seq)]);
    expect(c.state).to.equal('ESTABLISHED');
  });

  // net.inet.tcp.ack_war_cnt in ack_war_timewindow.
  it('sends five challenges a second', () => {
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
  it('answers an ACK of what was never sent, or is too old, and takes nothing of it', () => {
    const c = h.establish();
    c.seg({ ack: c.ack + 1, payload: 'evil' });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    c.seg({ ack: c.ack - 65536, payload: 'evil' });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    c.seg({ ack: c.ack - 65535, payload: 'good' });
    expect(h.read(c.so)).to.equal('good');
  });

  it('answers data outside the window, not RSTs', () => {
    const c = h.establish();
    c.seg({ seq: c.seq + 70000, payload: 'late' });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    expect(h.stat.tcps_rcvpackafterwin).to.equal(1);
  });

  it('closes with RST if it lingers 0 s, unread data or not', () => {
    const c = h.establish();
    c.data('unread');
    h.write(c.so, 'unacked');
    h.sent.length = 0;
    c.so.so_options |= SO_LINGER;
    c.so.so_linger = 0;
    h.closeSocket(c.so);
    expectTx(h.sent, [flags('R.'), seq(c.ack + 7), ack(c.seq)]);
  });

  it('resets new data for a program that is gone', () => {
    const c = h.establish();
    h.closeSocket(c.so);
    expectTx(h.sent, [flags('F.'), seq(c.ack)]);
    c.seg({ ack: c.ack + 1 });
    c.data('more', { ack: c.ack + 1 });
    expectTx(h.sent, [flags('R'), seq(c.ack + 1), payload(0)]);
    expect(h.stat.tcps_rcvafterclose).to.equal(1);
  });
});
