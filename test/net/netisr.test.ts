/** Packets that the stack sends to itself do not keep a pass open without end. */

import { expect } from 'chai';
import { m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { soWrite } from '../../src/kern/sys_generic.ts';
import { SHUT_WR, soconnect, soshutdown } from '../../src/kern/uipc_socket.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { netisr_queue, netisr_register, netisrDrain } from '../../src/net/netisr.ts';
import { tcpstat } from '../../src/netinet/tcp_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { MS, SECOND, sin, TestHost } from '../netinet/tcp_host.ts';

const PROTO = 9;

describe('netisr', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  /** A protocol that sends each packet to itself again, at most `limit` times. */
  function circle(limit: number): { rounds: number } {
    const seen = { rounds: 0 };
    netisr_register(h.vnet, PROTO, (m: Mbuf, vnet: Vnet) => {
      if (++seen.rounds > limit) throw new Error('without end');
      expect(netisr_queue(vnet, PROTO, m)).to.equal(0);
    });
    return seen;
  }

  const start = (n: number): void =>
    inPass(() => {
      for (let i = 0; i < n; i++)
        expect(netisr_queue(h.vnet, PROTO, m_gethdr(M_NOWAIT, MT_DATA)!)).to.equal(0);
    });

  it('a pass ends although packets circulate, and they go on a tick later', () => {
    const seen = circle(50_000);
    start(3);
    const first = seen.rounds;
    expect(first).to.be.within(500, 1000);
    // Other passes meanwhile do not process them more often.
    start(1);
    expect(seen.rounds).to.equal(first);
    h.clock.advance(MS);
    expect(seen.rounds).to.be.within(first + 500, first + 1000);
    netisrDrain(h.vnet);
    h.clock.advance(SECOND);
    expect(seen.rounds).to.be.below(first + 1000);
    const before = seen.rounds;
    start(1);
    expect(seen.rounds, 'after it was drained').to.be.above(before);
  });

  it('a drained queue is empty: it takes as many packets as a new one', () => {
    circle(50_000);
    for (let i = 0; i < 3; i++) {
      start(200);
      netisrDrain(h.vnet);
    }
  });

  it('each end on lo0 has a FIN behind lost data: the retransmission ends the exchange of ACKs', () => {
    const head = h.listen(7);
    const a = h.socket();
    expect(soconnect(a, sin('127.0.0.1', 7))).to.equal(0);
    const b = h.accept(head);
    const text = (name: string): Buffer => Buffer.from(`data of ${name}`);
    inPass(() => {
      for (const [so, name] of [
        [a, 'a'],
        [b, 'b'],
      ] as const)
        expect(soWrite(so, text(name), 0, text(name).length, false)).to.equal(0);
      netisrDrain(h.vnet);
      for (const so of [a, b]) expect(soshutdown(so, SHUT_WR)).to.equal(0);
    });
    expect(tcpstat(h.vnet).tcps_sndtotal).to.be.above(100);
    expect([h.state(a), h.state(b)]).to.deep.equal(['FIN_WAIT_1', 'FIN_WAIT_1']);
    h.clock.advance(5 * SECOND);
    expect(h.read(b)).to.equal('data of a');
    expect(h.read(a)).to.equal('data of b');
    for (const so of [a, b]) h.closeSocket(so);
  });
});
