/** Output of IPv6: routes, zones, groups, extension headers, fragments, errors. */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { m_gethdr, m_getcl, mbufZones } from '../../src/kern/kern_mbuf.ts';
import { CSUM_UDP_IPV6, type Mbuf, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { IFF_MULTICAST } from '../../src/net/if_var.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6RouteAddGateway } from '../../src/netinet6/in6_fib.ts';
import { in6_joingroup } from '../../src/netinet6/in6_mcast.ts';
import { in6Ifextra, ND6_IFF_IFDISABLED } from '../../src/netinet6/in6_var.ts';
import { ip6_output } from '../../src/netinet6/ip6_output.ts';
import {
  Ip6Moptions,
  Ip6Pktopts,
  IPV6_DONTFRAG,
  IPV6_MINMTU,
  IPV6_UNSPECSRC,
} from '../../src/netinet6/ip6_var.ts';
import { parseIn6Zone } from '../../src/netinet6/scope6.ts';
import {
  EHOSTUNREACH,
  EMSGSIZE,
  ENETDOWN,
  ENETUNREACH,
  ENOBUFS,
  EOPNOTSUPP,
  type Errno,
} from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { inPass } from '../../src/sys/pass.ts';
import { mem, memView } from '../../src/vm/arena.ts';
import { buildIp6, buildUdp6, decode6, ip6, type Packet6, pseudo6 } from '../support/six.ts';
import { PEER6, Rig6, US6, US_LL } from './rig6.ts';

const FROM_US = { src: US6, dst: PEER6 };
const UDP = 17;

describe('ip6_output', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6();
  });
  afterEach(() => h.close());

  /** The packet as a protocol passes it: the header in its own mbuf. */
  function chain(packet: Uint8Array): Mbuf {
    const m = m_gethdr(M_NOWAIT, MT_DATA)!;
    m.m_data += 16;
    const head = Math.min(packet.length, 48);
    mem.set(packet.subarray(0, head), m.m_data);
    m.m_len = head;
    m.m_pkthdr.len = packet.length;
    let tail = m;
    for (let off = head; off < packet.length; off += 2048) {
      const n = m_getcl(M_NOWAIT, MT_DATA, 0)!;
      const part = packet.subarray(off, off + 2048);
      mem.set(part, n.m_data);
      n.m_len = part.length;
      tail.m_next = n;
      tail = n;
    }
    return m;
  }

  const output = (
    packet: Uint8Array | Mbuf,
    flags = 0,
    opt: Ip6Pktopts | null = null,
    im6o: Ip6Moptions | null = null,
  ): Errno => {
    const m = packet instanceof Uint8Array ? chain(packet) : packet;
    return inPass(() => ip6_output(m, opt, null, flags, im6o, h.vnet));
  };
  /** A packet whose addresses contain the zone of tn0. */
  function zoned(f: { src: string; dst: string }, nxt = 59): Mbuf {
    const m = chain(buildIp6(f, nxt, [1, 2, 3]));
    for (const off of [8, 24])
      if (mem[m.m_data + off] === 0xfe || mem[m.m_data + off] === 0xff)
        memView.setUint16(m.m_data + off + 2, h.ifp.if_index);
    return m;
  }

  it('sends to neighbours and by gateways', () => {
    expect(output(buildIp6(FROM_US, 59, [1]))).to.equal(0);
    expect(output(buildIp6({ src: US6, dst: '2600::1' }, 59, []))).to.equal(EHOSTUNREACH);
    const gateway = parseIn6Zone(h.vnet, 'fe80::ff:fe00:1%tn0')!;
    expect(in6RouteAddGateway(h.vnet, parseIn6('::')!, 0, gateway)).to.equal(0);
    expect(output(buildIp6({ src: US6, dst: '2600::1' }, 59, []))).to.equal(0);
    expect(h.sent.map((f) => f[5])).to.deep.equal([1, 1]);
    expect(h.take6().map(({ dst }) => dst)).to.deep.equal([ip6(PEER6), ip6('2600::1')]);
    expect(h.stat6.ip6s_noroute).to.equal(1);
  });

  it('refuses sources and zones that do not fit', () => {
    expect(output(buildIp6({ src: '::', dst: PEER6 }, 59, []))).to.equal(EOPNOTSUPP);
    expect(output(buildIp6({ src: 'ff02::1', dst: PEER6 }, 59, []))).to.equal(EOPNOTSUPP);
    expect(output(buildIp6({ src: '::1', dst: PEER6 }, 59, []))).to.equal(EHOSTUNREACH);
    // A link-local destination without a zone never takes the default route.
    expect(in6RouteAddGateway(h.vnet, parseIn6('::')!, 0, parseIn6(PEER6)!)).to.equal(0);
    expect(output(buildIp6({ src: US6, dst: 'fe80::7' }, 59, []))).to.equal(EHOSTUNREACH);
    expect(h.stat6.ip6s_badscope).to.equal(4);
    expect(output(zoned({ src: '::', dst: 'ff02::16' }), IPV6_UNSPECSRC)).to.equal(0);
    expect(output(zoned({ src: US_LL, dst: 'fe80::ff:fe00:1' }))).to.equal(0);
    expect(h.take6().map(({ src }) => src)).to.deep.equal([ip6('::'), ip6(US_LL)]);
  });

  it('sends to groups by the zone or the chosen interface, and gives members a copy', () => {
    expect(output(zoned({ src: US_LL, dst: 'ff02::9' }))).to.equal(0);
    expect(output(buildIp6({ src: US6, dst: 'ff0e::9' }, 59, []))).to.equal(EHOSTUNREACH);
    const im6o = new Ip6Moptions();
    im6o.im6o_multicast_ifp = h.ifp;
    im6o.im6o_multicast_hlim = 5;
    expect(output(buildIp6({ src: US6, dst: 'ff0e::9' }, 59, []), 0, null, im6o)).to.equal(0);
    expect([...h.sent[1]!.subarray(0, 6)]).to.deep.equal([0x33, 0x33, 0, 0, 0, 9]);
    expect(h.take6().map(({ hlim }) => hlim)).to.deep.equal([1, 5]);
    const so = h.udp6(53);
    // The driver of the rig has no receive filter.
    in6_joingroup(h.ifp, parseIn6('ff0e::9')!);
    const toGroup = buildUdp6({ src: US6, dst: 'ff0e::9' }, 9, 53, [104, 105]);
    expect(output(toGroup, 0, null, im6o)).to.equal(0);
    expect(h.datagram(so)).to.equal('hi');
    im6o.im6o_multicast_loop = false;
    expect(output(toGroup, 0, null, im6o)).to.equal(0);
    expect(h.datagram(so)).to.be.a('number');
    expect(h.take6()).to.have.lengthOf(2);
    // Hop limit 0 and interface-local groups: only the copy.
    im6o.im6o_multicast_loop = true;
    im6o.im6o_multicast_hlim = 0;
    expect(output(toGroup, 0, null, im6o)).to.equal(0);
    expect([h.datagram(so), h.take6().length]).to.deep.equal(['hi', 0]);
    h.ifp.if_flags &= ~IFF_MULTICAST;
    expect(output(toGroup, 0, null, im6o)).to.equal(ENETUNREACH);
    h.ifp.if_flags |= IFF_MULTICAST;
  });

  it('sends nothing on an interface with IPv6 disabled', () => {
    in6Ifextra(h.ifp)!.nd_ifinfo.flags |= ND6_IFF_IFDISABLED;
    expect(output(buildIp6(FROM_US, 59, []))).to.equal(ENETDOWN);
  });

  it('sets hop limit and traffic class of the options', () => {
    const opt = new Ip6Pktopts();
    opt.ip6po_hlim = 3;
    opt.ip6po_tclass = 0xb8;
    expect(output(buildIp6(FROM_US, 59, []), 0, opt)).to.equal(0);
    expect([...h.sent[0]!.subarray(14, 16)]).to.deep.equal([0x6b, 0x80]);
    expect(h.take6()[0]!.hlim).to.equal(3);
  });

  /** The reassembled payload of fragments, checked by the rules of RFC 8200, 4.5. */
  function joined(pieces: Packet6[], unfrag: number, mtu: number): Uint8Array {
    const ids = new Set<string>();
    const parts = pieces.map(({ body }, i) => {
      expect(body.length + 40).to.be.at.most(mtu);
      const fh = body.subarray(unfrag);
      const off = ((fh[2]! << 8) | fh[3]!) & 0xfff8;
      const more = i < pieces.length - 1;
      expect([fh[1], fh[3]! & 7]).to.deep.equal([0, more ? 1 : 0]);
      expect(off).to.equal(pieces.slice(0, i).reduce((n, p) => n + p.body.length - unfrag - 8, 0));
      if (more) expect((fh.length - 8) % 8).to.equal(0);
      ids.add(fh.subarray(4, 8).join());
      return fh.subarray(8);
    });
    expect(ids.size).to.equal(1);
    return Buffer.concat(parts);
  }

  it('fragments every length at every MTU, with and without extension headers', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1280, max: 3000 }),
        fc.integer({ min: 0, max: 9000 }),
        fc.integer({ min: 0, max: 3 }),
        fc.boolean(),
        (mtu, len, headers, pending) => {
          h.ifp.if_mtu = mtu;
          const data = Uint8Array.from({ length: len }, (_, i) => (i * 31) & 255);
          const packet = buildUdp6(FROM_US, 9, 10, data);
          const m = chain(packet);
          if (pending) {
            m.m_pkthdr.csum_flags = CSUM_UDP_IPV6;
            m.m_pkthdr.csum_data = 6;
            memView.setUint16(m.m_data + 46, pseudo6(ip6(US6), ip6(PEER6), UDP, len + 8));
          }
          const opt = new Ip6Pktopts();
          if ((headers & 1) !== 0) opt.ip6po_hbh = Uint8Array.from([0, 0, 1, 4, 0, 0, 0, 0]);
          const dst = [0, 1, 1, 12, ...Array.from({ length: 12 }, () => 0)];
          if ((headers & 2) !== 0) opt.ip6po_dest2 = Uint8Array.from(dst);
          const unfrag = (headers & 1) * 8;
          expect(output(m, 0, opt)).to.equal(0);
          const sent = h.sent.splice(0).map((f) => decode6(f, false));
          const whole = sent.length === 1;
          expect(whole).to.equal(packet.length + unfrag + (headers & 2) * 8 <= mtu);
          const body = whole ? sent[0]!.body.subarray(unfrag) : joined(sent, unfrag, mtu);
          expect([...body.subarray((headers & 2) * 8)]).to.deep.equal([...packet.subarray(40)]);
        },
      ),
      { numRuns: 200, seed: 6 },
    );
    h.ifp.if_mtu = 1500;
  }).timeout(20_000);

  it('inserts all extension headers in the order of RFC 8200, 4.1, also into fragments', () => {
    const header = (n: number, type: number): Uint8Array =>
      Uint8Array.from({ length: 8 * n }, (_, i) => [0, n - 1, type][i] ?? 0);
    const opt = new Ip6Pktopts();
    // PadN of each size.
    opt.ip6po_hbh = header(1, 1).with(3, 4);
    opt.ip6po_dest1 = header(2, 1).with(3, 12);
    opt.ip6po_dest2 = header(3, 1).with(3, 20);
    /** The types and lengths of the headers of a packet up to UDP or a fragment header. */
    const headers = ({ nxt, body }: Packet6): number[] => {
      const list = [nxt];
      let off = 0;
      while (list.at(-1) !== UDP && list.at(-1) !== 44) {
        list.push((body[off + 1]! + 1) * 8, body[off]!);
        off += (body[off + 1]! + 1) * 8;
      }
      return [...list, off, list.at(-1) === 44 ? body[off]! : 0];
    };
    const small = buildUdp6(FROM_US, 9, 10, [1, 2, 3]);
    expect(output(small, 0, opt)).to.equal(0);
    const [one] = h.sent.splice(0).map((f) => decode6(f, false));
    expect(headers(one!)).to.deep.equal([0, 8, 60, 16, 60, 24, UDP, 48, 0]);
    expect([...one!.body.subarray(48)]).to.deep.equal([...small.subarray(40)]);
    // The second destination options are fragmented, the others are in every fragment.
    expect(output(buildUdp6(FROM_US, 9, 10, new Uint8Array(3000)), 0, opt)).to.equal(0);
    const sent = h.sent.splice(0).map((f) => decode6(f, false));
    expect(sent).to.have.lengthOf(3);
    for (const piece of sent) expect(headers(piece)).to.deep.equal([0, 8, 60, 16, 44, 24, 60]);
    expect(joined(sent, 24, 1500)).to.have.lengthOf(24 + 8 + 3000);
    expect(h.stat6.ip6s_ofragments).to.equal(3);
  });

  it('fails with ENOBUFS if the extension headers do not fit into a cluster', () => {
    const opt = new Ip6Pktopts();
    opt.ip6po_dest2 = new Uint8Array(2048).fill(0).with(1, 255);
    expect(output(buildUdp6(FROM_US, 9, 10, [1]), 0, opt)).to.equal(ENOBUFS);
    expect(h.take6()).to.deep.equal([]);
    expect(mbufZones().mbuf.current).to.equal(0);
  });

  it('fragments of one packet share an identification, those of two packets do not', () => {
    const ids = Array.from({ length: 50 }, () => {
      expect(output(buildUdp6(FROM_US, 9, 10, new Uint8Array(2000)))).to.equal(0);
      return h.take6().map(({ body }) => body.subarray(4, 8).join());
    });
    for (const [a, b] of ids) expect(a).to.equal(b);
    expect(new Set(ids.map(([a]) => a)).size).to.equal(50);
    // Nor are they consecutive.
    expect(new Set(ids.map(([a]) => a!.split(',')[0])).size).to.be.above(20);
  });

  it('fragments behind many unfragmentable headers, and to a group as multicasts', () => {
    const opt = new Ip6Pktopts();
    opt.ip6po_hbh = Uint8Array.from({ length: 400 }, (_, i) => [0, 49, 1, 255][i] ?? 0);
    opt.ip6po_hbh[257 + 2] = 1;
    opt.ip6po_hbh[257 + 3] = 400 - 257 - 4;
    expect(output(buildUdp6(FROM_US, 9, 10, new Uint8Array(2000)), 0, opt)).to.equal(0);
    const sent = h.sent.splice(0).map((f) => decode6(f, false));
    expect(joined(sent, 400, 1500)).to.have.lengthOf(2008);
    const im6o = new Ip6Moptions();
    im6o.im6o_multicast_ifp = h.ifp;
    const group = buildUdp6({ src: US6, dst: 'ff0e::9' }, 9, 10, new Uint8Array(2000));
    expect(output(group, 0, null, im6o)).to.equal(0);
    for (const frame of h.sent.splice(0))
      expect([...frame.subarray(0, 6)]).to.deep.equal([0x33, 0x33, 0, 0, 0, 9]);
  });

  it('does not fragment with IPV6_DONTFRAG, and cuts to 1280 bytes with IPV6_MINMTU', () => {
    const packet = buildUdp6(FROM_US, 9, 10, new Uint8Array(1440));
    expect(output(packet, IPV6_DONTFRAG)).to.equal(0);
    expect(output(packet, IPV6_MINMTU)).to.equal(0);
    expect(h.take6().map(({ nxt }) => nxt)).to.deep.equal([UDP, 44, 44]);
    const big = buildUdp6(FROM_US, 9, 10, new Uint8Array(1460));
    expect(output(big, IPV6_DONTFRAG)).to.equal(EMSGSIZE);
    h.ifp.if_mtu = 1000;
    expect(output(packet), 'a link with less than 1280 bytes').to.equal(EMSGSIZE);
    h.ifp.if_mtu = 1500;
    expect(h.stat6.ip6s_cantfrag).to.equal(2);
    expect(h.take6()).to.deep.equal([]);
  });

  it('fails with ENOBUFS at each allocation, and frees everything once', () => {
    const packet = buildUdp6(FROM_US, 9, 10, new Uint8Array(5000));
    const opt = new Ip6Pktopts();
    opt.ip6po_hbh = Uint8Array.from([0, 0, 1, 4, 0, 0, 0, 0]);
    let failed = 0;
    for (const [pool, most] of [
      ['mbuf', 20],
      ['mbuf_cluster', 3],
    ] as const)
      for (let k = 1; k <= most; k++) {
        const m = chain(packet);
        failPoint(pool).arm(k, 1);
        const error = output(m, 0, opt);
        failPoint(pool).disarm();
        if (error !== 0) failed++;
        expect([0, ENOBUFS]).to.include(error);
        h.sent.length = 0;
        h.chains.length = 0;
      }
    expect(failed).to.be.above(5);
    expect(mbufZones().mbuf.current).to.equal(0);
    expect(h.stat6.ip6s_odropped).to.equal(failed);
  });
});
