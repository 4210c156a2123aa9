/** Redirects, address masks, and the source of replies: settings under net.inet.icmp. */

import { expect } from 'chai';
import { fib4_lookup, inRouteAddGateway, inRoutes } from '../../src/netinet/in_fib.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { icmpstat } from '../../src/netinet/ip_icmp.ts';
import { EINVAL } from '../../src/sys/errno.ts';
import {
  BROADCAST_MAC,
  buildIcmp,
  buildIp4,
  decodeFrame,
  expectTx,
  ip4,
  type Ip4Info,
} from '../support/frames.ts';
import { addr, PEER, Rig, US } from './rig.ts';

const FAR = '198.51.100.7';
/** Another router on the link. */
const NEAR = '192.0.2.20';

describe('icmp: redirects, masks and the source of replies', () => {
  let rig: Rig;
  beforeEach(() => {
    rig = new Rig();
    expect(inRouteAddGateway(rig.vnet, addr('0.0.0.0'), 0, addr(PEER))).to.equal(0);
  });
  afterEach(() => rig.close());

  const set = (name: string, value: string | number): number =>
    rig.vnet.sysctl.write(`net.inet.icmp.${name}`, String(value));
  const via = (dst: string): string => {
    const nh = fib4_lookup(rig.vnet, addr(dst))!;
    return [20, 1].map((n) => `192.0.2.${n}`).find((a) => nh.nh_gateway.w0 === addr(a)) ?? '-';
  };
  /** A redirect from `src`: packets to `dst` go to `gateway`. */
  const redirect = (
    f: { src?: string; dst?: string; gateway?: string; code?: number; short?: boolean } = {},
  ): void => {
    const quoted = buildIp4({ src: US, dst: f.dst ?? FAR }, 17, [0, 9, 0, 9, 0, 8, 0, 0]);
    const gw = ip4(f.gateway ?? NEAR);
    const message = buildIcmp({
      type: 5,
      code: f.code ?? 1,
      id: gw[0]! * 256 + gw[1]!,
      seq: gw[2]! * 256 + gw[3]!,
      payload: f.short === true ? quoted.subarray(0, 20) : quoted,
    });
    rig.injectIp(buildIp4({ src: f.src ?? PEER, dst: US }, 1, message));
  };

  for (const code of [0, 1, 2, 3])
    it(`a redirect of code ${code} from the current router installs a host route`, () => {
      redirect({ code });
      expect(via(FAR)).to.equal(NEAR);
      expect(via('198.51.100.8')).to.equal(PEER);
    });

  const bad: [string, Parameters<typeof redirect>[0]][] = [
    ['from another host', { src: '192.0.2.30' }],
    ['to a gateway that is not on the link', { gateway: '203.0.113.1' }],
    ['to ourselves', { gateway: US }],
    ['for a host on the link', { dst: '192.0.2.40' }],
    ['of code 4', { code: 4 }],
    ['that quotes too little', { short: true }],
  ];
  for (const [what, fields] of bad)
    it(`ignores a redirect ${what}`, () => {
      const before = inRoutes(rig.vnet).length;
      redirect(fields);
      expect(inRoutes(rig.vnet).length).to.equal(before);
    });
  it('counts a bad code and a bad length', () => {
    redirect({ code: 4 });
    redirect({ short: true });
    const { icps_badcode, icps_badlen } = icmpstat(rig.vnet);
    expect([icps_badcode, icps_badlen]).to.deep.equal([1, 1]);
  });
  it('keeps a host route that exists', () => {
    inRouteAddGateway(rig.vnet, addr(FAR), 32, addr(PEER));
    redirect();
    expect(via(FAR)).to.equal(PEER);
  });
  it('drop_redirect ignores redirects', () => {
    expect(set('drop_redirect', 1)).to.equal(0);
    redirect();
    expect(via(FAR)).to.equal(PEER);
  });
  it('log_redirect writes a line, at most ten in a second', () => {
    redirect({ dst: '198.51.100.1' });
    expect(rig.console).to.deep.equal([]);
    set('log_redirect', 1);
    redirect();
    expect(rig.console).to.deep.equal([`icmp redirect from ${PEER}: ${FAR} => ${NEAR}`]);
    for (let i = 0; i < 50; i++) redirect();
    expect(rig.console).to.have.lengthOf(10);
  });
  it('removes the route after redirtimeout', () => {
    set('redirtimeout', 10);
    redirect();
    rig.clock.advance(10e9 - 1);
    expect(via(FAR)).to.equal(NEAR);
    rig.clock.advance(1);
    expect(via(FAR)).to.equal(PEER);
  });
  it('keeps at most 128 routes, the newest', () => {
    const before = inRoutes(rig.vnet).length;
    for (let i = 0; i < 200; i++) redirect({ dst: `198.51.100.${i}` });
    expect(inRoutes(rig.vnet).length - before).to.equal(128);
    expect([via('198.51.100.0'), via('198.51.100.199')]).to.deep.equal([PEER, NEAR]);
  });

  describe('maskrepl', () => {
    const ask = (src: string, dst: string, mac?: string): void =>
      rig.injectIp(
        buildIp4({ src, dst }, 1, buildIcmp({ type: 17, id: 3, seq: 4, payload: [0, 0, 0, 0] })),
        0,
        mac,
      );
    it('0, the default: no answer', () => {
      ask(PEER, US);
      expectTx(rig.sent);
    });
    it('1: answers with the mask of the network', () => {
      set('maskrepl', 1);
      ask(PEER, US);
      ask(PEER, '255.255.255.255', BROADCAST_MAC);
      for (const f of rig.sent.splice(0)) {
        const { src, dst, icmp: m } = decodeFrame(f).ip!;
        expect([src, dst, m!.type, m!.id, m!.seq]).to.deep.equal([US, PEER, 18, 3, 4]);
        expect([...m!.payload]).to.deep.equal([255, 255, 255, 0]);
      }
    });
    it('1: does not answer a request that is too short', () => {
      set('maskrepl', 1);
      rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 17 })));
      expectTx(rig.sent);
    });
  });

  it('tstamprepl 0: no answer', () => {
    set('tstamprepl', 0);
    const ask = buildIcmp({ type: 13, payload: new Uint8Array(12) });
    rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, ask));
    expectTx(rig.sent);
  });

  for (const type of [9, 10, 15, 16, 30])
    it(`does not answer type ${type}`, () => {
      const message = buildIcmp({ type, payload: new Uint8Array(12) });
      rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, message));
      rig.injectIp(buildIp4({ src: PEER, dst: '224.0.0.1' }, 1, message), 0, '01:00:5e:00:00:01');
      expectTx(rig.sent);
    });

  describe('source of the reply to a packet for a foreign address', () => {
    /** A packet for another host with a bad option: the error is the reply. */
    const reply = (): Ip4Info => {
      rig.injectIp(
        buildIp4(
          { src: FAR, dst: '203.0.113.5', options: [7, 1, 0, 0] },
          17,
          [0, 0, 0, 0, 0, 0, 0, 0],
        ),
      );
      return decodeFrame(rig.sent.splice(0)[0]!).ip!;
    };
    beforeEach(() => {
      // The primary address is US; the route to the source uses the second one.
      expect(in_aifaddr(rig.ifp, addr('203.0.113.2'), 24)).to.equal(0);
      rig.sent.length = 0;
      inRouteAddGateway(rig.vnet, addr('198.51.100.0'), 24, addr('203.0.113.1'));
      rig.arpReply('203.0.113.1', '02:00:00:00:00:77');
    });
    it('is the address of the route by default', () => {
      expect(reply().src).to.equal('203.0.113.2');
    });
    it('is that of the interface that reply_src names', () => {
      expect(set('reply_src', 'tn0')).to.equal(0);
      expect(reply().src).to.equal(US);
      set('reply_src', 'none9');
      expect(reply().src).to.equal('203.0.113.2');
      expect(set('reply_src', 'a-name-of-16-let')).to.equal(EINVAL);
    });
    it('is that of the receiving interface with reply_from_interface', () => {
      expect(set('reply_from_interface', 1)).to.equal(0);
      expect(reply().src).to.equal(US);
    });
  });
});
