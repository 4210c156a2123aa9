/** Corner cases in which TCP stacks have failed before. */

import { expect } from 'chai';
import { tcp_xmit_timer } from '../../src/netinet/tcp_ack.ts';
import { TF_FASTRECOVERY, type Tcpcb, V_tcp } from '../../src/netinet/tcp_var.ts';
import { tcp_compute_pipe } from '../../src/netinet/tcp_sack.ts';
import { seqDiff } from '../../src/netinet/tcp_seq.ts';
import { tcpSeq } from '../../src/sys/types.ts';
import { buildIcmp, buildIp4, type Frame, type TcpInfo } from '../support/frames.ts';
import { type Conn, PEER, type Seg, TestHost, US } from './tcp_host.ts';

const size = 1448;

describe('tcp: corner cases', () => {
  let h: TestHost;
  let c: Conn;
  let tp: Tcpcb;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish({ ts: { val: 1000, ecr: 0 }, wscale: 8, sackOk: true });
    tp = h.tp(c.so);
  });
  afterEach(() => h.close());

  const tcps = (): TcpInfo[] => h.take().map((f) => f.ip!.tcp!);
  const segs = (frames: Frame[]): number[] =>
    frames
      .filter((f) => f.ip!.tcp!.payload.length > 0)
      .map((f) => ((f.ip!.tcp!.seq - c.ack) >>> 0) / size);
  const at = (k: number): number => (c.ack + Math.round(k * size)) >>> 0;
  /**
   * Acknowledges everything before segment `n`, with SACK blocks for the segments of `pairs`,
   * [from, to).
   */
  const sackTo = (n: number, pairs: [number, number][], fields: Seg = {}): void =>
    c.seg({
      ack: at(n),
      ...(pairs.length === 0 ? {} : { sack: pairs.map(([a, b]) => [at(a), at(b)]) }),
      ...fields,
    });
  const fly = (n: number): void => {
    tp.snd_cwnd = n * size;
    h.write(c.so, new Uint8Array(n * size));
    expect(segs(h.take())).to.have.length(n);
  };
  const newreno = (): void => {
    h.vnet.sysctl.write('net.inet.tcp.cc.algorithm', 'newreno');
    h.vnet.sysctl.write('net.inet.tcp.sendspace', '262144');
    c = h.establish({
      ts: { val: 1000, ecr: 0 },
      wscale: 8,
      sackOk: true,
      sport: 41000,
      dport: 81,
    });
    tp = h.tp(c.so);
  };

  describe('receiver', () => {
    // RFC 2018, 4: a block describes data that was received and queued.
    it('sends no SACK block for data that it had to drop', () => {
      V_tcp(h.vnet).params.reass_maxqueuelen = 2;
      const gap = (off: number): void => c.seg({ seq: c.seq + off, payload: 'xxxxx' });
      gap(10);
      gap(30);
      h.take();
      gap(50);
      expect(h.stat.tcps_rcvreassfull).to.equal(1);
      const said = tcps()
        .at(-1)!
        .sack!.map(([a, b]) => [a - c.seq, b - c.seq]);
      expect(said).to.deep.equal([
        [30, 35],
        [10, 15],
      ]);
    });

    // RFC 2883, 4.2: partial duplicates before the queued data, in it, and across both ends.
    it('reports the duplicate part of a segment as D-SACK', () => {
      const dsack = (): number[][] =>
        tcps()
          .at(-1)!
          .sack!.map(([a, b]) => [(a - c.seq) | 0, (b - c.seq) | 0]);
      c.data('0123456789');
      c.seg({ seq: c.seq + 20, payload: 'xxxxx' });
      h.take();
      c.seg({ seq: c.seq + 22, payload: 'xxxxxx' });
      expect(dsack()).to.deep.equal([
        [22, 25],
        [20, 28],
      ]);
      c.seg({ seq: c.seq - 5, payload: '56789abcde' });
      c.seq += 5;
      expect(dsack()).to.deep.equal([
        [-10, -5],
        [15, 23],
      ]);
      // A segment that overlaps on the left closes the gap: later segments carry no stale block.
      c.seg({ seq: c.seq - 1, payload: 'e'.padEnd(16, 'f') });
      c.seq += 23;
      expect(dsack()).to.deep.equal([[-24, -23]]);
      h.write(c.so, 'x');
      expect(tcps()[0]!.sack).to.equal(undefined);
    });

    // RFC 7323, 4.3, and CVE-2005-0356: the segment must cover Last.ACK.sent.
    it('ignores the timestamp of a segment outside the window', () => {
      c.seg({ seq: (c.seq - 0x10000000) >>> 0, ts: { val: 0x7000_0000, ecr: 0 } });
      expect(tp.ts_recent).to.equal(1000);
      c.seg({ seq: c.seq - 9, payload: 'abc', ts: { val: 0x7000_0000, ecr: 0 } });
      h.take();
      c.data('hello');
      h.advance(100);
      expect(h.read(c.so)).to.equal('hello');
    });

    // FreeBSD: without this the persist timer never starts, and a lost window update blocks the
    // connection.
    it('starts the persist timer when an out-of-order segment closes the window', () => {
      tp.snd_cwnd = 2 * size;
      h.write(c.so, new Uint8Array(6 * size));
      h.take();
      c.seg({ seq: c.seq + 10, payload: 'early', ack: at(2), win: 0 });
      h.advance(6000);
      expect(h.stat.tcps_persisttimeo).to.be.above(0);
    });

    it('starts the persist timer when the retransmission timer fires with a zero window', () => {
      fly(4);
      sackTo(0, [[1, 2]]);
      // The window closes in the middle of recovery, one byte later.
      tp.t_dupacks = 2;
      c.data('x');
      c.data('y', { win: 0, ack: at(0), sack: [[at(1), at(3)]] });
      expect([tp.snd_wnd, tp.t_flags & TF_FASTRECOVERY]).to.deep.equal([0, TF_FASTRECOVERY]);
      h.advance(60_000);
      expect(h.stat.tcps_persisttimeo).to.be.above(0);
      h.take();
      c.data('z', { win: 60000, ack: at(0) });
      h.advance(1000);
      expect(segs(h.take())).to.include(0);
    });

    it('continues to send for an ACK in a segment before the window', () => {
      tp.snd_cwnd = 2 * size;
      h.write(c.so, new Uint8Array(6 * size));
      expect(segs(h.take())).to.have.length(2);
      c.seg({ ack: at(2), seq: c.seq - 1 });
      expect(segs(h.take()).length).to.be.above(1);
    });
  });

  describe('scoreboard', () => {
    // The scoreboard stays right when many gigabytes were acknowledged on the fast path before the
    // first block.
    it('is correct after gigabytes without a gap', () => {
      fly(4);
      tp.snd_fack = tcpSeq(tp.snd_una + 0x70000000);
      sackTo(0, [[1, 2]]);
      expect(tp.snd_numholes).to.equal(1);
      expect(tp.sacked_bytes).to.equal(size);
    });

    it('ignores a SACK block that starts at the acknowledged sequence number', () => {
      fly(10);
      sackTo(0, [[0, 1]]);
      expect([tp.sacked_bytes, tp.snd_numholes]).to.deep.equal([0, 0]);
      sackTo(0, [[2, 3]]);
      sackTo(0, [[0, 1]]);
      expect(tp.snd_holes!.start).to.equal(tp.snd_una);
    });

    // RFC 6675, 2: an ACK with new SACK information is a duplicate ACK, with or without data.
    it('recovers when every ACK carries data', () => {
      newreno();
      fly(10);
      for (let n = 2; n <= 5; n++) {
        sackTo(0, [[1, n]], { payload: 'x' });
        c.seq++;
      }
      expect(segs(h.take())).to.include(0);
      expect(tp.snd_ssthresh).to.equal(5 * size);
      expect(c.so.so_rcv.sb_ccc).to.equal(4);
    });

    it('sends no new data while a lost segment waits for room', () => {
      newreno();
      fly(10);
      tp.t_flags |= 4; // TF_NODELAY
      sackTo(0, [[1, 4]]);
      sackTo(0, [
        [5, 8],
        [1, 4],
      ]);
      // Segment 4 is lost, and the window has one byte too little to retransmit it.
      const hole = tp.snd_holesTail!;
      tp.sack_bytes_rexmit -= seqDiff(hole.rxmit, hole.start);
      hole.rxmit = hole.start;
      tp.snd_cwnd = tcp_compute_pipe(tp) + size - 1;
      h.take();
      h.write(c.so, new Uint8Array(100));
      expect(segs(h.take())).to.deep.equal([]);
    });

    // RFC 5681, 4.3: the loss of a retransmission is a second sign of congestion.
    it('lowers its window again when a retransmission is lost', () => {
      newreno();
      fly(40);
      for (let n = 2; n <= 40; n++) sackTo(0, [[1, n]]);
      h.write(c.so, new Uint8Array(20 * size));
      expect(tp.snd_ssthresh).to.equal(20 * size);
      for (let n = 41; n <= 60; n++) sackTo(0, [[1, n]]);
      expect(h.stat.tcps_sack_lostrexmits).to.be.above(0);
      expect(tp.snd_ssthresh).to.be.at.most(10 * size);
      expect(tp.snd_ssthresh).to.be.at.least(5 * size);
    });

    // FreeBSD's tcp_mtudisc: the scoreboard describes segments of the old size.
    it('starts over when the path MTU shrinks in the middle of recovery', () => {
      fly(10);
      sackTo(0, [[1, 4]]);
      h.take();
      expect(tp.t_flags & TF_FASTRECOVERY).to.equal(TF_FASTRECOVERY);
      const quoted = new Uint8Array(28);
      quoted.set(buildIp4({ src: US, dst: PEER, df: true, len: 1500 }, 6, new Uint8Array(8)));
      quoted.set([0, 80, c.sport >> 8, c.sport & 255], 20);
      new DataView(quoted.buffer).setUint32(24, c.ack);
      const icmp = buildIcmp({ type: 3, code: 4, seq: 1000, payload: quoted });
      h.injectIp(buildIp4({ src: PEER, dst: US }, 1, icmp));
      expect([tp.t_flags & TF_FASTRECOVERY, tp.snd_numholes]).to.deep.equal([0, 0]);
      const sent = h.take();
      const bytes = sent.reduce((n, f) => n + f.ip!.tcp!.payload.length, 0);
      expect(bytes).to.be.at.most(tp.snd_cwnd);
      expect(Math.max(...sent.map((f) => f.ip!.len))).to.equal(1000);
    });

    it('corrects the PRR counters when the interface refuses a retransmission', () => {
      fly(10);
      h.txError = 55; // ENOBUFS
      sackTo(0, [[1, 4]]);
      expect([tp.prr_out, tp.sack_bytes_rexmit]).to.deep.equal([0, 0]);
      h.txError = 0;
      sackTo(0, [[1, 5]]);
      expect(segs(h.take())[0]).to.equal(0);
    });
  });

  describe('congestion', () => {
    // The clock can jump after the host slept. A day in ms, shifted left by 5, overflows 32 bits.
    it('computes no negative RTT after a clock jump', () => {
      const plain = h.establish({ sport: 42000, dport: 82 });
      const other = h.tp(plain.so);
      other.t_srtt = 0;
      tcp_xmit_timer(other, 86_400_000);
      expect(other.t_srtt).to.be.above(0);
      expect(other.t_rttvar).to.be.above(0);
      tcp_xmit_timer(other, 0x7fffffff);
      expect(other.t_srtt).to.be.above(0);
      expect(other.t_rxtcur).to.equal(64_000);
    });

    // RFC 5681, 3.1: a loss before the first RTT sample says nothing about the path's capacity.
    it('keeps ssthresh when a SYN is lost', () => {
      const so = h.connect(8080);
      const active = h.tp(so);
      const before = active.snd_ssthresh;
      h.take();
      h.advance(1000);
      const syn = h.take()[0]!.ip!.tcp!;
      h.seg({
        sport: 8080,
        dport: syn.sport,
        flags: 'S.',
        seq: 1,
        ack: syn.seq + 1,
        mss: 1460,
      });
      expect(active.snd_cwnd).to.equal(active.t_maxseg);
      expect(active.snd_ssthresh).to.equal(before);
    });

    // RFC 3042, 2: no more than two segments beyond the congestion window.
    it('limits limited transmit to two segments beyond the window', () => {
      fly(10);
      tp.snd_cwnd = 5 * size;
      h.write(c.so, new Uint8Array(2 * size));
      sackTo(0, [[1, 2]]);
      sackTo(0, [[1, 3]]);
      expect(segs(h.take())).to.deep.equal([]);
    });

    it('does not start the retransmission timer for an ACK that failed with ENOBUFS', () => {
      c.data('x');
      h.txError = 55;
      h.advance(100);
      h.txError = 0;
      h.advance(5000);
      expect(h.stat.tcps_rexmttimeo).to.equal(0);
      expect(tcps().at(-1)!.ack).to.equal(c.seq);
    });
  });
});
