/** Forwarding: what is sent on, what is reported to the sender, and that the payload is not touched. */

import { expect } from 'chai';
import { m_freem, m_getcl, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_DATA_VALID,
  type Mbuf,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { if_alloc } from '../../src/net/if.ts';
import { ether_ifattach, ether_ifdetach, ether_ioctl } from '../../src/net/if_ethersubr.ts';
import {
  IFCAP_LRO,
  IFCAP_NOMAP,
  IFF_DRV_RUNNING,
  type IfDriver,
  type IfIoctl,
  type Ifnet,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
} from '../../src/net/if_var.ts';
import { netisr_dispatch, NETISR_IPV6 } from '../../src/net/netisr.ts';
import { ND_NEIGHBOR_ADVERT } from '../../src/netinet6/icmp6.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6RouteAddGateway } from '../../src/netinet6/in6_fib.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IN6_IFF_NODAD } from '../../src/netinet6/in6_var.ts';
import { ip6_input } from '../../src/netinet6/ip6_input.ts';
import { nd6_cache_lladdr } from '../../src/netinet6/nd6.ts';
import { parseIn6Zone } from '../../src/netinet6/scope6.ts';
import type { Errno } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { mem } from '../../src/vm/arena.ts';
import { payloadBytesRead, payloadReasons, payloadReset } from '../../src/vm/payload.ts';
import { chainBytes, pgsMbuf } from '../kern/chains.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { mac } from '../support/frames.ts';
import { buildIp6, decode6, ip6, isMld, isSix, type Packet6, pseudo6 } from '../support/six.ts';
import { PEER6, PEER_LL, Rig6, US6, US_LL } from './rig6.ts';

const FAR = '2001:db8:f::7';
const OTHER_US = '2001:db8:2::2';
const GATEWAY = '2001:db8:2::9';
const GATEWAY_MAC = '02:00:00:00:00:09';
const NXT = 253;

/** The second interface of the router. */
class Port implements IfDriver {
  readonly ifp: Ifnet;
  readonly #sent: Uint8Array[] = [];
  unmapped = 0;

  constructor(rig: Rig6, capabilities: number, mtu: number) {
    this.ifp = if_alloc(rig.vnet, 'tn1');
    this.ifp.if_driver = this;
    this.ifp.if_capabilities = this.ifp.if_capenable = capabilities;
    this.ifp.if_mtu = mtu;
    ether_ifattach(this.ifp, Uint8Array.from(mac('02:00:00:00:01:02')));
    const add = (): Errno => in6_aifaddr(this.ifp, parseIn6(OTHER_US)!, 64, IN6_IFF_NODAD);
    expect(inPass(add)).to.equal(0);
  }
  if_init(ifp: Ifnet): void {
    ifp.if_drv_flags |= IFF_DRV_RUNNING;
  }
  if_transmit(_ifp: Ifnet, m: Mbuf): Errno {
    for (let n: Mbuf | null = m; n !== null; n = n.m_next)
      if ((n.m_flags & M_NOMAP) !== 0) this.unmapped++;
    this.#sent.push(chainBytes(m));
    m_freem(m);
    return 0;
  }
  if_qflush(): void {}
  if_txflush(): void {}
  if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
    if (command === SIOCSIFFLAGS) this.if_init(ifp);
    else if (command === SIOCSIFCAP) ifp.if_capenable = data;
    else return ether_ioctl(ifp, command, data);
    return 0;
  }
  /** The frames of IPv6 that are not MLD's or ND's. */
  frames(): Uint8Array[] {
    const sent = this.#sent.splice(0);
    return sent.filter((f) => isSix(f) && !isMld(f) && !(f[20] === 58 && f[54]! > 132));
  }
  take(): Packet6[] {
    return this.frames().map((frame) => decode6(frame));
  }
}

describe('ip6_forward', () => {
  let rig: Rig6;
  let port: Port;
  const boot = (capabilities = 0, mtu = 1500): void => {
    rig = new Rig6({ capabilities });
    port = new Port(rig, capabilities, mtu);
    inPass(() =>
      nd6_cache_lladdr(
        port.ifp,
        parseIn6(GATEWAY)!,
        Uint8Array.from(mac(GATEWAY_MAC)),
        ND_NEIGHBOR_ADVERT,
      ),
    );
    expect(
      in6RouteAddGateway(rig.vnet, parseIn6('2001:db8:f::')!, 48, parseIn6(GATEWAY)!),
    ).to.equal(0);
    set('forwarding', 1);
    set('redirect', 0);
  };
  afterEach(() => {
    inPass(ether_ifdetach, port.ifp);
    rig.close();
  });
  const neighbour = (ifp: Ifnet, a: string): Parameters<typeof nd6_cache_lladdr> => [
    ifp,
    parseIn6Zone(rig.vnet, a)!,
    Uint8Array.from(mac(GATEWAY_MAC)),
    ND_NEIGHBOR_ADVERT,
  ];
  const set = (name: string, value: number): void =>
    expect(rig.vnet.sysctl.write(`net.inet6.ip6.${name}`, `${value}`)).to.equal(0) as never;
  const packet = (n = 10, more: object = {}, nxt = NXT): Uint8Array =>
    buildIp6({ src: PEER6, dst: FAR, ...more }, nxt, new Uint8Array(n).fill(5));

  it('is off by default, and then drops the packet', () => {
    boot();
    set('forwarding', 0);
    rig.inject6(packet());
    expect(port.take()).to.deep.equal([]);
    expect(rig.error6()).to.equal(null);
    expect(rig.stat6).to.include({ ip6s_cantforward: 1, ip6s_forward: 0 });
  });

  it('sends the packet on with hop limit - 1 and everything else unchanged', () => {
    boot();
    const { ip6s_localout } = rig.stat6;
    const p = packet(1000, { hlim: 9, tclass: 0x1c });
    rig.inject6(p);
    const [frame, ...more] = port.frames();
    expect(more).to.deep.equal([]);
    expect([...frame!.subarray(0, 6)]).to.deep.equal(mac(GATEWAY_MAC));
    p[7]! -= 1;
    expect([...frame!.subarray(14)]).to.deep.equal([...p]);
    expect(rig.stat6).to.include({ ip6s_forward: 1, ip6s_localout, ip6s_cantforward: 0 });
  });

  it('reports an expired hop limit, a missing route and the MTU, quoting the packet', () => {
    boot(0, 1400);
    rig.inject6(packet(10, { hlim: 1 }));
    expect(rig.error6()).to.deep.equal([3, 0, 0]);
    rig.inject6(packet(10, { dst: '2600::1' }));
    expect(rig.error6()).to.deep.equal([1, 0, 0]);
    expect(rig.stat6.ip6s_noroute).to.equal(1);
    rig.inject6(packet(1360));
    expect(port.take().length).to.equal(1);
    const big = packet(1361);
    rig.inject6(big);
    const [error] = rig.take6();
    expect(error!.src).to.deep.equal(ip6(US6));
    expect([...error!.body.subarray(0, 8)].filter((_, i) => i !== 2 && i !== 3)).to.deep.equal([
      2,
      0,
      0,
      0,
      1400 >> 8,
      1400 & 255,
    ]);
    expect([...error!.body.subarray(8)]).to.deep.equal([...big.subarray(0, 1232)]);
    // A smaller MTU of the route counts.
    in6RouteAddGateway(rig.vnet, parseIn6(FAR)!, 128, parseIn6(GATEWAY)!, 1300);
    rig.inject6(packet(1300));
    expect(rig.error6()).to.deep.equal([2, 0, 1300]);
  });

  it('reports a next hop that does not answer', () => {
    boot();
    const errors: unknown[] = [];
    for (let i = 0; i < 6; i++) {
      rig.inject6(packet(10, { dst: '2001:db8:2::77' }));
      rig.advance(1100);
      errors.push(...rig.take6().map(({ body }) => [body[0], body[1]]));
    }
    expect(errors).to.deep.include([1, 3]);
  });

  it('does not forward from a link-local address to another link: beyond scope', () => {
    boot();
    rig.inject6(packet(10, { src: PEER_LL }));
    const [error] = rig.take6();
    expect([error!.src, error!.dst]).to.deep.equal([ip6(US_LL), ip6(PEER_LL)]);
    expect([...error!.body.subarray(0, 2)]).to.deep.equal([1, 2]);
    expect(port.take()).to.deep.equal([]);
    expect(rig.stat6).to.include({ ip6s_badscope: 1, ip6s_cantforward: 1 });
  });

  it('a link-local destination never leaves its link, also by the default route', () => {
    boot();
    const gateway = parseIn6Zone(rig.vnet, 'fe80::9%tn1')!;
    expect(in6RouteAddGateway(rig.vnet, parseIn6('::')!, 0, gateway)).to.equal(0);
    rig.inject6(packet(10, { dst: 'fe80::1234' }));
    rig.advance(5000);
    expect(port.take()).to.deep.equal([]);
  });

  const never: [name: string, fields: object, mac?: string][] = [
    ['to a group', { dst: 'ff0e::5' }, '33:33:00:00:00:05'],
    ['from ::', { src: '::' }],
    ['from a group', { src: 'ff0e::5' }],
    ['in a broadcast frame', {}, 'ff:ff:ff:ff:ff:ff'],
    ['in a multicast frame', {}, '33:33:00:00:00:01'],
    ['to ::1', { dst: '::1' }],
    ['from ::1', { src: '::1' }],
    ['from our own address', { src: US6 }],
    ['to a v4-mapped address', { dst: '::ffff:102:304' }],
  ];
  for (const [name, fields, dst] of never)
    it(`never forwards a packet ${name}`, () => {
      boot();
      expect(in6RouteAddGateway(rig.vnet, parseIn6('::')!, 0, parseIn6(GATEWAY)!)).to.equal(0);
      rig.inject6(packet(10, fields), dst);
      expect(port.take()).to.deep.equal([]);
      expect(rig.take6()).to.deep.equal([]);
      expect(rig.stat6.ip6s_forward).to.equal(0);
    });

  it('processes hop-by-hop options, and passes other headers and fragments unseen', () => {
    boot();
    const ext = (option: number[], nxt = NXT): Uint8Array =>
      buildIp6({ src: PEER6, dst: FAR }, 0, [nxt, 0, ...option, 1, 2, 3]);
    rig.inject6(ext([5, 2, 0, 0, 1, 0]));
    expect(port.take()).to.have.lengthOf(1);
    rig.inject6(ext([0x47, 4, 0, 0, 0, 0]));
    rig.inject6(ext([0x87, 4, 0, 0, 0, 0]));
    expect(port.take()).to.deep.equal([]);
    expect(rig.error6()).to.deep.equal([4, 2, 42]);
    for (const nxt of [43, 44, 60]) {
      rig.inject6(packet(16, {}, nxt));
      expect(port.take(), `${nxt}`).to.have.lengthOf(1);
    }
    // Bytes behind the payload are not sent on; a packet that is too short is dropped.
    const padded = Uint8Array.from([...packet(10), 0, 0, 0]);
    rig.inject6(padded);
    expect(port.take()[0]!.body.length).to.equal(10);
    rig.inject6(packet(10, { plen: 11 }));
    expect(port.take()).to.deep.equal([]);
  });

  it('redirects the sender to a router or host on its own link', () => {
    boot();
    set('redirect', 1);
    const near = '2001:db8::9';
    inPass(() => nd6_cache_lladdr(...neighbour(rig.ifp, near)));
    expect(
      in6RouteAddGateway(rig.vnet, parseIn6('2600::')!, 32, parseIn6Zone(rig.vnet, `fe80::9%tn0`)!),
    ).to.equal(0);
    inPass(() => nd6_cache_lladdr(...neighbour(rig.ifp, 'fe80::9%tn0')));
    for (const [dst, target] of [
      ['2600::1', 'fe80::9'],
      [near, near],
    ] as const) {
      rig.sent.length = 0;
      const p = packet(1300, { dst });
      rig.inject6(p);
      const [forwarded, redirect, ...more] = rig.take6();
      expect(more).to.deep.equal([]);
      expect(forwarded!.hlim).to.equal(63);
      expect([redirect!.src, redirect!.dst, redirect!.hlim]).to.deep.equal([
        ip6(US_LL),
        ip6(PEER6),
        255,
      ]);
      const b = redirect!.body;
      expect([b[0], b[1]]).to.deep.equal([137, 0]);
      expect([...b.subarray(8, 24)]).to.deep.equal(ip6(target));
      expect([...b.subarray(24, 40)]).to.deep.equal(ip6(dst));
      // Target link-layer address, then the redirected header with the packet that arrived.
      expect([...b.subarray(40, 48)]).to.deep.equal([2, 1, ...mac(GATEWAY_MAC)]);
      expect(b[48]).to.equal(4);
      expect([...b.subarray(56)]).to.deep.equal([...p.subarray(0, b.length - 56)]);
      expect(b.length).to.be.within(1200, 1240);
    }
    expect(rig.stat6.ip6s_redirectsent).to.equal(2);
    set('redirect', 0);
    rig.inject6(packet(10, { dst: near }));
    expect(rig.take6()).to.have.lengthOf(1);
    // Not to another link, and not to a sender on another network.
    set('redirect', 1);
    rig.inject6(packet());
    rig.inject6(packet(10, { dst: near, src: '2600:1::1' }));
    expect(rig.take6().filter(({ body }) => body[0] === 137)).to.deep.equal([]);
  });

  it('refuses a routing header of type 0 with segments left: RFC 5095', () => {
    boot();
    const header = [59, 2, 0, 1, 0, 0, 0, 0, ...ip6(FAR)];
    rig.inject6(buildIp6({ src: PEER6, dst: US6 }, 43, header));
    expect(rig.error6()).to.deep.equal([4, 0, 42]);
    expect(port.take()).to.deep.equal([]);
  });

  for (const nomap of [true, false])
    it(`passes unmapped payload through, ${nomap ? 'untouched' : 'converted for this NIC'}`, () => {
      boot(nomap ? IFCAP_NOMAP : 0);
      const header = packet(1000);
      const m = m_gethdr(M_NOWAIT, MT_DATA)!;
      m.m_data += 16;
      mem.set(header.subarray(0, 40), m.m_data);
      m.m_len = 40;
      m.m_next = pgsMbuf({ npgs: 1, last: 1000 });
      m.m_pkthdr.len = header.length;
      m.m_pkthdr.rcvif = rig.ifp;
      payloadReset();
      let read = 0;
      const transmit = port.if_transmit.bind(port);
      port.if_transmit = (ifp, sent) => {
        payloadReasons.forEach((_, i) => (read += payloadBytesRead(i)));
        return transmit(ifp, sent);
      };
      inPass(netisr_dispatch, rig.vnet, NETISR_IPV6, m);
      expect(port.take()).to.have.lengthOf(1);
      expect(port.unmapped).to.equal(nomap ? 1 : 0);
      expect(read, 'payload bytes read').to.equal(0);
    });

  it('completes a checksum field that contains the pseudo-header only', () => {
    boot();
    const tcp = Array.from({ length: 60 }, (_, i) => (i === 12 ? 0x50 : i));
    const sum = pseudo6(ip6(PEER6), ip6(FAR), 6, tcp.length);
    tcp.splice(16, 2, sum >> 8, sum & 255);
    const p = buildIp6({ src: PEER6, dst: FAR }, 6, tcp);
    const m = m_gethdr(M_NOWAIT, MT_DATA)!;
    mem.set(p, m.m_data);
    m.m_len = m.m_pkthdr.len = p.length;
    m.m_pkthdr.rcvif = rig.ifp;
    m.m_pkthdr.csum_flags = CSUM_DATA_VALID;
    inPass(netisr_dispatch, rig.vnet, NETISR_IPV6, m);
    // decode6 verifies the checksum.
    expect(port.take()).to.have.lengthOf(1);
  });

  it('allocates nothing per packet', () => {
    boot();
    const p = packet(1000, {}, 17);
    port.if_transmit = (_ifp, m) => {
      m_freem(m);
      return 0;
    };
    const make = (): Mbuf => {
      const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
      mem.set(p, m.m_data);
      m.m_len = m.m_pkthdr.len = p.length;
      m.m_pkthdr.rcvif = rig.ifp;
      return m;
    };
    const forward = (): void => ip6_input(make(), rig.vnet);
    const own = bytesPerCall(() => m_freem(make()));
    expect(inPass(bytesPerCall, forward) - own).to.be.below(8);
    expect(rig.stat6.ip6s_forward).to.be.above(1000);
  }).timeout(60_000);

  it('switches LRO off, also on interfaces that come later', () => {
    boot(IFCAP_LRO);
    expect(rig.ifp.if_capenable & IFCAP_LRO).to.equal(0);
    const later = if_alloc(rig.vnet, 'tn2');
    later.if_driver = port;
    later.if_capabilities = later.if_capenable = IFCAP_LRO;
    ether_ifattach(later, Uint8Array.from(mac('02:00:00:00:02:02')));
    expect(later.if_capenable & IFCAP_LRO).to.equal(0);
    inPass(ether_ifdetach, later);
  });
});
