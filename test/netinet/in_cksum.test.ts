import { expect } from 'chai';
import * as fc from 'fast-check';
import { m_freem, m_get } from '../../src/kern/kern_mbuf.ts';
import { CSUM_TCP, CSUM_UDP, type Mbuf, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import {
  in_cksum,
  in_cksum_hdr,
  in_cksum_skip,
  in_delayed_cksum,
  in_pseudo,
} from '../../src/netinet/in_cksum.ts';
import { inAddr } from '../../src/sys/types.ts';
import { mem } from '../../src/vm/arena.ts';
import { payloadBytesRead, READ_CHECKSUM, READ_COPY } from '../../src/vm/payload.ts';
import { Chain, chainArb, chainBytes, MAPPED, pgsMbuf, sfbufMbuf } from '../kern/chains.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { buildTcp, buildUdp, naiveSum } from '../support/frames.ts';
import { bootMachine, expectMachineClean } from '../support/machine.ts';
import { outPacket } from './rig.ts';

/** A chain of plain mbufs with the lengths `lens`, filled with `bytes`. */
function split(bytes: number[], lens: number[]): Mbuf {
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  for (let at = 0; at < bytes.length || top === null;) {
    const m = m_get(M_NOWAIT, MT_DATA)!;
    m.m_len = Math.min(lens.shift() ?? bytes.length, bytes.length - at, 224);
    // Start some mbufs at an odd address.
    if (m.m_len < 224 && lens.length % 2 === 1) m.m_data++;
    mem.set(bytes.slice(at, at + m.m_len), m.m_data);
    at += m.m_len;
    if (tail === null) top = m;
    else tail.m_next = m;
    tail = m;
  }
  return top;
}

const field = (bytes: ArrayLike<number>): number => 0xffff - naiveSum(bytes);

describe('in_cksum', () => {
  beforeEach(() => void bootMachine());
  afterEach(() => expectMachineClean());

  const check = (bytes: number[], lens: number[], want: number): void => {
    const m = split(bytes, lens);
    expect(in_cksum(m, bytes.length)).to.equal(want);
    m_freem(m);
  };

  it('computes the example of RFC 1071, section 3', () => {
    const bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    check(bytes, [], ~0xddf2 & 0xffff);
    check(bytes, [1, 3, 2, 1, 1], ~0xddf2 & 0xffff);
  });

  it('is 0xffff for no data, and pads an odd byte with 0', () => {
    check([], [], 0xffff);
    check([0xab], [], 0xffff - 0xab00);
    check([1, 2, 3], [2, 1], 0xffff - 0x0402);
    check([1, 2, 3], [1, 2], 0xffff - 0x0402);
  });

  it('follows RFC 1624 for zero: all zeros give 0xffff, all ones give 0', () => {
    check(
      Array.from({ length: 40 }, () => 0),
      [7, 9],
      0xffff,
    );
    check(
      Array.from({ length: 40 }, () => 0xff),
      [7, 9],
      0,
    );
  });

  it('equals a byte-by-byte sum for any bytes split in any way', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(255), { maxLength: 600 }), fc.array(fc.nat(224)), (bytes, lens) =>
        check(
          bytes,
          lens.filter((n) => n > 0),
          field(bytes),
        ),
      ),
      { numRuns: 300 },
    );
  });

  it('equals that sum for any chain of clusters, sf_bufs and references, from any offset', () => {
    fc.assert(
      fc.property(chainArb(MAPPED), fc.nat(), fc.nat(), (segs, a, b) => {
        const chain = new Chain(segs);
        const len = a % (chain.bytes.length + 1);
        const skip = b % (len + 1);
        expect(in_cksum_skip(chain.m, len, skip)).to.equal(field(chain.bytes.subarray(skip, len)));
        m_freem(chain.m);
        chain.done();
      }),
      { numRuns: 200 },
    );
  });

  it('counts file bytes read through a mapping as checksum reads, and only those', () => {
    const m = split([1, 2, 3, 4], []);
    m.m_next = sfbufMbuf(10, 1000);
    in_cksum_skip(m, 1004, 104);
    expect(payloadBytesRead(READ_CHECKSUM)).to.equal(900);
    expect(payloadBytesRead(READ_COPY)).to.equal(0);
    m_freem(m);
  });

  it('panics on unmapped data and on a chain that is too short', () => {
    const m = split([1, 2, 3, 4], []);
    expect(() => in_cksum(m, 5)).to.throw('too short');
    m.m_next = pgsMbuf({ npgs: 1 });
    expect(in_cksum(m, 4)).to.equal(field([1, 2, 3, 4]));
    expect(() => in_cksum(m, 5)).to.throw('unmapped');
    m_freem(m);
  });

  it('in_cksum_hdr and in_pseudo equal a byte-by-byte sum', () => {
    const header = buildUdp({ src: '192.0.2.1', dst: '198.51.100.255' }, { sport: 1, dport: 2 });
    const m = outPacket(header);
    expect(in_cksum_hdr(m, 20)).to.equal(0);
    m_freem(m);
    fc.assert(
      fc.property(fc.nat(0xffffffff), fc.nat(0xffffffff), fc.nat(0x1ffff), (a, b, c) => {
        const words = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff, c >>> 16, c & 0xffff];
        const bytes = words.flatMap((w) => [w >>> 8, w & 255]);
        expect(in_pseudo(inAddr(a), inAddr(b), c)).to.equal(naiveSum(bytes));
      }),
    );
  });

  it('in_delayed_cksum completes TCP and UDP checksums wherever the field lies in the chain', () => {
    const ip = { src: '192.0.2.2', dst: '192.0.2.1' };
    const payload = Array.from({ length: 333 }, (_, i) => i & 255);
    const right = [
      { bytes: buildTcp(ip, { sport: 1, dport: 2, payload }), flags: CSUM_TCP, at: 16 },
      { bytes: buildUdp(ip, { sport: 1, dport: 2, payload }), flags: CSUM_UDP, at: 6 },
    ];
    for (const { bytes, flags, at } of right)
      for (const first of [20, 21, 26, 27, 28, 36, 37, 40, 200]) {
        const part = [...bytes];
        const proto = part[9]!;
        const sum = naiveSum([
          ...part.slice(12, 20),
          0,
          proto,
          (part.length - 20) >>> 8,
          (part.length - 20) & 255,
        ]);
        part[20 + at] = sum >>> 8;
        part[21 + at] = sum & 255;
        const m = split(part, [first, 1, 1, 100]);
        m.m_pkthdr.csum_flags = flags;
        m.m_pkthdr.csum_data = at;
        in_delayed_cksum(m);
        expect([...chainBytes(m)]).to.deep.equal([...bytes]);
        m_freem(m);
      }
  });

  it('in_delayed_cksum keeps a TCP checksum of 0, and stores a UDP checksum of 0 as 0xffff', () => {
    const ip = { src: '192.0.2.2', dst: '192.0.2.1' };
    for (const [build, flags, at, want] of [
      [buildTcp, CSUM_TCP, 16, 0],
      [buildUdp, CSUM_UDP, 6, 0xffff],
    ] as const) {
      // Choose the payload so that the sum over everything is 0xffff and its complement is 0.
      const bytes = [...build(ip, { sport: 1, dport: 2, payload: [0, 0] })];
      const l4 = bytes.length - 20;
      const pseudo = naiveSum([...bytes.slice(12, 20), 0, bytes[9]!, l4 >>> 8, l4 & 255]);
      bytes[20 + at] = pseudo >>> 8;
      bytes[21 + at] = pseudo & 255;
      const rest = 0xffff - naiveSum(bytes.slice(20));
      bytes.splice(-2, 2, rest >>> 8, rest & 255);
      const m = split(bytes, [bytes.length]);
      m.m_pkthdr.csum_flags = flags;
      m.m_pkthdr.csum_data = at;
      in_delayed_cksum(m);
      const got = chainBytes(m);
      expect((got[20 + at]! << 8) | got[21 + at]!).to.equal(want);
      m_freem(m);
    }
  });

  it('allocates no garbage', () => {
    const m = split(
      [...Array(300).keys()].map((i) => i & 255),
      [100],
    );
    expect(bytesPerCall(() => in_cksum(m, 300))).to.be.below(8);
    m_freem(m);
  }).timeout(60_000);
});
