/** Forwarding: what is sent on, what is reported to the sender, and that the payload is not touched. */

import { expect } from 'chai';
import { m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { IFCAP_LRO, IFCAP_NOMAP } from '../../src/net/if_var.ts';
import { netisr_dispatch, NETISR_IP } from '../../src/net/netisr.ts';
import { arpSet } from '../../src/netinet/if_ether.ts';
import { inRouteAddGateway } from '../../src/netinet/in_fib.ts';
import { ipstat } from '../../src/netinet/ip_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { mem } from '../../src/vm/arena.ts';
import { pgsMbuf } from '../kern/chains.ts';
import {
  buildIp4,
  decodeFrame,
  expectTx,
  from,
  icmp,
  ip4,
  mac,
  to,
  toMac,
} from '../support/frames.ts';
import { addr, PEER, PEER_MAC, Rig, type RigOptions, US } from './rig.ts';

const GATEWAY = '192.0.2.9';
const GATEWAY_MAC = '02:00:00:00:00:09';
const FAR = '198.51.100.7';
const PROTO = 253;

describe('ip_forward', () => {
  let rig: Rig;
  const boot = (options: RigOptions = {}, prefix = '198.51.100.0', len = 24): void => {
    rig = new Rig(options);
    expect(arpSet(rig.ifp, addr(GATEWAY), Uint8Array.from(mac(GATEWAY_MAC)))).to.equal(0);
    expect(inRouteAddGateway(rig.vnet, addr(prefix), len, addr(GATEWAY))).to.equal(0);
    set('forwarding', 1);
    set('redirect', 0);
  };
  afterEach(() => rig.close());
  const set = (name: string, value: number): void => {
    expect(rig.vnet.sysctl.write(`net.inet.ip.${name}`, `${value}`)).to.equal(0);
  };
  const stat = (): ReturnType<typeof ipstat> => ipstat(rig.vnet);
  const packet = (n = 10, more: Partial<Parameters<typeof buildIp4>[0]> = {}): Uint8Array =>
    buildIp4({ src: PEER, dst: FAR, id: 77, ...more }, PROTO, new Uint8Array(n).fill(5));

  it('is off by default, and then drops the packet', () => {
    boot();
    set('forwarding', 0);
    rig.injectIp(packet());
    expectTx(rig.sent);
    expect(stat()).to.include({ ips_cantforward: 1, ips_forward: 0 });
  });

  it('sends the packet on with TTL - 1 and everything else unchanged', () => {
    boot();
    rig.injectIp(packet(10, { ttl: 9, tos: 0x1c, df: true }));
    const [f] = expectTx(rig.sent, [from(PEER), to(FAR), toMac(GATEWAY_MAC)]);
    expect(f!.ip).to.include({ ttl: 8, tos: 0x1c, df: true, id: 77, proto: PROTO });
    expect(stat()).to.include({ ips_forward: 1, ips_fastforward: 1, ips_localout: 0 });
  });

  it('fragments without DF; reports the MTU with DF', () => {
    boot({ mtu: 1500 });
    const big = packet(1480);
    const bigDf = packet(1480, { df: true });
    rig.injectIp(big);
    expect(rig.sent.splice(0).length).to.equal(1);
    // The route has a smaller MTU than the interface that received the packet.
    inRouteAddGateway(rig.vnet, addr(FAR), 32, addr(GATEWAY), 700);
    rig.injectIp(big);
    const frags = rig.sent.splice(0).map((b) => decodeFrame(b).ip!);
    expect(frags.map(({ fragOff, mf }) => [fragOff, mf])).to.deep.equal([
      [0, true],
      [680, true],
      [1360, false],
    ]);
    expect(frags.every(({ ttl, id }) => ttl === 63 && id === 77)).to.equal(true);
    rig.injectIp(bigDf);
    const [f] = expectTx(rig.sent, [from(US), to(PEER), icmp(3, 4)]);
    expect(f!.ip!.icmp!.seq, 'MTU').to.equal(700);
    // The quoted packet is the one that arrived.
    expect(f!.ip!.icmp!.payload.subarray(0, 28)).to.deep.equal(bigDf.subarray(0, 28));
    expect(stat()).to.include({ ips_cantfrag: 1, ips_fragmented: 1, ips_cantforward: 1 });
  });

  it('reports an expired TTL and a missing route', () => {
    boot();
    rig.injectIp(packet(10, { ttl: 1 }));
    expectTx(rig.sent, [from(US), to(PEER), icmp(11, 0)]);
    rig.injectIp(packet(10, { dst: '203.0.113.1' }));
    expectTx(rig.sent, [from(US), to(PEER), icmp(3, 1)]);
    expect(stat()).to.include({ ips_noroute: 1, ips_cantforward: 1 });
  });

  it('reports a next hop that does not answer', () => {
    boot();
    for (let i = 0; i < 6; i++) {
      rig.injectIp(packet(10, { dst: '192.0.2.200' }));
      rig.clock.advance(1.1e9);
    }
    const icmps = rig.sent.splice(0).flatMap((b) => decodeFrame(b).ip?.icmp ?? []);
    expect(icmps.map(({ type, code }) => [type, code])).to.deep.include([3, 1]);
  });

  const never: [name: string, fields: object, mac?: string][] = [
    ['to a link-local address', { dst: '169.254.1.1' }],
    ['from a link-local address', { src: '169.254.1.1' }],
    ['to 240.0.0.0/4', { dst: '250.1.1.1' }],
    ['to 0.0.0.0/8', { dst: '0.1.2.3' }],
    ['from 0.0.0.0', { src: '0.0.0.0' }],
    ['from a group', { src: '224.1.1.1' }],
    ['in a broadcast frame', {}, 'ff:ff:ff:ff:ff:ff'],
    ['in a multicast frame', {}, '01:00:5e:00:00:01'],
  ];
  for (const [name, fields, dst] of never)
    it(`never forwards a packet ${name}`, () => {
      boot({}, '0.0.0.0', 0);
      rig.injectIp(packet(10, fields), 0, dst);
      expectTx(rig.sent);
      expect(stat()).to.include({ ips_cantforward: 1, ips_forward: 0 });
    });

  it('never forwards loopback addresses, nor to a broadcast of another network', () => {
    boot({}, '0.0.0.0', 0);
    rig.injectIp(packet(10, { dst: '127.1.1.1' }));
    rig.injectIp(packet(10, { src: '127.1.1.1' }));
    expect(stat().ips_badaddr).to.equal(2);
    rig.injectIp(packet(10, { dst: '192.0.2.255' }));
    expectTx(rig.sent, [icmp(3, 2)]);
  });

  it('sends a redirect to a sender on the same network, but not for a default route', () => {
    boot();
    set('redirect', 1);
    rig.injectIp(packet());
    const [, r] = expectTx(
      rig.sent,
      [from(PEER), to(FAR), toMac(GATEWAY_MAC)],
      [from(US), to(PEER), toMac(PEER_MAC), icmp(5, 1)],
    );
    expect([...r!.ip!.payload.subarray(4, 8)]).to.deep.equal(ip4(GATEWAY));
    expect(stat()).to.include({ ips_redirectsent: 1, ips_forward: 1 });
    // The sender is not on this network.
    rig.injectIp(packet(10, { src: '203.0.113.5' }));
    expectTx(rig.sent, [to(FAR)]);
    rig.close();
    boot({}, '0.0.0.0', 0);
    set('redirect', 1);
    rig.injectIp(packet());
    expectTx(rig.sent, [to(FAR)]);
    expect(stat().ips_redirectsent).to.equal(0);
  });

  it('sourceroute: refuses the hop with an error, or forwards and records it', () => {
    boot();
    const lsrr = [131, 7, 4, ...ip4(FAR), 0];
    rig.injectIp(packet(10, { dst: US, options: lsrr }));
    expectTx(rig.sent, [to(PEER), icmp(3, 5)]);
    set('sourceroute', 1);
    set('redirect', 1);
    rig.injectIp(packet(10, { dst: US, options: lsrr }));
    const [f] = expectTx(rig.sent, [from(PEER), to(FAR)]);
    expect([...f!.ip!.options]).to.deep.equal([131, 7, 8, ...ip4(US), 0]);
    expect(stat()).to.include({ ips_forward: 1, ips_fastforward: 0 });
  });

  for (const nomap of [true, false])
    it(`passes unmapped payload through, ${nomap ? 'untouched' : 'converted for this NIC'}`, () => {
      boot({ capabilities: nomap ? IFCAP_NOMAP : 0 });
      rig.chains.length = 0;
      const header = packet(1000);
      const m = m_gethdr(M_NOWAIT, MT_DATA)!;
      m.m_data += 16;
      mem.set(header.subarray(0, 20), m.m_data);
      m.m_len = 20;
      m.m_next = pgsMbuf({ npgs: 1, last: 1000 });
      m.m_pkthdr.len = header.length;
      m.m_pkthdr.rcvif = rig.ifp;
      inPass(netisr_dispatch, rig.vnet, NETISR_IP, m);
      expectTx(rig.sent, [from(PEER), to(FAR)]);
      expect(rig.chains[0]!.unmapped).to.equal(nomap ? 1 : 0);
    });

  it('switches LRO off', () => {
    boot({ capabilities: IFCAP_LRO });
    expect(rig.ifp.if_capenable & IFCAP_LRO).to.equal(0);
  });
});
