/**
 * Every row in a tiny size: there is a figure, and its path was proven. The ratios are printed, not
 * judged: at this size, and beside other work, they mean little.
 */

import { expect } from 'chai';
import { needs, needsHere } from '../../support/needs.ts';
import { benches } from '../benches.ts';
import { baselinesOf, type Row } from '../result.ts';
import { bench } from '../run_bench.ts';

/** Prints the ratios of `row`, with a warning for a low one. */
function show(row: Row): void {
  for (const { name, ratio } of baselinesOf(row)) {
    const lags = row.higherIsBetter ? ratio < 0.5 : ratio > 2;
    console.log(`      ${row.name} : ${name} = ${ratio}${lags ? '  warning: far behind' : ''}`);
  }
}

describe('bench: rows', () => {
  needs('root', 'netns', 'tap', 'taskset', 'cc');

  for (const of of benches)
    for (const { name, needs: more = [] } of 'rows' in of ? of.rows : [])
      it(`${name} prints a figure and the proof of its path`, function () {
        this.timeout(240_000);
        // A client may give up when other work takes the CPUs for long.
        this.retries(2);
        needsHere(this, ...of.needs, ...more);
        const { status, stdout, stderr } = bench(name, '--quick', '--json');
        expect(status, stderr).to.equal(0);
        const rows: Row[] = JSON.parse(stdout);

        expect(rows.map((row) => row.name)).to.deep.equal([name]);
        const [row] = rows;
        const { unit, path, conditions, cpuPerGB, cpuPerRequest } = row!;
        for (const side of [row!, ...baselinesOf(row!)])
          expect(side.value, `${name}, ${side.name}`).to.be.above(0);
        for (const side of baselinesOf(row!)) expect(side.ratio, side.name).to.be.above(0);
        expect(unit).to.be.a('string').and.not.equal('');
        expect(cpuPerGB ?? cpuPerRequest, 'CPU per unit of work').to.be.above(0);
        expect(path).to.include.keys('engine', 'mode');
        expect(conditions).to.include.keys('kernel', 'cpu', 'node', 'pinned', 'foreignCores');
        show(row!);
      });
});
