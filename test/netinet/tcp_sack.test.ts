import { expect } from 'chai';
import * as fc from 'fast-check';
import { counted, R_TCP_SACK_BAD, R_TCP_SACK_FULL } from '../../src/sys/reason.ts';
import {
  TF_FASTRECOVERY,
  TF_SACK_PERMIT,
  type Tcpcb,
  TT_REXMT,
} from '../../src/netinet/tcp_var.ts';
import { tcp_compute_pipe } from '../../src/netinet/tcp_sack.ts';
import { tcp_timer_activate } from '../../src/netinet/tcp_timer.ts';
import { expectTx, type Frame, type TcpInfo } from '../support/frames.ts';
import { type Conn, TestHost } from './tcp_host.ts';

const RUNS = process.env['TAPNIC_FULL'] === '1' ? 2000 : 150;
const size = 1448;

describe('tcp: SACK', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish({ ts: { val: 1, ecr: 0 }, wscale: 8, sackOk: true });
  });
  afterEach(() => h.close());

  const tcps = (): TcpInfo[] => h.take().map((f) => f.ip!.tcp!);
  const segs = (frames: Frame[]): number[] =>
    frames.map((f) => ((f.ip!.tcp!.seq - c.ack) >>> 0) / size);
  /**
   * Acknowledges everything before segment `n`, with SACK blocks for the segments of `pairs`,
   * [from, to).
   */
  const sackTo = (n: number, ...pairs: [number, number][]): void => {
    const at = (k: number): number => (c.ack + k * size) >>> 0;
    c.seg({
      ack: at(n),
      ...(pairs.length === 0 ? {} : { sack: pairs.map(([a, b]) => [at(a), at(b)]) }),
    });
  };
  const fly = (n: number): Tcpcb => {
    const tp = h.tp(c.so);
    tp.snd_cwnd = n * size;
    h.write(c.so, new Uint8Array(n * size));
    expect(segs(h.take())).to.have.length(n);
    return tp;
  };

  describe('receiver', () => {
    const gap = (off: number, text: string): void =>
      c.seg({ seq: (c.seq + off) >>> 0, payload: text });
    /** The blocks of the last ACK, relative to the first missing byte. */
    const blocks = (): [number, number][] | undefined =>
      tcps()
        .at(-1)!
        .sack?.map(([a, b]) => [(a - c.seq) >>> 0, (b - c.seq) >>> 0]);

    it('is used only if both SYNs permit it', () => {
      expect(h.tp(c.so).t_flags & TF_SACK_PERMIT).to.equal(TF_SACK_PERMIT);
      const plain = h.establish({ sport: 41000, dport: 81 });
      expect(h.tp(plain.so).t_flags & TF_SACK_PERMIT).to.equal(0);
      plain.seg({ seq: plain.seq + 10, payload: 'later' });
      expect(tcps().at(-1)!.optionKinds).to.deep.equal([]);
    });

    it('puts SACK-permitted where FreeBSD puts it in the SYN options', () => {
      h.connect(8080);
      expect(tcps()[0]!.optionKinds).to.deep.equal([2, 1, 3, 4, 8]);
    });

    // RFC 2018, 4: first the block with the latest data, then those reported before.
    it('reports the latest block first, merges adjacent blocks and drops acknowledged ones', () => {
      gap(10, 'aaaaa');
      expect(blocks()).to.deep.equal([[10, 15]]);
      gap(30, 'bbbbb');
      expect(blocks()).to.deep.equal([
        [30, 35],
        [10, 15],
      ]);
      gap(50, 'ccccc');
      expect(blocks()).to.deep.equal([
        [50, 55],
        [30, 35],
        [10, 15],
      ]);
      gap(15, 'ddddd');
      expect(blocks()).to.deep.equal([
        [10, 20],
        [50, 55],
        [30, 35],
      ]);
      gap(0, 'eeeeeeeeee');
      expect(blocks()).to.deep.equal([
        [50, 55],
        [30, 35],
      ]);
      gap(20, 'f'.repeat(10));
      gap(35, 'g'.repeat(15));
      const last = tcps().at(-1)!;
      expect([(last.ack - c.seq) >>> 0, last.sack]).to.deep.equal([55, undefined]);
    });

    it('reports the three latest blocks beside a timestamp', () => {
      for (const off of [10, 30, 50, 70, 90]) gap(off, 'xxxxx');
      expect(blocks()).to.deep.equal([
        [90, 95],
        [70, 75],
        [50, 55],
      ]);
    });

    // RFC 2883, 4.
    it('reports a duplicate once, as the first block: D-SACK', () => {
      c.data('0123456789');
      h.take();
      c.seg({ seq: c.seq - 10, payload: '0123456789' });
      expect(blocks()).to.deep.equal([[0xffffffff - 9, 0]]);
      c.seg({ seq: c.seq + 10, payload: 'later' });
      expect(blocks()).to.deep.equal([[10, 15]]);
      c.seg({ seq: c.seq + 10, payload: 'later' });
      expect(blocks()).to.deep.equal([
        [10, 15],
        [10, 15],
      ]);
      c.seg({ seq: c.seq + 20, payload: 'more' });
      expect(blocks()).to.deep.equal([
        [20, 24],
        [10, 15],
      ]);
    });

    it('shortens its data segments to make room for the blocks', () => {
      gap(10, 'aaaaa');
      h.take();
      h.write(c.so, new Uint8Array(2 * size));
      const lens = tcps().map((t) => t.payload.length);
      expect(Math.max(...lens)).to.equal(size - 12);
    });
  });

  describe('sender', () => {
    // RFC 6675, 5.1 and NextSeg (1).
    it('retransmits each hole once, in order, and no SACKed data', () => {
      fly(20);
      sackTo(0, [1, 2]);
      sackTo(0, [1, 3]);
      h.take();
      // Segments 0, 5 and 9 are lost. Everything else arrives, with one ACK each.
      sackTo(0, [1, 4]);
      expect(segs(h.take())).to.deep.equal([0]);
      const resent: number[] = [];
      const blocks: [number, number][] = [
        [10, 20],
        [6, 9],
        [1, 5],
      ];
      for (let to = 11; to <= 20; to++) {
        sackTo(0, [10, to], blocks[1]!, blocks[2]!);
        resent.push(...segs(h.take()));
      }
      expect(resent).to.deep.equal([5, 9]);
      sackTo(5, blocks[0]!, blocks[1]!);
      sackTo(9, blocks[0]!);
      sackTo(20);
      const tp = h.tp(c.so);
      expect(h.stat.tcps_rexmttimeo).to.equal(0);
      expect([tp.t_flags & TF_FASTRECOVERY, tp.snd_numholes, tp.sacked_bytes]).to.deep.equal([
        0, 0, 0,
      ]);
      expect(h.stat.tcps_sack_rexmits).to.equal(3);
      expect(h.stat.tcps_sack_recovery_episode).to.equal(1);
    });

    it('does not count an ACK without new SACK information as a duplicate', () => {
      const tp = fly(10);
      for (let i = 0; i < 6; i++) sackTo(0, [3, 4]);
      expect(tp.t_dupacks).to.equal(1);
      expect(tp.t_flags & TF_FASTRECOVERY).to.equal(0);
    });

    // As without SACK: a middlebox may have removed the option from ACKs.
    it('counts duplicate ACKs without blocks while the scoreboard is empty', () => {
      const tp = fly(8);
      for (let i = 0; i < 3; i++) sackTo(0);
      expect(segs(h.take())).to.deep.equal([0]);
      sackTo(4);
      expect(segs(h.take())).to.deep.equal([4]);
      sackTo(8);
      expect(tp.t_flags & TF_FASTRECOVERY).to.equal(0);
    });

    it('keeps the retransmission timer running when recovery has no room to send: RFC 6298 (5.1)', () => {
      const tp = fly(8);
      sackTo(0, [1, 8]);
      expect(segs(h.take())).to.deep.equal([0]);
      // The congestion window is full.
      tp.snd_cwnd = 1;
      tcp_timer_activate(tp, TT_REXMT, 0);
      tp.t_fb.tfb_tcp_output(tp);
      expectTx(h.sent);
      h.advance(5000);
      expect(segs(h.take())).to.include(0);
    });

    it('enters recovery on one ACK with enough SACKed data: RFC 6675, IsLost', () => {
      fly(10);
      sackTo(0, [1, 4]);
      expect(segs(h.take())[0]).to.equal(0);
    });

    // RFC 6937, 3: about every second ACK sends a segment while cwnd drops to half.
    it('spreads retransmissions and new data over the round trip: PRR', () => {
      h.vnet.sysctl.write('net.inet.tcp.cc.algorithm', 'newreno');
      const n = h.establish({
        ts: { val: 1, ecr: 0 },
        wscale: 8,
        sackOk: true,
        sport: 41000,
        dport: 81,
      });
      const tp = h.tp(n.so);
      tp.snd_cwnd = 20 * size;
      h.write(n.so, new Uint8Array(22 * size));
      h.take();
      const out: number[] = [];
      for (let k = 2; k <= 20; k++) {
        n.seg({ ack: n.ack, sack: [[n.ack + size, n.ack + k * size]] });
        out.push(h.take().length);
      }
      // Two by limited transmit, the retransmission, then one segment for every two ACKs.
      const sent = out.slice(2).reduce((a, b) => a + b, 0);
      expect(Math.max(...out)).to.equal(1);
      expect(sent).to.be.within(1, 10);
      expect(tp.snd_ssthresh).to.equal(10 * size);
    });

    it('detects a lost retransmission before the timer fires', () => {
      fly(12);
      for (let to = 2; to <= 12; to++) sackTo(0, [1, to]);
      expect(segs(h.take())).to.include(0);
      // Data sent after the retransmission arrives; the retransmission does not.
      h.write(c.so, new Uint8Array(10 * size));
      const again: number[] = [];
      for (let to = 13; to <= 22; to++) {
        sackTo(0, [1, to]);
        again.push(...segs(h.take()));
      }
      expect(again.filter((n) => n === 0)).to.have.length(1);
      expect(h.stat.tcps_sack_lostrexmits).to.be.above(0);
      expect(h.stat.tcps_rexmttimeo).to.equal(0);
    });

    it('skips SACKed data in the retransmissions after a timeout', () => {
      const tp = fly(8);
      sackTo(0, [6, 8]);
      h.advance(5000);
      h.take();
      expect(h.stat.tcps_rexmttimeo).to.be.above(0);
      expect(tp.snd_numholes).to.equal(0);
      tp.snd_cwnd = 20 * size;
      sackTo(1, [4, 5], [6, 8]);
      expect(segs(h.take())).to.deep.equal([1, 2, 3, 5]);
    });

    it('counts and ignores invalid SACK blocks', () => {
      const tp = fly(5);
      const at = (n: number): number => (c.ack + n) >>> 0;
      const bad: [number, number][][] = [
        [[at(size), at(0)]],
        [[at(size), at(size)]],
        [[at(4 * size), at(100 * size)]],
        [[at(-100), at(2 * size)]],
      ];
      for (const sack of bad) c.seg({ ack: c.ack, sack });
      expect(tp.snd_numholes).to.equal(0);
      expect(counted(R_TCP_SACK_BAD)).to.equal(4);
    });

    it('limits the holes per connection: net.inet.tcp.sack.maxholes', () => {
      h.vnet.sysctl.write('net.inet.tcp.sack.maxholes', '2');
      const tp = fly(12);
      for (let n = 1; n < 12; n += 2) sackTo(0, [n, n + 1]);
      expect(tp.snd_numholes).to.equal(2);
      expect(h.stat.tcps_sack_sboverflow).to.be.above(0);
      expect(counted(R_TCP_SACK_FULL)).to.equal(h.stat.tcps_sack_sboverflow);
      sackTo(12);
      expect(h.vnet.sysctl.find('net.inet.tcp.sack.globalholes')!.get()).to.equal(0);
    });
  });

  it('keeps the same scoreboard as a flat array, for random ACKs', function () {
    this.timeout(120_000);
    const FLIGHT = 20;
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            ack: fc.integer({ min: 0, max: 3 }),
            blocks: fc.array(fc.tuple(fc.nat(FLIGHT), fc.nat(6)), { maxLength: 3 }),
          }),
          { maxLength: 20 },
        ),
        (acks) => {
          h.close();
          h = new TestHost();
          c = h.establish({ ts: { val: 1, ecr: 0 }, wscale: 8, sackOk: true });
          const tp = fly(FLIGHT);
          const has = new Uint8Array(FLIGHT);
          let una = 0;
          for (const { ack, blocks } of acks) {
            if (una + ack >= FLIGHT) break;
            una += ack;
            has.fill(1, 0, una);
            const pairs = blocks
              .map(([from, n]): [number, number] => [from, Math.min(from + n, FLIGHT)])
              .filter(([from, to]) => from > una && to > from);
            for (const [from, to] of pairs) has.fill(1, from, to);
            sackTo(una, ...pairs);
            const holes: [number, number][] = [];
            for (let o = tp.snd_holes; o !== null; o = o.next)
              holes.push([((o.start - c.ack) >>> 0) / size, ((o.end - c.ack) >>> 0) / size]);
            expect(holes).to.deep.equal(runs(has, una));
            const beyond = has.subarray(una).reduce((a, b) => a + b, 0);
            expect(tp.sacked_bytes).to.equal(beyond * size);
            expect(tp.sack_bytes_rexmit).to.be.within(0, FLIGHT * size);
            expect(tcp_compute_pipe(tp)).to.be.within(-1, 2 * FLIGHT * size);
          }
        },
      ),
      { numRuns: RUNS, seed: 20261122 },
    );
  });
});

/** The gaps in `has` between `una` and the highest byte present, as runs. */
function runs(has: Uint8Array, una: number): [number, number][] {
  const top = has.lastIndexOf(1);
  const found: [number, number][] = [];
  for (let i = una; i < top; i++) {
    if (has[i] === 1) continue;
    const from = i;
    while (i < top && has[i] === 0) i++;
    found.push([from, i]);
  }
  return found;
}
