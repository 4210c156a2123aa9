/**
 * D-SACK (RFC 2883): which range an ACK reports as a duplicate, and which blocks follow. Examples,
 * and every overlap of three segments with each other and with what was received before, compared
 * with a model that keeps one flag per byte.
 */

import { expect } from 'chai';
import { type Conn, TestHost } from './tcp_host.ts';

type Range = [from: number, to: number];
/** Bytes received before the gap of each round, and after it. */
const BEFORE = 2;
const AFTER = 6;

/** What the receiver has, relative to the first missing byte of the round. */
class Model {
  readonly has = new Set<number>();
  /** Blocks beyond rcvNxt, the latest first. */
  blocks: Range[] = [];
  rcvNxt = 0;

  /** Receives [from, to). Returns the blocks that the ACK must report. */
  receive(from: number, to: number): Range[] {
    const old = this.rcvNxt;
    const report: Range[] = [];
    const had = (at: number): boolean => at < old || this.has.has(at);
    // The lowest duplicate range: what was acknowledged before is one range, and so is each block.
    let low = from;
    while (low < to && !had(low)) low++;
    let high = low;
    while (high < to && had(high) && high < old === low < old) high++;
    if (low < high) report.push([low, high]);
    for (let at = Math.max(from, old); at < to; at++) this.has.add(at);
    while (this.has.has(this.rcvNxt)) this.rcvNxt++;
    if (to > this.rcvNxt) {
      let [first, last] = [Math.max(from, old), to];
      while (this.has.has(first - 1)) first--;
      while (this.has.has(last)) last++;
      this.blocks = this.blocks.filter(([a, b]) => b < first || a > last);
      this.blocks.unshift([first, last]);
    }
    this.blocks = this.blocks.filter(([, b]) => b > this.rcvNxt);
    return [...report, ...this.blocks];
  }
}

describe('tcp: D-SACK', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish({ sackOk: true });
  });
  afterEach(() => h.close());

  /**
   * Sends the bytes [from, to) relative to c.seq. Returns the ACK, which may be delayed, and its blocks,
   * relative too.
   */
  const give = (from: number, to: number, delayed = false): { ack: number; sack: Range[] } => {
    c.seg({ seq: (c.seq + from) >>> 0, payload: 'x'.repeat(to - from) });
    if (delayed) h.advance(50);
    const told = h.take();
    expect(told, `frames for ${from}:${to}`).to.have.length(1);
    const t = told[0]!.ip!.tcp!;
    const rel = (n: number): number => (n - c.seq) | 0;
    return { ack: rel(t.ack), sack: (t.sack ?? []).map(([a, b]): Range => [rel(a), rel(b)]) };
  };

  it('reports the lowest of several duplicate ranges, then the block that contains it', () => {
    give(100, 200);
    give(300, 400);
    const range: Range = [100, 200];
    expect(give(100, 400)).to.deep.equal({ ack: 0, sack: [range, [100, 400]] });
  });

  it('reports the lowest duplicate range whatever the order of arrival', () => {
    give(300, 400);
    give(100, 200);
    expect(give(50, 350)).to.deep.equal({
      ack: 0,
      sack: [
        [100, 200],
        [50, 400],
      ],
    });
  });

  it('reports a duplicate when the segment closes the gap and rcv_nxt advances', () => {
    give(100, 200);
    give(300, 400);
    expect(give(0, 300)).to.deep.equal({ ack: 400, sack: [[100, 200]] });
    // It is reported once.
    expect(give(500, 600)).to.deep.equal({ ack: 400, sack: [[500, 600]] });
  });

  it('keeps the blocks beyond the next gap behind the D-SACK', () => {
    give(100, 200);
    give(500, 600);
    expect(give(0, 150)).to.deep.equal({
      ack: 200,
      sack: [
        [100, 150],
        [500, 600],
      ],
    });
  });

  it('reports the duplicate before rcv_nxt rather than one in the queue', () => {
    give(0, 100, true);
    c.seq += 100;
    give(100, 200);
    expect(give(-50, 200)).to.deep.equal({ ack: 200, sack: [[-50, 0]] });
  });

  it('reports nothing for a segment that only touches queued ones', () => {
    give(100, 200);
    expect(give(200, 300)).to.deep.equal({ ack: 0, sack: [[100, 300]] });
    expect(give(0, 100)).to.deep.equal({ ack: 300, sack: [] });
  });

  it('does so for every overlap of three segments, before and behind the gap, across the wrap', function () {
    this.timeout(60_000);
    const ranges = (from: number): Range[] => {
      const list: Range[] = [];
      for (let a = from; a < AFTER; a++) for (let b = a + 1; b <= AFTER; b++) list.push([a, b]);
      return list;
    };
    let n = 0;
    for (const one of ranges(1)) {
      h.close();
      h = new TestHost();
      // The wrap to 0 comes in the second round, inside a segment.
      c = h.establish({ sackOk: true, seq: 0xffff_fff0 });
      for (const two of ranges(1))
        for (const three of ranges(-BEFORE)) {
          c.data('xx');
          h.advance(50);
          h.take();
          const model = new Model();
          const what = JSON.stringify([one, two, three]);
          for (const [from, to] of [one, two, three, [0, AFTER] as Range]) {
            const delayed = from === model.rcvNxt && model.blocks.length === 0;
            const sack = model.receive(from, to).slice(0, 4);
            expect(give(from, to, delayed), what).to.deep.equal({ ack: model.rcvNxt, sack });
          }
          c.seq = (c.seq + AFTER) >>> 0;
          h.advance(50);
          h.take();
          h.read(c.so);
          n++;
        }
    }
    expect(n).to.equal(15 * 15 * 36);
  });
});
