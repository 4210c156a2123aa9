/** Compares PageIndex, the map from file pages to frames, with a Map. */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { PageIndex } from '../../src/vm/page_index.ts';
import { NOPAGE } from '../../src/vm/vm_page.ts';

describe('PageIndex', () => {
  it('equals a Map after any sequence of additions and removals', () => {
    // Indexes around the ends of blocks of 256 pages, and large ones: 2^40 pages are 4 PiB.
    const pindex = fc.oneof(
      fc.integer({ min: 0, max: 8 }),
      fc.integer({ min: 250, max: 262 }),
      fc.integer({ min: 2 ** 40 - 3, max: 2 ** 40 }),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(pindex, fc.boolean()), { maxLength: 60 }), (steps) => {
        const index = new PageIndex();
        const model = new Map<number, number>();
        let next = 1;
        for (const [at, add] of steps) {
          if (add && !model.has(at)) {
            model.set(at, next);
            index.add(at, next++);
          } else if (!add && model.has(at)) {
            model.delete(at);
            index.remove(at);
          }
          expect(index.size).to.equal(model.size);
          for (const [p] of steps) expect(index.get(p)).to.equal(model.get(p) ?? NOPAGE);
        }
        const drained: number[] = [];
        index.drain((page) => drained.push(page));
        expect(drained.sort((a, b) => a - b)).to.deep.equal(
          [...model.values()].sort((a, b) => a - b),
        );
        expect(index.size).to.equal(0);
        for (const [p] of steps) expect(index.get(p)).to.equal(NOPAGE);
      }),
    );
  });
});
