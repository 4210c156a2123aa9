import { expect } from 'chai';
import {
  AF_INET,
  IPPROTO_ICMP,
  IPPROTO_UDP,
  SOCK_DGRAM,
  SOCK_RAW,
  SOCK_STREAM,
} from '../../src/kern/protosw.ts';
import { ioResult, soRecvDgram, soSendDgram } from '../../src/kern/sys_generic.ts';
import { soReceivedFrom } from '../../src/kern/uipc_dgram.ts';
import {
  SO_BROADCAST,
  sobind,
  soclose,
  soconnect,
  socreate,
  solisten,
  soResult,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import { inPrimary } from '../../src/netinet/in_var.ts';
import {
  IN_EXPERIMENTAL,
  IN_MULTICAST,
  INADDR_BROADCAST,
  inAddrOf,
  inet_ntoa,
  inSockaddr,
  maskPrefix,
  parseInAddr,
  prefixMask,
} from '../../src/netinet/in.ts';
import { fib4_lookup, inRouteAddGateway, inRouteDel } from '../../src/netinet/in_fib.ts';
import { in_aifaddr, in_difaddr, inIfaddrs } from '../../src/netinet/in_ifaddr.ts';
import { InConninfo, in_pcblookup, type Inpcb } from '../../src/netinet/in_pcb.ts';
import { inetAf } from '../../src/netinet/inp_inet.ts';
import { in_broadcast } from '../../src/netinet/in_var.ts';
import { arpDelete, arpEntries } from '../../src/netinet/if_ether.ts';
import { Ip } from '../../src/netinet/ip.ts';
import { in_localip } from '../../src/netinet/ip_var.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { ENETUNREACH, EWOULDBLOCK } from '../../src/sys/errno.ts';
import { inAddr, kva, type InAddr, port } from '../../src/sys/types.ts';
import { memView } from '../../src/vm/arena.ts';
import { buildIcmp, buildIp4, buildTcp, buildUdp, decodeFrame } from '../support/frames.ts';
import { addr, PEER_MAC } from './rig.ts';
import { TestHost } from './tcp_host.ts';

/** A network of each side of 128.0.0.0: ours, a neighbour, the broadcast address, a router's target. */
const NETS = [
  { us: '10.0.0.2', peer: '10.0.0.1', all: '10.0.0.255', far: '9.8.7.6' },
  { us: '126.255.255.2', peer: '126.255.255.1', all: '126.255.255.255', far: '127.8.7.6' },
  { us: '128.0.0.2', peer: '128.0.0.1', all: '128.0.0.255', far: '128.8.7.6' },
  { us: '198.51.100.2', peer: '198.51.100.1', all: '198.51.100.255', far: '203.0.113.6' },
  { us: '223.255.255.2', peer: '223.255.255.1', all: '223.255.255.255', far: '223.8.7.6' },
];

describe('an IPv4 address is a signed word', () => {
  it('whatever it was made of', () => {
    expect(inAddr(0x80000000)).to.equal(-0x80000000);
    expect(inAddr(-0x80000000)).to.equal(-0x80000000);
    expect(parseInAddr('255.255.255.255')).to.equal(INADDR_BROADCAST);
    expect(INADDR_BROADCAST).to.equal(-1);
    expect(prefixMask(1)).to.equal(addr('128.0.0.0'));
    expect(maskPrefix(addr('255.255.255.255'))).to.equal(32);
    for (const text of [
      '0.0.0.0',
      '127.255.255.255',
      '128.0.0.0',
      '224.0.0.1',
      '255.255.255.255',
    ]) {
      const a = addr(text);
      expect(a | 0, text).to.equal(a);
      expect(inet_ntoa(a)).to.equal(text);
      expect(inAddr(a >>> 0)).to.equal(a);
    }
    expect([IN_MULTICAST(addr('224.0.0.1')), IN_MULTICAST(addr('192.0.2.1'))]).to.eql([
      true,
      false,
    ]);
    expect(IN_EXPERIMENTAL(addr('240.0.0.1'))).to.equal(true);
  });

  describe('in a stack', () => {
    let h: TestHost;
    beforeEach(() => (h = new TestHost()));
    afterEach(() => h.close());

    const socket = (type: number, proto: number): Socket => {
      expect(socreate(h.vnet, AF_INET, type, proto)).to.equal(0);
      h.sockets.push(soResult.so!);
      return soResult.so!;
    };
    const sin = (text: string, n: number): ReturnType<typeof inSockaddr> =>
      inSockaddr(addr(text), port(n));
    const receive = (so: Socket): number => {
      const buf = new Uint8Array(100);
      return soRecvDgram(so, buf, 0, 100) || -ioResult.n;
    };

    it('a header’s accessors keep the sign', () => {
      const p = kva(4096);
      const ip = new Ip().at(p);
      for (const text of ['10.0.0.1', '128.0.0.1', '255.255.255.255']) {
        ip.ip_src = addr(text);
        ip.ip_dst = addr(text);
        expect([ip.ip_src, ip.ip_dst]).to.eql([addr(text), addr(text)]);
        expect(memView.getUint32(p + 12)).to.equal(addr(text) >>> 0);
      }
    });

    for (const { us, peer, all, far } of NETS) {
      const put = (): void => {
        expect(in_aifaddr(h.ifp, addr(us), 24)).to.equal(0);
        h.arpReply(peer, PEER_MAC);
        h.sent.length = 0;
      };
      const via = (dst: string): string | undefined =>
        fib4_lookup(h.vnet, addr(dst))?.nh_ifp.if_xname;

      it(`finds ${us} as an interface's address, its broadcast and its routes`, () => {
        put();
        expect(in_localip(h.vnet, addr(us))).to.equal(true);
        expect(inIfaddrs(h.vnet).map((ia) => inet_ntoa(ia.ia_addr))).to.include(us);
        const ia = inIfaddrs(h.vnet).at(-1)!;
        expect(inAddrOf(ia.ifa_addr)).to.equal(ia.ia_addr);
        expect(inet_ntoa(ia.ia_broadaddr)).to.equal(all);
        expect([all, us, peer].map((a) => in_broadcast(addr(a), h.ifp))).to.eql([
          true,
          false,
          false,
        ]);
        expect([via(us), via(peer), via(far)]).to.eql(['lo0', 'tn0', undefined]);
        expect(inRouteAddGateway(h.vnet, addr(far), 32, addr(far))).to.equal(ENETUNREACH);
        expect(inRouteAddGateway(h.vnet, addr(far), 16, addr(peer))).to.equal(0);
        expect(inet_ntoa(inAddrOf(fib4_lookup(h.vnet, addr(far))!.nh_gateway))).to.equal(peer);
        expect(inRouteDel(h.vnet, addr(far), 16)).to.equal(0);
        expect(inet_ntoa(inPrimary(h.ifp)!.ia_addr)).to.equal('192.0.2.2');
        expect(in_difaddr(h.ifp, addr(us))).to.equal(0);
        expect([in_localip(h.vnet, addr(us)), via(us)]).to.eql([false, undefined]);
      });

      it(`finds ${peer} in the ARP table and answers for ${us}`, () => {
        put();
        const entry = (): unknown =>
          arpEntries(h.vnet).find((e) => inet_ntoa(e.addr) === peer)?.lladdr?.[5];
        h.arpAsk(us, peer);
        expect(entry()).to.equal(1);
        expect(decodeFrame(h.sent.pop()!)).to.have.property('type', 0x0806);
        expect(arpDelete(h.ifp, addr(peer))).to.equal(0);
        expect(entry()).to.equal(undefined);
        const other = addr(peer.replace(/\d+$/, '77'));
        expect(
          soSendDgram(
            socket(SOCK_DGRAM, IPPROTO_UDP),
            new Uint8Array(1),
            0,
            1,
            inSockaddr(other, port(9)),
          ),
        ).to.equal(0);
        expect(arpEntries(h.vnet).map((e) => e.addr)).to.include(other);
        h.sent.length = 0;
        h.clock.advance(30e9);
      });

      it(`finds connections of ${us} and ${peer}`, () => {
        put();
        const head = socket(SOCK_STREAM, 0);
        expect(sobind(head, sin(us, 80))).to.equal(0);
        expect(solisten(head, 4)).to.equal(0);
        h.injectIp(
          buildTcp({ src: peer, dst: us }, { sport: 4000, dport: 80, flags: 'S', seq: 1 }),
        );
        expect(h.take()[0]!.ip).to.include({ src: us, dst: peer });
        const so = socket(SOCK_STREAM, 0);
        expect(soconnect(so, sin(peer, 80))).to.equal(0);
        const { inp_inc } = so.so_pcb as Inpcb;
        expect(inet_ntoa(inp_inc.inc_f0 as InAddr)).to.equal(peer);
        const inc = new InConninfo();
        inc.copyFrom(inp_inc);
        const found = (): unknown => in_pcblookup(V_tcp(h.vnet).tcbinfo, inetAf, inc, true);
        expect(found()).to.equal(so.so_pcb);
        inc.inc_f0 ^= 0x80000000;
        expect(found(), 'the top bit counts').to.equal(null);
        h.take();
      });

      it(`delivers datagrams to ${us}, to ${all} and to a group`, () => {
        put();
        const so = socket(SOCK_DGRAM, IPPROTO_UDP);
        so.so_options |= SO_BROADCAST;
        expect(sobind(so, sin('0.0.0.0', 53))).to.equal(0);
        for (const dst of [us, all, '255.255.255.255', '224.0.0.1']) {
          h.injectIp(buildUdp({ src: peer, dst }, { sport: 9, dport: 53, payload: [1, 2] }));
          expect(receive(so), dst).to.equal(-2);
          expect(soReceivedFrom.name, dst).to.deep.equal(sin(peer, 9));
        }
        expect(receive(so)).to.equal(EWOULDBLOCK);
        expect(soSendDgram(so, new Uint8Array(3), 0, 3, sin(all, 9))).to.equal(0);
        expect(h.take().at(-1)).to.have.property('dst', 'ff:ff:ff:ff:ff:ff');
      });

      it(`delivers ICMP of ${peer} to raw sockets`, () => {
        put();
        const so = socket(SOCK_RAW, IPPROTO_ICMP);
        expect(sobind(so, sin(us, 0))).to.equal(0);
        expect(soconnect(so, sin(peer, 0))).to.equal(0);
        const reply = buildIcmp({ type: 0, payload: 'x' });
        h.injectIp(buildIp4({ src: peer, dst: us }, 1, reply));
        expect(receive(so)).to.equal(-29);
        expect(inAddrOf(soReceivedFrom.name) satisfies InAddr).to.equal(addr(peer));
        h.injectIp(buildIp4({ src: peer.replace(/\d+$/, '9'), dst: us }, 1, reply));
        expect(receive(so)).to.equal(EWOULDBLOCK);
        soclose(h.sockets.pop()!);
      });
    }
  });
});
