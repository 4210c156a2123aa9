import { expect } from 'chai';
import { InConninfo } from '../../src/netinet/in_pcb.ts';
import {
  siphash24,
  siphashHigh,
  tcp_new_isn,
  tcp_new_ts_offset,
} from '../../src/netinet/tcp_isn.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { port } from '../../src/sys/types.ts';
import { addr } from './rig.ts';
import { TestHost } from './tcp_host.ts';

describe('tcp: initial sequence numbers', () => {
  // Vectors of the reference implementation: key 00 01 … 0f, input 00 01 … of each length.
  const key = Uint32Array.from([0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c]);
  const input = Uint8Array.from({ length: 64 }, (_, i) => i);
  const vectors: [number, number, number][] = [
    [0, 0x726fdb47, 0xdd0e0e31],
    [1, 0x74f839c5, 0x93dc67fd],
    [7, 0xab0200f5, 0x8b01d137],
    [8, 0x93f5f579, 0x9a932462],
    [15, 0xa129ca61, 0x49be45e5],
    [16, 0x3f2acc7f, 0x57c29bdb],
    [63, 0x958a324c, 0xeb064572],
  ];
  for (const [len, high, low] of vectors) {
    it(`SipHash-2-4 of ${len} bytes`, () => {
      expect(siphash24(key, input, len)).to.equal(low);
      expect(siphashHigh()).to.equal(high);
    });
  }

  // RFC 6528, 3.
  it('differ between connections and increase with the clock', () => {
    const h = new TestHost();
    const tcp = V_tcp(h.vnet);
    const inc = new InConninfo();
    inc.setLaddr(addr('192.0.2.2'));
    inc.setFaddr(addr('192.0.2.1'));
    inc.inc_lport = port(1);
    inc.inc_fport = port(2);
    const first = tcp_new_isn(tcp, inc);
    h.advance(1);
    expect((tcp_new_isn(tcp, inc) - first) | 0, 'one step per 4 us').to.equal(250);
    const isns = new Set<number>();
    for (let i = 0; i < 1000; i++) {
      inc.inc_fport = port(1000 + i);
      isns.add(tcp_new_isn(tcp, inc) >>> 16);
      tcp_new_ts_offset(tcp, inc);
    }
    expect(isns.size).to.be.above(950);
    h.close();
  });
});
