/** Text of addresses, zones, routes and the addresses of an interface. */

import { expect } from 'chai';
import { IFF_UP } from '../../src/net/if_var.ts';
import { ifhwioctl } from '../../src/net/if.ts';
import { in6Ntop, parseIn6 } from '../../src/netinet6/in6.ts';
import {
  fib6_lookup,
  in6RouteAddGateway,
  in6RouteDel,
  in6Routes,
} from '../../src/netinet6/in6_fib.ts';
import { in6_aifaddr, in6_difaddr } from '../../src/netinet6/in6_ifattach.ts';
import { in6Ifaddrs } from '../../src/netinet6/in6_var.ts';
import { ip6_sprintf, parseIn6Zone } from '../../src/netinet6/scope6.ts';
import { EADDRNOTAVAIL, EEXIST, EINVAL, ENETUNREACH, ESRCH } from '../../src/sys/errno.ts';
import { Rig } from '../netinet/rig.ts';

const a = (text: string): NonNullable<ReturnType<typeof parseIn6>> => parseIn6(text)!;

describe('in6: text', () => {
  it('formats as RFC 5952 does', () => {
    for (const text of [
      '::',
      '::1',
      '2001:db8::1',
      '2001:db8:0:1:1:1:1:1',
      '2001:0:0:1::1',
      'fe80::ff:fe00:1',
      '::ffff:192.0.2.1',
      '1:2:3:4:5:6:7:8',
      '1::',
    ])
      expect(in6Ntop(a(text))).to.equal(text);
  });

  it('parses every form, and nothing else', () => {
    expect(in6Ntop(a('2001:DB8:0:0:0:0:0:1'))).to.equal('2001:db8::1');
    expect(in6Ntop(a('64:ff9b::192.0.2.33'))).to.equal('64:ff9b::c000:221');
    expect(in6Ntop(a('1:2:3:4:5:6:7::'))).to.equal('1:2:3:4:5:6:7:0');
    for (const text of [
      '',
      ':',
      ':::',
      '1',
      '1:2:3:4:5:6:7',
      '1:2:3:4:5:6:7:8:9',
      '1::2::3',
      '12345::',
      'g::',
      '1:2:3:4:5:6:7::8',
      '::256.1.1.1',
      '::1.2.3',
      '::01.2.3.4',
      '1.2.3.4',
      '::1%lo0',
      ' ::1',
    ])
      expect(parseIn6(text), text).to.equal(null);
  });
});

describe('in6: an interface', () => {
  let h: Rig;
  beforeEach(() => {
    h = new Rig();
  });
  afterEach(() => h.close());

  const addresses = (): string[] =>
    in6Ifaddrs(h.vnet).map((ia) => ip6_sprintf(h.vnet, ia.ifa_addr));

  it('has no IPv6 before it gets an address', () => {
    expect(addresses()).to.deep.equal(['::1', 'fe80::1%lo0']);
    expect(ifhwioctl(h.ifp, 'SIOCSIFFLAGS', h.ifp.if_flags | IFF_UP)).to.equal(0);
    expect(addresses()).to.deep.equal(['::1', 'fe80::1%lo0']);
  });

  it('gets and loses addresses with their routes', () => {
    expect(in6_aifaddr(h.ifp, a('2001:db8::1'), 64)).to.equal(0);
    expect(in6_aifaddr(h.ifp, a('2001:db8::2'), 64)).to.equal(0);
    expect(addresses().slice(2)).to.deep.equal([
      'fe80::ff:fe00:2%tn0',
      '2001:db8::1',
      '2001:db8::2',
    ]);
    expect(in6_difaddr(h.ifp, a('2001:db8::1'))).to.equal(0);
    // The other address keeps the route to the prefix.
    expect(fib6_lookup(h.vnet, a('2001:db8::9'))?.nh_ifp).to.equal(h.ifp);
    expect(in6_difaddr(h.ifp, a('2001:db8::2'))).to.equal(0);
    expect(fib6_lookup(h.vnet, a('2001:db8::9'))).to.equal(null);
    expect(in6_difaddr(h.ifp, a('2001:db8::2'))).to.equal(EADDRNOTAVAIL);
  });

  it('refuses what is no address, and an address of another interface', () => {
    for (const text of ['::', 'ff02::1']) expect(in6_aifaddr(h.ifp, a(text), 64)).to.equal(EINVAL);
    for (const plen of [-1, 129, 1.5])
      expect(in6_aifaddr(h.ifp, a('2001:db8::1'), plen)).to.equal(EINVAL);
    expect(in6_aifaddr(h.ifp, a('::1'), 128)).to.equal(EEXIST);
    const lifetime = { vltime: 10, pltime: 20 };
    expect(in6_aifaddr(h.ifp, a('2001:db8::1'), 64, 0, lifetime)).to.equal(EINVAL);
  });

  it('has routes by gateways', () => {
    expect(in6RouteAddGateway(h.vnet, a('::'), 0, a('2001:db8::9'))).to.equal(ENETUNREACH);
    expect(in6_aifaddr(h.ifp, a('2001:db8::1'), 64)).to.equal(0);
    expect(in6RouteAddGateway(h.vnet, a('::'), 0, a('2001:db8::9'))).to.equal(0);
    const gateway = parseIn6Zone(h.vnet, 'fe80::9%tn0')!;
    expect(in6RouteAddGateway(h.vnet, a('2001:db8:1::'), 48, gateway)).to.equal(0);
    const via = fib6_lookup(h.vnet, a('2001:db8:1::5'))!.nh_gateway;
    expect(ip6_sprintf(h.vnet, via)).to.equal('fe80::9%tn0');
    expect(in6Routes(h.vnet).at(-1)!.rt_prefixlen).to.equal(0);
    expect(in6RouteDel(h.vnet, a('2001:db8:1::'), 48)).to.equal(0);
    expect(in6RouteDel(h.vnet, a('2001:db8:1::'), 48)).to.equal(ESRCH);
  });

  it('is the zone of link-local addresses', () => {
    const { vnet } = h;
    for (const text of ['fe80::1%tn0', 'fe80::1%lo0', 'ff02::1%tn0', '2001:db8::1', 'fe80::1'])
      expect(ip6_sprintf(vnet, parseIn6Zone(vnet, text)!)).to.equal(text);
    expect(ip6_sprintf(vnet, parseIn6Zone(vnet, `fe80::1%${h.ifp.if_index}`)!)).to.equal(
      'fe80::1%tn0',
    );
    for (const text of [
      'fe80::1%tn9',
      'fe80::1%',
      'fe80::1%99',
      '2001:db8::1%tn0',
      'fe80::1%tn0%1',
    ])
      expect(parseIn6Zone(vnet, text), text).to.equal(null);
  });
});
