import { expect } from 'chai';
import { full } from '../support/needs.ts';
import { PER_WORLD, runWorld } from './chaos.ts';

const CONNECTIONS = full ? 10_000 : 1000;
/** IPv6 has fewer worlds at CI size. */
const FAMILIES = [
  { six: false, title: 'IPv4', connections: CONNECTIONS },
  { six: true, title: 'IPv6', connections: full ? CONNECTIONS : CONNECTIONS / 2 },
];

describe('TCP in random worlds', () => {
  for (const { six, title, connections } of FAMILIES)
    it(`delivers or resets ${connections} connections, and none hangs, ${title}`, function () {
      const worlds = connections / PER_WORLD;
      this.timeout(full ? 1_200_000 : 120_000);
      const only = process.env['TAPNIC_SEED'];
      const first = only === undefined ? 1 : Number(only);
      const last = only === undefined ? worlds : first;
      const wrong: string[] = [];
      let bytes = 0;
      let resets = 0;
      let unreached = 0;
      let frames = 0;
      for (let seed = first; seed <= last; seed++) {
        const r = runWorld(seed, six);
        if (r.wrong !== '') wrong.push(r.wrong);
        bytes += r.bytes;
        resets += r.resets;
        unreached += r.unreached;
        frames += r.frames;
      }
      expect(
        wrong.slice(0, 3).join('\n'),
        `${wrong.length} of ${last} worlds; TAPNIC_SEED=n`,
      ).to.equal('');
      if (only !== undefined) return;
      // The mix is useful only if most data arrives and some connections are reset.
      expect(bytes).to.be.above(connections * 10_000);
      expect(resets).to.be.within(connections * 0.02, connections * 0.4);
      expect(unreached).to.be.at.most(six ? connections * 0.005 : 0);
      expect(frames).to.be.above(connections * 30);
    });

  it('replays a world from its seed', () => {
    for (const six of [false, true]) expect(runWorld(2, six)).to.deep.equal(runWorld(2, six));
  });
});
