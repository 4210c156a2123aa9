/** Stateless address autoconfiguration: lifetimes, identifiers, temporary addresses. */

import { expect } from 'chai';
import { hostuuid } from '../../src/kern/kern_hostuuid.ts';
import { in6_aifaddr, in6_difaddr } from '../../src/netinet6/in6_ifattach.ts';
import { in6DadFailed } from '../../src/netinet6/in6_autoconf.ts';
import { in6Ntop, parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_selectsrc } from '../../src/netinet6/in6_src.ts';
import {
  IN6_IFF_DUPLICATED,
  IN6_IFF_NODAD,
  IN6_IFF_TEMPORARY,
  in6Ifextra,
  in6ifa_ifpforlinklocal,
  isIn6Ifaddr,
  ND6_IFF_NO_DAD,
  ND6_IFF_NO_PREFER_IFACE,
  ND6_IFF_STABLEADDR,
} from '../../src/netinet6/in6_var.ts';
import { nd6_setflags } from '../../src/netinet6/nd6_flags.ts';
import { EINVAL } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { ip6 } from '../support/six.ts';
import {
  AUTO,
  AUTO2,
  FOREVER,
  lladdrOption,
  PREFIX,
  PREFIX2,
  prefixOption,
  R1,
  RaRig,
  routerMac,
} from './rig_ra.ts';

const HOURS = 3600;
const DAYS = 86_400;

describe('in6_autoconf', () => {
  let h: RaRig;
  const rig = (options: ConstructorParameters<typeof RaRig>[0] = {}): RaRig =>
    (h = new RaRig(options));
  afterEach(() => h.close());

  const advertise = (valid: number, preferred = valid, prefix = PREFIX): void =>
    h.ra({ options: [lladdrOption(routerMac(R1)), prefixOption(prefix, { valid, preferred })] });
  const set = (name: string, value: number): number =>
    h.vnet.sysctl.write(`net.inet6.ip6.${name}`, `${value}`);
  const source = (to: string): string => {
    const ia = in6_selectsrc(h.vnet, parseIn6(to)!, h.ifp);
    return ia === null ? 'none' : in6Ntop(ia.ifa_addr);
  };
  /** Seconds until the address is invalid, found by waiting. */
  const lasts = (address = AUTO): number => {
    for (let s = 0; s < 100_000; s += 10) {
      if (h.find(address) === null) return s;
      h.seconds(10);
    }
    return Infinity;
  };

  describe('lifetimes', () => {
    it('deprecate an address and remove it', () => {
      rig();
      advertise(100, 50);
      h.settle();
      expect(h.addresses).to.deep.equal([`${AUTO} autoconf`]);
      h.seconds(45);
      expect(h.addresses).to.deep.equal([`${AUTO} deprecated autoconf`]);
      advertise(100, 50);
      expect(h.addresses).to.deep.equal([`${AUTO} autoconf`]);
      h.seconds(99.9);
      expect(h.addresses).to.deep.equal([`${AUTO} deprecated autoconf`]);
      h.seconds(0.1);
      expect(h.addresses).to.deep.equal([]);
    });

    it('of a configured address do the same', () => {
      rig();
      const lifetime = { vltime: 100, pltime: 50 };
      inPass(in6_aifaddr, h.ifp, parseIn6('2001:db8:9::1')!, 64, IN6_IFF_NODAD, lifetime);
      h.seconds(50);
      expect(h.addresses).to.deep.equal(['2001:db8:9::1 deprecated']);
      h.seconds(50);
      expect([h.addresses, h.prefixes]).to.deep.equal([[], []]);
    });

    it('with a preferred one of 0 give a deprecated address', () => {
      rig();
      advertise(100, 0);
      h.settle();
      expect(h.addresses).to.deep.equal([`${AUTO} deprecated autoconf`]);
    });

    it('are ignored if the preferred one is longer than the valid one', () => {
      rig();
      advertise(100, 101);
      expect(h.addresses).to.deep.equal([]);
      advertise(1000, 1000);
      advertise(5000, 5001);
      expect(h.find(AUTO)!.ia6_vltime).to.equal(1000);
    });

    it('of 0 add no address', () => {
      rig();
      advertise(0);
      expect([h.addresses, h.prefixes]).to.deep.equal([[], []]);
    });

    it('without end never end, and an advertisement shortens them to two hours', () => {
      rig();
      advertise(FOREVER);
      h.seconds(400 * DAYS);
      expect(h.addresses).to.deep.equal([`${AUTO} autoconf`]);
      advertise(60);
      expect(h.find(AUTO)!.ia6_vltime).to.equal(2 * HOURS);
    });
  });

  describe('the rule of two hours: RFC 4862, 5.5.3', () => {
    const rows: [why: string, first: number, then: number, want: number][] = [
      ['a longer lifetime', 1 * HOURS, 90 * 60, 90 * 60],
      ['a shorter one above two hours', 10 * HOURS, 3 * HOURS, 3 * HOURS],
      ['a short one while more than two hours are left', 10 * HOURS, 60, 2 * HOURS],
      ['0 while more than two hours are left', 10 * HOURS, 0, 2 * HOURS],
      ['a short one while less than two hours are left', 1 * HOURS, 60, 1 * HOURS],
      ['0 while less than two hours are left', 1 * HOURS, 0, 1 * HOURS],
      ['a short one while exactly two hours are left', 2 * HOURS, 60, 2 * HOURS],
      ['exactly two hours while more are left', 3 * HOURS, 2 * HOURS, 2 * HOURS],
    ];
    for (const [why, first, then, want] of rows)
      it(`${why}: ${first} s, then ${then} s`, () => {
        rig();
        advertise(first);
        advertise(then);
        expect(lasts()).to.equal(want);
      });

    it('does not apply to the preferred lifetime', () => {
      rig();
      advertise(10 * HOURS, 10 * HOURS);
      h.settle();
      advertise(0, 0);
      expect(h.addresses).to.deep.equal([`${AUTO} deprecated autoconf`]);
    });
  });

  describe('an address', () => {
    it('needs a prefix of 64 bits; others are logged', () => {
      rig();
      for (const plen of [63, 65, 128, 0]) h.ra({ options: [prefixOption(PREFIX, { plen })] });
      expect(h.addresses).to.deep.equal([]);
      expect(h.console.filter((line) => line.includes('its length must be 64'))).to.have.lengthOf(
        4,
      );
      expect(h.prefixes).to.include('2001:db8:1::/63 LAO 0');
    });

    it('that is configured already stays as it is', () => {
      rig();
      inPass(in6_aifaddr, h.ifp, parseIn6(AUTO)!, 64, IN6_IFF_NODAD);
      advertise(1000);
      expect(h.addresses).to.deep.equal([AUTO]);
      expect(h.find(AUTO)!.ia6_vltime).to.equal(FOREVER);
      expect(h.console.join('\n')).to.contain('already configured');
    });

    it('is not added without a link-local address', () => {
      rig();
      inPass(in6_difaddr, h.ifp, parseIn6('fe80::ff:fe00:2')!);
      advertise(1000);
      expect(h.addresses).to.deep.equal([]);
    });

    it('that the user has removed comes back with the next advertisement', () => {
      rig();
      advertise(1000);
      inPass(in6_difaddr, h.ifp, parseIn6(AUTO)!);
      expect([h.addresses, h.prefixes]).to.deep.equal([[], []]);
      advertise(1000);
      h.settle();
      expect(h.addresses).to.deep.equal([`${AUTO} autoconf`]);
    });

    it('that is deprecated is a source only if there is no other, or never', () => {
      rig();
      advertise(1000, 0);
      h.settle();
      expect(source('2001:db8:1::1')).to.equal(AUTO);
      set('use_deprecated', 0);
      expect(source('2001:db8:1::1')).to.match(/^fe80/);
      advertise(1000, 1000, PREFIX2);
      h.settle();
      set('use_deprecated', 1);
      expect(source('2001:db8:1::1')).to.equal(AUTO2);
    });
  });

  describe('stable identifiers: RFC 7217', () => {
    const stable = (): string[] => {
      const flags = in6Ifextra(h.ifp)!.nd_ifinfo.flags;
      inPass(nd6_setflags, h.ifp, flags | ND6_IFF_STABLEADDR);
      advertise(1000);
      advertise(1000, 1000, PREFIX2);
      h.settle();
      return h.addresses.map((text) => text.split(' ')[0]!);
    };
    const tail = (text: string): string => text.split(':').slice(-4).join(':');
    let before: string;
    beforeEach(() => {
      before = hostuuid.value;
    });
    afterEach(() => {
      hostuuid.value = before;
    });

    it('are off, and a sysctl turns them on for new interfaces, the link-local address included', () => {
      rig();
      expect(in6Ifextra(h.ifp)!.nd_ifinfo.flags & ND6_IFF_STABLEADDR).to.equal(0);
      expect(h.vnet.sysctl.find('net.inet6.ip6.use_stableaddr')!.get()).to.equal(0);
    });

    it('differ per prefix, stay the same, and depend on the secret and the interface', () => {
      rig();
      const [a, b] = stable() as [string, string];
      expect(a)
        .to.match(/^2001:db8:1:/)
        .and.not.equal(AUTO);
      expect(tail(a)).to.not.equal(tail(b));
      h.close();
      rig();
      expect(stable()).to.deep.equal([a, b]);
      h.close();
      rig();
      hostuuid.value = 'ffffffff-0000-0000-0000-000000000000';
      const [c] = stable();
      expect(c).to.not.equal(a);
      h.close();
      rig();
      hostuuid.value = before;
      expect(set('stableaddr_netifsource', 2)).to.equal(0);
      expect(stable()[0]).to.not.equal(a);
      expect(set('stableaddr_netifsource', 3)).to.equal(EINVAL);
    });

    it('are replaced after a duplicate, three times', () => {
      rig();
      const seen = new Set(stable());
      for (let i = 0; i < 3; i++) {
        const ia = h.find(
          h.addresses.find((text) => text.startsWith('2001:db8:1:'))!.split(' ')[0]!,
        )!;
        expect(inPass(in6DadFailed, ia)).to.equal(true);
        h.settle();
        const [now] = h.addresses.filter((text) => text.startsWith('2001:db8:1:'));
        expect(seen).to.not.include(now!.split(' ')[0]);
        seen.add(now!.split(' ')[0]!);
      }
      expect(h.addresses).to.have.lengthOf(2);
      const last = h.find(
        h.addresses.find((text) => text.startsWith('2001:db8:1:'))!.split(' ')[0]!,
      )!;
      expect(inPass(in6DadFailed, last)).to.equal(false);
      const ll = in6ifa_ifpforlinklocal(h.ifp, 0)!;
      expect(inPass(in6DadFailed, ll), 'EUI-64').to.equal(false);
    });
  });

  it('a stable address that another host has is replaced during its detection', () => {
    rig();
    h.vnet.sysctl.write('net.inet6.ip6.dad_count', '1');
    const flags = in6Ifextra(h.ifp)!.nd_ifinfo.flags;
    inPass(nd6_setflags, h.ifp, (flags & ~ND6_IFF_NO_DAD) | ND6_IFF_STABLEADDR);
    advertise(1000);
    const [first] = h.addresses;
    expect(first).to.match(/ tentative autoconf$/);
    const text = first!.split(' ')[0]!;
    h.raw([136, 0, 0, 0, 0x20, 0, 0, 0, ...ip6(text), 2, 1, 2, 0, 0, 0, 0, 9]);
    h.settle();
    const [second] = h.addresses;
    expect(h.addresses).to.have.lengthOf(1);
    expect(second).to.not.contain(text);
    expect(second)
      .to.match(/^2001:db8:1:.* autoconf$/)
      .and.not.contain('tentative');
  });

  describe('temporary addresses: RFC 8981', () => {
    const temporary = (): string[] =>
      h.addresses.filter((text) => text.includes('temporary')).map((text) => text.split(' ')[0]!);
    const preferred = (): string[] =>
      h.addresses.filter((text) => text.includes('temporary') && !text.includes('deprecated'));

    it('are off; then each new public address has one, with limited lifetimes', () => {
      rig();
      advertise(FOREVER);
      expect(temporary()).to.deep.equal([]);
      expect(set('use_tempaddr', 1)).to.equal(0);
      advertise(FOREVER, FOREVER, PREFIX2);
      h.settle();
      const [one, ...more] = temporary();
      expect(more).to.deep.equal([]);
      const ia = h.find(one!)!;
      expect(ia.ia6_vltime).to.equal(7 * DAYS);
      expect(ia.ia6_pltime).to.be.within(1 * DAYS - 600, 1 * DAYS);
      advertise(FOREVER, FOREVER, PREFIX2);
      expect(ia.ia6_vltime).to.be.within(7 * DAYS - 700, 7 * DAYS);
    });

    it('have their group reported after a random time, but before they are solicited', () => {
      rig();
      h.vnet.sysctl.write('net.inet6.ip6.dad_count', '1');
      in6Ifextra(h.ifp)!.nd_ifinfo.flags &= ~ND6_IFF_NO_DAD;
      set('use_tempaddr', 1);
      const reports: number[] = [];
      for (let i = 0; i < 8; i++) {
        h.settle();
        advertise(FOREVER, FOREVER, `2001:db8:${i + 1}::`);
        const id = ip6(
          temporary().find((text) => h.find(text)!.ia6_ndpr!.ndpr_prefix.w1 === (i + 1) << 16)!,
        ).slice(13);
        let report = -1;
        let solicitation = -1;
        for (let ms = 0; ms <= 1200 && solicitation < 0; ms += 10) {
          for (const { nxt, body } of h.take6()) {
            const ends = body.join().includes(id.join());
            if (nxt === 0 && body[8] === 143 && ends && report < 0) report = ms;
            if (nxt === 58 && body[0] === 135 && ends) solicitation = ms;
          }
          h.advance(10);
        }
        expect(report).to.be.within(0, 1000);
        expect(solicitation).to.be.within(report, 1010);
        reports.push(report);
      }
      expect(new Set(reports).size).to.be.above(2);
    });

    it('that another host has are replaced, three times in a row', () => {
      rig();
      h.vnet.sysctl.write('net.inet6.ip6.dad_count', '1');
      in6Ifextra(h.ifp)!.nd_ifinfo.flags &= ~ND6_IFF_NO_DAD;
      set('use_tempaddr', 1);
      advertise(FOREVER);
      const collide = (): string => {
        const [text] = temporary();
        h.raw([136, 0, 0, 0, 0x20, 0, 0, 0, ...ip6(text!), 2, 1, 2, 0, 0, 0, 0, 9]);
        const tentative = (): boolean =>
          h.addresses.includes(`${text} tentative autoconf temporary`);
        for (let ms = 0; ms < 3000 && tentative(); ms += 10) h.advance(10);
        return text!;
      };
      const seen = new Set([collide(), collide(), collide()]);
      const [fourth, ...more] = temporary();
      expect([seen.size, seen.has(fourth!), more]).to.deep.equal([3, false, []]);
      expect(h.addresses.at(-1)).to.equal(`${fourth} tentative autoconf temporary`);
      expect(collide()).to.equal(fourth);
      expect(temporary()).to.deep.equal([fourth]);
      expect(h.find(fourth!)!.ia6_flags & IN6_IFF_DUPLICATED).to.equal(IN6_IFF_DUPLICATED);
      expect(h.console.at(-1)).to.equal('tn0: no temporary address: 4 identifiers are in use');
      h.settle();
      expect(h.addresses).to.include(`${AUTO} autoconf`);
    });

    it('that another host has are counted anew after one that was ready', () => {
      rig();
      h.vnet.sysctl.write('net.inet6.ip6.dad_count', '1');
      in6Ifextra(h.ifp)!.nd_ifinfo.flags &= ~ND6_IFF_NO_DAD;
      set('use_tempaddr', 1);
      advertise(FOREVER);
      const [first] = temporary();
      h.raw([136, 0, 0, 0, 0x20, 0, 0, 0, ...ip6(first!), 2, 1, 2, 0, 0, 0, 0, 9]);
      h.settle();
      const [second] = temporary();
      expect(h.find(second!)!.ia6_idgen).to.equal(1);
      h.seconds(DAYS);
      const third = temporary().find((text) => text !== second);
      expect(h.find(third!)!.ia6_idgen).to.equal(0);
    });

    it('are replaced before they are deprecated, and removed', () => {
      rig();
      set('use_tempaddr', 1);
      advertise(FOREVER);
      h.settle();
      const [first] = temporary();
      const seen = new Set<string>();
      for (let hour = 0; hour < 24 * 9; hour++) {
        h.seconds(HOURS);
        expect(preferred(), `hour ${hour}`).to.have.lengthOf.within(1, 2);
        for (const one of temporary()) seen.add(one);
      }
      expect(seen.size).to.be.within(9, 11);
      expect(temporary()).to.not.include(first);
      expect(temporary()).to.have.lengthOf.within(6, 8);
    });

    it('are preferred as source if prefer_tempaddr is set', () => {
      rig();
      set('use_tempaddr', 1);
      advertise(FOREVER);
      h.settle();
      expect(source('2001:4860::1')).to.equal(AUTO);
      set('prefer_tempaddr', 1);
      expect(source('2001:4860::1')).to.equal(temporary()[0]);
    });

    it('need a preferred lifetime of more than five seconds', () => {
      rig();
      set('use_tempaddr', 1);
      advertise(1000, 5);
      expect(temporary()).to.deep.equal([]);
      advertise(1000, 6, PREFIX2);
      expect(temporary()).to.have.lengthOf(1);
      for (const ia of h.ifp.if_addrhead.filter(isIn6Ifaddr))
        if ((ia.ia6_flags & IN6_IFF_TEMPORARY) !== 0) expect(ia.ia6_pltime).to.equal(6);
    });

    it('have lifetimes that cannot contradict each other', () => {
      rig();
      expect(set('temppltime', 4)).to.equal(EINVAL);
      expect(set('tempvltime', 86_399)).to.equal(EINVAL);
      expect(set('temppltime', 3600)).to.equal(0);
      expect(set('tempvltime', 3600)).to.equal(0);
      set('use_tempaddr', 1);
      advertise(FOREVER);
      const [one] = temporary();
      expect(h.find(one!)!.ia6_vltime).to.equal(3600);
      expect(h.find(one!)!.ia6_pltime).to.be.within(3000, 3600);
    });
  });

  it('no_prefer_iface: source selection does not prefer the outgoing interface', () => {
    rig();
    const flags = in6Ifextra(h.ifp)!.nd_ifinfo.flags;
    expect(inPass(nd6_setflags, h.ifp, flags | ND6_IFF_NO_PREFER_IFACE)).to.equal(0);
    expect(in6Ifextra(h.ifp)!.nd_ifinfo.flags & ND6_IFF_NO_PREFER_IFACE).to.not.equal(0);
  });
});
