import { expect } from 'chai';
import { full } from '../support/needs.ts';
import { PER_WORLD, runWorld } from './chaos.ts';

const WORLDS = (full ? 10_000 : 1000) / PER_WORLD;

describe('TCP in random worlds', () => {
  it(`delivers or resets ${WORLDS * PER_WORLD} connections, and none hangs`, function () {
    this.timeout(full ? 1_200_000 : 120_000);
    const only = process.env['TAPNIC_SEED'];
    const first = only === undefined ? 1 : Number(only);
    const last = only === undefined ? WORLDS : first;
    const wrong: string[] = [];
    let bytes = 0;
    let resets = 0;
    let frames = 0;
    for (let seed = first; seed <= last; seed++) {
      const r = runWorld(seed);
      if (r.wrong !== '') wrong.push(r.wrong);
      bytes += r.bytes;
      resets += r.resets;
      frames += r.frames;
    }
    expect(
      wrong.slice(0, 3).join('\n'),
      `${wrong.length} of ${last} worlds; TAPNIC_SEED=n`,
    ).to.equal('');
    if (only !== undefined) return;
    // The mix is useful only if most data arrives and some connections are reset.
    expect(bytes).to.be.above(WORLDS * PER_WORLD * 10_000);
    expect(resets).to.be.within(WORLDS * PER_WORLD * 0.02, WORLDS * PER_WORLD * 0.4);
    expect(frames).to.be.above(WORLDS * PER_WORLD * 30);
  });

  it('replays a world from its seed', () => {
    expect(runWorld(2)).to.deep.equal(runWorld(2));
  });
});
