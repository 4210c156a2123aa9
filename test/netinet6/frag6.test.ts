/** Reassembly: RFC 8200, 4.5; RFC 5722; RFC 6946; limits and time-out. */

import { expect } from 'chai';
import { mbufZones } from '../../src/kern/kern_mbuf.ts';
import { soclose } from '../../src/kern/uipc_socket.ts';
import { V_frag6 } from '../../src/netinet6/frag6.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IN6_IFF_NODAD } from '../../src/netinet6/in6_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { buildIp6, buildUdp6 } from '../support/six.ts';
import { PEER6, Rig6, TO_US, US6, US_LL } from './rig6.ts';

const FRAGMENT = 44;
const DST = 60;
const UDP = 17;
const be16 = (n: number): number[] => [(n >>> 8) & 255, n & 255];
const be32 = (n: number): number[] => [...be16(n >>> 16), ...be16(n)];

const DATA = Uint8Array.from({ length: 3000 }, (_, i) => 33 + (i % 90));
const TEXT = Buffer.from(DATA).toString('latin1');
/** The fragmentable part: a datagram. */
const WHOLE = buildUdp6(TO_US, 9, 53, DATA).subarray(40);

interface Piece {
  from: number;
  to: number;
  id?: number;
  more?: boolean;
  bytes?: Uint8Array;
  src?: string;
  before?: number[];
  tclass?: number;
}

/** The fragment with bytes `from` to `to` of the datagram. */
function fragment(p: Piece): Uint8Array {
  const more = p.more ?? p.to < WHOLE.length;
  const head = [UDP, 0, ...be16(p.from | (more ? 1 : 0)), ...be32(p.id ?? 7)];
  const before = p.before ?? [];
  const f = { src: p.src ?? PEER6, dst: US6, tclass: p.tclass ?? 0 };
  const body = (p.bytes ?? WHOLE).subarray(p.from, p.to);
  return buildIp6(f, before.length > 0 ? DST : FRAGMENT, [...before, ...head, ...body]);
}

const END = WHOLE.length;
const THREE: Piece[] = [
  { from: 0, to: 1000 },
  { from: 1000, to: 2000 },
  { from: 2000, to: END },
];

describe('frag6', () => {
  let h: Rig6;
  beforeEach(() => {
    h = new Rig6();
  });
  afterEach(() => h.close());

  const send = (...pieces: Piece[]): void => pieces.forEach((p) => h.inject6(fragment(p)));
  const got = (): boolean => {
    const so = h.sockets[0] ?? h.udp6(53);
    return h.datagram(so) === TEXT;
  };

  it('reassembles fragments in every order, in mbufs of any size', () => {
    h.udp6(53);
    const orders = [
      [0, 1, 2],
      [0, 2, 1],
      [1, 0, 2],
      [1, 2, 0],
      [2, 0, 1],
      [2, 1, 0],
    ];
    orders.forEach((order, n) => {
      for (const i of order) h.inject6(fragment({ ...THREE[i]!, id: n }), undefined, n * 7);
      expect(got(), order.join()).to.equal(true);
    });
    expect([h.stat6.ip6s_fragments, h.stat6.ip6s_reassembled]).to.deep.equal([18, 6]);
    expect([V_frag6(h.vnet).frags, V_frag6(h.vnet).fragpackets]).to.deep.equal([0, 0]);
  });

  it('keeps the headers before the fragment header of the first fragment', () => {
    h.udp6(53);
    const before = [FRAGMENT, 1, 1, 12, ...Array.from({ length: 12 }, () => 0)];
    send(THREE[2]!, { ...THREE[0]!, before }, { ...THREE[1]!, before });
    expect(got()).to.equal(true);
  });

  it('reports a closed port with the reassembled packet, of which it removed the fragment header', () => {
    send(...THREE);
    const [error] = h.take6();
    expect([error!.body[0], error!.body[1]]).to.deep.equal([1, 4]);
    expect(error!.body.length).to.equal(1280 - 40);
    expect([...error!.body.subarray(8, 16)]).to.deep.equal([0x60, 0, 0, 0, ...be16(END), UDP, 64]);
    expect([...error!.body.subarray(48, 56)]).to.deep.equal([...WHOLE.subarray(0, 8)]);
  });

  it('keeps packets of different source and identification apart', () => {
    h.udp6(53);
    send(THREE[0]!, { ...THREE[0]!, id: 8 }, THREE[1]!, { ...THREE[1]!, src: '2001:db8::7' });
    expect(V_frag6(h.vnet).fragpackets).to.equal(3);
    send(THREE[2]!);
    expect(got()).to.equal(true);
  });

  it('keeps 1,600 packets apart that differ in one property, some in one hash bucket', () => {
    const so = h.udp6(53);
    const f = V_frag6(h.vnet);
    f.maxfragpackets = f.maxfrags = f.maxfragbucketsize = 10_000;
    const destinations = [US6, US_LL, '2001:db8::22', '2001:db8::23'];
    for (const alias of destinations.slice(2))
      expect(in6_aifaddr(h.ifp, parseIn6(alias)!, 64, IN6_IFF_NODAD)).to.equal(0);
    const halves: Uint8Array[][] = [[], []];
    const want: string[] = [];
    for (let n = 0; n < 1600; n++) {
      const [id, src, dst] = [n % 10, Math.floor(n / 10) % 40, destinations[Math.floor(n / 400)]!];
      const way = { src: `2001:db8::1:${src + 1}`, dst };
      want.push(`packet ${String(n).padStart(4)}`);
      const whole = buildUdp6(way, 9, 53, Buffer.from(want.at(-1)!)).subarray(40);
      for (const half of [0, 1]) {
        const head = [UDP, 0, ...be16(half === 0 ? 1 : 16), ...be32(id)];
        const part = half === 0 ? whole.subarray(0, 16) : whole.subarray(16);
        halves[half]!.push(buildIp6(way, FRAGMENT, [...head, ...part]));
      }
    }
    for (const packet of halves[0]!) h.inject6(packet);
    expect(f.fragpackets).to.equal(1600);
    const received: (string | number)[] = [];
    for (const packet of halves[1]!) {
      h.inject6(packet);
      received.push(h.datagram(so));
    }
    expect(received).to.deep.equal(want);
    expect([f.fragpackets, f.frags]).to.deep.equal([0, 0]);
  });

  it('an atomic fragment is a whole packet, whatever is queued: RFC 6946', () => {
    h.udp6(53);
    const small = buildUdp6(TO_US, 9, 53, [120]).subarray(40);
    send(THREE[0]!);
    h.inject6(fragment({ from: 0, to: small.length, bytes: small, more: false }));
    expect(h.datagram(h.sockets[0]!)).to.equal('x');
    expect(h.stat6.ip6s_atomicfrags).to.equal(1);
    send(THREE[1]!, THREE[2]!);
    expect(got()).to.equal(true);
  });

  it('an overlap discards the packet; an exact duplicate changes nothing: RFC 5722, 8200', () => {
    h.udp6(53);
    send(THREE[0]!, THREE[0]!, THREE[1]!, THREE[2]!);
    expect(got(), 'duplicate').to.equal(true);
    for (const [i, over] of (
      [
        { from: 504, to: 1504 },
        { from: 992, to: 1000 },
        { from: 0, to: 8 },
        { from: 0, to: 1200 },
        { from: 8, to: 992 },
      ] as Piece[]
    ).entries()) {
      const id = 100 + i;
      send({ ...THREE[0]!, id }, { ...over, id });
      expect(V_frag6(h.vnet).fragpackets, `overlap ${i}`).to.equal(0);
      send({ ...THREE[1]!, id }, { ...THREE[2]!, id });
      expect(got()).to.equal(false);
      V_frag6(h.vnet).drain();
    }
  });

  it('a fragment behind the last one, or another last one, does not change the packet', () => {
    h.udp6(53);
    const long = new Uint8Array(4000).fill(1);
    send(THREE[0]!, THREE[2]!);
    h.inject6(fragment({ from: 3200, to: 3208, more: true, bytes: long }));
    h.inject6(fragment({ from: 3200, to: 3208, more: false, bytes: long }));
    // One that ends with the packet, but announces more.
    send({ from: 2008, to: END, more: true });
    send(THREE[1]!);
    expect(got()).to.equal(true);
    expect(h.stat6.ip6s_fragdropped).to.equal(3);
  });

  it('reports a fragment whose length is no multiple of 8, is 0, or exceeds 65535', () => {
    h.inject6(fragment({ from: 0, to: 1001, more: true }));
    expect(h.error6()).to.deep.equal([4, 0, 4]);
    h.inject6(fragment({ from: 8, to: 8, more: true }));
    expect(h.error6()).to.deep.equal([4, 0, 4]);
    const long = new Uint8Array(66_000);
    h.inject6(fragment({ from: 65_528, to: 65_544, more: false, bytes: long }));
    expect(h.error6()).to.deep.equal([4, 0, 42]);
    h.inject6(fragment({ from: 65_528, to: 65_536, more: false, bytes: long }));
    expect(h.error6()).to.deep.equal([4, 0, 42]);
    expect(V_frag6(h.vnet).fragpackets).to.equal(0);
    // 65535 bytes are allowed; the headers in front of the fragment header count.
    h.inject6(fragment({ from: 65_528, to: 65_535, more: false, bytes: long }));
    expect(h.error6()).to.equal(null);
    expect(V_frag6(h.vnet).fragpackets).to.equal(1);
    const before = [FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
    h.inject6(fragment({ from: 65_528, to: 65_535, more: false, bytes: long, id: 9, before }));
    expect(h.error6()).to.deep.equal([4, 0, 50]);
  });

  it('an error about a later fragment is sent whatever its first byte is', () => {
    // Type 1 of ICMPv6, if it were the first fragment: no error about an error.
    const bytes = new Uint8Array(2000).fill(1);
    const piece = fragment({ from: 8, to: 17, more: true, bytes });
    piece[40] = 58;
    h.inject6(piece);
    expect(h.error6()).to.deep.equal([4, 0, 4]);
    const first = fragment({ from: 0, to: 9, more: true, bytes });
    first[40] = 58;
    h.inject6(first);
    expect(h.error6()).to.equal(null);
  });

  it('a parameter problem about a reassembled packet points into the packet without fragment header', () => {
    for (const before of [[], [FRAGMENT, 0, 1, 4, 0, 0, 0, 0]]) {
      for (const p of THREE) {
        const packet = fragment({ ...p, before });
        packet[40 + before.length] = 253;
        h.inject6(packet);
      }
      expect(h.error6()).to.deep.equal([4, 1, before.length === 0 ? 6 : 40]);
    }
  });

  it('drops a packet that the headers of its first fragment make too long', () => {
    const long = new Uint8Array(66_000);
    V_frag6(h.vnet).maxfragsperpacket = 100;
    V_frag6(h.vnet).maxfrags = -1;
    for (let from = 8; from < 65_528; from += 1000) {
      const to = Math.min(from + 1000, 65_528);
      h.inject6(fragment({ from, to, more: to < 65_528, bytes: long }));
    }
    expect(V_frag6(h.vnet).frags).to.equal(66);
    const before = [FRAGMENT, 1, 1, 12, ...Array.from({ length: 12 }, () => 0)];
    h.inject6(fragment({ from: 0, to: 8, more: true, bytes: long, before }));
    expect([V_frag6(h.vnet).frags, h.stat6.ip6s_reassembled]).to.deep.equal([0, 0]);
  });

  it('drops an incomplete packet after 60 s, and reports it if the first fragment has arrived', () => {
    send(THREE[0]!, { ...THREE[1]!, id: 8 });
    h.advance(59_900);
    expect(h.take6()).to.deep.equal([]);
    h.advance(200);
    const [error, ...more] = h.take6();
    expect(more).to.deep.equal([]);
    expect([error!.body[0], error!.body[1]]).to.deep.equal([3, 1]);
    expect([...error!.body.subarray(8, 8 + 100)]).to.deep.equal([
      ...fragment(THREE[0]!).subarray(0, 100),
    ]);
    expect(error!.body.length, 'the whole fragment').to.equal(8 + fragment(THREE[0]!).length);
    expect(h.stat6.ip6s_fragtimeout).to.equal(2);
    expect(V_frag6(h.vnet).fragpackets).to.equal(0);
  });

  it('merges ECN as RFC 3168, 5.3 says', () => {
    h.udp6(53);
    send({ ...THREE[0]!, tclass: 2 }, { ...THREE[1]!, tclass: 3 }, { ...THREE[2]!, tclass: 2 });
    expect(got()).to.equal(true);
    send({ ...THREE[0]!, tclass: 2, id: 9 }, { ...THREE[1]!, tclass: 0, id: 9 });
    expect(h.stat6.ip6s_fragdropped).to.equal(1);
    // An error about the packet shows the traffic class that it got: that of the first fragment, and CE.
    V_frag6(h.vnet).drain();
    inPass(soclose, h.sockets.pop()!);
    send({ ...THREE[0]!, tclass: 0xb9 }, { ...THREE[1]!, tclass: 3 }, { ...THREE[2]!, tclass: 1 });
    const [error] = h.take6();
    expect([...error!.body.subarray(8, 10)]).to.deep.equal([0x6b, 0xb0]);
  });

  it('limits packets, fragments, fragments of a packet and packets of a bucket', () => {
    const f = V_frag6(h.vnet);
    const flood = (n: number): void => {
      for (let id = 0; id < n; id++) send({ ...THREE[0]!, id });
    };
    f.maxfragpackets = 50;
    flood(200);
    expect([f.fragpackets, f.frags]).to.deep.equal([50, 50]);
    f.drain();
    f.maxfragpackets = -1;
    f.maxfrags = 40;
    flood(200);
    expect([f.fragpackets, f.frags]).to.deep.equal([40, 40]);
    f.drain();
    f.maxfrags = -1;
    f.maxfragbucketsize = 1;
    flood(3000);
    expect(f.fragpackets).to.be.within(900, 1024);
    f.drain();
    for (let i = 0; i < 65; i++) send({ from: i * 8, to: i * 8 + 8 });
    expect(f.frags, 'fragments of a packet').to.equal(0);
    f.maxfragpackets = 0;
    flood(1);
    expect([f.fragpackets, f.frags]).to.deep.equal([0, 0]);
    f.maxfragpackets = -1;
    f.maxfragsperpacket = 0;
    flood(1);
    expect([f.fragpackets, f.frags]).to.deep.equal([0, 0]);
    expect(mbufZones().clust.current).to.equal(0);
  });
});
