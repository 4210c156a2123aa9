import { expect } from 'chai';
import { counted, R_TCP_FASTREXMT, R_TCP_REXMT } from '../../src/sys/reason.ts';
import { ETIMEDOUT } from '../../src/sys/errno.ts';
import {
  SEQ_GEQ,
  SEQ_GT,
  SEQ_LEQ,
  SEQ_LT,
  SEQ_MAX,
  seqAdd,
  seqDiff,
} from '../../src/netinet/tcp_seq.ts';
import { tcp_set_cc_mod } from '../../src/netinet/cc.ts';
import { TF_FASTRECOVERY } from '../../src/netinet/tcp_var.ts';
import { tcpSeq } from '../../src/sys/types.ts';
import { buildIcmp, buildIp4, expectTx, type Frame, payload, seq } from '../support/frames.ts';
import { type Conn, TestHost } from './tcp_host.ts';

describe('tcp: sequence numbers', () => {
  it('compares modulo 2^32', () => {
    const a = tcpSeq(0xfffffff0);
    const b = tcpSeq(0x10);
    expect(SEQ_LT(a, b)).to.equal(true);
    expect(SEQ_GT(b, a)).to.equal(true);
    expect(SEQ_LEQ(a, a)).to.equal(true);
    expect(SEQ_GEQ(a, b)).to.equal(false);
    expect(SEQ_MAX(a, b)).to.equal(b);
    expect(seqDiff(b, a)).to.equal(0x20);
    expect(seqAdd(a, 0x20)).to.equal(b);
    expect(SEQ_LT(tcpSeq(0), tcpSeq(0x7fffffff))).to.equal(true);
    expect(SEQ_LT(tcpSeq(0), tcpSeq(0x80000001))).to.equal(false);
    expect(SEQ_LT(tcpSeq(0x7fffffff), tcpSeq(0x80000000))).to.equal(true);
  });
});

describe('tcp: retransmission', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish({ ts: { val: 1, ecr: 0 }, wscale: 8 });
  });
  afterEach(() => h.close());

  const size = 1448;
  const segs = (frames: Frame[]): number[] =>
    frames.map((f) => ((f.ip!.tcp!.seq - c.ack) >>> 0) / size);
  const ackTo = (n: number, fields = {}): void => c.seg({ ack: c.ack + n * size, ...fields });

  /** Sends `n` full segments, all within the initial window. */
  const fly = (n: number): void => {
    h.write(c.so, new Uint8Array(n * size));
    expect(segs(h.take())).to.deep.equal(Array.from({ length: n }, (_, i) => i));
  };

  // RFC 6298 (5.5): the RTO is net.inet.tcp.rexmit_min + slop. The first part doubles, to 64 s at
  // most.
  it('backs off from 230 ms to 64 s, twelve times, and gives up', () => {
    h.write(c.so, 'lost');
    expectTx(h.sent, [payload('lost')]);
    const at: number[] = [];
    for (let ms = 0; ms < 700_000 && c.state === 'ESTABLISHED'; ms += 10) {
      h.advance(10);
      for (const f of h.take()) {
        if (f.ip!.tcp!.flags.includes('R')) continue;
        expect(f.ip!.tcp!.seq).to.equal(c.ack);
        at.push(ms + 10);
      }
    }
    const waits = at.map((t, i) => t - (at[i - 1] ?? 0));
    expect(waits.slice(0, 4)).to.deep.equal([230, 260, 320, 440]);
    expect(Math.max(...waits)).to.be.at.most(64_000);
    expect(at).to.have.length(12);
    expect(c.so.so_error).to.equal(ETIMEDOUT);
    expect(counted(R_TCP_REXMT)).to.equal(12);
    expect(h.stat.tcps_timeoutdrop).to.equal(1);
  });

  it('restarts the timer with each ACK of new data', () => {
    fly(3);
    h.advance(200);
    ackTo(1);
    const rto = h.tp(c.so).t_rxtcur; // an RTT of 200 ms was measured
    expect(rto).to.be.above(400);
    h.advance(rto - 1);
    expectTx(h.sent);
    h.advance(1);
    expectTx(h.sent, [seq(c.ack + size)]);
  });

  it('sends one segment after a timeout, then slow-starts', () => {
    expect(tcp_set_cc_mod(h.tp(c.so), 'newreno')).to.equal(0);
    fly(8);
    h.advance(230);
    const again = h.take();
    expect(segs(again)).to.deep.equal([0]);
    c.ts = { val: 1, ecr: again[0]!.ip!.tcp!.ts!.val };
    expect(h.tp(c.so).snd_ssthresh).to.equal(5 * size); // half of the initial ten
    ackTo(1);
    expect(segs(h.take())).to.deep.equal([1, 2]);
    ackTo(3);
    expect(segs(h.take())).to.deep.equal([3, 4, 5]);
  });

  // The echoed timestamp is older than the retransmission: the original arrived late.
  it('undoes a spurious timeout', () => {
    fly(8);
    const tp = h.tp(c.so);
    const { snd_cwnd, snd_ssthresh } = tp;
    h.advance(230);
    expect(segs(h.take())).to.deep.equal([0]);
    expect(tp.snd_cwnd).to.equal(size);
    ackTo(1);
    expect(h.stat.tcps_sndrexmitbad).to.equal(1);
    expect(tp.snd_ssthresh).to.equal(snd_ssthresh);
    expect(tp.snd_cwnd).to.be.at.least(snd_cwnd);
    expectTx(h.sent); // nothing more is retransmitted
  });

  it('does not undo a timeout once the window has closed', () => {
    fly(8);
    h.advance(230);
    h.take();
    c.data('x');
    c.data('y', { win: 0 });
    h.write(c.so, new Uint8Array(size));
    ackTo(1);
    expect(h.stat.tcps_sndrexmitbad).to.equal(0);
  });

  it('ends recovery when an ACK after the timeout covers all data', () => {
    fly(8);
    h.advance(230);
    h.take();
    ackTo(8);
    h.advance(5000);
    expectTx(h.sent);
    expect(c.so.so_snd.sb_ccc).to.equal(0);
  });

  // RFC 1122, 4.2.3.5: R2 applies to one segment. Without timestamps a retransmitted segment gives
  // no RTT sample.
  it('gives up after 12 timeouts without progress, not after 12 in total', () => {
    const plain = h.establish({ sport: 41000, dport: 81 });
    const tp = h.tp(plain.so);
    tp.snd_cwnd = 20 * 536;
    h.write(plain.so, new Uint8Array(20 * 536));
    for (let n = 1; n <= 18; n++) {
      h.advance(65_000);
      plain.seg({ ack: plain.ack + n * 536 });
    }
    expect(tp.t_rttupdated).to.equal(0);
    expect(plain.state).to.equal('ESTABLISHED');
    h.advance(14 * 65_000);
    expect(plain.state).to.equal('CLOSED');
  });

  it('retransmits once after three duplicate ACKs', () => {
    fly(8);
    ackTo(1);
    h.take();
    ackTo(1);
    ackTo(1);
    expectTx(h.sent);
    ackTo(1);
    expect(segs(h.take())).to.deep.equal([1]);
    expect(counted(R_TCP_FASTREXMT)).to.equal(1);
    expect(h.tp(c.so).t_flags & TF_FASTRECOVERY).to.equal(TF_FASTRECOVERY);
    ackTo(1);
    ackTo(1);
    expectTx(h.sent);
    ackTo(8);
    expect(h.tp(c.so).t_flags & TF_FASTRECOVERY).to.equal(0);
    expect(h.tp(c.so).snd_cwnd).to.be.at.most(h.tp(c.so).snd_ssthresh);
    expectTx(h.sent);
  });

  it('does not count window updates or data segments as duplicate ACKs', () => {
    fly(8);
    ackTo(1, { win: 1000 });
    h.take();
    for (let i = 0; i < 5; i++) ackTo(1, { win: 1001 + i });
    for (let i = 0; i < 5; i++) c.data('x', { ack: c.ack + size, win: 1005 });
    expect(segs(h.take().filter((f) => f.ip!.tcp!.payload.length > 0))).to.deep.equal([]);
    expect(counted(R_TCP_FASTREXMT)).to.equal(0);
  });

  // RFC 3042.
  it('sends a new segment for each of the first two duplicate ACKs', () => {
    h.write(c.so, new Uint8Array(14 * size));
    expect(segs(h.take())).to.have.length(10);
    ackTo(0);
    expect(segs(h.take())).to.deep.equal([10]);
    ackTo(0);
    expect(segs(h.take())).to.deep.equal([11]);
    ackTo(0);
    expect(segs(h.take())).to.deep.equal([0]);
    expect(h.stat.tcps_limitedtransmit).to.equal(2);
  });

  // RFC 6582, 3.2 (5).
  it('fills one hole per partial ACK without waiting for duplicate ACKs', () => {
    fly(10);
    for (let i = 0; i < 3; i++) ackTo(0); // segments 0, 3 and 6 are lost
    expect(segs(h.take())).to.deep.equal([0]);
    ackTo(3);
    expect(segs(h.take())[0]).to.equal(3);
    ackTo(6);
    expect(segs(h.take())[0]).to.equal(6);
    expect(h.tp(c.so).t_flags & TF_FASTRECOVERY).to.equal(TF_FASTRECOVERY);
    ackTo(10);
    expect(h.tp(c.so).t_flags & TF_FASTRECOVERY).to.equal(0);
    expect(counted(R_TCP_FASTREXMT)).to.equal(1);
    expect(h.stat.tcps_rexmttimeo).to.equal(0);
  });

  // RFC 6582, 3.2 (1): data retransmitted after a timeout can itself cause duplicate ACKs.
  it('ignores duplicate ACKs of retransmitted data', () => {
    fly(8);
    h.advance(230);
    h.take();
    for (let i = 0; i < 6; i++) ackTo(0);
    expect(counted(R_TCP_FASTREXMT)).to.equal(0);
  });

  it('grows exponentially in slow start, then by one segment per window', () => {
    expect(tcp_set_cc_mod(h.tp(c.so), 'newreno')).to.equal(0);
    const tp = h.tp(c.so);
    h.write(c.so, new Uint8Array(20 * size));
    h.take();
    ackTo(10);
    h.take();
    // RFC 3465: an ACK opens the window by two segments at most.
    expect(tp.snd_cwnd).to.equal(12 * size);
    tp.snd_ssthresh = 12 * size - 1;
    ackTo(20);
    expect(tp.snd_cwnd).to.equal(12 * size);
    h.write(c.so, new Uint8Array(20 * size));
    ackTo(22);
    expect(tp.snd_cwnd).to.equal(13 * size);
  });

  for (const name of ['newreno', 'cubic'])
    it(`opens the window by two segments for each ACK that the NIC coalesced, ${name}`, () => {
      expect(tcp_set_cc_mod(h.tp(c.so), name)).to.equal(0);
      const tp = h.tp(c.so);
      const before = tp.snd_cwnd;
      h.write(c.so, new Uint8Array(20 * size));
      h.coalesced = 3;
      ackTo(10);
      expect(tp.snd_cwnd - before).to.equal(6 * size);
    });

  it('does not grow a congestion window that was not the limit', () => {
    const tp = h.tp(c.so);
    const before = tp.snd_cwnd;
    c.data('x', { win: 20 });
    c.data('y', { win: 20 }); // 20 << 8: less than four segments
    h.write(c.so, new Uint8Array(3 * size));
    for (let n = 1; n <= 3; n++) ackTo(n, { win: 20 });
    expect(tp.snd_cwnd).to.equal(before);
  });

  it('restarts with the initial window after an idle time', () => {
    const tp = h.tp(c.so);
    tp.snd_cwnd = 100 * size;
    h.write(c.so, 'x');
    c.seg({ ack: c.ack + 1 });
    h.advance(10_000);
    h.sent.length = 0;
    h.write(c.so, new Uint8Array(15 * size));
    expect(h.take()).to.have.length(10);
  });

  it('retransmits after ENOBUFS, and uses a smaller MTU of the interface', () => {
    h.txError = 55; // ENOBUFS
    h.write(c.so, new Uint8Array(3 * size));
    expectTx(h.sent);
    h.txError = 0;
    h.advance(230);
    expect(segs(h.take())).to.deep.equal([0]);
    ackTo(1);
    expect(segs(h.take())).to.deep.equal([1, 2]);
    ackTo(3);
    h.ifp.if_mtu = 1000;
    h.write(c.so, new Uint8Array(1400));
    const lens = h.take().map((f) => f.ip!.len);
    expect(lens).to.deep.equal([1000, 1400 - 948 + 52]);
  });

  it('lowers the segment size to the next-hop MTU of an ICMP error', () => {
    fly(2);
    // The quote: our IP header, ports and sequence number, RFC 1191.
    const quoted = new Uint8Array(28);

    quoted.set(
      buildIp4({ src: '192.0.2.2', dst: '192.0.2.1', df: true, len: 1500 }, 6, new Uint8Array(8)),
    );
    quoted.set([0, 80, c.sport >> 8, c.sport & 255], 20);
    new DataView(quoted.buffer).setUint32(24, c.ack);
    const icmp = buildIcmp({ type: 3, code: 4, seq: 1000, payload: quoted });
    h.injectIp(buildIp4({ src: '192.0.2.1', dst: '192.0.2.2' }, 1, icmp));
    const sizes = h.take().map((f) => f.ip!.len);
    expect(sizes.length).to.be.above(2);
    expect(Math.max(...sizes)).to.equal(1000);
  });
});
