/** The neighbour cache and default routers: floods, garbage collection, unreachable routers. */

import { expect } from 'chai';
import type { Llentry } from '../../src/net/if_llatbl.ts';
import { fib6_lookup } from '../../src/netinet6/in6_fib.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { nd6Table } from '../../src/netinet6/nd6.ts';
import { ND6_LLINFO_STALE, V_nd6 } from '../../src/netinet6/nd6_var.ts';
import { ip6_sprintf, parseIn6Zone } from '../../src/netinet6/scope6.ts';
import { OUR_MAC, PEER_MAC } from '../netinet/rig.ts';
import { buildEther } from '../support/frames.ts';
import { ETHERTYPE_IPV6 } from '../support/six.ts';
import { lla, SLLA, solicit } from './nd6_messages.ts';
import { AUTO, R1, R2, RaRig } from './rig_ra.ts';

describe('the neighbour entry of a default router', () => {
  let h: RaRig;
  beforeEach(() => {
    h = new RaRig();
  });
  afterEach(() => h.close());

  const entry = (text: string): Llentry | null =>
    nd6Table(h.ifp)!.find(parseIn6Zone(h.vnet, `${text}%tn0`)!);
  const gateway = (): string =>
    ip6_sprintf(h.vnet, fib6_lookup(h.vnet, parseIn6('2001:db8:9::9')!)!.nh_gateway);

  it('stays in a table that a flood has filled', () => {
    h.ra({ lifetime: 9000 });
    h.settle();
    for (let i = 0; i < 17_000; i++) {
      const src = `2001:db8:1::1:${(i >>> 12).toString(16)}:${(i & 0xfff).toString(16)}`;
      const packet = solicit({ src, dst: AUTO }, AUTO, lla(SLLA, PEER_MAC));
      h.inject(buildEther({ dst: OUR_MAC, src: PEER_MAC }, ETHERTYPE_IPV6, packet));
      h.sent.length = 0;
      h.chains.length = 0;
    }
    expect(nd6Table(h.ifp)!.table.size).to.equal(16_384);
    expect(entry(R1)).to.not.equal(null);
    expect(gateway()).to.equal(`${R1}%tn0`);
  }).timeout(60_000);

  it('is not collected while the router is valid', () => {
    V_nd6(h.vnet).params.nd6_gctimer = 10;
    h.ra({ lifetime: 9000 });
    h.advance(100_000);
    expect(entry(R1)!.ln_state).to.equal(ND6_LLINFO_STALE);
    h.advance(9_000_000);
    expect(entry(R1)).to.equal(null);
  });

  it('and the default route last up to nd6_prune seconds longer than the router', () => {
    V_nd6(h.vnet).params.nd6_prune = 1000;
    h.ra({ lifetime: 30 });
    h.advance(31_000);
    expect(gateway()).to.equal(`${R1}%tn0`);
    h.advance(1_000_000);
    expect(fib6_lookup(h.vnet, parseIn6('2001:db8:9::9')!)).to.equal(null);
  });

  it('ends when the router does not answer, and another router is used', () => {
    h.ra({ lifetime: 9000 });
    h.ra({ src: R2, lifetime: 9000 });
    expect(gateway()).to.equal(`${R1}%tn0`);
    nd6Table(h.ifp)!.setState(entry(R1)!, 3);
    // A delay of 5 s and three probes.
    h.advance(8001);
    expect([entry(R1), gateway()]).to.deep.equal([null, `${R2}%tn0`]);
  });
});
