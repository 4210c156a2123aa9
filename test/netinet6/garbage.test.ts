/** Packets over IPv6 allocate no garbage, sent or received. */

import { expect } from 'chai';
import { m_freem, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { CSUM_TCP_IPV6, CSUM_UDP_IPV6, type Mbuf, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { sbdroprecord } from '../../src/kern/uipc_dgram.ts';
import { soconnect } from '../../src/kern/uipc_socket.ts';
import type { Inpcb } from '../../src/netinet/in_pcb.ts';
import { inet6Af } from '../../src/netinet6/inp_inet6.ts';
import { ip6_input } from '../../src/netinet6/ip6_input.ts';
import { mem } from '../../src/vm/arena.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { buildIp6, buildUdp6 } from '../support/six.ts';
import { sin6 } from './pair.ts';
import { PEER6, Rig6, TO_US, US6 } from './rig6.ts';

describe('netinet6: garbage per packet', function () {
  this.timeout(60_000);
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6({ hwassist: CSUM_UDP_IPV6 | CSUM_TCP_IPV6 });
    h.if_transmit = (_ifp, m): number => {
      m_freem(m);
      return 0;
    };
  });
  afterEach(() => h.close());

  const mbuf = (bytes: Uint8Array): Mbuf => {
    const m = m_gethdr(M_NOWAIT, MT_DATA)!;
    m.m_data += 48;
    mem.set(bytes, m.m_data);
    m.m_len = m.m_pkthdr.len = bytes.length;
    m.m_pkthdr.rcvif = h.ifp;
    return m;
  };

  it('datagrams sent and received', () => {
    const so = h.udp6(53);
    const data = Uint8Array.from({ length: 32 }, (_, i) => i);
    const make = (): Mbuf => {
      const m = mbuf(data);
      m.m_data += 16;
      return m;
    };
    const own = bytesPerCall(() => m_freem(make()));
    const nam = sin6(PEER6, 5000);
    const sent = (to: typeof nam | null): number =>
      bytesPerCall(() => so.so_proto.pr_send(so, 0, make(), to)) - own;
    expect(sent(nam), 'sent to an address').to.be.below(8);
    const packet = buildUdp6(TO_US, 5000, 53, data);
    const received = (): void => {
      ip6_input(mbuf(packet), h.vnet);
      sbdroprecord(so.so_rcv);
    };
    expect(bytesPerCall(received) - own, 'received').to.be.below(8);
    expect(soconnect(so, nam)).to.equal(0);
    expect(sent(null), 'sent on a connected socket').to.be.below(8);
    expect(h.stat6.ip6s_localout).to.be.above(200_000);
  });

  it('segments that TCP passes down', () => {
    const so = h.udp6(80);
    const inp = so.so_pcb as Inpcb;
    const tcp = [0, 80, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 16, 9, 9, 0, 0, 0, 0];
    const packet = buildIp6({ src: US6, dst: PEER6 }, 6, tcp);
    const own = bytesPerCall(() => m_freem(mbuf(packet)));
    const sent = (): void => {
      const m = mbuf(packet);
      m.m_pkthdr.csum_flags = CSUM_TCP_IPV6;
      m.m_pkthdr.csum_data = 16;
      inet6Af.output(m, inp, h.vnet);
    };
    expect(bytesPerCall(sent) - own).to.be.below(8);
    expect(h.stat6.ip6s_noroute + h.stat6.ip6s_badscope).to.equal(0);
  });
});
