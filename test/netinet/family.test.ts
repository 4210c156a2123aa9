import { expect } from 'chai';
import { m_freem } from '../../src/kern/kern_mbuf.ts';
import { mtod } from '../../src/kern/mbuf.ts';
import {
  AF_INET,
  AF_MAX,
  IPPROTO_ICMP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  SOCK_DGRAM,
  SOCK_RAW,
  SOCK_STREAM,
} from '../../src/kern/protosw.ts';
import { ioResult, soRecvDgram, soSendDgram } from '../../src/kern/sys_generic.ts';
import {
  type ControlRef,
  sbdroprecord,
  soreceive_dgram,
  soReceivedFrom,
} from '../../src/kern/uipc_dgram.ts';
import {
  sobind,
  soclose,
  soconnect,
  socreate,
  solisten,
  soResult,
  type Socket,
} from '../../src/kern/uipc_socket.ts';
import { OutputDst } from '../../src/net/if_var.ts';
import { if_attach } from '../../src/net/if.ts';
import { ether_ifdetach, ether_output } from '../../src/net/if_ethersubr.ts';
import { rib_add_route, rib_del_route, ribLookup, rt_tables_get_rnh } from '../../src/net/route.ts';
import { fib4_lookup } from '../../src/netinet/in_fib.ts';
import { InConninfo, inpafRegister } from '../../src/netinet/in_pcb.ts';
import { PRC_UNREACH_PORT } from '../../src/netinet/ip_var.ts';
import { tcp_new_isn } from '../../src/netinet/tcp_isn.ts';
import { tcp_pcblist } from '../../src/netinet/tcp_pcblist.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { udpstat } from '../../src/netinet/udp_var.ts';
import { udp_input } from '../../src/netinet/udp_usrreq.ts';
import type { NetAddr } from '../../src/sys/addr.ts';
import { EAFNOSUPPORT, ECONNREFUSED, EEXIST, EHOSTUNREACH, EINVAL } from '../../src/sys/errno.ts';
import { mem } from '../../src/vm/arena.ts';
import { Uio, UIO_READ } from '../../src/vm/uio.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { buildEther, naiveSum } from '../support/frames.ts';
import { addr, OUR_MAC, outPacket, PEER, PEER_MAC } from './rig.ts';
import { sin, TestHost } from './tcp_host.ts';
import {
  addressAt,
  AF_TEST,
  DST_OFF,
  ETHERTYPE_TEST,
  HDRLEN,
  IPPROTO_TESTICMP,
  SRC_OFF,
  TestFamily,
  testSockaddr,
  words,
} from './test_family.ts';

const OURS = words('fd00:8000:0:1:ffff:0:8000:1');
const THEIRS = words('fd00:8000:0:1:ffff:0:8000:2');
/** It differs from THEIRS in the last word only. */
const OTHER = words('fd00:8000:0:1:ffff:0:8000:3');
const GROUP = words('ff02:0:0:0:0:0:0:1');
const ANY = words('0:0:0:0:0:0:0:0');

const octets = (a: NetAddr): number[] =>
  [a.w0, a.w1, a.w2, a.w3].flatMap((w) => [w >>> 24, (w >>> 16) & 255, (w >>> 8) & 255, w & 255]);
const be16 = (n: number): number[] => [(n >>> 8) & 255, n & 255];
const be32 = (n: number): number[] => [...be16(n >>> 16), ...be16(n)];

/** A packet with the checksum of its transport header, which has it at `sumOff`, filled in. */
function packet(
  proto: number,
  l4: readonly number[],
  sumOff: number,
  src = THEIRS,
  dst = OURS,
): Uint8Array {
  const body = [...l4];
  const pseudo = [...octets(src), ...octets(dst), ...be32(l4.length), 0, 0, 0, proto];
  if (sumOff >= 0) {
    const sum = naiveSum([...pseudo, ...body]) ^ 0xffff;
    body.splice(sumOff, 2, ...be16(sum));
  }
  const total = HDRLEN + body.length;
  const head = [0x70, 0, ...be16(total), proto, 61, 0, 0];
  return Uint8Array.from([...head, ...octets(src), ...octets(dst), ...body]);
}

const FLAGS: Record<string, number> = { F: 1, S: 2, R: 4, P: 8, '.': 16 };

function tcp(
  f: { sport: number; dport: number; seq: number; ack?: number; flags: string; data?: string },
  src = THEIRS,
): Uint8Array {
  const flags = f.flags.split('').reduce((n, c) => n | FLAGS[c]!, 0);
  const ports = [...be16(f.sport), ...be16(f.dport)];
  const rest = [0x50, flags, ...be16(65535), 0, 0, 0, 0, ...Buffer.from(f.data ?? '')];
  return packet(IPPROTO_TCP, [...ports, ...be32(f.seq), ...be32(f.ack ?? 0), ...rest], 16, src);
}

function udp(sport: number, dport: number, data: string, dst = OURS): Uint8Array {
  const ports = [...be16(sport), ...be16(dport)];
  const l4 = [...ports, ...be16(8 + data.length), 0, 0, ...Buffer.from(data)];
  return packet(IPPROTO_UDP, l4, 6, THEIRS, dst);
}

/** What one sent frame says, its checksum verified independently of src. */
interface Sent {
  src: NetAddr;
  dst: NetAddr;
  proto: number;
  ttl: number;
  l4: DataView;
  body: Uint8Array;
}

describe('a family that only a test has', () => {
  let h: TestHost;
  let family: TestFamily;
  beforeEach(() => {
    h = new TestHost();
    family = new TestFamily(h.ifp, OURS, 64);
    for (const a of [THEIRS, OTHER])
      family.neighbour(
        a,
        Uint8Array.from(PEER_MAC.split(':'), (x) => parseInt(x, 16)),
      );
  });
  afterEach(() => {
    for (const so of h.sockets.splice(0)) soclose(so);
    family.detach();
    h.close();
  });

  const inject = (bytes: Uint8Array): void =>
    h.inject(buildEther({ dst: OUR_MAC, src: PEER_MAC }, ETHERTYPE_TEST, bytes));

  function socket(type: number, protocol = 0): Socket {
    expect(socreate(h.vnet, AF_TEST, type, protocol)).to.equal(0);
    h.sockets.push(soResult.so!);
    return soResult.so!;
  }

  function sent(): Sent[] {
    return h.sent.splice(0).map((frame) => {
      expect([frame[12], frame[13]]).to.deep.equal(be16(ETHERTYPE_TEST));
      const p = frame.subarray(14);
      expect(p[0]).to.equal(0x70);
      expect((p[2]! << 8) | p[3]!).to.equal(p.length);
      const body = p.subarray(HDRLEN);
      const src = addressAt(p, SRC_OFF);
      const dst = addressAt(p, DST_OFF);
      if (p[4] !== IPPROTO_TESTICMP) {
        const pseudo = [...octets(src), ...octets(dst), ...be32(body.length), 0, 0, 0, p[4]!];
        expect(naiveSum([...pseudo, ...body]), 'checksum').to.equal(0xffff);
      }
      const l4 = new DataView(body.buffer, body.byteOffset, body.length);
      return { src, dst, proto: p[4]!, ttl: p[5]!, l4, body };
    });
  }

  const receive = (so: Socket): string | number => {
    const buf = new Uint8Array(2000);
    const error = soRecvDgram(so, buf, 0, buf.length);
    return error === 0 ? Buffer.from(buf.subarray(0, ioResult.n)).toString() : error;
  };

  it('accepts a TCP connection', () => {
    const head = socket(SOCK_STREAM);
    expect(sobind(head, testSockaddr(ANY, 80))).to.equal(0);
    expect(solisten(head, 4)).to.equal(0);
    inject(tcp({ sport: 4000, dport: 80, seq: 100, flags: 'S' }));
    const [synAck] = sent();
    expect([synAck!.src, synAck!.dst]).to.deep.equal([OURS, THEIRS]);
    expect(synAck!.ttl).to.equal(33);
    expect(synAck!.l4.getUint16(12) & 0x3f).to.equal(0x12);
    expect(synAck!.l4.getUint32(8)).to.equal(101);
    // MSS option: the MTU less both headers.
    expect([...synAck!.body.subarray(20, 24)]).to.deep.equal([2, 4, ...be16(1500 - 40 - 20)]);
    const seq = { sport: 4000, dport: 80, seq: 101, ack: synAck!.l4.getUint32(4) + 1 };
    inject(tcp({ ...seq, flags: '.' }));
    const so = h.accept(head);
    expect(h.tp(so).t_maxseg, 'the SYN had no MSS option').to.equal(1220);
    inject(tcp({ ...seq, flags: 'P.', data: 'hello' }));
    expect(h.read(so)).to.equal('hello');
    expect(so.so_proto.pr_peeraddr(so)).to.deep.equal(testSockaddr(THEIRS, 4000));
    expect(so.so_proto.pr_sockaddr(so)).to.deep.equal(testSockaddr(OURS, 80));
    h.write(so, 'world');
    expect(Buffer.from(sent().at(-1)!.body.subarray(20)).toString()).to.equal('world');
    expect(family.cachedRoutes, 'the route of the PCB is used').to.be.above(0);
    expect(tcp_pcblist(h.vnet).map((r) => `${r.proto} ${r.state}`)).to.have.members([
      'tcpt ESTABLISHED',
      'tcpt LISTEN',
    ]);
    // The same segment of another host finds no connection.
    inject(tcp({ ...seq, flags: '.' }, OTHER));
    expect(sent()[0]!.l4.getUint16(12) & 0x3f).to.equal(4);
  });

  it('connects by TCP, and ICMP of the family refuses a connection', () => {
    const so = socket(SOCK_STREAM);
    expect(soconnect(so, sin(PEER, 80))).to.equal(EAFNOSUPPORT);
    expect(soconnect(so, testSockaddr(THEIRS, 80))).to.equal(0);
    const [syn] = sent();
    expect([syn!.src, syn!.dst]).to.deep.equal([OURS, THEIRS]);
    const [sport, iss] = [syn!.l4.getUint16(0), syn!.l4.getUint32(4)];
    inject(tcp({ sport: 80, dport: sport, seq: 7, ack: iss + 1, flags: 'S.' }));
    expect(h.state(so)).to.equal('ESTABLISHED');
    const refused = socket(SOCK_STREAM);
    expect(soconnect(refused, testSockaddr(OTHER, 81))).to.equal(0);
    const [second] = sent().slice(-1);
    family.report(IPPROTO_TCP, PRC_UNREACH_PORT, OTHER, second!.body.subarray(0, 8));
    expect(refused.so_error).to.equal(ECONNREFUSED);
    expect(soconnect(socket(SOCK_STREAM), testSockaddr(words('fd01:0:0:0:0:0:0:1'), 9))).to.equal(
      EHOSTUNREACH,
    );
  });

  it('talks to itself through lo0', () => {
    const head = socket(SOCK_STREAM);
    expect(sobind(head, testSockaddr(OURS, 80))).to.equal(0);
    expect(solisten(head, 4)).to.equal(0);
    const so = socket(SOCK_STREAM);
    expect(soconnect(so, testSockaddr(OURS, 80))).to.equal(0);
    h.advance(1);
    expect(h.state(so)).to.equal('ESTABLISHED');
    expect(h.sent).to.deep.equal([]);
  });

  it('hashes all four words into sequence numbers', () => {
    const inc = new InConninfo();
    inc.inc_family = AF_TEST;
    inc.laddrFrom(OURS);
    inc.faddrFrom(THEIRS);
    const first = tcp_new_isn(V_tcp(h.vnet), inc);
    expect(tcp_new_isn(V_tcp(h.vnet), inc)).to.equal(first);
    for (const w of ['inc_f1', 'inc_f2', 'inc_f3'] as const) {
      inc[w] ^= 1;
      expect(tcp_new_isn(V_tcp(h.vnet), inc), w).to.not.equal(first);
      inc[w] ^= 1;
    }
  });

  it('carries datagrams, with sender and control data', () => {
    const so = socket(SOCK_DGRAM);
    expect(sobind(so, testSockaddr(OURS, 53))).to.equal(0);
    const data = Buffer.from('query');
    expect(soSendDgram(so, data, 0, data.length, testSockaddr(THEIRS, 5000))).to.equal(0);
    const [out] = sent();
    expect([out!.src, out!.dst, out!.proto]).to.deep.equal([OURS, THEIRS, IPPROTO_UDP]);
    expect(Buffer.from(out!.body.subarray(8)).toString()).to.equal('query');
    inject(udp(5000, 53, 'answer'));
    expect(receive(so)).to.equal('answer');
    expect(soReceivedFrom.name).to.deep.equal(testSockaddr(THEIRS, 5000));
    inject(udp(5000, 53, 'again'));
    const control: ControlRef = { m: null };
    const uio = new Uio().single(new Uint8Array(10), 0, 10, UIO_READ);
    expect(soreceive_dgram(so, uio, 0, soReceivedFrom, control)).to.equal(0);
    expect(mem[mtod(control.m!)], 'the ttl').to.equal(61);
    expect(control.m!.m_next).to.equal(null);
    m_freem(control.m);
    // A connected socket gets only its peer's.
    expect(soconnect(so, testSockaddr(OTHER, 5000))).to.equal(0);
    inject(udp(5000, 53, 'stranger'));
    expect(family.unreachable).to.equal(1);
    family.report(
      IPPROTO_UDP,
      PRC_UNREACH_PORT,
      OTHER,
      Uint8Array.from([...be16(53), ...be16(5000)]),
    );
    expect(receive(so)).to.equal(ECONNREFUSED);
  });

  it('gives a datagram for a group to each socket, and none of another family', () => {
    const four = socket(SOCK_DGRAM);
    expect(sobind(four, testSockaddr(ANY, 99))).to.equal(0);
    expect(socreate(h.vnet, AF_INET, SOCK_DGRAM, 0)).to.equal(0);
    const inet = soResult.so!;
    h.sockets.push(inet);
    expect(sobind(inet, sin('0.0.0.0', 53))).to.equal(0);
    const two = [socket(SOCK_DGRAM), socket(SOCK_DGRAM)];
    for (const so of two) {
      so.so_options |= 0x200; // SO_REUSEPORT
      expect(sobind(so, testSockaddr(ANY, 53))).to.equal(0);
    }
    inject(udp(5000, 53, 'all', GROUP));
    for (const so of two) expect(receive(so)).to.equal('all');
    expect(inet.so_rcv.sb_mb).to.equal(null);
    expect(udpstat(h.vnet).udps_noport).to.equal(0);
  });

  it('requires UDP checksums where the family does, both ways', () => {
    const so = socket(SOCK_DGRAM);
    expect(sobind(so, testSockaddr(OURS, 53))).to.equal(0);
    const bytes = udp(5000, 53, 'none');
    bytes.set([0, 0], HDRLEN + 6);
    inject(bytes);
    expect(udpstat(h.vnet).udps_badsum).to.equal(1);
    h.vnet.sysctl.write('net.inet.udp.checksum', '0');
    expect(soSendDgram(so, Buffer.from('x'), 0, 1, testSockaddr(THEIRS, 5000))).to.equal(0);
    sent();
  });

  it('has raw sockets', () => {
    const so = socket(SOCK_RAW, IPPROTO_TESTICMP);
    expect(soconnect(so, testSockaddr(THEIRS, 0))).to.equal(0);
    expect(soSendDgram(so, Buffer.from('ping'), 0, 4, null)).to.equal(0);
    const [out] = sent();
    expect([out!.proto, out!.dst]).to.deep.equal([IPPROTO_TESTICMP, THEIRS]);
    inject(packet(IPPROTO_TESTICMP, [...Buffer.from('pong')], -1));
    expect(receive(so))
      .to.be.a('string')
      .that.has.length(HDRLEN + 4);
    expect(socreate(h.vnet, AF_INET, SOCK_RAW, IPPROTO_ICMP)).to.equal(0);
    const inet = soResult.so!;
    h.sockets.push(inet);
    inject(packet(IPPROTO_TESTICMP, [1, 2, 3, 4], -1, OTHER));
    expect(inet.so_rcv.sb_mb, 'of another family').to.equal(null);
    expect(so.so_rcv.sb_mb).to.equal(null);
    expect(so.so_proto.pr_ctloutput!(so, { sopt_level: 0 } as never)).to.equal(EINVAL);
  });

  it('has a route table and neighbours of its own, by all four words', () => {
    const rh = rt_tables_get_rnh(h.vnet, AF_TEST);
    const via = (a: NetAddr): string | undefined =>
      ribLookup(rh, a.w0, a.w1, a.w2, a.w3)?.nh_ifp.if_xname;
    expect([via(THEIRS), via(OURS)]).to.deep.equal(['tn0', 'lo0']);
    expect(via(words('fd00:8000:0:2:0:0:0:1')), 'another network').to.equal(undefined);
    expect(fib4_lookup(h.vnet, addr(PEER))!.nh_ifp.if_xname, 'IPv4').to.equal('tn0');
    expect(family.neighbours.find(OTHER)!.r_l3addr).to.deep.equal(OTHER);
    expect(family.neighbours.find(words('fd00:8000:0:1:ffff:0:8000:4'))).to.equal(null);
    const stranger = new OutputDst(AF_MAX - 1);
    expect(ether_output(h.ifp, outPacket(new Uint8Array(60)), stranger)).to.equal(EAFNOSUPPORT);
    expect(inpafRegister(h.vnet, family.af)).to.equal(EEXIST);
    const { rt_nhop } = rh.entries.at(-1)!;
    expect(rib_add_route(rh, OTHER, 128, rt_nhop), 'but for the last word as OURS').to.equal(0);
    expect(rib_add_route(rh, OTHER, 128, rt_nhop)).to.equal(EEXIST);
    expect(rib_del_route(rh, OTHER, 128)).to.equal(0);
  });

  it('loses its routes when the interface goes', () => {
    ether_ifdetach(h.ifp);
    const rh = rt_tables_get_rnh(h.vnet, AF_TEST);
    expect(rh.entries.map((rt) => rt.rt_nhop.nh_ifp.if_xname)).to.deep.equal(['lo0']);
    if_attach(h.ifp); // for close()
  });

  it('leaves no garbage per datagram that came in', () => {
    const so = socket(SOCK_DGRAM);
    expect(sobind(so, testSockaddr(OURS, 53))).to.equal(0);
    const bytes = udp(5000, 53, 'answer');
    const one = (): void => {
      const m = outPacket(bytes);
      m.m_pkthdr.rcvif = h.ifp;
      udp_input(m, HDRLEN, h.vnet, AF_TEST);
      sbdroprecord(so.so_rcv);
    };
    const mbuf = bytesPerCall(() => m_freem(outPacket(bytes)));
    expect(bytesPerCall(one) - mbuf).to.be.below(8);
  });
});
