/** The owner of a frame among workers: the addon and TypeScript agree, on all bytes. */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { loadAddon } from '../../native-bindings/index.ts';
import { AF_INET, AF_INET6 } from '../../src/kern/protosw.ts';
import { EVERY_WORKER, flowOwner, type FlowRule, SharedAddress } from '../../src/net/flow_owner.ts';
import { runs } from '../support/property.ts';

const PORT = 80;
const rule = (workers = 8, seed = 1): FlowRule => ({ workers, port: PORT, seed });

function native(r: FlowRule, frame: Uint8Array): number {
  return loadAddon().flowOwner(frame, r.workers, r.port, r.seed);
}

/** The owner, which both must give. */
function owner(frame: Uint8Array, r = rule()): number {
  const there = flowOwner(r, frame);
  expect(native(r, frame), Buffer.from(frame).toString('hex')).to.equal(there);
  return there;
}

const be16 = (n: number): number[] => [n >> 8, n & 255];
const ether = (type: number, ...rest: number[][]): Uint8Array =>
  Uint8Array.from([...Array.from({ length: 12 }, () => 2), ...be16(type), ...rest.flat()]);
const tcp = (sport: number, dport: number): number[] => [
  ...be16(sport),
  ...be16(dport),
  ...Array.from({ length: 16 }, () => 0),
];

interface Ip4 {
  readonly proto?: number;
  readonly frag?: number;
  readonly options?: number;
}
const THEM = [198, 51, 100, 7];
const US = [192, 0, 2, 2];
const ip4 = (
  src: number[],
  dst: number[],
  payload: number[],
  { proto = 6, frag = 0, options = 0 }: Ip4 = {},
): number[] => [
  0x45 + options,
  0,
  ...be16(20 + 4 * options + payload.length),
  0,
  1,
  ...be16(frag),
  64,
  proto,
  0,
  0,
  ...src,
  ...dst,
  ...Array.from({ length: 4 * options }, () => 1),
  ...payload,
];
const THEM6 = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const US6 = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const ip6 = (src: number[], dst: number[], payload: number[], nxt = 6): number[] => [
  0x60,
  0,
  0,
  0,
  ...be16(payload.length),
  nxt,
  64,
  ...src,
  ...dst,
  ...payload,
];
/** The fields of InConninfo; the zone of a link-local address is 1. */
const LINK_LOCAL = {
  inc_family: AF_INET6,
  inc_f0: 0xfe80_0001 | 0,
  inc_f1: 0,
  inc_f2: 0,
  inc_f3: 9,
  inc_l0: 0xfe80_0001 | 0,
  inc_l1: 0,
  inc_l2: 0,
  inc_l3: 9,
};
const ADDRS4 = {
  inc_family: AF_INET,
  inc_f0: 0xc633_6407 | 0,
  inc_f1: 0,
  inc_f2: 0,
  inc_f3: 0,
  inc_l0: 0xc000_0202 | 0,
  inc_l1: 0,
  inc_l2: 0,
  inc_l3: 0,
};
const icmp = (type: number, quoted: number[]): number[] => [type, 0, 0, 0, 0, 0, 0, 0, ...quoted];

const IP = 0x0800;
const IP6 = 0x86dd;

describe('equivalence: the owner of a frame', () => {
  it('spreads the connections to the served port evenly, and keeps each at its worker', () => {
    for (const [family, src, dst] of [
      [4, THEM, US],
      [6, THEM6, US6],
    ] as const) {
      const counts = Array.from({ length: 8 }, () => 0);
      for (let port = 1024; port < 9216; port++) {
        const segment = tcp(port, PORT);
        const frame =
          family === 4 ? ether(IP, ip4(src, dst, segment)) : ether(IP6, ip6(src, dst, segment));
        counts[owner(frame)]!++;
      }
      for (const n of counts) expect(n).to.be.within(900, 1150);
    }
  });

  it('gives an ICMP error to the worker of the connection that it quotes', () => {
    for (let port = 40_000; port < 40_064; port++) {
      const mine = owner(ether(IP, ip4(THEM, US, tcp(port, PORT))));
      const quoted = ip4(US, THEM, tcp(PORT, port), { options: 2 });
      const router = [203, 0, 113, 1];
      for (const type of [3, 4, 5, 11, 12])
        expect(owner(ether(IP, ip4(router, US, icmp(type, quoted), { proto: 1 })))).to.equal(mine);
      const mine6 = owner(ether(IP6, ip6(THEM6, US6, tcp(port, PORT))));
      const quoted6 = ip6(US6, THEM6, tcp(PORT, port));
      for (const type of [1, 2, 3, 4])
        expect(owner(ether(IP6, ip6(THEM6, US6, icmp(type, quoted6), 58)))).to.equal(mine6);
    }
  });

  it('finds the connection behind a VLAN tag, options and extension headers', () => {
    const plain = owner(ether(IP, ip4(THEM, US, tcp(5000, PORT))));
    const tagged = ether(0x8100, [0, 5], be16(IP), ip4(THEM, US, tcp(5000, PORT)));
    expect(owner(tagged)).to.equal(plain);
    expect(owner(ether(IP, ip4(THEM, US, tcp(5000, PORT), { options: 3 })))).to.equal(plain);
    const plain6 = owner(ether(IP6, ip6(THEM6, US6, tcp(5000, PORT))));
    const hopopts = [60, 0, 0, 0, 0, 0, 0, 0];
    const dstopts = [44, 1, ...Array.from({ length: 14 }, () => 0)];
    const atomic = [6, 0, 0, 0, 0, 0, 0, 9];
    const chain = [...hopopts, ...dstopts, ...atomic, ...tcp(5000, PORT)];
    expect(owner(ether(IP6, ip6(THEM6, US6, chain, 0)))).to.equal(plain6);
  });

  it('gives ARP, neighbour and router discovery, and fragments of TCP to all', () => {
    expect(
      owner(
        ether(
          0x0806,
          Array.from({ length: 28 }, () => 0),
        ),
      ),
    ).to.equal(EVERY_WORKER);
    for (const type of [133, 134, 135, 136, 137])
      expect(owner(ether(IP6, ip6(THEM6, US6, icmp(type, []), 58)))).to.equal(EVERY_WORKER);
    for (const frag of [0x2000, 0x2001, 100])
      expect(owner(ether(IP, ip4(THEM, US, tcp(1, PORT), { frag })))).to.equal(EVERY_WORKER);
    const first6 = [6, 0, 0, 1, 0, 0, 0, 9, ...tcp(1, PORT)];
    expect(owner(ether(IP6, ip6(THEM6, US6, first6, 44)))).to.equal(EVERY_WORKER);
  });

  it('gives everything else to worker 0', () => {
    const frames = [
      ether(IP, ip4(THEM, US, tcp(5000, 81))),
      ether(IP, ip4(THEM, US, tcp(PORT, 5000))),
      ether(IP, ip4(THEM, US, tcp(5000, PORT), { proto: 17 })),
      ether(IP, ip4(THEM, US, tcp(5000, PORT), { proto: 17, frag: 0x2000 })),
      ether(IP, ip4(THEM, US, icmp(8, []), { proto: 1 })),
      ether(IP6, ip6(THEM6, US6, icmp(128, []), 58)),
      ether(IP6, ip6(THEM6, US6, icmp(143, []), 58)),
      ether(
        0x88cc,
        Array.from({ length: 50 }, () => 0),
      ),
    ];
    for (const frame of frames) expect(owner(frame)).to.equal(0);
  });

  it('is the same in the addon for any bytes, at any length', () => {
    const start = fc.constantFrom(
      ether(IP, ip4(THEM, US, tcp(5000, PORT))),
      ether(IP, ip4(THEM, US, icmp(3, ip4(US, THEM, tcp(PORT, 5000))), { proto: 1 })),
      ether(
        IP6,
        ip6(THEM6, US6, [44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 1, ...tcp(7, PORT)], 0),
      ),
      ether(IP6, ip6(THEM6, US6, icmp(2, ip6(US6, THEM6, tcp(PORT, 7))), 58)),
      ether(0x8100, [0, 5], be16(IP), ip4(THEM, US, tcp(5000, PORT))),
    );
    const change = fc.tuple(fc.nat(400), fc.nat(255));
    const cut = fc.nat(300);
    fc.assert(
      fc.property(
        start,
        fc.array(change, { maxLength: 6 }),
        cut,
        fc.integer(),
        (base, changes, n, seed) => {
          const frame = new Uint8Array(300);
          frame.set(base);
          for (const [at, value] of changes) if (at < 300) frame[at] = value;
          owner(frame.subarray(0, n), rule(1 + (seed & 63), seed >>> 0));
        },
      ),
      runs(3000),
    );
  });

  it('agrees with the stack, which knows link-local addresses with their zone', () => {
    const linkLocal = [0xfe, 0x80, ...Array.from({ length: 13 }, () => 0), 9];
    const r = rule(16, 99);
    for (let fport = 2000; fport < 2100; fport++) {
      const wire = owner(ether(IP6, ip6(linkLocal, linkLocal, tcp(fport, PORT))), r);
      const wire4 = owner(ether(IP, ip4(THEM, US, tcp(fport, PORT))), r);
      const ports = { inc_fport: fport, inc_lport: PORT };
      const inc6 = { ...ports, ...LINK_LOCAL };
      const inc4 = { ...ports, ...ADDRS4 };
      for (let self = 0; self < 16; self++) {
        const share = new SharedAddress(r, self);
        expect(share.ownsTcp(inc6)).to.equal(self === wire);
        expect(share.ownsTcp(inc4)).to.equal(self === wire4);
        expect(share.ownsTcp({ ...inc4, inc_lport: 81 })).to.equal(self === 0);
      }
    }
  });
});
