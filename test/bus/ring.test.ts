import { expect } from 'chai';
import { Panic } from '../../src/sys/kassert.ts';
import { Ring } from '../../src/bus/ring.ts';

describe('Ring', () => {
  it('keeps one slot free, so that a full ring differs from an empty one', () => {
    const ring = new Ring(8);
    expect([ring.used, ring.free]).to.deep.equal([0, 7]);
    ring.produce(7);
    expect([ring.used, ring.free]).to.deep.equal([7, 0]);
    expect(() => ring.produce(1)).to.throw(Panic, 'overrun');
    ring.consume(7);
    expect(() => ring.consume(1)).to.throw(Panic, 'underrun');
  });

  it('works across the wrap of the counters at 2^32', () => {
    const ring = new Ring(8, 0xffff_fffe);
    expect(ring.slot(ring.prod)).to.equal(6);
    ring.produce(5);
    expect([ring.prod, ring.slot(ring.prod), ring.used, ring.free]).to.deep.equal([3, 3, 5, 2]);
    ring.consume(4);
    expect([ring.cons, ring.used]).to.deep.equal([2, 1]);
    ring.produce(6);
    expect(ring.free).to.equal(0);
  });

  it('panics unless the size is a power of two above 1', () => {
    expect(() => new Ring(6)).to.throw(Panic);
    expect(() => new Ring(1)).to.throw(Panic);
  });
});
