/** A SYN flood from unused addresses, and a client that is served during the flood. */

import { expect } from 'chai';
import { join } from 'node:path';
import type { SysctlLeaf } from '../../src/ctl/sysctl.ts';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import type { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';
import { sha256File, Site, withServed } from '../support/served.ts';

const SYNS = full ? 100_000 : 20_000;
/** SYNs per second of the sender; each round sends a quarter of SYNS. */
const PER_SECOND = 20_000;
const ROUNDS_MAX = 40;
const script = join(packageRoot(), 'test/tcpreal/synflood.py');

describe('tcpreal: SYN flood', function () {
  needs('root', 'tap', 'netns', 'curl', '/usr/bin/python3');
  this.timeout(full ? 180_000 : 60_000);

  const counters = async (tapnic: Instance): Promise<Record<string, number>> =>
    (await tapnic.json<NetstatS>('netstat', '-s')).protocols['tcp'] as Record<string, number>;
  const value = async (tapnic: Instance, name: string): Promise<number> =>
    Number((await tapnic.json<SysctlLeaf[]>('sysctl', `net.inet.tcp.${name}`))[0]!.value);

  it(`${SYNS} spoofed SYNs: files still arrive, cookies are used, and the syncache stays bounded`, async () => {
    using site = new Site();
    site.file('f', 300_000);
    const sum = await sha256File(site.path('f'));
    await withServed(site, [], async (tapnic) => {
      const fetchOne = async (): Promise<void> => {
        const { status, stderr } = await tapnic.curl('-o', site.path('out'), tapnic.urlOf('f'));
        expect(status, stderr).to.equal(0);
        expect(await sha256File(site.path('out'))).to.equal(sum);
      };
      const taken = async (): Promise<number> => (await counters(tapnic))['tcps_sc_added']!;

      // Linux drops SYNs that do not fit the TAP's queue; further rounds make up for them.
      const flood = (count: number, seed: number): Promise<string> => {
        const args = [count, PER_SECOND, seed].map(String);
        return tapnic.ns.execAsync('/usr/bin/python3', [script, '192.0.2.2', '80', ...args]);
      };
      const state = { flooding: true };
      const floods = async (): Promise<number> => {
        const begin = performance.now();
        for (let round = 1; round <= ROUNDS_MAX && (await taken()) < SYNS; round++)
          await flood(SYNS / 4, round);
        return (performance.now() - begin) / 1000;
      };
      const flooded = floods().finally(() => (state.flooding = false));
      let fetched = 0;
      for (; state.flooding; fetched++) await fetchOne();
      const seconds = await flooded;

      const count = await value(tapnic, 'syncache.count');
      const [cachelimit, bucketlimit, hashsize] = await Promise.all(
        ['cachelimit', 'bucketlimit', 'hashsize'].map((name) => value(tapnic, `syncache.${name}`)),
      );
      expect(count).to.be.within(1000, Math.min(cachelimit!, bucketlimit! * hashsize!));
      const tcp = await counters(tapnic);
      const { tcps_sc_added: added, tcps_sc_bucketoverflow: overflowed } = tcp;
      expect(added).to.be.at.least(SYNS);
      expect(tcp['tcps_sc_sendcookie']).to.be.at.least(added!);
      expect(overflowed).to.be.above(0);
      const rate = (added! / seconds).toFixed(0);
      console.log(`      ${added} SYNs, ${rate}/s, ${count} kept, ${fetched} files meanwhile`);

      // First with a full syncache, then without a syncache.
      await fetchOne();
      expect((await tapnic.command('sysctl', 'net.inet.tcp.syncookies_only=1')).status).to.equal(0);
      await fetchOne();
      expect((await counters(tapnic))['tcps_sc_recvcookie']).to.be.at.least(1);
    });
  });
});
