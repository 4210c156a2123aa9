import { expect } from 'chai';
import { m_freem } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_VLANTAG } from '../../src/kern/mbuf.ts';
import { AF_INET } from '../../src/kern/protosw.ts';
import { BPF_D_IN, BPF_D_INOUT, BPF_D_OUT, type BpfListener, bpfOf } from '../../src/net/bpf.ts';
import { ether_output } from '../../src/net/if_ethersubr.ts';
import {
  IFCOUNTER_IBYTES,
  IFCOUNTER_IERRORS,
  IFCOUNTER_IMCASTS,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_IQDROPS,
  IFCOUNTER_NOPROTO,
  IFCOUNTER_OERRORS,
  IFF_DRV_RUNNING,
  IFF_MONITOR,
  IFF_SIMPLEX,
  IFF_UP,
  if_get_counter,
  OutputDst,
} from '../../src/net/if_var.ts';
import { mbufZones } from '../../src/kern/kern_mbuf.ts';
import { EAFNOSUPPORT, ENETDOWN, ENOBUFS } from '../../src/sys/errno.ts';
import {
  counted,
  R_ETHER_DOWN,
  R_ETHER_LONG,
  R_ETHER_LOOP,
  R_ETHER_NOTUS,
  R_ETHER_SHORT,
  R_ETHER_TYPE,
  R_IP6_DISABLED,
  R_ETHER_VLAN,
  type Reason,
} from '../../src/sys/reason.ts';
import { mem } from '../../src/vm/arena.ts';
import { payloadBytesRead, READ_BPF } from '../../src/vm/payload.ts';
import { m_copydata } from '../../src/kern/m_copydata.ts';
import { m_getcl } from '../../src/kern/kern_mbuf.ts';
import { CSUM_IP, M_BCAST, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { ipstat } from '../../src/netinet/ip_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { kva } from '../../src/sys/types.ts';
import { chainBytes, pgsMbuf, sfbufMbuf } from '../kern/chains.ts';
import { addr, OUR_MAC, outPacket, PEER, PEER_MAC, Rig, US } from '../netinet/rig.ts';
import {
  BROADCAST_MAC,
  buildEther,
  buildIcmp,
  buildIp4,
  decodeFrame,
  expectTx,
  icmp,
} from '../support/frames.ts';

const echo = buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 8, payload: 'x' }));

const to = (text: string, family = AF_INET): OutputDst => {
  const dst = new OutputDst(family);
  dst.set(addr(text));
  return dst;
};

class Ear implements BpfListener {
  readonly bd_direction: number;
  readonly heard: { bytes: Uint8Array; outgoing: boolean }[] = [];
  constructor(direction: number) {
    this.bd_direction = direction;
  }
  bpfPacket(_ifp: unknown, m: Mbuf, pktlen: number, outgoing: boolean): void {
    const bytes = chainBytes(m);
    expect(bytes.length).to.equal(pktlen);
    this.heard.push({ bytes, outgoing });
  }
}

describe('ethernet', () => {
  let rig: Rig;
  beforeEach(() => (rig = new Rig()));
  afterEach(() => rig.close());
  const frame = (
    type = 0x0800,
    e: { dst?: string; src?: string; vlan?: number } = {},
  ): Uint8Array => buildEther({ dst: OUR_MAC, src: PEER_MAC, ...e }, type, echo);
  const count = (i: number): number => if_get_counter(rig.ifp, i);

  const drops: [string, () => void, Reason][] = [
    ['13 bytes', () => rig.inject(frame().subarray(0, 13)), R_ETHER_SHORT],
    ['a VLAN tag without a type', () => rig.inject(frame(0x8100).subarray(0, 17)), R_ETHER_SHORT],
    [
      '1501 bytes of payload',
      () => rig.inject(buildEther({ dst: OUR_MAC, src: PEER_MAC }, 0x800, new Uint8Array(1501))),
      R_ETHER_LONG,
    ],
    [
      'a frame for another host',
      () => rig.inject(frame(0x800, { dst: '02:00:00:00:00:99' })),
      R_ETHER_NOTUS,
    ],
    ['our own frame', () => rig.inject(frame(0x800, { src: OUR_MAC })), R_ETHER_LOOP],
    ['an unknown type', () => rig.inject(frame(0x88b5)), R_ETHER_TYPE],
    ['IPv6 on an interface without IPv6', () => rig.inject(frame(0x86dd)), R_IP6_DISABLED],
    ['a VLAN tag', () => rig.inject(frame(0x0800, { vlan: 5 })), R_ETHER_VLAN],
    ['a VLAN tag that the NIC stripped', () => injectTagged(5), R_ETHER_VLAN],
    [
      'a frame while the interface is down',
      () => {
        rig.ifp.if_flags &= ~IFF_UP;
        rig.inject(frame());
        rig.ifp.if_flags |= IFF_UP;
      },
      R_ETHER_DOWN,
    ],
  ];
  const injectTagged = (tag: number): void => {
    const m = outPacket(frame());
    m.m_flags |= M_VLANTAG;
    m.m_pkthdr.ether_vtag = tag;
    rig.ifp.if_input!(rig.ifp, m);
  };
  for (const [what, inject, reason] of drops)
    it(`drops and counts ${what}`, () => {
      inject();
      expectTx(rig.sent);
      expect(counted(reason)).to.equal(1);
    });

  it('accepts a full frame, and counts bytes, multicasts and unknown protocols', () => {
    const before = count(IFCOUNTER_IBYTES);
    rig.inject(frame());
    expectTx(rig.sent, [icmp(0)]);
    expect(count(IFCOUNTER_IBYTES) - before).to.equal(frame().length);
    rig.inject(frame(0x88b5));
    rig.inject(frame(0x88b5, { dst: BROADCAST_MAC }));
    rig.inject(frame(0x88b5, { dst: '01:00:5e:00:00:01' }));
    rig.inject(frame().subarray(0, 5));
    expect(count(IFCOUNTER_NOPROTO)).to.equal(3);
    expect(count(IFCOUNTER_IMCASTS)).to.equal(2);
    expect(count(IFCOUNTER_IERRORS)).to.equal(1);
    const big = buildIp4(
      { src: PEER, dst: US },
      1,
      buildIcmp({ type: 8, payload: new Uint8Array(1472) }),
    );
    rig.injectIp(big);
    expectTx(rig.sent, [icmp(0)]);
  });

  it('accepts a packet of any size if the NIC coalesced it', () => {
    const big = buildIp4({ src: PEER, dst: US }, 253, new Uint8Array(1600));
    const m = outPacket(buildEther({ dst: OUR_MAC, src: PEER_MAC }, 0x800, big));
    m.m_pkthdr.lro_nsegs = 2;
    rig.ifp.if_input!(rig.ifp, m);
    expectTx(rig.sent, [icmp(3, 2)]);
  });

  it('sends only while up and running, and only known address families', () => {
    const send = (family = AF_INET): number =>
      ether_output(rig.ifp, outPacket(echo), to(PEER, family));
    rig.ifp.if_drv_flags &= ~IFF_DRV_RUNNING;
    expect(send()).to.equal(ENETDOWN);
    rig.ifp.if_drv_flags |= IFF_DRV_RUNNING;
    rig.ifp.if_flags &= ~IFF_UP;
    expect(send()).to.equal(ENETDOWN);
    expect([count(IFCOUNTER_OERRORS), counted(R_ETHER_DOWN)]).to.deep.equal([2, 2]);
    rig.ifp.if_flags |= IFF_UP;
    rig.ifp.if_flags |= IFF_MONITOR;
    expect(send()).to.equal(ENETDOWN);
    rig.inject(frame());
    rig.ifp.if_flags &= ~IFF_MONITOR;
    expect(send(99)).to.equal(EAFNOSUPPORT);
    expectTx(rig.sent);
    expect(send()).to.equal(0);
    expectTx(rig.sent, [icmp(8)]);
  });

  it('returns 0 for a packet that waits for ARP', () => {
    const dst = to('192.0.2.9');
    expect(ether_output(rig.ifp, outPacket(echo), dst)).to.equal(0);
    const [request] = rig.sent.splice(0);
    expect(decodeFrame(request!)).to.include({ dst: BROADCAST_MAC, type: 0x0806 });
    // The broadcast of ARP itself is not looped back.
    expect(count(IFCOUNTER_IMCASTS)).to.equal(0);
  });

  describe('broadcasts', () => {
    const ALL = '192.0.2.255';
    const packet = buildIp4({ src: US, dst: ALL }, 253, new Uint8Array(100));
    const broadcast = (bytes = packet): number => {
      const m = outPacket(bytes);
      m.m_flags |= M_BCAST;
      return ether_output(rig.ifp, m, to(ALL));
    };

    it('are looped back as a copy at the end of the pass with IFF_SIMPLEX', () => {
      const ears = [BPF_D_IN, BPF_D_OUT].map((d) => new Ear(d));
      for (const ear of ears) bpfOf(rig.ifp)!.attach(ear);
      const before = [IFCOUNTER_IPACKETS, IFCOUNTER_IBYTES].map(count);
      const total = ipstat(rig.vnet).ips_total;
      inPass(() => {
        expect(broadcast()).to.equal(0);
        expect(ipstat(rig.vnet).ips_total - total).to.equal(0);
      });
      expect(ipstat(rig.vnet).ips_total - total).to.equal(1);
      expect(ipstat(rig.vnet).ips_badsum).to.equal(0);
      expect(count(IFCOUNTER_IPACKETS) - before[0]!).to.equal(1);
      expect(count(IFCOUNTER_IBYTES) - before[1]!).to.equal(packet.length);
      const [sent] = rig.sent.splice(0);
      expect(decodeFrame(sent!)).to.include({ dst: BROADCAST_MAC, src: OUR_MAC });
      for (const ear of ears) {
        expect(ear.heard.map((h) => [...h.bytes])).to.deep.equal([[...sent!]]);
        bpfOf(rig.ifp)!.detach(ear);
      }
    });

    it('are looped back as verified when the checksum is left to the NIC', () => {
      const m = outPacket(packet.with(10, 0).with(11, 0));
      m.m_flags |= M_BCAST;
      m.m_pkthdr.csum_flags = CSUM_IP;
      inPass(ether_output, rig.ifp, m, to(ALL));
      expect(rig.chains.at(-1)!.csum_flags, 'csum_flags at the NIC').to.equal(CSUM_IP);
      expect(ipstat(rig.vnet).ips_badsum).to.equal(0);
      rig.sent.length = 0;
    });

    it('are not looped back without IFF_SIMPLEX, nor without memory', () => {
      const total = ipstat(rig.vnet).ips_total;
      rig.ifp.if_flags &= ~IFF_SIMPLEX;
      expect(broadcast()).to.equal(0);
      rig.ifp.if_flags |= IFF_SIMPLEX;
      const m = outPacket(packet);
      m.m_flags |= M_BCAST;
      const { mbuf } = mbufZones();
      const { max } = mbuf;
      mbuf.max = mbuf.current;
      expect(ether_output(rig.ifp, m, to(ALL))).to.equal(0);
      mbuf.max = max;
      expect(count(IFCOUNTER_IQDROPS)).to.equal(1);
      expect(ipstat(rig.vnet).ips_total).to.equal(total);
      expect(rig.sent.splice(0).length).to.equal(2);
    });
  });

  it('puts its header into leading space, or else into a new mbuf', () => {
    const send = (m: Mbuf): number => ether_output(rig.ifp, m, to(PEER));
    send(outPacket(echo));
    expect(rig.chains.at(-1)!.mbufs).to.equal(1);
    const tight = outPacket(echo);
    tight.m_data -= 4;
    tight.m_len = tight.m_pkthdr.len = echo.length;
    mbufMove(tight);
    send(tight);
    expect(rig.chains.at(-1)!.mbufs).to.equal(2);
    expectTx(rig.sent, [icmp(8)], [icmp(8)]);
    const none = outPacket(echo);
    none.m_data -= 4;
    mbufMove(none);
    const { mbuf } = mbufZones();
    const { max } = mbuf;
    mbuf.max = mbuf.current;
    expect(send(none)).to.equal(ENOBUFS);
    mbuf.max = max;
  });

  it('passes packets to BPF listeners by direction', () => {
    const ears = [BPF_D_IN, BPF_D_INOUT, BPF_D_OUT].map((d) => new Ear(d));
    for (const ear of ears) bpfOf(rig.ifp)!.attach(ear);
    rig.inject(frame());
    rig.inject(frame(0x88b5));
    const [reply] = rig.sent.splice(0);
    const [ins, both, outs] = ears.map((e) => e.heard);
    expect(ins!.map((h) => h.outgoing)).to.deep.equal([false, false]);
    expect(both!.map((h) => h.outgoing)).to.deep.equal([false, true, false]);
    expect(outs!.length).to.equal(1);
    expect([...outs![0]!.bytes]).to.deep.equal([...reply!]);
    expect([...ins![0]!.bytes]).to.deep.equal([...frame()]);
    for (const ear of ears) bpfOf(rig.ifp)!.detach(ear);
    expect(rig.ifp.if_bpf!.listeners).to.equal(0);
    rig.inject(frame());
    expect(ins!.length).to.equal(2);
    rig.sent.length = 0;
  });

  it('inserts a stripped VLAN tag again for BPF listeners', () => {
    const ear = new Ear(BPF_D_INOUT);
    bpfOf(rig.ifp)!.attach(ear);
    const m = outPacket(frame());
    m.m_flags |= M_VLANTAG;
    m.m_pkthdr.ether_vtag = 0x6123;
    rig.ifp.if_bpf!.mtap(m, false);
    expect([...chainBytes(m)], 'the packet itself is unchanged').to.deep.equal([...frame()]);
    m_freem(m);
    const seen = decodeFrame(ear.heard[0]!.bytes);
    expect(seen).to.include({ vlan: 0x6123, type: 0x0800, dst: OUR_MAC, src: PEER_MAC });
    expect(seen.ip!.icmp!.type).to.equal(8);
    bpfOf(rig.ifp)!.detach(ear);
  });

  it('counts file bytes that BPF listeners read as bpf reads', () => {
    const scratch = m_getcl(M_NOWAIT, MT_DATA, 0)!;
    const ear: BpfListener = {
      bd_direction: BPF_D_INOUT,
      bpfPacket: (_ifp, m, pktlen) => m_copydata(m, 0, Math.min(pktlen, 100), kva(scratch.m_data)),
    };
    bpfOf(rig.ifp)!.attach(ear);
    for (const data of [pgsMbuf({ npgs: 1, last: 500 }), sfbufMbuf(3, 500)]) {
      const before = payloadBytesRead(READ_BPF);
      const m = outPacket(frame().subarray(0, 34));
      m.m_next = data;
      m.m_pkthdr.len += 500;
      rig.ifp.if_bpf!.mtap(m, true);
      expect(payloadBytesRead(READ_BPF) - before).to.equal(66);
      m_freem(m);
    }
    bpfOf(rig.ifp)!.detach(ear);
    m_freem(scratch);
  });
});

/** Moves m_data down by 12 bytes (max_linkhdr - 4) and writes the packet there. */
function mbufMove(m: Mbuf): void {
  const bytes = echo;
  m.m_data -= 12;
  m.m_len = m.m_pkthdr.len = bytes.length;
  const at = m.m_data;
  mem.set(bytes, at);
}
