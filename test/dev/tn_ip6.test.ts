/** IPv6 in the offloads of `tn`: extension headers, fragments, the two families apart. */

import { expect } from 'chai';
import {
  TN_CTRL_LRO,
  TN_CTRL_RXCSUM,
  TN_CTRL_RXCSUM6,
  TN_FEAT_RXCSUM,
  TN_FEAT_RXCSUM6,
  TN_FEAT_TSO6,
  TN_FEAT_TXSM6,
  TN_FEATURES,
  TN_RX_EXTHDRS,
  TN_RX_L3_MAX,
  TN_RXS_DD,
  TN_RXS_EOP,
  TN_RXS_IPCS,
  TN_RXS_L4CS,
  TN_RXS_L4E,
  TN_ST_RX_L4_ERROR,
  TN_TXD_TCP,
  TN_TXD_TSE,
  TN_TXD_TXSM,
  TN_TXD_V6,
} from '../../src/dev/tn/tnreg.ts';
import {
  DSTOPTS,
  type ExtHeader,
  extLen,
  FRAGMENT,
  HOPOPTS,
  judge,
  makePacket,
  payloadBytes,
  type PacketOptions,
  ROUTING,
} from './judge.ts';
import { Rig } from './tn_rig.ts';

const WHOLE = (TN_RXS_DD | TN_RXS_EOP) >>> 0;
const BOTH = TN_CTRL_RXCSUM | TN_CTRL_RXCSUM6;
const AUTHENTICATION = 51;

const packet6 = (o: Partial<PacketOptions> = {}): Uint8Array =>
  makePacket({ payload: 100, cksum: 'full', v6: true, ...o });

/** The status bits of a received frame without DD and EOP. */
function verdict(frame: Uint8Array, ctrl = BOTH): number {
  const rig = new Rig().start(ctrl);
  rig.postAll();
  rig.wire.inject(frame);
  expect(rig.rxBytes(0, frame.length)).to.deep.equal(frame);
  return (rig.rx(0).status ^ WHOLE) >>> 0;
}

/** Every order of the three headers that the device skips in which hop-by-hop options are first. */
const CHAINS: readonly ExtHeader[][] = [
  [{ type: HOPOPTS }],
  [{ type: DSTOPTS, units: 3 }],
  [{ type: ROUTING, units: 2 }],
  [{ type: HOPOPTS, units: 1 }, { type: DSTOPTS }, { type: ROUTING }, { type: DSTOPTS, units: 2 }],
  [{ type: ROUTING }, { type: DSTOPTS }],
];

describe('tn: IPv6 offloads', () => {
  it('lists them in TN_FEATURES', () => {
    const bits = TN_FEAT_TXSM6 | TN_FEAT_RXCSUM6 | TN_FEAT_TSO6;
    for (const mode of ['wire', 'vnet'] as const)
      expect(new Rig({ mode }).r(TN_FEATURES) & bits).to.equal(bits);
    expect(TN_FEAT_RXCSUM6).not.to.equal(TN_FEAT_RXCSUM);
  });

  it('verifies only the families that TN_CTRL enables', () => {
    for (const [ctrl, v4, v6] of [
      [0, false, false],
      [TN_CTRL_RXCSUM, true, false],
      [TN_CTRL_RXCSUM6, false, true],
      [BOTH, true, true],
    ] as const) {
      const four = makePacket({ payload: 9, cksum: 'full' });
      expect(verdict(four, ctrl)).to.equal(v4 ? TN_RXS_IPCS | TN_RXS_L4CS : 0);
      expect(verdict(packet6(), ctrl)).to.equal(v6 ? TN_RXS_L4CS : 0);
    }
  });

  describe('checksum verdict behind extension headers', () => {
    for (const udp of [false, true])
      for (const vlan of [undefined, 7])
        it(`${udp ? 'UDP' : 'TCP'}${vlan === undefined ? '' : ', with a VLAN tag'}`, () => {
          for (const exts of CHAINS)
            for (const payload of [0, 1, 101, 1200]) {
              const o = { exts, udp, payload, ...(vlan === undefined ? {} : { vlan }) };
              expect(verdict(packet6(o)), JSON.stringify(o)).to.equal(TN_RXS_L4CS);
              expect(verdict(packet6({ ...o, spoil: 1 }))).to.equal(TN_RXS_L4CS | TN_RXS_L4E);
            }
        });

    it('is absent for every fragment, also an atomic one, and wherever its header stands', () => {
      for (const exts of [
        [{ type: FRAGMENT }],
        [{ type: HOPOPTS }, { type: FRAGMENT }],
        [{ type: FRAGMENT }, { type: DSTOPTS }],
        [{ type: ROUTING }, { type: FRAGMENT }],
      ]) {
        for (const field of [0, 1, 8, 0xfff9]) {
          const frame = packet6({ exts });
          const at =
            54 +
            extLen(
              exts.slice(
                0,
                exts.findIndex(({ type }) => type === FRAGMENT),
              ),
            );
          frame.set([field >>> 8, field & 0xff], at + 2);
          expect(verdict(frame)).to.equal(0);
        }
      }
    });

    it('is absent for a routing header with segments left', () => {
      expect(verdict(packet6({ exts: [{ type: ROUTING, left: 0 }] }))).to.equal(TN_RXS_L4CS);
      expect(verdict(packet6({ exts: [{ type: ROUTING, left: 1 }] }))).to.equal(0);
      expect(
        verdict(packet6({ exts: [{ type: HOPOPTS }, { type: ROUTING, left: 255 }] })),
      ).to.equal(0);
    });

    it('is absent for an unknown header, and for hop-by-hop options that are not first', () => {
      for (const type of [AUTHENTICATION, 50, 59, 135, 139, 140, 253, 58])
        expect(verdict(packet6({ exts: [{ type }] })), `${type}`).to.equal(0);
      expect(verdict(packet6({ exts: [{ type: DSTOPTS }, { type: HOPOPTS }] }))).to.equal(0);
      expect(verdict(packet6({ exts: [{ type: HOPOPTS }, { type: HOPOPTS }] }))).to.equal(0);
    });

    it('is absent past the limits of the chain', () => {
      const chain = (n: number): ExtHeader[] =>
        Array.from({ length: n }, () => ({ type: DSTOPTS }));
      expect(verdict(packet6({ exts: chain(TN_RX_EXTHDRS) }))).to.equal(TN_RXS_L4CS);
      expect(verdict(packet6({ exts: chain(TN_RX_EXTHDRS + 1) }))).to.equal(0);
      const units = (TN_RX_L3_MAX - 40) / 8 - 1;
      expect(verdict(packet6({ exts: [{ type: DSTOPTS, units }] }))).to.equal(TN_RXS_L4CS);
      expect(verdict(packet6({ exts: [{ type: DSTOPTS, units: units + 1 }] }))).to.equal(0);
    });

    it('is absent if a length lies: header, payload, frame, UDP, version', () => {
      const changed = (o: Partial<PacketOptions>, ...bytes: [number, number][]): number => {
        const frame = packet6(o);
        for (const [off, byte] of bytes) frame[off] = byte;
        return verdict(frame);
      };
      const exts = [{ type: HOPOPTS, units: 1 }];
      // The TCP header is looked for 8 bytes too late.
      expect(changed({ exts }, [55, 2])).to.equal(TN_RXS_L4CS | TN_RXS_L4E);
      expect(changed({ exts }, [55, 255])).to.equal(0);
      expect(changed({ exts }, [18, 0], [19, 0]), 'payload length 0: a jumbogram').to.equal(0);
      expect(changed({ exts }, [18, 0], [19, 7]), 'payload ends in the header').to.equal(0);
      expect(changed({ exts }, [18, 0], [19, 16]), 'payload ends at the header').to.equal(0);
      expect(changed({ exts }, [18, 255]), 'payload longer than the frame').to.equal(0);
      expect(changed({ udp: true }, [59, 1]), 'UDP length').to.equal(0);
      expect(changed({ udp: true }, [60, 0], [61, 0]), 'UDP without a checksum').to.equal(0);
      expect(changed({}, [14, 0x40]), 'version 4').to.equal(0);
      const cut = packet6({ exts: [{ type: DSTOPTS, units: 4 }] });
      for (const len of [53, 54, 55, 61, 62, 93, 94, 95, 101, 113])
        expect(verdict(cut.slice(0, len)), `${len} bytes`).to.equal(0);
    });

    it('counts no error for a frame without verdict', () => {
      const rig = new Rig().start(BOTH);
      rig.postAll();
      rig.wire.inject(packet6({ exts: [{ type: FRAGMENT }], spoil: 1 }));
      expect(rig.dev.stats[TN_ST_RX_L4_ERROR]).to.equal(0);
      rig.wire.inject(packet6({ exts: [{ type: DSTOPTS }], spoil: 1 }));
      expect(rig.dev.stats[TN_ST_RX_L4_ERROR]).to.equal(1);
    });
  });

  it('coalesces no segments with extension headers', () => {
    const rig = new Rig().start(BOTH | TN_CTRL_LRO);
    rig.postAll();
    rig.wire.readable = false;
    for (const seq of [1, 101, 201]) rig.wire.inject(packet6({ seq, exts: [{ type: DSTOPTS }] }));
    rig.wire.readable = true;
    rig.wire.notify();
    const good = (WHOLE | TN_RXS_L4CS) >>> 0;
    for (const slot of [0, 1, 2])
      expect(rig.rx(slot)).to.deep.equal({ status: good, len: 182, tag: 0 });
  });

  describe('receive in mode vnet', () => {
    const inject = (ctrl: number, flags: number, frame: Uint8Array, l4: number, field: number) => {
      const rig = new Rig({ mode: 'vnet' }).start(ctrl);
      rig.postAll();
      const hdr = [flags, 0, 0, 0, 0, 0, l4, 0, field, 0, 0, 0];
      rig.wire.injectRaw(Uint8Array.from([...hdr, ...frame]));
      return { status: (rig.rx(0).status ^ WHOLE) >>> 0, bytes: rig.rxBytes(0, frame.length) };
    };

    it('accepts NEEDS_CSUM and DATA_VALID without summing, and leaves the frame unchanged', () => {
      for (const exts of [[], ...CHAINS])
        for (const udp of [false, true])
          for (const flags of [1, 2]) {
            const frame = packet6({ exts, udp, cksum: 'pseudo' });
            const got = inject(BOTH, flags, frame, 54 + extLen(exts), udp ? 6 : 16);
            expect(got).to.deep.equal({ status: TN_RXS_L4CS, bytes: frame });
          }
    });

    it('completes the checksum of a frame that gets no verdict: family off, unknown header', () => {
      const frag = [{ type: FRAGMENT }];
      for (const [ctrl, exts] of [
        [0, []],
        [TN_CTRL_RXCSUM, []],
        [TN_CTRL_RXCSUM, CHAINS[3]!],
        [BOTH, frag],
        [BOTH, [{ type: AUTHENTICATION }]],
      ] as const) {
        for (const udp of [false, true]) {
          const frame = packet6({ exts, udp, cksum: 'pseudo' });
          const got = inject(ctrl, 1, frame, 54 + extLen(exts), udp ? 6 : 16);
          expect(got).to.deep.equal({ status: 0, bytes: packet6({ exts, udp }) });
        }
      }
      // IPv4 with only RXCSUM6.
      const four = makePacket({ payload: 20, cksum: 'full' });
      const left = four.slice();
      left.set(makePacket({ payload: 20, cksum: 'pseudo' }).subarray(50, 52), 50);
      expect(inject(TN_CTRL_RXCSUM6, 1, left, 34, 16)).to.deep.equal({ status: 0, bytes: four });
    });
  });

  describe('transmit', () => {
    for (const exts of CHAINS) {
      const l3 = 40 + extLen(exts);
      const name = exts.map(({ type }) => type).join(', ');

      it(`computes checksums and segments behind headers ${name}`, () => {
        const rig = new Rig().start();
        const v6 = TN_TXD_V6 | TN_TXD_TXSM;
        rig.context({ cmd: v6, l3, l4: 8 });
        rig.packet(packet6({ exts, udp: true, payload: 333, cksum: 'pseudo' }), [15, 50]);
        rig.context({ cmd: v6 | TN_TXD_TCP, l3, l4: 32 });
        rig.packet(packet6({ exts, payload: 333, tcpOptions: 12, cksum: 'pseudo' }), [60]);
        rig.context({ cmd: v6 | TN_TXD_TCP | TN_TXD_TSE, l3, l4: 20, mss: 1000 });
        rig.packet(packet6({ exts, payload: 4001, cksum: 'tso', thFlags: 0x19 }), [70, 999]);
        rig.doorbell();
        const got = rig.wire.sent.map((f) => judge(f));
        expect(got.length).to.equal(2 + 5);
        expect(got.slice(0, 2).map(({ payload }) => payload.length)).to.deep.equal([333, 333]);
        const segments = got.slice(2);
        expect(segments.flatMap(({ payload }) => [...payload])).to.deep.equal([
          ...payloadBytes(4001),
        ]);
        expect(segments.map(({ seq }) => seq)).to.deep.equal([1, 1001, 2001, 3001, 4001]);
        // The chain is unchanged in each TCP frame.
        const chain = packet6({ exts }).subarray(54, 14 + l3);
        for (const f of rig.wire.sent.slice(1))
          expect(f.subarray(54, 14 + l3)).to.deep.equal(chain);
      });

      it(`leaves both to the peer in mode vnet, behind headers ${name}`, () => {
        const rig = new Rig({ mode: 'vnet' }).start();
        const cmd = TN_TXD_V6 | TN_TXD_TCP | TN_TXD_TSE;
        rig.context({ cmd, l3, l4: 20, mss: 1000 });
        rig.packet(packet6({ exts, payload: 4001, cksum: 'tso' }), [70, 999]);
        rig.doorbell();
        const sent = rig.wire.sent[0]!;
        const l4 = 14 + l3;
        const words = [0x401, l4 + 20, 1000, l4, 16, 0];
        const hdr = words.flatMap((word) => [word & 0xff, word >> 8]);
        expect([...sent.subarray(0, 12)]).to.deep.equal(hdr);
        const want = packet6({ exts, payload: 4001, cksum: 'pseudo' });
        expect([...sent.subarray(12)]).to.deep.equal([...want]);
      });
    }
  });
});
