import { expect } from 'chai';
import { m_freem, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_IP,
  CSUM_IP6_TSO,
  CSUM_IP_TSO,
  CSUM_TCP,
  CSUM_TCP_IPV6,
  CSUM_UDP,
  CSUM_UDP_IPV6,
  type Mbuf,
  M_NOWAIT,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { if_addmulti, ifhwioctl, ifunit } from '../../src/net/if.ts';
import { if_clone_create, if_clone_destroy, ifCloned } from '../../src/net/if_clone.ts';
import {
  lagg_port_create,
  lagg_port_destroy,
  laggInfo,
  laggSetProto,
} from '../../src/net/if_lagg.ts';
import { vlanInfo } from '../../src/net/if_vlan.ts';
import {
  IFCAP_HWCSUM,
  IFCAP_LRO,
  IFCAP_NOMAP,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFCAP_VLAN_HWCSUM,
  IFCAP_VLAN_HWTAGGING,
  IFCAP_VLAN_MTU,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OPACKETS,
  IFF_UP,
  if_get_counter,
  type Ifnet,
  IFT_ETHER,
  IFT_IEEE8023ADLAG,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../../src/net/if_var.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { ip_output } from '../../src/netinet/ip_output.ts';
import { EBUSY, EEXIST, EINVAL, ENETDOWN, ENOENT, EPROTONOSUPPORT } from '../../src/sys/errno.ts';
import { counted, R_LAGG_INACTIVE, R_LAGG_NOPORT } from '../../src/sys/reason.ts';
import { addr, outPacket, Rig } from '../netinet/rig.ts';
import {
  buildArp,
  buildEther,
  buildIcmp,
  buildIp4,
  buildUdp,
  decodeFrame,
} from '../support/frames.ts';
import { mem } from '../../src/vm/arena.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { FakeNic } from './fake_nic.ts';

const MAC_A = '02:00:00:00:00:0a';
const MAC_B = '02:00:00:00:00:0b';
const MAC_C = '02:00:00:00:00:0c';
const PEERS = '02:00:00:00:00:99';
const US = '198.51.100.2';
const PEER = '198.51.100.1';
const ALL =
  IFCAP_HWCSUM |
  IFCAP_TSO4 |
  IFCAP_LRO |
  IFCAP_VLAN_MTU |
  IFCAP_VLAN_HWTAGGING |
  IFCAP_VLAN_HWCSUM |
  IFCAP_NOMAP;

describe('lagg(4)', () => {
  let rig: Rig;
  let a: FakeNic;
  let b: FakeNic;
  let lagg: Ifnet;
  const more: FakeNic[] = [];

  beforeEach(() => {
    rig = new Rig();
    a = new FakeNic(rig.vnet, 'em0', MAC_A, ALL).up();
    b = new FakeNic(rig.vnet, 'em1', MAC_B, ALL).up();
    expect(if_clone_create(rig.vnet, 'lagg0', null)).to.equal(0);
    lagg = ifCloned.ifp!;
  });
  afterEach(() => {
    for (const nic of more.splice(0)) nic.detach();
    a.detach();
    b.detach();
    rig.close();
  });

  const nic = (name: string, mac: string, capabilities: number): FakeNic => {
    const made = new FakeNic(rig.vnet, name, mac, capabilities).up();
    more.push(made);
    return made;
  };
  const add = (...nics: FakeNic[]): void => {
    for (const { ifp } of nics) expect(lagg_port_create(lagg, ifp)).to.equal(0);
  };
  const reply = (): Uint8Array =>
    buildArp({ dst: MAC_A, src: PEERS }, { op: 2, sha: PEERS, spa: PEER, tha: MAC_A, tpa: US });
  const echo = (): Uint8Array =>
    buildEther(
      { dst: MAC_A, src: PEERS },
      0x0800,
      buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 8, payload: 'x' })),
    );
  /** Configures lagg0 over `nics` with its address and an ARP entry for the peer. */
  const up = (...nics: FakeNic[]): void => {
    add(...nics);
    expect(in_aifaddr(lagg, addr(US), 24)).to.equal(0);
    nics[0]!.inject(reply());
    for (const n of nics) n.sent.length = 0;
  };
  const sendUdp = (sport: number): number => {
    const ip = { src: US, dst: PEER };
    const packet = buildUdp(ip, { sport, dport: 9, payload: 'x' });
    return ip_output(outPacket(packet), null, 0, rig.vnet);
  };
  const sent = (): number[] => [a, b].map((n) => n.sent.splice(0).length);
  const mac = (ifp: Ifnet): string => Buffer.from(ifp.if_lladdr).toString('hex');
  const ports = (): string[] =>
    laggInfo(lagg)!.ports.map((p) => `${p.name} ${p.flags}<${p.flags_names.join(',')}>`);

  it('is created without ports and without capabilities, and its link is down', () => {
    expect(lagg).to.include({ if_capabilities: 0, if_capenable: 0, if_hwassist: 0, if_mtu: 1500 });
    expect(lagg.if_link_state).to.equal(LINK_STATE_DOWN);
    expect(laggInfo(lagg)).to.deep.equal({ proto: 'failover', hash: 'l2,l3,l4', ports: [] });
    expect(lagg.if_groups).to.deep.equal(['lagg']);
    expect(in_aifaddr(lagg, addr(US), 24)).to.equal(0);
    expect(sendUdp(1)).to.equal(0); // queued for ARP; the request has no port to go out
    expect(counted(R_LAGG_NOPORT)).to.be.greaterThan(0);
  });

  it('adds ports, and refuses invalid ones', () => {
    const small = nic('em2', MAC_C, ALL);
    expect(ifhwioctl(small.ifp, SIOCSIFMTU, 1400)).to.equal(0);
    expect(ifhwioctl(a.ifp, SIOCSIFMTU, 1600)).to.equal(0);
    expect(ifhwioctl(b.ifp, SIOCSIFMTU, 1600)).to.equal(0);
    add(b, a);
    expect(lagg.if_mtu, 'MTU of the first port').to.equal(1600);
    expect([lagg, a.ifp, b.ifp].map(mac)).to.deep.equal(Array(3).fill('02000000000b'));
    expect([a.ifp.if_type, lagg.if_type]).to.deep.equal([IFT_IEEE8023ADLAG, IFT_ETHER]);
    expect(ports(), 'sorted by interface number').to.deep.equal([
      'em0 0<>',
      'em1 5<MASTER,ACTIVE>',
    ]);
    expect(lagg_port_create(lagg, a.ifp)).to.equal(EEXIST);
    expect(lagg_port_create(lagg, lagg)).to.equal(EINVAL);
    expect(lagg_port_create(lagg, ifunit(rig.vnet, 'lo0')!)).to.equal(EINVAL);
    expect(lagg_port_create(a.ifp, b.ifp), 'not a lagg interface').to.equal(EINVAL);
    expect(lagg_port_create(lagg, small.ifp), 'different MTU').to.equal(EINVAL);
    expect(if_clone_create(rig.vnet, 'lagg1', null)).to.equal(0);
    const other = ifCloned.ifp!;
    expect(lagg_port_create(other, a.ifp), 'port of another lagg').to.equal(EBUSY);
    expect(lagg_port_destroy(other, a.ifp)).to.equal(ENOENT);
    expect(laggSetProto(lagg, 'lacp')).to.equal(EPROTONOSUPPORT);
    expect(laggInfo(lagg)!.proto).to.equal('failover');
  });

  it('sets its MTU on all ports, and refuses another MTU on a port', () => {
    add(a, b);
    expect(ifhwioctl(a.ifp, SIOCSIFMTU, 1400)).to.equal(EINVAL);
    expect(ifhwioctl(lagg, SIOCSIFMTU, 1400)).to.equal(0);
    expect([lagg, a.ifp, b.ifp].map((i) => i.if_mtu)).to.deep.equal([1400, 1400, 1400]);
  });

  it('NOMAP: a port without it disables it on lagg and all ports; a removed port gets its own setting back', () => {
    const c = nic('em2', MAC_C, ALL & ~IFCAP_NOMAP);
    const enabled = (): number[] => [lagg, a.ifp, b.ifp, c.ifp].map((i) => i.if_capenable);
    add(a, b);
    expect(enabled()).to.deep.equal([ALL, ALL, ALL, ALL & ~IFCAP_NOMAP]);
    expect(lagg.if_capabilities).to.equal(ALL);
    add(c);
    const less = ALL & ~IFCAP_NOMAP;
    expect(enabled()).to.deep.equal([less, less, less, less]);
    expect(lagg.if_capabilities).to.equal(less);
    expect(a.ifp.if_capabilities, 'the capability itself stays').to.equal(ALL);
    expect(lagg_port_destroy(lagg, c.ifp)).to.equal(0);
    expect(lagg.if_capabilities).to.equal(ALL);
    expect(enabled(), 'the remaining ports do not change').to.deep.equal([less, less, less, less]);
    expect(ifhwioctl(lagg, SIOCSIFCAP, ALL)).to.equal(0);
    expect(enabled()).to.deep.equal([ALL, ALL, ALL, less]);
    add(c);
    expect(lagg_port_destroy(lagg, a.ifp)).to.equal(0);
    expect(enabled(), 'the removed port gets its old setting back').to.deep.equal([
      less,
      ALL,
      less,
      less,
    ]);
  });

  it('capabilities: repeats the AND until it is stable, because ports clear dependent capabilities', () => {
    // On port c TSO does not depend on TXCSUM, on port d it does.
    const c = nic('em2', MAC_C, ALL & ~IFCAP_TXCSUM);
    const d = nic('em3', '02:00:00:00:00:0d', ALL);
    add(c, d);
    const less = ALL & ~(IFCAP_TXCSUM | IFCAP_TSO4);
    for (const ifp of [lagg, c.ifp, d.ifp]) {
      expect(ifp.if_capenable, ifp.if_xname).to.equal(less);
      expect(ifp.if_hwassist & (CSUM_IP | CSUM_TCP | CSUM_UDP | CSUM_IP_TSO)).to.equal(0);
    }
    expect(lagg_port_destroy(lagg, c.ifp)).to.equal(0);
    expect(ifhwioctl(lagg, SIOCSIFCAP, ALL)).to.equal(0);
    expect(lagg.if_hwassist).to.equal(d.ifp.if_hwassist);
    expect(lagg.if_hwassist & CSUM_IP_TSO).to.equal(CSUM_IP_TSO);
  });

  it('TXCSUM_IPV6 and TSO6: what the lagg or a port turns off is off on all of them', () => {
    const all = ALL | IFCAP_TXCSUM_IPV6 | IFCAP_TSO6;
    const c = nic('em2', MAC_C, all);
    const d = nic('em3', '02:00:00:00:00:0d', all);
    add(c, d);
    const HW4 = CSUM_IP | CSUM_TCP | CSUM_UDP | CSUM_IP_TSO;
    expect(lagg.if_hwassist & ~HW4).to.equal(CSUM_TCP_IPV6 | CSUM_UDP_IPV6 | CSUM_IP6_TSO);
    for (const ifp of [c.ifp, lagg]) {
      expect(ifhwioctl(ifp, SIOCSIFCAP, all & ~IFCAP_TSO6)).to.equal(0);
      for (const each of [lagg, c.ifp, d.ifp]) {
        expect(each.if_capenable).to.equal(all & ~IFCAP_TSO6);
        expect(each.if_hwassist).to.equal(HW4 | CSUM_TCP_IPV6 | CSUM_UDP_IPV6);
      }
      expect(ifhwioctl(lagg, SIOCSIFCAP, all)).to.equal(0);
      // The ports turn TSO6 off together with TXCSUM_IPV6.
      expect(ifhwioctl(ifp, SIOCSIFCAP, all & ~IFCAP_TXCSUM_IPV6)).to.equal(0);
      for (const each of [lagg, c.ifp, d.ifp]) {
        expect(each.if_capenable).to.equal(all & ~(IFCAP_TXCSUM_IPV6 | IFCAP_TSO6));
        expect(each.if_hwassist).to.equal(HW4);
      }
      expect(ifhwioctl(lagg, SIOCSIFCAP, all)).to.equal(0);
    }
  });

  it('hwassist is the AND of the ports, independent of the enabled capabilities', () => {
    a.ifp.if_hwassist &= ~CSUM_IP;
    add(a, b);
    expect(b.ifp.if_hwassist & CSUM_IP, 'CSUM_IP on the last port').to.equal(CSUM_IP);
    expect(lagg.if_hwassist).to.equal(b.ifp.if_hwassist & ~CSUM_IP);
  });

  it('a change of capabilities on lagg or a port changes all of them', () => {
    add(a, b);
    expect(ifhwioctl(b.ifp, SIOCSIFCAP, ALL & ~IFCAP_LRO)).to.equal(0);
    for (const ifp of [lagg, a.ifp, b.ifp]) expect(ifp.if_capenable).to.equal(ALL & ~IFCAP_LRO);
    expect(ifhwioctl(lagg, SIOCSIFCAP, ALL & ~IFCAP_NOMAP)).to.equal(0);
    for (const ifp of [lagg, a.ifp, b.ifp]) expect(ifp.if_capenable).to.equal(ALL & ~IFCAP_NOMAP);
  });

  it('has the smallest TSO limits of its ports', () => {
    Object.assign(a.ifp, { if_hw_tsomax: 60000, if_hw_tsomaxsegcount: 9, if_hw_tsomaxsegsize: 0 });
    Object.assign(b.ifp, { if_hw_tsomax: 0, if_hw_tsomaxsegcount: 5, if_hw_tsomaxsegsize: 4096 });
    add(a, b);
    expect(lagg).to.include({
      if_hw_tsomax: 60000,
      if_hw_tsomaxsegcount: 5,
      if_hw_tsomaxsegsize: 4096,
    });
    const c = nic('em2', MAC_C, ALL);
    Object.assign(c.ifp, {
      if_hw_tsomax: 6000,
      if_hw_tsomaxsegcount: 7,
      if_hw_tsomaxsegsize: 2048,
    });
    add(c);
    expect(lagg).to.include({
      if_hw_tsomax: 6000,
      if_hw_tsomaxsegcount: 5,
      if_hw_tsomaxsegsize: 2048,
    });
  });

  it('failover: sends on the master while its link is up, else on the next port', () => {
    up(a, b);
    expect(sendUdp(1)).to.equal(0);
    expect(sent()).to.deep.equal([1, 0]);
    a.link(false);
    expect(lagg.if_link_state).to.equal(LINK_STATE_UP);
    expect(ports()).to.deep.equal(['em0 1<MASTER>', 'em1 4<ACTIVE>']);
    expect(sendUdp(2)).to.equal(0);
    expect(decodeFrame(b.sent[0]!.bytes, { l3: 'none', l4: 'none' }).src).to.equal(MAC_A);
    expect(sent()).to.deep.equal([0, 1]);
    a.link(true);
    expect(sendUdp(3)).to.equal(0);
    expect(sent()).to.deep.equal([1, 0]);
    expect(ifhwioctl(a.ifp, SIOCSIFFLAGS, a.ifp.if_flags & ~IFF_UP)).to.equal(0);
    expect(sendUdp(4), 'the master is down').to.equal(0);
    expect(sent()).to.deep.equal([0, 1]);
    b.link(false);
    expect(sendUdp(5)).to.equal(ENETDOWN);
    expect(counted(R_LAGG_NOPORT)).to.equal(1);
    a.link(false);
    expect(lagg.if_link_state).to.equal(LINK_STATE_DOWN);
    expect(if_get_counter(lagg, IFCOUNTER_OERRORS)).to.equal(1);
    expect(if_get_counter(lagg, IFCOUNTER_OPACKETS)).to.equal(5); // four, and the gratuitous ARP
  });

  it('failover: receives on the active port only, or on any port with failover_rx_all', () => {
    up(a, b);
    b.inject(echo());
    expect(counted(R_LAGG_INACTIVE)).to.equal(1);
    a.inject(echo());
    expect(sent()).to.deep.equal([1, 0]);
    expect(rig.vnet.sysctl.write('net.link.lagg.failover_rx_all', '1')).to.equal(0);
    b.inject(echo());
    expect(sent()).to.deep.equal([1, 0]);
    expect(rig.vnet.sysctl.write('net.link.lagg.failover_rx_all', '0')).to.equal(0);
    a.link(false);
    b.inject(echo());
    expect(sent()).to.deep.equal([0, 1]);
    expect(counted(R_LAGG_INACTIVE)).to.equal(1);
  });

  it('drops received frames while lagg is down', () => {
    add(a, b);
    a.inject(echo());
    expect(sent()).to.deep.equal([0, 0]);
  });

  it('loadbalance: keeps a flow on one port, spreads flows over all ports, and moves flows from a dead port', () => {
    up(a, b);
    expect(laggSetProto(lagg, 'loadbalance')).to.equal(0);
    expect(ports()).to.deep.equal(['em0 4<ACTIVE>', 'em1 4<ACTIVE>']);
    for (let sport = 1; sport <= 64; sport++) {
      for (let i = 0; i < 2; i++) expect(sendUdp(sport)).to.equal(0);
      expect(sent()).to.satisfy(([x, y]: number[]) => x === 2 || y === 2);
    }
    for (let sport = 1; sport <= 64; sport++) sendUdp(sport);
    const [x, y] = sent();
    expect(x! + y!).to.equal(64);
    expect(Math.min(x!, y!)).to.be.greaterThan(15);
    b.link(false);
    for (let sport = 1; sport <= 64; sport++) sendUdp(sport);
    expect(sent()).to.deep.equal([64, 0]);
    b.link(true);
    b.inject(echo());
    expect(sent().reduce((n, m) => n + m)).to.equal(1);
    expect(laggSetProto(lagg, 'roundrobin')).to.equal(0);
    for (let i = 0; i < 10; i++) sendUdp(1);
    expect(sent()).to.deep.equal([5, 5]);
  });

  it('makes the next port the master, with its own address, when the master is removed', () => {
    up(a, b);
    expect(if_addmulti(lagg, Uint8Array.of(1, 0, 0x5e, 1, 2, 3))).to.equal(0);
    expect(b.ifp.if_multiaddrs.map((m) => m.ifma_lladdr[5])).to.have.members([1, 3]);
    expect(lagg_port_destroy(lagg, a.ifp)).to.equal(0);
    expect([lagg, a.ifp, b.ifp].map(mac)).to.deep.equal([
      '02000000000b',
      '02000000000a',
      '02000000000b',
    ]);
    expect(a.ifp.if_multiaddrs).to.have.length(0);
    expect(a.ifp.if_type).to.equal(IFT_ETHER);
    // A port added later joins the existing multicast groups.
    expect(lagg_port_create(lagg, a.ifp)).to.equal(0);
    expect(a.ifp.if_multiaddrs.map((m) => m.ifma_lladdr[5])).to.have.members([1, 3]);
    expect(lagg_port_destroy(lagg, a.ifp)).to.equal(0);
    expect(ports()).to.deep.equal(['em1 5<MASTER,ACTIVE>']);
    b.sent.length = 0;
    expect(sendUdp(1)).to.equal(0);
    expect(sent()).to.deep.equal([0, 1]);
    b.detach();
    expect(ports()).to.deep.equal([]);
    expect(lagg).to.include({ if_capabilities: 0, if_link_state: LINK_STATE_DOWN });
    b = new FakeNic(rig.vnet, 'em1', MAC_B, ALL);
  });

  it('a port sends no packets of its own', () => {
    expect(in_aifaddr(a.ifp, addr('203.0.113.2'), 24)).to.equal(0);
    add(a);
    a.sent.length = 0;
    const m = outPacket(buildIp4({ src: '203.0.113.2', dst: '203.0.113.1' }, 253, []));
    expect(ip_output(m, null, 0, rig.vnet)).to.equal(ENETDOWN);
    expect(if_clone_destroy(lagg)).to.equal(0);
    a.sent.length = 0;
    const again = outPacket(buildIp4({ src: '203.0.113.2', dst: '203.0.113.1' }, 253, []));
    expect(ip_output(again, null, 0, rig.vnet)).to.equal(0);
    expect(a.sent.map((f) => decodeFrame(f.bytes).arp?.op)).to.deep.equal([1]);
  });

  it('allocates no garbage per sent and received frame, with a vlan on top', function () {
    this.timeout(60_000);
    add(a, b);
    expect(if_clone_create(rig.vnet, 'vlan7', { vlr_parent: 'lagg0', vlr_tag: 7 })).to.equal(0);
    const vlan = ifCloned.ifp!;
    for (const ifp of [lagg, vlan])
      expect(ifhwioctl(ifp, SIOCSIFFLAGS, ifp.if_flags | IFF_UP)).to.equal(0);
    for (const port of [a, b])
      port.if_transmit = (_ifp, m) => {
        m_freem(m);
        return 0;
      };
    const frame = buildEther({ dst: MAC_A, src: PEERS }, 0x88b5, new Uint8Array(46));
    const tag = Uint8Array.of(0x81, 0, 0, 7);
    const made = (tagged: boolean): Mbuf => {
      const m = m_gethdr(M_NOWAIT, MT_DATA)!;
      m.m_data += 4;
      mem.set(frame, m.m_data);
      if (tagged) mem.set(tag, m.m_data + 12);
      m.m_len = m.m_pkthdr.len = frame.length;
      return m;
    };
    for (const caps of [ALL, ALL & ~IFCAP_VLAN_HWTAGGING]) {
      expect(ifhwioctl(lagg, SIOCSIFCAP, caps)).to.equal(0);
      const send = (): number => vlan.if_driver!.if_transmit(vlan, made(false));
      expect(bytesPerCall(send), `sent, ${caps}`).to.be.below(8);
      expect(laggSetProto(lagg, 'loadbalance')).to.equal(0);
      expect(bytesPerCall(send), `sent with loadbalance, ${caps}`).to.be.below(8);
      expect(laggSetProto(lagg, 'failover')).to.equal(0);
    }
    const receive = (): void => a.ifp.if_input!(a.ifp, made(true));
    expect(bytesPerCall(receive), 'received').to.be.below(8);
  });

  it('carries a vlan whose capabilities follow those of the ports', () => {
    add(a, b);
    expect(if_clone_create(rig.vnet, 'vlan7', { vlr_parent: 'lagg0', vlr_tag: 7 })).to.equal(0);
    const vlan = ifCloned.ifp!;
    expect(vlanInfo(vlan)!.parent).to.equal('lagg0');
    expect(vlan.if_capenable & IFCAP_NOMAP).to.equal(IFCAP_NOMAP);
    const c = nic('em2', MAC_C, 0);
    add(c);
    expect(vlan.if_capenable).to.equal(0);
    expect(lagg_port_destroy(lagg, c.ifp)).to.equal(0);
    expect(ifhwioctl(lagg, SIOCSIFCAP, ALL)).to.equal(0);
    expect(in_aifaddr(lagg, addr('203.0.113.2'), 24)).to.equal(0);
    expect(in_aifaddr(vlan, addr(US), 24)).to.equal(0);
    a.inject(reply(), 7);
    a.sent.length = 0;
    a.inject(echo(), 7);
    expect(a.sent.map((f) => f.vtag)).to.deep.equal([7]);
  });
});
