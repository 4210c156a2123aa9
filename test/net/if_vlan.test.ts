import { expect } from 'chai';
import { mbEmulator } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_IP,
  CSUM_IP6_TSO,
  CSUM_IP_TSO,
  CSUM_TCP,
  CSUM_TCP_IPV6,
  CSUM_TSO,
  CSUM_UDP,
  CSUM_UDP_IPV6,
  type Mbuf,
} from '../../src/kern/mbuf.ts';
import { BPF_D_INOUT, bpfOf } from '../../src/net/bpf.ts';
import { if_addmulti, ifhwioctl, ifunit } from '../../src/net/if.ts';
import { if_clone_create, if_clone_destroy, ifCloned } from '../../src/net/if_clone.ts';
import { vlan_config, vlan_unconfig, vlanInfo } from '../../src/net/if_vlan.ts';
import {
  IFCAP_HWCSUM,
  IFCAP_HWCSUM_IPV6,
  IFCAP_JUMBO_MTU,
  IFCAP_LRO,
  IFCAP_NOMAP,
  IFCAP_RXCSUM,
  IFCAP_RXCSUM_IPV6,
  IFCAP_TSO,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFCAP_VLAN_HWCSUM,
  IFCAP_VLAN_HWTAGGING,
  IFCAP_VLAN_HWTSO,
  IFCAP_VLAN_MTU,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_NOPROTO,
  IFCOUNTER_OBYTES,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OPACKETS,
  IFF_DRV_RUNNING,
  IFF_UP,
  if_get_counter,
  type Ifnet,
  LINK_STATE_DOWN,
  LINK_STATE_UNKNOWN,
  LINK_STATE_UP,
  SIOCSIFCAP,
  SIOCSIFMTU,
} from '../../src/net/if_var.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { ip_output } from '../../src/netinet/ip_output.ts';
import {
  EBUSY,
  EEXIST,
  EINVAL,
  ENETDOWN,
  ENOBUFS,
  ENXIO,
  EPROTONOSUPPORT,
} from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { counted, R_ETHER_VLAN, R_VLAN_DOWN, R_VLAN_PARENT } from '../../src/sys/reason.ts';
import { memView } from '../../src/vm/arena.ts';
import { chainBytes, pgsMbuf } from '../kern/chains.ts';
import { addr, outPacket, Rig } from '../netinet/rig.ts';
import { buildArp, buildEther, buildIcmp, buildIp4, decodeFrame } from '../support/frames.ts';
import { FakeNic } from './fake_nic.ts';

const OURS = '02:00:00:00:00:0a';
const PEERS = '02:00:00:00:00:0b';
const US = '198.51.100.2';
const PEER = '198.51.100.1';
const ALL =
  IFCAP_HWCSUM |
  IFCAP_HWCSUM_IPV6 |
  IFCAP_VLAN_MTU |
  IFCAP_VLAN_HWTAGGING |
  IFCAP_VLAN_HWCSUM |
  IFCAP_VLAN_HWTSO |
  IFCAP_JUMBO_MTU |
  IFCAP_TSO |
  IFCAP_LRO |
  IFCAP_NOMAP;

describe('vlan(4)', () => {
  let rig: Rig;
  let nic: FakeNic;
  let vlan: Ifnet;

  const create = (name: string, params: object | null): number =>
    if_clone_create(rig.vnet, name, params);
  const boot = (capabilities = ALL): void => {
    rig = new Rig();
    nic = new FakeNic(rig.vnet, 'em0', OURS, capabilities).up();
    expect(create('vlan100', { vlr_parent: 'em0', vlr_tag: 100 })).to.equal(0);
    vlan = ifCloned.ifp!;
    expect(in_aifaddr(vlan, addr(US), 24)).to.equal(0);
    nic.sent.length = 0;
  };
  const setcap = (ifp: Ifnet, cap: number): void => {
    expect(ifhwioctl(ifp, SIOCSIFCAP, cap)).to.equal(0);
  };
  /**
   * Clears the IP identification and header checksum of a tagged frame, which a NIC would fill in.
   */
  const comparable = (frame: Uint8Array): Uint8Array => {
    const bytes = frame.slice();
    for (const i of [22, 23, 28, 29]) bytes[i] = 0;
    return bytes;
  };
  const reply = buildArp(
    { dst: OURS, src: PEERS },
    { op: 2, sha: PEERS, spa: PEER, tha: OURS, tpa: US },
  );
  const tagged = (frame: Uint8Array, tag: number): Uint8Array =>
    Uint8Array.from([
      ...frame.subarray(0, 12),
      0x81,
      0,
      tag >> 8,
      tag & 0xff,
      ...frame.subarray(12),
    ]);
  const echo = (): Uint8Array =>
    buildEther(
      { dst: OURS, src: PEERS },
      0x0800,
      buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 8, payload: 'x' })),
    );
  /** An IP packet of an experimental protocol with 1200 bytes of unmapped payload. */
  const unmapped = (): Mbuf => {
    const m = outPacket(buildIp4({ src: US, dst: PEER }, 253, []));
    m.m_next = pgsMbuf({ npgs: 1, last: 1200 });
    m.m_pkthdr.len += m.m_next.m_len;
    memView.setUint16(m.m_data + 2, m.m_pkthdr.len);
    return m;
  };

  afterEach(() => {
    nic.detach();
    rig.close();
  });

  it('is created and destroyed by name, and reports its configuration', () => {
    boot();
    expect(vlanInfo(vlan)).to.deep.equal({ vlan: 100, proto: '802.1q', pcp: 0, parent: 'em0' });
    expect(vlan.if_groups).to.deep.equal(['vlan']);
    expect([...vlan.if_lladdr], 'the Ethernet address of the parent').to.deep.equal([
      ...nic.ifp.if_lladdr,
    ]);
    expect(create('vlan100', null)).to.equal(EEXIST);
    expect(create('vlan07', null), 'invalid unit number').to.equal(EINVAL);
    expect(create('gif0', null), 'unknown cloner').to.equal(EINVAL);
    expect(
      create('vlan1', { vlr_parent: 'em0', vlr_tag: 100 }),
      'tag in use on the parent',
    ).to.equal(EEXIST);
    expect(create('vlan1', { vlr_parent: 'em9', vlr_tag: 5 })).to.equal(ENXIO);
    expect(create('vlan1', { vlr_parent: 'lo0', vlr_tag: 5 })).to.equal(EPROTONOSUPPORT);
    for (const tag of [0, 4095, 4096, -1, 1.5])
      expect(create('vlan1', { vlr_parent: 'em0', vlr_tag: tag })).to.equal(EINVAL);
    expect(ifunit(rig.vnet, 'vlan1'), 'a failed create leaves no interface').to.equal(null);
    expect(vlan_config(vlan, nic.ifp, 101)).to.equal(EBUSY);
    expect(create('vlan', null)).to.equal(0);
    expect(ifCloned.ifp!.if_xname).to.equal('vlan0');
    expect(vlanInfo(ifCloned.ifp!)!.parent).to.equal(null);
    expect(create('em0.4094', null)).to.equal(0);
    expect(vlanInfo(ifCloned.ifp!)).to.include({ vlan: 4094, parent: 'em0' });
    // An interface name has at most 15 bytes.
    expect(create('em0.4094.4094', null)).to.equal(0);
    expect(create('em0.4094.4094.12', null)).to.equal(EINVAL);
    expect(create('em0.4094.4094.1', null)).to.equal(0);
    expect(if_clone_destroy(nic.ifp), 'not a cloned interface').to.equal(EINVAL);
    expect(if_clone_destroy(vlan)).to.equal(0);
    expect(ifunit(rig.vnet, 'vlan100')).to.equal(null);
  });

  it('sends the same bytes on the wire with a hardware tag and with a tag in the frame', () => {
    boot();
    nic.inject(reply, 100);
    nic.inject(echo(), 100);
    setcap(nic.ifp, ALL & ~IFCAP_VLAN_HWTAGGING);
    nic.inject(tagged(echo(), 100));
    const [hard, soft] = nic.sent;
    expect(nic.sent).to.have.length(2);
    expect([hard!.vtag, soft!.vtag]).to.deep.equal([100, null]);
    expect(comparable(tagged(hard!.bytes, 100))).to.deep.equal(comparable(soft!.bytes));
    const f = decodeFrame(soft!.bytes);
    expect(f).to.include({ vlan: 100, src: OURS, dst: PEERS });
    expect(f.ip!.icmp!.type).to.equal(0);
    expect(if_get_counter(vlan, IFCOUNTER_OPACKETS)).to.equal(3); // two, and the gratuitous ARP
    expect(if_get_counter(vlan, IFCOUNTER_OBYTES)).to.equal(2 * hard!.bytes.length + 42);
    expect(if_get_counter(vlan, IFCOUNTER_IPACKETS)).to.equal(3);
  });

  it('BPF shows frames without the tag on the vlan, and with the tag on the parent', () => {
    boot();
    nic.inject(reply, 100);
    const heard: [string, number | undefined][] = [];
    for (const ifp of [vlan, nic.ifp])
      bpfOf(ifp)!.attach({
        bd_direction: BPF_D_INOUT,
        bpfPacket: (on, m) =>
          void heard.push([on.if_xname, decodeFrame(chainBytes(m), { l3: 'none' }).vlan]),
      });
    nic.inject(echo(), 100);
    expect(heard).to.deep.equal([
      ['em0', 100],
      ['vlan100', undefined],
      ['vlan100', undefined],
      // The fake driver has no tap; the tests of if_tn cover its tap.
    ]);
  });

  it('drops and counts frames for unknown tags, and treats a priority tag as untagged', () => {
    boot();
    const parent = (i: number): number => if_get_counter(nic.ifp, i);
    nic.inject(echo(), 101);
    nic.inject(tagged(echo(), 101));
    expect(counted(R_ETHER_VLAN)).to.equal(2);
    vlan.if_flags &= ~IFF_UP;
    nic.inject(echo(), 100);
    expect(counted(R_VLAN_DOWN)).to.equal(1);
    expect(parent(IFCOUNTER_NOPROTO)).to.equal(3);
    expect(nic.sent).to.have.length(0);
    // The priority bits are not part of the VLAN id. VLAN id 0 means the parent itself.
    vlan.if_flags |= IFF_UP;
    nic.inject(reply, 100);
    nic.inject(echo(), 0xe000 | 100);
    expect(nic.sent).to.have.length(1);
    expect(in_aifaddr(nic.ifp, addr('203.0.113.2'), 24)).to.equal(0);
    nic.sent.length = 0;
    const ask = buildArp(
      { dst: 'ff:ff:ff:ff:ff:ff', src: PEERS },
      { op: 1, sha: PEERS, spa: '203.0.113.1', tha: '00:00:00:00:00:00', tpa: '203.0.113.2' },
    );
    nic.inject(tagged(ask, 0xa000));
    nic.inject(ask, 0);
    expect(nic.sent.map((f) => [decodeFrame(f.bytes).arp!.op, f.vtag])).to.deep.equal([
      [2, null],
      [2, null],
    ]);
  });

  it('NOMAP: is inherited with and without hardware tagging, and follows the parent', () => {
    boot();
    const nomap = (): [boolean, boolean] => [
      (vlan.if_capabilities & IFCAP_NOMAP) !== 0,
      (vlan.if_capenable & IFCAP_NOMAP) !== 0,
    ];
    expect(nomap()).to.deep.equal([true, true]);
    setcap(nic.ifp, ALL & ~IFCAP_VLAN_HWTAGGING);
    expect(nomap()).to.deep.equal([true, true]);
    setcap(nic.ifp, ALL & ~IFCAP_NOMAP);
    expect(nomap()).to.deep.equal([true, false]);
    setcap(nic.ifp, ALL);
    setcap(vlan, vlan.if_capenable & ~IFCAP_NOMAP);
    expect(nomap()).to.deep.equal([true, false]);
    expect(nic.ifp.if_capenable, 'the parent does not change').to.equal(ALL);
    setcap(nic.ifp, ALL & ~IFCAP_NOMAP);
    setcap(nic.ifp, ALL);
    expect(nomap(), 'a capability the user disabled stays disabled').to.deep.equal([true, false]);
    setcap(vlan, vlan.if_capenable | IFCAP_NOMAP);
    expect(nomap()).to.deep.equal([true, true]);
  });

  it('passes unmapped payload on behind a mapped header with the tag, or maps it', () => {
    boot();
    nic.inject(reply, 100);
    const wire: Uint8Array[] = [];
    for (const [off, conversions, unmappedMbufs] of [
      [0, 0, 1],
      [IFCAP_VLAN_HWTAGGING, 0, 1],
      [IFCAP_NOMAP, 1, 0],
      [IFCAP_NOMAP | IFCAP_VLAN_HWTAGGING, 1, 0],
    ] as const) {
      setcap(nic.ifp, ALL & ~off);
      const before = mbEmulator.conversions;
      const m = unmapped();
      const bytes = chainBytes(m).subarray(20);
      expect(ip_output(m, null, 0, rig.vnet)).to.equal(0);
      const f = nic.sent.pop()!;
      expect(f.bytes.subarray(-1200)).to.deep.equal(bytes);
      expect([mbEmulator.conversions - before, f.unmapped]).to.deep.equal([
        conversions,
        unmappedMbufs,
      ]);
      wire.push(f.vtag === null ? f.bytes : tagged(f.bytes, f.vtag));
    }
    for (const bytes of wire) {
      expect(decodeFrame(bytes, { l3: 'none' })).to.include({ vlan: 100 });
      expect(comparable(bytes).subarray(0, 38)).to.deep.equal(comparable(wire[0]!).subarray(0, 38));
    }
  });

  it('offloads checksums with VLAN_HWCSUM and VLAN_HWTAGGING, and TSO with VLAN_HWTSO', () => {
    boot();
    const csum = IFCAP_HWCSUM | IFCAP_HWCSUM_IPV6;
    const CAP = csum | IFCAP_TSO | IFCAP_LRO | IFCAP_NOMAP;
    const without = (off: number): number => {
      setcap(nic.ifp, ALL & ~off);
      expect(vlan.if_capabilities).to.equal(CAP);
      return vlan.if_capenable;
    };
    expect(without(0)).to.equal(CAP);
    expect(vlan.if_hwassist).to.equal(nic.ifp.if_hwassist);
    expect(without(IFCAP_VLAN_HWCSUM)).to.equal(IFCAP_LRO | IFCAP_NOMAP);
    expect(vlan.if_hwassist).to.equal(0);
    expect(without(IFCAP_VLAN_HWTAGGING)).to.equal(IFCAP_LRO | IFCAP_NOMAP);
    expect(without(IFCAP_VLAN_HWTSO)).to.equal(CAP & ~IFCAP_TSO);
    expect(vlan.if_hwassist & CSUM_IP_TSO).to.equal(0);
    expect(without(IFCAP_TXCSUM | IFCAP_TSO4)).to.equal(CAP & ~(IFCAP_TXCSUM | IFCAP_TSO4));
    expect(vlan.if_hwassist & (CSUM_IP | CSUM_TCP | CSUM_UDP | CSUM_IP_TSO)).to.equal(0);
    expect(without(IFCAP_RXCSUM | IFCAP_LRO)).to.equal(CAP & ~(IFCAP_RXCSUM | IFCAP_LRO));
    expect(without(IFCAP_RXCSUM_IPV6)).to.equal(CAP & ~IFCAP_RXCSUM_IPV6);
    expect(without(IFCAP_TSO6)).to.equal(CAP & ~IFCAP_TSO6);
    expect(vlan.if_hwassist & CSUM_TSO).to.equal(CSUM_IP_TSO);
    const six = IFCAP_TXCSUM_IPV6 | IFCAP_TSO6;
    expect(without(six)).to.equal(CAP & ~six);
    const HW4 = CSUM_IP | CSUM_TCP | CSUM_UDP | CSUM_IP_TSO;
    expect(vlan.if_hwassist).to.equal(HW4);
    without(0);
    // On the vlan itself: -txcsum6 turns TSO6 off with it, and txcsum6 turns both on again.
    setcap(vlan, CAP & ~IFCAP_TXCSUM_IPV6);
    expect([vlan.if_capenable, vlan.if_hwassist]).to.deep.equal([CAP & ~six, HW4]);
    setcap(vlan, CAP);
    const HW6 = CSUM_TCP_IPV6 | CSUM_UDP_IPV6 | CSUM_IP6_TSO;
    expect([vlan.if_capenable, vlan.if_hwassist]).to.deep.equal([CAP, HW4 | HW6]);
    nic.detach();
    rig.close();
    boot(ALL & ~(IFCAP_VLAN_HWCSUM | IFCAP_VLAN_HWTSO));
    expect(vlan.if_capabilities).to.equal(IFCAP_LRO | IFCAP_NOMAP);
  });

  it('has the TSO limits of the parent', () => {
    boot();
    Object.assign(nic.ifp, {
      if_hw_tsomax: 60000,
      if_hw_tsomaxsegcount: 7,
      if_hw_tsomaxsegsize: 4096,
    });
    setcap(nic.ifp, ALL & ~IFCAP_LRO);
    expect(vlan).to.include({
      if_hw_tsomax: 60000,
      if_hw_tsomaxsegcount: 7,
      if_hw_tsomaxsegsize: 4096,
    });
  });

  it('has the MTU of the parent, or 4 less without VLAN_MTU', () => {
    boot();
    expect(vlan.if_mtu).to.equal(1500);
    expect(ifhwioctl(vlan, SIOCSIFMTU, 1501)).to.equal(EINVAL);
    expect(ifhwioctl(vlan, SIOCSIFMTU, 1400)).to.equal(0);
    expect(vlan.if_mtu).to.equal(1400);
    nic.detach();
    rig.close();
    boot(ALL & ~IFCAP_VLAN_MTU);
    expect(vlan.if_mtu).to.equal(1496);
    expect(ifhwioctl(vlan, SIOCSIFMTU, 1497)).to.equal(EINVAL);
    expect(ifhwioctl(vlan, SIOCSIFMTU, 1496)).to.equal(0);
  });

  it('follows link state, address and multicast filter of the parent, and detaches with it', () => {
    boot();
    expect(vlan.if_link_state).to.equal(LINK_STATE_UP);
    nic.link(false);
    expect(vlan.if_link_state).to.equal(LINK_STATE_DOWN);
    expect(if_addmulti(vlan, Uint8Array.of(1, 0, 0x5e, 1, 2, 3))).to.equal(0);
    const groups = (): string[] =>
      nic.ifp.if_multiaddrs.map(({ ifma_lladdr }) => Buffer.from(ifma_lladdr).toString('hex'));
    expect(groups()).to.have.members(['01005e000001', '01005e010203']);
    vlan_unconfig(vlan);
    expect(groups()).to.deep.equal([]);
    expect(vlan).to.include({ if_capabilities: 0, if_capenable: 0, if_hwassist: 0 });
    expect(vlan.if_drv_flags & IFF_DRV_RUNNING).to.equal(0);
    expect(ifhwioctl(vlan, SIOCSIFMTU, 1400)).to.equal(EINVAL);
    expect(vlan_config(vlan, nic.ifp, 7)).to.equal(0);
    expect(vlan.if_link_state).to.equal(LINK_STATE_DOWN);
    nic.detach();
    expect(vlanInfo(vlan)).to.include({ vlan: 0, parent: null });
    expect(vlan.if_link_state).to.equal(LINK_STATE_UNKNOWN);
    nic = new FakeNic(rig.vnet, 'em1', OURS, ALL);
  });

  it('drops and counts packets that it cannot send', () => {
    boot();
    nic.inject(reply, 100);
    nic.ifp.if_drv_flags &= ~IFF_DRV_RUNNING;
    expect(ip_output(unmapped(), null, 0, rig.vnet)).to.equal(ENETDOWN);
    nic.up().ifp.if_flags &= ~IFF_UP;
    expect(ip_output(unmapped(), null, 0, rig.vnet)).to.equal(ENETDOWN);
    expect(counted(R_VLAN_PARENT)).to.equal(2);
    expect(if_get_counter(vlan, IFCOUNTER_OERRORS)).to.equal(2);
    setcap(nic.up().ifp, ALL & ~IFCAP_VLAN_HWTAGGING);
    const m = unmapped();
    failPoint('mbuf').arm(1);
    expect(ip_output(m, null, 0, rig.vnet), 'no mbuf for the tag').to.equal(ENOBUFS);
    failPoint('mbuf').disarm();
    expect(if_get_counter(vlan, IFCOUNTER_OERRORS)).to.equal(3);
    expect(nic.sent).to.have.length(0);
  });
});
