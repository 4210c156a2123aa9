import { expect } from 'chai';
import * as fc from 'fast-check';
import { inPass } from '../../src/sys/pass.ts';
import { m_freem, mbEmulator, mbufZones } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_IP,
  CSUM_IP_TSO,
  CSUM_TCP,
  CSUM_UDP,
  type Mbuf,
  M_BCAST,
  M_MCAST,
  M_NOTREADY,
} from '../../src/kern/mbuf.ts';
import { m_length } from '../../src/kern/uipc_mbuf.ts';
import { IFCAP_NOMAP, IFF_UP } from '../../src/net/if_var.ts';
import { Route } from '../../src/net/route.ts';
import { inRouteAddGateway, inRouteDel } from '../../src/netinet/in_fib.ts';
import { ip_output } from '../../src/netinet/ip_output.ts';
import { IP_ALLOWBROADCAST, IP_ROUTETOIF, IP_SENDONES, ipstat } from '../../src/netinet/ip_var.ts';
import {
  EACCES,
  EADDRNOTAVAIL,
  EHOSTUNREACH,
  EMSGSIZE,
  ENETDOWN,
  ENETUNREACH,
  ENOBUFS,
} from '../../src/sys/errno.ts';
import {
  counted,
  R_CONVERT_CSUM,
  R_CONVERT_FAILED,
  R_CONVERT_NOMAP,
  R_IP_CANTFRAG,
} from '../../src/sys/reason.ts';
import { payloadBytesRead, READ_CHECKSUM } from '../../src/vm/payload.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { Chain, chainArb, chainBytes, pgsMbuf, sfbufMbuf } from '../kern/chains.ts';
import {
  BROADCAST_MAC,
  buildTcp,
  buildUdp,
  decodeFrame,
  decodeIp4,
  expectTx,
  expectTxWith,
  from,
  naiveSum,
  payload,
  to,
  toMac,
} from '../support/frames.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { addr, outPacket, PEER, PEER_MAC, Rig, type RigOptions, US } from './rig.ts';

const pseudo = (proto: number, len: number, src = US, dst = PEER): number =>
  naiveSum([
    ...src.split('.').map(Number),
    ...dst.split('.').map(Number),
    0,
    proto,
    len >>> 8,
    len & 255,
  ]);

interface Seg {
  df?: boolean;
  dst?: string;
  src?: string;
  tso?: boolean;
}

/**
 * A TCP segment as tcp_output passes it: a header mbuf with the sum of the pseudo-header, then
 * `data`.
 */
function tcpSegment(
  data: Mbuf | null,
  { df = true, dst = PEER, src = US, tso = false }: Seg = {},
): Mbuf {
  const len = m_length(data);
  const header = buildTcp(
    { src, dst, df, sum: 0, len: 40 + len },
    { sport: 80, dport: 40000, flags: '.', sum: pseudo(6, 20 + len, src, dst) },
  );
  // Clear the version and header length: ip_output fills them in.
  header[0] = 0;
  const m = outPacket(header);
  m.m_next = data;
  const ph = m.m_pkthdr;
  ph.len += len;
  ph.csum_flags = CSUM_TCP | (tso ? CSUM_IP_TSO : 0);
  ph.csum_data = 16;
  if (tso) ph.tso_segsz = 1460;
  return m;
}

function udpDatagram(data: Mbuf | null, dst = PEER): Mbuf {
  const len = m_length(data);
  const header = buildUdp(
    { src: US, dst, sum: 0, len: 28 + len },
    { sport: 53, dport: 5000, sum: pseudo(17, 8 + len, US, dst) },
  );
  header[24] = (8 + len) >>> 8;
  header[25] = (8 + len) & 255;
  const m = outPacket(header);
  m.m_next = data;
  m.m_pkthdr.len += len;
  m.m_pkthdr.csum_flags = CSUM_UDP;
  m.m_pkthdr.csum_data = 6;
  return m;
}

describe('ip_output', () => {
  let rig: Rig;
  const boot = (options: RigOptions = {}): Rig => (rig = new Rig(options));
  const send = (m: Mbuf, flags = 0, ro: Route | null = null): number =>
    inPass(ip_output, m, ro, flags, rig.vnet);
  afterEach(() => rig.close());

  describe('the fallback decision', () => {
    // The decision depends on hwassist, IFCAP_NOMAP and the kind of payload.
    for (const tcp of [false, true])
      for (const ip of [false, true])
        for (const nomap of [false, true])
          for (const kind of ['unmapped', 'sfbuf', 'none'] as const) {
            const title = `txcsum ${tcp}, ip csum ${ip}, nomap ${nomap}, payload ${kind}`;
            it(title, () => {
              const hwassist = (tcp ? CSUM_TCP : 0) | (ip ? CSUM_IP : 0);
              boot({ hwassist, capabilities: nomap ? IFCAP_NOMAP : 0 });
              const data =
                kind === 'unmapped'
                  ? pgsMbuf({ npgs: 2, first: 3000, last: 301 })
                  : kind === 'sfbuf'
                    ? sfbufMbuf(17, 1397)
                    : null;
              const n = m_length(data);
              const bytes = chainBytes(data);

              expect(send(tcpSegment(data))).to.equal(0);

              const unmapped = kind === 'unmapped';
              const converted = unmapped && (!tcp || !nomap);
              expect(mbEmulator.conversions).to.equal(converted ? 1 : 0);
              expect(counted(R_CONVERT_CSUM)).to.equal(converted && !tcp ? 1 : 0);
              expect(counted(R_CONVERT_NOMAP)).to.equal(converted && tcp ? 1 : 0);
              expect(payloadBytesRead(READ_CHECKSUM)).to.equal(tcp ? 0 : n);
              const [chain] = rig.chains;
              expect(chain!.unmapped).to.equal(unmapped && !converted ? 1 : 0);
              expect(chain!.csum_flags).to.equal((tcp ? CSUM_TCP : 0) | (ip ? CSUM_IP : 0));
              const modes = { l4: tcp ? 'pseudo' : 'full', l3: ip ? 'none' : 'full' } as const;
              const [f] = expectTxWith(modes, rig.sent, [
                from(US, 80),
                to(PEER, 40000),
                payload(bytes),
              ]);
              expect(f!.ip!.ttl).to.equal(64);
              expect(f!.ip!.id, 'DF: constant id').to.equal(0);
            });
          }

    it('drops the packet with ENOBUFS when a page cannot be mapped', () => {
      boot();
      for (let ok = 0; ok < 2; ok++) {
        failPoint('sf_buf').arm(1);
        const data = pgsMbuf({ npgs: 3, first: 4000, last: 100 });
        data.m_len = 1000;
        expect(send(tcpSegment(data))).to.equal(ENOBUFS);
      }
      expect(ipstat(rig.vnet).ips_odropped).to.equal(2);
      expect(counted(R_CONVERT_FAILED)).to.equal(2);
      expectTx(rig.sent);
    });

    it('drops the packet with ENOBUFS when mbufs run out at the first or the second page', () => {
      boot();
      for (let before = 0; before < 2; before++) {
        const m = tcpSegment(pgsMbuf({ npgs: 2, first: 4000, last: 100 }));
        const { mbuf } = mbufZones();
        const { max } = mbuf;
        mbuf.max = mbuf.current + before;
        expect(send(m)).to.equal(ENOBUFS);
        mbuf.max = max;
      }
      expectTx(rig.sent);
      expect(ipstat(rig.vnet).ips_odropped).to.equal(2);
    });

    it('stores a UDP checksum of 0 as 0xffff', () => {
      boot();
      // The payload makes the sum over everything 0xffff; its complement is 0.
      const m = udpDatagram(null);
      const rest = naiveSum(
        buildUdp({ src: US, dst: PEER }, { sport: 53, dport: 5000, sum: 0 }).subarray(20),
      );
      const word = (0xffff - ((rest + 2 + pseudo(17, 10)) % 0xffff)) % 0xffff;
      m_freem(m);
      const data = outPacket(Uint8Array.from([word >>> 8, word & 255]));
      data.m_flags = 0;
      expect(send(udpDatagram(data))).to.equal(0);
      const [f] = expectTx(rig.sent, [payload(2)]);
      expect(Buffer.from(f!.ip!.payload).readUInt16BE(6)).to.equal(0xffff);
    });
  });

  describe('size', () => {
    it('passes an oversized TSO packet only to an interface with TSO', () => {
      boot({ hwassist: CSUM_TCP | CSUM_IP | CSUM_IP_TSO, capabilities: IFCAP_NOMAP });
      expect(send(tcpSegment(pgsMbuf({ npgs: 5 }), { tso: true }))).to.equal(0);
      expect(rig.chains[0]).to.include({ unmapped: 1, tso_segsz: 1460 });
      expectTxWith({ l4: 'pseudo', l3: 'none' }, rig.sent, [payload(20480)]);

      rig.ifp.if_hwassist = CSUM_TCP | CSUM_IP;
      expect(send(tcpSegment(pgsMbuf({ npgs: 5 }), { tso: true, df: false }))).to.equal(EMSGSIZE);
      expect(send(tcpSegment(pgsMbuf({ npgs: 5 })))).to.equal(EMSGSIZE);
      expect(ipstat(rig.vnet).ips_cantfrag).to.equal(2);
      expect(counted(R_IP_CANTFRAG)).to.equal(2);
      expectTx(rig.sent);
    });

    it('sends a packet of exactly the MTU and refuses one more byte', () => {
      boot({ hwassist: CSUM_TCP });
      expect(send(tcpSegment(sfbufMbuf(0, 1460)))).to.equal(0);
      expect(send(tcpSegment(sfbufMbuf(0, 1461)))).to.equal(EMSGSIZE);
      expect(rig.sent.splice(0).map((f) => f.length)).to.deep.equal([1514]);
    });

    it('uses the MTU of a host route', () => {
      boot({ hwassist: CSUM_TCP });
      const far = addr('203.0.113.9');
      expect(inRouteAddGateway(rig.vnet, far, 32, addr(PEER), 1400)).to.equal(0);
      expect(send(tcpSegment(sfbufMbuf(0, 1361), { dst: '203.0.113.9' }))).to.equal(EMSGSIZE);
      expect(send(tcpSegment(sfbufMbuf(0, 1360), { dst: '203.0.113.9' }))).to.equal(0);
      expectTxWith({ l4: 'pseudo' }, rig.sent, [to('203.0.113.9'), toMac(PEER_MAC)]);
    });

    it('fragments a packet without DF and shares its unmapped payload', () => {
      boot({ hwassist: CSUM_UDP, capabilities: IFCAP_NOMAP });
      const data = pgsMbuf({ npgs: 2, first: 100, last: 999 });
      const bytes = chainBytes(data);
      const m = udpDatagram(data);
      m.m_pkthdr.csum_flags = 0; // the checksum is already complete: nothing is left to the NIC
      expect(send(m)).to.equal(0);
      expect(mbEmulator.conversions).to.equal(0);
      expect(rig.chains.map((c) => c.unmapped)).to.deep.equal([1, 1, 1, 1]);
      const frags = rig.sent.splice(0).map((f) => decodeFrame(f).ip!);
      expect(frags.map((f) => f.len)).to.deep.equal([
        1500,
        1500,
        1500,
        20 + bytes.length + 8 - 3 * 1480,
      ]);
      const body = Buffer.concat(frags.map((f) => f.payload));
      expect(body.subarray(8).equals(bytes)).to.equal(true);
      const { ips_fragmented, ips_ofragments } = ipstat(rig.vnet);
      expect([ips_fragmented, ips_ofragments]).to.deep.equal([1, 4]);
    });

    it('computes the UDP checksum before it fragments, because NICs do not sum over fragments', () => {
      boot({ hwassist: CSUM_UDP, capabilities: IFCAP_NOMAP });
      expect(send(udpDatagram(pgsMbuf({ npgs: 2 })))).to.equal(0);
      expect(counted(R_CONVERT_CSUM)).to.equal(1);
      const frags = rig.sent.splice(0).map((f) => decodeFrame(f).ip!);
      const body = Buffer.concat(frags.map((f) => f.payload));
      expect(naiveSum([...body]) + pseudo(17, 8200)).to.be.oneOf([0xffff, 2 * 0xffff]);
    });

    it('rounds fragments to pages when the MTU holds a page', () => {
      boot({ mtu: 9000 });
      const m = udpDatagram(sfbufMbuf(0, 4096));
      const rest = [sfbufMbuf(0, 4096), sfbufMbuf(0, 4096), sfbufMbuf(0, 4096)];
      m.m_next!.m_next = rest[0]!;
      rest[0]!.m_next = rest[1]!;
      rest[1]!.m_next = rest[2]!;
      m.m_pkthdr.len += 3 * 4096;
      m.m_pkthdr.csum_flags = 0;
      expect(send(fixLength(m))).to.equal(0);
      const frags = rig.sent.splice(0).map((f) => decodeFrame(f).ip!);
      // Whole mbufs first, then multiples of a page that start at a page boundary.
      expect(frags.map((f) => [f.fragOff, f.payload.length])).to.deep.equal([
        [0, 8 + 8192],
        [8200, 8192],
      ]);
    });

    it('fragments any chain for any MTU and loses no byte', () => {
      fc.assert(
        fc.property(
          chainArb(),
          // RFC 791: every network carries 68 bytes. With a smaller MTU the fragments would use up
          // all mbufs.
          fc.integer({ min: 68, max: 9000 }),
          fc.boolean(),
          (segs, mtu, nomap) => {
            boot({ mtu, capabilities: nomap ? IFCAP_NOMAP : 0 });
            rig.ifp.if_mtu = mtu;
            const chain = new Chain(segs);
            if (chain.bytes.length > 65000) {
              m_freem(chain.m);
            } else {
              const m = udpDatagram(chain.m);
              m.m_pkthdr.csum_flags = 0;
              expect(send(m)).to.equal(0);
              const frags = rig.sent
                .splice(0)
                .map((f) => decodeIp4(f.subarray(14), { l4: 'none' }));
              let end = 0;
              for (const [i, f] of frags.entries()) {
                expect(f.fragOff).to.equal(end);
                expect(f.mf).to.equal(i < frags.length - 1);
                expect(f.len).to.be.at.most(mtu);
                end += f.payload.length;
                if (f.mf) expect(end % 8).to.equal(0);
              }
              const body = Buffer.concat(frags.map((f) => f.payload));
              expect(body.subarray(8).equals(chain.bytes)).to.equal(true);
            }
            chain.done();
            rig.close();
          },
        ),
        { numRuns: 60 },
      );
      boot();
    });

    it('frees everything when mbufs run out while fragmenting', () => {
      boot();
      for (let after = 0; after < 12; after++) {
        const m = udpDatagram(sfbufMbuf(0, 4000));
        const { mbuf } = mbufZones();
        const { max } = mbuf;
        mbuf.max = mbuf.current + after;
        send(m);
        mbuf.max = max;
      }
      rig.sent.length = 0;
    });

    it('refuses an MTU that leaves fewer than 8 bytes for data', () => {
      boot();
      rig.ifp.if_mtu = 27;
      expect(send(udpDatagram(sfbufMbuf(0, 100)))).to.equal(EMSGSIZE);
      expectTx(rig.sent);
    });
  });

  describe('routing', () => {
    it('returns EHOSTUNREACH without a route, and sends to the gateway with one', () => {
      boot();
      const far = '203.0.113.5';
      expect(send(udpDatagram(null, far))).to.equal(EHOSTUNREACH);
      expect(ipstat(rig.vnet).ips_noroute).to.equal(1);
      expect(inRouteAddGateway(rig.vnet, addr('0.0.0.0'), 0, addr(PEER))).to.equal(0);
      expect(send(udpDatagram(null, far))).to.equal(0);
      expectTx(rig.sent, [from(US), to(far), toMac(PEER_MAC)]);
      expect(send(udpDatagram(null, far), IP_ROUTETOIF)).to.equal(ENETUNREACH);
    });

    it('looks the route up again when the table changed after it was cached', () => {
      boot();
      const ro = new Route();
      inRouteAddGateway(rig.vnet, addr('0.0.0.0'), 0, addr(PEER));
      expect(send(udpDatagram(null, '203.0.113.5'), 0, ro)).to.equal(0);
      expect(ro.ro_nh).to.not.equal(null);
      inRouteDel(rig.vnet, addr('0.0.0.0'), 0);
      expect(send(udpDatagram(null, '203.0.113.5'), 0, ro)).to.equal(EHOSTUNREACH);
      rig.sent.length = 0;
    });

    it('fills in the source address of the interface', () => {
      boot();
      const m = tcpSegment(null, { src: '0.0.0.0' });
      expect(send(m)).to.equal(0);
      // The pseudo-header was summed with source 0.0.0.0, so do not verify the TCP checksum.
      const ip = decodeFrame(rig.sent.splice(0)[0]!, { l4: 'none' }).ip!;
      expect(ip.src).to.equal(US);
    });

    it('broadcasts only with IP_ALLOWBROADCAST, and never in fragments', () => {
      boot();
      expect(send(udpDatagram(null, '192.0.2.255'))).to.equal(EACCES);
      expect(send(udpDatagram(null, '192.0.2.255'), IP_ALLOWBROADCAST)).to.equal(0);
      expectTx(rig.sent, [toMac(BROADCAST_MAC), to('192.0.2.255')]);
      const big = udpDatagram(sfbufMbuf(0, 2000), '192.0.2.255');
      expect(send(big, IP_ALLOWBROADCAST)).to.equal(EMSGSIZE);
      const m = udpDatagram(null, '192.0.2.255');
      m.m_pkthdr.csum_flags = 0;
      expect(send(m, IP_ALLOWBROADCAST | IP_SENDONES)).to.equal(0);
      const ip = decodeFrame(rig.sent.splice(0)[0]!, { l4: 'none' }).ip!;
      expect(ip.dst).to.equal('255.255.255.255');
    });

    it("sends multicast to the group's Ethernet address", () => {
      boot();
      inRouteAddGateway(rig.vnet, addr('0.0.0.0'), 0, addr(PEER));
      expect(send(udpDatagram(null, '239.129.2.3'))).to.equal(0);
      expectTx(rig.sent, [toMac('01:00:5e:01:02:03'), to('239.129.2.3')]);
    });

    it('refuses to send from a loopback address to the wire', () => {
      boot();
      expect(send(tcpSegment(null, { src: '127.0.0.1' }))).to.equal(EADDRNOTAVAIL);
      expect(ipstat(rig.vnet).ips_badaddr).to.equal(1);
    });

    it('finds no route over an interface that is down', () => {
      boot();
      rig.ifp.if_flags &= ~IFF_UP;
      expect(send(udpDatagram(null))).to.be.oneOf([ENETDOWN, EHOSTUNREACH]);
      expectTx(rig.sent);
    });

    it("returns the driver's error and clears M_NOTREADY", () => {
      boot();
      const data = sfbufMbuf(0, 10);
      data.m_flags |= M_NOTREADY;
      rig.txError = ENOBUFS;
      expect(send(udpDatagram(data))).to.equal(ENOBUFS);
      expect(data.m_flags & (M_NOTREADY | M_BCAST | M_MCAST)).to.equal(0);
    });
  });

  it('counts ids up, draws them at random with random_id, and uses 0 with DF', () => {
    boot();
    const id = (df: boolean): number => {
      expect(send(tcpSegment(null, { df }))).to.equal(0);
      return decodeFrame(rig.sent.splice(0)[0]!).ip!.id;
    };
    const first = id(false);
    expect(id(false)).to.equal((first + 1) & 0xffff);
    expect(id(true)).to.equal(0);
    rig.vnet.sysctl.write('net.inet.ip.rfc6864', '0');
    expect(id(true)).to.equal((first + 2) & 0xffff);
    rig.vnet.sysctl.write('net.inet.ip.random_id', '1');
    const ids = Array.from({ length: 8 }, () => id(false));
    expect(new Set(ids).size).to.be.above(6);
    expect(ids[1]).to.not.equal((ids[0]! + 1) & 0xffff);
  });

  it('allocates no garbage', () => {
    boot({ hwassist: CSUM_TCP | CSUM_IP });
    const template = tcpSegment(null);
    const bytes = chainBytes(template);
    m_freem(template);
    rig.if_transmit = (_ifp, m): number => {
      m_freem(m);
      return 0;
    };
    const ro = new Route();
    const once = (): void => {
      const m = outPacket(bytes);
      m.m_pkthdr.csum_flags = CSUM_TCP;
      ip_output(m, ro, 0, rig.vnet);
    };
    const own = bytesPerCall(() => m_freem(outPacket(bytes)));
    expect(bytesPerCall(once) - own).to.be.below(8);
  }).timeout(60_000);
});

/** Returns the packet with ip_len and uh_ulen corrected after mbufs were added. */
function fixLength(m: Mbuf): Mbuf {
  const len = m_length(m);
  m.m_pkthdr.len = len;
  const header = chainBytes(m).slice(0, 28);
  header[2] = len >>> 8;
  header[3] = len & 255;
  header[24] = (len - 20) >>> 8;
  header[25] = (len - 20) & 255;
  const fresh = outPacket(header);
  fresh.m_next = m.m_next;
  m.m_next = null;
  fresh.m_pkthdr.len = len;
  fresh.m_pkthdr.csum_flags = 0;
  m_freem(m);
  return fresh;
}
