/** Router discovery: solicitations, advertisements, default routers, prefixes. */

import { expect } from 'chai';
import { in6_aifaddr, in6_difaddr } from '../../src/netinet6/in6_ifattach.ts';
import { in6RouteAddGateway, in6RouteDel, in6Routes } from '../../src/netinet6/in6_fib.ts';
import { in6addr_any, in6Ntop, in6Sockaddr, parseIn6 } from '../../src/netinet6/in6.ts';
import {
  IN6_IFF_NODAD,
  in6Ifextra,
  ND6_IFF_ACCEPT_RTADV,
  ND6_IFF_IFDISABLED,
} from '../../src/netinet6/in6_var.ts';
import { nd6Table } from '../../src/netinet6/nd6.ts';
import { nd6_setflags } from '../../src/netinet6/nd6_flags.ts';
import { nd6Dnslist } from '../../src/netinet6/nd6_dns.ts';
import {
  nd6Defaultiface,
  nd6Drlist,
  nd6FlushPrefixes,
  nd6FlushRouters,
  nd6Ifinfo,
  nd6Prlist,
  nd6_setdefaultiface,
} from '../../src/netinet6/nd6_list.ts';
import { nd6RouterChanged, nd6RouterLost } from '../../src/netinet6/nd6_rtr_var.ts';
import { parseIn6Zone, sa6_embedscope } from '../../src/netinet6/scope6.ts';
import { ifhwioctl, if_down, if_link_state_change } from '../../src/net/if.ts';
import { IFF_UP, LINK_STATE_DOWN, LINK_STATE_UP, SIOCSIFFLAGS } from '../../src/net/if_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { port } from '../../src/sys/types.ts';
import {
  counted,
  R_ICMP6_IGNORED,
  R_ND6_BAD,
  R_ND6_FRAGMENT,
  R_ND6_PREFIXES_FULL,
  R_ND6_ROUTERS_FULL,
} from '../../src/sys/reason.ts';
import { OUR_MAC } from '../netinet/rig.ts';
import { buildEther, mac } from '../support/frames.ts';
import { buildIp6, ETHERTYPE_IPV6, ip6, summed } from '../support/six.ts';
import {
  AUTO,
  AUTO2,
  dnsslOption,
  FOREVER,
  lladdrOption,
  mtuOption,
  PREFIX,
  PREFIX2,
  prefixOption,
  R1,
  R2,
  R3,
  raBody,
  RaRig,
  rdnssOption,
  routerMac,
} from './rig_ra.ts';

const HIGH = 0x08;
const LOW = 0x18;
const RESERVED = 0x10;

describe('nd6_rtr', () => {
  let h: RaRig;
  const rig = (options: ConstructorParameters<typeof RaRig>[0] = {}): RaRig =>
    (h = new RaRig(options));
  afterEach(() => h.close());

  const unknown = (n: number): number[][] =>
    Array.from({ length: n }, () => [200, 1, 0, 0, 0, 0, 0, 0]);
  const lladdrOnly = (src: string): number[][] => [lladdrOption(routerMac(src))];
  const on = (prefix: string, o: Parameters<typeof prefixOption>[1] = {}): number[][] => [
    lladdrOption(routerMac(R1)),
    prefixOption(prefix, o),
  ];

  describe('solicitations', () => {
    it('are sent three times, 4 s apart, from the link-local address', () => {
      rig({ start: false });
      const flags = in6Ifextra(h.ifp)!.nd_ifinfo.flags;
      inPass(nd6_setflags, h.ifp, (flags | ND6_IFF_ACCEPT_RTADV) & ~ND6_IFF_IFDISABLED);
      const times: number[] = [];
      for (let ms = 0; ms < 30_000; ms += 100) {
        h.advance(100);
        for (const rs of h.solicitations()) {
          times.push(ms);
          expect(rs.src.slice(0, 2)).to.deep.equal([0xfe, 0x80]);
          expect([rs.dst, rs.hlim]).to.deep.equal([ip6('ff02::2'), 255]);
          expect([...rs.body.subarray(4)]).to.deep.equal([0, 0, 0, 0, 1, 1, ...mac(OUR_MAC)]);
        }
      }
      expect(times).to.have.lengthOf(3);
      expect([times[1]! - times[0]!, times[2]! - times[1]!]).to.deep.equal([4000, 4000]);
    });

    it('end with the first advertisement, and begin again when the interface comes up again', () => {
      rig({ start: false });
      const flags = in6Ifextra(h.ifp)!.nd_ifinfo.flags;
      const accept = (flags | ND6_IFF_ACCEPT_RTADV) & ~ND6_IFF_IFDISABLED;
      inPass(nd6_setflags, h.ifp, accept);
      h.advance(3500);
      expect(h.solicitations()).to.have.lengthOf(1);
      h.ra();
      h.seconds(60);
      expect(h.solicitations()).to.deep.equal([]);
      inPass(if_down, h.ifp);
      inPass(ifhwioctl, h.ifp, SIOCSIFFLAGS, h.ifp.if_flags | IFF_UP);
      h.seconds(60);
      expect(h.solicitations()).to.have.lengthOf(3);
    });

    it('begin again when the link comes up again, and addresses and routes stay', () => {
      rig();
      h.ra();
      h.settle();
      const before = [h.addresses, h.gateway, h.prefixes];
      inPass(if_link_state_change, h.ifp, LINK_STATE_DOWN);
      h.seconds(30);
      expect(h.solicitations()).to.deep.equal([]);
      inPass(if_link_state_change, h.ifp, LINK_STATE_UP);
      h.seconds(30);
      expect(h.take6().map(({ body }) => body[0])).to.deep.equal([133, 133, 133]);
      expect([h.addresses, h.gateway, h.prefixes]).to.deep.equal(before);
    });

    it('are not sent without accept_rtadv, nor on an interface that is disabled', () => {
      rig({ start: false });
      const flags = in6Ifextra(h.ifp)!.nd_ifinfo.flags;
      inPass(nd6_setflags, h.ifp, flags | ND6_IFF_ACCEPT_RTADV | ND6_IFF_IFDISABLED);
      h.seconds(30);
      inPass(nd6_setflags, h.ifp, flags & ~(ND6_IFF_ACCEPT_RTADV | ND6_IFF_IFDISABLED));
      h.seconds(30);
      expect(h.solicitations()).to.deep.equal([]);
    });
  });

  describe('an advertisement', () => {
    it('sets the default route, the route to the prefix and the address', () => {
      rig();
      h.ra();
      expect(h.gateway).to.equal(R1);
      expect(h.routers).to.deep.equal(['fe80::1 medium']);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAO 1']);
      h.settle();
      expect(h.addresses).to.deep.equal([`${AUTO} autoconf`]);
      const routes = in6Routes(h.vnet).filter((rt) => rt.rt_nhop.nh_ifp === h.ifp);
      expect(routes.map((rt) => `${h.print(rt.rt_dst)}/${rt.rt_prefixlen}`)).to.deep.equal([
        'fe80::/64',
        '2001:db8:1::/64',
        '::/0',
      ]);
      expect(nd6Table(h.ifp)!.find(parseIn6Zone(h.vnet, `${R1}%tn0`)!)).to.not.equal(null);
    });

    it('is read from mbufs of any size, and with many options', () => {
      rig();
      const body = raBody({
        options: [...unknown(6), ...lladdrOnly(R1), prefixOption(PREFIX)],
      });
      for (const piece of [0, 60, 100]) h.raw(body, {}, piece);
      expect(h.icmp6.icp6s_badra).to.equal(0);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAO 1']);
      // As FreeBSD: the eleventh is the last one.
      h.raw(raBody({ options: [...unknown(10), prefixOption(PREFIX)] }));
      const late = raBody({ options: [...unknown(11), prefixOption(PREFIX2)] });
      h.raw(late);
      expect(h.prefixes).to.have.lengthOf(1);
      expect(h.icmp6.icp6s_nd_toomanyopt).to.equal(2);
    });

    it('sets the times, the hop limit and the MTU of the interface', () => {
      rig();
      h.ra({ reachable: 20_000, retrans: 500, hlim: 100, options: [mtuOption(1400)] });
      const nd = nd6Ifinfo(h.ifp)!;
      expect([nd.basereachable, nd.retrans, nd.chlim, nd.linkmtu]).to.deep.equal([
        20_000, 500, 100, 1400,
      ]);
      expect(nd.reachable).to.be.within(10_000, 30_000);
      h.ra({ reachable: 3_600_001, hlim: 50, options: [mtuOption(1279)] });
      h.ra({ options: [mtuOption(1501)] });
      h.ra({ options: [[5, 2, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]] });
      const after = nd6Ifinfo(h.ifp)!;
      expect([after.basereachable, after.chlim, after.linkmtu]).to.deep.equal([20_000, 100, 1400]);
      expect(h.console.join('\n')).to.match(/hop limit 50[^]*MTU 1279[^]*MTU 1501/);
    });

    it('has flags and preferences, which `ndp -r` shows', () => {
      rig();
      h.ra({ flags: 0xc0 | HIGH, lifetime: 300 });
      const [dr] = nd6Drlist(h.vnet);
      expect(dr).to.include({ managed: true, other: true, pref: 'high', rtlifetime: 300 });
      expect(dr).to.include({ expire: 300, installed: true, ifp: h.ifp });
      h.seconds(100);
      expect(nd6Drlist(h.vnet)[0]!.expire).to.equal(200);
    });

    it('is ignored without accept_rtadv', () => {
      rig({ start: false });
      inPass(in6_aifaddr, h.ifp, parseIn6('2001:db8::2')!, 64, IN6_IFF_NODAD);
      h.ra();
      expect(h.routers).to.deep.equal([]);
      expect(counted(R_ICMP6_IGNORED)).to.equal(1);
    });

    it('without routers (no_radr) gives prefixes, but no default route', () => {
      rig({ radr: false });
      h.ra();
      expect([h.gateway, h.routers]).to.deep.equal([null, []]);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAO 1']);
    });

    it('of a router is used by a host that forwards only with rfc6204w3', () => {
      rig();
      h.vnet.sysctl.write('net.inet6.ip6.forwarding', '1');
      h.ra();
      expect([h.gateway, h.prefixes.length]).to.deep.equal([null, 1]);
      h.vnet.sysctl.write('net.inet6.ip6.rfc6204w3', '1');
      h.ra();
      expect(h.gateway).to.equal(R1);
    });

    it('with a fragment header is ignored: RFC 6980', () => {
      rig();
      const message = summed({ src: R1, dst: 'ff02::1' }, 58, raBody({ options: on(PREFIX) }), 2);
      const packet = buildIp6({ src: R1, dst: 'ff02::1', hlim: 255 }, 44, [
        58,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        ...message,
      ]);
      h.inject(
        buildEther({ dst: '33:33:00:00:00:01', src: routerMac(R1) }, ETHERTYPE_IPV6, packet),
      );
      expect(h.prefixes).to.deep.equal([]);
      expect(counted(R_ND6_FRAGMENT)).to.equal(1);
    });

    it('is dropped if it is malformed: RFC 4861, 6.1.2', () => {
      rig();
      const good = raBody({ options: on(PREFIX) });
      h.raw(good, { ttl: 254 });
      h.raw(good, { src: '2001:db8::1' });
      h.raw(raBody({ code: 1, options: on(PREFIX) }));
      h.raw(good.slice(0, 15));
      h.raw(raBody({ options: [[1, 0, 0, 0, 0, 0, 0, 0]] }));
      h.raw(raBody({ options: [[1, 2, 0, 0, 0, 0, 0, 0]] }));
      h.raw([...raBody({}), 1]);
      h.raw([...raBody({ options: on(PREFIX) }), 200, 32, 1, 2]);
      expect(counted(R_ND6_BAD)).to.equal(8);
      const { icp6s_badra, icp6s_badcode, icp6s_badlen, icp6s_nd_badopt } = h.icmp6;
      expect([icp6s_badra, icp6s_badcode, icp6s_badlen, icp6s_nd_badopt]).to.deep.equal([
        2, 1, 1, 4,
      ]);
      expect([h.routers, h.prefixes, h.addresses]).to.deep.equal([[], [], []]);
    });

    it('with a link-level address of another size counts as bad, but its other options are used', () => {
      rig();
      h.ra({ options: [[1, 2, ...Array(14).fill(0)], prefixOption(PREFIX)] });
      expect(h.icmp6.icp6s_badra).to.equal(1);
      expect(h.prefixes).to.have.lengthOf(1);
    });

    it('with unusable prefixes is used without them', () => {
      rig();
      h.ra({
        options: [
          prefixOption('fe80::'),
          prefixOption('ff02::'),
          prefixOption(PREFIX, { plen: 129 }),
          [...prefixOption(PREFIX, { units: 5 }), 0, 0, 0, 0, 0, 0, 0, 0],
          prefixOption(PREFIX, { valid: 0, preferred: 0 }),
          prefixOption(PREFIX, { flags: 0 }),
        ],
      });
      expect([h.prefixes, h.addresses]).to.deep.equal([[], []]);
      expect(h.routers).to.have.lengthOf(1);
    });
  });

  describe('the default router list', () => {
    it('removes a router when it expires, and at once with lifetime 0', () => {
      rig();
      h.ra({ lifetime: 100 });
      h.seconds(99.9);
      expect(h.gateway).to.equal(R1);
      h.seconds(0.1);
      expect([h.gateway, h.routers]).to.deep.equal([null, []]);
      h.ra({ lifetime: 100 });
      h.ra({ lifetime: 0 });
      expect([h.gateway, h.routers]).to.deep.equal([null, []]);
      h.ra({ lifetime: 65_535 });
      h.seconds(65_000);
      expect(h.gateway).to.equal(R1);
    });

    it('uses the second router when the first one expires', () => {
      rig();
      h.ra({ src: R1, lifetime: 100, options: lladdrOnly(R1) });
      h.ra({ src: R2, lifetime: 200, options: lladdrOnly(R2) });
      expect([h.gateway, h.routers.length]).to.deep.equal([R1, 2]);
      h.seconds(100);
      expect([h.gateway, h.routers.length]).to.deep.equal([R2, 1]);
      h.seconds(100);
      expect([h.gateway, h.routers.length]).to.deep.equal([null, 0]);
    });

    it('prefers by RFC 4191, and a reserved preference is medium', () => {
      rig();
      h.ra({ src: R1, flags: LOW, options: lladdrOnly(R1) });
      h.ra({ src: R2, flags: RESERVED, options: lladdrOnly(R2) });
      expect(h.gateway).to.equal(R2);
      h.ra({ src: R3, flags: HIGH, options: lladdrOnly(R3) });
      expect(h.gateway).to.equal(R3);
      expect(h.routers).to.deep.equal(['fe80::3 high', 'fe80::2 rsv', 'fe80::1 low']);
      h.ra({ src: R3, flags: LOW, options: lladdrOnly(R3) });
      expect(h.routers.at(-1)).to.equal('fe80::3 low');
      expect(h.gateway).to.equal(R2);
    });

    it('does not change to a router of the same preference', () => {
      rig();
      h.ra({ src: R2, options: lladdrOnly(R2) });
      h.ra({ src: R1, options: lladdrOnly(R1) });
      h.ra({ src: R1, options: lladdrOnly(R1) });
      expect(h.gateway).to.equal(R2);
    });

    it('changes to a reachable router, and goes round if none is reachable', () => {
      rig();
      const forget = (router: string): void => {
        const nd = nd6Table(h.ifp)!;
        nd.remove(nd.find(parseIn6Zone(h.vnet, `${router}%tn0`)!)!);
        inPass(nd6RouterChanged, h.ifp);
      };
      h.ra({ src: R1, flags: HIGH, options: lladdrOnly(R1) });
      h.ra({ src: R2, options: lladdrOnly(R2) });
      forget(R1);
      expect(h.gateway, 'the reachable one').to.equal(R2);
      forget(R2);
      expect(h.gateway, 'the next one').to.equal(R1);
      inPass(nd6RouterChanged, h.ifp);
      expect(h.gateway, 'the next one').to.equal(R2);
      h.ra({ src: R1, flags: HIGH, options: lladdrOnly(R1) });
      expect(h.gateway).to.equal(R1);
    });

    it('removes a neighbour that is no longer a router', () => {
      rig();
      h.ra();
      expect(inPass(nd6RouterLost, h.ifp, parseIn6Zone(h.vnet, 'fe80::9%tn0')!)).to.equal(false);
      expect(inPass(nd6RouterLost, h.ifp, parseIn6Zone(h.vnet, `${R1}%tn0`)!)).to.equal(true);
      expect([h.gateway, h.routers]).to.deep.equal([null, []]);
    });

    it('keeps a default route that the user has set, and installs its own after that', () => {
      rig();
      h.ra();
      expect(in6RouteDel(h.vnet, in6addr_any, 0)).to.equal(0);
      const via = parseIn6('2001:db8:1::99')!;
      expect(in6RouteAddGateway(h.vnet, in6addr_any, 0, via)).to.equal(0);
      h.ra();
      expect(h.gateway).to.equal('2001:db8:1::99');
      h.ra({ lifetime: 0 });
      expect(h.gateway).to.equal('2001:db8:1::99');
      h.ra();
      expect(in6RouteDel(h.vnet, in6addr_any, 0)).to.equal(0);
      h.ra();
      expect(h.gateway).to.equal(R1);
    });

    it('is bounded', () => {
      rig();
      for (let i = 0; i < 1000; i++) h.ra({ src: `fe80::1:${i.toString(16)}`, options: [] });
      expect(h.routers).to.have.lengthOf(16);
      expect(counted(R_ND6_ROUTERS_FULL)).to.equal(984);
      h.ra({ src: 'fe80::1:0', lifetime: 0, options: [] });
      h.ra({ src: R1, options: [] });
      expect(h.routers).to.have.lengthOf(16).and.include('fe80::1 medium');
    });

    it('is emptied with the interface', () => {
      rig();
      h.ra();
      h.ra({ src: R2 });
      h.close();
      expect(nd6Drlist(h.vnet)).to.deep.equal([]);
      expect(nd6Prlist(h.vnet).filter(({ ifp }) => ifp === h.ifp)).to.deep.equal([]);
      rig();
    });
  });

  describe('the prefix list', () => {
    it('removes a prefix and its route when it expires', () => {
      rig();
      h.ra({ options: on(PREFIX, { flags: 0x80, valid: 60, preferred: 60 }) });
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LO 0']);
      h.seconds(30);
      h.ra({ options: on(PREFIX, { flags: 0x80, valid: 60, preferred: 60 }) });
      h.seconds(59.9);
      expect(h.prefixes).to.have.lengthOf(1);
      h.seconds(0.1);
      expect(h.prefixes).to.deep.equal([]);
      expect(
        in6Routes(h.vnet).some((rt) => rt.rt_prefixlen === 64 && h.print(rt.rt_dst) === PREFIX),
      ).to.equal(false);
    });

    it('keeps an expired prefix of a valid address, off the link', () => {
      rig();
      h.ra({ options: on(PREFIX, { valid: 86_400, preferred: 3600 }) });
      h.settle();
      h.ra({ options: on(PREFIX, { valid: 0, preferred: 0 }) });
      h.seconds(1);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LA 1']);
      expect(h.addresses).to.deep.equal([`${AUTO} deprecated autoconf`]);
      h.seconds(7200);
      expect([h.prefixes, h.addresses]).to.deep.equal([[], []]);
    });

    it('gives an address without a route for a prefix that is not on the link', () => {
      rig();
      h.ra({ options: on(PREFIX, { flags: 0x40 }) });
      h.settle();
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 A 1']);
      expect(h.addresses).to.deep.equal([`${AUTO} autoconf`]);
      h.seconds(60);
      expect(h.addresses).to.have.lengthOf(1);
      // The flag L stays set once it was set.
      h.ra();
      h.ra({ options: on(PREFIX, { flags: 0x40 }) });
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAO 1']);
    });

    it('never ends an infinite lifetime', () => {
      rig();
      h.ra({ options: on(PREFIX, { valid: FOREVER, preferred: FOREVER }) });
      expect(nd6Prlist(h.vnet).at(-1)).to.include({ vltime: FOREVER, expire: null });
      h.seconds(10_000_000);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAO 1']);
      expect(h.addresses).to.deep.equal([`${AUTO} autoconf`]);
    });

    it('contains the prefixes of configured addresses, which advertisements do not end', () => {
      rig();
      const own = parseIn6(`${PREFIX}99`)!;
      inPass(in6_aifaddr, h.ifp, own, 64, IN6_IFF_NODAD);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LO 1']);
      h.ra({ options: on(PREFIX, { valid: 10, preferred: 10 }) });
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAO 2']);
      h.seconds(20);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAO 1']);
      inPass(in6_difaddr, h.ifp, own);
      expect(h.prefixes).to.deep.equal([]);
    });

    it('expires an advertised prefix when the configured address that has kept it is removed', () => {
      rig();
      const own = parseIn6(`${PREFIX}99`)!;
      h.ra();
      inPass(in6_aifaddr, h.ifp, own, 64, IN6_IFF_NODAD);
      h.ra({ options: on(PREFIX, { valid: 0, preferred: 0 }) });
      h.seconds(10);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAO 2']);
      inPass(in6_difaddr, h.ifp, own);
      h.seconds(1);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LA 1']);
    });

    it('keeps the route when one of two addresses is removed', () => {
      rig();
      const [a, b] = [parseIn6(`${PREFIX}98`)!, parseIn6(`${PREFIX}99`)!];
      for (const one of [a, b]) inPass(in6_aifaddr, h.ifp, one, 64, IN6_IFF_NODAD);
      inPass(in6_difaddr, h.ifp, a);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LO 1']);
      const rt = in6Routes(h.vnet).find((one) => h.print(one.rt_dst) === PREFIX)!;
      expect(in6Ntop(rt.rt_nhop.nh_ifa.ifa_addr)).to.equal(`${PREFIX}99`);
    });

    it('detaches prefixes whose router is unreachable, if another router is reachable', () => {
      rig();
      h.ra({ src: R1 });
      h.ra({ src: R2, options: [lladdrOption(routerMac(R2)), prefixOption(PREFIX2)] });
      h.settle();
      const nd = nd6Table(h.ifp)!;
      nd.remove(nd.find(parseIn6Zone(h.vnet, `${R1}%tn0`)!)!);
      inPass(nd6RouterChanged, h.ifp);
      expect(h.gateway).to.equal(R2);
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAD 1', '2001:db8:2::/64 LAO 1']);
      expect(h.addresses).to.deep.equal([`${AUTO} detached autoconf`, `${AUTO2} autoconf`]);
      h.ra({ src: R1 });
      h.settle();
      expect(h.prefixes).to.deep.equal(['2001:db8:1::/64 LAO 1', '2001:db8:2::/64 LAO 1']);
      expect(h.addresses).to.deep.equal([`${AUTO} autoconf`, `${AUTO2} autoconf`]);
    });

    it('is bounded', () => {
      rig();
      for (let i = 0; i < 1000; i++) h.ra({ options: on(`2001:db8:${(i + 16).toString(16)}::`) });
      expect(h.prefixes).to.have.lengthOf(16);
      expect(h.addresses).to.have.lengthOf(16);
      expect(counted(R_ND6_PREFIXES_FULL)).to.equal(984);
      const { advrtrs } = nd6Prlist(h.vnet).at(-1)!;
      expect(advrtrs.map(({ state }) => state)).to.deep.equal(['reachable']);
    });
  });

  describe('a solicitation received', () => {
    const host = 'fe80::7';
    const solicit = (options: number[], ttl = 255, src = host): void =>
      h.raw([133, 0, 0, 0, 0, 0, 0, 0, ...options], { src, dst: 'ff02::1', ttl });
    const entry = (): boolean =>
      nd6Table(h.ifp)!.find(parseIn6Zone(h.vnet, `${host}%tn0`)!) !== null;

    it('adds the neighbour if the host forwards, and the interface is not itself a host', () => {
      rig();
      h.vnet.sysctl.write('net.inet6.ip6.forwarding', '1');
      solicit([1, 1, ...mac(routerMac(host))]);
      expect([entry(), counted(R_ICMP6_IGNORED)]).to.deep.equal([false, 1]);
      const flags = in6Ifextra(h.ifp)!.nd_ifinfo.flags;
      inPass(nd6_setflags, h.ifp, flags & ~ND6_IFF_ACCEPT_RTADV);
      solicit([1, 1, ...mac(routerMac(host))], 254);
      solicit([1, 2, ...Array<number>(14).fill(1)]);
      solicit([1, 0, 0, 0, 0, 0, 0, 0]);
      solicit([], 255, '::');
      expect([entry(), h.icmp6.icp6s_badrs, counted(R_ND6_BAD)]).to.deep.equal([false, 2, 3]);
      solicit([1, 1, ...mac(routerMac(host))]);
      expect(entry()).to.equal(true);
    });

    it('is ignored by a host', () => {
      rig();
      solicit([1, 1, ...mac(routerMac(host))]);
      expect(entry()).to.equal(false);
    });
  });

  it('ndp -I, -P, -R: the default interface, and removal of the lists', () => {
    rig();
    h.ra();
    expect(nd6Defaultiface(h.vnet)).to.equal(null);
    expect(nd6_setdefaultiface(h.vnet, h.ifp)).to.equal(0);
    expect(nd6Defaultiface(h.vnet)).to.equal(h.ifp);
    h.vnet.sysctl.write('net.inet6.ip6.use_defaultzone', '1');
    const sa = in6Sockaddr(parseIn6('fe80::9')!, port(9));
    expect(sa6_embedscope(h.vnet, sa)).to.equal(0);
    expect(sa.w0 & 0xffff).to.equal(h.ifp.if_index);
    expect(nd6_setdefaultiface(h.vnet, null)).to.equal(0);
    inPass(nd6FlushRouters, h.vnet);
    expect([h.gateway, h.routers, h.prefixes.length]).to.deep.equal([null, [], 1]);
    inPass(nd6FlushPrefixes, h.vnet);
    expect([h.prefixes, h.addresses]).to.deep.equal([[], []]);
  });

  describe('DNS options', () => {
    const list = (): string[] =>
      nd6Dnslist(h.ifp).map(({ addr, domain, from }) =>
        [addr === null ? domain : h.print(addr), h.print(from)].join(' from '),
      );

    it('are stored until they expire, wherever they stand', () => {
      rig();
      const servers = rdnssOption(60, '2001:db8::53', 'fe80::53');
      const domains = dnsslOption(120, 'example.com', 'lab.example.net');
      h.ra({ options: [...unknown(12), servers, domains] });
      expect(list()).to.deep.equal([
        '2001:db8::53 from fe80::1',
        'fe80::53 from fe80::1',
        'example.com from fe80::1',
        'lab.example.net from fe80::1',
      ]);
      h.seconds(60);
      expect(list()).to.have.lengthOf(2);
      h.ra({ options: [dnsslOption(0, 'example.com')] });
      expect(list()).to.deep.equal(['lab.example.net from fe80::1']);
      h.seconds(60);
      expect(list()).to.deep.equal([]);
    });

    it('replace the entry that expires first when the list is full', () => {
      rig();
      for (let i = 0; i < 100; i++) {
        const lifetime = i === 3 ? 10 : 1000 + i;
        h.ra({ options: [rdnssOption(lifetime, `2001:db8::${i.toString(16)}`)] });
        h.ra({ options: [dnsslOption(lifetime, `d${i}.example`)] });
      }
      expect(list()).to.have.lengthOf(16);
      expect(list())
        .to.include('2001:db8::63 from fe80::1')
        .and.include('d99.example from fe80::1');
      expect(list()).to.not.include('2001:db8::3 from fe80::1');
    });

    it('are ignored if they are malformed', () => {
      rig();
      const bad = [
        [25, 1, 0, 0, 0, 0, 0, 9],
        [25, 2, 0, 0, 0, 0, 0, 9, ...Array(8).fill(1)],
        [25, 4, 0, 0, 0, 0, 0, 9, ...Array(24).fill(1)],
        [31, 1, 0, 0, 0, 0, 0, 9],
        [31, 2, 0, 0, 0, 0, 0, 9, ...Array(8).fill(0)],
        [31, 2, 0, 0, 0, 0, 0, 9, 7, 97, 97, 97, 97, 97, 97, 97],
        [31, 2, 0, 0, 0, 0, 0, 9, 0xc0, 0, 0, 0, 0, 0, 0, 0],
        [31, 2, 0, 0, 0, 0, 0, 9, 1, 0x0a, 0, 0, 0, 0, 0, 0],
        [31, 2, 0, 0, 0, 0, 0, 9, 9, 97, 97, 97, 97, 97, 97, 97],
      ];
      for (const option of bad) h.ra({ options: [option, prefixOption(PREFIX)] });
      expect(h.icmp6.icp6s_nd_badopt).to.equal(bad.length);
      expect(list()).to.deep.equal([]);
      h.ra({ options: [rdnssOption(60, 'ff02::53', '::')] });
      expect(list()).to.deep.equal([]);
      expect(h.prefixes).to.have.lengthOf(1);
    });
  });
});
