/** Duplicate address detection: RFC 4862, 5.4, and RFC 7527. */

import { expect } from 'chai';
import { ifhwioctl } from '../../src/net/if.ts';
import { IFF_UP, SIOCSIFFLAGS } from '../../src/net/if_var.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr, in6_difaddr } from '../../src/netinet6/in6_ifattach.ts';
import {
  IN6_IFF_ANYCAST,
  IN6_IFF_DUPLICATED,
  IN6_IFF_NODAD,
  IN6_IFF_TENTATIVE,
  type In6Ifaddr,
  in6Ifaddrs,
  in6Ifextra,
  ND6_IFF_IFDISABLED,
  ND6_IFF_NO_DAD,
} from '../../src/netinet6/in6_var.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { nd6DadWait } from '../../src/netinet6/nd6_dad.ts';
import { ip6_sprintf } from '../../src/netinet6/scope6.ts';
import { counted, R_IP6_NOTREADY } from '../../src/sys/reason.ts';
import { inPass } from '../../src/sys/pass.ts';
import { PEER_MAC } from '../netinet/rig.ts';
import { type Packet6, buildIcmp6, ip6 } from '../support/six.ts';
import {
  ADVERT,
  advert,
  lla,
  NONCE,
  O,
  SLLA,
  SOLICIT,
  solicit,
  solicitedNode,
  TLLA,
} from './nd6_messages.ts';
import { Pair6 } from './pair.ts';
import { PEER6, Rig6, US6, US_LL } from './rig6.ts';

const NEW = '2001:db8::abcd';
const TO_NEW = '33:33:ff:00:ab:cd';

describe('duplicate address detection', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6();
    h.advance(3000);
    V_ip6(h.vnet).params.dad_count = 1;
    h.take6();
  });
  afterEach(() => h.close());

  const find = (text: string): In6Ifaddr | undefined =>
    in6Ifaddrs(h.vnet).find((ia) => ip6_sprintf(h.vnet, ia.ifa_addr).split('%')[0] === text);
  const add = (text = NEW, flags = 0): void => {
    expect(inPass(in6_aifaddr, h.ifp, parseIn6(text)!, 64, flags)).to.equal(0);
    h.advance(0);
  };
  const state = (text = NEW): string => {
    const { ia6_flags: flags } = find(text)!;
    if ((flags & IN6_IFF_DUPLICATED) !== 0) return 'duplicated';
    return (flags & IN6_IFF_TENTATIVE) !== 0 ? 'tentative' : 'ready';
  };
  const detections = (): Packet6[] =>
    h.take6().filter(({ body, src }) => body[0] === SOLICIT && src.every((byte) => byte === 0));
  const group = solicitedNode(NEW);
  const dadNs = (options: number[] = []): void =>
    h.inject6(solicit({ src: '::', dst: group }, NEW, options), TO_NEW);
  const na = (): void =>
    h.inject6(
      advert({ src: PEER6, dst: 'ff02::1' }, NEW, O, lla(TLLA, PEER_MAC)),
      '33:33:00:00:00:01',
    );

  it('solicits the address once, from ::, with a nonce, and is ready a second later', () => {
    add();
    const [ns, ...more] = detections();
    expect(more).to.deep.equal([]);
    expect([ns!.src, ns!.dst, ns!.hlim]).to.deep.equal([ip6('::'), ip6(group), 255]);
    expect([...ns!.body.subarray(0, 2), ...ns!.body.subarray(4, 24)]).to.deep.equal([
      SOLICIT,
      0,
      0,
      0,
      0,
      0,
      ...ip6(NEW),
    ]);
    expect(ns!.body).to.have.lengthOf(32);
    expect([...ns!.body.subarray(24, 26)], 'nonce, 8 bytes').to.deep.equal([NONCE, 1]);
    expect(ns!.body.subarray(26).some((byte) => byte !== 0)).to.equal(true);
    h.advance(999);
    expect(state()).to.equal('tentative');
    h.advance(1);
    expect([state(), detections()]).to.deep.equal(['ready', []]);
  });

  it('dad_count is the number of solicitations, dad_enhanced=0 omits the nonce', () => {
    Object.assign(V_ip6(h.vnet).params, { dad_count: 3, dad_enhanced: 0 });
    add();
    const nonces = new Set<string>();
    for (let i = 0; i < 3; i++) {
      const [ns, ...more] = detections();
      expect([ns!.body.length, more.length]).to.deep.equal([24, 0]);
      expect(state()).to.equal('tentative');
      nonces.add(ns!.body.join());
      h.advance(1000);
    }
    expect([state(), detections()]).to.deep.equal(['ready', []]);
  });

  it('uses a new nonce for each solicitation', () => {
    V_ip6(h.vnet).params.dad_count = 4;
    add();
    h.advance(5000);
    const nonces = detections().map(({ body }) => body.subarray(26).join());
    expect(new Set(nonces).size).to.equal(4);
  });

  it('does not happen with dad_count=0, NODAD, NO_DAD, and for anycast addresses', () => {
    V_ip6(h.vnet).params.dad_count = 0;
    add();
    expect(state()).to.equal('ready');
    V_ip6(h.vnet).params.dad_count = 1;
    add('2001:db8::1:1', IN6_IFF_NODAD);
    add('2001:db8::1:2', IN6_IFF_ANYCAST);
    in6Ifextra(h.ifp)!.nd_ifinfo.flags |= ND6_IFF_NO_DAD;
    add('2001:db8::1:3');
    for (let i = 1; i <= 3; i++) expect(state(`2001:db8::1:${i}`)).to.equal('ready');
    h.advance(2000);
    expect(detections()).to.deep.equal([]);
  });

  it('a tentative address does not receive, answer or send', () => {
    add();
    detections();
    h.inject6(buildIcmp6({ src: PEER6, dst: NEW }, [128, 0, 0, 0, 0, 1, 0, 1]));
    expect(counted(R_IP6_NOTREADY)).to.equal(1);
    h.inject6(solicit({ src: PEER6, dst: group }, NEW, lla(SLLA, PEER_MAC)), TO_NEW);
    expect(h.take6()).to.deep.equal([]);
    h.advance(1000);
    expect(state(), 'a solicitation for resolution is no collision').to.equal('ready');
    h.inject6(buildIcmp6({ src: PEER6, dst: NEW }, [128, 0, 0, 0, 0, 1, 0, 1]));
    expect(h.take6().map(({ body }) => body[0])).to.deep.equal([129]);
  });

  for (const [how, collide] of [
    ['a solicitation from ::', (): void => dadNs()],
    ['a solicitation with another nonce', (): void => dadNs([NONCE, 1, 1, 2, 3, 4, 5, 6])],
    ['an advertisement', na],
  ] as const)
    it(`${how} makes the address a duplicate`, () => {
      add();
      detections();
      collide();
      expect(state(), 'before the end').to.equal('tentative');
      h.advance(1000);
      expect(state()).to.equal('duplicated');
      const [ns, adv] = how === 'an advertisement' ? [0, 1] : [1, 0];
      expect(h.console.slice(-3)).to.deep.equal([
        `tn0: DAD detected duplicate IPv6 address ${NEW}: NS in/out/loopback=${ns}/1/0, NA in=${adv}`,
        `tn0: DAD complete for ${NEW} - duplicate found`,
        'tn0: manual intervention required',
      ]);
      h.inject6(buildIcmp6({ src: PEER6, dst: NEW }, [128, 0, 0, 0, 0, 1, 0, 1]));
      h.inject6(solicit({ src: PEER6, dst: group }, NEW, lla(SLLA, PEER_MAC)), TO_NEW);
      dadNs();
      expect(h.take6()).to.deep.equal([]);
      // The host that has the address is a neighbour like others.
      h.inject6(solicit({ src: NEW, dst: US6 }, US6, lla(SLLA, PEER_MAC)));
      expect(h.take6().map(({ dst, body: [type] }) => [type, ...dst])).to.deep.equal([
        [ADVERT, ...ip6(NEW)],
      ]);
      // The other addresses work.
      h.inject6(buildIcmp6({ src: PEER6, dst: US6 }, [128, 0, 0, 0, 0, 1, 0, 1]));
      expect(h.take6().map(({ body }) => body[0])).to.deep.equal([129]);
    });

  it('after its end, a solicitation from :: is answered and an advertisement is logged', () => {
    add();
    h.advance(1000);
    detections();
    dadNs();
    const [answer] = h.take6();
    expect([answer!.dst, answer!.body[0], answer!.body[4]]).to.deep.equal([
      ip6('ff02::1'),
      ADVERT,
      O,
    ]);
    na();
    expect(state()).to.equal('ready');
    expect(h.console.at(-1)).to.equal(`nd6_na_input: duplicate IP6 address ${NEW}`);
  });

  it('a looped back solicitation is no collision, and causes more probes until it ends', () => {
    add();
    const [ns] = detections();
    const own = [...ns!.body.subarray(24)];
    dadNs(own);
    h.advance(1000);
    expect([state(), detections().length]).to.deep.equal(['tentative', 1]);
    h.advance(1000);
    expect([state(), detections().length]).to.deep.equal(['tentative', 1]);
    h.advance(1000);
    expect(state()).to.equal('ready');
    expect(h.console.slice(-2)).to.deep.equal([
      `tn0: a looped back NS message is detected during DAD for ${NEW}.  Another DAD probes are being sent.`,
      `tn0: DAD completed while a looped back NS message is detected during DAD for ${NEW}.`,
    ]);
  });

  it('without dad_enhanced a looped back solicitation is a collision', () => {
    V_ip6(h.vnet).params.dad_enhanced = 0;
    add();
    detections();
    dadNs();
    h.advance(1000);
    expect(state()).to.equal('duplicated');
  });

  it('a duplicate of the EUI-64 link-local address disables IPv6 on the interface', () => {
    const r = new Rig6({ dad_count: 1 });
    try {
      const flags = (): number => in6Ifextra(r.ifp)!.nd_ifinfo.flags & ND6_IFF_IFDISABLED;
      const dst = solicitedNode(US_LL);
      let first = -1;
      for (let ms = 0; ms <= 1000 && first < 0; ms++) {
        const sent = r.take6().filter(({ body }) => body[0] === SOLICIT);
        if (sent.some(({ body }) => body[23] === 2 && body[8] === 0xfe)) first = ms;
        else r.advance(1);
      }
      expect(first, 'after a random delay').to.be.within(0, 1000);
      r.inject6(solicit({ src: '::', dst }, US_LL), '33:33:ff:00:00:02');
      r.advance(1001);
      expect(flags()).to.equal(ND6_IFF_IFDISABLED);
      expect(r.console.at(-1)).to.equal(
        'tn0: possible hardware address duplication detected, disable IPv6',
      );
      r.inject6(buildIcmp6({ src: PEER6, dst: US6 }, [128, 0, 0, 0, 0, 1, 0, 1]));
      expect(r.take6()).to.deep.equal([]);
      // A new address does not enable it.
      inPass(in6_aifaddr, r.ifp, parseIn6(NEW)!, 64, 0);
      expect(flags()).to.equal(ND6_IFF_IFDISABLED);
      expect(r.console.at(-1)).to.equal(
        'Cannot enable an interface with a link-local address marked duplicate.',
      );
    } finally {
      r.close();
    }
  });

  it('starts again when the interface goes up, also for a duplicate', () => {
    add();
    detections();
    na();
    h.advance(1000);
    expect(state()).to.equal('duplicated');
    inPass(ifhwioctl, h.ifp, SIOCSIFFLAGS, h.ifp.if_flags & ~IFF_UP);
    for (const text of [NEW, US6, US_LL]) expect(state(text)).to.equal('tentative');
    h.advance(5000);
    expect(detections()).to.deep.equal([]);
    inPass(ifhwioctl, h.ifp, SIOCSIFFLAGS, h.ifp.if_flags | IFF_UP);
    h.advance(2001);
    for (const text of [NEW, US6, US_LL]) expect(state(text), text).to.equal('ready');
    expect(detections()).to.have.lengthOf(3);
  });

  it('reports its outcome to callers that wait for an address', () => {
    const seen: string[] = [];
    add();
    nd6DadWait(find(NEW)!, (outcome) => seen.push(`first ${outcome}`));
    expect(seen).to.deep.equal([]);
    h.advance(1000);
    nd6DadWait(find(NEW)!, (outcome) => seen.push(`late ${outcome}`));
    add('2001:db8::77');
    nd6DadWait(find('2001:db8::77')!, (outcome) => seen.push(`gone ${outcome}`));
    inPass(in6_difaddr, h.ifp, parseIn6('2001:db8::77')!);
    expect(seen).to.deep.equal(['first ready', 'late ready', 'gone removed']);
  });
});

describe('duplicate address detection between two stacks', () => {
  it('that add the same address at the same time: neither gets it', () => {
    const pair = new Pair6({ dad_count: 1 });
    pair.run(5000);
    const flags = (i: 'a' | 'b'): number =>
      in6Ifaddrs(pair.net[i].vnet).find((ia) => ia.ifa_addr.w3 === 0xabcd)!.ia6_flags;
    for (const i of ['a', 'b'] as const)
      inPass(in6_aifaddr, pair.net[i].ifp, parseIn6(NEW)!, 64, 0);
    pair.run(1500);
    expect([flags('a'), flags('b')]).to.deep.equal([IN6_IFF_DUPLICATED, IN6_IFF_DUPLICATED]);
    pair.close();
  });

  it('of which one has the address: it keeps it, the other does not get it', () => {
    const pair = new Pair6({ dad_count: 1 });
    const add = (i: 'a' | 'b'): unknown =>
      inPass(in6_aifaddr, pair.net[i].ifp, parseIn6(NEW)!, 64, 0);
    const flags = (i: 'a' | 'b'): number =>
      in6Ifaddrs(pair.net[i].vnet).find((ia) => ia.ifa_addr.w3 === 0xabcd)!.ia6_flags;
    add('a');
    pair.run(3000);
    add('b');
    pair.run(1500);
    expect([flags('a'), flags('b')]).to.deep.equal([0, IN6_IFF_DUPLICATED]);
    pair.close();
  });
});
