import { expect } from 'chai';
import { SHUT_WR, soshutdown } from '../../src/kern/uipc_socket.ts';
import { soStats } from '../../src/kern/uipc_socket.ts';
import { TCPS_FIN_WAIT_2, TCPS_LAST_ACK, TCPS_TIME_WAIT } from '../../src/netinet/tcp_fsm.ts';
import { tcp_shutdownVnet, tcpConnections } from '../../src/netinet/tcp_pcblist.ts';
import { ECONNABORTED, ENOTCONN, EPIPE, ETIMEDOUT } from '../../src/sys/errno.ts';
import { ack, expectTx, flags, payload, seq } from '../support/frames.ts';
import { type Conn, TestHost } from './tcp_host.ts';

describe('tcp: closing', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish();
  });
  afterEach(() => h.close());

  it('closes actively: FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT for 2 MSL', () => {
    const sockets = soStats.current;
    h.closeSocket(c.so);
    expectTx(h.sent, [flags('F.'), seq(c.ack)]);
    c.seg({ ack: c.ack + 1 });
    expect(h.count(TCPS_FIN_WAIT_2)).to.equal(1);
    c.data('', { flags: 'F.', ack: c.ack + 1 });
    expectTx(h.sent, [flags('.'), seq(c.ack + 1), ack(c.seq)]);
    expect(h.count(TCPS_TIME_WAIT)).to.equal(1);
    // The socket is freed; only the control block stays for 2 MSL.
    expect(soStats.current).to.equal(sockets - 1);
    h.advance(59_999);
    expect(h.count(TCPS_TIME_WAIT)).to.equal(1);
    h.advance(1);
    expect(h.count(TCPS_TIME_WAIT)).to.equal(0);
  });

  it("enters TIME_WAIT immediately if the peer's FIN also acknowledges ours", () => {
    h.closeSocket(c.so);
    h.take();
    c.data('', { flags: 'F.', ack: c.ack + 1 });
    expect(h.count(TCPS_TIME_WAIT)).to.equal(1);
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
  });

  it('closes simultaneously: CLOSING', () => {
    soshutdown(c.so, SHUT_WR);
    h.take();
    c.data('', { flags: 'F.' });
    expect(c.state).to.equal('CLOSING');
    expectTx(h.sent, [flags('F.'), seq(c.ack), ack(c.seq)]);
    c.seg({ ack: c.ack + 1 });
    expect(c.state).to.equal('TIME_WAIT');
    expectTx(h.sent);
  });

  it('closes passively: CLOSE_WAIT, LAST_ACK, CLOSED', () => {
    c.data('bye', { flags: 'FP.' });
    expectTx(h.sent, [flags('.'), ack(c.seq)]);
    expect(c.state).to.equal('CLOSE_WAIT');
    expect(h.read(c.so)).to.equal('bye');
    expect(h.read(c.so)).to.equal(null);
    expect(h.write(c.so, 'still here')).to.equal(0);
    expectTx(h.sent, [payload('still here')]);
    h.closeSocket(c.so);
    expect(h.count(TCPS_LAST_ACK)).to.equal(1);
    expectTx(h.sent, [flags('F.'), seq(c.ack + 10)]);
    c.seg({ ack: c.ack + 11 });
    expect(tcpConnections(h.vnet)).to.equal(0);
    // A late ACK gets a RST, because the connection is gone.
    c.seg({ ack: c.ack + 11 });
    expectTx(h.sent, [flags('R'), seq(c.ack + 11)]);
  });

  it('sends buffered data before its FIN, and retransmits the FIN', () => {
    c.win = 65535;
    const n = 30_000;
    h.write(c.so, new Uint8Array(n));
    h.closeSocket(c.so);
    let acked = 0;
    let fin = 0;
    for (let i = 0; i < 50 && fin === 0; i++) {
      for (const f of h.take()) {
        const t = f.ip!.tcp!;
        acked = Math.max(acked, t.seq + t.payload.length - c.ack);
        if (t.flags.includes('F')) fin = t.seq + t.payload.length;
      }
      if (fin === 0) c.seg({ ack: c.ack + acked });
    }
    expect(acked).to.equal(n);
    expect(fin).to.equal(c.ack + n);
    c.seg({ ack: c.ack + n });
    h.advance(300);
    h.advance(300);
    const again = h.take().filter((f) => f.ip!.tcp!.flags.includes('F'));
    expect(again.length).to.be.at.least(1);
    expect(again[0]!.ip!.tcp!.seq).to.equal(fin);
    c.seg({ ack: fin + 1 });
    expect(h.count(TCPS_FIN_WAIT_2)).to.equal(1);
  });

  it('acknowledges a retransmitted FIN in TIME_WAIT and restarts 2 MSL', () => {
    h.closeSocket(c.so);
    c.seg({ ack: c.ack + 1 });
    c.seg({ flags: 'F.', ack: c.ack + 1 });
    h.advance(50_000);
    h.take();
    c.seg({ flags: 'F.', ack: c.ack + 1 });
    expectTx(h.sent, [flags('.'), ack(c.seq + 1)]);
    h.advance(50_000);
    expect(h.count(TCPS_TIME_WAIT)).to.equal(1);
    h.advance(10_000);
    expect(h.count(TCPS_TIME_WAIT)).to.equal(0);
  });

  // RFC 1337; RFC 9293, 3.6.1.
  it('ignores RSTs in TIME_WAIT, and accepts a new SYN above RCV.NXT', () => {
    h.closeSocket(c.so);
    c.seg({ ack: c.ack + 1 });
    c.seg({ flags: 'F.', ack: c.ack + 1 });
    h.take();
    c.seg({ flags: 'R', seq: c.seq + 1 });
    expect(h.count(TCPS_TIME_WAIT)).to.equal(1);
    c.seg({ flags: 'S', seq: c.seq - 10 }); // an old SYN
    expectTx(h.sent);
    c.seg({ flags: 'S', seq: c.seq + 5000 });
    expectTx(h.sent, [flags('S.'), ack(c.seq + 5001)]);
    expect(h.count(TCPS_TIME_WAIT)).to.equal(0);
  });

  it('leaves FIN_WAIT_2 after a timeout if the socket is closed', () => {
    // FreeBSD uses finwait2_timeout only with fast_finwait2_recycle.
    h.vnet.sysctl.write('net.inet.tcp.finwait2_timeout', '5000');
    h.closeSocket(c.so);
    c.seg({ ack: c.ack + 1 });
    // The timer first fires after keepcnt times keepintvl, then every keepintvl, and checks how
    // long the connection was idle.
    h.advance(674_900);
    expect(h.count(TCPS_FIN_WAIT_2)).to.equal(1);
    h.advance(200);
    expect(h.count(TCPS_FIN_WAIT_2)).to.equal(0);
  });

  it('recycles FIN_WAIT_2 after 60 s with net.inet.tcp.fast_finwait2_recycle', () => {
    h.vnet.sysctl.write('net.inet.tcp.fast_finwait2_recycle', '1');
    h.closeSocket(c.so);
    c.seg({ ack: c.ack + 1 });
    h.advance(60_000);
    expect(h.count(TCPS_FIN_WAIT_2)).to.equal(0);
    expect(h.stat.tcps_finwait2_drops).to.equal(1);
  });

  it('receives data after shutdown(SHUT_WR), and refuses to send', () => {
    expect(soshutdown(c.so, SHUT_WR)).to.equal(0);
    c.seg({ ack: c.ack + 1 });
    c.data('answer', { ack: c.ack + 1 });
    expect(h.read(c.so)).to.equal('answer');
    expect(h.write(c.so, 'x')).to.equal(EPIPE);
    c.data('', { flags: 'F.', ack: c.ack + 1 });
    expect(h.read(c.so)).to.equal(null);
    expect(c.state).to.equal('TIME_WAIT');
  });

  it('sends keepalive probes after two hours, eight of them 75 s apart, then drops the connection', () => {
    h.advance(7_200_000);
    expectTx(h.sent, [flags('.'), seq(c.ack - 1), payload(0)]);
    c.seg({});
    h.advance(7_200_000 - 1);
    expectTx(h.sent);
    h.advance(1);
    expect(h.take()).to.have.length(1);
    h.advance(8 * 75_000);
    expect(h.take().filter((f) => !f.ip!.tcp!.flags.includes('R'))).to.have.length(7);
    expect(c.state).to.equal('CLOSED');
    expect(c.so.so_error).to.equal(ETIMEDOUT);
    expect(h.stat.tcps_keepdrops).to.equal(1);
  });

  it('answers keepalive probes', () => {
    c.seg({ seq: c.seq - 1 });
    expectTx(h.sent, [flags('.'), seq(c.ack), ack(c.seq)]);
  });

  it('tcp_shutdownVnet ends all connections by FIN, by RST, or silently', () => {
    const d = h.establish({ sport: 41000, dport: 81 });
    h.seg({ flags: 'S', seq: 1, sport: 42000, dport: 81 });
    h.write(d.so, 'rest');
    h.take();
    tcp_shutdownVnet(h.vnet, 'fin');
    expect(tcpConnections(h.vnet)).to.equal(2);
    const fins = h.take();
    expect(fins.map((f) => f.ip!.tcp!.flags)).to.deep.equal(['F.', 'F.']);
    c.data('', { flags: 'F.', ack: c.ack + 1 });
    expect(tcpConnections(h.vnet)).to.equal(1);
    h.take();
    tcp_shutdownVnet(h.vnet, 'rst');
    expectTx(h.sent, [flags('R.')]);
    expect(tcpConnections(h.vnet)).to.equal(0);
    expect(d.so.so_error).to.equal(ECONNABORTED);
    tcp_shutdownVnet(h.vnet, 'discard');
    expect(h.count(TCPS_TIME_WAIT)).to.equal(0);
  });

  it('resets connections that a closed listener never accepted', () => {
    const head = h.listen(90);
    h.seg({ flags: 'S', seq: 1, sport: 42000, dport: 90 });
    const t = h.take()[0]!.ip!.tcp!;
    h.seg({ seq: 2, ack: t.seq + 1, sport: 42000, dport: 90 });
    expect(head.sol_comp).to.have.length(1);
    h.closeSocket(head);
    expectTx(h.sent, [flags('R.'), seq(t.seq + 1)]);
  });

  it('returns ENOTCONN for shutdown and write on an unconnected socket', () => {
    const so = h.socket();
    expect(soshutdown(so, SHUT_WR)).to.equal(ENOTCONN);
    expect(h.write(so, 'x')).to.equal(ENOTCONN);
  });
});
