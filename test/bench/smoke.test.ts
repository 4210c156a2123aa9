import { expect } from 'chai';
import { nicModels } from '../../src/machine/nic_models.ts';
import { needs } from '../support/needs.ts';
import { formatRows, type Row } from './result.ts';
import { bench } from './run_bench.ts';

describe('bench', () => {
  it('exits with 2 for an unknown name, and without a name', () => {
    expect(bench('nonesuch')).to.include({ status: 2, stdout: '' });
    expect(bench()).to.include({ status: 2, stdout: '' });
  });
});

describe('bench: smoke', () => {
  needs('root', 'netns', 'tap', 'curl', 'taskset', 'cc');

  it('prints a figure, its baseline and the proof of its path for every build, mode and family', function () {
    this.timeout(240_000);
    const { status, stdout, stderr } = bench('smoke', '--quick', '--json');
    expect(status, stderr).to.equal(0);
    const rows: Row[] = JSON.parse(stdout);

    const builds = nicModels.find(({ name }) => name === 'tn')?.builds ?? [];
    const names = ['vnet', 'wire'].flatMap((mode) =>
      builds.flatMap((b) => [`smoke-${mode}-${b}`, `smoke-${mode}-${b}-ip6`]),
    );
    expect(rows.map(({ name }) => name)).to.deep.equal(names);
    for (const row of rows) {
      expect(row).to.include({ unit: 'Gbit/s', higherIsBetter: true, runs: 1 });
      for (const n of [row.value, row.ratio, row.cpuPerGB, row.cpuRatio, row.baseline.value])
        expect(n, row.name).to.be.above(0);
      expect(row.baseline.name).to.match(/^C sender/);
      expect(row.spread).to.deep.equal([row.value, row.value]);
      const [, mode, engine, ip6] = row.name.split('-');
      const six = ip6 === 'ip6';
      expect(row.path['family']).to.equal(six ? 'IPv6' : 'IPv4');
      expect(row.baseline.name.includes('IPv6')).to.equal(six);
      expect(row.path['familyBytes']).to.be.at.least(Number(row.path['bytes']));
      if (six) expect(row.cpuToIp4, row.name).to.be.above(0);
      else expect(row).to.not.have.any.keys('cpuToIp4', 'cpuToIp4Spread');
      expect(row.path).to.include({ mode, engine, napi: 'off', conversions: 0, sf_bufs: 0 });
      expect(row.path['payload_bytes_read'], row.name).to.satisfy((reads: string[]) =>
        reads.every((read) => read.startsWith('small ')),
      );
      const onTap = Number(row.path['bytesPerTapFrame']);
      if (mode === 'wire') expect(onTap).to.be.within(1000, 1514);
      else expect(onTap).to.be.above(3 * 1514);
      expect(row.conditions).to.include.keys('kernel', 'cpu', 'node', 'mtu', 'arena', 'fileBytes');
    }
    expect(formatRows(rows)).to.include('CPU IPv6 : IPv4').and.include('smoke-vnet-native-ip6');
  });
});
