/** ndp(8) with what routers advertise. */

import { expect } from 'chai';
import { type NdpIfinfo, runNdp } from '../../src/ctl/ndp.ts';
import { formatNdp } from '../../src/ctl/ndp_text.ts';
import { in6addr_any } from '../../src/netinet6/in6.ts';
import { in6RouteDel } from '../../src/netinet6/in6_fib.ts';
import { inPass } from '../../src/sys/pass.ts';
import { dnsslOption, FOREVER, R1, RaRig, rdnssOption } from '../netinet6/rig_ra.ts';

describe('ndp', () => {
  let h: RaRig;
  beforeEach(() => {
    h = new RaRig();
  });
  afterEach(() => h.close());

  it('-i: parameters of the link, DNS servers and search domains of routers', () => {
    const options = [rdnssOption(60, '2001:db8::53'), dnsslOption(FOREVER, 'lab.example')];
    h.ra({ hlim: 100, retrans: 1500, reachable: 20_000, options });
    h.seconds(10);
    const answer = inPass(runNdp, h.vnet, ['-i', 'tn0']);
    const router = 'fe80::1%tn0';
    const { info } = answer as { info: NdpIfinfo };
    expect(info).to.include({ curhlim: 100, retrans: 1500, basereachable: 20_000 });
    expect(info.rdnss).to.deep.equal([{ addr: '2001:db8::53', router, expires: 50 }]);
    expect(info.dnssl).to.deep.equal([{ domain: 'lab.example', router, expires: null }]);
    expect(formatNdp(answer).split('\n').slice(1)).to.deep.equal([
      'Flags: nud accept_rtadv auto_linklocal ',
      'rdnss 2001:db8::53 from fe80::1%tn0, expire=50s',
      'dnssl lab.example from fe80::1%tn0, expire=Never',
      '',
    ]);
  });

  it('-H: installs the default route again that the user has removed', () => {
    h.ra();
    expect(in6RouteDel(h.vnet, in6addr_any, 0)).to.equal(0);
    expect(h.gateway).to.equal(null);
    inPass(runNdp, h.vnet, ['-H']);
    expect(h.gateway).to.equal(R1);
  });
});
