/** TCP's and IP's work records belong to one call at a time. */

import { expect } from 'chai';
import { ioResult, soWrite } from '../../src/kern/sys_generic.ts';
import { tcp_output } from '../../src/netinet/tcp_output.ts';
import { intotcpcb } from '../../src/netinet/tcp_subr.ts';
import type { Inpcb } from '../../src/netinet/in_pcb.ts';
import { TestHost } from './tcp_host.ts';

describe('tcp_output entered from itself', () => {
  it('panics, and works again afterwards', () => {
    const h = new TestHost();
    const c = h.establish();
    const tp = intotcpcb(c.so.so_pcb as Inpcb);
    const output = h.ifp.if_output!;
    let nested = 0;
    h.ifp.if_output = (ifp, m, dst) => {
      nested++;
      expect(() => tcp_output(tp)).to.throw('the record is in use');
      return output(ifp, m, dst);
    };

    expect(soWrite(c.so, Buffer.from('one'), 0, 3, false)).to.equal(0);
    expect([nested, ioResult.n]).to.deep.equal([1, 3]);
    h.ifp.if_output = output;
    const sent = (): string =>
      h
        .take()
        .map((f) => Buffer.from(f.ip!.tcp!.payload).toString())
        .join('');
    expect(sent()).to.equal('one');

    expect(soWrite(c.so, Buffer.from('two'), 0, 3, false)).to.equal(0);
    h.clock.advance(1e9);
    expect(sent(), 'sent again, all of it').to.match(/one.*two/);
    h.close();
  });
});
