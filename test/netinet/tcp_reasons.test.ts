/** Every drop, challenge and retransmission of TCP counts exactly the expected reasons. */

import { expect } from 'chai';
import { reasonCounts, resetReasons } from '../../src/sys/reason.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { buildIcmp, buildIp4 } from '../support/frames.ts';
import { type Conn, PEER, PEER_PORT, TestHost, US } from './tcp_host.ts';

describe('tcp: reasons', () => {
  let h: TestHost;
  beforeEach(() => {
    h = new TestHost();
    h.listen(80);
  });
  afterEach(() => h.close());

  /** TCP's reasons counted while `act` runs. */
  const reasons = (act: () => void): Record<string, number> => {
    resetReasons();
    act();
    const seen = reasonCounts().filter((r) => r.layer === 'tcp' && r.count > 0);
    return Object.fromEntries(seen.map((r) => [r.reason, r.count]));
  };
  /** Creates a half-open connection and returns the sequence number of our SYN-ACK. */
  const halfOpen = (): number => {
    h.seg({ flags: 'S', seq: 1000 });
    return h.take()[0]!.ip!.tcp!.seq;
  };
  const established = (): Conn => h.establish({ dport: 81, win: 8000 });
  /** A connection in TIME_WAIT. */
  const timeWait = (): Conn => {
    const c = established();
    h.closeSocket(c.so);
    c.seg({ flags: 'F.', ack: c.ack + 1 });
    h.take();
    return c;
  };

  it('listener: counts segments without SYN, RSTs, and ACKs', () => {
    expect(reasons(() => h.seg({ flags: 'F', seq: 1 }))).to.eql({ bad_syn: 1 });
    expect(reasons(() => h.seg({ flags: 'R', seq: 1 }))).to.eql({ bad_reset: 1 });
    expect(reasons(() => h.seg({ flags: '.', seq: 1, ack: 2 }))).to.include({ bad_ack: 1 });
  });

  it('half-open connection: counts SYN-ACK retransmissions and the timeout', () => {
    halfOpen();
    expect(reasons(() => h.advance(60_000))).to.eql({ synack_retransmit: 3, handshake_timeout: 1 });
  });

  it('half-open connection: counts an entry dropped from a full bucket', () => {
    V_tcp(h.vnet).params.syncache_bucketlimit = 1;
    h.seg({ flags: 'S', seq: 1 });
    let full = 0;
    for (let i = 1; i < 2000 && full === 0; i++) {
      const seen = reasons(() => h.seg({ flags: 'S', seq: 1, sport: 1000 + i }));
      full = seen['syncache_overflow'] ?? 0;
    }
    expect(full).to.equal(1);
  });

  // RFC 5961, 7: the same limit as for a connection.
  it('half-open connection: sends five challenge ACKs per second', () => {
    halfOpen();
    const knock = (): void => {
      for (let i = 0; i < 8; i++) h.seg({ flags: 'R', seq: 1002 + i });
    };
    const seen = { bad_reset: 8, challenge_ack: 5, challenge_ack_limited: 3 };
    expect(reasons(knock)).to.eql(seen);
    expect(h.take()).to.have.length(5);
    h.advance(999);
    h.take();
    expect(reasons(knock)).to.eql({ bad_reset: 8, challenge_ack_limited: 8 });
    h.advance(2);
    h.take();
    expect(reasons(knock)).to.eql(seen);
    h.advance(2);
    expect(h.take()).to.have.length(5);
  });

  it('SYN_SENT: counts segments without SYN or RST', () => {
    h.connect(80);
    const syn = h.take().find((f) => f.ip?.tcp?.flags === 'S')?.ip?.tcp;
    const to = { sport: 80, dport: syn!.sport, ack: syn!.seq + 1 };
    expect(reasons(() => h.seg({ ...to, flags: '.' }))).to.eql({ bad_syn: 1 });
    expect(reasons(() => h.seg({ ...to, flags: 'P', payload: 'x' }))).to.eql({ bad_syn: 1 });
    expect(reasons(() => h.seg({ ...to, flags: 'R' }))).to.eql({ bad_reset: 1 });
  });

  it('connection: counts segments without ACK, beyond the window, and behind the FIN', () => {
    const c = established();
    expect(reasons(() => c.seg({ flags: 'P', payload: 'x' }))).to.eql({ no_ack: 1 });
    for (let i = 0; i < 46; i++) c.data('y'.repeat(1400));
    const room = c.so.so_rcv.sb_hiwat - 46 * 1400;
    expect(room).to.be.within(1, 1399);
    expect(reasons(() => c.seg({ payload: 'z'.repeat(1400) }))).to.eql({ out_of_window: 1 });
    expect(h.read(c.so, 100_000)).to.have.length(46 * 1400 + room);
    c.seq += room;
    c.data('', { flags: 'F.' });
    expect(c.state).to.equal('CLOSE_WAIT');
    expect(reasons(() => c.seg({ payload: 'late' }))).to.eql({ data_after_fin: 1 });
  });

  it('TIME_WAIT: counts RSTs, old SYNs and data, and not a duplicate ACK', () => {
    const c = timeWait();
    const at = { seq: c.seq + 1, ack: c.ack + 1 };
    expect(reasons(() => c.seg({ ...at, flags: 'R' }))).to.eql({ bad_reset: 1 });
    expect(reasons(() => c.seg(at))).to.eql({});
    const answered = { time_wait: 1, challenge_ack: 1 };
    expect(reasons(() => c.seg({ ...at, flags: 'S', seq: at.seq - 9 }))).to.eql({ bad_syn: 1 });
    expect(reasons(() => c.seg({ ...at, flags: 'P', payload: 'x' }))).to.eql({ no_ack: 1 });
    expect(reasons(() => c.seg({ ...at, payload: 'x' }))).to.eql(answered);
  });

  it('ICMP: counts an error about data not in flight, and a retransmission for the path MTU', () => {
    const c = established();
    h.write(c.so, 'q'.repeat(1400));
    const { seq } = h.take()[0]!.ip!.tcp!;
    const tooLarge = (n: number): void => {
      const quoted = new Uint8Array(28);
      quoted.set(buildIp4({ src: US, dst: PEER, df: true, len: 576 }, 6, new Uint8Array(8)));
      const view = new DataView(quoted.buffer);
      view.setUint16(20, 81);
      view.setUint16(22, PEER_PORT);
      view.setUint32(24, n);
      const error = buildIcmp({ type: 3, code: 4, seq: 576, payload: quoted });
      h.injectIp(buildIp4({ src: PEER, dst: US }, 1, error));
    };
    expect(reasons(() => tooLarge(seq - 1))).to.eql({ stale_icmp: 1 });
    expect(reasons(() => tooLarge(seq))).to.eql({ path_mtu_retransmit: 1 });
  });
});
