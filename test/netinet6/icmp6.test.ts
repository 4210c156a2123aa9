/** ICMPv6 errors: which are sent, what they quote, how often; and what received ones change. */

import { expect } from 'chai';
import { m_freem, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { AF_INET6, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { soSendDgram } from '../../src/kern/sys_generic.ts';
import { soconnect, socreate, soResult } from '../../src/kern/uipc_socket.ts';
import { icmp6_error } from '../../src/netinet6/icmp6_error.ts';
import { V_icmp6 } from '../../src/netinet6/icmp6_var.ts';
import { ip6_input } from '../../src/netinet6/ip6_input.ts';
import { ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, ENOBUFS, EWOULDBLOCK } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { mem } from '../../src/vm/arena.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { pgsMbuf } from '../kern/chains.ts';
import { outPacket } from '../netinet/rig.ts';
import { buildIcmp6, buildIp6, buildUdp6, ip6, type Packet6 } from '../support/six.ts';
import { sin6 } from './pair.ts';
import { PEER6, PEER_LL, Rig6, TO_US, US6, US_LL } from './rig6.ts';

const be32 = (n: number): number[] => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
const GROUP_MAC = '33:33:00:00:00:01';

describe('icmp6', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6();
  });
  afterEach(() => h.close());

  const unknown = (f = TO_US, size = 8): Uint8Array =>
    buildIp6(
      f,
      253,
      Array.from({ length: size }, (_, i) => i & 255),
    );

  describe('errors sent', () => {
    it('quote as much as 1280 bytes allow', () => {
      for (const size of [0, 8, 1191, 1192, 1193, 1400]) {
        h.inject6(unknown(TO_US, size));
        const [error] = h.take6();
        expect(error!.body.length).to.equal(8 + Math.min(40 + size, 1280 - 48));
        expect([...error!.body.subarray(8)]).to.deep.equal([
          ...unknown(TO_US, size).subarray(0, 1280 - 48),
        ]);
        expect([error!.src, error!.dst]).to.deep.equal([ip6(US6), ip6(PEER6)]);
      }
    });

    it('about link-local packets contain no zone', () => {
      h.inject6(unknown({ src: PEER_LL, dst: US_LL }));
      const [error] = h.take6();
      expect([error!.src, error!.dst]).to.deep.equal([ip6(US_LL), ip6(PEER_LL)]);
      expect([...error!.body.subarray(16, 48)]).to.deep.equal([...ip6(PEER_LL), ...ip6(US_LL)]);
    });

    it('are not about errors, redirects, groups as source or destination, or no source', () => {
      const quoted = [...unknown()];
      for (const type of [1, 2, 3, 4, 127, 137]) {
        const about = buildIcmp6(TO_US, [type, 0, 0, 0, 0, 0, 0, 0, ...quoted]);
        h.inject6(buildIp6(TO_US, 60, [253, 0, 1, 4, 0, 0, 0, 0]));
        expect(h.error6(), 'the header alone').to.not.equal(null);
        // An unknown option in front of the message would cause an error.
        const body = [58, 0, 0x9e, 4, 0, 0, 0, 0, ...about.subarray(40)];
        h.inject6(buildIp6(TO_US, 60, body));
        expect(h.error6(), `about type ${type}`).to.equal(null);
      }
      h.inject6(unknown({ src: PEER6, dst: 'ff02::1' }), GROUP_MAC);
      h.inject6(unknown({ src: '::', dst: US6 }));
      h.inject6(unknown(), GROUP_MAC);
      expect(h.take6()).to.deep.equal([]);
      expect(V_icmp6(h.vnet).stat.icp6s_canterror).to.equal(6);
    });

    /** Lets the stack report `packet`, followed by `rest`, and returns whether it sent the error. */
    const reported = (
      packet: Uint8Array,
      [type, code]: [number, number],
      rest: Mbuf | null = null,
    ): Packet6 | null => {
      const m = outPacket(packet);
      m.m_pkthdr.rcvif = h.ifp;
      m.m_next = rest;
      m.m_pkthdr.len += rest?.m_len ?? 0;
      const { stat } = V_icmp6(h.vnet);
      const before = stat.icp6s_reflect;
      inPass(icmp6_error, m, type, code, 1280, h.vnet);
      const sent = h.take6();
      expect(stat.icp6s_reflect - before, 'messages made').to.equal(sent.length);
      return sent[0] ?? null;
    };

    it('RFC 4443, 2.4 (e): about packets to groups only packet too big and unknown options', () => {
      const packet = unknown({ src: PEER6, dst: 'ff0e::99' });
      expect(reported(packet, [2, 0])!.body[0]).to.equal(2);
      expect(reported(packet, [4, 2])!.body[0]).to.equal(4);
      for (const kind of [
        [1, 0],
        [3, 0],
        [4, 0],
        [4, 1],
      ] as [number, number][])
        expect(reported(packet, kind), kind.join()).to.equal(null);
    });

    it('have one receiver: not the unspecified address and not a group', () => {
      for (const src of ['::', 'ff02::1', 'ff0e::99'])
        for (const kind of [
          [1, 0],
          [2, 0],
          [4, 2],
        ] as [number, number][])
          expect(reported(unknown({ src, dst: US6 }), kind), `${src} ${kind.join()}`).to.equal(
            null,
          );
    });

    it('quote only mapped bytes', () => {
      const rest = pgsMbuf({ npgs: 1, first: 500, last: 500 });
      const error = reported(unknown(TO_US, 30), [2, 0], rest);
      expect([...error!.body.subarray(8)]).to.deep.equal([...unknown(TO_US, 30)]);
    });

    it('are about a packet that ends in its extension headers, whatever lies behind it in memory', () => {
      // Behind the packet: a hop-by-hop header and an ICMPv6 error, which the length excludes.
      const header = [0, 0, 1, 4, 0, 0, 0, 0];
      const behind = [58, 0, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
      const packet = buildIp6(TO_US, 60, header);
      h.inject6(Uint8Array.from([...packet, ...behind]));
      expect(h.error6()).to.deep.equal([4, 1, 40]);
    });

    it('are about other ICMPv6 messages', () => {
      const echo = [128, 0, 0, 0, 0, 1, 0, 1];
      h.inject6(buildIp6(TO_US, 60, [58, 0, 0x9e, 4, 0, 0, 0, 0, ...echo]));
      expect(h.error6()).to.deep.equal([4, 2, 42]);
    });

    it('are at most errppslimit per second', () => {
      for (let i = 0; i < 150; i++) h.inject6(unknown());
      expect(h.take6()).to.have.lengthOf(100);
      expect(V_icmp6(h.vnet).stat.icp6s_toofreq).to.equal(50);
      h.advance(1000);
      h.inject6(unknown());
      expect(h.take6()).to.have.lengthOf(1);
      V_icmp6(h.vnet).params.errppslimit = -1;
      for (let i = 0; i < 150; i++) h.inject6(unknown());
      expect(h.take6()).to.have.lengthOf(150);
    });

    it('are counted by type and code', () => {
      h.inject6(unknown());
      h.inject6(buildUdp6(TO_US, 9, 99, [1]));
      const { stat } = V_icmp6(h.vnet);
      expect([
        stat.icp6s_error,
        stat.icp6s_oparamprob_nextheader,
        stat.icp6s_odst_unreach_noport,
        stat.icp6s_outhist[4],
        stat.icp6s_outhist[1],
      ]).to.deep.equal([2, 1, 1, 1, 1]);
    });
  });

  describe('errors received', () => {
    /** An error about a packet of ours. */
    const about = (
      type: number,
      code: number,
      word: number,
      packet: ArrayLike<number>,
    ): Uint8Array => buildIcmp6(TO_US, [type, code, 0, 0, ...be32(word), ...Array.from(packet)]);

    it('reach the connected socket of a datagram', () => {
      const so = h.udp6(5000);
      expect(soconnect(so, sin6(PEER6, 53))).to.equal(0);
      const sent = buildUdp6({ src: US6, dst: PEER6 }, 5000, 53, [1, 2, 3, 4]);
      for (const [type, code, error] of [
        [1, 4, ECONNREFUSED],
        [1, 0, EHOSTUNREACH],
        [1, 3, EHOSTUNREACH],
        [1, 1, ECONNREFUSED],
        [4, 1, ECONNREFUSED],
        [3, 0, EHOSTUNREACH],
        [1, 9, EWOULDBLOCK],
      ] as const) {
        h.inject6(about(type, code, 0, sent));
        expect(h.datagram(so), `${type} ${code}`).to.equal(error);
      }
      // Behind extension headers, too.
      const chain = [...sent.subarray(0, 6), 60, 64, ...sent.subarray(8, 40)];
      const quoted = [...chain, 17, 0, 1, 4, 0, 0, 0, 0, ...sent.subarray(40)];
      h.inject6(about(1, 4, 0, quoted));
      expect(h.datagram(so)).to.equal(ECONNREFUSED);
      const others = buildUdp6({ src: '2001:db8::5', dst: PEER6 }, 5000, 53, [1, 2, 3, 4]);
      h.inject6(about(1, 4, 0, others));
      expect(h.datagram(so), 'about a packet of another host').to.equal(EWOULDBLOCK);
    });

    it('packet too big: later datagrams are cut to the path MTU', () => {
      const so = h.udp6(5000);
      expect(soconnect(so, sin6(PEER6, 53))).to.equal(0);
      const bytes = new Uint8Array(1440);
      const send = (): number[] => {
        expect(soSendDgram(so, bytes, 0, bytes.length, null)).to.equal(0);
        return h.take6().map(({ nxt, body }) => (nxt === 44 ? body.length : -body.length));
      };
      expect(send()).to.deep.equal([-1448]);
      const sent = buildUdp6({ src: US6, dst: PEER6 }, 5000, 53, bytes);
      h.inject6(about(2, 0, 1400, sent.subarray(0, 1232)));
      expect(h.datagram(so), 'as on FreeBSD').to.equal(EMSGSIZE);
      expect(send()).to.deep.equal([1360, 104]);
      // Below the minimum: fragments of 1280 bytes, and a fragment header on every packet.
      h.inject6(about(2, 0, 600, sent.subarray(0, 1232)));
      expect(h.datagram(so)).to.equal(EMSGSIZE);
      expect(send()).to.deep.equal([1240, 224]);
      expect(soSendDgram(so, bytes, 0, 10, null)).to.equal(0);
      expect(h.take6().map(({ nxt, body }) => [nxt, body[3]! & 0xf9])).to.deep.equal([[44, 0]]);
    });

    it('packet too big: TCP sends smaller segments', () => {
      expect(socreate(h.vnet, AF_INET6, SOCK_STREAM, 0)).to.equal(0);
      const so = soResult.so!;
      h.sockets.push(so);
      expect(soconnect(so, sin6(PEER6, 80))).to.equal(0);
      const [syn] = h.take6();
      const mss = (body: Uint8Array): number => (body[22]! << 8) | body[23]!;
      expect(mss(syn!.body)).to.equal(1440);
      const packet = buildIp6({ src: US6, dst: PEER6 }, 6, syn!.body);
      h.inject6(about(2, 0, 1300, packet));
      expect(socreate(h.vnet, AF_INET6, SOCK_STREAM, 0)).to.equal(0);
      h.sockets.push(soResult.so!);
      expect(soconnect(soResult.so!, sin6(PEER6, 80))).to.equal(0);
      expect(mss(h.take6().at(-1)!.body), 'of the next connection').to.equal(1240);
    });

    it('drops what is too short or has a bad checksum', () => {
      const { stat } = V_icmp6(h.vnet);
      h.inject6(buildIp6(TO_US, 58, [128, 0, 0, 0]));
      const echo = buildIcmp6(TO_US, [128, 0, 0, 0, 0, 1, 0, 1]);
      echo[43]! ^= 1;
      h.inject6(echo);
      h.inject6(about(1, 4, 0, [1, 2, 3]));
      expect([stat.icp6s_tooshort, stat.icp6s_checksum]).to.deep.equal([2, 1]);
      expect(h.take6()).to.deep.equal([]);
    });
  });

  it('allocates no garbage per echo request and reply', () => {
    const packet = buildIcmp6(TO_US, [128, 0, 0, 0, 0, 1, 0, 1]);
    const received = (): Mbuf => {
      const m = m_gethdr(M_NOWAIT, MT_DATA)!;
      m.m_data += 32;
      mem.set(packet, m.m_data);
      m.m_len = m.m_pkthdr.len = packet.length;
      m.m_pkthdr.rcvif = h.ifp;
      return m;
    };
    // The driver of the rig frees the reply.
    h.txError = ENOBUFS;
    const own = bytesPerCall(() => m_freem(received()));
    const once = (): void => inPass(ip6_input, received(), h.vnet);
    expect(bytesPerCall(once) - own).to.be.below(8);
    expect(V_icmp6(h.vnet).stat.icp6s_reflect).to.be.above(100_000);
  }).timeout(60_000);
});
