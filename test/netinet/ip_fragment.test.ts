import { expect } from 'chai';
import { inPass } from '../../src/sys/pass.ts';
import { m_freem, mbEmulator } from '../../src/kern/kern_mbuf.ts';
import { CSUM_IP, CSUM_UDP, type Mbuf } from '../../src/kern/mbuf.ts';
import { m_length } from '../../src/kern/uipc_mbuf.ts';
import { IFCAP_NOMAP } from '../../src/net/if_var.ts';
import { mbufFallback } from '../../src/netinet/ip_fallback.ts';
import { ip_output } from '../../src/netinet/ip_output.ts';
import { IP_RAWOUTPUT, type Ipstat, ipstat } from '../../src/netinet/ip_var.ts';
import { EMSGSIZE, ENETDOWN, ENOBUFS } from '../../src/sys/errno.ts';
import { counted, R_CONVERT_CSUM, R_CONVERT_NOMAP } from '../../src/sys/reason.ts';
import { payloadBytesRead, payloadReasons } from '../../src/vm/payload.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { chainBytes, pgsMbuf, sfbufMbuf } from '../kern/chains.ts';
import { buildIp4, decodeFrame, type Ip4Fields, type Ip4Info } from '../support/frames.ts';
import { outPacket, PEER, Rig, type RigOptions, US } from './rig.ts';

/** Stream identifier (RFC 791, 3.1), 4 bytes: copied into every fragment. */
const SATID = [136, 4, 0x12, 0x34];
/** Record route with room for one address, 7 bytes: only in the first fragment. */
const RR = [7, 7, 4, 0, 0, 0, 0];
const NOP = 1;
const EOL = 0;
const PROTO = 253;

describe('ip_fragment', () => {
  let rig: Rig;
  const boot = (options: RigOptions = {}): Rig => (rig = new Rig(options));
  afterEach(() => rig.close());
  const stat = (): Ipstat => ipstat(rig.vnet);

  /** A packet with a complete IP header in front of `data`. */
  function packet(data: Mbuf, fields: Partial<Ip4Fields> = {}): Mbuf {
    const len = m_length(data);
    const hlen = 20 + (fields.options?.length ?? 0);
    const m = outPacket(
      buildIp4(
        { src: US, dst: PEER, id: 0x1234, ttl: 9, tos: 4, len: hlen + len, ...fields },
        PROTO,
        [],
      ),
    );
    m.m_next = data;
    m.m_pkthdr.len += len;
    return m;
  }
  const send = (m: Mbuf): number => inPass(ip_output, m, null, IP_RAWOUTPUT, rig.vnet);
  const sent = (l3: 'full' | 'none' = 'full'): Ip4Info[] =>
    rig.sent.splice(0).map((f) => decodeFrame(f, { l3 }).ip!);

  it('copies the id and the other header fields and computes each header checksum', () => {
    boot({ mtu: 576 });
    expect(send(packet(sfbufMbuf(0, 1500)))).to.equal(0);
    const frags = sent(); // decodeFrame verifies each header checksum
    expect(frags.map(({ fragOff, mf, len }) => [fragOff, mf, len])).to.deep.equal([
      [0, true, 572],
      [552, true, 572],
      [1104, false, 20 + 396],
    ]);
    for (const f of frags)
      expect(f).to.include({ id: 0x1234, ttl: 9, tos: 4, proto: PROTO, df: false });
  });

  it('leaves the header checksums to a NIC with CSUM_IP', () => {
    boot({ mtu: 576, hwassist: CSUM_IP });
    expect(send(packet(sfbufMbuf(0, 1500)))).to.equal(0);
    expect(rig.chains.map(({ csum_flags }) => csum_flags)).to.deep.equal([
      CSUM_IP,
      CSUM_IP,
      CSUM_IP,
    ]);
    expect(sent('none')).to.have.lengthOf(3);
  });

  it('copies only options with the copied flag and NOPs, and pads them to words', () => {
    boot({ mtu: 576 });
    const options = [NOP, ...RR, ...SATID];
    expect(send(packet(sfbufMbuf(0, 1200), { options }))).to.equal(0);
    const frags = sent();
    expect(frags.map((f) => [...f.options])).to.deep.equal([
      options,
      [NOP, ...SATID, EOL, EOL, EOL],
      [NOP, ...SATID, EOL, EOL, EOL],
    ]);
    // The largest header sets the size of all fragments: 576 - 32, rounded down to a multiple of 8.
    expect(frags.map((f) => f.payload.length)).to.deep.equal([544, 544, 112]);
  });

  it('stops copying options at EOL and at an option with an invalid length', () => {
    boot({ mtu: 576 });
    expect(
      send(packet(sfbufMbuf(0, 600), { options: [...SATID, EOL, ...SATID.slice(1)] })),
    ).to.equal(0);
    expect(sent().map((f) => f.hlen)).to.deep.equal([28, 24]);
    // An option length of 0, and one beyond the header.
    for (const len of [0, 9]) {
      expect(send(packet(sfbufMbuf(0, 600), { options: [...SATID, 136, len, 0, 0] }))).to.equal(0);
      expect(sent().map((f) => f.hlen)).to.deep.equal([28, 24]);
    }
  });

  it('adds the offset of a packet that is itself a fragment and keeps its MF flag', () => {
    boot({ mtu: 576 });
    expect(send(packet(sfbufMbuf(0, 1000), { fragOff: 4000, mf: true }))).to.equal(0);
    expect(sent().map(({ fragOff, mf }) => [fragOff, mf])).to.deep.equal([
      [4000, true],
      [4552, true],
    ]);
  });

  it('returns EMSGSIZE if DF is set or the MTU leaves fewer than 8 bytes for data', () => {
    boot();
    const options = [...SATID, ...SATID];
    for (const [mtu, error] of [
      [36, 0],
      [35, EMSGSIZE],
    ] as const) {
      rig.ifp.if_mtu = mtu;
      expect(send(packet(sfbufMbuf(0, 17), { options }))).to.equal(error);
    }
    expect(sent().map((f) => f.payload.length)).to.deep.equal([8, 8, 1]);
    expect(stat().ips_cantfrag).to.equal(1);
    rig.ifp.if_mtu = 576;
    expect(send(packet(sfbufMbuf(0, 600), { df: true }))).to.equal(EMSGSIZE);
    expect(stat().ips_cantfrag).to.equal(2);
    expect(sent()).to.deep.equal([]);
  });

  it('shares the unmapped payload among the fragments', () => {
    boot({ mtu: 1500, capabilities: IFCAP_NOMAP });
    const data = pgsMbuf({ npgs: 4, first: 4000, last: 1 });
    const want = chainBytes(data);
    expect(send(packet(data))).to.equal(0);
    expect(rig.chains.map(({ unmapped }) => unmapped)).to.deep.equal(
      Array.from({ length: Math.ceil(want.length / 1480) }, () => 1),
    );
    for (let i = 0; i < payloadReasons.length; i++)
      expect(payloadBytesRead(i), payloadReasons[i]).to.equal(0);
    expect(mbEmulator.conversions).to.equal(0);
    expect(Buffer.concat(sent().map((f) => f.payload)).equals(want)).to.equal(true);
  });

  it('rounds fragments to page multiples if the MTU holds a page, for mapped and unmapped payload', () => {
    boot({ mtu: 9000, capabilities: IFCAP_NOMAP });
    const data = pgsMbuf({ npgs: 5 });
    const want = chainBytes(data);
    expect(send(packet(data))).to.equal(0);
    const frags = sent();
    // No payload mbuf fits whole into the first fragment, so nothing is rounded.
    expect(frags.map((f) => f.payload.length)).to.deep.equal([8976, 8976, 20480 - 2 * 8976]);
    expect(Buffer.concat(frags.map((f) => f.payload)).equals(want)).to.equal(true);
    const mixed = sfbufMbuf(0, 4096);
    mixed.m_next = pgsMbuf({ npgs: 4 });
    expect(send(packet(mixed))).to.equal(0);
    expect(sent().map((f) => f.payload.length)).to.deep.equal([4096, 8192, 8192]);
  });

  it('frees the remaining fragments when if_transmit fails', () => {
    boot({ mtu: 576 });
    const transmit = rig.if_transmit.bind(rig);
    let n = 0;
    rig.if_transmit = (ifp, m): number => {
      if (++n === 2) rig.txError = ENETDOWN;
      return transmit(ifp, m);
    };
    expect(send(packet(sfbufMbuf(0, 3000)))).to.equal(ENETDOWN);
    expect(n).to.equal(2);
    expect(sent()).to.have.lengthOf(1);
    expect(stat()).to.include({ ips_ofragments: 6, ips_fragmented: 0 });
  });

  it('returns ENOBUFS and counts a drop when a payload to checksum cannot be mapped', () => {
    boot({ mtu: 576, hwassist: CSUM_UDP, capabilities: IFCAP_NOMAP });
    const m = packet(pgsMbuf({ npgs: 2 }));
    m.m_pkthdr.csum_flags = CSUM_UDP;
    m.m_pkthdr.csum_data = 6;
    failPoint('sf_buf').arm(1);
    expect(send(m)).to.equal(ENOBUFS);
    expect(stat()).to.include({ ips_odropped: 1, ips_ofragments: 0 });
    expect(sent()).to.deep.equal([]);
  });
});

describe('ip_fallback', () => {
  let rig: Rig;
  afterEach(() => rig.close());

  for (const nomap of [false, true])
    for (const swSum of [false, true])
      for (const kind of ['unmapped', 'mapped'] as const)
        it(`nomap ${nomap}, software checksum ${swSum}, ${kind}`, () => {
          rig = new Rig({ capabilities: nomap ? IFCAP_NOMAP : 0 });
          const m = outPacket(new Uint8Array(40));
          m.m_next = kind === 'unmapped' ? pgsMbuf({ npgs: 3 }) : sfbufMbuf(0, 4096);
          const want = chainBytes(m);
          expect(mbufFallback(m, rig.ifp, swSum)).to.equal(m);
          const convert = kind === 'unmapped' && (swSum || !nomap);
          expect(mbEmulator.conversions).to.equal(convert ? 1 : 0);
          expect(counted(R_CONVERT_CSUM)).to.equal(convert && swSum ? 1 : 0);
          expect(counted(R_CONVERT_NOMAP)).to.equal(convert && !swSum ? 1 : 0);
          expect(mbEmulator.unmappedCurrent).to.equal(kind === 'unmapped' && !convert ? 1 : 0);
          expect(Buffer.compare(chainBytes(m), want)).to.equal(0);
          m_freem(m);
        });

  it('frees the packet when a conversion fails', () => {
    rig = new Rig({ capabilities: IFCAP_NOMAP });
    const m = outPacket(new Uint8Array(40));
    m.m_next = pgsMbuf({ npgs: 3 });
    failPoint('sf_buf').arm(1);
    expect(inPass(mbufFallback, m, rig.ifp, true)).to.equal(null);
  });
});
