import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import type { Row } from './result.ts';
import { bench } from './run_bench.ts';

describe('bench: bulk-rx', () => {
  needs('root', 'netns', 'tap', 'taskset', 'cc');

  it('prints a figure, its baselines and the proof of its path for both modes', function () {
    this.timeout(240_000);
    const { status, stdout, stderr } = bench('bulk-rx', '--quick', '--json');
    expect(status, stderr).to.equal(0);
    const rows: Row[] = JSON.parse(stdout);

    expect(rows.map(({ name }) => name)).to.deep.equal(['bulk-rx-wire', 'bulk-rx-vnet']);
    for (const row of rows) {
      expect(row).to.include({ unit: 'Gbit/s', higherIsBetter: true, runs: 1 });
      for (const n of [row.value, row.ratio, row.cpuPerGB, row.cpuRatio, row.baseline.value])
        expect(n, row.name).to.be.above(0);
      expect(row.baseline.name).to.match(/^C reader/);
      expect(row.path).to.include({ mode: row.name.slice(-4), engine: 'native', napi: 'off' });
    }
    const [wire, vnet] = rows;
    expect(wire!.path['bytesPerTapFrame']).to.be.within(1000, 1514);
    expect(vnet!.path['bytesPerTapFrame']).to.be.above(3 * 1514);
    expect(vnet!.others?.map(({ name }) => name)).to.deep.equal(['node:net over veth']);
  });
});
