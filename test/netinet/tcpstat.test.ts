/** How V8 stores the statistics of TCP. */

import { expect } from 'chai';
import { setFlagsFromString } from 'node:v8';
import { runInThisContext } from 'node:vm';
import { Tcpstat } from '../../src/netinet/tcp_var.ts';

/** Whether V8 stores both objects in the same way. */
function sameShape(a: object, b: object): boolean {
  setFlagsFromString('--allow-natives-syntax');
  try {
    const same: unknown = runInThisContext('(a, b) => %HaveSameMap(a, b)');
    return (same as (a: object, b: object) => boolean)(a, b);
  } finally {
    setFlagsFromString('--no-allow-natives-syntax');
  }
}

describe('tcp: statistics', () => {
  // Another shape would make V8 discard the compiled code of TCP when a counter exceeds 32 bits.
  it('keep their shape when any count of bytes exceeds 32 bits', () => {
    const names = Object.keys(new Tcpstat()).filter((name) => /bytes?(afterwin)?$/.test(name));
    expect(names.length).to.equal(10);
    for (const name of names as (keyof Tcpstat)[]) {
      const fresh = new Tcpstat();
      const used = new Tcpstat();
      used[name] = 2 ** 31;
      expect(sameShape(fresh, used), name).to.equal(true);
    }
  });
});
