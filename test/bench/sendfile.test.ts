import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import { ARMS } from './proof.ts';
import type { Row } from './result.ts';
import { bench } from './run_bench.ts';
import { formatArms } from './sendfile.ts';

const FIGURES = ['mbufs-per-mb', 'mix-mbufs-per-mb', 'cpu'];

/** Bytes that the CPU read for `why`. */
function readBytes({ path }: Row, why: string): number {
  const reads = path['payload_bytes_read'] as string[];
  const text = reads.find((read) => read.startsWith(`${why} `)) ?? '0 0';
  return Number(text.split(' ')[1]);
}

describe('bench: sendfile', () => {
  needs('root', 'netns', 'tap', 'curl', 'taskset', 'cc');

  it('prints every figure of every arm over both families, next to mb_use_ext_pgs=0, and the proof of its path', function () {
    this.timeout(240_000);
    const { status, stdout, stderr } = bench('sendfile', '--quick', '--json');
    expect(status, stderr).to.equal(0);
    const rows: Row[] = JSON.parse(stdout);

    const names = ['', '-ip6'].flatMap((ip6) =>
      ARMS.flatMap(({ name }) => FIGURES.map((figure) => `sendfile-${figure}-${name}${ip6}`)),
    );
    expect(rows.map(({ name }) => name)).to.deep.equal(names);
    for (const row of rows) {
      expect(row).to.include({ higherIsBetter: false, runs: 1 });
      expect(row.unit).to.equal(row.name.includes('-cpu-') ? 'CPU s/GB' : 'mbufs/MB');
      expect(row.baseline.name).to.equal('kern.ipc.mb_use_ext_pgs=0');
      for (const n of [row.value, row.ratio, row.cpuPerGB, row.baseline.value])
        expect(n, row.name).to.be.above(0);
      expect(row.spread).to.deep.equal([row.value, row.value]);
      expect(row.conditions).to.include.keys('kernel', 'cpu', 'node', 'workloads', 'seed', 'mtu');
      const six = row.name.endsWith('-ip6');
      expect(row.path['family']).to.equal(six ? 'IPv6' : 'IPv4');
      if (six) expect(row.cpuToIp4, row.name).to.be.above(0);
      else expect(row).to.not.have.any.keys('cpuToIp4', 'cpuToIp4Spread');
      const base = row.name.replace(/-ip6$/, '');
      const arm = ARMS.find(({ name }) => base.endsWith(`-${name}`))!;
      if (arm.name === 'no-ext-pgs') expect(row.ratio).to.equal(1);
      const bytes = Number(row.path['bytes']);
      expect(Number(row.path['conversions']) > 0, row.name).to.equal(arm.converts);
      expect(Number(row.path['sf_bufs']) >= bytes / 4096, row.name).to.equal(arm.maps);
      expect(readBytes(row, 'checksum') > bytes * 0.9, row.name).to.equal(arm.sums);
    }
    const table = formatArms(rows);
    for (const { label } of ARMS) expect(table).to.include(label);
    expect(table).to.include('mode wire, IPv6').and.include('IPv6 : IPv4');
  });
});
