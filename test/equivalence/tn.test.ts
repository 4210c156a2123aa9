/**
 * Checks that the native build of `tn` does what the TypeScript build does, byte for byte.
 * fast-check prints seed and path of a shrunk difference; `FC_SEED` replays a seed.
 */

import { expect } from 'chai';
import * as fc from 'fast-check';
import {
  TN_NSTATS,
  TN_ST_RX_FRAMES,
  TN_ST_RX_LRO,
  TN_ST_RX_LRO_SEGMENTS,
  tnStatNames,
} from '../../src/dev/tn/tnreg.ts';
import { full } from '../support/needs.ts';
import { benchInit, type Outcome, play, ramImage, type Setup, type Step } from './bench.ts';
import { hostileScript, kindScript, lostScript } from './gen.ts';
import { blockedScripts } from './gen_blocked.ts';
import { chainScripts } from './gen_ip6.ts';
import { trainScript } from './gen_lro.ts';

const seed = process.env['FC_SEED'];
const RUNS = Number(process.env['TAPNIC_EQUIVALENCE_RUNS'] ?? (full ? 20_000 : 500));

/** A slow machine stops here after fewer runs; RUNS_LEAST are required. */
const LIMIT_MS = full ? 900_000 : 8000;
const RUNS_LEAST = 50;

/**
 * Statistics summed over all runs; expectReached checks that the scripts reach the paths they test.
 */
let reached = new Float64Array(TN_NSTATS);
let runs = 0;

/** Describes where two strings of bytes begin to differ. */
function firstDifference(a: string, b: string): string {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  const hex = (s: string): string => Buffer.from(s.slice(at, at + 16), 'latin1').toString('hex');
  return `lengths ${a.length}, ${b.length}; at ${at}: ${hex(a)} and ${hex(b)}`;
}

function compareOutcomes(ts: Outcome, native: Outcome): void {
  expect(native.log, 'registers, line and loop').to.deep.equal(ts.log);
  expect(native.frames.length, 'frames on the wire').to.equal(ts.frames.length);
  ts.frames.forEach((frame, i) => {
    if (native.frames[i] !== frame)
      expect.fail(`frame ${i}: ${firstDifference(frame, native.frames[i]!)}`);
  });
  const named = ({ stats }: Outcome): Record<string, number> =>
    Object.fromEntries(tnStatNames.map((name, i) => [name, stats[i]!]));
  expect(named(native), 'statistics').to.deep.equal(named(ts));
  expect(native.reasons, 'reasons').to.deep.equal(ts.reasons);
  if (native.captured !== ts.captured)
    expect.fail(`capture ring: ${firstDifference(ts.captured, native.captured)}`);
}

function compareBuilds({ setup, steps }: { setup: Setup; steps: Step[] }): void {
  const ts = play('ts', setup, steps);
  const ram = Buffer.from(ramImage());
  const native = play('native', setup, steps);
  compareOutcomes(ts, native);
  const now = ramImage();
  if (!now.equals(ram)) {
    let at = 0;
    while (now[at] === ram[at]) at++;
    const hex = (b: Buffer): string => b.subarray(at, at + 16).toString('hex');
    expect.fail(`RAM at 0x${at.toString(16)}: ${hex(ram)} and ${hex(now)}`);
  }
  ts.stats.forEach((n, i) => (reached[i]! += n));
  runs++;
}

function same(script: fc.Arbitrary<{ setup: Setup; steps: Step[] }>): void {
  fc.assert(fc.property(script, compareBuilds), {
    numRuns: RUNS,
    interruptAfterTimeLimit: LIMIT_MS,
    ...(seed === undefined ? {} : { seed: Number(seed) }),
  });
}

/** Fails unless each statistic is at least one per fifty runs on average. */
function expectReached(names: readonly (typeof tnStatNames)[number][]): void {
  expect(runs, 'runs within the time limit').to.be.least(Math.min(RUNS, RUNS_LEAST));
  const short = names.filter((name) => reached[tnStatNames.indexOf(name)]! < runs / 50);
  expect(short, 'statistics below one per fifty runs').to.deep.equal([]);
}

describe('equivalence: ts and native', function () {
  this.timeout(full ? 3_000_000 : 120_000);

  before(benchInit);
  beforeEach(() => {
    reached = new Float64Array(TN_NSTATS);
    runs = 0;
  });

  it(`${RUNS} scripts of correct drivers`, () => {
    same(kindScript);
    expectReached([
      'tx_frames',
      'tx_tso',
      'tx_segments',
      'tx_bad',
      'tx_wire_full',
      'tx_wire_error',
      'tx_no_link',
      'rx_frames',
      'rx_filtered',
      'rx_oversize',
      'rx_runt',
      'rx_nodesc',
      'rx_ip_error',
      'rx_l4_error',
      'interrupts',
    ]);
  });

  it(`${RUNS} trains of segments for receive coalescing, intact and broken`, () => {
    same(trainScript);
    expectReached(['rx_lro', 'rx_nodesc', 'rx_bad', 'rx_filtered', 'rx_ip_error', 'rx_l4_error']);
    const [made, of] = [reached[TN_ST_RX_LRO]!, reached[TN_ST_RX_LRO_SEGMENTS]!];
    expect(made / runs, 'merged frames per run').to.be.greaterThan(0.8);
    expect(of / made, 'segments per merged frame').to.be.greaterThan(2.5);
    expect(reached[TN_ST_RX_FRAMES]! / runs, 'frames per run').to.be.greaterThan(2);
  });

  it('IPv6 extension headers of every kind, and chains around the limits', () => {
    const scripts = chainScripts();
    for (const script of scripts) compareBuilds(script);
    expect(runs).to.equal(scripts.length);
    expect(reached[TN_ST_RX_FRAMES]!, 'frames per script').to.be.above(50 * runs);
  });

  it('packets that change in memory while they wait for a full wire', () => {
    const scripts = blockedScripts();
    for (const script of scripts) compareBuilds(script);
    expectReached(['tx_wire_full']);
  });

  it(`${RUNS} scripts with hostile rings and register writes`, () => {
    same(hostileScript);
    expectReached(['tx_frames', 'tx_bad', 'rx_bad', 'dma_faults', 'bad_reg']);
  });

  it(`${RUNS} scripts with rings anywhere in RAM`, () => {
    same(lostScript);
    expectReached(['tx_bad', 'rx_bad', 'dma_faults']);
  });
});
