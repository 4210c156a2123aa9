/** The emulated host answers the real ping. */

import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import { Site, withServed } from '../support/served.ts';
import { pinged } from '../support/ping.ts';

describe('netns: ping', function () {
  needs('root', 'tap', 'netns', 'ping');
  this.timeout(60_000);

  it('answers sizes from 0 to 1472 in one frame, and larger ones in fragments', async () => {
    using site = new Site();
    await withServed(site, ['--sysctl', 'net.inet.icmp.icmplim=0'], async (tapnic) => {
      const ping = (size: number, count: number): Promise<number> =>
        pinged(tapnic.ns, tapnic.ready.addr, count, size);
      for (const size of [
        0, 1, 7, 8, 55, 56, 100, 167, 168, 169, 1000, 1471, 1472, 1473, 4000, 23672,
      ])
        expect(await ping(size, 3), `size ${size}`).to.equal(3);
      expect(await ping(65507, 1), 'the largest').to.equal(1);
      expect(await ping(56, 200)).to.equal(200);
    });
  });
});
