/** Source address selection: the rules of RFC 6724, 5. */

import { expect } from 'chai';
import { V_loif } from '../../src/net/if_loop.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_selectsrc } from '../../src/netinet6/in6_src.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import {
  IN6_IFF_ANYCAST,
  IN6_IFF_DEPRECATED,
  IN6_IFF_NODAD,
  IN6_IFF_TEMPORARY,
  IN6_IFF_TENTATIVE,
  in6Ifaddrs,
  in6Ifextra,
  ND6_IFF_IFDISABLED,
} from '../../src/netinet6/in6_var.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { ip6_sprintf, parseIn6Zone } from '../../src/netinet6/scope6.ts';
import { Rig } from '../netinet/rig.ts';

describe('in6_selectsrc', () => {
  let h: Rig;
  beforeEach(() => {
    h = new Rig();
    V_ip6(h.vnet).params.dad_count = 0;
  });
  afterEach(() => h.close());

  const add = (text: string, plen = 64, flags = 0): void => {
    expect(in6_aifaddr(h.ifp, parseIn6(text)!, plen, IN6_IFF_NODAD | flags)).to.equal(0);
  };
  const flag = (text: string, flags: number): void => {
    const ia = in6Ifaddrs(h.vnet).find(({ ifa_addr: a }) => ip6_sprintf(h.vnet, a) === text);
    ia!.ia6_flags |= flags;
  };
  const source = (dst: string): string | null => {
    const ia = in6_selectsrc(h.vnet, parseIn6Zone(h.vnet, dst)!, h.ifp);
    return ia === null ? null : ip6_sprintf(h.vnet, ia.ifa_addr);
  };
  const LL = 'fe80::ff:fe00:2%tn0';

  it('rule 1: the destination itself', () => {
    add('2001:db8::1');
    add('2001:db8::2');
    expect(source('2001:db8::2')).to.equal('2001:db8::2');
  });

  it('rule 2: the scope', () => {
    add('2001:db8::1');
    expect(source('2001:db8:9::9')).to.equal('2001:db8::1');
    expect(source('fe80::9%tn0')).to.equal(LL);
    expect(source('ff02::9%tn0')).to.equal(LL);
    expect(source('ff0e::9')).to.equal('2001:db8::1');
  });

  it('rule 2: the order of the addresses does not matter', () => {
    add('2001:db8::1');
    add('fe80::9');
    expect(source('2001:db8:9::9')).to.equal('2001:db8::1');
    expect(source('fe80::1:9%tn0')).to.match(/^fe80::/);
  });

  it('rule 5: an address of the outgoing interface, although another one has a longer prefix', () => {
    add('2001:db8:1::1');
    const lo = V_loif(h.vnet).ifp!;
    const other = parseIn6('2001:db8:9::1')!;
    expect(in6_aifaddr(lo, other, 64, IN6_IFF_NODAD)).to.equal(0);
    expect(source('2001:db8:9::9')).to.equal('2001:db8:1::1');
    // But a link-local destination needs an address of its own zone.
    flag('2001:db8:1::1', IN6_IFF_TENTATIVE);
    expect(source('2001:db8:9::9')).to.equal('2001:db8:9::1');
    flag(LL, IN6_IFF_TENTATIVE);
    expect(source('fe80::9%tn0')).to.equal(null);
  });

  it('never an address of an interface with IPv6 disabled', () => {
    add('2001:db8::1');
    const { nd_ifinfo } = in6Ifextra(h.ifp)!;
    nd_ifinfo.flags |= ND6_IFF_IFDISABLED;
    expect(source('2001:db8::9')).to.equal(null);
    nd_ifinfo.flags &= ~ND6_IFF_IFDISABLED;
  });

  it('rule 6: the labels of Teredo and unique local addresses, against longer prefixes', () => {
    add('2001:0:1::1');
    add('2600::1');
    // 2001::/32 has more bits in common.
    expect(source('2001:4860::9')).to.equal('2600::1');
    add('fd00::1');
    expect(source('f000::9')).to.not.equal('fd00::1');
    expect(source('fc00::9')).to.equal('fd00::1');
  });

  it('a link-local address is the last resort, and ::1 none', () => {
    add('fe80::9');
    expect(source('2001:db8::9')).to.equal('fe80::9%tn0');
    flag('fe80::9%tn0', IN6_IFF_TENTATIVE);
    expect(source('2001:db8::9')).to.equal(null);
  });

  it('rule 3: not a deprecated address, and never a tentative or anycast one', () => {
    add('2001:db8::1');
    add('2001:db8:1::1');
    expect(source('2001:db8::9')).to.equal('2001:db8::1');
    flag('2001:db8::1', IN6_IFF_DEPRECATED);
    expect(source('2001:db8::9')).to.equal('2001:db8:1::1');
    flag('2001:db8:1::1', IN6_IFF_TENTATIVE);
    expect(source('2001:db8::9')).to.equal('2001:db8::1');
    flag('2001:db8::1', IN6_IFF_ANYCAST);
    expect(source('2001:db8::9')).to.equal(LL);
  });

  it('rule 6: the label: unique local, 6to4', () => {
    add('fd00::1');
    add('2001:db8::1');
    add('2002:c000:201::1');
    expect(source('fd12::9')).to.equal('fd00::1');
    expect(source('2002:c633:6401::9')).to.equal('2002:c000:201::1');
    expect(source('2600::9')).to.equal('2001:db8::1');
    // 2002::/16 has more bits in common with 2600::9, but another label.
    add('2a00::1');
    flag('2001:db8::1', IN6_IFF_TENTATIVE);
    expect(source('2600::9')).to.equal('2a00::1');
  });

  it('rule 7: not a temporary address, unless net.inet6.ip6.prefer_tempaddr is on', () => {
    add('2001:db8::1');
    add('2001:db8::ffff:1', 64, IN6_IFF_TEMPORARY);
    expect(source('2001:db8::ffff:9')).to.equal('2001:db8::1');
    expect(h.vnet.sysctl.write('net.inet6.ip6.prefer_tempaddr', '1')).to.equal(0);
    expect(source('2001:db8::9')).to.equal('2001:db8::ffff:1');
  });

  it('rule 8: the longest matching prefix, at most the length of ours', () => {
    add('2001:db8:1::1');
    add('2001:db8:2::1');
    expect(source('2001:db8:2::9')).to.equal('2001:db8:2::1');
    expect(source('2001:db8:1::9')).to.equal('2001:db8:1::1');
    add('2001:db8:1::2');
    expect(source('2001:db8:1::3'), 'the first of equals').to.equal('2001:db8:1::1');
  });
});
