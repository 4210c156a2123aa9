/** Answers for other hosts: `ndp -s … proxy`. */

import { expect } from 'chai';
import { formatNdp } from '../../src/ctl/ndp_text.ts';
import { runNdp } from '../../src/ctl/ndp.ts';
import { inPass } from '../../src/sys/pass.ts';
import { PEER_MAC } from '../netinet/rig.ts';
import { mac } from '../support/frames.ts';
import { ip6, type Packet6 } from '../support/six.ts';
import { ADVERT, lla, SLLA, solicit, solicitedNode, TLLA } from './nd6_messages.ts';
import { PEER6, Rig6 } from './rig6.ts';

const OTHER = '2001:db8::aa:bbcc';
const TO_OTHER = '33:33:ff:aa:bb:cc';
const ETHER = '02:00:00:00:00:77';

describe('a proxy of neighbour discovery', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6();
    h.advance(3000);
    h.take6();
  });
  afterEach(() => h.close());

  const ndp = (words: string): string => formatNdp(inPass(runNdp, h.vnet, words.split(' ')));
  const ask = (src = PEER6): Packet6[] => {
    const options = src === '::' ? [] : lla(SLLA, PEER_MAC);
    h.inject6(solicit({ src, dst: solicitedNode(OTHER) }, OTHER, options), TO_OTHER);
    return h.take6();
  };

  it('answers solicitations for the address with its Ethernet address, without the flag O', () => {
    expect(ask()).to.deep.equal([]);
    ndp(`-s ${OTHER} ${ETHER} proxy`);
    const [na, ...more] = ask();
    expect(more).to.deep.equal([]);
    expect(na!.dst).to.deep.equal(ip6(PEER6));
    expect([...na!.body.subarray(0, 2), ...na!.body.subarray(4)]).to.deep.equal([
      ADVERT,
      0,
      0x40,
      0,
      0,
      0,
      ...ip6(OTHER),
      ...lla(TLLA, ETHER),
    ]);
    expect(mac(ETHER)).to.deep.equal([...na!.body.subarray(26)]);
    // Duplicate address detection of another host.
    expect(ask('::').map(({ dst, body }) => [dst, body[4]])).to.deep.equal([[ip6('ff02::1'), 0]]);
  });

  it('is marked in ndp -a, and ends with the entry', () => {
    ndp(`-s ${OTHER} ${ETHER} proxy`);
    expect(ndp(OTHER)).to.match(/02:00:00:00:00:77 +tn0 +permanent R p$/m);
    ndp(`-s ${OTHER} ${ETHER}`);
    expect(ask(), 'replaced by one without proxy').to.deep.equal([]);
    ndp(`-s ${OTHER} ${ETHER} proxy`);
    expect(ask()).to.have.lengthOf(1);
    ndp(`-d ${OTHER}`);
    expect(ask()).to.deep.equal([]);
  });
});
