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

  it('ping -R shows our address, and ping -T the times, of the emulated host', async () => {
    using site = new Site();
    await withServed(site, [], async (tapnic) => {
      const { addr } = tapnic.ready;
      const peer = '192.0.2.1';
      const ping = (...args: string[]): Promise<{ stdout: string }> =>
        tapnic.ns.run('ping', ['-n', '-c', '1', '-W', '10', ...args, addr]);
      const rr = (await ping('-R')).stdout;
      const hops = rr.slice(rr.indexOf('RR:')).split(/\s+/).slice(1);
      // Linux records itself on the way out, we on arrival, Linux again at the end.
      expect(hops.slice(0, 3), rr).to.deep.equal([peer, addr, peer]);
      const both = (await ping('-T', 'tsandaddr')).stdout;
      expect(both).to.match(new RegExp(`TS:\\s+${peer}\\s.*\\n\\s+${addr}\\s`));
      const only = (await ping('-T', 'tsonly')).stdout;
      expect(only).to.match(/TS:/);
      expect((await ping('-T', 'tsprespec', addr)).stdout).to.match(new RegExp(`${addr}\\s`));
    });
  });
});
