import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import { Baselines } from './cc.ts';
import { BenchContext } from './context.ts';
import { type Contender, contender, type Contest, runContest, type Sample } from './contest.ts';
import type { Row } from './result.ts';

/** A contender that writes its name to `log` and returns `values` in turn. */
function fake(name: string, values: readonly number[], log: string[], foreign = 0): Contender {
  let i = 0;
  return contender<number>({
    name,
    warmUps: 0,
    run: (): Promise<Sample> => {
      log.push(name);
      const value = values[i++ % values.length]!;
      const latencies = [1, 2, 3, 100].map((us) => us * value);
      return Promise.resolve({ value, cpu: 2 * value, peerCpu: 3 * value, foreign, latencies });
    },
    read: () => Promise.resolve(i),
    prove: (readings, runs) => ({
      readings: readings.map(([before, after]) => `${before}-${after}`),
      runs: runs.length,
    }),
  });
}

async function measure(contest: Partial<Contest>): Promise<Row> {
  using baselines = new Baselines();
  await using ctx = new BenchContext({ quick: false, progress: () => undefined, baselines });
  return await runContest(ctx, 'row', {
    unit: 'requests/s',
    per: 'request',
    ours: fake('ours', [1], []),
    baseline: fake('base', [1], []),
    effort: { warmUps: 0, rounds: 3, seconds: 60 },
    ...contest,
  });
}

/** The message with which `work` rejects. */
async function failure(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'no failure',
    (e: unknown) => String(e),
  );
}

describe('bench: contest', () => {
  needs('cc');

  it('begins every round with another contender', async () => {
    const log: string[] = [];
    await measure({
      ours: fake('ours', [1], log),
      baseline: fake('base', [1], log),
      others: [fake('other', [1], log)],
    });
    const rounds = ['base ours other', 'ours other base', 'other base ours'];
    expect(log.join(' ')).to.equal(rounds.join(' '));
  });

  it('computes ratios within rounds, and medians of each side', async () => {
    // Ratios 1/2, 3/3, 2/8: median 0.5, while the medians have the ratio 2/3.
    const row = await measure({
      ours: fake('ours', [1, 3, 2], []),
      baseline: fake('base', [2, 3, 8], []),
      others: [fake('other', [1, 1, 1], [])],
    });
    expect(row).to.deep.include({
      value: 2,
      spread: [1, 3],
      ratio: 0.5,
      ratioSpread: [0.25, 1],
      cpuPerRequest: 4,
      peerCpu: 6,
      cpuRatio: 2,
      runs: 3,
    });
    expect(row).to.not.have.property('cpuPerGB');
    expect(row.baseline).to.include({ name: 'base', value: 3, cpuPerRequest: 6, peerCpu: 9 });
    expect(row.others).to.have.length(1);
    expect(row.others![0]).to.deep.include({ name: 'other', ratio: 2, ratioSpread: [1, 3] });
  });

  it('has the percentiles of a run and of all runs', async () => {
    const { latency } = await measure({ ours: fake('ours', [1, 2, 3], []) });
    // Runs of 1 2 3 100, 2 4 6 200 and 3 6 9 300.
    expect(latency).to.include({ p50: 4, p99: 200 });
    const of = new Map(latency!.percentiles);
    expect([of.get(0), of.get(50), of.get(100)]).to.deep.equal([1, 4, 300]);
  });

  it('gives the proof the readings around each counted run, not around warm-ups', async () => {
    const ours = { ...fake('ours', [1], []), warmUps: 2 };
    const { path } = await measure({ ours });
    expect(path).to.deep.equal({ readings: ['2-3', '3-4', '4-5'], runs: 3 });
  });

  it('refuses a figure whose path is not proven', async () => {
    const refuse = (): never => {
      throw new Error('12 conversions');
    };
    const claims = { ...fake('ours', [1], []), prove: refuse };
    expect(await failure(measure({ ours: claims }))).to.include('12 conversions');
    expect(await failure(measure({ baseline: claims }))).to.include('12 conversions');
    const silent = contender({ name: 'ours', run: () => fake('ours', [1], []).run() });
    expect(await failure(measure({ ours: silent }))).to.include('nothing proves the path');
    expect(await failure(measure({ ours: fake('ours', [0], []) }))).to.include('no figure');
  });

  it('marks the row if too many rounds were disturbed', async () => {
    const { conditions } = await measure({
      baseline: fake('base', [1], [], 0.5),
      effort: { warmUps: 0, rounds: 3, seconds: 0 },
    });
    expect(conditions).to.include({ noisy: true, roundsLeftOut: 0 });
  });

  it('cleans up in reverse order, all of it, and reports the first failure', async () => {
    const log: number[] = [];
    using baselines = new Baselines();
    const ctx = new BenchContext({ quick: true, progress: () => undefined, baselines });
    ctx.defer(() => void log.push(1));
    ctx.defer(() => {
      log.push(2);
      throw new Error('leaked');
    });
    ctx.defer(() => void log.push(3));
    expect(await failure(ctx[Symbol.asyncDispose]())).to.include('leaked');
    expect(log).to.deep.equal([3, 2, 1]);
  });
});
