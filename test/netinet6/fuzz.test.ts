/** Random damage to valid packets: no panic, no leak, bounded tables, and an answer afterwards. */

import { expect } from 'chai';
import { below, SeededPrng } from '../../src/host/prng.ts';
import { V_frag6 } from '../../src/netinet6/frag6.ts';
import { nd6Table } from '../../src/netinet6/nd6.ts';
import { buildIcmp6, buildIp6, buildUdp6, ip6 } from '../support/six.ts';
import { PEER6, PEER_LL, Rig6, TO_US, US6, US_LL } from './rig6.ts';

const ALL_NODES_MAC = '33:33:00:00:00:01';
const pad = [1, 4, 0, 0, 0, 0];
const lladdr = [1, 1, 2, 0, 0, 0, 0, 9];

/** Valid packets of each kind. */
const SEEDS: Uint8Array[] = [
  buildIcmp6(TO_US, [128, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3]),
  buildIcmp6({ src: PEER_LL, dst: US_LL, hlim: 255 }, [
    135,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    ...ip6(US6),
    ...lladdr,
  ]),
  buildIcmp6({ src: PEER_LL, dst: US_LL, hlim: 255 }, [
    136,
    0,
    0,
    0,
    0x60,
    0,
    0,
    0,
    ...ip6(PEER6),
    ...lladdr,
  ]),
  buildIcmp6(TO_US, [
    1,
    4,
    0,
    0,
    0,
    0,
    0,
    0,
    ...buildUdp6({ src: US6, dst: PEER6 }, 53, 9, [1, 2]),
  ]),
  buildIcmp6(TO_US, [
    2,
    0,
    0,
    0,
    0,
    0,
    5,
    0,
    ...buildUdp6({ src: US6, dst: PEER6 }, 53, 9, [1, 2]),
  ]),
  buildUdp6(TO_US, 9, 53, [1, 2, 3]),
  buildIp6(TO_US, 6, [0, 9, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 9, 9, 0, 0, 0, 0]),
  buildIp6(TO_US, 0, [
    60,
    0,
    5,
    2,
    0,
    0,
    1,
    0,
    43,
    0,
    ...pad,
    44,
    0,
    4,
    0,
    0,
    0,
    0,
    0,
    17,
    0,
    0,
    1,
    0,
    0,
    0,
    9,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
  ]),
  buildIp6(TO_US, 44, [17, 0, 0, 8, 0, 0, 0, 9, 2, 2, 2]),
  buildIp6(
    { src: PEER6, dst: 'ff02::1' },
    60,
    [58, 0, 0x9e, 4, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0],
  ),
];

describe('netinet6: damaged packets', () => {
  it('never stop the stack', () => {
    const h = new Rig6();
    const prng = new SeededPrng(6);
    const pick = (n: number): number => below(prng, n);
    h.udp6(53);
    for (let i = 0; i < 20_000; i++) {
      const packet = Uint8Array.from(SEEDS[pick(SEEDS.length)]!);
      for (let n = pick(4); n > 0; n--) {
        // Most damage to the headers, and to bytes that decide.
        const at = pick(3) === 0 ? pick(packet.length) : Math.min(40 + pick(24), packet.length - 1);
        packet[at] = [0, 1, 0xff, 6, 17, 43, 44, 58, 59, 60, pick(256)][pick(11)]!;
      }
      const cut = pick(5) === 0 ? packet.subarray(0, pick(packet.length + 1)) : packet;
      h.inject6(cut, pick(4) === 0 ? ALL_NODES_MAC : undefined, pick(3) === 0 ? 1 + pick(60) : 0);
      if (i % 1000 === 999) {
        h.sent.length = 0;
        h.chains.length = 0;
        h.advance(2000);
      }
    }
    expect(V_frag6(h.vnet).frags).to.be.at.most(V_frag6(h.vnet).maxfrags);
    expect(nd6Table(h.ifp)!.table.size).to.be.below(1000);
    h.sent.length = 0;
    h.inject6(buildIcmp6(TO_US, [128, 0, 0, 0, 0, 1, 0, 1]));
    expect(h.take6().some(({ body }) => body[0] === 129)).to.equal(true);
    h.close();
  }).timeout(60_000);
});
