import { expect } from 'chai';
import * as fc from 'fast-check';
import { EINPROGRESS } from '../../src/sys/errno.ts';
import { m_freem, mb_free_notready } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOTREADY, M_NOWAIT } from '../../src/kern/mbuf.ts';
import { m_copym } from '../../src/kern/uipc_mbuf.ts';
import {
  SB_NOCOALESCE,
  sbappendstream,
  sbavail,
  sbcheck,
  sbcut,
  sbdrop,
  sbflush,
  sbready,
  sbsndOff,
  sbsndmbuf,
  sbsndptr_adv,
  sbsndptr_noadv,
} from '../../src/kern/uipc_sockbuf.ts';
import { runs } from '../support/property.ts';
import { bootEach, bootKern, expectAllBack } from './boot.ts';
import { Chain, chainBytes, expectBytes, must, segArb, type Seg, sfbufMbuf } from './chains.ts';
import { audit, linked, newSockbuf, pending, plain } from './sockbufs.ts';

/** The operations. A repeated name is chosen more often. */
const OPS = [
  'append',
  'pend',
  'pend',
  'ready',
  'part',
  'drop',
  'cut',
  'look',
  'shadow',
  'unshadow',
  'die',
] as const;
type Op = [(typeof OPS)[number], Seg[], number, number];

/** A pending mbuf of an I/O. */
interface Part {
  m: Mbuf;
  units: number;
  /** Offset of its first byte in the stream. */
  at: number;
}

/** An I/O in flight: its pending mbufs. */
type Io = Part[];

const unitsOf = (io: Io): number => io.reduce((n, part) => n + part.units, 0);

/**
 * A socket buffer and its model: a flat array of the stream from `dropped` on, and the pending
 * I/Os.
 */
class Model {
  readonly sb = newSockbuf();
  readonly chains: Chain[] = [];
  readonly ios: Io[] = [];
  readonly shadows: { m: Mbuf; bytes: Uint8Array }[] = [];
  stream: number[] = [];
  dropped = 0;

  constructor(coalesce: boolean) {
    if (!coalesce) this.sb.sb_flags |= SB_NOCOALESCE;
  }

  /** Bytes in front of the first pending I/O. */
  available(): number {
    const first = Math.min(...this.ios.map((io) => io[0]!.at), this.dropped + this.stream.length);
    return first - this.dropped;
  }

  append(segs: Seg[]): void {
    const c = new Chain(segs);
    this.chains.push(c);
    for (const byte of c.bytes) this.stream.push(byte);
    sbappendstream(this.sb, c.m, false);
  }

  /**
   * Appends a round of sendfile: one to three pending mbufs, mapped or unmapped, some of them
   * small, sometimes preceded by ready headers.
   */
  pend(x: number, y: number): void {
    const ms: Mbuf[] = [];
    const io: Io = [];
    let at = this.dropped + this.stream.length;
    if (y % 4 === 0) {
      ms.push(plain(1 + (x % 200)));
      at += ms[0]!.m_len;
    }
    for (let i = 0; i <= x % 3; i++) {
      const npgs = 1 + ((y >>> i) % 4);
      let m: Mbuf;
      if ((y >>> (i + 3)) % 3 === 0) {
        m = sfbufMbuf(0, 1 + (y % 4096));
        m.m_flags |= M_NOTREADY;
        io.push({ m, units: 1, at });
      } else {
        m = pending({ npgs, last: 1 + ((x ^ y) % 400) });
        io.push({ m, units: npgs, at });
      }
      ms.push(m);
      at += m.m_len;
    }
    const m = linked(...ms);
    for (const byte of chainBytes(m)) this.stream.push(byte);
    this.ios.push(io);
    sbappendstream(this.sb, m, true);
  }

  /** Completes an I/O, or some units of it. */
  ready(x: number, some: number): void {
    if (this.ios.length === 0) return;
    const i = x % this.ios.length;
    const io = this.ios[i]!;
    const first = io[0]!;
    let left = Math.min(some, unitsOf(io));
    const units = left;
    while (left > 0) {
      const n = Math.min(left, io[0]!.units);
      io[0]!.units -= n;
      left -= n;
      if (io[0]!.units === 0) io.shift();
    }
    if (io.length === 0) this.ios.splice(i, 1);
    // Data becomes available only when the first mbuf of the first pending I/O is complete.
    const out = i === 0 && first.units === 0;
    expect(sbready(this.sb, first.m, units)).to.equal(out ? 0 : EINPROGRESS);
  }

  drop(x: number): void {
    const n = x % (this.available() + 1);
    sbdrop(this.sb, n);
    this.stream = this.stream.slice(n);
    this.dropped += n;
  }

  /** Like drop, but sbcut returns the mbufs that it removes whole. */
  cut(x: number): void {
    const n = x % (this.available() + 1);
    const cut = sbcut(this.sb, n);
    const bytes = chainBytes(cut);
    expect(bytes.length).to.be.at.most(n);
    expectBytes(cut, Uint8Array.from(this.stream.slice(0, bytes.length)), 'cut off');
    m_freem(cut);
    this.stream = this.stream.slice(n);
    this.dropped += n;
  }

  /** Drops the connection: the buffer is flushed, then each I/O frees its mbufs, in any order. */
  die(x: number): void {
    sbflush(this.sb);
    audit(this.sb);
    for (; this.ios.length > 0; x = x >>> 1) {
      const [io] = this.ios.splice(x % this.ios.length, 1) as [Io];
      mb_free_notready(io[0]!.m, unitsOf(io));
    }
    this.dropped += this.stream.length;
    this.stream = [];
  }

  look(x: number): void {
    const off = x % (this.stream.length + 1);
    const m = sbsndmbuf(this.sb, off);
    if (off === this.stream.length) {
      expect(m).to.equal(null);
      return;
    }
    // sbsndOff.off is an offset into m, so it also indexes the bytes of the chain from m.
    expect(chainBytes(m)[sbsndOff.off]).to.equal(this.stream[off]);
    const from = sbsndptr_noadv(this.sb, off);
    expect(chainBytes(from)[sbsndOff.off]).to.equal(this.stream[off]);
    // Advance as tcp_output does after sending. For retransmitted data sb_sndptr must not move.
    sbsndptr_adv(this.sb, from, sbsndOff.off + (x % 300));
  }

  shadow(x: number, y: number): void {
    const off = x % (this.available() + 1);
    const len = y % (this.available() - off + 1);
    if (len === 0) return;
    const m = sbsndptr_noadv(this.sb, off);
    this.shadows.push({
      m: must(m_copym(m, sbsndOff.off, len, M_NOWAIT)),
      bytes: Uint8Array.from(this.stream.slice(off, off + len)),
    });
  }

  unshadow(x: number): void {
    if (this.shadows.length === 0) return;
    const [s] = this.shadows.splice(x % this.shadows.length, 1) as [Model['shadows'][0]];
    expectBytes(s.m, s.bytes, 'a segment in flight');
    m_freem(s.m);
  }

  step([what, segs, x, y]: Op): void {
    switch (what) {
      case 'append':
        return this.append(segs);
      case 'pend':
        return this.pend(x, y);
      case 'ready':
        return this.ready(x, Infinity);
      case 'part':
        return this.ready(x, 1 + (y % 4));
      case 'cut':
        return this.cut(x);
      case 'die':
        return x % 4 === 0 ? this.die(x) : undefined;
      case 'drop':
        return this.drop(x);
      case 'look':
        return this.look(x);
      case 'shadow':
        return this.shadow(x, y);
      case 'unshadow':
        return this.unshadow(x);
    }
  }

  check(): void {
    audit(this.sb);
    sbcheck(this.sb);
    expect(sbavail(this.sb), 'available').to.equal(this.available());
    expectBytes(this.sb.sb_mb, Uint8Array.from(this.stream), 'stream');
  }

  done(): void {
    this.die(this.dropped);
    while (this.shadows.length > 0) this.unshadow(0);
    for (const c of this.chains) c.done();
  }
}

describe('uipc_sockbuf: random operations against a model', function () {
  this.timeout(600_000);
  bootEach();

  const op: fc.Arbitrary<Op> = fc.tuple(
    fc.constantFrom(...OPS),
    fc.array(segArb(['plain', 'plain', 'cluster', 'sfbuf', 'pgs', 'empty']), {
      minLength: 1,
      maxLength: 3,
    }),
    fc.nat(0x7fffffff),
    fc.nat(0x7fffffff),
  );

  it('acc, ccc, mbcnt, mcnt, ccnt, fnrdy, sndptr and the bytes are right after each step', () => {
    fc.assert(
      fc.property(
        fc.array(op, { minLength: 5, maxLength: 40, size: 'max' }),
        fc.boolean(),
        (ops, coalesce) => {
          try {
            const model = new Model(coalesce);
            for (const o of ops) {
              model.step(o);
              model.check();
            }
            model.done();
            expectAllBack();
          } catch (error) {
            bootKern(); // clean state for the runs that shrink the counterexample
            throw error;
          }
        },
      ),
      runs(120),
    );
  });
});
