/** Redirects: RFC 4861, 8. */

import { expect } from 'chai';
import { m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { M_ALIGN, M_NOWAIT, MT_DATA, mtod } from '../../src/kern/mbuf.ts';
import { soSendDgram } from '../../src/kern/sys_generic.ts';
import { soconnect, type Socket } from '../../src/kern/uipc_socket.ts';
import { Nhop, RTF_DYNAMIC, RTF_GATEWAY } from '../../src/net/route.ts';
import { icmp6_redirect_output } from '../../src/netinet6/icmp6_redirect.ts';
import { V_icmp6 } from '../../src/netinet6/icmp6_var.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { fib6_lookup, in6RouteAddGateway, in6Routes } from '../../src/netinet6/in6_fib.ts';
import { in6ifa_ifpforlinklocal } from '../../src/netinet6/in6_var.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { nd6Table } from '../../src/netinet6/nd6.ts';
import { V_nd6 } from '../../src/netinet6/nd6_var.ts';
import { parseIn6Zone } from '../../src/netinet6/scope6.ts';
import { inPass } from '../../src/sys/pass.ts';
import { counted, R_ND6_BAD } from '../../src/sys/reason.ts';
import { mem, memView } from '../../src/vm/arena.ts';
import { mac } from '../support/frames.ts';
import { buildIcmp6, ip6 } from '../support/six.ts';
import { advert, lla, O, R, REDIRECT, redirect, S, SLLA, solicit, TLLA } from './nd6_messages.ts';
import { sin6 } from './pair.ts';
import { PEER6, PEER_LL, Rig6, US6, US_LL } from './rig6.ts';

const FAR = '2001:db8:9::9';
const ROUTER2 = 'fe80::2:2';
const ROUTER2_MAC = '02:00:00:00:22:22';
const FROM = { src: PEER_LL, dst: US6 };

describe('a redirect', () => {
  let h: Rig6;
  let so: Socket;
  beforeEach(() => {
    h = new Rig6();
    const gateway = parseIn6Zone(h.vnet, `${PEER_LL}%tn0`)!;
    expect(in6RouteAddGateway(h.vnet, parseIn6('::')!, 0, gateway)).to.equal(0);
    so = h.udp6(7000);
    expect(soconnect(so, sin6(FAR, 9))).to.equal(0);
  });
  afterEach(() => h.close());

  /** The Ethernet address to which a packet for `FAR` is sent, '' if it waits for a neighbour. */
  const via = (): string => {
    soSendDgram(so, Uint8Array.from([1]), 0, 1, null);
    const frame = h.sent.find((f) => f[20] === 17);
    h.sent.length = 0;
    return frame === undefined
      ? ''
      : [...frame.subarray(0, 6)].map((b) => b.toString(16).padStart(2, '0')).join(':');
  };
  const dynamic = (): number =>
    in6Routes(h.vnet).filter(({ rt_nhop }) => (rt_nhop.nh_flags & RTF_DYNAMIC) !== 0).length;
  const stat = () => V_icmp6(h.vnet).stat;
  const toRouter2 = (options = lla(TLLA, ROUTER2_MAC)): void =>
    h.inject6(redirect(FROM, ROUTER2, FAR, options));

  it('to another router: packets take it immediately, until redirtimeout', () => {
    expect(via()).to.equal('02:00:00:00:00:01');
    toRouter2();
    expect(via()).to.equal(ROUTER2_MAC);
    const entry = nd6Table(h.ifp)!.find(parseIn6Zone(h.vnet, `${ROUTER2}%tn0`)!)!;
    expect(entry.ln_router).to.equal(true);
    const nh = fib6_lookup(h.vnet, parseIn6(FAR)!)!;
    expect(nh.nh_flags & (RTF_DYNAMIC | RTF_GATEWAY)).to.equal(RTF_DYNAMIC | RTF_GATEWAY);
    h.advance(599_000);
    expect(via()).to.equal(ROUTER2_MAC);
    h.advance(2000);
    expect([via(), dynamic()]).to.deep.equal(['02:00:00:00:00:01', 0]);
  });

  it('without the address of the router causes its resolution', () => {
    toRouter2([]);
    expect(via()).to.equal('');
    h.inject6(advert({ src: ROUTER2, dst: US_LL }, ROUTER2, R | S | O, lla(TLLA, ROUTER2_MAC)));
    expect(via()).to.equal(ROUTER2_MAC);
  });

  it('to the destination itself: it is on the link', () => {
    h.inject6(redirect(FROM, FAR, FAR, lla(TLLA, '02:00:00:00:99:99')));
    expect(via()).to.equal('02:00:00:00:99:99');
    expect(fib6_lookup(h.vnet, parseIn6(FAR)!)!.nh_flags & RTF_GATEWAY).to.equal(0);
  });

  it('of the new router replaces the route; one of the old router is refused', () => {
    toRouter2();
    toRouter2();
    expect(stat().icp6s_badredirect).to.equal(1);
    h.inject6(redirect({ src: ROUTER2, dst: US6 }, 'fe80::3', FAR, lla(TLLA, '02:00:00:00:00:33')));
    expect([via(), dynamic()]).to.deep.equal(['02:00:00:00:00:33', 1]);
  });

  it('is ignored with rediraccept=0 and by a router', () => {
    V_icmp6(h.vnet).params.rediraccept = 0;
    toRouter2();
    V_icmp6(h.vnet).params.rediraccept = 1;
    V_ip6(h.vnet).params.forwarding = true;
    toRouter2();
    expect([via(), stat().icp6s_badredirect]).to.deep.equal(['02:00:00:00:00:01', 0]);
  });

  it('redirtimeout takes effect', () => {
    V_icmp6(h.vnet).params.redirtimeout = 5;
    toRouter2();
    h.advance(5001);
    expect(dynamic()).to.equal(0);
  });

  it('route ends when its router does not answer, or is no longer a router', () => {
    toRouter2();
    h.inject6(advert({ src: ROUTER2, dst: US_LL }, ROUTER2, O, lla(TLLA, ROUTER2_MAC)));
    expect([via(), dynamic()], 'no router').to.deep.equal(['02:00:00:00:00:01', 0]);
    toRouter2();
    const table = nd6Table(h.ifp)!;
    inPass(() => table.free(table.find(parseIn6Zone(h.vnet, `${ROUTER2}%tn0`)!)!));
    expect([via(), dynamic()], 'no answer').to.deep.equal(['02:00:00:00:00:01', 0]);
  });

  it('routes are at most 128', () => {
    for (let i = 1; i <= 200; i++)
      h.inject6(redirect(FROM, ROUTER2, `2001:db8:9::${i.toString(16)}`, lla(TLLA, ROUTER2_MAC)));
    expect(dynamic()).to.equal(128);
  });

  // RFC 4861, 8.1.
  const invalid: [string, Uint8Array][] = [
    ['from a global address', redirect({ ...FROM, src: PEER6 }, ROUTER2, FAR)],
    ['with hop limit 254', redirect({ ...FROM, hlim: 254 }, ROUTER2, FAR)],
    ['from another router', redirect({ ...FROM, src: 'fe80::7' }, ROUTER2, FAR)],
    ['about a group', redirect(FROM, ROUTER2, 'ff0e::9')],
    ['about a neighbour', redirect(FROM, ROUTER2, PEER6)],
    ['about ourselves', redirect(FROM, ROUTER2, US6)],
    ['to a global address other than the destination', redirect(FROM, '2001:db8::7', FAR)],
    ['to ourselves', redirect(FROM, US_LL, FAR)],
    ['with a long address option', redirect(FROM, ROUTER2, FAR, [2, 2, ...Array(14).fill(0)])],
  ];
  for (const [what, packet] of invalid)
    it(`${what} is refused`, () => {
      V_nd6(h.vnet).params.nd6_debug = 1;
      h.inject6(packet);
      expect([dynamic(), stat().icp6s_badredirect, counted(R_ND6_BAD)]).to.deep.equal([0, 1, 1]);
      expect(h.console.at(-1)).to.match(/^ICMP6 redirect rejected; /);
    });

  const malformed: [string, Uint8Array, 'icp6s_badcode' | 'icp6s_badlen' | 'icp6s_nd_badopt'][] = [
    [
      'of 39 bytes',
      buildIcmp6({ ...FROM, hlim: 255 }, [REDIRECT, ...Array(38).fill(0)]),
      'icp6s_badlen',
    ],
    [
      'with code 1',
      buildIcmp6({ ...FROM, hlim: 255 }, [REDIRECT, 1, ...Array(38).fill(0)]),
      'icp6s_badcode',
    ],
    [
      'with an option of length 0',
      redirect(FROM, ROUTER2, FAR, [2, 0, 0, 0, 0, 0, 0, 0]),
      'icp6s_nd_badopt',
    ],
    [
      'with an option that ends behind it',
      redirect(FROM, ROUTER2, FAR, [2, 2, 0, 0, 0, 0, 0, 0]),
      'icp6s_nd_badopt',
    ],
  ];
  for (const [what, packet, counter] of malformed)
    it(`${what} is refused`, () => {
      h.inject6(packet);
      expect([dynamic(), stat()[counter], counted(R_ND6_BAD)]).to.deep.equal([0, 1, 1]);
    });

  it('in mbufs of any size, with the packet that caused it', () => {
    const packet = buildIcmp6({ src: US6, dst: FAR }, [128, 0, 0, 0, ...Array(1000).fill(7)]);
    const header = [4, (packet.length + 8 + 4) >> 3, 0, 0, 0, 0, 0, 0, ...packet, 0, 0, 0, 0];
    for (const piece of [0, 100, 40]) {
      h.inject6(
        redirect(FROM, ROUTER2, FAR, [...lla(TLLA, ROUTER2_MAC), ...header]),
        undefined,
        piece,
      );
      expect(dynamic(), `${piece}`).to.equal(1);
      h.advance(601_000);
    }
  });
});

describe('a redirect is sent', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6();
    V_ip6(h.vnet).params.forwarding = true;
  });
  afterEach(() => h.close());

  /** Sends one about a packet of `size` bytes from `src` to `dst` that left by `gateway`. */
  function output(src: string, dst: string, gateway: string | null, size = 100): void {
    const packet = buildIcmp6({ src, dst }, [128, 0, 0, 0, ...Array(size - 44).fill(5)]);
    const m = m_gethdr(M_NOWAIT, MT_DATA)!;
    M_ALIGN(m, size);
    mem.set(packet, mtod(m));
    m.m_len = m.m_pkthdr.len = size;
    m.m_pkthdr.rcvif = h.ifp;
    for (const at of [8, 24])
      if (memView.getUint16(mtod(m) + at) === 0xfe80)
        memView.setUint16(mtod(m) + at + 2, h.ifp.if_index);
    const hop = gateway === null ? null : parseIn6Zone(h.vnet, gateway)!;
    const nh = new Nhop(h.ifp, in6ifa_ifpforlinklocal(h.ifp, 0)!, hop, 0, 0);
    inPass(icmp6_redirect_output, m, nh);
  }

  it('to the better router, with its address and the packet', () => {
    h.inject6(solicit({ src: ROUTER2, dst: US_LL }, US_LL, lla(SLLA, ROUTER2_MAC)));
    h.take6();
    output(PEER6, FAR, `${ROUTER2}%tn0`);
    const [rd, ...more] = h.take6();
    expect(more).to.deep.equal([]);
    expect([rd!.src, rd!.dst, rd!.hlim]).to.deep.equal([ip6(US_LL), ip6(PEER6), 255]);
    const { body } = rd!;
    expect([...body.subarray(0, 2), ...body.subarray(4, 40)]).to.deep.equal([
      REDIRECT,
      0,
      0,
      0,
      0,
      0,
      ...ip6(ROUTER2),
      ...ip6(FAR),
    ]);
    expect([...body.subarray(40, 48)]).to.deep.equal([2, 1, ...mac(ROUTER2_MAC)]);
    // 100 bytes are padded to 104.
    expect([...body.subarray(48, 56)]).to.deep.equal([4, 14, 0, 0, 0, 0, 0, 0]);
    expect(body).to.have.lengthOf(56 + 104);
    expect([...body.subarray(56 + 8, 56 + 40)]).to.deep.equal([...ip6(PEER6), ...ip6(FAR)]);
    expect([...body.subarray(156)]).to.deep.equal([0, 0, 0, 0]);
    expect(V_icmp6(h.vnet).stat.icp6s_oredirect).to.equal(1);
    expect(V_icmp6(h.vnet).stat.icp6s_outhist[REDIRECT]).to.equal(1);
  });

  it('to a destination on the link, without an address if it is not known', () => {
    output(PEER_LL, '2001:db8::44', null);
    const [rd] = h.take6();
    expect([...rd!.body.subarray(8, 40)]).to.deep.equal([
      ...ip6('2001:db8::44'),
      ...ip6('2001:db8::44'),
    ]);
    expect(rd!.body[40]).to.equal(4);
    expect([...rd!.body.subarray(48 + 8, 48 + 24)], 'no zone').to.deep.equal(ip6(PEER_LL));
  });

  it('only by a router, to a neighbour, about unicast, to a link-local router, at most 100 a second', () => {
    V_ip6(h.vnet).params.forwarding = false;
    output(PEER6, FAR, `${ROUTER2}%tn0`);
    V_ip6(h.vnet).params.forwarding = true;
    output('2001:db8:7::7', FAR, `${ROUTER2}%tn0`);
    output(PEER6, 'ff0e::7', `${ROUTER2}%tn0`);
    output(PEER6, FAR, '2001:db8::7');
    expect(h.take6()).to.deep.equal([]);
    for (let i = 0; i < 150; i++) output(PEER6, FAR, `${ROUTER2}%tn0`);
    expect(h.take6()).to.have.lengthOf(100);
    expect(V_icmp6(h.vnet).stat.icp6s_toofreq).to.equal(50);
  });
});
