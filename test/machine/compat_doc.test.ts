/** Checks that docs/compat.md lists every sysctl that can be set. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { SimPager } from '../../src/host/sim_pager.ts';
import { readSysctl } from '../../src/ctl/sysctl.ts';
import { Machine } from '../../src/machine/machine.ts';
import { arenaBytes } from '../../src/vm/arena.ts';
import { packageRoot } from '../support/root.ts';

const MEMORY = 32 << 20;

describe('machine: docs/compat.md', () => {
  it('lists every sysctl that can be set', () => {
    const arena = new ArrayBuffer(arenaBytes(MEMORY));
    const clock = new ManualClock();
    const { vnet } = new Machine({
      memory: MEMORY,
      seed: 1,
      clock,
      prng: new SeededPrng(1),
      pager: new SimPager({ arena, clock, prng: new SeededPrng(2) }),
      cksum: new TsCksum(arena),
      arena,
    });
    const text = readFileSync(join(packageRoot(), 'docs/compat.md'), 'utf8');
    // A row may omit a prefix that its section or the previous name gives: `cc.abe`, `beta_ecn`.
    const words = new Set(
      [...text.matchAll(/`([a-z0-9_.]+)`/g)].map(([, name]) => name!.split('.').at(-1)),
    );
    const settable = readSysctl(vnet, '').filter(({ writable }) => writable);
    expect(settable.length).to.be.above(100);
    const left = settable.filter(({ name }) => !words.has(name.split('.').at(-1)));
    expect(left.map(({ name }) => name)).to.deep.equal([]);
  });
});
