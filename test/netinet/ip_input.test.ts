import { expect } from 'chai';
import * as fc from 'fast-check';
import { m_freem } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP_CHECKED,
  CSUM_IP_VALID,
  CSUM_PSEUDO_HDR,
  type Mbuf,
} from '../../src/kern/mbuf.ts';
import { type Ipstat, ipproto_register, ipstat } from '../../src/netinet/ip_var.ts';
import { V_ipreass } from '../../src/netinet/ip_reass.ts';
import {
  counted,
  R_IP_BADADDR,
  R_IP_FRAGMENT,
  R_IP_HLEN,
  R_IP_LEN,
  R_IP_NOTUS,
  R_IP_OPTIONS,
  R_IP_SHORT,
  R_IP_SUM,
  R_IP_VERSION,
  type Reason,
} from '../../src/sys/reason.ts';
import { chainBytes } from '../kern/chains.ts';
import { bytesPerCall } from '../support/alloc.ts';
import {
  BROADCAST_MAC,
  buildEther,
  buildIcmp,
  buildIp4,
  expectTx,
  icmp,
  type Ip4Fields,
  to,
} from '../support/frames.ts';
import { outPacket, OUR_MAC, PEER, PEER_MAC, Rig, US } from './rig.ts';

const PROTO = 253;
const body = Uint8Array.from({ length: 64 }, (_, i) => i);

describe('ip_input', () => {
  let rig: Rig;
  let got: { bytes: Uint8Array; hlen: number }[];
  beforeEach(() => {
    rig = new Rig();
    got = [];
    ipproto_register(rig.vnet, PROTO, {
      input: (m: Mbuf, hlen): void => {
        expect(m.m_len, 'header in one piece').to.be.at.least(hlen);
        got.push({ bytes: chainBytes(m), hlen });
        m_freem(m);
      },
      ctlinput(): void {},
    });
  });
  afterEach(() => rig.close());

  const packet = (f: Partial<Ip4Fields> = {}, data: ArrayLike<number> = body): Uint8Array =>
    buildIp4({ src: PEER, dst: US, ...f }, PROTO, data);

  it('delivers header and payload without the padding of the frame', () => {
    const p = packet();
    rig.injectIp(Uint8Array.from([...p, 0xee, 0xee, 0xee]));
    for (const piece of [15, 34, 35, 50]) rig.injectIp(Uint8Array.from([...p, 1, 2]), piece);
    expect(got.length).to.equal(5);
    for (const { bytes, hlen } of got) {
      expect([...bytes]).to.deep.equal([...p]);
      expect(hlen).to.equal(20);
    }
    expect(ipstat(rig.vnet).ips_delivered).to.equal(5);
  });

  const bad: [string, () => Uint8Array, Reason, keyof Ipstat][] = [
    ['19 bytes', () => packet().slice(0, 19), R_IP_SHORT, 'ips_toosmall'],
    ['version 6', () => packet({ version: 6 }), R_IP_VERSION, 'ips_badvers'],
    ['a header of 16 bytes', () => packet({ hl: 4 }), R_IP_HLEN, 'ips_badhlen'],
    ['a header longer than the packet', () => packet({ hl: 15 }, []), R_IP_HLEN, 'ips_badhlen'],
    ['a wrong checksum', () => packet({ sum: 0x1234 }), R_IP_SUM, 'ips_badsum'],
    ['ip_len below the header', () => packet({ len: 19 }), R_IP_LEN, 'ips_badlen'],
    ['ip_len beyond the frame', () => packet({ len: 85 }), R_IP_SHORT, 'ips_tooshort'],
    ['a loopback source', () => packet({ src: '127.0.0.1' }), R_IP_BADADDR, 'ips_badaddr'],
    ['a loopback destination', () => packet({ dst: '127.0.0.1' }), R_IP_BADADDR, 'ips_badaddr'],
    ['our own address as source', () => packet({ src: US }), R_IP_BADADDR, 'ips_badaddr'],
    [
      'an address of another host',
      () => packet({ dst: '192.0.2.77' }),
      R_IP_NOTUS,
      'ips_cantforward',
    ],
    [
      'a multicast group that was not joined',
      () => packet({ dst: '239.0.0.1' }),
      R_IP_NOTUS,
      'ips_notmember',
    ],
    [
      'a source route',
      () => packet({ options: [131, 7, 4, 1, 2, 3, 4, 0] }), // the next hop is another host
      R_IP_OPTIONS,
      'ips_cantforward',
    ],
  ];
  for (const [what, make, reason, stat] of bad)
    it(`drops and counts ${what}`, () => {
      rig.injectIp(make());
      expect(got).to.deep.equal([]);
      expectTx(rig.sent);
      expect(counted(reason)).to.equal(1);
      expect(ipstat(rig.vnet)[stat]).to.equal(1);
      expect(ipstat(rig.vnet).ips_total).to.equal(1);
    });

  it('accepts all kinds of broadcast address', () => {
    for (const dst of ['192.0.2.255', '192.0.2.0', '255.255.255.255'])
      rig.injectIp(packet({ dst }), 0, BROADCAST_MAC);
    expect(got.length).to.equal(3);
  });

  it("uses the NIC's verdict on the header checksum, valid or invalid", () => {
    const frame = buildEther({ dst: OUR_MAC, src: PEER_MAC }, 0x0800, packet({ sum: 1 }));
    for (const flags of [CSUM_IP_CHECKED | CSUM_IP_VALID, CSUM_IP_CHECKED]) {
      const m = outPacket(frame);
      m.m_pkthdr.csum_flags = flags;
      rig.ifp.if_input!(rig.ifp, m);
    }
    expect(got.length).to.equal(1);
    expect(ipstat(rig.vnet).ips_badsum).to.equal(1);
  });

  it('parses options and reports the offset of a bad one', () => {
    const ok = [
      [1, 1, 1, 0],
      [7, 7, 4, 0, 0, 0, 0, 0],
      [148, 4, 0, 0],
    ];
    for (const options of ok) rig.injectIp(packet({ options }));
    expect(got.map((g) => g.hlen)).to.deep.equal([24, 28, 24]);
    const wrong: [number[], number][] = [
      [[7, 1, 0, 0], 21], // shorter than the option's own header
      [[1, 1, 1, 7], 24], // the length byte is missing
      [[1, 148, 4, 0], 22], // longer than the IP header
      [[7, 3, 3, 0], 22], // pointer into the option's header
    ];
    for (const [options, at] of wrong) {
      rig.injectIp(packet({ options }));
      const [f] = expectTx(rig.sent, [icmp(12), to(PEER)]);
      expect(f!.ip!.icmp!.id >>> 8, 'pointer').to.equal(at);
    }
    expect(ipstat(rig.vnet).ips_badoptions).to.equal(4);
    rig.vnet.sysctl.write('net.inet.ip.process_options', '0');
    rig.injectIp(packet({ options: [7, 1, 0, 0] }));
    expect(got.length).to.equal(4);
  });

  it('survives random bytes behind an Ethernet header', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 120 }),
        fc.constantFrom(0x0800, 0x0806, 0x86dd, 0x8100, 5),
        fc.nat(60),
        fc.boolean(),
        (bytes, type, piece, plausible) => {
          const p = plausible ? bytes.slice() : bytes;
          if (plausible && p.length >= 20) {
            p[0] = 0x45;
            p[2] = p.length >>> 8;
            p[3] = p.length & 255;
            p.set([192, 0, 2, 2], 16);
          }
          rig.inject(buildEther({ dst: OUR_MAC, src: PEER_MAC }, type, p), piece);
        },
      ),
      { numRuns: 1000 },
    );
    rig.sent.length = 0;
  });

  it('answers an echo request without garbage', () => {
    const p = buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 8, payload: body }));
    const frame = buildEther({ dst: OUR_MAC, src: PEER_MAC }, 0x0800, p);
    rig.vnet.sysctl.write('net.inet.icmp.icmplim', '0');
    let replies = 0;
    rig.if_transmit = (_ifp, m): number => {
      m_freem(m);
      replies++;
      return 0;
    };
    const own = bytesPerCall(() => m_freem(outPacket(frame)));
    const once = bytesPerCall(() => rig.ifp.if_input!(rig.ifp, outPacket(frame)));
    expect(once - own).to.be.below(8);
    expect(replies).to.be.above(1000);
  }).timeout(60_000);

  describe('reassembly', () => {
    const whole = Uint8Array.from({ length: 3000 }, (_, i) => (i * 31 + (i >> 8)) & 255);
    const frag = (off: number, end: number, f: Partial<Ip4Fields> = {}, len = 3000): Uint8Array =>
      packet({ id: 7, fragOff: off, mf: end < len, ...f }, whole.subarray(off, end));
    const expectWhole = (n = 1): void => {
      expect(got.length).to.equal(n);
      for (const { bytes } of got)
        expect(Buffer.from(bytes.subarray(20)).equals(whole)).to.equal(true);
    };
    // Room for fragments of half the packet.
    beforeEach(() => (rig.ifp.if_mtu = 4000));
    const held = (): number => V_ipreass(rig.vnet).frags;

    it('accepts fragments in order and in reverse order', () => {
      for (const [a, b] of [
        [0, 1480],
        [1480, 2960],
        [2960, 3000],
      ] as const)
        rig.injectIp(frag(a, b));
      for (const [a, b] of [
        [2960, 3000],
        [1480, 2960],
        [0, 1480],
      ] as const)
        rig.injectIp(frag(a, b));
      expectWhole(2);
      const ip = got[0]!.bytes;
      expect([ip[2]! * 256 + ip[3]!, ip[6], ip[7]]).to.deep.equal([3020, 0, 0]);
      expect(held()).to.equal(0);
    });

    it('clears the checksum flags that the NIC set on the fragments', () => {
      const verdicts: number[] = [];
      ipproto_register(rig.vnet, 254, {
        input: (m): void => {
          verdicts.push(m.m_pkthdr.csum_flags, m.m_pkthdr.csum_data);
          m_freem(m);
        },
        ctlinput(): void {},
      });
      for (const [off, end] of [
        [0, 1480],
        [1480, 3000],
      ] as const) {
        const ip = { src: PEER, dst: US, id: 3, fragOff: off, mf: end < 3000 };
        const data = buildIp4(ip, 254, whole.subarray(off, end));
        const m = outPacket(buildEther({ dst: OUR_MAC, src: PEER_MAC }, 0x0800, data));
        m.m_pkthdr.csum_flags = CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
        m.m_pkthdr.csum_data = 0xffff;
        rig.ifp.if_input!(rig.ifp, m);
      }
      expect(verdicts).to.deep.equal([0, 0]);
    });

    it('accepts fragments in any order, with overlaps and duplicates', () => {
      // Leave out the range that covers the whole packet: it would not be a fragment.
      const cut = fc
        .tuple(fc.nat(374), fc.nat(374))
        .map(([a, b]) => [Math.min(a, b) * 8, Math.max(a, b) * 8 + 8] as const)
        .filter(([a, b]) => a > 0 || b < 3000);
      fc.assert(
        fc.property(
          fc.array(cut, { maxLength: 12 }),
          fc.infiniteStream(fc.nat(1000)),
          (extra, order) => {
            got = [];
            const parts = ([[0, 1000], [1000, 2000], [2000, 3000], ...extra] as const).map(
              ([a, b]) => [a, Math.min(b, 3000), order.next().value] as const,
            );
            parts.sort((x, y) => x[2] - y[2]);
            for (const [a, b] of parts) {
              rig.injectIp(frag(a, b));
              if (got.length > 0) break;
            }
            expectWhole();
            expect(held()).to.equal(0);
          },
        ),
        { numRuns: 300 },
      );
    });

    it('keeps packets with different ids and sources apart', () => {
      rig.injectIp(frag(0, 1480));
      rig.injectIp(frag(1480, 3000, { id: 8 }));
      rig.injectIp(frag(1480, 3000, { src: '192.0.2.9' }));
      expect(got).to.deep.equal([]);
      rig.injectIp(frag(1480, 3000));
      expectWhole();
      expect(held()).to.equal(2);
    });

    it('drops an incomplete packet after 30 seconds', () => {
      rig.injectIp(frag(0, 1480));
      rig.clock.advance(10e9);
      rig.injectIp(frag(0, 1480, { id: 8 }));
      rig.clock.advance(20e9 - 1);
      expect(held()).to.equal(2);
      rig.clock.advance(1);
      expect(held()).to.equal(1);
      rig.clock.advance(10e9);
      expect(held()).to.equal(0);
      expect(ipstat(rig.vnet).ips_fragtimeout).to.equal(2);
      expect(counted(R_IP_FRAGMENT)).to.equal(2);
    });

    it('limits the number of packets, the fragments of one packet, and all fragments', () => {
      const reass = V_ipreass(rig.vnet);
      reass.maxfragpackets = 3;
      for (let id = 1; id <= 5; id++) rig.injectIp(frag(0, 8, { id }));
      expect([reass.fragpackets, ipstat(rig.vnet).ips_fragdropped]).to.deep.equal([3, 2]);
      rig.clock.advance(30e9);
      reass.maxfragsperpacket = 4;
      for (let i = 0; i < 5; i++) rig.injectIp(frag(16 * i, 16 * i + 8));
      expect([reass.frags, ipstat(rig.vnet).ips_fragdropped]).to.deep.equal([0, 7]);
      reass.maxfragsperpacket = 64;
      reass.maxfrags = 2;
      for (let i = 0; i < 3; i++) rig.injectIp(frag(16 * i, 16 * i + 8));
      expect([reass.frags, ipstat(rig.vnet).ips_fragdropped]).to.deep.equal([2, 8]);
      reass.maxfragpackets = 0;
      rig.injectIp(frag(0, 8, { id: 99 }));
      expect(ipstat(rig.vnet).ips_fragdropped).to.equal(9);
    });

    it('drops fragments with an invalid length or offset', () => {
      rig.injectIp(packet({ id: 1, mf: true }, whole.subarray(0, 9))); // not a multiple of 8
      rig.injectIp(packet({ id: 1, fragOff: 8 }, [])); // empty
      rig.injectIp(packet({ id: 2, fragOff: 65528 }, whole.subarray(0, 8))); // beyond 65535
      expect(held()).to.equal(0);
      const { ips_toosmall, ips_toolong, ips_fragdropped } = ipstat(rig.vnet);
      expect([ips_toosmall, ips_toolong, ips_fragdropped]).to.deep.equal([2, 1, 3]);
    });

    it('drops a fragment that contradicts the end, and delivers the packet', () => {
      rig.injectIp(frag(2000, 3000));
      rig.injectIp(frag(1000, 2000, {}, 2000)); // another end
      const more = (off: number, n: number): void =>
        rig.injectIp(packet({ id: 7, fragOff: off, mf: true }, new Uint8Array(n)));
      more(3000, 8); // beyond the end
      more(1000, 2000); // ends there, but more is to follow
      expect([held(), ipstat(rig.vnet).ips_fragdropped]).to.deep.equal([1, 3]);
      rig.injectIp(frag(0, 1000));
      rig.injectIp(frag(1000, 2000));
      expectWhole();
      expect(held()).to.equal(0);
    });

    for (const n of [1, 2, 5])
      it(`passes ${n + 1} fragments with maxfragsperpacket ${n}, and not ${n + 2}`, () => {
        rig.vnet.sysctl.write('net.inet.ip.maxfragsperpacket', String(n));
        const send = (parts: number): void => {
          const size = Math.ceil(3000 / parts / 8) * 8;
          for (let at = 0; at < 3000; at += size)
            rig.injectIp(frag(at, Math.min(at + size, 3000), { id: parts }));
        };
        send(n + 1);
        expectWhole();
        send(n + 2);
        expectWhole();
        expect(ipstat(rig.vnet).ips_fragdropped).to.be.at.least(n + 1);
      });

    it('drops a fragment whose ECN field contradicts the first one, and keeps the others', () => {
      rig.injectIp(frag(0, 1480, { tos: 2 }));
      rig.injectIp(frag(1480, 3000, { tos: 0 }));
      expect([held(), got.length]).to.deep.equal([1, 0]);
      rig.injectIp(frag(1480, 3000, { tos: 2 }));
      expectWhole();
    });

    it('merges the ECN fields as in RFC 3168, 5.3', () => {
      let id = 100;
      const tos = (a: number, b: number): number | undefined => {
        got = [];
        id++;
        rig.injectIp(frag(0, 1480, { tos: a, id }));
        rig.injectIp(frag(1480, 3000, { tos: b, id }));
        return got[0]?.bytes[1];
      };
      expect(tos(2, 3)).to.equal(3);
      expect(tos(3, 1)).to.equal(3);
      expect(tos(0, 3)).to.equal(undefined);
      expect(tos(0, 0)).to.equal(0);
      expect(tos(1, 0)).to.equal(undefined);
      expect(tos(0, 1)).to.equal(0);
    });
  });
});
