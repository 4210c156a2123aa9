import { expect } from 'chai';
import { m_freem, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { BufRing } from '../../src/net/buf_ring.ts';
import { bootMachine, expectMachineClean } from '../support/machine.ts';

describe('buf_ring', () => {
  const packet = (): Mbuf => m_gethdr(M_NOWAIT, MT_DATA)!;

  beforeEach(() => bootMachine());
  afterEach(() => expectMachineClean());

  it('is first in, first out across wraps, and refuses a packet when full', () => {
    const ring = new BufRing(3);
    expect([ring.peek(), ring.used]).to.deep.equal([null, 0]);
    for (let round = 0; round < 4; round++) {
      const ms = [packet(), packet(), packet()];
      expect(ms.map((m) => ring.enqueue(m))).to.deep.equal([true, true, true]);
      const over = packet();
      expect(ring.enqueue(over)).to.equal(false);
      m_freem(over);
      for (const m of ms.slice(0, 2)) {
        expect(ring.peek()).to.equal(m);
        ring.advance();
        m_freem(m);
      }
      expect([ring.peek(), ring.used]).to.deep.equal([ms[2], 1]);
      ring.flush();
      expect([ring.peek(), ring.used]).to.deep.equal([null, 0]);
    }
  });

  it('putback replaces the head of the ring', () => {
    const ring = new BufRing(2);
    const [a, b, c] = [packet(), packet(), packet()];
    ring.enqueue(a);
    ring.enqueue(b);
    m_freem(a);
    ring.putback(c);
    expect(ring.peek()).to.equal(c);
    expect(ring.used).to.equal(2);
    ring.advance();
    m_freem(c);
    expect(ring.peek()).to.equal(b);
    ring.flush();
  });
});
