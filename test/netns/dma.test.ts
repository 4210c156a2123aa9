/** A transfer with the IOMMU and the bus_dma checker, in memory that crosses 4 GiB. */

import { expect } from 'chai';
import { nicModels } from '../../src/machine/nic_models.ts';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { sha256, sha256File, Site } from '../support/served.ts';

const BYTES = 3_000_000;

describe('netns: --iommu --dma-check --phys-base', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(60_000);

  // The checker must accept the calls of each driver, and the IOMMU the accesses of each device.
  for (const { name, builds } of nicModels)
    it(`${name} serves a file without a DMA fault or a bus_dma violation`, async () => {
      using site = new Site();
      using ns = new Netns();
      const sum = sha256(site.file('file', BYTES));
      const args = [
        '--nic',
        name,
        '--iommu',
        '--dma-check',
        '--phys-base',
        '0xfff00000',
        '--memory',
        '64M',
      ];
      const tapnic = await Instance.start(ns, ['serve', site.dir, ...args]);
      expect(tapnic.ready.engine).to.equal('ts');
      const out = site.path('out');
      const got = await tapnic.curl('-o', out, tapnic.urlOf('file'));
      expect(got.status, got.stderr).to.equal(0);
      expect(await sha256File(out)).to.equal(sum);
      const value = async (leaf: string): Promise<string> =>
        (await tapnic.command('sysctl', '-n', leaf)).stdout.trim();
      expect(await value('hw.iommu.dma')).to.equal('1');
      if (name === 'tn') expect(Number(await value('hw.iommu.windows'))).to.be.above(256);
      expect(await value('hw.iommu.last_fault')).to.equal('');
      expect(await value('hw.busdma.check')).to.equal('1');
      expect(await value('hw.busdma.violation_report')).to.equal('');
      expect(await value('hw.busdma.violations')).to.equal('0');
      const refused = await tapnic.command('sysctl', 'hw.busdma.check=0');
      expect([refused.status, refused.stderr]).to.deep.equal([
        1,
        "tapnic: oid 'hw.busdma.check' is read only\n",
      ]);
      const { emulator } = await tapnic.json<{
        emulator: { dma: Record<string, number>; payload_bytes_read: Record<string, number> };
      }>('netstat', '-m');
      expect(emulator.dma['faults']).to.equal(0);
      // `tl` has 32 address bits, so memory above 4 GiB is bounced.
      expect(emulator.dma['bounced']! > 0, 'bounced').to.equal(name === 'tl');
      if (name === 'tn') expect(emulator.payload_bytes_read['copy']).to.equal(0);
      const exit = await tapnic.stop();
      expect([exit.code, exit.leaked]).to.deep.equal([0, {}]);
      const warnings = exit.stderr.split('\n').filter((line) => line.includes('--engine ts'));
      expect(warnings).to.have.lengthOf(builds.includes('native') ? 1 : 0);
      expect(exit.stderr).not.to.include('bus_dma');
    });
});
