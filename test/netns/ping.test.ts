/** The emulated host answers the real ping. */

import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import { Site, withServed } from '../support/served.ts';

describe('netns: ping', function () {
  needs('root', 'tap', 'netns', 'ping');
  this.timeout(60_000);

  it('answers every size from 0 to 1472, and fragments above', async () => {
    using site = new Site();
    await withServed(site, ['--sysctl', 'net.inet.icmp.icmplim=0'], async (tapnic) => {
      const ping = (size: number, count: number): string =>
        tapnic.ns.exec('ping', [
          '-c',
          String(count),
          '-i',
          '0.005',
          '-W',
          '2',
          '-s',
          String(size),
          tapnic.ready.addr,
        ]);
      for (const size of [
        0, 1, 7, 8, 55, 56, 100, 167, 168, 169, 1000, 1471, 1472, 1473, 4000, 23672,
      ])
        expect(ping(size, 3), `size ${size}`).to.match(/3 received, 0% packet loss/);
      expect(ping(65507, 1), 'the largest').to.match(/1 received, 0% packet loss/);
      expect(ping(56, 200)).to.match(/200 received, 0% packet loss/);
    });
  });
});
