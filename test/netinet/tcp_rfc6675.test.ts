/**
 * SACK recovery as in RFC 6675: by examples, and by comparison with an independent model of the
 * RFC's text.
 */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { soshutdown, SHUT_WR } from '../../src/kern/uipc_socket.ts';
import { sackLost, tcp_compute_pipe } from '../../src/netinet/tcp_sack.ts';
import { TF_FASTRECOVERY, TF_FORCEDATA, type Tcpcb } from '../../src/netinet/tcp_var.ts';
import type { Frame, TcpInfo } from '../support/frames.ts';
import { type Conn, TestHost } from './tcp_host.ts';

const RUNS = process.env['TAPNIC_FULL'] === '1' ? 5000 : 250;
/** SMSS, and the unit at which blocks begin and end. */
const size = 1448;
const UNIT = size / 4;
const SEG = 4;

/**
 * RFC 6675, sections 2 to 5, with one flag per unit. Ends are exclusive: HighACK + 1, HighRxt + 1.
 */
class Rfc6675 {
  readonly sacked: boolean[] = [];
  una = 0;
  highData = 0;
  highRxt = 0;
  rescueRxt = 0;
  dupAcks = 0;
  /** Segments sent by limited transmit since the first duplicate ACK: RFC 3042. */
  limited = 0;
  /** RecoveryPoint + 1 during recovery, else null. */
  recovery: number | null = null;

  /** Update (). Returns whether a block covers data not SACKed before. */
  update(ack: number, blocks: readonly (readonly [number, number])[]): boolean {
    this.una = ack;
    let news = false;
    for (const [from, to] of blocks)
      for (let s = from; s < to; s++) {
        if (this.sacked[s] !== true) news = true;
        this.sacked[s] = true;
      }
    return news;
  }

  isLost(seq: number): boolean {
    let units = 0;
    let blocks = 0;
    for (let s = seq + 1; s < this.highData; s++) {
      if (this.sacked[s] !== true) continue;
      units++;
      if (this.sacked[s - 1] !== true || s - 1 === seq) blocks++;
    }
    return blocks >= 3 || units > 2 * SEG;
  }

  /** SetPipe (). */
  pipe(): number {
    let n = 0;
    for (let s = this.una; s < this.highData; s++) {
      if (this.sacked[s] === true) continue;
      if (!this.isLost(s)) n++;
      if (s < this.highRxt) n++;
    }
    return n;
  }

  /** The segment that starts at `s`: at most SMSS, and no SACKed data. */
  #segment(s: number): [number, number] {
    let to = s;
    while (to < this.highData && to - s < SEG && this.sacked[to] !== true) to++;
    return [s, to];
  }

  /** NextSeg (), with the number of the rule; the program's data ends at `total`. */
  nextSeg(total: number): { rule: number; from: number; to: number } | null {
    const top = this.sacked.lastIndexOf(true);
    let third = -1;
    for (let s = Math.max(this.una, this.highRxt); s < top; s++) {
      if (this.sacked[s] === true) continue;
      const [from, to] = this.#segment(s);
      if (this.isLost(s)) return { rule: 1, from, to };
      third = s;
      break;
    }
    if (this.highData < total) return { rule: 2, from: this.highData, to: this.highData + SEG };
    if (third >= 0) {
      const [from, to] = this.#segment(third);
      return { rule: 3, from, to };
    }
    let last = this.highData - 1;
    while (last >= this.una && this.sacked[last] === true) last--;
    // Unlike the RFC, do not retransmit twice what this recovery already retransmitted.
    if (last < this.una || last < this.highRxt || this.una <= this.rescueRxt) return null;
    let from = last;
    while (from > this.una && last - from + 1 < SEG && this.sacked[from - 1] !== true) from--;
    return { rule: 4, from, to: last + 1 };
  }

  /**
   * Section 5, step 4. Returns the segment of step 4.3, or null if the previous recovery already
   * sent it. Unlike in the RFC, HighRxt is not reset, so a segment just sent is not sent again.
   */
  enter(): [number, number] | null {
    this.recovery = this.highData;
    const first = this.#segment(this.una);
    this.rescueRxt = first[1];
    if (this.highRxt > this.una) return null;
    this.highRxt = first[1];
    return first;
  }

  sent(seg: { rule: number; from: number; to: number }): void {
    if (seg.rule === 4) this.rescueRxt = this.recovery!;
    else if (seg.rule === 2) this.highData = seg.to;
    else this.highRxt = seg.to;
  }
}

describe('tcp: RFC 6675', () => {
  let h: TestHost;
  let c: Conn;
  let tp: Tcpcb;
  const start = (): void => {
    h = new TestHost();
    h.vnet.sysctl.write('net.inet.tcp.sendspace', '400000');
    c = h.establish({ ts: { val: 1, ecr: 0 }, wscale: 8, sackOk: true });
    tp = h.tp(c.so);
  };
  beforeEach(start);
  afterEach(() => h.close());

  const tcps = (): TcpInfo[] => h.take().map((f: Frame) => f.ip!.tcp!);
  const at = (n: number): number => (c.ack + n * size) >>> 0;
  /** The segments sent, by number; a fraction stands for a part of a segment. */
  const segs = (): number[] => tcps().map((t) => ((t.seq - c.ack) >>> 0) / size);
  /**
   * Acknowledges everything before segment `n`, with SACK blocks for the segments of `pairs`,
   * [from, to).
   */
  const ack = (n: number, ...pairs: [number, number][]): void =>
    c.seg({
      ack: at(n),
      ...(pairs.length === 0 ? {} : { sack: pairs.map(([a, b]) => [at(a), at(b)]) }),
    });
  const fly = (n: number, more = 0): void => {
    tp.snd_cwnd = n * size;
    h.write(c.so, new Uint8Array(Math.round((n + more) * size)));
    expect(segs()).to.have.length(n);
  };
  const recovering = (): boolean => (tp.t_flags & TF_FASTRECOVERY) !== 0;

  describe('IsLost', () => {
    it('is true with more than two SACKed segments above', () => {
      fly(8);
      ack(0, [2, 4]);
      expect(sackLost(tp)).to.equal(false);
      expect(recovering()).to.equal(false);
      ack(0, [2, 4 + 1 / size]);
      expect(recovering()).to.equal(true);
      expect(segs()[0]).to.equal(0);
    });

    it('is true with three separate SACKed blocks above, however small', () => {
      fly(8);
      const bit = 1 / size;
      ack(0, [2, 2 + bit], [4, 4 + bit]);
      expect(recovering()).to.equal(false);
      expect(tcp_compute_pipe(tp)).to.equal(8 * size - 2);
      ack(0, [2, 2 + bit], [4, 4 + bit], [6, 6 + bit]);
      expect(recovering()).to.equal(true);
      expect(segs()[0]).to.equal(0);
      // Only the first of the three holes has three blocks above it.
      expect(tcp_compute_pipe(tp)).to.equal(8 * size - 3 - 2 * size + size);
    });
  });

  // Unlike section 5, step 3, which sends as much as has left the network.
  it('limited transmit sends one segment per duplicate ACK, however many blocks it SACKs', () => {
    fly(8, 4);
    ack(0, [1, 2], [3, 4]);
    expect(segs()).to.deep.equal([8]);
    expect(h.stat.tcps_limitedtransmit).to.equal(1);
    expect(recovering()).to.equal(false);
  });

  describe('NextSeg', () => {
    it('sends new data before a hole that is not lost: rules 2 and 3', () => {
      fly(10, 5);
      ack(0, [1, 4]);
      expect(segs()).to.deep.equal([0]);
      ack(0, [1, 8]);
      expect(segs()).to.deep.equal([10, 11, 12, 13]);
      // Only one segment above 8 is SACKed: not enough to call 8 lost.
      ack(8, [9, 10]);
      expect(segs()).to.deep.equal([14, 8]);
    });

    it('applies rule 3 while Nagle holds new data back', () => {
      fly(10, 0.5);
      ack(0, [1, 8]);
      expect(segs()).to.deep.equal([0]);
      ack(8, [9, 10]);
      expect(segs()).to.deep.equal([8]);
    });

    it('retransmits the end of the flight once: rule 4', () => {
      fly(10);
      ack(0, [1, 6]);
      expect(segs()).to.deep.equal([0]);
      // The tail, 6 to 9, is lost too, and no ACK can report it.
      ack(6);
      expect(segs()).to.deep.equal([9]);
      expect(recovering()).to.equal(true);
      // Segment 9 arrived. The gaps below it are sent by rules 1 and 3, each once.
      ack(6, [9, 10]);
      expect(segs()).to.deep.equal([6, 7, 8]);
      ack(7, [9, 10]);
      ack(8, [9, 10]);
      expect(segs()).to.deep.equal([]);
      ack(10);
      expect(recovering()).to.equal(false);
      expect(h.stat.tcps_rexmttimeo).to.equal(0);
    });

    it('retransmits the end once per recovery, and only after a partial ACK beyond the first segment', () => {
      fly(10);
      ack(0, [1, 5]);
      expect(segs()).to.deep.equal([0]);
      ack(5);
      expect(segs()).to.deep.equal([9]);
      // The rescue retransmission is lost too, so the retransmission timer takes over.
      ack(6);
      ack(7);
      expect(segs()).to.deep.equal([]);
      h.advance(3000);
      expect(segs()).to.include(7);
    });

    it('sets FIN on the rescue retransmission if the flight ended with one', () => {
      fly(10);
      soshutdown(c.so, SHUT_WR);
      expect(tcps().map((t) => t.flags)).to.deep.equal(['F.']);
      ack(0, [1, 8]);
      segs();
      ack(8);
      const rescue = tcps();
      expect(rescue.map((t) => [((t.seq - c.ack) >>> 0) / size, t.flags])).to.deep.equal([
        [9, 'FP.'],
      ]);
      c.seg({ ack: at(9) });
      c.seg({ ack: (at(10) + 1) >>> 0 });
      expect(c.state).to.equal('FIN_WAIT_2');
    });

    it('sends no rescue retransmission into a zero window', () => {
      fly(10);
      ack(0, [1, 8]);
      segs();
      c.win = 0;
      ack(8);
      expect(segs()).to.deep.equal([]);
    });
  });

  it('ends recovery when a timeout turns out to be spurious', () => {
    fly(10);
    ack(0, [1, 5]);
    segs();
    const { val, ecr } = c.ts!;
    h.advance(300);
    expect(h.stat.tcps_rexmttimeo).to.equal(1);
    segs();
    // An ACK sent before the retransmission: everything arrived.
    c.ts = { val, ecr };
    ack(10);
    expect(h.stat.tcps_sndrexmitbad).to.equal(1);
    expect(recovering()).to.equal(false);
    expect(tp.snd_cwnd).to.be.at.least(size);
    h.write(c.so, new Uint8Array(size));
    expect(segs()).to.deep.equal([10]);
  });

  it('sends a window probe even during recovery', () => {
    fly(10, 1);
    ack(0, [1, 8]);
    segs();
    ack(11);
    // Force a recovery state that allows no data.
    tp.t_flags |= TF_FASTRECOVERY | TF_FORCEDATA;
    tp.snd_cwnd = 0;
    h.write(c.so, new Uint8Array(size));
    expect(tcps().map((t) => t.payload.length)).to.deep.equal([1]);
    tp.t_flags &= ~(TF_FASTRECOVERY | TF_FORCEDATA);
  });

  // Cumulative ACKs, blocks of quarter segments, more or less new data to send.
  it('sends what the model of RFC 6675 sends, ACK by ACK', function () {
    this.timeout(240_000);
    const FLIGHT = 16;
    const seen = new Set<number>();
    const step = fc.record({
      ack: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(3 * SEG)),
      blocks: fc.array(fc.tuple(fc.nat(FLIGHT * SEG), fc.integer({ min: 1, max: 3 * SEG })), {
        maxLength: 3,
      }),
      top: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 2, maxLength: 25 }),
        fc.nat(8),
        fc.boolean(),
        (steps, more, prr) => {
          h.close();
          start();
          h.vnet.sysctl.write('net.inet.tcp.sack.lrd', '0');
          h.vnet.sysctl.write('net.inet.tcp.do_prr', prr ? '1' : '0');
          fly(FLIGHT, more);
          const total = (FLIGHT + more) * SEG;
          const o = new Rfc6675();
          o.highData = FLIGHT * SEG;
          for (const s of steps) follow(o, s, total, seen);
        },
      ),
      { numRuns: RUNS, seed: 6675 },
    );
    // The examples reach every rule.
    expect([...seen].sort((a, b) => a - b)).to.deep.equal([1, 2, 3, 4]);
  });

  /** First and next unit of each data segment just sent. */
  function dataSent(): [from: number, to: number][] {
    return tcps()
      .filter((t) => t.payload.length > 0)
      .map((t) => {
        const from = ((t.seq - c.ack) >>> 0) / UNIT;
        return [from, from + t.payload.length / UNIT];
      });
  }

  /** Gives one ACK to stack and model, and compares what the stack sends with the model. */
  function follow(
    o: Rfc6675,
    s: { ack: number; blocks: [number, number][]; top: boolean },
    total: number,
    seen: Set<number>,
  ): void {
    // A cumulative ACK never stops before SACKed data.
    let una = Math.min(o.una + s.ack, o.highData);
    while (una < o.highData && o.sacked[una] === true) una++;
    // Half of the time, place the blocks at the end of the flight.
    const base = s.top ? Math.max(o.highData - FLIGHT_TOP, 0) : o.una;
    const blocks = s.blocks
      .map(([from, n]): [number, number] => [base + (s.top ? from % FLIGHT_TOP : from), n])
      .map(([from, n]): [number, number] => [from, Math.min(from + n, o.highData)])
      .filter(([from, to]) => from > una && to > from);
    // An ACK without new information belongs to RFC 5681.
    if (una === o.una && blocks.length === 0) return;
    const wasUna = o.una;
    const news = o.update(una, blocks);
    const cwndBefore = tp.snd_cwnd;
    const sack = blocks.map(([a, b]): [number, number] => [c.ack + a * UNIT, c.ack + b * UNIT]);
    c.seg({ ack: (c.ack + una * UNIT) >>> 0, ...(sack.length === 0 ? {} : { sack }) });
    const out = dataSent();
    const left = (): [number, number] | undefined => out.shift();
    if (o.recovery !== null && una >= o.recovery) o.recovery = null;
    if (una > wasUna) o.dupAcks = 0;
    else if (news && o.recovery === null) o.dupAcks++;
    // Unlike the RFC, recovery also starts when a cumulative ACK carries the new information.
    const enters =
      o.recovery === null &&
      news &&
      ((una === wasUna && o.dupAcks >= 3) || (o.sacked.indexOf(true, una) > 0 && o.isLost(una)));
    if (enters) {
      o.dupAcks = 0;
      const first = o.enter();
      if (first !== null) expect(left(), 'step 4.3').to.deep.equal(first);
    }
    expect(recovering()).to.equal(o.recovery !== null);
    if (o.recovery === null) {
      // RFC 3042 instead of step 3.3, as in FreeBSD.
      if (o.dupAcks === 1) o.limited = 0;
      const room = o.highData - una < cwndBefore / UNIT + 2 * SEG;
      const unsent = Math.floor((total - o.highData) / SEG);
      const may = room ? Math.min(o.dupAcks - o.limited, unsent) : 0;
      if (una === wasUna && news) {
        expect(out.length, 'limited transmit').to.equal(may);
        o.limited += out.length;
      }
      for (const [from, to] of out) {
        expect(from, 'new data').to.equal(o.highData);
        o.highData = to;
      }
      expect(tcp_compute_pipe(tp) / UNIT, 'pipe').to.equal(o.pipe());
      return;
    }
    const cwnd = tp.snd_cwnd / UNIT;
    for (let seg = left(); seg !== undefined; seg = left()) {
      const next = o.nextSeg(total);
      expect(seg, `rule ${next?.rule}`).to.deep.equal(next === null ? null : [next.from, next.to]);
      expect(cwnd - o.pipe(), `room by rule ${next!.rule}`).to.be.at.least(seg[1] - seg[0]);
      seen.add(next!.rule);
      o.sent(next!);
    }
    expect(tcp_compute_pipe(tp) / UNIT, 'pipe').to.equal(o.pipe());
    const next = o.nextSeg(total);
    if (next !== null)
      expect(cwnd - o.pipe(), `rule ${next.rule} waits`).to.be.below(
        next.rule === 4 ? SEG : next.to - next.from,
      );
  }
});

/** The units at the end of the flight at which blocks are placed half of the time. */
const FLIGHT_TOP = 5 * SEG;
