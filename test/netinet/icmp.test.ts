import { expect } from 'chai';
import { BANDLIM_ICMP_ECHO, badport_bandlim, icmpstat, V_icmp } from '../../src/netinet/ip_icmp.ts';
import {
  PRC_MSGSIZE,
  PRC_UNREACH_PORT,
  ipproto_register,
  ipstat,
} from '../../src/netinet/ip_var.ts';
import { m_freem } from '../../src/kern/kern_mbuf.ts';
import { inet_ntoa } from '../../src/netinet/in.ts';
import { counted, R_ICMP_RATE, R_ICMP_SUM } from '../../src/sys/reason.ts';
import { memView } from '../../src/vm/arena.ts';
import {
  BROADCAST_MAC,
  buildIcmp,
  buildIp4,
  buildUdp,
  decodeFrame,
  decodeIp4,
  expectTx,
  from,
  icmp,
  payload,
  to,
  toMac,
} from '../support/frames.ts';
import { PEER, PEER_MAC, Rig, US } from './rig.ts';

const bytes = (n: number): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => (i * 7 + 3) & 255);

/**
 * Fragments an IP packet for a link of `mtu` bytes, RFC 791. Independent of the stack's own code.
 */
function fragments(packet: Uint8Array, mtu: number, id: number): Uint8Array[] {
  const body = packet.subarray(20);
  const per = (mtu - 20) & ~7;
  const out: Uint8Array[] = [];
  for (let off = 0; off < body.length; off += per)
    out.push(
      buildIp4(
        { src: PEER, dst: US, id, fragOff: off, mf: off + per < body.length },
        1,
        body.subarray(off, off + per),
      ),
    );
  return out;
}

/** A protocol number for experiments, RFC 3692. */
const EXPERIMENT = 253;

describe('icmp', () => {
  let rig: Rig;
  beforeEach(() => (rig = new Rig()));
  afterEach(() => rig.close());

  const ping = (n: number, ipFields = {}): Uint8Array =>
    buildIp4(
      { src: PEER, dst: US, ttl: 3, tos: 0x10, ...ipFields },
      1,
      buildIcmp({ type: 8, id: 0x1234, seq: 7, payload: bytes(n) }),
    );

  for (const n of [0, 1, 2, 55, 56, 57, 128, 1000, 1471, 1472]) {
    it(`answers an echo request of ${n} bytes with the same bytes`, () => {
      rig.injectIp(ping(n));
      const [f] = expectTx(rig.sent, [
        from(US),
        to(PEER),
        toMac(PEER_MAC),
        icmp(0),
        payload(bytes(n)),
      ]);
      expect(f!.ip!.icmp!.id).to.equal(0x1234);
      expect(f!.ip!.icmp!.seq).to.equal(7);
      expect(f!.ip!.ttl, 'initial ttl in the reply').to.equal(64);
      expect(f!.ip!.tos).to.equal(0x10);
    });
  }

  it('sends the echo reply in the mbuf of the request, as one frame in one mbuf', () => {
    rig.injectIp(ping(100));
    expect(rig.chains[0]!.mbufs).to.equal(1);
    expectTx(rig.sent, [icmp(0)]);
  });

  for (const piece of [14, 33, 60, 100]) {
    it(`answers an echo request that arrives in mbufs of ${piece} bytes`, () => {
      rig.injectIp(ping(500), piece);
      expectTx(rig.sent, [icmp(0), payload(bytes(500))]);
    });
  }

  for (const n of [1473, 2952, 8000, 23680, 65507]) {
    it(`reassembles ${n} bytes and fragments the reply`, () => {
      const icmpEcho = buildIcmp({ type: 8, id: 1, seq: 2, payload: bytes(n) });
      const whole = buildIp4({ src: PEER, dst: US }, 1, icmpEcho);
      for (const f of fragments(whole, 1500, 77)) rig.injectIp(f);
      const frags = rig.sent.splice(0).map((f) => decodeFrame(f).ip!);
      const nfrags = Math.ceil((n + 8) / 1480);
      expect(frags.length).to.equal(nfrags);
      const body = new Uint8Array(n + 8);
      let end = 0;
      for (const [i, f] of frags.entries()) {
        expect(f.fragOff).to.equal(end);
        expect(f.mf).to.equal(i < nfrags - 1);
        expect(f.id).to.equal(frags[0]!.id);
        expect(f.len).to.be.at.most(1500);
        body.set(f.payload, f.fragOff);
        end += f.payload.length;
      }
      expect(end).to.equal(n + 8);
      const reply = decodeIp4(
        buildIp4({ src: US, dst: PEER }, 1, body.subarray(0, end).slice(0)),
        {},
      );
      expect(reply.icmp!.type).to.equal(0);
      expect(Buffer.from(reply.icmp!.payload).equals(bytes(n))).to.equal(true);
      expect(ipstat(rig.vnet).ips_reassembled).to.equal(1);
      expect(ipstat(rig.vnet).ips_fragments).to.equal(nfrags);
      expect(ipstat(rig.vnet).ips_fragmented).to.equal(1);
      expect(ipstat(rig.vnet).ips_ofragments).to.equal(nfrags);
    });
  }

  it('drops messages with a wrong checksum, short messages and truncated ones without an answer', () => {
    rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 8, sum: 0xbeef })));
    expect(counted(R_ICMP_SUM)).to.equal(1);
    rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, [8, 0, 0xf7, 0xff, 0, 0, 0]));
    expectTx(rig.sent);
    const st = icmpstat(rig.vnet);
    expect([st.icps_checksum, st.icps_tooshort]).to.deep.equal([1, 1]);
  });

  it('answers broadcast and multicast echo requests only if net.inet.icmp.bmcastecho is set', () => {
    const all = buildIp4({ src: PEER, dst: '192.0.2.255' }, 1, buildIcmp({ type: 8, id: 5 }));
    rig.injectIp(all, 0, BROADCAST_MAC);
    const group = buildIp4({ src: PEER, dst: '224.0.0.1' }, 1, buildIcmp({ type: 8, id: 5 }));
    rig.injectIp(group, 0, '01:00:5e:00:00:01');
    expectTx(rig.sent);
    expect(icmpstat(rig.vnet).icps_bmcastecho).to.equal(2);
    expect(rig.vnet.sysctl.write('net.inet.icmp.bmcastecho', '1')).to.equal(0);
    rig.injectIp(all, 0, BROADCAST_MAC);
    expectTx(rig.sent, [from(US), to(PEER), toMac(PEER_MAC), icmp(0)]);
  });

  it('answers timestamp requests with the time of day', () => {
    rig.clock.advance(5e9);
    const ask = buildIcmp({
      type: 13,
      id: 9,
      seq: 1,
      payload: [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    });
    rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, ask));
    const [f] = expectTx(rig.sent, [icmp(14), from(US)]);
    const p = Buffer.from(f!.ip!.icmp!.payload);
    // The virtual wall clock starts at midnight UT.
    expect([p.readUInt32BE(0), p.readUInt32BE(4), p.readUInt32BE(8)]).to.deep.equal([
      1, 5000, 5000,
    ]);
    rig.injectIp(buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 13, payload: [1, 2, 3] })));
    expectTx(rig.sent);
    expect(icmpstat(rig.vnet).icps_badlen).to.equal(1);
  });

  it('sends at most 200 replies per second and logs the limit', () => {
    for (let i = 0; i < 205; i++) rig.injectIp(ping(8));
    expect(rig.sent.splice(0).length).to.equal(200);
    expect(counted(R_ICMP_RATE)).to.equal(5);
    rig.clock.advance(1e9 - 1);
    rig.injectIp(ping(8));
    expectTx(rig.sent);
    rig.clock.advance(1);
    rig.injectIp(ping(8));
    expectTx(rig.sent, [icmp(0)]);
    expect(rig.console).to.include('Limiting icmp ping response from 206 to 200 packets/sec');
    V_icmp(rig.vnet).params.icmplim = 0;
    for (let i = 0; i < 500; i++) expect(badport_bandlim(BANDLIM_ICMP_ECHO, rig.vnet)).to.equal(0);
  });

  it('sends protocol unreachable and quotes header and payload', () => {
    const packet = buildIp4({ src: PEER, dst: US, id: 99 }, 253, bytes(1000));
    rig.injectIp(packet);
    const [f] = expectTx(rig.sent, [from(US), to(PEER), icmp(3, 2)]);
    const quote = f!.ip!.icmp!.payload;
    // net.inet.icmp.quotelen is 548.
    expect(quote.length).to.equal(20 + 548);
    expect(Buffer.from(quote).equals(packet.subarray(0, 568))).to.equal(true);
    expect(ipstat(rig.vnet).ips_noproto).to.equal(1);
  });

  it('sends no error about a broadcast', () => {
    rig.injectIp(buildIp4({ src: PEER, dst: '192.0.2.255' }, 253, bytes(8)), 0, BROADCAST_MAC);
    expectTx(rig.sent);
    expect(icmpstat(rig.vnet).icps_error).to.equal(1);
    expect(icmpstat(rig.vnet).icps_reflect).to.equal(0);
  });

  it('passes errors to ctlinput of the protocol in the quoted header', () => {
    const calls: unknown[] = [];
    ipproto_register(rig.vnet, EXPERIMENT, {
      input: (m) => m_freem(m),
      ctlinput: (cmd, src, dst, l4, l4len, mtu): void =>
        void calls.push([cmd, inet_ntoa(src), inet_ntoa(dst), memView.getUint16(l4), l4len, mtu]),
    });
    const udp = buildUdp({ src: US, dst: PEER }, { sport: 5000, dport: 53, payload: 'query' });
    const ours = buildIp4({ src: US, dst: PEER }, EXPERIMENT, udp.subarray(20));
    const error = (type: number, code: number, seq: number, quote: Uint8Array): void =>
      rig.injectIp(
        buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type, code, seq, payload: quote })),
      );
    error(3, 3, 0, ours);
    error(3, 4, 1280, ours.subarray(0, 28));
    error(3, 16, 0, ours); // no such code
    error(3, 3, 0, ours.subarray(0, 27)); // too short
    error(3, 3, 0, Uint8Array.from([0x44, ...ours.subarray(1)])); // a quoted IP header of 16 bytes
    expect(calls).to.deep.equal([
      [PRC_UNREACH_PORT, US, PEER, 5000, 13, 0],
      [PRC_MSGSIZE, US, PEER, 5000, 8, 1280],
    ]);
    const st = icmpstat(rig.vnet);
    expect([st.icps_badcode, st.icps_badlen]).to.deep.equal([1, 2]);
    expect(st.icps_inhist[3]).to.equal(5);
  });

  it('finds the quoted ports behind IP options', () => {
    const calls: number[] = [];
    ipproto_register(rig.vnet, EXPERIMENT, {
      input: (m) => m_freem(m),
      ctlinput: (_cmd, _src, _dst, l4): void => void calls.push(memView.getUint16(l4)),
    });
    const ours = buildIp4(
      { src: US, dst: PEER, options: [1, 1, 1, 0] },
      EXPERIMENT,
      [0x13, 0x88, 0, 53, 0, 8, 0, 0],
    );
    for (const piece of [0, 36])
      rig.injectIp(
        buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 3, code: 3, payload: ours })),
        piece,
      );
    expect(calls).to.deep.equal([5000, 5000]);
  });

  it('repeats of the request options only route, time and security in the reply', () => {
    rig.injectIp(ping(10, { options: [136, 4, 1, 2, 148, 4, 0, 0] }));
    const [f] = expectTx(rig.sent, [icmp(0), payload(bytes(10))]);
    expect(f!.ip!.hlen).to.equal(20);
  });

  it('does not answer requests whose source address is not a unicast host address', () => {
    for (const src of ['224.0.0.5', '0.0.0.0', '255.255.255.255', '240.0.0.1'])
      rig.injectIp(ping(8, { src }));
    expectTx(rig.sent);
    expect(icmpstat(rig.vnet).icps_badaddr).to.equal(4);
  });
});
