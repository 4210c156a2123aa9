import { expect } from 'chai';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Bench } from '../bench.ts';
import type { PlotPoint, Row } from '../result.ts';
import { gateOf } from './gates.ts';
import { plotsOf } from './plots.ts';
import { Report } from './report.ts';
import { bytesText, percentileScale, short, valueScale } from './scale.ts';

function row(name: string, ratio: number, more: Partial<Row> = {}): Row {
  return {
    name,
    value: ratio * 10,
    unit: 'Gbit/s',
    higherIsBetter: true,
    baseline: { name: 'C sender', value: 10, cpuPerGB: 0.1 },
    ratio,
    ratioSpread: [ratio, ratio],
    spread: [ratio * 10, ratio * 10],
    runs: 5,
    cpuPerGB: 0.2,
    cpuRatio: 0.5,
    path: { engine: 'native', mode: 'wire', napi: 'off' },
    conditions: { kernel: '6', noisy: false },
    ...more,
  };
}

const bench = (name: string): Bench => ({
  name,
  description: '',
  needs: [],
  run: () => Promise.resolve([]),
});

const plotted = (plot: PlotPoint['plot'], x: number, more: Partial<Row> = {}): Row =>
  row(`${plot}-${x}`, 1, { plot: { plot, x }, ...more });

/** Whether the gate of `of` is met. */
function met(of: Row, ...all: Row[]): boolean | null | undefined {
  return gateOf(of)?.gate?.holds(of, [of, ...all]);
}

describe('bench: report', () => {
  let dir = '';

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-report-'));
  });

  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const page = (): string => readFileSync(join(dir, 'performance.md'), 'utf8');
  /** The line of the page about `name`, without the padding of the table. */
  const lineOf = (name: string): string =>
    page()
      .split('\n')
      .find((line) => line.startsWith(`| \`${name}\` `))
      ?.replace(/ +/g, ' ') ?? '';

  it('makes the page from the results of several calls', async () => {
    const first = new Report(dir, false);
    first.add(bench('bulk-tx-wire'), [row('bulk-tx-wire', 0.95)]);
    await first.write();
    const second = new Report(dir, false);
    second.add(bench('accept'), [row('accept', 0.34)]);
    await second.write();

    expect(lineOf('bulk-tx-wire')).to.include(
      '| **0.95** [0.95-0.95] | 0.9: met | 0.97: **missed** |',
    );
    expect(lineOf('accept')).to.include('| 0.5: **missed** | 0.8: **missed** |');
    expect(lineOf('tcp-rr')).to.include('not measured: not run');
  });

  it('says why a row was not measured, until it is measured', async () => {
    const broken = new Report(dir, false);
    broken.add(bench('rr'), [row('tcp-rr-64', 0.8)]);
    broken.fail(bench('rr'), 'tcp-rr', 'missing: root');
    await broken.write();
    expect(lineOf('tcp-rr')).to.include('not measured: missing: root | | | 0.85 | 1 |');
    expect(lineOf('tcp-rr-64')).to.include('0.75: met');

    const repaired = new Report(dir, false);
    repaired.add(bench('rr'), [row('tcp-rr', 0.9)]);
    await repaired.write();
    expect(lineOf('tcp-rr')).to.include('0.85: met');
  });

  it('keeps nothing of a row or bench that now fails', async () => {
    const report = new Report(dir, false);
    report.add(bench('sendfile'), [row('sendfile-cpu-default', 0.9)]);
    report.forget(bench('sendfile'));
    report.fail(bench('sendfile'), 'sendfile', 'conversions');
    await report.write();
    expect(page()).to.include('not measured: conversions').and.not.include('**0.9**');
  });

  it('includes the notes, and marks rows of --quick', async () => {
    writeFileSync(join(dir, 'performance-notes.md'), '## Costs\n\nMostly the copy.\n');
    const report = new Report(dir, true);
    report.add(bench('accept'), [row('accept', 0.9)]);
    await report.write();
    expect(page()).to.include('Mostly the copy.').and.include('figures mean nothing');
  });

  it('refuses a damaged file of results', () => {
    writeFileSync(join(dir, 'results.json'), '{}');
    expect(() => new Report(dir, false)).to.throw('not the results of a bench');
  });

  it('removes plots that have no data any more', async () => {
    const report = new Report(dir, false);
    report.add(bench('loss'), [plotted('loss', 0), plotted('loss', 1)]);
    await report.write();
    expect(page()).to.include('(performance-loss-gbit-s.svg)');
    report.forget(bench('loss'));
    await report.write();
    expect(readdirSync(dir).filter((name) => name.endsWith('.svg'))).to.deep.equal([]);
    expect(existsSync(join(dir, 'results.json'))).to.equal(true);
  });

  it('compares with further baselines by name', () => {
    const nginx = (ratio: number): Partial<Row> => ({
      others: [{ name: 'nginx over veth', value: 1, ratio, ratioSpread: [1, 1], cpuRatio: 1 }],
    });
    expect(met(row('bulk-tx-vnet', 0.9, nginx(1.1)))).to.equal(true);
    expect(met(row('bulk-tx-vnet', 0.9, nginx(0.9)))).to.equal(false);
    expect(met(row('bulk-tx-vnet', 0.8, nginx(1.1)))).to.equal(false);
    expect(met(row('bulk-tx-vnet', 0.9))).to.equal(null);
  });

  it('compares latencies, arms, and costs by size', () => {
    const us = (value: number): Row =>
      row('udp-echo-latency', 1, { unit: 'µs', value, baseline: { name: 'C echo', value: 50 } });
    expect([met(us(65)), met(us(66))]).to.deep.equal([true, false]);
    const arm = (name: string, value: number): Row => row(`sendfile-cpu-${name}`, 1, { value });
    const ours = arm('default', 2);
    expect(met(ours, arm('no-nomap', 3))).to.equal(true);
    expect(met(ours, arm('no-nomap', 1))).to.equal(false);
    expect(met(ours)).to.equal(null);
    const usual = { name: 'ours, 64', value: 1, cpuPerGB: 0.1 };
    const many = (cpuRatio: number): Row =>
      plotted('connections', 4096, { baseline: usual, cpuRatio });
    expect([met(many(0.5)), met(many(0.49))]).to.deep.equal([true, false]);
    const idle = row('scale-idle', 1, { unit: 'B/connection', value: 2048 });
    expect(gateOf(idle)?.gate).to.equal(null);
    expect(gateOf(idle)?.goal.holds(idle, [])).to.equal(true);
    expect(gateOf(plotted('loss', 1))).to.equal(null);
  });

  it('draws rows of one unit and kind into one plot', () => {
    const rows = [plotted('loss', 0), plotted('loss', 3), plotted('connections', 1)];
    const files = plotsOf(rows);
    expect(files.map(({ file }) => file)).to.deep.equal(['performance-loss-gbit-s.svg']);
    const { svg } = files[0]!;
    expect(svg.match(/<circle/g)).to.have.length(3); // two points and the legend
    expect(svg)
      .to.include('prefers-color-scheme:dark')
      .and.not.match(/NaN|undefined/);
  });

  it('draws rows by file size in Gbit/s, without the baselines that are ours', () => {
    const nginx = { name: 'nginx', value: 1, ratio: 1, ratioSpread: [1, 1], cpuRatio: 1 };
    const more = { baseline: { name: 'ours, 1 MB', value: 1 }, others: [nginx] } as Partial<Row>;
    const small = plotted('file-size', 1e6, { unit: 'requests/s', value: 1000, ...more });
    const files = plotsOf([small, plotted('file-size', 1e9, more)]);
    expect(files.map(({ file }) => file)).to.deep.equal(['performance-file-size-gbit-s.svg']);
    // 1000 files of 1 MB are 8 Gbit; the other row has 10.
    expect(files[0]!.svg).to.include('>10</text>').and.not.include('>1k</text>');
    expect(files[0]!.svg).to.include('>nginx</text>').and.not.include('ours, 1 MB');
  });

  it('draws the latencies of ours and of the baseline', () => {
    const latency = { p50: 40, p99: 90, percentiles: [0, 50, 99, 99.99].map((p) => [p, p + 1]) };
    const both = { latency } as Partial<Row>;
    const of = row('tcp-rr', 1, { ...both, baseline: { name: 'C <echo>', value: 1, ...both } });
    const [file] = plotsOf([of]);
    expect(file).to.include({ file: 'performance-latency-tcp-rr.svg' });
    expect(file!.svg)
      .to.include('C &lt;echo&gt;')
      .and.not.match(/NaN|undefined/);
  });

  it('chooses round values for axes', () => {
    expect(valueScale([3, 47]).ticks.map(({ label }) => label)).to.deep.equal([
      '0',
      '10',
      '20',
      '30',
      '40',
      '50',
    ]);
    expect(valueScale([0.05, 40]).ticks.map(({ label }) => label)).to.deep.equal([
      '0.01',
      '0.1',
      '1',
      '10',
      '100',
    ]);
    expect([short(1500), short(0.25), bytesText(1 << 20), bytesText(1365)]).to.deep.equal([
      '1.5k',
      '0.25',
      '1 MB',
      '1.33 KB',
    ]);
    expect(percentileScale(99.99).place(99)).to.be.closeTo(0.5, 1e-9);
  });
});
