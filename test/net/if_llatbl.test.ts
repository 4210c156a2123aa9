import { expect } from 'chai';
import { Ifnet } from '../../src/net/if_var.ts';
import { Llentry, Lltable } from '../../src/net/if_llatbl.ts';
import { NetAddr } from '../../src/sys/addr.ts';
import { testVnet } from '../kern/testproto.ts';
import { bootMachine } from '../support/machine.ts';

describe('neighbour tables', () => {
  // One step of w3 and its multiple in w0 cancel out, so that all of these have one hash.
  const colliding = (n: number): NetAddr => {
    const a = new NetAddr();
    a.set(Math.imul(n, 0xc2b2ae35), 0, 0, n);
    return a;
  };

  it('tell addresses of one hash apart, whichever goes first', () => {
    bootMachine();
    const table = new Lltable(new Ifnet(testVnet(), 'tn0'));
    const owner = { lleTimeout(): void {} };
    for (const gone of [0, 1, 2]) {
      const entries = [1, 2, 3].map((n) => new Llentry(table.llt_ifp, colliding(n), owner));
      for (const lle of entries) table.insert(lle);
      expect(table.size).to.equal(3);
      expect(table.list()).to.have.members(entries);
      expect(table.find(colliding(4))).to.equal(null);
      table.remove(entries[gone]!);
      expect(table.size).to.equal(2);
      for (const [i, lle] of entries.entries())
        expect(table.find(lle.r_l3addr), `${gone} ${i}`).to.equal(i === gone ? null : lle);
      table.remove(entries[gone]!); // a second time changes nothing
      expect(table.size).to.equal(2);
      for (const lle of table.list()) table.remove(lle);
      expect([table.size, table.list()]).to.deep.equal([0, []]);
    }
  });

  it('copy the address they are given', () => {
    bootMachine();
    const a = colliding(1);
    const lle = new Llentry(new Ifnet(testVnet(), 'tn0'), a, { lleTimeout(): void {} });
    a.set(9);
    expect(lle.r_l3addr).to.deep.equal(colliding(1));
  });
});
