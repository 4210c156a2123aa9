/**
 * IPv4 options on input, in replies, in quoted errors and of sockets. The expected bytes are those of
 * RFC 791 and of a FreeBSD stack.
 */

import { expect } from 'chai';
import { Bsd } from '../../src/api/bsd.ts';
import { AF_INET, IPPROTO_ICMP, IPPROTO_IP, SOCK_DGRAM, SOCK_RAW } from '../../src/kern/protosw.ts';
import { SOPT_GET, SOPT_SET, Sockopt } from '../../src/kern/sockopt.ts';
import { soSendDgram } from '../../src/kern/sys_generic.ts';
import { soclose, socreate, soResult, type Socket } from '../../src/kern/uipc_socket.ts';
import { sogetopt, sosetopt } from '../../src/kern/uipc_sockopt.ts';
import { IFCAP_TSO4 } from '../../src/net/if_var.ts';
import { CSUM_IP, CSUM_IP_TSO, CSUM_TCP } from '../../src/kern/mbuf.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { inSockaddr } from '../../src/netinet/in.ts';
import { inRouteAddGateway } from '../../src/netinet/in_fib.ts';
import { IP_OPTIONS } from '../../src/netinet/ip_ctloutput.ts';
import { ipstat } from '../../src/netinet/ip_var.ts';
import { EINVAL, EMSGSIZE } from '../../src/sys/errno.ts';
import { port } from '../../src/sys/types.ts';
import {
  buildIcmp,
  buildIp4,
  buildTcp,
  buildUdp,
  decodeFrame,
  expectTx,
  icmp,
  ip4,
  type Ip4Info,
} from '../support/frames.ts';
import { addr, PEER, Rig, US } from './rig.ts';
import { TestHost } from './tcp_host.ts';

const NOP = 1;
const EOL = 0;
const us = ip4(US);
const peer = ip4(PEER);
/** An address of ours that is not the one asked. */
const SECOND = '192.0.2.3';

/** RR of `n` slots, of which `filled` are taken, padded to words. */
const rr = (n: number, ...filled: number[][]): number[] => [
  7,
  3 + 4 * n,
  4 + 4 * filled.length,
  ...filled.flat(),
  ...Array.from({ length: 4 * (n - filled.length) }, () => 0),
  EOL,
];
/** TS of `n` bytes of entries with flag `flag` and pointer `ptr`. */
const ts = (flag: number, ptr: number, entries: number[]): number[] => [
  68,
  4 + entries.length,
  ptr,
  flag,
  ...entries,
];
const zeros = (n: number): number[] => Array.from({ length: n }, () => 0);

describe('ip_options', () => {
  let rig: Rig;
  beforeEach(() => {
    rig = new Rig();
    rig.clock.advance(1e9);
  });
  afterEach(() => rig.close());

  const set = (name: string, value: number): void =>
    void expect(rig.vnet.sysctl.write(name, String(value))).to.equal(0);
  const ask = (options: number[], f: { dst?: string; src?: string } = {}): void =>
    rig.injectIp(
      buildIp4(
        { src: PEER, dst: US, options, ...f },
        1,
        buildIcmp({ type: 8, id: 1, payload: 'text' }),
      ),
    );
  const reply = (): Ip4Info => expectTx(rig.sent, [icmp(0)])[0]!.ip!;
  const options = (): number[] => [...reply().options];
  const error = (): { type: number; code: number; ptr: number; quoted: Uint8Array } => {
    const { icmp: m } = decodeFrame(rig.sent.splice(0)[0]!).ip!;
    return { type: m!.type, code: m!.code, ptr: m!.id >>> 8, quoted: m!.payload };
  };
  /** Milliseconds since midnight as the option holds them. */
  const now = (): number[] => {
    ask(ts(0, 5, zeros(8)));
    return options().slice(4, 8);
  };

  describe('record route', () => {
    it('adds our address to the request and repeats the option in the echo reply', () => {
      ask(rr(3));
      expect(options()).to.deep.equal(rr(3, us));
    });
    it('keeps the hops before ours', () => {
      ask(rr(3, [10, 0, 0, 1]));
      expect(options()).to.deep.equal(rr(3, [10, 0, 0, 1], us));
    });
    it('leaves a full option as it is', () => {
      ask(rr(1, [10, 0, 0, 1]));
      expect(options()).to.deep.equal(rr(1, [10, 0, 0, 1]));
    });
    it('takes nine slots, which ping -R sends', () => {
      ask([NOP, ...rr(9).slice(0, 39)]);
      // The reply repeats the option without the NOP and pads at the end.
      expect(options()).to.deep.equal(rr(9, us));
    });
    it('records the address of the interface for a broadcast request', () => {
      set('net.inet.icmp.bmcastecho', 1);
      rig.injectIp(
        buildIp4({ src: PEER, dst: '192.0.2.255', options: rr(1) }, 1, buildIcmp({ type: 8 })),
        0,
        'ff:ff:ff:ff:ff:ff',
      );
      expect(options()).to.deep.equal(rr(1, us));
    });
  });

  describe('timestamp', () => {
    it('flag 0 records the time', () => {
      ask(ts(0, 5, zeros(8)));
      const opt = options();
      expect([...opt.slice(0, 4), ...opt.slice(8)]).to.deep.equal([68, 12, 9, 0, 0, 0, 0, 0]);
      expect(opt.slice(4, 8)).to.not.deep.equal(zeros(4));
    });
    it('flag 1 records our address and the time', () => {
      const time = now();
      ask(ts(1, 5, zeros(16)));
      expect(options()).to.deep.equal(ts(1, 13, [...us, ...time, ...zeros(8)]));
    });
    it('flag 3 records the time only behind an address of ours', () => {
      const time = now();
      ask(ts(3, 5, [...us, ...zeros(4), ...peer, ...zeros(4)]));
      expect(options()).to.deep.equal(ts(3, 13, [...us, ...time, ...peer, ...zeros(4)]));
      ask(ts(3, 5, [...peer, ...zeros(4), ...us, ...zeros(4)]));
      expect(options()).to.deep.equal(ts(3, 5, [...peer, ...zeros(4), ...us, ...zeros(4)]));
    });
    it('counts an overflow when it is full', () => {
      ask(ts(0x21, 21, zeros(16)));
      expect(options()).to.deep.equal(ts(0x31, 21, zeros(16)));
    });
    it('reports the overflow of the overflow count', () => {
      ask(ts(0xf1, 21, zeros(16)));
      expect(error()).to.deep.include({ type: 12, code: 0, ptr: 22 });
    });
    it('reports an unknown flag', () => {
      ask(ts(2, 5, zeros(16)));
      expect(error()).to.deep.include({ type: 12, ptr: 23 });
    });
    it('reports a last entry that is too short for address and time', () => {
      ask([68, 12, 8, 1, ...zeros(8)]);
      expect(error()).to.deep.include({ type: 12, ptr: 22 });
    });
  });

  describe('bad options: a parameter problem with the offset of the byte', () => {
    const wrong: [string, number[], number][] = [
      ['no length byte', [NOP, NOP, NOP, 7], 24],
      ['length 0', [7, 0, 4, 0], 21],
      ['length 1', [148, 1, 0, 0], 21],
      ['longer than the header', [148, 5, 0, 0], 21],
      ['longer than the header, behind a NOP', [NOP, 148, 4, 0], 22],
      ['RR without a pointer', [7, 2, 0, 0], 22],
      ['RR with pointer 3', [...rr(1).slice(0, 2), 3, ...zeros(5)], 22],
      ['LSRR without a pointer', [131, 2, 0, 0], 21],
      ['LSRR with pointer 3', [131, 7, 3, ...zeros(5)], 22],
      ['SSRR with pointer 0', [137, 7, 0, ...zeros(5)], 22],
      ['TS of 3 bytes', [68, 3, 5, 0], 21],
      ['TS with pointer 4', [68, 8, 4, 0, ...zeros(4)], 21],
    ];
    for (const [what, opts, at] of wrong)
      it(what, () => {
        ask(opts);
        const e = error();
        expect([e.type, e.code, e.ptr]).to.deep.equal([12, 0, at]);
        expect(e.quoted[0]).to.equal(0x40 | (5 + opts.length / 4));
        expect([...e.quoted.subarray(20, 20 + opts.length)]).to.deep.equal(opts);
        expect(ipstat(rig.vnet).ips_badoptions).to.equal(1);
      });
    it('ends at EOL: what follows is not read', () => {
      ask([EOL, 7, 1, 99]);
      expect(reply().hlen).to.equal(20);
    });
  });

  describe('source routes', () => {
    const lsrr = (type: number, ptr: number, ...hops: string[]): number[] => [
      NOP,
      type,
      3 + 4 * hops.length,
      ptr,
      ...hops.flatMap(ip4),
    ];
    const OTHER = '192.0.2.9';

    it('drops a route with a hop left silently', () => {
      ask(lsrr(131, 4, OTHER));
      expectTx(rig.sent);
      expect(ipstat(rig.vnet).ips_cantforward).to.equal(1);
    });
    for (const type of [131, 137])
      it(`refuses the end of a route without accept_sourceroute, type ${type}, and logs it`, () => {
        ask(lsrr(type, 8, OTHER));
        expect(error()).to.deep.include({ type: 3, code: 5 });
        expect(rig.console).to.include(`attempted source route from ${PEER} to ${US}`);
      });
    it('logs at most ten lines in a second', () => {
      for (let i = 0; i < 50; i++) ask(lsrr(131, 8, OTHER));
      expect(rig.console.filter((line) => line.startsWith('attempted'))).to.have.lengthOf(10);
    });
    it('accepts the end of a route with accept_sourceroute, and replies by the way back', () => {
      set('net.inet.ip.accept_sourceroute', 1);
      inRouteAddGateway(rig.vnet, addr('198.51.100.0'), 24, addr(PEER));
      ask(lsrr(131, 12, '198.51.100.7', OTHER), { src: '198.51.100.1' });
      // The last hop is where the reply goes first; OTHER has no ARP entry yet.
      rig.sent.length = 0;
      rig.arpReply(OTHER, '02:00:00:00:00:09');
      const ip = reply();
      expect([ip.src, ip.dst]).to.deep.equal([US, OTHER]);
      expect([...ip.options]).to.deep.equal(lsrr(131, 4, '198.51.100.7', '198.51.100.1'));
    });
    it('refuses a strict route for another host, and a loose one without sourceroute', () => {
      for (const type of [137, 131]) {
        ask(lsrr(type, 4, US), { dst: OTHER });
        expect(error(), String(type)).to.deep.include({ type: 3, code: 5 });
      }
    });
    it('processes a hop that is another address of ours with sourceroute', () => {
      set('net.inet.ip.sourceroute', 1);
      set('net.inet.ip.accept_sourceroute', 1);
      expect(in_aifaddr(rig.ifp, addr(SECOND), 24)).to.equal(0);
      rig.sent.length = 0;
      ask(lsrr(131, 4, SECOND));
      const ip = reply();
      expect([ip.src, ip.dst]).to.deep.equal([SECOND, PEER]);
    });
    it('answers a hop without a route with source route failed', () => {
      set('net.inet.ip.sourceroute', 1);
      ask(lsrr(131, 4, '203.0.113.1'));
      expect(error()).to.deep.include({ type: 3, code: 5 });
    });
  });

  describe('net.inet.ip.process_options', () => {
    it('0 ignores options, right or wrong', () => {
      set('net.inet.ip.process_options', 0);
      ask([7, 1, 0, 0]);
      reply();
      ask(rr(1));
      expect(options()).to.deep.equal(rr(1));
    });
    it('2 rejects packets with options as administratively prohibited', () => {
      set('net.inet.ip.process_options', 2);
      ask([NOP, NOP, NOP, EOL]);
      expect(error()).to.deep.include({ type: 3, code: 13 });
      ask([]);
      reply();
    });
    it('refuses other values', () => {
      expect(rig.vnet.sysctl.write('net.inet.ip.process_options', '3')).to.equal(EINVAL);
    });
  });

  it('passes a router alert to the protocol', () => {
    ask([148, 4, 0, 0]);
    expect(reply().hlen).to.equal(20);
  });

  it('repeats the security option', () => {
    const security = [130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, EOL];
    ask(security);
    expect(options()).to.deep.equal(security);
  });

  it('records the route in the first fragment and repeats it in the fragmented reply', () => {
    const body = buildIcmp({ type: 8, payload: new Uint8Array(2000) });
    const part = (off: number, end: number, opts: number[]): Uint8Array =>
      buildIp4(
        { src: PEER, dst: US, id: 9, fragOff: off, mf: end < body.length, options: opts },
        1,
        body.subarray(off, end),
      );
    rig.injectIp(part(0, 1000, rr(2)));
    rig.injectIp(part(1000, body.length, []));
    const frames = rig.sent.splice(0).map((f) => decodeFrame(f).ip!);
    // The copied flag of RR is 0: only the first fragment has it.
    expect(frames.map((f) => [...f.options])).to.deep.equal([rr(2, us), []]);
    expect(frames.map((f) => f.fragOff)).to.deep.equal([0, 1464]);
  });

  it('quotes the options in an error about an unknown protocol, with our hop recorded', () => {
    rig.injectIp(buildIp4({ src: PEER, dst: US, options: rr(2) }, 253, zeros(40)));
    const e = error();
    expect([e.type, e.code]).to.deep.equal([3, 2]);
    expect([...e.quoted.subarray(20, 32)]).to.deep.equal(rr(2, us));
    expect(e.quoted.length).to.equal(32 + 40);
  });

  it('quotes the header with its options and net.inet.icmp.quotelen bytes behind it', () => {
    for (const n of [8, 20, 548]) {
      set('net.inet.icmp.quotelen', n);
      const packet = buildIp4({ src: PEER, dst: US, options: rr(2) }, 253, zeros(1000));
      rig.injectIp(packet);
      expect(error().quoted.length, String(n)).to.equal(32 + n);
    }
  });

  it('quotes a datagram for a closed UDP port without its options, as FreeBSD', () => {
    rig.injectIp(
      buildUdp({ src: PEER, dst: US, options: rr(2) }, { sport: 1, dport: 2, payload: 'abc' }),
    );
    const e = error();
    expect([e.type, e.code]).to.deep.equal([3, 3]);
    expect([e.quoted[0], e.quoted.length]).to.deep.equal([0x45, 31]);
  });

  it('quotes without options a datagram that only a socket of another peer could receive', () => {
    const b = new Bsd(rig.vnet);
    const s = b.socket(b.constants.AF_INET, b.constants.SOCK_DGRAM);
    expect(b.bind(s, { address: '0.0.0.0', port: 2 })).to.equal(0);
    expect(b.connect(s, { address: PEER, port: 9 })).to.equal(0);
    const ports = { sport: 1, dport: 2, payload: 'abc' };
    rig.injectIp(buildUdp({ src: PEER, dst: US, options: rr(2) }, ports));
    expect([...error().quoted.subarray(0, 4)]).to.deep.equal([0x45, 0, 0, 31]);
    // The peer's own datagram arrives, and one to a group gets no error.
    rig.injectIp(buildUdp({ src: PEER, dst: US, options: rr(2) }, { ...ports, sport: 9 }));
    expect(b.recv(s, new Uint8Array(9))).to.equal(3);
    rig.injectIp(
      buildUdp({ src: PEER, dst: '224.0.0.1', options: rr(2) }, ports),
      0,
      '01:00:5e:00:00:01',
    );
    expectTx(rig.sent);
    b.closeAll();
  });

  it('sends no error about a packet with less than 8 bytes behind its options', () => {
    rig.injectIp(buildIp4({ src: PEER, dst: US, options: [NOP, NOP, NOP, EOL] }, 253, zeros(7)));
    expectTx(rig.sent);
  });

  for (const dst of ['192.0.2.255', '224.0.0.1'])
    it(`sends no protocol unreachable about a packet to ${dst}`, () => {
      const mac = dst.startsWith('224') ? '01:00:5e:00:00:01' : 'ff:ff:ff:ff:ff:ff';
      rig.injectIp(buildIp4({ src: PEER, dst }, 253, zeros(20)), 0, mac);
      expectTx(rig.sent);
      expect(ipstat(rig.vnet).ips_noproto).to.equal(1);
    });

  it('limits protocol unreachables to net.inet.icmp.icmplim a second', () => {
    set('net.inet.icmp.icmplim', 5);
    for (let i = 0; i < 20; i++) rig.injectIp(buildIp4({ src: PEER, dst: US }, 253, zeros(20)));
    expect(rig.sent.splice(0)).to.have.lengthOf(5);
  });

  describe('IP_OPTIONS of sockets', () => {
    let open: Socket[];
    beforeEach(() => (open = []));
    afterEach(() => open.forEach(soclose));
    const socket = (type: number, proto = 0): Socket => {
      expect(socreate(rig.vnet, AF_INET, type, proto)).to.equal(0);
      open.push(soResult.so!);
      return soResult.so!;
    };
    const setOpts = (so: Socket, bytes: number[]): number =>
      sosetopt(so, new Sockopt(SOPT_SET, IPPROTO_IP, IP_OPTIONS, Uint8Array.from(bytes)));
    const getOpts = (so: Socket): number[] => {
      const sopt = new Sockopt(SOPT_GET, IPPROTO_IP, IP_OPTIONS, new Uint8Array(64));
      expect(sogetopt(so, sopt)).to.equal(0);
      return [...sopt.sopt_val.subarray(0, sopt.sopt_valsize)];
    };
    const sendTo = (so: Socket, dst: string, bytes: Uint8Array): number =>
      soSendDgram(so, bytes, 0, bytes.length, inSockaddr(addr(dst), port(9)));
    const sent = (): Ip4Info[] => rig.sent.splice(0).map((f) => decodeFrame(f).ip!);

    it('sets, gets and clears', () => {
      const so = socket(SOCK_DGRAM);
      expect(getOpts(so)).to.deep.equal([]);
      expect(setOpts(so, rr(1))).to.equal(0);
      // FreeBSD puts the first hop of a source route in front: none.
      expect(getOpts(so)).to.deep.equal([0, 0, 0, 0, ...rr(1)]);
      expect(setOpts(so, [])).to.equal(0);
      expect(getOpts(so)).to.deep.equal([]);
    });
    it('refuses wrong lengths, and ends the old options then', () => {
      const so = socket(SOCK_DGRAM);
      for (const bad of [
        [NOP],
        [7, 1, 0, 0],
        [7, 9, 4, 0],
        [131, 6, 4, 0, 0, 0, 0, 0],
        zeros(44),
      ]) {
        expect(setOpts(so, rr(1))).to.equal(0);
        expect(setOpts(so, bad), String(bad)).to.equal(EINVAL);
        expect(getOpts(so)).to.deep.equal([]);
      }
      expect(setOpts(so, zeros(40))).to.equal(0);
      expect(setOpts(so, zeros(228))).to.equal(EMSGSIZE);
    });
    it('inserts them into each datagram; the header grows', () => {
      const so = socket(SOCK_DGRAM);
      expect(setOpts(so, rr(2))).to.equal(0);
      expect(sendTo(so, PEER, Uint8Array.of(1, 2, 3))).to.equal(0);
      const [ip] = sent();
      expect([...ip!.options]).to.deep.equal(rr(2));
      expect([ip!.hlen, ip!.len, [...ip!.udp!.payload]]).to.deep.equal([32, 43, [1, 2, 3]]);
    });
    it('copies options with the copied flag into every fragment', () => {
      const so = socket(SOCK_DGRAM);
      expect(setOpts(so, [136, 4, 1, 2, ...rr(1)])).to.equal(0);
      expect(sendTo(so, PEER, new Uint8Array(3000))).to.equal(0);
      const frags = sent();
      expect(frags.map((f) => [...f.options])).to.deep.equal([
        [136, 4, 1, 2, ...rr(1)],
        [136, 4, 1, 2],
        [136, 4, 1, 2],
      ]);
    });
    it('sends a source route by its first hop', () => {
      const so = socket(SOCK_DGRAM);
      expect(setOpts(so, [NOP, 131, 11, 4, ...peer, ...ip4('198.51.100.9')])).to.equal(0);
      inRouteAddGateway(rig.vnet, addr('198.51.100.0'), 24, addr(PEER));
      expect(sendTo(so, '198.51.100.9', Uint8Array.of(1))).to.equal(0);
      const ip = decodeFrame(rig.sent.splice(0)[0]!, { l4: 'none' }).ip!;
      expect(ip.dst).to.equal(PEER);
      expect([...ip.options]).to.deep.equal([NOP, 131, 7, 4, ...ip4('198.51.100.9')]);
    });
    it('inserts them into the packets of a raw socket', () => {
      const so = socket(SOCK_RAW, IPPROTO_ICMP);
      expect(setOpts(so, rr(1))).to.equal(0);
      expect(sendTo(so, PEER, buildIcmp({ type: 8, id: 7 }))).to.equal(0);
      const [ip] = sent();
      expect([...ip!.options]).to.deep.equal(rr(1));
      expect(ip!.icmp!.id).to.equal(7);
    });
  });
});

describe('ip_options: TCP', () => {
  it('answers a SYN with an accepted source route by the way back, and its connection too', () => {
    const h = new TestHost();
    h.vnet.sysctl.write('net.inet.ip.accept_sourceroute', '1');
    const head = h.listen(80);
    const route = (ptr: number, ...hops: string[]): number[] => [
      NOP,
      131,
      3 + 4 * hops.length,
      ptr,
      ...hops.flatMap(ip4),
    ];
    const ROUTER = '192.0.2.9';
    h.arpReply(ROUTER, '02:00:00:00:00:09');
    const ip = { src: PEER, dst: US, options: route(8, ROUTER) };
    const ports = { sport: 40000, dport: 80 };
    h.injectIp(buildTcp(ip, { ...ports, flags: 'S', seq: 1000, mss: 1460 }));
    const back = route(4, PEER);
    const look = (): { flags: string; dst: string; options: number[]; seq: number } => {
      // The checksum is that of the final destination.
      const f = decodeFrame(h.sent.splice(0)[0]!, { l4: 'none' }).ip!;
      return { flags: f.tcp!.flags, dst: f.dst, options: [...f.options], seq: f.tcp!.seq };
    };
    const synAck = look();
    expect(synAck).to.deep.include({ flags: 'S.', dst: ROUTER, options: back });
    h.injectIp(buildTcp(ip, { ...ports, flags: '.', seq: 1001, ack: synAck.seq + 1 }));
    h.write(h.accept(head), 'text');
    expect(look()).to.deep.include({ flags: 'P.', dst: ROUTER, options: back });
    h.close();
  });

  const OPTS = Uint8Array.from(rr(2));
  const tso = {
    capabilities: IFCAP_TSO4,
    hwassist: CSUM_TCP | CSUM_IP | CSUM_IP_TSO,
  };
  for (const [what, rigOptions] of [
    ['without offload', {}],
    ['with TSO, which options turn off', tso],
  ] as const)
    it(`reduces the segment by the options and sends them in each packet, ${what}`, () => {
      const h = new TestHost(rigOptions);
      const c = h.establish();
      expect(sosetopt(c.so, new Sockopt(SOPT_SET, IPPROTO_IP, IP_OPTIONS, OPTS))).to.equal(0);
      h.write(c.so, new Uint8Array(4000));
      const sent = h.take().map((f) => f.ip!);
      expect(sent.map((ip) => [...ip.options])).to.deep.equal(sent.map(() => [...OPTS]));
      expect(sent.map((ip) => ip.len)).to.deep.equal([1500, 1500, 52 + 4000 - 2 * 1448]);
      expect(sent.map((ip) => ip.tcp!.payload.length)).to.deep.equal([1448, 1448, 1104]);
      h.close();
    });
});
