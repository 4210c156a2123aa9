/** Input of IPv6: checks, extension headers in every order, options, the errors that they cause. */

import { expect } from 'chai';
import {
  counted,
  R_IP6_BADADDR,
  R_IP6_BADSCOPE,
  R_IP6_DISABLED,
  R_IP6_HEADERS,
  R_IP6_NONE,
  R_IP6_NOTREADY,
  R_IP6_NOTUS,
  R_IP6_SHORT,
  R_IP6_VERSION,
  type Reason,
} from '../../src/sys/reason.ts';
import {
  IN6_IFF_TENTATIVE,
  in6Ifaddrs,
  in6Ifextra,
  ND6_IFF_IFDISABLED,
} from '../../src/netinet6/in6_var.ts';
import { buildIcmp6, buildIp6, buildUdp6, summed } from '../support/six.ts';
import { PEER6, PEER_LL, Rig6, TO_US, US6, US_LL } from './rig6.ts';

const HBH = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const NONE = 59;
const DST = 60;
const UDP = 17;
const PARAM_PROB = 4;
const ALL_NODES_MAC = '33:33:00:00:00:01';

/** A UDP datagram to port 53, without its IPv6 header. */
const udp = (f = TO_US): number[] => {
  const data = [104, 105];
  return [...buildUdp6(f, 9, 53, data).subarray(40)];
};

/** An options header: `options`, padded to a multiple of 8 bytes. */
function opts(next: number, options: number[] = []): number[] {
  const pad = (8 - ((2 + options.length) % 8)) % 8;
  const fill =
    pad === 0 ? [] : pad === 1 ? [0] : [1, pad - 2, ...Array.from({ length: pad - 2 }, () => 0)];
  return [next, (2 + options.length + pad) / 8 - 1, ...options, ...fill];
}

describe('ip6_input', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6();
  });
  afterEach(() => h.close());

  /** Whether the payload with the first header `nxt` reaches the socket on port 53. */
  function arrives(nxt: number, payload: number[]): boolean {
    const so = h.udp6(53);
    h.inject6(buildIp6(TO_US, nxt, payload));
    const got = h.datagram(so);
    h.sockets.pop();
    h.sockets.push(so);
    return got === 'hi';
  }

  describe('drops and counts', () => {
    const echo = (src: string, dst: string): Uint8Array =>
      buildIcmp6({ src, dst }, [128, 0, 0, 0, 0, 1, 0, 1]);
    const whole = echo(PEER6, US6);
    const rows: [string, () => Uint8Array, Reason][] = [
      ['39 bytes', () => whole.subarray(0, 39), R_IP6_SHORT],
      ['a packet shorter than its length', () => whole.subarray(0, 47), R_IP6_SHORT],
      ['version 4', () => Uint8Array.from([0x45, ...whole.subarray(1)]), R_IP6_VERSION],
      ['another host', () => echo(PEER6, '2001:db8::9'), R_IP6_NOTUS],
      ['a group that the host has not joined', () => echo(PEER6, 'ff02::9'), R_IP6_NOTUS],
      ['a group as source', () => echo('ff02::1', US6), R_IP6_BADSCOPE],
      ['the unspecified address as destination', () => echo(PEER6, '::'), R_IP6_BADSCOPE],
      ['the loopback address as source', () => echo('::1', US6), R_IP6_BADSCOPE],
      ['the loopback address as destination', () => echo(PEER6, '::1'), R_IP6_BADSCOPE],
      ['an interface-local group', () => echo(PEER6, 'ff01::1'), R_IP6_BADSCOPE],
      ['a group without a scope', () => echo(PEER6, 'ff00::1'), R_IP6_BADSCOPE],
      ['an IPv4-mapped source', () => echo('::ffff:c000:201', US6), R_IP6_BADSCOPE],
      ['an IPv4-mapped destination', () => echo(PEER6, '::ffff:c000:202'), R_IP6_BADSCOPE],
      ['a zone in the source', () => echo('fe80:1::1', US6), R_IP6_BADSCOPE],
      ['a zone in the destination', () => echo(PEER6, 'fe80:2::ff:fe00:2'), R_IP6_BADSCOPE],
      ['our own address as source', () => echo(US6, US6), R_IP6_BADADDR],
    ];
    for (const [what, packet, reason] of rows)
      it(what, () => {
        const { ip6s_delivered: delivered } = h.stat6;
        h.inject6(packet());
        expect(h.take6()).to.deep.equal([]);
        expect(counted(reason)).to.equal(1);
        expect(h.stat6.ip6s_delivered - delivered, 'none reached a protocol').to.equal(0);
      });

    it('every packet of an interface with IPv6 disabled', () => {
      in6Ifextra(h.ifp)!.nd_ifinfo.flags |= ND6_IFF_IFDISABLED;
      const { ip6s_total } = h.stat6;
      h.inject6(whole);
      expect(h.take6()).to.deep.equal([]);
      expect([counted(R_IP6_DISABLED), h.stat6.ip6s_total - ip6s_total]).to.deep.equal([1, 0]);
      in6Ifextra(h.ifp)!.nd_ifinfo.flags &= ~ND6_IFF_IFDISABLED;
    });

    it('a packet to a tentative address', () => {
      in6Ifaddrs(h.vnet).at(-1)!.ia6_flags |= IN6_IFF_TENTATIVE;
      h.inject6(whole);
      expect(counted(R_IP6_NOTREADY)).to.equal(1);
    });
  });

  it('answers echo requests, to groups from a unicast address, in mbufs of any size', () => {
    for (const piece of [0, 1, 7, 40, 41]) {
      h.inject6(buildIcmp6(TO_US, [128, 0, 0, 0, 0, 1, 0, 2, 3, 4]), undefined, piece);
      const [reply] = h.take6();
      expect([...reply!.body.subarray(4)]).to.deep.equal([0, 1, 0, 2, 3, 4]);
      expect([reply!.body[0], reply!.hlim]).to.deep.equal([129, 64]);
    }
    h.inject6(
      buildIcmp6({ src: PEER_LL, dst: 'ff02::1' }, [128, 0, 0, 0, 0, 1, 0, 2]),
      ALL_NODES_MAC,
    );
    const [reply] = h.take6();
    expect(reply!.src).to.deep.equal(
      [...buildIp6({ src: US_LL, dst: US6 }, NONE, [])].slice(8, 24),
    );
  });

  it('cuts the bytes behind the payload, in one mbuf and in several', () => {
    for (const piece of [0, 10, 100]) {
      const echo = buildIcmp6(TO_US, [128, 0, 0, 0, 0, 1, 0, 2, 3, 4]);
      h.inject6(
        Uint8Array.from([...echo, ...Array.from({ length: 60 }, () => 9)]),
        undefined,
        piece,
      );
      const [reply] = h.take6();
      expect([...reply!.body.subarray(4)]).to.deep.equal([0, 1, 0, 2, 3, 4]);
    }
    const packet = buildUdp6(TO_US, 9, 53, [104, 105]);
    const so = h.udp6(53);
    h.inject6(Uint8Array.from([...packet, 1, 2, 3]));
    expect(h.datagram(so)).to.equal('hi');
  });

  describe('extension headers', () => {
    const rh = (next: number, type = 0, left = 0): number[] => [next, 0, type, left, 0, 0, 0, 0];
    const atomic = (next: number): number[] => [next, 0, 0, 0, 1, 2, 3, 4];

    it('are accepted in every order behind the hop-by-hop options', () => {
      const some: [number, (next: number) => number[]][] = [
        [DST, (next) => opts(next)],
        [ROUTING, (next) => rh(next, 4)],
        [FRAGMENT, atomic],
        [DST, (next) => opts(next, [0, 0, 1, 0])],
      ];
      const orders = [
        [0, 1, 2, 3],
        [3, 2, 1, 0],
        [2, 0, 3, 1],
        [1, 3, 0, 2],
        [1],
        [],
        [2, 2, 0, 0],
      ];
      const so = h.udp6(53);
      for (const order of orders)
        for (const first of [true, false]) {
          let nxt = UDP;
          let bytes = udp();
          for (const i of order.toReversed()) {
            bytes = [...some[i]![1](nxt), ...bytes];
            nxt = some[i]![0];
          }
          // Router alert: RFC 2711.
          if (first) [nxt, bytes] = [HBH, [...opts(nxt, [5, 2, 0, 0]), ...bytes]];
          h.inject6(buildIp6(TO_US, nxt, bytes));
          expect(h.datagram(so), `${order.join()} ${first}`).to.equal('hi');
        }
      expect(h.take6()).to.deep.equal([]);
    });

    it('may be at most 15', () => {
      const chain = (n: number): number[] =>
        Array.from({ length: n }, (_, i) => opts(i === n - 1 ? UDP : DST)).flat();
      expect(arrives(DST, [...chain(14), ...udp()])).to.equal(true);
      h.inject6(buildIp6(TO_US, DST, [...chain(15), ...udp()]));
      expect(counted(R_IP6_HEADERS)).to.equal(1);
      expect(h.stat6.ip6s_toomanyhdr).to.equal(1);
      // 0 is no limit.
      expect(h.vnet.sysctl.write('net.inet6.ip6.hdrnestlimit', '0')).to.equal(0);
      h.inject6(buildIp6(TO_US, DST, [...chain(40), ...udp()]));
      expect(h.datagram(h.sockets[0]!)).to.equal('hi');
    });

    it('cause a parameter problem about the type of a routing header with segments left', () => {
      for (const type of [0, 1, 4]) {
        h.inject6(buildIp6(TO_US, ROUTING, [...rh(UDP, type, 1), ...udp()]));
        expect(h.error6(), `type ${type}`).to.deep.equal([PARAM_PROB, 0, 42]);
      }
      expect(h.stat6.ip6s_badoptions).to.equal(3);
    });

    it('cause a parameter problem about an unknown or misplaced next header', () => {
      h.inject6(buildIp6(TO_US, 253, [1, 2, 3, 4]));
      expect(h.error6()).to.deep.equal([PARAM_PROB, 1, 6]);
      h.inject6(buildIp6(TO_US, DST, [...opts(253), 1, 2, 3, 4]));
      expect(h.error6()).to.deep.equal([PARAM_PROB, 1, 40]);
      h.inject6(buildIp6(TO_US, DST, [...opts(HBH), ...opts(UDP), ...udp()]));
      expect(h.error6(), 'hop-by-hop options behind others').to.deep.equal([PARAM_PROB, 1, 40]);
      h.inject6(buildIp6(TO_US, HBH, [...opts(HBH), ...opts(UDP), ...udp()]));
      expect(h.error6()).to.deep.equal([PARAM_PROB, 1, 40]);
      h.inject6(buildIp6(TO_US, NONE, [1, 2]));
      expect(h.error6()).to.equal(null);
      expect(counted(R_IP6_NONE)).to.equal(1);
    });

    it('that end behind the packet are dropped', () => {
      h.inject6(buildIp6(TO_US, DST, [UDP, 1, 0, 0, 0, 0, 0, 0]));
      h.inject6(buildIp6(TO_US, DST, [UDP, 0, 0, 0]));
      h.inject6(buildIp6(TO_US, HBH, [UDP, 9, 0, 0, 0, 0, 0, 0]));
      h.inject6(buildIp6(TO_US, ROUTING, []));
      expect(h.take6()).to.deep.equal([]);
      expect(h.stat6.ip6s_tooshort).to.equal(4);
    });
  });

  describe('options', () => {
    for (const [where, nxt] of [
      ['hop-by-hop', HBH],
      ['destination', DST],
    ] as const) {
      it(`${where}: an unknown one is treated by its action bits`, () => {
        const unknown = (bits: number): number[] => [bits | 0x1e, 2, 0, 0];
        expect(arrives(nxt, [...opts(UDP, unknown(0)), ...udp()]), '00: skip').to.equal(true);
        const send = (bits: number, dst: string, lladdr?: string): unknown => {
          const payload = [...opts(UDP, unknown(bits)), ...udp({ src: PEER6, dst })];
          h.inject6(buildIp6({ src: PEER6, dst }, nxt, payload), lladdr);
          return h.error6();
        };
        const error = [PARAM_PROB, 2, 42];
        expect(send(0x40, US6), '01: discard').to.equal(null);
        expect(send(0x80, US6), '10: report').to.deep.equal(error);
        expect(send(0xc0, US6), '11: report').to.deep.equal(error);
        expect(send(0x80, 'ff02::1', ALL_NODES_MAC), '10 to a group').to.deep.equal(error);
        expect(send(0xc0, 'ff02::1', ALL_NODES_MAC), '11 to a group').to.equal(null);
        expect(h.stat6.ip6s_badoptions).to.equal(5);
      });

      it(`${where}: one that ends behind its header is reported`, () => {
        h.inject6(buildIp6(TO_US, nxt, [UDP, 0, 1, 5, 0, 0, 0, 0, ...udp()]));
        expect(h.error6()).to.deep.equal([PARAM_PROB, 0, 43]);
      });
    }

    it('a jumbo payload is an unknown option', () => {
      const jumbo = [UDP, 0, 0xc2, 4, 0, 1, 0, 0];
      h.inject6(buildIp6({ ...TO_US, plen: 0 }, HBH, [...jumbo, ...udp()]));
      expect(h.error6()).to.deep.equal([PARAM_PROB, 2, 42]);
    });

    it('a router alert of another length is reported', () => {
      h.inject6(buildIp6(TO_US, HBH, [...opts(UDP, [5, 3, 0, 0, 0]), ...udp()]));
      expect(h.error6()).to.deep.equal([PARAM_PROB, 0, 43]);
    });
  });

  it('verifies UDP checksums, and requires one', () => {
    const so = h.udp6(53);
    const bad = udp();
    bad[9]! ^= 1;
    h.inject6(buildIp6(TO_US, UDP, bad));
    const none = udp();
    none[6] = none[7] = 0;
    h.inject6(buildIp6(TO_US, UDP, none));
    expect(h.datagram(so)).to.be.a('number');
    h.inject6(buildIp6(TO_US, UDP, summed(TO_US, UDP, udp(), 6)));
    expect(h.datagram(so)).to.equal('hi');
  });
});
