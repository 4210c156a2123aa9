import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { full } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';
import {
  ALGORITHMS,
  type Cell,
  kindName,
  LINE_BPS,
  lineName,
  LOSSES,
  measure,
  MSS,
  MSS6,
  RTTS_MS,
} from './loss_grid.ts';

const FILE = `${packageRoot()}/test/sim/loss_grid.snapshot.json`;
const UPDATE = process.env['TAPNIC_UPDATE'] === '1';
/** The snapshot has all seeds. Without loss the result does not depend on the seed. */
const SEEDS = [1, 2, 3, 4];
const FAMILIES = [false, true];
const seedsOf = (loss: number): number[] => (loss === 0 ? [1] : SEEDS);

/** kbit/s by line, kind and seed. */
type Snapshot = Record<string, Record<string, number[]>>;

function text(s: Snapshot): string {
  const lines = Object.entries(s).map(([line, kinds]) => {
    const rows = Object.entries(kinds).map(([kind, v]) => `    "${kind}": [${v.join(', ')}]`);
    return `  "${line}": {\n${rows.join(',\n')}\n  }`;
  });
  return `{\n${lines.join(',\n')}\n}\n`;
}

/** Mathis et al. 1997: Reno's throughput at a loss rate of `p`, bit/s. */
const renoBps = (p: number, rttSec: number, mss = MSS): number =>
  ((mss * 8) / rttSec) * Math.sqrt(1.5 / p);
/** RFC 9438, 5.1, figure 4: CUBIC's throughput, at least Reno's, bit/s. */
const cubicBps = (p: number, rttSec: number): number => {
  const window = ((0.4 * 3.7) / 1.2) ** 0.25 * (rttSec / p) ** 0.75;
  return Math.max(((MSS * 8) / rttSec) * window, renoBps(p, rttSec));
};

describe('TCP throughput under loss', () => {
  let snapshot: Snapshot = {};
  before(() => {
    snapshot = JSON.parse(readFileSync(FILE, 'utf8')) as Snapshot;
  });

  const each = (fn: (cell: Cell, line: string, kind: string) => void): void => {
    for (const six of FAMILIES)
      for (const loss of LOSSES)
        for (const rttMs of RTTS_MS)
          for (const cc of ALGORITHMS)
            for (const sack of [false, true]) {
              const cell = { loss, rttMs, cc, sack, six };
              fn(cell, lineName(loss, rttMs, six), kindName(cc, sack));
            }
  };
  /** The mean over the seeds of a cell, bit/s. */
  const mean = (loss: number, rttMs: number, cc: string, sack: boolean, six = false): number => {
    const v = snapshot[lineName(loss, rttMs, six)]![kindName(cc, sack)]!;
    return (v.reduce((a, b) => a + b, 0) / v.length) * 1000;
  };
  /** Seeds of a cell that this run measures. At CI size, IPv6 has one algorithm and round-trip time. */
  const measured = ({ loss, rttMs, cc, sack, six }: Cell): number => {
    if (full) return seedsOf(loss).length;
    return !six! || (rttMs === 20 && cc === 'cubic' && sack) ? 1 : 0;
  };

  it(`equals the snapshot exactly: ${full ? '144 cells, all seeds' : '72 cells of IPv4 and 6 of IPv6, one seed'}`, function () {
    this.timeout(full ? 1_200_000 : 120_000);
    const changed: string[] = [];
    const now: Snapshot = {};
    each((cell, line, kind) => {
      const was = snapshot[line]?.[kind] ?? [];
      const values = seedsOf(cell.loss).map((seed, i) => {
        if (i >= measured(cell)) return was[i] ?? 0;
        return Math.round(measure(cell, seed).bps / 1000);
      });
      (now[line] ??= {})[kind] = values;
      if (values.join() !== was.join())
        changed.push(`${line} ${kind}: ${values.join(' ')} instead of ${was.join(' ')} kbit/s`);
    });
    if (UPDATE) {
      writeFileSync(FILE, text(now));
      snapshot = now;
      return;
    }
    expect(changed.join('\n'), 'TAPNIC_UPDATE=1 TAPNIC_FULL=1 updates the snapshot').to.equal('');
  });

  it('fills a line without loss', () => {
    each(({ loss, rttMs, cc, sack, six }) => {
      if (loss === 0) expect(mean(loss, rttMs, cc, sack, six)).to.be.above(0.9 * LINE_BPS);
    });
  });

  it('is lower over IPv6 by the 20 bytes of each header, without loss', () => {
    for (const rttMs of RTTS_MS)
      for (const cc of ALGORITHMS) {
        const ratio = mean(0, rttMs, cc, true, true) / mean(0, rttMs, cc, true);
        expect(ratio, lineName(0, rttMs, true)).to.be.closeTo(MSS6 / MSS, 0.0005);
      }
  });

  // Only up to 3 %: beyond that timeouts dominate, which the formula ignores. CUBIC may exceed the
  // formula, because its window grows faster in a long gap between losses.
  it('is close to Mathis’s formula with SACK, or at the line rate', () => {
    for (const six of FAMILIES) {
      for (const loss of [0.001, 0.003, 0.01, 0.03]) {
        for (const rttMs of RTTS_MS) {
          const mss = six ? MSS6 : MSS;
          const want = Math.min(renoBps(loss, rttMs / 1000, mss), 0.955 * (mss / MSS) * LINE_BPS);
          const what = `${lineName(loss, rttMs, six)}: theory ${Math.round(want / 1000)} kbit/s`;
          const [reno, cubic] = ALGORITHMS.map((cc) => mean(loss, rttMs, cc, true, six));
          expect(reno, what).to.be.within(want / 1.6, want * 1.6);
          expect(cubic, what).to.be.within(want / 1.6, want * 3);
        }
      }
    }
  });

  // Below 1 % the few losses make the result random.
  it('improves with SACK, and more at higher loss', () => {
    each(({ loss, rttMs, cc, sack, six }, line) => {
      if (sack) return;
      const gain = mean(loss, rttMs, cc, true, six) / mean(loss, rttMs, cc, false, six);
      const least = loss >= 0.03 ? 1.1 : loss >= 0.01 ? 1 : 0.85;
      expect(gain, `${line} ${cc}`).to.be.above(least);
    });
  });

  it('is not lower with CUBIC than with NewReno', () => {
    each(({ loss, rttMs, cc, sack, six }, line) => {
      if (cc !== 'cubic' || !sack) return;
      const reno = mean(loss, rttMs, 'newreno', true, six);
      expect(mean(loss, rttMs, cc, true, six) / reno, line).to.be.above(0.97);
    });
  });

  // RFC 9406, 1: plain slow start overshoots by up to a window. With a long queue, round-trip times
  // rise early enough to prevent that.
  it('HyStart++ ends slow start before a long queue overflows, and loses less with a short one', () => {
    const rexmits = (rttMs: number, queue: number, samples: number): number =>
      measure({ loss: 0, rttMs, cc: 'cubic', sack: true }, 1, {
        warmSec: 3,
        bytes: 1e6,
        queue,
        sysctls: {
          'cc.hystartplusplus.n_rttsamples': samples,
          // Buffers large enough not to limit the rate.
          sendspace: 1_800_000,
          recvspace: 1_800_000,
        },
      }).rexmits;
    for (const rttMs of [2, 5]) {
      expect(rexmits(rttMs, 900, 0x7fffffff), `${rttMs} ms, without HyStart++`).to.be.above(500);
      expect(rexmits(rttMs, 900, 8), `${rttMs} ms`).to.equal(0);
      const short = rexmits(rttMs, 300, 8) / rexmits(rttMs, 300, 0x7fffffff);
      expect(short, `${rttMs} ms, short queue`).to.be.below(0.2);
    }
  });

  // RFC 9438, 5.1. The model is exactly one loss in `every` segments, not a random loss. The first
  // losses decide how long CUBIC takes to converge: fast convergence may first lower its window.
  it('follows the response functions at an RTT of 200 ms, where CUBIC is faster', function () {
    this.timeout(60_000);
    const every = 3000;
    const o = { every, warmSec: 200, bytes: 5 * every * MSS, limitSec: 300 };
    const [reno, cubic] = ALGORITHMS.map(
      (cc) => measure({ loss: 0, rttMs: 200, cc, sack: true }, 1, o).bps,
    );
    const p = 1 / every;
    expect(cubicBps(p, 0.2) / renoBps(p, 0.2), 'theory').to.be.above(1.8);
    expect(reno! / renoBps(p, 0.2), 'NewReno / theory').to.be.within(0.85, 1.15);
    expect(cubic! / cubicBps(p, 0.2), 'CUBIC / theory').to.be.within(0.85, 1.15);
    expect(cubic! / reno!).to.be.above(1.6);
  });
});
